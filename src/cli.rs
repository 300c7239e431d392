//! The flags as the user types them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use splade_core::HeadMode;

/// Trains, exports, indexes, searches and evaluates SPLADE models.
#[derive(Debug, Parser)]
#[command(name = "splade", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Results go to stdout, everything else to stderr. Exit code 0: done, 1: it failed while running, \
2: the command line, a config or an input file is wrong."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) console: Console,
    /// Never use the network: models of the Hub are taken from the cache; HF_HUB_OFFLINE=1 says the same
    #[arg(long, global = true, display_order = 903)]
    pub(crate) offline: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn two_weights(text: &str) -> Result<[f32; 2], String> {
    let numbers = text.split(',').map(|number| number.trim().parse::<f32>());
    match numbers.collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([sparse, bm25]) => Ok([*sparse, *bm25]),
        _ => Err("two numbers are needed, like 0.7,0.3".to_owned()),
    }
}

/// The names of head modes, for help and errors too.
fn head_mode() -> impl clap::builder::TypedValueParser<Value = HeadMode> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(HeadMode::ALL.map(|(_, name)| name)).try_map(|name| name.parse::<HeadMode>())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number is needed".to_owned()),
    }
}

#[cfg(feature = "train")]
fn positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0 is needed, like 1e-4".to_owned()),
    }
}

/// How much is said.
#[derive(Debug, Clone, Args)]
pub(crate) struct Console {
    /// Say only what went wrong
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet", display_order = 901)]
    pub(crate) verbose: bool,
    /// How log lines are written to stderr
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", display_order = 902)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "train")]
    Train(TrainArgs),
    #[cfg(feature = "train")]
    ExportOnnx(ExportOnnxArgs),
    Encode(EncodeArgs),
    Index(IndexArgs),
    Search(SearchArgs),
    EvalMteb(EvalMtebArgs),
    #[cfg(feature = "train")]
    Verify(VerifyArgs),
    Inspect(InspectArgs),
    Doctor(DoctorArgs),
}

/// Train a model as a YAML file describes
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  splade train configs/smoke.yaml --set training.max_steps=50")]
pub(crate) struct TrainArgs {
    /// The training config
    #[arg(value_name = "CONFIG.yaml")]
    pub(crate) config: PathBuf,
    /// Go on from the last checkpoint in output_dir
    #[arg(long)]
    pub(crate) resume: bool,
    /// Go on from this checkpoint
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub(crate) resume_from: Option<PathBuf>,
    /// Change a key of the config; may be given many times
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the resolved config, the data found and the number of steps, and train nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Start anew where output_dir already holds a training; its checkpoints are removed
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Threads for tensors and tokenizers; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Write a model's network as ONNX files, and prove that they agree with it
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade export-onnx models/demo/final
  splade export-onnx models/demo/final --precision fp32,int8 --eval tests/data/lohelp-nb

fp16 halves the file and is as fast as fp32; int8 quarters it and is the fastest on a CPU.
Their files are called model_fp16.onnx, model_splade_int8.onnx and so on; the other commands take
them with --precision.")]
pub(crate) struct ExportOnnxArgs {
    /// A model folder, or a Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Where the files go; default: `onnx/` beside the network's config.json, where every tool looks. A model of the Hub is
    /// copied to ./NAME first
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// The ONNX operator set
    #[arg(long, value_name = "N", default_value_t = 17, value_parser = clap::value_parser!(i64).range(17..=18))]
    pub(crate) opset: i64,
    /// Which file: `logits` writes model.onnx (3-D logits, optimum's names), `splade` model_splade.onnx (pooled); default both
    #[arg(long)]
    pub(crate) head: Option<HeadChoice>,
    /// The numbers of the files, one or several: `--precision fp32,int8`
    #[arg(long, value_name = "PRECISION", value_delimiter = ',', default_value = "fp32")]
    pub(crate) precision: Vec<PrecisionChoice>,
    /// NorBERT4 only: which of its logits are used; default: what the model folder says
    #[arg(long, value_name = "MODE", value_parser = head_mode())]
    pub(crate) mlm_head: Option<HeadMode>,
    /// Do not compare the files with the model
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Also evaluate each precision on this data folder (nDCG@10, beside fp32); may be given many times
    #[arg(long, value_name = "DIR")]
    pub(crate) eval: Vec<PathBuf>,
    /// Cut the texts of --eval at so many tokens; default: what the model folder says
    #[arg(long, value_name = "N", requires = "eval", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the parity table as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[cfg(feature = "train")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadChoice {
    Logits,
    Splade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionChoice {
    Fp32,
    Fp16,
    Int8,
}

impl From<PrecisionChoice> for splade_files::Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Fp32 => Self::Fp32,
            PrecisionChoice::Fp16 => Self::Fp16,
            PrecisionChoice::Int8 => Self::Int8,
        }
    }
}

/// How a network runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// What runs the network; auto: ONNX Runtime if the folder has an ONNX file and the library loads, else Candle
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub(crate) backend: Backend,
    /// Which ONNX file of the folder runs, as `export-onnx --precision` made it
    #[arg(long, value_name = "PRECISION", default_value = "fp32")]
    pub(crate) precision: PrecisionChoice,
    /// Where it runs; an ONNX file runs on the CPU, and says so, where the device cannot be used
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// An option of ONNX Runtime's execution provider (`device_id=1`), or on the CPU of its session
    /// (`session.intra_op.allow_spinning=0`); may be given many times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) ep_option: Vec<(String, String)>,
    /// Threads; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Cut texts at so many tokens; default: what the model folder says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// NorBERT4 only: which of its logits are used; default: what the model folder says
    #[arg(long, value_name = "MODE", value_parser = head_mode())]
    pub(crate) mlm_head: Option<HeadMode>,
    /// Leave out the terms of special tokens, such as CLS, from every vector
    #[arg(long)]
    pub(crate) drop_special_terms: bool,
    /// Tokens per batch, padding included: memory is proportional to it, not to the corpus
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_tokens: u32,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not KEY=VALUE".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Auto,
    Onnx,
    Candle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    Auto,
    Cpu,
    Cuda,
    Coreml,
    Metal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Query,
    Document,
}

/// Turn texts into sparse vectors
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade encode models/demo/final --input corpus.jsonl --role document --output vectors.jsonl
  echo 'Hvem bor i Oslo?' | splade encode models/demo/final --input - --role query")]
pub(crate) struct EncodeArgs {
    /// A model folder, or a Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Texts: .jsonl, .tsv, .parquet, or .txt with one text a line; also .gz and .zst; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Which side of the model encodes them
    #[arg(long)]
    pub(crate) role: Role,
    /// Where the vectors go; default: stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Keep only so many entries of largest weight
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) top_k: Option<usize>,
    /// Entries by number or by token
    #[arg(long, value_name = "FORMAT", default_value = "indices")]
    pub(crate) format: VectorFormat,
    /// Replace an output that exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VectorFormat {
    Indices,
    Tokens,
}

/// Encode a corpus and write an index
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade index models/demo/final --input corpus.jsonl.gz --index wiki.index --language norwegian
  splade index models/demo/final --index wiki.index --append --input more.jsonl --delete gone.txt")]
pub(crate) struct IndexArgs {
    /// A model folder, or a Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Documents: .jsonl, .tsv or .parquet, also .gz and .zst; - is stdin
    #[arg(long, value_name = "CORPUS", required_unless_present = "delete")]
    pub(crate) input: Option<PathBuf>,
    /// The index folder
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// Add to an index that exists; a document whose id is there already replaces it
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) append: bool,
    /// Replace an index that exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Delete the documents with these ids, one a line, before anything is added; needs --append
    #[arg(long, value_name = "IDS.txt", requires = "append")]
    pub(crate) delete: Option<PathBuf>,
    /// Take the vectors from this file (as `encode` writes it, same ids in the same order) instead of encoding
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: Option<PathBuf>,
    /// Keep only so many entries of each document
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_active_dims: Option<usize>,
    /// Stemmer of BM25: none, norwegian, danish, swedish, english; fixed when the index is made
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) language: Option<String>,
    /// Print the statistics as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Search an index
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade search --index wiki.index 'hvor mange bor i Oslo' -k 3 --explain
  splade search --index wiki.index --queries queries.jsonl --mode hybrid --format trec > run.trec")]
pub(crate) struct SearchArgs {
    /// The index folder
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// The query
    #[arg(required_unless_present = "queries", conflicts_with = "queries")]
    pub(crate) query: Option<String>,
    /// Many queries: .jsonl, .tsv or .parquet; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: Option<PathBuf>,
    /// Hits per query
    #[arg(short, value_name = "K", default_value_t = 10, value_parser = at_least_one)]
    pub(crate) k: usize,
    /// What ranks
    #[arg(long, default_value = "sparse")]
    pub(crate) mode: Mode,
    /// How hybrid joins its two rankings
    #[arg(long, default_value = "rrf")]
    pub(crate) fusion: FusionChoice,
    /// The constant of reciprocal rank fusion
    #[arg(long, value_name = "K", default_value_t = 60.0, allow_negative_numbers = true)]
    pub(crate) rrf_k: f32,
    /// Weights of the sparse and the BM25 ranking in --fusion weighted
    #[arg(long, value_name = "SPARSE,BM25", default_value = "0.5,0.5", value_parser = two_weights)]
    pub(crate) weights: [f32; 2],
    /// Hits taken from each ranking before fusion
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) depth: usize,
    /// Only documents whose fields are so: `lang=nb,year=2024`, `source!=web`
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Show the terms that matched and what each adds to the score
    #[arg(long)]
    pub(crate) explain: bool,
    /// How hits are printed
    #[arg(long, default_value = "table")]
    pub(crate) format: HitFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// The model folder or Hub id, for models whose queries go through the network
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Mode {
    Sparse,
    Bm25,
    Hybrid,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Bm25 => "bm25",
            Self::Hybrid => "hybrid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FusionChoice {
    Rrf,
    Weighted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HitFormat {
    Table,
    Json,
    Trec,
}

/// Evaluate a model on data folders, as MTEB does
#[derive(Debug, Args)]
#[command(after_help = "Example:
  splade eval-mteb models/demo/final --data tests/data/lohelp-nb --modes sparse,bm25,hybrid")]
pub(crate) struct EvalMtebArgs {
    /// A model folder, or a Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Folders in BEIR or in the Hub's parquet layout
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Only the tasks of these names
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) tasks: Vec<String>,
    /// Where result files go, in mteb's layout
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) output_dir: PathBuf,
    /// What is evaluated, side by side
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "sparse")]
    pub(crate) modes: Vec<Mode>,
    /// The split of the judgements; default: the task's own, else test
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Option<String>,
    /// Stemmer of BM25: none, norwegian, danish, swedish, english
    #[arg(long, value_name = "LANGUAGE", default_value = "none")]
    pub(crate) language: String,
    /// Also report active dims, sparsity and posting lists of both sides
    #[arg(long)]
    pub(crate) analyze_sparsity: bool,
    /// Compare with results of another run: a result file, or a results folder
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) baseline: Option<PathBuf>,
    /// The name results are filed under; default: `local/` and the folder's name
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) model_name: Option<String>,
    /// Also write each ranking as a TREC run
    #[arg(long)]
    pub(crate) save_runs: bool,
    /// Replace results that exist
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the scores as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Compare all backends and files of a model, stage by stage
///
/// The reference is the checkpoint in Candle on the CPU. Every ONNX file of the folder is run in ONNX Runtime and, where
/// it has the operators, in candle-onnx. Exit code 0: all agree, 1: something does not.
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade verify models/demo/final
  splade verify models/demo/final --input texts.jsonl --role document --reference python.jsonl")]
pub(crate) struct VerifyArgs {
    /// A model folder, or a Hub id
    pub(crate) model: PathBuf,
    /// Texts to compare on, in any form `encode` reads; default: built-in ones in Norwegian, Danish, Swedish and English
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Another implementation's vectors of these texts, as `encode` writes them; every backend is compared with them
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) reference: Option<PathBuf>,
    /// Which side of the model the reference's vectors are of
    #[arg(long, default_value = "document", requires = "reference")]
    pub(crate) role: Role,
    /// The largest difference allowed; default: 1e-4 in f32, more in fp16 and int8 files
    #[arg(long, value_name = "X", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) tolerance: Option<f32>,
    /// NorBERT4 only: which of its logits are used; default: what the model folder says
    #[arg(long, value_name = "MODE", value_parser = head_mode())]
    pub(crate) mlm_head: Option<HeadMode>,
    /// Where the networks run beside the reference
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Threads; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Cut texts at so many tokens; default: what the model folder says, 512 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// Tokens per batch, padding included, where texts are padded together
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_tokens: u32,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what a model folder, ONNX file, index, query table, checkpoint or vector file holds
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade inspect models/demo/final
  splade inspect models/demo/final/query_0_SparseStaticEmbedding/model.safetensors --top 20
  splade inspect vectors.jsonl --model models/demo/final")]
pub(crate) struct InspectArgs {
    /// A folder or file, or the Hub id of a model
    pub(crate) path: PathBuf,
    /// How many terms, operators or tensors are listed
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// The model folder or Hub id whose tokens name the terms of a table or vector file
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what is found on this machine and what is missing: ONNX Runtime, devices, processor, memory
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  splade doctor")]
pub(crate) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
