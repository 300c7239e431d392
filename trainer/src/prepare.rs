//! From a config to a session that is ready for its first step, and the [`Plan`] of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candle_core::Device;
use splade_files::{Architecture, ModelDir};

use crate::checkpoint::{TrainerState, checkpoints, latest_checkpoint, load_checkpoint, saved_config};
use crate::config::{BatchSampler, DeviceChoice, Objective, SamplingStrategy, Strategy, TrainConfig};
use crate::data::{BatchRules, Material, Sampler, SourceReport, TextReport, TrainingData, text_reports};
use crate::evaluation::EvaluationSets;
use crate::fit::Start;
use crate::model::TransformerConfig;
use crate::optimizer::ParameterGroup;
use crate::schedule::{Position, total_steps};
use crate::{Error, Result, Session, Trainee, best_device, device};

/// Description of a training before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// the rows found in each data set
    pub sets: Vec<SourceReport>,
    /// lengths, duplicates and false negatives of each set, in batches of this run
    pub texts: Vec<TextReport>,
    /// tokens that a text is truncated to
    pub max_length: usize,
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
    /// estimate of the bytes that one batch keeps for its backward pass; none on a device, whose pass is another
    pub activation_bytes: Option<u64>,
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
    let mut warnings = Vec::new();
    let device = device_of(config, &mut warnings)?;
    warnings.extend(without_mixed_precision(config, &device));
    let on_cpu = device.is_cpu();
    let mut data = TrainingData::read(config)?;
    let trainee = match &checkpoint {
        Some(path) => Trainee::from_checkpoint(&without_head_patch(config, path), path, &device)?,
        None => from_base(config, &data, &device, &mut warnings)?,
    };
    let (train, most_documents) = (data.sizes(), data.most_documents());
    let material = data.take_material(config, &trainee)?;
    let sampler = sampler_of(config, &material);
    let batches_per_epoch = sampler.batches_per_epoch();
    let total_steps = total_steps(
        batches_per_epoch,
        training.gradient_accumulation_steps,
        training.num_train_epochs,
        training.max_steps,
    );
    let pieces = if let Material::Pieces(pieces) = &material { pieces.len() } else { 0 };
    let texts = match &material {
        Material::Examples(sets) => text_reports(sets, trainee.vocabulary(), sampler.epoch(0))?,
        Material::Pieces(_) => Vec::new(),
    };
    let mut session = Session::new(config, trainee, material, total_steps)?;
    let (state, position) = restore(config, checkpoint.as_deref(), &mut session, total_steps, &mut warnings)?;
    let dev = if training.eval_strategy == Strategy::No { Vec::new() } else { std::mem::take(&mut data.dev) };
    let evaluation = EvaluationSets::new(config, dev)?;
    evaluation.check_metric(&training.metric_for_best_model)?;
    warnings.extend(nothing_to_evaluate(config, &evaluation));
    warnings.extend(data.reports.iter().filter_map(mostly_left_out));
    warnings.extend(texts.iter().filter_map(|report| false_negatives(config, report)));
    warnings.extend(short_positions(config, session.trainee()));
    warnings.extend(uneven_round(config, &train));
    warnings.extend(session.warnings().iter().cloned());
    let plan = Plan {
        sets: data.reports,
        texts,
        max_length: session.trainee().vocabulary().max_length(),
        pieces,
        batches_per_epoch,
        total_steps,
        first_step: state.global_step,
        checkpoint,
        parameters: session.trainee().parameter_count(),
        dimensions: session.trainee().dimensions(),
        groups: groups_of(&session),
        state_bytes: state_bytes(session.trainee()),
        activation_bytes: on_cpu.then(|| activation_bytes(config, session.trainee(), most_documents)),
        warnings,
    };
    Ok(Prepared { session, evaluation, train, sampler, state, position, plan })
}

/// The model of a base model, or a new one.
fn from_base(
    config: &TrainConfig,
    data: &TrainingData,
    device: &Device,
    warnings: &mut Vec<String>,
) -> Result<Trainee> {
    let base = config.model.base_folder.clone().or_else(|| config.model.base_model.as_ref().map(PathBuf::from));
    let Some(base) = base.filter(|base| base.is_dir()) else {
        return Trainee::new(config, || Ok(data.texts()), device);
    };
    // the result of a masked-LM training is a model folder too, but has no query table
    let has_query_table =
        || ModelDir::open(&base).is_ok_and(|model| model.architecture() == Architecture::InferenceFree);
    if !config.model.load_pretrained_sparse_encoder
        && config.model.architecture == Architecture::InferenceFree
        && has_query_table()
    {
        warnings.push(format!(
            "{}: is a finished sparse encoder, and its query table is replaced by model.query_init; to train it further, set \
             model.load_pretrained_sparse_encoder: true",
            base.display()
        ));
    }
    let patched = without_head_patch(config, &base);
    if matches!(patched, Cow::Owned(_)) {
        warnings.push("model.patch_sigmoid_for_sparsity: is not used: this network has no head modes".to_owned());
    }
    Trainee::new(&patched, || Ok(data.texts()), device)
}

/// The config without `patch_sigmoid_for_sparsity` if the network in `folder` has no head modes: files of the Python
/// project have the key for any network.
pub(crate) fn without_head_patch<'a>(config: &'a TrainConfig, folder: &Path) -> Cow<'a, TrainConfig> {
    let Some(mode) = config.model.mlm_head.filter(|_| config.model.patch_sigmoid_for_sparsity) else {
        return Cow::Borrowed(config);
    };
    let model =
        ModelDir::open(folder).map(|model| model.ignoring_config_keys(config.model.ignored_config_keys.clone()));
    // a folder that cannot be read is an error of the next step, with a better message
    let network = model.ok().and_then(|model| TransformerConfig::of(&model).ok());
    if network.is_none_or(|mut network| network.set_head_mode(mode).is_ok()) {
        return Cow::Borrowed(config);
    }
    let mut config = config.clone();
    config.model.mlm_head = None;
    Cow::Owned(config)
}

/// A warning where a config evaluates, and there is nothing to evaluate on.
fn nothing_to_evaluate(config: &TrainConfig, evaluation: &EvaluationSets) -> Option<String> {
    let training = &config.training;
    (training.eval_strategy != Strategy::No && evaluation.is_empty()).then(|| {
        let early = if training.early_stopping_patience.is_some() { ", and early stopping never stops it" } else { "" };
        format!(
            "training.eval_strategy is `{}`, but there is no evaluator and no development set: nothing is evaluated, the \
             result is the last model{early}; give datasets.*.dev_files, datasets.*.split_ratio or evaluation.evaluator",
            training.eval_strategy.name()
        )
    })
}

/// A warning where most rows of a set hold no usable example.
fn mostly_left_out(report: &SourceReport) -> Option<String> {
    (2 * report.unusable() > report.rows).then(|| {
        let hint = "are its columns the right ones?";
        format!(
            "data set {}: most of its {} rows are left out: {}; {hint}",
            report.name,
            report.rows,
            report.left_out()
        )
    })
}

/// A warning where a batch has documents that count as negatives of a query they answer.
fn false_negatives(config: &TrainConfig, report: &TextReport) -> Option<String> {
    let per_batch = report.false_negatives as f64 / report.batches.max(1) as f64;
    let sampler = match config.training.batch_sampler {
        BatchSampler::NoDuplicates => "",
        BatchSampler::BatchSampler => ", or set training.batch_sampler: no_duplicates",
    };
    (per_batch >= 1.0).then(|| {
        format!(
            "data set {}: a batch has {per_batch:.1} documents that count as negatives of a query though another row has \
             them as its positive: join rows of one query, or lower training.per_device_train_batch_size{sampler}",
            report.set
        )
    })
}

/// A warning where the position table ends before `max_seq_length`.
fn short_positions(config: &TrainConfig, trainee: &Trainee) -> Option<String> {
    let (wanted, length) = (config.training.max_seq_length, trainee.vocabulary().max_length());
    (length < wanted).then(|| {
        format!("training.max_seq_length is {wanted}, but the network has {length} positions: texts are truncated to {length} tokens")
    })
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

fn device_of(config: &TrainConfig, warnings: &mut Vec<String>) -> Result<Device> {
    match config.hardware.device {
        DeviceChoice::Auto => Ok(best_device()),
        DeviceChoice::Cpu => device("cpu"),
        DeviceChoice::Cuda => device("cuda"),
        DeviceChoice::Metal => device("metal"),
        DeviceChoice::Mps => device("metal").or_else(|_| {
            warnings
                .push("hardware.device: this machine or this build has no Apple device: trains on the CPU".to_owned());
            device("cpu")
        }),
    }
}

/// The warning that a device has no mixed precision, which a config asks for.
fn without_mixed_precision(config: &TrainConfig, device: &Device) -> Option<String> {
    (config.training.bf16 && device.is_cpu())
        .then(|| "training.bf16: a CPU trains in f32, with the same memory".to_owned())
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
    warnings: &mut Vec<String>,
) -> Result<(TrainerState, Position)> {
    let Some(path) = checkpoint else {
        return Ok((TrainerState::new(config, total_steps), Position { epoch: 0, batch: 0 }));
    };
    let saved = load_checkpoint(path)?;
    warnings.extend(differences(config, path)?);
    session.optimizer_mut().restore(&saved.optimizer)?;
    let position = Position { epoch: saved.progress.epoch, batch: saved.progress.batch };
    Ok((TrainerState { max_steps: total_steps, ..saved.trainer }, position))
}

/// Keys that decide on the order and the meaning of batches: a run that resumes with another value is not the run that was
/// interrupted.
const RUN_KEYS: [&str; 12] = [
    "/model/base_model",
    "/training/objective",
    "/training/seed",
    "/training/shuffle",
    "/training/per_device_train_batch_size",
    "/training/gradient_accumulation_steps",
    "/training/max_seq_length",
    "/training/batch_sampler",
    "/loss/inner_loss",
    "/loss/scale",
    "/mlm",
    "/datasets",
];

/// A warning that names the keys whose values are not those of the checkpoint; an error for another objective.
fn differences(config: &TrainConfig, checkpoint: &Path) -> Result<Option<String>> {
    let Some(before) = saved_config(checkpoint)? else { return Ok(None) };
    let now = serde_json::to_value(config).unwrap_or_default();
    let differs = |key: &&str| before.pointer(key) != now.pointer(key);
    let different: Vec<&str> = RUN_KEYS.into_iter().filter(differs).collect();
    if different.contains(&"/training/objective") {
        let message = format!("is not that of {}", checkpoint.display());
        return Err(Error::config(
            "training.objective",
            message,
            "start anew, with the checkpoint as model.base_model",
        ));
    }
    let shown = |key: &&str| {
        let name = key.trim_start_matches('/').replace('/', ".");
        let text = |value: &serde_json::Value| value.pointer(key).map_or_else(String::new, ToString::to_string);
        if ["/datasets", "/mlm"].contains(key) {
            name
        } else {
            format!("{name} (was {}, is {})", text(&before), text(&now))
        }
    };
    let keys = different.iter().map(shown).collect::<Vec<_>>().join(", ");
    Ok((!different.is_empty()).then(|| {
        format!(
            "{}: was saved with other values of {keys}: the resumed run will differ from an uninterrupted one",
            checkpoint.display()
        )
    }))
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
    /// Tensors [rows, V] of vectors: the largest logits, their tokens, weights, gradients of those, and those of the loss.
    const VECTORS: usize = 12;
    /// Tensors [masked tokens, V]: logits before and after the cap, the loss's copy, and gradients.
    const LOGITS: usize = 4;
    /// Copies of the word embedding that the backward pass makes.
    const TABLES: usize = 2;
    let training = &config.training;
    let rows = training.per_device_train_batch_size * documents;
    let at_a_time = config.loss.mini_batch_size.unwrap_or(rows).min(rows);
    let again = config.hardware.gradient_checkpointing;
    let (activations, terms) = (trainee.config().activations(), trainee.dimensions());
    let layers = activations.floats(at_a_time, training.max_seq_length, again);
    let vectors = match training.objective {
        Objective::Retrieval => VECTORS * (rows + training.per_device_train_batch_size) * terms,
        Objective::Mlm => {
            let masked = config.mlm.probability * (rows * training.max_seq_length) as f64;
            LOGITS * masked as usize * terms
        }
    };
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
