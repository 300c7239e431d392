//! [`Fields`]: the tantivy fields of an index.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, Field, IndexRecordOption, JsonObjectOptions, NumericOptions, OwnedValue,
    STORED, STRING, Schema, SchemaBuilder, TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::RAW_TOKENIZER_NAME;
use tantivy::{TantivyDocument, Term};

use crate::analyzer::analyzer_name;
use crate::fields::FieldValue;
use crate::passages::PassageFields;
use crate::plugin;
use crate::{FieldKind, FieldSpec, IndexSettings, Result, StoredDocument};
use splade_core::SparseVector;
use splade_core::dense::DenseVector;

/// Largest length in bytes of a text that a filter can match. Longer texts are stored only: as terms they would enlarge the
/// dictionary.
pub(crate) const LONGEST_FILTER_TEXT: usize = 256;

/// The fields of an index.
#[derive(Debug, Clone)]
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
    /// the declared and the inferred fields, in their order
    pub(crate) typed: Arc<[TypedField]>,
    /// the dense vector, which its plugin reads; none in an index without dense vectors
    pub(crate) dense: Option<Field>,
    /// the columns of passages, in an index with passages
    pub(crate) passages: Option<PassageFields>,
}

/// A typed field.
#[derive(Debug, Clone)]
pub(crate) struct TypedField {
    pub(crate) spec: FieldSpec,
    pub(crate) field: Field,
    /// tantivy's name of the field. It is not that of the specification, which may hold any character.
    pub(crate) column: String,
}

impl TypedField {
    fn add(spec: &FieldSpec, position: usize, schema: &mut SchemaBuilder) -> Self {
        let column = format!("field{position}");
        let field = match spec.kind {
            FieldKind::Keyword => {
                let raw = TextOptions::default().set_indexing_options(raw_indexing());
                schema.add_text_field(&column, raw.set_fast(RAW_TOKENIZER_NAME))
            }
            FieldKind::Int => schema.add_i64_field(&column, FAST),
            FieldKind::Float => schema.add_f64_field(&column, FAST),
            // tantivy has no ranges of booleans, so that their two values are terms
            FieldKind::Bool => schema.add_bool_field(&column, NumericOptions::default().set_fast().set_indexed()),
            FieldKind::Date => {
                let options = DateOptions::default().set_fast().set_precision(DateTimePrecision::Nanoseconds);
                schema.add_date_field(&column, options)
            }
        };
        Self { spec: spec.clone(), field, column }
    }

    /// True if the values are terms too, so that one value is found without reading the column.
    pub(crate) fn is_indexed(&self) -> bool {
        matches!(self.spec.kind, FieldKind::Keyword | FieldKind::Bool)
    }

    fn add_value(&self, row: &mut TantivyDocument, value: FieldValue) {
        match value {
            FieldValue::Keyword(text) => row.add_text(self.field, text),
            FieldValue::Int(value) => row.add_i64(self.field, value),
            FieldValue::Float(value) => row.add_f64(self.field, value),
            FieldValue::Date(value) => row.add_date(self.field, value),
            FieldValue::Bool(value) => row.add_bool(self.field, value),
        }
    }
}

fn raw_indexing() -> TextFieldIndexing {
    TextFieldIndexing::default()
        .set_tokenizer(RAW_TOKENIZER_NAME)
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic)
}

impl Fields {
    /// The fields and their schema. They depend on the language, the analyzer, the typed fields and the presence of dense vectors only.
    pub(crate) fn build(settings: &IndexSettings) -> (Self, Schema) {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(&analyzer_name(settings.language, settings.analyzer))
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let mut fields = Self {
            id: schema.add_text_field("id", STRING),
            title: schema.add_text_field("title", STORED),
            text: schema.add_text_field("text", STORED),
            body: schema.add_text_field("body", TextOptions::default().set_indexing_options(indexing)),
            other: schema.add_text_field("other", STORED),
            filter: schema.add_json_field("filter", JsonObjectOptions::default().set_indexing_options(raw_indexing())),
            vector: schema.add_custom_field("vector", "splade-impacts", Json::Null),
            typed: Arc::new([]),
            dense: None,
            passages: None,
        };
        // after the others, whose numbers an index without typed fields has too
        let specs = settings.fields.iter().enumerate();
        fields.typed = specs.map(|(position, spec)| TypedField::add(spec, position, &mut schema)).collect();
        let add_dense = |_| schema.add_custom_field("dense", "splade-dense", Json::Null);
        fields.dense = settings.dense.as_ref().map(add_dense);
        fields.passages = settings.passages.map(|_| PassageFields::add(&mut schema));
        (fields, schema.build())
    }

    /// The term of a document's id.
    pub(crate) fn id_term(&self, id: &str) -> Term {
        Term::from_field_text(self.id, id)
    }

    /// Makes tantivy's document of a document and its vectors. Returns it with the number of values of inferred fields that are
    /// left out because they are of another type.
    ///
    /// # Errors
    /// A value of a declared field that is of another type.
    pub(crate) fn to_tantivy(
        &self,
        document: &StoredDocument,
        vector: &SparseVector,
        dense: Option<&DenseVector>,
    ) -> Result<(TantivyDocument, u64)> {
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
        if let (Some(field), Some(dense)) = (self.dense, dense) {
            row.add_custom(field, &dense.to_bytes());
        }
        let mut left_out = 0;
        for field in self.typed.iter() {
            match field.spec.values(&document.other) {
                Ok(values) => values.into_iter().for_each(|value| field.add_value(&mut row, value)),
                Err(_) if field.spec.inferred => left_out += 1,
                Err(value) => return Err(field.spec.refuse(&document.id, &value)),
            }
        }
        Ok((row, left_out))
    }

    /// Makes tantivy's document of a further passage: the id and the vector, which the plugin reads.
    pub(crate) fn passage_row(&self, id: &str, vector: &SparseVector) -> TantivyDocument {
        let mut row = TantivyDocument::new();
        row.add_text(self.id, id);
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
