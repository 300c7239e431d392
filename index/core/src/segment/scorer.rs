//! [`QueryPlan`]: the top k of Σ impact × query weight, in integers.
//!
//! Query weights become integers W_t = q_t · step_t · c, with c such that a document's sum stays below 2³¹. For each window of
//! documents, every term adds impact · W_t to the window's accumulators. Then the accumulators are scanned in groups of 64, and
//! groups whose maximum is below the threshold are skipped. Sums of integers do not depend on their order, and so the results
//! do not either.
//!
//! A quantized score differs from the exact score by at most eps, which is computed per query from the terms' recorded errors.
//! All documents within 2 · eps of the k-th best are kept, so the exact top k is among them.
//!
//! **Negative query weights.** Only documents with a score above zero are hits, and a hit has at least one term of positive
//! weight. Positive terms are added first. Negative terms then subtract from accumulators that are not zero, down to 1 at
//! most. Every possible hit thus keeps a sum that is not zero, sums stay unsigned, and a sum of 1 is never below its true
//! value.

use std::cmp::Reverse;
use std::ops::Range;

use pulp::Arch;

use super::format::{Defect, Postings, SEED_DEPTHS, SegmentFile, TermEntry, WINDOW};

/// Number of accumulators that are compared with the threshold together.
const GROUP: usize = 64;
/// Largest sum of a document.
const LARGEST_SUM: f64 = i32::MAX as f64;
/// Largest number of terms in a query. With more terms, the integer weights would be too small to differ.
const MOST_TERMS: usize = 1 << 20;
/// Smallest capacity of the buffer of candidates; the capacity is also at least 4 · k.
const MIN_BUFFER: usize = 256;

/// One accumulator per document of the window.
type Sums = [u32; WINDOW];

/// A query with integer weights for the segments of a snapshot.
pub struct QueryPlan<'a> {
    segments: Vec<SegmentPlan<'a>>,
    /// sum that stands for the score 1
    scale: f64,
    /// twice the largest difference between a quantized and an exact score, as a sum
    margin: u32,
    /// smallest sum of a hit
    least: u32,
    /// lower bound of the k-th best sum; 0 if there is none
    seed: u32,
}

struct SegmentPlan<'a> {
    file: &'a SegmentFile,
    /// terms of positive weight, then terms of negative weight
    terms: Vec<PlannedTerm<'a>>,
}

struct PlannedTerm<'a> {
    weight: u32,
    negative: bool,
    seeds: [u8; SEED_DEPTHS.len()],
    postings: Postings<'a>,
}

/// A damaged segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentDefect {
    /// position of the file in the argument of [`QueryPlan::new`]
    pub segment: usize,
    /// the defect
    pub defect: Defect,
}

/// A document with its quantized score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// quantized score
    pub sum: u32,
    /// position of the segment file in the argument of [`QueryPlan::new`]
    pub segment: u32,
    /// document id in the segment
    pub doc: u32,
}

/// Condition on the documents that may be found.
pub trait Live: Sync {
    /// True if `doc` of `segment` may be found.
    fn is_live(&self, segment: usize, doc: u32) -> bool;

    /// Bits of the 64 documents from `first` on, a multiple of 64; only documents whose bit is set may be live. A group without a
    /// bit is skipped as a whole.
    fn group(&self, segment: usize, first: u32) -> u64 {
        let _ = (segment, first);
        u64::MAX
    }
}

/// Arguments of a plan.
pub struct Demand<'a> {
    /// terms and weights: ids ascending, weights finite and not zero
    pub query: &'a [(u32, f32)],
    /// number of hits
    pub k: usize,
    /// number of documents of each segment that may not be found; `None` if it is unknown, as for a filter
    pub hidden: Option<&'a [usize]>,
}

impl<'a> QueryPlan<'a> {
    /// Plans a query. `None` if there are no usable integer weights: exact scores may leave the range of f32, or the query has
    /// too many terms.
    ///
    /// # Errors
    /// Damaged postings of the query's terms.
    pub fn new(
        files: impl Iterator<Item = &'a SegmentFile>,
        demand: &Demand<'_>,
    ) -> Result<Option<Self>, SegmentDefect> {
        let query = demand.query;
        let mut segments = Vec::new();
        for (segment, file) in files.enumerate() {
            let terms = query.iter().map(|(id, _)| file.term(*id)).collect::<Result<Vec<_>, _>>();
            segments.push((file, terms.map_err(|defect| SegmentDefect { segment, defect })?));
        }
        // one c for all segments, so that their sums can be compared
        let mut steps = vec![0_f64; query.len()];
        for (_, terms) in &segments {
            for (step, term) in steps.iter_mut().zip(terms) {
                *step = term.map_or(*step, |(term, _)| step.max(f64::from(term.step)));
            }
        }
        let largest: f64 = steps.iter().zip(query).map(|(step, (_, weight))| step * f64::from(weight.abs())).sum();
        if largest * 255.0 > f64::from(f32::MAX) / 4.0 || query.len() > MOST_TERMS {
            return Ok(None);
        }
        // rounding may enlarge every weight by up to 1
        let scale = (LARGEST_SUM - 255.0 * query.len() as f64) / (255.0 * largest.max(f64::MIN_POSITIVE));
        let mut plan = Self { segments: Vec::new(), scale, margin: 0, least: 1, seed: 0 };
        let mut eps = 0_f64;
        for (file, terms) in segments {
            let (segment, error) = plan.plan_segment(file, query, terms);
            eps = eps.max(error);
            plan.segments.push(segment);
        }
        if query.iter().all(|(_, weight)| *weight > 0.0) {
            plan.seed = plan.find_seed(demand);
        } else {
            // a sum of 1 is not a hit here; exact scores find the hits that rounding moves to 1
            plan.least = 2;
        }
        // 1 more for the rounding of this expression
        plan.margin = (2.0 * eps * scale).min(LARGEST_SUM).ceil() as u32 + 1;
        Ok(Some(plan))
    }

    /// The plan of a segment for the terms `found` in it, and the largest difference between its quantized and exact scores.
    fn plan_segment(
        &self,
        file: &'a SegmentFile,
        query: &[(u32, f32)],
        found: Vec<Option<(TermEntry, Postings<'a>)>>,
    ) -> (SegmentPlan<'a>, f64) {
        let mut terms = Vec::with_capacity(query.len());
        let (mut error, mut largest) = (0.0, 0.0);
        for (&(_, query_weight), term) in query.iter().zip(found) {
            let Some((TermEntry { step, error: term_error, seeds, .. }, postings)) = term else { continue };
            let magnitude = f64::from(query_weight.abs());
            let exact = magnitude * f64::from(step) * self.scale;
            let weight = exact.round().max(1.0);
            terms.push(PlannedTerm { weight: weight as u32, negative: query_weight < 0.0, seeds, postings });
            error += magnitude * f64::from(term_error) + 255.0 * (weight - exact).abs() / self.scale;
            largest += magnitude * (255.0 * f64::from(step) + f64::from(term_error));
        }
        // exact scores are sums in f32: each of n products and n sums is rounded by half a unit in the last place or, near
        // zero, by half the smallest f32
        error += largest * (query.len() + 1) as f64 * f64::from(f32::EPSILON) + query.len() as f64 * 1e-44;
        terms.sort_by_key(|term| term.negative);
        (SegmentPlan { file, terms }, error)
    }

    /// Lower bound of the k-th best sum, from the k-th largest impacts of single terms. `k` is enlarged by the number of hidden
    /// documents.
    fn find_seed(&self, demand: &Demand<'_>) -> u32 {
        let Some(hidden) = demand.hidden else { return 0 };
        let mut seed = 0;
        for (segment, hidden) in self.segments.iter().zip(hidden) {
            let Some(depth) = SEED_DEPTHS.iter().position(|depth| *depth >= demand.k + hidden) else { continue };
            for term in &segment.terms {
                seed = seed.max(term.weight.saturating_mul(u32::from(term.seeds[depth])));
            }
        }
        seed
    }

    /// Score of a sum.
    pub fn score(&self, sum: u32) -> f32 {
        (f64::from(sum) / self.scale) as f32
    }

    /// Every document that may be among the exact top k: all documents within `margin` of the k-th best sum.
    pub fn exact_candidates(&self, k: usize, live: &dyn Live, threads: usize) -> Vec<Candidate> {
        self.search(TopCandidates::new(k, self.margin, 1, self.seed), live, threads)
    }

    /// The documents of the k best sums, and all others with a sum equal to the k-th.
    pub fn quantized_candidates(&self, k: usize, live: &dyn Live, threads: usize) -> Vec<Candidate> {
        self.search(TopCandidates::new(k, 0, self.least, self.seed), live, threads)
    }

    fn search(&self, mut top: TopCandidates, live: &dyn Live, threads: usize) -> Vec<Candidate> {
        let windows = self.windows();
        if threads <= 1 || windows.len() < 2 {
            self.search_windows(&windows, &mut top, live);
            return top.finish();
        }
        let share = windows.len().div_ceil(threads);
        let parts: Vec<Vec<Candidate>> = {
            #[cfg(feature = "threads")]
            use rayon::prelude::*;
            let search = |part: &[(usize, usize)]| {
                let mut top = top.clone();
                self.search_windows(part, &mut top, live);
                top.finish()
            };
            #[cfg(feature = "threads")]
            let chunks = windows.par_chunks(share);
            #[cfg(not(feature = "threads"))]
            let chunks = windows.chunks(share);
            chunks.map(search).collect()
        };
        for candidate in parts.into_iter().flatten() {
            if candidate.sum >= top.threshold {
                top.push(candidate);
            }
        }
        top.finish()
    }

    /// Segment and number of every window.
    fn windows(&self) -> Vec<(usize, usize)> {
        let segments = self.segments.iter().enumerate().filter(|(_, segment)| !segment.terms.is_empty());
        segments.flat_map(|(at, segment)| (0..segment.file.n_windows()).map(move |window| (at, window))).collect()
    }

    fn search_windows(&self, windows: &[(usize, usize)], top: &mut TopCandidates, live: &dyn Live) {
        let arch = Arch::new();
        let mut sums: Box<Sums> =
            vec![0; WINDOW].into_boxed_slice().try_into().unwrap_or_else(|_| Box::new([0; WINDOW]));
        for &(at, window) in windows {
            let segment = &self.segments[at];
            let first = (window * WINDOW) as u32;
            arch.dispatch(AddUp { segment, window, sums: &mut sums });
            let n_docs = segment.file.n_docs();
            let threshold = top.threshold;
            let mut visit = |group: usize, sums: &[u32; GROUP]| {
                let start = first + (group * GROUP) as u32;
                let bits = live.group(at, start);
                if bits == 0 {
                    return top.threshold;
                }
                for (position, (doc, &sum)) in (start..n_docs).zip(sums).enumerate() {
                    if sum >= top.threshold && bits >> position & 1 == 1 && live.is_live(at, doc) {
                        top.push(Candidate { sum, segment: at as u32, doc });
                    }
                }
                top.threshold
            };
            arch.dispatch(Scan { sums: &mut sums, threshold, visit: &mut visit });
        }
    }
}

/// [`SegmentPlan::add_up`] for [`pulp::Arch::dispatch`]. A closure would be called through a separate function, which is compiled
/// without vector instructions.
struct AddUp<'a, 'p> {
    segment: &'a SegmentPlan<'p>,
    window: usize,
    sums: &'a mut Sums,
}

impl pulp::WithSimd for AddUp<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.segment.add_up(self.window, self.sums);
    }
}

/// [`scan`] for [`pulp::Arch::dispatch`].
struct Scan<'a, F> {
    sums: &'a mut Sums,
    threshold: u32,
    visit: &'a mut F,
}

impl<F: FnMut(usize, &[u32; GROUP]) -> u32> pulp::WithSimd for Scan<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        scan(self.sums, self.threshold, self.visit);
    }
}

impl SegmentPlan<'_> {
    /// Adds the impacts of all terms in a window to its accumulators.
    #[inline(always)]
    fn add_up(&self, window: usize, sums: &mut Sums) {
        for term in &self.terms {
            match (term.negative, term.postings) {
                (false, Postings::Dense { impacts }) => add_dense(sums, window_of(impacts, window), term.weight),
                (true, Postings::Dense { impacts }) => subtract_dense(sums, window_of(impacts, window), term.weight),
                (negative, Postings::Windowed { ids, impacts, offsets }) => {
                    let range = window_range(offsets, window);
                    let (ids, impacts) = (ids.get(range.clone()), impacts.get(range));
                    let (ids, impacts) = (ids.unwrap_or_default(), impacts.unwrap_or_default());
                    let places = ids.iter().map(|id| usize::from(u16::from_le_bytes(*id)));
                    scatter(sums, places, impacts, term.weight, negative);
                }
                (negative, Postings::Short { docs, impacts }) => {
                    let below = |docs: &[[u8; 4]], end: usize| {
                        docs.partition_point(|doc| (u32::from_le_bytes(*doc) as usize) < end)
                    };
                    let from = below(docs, window * WINDOW);
                    let to = from + below(&docs[from..], (window + 1) * WINDOW);
                    let places = docs[from..to].iter().map(|doc| u32::from_le_bytes(*doc) as usize);
                    scatter(sums, places, &impacts[from..to], term.weight, negative);
                }
            }
        }
    }
}

/// Part of a dense list in a window.
fn window_of(impacts: &[u8], window: usize) -> &[u8] {
    let first = (window * WINDOW).min(impacts.len());
    &impacts[first..(first + WINDOW).min(impacts.len())]
}

fn window_range(offsets: &[[u8; 4]], window: usize) -> Range<usize> {
    let offset = |at: usize| offsets.get(at).map_or(0, |offset| u32::from_le_bytes(*offset) as usize);
    offset(window)..offset(window + 1)
}

/// Adds or subtracts a sparse list. Positions are reduced to the window, and sums wrap, so that a damaged file cannot cause a
/// panic. In an intact file neither has an effect.
#[inline(always)]
fn scatter(sums: &mut Sums, places: impl Iterator<Item = usize>, impacts: &[u8], weight: u32, negative: bool) {
    if negative {
        for (place, &impact) in places.zip(impacts) {
            let sum = &mut sums[place % WINDOW];
            *sum = subtract(*sum, u32::from(impact).wrapping_mul(weight));
        }
    } else {
        for (place, &impact) in places.zip(impacts) {
            let sum = &mut sums[place % WINDOW];
            *sum = sum.wrapping_add(u32::from(impact).wrapping_mul(weight));
        }
    }
}

/// Adds a dense list. The loop compiles to vector instructions.
#[inline(always)]
fn add_dense(sums: &mut Sums, impacts: &[u8], weight: u32) {
    for (sum, &impact) in sums.iter_mut().zip(impacts) {
        *sum = sum.wrapping_add(u32::from(impact).wrapping_mul(weight));
    }
}

/// Subtracts a dense list. The loop compiles to vector instructions.
#[inline(always)]
fn subtract_dense(sums: &mut Sums, impacts: &[u8], weight: u32) {
    for (sum, &impact) in sums.iter_mut().zip(impacts) {
        *sum = subtract(*sum, u32::from(impact).wrapping_mul(weight));
    }
}

/// Subtracts down to 1 at most; 0 stays 0.
#[inline(always)]
fn subtract(sum: u32, part: u32) -> u32 {
    sum.saturating_sub(part).max(sum.min(1))
}

/// Calls `visit` with every group that reaches the threshold, and sets all sums to zero. `visit` returns the next threshold.
#[inline(always)]
fn scan(sums: &mut Sums, mut threshold: u32, visit: &mut impl FnMut(usize, &[u32; GROUP]) -> u32) {
    for (at, group) in sums.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let largest = group.iter().fold(0, |largest, sum| largest.max(*sum));
        if largest >= threshold {
            threshold = visit(at, group);
        }
        *group = [0; GROUP];
    }
}

/// Best candidates so far, in a buffer that is shrunk when it is full. This costs less than a heap.
#[derive(Clone)]
struct TopCandidates {
    k: usize,
    margin: u32,
    /// smallest sum of a candidate; at least 1
    threshold: u32,
    capacity: usize,
    buffer: Vec<Candidate>,
}

impl TopCandidates {
    fn new(k: usize, margin: u32, least: u32, seed: u32) -> Self {
        let threshold = seed.saturating_sub(margin).max(least);
        Self { k, margin, threshold, capacity: k.saturating_mul(4).max(MIN_BUFFER), buffer: Vec::new() }
    }

    #[inline]
    fn push(&mut self, candidate: Candidate) {
        self.buffer.push(candidate);
        if self.buffer.len() >= self.capacity {
            self.shrink();
            // all documents that tie with the k-th must stay
            self.capacity = self.capacity.max(self.buffer.len() * 2);
        }
    }

    /// Raises the threshold to the k-th best sum minus the margin, and removes candidates below it.
    fn shrink(&mut self) {
        if self.k == 0 || self.buffer.len() < self.k {
            return;
        }
        let (_, kth, _) = self.buffer.select_nth_unstable_by_key(self.k - 1, |candidate| Reverse(candidate.sum));
        self.threshold = self.threshold.max(kth.sum.saturating_sub(self.margin));
        self.buffer.retain(|candidate| candidate.sum >= self.threshold);
    }

    fn finish(mut self) -> Vec<Candidate> {
        self.shrink();
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The dispatched functions, with the vector instructions of this machine, against a scalar loop.
    #[test]
    fn dispatched_loops_equal_scalar_loops() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let start: Vec<u32> = (0..WINDOW).map(|_| rng.random_range(0..4) * rng.random_range(0..1 << 20)).collect();
        for len in [0, 1, 63, 64, 1000, WINDOW - 1, WINDOW] {
            let impacts: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            for negative in [false, true] {
                let mut plain: Vec<u32> = start.clone();
                for (sum, &impact) in plain.iter_mut().zip(&impacts) {
                    let part = u32::from(impact) * 4099;
                    *sum = match (negative, *sum) {
                        (false, sum) => sum + part,
                        (true, 0) => 0,
                        (true, sum) => sum.saturating_sub(part).max(1),
                    };
                }
                let mut fast: Box<Sums> = start.clone().into_boxed_slice().try_into().unwrap();
                Arch::new().dispatch(|| match negative {
                    false => add_dense(&mut fast, &impacts, 4099),
                    true => subtract_dense(&mut fast, &impacts, 4099),
                });
                assert_eq!(fast[..], plain[..], "{len} impacts, negative {negative}");
                check_scan(&fast);
            }
        }
    }

    fn check_scan(sums: &Sums) {
        for threshold in [1, 2, 1 << 19, u32::MAX] {
            let expected: Vec<usize> = (0..WINDOW).filter(|at| sums[*at] >= threshold).collect();
            let mut found = Vec::new();
            let mut scanned = *sums;
            Arch::new().dispatch(|| {
                scan(&mut scanned, threshold, &mut |group, sums| {
                    found.extend((0..GROUP).filter(|at| sums[*at] >= threshold).map(|at| group * GROUP + at));
                    threshold
                });
            });
            assert_eq!(found, expected);
            assert!(scanned.iter().all(|sum| *sum == 0));
        }
    }

    #[test]
    fn the_buffer_keeps_ties_and_sums_within_the_margin() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for (k, margin) in [(1, 0), (10, 0), (10, 3), (500, 1), (5000, 2)] {
            let sums: Vec<u32> = (0..3000).map(|_| rng.random_range(1..60)).collect();
            let mut top = TopCandidates::new(k, margin, 1, 0);
            for (doc, &sum) in (0..).zip(&sums) {
                if sum >= top.threshold {
                    top.push(Candidate { sum, segment: 0, doc });
                }
            }
            let mut sorted = sums.clone();
            sorted.sort_unstable_by_key(|sum| Reverse(*sum));
            let least = sorted.get(k - 1).map_or(0, |kth| kth.saturating_sub(margin));
            let mut found: Vec<u32> = top.finish().iter().map(|candidate| candidate.sum).collect();
            found.sort_unstable_by_key(|sum| Reverse(*sum));
            sorted.retain(|sum| *sum >= least);
            assert_eq!(found, sorted, "k {k}, margin {margin}");
        }
    }
}
