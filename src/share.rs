//! [`Share`]: the documents of an input that a command takes for its shard, and the manifest of the shard.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use splade_core::hex;
use splade_files::{
    IdsDigest, Partition, Precision, Shard, ShardFile, ShardInput, ShardKind, ShardManifest, open_file,
};

use crate::cli::{DeviceChoice, NetworkArgs, ShardArgs};
use crate::digest::InputDigest;
use crate::encoders::{ONNX, QUERY_TABLE};
use crate::failure::bad_input;

/// Hint for an output that is not replaced.
const OVERWRITE: &str = "give --overwrite to replace it";

/// A shard, with a count of all documents of the input. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    shard: Shard,
    partition: Partition,
    read: Arc<Mutex<Read>>,
}

/// Documents read.
#[derive(Debug, Default)]
struct Read {
    input: InputDigest,
    documents: u64,
    /// of the documents of the shard
    ids: IdsDigest,
}

impl Share {
    /// The share of `--shard`; none without it.
    pub(crate) fn of(args: &ShardArgs) -> Option<Self> {
        let partition = if args.presplit { Partition::Parts } else { Partition::Ids };
        args.shard.map(|shard| Self { shard, partition, read: Arc::default() })
    }

    /// The same share before the first document.
    fn anew(&self) -> Self {
        Self { read: Arc::default(), ..self.clone() }
    }

    /// Counts a document of the input, which `add` adds to the digest. Returns true if the document is of the shard.
    pub(crate) fn take(&self, id: &str, add: impl FnOnce(&mut InputDigest)) -> bool {
        // counts stay valid if a thread panics with the lock
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut read.input);
        read.documents += 1;
        let is_ours = self.partition == Partition::Parts || self.shard.takes(id);
        if is_ours {
            read.ids.add(id);
        }
        is_ours
    }

    /// Documents of the input that were read.
    pub(crate) fn documents(&self) -> u64 {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).documents
    }

    /// The manifest after the last document of the input.
    pub(crate) fn manifest(&self, kind: ShardKind, settings: Map<String, Value>) -> ShardManifest {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        ShardManifest {
            kind,
            shard: self.shard,
            partition: self.partition,
            settings,
            documents: read.ids.count(),
            ids_digest: read.ids.text(),
            input: ShardInput { documents: read.documents, digest: read.input.text() },
            file: None,
        }
    }

    /// True if `output` holds this shard already. `read_all` reads the input with the share that it gets.
    ///
    /// # Errors
    /// An output that is another shard, of other settings or of another input; one that is damaged.
    pub(crate) fn is_complete(
        &self,
        output: &Path,
        kind: ShardKind,
        settings: &Map<String, Value>,
        read_all: impl FnOnce(Self) -> Result<()>,
    ) -> Result<bool> {
        if !output.exists() || !ShardManifest::path_of(output, kind).exists() {
            return Ok(false);
        }
        let found = ShardManifest::of_output(output)?;
        let other = |why: String| {
            bad_input(format!("{}: exists already, and is not the same shard: {why}", output.display()), OVERWRITE)
        };
        // settings first, since reading the input takes longer
        let before = self.anew().manifest(kind, settings.clone());
        let before = ShardManifest { input: found.input.clone(), ..before };
        if found.shard != self.shard {
            return Err(other(format!("it is shard {}", found.shard)));
        }
        if let Some(difference) = found.difference(&before) {
            return Err(other(difference));
        }
        let share = self.anew();
        read_all(share.clone())?;
        if share.manifest(kind, settings.clone()).input != found.input {
            return Err(other("it was made from another input".to_owned()));
        }
        if found.file.is_some() && found.file != Some(checksum(output)?) {
            return Err(bad_input(format!("{}: damaged: its checksum is wrong", output.display()), OVERWRITE));
        }
        tracing::info!("{}: shard {} is complete already", output.display(), self.shard);
        Ok(true)
    }
}

/// Length and checksum of a file.
fn checksum(path: &Path) -> Result<ShardFile> {
    let mut hash = Sha256::new();
    let bytes = std::io::copy(&mut open_file(path)?, &mut hash).map_err(splade_files::Error::io(path))?;
    Ok(ShardFile { bytes, sha256: hex(&hash.finalize()) })
}

/// Warns if the vectors of a shard depend on its other documents: the texts of a batch share the scales of an int8 file, and the
/// products of Candle and of other devices are added in an order that depends on the size of the batch.
pub(crate) fn warn_of_batches(args: &NetworkArgs, backend: &str) {
    let is_int8 = Precision::from(args.precision) == Precision::Int8;
    let is_cpu = matches!(args.device, DeviceChoice::Auto | DeviceChoice::Cpu);
    let cause = match backend {
        _ if args.batch_tokens == 1 || backend == QUERY_TABLE => return,
        ONNX if is_int8 => "of an int8 file",
        ONNX if is_cpu => return,
        ONNX => "of this device",
        _ => "of Candle",
    };
    tracing::warn!(
        "vectors {cause} depend on the other texts of their batch; --batch-tokens 1, here and without --shard, makes the \
         shards equal one run bit for bit"
    );
}
