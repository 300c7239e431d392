//! Flags of BM25 and of fusions, which `search` and `eval-mteb` share.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use splade_core::{Fusion, Scaling};

use super::values::at_least_one;

/// Weights of rankings that are fused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RankingWeights {
    pub(crate) sparse: f32,
    pub(crate) bm25: f32,
    pub(crate) dense: Option<f32>,
}

/// Fusion of the rankings.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FusionArgs {
    /// Fusion of the rankings in hybrid mode; default: as tuned for the index, else weighted (in
    /// engines rrf)
    #[arg(long, value_name = "FUSION", value_parser = PossibleValuesParser::new(Fusion::NAMES))]
    pub(crate) fusion: Option<String>,
    /// Scaling of scores before they are added up, for --fusion weighted; default: as tuned for the index, else z-score
    #[arg(long, value_name = "SCALING", value_parser = scaling())]
    pub(crate) scaling: Option<Scaling>,
    /// Constant k of reciprocal rank fusion; default: as tuned for the index, else 60
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) rrf_k: Option<f32>,
    /// Weights of the sparse and the BM25 ranking, and of a dense one; default: as tuned for the index, else equal weights
    #[arg(long, value_name = "SPARSE,BM25[,DENSE]", allow_hyphen_values = true, value_parser = weights)]
    pub(crate) weights: Option<RankingWeights>,
    /// Number of hits taken from each ranking before fusion; default: as tuned for the index, else 1000 (in
    /// engines 100)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) depth: Option<usize>,
}

/// Options of BM25.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Bm25Args {
    /// Saturation of term frequencies in BM25; default: as tuned for the index, else 1.2
    #[arg(long, value_name = "K1", allow_negative_numbers = true)]
    pub(crate) bm25_k1: Option<f32>,
    /// Normalization by length in BM25, 0 to 1; default: as tuned for the index, else 0.75
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    pub(crate) bm25_b: Option<f32>,
    /// Let BM25 match compounds and their parts, which come from the words of the index; default: as tuned for the index,
    /// else on for Norwegian, Danish and Swedish
    #[arg(long, value_name = "SWITCH")]
    pub(crate) bm25_compounds: Option<Switch>,
    /// Drop the stop words of the index's language from BM25's queries; default: as tuned for the index, else off
    #[arg(long, value_name = "SWITCH")]
    pub(crate) bm25_drop_stop_words: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// Parser of scalings, with their names for help and errors.
fn scaling() -> impl clap::builder::TypedValueParser<Value = Scaling> {
    use clap::builder::TypedValueParser as _;
    PossibleValuesParser::new(Scaling::NAMES).try_map(|name| name.parse::<Scaling>())
}

/// Parses the weights of two rankings or three.
fn weights(text: &str) -> Result<RankingWeights, String> {
    let numbers = text.split(',').map(|number| number.trim().parse::<f32>());
    let numbers = numbers.collect::<Result<Vec<_>, _>>().unwrap_or_default();
    let (sparse, bm25, dense) = match numbers[..] {
        [sparse, bm25] => (sparse, bm25, None),
        [sparse, bm25, dense] => (sparse, bm25, Some(dense)),
        _ => return Err("expected two numbers, like 0.7,0.3, or three with a dense ranking".to_owned()),
    };
    if numbers.iter().all(|weight| *weight == 0.0) {
        return Err("expected a weight that is not 0".to_owned());
    }
    Ok(RankingWeights { sparse, bm25, dense })
}
