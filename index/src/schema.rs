//! Which tantivy fields hold what, and why.

use serde_json::{Map, Value as Json};
use tantivy::schema::{
    Field, IndexRecordOption, JsonObjectOptions, OwnedValue, STORED, STRING, Schema, TextFieldIndexing, TextOptions,
    Value,
};
use tantivy::tokenizer::RAW_TOKENIZER_NAME;
use tantivy::{TantivyDocument, Term};

use crate::StoredDocument;
use crate::analyzer::{AnalyzerVersion, Language, analyzer_name};
use crate::plugin;
use splade_core::SparseVector;

/// Longer texts of the other fields are kept but cannot be filtered by: as one term each they would only swell the
/// dictionary.
pub(crate) const LONGEST_FILTER_TEXT: usize = 256;

/// The fields of every index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// the external id as one term, for deletes and look-ups; the plugin keeps it for results
    pub(crate) id: Field,
    /// stored only; searched through `body`
    title: Field,
    /// stored only; searched through `body`
    text: Field,
    /// title and text, for BM25 and phrases: one field, so that they are weighted as one text
    pub(crate) body: Field,
    /// the other fields as JSON text, so that they come back exactly as they were given
    other: Field,
    /// the other fields again, for filters
    pub(crate) filter: Field,
    /// the sparse vector, handed to the plugin
    pub(crate) vector: Field,
}

impl Fields {
    /// The fields and their schema; the same for every index of a language and an analyzer.
    pub(crate) fn build(language: Language, analyzer: AnalyzerVersion) -> (Self, Schema) {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(&analyzer_name(language, analyzer))
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let raw = TextFieldIndexing::default()
            .set_tokenizer(RAW_TOKENIZER_NAME)
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::Basic);
        let fields = Self {
            id: schema.add_text_field("id", STRING),
            title: schema.add_text_field("title", STORED),
            text: schema.add_text_field("text", STORED),
            body: schema.add_text_field("body", TextOptions::default().set_indexing_options(indexing)),
            other: schema.add_text_field("other", STORED),
            filter: schema.add_json_field("filter", JsonObjectOptions::default().set_indexing_options(raw)),
            vector: schema.add_custom_field("vector", "splade-impacts", Json::Null),
        };
        (fields, schema.build())
    }

    /// The term that finds a document by its id.
    pub(crate) fn id_term(&self, id: &str) -> Term {
        Term::from_field_text(self.id, id)
    }

    /// A document as tantivy takes it.
    pub(crate) fn to_tantivy(self, document: &StoredDocument, vector: &SparseVector) -> TantivyDocument {
        let mut row = TantivyDocument::new();
        row.add_text(self.id, &document.id);
        if let Some(title) = &document.title {
            row.add_text(self.title, title);
            row.add_text(self.body, title);
        }
        row.add_text(self.text, &document.text);
        row.add_text(self.body, &document.text);
        if !document.other.is_empty() {
            row.add_text(self.other, Json::Object(document.other.clone()).to_string());
            row.add_object(self.filter, filterable(&document.other));
        }
        row.add_custom(self.vector, &plugin::encode(vector.dims(), vector.weights()));
        row
    }

    /// What a document was added with; its id comes from our file.
    pub(crate) fn read_stored(&self, id: String, row: &TantivyDocument) -> Result<StoredDocument, String> {
        let text = |field| row.get_first(field).and_then(|value| value.as_str().map(String::from));
        let other = match text(self.other) {
            Some(json) => {
                serde_json::from_str(&json).map_err(|error| format!("document {id}: other fields: {error}"))?
            }
            None => Map::new(),
        };
        Ok(StoredDocument { title: text(self.title), text: text(self.text).unwrap_or_default(), other, id })
    }
}

fn filterable(map: &Map<String, Json>) -> std::collections::BTreeMap<String, OwnedValue> {
    map.iter().filter_map(|(key, value)| Some((key.clone(), filter_value(value)?))).collect()
}

/// A JSON value as a filter sees it. tantivy's own conversion would read texts as dates.
fn filter_value(value: &Json) -> Option<OwnedValue> {
    match value {
        Json::Null => None,
        Json::Bool(value) => Some(OwnedValue::Bool(*value)),
        Json::Number(number) => number
            .as_i64()
            .map(OwnedValue::I64)
            .or_else(|| number.as_u64().map(OwnedValue::U64))
            .or_else(|| number.as_f64().map(OwnedValue::F64)),
        Json::String(text) => (text.len() <= LONGEST_FILTER_TEXT).then(|| OwnedValue::Str(text.clone())),
        Json::Array(values) => Some(OwnedValue::Array(values.iter().filter_map(filter_value).collect())),
        Json::Object(map) => Some(OwnedValue::Object(filterable(map).into_iter().collect())),
    }
}
