//! [`write_segment`]: builds a segment file from rows, at a commit.

use std::io::{self, Write};
use std::ops::Range;

use super::header::Identity;
use super::row::{Entry, Row};
use super::writer::SegmentWriter;

/// Largest number of postings that are inverted together, if there are several terms: 16 MB.
const RUN: usize = 2 << 20;

/// Writes a segment file of `documents`, in their order. The iterator runs several times, so that only the postings of some
/// terms are in memory twice.
///
/// # Errors
/// Those of `out`.
pub fn write_segment<'a>(
    out: &mut impl Write,
    identity: &Identity,
    documents: impl Iterator<Item = Entry<'a>> + Clone,
) -> io::Result<()> {
    let rows = documents.clone().map(|document| document.row);
    let mut counts = vec![0_u32; identity.vocabulary_size as usize];
    let mut n_docs = 0;
    for row in rows.clone() {
        n_docs += 1;
        (0..row.len()).for_each(|at| counts[row.dim(at) as usize] += 1);
    }
    let mut writer = SegmentWriter::new(out, identity, n_docs)?;
    // first entry of each row that is not written
    let mut next = vec![0_u32; n_docs as usize];
    let mut run = Run::default();
    let mut first = 0;
    while first < counts.len() {
        let terms = run_of(&counts, first);
        run.fill(&counts[terms.clone()], first as u32, rows.clone(), &mut next);
        for (at, term) in (terms.start as u32..).take(terms.len()).enumerate() {
            let inside = run.starts[at]..run.starts[at + 1];
            writer.term(term, &run.docs[inside.clone()], &run.weights[inside])?;
        }
        first = terms.end;
    }
    writer.finish(documents.map(|document| document.id))
}

/// The terms from `first` on that have up to [`RUN`] postings together; at least one term.
fn run_of(counts: &[u32], first: usize) -> Range<usize> {
    let mut sum = 0;
    let fits = counts[first..].iter().take_while(|count| {
        sum += **count as usize;
        sum <= RUN
    });
    first..first + fits.count().max(1)
}

/// Postings of some successive terms, term by term.
#[derive(Default)]
struct Run {
    /// first posting of each term, and the end
    starts: Vec<usize>,
    docs: Vec<u32>,
    weights: Vec<f32>,
}

impl Run {
    /// Collects the postings of the terms from `first` on, which have these `counts`. The entries of each row from `next` on
    /// are of these and later terms; `next` is moved behind those of these terms.
    fn fill<'a>(&mut self, counts: &[u32], first: u32, rows: impl Iterator<Item = Row<'a>>, next: &mut [u32]) {
        self.starts.clear();
        self.starts.push(0);
        let mut end = 0;
        for &count in counts {
            end += count as usize;
            self.starts.push(end);
        }
        self.docs.resize(end, 0);
        self.weights.resize(end, 0.0);
        if end == 0 {
            return;
        }
        let mut places = self.starts.clone();
        for ((doc, row), next) in (0..).zip(rows).zip(next) {
            while (*next as usize) < row.len() {
                let term = (row.dim(*next as usize) - first) as usize;
                if term >= counts.len() {
                    break;
                }
                self.docs[places[term]] = doc;
                self.weights[places[term]] = row.weight(*next as usize);
                places[term] += 1;
                *next += 1;
            }
        }
    }
}
