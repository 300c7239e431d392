//! Clauses `field=value,field!=value`: the short form of a filter, over all fields of the documents.

use serde_json::Value as Json;

use super::Filter;
use crate::{Error, Result};

/// True if `text` is of the form of clauses, right or wrong, and not a query over typed fields.
///
/// A query has a colon after a field. A name with a colon, such as `dc:date`, may stand in clauses where nothing but the name
/// precedes the equals sign.
pub(super) fn are_clauses(text: &str) -> bool {
    let text = text.trim_start();
    if text.starts_with('"') {
        return true;
    }
    let Some(end) = text.find(['=', '!']) else { return !text.contains([':', '*']) };
    let field = &text[..end];
    let is_name = |c: char| !c.is_whitespace() && !r#""'<>[]{}()*\"#.contains(c);
    !field.contains(':') || field.trim_end().chars().all(is_name) && !field.trim_end().ends_with(':')
}

/// Parses clauses separated by commas. All of them must hold.
pub(super) fn parse(text: &str) -> Result<Filter> {
    let malformed = || {
        Error::invalid(
            format!("the filter {text:?} is neither of the form field=value nor of the form field:value"),
            r#"for instance lang=nb, place="Oslo, Norge" or lang:nb AND year:[2020 TO *]"#,
        )
    };
    let mut clauses = Vec::new();
    let mut rest = Some(text);
    while let Some(clause) = rest {
        let (filter, after) = parse_clause(clause).ok_or_else(malformed)?;
        clauses.push(filter);
        rest = after;
    }
    Ok(Filter::All(clauses))
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
