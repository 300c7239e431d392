//! Fingerprints of a model folder: one of everything that decides its vectors, one of its network.
//!
//! A fingerprint is the SHA-256 of lines `name value`. The names are written out here and not derived from names in the
//! code, so that a renamed variant does not invalidate every index. The value of a file is its SHA-256, that of a text
//! a JSON string, and that of an absent part `none`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use splade_core::{Pooling, PoolingActivation, Vocabulary, hex};

use crate::checkpoint_files::CHECKPOINT_NAMES;
use crate::json::read_json;
use crate::{Error, ModelDir, Result, open_file, read_vocabulary};

impl ModelDir {
    /// Returns the fingerprint of everything that decides a vector: config, weights, tokenizer, query table, pooling,
    /// prompts, length.
    ///
    /// # Errors
    /// A file that is missing.
    pub fn fingerprint(&self) -> Result<String> {
        let pooling = self.pooling();
        let strategy = match pooling.strategy {
            Pooling::Max => "max",
            Pooling::Sum => "sum",
        };
        let activation = match pooling.activation {
            PoolingActivation::Relu => "relu",
            PoolingActivation::Log1pRelu => "log1p-relu",
        };
        let mut text = Lines::new("splade model fingerprint 2");
        self.add_network(&mut text)?;
        text.add("tokenizer", self.network_tokenizer()?.fingerprint());
        text.add("query-weights", or_none(self.query_side().map(|side| file_digest(&side.weights)).transpose()?));
        text.add("pooling", strategy);
        text.add("activation", activation);
        text.add("query-prompt", Value::from(self.query_prompt()));
        text.add("document-prompt", Value::from(self.document_prompt()));
        text.add("max-length", or_none((self.max_length() < usize::MAX).then(|| self.max_length())));
        text.add("lower-case", self.lower_case());
        text.add("max-active-dims", or_none(self.max_active_dims()));
        text.add("mlm-head", or_none(self.head_choice().map(|head| head.mode.name())));
        Ok(text.digest())
    }

    /// Returns the fingerprint in the form of `stored`: [`fingerprint`](Self::fingerprint), or the form of version 0.1 if
    /// `stored` is that of this model. An index keeps the form of its first version.
    ///
    /// # Errors
    /// A file that is missing.
    pub fn fingerprint_like(&self, stored: &str) -> Result<String> {
        let current = self.fingerprint()?;
        if current == stored {
            return Ok(current);
        }
        Ok(Some(self.first_fingerprint()?).filter(|first| first == stored).unwrap_or(current))
    }

    /// Returns the fingerprint of the network, which is `config.json` and weights; none for a folder without weights.
    ///
    /// Pooling, head mode and tokenizer are not part of it: an ONNX file states its pooling and head mode itself.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn network_fingerprint(&self) -> Result<Option<String>> {
        let folder = self.transformer_dir();
        if !CHECKPOINT_NAMES.iter().any(|name| folder.join(name).is_file()) {
            return Ok(None);
        }
        let mut text = Lines::new("splade network fingerprint 1");
        self.add_network(&mut text)?;
        Ok(Some(text.digest()))
    }

    /// The `tokenizer.json` of the network with the overrides of the other files of its folder.
    fn network_tokenizer(&self) -> Result<Vocabulary> {
        read_vocabulary(&self.transformer_dir().join("tokenizer.json"), usize::MAX)
    }

    fn add_network(&self, text: &mut Lines) -> Result<()> {
        text.add("config", config_digest(&self.config_path())?);
        for shard in self.checkpoint()?.shards() {
            text.add("weights", file_digest(shard)?);
        }
        Ok(())
    }

    /// Fingerprint of version 0.1: one digest of all files and of settings in Rust's debug form.
    fn first_fingerprint(&self) -> Result<String> {
        let mut digest = Sha256::new();
        let (config, checkpoint) = (self.config_path(), self.checkpoint()?);
        for path in [config.as_path()].into_iter().chain(checkpoint.all()) {
            add_file(&mut digest, path)?;
        }
        digest.update(self.network_tokenizer()?.json());
        if let Some(side) = self.query_side() {
            add_file(&mut digest, &side.weights)?;
        }
        let pooling = self.pooling();
        let strategy = match pooling.strategy {
            Pooling::Max => "Max",
            Pooling::Sum => "Sum",
        };
        let activation = match pooling.activation {
            PoolingActivation::Relu => "Relu",
            PoolingActivation::Log1pRelu => "Log1pRelu",
        };
        let most = self.max_active_dims().map_or_else(|| "None".to_owned(), |k| format!("Some({k})"));
        digest.update(format!(
            "SpladePooling {{ strategy: {strategy}, activation: {activation} }} ({:?}, {:?}) {} {} {most}",
            self.query_prompt(),
            self.document_prompt(),
            self.max_length(),
            self.lower_case(),
        ));
        if let Some(head) = self.head_choice() {
            digest.update(head.mode.name());
        }
        Ok(hex(&digest.finalize()))
    }
}

/// Lines whose digest is a fingerprint.
struct Lines(String);

impl Lines {
    fn new(heading: &str) -> Self {
        Self(format!("{heading}\n"))
    }

    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        // writing to a String cannot fail
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn digest(self) -> String {
        hex(&Sha256::digest(self.0))
    }
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn file_digest(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    add_file(&mut digest, path)?;
    Ok(hex(&digest.finalize()))
}

fn add_file(digest: &mut Sha256, path: &Path) -> Result<()> {
    let mut file = open_file(path)?;
    std::io::copy(&mut file, digest).map_err(Error::io(path))?;
    Ok(())
}

/// Keys of `config.json` that no network depends on.
const RECORDS: [&str; 4] = ["_name_or_path", "transformers_version", "torch_dtype", "dtype"];

/// Digest of a `config.json` without [`RECORDS`]; the order of keys and white space do not matter.
fn config_digest(path: &Path) -> Result<String> {
    let mut config: Value = read_json(path)?;
    if let Some(keys) = config.as_object_mut() {
        RECORDS.iter().for_each(|name| _ = keys.shift_remove(*name));
    }
    config.sort_all_objects();
    Ok(hex(&Sha256::digest(config.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bare checkpoint whose weights are no more than a name.
    fn folder(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let files = [("config.json", config), ("tokenizer.json", TOKENIZER), ("model.safetensors", "weights")];
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    const TOKENIZER: &str = r#"{"added_tokens":[],"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0}}}"#;
    const CONFIG: &str = r#"{"architectures": ["BertForMaskedLM"], "vocab_size": 9, "max_position_embeddings": 16}"#;

    fn fingerprints(folder: &tempfile::TempDir) -> (String, String) {
        let model = ModelDir::open(folder.path()).unwrap();
        (model.fingerprint().unwrap(), model.network_fingerprint().unwrap().unwrap())
    }

    #[test]
    fn the_form_of_a_fingerprint_is_fixed() {
        let (whole, network) = fingerprints(&folder(CONFIG));
        assert_eq!(whole, "8c5f585c498819e0305245afcfec0379fb325407c728cffd88864b9f2f244edf");
        assert_eq!(network, "dfc4ba4e79d379327d0ac79d570aea6d90adc0068b6532a069f9387787fe8e59");
    }

    #[test]
    fn an_index_of_version_0_1_is_still_of_its_model() {
        let folder = folder(CONFIG);
        let model = ModelDir::open(folder.path()).unwrap();
        // what version 0.1 printed for this folder
        let first = "ee4b8e2e6e097fe5cd640351581dc7f3a6372e350d16786d4eceb8c8e7491427";
        assert_eq!(model.fingerprint_like(first).unwrap(), first);
        assert_eq!(model.fingerprint_like("of another model").unwrap(), model.fingerprint().unwrap());
        std::fs::write(folder.path().join("model.safetensors"), "others").unwrap();
        assert_ne!(ModelDir::open(folder.path()).unwrap().fingerprint_like(first).unwrap(), first);
    }

    #[test]
    fn fingerprints_that_version_0_1_wrote_are_known() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        for (folder, written) in [
            ("models/bert-tiny", "a8f2e664aaa2f78dd257306caade096f529dd389fbef1fe8b916bb675011e205"),
            ("sparse-encoder/inference-free/model", "1f01ac7b09fbd4559b326b132b95d9a5127d1fbd970690c02619c8db8fe1e0de"),
        ] {
            let model = ModelDir::open(&fixtures.join(folder)).unwrap();
            assert_eq!(model.fingerprint_like(written).unwrap(), written, "{folder}");
            assert_ne!(model.fingerprint().unwrap(), written);
        }
    }

    #[test]
    fn records_and_layout_of_a_config_do_not_matter_and_all_else_does() {
        let same = r#"{"vocab_size":9,"max_position_embeddings":16,"architectures":["BertForMaskedLM"],"dtype":"f"}"#;
        assert_eq!(fingerprints(&folder(CONFIG)), fingerprints(&folder(same)));
        let other = CONFIG.replace("16", "17");
        let (ours, theirs) = (fingerprints(&folder(CONFIG)), fingerprints(&folder(&other)));
        assert!(ours.0 != theirs.0 && ours.1 != theirs.1);
        let changed = folder(CONFIG);
        std::fs::write(changed.path().join("tokenizer.json"), TOKENIZER.replace("\"a\"", "\"b\"")).unwrap();
        let theirs = fingerprints(&changed);
        assert!(ours.0 != theirs.0 && ours.1 == theirs.1, "a tokenizer is no part of the network");
        std::fs::remove_file(changed.path().join("model.safetensors")).unwrap();
        let model = ModelDir::open(changed.path()).unwrap();
        assert_eq!(model.network_fingerprint().unwrap(), None);
        assert!(model.fingerprint().is_err());
    }
}
