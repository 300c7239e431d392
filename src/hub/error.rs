//! What can go wrong with a model of the Hub, in the user's words.

use super::id::HubId;
use super::{cache_dir, endpoint, has_token};

/// A model that cannot be had: one line, what to do, and whose fault it is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct HubError {
    message: String,
    hint: String,
    kind: Kind,
    /// what keeps the Hub from answering, if that is it
    outage: Option<String>,
}

/// What the program may do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// nothing: what was asked for is not there, or not for this user
    Input,
    /// nothing: the answer makes no sense
    Run,
    /// take what is cached
    Unreachable,
    /// ask again in a moment, or take what is cached
    Busy,
}

impl HubError {
    /// What was asked for is wrong.
    pub(super) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: Kind::Input, outage: None }
    }

    /// It failed on the way.
    pub(super) fn run(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: Kind::Run, outage: None }
    }

    /// No connection.
    pub(super) fn unreachable(id: &HubId, why: &str) -> Self {
        let outage = format!("{} cannot be reached: {why}", hub());
        let hint = match why.contains("certificate") {
            true => "where a proxy signs connections with a certificate of its own, name that in SSL_CERT_FILE",
            false => "run again with a network; a model that is cached or in a folder needs none",
        };
        Self {
            message: format!("{id}: no such folder here, and {outage}"),
            hint: hint.to_owned(),
            kind: Kind::Unreachable,
            outage: Some(outage),
        }
    }

    /// A server that has no time.
    pub(super) fn busy(id: &HubId, status: u16) -> Self {
        let outage = format!("{} answers {status}", hub());
        Self {
            message: format!("{id}: {outage}"),
            hint: "run again in a while".to_owned(),
            kind: Kind::Busy,
            outage: Some(outage),
        }
    }

    /// Nobody with this name, as far as this user may know.
    pub(super) fn no_model(id: &HubId) -> Self {
        let token = match has_token() {
            true => "if it is private or gated, this token has no access",
            false => "if it is private or gated, set HF_TOKEN",
        };
        Self::input(
            format!("{}: no such folder here, and no such model on {}", id.name, hub()),
            format!("check the spelling; {token}"),
        )
    }

    /// A model without this branch, tag or commit.
    pub(super) fn no_revision(id: &HubId) -> Self {
        Self::input(
            format!("{}: no revision {:?} on {}", id.name, id.revision, hub()),
            "give a branch, a tag or a commit after the @",
        )
    }

    /// A model whose page has to be visited first.
    pub(super) fn gated(id: &HubId) -> Self {
        let todo = match has_token() {
            true => "ask for access on its page: this token has none",
            false => "ask for access on its page, then set HF_TOKEN",
        };
        Self::input(format!("{id}: gated, so only for those who were given access"), todo)
    }

    /// A token that is none, or none any more.
    pub(super) fn bad_token(id: &HubId) -> Self {
        Self::input(format!("{id}: {} does not accept the token", hub()), "set HF_TOKEN to a valid one, or remove it")
    }

    /// The network is forbidden, and the cache has not what is needed: nothing at all, or all but `what`.
    pub(super) fn offline(id: &HubId, what: Option<&str>) -> Self {
        let cache = cache_dir();
        let message = match what {
            None => format!("{id}: no such folder here, and not cached in {} (offline)", cache.display()),
            Some(what) => format!("{id}: cached in {} without {what} (offline)", cache.display()),
        };
        Self::input(message, "run once without --offline or HF_HUB_OFFLINE")
    }

    /// The same where it is the Hub that does not answer.
    pub(super) fn and_not_cached(self, id: &HubId, what: Option<&str>) -> Self {
        let cached = what.map_or_else(|| "not cached".to_owned(), |what| format!("cached without {what}"));
        Self { message: format!("{id}: {cached}, and {}", self.brief()), hint: "run again later".to_owned(), ..self }
    }

    /// Whether what is cached may stand in.
    pub(super) fn is_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// What keeps the Hub from answering, else the message.
    pub(super) fn brief(&self) -> &str {
        self.outage.as_deref().unwrap_or(&self.message)
    }

    /// Whether the same may well succeed in a moment.
    pub(super) fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        (!self.hint.is_empty()).then_some(self.hint.as_str())
    }

    /// True when the command line, a config or a token is at fault: exit code 2 rather than 1.
    pub(crate) fn is_bad_input(&self) -> bool {
        self.kind == Kind::Input
    }
}

/// The Hub's name; its address too where that is not the public one.
pub(super) fn hub() -> String {
    let endpoint = endpoint();
    if endpoint == "https://huggingface.co" { "the Hub".to_owned() } else { format!("the Hub at {endpoint}") }
}
