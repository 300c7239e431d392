//! [`open`]: a model by its folder, or by its id on the Hugging Face Hub.
//!
//! A path that exists is a folder. Any other text of the form `owner/name` or `owner/name@revision` is an id of the Hub.
//! Files of the Hub are kept in the cache of Python's huggingface_hub, so that each program finds the files that the other
//! downloaded. Only the files that a command reads are downloaded. The result is an ordinary model folder: the rest of the
//! program does not depend on where a model came from.
//!
//! `id` parses ids, `cache` has the layout of the cache, `client` sends requests and reads answers, `download` downloads
//! one file, `fetch` selects the files of a model, `data_set` and `training_set` those of a data set,
//! whose splits `splits` finds. `push` uploads a model.
//!
//! The crate hf-hub is not used: version 1.0 starts a broken download from the beginning, does not retry once a body has
//! begun, compares no checksums and has no offline mode. It also depends on Xet, tokio and reqwest (166 further crates);
//! ureq adds 14.

mod cache;
mod client;
pub(crate) mod data_set;
mod download;
mod error;
mod fetch;
mod id;
pub(crate) mod push;
mod splits;
#[cfg(feature = "train")]
pub(crate) mod training_set;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use splade_files::{AtomicFolder, DenseModelDir, Error, ModelDir, Precision};

use error::HubError;
use id::HubId;

use crate::cli::{Backend, NetworkArgs};
use crate::environment;
use crate::failure::bad_input;

/// Large files of a model that a command reads. Small files are always downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    /// the checkpoint
    pub(crate) weights: bool,
    /// the ONNX file of this precision, if there is one
    pub(crate) onnx: Option<Precision>,
    /// only queries are encoded: a model with a query table needs neither of the two
    pub(crate) only_queries: bool,
}

impl Wants {
    /// The checkpoint and no ONNX files.
    pub(crate) const CHECKPOINT: Self = Self { weights: true, onnx: None, only_queries: false };

    /// Files that an encoder of this backend reads.
    pub(crate) fn encoder(args: &NetworkArgs) -> Self {
        let onnx = (args.backend != Backend::Candle).then(|| args.precision.into());
        Self { weights: args.backend != Backend::Onnx, onnx, only_queries: false }
    }

    /// These files, for the query side only.
    pub(crate) fn only_queries(self) -> Self {
        Self { only_queries: true, ..self }
    }

    /// These files and the checkpoint, which is part of a model's fingerprint.
    pub(crate) fn and_weights(self) -> Self {
        Self { weights: true, ..self }
    }
}

/// Model folder, with its origin if it is a model of the Hub.
#[derive(Debug)]
pub(crate) struct Place {
    /// the folder given, or a snapshot in the cache, which must not be written into
    pub(crate) folder: PathBuf,
    /// none for a folder
    pub(crate) origin: Option<Origin>,
}

/// Model of the Hub and commit of a snapshot.
#[derive(Debug)]
pub(crate) struct Origin {
    /// `owner/name`
    pub(crate) id: String,
    /// commit of the snapshot
    pub(crate) commit: String,
    /// names of the files that were wanted and exist
    #[cfg_attr(not(feature = "train"), allow(dead_code))] // only an export copies them
    files: Vec<String>,
}

/// Opens a model by its folder or Hub id.
pub(crate) fn open(model: &Path, wants: Wants) -> Result<ModelDir> {
    Ok(ModelDir::open(&locate(model, wants)?.folder)?)
}

/// Opens a dense model by its folder or Hub id.
pub(crate) fn open_dense(model: &Path) -> Result<DenseModelDir> {
    if model.exists() {
        return Ok(DenseModelDir::open(model)?);
    }
    match model.to_str().map(HubId::parse).transpose()?.flatten() {
        Some(id) => fetch::fetch_dense(&id),
        None => Err(bad_input(
            format!("{}: no such folder", model.display()),
            "give the folder of a dense model, or a Hub id such as intfloat/multilingual-e5-small",
        )),
    }
}

/// Locates a model by its folder or Hub id, without opening it.
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
    /// Returns a folder of this model that can be written into: the folder itself, or for a model of the Hub a copy in the
    /// working folder, under the model's name.
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
            // the error names the file of the copy, not the temporary one
            std::fs::copy(&from, &to).map_err(Error::io(copy.join(file)))?;
        }
        folder.commit()?;
        tracing::info!("{name}: a copy of {}, commit {}", origin.id, origin.commit);
        Ok(copy)
    }
}

static OFFLINE: AtomicBool = AtomicBool::new(false);

/// Forbids the network (`--offline`).
pub(crate) fn go_offline() {
    OFFLINE.store(true, Ordering::SeqCst);
}

/// True if the network is forbidden by `--offline`, `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
pub(crate) fn is_offline() -> bool {
    OFFLINE.load(Ordering::SeqCst) || environment::flag("HF_HUB_OFFLINE") || environment::flag("TRANSFORMERS_OFFLINE")
}

/// Cache folder: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `hub` in `~/.cache/huggingface`.
pub(crate) fn cache_dir() -> PathBuf {
    let named = environment::path("HF_HUB_CACHE").or_else(|| environment::path("HUGGINGFACE_HUB_CACHE"));
    named.unwrap_or_else(|| hub_home().join("hub"))
}

/// Address of the Hub: `HF_ENDPOINT`, else the public one.
pub(crate) fn endpoint() -> String {
    let named = environment::text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    named.trim_end_matches('/').to_owned()
}

/// True if there is a token for the Hub.
pub(crate) fn has_token() -> bool {
    token().is_some()
}

/// Token of the user and its source, for messages.
struct Token {
    text: String,
    /// name of a variable, or path of a file
    source: String,
}

/// Token of the user: `HF_TOKEN`, else the one that `hf auth login` stored.
fn token() -> Option<Token> {
    if environment::flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let named = |name: &str| environment::text(name).map(|text| Token { text, source: name.to_owned() });
    let stored = || {
        let path = token_path();
        Some(Token { text: std::fs::read_to_string(&path).ok()?, source: path.display().to_string() })
    };
    let token = named("HF_TOKEN").or_else(|| named("HUGGING_FACE_HUB_TOKEN")).or_else(stored)?;
    let text = token.text.trim().to_owned();
    (!text.is_empty()).then_some(Token { text, ..token })
}

/// File in which `hf auth login` stores a token.
fn token_path() -> PathBuf {
    environment::path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home().join("token"))
}

/// `HF_HOME`, else `huggingface` in the user's cache folder.
fn hub_home() -> PathBuf {
    environment::path("HF_HOME").unwrap_or_else(|| {
        let caches = environment::path("XDG_CACHE_HOME");
        caches.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache")).join("huggingface")
    })
}
