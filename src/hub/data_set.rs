//! [`DataSet`]: the splits of a data set on the Hub or in a cache, and their files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_files::Error;

use super::HubError;
use super::fetch::Fetch;
use super::id::HubId;
use super::splits::{DEFAULT, Split, splits_of};

/// A data set of an evaluation: its splits, and the files of those that are wanted.
pub(crate) struct DataSet {
    /// `owner/name`
    id: String,
    /// commit of the files
    pub(crate) commit: String,
    /// snapshot in a cache that the caller named; none for a data set of the Hub
    pub(crate) folder: Option<PathBuf>,
    splits: Vec<Split>,
}

impl DataSet {
    /// Opens a data set of the Hub at a revision: `owner/name` or `owner/name@revision`.
    ///
    /// # Errors
    /// No such data set or revision, no files that can be read, no answer.
    pub(crate) fn of_hub(id: &str) -> Result<Self> {
        let id = HubId::data_set(id)?;
        let mut repository = Repository::open(&id)?;
        let splits = repository.splits()?;
        if splits.is_empty() {
            return Err(no_files(&id).into());
        }
        let commit = repository.fetch.commit.clone();
        Ok(Self { id: id.name.clone(), commit, folder: None, splits })
    }

    /// Opens the snapshot of a data set in a cache: `datasets--owner--name/snapshots/<commit>`, or the folder above with
    /// one snapshot. None for a folder of another form.
    ///
    /// # Errors
    /// A folder with several snapshots, a README that cannot be read.
    pub(crate) fn of_cache(folder: &Path) -> Result<Option<Self>> {
        let Some((id, folder)) = snapshot(folder)? else { return Ok(None) };
        let listing = files_below(&folder);
        let readme = if listing.contains("README.md") { Some(read_readme(&folder)?) } else { None };
        let commit = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let splits = splits_of(readme.as_deref(), &listing);
        Ok(Some(Self { id, commit, folder: Some(folder), splits }))
    }

    /// `owner/name`.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The configuration `default`, else the only one.
    ///
    /// # Errors
    /// Several configurations, none of them `default`.
    pub(crate) fn default_config(&self) -> Result<&str> {
        let configs: BTreeSet<&str> = self.splits.iter().map(|split| split.config.as_str()).collect();
        match (configs.contains(DEFAULT), configs.first()) {
            (true, _) => Ok(DEFAULT),
            (false, Some(only)) if configs.len() == 1 => Ok(only),
            _ => {
                let names = Vec::from_iter(configs).join(", ");
                Err(HubError::input(format!("{}: no configuration {DEFAULT}", self.id), format!("it has {names}"))
                    .into())
            }
        }
    }

    /// Names of the splits of the first of `configs` that the data set has.
    pub(crate) fn split_names(&self, configs: &[&str]) -> Result<Vec<&str>> {
        Ok(self.of_config(configs)?.map(|split| split.split.as_str()).collect())
    }

    /// Files of a split of the first of `configs` that the data set has. As in mteb, a configuration with one split has it
    /// under any name.
    ///
    /// # Errors
    /// No such configuration or split; a download that fails.
    pub(crate) fn files(&self, configs: &[&str], split: &str) -> Result<Vec<PathBuf>> {
        let splits: Vec<&Split> = self.of_config(configs)?.collect();
        let found = match splits[..] {
            [only] => Some(only),
            _ => splits.iter().find(|known| known.split == split).copied(),
        };
        let found = found.ok_or_else(|| {
            let names: Vec<&str> = splits.iter().map(|split| split.split.as_str()).collect();
            let message = format!("{}: the configuration {} has no split {split}", self.id, configs.join(" or "));
            HubError::input(message, format!("it has {}", names.join(", ")))
        })?;
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => {
                let id = HubId::data_set(&format!("{}@{}", self.id, self.commit))?;
                let mut repository = Repository::open(&id)?;
                repository.fetch_all(&found.files)?;
                repository.folder()
            }
        };
        Ok(found.files.iter().map(|name| folder.join(name)).collect())
    }

    fn of_config<'s>(&'s self, configs: &[&str]) -> Result<impl Iterator<Item = &'s Split> + use<'s>, HubError> {
        let has = |config: &&&str| self.splits.iter().any(|split| split.config == **config);
        let Some(config) = configs.iter().find(has) else {
            let known: BTreeSet<&str> = self.splits.iter().map(|split| split.config.as_str()).collect();
            let message = format!("{}: no configuration {}", self.id, configs.join(" or "));
            return Err(HubError::input(message, format!("it has {}", Vec::from_iter(known).join(", "))));
        };
        let config = (*config).to_owned();
        Ok(self.splits.iter().filter(move |split| split.config == config))
    }
}

/// Id of a data set and the folder of its only snapshot, if `folder` is a part of a cache.
fn snapshot(folder: &Path) -> Result<Option<(String, PathBuf)>> {
    let folder = std::path::absolute(folder).map_err(Error::io(folder))?;
    let id = |folder: &Path| -> Option<String> {
        let name = folder.file_name()?.to_str()?.strip_prefix("datasets--")?;
        Some(name.replacen("--", "/", 1))
    };
    if let Some(id) = id(&folder) {
        let snapshots = folder.join("snapshots");
        let entries = std::fs::read_dir(&snapshots).map_err(Error::io(&snapshots))?;
        let found = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
        let found = found.map_err(Error::io(&snapshots))?;
        return match &found[..] {
            [only] => Ok(Some((id, only.clone()))),
            _ => {
                let message = format!("{}: has {} snapshots", folder.display(), found.len());
                Err(HubError::input(message, "name the folder of one: snapshots/<commit>").into())
            }
        };
    }
    let above = folder.parent().filter(|above| above.ends_with("snapshots")).and_then(Path::parent);
    Ok(above.and_then(id).map(|id| (id, folder)))
}

fn read_readme(folder: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&splade_files::read_file(&folder.join("README.md"))?).into_owned())
}

/// Paths of the files below a folder, with `/`; empty for a folder that cannot be listed.
fn files_below(folder: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // files of a cache are links; a linked folder could lead to a cycle
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => walk(&entry.path(), &format!("{name}/"), found),
                _ => _ = found.insert(name),
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, "", &mut found);
    found
}

/// A data set at a commit.
pub(super) struct Repository<'a> {
    pub(super) fetch: Fetch<'a>,
}

impl<'a> Repository<'a> {
    pub(super) fn open(id: &'a HubId) -> Result<Self> {
        Ok(Self { fetch: Fetch::begin(id)? })
    }

    /// The names of all files.
    pub(super) fn listing(&mut self) -> Result<BTreeSet<String>> {
        self.fetch.list()?;
        if let Some(listing) = &self.fetch.listing {
            self.fetch.repo.note_listing(&self.fetch.commit, listing);
            return Ok(listing.clone());
        }
        // a snapshot by Python has no list: what is there is taken
        let cached = files_below(&self.folder());
        if cached.is_empty() { Err(self.fetch.not_cached(Some("the list of its files")).into()) } else { Ok(cached) }
    }

    /// All splits, as the README says, else by their names.
    pub(super) fn splits(&mut self) -> Result<Vec<Split>> {
        let listing = self.listing()?;
        let readme = match listing.contains("README.md") && self.fetch.file("README.md")? {
            true => Some(read_readme(&self.folder())?),
            false => None,
        };
        Ok(splits_of(readme.as_deref(), &listing))
    }

    /// Folder of the snapshot.
    pub(super) fn folder(&self) -> PathBuf {
        self.fetch.repo.snapshot(&self.fetch.commit)
    }

    /// Downloads files that the cache lacks.
    pub(super) fn fetch_all(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            if !self.fetch.file(name)? {
                return Err(self.fetch.not_cached(Some(name)).into());
            }
        }
        if !self.fetch.id.is_commit() {
            self.fetch.repo.note_commit(&self.fetch.id.revision, &self.fetch.commit);
        }
        Ok(())
    }
}

/// Error for a data set whose files are of other kinds.
pub(super) fn no_files(id: &HubId) -> HubError {
    HubError::input(
        format!("{id}: none of its files is parquet, .jsonl or .tsv"),
        "download it and convert it, then name the files under `files`",
    )
}
