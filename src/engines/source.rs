//! [`Source`]: the documents to push, of an index folder or of a file of vectors.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_core::{Hit, SparseVector, Vocabulary};
use splade_files::read_vector_rows;
use splade_index::{ImpactIndex, SearchOptions, Searcher, StoredDocument};

use crate::failure::bad_input;

/// Documents and their vectors.
pub(crate) enum Source {
    /// a snapshot of an index
    Index(Box<Searcher>),
    /// a file of vectors of documents without text
    Vectors(Box<VectorSource>),
}

/// A file of vectors.
pub(crate) struct VectorSource {
    path: PathBuf,
    /// file of their ids
    ids: Option<PathBuf>,
    vocabulary: Vocabulary,
    dimensions: u32,
}

/// Documents with their vectors.
pub(crate) type Documents<'a> = Box<dyn Iterator<Item = Result<(StoredDocument, SparseVector)>> + Send + 'a>;

impl Source {
    /// The documents of an index.
    ///
    /// # Errors
    /// An index whose documents are split into passages.
    pub(crate) fn of_index(index: &ImpactIndex) -> Result<Self> {
        if let Some(passages) = index.settings().passages {
            return Err(bad_input(
                format!(
                    "{}: its documents are split into passages ({passages}), and engines get one vector a document",
                    index.dir().display()
                ),
                "make an index without --passages, or with each passage as a document of its own",
            ));
        }
        Ok(Self::Index(Box::new(index.searcher()?)))
    }

    /// The vectors of a file in any form of `index --vectors`.
    pub(crate) fn of_vectors(path: &Path, ids: Option<&Path>, vocabulary: Vocabulary, dimensions: u32) -> Self {
        let ids = ids.map(Path::to_owned);
        Self::Vectors(Box::new(VectorSource { path: path.to_owned(), ids, vocabulary, dimensions }))
    }

    /// Number of documents; none if it is not known before they are read.
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            Self::Index(searcher) => Some(searcher.len() as u64),
            Self::Vectors(_) => None,
        }
    }

    /// Reads all documents, each time in the same order.
    ///
    /// # Errors
    /// A file that cannot be read; from the iterator, a damaged index or a broken line.
    pub(crate) fn documents(&self) -> Result<Documents<'_>> {
        match self {
            Self::Index(searcher) => Ok(Box::new(searcher.vectors().map(|found| {
                let (address, vector) = found?;
                Ok((searcher.document(address)?, vector))
            }))),
            Self::Vectors(source) => source.documents(),
        }
    }

    /// Reads the vectors of all documents.
    ///
    /// # Errors
    /// Those of [`documents`](Self::documents).
    pub(crate) fn vectors(&self) -> Result<Box<dyn Iterator<Item = Result<SparseVector>> + '_>> {
        match self {
            Self::Index(searcher) => Ok(Box::new(searcher.vectors().map(|found| Ok(found?.1)))),
            Self::Vectors(source) => Ok(Box::new(source.documents()?.map(|found| Ok(found?.1)))),
        }
    }
}

impl Source {
    /// About `count` documents, evenly spread over all.
    ///
    /// # Errors
    /// Documents that cannot be read.
    pub(crate) fn sample(&self, count: usize) -> Result<Vec<(String, SparseVector)>> {
        match self {
            Self::Index(searcher) => {
                let step = (searcher.len() / count.max(1)).max(1);
                let sampled = searcher.addresses().step_by(step).take(count);
                sampled.map(|address| Ok((searcher.id(address)?, searcher.vector(address)?))).collect()
            }
            Self::Vectors(source) => {
                let mut sampled = Sample::new(count);
                for found in source.documents()? {
                    let (document, vector) = found?;
                    sampled.offer(|| (document.id, vector));
                }
                Ok(sampled.kept)
            }
        }
    }

    /// Ids of the best `k` documents of each query by exact scores.
    ///
    /// # Errors
    /// Documents that cannot be read.
    pub(crate) fn best(&self, queries: &[&SparseVector], k: usize) -> Result<Vec<Vec<String>>> {
        match self {
            Self::Index(searcher) => {
                let search = |query: &&SparseVector| {
                    let found = searcher.search(query, k, &SearchOptions::default())?;
                    Ok(found.into_iter().map(|found| found.hit.id).collect())
                };
                queries.iter().map(search).collect()
            }
            Self::Vectors(source) => source.best(queries, k),
        }
    }

    /// Vectors of the documents with these ids. An id without a document is left out.
    ///
    /// # Errors
    /// Documents that cannot be read.
    pub(crate) fn vectors_of(&self, ids: &HashSet<String>) -> Result<Vec<(String, SparseVector)>> {
        let mut vectors = Vec::new();
        match self {
            Self::Index(searcher) => {
                for id in ids {
                    if let Some(address) = searcher.find(id)? {
                        vectors.push((id.clone(), searcher.vector(address)?));
                    }
                }
            }
            Self::Vectors(source) => {
                for found in source.documents()? {
                    let (document, vector) = found?;
                    if ids.contains(&document.id) {
                        vectors.push((document.id, vector));
                    }
                }
            }
        }
        Ok(vectors)
    }
}

/// Items spread evenly over a sequence of unknown length: every one of `step`, which doubles whenever there are too many.
struct Sample<T> {
    kept: Vec<T>,
    count: usize,
    step: usize,
    seen: usize,
}

impl<T> Sample<T> {
    fn new(count: usize) -> Self {
        Self { kept: Vec::new(), count: count.max(1), step: 1, seen: 0 }
    }

    /// Takes the next item of the sequence if it is one of the sample.
    fn offer(&mut self, item: impl FnOnce() -> T) {
        if self.seen.is_multiple_of(self.step) {
            self.kept.push(item());
        }
        self.seen += 1;
        if self.kept.len() > 2 * self.count {
            let mut at = 0;
            self.kept.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.step *= 2;
        }
    }
}

impl VectorSource {
    /// Best documents of each query, by a scan over all vectors.
    fn best(&self, queries: &[&SparseVector], k: usize) -> Result<Vec<Vec<String>>> {
        let mut best: Vec<Vec<Hit>> = vec![Vec::new(); queries.len()];
        for found in self.documents()? {
            let (document, vector) = found?;
            for (query, hits) in queries.iter().zip(&mut best) {
                let hit = Hit { id: document.id.clone(), score: query.dot(&vector) };
                if hit.score > 0.0 {
                    let at = hits.partition_point(|other| other.rank_order(&hit).is_lt());
                    hits.insert(at, hit);
                    hits.truncate(k);
                }
            }
        }
        Ok(best.into_iter().map(|hits| hits.into_iter().map(|hit| hit.id).collect()).collect())
    }

    fn documents(&self) -> Result<Documents<'_>> {
        let vocabulary = self.vocabulary.clone();
        let rows = read_vector_rows(&self.path, self.ids.as_deref(), move |token| vocabulary.dim(token))?;
        Ok(Box::new(rows.enumerate().map(|(row, found)| {
            let (id, vector) = found?;
            let id = id.unwrap_or_else(|| row.to_string());
            if let Some(dim) = vector.dims().last().filter(|dim| **dim >= self.dimensions) {
                let path = self.path.display();
                return Err(bad_input(
                    format!("{path}: document {id} has the dimension {dim}, and the model has {}", self.dimensions),
                    "give the model that made the vectors with --model",
                ));
            }
            Ok((StoredDocument { id, ..StoredDocument::default() }, vector))
        })))
    }
}
