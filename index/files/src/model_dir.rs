//! [`ModelDir`]: a model folder of this program or of another tool. [`ModelLayout`] finds its parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint_files::CheckpointFiles;
use crate::family::{Family, Lengths, UnknownFamily, stated_class};
use crate::json::{read_json, read_json_or_default};
use crate::layout::{
    ModelLayout, ONNX_FILES, OWN_SETTINGS, SENTENCE_TRANSFORMERS_SETTINGS, TableLayout, prompts_of_sides,
};
use crate::query_table::has_tokenizer;
use crate::{Error, Precision, Result};
use splade_core::{DocumentSettings, HeadMode, Pooling, PoolingActivation, QueryEncoder, SpladePooling, Vocabulary};

/// Architecture of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Architecture {
    /// one network for queries and documents
    #[serde(rename = "splade")]
    Splade,
    /// a static table for queries, a network for documents
    #[serde(rename = "inference-free-splade")]
    InferenceFree,
}

/// Files and settings of the static query table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySide {
    /// `model.safetensors` with the tensor `weight`, or a table by token: `idf.json`, `query_token_weights.txt`
    pub weights: PathBuf,
    /// `tokenizer.json` of the queries
    pub tokenizer: PathBuf,
    /// number of tokens that queries are truncated to
    pub max_length: usize,
    /// true if training leaves the table as it is
    pub frozen: bool,
}

/// A model folder with its small files in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDir {
    root: PathBuf,
    transformer: PathBuf,
    config: Value,
    query: Option<QuerySide>,
    pooling: SpladePooling,
    prompts: (String, String),
    max_active_dims: Option<usize>,
    max_length: usize,
    lower_case: bool,
    head: Option<HeadChoice>,
    ignored_config_keys: Vec<String>,
}

/// Use of the logits of a NorBERT4 model, and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadChoice {
    /// the mode
    pub mode: HeadMode,
    /// source of the mode
    pub source: HeadSource,
}

/// Source of a [`HeadMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSource {
    /// choice of the caller
    Requested,
    /// statement in a model folder that this program trained
    Stated,
    /// published code beside the weights, which training may have patched in memory
    Code,
    /// default, for a folder that does not state it
    Guessed,
}

impl ModelDir {
    /// Opens the folder at `root` and reads its small files.
    ///
    /// # Errors
    /// A folder that is missing or is not a model, an unknown module, a file that is missing or broken.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let what = if root.exists() { "not a folder" } else { "no such folder" };
            return Err(Error::invalid(format!("{}: {what}", root.display()), "give the folder of a model"));
        }
        let layout = ModelLayout::find(root, |name| Ok::<_, Error>(root.join(name).is_file()))?;
        Self::assemble(root, &layout)
    }

    fn assemble(root: &Path, layout: &ModelLayout) -> Result<Self> {
        let transformer = join(root, &layout.transformer);
        let query = layout.table.as_ref().map(|table| query_side(root, table)).transpose()?;
        let config: Value = read_json(&transformer.join("config.json"))?;
        let sentence: SentenceConfig = read_json_or_default(&transformer.join("sentence_bert_config.json"))?;
        let st: SparseEncoderConfig = read_json_or_default(&root.join(SENTENCE_TRANSFORMERS_SETTINGS))?;
        let pooling = match &layout.pooling {
            Some(folder) => read_json::<PoolingFile>(&join(root, folder).join("config.json"))?.into(),
            None => SpladePooling::default(),
        };
        let length = max_length(&transformer, sentence.max_seq_length)?;
        Ok(Self {
            root: root.to_owned(),
            query,
            pooling,
            prompts: prompts_of_sides(&st.prompts),
            max_active_dims: st.max_active_dims,
            max_length: length.min(lengths(&config).trained),
            lower_case: sentence.do_lower_case,
            head: head_choice(root, &transformer, &config)?,
            ignored_config_keys: Vec::new(),
            transformer,
            config,
        })
    }

    /// Folder of the model.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Architecture of the model.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        if self.query.is_some() { Architecture::InferenceFree } else { Architecture::Splade }
    }

    /// Static query table, if the model has one.
    #[must_use]
    pub fn query_side(&self) -> Option<&QuerySide> {
        self.query.as_ref()
    }

    /// Folder of `config.json` and the weights.
    #[must_use]
    pub fn transformer_dir(&self) -> &Path {
        &self.transformer
    }

    /// `config.json` of the transformer.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.transformer.join("config.json")
    }

    /// Number of terms, V: `vocab_size` of `config.json`.
    ///
    /// # Errors
    /// A file without this key.
    pub fn dimensions(&self) -> Result<usize> {
        number(&self.config, "vocab_size").ok_or_else(|| Error::file(self.config_path(), "no vocab_size"))
    }

    /// Family of the network.
    ///
    /// # Errors
    /// A `config.json` without a family or with an unknown one; the ONNX files of the model may still run.
    pub fn family(&self) -> std::result::Result<&'static Family, UnknownFamily> {
        Family::of(&self.config)
    }

    /// The checkpoint: `model.safetensors`, else `pytorch_model.bin`, whole or in shards.
    ///
    /// # Errors
    /// A folder without a checkpoint, a broken index of shards.
    pub fn checkpoint(&self) -> Result<CheckpointFiles> {
        CheckpointFiles::find(&self.transformer)
    }

    /// A copy that ignores these keys of `config.json` if they are unknown.
    #[must_use]
    pub fn ignoring_config_keys(mut self, keys: Vec<String>) -> Self {
        self.ignored_config_keys = keys;
        self
    }

    /// Unknown keys of `config.json` that are ignored because the caller states that they change nothing.
    #[must_use]
    pub fn ignored_config_keys(&self) -> &[String] {
        &self.ignored_config_keys
    }

    /// Paths of the existing [`ONNX_FILES`], in fp32.
    #[must_use]
    pub fn onnx_paths(&self) -> Vec<PathBuf> {
        self.onnx_paths_in(Precision::Fp32)
    }

    /// Paths of the existing [`ONNX_FILES`], in one precision.
    #[must_use]
    pub fn onnx_paths_in(&self, precision: Precision) -> Vec<PathBuf> {
        let paths = ONNX_FILES.iter().map(|name| self.transformer.join(precision.file_name(name)));
        paths.filter(|path| path.is_file()).collect()
    }

    /// Paths of the existing ONNX files, in every precision.
    #[must_use]
    pub fn all_onnx_paths(&self) -> Vec<PathBuf> {
        Precision::ALL.into_iter().flat_map(|precision| self.onnx_paths_in(precision)).collect()
    }

    /// Folder for new ONNX files: `<transformer>/onnx`, as in sentence-transformers.
    #[must_use]
    pub fn onnx_dir(&self) -> PathBuf {
        self.transformer.join("onnx")
    }

    /// Use of the logits of a NorBERT4 model, and its source; `None` for other families.
    #[must_use]
    pub fn head_choice(&self) -> Option<HeadChoice> {
        self.head
    }

    /// A copy that uses its logits in `mode`.
    ///
    /// # Errors
    /// A family without head modes.
    pub fn with_head_mode(mut self, mode: HeadMode) -> Result<Self> {
        let Some(head) = &mut self.head else {
            let name = stated_class(&self.config).unwrap_or("this model");
            return Err(Error::invalid(
                format!("head mode {mode}: {name} has no head modes"),
                "leave it out: only NorBERT4 models have them",
            ));
        };
        *head = HeadChoice { mode, source: HeadSource::Requested };
        Ok(self)
    }

    /// Pooling of the logits.
    #[must_use]
    pub fn pooling(&self) -> SpladePooling {
        self.pooling
    }

    /// Number of tokens that documents are truncated to, special tokens counted: the smaller of the folder's own length
    /// and the length that the network was trained for. The folder's own is `max_seq_length` of
    /// `sentence_bert_config.json`, else `model_max_length` of `tokenizer_config.json`.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Prompt put before queries, often empty.
    #[must_use]
    pub fn query_prompt(&self) -> &str {
        &self.prompts.0
    }

    /// Prompt put before documents, often empty.
    #[must_use]
    pub fn document_prompt(&self) -> &str {
        &self.prompts.1
    }

    /// True if texts are lowercased before the network's tokenizer (`do_lower_case`).
    #[must_use]
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }

    /// Largest number of entries of a vector, if the folder limits it.
    #[must_use]
    pub fn max_active_dims(&self) -> Option<usize> {
        self.max_active_dims
    }

    /// Tokenizer of the network, which truncates to `max_length` tokens or to the folder's own length.
    ///
    /// # Errors
    /// A file that is missing or broken, a tokenizer with more tokens than the terms of the network.
    pub fn vocabulary(&self, max_length: Option<usize>) -> Result<Vocabulary> {
        // no text may be longer than the position table
        let length = max_length.unwrap_or(self.max_length).min(lengths(&self.config).longest);
        let path = self.transformer.join("tokenizer.json");
        let vocabulary = crate::read_vocabulary(&path, length)?;
        let terms = self.dimensions()?;
        if let Some(excess) = vocabulary.excess_over(terms) {
            return Err(Error::invalid(
                format!("{}: {excess}, but the network has {terms} terms", path.display()),
                "take the tokenizer.json that the model was trained with",
            ));
        }
        Ok(vocabulary)
    }

    /// Id of the padding token: the tokenizer files' `pad_token`, else `pad_token_id` of `config.json`, else 0.
    ///
    /// # Errors
    /// A file that is broken.
    pub fn pad_id(&self, vocabulary: &Vocabulary) -> Result<u32> {
        pad_id(&self.transformer, &self.config, self.dimensions()?, vocabulary)
    }

    /// Settings for encoding documents.
    ///
    /// # Errors
    /// Tokenizer files that are broken.
    pub fn document_settings(&self, vocabulary: &Vocabulary) -> Result<DocumentSettings> {
        Ok(DocumentSettings {
            prompt: self.document_prompt().to_owned(),
            lower_case: self.lower_case,
            dropped: Vec::new(),
            max_active_dims: self.max_active_dims,
            pad: self.pad_id(vocabulary)?,
            batch_tokens: 0,
        })
    }

    /// Static query encoder of an inference-free model.
    ///
    /// # Errors
    /// A model without a table, files that are missing or broken, a table of another tokenizer.
    pub fn query_encoder(&self) -> Result<QueryEncoder> {
        let side = self.query.as_ref().ok_or_else(|| {
            Error::file(&self.root, "no static query table: queries of this model go through the network")
        })?;
        let vocabulary = crate::read_vocabulary(&side.tokenizer, side.max_length)?;
        self.expect_shared_vocabulary(&vocabulary, side)?;
        let weights = if side.weights.extension().is_some_and(|extension| extension == "safetensors") {
            crate::read_query_weights(&side.weights)?
        } else {
            crate::read_idf(&side.weights, &vocabulary)?
        };
        let (table, terms) = (weights.as_slice().len(), self.dimensions()?);
        if table > terms {
            let message =
                format!("{table} query weights, but the network has {terms} terms ({})", self.config_path().display());
            return Err(Error::file(&side.weights, message));
        }
        let encoder = QueryEncoder::new(vocabulary, weights, self.query_prompt())
            .map_err(|error| error.at(side.weights.display()))?;
        Ok(encoder.with_max_active_dims(self.max_active_dims))
    }

    /// Refuses a query tokenizer whose tokens differ from those of the network.
    fn expect_shared_vocabulary(&self, queries: &Vocabulary, side: &QuerySide) -> Result<()> {
        let path = self.transformer.join("tokenizer.json");
        if path == side.tokenizer || !has_tokenizer(&self.transformer) {
            return Ok(());
        }
        let documents = crate::read_vocabulary(&path, usize::MAX)?;
        let last = u32::try_from(queries.size().max(documents.size())).unwrap_or(u32::MAX);
        match (0..last).find(|&dim| queries.token(dim) != documents.token(dim)) {
            None => Ok(()),
            Some(dim) => {
                let name =
                    |token: Option<String>| token.map_or_else(|| "nothing".to_owned(), |token| format!("{token:?}"));
                Err(Error::file(
                    &side.tokenizer,
                    format!(
                        "dimension {dim} is {} here, but {} in {}: queries and documents need the same tokens",
                        name(queries.token(dim)),
                        name(documents.token(dim)),
                        path.display()
                    ),
                ))
            }
        }
    }
}

/// Version of [`OWN_SETTINGS`].
pub(crate) const VERSION: u32 = 1;

/// `splade.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnSettings {
    format_version: u32,
    mlm_head: Option<HeadMode>,
}

/// Use of the logits by the model in `root`: stated, found in the published code beside the weights, or the default.
fn head_choice(root: &Path, transformer: &Path, config: &Value) -> Result<Option<HeadChoice>> {
    let Some(family) = Family::of(config).ok().filter(|family| family.has_head_modes) else { return Ok(None) };
    let path = root.join(OWN_SETTINGS);
    if path.is_file() {
        let own: OwnSettings = read_json(&path)?;
        if own.format_version != VERSION {
            let message = format!("format version {} is not known here, only {VERSION}", own.format_version);
            return Err(Error::file(path, message));
        }
        if let Some(mode) = own.mlm_head {
            return Ok(Some(HeadChoice { mode, source: HeadSource::Stated }));
        }
    }
    let mut places = family.model_code().flat_map(|name| [transformer, root].map(|folder| folder.join(name)));
    let code = places.find_map(|path| std::fs::read_to_string(path).ok());
    Ok(Some(match code {
        // code with the cap; the patch that removes the cap leaves the shift
        Some(code) if code.contains("sigmoid") => HeadChoice { mode: HeadMode::Published, source: HeadSource::Code },
        Some(_) => HeadChoice { mode: HeadMode::RawShifted, source: HeadSource::Code },
        None => HeadChoice { mode: HeadMode::Published, source: HeadSource::Guessed },
    }))
}

/// Limits on texts in a `config.json`; an unknown family counts as BERT.
pub(crate) fn lengths(config: &Value) -> Lengths {
    match Family::of(config) {
        Ok(family) => family.lengths(config),
        Err(_) => {
            let positions = number(config, "max_position_embeddings").unwrap_or(usize::MAX);
            Lengths { trained: positions, longest: positions }
        }
    }
}

/// `sentence_bert_config.json`, in the old form or in the new one, which has no length.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct SentenceConfig {
    pub(crate) max_seq_length: Option<usize>,
    pub(crate) do_lower_case: bool,
}

/// `config_sentence_transformers.json`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SparseEncoderConfig {
    prompts: BTreeMap<String, String>,
    max_active_dims: Option<usize>,
}

/// `config.json` of SpladePooling. Its dimension is ignored: some versions stored the hidden size there.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct PoolingFile {
    pooling_strategy: Pooling,
    activation_function: PoolingActivation,
}

impl From<PoolingFile> for SpladePooling {
    fn from(file: PoolingFile) -> Self {
        Self { strategy: file.pooling_strategy, activation: file.activation_function }
    }
}

fn query_side(root: &Path, table: &TableLayout) -> Result<QuerySide> {
    let tokenizer = join(root, &table.tokenizer);
    Ok(QuerySide {
        weights: root.join(&table.weights),
        max_length: max_length(&tokenizer, None)?,
        tokenizer: tokenizer.join("tokenizer.json"),
        frozen: table.frozen,
    })
}

/// Id of the padding token of the tokenizer in `folder`, as [`ModelDir::pad_id`] finds it. `terms` bounds the ids of tokens.
pub(crate) fn pad_id(folder: &Path, config: &Value, terms: usize, vocabulary: &Vocabulary) -> Result<u32> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let file: Value = read_json_or_default(&folder.join(name))?;
        let token = match file.get("pad_token") {
            Some(Value::String(token)) => Some(token.as_str()),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
            _ => None,
        };
        if let Some(dim) = token.and_then(|token| vocabulary.dim(token)) {
            return Ok(dim);
        }
    }
    let Some(id) = number(config, "pad_token_id") else { return Ok(0) };
    u32::try_from(id).ok().filter(|_| id < terms).ok_or_else(|| {
        Error::file(folder.join("config.json"), format!("pad_token_id {id}, but the network has {terms} terms"))
    })
}

/// `max_seq_length`, else the tokenizer's `model_max_length`, else no limit.
pub(crate) fn max_length(folder: &Path, max_seq_length: Option<usize>) -> Result<usize> {
    if let Some(length) = max_seq_length {
        return Ok(length);
    }
    let config: Value = read_json_or_default(&folder.join("tokenizer_config.json"))?;
    // "no limit" is written as 10^30
    let length = config.get("model_max_length").and_then(Value::as_f64).unwrap_or(f64::MAX);
    Ok(if length >= 1e9 { usize::MAX } else { length as usize })
}

/// Value of a key of `config.json` that is a whole number.
pub(crate) fn number(config: &Value, key: &str) -> Option<usize> {
    config.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
}

pub(crate) fn join(folder: &Path, part: &str) -> PathBuf {
    if part.is_empty() { folder.to_owned() } else { folder.join(part) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::to_safetensors;
    use splade_core::QueryWeights;

    const FIXTURE: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/sparse-encoder/inference-free/model");
    const NETWORK: &str = "document_0_Transformer";
    const TABLE: &str = "query_0_SparseStaticEmbedding";

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    /// A copy of the tiny model, in which files have other contents.
    fn model(files: &[(String, &[u8])]) -> (tempfile::TempDir, Result<ModelDir>) {
        let folder = tempfile::tempdir().unwrap();
        copy(Path::new(FIXTURE), folder.path());
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let model = ModelDir::open(folder.path());
        (folder, model)
    }

    fn query_error(files: &[(String, &[u8])]) -> String {
        model(files).1.unwrap().query_encoder().unwrap_err().to_string()
    }

    #[test]
    fn a_table_longer_than_the_network_is_refused() {
        let (_folder, tiny) = model(&[]);
        let terms = tiny.unwrap().dimensions().unwrap();
        let table = to_safetensors(&QueryWeights::new(vec![1.0; terms + 1]).unwrap());
        let message = query_error(&[(format!("{TABLE}/model.safetensors"), &table)]);
        assert!(
            message.contains(&format!("{} query weights, but the network has {terms} terms", terms + 1)),
            "{message}"
        );
    }

    #[test]
    fn a_query_tokenizer_of_other_tokens_is_refused() {
        let path = format!("{TABLE}/tokenizer.json");
        let text = std::fs::read_to_string(Path::new(FIXTURE).join(&path)).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        // the same tokens in another file are no fault
        assert!(model(&[(path.clone(), json.to_string().as_bytes())]).1.unwrap().query_encoder().is_ok());
        let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
        let (first, second) = {
            let mut tokens = vocabulary.iter().filter(|(_, id)| id.as_u64().is_some_and(|id| id > 20));
            (tokens.next().unwrap().0.clone(), tokens.next().unwrap().0.clone())
        };
        let (a, b) = (vocabulary[&first].clone(), vocabulary[&second].clone());
        vocabulary.insert(first, b);
        vocabulary.insert(second, a);
        let message = query_error(&[(path, json.to_string().as_bytes())]);
        assert!(message.contains("queries and documents need the same tokens"), "{message}");
    }

    #[test]
    fn of_several_lengths_the_first_stated_counts_up_to_that_of_the_network() {
        let sentence = || format!("{NETWORK}/sentence_bert_config.json");
        let tokenizer = || format!("{NETWORK}/tokenizer_config.json");
        let length = |files: &[(String, &[u8])]| model(files).1.unwrap().max_length();
        let stated: &[u8] = br#"{"max_seq_length": 17}"#;
        let other: &[u8] = br#"{"model_max_length": 19}"#;
        assert_eq!(length(&[(sentence(), stated), (tokenizer(), other)]), 17);
        assert_eq!(length(&[(sentence(), b"{}"), (tokenizer(), other)]), 19);
        let unlimited: &[u8] = br#"{"model_max_length": 1000000000000000019884624838656}"#;
        let network = length(&[(sentence(), b"{}"), (tokenizer(), unlimited)]);
        assert_eq!(length(&[(sentence(), br#"{"max_seq_length": 1000000}"#)]), network);
        assert!((20..100_000).contains(&network), "{network}");
    }
}
