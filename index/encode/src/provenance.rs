//! [`Provenance`]: whether an ONNX file was exported from the checkpoint beside it.
//!
//! Weights may be replaced after an export: then the file gives the vectors of the old ones, under the name of the new.
//! Files of this program state the fingerprint of the network they were exported from ([`metadata::NETWORK`]). In other
//! files, small tensors are compared: exporters keep names and values of biases and norms, and training changes all of them.

use std::collections::HashMap;
use std::path::Path;

use splade_files::{CheckpointFormat, ModelDir, read_small_tensors};

use crate::onnx_file::{OnnxFile, Stored, not_onnx};
use crate::{Result, metadata};

/// Relation of an ONNX file to the checkpoint of its model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// the folder has no checkpoint: nothing can disagree
    NoCheckpoint,
    /// the file states the fingerprint of the checkpoint
    Same,
    /// the file states no fingerprint; so many of its small tensors are in the checkpoint, with the same values
    Alike(usize),
    /// the file states no fingerprint and has no small tensor in common with the checkpoint
    Unknown,
    /// exported from another checkpoint, and how that is known
    Other(String),
}

/// Compares an ONNX file with the checkpoint of its model folder.
///
/// # Errors
/// Files that cannot be read.
pub fn provenance(file: &Path, model: &ModelDir) -> Result<Provenance> {
    let Some(fingerprint) = model.network_fingerprint()? else { return Ok(Provenance::NoCheckpoint) };
    let mut onnx = OnnxFile::open(file)?;
    let stated = onnx.metadata().map_err(|error| not_onnx(file, error))?.remove(metadata::NETWORK);
    match stated {
        Some(stated) if stated == fingerprint => Ok(Provenance::Same),
        Some(stated) => {
            let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
            let (stated, fingerprint) = (short(&stated), short(&fingerprint));
            Ok(Provenance::Other(format!("it states the fingerprint {stated}, the checkpoint has {fingerprint}")))
        }
        None => compare_tensors(file, onnx, model),
    }
}

/// Most numbers of a tensor that is compared: biases and norms, no matrices.
const SMALL: u64 = 1 << 18;
/// Relative difference of two numbers of which one was rounded to 8 bits, as in bf16.
const ROUNDED: f32 = 1.0 / 256.0;

fn compare_tensors(file: &Path, mut onnx: OnnxFile, model: &ModelDir) -> Result<Provenance> {
    let checkpoint = model.checkpoint()?;
    let mut tensors = Vec::new();
    for shard in checkpoint.shards() {
        if CheckpointFormat::of(shard) != CheckpointFormat::Safetensors {
            return Ok(Provenance::Unknown);
        }
        tensors.extend(read_small_tensors(shard, SMALL)?);
    }
    let stored = onnx.tensors().map_err(|error| not_onnx(file, error))?;
    let by_name: HashMap<&str, &Stored> = stored.iter().map(|tensor| (tensor.header.name.as_str(), tensor)).collect();
    let (mut compared, mut differing) = (0, Vec::new());
    for (name, values) in tensors {
        // values in another file, or of another type, are left out
        let Some(stored) = by_name.get(name.as_str()).filter(|stored| stored.header.dims == [values.len() as i64])
        else {
            continue;
        };
        let Some(found) = onnx.floats(stored).map_err(|error| not_onnx(file, error))? else { continue };
        compared += 1;
        if !found.iter().zip(&values).all(|(a, b)| (a - b).abs() <= ROUNDED * b.abs() + f32::EPSILON) {
            differing.push(name);
        }
    }
    // an exporter may have folded one tensor into another; training changes all of them
    if 2 * differing.len() > compared {
        let (count, first) = (differing.len(), &differing[0]);
        return Ok(Provenance::Other(format!("{count} of {compared} tensors of one name differ, {first} among them")));
    }
    Ok(if compared == 0 { Provenance::Unknown } else { Provenance::Alike(compared) })
}
