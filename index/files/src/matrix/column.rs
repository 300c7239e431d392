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
    /// bytes of the numbers that are read together
    part: Vec<u8>,
    wholes: Vec<u64>,
    floats: Vec<f32>,
}

/// Most numbers that are read together. The number of entries of a row comes from the file, and may be wrong.
const PART: u64 = 1024;

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
        let (part, wholes, floats) = Default::default();
        Ok(Self { path: path.to_owned(), name, reader, numbers, left: count, part, wholes, floats })
    }

    /// Number of numbers that are not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Reads the next whole number.
    pub(super) fn next_whole(&mut self) -> Result<u64> {
        Ok(self.next_wholes(1)?.first().copied().unwrap_or_default())
    }

    /// Reads the next whole numbers: `most`, or [`PART`] if that is less.
    pub(super) fn next_wholes(&mut self, most: u64) -> Result<&[u64]> {
        self.read_part(most)?;
        let (fours, eights) = (self.part.as_chunks().0, self.part.as_chunks().0);
        self.wholes.clear();
        let mut negative = None;
        let mut signed = |number: i64| {
            negative = negative.or(Some(number).filter(|number| *number < 0));
            number.cast_unsigned()
        };
        match self.numbers {
            NumberType::I32 => self.wholes.extend(fours.iter().map(|four| signed(i32::from_le_bytes(*four).into()))),
            NumberType::U32 => self.wholes.extend(fours.iter().map(|four| u64::from(u32::from_le_bytes(*four)))),
            NumberType::I64 => self.wholes.extend(eights.iter().map(|eight| signed(i64::from_le_bytes(*eight)))),
            _ => self.wholes.extend(eights.iter().map(|eight| u64::from_le_bytes(*eight))),
        }
        match negative {
            Some(number) => Err(Error::file(&self.path, format!("{} has the number {number}", self.name))),
            None => Ok(&self.wholes),
        }
    }

    /// Reads the next floats: `most`, or [`PART`] if that is less.
    pub(super) fn next_floats(&mut self, most: u64) -> Result<&[f32]> {
        self.read_part(most)?;
        self.floats.clear();
        match self.numbers {
            NumberType::F16 => {
                self.floats.extend(self.part.as_chunks().0.iter().map(|two| half::f16::from_le_bytes(*two).to_f32()))
            }
            NumberType::F64 => {
                self.floats.extend(self.part.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight) as f32))
            }
            _ => self.floats.extend(self.part.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four))),
        }
        Ok(&self.floats)
    }

    /// Reads the bytes of the next numbers into `part`.
    fn read_part(&mut self, most: u64) -> Result<()> {
        let count = most.min(PART);
        let read = match self.left.checked_sub(count) {
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Some(left) => {
                self.left = left;
                self.part.resize(count as usize * self.numbers.width(), 0);
                self.reader.read_exact(&mut self.part)
            }
        };
        match read {
            Ok(()) => Ok(()),
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
    Ok(Box::new(BufReader::with_capacity(1 << 16, file.take(len))))
}
