//! [`Row`]: the exact weights of a document as bytes: in memory until a segment is written, and in files of version 1.

use std::fmt;

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
    /// 1 byte: weights are rounded to multiples of [`STEP_OF_U8`](Self::STEP_OF_U8), and scores are those of the rounded weights.
    /// In a segment file the impact is the weight, and nothing stands beside it
    U8,
}

impl ForwardPrecision {
    /// Distance of two weights of [`U8`](Self::U8): 1/64, so that 255 of them reach to 3.98. Weights of log(1 + logit) lie
    /// below that for logits up to 52.
    pub const STEP_OF_U8: f32 = 1.0 / 64.0;

    /// Rounds a positive weight to this format. A weight beyond f16 becomes infinite; a weight beyond the largest one of
    /// [`U8`](Self::U8) becomes that one, and a weight below half its step becomes 0.
    ///
    /// ```
    /// use splade_core::segment::ForwardPrecision;
    ///
    /// assert_eq!(ForwardPrecision::U8.round(1.01), 65.0 / 64.0);
    /// assert_eq!(ForwardPrecision::U8.round(9.0), 255.0 / 64.0);
    /// ```
    #[must_use]
    pub fn round(self, weight: f32) -> f32 {
        match self {
            Self::F32 => weight,
            Self::F16 => f16::from_f32(weight).to_f32(),
            Self::U8 => f32::from(steps_of(weight)) * Self::STEP_OF_U8,
        }
    }

    /// True if this format has no weight as large as this one.
    #[must_use]
    pub fn is_beyond(self, weight: f32) -> bool {
        self == Self::U8 && weight > 255.5 * Self::STEP_OF_U8
    }

    /// Number of bytes of a weight in a row.
    fn len(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

impl fmt::Display for ForwardPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
        })
    }
}

/// Number of steps of [`ForwardPrecision::U8`] nearest to a weight, 0 to 255.
fn steps_of(weight: f32) -> u8 {
    (weight / ForwardPrecision::STEP_OF_U8).round().clamp(0.0, 255.0) as u8
}

/// Flag: ids are u32 instead of u16.
const WIDE_IDS: u32 = 1;
/// Flag: weights are f16 instead of f32.
const HALF_WEIGHTS: u32 = 2;
/// Flag: weights are steps of u8 instead of f32.
const BYTE_WEIGHTS: u32 = 4;

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
        self.id_len() + self.precision.len()
    }

    /// Flags of the layout in the header of a file.
    pub(super) fn flags(self) -> u32 {
        let weights = match self.precision {
            ForwardPrecision::F32 => 0,
            ForwardPrecision::F16 => HALF_WEIGHTS,
            ForwardPrecision::U8 => BYTE_WEIGHTS,
        };
        weights | if self.wide { WIDE_IDS } else { 0 }
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
            ForwardPrecision::U8 => rows.extend(weights.map(steps_of)),
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
            ForwardPrecision::U8 => {
                self.weights.get(at).map_or(0.0, |steps| f32::from(*steps) * ForwardPrecision::STEP_OF_U8)
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
