//! [`Client`]: what is asked of the Hub, over which redirects, and what its answers mean.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::error::hub;
use super::id::{HubId, is_commit};
use super::{HubError, endpoint, path_of, token, variable};
use crate::failure::in_words;

/// How long no byte may come before a connection counts as broken, unless `HF_HUB_DOWNLOAD_TIMEOUT` says so.
const PATIENCE: u64 = 30;
/// A list of files longer than this is not one.
const LONGEST_LISTING: u64 = 64 << 20;
const MOST_REDIRECTS: usize = 10;

/// A revision, looked up.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// What the Hub says about a file without sending it.
#[derive(Debug)]
pub(super) struct Remote {
    /// names the bytes: their SHA-256 for large files, git's hash for others
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// The network's only door.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    /// the value of the header
    authorization: Option<String>,
}

impl Client {
    /// Speaks to nobody yet.
    ///
    /// # Errors
    /// An address in `HF_ENDPOINT` that is none, certificates that cannot be read, a token that is no word.
    pub(super) fn new() -> Result<Self, HubError> {
        let endpoint = endpoint();
        let is_web = endpoint.starts_with("https://") || endpoint.starts_with("http://");
        if !is_web || endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::len)).is_none_or(|host| host == 0)
        {
            return Err(HubError::input(
                format!("HF_ENDPOINT: {endpoint:?} is no address"),
                "give one like https://huggingface.co, or unset it",
            ));
        }
        let token = token();
        if token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            return Err(HubError::input("HF_TOKEN: not a token", "a token is one word such as hf_…"));
        }
        let patience = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.trim().parse().ok());
        let patience = Some(Duration::from_secs(patience.unwrap_or(PATIENCE).max(1)));
        let config = Agent::config_builder()
            .user_agent(concat!("splade/", env!("CARGO_PKG_VERSION")))
            // the sizes asked for are those of the files
            .accept_encoding("identity")
            .http_status_as_error(false)
            // followed here, since the token must not follow to another host
            .max_redirects(0)
            .timeout_connect(patience)
            .timeout_per_read(patience)
            .timeout_per_write(patience)
            .tls_config(TlsConfig::builder().root_certs(root_certs()?).build());
        let authorization = token.map(|token| format!("Bearer {token}"));
        Ok(Self { agent: config.build().into(), endpoint, authorization })
    }

    /// The commit a revision stands for now, and the names of its files.
    pub(super) fn revision(&self, id: &HubId, revision: &str) -> Result<Revision, HubError> {
        let url = format!("{}/api/models/{}/revision/{}", self.endpoint, id.name, escaped(revision, false));
        let response = self.send(false, &url, 0).map_err(|why| HubError::unreachable(id, &why))?;
        if !response.status().is_success() {
            return Err(self.refusal(id, &response));
        }
        let body = response.into_body().into_with_config().limit(LONGEST_LISTING).read_to_vec();
        let body = body.map_err(|error| HubError::unreachable(id, &words(error)))?;
        let read = || {
            let info: Value = serde_json::from_slice(&body).ok()?;
            let commit = info.get("sha")?.as_str().filter(|commit| is_commit(commit))?.to_owned();
            let name = |file: &Value| Some(file.get("rfilename")?.as_str()?.to_owned());
            let files = info.get("siblings")?.as_array()?.iter().filter_map(name).collect();
            Some(Revision { commit, files })
        };
        read()
            .ok_or_else(|| HubError::run(format!("{id}: {} answers with no list of files", hub()), "check HF_ENDPOINT"))
    }

    /// What a file of a commit is.
    pub(super) fn remote(&self, id: &HubId, commit: &str, file: &str) -> Result<Remote, HubError> {
        let url = self.file_url(id, commit, file);
        let response = self.send(true, &url, 0).map_err(|why| HubError::unreachable(id, &why))?;
        if !(response.status().is_success() || response.status().is_redirection()) {
            return Err(self.refusal(id, &response));
        }
        // of a large file, which lies elsewhere, the headers with `linked` speak
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let etag = etag.unwrap_or_default().trim_start_matches("W/").trim_matches('"').to_owned();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=128).contains(&etag.len()) || !etag.bytes().all(is_plain) || etag.starts_with('.') {
            return Err(HubError::run(format!("{id}: {} sends {file} without an ETag", hub()), "check HF_ENDPOINT"));
        }
        let length = || header(&response, "content-length").filter(|_| response.status().is_success());
        let size = header(&response, "x-linked-size").or_else(length);
        Ok(Remote { etag, size: size.and_then(|size| size.trim().parse().ok()) })
    }

    /// The bytes of a file from `start` on: an answer whose status may still be a refusal.
    ///
    /// # Errors
    /// In words, when there is no answer.
    pub(super) fn bytes(&self, id: &HubId, commit: &str, file: &str, start: u64) -> Result<Response<Body>, String> {
        self.send(false, &self.file_url(id, commit, file), start)
    }

    /// What a status that is no success means.
    pub(super) fn refusal(&self, id: &HubId, response: &Response<Body>) -> HubError {
        let (status, code) = (response.status().as_u16(), header(response, "x-error-code").unwrap_or_default());
        match (status, code) {
            (_, "GatedRepo") => HubError::gated(id),
            (404, "RevisionNotFound") => HubError::no_revision(id),
            (404, "EntryNotFound") => {
                HubError::run(format!("{id}: the file list names a file that is gone"), "run again")
            }
            (_, "RepoNotFound") => HubError::no_model(id),
            // the public Hub does not tell whether a model is there to those who may not see it
            (401, _) if self.authorization.is_some() => HubError::bad_token(id),
            (401 | 403 | 404, _) => HubError::no_model(id),
            (408 | 429 | 500 | 502..=504, _) => HubError::busy(id, status),
            _ => HubError::run(format!("{id}: {} answers {status}", hub()), "check HF_ENDPOINT"),
        }
    }

    fn file_url(&self, id: &HubId, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, id.name, escaped(file, true))
    }

    /// Sends a request along its redirects; the token is shown to the endpoint alone.
    ///
    /// `head` asks for headers only, and stops where a large file's bytes lie: what is wanted was in the answer before.
    fn send(&self, head: bool, url: &str, start: u64) -> Result<Response<Body>, String> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let mut request = if head { self.agent.head(&url) } else { self.agent.get(&url) };
            if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_endpoint(&url)) {
                request = request.header("authorization", authorization);
            }
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            tracing::debug!("{} {url}", if head { "HEAD" } else { "GET" });
            let response = request.call().map_err(words)?;
            let next = header(&response, "location").filter(|_| response.status().is_redirection());
            let Some(next) = next.map(|location| joined(&url, location)) else { return Ok(response) };
            if head && (header(&response, "x-linked-etag").is_some() || !self.is_endpoint(&next)) {
                return Ok(response);
            }
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err("it redirects to an address without encryption".to_owned());
            }
            url = next;
        }
        Err("it redirects without end".to_owned())
    }

    fn is_endpoint(&self, url: &str) -> bool {
        origin(url).is_some_and(|of_url| Some(of_url) == origin(&self.endpoint))
    }
}

/// A header as text.
pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// What went wrong with a connection, in lower case and without numbers of the system.
pub(super) fn words(error: ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => io_words(&error),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        other => other.to_string(),
    }
}

/// The same for what reading a body gave.
pub(super) fn io_words(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        TimedOut | WouldBlock => "no answer in time".to_owned(),
        UnexpectedEof | ConnectionReset | ConnectionAborted => "the connection broke".to_owned(),
        _ => match in_words(error) {
            words if words.starts_with("failed to lookup address") => "its name cannot be looked up".to_owned(),
            words => words,
        },
    }
}

/// The certificates trusted: those of `SSL_CERT_FILE`, for networks with a gate of their own, else Mozilla's.
fn root_certs() -> Result<RootCerts, HubError> {
    let Some(path) = path_of("SSL_CERT_FILE") else { return Ok(RootCerts::WebPki) };
    let failed = |why: String| HubError::input(format!("SSL_CERT_FILE: {}: {why}", path.display()), "");
    let bytes = std::fs::read(&path).map_err(|error| failed(in_words(&error)))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let certificates: Vec<_> = parse_pem(&bytes).filter_map(certificate).collect();
    if certificates.is_empty() {
        return Err(failed("no certificate in it".to_owned()));
    }
    Ok(RootCerts::from(certificates))
}

/// Scheme, host and port, which make two addresses the same server.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Where a `Location` leads from `url`.
fn joined(url: &str, location: &str) -> String {
    let scheme = url.find("://").map_or(0, |at| at + 3);
    let root = scheme + url[scheme..].find(['/', '?', '#']).unwrap_or(url.len() - scheme);
    if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}{location}", &url[..scheme.saturating_sub(2)])
    } else if location.starts_with('/') {
        format!("{}{location}", &url[..root])
    } else {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let folder = path.rfind('/').filter(|&at| at >= root).map_or(path, |at| &path[..at]);
        format!("{folder}/{location}")
    }
}

/// Percent-encoded as a part of a path, or as a path whose slashes stay.
fn escaped(text: &str, keep_slashes: bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        for (location, expected) in [
            ("https://cdn.example/x?y=1", "https://cdn.example/x?y=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/new/name/file", "https://hub.example:8080/new/name/file"),
            ("other", "https://hub.example:8080/a/other"),
        ] {
            assert_eq!(joined("https://hub.example:8080/a/b?c=/d", location), expected);
        }
        assert_eq!(joined("https://hub.example", "/x"), "https://hub.example/x");
        assert_eq!(joined("https://hub.example?x", "y"), "https://hub.example/y");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = [("https://hub.example/a", "HTTPS://HUB.example:443"), ("http://h", "http://h:80/x")];
        for (a, b) in same {
            assert_eq!(origin(a), origin(b), "{a} {b}");
        }
        for other in ["http://hub.example", "https://hub.example.evil", "https://hub.example:444", "https://hub"] {
            assert_ne!(origin("https://hub.example"), origin(other), "{other}");
        }
        // what comes before an @ is not the host
        assert_ne!(origin("https://hub.example"), origin("https://hub.example@evil.example/"));
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escaped("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(escaped("onnx/a b#é.json", true), "onnx/a%20b%23%C3%A9.json");
    }
}
