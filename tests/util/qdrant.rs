//! [`Qdrant`]: a Qdrant on this machine that checks every request strictly and scores by brute force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value as Json, json};

use super::loopback::{Answer, Loopback, Request};

/// A document with this text is refused, with the whole request that it comes in.
pub(crate) const REFUSED_TEXT: &str = "this document is refused";

#[derive(Debug, Clone, Default, PartialEq)]
struct Collection {
    metadata: Map<String, Json>,
    /// names of the sparse vectors, and true for those with the modifier `idf`
    vectors: BTreeMap<String, bool>,
    fields: BTreeMap<String, String>,
    points: BTreeMap<String, Point>,
}

#[derive(Debug, Clone, PartialEq)]
struct Point {
    /// sparse vectors by name
    vectors: BTreeMap<String, Sparse>,
    payload: Map<String, Json>,
}

type Sparse = BTreeMap<u32, f32>;

type Collections = Arc<Mutex<BTreeMap<String, Collection>>>;

/// The server. It ends with the test.
pub(crate) struct Qdrant {
    /// requests and faults
    pub(crate) http: Loopback,
    collections: Collections,
}

impl Qdrant {
    /// Starts a server without collections.
    pub(crate) fn start() -> Self {
        let collections = Collections::default();
        let of_server = collections.clone();
        let http = Loopback::start(move |request| {
            let answer = of_server.lock().unwrap_or_else(|error| error.into_inner()).answer(request);
            answer.unwrap_or_else(|why| (400, json!({"status": {"error": format!("Wrong input: {why}")}, "time": 0.0})))
        });
        Self { http, collections }
    }

    /// Address of the server.
    pub(crate) fn address(&self) -> &str {
        self.http.address()
    }

    /// Payloads of a collection, by the document's id.
    pub(crate) fn payloads(&self, name: &str) -> BTreeMap<String, Json> {
        let collections = self.collections.lock().unwrap();
        let points = collections.get(name).into_iter().flat_map(|collection| collection.points.values());
        points
            .map(|point| (point.payload["_id"].as_str().unwrap().to_owned(), Json::Object(point.payload.clone())))
            .collect()
    }

    /// Types of the indexed fields of a collection.
    pub(crate) fn fields(&self, name: &str) -> BTreeMap<String, String> {
        self.collections.lock().unwrap()[name].fields.clone()
    }

    /// The collections as text, for comparisons of everything that they have.
    pub(crate) fn content(&self) -> String {
        format!("{:#?}", self.collections.lock().unwrap())
    }

    /// Adds a collection that another program made.
    pub(crate) fn create_foreign(&self, name: &str) {
        self.collections.lock().unwrap().insert(name.to_owned(), Collection::default());
    }

    /// Multiplies the weights of a vector of a document, as a defect of the engine would.
    pub(crate) fn damage(&self, name: &str, id: &str, vector: &str, factor: f32) {
        let mut collections = self.collections.lock().unwrap();
        let points = &mut collections.get_mut(name).unwrap().points;
        let point = points.values_mut().find(|point| point.payload["_id"] == id).unwrap();
        point.vectors.get_mut(vector).unwrap().values_mut().for_each(|weight| *weight *= factor);
    }
}

/// Answers of the collections.
trait Api {
    fn answer(&mut self, request: &Request) -> Result<Answer, String>;
}

impl Api for BTreeMap<String, Collection> {
    fn answer(&mut self, request: &Request) -> Result<Answer, String> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if !["", "wait=true"].contains(&query) {
            return Err(format!("query {query}"));
        }
        let rest = path.strip_prefix("/collections/").ok_or("path")?;
        let (name, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let missing = || (404, json!({"status": {"error": format!("Not found: Collection `{name}` doesn't exist!")}}));
        let body = || request.json();
        let result = match (request.method.as_str(), verb) {
            ("PUT", "") => {
                if self.contains_key(name) {
                    return Ok((409, json!({"status": {"error": "already exists"}})));
                }
                self.insert(name.to_owned(), create(&body())?);
                json!(true)
            }
            ("DELETE", "") => json!(self.remove(name).is_some()),
            (method, verb) => {
                let Some(collection) = self.get_mut(name) else { return Ok(missing()) };
                match (method, verb) {
                    ("GET", "") => collection.info(),
                    ("PATCH", "") => {
                        let body = body();
                        keys(&body, &["metadata"], &["metadata"])?;
                        collection.metadata.extend(body["metadata"].as_object().ok_or("metadata")?.clone());
                        json!(true)
                    }
                    ("PUT", "index") => collection.index(&body())?,
                    ("PUT", "points") => collection.upsert(&body())?,
                    ("POST", "points") => collection.retrieve(&body())?,
                    ("POST", "points/count") => {
                        keys(&body(), &["exact", "filter"], &[])?;
                        json!({"count": collection.points.len()})
                    }
                    ("POST", "points/scroll") => collection.scroll(&body())?,
                    ("POST", "points/delete") => collection.delete(&body())?,
                    ("POST", "points/query") => collection.query(&body())?,
                    _ => return Ok((404, json!({"status": {"error": "no such path"}}))),
                }
            }
        };
        Ok((200, json!({"result": result, "status": "ok", "time": 0.0})))
    }
}

fn create(body: &Json) -> Result<Collection, String> {
    keys(body, &["vectors", "sparse_vectors", "metadata", "shard_number", "replication_factor"], &["sparse_vectors"])?;
    let sparse = &body["sparse_vectors"];
    keys(sparse, &["splade", "words"], &["splade"])?;
    // a modifier would change the scores of the model's vectors
    keys(&sparse["splade"], &["index"], &["index"])?;
    let mut vectors = BTreeMap::new();
    for (name, parameters) in sparse.as_object().ok_or("sparse_vectors")? {
        keys(parameters, &["index", "modifier"], &["index"])?;
        keys(&parameters["index"], &["on_disk", "datatype"], &[])?;
        let modifier = &parameters["modifier"];
        if !modifier.is_null() && modifier != "idf" {
            return Err(format!("modifier {modifier}"));
        }
        vectors.insert(name.clone(), modifier == "idf");
    }
    let metadata = body["metadata"].as_object().cloned().unwrap_or_default();
    Ok(Collection { metadata, vectors, ..Collection::default() })
}

impl Collection {
    fn info(&self) -> Json {
        json!({
            "status": "green", "optimizer_status": "ok", "segments_count": 1, "points_count": self.points.len(),
            "payload_schema": self.fields,
            "config": {"params": {}, "hnsw_config": {}, "optimizer_config": {}, "metadata": self.metadata},
        })
    }

    fn index(&mut self, body: &Json) -> Result<Json, String> {
        keys(body, &["field_name", "field_schema"], &["field_name", "field_schema"])?;
        let schema = body["field_schema"].as_str().ok_or("field_schema")?;
        if !["keyword", "integer", "float", "datetime", "bool"].contains(&schema) {
            return Err(format!("unknown schema {schema}"));
        }
        let name = body["field_name"].as_str().ok_or("field_name")?;
        if name.contains(' ') && !name.contains('"') {
            return Err(format!("invalid JSON path {name}"));
        }
        self.fields.insert(name.to_owned(), schema.to_owned());
        Ok(done())
    }

    fn upsert(&mut self, body: &Json) -> Result<Json, String> {
        keys(body, &["points"], &["points"])?;
        let mut points = Vec::new();
        for point in body["points"].as_array().ok_or("points")? {
            keys(point, &["id", "vector", "payload"], &["id", "vector"])?;
            let mut vectors = BTreeMap::new();
            for (name, sparse) in point["vector"].as_object().ok_or("vector")? {
                if !self.vectors.contains_key(name) {
                    return Err(format!("Not existing vector name error: {name}"));
                }
                vectors.insert(name.clone(), weights(sparse)?);
            }
            let payload = point["payload"].as_object().ok_or("payload")?.clone();
            if payload["text"] == REFUSED_TEXT {
                return Err("a document of this text".to_owned());
            }
            self.check_types(&payload)?;
            points.push((uuid(&point["id"])?, Point { vectors, payload }));
        }
        let ids: BTreeSet<&String> = points.iter().map(|(id, _)| id).collect();
        if ids.len() < points.len() {
            return Err("a point twice in one request".to_owned());
        }
        self.points.extend(points);
        Ok(done())
    }

    /// Values of indexed fields must have the type of the index, which Qdrant itself does not check: it would not find them.
    fn check_types(&self, payload: &Map<String, Json>) -> Result<(), String> {
        for (name, schema) in &self.fields {
            let values = values(payload, name);
            let fits = |value: &&Json| match schema.as_str() {
                "keyword" => value.is_string(),
                "integer" => value.is_i64(),
                "float" => value.is_number(),
                "bool" => value.is_boolean(),
                _ => value.as_str().is_some_and(|text| text.ends_with('Z')),
            };
            if let Some(wrong) = values.iter().find(|value| !fits(value)) {
                return Err(format!("{name} of type {schema} has the value {wrong}"));
            }
        }
        Ok(())
    }

    fn retrieve(&self, body: &Json) -> Result<Json, String> {
        keys(body, &["ids", "with_payload", "with_vector"], &["ids"])?;
        let ids = body["ids"].as_array().ok_or("ids")?.iter().map(uuid).collect::<Result<Vec<_>, _>>()?;
        let found = ids.iter().filter_map(|id| Some((id, self.points.get(id)?)));
        found
            .map(|(id, point)| Ok(json!({"id": id, "payload": shown(&point.payload, &body["with_payload"])?})))
            .collect()
    }

    fn scroll(&self, body: &Json) -> Result<Json, String> {
        keys(body, &["limit", "offset", "with_payload", "with_vector"], &["limit"])?;
        let limit = body["limit"].as_u64().ok_or("limit")? as usize;
        let from = body.get("offset").map(uuid).transpose()?.unwrap_or_default();
        let mut found = self.points.range(from..);
        let page: Result<Vec<Json>, String> = found
            .by_ref()
            .take(limit)
            .map(|(id, point)| Ok(json!({"id": id, "payload": shown(&point.payload, &body["with_payload"])?})))
            .collect();
        Ok(json!({"points": page?, "next_page_offset": found.next().map(|(id, _)| id)}))
    }

    fn delete(&mut self, body: &Json) -> Result<Json, String> {
        keys(body, &["points"], &["points"])?;
        for id in body["points"].as_array().ok_or("points")? {
            self.points.remove(&uuid(id)?);
        }
        Ok(done())
    }

    fn query(&self, body: &Json) -> Result<Json, String> {
        let scored = match body.get("prefetch") {
            None => {
                keys(body, &["query", "using", "limit", "with_payload", "filter"], &["query", "using", "limit"])?;
                self.ranking(body)?
            }
            Some(rankings) => self.fused(rankings, body)?,
        };
        let points: Result<Vec<Json>, String> = scored
            .into_iter()
            .map(|(score, id)| {
                let payload = shown(&self.points[id].payload, &body["with_payload"])?;
                Ok(json!({"id": id, "version": 0, "score": score, "payload": payload}))
            })
            .collect();
        Ok(json!({"points": points?}))
    }

    /// Ranking by one kind of vector.
    fn ranking(&self, body: &Json) -> Result<Vec<(f32, &String)>, String> {
        let name = body["using"].as_str().ok_or("using")?;
        let has_idf = *self.vectors.get(name).ok_or_else(|| format!("Not existing vector name error: {name}"))?;
        let mut query = weights(&body["query"])?;
        if has_idf {
            query.iter_mut().for_each(|(dim, weight)| *weight *= self.idf(name, *dim));
        }
        let mut scored = Vec::new();
        for (id, point) in &self.points {
            let Some(vector) = point.vectors.get(name) else { continue };
            let common: Vec<f32> = query.iter().filter_map(|(dim, weight)| Some(weight * vector.get(dim)?)).collect();
            if !common.is_empty() && body.get("filter").map_or(Ok(true), |filter| passes(filter, id, &point.payload))? {
                scored.push((common.iter().sum::<f32>(), id));
            }
        }
        best(scored, body)
    }

    /// Inverse document frequency over the points with such a vector.
    fn idf(&self, name: &str, dim: u32) -> f32 {
        let vectors = || self.points.values().filter_map(|point| point.vectors.get(name));
        let (n, df) = (vectors().count() as f32, vectors().filter(|vector| vector.contains_key(&dim)).count() as f32);
        (1.0 + (n - df + 0.5) / (df + 0.5)).ln()
    }

    /// Fusion by reciprocal ranks, where the first rank is 0.
    fn fused(&self, rankings: &Json, body: &Json) -> Result<Vec<(f32, &String)>, String> {
        keys(body, &["prefetch", "query", "limit", "with_payload"], &["prefetch", "query", "limit"])?;
        keys(&body["query"], &["rrf"], &["rrf"])?;
        keys(&body["query"]["rrf"], &["k"], &["k"])?;
        let k = body["query"]["rrf"]["k"].as_u64().filter(|k| *k > 0).ok_or("k")? as f32;
        let mut sums: BTreeMap<&String, f32> = BTreeMap::new();
        for ranking in rankings.as_array().ok_or("prefetch")? {
            keys(ranking, &["query", "using", "limit", "filter"], &["query", "using", "limit"])?;
            for (rank, (_, id)) in self.ranking(ranking)?.into_iter().enumerate() {
                *sums.entry(id).or_default() += 1.0 / (k + rank as f32);
            }
        }
        best(sums.into_iter().map(|(id, score)| (score, id)).collect(), body)
    }
}

/// The best of scored points, as many as the body wants.
fn best<'a>(mut scored: Vec<(f32, &'a String)>, body: &Json) -> Result<Vec<(f32, &'a String)>, String> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.truncate(body["limit"].as_u64().ok_or("limit")? as usize);
    Ok(scored)
}

fn done() -> Json {
    json!({"operation_id": 0, "status": "completed"})
}

/// Refuses an object with other keys, or without one of those that are required.
fn keys(json: &Json, allowed: &[&str], required: &[&str]) -> Result<(), String> {
    let object = json.as_object().ok_or_else(|| format!("{json} is no object"))?;
    if let Some(other) = object.keys().find(|key| !allowed.contains(&key.as_str())) {
        return Err(format!("unknown key {other}"));
    }
    match required.iter().find(|key| !object.contains_key(**key)) {
        Some(missing) => Err(format!("missing key {missing}")),
        None => Ok(()),
    }
}

fn uuid(json: &Json) -> Result<String, String> {
    let text = json.as_str().ok_or_else(|| format!("{json} is no UUID"))?;
    let is_uuid = text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_uuid { Ok(text.to_owned()) } else { Err(format!("{text} is no UUID")) }
}

fn weights(sparse: &Json) -> Result<Sparse, String> {
    keys(sparse, &["indices", "values"], &["indices", "values"])?;
    let (indices, values) =
        (sparse["indices"].as_array().ok_or("indices")?, sparse["values"].as_array().ok_or("values")?);
    let dims = indices.iter().map(|dim| dim.as_u64().and_then(|dim| u32::try_from(dim).ok()).ok_or("an index"));
    let values = values.iter().map(|value| value.as_f64().map(|value| value as f32).ok_or("a value"));
    let (dims, values) = (dims.collect::<Result<Vec<_>, _>>()?, values.collect::<Result<Vec<_>, _>>()?);
    let weights: Sparse = dims.iter().copied().zip(values.iter().copied()).collect();
    if dims.len() != values.len() || weights.len() != dims.len() {
        return Err("indices are not unique, or not as many as values".to_owned());
    }
    Ok(weights)
}

/// The part of a payload that `with_payload` asks for.
fn shown(payload: &Map<String, Json>, with: &Json) -> Result<Json, String> {
    match with {
        Json::Bool(true) => Ok(Json::Object(payload.clone())),
        Json::Bool(false) => Ok(Json::Null),
        Json::Array(names) => Ok(Json::Object(
            payload
                .iter()
                .filter(|(name, _)| names.contains(&json!(name)))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
        )),
        other => Err(format!("with_payload {other}")),
    }
}

/// Values of a path in a payload: of a list, its elements. A key in quotes is taken as a whole.
fn values<'a>(payload: &'a Map<String, Json>, path: &str) -> Vec<&'a Json> {
    let found = match path.strip_prefix('"').and_then(|path| path.strip_suffix('"')) {
        Some(key) => payload.get(key),
        None => {
            let mut steps = path.split('.');
            let first = steps.next().and_then(|key| payload.get(key));
            steps.fold(first, |value, key| value?.get(key))
        }
    };
    match found {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Array(values)) => values.iter().filter(|value| !value.is_null()).collect(),
        Some(value) => vec![value],
    }
}

fn passes(filter: &Json, id: &str, payload: &Map<String, Json>) -> Result<bool, String> {
    keys(filter, &["must", "should", "must_not"], &[])?;
    let all = |name: &str| -> Result<Vec<bool>, String> {
        let conditions = filter.get(name).and_then(Json::as_array).into_iter().flatten();
        conditions.map(|condition| meets(condition, id, payload)).collect()
    };
    let (must, should, must_not) = (all("must")?, all("should")?, all("must_not")?);
    Ok(must.iter().all(|met| *met) && (should.is_empty() || should.contains(&true)) && !must_not.contains(&true))
}

fn meets(condition: &Json, id: &str, payload: &Map<String, Json>) -> Result<bool, String> {
    if let Some(ids) = condition.get("has_id") {
        keys(condition, &["has_id"], &[])?;
        return Ok(ids.as_array().ok_or("has_id")?.iter().any(|other| other == id));
    }
    if let Some(empty) = condition.get("is_empty") {
        keys(condition, &["is_empty"], &[])?;
        keys(empty, &["key"], &["key"])?;
        return Ok(values(payload, empty["key"].as_str().ok_or("key")?).is_empty());
    }
    let Some(key) = condition.get("key") else { return passes(condition, id, payload) };
    keys(condition, &["key", "match", "range"], &["key"])?;
    let values = values(payload, key.as_str().ok_or("key")?);
    if let Some(wanted) = condition.get("match") {
        keys(wanted, &["value"], &["value"])?;
        // Qdrant matches texts, integers and booleans
        if wanted["value"].is_f64() {
            return Err("match of a float".to_owned());
        }
        return Ok(values.contains(&&wanted["value"]));
    }
    let range = &condition["range"];
    keys(range, &["gt", "gte", "lt", "lte"], &[])?;
    let bounds = range.as_object().ok_or("range")?;
    let inside = |value: &&Json| {
        bounds.iter().all(|(name, bound)| {
            let order = match (value.as_f64(), bound.as_f64()) {
                (Some(value), Some(bound)) => value.partial_cmp(&bound),
                // instants in UTC with equal precision
                _ => value.as_str().zip(bound.as_str()).map(|(value, bound)| value.cmp(bound)),
            };
            order.is_some_and(|order| match name.as_str() {
                "gt" => order.is_gt(),
                "gte" => order.is_ge(),
                "lt" => order.is_lt(),
                _ => order.is_le(),
            })
        })
    };
    Ok(values.iter().any(inside))
}
