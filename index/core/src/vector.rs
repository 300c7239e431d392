//! [`SparseVector`]: dimensions and weights, sorted, unique, finite, never zero.

/// Reason why lists of dimensions and weights are not a [`SparseVector`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// The two lists have different lengths.
    #[error("{dims} indices but {weights} values")]
    Length {
        /// number of dimensions given
        dims: usize,
        /// number of weights given
        weights: usize,
    },
    /// A dimension occurs twice.
    #[error("index {dim} occurs more than once")]
    Repeated {
        /// the dimension
        dim: u32,
    },
    /// A weight is NaN or infinite.
    #[error("index {dim} has the value {weight}, which is not finite")]
    NotFinite {
        /// the dimension
        dim: u32,
        /// the weight
        weight: f32,
    },
}

/// Weights of a dense row that are tested together: most blocks of a sparse row are all zero.
const BLOCK: usize = 32;

/// A vector over the vocabulary that stores only entries that are not zero.
///
/// Dimensions (token ids) strictly increase; weights are finite and not zero. Every constructor checks this, so that no
/// other code checks it again.
///
/// ```
/// use splade_core::SparseVector;
///
/// let query = SparseVector::from_pairs([(845, 1.5), (12, 0.5)])?;
/// let document = SparseVector::from_pairs([(12, 2.0), (77, 1.0), (845, 1.0)])?;
/// assert_eq!(query.dims(), [12, 845]);
/// assert_eq!(query.dot(&document), 2.5);
/// # Ok::<(), splade_core::VectorError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseVector {
    dims: Vec<u32>,
    weights: Vec<f32>,
}

impl SparseVector {
    /// Makes a vector of dimensions and weights in any order, without the zero weights.
    ///
    /// # Errors
    /// A dimension that occurs twice, a weight that is not finite, lists of different lengths.
    pub fn new(dims: Vec<u32>, weights: Vec<f32>) -> Result<Self, VectorError> {
        if dims.len() != weights.len() {
            return Err(VectorError::Length { dims: dims.len(), weights: weights.len() });
        }
        let sorted = dims.windows(2).all(|pair| pair[0] < pair[1]);
        if sorted && weights.iter().all(|weight| weight.is_finite() && *weight != 0.0) {
            return Ok(Self { dims, weights });
        }
        Self::from_pairs(dims.into_iter().zip(weights))
    }

    /// Makes a vector of pairs of dimension and weight in any order, without the zero weights.
    ///
    /// # Errors
    /// A dimension that occurs twice, a weight that is not finite.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u32, f32)>) -> Result<Self, VectorError> {
        let mut pairs: Vec<(u32, f32)> = pairs.into_iter().collect();
        pairs.sort_by_key(|&(dim, _)| dim);
        if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(VectorError::Repeated { dim: pair[0].0 });
        }
        if let Some(&(dim, weight)) = pairs.iter().find(|(_, weight)| !weight.is_finite()) {
            return Err(VectorError::NotFinite { dim, weight });
        }
        pairs.retain(|&(_, weight)| weight != 0.0);
        let (dims, weights) = pairs.into_iter().unzip();
        Ok(Self { dims, weights })
    }

    /// Makes a vector of the non-zero entries of a dense row `[V]`, one weight per term.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub fn from_dense(row: &[f32]) -> Result<Self, VectorError> {
        let active = row.iter().filter(|weight| **weight != 0.0).count();
        let mut dims = Vec::with_capacity(active);
        let mut weights = Vec::with_capacity(active);
        for (block, start) in row.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
            // the shift removes the sign bit: both zeros become 0
            if block.iter().fold(0, |bits, weight| bits | weight.to_bits() << 1) == 0 {
                continue;
            }
            for (dim, &weight) in (start..).zip(block) {
                if weight == 0.0 {
                    continue;
                }
                if !weight.is_finite() {
                    return Err(VectorError::NotFinite { dim, weight });
                }
                dims.push(dim);
                weights.push(weight);
            }
        }
        Ok(Self { dims, weights })
    }

    /// The dimensions, strictly increasing.
    #[must_use]
    pub fn dims(&self) -> &[u32] {
        &self.dims
    }

    /// The weights, in the order of [`dims`](Self::dims).
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Dimension and weight, by increasing dimension.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, f32)> + '_ {
        self.dims.iter().copied().zip(self.weights.iter().copied())
    }

    /// Number of entries.
    #[must_use]
    pub fn active_dims(&self) -> usize {
        self.dims.len()
    }

    /// True for the zero vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dims.is_empty()
    }

    /// The weight at `dim`, 0 where there is none.
    #[must_use]
    pub fn weight(&self, dim: u32) -> f32 {
        self.dims.binary_search(&dim).map_or(0.0, |at| self.weights[at])
    }

    /// The dot product, summed in f32 by increasing dimension.
    ///
    /// Every exact score of this crate is summed in this order, so that scores of all search paths are equal bit for bit.
    #[must_use]
    pub fn dot(&self, other: &Self) -> f32 {
        let (mut a, mut b) = (0, 0);
        let mut sum = 0.0;
        while a < self.dims.len() && b < other.dims.len() {
            match self.dims[a].cmp(&other.dims[b]) {
                std::cmp::Ordering::Less => a += 1,
                std::cmp::Ordering::Greater => b += 1,
                std::cmp::Ordering::Equal => {
                    sum += self.weights[a] * other.weights[b];
                    a += 1;
                    b += 1;
                }
            }
        }
        sum
    }

    /// A copy without the entries of the dimensions `dropped`, which ascend.
    #[must_use]
    pub fn without(self, dropped: &[u32]) -> Self {
        if dropped.is_empty() {
            return self;
        }
        let kept = self.dims.iter().zip(&self.weights).filter(|(dim, _)| dropped.binary_search(dim).is_err());
        let (dims, weights) = kept.map(|(dim, weight)| (*dim, *weight)).unzip();
        Self { dims, weights }
    }

    /// The `k` entries of largest absolute weight; of equal weights, those of the smaller dimension.
    ///
    /// This is `max_active_dims` of sentence-transformers, which leaves ties undefined.
    #[must_use]
    pub fn top_k(&self, k: usize) -> Self {
        if k >= self.dims.len() {
            return self.clone();
        }
        let mut kept = self.by_weight(|weight| weight.abs());
        kept.truncate(k);
        kept.sort_unstable_by_key(|&(dim, _)| dim);
        let (dims, weights) = kept.into_iter().unzip();
        Self { dims, weights }
    }

    /// Dimensions and weights by decreasing weight, then increasing dimension: the order for display.
    #[must_use]
    pub fn by_decreasing_weight(&self) -> Vec<(u32, f32)> {
        self.by_weight(|weight| weight)
    }

    fn by_weight(&self, key: impl Fn(f32) -> f32) -> Vec<(u32, f32)> {
        let mut pairs: Vec<(u32, f32)> = self.iter().collect();
        pairs.sort_by(|a, b| key(b.1).total_cmp(&key(a.1)).then(a.0.cmp(&b.0)));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_is_refused_with_the_dimension() {
        assert_eq!(SparseVector::new(vec![1], vec![]), Err(VectorError::Length { dims: 1, weights: 0 }));
        assert_eq!(SparseVector::from_pairs([(3, 1.0), (3, 2.0)]), Err(VectorError::Repeated { dim: 3 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(SparseVector::from_pairs([(3, bad)]), Err(VectorError::NotFinite { dim: 3, .. })));
            assert!(matches!(SparseVector::from_dense(&[0.0, bad]), Err(VectorError::NotFinite { dim: 1, .. })));
        }
    }

    #[test]
    fn zeros_are_left_out_and_order_is_restored() {
        let vector = SparseVector::new(vec![9, 2, 5], vec![1.0, -2.0, 0.0]).unwrap();
        assert_eq!(vector.iter().collect::<Vec<_>>(), [(2, -2.0), (9, 1.0)]);
        assert_eq!(vector, SparseVector::from_dense(&[0., 0., -2., 0., -0., 0., 0., 0., 0., 1.]).unwrap());
        assert_eq!((vector.weight(2), vector.weight(5)), (-2.0, 0.0));
    }

    #[test]
    fn a_dense_row_of_any_length_gives_its_entries() {
        for length in [0, 1, 31, 32, 33, 64, 100] {
            for step in [1, 3, 40] {
                let weight = |dim: usize| if dim.is_multiple_of(step) { dim as f32 - 32.0 } else { -0.0 };
                let row: Vec<f32> = (0..length).map(weight).collect();
                let plain = SparseVector::from_pairs((0..).zip(row.iter().copied())).unwrap();
                assert_eq!(SparseVector::from_dense(&row).unwrap(), plain, "{length} {step}");
            }
        }
    }

    #[test]
    fn top_k_counts_absolute_weights() {
        let vector = SparseVector::from_pairs([(1, -3.0), (2, 1.0), (3, 2.0), (4, 2.0)]).unwrap();
        assert_eq!(vector.top_k(2).iter().collect::<Vec<_>>(), [(1, -3.0), (3, 2.0)]);
        assert_eq!(vector.top_k(0), SparseVector::default());
        assert_eq!(vector.top_k(9), vector);
        assert_eq!(vector.by_decreasing_weight(), [(3, 2.0), (4, 2.0), (2, 1.0), (1, -3.0)]);
    }
}
