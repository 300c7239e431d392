//! [`AtomicFile`] and [`AtomicFolder`]: atomic outputs.
//!
//! Each is written under a temporary name, `.splade-….tmp`, in the folder of its destination, synced to disk and renamed.
//! The process holds a lock on the temporary file or folder. One of a killed process is not locked, and is removed when the next
//! output is made in the same folder ([`remove_leftovers`]). Its age does not matter.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::{Error, Result};

const PREFIX: &str = ".splade-";
const SUFFIX: &str = ".tmp";
/// File in a temporary folder on which its process holds a lock.
const LOCK_FILE: &str = "lock";
/// Folder in a temporary folder that is written, and becomes the destination.
pub(crate) const NEW_FOLDER: &str = "new";
/// Folder in a temporary folder that holds the former destination, under its name, while the new one is moved.
pub(crate) const OLD_FOLDER: &str = "old";
/// Attempts to make a temporary name: one fails only if a leftover is looked for in the instant between its making and its
/// locking.
const ATTEMPTS: usize = 100;

/// A buffered file that is written beside its destination and takes its place in [`commit`](Self::commit).
///
/// Dropped without a commit it is removed, so that an interrupted command leaves the old file.
#[derive(Debug)]
pub struct AtomicFile {
    destination: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Starts a file that will be at `destination`. Makes missing folders above it, and removes what killed processes left
    /// beside it.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn create(destination: &Path) -> Result<Self> {
        let folder = make_parent(destination)?;
        remove_leftovers(folder);
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        open_to_others(&mut builder);
        for _ in 0..ATTEMPTS {
            let file = builder.tempfile_in(folder).map_err(Error::io(folder))?;
            if claim(file.as_file(), file.path()) {
                return Ok(Self { destination: destination.to_owned(), file: BufWriter::new(file) });
            }
        }
        Err(Error::file(folder, "no temporary file can be locked in it"))
    }

    /// Writes a whole file at once.
    ///
    /// # Errors
    /// The file cannot be made, written or renamed.
    pub fn write_whole(destination: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = Self::create(destination)?;
        file.write_all(bytes).map_err(Error::io(destination))?;
        file.commit()
    }

    /// Writes all bytes to disk, so that [`commit`](Self::commit) has little left that can fail.
    ///
    /// # Errors
    /// The last bytes cannot be written.
    pub fn sync(&mut self) -> Result<()> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().as_file().sync_all());
        synced.map_err(Error::io(&self.destination))
    }

    /// Makes the file visible under its name, replacing what was there. It is on disk when this returns.
    ///
    /// # Errors
    /// The last bytes cannot be written or the file cannot be renamed.
    pub fn commit(self) -> Result<()> {
        let Self { destination, file } = self;
        let file = file.into_inner().map_err(|error| Error::io(&destination)(error.into_error()))?;
        file.as_file().sync_all().map_err(Error::io(&destination))?;
        let _: File = file.persist(&destination).map_err(|error| Error::io(&destination)(error.error))?;
        sync_folder(parent_of(&destination))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A folder that is filled beside its destination and takes its place in [`commit`](Self::commit).
///
/// Dropped without a commit it is removed, so that an interrupted command leaves the old folder.
#[derive(Debug)]
pub struct AtomicFolder {
    destination: PathBuf,
    // before the lock: removed while it is still locked
    aside: TempDir,
    folder: PathBuf,
    _lock: File,
}

impl AtomicFolder {
    /// Starts a folder that will be at `destination`. Makes missing folders above it, and removes what killed processes
    /// left beside it.
    ///
    /// # Errors
    /// The folder above cannot be made or written.
    pub fn create(destination: &Path) -> Result<Self> {
        let parent = make_parent(destination)?;
        remove_leftovers(parent);
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        for _ in 0..ATTEMPTS {
            let aside = builder.tempdir_in(parent).map_err(Error::io(parent))?;
            let path = aside.path().join(LOCK_FILE);
            let lock = match File::create(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock.map_err(Error::io(&path))?,
            };
            if claim(&lock, &path) {
                // A temporary folder is for its owner only; one made in it gets the permissions that the umask grants.
                let folder = aside.path().join(NEW_FOLDER);
                std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
                return Ok(Self { destination: destination.to_owned(), aside, folder, _lock: lock });
            }
        }
        Err(Error::file(parent, "no temporary folder can be locked in it"))
    }

    /// The folder to write into before the commit.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder visible under its name, replacing what was there. It is on disk, with all files in it, when this
    /// returns.
    ///
    /// # Errors
    /// A file cannot be synced, a folder cannot be renamed; the destination is as it was then.
    pub fn commit(self) -> Result<()> {
        move_into_place(&self.folder, &self.destination, self.aside.path())
    }
}

/// Syncs the folder `new` to disk and makes it visible as `destination`. An old destination is left in `aside`, to be removed
/// with it.
pub(crate) fn move_into_place(new: &Path, destination: &Path, aside: &Path) -> Result<()> {
    sync_tree(new)?;
    if destination.exists() {
        replace(new, destination, aside)?;
    } else {
        std::fs::rename(new, destination).map_err(Error::io(destination))?;
    }
    sync_folder(parent_of(destination))
}

/// Puts a new folder in the place of the old one, which stays in `aside`.
fn replace(new: &Path, destination: &Path, aside: &Path) -> Result<()> {
    if exchange(new, destination) {
        return Ok(());
    }
    // Not atomic: a process killed between the two renames leaves no destination. The next output made beside it moves
    // the old folder back.
    let failed = Error::io(destination);
    let old = aside.join(OLD_FOLDER);
    std::fs::create_dir_all(&old).map_err(Error::io(&old))?;
    let old = old.join(destination.file_name().unwrap_or(OsStr::new(OLD_FOLDER)));
    std::fs::rename(destination, &old).map_err(Error::io(destination))?;
    std::fs::rename(new, destination).map_err(|error| {
        // nothing better can be done if this fails too, and the first error is the one to report
        let _ = std::fs::rename(&old, destination);
        failed(error)
    })
}

/// True for the names of temporary files and folders, as [`AtomicFile`] and [`AtomicFolder`] give them.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Removes the temporary files and folders that killed processes left in `folder`. Those of running processes stay.
///
/// Errors are ignored, as for files of other users and file systems without locks.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_temporary(&name) {
            let path = entry.path();
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => remove_left_folder(&path, folder),
                Ok(kind) if kind.is_file() => remove_left_file(&path),
                Ok(_) | Err(_) => Ok(()),
            };
        }
    }
}

fn remove_left_file(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    if file.try_lock().is_ok() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn remove_left_folder(path: &Path, parent: &Path) -> io::Result<()> {
    // a process killed between making the folder and the file left none
    let lock = File::options().write(true).create(true).truncate(false).open(path.join(LOCK_FILE))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    move_back(path, parent)?;
    std::fs::remove_dir_all(path)
}

/// Moves a former destination that is in `aside` back to `parent`, if a process was killed between the two renames.
pub(crate) fn move_back(aside: &Path, parent: &Path) -> io::Result<()> {
    let Ok(old) = std::fs::read_dir(aside.join(OLD_FOLDER)) else { return Ok(()) };
    for entry in old {
        let entry = entry?;
        let destination = parent.join(entry.file_name());
        if !destination.exists() {
            std::fs::rename(entry.path(), destination)?;
        }
    }
    Ok(())
}

/// Locks a temporary file as one of a running process. False if another process took it for a leftover.
fn claim(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Ok(()) => path.exists(),
        Err(TryLockError::WouldBlock) => false,
        // a file system without locks, where leftovers are not removed either
        Err(TryLockError::Error(_)) => true,
    }
}

/// Exchanges two folders in one step. False if the system or the file system cannot.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(new: &Path, old: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_new: &Path, _old: &Path) -> bool {
    false
}

/// Puts every file and folder under `folder` on disk.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(Error::io(entry.path()))?);
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            sync(&path)?;
        }
    }
    sync_folder(folder)
}

/// Syncs the names of a folder to disk: a rename that is only in memory is lost in a power failure.
fn sync_folder(folder: &Path) -> Result<()> {
    sync(folder)
}

#[cfg(unix)]
fn sync(path: &Path) -> Result<()> {
    match File::open(path).and_then(|file| file.sync_all()) {
        // some file systems cannot sync a folder, and some do not need to
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result.map_err(Error::io(path)),
    }
}

/// On other systems, folders cannot be opened, and only the writer of a file can sync it.
#[cfg(not(unix))]
fn sync(_path: &Path) -> Result<()> {
    Ok(())
}

/// The folder above `destination`.
fn parent_of(destination: &Path) -> &Path {
    match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The folder above `destination`, made if need be.
pub(crate) fn make_parent(destination: &Path) -> Result<&Path> {
    let parent = parent_of(destination);
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    Ok(parent)
}

/// Gives a result the permissions that the user's umask grants. Temporary files are for their owner only.
#[cfg(unix)]
fn open_to_others(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn open_to_others(_: &mut tempfile::Builder<'_, '_>) {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/out.txt");
        AtomicFile::write_whole(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_replaces_the_old_one_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/result");
        for name in ["first", "second"] {
            let folder = AtomicFolder::create(&path).unwrap();
            std::fs::write(folder.path().join(name), name).unwrap();
            folder.commit().unwrap();
        }
        drop(AtomicFolder::create(&path).unwrap());
        assert!(path.join("second").is_file() && !path.join("first").exists());
        assert_eq!(std::fs::read_dir(place.path().join("deep")).unwrap().count(), 1);
    }

    pub(crate) fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn leftovers_of_killed_processes_are_removed_and_those_of_living_ones_stay() {
        let place = tempfile::tempdir().unwrap();
        let (file, folder) = (place.path().join("file"), place.path().join("folder"));
        let mut live_file = AtomicFile::create(&file).unwrap();
        let live_folder = AtomicFolder::create(&folder).unwrap();
        std::fs::write(live_folder.path().join("a"), "a").unwrap();
        let live = names(place.path());
        assert_eq!(live.len(), 2);
        // a killed process: the same names, and nobody holds a lock
        std::fs::write(place.path().join(".splade-killed.tmp"), "half").unwrap();
        for (name, lock) in [(".splade-early.tmp", false), (".splade-late.tmp", true)] {
            std::fs::create_dir_all(place.path().join(name).join(NEW_FOLDER).join("deep")).unwrap();
            if lock {
                std::fs::write(place.path().join(name).join(LOCK_FILE), "").unwrap();
            }
        }
        // not ours
        std::fs::write(place.path().join(".splade-notes"), "").unwrap();
        assert_eq!(names(place.path()).len(), 6);
        AtomicFile::write_whole(&place.path().join("other"), b"").unwrap();
        let mut expected = [live, vec![".splade-notes".into(), "other".into()]].concat();
        expected.sort();
        assert_eq!(names(place.path()), expected);
        live_file.write_all(b"whole").unwrap();
        live_file.commit().unwrap();
        live_folder.commit().unwrap();
        assert_eq!(names(place.path()), [".splade-notes", "file", "folder", "other"]);
        assert_eq!((std::fs::read(file).unwrap(), names(&folder)), (b"whole".to_vec(), vec!["a".to_owned()]));
    }

    /// A process may be killed between two renames, if the system cannot exchange two folders in one step.
    #[test]
    fn a_folder_moved_away_by_a_killed_process_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join(".splade-killed.tmp");
        std::fs::create_dir_all(left.join(NEW_FOLDER)).unwrap();
        for name in ["result", "there"] {
            std::fs::create_dir_all(left.join(OLD_FOLDER).join(name)).unwrap();
            std::fs::write(left.join(OLD_FOLDER).join(name).join("old"), "").unwrap();
        }
        std::fs::create_dir(place.path().join("there")).unwrap();
        remove_leftovers(place.path());
        assert_eq!(names(place.path()), ["result", "there"]);
        assert_eq!(
            (names(&place.path().join("result")), names(&place.path().join("there"))),
            (vec!["old".into()], vec![])
        );
    }

    #[cfg(unix)]
    #[test]
    fn results_are_as_open_as_anything_the_user_makes() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (ours, theirs) = (place.path().join("ours"), place.path().join("theirs"));
        AtomicFile::write_whole(&ours.join("file"), b"").unwrap();
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("file"), b"").unwrap();
        assert_eq!(mode(&ours.join("file")), mode(&theirs.join("file")));
        AtomicFolder::create(&place.path().join("folder")).unwrap().commit().unwrap();
        assert_eq!(mode(&place.path().join("folder")), mode(&theirs));
    }
}
