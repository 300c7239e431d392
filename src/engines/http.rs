//! [`JsonHttp`]: requests with JSON to one engine, over the program's HTTP client.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value as Json;
use ureq::Body;
use ureq::http::Response;

use super::{EngineError, EngineResult};
use crate::cli::EngineArgs;
use crate::environment;
use crate::failure::bad_input;
use crate::http::{HttpClient, Method, NetworkError, SendMethod, header, is_web_address};

/// Largest answer that is read, in bytes. The largest request of ids gets far less.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Longest part of an engine's explanation that is shown, in characters.
const EXPLANATION_CHARS_MAX: usize = 300;

/// Address and credentials of an engine.
pub(super) struct JsonHttp {
    client: HttpClient,
    /// without a slash at its end
    base: String,
    headers: Vec<(String, String)>,
}

/// Header that an engine reads an API key from.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHeader {
    /// name of the header
    pub(super) name: &'static str,
    /// text before the key
    pub(super) prefix: &'static str,
}

/// Answer with its status.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    /// null if the body is not JSON
    pub(super) body: Json,
    retry_after: Option<Duration>,
    /// the body as text, for messages
    text: String,
}

impl JsonHttp {
    /// Prepares requests to `--url`, with the API key or the user and password that the flags name.
    ///
    /// # Errors
    /// No address or none of the web, an environment variable that is not set.
    pub(super) fn new(args: &EngineArgs, key_header: KeyHeader) -> Result<Self> {
        let url = args.url()?;
        if !is_web_address(url) || url.contains(['?', '#', '@']) {
            return Err(bad_input(
                format!("--url {url}: not an address of the form http://host:port"),
                "credentials are given by --api-key-env, or by --user and --password-env",
            ));
        }
        let mut headers = Vec::new();
        if let Some(key) = secret("--api-key-env", args.api_key_env.as_deref())? {
            headers.push((key_header.name.to_owned(), format!("{}{key}", key_header.prefix)));
        }
        if let (Some(user), Some(password)) = (&args.user, secret("--password-env", args.password_env.as_deref())?) {
            headers
                .push(("authorization".to_owned(), format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))));
        }
        let client = HttpClient::new(Duration::from_secs(args.engine_timeout))?;
        Ok(Self { client, base: url.trim_end_matches('/').to_owned(), headers })
    }

    /// Sends GET.
    pub(super) fn get(&self, path: &str) -> EngineResult<HttpAnswer> {
        self.answer(path, |url, headers| self.client.send(Method::Get, url, headers))
    }

    /// Sends DELETE without a body.
    pub(super) fn delete(&self, path: &str) -> EngineResult<HttpAnswer> {
        self.answer(path, |url, headers| self.client.send(Method::Delete, url, headers))
    }

    /// Sends JSON.
    pub(super) fn send(&self, method: SendMethod, path: &str, body: &impl Serialize) -> EngineResult<HttpAnswer> {
        let body = serde_json::to_string(body);
        let body = body.map_err(|error| EngineError::run(format!("body of a request: {error}"), ""))?;
        self.send_text(method, path, "application/json", body)
    }

    /// Sends a text of this type, such as lines of JSON.
    pub(super) fn send_text(
        &self,
        method: SendMethod,
        path: &str,
        content_type: &str,
        body: String,
    ) -> EngineResult<HttpAnswer> {
        self.answer(path, |url, headers| {
            let headers = [&[("content-type", content_type)], headers].concat();
            self.client.send_body(method, url, &headers, body.as_bytes())
        })
    }

    fn answer(
        &self,
        path: &str,
        send: impl FnOnce(&str, &[(&str, &str)]) -> Result<Response<Body>, NetworkError>,
    ) -> EngineResult<HttpAnswer> {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let url = format!("{}{path}", self.base);
        let response = send(&url, &headers).map_err(|why| self.no_answer(&why))?;
        let status = response.status().as_u16();
        let retry_after = header(&response, "retry-after").and_then(|seconds| seconds.trim().parse().ok());
        let body = response.into_body().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.no_answer(&NetworkError::from(error)))?;
        Ok(HttpAnswer {
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            retry_after: retry_after.map(Duration::from_secs),
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Error of a request without an answer.
    fn no_answer(&self, why: &NetworkError) -> EngineError {
        let message = format!("{}: {why}", self.base);
        match why {
            NetworkError::Timeout | NetworkError::Broken(_) => EngineError::outage(
                message,
                "check that the engine runs there, or give a longer --engine-timeout",
                None,
            ),
            _ => EngineError::run(message, "check --url"),
        }
    }
}

impl HttpAnswer {
    /// True for the statuses of success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of an answer of success.
    ///
    /// # Errors
    /// Any other status. `what` says what was requested: `qdrant collection docs: upsert`.
    pub(super) fn expect_success(self, what: &str) -> EngineResult<Json> {
        if self.is_success() { Ok(self.body) } else { Err(self.refusal(what)) }
    }

    /// The error of an answer without success.
    pub(super) fn refusal(&self, what: &str) -> EngineError {
        let explanation = self.explanation();
        let message = format!("{what}: status {}{explanation}", self.status);
        match self.status {
            408 | 429 | 500 | 502 | 503 | 504 => EngineError::outage(message, "try again later", self.retry_after),
            401 | 403 => {
                EngineError::run(message, "give credentials by --api-key-env, or by --user and --password-env")
            }
            400 | 413 | 422 => EngineError::content(message),
            _ => EngineError::run(message, ""),
        }
    }

    /// Explanation by the engine, shortened, after a comma.
    fn explanation(&self) -> String {
        let paths = ["/status/error", "/error/reason", "/error/root_cause/0/reason", "/message", "/error"];
        let found = paths.iter().find_map(|path| self.body.pointer(path)?.as_str());
        let text = found.unwrap_or(&self.text).split_whitespace().collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(EXPLANATION_CHARS_MAX) {
            _ if text.is_empty() => String::new(),
            Some((end, _)) => format!(", {}…", &text[..end]),
            None => format!(", {text}"),
        }
    }
}

/// The value of the environment variable that `flag` names; none if the flag is not given.
///
/// # Errors
/// A variable that is not set.
pub(super) fn secret(flag: &str, variable: Option<&str>) -> Result<Option<String>> {
    let Some(variable) = variable else { return Ok(None) };
    match environment::text(variable) {
        Some(value) => Ok(Some(value.trim().to_owned())),
        None => Err(bad_input(
            format!("{flag} {variable}: the environment has no such variable"),
            "the flag names a variable whose value is the secret; the secret itself is not given on the command line",
        )),
    }
}
