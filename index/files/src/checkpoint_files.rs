//! [`CheckpointFiles`]: one or several files with the tensors of a checkpoint.
//!
//! Large checkpoints are split into shards: `model.safetensors.index.json` (or `pytorch_model.bin.index.json`) names the
//! file of every tensor in `weight_map`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::json::read_json;
use crate::{Error, Result, TensorInfo};

/// File format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// `model.safetensors`
    Safetensors,
    /// `pytorch_model.bin`
    Torch,
}

impl CheckpointFormat {
    /// Returns the format for a file name: `.safetensors`, otherwise torch's.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            Self::Safetensors
        } else {
            Self::Torch
        }
    }
}

/// Names of a checkpoint, whole or as an index of shards, by preference. The order is that of the transformers library.
pub const CHECKPOINT_NAMES: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// End of the name of an index of shards.
const INDEX: &str = ".index.json";

/// The files of a checkpoint.
///
/// ```
/// use splade_files::CheckpointFiles;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
/// write("model.safetensors.index.json", r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#);
/// write("model-1.safetensors", "");
/// write("model-2.safetensors", "");
/// let files = CheckpointFiles::find(folder.path())?;
/// assert_eq!(files.path().file_name().unwrap(), "model.safetensors.index.json");
/// assert_eq!(files.shards().len(), 2);
/// # Ok::<(), splade_files::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFiles {
    path: PathBuf,
    shards: Vec<PathBuf>,
    /// file name of every tensor; none for a checkpoint in one file
    index: Option<BTreeMap<String, PathBuf>>,
}

/// An index of shards.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl CheckpointFiles {
    /// Finds the checkpoint in a folder: the first of [`CHECKPOINT_NAMES`] that is there.
    ///
    /// # Errors
    /// A folder without a checkpoint; errors of [`open`](Self::open).
    pub fn find(folder: &Path) -> Result<Self> {
        let found = CHECKPOINT_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        match found {
            Some(path) => Self::open(&path),
            None => Err(Error::file(folder, "no model.safetensors or pytorch_model.bin, whole or in shards")),
        }
    }

    /// Opens a checkpoint by its file, or by the index of its shards.
    ///
    /// # Errors
    /// A file that is missing; an index that is broken or names a shard that is missing or outside its folder.
    pub fn open(path: &Path) -> Result<Self> {
        if !is_index(path) {
            return Ok(Self { path: path.to_owned(), shards: vec![path.to_owned()], index: None });
        }
        let files = shard_names(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let shards: BTreeSet<&String> = files.values().collect();
        if let Some(missing) = shards.iter().find(|name| !folder.join(name).is_file()) {
            let message = format!("the shard {missing} is missing from the folder");
            return Err(Error::file(path, message));
        }
        let shards = shards.into_iter().map(|name| folder.join(name)).collect();
        let index = files.into_iter().map(|(tensor, name)| (tensor, folder.join(name))).collect();
        Ok(Self { path: path.to_owned(), shards, index: Some(index) })
    }

    /// Path of the file or of the index of shards, which names the checkpoint in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files with tensors, by name.
    #[must_use]
    pub fn shards(&self) -> &[PathBuf] {
        &self.shards
    }

    /// The format of the files.
    #[must_use]
    pub fn format(&self) -> CheckpointFormat {
        self.shards.first().map_or(CheckpointFormat::Safetensors, |path| CheckpointFormat::of(path))
    }

    /// Every file of the checkpoint: the index first, if there is one, then the shards.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        let index = self.index.is_some().then_some(self.path.as_path());
        index.into_iter().chain(self.shards.iter().map(PathBuf::as_path))
    }

    /// Lists the tensors of every shard with `list`, in the order of the shards.
    ///
    /// # Errors
    /// Errors of `list`; errors of [`join`](Self::join) about the tensors.
    pub fn tensors<E: From<Error>>(
        &self,
        list: impl Fn(&Path) -> Result<Vec<TensorInfo>, E>,
    ) -> Result<Vec<TensorInfo>, E> {
        let named = |path: &Path| -> Result<_, E> {
            Ok(list(path)?.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect())
        };
        Ok(self.join(named)?.into_iter().map(|(_, tensor)| tensor).collect())
    }

    /// Reads every shard with `read` and joins the tensors in the order of the shards.
    ///
    /// A tensor in two shards is taken from the shard that the index names.
    ///
    /// # Errors
    /// Errors of `read`; a tensor of the index that its shard lacks; a tensor in two shards that the index does not list.
    pub fn join<T, E: From<Error>>(
        &self,
        read: impl Fn(&Path) -> Result<Vec<(String, T)>, E>,
    ) -> Result<Vec<(String, T)>, E> {
        let Some(index) = &self.index else { return read(&self.path) };
        let mut missing: BTreeMap<&str, &Path> =
            index.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_path())).collect();
        let mut unlisted: BTreeMap<String, &Path> = BTreeMap::new();
        let mut joined = Vec::new();
        for shard in &self.shards {
            for (name, tensor) in read(shard)? {
                match index.get(&name) {
                    Some(home) if home == shard => _ = missing.remove(name.as_str()),
                    Some(_) => continue,
                    None => {
                        if let Some(other) = unlisted.insert(name.clone(), shard) {
                            let message = format!(
                                "tensor {name} is not listed and stands in two shards, {} and {}",
                                file_name(other),
                                file_name(shard)
                            );
                            return Err(Error::file(&self.path, message).into());
                        }
                    }
                }
                joined.push((name, tensor));
            }
        }
        match missing.into_iter().next() {
            Some((tensor, shard)) => {
                let message = format!("tensor {tensor} is not in {}, the shard it is listed in", file_name(shard));
                Err(Error::file(&self.path, message).into())
            }
            None => Ok(joined),
        }
    }
}

/// Returns the name of the shard of every tensor, by the index at `path`.
///
/// # Errors
/// A file that is missing or broken, lists nothing, or names a file outside its folder.
pub fn shard_names(path: &Path) -> Result<BTreeMap<String, String>> {
    let Index { weight_map } = read_json(path)?;
    if weight_map.is_empty() {
        return Err(Error::file(path, "weight_map lists no tensor"));
    }
    for (tensor, name) in &weight_map {
        let mut parts = Path::new(name).components();
        let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        // also separators of other systems
        if !is_name || name.contains(['/', '\\']) || is_index(Path::new(name)) {
            return Err(Error::file(path, format!("the shard {name:?} of tensor {tensor} is no file of this folder")));
        }
    }
    Ok(weight_map)
}

/// True for the index of shards, by its name.
#[must_use]
pub fn is_index(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(INDEX))
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}
