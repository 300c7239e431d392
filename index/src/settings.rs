//! What an index was made for, and `manifest.json`, which says it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};
use splade_core::segment::Identity;
use splade_core::segment::{ForwardPrecision, RowLayout};
use splade_files::write_json;

/// The manifest of an index folder.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
const FORMAT: &str = "splade-index";
const VERSION: u64 = 1;

/// Which Snowball stemmer BM25 uses, on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Language {
    /// no stemming
    #[default]
    None,
    /// Norwegian (Snowball's is made for Bokmål; it does for most Nynorsk endings)
    Norwegian,
    /// Danish
    Danish,
    /// Swedish
    Swedish,
    /// English
    English,
}

impl Language {
    /// All languages, by the names of [`Display`](std::fmt::Display) and [`FromStr`](std::str::FromStr).
    pub const ALL: [Self; 5] = [Self::None, Self::Norwegian, Self::Danish, Self::Swedish, Self::English];

    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Norwegian => "norwegian",
            Self::Danish => "danish",
            Self::Swedish => "swedish",
            Self::English => "english",
        }
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Language {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("no stemmer for the language {name:?}"), format!("one of {names}"))
        })
    }
}

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
    /// how exact weights are kept
    #[serde(default)]
    pub forward: ForwardPrecision,
}

impl IndexSettings {
    /// Settings without a stemmer, with exact weights in f32.
    #[must_use]
    pub fn new(vocabulary_size: u32, model_fingerprint: &str, tokenizer_fingerprint: &str) -> Self {
        Self {
            vocabulary_size,
            model_fingerprint: model_fingerprint.into(),
            tokenizer_fingerprint: tokenizer_fingerprint.into(),
            language: Language::None,
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
