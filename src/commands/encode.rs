//! `splade encode`: texts → sparse vectors, one batch after the other.

mod shard;

use std::path::Path;

use anyhow::Result;
use splade_core::{Encoder, SparseVector, encode_stream};
use splade_files::{ModelDir, add_row, read_texts, write_tokens, write_vector};

use self::shard::ShardOutput;
use super::interrupt;
use crate::cli::{EncodeArgs, NetworkArgs, Role, VectorFormat};
use crate::console;
use crate::encoders::{named_encoder, named_query_encoder, read_as};
use crate::hub::{self, Wants};
use crate::outputs::{Output, refuse_existing};
use crate::share::{Share, warn_of_batches};

pub(crate) fn run(args: &EncodeArgs) -> Result<()> {
    let pruning = args.pruning()?;
    let wants = Wants::encoder(&args.network);
    let model = match args.role {
        Role::Query => hub::open(&args.model, wants.only_queries())?,
        Role::Document => hub::open(&args.model, wants)?,
    };
    let model = read_as(model, &args.network.reading)?;
    let share = Share::of(&args.share);
    let read = |share: Option<Share>| texts(&args.input, share);
    // a file with a manifest may be the shard itself, and stdin can be opened only once
    let may_be_shard = share.is_some() && args.file().is_some_and(shard::has_manifest);
    let early = match args.file() {
        _ if may_be_shard => None,
        Some(path) => {
            refuse_existing(path, args.overwrite)?;
            Some(read(share.clone())?)
        }
        None => Some(read(share.clone())?),
    };
    let (encoder, backend) = encoder(&model, args.role, &args.network)?;
    if share.is_some() {
        warn_of_batches(&args.network, backend);
    }
    let mut shard = share.clone().map(|share| ShardOutput::new(share, &model, args, backend)).transpose()?;
    if let Some(shard) = &shard
        && !args.overwrite
        && shard.is_complete(|share| read(Some(share))?.try_for_each(|text| text.map(drop)))?
    {
        return Ok(());
    }
    let texts = match early {
        Some(texts) => texts,
        None => read(share)?,
    };
    let mut output = Output::open(args.output.as_deref(), args.overwrite)?;
    let vocabulary = model.vocabulary(None)?;
    let token = |dim: u32| vocabulary.token(dim).unwrap_or_else(|| format!("[{dim}]"));
    let bar = console::progress("encoding", None);
    let mut line = Vec::new();
    encode_stream(
        encoder.as_ref(),
        texts,
        |text| text.text.clone(),
        |text, vector| -> Result<()> {
            interrupt::check()?;
            line.clear();
            write_line(&mut line, args.format, &text.id, &pruning.apply(vector), token)?;
            if let Some(shard) = &mut shard {
                add_row(&mut line, text.row);
                shard.add(&line);
            }
            output.write_bytes(&line)?;
            bar.inc(1);
            Ok(())
        },
    )?;
    let (count, elapsed) = (bar.position(), bar.elapsed().as_secs_f64());
    bar.finish_and_clear();
    let read = shard.as_ref().map_or(count, ShardOutput::documents_read);
    if read == 0 {
        tracing::warn!("{}: there are no texts in it", args.input.display());
    }
    let rate = count as f64 / elapsed.max(1e-9);
    let digits = if rate < 100.0 { 2 } else { 0 };
    tracing::info!("{count} texts in {elapsed:.1} s ({rate:.digits$} per second)");
    if let Some(shard) = shard {
        output.sync()?;
        shard.write_manifest()?;
    }
    output.finish()
}

/// A text to encode, and its position in the input.
struct Text {
    row: u64,
    id: String,
    text: String,
}

/// Texts of the input; with a share, those of its shard.
fn texts(input: &Path, share: Option<Share>) -> Result<impl Iterator<Item = Result<Text>> + use<>> {
    let rows = (0..).zip(read_texts(input)?);
    Ok(rows.filter_map(move |(row, text)| {
        let text = match text {
            Ok(text) => text,
            Err(error) => return Some(Err(error.into())),
        };
        let is_ours =
            share.as_ref().is_none_or(|share| share.take(&text.id, |digest| digest.add_text(&text.id, &text.text)));
        is_ours.then_some(Ok(Text { row, id: text.id, text: text.text }))
    }))
}

/// Encoder of a side of the model, and the name of its backend.
fn encoder(model: &ModelDir, role: Role, network: &NetworkArgs) -> Result<(Box<dyn Encoder>, &'static str)> {
    match role {
        Role::Query => named_query_encoder(model, network),
        Role::Document => {
            let (encoder, backend) = named_encoder(model, network, model.document_prompt())?;
            Ok((Box::new(encoder), backend))
        }
    }
}

fn write_line(
    line: &mut Vec<u8>,
    format: VectorFormat,
    id: &str,
    vector: &SparseVector,
    token: impl Fn(u32) -> String,
) -> Result<()> {
    match format {
        VectorFormat::Indices => write_vector(line, id, vector)?,
        VectorFormat::Tokens => write_tokens(line, id, vector, token)?,
    }
    Ok(())
}
