//! The one error type of this crate.

use std::path::PathBuf;

use splade_core::ErrorKind;

/// Errors of exporting a checkpoint and comparing the ONNX file with it.
///
/// A message is one line in lower case and names the file, backend or key. [`Error::hint`] gives advice, if there is any, and
/// [`Error::kind`] lets a caller react.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint or its forward pass failed, in `splade-trainer`.
    #[error(transparent)]
    Trainer(#[from] splade_trainer::Error),
    /// A file failed.
    #[error(transparent)]
    Files(#[from] splade_files::Error),
    /// ONNX Runtime failed.
    #[error(transparent)]
    Encode(#[from] splade_encode::Error),
    /// A runtime failed on an exported file.
    #[error("{}: {backend}: {message}", file.display())]
    Backend {
        /// the exported file
        file: PathBuf,
        /// the runtime
        backend: String,
        /// its message
        message: String,
    },
    /// A runtime lacks an operator of an exported file.
    #[error("{}: {backend} has no operator {operator}", file.display())]
    MissingOperator {
        /// the exported file
        file: PathBuf,
        /// the runtime
        backend: String,
        /// the operator
        operator: String,
    },
    /// The numbers of a runtime differ from those of the reference.
    #[error(
        "{}: {backend} differs from the reference by {difference:.1e}, more than {tolerance:.0e} allows",
        file.display()
    )]
    Disagreement {
        /// the exported file
        file: PathBuf,
        /// the runtime
        backend: String,
        /// largest difference found
        difference: f32,
        /// largest difference allowed
        tolerance: f32,
    },
    /// The vectors of a runtime have another direction than those of the reference.
    #[error(
        "{}: {backend} gives vectors with a cosine of {cosine:.4} to the reference's, less than {least}",
        file.display()
    )]
    Unlike {
        /// the exported file
        file: PathBuf,
        /// the runtime
        backend: String,
        /// smallest cosine found
        cosine: f64,
        /// smallest cosine allowed
        least: f64,
    },
    /// An argument is invalid, whatever the files contain.
    #[error("{message}")]
    Invalid {
        /// the problem
        message: String,
        /// advice, empty if there is none
        hint: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl From<splade_core::Error> for Error {
    fn from(error: splade_core::Error) -> Self {
        Self::Files(error.into())
    }
}

impl Error {
    /// An [`Error::Backend`].
    pub fn backend(file: impl Into<PathBuf>, backend: impl Into<String>, message: impl ToString) -> Self {
        Self::Backend { file: file.into(), backend: backend.into(), message: message.to_string() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    /// Advice on what to do, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Trainer(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::Encode(error) => error.hint(),
            Self::Disagreement { .. } | Self::Unlike { .. } => {
                Some("do not use the file; report the model and this line")
            }
            Self::Invalid { hint, .. } => (!hint.is_empty()).then_some(hint),
            Self::Backend { .. } | Self::MissingOperator { .. } => None,
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Trainer(error) => error.kind(),
            Self::Files(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::Backend { .. } | Self::MissingOperator { .. } | Self::Disagreement { .. } | Self::Unlike { .. } => {
                ErrorKind::Internal
            }
        }
    }
}
