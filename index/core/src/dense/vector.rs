//! [`DenseVector`]: a value for each dimension.

use crate::{Error, Result};

/// Largest number of dimensions. With more, products of codes would leave 32 bits.
pub const MAX_DIMENSIONS: usize = 1 << 15;

/// Largest Euclidean length of a vector. Products of two such vectors are in the range of f32.
const MAX_NORM: f64 = 1e18;

/// Number of partial sums of a dot product: enough for the widest vector instructions.
const LANES: usize = 16;

/// Output of a dense encoder: finite values, at least one.
///
/// ```
/// use splade_core::dense::DenseVector;
///
/// let a = DenseVector::new(vec![3.0, 4.0])?;
/// assert_eq!(a.dot(&DenseVector::new(vec![2.0, 0.5])?), 8.0);
/// assert_eq!(a.normalized().values(), [0.6, 0.8]);
/// assert!(DenseVector::new(vec![f32::NAN]).is_err());
/// # Ok::<(), splade_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DenseVector {
    values: Box<[f32]>,
}

impl DenseVector {
    /// Checks and wraps one value per dimension.
    ///
    /// # Errors
    /// No value, more than [`MAX_DIMENSIONS`], a value that is not finite, a length above 1e18.
    pub fn new(values: Vec<f32>) -> Result<Self> {
        if values.is_empty() || values.len() > MAX_DIMENSIONS {
            let message = format!("a dense vector has {} dimensions", values.len());
            return Err(Error::invalid(message, format!("1 to {MAX_DIMENSIONS} dimensions can be searched")));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::invalid(format!("dimension {at} of a dense vector is {}", values[at]), ""));
        }
        let norm = norm(&values);
        if norm > MAX_NORM {
            return Err(Error::invalid(
                format!("a dense vector has the length {:e}, above {MAX_NORM:e}", norm as f32),
                "",
            ));
        }
        Ok(Self { values: values.into() })
    }

    /// The values by dimension.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of dimensions.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.values.len()
    }

    /// Dot product: products and sums in f64, the result rounded to f32. Of vectors of different dimensions, the common ones
    /// count.
    #[must_use]
    pub fn dot(&self, other: &Self) -> f32 {
        dot(&self.values, &other.values)
    }

    /// The vector divided by its length, as sentence-transformers normalizes; a zero vector stays as it is.
    #[must_use]
    pub fn normalized(&self) -> Self {
        // torch's normalize has this lower bound too
        let norm = norm(&self.values).max(1e-12);
        Self { values: self.values.iter().map(|value| (f64::from(*value) / norm) as f32).collect() }
    }

    /// The values in f32, little endian: a row of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

/// Dot product of slices as [`DenseVector::dot`] defines it.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f64; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    (sums.iter().sum::<f64>() + rest) as f32
}

/// Euclidean length.
pub(super) fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_cannot_be_searched_are_refused() {
        let refused = |values: Vec<f32>, message: &str| {
            assert_eq!(DenseVector::new(values).unwrap_err().to_string(), message);
        };
        refused(vec![], "a dense vector has 0 dimensions");
        refused(vec![0.0; MAX_DIMENSIONS + 1], "a dense vector has 32769 dimensions");
        refused(vec![0.0, f32::INFINITY], "dimension 1 of a dense vector is inf");
        refused(vec![3e18], "a dense vector has the length 3e18, above 1e18");
        let longest = DenseVector::new(vec![1e18]).unwrap();
        assert!(longest.dot(&longest).is_finite());
    }

    #[test]
    fn every_dimension_counts_in_a_dot_product() {
        for n in [1, 15, 16, 17, 40] {
            let values: Vec<f32> = (1..=n).map(|value| value as f32).collect();
            let expected: f32 = values.iter().map(|value| value * value).sum();
            let vector = DenseVector::new(values).unwrap();
            assert_eq!(vector.dot(&vector), expected);
        }
    }
}
