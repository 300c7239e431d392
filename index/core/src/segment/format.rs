//! [`SegmentFile`]: layout and checks of `<segment>.spl`, version 1.
//!
//! Numbers are little endian. Every section starts at a multiple of 64 bytes. Offsets count from the start of the file.
//!
//! | section | content |
//! |---|---|
//! | header | a [`Header`]: magic, version, flags, documents, vocabulary size, window bits, postings, fingerprint, sections |
//! | terms | one [`TermEntry`] of 32 bytes for every term that occurs, ascending by id |
//! | windows | per windowed term: windows + 1 offsets (u32) into its postings |
//! | postings | per term: ids inside the window (u16) or, if short, of documents (u32); then its impacts (u8) |
//! | dense | terms in more than a quarter of the documents: one impact per document, 0 = absent |
//! | starts | documents + 1 offsets (u64), counted in entries, into the rows |
//! | rows | per document: term ids ascending (u16 if the vocabulary allows, else u32), then weights (f32 or f16) |
//! | id starts | documents + 1 offsets (u64) into the ids |
//! | ids | the external ids, UTF-8, in the order of the documents |
//!
//! Starts and rows are the *forward* section. It alone has the exact weights, which exact scores, explanations and merges
//! use. Postings have *impacts*: weights rounded to 1..=255 steps of their term.
//!
//! Ids inside a window save two bytes per posting and need a table of four bytes per window. A term with up to twice as many
//! postings as windows is therefore *short* and has whole document ids.
//!
//! External ids are in this file and not in a tantivy column, since tantivy's dictionary took 14 µs per id: for ten hits
//! several times as long as the search.

use std::ops::Range;

use super::checksum::CheckedBytes;
use super::row::{Entry, Row, RowLayout};

/// Binary logarithm of [`WINDOW`].
pub const WINDOW_BITS: u32 = 13;
/// Number of documents in a window. Their u32 accumulators take 32 KB, which fit in the first-level cache (the fastest size
/// measured).
pub const WINDOW: usize = 1 << WINDOW_BITS;
/// First bytes of a segment file.
const MAGIC: [u8; 8] = *b"SPLADEix";
/// Version that is written and read.
const VERSION: u32 = 1;
/// Alignment of the sections in bytes.
const ALIGN: usize = 64;
/// Number of bytes of the header.
const HEADER_LEN: usize = 256;
/// Number of bytes of a [`TermEntry`].
const TERM_LEN: usize = 32;

/// Values of k for which the k-th largest impact of a term is stored.
pub const SEED_DEPTHS: [usize; 2] = [10, 100];

/// Sections after the header, in the order of the file.
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
/// Number of sections.
const SECTIONS: usize = 8;

/// Description of a damaged or invalid part of a file, in one clause.
pub type Defect = String;

/// Header of a segment file.
///
/// | bytes | content |
/// |---|---|
/// | 0..8 | magic |
/// | 8..12 | version |
/// | 12..16 | flags of the rows |
/// | 16..20 | documents |
/// | 20..24 | vocabulary size |
/// | 24..28 | window bits |
/// | 28..36 | postings |
/// | 40..72 | fingerprint of model and tokenizer |
/// | 72..200 | per section: offset and length (u64 each) |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u32,
    pub(super) n_docs: u32,
    pub(super) vocabulary_size: u32,
    pub(super) n_postings: u64,
    pub(super) fingerprint: [u8; 32],
    /// ranges of the sections in the file
    sections: [Range<usize>; SECTIONS],
}

impl Header {
    /// The header of a file whose sections have the lengths `lens`, in their order.
    pub(super) fn new(identity: &Identity, n_docs: u32, n_postings: u64, lens: [usize; SECTIONS]) -> Self {
        let mut offset = HEADER_LEN;
        let sections = lens.map(|len| {
            let section = offset..offset + len;
            offset = section.end.next_multiple_of(ALIGN);
            section
        });
        Self {
            flags: identity.layout.flags(),
            n_docs,
            vocabulary_size: identity.vocabulary_size,
            n_postings,
            fingerprint: identity.fingerprint,
            sections,
        }
    }

    /// Bytes of the header in the file.
    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [VERSION, self.flags, self.n_docs, self.vocabulary_size, WINDOW_BITS];
        for (place, number) in bytes[8..28].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[28..36].copy_from_slice(&self.n_postings.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.fingerprint);
        for (place, section) in bytes[72..].chunks_exact_mut(16).zip(&self.sections) {
            place[..8].copy_from_slice(&(section.start as u64).to_le_bytes());
            place[8..].copy_from_slice(&(section.len() as u64).to_le_bytes());
        }
        bytes
    }

    /// Parses the header of a file of `file_len` bytes that begins with `bytes`, and checks that every section is inside the
    /// file.
    pub(super) fn from_bytes(bytes: &[u8; HEADER_LEN], file_len: usize) -> Result<Self, Defect> {
        if bytes[..8] != MAGIC {
            return Err("not a splade segment file (wrong magic)".into());
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(format!("version {version} of the segment format, this program reads version {VERSION}"));
        }
        if u32_at(bytes, 24) != WINDOW_BITS {
            return Err(format!("window bits {}, expected {WINDOW_BITS}", u32_at(bytes, 24)));
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&bytes[40..72]);
        Ok(Self {
            flags: u32_at(bytes, 12),
            n_docs: u32_at(bytes, 16),
            vocabulary_size: u32_at(bytes, 20),
            n_postings: u64_at(bytes, 28),
            fingerprint,
            sections: read_sections(&bytes[72..], file_len)?,
        })
    }

    /// Checks that the header is for `n_docs` documents of `identity`.
    fn expect(&self, identity: &Identity, n_docs: u32) -> Result<(), Defect> {
        let expected = [
            ("flags", self.flags, identity.layout.flags()),
            ("documents", self.n_docs, n_docs),
            ("vocabulary size", self.vocabulary_size, identity.vocabulary_size),
        ];
        if let Some((name, got, expected)) = expected.into_iter().find(|(_, got, expected)| got != expected) {
            return Err(format!("{name} {got}, expected {expected}"));
        }
        if self.fingerprint != identity.fingerprint {
            return Err("written for another model or tokenizer".into());
        }
        Ok(())
    }
}

/// Number of zeros after a section of `len` bytes.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGN) - len
}

/// Kinds of posting lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostingsKind {
    /// whole document ids
    Short = 1,
    /// ids inside the window, and a table of windows
    Windowed = 2,
    /// one impact per document
    Dense = 3,
}

/// Entry of a term in the terms section.
#[derive(Debug, Clone, Copy)]
pub struct TermEntry {
    /// id in the vocabulary
    pub(super) id: u32,
    /// number of documents with the term
    pub(super) df: u32,
    /// weight of an impact of 1: the largest weight / 255
    pub(super) step: f32,
    /// largest |weight - impact * step| of the postings, rounded up
    pub(super) error: f32,
    /// first byte in the postings section or the dense section
    pub(super) start: u64,
    /// first entry in the windows section
    pub(super) windows: u32,
    pub(super) kind: PostingsKind,
    /// k-th largest impact for each k of [`SEED_DEPTHS`]; 0 if there are fewer postings
    pub(super) seeds: [u8; 2],
}

impl TermEntry {
    /// Number of documents with the term.
    pub fn df(&self) -> u32 {
        self.df
    }

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
            1 => PostingsKind::Short,
            2 => PostingsKind::Windowed,
            3 => PostingsKind::Dense,
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

/// Postings of a term in one segment.
#[derive(Clone, Copy)]
pub enum Postings<'a> {
    /// Document ids and impacts.
    Short { docs: &'a [[u8; 4]], impacts: &'a [u8] },
    /// Ids inside the window and impacts; `offsets` are the start of each window, and the end.
    Windowed { ids: &'a [[u8; 2]], impacts: &'a [u8], offsets: &'a [[u8; 4]] },
    /// One impact per document.
    Dense { impacts: &'a [u8] },
}

/// Index that a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// number of terms of the vocabulary
    pub vocabulary_size: u32,
    /// fingerprint of model and tokenizer
    pub fingerprint: [u8; 32],
    /// layout of the rows
    pub layout: RowLayout,
}

/// An opened segment file.
///
/// Opening checks the header and the tables that every query reads. If the file has checksums, the blocks of the long sections are
/// checked when they are read. In a file without checksums, opening checks all offsets, so that every read stays inside its
/// section. Only [`check`](Self::check) checks the values of its long sections.
pub struct SegmentFile {
    bytes: CheckedBytes,
    header: Header,
    layout: RowLayout,
}

impl SegmentFile {
    /// Opens a file of `n_docs` documents of `identity`.
    pub fn open(bytes: CheckedBytes, identity: &Identity, n_docs: u32) -> Result<Self, Defect> {
        let start = bytes.get(0..HEADER_LEN.min(bytes.len()))?;
        let header = Header::from_bytes(start.first_chunk().ok_or("too short for a header")?, bytes.len())?;
        header.expect(identity, n_docs)?;
        let file = Self { bytes, header, layout: identity.layout };
        for section in [Section::Terms, Section::Windows] {
            file.bytes.check(file.place(section))?;
        }
        file.check_terms()?;
        if !file.bytes.has_checksums() {
            file.check_all_starts()?;
        }
        if (file.section(Section::Rows).len() / file.layout.entry_len()) as u64 != file.n_postings() {
            return Err("its forward section has another number of weights than its postings".into());
        }
        Ok(file)
    }

    fn place(&self, section: Section) -> Range<usize> {
        self.header.sections[section as usize].clone()
    }

    /// The bytes of a section, without a check.
    fn section(&self, section: Section) -> &[u8] {
        &self.bytes.as_unchecked()[self.place(section)]
    }

    /// Checks the blocks of a part of a section.
    fn check_part(&self, section: Section, part: Range<usize>) -> Result<(), Defect> {
        let start = self.place(section).start;
        self.bytes.check(start.saturating_add(part.start)..start.saturating_add(part.end))
    }

    fn term_entries(&self) -> &[[u8; TERM_LEN]] {
        self.section(Section::Terms).as_chunks().0
    }

    /// Range between the two offsets of `doc` in `starts`, times `unit`; empty beyond the last document.
    #[inline]
    fn part(&self, starts: Section, doc: u32, unit: usize) -> Range<usize> {
        let starts: &[[u8; 8]] = self.section(starts).as_chunks().0;
        let offset = |at: usize| starts.get(at).map_or(0, |start| u64::from_le_bytes(*start) as usize);
        let (from, to) = (offset(doc as usize), offset(doc as usize + 1));
        from.saturating_mul(unit)..to.saturating_mul(unit)
    }

    /// [`part`](Self::part), after a check of the blocks of the offsets and of the range in `section`.
    #[inline]
    fn checked_part(&self, starts: Section, section: Section, doc: u32, unit: usize) -> Result<Range<usize>, Defect> {
        self.check_part(starts, doc as usize * 8..doc as usize * 8 + 16)?;
        let part = self.part(starts, doc, unit);
        self.check_part(section, part.clone())?;
        Ok(part)
    }

    /// Number of documents, including deleted ones.
    pub fn n_docs(&self) -> u32 {
        self.header.n_docs
    }

    /// Number of postings, including those of deleted documents.
    pub fn n_postings(&self) -> u64 {
        self.header.n_postings
    }

    /// Size of the file in bytes, without tantivy's footer.
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Ids of the terms with postings, ascending.
    pub fn term_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.term_entries().iter().map(|entry| u32_at(entry, 0))
    }

    /// Number of windows.
    pub fn n_windows(&self) -> usize {
        (self.n_docs() as usize).div_ceil(WINDOW)
    }

    /// The entry and the postings of a term; `None` if no document has the term.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn term(&self, id: u32) -> Result<Option<(TermEntry, Postings<'_>)>, Defect> {
        let entries = self.term_entries();
        let Ok(at) = entries.binary_search_by_key(&id, |entry| u32_at(entry, 0)) else { return Ok(None) };
        let term = TermEntry::from_bytes(&entries[at])?;
        let Some(postings) = self.postings(&term) else { return Ok(None) };
        let (section, len) = match postings {
            Postings::Short { .. } => (Section::Postings, term.df as usize * 5),
            Postings::Windowed { .. } => (Section::Postings, term.df as usize * 3),
            Postings::Dense { impacts } => (Section::Dense, impacts.len()),
        };
        self.check_part(section, term.start as usize..term.start as usize + len)?;
        Ok(Some((term, postings)))
    }

    /// The postings of a term, without a check of their blocks; `None` if they are not inside their section.
    fn postings(&self, term: &TermEntry) -> Option<Postings<'_>> {
        let start = usize::try_from(term.start).ok()?;
        let df = term.df as usize;
        let lists = self.section(Section::Postings);
        Some(match term.kind {
            PostingsKind::Short => {
                let (docs, impacts) = lists.get(start..start.checked_add(df * 5)?)?.split_at(df * 4);
                Postings::Short { docs: docs.as_chunks().0, impacts }
            }
            PostingsKind::Windowed => {
                let (ids, impacts) = lists.get(start..start.checked_add(df * 3)?)?.split_at(df * 2);
                let first = term.windows as usize;
                let offsets = self.section(Section::Windows).as_chunks().0;
                let offsets = offsets.get(first..first.checked_add(self.n_windows() + 1)?)?;
                Postings::Windowed { ids: ids.as_chunks().0, impacts, offsets }
            }
            PostingsKind::Dense => {
                let dense = self.section(Section::Dense);
                Postings::Dense { impacts: dense.get(start..start.checked_add(self.n_docs() as usize)?)? }
            }
        })
    }

    /// The exact weights of a document; empty beyond the last document.
    ///
    /// # Errors
    /// Damaged weights.
    #[inline]
    pub fn row(&self, doc: u32) -> Result<Row<'_>, Defect> {
        let part = self.checked_part(Section::Starts, Section::Rows, doc, self.layout.entry_len())?;
        Ok(self.row_at(part))
    }

    #[inline]
    fn row_at(&self, part: Range<usize>) -> Row<'_> {
        self.layout.row(self.section(Section::Rows).get(part).unwrap_or_default())
    }

    /// The external id of a document; empty beyond the last document. It is UTF-8, unless a file without checksums is damaged.
    ///
    /// # Errors
    /// A damaged id.
    pub fn id(&self, doc: u32) -> Result<&[u8], Defect> {
        let part = self.checked_part(Section::IdStarts, Section::Ids, doc, 1)?;
        Ok(self.section(Section::Ids).get(part).unwrap_or_default())
    }

    /// The parts of a document for a new file. The file must have passed [`check_rows`](Self::check_rows).
    pub fn entry(&self, doc: u32) -> Entry<'_> {
        let id = self.section(Section::Ids).get(self.part(Section::IdStarts, doc, 1)).unwrap_or_default();
        Entry { id, row: self.row_at(self.part(Section::Starts, doc, self.layout.entry_len())) }
    }

    /// Checks that terms are ascending and in the vocabulary, and that their postings are inside the file.
    fn check_terms(&self) -> Result<(), Defect> {
        let mut below = 0;
        let mut postings = 0;
        for entry in self.term_entries() {
            let term = TermEntry::from_bytes(entry)?;
            let id = term.id;
            if id < below || id >= self.header.vocabulary_size {
                return Err(format!("term {id} is out of order or beyond the vocabulary"));
            }
            below = id + 1;
            postings += u64::from(term.df);
            if term.df == 0 || term.df > self.n_docs() {
                return Err(format!("term {id} claims {} of {} documents", term.df, self.n_docs()));
            }
            if !(term.step.is_finite() && term.step > 0.0 && term.error.is_finite() && term.error >= 0.0) {
                return Err(format!("term {id} has a step or an error that is no positive number"));
            }
            let lists = self.postings(&term).ok_or_else(|| format!("the postings of term {id} leave their section"))?;
            if let Postings::Windowed { offsets, .. } = lists {
                check_offsets(offsets, term.df).map_err(|defect| format!("term {id}: {defect}"))?;
            }
        }
        if postings != self.n_postings() {
            return Err(format!("its terms have {postings} postings, its header states {}", self.n_postings()));
        }
        Ok(())
    }

    fn check_all_starts(&self) -> Result<(), Defect> {
        self.check_starts(Section::Starts, Section::Rows, self.layout.entry_len())?;
        self.check_starts(Section::IdStarts, Section::Ids, 1)
    }

    /// Checks that the offsets in `starts`, counted in units of `unit` bytes, ascend from 0 to the end of `section`.
    fn check_starts(&self, starts: Section, section: Section, unit: usize) -> Result<(), Defect> {
        let starts: &[[u8; 8]] = self.section(starts).as_chunks().0;
        if starts.len() != self.n_docs() as usize + 1 {
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

    /// Checks every block and every value. This reads the whole file.
    ///
    /// # Errors
    /// The first defect found.
    pub fn check(&self) -> Result<(), Defect> {
        self.bytes.check(0..self.bytes.len())?;
        for entry in self.term_entries() {
            let term = TermEntry::from_bytes(entry)?;
            let postings = self.postings(&term).ok_or("postings leave their section")?;
            self.check_postings(postings, term.df).map_err(|defect| format!("term {}: {defect}", term.id))?;
        }
        self.check_rows()
    }

    /// Checks the forward section and the ids.
    ///
    /// # Errors
    /// The first defect found.
    pub fn check_rows(&self) -> Result<(), Defect> {
        self.check_all_starts()?;
        for doc in 0..self.n_docs() {
            self.check_row(doc).map_err(|defect| format!("document {doc}: {defect}"))?;
        }
        Ok(())
    }

    fn check_postings(&self, postings: Postings<'_>, df: u32) -> Result<(), Defect> {
        let n_docs = u64::from(self.n_docs());
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
        let id = self.id(doc)?;
        if id.is_empty() || std::str::from_utf8(id).is_err() {
            return Err("its id is empty or no UTF-8".into());
        }
        let mut below = 0;
        for (dim, weight) in self.row(doc)?.iter() {
            if dim < below || dim >= self.header.vocabulary_size {
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

/// Parses the table of sections. Each section must follow the one before, inside a file of `file_len` bytes.
fn read_sections(table: &[u8], file_len: usize) -> Result<[Range<usize>; SECTIONS], Defect> {
    let mut sections: [Range<usize>; SECTIONS] = Default::default();
    let mut end = HEADER_LEN as u64;
    for (at, section) in sections.iter_mut().enumerate() {
        let (offset, len) = (u64_at(table, at * 16), u64_at(table, at * 16 + 8));
        let next = offset.checked_add(len).filter(|next| *next <= file_len as u64);
        let (Some(next), true) = (next, offset >= end && offset.is_multiple_of(ALIGN as u64)) else {
            return Err(format!("section {at} is misplaced or leaves the file"));
        };
        *section = offset as usize..next as usize;
        end = next;
    }
    let lens = [(Section::Terms, TERM_LEN), (Section::Windows, 4), (Section::Starts, 8), (Section::IdStarts, 8)];
    match lens.into_iter().find(|(section, unit)| !sections[*section as usize].len().is_multiple_of(*unit)) {
        Some((section, _)) => Err(format!("section {} is truncated", section as usize)),
        None => Ok(sections),
    }
}

/// Checks that window offsets ascend from 0 to `df`.
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
