//! [`Precision`] of an exported network, and the names of its files.

use std::fmt;

/// Number format of an exported network's weights.
///
/// Each precision has its own file name, so a folder can hold files of all of them:
///
/// ```
/// use splade_files::Precision;
///
/// assert_eq!(Precision::Fp32.file_name("model_splade.onnx"), "model_splade.onnx");
/// assert_eq!(Precision::Int8.file_name("model_splade.onnx"), "model_splade_int8.onnx");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// as trained
    #[default]
    Fp32,
    /// weights in half the bytes, sums in f32
    Fp16,
    /// weights in a quarter of the bytes, products of integers: the fastest on a CPU
    Int8,
}

impl Precision {
    /// All precisions, most bytes first.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Fp16, Self::Int8];

    /// Name in flags, file names and metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }

    /// File name in this precision, made from the name `fp32` of the file in fp32. It follows the convention of transformers'
    /// exports.
    #[must_use]
    pub fn file_name(self, fp32: &str) -> String {
        match (self, fp32.strip_suffix(".onnx")) {
            (Self::Fp32, _) | (_, None) => fp32.to_owned(),
            (_, Some(stem)) => format!("{stem}_{}.onnx", self.name()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
