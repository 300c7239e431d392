//! [`IndexSettings`], and `manifest.json`, which stores them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::analyzer::{AnalyzerVersion, Language};
use crate::checked_json::{seal, unseal};
use crate::hybrid_settings::HybridSettings;
use crate::{Error, FieldSpec, Result};
use splade_core::dense::DenseIdentity;
use splade_core::segment::Identity;
use splade_core::segment::{ForwardPrecision, RowLayout};
use splade_core::{PassageLength, Pruning};
use splade_files::AtomicFile;

/// File name of an index folder's manifest.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
const FORMAT: &str = "splade-index";
/// Version that is written. Version 1, which has no checksums, can be read too.
const VERSION: u64 = 2;

/// Settings of an index. They are fixed when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSettings {
    /// number of terms, and so of dimensions
    pub vocabulary_size: u32,
    /// fingerprint of the document encoder's weights; any text, compared by equality
    pub model_fingerprint: String,
    /// fingerprint of the tokenizer; any text, compared by equality
    pub tokenizer_fingerprint: String,
    /// the stemmer of BM25
    #[serde(default)]
    pub language: Language,
    /// version of the rules that split texts into words for BM25
    #[serde(default = "AnalyzerVersion::of_old_indexes")]
    pub analyzer: AnalyzerVersion,
    /// number format of the weights
    #[serde(default)]
    pub forward: ForwardPrecision,
    /// pruning of every document's vector. None in indexes of older versions, which do not state it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruning: Option<Pruning>,
    /// of the ONNX file that encodes the documents, such as `fp32`; any text, compared by equality. None if unknown
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder_precision: Option<String>,
    /// typed fields of the documents, for filters and counts
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldSpec>,
    /// dense vectors of the documents, beside the sparse ones; none in most indexes
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense: Option<DenseSettings>,
    /// length of the passages that documents are split into; `None` if a document has one vector
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passages: Option<PassageLength>,
}

/// Dense vectors of an index: every document has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseSettings {
    /// number of dimensions
    pub dimensions: u32,
    /// fingerprint of the dense encoder; any text, compared by equality
    pub model_fingerprint: String,
    /// text put before every query
    pub query_prompt: String,
    /// text that was put before every document
    pub document_prompt: String,
}

impl DenseSettings {
    /// Identity that every file of dense vectors of the index repeats.
    pub(crate) fn identity(&self) -> DenseIdentity {
        let mut hasher = Sha256::new();
        for text in [&self.model_fingerprint, &self.document_prompt] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        DenseIdentity { dimensions: self.dimensions, fingerprint: hasher.finalize().into() }
    }
}

impl IndexSettings {
    /// Settings without a stemmer, with exact weights in f32, the newest analyzer, no pruning, no encoder precision, no
    /// typed fields, no dense vectors and no passages.
    #[must_use]
    pub fn new(vocabulary_size: u32, model_fingerprint: &str, tokenizer_fingerprint: &str) -> Self {
        Self {
            vocabulary_size,
            model_fingerprint: model_fingerprint.into(),
            tokenizer_fingerprint: tokenizer_fingerprint.into(),
            language: Language::None,
            analyzer: AnalyzerVersion::NEWEST,
            forward: ForwardPrecision::F32,
            pruning: Some(Pruning::default()),
            encoder_precision: None,
            fields: Vec::new(),
            dense: None,
            passages: None,
        }
    }

    /// Identity that every segment file of the index repeats, so that a file of another index is refused.
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
}

/// Content of `manifest.json`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) settings: IndexSettings,
    /// files of the query folder by name; `None` in version 1, which does not list them
    pub(crate) query: Option<BTreeMap<String, FileRecord>>,
    /// settings of hybrid search that were chosen for this index
    pub(crate) hybrid: Option<HybridSettings>,
}

/// Length and checksum of a file of the query folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    bytes: u64,
    crc32: String,
}

impl FileRecord {
    /// The record of a file.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(Error::io(path))?;
        Ok(Self { bytes: content.len() as u64, crc32: format!("{:08x}", crc32fast::hash(&content)) })
    }
}

impl Manifest {
    /// Writes the manifest of the index folder `dir`, in [`VERSION`].
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(MANIFEST_FILE);
        let json = ManifestJson {
            format: FORMAT.into(),
            version: VERSION,
            settings: self.settings.clone(),
            query: self.query.clone().unwrap_or_default(),
            hybrid: self.hybrid.clone(),
        };
        let json = serde_json::to_string_pretty(&json).map_err(|error| Error::file(&path, error.to_string()))?;
        Ok(AtomicFile::write_whole(&path, seal(&(json + "\n")).as_bytes())?)
    }

    /// Reads the manifest of the index folder `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::file(dir, format!("no index there: it has no {MANIFEST_FILE}")),
            _ => Error::io(&path)(error),
        })?;
        let unsealed = unseal(&bytes).map_err(|defect| Error::damaged(&path, defect))?;
        let has_checksum = unsealed.is_some();
        let json = unsealed.unwrap_or(bytes);
        let failed = |error: serde_json::Error| Error::file(&path, error.to_string());
        let kind: FormatVersion = serde_json::from_slice(&json).map_err(failed)?;
        if kind.format != FORMAT {
            return Err(Error::file(&path, format!("format {:?}, expected {FORMAT:?}", kind.format)));
        }
        match kind.version {
            1 => {
                let manifest: ManifestJson1 = serde_json::from_slice(&json).map_err(failed)?;
                Ok(Self { settings: manifest.settings, query: None, hybrid: None })
            }
            VERSION if !has_checksum => Err(Error::damaged(&path, "damaged: it has no checksum")),
            VERSION => {
                let manifest: ManifestJson = serde_json::from_slice(&json).map_err(failed)?;
                Ok(Self { settings: manifest.settings, query: Some(manifest.query), hybrid: manifest.hybrid })
            }
            version => {
                let newer = if version > VERSION { ": the index was written by a newer program" } else { "" };
                let message =
                    format!("version {version} of the index format, this program reads versions 1 to {VERSION}{newer}");
                Err(Error::file(&path, message))
            }
        }
    }
}

/// Fields that the manifest has in every version.
#[derive(Deserialize)]
struct FormatVersion {
    format: String,
    version: u64,
}

/// `manifest.json`, version 2, without its checksum.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestJson {
    format: String,
    version: u64,
    settings: IndexSettings,
    query: BTreeMap<String, FileRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hybrid: Option<HybridSettings>,
}

/// `manifest.json`, version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestJson1 {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u64,
    settings: IndexSettings,
}
