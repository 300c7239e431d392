//! `splade search --engine`: the same output for the hits of a search engine.

use anyhow::Result;
use splade_core::{Hit, Ranking};
use splade_files::{Query, read_queries};
use splade_index::{Filter, ImpactIndex};

use super::paint::Paint;
use super::table::TableStyle;
use super::{format, table, trec_lines};
use crate::answer::{AnswerHit, Shown, to_json};
use crate::cli::{CollectionArgs, EngineKind, HitFormat, Mode, SearchArgs};
use crate::commands::interrupt;
use crate::engines::{self, EngineClient, EngineHit, EngineHybrid, QueryModel, Wanted};
use crate::failure::bad_input;
use crate::outputs::Output;
use crate::ranking::{DEPTH, Defaults, RankingSettings, resolve};

/// Searches a collection of an engine.
pub(super) fn run(args: &SearchArgs, kind: EngineKind) -> Result<()> {
    refuse_flags_of_indexes(args)?;
    let client = EngineClient::open(engines::open(kind, &args.at, &CollectionArgs::default())?)?;
    let model = query_model(args)?;
    model.expect(client.manifest(), &client.place())?;
    let pruning = args.prune.pruning()?;
    let filter: Option<Filter> = args.filter.as_deref().map(str::parse).transpose()?;
    let defaults = Defaults { tuned: None, language: client.manifest().language()?, depth: DEPTH, rankings: 2 };
    let RankingSettings { fusion, depth, .. } = resolve(&[args.mode], &args.fusion, &args.bm25, defaults)?;
    let mut output = Output::open(None, false)?;
    for query in queries(args)? {
        interrupt::check()?;
        let query = query?;
        let vector = pruning.apply(model.encode(&[&query.text])?.pop().unwrap_or_default());
        let hybrid = EngineHybrid { text: &query.text, depth: depth.max(args.k), fusion: &fusion };
        let wanted = Wanted {
            vector: &vector,
            hybrid: (args.mode == Mode::Hybrid).then_some(hybrid),
            k: args.k,
            filter: filter.as_ref(),
            with_documents: args.show_query || format(args) != HitFormat::Trec,
        };
        let lines = if args.show_query {
            format!("{}\n", client.request(&wanted)?).into_bytes()
        } else {
            render(args, &query, client.search(&wanted)?)?
        };
        output.write_bytes(&lines)?;
    }
    output.finish()
}

/// The model of `--model`, else of the index that was pushed.
fn query_model(args: &SearchArgs) -> Result<QueryModel> {
    match (&args.model, args.index_of_queries()) {
        (Some(folder), _) => QueryModel::of_folder(folder, &args.network),
        (None, Some(index)) => QueryModel::of_index(&ImpactIndex::open(index)?),
        (None, None) => Err(bad_input(
            "--engine: queries are encoded here, and no model is given",
            "give the index that was pushed with --index, or the model with --model",
        )),
    }
}

fn queries(args: &SearchArgs) -> Result<Box<dyn Iterator<Item = Result<Query>>>> {
    if let Some(text) = &args.query {
        return Ok(Box::new(std::iter::once(Ok(Query { id: "1".into(), text: text.clone() }))));
    }
    let Some(path) = &args.queries else {
        return Err(bad_input("--engine: there is no query", "give a query, or --queries FILE"));
    };
    Ok(Box::new(read_queries(path)?.map(|query| Ok(query?))))
}

/// Lines of the hits of a query, in the format of the flags.
fn render(args: &SearchArgs, query: &Query, hits: Vec<EngineHit>) -> Result<Vec<u8>> {
    if format(args) == HitFormat::Trec {
        let hits = hits.into_iter().map(|hit| Hit { id: hit.document.id, score: hit.score });
        return trec_lines(query, Ranking::from_hits(hits.collect()));
    }
    let hits: Vec<AnswerHit> = hits
        .into_iter()
        .map(|EngineHit { score, document }| AnswerHit {
            hit: Hit { id: document.id.clone(), score },
            document,
            passage: None,
            explanation: None,
            snippets: Vec::new(),
        })
        .collect();
    if format(args) == HitFormat::Json {
        let shown = Shown { explanation: false, snippets: false, fields: None };
        return Ok(format!("{}\n", to_json(query, &hits, &shown, &[])?).into_bytes());
    }
    let style = TableStyle { paint: Paint::new(args.color), many: args.query.is_none(), explain: false };
    Ok(table::render(query, &hits, style).into_bytes())
}

/// Refuses flags that only a search of an index has.
fn refuse_flags_of_indexes(args: &SearchArgs) -> Result<()> {
    let given = [
        ("--mode bm25", args.mode == Mode::Bm25),
        ("--mode dense", args.mode == Mode::Dense),
        ("--count-by", !args.count_by.is_empty()),
        ("--explain", args.explain),
        ("--snippets", args.snippets.is_some()),
        ("--snippet-length", args.snippet_length.is_some()),
        ("--html", args.html.is_some()),
        ("--stats", args.stats.is_some()),
        ("--warm", args.warm),
        ("--query-vectors", args.query_vectors.is_some()),
        ("--dense", args.dense.dense.is_some()),
        ("--dense-run", args.dense.dense_run.is_some()),
        ("--bm25-k1", args.bm25.bm25_k1.is_some()),
        ("--bm25-b", args.bm25.bm25_b.is_some()),
        ("--bm25-compounds", args.bm25.bm25_compounds.is_some()),
        ("--bm25-drop-stop-words", args.bm25.bm25_drop_stop_words.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(bad_input(
            format!("{flag}: it needs an index of this program, and --engine searches a collection"),
            "leave it out, or search the index without --engine",
        )),
        None => Ok(()),
    }
}
