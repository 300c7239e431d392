//! Encoders of `splade eval-mteb`, with the check that queries are encoded by the right side.

use anyhow::Result;
use splade_core::{Encoder, PassageSplitter};
use splade_files::{Architecture, ModelDir};

use super::conditions::Conditions;
use super::examined::is_full;
use crate::cli::{EvalMtebArgs, Mode};
use crate::encoders::{named_encoder, static_query_encoder};
use crate::evaluation::{Encoders, Lengths, Side, VectorCache};
use crate::failure::bad_input;

/// Refuses the folder of a router's network: its queries would be encoded by the network, not by the query table.
pub(super) fn refuse_part_of_router(model: &ModelDir) -> Result<()> {
    if model.architecture() == Architecture::InferenceFree {
        return Ok(());
    }
    let folder = std::fs::canonicalize(model.root()).map_err(splade_files::Error::io(model.root()))?;
    let above = folder.parent().filter(|above| above.join("router_config.json").is_file());
    let lost = match above {
        Some(above) => Some(format!("it is a part of {}, a router that encodes queries by a table", above.display())),
        None => states_query_table(model).then(|| "its model card says that queries have a static table".to_owned()),
    };
    match lost {
        None => Ok(()),
        Some(why) => Err(bad_input(
            format!("{}: queries would be encoded by the network: {why}", model.root().display()),
            "name the folder with router_config.json, which has the query table too",
        )),
    }
}

/// True if the model card has the tag `inference-free`.
fn states_query_table(model: &ModelDir) -> bool {
    let card = std::fs::read_to_string(model.root().join("README.md")).unwrap_or_default();
    let front = card.strip_prefix("---").and_then(|rest| rest.split_once("\n---")).map_or("", |(front, _)| front);
    front.lines().any(|line| line.contains("inference-free"))
}

/// Encoders of the model. BM25 and dense search alone need no sparse vectors, so the network does not run.
pub(super) fn encoders<'a>(
    model: &'a ModelDir,
    conditions: &Conditions,
    cache: &VectorCache,
    args: &'a EvalMtebArgs,
) -> Result<Encoders<'a>> {
    if args.modes.iter().all(|mode| matches!(mode, Mode::Bm25 | Mode::Dense))
        && !args.analyze_sparsity
        && !is_full(args)
    {
        let dimensions = model.dimensions()?;
        return Ok(Encoders {
            query: Side::none("query", dimensions),
            document: Side::none("document", dimensions),
            dense: None,
        });
    }
    let is_table = model.architecture() == Architecture::InferenceFree;
    let query_lengths = match is_table {
        true => Lengths::of(model.query_encoder()?.vocabulary(), false, model.query_prompt())?,
        false => lengths(model, model.query_prompt(), args)?,
    };
    let document_lengths = lengths(model, model.document_prompt(), args)?;
    let open_query = move || match is_table {
        true => {
            Ok((Box::new(static_query_encoder(model, &args.network)?) as Box<dyn Encoder>, "query table".to_owned()))
        }
        false => network(model, model.query_prompt(), args),
    };
    let open_document = move || network(model, model.document_prompt(), args);
    let vocabulary = model.vocabulary(args.network.max_length.map(|length| length as usize))?;
    let split = |length| PassageSplitter::new(&vocabulary, model.document_prompt(), model.lower_case(), length);
    let passages = args.passages.map(|length| Ok::<_, anyhow::Error>((length, split(length)?))).transpose()?;
    let side = |role, lengths, open| Side::cached(role, cache.clone(), conditions.encoder(role), lengths, open);
    Ok(Encoders {
        query: side("query", query_lengths, Box::new(open_query) as _),
        document: side("document", document_lengths, Box::new(open_document) as _).splitting(passages),
        dense: None,
    })
}

fn network(model: &ModelDir, prompt: &str, args: &EvalMtebArgs) -> Result<(Box<dyn Encoder>, String)> {
    let (encoder, backend) = named_encoder(model, &args.network, prompt)?;
    Ok((Box::new(encoder), backend.to_owned()))
}

fn lengths(model: &ModelDir, prompt: &str, args: &EvalMtebArgs) -> Result<Option<Lengths>> {
    let vocabulary = model.vocabulary(args.network.max_length.map(|length| length as usize))?;
    Lengths::of(&vocabulary, true, prompt)
}
