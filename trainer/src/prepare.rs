//! From a config to a session that is ready for its first step, and the [`Plan`] of it.

use std::path::{Path, PathBuf};

use candle_core::Device;

use crate::checkpoint::{TrainerState, checkpoints, latest_checkpoint, load_checkpoint};
use crate::config::{DeviceChoice, SamplingStrategy, Strategy, TrainConfig};
use crate::data::{BatchRules, Material, Sampler, SourceReport, TrainingData};
use crate::evaluation::EvaluationSets;
use crate::fit::Start;
use crate::optimizer::ParameterGroup;
use crate::schedule::{Position, total_steps};
use crate::{Error, Result, Session, Trainee, best_device, device};

/// What a training will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// the rows found in each data set
    pub sets: Vec<SourceReport>,
    /// pieces of running text, for the masked-language-model objective
    pub pieces: usize,
    /// batches of an epoch
    pub batches_per_epoch: usize,
    /// optimizer steps of the run
    pub total_steps: usize,
    /// optimizer steps done before, in a resumed run
    pub first_step: usize,
    /// the checkpoint that is resumed
    pub checkpoint: Option<PathBuf>,
    /// numbers that the model consists of
    pub parameters: usize,
    /// terms of the vocabulary
    pub dimensions: usize,
    /// the parameter groups
    pub groups: Vec<GroupPlan>,
    /// bytes of weights, gradients and moments
    pub state_bytes: u64,
    /// estimate of the bytes that one batch keeps for its backward pass
    pub activation_bytes: u64,
    /// oddities that do not stop the run
    pub warnings: Vec<String>,
}

/// Parameters with the same learning rate and weight decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupPlan {
    /// before the schedule's multiplier
    pub learning_rate: f64,
    /// before the learning rate
    pub weight_decay: f64,
    /// number of tensors
    pub n_tensors: usize,
}

/// A training before its first step.
pub(crate) struct Prepared {
    pub(crate) session: Session,
    pub(crate) evaluation: EvaluationSets,
    /// name and number of examples of each set, for the model card
    pub(crate) train: Vec<(String, usize)>,
    pub(crate) sampler: Sampler,
    pub(crate) state: TrainerState,
    pub(crate) position: Position,
    pub(crate) plan: Plan,
}

/// Reads data and model, makes the session and restores its checkpoint.
pub(crate) fn prepare(config: &TrainConfig, start: &Start) -> Result<Prepared> {
    let training = &config.training;
    let checkpoint = checkpoint_of(config, start)?;
    let device = device_of(config)?;
    let mut data = TrainingData::read(config)?;
    let trainee = match &checkpoint {
        Some(path) => Trainee::from_checkpoint(config, path, &device)?,
        None => Trainee::new(config, || Ok(data.texts()), &device)?,
    };
    let (train, most_documents) = (data.sizes(), data.most_documents());
    let material = data.take_material(training.objective, &trainee)?;
    let sampler = sampler_of(config, &material);
    let batches_per_epoch = sampler.batches_per_epoch();
    let total_steps = total_steps(
        batches_per_epoch,
        training.gradient_accumulation_steps,
        training.num_train_epochs,
        training.max_steps,
    );
    let pieces = if let Material::Pieces(pieces) = &material { pieces.len() } else { 0 };
    let mut session = Session::new(config, trainee, material, total_steps)?;
    let (state, position) = restore(config, checkpoint.as_deref(), &mut session, total_steps)?;
    let dev = if training.eval_strategy == Strategy::No { Vec::new() } else { data.dev };
    let evaluation = EvaluationSets::new(config, dev)?;
    let plan = Plan {
        sets: data.reports,
        pieces,
        batches_per_epoch,
        total_steps,
        first_step: state.global_step,
        checkpoint,
        parameters: session.trainee().parameter_count(),
        dimensions: session.trainee().dimensions(),
        groups: groups_of(&session),
        state_bytes: state_bytes(session.trainee()),
        activation_bytes: activation_bytes(config, session.trainee(), most_documents),
        warnings: uneven_round(config, &train).into_iter().chain(session.warnings().iter().cloned()).collect(),
    };
    Ok(Prepared { session, evaluation, train, sampler, state, position, plan })
}

/// The checkpoint that a training resumes from.
///
/// # Errors
/// An output folder that holds what this start would overwrite or confuse.
fn checkpoint_of(config: &TrainConfig, start: &Start) -> Result<Option<PathBuf>> {
    let output = &config.training.output_dir;
    match start {
        Start::Overwrite => Ok(None),
        Start::Resume => latest_checkpoint(output),
        Start::ResumeFrom(path) => {
            no_later_checkpoint(output, path)?;
            Ok(Some(path.clone()))
        }
        Start::New if output.join("final").exists() || latest_checkpoint(output)?.is_some() => Err(Error::invalid(
            format!("{}: already holds a training", output.display()),
            "resume it, overwrite it, or choose another training.output_dir",
        )),
        Start::New => Ok(None),
    }
}

/// An error if the output folder holds checkpoints of later steps than the one to resume from: they would pass for the
/// newest ones of this run, be resumed by the next, and its own would be deleted before them.
fn no_later_checkpoint(output: &Path, path: &Path) -> Result<()> {
    let is_same = |other: &Path| match (other.canonicalize(), path.canonicalize()) {
        (Ok(other), Ok(path)) => other == path,
        _ => other == path,
    };
    let all = checkpoints(output)?;
    let Some(at) = all.iter().position(|other| is_same(other)) else { return Ok(()) };
    match all.last().filter(|_| at + 1 < all.len()) {
        None => Ok(()),
        Some(latest) => Err(Error::invalid(
            format!("{}: is later than the checkpoint to resume from, {}", latest.display(), path.display()),
            "move the later checkpoints away, or choose another training.output_dir",
        )),
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

fn sampler_of(config: &TrainConfig, material: &Material) -> Sampler {
    let training = &config.training;
    let rules = BatchRules { batch_size: training.per_device_train_batch_size, drop_last: false };
    match material {
        Material::Examples(sets) => Sampler::new(
            sets,
            training.batch_sampler,
            config.datasets.sampling_strategy,
            rules,
            training.seed,
            training.shuffle,
        ),
        Material::Pieces(pieces) => Sampler::of_rows(pieces.len(), rules, training.seed, training.shuffle),
    }
}

/// Restores the optimizer of a checkpoint, and returns its state and its position in the data.
fn restore(
    config: &TrainConfig,
    checkpoint: Option<&Path>,
    session: &mut Session,
    total_steps: usize,
) -> Result<(TrainerState, Position)> {
    let Some(path) = checkpoint else {
        return Ok((TrainerState::new(config, total_steps), Position { epoch: 0, batch: 0 }));
    };
    let saved = load_checkpoint(path)?;
    session.optimizer_mut().restore(&saved.optimizer)?;
    let position = Position { epoch: saved.progress.epoch, batch: saved.progress.batch };
    Ok((TrainerState { max_steps: total_steps, ..saved.trainer }, position))
}

fn groups_of(session: &Session) -> Vec<GroupPlan> {
    let group = |group: &ParameterGroup| GroupPlan {
        learning_rate: group.learning_rate,
        weight_decay: group.weight_decay,
        n_tensors: group.parameters.len(),
    };
    session.optimizer().groups().iter().map(group).collect()
}

/// Bytes of weights, gradients and two moments.
fn state_bytes(trainee: &Trainee) -> u64 {
    4 * size_of::<f32>() as u64 * trainee.parameter_count() as u64
}

/// Estimate of the bytes that a batch of `documents` documents an example takes on top of weights and optimizer.
fn activation_bytes(config: &TrainConfig, trainee: &Trainee, documents: usize) -> u64 {
    /// Tensors [rows, V] of vectors: the largest logits, their tokens, weights, and gradients of those.
    const VECTORS: usize = 6;
    /// Copies of the word embedding that the backward pass makes.
    const TABLES: usize = 3;
    let training = &config.training;
    let rows = training.per_device_train_batch_size * documents;
    let at_a_time = config.loss.mini_batch_size.unwrap_or(rows).min(rows);
    let again = config.hardware.gradient_checkpointing;
    let (activations, terms) = (trainee.config().activations(), trainee.dimensions());
    let layers = activations.floats(at_a_time, training.max_seq_length, again);
    let vectors = VECTORS * rows * terms;
    ((layers + vectors + TABLES * terms * activations.hidden) * size_of::<f32>()) as u64
}

/// A warning where a round, which ends with its smallest set, uses little of a much larger one.
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
