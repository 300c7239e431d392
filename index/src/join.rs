//! [`ImpactIndex::join`]: the indexes of several processes as one.

use std::path::Path;

use splade_files::AtomicFile;

use crate::impact_index::{QUERY_DIR, check_query_dir};
use crate::settings::Manifest;
use crate::{Error, ImpactIndex, Result, WriteCounts, WriterOptions};

impl ImpactIndex {
    /// Joins indexes of the same settings in a new index in `dir`, which is made if need be and must not hold an index yet.
    ///
    /// Their files are linked, or copied where the file system cannot link, and the smallest segments are merged as at the end of a
    /// bulk run. Nothing is encoded or added anew, and memory does not grow with the indexes. Scores are those of one index with
    /// all documents, whose order in the index is that of `parts`. The caller checks that no id occurs twice.
    ///
    /// # Errors
    /// No part; parts with other settings or another query encoder than the first; a part with deleted documents; a damaged part;
    /// errors of [`create`](Self::create); a disk that is full or fails.
    pub fn join(dir: &Path, parts: &[Self]) -> Result<WriteCounts> {
        let Some((first, others)) = parts.split_first() else {
            return Err(Error::invalid("no index is given to join", ""));
        };
        let query = Manifest::read(first.dir())?.query;
        for other in others {
            if other.settings() != first.settings() {
                return Err(differs(other, first, "its settings"));
            }
            if Manifest::read(other.dir())?.query != query {
                return Err(differs(other, first, "its query encoder"));
            }
        }
        let joined = Self::create(dir, first.settings())?;
        copy_query_encoder(first, &joined)?;
        let mut writer = joined.writer(WriterOptions { merge: false, threads: 1, memory_bytes: 0 })?;
        for part in parts {
            writer.adopt(part)?;
        }
        writer.finish_bulk(None)
    }
}

fn differs(index: &ImpactIndex, first: &ImpactIndex, what: &str) -> Error {
    Error::file(index.dir(), format!("cannot be joined with {}: {what} is not the same", first.dir().display()))
}

/// Copies the files of the query encoder, whose checksums are compared with the manifest first.
fn copy_query_encoder(from: &ImpactIndex, to: &ImpactIndex) -> Result<()> {
    let manifest = Manifest::read(from.dir())?;
    if let Some((path, defect)) = check_query_dir(from.dir(), manifest.query.as_ref())?.into_iter().next() {
        return Err(Error::damaged(path, defect));
    }
    for name in manifest.query.iter().flat_map(|files| files.keys()) {
        let path = from.dir().join(QUERY_DIR).join(name);
        let content = std::fs::read(&path).map_err(Error::io(&path))?;
        AtomicFile::write_whole(&to.dir().join(QUERY_DIR).join(name), &content)?;
    }
    Manifest { query: manifest.query, ..Manifest::read(to.dir())? }.write(to.dir())
}
