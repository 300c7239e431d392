//! Counts of the values of fields, as JSON and as text.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};
use splade_files::Query;
use splade_index::{Address, FieldCounts, Filter, SearchOptions, Searcher};

use super::{Answer, Answerer};
use crate::cli::Mode;
use crate::console::Table;

/// Largest number of values of a field in JSON, and in a table.
const MOST_VALUES: [usize; 2] = [100, 10];

/// Counts the values of `fields` over all documents that pass `filter`.
pub(crate) fn count_all(searcher: &Searcher, fields: &[String], filter: Option<&Filter>) -> Result<Vec<FieldCounts>> {
    fields.iter().map(|field| Ok(searcher.count_all(field, filter)?)).collect()
}

impl Answerer {
    /// Counts the values of `fields` over all documents that match a query and pass the filter, not only over its hits.
    ///
    /// In the sparse mode a document matches if its score is above zero, in BM25 if it has a word of the query, in the hybrid mode
    /// if it matches in either. In the dense mode every document matches, or those of the run.
    pub(crate) fn count(&self, query: &Query, answer: &Answer, fields: &[String]) -> Result<Vec<FieldCounts>> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.searcher.len();
        let options: &SearchOptions = &self.settings.options;
        let mut found = Vec::new();
        let mode = self.settings.mode;
        if matches!(mode, Mode::Sparse | Mode::Hybrid) {
            found.extend(self.searcher.search(&answer.encoded.vector, all, options)?);
        }
        if let Some(part) = self.dense_part(query, answer.encoded.dense.as_ref()).filter(|_| mode == Mode::Dense) {
            found.extend(self.searcher.search_dense_part(part, all, options)?);
        }
        if matches!(mode, Mode::Bm25 | Mode::Hybrid) {
            found.extend(self.searcher.search_bm25(&query.text, all, options.filter.as_ref())?);
        }
        let mut addresses: Vec<Address> = found.into_iter().map(|found| found.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        fields.iter().map(|field| Ok(self.searcher.count_of(field, &addresses)?)).collect()
    }
}

/// Counts of the values of a field.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Counts))]
pub(crate) struct CountsJson<'a> {
    /// values, the most frequent first, at most 100
    values: Vec<ValueJson<'a>>,
    /// number of different values
    distinct: usize,
    /// number of documents without a value
    missing: u64,
}

/// Value of a field and the number of its documents.
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = ValueCount))]
pub(crate) struct ValueJson<'a> {
    /// text, number or boolean
    value: &'a Value,
    count: u64,
}

/// Returns an object with the counts of each field.
pub(crate) fn to_json(counts: &[FieldCounts]) -> Value {
    let field = |counts: &FieldCounts| {
        let values = counts.values.iter().take(MOST_VALUES[0]);
        let values = values.map(|value| ValueJson { value: &value.value, count: value.count }).collect();
        let counted = CountsJson { values, distinct: counts.values.len(), missing: counts.missing };
        (counts.field.clone(), json!(counted))
    };
    Value::Object(counts.iter().map(field).collect::<Map<_, _>>())
}

/// Returns a table of the counts of each field.
pub(crate) fn to_text(counts: &[FieldCounts]) -> String {
    let mut text = String::new();
    for FieldCounts { field, values, missing } in counts {
        let mut table = Table::new([field.as_str(), "documents"]);
        for value in values.iter().take(MOST_VALUES[1]) {
            let shown = value.value.as_str().map_or_else(|| value.value.to_string(), str::to_owned);
            table.row([shown, value.count.to_string()]);
        }
        let _ = write!(text, "{table}");
        if values.len() > MOST_VALUES[1] {
            let _ = writeln!(text, "{} values more", values.len() - MOST_VALUES[1]);
        }
        if *missing > 0 {
            let _ = writeln!(text, "{missing} without {field}");
        }
    }
    text
}
