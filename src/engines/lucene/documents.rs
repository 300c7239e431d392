//! Documents as lines of a bulk request, and hits and failures as documents.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json};
use splade_core::SparseVector;
use splade_index::StoredDocument;

use super::{TEXT, TITLE};
use crate::engines::{EngineError, EngineHit, EngineResult, ItemFailure, Record};

/// Document as it is stored.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    text: &'a str,
    #[serde(rename = "_splade_digest")]
    digest: &'a str,
    #[serde(rename = "_splade_id")]
    id: &'a str,
    #[serde(rename = "_splade_vector", skip_serializing_if = "Option::is_none")]
    vector: Option<Weights<'a>>,
    #[serde(flatten)]
    fields: &'a Map<String, Json>,
}

impl<'a> Document<'a> {
    /// The document of a record.
    pub(super) fn of(record: &'a Record) -> Self {
        Self {
            title: record.title.as_deref(),
            text: &record.text,
            digest: &record.digest,
            id: &record.id,
            vector: (!record.vector.is_empty()).then_some(Weights(&record.vector)),
            fields: &record.fields,
        }
    }
}

/// A vector as an object of weights by dimension. An f32 is written with the fewest digits that it is read back from.
struct Weights<'a>(&'a SparseVector);

impl Serialize for Weights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.active_dims()))?;
        for (dim, weight) in self.0.iter() {
            map.serialize_entry(&dim.to_string(), &weight)?;
        }
        map.end()
    }
}

/// Appends a value as one line of JSON.
pub(super) fn push_line(lines: &mut String, value: &impl Serialize) -> EngineResult<()> {
    let line = serde_json::to_string(value);
    lines.push_str(&line.map_err(|error| EngineError::run(format!("line of a request: {error}"), ""))?);
    lines.push('\n');
    Ok(())
}

/// The failure of an item of a bulk request; none if it was done, or if it deletes what is not there.
pub(super) fn item_failure(item: &Json) -> Option<ItemFailure> {
    let error = item.get("error")?;
    let status = item["status"].as_u64().unwrap_or_default();
    let id = item["_id"].as_str().unwrap_or_default().to_owned();
    Some(ItemFailure { id, message: reason(error), retryable: matches!(status, 429 | 500 | 502 | 503 | 504) })
}

/// Reason of an error, with its innermost cause.
pub(super) fn reason(error: &Json) -> String {
    let text = |error: &Json| error["reason"].as_str().unwrap_or("no reason is given").to_owned();
    let mut inner = error;
    while let Some(cause) = inner.get("caused_by") {
        inner = cause;
    }
    let (outer, inner) = (text(error), text(inner));
    if outer == inner { outer } else { format!("{outer}: {inner}") }
}

/// The document of a hit.
pub(super) fn hit(mut hit: Json) -> Option<EngineHit> {
    let score = hit["_score"].as_f64()? as f32;
    let id = hit["_id"].as_str()?.to_owned();
    let mut other = match hit["_source"].take() {
        Json::Object(source) => source,
        _ => Map::new(),
    };
    let mut take = |key: &str| match other.shift_remove(key) {
        Some(Json::String(text)) => Some(text),
        _ => None,
    };
    let (title, text) = (take(TITLE), take(TEXT).unwrap_or_default());
    Some(EngineHit { score, document: StoredDocument { id, title, text, other } })
}
