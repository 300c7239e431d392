//! `POST /v1/encode`: texts → sparse vectors.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize, Serializer};
use splade_core::{Pruning, SparseVector};
use utoipa::ToSchema;

use super::openapi::Problems;
use super::settings::PruningBody;
use super::vector::VectorBody;
use crate::answer::QuerySide;
use crate::server::App;
use crate::server::body::{Json, Written};
use crate::server::catalog::Served;
use crate::server::problem::{Answered, Problem};

/// Side of the model that encodes texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleBody {
    /// as queries
    #[default]
    Query,
    /// as documents, by the network: the server needs `--model`
    Document,
}

/// Form of vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatBody {
    /// `indices` and `values`
    #[default]
    Indices,
    /// weights by token
    Tokens,
}

/// Texts to encode.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"texts": ["hvor mange bor i Oslo"], "format": "tokens"}))]
pub(crate) struct EncodeBody {
    /// name of the index whose queries are encoded; it may be left out where only one is served
    index: Option<String>,
    /// texts
    #[schema(min_items = 1)]
    texts: Vec<String>,
    /// side of the model; default: query
    #[serde(default)]
    role: RoleBody,
    /// form of the vectors; default: indices
    #[serde(default)]
    format: FormatBody,
    /// pruning of the vectors
    pruning: Option<PruningBody>,
}

/// Vectors in the order of the texts.
#[derive(Serialize, ToSchema)]
pub(crate) struct EncodeAnswer {
    vectors: Vec<EncodedBody>,
}

/// Vector of a text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum EncodedBody {
    /// dimensions and weights
    Indices(VectorBody),
    /// weights by token
    Tokens {
        /// weights by token, the largest first
        #[serde(serialize_with = "as_map")]
        #[schema(value_type = HashMap<String, f32>)]
        tokens: Vec<(String, f32)>,
    },
}

/// Encode texts
///
/// The vectors are those of `splade encode`. Texts are truncated to what the model reads.
#[utoipa::path(
    post,
    path = "/v1/encode",
    tag = "encode",
    request_body = EncodeBody,
    responses((status = 200, description = "A vector of every text", body = EncodeAnswer), Problems)
)]
pub(crate) async fn encode(State(app): State<Arc<App>>, Json(body): Json<EncodeBody>) -> Answered<Written> {
    let EncodeBody { index, texts, role, format, pruning } = body;
    let served = app.catalog.get(index.as_deref())?;
    let most = app.limits.batch;
    if texts.is_empty() || texts.len() > most {
        return Err(Problem::invalid("/texts", format!("{} texts, expected 1 to {most}", texts.len())));
    }
    let pruning = pruning.map_or(Ok(Pruning::default()), |pruning| pruning.parse("/pruning"))?;
    let side = Arc::clone(&served.side);
    let write = move |vectors: Vec<SparseVector>| {
        let vectors = vectors.into_iter().map(|vector| in_format(&pruning.apply(vector), format, &side));
        Written::of(&EncodeAnswer { vectors: vectors.collect() })
    };
    let texts = Texts { texts, role, pointer: "/texts" };
    app.pool.answer(encode_and_write(&app, served, texts, write)).await
}

/// Texts of a request.
pub(crate) struct Texts {
    pub(crate) texts: Vec<String>,
    pub(crate) role: RoleBody,
    /// place of their list in the body
    pub(crate) pointer: &'static str,
}

/// Most bytes of the texts of short work.
const SHORT_TEXTS: usize = 1024;

/// Encodes texts by a side of the model, and writes the answer by `write`, on threads that may take their time.
pub(crate) async fn encode_and_write(
    app: &App,
    served: Arc<Served>,
    Texts { texts, role, pointer }: Texts,
    write: impl FnOnce(Vec<SparseVector>) -> Answered<Written> + Send + 'static,
) -> Answered<Written> {
    match (role, &app.documents) {
        (RoleBody::Query, _) => {
            let most = app.limits.tokens;
            let is_short = !served.side.runs_network() && texts.iter().map(String::len).sum::<usize>() <= SHORT_TEXTS;
            let work = move || write(encode_queries(&served, &texts, most, pointer)?);
            app.pool.run_near(is_short, work).await?
        }
        (RoleBody::Document, Some(documents)) => {
            let vectors = documents.encode(texts).await?;
            app.pool.run(move || write(vectors)).await?
        }
        (RoleBody::Document, None) => Err(Problem::invalid("/role", NO_NETWORK)),
    }
}

fn encode_queries(served: &Served, texts: &[String], most: usize, pointer: &str) -> Answered<Vec<SparseVector>> {
    for (at, text) in texts.iter().enumerate() {
        served.expect_short(text, most, &format!("{pointer}/{at}"))?;
    }
    Ok(served.side.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>())?)
}

/// Advice where there is no network.
pub(crate) const NO_NETWORK: &str = "documents are encoded by a network: start the server with --model";

fn in_format(vector: &SparseVector, format: FormatBody, side: &QuerySide) -> EncodedBody {
    if format == FormatBody::Indices {
        return EncodedBody::Indices(vector.into());
    }
    let token = |dim: u32| side.vocabulary().and_then(|vocabulary| vocabulary.token(dim));
    let name = |dim: u32| token(dim).unwrap_or_else(|| format!("[{dim}]"));
    let weights = vector.by_decreasing_weight().into_iter();
    EncodedBody::Tokens { tokens: weights.map(|(dim, weight)| (name(dim), weight)).collect() }
}

/// Writes pairs as an object, in their order.
fn as_map<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}
