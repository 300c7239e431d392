//! Checkpoints of a training: the state beside the model folder, the best model, resuming, deleting old ones.
//!
//! Writing a checkpoint is atomic. The folder `checkpoint-N` has the files of a model folder, which the caller writes, and
//!
//! * `trainer_state.json` as the reference writes it,
//! * `optimizer.safetensors` instead of its pickles,
//! * `progress.json`: position in the data and in the random numbers,
//! * `training_config.json`: the resolved config.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use splade_files::AtomicFolder;

use crate::schedule::Position;
use crate::{Error, Result, TrainConfig};

const TRAINER_STATE: &str = "trainer_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "progress.json";
const TRAINING_CONFIG: &str = "training_config.json";
/// The start of the names of checkpoints, before the step.
const PREFIX: &str = "checkpoint-";
/// The version of `progress.json`.
const FORMAT_VERSION: u32 = 1;
/// Key of the count of early stopping, as in the reference.
const EARLY_STOPPING: &str = "EarlyStoppingCallback";

/// `trainer_state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainerState {
    /// The step whose evaluation was the best one.
    pub(crate) best_global_step: Option<usize>,
    /// Its metric.
    pub(crate) best_metric: Option<f64>,
    /// The checkpoint of that step, if it was saved.
    pub(crate) best_model_checkpoint: Option<PathBuf>,
    /// Epochs done.
    pub(crate) epoch: f64,
    /// From the config.
    pub(crate) eval_steps: usize,
    /// Optimizer steps done.
    pub(crate) global_step: usize,
    /// Always false.
    pub(crate) is_hyper_param_search: bool,
    /// Always true.
    pub(crate) is_local_process_zero: bool,
    /// Always true.
    pub(crate) is_world_process_zero: bool,
    /// Every logged line.
    pub(crate) log_history: Vec<Map<String, Value>>,
    /// From the config.
    pub(crate) logging_steps: usize,
    /// Optimizer steps of the whole run.
    pub(crate) max_steps: usize,
    /// Always 0: tokens are not counted.
    pub(crate) num_input_tokens_seen: usize,
    /// From the config, rounded up.
    pub(crate) num_train_epochs: usize,
    /// From the config.
    pub(crate) save_steps: usize,
    /// States of callbacks by name, such as the count of early stopping.
    pub(crate) stateful_callbacks: Map<String, Value>,
    /// Always 0: operations are not counted.
    pub(crate) total_flos: f64,
    /// From the config.
    pub(crate) train_batch_size: usize,
    /// Always none.
    pub(crate) trial_name: Option<String>,
    /// Always none.
    pub(crate) trial_params: Option<Value>,
}

/// Consequences of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// No earlier evaluation was as good.
    pub(crate) is_best: bool,
    /// Too many evaluations in a row brought no improvement.
    pub(crate) stop: bool,
}

impl TrainerState {
    /// The state of a run that is about to begin.
    pub(crate) fn new(config: &TrainConfig, total_steps: usize) -> Self {
        let training = &config.training;
        Self {
            best_global_step: None,
            best_metric: None,
            best_model_checkpoint: None,
            epoch: 0.0,
            eval_steps: training.eval_steps,
            global_step: 0,
            is_hyper_param_search: false,
            is_local_process_zero: true,
            is_world_process_zero: true,
            log_history: Vec::new(),
            logging_steps: training.logging_steps,
            max_steps: total_steps,
            num_input_tokens_seen: 0,
            num_train_epochs: training.num_train_epochs.ceil() as usize,
            save_steps: training.save_steps,
            stateful_callbacks: Map::new(),
            total_flos: 0.0,
            train_batch_size: training.per_device_train_batch_size,
            trial_name: None,
            trial_params: None,
        }
    }

    /// Records the metric of an evaluation at `global_step`.
    ///
    /// The best one is replaced by a strictly better one only. An evaluation that is not better than the best before it
    /// by more than the threshold counts against patience; NaN is never better.
    pub(crate) fn observe(&mut self, metric: f64, config: &TrainConfig) -> Verdict {
        let training = &config.training;
        let gain = |best: f64| if training.greater_is_better { metric - best } else { best - metric };
        let is_best = !metric.is_nan() && self.best_metric.is_none_or(|best| gain(best) > 0.0);
        let patient = is_best && self.best_metric.is_none_or(|best| gain(best) > training.early_stopping_threshold);
        if is_best {
            self.best_metric = Some(metric);
            self.best_global_step = Some(self.global_step);
        }
        let Some(patience) = training.early_stopping_patience else { return Verdict { is_best, stop: false } };
        let waited = if patient { 0 } else { self.waited() + 1 };
        let callback = json!({
            "args": {
                "early_stopping_patience": patience,
                "early_stopping_threshold": training.early_stopping_threshold,
            },
            "attributes": {"early_stopping_patience_counter": waited},
        });
        self.stateful_callbacks.insert(EARLY_STOPPING.to_owned(), callback);
        Verdict { is_best, stop: waited >= patience }
    }

    /// Evaluations without improvement so far.
    fn waited(&self) -> usize {
        let counter = self.stateful_callbacks.get(EARLY_STOPPING);
        let counter = counter.and_then(|callback| callback.pointer("/attributes/early_stopping_patience_counter"));
        counter.and_then(Value::as_u64).unwrap_or(0) as usize
    }
}

/// `progress.json`: the position from which a run resumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// 1; another one is refused.
    pub(crate) format_version: u32,
    /// Optimizer steps done.
    pub(crate) global_step: usize,
    /// The epoch the next step is in, from 0.
    pub(crate) epoch: usize,
    /// Batches of that epoch that were used.
    pub(crate) batch: usize,
    /// The seed of data order and dropout.
    pub(crate) seed: u64,
}

impl Progress {
    /// Progress in the current format version.
    pub(crate) fn new(global_step: usize, position: Position, seed: u64) -> Self {
        let Position { epoch, batch } = position;
        Self { format_version: FORMAT_VERSION, global_step, epoch, batch, seed }
    }
}

/// Contents of a checkpoint beside the model.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointState {
    /// `trainer_state.json`.
    pub(crate) trainer: TrainerState,
    /// `progress.json`.
    pub(crate) progress: Progress,
    /// `optimizer.safetensors`: [`AdamW::state`](crate::optimizer::AdamW::state).
    pub(crate) optimizer: HashMap<String, Tensor>,
}

/// Writes `checkpoint-<global_step>` in the output folder and returns its path; one that is there is replaced.
///
/// `write_model` writes the model folder into the folder it is given. If the best evaluation was at this step, the state
/// notes this checkpoint as the best.
///
/// # Errors
/// A file that cannot be written; no checkpoint is left then.
pub(crate) fn save_checkpoint(
    config: &TrainConfig,
    state: &mut CheckpointState,
    write_model: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let output_dir = &config.training.output_dir;
    let path = output_dir.join(format!("{PREFIX}{}", state.trainer.global_step));
    if state.trainer.best_global_step == Some(state.trainer.global_step) {
        state.trainer.best_model_checkpoint = Some(path.clone());
    }
    write_folder(&path, |folder| {
        write_model(folder)?;
        write_optimizer(&state.optimizer, &folder.join(OPTIMIZER))?;
        write_json(&folder.join(PROGRESS), &state.progress)?;
        write_config(config, folder)?;
        write_json(&folder.join(TRAINER_STATE), &state.trainer)
    })?;
    Ok(path)
}

/// Writes a folder atomically; one that exists is replaced.
///
/// # Errors
/// An error of `write`, or a folder that cannot be made or renamed; `path` is unchanged then.
pub(crate) fn write_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = AtomicFolder::create(path)?;
    // an error names the file by the place it was for, not by the temporary one
    write(folder.path()).map_err(|error| error.moved(folder.path(), path))?;
    Ok(folder.commit()?)
}

/// Writes `training_config.json`, the resolved config, into a folder.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_config(config: &TrainConfig, folder: &Path) -> Result<()> {
    write_json(&folder.join(TRAINING_CONFIG), config)
}

fn write_optimizer(state: &HashMap<String, Tensor>, path: &Path) -> Result<()> {
    safetensors::serialize_to_file(state, None, path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(error) => Error::io(path)(error),
        other => Error::file(path, other.to_string()),
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::file(path, error.to_string()))?;
    text.push('\n');
    let file = std::fs::File::create(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io(path))
}

/// Reads the contents of a checkpoint beside the model.
///
/// # Errors
/// A file that is missing, broken, or of a format version that is not known.
pub(crate) fn load_checkpoint(path: &Path) -> Result<CheckpointState> {
    let progress: Progress = splade_files::read_json(&path.join(PROGRESS))?;
    if progress.format_version != FORMAT_VERSION {
        let message = format!("format version {} is not known here, only {FORMAT_VERSION}", progress.format_version);
        return Err(Error::file(path.join(PROGRESS), message));
    }
    let trainer = splade_files::read_json(&path.join(TRAINER_STATE))?;
    let optimizer = path.join(OPTIMIZER);
    let bytes = splade_files::read_file(&optimizer)?;
    let optimizer = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|error| Error::file(&optimizer, error.to_string()))?;
    Ok(CheckpointState { trainer, progress, optimizer })
}

/// The resolved config that a checkpoint was saved with; none if it has none.
///
/// # Errors
/// A file that cannot be read or is broken.
pub(crate) fn saved_config(checkpoint: &Path) -> Result<Option<Value>> {
    let path = checkpoint.join(TRAINING_CONFIG);
    if path.is_file() { Ok(Some(splade_files::read_json(&path)?)) } else { Ok(None) }
}

/// The checkpoints of an output folder by step, oldest first. What is half written is not among them.
///
/// # Errors
/// The folder cannot be read; one that does not exist has no checkpoints.
pub fn checkpoints(output_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(output_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(output_dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(output_dir))?.path();
        if let Some(step) = step_of(&path).filter(|_| is_whole(&path)) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The step of a path like `…/checkpoint-16`.
fn step_of(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// True if every file is there: those written here are complete, copies and those of other programs may not be.
fn is_whole(path: &Path) -> bool {
    [TRAINER_STATE, OPTIMIZER, PROGRESS].iter().all(|name| path.join(name).is_file())
}

/// The checkpoint of the latest step, from which a run resumes.
///
/// # Errors
/// The folder cannot be read.
pub fn latest_checkpoint(output_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(checkpoints(output_dir)?.pop())
}

/// Deletes the oldest checkpoints until `limit` are left; the newest and the best are never deleted, so with a limit of
/// 1 both stay. Returns what was deleted.
///
/// # Errors
/// A folder that cannot be read or deleted.
pub(crate) fn delete_old_checkpoints(
    output_dir: &Path,
    limit: Option<usize>,
    best: Option<&Path>,
) -> Result<Vec<PathBuf>> {
    let Some(limit) = limit else { return Ok(Vec::new()) };
    let mut kept = checkpoints(output_dir)?;
    let newest = kept.pop();
    let best_step = best.and_then(step_of);
    let best_is_older = best_step.is_some() && newest.as_deref().and_then(step_of) != best_step;
    kept.retain(|path| !best_is_older || step_of(path) != best_step);
    let others = limit.saturating_sub(1 + usize::from(best_is_older));
    let deleted: Vec<PathBuf> = kept.drain(..kept.len().saturating_sub(others)).collect();
    for path in &deleted {
        std::fs::remove_dir_all(path).map_err(Error::io(path))?;
    }
    Ok(deleted)
}

/// At the end of a run that loaded its best model under a limit of 1: only that checkpoint stays.
///
/// # Errors
/// A folder that cannot be read or deleted.
pub(crate) fn keep_only(output_dir: &Path, best: &Path) -> Result<()> {
    for path in checkpoints(output_dir)? {
        if step_of(&path) != step_of(best) {
            std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Position;

    fn config(output_dir: &Path, training: Value) -> TrainConfig {
        let mut value = json!({
            "model": {"base_model": "x"}, "training": {"output_dir": output_dir}, "datasets": {"a": {"files": ["x"]}},
        });
        for (key, setting) in training.as_object().unwrap() {
            value["training"][key] = setting.clone();
        }
        TrainConfig::from_value(&value).unwrap().0
    }

    fn state(config: &TrainConfig, step: usize) -> CheckpointState {
        let mut trainer = TrainerState::new(config, 100);
        trainer.global_step = step;
        let progress = Progress::new(step, Position { epoch: 1, batch: 3 }, 42);
        let moments = Tensor::new(&[0.1f32, -2.5], &Device::Cpu).unwrap();
        CheckpointState { trainer, progress, optimizer: HashMap::from([("query/weight.first".to_owned(), moments)]) }
    }

    fn write_model(folder: &Path) -> Result<()> {
        std::fs::write(folder.join("modules.json"), "[]").map_err(Error::io(folder))
    }

    fn save(config: &TrainConfig, step: usize) -> PathBuf {
        save_checkpoint(config, &mut state(config, step), write_model).unwrap()
    }

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn the_state_of_the_reference_reads_and_is_written_with_its_fields() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fixtures/sparse-encoder/trainer-run/checkpoint-16.trainer_state.json"
        );
        let theirs: Value = splade_files::read_json(Path::new(path)).unwrap();
        let state: TrainerState = splade_files::read_json(Path::new(path)).unwrap();
        assert_eq!(serde_json::to_value(&state).unwrap(), theirs);
        assert_eq!((state.best_global_step, state.global_step, state.max_steps), (Some(16), 16, 24));
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), json!({}));
        let mut saved = state(&config, 16);
        saved.trainer.best_global_step = Some(16);
        let path = save_checkpoint(&config, &mut saved, write_model).unwrap();
        assert_eq!(path, folder.path().join("checkpoint-16"));
        assert_eq!(saved.trainer.best_model_checkpoint.as_ref(), Some(&path));

        let read = load_checkpoint(&path).unwrap();
        assert_eq!((&read.trainer, &read.progress), (&saved.trainer, &saved.progress));
        assert_eq!(read.optimizer["query/weight.first"].to_vec1::<f32>().unwrap(), [0.1, -2.5]);
        let written: Value = splade_files::read_json(&path.join(TRAINING_CONFIG)).unwrap();
        assert_eq!(TrainConfig::from_value(&written).unwrap().0, config);
        assert!(path.join("modules.json").is_file());
    }

    #[test]
    fn a_checkpoint_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), json!({}));
        let fail = |path: &Path| write_model(path).and(Err(Error::invalid("the disk is full", "")));
        assert!(save_checkpoint(&config, &mut state(&config, 1), fail).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");

        save(&config, 1);
        assert!(save_checkpoint(&config, &mut state(&config, 1), fail).is_err());
        assert_eq!(names(&checkpoints(folder.path()).unwrap()), ["checkpoint-1"], "the old one stays");
        save(&config, 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_latest_whole_checkpoint_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), json!({}));
        assert_eq!(latest_checkpoint(&folder.path().join("none")).unwrap(), None);
        for step in [9, 100, 20] {
            save(&config, step);
        }
        // Half a copy, a folder that only looks like one, and a file.
        std::fs::create_dir(folder.path().join("checkpoint-500")).unwrap();
        std::fs::create_dir(folder.path().join("checkpoint-best")).unwrap();
        std::fs::write(folder.path().join("checkpoint-900"), "").unwrap();
        assert_eq!(names(&checkpoints(folder.path()).unwrap()), ["checkpoint-9", "checkpoint-20", "checkpoint-100"]);
        assert_eq!(latest_checkpoint(folder.path()).unwrap(), Some(folder.path().join("checkpoint-100")));
    }

    #[test]
    fn a_broken_checkpoint_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = save(&config(folder.path(), json!({})), 1);
        std::fs::write(path.join(OPTIMIZER), "short").unwrap();
        let error = load_checkpoint(&path).unwrap_err();
        assert!(error.to_string().contains("optimizer.safetensors") && error.kind().is_bad_input(), "{error}");
        let mut progress: Value = splade_files::read_json(&path.join(PROGRESS)).unwrap();
        progress["format_version"] = json!(2);
        write_json(&path.join(PROGRESS), &progress).unwrap();
        assert!(
            load_checkpoint(&path).unwrap_err().to_string().ends_with("format version 2 is not known here, only 1")
        );
    }

    #[test]
    fn a_git_lfs_pointer_and_a_missing_file_are_named() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 438007253\n";
        for name in [PROGRESS, TRAINER_STATE, OPTIMIZER] {
            let folder = tempfile::tempdir().unwrap();
            let path = save(&config(folder.path(), json!({})), 1);
            std::fs::write(path.join(name), pointer).unwrap();
            let error = load_checkpoint(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}: it is a git-lfs pointer")), "{error}");
            std::fs::remove_file(path.join(name)).unwrap();
            let error = load_checkpoint(&path).unwrap_err();
            assert_eq!(error.kind(), splade_core::ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_oldest_are_deleted_and_the_best_is_kept() {
        struct Case {
            limit: Option<usize>,
            best: Option<usize>,
            kept: &'static [usize],
        }
        let cases = [
            Case { limit: None, best: None, kept: &[1, 2, 3, 4] },
            Case { limit: Some(2), best: None, kept: &[3, 4] },
            Case { limit: Some(2), best: Some(1), kept: &[1, 4] },
            Case { limit: Some(3), best: Some(2), kept: &[2, 3, 4] },
            Case { limit: Some(1), best: None, kept: &[4] },
            Case { limit: Some(1), best: Some(4), kept: &[4] },
            Case { limit: Some(1), best: Some(2), kept: &[2, 4] },
            Case { limit: Some(9), best: Some(2), kept: &[1, 2, 3, 4] },
        ];
        for Case { limit, best, kept } in cases {
            let folder = tempfile::tempdir().unwrap();
            let config = config(folder.path(), json!({}));
            (1..=4).for_each(|step| drop(save(&config, step)));
            let best = best.map(|step| folder.path().join(format!("checkpoint-{step}")));
            delete_old_checkpoints(folder.path(), limit, best.as_deref()).unwrap();
            let left: Vec<usize> =
                checkpoints(folder.path()).unwrap().iter().filter_map(|path| step_of(path)).collect();
            assert_eq!(left, kept, "limit {limit:?}, best {best:?}");
            if let Some(best) = best {
                keep_only(folder.path(), &best).unwrap();
                assert_eq!(checkpoints(folder.path()).unwrap(), [best]);
            }
        }
    }

    #[test]
    fn the_best_is_strictly_better_and_patience_ends() {
        let training = json!({
            "early_stopping_patience": 2, "early_stopping_threshold": 0.01, "greater_is_better": true,
            "metric_for_best_model": "ndcg", "load_best_model_at_end": false,
        });
        let config = config(Path::new("out"), training);
        let mut state = TrainerState::new(&config, 100);
        let steps = [
            // metric, best so far, stop
            (0.50, true, false),
            (0.505, true, false), // better, but not by more than the threshold: waited 1
            (0.52, true, false),  // better by 0.015 than the best before it: waited 0
            (0.52, false, false), // equal is not better
            (f64::NAN, false, true),
        ];
        for (step, (metric, is_best, stop)) in (1..).zip(steps) {
            state.global_step = step;
            assert_eq!(state.observe(metric, &config), Verdict { is_best, stop }, "step {step}");
        }
        assert_eq!((state.best_metric, state.best_global_step), (Some(0.52), Some(3)));
        let counter = &state.stateful_callbacks[EARLY_STOPPING]["attributes"]["early_stopping_patience_counter"];
        assert_eq!(counter, 2);
    }

    #[test]
    fn a_smaller_loss_is_better() {
        let config = config(Path::new("out"), json!({}));
        let mut state = TrainerState::new(&config, 100);
        let best: Vec<bool> = [2.0, 2.5, 1.5].into_iter().map(|loss| state.observe(loss, &config).is_best).collect();
        assert_eq!(best, [true, false, true]);
    }
}
