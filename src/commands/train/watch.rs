//! [`Watch`]: progress of a training on stderr, one line on a terminal, log lines for people, JSON lines for machines.

use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use splade_trainer::{Event, Observer, Scalar};

use super::report::describe;
use super::uploads::Uploads;
use crate::cli::{Console, LogFormat};
use crate::commands::interrupt;
use crate::console::{self, json_line, size};
use crate::mlflow::{Mlflow, Status};

/// Template of the progress line.
const PROGRESS: &str = "{bar:20} {pos}/{len}  {msg}  {eta} left";

/// Observer of a training.
pub(super) struct Watch {
    bar: ProgressBar,
    /// log lines are JSON objects with the numbers as fields
    is_json: bool,
    is_quiet: bool,
    is_verbose: bool,
    total: usize,
    begun: Option<Instant>,
    first: usize,
    examples: usize,
    step: usize,
    active_dims: f64,
    query_active_dims: f64,
    mlflow: Option<Reporting>,
    uploads: Option<Uploads>,
}

/// A run of MLflow, and what it begins with.
pub(super) struct Reporting {
    pub(super) mlflow: Mlflow,
    pub(super) name: String,
    pub(super) tags: Vec<(String, String)>,
    pub(super) parameters: Vec<(String, String)>,
}

impl Observer for Watch {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Started(plan) => {
                describe(plan).iter().for_each(|line| tracing::info!("{line}"));
                (self.total, self.first, self.begun) = (plan.total_steps, plan.first_step, Some(Instant::now()));
                self.bar = console::progress("training", Some(plan.total_steps as u64));
                self.bar.set_style(console::style(PROGRESS));
                self.bar.set_position(plan.first_step as u64);
                self.bar.reset_eta();
                self.report(|Reporting { mlflow, name, tags, parameters }| mlflow.begin(name, tags, parameters));
            }
            Event::Step { step, loss, examples, active_dims, query_active_dims } => {
                self.step = step;
                self.examples += examples;
                (self.active_dims, self.query_active_dims) = (active_dims, query_active_dims);
                let memory = memory_bytes().map_or_else(String::new, |bytes| format!("  {}", size(bytes)));
                let (active, speed) = (self.active(), self.speed());
                self.bar.set_message(format!("loss {loss:.4}{active}  {speed:.1} examples/s{memory}"));
                self.bar.set_position(step as u64);
                if step == self.first + 1 {
                    self.say(&format!("first step: loss {loss:.4}, {:.1} s{memory}", self.seconds()), Map::new());
                }
            }
            Event::Logged { step, epoch, scalars } => {
                let line = match scalars.iter().any(|(key, _)| key == "loss") {
                    true => self.log_line(epoch, scalars),
                    false => end_line(scalars),
                };
                self.say(&line, fields("log", step, epoch, scalars));
                self.report(|reporting| reporting.mlflow.log(step, scalars));
            }
            Event::Evaluated { step, epoch, scalars } => {
                let line = evaluation_line(scalars, self.is_verbose);
                self.say(&line, fields("evaluation", step, epoch, scalars));
                self.report(|reporting| reporting.mlflow.log(step, scalars));
            }
            Event::Sample(text) => self.say(text, Map::new()),
            Event::Saved(path) => {
                self.bar.suspend(|| tracing::debug!("saved {}", path.display()));
                if let Some(warning) = self.uploads.as_mut().and_then(|uploads| uploads.saved(path, self.step)) {
                    self.bar.suspend(|| tracing::warn!("{warning}"));
                }
            }
            Event::Warning(text) => self.bar.suspend(|| tracing::warn!("{text}")),
        }
    }

    fn should_stop(&mut self) -> bool {
        interrupt::received()
    }
}

impl Watch {
    pub(super) fn new(console: &Console, mlflow: Option<Reporting>, uploads: Option<Uploads>) -> Self {
        Self {
            bar: ProgressBar::hidden(),
            is_json: console.log_format == LogFormat::Json,
            is_quiet: console.quiet,
            is_verbose: console.verbose,
            total: 0,
            begun: None,
            first: 0,
            examples: 0,
            step: 0,
            active_dims: 0.0,
            query_active_dims: 0.0,
            mlflow,
            uploads,
        }
    }

    /// Uploads the result of the training, if the config says so.
    ///
    /// # Errors
    /// An upload that fails.
    pub(super) fn upload(&mut self, model: &Path) -> anyhow::Result<()> {
        let Some(uploads) = &mut self.uploads else { return Ok(()) };
        let url = uploads.finish(model)?;
        tracing::info!("uploaded to {url}");
        Ok(())
    }

    /// Removes the progress line and ends the run of MLflow.
    pub(super) fn end(&mut self, status: Status) {
        self.bar.finish_and_clear();
        let unfinished = self.uploads.as_mut().filter(|_| status != Status::Finished);
        if let Some(warning) = unfinished.and_then(Uploads::stop) {
            tracing::warn!("{warning}");
        }
        self.report(|reporting| reporting.mlflow.end(status));
    }

    /// Reports to MLflow. The first failure is logged and ends the reports.
    fn report(&mut self, report: impl FnOnce(&mut Reporting) -> anyhow::Result<()>) {
        let Some(reporting) = &mut self.mlflow else { return };
        if let Err(error) = report(reporting) {
            self.bar.suspend(|| tracing::warn!("no more is reported to MLflow: {error:#}"));
            self.mlflow = None;
        }
    }

    fn seconds(&self) -> f64 {
        self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64()).max(1e-9)
    }

    /// Examples a second since the start of this process.
    fn speed(&self) -> f64 {
        self.examples as f64 / self.seconds()
    }

    /// `  8.2 + 123 active dims`, of queries and documents; empty where there are no vectors.
    fn active(&self) -> String {
        if self.active_dims == 0.0 && self.query_active_dims == 0.0 {
            return String::new();
        }
        format!("  {:.1} + {:.0} active dims", self.query_active_dims, self.active_dims)
    }

    fn say(&self, line: &str, fields: Map<String, Value>) {
        if !self.is_json || fields.is_empty() {
            return self.bar.suspend(|| tracing::info!("{line}"));
        }
        if !self.is_quiet {
            let mut object = Map::from_iter([("level".to_owned(), json!("INFO")), ("message".to_owned(), json!(line))]);
            object.extend(fields);
            json_line(&Value::Object(object));
        }
    }

    fn log_line(&self, epoch: f64, line: &[Scalar]) -> String {
        let value = |key: &str| line.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
        let number = |key: &str| value(key).unwrap_or(f64::NAN);
        let done = (self.step - self.first).max(1) as f64;
        let left = (self.total - self.step) as f64 * self.seconds() / done;
        // the masked-language-model objective has one term
        let terms = match (value("document_active_dims"), value("query_active_dims")) {
            (Some(documents), Some(queries)) => {
                let query = value("query_regularizer_loss").filter(|loss| *loss != 0.0);
                let query = query.map_or_else(String::new, |loss| format!(" + {loss:.4}"));
                let (ranking, regularizer) = (number("base_loss"), number("document_regularizer_loss"));
                format!(
                    "  (ranking {ranking:.4}, regularizer {regularizer:.4}{query})  active dims: queries {queries:.1}, \
                     documents {documents:.0}"
                )
            }
            _ => String::new(),
        };
        let (step, total, loss) = (self.step, self.total, number("loss"));
        let (rate, norm, speed) = (number("learning_rate"), number("grad_norm"), self.speed());
        format!(
            "step {step:>5}/{total}  epoch {epoch:.2}  loss {loss:.4}{terms}  lr {rate:.2e}  grad norm {norm:.2}  {speed:.1} \
             examples/s  {left:.0} s left"
        )
    }
}

/// The fields of a log line for machines.
fn fields(event: &str, step: usize, epoch: f64, scalars: &[Scalar]) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("event".to_owned(), json!(event)),
        ("step".to_owned(), json!(step)),
        ("epoch".to_owned(), json!(epoch)),
    ]);
    fields.extend(scalars.iter().map(|(key, value)| (key.clone(), json!(value))));
    fields
}

/// The speed of the whole training.
fn end_line(line: &[Scalar]) -> String {
    let parts: Vec<String> =
        line.iter().map(|(key, value)| format!("{} {value:.4}", key.trim_start_matches("train_"))).collect();
    format!("trained: {}", parts.join("  "))
}

/// The main numbers of an evaluation, or all of them.
fn evaluation_line(line: &[Scalar], all: bool) -> String {
    let shown = [
        "_loss",
        "dot_ndcg@10",
        "dot_mrr@10",
        "query_active_dims",
        "corpus_active_dims",
        "_runtime",
        "_samples_per_second",
        "_steps_per_second",
    ];
    // the mean of one task is the task
    let n_tasks = line.iter().filter(|(key, _)| key.ends_with("dot_ndcg@10")).count();
    let is_again =
        |key: &str| n_tasks == 2 && ["eval_mean_", "eval_NanoBEIR_mean_"].iter().any(|mean| key.starts_with(mean));
    let parts: Vec<String> = line
        .iter()
        .filter(|(key, _)| all || (shown.iter().any(|end| key.ends_with(end)) && !is_again(key)))
        .map(|(key, value)| format!("{} {value:.4}", key.strip_prefix("eval_").unwrap_or(key)))
        .collect();
    format!("evaluated: {}", parts.join("  "))
}

/// Memory of this process, where the system says it.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_line_has_step_loss_active_dims_speed_memory_and_time_left() {
        let console = Console { quiet: false, verbose: false, log_format: LogFormat::Text };
        let mut watch = Watch::new(&console, None, None);
        (watch.total, watch.begun) = (200, Some(Instant::now()));
        watch.bar.set_length(200);
        for step in 1..=3 {
            let event = Event::Step { step, loss: 1.23456, examples: 16, active_dims: 123.4, query_active_dims: 8.25 };
            watch.event(event);
        }
        let line = watch.bar.message();
        assert!(line.starts_with("loss 1.2346  8.2 + 123 active dims  "), "{line}");
        let (speed, memory) = line.split_once(" examples/s").unwrap();
        assert!(speed.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0, "{line}");
        assert_eq!(memory_bytes().is_some(), memory.ends_with('B'), "{line}");
        assert_eq!((watch.bar.position(), watch.bar.length()), (3, Some(200)));
        assert!(PROGRESS.contains("{pos}/{len}") && PROGRESS.contains("{msg}") && PROGRESS.ends_with("{eta} left"));
        // valid, or it panics
        console::style(PROGRESS);
        // masked words have no vectors
        watch.event(Event::Step { step: 4, loss: 2.0, examples: 16, active_dims: 0.0, query_active_dims: 0.0 });
        assert!(watch.bar.message().starts_with("loss 2.0000  ") && !watch.bar.message().contains("active"));
    }
}
