//! Filters as conditions of Qdrant.

use std::ops::Bound;

use serde_json::{Value as Json, json};
use splade_index::{FieldKind, FilterTree, FilterValue};

use super::point_id;
use crate::engines::{EngineError, EngineResult};

/// Largest magnitude of an integer in a range, which Qdrant compares as f64.
const RANGE_INT_MAX: u64 = 1 << 53;

/// The `filter` of a request.
///
/// # Errors
/// A condition that Qdrant cannot express, by name.
pub(super) fn filter(tree: &FilterTree) -> EngineResult<Json> {
    let condition = condition(tree)?;
    let is_filter = ["must", "should", "must_not"].iter().any(|key| condition.get(key).is_some());
    Ok(if is_filter { condition } else { json!({"must": [condition]}) })
}

fn condition(tree: &FilterTree) -> EngineResult<Json> {
    let each = |trees: &[FilterTree]| trees.iter().map(condition).collect::<EngineResult<Vec<Json>>>();
    Ok(match tree {
        FilterTree::Everything => json!({"must": []}),
        FilterTree::Equals { field, value } => equals(field, value)?,
        FilterTree::Exists { field } => {
            let empty: EngineResult<Vec<Json>> =
                keys(field)?.iter().map(|key| Ok(json!({"is_empty": {"key": key}}))).collect();
            json!({"must_not": [{"must": empty?}]})
        }
        FilterTree::Range { field, kind, lower, upper } => {
            let of_key = |key: &String| range(field, key, *kind, lower, upper);
            any(keys(field)?.iter().map(of_key).collect::<EngineResult<_>>()?)
        }
        FilterTree::Ids(ids) => json!({"has_id": ids.iter().map(|id| point_id(id)).collect::<Vec<_>>()}),
        FilterTree::All(trees) => json!({"must": each(trees)?}),
        // no document has an id of none
        FilterTree::Any(trees) if trees.is_empty() => json!({"has_id": []}),
        FilterTree::Any(trees) => any(each(trees)?),
        FilterTree::Not(tree) => json!({"must_not": [condition(tree)?]}),
        FilterTree::Phrase { .. } => {
            return Err(refuse("words of text", "it has another analyzer than the index, and other words"));
        }
        _ => return Err(refuse("this condition", "it is unknown")),
    })
}

fn any(mut conditions: Vec<Json>) -> Json {
    match conditions.len() {
        1 => conditions.remove(0),
        _ => json!({"should": conditions}),
    }
}

/// A field equals a value; a number or boolean also equals its text.
fn equals(field: &str, value: &Json) -> EngineResult<Json> {
    let mut conditions = Vec::new();
    for key in keys(field)? {
        if !value.is_string() {
            conditions.push(json!({"key": key, "match": {"value": value.to_string()}}));
        }
        match value {
            // Qdrant matches texts, integers and booleans; floats are a range
            Json::Number(number) if number.as_i64().is_none() => {
                conditions.push(json!({"key": key, "range": {"gte": value, "lte": value}}));
            }
            _ => conditions.push(json!({"key": key, "match": {"value": value}})),
        }
    }
    Ok(any(conditions))
}

fn range(
    field: &str,
    key: &str,
    kind: FieldKind,
    lower: &Bound<FilterValue>,
    upper: &Bound<FilterValue>,
) -> EngineResult<Json> {
    let is_one = lower == upper && matches!(lower, Bound::Included(_));
    match (kind, lower) {
        (FieldKind::Keyword | FieldKind::Int | FieldKind::Bool, Bound::Included(value)) if is_one => {
            return Ok(json!({"key": key, "match": {"value": value.to_json()}}));
        }
        (FieldKind::Keyword, _) => {
            return Err(refuse(&format!("the field {field}"), "it has no ranges of keywords"));
        }
        _ => {}
    }
    let mut bounds = json!({});
    for (bound, included, excluded) in [(lower, "gte", "gt"), (upper, "lte", "lt")] {
        let (name, value) = match bound {
            Bound::Unbounded => continue,
            Bound::Included(value) => (included, value),
            Bound::Excluded(value) => (excluded, value),
        };
        if let FilterValue::Int(value) = value
            && value.unsigned_abs() > RANGE_INT_MAX
        {
            return Err(refuse(&format!("the field {field}"), "its ranges of integers end at 2^53"));
        }
        bounds[name] = value.to_json();
    }
    Ok(json!({"key": key, "range": bounds}))
}

/// Path of a field in a payload, with every dot as a step into an object; none for a name that no path has.
pub(super) fn path(field: &str) -> Option<String> {
    keys(field).ok()?.into_iter().next()
}

/// Paths of a field in a payload: one with every dot as a step into an object, and one with the whole name as a key.
fn keys(field: &str) -> EngineResult<Vec<String>> {
    if field.contains('"') {
        return Err(refuse(&format!("the field {field}"), "names with double quotes cannot be written"));
    }
    let is_plain =
        |step: &str| !step.is_empty() && step.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let quoted = |name: &str| if is_plain(name) { name.to_owned() } else { format!("\"{name}\"") };
    let whole = quoted(field);
    if !field.contains('.') {
        return Ok(vec![whole]);
    }
    let steps: Vec<String> = field.split('.').map(quoted).collect();
    Ok(vec![steps.join("."), whole])
}

fn refuse(what: &str, why: &str) -> EngineError {
    EngineError::input(
        format!("filter: {what}: qdrant cannot express it: {why}"),
        "leave it out, or search the index itself",
    )
}

#[cfg(test)]
mod tests {
    use splade_index::{FieldSpec, Filter};

    use super::*;

    fn of(text: &str) -> EngineResult<Json> {
        let fields = FieldSpec::parse_list("lang:keyword,year:int,price:float,on:date,new:bool,meta.n:int").unwrap();
        filter(&text.parse::<Filter>().unwrap().tree(&fields).unwrap())
    }

    #[test]
    fn conditions_are_those_of_qdrant() {
        let year = json!({"key": "year", "range": {"gte": 2020}});
        let lang = |value: &str| json!({"key": "lang", "match": {"value": value}});
        for (text, expected) in [
            ("lang:nb AND year:[2020 TO *]", json!({"must": [lang("nb"), year]})),
            ("lang: IN [nb nn]", json!({"should": [lang("nb"), lang("nn")]})),
            ("NOT new:true", json!({"must": [{"must_not": [{"key": "new", "match": {"value": true}}]}]})),
            ("price:1.5", json!({"must": [{"key": "price", "range": {"gte": 1.5, "lte": 1.5}}]})),
            (
                "on:2020-02",
                json!({"must": [{"key": "on", "range": {"gte": "2020-02-01T00:00:00Z", "lt": "2020-03-01T00:00:00Z"}}]}),
            ),
            ("lang:*", json!({"must_not": [{"must": [{"is_empty": {"key": "lang"}}]}]})),
            ("id:d1", json!({"must": [{"has_id": [point_id("d1")]}]})),
            (
                "meta.n:3",
                json!({"should": [
                    {"key": "meta.n", "match": {"value": 3}}, {"key": "\"meta.n\"", "match": {"value": 3}},
                ]}),
            ),
            (
                "place=Oslo,n=3",
                json!({"must": [
                    {"key": "place", "match": {"value": "Oslo"}},
                    {"should": [{"key": "n", "match": {"value": "3"}}, {"key": "n", "match": {"value": 3}}]},
                ]}),
            ),
        ] {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_qdrant_lacks_is_refused_by_name() {
        for (text, part) in [
            ("lang:[a TO b]", "the field lang: qdrant cannot express it: it has no ranges of keywords"),
            ("text:\"to ord\"", "words of text"),
            ("year:[9007199254740993 TO *]", "2^53"),
            ("\"a\\\"b\"=1", "double quotes"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
