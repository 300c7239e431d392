//! [`ModelLayout`]: paths of the parts of a model folder.
//!
//! Known layouts: sentence-transformers' Router in every spelling (old and new class paths, `Asym`, `IDF`, the
//! transformer in a subfolder or at the root), its regular transformer + pooling, a bare masked-LM checkpoint, and
//! OpenSearch's `idf.json` beside one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use splade_core::{TOKENIZER_SOURCES, TOKENIZER_VOCABULARIES};

use crate::family::Family;
use crate::json::{read_json, read_json_or_default};
use crate::{Error, Result};

/// Names of the tokenizer's files beside `tokenizer.json`: copied into models trained from a folder that has them.
pub fn files_beside_tokenizer() -> impl Iterator<Item = &'static str> {
    TOKENIZER_SOURCES.into_iter().filter(|name| !["tokenizer.json", "config.json"].contains(name))
}

/// ONNX files of a transformer, by preference: pooled files first, which need far less memory.
pub const ONNX_FILES: [&str; 4] = ["onnx/model_splade.onnx", "model_splade.onnx", "onnx/model.onnx", "model.onnx"];

/// Tables of query weights beside a bare checkpoint, by preference.
const BARE_TABLES: [&str; 2] = ["idf.json", "query_token_weights.txt"];

/// Settings of this program in a model folder, beside the files of other tools.
pub(crate) const OWN_SETTINGS: &str = "splade.json";

/// Settings of sentence-transformers for a model as a whole.
pub(crate) const SENTENCE_TRANSFORMERS_SETTINGS: &str = "config_sentence_transformers.json";

/// Paths of the parts of a model folder, relative to it, with `/`. An empty path is the folder itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLayout {
    /// folder of the network: `config.json`, weights, tokenizer
    pub transformer: String,
    /// folder of the pooling's `config.json`
    pub pooling: Option<String>,
    /// the static query table of an inference-free model
    pub table: Option<TableLayout>,
}

/// Parts of a static query table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLayout {
    /// file of the weights
    pub weights: String,
    /// folder of the tokenizer
    pub tokenizer: String,
    /// true if training leaves the table as it is
    pub frozen: bool,
}

impl ModelLayout {
    /// Finds the parts of the model folder at `root`.
    ///
    /// Calls `provide` with the path of every file that the model may have, except weights and ONNX files. `provide` returns
    /// true if the model has the file and puts it below `root`: it checks a folder on disk, or downloads from the Hub.
    ///
    /// # Errors
    /// Errors of `provide`; a folder that is not a model, unknown modules, a file that is missing or broken.
    pub fn find<E: From<Error>>(root: &Path, provide: impl FnMut(&str) -> Result<bool, E>) -> Result<Self, E> {
        let mut finder = Finder { root, provide };
        let layout = if (finder.provide)("modules.json")? {
            finder.modules()?
        } else if (finder.provide)("config.json")? {
            finder.bare()?
        } else {
            return Err(Error::file(root, "not a model folder: it has neither modules.json nor config.json").into());
        };
        finder.small_files(&layout)?;
        Ok(layout)
    }
}

struct Finder<'a, P> {
    root: &'a Path,
    provide: P,
}

impl<P> Finder<'_, P> {
    fn modules<E: From<Error>>(&mut self) -> Result<ModelLayout, E>
    where
        P: FnMut(&str) -> Result<bool, E>,
    {
        let path = self.root.join("modules.json");
        let mut modules: Vec<Module> = read_json(&path)?;
        modules.sort_by_key(|module| module.idx);
        let parts: Vec<(&str, &str)> =
            modules.iter().map(|module| (class(&module.class), module.path.as_str())).collect();
        match parts.as_slice() {
            [("Router" | "Asym", folder)] => self.router(folder),
            [(transformer, folder), ("SpladePooling", pooling)] if is_transformer(transformer) => {
                Ok(ModelLayout { transformer: join(folder, ""), pooling: Some(join(pooling, "")), table: None })
            }
            parts => {
                let names: Vec<&str> = parts.iter().map(|(class, _)| *class).collect();
                let message = format!("modules {} are not a SPLADE model", names.join(" + "));
                Err(Error::file(path, message).into())
            }
        }
    }

    fn router<E: From<Error>>(&mut self, folder: &str) -> Result<ModelLayout, E>
    where
        P: FnMut(&str) -> Result<bool, E>,
    {
        let name = join(folder, "router_config.json");
        (self.provide)(&name)?;
        let path = self.root.join(name);
        let router: Router = read_json(&path)?;
        let document = router.route(&path, folder, &["document", "passage", "corpus"])?;
        let query = router.route(&path, folder, &["query"])?;
        let unknown = |route: &str, modules: &[(&str, String)]| {
            let names: Vec<&str> = modules.iter().map(|(class, _)| *class).collect();
            Error::file(&path, format!("the {route} route {} is not one of a SPLADE model", names.join(" + ")))
        };
        let (transformer, pooling) = match document.as_slice() {
            [(transformer, folder), ("SpladePooling", pooling)] if is_transformer(transformer) => (folder, pooling),
            other => return Err(unknown("document", other).into()),
        };
        let table = match query.as_slice() {
            [("SparseStaticEmbedding" | "IDF", folder)] => Some(self.table(folder)?),
            same if same == document => None,
            [(transformer, _), ("SpladePooling", _)] if is_transformer(transformer) => {
                let message = "queries and documents have a network each, and only one network for both or a query table for \
                               the queries is supported";
                return Err(Error::file(&path, message).into());
            }
            other => return Err(unknown("query", other).into()),
        };
        Ok(ModelLayout { transformer: transformer.clone(), pooling: Some(pooling.clone()), table })
    }

    /// Finds a query table and its tokenizer in `folder` or at the root.
    fn table<E: From<Error>>(&mut self, folder: &str) -> Result<TableLayout, E>
    where
        P: FnMut(&str) -> Result<bool, E>,
    {
        let config_name = join(folder, "config.json");
        (self.provide)(&config_name)?;
        let config_path = self.root.join(config_name);
        let config: TableConfig = read_json_or_default(&config_path)?;
        let stored = join(folder, "model.safetensors");
        let weights = if (self.provide)(&stored)? {
            stored
        } else {
            let Some(name) = config.path else {
                let message = "no model.safetensors with the query weights";
                return Err(Error::file(self.root.join(folder), message).into());
            };
            match self.first(&[join(folder, &name), name.clone()])? {
                Some(found) => found,
                None => return Err(Error::file(config_path, format!("path {name:?} does not exist")).into()),
            }
        };
        for tokenizer in [folder, ""] {
            if self.first(&TOKENIZER_VOCABULARIES.map(|name| join(tokenizer, name)))?.is_some() {
                return Ok(TableLayout { weights, tokenizer: tokenizer.to_owned(), frozen: config.frozen });
            }
        }
        Err(Error::file(self.root.join(folder), "no tokenizer.json").into())
    }

    /// Finds a masked-LM checkpoint without sentence-transformers' files, and OpenSearch's query weights beside it if any.
    fn bare<E: From<Error>>(&mut self) -> Result<ModelLayout, E>
    where
        P: FnMut(&str) -> Result<bool, E>,
    {
        let weights = self.first(&BARE_TABLES.map(str::to_owned))?;
        let table = weights.map(|weights| TableLayout { weights, tokenizer: String::new(), frozen: true });
        Ok(ModelLayout { transformer: String::new(), pooling: None, table })
    }

    /// Provides the files that are read later: settings, tokenizers, and the code that `config.json` names.
    fn small_files<E: From<Error>>(&mut self, layout: &ModelLayout) -> Result<(), E>
    where
        P: FnMut(&str) -> Result<bool, E>,
    {
        for name in [SENTENCE_TRANSFORMERS_SETTINGS, OWN_SETTINGS] {
            (self.provide)(name)?;
        }
        for folder in layout.pooling.iter().chain([&layout.transformer]) {
            (self.provide)(&join(folder, "config.json"))?;
        }
        (self.provide)(&join(&layout.transformer, "sentence_bert_config.json"))?;
        let tokenizers = layout.table.iter().map(|table| &table.tokenizer).chain([&layout.transformer]);
        for folder in tokenizers.collect::<BTreeSet<_>>() {
            for name in TOKENIZER_SOURCES {
                (self.provide)(&join(folder, name))?;
            }
        }
        // the reader of its contents reports a broken file
        let config = read_json(&self.root.join(join(&layout.transformer, "config.json"))).unwrap_or_default();
        for name in code_files(&config) {
            self.first(&[join(&layout.transformer, &name), name])?;
        }
        Ok(())
    }

    /// First of the files that the model has.
    fn first<E>(&mut self, names: &[String]) -> Result<Option<String>, E>
    where
        P: FnMut(&str) -> Result<bool, E>,
    {
        for name in names {
            if (self.provide)(name)? {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}

/// Code files that a `config.json` names. Their text may decide the use of the head, and they are copied into models trained
/// from the checkpoint. They are never run.
fn code_files(config: &Value) -> BTreeSet<String> {
    let classes = config["auto_map"].as_object().into_iter().flat_map(|map| map.values());
    // a name with -- refers to code of another model
    let module =
        |class: &Value| Some(class.as_str()?.split_once('.')?.0.to_owned()).filter(|name| !name.contains("--"));
    let is_model = |name: &String| name.starts_with("modeling_") || name.starts_with("configuration_");
    let mut files: BTreeSet<String> =
        classes.filter_map(module).filter(is_model).map(|name| format!("{name}.py")).collect();
    if let Ok(family) = Family::of(config)
        && family.has_head_modes
    {
        // its text decides the use of logits, also if `auto_map` does not name it
        files.extend(family.model_code().map(str::to_owned));
    }
    files
}

/// One entry of `modules.json`.
#[derive(Deserialize)]
pub(crate) struct Module {
    pub(crate) idx: i64,
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) class: String,
}

/// `router_config.json`.
#[derive(Deserialize)]
struct Router {
    types: BTreeMap<String, String>,
    structure: BTreeMap<String, Vec<String>>,
}

impl Router {
    /// Classes and folders of the modules of the first route in `names`.
    fn route(&self, path: &Path, folder: &str, names: &[&str]) -> Result<Vec<(&str, String)>> {
        let keys = names.iter().find_map(|name| self.structure.get(*name));
        let keys = keys.ok_or_else(|| Error::file(path, format!("no {} route in structure", names[0])))?;
        let module = |key: &String| match self.types.get(key) {
            Some(class_path) => Ok((class(class_path), join(folder, key))),
            None => Err(Error::file(path, format!("module {key:?} of structure is not in types"))),
        };
        keys.iter().map(module).collect()
    }
}

/// `config.json` of a static embedding.
#[derive(Deserialize, Default)]
#[serde(default)]
struct TableConfig {
    path: Option<String>,
    frozen: bool,
}

/// Last component of a class path. The package before it depends on the version.
pub(crate) fn class(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn is_transformer(class: &str) -> bool {
    matches!(class, "MLMTransformer" | "Transformer")
}

/// Path of `name` in `folder`; either may be empty.
pub fn join(folder: &str, name: &str) -> String {
    let folder = folder.trim_end_matches('/');
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Prompts of queries and of documents among those that [`SENTENCE_TRANSFORMERS_SETTINGS`] names; empty without one.
pub(crate) fn prompts_of_sides(prompts: &BTreeMap<String, String>) -> (String, String) {
    let prompt = |names: &[&str]| names.iter().find_map(|name| prompts.get(*name).cloned()).unwrap_or_default();
    (prompt(&["query"]), prompt(&["document", "passage", "corpus"]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    /// The layout of files with these contents, and the names of all that were provided.
    fn find(files: &[(&str, Value)]) -> Result<(ModelLayout, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let files: BTreeMap<&str, &Value> = files.iter().map(|(name, value)| (*name, value)).collect();
        let mut provided = Vec::new();
        // a file is made only when it is requested, as a file of the Hub is downloaded
        let layout = ModelLayout::find(folder.path(), |name| {
            let Some(value) = files.get(name) else { return Ok::<_, Error>(false) };
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
            provided.push(name.to_owned());
            Ok(true)
        })?;
        provided.sort();
        provided.dedup();
        Ok((layout, provided))
    }

    #[test]
    fn every_small_file_is_provided_before_it_is_read() {
        let router = json!({
            "types": {"q": "a.IDF", "d": "b.MLMTransformer", "p": "c.SpladePooling"},
            "structure": {"query": ["q"], "document": ["d", "p"]},
        });
        let config = json!({"auto_map": {"AutoModel": "modeling_x.X"}});
        let (layout, provided) = find(&[
            ("modules.json", json!([{"idx": 0, "path": "", "type": "x.Asym"}])),
            ("router_config.json", router),
            ("q/config.json", json!({"path": "idf.json", "frozen": true})),
            ("q/tokenizer.json", json!(1)),
            ("idf.json", json!({})),
            ("d/config.json", config),
            ("d/vocab.txt", json!(1)),
            ("d/modeling_x.py", json!(1)),
            ("p/config.json", json!({})),
            ("unrelated.json", json!({})),
        ])
        .unwrap();
        let table = TableLayout { weights: "idf.json".into(), tokenizer: "q".into(), frozen: true };
        let expected = ModelLayout { transformer: "d".into(), pooling: Some("p".into()), table: Some(table) };
        assert_eq!(layout, expected);
        let names = [
            "d/config.json",
            "d/modeling_x.py",
            "d/vocab.txt",
            "idf.json",
            "modules.json",
            "p/config.json",
            "q/config.json",
            "q/tokenizer.json",
            "router_config.json",
        ];
        assert_eq!(provided, names);
    }

    #[test]
    fn a_bare_checkpoint_prefers_the_first_table() {
        let (layout, provided) = find(&[
            ("config.json", json!({})),
            ("idf.json", json!({})),
            ("query_token_weights.txt", json!({})),
            ("splade.json", json!({})),
        ])
        .unwrap();
        assert_eq!(layout.table.unwrap().weights, "idf.json");
        assert_eq!(provided, ["config.json", "idf.json", "splade.json"]);
    }

    #[test]
    fn what_is_no_model_is_named() {
        let module = |class: &str| json!([{"idx": 0, "path": "", "type": class}]);
        let route = |structure: Value| json!({"types": {"d": "x.Transformer"}, "structure": structure});
        let two = json!({
            "types": {"q": "x.Transformer", "d": "x.Transformer", "p": "x.SpladePooling"},
            "structure": {"query": ["q", "p"], "document": ["d", "p"]},
        });
        let cases: [(&[(&str, Value)], &str); 7] = [
            (
                &[("modules.json", module("x.Router")), ("router_config.json", two)],
                "router_config.json: queries and documents have a network each",
            ),
            (&[], "not a model folder: it has neither modules.json nor config.json"),
            (&[("modules.json", module("x.Dense"))], "modules.json: modules Dense are not a SPLADE model"),
            (&[("modules.json", module("x.Router"))], "router_config.json: "),
            (
                &[("modules.json", module("x.Router")), ("router_config.json", route(json!({"query": []})))],
                "router_config.json: no document route in structure",
            ),
            (
                &[("modules.json", module("x.Router")), ("router_config.json", route(json!({"document": ["e"]})))],
                "module \"e\" of structure is not in types",
            ),
            (
                &[
                    ("modules.json", module("x.Router")),
                    ("router_config.json", route(json!({"query": ["d"], "passage": ["d"]}))),
                ],
                "the document route Transformer is not one of a SPLADE model",
            ),
        ];
        for (files, wanted) in cases {
            let message = find(files).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn code_of_the_model_itself_is_found() {
        let config = json!({"auto_map": {
            "AutoConfig": "configuration_gptbert.ModernBertConfig",
            "AutoModel": "modeling_gptbert.GptBertModel",
            "AutoModelForMaskedLM": "modeling_gptbert.GptBertForMaskedLM",
            "AutoModelForQuestionAnswering": "other/model--modeling_other.Other",
            "AutoTokenizer": ["tokenization_x.Slow", null],
        }});
        let expected = ["configuration_gptbert.py", "modeling_gptbert.py"].map(str::to_owned);
        assert_eq!(code_files(&config), expected.into());
        assert!(code_files(&Value::Null).is_empty());
        let bare = json!({"architectures": ["GptBertForMaskedLM"]});
        assert_eq!(code_files(&bare), ["modeling_gptbert.py".to_owned()].into());
    }

    #[test]
    fn parts_are_joined() {
        let cases = [("", "a", "a"), ("a", "", "a"), ("a", "b", "a/b"), ("a/", "b", "a/b"), ("", "", "")];
        for (folder, name, expected) in cases {
            assert_eq!(join(folder, name), expected);
        }
    }
}
