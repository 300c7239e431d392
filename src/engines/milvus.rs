//! Milvus over its REST interface, version 2.5 or later.
//!
//! Weights are f32 and scores exact dot products, by `SPARSE_INVERTED_INDEX` with `DAAT_MAXSCORE`. Weights below 0 and empty vectors
//! are refused by Milvus. Everything but id, vector and digest is in a JSON field, so that any field can be filtered by.

mod filter;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde_json::{Value as Json, json};
use splade_index::{FieldSpec, FilterTree, StoredDocument};

use super::http::{JsonHttp, KeyHeader};
use super::limits::Limits;
use super::{
    Collection, CollectionManifest, Engine, EngineError, EngineHit, EngineQuery, EngineRanking, EngineResult, IdPage,
    ItemFailure, Record, Tolerance, parts, typed,
};
use crate::cli::EngineArgs;
use crate::http::SendMethod;

/// Field of the vectors.
const VECTOR: &str = "splade";
const ID: &str = "id";
const DIGEST: &str = "digest";
/// JSON field of title, text and all other fields of a document.
const DOCUMENT: &str = "document";
const TITLE: &str = "title";
const TEXT: &str = "text";
/// Object in [`DOCUMENT`] with the fields other than title and text.
const FIELDS: &str = "fields";
/// Object in [`DOCUMENT`] with the values of typed fields.
const TYPED: &str = "typed";
/// Object in [`DOCUMENT`] with a key for each typed field that has several values.
const LISTS: &str = "lists";
/// Fields of a collection and their types.
const SCHEMA: [(&str, &str); 4] =
    [(ID, "VarChar"), (VECTOR, "SparseFloatVector"), (DIGEST, "VarChar"), (DOCUMENT, "JSON")];
/// Key of the manifest in the properties of the collection.
const MANIFEST: &str = "splade.manifest";
/// Longest id, in bytes: the largest `max_length` of a VARCHAR.
const ID_BYTES_MAX: usize = 65_535;
/// Largest dimension: the last number of 32 bits is not taken.
const DIM_MAX: u32 = u32::MAX - 2;
/// Ids of a page.
const PAGE: usize = 1000;
/// Most hits of a search.
const HITS_MAX: usize = 16_384;
/// Code of success in the body of an answer, whose status is 200 in any case.
const SUCCESS: i64 = 0;
/// Codes of an engine that is busy or not ready: service not ready, out of memory, request limit, rate limit, collection not
/// loaded.
const BUSY: [i64; 6] = [1, 2, 3, 4, 8, 101];
/// Code of a missing collection.
const NO_COLLECTION: i64 = 100;
/// Codes of content that is refused: an invalid parameter, and data that does not fit the schema.
const CONTENT: [i64; 4] = [1100, 1101, 1801, 1804];

/// A collection of Milvus.
pub(super) struct Milvus {
    http: JsonHttp,
    collection: String,
    /// typed fields of the manifest, once it is read or written
    fields: Mutex<Vec<FieldSpec>>,
}

impl Milvus {
    /// Connects to `--url`, with the token that `--api-key-env` names, or with user and password.
    ///
    /// # Errors
    /// An address that cannot be used, a variable that is not set.
    pub(super) fn new(args: &EngineArgs) -> Result<Self> {
        let http = JsonHttp::new(args, KeyHeader { name: "authorization", prefix: "Bearer " })?;
        Ok(Self { http, collection: args.collection()?.to_owned(), fields: Mutex::default() })
    }

    fn set_fields(&self, manifest: Option<&CollectionManifest>) {
        let fields = manifest.map_or_else(Vec::new, |manifest| manifest.fields.clone());
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = fields;
    }

    /// Sends a request about the collection. Returns the data of the answer.
    fn post(&self, path: &str, body: Json) -> EngineResult<Json> {
        let (code, mut answer) = self.answer(path, body)?;
        if code == SUCCESS { Ok(answer["data"].take()) } else { Err(self.refusal(code, &answer)) }
    }

    /// Sends a request about the collection. Returns the code and the body of the answer.
    fn answer(&self, path: &str, mut body: Json) -> EngineResult<(i64, Json)> {
        body["collectionName"] = Json::from(self.collection.as_str());
        let answer = self.http.send(SendMethod::Post, &format!("/v2/vectordb/{path}"), &body)?;
        let answer = answer.expect_success(&self.place())?;
        Ok((answer["code"].as_i64().unwrap_or(-1), answer))
    }

    fn refusal(&self, code: i64, answer: &Json) -> EngineError {
        let message = format!("{}: code {code}, {}", self.place(), answer["message"].as_str().unwrap_or("no message"));
        if BUSY.contains(&code) {
            EngineError::outage(message, "try again later", None)
        } else if CONTENT.contains(&code) {
            EngineError::content(message)
        } else {
            EngineError::run(message, "")
        }
    }

    /// Description of the collection; none if it does not exist.
    fn description(&self) -> EngineResult<Option<Json>> {
        match self.answer("collections/describe", json!({}))? {
            (NO_COLLECTION, _) => Ok(None),
            (SUCCESS, mut answer) => Ok(Some(answer["data"].take())),
            (code, answer) => Err(self.refusal(code, &answer)),
        }
    }

    /// Number of documents.
    fn count(&self) -> EngineResult<u64> {
        let count = self.query(String::new(), &["count(*)"], 0)?;
        Ok(count.first().and_then(|row| row["count(*)"].as_u64()).unwrap_or_default())
    }

    /// Documents that meet a condition: the wanted fields of each.
    fn query(&self, filter: String, fields: &[&str], limit: usize) -> EngineResult<Vec<Json>> {
        let body = json!({"filter": filter, "outputFields": fields, "limit": limit, "consistencyLevel": "Strong"});
        match self.post("entities/query", body)? {
            Json::Array(rows) => Ok(rows),
            _ => Ok(Vec::new()),
        }
    }

    /// Refuses to compare a field with a range if a document has a list in it: Milvus would find no such document.
    fn expect_no_lists(&self, tree: &FilterTree) -> EngineResult<()> {
        let mut fields = BTreeSet::new();
        filter::ranges(tree, &mut fields);
        for field in fields {
            if !self.query(filter::has_list(field), &[ID], 1)?.is_empty() {
                return Err(EngineError::input(
                    format!(
                        "{}: documents have lists in {field:?}, and Milvus compares no list with a range",
                        self.place()
                    ),
                    "leave the range out of --filter, or compare the field with single values",
                ));
            }
        }
        Ok(())
    }

    /// Body of a search.
    fn search_body(&self, query: &EngineQuery<'_>) -> EngineResult<Json> {
        let place = self.place();
        if !matches!(query.ranking, EngineRanking::Vectors) {
            return Err(EngineError::input(
                format!("{place}: the collection has no ranking by words"),
                "choose --mode sparse",
            ));
        }
        if query.k > HITS_MAX {
            let message = format!("{place}: Milvus returns at most {HITS_MAX} hits");
            return Err(EngineError::input(message, format!("give -k {HITS_MAX} or less")));
        }
        let fields: &[&str] = if query.with_documents { &[ID, DOCUMENT] } else { &[ID] };
        let mut body = json!({
            "collectionName": self.collection,
            "data": [parts::weights(query.vector)],
            "annsField": VECTOR,
            "limit": query.k,
            "outputFields": fields,
            "searchParams": {"metricType": "IP", "params": {"drop_ratio_search": 0.0}},
            "consistencyLevel": "Strong",
        });
        if let Some(tree) = query.filter {
            body["filter"] = Json::from(filter::expression(tree, &place)?);
        }
        Ok(body)
    }
}

impl Engine for Milvus {
    fn name(&self) -> &'static str {
        "milvus"
    }

    fn place(&self) -> String {
        format!("milvus collection {}", self.collection)
    }

    fn limits(&self) -> Limits {
        Limits { negative_weights: false, dim_max: DIM_MAX, empty_vectors: false, ..Limits::NONE }
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Exact { per_unit_of_score: 1e-5 }
    }

    fn state(&self) -> EngineResult<Option<Collection>> {
        let Some(mut description) = self.description()? else { return Ok(None) };
        let properties = description["properties"].take();
        let properties = properties.as_array().into_iter().flatten();
        let kept =
            properties.filter(|property| property["key"] == MANIFEST).find_map(|property| property["value"].as_str());
        let kept = kept.and_then(|text| serde_json::from_str::<Json>(text).ok());
        let manifest = kept.map(|json| CollectionManifest::from_json(&json, &self.place())).transpose()?;
        self.set_fields(manifest.as_ref());
        let n_docs = self.count()?;
        // the manifest follows the creation in a second request, and a push may be interrupted between the two
        let is_unfinished = manifest.is_none() && n_docs == 0 && has_our_fields(&description);
        Ok((!is_unfinished).then_some(Collection { manifest, n_docs }))
    }

    fn create(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        // an unfinished collection may lack its index
        if self.description()?.is_some() && self.state()?.is_none() {
            self.remove()?;
        }
        let fields = SCHEMA.map(|(name, kind)| {
            let parameters = match name {
                ID => json!({"max_length": ID_BYTES_MAX}),
                DIGEST => json!({"max_length": 64}),
                _ => json!({}),
            };
            json!({"fieldName": name, "dataType": kind, "isPrimary": name == ID, "elementTypeParams": parameters})
        });
        let schema = json!({"autoID": false, "enableDynamicField": false, "fields": fields});
        // no `drop_ratio_build`, which would drop weights
        let index = json!({
            "fieldName": VECTOR, "indexName": VECTOR, "metricType": "IP",
            "params": {"index_type": "SPARSE_INVERTED_INDEX", "inverted_index_algo": "DAAT_MAXSCORE"},
        });
        // with an index the collection is loaded
        self.post("collections/create", json!({"schema": schema, "indexParams": [index]}))?;
        self.write_manifest(manifest)
    }

    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let properties = json!({MANIFEST: manifest.to_json()?.to_string()});
        self.post("collections/alter_properties", json!({"properties": properties}))?;
        self.set_fields(Some(manifest));
        Ok(())
    }

    fn remove(&self) -> EngineResult<()> {
        self.post("collections/drop", json!({})).map(drop)
    }

    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>> {
        let fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows: Vec<Json> = records.iter().map(|record| row(record, &fields)).collect();
        // Milvus takes or refuses a request as a whole
        self.post("entities/upsert", json!({"data": rows}))?;
        Ok(Vec::new())
    }

    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>> {
        let rows = self.query(filter::ids(ids), &[ID, DIGEST], ids.len())?;
        let text = |row: &Json, key: &str| row[key].as_str().map(str::to_owned);
        Ok(rows.iter().filter_map(|row| Some((text(row, ID)?, text(row, DIGEST)?))).collect())
    }

    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage> {
        let after = after.and_then(Json::as_str).unwrap_or_default();
        // with a limit, Milvus returns the rows of the smallest primary keys; a page by offset ends at 16 384 rows
        let rows = self.query(format!("{ID} > {}", filter::text(after)), &[ID], PAGE)?;
        let mut ids: Vec<String> = rows.iter().filter_map(|row| row[ID].as_str().map(str::to_owned)).collect();
        ids.sort_unstable();
        let next = ids.last().filter(|_| rows.len() == PAGE).map(|id| Json::from(id.as_str()));
        Ok(IdPage { ids, next })
    }

    fn delete(&self, ids: &[String]) -> EngineResult<()> {
        self.post("entities/delete", json!({"filter": filter::ids(ids)})).map(drop)
    }

    fn settle(&self) -> EngineResult<()> {
        // searches with strong consistency see every row that was written before
        Ok(())
    }

    fn request(&self, query: &EngineQuery<'_>) -> EngineResult<String> {
        Ok(format!("POST /v2/vectordb/entities/search\n{:#}", self.search_body(query)?))
    }

    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        query.filter.map_or(Ok(()), |tree| self.expect_no_lists(tree))?;
        let found = self.post("entities/search", self.search_body(query)?)?;
        let Json::Array(rows) = found else { return Ok(Vec::new()) };
        Ok(rows.into_iter().filter_map(hit).collect())
    }
}

/// True if a collection has the fields that this program gives it, and no others.
fn has_our_fields(description: &Json) -> bool {
    let fields = description["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
    fields.len() == SCHEMA.len()
        && SCHEMA.iter().all(|(name, kind)| fields.iter().any(|field| field["name"] == *name && field["type"] == *kind))
}

fn row(record: &Record, fields: &[FieldSpec]) -> Json {
    let typed = typed::values(&record.fields, fields);
    let lists = typed.iter().filter(|(_, value)| value.is_array()).map(|(name, _)| (name.clone(), Json::from(true)));
    let lists: Json = Json::Object(lists.collect());
    let mut document = json!({TEXT: record.text, FIELDS: record.fields, TYPED: typed, LISTS: lists});
    if let Some(title) = &record.title {
        document[TITLE] = Json::from(title.as_str());
    }
    json!({ID: record.id, VECTOR: parts::weights(&record.vector), DIGEST: record.digest, DOCUMENT: document})
}

/// The document of a row that was found. A JSON field comes as a text or as an object, by the version of Milvus.
fn hit(mut row: Json) -> Option<EngineHit> {
    let score = row["distance"].as_f64()? as f32;
    let id = row[ID].as_str()?.to_owned();
    let document = match row[DOCUMENT].take() {
        Json::String(text) => serde_json::from_str(&text).unwrap_or_default(),
        other => other,
    };
    let text = |key: &str| document[key].as_str().map(str::to_owned);
    let other = document[FIELDS].as_object().cloned().unwrap_or_default();
    Some(EngineHit {
        score,
        document: StoredDocument { id, title: text(TITLE), text: text(TEXT).unwrap_or_default(), other },
    })
}
