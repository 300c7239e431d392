//! Qdrant, over its HTTP interface: version 1.16 or later, which keeps metadata of a collection.
//!
//! Weights are f32 and every u32 is a dimension, so vectors are held as they are and scores are exact dot products. A second
//! vector has the words of a document, whose dot product with those of a query is BM25. The id of a point is the UUIDv5 of the
//! document's id in the namespace OID; the id itself is the payload's `_id`.

mod filter;
mod query;

use std::collections::HashMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use sha1::{Digest as _, Sha1};
use splade_core::SparseVector;
use splade_index::{FieldKind, FieldSpec, StoredDocument};
use uuid::Uuid;

use super::http::{HttpAnswer, JsonHttp, KeyHeader};
use super::limits::Limits;
use super::{
    Collection, CollectionManifest, Engine, EngineError, EngineHit, EngineQuery, EngineResult, IdPage, ItemFailure,
    Record, Tolerance,
};
use crate::cli::{CollectionArgs, EngineArgs};
use crate::http::{SendMethod, escaped};

/// Name of the vectors of the model.
const VECTOR: &str = "splade";
/// Name of the vectors of words.
const WORDS: &str = "words";
/// Key of the manifest in the metadata of the collection.
const MANIFEST: &str = "splade";
const ID: &str = "_id";
const TITLE: &str = "title";
const TEXT: &str = "text";
const DIGEST: &str = "_splade_digest";
/// Points of a page of ids.
const PAGE: usize = 1000;

/// A collection of Qdrant.
pub(super) struct Qdrant {
    http: JsonHttp,
    collection: String,
    /// `/collections/NAME`
    path: String,
    /// settings of a new collection
    args: CollectionArgs,
}

/// Body of an upsert.
#[derive(Serialize)]
struct Points<'a> {
    points: Vec<Point<'a>>,
}

#[derive(Serialize)]
struct Point<'a> {
    id: Uuid,
    vector: Vectors<'a>,
    payload: Map<String, Json>,
}

/// Vectors of a point by name; an empty one is left out.
#[derive(Serialize)]
struct Vectors<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    splade: Option<Sparse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Sparse<'a>>,
}

#[derive(Serialize)]
struct Sparse<'a> {
    indices: &'a [u32],
    values: &'a [f32],
}

impl<'a> Sparse<'a> {
    /// The vector; none if it is empty.
    fn of(vector: &'a SparseVector) -> Option<Self> {
        (!vector.is_empty()).then(|| Self { indices: vector.dims(), values: vector.weights() })
    }
}

impl Qdrant {
    /// Connects to `--url`, with the API key that `--api-key-env` names.
    ///
    /// # Errors
    /// An address that cannot be used, a variable that is not set.
    pub(super) fn new(args: &EngineArgs, new_collection: &CollectionArgs) -> Result<Self> {
        let http = JsonHttp::new(args, KeyHeader { name: "api-key", prefix: "" })?;
        let collection = args.collection()?.to_owned();
        let path = format!("/collections/{}", escaped(&collection, false));
        Ok(Self { http, collection, path, args: new_collection.clone() })
    }

    fn post(&self, path: &str, body: &Json) -> EngineResult<Json> {
        let mut answer =
            self.http.send(SendMethod::Post, &format!("{}{path}", self.path), body)?.expect_success(&self.place())?;
        Ok(answer["result"].take())
    }

    /// Description of the collection; none if it does not exist.
    fn info(&self) -> EngineResult<Option<Json>> {
        let answer: HttpAnswer = self.http.get(&self.path)?;
        if answer.status == 404 { Ok(None) } else { answer.expect_success(&self.place()).map(Some) }
    }

    /// Makes the index of a typed field. A field that no filter can name needs none.
    fn index_field(&self, field: &FieldSpec) -> EngineResult<()> {
        let Some(name) = filter::path(&field.name) else { return Ok(()) };
        let schema = match field.kind {
            FieldKind::Keyword => "keyword",
            FieldKind::Int => "integer",
            FieldKind::Float => "float",
            FieldKind::Date => "datetime",
            FieldKind::Bool => "bool",
            kind => return Err(EngineError::input(format!("{}: no field of type {kind}", self.place()), "")),
        };
        let body = json!({"field_name": name, "field_schema": schema});
        let path = format!("{}/index?wait=true", self.path);
        self.http.send(SendMethod::Put, &path, &body)?.expect_success(&self.place()).map(drop)
    }
}

impl Engine for Qdrant {
    fn name(&self) -> &'static str {
        "qdrant"
    }

    fn place(&self) -> String {
        format!("{} collection {}", self.name(), self.collection)
    }

    fn limits(&self) -> Limits {
        Limits::NONE
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact { per_unit_of_score: 1e-5 }
    }

    fn settings(&self) -> Json {
        self.args.to_json()
    }

    fn takes_word_vectors(&self) -> bool {
        !self.args.no_bm25
    }

    fn state(&self) -> EngineResult<Option<Collection>> {
        let Some(info) = self.info()? else { return Ok(None) };
        let manifest = info.pointer("/result/config/metadata").and_then(|metadata| metadata.get(MANIFEST));
        let manifest = manifest.map(|json| CollectionManifest::from_json(json, &self.place())).transpose()?;
        let count = self.post("/points/count", &json!({"exact": true}))?;
        Ok(Some(Collection { manifest, n_docs: count["count"].as_u64().unwrap_or_default() }))
    }

    fn create(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let index = json!({"on_disk": false, "datatype": "float32"});
        // no modifier: `idf` would change the weights of queries
        let mut vectors = json!({VECTOR: {"index": index}});
        if manifest.words.is_some() {
            vectors[WORDS] = json!({"index": index, "modifier": "idf"});
        }
        let body = json!({"vectors": {}, "sparse_vectors": vectors, "metadata": {MANIFEST: manifest.to_json()?}});
        let answer = self.http.send(SendMethod::Put, &self.path, &body)?;
        // it exists if the answer to an earlier attempt was lost; the manifest is read and compared afterwards
        if answer.status != 409 {
            answer.expect_success(&self.place())?;
        }
        manifest.fields.iter().try_for_each(|field| self.index_field(field))
    }

    fn complete(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let info = self.info()?.unwrap_or_default();
        let known = &info["result"]["payload_schema"];
        // Qdrant writes a path with quotes or without, as it needs them
        let is_known = |name: &str| known.get(name).is_some();
        let is_missing = |field: &&FieldSpec| {
            !is_known(&field.name) && !filter::path(&field.name).is_some_and(|path| is_known(&path))
        };
        let mut missing = manifest.fields.iter().filter(is_missing);
        missing.try_for_each(|field| self.index_field(field))
    }

    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let body = json!({"metadata": {MANIFEST: manifest.to_json()?}});
        self.http.send(SendMethod::Patch, &self.path, &body)?.expect_success(&self.place()).map(drop)
    }

    fn remove(&self) -> EngineResult<()> {
        self.http.delete(&self.path)?.expect_success(&self.place()).map(drop)
    }

    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>> {
        let body = Points { points: records.iter().map(point).collect() };
        let path = format!("{}/points?wait=true", self.path);
        // Qdrant takes or refuses a request as a whole
        self.http.send(SendMethod::Put, &path, &body)?.expect_success(&self.place())?;
        Ok(Vec::new())
    }

    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>> {
        let points: Vec<Uuid> = ids.iter().map(|id| point_id(id)).collect();
        let found =
            self.post("/points", &json!({"ids": points, "with_payload": [ID, DIGEST], "with_vector": false}))?;
        let payloads = found.as_array().into_iter().flatten().map(|point| &point["payload"]);
        Ok(payloads
            .filter_map(|payload| Some((text(payload, ID)?, text(payload, DIGEST).unwrap_or_default())))
            .collect())
    }

    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage> {
        let mut body = json!({"limit": PAGE, "with_payload": [ID], "with_vector": false});
        if let Some(after) = after {
            body["offset"] = after.clone();
        }
        let mut page = self.post("/points/scroll", &body)?;
        let points = page["points"].as_array().into_iter().flatten();
        let ids = points.filter_map(|point| text(&point["payload"], ID)).collect();
        Ok(IdPage { ids, next: Some(page["next_page_offset"].take()).filter(|next| !next.is_null()) })
    }

    fn delete(&self, ids: &[String]) -> EngineResult<()> {
        let points: Vec<Uuid> = ids.iter().map(|id| point_id(id)).collect();
        self.post("/points/delete?wait=true", &json!({"points": points})).map(drop)
    }

    fn settle(&self) -> EngineResult<()> {
        // every upsert has waited; searches are exact before and after points are indexed
        Ok(())
    }

    fn request(&self, query: &EngineQuery<'_>) -> EngineResult<String> {
        let body = query::body(query, &self.place())?;
        Ok(format!("POST {}/points/query\n{body:#}", self.path))
    }

    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        if query::is_empty(query) {
            return Ok(Vec::new());
        }
        let mut found = self.post("/points/query", &query::body(query, &self.place())?)?;
        let Json::Array(points) = found["points"].take() else { return Ok(Vec::new()) };
        Ok(points.into_iter().filter_map(hit).collect())
    }
}

fn point(record: &Record) -> Point<'_> {
    let mut payload = record.fields.clone();
    payload.insert(ID.to_owned(), json!(record.id));
    if let Some(title) = &record.title {
        payload.insert(TITLE.to_owned(), json!(title));
    }
    payload.insert(TEXT.to_owned(), json!(record.text));
    payload.insert(DIGEST.to_owned(), json!(record.digest));
    let vector = Vectors { splade: Sparse::of(&record.vector), words: record.words.as_ref().and_then(Sparse::of) };
    Point { id: point_id(&record.id), vector, payload }
}

/// UUIDv5 of a document's id: `uuid.uuid5(uuid.NAMESPACE_OID, id)` in Python.
fn point_id(id: &str) -> Uuid {
    let mut hasher = Sha1::new();
    hasher.update(Uuid::NAMESPACE_OID.as_bytes());
    hasher.update(id);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid()
}

fn text(payload: &Json, key: &str) -> Option<String> {
    payload.get(key)?.as_str().map(str::to_owned)
}

/// The document of a point; none for a point that this program did not write.
fn hit(mut point: Json) -> Option<EngineHit> {
    let score = point["score"].as_f64()? as f32;
    let Json::Object(mut payload) = point["payload"].take() else { return None };
    let mut take = |key: &str| match payload.shift_remove(key) {
        Some(Json::String(text)) => Some(text),
        _ => None,
    };
    let (id, title, text) = (take(ID)?, take(TITLE), take(TEXT).unwrap_or_default());
    payload.shift_remove(DIGEST);
    Some(EngineHit { score, document: StoredDocument { id, title, text, other: payload } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_points_are_those_of_python() {
        // python3 -c 'import uuid; print(uuid.uuid5(uuid.NAMESPACE_OID, "nb-000123"))'
        assert_eq!(point_id("nb-000123").to_string(), "454fc0ad-d1dd-5a11-8daf-f4807b5167e7");
    }
}
