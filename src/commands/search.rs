//! `splade search`: queries → hits, ranked by impact, by BM25, or by both fused.

mod asked;
mod batch;
mod engine;
mod page;
mod paint;
mod stats;
pub(crate) mod table;
mod warm;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use splade_core::Ranking;
use splade_eval::Run;
use splade_files::{Architecture, Query};
use splade_index::{Filter, ImpactIndex, SearchOptions, to_ranking};

use crate::answer::{Answer, Answerer, Detail, QuerySide, SearchSettings, Shown, counts, to_json};
use crate::cli::{HitFormat, Mode, NetworkArgs, SearchArgs};
use crate::dense::DenseSide;
use crate::encoders::{query_encoder, read_as, use_threads};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::{Output, say};
use crate::ranking::{DEPTH, Defaults, RankingSettings, Untuned, expect_stop_words, resolve, warn_of_other_rankings};
use batch::Rendered;
use paint::Paint;
use stats::Stats;
use table::TableStyle;

/// Snippets per hit in tables and pages, unless a flag says otherwise.
const SNIPPETS: usize = 1;
/// Most characters of a snippet, unless a flag says otherwise.
const SNIPPET_LENGTH: usize = 160;

pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    use_threads(args.network.threads);
    refuse_flags_without_effect(args)?;
    if let Some(kind) = args.engine {
        return engine::run(args, kind);
    }
    if args.at.are_given() {
        return Err(bad_input(
            "--url, --collection, --concurrency and the credentials of an engine need --engine",
            "name the engine, or leave them out",
        ));
    }
    if args.warm {
        warm::read_all(args.index())?;
    }
    let index = ImpactIndex::open(args.index())?;
    let format = format(args);
    if format == HitFormat::Trec && !args.count_by.is_empty() {
        return Err(bad_input("--count-by has no place in a TREC run", "use --format json"));
    }
    if args.query.is_none() && args.queries.is_none() && args.query_vectors.is_none() {
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
    let mut page = match &args.html {
        Some(path) => Some(Output::open(Some(path), args.overwrite)?),
        None => None,
    };
    if let Some(page) = &mut page {
        page.write_bytes(page::head().as_bytes())?;
    }
    let mut stats = args.stats.is_some().then(Stats::start);
    let mut n_queries = 0_usize;
    let render = |query: &Query, answer: Answer| render(&answerer, args, format, query, answer);
    let queries = asked::read(args, || asked::token_dims(&index, args))?;
    batch::answer_all(&answerer, queries, render, |answered| {
        output.write_bytes(&answered.rendered.lines)?;
        if let Some(page) = &mut page {
            page.write_bytes(answered.rendered.section.as_bytes())?;
        }
        if let Some(stats) = &mut stats {
            stats.add(answered.encoding_time, answered.search_time);
        }
        n_queries += 1;
        Ok(())
    })?;
    if n_queries == 0 {
        return Err(asked::no_queries(args));
    }
    output.finish()?;
    if let Some(mut page) = page {
        page.write_bytes(page::FOOT.as_bytes())?;
        page.finish()?;
    }
    if let Some(stats) = stats {
        stats.finish().report(stats_file)?;
    }
    Ok(())
}

/// Format of the hits on stdout.
fn format(args: &SearchArgs) -> HitFormat {
    if args.json { HitFormat::Json } else { args.format }
}

/// Refuses pruning where there are no vectors, and flags for explanations and snippets where nothing shows them.
fn refuse_flags_without_effect(args: &SearchArgs) -> Result<()> {
    if matches!(args.mode, Mode::Bm25 | Mode::Dense) && !args.prune.pruning()?.keeps_all() {
        let message = format!("pruning of vectors: the mode {} has no sparse ones", args.mode.name());
        return Err(bad_input(message, "leave it out, or choose another --mode"));
    }
    if args.dense.dense_run.is_some() && args.query.is_some() {
        return Err(bad_input("--dense-run: a run is found by the ids of queries", "give the queries with --queries"));
    }
    let (format, is_html) = (format(args), args.html.is_some());
    let in_json = args.snippets.is_some() || format != HitFormat::Json;
    let flags = [
        ("--explain", args.explain, format != HitFormat::Trec),
        ("--snippets", args.snippets.is_some(), format != HitFormat::Trec),
        ("--snippet-length", args.snippet_length.is_some(), format != HitFormat::Trec && in_json),
    ];
    match flags.iter().find(|(_, is_given, has_effect)| *is_given && !has_effect && !is_html) {
        Some((flag, ..)) if format == HitFormat::Trec => Err(bad_input(
            format!("{flag}: a TREC run has no room for it"),
            "use --format table or json, or --html FILE",
        )),
        Some((flag, ..)) => Err(bad_input(format!("{flag}: JSON has no snippets"), "add --snippets N")),
        None => Ok(()),
    }
}

/// Number of snippets per hit, and the explanations that are needed for them and for the flags.
fn detail(args: &SearchArgs) -> (usize, Detail) {
    let default = if format(args) == HitFormat::Table || args.html.is_some() { SNIPPETS } else { 0 };
    let snippets = args.snippets.unwrap_or(default);
    let detail = match (args.explain || args.html.is_some(), snippets) {
        (true, _) => Detail::Full,
        (false, 0) => Detail::None,
        (false, _) => Detail::Words,
    };
    (snippets, detail)
}

fn answerer(index: &ImpactIndex, args: &SearchArgs) -> Result<Answerer> {
    let dense = DenseSide::of(&args.dense, args.mode, index, &args.network)?;
    let tuned = index.read_hybrid_settings()?;
    let rankings = 2 + usize::from(dense.is_some());
    if args.mode == Mode::Hybrid {
        warn_of_other_rankings(tuned.as_ref(), rankings);
    }
    let defaults = Defaults {
        tuned: tuned.as_ref(),
        language: index.settings().language,
        depth: DEPTH,
        rankings,
        untuned: Untuned::Scores,
    };
    expect_stop_words(&args.bm25, std::iter::once(index.settings().language))?;
    let RankingSettings { fusion, depth, bm25, .. } = resolve(&[args.mode], &args.fusion, &args.bm25, defaults)?;
    // several queries are answered at once instead, one thread each
    let threads = if args.query.is_none() { 1 } else { args.network.threads };
    let (snippets, detail) = detail(args);
    let explain = detail > Detail::None;
    // vectors of a file need no encoder, but an explanation needs its vocabulary
    let needs_side = args.query_vectors.is_none() || explain;
    let side = || query_side(index, args.index(), args.mode, explain, args.model.as_deref(), &args.network);
    Ok(Answerer {
        side: if needs_side { side()? } else { None },
        dense: dense.map(Arc::new),
        searcher: index.searcher()?,
        settings: SearchSettings {
            mode: args.mode,
            k: args.k,
            depth,
            fusion,
            options: SearchOptions { filter: filter(args)?, threads, bm25, ..SearchOptions::default() },
            pruning: args.prune.pruning()?,
            detail,
            snippets,
            snippet_length: args.snippet_length.unwrap_or(SNIPPET_LENGTH),
        },
    })
}

/// Lines of an answer in the requested format, and its section of the page.
fn render(
    answerer: &Answerer,
    args: &SearchArgs,
    format: HitFormat,
    query: &Query,
    answer: Answer,
) -> Result<Rendered> {
    let counted = answerer.count(query, &answer, &args.count_by)?;
    let mut rendered = Rendered::default();
    if format == HitFormat::Trec {
        rendered.lines = trec_lines(query, to_ranking(&answer.found))?;
        if args.html.is_none() {
            return Ok(rendered);
        }
    }
    let hits = answerer.hits(query, answer)?;
    match format {
        HitFormat::Table => {
            let style = TableStyle { paint: Paint::new(args.color), many: args.query.is_none(), explain: args.explain };
            let hits = table::render(query, &hits, style);
            rendered.lines = (hits + &counts::to_text(&counted)).into_bytes();
        }
        HitFormat::Json => {
            let shown = Shown { explanation: args.explain, snippets: args.snippets.is_some(), fields: None };
            rendered.lines = format!("{}\n", to_json(query, &hits, &shown, &counted)?).into_bytes();
        }
        HitFormat::Trec => {}
    }
    if args.html.is_some() {
        rendered.section = page::section(query, args.mode, &hits);
    }
    Ok(rendered)
}

/// Counts the values of fields over all documents that pass the filter.
fn count_without_query(index: &ImpactIndex, args: &SearchArgs, format: HitFormat) -> Result<()> {
    if args.explain || args.stats.is_some() || args.html.is_some() || args.snippets.is_some() {
        return Err(bad_input(
            "--explain, --stats, --snippets and --html are about queries, and there is none",
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
fn trec_lines(query: &Query, ranking: Ranking) -> Result<Vec<u8>> {
    let run: Run = [(query.id.clone(), ranking)].into_iter().collect();
    let mut lines = Vec::new();
    // a write to memory cannot fail, so the error is about an id
    run.write_trec(&mut lines, "splade")
        .map_err(|error| bad_input(error.to_string(), "use --format json, which holds any id"))?;
    Ok(lines)
}

fn filter(args: &SearchArgs) -> Result<Option<Filter>> {
    Ok(args.filter.as_deref().map(str::parse).transpose()?)
}

/// Query side of `--model`, else of the index; none for modes without sparse vectors.
pub(crate) fn query_side(
    index: &ImpactIndex,
    path: &Path,
    mode: Mode,
    explain: bool,
    model: Option<&Path>,
    network: &NetworkArgs,
) -> Result<Option<Arc<QuerySide>>> {
    if matches!(mode, Mode::Bm25 | Mode::Dense) {
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
        let side = QuerySide::new(query_encoder(&model, network)?, runs_network, &vocabulary, explain)?;
        return Ok(Some(Arc::new(side)));
    }
    let encoder = index.read_query_encoder()?.ok_or_else(|| {
        bad_input(
            format!("{}: queries of this index go through the model's network", path.display()),
            "give the model folder with --model",
        )
    })?;
    let vocabulary = encoder.vocabulary().clone();
    Ok(Some(Arc::new(QuerySide::new(Box::new(encoder), false, &vocabulary, explain)?)))
}
