//! The training loop: next batches → gradients → optimizer step → log → evaluate → save.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;

use crate::card::card;
use crate::checkpoint::{
    CheckpointState, Progress, TrainerState, checkpoints, delete_old_checkpoints, keep_only, latest_checkpoint,
    save_checkpoint, write_config, write_folder,
};
use crate::config::{Reporter, Strategy, TrainConfig};
use crate::data::{Batch, DataSet, Material, Sampler, TokensAhead};
use crate::doctor::{Doctor, Examination, Sparsity};
use crate::evaluation::EvaluationSets;
use crate::events::remove_event_files;
use crate::log::{LossWindow, RunLog, Scalar, drop_later_rows, speed_scalars};
use crate::prepare::{Plan, Prepared, prepare, without_head_patch};
use crate::schedule::Position;
use crate::session::{Session, StepReport};
use crate::{Error, Result, Trainee};

/// The log in the output folder, one line of JSON after the other.
const LOG: &str = "log.jsonl";
/// The folder in the output folder that evaluations write CSV files into.
const EVALUATIONS: &str = "eval";
/// The folder of the result in the output folder.
const RESULT: &str = "final";

/// Starting point of a training.
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
        /// mean active dims of queries when they were last examined; 0 before, and for that objective
        query_active_dims: f64,
    },
    /// a log line
    Logged {
        /// optimizer steps done
        step: usize,
        /// epochs done
        epoch: f64,
        /// its numbers
        scalars: &'a [Scalar],
    },
    /// an evaluation
    Evaluated {
        /// optimizer steps done
        step: usize,
        /// epochs done
        epoch: f64,
        /// its numbers
        scalars: &'a [Scalar],
    },
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

/// Result of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct FitReport {
    /// the folder of the result; none if the run was stopped
    pub model: Option<PathBuf>,
    /// optimizer steps done, those before a resume included
    pub steps: usize,
    /// the best value of the metric, if there was an evaluation
    pub best_metric: Option<f64>,
    /// the step of that evaluation
    pub best_step: Option<usize>,
    /// true if early stopping ended the run
    pub stopped_early: bool,
    /// the checkpoint whose model is the result; none if it is the model of the last step
    pub loaded: Option<PathBuf>,
    /// active dims at the end; none for the masked-language-model objective
    pub sparsity: Option<Sparsity>,
    /// the checkpoint to resume a stopped run from; none if it was stopped before its first step
    pub checkpoint: Option<PathBuf>,
}

impl FitReport {
    fn of(state: &TrainerState) -> Self {
        Self {
            model: None,
            steps: state.global_step,
            best_metric: state.best_metric,
            best_step: state.best_global_step,
            stopped_early: false,
            loaded: None,
            sparsity: None,
            checkpoint: None,
        }
    }
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
        return Ok(FitReport { checkpoint: plan.checkpoint, ..FitReport::of(&state) });
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

/// The place of a step in a run.
#[derive(Debug, Clone, Copy)]
struct StepPlace {
    step: usize,
    ends_epoch: bool,
    is_last: bool,
}

impl StepPlace {
    /// True if something that happens by `strategy` happens after this step; it also happens after the last one.
    fn is_due(self, strategy: Strategy, every: usize) -> bool {
        match strategy {
            Strategy::No => false,
            Strategy::Steps => self.is_last || (every > 0 && self.step.is_multiple_of(every)),
            Strategy::Epoch => self.is_last || self.ends_epoch,
        }
    }

    /// True if a line is logged after this step.
    fn is_logged(self, every: usize) -> bool {
        every > 0 && self.step.is_multiple_of(every)
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
    /// threads that tokenize the next batches, if the config wants any
    ahead: Option<TokensAhead>,
    state: TrainerState,
    position: Position,
    plan: Plan,
    log: RunLog,
    doctor: Doctor,
    /// the last batch that was examined
    examined: Option<Batch>,
    window: LossWindow,
    began: Instant,
    examples: usize,
    /// sum over the steps of this process
    total_loss: f64,
}

impl<'a> Run<'a> {
    fn begin(config: &'a TrainConfig, prepared: Prepared) -> Result<Self> {
        let Prepared { mut session, evaluation, train, sampler, state, position, plan } = prepared;
        let training = &config.training;
        let events = training.report_to.contains(&Reporter::Tensorboard).then(|| training.event_dir());
        let history = state.log_history.clone();
        let log = RunLog::open(training.output_dir.join(LOG), events.as_deref(), history, state.global_step)?;
        drop_later_rows(&training.output_dir.join(EVALUATIONS), state.global_step)?;
        let ahead = tokens_ahead(config, &session);
        if let Some(ahead) = &ahead {
            session.take_tokens_from(ahead.ready());
        }
        let doctor = Doctor::new(config, session.trainee(), session.ramp_end())?;
        let queue = sampler.epoch(position.epoch as u64).skip(position.batch).collect();
        Ok(Self {
            config,
            session,
            evaluation,
            train,
            sampler,
            queue,
            ahead,
            state,
            position,
            plan,
            log,
            doctor,
            examined: None,
            window: LossWindow::default(),
            began: Instant::now(),
            examples: 0,
            total_loss: 0.0,
        })
    }

    fn run(mut self, observer: &mut dyn Observer) -> Result<FitReport> {
        let training = &self.config.training;
        let mut stopped_early = false;
        while self.state.global_step < self.plan.total_steps && !stopped_early {
            let batches = self.next_batches()?;
            let report = self.step(&batches, observer)?;
            let step = self.state.global_step;
            let place = StepPlace { step, ends_epoch: self.queue.is_empty(), is_last: step == self.plan.total_steps };
            self.watch(place, &report, &batches, observer)?;
            let mut save = place.is_due(training.save_strategy, training.save_steps);
            if !self.evaluation.is_empty() && place.is_due(training.eval_strategy, training.eval_steps) {
                let verdict = self.evaluate(observer)?;
                // a best model that is not saved could not be loaded at the end
                save |= verdict.is_best && training.load_best_model_at_end;
                stopped_early = verdict.stop && !place.is_last;
            }
            let is_stopped = observer.should_stop() && !place.is_last && !stopped_early;
            if save || is_stopped {
                let path = self.save()?;
                observer.event(Event::Saved(&path));
                if is_stopped {
                    return Ok(FitReport { checkpoint: Some(path), ..FitReport::of(&self.state) });
                }
            }
        }
        let (model, loaded) = self.finish(observer)?;
        let sparsity = self.doctor.sparsity();
        Ok(FitReport { model: Some(model), stopped_early, loaded, sparsity, ..FitReport::of(&self.state) })
    }

    /// One optimizer step.
    fn step(&mut self, batches: &[Batch], observer: &mut dyn Observer) -> Result<StepReport> {
        let report =
            self.session.step(self.state.global_step, batches).map_err(|error| self.with_rows(error, batches))?;
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
            query_active_dims: self.doctor.active_dims().map_or(0.0, |(queries, _)| queries),
        });
        Ok(report)
    }

    /// An error about a number that is not finite, with the rows of the batches and the checkpoint to return to.
    fn with_rows(&self, error: Error, batches: &[Batch]) -> Error {
        let Error::NotFinite { step, what, value, .. } = error else { return error };
        let checkpoint = latest_checkpoint(&self.config.training.output_dir).ok().flatten();
        Error::NotFinite { step, what, value, rows: places(&self.session, batches), checkpoint }
    }

    /// Logs a line where one is due, and reports what the doctor finds.
    fn watch(
        &mut self,
        place: StepPlace,
        report: &StepReport,
        batches: &[Batch],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let StepPlace { step, is_last, .. } = place;
        let rows = || places(&self.session, batches);
        if let Some(sentence) = self.doctor.watch_norm(step, report.grad_norm, rows) {
            observer.event(Event::Warning(&sentence));
        }
        let is_logged = place.is_logged(self.config.training.logging_steps);
        let losses = self.window.shares();
        if is_logged || is_last {
            self.examined = batches.last().cloned();
            if let Some(vectors) = self.session.vectors() {
                let examination = Examination::of_step(vectors, self.session.trainee().query_table().is_some())?;
                for sentence in self.doctor.examine(step, losses, examination) {
                    observer.event(Event::Warning(&sentence));
                }
            }
        }
        if is_logged {
            let mut line = self.window.take(report.grad_norm, report.learning_rate);
            if let Some((queries, documents)) = self.doctor.active_dims() {
                line.push(("query_active_dims".to_owned(), queries));
                line.push(("document_active_dims".to_owned(), documents));
            }
            observer.event(Event::Logged { step, epoch: self.state.epoch, scalars: &line });
            self.log.log(step, self.state.epoch, &line, Some(report.regularizer_weights))?;
        }
        Ok(())
    }

    /// The vectors of a model for the batch that is examined; none for running text.
    fn examine(&self, model: &Trainee) -> Result<Option<Examination>> {
        let (Material::Examples(sets), Some(batch)) = (self.session.material(), &self.examined) else {
            return Ok(None);
        };
        sets.get(batch.data_set).map(|set| Examination::of_rows(model, set, &batch.rows)).transpose()
    }

    /// The micro-batches of the next step. At the end of an epoch there may be fewer than the config states.
    fn next_batches(&mut self) -> Result<Vec<Batch>> {
        if self.queue.is_empty() {
            self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
            self.queue = self.sampler.epoch(self.position.epoch as u64).collect();
            if self.queue.is_empty() {
                return Err(Error::invalid("the data sets give no batches", "add examples, or lower the batch size"));
            }
        }
        let of = self.config.training.gradient_accumulation_steps.max(1).min(self.queue.len());
        let batches = self.queue.drain(..of).collect();
        if let (Some(ahead), Material::Examples(sets)) = (&mut self.ahead, self.session.material()) {
            let trainee = self.session.trainee();
            ahead.begin_step(of, self.queue.iter().map(|batch| network_texts(trainee, sets, batch)));
        }
        Ok(batches)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<crate::checkpoint::Verdict> {
        let (step, epoch) = (self.state.global_step, self.state.epoch);
        // those of the step before, which were in force
        let weights = self.session.regularizer_weights(step.saturating_sub(1));
        let csv_dir = self.config.training.output_dir.join(EVALUATIONS);
        let evaluated = self.evaluation.evaluate(&self.session, step, epoch, &csv_dir)?;
        for line in &evaluated.lines {
            observer.event(Event::Evaluated { step, epoch, scalars: line });
            self.log.log(step, epoch, line, Some(weights))?;
        }
        evaluated.samples.iter().for_each(|sample| observer.event(Event::Sample(sample)));
        let metric = self.metric_for_best_model(&evaluated.lines)?;
        Ok(self.state.observe(metric, self.config))
    }

    fn metric_for_best_model(&self, lines: &[Vec<Scalar>]) -> Result<f64> {
        let name = &self.config.training.metric_for_best_model;
        let found = lines.iter().flatten().find(|(key, _)| key == name);
        // its name was checked before the first step
        let missing = || Error::config("training.metric_for_best_model", format!("{name} was not measured"), "");
        found.map(|(_, value)| *value).ok_or_else(missing)
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
        let path =
            save_checkpoint(self.config, &mut checkpoint, |folder| self.write_model(self.session.trainee(), folder))?;
        self.state.best_model_checkpoint = checkpoint.trainer.best_model_checkpoint;
        let best = self.state.best_model_checkpoint.as_deref();
        delete_old_checkpoints(&training.output_dir, training.save_total_limit, best)?;
        Ok(path)
    }

    fn write_model(&self, model: &Trainee, folder: &Path) -> Result<()> {
        model.write(folder, card(self.config, &self.train, &self.state, model.has_code()))
    }

    /// Logs the summary and writes the result: the best checkpoint's model if the config selects it, else the last model.
    /// Returns the folder of the result, and that checkpoint.
    fn finish(&mut self, observer: &mut dyn Observer) -> Result<(PathBuf, Option<PathBuf>)> {
        let training = &self.config.training;
        let steps = self.state.global_step - self.plan.first_step;
        let mut line = speed_scalars("train", self.began.elapsed().as_secs_f64(), self.examples, steps);
        line.push(("train_loss".to_owned(), self.total_loss / steps.max(1) as f64));
        let (step, epoch) = (self.state.global_step, self.state.epoch);
        observer.event(Event::Logged { step, epoch, scalars: &line });
        self.log.log(step, epoch, &line, None)?;
        self.state.log_history = self.log.history().to_vec();

        let best = self.state.best_model_checkpoint.clone();
        let best = best.filter(|path| training.load_best_model_at_end && path.is_dir());
        let reload =
            |best: &PathBuf| Trainee::from_checkpoint(&without_head_patch(self.config, best), best, &Device::Cpu);
        let reloaded = best.as_ref().map(reload).transpose()?;
        if let Some(examination) = reloaded.as_ref().map(|model| self.examine(model)).transpose()?.flatten() {
            self.doctor.replace(examination);
        }
        let model = reloaded.as_ref().unwrap_or(self.session.trainee());
        let path = training.output_dir.join(RESULT);
        write_folder(&path, |folder| {
            self.write_model(model, folder)?;
            write_config(self.config, folder)
        })?;
        if let (Some(best), Some(1)) = (&best, training.save_total_limit) {
            keep_only(&training.output_dir, best)?;
        }
        Ok((path, best))
    }
}

/// The threads that tokenize ahead, if the config wants any; running text is tokenized before the first step.
fn tokens_ahead(config: &TrainConfig, session: &Session) -> Option<TokensAhead> {
    let (n_threads, each) = (config.training.dataloader_num_workers, config.training.dataloader_prefetch_factor);
    let is_wanted = n_threads > 0 && matches!(session.material(), Material::Examples(_));
    is_wanted.then(|| TokensAhead::start(session.trainee().vocabulary(), n_threads, n_threads.saturating_mul(each)))
}

/// The texts of a batch that go through the network.
fn network_texts<'a>(trainee: &'a Trainee, sets: &'a [DataSet], batch: &'a Batch) -> impl Iterator<Item = String> + 'a {
    let set = sets.get(batch.data_set);
    let examples = batch.rows.iter().filter_map(move |row| set?.examples.get(*row));
    examples.flat_map(|example| trainee.network_texts(example))
}

/// The places of the rows of some batches, `train.jsonl:17, train.jsonl:4 and 14 more`.
fn places(session: &Session, batches: &[Batch]) -> String {
    const SHOWN: usize = 16;
    let Material::Examples(sets) = session.material() else { return String::new() };
    let all = batches.iter().flat_map(|batch| batch.rows.iter().map(|row| (batch.data_set, *row)));
    let n = all.clone().count();
    let place = |(set, row): (usize, usize)| sets.get(set).map(|set| set.place(row));
    let shown = all.take(SHOWN).filter_map(place).collect::<Vec<_>>().join(", ");
    if n > SHOWN { format!("{shown} and {} more", n - SHOWN) } else { shown }
}
