//! [`fetch`]: download of the files of a model that the cache lacks.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use splade_files::{
    Architecture, CHECKPOINT_NAMES, DENSE_ONNX_FILES, DenseModelDir, Error, ModelDir, ModelLayout, ONNX_FILES,
    Precision, is_index, join, shard_names,
};

use super::cache::{Repo, check_name};
use super::client::{Client, Revision};
use super::download::{Download, with_retries};
use super::id::HubId;
use super::{HubError, Origin, Place, Wants, cache_dir, is_offline};

/// Downloads the files of a model that the cache lacks, and returns its folder in the cache.
///
/// A cached commit needs no request; a branch or tag needs one, for its current commit. If the Hub does not answer, the
/// cached files are used as they are, with a warning.
pub(super) fn fetch(id: &HubId, wants: Wants) -> Result<Place> {
    let mut fetch = Fetch::begin(id)?;
    fetch.model(wants)?;
    if !id.is_commit() {
        // last, since a ref stands for a complete snapshot
        fetch.repo.note_commit(&id.revision, &fetch.commit);
    }
    let folder = fetch.repo.snapshot(&fetch.commit);
    let origin = Origin { id: id.name.clone(), commit: fetch.commit, files: fetch.files };
    Ok(Place { folder, origin: Some(origin) })
}

/// Downloads the files of a dense model that the cache lacks, and opens its folder in the cache.
pub(super) fn fetch_dense(id: &HubId) -> Result<DenseModelDir> {
    let mut fetch = Fetch::begin(id)?;
    let snapshot = fetch.repo.snapshot(&fetch.commit);
    let model = DenseModelDir::find(&snapshot, |name| fetch.file(name))?;
    let folder = model.transformer_dir().strip_prefix(model.root()).unwrap_or(Path::new(""));
    let folder = folder.to_string_lossy().into_owned();
    for name in DENSE_ONNX_FILES {
        let name = join(&folder, name);
        if fetch.file(&name)? {
            fetch.file(&format!("{name}_data"))?;
            break;
        }
    }
    if !id.is_commit() {
        // last, since a ref stands for a complete snapshot
        fetch.repo.note_commit(&id.revision, &fetch.commit);
    }
    Ok(model)
}

pub(super) struct Fetch<'a> {
    pub(super) id: &'a HubId,
    pub(super) repo: Repo,
    pub(super) commit: String,
    /// none while offline
    client: Option<Client>,
    /// why there is no client; none if the user forbade the network
    outage: Option<HubError>,
    /// names of all files of the commit, once they are known
    pub(super) listing: Option<BTreeSet<String>>,
    /// names of the files that are wanted and in the snapshot
    files: Vec<String>,
}

impl<'a> Fetch<'a> {
    pub(super) fn begin(id: &'a HubId) -> Result<Self> {
        let repo = Repo::new(&cache_dir(), id.kind, &id.name);
        let client = if is_offline() { None } else { Some(Client::new()?) };
        let (commit, files) = (String::new(), Vec::new());
        let mut fetch = Self { id, repo, commit, client, outage: None, listing: None, files };
        fetch.commit = fetch.find_commit()?;
        if fetch.listing.is_none() {
            fetch.listing = fetch.repo.listing(&fetch.commit);
        }
        Ok(fetch)
    }

    /// Commit of the revision. For a branch or tag it is requested; if the Hub does not answer, it is the cached one.
    fn find_commit(&mut self) -> Result<String> {
        if self.id.is_commit() {
            return Ok(self.id.revision.clone());
        }
        let cached = self.repo.commit_of(&self.id.revision);
        let Some(client) = &self.client else { return Ok(cached.ok_or_else(|| self.not_cached(None))?) };
        // a cached commit can be used at once
        let again = if cached.is_some() { |_: &HubError| false } else { HubError::is_busy };
        match with_retries(again, || client.revision(self.id, &self.id.revision)) {
            Ok(Revision { commit, files }) => {
                self.listing = Some(files);
                Ok(commit)
            }
            Err(error) => {
                let commit = cached.filter(|_| error.is_outage()).ok_or_else(|| error.clone())?;
                self.use_cache_only(error);
                Ok(commit)
            }
        }
    }

    fn use_cache_only(&mut self, error: HubError) {
        tracing::warn!("{}; using the cached files of {}", error.brief(), self.id);
        self.client = None;
        self.outage = Some(error);
    }

    /// Downloads the files of the model that `wants` names. Small files come first: an unsupported model costs no large
    /// download.
    fn model(&mut self, wants: Wants) -> Result<()> {
        let model = self.small_files().and_then(|()| Ok(ModelDir::open(&self.repo.snapshot(&self.commit))?));
        let model = model.map_err(|error| match self.client {
            // an incomplete cache may look like a broken model
            None if error.is::<Error>() => error.context(format!("cached files of {}", self.id)),
            _ => error,
        })?;
        if wants.only_queries && model.architecture() == Architecture::InferenceFree {
            return Ok(());
        }
        let folder = model.transformer_dir().strip_prefix(model.root()).unwrap_or(Path::new(""));
        let folder = folder.to_string_lossy().into_owned();
        let has_onnx = match wants.onnx {
            Some(precision) => self.onnx_file(&folder, precision)?,
            None => false,
        };
        if wants.weights {
            #[cfg(feature = "train")]
            if !has_onnx {
                check_config(&model)?;
            }
            if !self.weights(&folder)? && !has_onnx {
                return Err(self.no_weights().into());
            }
        }
        Ok(())
    }

    /// Downloads the small files of the model.
    fn small_files(&mut self) -> Result<()> {
        if !self.file("modules.json")? && !self.file("config.json")? {
            return Err(match self.client {
                None => self.not_cached(None),
                Some(_) => HubError::input(
                    format!("{}: not a model that can be read: it has neither modules.json nor config.json", self.id),
                    "give a masked-language model such as ltg/norbert3-xs, or a SPLADE model",
                ),
            }
            .into());
        }
        let snapshot = self.repo.snapshot(&self.commit);
        ModelLayout::find(&snapshot, |name| self.file(name))?;
        Ok(())
    }

    /// Downloads the ONNX file that an encoder selects, with its external data. False if there is none.
    fn onnx_file(&mut self, folder: &str, precision: Precision) -> Result<bool> {
        for name in ONNX_FILES {
            let name = join(folder, &precision.file_name(name));
            if self.file(&name)? {
                self.file(&format!("{name}_data"))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Downloads the checkpoint: one file, or an index and its shards. False if there is none.
    fn weights(&mut self, folder: &str) -> Result<bool> {
        for name in CHECKPOINT_NAMES {
            let name = join(folder, name);
            if !self.file(&name)? {
                continue;
            }
            if is_index(Path::new(&name)) {
                let names = shard_names(&self.repo.snapshot(&self.commit).join(&name))?;
                for shard in names.into_values().collect::<BTreeSet<_>>() {
                    if self.file(&join(folder, &shard))? {
                        continue;
                    }
                    if self.client.is_none() {
                        return Err(self.not_cached(Some(&shard)).into());
                    }
                    return Err(HubError::input(
                        format!("{}: the shard {shard} that {name} names is not among its files", self.id),
                        "give another revision, or ask its authors to upload the shard",
                    )
                    .into());
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn no_weights(&self) -> HubError {
        if self.client.is_none() {
            return self.not_cached(Some("its weights"));
        }
        HubError::input(
            format!("{}: no weights: neither model.safetensors nor pytorch_model.bin among its files", self.id),
            "weights of other frameworks cannot be read; if the model has ONNX files, try --backend onnx",
        )
    }

    /// True if the commit has this file, which is then in the snapshot.
    ///
    /// Without a client and a list of files, a file that is not cached counts as absent.
    pub(super) fn file(&mut self, name: &str) -> Result<bool> {
        check_name(name)?;
        if self.repo.snapshot(&self.commit).join(name).is_file() {
            return Ok(self.have(name));
        }
        if self.repo.is_absent(&self.commit, name) {
            return Ok(false);
        }
        self.list()?;
        let Some(listing) = &self.listing else { return Ok(false) };
        if !listing.contains(name) {
            self.repo.note_absent(&self.commit, name);
            return Ok(false);
        }
        let Some(client) = &self.client else { return Err(self.not_cached(Some(name)).into()) };
        Download { client, repo: &self.repo, id: self.id, commit: &self.commit, file: name }.run()?;
        Ok(self.have(name))
    }

    /// Records a file of the snapshot. Returns true.
    fn have(&mut self, name: &str) -> bool {
        if !self.files.iter().any(|file| file == name) {
            self.files.push(name.to_owned());
        }
        true
    }

    /// Requests the names of the commit's files, unless they are known or there is no client.
    pub(super) fn list(&mut self) -> Result<()> {
        let Some(client) = self.client.as_ref().filter(|_| self.listing.is_none()) else { return Ok(()) };
        let is_cached = self.repo.snapshot(&self.commit).is_dir();
        let again = if is_cached { |_: &HubError| false } else { HubError::is_busy };
        match with_retries(again, || client.revision(self.id, &self.commit)) {
            Ok(revision) => self.listing = Some(revision.files),
            Err(error) if error.is_outage() && is_cached => self.use_cache_only(error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Error for a model or data set, or its part `what`, that is not cached while there is no client.
    pub(super) fn not_cached(&self, what: Option<&str>) -> HubError {
        match self.outage.clone() {
            Some(outage) => outage.and_not_cached(self.id, what),
            None => HubError::offline(self.id, what),
        }
    }
}

/// Refuses an unsupported network before its weights are downloaded. An unknown key is accepted here: the caller may
/// state that it changes nothing.
#[cfg(feature = "train")]
fn check_config(model: &ModelDir) -> Result<()> {
    use splade_trainer::model::TransformerConfig;
    match TransformerConfig::of(model) {
        Err(error) if !error.unknown_config_keys().is_empty() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
