//! The training loop: next batches → gradients → optimizer step → log → evaluate → save.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;

use crate::card::card;
use crate::checkpoint::{
    CheckpointState, Progress, TrainerState, checkpoints, delete_old_checkpoints, keep_only, save_checkpoint,
    write_config, write_folder,
};
use crate::config::{Reporter, Strategy, TrainConfig};
use crate::data::{Batch, Sampler};
use crate::evaluation::EvaluationSets;
use crate::events::remove_event_files;
use crate::log::{LossWindow, RunLog, Scalar, drop_later_rows, speed_scalars};
use crate::prepare::{Plan, Prepared, prepare};
use crate::schedule::Position;
use crate::session::{Session, StepReport};
use crate::{Error, Result, Trainee};

/// The log in the output folder, one line of JSON after the other.
const LOG: &str = "log.jsonl";
/// The folder in the output folder that evaluations write CSV files into.
const EVALUATIONS: &str = "eval";
/// The folder of the result in the output folder.
const RESULT: &str = "final";
/// The ends of the metrics that `track_sparsity` is about.
const SPARSITY: [&str; 3] = ["_active_dims", "_sparsity_ratio", "avg_flops"];

/// Where a training starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// from the base model; an output folder that holds a training is refused
    New,
    /// from the base model; checkpoints, log and event files of an earlier training in the output folder are removed
    Overwrite,
    /// from the latest complete checkpoint in the output folder, or from the base model if there is none
    Resume,
    /// from this checkpoint
    ResumeFrom(PathBuf),
}

/// A thing that happens during a training.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// before the first step
    Started(&'a Plan),
    /// after each step
    Step {
        /// optimizer steps done
        step: usize,
        /// mean total loss since the last log line
        loss: f64,
        /// examples of this step
        examples: usize,
        /// mean active dims of this step's documents; 0 for the masked-language-model objective
        active_dims: f64,
    },
    /// a log line
    Logged(&'a [Scalar]),
    /// an evaluation
    Evaluated(&'a [Scalar]),
    /// a text and its top terms
    Sample(&'a str),
    /// a checkpoint
    Saved(&'a Path),
    /// an oddity that does not stop the run
    Warning(&'a str),
}

/// Watches a training and may stop it.
pub trait Observer {
    /// Receives the events of a training in order.
    fn event(&mut self, event: Event<'_>);

    /// Returns true to stop the training: called before the first step, and after each one, which is then saved.
    fn should_stop(&mut self) -> bool {
        false
    }
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct FitReport {
    /// the folder of the result; none if the run was stopped
    pub model: Option<PathBuf>,
    /// optimizer steps done, those before a resume included
    pub steps: usize,
    /// the best value of the metric, if there was an evaluation
    pub best_metric: Option<f64>,
    /// the checkpoint to resume a stopped run from; none if it was stopped before its first step
    pub checkpoint: Option<PathBuf>,
}

/// Plans what [`fit`] would do; writes nothing.
///
/// # Errors
/// Those of [`fit`] that are known before the first step.
pub fn plan(config: &TrainConfig, start: &Start) -> Result<Plan> {
    Ok(prepare(config, start)?.plan)
}

/// Trains a model as `config` describes; checkpoints and the result `final` go to its output folder.
///
/// # Errors
/// Data, models and configs that cannot be used; a loss that is not finite; files that cannot be written. The
/// checkpoints saved before stay as they are.
pub fn fit(config: &TrainConfig, start: &Start, observer: &mut dyn Observer) -> Result<FitReport> {
    let prepared = prepare(config, start)?;
    observer.event(Event::Started(&prepared.plan));
    prepared.plan.warnings.iter().for_each(|warning| observer.event(Event::Warning(warning)));
    if observer.should_stop() {
        let Prepared { state, plan, .. } = prepared;
        let (steps, best_metric) = (state.global_step, state.best_metric);
        return Ok(FitReport { model: None, steps, best_metric, checkpoint: plan.checkpoint });
    }
    if *start == Start::Overwrite {
        remove_training(config)?;
    }
    Run::begin(config, prepared)?.run(observer)
}

/// Removes what an earlier training left in the output folder: its later checkpoints would pass for the latest ones of
/// the new run.
fn remove_training(config: &TrainConfig) -> Result<()> {
    let output = &config.training.output_dir;
    for path in checkpoints(output)? {
        std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
    }
    remove_event_files(&config.training.event_dir())?;
    let log = output.join(LOG);
    if log.is_file() { std::fs::remove_file(&log).map_err(Error::io(&log)) } else { Ok(()) }
}

/// True if something that happens by `strategy` happens after this step.
fn due(strategy: Strategy, every: usize, step: usize, ends_epoch: bool) -> bool {
    match strategy {
        Strategy::No => false,
        Strategy::Steps => every > 0 && step.is_multiple_of(every),
        Strategy::Epoch => ends_epoch,
    }
}

/// A training in progress.
struct Run<'a> {
    config: &'a TrainConfig,
    session: Session,
    evaluation: EvaluationSets,
    /// name and number of examples of each set, for the model card
    train: Vec<(String, usize)>,
    sampler: Sampler,
    /// the batches that are left of the epoch
    queue: VecDeque<Batch>,
    state: TrainerState,
    position: Position,
    plan: Plan,
    log: RunLog,
    window: LossWindow,
    began: Instant,
    examples: usize,
    /// sum over the steps of this process
    total_loss: f64,
}

impl<'a> Run<'a> {
    fn begin(config: &'a TrainConfig, prepared: Prepared) -> Result<Self> {
        let Prepared { session, evaluation, train, sampler, state, position, plan } = prepared;
        let training = &config.training;
        let events = training.report_to.contains(&Reporter::Tensorboard).then(|| training.event_dir());
        let history = state.log_history.clone();
        let log = RunLog::open(training.output_dir.join(LOG), events.as_deref(), history, state.global_step)?;
        drop_later_rows(&training.output_dir.join(EVALUATIONS), state.global_step)?;
        let queue = sampler.epoch(position.epoch as u64).skip(position.batch).collect();
        Ok(Self {
            config,
            session,
            evaluation,
            train,
            sampler,
            queue,
            state,
            position,
            plan,
            log,
            window: LossWindow::default(),
            began: Instant::now(),
            examples: 0,
            total_loss: 0.0,
        })
    }

    fn run(mut self, observer: &mut dyn Observer) -> Result<FitReport> {
        let training = &self.config.training;
        while self.state.global_step < self.plan.total_steps {
            let report = self.step(observer)?;
            let (step, ends_epoch) = (self.state.global_step, self.queue.is_empty());
            if due(Strategy::Steps, training.logging_steps, step, ends_epoch) {
                let line = self.window.take(report.grad_norm, report.learning_rate);
                observer.event(Event::Logged(&line));
                self.log.log(step, self.state.epoch, &line, Some(report.regularizer_weights))?;
            }
            let mut save = due(training.save_strategy, training.save_steps, step, ends_epoch);
            let mut is_over = step == self.plan.total_steps;
            if !self.evaluation.is_empty() && due(training.eval_strategy, training.eval_steps, step, ends_epoch) {
                let verdict = self.evaluate(observer)?;
                // a best model that is not saved could not be loaded at the end
                save |= verdict.is_best && training.load_best_model_at_end;
                is_over |= verdict.stop;
            }
            let is_stopped = observer.should_stop() && !is_over;
            if save || is_stopped {
                let path = self.save()?;
                observer.event(Event::Saved(&path));
                if is_stopped {
                    return Ok(self.report(None, Some(path)));
                }
            }
            if is_over {
                break;
            }
        }
        let model = self.finish()?;
        Ok(self.report(Some(model), None))
    }

    fn report(self, model: Option<PathBuf>, checkpoint: Option<PathBuf>) -> FitReport {
        FitReport { model, steps: self.state.global_step, best_metric: self.state.best_metric, checkpoint }
    }

    /// One optimizer step.
    fn step(&mut self, observer: &mut dyn Observer) -> Result<StepReport> {
        let batches = self.next_batches()?;
        let report = self.session.step(self.state.global_step, &batches)?;
        self.position.batch += batches.len();
        self.state.global_step += 1;
        self.state.epoch =
            self.position.epoch as f64 + self.position.batch as f64 / self.plan.batches_per_epoch.max(1) as f64;
        let examples = batches.iter().map(|batch| batch.rows.len()).sum();
        self.examples += examples;
        report.losses.iter().for_each(|values| self.window.add_micro_batch(values, batches.len()));
        self.window.end_step();
        self.total_loss += report.losses.iter().map(|values| values.total()).sum::<f64>() / batches.len() as f64;
        observer.event(Event::Step {
            step: self.state.global_step,
            loss: self.window.mean_loss(),
            examples,
            active_dims: report.active_dims,
        });
        Ok(report)
    }

    /// The micro-batches of the next step: fewer than the config says at the end of an epoch.
    fn next_batches(&mut self) -> Result<Vec<Batch>> {
        if self.queue.is_empty() {
            self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
            self.queue = self.sampler.epoch(self.position.epoch as u64).collect();
            if self.queue.is_empty() {
                return Err(Error::invalid("the data sets give no batches", "add examples, or lower the batch size"));
            }
        }
        let of = self.config.training.gradient_accumulation_steps.max(1).min(self.queue.len());
        Ok(self.queue.drain(..of).collect())
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<crate::checkpoint::Verdict> {
        let (step, epoch) = (self.state.global_step, self.state.epoch);
        let weights = self.session.regularizer_weights(step);
        let csv_dir = self.config.training.output_dir.join(EVALUATIONS);
        let mut evaluated = self.evaluation.evaluate(&self.session, step, epoch, &csv_dir)?;
        if !self.config.evaluation.track_sparsity {
            let is_sparsity = |key: &str| SPARSITY.iter().any(|end| key.ends_with(end));
            evaluated.lines.iter_mut().for_each(|line| line.retain(|(key, _)| !is_sparsity(key)));
        }
        for line in &evaluated.lines {
            observer.event(Event::Evaluated(line));
            self.log.log(step, epoch, line, Some(weights))?;
        }
        evaluated.samples.iter().for_each(|sample| observer.event(Event::Sample(sample)));
        let metric = self.metric_for_best_model(&evaluated.lines)?;
        Ok(self.state.observe(metric, self.config))
    }

    fn metric_for_best_model(&self, lines: &[Vec<Scalar>]) -> Result<f64> {
        let name = &self.config.training.metric_for_best_model;
        let scalars = || lines.iter().flatten();
        if let Some((_, value)) = scalars().find(|(key, _)| key == name) {
            return Ok(*value);
        }
        let likeness = |key: &str| strsim::jaro_winkler(key, name);
        let near = scalars().map(|(key, _)| key).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        Err(Error::config(
            "training.metric_for_best_model",
            format!("{name} is not among the metrics of this evaluation"),
            near.map_or_else(String::new, |near| format!("did you mean {near}?")),
        ))
    }

    /// Saves a checkpoint and deletes those that are over the limit.
    fn save(&mut self) -> Result<PathBuf> {
        let training = &self.config.training;
        self.state.log_history = self.log.history().to_vec();
        let mut checkpoint = CheckpointState {
            trainer: self.state.clone(),
            progress: Progress::new(self.state.global_step, self.position, training.seed),
            optimizer: self.session.optimizer().state()?,
        };
        let path = save_checkpoint(self.config, &mut checkpoint, |folder| {
            self.session.trainee().write(folder, card(self.config, &self.train, &self.state))
        })?;
        self.state.best_model_checkpoint = checkpoint.trainer.best_model_checkpoint;
        let best = self.state.best_model_checkpoint.as_deref();
        delete_old_checkpoints(&training.output_dir, training.save_total_limit, best)?;
        Ok(path)
    }

    /// Logs the summary and writes the result: the best checkpoint's model if it is wanted, else the model as it is.
    fn finish(&mut self) -> Result<PathBuf> {
        let training = &self.config.training;
        let steps = self.state.global_step - self.plan.first_step;
        let mut line = speed_scalars("train", self.began.elapsed().as_secs_f64(), self.examples, steps);
        line.push(("train_loss".to_owned(), self.total_loss / steps.max(1) as f64));
        self.log.log(self.state.global_step, self.state.epoch, &line, None)?;
        self.state.log_history = self.log.history().to_vec();

        let best = self.state.best_model_checkpoint.as_ref();
        let best = best.filter(|path| training.load_best_model_at_end && path.is_dir());
        let reloaded = best.map(|best| Trainee::from_checkpoint(self.config, best, &Device::Cpu)).transpose()?;
        let model = reloaded.as_ref().unwrap_or(self.session.trainee());
        let path = training.output_dir.join(RESULT);
        write_folder(&path, |folder| {
            model.write(folder, card(self.config, &self.train, &self.state))?;
            write_config(self.config, folder)
        })?;
        if let (Some(best), Some(1)) = (best, training.save_total_limit) {
            keep_only(&training.output_dir, best)?;
        }
        Ok(path)
    }
}
