//! `splade eval-mteb`: data folders → scores, as mteb computes and files them.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use splade_core::{Encoder, Fusion, SparseVector, SparsityStats, encode_stream, flops};
use splade_eval::{
    MTEB_DEPTH, ModelMeta, Qrels, Run, Scores, TaskData, TaskResult, compare_results, mteb_scores, read_mteb_results,
    write_mteb_results,
};
use splade_files::{Document, ModelDir, Query};
use splade_index::{
    ImpactIndex, IndexSettings, Language, SearchOptions, Searcher, StoredDocument, WriterOptions, to_ranking,
};

use super::interrupt;
use crate::cli::{EvalMtebArgs, Mode};
use crate::console::{self, Table};
use crate::encoders::{document_encoder, query_encoder, read_as};
use crate::failure::bad_input;
use crate::hub::{self, Origin, Wants};
use crate::outputs::{refuse_existing, say};

/// The scores of the table; the result files have all of them.
const SHOWN: [&str; 5] = ["ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10"];

pub(crate) fn run(args: &EvalMtebArgs) -> Result<()> {
    let tasks = tasks(args)?;
    let place = hub::locate(&args.model, Wants::encoder(&args.network))?;
    let model = read_as(ModelDir::open(&place.folder)?, &args.network.reading)?;
    let meta = meta(&model, place.origin.as_ref(), args)?;
    let results_dir = args.output_dir.join("results");
    let folders: Vec<(Mode, PathBuf)> = args
        .modes
        .iter()
        .map(|mode| Ok((*mode, meta.results_folder(&results_dir, experiment(*mode))?)))
        .collect::<Result<_>>()?;
    for (_, folder) in &folders {
        for task in &tasks {
            refuse_existing(&folder.join(format!("{}.json", task.name)), args.overwrite)?;
        }
    }
    // before the work, so that a wrong path costs nothing
    let baseline = args.baseline.as_deref().map(read_mteb_results).transpose()?;
    let encoders = encoders(&model, args)?;
    let mut results: BTreeMap<(usize, String), TaskResult> = BTreeMap::new();
    let mut judged = Vec::new();
    for task in &tasks {
        let start = Instant::now();
        let outcome = evaluate(task, model.dimensions()?, &encoders, &args.modes, args.language.parse()?)?;
        for (position, (mode, folder)) in folders.iter().enumerate() {
            let (run, scores) = &outcome.modes[position];
            if args.save_runs {
                save_run(folder, task, *mode, run)?;
            }
            let result = results
                .entry((position, task.name.clone()))
                .or_insert_with(|| TaskResult::new(&task.name, &task.dataset_revision));
            result.add(&task.split, &task.subset, task.languages.clone(), scores.clone());
            result.evaluation_time = Some(result.evaluation_time.unwrap_or(0.0) + start.elapsed().as_secs_f64());
            result.date = json!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
        judged.push((task, outcome));
    }
    for (position, (mode, _)) in folders.iter().enumerate() {
        let of_mode: Vec<TaskResult> =
            results.iter().filter(|((at, _), _)| *at == position).map(|(_, result)| result.clone()).collect();
        write_mteb_results(&results_dir, &meta, experiment(*mode), &of_mode)?;
    }
    if args.json { print_json(&judged, args) } else { print_tables(&judged, args) }?;
    if let Some(baseline) = &baseline {
        let ours: Vec<TaskResult> =
            results.into_iter().filter(|((position, _), _)| *position == 0).map(|(_, result)| result).collect();
        print_comparison(&ours, baseline, args)?;
    }
    tracing::info!("results are in {}", args.output_dir.display());
    Ok(())
}

/// The tasks of data folders, each of which may be there once.
pub(super) fn open_tasks(folders: &[PathBuf], split: Option<&str>) -> Result<Vec<TaskData>> {
    let mut tasks = Vec::new();
    for folder in folders {
        tasks.extend(TaskData::open(folder, split)?);
    }
    let mut seen = HashSet::new();
    if let Some(twice) = tasks.iter().find(|task| !seen.insert((&task.name, &task.subset, &task.split))) {
        return Err(bad_input(format!("two data folders hold the task {}", twice.name), "name each folder once"));
    }
    Ok(tasks)
}

fn tasks(args: &EvalMtebArgs) -> Result<Vec<TaskData>> {
    let mut tasks = open_tasks(&args.data, args.split.as_deref())?;
    if !args.tasks.is_empty() {
        if let Some(name) = args.tasks.iter().find(|name| !tasks.iter().any(|task| task.name == **name)) {
            let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            return Err(bad_input(
                format!("no data folder holds the task {name}"),
                format!("found: {}", names.join(", ")),
            ));
        }
        tasks.retain(|task| args.tasks.contains(&task.name));
    }
    Ok(tasks)
}

fn meta(model: &ModelDir, origin: Option<&Origin>, args: &EvalMtebArgs) -> Result<ModelMeta> {
    let name = match (&args.model_name, origin) {
        (Some(name), _) => name.clone(),
        (None, Some(origin)) => origin.id.clone(),
        (None, None) => format!("local/{}", folder_name(model)?),
    };
    let mut meta = ModelMeta::new(name);
    if let Some(origin) = origin {
        meta.revision.clone_from(&origin.commit);
    }
    meta.embed_dim = Some(model.dimensions()?);
    meta.max_tokens = Some(args.network.max_length.map_or(model.max_length() as u64, u64::from));
    Ok(meta)
}

/// What a model is called by its folder.
pub(super) fn folder_name(model: &ModelDir) -> Result<String> {
    let folder = std::fs::canonicalize(model.root()).with_context(|| model.root().display().to_string())?;
    let name = folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    // `final` and `checkpoint-10` say nothing without the run they belong to
    Ok(match folder.parent().and_then(Path::file_name) {
        Some(run) if name == "final" || name.starts_with("checkpoint-") => format!("{}-{name}", run.to_string_lossy()),
        _ => name,
    })
}

/// Sparse results lie where mteb looks first; the other modes are mteb's "experiments" of the same model.
fn experiment(mode: Mode) -> Option<&'static str> {
    (mode != Mode::Sparse).then(|| mode.name())
}

fn save_run(folder: &Path, task: &TaskData, mode: Mode, run: &Run) -> Result<()> {
    let name = if task.subset == splade_eval::DEFAULT_SUBSET {
        format!("{}.run.trec", task.name)
    } else {
        format!("{}.{}.run.trec", task.name, task.subset)
    };
    let mut file = splade_files::AtomicFile::create(&folder.join(name))?;
    run.write_trec(&mut file, &format!("splade-{}", mode.name()))?;
    file.flush()?;
    Ok(file.commit()?)
}

/// Both sides of a model.
pub(super) struct Encoders {
    pub(super) query: Box<dyn Encoder>,
    pub(super) document: Box<dyn Encoder>,
}

/// The model's encoders; for BM25 alone no vectors are needed, and no network runs.
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

/// In the place of a model that nobody asks: every vector is zero.
struct NoVectors(usize);

impl Encoder for NoVectors {
    fn dimensions(&self) -> usize {
        self.0
    }

    fn encode(&self, texts: &[&str]) -> splade_core::Result<Vec<SparseVector>> {
        Ok(vec![SparseVector::default(); texts.len()])
    }
}

/// What one task gave: a run and its scores for each mode asked for, and what the vectors are like.
pub(super) struct Outcome {
    pub(super) modes: Vec<(Run, Scores)>,
    queries: SparsityStats,
    documents: SparsityStats,
    pub(super) documents_per_second: f64,
}

/// Encodes and indexes the corpus in a temporary folder, searches it in every mode, and scores the runs.
pub(super) fn evaluate(
    task: &TaskData,
    dimensions: usize,
    encoders: &Encoders,
    modes: &[Mode],
    language: Language,
) -> Result<Outcome> {
    let qrels = task.qrels()?;
    let queries = task.queries(&qrels)?;
    let folder = tempfile::Builder::new().prefix("splade-eval-").tempdir()?;
    let mut settings = IndexSettings::new(u32::try_from(dimensions)?, "evaluation", "evaluation");
    settings.language = language;
    let index = ImpactIndex::create(folder.path(), &settings)?;
    let mut documents = SparsityStats::new(dimensions);
    let mut writer = index.writer(WriterOptions::default())?;
    let bar = console::progress(&task.name, None);
    let text = |document: &Document| document.full_text().trim().to_owned();
    let corpus = task.documents().map(|document| document.map_err(anyhow::Error::from));
    encode_stream(encoders.document.as_ref(), corpus, text, |document, vector| -> Result<()> {
        interrupt::check()?;
        documents.add(&vector);
        let title = Some(document.title).filter(|title| !title.is_empty());
        writer.add(&StoredDocument { id: document.id, title, text: document.text, ..Default::default() }, &vector)?;
        bar.inc(1);
        Ok(())
    })?;
    if bar.position() == 0 {
        return Err(bad_input(format!("{}: there are no documents in its corpus", task.name), ""));
    }
    let documents_per_second = bar.position() as f64 / bar.elapsed().as_secs_f64().max(1e-9);
    bar.finish_and_clear();
    writer.finish()?;
    let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    let vectors = encoders.query.encode(&texts)?;
    let searcher = index.searcher()?;
    let modes = modes.iter().map(|mode| score(*mode, &searcher, &queries, &vectors, &qrels));
    Ok(Outcome {
        modes: modes.collect::<Result<_>>()?,
        queries: SparsityStats::of(dimensions, &vectors),
        documents,
        documents_per_second,
    })
}

fn score(
    mode: Mode,
    searcher: &Searcher,
    queries: &[Query],
    vectors: &[SparseVector],
    qrels: &Qrels,
) -> Result<(Run, Scores)> {
    let options = SearchOptions::default();
    let mut run = Run::default();
    for (query, vector) in queries.iter().zip(vectors) {
        interrupt::check()?;
        let found = match mode {
            Mode::Sparse => searcher.search(vector, MTEB_DEPTH, &options)?,
            Mode::Bm25 => searcher.search_bm25(&query.text, MTEB_DEPTH, None)?,
            Mode::Hybrid => {
                searcher.search_hybrid(vector, &query.text, MTEB_DEPTH, MTEB_DEPTH, &Fusion::default(), &options)?
            }
        };
        run.insert(&query.id, to_ranking(&found));
    }
    let scores = mteb_scores(qrels, &run)?;
    Ok((run, scores))
}

fn print_tables(judged: &[(&TaskData, Outcome)], args: &EvalMtebArgs) -> Result<()> {
    let mut output = std::io::stdout();
    let mut table = Table::new(["task", "mode"].into_iter().chain(SHOWN));
    for (task, outcome) in judged {
        for (mode, (_, scores)) in args.modes.iter().zip(&outcome.modes) {
            let shown = SHOWN.map(|name| format!("{:.4}", scores.get(name).unwrap_or(f64::NAN)));
            table.row([label(task), mode.name().to_owned()].into_iter().chain(shown));
        }
    }
    write!(output, "{table}")?;
    if args.analyze_sparsity {
        let heading = ["task", "side", "vectors", "active dims", "p50", "p95", "max", "sparsity", "used dims", "FLOPS"];
        let mut table = Table::new(heading);
        for (task, outcome) in judged {
            let cost = flops(&outcome.queries, &outcome.documents);
            for (side, stats) in [("query", &outcome.queries), ("document", &outcome.documents)] {
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
        write!(output, "\n{table}")?;
    }
    Ok(())
}

pub(super) fn label(task: &TaskData) -> String {
    if task.subset == splade_eval::DEFAULT_SUBSET {
        task.name.clone()
    } else {
        format!("{} {}", task.name, task.subset)
    }
}

fn print_json(judged: &[(&TaskData, Outcome)], args: &EvalMtebArgs) -> Result<()> {
    let of_task = |(task, outcome): &(&TaskData, Outcome)| -> Result<Value> {
        let mut modes = serde_json::Map::new();
        for (mode, (_, scores)) in args.modes.iter().zip(&outcome.modes) {
            modes.insert(mode.name().into(), serde_json::to_value(scores)?);
        }
        let mut value = json!({
            "task": task.name,
            "subset": task.subset,
            "split": task.split,
            "scores": modes,
            "documents_per_second": outcome.documents_per_second,
        });
        if args.analyze_sparsity {
            value["sparsity"] = json!({
                "queries": outcome.queries.report(),
                "documents": outcome.documents.report(),
                "flops": flops(&outcome.queries, &outcome.documents),
            });
        }
        Ok(value)
    };
    let tasks = judged.iter().map(of_task).collect::<Result<Vec<_>>>()?;
    say(format_args!("{:#}", json!({"tasks": tasks})))
}

fn print_comparison(ours: &[TaskResult], baseline: &[TaskResult], args: &EvalMtebArgs) -> Result<()> {
    let comparisons = compare_results(ours, baseline, "ndcg_at_10");
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
            format!("{:+.4}", comparison.difference()),
        ]);
    }
    if args.json {
        write!(std::io::stderr(), "{table}")?;
    } else {
        write!(std::io::stdout(), "\n{table}")?;
    }
    Ok(())
}
