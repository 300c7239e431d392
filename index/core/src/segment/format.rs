//! [`SegmentFile`]: reads `<segment>.spl`, versions 1 and 2.
//!
//! Numbers are little endian. Every section starts at a multiple of 64 bytes. Offsets count from the start of the file.
//!
//! Version 2, which is written:
//!
//! | section | content |
//! |---|---|
//! | start | magic and version |
//! | postings | the list of every term, ascending by id (see below) |
//! | terms | an entry of 32 bytes for every term that occurs, ascending by id |
//! | id starts | documents + 1 offsets (u64) into the ids |
//! | ids | the external ids, UTF-8, in the order of the documents |
//! | header | 256 bytes: magic, version, flags, documents, vocabulary size, window bits, postings, fingerprint, sections |
//!
//! | list of a term | content |
//! |---|---|
//! | short | ids of documents (u32), impacts (u8) |
//! | windowed | windows + 1 offsets (u32) of the postings of each window, ids inside the window (u16), impacts (u8) |
//! | dense: a term in more than a quarter of the documents | one impact per document, 0 = absent; number of postings before each block of 128 documents (u32) |
//! | after each of them | remainders (24 bits; 16 bits of f16 weights; none of 8-bit weights), positions (u32) and weights (f32) of the exceptions |
//!
//! An impact is a weight rounded to 1..=255 steps of its term. Impact and *remainder* give back the exact weight, which exact
//! scores, explanations and merges use. A search reads 3 bytes per posting, and remainders only of its candidates.
//!
//! Ids inside a window save two bytes per posting and need a table of four bytes per window. A term with up to twice as many
//! postings as windows is therefore short and has whole document ids.
//!
//! There is no list of the terms of a document. [`SegmentFile::vector`] looks for the document in the list of every term.
//!
//! External ids are in this file and not in a tantivy column, since tantivy's dictionary took 14 µs per id: for ten hits
//! several times as long as the search.
//!
//! Version 1 has the header at the start, windows of 8192 documents, window offsets and dense lists in sections of their own, no
//! remainders, and a forward section: *starts* (documents + 1 offsets, counted in entries) and *rows* (per document: term ids
//! ascending, u16 if the vocabulary allows, else u32; then weights, f32 or f16).

use std::ops::Range;

use super::checksum::CheckedBytes;
pub use super::header::Identity;
use super::header::{Header, Section, Version, u32_at};
use super::remainder::{Remainders, remainder_len};
use super::row::{Row, RowLayout};
use super::term::{COUNT_BLOCK, Postings, PostingsKind, TERM_LEN, TermEntry, TermList, check_offsets, window_range};

/// Description of a damaged or invalid part of a file, in one clause.
pub type Defect = String;

/// An opened segment file.
///
/// Opening checks the header and the table of terms. If the file has checksums, the blocks of the other sections are checked
/// when they are read. In a file without checksums, opening checks all offsets, so that every read stays inside its section.
/// Only [`check`](Self::check) checks the values of its long sections.
pub struct SegmentFile {
    pub(super) bytes: CheckedBytes,
    pub(super) header: Header,
    pub(super) layout: RowLayout,
}

impl SegmentFile {
    /// Opens a file of `n_docs` documents of `identity`.
    pub fn open(bytes: CheckedBytes, identity: &Identity, n_docs: u32) -> Result<Self, Defect> {
        let header = Header::read(&bytes)?;
        header.expect(identity, n_docs)?;
        let file = Self { bytes, header, layout: identity.layout };
        for section in [Section::Terms, Section::Windows] {
            file.bytes.check(file.header.section(section))?;
        }
        file.check_terms()?;
        if !file.bytes.has_checksums() {
            file.check_all_starts()?;
        }
        Ok(file)
    }

    /// True if the file has exact weights in rows, and not beside the postings.
    pub(super) fn has_rows(&self) -> bool {
        self.header.version == Version::One
    }

    /// The bytes of a section, without a check.
    pub(super) fn section(&self, section: Section) -> &[u8] {
        &self.bytes.as_unchecked()[self.header.section(section)]
    }

    /// Checks the blocks of a part of a section.
    fn check_part(&self, section: Section, part: Range<usize>) -> Result<(), Defect> {
        let start = self.header.section(section).start;
        self.bytes.check(start.saturating_add(part.start)..start.saturating_add(part.end))
    }

    pub(super) fn term_entries(&self) -> &[[u8; TERM_LEN]] {
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

    /// Number of documents in a window.
    pub(super) fn window_len(&self) -> usize {
        1 << self.header.version.window_bits()
    }

    /// Number of windows.
    pub(super) fn n_windows(&self) -> usize {
        (self.n_docs() as usize).div_ceil(self.window_len())
    }

    /// Number of documents with a term, including deleted ones.
    pub fn df(&self, term: u32) -> u32 {
        self.position(term).map_or(0, |position| u32_at(&self.term_entries()[position], 4))
    }

    /// Position of a term in the table; `None` if no document has the term.
    pub(super) fn position(&self, term: u32) -> Option<usize> {
        self.term_entries().binary_search_by_key(&term, |entry| u32_at(entry, 0)).ok()
    }

    /// The postings of a term; `None` if no document has the term. Remainders are not checked.
    ///
    /// # Errors
    /// Damaged postings.
    pub(super) fn term(&self, term: u32) -> Result<Option<TermList<'_>>, Defect> {
        let Some(position) = self.position(term) else { return Ok(None) };
        let list = self.list(position)?;
        for part in self.parts(&list) {
            self.bytes.check(part)?;
        }
        if let Postings::Windowed { offsets, .. } = list.postings {
            check_offsets(offsets, list.entry.df).map_err(|defect| format!("term {term}: {defect}"))?;
        }
        Ok(Some(list))
    }

    /// The postings at a position of the table, without a check of their blocks.
    pub(super) fn list(&self, position: usize) -> Result<TermList<'_>, Defect> {
        let entry = self.term_entries().get(position).ok_or("a term beyond the table")?;
        let entry = TermEntry::from_bytes(entry)?;
        let list = if self.has_rows() { self.list_of_version_1(entry) } else { self.list_of_version_2(entry) };
        list.ok_or_else(|| format!("the postings of term {} leave their section", entry.id))
    }

    fn list_of_version_1(&self, entry: TermEntry) -> Option<TermList<'_>> {
        let start = usize::try_from(entry.start).ok()?;
        let df = entry.df as usize;
        let lists = self.section(Section::Postings);
        let postings = match entry.kind {
            PostingsKind::Short => {
                let (docs, impacts) = lists.get(start..start.checked_add(df.checked_mul(5)?)?)?.split_at(df * 4);
                Postings::Short { docs: docs.as_chunks().0, impacts }
            }
            PostingsKind::Windowed => {
                let (ids, impacts) = lists.get(start..start.checked_add(df.checked_mul(3)?)?)?.split_at(df * 2);
                let first = entry.extra as usize;
                let offsets = self.section(Section::Windows).as_chunks().0;
                let offsets = offsets.get(first..first.checked_add(self.n_windows() + 1)?)?;
                Postings::Windowed { ids: ids.as_chunks().0, impacts, offsets }
            }
            PostingsKind::Dense => {
                let dense = self.section(Section::Dense);
                let impacts = dense.get(start..start.checked_add(self.n_docs() as usize)?)?;
                Postings::Dense { impacts, counts: &[] }
            }
        };
        Some(TermList { entry, postings, remainders: None, window_bits: self.header.version.window_bits() })
    }

    fn list_of_version_2(&self, entry: TermEntry) -> Option<TermList<'_>> {
        let section = self.section(Section::Postings);
        let mut rest = section.get(usize::try_from(entry.start).ok()?..)?;
        let mut take = |n: usize, len: usize| {
            let (part, after) = rest.split_at_checked(n.checked_mul(len)?)?;
            rest = after;
            Some(part)
        };
        let (df, n_docs) = (entry.df as usize, self.n_docs() as usize);
        let postings = match entry.kind {
            PostingsKind::Short => Postings::Short { docs: take(df, 4)?.as_chunks().0, impacts: take(df, 1)? },
            PostingsKind::Windowed => {
                let offsets = take(self.n_windows() + 1, 4)?.as_chunks().0;
                Postings::Windowed { offsets, ids: take(df, 2)?.as_chunks().0, impacts: take(df, 1)? }
            }
            PostingsKind::Dense => Postings::Dense {
                impacts: take(n_docs, 1)?,
                counts: take(n_docs.div_ceil(COUNT_BLOCK), 4)?.as_chunks().0,
            },
        };
        let precision = self.layout.precision();
        let bytes = take(df, remainder_len(precision))?;
        let positions = take(entry.extra as usize, 4)?.as_chunks().0;
        let values = take(entry.extra as usize, 4)?.as_chunks().0;
        let start = self.place_of(bytes).start;
        let remainders = Remainders { precision, step: entry.step, start, bytes, positions, values };
        Some(TermList { entry, postings, remainders: Some(remainders), window_bits: self.header.version.window_bits() })
    }

    /// Place in the file of a part of it.
    fn place_of(&self, part: &[u8]) -> Range<usize> {
        let start = part.as_ptr().addr().wrapping_sub(self.bytes.as_unchecked().as_ptr().addr());
        start..start.saturating_add(part.len())
    }

    /// Places in the file of the parts of a list, without the remainders.
    fn parts(&self, list: &TermList<'_>) -> Vec<Range<usize>> {
        let mut parts = match list.postings {
            Postings::Short { docs, impacts } => vec![docs.as_flattened(), impacts],
            Postings::Windowed { ids, impacts, offsets } => vec![offsets.as_flattened(), ids.as_flattened(), impacts],
            Postings::Dense { impacts, counts } => vec![impacts, counts.as_flattened()],
        };
        if let Some(Remainders { positions, values, .. }) = list.remainders {
            parts.extend([positions.as_flattened(), values.as_flattened()]);
        }
        parts.into_iter().filter(|part| !part.is_empty()).map(|part| self.place_of(part)).collect()
    }

    /// Checks the blocks of the parts of a list in which [`TermList::find`] looks for `doc`.
    pub(super) fn check_near(&self, list: &TermList<'_>, doc: u32) -> Result<(), Defect> {
        match list.postings {
            Postings::Short { .. } => {
                return self.parts(list).into_iter().try_for_each(|part| self.bytes.check(part));
            }
            Postings::Windowed { ids, impacts, offsets } => {
                self.bytes.check(self.place_of(offsets.as_flattened()))?;
                check_offsets(offsets, list.entry.df)?;
                let range = window_range(offsets, (doc >> list.window_bits) as usize);
                for part in [ids.get(range.clone()).map(<[_]>::as_flattened), impacts.get(range)].into_iter().flatten()
                {
                    self.bytes.check(self.place_of(part))?;
                }
            }
            Postings::Dense { impacts, counts } => {
                let block = doc as usize / COUNT_BLOCK;
                let from = (block * COUNT_BLOCK).min(impacts.len());
                let block_impacts = &impacts[from..impacts.len().min(from + COUNT_BLOCK)];
                self.bytes.check(self.place_of(block_impacts))?;
                if let Some(count) = counts.get(block) {
                    self.bytes.check(self.place_of(count))?;
                }
            }
        }
        if let Some(Remainders { positions, values, .. }) = list.remainders {
            for part in [positions.as_flattened(), values.as_flattened()] {
                self.bytes.check(self.place_of(part))?;
            }
        }
        Ok(())
    }

    /// The exact weights of a document of version 1; empty beyond the last document.
    ///
    /// # Errors
    /// Damaged weights.
    #[inline]
    pub(super) fn row(&self, doc: u32) -> Result<Row<'_>, Defect> {
        let part = self.checked_part(Section::Starts, Section::Rows, doc, self.layout.entry_len())?;
        Ok(self.layout.row(self.section(Section::Rows).get(part).unwrap_or_default()))
    }

    /// The external id of a document; empty beyond the last document. It is UTF-8, unless a file without checksums is damaged.
    ///
    /// # Errors
    /// A damaged id.
    pub fn id(&self, doc: u32) -> Result<&[u8], Defect> {
        let part = self.checked_part(Section::IdStarts, Section::Ids, doc, 1)?;
        Ok(self.section(Section::Ids).get(part).unwrap_or_default())
    }

    /// Reads the whole file and checks all blocks, so that later searches neither wait for the disk nor check anything.
    ///
    /// # Errors
    /// The first damaged block.
    pub fn warm(&self) -> Result<(), Defect> {
        if self.bytes.has_checksums() {
            return self.bytes.check(0..self.bytes.len());
        }
        // one byte per page is enough to read it
        std::hint::black_box(self.bytes.as_unchecked().iter().step_by(4096).fold(0, |all, byte| all ^ byte));
        Ok(())
    }
}
