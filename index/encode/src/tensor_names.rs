//! Names of tensors that are made of a checkpoint's: the exporter writes them, the split graph reads them.

/// The axis of a matrix along which its output channels lie: each has a scale of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channels {
    /// one channel per row
    Rows,
    /// one channel per column
    Columns,
}

impl Channels {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Columns => "columns",
        }
    }
}

/// Name of a matrix stored with its axes swapped.
#[must_use]
pub fn transposed(matrix: &str) -> String {
    format!("{matrix}.transposed")
}

/// Name of the 8-bit codes of a matrix.
#[must_use]
pub fn codes(matrix: &str, channels: Channels) -> String {
    format!("{matrix}.int8.{}", channels.name())
}

/// Name of the scales of a matrix in 8 bits, one per channel.
#[must_use]
pub fn scales(matrix: &str, channels: Channels) -> String {
    format!("{matrix}.scales.{}", channels.name())
}
