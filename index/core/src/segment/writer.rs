//! [`SegmentWriter`]: writes a segment file term by term.

use std::io::{self, Write};

use super::header::{Header, Identity, Section, WINDOW, WINDOW_BITS, padding};
use super::remainder::RemainderWriter;
use super::row::ForwardPrecision;
use super::term::{COUNT_BLOCK, PostingsKind, SEED_DEPTHS, TermEntry};

/// Writes a segment file from the start to the end. It holds one list and the table of terms in memory.
pub(super) struct SegmentWriter<'a, W> {
    out: &'a mut W,
    identity: Identity,
    header: Header,
    /// number of bytes written
    written: usize,
    terms: Vec<u8>,
    list: Vec<u8>,
    remainders: RemainderWriter,
}

impl<'a, W: Write> SegmentWriter<'a, W> {
    /// Starts a file of `n_docs` documents.
    pub(super) fn new(out: &'a mut W, identity: &Identity, n_docs: u32) -> io::Result<Self> {
        let header = Header::new(identity, n_docs);
        let (terms, list, remainders) = Default::default();
        let mut writer = Self { out, identity: *identity, header, written: 0, terms, list, remainders };
        writer.write(&Header::start_bytes())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        self.write(&[0; 64][..padding(self.written)])
    }

    /// Writes the list of a term: the documents that have it, ascending, and their weights. Terms must ascend. A term without
    /// documents is left out.
    pub(super) fn term(&mut self, id: u32, docs: &[u32], weights: &[f32]) -> io::Result<()> {
        let Some(largest) = weights.iter().copied().reduce(f32::max) else { return Ok(()) };
        let precision = self.identity.layout.precision();
        let step = match precision {
            ForwardPrecision::F32 | ForwardPrecision::F16 => step_of(largest),
            ForwardPrecision::U8 => ForwardPrecision::STEP_OF_U8,
        };
        let impacts: Vec<u8> = weights.iter().map(|weight| impact_of(*weight, step)).collect();
        self.remainders.clear();
        let mut error = 0_f32;
        for (at, (&weight, &impact)) in weights.iter().zip(&impacts).enumerate() {
            let difference = (f64::from(weight) - f64::from(impact) * f64::from(step)).abs();
            error = error.max((difference as f32).next_up());
            self.remainders.push(precision, weight, impact, step, at);
        }
        self.list.clear();
        let kind = self.write_postings(docs, &impacts);
        self.remainders.append_to(&mut self.list);
        if kind != PostingsKind::Short {
            // so that no id of a long list lies in two cache lines
            self.pad()?;
        }
        let start = (self.written - super::header::START_LEN) as u64;
        let df = docs.len() as u32;
        let seeds = SEED_DEPTHS.map(|k| kth_largest(&impacts, k));
        let entry = TermEntry { id, df, step, error, start, extra: self.remainders.n_exceptions(), kind, seeds };
        self.terms.extend_from_slice(&entry.to_bytes());
        self.header.n_postings += u64::from(df);
        let list = std::mem::take(&mut self.list);
        self.write(&list)?;
        self.list = list;
        Ok(())
    }

    /// Appends ids and impacts to the list, in the form that suits their number.
    fn write_postings(&mut self, docs: &[u32], impacts: &[u8]) -> PostingsKind {
        let n_docs = self.header.n_docs as usize;
        let n_windows = n_docs.div_ceil(WINDOW);
        if docs.len() * 4 > n_docs {
            self.write_dense(docs, impacts);
            return PostingsKind::Dense;
        }
        if docs.len() <= 2 * (n_windows + 1) {
            docs.iter().for_each(|doc| self.list.extend_from_slice(&doc.to_le_bytes()));
            self.list.extend_from_slice(impacts);
            return PostingsKind::Short;
        }
        let mut from = 0_u32;
        for window in 0..=n_windows {
            self.list.extend_from_slice(&from.to_le_bytes());
            let inside = docs[from as usize..].iter().take_while(|doc| (**doc >> WINDOW_BITS) as usize == window);
            from += inside.count() as u32;
        }
        docs.iter().for_each(|doc| self.list.extend_from_slice(&((*doc as usize % WINDOW) as u16).to_le_bytes()));
        self.list.extend_from_slice(impacts);
        PostingsKind::Windowed
    }

    fn write_dense(&mut self, docs: &[u32], impacts: &[u8]) {
        self.list.resize(self.header.n_docs as usize, 0);
        for (&doc, &impact) in docs.iter().zip(impacts) {
            self.list[doc as usize] = impact;
        }
        let mut before = 0_u32;
        let counts = self.list.chunks(COUNT_BLOCK).map(|block| {
            let count = before;
            before += block.iter().filter(|impact| **impact != 0).count() as u32;
            count
        });
        let counts: Vec<u32> = counts.collect();
        counts.iter().for_each(|count| self.list.extend_from_slice(&count.to_le_bytes()));
    }

    /// Writes the table of terms, the external ids of all documents and the header.
    pub(super) fn finish<'i>(mut self, ids: impl Iterator<Item = &'i [u8]> + Clone) -> io::Result<()> {
        self.end_section(Section::Postings, super::header::START_LEN)?;
        let start = self.written;
        let terms = std::mem::take(&mut self.terms);
        self.write(&terms)?;
        self.end_section(Section::Terms, start)?;
        let start = self.written;
        let mut end = 0_u64;
        self.write(&end.to_le_bytes())?;
        for id in ids.clone() {
            end += id.len() as u64;
            self.write(&end.to_le_bytes())?;
        }
        self.end_section(Section::IdStarts, start)?;
        let start = self.written;
        for id in ids {
            self.write(id)?;
        }
        self.end_section(Section::Ids, start)?;
        let header = self.header.to_bytes();
        self.write(&header)
    }

    fn end_section(&mut self, section: Section, start: usize) -> io::Result<()> {
        self.header.set_section(section, start..self.written);
        self.pad()
    }
}

/// Weight of an impact of 1 in a list whose largest weight is `largest`.
pub(super) fn step_of(largest: f32) -> f32 {
    // for a weight near the smallest float, the quotient may be zero
    (largest / 255.0).max(f32::MIN_POSITIVE)
}

/// Number of steps nearest to `weight`, 1 to 255.
pub(super) fn impact_of(weight: f32, step: f32) -> u8 {
    (weight / step).round().clamp(1.0, 255.0) as u8
}

/// The `k`-th largest of `impacts`; 0 if there are fewer than `k`.
fn kth_largest(impacts: &[u8], k: usize) -> u8 {
    let mut counts = [0_usize; 256];
    for &impact in impacts {
        counts[usize::from(impact)] += 1;
    }
    let mut above = 0;
    for impact in (1..=255_u8).rev() {
        above += counts[usize::from(impact)];
        if above >= k {
            return impact;
        }
    }
    0
}
