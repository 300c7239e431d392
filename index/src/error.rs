//! [`Error`]: an index that cannot be read, written or searched.

use std::path::PathBuf;

use splade_core::ErrorKind;

/// Errors of the index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written or parsed.
    #[error(transparent)]
    Files(#[from] splade_files::Error),
    /// A file does not match its checksum or its structure.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// the file
        path: PathBuf,
        /// the problem
        message: String,
    },
    /// Another writer is at work.
    #[error("{}: another writer is at work", path.display())]
    Busy {
        /// the folder
        path: PathBuf,
    },
    /// The id of a document to add is in the index already.
    #[error("document {id}: its id is in the index already")]
    TakenId {
        /// the id
        id: String,
    },
    /// tantivy failed.
    #[error("index: {0}")]
    Tantivy(#[from] tantivy::TantivyError),
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

    /// An [`Error::Damaged`].
    pub(crate) fn damaged(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), message: message.into() }
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
            Self::TakenId { .. } => Some("ids must be unique; update replaces a document"),
            Self::Damaged { .. } | Self::Busy { .. } | Self::Tantivy(_) => None,
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Files(error) => error.kind(),
            Self::Tantivy(error) => kind_of_tantivy(error),
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::TakenId { .. } => ErrorKind::InvalidInput,
        }
    }
}

fn kind_of_tantivy(error: &tantivy::TantivyError) -> ErrorKind {
    use tantivy::TantivyError as T;
    match error {
        T::LockFailure(..) => ErrorKind::Busy,
        T::DataCorruption(_) | T::IncompatibleIndex(_) => ErrorKind::Damaged,
        T::IoError(error) => ErrorKind::of_io(error),
        T::InvalidArgument(_) => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    }
}
