//! [`Histogram`]: counts in buckets, drawn as bars.

use serde_json::{Value, json};

/// Counts by bucket.
#[derive(Debug)]
pub(crate) struct Histogram {
    from: f64,
    width: f64,
    counts: Vec<u64>,
    scale: Scale,
}

/// Borders of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// of equal width, for any numbers
    Real,
    /// of equal width and at whole numbers
    Whole,
    /// at powers of two: the numbers counted are logarithms to base 2, rounded down
    Doubling,
}

/// Number of buckets, unless all numbers are equal.
const BUCKETS: usize = 12;
/// Length of the longest bar, in characters.
const BAR: u64 = 40;

impl Histogram {
    /// Creates a histogram of finite numbers, each with its count.
    pub(crate) fn of(numbers: impl Iterator<Item = (f64, u64)> + Clone, scale: Scale) -> Self {
        let (low, high) = numbers
            .clone()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (number, _)| (low.min(number), high.max(number)));
        let buckets = if low < high { BUCKETS } else { 1 };
        let whole = scale != Scale::Real;
        let span = if low < high { high - low } else { 0.0 };
        let width = if whole { (span / buckets as f64).floor() + 1.0 } else { span / buckets as f64 };
        let buckets = if whole { (span / width).floor() as usize + 1 } else { buckets };
        let mut counts = vec![0; buckets];
        for (number, count) in numbers {
            // the largest number belongs to the last bucket
            let bucket = if width > 0.0 { ((number - low) / width) as usize } else { 0 };
            counts[bucket.min(buckets - 1)] += count;
        }
        Self { from: if low.is_finite() { low } else { 0.0 }, width, counts, scale }
    }

    /// Labels and counts of the buckets.
    pub(super) fn bars(&self) -> Vec<(String, u64)> {
        self.counts.iter().enumerate().map(|(at, count)| (self.label(at), *count)).collect()
    }

    /// Range of a bucket: both ends of whole numbers, else its start.
    fn label(&self, at: usize) -> String {
        let from = self.from + self.width * at as f64;
        let last = from + self.width - 1.0;
        let (from, last) = match self.scale {
            Scale::Real => return format!("{from:.3}"),
            Scale::Whole => (from, last),
            Scale::Doubling => (from.exp2(), (last + 1.0).exp2() - 1.0),
        };
        if last > from { format!("{from}–{last}") } else { format!("{from}") }
    }

    /// Borders and counts of the buckets.
    pub(crate) fn json(&self) -> Value {
        let bucket = |(at, count): (usize, &u64)| {
            let from = self.from + self.width * at as f64;
            json!({"from": from, "to": from + self.width, "count": count})
        };
        self.counts.iter().enumerate().map(bucket).collect()
    }
}

impl std::fmt::Display for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let most = self.counts.iter().copied().max().unwrap_or(0).max(1);
        let labels: Vec<String> = (0..self.counts.len()).map(|at| self.label(at)).collect();
        let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let digits = most.to_string().len();
        for (label, &count) in labels.iter().zip(&self.counts) {
            // rounded up: a bucket that is not empty has a bar
            let bar = (count * BAR).div_ceil(most) as usize;
            let pad = " ".repeat(width - label.chars().count());
            writeln!(f, "{}", format!("{pad}{label}  {count:digits$}  {}", "█".repeat(bar)).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(numbers: &[f64], scale: Scale) -> Vec<u64> {
        Histogram::of(numbers.iter().map(|number| (*number, 1)), scale).counts
    }

    #[test]
    fn every_number_is_in_a_bucket() {
        let numbers: Vec<f64> = (0..=120).map(f64::from).collect();
        assert_eq!(counts(&numbers, Scale::Real), [10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 11]);
        assert_eq!(counts(&numbers, Scale::Whole).iter().sum::<u64>(), 121);
        assert_eq!(counts(&[2.5], Scale::Real), [1]);
        assert_eq!(counts(&[], Scale::Real), [0]);
        assert_eq!(counts(&[-1.0, 0.0, 1.0], Scale::Whole), [1, 1, 1]);
        assert_eq!(counts(&[3.0, 3.0], Scale::Whole), [2]);
        assert_eq!(counts(&[f64::from(f32::MIN), f64::from(f32::MAX)], Scale::Real).len(), 12);
    }

    #[test]
    fn bars_are_proportional_and_only_empty_buckets_have_none() {
        let numbers = [(1.0, 400), (2.0, 1), (3.0, 200)];
        let drawn = Histogram::of(numbers.iter().copied(), Scale::Whole).to_string();
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[0], format!("1  400  {}", "█".repeat(40)));
        assert_eq!(lines[1], "2    1  █");
        assert_eq!(lines[2], format!("3  200  {}", "█".repeat(20)));
    }

    #[test]
    fn powers_of_two_are_shown_as_the_numbers_between_them() {
        let histogram = Histogram::of([(0.0, 1), (1.0, 2), (3.0, 1)].into_iter(), Scale::Doubling);
        assert_eq!(histogram.bars(), [("1", 1), ("2–3", 2), ("4–7", 0), ("8–15", 1)].map(|(a, n)| (a.to_owned(), n)));
    }
}
