//! Exact weights and scores of a segment's documents.
//!
//! Every score is the sum of query weight × document weight by ascending term, in f32. This is the order of
//! [`SparseVector::dot`](crate::SparseVector::dot), so the scores equal it bit for bit.

use super::find::find_docs;
use super::format::{Defect, SegmentFile};
use super::header::WINDOW;
use super::term::{Posting, Postings, TermList, window_range};

/// Number of ids that can be read in the time of one binary search among them, as measured.
const IDS_PER_LOOKUP: usize = 16;
/// Smallest number of documents of a window for which all ids are read, since that needs a table of 32 KB.
const MANY_DOCS: usize = 16;
/// Number of postings whose remainders are read together.
const FOUND: usize = 512;

impl SegmentFile {
    /// The exact weights of a document by ascending term; empty beyond the last document.
    ///
    /// In a file of version 2, this looks into the list of every term of the segment: some 30 000 look-ups for a usual
    /// vocabulary. For known terms, [`weight`](Self::weight) is enough.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn vector(&self, doc: u32) -> Result<Vec<(u32, f32)>, Defect> {
        if self.has_rows() {
            return Ok(self.row(doc)?.iter().collect());
        }
        let weights = self.term_ids().enumerate().map(|(position, term)| Ok((term, self.weight_at(position, doc)?)));
        weights.filter_map(|found| found.map(|(term, weight)| Some((term, weight?))).transpose()).collect()
    }

    /// The exact weight of a term in a document; `None` if the document does not have it.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn weight(&self, term: u32, doc: u32) -> Result<Option<f32>, Defect> {
        if self.has_rows() {
            return Ok(self.row(doc)?.find(term));
        }
        self.position(term).map_or(Ok(None), |position| self.weight_at(position, doc))
    }

    /// The exact weight in `doc` of the term at a position of the table of a file of version 2.
    fn weight_at(&self, position: usize, doc: u32) -> Result<Option<f32>, Defect> {
        let list = self.list(position)?;
        self.check_near(&list, doc)?;
        list.find(doc).filter(|_| doc < self.n_docs()).map(|posting| self.exact_weight(&list, posting)).transpose()
    }

    /// The exact weight of a posting of a file of version 2.
    #[inline]
    fn exact_weight(&self, list: &TermList<'_>, posting: Posting) -> Result<f32, Defect> {
        let Some(remainders) = &list.remainders else { return Ok(0.0) };
        self.bytes.check(remainders.place(posting.at))?;
        Ok(remainders.weight(posting.at, posting.impact))
    }

    /// Exact scores of `docs`, in their order: 0 for documents without a term of the query. Fastest if `docs` ascend.
    ///
    /// `query` has ascending terms.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn scores(&self, query: &[(u32, f32)], docs: &[u32]) -> Result<Vec<f32>, Defect> {
        let lists = query.iter().map(|(term, _)| if self.has_rows() { Ok(None) } else { self.term(*term) });
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        let lists: Vec<_> = query.iter().zip(lists).filter_map(|((_, weight), list)| Some((*weight, list?))).collect();
        self.scores_by(query, &lists, docs)
    }

    /// [`scores`](Self::scores) by the query weights and lists of the terms of the segment, ascending.
    pub(super) fn scores_by(
        &self,
        query: &[(u32, f32)],
        lists: &[(f32, TermList<'_>)],
        docs: &[u32],
    ) -> Result<Vec<f32>, Defect> {
        if self.has_rows() {
            return docs.iter().map(|doc| Ok(self.row(*doc)?.dot(query))).collect();
        }
        let mut found = Found::default();
        let mut places = Places::default();
        let mut scores = vec![0.0; docs.len()];
        let window = |doc: &u32| *doc as usize / self.window_len();
        let mut first = 0;
        for docs in docs.chunk_by(|a, b| window(a) == window(b)) {
            for (at, (_, list)) in lists.iter().enumerate() {
                self.find_postings(list, docs, &mut places, |place, posting| {
                    found.postings.push((first + place, posting));
                });
                found.end_list(at);
            }
            first += docs.len() as u32;
            if found.postings.len() >= FOUND {
                self.add_up(&mut found, lists, &mut scores)?;
            }
        }
        self.add_up(&mut found, lists, &mut scores)?;
        Ok(scores)
    }

    /// Adds the products of the postings of `found` to `scores`, and removes them.
    ///
    /// First all remainders are read: reads that do not depend on each other overlap, and most of them wait for main memory.
    fn add_up(&self, found: &mut Found, lists: &[(f32, TermList<'_>)], scores: &mut [f32]) -> Result<(), Defect> {
        let mut bits = Vec::with_capacity(found.postings.len());
        for (at, postings) in found.by_list() {
            let Some(remainders) = &lists[at].1.remainders else { continue };
            postings.iter().try_for_each(|(_, posting)| self.bytes.check(remainders.place(posting.at)))?;
            bits.extend(postings.iter().map(|(_, posting)| remainders.bits(posting.at)));
        }
        let mut bits = bits.into_iter();
        for (at, postings) in found.by_list() {
            let (query_weight, list) = &lists[at];
            let Some(remainders) = &list.remainders else { continue };
            for ((place, posting), bits) in postings.iter().zip(&mut bits) {
                scores[*place as usize] += query_weight * remainders.weight_of(bits, posting.at, posting.impact);
            }
        }
        found.postings.clear();
        found.ends.clear();
        Ok(())
    }

    /// Calls `visit` with the place in `docs` and the posting of each of `docs` that has the term. All of `docs` are of one
    /// window.
    #[inline]
    fn find_postings(
        &self,
        list: &TermList<'_>,
        docs: &[u32],
        places: &mut Places,
        mut visit: impl FnMut(u32, Posting),
    ) {
        if let Postings::Windowed { ids, impacts, offsets } = list.postings {
            let range = window_range(offsets, docs[0] as usize / self.window_len());
            let (ids, impacts) = (ids.get(range.clone()), impacts.get(range.clone()));
            let (ids, impacts) = (ids.unwrap_or_default(), impacts.unwrap_or_default());
            let many = docs.len() >= MANY_DOCS && ids.len() <= docs.len() * IDS_PER_LOOKUP;
            if many && docs.is_sorted_by(|a, b| a < b) {
                places.meet(docs, ids, |place, inside| {
                    visit(place as u32, Posting { at: range.start + inside, impact: impacts[inside] });
                });
                return;
            }
            find_docs(ids, docs, list.window_bits, |place, inside| {
                if let Some(&impact) = impacts.get(inside) {
                    visit(place, Posting { at: range.start + inside, impact });
                }
            });
            return;
        }
        for (place, &doc) in (0..).zip(docs) {
            if let Some(posting) = list.find(doc) {
                visit(place, posting);
            }
        }
    }

    /// Exact scores of all documents, from whole lists: the plain twin of [`scores`](Self::scores).
    ///
    /// # Errors
    /// Damaged postings.
    pub fn all_scores(&self, query: &[(u32, f32)]) -> Result<Vec<f32>, Defect> {
        if self.has_rows() {
            return (0..self.n_docs()).map(|doc| Ok(self.row(doc)?.dot(query))).collect();
        }
        let mut scores = vec![0.0; self.n_docs() as usize];
        for &(term, query_weight) in query {
            let Some(list) = self.term(term)? else { continue };
            let Some(remainders) = &list.remainders else { continue };
            self.bytes.check(remainders.start..remainders.start.saturating_add(remainders.bytes.len()))?;
            list.for_each(|doc, posting| {
                if let Some(score) = scores.get_mut(doc as usize) {
                    *score += query_weight * remainders.weight(posting.at, posting.impact);
                }
            });
        }
        Ok(scores)
    }

    /// Number of postings of the documents for which `is_live` is true. This reads the ids of all postings.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn count_postings(&self, is_live: impl Fn(u32) -> bool) -> Result<u64, Defect> {
        let mut count = 0;
        for term in self.term_ids() {
            if let Some(list) = self.term(term)? {
                list.for_each(|doc, _| count += u64::from(is_live(doc)));
            }
        }
        Ok(count)
    }
}

/// Postings whose remainders are not read yet.
#[derive(Default)]
struct Found {
    /// places of documents and their postings, list after list
    postings: Vec<(u32, Posting)>,
    /// lists and the ends of their postings
    ends: Vec<(usize, usize)>,
}

impl Found {
    /// Ends the postings of a list.
    fn end_list(&mut self, list: usize) {
        self.ends.push((list, self.postings.len()));
    }

    /// The lists and their postings.
    fn by_list(&self) -> impl Iterator<Item = (usize, &[(u32, Posting)])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let parts = starts.zip(&self.ends).map(|(start, &(list, end))| (list, &self.postings[start..end]));
        parts.filter(|(_, postings)| !postings.is_empty())
    }
}

/// Place of each document of a window in a list of documents, plus 1; 0 for those that are not in it. Empty before its first
/// use.
#[derive(Default)]
struct Places(Vec<u16>);

impl Places {
    /// Calls `visit` with the places in `docs` and in `ids` of every document of a window that is in both. This reads all ids,
    /// and is faster than to search for each document if there are many.
    #[inline]
    fn meet(&mut self, docs: &[u32], ids: &[[u8; 2]], mut visit: impl FnMut(usize, usize)) {
        self.0.resize(WINDOW, 0);
        for (place, doc) in (1..).zip(docs) {
            self.0[*doc as usize % WINDOW] = place;
        }
        for (inside, id) in ids.iter().enumerate() {
            let place = self.0[usize::from(u16::from_le_bytes(*id)) % WINDOW];
            if place != 0 {
                visit(usize::from(place) - 1, inside);
            }
        }
        for doc in docs {
            self.0[*doc as usize % WINDOW] = 0;
        }
    }
}
