//! [`AtomicFile`]: an output that appears complete or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

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
        let folder = match destination.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".splade-").suffix(".tmp");
        open_to_others(&mut builder);
        let file = builder.tempfile_in(folder).map_err(Error::io(folder))?;
        Ok(Self { destination: destination.to_owned(), file: BufWriter::new(file) })
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
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"old").unwrap();
        file.commit().unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
