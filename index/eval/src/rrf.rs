//! Scores of sentence-transformers' ReciprocalRankFusionEvaluator, for comparison with its published numbers.
//!
//! The evaluator scores lists of texts and first appends to a list the relevant texts that it lacks, which favors short
//! lists. Its MAP is not comparable with the other MAP values of this crate.

use std::collections::{HashMap, HashSet};

use crate::metrics::{Graded, mean};
use crate::scores::Scores;

/// The constant of reciprocal rank fusion in the reference.
const RRF_K: f64 = 60.0;

/// Two ranked lists of texts for one query, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FusionSample {
    /// relevant texts
    pub positive: Vec<String>,
    /// list of the dense system
    pub dense: Vec<String>,
    /// list of the sparse system
    pub sparse: Vec<String>,
}

impl FusionSample {
    /// Texts of both lists by decreasing Σ 1 / (60 + rank), ranks from 1. Texts of equal score keep their order, those
    /// of the dense list first.
    ///
    /// ```
    /// use splade_eval::FusionSample;
    ///
    /// let list = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    /// let sample = FusionSample { dense: list(&["a", "b"]), sparse: list(&["c", "b"]), ..FusionSample::default() };
    /// assert_eq!(sample.fused(), ["b", "a", "c"]);
    /// ```
    #[must_use]
    pub fn fused(&self) -> Vec<&str> {
        let mut order: Vec<&str> = Vec::new();
        let mut scores: HashMap<&str, f64> = HashMap::new();
        for list in [&self.dense, &self.sparse] {
            for (rank, text) in (1..).zip(list) {
                let score = scores.entry(text).or_insert_with(|| {
                    order.push(text);
                    0.0
                });
                *score += 1.0 / (RRF_K + f64::from(rank));
            }
        }
        order.sort_by(|a, b| scores[b].total_cmp(&scores[a])); // stable
        order
    }
}

/// MAP, MRR@10 and nDCG@10 of the dense lists, of the sparse lists and of their fusion, under the reference's names:
/// `dense_map` …, `sparse_map` …, `map`, `mrr@10`, `ndcg@10`. NaN without samples.
#[must_use]
pub fn fusion_scores(samples: &[FusionSample]) -> Scores {
    fn texts(list: &[String]) -> Vec<&str> {
        list.iter().map(String::as_str).collect()
    }
    let mut scores = Scores::default();
    let padded = |list: fn(&FusionSample) -> Vec<&str>| {
        samples.iter().map(|sample| padded(list(sample), &sample.positive)).collect::<Vec<_>>()
    };
    push_scores(&mut scores, "dense_", &padded(|sample| texts(&sample.dense)));
    push_scores(&mut scores, "sparse_", &padded(|sample| texts(&sample.sparse)));
    push_scores(&mut scores, "", &padded(FusionSample::fused));
    scores
}

fn push_scores(scores: &mut Scores, system: &str, lists: &[Option<Graded>]) {
    let mean = |metric: fn(&Graded) -> f64| {
        mean(&lists.iter().map(|graded| graded.as_ref().map_or(0.0, metric)).collect::<Vec<f64>>())
    };
    let map = |graded: &Graded| graded.average_precision(usize::MAX, graded.relevant_count());
    scores.push(format!("{system}map"), mean(map));
    scores.push(format!("{system}mrr@10"), mean(|graded| graded.reciprocal_rank(10)));
    scores.push(format!("{system}ndcg@10"), mean(|graded| graded.ndcg(10)));
}

/// The list with its missing relevant texts appended; none for a list without any relevant text, which scores 0.
fn padded<'a>(mut list: Vec<&'a str>, positive: &'a [String]) -> Option<Graded> {
    let found: HashSet<&str> = list.iter().copied().collect();
    let (there, missing): (Vec<&str>, Vec<&str>) =
        positive.iter().map(String::as_str).partition(|text| found.contains(text));
    if there.is_empty() {
        return None;
    }
    list.extend(missing);
    let judged = positive.iter().map(|text| (text.clone(), 1)).collect();
    Some(Graded::new(list, &judged))
}
