//! [`QueryPlan`]: the top k of Σ impact × query weight, in integers, and their exact scores.
//!
//! Query weights become W_t = q_t · step_t · c, with c such that a document's sum stays below 2¹⁶. For each window of documents,
//! every term adds impact · W_t, rounded, to the window's accumulators. Then the accumulators are scanned in groups, and groups
//! whose maximum is below the threshold are skipped. Sums of integers do not depend on their order, and so the results do not
//! either.
//!
//! The greatest amounts by which a quantized score is below and above the exact score are computed per query from the terms'
//! steps and recorded errors. All documents within the sum of both of the k-th best are kept, so the exact top k is among them.
//!
//! **Negative query weights.** Only documents with a score above zero are hits, and a hit has at least one term of positive
//! weight. Positive terms are added first. Negative terms then subtract from accumulators that are not zero, down to 1 at
//! most. Every possible hit thus keeps a sum that is not zero, sums stay unsigned, and a sum of 1 is never below its true
//! value.

use super::format::{Defect, SegmentFile};
use super::header::WINDOW;
use super::sums::{PlannedTerm, Products, Sums, add_up, scan};
use super::term::{PostingsKind, SEED_DEPTHS, TermList};
use super::top::TopCandidates;

/// Largest sum of a document; 256 below 2¹⁶, so that a product is below 256 impacts.
const LARGEST_SUM: f64 = 65_279.0;
/// Largest number of terms in a query. With more terms, rounding would leave too little of the weights.
const MOST_TERMS: usize = 1 << 12;
/// Largest difference between a weight and a smaller number of steps, in steps: impacts are rounded, in f32.
const HALF_STEP: f64 = 0.5001;
/// Number of postings from which on a further thread saves more time than it takes to start.
const POSTINGS_PER_THREAD: u64 = 200_000;

/// A query with integer weights for the segments of a snapshot.
pub struct QueryPlan<'a> {
    query: &'a [(u32, f32)],
    segments: Vec<SegmentPlan<'a>>,
    /// sum that stands for the score 1
    scale: f64,
    /// the greatest amounts by which quantized scores are below and above exact scores, together, as a sum
    margin: u16,
    /// smallest sum of a hit
    least: u16,
    /// lower bound of the k-th best sum; 0 if there is none
    seed: u16,
}

struct SegmentPlan<'a> {
    file: &'a SegmentFile,
    /// query weights and lists of the terms in the segment, ascending by term
    lists: Vec<(f32, TermList<'a>)>,
    /// terms of positive weight, then terms of negative weight
    terms: Vec<PlannedTerm<'a>>,
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
    pub sum: u16,
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
    /// number of hits, at least 1
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
        demand: &Demand<'a>,
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
                *step = term.map_or(*step, |list| step.max(f64::from(list.entry.step)));
            }
        }
        let largest: f64 = steps.iter().zip(query).map(|(step, (_, weight))| step * f64::from(weight.abs())).sum();
        if largest * 255.0 > f64::from(f32::MAX) / 4.0 || query.len() > MOST_TERMS {
            return Ok(None);
        }
        // rounding may enlarge every product by up to 1
        let scale = (LARGEST_SUM - query.len() as f64) / (255.0 * largest.max(f64::MIN_POSITIVE));
        let mut plan = Self { query, segments: Vec::new(), scale, margin: 0, least: 1, seed: 0 };
        let mut errors = [0_f64; 2];
        for (file, terms) in segments {
            let lists = query.iter().zip(terms).filter_map(|((_, weight), list)| Some((*weight, list?)));
            let (segment, [below, above]) = plan.plan_segment(file, lists.collect());
            errors = [errors[0].max(below), errors[1].max(above)];
            plan.segments.push(segment);
        }
        if query.iter().all(|(_, weight)| *weight > 0.0) {
            plan.seed = plan.find_seed(demand);
        } else {
            // a sum of 1 is not a hit here; exact scores find the hits that rounding moves to 1
            plan.least = 2;
        }
        // 1 more for the rounding of this expression
        plan.margin = ((errors[0] + errors[1]) * scale).ceil().min(LARGEST_SUM) as u16 + 1;
        Ok(Some(plan))
    }

    /// The plan of a segment, and the greatest amounts by which its quantized scores are below and above its exact scores.
    fn plan_segment(&self, file: &'a SegmentFile, lists: Vec<(f32, TermList<'a>)>) -> (SegmentPlan<'a>, [f64; 2]) {
        let (mut errors, mut largest) = ([0.0; 2], 0.0);
        let plan = |(query_weight, list): &(f32, TermList<'a>)| {
            let magnitude = f64::from(query_weight.abs());
            let step = f64::from(list.entry.step);
            let weight = magnitude * step * self.scale;
            let dense = list.entry.kind == PostingsKind::Dense;
            let products = Products::new(weight, dense);
            let recorded = f64::from(list.entry.error);
            // a weight far below one step has an impact of 1: impacts may be further above a weight than below it
            let [below, above] = Products::errors(weight, dense);
            let below = magnitude * recorded.min(HALF_STEP * step) + below / self.scale;
            let above = magnitude * recorded + above / self.scale;
            let negative = *query_weight < 0.0;
            errors[usize::from(negative)] += below;
            errors[usize::from(!negative)] += above;
            largest += magnitude * (255.0 * step + recorded);
            PlannedTerm { products, negative, postings: list.postings }
        };
        let mut terms: Vec<_> = lists.iter().map(plan).collect();
        terms.sort_by_key(|term| term.negative);
        // exact scores are sums in f32: each of n products and n sums is rounded by half a unit in the last place or, near
        // zero, by half the smallest f32
        let n_terms = self.query.len() as f64;
        let rounding = largest * (n_terms + 1.0) * f64::from(f32::EPSILON) + n_terms * 1e-44;
        (SegmentPlan { file, lists, terms }, errors.map(|error| error + rounding))
    }

    /// Lower bound of the k-th best sum, from the k-th largest impacts of single terms. `k` is enlarged by the number of hidden
    /// documents.
    fn find_seed(&self, demand: &Demand<'_>) -> u16 {
        let Some(hidden) = demand.hidden else { return 0 };
        let mut seed = 0;
        for (segment, hidden) in self.segments.iter().zip(hidden) {
            let Some(depth) = SEED_DEPTHS.iter().position(|depth| *depth >= demand.k + hidden) else { continue };
            // `terms` and `lists` have the same order, since all weights are positive
            for (term, (_, list)) in segment.terms.iter().zip(&segment.lists) {
                seed = seed.max(term.products.of(list.entry.seeds[depth]));
            }
        }
        seed
    }

    /// Score of a sum.
    pub fn score(&self, sum: u16) -> f32 {
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

    /// Exact scores of candidates, which are brought into the order of the index first.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn exact_scores(&self, candidates: &mut [Candidate]) -> Result<Vec<f32>, SegmentDefect> {
        candidates.sort_unstable_by_key(|candidate| (candidate.segment, candidate.doc));
        let mut scores = Vec::with_capacity(candidates.len());
        for candidates in candidates.chunk_by(|a, b| a.segment == b.segment) {
            let segment = candidates[0].segment as usize;
            let SegmentPlan { file, lists, .. } = &self.segments[segment];
            let docs: Vec<u32> = candidates.iter().map(|candidate| candidate.doc).collect();
            let found = file.scores_by(self.query, lists, &docs);
            scores.extend(found.map_err(|defect| SegmentDefect { segment, defect })?);
        }
        Ok(scores)
    }

    fn search(&self, mut top: TopCandidates, live: &dyn Live, threads: usize) -> Vec<Candidate> {
        let windows = self.windows();
        let threads = threads.min(self.useful_threads());
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

    /// Number of threads that the postings of the query keep busy.
    fn useful_threads(&self) -> usize {
        let dfs = self.segments.iter().flat_map(|segment| &segment.lists).map(|(_, list)| u64::from(list.entry.df));
        usize::try_from(dfs.sum::<u64>() / POSTINGS_PER_THREAD).unwrap_or(usize::MAX)
    }

    /// Segment and number of every window.
    fn windows(&self) -> Vec<(usize, usize)> {
        let segments = self.segments.iter().enumerate().filter(|(_, segment)| !segment.terms.is_empty());
        segments.flat_map(|(at, segment)| (0..segment.file.n_windows()).map(move |window| (at, window))).collect()
    }

    fn search_windows(&self, windows: &[(usize, usize)], top: &mut TopCandidates, live: &dyn Live) {
        let mut sums: Box<Sums> =
            vec![0; WINDOW].into_boxed_slice().try_into().unwrap_or_else(|_| Box::new([0; WINDOW]));
        for &(at, window) in windows {
            let SegmentPlan { file, terms, .. } = &self.segments[at];
            let window_len = file.window_len();
            let first = (window * window_len) as u32;
            add_up(terms, window, window_len, &mut sums);
            scan(&mut sums, window_len, top.threshold, &mut |chunk, mut reached, sums| {
                let start = first + (chunk * sums.len()) as u32;
                reached &= (live.group(at, start / 64 * 64) >> (start % 64)) as u32;
                while reached != 0 {
                    let place = reached.trailing_zeros();
                    reached &= reached - 1;
                    let (sum, doc) = (sums[place as usize], start + place);
                    if sum >= top.threshold && live.is_live(at, doc) {
                        top.push(Candidate { sum, segment: at as u32, doc });
                    }
                }
                top.threshold
            });
        }
    }
}
