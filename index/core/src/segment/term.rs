//! [`TermEntry`]: the entry of a term in the table of a segment file. [`TermList`]: its postings.

use std::ops::Range;

use super::find::{find_id, inside};
use super::format::Defect;
use super::header::{u32_at, u64_at};
use super::remainder::Remainders;

/// Number of bytes of a [`TermEntry`].
pub(super) const TERM_LEN: usize = 32;
/// Values of k for which the k-th largest impact of a term is stored. Files of version 1 have no more than the first two.
pub const SEED_DEPTHS: [usize; 3] = [10, 100, 1000];
/// Number of documents of a dense list after which the number of postings is counted.
pub(super) const COUNT_BLOCK: usize = 128;

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
pub(super) struct TermEntry {
    /// id in the vocabulary
    pub(super) id: u32,
    /// number of documents with the term
    pub(super) df: u32,
    /// weight of an impact of 1: the largest weight / 255
    pub(super) step: f32,
    /// largest |weight - impact * step| of the postings, rounded up
    pub(super) error: f32,
    /// first byte in the postings section; in version 1 of a dense term, in the dense section
    pub(super) start: u64,
    /// number of exceptions among the remainders; in version 1, first entry in the windows section
    pub(super) extra: u32,
    pub(super) kind: PostingsKind,
    /// k-th largest impact for each k of [`SEED_DEPTHS`]; 0 if there are fewer postings
    pub(super) seeds: [u8; SEED_DEPTHS.len()],
}

impl TermEntry {
    pub(super) fn to_bytes(self) -> [u8; TERM_LEN] {
        let mut bytes = [0; TERM_LEN];
        bytes[0..4].copy_from_slice(&self.id.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.df.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.step.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.error.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.extra.to_le_bytes());
        bytes[28] = self.kind as u8;
        bytes[29..32].copy_from_slice(&self.seeds);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; TERM_LEN]) -> Result<Self, Defect> {
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
            extra: u32_at(bytes, 24),
            kind,
            seeds: [bytes[29], bytes[30], bytes[31]],
        })
    }
}

/// Documents and impacts of a term in one segment.
#[derive(Clone, Copy)]
pub(super) enum Postings<'a> {
    /// Document ids and impacts.
    Short { docs: &'a [[u8; 4]], impacts: &'a [u8] },
    /// Ids inside the window and impacts; `offsets` are the start of each window, and the end.
    Windowed { ids: &'a [[u8; 2]], impacts: &'a [u8], offsets: &'a [[u8; 4]] },
    /// One impact per document, 0 for none; `counts` are the numbers of postings before each block of [`COUNT_BLOCK`]
    /// documents, and are empty in version 1.
    Dense { impacts: &'a [u8], counts: &'a [[u8; 4]] },
}

/// Postings of a term in one segment, with what gives their exact weights.
#[derive(Clone, Copy)]
pub(super) struct TermList<'a> {
    pub(super) entry: TermEntry,
    pub(super) postings: Postings<'a>,
    /// `None` in version 1, whose exact weights are in rows
    pub(super) remainders: Option<Remainders<'a>>,
    pub(super) window_bits: u32,
}

/// Position and impact of a posting of a [`TermList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Posting {
    /// position among the postings of the term
    pub(super) at: usize,
    pub(super) impact: u8,
}

impl TermList<'_> {
    /// The posting of `doc`; `None` if the document does not have the term.
    #[inline]
    pub(super) fn find(&self, doc: u32) -> Option<Posting> {
        match self.postings {
            Postings::Short { docs, impacts } => {
                let at = docs.binary_search_by_key(&doc, |doc| u32::from_le_bytes(*doc)).ok()?;
                Some(Posting { at, impact: *impacts.get(at)? })
            }
            Postings::Windowed { ids, impacts, offsets } => {
                let range = window_range(offsets, (doc >> self.window_bits) as usize);
                let inside = find_id(ids.get(range.clone())?, inside(doc, self.window_bits), self.window_bits)?;
                let at = range.start + inside;
                Some(Posting { at, impact: *impacts.get(at)? })
            }
            Postings::Dense { impacts, counts } => {
                let impact = *impacts.get(doc as usize).filter(|impact| **impact != 0)?;
                let block = doc as usize / COUNT_BLOCK;
                let before =
                    impacts.get(block * COUNT_BLOCK..doc as usize)?.iter().map(|i| u8::from(*i != 0)).sum::<u8>();
                let at = counts.get(block).map_or(0, |count| u32::from_le_bytes(*count)) as usize + usize::from(before);
                Some(Posting { at, impact })
            }
        }
    }

    /// Calls `visit` with document and posting of all postings, by ascending document.
    #[inline]
    pub(super) fn for_each(&self, mut visit: impl FnMut(u32, Posting)) {
        match self.postings {
            Postings::Short { docs, impacts } => {
                for (at, (doc, &impact)) in docs.iter().zip(impacts).enumerate() {
                    visit(u32::from_le_bytes(*doc), Posting { at, impact });
                }
            }
            Postings::Windowed { ids, impacts, offsets } => {
                for window in 0..offsets.len().saturating_sub(1) {
                    let range = window_range(offsets, window);
                    let first = (window as u32) << self.window_bits;
                    let ids = ids.get(range.clone()).unwrap_or_default();
                    for ((at, id), &impact) in range.clone().zip(ids).zip(impacts.get(range).unwrap_or_default()) {
                        visit(first + u32::from(u16::from_le_bytes(*id)), Posting { at, impact });
                    }
                }
            }
            Postings::Dense { impacts, .. } => {
                let present = (0..).zip(impacts).filter(|(_, impact)| **impact != 0);
                for (at, (doc, &impact)) in present.enumerate() {
                    visit(doc, Posting { at, impact });
                }
            }
        }
    }
}

/// Positions of the postings of a window; empty beyond the last window.
#[inline]
pub(super) fn window_range(offsets: &[[u8; 4]], window: usize) -> Range<usize> {
    let offset = |at: usize| offsets.get(at).map_or(0, |offset| u32::from_le_bytes(*offset) as usize);
    offset(window)..offset(window + 1)
}

/// Checks that window offsets ascend from 0 to `df`.
pub(super) fn check_offsets(offsets: &[[u8; 4]], df: u32) -> Result<(), Defect> {
    let values = || offsets.iter().map(|offset| u32::from_le_bytes(*offset));
    if values().next() != Some(0) || values().next_back() != Some(df) || !values().is_sorted() {
        return Err("its window offsets do not ascend to its number of postings".into());
    }
    Ok(())
}
