//! [`LuceneIndex`]: an index of OpenSearch or Elasticsearch, by the requests that are equal in both.
//!
//! A document is stored under its own id, with its fields, title and text as they are. Three fields are added: the vector, the
//! digest, and the id once more, by which equal scores and pages are ordered. Fields without a type are kept and not indexed.

mod dialect;
mod documents;
mod filter;
mod query;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde::Deserialize as _;
use serde_json::{Map, Value as Json, json};
use splade_index::{FieldKind, Language};

pub(super) use dialect::Dialect;
pub(super) use query::{filtered, order, words_query};

use self::documents::{Document, hit, item_failure, push_line, reason};
use super::http::{HttpAnswer, JsonHttp, KeyHeader};
use super::{
    Collection, CollectionManifest, EngineError, EngineHit, EngineQuery, EngineResult, IdPage, ItemFailure, Record,
};
use crate::cli::{CollectionArgs, EngineArgs};
use crate::http::{SendMethod, escaped};

/// Name of the vectors.
pub(super) const VECTOR: &str = "_splade_vector";
const DIGEST: &str = "_splade_digest";
const ID: &str = "_splade_id";
const TITLE: &str = "title";
const TEXT: &str = "text";
/// Key of the manifest in the `_meta` of the mapping.
const MANIFEST: &str = "splade";
/// Documents of a page of ids.
const PAGE: usize = 10_000;
/// Most hits of a search, unless the index has another `index.max_result_window`.
const HITS_MAX: usize = 10_000;
/// Weights keep 9 significant bits, cut and not rounded: a score is at most this share too low.
pub(super) const SHARE_BELOW: f32 = 1.0 / 256.0;
/// Most clauses of a query, unless the cluster has another `indices.query.bool.max_clause_count`.
pub(super) const CLAUSES_MAX: usize = 1024;

/// An index. It need not exist yet.
pub(super) struct LuceneIndex {
    http: JsonHttp,
    /// name of the engine
    engine: &'static str,
    /// name of the index
    name: String,
    /// `/NAME`
    path: String,
    /// settings of a new index
    args: CollectionArgs,
    /// manifest of the index, once it is read or written
    known: Mutex<Option<CollectionManifest>>,
}

impl LuceneIndex {
    /// Connects to `--url`, with the API key or the user and password that the flags name.
    ///
    /// # Errors
    /// An address that cannot be used, a variable that is not set.
    pub(super) fn new(engine: &'static str, args: &EngineArgs, new_index: &CollectionArgs) -> Result<Self> {
        let http = JsonHttp::new(args, KeyHeader { name: "authorization", prefix: "ApiKey " })?;
        let name = args.collection()?.to_owned();
        let path = format!("/{}", escaped(&name, false));
        Ok(Self { http, engine, name, path, args: new_index.clone(), known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Option<CollectionManifest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settings of the index, which exists or is to be made.
    pub(super) fn settings(&self) -> CollectionArgs {
        let settings = self.known().as_ref().map(|manifest| CollectionArgs::deserialize(&manifest.driver));
        settings.and_then(Result::ok).unwrap_or_else(|| self.args.clone())
    }

    /// Largest weight of a document, where the index states it.
    pub(super) fn ceiling(&self) -> Option<f32> {
        self.known().as_ref()?.document_ceiling
    }

    /// The condition of a search.
    ///
    /// # Errors
    /// A condition that the engine cannot express, by name.
    pub(super) fn condition(&self, query: &EngineQuery<'_>) -> EngineResult<Option<Json>> {
        let fields = self.known().as_ref().map(|manifest| manifest.fields.clone()).unwrap_or_default();
        query.filter.map(|tree| filter::query(tree, &fields, &self.place())).transpose()
    }

    /// Engine and index, for messages.
    pub(super) fn place(&self) -> String {
        format!("{} index {}", self.engine, self.name)
    }

    /// Major and minor version of the engine.
    pub(super) fn version(&self) -> EngineResult<(u32, u32)> {
        let answer = self.http.get("/")?.expect_success(self.engine)?;
        let text = answer.pointer("/version/number").and_then(Json::as_str).unwrap_or_default();
        let mut numbers = text.split('.').map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) => Ok((major, minor)),
            _ => Err(EngineError::input(format!("{}: it does not state its version", self.engine), "check --url")),
        }
    }

    /// Manifest and number of documents; none if there is no such index.
    fn state(&self) -> EngineResult<Option<Collection>> {
        let collection = self.read_state()?;
        *self.known() = collection.as_ref().and_then(|collection| collection.manifest.clone());
        Ok(collection)
    }

    fn read_state(&self) -> EngineResult<Option<Collection>> {
        let answer: HttpAnswer = self.http.get(&format!("{}/_mapping", self.path))?;
        if answer.status == 404 {
            return Ok(None);
        }
        let mappings = answer.expect_success(&self.place())?;
        let mut indices = mappings.as_object().into_iter().flatten();
        let (first, other) = (indices.next(), indices.next());
        if other.is_some() {
            let message = format!("{}: an alias of several indices", self.place());
            return Err(EngineError::input(message, "give the name of one index with --collection"));
        }
        let manifest = first.and_then(|(_, index)| index.pointer("/mappings/_meta")?.get(MANIFEST));
        let manifest = manifest.map(|json| CollectionManifest::from_json(json, &self.place())).transpose()?;
        let count = self.complete(self.http.get(&format!("{}/_count", self.path))?)?;
        Ok(Some(Collection { manifest, n_docs: count["count"].as_u64().unwrap_or_default() }))
    }

    /// Creates the index with this mapping of vectors and these further settings.
    fn create(
        &self,
        manifest: &CollectionManifest,
        vector: &Json,
        mut settings: Map<String, Json>,
    ) -> EngineResult<()> {
        let args = &self.args;
        for (name, value) in [("number_of_shards", args.shards), ("number_of_replicas", args.replicas)] {
            settings.extend(value.map(|value| (name.to_owned(), json!(value))));
        }
        let mut mappings = self.mappings(manifest, vector)?;
        if args.exclude_vectors {
            mappings["_source"] = json!({"excludes": [VECTOR]});
        }
        let body = json!({"settings": {"index": settings}, "mappings": mappings});
        let answer = self.http.send(SendMethod::Put, &self.path, &body)?;
        // after an answer that was lost, the same request finds the index that it made
        if answer.error_type() != Some("resource_already_exists_exception") {
            answer.expect_success(&self.place())?;
        }
        *self.known() = Some(manifest.clone());
        Ok(())
    }

    fn mappings(&self, manifest: &CollectionManifest, vector: &Json) -> EngineResult<Json> {
        let text = json!({"type": "text", "analyzer": analyzer(manifest)?});
        let mut properties = json!({
            VECTOR: vector,
            DIGEST: {"type": "keyword", "index": false, "doc_values": false},
            ID: {"type": "keyword", "index": false},
            TITLE: text,
            TEXT: text,
        });
        for field in &manifest.fields {
            let kind = match field.kind {
                FieldKind::Keyword => "keyword",
                FieldKind::Int => "long",
                FieldKind::Float => "double",
                FieldKind::Date => "date",
                FieldKind::Bool => "boolean",
                kind => return Err(EngineError::input(format!("{}: no field of type {kind}", self.place()), "")),
            };
            properties[&field.name] = json!({"type": kind});
        }
        // fields without a type are kept, and no type is guessed for them
        Ok(json!({"dynamic": false, "_meta": {MANIFEST: manifest.to_json()?}, "properties": properties}))
    }

    /// Replaces the manifest.
    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let body = json!({"_meta": {MANIFEST: manifest.to_json()?}});
        let path = format!("{}/_mapping", self.path);
        self.http.send(SendMethod::Put, &path, &body)?.expect_success(&self.place())?;
        *self.known() = Some(manifest.clone());
        Ok(())
    }

    /// Removes the index.
    fn remove(&self) -> EngineResult<()> {
        let answer = self.http.delete(&self.path)?;
        if answer.status != 404 {
            answer.expect_success(&self.place())?;
        }
        *self.known() = None;
        Ok(())
    }

    /// Adds or replaces documents, and returns those that were not taken.
    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>> {
        let mut lines = String::new();
        for record in records {
            push_line(&mut lines, &json!({"index": {"_id": record.id}}))?;
            push_line(&mut lines, &Document::of(record))?;
        }
        self.bulk(lines)
    }

    /// Deletes documents.
    fn delete(&self, ids: &[String]) -> EngineResult<()> {
        let mut lines = String::new();
        for id in ids {
            push_line(&mut lines, &json!({"delete": {"_id": id}}))?;
        }
        let failures = self.bulk(lines)?;
        let Some(first) = failures.iter().find(|failure| !failure.retryable).or(failures.first()) else {
            return Ok(());
        };
        let message = format!("{}: document {} was not deleted: {}", self.place(), first.id, first.message);
        Err(if first.retryable {
            EngineError::outage(message, "try again later", None)
        } else {
            EngineError::run(message, "")
        })
    }

    fn bulk(&self, lines: String) -> EngineResult<Vec<ItemFailure>> {
        let path = format!("{}/_bulk", self.path);
        let answer = self.http.send_text(SendMethod::Post, &path, "application/x-ndjson", lines)?;
        let answer = answer.expect_success(&self.place())?;
        let items = answer["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|item| item_failure(item.as_object()?.values().next()?)).collect())
    }

    /// Digests of the documents with these ids, by id.
    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let path = format!("{}/_mget?_source_includes={DIGEST}", self.path);
        let found = self.http.send(SendMethod::Post, &path, &json!({"ids": ids}))?.expect_success(&self.place())?;
        let mut digests = HashMap::new();
        for document in found["docs"].as_array().into_iter().flatten() {
            if let Some(error) = document.get("error") {
                let message = format!("{}: {}", self.place(), reason(error));
                return Err(EngineError::outage(message, "try again later", None));
            }
            if document["found"] == true
                && let Some(id) = document["_id"].as_str()
            {
                let digest = document["_source"][DIGEST].as_str().unwrap_or_default();
                digests.insert(id.to_owned(), digest.to_owned());
            }
        }
        Ok(digests)
    }

    /// A page of the ids of all documents.
    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage> {
        let mut body = json!({
            "size": PAGE, "query": {"match_all": {}}, "_source": false, "track_total_hits": false, "sort": [{ID: "asc"}],
        });
        if let Some(after) = after {
            body["search_after"] = after.clone();
        }
        let found = self.search_body(&body)?;
        let hits = found.pointer("/hits/hits").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<String> = hits.iter().filter_map(|hit| Some(hit["_id"].as_str()?.to_owned())).collect();
        let next = hits.last().filter(|_| hits.len() == PAGE).map(|hit| hit["sort"].clone());
        Ok(IdPage { ids, next })
    }

    /// Makes every document that was sent visible to searches.
    fn refresh(&self) -> EngineResult<()> {
        let answer = self.http.send(SendMethod::Post, &format!("{}/_refresh", self.path), &json!({}))?;
        let answer = answer.expect_success(&self.place())?;
        match answer.pointer("/_shards/failed").and_then(Json::as_u64) {
            Some(0) => Ok(()),
            _ => Err(EngineError::outage(
                format!("{}: a shard was not refreshed", self.place()),
                "try again later",
                None,
            )),
        }
    }

    /// Method and path of a search, as people copy it.
    fn search_line(&self) -> String {
        format!("POST {}", self.search_path())
    }

    /// Documents of a search with this query or retriever, score descending.
    pub(super) fn search(&self, body: &Json) -> EngineResult<Vec<EngineHit>> {
        let mut found = self.search_body(body)?;
        let Some(Json::Array(hits)) = found.pointer_mut("/hits/hits").map(Json::take) else { return Ok(Vec::new()) };
        Ok(hits.into_iter().filter_map(hit).collect())
    }

    /// Parts of the body of a search that do not depend on its query.
    pub(super) fn frame(&self, query: &EngineQuery<'_>) -> EngineResult<Json> {
        if query.k > HITS_MAX {
            let message = format!("{}: {} hits are asked for, and a search returns {HITS_MAX}", self.place(), query.k);
            return Err(EngineError::input(message, format!("give -k {HITS_MAX} at most")));
        }
        let source = if query.with_documents { json!({"excludes": [VECTOR, DIGEST, ID]}) } else { json!(false) };
        Ok(json!({"size": query.k, "_source": source, "track_total_hits": false}))
    }

    fn search_path(&self) -> String {
        // an answer without the documents of a shard that is gone would be wrong, so it is refused
        format!("{}/_search?allow_partial_search_results=false", self.path)
    }

    fn search_body(&self, body: &Json) -> EngineResult<Json> {
        let answer = self.http.send(SendMethod::Post, &self.search_path(), body)?;
        if let Some(query) = answer.unknown_query() {
            let message = format!("{}: it does not know the query {query}", self.place());
            return Err(EngineError::input(
                message,
                "install the plugin or the version that has it, or choose another --mode",
            ));
        }
        let found = self.complete(answer)?;
        if found["timed_out"] == true {
            let message = format!("{}: the search was ended by a time limit", self.place());
            return Err(EngineError::outage(message, "try again later", None));
        }
        Ok(found)
    }

    /// The body of an answer that all shards are part of.
    fn complete(&self, answer: HttpAnswer) -> EngineResult<Json> {
        let body = answer.expect_success(&self.place())?;
        let count = |name: &str| body["_shards"][name].as_u64();
        if count("total") != count("successful") || count("total").is_none() {
            let message = format!("{}: not all shards answer", self.place());
            return Err(EngineError::outage(message, "wait until the cluster has all shards again", None));
        }
        Ok(body)
    }
}

impl HttpAnswer {
    /// Type of the error.
    fn error_type(&self) -> Option<&str> {
        self.body.pointer("/error/type")?.as_str()
    }

    /// Name of the query that the engine does not know, if that is the error.
    fn unknown_query(&self) -> Option<&str> {
        self.body.pointer("/error/reason")?.as_str()?.strip_prefix("unknown query [")?.strip_suffix(']')
    }
}

/// Analyzer of a language, which every distribution has.
fn analyzer(manifest: &CollectionManifest) -> EngineResult<&'static str> {
    let language = manifest.language();
    let language =
        language.map_err(|error| EngineError::input(error.to_string(), "push the index with --overwrite"))?;
    Ok(match language {
        Language::None => "standard",
        other => other.name(),
    })
}
