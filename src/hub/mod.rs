//! [`open`]: a model by the folder it lies in, or by its id on the Hugging Face Hub.
//!
//! A path that exists always wins; what else looks like `owner/name` or `owner/name@revision` is looked up on the Hub
//! and kept in the cache that Python's huggingface_hub keeps, so that each finds what the other downloaded. Only what a
//! command reads is fetched, and the folder handed on is an ordinary model folder: nothing below this module knows
//! where it came from.
//!
//! `id` says what an id is, `cache` where files lie, `client` what is asked over the network and what the answers mean,
//! `download` how one file arrives, `fetch` which files a model needs.
//!
//! Why not the crate hf-hub: its 1.0 starts every broken download from the beginning, tries nothing again once a body
//! has begun, compares no checksum and knows no offline mode, which is most of what is asked of this module; and it
//! brings the whole of Xet, tokio and reqwest (166 further crates) where ureq, which is all that was missing, brings 14.

mod cache;
mod client;
mod download;
mod error;
mod fetch;
mod id;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use splade_files::{AtomicFolder, Error, ModelDir, Precision};

use error::HubError;
use id::HubId;

use crate::cli::{Backend, NetworkArgs};
use crate::environment;
use crate::failure::bad_input;

/// Which of a model's large files a command will read; the small ones always come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    /// the checkpoint
    pub(crate) weights: bool,
    /// the ONNX file of this precision, where there is one
    pub(crate) onnx: Option<Precision>,
    /// queries alone: where they need no network, neither of the two
    pub(crate) only_queries: bool,
}

impl Wants {
    /// The checkpoint and no ONNX files.
    pub(crate) const CHECKPOINT: Self = Self { weights: true, onnx: None, only_queries: false };

    /// What an encoder of this backend reads.
    pub(crate) fn encoder(args: &NetworkArgs) -> Self {
        let onnx = (args.backend != Backend::Candle).then(|| args.precision.into());
        Self { weights: args.backend != Backend::Onnx, onnx, only_queries: false }
    }

    /// The same for the query side only.
    pub(crate) fn only_queries(self) -> Self {
        Self { only_queries: true, ..self }
    }

    /// The same and the checkpoint, which a model's fingerprint is made of.
    pub(crate) fn and_weights(self) -> Self {
        Self { weights: true, ..self }
    }
}

/// A model folder, and where it came from if that was the Hub.
#[derive(Debug)]
pub(crate) struct Place {
    /// the folder given, or a snapshot in the cache, which is not ours to write into
    pub(crate) folder: PathBuf,
    /// of a model of the Hub
    pub(crate) origin: Option<Origin>,
}

/// Which model of the Hub a snapshot is.
#[derive(Debug)]
pub(crate) struct Origin {
    /// `owner/name`
    pub(crate) id: String,
    /// its commit
    pub(crate) commit: String,
    /// the files that were wanted and are there
    #[cfg_attr(not(feature = "train"), allow(dead_code))] // only an export copies them
    files: Vec<String>,
}

/// The model folder of `model`: itself, or what the cache holds or the Hub sends for an id.
pub(crate) fn open(model: &Path, wants: Wants) -> Result<ModelDir> {
    Ok(ModelDir::open(&locate(model, wants)?.folder)?)
}

/// The same, not looked into, with its origin.
pub(crate) fn locate(model: &Path, wants: Wants) -> Result<Place> {
    if model.exists() {
        return Ok(Place { folder: model.to_owned(), origin: None });
    }
    match model.to_str().map(HubId::parse).transpose()?.flatten() {
        Some(id) => fetch::fetch(&id, wants),
        None => Err(bad_input(
            format!("{}: no such folder", model.display()),
            "give the folder of a model, or a Hub id such as ltg/norbert3-xs",
        )),
    }
}

impl Place {
    /// A folder of this model that can be written into: itself, or for a model of the Hub a copy in the working folder
    /// under the model's name.
    #[cfg_attr(not(feature = "train"), allow(dead_code))] // only an export writes
    pub(crate) fn into_writable(self) -> Result<PathBuf> {
        let Some(origin) = &self.origin else { return Ok(self.folder) };
        let name = origin.id.rsplit('/').next().unwrap_or(&origin.id);
        let copy = PathBuf::from(name);
        if copy.exists() {
            return Err(bad_input(
                format!("{name}: exists already, and a copy of {} would go there", origin.id),
                format!("give {name} as the model if it is that copy, or --output DIR"),
            ));
        }
        let folder = AtomicFolder::create(&copy)?;
        for file in &origin.files {
            let (from, to) = (self.folder.join(file), folder.path().join(file));
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
            }
            std::fs::copy(&from, &to).map_err(Error::io(&to))?;
        }
        folder.commit()?;
        tracing::info!("{name}: a copy of {}, commit {}", origin.id, origin.commit);
        Ok(copy)
    }
}

static OFFLINE: AtomicBool = AtomicBool::new(false);

/// No network from here on: what `--offline` says.
pub(crate) fn go_offline() {
    OFFLINE.store(true, Ordering::SeqCst);
}

/// Whether the network is forbidden, by `--offline` or by `HF_HUB_OFFLINE`.
pub(crate) fn is_offline() -> bool {
    OFFLINE.load(Ordering::SeqCst) || environment::flag("HF_HUB_OFFLINE") || environment::flag("TRANSFORMERS_OFFLINE")
}

/// Where models of the Hub are kept: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `~/.cache/huggingface`.
pub(crate) fn cache_dir() -> PathBuf {
    let named = environment::path("HF_HUB_CACHE").or_else(|| environment::path("HUGGINGFACE_HUB_CACHE"));
    named.unwrap_or_else(|| hub_home().join("hub"))
}

/// The Hub's address: `HF_ENDPOINT`, else the public one.
pub(crate) fn endpoint() -> String {
    let named = environment::text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    named.trim_end_matches('/').to_owned()
}

/// Whether there is a token to show to the Hub.
pub(crate) fn has_token() -> bool {
    token().is_some()
}

/// The user's token: `HF_TOKEN`, else what `hf auth login` stored.
fn token() -> Option<String> {
    if environment::flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let stored = || {
        let path = environment::path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home().join("token"));
        std::fs::read_to_string(path).ok()
    };
    let token =
        environment::text("HF_TOKEN").or_else(|| environment::text("HUGGING_FACE_HUB_TOKEN")).or_else(stored)?;
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// `HF_HOME`, else `huggingface` in the user's cache folder.
fn hub_home() -> PathBuf {
    environment::path("HF_HOME").unwrap_or_else(|| {
        let caches = environment::path("XDG_CACHE_HOME");
        caches.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache")).join("huggingface")
    })
}
