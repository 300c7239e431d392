//! `splade search`: queries → hits, ranked by impact, by BM25, or by both fused.

mod batch;
mod stats;
pub(crate) mod table;
mod warm;

use std::path::Path;

use anyhow::Result;
use splade_core::{Fusion, FusionParameters};
use splade_eval::Run;
use splade_files::{Architecture, Query, read_queries};
use splade_index::{Filter, Found, ImpactIndex, SearchOptions, to_ranking};

use crate::answer::{Answer, Answerer, QuerySide, SearchSettings, counts, to_json};
use crate::cli::{HitFormat, Mode, NetworkArgs, SearchArgs};
use crate::encoders::{query_encoder, read_as, use_threads};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::{Output, say};
use stats::Stats;

pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    use_threads(args.network.threads);
    if args.warm {
        warm::read_all(&args.index)?;
    }
    let index = ImpactIndex::open(&args.index)?;
    let format = if args.json { HitFormat::Json } else { args.format };
    if format == HitFormat::Trec && !args.count_by.is_empty() {
        return Err(bad_input("--count-by has no place in a TREC run", "use --format json"));
    }
    if args.query.is_none() && args.queries.is_none() {
        return count_without_query(&index, args, format);
    }
    let answerer = answerer(&index, args)?;
    if args.warm {
        // what was read is also checked before the first query
        answerer.searcher.warm()?;
    }
    let mut output = Output::open(None, false)?;
    let stats_file = match &args.stats {
        Some(Some(path)) => Some(Output::open(Some(path), args.overwrite)?),
        _ => None,
    };
    let mut stats = args.stats.is_some().then(Stats::start);
    let mut n_queries = 0_usize;
    let render = |query: &Query, answer: Answer| render(&answerer, args, format, query, answer);
    batch::answer_all(&answerer, queries(args)?, render, |answered| {
        output.write_bytes(&answered.text)?;
        if let Some(stats) = &mut stats {
            stats.add(answered.encoding_time, answered.search_time);
        }
        n_queries += 1;
        Ok(())
    })?;
    if n_queries == 0 {
        let path = args.queries.as_deref().unwrap_or(Path::new("-"));
        return Err(bad_input(
            format!("{}: there are no queries in it", path.display()),
            "one JSON object a line is needed: {\"_id\": \"q1\", \"text\": \"…\"}",
        ));
    }
    output.finish()?;
    if let Some(stats) = stats {
        stats.finish().report(stats_file)?;
    }
    Ok(())
}

fn answerer(index: &ImpactIndex, args: &SearchArgs) -> Result<Answerer> {
    let parameters = FusionParameters { rrf_k: args.rrf_k, weights: args.weights.to_vec() };
    // several queries are answered at once instead, one thread each
    let threads = if args.queries.is_some() { 1 } else { args.network.threads };
    Ok(Answerer {
        side: query_side(index, &args.index, args.mode, args.explain, args.model.as_deref(), &args.network)?,
        searcher: index.searcher()?,
        settings: SearchSettings {
            mode: args.mode,
            k: args.k,
            depth: args.depth,
            fusion: Fusion::named(&args.fusion, &parameters)?,
            options: SearchOptions { filter: filter(args)?, threads, ..SearchOptions::default() },
            explain: args.explain,
        },
    })
}

/// Lines of an answer in the requested format.
fn render(answerer: &Answerer, args: &SearchArgs, format: HitFormat, query: &Query, answer: Answer) -> Result<Vec<u8>> {
    let counted = answerer.count(query, &answer, &args.count_by)?;
    Ok(match format {
        HitFormat::Table => {
            let hits = table::render(query, &answerer.hits(query, answer)?, args.queries.is_some());
            (hits + &counts::to_text(&counted)).into_bytes()
        }
        HitFormat::Json => {
            let mut json = to_json(query, &answerer.hits(query, answer)?);
            if !counted.is_empty() {
                json["counts"] = counts::to_json(&counted);
            }
            format!("{json}\n").into_bytes()
        }
        HitFormat::Trec => trec_lines(query, answer.found)?,
    })
}

/// Counts the values of fields over all documents that pass the filter.
fn count_without_query(index: &ImpactIndex, args: &SearchArgs, format: HitFormat) -> Result<()> {
    if args.explain || args.stats.is_some() {
        return Err(bad_input(
            "--explain and --stats are about queries, and there is none",
            "give a query, or leave them out",
        ));
    }
    let counted = counts::count_all(&index.searcher()?, &args.count_by, filter(args)?.as_ref())?;
    match format {
        HitFormat::Json => say(serde_json::json!({"counts": counts::to_json(&counted)})),
        HitFormat::Table | HitFormat::Trec => say(counts::to_text(&counted).trim_end()),
    }
}

/// Lines of a TREC run with the hits of a query.
///
/// # Errors
/// An id that a TREC run cannot hold.
fn trec_lines(query: &Query, found: Vec<Found>) -> Result<Vec<u8>> {
    let run: Run = [(query.id.clone(), to_ranking(&found))].into_iter().collect();
    let mut lines = Vec::new();
    // a write to memory cannot fail, so the error is about an id
    run.write_trec(&mut lines, "splade")
        .map_err(|error| bad_input(error.to_string(), "use --format json, which holds any id"))?;
    Ok(lines)
}

fn queries(args: &SearchArgs) -> Result<Box<dyn Iterator<Item = Result<Query>> + Send>> {
    match (&args.query, &args.queries) {
        (Some(text), _) => Ok(Box::new(std::iter::once(Ok(Query { id: "1".into(), text: text.clone() })))),
        (None, Some(path)) => Ok(Box::new(read_queries(path)?.map(|query| query.map_err(Into::into)))),
        (None, None) => Err(bad_input("there is no query", "give one, or --queries FILE")),
    }
}

fn filter(args: &SearchArgs) -> Result<Option<Filter>> {
    Ok(args.filter.as_deref().map(str::parse).transpose()?)
}

/// Query side of `--model`, else of the index; none for BM25.
pub(super) fn query_side(
    index: &ImpactIndex,
    path: &Path,
    mode: Mode,
    explain: bool,
    model: Option<&Path>,
    network: &NetworkArgs,
) -> Result<Option<QuerySide>> {
    if mode == Mode::Bm25 {
        return Ok(None);
    }
    if let Some(folder) = model {
        let model = hub::open(folder, Wants::encoder(network).and_weights())?;
        let model = read_as(model, &network.reading)?;
        let vocabulary = model.vocabulary(None)?;
        let terms = u32::try_from(model.dimensions()?)?;
        let fingerprint = model.fingerprint_like(&index.settings().model_fingerprint)?;
        index.expect_model(terms, &fingerprint, vocabulary.fingerprint())?;
        let runs_network = model.architecture() == Architecture::Splade;
        return Ok(Some(QuerySide::new(query_encoder(&model, network)?, runs_network, &vocabulary, explain)?));
    }
    let encoder = index.read_query_encoder()?.ok_or_else(|| {
        bad_input(
            format!("{}: queries of this index go through the model's network", path.display()),
            "give the model folder with --model",
        )
    })?;
    let vocabulary = encoder.vocabulary().clone();
    Ok(Some(QuerySide::new(Box::new(encoder), false, &vocabulary, explain)?))
}
