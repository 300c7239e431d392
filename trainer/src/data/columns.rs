//! Columns of a row: found by name or given, and the texts and numbers in their cells.

use std::path::Path;

use serde_json::Value;

use super::source::Row;
use crate::config::Columns;
use crate::{Error, Result};

/// Names of the anchor column, in this order.
pub const ANCHOR: &[&str] = &["anchor", "query", "question", "sentence1"];
/// Names of the positive column, in this order.
pub const POSITIVE: &[&str] = &["positive", "pos", "answer", "context", "document", "sentence2"];
/// Names of both columns in the sources of the built-in set `scandi_qa`: passages, not the short answers beside them.
pub(super) const SCANDI_QA_ANCHOR: &[&str] = &["anchor", "query", "question", "question_stem", "sentence1"];
pub(super) const SCANDI_QA_POSITIVE: &[&str] = &["positive", "pos", "context", "fact", "sentence2"];
/// Names of the column of negatives; a cell may hold one text or a list.
pub(super) const NEGATIVE: &[&str] = &["negative", "neg", "negatives"];
/// Names of the column of teacher scores.
pub(super) const LABEL: &[&str] = &["label", "labels", "score", "scores"];

/// Finds the column of a role: the one given, or the first known name that a file has.
pub(super) struct ColumnFinder {
    role: &'static str,
    given: Option<String>,
    candidates: &'static [&'static str],
    found: Option<String>,
}

impl ColumnFinder {
    pub(super) fn new(role: &'static str, given: Option<&str>, candidates: &'static [&'static str]) -> Self {
        Self { role, given: given.map(str::to_owned), candidates, found: None }
    }

    /// Prepares for another file, which may have other columns.
    pub(super) fn reset(&mut self) {
        self.found = None;
    }

    pub(super) fn find<'r>(&mut self, row: &'r Row) -> Option<&'r Value> {
        // lines of JSON need not all have the same keys
        if self.found.as_ref().is_none_or(|name| !row.contains_key(name)) {
            let is_there = |name: &&str| row.contains_key(*name);
            let name = match &self.given {
                Some(name) => Some(name.as_str()).filter(is_there),
                None => self.candidates.iter().copied().find(is_there),
            };
            self.found = Some(name?.to_owned());
        }
        row.get(self.found.as_deref()?)
    }

    pub(super) fn check_found(&self, path: &Path, row: &Row) -> Result<()> {
        if self.found.is_some() {
            return Ok(());
        }
        let looked_for = self.given.clone().unwrap_or_else(|| self.candidates.join(", "));
        let columns = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let message = format!(
            "no {role} column: looked for {looked_for}, found {columns} (name it under `columns: {{{role}: …}}`)",
            role = self.role
        );
        Err(Error::file(path, message))
    }
}

/// The text of a cell; nothing if it is null, empty or not a text.
pub(super) fn text_of(cell: &Value) -> Option<String> {
    let text = match cell {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.trim().is_empty()).then_some(text)
}

/// The text of a cell, or the first one of a list.
pub(super) fn first_text_of(cell: &Value) -> Option<String> {
    texts_of(cell).into_iter().next()
}

/// The texts of a cell that may hold a list.
fn texts_of(cell: &Value) -> Vec<String> {
    match cell {
        Value::Array(cells) => cells.iter().filter_map(text_of).collect(),
        other => text_of(other).into_iter().collect(),
    }
}

/// The negatives of a row: the columns given, or the known names, then `negative_1`, `negative_2`, ….
pub(super) fn negatives_of(row: &Row, columns: &Columns) -> Vec<String> {
    if !columns.negative.is_empty() {
        return columns.negative.iter().filter_map(|name| row.get(name)).flat_map(texts_of).collect();
    }
    let named = NEGATIVE.iter().filter_map(|name| row.get(*name)).take(1);
    let numbered = (1..).map_while(|number| row.get(&format!("negative_{number}")));
    named.chain(numbered).flat_map(texts_of).collect()
}

/// The labels of a row; none if they are missing.
pub(super) fn labels_of(row: &Row, columns: &Columns) -> std::result::Result<Vec<f32>, String> {
    let given = columns.label.as_deref();
    let Some((name, cell)) = given
        .or_else(|| LABEL.iter().copied().find(|name| row.contains_key(*name)))
        .and_then(|name| Some((name, row.get(name)?)))
    else {
        return Ok(Vec::new());
    };
    let cells = match cell {
        Value::Null => return Ok(Vec::new()),
        Value::Array(cells) => cells.as_slice(),
        other => std::slice::from_ref(other),
    };
    let number = |cell: &Value| match cell {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let labels: Option<Vec<f32>> = cells.iter().map(|cell| number(cell).map(|label| label as f32)).collect();
    labels
        .filter(|labels| labels.iter().all(|label| label.is_finite()))
        .ok_or_else(|| format!("column `{name}` holds no teacher scores: expected a number or a list of numbers"))
}
