//! `config.json` of a transformer: which family it is of, its sizes, and keys that are not known.

use std::path::Path;

use serde_json::Value;
use splade_core::HeadMode;
use splade_files::{Family, ModelDir};

use super::declaration::{Declaration, Declared};
use super::families::TransformerConfig;
use super::masked_lm::Activations;
use super::problem::ConfigProblem;
use crate::{Error, Result};

impl TransformerConfig {
    /// Reads the transformer of a model folder; its logits are used as the folder or its opener says.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but for the keys that the folder's opener has ignored.
    pub fn of(model: &ModelDir) -> Result<Self> {
        let path = model.config_path();
        let text = splade_files::read_text(&path)?;
        let mut config = Self::parse_ignoring(&text, &path, model.ignored_config_keys())?;
        if let Some(choice) = model.head_choice() {
            config.set_head_mode(choice.mode).map_err(|problem| Error::ModelConfig { path, problem })?;
        }
        Ok(config)
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// A file that is missing, or what [`parse`](Self::parse) refuses.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&splade_files::read_text(path)?, path)
    }

    /// Reads the text of a `config.json`; `path` is for messages only.
    ///
    /// # Errors
    /// Broken JSON, a model of no family here, a key that is unknown, missing or has a value it cannot have.
    pub fn parse(json: &str, path: &Path) -> Result<Self> {
        Self::parse_ignoring(json, path, &[])
    }

    fn parse_ignoring(json: &str, path: &Path, ignored: &[String]) -> Result<Self> {
        let config = serde_json::from_str(json).map_err(ConfigProblem::from);
        config
            .and_then(|value| Self::from_value(&value, ignored))
            .map_err(|problem| Error::ModelConfig { path: path.to_owned(), problem })
    }

    /// Reads and checks a config; unknown keys are refused unless they are `ignored`.
    fn from_value(value: &Value, ignored: &[String]) -> Result<Self, ConfigProblem> {
        let family = Family::of(value)?;
        let config = Self::deserialize(family.name, value)
            .ok_or_else(|| splade_files::UnknownFamily::Unsupported(family.name.to_owned()))??;
        check_general_keys(value)?;
        let mut unknown: Vec<String> =
            config.unknown_keys(value).filter(|key| !ignored.contains(key)).cloned().collect();
        unknown.sort();
        if !unknown.is_empty() {
            return Err(ConfigProblem::UnknownKeys(unknown));
        }
        config.as_masked_lm().check()?;
        Ok(config)
    }

    /// Keys of a `config.json` that this family does not read and that are not known to be harmless.
    fn unknown_keys<'v>(&self, value: &'v Value) -> impl Iterator<Item = &'v String> {
        let known = self.to_value().unwrap_or_default();
        let harmless = self.as_masked_lm().harmless_keys();
        value.as_object().into_iter().flat_map(|keys| keys.keys()).filter(move |key| {
            let name = key.as_str();
            known.get(name).is_none()
                && !harmless.contains(&name)
                && !HARMLESS.contains(&name)
                && !name.starts_with('_')
        })
    }

    /// The bytes of a `config.json` without the keys that were ignored when it was read, so that a model trained from it
    /// can be read as it is.
    pub(crate) fn without_unknown_keys(&self, json: Vec<u8>) -> Vec<u8> {
        let Ok(mut value) = serde_json::from_slice::<Value>(&json) else { return json };
        let unknown: Vec<String> = self.unknown_keys(&value).cloned().collect();
        let Some(keys) = value.as_object_mut().filter(|_| !unknown.is_empty()) else { return json };
        for key in &unknown {
            keys.remove(key);
        }
        format!("{value:#}\n").into_bytes()
    }

    /// The family's row in the table of families.
    ///
    /// # Panics
    /// Never: a test holds the two lists together.
    fn family(&self) -> &'static Family {
        Family::named(self.family_name()).expect("every family has its row")
    }

    /// Use of the logits of a NorBERT4 model; `None` for families where there is nothing to choose.
    #[must_use]
    pub fn head_mode(&self) -> Option<HeadMode> {
        self.as_masked_lm().head_mode()
    }

    /// Chooses the use of the logits of a NorBERT4 model.
    ///
    /// # Errors
    /// A family where there is nothing to choose.
    pub fn set_head_mode(&mut self, mode: HeadMode) -> Result<(), ConfigProblem> {
        if self.as_masked_lm_mut().set_head_mode(mode) { Ok(()) } else { Err(ConfigProblem::NoHeadModes) }
    }

    /// The parameters the forward pass reads from a checkpoint that holds `present` (none for a new model).
    ///
    /// # Errors
    /// Those of the family.
    pub fn parameters(&self, present: impl IntoIterator<Item = String>) -> Result<Vec<Declared>> {
        let declaration = Declaration::new(present);
        self.forward(&declaration, &declaration.inputs())?;
        Ok(declaration.into_declared())
    }

    /// V: the length of a document vector.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.as_masked_lm().vocab_size()
    }

    /// Length of the longest text in tokens that the position table allows; `None` for families without such a table.
    #[must_use]
    pub fn max_positions(&self) -> Option<usize> {
        let longest = self.family().lengths(&self.to_value().ok()?).longest;
        (longest < usize::MAX).then_some(longest)
    }

    /// Sizes of what the layers keep for the backward pass, to estimate memory.
    #[must_use]
    pub fn activations(&self) -> Activations {
        self.as_masked_lm().activations()
    }

    /// True if exported files have the input `token_type_ids`, as the family's own export would.
    #[must_use]
    pub fn has_token_types(&self) -> bool {
        self.as_masked_lm().has_token_types()
    }

    /// Names of an output matrix and the embedding it is tied to when the two are equal.
    #[must_use]
    pub fn tied(&self) -> (&'static str, &'static str) {
        self.as_masked_lm().tied()
    }

    /// True if an output matrix equal to the embedding is the same parameter (`tie_word_embeddings`).
    #[must_use]
    pub fn ties_output(&self) -> bool {
        self.as_masked_lm().ties_output()
    }
}

/// Keys that libraries and tools write into any config and that change nothing in a masked-LM model's forward pass.
///
/// They are settings of generation, of heads for other tasks, of tokenizers (which are read from their own files), of
/// training, of devices and compilers (`xla_device`, `neuron`), and notes about where a file is from.
const HARMLESS: [&str; 104] = [
    "add_cross_attention",
    "additional_special_tokens",
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token",
    "cls_token_id",
    "commit_hash",
    "cross_attention_hidden_size",
    "custom_pipelines",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_lower_case",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "export_model_type",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_composition",
    "is_decoder",
    "is_encoder_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "language",
    "length_penalty",
    "loss_type",
    "mask_token",
    "mask_token_id",
    "matryoshka_dimensions",
    "max_length",
    "max_seq_length",
    "min_length",
    "model_max_length",
    "model_type",
    "name",
    "name_or_path",
    "neuron",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_all_encoded_layers",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sentence_transformers",
    "sep_token",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_last_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "transformers_weights",
    "typical_p",
    "unk_token",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
    "use_flash_attention_2",
    "version",
    "vocab_file",
    "xla_device",
];

/// Checks general keys with values that would change the forward pass.
fn check_general_keys(value: &Value) -> Result<(), ConfigProblem> {
    let allow = |key: &str, allowed: &[Value]| match value.get(key) {
        Some(found) if !found.is_null() && !allowed.contains(found) => {
            Err(ConfigProblem::value(key, format!("{found} is not supported")))
        }
        _ => Ok(()),
    };
    allow("position_embedding_type", &["absolute".into(), "sans_pos".into()])?;
    allow("is_decoder", &[false.into()])?;
    allow("add_cross_attention", &[false.into()])?;
    allow("is_encoder_decoder", &[false.into()])?;
    allow("quantization_config", &[])?;
    match value.get("pruned_heads").and_then(Value::as_object) {
        Some(heads) if !heads.is_empty() => Err(ConfigProblem::value("pruned_heads", "pruned heads are not supported")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use splade_files::FAMILIES;

    use super::*;

    /// The configs of the fixtures, one or more per family.
    fn configs() -> Vec<Value> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("config.json"));
        let configs: Vec<Value> = entries
            .filter(|path| path.is_file())
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect();
        assert!(configs.len() >= FAMILIES.len());
        configs
    }

    #[test]
    fn every_family_has_its_row_a_fixture_and_the_same_defaults() {
        let mut seen = std::collections::BTreeSet::new();
        for value in configs() {
            let config = TransformerConfig::from_value(&value, &[]).unwrap();
            assert_eq!(config.family(), Family::of(&value).unwrap());
            seen.insert(config.family_name());
        }
        assert_eq!(
            seen.into_iter().collect::<std::collections::BTreeSet<_>>(),
            FAMILIES.iter().map(|f| f.name).collect()
        );
        let mut compared = 0;
        for family in &FAMILIES {
            // NorBERT4 has no defaults
            if let Some(Ok(config)) = TransformerConfig::deserialize(family.name, &json!({})) {
                let stated = config.to_value().unwrap();
                assert_eq!(family.lengths(&json!({})), family.lengths(&stated), "{}", family.name);
                compared += 1;
            }
        }
        assert_eq!(compared, FAMILIES.len() - 1);
    }

    #[test]
    fn a_family_is_found_under_every_spelling() {
        for value in configs() {
            let expected = TransformerConfig::from_value(&value, &[]).unwrap();
            let family = expected.family();
            let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut value = value.clone();
                change(value.as_object_mut().unwrap());
                TransformerConfig::from_value(&value, &[])
            };
            for class in family.classes {
                for head in ["Model", "ForPreTraining", "ForSequenceClassification", "ForMaskedLM"] {
                    let found =
                        with(&|keys| _ = keys.insert("architectures".into(), json!([format!("{class}{head}")])));
                    assert_eq!(found.unwrap(), expected, "{class}{head}");
                }
            }
            for model_type in family.model_types {
                let found = with(&|keys| {
                    keys.remove("architectures");
                    keys.remove("auto_map");
                    keys.insert("model_type".into(), json!(model_type));
                });
                assert_eq!(found.unwrap(), expected, "model_type {model_type}");
            }
            let nulled = with(&|keys| {
                keys.insert("architectures".into(), Value::Null);
                keys.entry("model_type").or_insert(json!(family.model_types[0]));
            });
            assert_eq!(nulled.unwrap(), expected);
        }
    }

    #[test]
    fn what_transformers_5_writes_is_read() {
        // `BertConfig().to_json_string(use_diff=False)` and its sisters of transformers 5.24, without the sizes
        let general = json!({
            "_name_or_path": "", "add_cross_attention": false, "architectures": null, "bos_token_id": null,
            "chunk_size_feed_forward": 0, "classifier_dropout": null, "dtype": null, "eos_token_id": null,
            "id2label": {"0": "LABEL_0"}, "is_decoder": false, "is_encoder_decoder": false, "label2id": {"LABEL_0": 0},
            "output_attentions": false, "output_hidden_states": false, "pad_token_id": 0, "problem_type": null,
            "return_dict": true, "tie_word_embeddings": true, "transformers_version": "5.24.0", "use_cache": true,
        });
        for model_type in ["bert", "distilbert", "roberta", "xlm-roberta", "modernbert"] {
            let mut value = general.clone();
            value["model_type"] = json!(model_type);
            TransformerConfig::from_value(&value, &[]).unwrap();
        }
    }

    #[test]
    fn unknown_keys_stop_a_load_unless_they_are_ignored() {
        for mut value in configs() {
            value["xla_device"] = json!(true);
            value["neuron"] = json!({"compiler_version": "2.1", "dynamic_batch_size": false});
            value["do_lower_case"] = json!(true);
            let expected = TransformerConfig::from_value(&value, &[]).unwrap();
            value["sliding_dilation"] = json!(2);
            value["twist"] = json!(true);
            let problem = TransformerConfig::from_value(&value, &[]).unwrap_err();
            assert_eq!(problem.to_string(), "the keys sliding_dilation, twist are not known to this architecture");
            let one = TransformerConfig::from_value(&value, &["twist".to_owned()]).unwrap_err();
            assert!(matches!(one, ConfigProblem::UnknownKeys(keys) if keys == ["sliding_dilation"]));
            let ignored = ["sliding_dilation".to_owned(), "twist".to_owned()];
            assert_eq!(TransformerConfig::from_value(&value, &ignored).unwrap(), expected);
            // a key that is known to change the numbers cannot be ignored away
            value["is_decoder"] = json!(true);
            let ignored = [&ignored[..], &["is_decoder".to_owned()]].concat();
            assert!(TransformerConfig::from_value(&value, &ignored).is_err());
        }
    }
}
