//! Comparison of two implementations on the same texts, stage by stage: token ids, vectors, scores, rankings.
//!
//! Every function returns the largest difference with its position.

use ndarray::Axis;
use splade_core::pool;
use splade_core::{Network, SparseVector, SpladePooling, TokenBatch};

use super::{Backend, Limits, larger};

/// Largest difference of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// number of compared texts, pairs or queries
    pub compared: usize,
    /// largest difference
    pub difference: f32,
    /// its position; `None` without a difference
    pub place: Option<Place>,
    /// smallest cosine of two vectors; 1 if no vectors are compared
    pub cosine: f64,
}

/// Position of a difference, with both values.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// number of the text, or of the query of a score
    pub text: usize,
    /// number of the document of a score or ranking
    pub document: Option<usize>,
    /// term of a vector, or position of a token
    pub at: Option<u32>,
    /// value of the reference
    pub expected: f32,
    /// value of the other implementation
    pub found: f32,
}

impl Finding {
    fn new(compared: usize) -> Self {
        Self { compared, difference: 0.0, place: None, cosine: 1.0 }
    }

    /// True if difference and cosine are within `limits`.
    #[must_use]
    pub fn within(&self, limits: Limits) -> bool {
        // written so that NaN is outside
        self.difference <= limits.difference && self.cosine >= limits.cosine
    }

    fn note(&mut self, difference: f32, place: impl FnOnce() -> Place) {
        if difference != 0.0 && larger(self.difference, difference).to_bits() != self.difference.to_bits() {
            (self.difference, self.place) = (difference, Some(place()));
        }
    }
}

/// Compares token ids. The difference of a text is the number of positions with different ids.
#[must_use]
pub fn compare_tokens<A: AsRef<[u32]>, B: AsRef<[u32]>>(expected: &[A], found: &[B]) -> Finding {
    let mut finding = Finding::new(expected.len().min(found.len()));
    for (text, (expected, found)) in expected.iter().zip(found).enumerate() {
        let (expected, found) = (expected.as_ref(), found.as_ref());
        let id = |ids: &[u32], at: usize| ids.get(at).map_or(-1.0, |id| *id as f32);
        let length = expected.len().max(found.len());
        let mut differing = (0..length).filter(|&at| expected.get(at) != found.get(at));
        if let Some(first) = differing.next() {
            let place = || Place {
                text,
                document: None,
                at: u32::try_from(first).ok(),
                expected: id(expected, first),
                found: id(found, first),
            };
            finding.note((1 + differing.count()) as f32, place);
        }
    }
    finding
}

/// Compares vectors. The difference of an entry is `|found − expected|`, divided by `|expected|` if that is above 1.
#[must_use]
pub fn compare_vectors(expected: &[SparseVector], found: &[SparseVector]) -> Finding {
    let mut finding = Finding::new(expected.len().min(found.len()));
    for (text, (expected, found)) in expected.iter().zip(found).enumerate() {
        for (dim, a, b) in both(expected, found) {
            let place = || Place { text, document: None, at: Some(dim), expected: a, found: b };
            finding.note((b - a).abs() / a.abs().max(1.0), place);
        }
        finding.cosine = finding.cosine.min(cosine(expected, found));
    }
    finding
}

/// Vectors of queries and documents by one implementation.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'v> {
    /// vectors of the queries
    pub queries: &'v [SparseVector],
    /// vectors of the documents
    pub documents: &'v [SparseVector],
}

impl Sides<'_> {
    /// Dot product of a query and a document, by their numbers; 0 if a number is out of range.
    #[must_use]
    pub fn score(&self, query: usize, document: usize) -> f32 {
        match (self.queries.get(query), self.documents.get(document)) {
            (Some(query), Some(document)) => query.dot(document),
            _ => 0.0,
        }
    }

    /// Σ |query weight · document weight|, at least 1. The rounding error of a score is proportional to it.
    fn scale(&self, query: usize, document: usize) -> f32 {
        let document = &self.documents[document];
        self.queries[query].iter().map(|(dim, weight)| (weight * document.weight(dim)).abs()).sum::<f32>().max(1.0)
    }
}

/// Compares the scores of every query and document. The difference of a score is `|found − expected|`, divided by the sum of the
/// absolute products of the expected score if that is above 1. `found` returns the score of a query and a document, by their
/// numbers.
#[must_use]
pub fn compare_scores(expected: Sides<'_>, found: impl Fn(usize, usize) -> f32) -> Finding {
    let (queries, documents) = (expected.queries.len(), expected.documents.len());
    let mut finding = Finding::new(queries * documents);
    for query in 0..queries {
        for document in 0..documents {
            let (a, b) = (expected.score(query, document), found(query, document));
            let place = || Place { text: query, document: Some(document), at: None, expected: a, found: b };
            finding.note((b - a).abs() / expected.scale(query, document), place);
        }
    }
    finding
}

/// Compares the rankings of the documents for every query. For a document among the first `k` and another document ranked below
/// it, the difference is the excess of the lower document's expected score, divided as in [`compare_scores`]. Documents of equal
/// expected score may be in any order, since their difference is 0.
#[must_use]
pub fn compare_rankings(expected: Sides<'_>, found: impl Fn(usize, usize) -> f32, k: usize) -> Finding {
    let (queries, documents) = (expected.queries.len(), expected.documents.len());
    let mut finding = Finding::new(queries);
    for query in 0..queries {
        let mut order: Vec<usize> = (0..documents).collect();
        let scores: Vec<f32> = order.iter().map(|&document| found(query, document)).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        for (rank, &document) in order.iter().enumerate().take(k) {
            let here = expected.score(query, document);
            for &behind in &order[rank + 1..] {
                let there = expected.score(query, behind);
                let scale = expected.scale(query, behind);
                if there > here {
                    let place =
                        || Place { text: query, document: Some(document), at: None, expected: there, found: here };
                    finding.note((there - here) / scale, place);
                }
            }
        }
    }
    finding
}

/// Dimensions of either vector, with the weights in `a` and in `b`.
fn both<'v>(a: &'v SparseVector, b: &'v SparseVector) -> impl Iterator<Item = (u32, f32, f32)> + 'v {
    let of_a = a.iter().map(|(dim, weight)| (dim, weight, b.weight(dim)));
    let only_b = b.iter().filter(|(dim, _)| a.weight(*dim) == 0.0).map(|(dim, weight)| (dim, 0.0, weight));
    of_a.chain(only_b)
}

/// Cosine of two vectors; 1 for two zero vectors, 0 for one.
fn cosine(a: &SparseVector, b: &SparseVector) -> f64 {
    let squares = |vector: &SparseVector| vector.weights().iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
    match (squares(a), squares(b)) {
        (0.0, 0.0) => 1.0,
        (aa, bb) if aa == 0.0 || bb == 0.0 => 0.0,
        (aa, bb) => both(a, b).map(|(_, a, b)| f64::from(a) * f64::from(b)).sum::<f64>() / (aa * bb).sqrt(),
    }
}

/// A [`Backend`] as a [`Network`]. Logits are pooled here.
pub struct BackendNetwork<B> {
    backend: B,
    is_pooled: bool,
    dimensions: usize,
    pooling: SpladePooling,
}

impl<B: Backend> BackendNetwork<B> {
    /// Wraps a backend whose output is vectors if `is_pooled`, else logits. `dimensions` is V, and `pooling` is that of the model
    /// folder.
    #[must_use]
    pub fn new(backend: B, is_pooled: bool, dimensions: usize, pooling: SpladePooling) -> Self {
        Self { backend, is_pooled, dimensions, pooling }
    }
}

impl<B: Backend + Send + Sync> Network for BackendNetwork<B> {
    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn forward(&self, batch: &TokenBatch) -> splade_core::Result<Vec<SparseVector>> {
        let output = self.backend.run(batch).map_err(|error| splade_core::Error::Encoder(error.into()))?;
        let vectors = if self.is_pooled { batch.rows() } else { batch.ids.len() };
        let expected = (vectors, self.dimensions);
        if output.dim() != expected {
            let message = format!("{} gives an output {:?}, not {expected:?}", self.backend.name(), output.dim());
            return Err(splade_core::Error::Encoder(message.into()));
        }
        let sparse = |weights: &[f32]| {
            SparseVector::from_dense(weights)
                .map_err(|source| splade_core::Error::Vector { of: "the network's output".into(), source })
        };
        if self.is_pooled {
            return output.outer_iter().map(|weights| sparse(&weights.to_vec())).collect();
        }
        let texts = output.axis_chunks_iter(Axis(0), batch.width()).zip(batch.mask.outer_iter());
        texts.map(|(logits, mask)| sparse(&pool(logits, mask, self.pooling))).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use splade_core::{Pooling, PoolingActivation};

    use super::*;
    use crate::{Error, Result};

    fn vector(pairs: &[(u32, f32)]) -> SparseVector {
        SparseVector::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn different_tokens_are_counted() {
        let expected = [vec![1, 2, 3], vec![4], vec![]];
        assert_eq!(compare_tokens(&expected, &expected.clone()), Finding::new(3));
        let finding = compare_tokens(&expected, &[vec![1, 9], vec![5], vec![]]);
        assert_eq!((finding.difference, finding.compared), (2.0, 3));
        let place = Place { text: 0, document: None, at: Some(1), expected: 2.0, found: 9.0 };
        assert_eq!(finding.place, Some(place));
        assert_eq!(compare_tokens(&[vec![1]], &[vec![]]).place.unwrap().found, -1.0);
    }

    #[test]
    fn the_largest_difference_is_found_with_its_text_and_term() {
        let expected = [vector(&[(1, 0.5), (7, 100.0)]), vector(&[(3, 2.0)])];
        let cases = [
            // above 1 the difference is relative
            ([vector(&[(1, 0.5), (7, 101.0)]), vector(&[(3, 2.0)])], 0.01, 0, 7, 100.0, 101.0),
            // an entry of one vector only
            ([vector(&[(7, 100.0)]), vector(&[(3, 2.0)])], 0.5, 0, 1, 0.5, 0.0),
            ([vector(&[(1, 0.5), (7, 100.0)]), vector(&[(3, 2.0), (9, 0.25)])], 0.25, 1, 9, 0.0, 0.25),
        ];
        for (found, difference, text, dim, a, b) in cases {
            let finding = compare_vectors(&expected, &found);
            let place = Place { text, document: None, at: Some(dim), expected: a, found: b };
            assert_eq!((finding.difference, finding.place), (difference, Some(place)));
            assert!(finding.cosine < 1.0 && finding.cosine > 0.99, "{}", finding.cosine);
        }
        assert_eq!(compare_vectors(&expected, &expected).place, None);
        assert_eq!(compare_vectors(&[vector(&[])], &[vector(&[(1, 1.0)])]).cosine, 0.0);
    }

    #[test]
    fn scores_and_rankings_follow_from_the_vectors() {
        let queries = [vector(&[(0, 1.0), (1, 2.0)])];
        let documents = [vector(&[(0, 3.0)]), vector(&[(1, 2.0)]), vector(&[(0, 1.0)])];
        let expected = Sides { queries: &queries, documents: &documents };
        let score = |sides: Sides<'_>, query, document| sides.score(query, document);
        let same = compare_rankings(expected, |query, document| score(expected, query, document), 10);
        assert_eq!((same.difference, same.compared), (0.0, 1));
        // scores 3, 4, 1 become 3, 2, 1: the second should have been before the first
        let other = [documents[0].clone(), vector(&[(1, 1.0)]), documents[2].clone()];
        let sides = Sides { documents: &other, ..expected };
        let found = |query, document| score(sides, query, document);
        let scores = compare_scores(expected, found);
        assert_eq!((scores.difference, scores.compared), (0.5, 3));
        assert_eq!(scores.place.map(|place| (place.document, place.expected, place.found)), Some((Some(1), 4.0, 2.0)));
        let ranking = compare_rankings(expected, found, 10);
        assert_eq!(ranking.difference, 0.25);
        assert_eq!(ranking.place.map(|place| (place.document, place.expected, place.found)), Some((Some(0), 4.0, 3.0)));
        // ranks after k do not count
        assert_eq!(compare_rankings(expected, found, 0).difference, 0.0);
    }

    #[test]
    fn ties_of_the_reference_may_change_places_and_others_may_not_become_ties() {
        let queries = [vector(&[(0, 1.0)])];
        let [low, tied, high] = [0.5, 1.0, 1.25].map(|weight| vector(&[(0, weight)]));
        let difference = |expected: &[SparseVector], found: &[SparseVector]| {
            let sides = |documents| Sides { queries: &queries, documents };
            let found = sides(found);
            compare_rankings(sides(expected), |query, document| found.score(query, document), 10).difference
        };
        assert_eq!(difference(&[tied.clone(), tied.clone()], &[low.clone(), high.clone()]), 0.0);
        assert_eq!(difference(&[low.clone(), high.clone()], &[tied.clone(), tied]), 0.6);
    }

    /// Backend with a fixed output, or a failure.
    struct Fixed(Option<Array2<f32>>);

    impl Backend for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn run(&self, _: &TokenBatch) -> Result<Array2<f32>> {
            self.0.clone().ok_or_else(|| Error::backend("m.onnx", "fixed", "no"))
        }
    }

    #[test]
    fn backends_of_vectors_and_of_logits_are_networks() {
        let pooling = SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu };
        let batch = TokenBatch::new(&[vec![1, 2], vec![3]], 9);
        let run = |is_pooled: bool, output: Option<Array2<f32>>| {
            BackendNetwork::new(Fixed(output), is_pooled, 2, pooling).forward(&batch)
        };
        let pooled = run(true, Some(array![[0.5, 0.0], [0.0, 2.0]])).unwrap();
        assert_eq!(pooled, [vector(&[(0, 0.5)]), vector(&[(1, 2.0)])]);
        // the last token is padding
        let logits = run(false, Some(array![[0.0, 1.0], [3.0, -1.0], [0.5, 0.0], [9.0, 9.0]])).unwrap();
        assert_eq!(logits, [vector(&[(0, 4_f32.ln()), (1, 2_f32.ln())]), vector(&[(0, 1.5_f32.ln())])]);
        let error = run(false, Some(array![[0.5, 0.0], [0.0, 2.0]])).unwrap_err();
        assert!(error.to_string().contains("fixed gives an output (2, 2), not (4, 2)"), "{error}");
        assert!(run(true, Some(Array2::from_elem((2, 2), f32::NAN))).is_err() && run(false, None).is_err());
    }

    #[test]
    fn logits_of_texts_of_one_token_are_pooled_too() {
        let pooling = SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu };
        let network = BackendNetwork::new(Fixed(Some(array![[1.0, -1.0]])), false, 2, pooling);
        let found = network.forward(&TokenBatch::new(&[vec![1]], 9)).unwrap();
        assert_eq!(found, [vector(&[(0, 2_f32.ln())])]);
    }
}
