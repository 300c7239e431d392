//! [`Lucene`]: an OpenSearch or Elasticsearch on this machine with one index, which keeps the requests and scores by brute force.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value as Json, json};

use super::loopback::{Answer, Loopback, Request};

/// A document with this text is refused.
pub(crate) const REFUSED_TEXT: &str = "this document is refused";
const VECTOR: &str = "_splade_vector";
const ID: &str = "_splade_id";

/// Content of the server.
#[derive(Default)]
pub(crate) struct Content {
    /// version that the server states
    pub(crate) version: String,
    /// path of the index
    name: String,
    /// body of the request that made the index; null if there is none
    pub(crate) index: Json,
    /// documents by id
    pub(crate) documents: BTreeMap<String, Json>,
    /// texts of the bulk requests
    pub(crate) bulks: Vec<String>,
    /// ids of documents that fail once, and the status
    pub(crate) failures: Vec<(String, u16)>,
    /// true if a shard does not answer
    pub(crate) a_shard_is_gone: bool,
    /// name of a query that the server does not know
    pub(crate) unknown_query: Option<String>,
}

/// The server. It ends with the test.
pub(crate) struct Lucene {
    /// requests and faults
    pub(crate) http: Loopback,
    content: Arc<Mutex<Content>>,
}

impl Lucene {
    /// Starts a server of this version, without an index.
    pub(crate) fn start(version: &str) -> Self {
        let content = Arc::new(Mutex::new(Content { version: version.to_owned(), ..Content::default() }));
        let of_server = content.clone();
        let http = Loopback::start(move |request| of_server.lock().unwrap().answer(request));
        Self { http, content }
    }

    /// Address of the server.
    pub(crate) fn address(&self) -> &str {
        self.http.address()
    }

    /// Content, which the server waits for.
    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

impl Content {
    fn answer(&mut self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        let body = || request.json();
        if path == "/" {
            return (200, json!({"version": {"number": self.version}}));
        }
        let (name, verb) = path.split_at(path[1..].find('/').map_or(path.len(), |at| at + 1));
        if (self.index.is_null() || self.name != name) && (request.method.as_str(), verb) != ("PUT", "") {
            return error(404, "index_not_found_exception", "no such index");
        }
        match (request.method.as_str(), verb) {
            ("PUT", "") if !self.index.is_null() => error(400, "resource_already_exists_exception", "index exists"),
            ("PUT", "") => {
                self.index = body();
                self.name = name.to_owned();
                (200, json!({"acknowledged": true}))
            }
            ("DELETE", "") => {
                self.index = Json::Null;
                self.documents.clear();
                (200, json!({"acknowledged": true}))
            }
            ("GET", "/_mapping") => (200, json!({name: {"mappings": self.index["mappings"]}})),
            ("PUT", "/_mapping") => {
                self.index["mappings"]["_meta"] = body()["_meta"].clone();
                (200, json!({"acknowledged": true}))
            }
            ("GET", "/_count") => (200, json!({"count": self.documents.len(), "_shards": self.shards()})),
            ("POST", "/_refresh") => (200, json!({"_shards": self.shards()})),
            ("POST", "/_bulk") => {
                assert_eq!(request.headers["content-type"], "application/x-ndjson");
                self.bulk(String::from_utf8(request.body.clone()).unwrap())
            }
            ("POST", "/_mget") => self.get(&body()),
            ("POST", "/_search") => {
                assert!(request.path.ends_with("?allow_partial_search_results=false"), "{}", request.path);
                self.search(&body())
            }
            _ => error(405, "illegal_argument_exception", "no such path"),
        }
    }

    fn shards(&self) -> Json {
        json!({"total": 3, "successful": 3 - u32::from(self.a_shard_is_gone), "failed": 0})
    }

    fn bulk(&mut self, text: String) -> Answer {
        assert!(text.ends_with('\n'));
        let mut items = Vec::new();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        while let Some(action) = lines.next() {
            let (name, of) = action.as_object().unwrap().iter().next().unwrap();
            let id = of["_id"].as_str().unwrap().to_owned();
            let result = if name == "delete" {
                let was = self.documents.remove(&id);
                json!({"_id": id, "status": if was.is_some() { 200 } else { 404 }})
            } else {
                assert_eq!(name, "index");
                self.index_document(&id, lines.next().unwrap())
            };
            items.push(json!({name: result}));
        }
        self.bulks.push(text);
        (200, json!({"items": items}))
    }

    fn index_document(&mut self, id: &str, document: Json) -> Json {
        if let Some(at) = self.failures.iter().position(|(other, _)| other == id) {
            let (_, status) = self.failures.remove(at);
            return json!({"_id": id, "status": status, "error": {"type": "rejected", "reason": "queue full"}});
        }
        if document["text"] == REFUSED_TEXT {
            let cause = json!({"reason": "a value of another type"});
            return json!({"_id": id, "status": 400, "error": {"reason": "failed to parse", "caused_by": cause}});
        }
        assert_eq!(document[ID], id);
        self.documents.insert(id.to_owned(), document);
        json!({"_id": id, "status": 201})
    }

    fn get(&self, body: &Json) -> Answer {
        let documents = body["ids"].as_array().unwrap().iter().map(|id| {
            let found = self.documents.get(id.as_str().unwrap());
            json!({"_id": id, "found": found.is_some(), "_source": found})
        });
        (200, json!({"docs": documents.collect::<Vec<_>>()}))
    }

    fn search(&self, body: &Json) -> Answer {
        if let Some(name) = self.unknown_query.as_ref().filter(|name| body.to_string().contains(&format!("\"{name}\"")))
        {
            return error(400, "parsing_exception", &format!("unknown query [{name}]"));
        }
        if self.a_shard_is_gone {
            return error(503, "search_phase_execution_exception", "Partial shards failure");
        }
        let size = body["size"].as_u64().unwrap() as usize;
        let mut hits: Vec<(f64, &String)> = if body["query"].get("match_all").is_some() {
            let after = body.pointer("/search_after/0").and_then(Json::as_str).unwrap_or_default();
            self.documents.keys().filter(|id| id.as_str() > after).map(|id| (1.0, id)).collect()
        } else {
            let query = query_weights(&body["query"]);
            let score = |document: &Json| {
                let weights = document[VECTOR].as_object();
                let products = query.iter().filter_map(|(dim, weight)| Some(weight * weights?.get(dim)?.as_f64()?));
                products.sum::<f64>()
            };
            let scores = self.documents.iter().map(|(id, document)| (score(document), id));
            scores.filter(|(score, _)| *score > 0.0).collect()
        };
        hits.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        hits.truncate(size);
        let hits = hits.iter().map(|(score, id)| {
            let mut hit = json!({"_id": id, "_score": score, "sort": [id]});
            if body["_source"] != false {
                let mut source: Map<String, Json> = self.documents[*id].as_object().unwrap().clone();
                source.retain(|name, _| !name.starts_with("_splade"));
                hit["_source"] = Json::Object(source);
            }
            hit
        });
        let hits: Vec<Json> = hits.collect();
        (200, json!({"timed_out": false, "_shards": self.shards(), "hits": {"hits": hits}}))
    }
}

/// Weights of a query by dimension, of a `bool` of `rank_feature` or of a `sparse_vector`.
fn query_weights(query: &Json) -> BTreeMap<String, f64> {
    if let Some(vector) = query.get("sparse_vector") {
        assert!(vector["prune"] == false && vector["field"] == VECTOR);
        let weights = vector["query_vector"].as_object().unwrap();
        return weights.iter().map(|(dim, weight)| (dim.clone(), weight.as_f64().unwrap())).collect();
    }
    let clauses = query["bool"]["should"].as_array().unwrap().iter().map(|clause| &clause["rank_feature"]);
    clauses
        .map(|clause| {
            assert_eq!(clause["linear"], json!({}));
            let dim = clause["field"].as_str().unwrap().strip_prefix("_splade_vector.").unwrap();
            (dim.to_owned(), clause["boost"].as_f64().unwrap())
        })
        .collect()
}

fn error(status: u16, kind: &str, reason: &str) -> Answer {
    (status, json!({"error": {"type": kind, "reason": reason}, "status": status}))
}
