//! `splade encode`: texts → sparse vectors, one batch after the other.

use anyhow::Result;
use splade_core::{Encoder, encode_stream};
use splade_files::{InputText, read_texts, write_tokens, write_vector};

use super::interrupt;
use crate::cli::{EncodeArgs, Role, VectorFormat};
use crate::encoders::{document_encoder, query_encoder, read_as};
use crate::hub::{self, Wants};
use crate::{console, outputs::Output};

pub(crate) fn run(args: &EncodeArgs) -> Result<()> {
    let pruning = args.pruning()?;
    let wants = Wants::encoder(&args.network);
    let model = match args.role {
        Role::Query => hub::open(&args.model, wants.only_queries())?,
        Role::Document => hub::open(&args.model, wants)?,
    };
    let model = read_as(model, &args.network.reading)?;
    let texts = read_texts(&args.input)?.map(|text| text.map_err(anyhow::Error::from));
    let mut output = Output::open(args.output.as_deref(), args.overwrite)?;
    let encoder: Box<dyn Encoder> = match args.role {
        Role::Query => query_encoder(&model, &args.network)?,
        Role::Document => Box::new(document_encoder(&model, &args.network)?),
    };
    let vocabulary = model.vocabulary(None)?;
    let token = |dim: u32| vocabulary.token(dim).unwrap_or_else(|| format!("[{dim}]"));
    let bar = console::progress("encoding", None);
    let text_of = |text: &InputText| text.text.clone();
    encode_stream(encoder.as_ref(), texts, text_of, |text, vector| -> Result<()> {
        interrupt::check()?;
        let vector = pruning.apply(vector);
        match args.format {
            VectorFormat::Indices => output.put(|output| write_vector(output, &text.id, &vector))?,
            VectorFormat::Tokens => output.put(|output| write_tokens(output, &text.id, &vector, token))?,
        }
        bar.inc(1);
        Ok(())
    })?;
    let (count, elapsed) = (bar.position(), bar.elapsed().as_secs_f64());
    bar.finish_and_clear();
    if count == 0 {
        tracing::warn!("{}: there are no texts in it", args.input.display());
    }
    let rate = count as f64 / elapsed.max(1e-9);
    let digits = if rate < 100.0 { 2 } else { 0 };
    tracing::info!("{count} texts in {elapsed:.1} s ({rate:.digits$} per second)");
    output.finish()
}
