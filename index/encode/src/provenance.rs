//! [`Provenance`]: relation of an ONNX file to the checkpoint of its model folder.
//!
//! If weights are replaced after an export, the file still gives vectors of the old weights. Files of this program state
//! the fingerprint of the network they were exported from ([`metadata::NETWORK`]). For other files, small tensors are
//! compared: exporters keep names and values of biases and norms, and training changes all of them.

use std::collections::HashMap;
use std::path::Path;

use splade_files::{CheckpointFiles, CheckpointFormat, ModelDir, read_small_tensors};

use crate::onnx_file::{OnnxFile, Stored, not_onnx};
use crate::{Result, metadata};

/// Relation of an ONNX file to the checkpoint of its model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// the folder has no checkpoint to compare with
    NoCheckpoint,
    /// the file states the fingerprint of the checkpoint
    Same,
    /// the file states no fingerprint; the checkpoint has this number of its small tensors, with equal values
    Alike(usize),
    /// the file states no fingerprint, and none of its small tensors could be compared
    Unknown,
    /// exported from another checkpoint, with the reason
    Other(String),
}

/// Names and values of vectors of a checkpoint.
type NamedVectors = Vec<(String, Vec<f32>)>;

impl Provenance {
    /// Compares an ONNX file with the checkpoint of its model folder.
    ///
    /// This crate reads safetensors only. `read_torch` reads the vectors of a torch checkpoint, and returns none where it
    /// cannot; it is called only if they are needed.
    ///
    /// # Errors
    /// Files that cannot be read; errors of `read_torch`.
    pub fn of(
        file: &Path,
        model: &ModelDir,
        read_torch: impl FnOnce(&CheckpointFiles) -> Result<Option<NamedVectors>>,
    ) -> Result<Self> {
        let Some(fingerprint) = model.network_fingerprint()? else { return Ok(Self::NoCheckpoint) };
        let mut onnx = OnnxFile::open(file)?;
        let stated = onnx.metadata().map_err(|error| not_onnx(file, error))?.remove(metadata::NETWORK);
        match stated {
            Some(stated) if stated == fingerprint => Ok(Self::Same),
            Some(stated) => {
                let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
                let (stated, fingerprint) = (short(&stated), short(&fingerprint));
                Ok(Self::Other(format!("it states the fingerprint {stated}, the checkpoint has {fingerprint}")))
            }
            None => match small_tensors(&model.checkpoint()?, read_torch)? {
                Some(tensors) => compare_tensors(file, onnx, tensors),
                None => Ok(Self::Unknown),
            },
        }
    }
}

/// Compares an ONNX file with the checkpoint of its model folder; a torch checkpoint only by its fingerprint.
///
/// # Errors
/// Files that cannot be read.
pub fn provenance(file: &Path, model: &ModelDir) -> Result<Provenance> {
    Provenance::of(file, model, |_| Ok(None))
}

/// Largest number of values of a tensor that is compared: biases and norms have fewer, matrices have more.
const SMALL: u64 = 1 << 18;
/// Relative difference of two numbers of which one was rounded to 8 bits, as in bf16.
const ROUNDED: f32 = 1.0 / 256.0;

/// Small tensors of a checkpoint; none if it is a torch checkpoint that `read_torch` cannot read.
fn small_tensors(
    checkpoint: &CheckpointFiles,
    read_torch: impl FnOnce(&CheckpointFiles) -> Result<Option<NamedVectors>>,
) -> Result<Option<NamedVectors>> {
    if checkpoint.format() == CheckpointFormat::Torch {
        return read_torch(checkpoint);
    }
    let mut tensors = Vec::new();
    for shard in checkpoint.shards() {
        tensors.extend(read_small_tensors(shard, SMALL)?);
    }
    Ok(Some(tensors))
}

fn compare_tensors(file: &Path, mut onnx: OnnxFile, tensors: NamedVectors) -> Result<Provenance> {
    let stored = onnx.tensors().map_err(|error| not_onnx(file, error))?;
    let by_name: HashMap<&str, &Stored> = stored.iter().map(|tensor| (tensor.header.name.as_str(), tensor)).collect();
    let (mut compared, mut differing) = (0, Vec::new());
    for (name, values) in tensors {
        // tensors with values in another file, or of another type, are left out
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
    // training changes all tensors, but an exporter may have folded one of them into another
    if 2 * differing.len() > compared {
        let (count, first) = (differing.len(), &differing[0]);
        return Ok(Provenance::Other(format!(
            "{count} of {compared} tensors with equal names differ, for instance {first}"
        )));
    }
    Ok(if compared == 0 { Provenance::Unknown } else { Provenance::Alike(compared) })
}
