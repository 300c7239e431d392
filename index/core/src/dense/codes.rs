//! Codes of 8 bits of documents and of 16 bits of queries, and the largest error of their products.
//!
//! A vector x is stored as codes c and a step s, so that s·c is near x. For a query q with codes d and step t,
//! q·x − (t·d)·(s·c) = q·(x − s·c) + (q − t·d)·(s·c). By the inequality of Cauchy and Schwarz, its absolute value is at most
//! |q|·|x − s·c| + |q − t·d|·|s·c|.

use super::vector::norm;

/// Largest code of a document.
const LARGEST_CODE: f32 = 127.0;

/// Facts about the codes of a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// value of the code 1; 0 for a vector of zeros
    pub(super) step: f32,
    /// upper bound of |x − s·c|
    pub(super) error: f32,
    /// upper bound of |s·c|
    pub(super) norm: f32,
}

/// Number of bytes of a scale in a file.
pub(super) const SCALE_LEN: usize = 12;

impl Scale {
    pub(super) fn to_bytes(self) -> [u8; SCALE_LEN] {
        let mut bytes = [0; SCALE_LEN];
        for (part, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip([self.step, self.error, self.norm]) {
            *part = value.to_le_bytes();
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; SCALE_LEN]) -> Self {
        let mut values = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value));
        let mut next = || values.next().unwrap_or_default();
        Self { step: next(), error: next(), norm: next() }
    }
}

/// Computes the codes of a document, which replace those in `codes`.
pub(super) fn encode(values: &[f32], codes: &mut Vec<i8>) -> Scale {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let step = largest / LARGEST_CODE;
    codes.clear();
    // a step may be 0 for values that are not: the smallest floats
    codes.extend(values.iter().map(|value| if step > 0.0 { (value / step).round() as i8 } else { 0 }));
    let stored = || codes.iter().map(|code| step * f32::from(*code));
    let differences: Vec<f32> = values.iter().zip(stored()).map(|(value, stored)| value - stored).collect();
    let stored: Vec<f32> = stored().collect();
    Scale { step, error: upper(norm(&differences)), norm: upper(norm(&stored)) }
}

/// A number in f32 that is not below `value`, with a margin for the rounding before it.
fn upper(value: f64) -> f32 {
    ((value * 1.000_001) as f32).next_up()
}

/// Codes of a query.
pub(super) struct QueryCodes {
    pub(super) codes: Vec<i16>,
    step: f64,
    /// |q|
    norm: f64,
    /// |q − t·d|
    error: f64,
}

/// Share of the product of two lengths that covers the rounding of a score to f32, of both sides of a comparison.
const ROUNDING: f64 = 2.5e-7;
/// Bound of rounding errors among the smallest floats.
const SMALLEST: f64 = 1e-40;

impl QueryCodes {
    /// Computes the codes of a query.
    pub(super) fn new(values: &[f32]) -> Self {
        // sums of products with codes of documents fit into 32 bits
        let most = f64::from(i32::MAX) / (f64::from(LARGEST_CODE) * values.len().max(1) as f64);
        let most = most.min(f64::from(i16::MAX)).floor();
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let step = f64::from(largest) / most;
        let code = |value: &f32| if step > 0.0 { (f64::from(*value) / step).round() as i16 } else { 0 };
        let codes: Vec<i16> = values.iter().map(code).collect();
        let error = values.iter().zip(&codes).map(|(value, code)| {
            let difference = f64::from(*value) - step * f64::from(*code);
            difference * difference
        });
        let error = error.sum::<f64>().sqrt() * 1.000_001;
        Self { error, norm: norm(values), step, codes }
    }

    /// Smallest and largest possible score of a document whose codes have this product with the query's.
    #[inline]
    pub(super) fn bounds(&self, sum: i32, scale: &Scale) -> (f64, f64) {
        let (norm, error) = (f64::from(scale.norm), f64::from(scale.error));
        let score = self.step * f64::from(scale.step) * f64::from(sum);
        let bound =
            (self.norm * error + self.error * norm) * 1.000_001 + self.norm * (norm + error) * ROUNDING + SMALLEST;
        (score - bound, score + bound)
    }
}
