//! [`Column`]: the numbers of an array, read from a part of a file.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::read::open_file;
use crate::{Error, Result};

/// Type of the numbers, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberType {
    I32,
    I64,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl NumberType {
    fn width(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::I32 | Self::I64 | Self::U32 | Self::U64)
    }
}

/// An array of one dimension.
pub(super) struct Column {
    path: PathBuf,
    name: &'static str,
    reader: Box<dyn BufRead + Send>,
    numbers: NumberType,
    left: u64,
}

impl Column {
    /// The array `name` of `count` numbers, which `reader` has.
    pub(super) fn new(
        path: &Path,
        name: &'static str,
        reader: Box<dyn BufRead + Send>,
        numbers: NumberType,
        count: u64,
    ) -> Result<Self> {
        let expected_whole = name != DATA;
        if numbers.is_whole() != expected_whole {
            let expected = if expected_whole { "whole numbers" } else { "floats" };
            return Err(Error::file(path, format!("{name} has numbers of the type {numbers:?}, not {expected}")));
        }
        Ok(Self { path: path.to_owned(), name, reader, numbers, left: count })
    }

    /// Number of numbers that are not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Reads the next whole number.
    pub(super) fn next_whole(&mut self) -> Result<u64> {
        let bytes = self.next_bytes()?;
        let four = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let number = match self.numbers {
            NumberType::I32 => i128::from(i32::from_le_bytes(four)),
            NumberType::U32 => i128::from(u32::from_le_bytes(four)),
            NumberType::I64 => i128::from(i64::from_le_bytes(bytes)),
            _ => i128::from(u64::from_le_bytes(bytes)),
        };
        u64::try_from(number).map_err(|_| Error::file(&self.path, format!("{} has the number {number}", self.name)))
    }

    /// Reads the next float.
    pub(super) fn next_float(&mut self) -> Result<f32> {
        let bytes = self.next_bytes()?;
        Ok(match self.numbers {
            NumberType::F16 => half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            NumberType::F64 => f64::from_le_bytes(bytes) as f32,
            _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        })
    }

    /// The bytes of the next number, with zeros behind them.
    fn next_bytes(&mut self) -> Result<[u8; 8]> {
        let mut bytes = [0; 8];
        let read = match self.left.checked_sub(1) {
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Some(left) => {
                self.left = left;
                self.reader.read_exact(&mut bytes[..self.numbers.width()])
            }
        };
        match read {
            Ok(()) => Ok(bytes),
            Err(error) if error.raw_os_error().is_some() => Err(Error::io(&self.path)(error)),
            Err(_) => Err(Error::file(&self.path, format!("{} is damaged or truncated", self.name))),
        }
    }
}

/// Name of the array of weights.
pub(super) const DATA: &str = "data";

/// Opens the bytes of a file from `start`, `len` of them.
pub(super) fn open_part(path: &Path, start: u64, len: u64) -> Result<Box<dyn BufRead + Send>> {
    let mut file = open_file(path)?;
    file.seek(SeekFrom::Start(start)).map_err(Error::io(path))?;
    Ok(Box::new(BufReader::new(file.take(len))))
}
