//! Lines of JSON with a vector by key, the form that Anserini, Pyserini and Seismic read.

use std::io::{self, Write};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use splade_core::SparseVector;

/// Writes the line `{"id": "d1", "content": "Oslo er …", "vector": {"12": 0.41}}`: dimensions ascending, each with the name
/// that `key` gives it. Weights are the shortest decimals that read back to the same f32.
///
/// ```
/// use splade_core::SparseVector;
/// use splade_files::write_weights_by_key;
///
/// let vector = SparseVector::from_pairs([(845, 1.9), (12, 0.41)])?;
/// let mut line = Vec::new();
/// write_weights_by_key(&mut line, "d1", "Oslo", &vector, |dim| dim.to_string())?;
/// assert_eq!(String::from_utf8(line)?, "{\"id\":\"d1\",\"content\":\"Oslo\",\"vector\":{\"12\":0.41,\"845\":1.9}}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Errors of `out`.
pub fn write_weights_by_key(
    out: &mut impl Write,
    id: &str,
    content: &str,
    vector: &SparseVector,
    key: impl Fn(u32) -> String,
) -> io::Result<()> {
    let entries: Vec<(u32, f32)> = vector.iter().collect();
    write_line(out, id, content, &entries, key)
}

/// Writes the line of [`write_weights_by_key`] with impacts, as [`Impacts::of`](crate::Impacts::of) returns them, in the place of
/// weights.
///
/// # Errors
/// Errors of `out`.
pub fn write_impacts_by_key(
    out: &mut impl Write,
    id: &str,
    content: &str,
    impacts: &[(u32, u32)],
    key: impl Fn(u32) -> String,
) -> io::Result<()> {
    write_line(out, id, content, impacts, key)
}

#[derive(Serialize)]
struct Line<'a, V> {
    id: &'a str,
    content: &'a str,
    vector: V,
}

/// Entries as a JSON object in their order, by the key of their dimension.
struct ByKey<'a, W, K> {
    entries: &'a [(u32, W)],
    key: K,
}

impl<W: Serialize, K: Fn(u32) -> String> Serialize for ByKey<'_, W, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (dim, weight) in self.entries {
            map.serialize_entry(&(self.key)(*dim), weight)?;
        }
        map.end()
    }
}

fn write_line<W: Serialize>(
    out: &mut impl Write,
    id: &str,
    content: &str,
    entries: &[(u32, W)],
    key: impl Fn(u32) -> String,
) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Line { id, content, vector: ByKey { entries, key } })?;
    out.write_all(b"\n")
}
