//! The one error type of this crate.

use std::path::{Path, PathBuf};

use splade_core::ErrorKind;

use crate::model::{CheckpointProblem, ConfigProblem};

/// Errors of training, from reading the examples to writing a checkpoint.
///
/// A message is one line in lower case and names the file, data set or key. [`Error::hint`] gives advice, if there is any, and
/// [`Error::kind`] lets a caller react.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a line, a vector or a tokenizer failed.
    #[error(transparent)]
    Files(#[from] splade_files::Error),
    /// An evaluation failed.
    #[error(transparent)]
    Eval(#[from] splade_eval::Error),
    /// A tensor operation failed: shapes, types, memory or the device.
    #[error("tensor: {0}")]
    Candle(#[source] candle_core::Error),
    /// A key of the training config is unknown, missing, or has a value that cannot be.
    #[error("{key}: {message}")]
    Config {
        /// the full path of the key, like `training.save_steps`
        key: String,
        /// the problem
        message: String,
        /// advice, empty if there is none
        hint: String,
    },
    /// The `config.json` of a network cannot be used.
    #[error("{}: {problem}", path.display())]
    ModelConfig {
        /// the file
        path: PathBuf,
        /// the problem
        problem: ConfigProblem,
    },
    /// The checkpoint of a network cannot be used.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// the file, or the index of its shards
        path: PathBuf,
        /// the problem
        problem: CheckpointProblem,
    },
    /// A data set cannot be trained on.
    #[error("data set {name}: {message}")]
    DataSet {
        /// its name in the config
        name: String,
        /// the problem
        message: String,
        /// advice, empty if there is none
        hint: String,
    },
    /// The loss or its gradient became NaN or infinite. A further step would destroy the weights.
    #[error("step {step}: the {what} is {value}{}", of_rows(rows))]
    NotFinite {
        /// the optimizer step, from 0
        step: usize,
        /// `loss` or `gradient norm`
        what: &'static str,
        /// the value
        value: f64,
        /// the rows of the step's batches by file and line; empty if they are not known
        rows: String,
        /// the checkpoint to return to, if there is one
        checkpoint: Option<PathBuf>,
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

/// Rows as the end of a message.
fn of_rows(rows: &str) -> String {
    if rows.is_empty() { String::new() } else { format!(", in a step over the rows {rows}") }
}

/// `Result` with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<splade_core::Error> for Error {
    fn from(error: splade_core::Error) -> Self {
        Self::Files(error.into())
    }
}

impl From<candle_core::Error> for Error {
    /// Without the backtrace and its many lines, which candle puts into the text when `RUST_BACKTRACE` is set.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            bare => Self::Candle(bare),
        }
    }
}

impl Error {
    /// A file that could not be read or written, as a closure for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| splade_files::Error::Io { path, source }.into()
    }

    /// A file or folder that is not what it should be.
    pub fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        splade_files::Error::file(path, message).into()
    }

    /// This error about a file below `from` as one about the same file below `to`, where it is meant to be.
    pub(crate) fn moved(mut self, from: &Path, to: &Path) -> Self {
        use splade_files::Error::{File, Io};
        if let Self::Files(Io { path, .. } | File { path, .. }) = &mut self
            && let Ok(rest) = path.strip_prefix(from)
        {
            *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
        }
        self
    }

    /// An [`Error::Config`]; `key` is the full path.
    pub fn config(key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into(), hint: hint.into() }
    }

    /// An [`Error::DataSet`].
    pub fn data_set(name: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::DataSet { name: name.into(), message: message.into(), hint: hint.into() }
    }

    /// An [`Error::NotFinite`] whose rows are not known.
    pub(crate) fn not_finite(step: usize, what: &'static str, value: f64) -> Self {
        Self::NotFinite { step, what, value, rows: String::new(), checkpoint: None }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    /// Advice on what to do, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Files(error) => error.hint(),
            Self::Eval(error) => error.hint(),
            Self::ModelConfig { problem, .. } => problem.hint(),
            Self::Checkpoint { problem, .. } => problem.hint(),
            Self::NotFinite { checkpoint: Some(_), .. } => Some(
                "lower training.learning_rate or training.max_grad_norm, or mend the broken row, and resume from the last \
                 checkpoint",
            ),
            Self::NotFinite { checkpoint: None, .. } => Some(
                "lower training.learning_rate or training.max_grad_norm, raise training.warmup_ratio, or mend the broken row",
            ),
            Self::Config { hint, .. } | Self::DataSet { hint, .. } | Self::Invalid { hint, .. } => {
                (!hint.is_empty()).then_some(hint)
            }
            Self::Candle(_) => None,
        }
    }

    /// Keys of a model's `config.json` that are not known, if that is what stopped the load.
    #[must_use]
    pub fn unknown_config_keys(&self) -> &[String] {
        match self {
            Self::ModelConfig { problem: ConfigProblem::UnknownKeys(keys), .. } => keys,
            _ => &[],
        }
    }

    /// Kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Files(error) => error.kind(),
            Self::Eval(error) => error.kind(),
            Self::Config { .. }
            | Self::ModelConfig { .. }
            | Self::Checkpoint { .. }
            | Self::DataSet { .. }
            | Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::Candle(_) | Self::NotFinite { .. } => ErrorKind::Internal,
        }
    }
}
