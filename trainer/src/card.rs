//! Model card: README.md with front matter for the Hub.

use serde_json::Value;
use splade_files::Architecture;

use crate::checkpoint::TrainerState;
use crate::config::{Objective, TrainConfig};

/// Text of the card of a model trained by `config` on `sets` (names and numbers of examples), with the last evaluation of
/// `state`.
pub(crate) fn card(config: &TrainConfig, sets: &[(String, usize)], state: &TrainerState, has_code: bool) -> String {
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
    let front = front.join("\n");
    let parts = [
        format!("---\n{front}\n---\n\n# {title}\n\n{how}\n"),
        description(config, card.language.as_slice(), card.license.as_deref()),
        usage(config, has_code),
        last_evaluation(state),
        training(config, sets, state),
        citations(config),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Facts about the model, as a list.
fn description(config: &TrainConfig, language: &[String], license: Option<&str>) -> String {
    let base = config.model.base_model.as_deref().filter(|base| is_hub_id(base));
    let facts = [
        ("Model type", Some("sparse encoder (SPLADE)".to_owned())),
        ("Base model", base.map(str::to_owned)),
        ("Maximum length", Some(format!("{} tokens", config.training.max_seq_length))),
        ("Similarity", Some("dot product".to_owned())),
        ("Pooling", Some(format!("{:?} over tokens", config.model.pooling_strategy).to_lowercase())),
        ("Language", (!language.is_empty()).then(|| language.join(", "))),
        ("License", license.map(str::to_owned)),
    ];
    let lines = facts.iter().filter_map(|(name, value)| Some(format!("- **{name}:** {}\n", value.as_ref()?)));
    format!("## Model\n\n{}", lines.collect::<String>())
}

/// Commands and Python code that use the model, by its id if it is uploaded to the Hub.
fn usage(config: &TrainConfig, has_code: bool) -> String {
    let id = config.training.hub.as_ref().and_then(|hub| hub.model_id.as_deref());
    let model = id.filter(|id| id.contains('/')).unwrap_or("MODEL");
    let trust = if has_code { ", trust_remote_code=True" } else { "" };
    format!(
        "\
## Usage

```sh
splade index {model} --input corpus.jsonl --index corpus.index
splade search --index corpus.index 'a question'
```

```python
from sentence_transformers import SparseEncoder

model = SparseEncoder(\"{model}\"{trust})
queries = model.encode_query([\"a question\"])
documents = model.encode_document([\"a passage\"])
print(model.similarity(queries, documents))
```
"
    )
}

/// Data, loss, hyperparameters and the log.
fn training(config: &TrainConfig, sets: &[(String, usize)], state: &TrainerState) -> String {
    let sets: String = sets.iter().map(|(name, examples)| format!("- {name}: {examples} examples\n")).collect();
    let (training, loss) = (&config.training, &config.loss);
    let query_weight = loss.query_regularizer_weight.map_or_else(|| "none".to_owned(), |weight| format!("{weight:e}"));
    let loss = match training.objective {
        Objective::Mlm => "masked-language model".to_owned(),
        Objective::Retrieval => format!(
            "{} with {}, document regularizer {:e}, query regularizer {query_weight}, {} ramp over {:.0} % of the steps",
            loss.loss_type.name(),
            loss.inner_loss.name(),
            loss.document_regularizer_weight,
            loss.regularizer_schedule.name(),
            100.0 * loss.regularizer_warmup_ratio,
        ),
    };
    let epoch = state.epoch;
    format!(
        "\
## Training

{sets}- {steps} optimizer steps, {epoch:.2} epochs
- Loss: {loss}
- Batch: {batch} examples, {accumulation} batches a step, sampler {sampler}, sets {strategy}
- Learning rate: {rate:e} (query table {table:e}), warm-up {warmup}, weight decay {decay}, gradient norm {norm}
- Seed: {seed}
- Trained with splade {version}
{log}",
        steps = state.global_step,
        batch = training.per_device_train_batch_size,
        accumulation = training.gradient_accumulation_steps,
        sampler = training.batch_sampler.name(),
        strategy = config.datasets.sampling_strategy.name(),
        rate = training.learning_rate,
        table = training.query_learning_rate,
        warmup = training.warmup_ratio,
        decay = training.weight_decay,
        norm = training.max_grad_norm,
        seed = training.seed,
        version = env!("CARGO_PKG_VERSION"),
        log = log_table(config, state),
    )
}

/// Losses and the metric that decided, at up to twenty steps.
fn log_table(config: &TrainConfig, state: &TrainerState) -> String {
    const ROWS: usize = 20;
    let metric = &config.training.metric_for_best_model;
    let number = |line: &serde_json::Map<String, Value>, key: &str| line.get(key).and_then(Value::as_f64);
    let mut rows: Vec<(u64, f64, Option<f64>, Option<f64>)> = Vec::new();
    for line in &state.log_history {
        let (Some(step), Some(epoch)) = (line.get("step").and_then(Value::as_u64), number(line, "epoch")) else {
            continue;
        };
        let (loss, value) = (number(line, "loss"), number(line, metric));
        match rows.last_mut().filter(|row| row.0 == step) {
            Some(row) => (row.2, row.3) = (row.2.or(loss), row.3.or(value)),
            None if loss.is_some() || value.is_some() => rows.push((step, epoch, loss, value)),
            None => {}
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let every = rows.len().div_ceil(ROWS);
    let last = rows.len() - 1;
    let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let shown = rows.iter().enumerate().filter(|(at, row)| at % every == 0 || *at == last || row.3.is_some());
    let lines = shown.map(|(_, (step, epoch, loss, value))| {
        let best = if state.best_global_step.is_some_and(|best| best as u64 == *step) { "**" } else { "" };
        format!("| {step} | {epoch:.2} | {} | {best}{}{best} |\n", cell(*loss), cell(*value))
    });
    let metric = metric.strip_prefix("eval_").unwrap_or(metric);
    format!("\n| step | epoch | training loss | {metric} |\n|--:|--:|--:|--:|\n{}", lines.collect::<String>())
}

fn citations(config: &TrainConfig) -> String {
    if config.training.objective == Objective::Mlm {
        return String::new();
    }
    "\
## Citations

- SPLADE: Formal et al., From Distillation to Hard Negative Sampling, <https://arxiv.org/abs/2205.04733>
- FLOPS regularizer: Paria et al., Minimizing FLOPs to Learn Efficient Sparse Representations, <https://arxiv.org/abs/2004.05665>
- Ranking loss: Henderson et al., Efficient Natural Language Response Suggestion, <https://arxiv.org/abs/1705.00652>
- Sentence Transformers: Reimers and Gurevych, <https://arxiv.org/abs/1908.10084>
"
    .to_owned()
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
    let is_evaluation = |line: &&serde_json::Map<String, Value>| line.keys().any(|key| key.contains("ndcg@10"));
    let is_best = |line: &&serde_json::Map<String, Value>| {
        line.get("step").and_then(Value::as_u64).map(|step| step as usize) == state.best_global_step
    };
    let evaluations = || state.log_history.iter().rev().filter(is_evaluation);
    let evaluated = evaluations().find(is_best).or_else(|| evaluations().next());
    let Some(line) = evaluated else { return String::new() };
    let shown = line.iter().filter(|(key, _)| {
        ["ndcg@10", "mrr@10", "map@100", "recall@10", "accuracy@10", "active_dims", "sparsity_ratio", "avg_flops"]
            .iter()
            .any(|part| key.contains(part))
    });
    let rows: String = shown
        .filter_map(|(key, value)| {
            Some(format!("| {} | {:.4} |\n", key.strip_prefix("eval_").unwrap_or(key), value.as_f64()?))
        })
        .collect();
    let step = line.get("step").and_then(Value::as_u64).map_or_else(String::new, |step| format!("At step {step}:\n\n"));
    format!("## Evaluation\n\n{step}| measure | value |\n|---|--:|\n{rows}")
}
