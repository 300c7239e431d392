//! The file `<segment>.spl`, version 1: what is where, and what must hold before anything is read.
//!
//! Little endian; every section starts at a multiple of 64 bytes; offsets count from the start of the file.
//!
//! | section | content |
//! |---|---|
//! | header | magic, version, flags, documents, vocabulary size, window bits, postings, fingerprint, section table |
//! | terms | one [`Term`] of 32 bytes for every term that occurs, ascending by id |
//! | windows | per windowed term: windows + 1 offsets (u32) into its postings |
//! | postings | windowed terms: ids inside the window (u16), then impacts (u8); short terms: document ids (u32), then impacts |
//! | dense | terms in more than a quarter of the documents: one impact a document, 0 = absent |
//! | starts | documents + 1 offsets (u64), counted in entries, into the rows |
//! | rows | per document: term ids ascending (u16 if the vocabulary allows, else u32), then weights (f32 or f16) |
//!
//! Starts and rows are the *forward* section: the only home of the exact weights, from which exact scores,
//! explanations and merges are made. Postings hold impacts: weights rounded to 1..=255 steps of the term.
//!
//! A term without a window table would need two bytes a posting less but the table four bytes a window, so terms with
//! up to twice as many postings as windows are *short* and keep whole document ids.

use std::ops::Range;

use half::f16;
use tantivy::directory::OwnedBytes;

use super::settings::ForwardPrecision;

/// log2 of the documents of a window.
pub(crate) const WINDOW_BITS: u32 = 13;
/// Documents of a window: their u32 accumulators take 32 KB and stay in the first-level cache (measured best).
pub(crate) const WINDOW: usize = 1 << WINDOW_BITS;
/// What a segment file begins with.
const MAGIC: [u8; 8] = *b"SPLADEix";
/// The version written and read.
const VERSION: u32 = 1;
/// Sections start at multiples of this.
const ALIGN: usize = 64;
/// Bytes of the header.
const HEADER_LEN: usize = 192;
/// Bytes of a term's entry.
const TERM_LEN: usize = 32;
/// Where the section table lies in the header.
const SECTION_TABLE: usize = 72;
/// Flag: forward ids are u32 instead of u16.
const WIDE_IDS: u32 = 1;
/// Flag: forward weights are f16 instead of f32.
const HALF_WEIGHTS: u32 = 2;

/// The k for which the k-th largest impact of a term is kept.
pub(crate) const SEED_DEPTHS: [usize; 2] = [10, 100];

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
}
const SECTIONS: usize = 6;

/// What is wrong with a file, in one clause.
pub(crate) type Defect = String;

/// How a forward row is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLayout {
    wide: bool,
    precision: ForwardPrecision,
}

impl RowLayout {
    /// The layout for a vocabulary and a precision.
    pub(crate) fn new(vocabulary_size: u32, precision: ForwardPrecision) -> Self {
        Self { wide: vocabulary_size > 1 << 16, precision }
    }

    fn id_len(self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    /// Bytes of one entry, id and weight.
    pub(crate) fn entry_len(self) -> usize {
        self.id_len()
            + match self.precision {
                ForwardPrecision::F32 => 4,
                ForwardPrecision::F16 => 2,
            }
    }

    fn flags(self) -> u32 {
        let half = if self.precision == ForwardPrecision::F16 { HALF_WEIGHTS } else { 0 };
        half | if self.wide { WIDE_IDS } else { 0 }
    }

    /// Appends a row to `rows`; ids must ascend.
    pub(crate) fn encode(self, dims: &[u32], weights: &[f32], rows: &mut Vec<u8>) {
        for &dim in dims {
            match self.wide {
                true => rows.extend_from_slice(&dim.to_le_bytes()),
                false => rows.extend_from_slice(&(dim as u16).to_le_bytes()),
            }
        }
        for &weight in weights {
            match self.precision {
                ForwardPrecision::F32 => rows.extend_from_slice(&weight.to_le_bytes()),
                ForwardPrecision::F16 => rows.extend_from_slice(&f16::from_f32(weight).to_le_bytes()),
            }
        }
    }

    /// The row in `bytes`, whose length is a multiple of [`entry_len`](Self::entry_len).
    pub(crate) fn row(self, bytes: &[u8]) -> Row<'_> {
        let (dims, weights) = bytes.split_at(bytes.len() / self.entry_len() * self.id_len());
        Row { dims, weights, layout: self }
    }
}

/// A document's exact weights, as they lie in the file.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    dims: &'a [u8],
    weights: &'a [u8],
    layout: RowLayout,
}

impl Row<'_> {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.dims.len() / self.layout.id_len()
    }

    /// The bytes of the row, ids first.
    fn bytes(&self) -> [&[u8]; 2] {
        [self.dims, self.weights]
    }

    /// The id of an entry; 0 beyond the end.
    #[inline]
    fn dim(&self, at: usize) -> u32 {
        match self.layout.wide {
            true => self.dims.as_chunks().0.get(at).map_or(0, |id| u32::from_le_bytes(*id)),
            false => self.dims.as_chunks().0.get(at).map_or(0, |id| u32::from(u16::from_le_bytes(*id))),
        }
    }

    /// The weight of an entry; 0 beyond the end.
    #[inline]
    fn weight(&self, at: usize) -> f32 {
        match self.layout.precision {
            ForwardPrecision::F32 => self.weights.as_chunks().0.get(at).map_or(0.0, |w| f32::from_le_bytes(*w)),
            ForwardPrecision::F16 => {
                self.weights.as_chunks().0.get(at).map_or(0.0, |w| f16::from_le_bytes(*w).to_f32())
            }
        }
    }

    /// Id and weight, by ascending id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        (0..self.len()).map(|at| (self.dim(at), self.weight(at)))
    }

    /// Calls `shared` with query weight and document weight of every common term, by ascending term: the order of
    /// [`SparseVector::dot`](crate::SparseVector::dot), whose sum this makes bit for bit.
    #[inline]
    pub(crate) fn meet(&self, query: &[(u32, f32)], mut shared: impl FnMut(u32, f32, f32)) {
        let mut from = 0;
        for &(term, query_weight) in query {
            from += self.skip_below(from, term);
            if from < self.len() && self.dim(from) == term {
                shared(term, query_weight, self.weight(from));
                from += 1;
            }
        }
    }

    /// How many entries from `from` on have an id below `term`.
    #[inline]
    fn skip_below(&self, from: usize, term: u32) -> usize {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.dim(middle) < term {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low - from
    }

    /// The dot product with `query`, whose ids ascend.
    #[inline]
    pub(crate) fn dot(&self, query: &[(u32, f32)]) -> f32 {
        let mut sum = 0.0;
        self.meet(query, |_, query_weight, weight| sum += query_weight * weight);
        sum
    }
}

/// How a term's postings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// whole document ids
    Short = 1,
    /// ids inside the window, and a table of windows
    Windowed = 2,
    /// one impact a document
    Dense = 3,
}

/// A term's entry in the terms section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    /// its id in the vocabulary
    id: u32,
    /// number of documents that have it
    df: u32,
    /// weight of one unit of impact: the largest weight / 255
    pub(crate) step: f32,
    /// the largest |weight - impact * step| over its postings, rounded up
    pub(crate) error: f32,
    /// first byte in the postings section, or in the dense section
    start: u64,
    /// first entry in the windows section
    windows: u32,
    kind: Kind,
    /// the k-th largest impact for the k of [`SEED_DEPTHS`], 0 where there are fewer postings
    pub(crate) seeds: [u8; 2],
}

impl Term {
    fn to_bytes(self) -> [u8; TERM_LEN] {
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
pub(crate) enum Postings<'a> {
    /// Document ids and impacts.
    Short { docs: &'a [[u8; 4]], impacts: &'a [u8] },
    /// Ids inside the window and impacts; `offsets` tells where each window begins, and the end.
    Windowed { ids: &'a [[u8; 2]], impacts: &'a [u8], offsets: &'a [[u8; 4]] },
    /// One impact a document.
    Dense { impacts: &'a [u8] },
}

/// What a file must have been written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// number of terms there can be
    pub(crate) vocabulary_size: u32,
    /// of model and tokenizer
    pub(crate) fingerprint: [u8; 32],
    /// of the rows
    pub(crate) layout: RowLayout,
}

/// An opened segment file. Opening checks header and tables, so that no later read can leave the file; the long
/// sections are checked by [`check`](Self::check) alone.
pub(crate) struct SegmentFile {
    bytes: OwnedBytes,
    sections: [Range<usize>; SECTIONS],
    n_docs: u32,
    n_postings: u64,
    layout: RowLayout,
    vocabulary_size: u32,
}

impl SegmentFile {
    /// Opens and checks `bytes`, which must hold `n_docs` documents of `identity`.
    pub(crate) fn open(bytes: OwnedBytes, identity: &Identity, n_docs: u32) -> Result<Self, Defect> {
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
        file.check_starts()?;
        Ok(file)
    }

    fn section(&self, section: Section) -> &[u8] {
        &self.bytes[self.sections[section as usize].clone()]
    }

    fn term_entries(&self) -> &[[u8; TERM_LEN]] {
        self.section(Section::Terms).as_chunks().0
    }

    fn starts(&self) -> &[[u8; 8]] {
        self.section(Section::Starts).as_chunks().0
    }

    /// Number of documents, deleted ones included.
    pub(crate) fn n_docs(&self) -> u32 {
        self.n_docs
    }

    /// Number of postings, those of deleted documents included.
    pub(crate) fn n_postings(&self) -> u64 {
        self.n_postings
    }

    /// Size of the file, without tantivy's footer.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Ids of the terms that occur, ascending.
    pub(crate) fn term_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.term_entries().iter().map(|entry| u32_at(entry, 0))
    }

    /// Number of windows.
    pub(crate) fn n_windows(&self) -> usize {
        (self.n_docs as usize).div_ceil(WINDOW)
    }

    /// A term and its postings, `None` if no document has it.
    pub(crate) fn term(&self, id: u32) -> Option<(Term, Postings<'_>)> {
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
    pub(crate) fn row(&self, doc: u32) -> Row<'_> {
        let starts = self.starts();
        let entry = |at: usize| starts.get(at).map_or(0, |start| u64::from_le_bytes(*start) as usize);
        let (from, to) = (entry(doc as usize), entry(doc as usize + 1));
        let entry_len = self.layout.entry_len();
        let rows = self.section(Section::Rows);
        self.layout.row(rows.get(from.saturating_mul(entry_len)..to.saturating_mul(entry_len)).unwrap_or_default())
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

    /// Row starts ascend and end where the rows end.
    fn check_starts(&self) -> Result<(), Defect> {
        let starts = self.starts();
        if starts.len() != self.n_docs as usize + 1 {
            return Err("the forward section has another number of documents".into());
        }
        let at = |at: usize| u64::from_le_bytes(starts[at]);
        let ascending = (1..starts.len()).all(|doc| at(doc - 1) <= at(doc));
        let end = at(starts.len() - 1);
        let rows_len = self.section(Section::Rows).len() as u64;
        let entry_len = self.layout.entry_len() as u64;
        if at(0) != 0 || !ascending || end.checked_mul(entry_len) != Some(rows_len) || end != self.n_postings {
            return Err("the offsets of the forward section do not fit its rows".into());
        }
        Ok(())
    }

    /// Reads every section and checks every value: what opening leaves out because it takes as long as reading the
    /// file.
    pub(crate) fn check(&self) -> Result<(), Defect> {
        for entry in self.term_entries() {
            let term = Term::from_bytes(entry)?;
            let postings = self.postings(&term).ok_or("postings leave their section")?;
            self.check_postings(postings, term.df).map_err(|defect| format!("term {}: {defect}", term.id))?;
        }
        self.check_rows()
    }

    /// Reads and checks the forward section alone: before anything is built from it.
    pub(crate) fn check_rows(&self) -> Result<(), Defect> {
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
    let lens = [(Section::Terms, TERM_LEN), (Section::Windows, 4), (Section::Starts, 8)];
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

/// Writes the file of a segment whose documents have `rows`, in their order. The rows are walked several times, so
/// that no more than the postings is held in memory.
pub(crate) fn write_segment<'a>(
    out: &mut impl std::io::Write,
    identity: &Identity,
    rows: impl Iterator<Item = Row<'a>> + Clone,
) -> std::io::Result<()> {
    let inverted = Inverted::build(identity.vocabulary_size, rows.clone());
    let mut starts = Vec::with_capacity((inverted.n_docs as usize + 1) * 8);
    let mut n_postings = 0_u64;
    starts.extend_from_slice(&n_postings.to_le_bytes());
    for row in rows.clone() {
        n_postings += row.len() as u64;
        starts.extend_from_slice(&n_postings.to_le_bytes());
    }
    let terms: Vec<u8> = inverted.terms.iter().flat_map(|term| term.to_bytes()).collect();
    let windows: Vec<u8> = inverted.windows.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let rows_len = n_postings as usize * identity.layout.entry_len();

    let lens = [terms.len(), windows.len(), inverted.postings.len(), inverted.dense.len(), starts.len(), rows_len];
    out.write_all(&header(identity, inverted.n_docs, n_postings, lens))?;
    for section in [&terms, &windows, &inverted.postings, &inverted.dense, &starts] {
        out.write_all(section)?;
        out.write_all(&[0; ALIGN][..padding(section.len())])?;
    }
    for row in rows {
        for part in row.bytes() {
            out.write_all(part)?;
        }
    }
    Ok(())
}

/// Zeros that follow `len` bytes up to the next section.
fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGN) - len
}

fn header(identity: &Identity, n_docs: u32, n_postings: u64, lens: [usize; SECTIONS]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    let words = [VERSION, identity.layout.flags(), n_docs, identity.vocabulary_size, WINDOW_BITS];
    for (at, word) in words.into_iter().enumerate() {
        header[8 + at * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    header[28..36].copy_from_slice(&n_postings.to_le_bytes());
    header[40..72].copy_from_slice(&identity.fingerprint);
    let mut offset = HEADER_LEN;
    for (at, len) in lens.into_iter().enumerate() {
        header[SECTION_TABLE + at * 16..][..8].copy_from_slice(&(offset as u64).to_le_bytes());
        header[SECTION_TABLE + at * 16 + 8..][..8].copy_from_slice(&(len as u64).to_le_bytes());
        offset += len + padding(len);
    }
    header
}

/// Postings of all terms, made from forward rows.
struct Inverted {
    n_docs: u32,
    terms: Vec<Term>,
    windows: Vec<u32>,
    postings: Vec<u8>,
    dense: Vec<u8>,
}

impl Inverted {
    fn build<'a>(vocabulary_size: u32, rows: impl Iterator<Item = Row<'a>> + Clone) -> Self {
        let mut counts = vec![0_u32; vocabulary_size as usize];
        let mut largest = vec![0_f32; vocabulary_size as usize];
        let mut n_docs = 0;
        for row in rows.clone() {
            n_docs += 1;
            for (dim, weight) in row.iter() {
                counts[dim as usize] += 1;
                largest[dim as usize] = largest[dim as usize].max(weight);
            }
        }
        let mut inverted =
            Self { n_docs, terms: Vec::new(), windows: Vec::new(), postings: Vec::new(), dense: Vec::new() };
        // from a vocabulary id to its place in `terms`; `u32::MAX` where no document has the term
        let mut places = vec![u32::MAX; vocabulary_size as usize];
        for (id, (&df, &weight)) in (0..).zip(counts.iter().zip(&largest)) {
            if df > 0 {
                places[id as usize] = inverted.terms.len() as u32;
                inverted.reserve(id, df, weight);
            }
        }
        inverted.fill(&places, rows);
        inverted.finish();
        inverted
    }

    /// Makes room for the postings of a term.
    fn reserve(&mut self, id: u32, df: u32, largest: f32) {
        let n_windows = (self.n_docs as usize).div_ceil(WINDOW);
        let (kind, start) = if u64::from(df) * 4 > u64::from(self.n_docs) {
            self.dense.resize(self.dense.len() + self.n_docs as usize, 0);
            (Kind::Dense, self.dense.len() - self.n_docs as usize)
        } else if df as usize <= 2 * (n_windows + 1) {
            self.postings.resize(self.postings.len() + df as usize * 5, 0);
            (Kind::Short, self.postings.len() - df as usize * 5)
        } else {
            self.postings.resize(self.postings.len() + df as usize * 3, 0);
            (Kind::Windowed, self.postings.len() - df as usize * 3)
        };
        let windows = self.windows.len() as u32;
        if kind == Kind::Windowed {
            self.windows.resize(self.windows.len() + n_windows + 1, 0);
        }
        // a largest weight near the smallest float would make a step of zero
        let step = (largest / 255.0).max(f32::MIN_POSITIVE);
        self.terms.push(Term { id, df, step, error: 0.0, start: start as u64, windows, kind, seeds: [0; 2] });
    }

    /// Writes every posting to its place, documents ascending.
    fn fill<'a>(&mut self, places: &[u32], rows: impl Iterator<Item = Row<'a>>) {
        let mut filled = vec![0_usize; self.terms.len()];
        for (doc, row) in (0_u32..).zip(rows) {
            for (dim, weight) in row.iter() {
                let place = places[dim as usize] as usize;
                let term = &mut self.terms[place];
                let impact = (weight / term.step).round().clamp(1.0, 255.0) as u8;
                let error = (f64::from(weight) - f64::from(impact) * f64::from(term.step)).abs();
                term.error = term.error.max((error as f32).next_up());
                let (start, df) = (term.start as usize, term.df as usize);
                let at = filled[place];
                filled[place] += 1;
                match term.kind {
                    Kind::Short => {
                        self.postings[start + at * 4..][..4].copy_from_slice(&doc.to_le_bytes());
                        self.postings[start + df * 4 + at] = impact;
                    }
                    Kind::Windowed => {
                        let id = (doc as usize % WINDOW) as u16;
                        self.postings[start + at * 2..][..2].copy_from_slice(&id.to_le_bytes());
                        self.postings[start + df * 2 + at] = impact;
                        self.windows[term.windows as usize + doc as usize / WINDOW + 1] += 1;
                    }
                    Kind::Dense => self.dense[start + doc as usize] = impact,
                }
            }
        }
    }

    /// Turns counts of windows into offsets and finds the k-th largest impacts.
    fn finish(&mut self) {
        let n_windows = (self.n_docs as usize).div_ceil(WINDOW);
        for term in &mut self.terms {
            let (start, df) = (term.start as usize, term.df as usize);
            let impacts = match term.kind {
                Kind::Short => &self.postings[start + df * 4..][..df],
                Kind::Windowed => {
                    let offsets = &mut self.windows[term.windows as usize..][..=n_windows];
                    for at in 1..offsets.len() {
                        offsets[at] += offsets[at - 1];
                    }
                    &self.postings[start + df * 2..][..df]
                }
                Kind::Dense => &self.dense[start..][..self.n_docs as usize],
            };
            term.seeds = SEED_DEPTHS.map(|k| kth_largest(impacts, k));
        }
    }
}

/// The `k`-th largest of `impacts`, 0 if there are fewer.
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
