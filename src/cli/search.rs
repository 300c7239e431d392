//! Flags of `search`, and the modes of ranking.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::values::at_least_one;
use super::{Bm25Args, DenseSearchArgs, EngineArgs, EngineKind, FusionArgs, NetworkArgs, PruneArgs};

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
  splade search --index wiki.index snø --engine qdrant --url http://localhost:6333 --collection nb

The queries of a file are answered on all threads, one thread each, and printed in their order.
Pruning (--max-active-dims, --min-weight, --mass) is of the query's vector.
Snippets in JSON have positions in characters (code points) of the hit's text.")]
pub(crate) struct SearchArgs {
    /// Index folder; with --engine, the index that was pushed, whose query table encodes the queries
    #[arg(long, value_name = "DIR", required_unless_present = "engine")]
    index: Option<PathBuf>,
    /// Search a collection that `push-index` has made, instead of an index
    #[arg(long, value_name = "ENGINE", requires_all = ["url", "collection"])]
    pub(crate) engine: Option<EngineKind>,
    #[command(flatten)]
    pub(crate) at: EngineArgs,
    /// Print the request to the engine instead of sending it
    #[arg(long, requires = "engine")]
    pub(crate) show_query: bool,
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
    /// Model folder or Hub id, for models whose queries need the network, and for engines without --index
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl SearchArgs {
    /// Index to search.
    pub(crate) fn index(&self) -> &Path {
        self.index.as_deref().expect("clap requires --index unless --engine is given")
    }

    /// Index of the query table of an engine's collection, if it is given.
    pub(crate) fn index_of_queries(&self) -> Option<&Path> {
        self.index.as_deref()
    }
}

/// Ranking mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
#[cfg_attr(feature = "serve", derive(serde::Deserialize, serde::Serialize, utoipa::ToSchema))]
#[cfg_attr(feature = "serve", serde(rename_all = "lowercase"))]
pub(crate) enum Mode {
    Sparse,
    Bm25,
    Dense,
    Hybrid,
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

/// Parser of the modes that need no dense ranking.
#[cfg(feature = "train")]
pub(super) fn mode_without_dense() -> impl clap::builder::TypedValueParser<Value = Mode> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    let modes = Mode::value_variants().iter().filter(|mode| **mode != Mode::Dense).map(|mode| mode.name());
    PossibleValuesParser::new(modes).try_map(|name| Mode::from_str(&name, false))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HitFormat {
    Table,
    Json,
    Trec,
}

/// Use of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}
