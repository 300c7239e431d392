//! [`Family`]: the transformer that a `config.json` describes, and its limits on texts.
//!
//! [`FAMILIES`] has one row per family. The arithmetic of each family is in `splade-trainer`, one file per family.

use serde_json::Value;

/// A family of transformers with a masked-LM head, as its `config.json` describes it.
///
/// ```
/// use splade_files::{FAMILIES, Family};
///
/// // the head of the class does not matter
/// for class in ["BertForMaskedLM", "BertForPreTraining", "BertModel"] {
///     let config = serde_json::json!({"architectures": [class], "max_position_embeddings": 512});
///     let family = Family::of(&config)?;
///     assert_eq!((family.name, family.lengths(&config).longest), ("bert", 512));
/// }
/// // without a class, `model_type` counts
/// assert_eq!(Family::of(&serde_json::json!({"architectures": null, "model_type": "distilbert"}))?.name, "distilbert");
/// assert!(Family::of(&serde_json::json!({"model_type": "gpt2"})).is_err());
/// # Ok::<(), splade_files::UnknownFamily>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Name of the family in this project.
    pub name: &'static str,
    /// Values of `model_type`.
    pub model_types: &'static [&'static str],
    /// Prefixes of class names, without the head: `Bert` for `BertForMaskedLM` and `BertModel`.
    pub classes: &'static [&'static str],
    /// Rule for the length of texts.
    pub length_rule: LengthRule,
    /// True if the published logits have no zeros, so that a [`HeadMode`](splade_core::HeadMode) is needed.
    pub has_head_modes: bool,
    /// Python files that its `config.json` may name.
    pub code_files: &'static [&'static str],
}

/// Rule for the length of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthRule {
    /// One row of a table per position: `max_position_embeddings` rows, `rows` if the key is absent.
    Table {
        /// default of the family
        rows: usize,
    },
    /// One row of a table per position, without the first rows up to `pad_token_id`.
    TableAfterPadding {
        /// default of `max_position_embeddings`
        rows: usize,
        /// default of `pad_token_id`
        pad: usize,
    },
    /// Computed positions: a text may be longer than the training texts, whose length is under `key`.
    Computed {
        /// key in `config.json`
        key: &'static str,
        /// default of the family; `usize::MAX` if it has none
        trained: usize,
    },
}

/// Limits on the number of tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// length of the longest training text; `usize::MAX` if it is unknown
    pub trained: usize,
    /// length of the longest text that the network can compute; `usize::MAX` without a limit
    pub longest: usize,
}

/// All known families.
pub static FAMILIES: [Family; 6] = [
    Family {
        name: "norbert3",
        model_types: &["norbert3"],
        classes: &["Norbert"],
        length_rule: LengthRule::Computed { key: "max_position_embeddings", trained: 512 },
        has_head_modes: false,
        code_files: &["configuration_norbert.py", "modeling_norbert.py"],
    },
    Family {
        name: "norbert4",
        model_types: &["norbert4"],
        classes: &["GptBert"],
        length_rule: LengthRule::Computed { key: "max_sequence_length", trained: usize::MAX },
        has_head_modes: true,
        code_files: &["configuration_gptbert.py", "modeling_gptbert.py"],
    },
    Family {
        name: "bert",
        model_types: &["bert"],
        classes: &["Bert"],
        length_rule: LengthRule::Table { rows: 512 },
        has_head_modes: false,
        code_files: &[],
    },
    Family {
        name: "distilbert",
        model_types: &["distilbert"],
        classes: &["DistilBert"],
        length_rule: LengthRule::Table { rows: 512 },
        has_head_modes: false,
        code_files: &[],
    },
    Family {
        name: "roberta",
        model_types: &["roberta", "xlm-roberta"],
        classes: &["Roberta", "XLMRoberta"],
        length_rule: LengthRule::TableAfterPadding { rows: 512, pad: 1 },
        has_head_modes: false,
        code_files: &[],
    },
    Family {
        name: "modernbert",
        model_types: &["modernbert"],
        classes: &["ModernBert"],
        length_rule: LengthRule::Computed { key: "max_position_embeddings", trained: 8192 },
        has_head_modes: false,
        code_files: &[],
    },
];

/// Reason why the family of a `config.json` is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownFamily {
    /// No key names a model.
    #[error("no architectures, auto_map or model_type: the architecture is not stated")]
    NotStated,
    /// The file names an unknown model.
    #[error("unsupported architecture {0}")]
    Unsupported(String),
}

impl Family {
    /// Returns the family of a `config.json`.
    ///
    /// The first of these decides: a class of `architectures`, with any head; the class that `auto_map` names for masked-LM
    /// models; `model_type` (as in transformers' `AutoModelForMaskedLM`); NorBERT4's `model`. An unknown class is an error
    /// even if `model_type` is known: custom code may compute something else.
    ///
    /// # Errors
    /// A file without a model, or with an unknown one.
    pub fn of(config: &Value) -> Result<&'static Self, UnknownFamily> {
        if let Some(class) = stated_class(config) {
            return Self::of_class(class).ok_or_else(|| UnknownFamily::Unsupported(class.to_owned()));
        }
        let names = ["model_type", "model"].iter().filter_map(|key| text(config.get(*key)?));
        let mut stated = None;
        for name in names {
            if let Some(family) = FAMILIES.iter().find(|family| family.model_types.contains(&name)) {
                return Ok(family);
            }
            stated = stated.or(Some(name));
        }
        Err(stated.map_or(UnknownFamily::NotStated, |name| UnknownFamily::Unsupported(name.to_owned())))
    }

    /// Returns the family with this [`name`](Self::name).
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    fn of_class(class: &str) -> Option<&'static Self> {
        let of_stem = |stem: &str| FAMILIES.iter().find(|family| family.classes.contains(&stem));
        let stem = stem(class);
        // a model of another framework
        of_stem(stem).or_else(|| of_stem(stem.strip_prefix("TF").or_else(|| stem.strip_prefix("Flax"))?))
    }

    /// The Python files with the forward pass among [`code_files`](Self::code_files).
    pub fn model_code(&self) -> impl Iterator<Item = &'static str> {
        self.code_files.iter().copied().filter(|name| name.starts_with("modeling_"))
    }

    /// Returns the limits on texts that a `config.json` of this family sets.
    #[must_use]
    pub fn lengths(&self, config: &Value) -> Lengths {
        let number = |key: &str, default: usize| {
            let number = config.get(key).and_then(Value::as_u64);
            number.map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX))
        };
        match self.length_rule {
            LengthRule::Table { rows } => {
                let longest = number("max_position_embeddings", rows);
                Lengths { trained: longest, longest }
            }
            LengthRule::TableAfterPadding { rows, pad } => {
                let first = number("pad_token_id", pad).saturating_add(1);
                let longest = number("max_position_embeddings", rows).saturating_sub(first);
                Lengths { trained: longest, longest }
            }
            LengthRule::Computed { key, trained } => Lengths { trained: number(key, trained), longest: usize::MAX },
        }
    }
}

/// Returns the class a `config.json` states: `architectures`, else what `auto_map` names for masked-LM models.
#[must_use]
pub fn stated_class(config: &Value) -> Option<&str> {
    let architectures = config.get("architectures");
    let listed = match architectures {
        Some(Value::Array(names)) => names.iter().find_map(text),
        Some(name) => text(name),
        None => None,
    };
    listed.or_else(|| {
        let map = config.get("auto_map")?;
        let class = ["AutoModelForMaskedLM", "AutoModel"].iter().find_map(|key| text(map.get(*key)?))?;
        // `repository--module.Class` or `module.Class`
        class.rsplit('.').next()
    })
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// Name of a class without its head.
fn stem(class: &str) -> &str {
    match class.split_once("For") {
        Some((stem, _)) => stem,
        None => ["LMHeadModel", "PreTrainedModel", "Model"]
            .iter()
            .find_map(|suffix| class.strip_suffix(suffix))
            .unwrap_or(class),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_spelling_names_its_family() {
        let cases = [
            (json!({"architectures": ["BertForPreTraining"]}), "bert"),
            (json!({"architectures": ["BertModel"], "model_type": "bert"}), "bert"),
            (json!({"architectures": ["BertLMHeadModel"]}), "bert"),
            (json!({"architectures": ["TFBertForMaskedLM"]}), "bert"),
            (json!({"architectures": ["FlaxRobertaForMaskedLM"]}), "roberta"),
            (json!({"architectures": "BertForMaskedLM"}), "bert"),
            (json!({"architectures": null, "model_type": "bert"}), "bert"),
            (json!({"architectures": [], "model_type": "distilbert"}), "distilbert"),
            (json!({"architectures": [null], "model_type": "xlm-roberta"}), "roberta"),
            (json!({"architectures": ["", "RobertaModel"]}), "roberta"),
            (json!({"model_type": "modernbert"}), "modernbert"),
            // a class counts before model_type: the published NorBERT code inherits from others
            (json!({"architectures": ["GptBertForMaskedLM"], "model_type": "modernbert"}), "norbert4"),
            (json!({"architectures": ["NorbertForSequenceClassification"], "model_type": ""}), "norbert3"),
            (json!({"auto_map": {"AutoModelForMaskedLM": "modeling_norbert.NorbertForMaskedLM"}}), "norbert3"),
            (json!({"auto_map": {"AutoModel": "ltg/norbert4-base--modeling_gptbert.GptBertModel"}}), "norbert4"),
            (json!({"model": "norbert4"}), "norbert4"),
        ];
        for (config, name) in cases {
            assert_eq!(Family::of(&config).map(|family| family.name), Ok(name), "{config}");
        }
        for family in &FAMILIES {
            for class in family.classes {
                for head in ["ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "Model"] {
                    let config = json!({"architectures": [format!("{class}{head}")]});
                    assert_eq!(Family::of(&config), Ok(family), "{config}");
                }
            }
            for model_type in family.model_types {
                assert_eq!(Family::of(&json!({"model_type": model_type})), Ok(family));
            }
            assert_eq!(Family::named(family.name), Some(family));
        }
    }

    #[test]
    fn no_family_is_guessed() {
        let unsupported = |name: &str| Err(UnknownFamily::Unsupported(name.to_owned()));
        let cases = [
            (json!({}), Err(UnknownFamily::NotStated)),
            (json!({"architectures": null, "model_type": ""}), Err(UnknownFamily::NotStated)),
            (json!({"architectures": 3, "model_type": [1]}), Err(UnknownFamily::NotStated)),
            (json!({"architectures": ["NewForMaskedLM"], "model_type": "new"}), unsupported("NewForMaskedLM")),
            // BERT by name and other arithmetic
            (
                json!({"architectures": ["JinaBertForMaskedLM"], "model_type": "bert"}),
                unsupported("JinaBertForMaskedLM"),
            ),
            (
                json!({"auto_map": {"AutoModelForMaskedLM": "modeling_bert.JinaBertForMaskedLM"}, "model_type": "bert"}),
                unsupported("JinaBertForMaskedLM"),
            ),
            (
                json!({"architectures": ["ReformerForMaskedLM"], "model_type": "bert"}),
                unsupported("ReformerForMaskedLM"),
            ),
            (json!({"architectures": ["XLMRobertaXLForMaskedLM"]}), unsupported("XLMRobertaXLForMaskedLM")),
            (json!({"model_type": "bert-generation"}), unsupported("bert-generation")),
        ];
        for (config, expected) in cases {
            assert_eq!(Family::of(&config), expected, "{config}");
        }
    }

    #[test]
    fn lengths_follow_the_positions_of_the_family() {
        let cases = [
            ("bert", json!({"max_position_embeddings": 96}), 96, 96),
            ("bert", json!({}), 512, 512),
            ("roberta", json!({"max_position_embeddings": 514, "pad_token_id": 1}), 512, 512),
            ("roberta", json!({"max_position_embeddings": 514, "pad_token_id": 9}), 504, 504),
            ("roberta", json!({"max_position_embeddings": 1, "pad_token_id": 9}), 0, 0),
            ("modernbert", json!({}), 8192, usize::MAX),
            ("norbert3", json!({"max_position_embeddings": 64}), 64, usize::MAX),
            ("norbert4", json!({"max_sequence_length": 128, "max_position_embeddings": 5}), 128, usize::MAX),
        ];
        for (name, config, trained, longest) in cases {
            let lengths = Family::named(name).unwrap().lengths(&config);
            assert_eq!(lengths, Lengths { trained, longest }, "{name} {config}");
        }
    }
}
