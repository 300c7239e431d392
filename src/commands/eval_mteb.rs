//! `splade eval-mteb`: tasks → scores and result files, with the metrics and in the layout of mteb.

mod card;
mod conditions;
mod examined;
mod imported;
mod list;
mod rankings;
mod results;
mod sides;
mod tables;
mod unread;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::{ModelMeta, RetrievalScores, Run, Scores, Task, TaskResult, is_nano_beir_set};
use splade_files::ModelDir;

use self::conditions::Conditions;
use self::examined::{baseline, is_full, report, vocabulary};
use self::rankings::{Tuned, name_of, rankings, systems};
use self::results::{ResultFolder, trec_id};
use self::sides::{encoders, refuse_part_of_router};
use self::tables::{print_json, print_tables};
use crate::cli::{EvalMtebArgs, Mode, ReportFormat};
use crate::dense::DenseModel;
use crate::encoders::read_as;
use crate::evaluation::{
    Encoders, EvaluatedEngine, Examination, Facts, Survey, System, TaskEvaluation, VectorCache, evaluate_task,
    model_name,
};
use crate::failure::bad_input;
use crate::hub::{self, Origin, Wants};
use crate::outputs::{print, refuse_existing};
use crate::tasks::{self, Wanted};

pub(crate) fn run(args: &EvalMtebArgs) -> Result<()> {
    let Some(name) = args.model.as_deref().filter(|_| !args.list) else { return list::run(args) };
    let tuned = args.tuned.as_deref().map(Tuned::read).transpose()?;
    let systems = systems(args, tuned.as_ref())?;
    let rankings = rankings(&systems, tuned.as_ref(), args)?;
    unread::refuse(args)?;
    let imported = imported::read(&args.run, &args.modes)?;
    let tasks = tasks(args)?;
    let place = hub::locate(name, Wants::encoder(&args.network))?;
    let model = read_as(ModelDir::open(&place.folder)?, &args.network.reading)?;
    refuse_part_of_router(&model)?;
    if args.publish && place.origin.is_some() {
        return Err(bad_input("--publish writes into the model folder", "give a folder, not a model of the Hub"));
    }
    let dense = DenseModel::open(&args.dense, &args.network)?;
    let conditions = Conditions::of(&model, dense.as_ref(), &systems, rankings, args)?;
    let meta = ModelMeta { max_tokens: conditions.max_length, ..meta(&model, place.origin.as_ref(), args)? };
    let output = ResultFolder::new(meta, conditions, &systems, args);
    // before the evaluation, so that a wrong path fails at once
    if let Some(path) = &args.report {
        refuse_existing(path, args.overwrite)?;
    }
    let baseline = baseline(args, &tasks)?;
    let vocabulary = vocabulary(&model, args)?;
    let examination = Examination {
        names: systems.iter().map(|system| name_of(*system, &systems)).collect(),
        engine: None,
        vocabulary: vocabulary.as_ref(),
        analyses_sparsity: args.analyze_sparsity || is_full(args),
        is_reported: is_full(args),
        baseline: baseline.as_ref().map(|(name, baseline)| (name.as_str(), baseline)),
        resampling: args.comparison.into(),
    };
    if let Some(tuned) = &tuned {
        tuned.warn_of_seen_queries(&tasks);
    }
    let plans = plans(&tasks, &output, args)?;
    let engine = args.engine.map(|kind| EvaluatedEngine::open(kind, &args.at)).transpose()?;
    let examination = Examination { engine: engine.as_ref(), ..examination };
    let cache = if args.no_cache { VectorCache::NONE } else { VectorCache::of_user() };
    let encoders = Encoders {
        dense: output.conditions().cached_dense(dense.as_ref(), &cache),
        ..encoders(&model, output.conditions(), &cache, args)?
    };
    let mut finished: Vec<FinishedTask> = Vec::new();
    for plan in plans {
        let evaluated = evaluate_plan(plan, &encoders, &output, &examination);
        let mut task = evaluated.map_err(|error| with_state(error, &finished, args))?;
        imported::score(&mut task, &imported)?;
        finished.push(task);
    }
    output.append_mean(&nano_beir_scores(&finished, &systems))?;
    if args.publish {
        card::publish(&model, output.model_name(), &finished, &systems)?;
    }
    match args.format() {
        ReportFormat::Table => print_tables(&finished, &output, args)?,
        ReportFormat::Md => print(report(&finished, &output, args).to_markdown())?,
        ReportFormat::Json => print_json(&finished, &output, args)?,
    }
    if let Some(path) = &args.report {
        report(&finished, &output, args).write_html(path, args.overwrite)?;
        tracing::info!("the report is in {}", path.display());
    }
    cache.report();
    tracing::info!("results are in {}", args.output_dir.display());
    Ok(())
}

/// A task to evaluate with all its subsets, which have one result file.
struct Plan<'a> {
    subsets: Vec<(&'a Task, Survey)>,
    /// one for each system
    fingerprints: Vec<String>,
    /// results of an earlier run, one for each system
    finished: Option<Vec<TaskResult>>,
}

/// Reads every corpus once, and finds the tasks that an earlier run has finished.
fn plans<'a>(tasks: &'a [Task], output: &ResultFolder<'_>, args: &EvalMtebArgs) -> Result<Vec<Plan<'a>>> {
    let plan = |subsets: &'a [Task]| {
        let survey = |task: &'a Task| {
            let check_id = |id: &str| if args.save_runs { trec_id(task, "document", id) } else { Ok(()) };
            Ok((task, Survey::of_corpus(task, check_id)?))
        };
        let surveyed = subsets.iter().map(survey).collect::<Result<Vec<_>>>()?;
        let of_system = |system: &System| output.conditions().of_task(*system, &surveyed);
        let fingerprints: Vec<String> = output.systems().iter().map(of_system).collect();
        let finished = output.finished(subsets, &fingerprints)?;
        Ok(Plan { subsets: surveyed, fingerprints, finished })
    };
    tasks.chunk_by(|a, b| a.data.identity.name == b.data.identity.name).map(plan).collect()
}

/// Task with all its subsets evaluated, now or by an earlier run.
struct FinishedTask<'a> {
    name: String,
    subsets: Vec<Subset<'a>>,
    /// one for each system, in their order
    results: Vec<TaskResult>,
}

struct Subset<'a> {
    task: &'a Task,
    facts: Facts,
    /// none for an earlier run
    evaluation: Option<TaskEvaluation>,
    /// scores of runs that were read from files, by name
    imported: Vec<(String, Scores)>,
}

impl<'a> FinishedTask<'a> {
    /// Subsets that this run evaluated.
    fn evaluated(&self) -> impl Iterator<Item = (&'a Task, &TaskEvaluation)> {
        self.subsets.iter().filter_map(|subset| Some((subset.task, subset.evaluation.as_ref()?)))
    }

    /// Scores and facts of every subset and system.
    fn rows<'s>(&'s self, systems: &'s [System]) -> impl Iterator<Item = (&'a Task, System, &'s Scores, &'s Facts)> {
        self.subsets.iter().flat_map(move |subset| {
            systems.iter().zip(&self.results).filter_map(move |(system, result)| {
                let entries = result.scores.get(&subset.task.data.identity.split)?;
                let entry = entries.iter().find(|entry| entry.subset == subset.task.data.identity.subset)?;
                Some((subset.task, *system, &entry.scores, &subset.facts))
            })
        })
    }
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

fn evaluate_plan<'a>(
    plan: Plan<'a>,
    encoders: &Encoders<'_>,
    output: &ResultFolder<'_>,
    examination: &Examination,
) -> Result<FinishedTask<'a>> {
    let data = &plan.subsets[0].0.data;
    if let Some(task) = plan.finished.as_ref().and_then(|results| earlier(&plan, results)) {
        tracing::info!("{}: evaluated already under equal conditions; its results are taken", data.identity.name);
        output.summarize(&task)?;
        return Ok(task);
    }
    let systems = output.systems();
    let mut results = vec![TaskResult::new(&data.identity.name, &data.identity.dataset_revision); systems.len()];
    let mut seconds = vec![0.0; systems.len()];
    let mut subsets = Vec::new();
    for (task, survey) in &plan.subsets {
        let evaluation = evaluate_task(task, survey, encoders, systems, output.conditions().rankings(), examination)?;
        for (position, (result, mode)) in results.iter_mut().zip(&evaluation.modes).enumerate() {
            let data = &task.data;
            result.add(&data.identity.split, &data.identity.subset, data.identity.languages.clone(), mode.mteb.clone());
            let encode = match systems[position].mode {
                Mode::Bm25 => 0.0,
                Mode::Sparse => evaluation.encode_seconds - evaluation.dense_seconds,
                Mode::Dense => evaluation.dense_seconds,
                Mode::Hybrid => evaluation.encode_seconds,
            };
            seconds[position] += encode + evaluation.search_seconds[position];
        }
        let facts = evaluation.facts.clone();
        subsets.push(Subset { task, facts, evaluation: Some(evaluation), imported: Vec::new() });
    }
    for (result, seconds) in results.iter_mut().zip(seconds) {
        result.evaluation_time = Some(seconds);
        result.date = json!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
    let facts: Vec<(&Task, Facts)> = subsets.iter().map(|subset| (subset.task, subset.facts.clone())).collect();
    output.annotate(&mut results, &plan.fingerprints, &facts);
    let mut task = FinishedTask { name: data.identity.name.clone(), subsets, results };
    output.write(&task)?;
    output.summarize(&task)?;
    // rankings take memory, and only scores are needed from here on
    let evaluations = task.subsets.iter_mut().filter_map(|subset| subset.evaluation.as_mut());
    evaluations.flat_map(|evaluation| &mut evaluation.modes).for_each(|mode| mode.run = Run::default());
    Ok(task)
}

/// Task whose results are those of an earlier run; none if they lack the facts of a subset.
fn earlier<'a>(plan: &Plan<'a>, results: &[TaskResult]) -> Option<FinishedTask<'a>> {
    let noted = results.first()?.splade["subsets"].as_array()?;
    let subset = |(task, _): &(&'a Task, Survey)| {
        let is_it = |entry: &&Value| {
            entry["split"] == *task.data.identity.split && entry["subset"] == *task.data.identity.subset
        };
        let facts = serde_json::from_value(noted.iter().find(is_it)?["facts"].clone()).ok()?;
        Some(Subset { task, facts, evaluation: None, imported: Vec::new() })
    };
    let subsets = plan.subsets.iter().map(subset).collect::<Option<Vec<_>>>()?;
    Some(FinishedTask { name: plan.subsets[0].0.data.identity.name.clone(), subsets, results: results.to_vec() })
}

/// Scores of sentence-transformers on the sets of NanoBEIR that this run evaluated by their sparse vectors.
fn nano_beir_scores(finished: &[FinishedTask], systems: &[System]) -> Vec<RetrievalScores> {
    let Some(position) = systems.iter().position(|system| system.mode == Mode::Sparse) else { return Vec::new() };
    let evaluated = finished.iter().flat_map(FinishedTask::evaluated);
    let sets = evaluated.filter(|(task, _)| is_nano_beir_set(&task.data.identity.name));
    sets.map(|(_, evaluation)| evaluation.modes[position].retrieval.clone()).collect()
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
    Ok(meta)
}
