//! The loop: next batch → encode → loss → backward → clip → step → log → evaluate → save.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;

use crate::card::card;
use crate::config::{DeviceChoice, InnerLossType, Objective, Reporter, SamplingStrategy, Strategy, TrainConfig};
use crate::evaluation::Judge;
use crate::session::Material;
use crate::{
    Batch, BatchRules, CheckpointState, DataSet, Error, EventWriter, LabelUse, LossWindow, Position, Progress, Result,
    RunLog, Sampler, Scalar, Session, SourceReport, StepPlan, Trainee, TrainerState, best_device, checkpoints,
    delete_old_checkpoints, device, keep_only, latest_checkpoint, load_checkpoint, load_data_set, load_texts,
    save_checkpoint, speed_scalars, write_folder,
};

/// The log in the output folder, one line of JSON after the other.
const LOG: &str = "log.jsonl";

/// Where a training starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// from the base model; an output folder with checkpoints is refused
    New,
    /// from the base model; checkpoints that the output folder holds are removed
    Overwrite,
    /// from the last whole checkpoint in the output folder, or anew if there is none
    Resume,
    /// from this checkpoint
    ResumeFrom(PathBuf),
}

/// What happens while a model learns, for whoever watches.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// before the first step: what will be done
    Started(&'a Plan),
    /// after each step: optimizer steps done, mean loss since the last log line, examples in the step
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
    /// something odd that does not stop the run
    Warning(&'a str),
}

/// Watches a training and may end it.
pub trait Observer {
    /// Called as things happen.
    fn event(&mut self, event: Event<'_>);

    /// Asked after each step; true saves a checkpoint and ends the run.
    fn should_stop(&mut self) -> bool {
        false
    }
}

/// What a config comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// what was found in each data set
    pub sets: Vec<SourceReport>,
    /// pieces of running text, for the masked-language-model objective
    pub pieces: usize,
    /// batches of an epoch
    pub batches_per_epoch: usize,
    /// optimizer steps of the run
    pub total_steps: usize,
    /// optimizer steps done before, in a resumed run
    pub first_step: usize,
    /// floats of the model
    pub parameters: usize,
    /// V
    pub dimensions: usize,
    /// name, learning rate, weight decay and number of tensors of each parameter group
    pub groups: Vec<(f64, f64, usize)>,
    /// bytes for weights, gradients and moments, and for the activations of one batch, by estimate
    pub memory_bytes: (u64, u64),
    /// what was odd
    pub warnings: Vec<String>,
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// the folder of the result; none if the run was stopped before its end
    pub model: Option<PathBuf>,
    /// optimizer steps done
    pub steps: usize,
    /// the best value of the metric, if there was an evaluation
    pub best_metric: Option<f64>,
    /// the checkpoint of a run that was stopped
    pub checkpoint: Option<PathBuf>,
}

/// Everything read and made ready, before the first step.
struct Prepared {
    session: Session,
    judge: Judge,
    /// names and numbers of examples, for the model card
    train: Vec<(String, usize)>,
    sampler: Sampler,
    state: TrainerState,
    position: Position,
    plan: Plan,
}

/// What [`fit`] would do, without doing it.
///
/// # Errors
/// As [`fit`], as far as it can be known before the first step.
pub fn plan(config: &TrainConfig, start: &Start) -> Result<Plan> {
    Ok(prepare(config, start)?.plan)
}

/// Trains as `config` says: checkpoints and the result `final` go to its output folder.
///
/// # Errors
/// Data, models and configs that cannot be; a loss that is not finite; files that cannot be written.
pub fn fit(config: &TrainConfig, start: &Start, observer: &mut dyn Observer) -> Result<Outcome> {
    let Prepared { mut session, judge, train, sampler, mut state, mut position, plan } = prepare(config, start)?;
    let training = &config.training;
    let output = &training.output_dir;
    if *start == Start::Overwrite {
        forget(output)?;
    }
    observer.event(Event::Started(&plan));
    plan.warnings.iter().for_each(|warning| observer.event(Event::Warning(warning)));
    let mut log = open_log(config, &state)?;
    let mut window = LossWindow::default();
    let mut queue: VecDeque<Batch> = sampler.epoch(position.epoch as u64).skip(position.batch).collect();
    let (begun, mut examples, mut total_loss) = (Instant::now(), 0, 0.0);
    let mut stopped = false;

    while state.global_step < plan.total_steps {
        if queue.is_empty() {
            position = Position { epoch: position.epoch + 1, batch: 0 };
            queue = sampler.epoch(position.epoch as u64).collect();
            if queue.is_empty() {
                return Err(Error::invalid("the data sets give no batches", "add examples, or lower the batch size"));
            }
        }
        let of = training.gradient_accumulation_steps.max(1).min(queue.len());
        let batches: Vec<Batch> = queue.drain(..of).collect();
        let report = session.step(state.global_step, &batches)?;
        position.batch += of;
        state.global_step += 1;
        state.epoch = position.epoch as f64 + position.batch as f64 / plan.batches_per_epoch.max(1) as f64;
        let in_step = batches.iter().map(|batch| batch.rows.len()).sum::<usize>();
        examples += in_step;
        report.losses.iter().for_each(|values| window.add_micro_batch(values, of));
        window.end_step();
        total_loss += report.losses.iter().map(|values| values.total()).sum::<f64>() / of as f64;
        observer.event(Event::Step {
            step: state.global_step,
            loss: window.mean_loss(),
            examples: in_step,
            active_dims: report.active_dims,
        });

        let ends_epoch = queue.is_empty();
        let last = state.global_step == plan.total_steps;
        if due(Strategy::Steps, training.logging_steps, &state, ends_epoch) {
            let line = window.take(report.grad_norm, report.learning_rate);
            observer.event(Event::Logged(&line));
            log.log(state.global_step, state.epoch, &line, Some(report.regularizer_weights))?;
        }
        let mut save = due(training.save_strategy, training.save_steps, &state, ends_epoch);
        if !judge.is_empty() && due(training.eval_strategy, training.eval_steps, &state, ends_epoch) {
            let verdict = evaluate(config, &session, &judge, &mut state, &mut log, observer)?;
            // a best model that is not saved could not be loaded at the end
            save |= verdict.is_best && training.load_best_model_at_end;
            stopped |= verdict.stop;
        }
        let interrupted = observer.should_stop();
        state.log_history = log.history().to_vec();
        if save || (interrupted && !last) {
            let path = save_here(config, &session, &train, &state, position)?;
            if state.best_global_step == Some(state.global_step) {
                state.best_model_checkpoint = Some(path.clone());
            }
            delete_old_checkpoints(output, training.save_total_limit, state.best_model_checkpoint.as_deref())?;
            observer.event(Event::Saved(&path));
            if interrupted && !last {
                return Ok(Outcome {
                    model: None,
                    steps: state.global_step,
                    best_metric: state.best_metric,
                    checkpoint: Some(path),
                });
            }
        }
        if stopped {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let steps_here = state.global_step - plan.first_step;
    let mut line = speed_scalars("train", seconds, examples, steps_here);
    line.push(("train_loss".to_owned(), total_loss / steps_here.max(1) as f64));
    log.log(state.global_step, state.epoch, &line, None)?;
    state.log_history = log.history().to_vec();
    let model = finish(config, &session, &train, &state)?;
    Ok(Outcome { model: Some(model), steps: state.global_step, best_metric: state.best_metric, checkpoint: None })
}

/// Removes the checkpoints and the log of an earlier run: its later steps would pass for the newest ones of this run.
fn forget(output: &Path) -> Result<()> {
    for path in checkpoints(output)? {
        std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
    }
    let log = output.join(LOG);
    if log.is_file() { std::fs::remove_file(&log).map_err(Error::io(&log)) } else { Ok(()) }
}

/// Whether something that happens by `strategy` happens now.
fn due(strategy: Strategy, every: usize, state: &TrainerState, ends_epoch: bool) -> bool {
    match strategy {
        Strategy::No => false,
        Strategy::Steps => every > 0 && state.global_step.is_multiple_of(every),
        Strategy::Epoch => ends_epoch,
    }
}

fn prepare(config: &TrainConfig, start: &Start) -> Result<Prepared> {
    let checkpoint = checkpoint_of(config, start)?;
    let device = device_of(config)?;
    let mut warnings = not_done(config);
    let mut data = Data::read(config)?;
    let texts = || data.texts(config);
    let trainee = match &checkpoint {
        Some(path) => Trainee::from_checkpoint(config, path, &device)?,
        None => Trainee::new(config, texts, &device)?,
    };
    let train: Vec<_> = data.train.iter().map(|set| (set.name.clone(), set.examples.len())).collect();
    warnings.extend(uneven_round(config, &train));
    let widest = data.train.iter().map(columns).max().unwrap_or(1);
    let material = data.take_material(config, &trainee)?;
    let rules = BatchRules { batch_size: config.training.per_device_train_batch_size, drop_last: false };
    let sampler = match &material {
        Material::Examples(sets) => Sampler::new(
            sets,
            config.training.batch_sampler,
            config.datasets.sampling_strategy,
            rules,
            config.training.seed,
            config.training.shuffle,
        ),
        Material::Pieces(pieces) => {
            Sampler::of_rows(pieces.len(), rules, config.training.seed, config.training.shuffle)
        }
    };
    let steps = StepPlan::new(
        sampler.batches_per_epoch(),
        config.training.gradient_accumulation_steps,
        config.training.num_train_epochs,
        config.training.max_steps,
    );
    let pieces = if let Material::Pieces(pieces) = &material { pieces.len() } else { 0 };
    let mut plan = Plan {
        sets: data.reports,
        pieces,
        batches_per_epoch: sampler.batches_per_epoch(),
        total_steps: steps.total(),
        first_step: 0,
        parameters: trainee.parameter_count(),
        dimensions: trainee.dimensions(),
        groups: Vec::new(),
        memory_bytes: memory(config, &trainee, widest),
        warnings: Vec::new(),
    };
    let mut session = Session::new(config, trainee, material, steps.total())?;
    let (state, position) = match &checkpoint {
        None => (TrainerState::new(config, steps.total()), Position { epoch: 0, batch: 0 }),
        Some(path) => {
            let saved = load_checkpoint(path)?;
            session.optimizer_mut().restore(&saved.optimizer)?;
            let position = Position { epoch: saved.progress.epoch, batch: saved.progress.batch };
            (TrainerState { max_steps: steps.total(), ..saved.trainer }, position)
        }
    };
    let judge = Judge::new(config, if config.training.eval_strategy == Strategy::No { Vec::new() } else { data.dev })?;
    warnings.extend(session.warnings().iter().cloned());
    plan.first_step = state.global_step;
    plan.groups = session
        .optimizer()
        .groups()
        .iter()
        .map(|group| (group.learning_rate, group.weight_decay, group.parameters.len()))
        .collect();
    plan.warnings = warnings;
    Ok(Prepared { session, judge, train, sampler, state, position, plan })
}

/// A round ends with its smallest set: what that leaves of a much larger one.
fn uneven_round(config: &TrainConfig, train: &[(String, usize)]) -> Option<String> {
    if config.datasets.sampling_strategy != SamplingStrategy::RoundRobin {
        return None;
    }
    let (small, least) = train.iter().min_by_key(|(_, examples)| *examples)?;
    let (large, most) = train.iter().max_by_key(|(_, examples)| *examples)?;
    let share = 100.0 * *least as f64 / (*most).max(1) as f64;
    (share < 25.0).then(|| {
        format!(
            "round_robin ends an epoch with {small} ({least} examples), so it uses {share:.0} % of {large} ({most}); \
             datasets.sampling_strategy: proportional uses all"
        )
    })
}

fn columns(set: &DataSet) -> usize {
    1 + set.examples.first().map_or(0, |example| example.negatives.len())
}

fn checkpoint_of(config: &TrainConfig, start: &Start) -> Result<Option<PathBuf>> {
    let output = &config.training.output_dir;
    match start {
        Start::Overwrite => Ok(None),
        Start::Resume => latest_checkpoint(output),
        Start::ResumeFrom(path) => Ok(Some(path.clone())),
        Start::New if output.join("final").exists() || latest_checkpoint(output)?.is_some() => Err(Error::invalid(
            format!("{}: holds a training already", output.display()),
            "go on with it (--resume), start anew (--overwrite), or choose another output_dir",
        )),
        Start::New => Ok(None),
    }
}

fn device_of(config: &TrainConfig) -> Result<Device> {
    match config.hardware.device {
        DeviceChoice::Auto => Ok(best_device()),
        DeviceChoice::Cpu => device("cpu"),
        DeviceChoice::Cuda => device("cuda"),
        DeviceChoice::Metal => device("metal"),
    }
}

/// Keys that are understood but that this version does nothing for.
fn not_done(config: &TrainConfig) -> Vec<String> {
    let training = &config.training;
    let mut warnings = Vec::new();
    let mut say = |asked: bool, key: &str, instead: &str| {
        if asked {
            warnings.push(format!("{key} does nothing in this version: {instead}"));
        }
    };
    say(training.push_to_hub, "training.push_to_hub", "the model stays in output_dir");
    say(training.report_to.contains(&Reporter::Mlflow), "training.report_to: mlflow", "read the TensorBoard files");
    say(config.hardware.gradient_checkpointing, "hardware.gradient_checkpointing", "lower the batch size instead");
    warnings
}

/// Bytes of weights, gradients and two moments; and of what one batch keeps for its backward pass.
fn memory(config: &TrainConfig, trainee: &Trainee, columns: usize) -> (u64, u64) {
    let training = &config.training;
    let parameters = 4 * 4 * trainee.parameter_count() as u64;
    let tokens = (training.per_device_train_batch_size * columns * training.max_seq_length) as u64;
    (parameters, tokens * trainee.config().activation_floats_per_token() as u64 * 4)
}

/// The data of a config, read.
struct Data {
    train: Vec<DataSet>,
    dev: Vec<DataSet>,
    texts: Vec<String>,
    reports: Vec<SourceReport>,
}

impl Data {
    fn read(config: &TrainConfig) -> Result<Self> {
        let mut data = Self { train: Vec::new(), dev: Vec::new(), texts: Vec::new(), reports: Vec::new() };
        if config.datasets.enabled().next().is_none() {
            return Err(Error::config("datasets", "no data set is enabled", "add one with `files: [...]`"));
        }
        if config.training.objective == Objective::Mlm {
            for set in config.datasets.enabled() {
                data.texts.extend(load_texts(set)?);
            }
            return Ok(data);
        }
        let labels = match config.loss.inner_loss {
            InnerLossType::MultipleNegativesRanking => LabelUse::Ignored,
            InnerLossType::MarginMse | InnerLossType::DistillKlDiv => LabelUse::Required,
        };
        for set in config.datasets.enabled() {
            let loaded = load_data_set(set, config.training.seed, labels)?;
            data.train.extend(loaded.train);
            data.dev.extend(loaded.dev);
            data.reports.push(loaded.report);
        }
        Ok(data)
    }

    /// The texts a tokenizer or idf weights are made from: running text, or the positives.
    fn texts(&self, config: &TrainConfig) -> Result<Vec<String>> {
        if config.training.objective == Objective::Mlm {
            return Ok(self.texts.clone());
        }
        let positives = self.train.iter().flat_map(|set| &set.examples).map(|example| example.positive.clone());
        Ok(positives.collect())
    }

    /// What the session learns from, moved out of here: there is one copy of the data.
    fn take_material(&mut self, config: &TrainConfig, trainee: &Trainee) -> Result<Material> {
        if config.training.objective == Objective::Retrieval {
            return Ok(Material::Examples(std::mem::take(&mut self.train)));
        }
        let texts = std::mem::take(&mut self.texts);
        Ok(Material::Pieces(pieces(trainee, &texts)?))
    }
}

/// Running text cut into pieces as long as texts may be, each with the special tokens of a text of its own: no padding at all
/// but in the last piece.
fn pieces(trainee: &Trainee, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    // of the config, or of the position table where that is shorter
    let length = trainee.vocabulary().max_length();
    let vocabulary = trainee.vocabulary().with_max_length(usize::MAX)?;
    let frame = vocabulary.tokenize_for_network("")?;
    // what a post-processor puts before and after a text: half of an even frame, all before in an odd one (`<s>` alone)
    let (before, after) = frame.split_at(frame.len().div_ceil(2));
    let room = length.saturating_sub(frame.len());
    if room == 0 {
        return Err(Error::config(
            "training.max_seq_length",
            format!("{length} leaves no room for words"),
            "make it larger",
        ));
    }
    let mut stream: Vec<u32> = Vec::new();
    for ids in tokenize_bare(&vocabulary, texts)? {
        stream.extend(ids);
    }
    let special = vocabulary.special_dims();
    let has_a_word = |words: &&[u32]| words.iter().any(|id| special.binary_search(id).is_err());
    let piece = |words: &[u32]| [before, words, after].concat();
    // a piece of unknown words alone has nothing to hide and nothing to learn
    Ok(stream.chunks(room).filter(has_a_word).map(piece).collect())
}

fn tokenize_bare(vocabulary: &splade_core::Vocabulary, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    use rayon::prelude::*;
    Ok(texts.par_iter().map(|text| vocabulary.tokenize(text)).collect::<splade_core::Result<_>>()?)
}

fn open_log(config: &TrainConfig, state: &TrainerState) -> Result<RunLog> {
    let training = &config.training;
    let events = match training.report_to.contains(&Reporter::Tensorboard) {
        true => Some(EventWriter::create(&training.event_dir())?),
        false => None,
    };
    RunLog::new(events, training.output_dir.join(LOG), state.log_history.clone())
}

fn evaluate(
    config: &TrainConfig,
    session: &Session,
    judge: &Judge,
    state: &mut TrainerState,
    log: &mut RunLog,
    observer: &mut dyn Observer,
) -> Result<crate::Verdict> {
    let step = state.global_step;
    let weights = session.regularizer_weights(step);
    let judgement = judge.judge(session, step, state.epoch, &config.training.output_dir.join("eval"))?;
    for line in &judgement.lines {
        observer.event(Event::Evaluated(line));
        log.log(step, state.epoch, line, Some(weights))?;
    }
    judgement.samples.iter().for_each(|sample| observer.event(Event::Sample(sample)));
    let name = &config.training.metric_for_best_model;
    let metric = judgement.lines.iter().flatten().find(|(key, _)| key == name).map(|(_, value)| *value);
    let Some(metric) = metric else {
        let known: Vec<&str> = judgement.lines.iter().flatten().map(|(key, _)| key.as_str()).collect();
        let near = known.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        return Err(Error::config(
            "training.metric_for_best_model",
            format!("{name} is not among the metrics of this evaluation"),
            near.map_or_else(String::new, |near| format!("did you mean {near}?")),
        ));
    };
    Ok(state.observe(metric, config))
}

fn save_here(
    config: &TrainConfig,
    session: &Session,
    train: &[(String, usize)],
    state: &TrainerState,
    position: Position,
) -> Result<PathBuf> {
    let mut checkpoint = CheckpointState {
        trainer: state.clone(),
        progress: Progress::new(state.global_step, position, config.training.seed),
        optimizer: session.optimizer().state()?,
    };
    save_checkpoint(config, &mut checkpoint, |folder| session.trainee().write(folder, card(config, train, state)))
}

/// Writes `final`: the best checkpoint's model if it is wanted, else the model as it is.
fn finish(config: &TrainConfig, session: &Session, train: &[(String, usize)], state: &TrainerState) -> Result<PathBuf> {
    let training = &config.training;
    let path = training.output_dir.join("final");
    let best = state.best_model_checkpoint.as_ref().filter(|path| training.load_best_model_at_end && path.is_dir());
    let reloaded = match best {
        Some(best) => Some(Trainee::from_checkpoint(config, best, &Device::Cpu)?),
        None => None,
    };
    let model = reloaded.as_ref().unwrap_or(session.trainee());
    write_folder(&path, |folder| {
        model.write(folder, card(config, train, state))?;
        let resolved = serde_json::to_string_pretty(config).map_err(|error| Error::file(folder, error.to_string()))?;
        let place = folder.join("training_config.json");
        std::fs::write(&place, resolved + "\n").map_err(Error::io(&place))
    })?;
    if let (Some(best), Some(1)) = (best, training.save_total_limit) {
        keep_only(&training.output_dir, best)?;
    }
    Ok(path)
}
