//! `splade eval-mteb`: data folders → scores and result files, with the metrics and in the layout of mteb.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use splade_core::{Encoder, SparseVector, flops};
use splade_eval::{
    DEFAULT_SUBSET, KnownTask, MAIN_SCORE, ModelMeta, Run, TASK_GROUPS, Task, TaskResult, compare_results,
    is_trec_word, known_tasks, read_mteb_results, stage_mteb_results, task_group,
};
use splade_files::{AtomicFile, ModelDir};

use crate::cli::{EvalMtebArgs, Mode};
use crate::console::Table;
use crate::encoders::{document_encoder, query_encoder, read_as};
use crate::evaluation::{Encoders, TaskEvaluation, evaluate_task, model_name};
use crate::failure::bad_input;
use crate::hub::{self, Origin, Wants};
use crate::outputs::{NewFolders, print, refuse_existing, say};
use crate::tasks::{self, Wanted, label};

/// Scores in the table; result files have further scores.
const SHOWN: [&str; 5] = ["ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10"];

pub(crate) fn run(args: &EvalMtebArgs) -> Result<()> {
    let Some(model) = args.model.as_deref().filter(|_| !args.list) else { return list(args) };
    let tasks = tasks(args)?;
    let place = hub::locate(model, Wants::encoder(&args.network))?;
    let model = read_as(ModelDir::open(&place.folder)?, &args.network.reading)?;
    let output = ResultFolder {
        results: args.output_dir.join("results"),
        meta: meta(&model, place.origin.as_ref(), args)?,
        args,
    };
    output.refuse_existing(&tasks)?;
    // before the evaluation, so that a wrong path fails at once
    let baseline = args.baseline.as_deref().map(read_mteb_results).transpose()?;
    let encoders = encoders(&model, args)?;
    let mut finished: Vec<FinishedTask> = Vec::new();
    // all subsets of a task have one result file, so they are evaluated together
    for subsets in tasks.chunk_by(|a, b| a.data.name == b.data.name) {
        let task = evaluate_subsets(subsets, &encoders, args).and_then(|mut task| {
            output.write(&task)?;
            // rankings take memory, and only scores are needed from here on
            task.subsets
                .iter_mut()
                .flat_map(|(_, evaluation)| &mut evaluation.modes)
                .for_each(|mode| mode.run = Run::default());
            Ok(task)
        });
        finished.push(task.map_err(|error| with_state(error, &finished, args))?);
    }
    let evaluated: Vec<(&Task, &TaskEvaluation)> =
        finished.iter().flat_map(|task| task.subsets.iter().map(|(task, evaluation)| (*task, evaluation))).collect();
    if args.json { print_json(&evaluated, args) } else { print_tables(&evaluated, args) }?;
    if let Some(baseline) = &baseline {
        let ours: Vec<TaskResult> = finished.iter().map(|task| task.results[0].clone()).collect();
        print_comparison(&ours, baseline, args)?;
    }
    tracing::info!("results are in {}", args.output_dir.display());
    Ok(())
}

/// Prints the known tasks, of one language if it is named.
fn list(args: &EvalMtebArgs) -> Result<()> {
    let language = Some(args.language.as_str()).filter(|language| *language != "none");
    let is_listed = |task: &&KnownTask| language.is_none_or(|language| task.is_in(language));
    let listed: Vec<&KnownTask> = known_tasks().iter().filter(is_listed).collect();
    if listed.is_empty() {
        return Err(bad_input(
            format!("no known task is in the language {}", args.language),
            "give a code such as nb, nn, no, da, sv or en",
        ));
    }
    if args.json {
        let tasks = listed.iter().map(|task| {
            json!({
                "task": task.name,
                "dataset": task.dataset,
                "revision": task.revision,
                "splits": task.splits,
                "languages": task.languages,
                "groups": groups(task),
            })
        });
        return say(format_args!("{:#}", json!({"tasks": tasks.collect::<Vec<_>>()})));
    }
    let mut table = Table::new(["task", "languages", "split", "groups", "data set"]).with_text(&[1, 2, 3, 4]);
    for task in listed {
        let codes = task.languages.values().flatten().map(|tag| tag.split('-').next().unwrap_or(tag));
        let codes = codes.collect::<BTreeSet<&str>>().into_iter().collect::<Vec<_>>().join(" ");
        let row = [&task.name, &codes, &task.splits.join(" "), &groups(task).join(", "), &task.dataset];
        table.row(row.map(String::as_str));
    }
    print(table)
}

/// Groups that have a task.
fn groups(task: &KnownTask) -> Vec<&'static str> {
    let has = |group: &&str| task_group(group).is_some_and(|tasks| tasks.iter().any(|known| known.name == task.name));
    TASK_GROUPS.into_iter().filter(has).collect()
}

/// Task with all its subsets evaluated.
struct FinishedTask<'a> {
    name: String,
    subsets: Vec<(&'a Task, TaskEvaluation)>,
    /// one for each mode, in their order
    results: Vec<TaskResult>,
}

/// Selected tasks, with `--ignore-identical-ids` applied.
fn tasks(args: &EvalMtebArgs) -> Result<Vec<Task>> {
    if args.data.is_empty() && args.tasks.is_empty() {
        return Err(bad_input("no task to evaluate on", "name tasks with --tasks, or data folders with --data"));
    }
    let mut tasks = tasks::find(&Wanted {
        names: &args.tasks,
        folders: &args.data,
        split: args.split.as_deref(),
        nano_beir: &args.nanobeir_dataset,
    })?;
    for task in &mut tasks {
        task.data.ignore_identical_ids = args.ignore_identical_ids.unwrap_or(task.data.ignore_identical_ids);
        if args.save_runs {
            task.judged.queries.iter().try_for_each(|query| trec_id(task, "query", &query.id))?;
        }
    }
    Ok(tasks)
}

/// Refuses an id that a TREC run cannot express.
fn trec_id(task: &Task, what: &str, id: &str) -> Result<()> {
    if is_trec_word(id) {
        return Ok(());
    }
    let message =
        format!("{}: {what} id '{id}' is empty or has white space, which a TREC run cannot express", label(task));
    Err(bad_input(message, "leave out --save-runs"))
}

fn evaluate_subsets<'a>(subsets: &'a [Task], encoders: &Encoders, args: &EvalMtebArgs) -> Result<FinishedTask<'a>> {
    let start = Instant::now();
    let first = &subsets[0].data;
    let mut results = vec![TaskResult::new(&first.name, &first.dataset_revision); args.modes.len()];
    let mut evaluated = Vec::new();
    for task in subsets {
        let check_id = |id: &str| if args.save_runs { trec_id(task, "document", id) } else { Ok(()) };
        let evaluation = evaluate_task(task, encoders, &args.modes, args.language.parse()?, check_id)?;
        for (result, mode) in results.iter_mut().zip(&evaluation.modes) {
            let data = &task.data;
            result.add(&data.split, &data.subset, data.languages.clone(), mode.mteb.clone());
        }
        evaluated.push((task, evaluation));
    }
    for result in &mut results {
        result.evaluation_time = Some(start.elapsed().as_secs_f64());
        result.date = json!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
    Ok(FinishedTask { name: first.name.clone(), subsets: evaluated, results })
}

/// Adds to an error the tasks whose results were written before it.
fn with_state(error: anyhow::Error, finished: &[FinishedTask], args: &EvalMtebArgs) -> anyhow::Error {
    if finished.is_empty() {
        return error;
    }
    let names: Vec<&str> = finished.iter().map(|task| task.name.as_str()).collect();
    error.context(format!(
        "results of {} are complete in {}, further results were not written",
        names.join(", "),
        args.output_dir.display()
    ))
}

/// Folder of a model's results, with a folder below it for each further mode.
struct ResultFolder<'a> {
    results: PathBuf,
    meta: ModelMeta,
    args: &'a EvalMtebArgs,
}

impl ResultFolder<'_> {
    fn of(&self, mode: Mode) -> Result<PathBuf> {
        Ok(self.meta.results_folder(&self.results, experiment(mode))?)
    }

    fn refuse_existing(&self, tasks: &[Task]) -> Result<()> {
        for mode in &self.args.modes {
            let folder = self.of(*mode)?;
            for task in tasks {
                refuse_existing(&folder.join(format!("{}.json", task.data.name)), self.args.overwrite)?;
            }
        }
        Ok(())
    }

    /// Writes all files of a task to disk before the first of them appears under its name.
    fn write(&self, task: &FinishedTask) -> Result<()> {
        let folders: Vec<_> = self.args.modes.iter().map(|mode| self.of(*mode)).collect::<Result<_>>()?;
        // dropped after the staged files, whose folders are then empty
        let folders: Vec<_> = folders.iter().map(|folder| NewFolders::above(&folder.join("run.trec"))).collect();
        let mut staged = Vec::new();
        for (position, mode) in self.args.modes.iter().enumerate() {
            if self.args.save_runs {
                let folder = self.of(*mode)?;
                for (data, evaluation) in &task.subsets {
                    staged.push(stage_run(&folder, data, *mode, &evaluation.modes[position].run)?);
                }
            }
            let result = &task.results[position..=position];
            staged.extend(stage_mteb_results(&self.results, &self.meta, experiment(*mode), result)?);
        }
        staged.into_iter().try_for_each(|file| file.commit())?;
        folders.into_iter().for_each(NewFolders::keep);
        Ok(())
    }
}

fn stage_run(folder: &Path, task: &Task, mode: Mode, run: &Run) -> Result<AtomicFile> {
    let subset = if task.data.subset == DEFAULT_SUBSET { String::new() } else { format!(".{}", task.data.subset) };
    let path = folder.join(format!("{}{subset}.run.trec", task.data.name));
    let mut file = AtomicFile::create(&path)?;
    run.write_trec(&mut file, &format!("splade-{}", mode.name())).with_context(|| path.display().to_string())?;
    file.sync()?;
    Ok(file)
}

fn meta(model: &ModelDir, origin: Option<&Origin>, args: &EvalMtebArgs) -> Result<ModelMeta> {
    let name = match (&args.model_name, origin) {
        (Some(name), _) => name.clone(),
        (None, Some(origin)) => origin.id.clone(),
        (None, None) => format!("local/{}", model_name(model)?),
    };
    let mut meta = ModelMeta::new(name);
    if let Some(origin) = origin {
        meta.revision.clone_from(&origin.commit);
    }
    meta.embed_dim = Some(model.dimensions()?);
    meta.max_tokens = Some(args.network.max_length.map_or(model.max_length() as u64, u64::from));
    Ok(meta)
}

/// Experiment of mteb under which a mode's results are filed; sparse results are the model's own.
fn experiment(mode: Mode) -> Option<&'static str> {
    (mode != Mode::Sparse).then(|| mode.name())
}

/// Encoders of the model. BM25 alone needs no vectors, so no network runs.
fn encoders(model: &ModelDir, args: &EvalMtebArgs) -> Result<Encoders> {
    if args.modes.iter().all(|mode| *mode == Mode::Bm25) && !args.analyze_sparsity {
        let dimensions = model.dimensions()?;
        return Ok(Encoders { query: Box::new(NoVectors(dimensions)), document: Box::new(NoVectors(dimensions)) });
    }
    Ok(Encoders {
        query: query_encoder(model, &args.network)?,
        document: Box::new(document_encoder(model, &args.network)?),
    })
}

/// Encoder for BM25 alone, which needs no vectors: every vector is empty.
struct NoVectors(usize);

impl Encoder for NoVectors {
    fn dimensions(&self) -> usize {
        self.0
    }

    fn encode(&self, texts: &[&str]) -> splade_core::Result<Vec<SparseVector>> {
        Ok(vec![SparseVector::default(); texts.len()])
    }
}

fn print_tables(evaluated: &[(&Task, &TaskEvaluation)], args: &EvalMtebArgs) -> Result<()> {
    let mut table = Table::new(["task", "mode"].into_iter().chain(SHOWN));
    for (task, evaluation) in evaluated {
        for (mode, scored) in args.modes.iter().zip(&evaluation.modes) {
            let shown = SHOWN.map(|name| format!("{:.4}", scored.mteb.get(name).unwrap_or(f64::NAN)));
            table.row([label(task), mode.name().to_owned()].into_iter().chain(shown));
        }
    }
    print(table)?;
    if args.analyze_sparsity {
        print(format_args!("\n{}", sparsity_table(evaluated)))?;
    }
    Ok(())
}

fn sparsity_table(evaluated: &[(&Task, &TaskEvaluation)]) -> Table {
    let heading = ["task", "side", "vectors", "active dims", "p50", "p95", "max", "sparsity", "used dims", "FLOPS"];
    let mut table = Table::new(heading);
    for (task, evaluation) in evaluated {
        let (queries, documents) = (evaluation.task.query_stats(), evaluation.task.document_stats());
        let cost = flops(&queries, documents);
        for (side, stats) in [("query", &queries), ("document", documents)] {
            let report = stats.report();
            table.row([
                label(task),
                side.to_owned(),
                report.count.to_string(),
                format!("{:.1}", report.active_dims_mean),
                report.active_dims_p50.to_string(),
                report.active_dims_p95.to_string(),
                report.active_dims_max.to_string(),
                format!("{:.4}", report.sparsity_ratio),
                report.used_dims.to_string(),
                format!("{cost:.2}"),
            ]);
        }
    }
    table
}

fn print_json(evaluated: &[(&Task, &TaskEvaluation)], args: &EvalMtebArgs) -> Result<()> {
    let of_task = |(task, evaluation): &(&Task, &TaskEvaluation)| -> Result<Value> {
        let mut modes = serde_json::Map::new();
        for (mode, scored) in args.modes.iter().zip(&evaluation.modes) {
            modes.insert(mode.name().into(), serde_json::to_value(&scored.mteb)?);
        }
        let mut value = json!({
            "task": task.data.name,
            "subset": task.data.subset,
            "split": task.data.split,
            "scores": modes,
            "documents_per_second": evaluation.documents_per_second,
        });
        if args.analyze_sparsity {
            let (queries, documents) = (evaluation.task.query_stats(), evaluation.task.document_stats());
            value["sparsity"] = json!({
                "queries": queries.report(),
                "documents": documents.report(),
                "flops": flops(&queries, documents),
            });
        }
        Ok(value)
    };
    let tasks = evaluated.iter().map(of_task).collect::<Result<Vec<_>>>()?;
    say(format_args!("{:#}", json!({"tasks": tasks})))
}

fn print_comparison(ours: &[TaskResult], baseline: &[TaskResult], args: &EvalMtebArgs) -> Result<()> {
    let comparisons = compare_results(ours, baseline, MAIN_SCORE);
    if comparisons.is_empty() {
        tracing::warn!("the baseline has no result of these tasks");
        return Ok(());
    }
    let mut table = Table::new(["task", "split", "subset", "baseline", args.modes[0].name(), "difference"]);
    for comparison in &comparisons {
        table.row([
            comparison.task_name.clone(),
            comparison.split.clone(),
            comparison.subset.clone(),
            format!("{:.4}", comparison.baseline),
            format!("{:.4}", comparison.ours),
            signed(comparison.difference()),
        ]);
    }
    if args.json {
        write!(std::io::stderr(), "{table}")?;
    } else {
        print(format_args!("\n{table}"))?;
    }
    Ok(())
}

/// Formats a difference with its sign and 4 decimals; a difference that rounds to zero is `+0.0000`.
fn signed(difference: f64) -> String {
    let text = format!("{difference:+.4}");
    if text == "-0.0000" { "+0.0000".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_that_rounds_to_zero_is_positive() {
        assert_eq!([-1e-9, -0.0, 0.0, -0.5, 0.25].map(signed), ["+0.0000", "+0.0000", "+0.0000", "-0.5000", "+0.2500"]);
    }
}
