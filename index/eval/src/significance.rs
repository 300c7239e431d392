//! Paired tests of two systems on the same queries.
//!
//! * The randomisation test (Smucker, Allan, Carterette 2007) flips the sign of each query's difference at random and
//!   counts means at least as far from 0 as the observed one. All sign patterns are enumerated where there are no more of
//!   them than resamples.
//! * The paired t test assumes normal differences.
//! * The bootstrap interval is that of percentiles over resampled queries (Efron 1979).
//! * [`holm`] corrects the p values of several tests (Holm 1979).
//!
//! Random numbers come from a seed, and results do not depend on the number of threads.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::error::{Error, Result};
use crate::metrics::{mean, sum};

/// Number of resamples, and the seed of their random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// random sign patterns and random samples of queries, each
    pub resamples: usize,
    /// seed; the same seed gives the same results
    pub seed: u64,
}

impl Default for Resampling {
    /// 10 000 resamples: a p value of 0.05 has a standard error of 0.002.
    fn default() -> Self {
        Self { resamples: 10_000, seed: 42 }
    }
}

/// Comparison of two systems by one metric on the same queries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedTest {
    /// number of queries
    pub queries: usize,
    /// mean of our values minus mean of the baseline's
    pub difference: f64,
    /// queries with a larger value than the baseline's
    pub wins: usize,
    /// queries with an equal value
    pub ties: usize,
    /// queries with a smaller value
    pub losses: usize,
    /// two-sided p value of the randomisation test
    pub p_randomisation: f64,
    /// two-sided p value of the paired t test; NaN (null in JSON) for a single query
    pub p_t_test: f64,
    /// bounds of the 95 % bootstrap interval of the difference
    pub interval: [f64; 2],
}

/// Values that differ by less are equal: sums of the same gains may differ by their rounding.
const EQUAL: f64 = 1e-12;

/// Resamples per stream of random numbers; the streams run in parallel.
const CHUNK: usize = 256;

/// Compares two systems by their values on the same queries, in the same order.
///
/// ```
/// use splade_eval::{Resampling, paired_test};
///
/// let test = paired_test(&[0.9, 0.8, 0.7, 0.5], &[0.5, 0.4, 0.7, 0.2], &Resampling::default())?;
/// assert_eq!((test.wins, test.ties, test.losses), (3, 1, 0));
/// // 4 of the 16 sign patterns have a mean as large
/// assert_eq!(test.p_randomisation, 0.25);
/// # Ok::<(), splade_eval::Error>(())
/// ```
///
/// # Errors
/// No queries, lists of different lengths, a value that is not a finite number, no resamples.
pub fn paired_test(ours: &[f64], baseline: &[f64], resampling: &Resampling) -> Result<PairedTest> {
    if ours.is_empty() || ours.len() != baseline.len() {
        let message = format!("{} and {} values cannot be compared in pairs", ours.len(), baseline.len());
        return Err(Error::invalid(message, ""));
    }
    if ours.iter().chain(baseline).any(|value| !value.is_finite()) {
        return Err(Error::invalid("a value to compare is not a finite number", ""));
    }
    if resampling.resamples == 0 {
        return Err(Error::invalid("a test needs at least 1 resample", ""));
    }
    let differences: Vec<f64> = ours.iter().zip(baseline).map(|(ours, baseline)| ours - baseline).collect();
    let count = |holds: fn(f64) -> bool| differences.iter().filter(|difference| holds(**difference)).count();
    let (wins, losses) = (count(|difference| difference > EQUAL), count(|difference| difference < -EQUAL));
    Ok(PairedTest {
        queries: differences.len(),
        difference: mean(&differences),
        wins,
        ties: differences.len() - wins - losses,
        losses,
        p_randomisation: randomisation(&differences, resampling),
        p_t_test: t_test(&differences),
        interval: bootstrap(&differences, resampling),
    })
}

/// Corrects p values of several tests by Holm's method: each is at most 1, and a smaller p value stays the smaller one.
/// NaN stays NaN and counts as no test.
///
/// ```
/// assert_eq!(splade_eval::holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
/// ```
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).filter(|at| !p_values[*at].is_nan()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut corrected = p_values.to_vec();
    let mut least = 0.0f64;
    for (position, &at) in order.iter().enumerate() {
        least = least.max(p_values[at] * (order.len() - position) as f64).min(1.0);
        corrected[at] = least;
    }
    corrected
}

/// Share of sign patterns whose sum is at least as far from 0 as the observed one.
fn randomisation(differences: &[f64], resampling: &Resampling) -> f64 {
    let observed = sum(differences.iter().copied()).abs();
    let scale = sum(differences.iter().map(|difference| difference.abs()));
    // sums in another order may be smaller by their rounding
    let is_as_far = |total: f64| total.abs() >= observed - EQUAL * scale;
    let patterns = u32::try_from(differences.len()).ok().and_then(|n| 1usize.checked_shl(n));
    if let Some(patterns) = patterns.filter(|patterns| *patterns <= resampling.resamples) {
        let total = |pattern: usize| sum(signed(differences, &[pattern as u64]));
        let far = (0..patterns).into_par_iter().filter(|pattern| is_as_far(total(*pattern))).count();
        return far as f64 / patterns as f64;
    }
    let far: usize = chunks(resampling, 0)
        .map(|(mut random, count)| {
            let mut signs = vec![0; differences.len().div_ceil(64)];
            let mut one = || {
                signs.fill_with(|| random.next_u64());
                is_as_far(sum(signed(differences, &signs)))
            };
            (0..count).filter(|_| one()).count()
        })
        .sum();
    // the observed pattern is one of them
    (far + 1) as f64 / (resampling.resamples + 1) as f64
}

/// Differences with the sign changed where the bit of its number is set.
fn signed<'a>(differences: &'a [f64], signs: &'a [u64]) -> impl Iterator<Item = f64> + 'a {
    let flipped = |bits: u64, bit: usize| if bits >> bit & 1 == 1 { -1.0 } else { 1.0 };
    let words = differences.chunks(64).zip(signs);
    words.flat_map(move |(part, bits)| part.iter().enumerate().map(move |(bit, value)| value * flipped(*bits, bit)))
}

/// Generators of random numbers and their numbers of resamples; `purpose` separates their streams.
fn chunks(resampling: &Resampling, purpose: u64) -> impl ParallelIterator<Item = (ChaCha8Rng, usize)> {
    let Resampling { resamples, seed } = *resampling;
    (0..resamples.div_ceil(CHUNK)).into_par_iter().map(move |at| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(2 * at as u64 + purpose);
        (random, CHUNK.min(resamples - at * CHUNK))
    })
}

/// p value of the paired t test; 1 if all differences are 0, NaN for a single query.
fn t_test(differences: &[f64]) -> f64 {
    let n = differences.len() as f64;
    let mean = mean(differences);
    let variance = sum(differences.iter().map(|difference| (difference - mean).powi(2))) / (n - 1.0);
    if differences.len() < 2 {
        return f64::NAN;
    }
    if variance == 0.0 {
        return if mean == 0.0 { 1.0 } else { 0.0 };
    }
    let t = mean / (variance / n).sqrt();
    StudentsT::new(0.0, 1.0, n - 1.0).map_or(f64::NAN, |distribution| 2.0 * distribution.sf(t.abs()))
}

/// The 2.5th and the 97.5th percentile of the means of resampled differences.
fn bootstrap(differences: &[f64], resampling: &Resampling) -> [f64; 2] {
    let draw = |random: &mut ChaCha8Rng| {
        let drawn = (0..differences.len()).map(|_| differences[random.random_range(0..differences.len())]);
        sum(drawn) / differences.len() as f64
    };
    let means = chunks(resampling, 1).flat_map_iter(|(mut random, count)| {
        let means: Vec<f64> = (0..count).map(|_| draw(&mut random)).collect();
        means
    });
    let mut means: Vec<f64> = means.collect();
    means.sort_unstable_by(f64::total_cmp);
    // linear interpolation between the closest ranks, as in NumPy
    let percentile = |share: f64| {
        let at = share * (means.len() - 1) as f64;
        let (low, high) = (means[at.floor() as usize], means[at.ceil() as usize]);
        low + (high - low) * at.fract()
    };
    [percentile(0.025), percentile(0.975)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_systems_do_not_differ() {
        for n in [1, 2, 5, 100] {
            let values = vec![0.25; n];
            let test = paired_test(&values, &values, &Resampling::default()).unwrap();
            assert_eq!((test.difference, test.ties, test.p_randomisation, test.interval), (0.0, n, 1.0, [0.0, 0.0]));
            assert!(if n == 1 { test.p_t_test.is_nan() } else { test.p_t_test == 1.0 });
        }
    }

    #[test]
    fn one_query_and_constant_differences() {
        let test = paired_test(&[1.0], &[0.0], &Resampling::default()).unwrap();
        assert_eq!((test.difference, test.p_randomisation, test.interval), (1.0, 1.0, [1.0, 1.0]));
        let test = paired_test(&[1.0; 3], &[0.5; 3], &Resampling::default()).unwrap();
        assert_eq!((test.p_t_test, test.p_randomisation), (0.0, 0.25));
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        let one = Resampling::default();
        let none = Resampling { resamples: 0, seed: 0 };
        assert!(paired_test(&[], &[], &one).is_err());
        assert!(paired_test(&[1.0], &[], &one).is_err());
        assert!(paired_test(&[f64::NAN], &[1.0], &one).is_err());
        assert!(paired_test(&[1.0], &[1.0], &none).unwrap_err().kind().is_bad_input());
    }

    #[test]
    fn holm_ignores_undefined_tests() {
        let corrected = holm(&[0.02, f64::NAN, 0.9]);
        assert_eq!((corrected[0], corrected[2]), (0.04, 0.9));
        assert!(corrected[1].is_nan() && holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn sides_are_symmetric_and_threads_do_not_matter(
            pairs in prop::collection::vec((0u8..11, 0u8..11), 1..80),
            seed in 0u64..5,
        ) {
            let (ours, baseline): (Vec<f64>, Vec<f64>) =
                pairs.iter().map(|&(a, b)| (f64::from(a) / 10.0, f64::from(b) / 10.0)).unzip();
            let resampling = Resampling { resamples: 700, seed };
            let test = paired_test(&ours, &baseline, &resampling).unwrap();
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let again = alone.install(|| paired_test(&ours, &baseline, &resampling).unwrap());
            prop_assert_eq!(format!("{test:?}"), format!("{again:?}"));
            let reverse = paired_test(&baseline, &ours, &resampling).unwrap();
            prop_assert_eq!((test.wins, test.losses), (reverse.losses, reverse.wins));
            prop_assert_eq!(test.p_randomisation, reverse.p_randomisation);
            prop_assert!(test.p_randomisation > 0.0 && test.p_randomisation <= 1.0);
            prop_assert!(test.interval[0] <= test.difference + 1e-9 || pairs.len() < 10);
            prop_assert_eq!(test.wins + test.ties + test.losses, pairs.len());
        }
    }
}
