//! Conditions on documents as expressions of Milvus.

use std::collections::BTreeSet;
use std::ops::Bound;

use serde_json::Value as Json;
use splade_index::{FilterTree, FilterValue};

use super::{DOCUMENT, FIELDS, ID, LISTS, TYPED};
use crate::engines::typed::sortable;
use crate::engines::{EngineError, EngineResult};

/// The expression of a tree. `place` is the collection, for messages.
///
/// # Errors
/// A condition that the engine cannot evaluate as the index does, by name.
pub(super) fn expression(tree: &FilterTree, place: &str) -> EngineResult<String> {
    Ok(match tree {
        FilterTree::Everything => everything(),
        FilterTree::All(trees) if trees.is_empty() => everything(),
        FilterTree::Any(trees) if trees.is_empty() => nothing(),
        FilterTree::All(trees) => joined(trees, " and ", place)?,
        FilterTree::Any(trees) => joined(trees, " or ", place)?,
        FilterTree::Not(tree) => format!("not ({})", expression(tree, place)?),
        FilterTree::Ids(ids) if ids.is_empty() => nothing(),
        FilterTree::Ids(listed) => ids(listed),
        FilterTree::Equals { field, value } => equals(field, value),
        FilterTree::Exists { field } => format!("(exists {})", typed(field)),
        FilterTree::Range { field, lower, upper, .. } => range(&typed(field), lower, upper),
        FilterTree::Phrase { .. } => {
            return Err(EngineError::input(
                format!("{place}: words and phrases cannot be filtered by there"),
                "leave that part of --filter out",
            ));
        }
        _ => {
            let message = format!("{place}: this condition cannot be filtered by there");
            return Err(EngineError::input(message, "leave that part of --filter out"));
        }
    })
}

/// Adds the fields that a tree compares with a range.
pub(super) fn ranges<'a>(tree: &'a FilterTree, fields: &mut BTreeSet<&'a str>) {
    match tree {
        FilterTree::All(trees) | FilterTree::Any(trees) => trees.iter().for_each(|tree| ranges(tree, fields)),
        FilterTree::Not(tree) => ranges(tree, fields),
        FilterTree::Range { field, lower, upper, .. } if single(lower, upper).is_none() => drop(fields.insert(field)),
        _ => {}
    }
}

/// Documents with several values in a typed field.
pub(super) fn has_list(field: &str) -> String {
    format!("(exists {DOCUMENT}[\"{LISTS}\"][{}])", text(field))
}

/// Documents with one of these ids.
pub(super) fn ids(ids: &[String]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| text(id)).collect();
    format!("({ID} in [{}])", ids.join(", "))
}

/// A text as a literal: that of JSON, whose escapes Milvus reads too.
pub(super) fn text(text: &str) -> String {
    Json::from(text).to_string()
}

/// No document has an empty id.
fn everything() -> String {
    format!("({ID} != \"\")")
}

fn nothing() -> String {
    format!("({ID} == \"\")")
}

fn joined(trees: &[FilterTree], operator: &str, place: &str) -> EngineResult<String> {
    let parts = trees.iter().map(|tree| expression(tree, place)).collect::<EngineResult<Vec<_>>>()?;
    Ok(format!("({})", parts.join(operator)))
}

fn typed(field: &str) -> String {
    format!("{DOCUMENT}[\"{TYPED}\"][{}]", text(field))
}

/// Equality of any field: a dot is part of its name, or stands before a field of an object.
fn equals(field: &str, value: &Json) -> String {
    let step = |key: &str| format!("[{}]", text(key));
    let mut paths = vec![field.split('.').map(step).collect::<String>()];
    if field.contains('.') {
        paths.push(step(field));
    }
    let mut values = vec![value.clone()];
    if !value.is_string() {
        values.push(Json::from(value.to_string()));
    }
    let mut parts = Vec::new();
    for path in &paths {
        let path = format!("{DOCUMENT}[\"{FIELDS}\"]{path}");
        parts.extend(values.iter().map(|value| has(&path, value)));
    }
    format!("({})", parts.join(" or "))
}

/// A value, or a list with it. A comparison with a field that is not there is neither true nor false, so its existence is
/// asked for first.
fn has(path: &str, value: &Json) -> String {
    format!("(exists {path} and ({path} == {value} or json_contains({path}, {value})))")
}

/// The value of a range of one value.
fn single<'a>(lower: &'a Bound<FilterValue>, upper: &Bound<FilterValue>) -> Option<&'a FilterValue> {
    match (lower, upper) {
        (Bound::Included(least), Bound::Included(most)) if least == most => Some(least),
        _ => None,
    }
}

/// A single value in a range; the values of a list are compared by equality alone.
fn range(path: &str, lower: &Bound<FilterValue>, upper: &Bound<FilterValue>) -> String {
    if let Some(value) = single(lower, upper) {
        return has(path, &sortable(value));
    }
    let bound = |bound: &Bound<FilterValue>, included: &str, excluded: &str| match bound {
        Bound::Included(value) => Some(format!("{path} {included} {}", sortable(value))),
        Bound::Excluded(value) => Some(format!("{path} {excluded} {}", sortable(value))),
        Bound::Unbounded => None,
    };
    let bounds = [bound(lower, ">=", ">"), bound(upper, "<=", "<")].into_iter().flatten();
    format!("(exists {path} and {})", bounds.collect::<Vec<_>>().join(" and "))
}

#[cfg(test)]
mod tests {
    use splade_index::{FieldSpec, Filter};

    use super::*;

    #[test]
    fn values_of_users_are_literals() {
        let fields = FieldSpec::parse_list("lang:keyword,year:int").unwrap();
        let text = |filter: &Filter| expression(&filter.tree(&fields).unwrap(), "collection c").unwrap();
        let odd = text(&Filter::equals("a\"b", "c\\d\n\" or id != \""));
        let path = r#"document["fields"]["a\"b"]"#;
        let value = r#""c\\d\n\" or id != \"""#;
        assert_eq!(odd, format!("((exists {path} and ({path} == {value} or json_contains({path}, {value}))))"));
        let year = text(&"year:[2000 TO 2024}".parse().unwrap());
        let path = r#"document["typed"]["year"]"#;
        assert_eq!(year, format!("(exists {path} and {path} >= 2000 and {path} <= 2023)"));
        let mut compared = BTreeSet::new();
        let tree = "year:>2000 AND NOT lang:nb".parse::<Filter>().unwrap().tree(&fields).unwrap();
        ranges(&tree, &mut compared);
        assert_eq!(compared.into_iter().collect::<Vec<_>>(), ["year"]);
        let phrase = "text:\"a b\"".parse::<Filter>().unwrap().tree(&fields).unwrap();
        assert!(expression(&phrase, "collection c").unwrap_err().to_string().contains("phrases"));
    }
}
