//! [`Spill`]: a temporary file without a name, written once and then read.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Bytes that are written or read at once.
const BUFFER: usize = 1 << 18;

/// A file that the system removes when the process ends.
pub(super) struct Spill {
    /// the folder, for errors
    folder: PathBuf,
    file: BufWriter<File>,
}

impl Spill {
    /// Makes a file in `folder`.
    pub(super) fn in_folder(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder))?;
        Ok(Self { folder: folder.to_owned(), file: BufWriter::with_capacity(BUFFER, file) })
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.folder))
    }

    /// A reader of all bytes from the first on.
    pub(super) fn into_reader(self) -> Result<BufReader<File>> {
        let mut file = self.file.into_inner().map_err(|error| Error::io(&self.folder)(error.into_error()))?;
        file.rewind().map_err(Error::io(&self.folder))?;
        Ok(BufReader::with_capacity(BUFFER, file))
    }

    /// Copies all bytes to `out`.
    pub(super) fn copy_to(self, out: &mut impl Write) -> io::Result<()> {
        let mut reader = self.into_reader().map_err(io::Error::other)?;
        io::copy(&mut reader, out).map(drop)
    }
}
