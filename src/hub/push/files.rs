//! [`Files`]: files of a model folder that are uploaded, and those that are left out.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use splade_files::{Error, ModelLayout, open_file, read_json};

use crate::failure::bad_input;

/// State of a training beside a model, of this program and of transformers: most of it is large, and none of it is read
/// with the model.
const STATES: [&str; 9] = [
    "optimizer.safetensors",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "progress.json",
    "trainer_state.json",
    "rng_state.pth",
    "training_args.bin",
];
/// Folder of a checkpoint in a repository, as transformers names it.
pub(crate) const LAST_CHECKPOINT: &str = "last-checkpoint";
/// Ends of the names of files that are not complete.
const TEMPORARY: [&str; 6] = [".tmp", ".part", ".incomplete", ".lock", ".swp", "~"];
/// File of the resolved training config.
const TRAINING_CONFIG: &str = "training_config.json";
/// Number of bytes of a file's start by which the Hub decides where to store it.
const SAMPLE_BYTES: u64 = 512;

/// A file to upload.
#[derive(Debug, Clone)]
pub(crate) struct LocalFile {
    /// path on disk
    pub(crate) path: PathBuf,
    /// path in the repository, with `/`
    pub(crate) name: String,
    pub(crate) size: u64,
}

/// A file or folder that is not uploaded.
#[derive(Debug, Clone)]
pub(crate) struct LeftOut {
    /// path in the model folder
    pub(crate) name: String,
    pub(crate) reason: &'static str,
}

/// Files of one upload.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) files: Vec<LocalFile>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// Part of a folder that is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// the model
    Model,
    /// everything, to resume a training from
    #[cfg_attr(not(feature = "train"), expect(dead_code, reason = "only a training uploads checkpoints"))]
    Checkpoint,
}

impl Files {
    /// Files of a model folder: all but hidden and temporary ones, checkpoints, and the state of a training.
    ///
    /// # Errors
    /// A folder that is not a model; a file that cannot be read.
    pub(crate) fn of_model(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let hint = "give the folder of a model, as `train` writes it";
            return Err(bad_input(format!("{}: no such folder", folder.display()), hint));
        }
        let result = folder.join("final");
        let is_model = |folder: &Path| ["modules.json", "config.json"].iter().any(|name| folder.join(name).is_file());
        if !is_model(folder) && is_model(&result) {
            let message = format!("{}: an output folder of a training, not a model", folder.display());
            return Err(bad_input(message, format!("its model is {}", result.display())));
        }
        ModelLayout::find(folder, |name| Ok::<_, Error>(folder.join(name).is_file()))?;
        let mut files = Self::default();
        files.add(folder, "", Part::Model, "")?;
        Ok(files)
    }

    /// Adds all files of a checkpoint, in the folder `under` of the repository.
    ///
    /// # Errors
    /// A file that cannot be read.
    #[cfg(feature = "train")]
    pub(crate) fn and_checkpoint(mut self, folder: &Path, under: &str) -> Result<Self> {
        self.add(folder, "", Part::Checkpoint, &format!("{under}/"))?;
        Ok(self)
    }

    /// Takes the files from links in `folder`, or from copies where the file system has no links. What is deleted
    /// afterwards is still uploaded.
    ///
    /// # Errors
    /// A folder that cannot be written.
    #[cfg(feature = "train")]
    pub(crate) fn link_into(&mut self, folder: &Path) -> Result<()> {
        for (number, file) in self.files.iter_mut().enumerate() {
            let link = folder.join(number.to_string());
            if std::fs::hard_link(&file.path, &link).is_err() {
                std::fs::copy(&file.path, &link).map_err(Error::io(&link))?;
            }
            file.path = link;
        }
        Ok(())
    }

    /// Sum of the sizes.
    pub(crate) fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Adds the files of the folder `within` (empty or with a `/` at its end) of `root`.
    fn add(&mut self, root: &Path, within: &str, part: Part, prefix: &str) -> Result<()> {
        let folder = root.join(within);
        let entries = std::fs::read_dir(&folder).map_err(Error::io(&folder))?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry.map_err(Error::io(&folder))?.path())).collect::<Result<_>>()?;
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .ok_or_else(|| bad_input(format!("{}: the name is not UTF-8", path.display()), "rename the file"))?;
            let (name, is_folder) = (format!("{within}{name}"), path.is_dir());
            if let Some(reason) = reason_against(&path, is_folder, part)? {
                self.left_out.push(LeftOut { name: format!("{prefix}{name}"), reason });
            } else if is_folder {
                self.add(root, &format!("{name}/"), part, prefix)?;
            } else {
                let size = path.metadata().map_err(Error::io(&path))?.len();
                self.files.push(LocalFile { name: format!("{prefix}{name}"), path, size });
            }
        }
        Ok(())
    }
}

/// Reason to leave a file or folder out.
fn reason_against(path: &Path, is_folder: bool, part: Part) -> Result<Option<&'static str>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_state = || {
        let is_numbered = name.starts_with("rng_state_") && name.ends_with(".pth");
        !is_folder && (STATES.contains(&name.as_ref()) || is_numbered)
    };
    let steps = || name.strip_prefix("checkpoint-").is_some_and(|step| step.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(if name.starts_with('.') {
        Some("hidden")
    } else if TEMPORARY.iter().any(|end| name.ends_with(end)) || name == "__pycache__" {
        Some("temporary")
    } else if is_folder && path.is_symlink() {
        Some("a link to a folder")
    } else if !is_folder && !path.metadata().map_err(Error::io(path))?.is_file() {
        Some("not a file")
    } else if part == Part::Model && is_folder && (steps() || name == LAST_CHECKPOINT) {
        Some("a checkpoint")
    } else if part == Part::Model && is_state() {
        Some("the state of a training")
    } else if name == TRAINING_CONFIG && has_password(path) {
        Some("its mlflow.tracking_uri has a password")
    } else {
        None
    })
}

/// True for a training config whose MLflow server is given as `http://user:password@host`.
fn has_password(path: &Path) -> bool {
    let config: serde_json::Value = read_json(path).unwrap_or_default();
    let uri = config.pointer("/mlflow/tracking_uri").and_then(|uri| uri.as_str()).unwrap_or_default();
    uri.split_once("://").and_then(|(_, rest)| rest.split('/').next()).is_some_and(|host| host.contains('@'))
}

impl LocalFile {
    /// Opens the file.
    ///
    /// # Errors
    /// A file that cannot be read, or is a git-lfs pointer: the Hub would take it for the file that it stands for.
    pub(super) fn open(&self) -> Result<File> {
        Ok(open_file(&self.path)?)
    }

    /// Reads the whole file.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    /// Start of the file, by which the Hub decides where to store it.
    pub(super) fn sample(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.take(SAMPLE_BYTES).read_to_end(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    /// SHA-256 of the file: the identity of a large file on the Hub.
    pub(super) fn sha256(&self) -> Result<String> {
        self.hash(Sha256::new())
    }

    /// Git's hash of the file: the identity of any other file on the Hub.
    pub(super) fn git_hash(&self) -> Result<String> {
        self.hash(Sha1::new_with_prefix(format!("blob {}\0", self.size)))
    }

    fn hash<D: Digest + Write>(&self, mut digest: D) -> Result<String> {
        std::io::copy(&mut self.open()?, &mut digest).map_err(Error::io(&self.path))?;
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        folder
    }

    fn names(files: &Files) -> Vec<&str> {
        files.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn states_and_temporary_files_are_left_out() {
        let folder = folder(&[
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/.splade-x.tmp",
            ".git/config",
            ".cache/huggingface/x",
            "half.tmp",
            "notes.txt~",
            "optimizer.safetensors",
            "trainer_state.json",
            "progress.json",
            "rng_state_0.pth",
            "checkpoint-12/model.safetensors",
            "checkpoint-best.txt",
            "last-checkpoint/model.safetensors",
            "runs/events.out.tfevents.1",
            "__pycache__/a.pyc",
        ]);
        let mut files = Files::default();
        files.add(folder.path(), "", Part::Model, "").unwrap();
        let kept = ["checkpoint-best.txt", "config.json", "model.safetensors", "onnx/model.onnx"];
        assert_eq!(names(&files)[..4], kept);
        assert_eq!(names(&files)[4..], ["runs/events.out.tfevents.1"]);
        let reasons: Vec<String> =
            files.left_out.iter().map(|LeftOut { name, reason }| format!("{name}: {reason}")).collect();
        let expected = [
            ".cache: hidden",
            ".git: hidden",
            "__pycache__: temporary",
            "checkpoint-12: a checkpoint",
            "half.tmp: temporary",
            "last-checkpoint: a checkpoint",
            "notes.txt~: temporary",
            "onnx/.splade-x.tmp: hidden",
            "optimizer.safetensors: the state of a training",
            "progress.json: the state of a training",
            "rng_state_0.pth: the state of a training",
            "trainer_state.json: the state of a training",
        ];
        assert_eq!(reasons, expected);
        let mut whole = Files::default();
        whole.add(folder.path(), "", Part::Checkpoint, "at/").unwrap();
        for name in ["at/optimizer.safetensors", "at/checkpoint-12/model.safetensors", "at/progress.json"] {
            assert!(names(&whole).contains(&name), "{name}");
        }
        assert!(!names(&whole).iter().any(|name| name.contains(".git") || name.contains("half")));
    }

    #[test]
    fn a_config_with_a_password_is_left_out() {
        let folder = folder(&["training_config.json"]);
        let path = folder.path().join("training_config.json");
        for (uri, is_secret) in
            [("http://user:secret@mlflow.example/a", true), ("http://mlflow.example/a@b", false), ("mlruns", false)]
        {
            std::fs::write(&path, serde_json::json!({"mlflow": {"tracking_uri": uri}}).to_string()).unwrap();
            assert_eq!(has_password(&path), is_secret, "{uri}");
        }
    }

    #[test]
    fn hashes_are_those_of_the_hub() {
        let folder = folder(&["a"]);
        let file = LocalFile { path: folder.path().join("a"), name: "a".to_owned(), size: 2 };
        // printf '{}' | git hash-object --stdin
        assert_eq!(file.git_hash().unwrap(), "9e26dfeeb6e641a33dae4961196235bdb965b21b");
        assert_eq!(file.sha256().unwrap(), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }
}
