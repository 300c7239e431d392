//! `--run NAME=FILE`: rankings of another system, scored beside the model's.

use std::path::PathBuf;

use anyhow::Result;
use splade_eval::{Run, mteb_scores};

use super::FinishedTask;
use crate::cli::Mode;
use crate::failure::bad_input;
use crate::tasks::label;

/// A run that was read from a file.
pub(super) struct Imported {
    name: String,
    path: PathBuf,
    run: Run,
}

/// Reads the runs that the command line names, each as `NAME=FILE`.
///
/// # Errors
/// A name without a file, a name of a mode or of another run, a file that is no TREC run.
pub(super) fn read(named: &[String], modes: &[Mode]) -> Result<Vec<Imported>> {
    let mut found: Vec<Imported> = Vec::new();
    for named in named {
        let Some((name, path)) = named.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty())
        else {
            return Err(bad_input(format!("--run {named}: no name and file"), "give --run NAME=FILE"));
        };
        // a dense run is a common baseline, and its name is free unless this program computes one
        let taken = [Mode::Sparse, Mode::Bm25, Mode::Hybrid].into_iter().chain(modes.iter().copied());
        let is_mode = taken.into_iter().any(|mode| name.split(' ').next() == Some(mode.name()));
        if is_mode || found.iter().any(|known| known.name == name) {
            return Err(bad_input(format!("--run {named}: the name {name} is taken"), "choose another name"));
        }
        let path = PathBuf::from(path);
        found.push(Imported { name: name.to_owned(), run: Run::read_trec(&path)?, path });
    }
    Ok(found)
}

/// Scores the runs on a task. A run without a judged query of a subset has no scores there.
pub(super) fn score(task: &mut FinishedTask, imported: &[Imported]) -> Result<()> {
    for subset in &mut task.subsets {
        let judged = &subset.task.judged;
        for Imported { name, path, run } in imported {
            let missing = judged.queries.iter().filter(|query| run.ranking(&query.id).is_none()).count();
            if missing == judged.queries.len() {
                tracing::warn!("{}: {} has no query of it", label(subset.task), path.display());
                continue;
            }
            if missing > 0 {
                tracing::warn!(
                    "{}: {} lacks {missing} of {} queries, which do not count in its scores",
                    label(subset.task),
                    path.display(),
                    judged.queries.len()
                );
            }
            subset.imported.push((name.clone(), mteb_scores(&judged.qrels, run)?));
        }
    }
    Ok(())
}
