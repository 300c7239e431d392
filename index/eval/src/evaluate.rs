//! [`evaluate`]: the scores of a retriever on a task, by the rules of both references.

use std::cmp::Ordering;
use std::collections::HashSet;

use rayon::prelude::*;

use splade_core::{Hit, Ranking, Retriever, SparsityStats};

use crate::error::{Error, Result};
use crate::retrieval::{RETRIEVAL_DEPTH, RetrievalScores, retrieval_scores};
use crate::run::Run;
use crate::scores::Scores;
use crate::task::{EncodedTask, TaskQuery};
use crate::trec::{MTEB_DEPTH, mteb_scores, trec_order};

/// Runs and scores of a retriever on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// mteb's run: the best [`MTEB_DEPTH`] documents of every judged query, those of score 0 too
    pub run: Run,
    /// scores of that run by mteb's rules
    pub mteb: Scores,
    /// scores by the rules of sentence-transformers, with the sparsity of both sides
    pub retrieval: RetrievalScores,
    /// queries by whether their ranking held a document with the query's own id
    pub own_documents: OwnDocuments,
}

/// Numbers of queries whose ranking holds a document with the query's own id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnDocuments {
    /// queries of which that document was left out
    pub left_out: usize,
    /// those of them whose own document is judged relevant, so that it counts as not found
    pub left_out_relevant: usize,
    /// queries that rank it among the best 10 with a score above 0 although it is not judged relevant
    pub ranked: usize,
}

/// Searches for every judged query and scores the rankings.
///
/// Both references rank every document of the corpus, so documents that the retriever does not list have a score of 0.
/// They differ in which of two documents of equal score comes first, also at the cut-off of the ranking: mteb keeps the
/// larger id, sentence-transformers the smaller one. If the task requires it, a document with the query's id is left out of
/// mteb's run after the cut-off, as in mteb; sentence-transformers always keeps it.
///
/// ```
/// use splade_core::SparseVector;
/// use splade_eval::{EncodedTask, ExactSearcher, Qrels, evaluate};
///
/// let vector = |dim| SparseVector::from_pairs([(dim, 1.0)]);
/// let qrels: Qrels = [("q1", "d1", 1), ("q2", "d1", 1)].into_iter().collect();
/// let mut task = EncodedTask::new("dev", qrels, 100);
/// task.add_query("q1", "", vector(3)?);
/// task.add_query("q2", "", vector(8)?);
/// let documents = [("d1".to_owned(), vector(3)?), ("d2".to_owned(), vector(8)?)];
/// documents.iter().for_each(|(id, vector)| assert!(task.add_document(id, vector)));
///
/// let evaluation = evaluate(&ExactSearcher::new(documents)?, &task)?;
/// assert_eq!(evaluation.retrieval.scores("dev").get("dev_dot_accuracy@1"), Some(0.5));
/// assert_eq!(evaluation.mteb.get("recall_at_10"), Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No query with a relevant document, a retriever that fails, a score that is not a finite number.
pub fn evaluate(retriever: &dyn Retriever, task: &EncodedTask) -> Result<Evaluation> {
    let queries = task.queries();
    let ranked = queries.par_iter().map(|query| rank(retriever, query, task)).collect::<Result<Vec<_>>>()?;
    let (mut run, mut binary_run) = (Run::default(), Run::default());
    let mut own_documents = OwnDocuments::default();
    for (query, (mteb, binary, own)) in queries.iter().zip(ranked) {
        run.insert(&query.id, mteb);
        binary_run.insert(&query.id, binary);
        own_documents.left_out += own.left_out;
        own_documents.left_out_relevant += own.left_out_relevant;
        own_documents.ranked += own.ranked;
    }
    let qrels = task.qrels();
    let scored = queries.iter().filter(|query| qrels.relevant_count(&query.id) > 0);
    let query_stats = SparsityStats::of(task.dimensions(), scored.map(|query| &query.vector));
    let mteb = mteb_scores(qrels, &run)?;
    let retrieval = retrieval_scores(qrels, &binary_run, query_stats, task.document_stats().clone())?;
    Ok(Evaluation { run, mteb, retrieval, own_documents })
}

/// Ranking of a query by mteb's rules, by those of sentence-transformers, and its own document in the first.
fn rank(retriever: &dyn Retriever, query: &TaskQuery, task: &EncodedTask) -> Result<(Ranking, Ranking, OwnDocuments)> {
    let found = TopHits::of(retriever, query, MTEB_DEPTH, task.document_count())?;
    let ascending = task.document_ids();
    let binary = found.truncate_by(RETRIEVAL_DEPTH, Hit::rank_order, ascending.clone());
    let mut mteb = found.truncate_by(MTEB_DEPTH, trec_order, ascending.rev());
    let mut own = OwnDocuments::default();
    if let Some(at) = mteb.iter().position(|hit| hit.id == query.id) {
        let judged = task.qrels().judgements(&query.id).and_then(|judged| judged.get(&query.id));
        let is_relevant = judged.is_some_and(|grade| *grade > 0);
        if task.ignores_identical_ids() {
            mteb.remove(at);
            own.left_out = 1;
            own.left_out_relevant = usize::from(is_relevant);
        } else {
            own.ranked = usize::from(at < 10 && mteb[at].score > 0.0 && !is_relevant);
        }
    }
    Ok((Ranking::from_distinct(mteb), Ranking::from_distinct(binary), own))
}

/// Hits that are enough to truncate a ranking by any rule for equal scores.
struct TopHits {
    hits: Vec<Hit>,
    /// true if every document that is not among the hits has a score of 0
    others_are_zero: bool,
}

impl TopHits {
    /// Retrieves at least the best `depth` hits, and all that tie with the last of them.
    fn of(retriever: &dyn Retriever, query: &TaskQuery, depth: usize, document_count: usize) -> Result<Self> {
        let mut wanted = depth + 1;
        loop {
            let hits = retriever.retrieve(query.encoded(), wanted)?.into_hits();
            if let Some(hit) = hits.iter().find(|hit| !hit.score.is_finite()) {
                let message = format!("query {}: document {} has the score {}", query.id, hit.id, hit.score);
                return Err(Error::invalid(message, "the weights of the vectors are too large for 32-bit floats"));
            }
            let others_are_zero = hits.len() < wanted;
            let last = hits.last().map_or(0.0, |hit| hit.score);
            // below 0 the documents of score 0 come first, and these need not be listed
            let is_clear = last >= 0.0 && hits.get(depth - 1).is_none_or(|hit| hit.score > last);
            if others_are_zero || is_clear || wanted >= document_count {
                return Ok(Self { hits, others_are_zero });
            }
            wanted = wanted.saturating_mul(2);
        }
    }

    /// The first `depth` documents in `order`; `ids` are those of the corpus in the order of equal scores.
    fn truncate_by<'a>(
        &self,
        depth: usize,
        order: fn(&Hit, &Hit) -> Ordering,
        ids: impl Iterator<Item = &'a str>,
    ) -> Vec<Hit> {
        // zeros that are not listed come after the scores above 0
        let positive = self.hits.iter().take_while(|hit| hit.score > 0.0).count();
        let room = depth.saturating_sub(positive);
        let mut others = Vec::new();
        if self.others_are_zero && room > 0 {
            let listed: HashSet<&str> = self.hits.iter().map(|hit| hit.id.as_str()).collect();
            let unlisted = ids.filter(|id| !listed.contains(id)).take(room);
            others.extend(unlisted.map(|id| Hit { id: id.to_owned(), score: 0.0 }));
        }
        let mut hits: Vec<&Hit> = self.hits.iter().chain(&others).collect();
        hits.sort_by(|a, b| order(a, b));
        hits.truncate(depth);
        hits.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use splade_core::{EncodedQuery, SparseVector};

    use super::*;
    use crate::exact::ExactSearcher;
    use crate::qrels::Qrels;

    fn vector(pairs: &[(u32, f32)]) -> SparseVector {
        SparseVector::from_pairs(pairs.iter().copied()).unwrap()
    }

    /// Task and searcher over the same documents.
    fn task(qrels: &[(&str, &str, i32)], query: SparseVector, documents: &[(String, SparseVector)]) -> EncodedTask {
        let mut task = EncodedTask::new("task", qrels.iter().copied().collect::<Qrels>(), 8);
        task.add_query("q", "", query);
        documents.iter().for_each(|(id, vector)| assert!(task.add_document(id, vector)));
        task
    }

    fn ids(run: &Run) -> Vec<&str> {
        run.ranking("q").unwrap().hits().iter().map(|hit| hit.id.as_str()).collect()
    }

    /// B13: mteb keeps the 1000 best documents whatever their score, of equal ones those with the larger ids.
    #[test]
    fn documents_of_score_0_rank_as_in_mteb() {
        let documents: Vec<_> = (0..1500).map(|n| (format!("d{n:04}"), vector(&[(n % 2, 1.0)]))).collect();
        let searcher = ExactSearcher::new(documents.clone()).unwrap();
        let no_match = task(&[("q", "d1499", 1), ("q", "d0000", 1)], vector(&[(5, 1.0)]), &documents);
        let evaluation = evaluate(&searcher, &no_match).unwrap();
        let run = ids(&evaluation.run);
        assert_eq!((run.len(), run[0], run[999]), (1000, "d0500", "d1499"));
        assert_eq!(evaluation.mteb.get("mrr_at_10"), Some(1.0));
        assert_eq!(evaluation.mteb.get("recall_at_1000"), Some(0.5));
        // sentence-transformers ranks the smaller id first
        assert_eq!(evaluation.retrieval.scores("").get("dot_recall@1"), Some(0.5));
        assert_eq!(evaluation.retrieval.scores("").get("dot_mrr@10"), Some(1.0));

        // 750 documents match; of the others the 250 with the largest ids fill the run
        let half = task(&[("q", "d1000", 1), ("q", "d0998", 1)], vector(&[(1, 1.0)]), &documents);
        assert_eq!(evaluate(&searcher, &half).unwrap().mteb.get("recall_at_1000"), Some(0.5));
    }

    #[test]
    fn no_score_is_a_negative_zero() {
        let documents = [("a".to_owned(), vector(&[(1, 1.0)]))];
        let nothing = task(&[("q", "missing", 1)], vector(&[(2, 1.0)]), &documents);
        let evaluation = evaluate(&ExactSearcher::new(documents).unwrap(), &nothing).unwrap();
        let retrieval = evaluation.retrieval.scores("");
        let all = evaluation.mteb.iter().chain(retrieval.iter());
        let mut zeros = 0;
        for (metric, value) in all.filter(|(_, value)| *value == 0.0) {
            assert!(value.is_sign_positive(), "{metric}");
            zeros += 1;
        }
        assert!(zeros > 42, "{zeros}");
    }

    /// B14: of the sets where queries are documents, mteb drops the query's document after the cut-off.
    #[test]
    fn the_own_document_of_a_query_is_left_out_on_demand() {
        let documents: Vec<_> =
            ["q", "x", "y"].iter().map(|id| ((*id).to_owned(), vector(&[(1, 1.0), (2, 0.5)]))).collect();
        let searcher = ExactSearcher::new(documents.clone()).unwrap();
        let mut kept = task(&[("q", "x", 1)], vector(&[(1, 1.0)]), &documents);
        let evaluation = evaluate(&searcher, &kept).unwrap();
        assert_eq!(ids(&evaluation.run), ["q", "x", "y"]);
        assert_eq!(evaluation.own_documents, OwnDocuments { ranked: 1, ..OwnDocuments::default() });
        kept.ignore_identical_ids(true);
        let evaluation = evaluate(&searcher, &kept).unwrap();
        assert_eq!(ids(&evaluation.run), ["x", "y"]);
        assert_eq!(evaluation.own_documents, OwnDocuments { left_out: 1, ..OwnDocuments::default() });
        assert_eq!(evaluation.retrieval.scores("").get("dot_accuracy@1"), Some(0.0), "q is the smallest id");
        let mut relevant = task(&[("q", "q", 1)], vector(&[(1, 1.0)]), &documents);
        assert_eq!(evaluate(&searcher, &relevant).unwrap().own_documents, OwnDocuments::default());
        relevant.ignore_identical_ids(true);
        assert_eq!(evaluate(&searcher, &relevant).unwrap().own_documents.left_out_relevant, 1);
    }

    #[test]
    fn a_score_that_is_no_number_is_an_error() {
        let documents = [("d".to_owned(), vector(&[(1, 1e38), (2, 1e38)]))];
        let overflow = task(&[("q", "d", 1)], vector(&[(1, 1e10), (2, -1e10)]), &documents);
        let error = evaluate(&ExactSearcher::new(documents).unwrap(), &overflow).unwrap_err();
        assert_eq!(error.to_string(), "query q: document d has the score NaN");
    }

    /// Lists matches only, as an inverted index does.
    struct Sparse(ExactSearcher);

    impl Retriever for Sparse {
        fn retrieve(&self, query: EncodedQuery<'_>, depth: usize) -> splade_core::Result<Ranking> {
            let nonzero = self.0.search(query.vector, usize::MAX);
            let hits = nonzero.hits().iter().filter(|hit| hit.score != 0.0).take(depth).cloned();
            Ok(Ranking::from_hits(hits.collect()))
        }
    }

    proptest! {
        /// The plain twin: all documents scored and sorted by each rule. Few weights, so that ties are everywhere.
        #[test]
        fn both_rankings_equal_sorting_all_documents(
            weights in prop::collection::vec(prop::collection::vec(-1i8..3, 3), 1..40),
            query in prop::collection::vec(-1i8..3, 3),
            depth in 1usize..12,
        ) {
            let sparse = |weights: &[i8]| {
                let pairs = (0u32..).zip(weights).filter(|(_, weight)| **weight != 0);
                SparseVector::from_pairs(pairs.map(|(dim, weight)| (dim, f32::from(*weight)))).unwrap()
            };
            let documents: Vec<(String, SparseVector)> =
                weights.iter().enumerate().map(|(n, weights)| (format!("{}", n * 7 % 41), sparse(weights))).collect();
            let query = TaskQuery { id: "q".into(), text: String::new(), vector: sparse(&query), dense: None };
            let mut ids: Vec<&str> = documents.iter().map(|(id, _)| id.as_str()).collect();
            ids.sort_unstable();
            let mut all: Vec<Hit> = documents
                .iter()
                .map(|(id, vector)| Hit { id: id.clone(), score: query.vector.dot(vector) + 0.0 })
                .collect();
            let searcher = Sparse(ExactSearcher::new(documents.clone()).unwrap());
            let found = TopHits::of(&searcher, &query, depth, documents.len()).unwrap();
            all.sort_by(trec_order);
            prop_assert_eq!(&found.truncate_by(depth, trec_order, ids.iter().rev().copied()), &all[..depth.min(all.len())]);
            all.sort_by(Hit::rank_order);
            prop_assert_eq!(&found.truncate_by(depth, Hit::rank_order, ids.iter().copied()), &all[..depth.min(all.len())]);
        }
    }
}
