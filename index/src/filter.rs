//! [`Filter`]: a condition on the documents of a search.

use serde_json::{Number, Value as Json};
use tantivy::columnar::NumericalValue;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, EnableScoring, Occur, PhraseQuery, Query, TermQuery, TermSetQuery,
};
use tantivy::schema::IndexRecordOption;
use tantivy::{BitSet, Index, Term};

use crate::analyzer;
use crate::schema::{Fields, LONGEST_FILTER_TEXT};
use crate::{Error, Result};

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

    /// Makes the tantivy query of the filter.
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

    /// The documents that pass, for every segment. Deleted documents may be among them.
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

/// Clauses `field=value` or `field!=value`, separated by commas. All of them must hold.
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
        let malformed = || {
            Error::invalid(
                format!("the filter {text:?} is not of the form field=value"),
                r#"for instance lang=nb; a value with a comma stands in double quotes: place="Oslo, Norge""#,
            )
        };
        let mut clauses = Vec::new();
        let mut rest = Some(text);
        while let Some(clause) = rest {
            let (filter, after) = parse_clause(clause).ok_or_else(malformed)?;
            clauses.push(filter);
            rest = after;
        }
        Ok(Self::All(clauses))
    }
}

/// Parses a clause at the start of `text`. Returns it with the text after its comma.
fn parse_clause(text: &str) -> Option<(Filter, Option<&str>)> {
    let (field, rest) = parse_operand(text, |c| c == '=' || c == '!')?;
    let (negated, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
    let (value, rest) = parse_operand(rest.strip_prefix('=')?, |c| c == ',')?;
    let after = match rest.strip_prefix(',') {
        None if !rest.is_empty() => return None,
        after => after,
    };
    let field = match field {
        Operand::Quoted(field) => field,
        Operand::Bare("") => return None,
        Operand::Bare(field) => field.to_owned(),
    };
    let filter = match value {
        Operand::Quoted(value) => Filter::equals(&field, value),
        Operand::Bare(value) => equals_bare(&field, value),
    };
    Some((if negated { Filter::Not(Box::new(filter)) } else { filter }, after))
}

/// A field or a value in a clause.
enum Operand<'a> {
    /// content of a JSON string
    Quoted(String),
    /// text without quotes
    Bare(&'a str),
}

/// Parses the operand at the start of `text`, up to the first character that `is_end`. Returns it with the rest.
fn parse_operand(text: &str, is_end: impl Fn(char) -> bool) -> Option<(Operand<'_>, &str)> {
    let text = text.trim_start();
    if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let value = strings.next()?.ok()?;
        return Some((Operand::Quoted(value), text[strings.byte_offset()..].trim_start()));
    }
    let (operand, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    Some((Operand::Bare(operand.trim_end()), rest))
}

/// Makes the condition of a value without quotes: a number, a boolean or a text.
fn equals_bare(field: &str, value: &str) -> Filter {
    match serde_json::from_str(value) {
        // an integer of more than 64 bits would be rounded; the documents have it as text only
        Ok(Json::Number(number)) if number.is_f64() && value.trim_start_matches('-').bytes().all(is_digit) => {
            Filter::equals(field, value)
        }
        Ok(scalar @ (Json::Number(_) | Json::Bool(_))) if format!("{scalar}") == value => Filter::equals(field, scalar),
        // the written text, such as `5.00`, may differ from the text of the number
        Ok(scalar @ Json::Number(_)) => Filter::Any(vec![Filter::equals(field, scalar), Filter::equals(field, value)]),
        _ => Filter::equals(field, value),
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// Makes the query for the equality of a field.
fn equals(fields: &Fields, field: &str, value: &Json) -> Result<Box<dyn Query>> {
    let mut terms = Vec::new();
    for path in paths(field) {
        let mut push = |append: &dyn Fn(&mut Term)| {
            let mut term = Term::from_field_json_path(fields.filter, &path, false);
            append(&mut term);
            terms.push(term);
        };
        match value {
            Json::String(text) if text.len() > LONGEST_FILTER_TEXT => {
                return Err(Error::invalid(
                    format!("cannot filter {field:?} by a text of {} bytes", text.len()),
                    format!("texts of up to {LONGEST_FILTER_TEXT} bytes can be filtered by"),
                ));
            }
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
            _ => {
                return Err(Error::invalid(format!("cannot filter {field:?} by {value}"), "a text, number or boolean"));
            }
        }
    }
    let one = |term| Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>;
    Ok(Box::new(BooleanQuery::union(terms.into_iter().map(one).collect())))
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

fn phrase(index: &Index, fields: &Fields, text: &str) -> Result<Box<dyn Query>> {
    let mut words = analyzer::terms(index, fields.body, text)?;
    Ok(match words.len() {
        0 => Box::new(EmptyQuery),
        1 => Box::new(TermQuery::new(words.remove(0).1, IndexRecordOption::Basic)),
        _ => Box::new(PhraseQuery::new_with_offset(words)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Filter {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn values_in_quotes_may_contain_separators() {
        let not = |filter| Filter::Not(Box::new(filter));
        let cases = [
            ("a=b", vec![Filter::equals("a", "b")]),
            (" a = b c , d != e ", vec![Filter::equals("a", "b c"), not(Filter::equals("d", "e"))]),
            (r#"a="b, c",d=1"#, vec![Filter::equals("a", "b, c"), Filter::equals("d", 1)]),
            (r#""a,=!" != " \u00e5\"\n" "#, vec![not(Filter::equals("a,=!", " å\"\n"))]),
            (r#"a="1",b="true""#, vec![Filter::equals("a", "1"), Filter::equals("b", "true")]),
            ("a=b=c", vec![Filter::equals("a", "b=c")]),
            ("a=", vec![Filter::equals("a", "")]),
            (r#"a=5" disk"#, vec![Filter::equals("a", "5\" disk")]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Filter::All(expected), "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        let cases = [
            ("n=5", Filter::equals("n", 5)),
            ("n=5.0", Filter::equals("n", 5.0)),
            ("n=5.00", Filter::Any(vec![Filter::equals("n", 5.0), Filter::equals("n", "5.00")])),
            ("n=true", Filter::equals("n", true)),
            ("n=18446744073709551615", Filter::equals("n", u64::MAX)),
            ("n=18446744073709551616", Filter::equals("n", "18446744073709551616")),
            ("n=-9223372036854775809", Filter::equals("n", "-9223372036854775809")),
            ("n=007", Filter::equals("n", "007")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Filter::All(vec![expected]), "{text}");
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        for text in ["", "a", ",", "a=b,", "=b", "!=b", "a!b", r#"a="b"#, r#"a="b"c"#, r#""a"b=c"#] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(error.to_string().contains("is not of the form field=value"), "{text}: {error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn equal_numbers_have_equal_forms() {
        let form = |value: Json| indexed_forms(value.as_number().unwrap());
        for (value, integer) in [(json!(5.0), json!(5)), (json!(-0.0), json!(0)), (json!(-3.0), json!(-3))] {
            assert_eq!(form(value)[0], form(integer)[0]);
        }
        assert!(form(json!(9_223_372_036_854_775_808.0)).contains(&NumericalValue::U64(1 << 63)));
        assert_eq!(form(json!(0.5)), [NumericalValue::F64(0.5)]);
    }
}
