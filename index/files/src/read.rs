//! Opening and reading files: each error names the path, and a git-lfs pointer is refused as one.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::{Error, Result};

/// Start of every git-lfs pointer, of any version of its specification.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Pointers are smaller than this by specification.
const POINTER_BYTES_MAX: u64 = 1024;

/// Opens a file to read.
///
/// A clone made without git-lfs has a few lines of text in place of each large file. Every reader opens its file
/// through here, so that this is said, and not what a parser makes of it.
///
/// # Errors
/// A file that is missing or cannot be read, or is a git-lfs pointer.
pub fn open_file(path: &Path) -> Result<File> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    if is_pointer(&mut file).map_err(Error::io(path))? {
        return Err(Error::file(path, "it is a git-lfs pointer; fetch the file itself (git lfs pull)"));
    }
    Ok(file)
}

/// Reads a whole file.
///
/// # Errors
/// As [`open_file`].
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text.
///
/// # Errors
/// As [`open_file`]; a file that is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_file(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::file(path, format!("not UTF-8, from byte {} of the file", at + 1))
    })
}

/// True for a git-lfs pointer. Leaves the file at its start. A pipe cannot be rewound and is not read.
fn is_pointer(file: &mut File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() >= POINTER_BYTES_MAX || metadata.len() < POINTER.len() as u64 {
        return Ok(false);
    }
    let mut start = [0; POINTER.len()];
    file.read_exact(&mut start)?;
    file.rewind()?;
    Ok(start == *POINTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "version https://git-lfs.github.com/spec/v1\n\
        oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 438007253\n";

    fn read(bytes: &[u8]) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        read_file(&path)
    }

    #[test]
    fn git_lfs_pointers_are_refused() {
        let message = read(EXAMPLE.as_bytes()).unwrap_err().to_string();
        assert!(message.ends_with("file: it is a git-lfs pointer; fetch the file itself (git lfs pull)"), "{message}");
        assert!(read(EXAMPLE.replace("v1", "v2").as_bytes()).is_err());
    }

    #[test]
    fn other_files_are_read_whole() {
        let long = EXAMPLE.repeat(10);
        for text in ["", "v", "version https://git-lfs.github.com/", "a text\n", &long] {
            assert_eq!(read(text.as_bytes()).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_text_that_is_not_utf8_is_named_with_its_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.txt");
        std::fs::write(&path, b"ab\xff").unwrap();
        let message = read_text(&path).unwrap_err().to_string();
        assert!(message.ends_with("t.txt: not UTF-8, from byte 3 of the file"), "{message}");
        let message = read_text(folder.path()).unwrap_err().to_string();
        assert!(message.starts_with(&folder.path().display().to_string()), "{message}");
    }
}
