//! [`ProtobufFile`]: a protobuf file whose fields are found, read and copied one by one.
//!
//! The values of weights are skipped without reading them, so that the fields of a large file are found quickly.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use prost::Message;

/// Most fields of a message: far above the number of nodes of any graph.
const MOST_FIELDS: usize = 1 << 20;

/// A field of an encoded message: its number, and the byte ranges of the field and of its value.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) tag: u32,
    pub(crate) whole: Range<u64>,
    pub(crate) payload: Range<u64>,
}

/// Piece of a new message: a field of the old one, or bytes.
pub(crate) enum Part {
    Kept(Range<u64>),
    Written(Vec<u8>),
}

impl Part {
    pub(crate) fn message(tag: u32, message: &impl Message) -> Self {
        let mut bytes = head(tag, message.encoded_len() as u64);
        bytes.extend(message.encode_to_vec());
        Self::Written(bytes)
    }

    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Kept(range) => range.end - range.start,
            Self::Written(bytes) => bytes.len() as u64,
        }
    }
}

/// Key and length in front of a message.
pub(crate) fn head(tag: u32, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(length, &mut bytes);
    bytes
}

/// A protobuf file, open for reading.
pub(crate) struct ProtobufFile {
    file: BufReader<File>,
    pub(crate) length: u64,
    at: u64,
}

impl ProtobufFile {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), length, at: 0 })
    }

    fn seek(&mut self, to: u64) -> io::Result<()> {
        match i64::try_from(to).and_then(|to| i64::try_from(self.at).map(|at| to - at)) {
            Ok(by) => self.file.seek_relative(by)?,
            Err(_) => drop(self.file.seek(SeekFrom::Start(to))?),
        }
        self.at = to;
        Ok(())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for place in 0..10 {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << (7 * place).min(63);
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Fields of the message in `range`.
    pub(crate) fn fields(&mut self, range: Range<u64>) -> io::Result<Vec<Field>> {
        let mut fields = Vec::new();
        let mut start = range.start;
        while start < range.end {
            if fields.len() == MOST_FIELDS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.seek(start)?;
            let key = self.varint()?;
            let payload = match key & 7 {
                0 => {
                    let from = self.at;
                    self.varint()?;
                    from..self.at
                }
                1 => self.at..self.at + 8,
                2 => {
                    let length = self.varint()?;
                    self.at..self.at.checked_add(length).ok_or(io::ErrorKind::InvalidData)?
                }
                5 => self.at..self.at + 4,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            if payload.end > range.end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let tag = u32::try_from(key >> 3).map_err(|_| io::ErrorKind::InvalidData)?;
            start = payload.end;
            fields.push(Field { tag, whole: start_of(&fields, range.start)..start, payload });
        }
        Ok(fields)
    }

    /// Bytes of a range.
    pub(crate) fn bytes(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.seek(range.start)?;
        let read = self.file.read_exact(&mut bytes);
        self.at = self.file.stream_position()?;
        read?;
        Ok(bytes)
    }

    /// The message in a field.
    pub(crate) fn message<M: Message + Default>(&mut self, field: &Field) -> io::Result<M> {
        Ok(M::decode(self.bytes(field.payload.clone())?.as_slice())?)
    }

    /// The messages in all fields of a number.
    pub(crate) fn all<M: Message + Default>(&mut self, fields: &[Field], tag: u32) -> io::Result<Vec<M>> {
        fields.iter().filter(|field| field.tag == tag).map(|field| self.message(field)).collect()
    }

    /// Bytes of a message of these parts.
    pub(crate) fn joined(&mut self, parts: &[Part]) -> io::Result<Vec<u8>> {
        let length = parts.iter().map(Part::length).sum::<u64>();
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?);
        for part in parts {
            match part {
                Part::Written(written) => bytes.extend(written),
                Part::Kept(range) => {
                    self.seek(range.start)?;
                    let read = self.file.by_ref().take(range.end - range.start).read_to_end(&mut bytes)?;
                    self.at += read as u64;
                    if read as u64 != range.end - range.start {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// Start of the next field.
fn start_of(fields: &[Field], first: u64) -> u64 {
    fields.last().map_or(first, |last| last.whole.end)
}
