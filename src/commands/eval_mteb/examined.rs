//! Baseline, analysis of sparsity and report of `eval-mteb`.

use anyhow::Result;
use splade_core::Vocabulary;
use splade_eval::{Baseline, RunPart, Task};
use splade_files::ModelDir;

use super::rankings::name_of;
use super::results::ResultFolder;
use super::tables::{conditions_line, dense_table, facts_table, ranking_lines};
use super::{FinishedTask, Subset};
use crate::cli::{EvalMtebArgs, Mode, ReportFormat};
use crate::evaluation::System;
use crate::failure::bad_input;
use crate::report::mteb::{self, ReportedTask, TaskComparison};
use crate::report::{Block, Report};
use crate::tasks::label;

/// Comparisons of all tasks with the baseline.
pub(super) fn comparisons<'a>(finished: &'a [FinishedTask]) -> Vec<&'a TaskComparison> {
    let evaluated = finished.iter().flat_map(FinishedTask::evaluated);
    evaluated.flat_map(|(_, evaluation)| &evaluation.findings.comparisons).collect()
}

/// True if everything is examined that a report shows.
pub(super) fn is_full(args: &EvalMtebArgs) -> bool {
    args.report.is_some() || args.format() == ReportFormat::Md
}

/// Tokenizer without a maximum length, for explanations and analyses; none if nothing needs it.
pub(super) fn vocabulary(model: &ModelDir, args: &EvalMtebArgs) -> Result<Option<Vocabulary>> {
    let is_needed = args.analyze_sparsity || is_full(args) || args.baseline.is_some();
    Ok(if is_needed { Some(model.vocabulary(None)?.with_max_length(usize::MAX)?) } else { None })
}

/// Name and content of `--baseline`. Logs files that could not be read and tasks that it does not have.
pub(super) fn baseline(args: &EvalMtebArgs, tasks: &[Task]) -> Result<Option<(String, Baseline)>> {
    let Some(path) = &args.baseline else { return Ok(None) };
    let name = path.display().to_string();
    // of an output folder of this program, the results beside the summary
    let inner = path.join("results");
    let is_output = path.join("summary.json").is_file() && inner.is_dir();
    let baseline = Baseline::read(if is_output { &inner } else { path }, RunPart::default())?;
    match &baseline {
        Baseline::Run(_) if tasks.len() > 1 => {
            return Err(bad_input(
                format!("{name}: a run belongs to one task, and {} are evaluated", tasks.len()),
                "select one with --tasks, or name a results folder with runs in it (--save-runs)",
            ));
        }
        Baseline::Run(_) => {}
        Baseline::Models(models) => {
            models.iter().flat_map(|model| &model.remarks).for_each(|remark| tracing::warn!("{remark}"));
            let has = |task: &Task| {
                let data = &task.data;
                models
                    .iter()
                    .any(|model| model.find(&data.identity.name, &data.identity.split, &data.identity.subset).is_some())
            };
            let missing: Vec<String> = tasks.iter().filter(|task| !has(task)).map(label).collect();
            if !missing.is_empty() {
                tracing::warn!("{name}: no result of {}", missing.join(", "));
            }
        }
    }
    Ok(Some((name, baseline)))
}

/// The report of all tasks that this run evaluated, with the scores of imported runs.
pub(super) fn report(finished: &[FinishedTask], output: &ResultFolder<'_>, args: &EvalMtebArgs) -> Report {
    let names: Vec<String> = output.systems().iter().map(|system| name_of(*system, output.systems())).collect();
    let tasks: Vec<ReportedTask> =
        finished.iter().flat_map(|task| &task.subsets).filter_map(|subset| reported_task(subset, &names)).collect();
    let facts = format!(
        "Scores by the rules of MTEB. Tasks: {}. Stemmers of BM25: {}. splade {}",
        tasks.len(),
        stemmers(output.systems()),
        env!("CARGO_PKG_VERSION")
    );
    let mut facts = vec![Block::Text(facts), Block::Table(facts_table(finished))];
    facts.extend(dense_table(finished).map(Block::Table));
    facts.push(Block::Text(conditions_line(output.conditions())));
    facts.extend(ranking_lines(output).into_iter().map(Block::Text));
    mteb::report(format!("Evaluation of {}", output.model_name()), facts, &tasks, &args.comparison.into())
}

/// Names of the stemmers of BM25 in their order.
fn stemmers(systems: &[System]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for system in systems.iter().filter(|system| system.mode != Mode::Sparse) {
        let name = system.language.name();
        names.extend((!names.contains(&name)).then_some(name));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Subset with its systems and then its imported runs; none if an earlier run evaluated it.
fn reported_task<'a>(subset: &'a Subset, names: &'a [String]) -> Option<ReportedTask<'a>> {
    let evaluation = subset.evaluation.as_ref()?;
    let systems = names.iter().zip(&evaluation.modes).map(|(name, mode)| (name.as_str(), &mode.mteb));
    let imported = subset.imported.iter().map(|(name, scores)| (name.as_str(), scores));
    let systems = systems.chain(imported).collect();
    Some(ReportedTask { label: label(subset.task), systems, findings: &evaluation.findings })
}
