//! [`Error`]: an ONNX file or ONNX Runtime that cannot be used.

use std::path::{Path, PathBuf};

use splade_core::{ErrorKind, HeadMode};

/// Errors of ONNX files and ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written or understood.
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
        /// the first line of what ONNX Runtime said
        message: String,
    },
    /// The inputs or outputs of a file are not those of a masked-LM network.
    #[error("{}: {message}", file.display())]
    Signature {
        /// the ONNX file
        file: PathBuf,
        /// the input or output, and what is needed
        message: String,
    },
    /// A file was exported from another checkpoint than the one beside it.
    #[error("{}: not exported from the checkpoint beside it: {reason}", file.display())]
    Stale {
        /// the ONNX file
        file: PathBuf,
        /// what differs
        reason: String,
    },
    /// A file uses its logits in another way than the model folder.
    #[error("{}: its logits are {found}, but the model is used as {wanted}", file.display())]
    HeadMode {
        /// the ONNX file
        file: PathBuf,
        /// as the file states it
        found: String,
        /// as the model folder or the caller states it
        wanted: HeadMode,
    },
    /// A file is pooled in another way than the model folder states.
    #[error("{}: pooled as {found}, but the model folder says {wanted}", file.display())]
    Pooling {
        /// the ONNX file
        file: PathBuf,
        /// strategy and activation of the file, as JSON
        found: String,
        /// strategy and activation of the model folder, as JSON
        wanted: String,
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
    /// The error of a [`Network`](splade_core::Network): an error of the core stays as it is.
    fn from(error: Error) -> Self {
        match error {
            Error::Files(splade_files::Error::Core(error)) => error,
            other => Self::Encoder(other.into()),
        }
    }
}

impl Error {
    /// A [`splade_files::Error::Io`] as a closure for `map_err`.
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

    /// What to do about it, if there is something to do.
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

/// The first line of a message: ONNX Runtime's go on with a trace.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
