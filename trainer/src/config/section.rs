//! One mapping of the config, read key by key: every key that is asked for is known, all others are errors.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// A value out of a fixed list of names; made by [`choices!`](super::choices).
pub(super) trait Choice: Copy + 'static {
    /// Every accepted name with what it means; a value's first name is the one written back.
    const NAMES: &'static [(&'static str, Self)];
}

/// One mapping of the config and the full path to it.
///
/// A key whose value is `null` counts as absent, as in `tasks: null`. Numbers and switches may be written as text,
/// because Python's YAML reads `2e-5` as text and ours reads `yes` as text.
pub(super) struct Section<'a> {
    path: String,
    entries: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole config.
    pub(super) fn root(value: &'a Value) -> Result<Self> {
        Self::new(String::new(), Some(value))
    }

    fn new(path: String, value: Option<&'a Value>) -> Result<Self> {
        let entries = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(entries)) => Some(entries),
            Some(other) => {
                let key = if path.is_empty() { "config".to_owned() } else { path };
                return Err(Error::config(key, format!("expected keys and values, got {}", describe(other)), ""));
            }
        };
        Ok(Self { path, entries, known: Vec::new() })
    }

    /// The full path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
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

    /// The value of a key, which is known from now on.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.entries?.get(key).filter(|value| !value.is_null())
    }

    /// A section within this one; empty if absent.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Section<'a>> {
        let value = self.value(key);
        Self::new(self.path_of(key), value)
    }

    /// The entries whose keys are the user's own names, in the order of the file; those asked for before are left out.
    pub(super) fn named_entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        let known = self.known.clone();
        self.entries.into_iter().flatten().filter(move |(key, _)| !known.contains(&key.as_str()))
    }

    /// An entry of [`named_entries`](Self::named_entries) as a section.
    pub(super) fn named_section(&self, name: &str, value: &'a Value) -> Result<Section<'a>> {
        Self::new(self.path_of(name), Some(value))
    }

    /// A text; a number or switch is taken as it is written.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match as_text(value) {
            Some(text) if text.trim().is_empty() => Err(self.error(key, "is empty", "")),
            Some(text) => Ok(Some(text)),
            None => Err(self.wrong(key, "a text", value)),
        }
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match as_texts(value) {
            Some(texts) => Ok(Some(texts)),
            None => Err(self.wrong(key, "a list of texts", value)),
        }
    }

    /// A switch: true, false, or their YAML 1.1 names as text.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        flag.map(Some).ok_or_else(|| self.wrong(key, "true or false", value))
    }

    /// A number within `range`.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = as_number(value).ok_or_else(|| self.wrong(key, "a number", value))?;
        self.within(key, number, range).map(Some)
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&mut self, key: &'static str, least: usize) -> Result<Option<usize>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        self.whole(key, value, least).map(Some)
    }

    /// A whole number of at least 1; 0 and negative numbers, like Python's -1, say "none".
    pub(super) fn limit(&mut self, key: &'static str) -> Result<Option<usize>> {
        match self.value(key) {
            Some(value) if as_number(value).is_some_and(|number| number <= 0.0) => Ok(None),
            Some(value) => self.whole(key, value, 1).map(Some),
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
            (true, true) => format!("between {low} and {high}"),
            (true, false) if low == f64::MIN_POSITIVE => "above 0".to_owned(),
            (true, false) => format!("at least {low}"),
            _ => format!("at most {high}"),
        };
        Err(self.error(key, format!("{number} is not {bound}"), ""))
    }

    /// One of the names of `T`.
    pub(super) fn choice<T: Choice>(&mut self, key: &'static str) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        // Python's YAML reads a bare `no` as false, and it is a name here (`eval_strategy: no`).
        let name = if value == &Value::Bool(false) { Some("no".to_owned()) } else { as_text(value) };
        let name = name.ok_or_else(|| self.wrong(key, "a name", value))?;
        if let Some((_, choice)) = T::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Some(*choice));
        }
        let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
        Err(self.error(key, format!("`{name}` is none of {}", names.join(", ")), did_you_mean(&name, &names)))
    }

    /// An error about keys of which one must be there; a key that looks like one is taken for a slip of the pen.
    pub(super) fn missing(&self, keys: &[&str], hint: &str) -> Error {
        let slip = |name: &str| keys.iter().any(|key| likeness(name, key) > 0.85);
        match self.named_entries().find(|(name, _)| slip(name)) {
            Some((name, _)) => self.error(name, "unknown key", did_you_mean(name, keys)),
            None => self.error(keys.first().copied().unwrap_or_default(), "is missing", hint),
        }
    }

    /// All keys have been asked for: any other is an error with the nearest known one.
    pub(super) fn finish(self) -> Result<()> {
        match self.named_entries().next() {
            Some((key, _)) => Err(self.error(key, "unknown key", did_you_mean(key, &self.known))),
            None => Ok(()),
        }
    }
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

/// What a value is, for messages.
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
