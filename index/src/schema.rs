//! [`Fields`]: the tantivy fields of an index.

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

/// Largest length in bytes of a text that a filter can match. Longer texts are stored only: as terms they would enlarge the
/// dictionary.
pub(crate) const LONGEST_FILTER_TEXT: usize = 256;

/// The fields of every index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// the external id as one term, for deletes and look-ups; the plugin stores it for results
    pub(crate) id: Field,
    /// stored only; searched through `body`
    title: Field,
    /// stored only; searched through `body`
    text: Field,
    /// title and text, for BM25 and phrases; one field, so that both have the same weight
    pub(crate) body: Field,
    /// the other fields as JSON text, so that they are returned unchanged
    other: Field,
    /// the other fields, for filters
    pub(crate) filter: Field,
    /// the sparse vector, which the plugin reads
    pub(crate) vector: Field,
}

impl Fields {
    /// The fields and their schema. They depend on the language and the analyzer only.
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

    /// The term of a document's id.
    pub(crate) fn id_term(&self, id: &str) -> Term {
        Term::from_field_text(self.id, id)
    }

    /// Makes tantivy's document of a document and its vector.
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

    /// The stored fields of a document. Its id comes from the segment file.
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

/// Makes the value to index for filters. tantivy's conversion from JSON would read texts as dates.
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
