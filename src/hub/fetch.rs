//! Which files of a revision make a model, and each of them into the cache.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use splade_files::{
    Architecture, CHECKPOINT_NAMES, Family, ModelDir, ONNX_FILES, Precision, TOKENIZER_FILES, is_index, shard_names,
};

use super::cache::{Repo, check_name};
use super::client::{Client, Revision};
use super::download::{Download, patiently};
use super::id::HubId;
use super::{HubError, Origin, Place, Wants, cache_dir, is_offline};

/// Small files of a folder with a tokenizer and perhaps a network, beside [`TOKENIZER_FILES`].
const FOLDER_FILES: [&str; 3] = ["config.json", "sentence_bert_config.json", "tokenizer.json"];

/// Small files of a model as a whole: what sentence-transformers and we ourselves state about it.
const ROOT_FILES: [&str; 2] = ["config_sentence_transformers.json", "splade.json"];

/// The model folder of an id: from the cache as far as it is there and still right, from the Hub for the rest.
///
/// A commit that is cached asks nothing; a branch or tag asks once where it stands now. If the Hub does not answer, what
/// is cached is taken as it is, with a warning.
pub(super) fn fetch(id: &HubId, wants: Wants) -> Result<Place> {
    let mut fetch = Fetch::begin(id)?;
    fetch.model(wants)?;
    if !id.is_commit() {
        // only now: a ref is for a snapshot that is whole
        fetch.repo.note_commit(&id.revision, &fetch.commit);
    }
    let folder = fetch.repo.snapshot(&fetch.commit);
    let origin = Origin { id: id.name.clone(), commit: fetch.commit, files: fetch.files };
    Ok(Place { folder, origin: Some(origin) })
}

struct Fetch<'a> {
    id: &'a HubId,
    repo: Repo,
    commit: String,
    /// none while offline
    client: Option<Client>,
    /// why there is none, if nobody ordered it
    outage: Option<HubError>,
    /// the names of all files of the commit, once they are known
    listing: Option<BTreeSet<String>>,
    /// those wanted that are there
    files: Vec<String>,
}

/// A folder of the model and what its module is, by the last part of the class's name.
struct Module {
    folder: String,
    class: String,
}

impl<'a> Fetch<'a> {
    fn begin(id: &'a HubId) -> Result<Self> {
        let repo = Repo::new(&cache_dir(), &id.name);
        let client = if is_offline() { None } else { Some(Client::new()?) };
        let (commit, files) = (String::new(), Vec::new());
        let mut fetch = Self { id, repo, commit, client, outage: None, listing: None, files };
        fetch.commit = fetch.find_commit()?;
        if fetch.listing.is_none() {
            fetch.listing = fetch.repo.listing(&fetch.commit);
        }
        Ok(fetch)
    }

    /// The commit that is meant: of a branch or tag, what the Hub says, or said when it was last asked.
    fn find_commit(&mut self) -> Result<String> {
        if self.id.is_commit() {
            return Ok(self.id.revision.clone());
        }
        let cached = self.repo.commit_of(&self.id.revision);
        let Some(client) = &self.client else { return Ok(cached.ok_or_else(|| self.not_cached(None))?) };
        // with something cached there is no reason to wait
        let again = if cached.is_some() { |_: &HubError| false } else { HubError::is_busy };
        match patiently(again, || client.revision(self.id, &self.id.revision)) {
            Ok(Revision { commit, files }) => {
                self.listing = Some(files);
                Ok(commit)
            }
            Err(error) => {
                let commit = cached.filter(|_| error.is_outage()).ok_or_else(|| error.clone())?;
                self.go_on_without(error);
                Ok(commit)
            }
        }
    }

    fn go_on_without(&mut self, error: HubError) {
        tracing::warn!("{}; taking {} as it is cached", error.brief(), self.id);
        self.client = None;
        self.outage = Some(error);
    }

    /// All files a model has for `wants`, small ones first, so that what is no model of ours costs no large download.
    fn model(&mut self, wants: Wants) -> Result<()> {
        self.small_files()?;
        let model = ModelDir::open(&self.repo.snapshot(&self.commit));
        let model = match self.client {
            Some(_) => model?,
            None => model.with_context(|| format!("{}, as far as it is cached", self.id))?,
        };
        if wants.only_queries && model.architecture() == Architecture::InferenceFree {
            return Ok(());
        }
        let folder = model.transformer_dir().strip_prefix(model.root()).unwrap_or(Path::new(""));
        let folder = folder.to_string_lossy().into_owned();
        let has_onnx = match wants.onnx {
            Some(precision) => self.onnx_file(&folder, precision)?,
            None => false,
        };
        if wants.weights {
            #[cfg(feature = "train")]
            if !has_onnx {
                check_config(&model)?;
            }
            if !self.weights(&folder)? && !has_onnx {
                return Err(self.no_weights().into());
            }
        }
        Ok(())
    }

    fn small_files(&mut self) -> Result<()> {
        let modules = if self.file("modules.json")? {
            self.modules()?
        } else if self.file("config.json")? {
            vec![Module { folder: String::new(), class: "Transformer".to_owned() }]
        } else if self.client.is_none() {
            return Err(self.not_cached(None).into());
        } else {
            return Err(HubError::input(
                format!("{}: no model for this program: it has neither modules.json nor config.json", self.id),
                "give a masked-language model such as ltg/norbert3-xs, or a SPLADE model",
            )
            .into());
        };
        for Module { folder, class } in &modules {
            match class.as_str() {
                "Transformer" | "MLMTransformer" => self.transformer(folder)?,
                "SparseStaticEmbedding" | "IDF" => self.table(folder)?,
                _ => _ = self.file(&join(folder, "config.json"))?,
            }
        }
        for name in ROOT_FILES {
            self.file(name)?;
        }
        Ok(())
    }

    /// The folders `modules.json` and a router's `router_config.json` name. What cannot be read is for [`ModelDir`] to say.
    fn modules(&mut self) -> Result<Vec<Module>> {
        let mut modules = Vec::new();
        for entry in self.json("modules.json").as_array().into_iter().flatten() {
            let folder = entry["path"].as_str().unwrap_or_default().to_owned();
            let class = class(&entry["type"]);
            if class != "Router" && class != "Asym" {
                modules.push(Module { folder, class });
                continue;
            }
            let router = join(&folder, "router_config.json");
            self.file(&router)?;
            for (key, types) in self.json(&router)["types"].as_object().into_iter().flatten() {
                modules.push(Module { folder: join(&folder, key), class: self::class(types) });
            }
        }
        Ok(modules)
    }

    /// A network's folder without its weights; for a bare checkpoint the query table beside it too.
    fn transformer(&mut self, folder: &str) -> Result<()> {
        for name in FOLDER_FILES.into_iter().chain(TOKENIZER_FILES) {
            self.file(&join(folder, name))?;
        }
        for name in code_files(&self.json(&join(folder, "config.json"))) {
            let _ = self.file(&join(folder, &name))? || self.file(&name)?;
        }
        if folder.is_empty() && !self.files.iter().any(|file| file == "modules.json") {
            let _ = self.file("idf.json")? || self.file("query_token_weights.txt")?;
        }
        Ok(())
    }

    /// A query table's folder; the table and the tokenizer may also lie at the root.
    fn table(&mut self, folder: &str) -> Result<()> {
        for name in FOLDER_FILES.into_iter().chain(TOKENIZER_FILES) {
            self.file(&join(folder, name))?;
        }
        let named = self.json(&join(folder, "config.json"))["path"].as_str().map(str::to_owned);
        if !self.file(&join(folder, "model.safetensors"))?
            && let Some(name) = named
        {
            let _ = self.file(&join(folder, &name))? || self.file(&name)?;
        }
        if !self.files.contains(&join(folder, "tokenizer.json")) {
            self.file("tokenizer.json")?;
            self.file("tokenizer_config.json")?;
        }
        Ok(())
    }

    /// The ONNX file an encoder would take, and the file with its values if they lie apart.
    fn onnx_file(&mut self, folder: &str, precision: Precision) -> Result<bool> {
        for name in ONNX_FILES {
            let name = join(folder, &precision.file_name(name));
            if self.file(&name)? {
                self.file(&format!("{name}_data"))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The checkpoint in one file, or the index of its shards and every shard.
    fn weights(&mut self, folder: &str) -> Result<bool> {
        for name in CHECKPOINT_NAMES {
            let name = join(folder, name);
            if !self.file(&name)? {
                continue;
            }
            if is_index(Path::new(&name)) {
                let names = shard_names(&self.repo.snapshot(&self.commit).join(&name))?;
                for shard in names.into_values().collect::<BTreeSet<_>>() {
                    if self.file(&join(folder, &shard))? {
                        continue;
                    }
                    if self.client.is_none() {
                        return Err(self.not_cached(Some(&shard)).into());
                    }
                    return Err(HubError::input(
                        format!("{}: the shard {shard} that {name} names is not among its files", self.id),
                        "give another revision, or ask its authors to upload the shard",
                    )
                    .into());
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn no_weights(&self) -> HubError {
        if self.client.is_none() {
            return self.not_cached(Some("its weights"));
        }
        HubError::input(
            format!("{}: no weights: neither model.safetensors nor pytorch_model.bin among its files", self.id),
            "weights of other frameworks are not read; where it has ONNX files, --backend onnx may do",
        )
    }

    /// Whether the commit has this file, which then is in the snapshot.
    ///
    /// While offline, a file nothing is known about counts as one there is not.
    fn file(&mut self, name: &str) -> Result<bool> {
        check_name(name)?;
        if self.repo.snapshot(&self.commit).join(name).is_file() {
            return Ok(self.have(name));
        }
        if self.repo.is_absent(&self.commit, name) {
            return Ok(false);
        }
        self.list()?;
        let Some(listing) = &self.listing else { return Ok(false) };
        if !listing.contains(name) {
            self.repo.note_absent(&self.commit, name);
            return Ok(false);
        }
        let Some(client) = &self.client else { return Err(self.not_cached(Some(name)).into()) };
        Download { client, repo: &self.repo, id: self.id, commit: &self.commit, file: name }.run()?;
        Ok(self.have(name))
    }

    fn have(&mut self, name: &str) -> bool {
        if !self.files.iter().any(|file| file == name) {
            self.files.push(name.to_owned());
        }
        true
    }

    /// Asks which files the commit has, unless that is known or cannot be known.
    fn list(&mut self) -> Result<()> {
        let Some(client) = self.client.as_ref().filter(|_| self.listing.is_none()) else { return Ok(()) };
        let is_cached = self.repo.snapshot(&self.commit).is_dir();
        let again = if is_cached { |_: &HubError| false } else { HubError::is_busy };
        match patiently(again, || client.revision(self.id, &self.commit)) {
            Ok(revision) => self.listing = Some(revision.files),
            Err(error) if error.is_outage() && is_cached => self.go_on_without(error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The model, or a part of it, is missing, and nobody can be asked for it.
    fn not_cached(&self, what: Option<&str>) -> HubError {
        match self.outage.clone() {
            Some(outage) => outage.and_not_cached(self.id, what),
            None => HubError::offline(self.id, what),
        }
    }

    /// A JSON file of the snapshot; null where there is none or it is broken.
    fn json(&self, name: &str) -> Value {
        let bytes = std::fs::read(self.repo.snapshot(&self.commit).join(name)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// Refuses a network that cannot be loaded before its weights are fetched. A key that is not known is no reason: the
/// caller may say that it changes nothing.
#[cfg(feature = "train")]
fn check_config(model: &ModelDir) -> Result<()> {
    use splade_trainer::model::TransformerConfig;
    match TransformerConfig::of(model) {
        Err(error) if !error.unknown_config_keys().is_empty() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The code files a `config.json` names: they may tell how a checkpoint's head is meant, and go along into models trained
/// from it. None is ever run.
fn code_files(config: &Value) -> BTreeSet<String> {
    let classes = config["auto_map"].as_object().into_iter().flat_map(|map| map.values());
    // of another model's code there is nothing to learn
    let module =
        |class: &Value| Some(class.as_str()?.split_once('.')?.0.to_owned()).filter(|name| !name.contains("--"));
    let is_model = |name: &String| name.starts_with("modeling_") || name.starts_with("configuration_");
    let mut files: BTreeSet<String> =
        classes.filter_map(module).filter(is_model).map(|name| format!("{name}.py")).collect();
    if let Ok(family) = Family::of(config)
        && family.has_head_modes
    {
        // its text decides how logits are used, named or not
        files.extend(family.model_code().map(str::to_owned));
    }
    files
}

/// The last part of a class path.
fn class(path: &Value) -> String {
    path.as_str().and_then(|path| path.rsplit('.').next()).unwrap_or_default().to_owned()
}

fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{}/{name}", folder.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_model_itself_is_found() {
        let config = serde_json::json!({"auto_map": {
            "AutoConfig": "configuration_gptbert.ModernBertConfig",
            "AutoModel": "modeling_gptbert.GptBertModel",
            "AutoModelForMaskedLM": "modeling_gptbert.GptBertForMaskedLM",
            "AutoModelForQuestionAnswering": "other/model--modeling_other.Other",
            "AutoTokenizer": ["tokenization_x.Slow", null],
        }});
        let expected = ["configuration_gptbert.py", "modeling_gptbert.py"].map(str::to_owned);
        assert_eq!(code_files(&config), expected.into());
        assert!(code_files(&Value::Null).is_empty());
        let bare = serde_json::json!({"architectures": ["GptBertForMaskedLM"]});
        assert_eq!(code_files(&bare), ["modeling_gptbert.py".to_owned()].into());
    }

    #[test]
    fn parts_are_joined() {
        let joined = [("", "a", "a"), ("a", "", "a"), ("a", "b", "a/b"), ("a/", "b", "a/b"), ("", "", "")];
        joined.iter().for_each(|(folder, name, expected)| assert_eq!(join(folder, name), *expected));
    }
}
