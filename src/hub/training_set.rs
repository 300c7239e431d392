//! [`fetch_split`]: the files of one split of a data set, for a training.
//!
//! A data set whose own files are of other kinds has parquet files on the branch `refs/convert/parquet`, which the Hub
//! makes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;

use super::data_set::{Repository, no_files};
use super::id::HubId;
use super::splits::{DEFAULT, Split};
use super::{HubError, is_offline};

/// The branch of the parquet files that the Hub makes.
const CONVERTED: &str = "refs/convert/parquet";

/// Downloads the files of a split: of the first of `splits` that the data set has. None if it has none of them.
///
/// # Errors
/// No such data set or configuration, a configuration that has to be named, a download that fails.
pub(crate) fn fetch_split(id: &str, config: Option<&str>, splits: &[String]) -> Result<Option<Vec<PathBuf>>> {
    let id = HubId::data_set(id)?;
    let mut own = Repository::open(&id)?;
    let found = own.splits()?;
    if !found.is_empty() {
        return fetch_one(&mut own, &found, config, splits);
    }
    if id.revision == CONVERTED {
        return Err(no_files(&id).into());
    }
    let converted = HubId { revision: CONVERTED.to_owned(), ..id.clone() };
    let mut repository = Repository::open(&converted).map_err(|error| {
        let is_unknown = is_offline() || error.downcast_ref::<HubError>().is_some_and(HubError::is_outage);
        // the Hub answers that there is no such branch
        if is_unknown { error } else { no_files(&id).into() }
    })?;
    let found = repository.splits()?;
    if found.is_empty() { Err(no_files(&id).into()) } else { fetch_one(&mut repository, &found, config, splits) }
}

/// Downloads the files of a data set whose names are wanted, and returns its folder.
///
/// # Errors
/// No such data set, a download that fails.
pub(crate) fn fetch_files(id: &str, is_wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let id = HubId::data_set(id)?;
    let mut repository = Repository::open(&id)?;
    let wanted: Vec<String> = repository.listing()?.into_iter().filter(|name| is_wanted(name)).collect();
    repository.fetch_all(&wanted)?;
    Ok(repository.folder())
}

fn fetch_one(
    repository: &mut Repository<'_>,
    found: &[Split],
    config: Option<&str>,
    splits: &[String],
) -> Result<Option<Vec<PathBuf>>> {
    let Some(split) = choose(repository.fetch.id, found, config, splits)? else { return Ok(None) };
    repository.fetch_all(&split.files)?;
    let folder = repository.folder();
    Ok(Some(split.files.iter().map(|name| folder.join(name)).collect()))
}

/// The split that is meant; none if the configuration has none of these names.
fn choose<'s>(
    id: &HubId,
    found: &'s [Split],
    config: Option<&str>,
    splits: &[String],
) -> Result<Option<&'s Split>, HubError> {
    let configs: BTreeSet<&str> = found.iter().map(|split| split.config.as_str()).collect();
    let names = || configs.iter().copied().collect::<Vec<_>>().join(", ");
    let config = match config {
        Some(config) if configs.contains(config) => config,
        Some(config) => {
            return Err(HubError::input(format!("{id}: no configuration {config}"), format!("it has {}", names())));
        }
        None if configs.contains(DEFAULT) => DEFAULT,
        None if configs.len() == 1 => configs.first().copied().unwrap_or(DEFAULT),
        None => {
            let hint = format!("give one of {} as `config`", names());
            return Err(HubError::input(format!("{id}: has several configurations"), hint));
        }
    };
    let of_config = || found.iter().filter(|split| split.config == config);
    Ok(splits.iter().find_map(|name| of_config().find(|split| split.split == *name)))
}

#[cfg(test)]
mod tests {
    use super::super::splits::splits_of;
    use super::*;

    #[test]
    fn the_configuration_is_the_one_named_or_the_only_one() {
        let id = HubId::data_set("a/b").unwrap();
        let splits = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = splits_of(None, &listing(&["nb/train.jsonl", "nb/validation.jsonl", "nn/train.jsonl"]));
        let chosen = choose(&id, &found, Some("nb"), &splits(&["dev", "validation"])).unwrap().unwrap();
        assert_eq!(chosen.files, ["nb/validation.jsonl"]);
        assert_eq!(choose(&id, &found, Some("nb"), &splits(&["test"])).unwrap(), None);
        for (config, message) in [(Some("sv"), "a/b: no configuration sv"), (None, "a/b: has several configurations")] {
            assert_eq!(choose(&id, &found, config, &splits(&["train"])).unwrap_err().to_string(), message);
        }
    }

    fn listing(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }
}
