//! [`Problem`]: an error as an answer, `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use splade_core::ErrorKind;
use utoipa::ToSchema;

use crate::failure;

/// Error of a request: a status, a sentence, and the place in the body that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    detail: String,
    /// JSON pointer (RFC 6901) of a member of the body
    pointer: Option<String>,
    /// seconds after which the request may succeed
    retry_after: Option<u64>,
}

/// Body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// `about:blank`: the status says what kind of problem it is
    r#type: &'static str,
    /// name of the status
    title: String,
    /// status of the answer
    status: u16,
    /// one sentence for a person
    detail: String,
    /// JSON pointer (RFC 6901) of the member of the body that the problem is about
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// at /embed_sparse: the sentence once more, as text-embeddings-inference names it
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// at /embed_sparse: kind of the problem, as text-embeddings-inference names it
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
}

/// `Result` with a [`Problem`].
pub(crate) type Answered<T> = Result<T, Problem>;

impl Problem {
    /// A problem of this status.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), pointer: None, retry_after: None }
    }

    /// A body that can be read, but not be processed.
    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(pointer)
    }

    /// A body or a list in it that is larger than the server takes.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// A state of the server that ends by itself.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// More requests than the server takes.
    pub(crate) fn too_many(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// This problem, about a member of the body.
    pub(crate) fn at(self, pointer: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..self }
    }

    /// The problem of an error of the index or an encoder. Details of a failure inside the server are logged and not sent.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let detail = || match hint_of(error) {
            Some(hint) => format!("{}: {hint}", failure::one_line(error)),
            None => failure::one_line(error),
        };
        match kind_of(error) {
            ErrorKind::InvalidInput => Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail()),
            ErrorKind::Busy => Self::unavailable("another process writes to the index: try again later"),
            _ => {
                tracing::error!("{}", failure::one_line(error));
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed: its log has the reason")
            }
        }
    }
}

/// Kind of the first error of a library crate in the chain.
fn kind_of(error: &anyhow::Error) -> ErrorKind {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<splade_index::Error>() {
            return error.kind();
        }
        match cause.downcast_ref::<splade_core::Error>() {
            // the text is at fault, since the tokenizer reads others
            Some(splade_core::Error::Tokenizer(_)) => return ErrorKind::InvalidInput,
            Some(error) => return error.kind(),
            None => {}
        }
    }
    ErrorKind::Internal
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let of_index = cause.downcast_ref::<splade_index::Error>().and_then(splade_index::Error::hint);
        of_index.or_else(|| cause.downcast_ref::<splade_core::Error>()?.hint()).map(str::to_owned)
    })
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::of(&error)
    }
}

/// A problem with the members that clients of text-embeddings-inference read.
pub(crate) struct Tei(Problem);

impl From<Problem> for Tei {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Tei {
    fn into_response(self) -> Response {
        let error_type = match self.0.status.as_u16() {
            400 | 408 | 413 | 415 => "Validation",
            422 => "Tokenizer",
            429 => "Overloaded",
            503 => "Unhealthy",
            _ => "Backend",
        };
        self.0.into_response_with(Some(error_type))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_response_with(None)
    }
}

impl Problem {
    fn into_response_with(self, error_type: Option<&'static str>) -> Response {
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            error: error_type.map(|_| self.detail.clone()),
            detail: self.detail,
            pointer: self.pointer,
            error_type,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
