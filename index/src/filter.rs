//! [`Filter`]: a condition on the documents of a search.

mod clauses;
mod condition;
mod language;
mod passing;
#[cfg(test)]
mod tests;
mod tree;
mod value_range;

use std::ops::Bound;

use serde_json::{Number, Value as Json};
use tantivy::columnar::NumericalValue;
use tantivy::query::{ExistsQuery, PhraseQuery, RangeQuery, TermQuery, TermSetQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{DateTime, Index, Term};

use crate::analyzer;
use crate::schema::{Fields, LONGEST_FILTER_TEXT, TypedField};
use crate::{Error, FieldSpec, Result};

use condition::Condition;
pub(crate) use passing::{FilterCache, Passing, PassingQuery};
pub use tree::{FilterTree, FilterValue};

/// A condition on documents. Documents that do not meet it are not scored.
///
/// ```
/// use splade_index::Filter;
///
/// let filter: Filter = "lang=nb,year=2024".parse()?;
/// assert_eq!(filter, Filter::All(vec![Filter::equals("lang", "nb"), Filter::equals("year", 2024)]));
/// # Ok::<(), splade_index::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// A field other than id, title and text has this value, or is a list with this value. Numbers are compared as numbers,
    /// texts of up to 256 bytes by equality.
    Equals {
        /// name of the field; a dot is part of the name, or stands before a field of an object
        field: String,
        /// a text, number or boolean
        value: Json,
    },
    /// A condition in tantivy's query language over the typed fields, such as `lang:nb AND year:[2020 TO *]`: see
    /// [`from_str`](Self#impl-FromStr-for-Filter).
    Query(String),
    /// The id is one of these.
    Ids(Vec<String>),
    /// Title or text contains these words in this order. The words are those of BM25.
    Phrase(String),
    /// All these conditions hold.
    All(Vec<Filter>),
    /// At least one of these conditions holds.
    Any(Vec<Filter>),
    /// This condition does not hold.
    Not(Box<Filter>),
}

impl Filter {
    /// [`Filter::Equals`].
    pub fn equals(field: &str, value: impl Into<Json>) -> Self {
        Self::Equals { field: field.into(), value: value.into() }
    }

    /// The conditions that the filter stands for, over documents with these typed fields.
    ///
    /// ```
    /// use splade_index::{FieldSpec, Filter, FilterTree};
    ///
    /// let fields = FieldSpec::parse_list("lang:keyword,year:int")?;
    /// let filter: Filter = "NOT lang:nb".parse()?;
    /// let FilterTree::All(parts) = filter.tree(&fields)? else { panic!() };
    /// assert!(matches!(&parts[..], [FilterTree::Not(lang)] if matches!(**lang, FilterTree::Range { .. })));
    /// assert!(filter.tree(&[]).is_err());
    /// # Ok::<(), splade_index::Error>(())
    /// ```
    ///
    /// # Errors
    /// A syntax error, an unknown field, a value of another type than its field's.
    pub fn tree(&self, fields: &[FieldSpec]) -> Result<FilterTree> {
        let each = |filters: &[Self]| filters.iter().map(|filter| filter.tree(fields)).collect::<Result<Vec<_>>>();
        Ok(match self {
            Self::Equals { field, value } => equality(field, value)?,
            Self::Query(text) => language::tree(text, fields)?,
            Self::Ids(ids) => FilterTree::Ids(ids.clone()),
            Self::Phrase(text) => FilterTree::Phrase { text: text.clone(), slop: 0 },
            Self::All(filters) => FilterTree::All(each(filters)?),
            Self::Any(filters) => FilterTree::Any(each(filters)?),
            Self::Not(filter) => FilterTree::Not(Box::new(filter.tree(fields)?)),
        })
    }

    /// The condition that the filter stands for, in an index.
    fn condition(&self, index: &Index, fields: &Fields) -> Result<Condition> {
        let specs: Vec<FieldSpec> = fields.typed.iter().map(|field| field.spec.clone()).collect();
        condition(&self.tree(&specs)?, index, fields)
    }
}

/// The condition of tantivy that a tree stands for.
fn condition(tree: &FilterTree, index: &Index, fields: &Fields) -> Result<Condition> {
    let each =
        |trees: &[FilterTree]| trees.iter().map(|tree| condition(tree, index, fields)).collect::<Result<Vec<_>>>();
    Ok(match tree {
        FilterTree::Everything => Condition::All,
        FilterTree::Equals { field, value } => equals(fields, field, value),
        FilterTree::Exists { field } => Condition::query(ExistsQuery::new(typed(fields, field)?.column.clone(), false)),
        FilterTree::Range { field, lower, upper, .. } => typed(fields, field)?.range(lower, upper),
        FilterTree::Ids(ids) => match &ids[..] {
            [id] => Condition::query(TermQuery::new(fields.id_term(id), IndexRecordOption::Basic)),
            ids => Condition::query(TermSetQuery::new(ids.iter().map(|id| fields.id_term(id)))),
        },
        FilterTree::Phrase { text, slop } => phrase(index, fields, text, *slop)?,
        FilterTree::All(trees) => Condition::And(each(trees)?),
        FilterTree::Any(trees) => Condition::Or(each(trees)?),
        FilterTree::Not(tree) => Condition::Not(Box::new(condition(tree, index, fields)?)),
    })
}

/// The typed field of this name, which the tree was made with.
fn typed<'a>(fields: &'a Fields, name: &str) -> Result<&'a TypedField> {
    let found = fields.typed.iter().find(|field| field.spec.name == name);
    found.ok_or_else(|| Error::invalid(format!("the index has no typed field {name:?}"), ""))
}

impl TypedField {
    /// Documents with a value between two bounds.
    fn range(&self, lower: &Bound<FilterValue>, upper: &Bound<FilterValue>) -> Condition {
        match (lower, upper) {
            (Bound::Included(lower), Bound::Included(upper)) if lower == upper && self.is_indexed() => {
                Condition::query(TermQuery::new(self.term(lower), IndexRecordOption::Basic))
            }
            (lower, upper) => {
                let term = |bound: &Bound<FilterValue>| bound.as_ref().map(|value| self.term(value));
                Condition::query(RangeQuery::new(term(lower), term(upper)))
            }
        }
    }

    /// The term of a value.
    fn term(&self, value: &FilterValue) -> Term {
        match value {
            FilterValue::Keyword(text) => Term::from_field_text(self.field, text),
            FilterValue::Int(value) => Term::from_field_i64(self.field, *value),
            FilterValue::Float(value) => Term::from_field_f64(self.field, *value),
            FilterValue::Date(nanos) => Term::from_field_date(self.field, DateTime::from_timestamp_nanos(*nanos)),
            FilterValue::Bool(value) => Term::from_field_bool(self.field, *value),
        }
    }
}

/// A query in tantivy's language over the typed fields of the index, or clauses over all fields.
///
/// **Queries** have clauses `field:value`, joined by `AND`, `OR`, `NOT`, `+`, `-` and parentheses. Clauses side by side must all
/// hold. A value is a word, a quoted text, a range `[2020 TO 2024}` (a curly bracket excludes its end, `*` is no bound), a
/// comparison `>=2020`, a set `IN [nb nn]`, or `*` for any value. A sign of the syntax in a value stands in quotes or after a
/// backslash. The fields are the typed ones, `id`, and `text`, which has the words of title and text: `text:"to ord"` is a phrase.
/// Keywords are compared as a whole. A year, month or day has all its instants, so that `date:[2020 TO 2021-02]` ends with
/// February. Names and values are checked when a search uses the filter; the syntax is checked here.
///
/// ```
/// use splade_index::Filter;
///
/// let filter: Filter = "lang:nb AND year:[2020 TO *]".parse()?;
/// assert_eq!(filter, Filter::Query("lang:nb AND year:[2020 TO *]".into()));
/// # Ok::<(), splade_index::Error>(())
/// ```
///
/// **Clauses** are `field=value` or `field!=value`, separated by commas. All of them must hold. They need no typed fields.
///
/// A value that is a number or boolean in JSON matches both that value and its text. White space around a field or a value is
/// ignored. A field or a value with commas, equals signs or white space around it is written in double quotes, as a JSON
/// string. A quoted value matches the text only.
///
/// ```
/// use splade_index::Filter;
///
/// let filter: Filter = r#"title="Oslo, Bergen",year!="2024""#.parse()?;
/// let not = Filter::Not(Box::new(Filter::equals("year", "2024")));
/// assert_eq!(filter, Filter::All(vec![Filter::equals("title", "Oslo, Bergen"), not]));
/// # Ok::<(), splade_index::Error>(())
/// ```
impl std::str::FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if clauses::are_clauses(text) {
            return clauses::parse(text);
        }
        language::parse(text)?;
        Ok(Self::Query(text.to_owned()))
    }
}

/// The tree of the condition that a field equals a value.
///
/// # Errors
/// A text that is too long, a value that is not a text, number or boolean.
fn equality(field: &str, value: &Json) -> Result<FilterTree> {
    match value {
        Json::String(text) if text.len() > LONGEST_FILTER_TEXT => Err(Error::invalid(
            format!("cannot filter {field:?} by a text of {} bytes", text.len()),
            format!("texts of up to {LONGEST_FILTER_TEXT} bytes can be filtered by"),
        )),
        Json::String(_) | Json::Bool(_) | Json::Number(_) => {
            Ok(FilterTree::Equals { field: field.to_owned(), value: value.clone() })
        }
        _ => Err(Error::invalid(format!("cannot filter {field:?} by {value}"), "a text, number or boolean")),
    }
}

/// The condition that a field equals a value.
fn equals(fields: &Fields, field: &str, value: &Json) -> Condition {
    let mut terms = Vec::new();
    for path in paths(field) {
        let mut push = |append: &dyn Fn(&mut Term)| {
            let mut term = Term::from_field_json_path(fields.filter, &path, false);
            append(&mut term);
            terms.push(term);
        };
        match value {
            Json::String(text) => push(&|term| term.append_type_and_str(text)),
            Json::Bool(value) => {
                push(&|term| term.append_type_and_fast_value(*value));
                push(&|term| term.append_type_and_str(&value.to_string()));
            }
            Json::Number(number) => {
                push(&|term| term.append_type_and_str(&number.to_string()));
                for value in indexed_forms(number) {
                    match value {
                        NumericalValue::I64(value) => push(&|term| term.append_type_and_fast_value(value)),
                        NumericalValue::U64(value) => push(&|term| term.append_type_and_fast_value(value)),
                        NumericalValue::F64(value) => push(&|term| term.append_type_and_fast_value(value)),
                    }
                }
            }
            // a tree holds no other values
            _ => {}
        }
    }
    let one = |term| Condition::query(TermQuery::new(term, IndexRecordOption::Basic));
    Condition::Or(terms.into_iter().map(one).collect())
}

/// Paths of a field's name: one with every dot as a step into an object, and one with the whole name as a key.
fn paths(field: &str) -> Vec<String> {
    let nested = field.replace('\\', "\\\\");
    let whole = nested.replace('.', "\\.");
    if whole == nested { vec![nested] } else { vec![nested, whole] }
}

/// Values that tantivy indexes for numbers equal to `number`, for all number types in documents.
fn indexed_forms(number: &Number) -> Vec<NumericalValue> {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let exact = number.as_i64().map(NumericalValue::I64).or_else(|| number.as_u64().map(NumericalValue::U64));
    let mut forms = vec![exact.unwrap_or(NumericalValue::F64(value)).normalize()];
    // a whole float equals an integer; from 2^63 on, tantivy indexes the two differently
    if value.fract() == 0.0 && (0.0..TWO_TO_64).contains(&value) && exact.is_none() {
        forms.push(NumericalValue::U64(value as u64).normalize());
    }
    forms
}

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// Documents in which these words follow one another, with up to `slop` moves of words.
fn phrase(index: &Index, fields: &Fields, text: &str, slop: u32) -> Result<Condition> {
    let mut words = analyzer::terms(index, fields.body, text)?;
    Ok(match words.len() {
        0 => Condition::none(),
        1 => Condition::query(TermQuery::new(words.remove(0).1, IndexRecordOption::Basic)),
        _ => {
            let mut phrase = PhraseQuery::new_with_offset(words);
            phrase.set_slop(slop);
            Condition::query(phrase)
        }
    })
}
