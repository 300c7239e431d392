//! The one error type of this crate.

use std::path::PathBuf;

use crate::VectorError;

/// What can go wrong between a text and a ranking.
///
/// Messages are one line in lower case that names the file, line or key; [`Error::hint`] says what to do where there
/// is something to do, [`Error::is_bad_input`] whether the input is at fault (exit code 2) or the run (exit code 1).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// the file or folder
        path: PathBuf,
        /// what the system said
        source: std::io::Error,
    },
    /// A line of an input file is not what it should be.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// the file
        path: PathBuf,
        /// counted from 1
        line: usize,
        /// what is wrong
        message: String,
    },
    /// A whole file or folder is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// the file or folder
        path: PathBuf,
        /// what is wrong
        message: String,
    },
    /// Something given cannot be done, whatever the files say.
    #[error("{message}")]
    Invalid {
        /// what is wrong
        message: String,
        /// what to do, empty if nothing
        hint: String,
    },
    /// A vector breaks the rules of [`SparseVector`](crate::SparseVector).
    #[error("{of}: {source}")]
    Vector {
        /// whose vector
        of: String,
        /// which rule
        source: VectorError,
    },
    /// A tokenizer refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The network behind an encoder failed.
    #[error("encoder: {0}")]
    Encoder(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// tantivy failed.
    #[error("index: {0}")]
    Tantivy(#[from] tantivy::TantivyError),
}

/// `Result` with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] as a closure for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// An [`Error::File`].
    pub fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::File { path: path.into(), message: message.into() }
    }

    /// An [`Error::Line`]; `line` counts from 1.
    pub fn line(path: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Self {
        Self::Line { path: path.into(), line, message: message.into() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    /// The same with the file in front, where the message names none.
    #[must_use]
    pub(crate) fn of(self, path: &std::path::Path) -> Self {
        match self {
            Self::Invalid { message, hint } => {
                Self::Invalid { message: format!("{}: {message}", path.display()), hint }
            }
            other => other,
        }
    }

    /// What to do about it, if there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Invalid { hint, .. } if !hint.is_empty() => Some(hint),
            _ => None,
        }
    }

    /// True when a command line, config or input file is at fault: exit code 2 rather than 1.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
                matches!(source.kind(), NotFound | NotADirectory | IsADirectory)
            }
            Self::Line { .. } | Self::File { .. } | Self::Invalid { .. } | Self::Vector { .. } => true,
            Self::Tokenizer(_) | Self::Encoder(_) | Self::Tantivy(_) => false,
        }
    }
}
