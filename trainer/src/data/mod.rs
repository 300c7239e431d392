//! From files to batches: examples, where they come from, and in which order they are learned.

mod example;
mod sampler;
mod source;

pub use example::{DataSet, Example};
pub use sampler::{
    Batch, BatchRules, Permutations, Sampler, SeededPermutations, batch_sampler, no_duplicates, proportional,
    round_robin,
};
pub use source::{LabelUse, LoadedSet, SourceReport, load_data_set, load_texts};
