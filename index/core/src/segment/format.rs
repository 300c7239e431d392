//! The file `<segment>.spl`, version 1: what is where, and what must hold before anything is read.
//!
//! Little endian; every section starts at a multiple of 64 bytes; offsets count from the start of the file.
//!
//! | section | content |
//! |---|---|
//! | header | magic, version, flags, documents, vocabulary size, window bits, postings, fingerprint, section table |
//! | terms | one [`Term`] of 32 bytes for every term that occurs, ascending by id |
//! | windows | per windowed term: windows + 1 offsets (u32) into its postings |
//! | postings | per term: ids inside the window (u16) or, if short, of documents (u32); then its impacts (u8) |
//! | dense | terms in more than a quarter of the documents: one impact a document, 0 = absent |
//! | starts | documents + 1 offsets (u64), counted in entries, into the rows |
//! | rows | per document: term ids ascending (u16 if the vocabulary allows, else u32), then weights (f32 or f16) |
//! | id starts | documents + 1 offsets (u64) into the ids |
//! | ids | the external ids, UTF-8, in the order of the documents |
//!
//! Starts and rows are the *forward* section: the only home of the exact weights, from which exact scores,
//! explanations and merges are made. Postings hold *impacts*: weights rounded to 1..=255 steps of their term.
//!
//! Ids inside a window save two bytes a posting and cost a table of four bytes a window, so terms with up to twice as
//! many postings as windows are *short* and keep whole document ids.
//!
//! External ids are here and not in a tantivy column, because its dictionary took 14 µs an id: for ten hits several
//! times the search itself.

use std::ops::Range;

use ownedbytes::OwnedBytes;

use super::row::{Entry, Row, RowLayout};

/// log2 of the documents of a window.
pub const WINDOW_BITS: u32 = 13;
/// Documents of a window: their u32 accumulators take 32 KB and stay in the first-level cache (measured best).
pub const WINDOW: usize = 1 << WINDOW_BITS;
/// What a segment file begins with.
pub(super) const MAGIC: [u8; 8] = *b"SPLADEix";
/// The version written and read.
pub(super) const VERSION: u32 = 1;
/// Sections start at multiples of this.
pub(super) const ALIGN: usize = 64;
/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 256;
/// Bytes of a term's entry.
const TERM_LEN: usize = 32;
/// Where the section table lies in the header.
pub(super) const SECTION_TABLE: usize = 72;

/// The k for which the k-th largest impact of a term is kept.
pub const SEED_DEPTHS: [usize; 2] = [10, 100];

/// The sections behind the header, in the order of the file.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Section {
    Terms,
    Windows,
    Postings,
    Dense,
    Starts,
    Rows,
    IdStarts,
    Ids,
}
pub(super) const SECTIONS: usize = 8;

/// What is wrong with a file, in one clause.
pub type Defect = String;

/// How a term's postings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// whole document ids
    Short = 1,
    /// ids inside the window, and a table of windows
    Windowed = 2,
    /// one impact a document
    Dense = 3,
}

/// A term's entry in the terms section.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// its id in the vocabulary
    pub(super) id: u32,
    /// number of documents that have it
    pub(super) df: u32,
    /// weight of one unit of impact: the largest weight / 255
    pub(super) step: f32,
    /// the largest |weight - impact * step| over its postings, rounded up
    pub(super) error: f32,
    /// first byte in the postings section, or in the dense section
    pub(super) start: u64,
    /// first entry in the windows section
    pub(super) windows: u32,
    pub(super) kind: Kind,
    /// the k-th largest impact for the k of [`SEED_DEPTHS`], 0 where there are fewer postings
    pub(super) seeds: [u8; 2],
}

impl Term {
    pub(super) fn to_bytes(self) -> [u8; TERM_LEN] {
        let mut bytes = [0; TERM_LEN];
        bytes[0..4].copy_from_slice(&self.id.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.df.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.step.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.error.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.windows.to_le_bytes());
        bytes[28] = self.kind as u8;
        bytes[29..31].copy_from_slice(&self.seeds);
        bytes
    }

    fn from_bytes(bytes: &[u8; TERM_LEN]) -> Result<Self, Defect> {
        let kind = match bytes[28] {
            1 => Kind::Short,
            2 => Kind::Windowed,
            3 => Kind::Dense,
            other => return Err(format!("a term of unknown kind {other}")),
        };
        Ok(Self {
            id: u32_at(bytes, 0),
            df: u32_at(bytes, 4),
            step: f32::from_bits(u32_at(bytes, 8)),
            error: f32::from_bits(u32_at(bytes, 12)),
            start: u64_at(bytes, 16),
            windows: u32_at(bytes, 24),
            kind,
            seeds: [bytes[29], bytes[30]],
        })
    }
}

/// A term's postings in one segment.
#[derive(Clone, Copy)]
pub enum Postings<'a> {
    /// Document ids and impacts.
    Short { docs: &'a [[u8; 4]], impacts: &'a [u8] },
    /// Ids inside the window and impacts; `offsets` tells where each window begins, and the end.
    Windowed { ids: &'a [[u8; 2]], impacts: &'a [u8], offsets: &'a [[u8; 4]] },
    /// One impact a document.
    Dense { impacts: &'a [u8] },
}

/// What a file must have been written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// number of terms there can be
    pub vocabulary_size: u32,
    /// of model and tokenizer
    pub fingerprint: [u8; 32],
    /// of the rows
    pub layout: RowLayout,
}

/// An opened segment file. Opening checks header and tables, so that no later read can leave the file; the long
/// sections are checked by [`check`](Self::check) alone.
pub struct SegmentFile {
    bytes: OwnedBytes,
    sections: [Range<usize>; SECTIONS],
    n_docs: u32,
    n_postings: u64,
    layout: RowLayout,
    vocabulary_size: u32,
}

impl SegmentFile {
    /// Opens and checks `bytes`, which must hold `n_docs` documents of `identity`.
    pub fn open(bytes: OwnedBytes, identity: &Identity, n_docs: u32) -> Result<Self, Defect> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or("too short for a header")?;
        if header[..8] != MAGIC {
            return Err("not a splade segment file (wrong magic)".into());
        }
        let version = u32_at(header, 8);
        if version != VERSION {
            return Err(format!("version {version} of the segment format, this program reads version {VERSION}"));
        }
        check_identity(header, identity, n_docs)?;
        let file = Self {
            sections: read_sections(header, bytes.len())?,
            n_postings: u64_at(header, 28),
            bytes,
            n_docs,
            layout: identity.layout,
            vocabulary_size: identity.vocabulary_size,
        };
        file.check_terms()?;
        file.check_starts(Section::Starts, Section::Rows, file.layout.entry_len())?;
        file.check_starts(Section::IdStarts, Section::Ids, 1)?;
        if (file.section(Section::Rows).len() / file.layout.entry_len()) as u64 != file.n_postings {
            return Err("its forward section has another number of weights than its postings".into());
        }
        Ok(file)
    }

    fn section(&self, section: Section) -> &[u8] {
        &self.bytes[self.sections[section as usize].clone()]
    }

    fn term_entries(&self) -> &[[u8; TERM_LEN]] {
        self.section(Section::Terms).as_chunks().0
    }

    /// The part of `section` between the two offsets of `doc` in `starts`, times `unit`; empty beyond the end.
    fn part(&self, starts: Section, section: Section, doc: u32, unit: usize) -> &[u8] {
        let starts: &[[u8; 8]] = self.section(starts).as_chunks().0;
        let offset = |at: usize| starts.get(at).map_or(0, |start| u64::from_le_bytes(*start) as usize);
        let (from, to) = (offset(doc as usize), offset(doc as usize + 1));
        self.section(section).get(from.saturating_mul(unit)..to.saturating_mul(unit)).unwrap_or_default()
    }

    /// Number of documents, deleted ones included.
    pub fn n_docs(&self) -> u32 {
        self.n_docs
    }

    /// Number of postings, those of deleted documents included.
    pub fn n_postings(&self) -> u64 {
        self.n_postings
    }

    /// Size of the file, without tantivy's footer.
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Ids of the terms that occur, ascending.
    pub fn term_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.term_entries().iter().map(|entry| u32_at(entry, 0))
    }

    /// Number of windows.
    pub fn n_windows(&self) -> usize {
        (self.n_docs as usize).div_ceil(WINDOW)
    }

    /// A term and its postings, `None` if no document has it.
    pub fn term(&self, id: u32) -> Option<(Term, Postings<'_>)> {
        let entries = self.term_entries();
        let at = entries.binary_search_by_key(&id, |entry| u32_at(entry, 0)).ok()?;
        let term = Term::from_bytes(&entries[at]).ok()?;
        self.postings(&term).map(|postings| (term, postings))
    }

    /// The postings of a term; `None` if they leave their section.
    fn postings(&self, term: &Term) -> Option<Postings<'_>> {
        let start = usize::try_from(term.start).ok()?;
        let df = term.df as usize;
        let lists = self.section(Section::Postings);
        Some(match term.kind {
            Kind::Short => {
                let (docs, impacts) = lists.get(start..start.checked_add(df * 5)?)?.split_at(df * 4);
                Postings::Short { docs: docs.as_chunks().0, impacts }
            }
            Kind::Windowed => {
                let (ids, impacts) = lists.get(start..start.checked_add(df * 3)?)?.split_at(df * 2);
                let first = term.windows as usize;
                let offsets = self.section(Section::Windows).as_chunks().0;
                let offsets = offsets.get(first..first.checked_add(self.n_windows() + 1)?)?;
                Postings::Windowed { ids: ids.as_chunks().0, impacts, offsets }
            }
            Kind::Dense => {
                let dense = self.section(Section::Dense);
                Postings::Dense { impacts: dense.get(start..start.checked_add(self.n_docs as usize)?)? }
            }
        })
    }

    /// The exact weights of a document; none beyond the last document.
    pub fn row(&self, doc: u32) -> Row<'_> {
        self.layout.row(self.part(Section::Starts, Section::Rows, doc, self.layout.entry_len()))
    }

    /// The external id of a document: UTF-8, unless the file is damaged; empty beyond the last document.
    pub fn id(&self, doc: u32) -> &[u8] {
        self.part(Section::IdStarts, Section::Ids, doc, 1)
    }

    /// A document as a new file is made of it.
    pub fn entry(&self, doc: u32) -> Entry<'_> {
        Entry { id: self.id(doc), row: self.row(doc) }
    }

    /// Terms ascend, are known and have their postings inside the file.
    fn check_terms(&self) -> Result<(), Defect> {
        let mut below = 0;
        let mut postings = 0;
        for entry in self.term_entries() {
            let term = Term::from_bytes(entry)?;
            let id = term.id;
            if id < below || id >= self.vocabulary_size {
                return Err(format!("term {id} is out of order or beyond the vocabulary"));
            }
            below = id + 1;
            postings += u64::from(term.df);
            if term.df == 0 || term.df > self.n_docs {
                return Err(format!("term {id} claims {} of {} documents", term.df, self.n_docs));
            }
            if !(term.step.is_finite() && term.step > 0.0 && term.error.is_finite() && term.error >= 0.0) {
                return Err(format!("term {id} has a step or an error that is no positive number"));
            }
            let lists = self.postings(&term).ok_or_else(|| format!("the postings of term {id} leave their section"))?;
            if let Postings::Windowed { offsets, .. } = lists {
                check_offsets(offsets, term.df).map_err(|defect| format!("term {id}: {defect}"))?;
            }
        }
        if postings != self.n_postings {
            return Err(format!("its terms have {postings} postings, its header says {}", self.n_postings));
        }
        Ok(())
    }

    /// The offsets in `starts` ascend to the end of `section`, whose unit is `unit` bytes.
    fn check_starts(&self, starts: Section, section: Section, unit: usize) -> Result<(), Defect> {
        let starts: &[[u8; 8]] = self.section(starts).as_chunks().0;
        if starts.len() != self.n_docs as usize + 1 {
            return Err("the forward section has another number of documents".into());
        }
        let offsets = starts.iter().map(|start| u64::from_le_bytes(*start));
        let end = offsets.clone().next_back().and_then(|end| end.checked_mul(unit as u64));
        if offsets.clone().next() != Some(0) || !offsets.is_sorted() || end != Some(self.section(section).len() as u64)
        {
            return Err(format!("the offsets of section {} do not fit it", section as usize));
        }
        Ok(())
    }

    /// Reads every section and checks every value: what opening leaves out because it takes as long as reading the
    /// file.
    pub fn check(&self) -> Result<(), Defect> {
        for entry in self.term_entries() {
            let term = Term::from_bytes(entry)?;
            let postings = self.postings(&term).ok_or("postings leave their section")?;
            self.check_postings(postings, term.df).map_err(|defect| format!("term {}: {defect}", term.id))?;
        }
        self.check_rows()
    }

    /// Reads and checks the forward section alone: before anything is built from it.
    pub fn check_rows(&self) -> Result<(), Defect> {
        for doc in 0..self.n_docs {
            self.check_row(doc).map_err(|defect| format!("document {doc}: {defect}"))?;
        }
        Ok(())
    }

    fn check_postings(&self, postings: Postings<'_>, df: u32) -> Result<(), Defect> {
        let n_docs = u64::from(self.n_docs);
        let (docs, impacts): (Vec<u64>, &[u8]) = match postings {
            Postings::Dense { impacts } => {
                let found = impacts.iter().filter(|impact| **impact != 0).count();
                return if found == df as usize { Ok(()) } else { Err("another number of impacts".into()) };
            }
            Postings::Short { docs, impacts } => {
                (docs.iter().map(|doc| u64::from(u32::from_le_bytes(*doc))).collect(), impacts)
            }
            Postings::Windowed { ids, impacts, offsets } => {
                let mut docs = Vec::with_capacity(ids.len());
                for (window, pair) in offsets.windows(2).enumerate() {
                    let inside = u32::from_le_bytes(pair[0]) as usize..u32::from_le_bytes(pair[1]) as usize;
                    for id in ids.get(inside).unwrap_or_default() {
                        let id = u64::from(u16::from_le_bytes(*id));
                        if id >= WINDOW as u64 {
                            return Err("an id beyond its window".into());
                        }
                        docs.push((window * WINDOW) as u64 + id);
                    }
                }
                (docs, impacts)
            }
        };
        if !docs.is_sorted_by(|a, b| a < b) || docs.last().is_some_and(|last| *last >= n_docs) {
            return Err("document ids out of order or range".into());
        }
        if impacts.contains(&0) {
            return Err("an impact of zero".into());
        }
        Ok(())
    }

    fn check_row(&self, doc: u32) -> Result<(), Defect> {
        if self.id(doc).is_empty() || std::str::from_utf8(self.id(doc)).is_err() {
            return Err("its id is empty or no UTF-8".into());
        }
        let mut below = 0;
        for (dim, weight) in self.row(doc).iter() {
            if dim < below || dim >= self.vocabulary_size {
                return Err(format!("term {dim} is out of order or beyond the vocabulary"));
            }
            if !(weight.is_finite() && weight > 0.0) {
                return Err(format!("term {dim} has the weight {weight}"));
            }
            below = dim + 1;
        }
        Ok(())
    }
}

fn check_identity(header: &[u8; HEADER_LEN], identity: &Identity, n_docs: u32) -> Result<(), Defect> {
    let expected = [
        ("flags", u32_at(header, 12), identity.layout.flags()),
        ("documents", u32_at(header, 16), n_docs),
        ("vocabulary size", u32_at(header, 20), identity.vocabulary_size),
        ("window bits", u32_at(header, 24), WINDOW_BITS),
    ];
    for (name, got, expected) in expected {
        if got != expected {
            return Err(format!("{name} {got}, expected {expected}"));
        }
    }
    if header[40..72] != identity.fingerprint {
        return Err("written for another model or tokenizer".into());
    }
    Ok(())
}

fn read_sections(header: &[u8; HEADER_LEN], file_len: usize) -> Result<[Range<usize>; SECTIONS], Defect> {
    let mut sections: [Range<usize>; SECTIONS] = Default::default();
    let mut end = HEADER_LEN as u64;
    for (at, section) in sections.iter_mut().enumerate() {
        let offset = u64_at(header, SECTION_TABLE + at * 16);
        let len = u64_at(header, SECTION_TABLE + at * 16 + 8);
        let next = offset.checked_add(len).filter(|next| *next <= file_len as u64);
        let (Some(next), true) = (next, offset >= end && offset.is_multiple_of(ALIGN as u64)) else {
            return Err(format!("section {at} is misplaced or leaves the file"));
        };
        *section = offset as usize..next as usize;
        end = next;
    }
    let lens = [(Section::Terms, TERM_LEN), (Section::Windows, 4), (Section::Starts, 8), (Section::IdStarts, 8)];
    match lens.into_iter().find(|(section, unit)| !sections[*section as usize].len().is_multiple_of(*unit)) {
        Some((section, _)) => Err(format!("section {} is cut off", section as usize)),
        None => Ok(sections),
    }
}

/// Window offsets ascend from 0 to `df`, by at most a window.
fn check_offsets(offsets: &[[u8; 4]], df: u32) -> Result<(), Defect> {
    let values = || offsets.iter().map(|offset| u32::from_le_bytes(*offset));
    if values().next() != Some(0) || values().next_back() != Some(df) || !values().is_sorted() {
        return Err("its window offsets do not ascend to its number of postings".into());
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
