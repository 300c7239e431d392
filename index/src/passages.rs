//! Passages: rows of an index that belong to one document, ranked by the best of them.
//!
//! A document of n passages is n rows of one segment, one after the other. All have the document's id, so that a delete or an
//! update meets all of them, and a vector of their own. The first row, the head, has everything else: texts, words, fields.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::{FAST, Field, SchemaBuilder};
use tantivy::{SegmentReader, TantivyDocument, Term};

use crate::bits::Bits;
use crate::{Address, Error, Found, Result, Searcher};
use splade_core::SparseVector;

/// Column of the number of a row among the passages of its document, from 0.
const NUMBER: &str = "passage";
const START: &str = "passage_start";
const END: &str = "passage_end";

/// Part of a document's text that was encoded on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// number of the passage in its document, from 0
    pub number: usize,
    /// number of passages of the document
    pub count: usize,
    /// bytes in the text that was encoded: [`StoredDocument::full_text`](crate::StoredDocument::full_text)
    pub range: Range<usize>,
}

/// The columns of passages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassageFields {
    number: Field,
    start: Field,
    end: Field,
}

impl PassageFields {
    /// Adds the columns to a schema.
    pub(crate) fn add(schema: &mut SchemaBuilder) -> Self {
        Self {
            number: schema.add_u64_field(NUMBER, FAST),
            start: schema.add_u64_field(START, FAST),
            end: schema.add_u64_field(END, FAST),
        }
    }

    /// Sets the number and the range of a row.
    pub(crate) fn set(&self, row: &mut TantivyDocument, number: usize, range: &Range<usize>) {
        row.add_u64(self.number, number as u64);
        row.add_u64(self.start, range.start as u64);
        row.add_u64(self.end, range.end as u64);
    }
}

/// The heads among the rows of a snapshot, by segment; found when they are first needed.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    segments: OnceLock<Vec<Bits>>,
    n_documents: OnceLock<usize>,
}

impl Heads {
    fn of(&self, searcher: &tantivy::Searcher) -> Result<&[Bits]> {
        if let Some(heads) = self.segments.get() {
            return Ok(heads);
        }
        // a second thread may find them too; both find the same
        let heads = searcher.segment_readers().iter().map(heads_of_segment).collect::<Result<_>>()?;
        Ok(self.segments.get_or_init(|| heads))
    }
}

impl Heads {
    /// The number that `count` returns, which is called once.
    pub(crate) fn n_documents(&self, count: impl FnOnce() -> usize) -> usize {
        *self.n_documents.get_or_init(count)
    }
}

fn heads_of_segment(reader: &SegmentReader) -> Result<Bits> {
    let numbers = reader.fast_fields().u64(NUMBER)?;
    let mut heads = Bits::none(reader.max_doc());
    for row in (0..reader.max_doc()).filter(|row| numbers.first(*row).unwrap_or_default() == 0) {
        heads.insert(row);
    }
    Ok(heads)
}

/// Sets the rows of all documents whose head is set, and no others.
pub(crate) fn spread(passing: &mut Bits, heads: &Bits) {
    let mut passes = false;
    for row in 0..passing.capacity() {
        passes = if heads.contains(row) { passing.contains(row) } else { passes };
        if passes {
            passing.insert(row);
        } else {
            passing.remove(row);
        }
    }
}

/// Statistics of BM25 over documents; tantivy's own are over rows.
pub(crate) struct DocumentStatistics<'a> {
    searcher: &'a tantivy::Searcher,
    n_docs: u64,
}

impl<'a> DocumentStatistics<'a> {
    /// The statistics of a snapshot. Like tantivy's, they include documents deleted since the last merge.
    pub(crate) fn of(searcher: &'a Searcher) -> Result<Self> {
        let n_docs = match searcher.heads()? {
            Some(heads) => heads.iter().map(|heads| heads.len() as u64).sum(),
            None => searcher.tantivy().total_num_docs()?,
        };
        Ok(Self { searcher: searcher.tantivy(), n_docs })
    }

    /// Mean number of words of a document; not a number in an index without documents.
    pub(crate) fn mean_length(&self, field: Field) -> tantivy::Result<f32> {
        Ok(self.total_num_tokens(field)? as f32 / self.n_docs as f32)
    }

    /// tantivy's searcher of the snapshot.
    pub(crate) fn searcher(&self) -> &'a tantivy::Searcher {
        self.searcher
    }
}

impl Bm25StatisticsProvider for DocumentStatistics<'_> {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        self.searcher.total_num_tokens(field)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.n_docs)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        self.searcher.doc_freq(term)
    }
}

impl Searcher {
    /// The heads of every segment; `None` if every row of the index is a document.
    pub(crate) fn heads(&self) -> Result<Option<&[Bits]>> {
        match self.passage_heads() {
            None => Ok(None),
            Some(heads) => self.run(|| Ok(Some(heads.of(self.tantivy())?))),
        }
    }

    /// The head of the document that a row belongs to.
    pub(crate) fn head(&self, row: Address) -> Result<Address> {
        let Some(heads) = self.heads()? else { return Ok(row) };
        let segment = heads.get(row.segment() as usize).filter(|heads| row.doc() < heads.capacity());
        let segment = segment
            .ok_or_else(|| Error::invalid("the address of a document is of another snapshot", "search again"))?;
        // the first row of a segment is a head
        let head = (0..=row.doc()).rev().find(|row| segment.contains(*row)).unwrap_or_default();
        Ok(Address::new(row.segment(), head))
    }

    /// The passage at an address; `None` in an index without passages.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn passage(&self, address: Address) -> Result<Option<Passage>> {
        if self.heads()?.is_none() {
            return Ok(None);
        }
        let rows = self.rows(address)?;
        self.run(|| {
            let columns = self.tantivy().segment_reader(address.segment()).fast_fields();
            let byte = |name: &str| -> Result<usize> {
                Ok(columns.u64(name)?.first(address.doc()).unwrap_or_default() as usize)
            };
            let range = byte(START)?..byte(END)?;
            let number = (address.doc() - rows.start) as usize;
            Ok(Some(Passage { number, count: rows.len(), range }))
        })
    }

    /// The addresses of all passages of a document, in their order; the document's own where documents are not split. Each has
    /// a vector.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn passage_addresses(&self, address: Address) -> Result<impl Iterator<Item = Address> + use<>> {
        Ok(self.rows(address)?.map(move |row| Address::new(address.segment(), row)))
    }

    /// The rows of the document that a row belongs to, in its segment.
    fn rows(&self, row: Address) -> Result<Range<u32>> {
        let first = self.head(row)?.doc();
        let Some(heads) = self.heads()? else { return Ok(first..first + 1) };
        let segment = &heads[row.segment() as usize];
        let next = (first + 1..segment.capacity()).find(|row| segment.contains(*row));
        Ok(first..next.unwrap_or(segment.capacity()))
    }

    /// The best passage of each document for a query, with its score; of equal ones the first.
    pub(crate) fn best_passages(&self, query: &SparseVector, documents: &[Address]) -> Result<Vec<(f32, Address)>> {
        let rows = documents.iter().map(|document| Ok(self.passage_addresses(*document)?.collect::<Vec<_>>()));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let mut scores = self.scores(query, &rows.concat())?.into_iter();
        let best = rows.iter().zip(documents).map(|(rows, document)| {
            let scored = scores.by_ref().take(rows.len()).zip(rows.iter().copied());
            scored.reduce(|best, next| if next.0 > best.0 { next } else { best }).unwrap_or((0.0, *document))
        });
        Ok(best.collect())
    }

    /// The `k` best documents by their best row. `search` returns the best rows, score descending, then id and address ascending.
    pub(crate) fn best_documents(&self, k: usize, search: impl Fn(usize) -> Result<Vec<Found>>) -> Result<Vec<Found>> {
        if k == 0 {
            return Ok(Vec::new());
        }
        let mut depth = k.saturating_mul(2).max(32);
        loop {
            let rows = search(depth)?;
            let complete = rows.len() < depth;
            let mut best = self.first_rows(rows)?;
            if complete || best.len() >= k {
                best.truncate(k);
                return Ok(best);
            }
            depth = depth.saturating_mul(4);
        }
    }

    /// The first row of every document.
    fn first_rows(&self, rows: Vec<Found>) -> Result<Vec<Found>> {
        let mut seen = std::collections::HashSet::new();
        let mut first = Vec::new();
        for found in rows {
            if seen.insert(self.head(found.address)?) {
                first.push(found);
            }
        }
        Ok(first)
    }

    /// The row of the largest score of every document, of equal ones the first: the plain twin of
    /// [`best_documents`](Self::best_documents).
    pub(crate) fn best_rows(&self, scored: Vec<(f32, Address)>) -> Result<Vec<(f32, Address)>> {
        if self.heads()?.is_none() {
            return Ok(scored);
        }
        let mut best: HashMap<Address, (f32, Address)> = HashMap::new();
        for (score, row) in scored {
            let entry = best.entry(self.head(row)?).or_insert((score, row));
            if score > entry.0 || score == entry.0 && row < entry.1 {
                *entry = (score, row);
            }
        }
        Ok(best.into_values().collect())
    }
}
