//! The segment file with the exact weights, impacts and ids of its documents, and the search over such files.
//!
//! `format` describes the layout, [`write_segment`] writes a file, [`SegmentFile`] reads one, [`QueryPlan`] searches several.

mod checksum;
mod format;
mod invert;
mod row;
mod scorer;

pub use checksum::{BLOCK_LEN, BlockChecksums, CheckedBytes};
pub use format::{Defect, Identity, SEED_DEPTHS, SegmentFile, WINDOW, WINDOW_BITS};
pub use invert::write_segment;
pub use row::{Entry, ForwardPrecision, Row, RowLayout};
pub use scorer::{Candidate, Demand, Live, QueryPlan, SegmentDefect};
