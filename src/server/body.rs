//! [`Json`]: the body of a request, read with limits of size and time, with the place of an error in it. [`Written`]: the body of
//! an answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use super::App;
use super::problem::{Answered, Problem};

/// Longest time for a body to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes that are parsed on the thread that read them, which takes less than a tenth of a millisecond.
const SHORT_BODY: usize = 16 << 10;

/// Body of a request as a value of `T`.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Answered<Self> {
        expect_json(request.headers())?;
        let bytes = read(request, app.limits.body).await?;
        if bytes.len() <= SHORT_BODY {
            return Ok(Self(parse(&bytes)?));
        }
        let parsed = app.pool.answer(app.pool.run(move || parse(&bytes))).await?;
        Ok(Self(parsed?))
    }
}

/// Answer that is written as JSON already: long ones take a thread of the pool.
pub(crate) struct Written(Vec<u8>);

impl Written {
    /// Writes an answer.
    ///
    /// # Errors
    /// None: numbers and texts can be written.
    pub(crate) fn of(answer: &impl Serialize) -> Answered<Self> {
        serde_json::to_vec(answer).map(Self).map_err(|error| Problem::of(&error.into()))
    }
}

impl IntoResponse for Written {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// Refuses a body of another type. Pages of other sites cannot send this one without the permission of the server.
fn expect_json(headers: &HeaderMap) -> Answered<()> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON, with the header content-type: application/json"))
}

async fn read(request: Request, most: usize) -> Answered<axum::body::Bytes> {
    let too_large = || Problem::too_large(format!("the body is larger than {most} bytes"));
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > most as u64) {
        return Err(too_large());
    }
    let body: Body = request.into_body();
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // the body was longer than the limit, or its connection broke: nobody reads the second answer
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// Parses a whole body, which is an object.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answered<T> {
    // a list of all members in their order would be read too
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid("", "the body is a list, expected an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        problem(error.inner()).at(pointer)
    })?;
    reader.end().map_err(|error| problem(&error))?;
    Ok(value)
}

fn problem(error: &serde_json::Error) -> Problem {
    let status = match error.classify() {
        Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
        Category::Syntax | Category::Eof | Category::Io => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, error.to_string())
}

/// JSON pointer (RFC 6901) of a place in a body.
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path.iter() {
        let name = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&name);
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)] // only errors are looked at
        names: Vec<Named>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Named {
        #[allow(dead_code)]
        #[serde(rename = "a/b")]
        name: String,
    }

    #[test]
    fn an_error_has_a_status_and_a_pointer() {
        let deep = "[".repeat(100_000);
        for (body, status, place) in [
            (r#"{"names": [{"a/b": "x"}, {"a/b": 3}]}"#, 422, "/names/1/a~1b"),
            (r#"{"names": 3}"#, 422, "/names"),
            (r#"{"name": []}"#, 422, "/name"),
            (r#"{"names": []} x"#, 400, ""),
            (r#"{"names": [NaN]}"#, 400, "/names/0"),
            ("", 400, ""),
            (&deep, 422, ""),
        ] {
            let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
            let found = serde_json::to_value(format!("{problem:?}")).unwrap();
            assert_eq!(problem.status.as_u16(), status, "{body:.40}: {found}");
            assert!(found.as_str().unwrap().contains(place), "{body:.40}: {found}");
        }
        assert!(parse::<Sample>(br#" {"names": [{"a/b": "x"}]} "#).is_ok());
        // not UTF-8
        assert_eq!(parse::<Sample>(b"{\"names\": [{\"a/b\": \"\xff\"}]}").unwrap_err().status.as_u16(), 400);
    }
}
