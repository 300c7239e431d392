//! Values of typed fields for engines that compare JSON: dates are texts whose order is that in time.

use serde_json::{Map, Value as Json};
use splade_index::{FieldKind, FieldSpec, FilterValue};

/// Digits of the fraction of a second.
const FRACTION_DIGITS: usize = 9;

/// The values of the typed fields of a document, by the name of the field: a value, or a list of several.
pub(super) fn values(document: &Map<String, Json>, fields: &[FieldSpec]) -> Map<String, Json> {
    let mut typed = Map::new();
    for field in fields {
        let mut values = Vec::new();
        collect(field.find(document), field.kind, &mut values);
        match values.len() {
            0 => {}
            1 => drop(typed.insert(field.name.clone(), values.remove(0))),
            _ => drop(typed.insert(field.name.clone(), Json::Array(values))),
        }
    }
    typed
}

/// The bound of a range, in the form of [`values`].
pub(super) fn sortable(value: &FilterValue) -> Json {
    match (value, value.to_json()) {
        (FilterValue::Date(_), Json::String(text)) => Json::from(sortable_date(&text)),
        (_, value) => value,
    }
}

fn collect(value: Option<&Json>, kind: FieldKind, values: &mut Vec<Json>) {
    match value {
        None | Some(Json::Null | Json::Object(_)) => {}
        Some(Json::Array(list)) => list.iter().for_each(|value| collect(Some(value), kind, values)),
        Some(Json::String(text)) if kind == FieldKind::Date => values.push(Json::from(sortable_date(text))),
        Some(value) => values.push(value.clone()),
    }
}

/// A date of RFC 3339 in UTC, always with nine digits of the fraction of a second.
fn sortable_date(text: &str) -> String {
    let Some(instant) = text.strip_suffix('Z') else { return text.to_owned() };
    let (seconds, fraction) = instant.split_once('.').unwrap_or((instant, ""));
    format!("{seconds}.{fraction:0<FRACTION_DIGITS$}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_ordered_as_texts() {
        let fields = FieldSpec::parse_list("on:date,a.b:int,c:bool").unwrap();
        let document = serde_json::json!({
            "on": ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.25Z"], "a": {"b": 1}, "c": null, "d": 5,
        });
        let expected = serde_json::json!({
            "on": ["2024-01-02T03:04:05.000000000Z", "2024-01-02T03:04:05.250000000Z"], "a.b": 1,
        });
        assert_eq!(Json::Object(values(document.as_object().unwrap(), &fields)), expected);
        assert_eq!(sortable(&FilterValue::Date(0)), "1970-01-01T00:00:00.000000000Z");
    }
}
