//! Ends of a write: commit, merges, and closing.

use tantivy::index::SegmentId;
use tantivy::indexer::NoMergePolicy;

use super::{ImpactWriter, MIN_MEMORY_PER_THREAD, WriteCounts, open_writer};
use crate::Result;

impl ImpactWriter {
    /// Commits, waits for background merges and closes the writer.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn finish(self) -> Result<WriteCounts> {
        self.finish_with_note(None)
    }

    /// As [`finish`](Self::finish), and keeps a note with the commit: [`commit_with_note`](Self::commit_with_note).
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn finish_with_note(mut self, note: Option<&str>) -> Result<WriteCounts> {
        self.commit_noting(note)?;
        self.close()?;
        Ok(self.counts)
    }

    /// As [`finish`](Self::finish), and merges the smallest segments until there are two for each million documents, and one
    /// below a million: for the end of a bulk run. `note` stays with the commit.
    ///
    /// # Errors
    /// As [`finish_merged`](Self::finish_merged).
    pub fn finish_bulk(mut self, note: Option<&str>) -> Result<WriteCounts> {
        self.commit_noting(note)?;
        self.close()?;
        self.merge_down(|documents| (documents / DOCUMENTS_PER_SEGMENT).max(1) as usize)?;
        Ok(self.counts)
    }

    /// As [`finish`](Self::finish), and merges all segments into one: the fastest to search, without deleted documents.
    ///
    /// # Errors
    /// As [`commit`](Self::commit). If the merge alone fails, what was written is committed, and an error all the same.
    pub fn finish_merged(mut self) -> Result<WriteCounts> {
        self.commit()?;
        self.close()?;
        self.merge_down(|_| 1)?;
        Ok(self.counts)
    }

    /// Merges the smallest segments into one, so that as many stay as `limit` returns for the number of documents. A lone
    /// segment with deleted documents is written anew if it is the only one allowed.
    fn merge_down(&mut self, limit: impl Fn(u64) -> usize) -> Result<()> {
        let mut metas = self.directory.run(|| Ok(self.index.searchable_segment_metas()?))?;
        metas.sort_by_key(|meta| meta.num_docs());
        let limit = limit(metas.iter().map(|meta| u64::from(meta.num_docs())).sum());
        let has_deletes = limit == 1 && metas.iter().any(|meta| meta.has_deletes());
        if metas.len() <= limit && !has_deletes {
            return Ok(());
        }
        let n_merged = metas.len() - limit.min(metas.len()) + 1;
        let segments: Vec<SegmentId> = metas.iter().take(n_merged).map(|meta| meta.id()).collect();
        // files of a segment stay while somebody holds its meta
        drop(metas);
        let writer = open_writer(&self.index, &self.directory, 1, MIN_MEMORY_PER_THREAD)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        self.writer = Some(writer);
        self.write(|writer| writer.merge(&segments).wait())?;
        self.close()
    }
}

/// Least documents for each segment that a bulk run leaves.
const DOCUMENTS_PER_SEGMENT: u64 = 500_000;
