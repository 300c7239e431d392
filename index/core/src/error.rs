//! [`Error`] and [`ErrorKind`]: what can go wrong between a text, a vector and a ranking, and the kinds all crates share.

use crate::VectorError;

/// Kinds of failure that a caller acts on, the same for every crate of the workspace.
///
/// A program picks its exit code by it, a server its status code; messages are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, folder, query table or other thing named does not exist.
    NotFound,
    /// An argument or an input file breaks a rule.
    InvalidInput,
    /// Stored data does not match its checksum or its structure.
    Damaged,
    /// Another process or thread holds what is needed.
    Busy,
    /// The system refused to read or write: permission, disk full, broken connection.
    Io,
    /// A library failed, or the program has a fault.
    Internal,
}

impl ErrorKind {
    /// Kind of an I/O error.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound | Io::NotADirectory | Io::IsADirectory => Self::NotFound,
            _ => Self::Io,
        }
    }

    /// True if the caller has to change what was given, rather than try again.
    #[must_use]
    pub fn is_bad_input(self) -> bool {
        matches!(self, Self::NotFound | Self::InvalidInput | Self::Damaged)
    }
}

/// Errors of vectors, vocabularies, query tables and encoders.
///
/// A message is one line in lower case. [`hint`](Self::hint) gives advice, if there is any.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument breaks a rule.
    #[error("{message}")]
    Invalid {
        /// the problem
        message: String,
        /// advice, empty if there is none
        hint: String,
    },
    /// A vector breaks the rules of [`SparseVector`](crate::SparseVector).
    #[error("{of}: {source}")]
    Vector {
        /// name of the vector
        of: String,
        /// the broken rule
        source: VectorError,
    },
    /// A tokenizer refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The network behind an encoder failed.
    #[error("encoder: {0}")]
    Encoder(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The index or other system behind a [`Retriever`](crate::Retriever) failed.
    #[error("{source}")]
    Retriever {
        /// kind of the failure
        kind: ErrorKind,
        /// the failure itself
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `Result` with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    /// An [`Error::Retriever`].
    pub fn retriever(kind: ErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Retriever { kind, source: source.into() }
    }

    /// Puts `place` in front of the message, for messages that do not name a file.
    #[must_use]
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Invalid { message, hint } => Self::Invalid { message: format!("{place}: {message}"), hint },
            other => other,
        }
    }

    /// Advice on what to do, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Invalid { hint, .. } if !hint.is_empty() => Some(hint),
            _ => None,
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::Vector { .. } => ErrorKind::InvalidInput,
            Self::Tokenizer(_) | Self::Encoder(_) => ErrorKind::Internal,
            Self::Retriever { kind, .. } => *kind,
        }
    }
}
