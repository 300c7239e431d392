//! Parsers of the values of flags.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use splade_core::HeadMode;

/// Parser of head modes, with their names for help and errors.
pub(super) fn head_mode() -> impl TypedValueParser<Value = HeadMode> {
    PossibleValuesParser::new(HeadMode::ALL.map(|(_, name)| name)).try_map(|name| name.parse::<HeadMode>())
}

/// Least memory of `--memory`: below it, segments are very small.
const LEAST_MEMORY: usize = 32_000_000;

/// Parses the memory of a command: `200MB`, `4GB`, `1.5GB`.
pub(super) fn size(text: &str) -> Result<usize, String> {
    match size_of(text)? {
        LEAST_MEMORY.. => size_of(text),
        _ => Err(format!("expected at least {}MB", LEAST_MEMORY / 1_000_000)),
    }
}

/// Parses a number of bytes above 0: `200MB`, `4GB`, `1.5GB`.
pub(super) fn size_of(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let scale = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1e0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        _ => return Err("expected a size, like 200MB or 4GB".to_owned()),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number * scale >= 1.0 && number * scale <= 1e15 => Ok((number * scale) as usize),
        _ => Err("expected a size, like 200MB or 4GB".to_owned()),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

#[cfg(feature = "train")]
pub(super) fn positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0, like 1e-4".to_owned()),
    }
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
