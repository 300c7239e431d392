//! Flags of `splade eval-mteb` that would have no effect.

use anyhow::Result;

use crate::cli::{EvalMtebArgs, Mode};
use crate::failure::bad_input;

/// Refuses flags that no mode of the run reads, and modes whose flags are not there.
pub(super) fn refuse(args: &EvalMtebArgs) -> Result<()> {
    refuse_dense(args)?;
    refuse_passages(args)?;
    refuse_engine(args)
}

/// Refuses the dense mode without a model, and a model that no mode reads.
fn refuse_dense(args: &EvalMtebArgs) -> Result<()> {
    let has = |mode| args.modes.contains(&mode);
    match args.dense.dense.is_some() {
        false if has(Mode::Dense) => Err(bad_input(
            "--modes dense: no dense model",
            "give one with --dense, or the run of one with --run dense=FILE and without the mode",
        )),
        true if !has(Mode::Dense) && !has(Mode::Hybrid) => Err(bad_input(
            "--dense has no effect without the modes dense and hybrid",
            "add one of these modes, or leave it out",
        )),
        _ => Ok(()),
    }
}

/// Refuses passages without a mode whose documents have sparse vectors.
fn refuse_passages(args: &EvalMtebArgs) -> Result<()> {
    let reads = |mode: &Mode| matches!(mode, Mode::Sparse | Mode::Hybrid);
    if args.passages.is_none() || args.analyze_sparsity || args.modes.iter().any(reads) {
        return Ok(());
    }
    Err(bad_input(
        "--passages has no effect without the modes sparse and hybrid",
        "add one of these modes, or leave it out",
    ))
}

/// Refuses an engine without the mode that it answers, and the address of one that is not named.
fn refuse_engine(args: &EvalMtebArgs) -> Result<()> {
    match args.engine {
        Some(_) if !args.modes.contains(&Mode::Sparse) => {
            Err(bad_input("--engine has no effect without the mode sparse", "add it to --modes, or leave --engine out"))
        }
        None if args.at.are_given() => Err(bad_input(
            "--url, --collection, --concurrency and the credentials of an engine need --engine",
            "name the engine, or leave them out",
        )),
        _ => Ok(()),
    }
}
