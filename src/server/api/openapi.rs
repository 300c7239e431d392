//! The description of the interface in OpenAPI, made from the types of requests and answers.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::{documents, encode, explain, search, state, tei};
use crate::server::problem::ProblemBody;

/// Problems that every request may get.
#[derive(IntoResponses)]
#[allow(dead_code)] // read by the derive alone
pub(crate) enum Problems {
    /// The body is not JSON, or the head of the request is malformed
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(ProblemBody),
    /// The request has none of the server's keys
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemBody),
    /// The request is for another host than the server, or the server is not writable
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody),
    /// There is no such index, document or path
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody),
    /// The path has another method
    #[response(status = 405, content_type = "application/problem+json")]
    Method(ProblemBody),
    /// The body did not arrive in time
    #[response(status = 408, content_type = "application/problem+json")]
    Slow(ProblemBody),
    /// The body is larger than the server reads
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemBody),
    /// The body is not sent as JSON
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(ProblemBody),
    /// A member of the body is invalid, or beyond a limit
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(ProblemBody),
    /// The server answers as many requests as it may; the header retry-after has seconds
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(ProblemBody),
    /// The server failed
    #[response(status = 500, content_type = "application/problem+json")]
    Failed(ProblemBody),
    /// The request took too long, or the server stops; the header retry-after has seconds
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody),
}

/// Scheme of the keys of `--api-key-file`.
struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "splade serve", description = "Search by learned sparse vectors, BM25 and both fused."),
    components(schemas(ProblemBody)),
    modifiers(&Keys),
    security((), ("key" = [])),
    tags(
        (name = "search", description = "Hits and their scores"),
        (name = "encode", description = "Sparse vectors of texts"),
        (name = "documents", description = "Changes of an index"),
        (name = "state", description = "State of the server")
    ),
    paths(
        search::search,
        explain::explain,
        encode::encode,
        tei::embed_sparse,
        documents::change,
        state::indexes,
        state::version,
        state::healthz,
        state::readyz,
        state::metrics
    )
)]
struct Description;

/// The description as JSON.
pub(crate) async fn openapi() -> impl IntoResponse {
    static JSON: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], JSON.as_str())
}
