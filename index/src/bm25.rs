//! BM25 search over the documents of an index, with tantivy's k1 = 1.2 and b = 0.75: the lexical baseline.
//!
//! Title and text are one field, which `analyzer.rs` splits into words. A query is the disjunction of its words. It has no
//! syntax, so every text is a valid query.

use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, EmptyQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{Index, Term};

use crate::analyzer::terms;
use crate::{Filter, Found, Result, Searcher};

/// The disjunction of the distinct words of `text`.
fn disjunction(index: &Index, field: Field, text: &str) -> Result<Box<dyn Query>> {
    let mut words: Vec<Term> = terms(index, field, text)?.into_iter().map(|(_, term)| term).collect();
    words.sort_unstable();
    words.dedup();
    if words.is_empty() {
        return Ok(Box::new(EmptyQuery));
    }
    let clause = |term| Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>;
    Ok(Box::new(BooleanQuery::union(words.into_iter().map(clause).collect())))
}

impl Searcher {
    /// The `k` documents with the highest BM25 scores for the words of `text`, score descending, then id ascending.
    ///
    /// Repeated words of the query count once. The statistics are those of the whole index, including documents deleted since
    /// the last merge, as in Lucene.
    ///
    /// # Errors
    /// A damaged index, an invalid filter.
    pub fn search_bm25(&self, text: &str, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        self.run(|| self.search_bm25_inside(text, k, filter))
    }

    fn search_bm25_inside(&self, text: &str, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let k = k.min(self.len());
        if k == 0 {
            return Ok(Vec::new());
        }
        let mut query = disjunction(self.tantivy().index(), self.fields().body, text)?;
        if let Some(filter) = filter {
            let filter = filter.to_query(self.tantivy().index(), self.fields())?;
            // `Must` would add the filter's own score
            let filter = Box::new(tantivy::query::ConstScoreQuery::new(filter, 0.0));
            query = Box::new(BooleanQuery::new(vec![(Occur::Must, query), (Occur::Must, filter)]));
        }
        // tantivy orders equal scores by address, this index by id: all documents of the last score are needed
        let mut depth = k + 1;
        loop {
            let top = self.tantivy().search(&query, &TopDocs::with_limit(depth).order_by_score())?;
            let complete = top.len() < depth || depth >= self.len();
            let last = top.get(k - 1).map(|(score, _)| *score);
            if complete || top.last().map(|(score, _)| *score) != last {
                let candidates = top.into_iter().map(|(score, address)| (score, address.into())).collect();
                return self.truncate(candidates, k);
            }
            depth = depth.saturating_mul(4).min(self.len());
        }
    }
}
