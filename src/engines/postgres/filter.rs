//! Conditions on documents as conditions of SQL over the columns `payload` and `typed`.

use std::ops::Bound;

use serde_json::Value as Json;
use splade_index::{FilterTree, FilterValue};

use super::statements::Binder;
use crate::engines::typed::sortable;
use crate::engines::{EngineError, EngineResult};

/// The condition of a tree. `place` is the table, for messages.
///
/// # Errors
/// A condition that the engine cannot evaluate as the index does, by name.
pub(super) fn condition(tree: &FilterTree, binder: &mut Binder, place: &str) -> EngineResult<String> {
    Ok(match tree {
        FilterTree::Everything => "TRUE".to_owned(),
        FilterTree::All(trees) if trees.is_empty() => "TRUE".to_owned(),
        FilterTree::Any(trees) if trees.is_empty() => "FALSE".to_owned(),
        FilterTree::All(trees) => joined(trees, " AND ", binder, place)?,
        FilterTree::Any(trees) => joined(trees, " OR ", binder, place)?,
        FilterTree::Not(tree) => format!("NOT {}", condition(tree, binder, place)?),
        FilterTree::Ids(ids) => format!("(id = ANY({}))", binder.texts(ids.clone())),
        FilterTree::Equals { field, value } => equals(field, value, binder),
        FilterTree::Exists { field } => has_path("typed", format!("$.{}", quoted(field)), binder),
        FilterTree::Range { field, lower, upper, .. } => {
            let bounds = [bound(lower, ">=", ">"), bound(upper, "<=", "<")];
            let bounds: Vec<String> = bounds.into_iter().flatten().collect();
            has_path("typed", format!("$.{} ? ({})", quoted(field), bounds.join(" && ")), binder)
        }
        FilterTree::Phrase { .. } => {
            return Err(EngineError::input(
                format!("{place}: words and phrases cannot be filtered by there as in an index"),
                "leave that part of --filter out",
            ));
        }
        _ => {
            let message = format!("{place}: this condition cannot be filtered by there");
            return Err(EngineError::input(message, "leave that part of --filter out"));
        }
    })
}

fn joined(trees: &[FilterTree], operator: &str, binder: &mut Binder, place: &str) -> EngineResult<String> {
    let parts = trees.iter().map(|tree| condition(tree, binder, place)).collect::<EngineResult<Vec<_>>>()?;
    Ok(format!("({})", parts.join(operator)))
}

/// Equality of any field, typed or not: a dot is part of its name, or stands before a field of an object. In the mode `lax`
/// of JSON paths, which is the default, a path meets the elements of lists.
fn equals(field: &str, value: &Json, binder: &mut Binder) -> String {
    let mut values = vec![value.to_string()];
    if !value.is_string() {
        values.push(Json::from(value.to_string()).to_string());
    }
    let test: Vec<String> = values.iter().map(|value| format!("@ == {value}")).collect();
    let test = test.join(" || ");
    let nested: Vec<String> = field.split('.').map(quoted).collect();
    let mut paths = vec![nested.join(".")];
    if field.contains('.') {
        paths.push(quoted(field));
    }
    let parts = paths.into_iter().map(|path| has_path("payload", format!("$.{path} ? ({test})"), binder));
    format!("({})", parts.collect::<Vec<_>>().join(" OR "))
}

fn bound(bound: &Bound<FilterValue>, included: &str, excluded: &str) -> Option<String> {
    let (operator, value) = match bound {
        Bound::Included(value) => (included, value),
        Bound::Excluded(value) => (excluded, value),
        Bound::Unbounded => return None,
    };
    let value = sortable(value);
    // paths do not order booleans
    let operator = if value.is_boolean() { "==" } else { operator };
    Some(format!("@ {operator} {value}"))
}

/// The condition that a JSON path finds something in a column.
fn has_path(column: &str, path: String, binder: &mut Binder) -> String {
    format!("({column} @? {}::jsonpath)", binder.text(path))
}

/// A key of a JSON path. Its strings are written as those of JSON.
fn quoted(key: &str) -> String {
    Json::from(key).to_string()
}

#[cfg(test)]
mod tests {
    use splade_index::{FieldSpec, Filter};

    use super::*;

    #[test]
    fn values_of_users_are_parameters_or_quoted() {
        let fields = FieldSpec::parse_list("lang:keyword,year:int,on:date,new:bool").unwrap();
        let text = |filter: &str| {
            let tree = filter.parse::<Filter>().unwrap().tree(&fields).unwrap();
            condition(&tree, &mut Binder::Literals, "table t").unwrap()
        };
        assert_eq!(text("year:[2000 TO 2024}"), "(typed @? '$.\"year\" ? (@ >= 2000 && @ <= 2023)'::text::jsonpath)");
        let odd = Filter::equals("it's \"a\\b", "'; DROP TABLE x; --");
        let mut binder = Binder::Parameters(Vec::new());
        let sql = condition(&odd.tree(&[]).unwrap(), &mut binder, "table t").unwrap();
        assert_eq!(sql, "((payload @? $1::text::jsonpath))");
        let sql = condition(&odd.tree(&[]).unwrap(), &mut Binder::Literals, "table t").unwrap();
        let expected = r#"((payload @? '$."it''s \"a\\b" ? (@ == "''; DROP TABLE x; --")'::text::jsonpath))"#;
        assert_eq!(sql, expected);
        assert!(text("on:2024-05").contains("2024-05-01T00:00:00.000000000Z"), "{}", text("on:2024-05"));
        assert!(text("NOT new:true").contains("NOT "), "{}", text("NOT new:true"));
        assert!(text("lang=nb,year=2020").contains("@ == 2020 || @ == \"2020\""), "{}", text("lang=nb,year=2020"));
    }
}
