//! [`pool`]: hidden states of a text to one vector, as the Pooling of sentence-transformers.

use ndarray::{ArrayView1, ArrayView2};
use splade_files::DensePooling;

/// Pools the hidden states `[tokens, dimensions]` of a text. `mask` is 1 for a token, 0 for padding.
pub(super) fn pool(hidden: ArrayView2<'_, f32>, mask: ArrayView1<'_, i64>, pooling: DensePooling) -> Vec<f32> {
    let is_token = |at: &usize| mask.get(*at).is_some_and(|mask| *mask != 0);
    let tokens: Vec<usize> = (0..hidden.nrows()).filter(is_token).collect();
    let count = tokens.len().max(1) as f32;
    let row = |at: Option<usize>| at.map_or_else(|| vec![0.0; hidden.ncols()], |at| hidden.row(at).to_vec());
    match pooling {
        DensePooling::Cls => row(tokens.first().copied()),
        DensePooling::LastToken => row(tokens.last().copied()),
        DensePooling::Mean => weighted_sum(hidden, &tokens, |_| 1.0 / count),
        DensePooling::MeanSqrtLen => weighted_sum(hidden, &tokens, |_| 1.0 / count.sqrt()),
        DensePooling::WeightedMean => {
            let position = |at: usize| at as f32 + 1.0;
            let sum: f32 = tokens.iter().map(|at| position(*at)).sum();
            weighted_sum(hidden, &tokens, |at| position(at) / sum.max(1.0))
        }
        DensePooling::Max => {
            let mut largest = row(tokens.first().copied());
            for &token in tokens.iter().skip(1) {
                largest.iter_mut().zip(hidden.row(token)).for_each(|(largest, value)| *largest = largest.max(*value));
            }
            largest
        }
    }
}

fn weighted_sum(hidden: ArrayView2<'_, f32>, tokens: &[usize], weight: impl Fn(usize) -> f32) -> Vec<f32> {
    let mut sum = vec![0.0_f32; hidden.ncols()];
    for &token in tokens {
        let weight = weight(token);
        sum.iter_mut().zip(hidden.row(token)).for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn padding_counts_in_no_pooling() {
        let hidden = array![[1.0, -2.0], [3.0, 4.0], [100.0, 100.0]];
        let mask = array![1, 1, 0];
        let cases = [
            (DensePooling::Cls, [1.0, -2.0]),
            (DensePooling::LastToken, [3.0, 4.0]),
            (DensePooling::Mean, [2.0, 1.0]),
            (DensePooling::Max, [3.0, 4.0]),
            (DensePooling::MeanSqrtLen, [4.0 / 2_f32.sqrt(), 2.0 / 2_f32.sqrt()]),
            (DensePooling::WeightedMean, [7.0 / 3.0, 2.0]),
        ];
        assert_eq!(cases.len(), DensePooling::ALL.len());
        for (pooling, expected) in cases {
            let found = pool(hidden.view(), mask.view(), pooling);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{pooling:?}: {found:?}");
            assert_eq!(pool(hidden.view(), array![0, 0, 0].view(), pooling), [0.0, 0.0], "{pooling:?} of no token");
        }
    }
}
