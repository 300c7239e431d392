//! The training config: the file a user writes, and the [`TrainConfig`] that a training runs.
//!
//! [`KEYS`] has every key with its default and its meaning. A file comes in as a [`serde_json::Value`] (the program reads
//! the YAML), and [`TrainConfig::from_value`] resolves it. The names are those of the Python project, whose files load
//! unchanged; keys that have no effect here are accepted and become a [`Note`]. A resolved config holds the keys that are
//! used, and serializes to a file that reads back as itself.

mod hub;
mod keys;
mod overrides;
mod resolve;
mod section;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use splade_core::{HeadMode, Pooling, PoolingActivation};
use splade_files::Architecture;

pub use hub::HubPart;
pub use keys::{Effect, KEYS, Key};
pub use overrides::apply_override;

/// Defines an enum from the names that a key accepts; the first name of a value is the one written back.
macro_rules! choices {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal $(| $alias:literal)*,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// The name in the config.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        impl section::Choice for $type {
            const NAMES: &'static [(&'static str, Self)] = &[
                $(($name, Self::$variant), $(($alias, Self::$variant),)*)+
            ];
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

impl section::Choice for Architecture {
    const NAMES: &'static [(&'static str, Self)] =
        &[("inference-free-splade", Self::InferenceFree), ("splade", Self::Splade)];
}

impl section::Choice for Pooling {
    const NAMES: &'static [(&'static str, Self)] = &[("max", Self::Max), ("sum", Self::Sum)];
}

impl section::Choice for PoolingActivation {
    const NAMES: &'static [(&'static str, Self)] = &[("relu", Self::Relu), ("log1p_relu", Self::Log1pRelu)];
}

impl section::Choice for HeadMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("published", Self::Published),
        ("raw-shifted", Self::RawShifted),
        ("raw", Self::Raw),
        ("soft-cap", Self::SoftCap),
    ];
}

choices! {
    /// The objective of a training.
    Objective {
        /// Ranking positives over negatives.
        Retrieval = "retrieval",
        /// Masked words of running text: pretraining or domain adaptation.
        Mlm = "mlm",
    }
}

choices! {
    /// Tokens that objective [`Mlm`](Objective::Mlm) masks together.
    MaskingUnit {
        /// Single tokens (BERT).
        Token = "token",
        /// The tokens of a word (BERT's second version).
        WholeWord = "whole_word" | "whole-word",
        /// The words of a span (SpanBERT).
        Span = "span",
    }
}

choices! {
    /// The kind of a tokenizer that is trained.
    TokenizerKind {
        /// BERT's pieces: whole words, and pieces that begin with `##`.
        WordPiece = "wordpiece",
        /// RoBERTa's pieces, made of bytes: no character is unknown.
        Bpe = "bpe" | "byte_level_bpe",
        /// SentencePiece's pieces, each with a probability.
        Unigram = "unigram",
    }
}

choices! {
    /// When something happens in a run.
    Strategy {
        /// Never.
        No = "no",
        /// Every so many optimizer steps.
        Steps = "steps",
        /// At the end of each epoch.
        Epoch = "epoch",
    }
}

choices! {
    /// Rule by which rows become batches.
    BatchSampler {
        /// No text occurs twice in a batch, since every positive is a negative for the other queries.
        NoDuplicates = "no_duplicates",
        /// A permutation cut into pieces.
        BatchSampler = "batch_sampler",
    }
}

choices! {
    /// Destinations of logged scalars.
    Reporter {
        /// Event files under `logging_dir`.
        Tensorboard = "tensorboard",
        /// A server or folder of MLflow. This crate does not report there: the caller does.
        Mlflow = "mlflow",
    }
}

choices! {
    /// Uploads to the Hub, and their times.
    HubStrategy {
        /// The result, at the end.
        End = "end",
        /// The result, and the model of each checkpoint when it is saved.
        EverySave = "every_save",
        /// That, and the whole latest checkpoint in a folder of its own.
        Checkpoint = "checkpoint",
        /// That, with a folder for each checkpoint.
        AllCheckpoints = "all_checkpoints",
    }
}

choices! {
    /// The loss around the ranking loss.
    LossType {
        /// Ranking loss plus FLOPS regularizers.
        SpladeLoss = "splade_loss",
    }
}

choices! {
    /// The ranking loss.
    InnerLossType {
        /// In-batch negatives and hard negatives against the positive.
        MultipleNegativesRanking = "sparse_multiple_negatives_ranking_loss",
        /// A teacher's margins; needs labels in the data.
        MarginMse = "sparse_margin_mse" | "sparse_margin_mse_loss",
        /// A teacher's distribution over positive and negatives; needs labels in the data.
        DistillKlDiv = "sparse_distill_kl_div" | "sparse_distill_kl_div_loss",
    }
}

choices! {
    /// Rise of the regularizer weights to their full values.
    RegularizerRamp {
        /// With the square of the step.
        Quadratic = "quadratic",
        /// With the step.
        Linear = "linear",
        /// Full from the first step on; the reference never does this by itself.
        None = "none",
    }
}

choices! {
    /// Mixture of the batches of several data sets.
    SamplingStrategy {
        /// One batch of each in turn, until one of them is used up.
        RoundRobin = "round_robin",
        /// All batches of all, in random order.
        Proportional = "proportional",
    }
}

choices! {
    /// The evaluator of a model during training.
    Evaluator {
        /// NanoBEIR sets.
        SparseNanobeir = "sparse_nanobeir",
        /// Folders in BEIR layout.
        SparseIr = "sparse_ir",
    }
}

choices! {
    /// Which side of the model encodes a column.
    Route {
        /// The query side.
        Query = "query",
        /// The document side.
        Document = "document",
    }
}

choices! {
    /// Device of the tensors.
    DeviceChoice {
        /// The best there is.
        Auto = "auto",
        /// The processor.
        Cpu = "cpu",
        /// An NVIDIA device.
        Cuda = "cuda",
        /// An Apple device.
        Metal = "metal",
        /// PyTorch's name of an Apple device, as files of the Python project have it: the CPU where there is none.
        Mps = "mps",
    }
}

/// The resolved config of a training.
///
/// ```
/// use serde_json::json;
/// use splade_files::Architecture;
/// use splade_trainer::TrainConfig;
///
/// let (config, notes) = TrainConfig::from_value(&json!({
///     "model": {"base_model": "ltg/norbert3-xs"},
///     "training": {"output_dir": "models/first", "learning_rate": "2e-5", "torch_compile": true},
///     "datasets": {"wiki": {"files": ["train/*.jsonl.gz"]}},
/// }))?;
/// assert_eq!(config.model.architecture, Architecture::InferenceFree);
/// assert_eq!(config.training.learning_rate, 2e-5);
/// assert_eq!(notes[0].keys, ["training.torch_compile"]);
/// # Ok::<(), splade_trainer::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainConfig {
    /// `model`: the model to start from.
    pub model: ModelConfig,
    /// `training`: the course of the training, and the folder of the result.
    pub training: TrainingConfig,
    /// `loss`: the loss that is minimized.
    pub loss: LossConfig,
    /// `mlm`: the masking of [`Objective::Mlm`]; left out where it is the default.
    #[serde(skip_serializing_if = "MlmConfig::is_default")]
    pub mlm: MlmConfig,
    /// `datasets`: the examples.
    pub datasets: DataSetsConfig,
    /// `evaluation`: the evaluations during training.
    pub evaluation: EvaluationConfig,
    /// `router`: routes of columns, learning rates by parameter name.
    pub router: RouterConfig,
    /// `model_card`: the README of the model.
    pub model_card: ModelCardConfig,
    /// `mlflow`: the receiver of [`Reporter::Mlflow`]; empty without it.
    #[serde(skip_serializing_if = "MlflowConfig::is_empty")]
    pub mlflow: MlflowConfig,
    /// `hardware`: the device.
    pub hardware: HardwareConfig,
}

/// Keys that are accepted but have no effect here, or another one than their reader may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// the full paths of the keys
    pub keys: Vec<String>,
    /// the reason, the same for all of them
    pub reason: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.keys.join(", "), self.reason)
    }
}

/// `model`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// A Hub id or a folder; required unless `init` is given.
    pub base_model: Option<String>,
    /// Folder of `base_model` if that is a Hub id; no key of the config. This crate downloads nothing.
    #[serde(skip)]
    pub base_folder: Option<PathBuf>,
    /// One network and a query table, or one network for both sides.
    pub architecture: Architecture,
    /// Maximum or sum over the tokens of a text.
    pub pooling_strategy: Pooling,
    /// Function of a logit before pooling.
    pub activation_function: PoolingActivation,
    /// Follows from `architecture`; a value that contradicts it is an error.
    pub use_router: bool,
    /// True if the query table is not trained.
    pub freeze_static_embedding: bool,
    /// Query table before training.
    pub query_init: QueryInit,
    /// NorBERT4 only: which of its logits are used. Absent means what the folder of a model trained here states, and
    /// `soft-cap` for other bases. `patch_sigmoid_for_sparsity: true`, the Python project's key, means `raw-shifted`.
    pub mlm_head: Option<HeadMode>,
    /// True if `mlm_head` was written under the Python project's name, which networks without head modes may have too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub patch_sigmoid_for_sparsity: bool,
    /// Keys of the base model's `config.json` that are not known here and are stated to change nothing in its forward
    /// pass. The new model's `config.json` is written without them.
    pub ignored_config_keys: Vec<String>,
    /// True if `base_model` is a finished sparse encoder, whose query table is kept.
    pub load_pretrained_sparse_encoder: bool,
    /// A new model instead of `base_model`.
    pub init: Option<ModelInit>,
}

/// The query table before training.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryInit {
    /// `ones`: every token counts 1.
    Ones,
    /// `idf`: inverse document frequencies over the positives.
    Idf,
    /// A path to an `idf.json` or a safetensors file.
    File(PathBuf),
}

impl Serialize for QueryInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ones => serializer.serialize_str("ones"),
            Self::Idf => serializer.serialize_str("idf"),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

/// `model.init`: the shape of a new model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelInit {
    /// Transformer family.
    pub architecture: String,
    /// Width.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads, a divisor of `hidden_size`.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of terms of the tokenizer that is trained.
    pub vocab_size: usize,
    /// A tokenizer, or what to train one on; default: the texts of the data sets.
    pub tokenizer: TokenizerInit,
}

/// `model.init.tokenizer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerInit {
    /// A `tokenizer.json`, or the folder it is in.
    Path(PathBuf),
    /// `{train_on: files, type: kind}`: a tokenizer is trained.
    TrainOn {
        /// `type`: the kind of tokenizer.
        kind: TokenizerKind,
        /// `train_on`: files of texts; none means the texts of the data sets.
        files: Vec<String>,
    },
}

impl Serialize for TokenizerInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => path.serialize(serializer),
            Self::TrainOn { kind, files } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("train_on", files)?;
                map.serialize_entry("type", kind)?;
                map.end()
            }
        }
    }
}

/// `training`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingConfig {
    /// Objective of the training.
    pub objective: Objective,
    /// Folder of checkpoints, of the result and of the log.
    pub output_dir: PathBuf,
    /// Passes over the data; may be a fraction.
    pub num_train_epochs: f64,
    /// Optimizer steps, which decide instead of `num_train_epochs`; none is written -1.
    #[serde(serialize_with = "limit_or_minus_one")]
    pub max_steps: Option<usize>,
    /// Examples of a micro-batch.
    pub per_device_train_batch_size: usize,
    /// Examples of a batch of the development sets.
    pub per_device_eval_batch_size: usize,
    /// Micro-batches per optimizer step.
    pub gradient_accumulation_steps: usize,
    /// Learning rate of the network.
    pub learning_rate: f64,
    /// Learning rate of the query table.
    pub query_learning_rate: f64,
    /// Share of the steps over which learning rates rise.
    pub warmup_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Norm that gradients are scaled down to; 0 switches it off.
    pub max_grad_norm: f64,
    /// Mixed precision: products of matrices in bfloat16 on a device that has it.
    pub bf16: bool,
    /// Tokens that a document or query is truncated to.
    pub max_seq_length: usize,
    /// Way from rows to batches.
    pub batch_sampler: BatchSampler,
    /// False takes rows in the order of the files, so that another implementation can repeat the run.
    pub shuffle: bool,
    /// Seed of data order, dropout and new weights.
    pub seed: u64,
    /// When to evaluate.
    pub eval_strategy: Strategy,
    /// Optimizer steps between evaluations.
    pub eval_steps: usize,
    /// Optimizer steps between log lines.
    pub logging_steps: usize,
    /// When to save a checkpoint.
    pub save_strategy: Strategy,
    /// Optimizer steps between checkpoints.
    pub save_steps: usize,
    /// Number of checkpoints kept, the best one always among them; none keeps all, and is written 0.
    #[serde(serialize_with = "limit_or_zero")]
    pub save_total_limit: Option<usize>,
    /// True if the result is the best checkpoint.
    pub load_best_model_at_end: bool,
    /// Metric with the prefix `eval_`; `eval_loss` is the sum of the losses on the
    /// development sets.
    pub metric_for_best_model: String,
    /// False for a loss.
    pub greater_is_better: bool,
    /// Evaluations without improvement after which training stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<usize>,
    /// Smallest difference that counts as an improvement.
    pub early_stopping_threshold: f64,
    /// Folder of the event files, below `output_dir` unless absolute.
    pub logging_dir: PathBuf,
    /// Folder of the event files in `logging_dir`, which is the name of the run in TensorBoard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_name: Option<String>,
    /// Threads that tokenize the next batches while a step runs.
    pub dataloader_num_workers: usize,
    /// Batches that each of them prepares ahead.
    pub dataloader_prefetch_factor: usize,
    /// Receivers of logged scalars beside `log.jsonl`.
    pub report_to: Vec<Reporter>,
    /// Uploads to the Hub; none with `push_to_hub: false`. This crate uploads nothing: the caller does.
    #[serde(flatten)]
    pub hub: Option<UploadConfig>,
}

/// `training.push_to_hub` and the keys that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// `hub_model_id`: `owner/name`, or the name of a repository of the user; none: the name of the output folder.
    pub model_id: Option<String>,
    /// `hub_strategy`
    pub strategy: HubStrategy,
    /// `hub_private_repo`
    pub private: bool,
}

impl Serialize for UploadConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("push_to_hub", &true)?;
        if let Some(model_id) = &self.model_id {
            map.serialize_entry("hub_model_id", model_id)?;
        }
        map.serialize_entry("hub_strategy", &self.strategy)?;
        map.serialize_entry("hub_private_repo", &self.private)?;
        map.end()
    }
}

impl TrainingConfig {
    /// The folder of the event files.
    #[must_use]
    pub fn event_dir(&self) -> PathBuf {
        let folder = self.output_dir.join(&self.logging_dir);
        self.run_name.as_ref().map_or(folder.clone(), |name| folder.join(name))
    }

    /// True if the best model is judged by the sum of the losses on the development sets.
    #[must_use]
    pub fn best_by_loss_sum(&self) -> bool {
        self.metric_for_best_model == "eval_loss"
    }
}

/// `loss`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossConfig {
    /// The loss around the ranking loss.
    #[serde(rename = "type")]
    pub loss_type: LossType,
    /// The ranking loss.
    pub inner_loss: InnerLossType,
    /// λ_q; none leaves the term out of the log too.
    pub query_regularizer_weight: Option<f64>,
    /// λ_d.
    pub document_regularizer_weight: f64,
    /// True pools queries and documents into one regularizer with the document's weight.
    pub use_document_regularizer_only: bool,
    /// Rise of the regularizer weights.
    pub regularizer_schedule: RegularizerRamp,
    /// Share of the steps over which regularizer weights rise.
    pub regularizer_warmup_ratio: f64,
    /// Active dims up to which a document is not regularized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_regularizer_threshold: Option<usize>,
    /// Factor on the dot products of the ranking loss.
    pub scale: f64,
    /// Texts encoded at a time; none: those of a whole batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mini_batch_size: Option<usize>,
}

/// `mlm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MlmConfig {
    /// Tokens that are masked together.
    pub masking: MaskingUnit,
    /// Share of the tokens that are predicted.
    pub probability: f64,
    /// Parameter of the geometric distribution of the lengths of spans, in words.
    pub span_p: f64,
    /// Words of the longest span.
    pub span_max_length: usize,
}

/// The largest [`MlmConfig::span_max_length`].
pub(crate) const SPAN_MAX_LENGTH: usize = 1000;

impl Default for MlmConfig {
    fn default() -> Self {
        Self { masking: MaskingUnit::Token, probability: 0.2, span_p: 0.2, span_max_length: 10 }
    }
}

impl MlmConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `datasets`: the way of mixing, then the sets in the order of the round.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSetsConfig {
    /// Way of mixing the sets.
    pub sampling_strategy: SamplingStrategy,
    /// In the order of the file; sets with `enabled: false` are among them.
    pub sets: Vec<DataSetConfig>,
}

impl DataSetsConfig {
    /// The sets that are trained on.
    pub fn enabled(&self) -> impl Iterator<Item = &DataSetConfig> {
        self.sets.iter().filter(|set| set.enabled)
    }
}

impl Serialize for DataSetsConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.sets.len() + 1))?;
        map.serialize_entry("sampling_strategy", &self.sampling_strategy)?;
        for set in &self.sets {
            map.serialize_entry(&set.name, set)?;
        }
        map.end()
    }
}

/// One entry of `datasets`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSetConfig {
    /// The key of the entry; also the name in logs (`eval_<name>_loss`).
    #[serde(skip)]
    pub name: String,
    /// The Python project's loader of this name, if there is one.
    #[serde(skip)]
    pub built_in: Option<BuiltIn>,
    /// False leaves the set out.
    pub enabled: bool,
    /// Paths or globs of `.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.tsv` or `.parquet` files.
    pub files: Vec<String>,
    /// Like `files`, for the development set; `split_ratio` is then not used.
    pub dev_files: Vec<String>,
    /// A data set on the Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Configuration of `source`, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Split of `source` to train on; none means `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Names of columns, where they are not the usual ones.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
    /// Rows are kept whose column has one of the values, for every column named.
    #[serde(serialize_with = "pairs", skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<(String, Vec<String>)>,
    /// Number of usable rows to take, from the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_samples: Option<usize>,
    /// Shares of training, development and test rows after a shuffle with the seed; none: all are for training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_ratio: Option<[f64; 3]>,
    /// Built-in sets: languages to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// `ddsc`: tasks to keep; none keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    /// `scandi_qa`: its sources.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub scandi_qa: Option<ScandiQaConfig>,
    /// Splits on the Hub that a set without `files` consists of; no key of the config. This crate downloads nothing: the
    /// caller fills in [`HubPart::files`].
    #[serde(skip)]
    pub parts: Vec<HubPart>,
}

/// The keys of the built-in set `scandi_qa`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScandiQaConfig {
    /// Take `ltg/norquad`.
    pub use_norquad: bool,
    /// Take `ltg/noropenbookqa`.
    pub use_openbookqa: bool,
    /// Take `alexandrainst/scandi-qa`.
    pub use_scandiqa: bool,
    /// Take `jealk/supervised-da`.
    pub use_supervised_da: bool,
    /// Take `NbAiLab/norwegian-paws-x`.
    pub use_paws: bool,
    /// Languages of `alexandrainst/scandi-qa`: `no`, `da`, `sv`.
    pub scandiqa_languages: Vec<String>,
    /// Folder of PAWS-X, used instead of the Hub if it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paws_data_dir: Option<PathBuf>,
}

/// The data sets that the Python project has loaders for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltIn {
    /// `nli`: triplets of `Fremtind/all-nli-norwegian`.
    Nli,
    /// `scandi_qa`: question–passage pairs of five sources.
    ScandiQa,
    /// `ddsc`: `DDSC/nordic-embedding-training-data`.
    Ddsc,
    /// `eti`: `thivy/eti-embedding-training-data`.
    Eti,
}

impl BuiltIn {
    /// The built-in set of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "nli" => Some(Self::Nli),
            "scandi_qa" => Some(Self::ScandiQa),
            "ddsc" => Some(Self::Ddsc),
            "eti" => Some(Self::Eti),
            _ => None,
        }
    }
}

/// `columns` of a data set; what is absent is found by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Columns {
    /// Usually `anchor`, `query`, `question` or `sentence1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// Usually `positive`, `pos`, `answer`, `context`, `document` or `sentence2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// Usually `negative` or `neg`, or `negative_1`, `negative_2`, …; a cell may hold a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub negative: Vec<String>,
    /// Teacher scores or margins: a number or a list of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Running text for `objective: mlm`; usually `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Columns {
    fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// `evaluation`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationConfig {
    /// Evaluator beside the losses on the development sets.
    pub evaluator: Option<Evaluator>,
    /// Sets of [`Evaluator::SparseNanobeir`]; empty without it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nanobeir_datasets: Vec<String>,
    /// True logs active dims, sparsity ratios and FLOPS with each evaluation.
    pub track_sparsity: bool,
    /// Number of sample texts whose top terms are shown at each evaluation.
    pub log_decoded_samples: usize,
    /// Folders in BEIR layout, or of NanoBEIR.
    pub data: Vec<PathBuf>,
    /// Folder of NanoBEIR if it was downloaded; no key of the config. This crate downloads nothing.
    #[serde(skip)]
    pub nanobeir_folder: Option<PathBuf>,
}

/// `router`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterConfig {
    /// Column → side.
    #[serde(serialize_with = "pairs")]
    pub mapping: Vec<(String, Route)>,
    /// Regex on the reference's parameter names → learning rate, applied in this order; none without a router.
    #[serde(serialize_with = "pairs")]
    pub learning_rate_patterns: Vec<(String, f64)>,
}

/// `model_card`: the front matter of the model's README.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModelCardConfig {
    /// ISO codes.
    pub language: Vec<String>,
    /// As the Hub writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Library that loads the model.
    pub library_name: String,
    /// Added to those that every model gets.
    pub tags: Vec<String>,
    /// The heading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The data sets it was trained on, in words.
    pub datasets_used: Vec<String>,
}

/// `mlflow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MlflowConfig {
    /// A server's address or a folder; none: the caller's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_uri: Option<String>,
    /// Name of the experiment; none: MLflow's `Default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment_name: Option<String>,
    /// Tags of the run, in the order of the file.
    #[serde(serialize_with = "pairs", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
}

impl MlflowConfig {
    fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// `hardware`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HardwareConfig {
    /// Device of the tensors.
    pub device: DeviceChoice,
    /// Layers are computed again in the backward pass instead of kept.
    pub gradient_checkpointing: bool,
    /// True with `world_size` above 1 is an error.
    pub distributed: bool,
    /// Number of devices.
    pub world_size: usize,
}

/// A list of pairs as a mapping in its own order.
fn pairs<K: Serialize, V: Serialize, S: Serializer>(pairs: &[(K, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

fn limit_or_minus_one<S: Serializer>(limit: &Option<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    match limit {
        Some(limit) => serializer.serialize_u64(*limit as u64),
        None => serializer.serialize_i64(-1),
    }
}

fn limit_or_zero<S: Serializer>(limit: &Option<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(limit.unwrap_or(0) as u64)
}
