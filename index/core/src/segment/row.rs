//! [`Row`]: the exact weights of a document as bytes: in memory until a segment is written, and in files of version 1.

use half::f16;

use serde::{Deserialize, Serialize};

/// Number format of the exact weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardPrecision {
    /// 4 bytes: scores equal those of the added vectors
    #[default]
    F32,
    /// 2 bytes: weights are rounded to 11 significant bits, and scores are those of the rounded weights
    F16,
}

impl ForwardPrecision {
    /// Rounds a weight to this format. A weight beyond f16 becomes infinite.
    #[must_use]
    pub fn round(self, weight: f32) -> f32 {
        match self {
            Self::F32 => weight,
            Self::F16 => f16::from_f32(weight).to_f32(),
        }
    }
}

/// Flag: ids are u32 instead of u16.
const WIDE_IDS: u32 = 1;
/// Flag: weights are f16 instead of f32.
const HALF_WEIGHTS: u32 = 2;

/// Layout of a forward row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLayout {
    wide: bool,
    precision: ForwardPrecision,
}

impl RowLayout {
    /// The layout for a vocabulary and a precision.
    pub fn new(vocabulary_size: u32, precision: ForwardPrecision) -> Self {
        Self { wide: vocabulary_size > 1 << 16, precision }
    }

    /// Number format of the weights.
    pub(super) fn precision(self) -> ForwardPrecision {
        self.precision
    }

    fn id_len(self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    /// Number of bytes of an id and its weight.
    pub fn entry_len(self) -> usize {
        self.id_len()
            + match self.precision {
                ForwardPrecision::F32 => 4,
                ForwardPrecision::F16 => 2,
            }
    }

    /// Flags of the layout in the header of a file.
    pub(super) fn flags(self) -> u32 {
        let half = if self.precision == ForwardPrecision::F16 { HALF_WEIGHTS } else { 0 };
        half | if self.wide { WIDE_IDS } else { 0 }
    }

    /// Appends a row to `rows`. The ids must be ascending.
    pub fn encode(
        self,
        dims: impl IntoIterator<Item = u32>,
        weights: impl IntoIterator<Item = f32>,
        rows: &mut Vec<u8>,
    ) {
        match self.wide {
            true => dims.into_iter().for_each(|dim| rows.extend_from_slice(&dim.to_le_bytes())),
            false => dims.into_iter().for_each(|dim| rows.extend_from_slice(&(dim as u16).to_le_bytes())),
        }
        let weights = weights.into_iter();
        match self.precision {
            ForwardPrecision::F32 => weights.for_each(|weight| rows.extend_from_slice(&weight.to_le_bytes())),
            ForwardPrecision::F16 => {
                weights.for_each(|weight| rows.extend_from_slice(&f16::from_f32(weight).to_le_bytes()))
            }
        }
    }

    /// The row in `bytes`, whose length is a multiple of [`entry_len`](Self::entry_len).
    pub fn row(self, bytes: &[u8]) -> Row<'_> {
        let (dims, weights) = bytes.split_at(bytes.len() / self.entry_len() * self.id_len());
        Row { dims, weights, layout: self }
    }
}

/// Exact weights of a document, read from the bytes of the file.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    dims: &'a [u8],
    weights: &'a [u8],
    layout: RowLayout,
}

/// Parts of a document that a segment file is built from.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// external id
    pub id: &'a [u8],
    /// exact weights
    pub row: Row<'a>,
}

impl Row<'_> {
    /// True if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.dims.len() / self.layout.id_len()
    }

    /// The id of an entry; 0 beyond the end.
    #[inline]
    pub(super) fn dim(&self, at: usize) -> u32 {
        match self.layout.wide {
            true => self.dims.as_chunks().0.get(at).map_or(0, |id| u32::from_le_bytes(*id)),
            false => self.dims.as_chunks().0.get(at).map_or(0, |id| u32::from(u16::from_le_bytes(*id))),
        }
    }

    /// The weight of an entry; 0 beyond the end.
    #[inline]
    pub(super) fn weight(&self, at: usize) -> f32 {
        match self.layout.precision {
            ForwardPrecision::F32 => self.weights.as_chunks().0.get(at).map_or(0.0, |w| f32::from_le_bytes(*w)),
            ForwardPrecision::F16 => {
                self.weights.as_chunks().0.get(at).map_or(0.0, |w| f16::from_le_bytes(*w).to_f32())
            }
        }
    }

    /// Ids and weights, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        (0..self.len()).map(|at| (self.dim(at), self.weight(at)))
    }

    /// The weight of a term; `None` if the row does not have it.
    pub(super) fn find(&self, term: u32) -> Option<f32> {
        let at = self.skip_below(0, term);
        (at < self.len() && self.dim(at) == term).then(|| self.weight(at))
    }

    /// Number of entries from `from` on whose id is below `term`.
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

    /// Dot product with `query`, whose ids are ascending. It adds the products in the order of
    /// [`SparseVector::dot`](crate::SparseVector::dot), and so equals it bit for bit.
    #[inline]
    pub(super) fn dot(&self, query: &[(u32, f32)]) -> f32 {
        let (mut sum, mut from) = (0.0, 0);
        for &(term, query_weight) in query {
            from += self.skip_below(from, term);
            if from < self.len() && self.dim(from) == term {
                sum += query_weight * self.weight(from);
                from += 1;
            }
        }
        sum
    }
}
