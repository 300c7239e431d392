//! Commands and flags, as typed.

mod dense;
mod encode;
mod engines;
mod eval_mteb;
mod eval_run;
mod export_vectors;
mod index;
#[cfg(feature = "train")]
mod mine;
mod models;
mod network;
mod pages;
mod ranking;
mod search;
#[cfg(feature = "serve")]
mod serve;
mod shard;
#[cfg(feature = "train")]
mod train;
mod tune;
mod values;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use dense::{DenseArgs, DenseSearchArgs};
pub(crate) use encode::{EncodeArgs, Role, VectorFormat};
pub(crate) use engines::{CollectionArgs, EngineArgs, EngineKind, FieldType, PushIndexArgs};
pub(crate) use eval_mteb::EvalMtebArgs;
pub(crate) use eval_run::{ComparisonArgs, EvalRunArgs, ReportFormat};
pub(crate) use export_vectors::{ExportFormat, ExportKeys, ExportVectorsArgs};
pub(crate) use index::IndexArgs;
#[cfg(feature = "train")]
pub(crate) use mine::MineArgs;
pub(crate) use models::{InspectArgs, PushArgs};
pub(crate) use network::{Backend, DeviceChoice, NetworkArgs, PruneArgs, ReadingArgs};
pub(crate) use pages::{CompletionsArgs, ManArgs};
pub(crate) use ranking::{Bm25Args, FusionArgs, RankingWeights, Switch};
pub(crate) use search::{ColorChoice, HitFormat, Mode, SearchArgs};
#[cfg(feature = "serve")]
pub(crate) use serve::{NamedIndex, ServeArgs};
pub(crate) use shard::{MergeArgs, ShardArgs};
#[cfg(feature = "train")]
pub(crate) use train::{ExportOnnxArgs, HeadChoice, TrainArgs, VerifyArgs};
pub(crate) use tune::TuneArgs;

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
    ExportVectors(ExportVectorsArgs),
    Merge(MergeArgs),
    Search(SearchArgs),
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    #[cfg(feature = "train")]
    Mine(MineArgs),
    EvalMteb(EvalMtebArgs),
    EvalRun(EvalRunArgs),
    Tune(TuneArgs),
    #[cfg(feature = "train")]
    Verify(VerifyArgs),
    Inspect(InspectArgs),
    Push(PushArgs),
    PushIndex(PushIndexArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Show what this machine has and lacks: ONNX Runtime, devices, processor, memory
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  splade doctor")]
pub(crate) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
