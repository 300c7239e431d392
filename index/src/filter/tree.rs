//! [`FilterTree`]: a filter as a tree of conditions with checked names and values, for this index and for other engines.

use std::ops::Bound;

use serde_json::Value as Json;
use tantivy::DateTime;

use super::value_range::ValueRange;
use crate::fields::FieldValue;
use crate::{FieldKind, FieldSpec, dates};

/// Conditions that a [`Filter`](crate::Filter) stands for. Names of typed fields and types of values are checked, and written
/// dates are ranges of instants.
///
/// [`Searcher`](crate::Searcher) evaluates it, and other programs translate it to their own filters.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FilterTree {
    /// Every document meets this condition.
    Everything,
    /// A field other than id, title and text has this value, or is a list with this value. Numbers are compared as numbers; a
    /// number or boolean also equals its text.
    Equals {
        /// name of the field; a dot is part of the name, or stands before a field of an object
        field: String,
        /// a text of up to 256 bytes, a number or a boolean
        value: Json,
    },
    /// A typed field has a value.
    Exists {
        /// name of the field
        field: String,
    },
    /// A typed field has a value between two bounds, of which at least one is given. Keywords are ordered by their bytes.
    Range {
        /// name of the field
        field: String,
        /// type of the field and of the bounds
        kind: FieldKind,
        /// smallest value
        lower: Bound<FilterValue>,
        /// largest value
        upper: Bound<FilterValue>,
    },
    /// The id is one of these.
    Ids(Vec<String>),
    /// Title or text contains the words of `text` in this order, with up to `slop` moves of words.
    Phrase {
        /// the words, as written
        text: String,
        /// moves of words
        slop: u32,
    },
    /// All these conditions hold; true for none.
    All(Vec<FilterTree>),
    /// At least one of these conditions holds; false for none.
    Any(Vec<FilterTree>),
    /// This condition does not hold.
    Not(Box<FilterTree>),
}

/// Value of a typed field in a [`FilterTree`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FilterValue {
    /// text that is compared as a whole
    Keyword(String),
    /// integer
    Int(i64),
    /// number
    Float(f64),
    /// instant, in nanoseconds since 1970 in UTC
    Date(i64),
    /// boolean
    Bool(bool),
}

impl FilterValue {
    /// The value as JSON; an instant is a text of RFC 3339 in UTC.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Keyword(text) => Json::from(text.as_str()),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) => Json::from(*value),
            Self::Date(nanos) => Json::from(dates::to_text(DateTime::from_timestamp_nanos(*nanos))),
            Self::Bool(value) => Json::from(*value),
        }
    }
}

impl From<FieldValue> for FilterValue {
    fn from(value: FieldValue) -> Self {
        match value {
            FieldValue::Keyword(text) => Self::Keyword(text),
            FieldValue::Int(value) => Self::Int(value),
            FieldValue::Float(value) => Self::Float(value),
            FieldValue::Date(date) => Self::Date(date.into_timestamp_nanos()),
            FieldValue::Bool(value) => Self::Bool(value),
        }
    }
}

impl FilterTree {
    /// The tree with [`Equals`](Self::Equals) over a typed field as a range of its values, for engines that hold typed fields as
    /// [`FieldSpec::convert`] makes them: a text that is a date is then its first instant, and a text that is no value of the
    /// type equals nothing.
    #[must_use]
    pub fn over_typed_values(self, fields: &[FieldSpec]) -> Self {
        let each = |trees: Vec<Self>| trees.into_iter().map(|tree| tree.over_typed_values(fields)).collect();
        match self {
            Self::Equals { field, value } => match fields.iter().find(|spec| spec.name == field) {
                Some(spec) => {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let range = ValueRange::of_value(spec.kind, &text);
                    range.map_or_else(Self::nothing, |range| Self::in_range(&field, spec.kind, &range.first()))
                }
                None => Self::Equals { field, value },
            },
            Self::All(trees) => Self::All(each(trees)),
            Self::Any(trees) => Self::Any(each(trees)),
            Self::Not(tree) => Self::Not(Box::new(tree.over_typed_values(fields))),
            other => other,
        }
    }

    /// No document meets this condition.
    pub(super) fn nothing() -> Self {
        Self::Any(Vec::new())
    }

    /// A typed field has a value in a range.
    pub(super) fn in_range(field: &str, kind: FieldKind, range: &ValueRange) -> Self {
        let Some((lower, upper)) = range.bounds() else { return Self::nothing() };
        if kind == FieldKind::Bool {
            let values = [false, true].into_iter().filter(|value| range.contains(&FieldValue::Bool(*value)));
            let one = |value| {
                let bound = Bound::Included(FilterValue::Bool(value));
                Self::Range { field: field.to_owned(), kind, lower: bound.clone(), upper: bound }
            };
            return Self::Any(values.map(one).collect());
        }
        Self::Range {
            field: field.to_owned(),
            kind,
            lower: lower.map(FilterValue::from),
            upper: upper.map(FilterValue::from),
        }
    }
}
