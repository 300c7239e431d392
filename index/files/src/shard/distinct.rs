//! [`DistinctIds`]: finds an id that occurs twice, in memory that is a small part of all ids.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::hash_of;
use crate::{Error, Result};

/// Number of files. Each is read and sorted alone, so that memory is this part of all ids.
const BUCKETS: usize = 256;

/// Ids of several sources, by their hashes in temporary files without names.
pub struct DistinctIds {
    folder: PathBuf,
    buckets: Vec<BufWriter<File>>,
}

/// An id that occurs twice, with the source and the row of both.
pub type Double = (String, [(u32, u64); 2]);

/// An id and where it stands: the number of its source, and its row there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    id: String,
    source: u32,
    row: u64,
}

impl DistinctIds {
    /// Makes the files in `folder`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let bucket = |_| Ok(BufWriter::new(tempfile::tempfile_in(folder).map_err(Error::io(folder))?));
        Ok(Self { folder: folder.to_owned(), buckets: (0..BUCKETS).map(bucket).collect::<Result<_>>()? })
    }

    /// Takes an id of a source, and its row there.
    ///
    /// # Errors
    /// A full disk.
    pub fn add(&mut self, id: &str, source: u32, row: u64) -> Result<()> {
        // the last byte: the first ones are equal in all ids of a shard
        let bucket = &mut self.buckets[usize::from(hash_of(id)[31]) % BUCKETS];
        let mut write = || {
            bucket.write_all(&source.to_le_bytes())?;
            bucket.write_all(&row.to_le_bytes())?;
            bucket.write_all(&(id.len() as u64).to_le_bytes())?;
            bucket.write_all(id.as_bytes())
        };
        write().map_err(Error::io(&self.folder))
    }

    /// An id that was added twice; none if all are distinct.
    ///
    /// # Errors
    /// A full disk.
    pub fn find_double(self) -> Result<Option<Double>> {
        for bucket in self.buckets {
            let mut ids = read_all(bucket).map_err(Error::io(&self.folder))?;
            ids.sort_unstable();
            let double = ids.windows(2).find(|pair| pair[0].id == pair[1].id);
            if let Some([first, second]) = double {
                return Ok(Some((first.id.clone(), [first, second].map(|placed| (placed.source, placed.row)))));
            }
        }
        Ok(None)
    }
}

fn read_all(bucket: BufWriter<File>) -> std::io::Result<Vec<Placed>> {
    let mut file = bucket.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let mut ids = Vec::new();
    let mut source = [0; 4];
    loop {
        match reader.read_exact(&mut source) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(ids),
            result => result?,
        }
        let mut numbers = [[0; 8]; 2];
        reader.read_exact(&mut numbers[0])?;
        reader.read_exact(&mut numbers[1])?;
        let [row, length] = numbers.map(u64::from_le_bytes);
        let mut id = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
        reader.read_exact(&mut id)?;
        let id = String::from_utf8(id).map_err(std::io::Error::other)?;
        ids.push(Placed { id, source: u32::from_le_bytes(source), row });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_id_is_found_with_both_places() {
        let folder = tempfile::tempdir().unwrap();
        let find = |double: Option<&str>| {
            let mut ids = DistinctIds::new(folder.path()).unwrap();
            for row in 0..3000 {
                ids.add(&format!("d{row}"), (row % 3) as u32, row).unwrap();
            }
            double.iter().for_each(|id| ids.add(id, 7, 1).unwrap());
            ids.find_double().unwrap()
        };
        assert_eq!(find(None), None);
        assert_eq!(find(Some("d2000")), Some(("d2000".to_owned(), [(2, 2000), (7, 1)])));
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "no file is left");
    }
}
