//! Quality, size and latency of an index under pruning of its documents. Nothing is encoded again.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use splade_core::{Pruning, Ranking, SparseVector};
use splade_eval::{Judgements, Qrels, ndcg_at, recall_at};
use splade_files::{AtomicFolder, Query, read_queries};
use splade_index::{
    Address, ImpactIndex, ImpactWriter, IndexSettings, SearchOptions, Searcher, StoredDocument, WriterOptions,
    to_ranking,
};

use super::chart::chart;
use crate::answer::{Answerer, Detail, SearchSettings};
use crate::cli::{Mode, TuneArgs};
use crate::commands::interrupt;
use crate::commands::search::query_side;
use crate::console::{self, Table, size};
use crate::failure::bad_input;
use crate::outputs::{Output, print, say};

/// Cut-off of the quality.
const CUTOFF: usize = 10;
/// Passes over the queries of which the fastest counts: other work of the machine slows down the others.
const PASSES: usize = 7;
/// Values that are measured of each rule.
const MAX_ACTIVE_DIMS: [usize; 7] = [1024, 512, 256, 128, 64, 32, 16];
const MASS: [f32; 6] = [0.99, 0.95, 0.9, 0.8, 0.7, 0.5];
const MIN_WEIGHT: [f32; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];

/// Rule of pruning with the flag that requests it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Setting {
    /// flag of `splade index`; empty without pruning
    pub(super) flag: &'static str,
    pub(super) value: f64,
    pruning: Pruning,
}

/// A setting and its effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) setting: Setting,
    /// mean number of weights of a document, or of a passage
    active_dims: f64,
    /// bytes of the vectors
    pub(super) bytes: u64,
    /// mean over the queries
    pub(super) quality: f64,
    /// mean time of a search on one thread in microseconds, in the fastest pass
    pub(super) latency_us: f64,
}

/// Queries with their vectors, and the documents that they should find.
struct Development {
    metric: &'static str,
    vectors: Vec<SparseVector>,
    wanted: Vec<Judgements>,
}

pub(super) fn run(args: &TuneArgs) -> Result<()> {
    let index = ImpactIndex::open(&args.index)?;
    let svg = match &args.svg {
        Some(path) => Some(Output::open(Some(path), args.overwrite)?),
        None => None,
    };
    let (searcher, development) = read(&index, args)?;
    let settings = settings()?;
    let bar = console::progress("measuring", Some(settings.len() as u64));
    let mut measured = Vec::new();
    for setting in settings {
        let found = measure(&index, &searcher, &development, setting, args)?;
        // a rule that leaves nothing out tells nothing
        if measured.first().is_none_or(|unpruned: &Measured| unpruned.active_dims != found.active_dims) {
            measured.push(found);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let knee = knee(&measured);
    if let Some(mut svg) = svg {
        svg.write_bytes(chart(&measured, knee, development.metric).as_bytes())?;
        svg.finish()?;
    }
    match args.json {
        true => say(format_args!("{:#}", to_json(&measured, knee, development.metric))),
        false => print(to_table(&measured, knee, development.metric)),
    }
}

/// No pruning, and every value of every rule.
fn settings() -> Result<Vec<Setting>> {
    let none = Pruning::default();
    let mut settings = vec![Setting { flag: "", value: 0.0, pruning: none }];
    settings.extend(MAX_ACTIVE_DIMS.map(|dims| Setting {
        flag: "--max-active-dims",
        value: dims as f64,
        pruning: none.with_max_active_dims(dims),
    }));
    for share in MASS {
        settings.push(Setting { flag: "--mass", value: short(share), pruning: none.with_mass(share)? });
    }
    for least in MIN_WEIGHT {
        settings.push(Setting { flag: "--min-weight", value: short(least), pruning: none.with_min_weight(least)? });
    }
    Ok(settings)
}

/// The f64 that is printed as this f32.
fn short(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(number.into())
}

/// Reads and encodes the queries. Without judgements, the documents to find are the best of the index as it is.
fn read(index: &ImpactIndex, args: &TuneArgs) -> Result<(Searcher, Development)> {
    let queries = read_queries(&args.queries)?.collect::<Result<Vec<Query>, _>>()?;
    let answerer = Answerer {
        side: query_side(index, &args.index, Mode::Sparse, false, args.model.as_deref(), &args.network)?,
        dense: None,
        searcher: index.searcher()?,
        settings: SearchSettings::sparse(CUTOFF, Detail::None),
    };
    let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    let vectors: Vec<SparseVector> = answerer.encode(&texts)?.into_iter().map(|encoded| encoded.vector).collect();
    let searcher = answerer.searcher;
    let (metric, wanted) = match &args.qrels {
        Some(path) => {
            let qrels = Qrels::read(path)?;
            let judged = |query: &Query| qrels.judgements(&query.id).cloned().unwrap_or_default();
            ("ndcg_at_10", queries.iter().map(judged).collect())
        }
        None => {
            ("recall_at_10_vs_unpruned", vectors.iter().map(|vector| best(&searcher, vector)).collect::<Result<_>>()?)
        }
    };
    let mut development = Development { metric, vectors: Vec::new(), wanted: Vec::new() };
    let wanted: Vec<Judgements> = wanted;
    for (vector, wanted) in vectors.into_iter().zip(wanted) {
        if wanted.values().any(|grade| *grade > 0) {
            development.vectors.push(vector);
            development.wanted.push(wanted);
        }
    }
    if development.vectors.is_empty() {
        return Err(bad_input(
            format!("{}: no query has a document to find", args.queries.display()),
            "give queries that find something, with --qrels judgements of these queries",
        ));
    }
    Ok((searcher, development))
}

/// The best documents of a query as judgements.
fn best(searcher: &Searcher, vector: &SparseVector) -> Result<Judgements> {
    let found = searcher.search_exact(vector, CUTOFF, None)?;
    Ok(found.into_iter().map(|found| (found.hit.id, 1)).collect())
}

/// Makes a temporary index of the pruned vectors beside the index and searches it.
fn measure(
    index: &ImpactIndex,
    searcher: &Searcher,
    development: &Development,
    setting: Setting,
    args: &TuneArgs,
) -> Result<Measured> {
    let folder = AtomicFolder::create(&args.index)?;
    let mut settings = IndexSettings::new(index.settings().vocabulary_size, "tune", "tune");
    settings.forward = index.settings().forward;
    settings.passages = index.settings().passages;
    let pruned = ImpactIndex::create(folder.path(), &settings)?;
    let mut writer = pruned.writer(WriterOptions::default())?;
    for address in searcher.addresses() {
        interrupt::check()?;
        add_pruned(&mut writer, searcher, address, &setting.pruning)?;
    }
    writer.finish_merged()?;
    let stats = pruned.stats()?;
    let (quality, latency_us) = search(&pruned.searcher()?, development)?;
    Ok(Measured { setting, active_dims: stats.active_dims_mean, bytes: stats.vector_bytes, quality, latency_us })
}

/// Adds the pruned vectors of a document, without its text.
fn add_pruned(writer: &mut ImpactWriter, searcher: &Searcher, document: Address, pruning: &Pruning) -> Result<()> {
    let stored = StoredDocument { id: searcher.id(document)?, ..StoredDocument::default() };
    if searcher.passage(document)?.is_none() {
        return Ok(writer.add(&stored, &pruning.apply(searcher.vector(document)?))?);
    }
    let passage = |address| Ok((0..0, pruning.apply(searcher.vector(address)?)));
    let passages = searcher.passage_addresses(document)?.map(passage).collect::<Result<Vec<_>>>()?;
    Ok(writer.add_passages(&stored, &passages)?)
}

/// Mean quality, and mean time of a search in microseconds in the fastest pass. A pass before them reads the files.
fn search(searcher: &Searcher, development: &Development) -> Result<(f64, f64)> {
    let options = SearchOptions { threads: 1, ..SearchOptions::default() };
    let pass = || -> Result<Vec<Ranking>> {
        let search = |vector| {
            interrupt::check()?;
            Ok(to_ranking(&searcher.search(vector, CUTOFF, &options)?))
        };
        development.vectors.iter().map(search).collect()
    };
    let rankings = pass()?;
    let queries = development.vectors.len() as f64;
    let mut latency_us = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        pass()?;
        latency_us = latency_us.min(start.elapsed().as_secs_f64() * 1e6 / queries);
    }
    let quality = |(ranking, wanted): (&Ranking, &Judgements)| match development.metric {
        "ndcg_at_10" => ndcg_at(CUTOFF, ranking, wanted),
        _ => recall_at(CUTOFF, ranking, wanted),
    };
    Ok((rankings.iter().zip(&development.wanted).map(quality).sum::<f64>() / queries, latency_us))
}

/// The knee: the setting with the largest quality minus size, both scaled to 0 to 1 over all settings. Of equal settings it is
/// the smaller one; none without pruning that leaves anything out.
fn knee(measured: &[Measured]) -> Option<usize> {
    let quality = |at: &Measured| at.quality;
    let bytes = |at: &Measured| at.bytes as f64;
    let range = |of: &dyn Fn(&Measured) -> f64| {
        let all = measured.iter().map(of);
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (qualities, sizes) = (range(&quality), range(&bytes));
    let scaled = |value: f64, (low, high): (f64, f64)| if high > low { (value - low) / (high - low) } else { 1.0 };
    let gain = |at: usize| scaled(quality(&measured[at]), qualities) - scaled(bytes(&measured[at]), sizes);
    let pruned = (1..measured.len()).filter(|at| gain(*at) > 0.0);
    pruned.max_by(|a, b| gain(*a).total_cmp(&gain(*b)).then(measured[*b].bytes.cmp(&measured[*a].bytes)))
}

impl Setting {
    /// Flag and value; `none` without pruning.
    fn to_text(self) -> String {
        if self.flag.is_empty() { "none".to_owned() } else { format!("{} {}", self.flag, self.value) }
    }
}

fn to_table(measured: &[Measured], knee: Option<usize>, metric: &str) -> String {
    let Some(unpruned) = measured.first() else { return String::new() };
    let mut table = Table::new(["pruning", "active dims", "vectors", "size", metric, "latency", "µs"]);
    for at in measured {
        table.row([
            at.setting.to_text(),
            format!("{:.1}", at.active_dims),
            size(at.bytes),
            percent(at.bytes as f64, unpruned.bytes as f64),
            format!("{:.4}", at.quality),
            percent(at.latency_us, unpruned.latency_us),
            format!("{:.1}", at.latency_us),
        ]);
    }
    let line = match knee.map(|knee| measured[knee]) {
        Some(knee) => format!(
            "knee: {}, with {} of the size and {} {:.4} instead of {:.4}",
            knee.setting.to_text(),
            percent(knee.bytes as f64, unpruned.bytes as f64),
            metric,
            knee.quality,
            unpruned.quality,
        ),
        None => "knee: none, every pruning loses more quality than size".to_owned(),
    };
    format!("{table}{line}\n")
}

fn percent(part: f64, whole: f64) -> String {
    format!("{:.0} %", 100.0 * part / whole.max(f64::MIN_POSITIVE))
}

fn to_json(measured: &[Measured], knee: Option<usize>, metric: &str) -> Value {
    let row = |at: &Measured| {
        let flag = at.setting.flag.trim_start_matches('-').replace('-', "_");
        // a count is a whole number
        let value =
            if at.setting.value.fract() == 0.0 { json!(at.setting.value as u64) } else { json!(at.setting.value) };
        let pruning = if flag.is_empty() { json!({}) } else { json!({flag: value}) };
        json!({
            "pruning": pruning,
            "active_dims_mean": at.active_dims,
            "vector_bytes": at.bytes,
            metric: at.quality,
            "latency_us_mean": at.latency_us,
        })
    };
    json!({
        "metric": metric,
        "settings": measured.iter().map(row).collect::<Vec<_>>(),
        "knee": knee.map(|knee| row(&measured[knee])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(points: &[(u64, f64)]) -> Vec<Measured> {
        let settings = settings().unwrap();
        let measured = points.iter().zip(settings).map(|(&(bytes, quality), setting)| Measured {
            setting,
            active_dims: bytes as f64,
            bytes,
            quality,
            latency_us: bytes as f64,
        });
        measured.collect()
    }

    #[test]
    fn the_knee_keeps_the_most_quality_for_its_size() {
        assert_eq!(knee(&measured(&[(100, 0.5), (50, 0.49), (25, 0.45), (10, 0.1)])), Some(2));
        assert_eq!(knee(&measured(&[(100, 0.5), (50, 0.5), (40, 0.5)])), Some(2));
        assert_eq!(knee(&measured(&[(100, 0.5), (90, 0.1), (80, 0.0)])), None);
        assert_eq!(knee(&measured(&[(100, 0.5)])), None);
        assert_eq!(knee(&[]), None);
    }
}
