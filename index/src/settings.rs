//! What an index was made for, and `manifest.json`, which says it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::analyzer::{AnalyzerVersion, Language};
use crate::{Error, Result};
use splade_core::segment::Identity;
use splade_core::segment::{ForwardPrecision, RowLayout};
use splade_files::write_json;

/// The manifest of an index folder.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
const FORMAT: &str = "splade-index";
const VERSION: u64 = 1;

/// What an index is made for; fixed when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSettings {
    /// number of terms: dimensions of the vectors
    pub vocabulary_size: u32,
    /// of the document encoder's weights; any text, compared by equality
    pub model_fingerprint: String,
    /// of the tokenizer; any text, compared by equality
    pub tokenizer_fingerprint: String,
    /// the stemmer of BM25
    #[serde(default)]
    pub language: Language,
    /// rules by which BM25 splits texts into words
    #[serde(default = "AnalyzerVersion::of_old_indexes")]
    pub analyzer: AnalyzerVersion,
    /// how exact weights are kept
    #[serde(default)]
    pub forward: ForwardPrecision,
}

impl IndexSettings {
    /// Settings without a stemmer, with exact weights in f32 and the newest analyzer.
    #[must_use]
    pub fn new(vocabulary_size: u32, model_fingerprint: &str, tokenizer_fingerprint: &str) -> Self {
        Self {
            vocabulary_size,
            model_fingerprint: model_fingerprint.into(),
            tokenizer_fingerprint: tokenizer_fingerprint.into(),
            language: Language::None,
            analyzer: AnalyzerVersion::NEWEST,
            forward: ForwardPrecision::F32,
        }
    }

    /// What every segment file of the index repeats, so that a file from elsewhere is noticed.
    pub(crate) fn identity(&self) -> Identity {
        let mut hasher = Sha256::new();
        for text in [&self.model_fingerprint, &self.tokenizer_fingerprint] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        Identity {
            vocabulary_size: self.vocabulary_size,
            fingerprint: hasher.finalize().into(),
            layout: RowLayout::new(self.vocabulary_size, self.forward),
        }
    }

    /// Writes the manifest of the index folder `dir`.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let manifest = Manifest { format: FORMAT.into(), version: VERSION, settings: self.clone() };
        Ok(write_json(&dir.join(MANIFEST_FILE), &manifest)?)
    }

    /// Reads the manifest of the index folder `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST_FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::file(dir, format!("no index there: it has no {MANIFEST_FILE}")),
            _ => Error::io(&path)(error),
        })?;
        let kind: Kind = serde_json::from_str(&text).map_err(|error| Error::file(&path, error.to_string()))?;
        if kind.format != FORMAT {
            return Err(Error::file(&path, format!("format {:?}, expected {FORMAT:?}", kind.format)));
        }
        if kind.version != VERSION {
            let newer = if kind.version > VERSION { ": the index was written by a newer program" } else { "" };
            let message =
                format!("version {} of the index format, this program reads version {VERSION}{newer}", kind.version);
            return Err(Error::file(&path, message));
        }
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| Error::file(&path, error.to_string()))?;
        Ok(manifest.settings)
    }
}

/// The part of a manifest that every version has.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u64,
}

/// `manifest.json`, version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    version: u64,
    settings: IndexSettings,
}
