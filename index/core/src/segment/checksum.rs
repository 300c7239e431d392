//! Files with block checksums: the content, a CRC-32 per block of the content, and a trailer.
//!
//! | part | content |
//! |---|---|
//! | content | any bytes |
//! | table | CRC-32 (u32) of each block of 4096 bytes; the last block may be shorter |
//! | trailer | length of the content (u64), CRC-32 of the table and of that length (u32), version (u32), magic |
//!
//! All numbers are little endian. A reader checks a block when it first reads from it ([`CheckedBytes::get`]). Opening a file
//! therefore reads only its table, a thousandth of the file, and a search reads checked bytes only.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc32fast::Hasher;
use ownedbytes::OwnedBytes;

use super::format::Defect;

/// Number of bytes of a block.
pub const BLOCK_LEN: usize = 4096;
/// Last 8 bytes of a file with checksums.
const MAGIC: [u8; 8] = *b"SPLADEck";
const VERSION: u32 = 1;
const TRAILER_LEN: usize = 24;

/// Computes the table and the trailer of a file while its content is written.
#[derive(Debug, Default)]
pub struct BlockChecksums {
    len: u64,
    /// checksum of the incomplete block
    block: Hasher,
    table: Vec<u8>,
}

impl BlockChecksums {
    /// Adds the next bytes of the content.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = (self.len % BLOCK_LEN as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_LEN - filled));
            self.block.update(now);
            self.len += now.len() as u64;
            if filled + now.len() == BLOCK_LEN {
                self.end_block();
            }
            bytes = later;
        }
    }

    /// Table and trailer, to be written after the content.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if !self.len.is_multiple_of(BLOCK_LEN as u64) {
            self.end_block();
        }
        let len = self.len.to_le_bytes();
        let checksum = checksum_of_table(&self.table, &len);
        let mut end = self.table;
        end.extend_from_slice(&len);
        end.extend_from_slice(&checksum.to_le_bytes());
        end.extend_from_slice(&VERSION.to_le_bytes());
        end.extend_from_slice(&MAGIC);
        end
    }

    fn end_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.table.extend_from_slice(&block.finalize().to_le_bytes());
    }
}

fn checksum_of_table(table: &[u8], len: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(table);
    hasher.update(len);
    hasher.finalize()
}

/// Content of a file, mapped or in memory. If the file has checksums, blocks are checked when they are first read.
#[derive(Clone)]
pub struct CheckedBytes {
    content: OwnedBytes,
    /// number of bytes of `content` that can be read
    len: usize,
    table: Option<Arc<ChecksumTable>>,
}

struct ChecksumTable {
    checksums: OwnedBytes,
    /// one bit per block, set when the block was found intact
    intact: Box<[AtomicU64]>,
}

impl CheckedBytes {
    /// Wraps bytes without checksums. Every check passes.
    #[must_use]
    pub fn unchecked(content: OwnedBytes) -> Self {
        Self { len: content.len(), content, table: None }
    }

    /// Opens a file with checksums and checks its table; `None` if the file has no trailer.
    ///
    /// # Errors
    /// A damaged trailer or table, or another version.
    pub fn open(file: &OwnedBytes) -> Result<Option<Self>, Defect> {
        let Some((rest, trailer)) = file.split_last_chunk::<TRAILER_LEN>().filter(|(_, end)| end[16..] == MAGIC) else {
            return Ok(None);
        };
        let (len, checksum, version) = (&trailer[..8], number(&trailer[8..12]), number(&trailer[12..16]));
        if version != VERSION {
            return Err(format!("version {version} of block checksums, this program reads version {VERSION}"));
        }
        let content_len = usize::try_from(u64::from_le_bytes(len.try_into().unwrap_or_default()));
        let n_blocks = content_len.map_or(usize::MAX, |len| len.div_ceil(BLOCK_LEN));
        let fits = content_len
            .is_ok_and(|len| n_blocks.checked_mul(4).and_then(|table| table.checked_add(len)) == Some(rest.len()));
        let content_len = content_len.unwrap_or_default();
        if !fits || checksum_of_table(&rest[content_len..], len) != checksum {
            return Err("its table of checksums is damaged".into());
        }
        let table = ChecksumTable {
            checksums: file.slice(content_len..rest.len()),
            intact: (0..n_blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        };
        Ok(Some(Self { content: file.slice(0..content_len), len: content_len, table: Some(Arc::new(table)) }))
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if the file has checksums.
    #[must_use]
    pub fn has_checksums(&self) -> bool {
        self.table.is_some()
    }

    /// The first `len` bytes. The checksums and the record of checked blocks stay those of the whole content.
    #[must_use]
    pub fn truncated(&self, len: usize) -> Self {
        Self { len: len.min(self.len), ..self.clone() }
    }

    /// The bytes, without a check.
    #[must_use]
    pub fn as_unchecked(&self) -> &[u8] {
        &self.content[..self.len]
    }

    /// Checks and returns the bytes in `range`.
    ///
    /// # Errors
    /// A damaged block, a range beyond the end.
    pub fn get(&self, range: Range<usize>) -> Result<&[u8], Defect> {
        self.check(range.clone())?;
        self.as_unchecked().get(range).ok_or_else(|| "it is shorter than its header states".into())
    }

    /// Checks and returns the bytes in `range`, as a value that keeps the file mapped.
    ///
    /// # Errors
    /// A damaged block, a range beyond the end.
    pub fn read(&self, range: Range<usize>) -> Result<OwnedBytes, Defect> {
        self.get(range.clone())?;
        Ok(self.content.slice(range))
    }

    /// Checks the blocks of `range` that were not checked before.
    ///
    /// # Errors
    /// A damaged block.
    #[inline]
    pub fn check(&self, range: Range<usize>) -> Result<(), Defect> {
        let Some(table) = self.table.as_ref().filter(|_| !range.is_empty()) else { return Ok(()) };
        let end = range.end.min(self.content.len()).div_ceil(BLOCK_LEN);
        for block in range.start / BLOCK_LEN..end {
            // relaxed: the bytes do not change, and a thread that misses a bit of another thread checks the block again
            if table.intact[block / 64].load(Ordering::Relaxed) & 1 << (block % 64) == 0 {
                self.check_block(table, block)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn check_block(&self, table: &ChecksumTable, block: usize) -> Result<(), Defect> {
        let start = block * BLOCK_LEN;
        let bytes = &self.content[start..self.content.len().min(start + BLOCK_LEN)];
        if crc32fast::hash(bytes) != number(&table.checksums[block * 4..][..4]) {
            return Err(format!("damaged: wrong checksum of the {} bytes from {start} on", bytes.len()));
        }
        table.intact[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content of `len` bytes, and its file, written in pieces of `piece` bytes.
    fn file(len: usize, piece: usize) -> (Vec<u8>, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
        let mut checksums = BlockChecksums::default();
        content.chunks(piece).for_each(|piece| checksums.update(piece));
        let file = [&content[..], &checksums.finish()].concat();
        (content, file)
    }

    fn open(file: Vec<u8>) -> Result<Option<CheckedBytes>, Defect> {
        CheckedBytes::open(&OwnedBytes::new(file))
    }

    #[test]
    fn pieces_of_any_size_give_the_same_content() {
        for len in [0, 1, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 300_000] {
            for piece in [1000, BLOCK_LEN, 1 << 20] {
                let (content, file) = file(len, piece);
                let bytes = open(file).unwrap().unwrap();
                assert_eq!((bytes.len(), bytes.is_empty(), bytes.has_checksums()), (len, len == 0, true));
                assert_eq!(bytes.get(0..len).unwrap(), content);
                assert_eq!(bytes.get(len / 2..len).unwrap(), &content[len / 2..]);
                assert!(bytes.get(0..len + 1).is_err());
                assert_eq!(bytes.truncated(len / 3).get(0..len / 3).unwrap(), &content[..len / 3]);
            }
        }
        assert!(open(vec![7; 100]).unwrap().is_none() && open(Vec::new()).unwrap().is_none());
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let (content, file) = file(2 * BLOCK_LEN + 100, 4096);
        let intact = |bytes: Vec<u8>| match open(bytes) {
            Ok(Some(bytes)) => bytes.get(0..content.len()).is_ok_and(|got| got == content),
            Ok(None) | Err(_) => false,
        };
        assert!(intact(file.clone()));
        for at in (0..content.len()).step_by(97).chain(content.len()..file.len()) {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                assert!(!intact(damaged), "byte {at}, bit {bit}");
            }
        }
        for len in (0..file.len()).step_by(31).chain(file.len() - 40..file.len()) {
            assert!(!intact(file[..len].to_vec()), "truncated to {len} bytes");
        }
    }

    #[test]
    fn only_blocks_that_are_read_are_checked() {
        let (content, mut file) = file(3 * BLOCK_LEN, 4096);
        file[BLOCK_LEN + 5] ^= 1;
        let bytes = open(file).unwrap().unwrap();
        assert_eq!(bytes.get(0..BLOCK_LEN).unwrap(), &content[..BLOCK_LEN]);
        assert_eq!(bytes.get(2 * BLOCK_LEN..3 * BLOCK_LEN).unwrap(), &content[2 * BLOCK_LEN..]);
        let defect = "damaged: wrong checksum of the 4096 bytes from 4096 on";
        assert_eq!(bytes.get(BLOCK_LEN - 1..BLOCK_LEN + 1).unwrap_err(), defect);
        // a second read finds the damage again
        assert_eq!(bytes.get(BLOCK_LEN..BLOCK_LEN + 1).unwrap_err(), defect);
        assert_eq!(bytes.truncated(BLOCK_LEN + 10).get(BLOCK_LEN..BLOCK_LEN + 1).unwrap_err(), defect);
    }
}
