//! State of the server: health, version, indexes, metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::Problems;
use crate::cli::Mode;
use crate::server::App;
use crate::server::problem::{Answered, Problem};

/// State of the process.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// ok
    status: &'static str,
}

/// Name and version of the program.
#[derive(Serialize, ToSchema)]
pub(crate) struct Version {
    name: &'static str,
    version: &'static str,
}

/// Indexes that are served.
#[derive(Serialize, ToSchema)]
pub(crate) struct Indexes {
    indexes: Vec<IndexBody>,
    /// limits of requests
    limits: LimitsBody,
    /// true if documents can be encoded
    encodes_documents: bool,
    /// true if documents can be added and deleted
    writable: bool,
}

/// An index that is served.
#[derive(Serialize, ToSchema)]
pub(crate) struct IndexBody {
    name: String,
    /// number of documents of the newest snapshot
    documents: usize,
    /// language of BM25
    language: String,
    /// fingerprint of the model of the vectors
    model_fingerprint: String,
    /// ranking modes
    modes: Vec<Mode>,
    /// typed fields, which filters and counts read
    fields: Vec<FieldBody>,
}

/// Typed field of an index.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldBody {
    name: String,
    /// keyword, int, float, date or bool
    kind: String,
}

/// Limits of requests.
#[derive(Serialize, ToSchema)]
pub(crate) struct LimitsBody {
    /// bytes of a body
    body: usize,
    /// queries, texts or documents of a request
    batch: usize,
    /// tokens of a query
    tokens: usize,
    /// hits of a query
    k: usize,
}

/// The process runs
#[utoipa::path(get, path = "/healthz", tag = "state", security(()),
    responses((status = 200, description = "The process runs", body = Status)))]
pub(crate) async fn healthz() -> axum::Json<Status> {
    axum::Json(Status { status: "ok" })
}

/// The server takes requests
#[utoipa::path(get, path = "/readyz", tag = "state", security(()),
    responses((status = 200, description = "The server takes requests", body = Status), Problems))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Answered<axum::Json<Status>> {
    if app.is_stopping.load(Ordering::SeqCst) {
        return Err(Problem::unavailable("the server stops"));
    }
    Ok(axum::Json(Status { status: "ok" }))
}

/// Name and version
#[utoipa::path(get, path = "/version", tag = "state",
    responses((status = 200, description = "Name and version of the program", body = Version), Problems))]
pub(crate) async fn version() -> axum::Json<Version> {
    axum::Json(Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") })
}

/// Indexes and limits
#[utoipa::path(get, path = "/v1/indexes", tag = "state",
    responses((status = 200, description = "Indexes that are served, and limits of requests", body = Indexes), Problems))]
pub(crate) async fn indexes(State(app): State<Arc<App>>) -> axum::Json<Indexes> {
    let index = |served: &Arc<crate::server::catalog::Served>| IndexBody {
        name: served.name.clone(),
        documents: served.searcher().len(),
        language: served.language().to_string(),
        model_fingerprint: served.index.settings().model_fingerprint.clone(),
        modes: served.modes(),
        fields: served
            .fields()
            .iter()
            .map(|field| FieldBody { name: field.name.clone(), kind: field.kind.to_string() })
            .collect(),
    };
    let limits = &app.limits;
    axum::Json(Indexes {
        indexes: app.catalog.all().iter().map(index).collect(),
        limits: LimitsBody { body: limits.body, batch: limits.batch, tokens: limits.tokens, k: limits.k },
        encodes_documents: app.documents.is_some(),
        writable: app.writers.is_some(),
    })
}

/// Metrics
///
/// Counters and histograms in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "state",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain; version=0.0.4"), Problems))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Answered<impl IntoResponse> {
    let text = app.metrics.text(app.pool.admitted(app.limits.concurrent))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
