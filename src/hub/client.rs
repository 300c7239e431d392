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
use crate::http::{HttpClient, Method, NetworkError, escaped, header, is_same_server, is_web_address, joined};

/// Default of `HF_HUB_DOWNLOAD_TIMEOUT`: time without a byte after which a connection counts as broken.
const TIMEOUT_SECONDS: u64 = 30;
/// Size of the largest accepted list of files.
const LISTING_BYTES_MAX: u64 = 64 << 20;
const REDIRECTS_MAX: usize = 10;

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

/// Client of the Hub.
#[derive(Debug)]
pub(super) struct Client {
    http: HttpClient,
    endpoint: String,
    /// value of the header `authorization`
    authorization: Option<String>,
}

impl Client {
    /// Creates a client with the settings of the environment. It sends no request yet.
    ///
    /// # Errors
    /// A malformed address in `HF_ENDPOINT`, certificates that cannot be read, a malformed token.
    pub(super) fn new() -> Result<Self> {
        let endpoint = endpoint();
        if !is_web_address(&endpoint) {
            return Err(bad_input(
                format!("HF_ENDPOINT: {endpoint:?} is not a web address"),
                "set it to an address such as https://huggingface.co, or unset it",
            ));
        }
        let token = token();
        if token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            return Err(bad_input("HF_TOKEN: not a token", "a token is one word such as hf_…"));
        }
        let seconds = environment::text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.trim().parse().ok());
        let http = HttpClient::new(Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS).max(1)))?;
        Ok(Self { http, endpoint, authorization: token.map(|token| format!("Bearer {token}")) })
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
            if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_endpoint(&url)) {
                headers.push(("authorization", authorization.as_str()));
            }
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
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(NetworkError::InsecureRedirect);
            }
            url = next;
        }
        Err(NetworkError::TooManyRedirects)
    }

    fn is_endpoint(&self, url: &str) -> bool {
        is_same_server(url, &self.endpoint)
    }
}
