//! [`LiveDocuments`]: the documents that a search may return.

use std::sync::Arc;

use splade_core::segment::Live;

use crate::filter::Passing;

/// Documents that are not deleted and that pass the filter.
pub(crate) struct LiveDocuments<'a> {
    pub(super) searcher: &'a tantivy::Searcher,
    pub(super) passing: Option<Arc<Passing>>,
}

impl LiveDocuments<'_> {
    /// Number of documents of each segment that are deleted or do not pass.
    pub(super) fn hidden(&self) -> Vec<usize> {
        let segments = self.searcher.segment_readers().iter().enumerate();
        let hidden = segments.map(|(segment, reader)| match &self.passing {
            Some(passing) => reader.max_doc() as usize - passing.n_docs()[segment],
            None => reader.num_deleted_docs() as usize,
        });
        hidden.collect()
    }
}

impl Live for LiveDocuments<'_> {
    fn is_live(&self, segment: usize, doc: u32) -> bool {
        match &self.passing {
            Some(passing) => passing.contains(segment, doc),
            None => !self.searcher.segment_reader(segment as u32).is_deleted(doc),
        }
    }

    fn group(&self, segment: usize, first: u32) -> u64 {
        self.passing.as_ref().map_or(u64::MAX, |passing| passing.group(segment, first / 64))
    }
}
