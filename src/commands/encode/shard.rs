//! [`ShardOutput`]: the manifest beside the vector file of a shard.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use splade_core::hex;
use splade_files::{ModelDir, Precision, ShardFile, ShardKind, ShardManifest};

use crate::cli::{EncodeArgs, Role, VectorFormat};
use crate::failure::bad_input;
use crate::share::Share;

/// True if a manifest stands beside the vector file.
pub(super) fn has_manifest(path: &Path) -> bool {
    ShardManifest::path_of(path, ShardKind::Vectors).exists()
}

/// Checksum of a shard's vector file while it is written.
pub(super) struct ShardOutput {
    share: Share,
    path: PathBuf,
    settings: Map<String, Value>,
    hash: Sha256,
    bytes: u64,
}

impl ShardOutput {
    pub(super) fn new(share: Share, model: &ModelDir, args: &EncodeArgs, backend: &str) -> Result<Self> {
        let path = args.file().ok_or_else(|| {
            bad_input("--shard writes a manifest beside the vector file, so it needs a file", "give --output FILE")
        })?;
        let settings = settings(model, args, backend)?;
        Ok(Self { share, path: path.to_owned(), settings, hash: Sha256::new(), bytes: 0 })
    }

    /// True if the file is this shard already: [`Share::is_complete`].
    pub(super) fn is_complete(&self, read_all: impl FnOnce(Share) -> Result<()>) -> Result<bool> {
        self.share.is_complete(&self.path, ShardKind::Vectors, &self.settings, read_all)
    }

    /// Counts a line that is written.
    pub(super) fn add(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.bytes += line.len() as u64;
    }

    /// Texts of the input that were read.
    pub(super) fn documents_read(&self) -> u64 {
        self.share.documents()
    }

    /// Writes the manifest.
    ///
    /// Before the file: a process killed between the two leaves a manifest without a file, which the same command replaces, and
    /// never a file of which nobody knows that it is complete.
    pub(super) fn write_manifest(self) -> Result<()> {
        let file = Some(ShardFile { bytes: self.bytes, sha256: hex(&self.hash.finalize()) });
        let manifest = ShardManifest { file, ..self.share.manifest(ShardKind::Vectors, self.settings) };
        Ok(manifest.write(&ShardManifest::path_of(&self.path, ShardKind::Vectors))?)
    }
}

/// Everything that decides the lines, by name.
fn settings(model: &ModelDir, args: &EncodeArgs, backend: &str) -> Result<Map<String, Value>> {
    let length = model.vocabulary(args.network.max_length.map(|length| length as usize))?.max_length();
    let settings = json!({
        "model": model.fingerprint()?,
        "role": match args.role {
            Role::Query => "query",
            Role::Document => "document",
        },
        "backend": backend,
        "precision": Precision::from(args.network.precision).to_string(),
        "max_length": (length < usize::MAX).then_some(length),
        "pruning": args.pruning()?.to_string(),
        "drop_special_terms": args.network.drop_special_terms,
        "format": match args.format {
            VectorFormat::Indices => "indices",
            VectorFormat::Tokens => "tokens",
        },
    });
    Ok(settings.as_object().cloned().unwrap_or_default())
}
