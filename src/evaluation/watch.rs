//! [`Watch`]: vectors of a kind that no trained model gives, in which case a score means nothing.

use splade_core::SparseVector;
use splade_core::dense::DenseVector;

/// Signs of a broken model in the vectors of texts that are not empty.
#[derive(Debug)]
pub(super) struct Watch<V> {
    count: u64,
    first: Option<(String, V)>,
    has_other_text: bool,
    has_other_vector: bool,
    has_entry: bool,
    has_zero: bool,
}

impl<V> Default for Watch<V> {
    fn default() -> Self {
        Self {
            count: 0,
            first: None,
            has_other_text: false,
            has_other_vector: false,
            has_entry: false,
            has_zero: false,
        }
    }
}

impl Watch<SparseVector> {
    /// Counts the vector of a text over `dimensions` terms. Empty texts do not count.
    pub(super) fn add_sparse(&mut self, text: &str, vector: &SparseVector, dimensions: usize) {
        self.count_vector(text, vector, !vector.is_empty(), vector.active_dims() < dimensions);
    }
}

impl Watch<DenseVector> {
    /// Counts the vector of a text. Empty texts do not count, and that no value is zero is no sign.
    pub(super) fn add_dense(&mut self, text: &str, vector: &DenseVector) {
        self.count_vector(text, vector, vector.values().iter().any(|value| *value != 0.0), true);
    }
}

impl<V: Clone + PartialEq> Watch<V> {
    fn count_vector(&mut self, text: &str, vector: &V, has_entry: bool, has_zero: bool) {
        if text.trim().is_empty() {
            return;
        }
        self.count += 1;
        self.has_entry |= has_entry;
        self.has_zero |= has_zero;
        match &self.first {
            None => self.first = Some((text.to_owned(), vector.clone())),
            Some((first, known)) => {
                // comparisons end with the first difference
                self.has_other_text |= first != text;
                self.has_other_vector = self.has_other_vector || known != vector;
            }
        }
    }

    /// The sign that all vectors show, as the end of a sentence about them; none if there is no such sign.
    pub(super) fn sign(&self) -> Option<&'static str> {
        if self.count == 0 {
            None
        } else if !self.has_entry {
            Some("are all zero")
        } else if !self.has_zero {
            Some("are all full: no weight is zero")
        } else if self.has_other_text && !self.has_other_vector {
            Some("are all equal, whatever the text")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_those_of_all_vectors() {
        let vector = |dims: &[u32]| SparseVector::from_pairs(dims.iter().map(|dim| (*dim, 1.0))).unwrap();
        let sign = |vectors: &[(&str, &[u32])]| {
            let mut watch = Watch::default();
            vectors.iter().for_each(|(text, dims)| watch.add_sparse(text, &vector(dims), 3));
            watch.sign()
        };
        assert_eq!(sign(&[]), None);
        assert_eq!(sign(&[("", &[]), (" ", &[])]), None, "empty texts have no entries");
        assert_eq!(sign(&[("a", &[]), ("", &[1])]), Some("are all zero"));
        assert_eq!(sign(&[("a", &[]), ("b", &[1])]), None);
        assert_eq!(sign(&[("a", &[0, 1, 2]), ("b", &[0, 1, 2])]), Some("are all full: no weight is zero"));
        assert_eq!(sign(&[("a", &[1]), ("b", &[1])]), Some("are all equal, whatever the text"));
        assert_eq!(sign(&[("a", &[1]), ("a", &[1])]), None, "equal texts have equal vectors");
        assert_eq!(sign(&[("a", &[1]), ("b", &[1]), ("c", &[1, 2])]), None);
    }
    #[test]
    fn dense_vectors_are_broken_if_all_are_zero_or_equal() {
        let sign = |vectors: &[(&str, [f32; 2])]| {
            let mut watch = Watch::default();
            vectors
                .iter()
                .for_each(|(text, values)| watch.add_dense(text, &DenseVector::new(values.to_vec()).unwrap()));
            watch.sign()
        };
        assert_eq!(sign(&[("a", [0.0, 0.0]), ("b", [0.0, 0.0])]), Some("are all zero"));
        assert_eq!(sign(&[("a", [0.6, 0.8]), ("b", [0.6, 0.8])]), Some("are all equal, whatever the text"));
        assert_eq!(sign(&[("a", [0.6, 0.8]), ("b", [0.8, 0.6])]), None, "no value of a dense vector is zero");
    }
}
