//! [`Error`]: qrels, runs or result files that cannot be used.

use std::path::PathBuf;

use splade_core::ErrorKind;

/// Errors of evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written or parsed.
    #[error(transparent)]
    Files(#[from] splade_files::Error),
}

/// `Result` with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<splade_core::Error> for Error {
    fn from(error: splade_core::Error) -> Self {
        Self::Files(error.into())
    }
}

impl Error {
    /// Returns a closure for `map_err` that makes a [`splade_files::Error::Io`].
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let failed = splade_files::Error::io(path);
        move |source| failed(source).into()
    }

    /// A [`splade_files::Error::File`].
    pub fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        splade_files::Error::file(path, message).into()
    }

    /// A [`splade_files::Error::Line`]; `line` counts from 1.
    pub fn line(path: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Self {
        splade_files::Error::line(path, line, message).into()
    }

    /// A [`splade_core::Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        splade_core::Error::invalid(message, hint).into()
    }

    /// Advice on what to do, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Files(error) => error.hint(),
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Files(error) => error.kind(),
        }
    }
}
