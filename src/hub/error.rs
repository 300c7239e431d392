//! [`HubError`]: a model of the Hub that is not available.

use super::id::{HubId, Kind};
use super::{cache_dir, endpoint, has_token};
use crate::failure::Failure;
use crate::http::NetworkError;

/// Error of a model of the Hub; its source is the [`Failure`] that is reported.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{failure}")]
pub(super) struct HubError {
    #[source]
    failure: Failure,
    /// set if the Hub gave no answer
    outage: Option<Outage>,
}

/// Reason why the Hub gives no answer.
#[derive(Debug, Clone)]
enum Outage {
    /// no connection
    Unreachable(String),
    /// the server asks to try again later
    Busy(String),
}

impl Outage {
    fn message(&self) -> &str {
        match self {
            Self::Unreachable(message) | Self::Busy(message) => message,
        }
    }
}

impl From<Failure> for HubError {
    fn from(failure: Failure) -> Self {
        Self { failure, outage: None }
    }
}

impl HubError {
    /// An error in the id, the token or the model: exit code 2.
    pub(super) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::input(message, hint).into()
    }

    /// Any other error: exit code 1.
    pub(super) fn run(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::run(message, hint).into()
    }

    /// No connection to the Hub.
    pub(super) fn unreachable(id: &HubId, why: &NetworkError) -> Self {
        let outage = format!("{} cannot be reached: {why}", hub_name());
        let hint = match why {
            NetworkError::Certificate(_) => {
                "if a proxy signs connections itself, set SSL_CERT_FILE to the file of its certificate"
            }
            _ => "run again with a network; what is cached or in a folder needs none",
        };
        Self {
            failure: Failure::run(format!("{id}: {}{outage}", no_folder(id)), hint),
            outage: Some(Outage::Unreachable(outage)),
        }
    }

    /// No answer to a request of an upload; `of` is the repository, or a file of it.
    pub(super) fn no_answer(of: &str, why: &NetworkError) -> Self {
        let outage = format!("{} cannot be reached: {why}", hub_name());
        let failure = Failure::run(format!("{of}: {outage}"), "run again: what is uploaded is not sent again");
        Self { failure, outage: Some(Outage::Unreachable(outage)) }
    }

    /// An answer that asks to try again later; `of` is a model, or a file of it.
    pub(super) fn busy(of: &impl std::fmt::Display, status: u16) -> Self {
        let outage = format!("{} answers {status}", hub_name());
        Self { failure: Failure::run(format!("{of}: {outage}"), "run again later"), outage: Some(Outage::Busy(outage)) }
    }

    /// A model that does not exist, or that this token cannot see.
    pub(super) fn no_model(id: &HubId) -> Self {
        let token = match has_token() {
            true => "if it is private or gated, this token has no access",
            false => "if it is private or gated, set HF_TOKEN",
        };
        Self::input(
            format!("{}: {}no such {} on {}", id.name, no_folder(id), id.kind.noun(), hub_name()),
            format!("check the spelling; {token}"),
        )
    }

    /// A model without this branch, tag or commit.
    pub(super) fn no_revision(id: &HubId) -> Self {
        Self::input(
            format!("{}: no revision {:?} on {}", id.name, id.revision, hub_name()),
            "give a branch, a tag or a commit after the @",
        )
    }

    /// A model whose terms must be accepted first.
    pub(super) fn gated(id: &HubId) -> Self {
        let hint = match has_token() {
            true => "request access on its page: this token has no access",
            false => "request access on its page, then set HF_TOKEN",
        };
        Self::input(format!("{id}: gated: only users with access can download it"), hint)
    }

    /// A token that is not valid.
    pub(super) fn bad_token(id: &HubId) -> Self {
        let message = format!("{id}: {} does not accept the token", hub_name());
        Self::input(message, "set HF_TOKEN to a valid token, or unset it")
    }

    /// A model, or its part `what`, that is not cached while the network is forbidden.
    pub(super) fn offline(id: &HubId, what: Option<&str>) -> Self {
        let cache = cache_dir();
        let message = match what {
            None => format!("{id}: {}not cached in {} (offline)", no_folder(id), cache.display()),
            Some(what) => format!("{id}: cached in {} without {what} (offline)", cache.display()),
        };
        Self::input(message, "run once without --offline or HF_HUB_OFFLINE")
    }

    /// Adds to an outage that the model, or its part `what`, is not cached.
    pub(super) fn and_not_cached(self, id: &HubId, what: Option<&str>) -> Self {
        let cached = what.map_or_else(|| "not cached".to_owned(), |what| format!("cached without {what}"));
        let failure = Failure::run(format!("{id}: {cached}, and {}", self.brief()), "run again later");
        Self { failure, ..self }
    }

    /// True if cached files may be used instead.
    pub(super) fn is_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// Message of the outage without the model, or the whole message of any other error.
    pub(super) fn brief(&self) -> String {
        self.outage.as_ref().map_or_else(|| self.failure.to_string(), |outage| outage.message().to_owned())
    }

    /// True if the same request may succeed in a moment.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.outage, Some(Outage::Busy(_)))
    }
}

/// Start of a message about an id: a model can be a folder too, a data set cannot.
fn no_folder(id: &HubId) -> &'static str {
    match id.kind {
        Kind::Model => "no such folder here, and ",
        Kind::DataSet => "",
    }
}

/// Name of the Hub in messages, with its address unless it is the public Hub.
pub(super) fn hub_name() -> String {
    let endpoint = endpoint();
    if endpoint == "https://huggingface.co" { "the Hub".to_owned() } else { format!("the Hub at {endpoint}") }
}
