//! [`Development`]: queries with judgements and vectors, in parts for cross-validation.

use std::path::Path;

use anyhow::Result;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use splade_core::{Fusion, Pruning, Ranking, SparseVector};
use splade_eval::{Folds, Judgements, Qrels, ndcg_at};
use splade_files::{Query, read_queries};
use splade_index::{ImpactIndex, SearchOptions, Searcher};

use crate::answer::{Answerer, Detail, SearchSettings};
use crate::cli::{Mode, TuneArgs};
use crate::commands::interrupt;
use crate::commands::search::query_side;
use crate::failure::bad_input;

/// Cut-off of the score.
pub(super) const CUTOFF: usize = 10;
/// Name of the score, as in result files.
pub(super) const METRIC: &str = "ndcg_at_10";

/// Development queries of an index.
pub(super) struct Development {
    pub(super) searcher: Searcher,
    pub(super) queries: Vec<JudgedQuery>,
    pub(super) folds: Folds,
}

/// Query with at least one relevant document.
pub(super) struct JudgedQuery {
    pub(super) text: String,
    pub(super) vector: SparseVector,
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
            text: query.text,
            vector: encoded.vector,
        };
        let queries = judged.into_iter().zip(vectors).map(with_vector).collect();
        Ok(Self { searcher: answerer.searcher, queries, folds })
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
    Ok(Answerer {
        side: query_side(index, &args.index, Mode::Hybrid, false, args.model.as_deref(), &args.network)?,
        dense: None,
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
