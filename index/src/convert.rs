//! Conversion of typed fields: values of a document in the type of their field, for engines that check types.

use serde_json::{Map, Value as Json};

use crate::fields::look_up;
use crate::filter::FilterValue;
use crate::{FieldSpec, Result};

impl FieldSpec {
    /// Replaces the values of this field in the document `id` by values of its type: texts, numbers, booleans; a date becomes its
    /// first instant, as a text of RFC 3339 in UTC. Lists stay lists.
    ///
    /// Returns false if a value is of another type: the field, which is inferred, is then removed from the document.
    ///
    /// ```
    /// use serde_json::json;
    /// use splade_index::{FieldKind, FieldSpec};
    ///
    /// let mut document = json!({"year": "2024", "on": "2024-02"});
    /// let fields = document.as_object_mut().unwrap();
    /// FieldSpec::new("year", FieldKind::Int)?.convert("d1", fields)?;
    /// FieldSpec::new("on", FieldKind::Date)?.convert("d1", fields)?;
    /// assert_eq!(document, json!({"year": 2024, "on": "2024-02-01T00:00:00Z"}));
    /// # Ok::<(), splade_index::Error>(())
    /// ```
    ///
    /// # Errors
    /// A value of another type of a field that is declared.
    pub fn convert(&self, id: &str, document: &mut Map<String, Json>) -> Result<bool> {
        let values = match self.values(document) {
            Ok(values) => values,
            Err(_) if self.inferred => {
                remove(document, &self.name);
                return Ok(false);
            }
            Err(value) => return Err(self.refuse(id, &value)),
        };
        let mut values = values.into_iter().map(|value| FilterValue::from(value).to_json());
        match slot(document, &self.name) {
            Some(list @ Json::Array(_)) => *list = Json::Array(values.collect()),
            Some(one) => *one = values.next().unwrap_or_default(),
            None => {}
        }
        Ok(true)
    }
}

/// The value that [`look_up`] finds, to be changed.
fn slot<'a>(document: &'a mut Map<String, Json>, name: &str) -> Option<&'a mut Json> {
    match step(document, name) {
        None => document.get_mut(name),
        Some(dot) => slot(document.get_mut(&name[..dot])?.as_object_mut()?, &name[dot + 1..]),
    }
}

/// Removes the value that [`look_up`] finds.
fn remove(document: &mut Map<String, Json>, name: &str) {
    match step(document, name) {
        None => drop(document.shift_remove(name)),
        Some(dot) => {
            if let Some(inner) = document.get_mut(&name[..dot]).and_then(Json::as_object_mut) {
                remove(inner, &name[dot + 1..]);
            }
        }
    }
}

/// Position of the dot that leads from `document` into the object with the value; none if `name` is a key.
fn step(document: &Map<String, Json>, name: &str) -> Option<usize> {
    if document.contains_key(name) {
        return None;
    }
    let leads = |dot: &usize| {
        let inner = document.get(&name[..*dot]).and_then(Json::as_object);
        inner.is_some_and(|inner| look_up(inner, &name[dot + 1..]).is_some())
    };
    name.match_indices('.').map(|(dot, _)| dot).find(leads)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::FieldKind;

    #[test]
    fn values_are_replaced_where_they_are_found() {
        let cases = [
            ("a", FieldKind::Int, json!({"a": "7"}), json!({"a": 7})),
            ("a", FieldKind::Keyword, json!({"a": [1, null, true]}), json!({"a": ["1", "true"]})),
            ("a.b", FieldKind::Float, json!({"a": {"b": "1.5"}}), json!({"a": {"b": 1.5}})),
            ("a.b", FieldKind::Bool, json!({"a.b": "true", "a": {"b": 1}}), json!({"a.b": true, "a": {"b": 1}})),
            ("a.b.c", FieldKind::Int, json!({"a": 1, "a.b": {"c": "2"}}), json!({"a": 1, "a.b": {"c": 2}})),
            ("a", FieldKind::Date, json!({"a": "2020-02-29T12:30:00+02:00"}), json!({"a": "2020-02-29T10:30:00Z"})),
            ("a", FieldKind::Int, json!({"a": null, "b": 1}), json!({"a": null, "b": 1})),
            ("a", FieldKind::Int, json!({"b": 1}), json!({"b": 1})),
        ];
        for (name, kind, mut document, expected) in cases {
            let field = FieldSpec::new(name, kind).unwrap();
            assert!(field.convert("d", document.as_object_mut().unwrap()).unwrap());
            assert_eq!(document, expected, "{name}");
        }
    }

    #[test]
    fn values_of_another_type_are_removed_or_refused() {
        let mut inferred = FieldSpec::new("a.b", FieldKind::Int).unwrap();
        inferred.inferred = true;
        let mut document = json!({"a": {"b": "x", "c": 1}});
        assert!(!inferred.convert("d", document.as_object_mut().unwrap()).unwrap());
        assert_eq!(document, json!({"a": {"c": 1}}));
        let declared = FieldSpec::new("a", FieldKind::Int).unwrap();
        let error = declared.convert("d7", json!({"a": "x"}).as_object_mut().unwrap()).unwrap_err();
        assert!(error.to_string().contains("d7"), "{error}");
    }
}
