//! From files to batches: examples, the files they are read from, and the order they are learned in.

mod ahead;
mod columns;
mod example;
mod material;
mod report;
mod sampler;
mod source;

pub(crate) use ahead::{ReadyTokens, TokensAhead};
pub use columns::{ANCHOR as ANCHOR_COLUMNS, POSITIVE as POSITIVE_COLUMNS};
pub use example::{DataSet, Example, Origin};
pub(crate) use material::TrainingData;
pub use material::{Material, Piece};
pub(crate) use report::text_reports;
pub use report::{Lengths, TextReport};
pub use sampler::Batch;
pub(crate) use sampler::{BatchRules, Sampler};
pub use source::{LabelUse, LoadedSet, SourceReport, load_data_set, load_texts};
