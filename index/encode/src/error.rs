//! [`Error`]: an ONNX file or ONNX Runtime that cannot be used.

use std::path::{Path, PathBuf};

use splade_core::{ErrorKind, HeadMode};

/// Errors of ONNX files and ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written or parsed.
    #[error(transparent)]
    Files(#[from] splade_files::Error),
    /// The library of ONNX Runtime is missing, broken or too old.
    #[error("ONNX Runtime {0}")]
    Library(String),
    /// ONNX Runtime failed on a batch.
    #[error("{}: {message}", file.display())]
    Run {
        /// the ONNX file
        file: PathBuf,
        /// first line of ONNX Runtime's message
        message: String,
    },
    /// The inputs or outputs of a file are not those of a masked-LM network.
    #[error("{}: {message}", file.display())]
    Signature {
        /// the ONNX file
        file: PathBuf,
        /// the input or output, and the requirement that it does not meet
        message: String,
    },
    /// A file was not exported from the checkpoint in its folder.
    #[error("{}: not exported from the checkpoint beside it: {reason}", file.display())]
    Stale {
        /// the ONNX file
        file: PathBuf,
        /// the difference
        reason: String,
    },
    /// The head mode of a file differs from that of the model folder.
    #[error("{}: its logits are {found}, but the model is used as {expected}", file.display())]
    HeadMode {
        /// the ONNX file
        file: PathBuf,
        /// head mode stated by the file
        found: String,
        /// head mode stated by the model folder or the caller
        expected: HeadMode,
    },
    /// The pooling of a file differs from that of the model folder.
    #[error("{}: pooled as {found}, but the model folder states {expected}", file.display())]
    Pooling {
        /// the ONNX file
        file: PathBuf,
        /// strategy and activation of the file, as JSON
        found: String,
        /// strategy and activation of the model folder, as JSON
        expected: String,
    },
}

/// `Result` with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<splade_core::Error> for Error {
    fn from(error: splade_core::Error) -> Self {
        Self::Files(error.into())
    }
}

impl From<Error> for splade_core::Error {
    /// Converts to the error of a [`Network`](splade_core::Network). An error of `splade-core` stays unchanged.
    fn from(error: Error) -> Self {
        match error {
            Error::Files(splade_files::Error::Core(error)) => error,
            other => Self::Encoder(other.into()),
        }
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

    /// A [`splade_core::Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        splade_core::Error::invalid(message, hint).into()
    }

    /// An [`Error::Run`] with the first line of ONNX Runtime's message.
    pub(crate) fn run(file: &Path, error: impl std::fmt::Display) -> Self {
        Self::Run { file: file.to_owned(), message: first_line(&error.to_string()).to_owned() }
    }

    /// Advice on what to do, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Files(error) => error.hint(),
            Self::Stale { .. } | Self::HeadMode { .. } | Self::Pooling { .. } => Some("export the file again"),
            Self::Library(_) | Self::Run { .. } | Self::Signature { .. } => None,
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Files(error) => error.kind(),
            Self::Library(_)
            | Self::Signature { .. }
            | Self::Stale { .. }
            | Self::HeadMode { .. }
            | Self::Pooling { .. } => ErrorKind::InvalidInput,
            Self::Run { .. } => ErrorKind::Internal,
        }
    }
}

/// First line of a message. The further lines of ONNX Runtime's messages are a trace.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
