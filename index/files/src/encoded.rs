//! Encoded texts in a cache: the vectors of a corpus in its order, with notes about them.
//!
//! ```text
//! magic       8 bytes, with the kind of the vectors and the version of the format
//! vectors     sparse, for each: number of entries, dims as differences (both LEB128), weights as f32, little-endian
//!             dense, for each: number of values (LEB128), values as f32, little-endian
//! notes       JSON
//! lengths     u64 number of vectors, u32 length of the notes
//! checksum    u32 CRC-32 of all bytes before it
//! ```
//!
//! A cache file is never repaired: one that is damaged or of another version is encoded again.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use splade_core::SparseVector;
use splade_core::dense::DenseVector;

use crate::{AtomicFile, Error, Result};

/// Number of bytes before the vectors.
const HEAD: u64 = 8;
/// Bytes after the notes.
const TAIL: u64 = 16;

/// Vector that a file of [`EncodedTexts`] holds: [`SparseVector`] or [`DenseVector`].
pub trait EncodedVector: Sized {
    /// First bytes of a file of such vectors.
    const MAGIC: [u8; HEAD as usize];

    /// Appends the bytes of the vector.
    fn put(&self, bytes: &mut Vec<u8>);

    /// Reads a vector that [`put`](Self::put) wrote.
    ///
    /// # Errors
    /// A reader that fails or ends; bytes that are no such vector ([`io::ErrorKind::InvalidData`]).
    fn take(file: &mut impl Read) -> io::Result<Self>;
}

impl EncodedVector for SparseVector {
    const MAGIC: [u8; HEAD as usize] = *b"SPLADEV1";

    fn put(&self, bytes: &mut Vec<u8>) {
        put_number(bytes, self.active_dims() as u64);
        let mut before = 0;
        for &dim in self.dims() {
            put_number(bytes, u64::from(dim - before));
            before = dim;
        }
        self.weights().iter().for_each(|weight| bytes.extend_from_slice(&weight.to_le_bytes()));
    }

    fn take(file: &mut impl Read) -> io::Result<Self> {
        let count = take_number(file)? as usize;
        // grows with the bytes that are there, whatever the count says
        let mut dims = Vec::new();
        let mut dim = 0u32;
        for _ in 0..count {
            dim = dim.checked_add(take_number(file)?).ok_or(io::ErrorKind::InvalidData)?;
            dims.push(dim);
        }
        Self::new(dims, take_floats(file, count)?).map_err(invalid)
    }
}

impl EncodedVector for DenseVector {
    const MAGIC: [u8; HEAD as usize] = *b"SPLADED1";

    fn put(&self, bytes: &mut Vec<u8>) {
        put_number(bytes, self.dimensions() as u64);
        self.values().iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    }

    fn take(file: &mut impl Read) -> io::Result<Self> {
        let count = take_number(file)? as usize;
        Self::new(take_floats(file, count)?).map_err(invalid)
    }
}

/// Writer of a file of [`EncodedTexts`]. The file appears with [`finish`](Self::finish).
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("a.vectors");
/// use splade_core::SparseVector;
/// use splade_files::{EncodedTexts, EncodedWriter};
///
/// let vector = SparseVector::from_pairs([(845, 1.9), (12, -0.41)])?;
/// let mut writer = EncodedWriter::create(&path)?;
/// writer.add(&vector)?;
/// writer.finish(&"notes")?;
/// let (texts, notes) = EncodedTexts::<SparseVector>::open::<String>(&path)?;
/// assert_eq!((texts.len(), notes.as_str()), (1, "notes"));
/// assert_eq!(texts.vectors()?.collect::<Result<Vec<_>, _>>()?, [vector]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EncodedWriter<V> {
    file: AtomicFile,
    path: PathBuf,
    checksum: crc32fast::Hasher,
    count: u64,
    record: Vec<u8>,
    vectors: PhantomData<fn(V)>,
}

impl<V: EncodedVector> EncodedWriter<V> {
    /// Creates a temporary file beside `path`, and the folders above it.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let (file, checksum) = (AtomicFile::create(path)?, crc32fast::Hasher::new());
        let mut writer =
            Self { file, path: path.to_owned(), checksum, count: 0, record: Vec::new(), vectors: PhantomData };
        writer.write(&V::MAGIC)?;
        Ok(writer)
    }

    /// Appends a vector.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, vector: &V) -> Result<()> {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        vector.put(&mut record);
        self.write(&record)?;
        self.record = record;
        self.count += 1;
        Ok(())
    }

    /// Writes the notes and commits the file.
    ///
    /// # Errors
    /// A file that cannot be written; notes that JSON cannot express.
    pub fn finish(mut self, notes: &impl Serialize) -> Result<()> {
        let notes = serde_json::to_vec(notes).map_err(|error| Error::file(&self.path, error.to_string()))?;
        let length = u32::try_from(notes.len()).map_err(|_| Error::file(&self.path, "the notes are too long"))?;
        self.write(&notes)?;
        self.write(&self.count.to_le_bytes())?;
        self.write(&length.to_le_bytes())?;
        let checksum = self.checksum.clone().finalize();
        self.write(&checksum.to_le_bytes())?;
        self.file.commit()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }
}

/// File of encoded texts whose checksum is right.
#[derive(Debug, Clone)]
pub struct EncodedTexts<V> {
    path: PathBuf,
    count: u64,
    vectors: PhantomData<fn() -> V>,
}

impl<V: EncodedVector> EncodedTexts<V> {
    /// Opens a file, compares its checksum, and reads its notes.
    ///
    /// # Errors
    /// A file that cannot be opened, is damaged or of another version, or has notes of another form.
    pub fn open<N: DeserializeOwned>(path: &Path) -> Result<(Self, N)> {
        let damaged = || Error::file(path, "not a file of encoded texts, or damaged");
        let mut file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        if length < HEAD + TAIL {
            return Err(damaged());
        }
        let mut checksum = crc32fast::Hasher::new();
        let mut rest = length - 4;
        let mut buffer = vec![0; 1 << 16];
        let mut first = true;
        while rest > 0 {
            let part = &mut buffer[..rest.min(1 << 16) as usize];
            file.read_exact(part).map_err(Error::io(path))?;
            if std::mem::take(&mut first) && !part.starts_with(&V::MAGIC) {
                return Err(damaged());
            }
            checksum.update(part);
            rest -= part.len() as u64;
        }
        let stored = number::<4>(&mut file).map_err(Error::io(path))?;
        if u32::from_le_bytes(stored) != checksum.finalize() {
            return Err(damaged());
        }
        file.seek(SeekFrom::End(-(TAIL as i64))).map_err(Error::io(path))?;
        let count = u64::from_le_bytes(number(&mut file).map_err(Error::io(path))?);
        let notes = u64::from(u32::from_le_bytes(number(&mut file).map_err(Error::io(path))?));
        let start = length.checked_sub(TAIL + notes).filter(|start| *start >= HEAD).ok_or_else(damaged)?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io(path))?;
        let mut text = vec![0; notes as usize];
        file.read_exact(&mut text).map_err(Error::io(path))?;
        let notes = serde_json::from_slice(&text).map_err(|_| damaged())?;
        Ok((Self { path: path.to_owned(), count, vectors: PhantomData }, notes))
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// True if there is no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The vectors, in the order of their texts. Memory does not grow with their number.
    ///
    /// # Errors
    /// A file that cannot be read; from the iterator, one that changed since it was opened.
    pub fn vectors(&self) -> Result<impl Iterator<Item = Result<V>> + Send + use<V>> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(&self.path).map_err(Error::io(&self.path))?);
        file.seek(SeekFrom::Start(HEAD)).map_err(Error::io(&self.path))?;
        let path = self.path.clone();
        Ok((0..self.count).map(move |_| V::take(&mut file).map_err(Error::io(&path))))
    }
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(file: &mut impl Read) -> io::Result<u32> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let [byte] = self::number::<1>(file)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData.into());
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn take_floats(file: &mut impl Read, count: usize) -> io::Result<Vec<f32>> {
    let mut floats = Vec::new();
    for _ in 0..count {
        floats.push(f32::from_le_bytes(number(file)?));
    }
    Ok(floats)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn number<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write<V: EncodedVector>(path: &Path, vectors: &[V]) {
        let mut writer = EncodedWriter::create(path).unwrap();
        vectors.iter().for_each(|vector| writer.add(vector).unwrap());
        writer.finish(&7u8).unwrap();
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.vectors");
        write(&path, &[SparseVector::from_pairs([(3, 1.0), (70_000, 2.0)]).unwrap(), SparseVector::default()]);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let error = EncodedTexts::<SparseVector>::open::<u8>(&path).unwrap_err().to_string();
            assert!(error.ends_with("or damaged"), "byte {at}: {error}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(EncodedTexts::<SparseVector>::open::<u8>(&path).is_err(), "{at} bytes");
        }
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(EncodedTexts::<SparseVector>::open::<u8>(&path).unwrap().0.len(), 2);
        assert!(EncodedTexts::<SparseVector>::open::<String>(&path).is_err(), "notes of another form");
        assert!(EncodedTexts::<DenseVector>::open::<u8>(&path).is_err(), "vectors of another kind");
        let unfinished = folder.path().join("b.vectors");
        drop(EncodedWriter::<SparseVector>::create(&unfinished).unwrap());
        assert!(!unfinished.exists());
    }

    proptest! {
        #[test]
        fn vectors_come_back(rows in prop::collection::vec(prop::collection::btree_map(any::<u32>(), -9f32..9.0, 0..20), 0..9)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.vectors");
            let vectors: Vec<SparseVector> =
                rows.into_iter().map(|row| SparseVector::from_pairs(row).unwrap()).collect();
            write(&path, &vectors);
            let (texts, _) = EncodedTexts::<SparseVector>::open::<u8>(&path).unwrap();
            prop_assert_eq!(texts.vectors().unwrap().collect::<Result<Vec<_>>>().unwrap(), vectors);
        }

        #[test]
        fn dense_vectors_come_back(rows in prop::collection::vec(prop::collection::vec(-9f32..9.0, 1..20), 0..9)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.vectors");
            let vectors: Vec<DenseVector> = rows.into_iter().map(|row| DenseVector::new(row).unwrap()).collect();
            write(&path, &vectors);
            let (texts, _) = EncodedTexts::<DenseVector>::open::<u8>(&path).unwrap();
            prop_assert_eq!(texts.vectors().unwrap().collect::<Result<Vec<_>>>().unwrap(), vectors);
        }
    }
}
