//! Reports of a training: the plan and the data before it, the summary after it.

use splade_core::{DOCUMENT_SPARSITY, MillionEstimate, QUERY_ACTIVE_DIMS};
use splade_trainer::config::{Objective, Reporter};
use splade_trainer::data::{Lengths, SourceReport, TextReport};
use splade_trainer::{FitReport, GroupPlan, Plan, Sparsity, TrainConfig};

use crate::console::{count, size};

/// The plan of a training in a few lines.
pub(super) fn describe(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(checkpoint) = &plan.checkpoint {
        lines.push(format!("resumes {} after {} steps", checkpoint.display(), plan.first_step));
    }
    plan.sets.iter().for_each(|set| lines.extend(describe_set(set)));
    plan.texts.iter().for_each(|texts| lines.push(describe_texts(texts, plan.max_length)));
    if plan.pieces > 0 {
        lines.push(format!("{} pieces of running text", plan.pieces));
    }
    lines.push(format!(
        "{:.1} M parameters, {} terms; {} batches an epoch, {} steps; about {} for weights and optimizer{}",
        plan.parameters as f64 / 1e6,
        plan.dimensions,
        plan.batches_per_epoch,
        plan.total_steps,
        size(plan.state_bytes),
        plan.activation_bytes.map_or_else(String::new, |bytes| format!(", up to {} for a batch", size(bytes))),
    ));
    for GroupPlan { n_tensors, learning_rate, weight_decay } in &plan.groups {
        lines.push(format!(
            "parameter group: {n_tensors} tensors, learning rate {learning_rate:.1e}, weight decay {weight_decay}"
        ));
    }
    lines
}

fn describe_set(set: &SourceReport) -> Vec<String> {
    let left_out = set.left_out();
    let left_out = if left_out.is_empty() { left_out } else { format!(" (left out of {} rows: {left_out})", set.rows) };
    let dev = if set.dev > 0 { format!(", {} to evaluate on", set.dev) } else { String::new() };
    let mut lines = vec![format!("{}: {} examples{dev}{left_out}", set.name, set.train)];
    if set.split_by_negatives {
        let name = &set.name;
        lines.push(format!(
            "{name}: rows without a negative became the part {name}_pairs, since a batch has one shape; in a round both parts \
             are one set"
        ));
    }
    lines
}

fn describe_texts(texts: &TextReport, max_length: usize) -> String {
    let lengths = |Lengths { mean, p95, max, truncated, .. }: &Lengths| {
        let truncated = match *truncated > 0.0 {
            true => format!(", {:.1} % truncated to {max_length}", 100.0 * truncated),
            false => String::new(),
        };
        format!("{mean:.0} tokens (95 % at most {p95}, longest {max}{truncated})")
    };
    let TextReport { set, examples, sampled, queries, documents, duplicates, batches, false_negatives } = texts;
    let of = if sampled < examples { format!(", {sampled} examples measured") } else { String::new() };
    let mut parts = vec![format!("queries {}", lengths(queries)), format!("documents {}{of}", lengths(documents))];
    if *duplicates > 0 {
        parts.push(format!("{duplicates} duplicate rows"));
    }
    if *false_negatives > 0 {
        parts.push(format!("{false_negatives} false negatives in {batches} batches"));
    }
    format!("{set}: {}", parts.join("; "))
}

/// The result of a training in a few lines, with the next command.
pub(super) fn summary(config: &TrainConfig, report: &FitReport) -> Vec<String> {
    let training = &config.training;
    let mut lines = Vec::new();
    let end = if report.stopped_early { "stopped early after" } else { "done after" };
    let mut first = format!("{end} {} steps", report.steps);
    if let (Some(metric), Some(step)) = (report.best_metric, report.best_step) {
        first.push_str(&format!("; best {}: {metric:.4} at step {step}", training.metric_for_best_model));
    }
    first.push_str(&match &report.loaded {
        Some(checkpoint) => format!("; the result is the best checkpoint, {}", checkpoint.display()),
        None => "; the result is the model of the last step".to_owned(),
    });
    lines.push(first);
    lines.extend(report.sparsity.iter().flat_map(describe_sparsity));
    let output = training.output_dir.display();
    let events = match training.report_to.contains(&Reporter::Tensorboard) {
        true => format!(", curves: tensorboard --logdir {}", training.event_dir().display()),
        false => String::new(),
    };
    lines.push(format!("checkpoints and log.jsonl in {output}{events}"));
    if let Some(model) = &report.model {
        let model = model.display();
        lines.push(match training.objective {
            Objective::Retrieval => format!("next: splade export-onnx {model}"),
            Objective::Mlm => format!("next: splade train CONFIG.yaml --set model.base_model={model}"),
        });
    }
    lines
}

fn describe_sparsity(sparsity: &Sparsity) -> [String; 2] {
    let percent = |share: &f64| 100.0 * share;
    let million = MillionEstimate::of(sparsity.document_active_dims, sparsity.flops);
    [
        format!(
            "queries {:.1} active dims (target {:.0} to {:.0}), documents {:.0}, {:.1} % sparse (target {:.0} to {:.0} %); the \
             batches examined used {} of {} terms",
            sparsity.query_active_dims,
            QUERY_ACTIVE_DIMS.start(),
            QUERY_ACTIVE_DIMS.end(),
            sparsity.document_active_dims,
            percent(&sparsity.document_sparsity()),
            percent(DOCUMENT_SPARSITY.start()),
            percent(DOCUMENT_SPARSITY.end()),
            sparsity.used_terms,
            sparsity.dimensions,
        ),
        format!(
            "estimate for a million documents: an index of {} without the texts, {} postings a query before any is skipped",
            size(million.index_bytes),
            count(million.postings_per_query),
        ),
    ]
}
