//! [`DenseModelDir`]: the folder of a dense encoder, as sentence-transformers writes it.
//!
//! A folder has `modules.json` with a transformer, a pooling, and a normalization or none; or it is a bare checkpoint, which
//! sentence-transformers pools by the mean. Folders with further modules are refused, since their vectors would be others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use splade_core::{TOKENIZER_SOURCES, Vocabulary, hex};

use crate::json::{read_json, read_json_or_default};
use crate::layout::{Module, SENTENCE_TRANSFORMERS_SETTINGS, class, join as join_names, prompts_of_sides};
use crate::model_dir::{SentenceConfig, join, lengths, max_length, number, pad_id};
use crate::{Error, Result, open_file};

/// ONNX files of a dense encoder, by preference.
pub const DENSE_ONNX_FILES: [&str; 2] = ["onnx/model.onnx", "model.onnx"];

/// Reduction of the hidden states of a text's tokens to one vector. Padding is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DensePooling {
    /// the first token
    Cls,
    /// the mean
    Mean,
    /// the maximum of each dimension
    Max,
    /// the sum divided by the square root of the number of tokens
    MeanSqrtLen,
    /// the mean weighted by the position of a token, from 1
    WeightedMean,
    /// the last token
    LastToken,
}

impl DensePooling {
    /// Poolings with their names in sentence-transformers.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Cls, "cls"),
        (Self::Mean, "mean"),
        (Self::Max, "max"),
        (Self::MeanSqrtLen, "mean_sqrt_len_tokens"),
        (Self::WeightedMean, "weightedmean"),
        (Self::LastToken, "lasttoken"),
    ];

    /// Name in sentence-transformers.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(pooling, _)| *pooling == self).map_or("", |(_, name)| name)
    }
}

/// A folder of a dense encoder with its small files in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseModelDir {
    root: PathBuf,
    transformer: PathBuf,
    config: Value,
    pooling: DensePooling,
    normalizes: bool,
    prompts: (String, String),
    max_length: usize,
    lower_case: bool,
}

impl DenseModelDir {
    /// Opens the folder at `root` and reads its small files.
    ///
    /// # Errors
    /// A folder that is missing, is not a dense encoder or has a module that is not supported; a file that is missing or broken.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let what = if root.exists() { "not a folder" } else { "no such folder" };
            return Err(Error::invalid(format!("{}: {what}", root.display()), "give the folder of a dense model"));
        }
        Self::find(root, |name| Ok(root.join(name).is_file()))
    }

    /// Opens the folder at `root`, whose files `provide` may have to fetch first. It is called with the path of every file that
    /// the model may have, except ONNX files, and returns true if the file is below `root` now.
    ///
    /// # Errors
    /// As [`open`](Self::open); errors of `provide`.
    pub fn find<E: From<Error>>(root: &Path, mut provide: impl FnMut(&str) -> Result<bool, E>) -> Result<Self, E> {
        let parts = if provide("modules.json")? {
            Parts::read(&root.join("modules.json"))?
        } else if provide("config.json")? {
            Parts::default()
        } else {
            let message = "not a dense model: it has neither modules.json nor config.json";
            return Err(Error::file(root, message).into());
        };
        let pooling_file = parts.pooling.map(|folder| join_names(&folder, "config.json"));
        let beside = ["config.json", "sentence_bert_config.json"].into_iter().chain(TOKENIZER_SOURCES);
        let beside: Vec<String> = beside.map(|name| join_names(&parts.transformer, name)).collect();
        for name in pooling_file.iter().chain(&beside).map(String::as_str).chain([SENTENCE_TRANSFORMERS_SETTINGS]) {
            provide(name)?;
        }
        Ok(Self::assemble(root, &parts.transformer, pooling_file.as_deref(), parts.normalizes)?)
    }

    fn assemble(root: &Path, transformer: &str, pooling_file: Option<&str>, normalizes: bool) -> Result<Self> {
        let transformer = join(root, transformer);
        let config: Value = read_json(&transformer.join("config.json"))?;
        let sentence: SentenceConfig = read_json_or_default(&transformer.join("sentence_bert_config.json"))?;
        let settings_path = root.join(SENTENCE_TRANSFORMERS_SETTINGS);
        let settings: Settings = read_json_or_default(&settings_path)?;
        let normalizes = normalizes
            || match settings.similarity_fn_name.as_deref() {
                // the default of sentence-transformers
                None | Some("cosine") => true,
                Some("dot" | "dot_product") => false,
                Some(other) => {
                    let message = format!("similarity_fn_name {other:?} is not supported, only \"cosine\" and \"dot\"");
                    return Err(Error::file(settings_path, message));
                }
            };
        let pooling_path = pooling_file.map(|name| root.join(name));
        let (pooling, includes_prompt) = match &pooling_path {
            Some(path) => pooling(path)?,
            None => (DensePooling::Mean, true),
        };
        let prompts = prompts_of_sides(&settings.prompts);
        if let Some(path) = pooling_path.filter(|_| !includes_prompt && prompts != Default::default()) {
            return Err(Error::file(
                path,
                "pooling that leaves the prompt out (include_prompt false) is not supported",
            ));
        }
        let length = max_length(&transformer, sentence.max_seq_length)?;
        Ok(Self {
            root: root.to_owned(),
            max_length: length.min(lengths(&config).trained),
            lower_case: sentence.do_lower_case,
            pooling,
            normalizes,
            prompts,
            transformer,
            config,
        })
    }

    /// Folder of the model.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of `config.json`, tokenizer and ONNX file.
    #[must_use]
    pub fn transformer_dir(&self) -> &Path {
        &self.transformer
    }

    /// Pooling of the hidden states.
    #[must_use]
    pub fn pooling(&self) -> DensePooling {
        self.pooling
    }

    /// True if vectors get length 1: the folder has a normalization, or its similarity is the cosine.
    #[must_use]
    pub fn normalizes(&self) -> bool {
        self.normalizes
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

    /// Number of tokens that texts are truncated to, prompt and special tokens counted.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// True if texts are lowercased before the tokenizer (`do_lower_case`).
    #[must_use]
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }

    /// Number of values of a hidden state, `hidden_size` of `config.json`; none if the file does not state it.
    #[must_use]
    pub fn hidden_size(&self) -> Option<usize> {
        ["hidden_size", "dim", "d_model"].iter().find_map(|key| number(&self.config, key))
    }

    /// Preferred ONNX file.
    ///
    /// # Errors
    /// A folder without one.
    pub fn onnx_path(&self) -> Result<PathBuf> {
        let paths = DENSE_ONNX_FILES.iter().map(|name| self.transformer.join(name));
        paths.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            Error::invalid(
                format!("{}: no ONNX file of a dense model", self.root.display()),
                format!("put one at {}, as `optimum-cli export onnx` makes it", DENSE_ONNX_FILES[0]),
            )
        })
    }

    /// Tokenizer, which truncates to the folder's length.
    ///
    /// # Errors
    /// A file that is missing or broken.
    pub fn vocabulary(&self) -> Result<Vocabulary> {
        let length = self.max_length.min(lengths(&self.config).longest);
        crate::read_vocabulary(&self.transformer.join("tokenizer.json"), length)
    }

    /// Id of the padding token.
    ///
    /// # Errors
    /// Tokenizer files that are broken.
    pub fn pad_id(&self, vocabulary: &Vocabulary) -> Result<u32> {
        let terms = number(&self.config, "vocab_size").unwrap_or(vocabulary.size());
        pad_id(&self.transformer, &self.config, terms, vocabulary)
    }

    /// Fingerprint of all that decides the vector of a text with its prompt: ONNX file, tokenizer, pooling, normalization,
    /// length. Prompts are not in it.
    ///
    /// # Errors
    /// A file that is missing or broken.
    pub fn fingerprint(&self) -> Result<String> {
        let onnx = self.onnx_path()?;
        let mut beside = onnx.clone().into_os_string();
        beside.push("_data");
        let weights = Path::new(&beside);
        let weights = if weights.is_file() { file_digest(weights)? } else { "none".to_owned() };
        let text = format!(
            "splade dense fingerprint 1\nonnx {}\nweights {weights}\ntokenizer {}\npooling {}\nnormalizes {}\nmax-length {}\n\
             lower-case {}\n",
            file_digest(&onnx)?,
            self.vocabulary()?.fingerprint(),
            self.pooling.name(),
            self.normalizes,
            self.max_length,
            self.lower_case,
        );
        Ok(hex(&Sha256::digest(text)))
    }
}

fn file_digest(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    std::io::copy(&mut open_file(path)?, &mut digest).map_err(Error::io(path))?;
    Ok(hex(&digest.finalize()))
}

/// Folders of the modules.
struct Parts {
    transformer: String,
    /// none for a bare checkpoint
    pooling: Option<String>,
    normalizes: bool,
}

impl Default for Parts {
    /// A bare checkpoint, which sentence-transformers pools by the mean.
    fn default() -> Self {
        Self { transformer: String::new(), pooling: None, normalizes: false }
    }
}

impl Parts {
    fn read(path: &Path) -> Result<Self> {
        let mut modules: Vec<Module> = read_json(path)?;
        modules.sort_by_key(|module| module.idx);
        let parts: Vec<(&str, &str)> =
            modules.iter().map(|module| (class(&module.class), module.path.as_str())).collect();
        let (transformer, pooling, normalizes) = match parts.as_slice() {
            [("Transformer", transformer), ("Pooling", pooling)] => (transformer, pooling, false),
            [("Transformer", transformer), ("Pooling", pooling), ("Normalize", _)] => (transformer, pooling, true),
            parts => {
                let names: Vec<&str> = parts.iter().map(|(class, _)| *class).collect();
                let message = format!(
                    "modules {} are not supported: Transformer + Pooling is, with Normalize or without",
                    names.join(" + ")
                );
                return Err(Error::file(path, message));
            }
        };
        Ok(Self { transformer: join_names(transformer, ""), pooling: Some(join_names(pooling, "")), normalizes })
    }
}

/// `config_sentence_transformers.json`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Settings {
    prompts: BTreeMap<String, String>,
    similarity_fn_name: Option<String>,
}

/// Pooling of a `config.json`, and true if the prompt is pooled too. New files name the mode, old ones have a switch for each.
fn pooling(path: &Path) -> Result<(DensePooling, bool)> {
    let config: Map<String, Value> = read_json(path)?;
    let names: Vec<String> = match config.get("pooling_mode") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
        Some(_) => return Err(Error::file(path, "pooling_mode is not a text")),
        None => config.iter().filter(|(_, value)| **value == Value::Bool(true)).filter_map(old_name).collect(),
    };
    let includes_prompt = config.get("include_prompt") != Some(&Value::Bool(false));
    let known = |name: &String| DensePooling::ALL.iter().find(|(_, known)| known == name).map(|(pooling, _)| *pooling);
    match names.as_slice() {
        [name] => match known(name) {
            Some(pooling) => Ok((pooling, includes_prompt)),
            None => {
                let all = DensePooling::ALL.map(|(_, name)| name).join(", ");
                Err(Error::file(path, format!("pooling {name:?} is not supported, only {all}")))
            }
        },
        [] => Err(Error::file(path, "it names no pooling")),
        several => {
            Err(Error::file(path, format!("several poolings at once ({}) are not supported", several.join(", "))))
        }
    }
}

/// Name of a pooling of an old switch, such as `pooling_mode_mean_tokens`.
fn old_name((key, _): (&String, &Value)) -> Option<String> {
    let mode = key.strip_prefix("pooling_mode_")?;
    let name = match mode {
        "cls_token" => "cls",
        "mean_tokens" => "mean",
        "max_tokens" => "max",
        "weightedmean_tokens" => "weightedmean",
        other => other,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, Value)]) -> (tempfile::TempDir, Result<DenseModelDir>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }
        let model = DenseModelDir::open(folder.path());
        (folder, model)
    }

    fn modules(classes: &[(&str, &str)]) -> (&'static str, Value) {
        let module = |(idx, (class, path)): (usize, &(&str, &str))| json!({"idx": idx, "type": format!("s.{class}"), "path": path});
        ("modules.json", classes.iter().enumerate().map(module).collect())
    }

    fn error(files: &[(&str, Value)]) -> String {
        folder(files).1.unwrap_err().to_string()
    }

    const USUAL: [(&str, &str); 2] = [("Transformer", ""), ("Pooling", "1_Pooling")];

    #[test]
    fn poolings_of_old_and_new_files_are_read() {
        let model = |pooling: Value| {
            folder(&[modules(&USUAL), ("config.json", json!({"hidden_size": 4})), ("1_Pooling/config.json", pooling)]).1
        };
        let old =
            json!({"word_embedding_dimension": 4, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
        let cases = [
            (old, DensePooling::Cls),
            (json!({"pooling_mode_mean_tokens": true, "include_prompt": true}), DensePooling::Mean),
            (json!({"pooling_mode_max_tokens": true}), DensePooling::Max),
            (json!({"pooling_mode_mean_sqrt_len_tokens": true}), DensePooling::MeanSqrtLen),
            (json!({"pooling_mode_weightedmean_tokens": true}), DensePooling::WeightedMean),
            (json!({"pooling_mode_lasttoken": true}), DensePooling::LastToken),
            (json!({"pooling_mode": "weightedmean"}), DensePooling::WeightedMean),
            (json!({"pooling_mode": ["lasttoken"]}), DensePooling::LastToken),
        ];
        for (config, expected) in cases {
            let text = config.to_string();
            assert_eq!(model(config).unwrap().pooling(), expected, "{text}");
        }
        let refused = [
            (json!({"pooling_mode": "attention"}), "pooling \"attention\" is not supported, only cls, mean"),
            (json!({"pooling_mode": ["cls", "mean"]}), "several poolings at once (cls, mean) are not supported"),
            (json!({}), "it names no pooling"),
            (json!({"pooling_mode": 3}), "pooling_mode is not a text"),
        ];
        for (config, expected) in refused {
            let message = model(config).unwrap_err().to_string();
            assert!(message.contains("1_Pooling/config.json") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(error(&[]).contains("neither modules.json nor config.json"));
        let dense = modules(&[("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]);
        assert!(error(&[dense]).contains("modules Transformer + Pooling + Dense are not supported"));
        let splade = modules(&[("MLMTransformer", ""), ("SpladePooling", "1")]);
        assert!(error(&[splade]).contains("modules MLMTransformer + SpladePooling are not supported"));
        let config = ("config.json", json!({}));
        let euclidean = ("config_sentence_transformers.json", json!({"similarity_fn_name": "euclidean"}));
        assert!(error(&[config.clone(), euclidean]).contains("similarity_fn_name \"euclidean\" is not supported"));
        let pooling = ("1_Pooling/config.json", json!({"pooling_mode": "mean", "include_prompt": false}));
        let prompts = ("config_sentence_transformers.json", json!({"prompts": {"query": "q: "}}));
        let message = error(&[modules(&USUAL), config.clone(), pooling.clone(), prompts]);
        assert!(message.contains("pooling that leaves the prompt out"), "{message}");
        // without a prompt there is nothing to leave out
        assert!(folder(&[modules(&USUAL), config, pooling]).1.is_ok());
    }

    #[test]
    fn a_bare_checkpoint_is_pooled_by_the_mean_and_compared_by_the_cosine() {
        let (_folder, bare) = folder(&[("config.json", json!({"hidden_size": 4}))]);
        let bare = bare.unwrap();
        assert_eq!((bare.pooling(), bare.normalizes(), bare.hidden_size()), (DensePooling::Mean, true, Some(4)));
        assert!(bare.onnx_path().unwrap_err().to_string().ends_with("no ONNX file of a dense model"));
        let dot =
            ("config_sentence_transformers.json", json!({"similarity_fn_name": "dot", "prompts": {"passage": "p: "}}));
        let dot = folder(&[("config.json", json!({})), dot]).1.unwrap();
        assert_eq!((dot.normalizes(), dot.query_prompt(), dot.document_prompt()), (false, "", "p: "));
    }
}
