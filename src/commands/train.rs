//! `splade train`: YAML file → config → data → training → model folder.

mod data;
mod report;
mod uploads;
mod watch;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use splade_files::Error;
use splade_trainer::config::{MlflowConfig, Reporter};
use splade_trainer::{FitReport, Start, TrainConfig, apply_override, fit, latest_checkpoint, plan};

use self::report::{describe, summary};
use self::uploads::Uploads;
use self::watch::{Reporting, Watch};
use super::interrupt;
use crate::cli::{Console, TrainArgs};
use crate::encoders::use_threads;
use crate::hub::{self, Wants};
use crate::mlflow::{Mlflow, Status};
use crate::outputs::say;

pub(crate) fn run(args: &TrainArgs, console: &Console) -> Result<()> {
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
    data::find(&mut config)?;
    if args.dry_run {
        let plan = plan(&config, &Start::Overwrite)?;
        say(serde_yaml::to_string(&config)?)?;
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        return describe(&plan).iter().try_for_each(say);
    }
    let mut watch = Watch::new(console, reporting(&config)?, Uploads::open(&config)?);
    let report = fit(&config, &start, &mut watch);
    watch.end(match &report {
        Ok(report) if report.model.is_some() => Status::Finished,
        Ok(_) => Status::Killed,
        Err(_) => Status::Failed,
    });
    let report = report?;
    let Some(model) = &report.model else { return Err(interrupted(&report)) };
    for line in summary(&config, &report) {
        tracing::info!("{line}");
    }
    watch.upload(model)?;
    say(model.display())
}

/// The experiment of MLflow, if the config reports there; it is found before the training begins.
fn reporting(config: &TrainConfig) -> Result<Option<Reporting>> {
    if !config.training.report_to.contains(&Reporter::Mlflow) {
        return Ok(None);
    }
    let MlflowConfig { tracking_uri, experiment_name, tags } = &config.mlflow;
    let output = config.training.output_dir.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Some(Reporting {
        mlflow: Mlflow::open(tracking_uri.as_deref(), experiment_name.as_deref())?,
        name: config.training.run_name.clone().or(output).unwrap_or_else(|| "splade".to_owned()),
        tags: tags.clone(),
        parameters: parameters(&serde_json::to_value(config)?),
    }))
}

/// The keys of a resolved config and their values, as `training.seed` and `42`.
fn parameters(config: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, found);
            }),
            Value::String(text) => found.push((path.to_owned(), text.clone())),
            other => found.push((path.to_owned(), other.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", config, &mut found);
    found
}

/// The error of a training that a signal ended: after how many steps, and where to resume.
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
