//! Calls of the Hub's API that an upload makes, and errors for their answers.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Destination;
use crate::http::escaped;
use crate::hub::HubError;
use crate::hub::client::{Answer, Client, GIT_LFS};
use crate::hub::download::with_retries;
use crate::hub::error::hub_name;
use crate::hub::id::is_commit;

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";
/// Longest part of an explanation by the Hub that is shown.
const EXPLANATION_CHARS_MAX: usize = 150;

/// Latest commit of a branch.
#[derive(Debug)]
pub(super) struct Head {
    /// none for a branch without a commit
    pub(super) commit: Option<String>,
    pub(super) is_private: bool,
}

/// Part of the Hub that stores a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// the commit itself
    Regular,
    /// the store of large files
    Large,
}

/// Decision of the Hub about a file.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) mode: Mode,
    /// hash of the file of this name that the branch has
    pub(super) hash: Option<String>,
    /// true if the repository's `.gitignore` names the file
    pub(super) is_ignored: bool,
}

/// Outcome of a commit.
#[derive(Debug)]
pub(super) enum Committed {
    /// the new commit
    Done(String),
    /// the branch has got another commit meanwhile
    Moved,
    /// there was no answer, so it may have arrived or not
    Unknown(HubError),
}

/// Name of the user of a token. `repo` is where the user wants to write.
///
/// # Errors
/// A token that is not valid or may only read.
pub(super) fn whoami(client: &Client, repo: &str) -> Result<String, HubError> {
    let url = format!("{}/api/whoami-v2", client.endpoint);
    let answer = with_retries(HubError::is_outage, || {
        let answer = client.get(&url).map_err(|why| HubError::no_answer(repo, &why))?;
        if answer.is_success() { Ok(answer) } else { Err(refusal(client, repo, "whoami", &answer)) }
    })?;
    let role = answer.body.pointer("/auth/accessToken/role").and_then(Value::as_str);
    if role == Some("read") {
        return Err(HubError::input(
            format!("{repo}: the token of {} may only read", source(client)),
            format!("create one that may write at {}/settings/tokens", client.endpoint),
        ));
    }
    let name = answer.body.get("name").and_then(Value::as_str).map(str::to_owned);
    name.ok_or_else(|| HubError::run(format!("{repo}: {} sends no user name", hub_name()), "check HF_ENDPOINT"))
}

impl Destination {
    /// Makes the repository. An existing one stays as it is.
    pub(super) fn create(&self, private: bool) -> Result<(), HubError> {
        let (owner, name) = self.id.name.split_once('/').unwrap_or_default();
        let mut body = json!({"type": "model", "name": name});
        if owner != self.user {
            body["organization"] = json!(owner);
        }
        if private {
            // older Hubs read the first key, newer ones the second
            body["private"] = json!(true);
            body["visibility"] = json!("private");
        }
        let url = format!("{}/api/repos/create", self.client.endpoint);
        let answer = self.post("create", &url, JSON, body.to_string().as_bytes(), |answer| {
            // 402 and 403: a token may write to a repository and not be allowed to make one
            answer.is_success() || matches!(answer.status, 402 | 403 | 409)
        })?;
        if !matches!(answer.status, 402 | 403) {
            return Ok(());
        }
        let refused = refusal(&self.client, &self.id.name, "create", &answer);
        match self.head() {
            // fails if the token may not write
            Ok(Some(_)) => self.preupload(&[json!({"path": "README.md", "size": 0, "sample": ""})]).map(drop),
            // making the branch fails if the token may not write
            Ok(None) => Ok(()),
            Err(_) => Err(refused),
        }
    }

    /// Makes the branch, unless the repository has it.
    pub(super) fn make_branch(&self) -> Result<(), HubError> {
        let url = format!("{}/branch/{}", self.api_url(), escaped(&self.id.revision, false));
        self.post("branch", &url, JSON, b"{}", |answer| answer.is_success() || answer.status == 409).map(drop)
    }

    /// Latest commit of the branch. None if there is no such branch.
    pub(super) fn head(&self) -> Result<Option<Head>, HubError> {
        let url = format!("{}/revision/{}", self.api_url(), escaped(&self.id.revision, false));
        let answer = with_retries(HubError::is_outage, || {
            let answer = self.client.get(&url).map_err(|why| HubError::no_answer(&self.id.name, &why))?;
            let is_expected = answer.is_success() || answer.code == "RevisionNotFound";
            if is_expected { Ok(answer) } else { Err(self.refusal("revision", &answer)) }
        })?;
        if !answer.is_success() {
            return Ok(None);
        }
        let commit = answer.body.get("sha").and_then(Value::as_str).filter(|commit| is_commit(commit));
        Ok(Some(Head { commit: commit.map(str::to_owned), is_private: is_private(&answer) }))
    }

    /// True if the repository is private.
    pub(super) fn is_private(&self) -> Result<bool, HubError> {
        let url = self.api_url();
        with_retries(HubError::is_outage, || {
            let answer = self.client.get(&url).map_err(|why| HubError::no_answer(&self.id.name, &why))?;
            if answer.is_success() { Ok(is_private(&answer)) } else { Err(self.refusal("model", &answer)) }
        })
    }

    /// Asks for the decisions about files (`path`, `size`, `sample` each), by path.
    pub(super) fn preupload(&self, files: &[Value]) -> Result<BTreeMap<String, Decision>, HubError> {
        let url = format!("{}/preupload/{}", self.api_url(), escaped(&self.id.revision, false));
        let body = json!({ "files": files }).to_string();
        let answer = self.post("preupload", &url, JSON, body.as_bytes(), Answer::is_success)?;
        let files = answer.body.get("files").and_then(Value::as_array);
        files.ok_or_else(|| self.malformed("preupload"))?.iter().map(|file| self.decision(file)).collect()
    }

    fn decision(&self, file: &Value) -> Result<(String, Decision), HubError> {
        let text = |key: &str| file.get(key).and_then(Value::as_str);
        let mode = match text("uploadMode") {
            Some("lfs") => Mode::Large,
            Some("regular") => Mode::Regular,
            _ => return Err(self.malformed("preupload")),
        };
        let name = text("path").ok_or_else(|| self.malformed("preupload"))?.to_owned();
        let is_ignored = file.get("shouldIgnore").and_then(Value::as_bool).unwrap_or(false);
        Ok((name, Decision { mode, hash: text("oid").map(str::to_owned), is_ignored }))
    }

    /// Asks the store how to upload objects, (hash, size) each. Returns the answer about each.
    pub(super) fn batch(&self, objects: &[(&str, u64)]) -> Result<Vec<Value>, HubError> {
        let url = format!("{}/{}.git/info/lfs/objects/batch", self.client.endpoint, self.id.name);
        let objects: Vec<Value> = objects.iter().map(|(oid, size)| json!({"oid": oid, "size": size})).collect();
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": {"name": self.id.revision},
        });
        let mut answer = self.post("lfs batch", &url, GIT_LFS, body.to_string().as_bytes(), Answer::is_success)?;
        match answer.body.get_mut("objects").map(Value::take) {
            Some(Value::Array(objects)) => Ok(objects),
            _ => Err(self.malformed("lfs batch")),
        }
    }

    /// Confirms an upload at an address of the Hub.
    pub(super) fn verify(&self, url: &str, oid: &str, size: u64) -> Result<(), HubError> {
        let body = json!({"oid": oid, "size": size}).to_string();
        self.post("verify", url, JSON, body.as_bytes(), Answer::is_success).map(drop)
    }

    /// Joins the uploaded parts of an object at an address that is signed.
    pub(super) fn complete(&self, url: &str, oid: &str, parts: &[Value]) -> Result<(), HubError> {
        let body = json!({"oid": oid, "parts": parts}).to_string();
        with_retries(HubError::is_outage, || {
            let answer = self.client.post_signed(url, GIT_LFS, body.as_bytes());
            let answer = answer.map_err(|why| HubError::no_answer(&self.id.name, &why))?;
            if answer.is_success() { Ok(()) } else { Err(self.refusal("complete", &answer)) }
        })
    }

    /// Sends a commit of these lines.
    pub(super) fn send_commit(&self, lines: &[u8]) -> Result<Committed, HubError> {
        let url = format!("{}/commit/{}", self.api_url(), escaped(&self.id.revision, false));
        let answer = match self.client.post(&url, JSON_LINES, lines) {
            Ok(answer) => answer,
            Err(why) => return Ok(Committed::Unknown(HubError::no_answer(&self.id.name, &why))),
        };
        if matches!(answer.status, 409 | 412) {
            return Ok(Committed::Moved);
        }
        if !answer.is_success() {
            let refused = self.refusal("commit", &answer);
            return if refused.is_outage() { Ok(Committed::Unknown(refused)) } else { Err(refused) };
        }
        let commit = answer.body.get("commitOid").and_then(Value::as_str);
        Ok(Committed::Done(commit.ok_or_else(|| self.malformed("commit"))?.to_owned()))
    }

    /// Sends a request until there is an answer that `expected` accepts, or an error that is not an outage.
    fn post(
        &self,
        what: &str,
        url: &str,
        content_type: &str,
        body: &[u8],
        expected: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, HubError> {
        with_retries(HubError::is_outage, || {
            let answer = self.client.post(url, content_type, body);
            let answer = answer.map_err(|why| HubError::no_answer(&self.id.name, &why))?;
            if expected(&answer) { Ok(answer) } else { Err(self.refusal(what, &answer)) }
        })
    }

    fn api_url(&self) -> String {
        format!("{}/api/models/{}", self.client.endpoint, self.id.name)
    }

    fn refusal(&self, what: &str, answer: &Answer) -> HubError {
        refusal(&self.client, &self.id.name, what, answer)
    }

    pub(super) fn malformed(&self, what: &str) -> HubError {
        let message =
            format!("{}: the answer of {} to {what} has another form than expected", self.id.name, hub_name());
        HubError::run(message, "check HF_ENDPOINT")
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

fn is_private(answer: &Answer) -> bool {
    answer.body.get("private").and_then(Value::as_bool).unwrap_or(false)
}

/// Line of a commit: its message and the commit that it follows.
pub(super) fn header_line(message: &str, parent: Option<&str>) -> Value {
    let mut value = json!({"summary": message, "description": ""});
    if let Some(parent) = parent {
        value["parentCommit"] = json!(parent);
    }
    json!({"key": "header", "value": value})
}

/// Line of a commit: a file.
pub(super) fn file_line(name: &str, bytes: &[u8]) -> Value {
    json!({"key": "file", "value": {"path": name, "content": encoded(bytes), "encoding": "base64"}})
}

/// Line of a commit: a file of the store.
pub(super) fn large_file_line(name: &str, oid: &str, size: u64) -> Value {
    json!({"key": "lfsFile", "value": {"path": name, "algo": "sha256", "oid": oid, "size": size}})
}

/// Bytes in base64.
pub(super) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Source of a client's token.
fn source(client: &Client) -> &str {
    client.token_source.as_deref().unwrap_or("nowhere")
}

/// Error for an answer whose status is not expected. `of` is the repository, and `what` the request.
fn refusal(client: &Client, of: &str, what: &str, answer: &Answer) -> HubError {
    let (hub, endpoint, source) = (hub_name(), &client.endpoint, source(client));
    let explanation = explanation(&answer.message);
    match answer.status {
        401 if answer.code != "RepoNotFound" => HubError::input(
            format!("{of}: {hub} does not accept the token of {source}"),
            format!("set HF_TOKEN to one that may write, from {endpoint}/settings/tokens"),
        ),
        403 => HubError::input(
            format!("{of}: the token of {source} may not write there{explanation}"),
            format!("give it write access at {endpoint}/settings/tokens, or name a repository of your own"),
        ),
        401 | 404 => HubError::input(
            format!("{of}: no such repository on {hub}, or the token of {source} cannot see it"),
            "check the spelling, and the access of the token",
        ),
        status @ (408 | 429 | 500 | 502..=504) => HubError::busy(&of, status),
        status => HubError::run(format!("{of}: {hub} answers {status} to {what}{explanation}"), ""),
    }
}

/// Explanation of the Hub in one line, after a colon; empty if there is none.
fn explanation(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return line;
    }
    let short: String = line.chars().take(EXPLANATION_CHARS_MAX).collect();
    format!(": {}{short}", if short.len() < line.len() { "(shortened) " } else { "" })
}
