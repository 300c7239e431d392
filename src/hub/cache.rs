//! [`Repo`]: cached files of one model, in the layout of huggingface_hub.
//!
//! ```text
//! models--owner--name/blobs/<etag>                    bytes of a file; <etag>.incomplete during the download
//!                     snapshots/<commit>/<file>       link to the blob of the file
//!                     refs/<branch or tag>            its commit at the last request
//!                     .no_exist/<commit>/<file>       empty: the commit has no such file
//!                     trees/<commit>.json             list of all files, written by newer Pythons, read here
//! .locks/models--owner--name/<etag>.lock              locked during the download of a blob
//! ```

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use splade_files::{AtomicFile, Error};

use super::HubError;
use super::id::{Kind, is_commit};
use crate::commands::interrupt;

/// Contents of `CACHEDIR.TAG`, by which backup programs leave a folder out.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag created by splade.\n\
    # For information about cache directory tags, see: https://bford.info/cachedir/\n";

/// Cached files of one model.
#[derive(Debug)]
pub(super) struct Repo {
    cache: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// Returns the part of `cache` for the model or data set `name` (`owner/name`). Its folders need not exist.
    pub(super) fn new(cache: &Path, kind: Kind, name: &str) -> Self {
        let folder = format!("{}--{}", kind.plural(), name.replace('/', "--"));
        Self { cache: cache.to_owned(), folder: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// Folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Commit of a branch or tag at the last request.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Records the commit of a branch or tag. A cache that cannot be written is no error.
    pub(super) fn note_commit(&self, revision: &str, commit: &str) {
        if self.commit_of(revision).as_deref() == Some(commit) {
            return;
        }
        let path = self.folder.join("refs").join(revision);
        if let Err(error) = AtomicFile::write_whole(&path, commit.as_bytes()) {
            tracing::debug!("{error}");
        }
    }

    /// True if the commit is known to lack the file.
    pub(super) fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.no_exist(commit, file).is_file()
    }

    /// Records that the commit lacks the file. A cache that cannot be written is no error.
    pub(super) fn note_absent(&self, commit: &str, file: &str) {
        let path = self.no_exist(commit, file);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(&path));
        if let Err(error) = made {
            tracing::debug!("{}: {error}", path.display());
        }
    }

    fn no_exist(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// Names of all files of the commit, if Python or [`note_listing`](Self::note_listing) has listed them.
    pub(super) fn listing(&self, commit: &str) -> Option<BTreeSet<String>> {
        if let Ok(names) = std::fs::read_to_string(self.noted_listing(commit)) {
            return Some(names.lines().map(str::to_owned).collect());
        }
        let bytes = std::fs::read(self.folder.join("trees").join(format!("{commit}.json"))).ok()?;
        let tree: Value = serde_json::from_slice(&bytes).ok()?;
        (tree.get("format_version") == Some(&Value::from(1))).then_some(())?;
        Some(tree.get("files")?.as_object()?.keys().cloned().collect())
    }

    /// Writes the names of a commit's files, one a line, so that the shards of a data set are known offline. A failure is
    /// logged and is no error.
    pub(super) fn note_listing(&self, commit: &str, files: &BTreeSet<String>) {
        let names: String = files.iter().map(|name| format!("{name}\n")).collect();
        let path = self.noted_listing(commit);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = made.map_err(Error::io(&path)).and_then(|()| AtomicFile::write_whole(&path, names.as_bytes()));
        if let Err(error) = written {
            tracing::debug!("{error}");
        }
    }

    fn noted_listing(&self, commit: &str) -> PathBuf {
        self.folder.join(".splade-files").join(commit)
    }

    /// Path of the blob with this ETag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Path of the blob with this ETag during its download.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Makes the folders of blobs and locks.
    pub(super) fn prepare(&self) -> Result<()> {
        for folder in [self.folder.join("blobs"), self.locks.clone()] {
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            // the cache works without it
            let _ = std::fs::write(&tag, CACHE_TAG);
        }
        Ok(())
    }

    /// Locks a blob. Waits while another process, of Python too, downloads it. The lock ends when the file is dropped.
    pub(super) fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut waited = 0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if waited == 10 {
                        tracing::info!("waiting for another process that downloads the same file");
                    }
                    waited += 1;
                    interrupt::check()?;
                    std::thread::sleep(Duration::from_millis(100));
                }
                // some network file systems have no locks; downloaded bytes are checked in any case
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error).into()),
            }
        }
    }

    /// Adds a blob to a snapshot as a relative link, or as a copy if the file system has no links.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        // a link to a blob that was removed
        let _ = std::fs::remove_file(&path);
        let target = Path::new(&"../".repeat(2 + file.matches('/').count())).join("blobs").join(etag);
        if symlink(&target, &path).is_ok() || path.is_file() {
            return Ok(());
        }
        let mut copy = AtomicFile::create(&path)?;
        let blob = self.blob(etag);
        let mut bytes = File::open(&blob).map_err(Error::io(&blob))?;
        io::copy(&mut bytes, &mut copy).map_err(Error::io(&path))?;
        Ok(copy.commit()?)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses a name that leads out of the folder it is joined to. Names come from the files of a model.
pub(super) fn check_name(file: &str) -> Result<(), HubError> {
    let is_refused = |c: char| c.is_control() || r#"\:*?"<>|"#.contains(c);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    if file.split('/').all(is_part) && !file.contains(is_refused) {
        return Ok(());
    }
    Err(HubError::input(format!("the model names the file {file:?}, which is not in its folder"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        for name in ["config.json", "a/b.json", "..a", "onnx/model.onnx_data", "a b.json"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "C:\\x", "a\\b", "./x", "a/.", "x\0"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_ref_without_a_commit_is_none() {
        let place = tempfile::tempdir().unwrap();
        let repo = Repo::new(place.path(), Kind::Model, "a/b");
        assert_eq!(repo.commit_of("main"), None);
        let commit = "0123456789".repeat(4);
        repo.note_commit("refs/pr/1", &commit);
        assert_eq!(repo.commit_of("refs/pr/1"), Some(commit));
        repo.note_commit("main", "../../elsewhere");
        assert_eq!(repo.commit_of("main"), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative_at_every_depth() {
        let place = tempfile::tempdir().unwrap();
        let repo = Repo::new(place.path(), Kind::Model, "a/b");
        repo.prepare().unwrap();
        std::fs::write(repo.blob("tag"), "bytes").unwrap();
        for file in ["config.json", "a/config.json", "a/b/config.json"] {
            repo.link("commit", file, "tag").unwrap();
            let path = repo.snapshot("commit").join(file);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "bytes", "{file}");
            assert!(std::fs::read_link(&path).unwrap().is_relative());
        }
        // a link whose blob was removed is replaced
        std::fs::remove_file(repo.blob("tag")).unwrap();
        std::fs::write(repo.blob("new"), "others").unwrap();
        repo.link("commit", "config.json", "new").unwrap();
        assert_eq!(std::fs::read_to_string(repo.snapshot("commit").join("config.json")).unwrap(), "others");
    }
}
