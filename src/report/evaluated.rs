//! Parts of the report of `eval-mteb` that need the index of a task: costs of modes, and explained queries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use splade_core::{Encoder, Retriever, SparseVector, Vocabulary};
use splade_eval::{EncodedTask, Evaluation, JudgedRun, Metric};
use splade_index::{IndexStats, Searcher};

use super::queries::extremes;
use super::{QuerySource, ReportedQuery};
use crate::answer::{Answerer, Detail, QuerySide, SearchSettings};
use crate::cli::Mode;
use crate::comparison::QueryPair;

/// Cost of a mode on a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModeCost {
    /// mean time of a search for 10 hits, without encoding, one query at a time
    pub(crate) latency_ms: f64,
    /// bytes of the parts of the index that the mode reads
    pub(crate) index_bytes: u64,
}

/// Queries that are timed at most.
const TIMED: usize = 200;
/// Hits of a timed search.
const TIMED_HITS: usize = 10;

/// Measures a mode of a task.
///
/// # Errors
/// A search that fails.
pub(crate) fn cost(mode: Mode, retriever: &dyn Retriever, task: &EncodedTask, stats: &IndexStats) -> Result<ModeCost> {
    let queries = &task.queries()[..task.queries().len().min(TIMED)];
    // the first pass reads what the searches need into memory
    for query in queries {
        retriever.retrieve(query.encoded(), TIMED_HITS)?;
    }
    let start = Instant::now();
    for query in queries {
        retriever.retrieve(query.encoded(), TIMED_HITS)?;
    }
    let latency_ms = 1e3 * start.elapsed().as_secs_f64() / queries.len().max(1) as f64;
    let dense_bytes = stats.dense_bytes.unwrap_or_default();
    let index_bytes = match mode {
        Mode::Sparse => stats.vector_bytes,
        Mode::Dense => dense_bytes,
        Mode::Bm25 => stats.total_bytes - stats.vector_bytes - dense_bytes,
        Mode::Hybrid => stats.total_bytes,
    };
    Ok(ModeCost { latency_ms, index_bytes })
}

/// Vectors of a task's queries by their text, for explanations without a second encoding.
struct Known {
    dimensions: usize,
    by_text: HashMap<String, SparseVector>,
}

impl Encoder for Known {
    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn encode(&self, texts: &[&str]) -> splade_core::Result<Vec<SparseVector>> {
        Ok(texts.iter().map(|text| self.by_text.get(*text).cloned().unwrap_or_default()).collect())
    }
}

/// Source of explanations from the index of a task.
///
/// # Errors
/// A tokenizer that cannot be built without truncation.
pub(crate) fn source(searcher: Searcher, task: &EncodedTask, vocabulary: &Vocabulary) -> Result<QuerySource> {
    let by_text = task.queries().iter().map(|query| (query.text.clone(), query.vector.clone())).collect();
    let known = Known { dimensions: task.dimensions(), by_text };
    let settings = SearchSettings::sparse(1, Detail::Full);
    Ok(QuerySource {
        texts: task.queries().iter().map(|query| (query.id.clone(), query.text.clone())).collect(),
        answerer: Some(Answerer {
            side: Some(Arc::new(QuerySide::new(Box::new(known), false, vocabulary, true)?)),
            dense: None,
            searcher,
            settings,
        }),
    })
}

/// The `top` best and the `top` worst queries of an evaluation by nDCG@10, explained.
///
/// # Errors
/// A document that cannot be read.
pub(crate) fn best_and_worst(
    source: &QuerySource,
    evaluation: &Evaluation,
    task: &EncodedTask,
    top: usize,
) -> Result<[Vec<ReportedQuery>; 2]> {
    let judged = JudgedRun::new(task.qrels(), &evaluation.run)?;
    let [best, worst] = extremes(&judged, Metric::MAIN, top);
    let describe = |mut query: ReportedQuery| {
        source.describe(&mut query, &evaluation.run, task.qrels())?;
        Ok(query)
    };
    Ok([
        best.into_iter().map(describe).collect::<Result<_>>()?,
        worst.into_iter().map(describe).collect::<Result<_>>()?,
    ])
}

/// Queries that gained or lost, explained.
///
/// # Errors
/// A document that cannot be read.
pub(crate) fn described(
    source: &QuerySource,
    pairs: Vec<QueryPair>,
    evaluation: &Evaluation,
    task: &EncodedTask,
) -> Result<Vec<ReportedQuery>> {
    let describe = |pair: QueryPair| {
        let mut query = ReportedQuery::of_two_runs(pair);
        source.describe(&mut query, &evaluation.run, task.qrels())?;
        Ok(query)
    };
    pairs.into_iter().map(describe).collect()
}
