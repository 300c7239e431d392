//! `splade search`: queries → hits, ranked by impact, by BM25, or by both fused.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use splade_core::{Fusion, FusionParameters};
use splade_eval::Run;
use splade_files::{Query, read_queries};
use splade_index::{Filter, Found, ImpactIndex, SearchOptions, to_ranking};

use super::interrupt;
use crate::answer::{AnswerHit, Answerer, QuerySide, SearchSettings, to_json};
use crate::cli::{HitFormat, Mode, NetworkArgs, SearchArgs};
use crate::console::Table;
use crate::encoders::{query_encoder, read_as, use_threads};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::Output;

pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    use_threads(args.network.threads);
    let index = ImpactIndex::open(&args.index)?;
    let parameters = FusionParameters { rrf_k: args.rrf_k, weights: args.weights.to_vec() };
    let answerer = Answerer {
        side: query_side(&index, &args.index, args.mode, args.explain, args.model.as_deref(), &args.network)?,
        searcher: index.searcher()?,
        settings: SearchSettings {
            mode: args.mode,
            k: args.k,
            depth: args.depth,
            fusion: Fusion::named(&args.fusion, &parameters)?,
            options: SearchOptions { filter: filter(args)?, threads: args.network.threads, ..SearchOptions::default() },
        },
    };
    let format = if args.json { HitFormat::Json } else { args.format };
    let mut output = Output::open(None, false)?;
    let mut n_queries = 0_usize;
    for query in queries(args)? {
        interrupt::check()?;
        let query = query?;
        let answer = answerer.answer(&query)?;
        match format {
            HitFormat::Table => {
                let hits = answerer.hits(answer)?;
                output.put(|output| print_table(output, &query, &hits, args.queries.is_some()))?;
            }
            HitFormat::Json => {
                let json = to_json(&query, &answerer.hits(answer)?);
                output.put(|output| writeln!(output, "{json}"))?;
            }
            HitFormat::Trec => {
                let lines = trec_lines(&query, answer.found)?;
                output.put(|output| output.write_all(&lines))?;
            }
        }
        n_queries += 1;
    }
    if n_queries == 0 {
        let path = args.queries.as_deref().unwrap_or(Path::new("-"));
        return Err(bad_input(
            format!("{}: there are no queries in it", path.display()),
            "one JSON object a line is needed: {\"_id\": \"q1\", \"text\": \"…\"}",
        ));
    }
    output.finish()
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

fn queries(args: &SearchArgs) -> Result<Box<dyn Iterator<Item = Result<Query>>>> {
    match (&args.query, &args.queries) {
        (Some(text), _) => Ok(Box::new(std::iter::once(Ok(Query { id: "1".into(), text: text.clone() })))),
        (None, Some(path)) => Ok(Box::new(read_queries(path)?.map(|query| query.map_err(Into::into)))),
        (None, None) => Err(bad_input("there is no query", "give one, or --queries FILE")),
    }
}

fn filter(args: &SearchArgs) -> Result<Option<Filter>> {
    Ok(args.filter.as_deref().map(str::parse).transpose()?)
}

/// Query side of `--model`, else of the index; none for BM25 without explanations.
pub(super) fn query_side(
    index: &ImpactIndex,
    path: &Path,
    mode: Mode,
    explain: bool,
    model: Option<&Path>,
    network: &NetworkArgs,
) -> Result<Option<QuerySide>> {
    if mode == Mode::Bm25 && !explain {
        return Ok(None);
    }
    if let Some(folder) = model {
        let model = hub::open(folder, Wants::encoder(network).and_weights())?;
        let model = read_as(model, &network.reading)?;
        let vocabulary = model.vocabulary(None)?;
        let terms = u32::try_from(model.dimensions()?)?;
        let fingerprint = model.fingerprint_like(&index.settings().model_fingerprint)?;
        index.expect_model(terms, &fingerprint, vocabulary.fingerprint())?;
        return Ok(Some(QuerySide::new(query_encoder(&model, network)?, &vocabulary, explain)?));
    }
    let encoder = index.read_query_encoder()?.ok_or_else(|| {
        bad_input(
            format!("{}: queries of this index go through the model's network", path.display()),
            "give the model folder with --model",
        )
    })?;
    let vocabulary = encoder.vocabulary().clone();
    Ok(Some(QuerySide::new(Box::new(encoder), &vocabulary, explain)?))
}

fn print_table(output: &mut Output, query: &Query, hits: &[AnswerHit], many: bool) -> std::io::Result<()> {
    if many {
        writeln!(output, "{}: {}", query.id, query.text)?;
    }
    if hits.is_empty() {
        writeln!(output, "nothing found")?;
    }
    for (rank, AnswerHit { found, document, terms }) in (1..).zip(hits) {
        let title = document.title.as_deref().unwrap_or_default();
        let line = format!("{rank:>2}. {:<8.3} {}  {title}", found.hit.score, found.hit.id);
        writeln!(output, "{}", line.trim_end())?;
        writeln!(output, "    {}", snippet(&document.text, 100))?;
        if let Some(terms) = terms {
            let mut table = Table::new(["    term", "query", "document", "score", ""]);
            for term in terms {
                table.row([
                    format!("    {}", term.token),
                    format!("{:.3}", term.query_weight),
                    format!("{:.3}", term.document_weight),
                    format!("{:.3}", term.score),
                    if term.expansion { "expansion".to_owned() } else { String::new() },
                ]);
            }
            write!(output, "{table}")?;
        }
    }
    Ok(())
}

/// Returns the start of a text on one line.
fn snippet(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
