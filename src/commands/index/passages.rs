//! `--passages`: documents split into passages, each encoded on its own.

use anyhow::Result;
use splade_core::PassageLength;
use splade_index::ImpactIndex;

use crate::cli::IndexArgs;
use crate::failure::bad_input;

/// Refuses `--passages` if documents of the index have others, and ready vectors if they have any.
pub(super) fn expect_same(index: &ImpactIndex, args: &IndexArgs) -> Result<()> {
    let show = |length: Option<PassageLength>| length.map_or("none".to_owned(), |length| length.to_string());
    let dir = args.index().display();
    match (index.settings().passages, args.passages) {
        (old, new @ Some(_)) if old != new => Err(bad_input(
            format!("{dir}: made with the passages {}, not {}", show(old), show(new)),
            "leave --passages out, or make the index anew",
        )),
        (Some(_), _) if args.vectors.is_some() => Err(bad_input(
            format!("{dir}: made with passages, and --vectors has vectors of whole documents"),
            "give the documents alone; they are encoded",
        )),
        _ => Ok(()),
    }
}
