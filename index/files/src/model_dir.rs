//! [`ModelDir`]: where everything lies in a model folder, whichever tool wrote it, and how ours are written.
//!
//! Layouts read: sentence-transformers' Router in every spelling (old and new class paths, `Asym`, `IDF`, the
//! transformer in a subfolder or at the root), its regular transformer + pooling, a bare masked-LM checkpoint, and
//! OpenSearch's `idf.json` beside one. Written: the names of sentence-transformers 5.0–5.3, which every later version
//! reads too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoint_files::CheckpointFiles;
use crate::family::{Family, Lengths, UnknownFamily, stated_class};
use crate::json::{read_json, read_json_or_default};
use crate::{Error, Precision, Result};
use splade_core::{
    DocumentSettings, HeadMode, Pooling, PoolingActivation, QueryEncoder, QueryWeights, SpladePooling, Vocabulary,
};

/// Which sides have a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Architecture {
    /// one network for queries and documents
    #[serde(rename = "splade")]
    Splade,
    /// a static table for queries, a network for documents
    #[serde(rename = "inference-free-splade")]
    InferenceFree,
}

/// Where the static query table lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySide {
    /// `model.safetensors` with the tensor `weight`, or a table by token: `idf.json`, `query_token_weights.txt`
    pub weights: PathBuf,
    /// its `tokenizer.json`
    pub tokenizer: PathBuf,
    /// queries are cut at so many tokens
    pub max_length: usize,
    /// whether training leaves the table alone
    pub frozen: bool,
}

/// Files of a tokenizer beside `tokenizer.json`: copied into models trained from a folder that has them.
pub const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
];

/// ONNX files of a transformer, in the order in which they are preferred: pooled ones first, which need far less memory.
pub const ONNX_FILES: [&str; 4] = ["onnx/model_splade.onnx", "model_splade.onnx", "onnx/model.onnx", "model.onnx"];

/// A model folder, looked through.
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

/// What of its logits a NorBERT4 model uses, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadChoice {
    /// the mode
    pub mode: HeadMode,
    /// where it comes from
    pub source: HeadSource,
}

/// How a [`HeadMode`] is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSource {
    /// the opener asked for it
    Asked,
    /// the model folder states it: it was trained here
    Stated,
    /// the published code lies beside the weights; training may have changed it in memory
    Code,
    /// nothing in the folder tells
    Guessed,
}

impl ModelDir {
    /// Looks through the folder at `root`; big files are not read yet.
    ///
    /// # Errors
    /// A folder that is missing or is no model, a module we do not know, a file that is missing or broken, by name.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let what = if root.exists() { "not a folder" } else { "no such folder" };
            return Err(Error::invalid(format!("{}: {what}", root.display()), "give the folder of a model"));
        }
        if root.join("modules.json").is_file() {
            return Self::from_modules(root);
        }
        if root.join("config.json").is_file() {
            return Self::bare(root);
        }
        Err(Error::file(root, "not a model folder: it has neither modules.json nor config.json"))
    }

    fn from_modules(root: &Path) -> Result<Self> {
        let path = root.join("modules.json");
        let mut modules: Vec<Module> = read_json(&path)?;
        modules.sort_by_key(|module| module.idx);
        let places: Vec<(&str, PathBuf)> =
            modules.iter().map(|module| (class(&module.class), join(root, &module.path))).collect();
        match places.as_slice() {
            [("Router" | "Asym", folder)] => Self::from_router(root, folder),
            [(transformer, folder), (pooling, config)]
                if is_transformer(transformer) && *pooling == "SpladePooling" =>
            {
                Self::assemble(root, folder.clone(), Some(config), None)
            }
            _ => {
                let names: Vec<&str> = places.iter().map(|(class, _)| *class).collect();
                Err(Error::file(path, format!("modules {} are not a SPLADE model", names.join(" + "))))
            }
        }
    }

    fn from_router(root: &Path, folder: &Path) -> Result<Self> {
        let path = folder.join("router_config.json");
        let router: Router = read_json(&path)?;
        let route = |names: &[&str]| names.iter().find_map(|name| router.structure.get(*name));
        let missing = |what: &str| Error::file(&path, format!("no {what} route in structure"));
        let document = route(&["document", "passage", "corpus"]).ok_or_else(|| missing("document"))?;
        let query = route(&["query"]).ok_or_else(|| missing("query"))?;
        let resolve = |keys: &[String]| -> Result<Vec<(String, PathBuf)>> {
            keys.iter()
                .map(|key| {
                    let class_path = router
                        .types
                        .get(key)
                        .ok_or_else(|| Error::file(&path, format!("module {key:?} of structure is not in types")))?;
                    Ok((class(class_path).to_owned(), join(folder, key)))
                })
                .collect()
        };
        let (document, query) = (resolve(document)?, resolve(query)?);
        let unknown = |route: &str, modules: &[(String, PathBuf)]| {
            let names: Vec<&str> = modules.iter().map(|(class, _)| class.as_str()).collect();
            Error::file(&path, format!("the {route} route {} is not one of a SPLADE model", names.join(" + ")))
        };
        let [(transformer, transformer_dir), (pooling, pooling_dir)] = document.as_slice() else {
            return Err(unknown("document", &document));
        };
        if !is_transformer(transformer) || pooling != "SpladePooling" {
            return Err(unknown("document", &document));
        }
        let side = match query.as_slice() {
            [(table, table_dir)] if table == "SparseStaticEmbedding" || table == "IDF" => {
                Some(query_side(root, table_dir)?)
            }
            same if same == document => None,
            other => return Err(unknown("query", other)),
        };
        Self::assemble(root, transformer_dir.clone(), Some(pooling_dir), side)
    }

    /// A masked-LM checkpoint without sentence-transformers' files, perhaps with OpenSearch's query weights beside it.
    fn bare(root: &Path) -> Result<Self> {
        let table =
            ["idf.json", "query_token_weights.txt"].iter().map(|name| root.join(name)).find(|path| path.is_file());
        let side = match table {
            Some(weights) => Some(QuerySide {
                weights,
                tokenizer: root.join("tokenizer.json"),
                max_length: max_length(root, None)?,
                frozen: true,
            }),
            None => None,
        };
        Self::assemble(root, root.to_owned(), None, side)
    }

    fn assemble(
        root: &Path,
        transformer: PathBuf,
        pooling: Option<&PathBuf>,
        query: Option<QuerySide>,
    ) -> Result<Self> {
        let config: Value = read_json(&transformer.join("config.json"))?;
        let sentence: SentenceConfig = read_json_or_default(&transformer.join("sentence_bert_config.json"))?;
        let st: SparseEncoderConfig = read_json_or_default(&root.join("config_sentence_transformers.json"))?;
        let pooling = match pooling {
            Some(folder) => read_json::<PoolingFile>(&folder.join("config.json"))?.into(),
            None => SpladePooling::default(),
        };
        let length = max_length(&transformer, sentence.max_seq_length)?;
        let prompt = |names: &[&str]| names.iter().find_map(|name| st.prompts.get(*name).cloned()).unwrap_or_default();
        Ok(Self {
            root: root.to_owned(),
            query,
            pooling,
            prompts: (prompt(&["query"]), prompt(&["document", "passage", "corpus"])),
            max_active_dims: st.max_active_dims,
            max_length: length.min(lengths(&config).trained),
            lower_case: sentence.do_lower_case,
            head: head_choice(root, &transformer, &config)?,
            ignored_config_keys: Vec::new(),
            transformer,
            config,
        })
    }

    /// The folder given.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether queries go through the network.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        if self.query.is_some() { Architecture::InferenceFree } else { Architecture::Splade }
    }

    /// The static query table, if the model has one.
    #[must_use]
    pub fn query_side(&self) -> Option<&QuerySide> {
        self.query.as_ref()
    }

    /// The folder of `config.json` and the weights.
    #[must_use]
    pub fn transformer_dir(&self) -> &Path {
        &self.transformer
    }

    /// `config.json` of the transformer.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.transformer.join("config.json")
    }

    /// V by `config.json`, which every family calls `vocab_size`: the length of a document vector.
    ///
    /// # Errors
    /// A file that has no such key.
    pub fn dimensions(&self) -> Result<usize> {
        number(&self.config, "vocab_size").ok_or_else(|| Error::file(self.config_path(), "no vocab_size"))
    }

    /// The family of the network.
    ///
    /// # Errors
    /// A `config.json` that states none, or another model: its ONNX files may still run.
    pub fn family(&self) -> std::result::Result<&'static Family, UnknownFamily> {
        Family::of(&self.config)
    }

    /// The checkpoint: `model.safetensors`, else `pytorch_model.bin`, whole or in shards.
    ///
    /// # Errors
    /// None is there, or the index of its shards is broken.
    pub fn checkpoint(&self) -> Result<CheckpointFiles> {
        CheckpointFiles::find(&self.transformer)
    }

    /// The same model, in whose `config.json` these keys are ignored where they are not known.
    #[must_use]
    pub fn ignoring_config_keys(mut self, keys: Vec<String>) -> Self {
        self.ignored_config_keys = keys;
        self
    }

    /// Keys of `config.json` that are ignored where they are not known: the opener states that they change nothing.
    #[must_use]
    pub fn ignored_config_keys(&self) -> &[String] {
        &self.ignored_config_keys
    }

    /// The [`ONNX_FILES`] that are there, in fp32.
    #[must_use]
    pub fn onnx_paths(&self) -> Vec<PathBuf> {
        self.onnx_paths_in(Precision::Fp32)
    }

    /// The [`ONNX_FILES`] that are there, in one precision.
    #[must_use]
    pub fn onnx_paths_in(&self, precision: Precision) -> Vec<PathBuf> {
        let paths = ONNX_FILES.iter().map(|name| self.transformer.join(precision.file_name(name)));
        paths.filter(|path| path.is_file()).collect()
    }

    /// The ONNX files of every precision.
    #[must_use]
    pub fn all_onnx_paths(&self) -> Vec<PathBuf> {
        Precision::ALL.into_iter().flat_map(|precision| self.onnx_paths_in(precision)).collect()
    }

    /// Where `export-onnx` writes: `<transformer>/onnx`, which sentence-transformers finds.
    #[must_use]
    pub fn onnx_dir(&self) -> PathBuf {
        self.transformer.join("onnx")
    }

    /// What of its logits a NorBERT4 model uses, and how that is known; `None` for other families.
    #[must_use]
    pub fn head_choice(&self) -> Option<HeadChoice> {
        self.head
    }

    /// The same model with its logits used as `mode` says.
    ///
    /// # Errors
    /// A family where there is nothing to choose.
    pub fn with_head_mode(mut self, mode: HeadMode) -> Result<Self> {
        let Some(head) = &mut self.head else {
            let name = stated_class(&self.config).unwrap_or("this model");
            return Err(Error::invalid(
                format!("head mode {mode}: {name} has no head modes"),
                "leave it out: only NorBERT4 models have them",
            ));
        };
        *head = HeadChoice { mode, source: HeadSource::Asked };
        Ok(self)
    }

    /// How logits are pooled.
    #[must_use]
    pub fn pooling(&self) -> SpladePooling {
        self.pooling
    }

    /// Documents are cut at so many tokens, special tokens counted.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The prompt put before queries, often empty.
    #[must_use]
    pub fn query_prompt(&self) -> &str {
        &self.prompts.0
    }

    /// The prompt put before documents, often empty.
    #[must_use]
    pub fn document_prompt(&self) -> &str {
        &self.prompts.1
    }

    /// Whether texts are lowered before the network's tokenizer (`do_lower_case`).
    #[must_use]
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }

    /// The most entries a vector keeps, if the folder says so.
    #[must_use]
    pub fn max_active_dims(&self) -> Option<usize> {
        self.max_active_dims
    }

    /// The network's tokenizer, cutting at `max_length` tokens or at the folder's own length.
    ///
    /// # Errors
    /// A file that is missing or broken, a tokenizer with more tokens than the network has terms.
    pub fn vocabulary(&self, max_length: Option<usize>) -> Result<Vocabulary> {
        // no text may be longer than the position table, whatever is asked for
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

    /// The id padding has: the tokenizer files' `pad_token`, else `pad_token_id` of `config.json`, else 0.
    ///
    /// # Errors
    /// A file that is broken.
    pub fn pad_id(&self, vocabulary: &Vocabulary) -> Result<u32> {
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let file: Value = read_json_or_default(&self.transformer.join(name))?;
            let token = match file.get("pad_token") {
                Some(Value::String(token)) => Some(token.as_str()),
                Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
                _ => None,
            };
            if let Some(dim) = token.and_then(|token| vocabulary.dim(token)) {
                return Ok(dim);
            }
        }
        let Some(id) = number(&self.config, "pad_token_id") else { return Ok(0) };
        let terms = self.dimensions()?;
        u32::try_from(id).ok().filter(|_| id < terms).ok_or_else(|| {
            Error::file(self.config_path(), format!("pad_token_id {id}, but the network has {terms} terms"))
        })
    }

    /// How documents reach the network.
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

    /// The static query encoder of an inference-free model.
    ///
    /// # Errors
    /// A model without a table, files that are missing or broken, a table of another tokenizer.
    pub fn query_encoder(&self) -> Result<QueryEncoder> {
        let side = self.query.as_ref().ok_or_else(|| {
            Error::file(&self.root, "no static query table: queries of this model go through the network")
        })?;
        let vocabulary = crate::read_vocabulary(&side.tokenizer, side.max_length)?;
        let weights = if side.weights.extension().is_some_and(|extension| extension == "safetensors") {
            crate::read_query_weights(&side.weights)?
        } else {
            crate::read_idf(&side.weights, &vocabulary)?
        };
        let encoder = QueryEncoder::new(vocabulary, weights, self.query_prompt())
            .map_err(|error| error.at(side.weights.display()))?;
        Ok(encoder.with_max_active_dims(self.max_active_dims))
    }
}

/// Everything a new model folder is written from.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// which layout
    pub architecture: Architecture,
    /// `config.json` of the transformer
    pub config_json: Vec<u8>,
    /// `model.safetensors` of the transformer
    pub weights: Vec<u8>,
    /// `tokenizer.json`, written byte for byte
    pub tokenizer_json: Vec<u8>,
    /// further tokenizer files by name, such as `vocab.txt`; `tokenizer_config.json` is completed with the length
    pub tokenizer_files: BTreeMap<String, Vec<u8>>,
    /// the table of an inference-free model, and whether it is frozen
    pub query: Option<(QueryWeights, bool)>,
    /// how logits are pooled
    pub pooling: SpladePooling,
    /// what of its logits a NorBERT4 model uses
    pub head_mode: Option<HeadMode>,
    /// V
    pub dimensions: usize,
    /// prompts of queries and documents
    pub prompts: (String, String),
    /// the most entries a vector keeps
    pub max_active_dims: Option<usize>,
    /// texts are cut at so many tokens
    pub max_length: usize,
    /// the model card
    pub readme: String,
}

impl NewModel {
    /// Writes the folder's files into `root`, which exists.
    ///
    /// Not atomic by itself: the caller writes into a temporary folder and renames it.
    ///
    /// # Errors
    /// A file that cannot be written; an inference-free model without a table.
    pub fn write(&self, root: &Path) -> Result<()> {
        let write = |path: PathBuf, bytes: &[u8]| {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
            }
            std::fs::write(&path, bytes).map_err(Error::io(&path))
        };
        let write_json = |path: PathBuf, value: &Value| write(path, format!("{value:#}\n").as_bytes());
        let st = "sentence_transformers.sparse_encoder.models";
        let (transformer, pooling) = match self.architecture {
            Architecture::Splade => (root.to_owned(), root.join("1_SpladePooling")),
            Architecture::InferenceFree => {
                (root.join("document_0_MLMTransformer"), root.join("document_1_SpladePooling"))
            }
        };
        write(transformer.join("config.json"), &self.config_json)?;
        write(transformer.join("model.safetensors"), &self.weights)?;
        self.write_tokenizer(&transformer)?;
        write_json(
            transformer.join("sentence_bert_config.json"),
            &json!({"max_seq_length": self.max_length, "do_lower_case": false}),
        )?;
        write_json(
            pooling.join("config.json"),
            &json!({
                "pooling_strategy": self.pooling.strategy,
                "activation_function": self.pooling.activation,
                "word_embedding_dimension": self.dimensions,
            }),
        )?;
        match self.architecture {
            Architecture::Splade => write_json(
                root.join("modules.json"),
                &json!([
                    {"idx": 0, "name": "0", "path": "", "type": format!("{st}.MLMTransformer")},
                    {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": format!("{st}.SpladePooling")},
                ]),
            )?,
            Architecture::InferenceFree => {
                let (table, frozen) = self.query.as_ref().ok_or_else(|| {
                    Error::invalid("an inference-free model cannot be written without its query table", "")
                })?;
                let query = root.join("query_0_SparseStaticEmbedding");
                write_json(query.join("config.json"), &json!({"frozen": frozen}))?;
                write(query.join("model.safetensors"), &crate::to_safetensors(table))?;
                self.write_tokenizer(&query)?;
                write_json(
                    root.join("modules.json"),
                    &json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]),
                )?;
                write_json(root.join("router_config.json"), &router_json(st))?;
            }
        }
        if let Some(mode) = self.head_mode {
            write_json(root.join(OWN_SETTINGS), &json!({"format_version": VERSION, "mlm_head": mode}))?;
        }
        write_json(root.join("config_sentence_transformers.json"), &self.st_config())?;
        write(root.join("README.md"), self.readme.as_bytes())
    }

    fn write_tokenizer(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(Error::io(&path))
        };
        write("tokenizer.json", &self.tokenizer_json)?;
        for (name, bytes) in &self.tokenizer_files {
            if name != "tokenizer_config.json" {
                write(name, bytes)?;
            }
        }
        let mut config: Value = self
            .tokenizer_files
            .get("tokenizer_config.json")
            .and_then(|bytes| serde_json::from_slice(bytes).ok())
            .unwrap_or_else(|| json!({}));
        if let Some(config) = config.as_object_mut() {
            config.insert("model_max_length".into(), json!(self.max_length));
            // transformers 5 writes a class that transformers 4 refuses; this one both read
            let class = config.get("tokenizer_class").and_then(Value::as_str);
            if class.is_none_or(|class| class == "TokenizersBackend") {
                config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
            }
        }
        write("tokenizer_config.json", format!("{config:#}\n").as_bytes())
    }

    fn st_config(&self) -> Value {
        let mut config = json!({
            "model_type": "SparseEncoder",
            // a low version: sentence-transformers warns when a model is newer than itself
            "__version__": {"sentence_transformers": "5.0.0", "transformers": "4.48.0", "pytorch": "2.0.0"},
            "prompts": {"query": self.prompts.0, "document": self.prompts.1},
            "default_prompt_name": null,
            "similarity_fn_name": "dot",
        });
        if let (Some(k), Some(config)) = (self.max_active_dims, config.as_object_mut()) {
            config.insert("max_active_dims".into(), json!(k));
        }
        config
    }
}

fn router_json(st: &str) -> Value {
    let class = |name: &str| format!("{st}.{name}.{name}");
    json!({
        "types": {
            "query_0_SparseStaticEmbedding": class("SparseStaticEmbedding"),
            "document_0_MLMTransformer": class("MLMTransformer"),
            "document_1_SpladePooling": class("SpladePooling"),
        },
        "structure": {
            "query": ["query_0_SparseStaticEmbedding"],
            "document": ["document_0_MLMTransformer", "document_1_SpladePooling"],
        },
        "parameters": {"default_route": "document", "allow_empty_key": true},
    })
}

/// What our model folders state beside the files of other tools.
const OWN_SETTINGS: &str = "splade.json";
const VERSION: u32 = 1;

/// `splade.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnSettings {
    format_version: u32,
    mlm_head: Option<HeadMode>,
}

/// What of its logits the model in `root` uses: stated, read off the published code beside the weights, or guessed.
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
        // the line of the cap; the patch that removes it leaves the shift
        Some(code) if code.contains("sigmoid") => HeadChoice { mode: HeadMode::Published, source: HeadSource::Code },
        Some(_) => HeadChoice { mode: HeadMode::RawShifted, source: HeadSource::Code },
        None => HeadChoice { mode: HeadMode::Published, source: HeadSource::Guessed },
    }))
}

/// The limits on texts that a `config.json` sets; those of a family that is not known are taken for BERT's.
fn lengths(config: &Value) -> Lengths {
    match Family::of(config) {
        Ok(family) => family.lengths(config),
        Err(_) => {
            let positions = number(config, "max_position_embeddings").unwrap_or(usize::MAX);
            Lengths { trained: positions, longest: positions }
        }
    }
}

/// One entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    idx: i64,
    path: String,
    #[serde(rename = "type")]
    class: String,
}

/// `router_config.json`.
#[derive(Deserialize)]
struct Router {
    types: BTreeMap<String, String>,
    structure: BTreeMap<String, Vec<String>>,
}

/// `sentence_bert_config.json`, in the old form or the new one (which has no length).
#[derive(Deserialize, Default)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
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

/// `config.json` of a static embedding.
#[derive(Deserialize, Default)]
#[serde(default)]
struct StaticConfig {
    path: Option<String>,
    frozen: bool,
}

fn query_side(root: &Path, folder: &Path) -> Result<QuerySide> {
    let config: StaticConfig = read_json_or_default(&folder.join("config.json"))?;
    let stored = folder.join("model.safetensors");
    let weights = match config.path {
        _ if stored.is_file() => stored,
        Some(name) => {
            let places = [folder.join(&name), root.join(&name)];
            let found = places.iter().find(|path| path.is_file()).cloned();
            found.ok_or_else(|| Error::file(folder.join("config.json"), format!("path {name:?} does not exist")))?
        }
        None => return Err(Error::file(folder, "no model.safetensors with the query weights")),
    };
    let tokenizer = [folder, root].into_iter().find(|folder| crate::query_table::has_tokenizer(folder));
    let tokenizer = tokenizer.ok_or_else(|| Error::file(folder, "no tokenizer.json"))?.join("tokenizer.json");
    let max_length = max_length(tokenizer.parent().unwrap_or(folder), None)?;
    Ok(QuerySide { weights, tokenizer, max_length, frozen: config.frozen })
}

/// `max_seq_length` if there is one, else the tokenizer's `model_max_length`, else no limit.
fn max_length(folder: &Path, max_seq_length: Option<usize>) -> Result<usize> {
    if let Some(length) = max_seq_length {
        return Ok(length);
    }
    let config: Value = read_json_or_default(&folder.join("tokenizer_config.json"))?;
    // "no limit" is written as 10^30
    let length = config.get("model_max_length").and_then(Value::as_f64).unwrap_or(f64::MAX);
    Ok(if length >= 1e9 { usize::MAX } else { length as usize })
}

/// A key of a `config.json` that is a whole number.
fn number(config: &Value, key: &str) -> Option<usize> {
    config.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
}

/// The last component of a class path: the package before it differs from version to version.
fn class(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn is_transformer(class: &str) -> bool {
    matches!(class, "MLMTransformer" | "Transformer")
}

fn join(folder: &Path, part: &str) -> PathBuf {
    if part.is_empty() { folder.to_owned() } else { folder.join(part) }
}
