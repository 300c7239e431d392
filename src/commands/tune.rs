//! `splade tune`: settings of an index chosen by the quality of its rankings.

mod chart;
mod development;
mod hybrid;
mod pruning;
mod report;

use anyhow::Result;

use crate::cli::TuneArgs;
use crate::encoders::use_threads;

pub(crate) fn run(args: &TuneArgs) -> Result<()> {
    use_threads(args.network.threads);
    if args.hybrid { hybrid::run(args) } else { pruning::run(args) }
}
