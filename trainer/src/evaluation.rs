//! Evaluation of a model during training: losses on development sets, rankings on BEIR folders.

use std::path::{Path, PathBuf};
use std::time::Instant;

use splade_core::{Encoder, SparseVector};
use splade_eval::{ExactSearcher, RetrievalScores, Task, evaluate, mean_retrieval_scores, retrieval_csv_name};

use crate::config::{EvaluationConfig, Evaluator, Strategy, TrainConfig};
use crate::data::DataSet;
use crate::log::{Scalar, speed_scalars};
use crate::loss::LossValues;
use crate::{Error, Result, Session};

/// The metrics of a task, as they follow its name.
const TASK_METRICS: [&str; 20] = [
    "dot_accuracy@1",
    "dot_accuracy@3",
    "dot_accuracy@5",
    "dot_accuracy@10",
    "dot_precision@1",
    "dot_precision@3",
    "dot_precision@5",
    "dot_precision@10",
    "dot_recall@1",
    "dot_recall@3",
    "dot_recall@5",
    "dot_recall@10",
    "dot_ndcg@10",
    "dot_mrr@10",
    "dot_map@100",
    "query_active_dims",
    "query_sparsity_ratio",
    "corpus_active_dims",
    "corpus_sparsity_ratio",
    "avg_flops",
];
/// The ends of the metrics that `track_sparsity` is about.
const SPARSITY: [&str; 3] = ["_active_dims", "_sparsity_ratio", "avg_flops"];

/// Development sets and tasks that a model is evaluated on.
#[derive(Debug)]
pub(crate) struct EvaluationSets {
    dev: Vec<DataSet>,
    batch_size: usize,
    /// opened once, so that a broken folder is found before hours of training
    tasks: Vec<NamedTask>,
    /// names of the mean over the tasks: of its metrics, and of its CSV file if the reference writes one
    mean: (&'static str, Option<&'static str>),
    samples: usize,
    track_sparsity: bool,
    /// the loss has a term of the queries' regularizer
    has_query_term: bool,
}

/// A task under the name of its metrics.
#[derive(Debug)]
struct NamedTask {
    name: String,
    task: Task,
}

/// Scalars of an evaluation, and the texts of the samples with their top terms.
pub(crate) struct EvaluationLog {
    pub(crate) lines: Vec<Vec<Scalar>>,
    pub(crate) samples: Vec<String>,
}

impl EvaluationSets {
    /// Opens everything the config names.
    pub(crate) fn new(config: &TrainConfig, dev: Vec<DataSet>) -> Result<Self> {
        let evaluation = &config.evaluation;
        let (tasks, mean) = match evaluation.evaluator {
            Some(_) if config.training.eval_strategy == Strategy::No => (Vec::new(), ("mean", None)),
            Some(Evaluator::SparseNanobeir) => {
                let mean = ("NanoBEIR_mean", Some("NanoBEIR_evaluation_mean_results.csv"));
                (nano_beir_tasks(evaluation)?, mean)
            }
            Some(Evaluator::SparseIr) => (tasks_of(&evaluation.data)?, ("mean", None)),
            None => (Vec::new(), ("mean", None)),
        };
        Ok(Self {
            dev,
            batch_size: config.training.per_device_eval_batch_size.max(1),
            tasks,
            mean,
            samples: evaluation.log_decoded_samples,
            track_sparsity: evaluation.track_sparsity,
            has_query_term: config.loss.query_regularizer_weight.is_some()
                && !config.loss.use_document_regularizer_only,
        })
    }

    /// The metrics that an evaluation has, one of which may decide on the best model.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let names =
            self.tasks.iter().map(|task| task.name.as_str()).chain((!self.tasks.is_empty()).then_some(self.mean.0));
        let of_task = |name: &str| TASK_METRICS.map(|metric| format!("eval_{name}_{metric}"));
        let mut metrics: Vec<String> = names.flat_map(of_task).collect();
        metrics.retain(|key| self.track_sparsity || !is_sparsity(key));
        match self.dev.as_slice() {
            [] => {}
            [_] => {
                metrics.extend(["eval_loss", "eval_base_loss", "eval_document_regularizer_loss"].map(str::to_owned));
                metrics.extend(self.has_query_term.then(|| "eval_query_regularizer_loss".to_owned()));
            }
            sets => {
                metrics.extend(sets.iter().map(|set| format!("eval_{}_loss", set.name)));
                metrics.push("eval_loss".to_owned());
            }
        }
        metrics
    }

    /// The error of a metric that no evaluation has.
    ///
    /// # Errors
    /// `name` is not among the metrics.
    pub(crate) fn check_metric(&self, name: &str) -> Result<()> {
        let metrics = self.metrics();
        if self.is_empty() || metrics.iter().any(|metric| metric == name) {
            return Ok(());
        }
        let likeness = |metric: &&String| strsim::jaro_winkler(metric, name);
        let near = metrics.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        Err(Error::config(
            "training.metric_for_best_model",
            format!("{name} is not among the metrics of the evaluation"),
            near.map_or_else(String::new, |near| format!("did you mean {near}?")),
        ))
    }

    /// True if there is nothing to evaluate on.
    pub(crate) fn is_empty(&self) -> bool {
        self.dev.is_empty() && self.tasks.is_empty()
    }

    /// Evaluates the model of a session at a step; scores of tasks are also appended to the reference's CSV files in
    /// `csv_dir`.
    pub(crate) fn evaluate(&self, session: &Session, step: usize, epoch: f64, csv_dir: &Path) -> Result<EvaluationLog> {
        let mut lines = self.losses(session, step)?;
        let mut samples = Vec::new();
        if !self.is_empty() {
            let (query, document) = session.trainee().encoders()?;
            lines.extend(self.task_scores(query.as_ref(), document.as_ref(), step, epoch, csv_dir)?);
            samples = self.decoded(session, document.as_ref())?;
        }
        if !self.track_sparsity {
            lines.iter_mut().for_each(|line| line.retain(|(key, _)| !is_sparsity(key)));
        }
        Ok(EvaluationLog { lines, samples })
    }

    /// The scores of all tasks and their mean as one line; none without tasks.
    fn task_scores(
        &self,
        query: &dyn Encoder,
        document: &dyn Encoder,
        step: usize,
        epoch: f64,
        csv_dir: &Path,
    ) -> Result<Option<Vec<Scalar>>> {
        if self.tasks.is_empty() {
            return Ok(None);
        }
        let start = Instant::now();
        std::fs::create_dir_all(csv_dir).map_err(Error::io(csv_dir))?;
        let mut line = Vec::new();
        let mut sets = Vec::new();
        for NamedTask { name, task } in &self.tasks {
            let scores = task_scores(task, query, document)?;
            scores.append_csv(&csv_dir.join(retrieval_csv_name(name)), epoch, step as i64)?;
            line.extend(scores.scores(name).prefixed("eval").iter().map(owned));
            sets.push(scores);
        }
        let mean = mean_retrieval_scores(&sets)?;
        if let Some(csv) = self.mean.1 {
            mean.append_csv(&csv_dir.join(csv), epoch, step as i64)?;
        }
        line.extend(mean.scores(self.mean.0).prefixed("eval").iter().map(owned));
        line.push(("eval_evaluator_runtime".to_owned(), (start.elapsed().as_secs_f64() * 1e4).round() / 1e4));
        Ok(Some(line))
    }

    /// One line a development set, then their sum as `eval_loss` where there are several.
    fn losses(&self, session: &Session, step: usize) -> Result<Vec<Vec<Scalar>>> {
        // those in force in the step before, as in the reference
        let weights = session.regularizer_weights(step.saturating_sub(1));
        let mut lines = Vec::new();
        let mut total = 0.0;
        for set in &self.dev {
            let start = Instant::now();
            let mut sum = LossValues::default();
            let rows: Vec<usize> = (0..set.examples.len()).collect();
            let batches: Vec<&[usize]> = rows.chunks(self.batch_size).collect();
            for batch in &batches {
                let parts = session.ranking_loss(set, batch, weights, None)?.0.values()?;
                // the reference weighs batches by their rows
                let share = batch.len() as f64 / rows.len() as f64;
                sum.base += parts.base * share;
                sum.document_regularizer += parts.document_regularizer * share;
                let query = parts.query_regularizer.map(|value| value * share);
                sum.query_regularizer = sum.query_regularizer.into_iter().chain(query).reduce(|a, b| a + b);
            }
            total += sum.total();
            let name = if self.dev.len() == 1 { "eval".to_owned() } else { format!("eval_{}", set.name) };
            let mut line = vec![(format!("{name}_loss"), sum.total())];
            if self.dev.len() == 1 {
                line.push(("eval_base_loss".into(), sum.base));
                line.push(("eval_document_regularizer_loss".into(), sum.document_regularizer));
                line.extend(sum.query_regularizer.map(|value| ("eval_query_regularizer_loss".to_owned(), value)));
            }
            line.extend(speed_scalars(&name, start.elapsed().as_secs_f64(), rows.len(), batches.len()));
            lines.push(line);
        }
        if self.dev.len() > 1 {
            lines.push(vec![("eval_loss".to_owned(), total)]);
        }
        Ok(lines)
    }

    /// `text → term weight, …` for the first documents of the first task, else of the first development set.
    fn decoded(&self, session: &Session, encoder: &dyn Encoder) -> Result<Vec<String>> {
        let texts: Vec<String> = match (self.tasks.first(), self.dev.first()) {
            (Some(NamedTask { task, .. }), _) => {
                let documents = task.data.documents().take(self.samples);
                documents.map(|document| Ok(document?.full_text().into_owned())).collect::<Result<_>>()?
            }
            (None, Some(set)) => {
                set.examples.iter().take(self.samples).map(|example| example.positive.clone()).collect()
            }
            (None, None) => Vec::new(),
        };
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vocabulary = session.trainee().vocabulary();
        let decode = |(text, vector): (&&str, SparseVector)| {
            let terms = vector.by_decreasing_weight().into_iter().take(10);
            let terms = terms.map(|(dim, weight)| format!("{} {weight:.2}", vocabulary.readable_token(dim)));
            let start: String = text.chars().take(60).collect();
            format!("{start} → {}", terms.collect::<Vec<_>>().join(", "))
        };
        Ok(texts.iter().zip(encoder.encode(&texts)?).map(decode).collect())
    }
}

/// The tasks of folders in BEIR layout.
fn tasks_of(folders: &[PathBuf]) -> Result<Vec<NamedTask>> {
    let mut tasks = Vec::new();
    for folder in folders {
        tasks.extend(Task::open(folder, None)?);
    }
    Ok(tasks.into_iter().map(|task| NamedTask { name: task.data.identity.name.clone(), task }).collect())
}

/// The sets of NanoBEIR, each from the first folder that has it.
fn nano_beir_tasks(evaluation: &EvaluationConfig) -> Result<Vec<NamedTask>> {
    let folders: Vec<&Path> = evaluation.data.iter().chain(&evaluation.nanobeir_folder).map(PathBuf::as_path).collect();
    if folders.is_empty() {
        return Err(Error::config(
            "evaluation.evaluator",
            "the sets of sparse_nanobeir are not downloaded",
            "give the folder of NanoBEIR as evaluation.data, or `evaluator: null`",
        ));
    }
    let named = |name: &String| {
        let name = splade_eval::nano_beir_set(name)?;
        let found = folders.iter().find_map(|folder| nano_beir_task(folder, name).transpose());
        let looked_in = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
        let missing = || {
            let hint =
                "it has the folders corpus, queries and qrels with a file of this name each, or a folder of this name";
            Error::config("evaluation.data", format!("no {name} in {looked_in}"), hint)
        };
        let task = found.transpose()?.ok_or_else(missing)?;
        Ok(NamedTask { name: name.to_owned(), task })
    };
    evaluation.nanobeir_datasets.iter().map(named).collect()
}

/// A set of NanoBEIR in a folder: the folder itself, one in it, or the split of this name of the joined data set.
fn nano_beir_task(folder: &Path, name: &str) -> Result<Option<Task>> {
    let is_itself = folder.file_name().is_some_and(|last| last.to_string_lossy().eq_ignore_ascii_case(name));
    let (folder, split) = match (is_itself, folder.join(name)) {
        (true, _) => (folder.to_owned(), None),
        (false, inner) if inner.is_dir() => (inner, None),
        (false, _) if has_split(&folder.join("qrels"), name) => (folder.to_owned(), Some(name)),
        (false, _) => return Ok(None),
    };
    Ok(Task::open(&folder, split)?.into_iter().next())
}

/// True if a folder has a file of a split.
fn has_split(folder: &Path, name: &str) -> bool {
    let is_of = |file: &str| file.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '-']));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_of(&entry.file_name().to_string_lossy()))
}

fn is_sparsity(key: &str) -> bool {
    SPARSITY.iter().any(|end| key.ends_with(end))
}

/// Scores of both encoders on a task, by exact search.
fn task_scores(task: &Task, query: &dyn Encoder, document: &dyn Encoder) -> Result<RetrievalScores> {
    let mut documents: Vec<(String, SparseVector)> = Vec::new();
    let encoded = task.encode(query, document, |document, vector| -> Result<()> {
        documents.push((document.id, vector));
        Ok(())
    })?;
    Ok(evaluate(&ExactSearcher::new(documents)?, &encoded)?.retrieval)
}

fn owned((key, value): (&str, f64)) -> Scalar {
    (key.to_owned(), value)
}
