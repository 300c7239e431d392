//! [`Passing`]: the documents of a snapshot that pass a filter, and [`FilterCache`], which keeps them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::index::{SegmentId, SegmentReader};
use tantivy::query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{BitSet, DocId, Score, TantivyError};

use super::Filter;
use crate::bits::Bits;
use crate::passages::spread;
use crate::{Result, Searcher};

/// Documents of a snapshot that pass a filter and are not deleted.
#[derive(Debug)]
pub(crate) struct Passing {
    segments: Vec<Bits>,
    n_docs: Vec<usize>,
    positions: HashMap<SegmentId, usize>,
}

impl Passing {
    /// Evaluates a filter.
    fn new(filter: &Filter, searcher: &Searcher) -> Result<Self> {
        let (fields, heads, searcher) = (searcher.fields(), searcher.heads()?, searcher.tantivy());
        let condition = filter.condition(searcher.index(), fields)?;
        let mut segments = Vec::new();
        for (segment, reader) in searcher.segment_readers().iter().enumerate() {
            let mut docs = condition.evaluate(searcher, reader)?;
            if reader.has_deletes() {
                (0..reader.max_doc()).filter(|doc| reader.is_deleted(*doc)).for_each(|doc| docs.remove(doc));
            }
            if let Some(heads) = heads {
                spread(&mut docs, &heads[segment]);
            }
            segments.push(docs);
        }
        let ids = searcher.segment_readers().iter().map(SegmentReader::segment_id);
        let positions = ids.zip(0..).collect();
        Ok(Self { n_docs: segments.iter().map(Bits::len).collect(), segments, positions })
    }

    /// True if a document passes.
    pub(crate) fn contains(&self, segment: usize, doc: DocId) -> bool {
        self.segments[segment].contains(doc)
    }

    /// The documents from `64 * group` on that pass, one bit each.
    pub(crate) fn group(&self, segment: usize, group: u32) -> u64 {
        self.segments[segment].group(group)
    }

    /// Number of documents that pass, for every segment.
    pub(crate) fn n_docs(&self) -> &[usize] {
        &self.n_docs
    }

    /// Addresses of the documents that pass: segment and document.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (u32, DocId)> + '_ {
        (0..).zip(&self.segments).flat_map(|(segment, docs)| docs.iter().map(move |doc| (segment, doc)))
    }
}

/// Number of filters that are kept.
const CAPACITY: usize = 16;

/// The filters that a snapshot used last, with their documents. The memory is bounded: one bit a document and filter.
#[derive(Debug, Default)]
pub(crate) struct FilterCache {
    /// the last used at the end
    entries: Mutex<Vec<(Filter, Arc<Passing>)>>,
}

impl FilterCache {
    /// The documents that pass `filter`, from the cache or evaluated now.
    pub(crate) fn passing(&self, filter: &Filter, searcher: &Searcher) -> Result<Arc<Passing>> {
        if let Some(found) = self.find(filter) {
            return Ok(found);
        }
        // without the lock: several threads may evaluate a filter, and none waits
        let passing = Arc::new(Passing::new(filter, searcher)?);
        let mut entries = self.lock();
        if entries.len() >= CAPACITY {
            entries.remove(0);
        }
        entries.push((filter.clone(), Arc::clone(&passing)));
        Ok(passing)
    }

    fn find(&self, filter: &Filter) -> Option<Arc<Passing>> {
        let mut entries = self.lock();
        let at = entries.iter().rposition(|(known, _)| known == filter)?;
        let entry = entries.remove(at);
        let passing = Arc::clone(&entry.1);
        entries.push(entry);
        Some(passing)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Filter, Arc<Passing>)>> {
        // the list stays valid if a thread panics with the lock
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// tantivy's query for the documents of a [`Passing`]. Its score is 0, so that it adds nothing where it is combined.
#[derive(Debug, Clone)]
pub(crate) struct PassingQuery(pub(crate) Arc<Passing>);

impl Query for PassingQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for PassingQuery {
    fn scorer(&self, reader: &SegmentReader, _: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let position = self.0.positions.get(&reader.segment_id());
        let position = position.ok_or_else(|| TantivyError::InvalidArgument("a segment of another snapshot".into()))?;
        let mut docs = BitSet::with_max_value(reader.max_doc());
        for doc in self.0.segments[*position].iter() {
            docs.insert(doc);
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(docs), 0.0)))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        let position = self.0.positions.get(&reader.segment_id());
        if position.is_some_and(|position| self.0.contains(*position, doc)) {
            return Ok(Explanation::new("filter", 0.0));
        }
        Err(TantivyError::InvalidArgument(format!("document {doc} does not pass the filter")))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{build, folder, zipf_collection};
    use crate::{Filter, SearchOptions};

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let documents = zipf_collection(3, 50, 20, 5);
        let dir = folder();
        let searcher = build(dir.path(), 20, &documents, &[20]).searcher().unwrap();
        let by_id = |at: usize| Filter::Ids(vec![format!("d{at}")]);
        for at in 0..50 {
            for at in [at, 0] {
                let options = SearchOptions { filter: Some(by_id(at)), ..Default::default() };
                let query = documents.0.iter().find(|(id, _)| *id == format!("d{at}")).unwrap().1.clone();
                let found = searcher.search(&query, 3, &options).unwrap();
                assert_eq!(found.iter().map(|found| found.hit.id.clone()).collect::<Vec<_>>(), [format!("d{at}")]);
            }
        }
        let kept = searcher.filters().entries.lock().unwrap();
        assert_eq!(kept.len(), super::CAPACITY);
        assert!(kept.iter().any(|(filter, _)| *filter == by_id(0)));
        assert!(kept.iter().any(|(filter, _)| *filter == by_id(49)));
    }
}
