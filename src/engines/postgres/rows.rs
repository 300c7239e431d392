//! Documents as rows of a table, and rows as hits.

use std::fmt::Write as _;

use postgres::Error;
use serde_json::Value as Json;
use splade_core::SparseVector;
use splade_index::{FieldSpec, StoredDocument};

use crate::engines::{EngineHit, Record, typed};

/// Values of the columns of a document, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) digest: String,
    pub(super) title: Option<String>,
    pub(super) text: String,
    /// all other fields, as JSON
    pub(super) payload: String,
    /// values of typed fields by name, as JSON
    pub(super) typed: String,
    pub(super) splade: String,
}

impl Row {
    /// The row of a record, in a table of `dimensions`.
    pub(super) fn new(record: &Record, fields: &[FieldSpec], dimensions: u32) -> Self {
        Self {
            id: record.id.clone(),
            digest: record.digest.clone(),
            title: record.title.clone(),
            text: record.text.clone(),
            payload: Json::Object(record.fields.clone()).to_string(),
            typed: Json::Object(typed::values(&record.fields, fields)).to_string(),
            splade: vector_text(&record.vector, dimensions),
        }
    }

    /// Appends the row in the text format of COPY.
    pub(super) fn write(&self, out: &mut String) {
        let columns: [Option<&str>; 7] = [
            Some(&self.id),
            Some(&self.digest),
            self.title.as_deref(),
            Some(&self.text),
            Some(&self.payload),
            Some(&self.typed),
            Some(&self.splade),
        ];
        for (at, column) in columns.into_iter().enumerate() {
            if at > 0 {
                out.push('\t');
            }
            match column {
                None => out.push_str("\\N"),
                Some(text) => text.chars().for_each(|character| match character {
                    '\\' => out.push_str("\\\\"),
                    '\t' => out.push_str("\\t"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    other => out.push(other),
                }),
            }
        }
        out.push('\n');
    }
}

/// A `sparsevec`: `{18:0.8,403:1.25}/50000`. Its dimensions begin at 1.
pub(super) fn vector_text(vector: &SparseVector, dimensions: u32) -> String {
    let mut text = "{".to_owned();
    for (at, (dim, weight)) in vector.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // a write to a String cannot fail
        let _ = write!(text, "{comma}{}:{weight}", u64::from(dim) + 1);
    }
    let _ = write!(text, "}}/{dimensions}");
    text
}

/// The hit of a row of a search: id and score, and with documents title, text and payload.
pub(super) fn hit(row: &postgres::Row, with_documents: bool) -> Result<EngineHit, Error> {
    let score: f64 = row.try_get("score")?;
    let mut document = StoredDocument { id: row.try_get("id")?, ..StoredDocument::default() };
    if with_documents {
        document.title = row.try_get("title")?;
        document.text = row.try_get("text")?;
        let payload: String = row.try_get("payload")?;
        if let Ok(Json::Object(fields)) = serde_json::from_str(&payload) {
            document.other = fields;
        }
    }
    Ok(EngineHit { score: score as f32, document })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_copy_are_escaped() {
        let vector = SparseVector::from_pairs([(0, -0.5), (17, 1e-8)]).unwrap();
        let fields = FieldSpec::parse_list("a.b:int").unwrap();
        let other = serde_json::json!({"a": {"b": [1, 2]}}).as_object().unwrap().clone();
        let record = Record {
            id: "a\tb\\\n".into(),
            title: None,
            text: "c\r".into(),
            fields: other,
            vector,
            words: None,
            digest: "d".into(),
        };
        let row = Row::new(&record, &fields, 50);
        assert_eq!(row.splade, "{1:-0.5,18:0.00000001}/50");
        assert_eq!(row.typed, r#"{"a.b":[1,2]}"#);
        let mut line = String::new();
        row.write(&mut line);
        assert!(line.starts_with("a\\tb\\\\\\n\td\t\\N\tc\\r\t{\""), "{line}");
        assert_eq!((line.matches('\n').count(), line.matches('\t').count()), (1, 6));
    }
}
