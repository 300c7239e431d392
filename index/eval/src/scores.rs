//! [`Scores`]: values by metric name, in the order of the reference.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// Metric names and values. The JSON form is an object with `null` for NaN.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    entries: Vec<(String, f64)>,
}

impl Scores {
    /// Value of a metric.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// Appends a metric.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.entries.push((name.into(), value));
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Number of metrics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are no metrics.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A copy with `name_` before every metric's name; unchanged if `name` is empty.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> Self {
        if name.is_empty() {
            return self.clone();
        }
        self.iter().map(|(metric, value)| (format!("{name}_{metric}"), value)).collect()
    }
}

impl FromIterator<(String, f64)> for Scores {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScoresVisitor;
        impl<'de> Visitor<'de> for ScoresVisitor {
            type Value = Scores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scores, A::Error> {
                let mut scores = Scores::default();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    scores.push(name, value.unwrap_or(f64::NAN));
                }
                Ok(scores)
            }
        }
        deserializer.deserialize_map(ScoresVisitor)
    }
}

/// Rounds to `decimals` decimals as Python's `round` does: to the decimal nearest to the binary value, halves to even.
/// A negative zero becomes zero.
#[must_use]
pub(crate) fn round_to(value: f64, decimals: usize) -> f64 {
    // formatting rounds the exact binary value; a multiplication by a power of ten would round twice
    format!("{value:.decimals$}").parse().unwrap_or(value) + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_the_order_and_turns_nan_into_null() {
        let scores: Scores = [("b".to_owned(), 0.5), ("a".to_owned(), f64::NAN)].into_iter().collect();
        let text = serde_json::to_string(&scores).unwrap();
        assert_eq!(text, r#"{"b":0.5,"a":null}"#);
        let read: Scores = serde_json::from_str(&text).unwrap();
        assert_eq!(read.get("b"), Some(0.5));
        assert!(read.get("a").unwrap().is_nan());
        assert_eq!(scores.prefixed("x").iter().next(), Some(("x_b", 0.5)));
        assert_eq!(scores.prefixed("").len(), 2);
    }

    #[test]
    fn rounding_is_pythons() {
        // round(2.675, 2), round(0.125, 2), round(0.375, 2), round(-1e-9, 6) + 0.0, round(1/3, 5)
        let cases = [(2.675, 2, 2.67), (0.125, 2, 0.12), (0.375, 2, 0.38), (-1e-9, 6, 0.0), (1. / 3., 5, 0.33333)];
        for (value, decimals, expected) in cases {
            assert_eq!(round_to(value, decimals).to_bits(), f64::to_bits(expected), "{value}");
        }
        assert!(round_to(f64::NAN, 5).is_nan());
    }
}
