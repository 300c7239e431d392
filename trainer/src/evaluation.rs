//! Evaluation of a model during training: losses on development sets, rankings on BEIR folders.

use std::path::Path;
use std::time::Instant;

use splade_core::{Encoder, SparseVector};
use splade_eval::{ExactSearcher, RetrievalScores, Task, evaluate, mean_retrieval_scores, retrieval_csv_name};

use crate::config::{Evaluator, TrainConfig};
use crate::data::DataSet;
use crate::log::{Scalar, speed_scalars};
use crate::loss::LossValues;
use crate::{Error, Result, Session};

/// Development sets and tasks that a model is evaluated on.
#[derive(Debug)]
pub(crate) struct EvaluationSets {
    dev: Vec<DataSet>,
    batch_size: usize,
    /// opened once, so that a broken folder is found before hours of training
    tasks: Vec<Task>,
    samples: usize,
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
        if evaluation.evaluator == Some(Evaluator::SparseNanobeir) && evaluation.data.is_empty() {
            return Err(Error::config(
                "evaluation.evaluator",
                "sparse_nanobeir is downloaded from the Hub, which this version does not do",
                "put the sets into folders in BEIR layout and give `evaluator: sparse_ir` and `data: [folders]`, \
                 or `evaluator: null`",
            ));
        }
        let mut tasks = Vec::new();
        for path in evaluation.evaluator.iter().flat_map(|_| &evaluation.data) {
            tasks.extend(Task::open(path, None)?);
        }
        Ok(Self {
            dev,
            batch_size: config.training.per_device_eval_batch_size.max(1),
            tasks,
            samples: evaluation.log_decoded_samples,
        })
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
        if !self.tasks.is_empty() {
            let (query, document) = session.trainee().encoders()?;
            let mut line = Vec::new();
            let mut sets = Vec::new();
            for task in &self.tasks {
                let scores = task_scores(task, query.as_ref(), document.as_ref())?;
                let name = &task.data.name;
                std::fs::create_dir_all(csv_dir).map_err(Error::io(csv_dir))?;
                scores.append_csv(&csv_dir.join(retrieval_csv_name(name)), epoch, step as i64)?;
                line.extend(scores.scores(name).prefixed("eval").iter().map(owned));
                sets.push(scores);
            }
            let mean = mean_retrieval_scores(&sets)?;
            line.extend(mean.scores("mean").prefixed("eval").iter().map(owned));
            samples = self.decoded(session, document.as_ref())?;
            lines.push(line);
        }
        Ok(EvaluationLog { lines, samples })
    }

    /// One line a development set, then their sum as `eval_loss` where there are several.
    fn losses(&self, session: &Session, step: usize) -> Result<Vec<Vec<Scalar>>> {
        let mut lines = Vec::new();
        let mut total = 0.0;
        for set in &self.dev {
            let start = Instant::now();
            let mut sum = LossValues::default();
            let rows: Vec<usize> = (0..set.examples.len()).collect();
            let batches: Vec<&[usize]> = rows.chunks(self.batch_size).collect();
            for batch in &batches {
                let parts = session.ranking_loss(set, batch, session.regularizer_weights(step), None)?.0.values()?;
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

    /// `text → term weight, …` for the first documents of the first task.
    fn decoded(&self, session: &Session, encoder: &dyn Encoder) -> Result<Vec<String>> {
        let Some(task) = self.tasks.first() else { return Ok(Vec::new()) };
        let documents = task.data.documents().take(self.samples);
        let texts = documents.map(|document| Ok(document?.full_text().into_owned())).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vocabulary = session.trainee().vocabulary();
        let decode = |(text, vector): (&&str, SparseVector)| {
            let terms = vector.by_decreasing_weight().into_iter().take(10);
            let terms = terms.map(|(dim, weight)| format!("{} {weight:.2}", vocabulary.token(dim).unwrap_or_default()));
            let start: String = text.chars().take(60).collect();
            format!("{start} → {}", terms.collect::<Vec<_>>().join(", "))
        };
        Ok(texts.iter().zip(encoder.encode(&texts)?).map(decode).collect())
    }
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
