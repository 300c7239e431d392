//! [`NewModel`]: writes a model folder with the names of sentence-transformers 5.0–5.3, which later versions read too.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use splade_core::{HeadMode, QueryWeights, SpladePooling};

use crate::layout::{OWN_SETTINGS, SENTENCE_TRANSFORMERS_SETTINGS};
use crate::model_dir::{Architecture, VERSION};
use crate::{Error, Result};

/// Package of the classes of sentence-transformers.
const CLASSES: &str = "sentence_transformers.sparse_encoder.models";

// Names of the modules of an inference-free model and of their folders.
const TABLE: &str = "query_0_SparseStaticEmbedding";
const TRANSFORMER: &str = "document_0_MLMTransformer";
const POOLING: &str = "document_1_SpladePooling";

/// Folder of the pooling in a model with one network for both sides.
const POOLING_OF_BOTH: &str = "1_SpladePooling";

/// Contents of a new model folder.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// architecture: one network for both sides, or a query table
    pub architecture: Architecture,
    /// `config.json` of the transformer
    pub config_json: Vec<u8>,
    /// `model.safetensors` of the transformer
    pub weights: Vec<u8>,
    /// `tokenizer.json`, written byte for byte
    pub tokenizer_json: Vec<u8>,
    /// other tokenizer files by name, such as `vocab.txt`; the length is added to `tokenizer_config.json`
    pub tokenizer_files: BTreeMap<String, Vec<u8>>,
    /// Python files that `config.json` names, by name
    pub code_files: BTreeMap<String, Vec<u8>>,
    /// query table of an inference-free model, and true if training leaves it as it is
    pub query: Option<(QueryWeights, bool)>,
    /// pooling of the logits
    pub pooling: SpladePooling,
    /// use of the logits in a NorBERT4 model
    pub head_mode: Option<HeadMode>,
    /// number of terms, V
    pub dimensions: usize,
    /// prompts of queries and documents
    pub prompts: (String, String),
    /// largest number of entries of a vector
    pub max_active_dims: Option<usize>,
    /// number of tokens that texts are truncated to
    pub max_length: usize,
    /// text of the model card
    pub readme: String,
}

impl NewModel {
    /// Writes the files into the folder `root`, which exists.
    ///
    /// This is not atomic: the caller writes into a temporary folder and renames it.
    ///
    /// # Errors
    /// A file that cannot be written; an inference-free model without a table.
    pub fn write(&self, root: &Path) -> Result<()> {
        match self.architecture {
            Architecture::Splade => {
                self.write_network(root)?;
                self.write_pooling(&root.join(POOLING_OF_BOTH))?;
                write_value(&root.join("modules.json"), &modules_json())?;
            }
            Architecture::InferenceFree => {
                self.write_network(&root.join(TRANSFORMER))?;
                self.write_pooling(&root.join(POOLING))?;
                self.write_table(&root.join(TABLE))?;
                write_value(&root.join("modules.json"), &router_modules_json())?;
                write_value(&root.join("router_config.json"), &router_json())?;
            }
        }
        // transformers looks for them at the root, also if `config.json` is in a folder below
        self.write_code(root)?;
        if let Some(mode) = self.head_mode {
            write_value(&root.join(OWN_SETTINGS), &json!({"format_version": VERSION, "mlm_head": mode}))?;
        }
        write_value(&root.join(SENTENCE_TRANSFORMERS_SETTINGS), &self.st_config())?;
        write(&root.join("README.md"), self.readme.as_bytes())
    }

    fn write_network(&self, folder: &Path) -> Result<()> {
        write(&folder.join("config.json"), &self.config_json)?;
        write(&folder.join("model.safetensors"), &self.weights)?;
        self.write_tokenizer(folder)?;
        self.write_code(folder)?;
        let settings = json!({"max_seq_length": self.max_length, "do_lower_case": false});
        write_value(&folder.join("sentence_bert_config.json"), &settings)
    }

    fn write_code(&self, folder: &Path) -> Result<()> {
        self.code_files.iter().try_for_each(|(name, bytes)| write(&folder.join(name), bytes))
    }

    fn write_pooling(&self, folder: &Path) -> Result<()> {
        let settings = json!({
            "pooling_strategy": self.pooling.strategy,
            "activation_function": self.pooling.activation,
            "word_embedding_dimension": self.dimensions,
        });
        write_value(&folder.join("config.json"), &settings)
    }

    fn write_table(&self, folder: &Path) -> Result<()> {
        let (table, frozen) = self
            .query
            .as_ref()
            .ok_or_else(|| Error::invalid("an inference-free model cannot be written without its query table", ""))?;
        write_value(&folder.join("config.json"), &json!({"frozen": frozen}))?;
        write(&folder.join("model.safetensors"), &crate::to_safetensors(table))?;
        self.write_tokenizer(folder)
    }

    fn write_tokenizer(&self, folder: &Path) -> Result<()> {
        write(&folder.join("tokenizer.json"), &self.tokenizer_json)?;
        for (name, bytes) in &self.tokenizer_files {
            if name != "tokenizer_config.json" {
                write(&folder.join(name), bytes)?;
            }
        }
        let mut config: Value = self
            .tokenizer_files
            .get("tokenizer_config.json")
            .and_then(|bytes| serde_json::from_slice(bytes).ok())
            .unwrap_or_else(|| json!({}));
        if let Some(config) = config.as_object_mut() {
            config.insert("model_max_length".into(), json!(self.max_length));
            // transformers 5 writes a class that transformers 4 refuses; both read this class
            let class = config.get("tokenizer_class").and_then(Value::as_str);
            if class.is_none_or(|class| class == "TokenizersBackend") {
                config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
            }
        }
        write_value(&folder.join("tokenizer_config.json"), &config)
    }

    fn st_config(&self) -> Value {
        let mut config = json!({
            "model_type": "SparseEncoder",
            // a low version: sentence-transformers warns about models of a newer version
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

/// `modules.json` of a model with one network for both sides.
fn modules_json() -> Value {
    json!([
        {"idx": 0, "name": "0", "path": "", "type": format!("{CLASSES}.MLMTransformer")},
        {"idx": 1, "name": "1", "path": POOLING_OF_BOTH, "type": format!("{CLASSES}.SpladePooling")},
    ])
}

/// `modules.json` of an inference-free model.
fn router_modules_json() -> Value {
    json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}])
}

/// `router_config.json` of an inference-free model.
fn router_json() -> Value {
    let class = |name: &str| format!("{CLASSES}.{name}.{name}");
    json!({
        "types": {
            TABLE: class("SparseStaticEmbedding"),
            TRANSFORMER: class("MLMTransformer"),
            POOLING: class("SpladePooling"),
        },
        "structure": {"query": [TABLE], "document": [TRANSFORMER, POOLING]},
        "parameters": {"default_route": "document", "allow_empty_key": true},
    })
}

fn write_value(path: &Path, value: &Value) -> Result<()> {
    write(path, format!("{value:#}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    std::fs::write(path, bytes).map_err(Error::io(path))
}
