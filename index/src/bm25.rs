//! BM25 search over the documents of an index: the lexical baseline.
//!
//! Title and text are one field, which `analyzer.rs` splits into words. A query is the disjunction of its words. It has no
//! syntax, so every text is a valid query.
//!
//! With the options' defaults, tantivy ranks the documents, which skips postings by their block maxima. These hold for its
//! fixed k1 and b only, so [`scorer`] computes all other scores, and those of single documents.

mod compounds;
mod encoder;
mod options;
mod saturation;
mod scorer;

pub(crate) use compounds::Compounds;
pub use encoder::Bm25Encoder;
pub use options::Bm25Options;

use tantivy::Term;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, EmptyQuery, Occur, Query, TermQuery};
use tantivy::schema::IndexRecordOption;

use crate::analyzer::{analyzer, terms, without_stop_words};
use crate::filter::PassingQuery;
use crate::hits::{Address, SearchOptions};
use crate::passages::DocumentStatistics;
use crate::{Filter, Found, Result, Searcher};
use scorer::{Group, QueryScorer};

/// Weight of a part of a compound in a query, where the compound itself has weight 1: a part says less than the whole word.
const PART_WEIGHT: f32 = 0.5;

/// Part of a word in the BM25 score of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct WordScore {
    /// the word as the index holds it: normalized and stemmed
    pub word: String,
    /// BM25 score of this word alone, with its compounds if these are split
    pub score: f32,
}

impl Searcher {
    /// The `k` documents with the highest BM25 scores for the words of `text`, score descending, then id ascending, with the
    /// default [`Bm25Options`].
    ///
    /// Repeated words of the query count once. The statistics are those of the whole index, including documents deleted since
    /// the last merge, as in Lucene.
    ///
    /// # Errors
    /// A damaged index, an invalid filter.
    pub fn search_bm25(&self, text: &str, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let k = k.min(self.len());
        if k == 0 {
            return Ok(Vec::new());
        }
        self.run(|| self.top_by_tantivy(text, k, filter))
    }

    /// [`search_bm25`](Self::search_bm25) with the filter and the [`Bm25Options`] of `options`.
    ///
    /// # Errors
    /// Those of [`search_bm25`](Self::search_bm25).
    pub fn search_bm25_with(&self, text: &str, k: usize, options: &SearchOptions) -> Result<Vec<Found>> {
        if options.bm25 == Bm25Options::default() {
            return self.search_bm25(text, k, options.filter.as_ref());
        }
        self.search_bm25_scored(text, k, options)
    }

    /// [`search_bm25_with`](Self::search_bm25_with) by the scorer of our own, whatever the options are.
    pub(crate) fn search_bm25_scored(&self, text: &str, k: usize, options: &SearchOptions) -> Result<Vec<Found>> {
        let k = k.min(self.len());
        if k == 0 {
            return Ok(Vec::new());
        }
        let live = self.live_documents(options.filter.as_ref())?;
        let top = self.run(|| Ok(self.scorer(text, options.bm25)?.top(k, &live)?))?;
        self.truncate(top, k)
    }

    /// BM25 scores of single documents, in the order of `addresses`: those of
    /// [`search_bm25_with`](Self::search_bm25_with), up to the rounding of a sum in f32.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn bm25_scores(&self, text: &str, addresses: &[Address], options: Bm25Options) -> Result<Vec<f32>> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let documents = addresses.iter().map(|address| self.document_address(*address)).collect::<Result<Vec<_>>>()?;
        self.run(|| {
            let parts = self.scorer(text, options)?.parts(&documents)?;
            Ok(parts.iter().map(|parts| parts.iter().fold(0.0, |sum, (_, score)| sum + score)).collect())
        })
    }

    /// Parts of the words of `text` in the BM25 score of a document, largest first, then by word.
    ///
    /// Their sum is the score of [`search_bm25_with`](Self::search_bm25_with) up to the rounding of f32. A word that matches
    /// compounds has one part for all of them.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn explain_bm25(&self, text: &str, address: Address, options: Bm25Options) -> Result<Vec<WordScore>> {
        let document = self.document_address(address)?;
        self.run(|| {
            let scorer = self.scorer(text, options)?;
            let parts = scorer.parts(&[document])?.pop().unwrap_or_default().into_iter();
            let mut parts: Vec<WordScore> =
                parts.map(|(group, score)| WordScore { word: scorer.word(group).into(), score }).collect();
            parts.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.word.cmp(&b.word)));
            Ok(parts)
        })
    }

    /// Words of a text as the BM25 index holds them: normalized and stemmed, in the order of the text.
    ///
    /// # Errors
    /// An analyzer that is not there, which is a defect of the index.
    pub fn bm25_words(&self, text: &str) -> Result<Vec<String>> {
        let words = terms(self.tantivy().index(), self.fields().body, text)?;
        Ok(words.iter().map(|(_, term)| term.value().as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Mean number of words of a document, as BM25 counts them, with documents deleted since the last merge; 0 in an empty
    /// index.
    ///
    /// # Errors
    /// A damaged index.
    pub fn bm25_mean_length(&self) -> Result<f32> {
        let mean = self.run(|| Ok(DocumentStatistics::of(self)?.mean_length(self.fields().body)?))?;
        Ok(if mean.is_finite() { mean } else { 0.0 })
    }

    /// The address of the row that has a document's words.
    fn document_address(&self, address: Address) -> Result<Address> {
        self.expect_address(address)?;
        self.head(address)
    }

    /// The distinct words of a query, ascending.
    fn query_words(&self, text: &str, stop_words: bool) -> Result<Vec<Term>> {
        let field = self.fields().body;
        let text = if stop_words { without_stop_words(text, self.language()) } else { text.into() };
        let mut words: Vec<Term> =
            terms(self.tantivy().index(), field, &text)?.into_iter().map(|(_, term)| term).collect();
        words.sort_unstable();
        words.dedup();
        Ok(words)
    }

    fn scorer(&self, text: &str, options: Bm25Options) -> Result<QueryScorer<'_>> {
        let words = self.query_words(text, options.drops_stop_words())?;
        let field = self.fields().body;
        let groups = match options.splits_compounds() {
            false => words.into_iter().map(Group::word).collect(),
            true => self.compounds()?.groups(&words, field, PART_WEIGHT),
        };
        QueryScorer::new(&DocumentStatistics::of(self)?, field, groups, options)
    }

    /// The compounds of this snapshot, found when they are first asked for.
    fn compounds(&self) -> Result<&Compounds> {
        let cell = self.compounds_cell();
        if cell.get().is_none() {
            // a second thread may find them too; both find the same
            let stemmer = analyzer(self.language(), self.analyzer_version());
            let found = Compounds::of(self.tantivy(), self.fields().body, &stemmer)?;
            let _ = cell.set(found);
        }
        Ok(cell.get().expect("it is set above"))
    }

    fn top_by_tantivy(&self, text: &str, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let mut query = disjunction(self.query_words(text, false)?);
        if let Some(filter) = filter {
            let filter = PassingQuery(self.passing(filter)?);
            query = Box::new(BooleanQuery::new(vec![(Occur::Must, query), (Occur::Must, Box::new(filter))]));
        }
        // tantivy orders equal scores by address, this index by id: all documents of the last score are needed
        let statistics = DocumentStatistics::of(self)?;
        let mut depth = k + 1;
        loop {
            let collector = TopDocs::with_limit(depth).order_by_score();
            let top = self.tantivy().search_with_statistics_provider(&query, &collector, &statistics)?;
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

fn disjunction(words: Vec<Term>) -> Box<dyn Query> {
    if words.is_empty() {
        return Box::new(EmptyQuery);
    }
    let clause = |term| Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>;
    Box::new(BooleanQuery::union(words.into_iter().map(clause).collect()))
}
