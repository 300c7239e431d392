//! [`EventWriter`]: event files for TensorBoard.
//!
//! No maintained crate writes them, so the few bytes of their format are here: records with masked CRC-32C sums around
//! protobuf messages of four fields.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::log::append_or_restore;
use crate::{Error, Result};

/// Start of the names of event files, before the seconds.
const PREFIX: &str = "events.out.tfevents.";
/// Part of the name that other programs' event files do not have.
const PROGRAM: &str = ".splade.";

/// Writes an event file that TensorBoard reads.
#[derive(Debug)]
pub(crate) struct EventWriter {
    path: PathBuf,
    file: File,
    /// bytes of complete records in the file
    written: u64,
    pending: Vec<u8>,
}

impl EventWriter {
    /// Starts a new event file in `folder`, which is made too.
    ///
    /// The file opens with a session start at `first_step`: TensorBoard then drops what earlier files of the folder hold
    /// at that step and later, so a resumed run shows each step once.
    ///
    /// # Errors
    /// The folder or file cannot be written; no file is left behind then.
    pub(crate) fn create(folder: &Path, first_step: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (path, file) = new_file(folder, now.as_secs())?;
        let mut writer = Self { path, file, written: 0, pending: Vec::new() };
        writer.record(&event(now.as_secs_f64(), 0, &bytes_field(3, b"brain.Event:2")));
        // SessionLog { status: START }
        writer.record(&event(now.as_secs_f64(), first_step as u64, &bytes_field(7, &[1 << 3, 1])));
        if let Err(error) = writer.flush() {
            // the first error is the one to report
            let _ = std::fs::remove_file(&writer.path);
            return Err(error);
        }
        Ok(writer)
    }

    /// Adds a scalar under `tag` at an optimizer step.
    pub(crate) fn scalar(&mut self, tag: &str, step: usize, value: f64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut scalar = bytes_field(1, tag.as_bytes());
        scalar.push(2 << 3 | 5);
        scalar.extend((value as f32).to_le_bytes());
        let summary = bytes_field(1, &scalar);
        self.record(&event(now.as_secs_f64(), step as u64, &bytes_field(5, &summary)));
    }

    /// Writes what was added to the file.
    ///
    /// # Errors
    /// The file cannot be written; it then ends with the last complete record.
    pub(crate) fn flush(&mut self) -> Result<()> {
        append_or_restore(&mut self.file, self.written, &self.pending).map_err(Error::io(&self.path))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn record(&mut self, payload: &[u8]) {
        let length = (payload.len() as u64).to_le_bytes();
        self.pending.extend(length);
        self.pending.extend(masked_crc32c(&length).to_le_bytes());
        self.pending.extend(payload);
        self.pending.extend(masked_crc32c(payload).to_le_bytes());
    }
}

/// Removes the event files that this program has written into `folder`.
pub(crate) fn remove_event_files(folder: &Path) -> Result<()> {
    for (path, _) in event_files(folder)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(PROGRAM)) {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// The event files of a folder with the seconds in their names; none if there is no such folder.
fn event_files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let seconds = path.file_name().and_then(|name| seconds_of(&name.to_string_lossy()));
        files.extend(seconds.map(|seconds| (path, seconds)));
    }
    Ok(files)
}

fn seconds_of(name: &str) -> Option<u64> {
    // eleven digits last until the year 5138; a longer number is not a time
    name.strip_prefix(PREFIX)?.split('.').next().filter(|digits| digits.len() <= 11)?.parse().ok()
}

/// A new file `events.out.tfevents.<seconds>.splade.<process>.0`, named to be the last of its folder: TensorBoard reads
/// the files of a folder in the order of their names.
fn new_file(folder: &Path, seconds: u64) -> Result<(PathBuf, File)> {
    let newest = event_files(folder)?.into_iter().map(|(_, seconds)| seconds).max();
    let mut seconds = newest.map_or(seconds, |newest| seconds.max(newest.saturating_add(1)));
    loop {
        let path = folder.join(format!("{PREFIX}{seconds}{PROGRAM}{}.0", std::process::id()));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            // another writer of the same folder
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => seconds += 1,
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
}

/// Event { wall_time: 1, step: 2, … }
fn event(wall_time: f64, step: u64, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![1 << 3 | 1];
    message.extend(wall_time.to_le_bytes());
    message.push(2 << 3);
    varint(step, &mut message);
    message.extend(rest);
    message
}

/// A protobuf field of bytes, text or a message.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut field);
    field.extend(bytes);
    field
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The checksum of a TFRecord: masked, because a CRC over data that holds CRCs is weak.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with the Castagnoli polynomial, bit-reversed.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, &byte| (sum >> 8) ^ TABLE[((sum ^ u32::from(byte)) & 0xff) as usize])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Scalars by tag: (step, value), in the order of the file.
    pub(crate) type Scalars = BTreeMap<String, Vec<(u64, f32)>>;

    /// The fields of a protobuf message: number, and bytes or a number.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn read_varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = read_varint(&mut bytes);
            let value = match key & 7 {
                0 => read_varint(&mut bytes).to_le_bytes().to_vec(),
                wire @ (1 | 2 | 5) => {
                    let length = match wire {
                        1 => 8,
                        5 => 4,
                        _ => read_varint(&mut bytes) as usize,
                    };
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    value.to_vec()
                }
                wire => panic!("wire type {wire}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn field(fields: &[(u64, Vec<u8>)], number: u64) -> Option<&[u8]> {
        fields.iter().find(|(n, _)| *n == number).map(|(_, value)| value.as_slice())
    }

    /// Reads the event files of a folder as TensorBoard does: in the order of their names, and a session start drops the
    /// scalars of its step and later. Checks all sums.
    pub(crate) fn read_scalars(folder: &Path) -> Scalars {
        let mut files: Vec<PathBuf> = event_files(folder).unwrap().into_iter().map(|(path, _)| path).collect();
        files.sort();
        assert!(!files.is_empty(), "no event file in {}", folder.display());
        let mut scalars = Scalars::new();
        files.iter().for_each(|path| read_file(path, &mut scalars));
        scalars.retain(|_, values| !values.is_empty());
        scalars
    }

    fn read_file(path: &Path, scalars: &mut Scalars) {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut first = true;
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(rest[8..12].try_into().unwrap()), masked_crc32c(&rest[..8]));
            let payload = &rest[12..12 + length];
            assert_eq!(u32::from_le_bytes(rest[12 + length..16 + length].try_into().unwrap()), masked_crc32c(payload));
            rest = &rest[16 + length..];
            let event = fields(payload);
            if std::mem::take(&mut first) {
                assert_eq!(field(&event, 3), Some(b"brain.Event:2".as_slice()));
            }
            let step = field(&event, 2).map_or(0, |step| u64::from_le_bytes(step.try_into().unwrap()));
            if let Some(session) = field(&event, 7) {
                assert_eq!(fields(session), [(1, 1u64.to_le_bytes().to_vec())], "status: START");
                scalars.values_mut().for_each(|values| values.retain(|(at, _)| *at < step));
            }
            for value in field(&event, 5).map(fields).unwrap_or_default() {
                let value = fields(&value.1);
                if let Some(number) = field(&value, 2) {
                    let tag = String::from_utf8(field(&value, 1).unwrap().to_vec()).unwrap();
                    let number = f32::from_le_bytes(number.try_into().unwrap());
                    scalars.entry(tag).or_default().push((step, number));
                }
            }
        }
    }

    #[test]
    fn sums_are_castagnoli() {
        // The check value of the CRC catalogue.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_reader_of_these_tests_reads_the_reference() {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sparse-encoder/trainer-run");
        let expected = std::fs::read_to_string(format!("{fixtures}/tensorboard_expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
        let expected: Scalars = serde_json::from_value(expected["scalars"].clone()).unwrap();
        let mut scalars = Scalars::new();
        read_file(&Path::new(fixtures).join("runs/events.out.tfevents.reference"), &mut scalars);
        assert_eq!(scalars, expected);
    }

    #[test]
    fn a_later_event_file_comes_after_all_others() {
        let folder = tempfile::tempdir().unwrap();
        // of a clock that was ahead
        std::fs::write(folder.path().join("events.out.tfevents.1999999998.other.1.0"), "").unwrap();
        std::fs::write(folder.path().join("events.out.tfevents.no-time"), "").unwrap();
        let first = EventWriter::create(folder.path(), 0).unwrap();
        let second = EventWriter::create(folder.path(), 0).unwrap();
        assert!(first.path.ends_with(format!("events.out.tfevents.1999999999.splade.{}.0", std::process::id())));
        assert!(first.path != second.path && second.path.exists());
        remove_event_files(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "files of others stay");
        remove_event_files(&folder.path().join("none")).unwrap();
    }
}
