//! [`Header`]: 256 bytes that say what a segment file is for and where its sections lie.
//!
//! Version 1 begins with its header. Version 2 begins with magic and version alone and ends with its header, so that it can be
//! written from the start to the end without knowing the lengths of its sections before.

use std::ops::Range;

use super::checksum::CheckedBytes;
use super::format::Defect;
use super::row::RowLayout;

/// First bytes of a segment file, and of its header.
const MAGIC: [u8; 8] = *b"SPLADEix";
/// Alignment of the sections in bytes.
pub(super) const ALIGN: usize = 64;
/// Number of bytes of the header.
pub(super) const HEADER_LEN: usize = 256;
/// Number of bytes before the first section of a file of version 2.
pub(super) const START_LEN: usize = ALIGN;

/// Binary logarithm of [`WINDOW`].
pub const WINDOW_BITS: u32 = 14;
/// Number of documents in a window. Their u16 accumulators take 32 KB, which fit in the first-level cache (the fastest size
/// measured).
pub const WINDOW: usize = 1 << WINDOW_BITS;

/// Versions of the format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// exact weights in a row per document
    One = 1,
    /// exact weights beside the postings; the version that is written
    Two = 2,
}

impl Version {
    /// Sections, in the order of the file.
    fn sections(self) -> &'static [Section] {
        use Section::{Dense, IdStarts, Ids, Postings, Rows, Starts, Terms, Windows};
        match self {
            Self::One => &[Terms, Windows, Postings, Dense, Starts, Rows, IdStarts, Ids],
            Self::Two => &[Postings, Terms, IdStarts, Ids],
        }
    }

    /// Binary logarithm of the number of documents in a window.
    pub(super) fn window_bits(self) -> u32 {
        match self {
            Self::One => 13,
            Self::Two => WINDOW_BITS,
        }
    }
}

/// Sections of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Section {
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

impl Section {
    /// Number of bytes of an item of a section of tables; 1 for others.
    fn item_len(self) -> usize {
        match self {
            Self::Terms => super::term::TERM_LEN,
            Self::Windows => 4,
            Self::Starts | Self::IdStarts => 8,
            Self::Postings | Self::Dense | Self::Rows | Self::Ids => 1,
        }
    }
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
/// | 72..200 | per section of the version: offset and length (u64 each) |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: Version,
    flags: u32,
    pub(super) n_docs: u32,
    pub(super) vocabulary_size: u32,
    pub(super) n_postings: u64,
    fingerprint: [u8; 32],
    /// range in the file of each [`Section`]; empty if the version has no such section
    sections: [Range<usize>; SECTIONS],
}

impl Header {
    /// The header of a file of version 2 without sections.
    pub(super) fn new(identity: &Identity, n_docs: u32) -> Self {
        Self {
            version: Version::Two,
            flags: identity.layout.flags(),
            n_docs,
            vocabulary_size: identity.vocabulary_size,
            n_postings: 0,
            fingerprint: identity.fingerprint,
            sections: Default::default(),
        }
    }

    /// First bytes of a file of version 2.
    pub(super) fn start_bytes() -> [u8; START_LEN] {
        let mut bytes = [0; START_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&(Version::Two as u32).to_le_bytes());
        bytes
    }

    pub(super) fn set_section(&mut self, section: Section, place: Range<usize>) {
        self.sections[section as usize] = place;
    }

    /// The range of a section in the file.
    pub(super) fn section(&self, section: Section) -> Range<usize> {
        self.sections[section as usize].clone()
    }

    /// Bytes of the header in the file.
    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [self.version as u32, self.flags, self.n_docs, self.vocabulary_size, self.version.window_bits()];
        for (place, number) in bytes[8..28].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[28..36].copy_from_slice(&self.n_postings.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.fingerprint);
        for (place, section) in bytes[72..].chunks_exact_mut(16).zip(self.version.sections()) {
            let section = self.section(*section);
            place[..8].copy_from_slice(&(section.start as u64).to_le_bytes());
            place[8..].copy_from_slice(&(section.len() as u64).to_le_bytes());
        }
        bytes
    }

    /// Reads the header of a file, and checks that every section is inside the file.
    pub(super) fn read(file: &CheckedBytes) -> Result<Self, Defect> {
        let len = file.len();
        let version = read_version(file.get(0..len.min(12))?)?;
        let place = match version {
            Version::One => 0..len.min(HEADER_LEN),
            Version::Two => len.saturating_sub(HEADER_LEN)..len,
        };
        let bytes: &[u8; HEADER_LEN] = file.get(place)?.first_chunk().ok_or("too short for a header")?;
        if bytes[..8] != MAGIC || u32_at(bytes, 8) != version as u32 {
            return Err("truncated: it does not end with its header".into());
        }
        if u32_at(bytes, 24) != version.window_bits() {
            return Err(format!("window bits {}, expected {}", u32_at(bytes, 24), version.window_bits()));
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&bytes[40..72]);
        Ok(Self {
            version,
            flags: u32_at(bytes, 12),
            n_docs: u32_at(bytes, 16),
            vocabulary_size: u32_at(bytes, 20),
            n_postings: u64_at(bytes, 28),
            fingerprint,
            sections: read_sections(&bytes[72..], version, len)?,
        })
    }

    /// Checks that the header is for `n_docs` documents of `identity`.
    pub(super) fn expect(&self, identity: &Identity, n_docs: u32) -> Result<(), Defect> {
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

/// The version of a file that begins with `start`.
fn read_version(start: &[u8]) -> Result<Version, Defect> {
    if start.len() < 12 {
        return Err("too short for a header".into());
    }
    if start[..8] != MAGIC {
        return Err("not a splade segment file (wrong magic)".into());
    }
    match u32_at(start, 8) {
        1 => Ok(Version::One),
        2 => Ok(Version::Two),
        other => Err(format!("version {other} of the segment format, this program reads versions 1 and 2")),
    }
}

/// Parses the table of sections. Each section must follow the one before, inside a file of `file_len` bytes.
fn read_sections(table: &[u8], version: Version, file_len: usize) -> Result<[Range<usize>; SECTIONS], Defect> {
    let mut sections: [Range<usize>; SECTIONS] = Default::default();
    let mut end = START_LEN as u64;
    for (at, &section) in version.sections().iter().enumerate() {
        let (offset, len) = (u64_at(table, at * 16), u64_at(table, at * 16 + 8));
        let next = offset.checked_add(len).filter(|next| *next <= file_len as u64);
        let (Some(next), true) = (next, offset >= end && offset.is_multiple_of(ALIGN as u64)) else {
            return Err(format!("section {at} is misplaced or leaves the file"));
        };
        if !len.is_multiple_of(section.item_len() as u64) {
            return Err(format!("section {at} is truncated"));
        }
        sections[section as usize] = offset as usize..next as usize;
        end = next;
    }
    Ok(sections)
}

/// Number of zeros after a section of `len` bytes.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGN) - len
}

/// The number at `at`; 0 beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The number at `at`; 0 beyond the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
