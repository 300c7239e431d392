//! `POST /embed_sparse`, as Hugging Face's text-embeddings-inference has it.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use splade_core::SparseVector;
use utoipa::ToSchema;

use super::encode::{RoleBody, Texts, encode_and_write};
use super::openapi::Problems;
use crate::server::App;
use crate::server::body::{Json, Written};
use crate::server::problem::{Answered, Problem, Tei};

/// A text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Inputs {
    /// a text
    One(String),
    /// several texts
    Many(Vec<String>),
}

/// Side from which texts are truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
enum Truncation {
    /// the end is left out
    Right,
    /// the start is left out, which this server does not do
    Left,
}

/// Texts to embed.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"inputs": ["hvor mange bor i Oslo"], "role": "query"}))]
pub(crate) struct EmbedBody {
    /// a text or several
    inputs: Inputs,
    /// truncation of texts that are longer than the model reads; default: false, which refuses them
    truncate: Option<bool>,
    /// side from which texts are truncated: Right
    truncation_direction: Option<Truncation>,
    /// side of the model, which text-embeddings-inference does not know; default: document where the server has a network, else query
    role: Option<RoleBody>,
    /// name of the index whose queries are encoded; it may be left out where only one is served
    index: Option<String>,
}

/// Weight of a dimension.
#[derive(Serialize, ToSchema)]
pub(crate) struct SparseValue {
    index: u32,
    value: f32,
}

/// Embed texts as sparse vectors
///
/// The request and the answer are those of Hugging Face's text-embeddings-inference.
#[utoipa::path(
    post,
    path = "/embed_sparse",
    tag = "encode",
    request_body = EmbedBody,
    responses((status = 200, description = "A vector of every text", body = Vec<Vec<SparseValue>>), Problems)
)]
pub(crate) async fn embed_sparse(State(app): State<Arc<App>>, body: Answered<Json<EmbedBody>>) -> Result<Written, Tei> {
    Ok(embed(&app, body?.0).await?)
}

async fn embed(app: &Arc<App>, body: EmbedBody) -> Answered<Written> {
    let served = app.catalog.get(body.index.as_deref())?;
    let texts = match body.inputs {
        Inputs::One(text) => vec![text],
        Inputs::Many(texts) => texts,
    };
    let most = app.limits.batch;
    if texts.is_empty() || texts.len() > most {
        // the status of text-embeddings-inference for a batch that is too large
        return Err(Problem::too_large(format!("{} texts, expected 1 to {most}", texts.len())).at("/inputs"));
    }
    if body.truncation_direction == Some(Truncation::Left) {
        return Err(Problem::invalid("/truncation_direction", "texts are truncated at their end: Right"));
    }
    let role = body.role.unwrap_or(if app.documents.is_some() { RoleBody::Document } else { RoleBody::Query });
    let truncates = body.truncate.unwrap_or(false);
    let work = async {
        let is_checked = role == RoleBody::Document && !truncates;
        let texts = if is_checked { expect_short(app, texts).await? } else { texts };
        encode_and_write(app, served, Texts { texts, role, pointer: "/inputs" }, write).await
    };
    app.pool.answer(work).await
}

fn write(vectors: Vec<SparseVector>) -> Answered<Written> {
    let values = |vector: &SparseVector| vector.iter().map(|(index, value)| SparseValue { index, value }).collect();
    Written::of(&vectors.iter().map(values).collect::<Vec<Vec<SparseValue>>>())
}

/// Returns the texts, unless the network would truncate one.
async fn expect_short(app: &Arc<App>, texts: Vec<String>) -> Answered<Vec<String>> {
    let shared = Arc::clone(app);
    let count = move || -> Answered<Vec<String>> {
        let Some(documents) = &shared.documents else { return Ok(texts) };
        let most = documents.max_length();
        for (at, text) in texts.iter().enumerate() {
            let tokens = documents.count_tokens(text)?;
            if tokens > most {
                let detail = format!("the text has {tokens} tokens, more than {most}: set truncate to true");
                return Err(Problem::too_large(detail).at(format!("/inputs/{at}")));
            }
        }
        Ok(texts)
    };
    app.pool.run(count).await?
}
