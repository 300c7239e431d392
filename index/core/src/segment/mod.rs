//! The segment file with the exact weights, impacts and ids of its documents, and the search over such files.
//!
//! `format` describes the layout. [`write_segment`] and [`merge_segments`] write a file, [`SegmentFile`] reads one,
//! [`QueryPlan`] searches several.

mod check;
mod checksum;
mod exact;
mod find;
mod format;
mod header;
mod invert;
mod merge;
mod plan;
mod remainder;
mod row;
mod sequence;
mod sums;
mod term;
mod top;
mod writer;

pub use checksum::{BLOCK_LEN, BlockChecksums, CheckedBytes};
pub use format::{Defect, Identity, SegmentFile};
pub use header::{WINDOW, WINDOW_BITS};
pub use invert::write_segment;
pub use merge::{Source, merge_segments};
pub use plan::{Candidate, Demand, Live, QueryPlan, SegmentDefect};
pub use row::{Entry, ForwardPrecision, Row, RowLayout};
pub use term::SEED_DEPTHS;

#[cfg(test)]
mod tests;
