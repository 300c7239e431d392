//! [`ResumableFolder`]: an atomic output that is filled over several runs.

use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::atomic::{NEW_FOLDER, OLD_FOLDER, make_parent, move_back, move_into_place, remove_leftovers};
use crate::{Error, Result};

/// Ending of the folder beside the destination.
const SUFFIX: &str = ".unfinished";
/// File on which the process holds a lock. It contains the name of the run.
const LOCK_FILE: &str = "lock";

/// A folder that is filled in `<destination>.unfinished` and takes the place of its destination in [`commit`](Self::commit).
///
/// Unlike an [`AtomicFolder`](crate::AtomicFolder) it stays when the process ends, so that a later one can continue. A run has
/// a name of its own, [`run`](Self::run), which the content repeats: content of another name is a leftover.
#[derive(Debug)]
pub struct ResumableFolder {
    destination: PathBuf,
    aside: PathBuf,
    lock: File,
    run: String,
}

impl ResumableFolder {
    /// The folder beside `destination` that holds an unfinished run.
    #[must_use]
    pub fn aside_of(destination: &Path) -> PathBuf {
        let mut name = destination.file_name().unwrap_or_default().to_owned();
        name.push(SUFFIX);
        destination.with_file_name(name)
    }

    /// Opens the unfinished folder of `destination`, or starts one. Makes missing folders above it.
    ///
    /// # Errors
    /// Another process that fills it; a folder of that name that is not of this kind; a folder that cannot be written.
    pub fn open(destination: &Path) -> Result<Self> {
        let parent = make_parent(destination)?;
        remove_leftovers(parent);
        let aside = Self::aside_of(destination);
        refuse_other(&aside)?;
        std::fs::create_dir_all(&aside).map_err(Error::io(&aside))?;
        let path = aside.join(LOCK_FILE);
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = lock.map_err(Error::io(&path))?;
        // a file system without locks cannot tell, and its user must
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::file(&aside, "another process is filling it"));
        }
        move_back(&aside, parent).map_err(Error::io(&aside))?;
        let mut run = String::new();
        lock.read_to_string(&mut run).map_err(Error::io(&path))?;
        let mut folder = Self { destination: destination.to_owned(), aside, lock, run };
        if folder.run.is_empty() {
            folder.restart()?;
        }
        Ok(folder)
    }

    /// The folder to write into. It need not exist.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.aside.join(NEW_FOLDER)
    }

    /// The folder that stays when the process ends, for messages.
    #[must_use]
    pub fn aside(&self) -> &Path {
        &self.aside
    }

    /// Name of this run.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Removes the content and begins a run of another name.
    ///
    /// # Errors
    /// A file cannot be removed or written.
    pub fn restart(&mut self) -> Result<()> {
        remove_all(&self.path())?;
        // seeded by the system's random numbers
        self.run = format!("{:016x}", RandomState::new().build_hasher().finish());
        let lock = &mut self.lock;
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(self.run.as_bytes()));
        written.and_then(|()| lock.sync_all()).map_err(Error::io(self.aside.join(LOCK_FILE)))
    }

    /// Makes the folder visible under its name, replacing what was there. It is on disk, with all files in it, when this
    /// returns.
    ///
    /// A process killed before the replacement leaves the unfinished folder; one killed after it may leave the old content
    /// in it, which the next run removes.
    ///
    /// # Errors
    /// A file cannot be synced, a folder cannot be renamed; the destination is as it was then.
    pub fn commit(self) -> Result<()> {
        move_into_place(&self.path(), &self.destination, &self.aside)?;
        self.remove()
    }

    /// Removes the folder and its content.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(self) -> Result<()> {
        // the name first: without it the rest is a leftover
        self.lock.set_len(0).map_err(Error::io(self.aside.join(LOCK_FILE)))?;
        remove_all(&self.aside)
    }
}

fn remove_all(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder)(error)),
        _ => Ok(()),
    }
}

/// Refuses a folder with files that this kind of folder does not have.
fn refuse_other(aside: &Path) -> Result<()> {
    if !aside.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(aside).map_err(Error::io(aside))? {
        let name = entry.map_err(Error::io(aside))?.file_name();
        if ![LOCK_FILE, NEW_FOLDER, OLD_FOLDER].iter().any(|ours| name == *ours) {
            return Err(Error::file(aside, "not the folder of an unfinished run: move it away"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atomic::tests::names;

    fn write(folder: &ResumableFolder, name: &str) {
        std::fs::create_dir_all(folder.path()).unwrap();
        std::fs::write(folder.path().join(name), "").unwrap();
    }

    #[test]
    fn a_later_process_continues_where_one_ended() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/result");
        let first = ResumableFolder::open(&path).unwrap();
        write(&first, "a");
        assert!(ResumableFolder::open(&path).unwrap_err().to_string().contains("another process"));
        let run = first.run().to_owned();
        drop(first);
        let second = ResumableFolder::open(&path).unwrap();
        assert_eq!((second.run(), names(&second.path())), (&run[..], vec!["a".to_owned()]));
        write(&second, "b");
        second.commit().unwrap();
        assert_eq!(
            (names(&path), names(place.path().join("deep").as_path())),
            (vec!["a".into(), "b".into()], vec!["result".into()])
        );
    }

    #[test]
    fn a_restart_has_another_name_and_no_content() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("result");
        let mut folder = ResumableFolder::open(&path).unwrap();
        write(&folder, "a");
        let run = folder.run().to_owned();
        folder.restart().unwrap();
        assert!(folder.run() != run && !folder.path().exists());
        folder.remove().unwrap();
        assert_eq!(names(place.path()), Vec::<String>::new());
    }

    #[test]
    fn an_old_destination_is_replaced_in_one_step() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("result");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("old"), "").unwrap();
        let folder = ResumableFolder::open(&path).unwrap();
        write(&folder, "new");
        folder.commit().unwrap();
        assert_eq!((names(&path), names(place.path())), (vec!["new".into()], vec!["result".into()]));
    }

    #[test]
    fn a_folder_of_another_kind_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let other = place.path().join("result.unfinished");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("novel.txt"), "").unwrap();
        let error = ResumableFolder::open(&place.path().join("result")).unwrap_err().to_string();
        assert!(error.contains("result.unfinished: not the folder of an unfinished run"), "{error}");
        assert_eq!(names(&other), ["novel.txt"]);
    }
}
