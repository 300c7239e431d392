//! `POST /v1/explain`: scores of documents for a query, term by term, whatever their ranks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use splade_files::Query;
use utoipa::ToSchema;

use super::openapi::Problems;
use crate::answer::{Answerer, Detail, ExplainedJson, SearchSettings};
use crate::cli::Mode;
use crate::ranking::{DEPTH, Defaults, Untuned, resolve};
use crate::server::App;
use crate::server::body::{Json, Written};
use crate::server::catalog::Served;
use crate::server::problem::{Answered, Problem};

/// Query and documents to explain.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"query": "hvor mange bor i Oslo", "ids": ["d1"]}))]
pub(crate) struct ExplainBody {
    /// name of the index; it may be left out where only one is served
    index: Option<String>,
    /// text of the query
    query: String,
    /// ids of documents
    #[schema(min_items = 1)]
    ids: Vec<String>,
}

/// Explanations in the order of the ids.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainAnswer {
    /// one explanation for each id
    #[schema(value_type = Vec<ExplainedJson<'static>>)]
    documents: Vec<Box<RawValue>>,
}

/// Explain scores
///
/// Scores of any document, found or not: the terms that it shares with the query, whose scores add up to the sparse score, and
/// the words, whose scores add up to the BM25 score.
#[utoipa::path(
    post,
    path = "/v1/explain",
    tag = "search",
    request_body = ExplainBody,
    responses((status = 200, description = "An explanation of every document", body = ExplainAnswer), Problems)
)]
pub(crate) async fn explain(State(app): State<Arc<App>>, Json(body): Json<ExplainBody>) -> Answered<Written> {
    let served = app.catalog.get(body.index.as_deref())?;
    let most = app.limits.batch;
    if body.ids.is_empty() || body.ids.len() > most {
        return Err(Problem::invalid("/ids", format!("{} ids, expected 1 to {most}", body.ids.len())));
    }
    let most_tokens = app.limits.tokens;
    let work = move || explain_all(&served, body, most_tokens);
    app.pool.answer(async { app.pool.run(work).await? }).await
}

fn explain_all(served: &Served, body: ExplainBody, most_tokens: usize) -> Answered<Written> {
    served.expect_short(&body.query, most_tokens, "/query")?;
    let (tuned, language) = (served.tuned.as_ref(), served.language());
    let defaults = Defaults { tuned, language, depth: DEPTH, rankings: 2, untuned: Untuned::Scores };
    let ranking = resolve(&[Mode::Hybrid], &Default::default(), &Default::default(), defaults)?;
    let mut settings = SearchSettings::sparse(1, Detail::Words);
    settings.mode = Mode::Hybrid;
    settings.options.bm25 = ranking.bm25;
    let answerer = Answerer { dense: None, ..served.answerer(settings) };
    let query = Query { id: "1".into(), text: body.query };
    let ids = body.ids.iter().enumerate();
    let documents = ids.map(|(at, id)| explain_one(&answerer, &query, at, id)).collect::<Answered<_>>()?;
    Written::of(&ExplainAnswer { documents })
}

fn explain_one(answerer: &Answerer, query: &Query, at: usize, id: &str) -> Answered<Box<RawValue>> {
    let hit = answerer.explain_document(query, id)?.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "the index has no document of this id").at(format!("/ids/{at}"))
    })?;
    to_raw_value(&ExplainedJson::of(&hit)).map_err(|error| Problem::of(&error.into()))
}
