//! Commands and flags, as typed.

mod eval_run;
mod ranking;
mod tune;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use splade_core::{HeadMode, PassageLength, Pruning};

pub(crate) use eval_run::{ComparisonArgs, EvalRunArgs, ReportFormat};
pub(crate) use ranking::{Bm25Args, FusionArgs, RankingWeights, Switch};
pub(crate) use tune::TuneArgs;

use crate::tasks::NANO_BEIR_ID;

/// Trains, exports, indexes, searches and evaluates SPLADE models.
#[derive(Debug, Parser)]
#[command(name = "splade", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Results go to stdout, everything else to stderr. Exit code 0: success, 1: failure while running, \
2: error in the command line, a config or an input file, 130 or 143: interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) console: Console,
    /// Do not use the network: take models of the Hub from the cache (also HF_HUB_OFFLINE=1)
    #[arg(long, global = true, display_order = 903)]
    pub(crate) offline: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Parser of head modes, with their names for help and errors.
fn head_mode() -> impl clap::builder::TypedValueParser<Value = HeadMode> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(HeadMode::ALL.map(|(_, name)| name)).try_map(|name| name.parse::<HeadMode>())
}

/// Least memory of `--memory`: below it, segments are very small.
const LEAST_MEMORY: usize = 32_000_000;

/// Parses a number of bytes: `200MB`, `4GB`, `1.5GB`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let scale = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1e0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        _ => return Err("expected a size, like 200MB or 4GB".to_owned()),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number * scale >= LEAST_MEMORY as f64 && number * scale <= 1e15 => Ok((number * scale) as usize),
        Ok(_) => Err(format!("expected at least {}MB", LEAST_MEMORY / 1_000_000)),
        Err(_) => Err("expected a size, like 200MB or 4GB".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

#[cfg(feature = "train")]
fn positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0, like 1e-4".to_owned()),
    }
}

/// Amount and format of log lines.
#[derive(Debug, Clone, Args)]
pub(crate) struct Console {
    /// Print errors only
    #[arg(short, long, global = true, display_order = 900)]
    pub(crate) quiet: bool,
    /// Print more log lines
    #[arg(short, long, global = true, conflicts_with = "quiet", display_order = 901)]
    pub(crate) verbose: bool,
    /// Format of log lines on stderr
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
    #[cfg(feature = "train")]
    Mine(MineArgs),
    EvalMteb(EvalMtebArgs),
    EvalRun(EvalRunArgs),
    Tune(TuneArgs),
    #[cfg(feature = "train")]
    Verify(VerifyArgs),
    Inspect(InspectArgs),
    Push(PushArgs),
    Doctor(DoctorArgs),
}

/// Train a model from a YAML config
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  splade train configs/demo-pretrain.yaml --set training.max_steps=50 --dry-run")]
pub(crate) struct TrainArgs {
    /// Training config
    #[arg(value_name = "CONFIG.yaml")]
    pub(crate) config: PathBuf,
    /// Resume from the last checkpoint in output_dir
    #[arg(long)]
    pub(crate) resume: bool,
    /// Resume from this checkpoint
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub(crate) resume_from: Option<PathBuf>,
    /// Override a config key; repeatable
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the resolved config, the data sets and the number of steps, without training
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Start from the beginning even if output_dir holds a training, which is removed except `final`
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Number of threads for tensors and tokenizers; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Export a model to ONNX files and compare them with the checkpoint
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade export-onnx demo/model/final
  splade export-onnx demo/model/final --precision fp32,int8 --eval tests/data/lohelp-nb

fp16 files have half the size and the speed of fp32; int8 files have a quarter of the size and are
the fastest on a CPU. Names: model_fp16.onnx, model_splade_int8.onnx and so on; the other commands
select them with --precision.")]
pub(crate) struct ExportOnnxArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Output folder; default: `onnx/` beside the network's config.json. A model of the Hub is copied to ./NAME first
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Version of the ONNX operator set
    #[arg(long, value_name = "N", default_value_t = 17, value_parser = clap::value_parser!(i64).range(17..=18))]
    pub(crate) opset: i64,
    /// Output of the graph: `logits` writes model.onnx (3-D logits, names of optimum), `splade` model_splade.onnx (pooled
    /// vectors); default: both files
    #[arg(long)]
    pub(crate) head: Option<HeadChoice>,
    /// Precision of the files, one or several: `--precision fp32,int8`
    #[arg(long, value_name = "PRECISION", value_delimiter = ',', default_value = "fp32")]
    pub(crate) precision: Vec<PrecisionChoice>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Skip the comparison with the checkpoint
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Evaluate each precision on this data folder (nDCG@10, beside fp32); repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) eval: Vec<PathBuf>,
    /// Truncate texts of --eval to N tokens; default: as the model folder says
    #[arg(long, value_name = "N", requires = "eval", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// Replace existing files
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the parity table as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Number of threads; 0: all cores
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

/// Settings for reading a model folder, where its files leave a choice.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReadingArgs {
    /// Logits of a NorBERT4 model to use; default: as the model folder says
    #[arg(long, value_name = "MODE", value_parser = head_mode())]
    pub(crate) mlm_head: Option<HeadMode>,
    /// Ignore an unknown key of the network's config.json that changes nothing in the forward pass; repeatable
    #[arg(long, value_name = "KEY")]
    pub(crate) ignore_config_key: Vec<String>,
}

/// Pruning of encoded vectors; an entry is kept if every given rule keeps it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct PruneArgs {
    /// Keep the N entries of largest weight of each encoded vector
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_active_dims: Option<usize>,
    /// Keep entries of at least this weight
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    min_weight: Option<f32>,
    /// Keep the entries of largest weight that have this share of the sum of all weights: 0.9 is 90 %
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    mass: Option<f32>,
}

impl PruneArgs {
    /// Checks the numbers.
    pub(crate) fn pruning(&self) -> splade_core::Result<Pruning> {
        let mut pruning = Pruning::default();
        if let Some(most) = self.max_active_dims {
            pruning = pruning.with_max_active_dims(most);
        }
        if let Some(least) = self.min_weight {
            pruning = pruning.with_min_weight(least)?;
        }
        match self.mass {
            Some(share) => pruning.with_mass(share),
            None => Ok(pruning),
        }
    }
}

/// Settings of the network.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Runtime of the network; auto: ONNX Runtime if the folder has an ONNX file and the library loads, else Candle
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub(crate) backend: Backend,
    /// Precision of the ONNX file to run, as written by `export-onnx --precision`
    #[arg(long, value_name = "PRECISION", default_value = "fp32")]
    pub(crate) precision: PrecisionChoice,
    /// Device of the network; ONNX Runtime falls back to the CPU, with a warning, if the device cannot be used
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Option of ONNX Runtime's execution provider (`device_id=1`), or of its session on the CPU
    /// (`session.intra_op.allow_spinning=0`); repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) ep_option: Vec<(String, String)>,
    /// Number of threads; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Truncate texts to N tokens; default: as the model folder says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Remove special tokens, such as CLS, from every vector
    #[arg(long)]
    pub(crate) drop_special_terms: bool,
    /// Tokens per batch, padding included; memory is proportional to it
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_tokens: u32,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
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

/// Encode texts as sparse vectors
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade encode demo/model/final --input corpus.jsonl --role document --output vectors.jsonl
  echo 'Hvem bor i Oslo?' | splade encode demo/model/final --input - --role query")]
pub(crate) struct EncodeArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    pub(crate) model: PathBuf,
    /// Texts: .jsonl, .tsv, .parquet, or .txt with one text per line; also .gz and .zst; -: stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Side of the model that encodes the texts
    #[arg(long)]
    pub(crate) role: Role,
    /// Output file; default: stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Short for --max-active-dims
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "max_active_dims")]
    top_k: Option<usize>,
    #[command(flatten)]
    prune: PruneArgs,
    /// Name entries by index or by token
    #[arg(long, value_name = "FORMAT", default_value = "indices")]
    pub(crate) format: VectorFormat,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl EncodeArgs {
    /// Pruning of the vectors.
    pub(crate) fn pruning(&self) -> splade_core::Result<Pruning> {
        PruneArgs { max_active_dims: self.top_k.or(self.prune.max_active_dims), ..self.prune }.pruning()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VectorFormat {
    Indices,
    Tokens,
}

/// Encode a corpus into an index
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade index demo/model/final --input corpus.jsonl.gz --index wiki.index --language norwegian
  splade index demo/model/final --input corpus.jsonl --index fields.index --fields year:int
  splade index demo/model/final --input corpus.jsonl --index long.index --passages 48/12
  splade index demo/model/final --index wiki.index --append --input more.jsonl --delete gone.txt
  splade index demo/model/final --input corpus.jsonl --index dense.index --dense dense-model
  splade index --optimize wiki.index
  splade index --check wiki.index

A run that is interrupted or killed is resumed by the same command. It reads the input again,
compares it with what is in DIR.unfinished, and continues after the last checkpoint. Input from
stdin cannot be resumed.")]
#[command(override_usage = "splade index [OPTIONS] --index <DIR> --input <CORPUS> <MODEL>
       splade index [OPTIONS] --optimize <DIR>
       splade index [OPTIONS] --check <DIR>")]
pub(crate) struct IndexArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    #[arg(required_unless_present_any = ["check", "optimize"])]
    model: Option<PathBuf>,
    /// Documents: .jsonl, .tsv or .parquet; also .gz and .zst; -: stdin
    #[arg(long, value_name = "CORPUS", required_unless_present_any = ["delete", "vectors", "check", "optimize"])]
    pub(crate) input: Option<PathBuf>,
    /// Index folder
    #[arg(long, value_name = "DIR", required_unless_present_any = ["check", "optimize"])]
    index: Option<PathBuf>,
    /// Check every byte of an index instead of writing one, by its checksums and its structure; a damaged, missing or
    /// unknown file is named, and the exit code is 1
    #[arg(long, value_name = "DIR", conflicts_with = "optimize", conflicts_with_all = OF_WRITING)]
    pub(crate) check: Option<PathBuf>,
    /// Merge all segments of an index into one, the fastest to search, and remove deleted documents; searches go on
    #[arg(long, value_name = "DIR", conflicts_with_all = OF_WRITING)]
    pub(crate) optimize: Option<PathBuf>,
    /// Add to an existing index; a document with the id of an indexed one replaces it
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) append: bool,
    /// Replace an existing index
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Delete the documents with these ids, one per line and taken exactly, before adding; requires --append
    #[arg(long, value_name = "IDS.txt", requires = "append")]
    pub(crate) delete: Option<PathBuf>,
    /// Discard what an interrupted run left in DIR.unfinished, instead of resuming it
    #[arg(long)]
    pub(crate) restart: bool,
    /// Number of documents between two checkpoints, from which an interrupted run is resumed; there is one each minute too
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_every: u64,
    /// Memory for documents and vectors that are not on disk yet, and for merging them: `200MB`, `4GB`
    #[arg(long, value_name = "SIZE", default_value = "512MB", value_parser = size)]
    pub(crate) memory: usize,
    /// Read vectors from this file instead of encoding: .jsonl, .npz (CSR of SciPy) or .safetensors (CSR: tensors indptr,
    /// indices, data). With --input, the same ids in the same order; alone, documents without text
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: Option<PathBuf>,
    /// Read the ids of --vectors from this file, one per line; default: those of --input, else row numbers from 0. Only for
    /// .npz and .safetensors
    #[arg(long, value_name = "IDS.txt", requires = "vectors")]
    pub(crate) vector_ids: Option<PathBuf>,
    /// Split documents at sentence ends into passages of at most N tokens, special tokens included, of which up to OVERLAP are
    /// those of the passage before; a hit is a document with its best passage; fixed when the index is created
    #[arg(long, value_name = "N[/OVERLAP]", conflicts_with = "vectors")]
    pub(crate) passages: Option<PassageLength>,
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
    /// Stemmer of BM25: none, norwegian (nb, nn), danish (da), swedish (sv), english (en), or auto: as the first documents
    /// are; fixed when the index is created
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) language: Option<String>,
    /// Typed fields of the documents, for filters and counts: keyword, int, float, date or bool, for instance
    /// `lang:keyword,year:int`; fixed when the index is created; default: those of the first 1000 documents; `none` for none
    #[arg(long, value_name = "NAME:TYPE,...")]
    pub(crate) fields: Option<String>,
    #[command(flatten)]
    pub(crate) dense: DenseArgs,
    /// Print the statistics, or what --check found, as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Arguments of `index` that make no sense with `--check` and `--optimize`.
const OF_WRITING: [&str; 20] = [
    "model",
    "input",
    "index",
    "append",
    "overwrite",
    "delete",
    "restart",
    "checkpoint_every",
    "memory",
    "vectors",
    "vector_ids",
    "max_active_dims",
    "min_weight",
    "mass",
    "language",
    "fields",
    "passages",
    "dense",
    "dense_query_prompt",
    "dense_document_prompt",
];

impl IndexArgs {
    /// Model to index with.
    pub(crate) fn model(&self) -> &Path {
        self.model.as_deref().expect("clap requires a model unless --check or --optimize is given")
    }

    /// Folder of the index to write.
    pub(crate) fn index(&self) -> &Path {
        self.index.as_deref().expect("clap requires --index unless --check or --optimize is given")
    }
}

/// Use of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// Search an index
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade search --index wiki.index 'hvor mange bor i Oslo' -k 3 --explain
  splade search --index wiki.index 'snø og regn' --filter 'theme:by AND year:[2024 TO *]'
  splade search --index wiki.index --count-by theme --count-by year
  splade search --index wiki.index --queries queries.jsonl --mode hybrid --format trec > run.trec
  splade search --index dense.index --dense dense-model --mode hybrid 'hvor gyter torsken' --explain
  splade search --index wiki.index 'hvor mange bor i Oslo' --snippets 2 --html hits.html
  splade search --index wiki.index --queries queries.jsonl --stats=stats.json --json > hits.jsonl

The queries of a file are answered on all threads, one thread each, and printed in their order.
Pruning (--max-active-dims, --min-weight, --mass) is of the query's vector.
Snippets in JSON have positions in characters (code points) of the hit's text.")]
pub(crate) struct SearchArgs {
    /// Index folder
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// Query
    #[arg(
        required_unless_present_any = ["queries", "query_vectors", "count_by"],
        conflicts_with_all = ["queries", "query_vectors"]
    )]
    pub(crate) query: Option<String>,
    /// File of queries: .jsonl, .tsv or .parquet; -: stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: Option<PathBuf>,
    /// Read vectors of queries from this file instead of encoding, in any form of `index --vectors`. With --queries, the same ids in
    /// the same order; alone, queries without text
    #[arg(long, value_name = "FILE")]
    pub(crate) query_vectors: Option<PathBuf>,
    /// Number of hits per query
    #[arg(short, value_name = "K", default_value_t = 10, value_parser = at_least_one)]
    pub(crate) k: usize,
    /// Ranking mode
    #[arg(long, default_value = "sparse")]
    pub(crate) mode: Mode,
    #[command(flatten)]
    pub(crate) dense: DenseSearchArgs,
    #[command(flatten)]
    pub(crate) fusion: FusionArgs,
    #[command(flatten)]
    pub(crate) bm25: Bm25Args,
    /// Filter by typed fields, id or text, in tantivy's query language: `lang:nb AND year:[2020 TO *]`, `NOT tags:draft`,
    /// `date:[2020-01-01 TO 2021-01-01}`, `lang: IN [nb nn]`, `author:*`; or by equality of any field:
    /// `lang=nb,year=2024`, `source!=web`, `place="Oslo, Norge"`
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
    /// Count the values of a typed field over all documents that match the query and pass the filter, not only over the
    /// hits; without a query, over all that pass; several times for several fields
    #[arg(long, value_name = "FIELD")]
    pub(crate) count_by: Vec<String>,
    /// Show the matching terms with their shares of the score, and in hybrid mode the rank and score in each ranking
    #[arg(long)]
    pub(crate) explain: bool,
    /// Number of snippets per hit: the parts of the text with the best matching words; default: 1 in tables and pages, none
    /// in JSON
    #[arg(long, value_name = "N")]
    pub(crate) snippets: Option<usize>,
    /// Most characters of a snippet; default: 160
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) snippet_length: Option<usize>,
    /// Mark matching words by colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Write hits, marked snippets and explanations to a page, which loads nothing
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Report queries per second and latencies (mean, p50, p90, p99, max), in the log or as JSON in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) stats: Option<Option<PathBuf>>,
    /// Read the files of the index once before the first query, so that it does not wait for the disk
    #[arg(long)]
    pub(crate) warm: bool,
    /// Replace existing files
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Output format
    #[arg(long, default_value = "table")]
    pub(crate) format: HitFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Model folder or Hub id, for models whose queries need the network
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Dense model of documents and queries.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DenseArgs {
    /// Dense model, in the layout of sentence-transformers with an ONNX file: a folder or Hub id. Its vectors stand beside the
    /// sparse ones, for --mode dense and as a third ranking in hybrid mode
    #[arg(long, value_name = "MODEL")]
    pub(crate) dense: Option<PathBuf>,
    /// Text put before queries for the dense model; default: as its folder says
    #[arg(long, value_name = "TEXT", requires = "dense", allow_hyphen_values = true)]
    pub(crate) dense_query_prompt: Option<String>,
    /// Text put before documents for the dense model; default: as its folder says
    #[arg(long, value_name = "TEXT", requires = "dense", allow_hyphen_values = true)]
    pub(crate) dense_document_prompt: Option<String>,
}

/// Source of the dense ranking of a search.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DenseSearchArgs {
    /// Dense model that the index was made with, a folder or Hub id: for --mode dense, and for a third ranking in hybrid mode
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["dense_run", "query_vectors"])]
    pub(crate) dense: Option<PathBuf>,
    /// TREC run to take as the dense ranking, by the ids of --queries; the index needs no dense vectors
    #[arg(long, value_name = "FILE")]
    pub(crate) dense_run: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Mode {
    Sparse,
    Bm25,
    Dense,
    Hybrid,
}

/// Parser of the modes that need no dense ranking.
#[cfg(feature = "train")]
fn mode_without_dense() -> impl clap::builder::TypedValueParser<Value = Mode> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    let modes = Mode::value_variants().iter().filter(|mode| **mode != Mode::Dense).map(|mode| mode.name());
    PossibleValuesParser::new(modes).try_map(|name| Mode::from_str(&name, false))
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sparse => "sparse",
            Self::Bm25 => "bm25",
            Self::Dense => "dense",
            Self::Hybrid => "hybrid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HitFormat {
    Table,
    Json,
    Trec,
}

/// Mine hard negatives for training pairs from an index or a run file
///
/// For each pair of a query and a document that answers it, the documents of a window of ranks become its negatives, unless
/// the input has them as a positive of the query. The output is in the training format: anchor, positive, negative_1, …
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade mine pairs.jsonl --index wiki.index --ranks 2-50 --negatives 3 --output mined.jsonl
  splade mine pairs.jsonl --index wiki.index --mode bm25 --teacher demo/model/final > scored.jsonl

A high rank is a hard negative, and is sometimes an answer that nobody has marked: a window that begins
below the first ranks, or a margin to the positive's score, leaves most of those out.")]
pub(crate) struct MineArgs {
    /// Training pairs: .jsonl, .tsv or .parquet; also .gz and .zst; -: stdin
    #[arg(value_name = "PAIRS")]
    pub(crate) input: PathBuf,
    /// Index folder to search
    #[arg(long, value_name = "DIR", required_unless_present = "run", conflicts_with = "run")]
    pub(crate) index: Option<PathBuf>,
    /// Ranking mode of the index
    #[arg(long, default_value = "sparse", value_parser = mode_without_dense())]
    pub(crate) mode: Mode,
    /// TREC run to take rankings from, by the query_id of each pair
    #[arg(long, value_name = "FILE", requires = "corpus")]
    pub(crate) run: Option<PathBuf>,
    /// Documents that the run names: .jsonl, .tsv or .parquet
    #[arg(long, value_name = "CORPUS", requires = "run")]
    pub(crate) corpus: Option<PathBuf>,
    /// Output file; default: stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Negatives per row; a row for which there are fewer is left out
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) negatives: usize,
    /// Ranks to take negatives from, both ends included
    #[arg(long, value_name = "FIRST-LAST", default_value = "1-100", value_parser = crate::commands::mine::ranks)]
    pub(crate) ranks: std::ops::RangeInclusive<usize>,
    /// Leave out documents whose score is above that of the positive minus X
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) margin: Option<f32>,
    /// Leave out documents whose score is above that of the positive minus this share of it: 0.05 is 5 %
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) relative_margin: Option<f32>,
    /// Model folder or Hub id whose scores of positive and negatives become the column label
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher: Option<PathBuf>,
    /// Column of queries; default: anchor, query, question or sentence1
    #[arg(long, value_name = "NAME")]
    pub(crate) anchor: Option<String>,
    /// Column of positives; default: positive, pos, answer, context, document or sentence2
    #[arg(long, value_name = "NAME")]
    pub(crate) positive: Option<String>,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print the counts as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Model folder or Hub id, for an index whose queries need the network
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Evaluate a model on retrieval tasks with the metrics of MTEB
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade eval-mteb demo/model/final --data tests/data/lohelp-nb --modes sparse,bm25,hybrid
  splade eval-mteb demo/model/final --data tests/data/lohelp-nb --modes dense --dense dense-model
  splade eval-mteb --list --language nb

A task is a data folder, or a known task of mteb, whose data is downloaded at the commit that mteb uses.
Groups of tasks: MTEB(Scandinavian), its retrieval tasks; Nordic, all known tasks in Norwegian, Danish
and Swedish; NanoBEIR, thirteen small English sets (--nanobeir-dataset names a translation).")]
pub(crate) struct EvalMtebArgs {
    /// Model folder, or Hub id: owner/name or owner/name@revision
    #[arg(required_unless_present = "list")]
    pub(crate) model: Option<PathBuf>,
    /// Data folders, in BEIR layout or in the parquet layout of the Hub; also a data set in the cache of the Hub
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Names of tasks and groups: those of the data folders first, then known tasks of mteb, which are downloaded;
    /// default: all tasks of the data folders
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) tasks: Vec<String>,
    /// Data set of the group NanoBEIR, on the Hub or a folder: another language, in the same layout
    #[arg(long, value_name = "ID", default_value = NANO_BEIR_ID)]
    pub(crate) nanobeir_dataset: String,
    /// List the known tasks and exit; --language selects
    #[arg(long)]
    pub(crate) list: bool,
    /// Output folder, in the layout of mteb
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(crate) output_dir: PathBuf,
    /// Ranking modes to evaluate
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "sparse")]
    pub(crate) modes: Vec<Mode>,
    #[command(flatten)]
    pub(crate) dense: DenseArgs,
    /// Split of the judgements; default: the task's own, else test
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Option<String>,
    /// Stemmers of BM25, each a row of the table: none, norwegian (nb, nn), danish (da), swedish (sv), english (en); default:
    /// that of --tuned, else none; with --list, languages of the tasks: nb, da, ...
    #[arg(long, value_name = "LANGUAGE", value_delimiter = ',')]
    pub(crate) language: Vec<String>,
    #[command(flatten)]
    pub(crate) fusion: FusionArgs,
    #[command(flatten)]
    pub(crate) bm25: Bm25Args,
    /// Take the settings that `tune --hybrid` has written into this index, for rankings with its stemmer
    #[arg(long, value_name = "INDEX")]
    pub(crate) tuned: Option<PathBuf>,
    /// Report active dims, weights, posting lists, expansions and frequent terms of queries and documents, against the
    /// targets
    #[arg(long)]
    pub(crate) analyze_sparsity: bool,
    /// Write a report to this file: one self-contained page of HTML
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Compare with other results: a result file or a results folder of MTEB, of any version and of several models, an object
    /// of tasks and scores (.json), or a TREC run. Where both runs exist, they are tested query by query
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) baseline: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) comparison: ComparisonArgs,
    /// Model name in the results; default: `local/` and the folder's name
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) model_name: Option<String>,
    /// Score a TREC run of another system beside the modes; repeatable
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) run: Vec<String>,
    /// Write each ranking as a TREC run
    #[arg(long)]
    pub(crate) save_runs: bool,
    /// Write the sparse scores into the model card: `model-index` in README.md of the model folder
    #[arg(long)]
    pub(crate) publish: bool,
    /// Leave out of a ranking the document with the query's own id; default: for the data sets where mteb does
    /// (ArguAna, Quora, FiQA, ...)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) ignore_identical_ids: Option<bool>,
    /// Encode every text again: neither take vectors from the cache nor keep them there
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Replace existing results
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Output format; md is the whole report as Markdown
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ReportFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl EvalMtebArgs {
    /// Output format.
    pub(crate) fn format(&self) -> ReportFormat {
        if self.json { ReportFormat::Json } else { self.format }
    }
}

/// Compare all backends and files of a model, stage by stage
///
/// The reference is the checkpoint in Candle on the CPU. Every ONNX file of the folder runs in ONNX Runtime and, where it
/// has the operators, in candle-onnx. Exit code 0: all agree, 1: there is a difference.
#[cfg(feature = "train")]
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade verify demo/model/final
  splade verify demo/model/final --input texts.jsonl --role document --reference python.jsonl")]
pub(crate) struct VerifyArgs {
    /// Model folder, or Hub id
    pub(crate) model: PathBuf,
    /// Texts to compare, in any format of `encode`; default: built-in texts in Norwegian, Danish, Swedish and English
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Vectors of these texts by another implementation, in the format of `encode`, compared with every backend
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) reference: Option<PathBuf>,
    /// Side of the model that the reference vectors belong to
    #[arg(long, default_value = "document", requires = "reference")]
    pub(crate) role: Role,
    /// Largest allowed difference; default: 1e-4 in f32, more in fp16 and int8 files
    #[arg(long, value_name = "X", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) tolerance: Option<f32>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Device of the compared networks
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Number of threads; 0: all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Truncate texts to N tokens; default: as the model folder says, at most 512
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_length: Option<u32>,
    /// Tokens per batch, padding included
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_tokens: u32,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the contents of a model folder, ONNX file, index, query table, checkpoint or vector file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade inspect demo/model/final
  splade inspect demo/model/final/query_0_SparseStaticEmbedding/model.safetensors --top 20
  splade inspect vectors.jsonl --model demo/model/final")]
pub(crate) struct InspectArgs {
    /// Folder or file, or the Hub id of a model
    pub(crate) path: PathBuf,
    /// Analyse the vectors of an index: distributions of active dims, weights and posting lists, frequent terms, expansions,
    /// decoded samples
    #[arg(long)]
    pub(crate) analyze_sparsity: bool,
    /// Number of terms, operators or tensors to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// Model folder or Hub id whose tokenizer names the terms of a table or vector file
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Upload a model folder to the Hugging Face Hub
///
/// Makes the repository if there is none, and commits the files that it does not have or has otherwise. Left out are hidden
/// and temporary files, checkpoints, and the state of a training. An upload that was interrupted resumes: complete large
/// files are not sent again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade push demo/model/final owner/name --private
  splade push demo/model/final owner/name --revision candidate --message 'A longer training'

The token is that of HF_TOKEN, else the one that `hf auth login` has stored. It is sent to the Hub only.")]
pub(crate) struct PushArgs {
    /// Model folder
    pub(crate) model: PathBuf,
    /// Repository on the Hub: owner/name, or the name of one of your own
    #[arg(value_name = "REPO")]
    pub(crate) repo: String,
    /// Make the repository private; one that exists must be private already
    #[arg(long)]
    pub(crate) private: bool,
    /// Branch to commit to, which is made if there is none; default: main
    #[arg(long, value_name = "BRANCH")]
    pub(crate) revision: Option<String>,
    /// Message of the commit
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) message: Option<String>,
    /// List the files that would be uploaded, without the network
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what this machine has and lacks: ONNX Runtime, devices, processor, memory
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  splade doctor")]
pub(crate) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
