//! JSON files, whole: errors name the file, and what is written appears complete or not at all.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::read::read_file;
use crate::{AtomicFile, Error, Result};

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_file(path)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::file(path, error.to_string()))
}

/// Reads a JSON file that may be missing.
pub(crate) fn read_json_or_default<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    if path.is_file() { read_json(path) } else { Ok(T::default()) }
}

/// Writes a JSON file, indented, with a line end.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::file(path, error.to_string()))?;
    text.push(b'\n');
    AtomicFile::write_whole(path, &text)
}
