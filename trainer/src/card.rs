//! Model card: README.md with front matter for the Hub.

use serde_json::Value;
use splade_files::Architecture;

use crate::checkpoint::TrainerState;
use crate::config::{Objective, TrainConfig};

/// Text of the card of a model trained by `config` on `sets` (names and numbers of examples), with the last evaluation of
/// `state`.
pub(crate) fn card(config: &TrainConfig, sets: &[(String, usize)], state: &TrainerState) -> String {
    let card = &config.model_card;
    let kind = match config.model.architecture {
        Architecture::InferenceFree => ["asymmetric", "inference-free", "splade"].as_slice(),
        Architecture::Splade => ["splade"].as_slice(),
    };
    let examples: usize = sets.iter().map(|(_, examples)| examples).sum();
    let mut tags: Vec<String> = ["sentence-transformers", "sparse-encoder", "sparse"].map(str::to_owned).to_vec();
    tags.extend(kind.iter().map(|tag| (*tag).to_owned()));
    if config.training.objective == Objective::Retrieval {
        tags.extend([format!("dataset_size:{examples}"), "loss:SpladeLoss".to_owned(), "loss:FlopsLoss".to_owned()]);
    }
    tags.extend(card.tags.iter().filter(|tag| !kind.contains(&tag.as_str())).cloned());
    let mut front = vec![
        list("language", &card.language),
        card.license.as_ref().map(|license| format!("license: {}", quoted(license))),
        list("tags", &tags),
        Some("pipeline_tag: feature-extraction".to_owned()),
        Some(format!("library_name: {}", quoted(&card.library_name))),
        config
            .model
            .base_model
            .as_ref()
            .filter(|base| is_hub_id(base))
            // the card has the name of the model without a revision
            .map(|base| format!("base_model: {}", quoted(base.split('@').next().unwrap_or(base)))),
        list("datasets", &card.datasets_used),
    ];
    front.retain(Option::is_some);
    let front: Vec<String> = front.into_iter().flatten().collect();
    let title = card.model_name.clone().unwrap_or_else(|| "SPLADE model".to_owned());
    let how = match config.model.architecture {
        Architecture::InferenceFree => {
            "Queries are tokenized and looked up in a table of learned weights, without a network; documents pass once \
             through a masked-language model, and every vocabulary term gets the largest log(1 + relu(logit)) over the tokens."
        }
        Architecture::Splade => {
            "Texts pass once through a masked-language model, and every vocabulary term gets the largest \
             log(1 + relu(logit)) over the tokens."
        }
    };
    let sets: String = sets.iter().map(|(name, examples)| format!("- {name}: {examples} examples\n")).collect();
    let evaluation = last_evaluation(state);
    format!(
        "---\n{}\n---\n\n# {title}\n\n{how}\n\nTrained with `splade`. It loads in sentence-transformers as \
         `SparseEncoder`.\n\n## Training\n\n{sets}- {} optimizer steps\n{evaluation}",
        front.join("\n"),
        state.global_step,
    )
}

fn list(key: &str, values: &[String]) -> Option<String> {
    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    (!values.is_empty()).then(|| format!("{key}: [{}]", values.join(", ")))
}

/// The text as a JSON string, which is always a YAML string too.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// True for `owner/name`, false for a path on disk.
fn is_hub_id(name: &str) -> bool {
    name.split('/').count() == 2 && !name.starts_with(['.', '/', '~']) && !std::path::Path::new(name).exists()
}

fn last_evaluation(state: &TrainerState) -> String {
    let evaluated = state.log_history.iter().rev().find(|line| line.keys().any(|key| key.contains("ndcg@10")));
    let Some(line) = evaluated else { return String::new() };
    let shown =
        line.iter().filter(|(key, _)| ["ndcg@10", "mrr@10", "active_dims"].iter().any(|part| key.contains(part)));
    let rows: String = shown
        .filter_map(|(key, value)| {
            Some(format!("| {} | {:.4} |\n", key.strip_prefix("eval_").unwrap_or(key), value.as_f64()?))
        })
        .collect();
    format!("\n## Evaluation\n\n| measure | value |\n|---|--:|\n{rows}")
}
