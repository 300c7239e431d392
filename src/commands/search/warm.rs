//! `--warm`: reads the files of an index, so that the first query finds them in memory.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::Result;
use splade_files::Error;

use crate::commands::interrupt;

/// Reads every file below `folder` once. The operating system keeps what fits into memory.
///
/// A file that a writer removes in the meantime is left out.
pub(super) fn read_all(folder: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        // the message of a folder that is no index comes from opening it
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        interrupt::check()?;
        let entry = entry.map_err(Error::io(folder))?;
        let path = entry.path();
        if path.is_dir() {
            read_all(&path)?;
        } else {
            match File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path)(error).into()),
                _ => {}
            }
        }
    }
    Ok(())
}
