//! [`EngineError`]: reason why an engine did not do what was requested.

use std::time::Duration;

use crate::failure::Failure;

/// A failed call to an engine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{failure}")]
pub(crate) struct EngineError {
    #[source]
    failure: Failure,
    kind: EngineErrorKind,
}

/// Kinds of errors, by what may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineErrorKind {
    /// no answer, or an engine that is busy: the same request may succeed later
    Outage {
        /// pause that the engine asks for
        retry_after: Option<Duration>,
    },
    /// a request whose content the engine does not take; part of it may be taken
    Content,
    /// anything else
    Final,
}

impl EngineError {
    /// An error that may pass.
    pub(crate) fn outage(message: impl Into<String>, hint: &str, retry_after: Option<Duration>) -> Self {
        Self { failure: Failure::run(message, hint), kind: EngineErrorKind::Outage { retry_after } }
    }

    /// An error of the content of a request.
    pub(crate) fn content(message: impl Into<String>) -> Self {
        Self { failure: Failure::run(message, ""), kind: EngineErrorKind::Content }
    }

    /// An error that stays.
    pub(crate) fn run(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { failure: Failure::run(message, hint), kind: EngineErrorKind::Final }
    }

    /// An error in what the user asks for: exit code 2.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { failure: Failure::input(message, hint), kind: EngineErrorKind::Final }
    }

    /// Kind of the error.
    pub(crate) fn kind(&self) -> EngineErrorKind {
        self.kind
    }
}
