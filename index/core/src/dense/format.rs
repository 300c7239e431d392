//! [`DenseFile`]: reads `<segment>.dns`, version 1.
//!
//! Numbers are little endian. Every section starts at a multiple of 64 bytes. Number of documents and of dimensions decide the
//! place and the length of each section, and so the length of the file.
//!
//! | section | content |
//! |---|---|
//! | header | 64 bytes: magic, version (u32), dimensions (u32), documents (u32), 4 zeros, fingerprint of the model (32 bytes) |
//! | rows | per document: its values (f32) |
//! | codes | per document: its values in 8 bits, in steps of the document |
//! | scales | per document: its step, the largest error of its codes, the length of what they stand for (f32 each) |
//!
//! The file carries checksums of its blocks, as every file of an index does ([`CheckedBytes`]). Ids of documents are in the file
//! of sparse vectors of the segment ([`SegmentFile`](crate::segment::SegmentFile)), which has the same documents in the same
//! order.

use std::ops::Range;

use super::codes::{self, SCALE_LEN, Scale};
use super::vector::{MAX_DIMENSIONS, dot};
use crate::segment::{CheckedBytes, Defect};

const MAGIC: [u8; 8] = *b"SPLADEdn";
const VERSION: u32 = 1;
pub(super) const HEADER_LEN: usize = 64;

/// Number of dimensions and model of the vectors of an index. Every file repeats it, so that a file of another index is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseIdentity {
    /// number of dimensions of a vector, 1 to [`MAX_DIMENSIONS`]
    pub dimensions: u32,
    /// fingerprint of the model
    pub fingerprint: [u8; 32],
}

impl DenseIdentity {
    /// The header of a file of `n_docs` documents.
    pub(super) fn header(&self, n_docs: u32) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.dimensions.to_le_bytes());
        header[16..20].copy_from_slice(&n_docs.to_le_bytes());
        header[24..56].copy_from_slice(&self.fingerprint);
        header
    }
}

/// Places of the sections.
#[derive(Debug, Clone)]
pub(super) struct Sections {
    pub(super) rows: Range<usize>,
    pub(super) codes: Range<usize>,
    pub(super) scales: Range<usize>,
}

impl Sections {
    /// Places in a file of so many documents and dimensions; none if they are beyond the memory of the machine.
    pub(super) fn new(n_docs: u32, dimensions: u32) -> Option<Self> {
        let (n_docs, dimensions) = (n_docs as usize, dimensions as usize);
        let n_values = n_docs.checked_mul(dimensions)?;
        let section = |start: usize, len: usize| Some(start..start.checked_add(len)?);
        let rows = section(HEADER_LEN, n_values.checked_mul(4)?)?;
        let codes = section(aligned(rows.end)?, n_values)?;
        let scales = section(aligned(codes.end)?, n_docs.checked_mul(SCALE_LEN)?)?;
        Some(Self { rows, codes, scales })
    }
}

/// Start of the section after one that ends at `end`.
fn aligned(end: usize) -> Option<usize> {
    end.checked_next_multiple_of(64)
}

/// An opened file of dense vectors.
///
/// Opening checks the header and the length. The blocks of the sections are checked when they are read.
pub struct DenseFile {
    bytes: CheckedBytes,
    sections: Sections,
    n_docs: u32,
    dimensions: usize,
}

impl DenseFile {
    /// Opens a file of `n_docs` documents of `identity`.
    ///
    /// # Errors
    /// A damaged header or length, another version, dimensions or model.
    pub fn open(bytes: CheckedBytes, identity: &DenseIdentity, n_docs: u32) -> Result<Self, Defect> {
        let header = bytes.get(0..HEADER_LEN)?;
        let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if header[..8] != MAGIC {
            return Err("not a file of dense vectors".into());
        }
        if number(8) != VERSION {
            return Err(format!(
                "version {} of dense vectors, this program reads version {VERSION}: the index was written by a newer program",
                number(8)
            ));
        }
        let expected = identity.header(n_docs);
        let dimensions = number(12);
        if dimensions != identity.dimensions || dimensions == 0 || dimensions as usize > MAX_DIMENSIONS {
            return Err(format!("vectors of {dimensions} dimensions, the index has {}", identity.dimensions));
        }
        if number(16) != n_docs {
            return Err(format!("vectors of {} documents, the segment has {n_docs}", number(16)));
        }
        if *header != expected {
            return Err("vectors of another model than the index".into());
        }
        let sections = Sections::new(n_docs, dimensions).filter(|sections| sections.scales.end == bytes.len());
        let sections = sections.ok_or_else(|| format!("{} bytes do not fit its header", bytes.len()))?;
        Ok(Self { bytes, sections, n_docs, dimensions: dimensions as usize })
    }

    /// Number of documents, including deleted ones.
    #[must_use]
    pub fn n_docs(&self) -> u32 {
        self.n_docs
    }

    /// Number of dimensions.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Size of the file in bytes, without its checksums.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes of the values of a document; empty beyond the last document.
    ///
    /// # Errors
    /// A damaged block.
    pub fn row(&self, doc: u32) -> Result<&[u8], Defect> {
        if doc >= self.n_docs {
            return Ok(&[]);
        }
        let len = self.dimensions * 4;
        let start = self.sections.rows.start + doc as usize * len;
        self.bytes.get(start..start + len)
    }

    /// Values of a document; none beyond the last document.
    ///
    /// # Errors
    /// A damaged block.
    pub fn values(&self, doc: u32) -> Result<Vec<f32>, Defect> {
        Ok(self.row(doc)?.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// Exact score of a document: [`DenseVector::dot`](super::DenseVector::dot).
    pub(super) fn score(&self, query: &[f32], doc: u32) -> Result<f32, Defect> {
        Ok(dot(query, &self.values(doc)?))
    }

    /// Codes and scales of some documents.
    ///
    /// # Errors
    /// A damaged block.
    pub(super) fn coded(&self, docs: Range<u32>) -> Result<(&[u8], &[[u8; SCALE_LEN]]), Defect> {
        let part = |section: &Range<usize>, len: usize| {
            let at = |doc: u32| section.start + doc.min(self.n_docs) as usize * len;
            self.bytes.get(at(docs.start)..at(docs.end))
        };
        let codes = part(&self.sections.codes, self.dimensions)?;
        Ok((codes, part(&self.sections.scales, SCALE_LEN)?.as_chunks().0))
    }

    /// Reads the whole file and checks all blocks, so that later searches neither wait for the disk nor check anything.
    ///
    /// # Errors
    /// The first damaged block.
    pub fn warm(&self) -> Result<(), Defect> {
        self.bytes.check(0..self.bytes.len())?;
        // one byte per page is enough to read it
        std::hint::black_box(self.bytes.as_unchecked().iter().step_by(4096).fold(0, |all, byte| all ^ byte));
        Ok(())
    }

    /// Checks every block, and that codes and scales are those of the values. This reads the whole file.
    ///
    /// # Errors
    /// The first defect found.
    pub fn check(&self) -> Result<(), Defect> {
        self.bytes.check(0..self.bytes.len())?;
        let mut expected = Vec::new();
        for doc in 0..self.n_docs {
            let values = self.values(doc)?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(format!("document {doc}: a value of {value}"));
            }
            let scale = codes::encode(&values, &mut expected);
            let (stored, scales) = self.coded(doc..doc + 1)?;
            let is_stored = expected.iter().map(|code| *code as u8).eq(stored.iter().copied());
            if !is_stored || scales.first().map(Scale::from_bytes) != Some(scale) {
                return Err(format!("document {doc}: its codes are not those of its values"));
            }
        }
        Ok(())
    }
}
