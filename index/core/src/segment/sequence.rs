//! Exact vectors of documents in sequence, for readers of a whole segment.

use std::ops::Range;

use super::format::{Defect, SegmentFile};
use super::term::{COUNT_BLOCK, Posting, Postings, TermList, window_range};

impl SegmentFile {
    /// The exact weights of each of `docs` by ascending term; documents beyond the last have none.
    ///
    /// This reads the part of every list that `docs` have, where [`vector`](Self::vector), its plain twin, looks into every list
    /// for one document. For many documents it is far faster. It holds all their weights in memory.
    ///
    /// # Errors
    /// Damaged postings.
    pub fn vectors(&self, docs: Range<u32>) -> Result<Vec<Vec<(u32, f32)>>, Defect> {
        let docs = docs.start.min(self.n_docs())..docs.end.min(self.n_docs());
        if self.has_rows() {
            return docs.map(|doc| self.vector(doc)).collect();
        }
        let mut vectors = vec![Vec::new(); docs.len()];
        for term in self.term_ids() {
            let Some(list) = self.term(term)? else { continue };
            let Some(remainders) = &list.remainders else { continue };
            self.bytes.check(remainders.start..remainders.start.saturating_add(remainders.bytes.len()))?;
            list.for_each_in(docs.clone(), |doc, posting| {
                vectors[(doc - docs.start) as usize].push((term, remainders.weight(posting.at, posting.impact)));
            });
        }
        Ok(vectors)
    }
}

impl TermList<'_> {
    /// Calls `visit` with document and posting of the postings of `docs`, by ascending document.
    fn for_each_in(&self, docs: Range<u32>, mut visit: impl FnMut(u32, Posting)) {
        if docs.is_empty() {
            return;
        }
        match self.postings {
            Postings::Short { docs: ids, impacts } => {
                let place = |doc: u32| ids.partition_point(|id| u32::from_le_bytes(*id) < doc);
                let range = place(docs.start)..place(docs.end);
                let ids = ids.get(range.clone()).unwrap_or_default();
                for ((at, id), &impact) in range.clone().zip(ids).zip(impacts.get(range).unwrap_or_default()) {
                    let doc = u32::from_le_bytes(*id);
                    if docs.contains(&doc) {
                        visit(doc, Posting { at, impact });
                    }
                }
            }
            Postings::Windowed { ids, impacts, offsets } => {
                for window in docs.start >> self.window_bits..=(docs.end - 1) >> self.window_bits {
                    let range = window_range(offsets, window as usize);
                    let ids = ids.get(range.clone()).unwrap_or_default();
                    let impacts = impacts.get(range.clone()).unwrap_or_default();
                    for ((at, id), &impact) in range.zip(ids).zip(impacts) {
                        let doc = (window << self.window_bits) + u32::from(u16::from_le_bytes(*id));
                        if docs.contains(&doc) {
                            visit(doc, Posting { at, impact });
                        }
                    }
                }
            }
            Postings::Dense { impacts, counts } => {
                let block = docs.start as usize / COUNT_BLOCK;
                let mut at = counts.get(block).map_or(0, |count| u32::from_le_bytes(*count)) as usize;
                let range = block * COUNT_BLOCK..(docs.end as usize).min(impacts.len());
                for (doc, &impact) in (range.start as u32..).zip(impacts.get(range).unwrap_or_default()) {
                    if impact != 0 {
                        if docs.contains(&doc) {
                            visit(doc, Posting { at, impact });
                        }
                        at += 1;
                    }
                }
            }
        }
    }
}
