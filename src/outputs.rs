//! Where results go: stdout or a file that appears whole, a folder that appears whole; nothing replaced unasked.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_index::AtomicFile;

use crate::failure::bad_input;

/// A result as a line on stdout. Unlike `println!` it does not panic when nobody reads it any more.
pub(crate) fn say(line: impl Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Results on stdout, or in a file that takes its name only when it is complete.
pub(crate) enum Output {
    Stdout(std::io::BufWriter<std::io::Stdout>),
    File(AtomicFile),
}

impl Output {
    /// Opens stdout for `None` and `-`; a file that exists is an error without `overwrite`.
    pub(crate) fn open(path: Option<&Path>, overwrite: bool) -> Result<Self> {
        match path {
            None => Ok(Self::Stdout(std::io::BufWriter::new(std::io::stdout()))),
            Some(path) if path.as_os_str() == "-" => Self::open(None, overwrite),
            Some(path) => {
                refuse_existing(path, overwrite)?;
                Ok(Self::File(AtomicFile::create(path)?))
            }
        }
    }

    /// Flushes, and gives a file its name.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut stdout) => Ok(stdout.flush()?),
            Self::File(file) => Ok(file.commit()?),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

/// An output that exists is an error without `overwrite`.
pub(crate) fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if path.exists() && !overwrite {
        return Err(bad_input(format!("{}: exists already", path.display()), "give --overwrite to replace it"));
    }
    Ok(())
}

/// A folder written beside its place, and renamed to it when it is complete.
pub(crate) struct NewFolder {
    place: PathBuf,
    aside: tempfile::TempDir,
}

impl NewFolder {
    pub(crate) fn create(place: &Path) -> Result<Self> {
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let make = || -> std::io::Result<tempfile::TempDir> {
            std::fs::create_dir_all(parent)?;
            tempfile::Builder::new().prefix(".splade-").suffix(".part").tempdir_in(parent)
        };
        let aside = make().map_err(splade_index::Error::io(parent))?;
        Ok(Self { place: place.to_owned(), aside })
    }

    /// Where to write meanwhile.
    pub(crate) fn path(&self) -> &Path {
        self.aside.path()
    }

    /// Puts the folder in its place; what was there before is removed last.
    pub(crate) fn finish(self) -> Result<()> {
        let place = self.place;
        let aside = self.aside.keep();
        let swap = || -> std::io::Result<()> {
            open_to_others(&aside)?;
            if place.exists() {
                let old = aside.with_extension("old");
                std::fs::rename(&place, &old)?;
                std::fs::rename(&aside, &place)?;
                std::fs::remove_dir_all(&old)
            } else {
                std::fs::rename(&aside, &place)
            }
        };
        Ok(swap().map_err(splade_index::Error::io(&place))?)
    }
}

/// Temporary folders are for their owner only; a result is for whom anybody's results are.
#[cfg(unix)]
fn open_to_others(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> std::io::Result<()> {
    Ok(())
}
