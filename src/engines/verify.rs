//! [`verify`]: scores and rankings of a collection against exact ones, for a sample of queries. [`verify_words`] does so for BM25.

mod words;

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use splade_core::{Hit, Ranking, SparseVector};
use splade_files::Query;

pub(crate) use words::{sample_texts, verify_words};

use super::client::{EngineClient, Wanted, WantedRanking};
use super::limits::Changes;
use super::{EngineHit, Source, Tolerance};
use crate::console;
use crate::failure::Failure;

/// Number of queries that are made of documents.
const QUERIES: usize = 50;
/// Terms of a query that is made of a document.
const TERMS: usize = 8;
/// Hits that are compared for each query.
const K: usize = 10;
/// Queries that are sent before their progress is shown.
const AT_ONCE: usize = 64;
/// Rounding of a sum of products, as a share of the score: the order of the products differs between engines.
const ROUNDING: f32 = 1e-5;

/// Result of a comparison.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Verified {
    /// queries with hits
    pub(crate) queries: usize,
    /// hits that were compared
    pub(crate) hits: usize,
    /// largest difference from an exact score
    pub(crate) difference: f32,
    /// largest difference as a share of the exact score
    pub(crate) relative_difference: f32,
    /// queries whose documents are in another order, equal scores aside
    pub(crate) rank_differences: usize,
    /// share of the exact best documents that were found, as a mean over queries
    pub(crate) recall: f32,
}

/// Queries of a sample of documents: some of each document's terms, with its weights.
///
/// # Errors
/// Documents that cannot be read.
pub(crate) fn sample_queries(source: &Source) -> Result<Vec<(Query, SparseVector)>> {
    let of_document = |(id, vector): (String, SparseVector)| {
        let n = vector.active_dims();
        // the heaviest terms and others across the whole vector, by their dimensions
        let mut order: Vec<(u32, f32)> = vector.iter().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let others = order.iter().skip(TERMS / 2).step_by((n / TERMS).max(1)).take(TERMS / 2);
        let terms: Vec<(u32, f32)> = order.iter().take(TERMS / 2).chain(others).copied().collect();
        let text = format!("terms of document {id}");
        let vector = SparseVector::from_pairs(terms).expect("the terms are some of a vector's");
        (Query { id, text }, vector)
    };
    Ok(source.sample(QUERIES)?.into_iter().filter(|(_, vector)| !vector.is_empty()).map(of_document).collect())
}

/// Compares the best hits of each query with exact ones.
///
/// # Errors
/// A difference beyond the tolerance of the engine, with its query and document; an engine without an answer.
pub(crate) fn verify(client: &EngineClient, source: &Source, queries: &[(Query, SparseVector)]) -> Result<Verified> {
    let vectors: Vec<&SparseVector> = queries.iter().map(|(_, vector)| vector).collect();
    let best = source.best(&vectors, K)?;
    let wanted = queries.iter().map(|(query, vector)| (query, vector, WantedRanking::Vectors));
    let answers = answers(client, wanted)?;
    let found = answers.iter().flatten().map(|hit| hit.document.id.clone());
    let ids: HashSet<String> = best.iter().flatten().cloned().chain(found).collect();
    // as the engine holds them: what was dropped was reported already
    let fitted = |vector: SparseVector| client.fit().document(&vector, &mut Changes::default());
    let documents: HashMap<String, SparseVector> =
        source.vectors_of(&ids)?.into_iter().map(|(id, vector)| (id, fitted(vector))).collect();
    let mut comparison = Comparison::new(client, client.tolerance());
    for (((query, vector), best), hits) in queries.iter().zip(&best).zip(&answers) {
        let fitted = client.fit().query(vector);
        let score = |id: &str| documents.get(id).map(|document| fitted.vector.dot(document) * fitted.score_factor);
        let candidates = best.iter().chain(hits.iter().map(|hit| &hit.document.id));
        let scored = candidates.filter_map(|id| Some(Hit { id: id.clone(), score: score(id)? }));
        let mut exact = Ranking::from_hits(scored.filter(|hit| hit.score > 0.0).collect());
        exact.truncate(K);
        comparison.add(query, &exact, hits, &score)?;
    }
    comparison.finish()
}

/// Best hits of each query in the collection.
fn answers<'a>(
    client: &EngineClient,
    queries: impl ExactSizeIterator<Item = (&'a Query, &'a SparseVector, WantedRanking<'a>)>,
) -> Result<Vec<Vec<EngineHit>>> {
    let bar = console::progress("verifying", Some(queries.len() as u64));
    let queries: Vec<(&Query, Wanted<'_>)> = queries
        .map(|(query, vector, ranking)| (query, Wanted { vector, ranking, k: K, filter: None, with_documents: false }))
        .collect();
    let mut answers = Vec::with_capacity(queries.len());
    for block in queries.chunks(AT_ONCE) {
        let wanted: Vec<Wanted<'_>> = block.iter().map(|(_, wanted)| *wanted).collect();
        let found = client.search_all(&wanted);
        if let Some((at, error)) = found.failure {
            return Err(error.context(format!("query {}", block[at].0.id)));
        }
        answers.extend(found.hits);
        bar.inc(block.len() as u64);
    }
    bar.finish_and_clear();
    Ok(answers)
}

/// Comparison of the hits of queries with exact ones.
struct Comparison<'a> {
    client: &'a EngineClient,
    tolerance: Tolerance,
    verified: Verified,
    /// sum over queries
    recall: f32,
}

impl<'a> Comparison<'a> {
    fn new(client: &'a EngineClient, tolerance: Tolerance) -> Self {
        Self { client, tolerance, verified: Verified::default(), recall: 0.0 }
    }

    /// Adds the hits of one query. `score` gives the exact score of a document; none if the source does not have it.
    fn add(
        &mut self,
        query: &Query,
        exact: &Ranking,
        hits: &[EngineHit],
        score: &impl Fn(&str) -> Option<f32>,
    ) -> Result<()> {
        if exact.is_empty() && hits.is_empty() {
            return Ok(());
        }
        self.verified.queries += 1;
        self.verified.hits += hits.len();
        let mut is_other_order = hits.len() != exact.len();
        for (rank, hit) in hits.iter().enumerate() {
            let id = &hit.document.id;
            let Some(right) = score(id) else {
                return Err(self.broken(query, id, "the source has no such document".to_owned()));
            };
            self.add_hit(query, hit, right)?;
            // of equal scores any document may stand here
            let expected = exact.hits().get(rank).map(|hit| hit.score);
            is_other_order |=
                expected.is_none_or(|expected| (expected - right).abs() > ROUNDING * expected.abs().max(1.0));
            if let Some(expected) = expected
                && !self.tolerance.allows_at_rank(right, expected)
            {
                let what = format!("a document of the score {expected} belongs at its rank {}", rank + 1);
                return Err(self.broken(query, id, what));
            }
        }
        self.expect_no_fewer(query, exact, hits)?;
        let lowest = exact.hits().last().map_or(0.0, |hit| hit.score * (1.0 - ROUNDING));
        let found = hits.iter().filter(|hit| score(&hit.document.id).is_some_and(|score| score >= lowest)).count();
        self.recall += if exact.is_empty() { 1.0 } else { found.min(exact.len()) as f32 / exact.len() as f32 };
        self.verified.rank_differences += usize::from(is_other_order);
        Ok(())
    }

    /// Compares the score of a hit with the right one.
    fn add_hit(&mut self, query: &Query, hit: &EngineHit, right: f32) -> Result<()> {
        if !self.tolerance.allows(hit.score, right) {
            let what = format!("its score is {}, and {right} is right", hit.score);
            return Err(self.broken(query, &hit.document.id, what));
        }
        let difference = (hit.score - right).abs();
        let relative = difference / right.abs().max(f32::MIN_POSITIVE);
        self.verified.difference = self.verified.difference.max(difference);
        self.verified.relative_difference = self.verified.relative_difference.max(relative);
        Ok(())
    }

    /// Refuses fewer hits than there are, unless the ranking is approximate.
    fn expect_no_fewer(&self, query: &Query, exact: &Ranking, hits: &[EngineHit]) -> Result<()> {
        if hits.len() >= exact.len() || matches!(self.tolerance, Tolerance::Recall { .. }) {
            return Ok(());
        }
        let missing = exact.hits().iter().find(|hit| hits.iter().all(|found| found.document.id != hit.id));
        let id = missing.map_or("", |hit| hit.id.as_str());
        Err(self.broken(query, id, "it was not found".to_owned()))
    }

    fn broken(&self, query: &Query, document: &str, what: String) -> anyhow::Error {
        let message = format!("{}: query {}, document {document}: {what}", self.client.place(), query.id);
        let hint = format!("its tolerance is {}; --overwrite sends all documents anew", self.tolerance);
        Failure::run(message, hint).into()
    }

    /// The result.
    ///
    /// # Errors
    /// Fewer of the best documents than an approximate ranking states.
    fn finish(self) -> Result<Verified> {
        let queries = self.verified.queries;
        let recall = if queries == 0 { 1.0 } else { self.recall / queries as f32 };
        if let Tolerance::Recall { share } = self.tolerance
            && queries > 0
            && recall < share
        {
            let message = format!("{}: {recall:.3} of the exact best documents are found", self.client.place());
            return Err(Failure::run(message, format!("its tolerance is {}", self.tolerance)).into());
        }
        Ok(Verified { recall, ..self.verified })
    }
}

impl Tolerance {
    /// True if a score of the engine is near enough to the exact one.
    fn allows(&self, score: f32, exact: f32) -> bool {
        let unit = exact.abs().max(1.0);
        match self {
            Self::Exact { per_unit_of_score } => (score - exact).abs() <= per_unit_of_score * unit,
            Self::Below { share } => {
                score <= exact + ROUNDING * unit && score >= exact * (1.0 - share) - ROUNDING * unit
            }
            Self::Idf { share } => (score - exact).abs() <= share * exact + ROUNDING * unit,
            Self::Recall { .. } => true,
        }
    }

    /// True if a document of this exact score may stand where one of the score `expected` belongs: the engine cannot tell them
    /// apart.
    fn allows_at_rank(&self, exact: f32, expected: f32) -> bool {
        let unit = expected.abs().max(1.0);
        match self {
            Self::Exact { per_unit_of_score } => (exact - expected).abs() <= 2.0 * per_unit_of_score * unit,
            Self::Below { share } => (exact - expected).abs() <= (share + 2.0 * ROUNDING) * unit,
            Self::Idf { .. } | Self::Recall { .. } => true,
        }
    }
}
