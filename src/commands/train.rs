//! `splade train`: YAML file → config → data → training → model folder.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde_json::Value;
use splade_files::Error;
use splade_trainer::{
    Event, FitReport, GroupPlan, Observer, Plan, Scalar, Start, TrainConfig, apply_override, fit, latest_checkpoint,
    plan,
};

use super::interrupt;
use crate::cli::TrainArgs;
use crate::console::{self, size};
use crate::encoders::use_threads;
use crate::hub::{self, Wants};
use crate::outputs::say;

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    use_threads(args.threads);
    let (mut config, notes) = read_config(args)?;
    for note in &notes {
        tracing::warn!("{note}");
    }
    if args.resume && latest_checkpoint(&config.training.output_dir)?.is_none() {
        tracing::warn!(
            "{}: no checkpoint to resume from; training starts from the beginning",
            config.training.output_dir.display()
        );
    }
    let start = match (&args.resume_from, args.resume, args.overwrite) {
        (Some(folder), _, _) => Start::ResumeFrom(folder.clone()),
        (None, true, _) => Start::Resume,
        (None, false, true) => Start::Overwrite,
        (None, false, false) => Start::New,
    };
    find_base_model(&mut config, &start, args.dry_run)?;
    if args.dry_run {
        let plan = plan(&config, &Start::Overwrite)?;
        say(serde_yaml::to_string(&config)?)?;
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        return describe(&plan).iter().try_for_each(say);
    }
    let mut watch = Watch::new();
    let report = fit(&config, &start, &mut watch)?;
    watch.bar.finish_and_clear();
    let Some(model) = &report.model else { return Err(interrupted(&report)) };
    if let Some(metric) = report.best_metric {
        tracing::info!("best {}: {metric:.4}", config.training.metric_for_best_model);
    }
    say(model.display())
}

/// Error of a training that a signal ended, with the number of steps and the checkpoint.
fn interrupted(report: &FitReport) -> anyhow::Error {
    match &report.checkpoint {
        Some(checkpoint) => interrupt::error(
            format!("interrupted after {} steps: saved in {}", report.steps, checkpoint.display()),
            "--resume continues the training",
        ),
        None => interrupt::error("interrupted before the first step", ""),
    }
}

fn read_config(args: &TrainArgs) -> Result<(TrainConfig, Vec<splade_trainer::config::Note>)> {
    let path = &args.config;
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut value = parse_yaml(path, &text)?;
    for set in &args.set {
        apply_override(&mut value, &with_json_value(set))?;
    }
    Ok(TrainConfig::from_value(&value)?)
}

/// Downloads a base model that is a Hub id. The config keeps the id, which the model card and checkpoints name.
fn find_base_model(config: &mut TrainConfig, start: &Start, dry_run: bool) -> Result<()> {
    let resumes = match start {
        Start::Resume => latest_checkpoint(&config.training.output_dir)?.is_some(),
        Start::ResumeFrom(_) => true,
        Start::New | Start::Overwrite => false,
    };
    // a checkpoint needs no base model
    if resumes && !dry_run {
        return Ok(());
    }
    if let Some(base) = &config.model.base_model {
        let place = hub::locate(Path::new(base), Wants::CHECKPOINT).context("model.base_model")?;
        config.model.base_folder = Some(place.folder);
    }
    Ok(())
}

/// Converts the value of `key=value` from YAML, as in a config, to JSON.
fn with_json_value(set: &str) -> String {
    let value = |text| serde_yaml::from_str::<Value>(text).ok().filter(|value| !value.is_null() || text == "null");
    match set.split_once('=').map(|(key, text)| (key, value(text))) {
        Some((key, Some(value))) => format!("{key}={value}"),
        _ => set.to_owned(),
    }
}

/// Parses YAML as a JSON value. An error quotes the line.
fn parse_yaml(path: &Path, text: &str) -> Result<Value> {
    serde_yaml::from_str(text).map_err(|error| {
        let Some(location) = error.location() else { return Error::file(path, error.to_string()).into() };
        let line = text.lines().nth(location.line().saturating_sub(1)).unwrap_or_default();
        Error::line(path, location.line(), format!("{error}: {:?}", line.trim())).into()
    })
}

/// Describes the plan of a training in a few lines.
fn describe(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(checkpoint) = &plan.checkpoint {
        lines.push(format!("resumes {} after {} steps", checkpoint.display(), plan.first_step));
    }
    for set in &plan.sets {
        let mut dropped = Vec::new();
        for (count, why) in [
            (set.filtered, "filtered out"),
            (set.without_anchor, "without an anchor"),
            (set.without_positive, "without a positive"),
            (set.without_label, "without a label"),
        ] {
            if count > 0 {
                dropped.push(format!("{count} {why}"));
            }
        }
        let dropped = if dropped.is_empty() { String::new() } else { format!(" (left out: {})", dropped.join(", ")) };
        let dev = if set.dev > 0 { format!(", {} to evaluate on", set.dev) } else { String::new() };
        lines.push(format!("{}: {} examples{dev}{dropped}", set.name, set.train));
        if set.split_by_negatives {
            let name = &set.name;
            lines.push(format!(
                "{name}: rows without a negative became the set {name}_pairs, since a batch has one shape"
            ));
        }
    }
    if plan.pieces > 0 {
        lines.push(format!("{} pieces of running text", plan.pieces));
    }
    lines.push(format!(
        "{:.1} M parameters, {} terms; {} batches an epoch, {} steps; about {} for weights and optimizer, up to {} for a batch",
        plan.parameters as f64 / 1e6,
        plan.dimensions,
        plan.batches_per_epoch,
        plan.total_steps,
        size(plan.state_bytes),
        size(plan.activation_bytes),
    ));
    for GroupPlan { n_tensors, learning_rate, weight_decay } in &plan.groups {
        lines.push(format!(
            "parameter group: {n_tensors} tensors, learning rate {learning_rate:.1e}, weight decay {weight_decay}"
        ));
    }
    lines
}

/// Progress of a training: a bar on a terminal, and a log line for every line of the training log.
struct Watch {
    bar: ProgressBar,
    total: usize,
    begun: Option<Instant>,
    first: usize,
    examples: usize,
    step: usize,
    active_dims: f64,
}

impl Observer for Watch {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Started(plan) => {
                for line in describe(plan) {
                    tracing::info!("{line}");
                }
                (self.total, self.first, self.begun) = (plan.total_steps, plan.first_step, Some(Instant::now()));
                self.bar = console::progress("training", Some(plan.total_steps as u64));
                self.bar.set_style(console::style("{bar:30} {pos}/{len}  {msg}  {eta} left"));
                self.bar.set_position(plan.first_step as u64);
                self.bar.reset_eta();
            }
            Event::Step { step, loss, examples, active_dims } => {
                self.step = step;
                self.examples += examples;
                let speed = self.examples as f64 / self.seconds();
                self.active_dims = active_dims;
                let active = self.active();
                self.bar.set_message(format!("loss {loss:.4}  {speed:.0} examples/s{active}"));
                self.bar.set_position(step as u64);
            }
            Event::Logged(line) => self.say(&self.log_line(line)),
            Event::Evaluated(line) => {
                self.say(&evaluation_line(line));
            }
            Event::Sample(text) => self.bar.suspend(|| tracing::debug!("{text}")),
            Event::Saved(path) => self.bar.suspend(|| tracing::debug!("saved {}", path.display())),
            Event::Warning(text) => self.bar.suspend(|| tracing::warn!("{text}")),
        }
    }

    fn should_stop(&mut self) -> bool {
        interrupt::received()
    }
}

impl Watch {
    fn new() -> Self {
        Self { bar: ProgressBar::hidden(), total: 0, begun: None, first: 0, examples: 0, step: 0, active_dims: 0.0 }
    }

    fn seconds(&self) -> f64 {
        self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64()).max(1e-9)
    }

    /// `  123 active dims` for the documents of the last step; empty if there are none.
    fn active(&self) -> String {
        if self.active_dims > 0.0 { format!("  {:.0} active dims", self.active_dims) } else { String::new() }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| tracing::info!("{line}"));
    }

    fn log_line(&self, line: &[Scalar]) -> String {
        let value = |key: &str| line.iter().find(|(name, _)| name == key).map_or(f64::NAN, |(_, value)| *value);
        let done = (self.step - self.first).max(1) as f64;
        let left = (self.total - self.step) as f64 * self.seconds() / done;
        // the loss of masked-language modelling has one term
        let terms = match self.active_dims > 0.0 {
            true => {
                let (ranking, regularizer) = (value("base_loss"), value("document_regularizer_loss"));
                format!("  (ranking {ranking:.4}, regularizer {regularizer:.4}){}", self.active())
            }
            false => String::new(),
        };
        let (step, total, loss) = (self.step, self.total, value("loss"));
        let speed = self.examples as f64 / self.seconds();
        format!("step {step:>5}/{total}  loss {loss:.4}{terms}  {speed:.1} examples/s  {left:.0} s left")
    }
}

/// Formats the main scores of an evaluation.
fn evaluation_line(line: &[Scalar]) -> String {
    let shown = ["_loss", "dot_ndcg@10", "dot_mrr@10", "query_active_dims", "corpus_active_dims"];
    let parts: Vec<String> = line
        .iter()
        .filter(|(key, _)| shown.iter().any(|end| key.ends_with(end)))
        .map(|(key, value)| format!("{} {value:.4}", key.strip_prefix("eval_").unwrap_or(key)))
        .collect();
    format!("evaluated: {}", parts.join("  "))
}
