//! [`fetch`]: the files of a revision that make a model, downloaded into the cache.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use splade_files::{
    Architecture, CHECKPOINT_NAMES, Error, ModelDir, ModelLayout, ONNX_FILES, Precision, is_index, join, shard_names,
};

use super::cache::{Repo, check_name};
use super::client::{Client, Revision};
use super::download::{Download, patiently};
use super::id::HubId;
use super::{HubError, Origin, Place, Wants, cache_dir, is_offline};

/// Model folder of an id: files of the cache that are still current, and the rest from the Hub.
///
/// A cached commit needs no request; a branch or tag needs one, for its current commit. If the Hub does not answer, the
/// cached files are used as they are, with a warning.
pub(super) fn fetch(id: &HubId, wants: Wants) -> Result<Place> {
    let mut fetch = Fetch::begin(id)?;
    fetch.model(wants)?;
    if !id.is_commit() {
        // only now: a ref is for a snapshot that is whole
        fetch.repo.note_commit(&id.revision, &fetch.commit);
    }
    let folder = fetch.repo.snapshot(&fetch.commit);
    let origin = Origin { id: id.name.clone(), commit: fetch.commit, files: fetch.files };
    Ok(Place { folder, origin: Some(origin) })
}

struct Fetch<'a> {
    id: &'a HubId,
    repo: Repo,
    commit: String,
    /// none while offline
    client: Option<Client>,
    /// why there is none, if nobody ordered it
    outage: Option<HubError>,
    /// the names of all files of the commit, once they are known
    listing: Option<BTreeSet<String>>,
    /// those wanted that are there
    files: Vec<String>,
}

impl<'a> Fetch<'a> {
    fn begin(id: &'a HubId) -> Result<Self> {
        let repo = Repo::new(&cache_dir(), &id.name);
        let client = if is_offline() { None } else { Some(Client::new()?) };
        let (commit, files) = (String::new(), Vec::new());
        let mut fetch = Self { id, repo, commit, client, outage: None, listing: None, files };
        fetch.commit = fetch.find_commit()?;
        if fetch.listing.is_none() {
            fetch.listing = fetch.repo.listing(&fetch.commit);
        }
        Ok(fetch)
    }

    /// The commit that is meant: of a branch or tag, what the Hub says, or said when it was last asked.
    fn find_commit(&mut self) -> Result<String> {
        if self.id.is_commit() {
            return Ok(self.id.revision.clone());
        }
        let cached = self.repo.commit_of(&self.id.revision);
        let Some(client) = &self.client else { return Ok(cached.ok_or_else(|| self.not_cached(None))?) };
        // with something cached there is no reason to wait
        let again = if cached.is_some() { |_: &HubError| false } else { HubError::is_busy };
        match patiently(again, || client.revision(self.id, &self.id.revision)) {
            Ok(Revision { commit, files }) => {
                self.listing = Some(files);
                Ok(commit)
            }
            Err(error) => {
                let commit = cached.filter(|_| error.is_outage()).ok_or_else(|| error.clone())?;
                self.go_on_without(error);
                Ok(commit)
            }
        }
    }

    fn go_on_without(&mut self, error: HubError) {
        tracing::warn!("{}; taking {} as it is cached", error.brief(), self.id);
        self.client = None;
        self.outage = Some(error);
    }

    /// Fetches all files of the model that `wants` names, small ones first: an unsupported model costs no large download.
    fn model(&mut self, wants: Wants) -> Result<()> {
        let model = self.small_files().and_then(|()| Ok(ModelDir::open(&self.repo.snapshot(&self.commit))?));
        let model = model.map_err(|error| match self.client {
            // what looks broken may only be incomplete
            None if error.is::<Error>() => error.context(format!("{}, as far as it is cached", self.id)),
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

    /// The layout of the model, with its small files in the snapshot.
    fn small_files(&mut self) -> Result<()> {
        if !self.file("modules.json")? && !self.file("config.json")? {
            return Err(match self.client {
                None => self.not_cached(None),
                Some(_) => HubError::input(
                    format!("{}: no model for this program: it has neither modules.json nor config.json", self.id),
                    "give a masked-language model such as ltg/norbert3-xs, or a SPLADE model",
                ),
            }
            .into());
        }
        let snapshot = self.repo.snapshot(&self.commit);
        ModelLayout::find(&snapshot, |name| self.file(name))?;
        Ok(())
    }

    /// The ONNX file an encoder would take, and the file with its values if they lie apart.
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

    /// The checkpoint in one file, or the index of its shards and every shard.
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
            "weights of other frameworks are not read; where it has ONNX files, --backend onnx may do",
        )
    }

    /// Whether the commit has this file, which then is in the snapshot.
    ///
    /// While offline, a file nothing is known about counts as one there is not.
    fn file(&mut self, name: &str) -> Result<bool> {
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

    fn have(&mut self, name: &str) -> bool {
        if !self.files.iter().any(|file| file == name) {
            self.files.push(name.to_owned());
        }
        true
    }

    /// Asks which files the commit has, unless that is known or cannot be known.
    fn list(&mut self) -> Result<()> {
        let Some(client) = self.client.as_ref().filter(|_| self.listing.is_none()) else { return Ok(()) };
        let is_cached = self.repo.snapshot(&self.commit).is_dir();
        let again = if is_cached { |_: &HubError| false } else { HubError::is_busy };
        match patiently(again, || client.revision(self.id, &self.commit)) {
            Ok(revision) => self.listing = Some(revision.files),
            Err(error) if error.is_outage() && is_cached => self.go_on_without(error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The model, or a part of it, is missing, and nobody can be asked for it.
    fn not_cached(&self, what: Option<&str>) -> HubError {
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
