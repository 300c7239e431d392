//! The training config: every key, its default and its meaning, documented once, here.
//!
//! What the user wrote comes in as a [`serde_json::Value`] (the program reads the YAML), what a training runs is
//! [`TrainConfig`], and [`TrainConfig::from_value`] is the one way between. The names are those of the Python project
//! whose files load unchanged; keys marked *noted* are accepted and have no effect here. A resolved config serializes
//! to a file that reads back as itself.

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

pub use overrides::apply_override;

/// Makes an enum out of the names that a key accepts; the first name of a value is the one written back.
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
    /// What is learned.
    Objective {
        /// Ranking positives over negatives.
        Retrieval = "retrieval",
        /// Masked words of running text: pretraining or domain adaptation.
        Mlm = "mlm",
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
    /// How rows become batches.
    BatchSampler {
        /// No text occurs twice in a batch, since every positive is a negative for the other queries.
        NoDuplicates = "no_duplicates",
        /// A permutation cut into pieces.
        BatchSampler = "batch_sampler",
    }
}

choices! {
    /// When a model is pushed to the Hub.
    HubStrategy {
        /// With every checkpoint.
        Checkpoint = "checkpoint" | "every_save" | "all_checkpoints",
        /// Once, at the end.
        End = "end",
    }
}

choices! {
    /// Where logged scalars go.
    Reporter {
        /// Event files under `logging_dir`.
        Tensorboard = "tensorboard",
        /// An MLflow server or folder.
        Mlflow = "mlflow",
        /// *Noted.*
        Wandb = "wandb",
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
    /// How the regularizer weights rise to their full values.
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
    /// How the batches of several data sets are mixed.
    SamplingStrategy {
        /// One batch of each in turn, until one of them is used up.
        RoundRobin = "round_robin",
        /// All batches of all, in random order.
        Proportional = "proportional",
    }
}

choices! {
    /// What judges a model while it learns.
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
    /// Where tensors live.
    DeviceChoice {
        /// The best there is.
        Auto = "auto",
        /// The processor.
        Cpu = "cpu",
        /// An NVIDIA device.
        Cuda = "cuda",
        /// An Apple device; `mps` is PyTorch's name for it.
        Metal = "metal" | "mps",
    }
}

/// Everything that describes a run.
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
/// assert_eq!(notes[0].key, "training.torch_compile");
/// # Ok::<(), splade_trainer::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainConfig {
    /// `model`: what is trained.
    pub model: ModelConfig,
    /// `training`: how, and where the result goes.
    pub training: TrainingConfig,
    /// `loss`: what is minimized.
    pub loss: LossConfig,
    /// `datasets`: what it learns from.
    pub datasets: DataSetsConfig,
    /// `evaluation`: what judges it.
    pub evaluation: EvaluationConfig,
    /// `router`: routes of columns, learning rates by parameter name.
    pub router: RouterConfig,
    /// `model_card`: the README of the model.
    pub model_card: ModelCardConfig,
    /// `mlflow`: where MLflow is; absent if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<MlflowConfig>,
    /// `hardware`: the device.
    pub hardware: HardwareConfig,
}

/// A key that is accepted but does something else here than its reader may expect, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// the full path of the key
    pub key: String,
    /// what happens instead
    pub reason: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// `model`. The keys `csr_k`, `csr_k_aux` and `csr_hidden_dim` of the Python project are *noted*.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// A Hub id or a folder; required unless `init` is given.
    pub base_model: Option<String>,
    /// No key: where `base_model` lies, if that is not its own path. This crate downloads nothing.
    #[serde(skip)]
    pub base_folder: Option<PathBuf>,
    /// Default `inference-free-splade`. `csr` is refused.
    pub architecture: Architecture,
    /// Default `max`.
    pub pooling_strategy: Pooling,
    /// Default `relu`.
    pub activation_function: PoolingActivation,
    /// Follows from `architecture`; a value that contradicts it is an error.
    pub use_router: bool,
    /// Default false: the query table is trained.
    pub freeze_static_embedding: bool,
    /// Default `ones`: what the query table holds before training.
    pub query_init: QueryInit,
    /// NorBERT4 only: which of its logits are used. Absent means what the folder of a model trained here states, and
    /// `soft-cap` for other bases. `patch_sigmoid_for_sparsity: true`, the Python project's key, means `raw-shifted`.
    pub mlm_head: Option<HeadMode>,
    /// Default empty: keys of the base model's `config.json` that are not known here and are stated to change nothing in
    /// its forward pass. The new model's `config.json` is written without them.
    pub ignored_config_keys: Vec<String>,
    /// Default false; true if `base_model` is a finished sparse encoder that is to be trained on.
    pub load_pretrained_sparse_encoder: bool,
    /// A new model instead of `base_model`.
    pub init: Option<ModelInit>,
}

/// What the query table holds before training.
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
    /// The transformer family; default `bert`.
    pub architecture: String,
    /// Width; default 256.
    pub hidden_size: usize,
    /// Number of layers; default 4.
    pub layers: usize,
    /// Attention heads, a divisor of `hidden_size`; default 4.
    pub heads: usize,
    /// Width of the feed-forward layers; default 4 times `hidden_size`.
    pub intermediate_size: usize,
    /// Number of terms of the tokenizer that is trained; default 12 000.
    pub vocab_size: usize,
    /// A tokenizer, or what to train one on; default: the texts of the data sets.
    pub tokenizer: TokenizerInit,
}

/// `model.init.tokenizer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerInit {
    /// A `tokenizer.json`, or the folder it is in.
    Path(PathBuf),
    /// `{train_on: files}`: a WordPiece vocabulary is trained; no files means the texts of the data sets.
    TrainOn(Vec<String>),
}

impl Serialize for TokenizerInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => path.serialize(serializer),
            Self::TrainOn(files) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("train_on", files)?;
                map.end()
            }
        }
    }
}

/// `training`. `dataloader_pin_memory` and `torch_compile` are *noted*.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingConfig {
    /// Default `retrieval`.
    pub objective: Objective,
    /// Required: `checkpoint-N`, the result in `final`, event files.
    pub output_dir: PathBuf,
    /// Default 1; may be a fraction.
    pub num_train_epochs: f64,
    /// Optimizer steps; wins over `num_train_epochs`. Default none, written -1.
    #[serde(serialize_with = "limit_or_minus_one")]
    pub max_steps: Option<usize>,
    /// Default 16.
    pub per_device_train_batch_size: usize,
    /// Default 16.
    pub per_device_eval_batch_size: usize,
    /// Micro-batches per optimizer step; default 1.
    pub gradient_accumulation_steps: usize,
    /// Of the network; default 2e-5.
    pub learning_rate: f64,
    /// Of the query table; default 1e-3.
    pub query_learning_rate: f64,
    /// Share of the steps over which learning rates rise; default 0.1.
    pub warmup_ratio: f64,
    /// Default 0.01.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 switches it off. Default 1.
    pub max_grad_norm: f64,
    /// Mixed precision in bfloat16; default false.
    pub bf16: bool,
    /// Mixed precision in float16; default false.
    pub fp16: bool,
    /// Tokens of a document or query; default 256.
    pub max_seq_length: usize,
    /// Default `no_duplicates`.
    pub batch_sampler: BatchSampler,
    /// Default true; false takes rows in the order of the files, so that a run can be replayed elsewhere.
    pub shuffle: bool,
    /// Of data order and dropout; default 42.
    pub seed: u64,
    /// Default `steps`.
    pub eval_strategy: Strategy,
    /// Default 1000.
    pub eval_steps: usize,
    /// Default 100.
    pub logging_steps: usize,
    /// Default `steps`.
    pub save_strategy: Strategy,
    /// Default 1000.
    pub save_steps: usize,
    /// Checkpoints kept, the best one always among them; none keeps all, written 0. Default 1.
    #[serde(serialize_with = "limit_or_zero")]
    pub save_total_limit: Option<usize>,
    /// Default true, or false where nothing is evaluated or saved.
    pub load_best_model_at_end: bool,
    /// With the prefix `eval_`. Default: nDCG@10 of the evaluator; without one `eval_loss`, the sum of the losses on the
    /// development sets.
    pub metric_for_best_model: String,
    /// Default true, but false for a loss.
    pub greater_is_better: bool,
    /// Evaluations without improvement after which training stops; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<usize>,
    /// What counts as an improvement; default 0.
    pub early_stopping_threshold: f64,
    /// Default false.
    pub push_to_hub: bool,
    /// The repository to push to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub_model_id: Option<String>,
    /// Default `checkpoint`.
    pub hub_strategy: HubStrategy,
    /// Default false.
    pub hub_private_repo: bool,
    /// Where event files go, below `output_dir` unless absolute; default `runs`.
    pub logging_dir: PathBuf,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_name: Option<String>,
    /// Default `[tensorboard]`; `wandb` is *noted*; `none` is the empty list.
    pub report_to: Vec<Reporter>,
    /// Threads that tokenize ahead; default 0.
    pub dataloader_num_workers: usize,
    /// Batches that are tokenized ahead; absent: as the trainer thinks best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataloader_prefetch_factor: Option<usize>,
}

impl TrainingConfig {
    /// The folder of the event files.
    #[must_use]
    pub fn event_dir(&self) -> PathBuf {
        self.output_dir.join(&self.logging_dir)
    }

    /// True if the best model is judged by the sum of the losses on the development sets.
    #[must_use]
    pub fn best_by_loss_sum(&self) -> bool {
        self.metric_for_best_model == "eval_loss"
    }
}

/// `loss`. The key `aux_loss_weight` of the Python project is *noted*.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossConfig {
    /// Default `splade_loss`.
    #[serde(rename = "type")]
    pub loss_type: LossType,
    /// Default `sparse_multiple_negatives_ranking_loss`.
    pub inner_loss: InnerLossType,
    /// λ_q; default 0. `null` leaves the term out of the log too.
    pub query_regularizer_weight: Option<f64>,
    /// λ_d; default 3e-3.
    pub document_regularizer_weight: f64,
    /// Default false; true pools queries and documents into one regularizer with the document's weight.
    pub use_document_regularizer_only: bool,
    /// Default `quadratic`.
    pub regularizer_schedule: RegularizerRamp,
    /// Share of the steps over which regularizers rise; default one third.
    pub regularizer_warmup_ratio: f64,
    /// Documents with at most so many active dims are not regularized; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_regularizer_threshold: Option<usize>,
    /// Factor on the dot products of the ranking loss; default 1.
    pub scale: f64,
}

/// `datasets`: how sets are mixed, then the sets in the order of the round.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSetsConfig {
    /// Default `round_robin`.
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
    /// Default true.
    pub enabled: bool,
    /// Paths or globs of `.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.tsv` or `.parquet` files.
    pub files: Vec<String>,
    /// Like `files`, for the development set; `split_ratio` is then not used.
    pub dev_files: Vec<String>,
    /// A data set on the Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Its split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Which columns hold what, where they do not have the usual names.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
    /// Rows are kept whose column has one of the values, for every column named.
    #[serde(serialize_with = "pairs", skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<(String, Vec<String>)>,
    /// The first so many usable rows; default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_samples: Option<usize>,
    /// Shares of training, development and test rows, cut after a shuffle with the seed; default all for training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_ratio: Option<[f64; 3]>,
    /// Built-in sets: languages to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// `ddsc`: tasks to keep; default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    /// `scandi_qa`: which sources; all by default.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub scandi_qa: Option<ScandiQaSources>,
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

    /// Where its rows are on the Hub.
    #[must_use]
    pub fn hub_sources(self) -> &'static [&'static str] {
        match self {
            Self::Nli => &["Fremtind/all-nli-norwegian"],
            Self::ScandiQa => &[
                "ltg/norquad",
                "ltg/noropenbookqa",
                "alexandrainst/scandi-qa",
                "jealk/supervised-da",
                "NbAiLab/norwegian-paws-x",
            ],
            Self::Ddsc => &["DDSC/nordic-embedding-training-data"],
            Self::Eti => &["thivy/eti-embedding-training-data"],
        }
    }
}

/// Keys of the built-in set `scandi_qa`; they choose what is taken from the Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScandiQaSources {
    /// `ltg/norquad`.
    pub use_norquad: bool,
    /// `ltg/noropenbookqa`.
    pub use_openbookqa: bool,
    /// `alexandrainst/scandi-qa`.
    pub use_scandiqa: bool,
    /// `jealk/supervised-da`.
    pub use_supervised_da: bool,
    /// `NbAiLab/norwegian-paws-x`.
    pub use_paws: bool,
    /// Default `[no, da, sv]`.
    pub scandiqa_languages: Vec<String>,
    /// Where the Python project keeps PAWS-X.
    pub paws_data_dir: PathBuf,
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

/// `evaluation`. `mteb_tasks` is for `splade eval-mteb` and *noted* here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationConfig {
    /// Default none: the losses on the development sets alone judge.
    pub evaluator: Option<Evaluator>,
    /// Default `[msmarco, nfcorpus]`.
    pub nanobeir_datasets: Vec<String>,
    /// Names for `splade eval-mteb`.
    pub mteb_tasks: Vec<String>,
    /// Default true: active dims and the like are logged with each evaluation.
    pub track_sparsity: bool,
    /// The top terms of so many sample texts are logged at each evaluation; default 10.
    pub log_decoded_samples: usize,
    /// Folders in BEIR layout.
    pub data: Vec<PathBuf>,
}

/// `router`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterConfig {
    /// Column → side; default anchor by the query side, positive and negative by the document side.
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
    /// Default `sentence-transformers`.
    pub library_name: String,
    /// Added to those that every model gets.
    pub tags: Vec<String>,
    /// The heading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// What it learned from, in words.
    pub datasets_used: Vec<String>,
}

/// `mlflow`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MlflowConfig {
    /// A server over HTTP, or a folder; default `mlruns`.
    pub tracking_uri: String,
    /// Default `sparse-encoder-training`.
    pub experiment_name: String,
    /// Key → value.
    #[serde(serialize_with = "pairs")]
    pub tags: Vec<(String, String)>,
}

/// `hardware`. `tf32` is *noted*.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HardwareConfig {
    /// Default `auto`.
    pub device: DeviceChoice,
    /// Recompute instead of keep; default false.
    pub gradient_checkpointing: bool,
    /// Default false; true with `world_size` above 1 is an error.
    pub distributed: bool,
    /// Default 1.
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
