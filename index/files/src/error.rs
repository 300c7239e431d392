//! [`Error`]: a file or folder that cannot be read, written or parsed.

use std::path::PathBuf;

use splade_core::ErrorKind;

/// Errors of files and folders, each with the path, and the line where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// the file or folder
        path: PathBuf,
        /// error of the operating system
        source: std::io::Error,
    },
    /// A line of an input file breaks a rule.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// the file
        path: PathBuf,
        /// number of the line, from 1
        line: usize,
        /// the broken rule
        message: String,
    },
    /// A whole file or folder breaks a rule.
    #[error("{}: {message}", path.display())]
    File {
        /// the file or folder
        path: PathBuf,
        /// the broken rule
        message: String,
    },
    /// The content of a file is invalid.
    #[error(transparent)]
    Core(#[from] splade_core::Error),
}

/// `Result` with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns a closure for `map_err` that makes an [`Error::Io`].
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

    /// A [`splade_core::Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        splade_core::Error::invalid(message, hint).into()
    }

    /// Advice on what to do, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Core(error) => error.hint(),
            _ => None,
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Line { .. } | Self::File { .. } => ErrorKind::InvalidInput,
            Self::Core(error) => error.kind(),
        }
    }
}
