//! [`merge_vectors`]: the vector files of all shards as the file of one run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use splade_core::hex;

use super::row::split_row;
use super::{DistinctIds, IdsDigest, Partition, ShardFile, ShardManifest};
use crate::{Error, Result, open_file};

/// Calls `sink` with the lines of all shards in the order of their input, each with its line break, as one run over the whole input
/// writes them. Returns their number.
///
/// `shards` is a set of [`complete_set`](super::complete_set). Each file is read once, so that the lines are good only if no error
/// follows. Memory does not grow with the files: of each shard there is one line, and ids are compared by way of files
/// without names in `folder`.
///
/// # Errors
/// A file that is damaged or not the one of its manifest; a document of another shard; a position that is missing or occurs twice;
/// an id that occurs twice; errors of `sink`.
pub fn merge_vectors<E: From<Error>>(
    shards: &[(PathBuf, ShardManifest)],
    folder: &Path,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut readers =
        shards.iter().map(|(path, manifest)| ShardReader::open(path, manifest)).collect::<Result<Vec<_>>>()?;
    let mut ids = DistinctIds::new(folder)?;
    let by_ids = shards.first().is_some_and(|(_, manifest)| manifest.partition == Partition::Ids);
    let mut written = 0;
    let mut gap = None;
    let mut write = |reader: &mut ShardReader<'_>, source: usize| {
        let Some(row) = reader.row else { return Ok(false) };
        let expected = if by_ids { written } else { reader.n_rows - 1 };
        if row != expected {
            gap = Some(reader.error(format!("row {row} of the input, expected row {expected}")));
            return Ok(false);
        }
        ids.add(&reader.id, source as u32, reader.line as u64)?;
        reader.head.push_str("}\n");
        sink(reader.head.as_bytes())?;
        written += 1;
        reader.read()?;
        Ok::<bool, E>(true)
    };
    if by_ids {
        let mut next: BinaryHeap<_> =
            readers.iter().enumerate().filter_map(|(at, reader)| Some(Reverse((reader.row?, at)))).collect();
        while let Some(Reverse((_, at))) = next.pop() {
            if !write(&mut readers[at], at)? {
                break;
            }
            next.extend(readers[at].row.map(|row| Reverse((row, at))));
        }
    } else {
        for (at, reader) in readers.iter_mut().enumerate() {
            while write(reader, at)? {}
        }
    }
    // a damaged file is named first: after a gap, the next row may be one of another file
    readers.into_iter().try_for_each(ShardReader::finish)?;
    if let Some(gap) = gap {
        return Err(gap.into());
    }
    refuse_double(ids, shards)?;
    Ok(written)
}

fn refuse_double(ids: DistinctIds, shards: &[(PathBuf, ShardManifest)]) -> Result<()> {
    let Some((id, [(first, line), (second, again)])) = ids.find_double()? else { return Ok(()) };
    let first = shards[first as usize].0.display();
    Err(Error::line(&shards[second as usize].0, again as usize, format!("the id {id:?} is also in {first}:{line}")))
}

/// Lines of a shard, one at a time, compared with its manifest.
struct ShardReader<'a> {
    path: &'a Path,
    manifest: &'a ShardManifest,
    file: BufReader<File>,
    hash: Sha256,
    bytes: u64,
    ids: IdsDigest,
    line: usize,
    buffer: Vec<u8>,
    /// lines read
    n_rows: u64,
    /// position of the line in the input; none after the last line
    row: Option<u64>,
    id: String,
    /// the line without the position and the last bracket
    head: String,
}

/// The part of a line that a merge reads.
#[derive(Deserialize)]
struct LineHead {
    _id: String,
}

impl<'a> ShardReader<'a> {
    fn open(path: &'a Path, manifest: &'a ShardManifest) -> Result<Self> {
        let mut reader = Self {
            path,
            manifest,
            file: BufReader::new(open_file(path)?),
            hash: Sha256::new(),
            bytes: 0,
            ids: IdsDigest::default(),
            line: 0,
            buffer: Vec::new(),
            n_rows: 0,
            row: None,
            id: String::new(),
            head: String::new(),
        };
        reader.read()?;
        Ok(reader)
    }

    /// Reads the next line.
    fn read(&mut self) -> Result<()> {
        self.buffer.clear();
        self.line += 1;
        // a damaged file may have one line of any length: one byte above the stated length is enough to find it
        let most = self.stated_bytes().saturating_sub(self.bytes) + 1;
        let mut limited = (&mut self.file).take(most);
        limited.read_until(b'\n', &mut self.buffer).map_err(Error::io(self.path))?;
        self.hash.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        if self.buffer.is_empty() {
            self.row = None;
            return Ok(());
        }
        let (head, row, id) = parse(&self.buffer).ok_or_else(|| self.error("damaged: not a line of a shard"))?;
        (self.head, self.row, self.id) = (head, Some(row), id);
        self.n_rows += 1;
        self.ids.add(&self.id);
        let shard = self.manifest.shard;
        if self.manifest.partition == Partition::Ids && !shard.takes(&self.id) {
            return Err(self.error(format!("the document {:?} is not of shard {shard}", self.id)));
        }
        Ok(())
    }

    fn stated_bytes(&self) -> u64 {
        self.manifest.file.as_ref().map_or(0, |file| file.bytes)
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::line(self.path, self.line, message)
    }

    /// Compares the whole file with the manifest.
    fn finish(mut self) -> Result<()> {
        while self.row.is_some() {
            self.read()?;
        }
        let found = ShardFile { bytes: self.bytes, sha256: hex(&self.hash.finalize()) };
        if self.manifest.file.as_ref() != Some(&found) {
            return Err(Error::file(self.path, "damaged, or not the file of its manifest: its checksum is wrong"));
        }
        if (self.ids.count(), self.ids.text()) != (self.manifest.documents, self.manifest.ids_digest.clone()) {
            return Err(Error::file(self.path, "its documents are not those of its manifest"));
        }
        Ok(())
    }
}

/// Splits a line into its text before the position, the position, and the id.
fn parse(line: &[u8]) -> Option<(String, u64, String)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (head, row) = split_row(line)?;
    let LineHead { _id } = serde_json::from_str(line).ok()?;
    Some((head.to_owned(), row, _id))
}
