//! [`AtomicFile`] and [`AtomicFolder`]: outputs that appear complete or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::{Error, Result};

/// A buffered file that is written beside its destination and takes its place in [`commit`](Self::commit).
///
/// Dropped without a commit it leaves no trace, so an interrupted command leaves the old file or the new one.
#[derive(Debug)]
pub struct AtomicFile {
    destination: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Starts a file that will be at `destination`; missing folders above it are made.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn create(destination: &Path) -> Result<Self> {
        let folder = make_parent(destination)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".splade-").suffix(".tmp");
        open_to_others(&mut builder);
        let file = builder.tempfile_in(folder).map_err(Error::io(folder))?;
        Ok(Self { destination: destination.to_owned(), file: BufWriter::new(file) })
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

    /// Makes the file visible under its name, replacing what was there.
    ///
    /// # Errors
    /// The last bytes cannot be written or the file cannot be renamed.
    pub fn commit(self) -> Result<()> {
        let Self { destination, file } = self;
        let file = file.into_inner().map_err(|error| Error::io(&destination)(error.into_error()))?;
        file.as_file().sync_all().map_err(Error::io(&destination))?;
        let _: File = file.persist(&destination).map_err(|error| Error::io(&destination)(error.error))?;
        Ok(())
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
/// Dropped without a commit it leaves no trace; an interrupted command leaves the old folder or the new one.
#[derive(Debug)]
pub struct AtomicFolder {
    destination: PathBuf,
    aside: TempDir,
    folder: PathBuf,
}

impl AtomicFolder {
    /// Starts a folder that will be at `destination`; missing folders above it are made.
    ///
    /// # Errors
    /// The folder above cannot be made or written.
    pub fn create(destination: &Path) -> Result<Self> {
        let parent = make_parent(destination)?;
        let mut builder = tempfile::Builder::new();
        let aside = builder.prefix(".splade-").suffix(".tmp").tempdir_in(parent).map_err(Error::io(parent))?;
        // A temporary folder is for its owner only; one made in it is for whom the user's umask says.
        let folder = aside.path().join("new");
        std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
        Ok(Self { destination: destination.to_owned(), aside, folder })
    }

    /// Where to write meanwhile.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder visible under its name; what was there is removed when the new one is in its place.
    ///
    /// # Errors
    /// A folder cannot be renamed; the destination is as it was then.
    pub fn commit(self) -> Result<()> {
        let failed = Error::io(&self.destination);
        if !self.destination.exists() {
            return std::fs::rename(&self.folder, &self.destination).map_err(failed);
        }
        // removed with the temporary folder it is moved into
        let old = self.aside.path().join("old");
        std::fs::rename(&self.destination, &old).map_err(Error::io(&self.destination))?;
        std::fs::rename(&self.folder, &self.destination).map_err(|error| {
            // nothing better can be done if this fails too, and the first error is the one to report
            let _ = std::fs::rename(&old, &self.destination);
            failed(error)
        })
    }
}

/// The folder above `destination`, made if need be.
fn make_parent(destination: &Path) -> Result<&Path> {
    let parent = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    Ok(parent)
}

/// Temporary files are for their owner only; a result is for whom the user's umask says.
#[cfg(unix)]
fn open_to_others(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn open_to_others(_: &mut tempfile::Builder<'_, '_>) {}

#[cfg(test)]
mod tests {
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
