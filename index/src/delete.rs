//! [`DeleteById`]: the delete of a document by its id, except in adopted segments.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::index::{SegmentId, SegmentReader};
use tantivy::query::{EmptyScorer, EnableScoring, Explanation, Query, Scorer, TermQuery, Weight};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, Score, Term};

/// Segments that a writer adopted and has not committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Adopted(Arc<Mutex<HashSet<SegmentId>>>);

impl Adopted {
    pub(crate) fn insert(&self, id: SegmentId) {
        self.lock().insert(id);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn contains(&self, id: SegmentId) -> bool {
        self.lock().contains(&id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<SegmentId>> {
        // the set stays valid if a thread panics with the lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Query of tantivy for a delete. tantivy applies a delete to every segment that has no order of its documents and deletes,
/// and so to adopted segments too, whose documents are newer.
#[derive(Debug, Clone)]
pub(crate) struct DeleteById {
    id: TermQuery,
    adopted: Adopted,
}

impl DeleteById {
    pub(crate) fn new(id: Term, adopted: &Adopted) -> Self {
        Self { id: TermQuery::new(id, IndexRecordOption::Basic), adopted: adopted.clone() }
    }
}

impl Query for DeleteById {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(DeleteWeight { id: self.id.weight(scoring)?, adopted: self.adopted.clone() }))
    }
}

struct DeleteWeight {
    id: Box<dyn Weight>,
    adopted: Adopted,
}

impl Weight for DeleteWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        if self.adopted.contains(reader.segment_id()) {
            return Ok(Box::new(EmptyScorer));
        }
        self.id.scorer(reader, boost)
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        self.id.explain(reader, doc)
    }
}
