//! Conditions on documents as queries of OpenSearch and Elasticsearch.

use std::ops::Bound;

use serde_json::{Map, Value as Json, json};
use splade_index::{FieldKind, FieldSpec, FilterTree, FilterValue};

use crate::engines::{EngineError, EngineResult};

/// The query of a condition on the documents of `place`, which have these typed fields.
///
/// # Errors
/// A condition that the engine cannot evaluate as the index does, by name.
pub(in crate::engines) fn query(tree: &FilterTree, fields: &[FieldSpec], place: &str) -> EngineResult<Json> {
    let each =
        |trees: &[FilterTree]| trees.iter().map(|tree| query(tree, fields, place)).collect::<EngineResult<Vec<_>>>();
    Ok(match tree {
        FilterTree::Everything => json!({"match_all": {}}),
        FilterTree::All(trees) if trees.is_empty() => json!({"match_all": {}}),
        FilterTree::All(trees) => json!({"bool": {"filter": each(trees)?}}),
        FilterTree::Any(trees) if trees.is_empty() => json!({"match_none": {}}),
        FilterTree::Any(trees) => json!({"bool": {"should": each(trees)?, "minimum_should_match": 1}}),
        FilterTree::Not(tree) => json!({"bool": {"must_not": [query(tree, fields, place)?]}}),
        FilterTree::Ids(ids) => json!({"ids": {"values": ids}}),
        FilterTree::Exists { field } => json!({"exists": {"field": field}}),
        FilterTree::Range { field, lower, upper, .. } => range(field, lower, upper),
        FilterTree::Equals { field, value } => equals(field, value, fields, place)?,
        other => return Err(unknown(place, other)),
    })
}

fn range(field: &str, lower: &Bound<FilterValue>, upper: &Bound<FilterValue>) -> Json {
    if let (Bound::Included(lower), Bound::Included(upper)) = (lower, upper)
        && lower == upper
    {
        return json!({"term": {field: lower.to_json()}});
    }
    let mut bounds = Map::new();
    for (bound, included, excluded) in [(lower, "gte", "gt"), (upper, "lte", "lt")] {
        match bound {
            Bound::Included(value) => bounds.insert(included.to_owned(), value.to_json()),
            Bound::Excluded(value) => bounds.insert(excluded.to_owned(), value.to_json()),
            Bound::Unbounded => None,
        };
    }
    json!({"range": {field: bounds}})
}

/// Equality of a typed field. Other fields are not indexed in the engine.
fn equals(field: &str, value: &Json, fields: &[FieldSpec], place: &str) -> EngineResult<Json> {
    let Some(typed) = fields.iter().find(|typed| typed.name == field) else {
        let message = format!("{place}: the field {field:?} has no type, and only typed fields are indexed there");
        return Err(EngineError::input(
            message,
            "index the documents with the field in --fields, and push the index again",
        ));
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // a value that the type does not have is in no document
    let found = match typed.kind {
        FieldKind::Keyword => Some(json!(text)),
        FieldKind::Int => value.as_i64().or_else(|| text.parse().ok()).map(|value| json!(value)),
        FieldKind::Float => value.as_f64().or_else(|| text.parse().ok()).map(|value| json!(value)),
        FieldKind::Bool => text.parse::<bool>().ok().map(|value| json!(value)),
        _ => return Err(unknown(place, &FilterTree::Equals { field: field.to_owned(), value: value.clone() })),
    };
    Ok(found.map_or(json!({"match_none": {}}), |value| json!({"term": {field: value}})))
}

fn unknown(place: &str, tree: &FilterTree) -> EngineError {
    let what = match tree {
        FilterTree::Phrase { .. } => "phrases".to_owned(),
        FilterTree::Equals { field, .. } => format!("equality of the date {field:?}"),
        _ => "this condition".to_owned(),
    };
    EngineError::input(format!("{place}: {what} cannot be filtered by there"), "leave that part of --filter out")
}
