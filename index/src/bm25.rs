//! BM25 search over the documents of an index, with tantivy's k1 = 1.2 and b = 0.75: the lexical baseline.
//!
//! Title and text are one field, which `analyzer.rs` splits into words. A query is the disjunction of its words. It has no
//! syntax, so every text is a valid query.

use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, EmptyQuery, EnableScoring, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocAddress, Index, Term};

use crate::analyzer::terms;
use crate::filter::PassingQuery;
use crate::{Address, Filter, Found, Result, Searcher};

/// Part of a word in the BM25 score of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct WordScore {
    /// the word as the index holds it: normalized and stemmed
    pub word: String,
    /// BM25 score of this word alone
    pub score: f32,
}

/// The distinct words of `text`.
fn distinct_words(index: &Index, field: Field, text: &str) -> Result<Vec<Term>> {
    let mut words: Vec<Term> = terms(index, field, text)?.into_iter().map(|(_, term)| term).collect();
    words.sort_unstable();
    words.dedup();
    Ok(words)
}

/// The disjunction of the distinct words of `text`.
fn disjunction(index: &Index, field: Field, text: &str) -> Result<Box<dyn Query>> {
    let words = distinct_words(index, field, text)?;
    if words.is_empty() {
        return Ok(Box::new(EmptyQuery));
    }
    let clause = |term| Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>;
    Ok(Box::new(BooleanQuery::union(words.into_iter().map(clause).collect())))
}

/// Text of a word's term.
fn text_of(term: &Term) -> String {
    term.value().as_str().unwrap_or_default().to_owned()
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
            let filter = PassingQuery(self.passing(filter)?);
            query = Box::new(BooleanQuery::new(vec![(Occur::Must, query), (Occur::Must, Box::new(filter))]));
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

    /// Parts of the words of `text` in the BM25 score of a document, largest first, then by word.
    ///
    /// Their sum is the score of [`search_bm25`](Self::search_bm25) up to the rounding of f32.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn explain_bm25(&self, text: &str, address: Address) -> Result<Vec<WordScore>> {
        // refuses an address of another snapshot
        self.id(address)?;
        self.run(|| self.explain_bm25_inside(text, address.into()))
    }

    fn explain_bm25_inside(&self, text: &str, address: DocAddress) -> Result<Vec<WordScore>> {
        let reader = self.tantivy().segment_reader(address.segment_ord);
        let mut parts = Vec::new();
        for term in distinct_words(self.tantivy().index(), self.fields().body, text)? {
            let word = text_of(&term);
            let query = TermQuery::new(term, IndexRecordOption::WithFreqs);
            let weight = query.weight(EnableScoring::enabled_from_searcher(self.tantivy()))?;
            let mut scorer = weight.scorer(reader, 1.0)?;
            // a scorer moves forward only
            if scorer.doc() <= address.doc_id && scorer.seek(address.doc_id) == address.doc_id {
                parts.push(WordScore { word, score: scorer.score() });
            }
        }
        parts.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.word.cmp(&b.word)));
        Ok(parts)
    }

    /// Words of a text as the BM25 index holds them: normalized and stemmed, in the order of the text.
    ///
    /// # Errors
    /// An analyzer that is not there, which is a defect of the index.
    pub fn bm25_words(&self, text: &str) -> Result<Vec<String>> {
        let words = terms(self.tantivy().index(), self.fields().body, text)?;
        Ok(words.iter().map(|(_, term)| text_of(term)).collect())
    }
}
