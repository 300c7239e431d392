//! [`Repo`]: one model's part of the cache, laid out as huggingface_hub lays it out.
//!
//! ```text
//! models--owner--name/blobs/<etag>                    a file's bytes; <etag>.incomplete while they arrive
//!                     snapshots/<commit>/<file>       a link to its blob
//!                     refs/<branch or tag>            the commit it stood for when it was last asked
//!                     .no_exist/<commit>/<file>       the commit has no such file: nobody needs to ask again
//!                     trees/<commit>.json             newer Pythons' list of all files; read here, not written
//! .locks/models--owner--name/<etag>.lock              held while a blob arrives
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
use super::id::is_commit;
use crate::commands::interrupt;

/// Tells backup programs that all this can be had again.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag created by splade.\n\
    # For information about cache directory tags, see: https://bford.info/cachedir/\n";

/// The cached files of one model.
#[derive(Debug)]
pub(super) struct Repo {
    cache: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// The part of `cache` that belongs to the model `name`, `owner/name`; nothing needs to be there yet.
    pub(super) fn new(cache: &Path, name: &str) -> Self {
        let of_model = format!("models--{}", name.replace('/', "--"));
        Self { cache: cache.to_owned(), folder: cache.join(&of_model), locks: cache.join(".locks").join(of_model) }
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit a branch or tag stood for when it was last asked.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes what a branch or tag stands for. A cache that cannot be written only forgets it.
    pub(super) fn note_commit(&self, revision: &str, commit: &str) {
        if self.commit_of(revision).as_deref() == Some(commit) {
            return;
        }
        let path = self.folder.join("refs").join(revision);
        if let Err(error) = AtomicFile::write_whole(&path, commit.as_bytes()) {
            tracing::debug!("{error}");
        }
    }

    /// Whether the commit is known to have no such file.
    pub(super) fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.no_exist(commit, file).is_file()
    }

    /// Notes that the commit has no such file. A cache that cannot be written only forgets it.
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

    /// All files of the commit, where Python has listed them.
    pub(super) fn listing(&self, commit: &str) -> Option<BTreeSet<String>> {
        let bytes = std::fs::read(self.folder.join("trees").join(format!("{commit}.json"))).ok()?;
        let tree: Value = serde_json::from_slice(&bytes).ok()?;
        (tree.get("format_version") == Some(&Value::from(1))).then_some(())?;
        Some(tree.get("files")?.as_object()?.keys().cloned().collect())
    }

    /// Where the bytes with this ETag lie, or will.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where they lie while they arrive.
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
            // only a courtesy
            let _ = std::fs::write(&tag, CACHE_TAG);
        }
        Ok(())
    }

    /// Waits until no other process, of Python neither, fetches the blob. Held until the file is dropped.
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
                // some network file systems cannot lock; what arrives is checked all the same
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error).into()),
            }
        }
    }

    /// Puts a blob into a snapshot under its name: a relative link, a copy where the file system has no links.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        // a link to a blob that is gone
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

/// A name that stays inside the folder it is joined to: names come from files that strangers wrote.
pub(super) fn check_name(file: &str) -> Result<(), HubError> {
    let is_refused = |c: char| c.is_control() || r#"\:*?"<>|"#.contains(c);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    if file.split('/').all(is_part) && !file.contains(is_refused) {
        return Ok(());
    }
    Err(HubError::input(format!("the model names a file {file:?}, which cannot be one of its own"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for name in ["config.json", "a/b.json", "..a", "onnx/model.onnx_data", "a b.json"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "C:\\x", "a\\b", "./x", "a/.", "x\0"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_ref_that_holds_no_commit_is_none() {
        let place = tempfile::tempdir().unwrap();
        let repo = Repo::new(place.path(), "a/b");
        assert_eq!(repo.commit_of("main"), None);
        let commit = "0123456789".repeat(4);
        repo.note_commit("refs/pr/1", &commit);
        assert_eq!(repo.commit_of("refs/pr/1"), Some(commit));
        repo.note_commit("main", "../../elsewhere");
        assert_eq!(repo.commit_of("main"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_from_any_depth_to_its_blob() {
        let place = tempfile::tempdir().unwrap();
        let repo = Repo::new(place.path(), "a/b");
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
