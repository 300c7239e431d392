//! The data of a training that is on the Hub: data sets, and the sets of NanoBEIR.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use splade_eval::nano_beir_set;
use splade_files::Error;
use splade_trainer::TrainConfig;
use splade_trainer::config::{Evaluator, HubPart, Strategy};

use crate::failure::bad_input;
use crate::hub::training_set::{fetch_files, fetch_split};

/// The joined data set of NanoBEIR: folders corpus, queries and qrels with a file of each set.
const NANO_BEIR: &str = "sentence-transformers/NanoBEIR-en";

/// Downloads the data sets that have no local files, and the sets of the evaluator; notes in the config where they are.
pub(super) fn find(config: &mut TrainConfig) -> Result<()> {
    for set in config.datasets.sets.iter_mut().filter(|set| set.enabled) {
        for part in &mut set.parts {
            let key = || format!("datasets.{}", set.name);
            part.files = part_files(part).with_context(key)?;
            if part.files.is_empty() && part.is_required {
                let splits = part.splits.join(" or ");
                let message = format!("datasets.{}: {} has no split {splits}", set.name, part.repository);
                return Err(bad_input(message, "name one of its splits: `split: …`"));
            }
        }
    }
    let evaluation = &mut config.evaluation;
    let is_nano_beir = evaluation.evaluator == Some(Evaluator::SparseNanobeir);
    if is_nano_beir && evaluation.data.is_empty() && config.training.eval_strategy != Strategy::No {
        let names = evaluation.nanobeir_datasets.iter().map(|name| Ok(nano_beir_set(name)?));
        let names = names.collect::<Result<Vec<&str>>>()?;
        let folder = fetch_files(NANO_BEIR, |file| is_nano_beir_file(file, &names)).context("evaluation.evaluator")?;
        evaluation.nanobeir_folder = Some(folder);
    }
    Ok(())
}

/// True for `corpus/NanoMSMARCO-00000-of-00001.parquet` and its like.
fn is_nano_beir_file(file: &str, names: &[&str]) -> bool {
    let Some((folder, name)) = file.split_once('/') else { return false };
    let is_of = |set: &&str| name.strip_prefix(set).is_some_and(|rest| rest.starts_with(['-', '.']));
    ["corpus", "queries", "qrels"].contains(&folder) && names.iter().any(is_of)
}

fn part_files(part: &HubPart) -> Result<Vec<PathBuf>> {
    if let Some(folder) = &part.folder {
        if folder.is_dir() {
            return local_split(folder, &part.splits);
        }
        tracing::info!("{}: no such folder, takes {} from the Hub", folder.display(), part.repository);
    }
    let files = fetch_split(&part.repository, part.config.as_deref(), &part.splits)?;
    Ok(files.unwrap_or_default())
}

/// The files of a folder whose names have one of these words: `translated_train.tsv`.
fn local_split(folder: &Path, splits: &[String]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let words: Vec<&str> = name.split(['_', '-', '.']).collect();
        if splits.iter().any(|split| words.contains(&split.as_str())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
