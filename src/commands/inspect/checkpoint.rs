//! A checkpoint: its tensors, read from the headers.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use splade_files::{CheckpointFiles, CheckpointFormat, TensorInfo, read_tensor_list};

use super::Findings;
use crate::console::{Table, count, size};

/// Inspects a checkpoint by its file, or by the index of its shards.
pub(super) fn inspect(path: &Path, top: usize) -> Result<Findings> {
    let files = CheckpointFiles::open(path)?;
    let tensors = tensors(&files)?;
    let length = |path: &Path| Ok(std::fs::metadata(path).map_err(splade_files::Error::io(path))?.len());
    let bytes: u64 = files.all().map(length).sum::<Result<u64>>()?;
    let list: Vec<_> = tensors
        .iter()
        .map(|tensor| json!({"name": tensor.name, "dtype": tensor.dtype, "shape": tensor.shape, "bytes": tensor.bytes}))
        .collect();
    let mut found = Findings::new(json!({
        "kind": "checkpoint", "path": path, "bytes": bytes, "parameters": parameters(&tensors), "tensors": list,
    }));
    found.facts.add("checkpoint", path.display());
    found.facts.add("size", size(bytes));
    found.facts.add("parameters", count(parameters(&tensors)));
    found.facts.add("tensors", format_args!("{}: {}", tensors.len(), types(&tensors)));
    let mut largest: Vec<&TensorInfo> = tensors.iter().collect();
    largest.sort_by_key(|tensor| std::cmp::Reverse(tensor.bytes));
    let mut table = Table::new(["tensor", "type", "shape", "size"]).with_text(&[1, 2]);
    for tensor in largest.iter().take(top) {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        table.row([tensor.name.clone(), tensor.dtype.clone(), shape.join("×"), size(tensor.bytes)]);
    }
    found.section(if tensors.len() > top { "largest tensors" } else { "tensors" }, &table);
    Ok(found)
}

/// Number of parameters: the floats of all tensors. Buffers of other types do not count.
pub(super) fn parameters(tensors: &[TensorInfo]) -> u64 {
    tensors.iter().filter(|tensor| tensor.is_float()).map(TensorInfo::count).sum()
}

/// Counts tensors by type: `26 F32, 1 I64`.
pub(super) fn types(tensors: &[TensorInfo]) -> String {
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in tensors {
        *types.entry(&tensor.dtype).or_default() += 1;
    }
    let types: Vec<String> = types.iter().map(|(name, count)| format!("{count} {name}")).collect();
    types.join(", ")
}

/// Lists the tensors of all shards.
pub(super) fn tensors(files: &CheckpointFiles) -> Result<Vec<TensorInfo>> {
    files.tensors(|path| match CheckpointFormat::of(path) {
        CheckpointFormat::Safetensors => Ok(read_tensor_list(path)?),
        CheckpointFormat::Torch => torch(path),
    })
}

/// Lists the tensors of a torch file.
#[cfg(feature = "train")]
pub(super) fn torch(path: &Path) -> Result<Vec<TensorInfo>> {
    Ok(splade_trainer::model::read_torch_tensor_list(path)?)
}

#[cfg(not(feature = "train"))]
pub(super) fn torch(path: &Path) -> Result<Vec<TensorInfo>> {
    Err(crate::failure::bad_input(
        format!("{}: this program was built without support for torch files", path.display()),
        "build it with the feature train",
    ))
}
