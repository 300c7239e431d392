//! [`FieldCounts`]: the values of a typed field over many documents, with the number of documents of each.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use serde_json::{Value as Json, json};
use tantivy::DateTime;
use tantivy::columnar::Column;
use tantivy::fastfield::FastFieldReaders;

use crate::fields::FieldValue;
use crate::schema::TypedField;
use crate::{Address, Error, FieldKind, Filter, Result, Searcher, dates};

/// Values of a field with the number of documents of each. A document with several values counts for each of them once.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldCounts {
    /// name of the field
    pub field: String,
    /// values and numbers of documents: number descending, then value ascending
    pub values: Vec<ValueCount>,
    /// number of documents without a value
    pub missing: u64,
}

/// A value of a field with its number of documents.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueCount {
    /// a text, number or boolean; a date is a text of RFC 3339
    pub value: Json,
    /// number of documents
    pub count: u64,
}

impl Searcher {
    /// Counts the values of a typed field over all documents that pass `filter`.
    ///
    /// # Errors
    /// A field that is not typed, an invalid filter, a damaged index.
    pub fn count_all(&self, field: &str, filter: Option<&Filter>) -> Result<FieldCounts> {
        match filter {
            None => self.count(field, self.addresses()),
            Some(filter) => {
                let passing = self.passing(filter)?;
                let heads = self.heads()?;
                let is_document = |row: &(u32, u32)| heads.is_none_or(|heads| heads[row.0 as usize].contains(row.1));
                let documents = passing.addresses().filter(is_document);
                self.count(field, documents.map(|(segment, doc)| Address::new(segment, doc)))
            }
        }
    }

    /// Counts the values of a typed field over these documents, each once.
    ///
    /// # Errors
    /// A field that is not typed, an address of another snapshot, a damaged index.
    pub fn count_of(&self, field: &str, documents: &[Address]) -> Result<FieldCounts> {
        // passages of one document may be among them, as in a hybrid search
        let mut heads = documents.iter().map(|address| self.head(*address)).collect::<Result<Vec<_>>>()?;
        heads.sort_unstable();
        heads.dedup();
        self.count(field, heads.into_iter())
    }

    fn count(&self, name: &str, documents: impl Iterator<Item = Address>) -> Result<FieldCounts> {
        let field = self.fields().typed.iter().find(|field| field.spec.name == name).ok_or_else(|| {
            let known: Vec<String> = self.fields().typed.iter().map(|field| field.spec.to_string()).collect();
            let hint = match &known[..] {
                [] => "the index has no typed fields".to_owned(),
                known => format!("the fields are {}", known.join(", ")),
            };
            Error::invalid(format!("unknown field {name:?}"), hint)
        })?;
        let mut by_segment: Vec<Vec<u32>> = vec![Vec::new(); self.tantivy().segment_readers().len()];
        for address in documents {
            let docs = by_segment.get_mut(address.segment() as usize);
            let docs =
                docs.ok_or_else(|| Error::invalid("the address of a document is of another snapshot", "search again"))?;
            docs.push(address.doc());
        }
        self.run(|| {
            let mut counts = Counts::default();
            for (reader, docs) in self.tantivy().segment_readers().iter().zip(&by_segment) {
                counts.add(field, reader.fast_fields(), docs)?;
            }
            Ok(counts.finish(name))
        })
    }
}

/// Counts so far. A value is identified by bits that are equal where it is, and no others are.
#[derive(Default)]
struct Counts {
    values: HashMap<Key, (FieldValue, u64)>,
    missing: u64,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Text(String),
    Bits(u64),
}

impl Counts {
    /// Adds the values of documents of a segment.
    fn add(&mut self, field: &TypedField, columns: &FastFieldReaders, docs: &[u32]) -> Result<()> {
        let name = &field.column;
        match field.spec.kind {
            FieldKind::Keyword => self.add_keywords(name, columns, docs)?,
            FieldKind::Int => {
                self.add_column(columns.column_opt::<i64>(name)?, docs, |value| (value as u64, FieldValue::Int(value)));
            }
            FieldKind::Float => {
                let value = |value: f64| (value.to_bits(), FieldValue::Float(value));
                self.add_column(columns.column_opt::<f64>(name)?, docs, value);
            }
            FieldKind::Bool => {
                self.add_column(columns.column_opt::<bool>(name)?, docs, |value| {
                    (value.into(), FieldValue::Bool(value))
                });
            }
            FieldKind::Date => {
                let value = |value: DateTime| (value.into_timestamp_nanos() as u64, FieldValue::Date(value));
                self.add_column(columns.column_opt::<DateTime>(name)?, docs, value);
            }
        }
        Ok(())
    }

    fn add_keywords(&mut self, name: &str, columns: &FastFieldReaders, docs: &[u32]) -> Result<()> {
        let Some(column) = columns.str(name)? else {
            self.missing += docs.len() as u64;
            return Ok(());
        };
        // the texts of a segment are numbered
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for doc in docs {
            let mut ords: Vec<u64> = column.term_ords(*doc).collect();
            ords.sort_unstable();
            ords.dedup();
            self.missing += u64::from(ords.is_empty());
            ords.into_iter().for_each(|ord| *counts.entry(ord).or_default() += 1);
        }
        for (ord, count) in counts {
            let mut text = String::new();
            column.ord_to_str(ord, &mut text).map_err(tantivy::TantivyError::from)?;
            let value = FieldValue::Keyword(text.clone());
            self.values.entry(Key::Text(text)).or_insert((value, 0)).1 += count;
        }
        Ok(())
    }

    fn add_column<T: PartialOrd + Copy + std::fmt::Debug + Send + Sync + 'static>(
        &mut self,
        column: Option<Column<T>>,
        docs: &[u32],
        value: impl Fn(T) -> (u64, FieldValue),
    ) {
        let Some(column) = column else {
            self.missing += docs.len() as u64;
            return;
        };
        for doc in docs {
            let mut values: Vec<(u64, FieldValue)> = column.values_for_doc(*doc).map(&value).collect();
            values.sort_by_key(|(bits, _)| *bits);
            values.dedup_by_key(|(bits, _)| *bits);
            self.missing += u64::from(values.is_empty());
            for (bits, value) in values {
                self.values.entry(Key::Bits(bits)).or_insert((value, 0)).1 += 1;
            }
        }
    }

    fn finish(self, field: &str) -> FieldCounts {
        let mut values: Vec<(FieldValue, u64)> = self.values.into_values().collect();
        values.sort_by(|a, b| Reverse(a.1).cmp(&Reverse(b.1)).then_with(|| a.0.order(&b.0)));
        let values = values.into_iter().map(|(value, count)| ValueCount { value: to_json(value), count });
        FieldCounts { field: field.to_owned(), values: values.collect(), missing: self.missing }
    }
}

fn to_json(value: FieldValue) -> Json {
    match value {
        FieldValue::Keyword(text) => json!(text),
        FieldValue::Int(value) => json!(value),
        FieldValue::Float(value) => json!(value),
        FieldValue::Bool(value) => json!(value),
        FieldValue::Date(date) => json!(dates::to_text(date)),
    }
}
