//! [`FieldSpec`]: typed fields of an index, declared or inferred from documents, and their values.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tantivy::DateTime;

use crate::dates::{self, DateSpan};
use crate::schema::LONGEST_FILTER_TEXT;
use crate::{Error, Result};

/// Type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FieldKind {
    /// Text that is compared as a whole, of up to 256 bytes. Numbers and booleans of documents are taken as their text.
    Keyword,
    /// Integer of 64 bits. Texts that are integers, as all values of `.tsv` files, are taken too.
    Int,
    /// Floating-point number of 64 bits. Texts that are numbers are taken too.
    Float,
    /// Date or time in UTC: `2020`, `2020-02`, `2020-02-29`, or RFC 3339 such as `2020-02-29T12:30:00Z`. In a document it is the
    /// first instant of that year, month or day.
    Date,
    /// `true` or `false`, as a boolean or a text.
    Bool,
}

impl FieldKind {
    /// All kinds, with their names.
    pub const NAMES: [(Self, &'static str); 5] = [
        (Self::Keyword, "keyword"),
        (Self::Int, "int"),
        (Self::Float, "float"),
        (Self::Date, "date"),
        (Self::Bool, "bool"),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A field of the documents with the type of its values. Filters and counts by value use it.
///
/// A document may lack the field, have null, one value, or a list of values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldSpec {
    /// key in the document; a dot is part of the key, or stands before a key of an inner object
    pub name: String,
    /// type of the values
    pub kind: FieldKind,
    /// true if the type was read from documents. A value of another type is then left out and counted; of a declared field it is
    /// an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inferred: bool,
}

impl fmt::Display for FieldSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.kind)
    }
}

/// Names that documents have for other purposes.
const RESERVED: [&str; 4] = ["id", "_id", "title", "text"];
/// Largest number of fields of an index.
const MOST_FIELDS: usize = 256;
/// Largest number of fields that are inferred.
const MOST_INFERRED: usize = 64;

impl FieldSpec {
    /// A declared field.
    ///
    /// # Errors
    /// A name that is empty or reserved (`id`, `_id`, `title`, `text`).
    pub fn new(name: &str, kind: FieldKind) -> Result<Self> {
        if name.is_empty() {
            return Err(Error::invalid("a field without a name", EXAMPLE));
        }
        if RESERVED.contains(&name) {
            let hint = "id and text can be filtered by without a declaration; rename the field of the documents";
            return Err(Error::invalid(format!("the field name {name:?} is reserved"), hint));
        }
        Ok(Self { name: name.to_owned(), kind, inferred: false })
    }

    /// Parses declarations such as `lang:keyword,year:int`.
    ///
    /// ```
    /// use splade_index::{FieldKind, FieldSpec};
    ///
    /// let fields = FieldSpec::parse_list("lang:keyword, year:int")?;
    /// assert_eq!(fields, [FieldSpec::new("lang", FieldKind::Keyword)?, FieldSpec::new("year", FieldKind::Int)?]);
    /// # Ok::<(), splade_index::Error>(())
    /// ```
    ///
    /// # Errors
    /// A declaration that is not of this form, an unknown type, a name that is reserved or occurs twice.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        let fields = text.split(',').map(Self::parse).collect::<Result<Vec<_>>>()?;
        if fields.len() > MOST_FIELDS {
            return Err(Error::invalid(format!("{} fields are declared", fields.len()), "at most 256 are possible"));
        }
        for (at, field) in fields.iter().enumerate() {
            if fields[..at].iter().any(|other| other.name == field.name) {
                return Err(Error::invalid(format!("the field {:?} is declared twice", field.name), EXAMPLE));
            }
        }
        Ok(fields)
    }

    fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let Some((name, kind)) = text.rsplit_once(':') else {
            return Err(Error::invalid(format!("the field {text:?} has no type"), EXAMPLE));
        };
        let (name, kind) = (name.trim(), kind.trim());
        match FieldKind::NAMES.iter().find(|(_, known)| *known == kind) {
            Some((kind, _)) => Self::new(name, *kind),
            None => {
                let known: Vec<&str> = FieldKind::NAMES.iter().map(|(_, name)| *name).collect();
                let message = format!("the field {name:?} has the unknown type {kind:?}");
                Err(Error::invalid(message, format!("the types are {}", known.join(", "))))
            }
        }
    }

    /// Types of the fields of `documents`, by name. A field is left out if its values have no common type, or if they are texts of
    /// more than 256 bytes.
    ///
    /// Texts are dates if all are of the form `2020-02-29` or RFC 3339, else keywords.
    pub fn infer<'a>(documents: impl IntoIterator<Item = &'a Map<String, Json>>) -> Vec<Self> {
        let mut found = BTreeMap::new();
        for document in documents {
            collect_kinds("", document, &mut found);
        }
        let kinds = found.into_iter().filter_map(|(name, kind)| Some((name, kind?)));
        let usable = kinds.filter(|(name, _)| !name.is_empty() && !RESERVED.contains(&name.as_str()));
        usable.take(MOST_INFERRED).map(|(name, kind)| Self { name, kind, inferred: true }).collect()
    }

    /// The value of this field in a document: that of the key with its name, or of an object before a dot of the name.
    ///
    /// ```
    /// use serde_json::json;
    /// use splade_index::{FieldKind, FieldSpec};
    ///
    /// let document = json!({"meta": {"pages": 7}});
    /// let pages = FieldSpec::new("meta.pages", FieldKind::Int)?;
    /// assert_eq!(pages.find(document.as_object().unwrap()), Some(&json!(7)));
    /// # Ok::<(), splade_index::Error>(())
    /// ```
    #[must_use]
    pub fn find<'a>(&self, document: &'a Map<String, Json>) -> Option<&'a Json> {
        look_up(document, &self.name)
    }

    /// Values of this field in a document.
    ///
    /// # Errors
    /// The first value of another type.
    pub(crate) fn values(&self, document: &Map<String, Json>) -> Result<Vec<FieldValue>, Json> {
        let read = |value: &Json| FieldValue::of_json(self.kind, value).ok_or_else(|| value.clone());
        match look_up(document, &self.name) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(values)) => values.iter().filter(|value| !value.is_null()).map(read).collect(),
            Some(value) => Ok(vec![read(value)?]),
        }
    }

    /// The error of a value of another type in the document `id`.
    pub(crate) fn refuse(&self, id: &str, value: &Json) -> Error {
        let shown = shortened(&value.to_string());
        let message = format!("document {id}: the field {:?} is {shown}, not of type {}", self.name, self.kind);
        let hint = match self.kind {
            FieldKind::Keyword => {
                format!("a keyword is a text of up to {LONGEST_FILTER_TEXT} bytes, or a list of them")
            }
            FieldKind::Date => "a date is written 2020, 2020-02, 2020-02-29 or 2020-02-29T12:30:00Z".to_owned(),
            _ => "correct the value, or declare the field with another type".to_owned(),
        };
        Error::invalid(message, hint)
    }
}

const EXAMPLE: &str = "fields are declared as name:type, for instance lang:keyword,year:int";

/// Start of a text, for messages.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The value of a field: of the key `name`, else of keys of inner objects separated by dots.
pub(crate) fn look_up<'a>(document: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    if let Some(value) = document.get(name) {
        return Some(value);
    }
    let dots = name.match_indices('.').map(|(at, _)| at);
    dots.filter_map(|at| look_up(document.get(&name[..at])?.as_object()?, &name[at + 1..])).next()
}

/// Adds the kinds of a document's fields to `found`; `None` marks a field without a common type.
fn collect_kinds(prefix: &str, document: &Map<String, Json>, found: &mut BTreeMap<String, Option<FieldKind>>) {
    for (key, value) in document {
        let name = format!("{prefix}{key}");
        let values = match value {
            // a chain of objects is as deep as the JSON parser allows
            Json::Object(inner) => {
                collect_kinds(&format!("{name}."), inner, found);
                continue;
            }
            Json::Array(values) => &values[..],
            value => std::slice::from_ref(value),
        };
        for value in values.iter().filter(|value| !value.is_null()) {
            let kind = kind_of(value);
            let known = found.entry(name.clone()).or_insert(kind);
            *known = known.zip(kind).and_then(|(known, kind)| common_kind(known, kind));
        }
    }
}

/// The type of a value of a document; none for objects, lists and long texts.
fn kind_of(value: &Json) -> Option<FieldKind> {
    match value {
        Json::Bool(_) => Some(FieldKind::Bool),
        Json::Number(number) if number.is_i64() => Some(FieldKind::Int),
        Json::Number(_) => Some(FieldKind::Float),
        // a year alone is more often a code or a number than a date
        Json::String(text) if text.len() >= "2020-02-29".len() && DateSpan::parse(text).is_some() => {
            Some(FieldKind::Date)
        }
        Json::String(text) if text.len() <= LONGEST_FILTER_TEXT => Some(FieldKind::Keyword),
        _ => None,
    }
}

fn common_kind(a: FieldKind, b: FieldKind) -> Option<FieldKind> {
    use FieldKind::{Date, Float, Int, Keyword};
    match (a, b) {
        _ if a == b => Some(a),
        (Int, Float) | (Float, Int) => Some(Float),
        (Date, Keyword) | (Keyword, Date) => Some(Keyword),
        _ => None,
    }
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FieldValue {
    Keyword(String),
    Int(i64),
    Float(f64),
    Date(DateTime),
    Bool(bool),
}

impl FieldValue {
    /// The value of this type; `None` if the JSON value is of another.
    fn of_json(kind: FieldKind, value: &Json) -> Option<Self> {
        match (kind, value) {
            (FieldKind::Keyword, Json::Bool(_) | Json::Number(_)) => Some(Self::Keyword(value.to_string())),
            (FieldKind::Int, Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Some(Self::Int(int)),
                (None, Some(float)) => whole(float).map(Self::Int),
                (None, None) => None,
            },
            (FieldKind::Float, Json::Number(number)) => number.as_f64().map(Self::float),
            (FieldKind::Bool, Json::Bool(value)) => Some(Self::Bool(*value)),
            (FieldKind::Date, Json::String(text)) => Some(Self::Date(dates::of_nanos(DateSpan::parse(text)?.first)?)),
            (_, Json::String(text)) => Self::of_text(kind, text),
            _ => None,
        }
    }

    /// The value that a text stands for, other than dates.
    pub(crate) fn of_text(kind: FieldKind, text: &str) -> Option<Self> {
        match kind {
            FieldKind::Keyword => (text.len() <= LONGEST_FILTER_TEXT).then(|| Self::Keyword(text.to_owned())),
            FieldKind::Int => text.trim().parse().ok().map(Self::Int),
            FieldKind::Float => text.trim().parse().ok().filter(|value: &f64| value.is_finite()).map(Self::float),
            FieldKind::Bool => text.trim().parse().ok().map(Self::Bool),
            FieldKind::Date => None,
        }
    }

    /// The order of two values of one type.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Keyword(a), Self::Keyword(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            // of one field all values are of one type
            _ => Ordering::Equal,
        }
    }

    /// A number; 0 and -0 are the same number, but not for tantivy.
    fn float(value: f64) -> Self {
        Self::Float(value + 0.0)
    }
}

/// The integer that a float is, if it is one.
fn whole(value: f64) -> Option<i64> {
    // 2^63 as a float is beyond the largest i64
    const END: f64 = 9_223_372_036_854_775_808.0;
    (value.fract() == 0.0 && (-END..END).contains(&value)).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Json) -> Map<String, Json> {
        value.as_object().unwrap().clone()
    }

    fn spec(name: &str, kind: FieldKind) -> FieldSpec {
        FieldSpec::new(name, kind).unwrap()
    }

    #[test]
    fn values_have_the_declared_type() {
        use FieldKind::{Bool, Date, Float, Int, Keyword};
        let date = |text| FieldValue::Date(dates::of_nanos(DateSpan::parse(text).unwrap().first).unwrap());
        let cases = [
            (Keyword, json!("nb"), Some(vec![FieldValue::Keyword("nb".into())])),
            (
                Keyword,
                json!(["a", null, "b"]),
                Some(vec![FieldValue::Keyword("a".into()), FieldValue::Keyword("b".into())]),
            ),
            (Keyword, json!(7), Some(vec![FieldValue::Keyword("7".into())])),
            (Keyword, json!("x".repeat(257)), None),
            (Keyword, json!({"a": 1}), None),
            (Int, json!("2020"), Some(vec![FieldValue::Int(2020)])),
            (Int, json!(2020.0), Some(vec![FieldValue::Int(2020)])),
            (Int, json!(2020.5), None),
            (Int, json!(u64::MAX), None),
            (Int, json!([1, "x"]), None),
            (Float, json!(-0.0), Some(vec![FieldValue::Float(0.0)])),
            (Float, json!("1e400"), None),
            (Float, json!("1.5"), Some(vec![FieldValue::Float(1.5)])),
            (Bool, json!("true"), Some(vec![FieldValue::Bool(true)])),
            (Bool, json!(1), None),
            (Date, json!("2020-02"), Some(vec![date("2020-02-01T00:00:00Z")])),
            (Date, json!("2020-02-30"), None),
            (Date, json!(2020), None),
            (Int, json!(null), Some(vec![])),
            (Int, json!([]), Some(vec![])),
            (Int, json!([[1]]), None),
        ];
        for (kind, value, expected) in cases {
            let values = spec("f", kind).values(&map(json!({"f": value})));
            assert_eq!(values.ok(), expected, "{kind} {value}");
        }
        assert_eq!(spec("f", Int).values(&map(json!({"g": 1}))), Ok(vec![]));
    }

    #[test]
    fn a_dot_is_part_of_a_key_or_leads_into_an_object() {
        let document = map(json!({"a.b": 1, "a": {"b": 2, "c.d": {"e": 3}}}));
        for (name, expected) in [("a.b", Some(1)), ("a.c.d.e", Some(3)), ("a.c", None), ("a.b.c", None)] {
            let values = spec(name, FieldKind::Int).values(&document).unwrap();
            assert_eq!(values, expected.map(FieldValue::Int).into_iter().collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn types_are_inferred_from_all_values() {
        let documents = [
            json!({"lang": "nb", "year": 2020, "price": 1, "day": "2020-02-29", "tags": ["a"], "ok": true, "mixed": 1}),
            json!({"lang": null, "price": 0.5, "day": "2021-01-01T00:00:00Z", "tags": [], "mixed": "x", "meta": {"n": 1}}),
            json!({"title": "x", "long": "x".repeat(300), "late": "2020-01-01", "code": "2020"}),
            json!({"late": "soon"}),
        ]
        .map(map);
        let found: Vec<String> = FieldSpec::infer(&documents).iter().map(FieldSpec::to_string).collect();
        let expected = [
            "code:keyword",
            "day:date",
            "lang:keyword",
            "late:keyword",
            "meta.n:int",
            "ok:bool",
            "price:float",
            "tags:keyword",
            "year:int",
        ];
        assert_eq!(found, expected);
        assert!(FieldSpec::infer(&documents).iter().all(|field| field.inferred));
    }

    #[test]
    fn declarations_that_cannot_be_read_are_named() {
        for (text, part) in [
            ("", "\"\" has no type"),
            ("lang", "\"lang\" has no type"),
            ("lang:text", "unknown type \"text\""),
            (":int", "without a name"),
            ("a:int,a:float", "\"a\" is declared twice"),
            ("title:keyword", "\"title\" is reserved"),
            ("a:int,", "\"\" has no type"),
        ] {
            let error = FieldSpec::parse_list(text).unwrap_err();
            assert!(error.to_string().contains(part) && error.hint().is_some(), "{text}: {error}");
        }
        assert_eq!(FieldSpec::parse_list("dc:date:date").unwrap()[0], spec("dc:date", FieldKind::Date));
    }
}
