//! Destinations of results: stdout and atomic files. An existing file is replaced only with `--overwrite`.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_files::{AtomicFile, Error};

use crate::failure::bad_input;

/// Name of stdout in messages.
const STDOUT: &str = "<stdout>";

/// Prints a result and a line break to stdout.
///
/// `println!` would panic on a pipe that its reader has closed.
pub(crate) fn say(line: impl Display) -> Result<()> {
    print(format_args!("{line}\n"))
}

/// Prints a result to stdout.
pub(crate) fn print(text: impl Display) -> Result<()> {
    Ok(write!(io::stdout(), "{text}").map_err(Error::io(STDOUT))?)
}

/// Results on stdout or in an atomic file.
pub(crate) enum Output {
    Stdout(BufWriter<Stdout>),
    File {
        file: AtomicFile,
        path: PathBuf,
        /// removed last, when the temporary file is gone
        folders: NewFolders,
    },
}

impl Output {
    /// Opens stdout for `None` and `-`, else a file.
    ///
    /// # Errors
    /// A file that exists already, without `overwrite`; a folder that cannot be written.
    pub(crate) fn open(path: Option<&Path>, overwrite: bool) -> Result<Self> {
        match path {
            None => Ok(Self::Stdout(BufWriter::new(io::stdout()))),
            Some(path) if path.as_os_str() == "-" => Self::open(None, overwrite),
            Some(path) => {
                refuse_existing(path, overwrite)?;
                let folders = NewFolders::above(path);
                Ok(Self::File { file: AtomicFile::create(path)?, path: path.to_owned(), folders })
            }
        }
    }

    /// Calls `write` with this output.
    ///
    /// # Errors
    /// The error of `write`, with the name of the output.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<()> {
        Ok(write(self).map_err(Error::io(self.name()))?)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// A full disk, a closed pipe; the message has the name of the output.
    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(|output| output.write_all(bytes))
    }

    /// Writes all bytes of a file to disk, so that [`finish`](Self::finish) has little left that can fail.
    ///
    /// # Errors
    /// A full disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        match self {
            Self::Stdout(stdout) => Ok(stdout.flush().map_err(Error::io(STDOUT))?),
            Self::File { file, .. } => Ok(file.sync()?),
        }
    }

    /// Flushes the output and commits a file.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut stdout) => Ok(stdout.flush().map_err(Error::io(STDOUT))?),
            Self::File { file, folders, .. } => {
                file.commit()?;
                folders.keep();
                Ok(())
            }
        }
    }

    fn name(&self) -> PathBuf {
        match self {
            Self::Stdout(_) => STDOUT.into(),
            Self::File { path, .. } => path.clone(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

/// Folders that are missing above an output. Dropped before [`keep`](Self::keep), it removes those that were made since
/// and are empty, so that a failed command leaves no folders behind.
pub(crate) struct NewFolders {
    /// the topmost missing folder; none if all exist
    top: Option<PathBuf>,
}

impl NewFolders {
    /// Finds the missing folders above `path`.
    pub(crate) fn above(path: &Path) -> Self {
        let above = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        Self { top: above.take_while(|folder| !folder.exists()).last().map(Path::to_owned) }
    }

    /// Keeps the folders: the output is complete.
    pub(crate) fn keep(mut self) {
        self.top = None;
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        if let Some(top) = &self.top {
            remove_empty(top);
        }
    }
}

/// Removes a folder and the folders below it where they are empty.
fn remove_empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // the system refuses to remove a folder with files in it
    let _ = std::fs::remove_dir(folder);
}

/// Refuses an output that exists, unless `overwrite` is given.
pub(crate) fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if path.exists() && !overwrite {
        return Err(bad_input(format!("{}: exists already", path.display()), "give --overwrite to replace it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_new_folders_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/out.txt");
        let make = |with_file: bool| {
            std::fs::create_dir_all(root.path().join("a/b/c")).unwrap();
            if with_file {
                std::fs::write(&path, "kept").unwrap();
            }
        };
        let folders = NewFolders::above(&path);
        make(false);
        drop(folders);
        assert!(!root.path().join("a").exists());
        let folders = NewFolders::above(&path);
        make(true);
        drop(folders);
        assert!(path.is_file() && !root.path().join("a/b/c").exists());
        std::fs::remove_file(&path).unwrap();
        drop(NewFolders::above(&path));
        assert!(root.path().join("a/b").is_dir(), "a folder that existed stays");
        std::fs::remove_dir_all(root.path().join("a")).unwrap();
        let folders = NewFolders::above(&path);
        make(false);
        folders.keep();
        assert!(root.path().join("a/b/c").is_dir());
    }
}
