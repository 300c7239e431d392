//! `POST /v1/documents`: documents to add and ids to delete, in one commit.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use splade_core::SparseVector;
use splade_index::StoredDocument;
use utoipa::ToSchema;

use super::encode::NO_NETWORK;
use super::openapi::Problems;
use super::vector::VectorBody;
use crate::server::App;
use crate::server::body::Json;
use crate::server::catalog::Served;
use crate::server::problem::{Answered, Problem};
use crate::server::writers::Change;

/// Most terms of a document's vector.
const MOST_TERMS: usize = 65_536;

/// Documents to add and ids to delete.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"documents": [{"_id": "d1", "text": "Oslo er hovedstaden."}], "delete": ["d2"]}))]
pub(crate) struct DocumentsBody {
    /// name of the index; it may be left out where only one is served
    index: Option<String>,
    /// documents to add; one whose id is taken is replaced
    #[serde(default)]
    documents: Vec<DocumentBody>,
    /// ids to delete; unknown ids are ignored
    #[serde(default)]
    delete: Vec<String>,
}

/// Document as a line of a corpus has it. Members that are not named here are stored as its fields.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct DocumentBody {
    /// id
    #[serde(rename = "_id", alias = "id")]
    #[schema(min_length = 1)]
    id: String,
    /// title
    #[serde(default)]
    title: String,
    /// text
    #[serde(default)]
    text: String,
    /// vector, in place of the one that title and text would be encoded to
    vector: Option<VectorBody>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Numbers of a change that is on the disk and visible to searches.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct ChangeAnswer {
    /// documents added
    added: usize,
    /// ids given to delete
    deleted: usize,
    /// documents of the index
    documents: usize,
}

/// Add and delete documents
///
/// The answer comes when the change is on the disk and visible to searches. A request that got 503 may have been applied; it can
/// be sent again. The server needs `--writable`.
#[utoipa::path(
    post,
    path = "/v1/documents",
    tag = "documents",
    request_body = DocumentsBody,
    responses((status = 200, description = "The change is on the disk", body = ChangeAnswer), Problems)
)]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Json(body): Json<DocumentsBody>,
) -> Answered<axum::Json<ChangeAnswer>> {
    let Some(writers) = &app.writers else {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the server was started without --writable"));
    };
    let served = app.catalog.get(body.index.as_deref())?;
    body.check(app.limits.batch)?;
    let (added, deleted) = (body.documents.len(), body.delete.len());
    let answer = async {
        let documents = with_vectors(&app, &served, body.documents).await?;
        writers.write(&served.name, Change { documents, delete: body.delete }).await
    };
    let documents = app.pool.answer(answer).await?;
    Ok(axum::Json(ChangeAnswer { added, deleted, documents }))
}

impl DocumentsBody {
    fn check(&self, most: usize) -> Answered<()> {
        let count = self.documents.len() + self.delete.len();
        if count == 0 || count > most {
            return Err(Problem::invalid("", format!("{count} documents and ids, expected 1 to {most}")));
        }
        let mut ids: HashSet<&str> = self.delete.iter().map(String::as_str).collect();
        for (at, document) in self.documents.iter().enumerate() {
            let invalid = |detail: &str| Err(Problem::invalid(format!("/documents/{at}/_id"), detail));
            if document.id.is_empty() {
                return invalid("an id is needed");
            }
            if !ids.insert(&document.id) {
                return invalid("the id occurs twice");
            }
        }
        Ok(())
    }
}

/// The documents with their vectors, those of the request or of the network.
async fn with_vectors(
    app: &App,
    served: &Served,
    bodies: Vec<DocumentBody>,
) -> Answered<Vec<(StoredDocument, SparseVector)>> {
    let settings = served.index.settings();
    let mut given = Vec::with_capacity(bodies.len());
    let mut documents = Vec::with_capacity(bodies.len());
    for (at, body) in bodies.into_iter().enumerate() {
        let pointer = format!("/documents/{at}/vector");
        let parse = |vector: VectorBody| vector.parse(MOST_TERMS, settings.vocabulary_size, &pointer);
        given.push(body.vector.map(parse).transpose()?);
        let title = Some(body.title).filter(|title| !title.is_empty());
        documents.push(StoredDocument { id: body.id, title, text: body.text, other: body.fields });
    }
    let missing = documents.iter().zip(&given).filter(|(_, vector)| vector.is_none());
    let texts: Vec<String> = missing.map(|(document, _)| document.full_text().into_owned()).collect();
    let mut encoded = match (&app.documents, texts.is_empty()) {
        (_, true) => Vec::new(),
        (Some(encoder), false) => encoder.encode(texts).await?,
        (None, false) => return Err(Problem::invalid("/documents", format!("{NO_NETWORK}, or give vectors"))),
    }
    .into_iter();
    let pruning = settings.pruning.unwrap_or_default();
    let vectors = given.into_iter().map(|vector| {
        // as many vectors were encoded as are missing
        let vector = vector.or_else(|| encoded.next()).unwrap_or_default();
        pruning.apply(vector)
    });
    let vectors: Vec<SparseVector> = vectors.collect();
    Ok(documents.into_iter().zip(vectors).collect())
}
