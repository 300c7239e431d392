//! Tables and JSON of `splade eval-mteb`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::{Scores, Task};

use super::conditions::Conditions;
use super::examined::comparisons;
use super::rankings::name_of;
use super::results::ResultFolder;
use super::{FinishedTask, Subset};
use crate::cli::{EvalMtebArgs, Mode};
use crate::console::Table;
use crate::evaluation::{DenseFacts, SideFacts};
use crate::outputs::{print, say};
use crate::report::{Report, SHOWN, Section, mteb};
use crate::sparsity::TaskSparsity;
use crate::tasks::label;

/// Prints the scores of every task and system, and the facts beside them.
pub(super) fn print_tables(finished: &[FinishedTask], output: &ResultFolder<'_>, args: &EvalMtebArgs) -> Result<()> {
    let mut table = Table::new(["task", "mode"].into_iter().chain(SHOWN));
    let mut row = |task: &Task, name: String, scores: &Scores| {
        let shown = SHOWN.map(|name| format!("{:.4}", scores.get(name).unwrap_or(f64::NAN)));
        table.row([label(task), name].into_iter().chain(shown));
    };
    for task in finished {
        for subset in &task.subsets {
            let of_subset = task.rows(output.systems()).filter(|(task, ..)| std::ptr::eq(*task, subset.task));
            of_subset.for_each(|(task, system, scores, _)| row(task, name_of(system, output.systems()), scores));
            subset.imported.iter().for_each(|(name, scores)| row(subset.task, name.clone(), scores));
        }
    }
    print(table)?;
    let has_sparse = args.modes.iter().any(|mode| matches!(mode, Mode::Sparse | Mode::Hybrid));
    let dense = dense_table(finished);
    if let Some(dense) = &dense {
        print(format_args!("\n{dense}"))?;
    }
    if has_sparse || args.analyze_sparsity {
        print(format_args!("\n{}{}\n", facts_table(finished), conditions_line(output.conditions())))?;
    } else {
        say("")?;
    }
    let rankings = ranking_lines(output);
    if !rankings.is_empty() {
        say(rankings.join("\n"))?;
    }
    let mut sections = mteb::sections(&comparisons(finished), &args.comparison.into());
    if args.analyze_sparsity {
        sections.extend(finished.iter().flat_map(FinishedTask::evaluated).filter_map(|(task, evaluation)| {
            let sparsity = evaluation.findings.sparsity.as_ref()?;
            Some(Section { heading: format!("{}: sparsity", label(task)), blocks: sparsity.blocks() })
        }));
    }
    if !sections.is_empty() {
        print(format_args!("\n{}", Report { title: String::new(), sections }.to_text()))?;
    }
    Ok(())
}

/// Facts beside the scores: a wrong setting shows here first.
pub(super) fn facts_table(finished: &[FinishedTask]) -> Table {
    let heading =
        ["task", "side", "texts", "active dims", "sparsity", "FLOPS", "truncated", "empty", "backend", "corpus"];
    let mut table = Table::new(heading).with_text(&[1, 8, 9]);
    for subset in finished.iter().flat_map(|task| &task.subsets) {
        let facts = &subset.facts;
        for (side, of_side) in [("query", &facts.queries), ("document", &facts.documents)] {
            table.row([
                label(subset.task),
                side.to_owned(),
                texts(of_side),
                format!("{:.1}", of_side.active_dims),
                format!("{:.4}", of_side.sparsity_ratio),
                format!("{:.2}", facts.flops),
                of_side.truncated.to_string(),
                of_side.empty.to_string(),
                of_side.backend.clone(),
                short(&facts.corpus_fingerprint),
            ]);
        }
    }
    table
}

/// Number of texts of a side, and that of their passages.
fn texts(side: &SideFacts) -> String {
    match side.passages {
        None => side.texts.to_string(),
        Some(passages) => format!("{} in {passages} passages", side.texts),
    }
}

/// Facts about dense vectors, which have no sparsity; none without a dense model.
pub(super) fn dense_table(finished: &[FinishedTask]) -> Option<Table> {
    let subsets = finished.iter().flat_map(|task| &task.subsets);
    let facts: Vec<(&Task, &DenseFacts)> =
        subsets.filter_map(|subset| Some((subset.task, subset.facts.dense.as_ref()?))).collect();
    if facts.is_empty() {
        return None;
    }
    let heading = ["task", "dense dims", "queries", "documents", "truncated", "empty", "backend", "dense model"];
    let mut table = Table::new(heading).with_text(&[6, 7]);
    for (task, facts) in facts {
        table.row([
            label(task),
            facts.dimensions.to_string(),
            facts.queries.to_string(),
            facts.documents.to_string(),
            facts.truncated.to_string(),
            facts.empty.to_string(),
            facts.backend.clone(),
            short(&facts.model),
        ]);
    }
    Some(table)
}

/// Model, precision and maximum length of all scores, in one line.
pub(super) fn conditions_line(conditions: &Conditions) -> String {
    let length = conditions.max_length.map_or_else(|| "none".to_owned(), |length| length.to_string());
    format!("model {}, precision {}, max length {length}", short(&conditions.model), conditions.precision)
}

/// Settings of the BM25 and hybrid rankings, a line each.
pub(super) fn ranking_lines(output: &ResultFolder<'_>) -> Vec<String> {
    let rankings = output.systems().iter().zip(output.conditions().rankings());
    let described =
        rankings.map(|(system, ranking)| (name_of(*system, output.systems()), ranking.describe(system.mode)));
    described
        .filter(|(_, settings)| !settings.is_empty())
        .map(|(name, settings)| format!("{name}: {settings}"))
        .collect()
}

/// First characters of a fingerprint.
fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(8).collect()
}

/// Prints scores and facts as one JSON document.
pub(super) fn print_json(finished: &[FinishedTask], output: &ResultFolder<'_>, args: &EvalMtebArgs) -> Result<()> {
    let of_subset = |task: &FinishedTask, subset: &Subset| -> Result<Value> {
        let mut modes = serde_json::Map::new();
        let of_subset = task.rows(output.systems()).filter(|(task, ..)| std::ptr::eq(*task, subset.task));
        for (_, system, scores, _) in of_subset {
            modes.insert(name_of(system, output.systems()), serde_json::to_value(scores)?);
        }
        for (name, scores) in &subset.imported {
            modes.insert(name.clone(), serde_json::to_value(scores)?);
        }
        let mut value = json!({
            "task": subset.task.data.identity.name,
            "subset": subset.task.data.identity.subset,
            "split": subset.task.data.identity.split,
            "scores": modes,
            "conditions": output.conditions_of(&subset.facts),
        });
        if let Some(evaluation) = &subset.evaluation {
            value["documents_per_second"] = json!(evaluation.documents_per_second);
        }
        if let Some(evaluation) = subset.evaluation.as_ref().filter(|_| args.analyze_sparsity) {
            value["sparsity"] = evaluation.findings.sparsity.as_ref().map(TaskSparsity::json).into();
        }
        Ok(value)
    };
    let subsets = finished.iter().flat_map(|task| task.subsets.iter().map(move |subset| (task, subset)));
    let tasks = subsets.map(|(task, subset)| of_subset(task, subset)).collect::<Result<Vec<_>>>()?;
    let rankings = output
        .systems()
        .iter()
        .map(|system| (name_of(*system, output.systems()), output.conditions().ranking(*system)));
    let rankings: BTreeMap<_, _> = rankings.filter(|(_, settings)| !settings.is_empty()).collect();
    let mut found = json!({"tasks": tasks});
    if !rankings.is_empty() {
        found["rankings"] = json!(rankings);
    }
    if args.baseline.is_some() {
        found["baselines"] = mteb::to_json(&comparisons(finished));
    }
    say(format_args!("{found:#}"))
}
