//! `splade eval-mteb`: tasks → scores and result files, with the metrics and in the layout of mteb.

mod card;
mod conditions;
mod examined;
mod imported;
mod list;
mod results;
mod sides;
mod tables;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use splade_eval::{MTEB_DEPTH, ModelMeta, RetrievalScores, Run, Scores, Task, TaskResult, is_nano_beir_set};
use splade_files::ModelDir;
use splade_index::{HybridSettings, ImpactIndex, Language};

use self::conditions::Conditions;
use self::examined::{baseline, is_full, report, vocabulary};
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
use crate::ranking::{Defaults, RankingSettings, expect_stop_words, resolve, warn_of_third_ranking};
use crate::tasks::{self, Wanted};

pub(crate) fn run(args: &EvalMtebArgs) -> Result<()> {
    let Some(name) = args.model.as_deref().filter(|_| !args.list) else { return list::run(args) };
    let tuned = args.tuned.as_deref().map(Tuned::read).transpose()?;
    let systems = systems(args, tuned.as_ref())?;
    let rankings = rankings(&systems, tuned.as_ref(), args)?;
    refuse_unread_dense(args)?;
    refuse_unread_engine(args)?;
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
    let plans = plans(&tasks, &output, args)?;
    let engine = args.engine.map(|kind| EvaluatedEngine::open(kind, &args.at)).transpose()?;
    let examination = Examination { engine: engine.as_ref(), ..examination };
    let cache = if args.no_cache { VectorCache::NONE } else { VectorCache::of_user() };
    let encoders = Encoders { dense: dense.as_ref(), ..encoders(&model, output.conditions(), &cache, args)? };
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

/// Refuses the dense mode without a model, and a model that no mode reads.
fn refuse_unread_dense(args: &EvalMtebArgs) -> Result<()> {
    let has = |mode| args.modes.contains(&mode);
    match args.dense.dense.is_some() {
        false if has(Mode::Dense) => Err(bad_input(
            "--modes dense: no dense model",
            "give one with --dense, or the run of one with --run dense=FILE and without the mode",
        )),
        true if !has(Mode::Dense) && !has(Mode::Hybrid) => Err(bad_input(
            "--dense has no effect without the modes dense and hybrid",
            "add one of these modes, or leave it out",
        )),
        _ => Ok(()),
    }
}

/// Refuses an engine without the mode that it answers, and the address of one that is not named.
fn refuse_unread_engine(args: &EvalMtebArgs) -> Result<()> {
    match args.engine {
        Some(_) if !args.modes.contains(&Mode::Sparse) => {
            Err(bad_input("--engine has no effect without the mode sparse", "add it to --modes, or leave --engine out"))
        }
        None if args.at.are_given() => Err(bad_input(
            "--url, --collection, --concurrency and the credentials of an engine need --engine",
            "name the engine, or leave them out",
        )),
        _ => Ok(()),
    }
}

/// Modes with their stemmers, each once: sparse and dense search have none, BM25 and hybrid search each stemmer in turn.
fn systems(args: &EvalMtebArgs, tuned: Option<&Tuned>) -> Result<Vec<System>> {
    let languages = match &args.language[..] {
        [] => vec![tuned.map_or_else(Language::default, |tuned| tuned.language)],
        names => names.iter().map(|name| Ok(name.parse()?)).collect::<Result<Vec<Language>>>()?,
    };
    let mut systems: Vec<System> = Vec::new();
    for mode in &args.modes {
        for language in &languages {
            let language = if matches!(mode, Mode::Sparse | Mode::Dense) { Language::None } else { *language };
            let system = System { mode: *mode, language };
            let is_new = !systems.contains(&system);
            systems.extend(is_new.then_some(system));
        }
    }
    Ok(systems)
}

/// Settings of hybrid search that were chosen for an index, and the stemmer that they were chosen with.
struct Tuned {
    language: Language,
    settings: HybridSettings,
}

impl Tuned {
    /// The settings of `--tuned`.
    fn read(folder: &Path) -> Result<Self> {
        let index = ImpactIndex::open(folder)?;
        let settings = index.read_hybrid_settings()?.ok_or_else(|| {
            bad_input(
                format!("{}: the index has no settings of hybrid search", folder.display()),
                "run `splade tune --hybrid` on it first",
            )
        })?;
        Ok(Self { language: index.settings().language, settings })
    }

    /// True if a system has BM25 with the stemmer of these settings.
    fn fits(&self, system: System) -> bool {
        system.mode != Mode::Sparse && system.language == self.language
    }
}

/// Settings of BM25 and hybrid rankings of each system, from the flags and from the index of `--tuned`.
fn rankings(systems: &[System], tuned: Option<&Tuned>, args: &EvalMtebArgs) -> Result<Vec<RankingSettings>> {
    if let Some(tuned) = tuned.filter(|tuned| !systems.iter().any(|system| tuned.fits(*system))) {
        let language = tuned.language;
        return Err(bad_input(
            format!(
                "--tuned has no effect: no bm25 or hybrid ranking of this run has the stemmer of the index, {language}"
            ),
            format!("add hybrid to --modes and {language} to --language, or leave --tuned out"),
        ));
    }
    expect_stop_words(&args.bm25, systems.iter().map(|system| system.language))?;
    let has_dense = args.dense.dense.is_some();
    if tuned.is_some() && has_dense && args.modes.contains(&Mode::Hybrid) {
        warn_of_third_ranking();
    }
    let of_system = |system: &System| {
        let tuned = tuned.filter(|tuned| tuned.fits(*system)).map(|tuned| &tuned.settings);
        let rankings = 2 + usize::from(has_dense);
        let defaults = Defaults { tuned, language: system.language, depth: MTEB_DEPTH, rankings };
        resolve(&args.modes, &args.fusion, &args.bm25, defaults)
    };
    systems.iter().map(of_system).collect()
}

/// Name of a system in tables and JSON: the mode, and the stemmer if the run has several.
fn name_of(system: System, systems: &[System]) -> String {
    let is_alone = systems.iter().filter(|other| other.mode == system.mode).count() == 1;
    let mode = system.mode.name();
    if is_alone { mode.to_owned() } else { format!("{mode} {}", system.language) }
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
    tasks.chunk_by(|a, b| a.data.name == b.data.name).map(plan).collect()
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
                let entries = result.scores.get(&subset.task.data.split)?;
                let entry = entries.iter().find(|entry| entry.subset == subset.task.data.subset)?;
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
        tracing::info!("{}: evaluated already under equal conditions; its results are taken", data.name);
        output.summarize(&task)?;
        return Ok(task);
    }
    let systems = output.systems();
    let mut results = vec![TaskResult::new(&data.name, &data.dataset_revision); systems.len()];
    let mut seconds = vec![0.0; systems.len()];
    let mut subsets = Vec::new();
    for (task, survey) in &plan.subsets {
        let evaluation = evaluate_task(task, survey, encoders, systems, output.conditions().rankings(), examination)?;
        for (position, (result, mode)) in results.iter_mut().zip(&evaluation.modes).enumerate() {
            let data = &task.data;
            result.add(&data.split, &data.subset, data.languages.clone(), mode.mteb.clone());
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
    let mut task = FinishedTask { name: data.name.clone(), subsets, results };
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
        let is_it = |entry: &&Value| entry["split"] == *task.data.split && entry["subset"] == *task.data.subset;
        let facts = serde_json::from_value(noted.iter().find(is_it)?["facts"].clone()).ok()?;
        Some(Subset { task, facts, evaluation: None, imported: Vec::new() })
    };
    let subsets = plan.subsets.iter().map(subset).collect::<Option<Vec<_>>>()?;
    Some(FinishedTask { name: plan.subsets[0].0.data.name.clone(), subsets, results: results.to_vec() })
}

/// Scores of sentence-transformers on the sets of NanoBEIR that this run evaluated by their sparse vectors.
fn nano_beir_scores(finished: &[FinishedTask], systems: &[System]) -> Vec<RetrievalScores> {
    let Some(position) = systems.iter().position(|system| system.mode == Mode::Sparse) else { return Vec::new() };
    let evaluated = finished.iter().flat_map(FinishedTask::evaluated);
    let sets = evaluated.filter(|(task, _)| is_nano_beir_set(&task.data.name));
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
