//! [`HttpClient`]: the only HTTP client of the program, with time limits, proxies and trusted certificates.
//!
//! Proxies come from `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. Redirects are left to the caller, which
//! sends its credentials to certain hosts only.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Result;
use ureq::config::Config;
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, AsSendBody, Body};

use crate::environment;
use crate::failure::{bad_input, in_words};

/// Method of a request without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    /// headers only
    Head,
    Delete,
}

/// Method of a request with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendMethod {
    Post,
    Put,
    Patch,
}

/// Client that sends one request at a time.
#[derive(Debug)]
pub(crate) struct HttpClient {
    agent: Agent,
}

/// Reason why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkError {
    HostNotFound,
    Timeout,
    /// the connection was refused, or ended before the answer was complete
    Broken(String),
    /// the server's certificate is not trusted
    Certificate(String),
    /// a redirect from https to http
    InsecureRedirect,
    TooManyRedirects,
    Other(String),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNotFound => "its name cannot be looked up",
            Self::Timeout => "no answer in time",
            Self::InsecureRedirect => "it redirects to an address without encryption",
            Self::TooManyRedirects => "it redirects without end",
            Self::Certificate(why) => return write!(f, "its certificate is not trusted: {why}"),
            Self::Broken(why) | Self::Other(why) => why,
        })
    }
}

impl HttpClient {
    /// Creates a client whose requests fail if no byte arrives for `timeout`. It sends no request yet.
    ///
    /// # Errors
    /// Certificates in `SSL_CERT_FILE` that cannot be read.
    pub(crate) fn new(timeout: Duration) -> Result<Self> {
        let timeout = Some(timeout);
        let config = Agent::config_builder()
            .user_agent(concat!("splade/", env!("CARGO_PKG_VERSION")))
            // without compression, sizes and ranges are those of the files
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .tls_config(TlsConfig::builder().root_certs(root_certs()?).build());
        Ok(Self { agent: Agent::with_parts(config.build(), DefaultConnector::default(), NamedResolver::default()) })
    }

    /// Sends a request and returns the answer, whatever its status.
    ///
    /// # Errors
    /// No answer.
    pub(crate) fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>, NetworkError> {
        let mut request = match method {
            Method::Get => self.agent.get(url),
            Method::Head => self.agent.head(url),
            Method::Delete => self.agent.delete(url),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        tracing::debug!("{} {url}", request.method_ref().map_or("", |method| method.as_str()));
        request.call().map_err(NetworkError::from)
    }

    /// Sends a request with a body and returns the answer, whatever its status. A body of unknown size needs the header
    /// `content-length`.
    ///
    /// # Errors
    /// No answer.
    pub(crate) fn send_body(
        &self,
        method: SendMethod,
        url: &str,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
    ) -> Result<Response<Body>, NetworkError> {
        let (name, mut request) = match method {
            SendMethod::Post => ("POST", self.agent.post(url)),
            SendMethod::Put => ("PUT", self.agent.put(url)),
            SendMethod::Patch => ("PATCH", self.agent.patch(url)),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // what follows the ? of a store's address is a signature
        tracing::debug!("{name} {}", url.split('?').next().unwrap_or(url));
        request.send(body).map_err(NetworkError::from)
    }

    /// Sends JSON and returns the answer, whatever its status.
    ///
    /// # Errors
    /// No answer.
    #[cfg(feature = "train")]
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &serde_json::Value,
    ) -> Result<Response<Body>, NetworkError> {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send_body(SendMethod::Post, url, &headers, body.to_string())
    }
}

/// Resolver of the system. Its errors become [`ureq::Error::HostNotFound`], so that no error text has to be searched.
#[derive(Debug, Default)]
struct NamedResolver(DefaultResolver);

impl Resolver for NamedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(|error| match error {
            ureq::Error::Io(_) => ureq::Error::HostNotFound,
            other => other,
        })
    }
}

impl From<ureq::Error> for NetworkError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Io(error) => error.into(),
            ureq::Error::HostNotFound => Self::HostNotFound,
            ureq::Error::Timeout(_) => Self::Timeout,
            ureq::Error::Rustls(error) => error.into(),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<io::Error> for NetworkError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return error.clone().into();
        }
        match error.kind() {
            TimedOut | WouldBlock => Self::Timeout,
            BrokenPipe | UnexpectedEof | ConnectionReset | ConnectionAborted => {
                Self::Broken("the connection broke".to_owned())
            }
            _ => Self::Broken(in_words(&error)),
        }
    }
}

impl From<rustls::Error> for NetworkError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => Self::Certificate(why.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Trusted certificates: those of `SSL_CERT_FILE`, else Mozilla's. A network needs the former if its proxy signs
/// connections itself.
fn root_certs() -> Result<RootCerts> {
    let Some(path) = environment::path("SSL_CERT_FILE") else { return Ok(RootCerts::WebPki) };
    let failed = |why: String| bad_input(format!("SSL_CERT_FILE: {}: {why}", path.display()), "");
    let bytes = std::fs::read(&path).map_err(|error| failed(in_words(&error)))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let certificates: Vec<_> = parse_pem(&bytes).filter_map(certificate).collect();
    if certificates.is_empty() {
        return Err(failed("the file has no certificate".to_owned()));
    }
    Ok(RootCerts::from(certificates))
}

/// Value of a header, if it is text.
pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// True for `http` and `https` addresses with a host.
pub(crate) fn is_web_address(url: &str) -> bool {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    is_web && url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

/// True if two addresses have the same scheme, host and port.
pub(crate) fn is_same_server(a: &str, b: &str) -> bool {
    server(a).is_some_and(|of_a| Some(of_a) == server(b))
}

fn server(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Address that a `Location` header in the answer of `url` stands for.
pub(crate) fn joined(url: &str, location: &str) -> String {
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

/// Percent-encodes a text for a path. Slashes are kept if `keep_slashes` is true.
pub(crate) fn escaped(text: &str, keep_slashes: bool) -> String {
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
    fn a_server_is_scheme_host_and_port() {
        let same = [("https://hub.example/a", "HTTPS://HUB.example:443"), ("http://h", "http://h:80/x")];
        for (a, b) in same {
            assert!(is_same_server(a, b), "{a} {b}");
        }
        for other in ["http://hub.example", "https://hub.example.evil", "https://hub.example:444", "https://hub"] {
            assert!(!is_same_server("https://hub.example", other), "{other}");
        }
        // the part before an @ is not the host
        assert!(!is_same_server("https://hub.example", "https://hub.example@evil.example/"));
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escaped("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(escaped("onnx/a b#é.json", true), "onnx/a%20b%23%C3%A9.json");
    }

    #[test]
    fn failures_have_kinds() {
        let io = |kind| NetworkError::from(io::Error::from(kind));
        assert_eq!(io(io::ErrorKind::TimedOut), NetworkError::Timeout);
        assert_eq!(io(io::ErrorKind::ConnectionReset).to_string(), "the connection broke");
        assert_eq!(NetworkError::from(ureq::Error::HostNotFound), NetworkError::HostNotFound);
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = NetworkError::from(io::Error::new(io::ErrorKind::InvalidData, unknown));
        assert!(matches!(wrapped, NetworkError::Certificate(_)), "{wrapped:?}");
    }

    #[test]
    fn only_web_addresses_with_a_host_are_accepted() {
        for url in ["https://hub.example", "http://127.0.0.1:8080/x"] {
            assert!(is_web_address(url), "{url}");
        }
        for url in ["", "hub.example", "ftp://hub.example", "https://", "http:///x"] {
            assert!(!is_web_address(url), "{url}");
        }
    }
}
