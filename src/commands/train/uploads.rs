//! [`Uploads`]: checkpoints and the result of a training on the Hub, by `training.push_to_hub`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use splade_files::AtomicFolder;
use splade_trainer::config::{HubStrategy, UploadConfig};
use splade_trainer::{TrainConfig, checkpoints};

use crate::commands::interrupt;
use crate::failure::{Failure, bad_input, one_line};
use crate::hub::push::{Destination, Files, LAST_CHECKPOINT};

/// Time that an interrupted training waits for its upload.
const PATIENCE: Duration = Duration::from_secs(2);

/// Uploads of a training. Those of checkpoints run beside it, one at a time, from a copy of links: the training may delete
/// the checkpoint meanwhile.
pub(super) struct Uploads {
    destination: Arc<Destination>,
    strategy: HubStrategy,
    private: bool,
    output: PathBuf,
    running: Option<Running>,
    /// checkpoints that are on the Hub as a whole
    uploaded: Vec<PathBuf>,
}

/// An upload beside the training.
struct Running {
    checkpoint: PathBuf,
    thread: JoinHandle<Result<()>>,
}

impl Uploads {
    /// Opens the repository if the config names one. Its token is checked here, before the training.
    ///
    /// # Errors
    /// A repository that cannot be written, as [`Destination::open`] finds.
    pub(super) fn open(config: &TrainConfig) -> Result<Option<Self>> {
        let Some(hub) = &config.training.hub else { return Ok(None) };
        let output = &config.training.output_dir;
        let repo = repository(hub, output)?;
        let destination = Destination::open(&repo, None, hub.private).context("training.push_to_hub")?;
        tracing::info!("uploads go to {}", destination.url());
        Ok(Some(Self {
            destination: Arc::new(destination),
            strategy: hub.strategy,
            private: hub.private,
            output: output.clone(),
            running: None,
            uploaded: Vec::new(),
        }))
    }

    /// Begins to upload a checkpoint, unless the one before is still being uploaded. Returns a warning about the one before
    /// if it failed.
    pub(super) fn saved(&mut self, checkpoint: &Path, step: usize) -> Option<String> {
        if self.strategy == HubStrategy::End || interrupt::received() {
            return None;
        }
        if self.running.as_ref().is_some_and(|running| !running.thread.is_finished()) {
            tracing::debug!("{}: not uploaded: the upload before is not finished", checkpoint.display());
            return None;
        }
        let warning = self.join();
        let begun = self.begin(checkpoint, step).map_err(|error| failure(checkpoint, &error));
        warning.or(begun.err())
    }

    fn begin(&mut self, checkpoint: &Path, step: usize) -> Result<()> {
        let folder = AtomicFolder::create(&self.output.join("upload"))?;
        let mut files = Files::of_model(checkpoint)?;
        if let Some(under) = self.folder_of(checkpoint) {
            files = files.and_checkpoint(checkpoint, &under)?;
        }
        files.link_into(folder.path())?;
        let (destination, message) = (self.destination.clone(), format!("Training in progress, step {step}"));
        let thread = std::thread::spawn(move || {
            // the links are removed when the upload ends
            let _folder = folder;
            destination.push_quietly(&files, &message).map(drop)
        });
        self.running = Some(Running { checkpoint: checkpoint.to_owned(), thread });
        Ok(())
    }

    /// Folder of a whole checkpoint in the repository; none if only its model is uploaded.
    fn folder_of(&self, checkpoint: &Path) -> Option<String> {
        match self.strategy {
            HubStrategy::End | HubStrategy::EverySave => None,
            HubStrategy::Checkpoint => Some(LAST_CHECKPOINT.to_owned()),
            HubStrategy::AllCheckpoints => Some(checkpoint.file_name()?.to_string_lossy().into_owned()),
        }
    }

    /// Waits for the upload beside the training. Returns a warning if it failed.
    fn join(&mut self) -> Option<String> {
        let Running { checkpoint, thread } = self.running.take()?;
        match thread.join() {
            Ok(Ok(())) => {
                self.uploaded.push(checkpoint);
                None
            }
            Ok(Err(error)) => Some(failure(&checkpoint, &error)),
            Err(_) => Some(format!("{}: its upload ended in a panic", checkpoint.display())),
        }
    }

    /// Ends the upload beside a training that has no result: waits for it, but not for long after a signal.
    pub(super) fn stop(&mut self) -> Option<String> {
        let begun = Instant::now();
        while self.running.as_ref().is_some_and(|running| !running.thread.is_finished()) {
            if interrupt::received() && begun.elapsed() > PATIENCE {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.join().filter(|_| !interrupt::received())
    }

    /// Uploads the result, and by the strategy the checkpoints that are not on the Hub yet. Returns the address of the
    /// repository.
    ///
    /// # Errors
    /// An upload that fails; the result stays where it is.
    pub(super) fn finish(&mut self, model: &Path) -> Result<String> {
        if let Some(warning) = self.join() {
            tracing::warn!("{warning}");
        }
        let pushed = self.files(model).and_then(|files| self.destination.push(&files, "End of training"));
        match pushed {
            Ok(_) => Ok(self.destination.url()),
            Err(error) => {
                let (model, name) = (model.display(), self.destination.name());
                let private = if self.private { " --private" } else { "" };
                Err(Failure::run(
                    format!("{model} is saved, but not on the Hub: {}", one_line(&error)),
                    format!("splade push {model} {name}{private} uploads it"),
                )
                .into())
            }
        }
    }

    /// Files of the last upload.
    fn files(&self, model: &Path) -> Result<Files> {
        let mut files = Files::of_model(model)?;
        let mut missing = checkpoints(&self.output)?;
        if self.strategy == HubStrategy::Checkpoint {
            missing.drain(..missing.len().saturating_sub(1));
            // at the end the best checkpoint may be the only one left, and a later one may be on the Hub
            let latest = self.uploaded.last().and_then(|checkpoint| step_of(checkpoint));
            missing.retain(|checkpoint| step_of(checkpoint) > latest);
        }
        missing.retain(|checkpoint| !self.uploaded.contains(checkpoint));
        for checkpoint in missing {
            if let Some(under) = self.folder_of(&checkpoint) {
                files = files.and_checkpoint(&checkpoint, &under)?;
            }
        }
        Ok(files)
    }
}

/// Step of a path like `…/checkpoint-16`.
fn step_of(checkpoint: &Path) -> Option<usize> {
    checkpoint.file_name()?.to_str()?.rsplit('-').next()?.parse().ok()
}

/// Name of the repository: that of the config, else that of the output folder.
fn repository(hub: &UploadConfig, output: &Path) -> Result<String> {
    let folder = || output.file_name().map(|name| name.to_string_lossy().into_owned());
    hub.model_id.clone().or_else(folder).ok_or_else(|| {
        let message = format!("training.hub_model_id: is missing, and {} has no name", output.display());
        bad_input(message, "give owner/name")
    })
}

/// Warning about an upload beside the training, which goes on.
fn failure(checkpoint: &Path, error: &anyhow::Error) -> String {
    format!("{}: not uploaded: {}", checkpoint.display(), one_line(error))
}
