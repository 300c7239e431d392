//! [`Development`]: queries with judgements and vectors, in parts for cross-validation.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use splade_core::dense::DenseVector;
use splade_core::{Fusion, Pruning, Ranking, SparseVector};
use splade_eval::{Folds, Judgements, Qrels, ndcg_at};
use splade_files::{Query, read_queries};
use splade_index::{DensePart, HybridQuery, ImpactIndex, SearchOptions, Searcher};

use crate::answer::{Answerer, Detail, SearchSettings};
use crate::cli::{DenseSearchArgs, Mode, TuneArgs};
use crate::commands::interrupt;
use crate::commands::search::query_side;
use crate::dense::DenseSide;
use crate::evaluation::fingerprint_of_queries;
use crate::failure::bad_input;

/// Cut-off of the score.
pub(super) const CUTOFF: usize = 10;
/// Name of the score, as in result files.
pub(super) const METRIC: &str = "ndcg_at_10";

/// Development queries of an index.
pub(super) struct Development {
    pub(super) searcher: Searcher,
    /// source of the dense rankings; none for two rankings
    dense: Option<Arc<DenseSide>>,
    pub(super) queries: Vec<JudgedQuery>,
    pub(super) folds: Folds,
    /// fingerprint of the queries
    pub(super) fingerprint: String,
}

/// Query with at least one relevant document.
pub(super) struct JudgedQuery {
    id: String,
    pub(super) text: String,
    pub(super) vector: SparseVector,
    /// none without a dense model
    dense: Option<DenseVector>,
    judged: Judgements,
}

impl JudgedQuery {
    /// nDCG@10 of a ranking of this query.
    pub(super) fn ndcg(&self, ranking: &Ranking) -> f64 {
        ndcg_at(CUTOFF, ranking, &self.judged)
    }
}

impl Development {
    /// Reads and encodes the queries.
    ///
    /// # Errors
    /// A file that cannot be read; fewer queries with a relevant document than folds.
    pub(super) fn read(index: &ImpactIndex, args: &TuneArgs) -> Result<Self> {
        let Some(qrels_file) = &args.qrels else {
            return Err(bad_input("there are no judgements to choose by", "add --qrels FILE"));
        };
        let qrels = Qrels::read(qrels_file)?;
        let queries = read_queries(&args.queries)?.collect::<Result<Vec<Query>, _>>()?;
        let n_all = queries.len();
        let judged: Vec<Query> = queries.into_iter().filter(|query| qrels.relevant_count(&query.id) > 0).collect();
        if judged.len() < n_all {
            let left_out = n_all - judged.len();
            tracing::warn!(
                "{}: queries without a relevant document, which are left out: {left_out}",
                args.queries.display()
            );
        }
        expect_enough(&judged, qrels_file, args)?;
        let answerer = answerer(index, args)?;
        let texts: Vec<&str> = judged.iter().map(|query| query.text.as_str()).collect();
        let vectors = answerer.encode(&texts)?;
        let folds = Folds::new(&order(&judged), args.folds.into());
        let with_vector = |(query, encoded): (Query, crate::answer::Encoded)| JudgedQuery {
            judged: qrels.judgements(&query.id).cloned().unwrap_or_default(),
            id: query.id,
            text: query.text,
            vector: encoded.vector,
            dense: encoded.dense,
        };
        let fingerprint = fingerprint_of_queries(&judged);
        let queries = judged.into_iter().zip(vectors).map(with_vector).collect();
        Ok(Self { searcher: answerer.searcher, dense: answerer.dense, queries, folds, fingerprint })
    }

    /// Number of rankings that hybrid search fuses: two, or three with a dense one.
    pub(super) fn rankings(&self) -> usize {
        2 + usize::from(self.dense.is_some())
    }

    /// Source of the dense ranking of a query; none for two rankings.
    pub(super) fn dense_part<'a>(&'a self, query: &'a JudgedQuery) -> Option<DensePart<'a>> {
        self.dense.as_ref()?.part(&query.id, query.dense.as_ref())
    }

    /// The parts of a query that hybrid search reads.
    pub(super) fn parts<'a>(&'a self, query: &'a JudgedQuery) -> HybridQuery<'a> {
        HybridQuery { vector: &query.vector, text: &query.text, dense: self.dense_part(query) }
    }

    /// Runs `work` for every query on all threads. Results are in the order of the queries.
    pub(super) fn for_each<T: Send>(&self, work: impl Fn(&JudgedQuery) -> Result<T> + Sync) -> Result<Vec<T>> {
        let run = |query: &JudgedQuery| {
            interrupt::check()?;
            work(query)
        };
        self.queries.par_iter().map(run).collect()
    }
}

fn answerer(index: &ImpactIndex, args: &TuneArgs) -> Result<Answerer> {
    let dense = DenseSearchArgs { dense: args.dense.clone(), dense_run: args.dense_run.clone() };
    let dense = DenseSide::of(&dense, Mode::Hybrid, index, &args.network)?;
    Ok(Answerer {
        side: query_side(index, &args.index, Mode::Hybrid, false, args.model.as_deref(), &args.network)?,
        dense: dense.map(Arc::new),
        searcher: index.searcher()?,
        settings: SearchSettings {
            mode: Mode::Hybrid,
            k: CUTOFF,
            depth: CUTOFF,
            fusion: Fusion::default(),
            options: SearchOptions::default(),
            pruning: Pruning::default(),
            detail: Detail::None,
            snippets: 0,
            snippet_length: 0,
        },
    })
}

fn expect_enough(judged: &[Query], qrels: &Path, args: &TuneArgs) -> Result<()> {
    let shown = |path: &Path| path.display().to_string();
    if judged.len() >= usize::from(args.folds) {
        return Ok(());
    }
    Err(bad_input(
        format!("{}: {} queries have a relevant document in {}", shown(&args.queries), judged.len(), shown(qrels)),
        format!("{} folds need at least as many; give more queries, or fewer --folds", args.folds),
    ))
}

/// Order of the queries of the assignment to folds: by a hash of their ids, so that neighbors in the file are in different
/// folds and the order of the file does not matter.
fn order(queries: &[Query]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..queries.len()).collect();
    order.sort_by_cached_key(|&at| (Sha256::digest(&queries[at].id).to_vec(), queries[at].id.clone()));
    order
}
