//! [`Lines`]: the lines of a plain, gzip or zstd file, or of stdin.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use crate::read::open_file;
use crate::{Error, Result};

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Splits `.gz` or `.zst` off a lower-case file name.
    pub(crate) fn split(name: &str) -> (Self, &str) {
        if let Some(stem) = name.strip_suffix(".gz") {
            (Self::Gzip, stem)
        } else if let Some(stem) = name.strip_suffix(".zst") {
            (Self::Zstd, stem)
        } else {
            (Self::None, name)
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Lines of text, read one at a time into one buffer.
pub(crate) struct Lines {
    path: Arc<Path>,
    compression: Compression,
    reader: Box<dyn BufRead + Send>,
    line: usize,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn open(path: &Path, compression: Compression) -> Result<Self> {
        let file = BufReader::new(open_file(path)?);
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(file),
            // a file may have several members (`cat a.gz b.gz`)
            Compression::Gzip => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))),
            Compression::Zstd => Box::new(BufReader::new(zstd::Decoder::with_buffer(file).map_err(Error::io(path))?)),
        };
        Ok(Self::new(path, compression, reader))
    }

    pub(crate) fn stdin() -> Self {
        Self::new(Path::new("<stdin>"), Compression::None, Box::new(BufReader::new(io::stdin())))
    }

    fn new(path: &Path, compression: Compression, reader: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.into(), compression, reader, line: 0, buffer: Vec::new() }
    }

    /// Name of this input in errors.
    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Number of the last line read, from 1.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// Returns the first byte in the buffer that is not white space, without consuming it.
    pub(crate) fn peek(&mut self) -> Result<Option<u8>> {
        match self.reader.fill_buf() {
            Ok(bytes) => {
                let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
                Ok(bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace()))
            }
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// Reads the next line, without its line end; none at the end of the input.
    pub(crate) fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        self.line += 1;
        match self.reader.read_until(b'\n', &mut self.buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(self.read_error(error)),
        }
        let mut bytes = self.buffer.as_slice();
        bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if self.line == 1 {
            bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let message = format!("not UTF-8, from byte {} of the line", error.valid_up_to() + 1);
                Err(Error::line(&*self.path, self.line, message))
            }
        }
    }

    /// Error of a read: an error of the system has a code, all others are of damaged compressed data and get the line.
    fn read_error(&self, error: io::Error) -> Error {
        if self.compression == Compression::None || error.raw_os_error().is_some() {
            return Error::io(&*self.path)(error);
        }
        let message = format!("the {} data is damaged or truncated: {error}", self.compression.name());
        Error::line(&*self.path, self.line.max(1), message)
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
