//! [`ShardManifest`]: the settings, input and content of a shard, in a file of its own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Shard;
use crate::{AtomicFile, Error, Result, read_file};

/// File name of the manifest in an index folder. Beside a vector file it is the name of that file with `.` and this.
pub const SHARD_FILE: &str = "shard.json";
const FORMAT: &str = "splade-shard";
const VERSION: u64 = 1;
/// Numbers of missing shards that a message names.
const NAMED: usize = 5;

/// Kind of a shard's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardKind {
    /// a vector file
    Vectors,
    /// an index folder
    Index,
}

/// Rule that gives each document its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    /// every shard reads the whole input, and takes the ids of [`Shard::takes`]
    Ids,
    /// the input of each shard is a part; the parts in the order of their numbers are the whole input
    Parts,
}

/// Input that a shard read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInput {
    /// documents, those of other shards too
    pub documents: u64,
    /// digest of them, in their order; any text, compared by equality
    pub digest: String,
}

/// Length and checksum of a vector file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardFile {
    /// length
    pub bytes: u64,
    /// SHA-256, in hexadecimal
    pub sha256: String,
}

/// What a shard was made from, and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardManifest {
    /// kind of output
    pub kind: ShardKind,
    /// number of the shard, and of all
    pub shard: Shard,
    /// rule that gave the shard its documents
    pub partition: Partition,
    /// everything that decides the vectors, by name; compared by equality
    pub settings: Map<String, Value>,
    /// documents in the shard
    pub documents: u64,
    /// [`IdsDigest`](super::IdsDigest) of their ids
    pub ids_digest: String,
    /// the input
    pub input: ShardInput,
    /// the vector file; none for an index, whose files carry checksums
    pub file: Option<ShardFile>,
}

impl ShardManifest {
    /// Path of the manifest of an output: in the folder of an index, beside a vector file.
    #[must_use]
    pub fn path_of(output: &Path, kind: ShardKind) -> PathBuf {
        match kind {
            ShardKind::Index => output.join(SHARD_FILE),
            ShardKind::Vectors => {
                let mut name = output.file_name().unwrap_or_default().to_owned();
                name.push(".");
                name.push(SHARD_FILE);
                output.with_file_name(name)
            }
        }
    }

    /// Reads the manifest of an output, a folder or a file.
    ///
    /// # Errors
    /// No manifest, one of another version, one that is damaged.
    pub fn of_output(output: &Path) -> Result<Self> {
        let kind = if output.is_dir() { ShardKind::Index } else { ShardKind::Vectors };
        let path = Self::path_of(output, kind);
        if !path.exists() {
            return Err(Error::file(output, format!("no shard: there is no {}", path.display())));
        }
        let manifest = Self::read(&path)?;
        if manifest.kind != kind {
            return Err(Error::file(path, "the manifest of another kind of output"));
        }
        if !output.exists() {
            return Err(Error::file(output, "missing, and its manifest is there: its run was interrupted at the end"));
        }
        Ok(manifest)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// A file that cannot be read, is no manifest, or has another version.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error: serde_json::Error| Error::file(path, format!("not a manifest of a shard: {error}"));
        let bytes = read_file(path)?;
        let kind: FormatVersion = serde_json::from_slice(&bytes).map_err(failed)?;
        if kind.format != FORMAT {
            return Err(Error::file(path, format!("format {:?}, expected {FORMAT:?}", kind.format)));
        }
        if kind.version != VERSION {
            let message = format!("version {} of the manifest, this program reads version {VERSION}", kind.version);
            return Err(Error::file(path, message));
        }
        let json: ManifestJson = serde_json::from_slice(&bytes).map_err(failed)?;
        let shard =
            json.shard.parse().map_err(|error| Error::file(path, format!("shard {:?}: {error}", json.shard)))?;
        let ManifestJson { kind, partition, settings, documents, ids_digest, input, file, .. } = json;
        Ok(Self { kind, shard, partition, settings, documents, ids_digest, input, file })
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let Self { kind, shard, partition, settings, documents, ids_digest, input, file } = self.clone();
        let (format, version, shard) = (FORMAT.to_owned(), VERSION, shard.to_string());
        let json =
            ManifestJson { format, version, kind, shard, partition, settings, documents, ids_digest, input, file };
        let text = serde_json::to_string_pretty(&json).map_err(|error| Error::file(path, error.to_string()))?;
        AtomicFile::write_whole(path, (text + "\n").as_bytes())
    }

    /// The first setting that differs from `other`, with both values.
    #[must_use]
    pub fn other_setting<'m>(&'m self, other: &'m Self) -> Option<(&'m str, &'m Value, &'m Value)> {
        let names = self.settings.keys().chain(other.settings.keys());
        let value = |manifest: &'m Self, name: &str| manifest.settings.get(name).unwrap_or(&Value::Null);
        let mut values = names.map(|name| (name.as_str(), value(self, name), value(other, name)));
        values.find(|(_, ours, theirs)| ours != theirs)
    }

    /// The difference to `other`, in one clause; none if both are shards of one job, perhaps with the same number.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.kind != other.kind {
            return Some("one holds vectors, the other is an index".to_owned());
        }
        if self.shard.count() != other.shard.count() {
            return Some(format!("shard {} and shard {}", self.shard, other.shard));
        }
        if self.partition != other.partition {
            return Some("one has its documents by their ids, the other is a part of the input".to_owned());
        }
        if let Some((name, ours, theirs)) = self.other_setting(other) {
            return Some(format!("{name} is {} and {}", short(ours), short(theirs)));
        }
        (self.partition == Partition::Ids && self.input != other.input).then(|| {
            let [ours, theirs] = [&self.input, &other.input].map(|input| input.documents);
            match ours == theirs {
                true => "their inputs have other documents".to_owned(),
                false => format!("their inputs have {ours} and {theirs} documents"),
            }
        })
    }
}

/// A value for a message: of a long text its start.
fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Sorts shards by their numbers, and checks that they are all shards of one job.
///
/// # Errors
/// A shard of another job, two shards of one number, a missing shard: each by its name; shards that do not hold all documents of
/// their input together.
pub fn complete_set(mut shards: Vec<(PathBuf, ShardManifest)>) -> Result<Vec<(PathBuf, ShardManifest)>> {
    let Some((first_path, first)) = shards.first() else { return Err(Error::invalid("no shard is given", "")) };
    if let Some((path, difference)) = shards.iter().find_map(|(path, shard)| Some((path, first.difference(shard)?))) {
        return Err(Error::file(first_path, format!("does not belong to {}: {difference}", path.display())));
    }
    let count = first.shard.count();
    shards.sort_by_key(|(_, manifest)| manifest.shard.number());
    let double = shards.windows(2).find(|pair| pair[0].1.shard == pair[1].1.shard);
    if let Some([(first, manifest), (second, _)]) = double {
        return Err(Error::file(second, format!("shard {}, as is {}", manifest.shard, first.display())));
    }
    let present: Vec<u32> = shards.iter().map(|(_, manifest)| manifest.shard.number()).collect();
    let missing: Vec<u32> = (0..count).filter(|number| present.binary_search(number).is_err()).collect();
    if !missing.is_empty() {
        let named: Vec<String> = missing.iter().take(NAMED).map(|number| format!("{number}/{count}")).collect();
        let more = if missing.len() > NAMED { format!(" and {} more", missing.len() - NAMED) } else { String::new() };
        let message = format!("missing shards: {}{more}", named.join(", "));
        return Err(Error::invalid(message, "make them with --shard, and name all shards"));
    }
    let (path, first) = &shards[0];
    let documents: u64 = shards.iter().map(|(_, manifest)| manifest.documents).sum();
    if first.partition == Partition::Ids && documents != first.input.documents {
        let message = format!("the shards hold {documents} documents, and their input has {}", first.input.documents);
        return Err(Error::file(path, message));
    }
    Ok(shards)
}

/// Keys that a manifest has in every version.
#[derive(Deserialize)]
struct FormatVersion {
    format: String,
    version: u64,
}

/// The file, version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestJson {
    format: String,
    version: u64,
    kind: ShardKind,
    shard: String,
    partition: Partition,
    settings: Map<String, Value>,
    documents: u64,
    ids_digest: String,
    input: ShardInput,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<ShardFile>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(number: u32, documents: u64) -> ShardManifest {
        ShardManifest {
            kind: ShardKind::Vectors,
            shard: Shard::new(number, 3).unwrap(),
            partition: Partition::Ids,
            settings: serde_json::json!({"model": "a", "max_length": 96}).as_object().unwrap().clone(),
            documents,
            ids_digest: "00".into(),
            input: ShardInput { documents: 6, digest: "d".into() },
            file: Some(ShardFile { bytes: 1, sha256: "f".into() }),
        }
    }

    fn set(shards: impl IntoIterator<Item = ShardManifest>) -> Result<Vec<u32>> {
        let named = shards.into_iter().enumerate().map(|(at, shard)| (PathBuf::from(format!("s{at}")), shard));
        Ok(complete_set(named.collect())?.iter().map(|(_, shard)| shard.shard.number()).collect())
    }

    #[test]
    fn a_manifest_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.jsonl.shard.json");
        manifest(1, 2).write(&path).unwrap();
        assert_eq!(ShardManifest::read(&path).unwrap(), manifest(1, 2));
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, expected) in [
            ("\"version\": 1", "\"version\": 2", "version 2 of the manifest"),
            ("splade-shard", "other", "format \"other\""),
            ("\"1/3\"", "\"3/3\"", "from 0 to 2"),
            ("\"documents\": 2", "\"n\": 2", "unknown field `n`"),
            ("{", "[", "not a manifest"),
        ] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = ShardManifest::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_complete_sets_of_one_job_are_taken() {
        assert_eq!(set([manifest(2, 1), manifest(0, 2), manifest(1, 3)]).unwrap(), [0, 1, 2]);
        let other_length = |mut shard: ShardManifest| {
            shard.settings.insert("max_length".into(), 64.into());
            shard
        };
        let other_input =
            |documents| ShardManifest { input: ShardInput { documents, digest: "e".into() }, ..manifest(1, 3) };
        let index = ShardManifest { kind: ShardKind::Index, file: None, ..manifest(1, 3) };
        let of_four = ShardManifest { shard: Shard::new(1, 4).unwrap(), ..manifest(1, 3) };
        let part = ShardManifest { partition: Partition::Parts, ..manifest(1, 3) };
        for (shards, expected) in [
            (vec![], "no shard"),
            (vec![manifest(0, 2), manifest(2, 1)], "missing shards: 1/3"),
            (vec![manifest(0, 2), manifest(1, 3), manifest(0, 2)], "s2: shard 0/3, as is s0"),
            (vec![manifest(0, 2), other_length(manifest(1, 3)), manifest(2, 1)], "s1: max_length is 96 and 64"),
            (vec![manifest(0, 2), other_input(7), manifest(2, 1)], "6 and 7 documents"),
            (vec![manifest(0, 2), other_input(6), manifest(2, 1)], "other documents"),
            (vec![manifest(0, 2), index, manifest(2, 1)], "an index"),
            (vec![manifest(0, 2), of_four, manifest(2, 1)], "shard 0/3 and shard 1/4"),
            (vec![manifest(0, 2), part, manifest(2, 1)], "a part of the input"),
            (vec![manifest(0, 2), manifest(1, 2), manifest(2, 1)], "hold 5 documents, and their input has 6"),
        ] {
            let error = set(shards).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
