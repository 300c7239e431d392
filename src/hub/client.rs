//! [`Client`]: requests to the Hub with their redirects, and errors for its answers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

use super::error::hub_name;
use super::id::{HubId, Kind, is_commit};
use super::{HubError, endpoint, token};
use crate::environment;
use crate::failure::bad_input;
use crate::http::{
    HttpClient, Method, NetworkError, SendMethod, escaped, header, is_same_server, is_web_address, joined,
};

/// Default of `HF_HUB_DOWNLOAD_TIMEOUT`: time without a byte after which a connection counts as broken.
const TIMEOUT_SECONDS: u64 = 30;
/// Size of the largest accepted list of files.
const LISTING_BYTES_MAX: u64 = 64 << 20;
const REDIRECTS_MAX: usize = 10;
/// Type of the bodies of git-lfs.
pub(super) const GIT_LFS: &str = "application/vnd.git-lfs+json";

/// Commit of a revision, and the names of its files.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// Identity and size of a file on the Hub.
#[derive(Debug)]
pub(super) struct RemoteFile {
    /// identity of the bytes: SHA-256 for large files, git's hash for others
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// Answer of the Hub to a call of its API.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// header `x-error-code`, such as `RevisionNotFound`
    pub(super) code: String,
    /// explanation of an error; may be empty
    pub(super) message: String,
    /// null if it is not JSON
    pub(super) body: Value,
}

/// Client of the Hub.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) http: HttpClient,
    pub(super) endpoint: String,
    /// value of the header `authorization`
    authorization: Option<String>,
    /// where the token was found
    pub(super) token_source: Option<String>,
}

impl Client {
    /// Creates a client with the settings of the environment. It sends no request yet.
    ///
    /// # Errors
    /// A malformed address in `HF_ENDPOINT`, certificates that cannot be read, a malformed token.
    pub(super) fn new() -> Result<Self> {
        Self::with_timeout(TIMEOUT_SECONDS)
    }

    /// Creates a client as [`new`](Self::new) does, with this default of `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub(super) fn with_timeout(seconds: u64) -> Result<Self> {
        let endpoint = endpoint();
        if !is_web_address(&endpoint) {
            return Err(bad_input(
                format!("HF_ENDPOINT: {endpoint:?} is not a web address"),
                "set it to an address such as https://huggingface.co, or unset it",
            ));
        }
        let token = token();
        if let Some(token) = token.as_ref().filter(|token| !token.text.chars().all(|c| c.is_ascii_graphic())) {
            return Err(bad_input(format!("{}: not a token", token.source), "a token is one word such as hf_…"));
        }
        let set = environment::text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.trim().parse().ok());
        let http = HttpClient::new(Duration::from_secs(set.unwrap_or(seconds).max(1)))?;
        let authorization = token.as_ref().map(|token| format!("Bearer {}", token.text));
        Ok(Self { http, endpoint, authorization, token_source: token.map(|token| token.source) })
    }

    /// Current commit of a revision, and the names of its files.
    pub(super) fn revision(&self, id: &HubId, revision: &str) -> Result<Revision, HubError> {
        let url =
            format!("{}/api/{}/{}/revision/{}", self.endpoint, id.kind.plural(), id.name, escaped(revision, false));
        let response = self.send(Method::Get, &url, 0).map_err(|why| HubError::unreachable(id, &why))?;
        if !response.status().is_success() {
            return Err(self.refusal(id, &response));
        }
        let body = response.into_body().into_with_config().limit(LISTING_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| HubError::unreachable(id, &error.into()))?;
        let read = || {
            let info: Value = serde_json::from_slice(&body).ok()?;
            let commit = info.get("sha")?.as_str().filter(|commit| is_commit(commit))?.to_owned();
            let name = |file: &Value| Some(file.get("rfilename")?.as_str()?.to_owned());
            let files = info.get("siblings")?.as_array()?.iter().filter_map(name).collect();
            Some(Revision { commit, files })
        };
        read().ok_or_else(|| HubError::run(format!("{id}: {} sends no list of files", hub_name()), "check HF_ENDPOINT"))
    }

    /// Identity and size of a file of a commit.
    pub(super) fn remote(&self, id: &HubId, commit: &str, file: &str) -> Result<RemoteFile, HubError> {
        let url = self.file_url(id, commit, file);
        let response = self.send(Method::Head, &url, 0).map_err(|why| HubError::unreachable(id, &why))?;
        if !(response.status().is_success() || response.status().is_redirection()) {
            return Err(self.refusal(id, &response));
        }
        // a large file is on another server, and the headers with `linked` describe it
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let etag = etag.unwrap_or_default().trim_start_matches("W/").trim_matches('"').to_owned();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=128).contains(&etag.len()) || !etag.bytes().all(is_plain) || etag.starts_with('.') {
            return Err(HubError::run(
                format!("{id}: {} sends {file} without an ETag", hub_name()),
                "check HF_ENDPOINT",
            ));
        }
        let length = || header(&response, "content-length").filter(|_| response.status().is_success());
        let size = header(&response, "x-linked-size").or_else(length);
        Ok(RemoteFile { etag, size: size.and_then(|size| size.trim().parse().ok()) })
    }

    /// Requests the bytes of a file from `start` on. The status of the answer may be an error.
    ///
    /// # Errors
    /// No answer.
    pub(super) fn bytes(
        &self,
        id: &HubId,
        commit: &str,
        file: &str,
        start: u64,
    ) -> Result<Response<Body>, NetworkError> {
        self.send(Method::Get, &self.file_url(id, commit, file), start)
    }

    /// Error for an answer whose status is not a success.
    pub(super) fn refusal(&self, id: &HubId, response: &Response<Body>) -> HubError {
        let (status, code) = (response.status().as_u16(), header(response, "x-error-code").unwrap_or_default());
        match (status, code) {
            (_, "GatedRepo") => HubError::gated(id),
            (404, "RevisionNotFound") => HubError::no_revision(id),
            (404, "EntryNotFound") => {
                HubError::run(format!("{id}: the file list names a file that does not exist"), "run again")
            }
            (_, "RepoNotFound") => HubError::no_model(id),
            // the public Hub gives the same answer for a private model and for a missing one
            (401, _) if self.authorization.is_some() => HubError::bad_token(id),
            (401 | 403 | 404, _) => HubError::no_model(id),
            (408 | 429 | 500 | 502..=504, _) => HubError::busy(id, status),
            _ => HubError::run(format!("{id}: {} answers {status}", hub_name()), "check HF_ENDPOINT"),
        }
    }

    /// Calls the API with a GET request.
    ///
    /// # Errors
    /// No answer.
    pub(super) fn get(&self, url: &str) -> Result<Answer, NetworkError> {
        read_answer(self.send(Method::Get, url, 0)?)
    }

    /// Calls the API with a POST request, and repeats it where the Hub redirects it to. Only the endpoint receives the
    /// token.
    ///
    /// # Errors
    /// No answer.
    pub(super) fn post(&self, url: &str, content_type: &str, body: &[u8]) -> Result<Answer, NetworkError> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let authorization = self.authorization_for(&url);
            let response = self.post_once(&url, content_type, body, authorization)?;
            let is_repeated = matches!(response.status().as_u16(), 307 | 308);
            match header(&response, "location").filter(|_| is_repeated) {
                Some(location) => url = redirected(&url, location)?,
                None => return read_answer(response),
            }
        }
        Err(NetworkError::TooManyRedirects)
    }

    /// Calls a signed address, which needs no token.
    ///
    /// # Errors
    /// No answer.
    pub(super) fn post_signed(&self, url: &str, content_type: &str, body: &[u8]) -> Result<Answer, NetworkError> {
        read_answer(self.post_once(url, content_type, body, None)?)
    }

    fn post_once(
        &self,
        url: &str,
        content_type: &str,
        body: &[u8],
        authorization: Option<(&str, &str)>,
    ) -> Result<Response<Body>, NetworkError> {
        let mut headers = vec![("content-type", content_type), ("accept", accepted(content_type))];
        headers.extend(authorization);
        self.http.send_body(SendMethod::Post, url, &headers, body)
    }

    /// The header with the token, for addresses of the endpoint only.
    fn authorization_for(&self, url: &str) -> Option<(&str, &str)> {
        let authorization = self.authorization.as_ref().filter(|_| self.is_endpoint(url))?;
        Some(("authorization", authorization))
    }

    fn file_url(&self, id: &HubId, commit: &str, file: &str) -> String {
        let folder = match id.kind {
            Kind::Model => "",
            Kind::DataSet => "datasets/",
        };
        format!("{}/{folder}{}/resolve/{commit}/{}", self.endpoint, id.name, escaped(file, true))
    }

    /// Sends a request and follows redirects. Only the endpoint receives the token.
    ///
    /// [`Method::Head`] does not follow a redirect to another server: the redirect has the headers of the file.
    fn send(&self, method: Method, url: &str, start: u64) -> Result<Response<Body>, NetworkError> {
        let mut url = url.to_owned();
        let range = format!("bytes={start}-");
        for _ in 0..REDIRECTS_MAX {
            let mut headers = Vec::new();
            headers.extend(self.authorization_for(&url));
            if start > 0 {
                headers.push(("range", range.as_str()));
            }
            let response = self.http.send(method, &url, &headers)?;
            let next = header(&response, "location").filter(|_| response.status().is_redirection());
            let Some(next) = next.map(|location| joined(&url, location)) else { return Ok(response) };
            let is_elsewhere = header(&response, "x-linked-etag").is_some() || !self.is_endpoint(&next);
            if method == Method::Head && is_elsewhere {
                return Ok(response);
            }
            url = redirected(&url, &next)?;
        }
        Err(NetworkError::TooManyRedirects)
    }

    fn is_endpoint(&self, url: &str) -> bool {
        is_same_server(url, &self.endpoint)
    }
}

/// Address that an answer redirects to.
///
/// # Errors
/// A redirect from https to http.
pub(super) fn redirected(url: &str, location: &str) -> Result<String, NetworkError> {
    let next = joined(url, location);
    if url.starts_with("https://") && !next.starts_with("https://") {
        return Err(NetworkError::InsecureRedirect);
    }
    Ok(next)
}

/// Type of the answer to a body of this type: git-lfs has its own.
fn accepted(content_type: &str) -> &str {
    if content_type == GIT_LFS { GIT_LFS } else { "application/json" }
}

fn read_answer(response: Response<Body>) -> Result<Answer, NetworkError> {
    let text = |name: &str| header(&response, name).unwrap_or_default().to_owned();
    let (status, code, message) = (response.status().as_u16(), text("x-error-code"), text("x-error-message"));
    let bytes = response.into_body().into_with_config().limit(LISTING_BYTES_MAX).read_to_vec()?;
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let stated = ["error", "message"].iter().find_map(|key| body.get(key)?.as_str());
    let message = if message.is_empty() { stated.unwrap_or_default().to_owned() } else { message };
    Ok(Answer { status, code, message, body })
}
