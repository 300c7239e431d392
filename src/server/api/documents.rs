//! `POST /v1/documents`: documents to add and ids to delete, in one commit.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use splade_core::SparseVector;
use splade_files::Document;
use utoipa::ToSchema;

use super::encode::NO_NETWORK;
use super::openapi::Problems;
use super::vector::VectorBody;
use crate::documents::{Encoded, Row};
use crate::server::App;
use crate::server::body::Json;
use crate::server::catalog::Served;
use crate::server::documents::Wanted;
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
    /// vector, in place of the one that title and text would be encoded to; refused where documents are split into passages
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
    let answer = async {
        let (of_index, most) = (Arc::clone(&served), app.limits.batch);
        let (given, delete) = app.pool.run(move || body.check(&of_index, most)).await??;
        let (added, deleted) = (given.len(), delete.len());
        let documents = with_vectors(&app, &served, given).await?;
        let documents = writers.write(&served.name, Change { documents, delete }).await?;
        Ok(axum::Json(ChangeAnswer { added, deleted, documents }))
    };
    app.pool.answer(answer).await
}

/// A document that was checked.
struct Given {
    document: Document,
    /// the text that is encoded
    text: String,
    /// vector, if the request has one
    vector: Option<SparseVector>,
}

impl DocumentsBody {
    /// The documents to add, and the ids to delete.
    fn check(self, served: &Served, most: usize) -> Answered<(Vec<Given>, Vec<String>)> {
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
        let given = self.documents.into_iter().enumerate().map(|(at, document)| document.check(at, served));
        Ok((given.collect::<Answered<_>>()?, self.delete))
    }
}

impl DocumentBody {
    /// The document at position `at` of the list.
    fn check(self, at: usize, served: &Served) -> Answered<Given> {
        let Self { id, title, text, vector, fields } = self;
        let (settings, pointer) = (served.index.settings(), format!("/documents/{at}/vector"));
        if vector.is_some() && settings.passages.is_some() {
            let detail =
                "the documents of the index are split into passages: leave the vector out, the text is encoded";
            return Err(Problem::invalid(pointer, detail));
        }
        let vector = vector.map(|vector| vector.parse(MOST_TERMS, settings.vocabulary_size, &pointer)).transpose()?;
        let document = Document { id, title, text, fields };
        Ok(Given { text: document.full_text().into_owned(), document, vector })
    }
}

/// The documents with their vectors, those of the request or of the networks.
async fn with_vectors(app: &App, served: &Served, mut given: Vec<Given>) -> Answered<Vec<Row>> {
    let settings = served.index.settings();
    let dense = &served.dense_documents;
    let wanted = |sparse| Wanted { sparse, passages: settings.passages, dense: dense.clone() };
    let mut texts = |has_vector: bool| {
        let chosen = given.iter_mut().filter(|given| given.vector.is_some() == has_vector);
        chosen.map(|given| std::mem::take(&mut given.text)).collect::<Vec<String>>()
    };
    let (without, with) = (texts(false), texts(true));
    let mut encoded = encode(app, wanted(true), without).await?.into_iter();
    let dense_alone = if dense.is_some() { encode(app, wanted(false), with).await? } else { Vec::new() };
    let mut dense_alone = dense_alone.into_iter();
    let pruning = settings.pruning.unwrap_or_default();
    let row = move |Given { document, vector, .. }: Given| {
        // as many were encoded as are needed; a document with its sparse vector may need no other
        let encoded = if vector.is_some() { dense_alone.next() } else { encoded.next() };
        Row::new(document, encoded.unwrap_or_default(), vector, &pruning)
    };
    app.pool.run(move || given.into_iter().map(row).collect()).await
}

async fn encode(app: &App, wanted: Wanted, texts: Vec<String>) -> Answered<Vec<Encoded>> {
    match &app.documents {
        _ if texts.is_empty() => Ok(Vec::new()),
        Some(documents) => documents.encode_as(wanted, texts).await,
        None if wanted.passages.is_some() => Err(Problem::invalid("/documents", NO_NETWORK)),
        None => Err(Problem::invalid("/documents", format!("{NO_NETWORK}, or give vectors"))),
    }
}
