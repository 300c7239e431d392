//! [`DenseQuery`]: the exact search over files of dense vectors.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
#[cfg(feature = "threads")]
use rayon::prelude::*;

use super::codes::{QueryCodes, Scale};
use super::format::DenseFile;
use super::vector::DenseVector;
use crate::segment::{Live, SegmentDefect};

/// Number of documents whose codes are multiplied at a time.
const BLOCK: u32 = 256;
/// Number of documents from which on a further thread saves more time than it takes to start.
const DOCUMENTS_PER_THREAD: u32 = 8192;

/// A document with its exact score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseHit {
    /// dot product with the query
    pub score: f32,
    /// position of the file in the argument of the search
    pub segment: u32,
    /// document id in the segment
    pub doc: u32,
}

/// A query with its codes.
pub struct DenseQuery {
    vector: DenseVector,
    codes: QueryCodes,
}

/// A document that may be among the best.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    lower: f64,
    upper: f64,
    segment: u32,
    doc: u32,
}

impl DenseQuery {
    /// Prepares a query.
    #[must_use]
    pub fn new(vector: DenseVector) -> Self {
        Self { codes: QueryCodes::new(vector.values()), vector }
    }

    /// The vector.
    #[must_use]
    pub fn vector(&self) -> &DenseVector {
        &self.vector
    }

    /// The documents with the `k` highest scores, and others below them, in no order. Scores may be negative. The result does not depend
    /// on `threads`, the number of rayon's threads that search at the same time.
    ///
    /// # Errors
    /// A damaged file.
    pub fn search(
        &self,
        files: &[&DenseFile],
        k: usize,
        live: &dyn Live,
        threads: usize,
    ) -> Result<Vec<DenseHit>, SegmentDefect> {
        if k == 0 {
            return Ok(Vec::new());
        }
        let n_docs = files.iter().fold(0_u32, |sum, file| sum.saturating_add(file.n_docs()));
        let threads = threads.clamp(1, (n_docs / DOCUMENTS_PER_THREAD).max(1) as usize);
        let blocks = blocks(files);
        let scan = |blocks: &[(usize, Range<u32>)]| self.scan(files, blocks, k, live);
        let mut top = Top::new(k);
        if threads == 1 {
            top = scan(&blocks)?;
        } else {
            let share = blocks.len().div_ceil(threads).max(1);
            #[cfg(feature = "threads")]
            let parts = blocks.par_chunks(share);
            #[cfg(not(feature = "threads"))]
            let parts = blocks.chunks(share);
            let parts: Vec<Top> = parts.map(scan).collect::<Result<_, _>>()?;
            parts.into_iter().flat_map(Top::finish).for_each(|candidate| top.push(candidate));
        }
        let score = |candidate: Candidate| {
            let Candidate { segment, doc, .. } = candidate;
            Ok(DenseHit { score: self.score(files, segment, doc)?, segment, doc })
        };
        top.finish().into_iter().map(score).collect()
    }

    /// Scores every document: the plain twin of [`search`](Self::search).
    ///
    /// # Errors
    /// A damaged file.
    pub fn score_all(&self, files: &[&DenseFile], live: &dyn Live) -> Result<Vec<DenseHit>, SegmentDefect> {
        let mut hits = Vec::new();
        for (segment, file) in (0..).zip(files) {
            for doc in (0..file.n_docs()).filter(|doc| live.is_live(segment as usize, *doc)) {
                hits.push(DenseHit { score: self.score(files, segment, doc)?, segment, doc });
            }
        }
        Ok(hits)
    }

    /// Exact score of a document.
    ///
    /// # Errors
    /// A damaged file.
    pub fn score(&self, files: &[&DenseFile], segment: u32, doc: u32) -> Result<f32, SegmentDefect> {
        let segment = segment as usize;
        let Some(file) = files.get(segment) else { return Ok(0.0) };
        file.score(self.vector.values(), doc).map_err(|defect| SegmentDefect { segment, defect })
    }

    /// Candidates of some blocks.
    fn scan(
        &self,
        files: &[&DenseFile],
        blocks: &[(usize, Range<u32>)],
        k: usize,
        live: &dyn Live,
    ) -> Result<Top, SegmentDefect> {
        let mut top = Top::new(k);
        let mut sums = Vec::with_capacity(BLOCK as usize);
        for (segment, docs) in blocks.iter().cloned() {
            let (codes, scales) =
                files[segment].coded(docs.clone()).map_err(|defect| SegmentDefect { segment, defect })?;
            Arch::new().dispatch(Products { codes, query: &self.codes.codes, sums: &mut sums });
            for ((doc, sum), scale) in docs.zip(&sums).zip(scales) {
                let (lower, upper) = self.codes.bounds(*sum, &Scale::from_bytes(scale));
                if upper >= top.threshold && live.is_live(segment, doc) {
                    top.push(Candidate { lower, upper, segment: segment as u32, doc });
                }
            }
        }
        Ok(top)
    }
}

/// Segment and documents of every block.
fn blocks(files: &[&DenseFile]) -> Vec<(usize, Range<u32>)> {
    let of_file = |(segment, file): (usize, &&DenseFile)| {
        let n_docs = file.n_docs();
        let starts = (0..n_docs).step_by(BLOCK as usize);
        starts.map(move |start| (segment, start..start.saturating_add(BLOCK).min(n_docs))).collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(of_file).collect()
}

/// Products of the codes of documents with those of the query, for [`pulp::Arch::dispatch`]: compiled for the widest vector
/// instructions of the machine.
struct Products<'a> {
    codes: &'a [u8],
    query: &'a [i16],
    sums: &'a mut Vec<i32>,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.sums.clear();
        for codes in self.codes.chunks_exact(self.query.len()) {
            let product = |(code, query): (&u8, &i16)| i32::from(*code as i8) * i32::from(*query);
            self.sums.push(codes.iter().zip(self.query).map(product).sum());
        }
    }
}

/// Documents that may be among the k best so far.
struct Top {
    k: usize,
    /// a document with an upper bound below it is not among the k best
    threshold: f64,
    capacity: usize,
    candidates: Vec<Candidate>,
}

impl Top {
    fn new(k: usize) -> Self {
        let capacity = k.saturating_mul(2).clamp(256, 1 << 16);
        Self { k, threshold: f64::NEG_INFINITY, capacity, candidates: Vec::new() }
    }

    #[inline]
    fn push(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
        if self.candidates.len() >= self.capacity {
            self.shrink();
            // all documents whose bound reaches the threshold must stay
            self.capacity = self.capacity.max(self.candidates.len() * 2);
        }
    }

    /// Raises the threshold to the k-th largest lower bound, and removes the candidates that cannot reach it.
    fn shrink(&mut self) {
        if self.candidates.len() < self.k {
            return;
        }
        let mut lower: Vec<f64> = self.candidates.iter().map(|candidate| candidate.lower).collect();
        let (_, kth, _) = lower.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a));
        self.threshold = self.threshold.max(*kth);
        self.candidates.retain(|candidate| candidate.upper >= self.threshold);
    }

    fn finish(mut self) -> Vec<Candidate> {
        self.shrink();
        self.candidates
    }
}
