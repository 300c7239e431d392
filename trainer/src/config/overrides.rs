//! Changes of the form `key.path=value` to a config before it is resolved.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Sets one key of a config from `key.path=value`.
///
/// The value is read as JSON where it is JSON (`0.1`, `true`, `null`, `["a", "b"]`) and as text otherwise. Sections
/// on the way that do not exist are made; an unknown key is an error of
/// [`TrainConfig::from_value`](crate::TrainConfig::from_value), not of this function.
///
/// ```
/// use serde_json::json;
/// use splade_trainer::apply_override;
///
/// let mut config = json!({"training": {"max_steps": -1}});
/// apply_override(&mut config, "training.max_steps=10")?;
/// apply_override(&mut config, "model.base_model=ltg/norbert3-xs")?;
/// assert_eq!(config, json!({"training": {"max_steps": 10}, "model": {"base_model": "ltg/norbert3-xs"}}));
/// # Ok::<(), splade_trainer::Error>(())
/// ```
///
/// # Errors
/// No `=`, an empty key, or a path that leads through a value which is not a section.
pub fn apply_override(config: &mut Value, assignment: &str) -> Result<()> {
    let malformed = || Error::invalid(format!("`{assignment}` is not of the form key.path=value"), "");
    let (path, text) = assignment.split_once('=').ok_or_else(malformed)?;
    let keys: Vec<&str> = path.trim().split('.').collect();
    let (last, sections) = keys.split_last().ok_or_else(malformed)?;
    if keys.iter().any(|key| key.is_empty()) {
        return Err(malformed());
    }
    let mut at = config;
    for (depth, key) in sections.iter().enumerate() {
        let entries = entries_of(at).ok_or_else(|| not_a_section(&keys[..depth]))?;
        at = entries.entry((*key).to_owned()).or_insert(Value::Null);
    }
    let entries = entries_of(at).ok_or_else(|| not_a_section(sections))?;
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    entries.insert((*last).to_owned(), value);
    Ok(())
}

/// The entries of a section; `null`, which is how YAML reads an empty one, becomes one.
fn entries_of(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

fn not_a_section(keys: &[&str]) -> Error {
    let key = if keys.is_empty() { "config".to_owned() } else { keys.join(".") };
    Error::config(key, "holds a value, not keys, so no key below it can be set", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_where_they_are_json() {
        let mut config = json!({"a": {"b": 1}, "empty": null});
        for assignment in
            ["a.b=2.0e-5", "a.c=true", "a.d=x=y", "a.e=[\"no\", \"da\"]", "empty.f=null", "new.deep.g=", "a.h=\"7\""]
        {
            apply_override(&mut config, assignment).unwrap();
        }
        let expected = json!({
            "a": {"b": 2.0e-5, "c": true, "d": "x=y", "e": ["no", "da"], "h": "7"},
            "empty": {"f": null}, "new": {"deep": {"g": ""}},
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let cases = [
            ("max_steps", "`max_steps` is not of the form key.path=value"),
            ("=3", "`=3` is not of the form key.path=value"),
            ("a..b=3", "`a..b=3` is not of the form key.path=value"),
            ("a.b.c=3", "a.b: holds a value, not keys, so no key below it can be set"),
        ];
        for (assignment, message) in cases {
            let error = apply_override(&mut json!({"a": {"b": 1}}), assignment).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind().is_bad_input()), (message, true));
        }
    }
}
