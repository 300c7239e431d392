//! [`CollectionManifest`]: the description of a collection that is kept in the engine.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use splade_core::QueryEncoder;
use splade_index::{FieldSpec, Language};

use super::{EngineError, EngineResult, WordSettings};

const FORMAT: &str = "splade-collection";
/// Version that is written and read.
const VERSION: u64 = 1;
/// Characters of a fingerprint in messages.
const FINGERPRINT_CHARS: usize = 12;

/// Model, fields and numbers of a collection. A query is searched only with the model of the documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionManifest {
    format: String,
    version: u64,
    /// number of terms of the vocabulary
    pub(crate) vocabulary_size: u32,
    /// fingerprint of the model; any text, compared by equality
    pub(crate) model: String,
    /// fingerprint of the tokenizer; any text, compared by equality
    pub(crate) tokenizer: String,
    /// fingerprint of the table that gives the weights of queries; none if a network encodes queries
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) query_table: Option<String>,
    /// language of the texts: that of the stemmer of the index, `none` if unknown
    pub(crate) language: String,
    /// typed fields of the documents
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fields: Vec<FieldSpec>,
    /// dimension in the vocabulary by dimension in the collection; none if both are the same
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renumbering: Option<Vec<u32>>,
    /// factor of the weights of all documents, 1 if they are as in the index
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) document_scale: f32,
    /// largest weight of a document after scaling, for engines that quantize up to a ceiling; none if it was not computed
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) document_ceiling: Option<f32>,
    /// settings of the vectors of words; none if documents have no such vectors
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) words: Option<WordSettings>,
    /// settings of the driver that its requests depend on, in its own form; null for none
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub(crate) driver: Json,
}

fn one() -> f32 {
    1.0
}

fn is_one(scale: &f32) -> bool {
    *scale == 1.0
}

impl CollectionManifest {
    /// A manifest of these fingerprints, without fields and with the numbers of the vocabulary.
    pub(crate) fn new(vocabulary_size: u32, model: &str, tokenizer: &str, query_table: Option<String>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            vocabulary_size,
            model: model.to_owned(),
            tokenizer: tokenizer.to_owned(),
            query_table,
            language: "none".to_owned(),
            fields: Vec::new(),
            renumbering: None,
            document_scale: 1.0,
            document_ceiling: None,
            words: None,
            driver: Json::Null,
        }
    }

    /// The manifest as JSON, for a driver to keep.
    pub(crate) fn to_json(&self) -> EngineResult<Json> {
        serde_json::to_value(self).map_err(|error| EngineError::run(format!("manifest of a collection: {error}"), ""))
    }

    /// Reads what [`to_json`](Self::to_json) returned. `place` is the collection, for messages.
    ///
    /// # Errors
    /// JSON of another form or version.
    pub(crate) fn from_json(json: &Json, place: &str) -> EngineResult<Self> {
        let version = json.get("version").and_then(Json::as_u64);
        if version.is_some_and(|version| version > VERSION) {
            let message = format!("{place}: its manifest has a version above {VERSION}");
            return Err(EngineError::input(message, "the collection was made by a newer program"));
        }
        let read = Self::deserialize(json).map_err(|error| error.to_string()).and_then(|manifest| {
            if manifest.format == FORMAT { Ok(manifest) } else { Err("another format".to_owned()) }
        });
        read.map_err(|why| {
            EngineError::input(
                format!("{place}: its manifest cannot be read: {why}"),
                "push the index anew with --overwrite",
            )
        })
    }

    /// The language of the texts.
    ///
    /// # Errors
    /// A language that this program does not know.
    pub(crate) fn language(&self) -> splade_index::Result<Language> {
        self.language.parse()
    }

    /// The first difference in what a query or a document depends on, with the values of this manifest and of `other`.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let short = |text: &str| text.chars().take(FINGERPRINT_CHARS).collect::<String>();
        let table = |manifest: &Self| manifest.query_table.as_deref().map_or("none".to_owned(), short);
        let fields = |manifest: &Self| {
            let fields: Vec<String> = manifest.fields.iter().map(FieldSpec::to_string).collect();
            if fields.is_empty() { "none".to_owned() } else { fields.join(",") }
        };
        let all = [
            ("vocabulary size", self.vocabulary_size.to_string(), other.vocabulary_size.to_string()),
            ("tokenizer", short(&self.tokenizer), short(&other.tokenizer)),
            ("model", short(&self.model), short(&other.model)),
            ("query table", table(self), table(other)),
            ("language", self.language.clone(), other.language.clone()),
            ("typed fields", fields(self), fields(other)),
        ];
        let first = all.into_iter().find(|(_, ours, theirs)| ours != theirs);
        first.map(|(what, ours, theirs)| format!("its {what} is {ours}, not {theirs}"))
    }

    /// The first of the settings `asked` that the collection does not have, with both values.
    pub(crate) fn other_setting(&self, asked: &Json) -> Option<String> {
        let mut asked = asked.as_object().into_iter().flatten();
        let (name, wanted) = asked.find(|(name, wanted)| self.driver.get(name.as_str()) != Some(*wanted))?;
        let ours = self.driver.get(name).map_or("the default".to_owned(), Json::to_string);
        Some(format!("its {} is {ours}, not {wanted}", name.replace('_', " ")))
    }
}

/// Fingerprint of everything that turns the tokens of a query into a vector: weights, prompt and largest number of entries.
pub(crate) fn table_fingerprint(encoder: &QueryEncoder) -> String {
    let mut hasher = Sha256::new();
    hasher.update((encoder.prompt().len() as u64).to_le_bytes());
    hasher.update(encoder.prompt());
    hasher.update(encoder.max_active_dims().map_or(u64::MAX, |most| most as u64).to_le_bytes());
    encoder.weights().as_slice().iter().for_each(|weight| hasher.update(weight.to_le_bytes()));
    hex(&hasher.finalize())
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
