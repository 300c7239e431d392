//! [`Source`]: the documents to push, of an index folder or of a file of vectors.

use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_core::{SparseVector, Vocabulary};
use splade_files::read_vector_rows;
use splade_index::{ImpactIndex, Searcher, StoredDocument};

use crate::failure::bad_input;

/// Documents and their vectors.
pub(crate) enum Source {
    /// a snapshot of an index
    Index(Box<Searcher>),
    /// a file of vectors of documents without text
    Vectors(VectorSource),
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
        Self::Vectors(VectorSource { path: path.to_owned(), ids, vocabulary, dimensions })
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

impl VectorSource {
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
