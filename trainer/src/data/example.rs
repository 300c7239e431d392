//! [`Example`]: an anchor, a document that answers it, and documents that do not.

use std::path::PathBuf;
use std::sync::Arc;

/// One training example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Example {
    /// The query.
    pub anchor: String,
    /// A document that answers it.
    pub positive: String,
    /// Documents that do not, though they may look like it; none in a *pair*, one in a *triplet*.
    pub negatives: Vec<String>,
    /// A teacher's margins or scores, for the losses that learn from one.
    pub labels: Vec<f32>,
}

impl Example {
    /// The anchor and all documents: what must not occur twice in a batch.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.anchor, &self.positive].into_iter().chain(&self.negatives).map(String::as_str)
    }
}

/// The place of an example: an index of [`DataSet::files`], and its row there, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Index of the file.
    pub file: u32,
    /// Line, or row of a parquet file.
    pub row: u32,
}

/// Examples of one shape: all have the same number of negatives and of labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataSet {
    /// The name in the config, with `_pairs` for the part without negatives of a set that was split in two.
    pub name: String,
    /// The name in the config, which both parts of a set that was split share; they take turns as one set.
    pub set: String,
    /// In the order of the files, or shuffled if the set was divided into shares.
    pub examples: Vec<Example>,
    /// The places of the examples; empty if they are of no file.
    pub origins: Vec<Origin>,
    /// The files that the places are in.
    pub files: Arc<[PathBuf]>,
}

impl DataSet {
    /// The place of an example in words: `train.jsonl:17`, or `row 17` if it is of no file.
    #[must_use]
    pub fn place(&self, at: usize) -> String {
        let origin = self.origins.get(at);
        match origin.and_then(|origin| Some((origin, self.files.get(origin.file as usize)?))) {
            Some((origin, file)) => format!("{}:{}", file.display(), origin.row),
            None => format!("row {at} of {}", self.name),
        }
    }
}
