//! Filters in tantivy's query language over the typed fields of an index: `lang:nb AND year:[2020 TO *]`.

use tantivy::query::Occur;
use tantivy::query_grammar::{
    Delimiter, UserInputAst, UserInputBound, UserInputLeaf, UserInputLiteral, parse_query, parse_query_lenient,
};

use super::tree::FilterTree;
use super::value_range::ValueRange;
use crate::fields::shortened;
use crate::{Error, FieldKind, FieldSpec, Result};

/// Largest length of a filter in bytes.
const LONGEST: usize = 1 << 16;
/// Largest depth of parentheses: the parser calls itself for each.
const DEEPEST: usize = 32;

/// Parses a filter. The names of its fields are not checked.
///
/// # Errors
/// A syntax error, with its position.
pub(super) fn parse(text: &str) -> Result<UserInputAst> {
    if text.len() > LONGEST {
        let message = format!("the filter has {} bytes", text.len());
        return Err(Error::invalid(message, format!("a filter has up to {LONGEST} bytes")));
    }
    if nesting(text) > DEEPEST {
        let message = format!("the filter {:?} has more than {DEEPEST} nested parentheses", shortened(text));
        return Err(Error::invalid(message, "write it with fewer parentheses"));
    }
    let parsed = splade_core::guarded(|| parse_query(text));
    let syntax = |position: usize, problem: &str| {
        let before = text.get(..position).unwrap_or(text);
        let message = format!(
            "the filter {:?} cannot be read at character {}: {problem}",
            shortened(text),
            before.chars().count() + 1
        );
        Error::invalid(
            message,
            "for instance lang:nb AND NOT tags:draft; a value with other signs stands in double quotes",
        )
    };
    match parsed {
        Ok(Ok(ast)) => Ok(ast),
        Ok(Err(_)) => {
            // the lenient parser states the position
            let errors = splade_core::guarded(|| parse_query_lenient(text).1).unwrap_or_default();
            let first = errors.iter().min_by_key(|error| error.pos);
            Err(first.map_or_else(|| syntax(0, "syntax error"), |error| syntax(error.pos, &error.message)))
        }
        Err(panic) => Err(syntax(0, &panic)),
    }
}

/// Upper bound of the depth of parentheses; those in quotes count too.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The conditions that a filter stands for, over these typed fields.
///
/// # Errors
/// A syntax error, an unknown field, a value of another type than its field's, a part of the language that is not for filters.
pub(super) fn tree(text: &str, fields: &[FieldSpec]) -> Result<FilterTree> {
    Translation { text, fields }.ast(&parse(text)?)
}

struct Translation<'a> {
    text: &'a str,
    fields: &'a [FieldSpec],
}

/// A field that filters know.
enum Known<'a> {
    Id,
    Text,
    Typed(&'a FieldSpec),
}

impl Translation<'_> {
    fn ast(&self, ast: &UserInputAst) -> Result<FilterTree> {
        match ast {
            UserInputAst::Clause(clauses) => self.clauses(clauses),
            UserInputAst::Leaf(leaf) => self.leaf(leaf),
            UserInputAst::Boost(..) => Err(self.refuse("^", "a boost has no effect on a filter", "leave ^ out")),
        }
    }

    /// Every clause with `AND`, `+` or without an operator must hold, at least one of those with `OR`, and none of those with
    /// `NOT` or `-`.
    fn clauses(&self, clauses: &[(Option<Occur>, UserInputAst)]) -> Result<FilterTree> {
        if clauses.is_empty() {
            return Err(self.refuse("", "the filter is empty", "for instance lang:nb"));
        }
        let (mut required, mut alternatives) = (Vec::new(), Vec::new());
        for (occur, ast) in clauses {
            let condition = self.ast(ast)?;
            match occur {
                Some(Occur::Should) => alternatives.push(condition),
                Some(Occur::MustNot) => required.push(FilterTree::Not(Box::new(condition))),
                Some(Occur::Must) | None => required.push(condition),
            }
        }
        if !alternatives.is_empty() {
            required.push(FilterTree::Any(alternatives));
        }
        Ok(FilterTree::All(required))
    }

    fn leaf(&self, leaf: &UserInputLeaf) -> Result<FilterTree> {
        match leaf {
            UserInputLeaf::All => Ok(FilterTree::Everything),
            UserInputLeaf::Literal(literal) => self.literal(literal),
            UserInputLeaf::Range { field, lower, upper } => self.range(field.as_deref(), lower, upper),
            UserInputLeaf::Set { field, elements } => self.set(field.as_deref(), elements),
            UserInputLeaf::Exists { field } => match self.known(Some(field), "*")? {
                Known::Typed(field) => Ok(FilterTree::Exists { field: field.name.clone() }),
                Known::Id => Ok(FilterTree::Everything),
                Known::Text => Err(self.refuse("text", "every document has a text", "leave text:* out")),
            },
            UserInputLeaf::Regex { pattern, .. } => {
                let hint = "put a value with slashes in double quotes";
                Err(self.refuse(pattern, "regular expressions are not for filters", hint))
            }
        }
    }

    fn literal(&self, literal: &UserInputLiteral) -> Result<FilterTree> {
        let UserInputLiteral { field_name, phrase, delimiter, slop, prefix } = literal;
        let known = self.known(field_name.as_deref(), phrase)?;
        if *prefix || *delimiter == Delimiter::None && phrase.ends_with('*') {
            let hint = "put a value that ends in * in double quotes; field:* finds documents that have the field";
            return Err(self.refuse(phrase, "prefixes are not for filters", hint));
        }
        match known {
            Known::Text => Ok(FilterTree::Phrase { text: phrase.clone(), slop: *slop }),
            _ if *slop > 0 => Err(self.refuse(phrase, "a distance of words is for text only", "leave ~ out")),
            Known::Id => Ok(FilterTree::Ids(vec![phrase.clone()])),
            Known::Typed(field) => self.value(field, phrase),
        }
    }

    /// Documents with this value. A date that is a year, month or day has all its instants.
    fn value(&self, field: &FieldSpec, value: &str) -> Result<FilterTree> {
        let range = ValueRange::of_value(field.kind, value).ok_or_else(|| self.no_value(field, value))?;
        Ok(FilterTree::in_range(&field.name, field.kind, &range))
    }

    fn set(&self, field: Option<&str>, elements: &[String]) -> Result<FilterTree> {
        match self.known(field, "IN [")? {
            Known::Text => Err(self.refuse("IN [", "sets are not for text", "use text:word OR text:word")),
            Known::Id => Ok(FilterTree::Ids(elements.to_vec())),
            Known::Typed(field) => {
                let values = elements.iter().map(|value| self.value(field, value));
                Ok(FilterTree::Any(values.collect::<Result<_>>()?))
            }
        }
    }

    fn range(&self, field: Option<&str>, lower: &UserInputBound, upper: &UserInputBound) -> Result<FilterTree> {
        let field = match self.known(field, " TO ")? {
            Known::Typed(field) => field,
            Known::Id | Known::Text => {
                return Err(self.refuse(" TO ", "ranges are for declared fields", "id and text have no ranges"));
            }
        };
        let bound = |bound: &UserInputBound| {
            let range = ValueRange::of_value(field.kind, bound.term_str());
            range.ok_or_else(|| self.no_value(field, bound.term_str()))
        };
        let mut range = ValueRange::all();
        match lower {
            UserInputBound::Inclusive(_) => range.starts_with(bound(lower)?),
            UserInputBound::Exclusive(_) => range.starts_after(bound(lower)?),
            UserInputBound::Unbounded => {}
        }
        match upper {
            UserInputBound::Inclusive(_) => range.ends_with(bound(upper)?),
            UserInputBound::Exclusive(_) => range.ends_before(bound(upper)?),
            UserInputBound::Unbounded => {}
        }
        if range.is_all() {
            return Ok(FilterTree::Exists { field: field.name.clone() });
        }
        Ok(FilterTree::in_range(&field.name, field.kind, &range))
    }

    /// The field of this name. `clause` is shown where there is none.
    fn known(&self, name: Option<&str>, clause: &str) -> Result<Known<'_>> {
        let Some(name) = name else {
            let message = format!("{clause:?} has no field");
            return Err(self.refuse(clause, &message, &self.known_fields()));
        };
        match name {
            "id" | "_id" => return Ok(Known::Id),
            "text" => return Ok(Known::Text),
            _ => {}
        }
        match self.fields.iter().find(|field| field.name == name) {
            Some(field) => Ok(Known::Typed(field)),
            None if name == "title" => {
                let hint = r#"text:"…" finds words of title and text"#;
                Err(self.refuse("title", "the title is no field of its own", hint))
            }
            None => Err(self.refuse(name, &format!("unknown field {name:?}"), &self.known_fields())),
        }
    }

    fn known_fields(&self) -> String {
        let typed: Vec<String> = self.fields.iter().map(FieldSpec::to_string).collect();
        if typed.is_empty() {
            return "the index has no typed fields, only id and text; clauses such as lang=nb work for all fields"
                .into();
        }
        format!("the fields are id, text, {}", typed.join(", "))
    }

    fn no_value(&self, spec: &FieldSpec, value: &str) -> Error {
        let problem = format!("{:?} is no value of the field {:?} of type {}", shortened(value), spec.name, spec.kind);
        let hint = match spec.kind {
            FieldKind::Date => "a date is written 2020, 2020-02, 2020-02-29 or \"2020-02-29T12:30:00Z\"",
            _ => "correct the value",
        };
        self.refuse(value, &problem, hint)
    }

    /// The error of a problem at the first occurrence of `at` in the filter.
    fn refuse(&self, at: &str, problem: &str, hint: &str) -> Error {
        let text = shortened(self.text);
        let place = self.text.find(at).filter(|_| !at.is_empty());
        let place =
            place.map_or_else(String::new, |byte| format!(" at character {}", self.text[..byte].chars().count() + 1));
        Error::invalid(format!("the filter {text:?}{place}: {problem}"), hint)
    }
}
