//! Layers around every request: keys, hosts, metrics and log lines.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::Problem;

/// Refuses requests without a key.
pub(super) async fn expect_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.keys.allow(request.headers()) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::UNAUTHORIZED, "a key is needed, in the header authorization: Bearer KEY").into_response()
}

/// Refuses requests for other hosts, where the address of this machine is all that protects the server.
///
/// A page of another site may have a name that means this machine (DNS rebinding): its requests name that host.
pub(super) async fn expect_host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !app.is_local || app.keys.are_needed() || is_local(request.headers()) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::FORBIDDEN, "the header host must be localhost or an address of this machine")
        .into_response()
}

/// True for an address or the name of this machine.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    // a request without a host comes from no browser
    host.is_none_or(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
    })
}

/// Counts and logs every request, and adds the headers that every answer has.
pub(super) async fn observe(
    State(app): State<Arc<App>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    // paths without a route are many, and metrics have few labels
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let known = ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"];
    let name = known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
    app.metrics.answered(name, route, status, start.elapsed());
    tracing::debug!(status, "{method} {route}: {status} in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let headers = [("x-content-type-options", "nosniff"), ("cache-control", "no-store")];
    for (header, value) in headers {
        let name = HeaderName::from_static(header);
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_hosts_are_addresses_and_localhost() {
        for (host, expected) in [
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("example.org", false),
            ("localhost.example.org:8080", false),
        ] {
            let headers = [(header::HOST, host.parse().unwrap())].into_iter().collect();
            assert_eq!(is_local(&headers), expected, "{host}");
        }
        assert!(is_local(&HeaderMap::new()));
    }
}
