//! [`TopCandidates`]: the best sums so far.

use std::cmp::Reverse;

use super::plan::Candidate;

/// Binary logarithm of the number of sums that are counted together.
const BUCKET_BITS: u32 = 6;
/// Number of counts.
const BUCKETS: usize = (u16::MAX as usize + 1) >> BUCKET_BITS;
/// Smallest capacity of the buffer of candidates.
const MIN_BUFFER: usize = 1024;

/// Best candidates so far, in a buffer, and how many of them have which sums.
///
/// The counts give a lower bound of the k-th best sum after every candidate. This costs less than a heap, and keeps out more
/// candidates than a bound that is computed when the buffer is full.
#[derive(Clone)]
pub(super) struct TopCandidates {
    k: usize,
    margin: u16,
    /// smallest sum of a candidate; at least 1
    pub(super) threshold: u16,
    /// number of candidates by sum / 64, of those in `bucket` and above
    counts: Box<[u32; BUCKETS]>,
    /// the k-th best sum is in this bucket or above, once there are k candidates
    bucket: usize,
    /// number of candidates in `bucket` and above
    above: usize,
    capacity: usize,
    buffer: Vec<Candidate>,
}

impl TopCandidates {
    /// Collects the `k` best sums (at least one) and all within `margin` of the k-th. `least` is the smallest sum of a candidate, `seed` a lower
    /// bound of the k-th best sum.
    pub(super) fn new(k: usize, margin: u16, least: u16, seed: u16) -> Self {
        Self {
            k: k.max(1),
            margin,
            threshold: seed.saturating_sub(margin).max(least),
            counts: Box::new([0; BUCKETS]),
            bucket: 0,
            above: 0,
            capacity: k.saturating_mul(8).max(MIN_BUFFER),
            buffer: Vec::new(),
        }
    }

    /// Adds a candidate, whose sum must reach the threshold.
    #[inline]
    pub(super) fn push(&mut self, candidate: Candidate) {
        self.buffer.push(candidate);
        let bucket = usize::from(candidate.sum >> BUCKET_BITS);
        if bucket >= self.bucket {
            self.counts[bucket] += 1;
            self.above += 1;
            self.raise();
        }
        if self.buffer.len() >= self.capacity {
            self.shrink();
            // all documents that tie with the k-th must stay
            self.capacity = self.capacity.max(self.buffer.len() * 2);
        }
    }

    /// Raises the threshold to the smallest sum of the bucket of the k-th best, minus the margin.
    #[inline]
    fn raise(&mut self) {
        while self.above - self.counts[self.bucket] as usize >= self.k {
            self.above -= self.counts[self.bucket] as usize;
            self.bucket += 1;
            let bound = (self.bucket << BUCKET_BITS) as u16;
            self.threshold = self.threshold.max(bound.saturating_sub(self.margin));
        }
    }

    /// Raises the threshold to the k-th best sum minus the margin, and removes candidates below it.
    fn shrink(&mut self) {
        if self.buffer.len() < self.k {
            return;
        }
        // of a copy, so that the candidates stay in the order of the index
        let mut sums: Vec<u16> = self.buffer.iter().map(|candidate| candidate.sum).collect();
        let (_, kth, _) = sums.select_nth_unstable_by_key(self.k - 1, |sum| Reverse(*sum));
        self.threshold = self.threshold.max(kth.saturating_sub(self.margin));
        self.buffer.retain(|candidate| candidate.sum >= self.threshold);
    }

    /// The candidates that are left: all within the margin of the k-th best.
    pub(super) fn finish(mut self) -> Vec<Candidate> {
        self.shrink();
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn the_buffer_keeps_ties_and_sums_within_the_margin() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for (k, margin, largest) in [
            (1, 0, 60),
            (10, 0, 60),
            (10, 3, u16::MAX),
            (500, 1, 60),
            (500, 900, u16::MAX),
            (5000, 2, 60),
            (2999, 0, 9000),
        ] {
            let sums: Vec<u16> = (0..3000).map(|_| rng.random_range(1..largest)).collect();
            let mut ascending = sums.clone();
            ascending.sort_unstable();
            for sums in [&sums, &ascending] {
                let mut top = TopCandidates::new(k, margin, 1, 0);
                for (doc, &sum) in (0..).zip(sums) {
                    if sum >= top.threshold {
                        top.push(Candidate { sum, segment: 0, doc });
                    }
                }
                let mut sorted = sums.clone();
                sorted.sort_unstable_by_key(|sum| Reverse(*sum));
                let least = sorted.get(k - 1).map_or(0, |kth| kth.saturating_sub(margin));
                let mut found: Vec<u16> = top.finish().iter().map(|candidate| candidate.sum).collect();
                found.sort_unstable_by_key(|sum| Reverse(*sum));
                sorted.retain(|sum| *sum >= least);
                assert_eq!(found, sorted, "k {k}, margin {margin}");
            }
        }
    }
}
