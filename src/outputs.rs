//! Where results go: stdout or a file that appears whole, a folder that appears whole; nothing replaced unasked.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use splade_files::AtomicFile;

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
