//! [`Example`]: an anchor, a document that answers it, and documents that do not.

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

/// Examples of one shape: all have the same number of negatives and of labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataSet {
    /// The name in the config, with `_pairs` for the part without negatives of a set that was split in two.
    pub name: String,
    /// In the order of the files, or shuffled if the set was divided into shares.
    pub examples: Vec<Example>,
}
