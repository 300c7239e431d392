//! Documents of a snapshot: ids, stored fields, vectors, and the parts of a score.

use std::ops::Range;

use splade_core::SparseVector;
use tantivy::TantivyDocument;

use super::Searcher;
use crate::hits::{Address, TermScore};
use crate::{Error, Result, StoredDocument};

impl Searcher {
    /// Contributions of the common terms to the score of a document, largest first, then by dimension.
    ///
    /// # Errors
    /// An address of another snapshot.
    pub fn explain(&self, query: &SparseVector, address: Address) -> Result<Vec<TermScore>> {
        let file = self.file_of(address)?;
        let mut terms = Vec::new();
        for (dim, query_weight) in query.iter() {
            let weight = file.weight(dim, address.doc);
            if let Some(document_weight) = weight.map_err(|defect| self.damaged(address.segment as usize, defect))? {
                terms.push(TermScore { dim, query_weight, document_weight, score: query_weight * document_weight });
            }
        }
        terms.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.dim.cmp(&b.dim)));
        Ok(terms)
    }

    /// The stored document, as it was added.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn document(&self, address: Address) -> Result<StoredDocument> {
        let id = self.id(address)?;
        let address = self.head(address)?;
        self.run(|| {
            let row: TantivyDocument = self.searcher.doc(address.into())?;
            self.fields.read_stored(id, &row).map_err(|defect| {
                let segment = self.searcher.segment_reader(address.segment).segment_id().uuid_string();
                Error::damaged(self.directory.path().join(segment + ".store"), defect)
            })
        })
    }

    /// The exact weights of a document, as the index stores them.
    ///
    /// This looks into the list of every term of the segment: for some milliseconds, and for the time of reading parts of the
    /// whole file when it is first called.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn vector(&self, address: Address) -> Result<SparseVector> {
        let weights = self.file_of(address)?.vector(address.doc);
        let weights = weights.map_err(|defect| self.damaged(address.segment as usize, defect))?;
        to_vector(address, weights)
    }

    /// The exact vectors of all documents, or of their passages in an index with passages, with their addresses in ascending
    /// order.
    ///
    /// This reads the index once, in sequence, and holds the vectors of some ten thousand documents in memory.
    ///
    /// # Errors
    /// From the iterator, a damaged index.
    pub fn vectors(&self) -> impl Iterator<Item = Result<(Address, SparseVector)>> + '_ {
        let segments = (0..).zip(&self.files);
        let blocks = segments.flat_map(|(segment, file)| {
            let starts = (0..file.n_docs()).step_by(READ_AHEAD as usize);
            starts.map(move |first| (segment, first..first.saturating_add(READ_AHEAD)))
        });
        blocks.flat_map(|(segment, docs)| match self.vectors_of(segment, docs) {
            Ok(vectors) => vectors,
            Err(error) => vec![Err(error)],
        })
    }

    /// The vectors of those documents of `docs` that are not deleted.
    fn vectors_of(&self, segment: u32, docs: Range<u32>) -> Result<Vec<Result<(Address, SparseVector)>>> {
        let vectors = self.files[segment as usize].vectors(docs.clone());
        let vectors = vectors.map_err(|defect| self.damaged(segment as usize, defect))?;
        let reader = self.searcher.segment_reader(segment);
        let live = docs.zip(vectors).filter(|(doc, _)| !reader.is_deleted(*doc));
        let vectors = live.map(|(doc, weights)| {
            let address = Address { segment, doc };
            Ok((address, to_vector(address, weights)?))
        });
        Ok(vectors.collect())
    }

    /// The address of the document with this id; `None` if there is no such document.
    ///
    /// # Errors
    /// A damaged index.
    pub fn find(&self, id: &str) -> Result<Option<Address>> {
        self.run(|| self.find_inside(id))
    }

    fn find_inside(&self, id: &str) -> Result<Option<Address>> {
        let term = self.fields.id_term(id);
        for (segment, reader) in (0..).zip(self.searcher.segment_readers()) {
            let postings =
                reader.inverted_index(self.fields.id)?.read_postings(&term, tantivy::schema::IndexRecordOption::Basic);
            let Some(mut postings) = postings.map_err(tantivy::TantivyError::from)? else { continue };
            let mut doc = tantivy::DocSet::doc(&postings);
            while doc != tantivy::TERMINATED {
                if !reader.is_deleted(doc) {
                    return Ok(Some(Address { segment, doc }));
                }
                doc = tantivy::DocSet::advance(&mut postings);
            }
        }
        Ok(None)
    }

    /// The addresses of all documents.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        // columns that cannot be read are reported by the search
        let heads = self.heads().ok().flatten();
        let segments = (0..).zip(self.searcher.segment_readers());
        let rows =
            segments.flat_map(|(segment, reader)| reader.doc_ids_alive().map(move |doc| Address { segment, doc }));
        rows.filter(move |row| heads.is_none_or(|heads| heads[row.segment as usize].contains(row.doc)))
    }

    /// The id of a document.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn id(&self, address: Address) -> Result<String> {
        String::from_utf8(self.id_bytes(address)?.to_owned()).map_err(|_| {
            self.damaged(address.segment as usize, format!("the id of document {} is no UTF-8", address.doc))
        })
    }

    pub(super) fn id_bytes(&self, address: Address) -> Result<&[u8]> {
        let id = self.file_of(address)?.id(address.doc);
        id.map_err(|defect| self.damaged(address.segment as usize, defect))
    }
}

/// Number of documents whose vectors are read together: few enough for memory, and enough that a look into the list of every
/// term costs little beside them.
const READ_AHEAD: u32 = 1 << 16;

fn to_vector(address: Address, weights: Vec<(u32, f32)>) -> Result<SparseVector> {
    SparseVector::from_pairs(weights).map_err(|source| {
        let of = format!("document {} of segment {}", address.doc, address.segment);
        splade_core::Error::Vector { of, source }.into()
    })
}
