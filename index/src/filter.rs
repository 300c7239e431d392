//! Filters: which documents may be found at all.

use serde_json::Value as Json;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, EnableScoring, Occur, PhraseQuery, Query, TermQuery, TermSetQuery,
};
use tantivy::schema::IndexRecordOption;
use tantivy::{BitSet, Index, Term};

use crate::bm25;
use crate::schema::Fields;
use crate::{Error, Result};

/// A condition on documents, before any scoring.
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
    /// A field beside id, title and text has this value (or holds it, if it is a list). Dots reach into objects.
    /// Numbers are compared as numbers, texts of up to 256 bytes by equality.
    Equals {
        /// the field's name
        field: String,
        /// a text, number or boolean
        value: Json,
    },
    /// One of these ids.
    Ids(Vec<String>),
    /// These words in this order, in title or text, as BM25 sees them.
    Phrase(String),
    /// All of these.
    All(Vec<Filter>),
    /// At least one of these.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
}

impl Filter {
    /// [`Filter::Equals`].
    pub fn equals(field: &str, value: impl Into<Json>) -> Self {
        Self::Equals { field: field.into(), value: value.into() }
    }

    /// The filter as a tantivy query.
    pub(crate) fn to_query(&self, index: &Index, fields: &Fields) -> Result<Box<dyn Query>> {
        Ok(match self {
            Self::Equals { field, value } => equals(fields, field, value)?,
            Self::Ids(ids) => Box::new(TermSetQuery::new(ids.iter().map(|id| fields.id_term(id)))),
            Self::Phrase(text) => phrase(index, fields, text)?,
            Self::All(filters) => {
                let mut clauses: Vec<(Occur, Box<dyn Query>)> = vec![(Occur::Must, Box::new(AllQuery))];
                for filter in filters {
                    clauses.push((Occur::Must, filter.to_query(index, fields)?));
                }
                Box::new(BooleanQuery::new(clauses))
            }
            Self::Any(filters) => {
                let clauses = filters.iter().map(|filter| filter.to_query(index, fields));
                Box::new(BooleanQuery::union(clauses.collect::<Result<_>>()?))
            }
            Self::Not(filter) => Box::new(BooleanQuery::new(vec![
                (Occur::Must, Box::new(AllQuery)),
                (Occur::MustNot, filter.to_query(index, fields)?),
            ])),
        })
    }

    /// The documents of every segment that pass; deleted ones may be among them.
    pub(crate) fn bitsets(&self, searcher: &tantivy::Searcher, fields: &Fields) -> Result<Vec<BitSet>> {
        let query = self.to_query(searcher.index(), fields)?;
        let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
        let segments = searcher.segment_readers().iter().map(|reader| {
            let mut passing = BitSet::with_max_value(reader.max_doc());
            weight.for_each_no_score(reader, &mut |docs| {
                for doc in docs {
                    passing.insert(*doc);
                }
            })?;
            Ok(passing)
        });
        segments.collect()
    }
}

/// `field=value` clauses joined by commas, all of which must hold; `!=` for a value that must not be. A value that
/// reads as a number or boolean matches that or the text.
impl std::str::FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split(',').map(clause).collect::<Result<_>>().map(Self::All)
    }
}

fn clause(text: &str) -> Result<Filter> {
    let bad = || Error::invalid(format!("the filter {text:?} is not of the form field=value"), "for instance lang=nb");
    let (field, value) = text.split_once('=').ok_or_else(bad)?;
    let (field, negated) = field.strip_suffix('!').map_or((field, false), |field| (field, true));
    let (field, value) = (field.trim(), value.trim());
    if field.is_empty() {
        return Err(bad());
    }
    let equals = match serde_json::from_str(value) {
        Ok(scalar @ (Json::Number(_) | Json::Bool(_))) => Filter::Equals { field: field.into(), value: scalar },
        _ => Filter::equals(field, value),
    };
    Ok(if negated { Filter::Not(Box::new(equals)) } else { equals })
}

/// Equality of a field of the JSON beside the text.
fn equals(fields: &Fields, field: &str, value: &Json) -> Result<Box<dyn Query>> {
    let term = || Term::from_field_json_path(fields.filter, field, true);
    let text = |text: &str| {
        let mut term = term();
        term.append_type_and_str(text);
        term
    };
    let one = |term| Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>;
    match value {
        Json::String(value) => Ok(one(text(value))),
        Json::Bool(value) => {
            let mut term = term();
            term.append_type_and_fast_value(*value);
            Ok(Box::new(BooleanQuery::union(vec![one(term), one(text(&value.to_string()))])))
        }
        Json::Number(number) => {
            let mut terms = vec![text(&number.to_string())];
            let mut push = |append: &dyn Fn(&mut Term)| {
                let mut term = term();
                append(&mut term);
                terms.push(term);
            };
            if let Some(value) = number.as_i64() {
                push(&|term| term.append_type_and_fast_value(value));
            }
            if let Some(value) = number.as_u64() {
                push(&|term| term.append_type_and_fast_value(value));
            }
            if let Some(value) = number.as_f64() {
                push(&|term| term.append_type_and_fast_value(value));
            }
            Ok(Box::new(BooleanQuery::union(terms.into_iter().map(one).collect())))
        }
        _ => Err(Error::invalid(format!("cannot filter {field:?} by {value}"), "a text, number or boolean")),
    }
}

fn phrase(index: &Index, fields: &Fields, text: &str) -> Result<Box<dyn Query>> {
    let mut words = bm25::terms(index, fields.body, text)?;
    Ok(match words.len() {
        0 => Box::new(EmptyQuery),
        1 => Box::new(TermQuery::new(words.remove(0).1, IndexRecordOption::Basic)),
        _ => Box::new(PhraseQuery::new_with_offset(words)),
    })
}
