//! One mapping of the config, read key by key: the keys of [`KEYS`](super::KEYS) are known, all others are errors.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::Note;
use super::keys::{Effect, KEYS, Key};
use crate::{Error, Result};

/// A value out of a fixed list of names; made by [`choices!`](super::choices).
pub(super) trait Choice: Copy + 'static {
    /// Every accepted name with its value; a value's first name is the one written back.
    const NAMES: &'static [(&'static str, Self)];
}

/// The notes of a config, one for each reason.
#[derive(Debug, Default)]
pub(super) struct Notes(RefCell<Vec<Note>>);

impl Notes {
    fn add(&self, key: String, reason: &str) {
        let mut notes = self.0.borrow_mut();
        match notes.iter_mut().find(|note| note.reason == reason) {
            Some(note) => note.keys.push(key),
            None => notes.push(Note { keys: vec![key], reason: reason.to_owned() }),
        }
    }

    pub(super) fn into_inner(self) -> Vec<Note> {
        self.0.into_inner()
    }
}

/// One mapping of the config and the full path to it.
///
/// A key whose value is `null` counts as absent, as in `tasks: null`. Numbers and switches may be written as text,
/// because Python's YAML reads `2e-5` as text and ours reads `yes` as text.
pub(super) struct Section<'a> {
    path: String,
    /// the paths in the table of keys that stand for this section
    patterns: Vec<String>,
    entries: Option<&'a Map<String, Value>>,
    notes: &'a Notes,
    /// the keys that were read, to check that the parser reads every key of the table
    read: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole config.
    pub(super) fn root(value: &'a Value, notes: &'a Notes) -> Result<Self> {
        Self::new(String::new(), vec![String::new()], Some(value), notes)
    }

    fn new(path: String, patterns: Vec<String>, value: Option<&'a Value>, notes: &'a Notes) -> Result<Self> {
        let entries = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(entries)) => Some(entries),
            Some(other) => {
                let key = if path.is_empty() { "config".to_owned() } else { path };
                return Err(Error::config(key, format!("expected keys and values, got {}", describe(other)), ""));
            }
        };
        Ok(Self { path, patterns, entries, notes, read: Vec::new() })
    }

    /// The full path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The line of a key in the table; sections have none of their own.
    fn row(&self, key: &str) -> Option<&'static Key> {
        KEYS.iter().find(|row| self.patterns.iter().any(|pattern| row.path == join(pattern, key)))
    }

    /// The keys that the table has for this section: those with a line of their own, and sections that have keys. Where
    /// names are the user's own, sections are not among them.
    fn known(&self) -> Vec<&'static str> {
        let mut known: Vec<&str> = Vec::new();
        for pattern in &self.patterns {
            let below = |row: &'static Key| match pattern.as_str() {
                "" => Some(row.path),
                pattern => row.path.strip_prefix(pattern)?.strip_prefix('.'),
            };
            let has_own_names = KEYS.iter().filter_map(below).any(|rest| rest.starts_with("*."));
            for rest in KEYS.iter().filter_map(below) {
                let key = rest.split_once('.').map_or(Some(rest), |(key, _)| (!has_own_names).then_some(key));
                known.extend(key.filter(|key| !known.contains(key)));
            }
        }
        known
    }

    /// Notes that a key has no effect, or another one than its reader may expect.
    pub(super) fn note(&self, key: &str, reason: &str) {
        self.notes.add(self.path_of(key), reason);
    }

    /// Notes a key that has no effect beside other keys, if its value is not the default.
    pub(super) fn note_if_changed(&mut self, key: &'static str, reason: &str) {
        let Some(value) = self.value(key) else { return };
        let default = self.row(key).and_then(|row| serde_json::from_str::<Value>(row.default).ok());
        let is_default = default.is_some_and(|default| match (as_number(value), as_number(&default)) {
            (Some(value), Some(default)) => value == default,
            _ => *value == default,
        });
        if !is_default {
            self.note(key, reason);
        }
    }

    /// An error about a key of this section.
    pub(super) fn error(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::config(self.path_of(key), message, hint)
    }

    fn wrong(&self, key: &str, expected: &str, got: &Value) -> Error {
        self.error(key, format!("expected {expected}, got {}", describe(got)), "")
    }

    /// True if the key is written, even as `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// The value that is written for a key.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        debug_assert!(self.known().contains(&key), "{} is not in the table of keys", self.path_of(key));
        self.read.push(key);
        self.entries?.get(key).filter(|value| !value.is_null())
    }

    /// The value that is written for a key, else its default.
    fn value_or_default(&mut self, key: &'static str) -> Option<Cow<'a, Value>> {
        if let Some(value) = self.value(key) {
            return Some(Cow::Borrowed(value));
        }
        let default = self.row(key)?.default;
        // that every default is JSON is tested
        serde_json::from_str(default).ok().map(Cow::Owned)
    }

    fn required(&mut self, key: &'static str) -> Result<Cow<'a, Value>> {
        self.value_or_default(key).ok_or_else(|| self.error(key, "is missing", ""))
    }

    /// A key that may be absent, read by one of the methods below.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.value(key).is_some() { read(self, key).map(Some) } else { Ok(None) }
    }

    /// A section within this one; empty if absent.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Section<'a>> {
        let value = self.value(key);
        let patterns = self.patterns.iter().map(|pattern| join(pattern, key)).collect();
        Self::new(self.path_of(key), patterns, value, self.notes)
    }

    /// The entries whose keys are the user's own names, in the order of the file.
    pub(super) fn named_entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let known = self.known();
        self.entries.into_iter().flatten().filter(move |(key, _)| !known.contains(&key.as_str()))
    }

    /// The section of a data set: its own keys in the table are those of `*`, and those of a built-in set of this name.
    pub(super) fn named_section(&self, name: &str, value: &'a Value) -> Result<Section<'a>> {
        let patterns = self.patterns.iter().flat_map(|pattern| [join(pattern, "*"), join(pattern, name)]).collect();
        Self::new(self.path_of(name), patterns, Some(value), self.notes)
    }

    /// A text; a number or switch is taken as it is written.
    pub(super) fn text(&mut self, key: &'static str) -> Result<String> {
        let value = self.required(key)?;
        match as_text(&value) {
            Some(text) if text.trim().is_empty() => Err(self.error(key, "is empty", "")),
            Some(text) => Ok(text),
            None => Err(self.wrong(key, "a text", &value)),
        }
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Vec<String>> {
        let value = self.required(key)?;
        as_texts(&value).ok_or_else(|| self.wrong(key, "a list of texts", &value))
    }

    /// A switch: true, false, or their YAML 1.1 names as text.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool> {
        let value = self.required(key)?;
        as_flag(&value).ok_or_else(|| self.wrong(key, "true or false", &value))
    }

    /// A number within `range`.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Result<f64> {
        let value = self.required(key)?;
        let number = as_number(&value).ok_or_else(|| self.wrong(key, "a number", &value))?;
        self.within(key, number, range)
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&mut self, key: &'static str, least: usize) -> Result<usize> {
        let value = self.required(key)?;
        self.whole(key, &value, least)
    }

    /// A whole number of at least 1; 0 and negative numbers, like Python's -1, mean "no limit", as does no value at all.
    pub(super) fn limit(&mut self, key: &'static str) -> Result<Option<usize>> {
        match self.value_or_default(key) {
            Some(value) if as_number(&value).is_some_and(|number| number <= 0.0) => Ok(None),
            Some(value) => self.whole(key, &value, 1).map(Some),
            None => Ok(None),
        }
    }

    fn whole(&self, key: &str, value: &Value, least: usize) -> Result<usize> {
        let number = as_number(value).ok_or_else(|| self.wrong(key, "a whole number", value))?;
        if number.fract() != 0.0 {
            return Err(self.wrong(key, "a whole number", value));
        }
        self.within(key, number, least as f64..=9e15).map(|number| number as usize)
    }

    /// `number`, if it is within `range`.
    pub(super) fn within(&self, key: &str, number: f64, range: RangeInclusive<f64>) -> Result<f64> {
        if range.contains(&number) {
            return Ok(number);
        }
        let (low, high) = range.into_inner();
        let bound = match (low.is_finite(), high < 9e15) {
            (true, true) if low == f64::MIN_POSITIVE => format!("above 0 and at most {high}"),
            (true, true) => format!("between {low} and {high}"),
            (true, false) if low == f64::MIN_POSITIVE => "above 0".to_owned(),
            (true, false) => format!("at least {low}"),
            _ => format!("at most {high}"),
        };
        Err(self.error(key, format!("{number} is not {bound}"), ""))
    }

    /// One of the names of `T`, in small letters or capitals: Python's enums are written in capitals.
    pub(super) fn choice<T: Choice>(&mut self, key: &'static str) -> Result<T> {
        let value = self.required(key)?;
        // Python's YAML reads a bare `no` as false, and it is a name here (`eval_strategy: no`).
        let name = if *value == Value::Bool(false) { Some("no".to_owned()) } else { as_text(&value) };
        let name = name.ok_or_else(|| self.wrong(key, "a name", &value))?;
        if let Some((_, choice)) = T::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            return Ok(*choice);
        }
        let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
        Err(self.error(key, format!("`{name}` is none of {}", names.join(", ")), did_you_mean(&name, &names)))
    }

    /// An error about keys of which one must be there; a key that looks like one of them is taken for a misspelling.
    pub(super) fn missing(&self, keys: &[&str], hint: &str) -> Error {
        let is_misspelling = |name: &str| keys.iter().any(|key| likeness(name, key) > 0.85);
        match self.named_entries().find(|(name, _)| is_misspelling(name)) {
            Some((name, _)) => self.error(name, "unknown key", did_you_mean(name, keys)),
            None => self.error(keys.first().copied().unwrap_or_default(), "is missing", hint),
        }
    }

    /// Ends the reading of this section: a key that is not in the table is an error with the nearest one that is, and
    /// those that have no effect are noted.
    pub(super) fn finish(mut self) -> Result<()> {
        if let Some((key, _)) = self.named_entries().next() {
            return Err(self.error(key, "unknown key", did_you_mean(key, &self.known())));
        }
        for key in self.known() {
            match self.row(key).map(|row| row.effect) {
                Some(Effect::None(reason)) if self.value(key).is_some() => self.note(key, reason),
                Some(Effect::OnlyOff(reason)) if !self.is_off(key)? => self.note(key, reason),
                Some(Effect::Works) | None => {
                    debug_assert!(self.read.contains(&key), "{} is in the table and not read", self.path_of(key));
                }
                Some(Effect::None(_) | Effect::OnlyOff(_)) => {}
            }
        }
        Ok(())
    }

    /// True if the value of a key, which has the type of its default, is the one that switches it off.
    fn is_off(&mut self, key: &'static str) -> Result<bool> {
        let value = self.required(key)?;
        Ok(match self.row(key).map(|row| row.default) {
            Some("false") => !self.flag(key)?,
            Some("0") => self.count(key, 0)? == 0,
            Some("[]") => self.texts(key)?.is_empty(),
            _ => value.is_null(),
        })
    }
}

/// A key below a path; the path of the whole config is empty.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// 1 for equal names, 0 for names that share nothing.
fn likeness(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

/// `did you mean …?`, or nothing if no known name is near.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    // Found by trial on misspelt config keys: below this, suggestions look random.
    const NEAR: f64 = 0.75;
    let nearest = known
        .iter()
        .map(|known| (likeness(name, known), known))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map_or_else(String::new, |(_, known)| format!("did you mean `{known}`?"))
}

/// A number, also one written as text; never NaN or infinite.
pub(super) fn as_number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// True or false, also written as text.
fn as_flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A text; numbers and switches as they are written.
pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A list of texts; one text is a list of one.
pub(super) fn as_texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(as_text).collect(),
        other => as_text(other).map(|text| vec![text]),
    }
}

/// A value in a message.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::String(text) => format!("`{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "keys and values".to_owned(),
    }
}
