//! [`Answerer`]: hits of queries and their documents. `explain` says how a score came about, `matches` and
//! `snippet` select the part of a text to show, `json` writes hits.

pub(crate) mod counts;
mod explain;
mod json;
mod matches;
mod passage;
mod snippet;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use splade_core::dense::DenseVector;
use splade_core::{Encoder, Fusion, Hit, Pruning, SparseVector, Vocabulary};
use splade_files::Query;
use splade_index::{Address, DensePart, Filter, Found, HybridQuery, SearchOptions, Searcher, StoredDocument};

pub(crate) use explain::{Explanation, share};
#[cfg(feature = "serve")]
pub(crate) use json::{AnswerJson, ExplainedJson};
pub(crate) use json::{Shown, to_json};
pub(crate) use snippet::{Mark, Snippet};

use crate::cli::Mode;
use crate::dense::DenseSide;
use explain::Lists;
use matches::WordFinder;
use passage::AnswerPassage;
use snippet::snippets;

/// Query encoder of an index, and the vocabulary that explains hits.
pub(crate) struct QuerySide {
    encoder: Box<dyn Encoder>,
    /// true if a network encodes queries, which is faster for many texts at once
    runs_network: bool,
    /// none if hits are not explained; without a maximum length, since it tokenizes whole documents
    vocabulary: Option<Vocabulary>,
}

impl QuerySide {
    /// Query side with this encoder and vocabulary; hits are explained if `explain` is true.
    ///
    /// # Errors
    /// A tokenizer that cannot be built without truncation.
    pub(crate) fn new(
        encoder: Box<dyn Encoder>,
        runs_network: bool,
        vocabulary: &Vocabulary,
        explain: bool,
    ) -> Result<Self> {
        let vocabulary = explain.then(|| vocabulary.with_max_length(usize::MAX)).transpose()?;
        Ok(Self { encoder, runs_network, vocabulary })
    }

    /// Number of tokens of a text, of which no more than the first `most` and one are counted, about; 0 without a vocabulary.
    #[cfg(feature = "serve")]
    pub(crate) fn count_tokens(&self, text: &str, most: usize) -> Result<usize> {
        // a text of so many bytes has more tokens whatever its words are
        let longest = most.saturating_mul(LONGEST_TOKEN);
        match &self.vocabulary {
            Some(_) if text.len() > longest => Ok(most + 1),
            Some(vocabulary) => Ok(vocabulary.tokenize(text)?.len()),
            None => Ok(0),
        }
    }

    /// Vectors of texts as queries.
    #[cfg(feature = "serve")]
    pub(crate) fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>> {
        Ok(self.encoder.encode(texts)?)
    }

    /// True if a network encodes queries.
    #[cfg(feature = "serve")]
    pub(crate) fn runs_network(&self) -> bool {
        self.runs_network
    }

    /// Vocabulary that explains hits.
    #[cfg(feature = "serve")]
    pub(crate) fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }
}

/// Most bytes of a token that are taken into account in a limit of tokens: longer texts are refused without splitting them.
#[cfg(feature = "serve")]
const LONGEST_TOKEN: usize = 64;

/// Ranking mode, number of hits, fusion and filter of a search.
pub(crate) struct SearchSettings {
    pub(crate) mode: Mode,
    /// hits per query
    pub(crate) k: usize,
    /// hits taken from each ranking before fusion
    pub(crate) depth: usize,
    pub(crate) fusion: Fusion,
    pub(crate) options: SearchOptions,
    /// pruning of query vectors
    pub(crate) pruning: Pruning,
    pub(crate) detail: Detail,
    /// snippets per hit; above 0 only with a detail of at least [`Detail::Words`]
    pub(crate) snippets: usize,
    /// most characters of a snippet
    pub(crate) snippet_length: usize,
}

impl SearchSettings {
    /// The best `k` by the vectors as they are, without snippets.
    pub(crate) fn sparse(k: usize, detail: Detail) -> Self {
        Self {
            mode: Mode::Sparse,
            k,
            depth: k,
            fusion: Fusion::default(),
            options: SearchOptions::default(),
            pruning: Pruning::default(),
            detail,
            snippets: 0,
            snippet_length: 0,
        }
    }
}

/// Amount of explanation of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    None,
    /// terms and words that query and document share
    Words,
    /// these and the places in the rankings that were fused, which takes a second search
    Full,
}

/// Snapshot of an index with everything needed to answer queries.
pub(crate) struct Answerer {
    /// none for the modes that need no sparse vectors
    pub(crate) side: Option<Arc<QuerySide>>,
    /// none without a dense ranking
    pub(crate) dense: Option<Arc<DenseSide>>,
    pub(crate) searcher: Searcher,
    pub(crate) settings: SearchSettings,
}

/// Vector of a query, and the documents it found.
pub(crate) struct Answer {
    encoded: Encoded,
    pub(crate) found: Vec<Found>,
    /// the rankings that were fused, or the dense one; none unless hits of these modes are explained
    lists: Option<Lists>,
    /// time of the search alone
    pub(crate) search_time: Duration,
}

/// Vectors of a query and the time that they took.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) vector: SparseVector,
    /// none without a dense model
    pub(crate) dense: Option<DenseVector>,
    pub(crate) time: Duration,
}

/// Hit with its document and its explanation.
pub(crate) struct AnswerHit {
    pub(crate) hit: Hit,
    pub(crate) document: StoredDocument,
    /// best passage by impact, or the first of a document that only BM25 found; none in BM25 mode, and where documents are not
    /// split
    pub(crate) passage: Option<AnswerPassage>,
    /// none if hits are not explained
    pub(crate) explanation: Option<Explanation>,
    pub(crate) snippets: Vec<Snippet>,
}

impl Answerer {
    /// True if queries are encoded faster by [`encode`](Self::encode) in blocks than one by one on all threads.
    pub(crate) fn encodes_in_blocks(&self) -> bool {
        let dense = self.dense.as_ref().is_some_and(|side| side.runs_network());
        dense || self.side.as_ref().is_some_and(|side| side.runs_network)
    }

    /// Vectors of queries; zero vectors in a mode that needs none. The time of each is the mean.
    pub(crate) fn encode(&self, texts: &[&str]) -> Result<Vec<Encoded>> {
        let start = Instant::now();
        let vectors = match &self.side {
            Some(side) => side.encoder.encode(texts)?,
            None => vec![SparseVector::default(); texts.len()],
        };
        let dense = match &self.dense {
            Some(side) => side.encode(texts)?,
            None => texts.iter().map(|_| None).collect(),
        };
        let time = start.elapsed() / u32::try_from(texts.len().max(1))?;
        let pruned = vectors.into_iter().map(|vector| self.settings.pruning.apply(vector));
        Ok(pruned.zip(dense).map(|(vector, dense)| Encoded { vector, dense, time }).collect())
    }

    /// Encodes a query and searches the index.
    #[cfg(feature = "train")]
    pub(crate) fn answer(&self, query: &Query) -> Result<Answer> {
        let encoded = self.encode(&[&query.text])?.pop().unwrap_or_default();
        self.answer_encoded(query, encoded)
    }

    /// Searches the index for a query and its vectors.
    pub(crate) fn answer_encoded(&self, query: &Query, encoded: Encoded) -> Result<Answer> {
        let start = Instant::now();
        let found = self.search(query, &encoded)?;
        let search_time = start.elapsed();
        let has_lists = matches!(self.settings.mode, Mode::Dense | Mode::Hybrid);
        let has_lists = has_lists && self.settings.detail == Detail::Full;
        let lists = has_lists.then(|| self.lists(query, &encoded, &found)).transpose()?;
        Ok(Answer { encoded, found, lists, search_time })
    }

    /// Reads the documents of an answer to `query`, with explanations if this answerer has them.
    pub(crate) fn hits(&self, query: &Query, answer: Answer) -> Result<Vec<AnswerHit>> {
        let Answer { encoded, found, lists, .. } = answer;
        let hits = found.into_iter().map(|found| {
            let document = self.searcher.document(found.address)?;
            let explain = || self.explain(query, &encoded, lists.as_ref(), &found, &document);
            let explanation = (self.settings.detail > Detail::None).then(explain).transpose()?;
            let snippets = self.snippets(&query.text, &document.text, explanation.as_ref())?;
            let passage = self.passage(&found, &document)?;
            Ok(AnswerHit { hit: found.hit, document, passage, explanation, snippets })
        });
        hits.collect()
    }

    /// Explains the score of a document for a query, whatever its rank; none if the index has no such document.
    pub(crate) fn explain_document(&self, query: &Query, id: &str) -> Result<Option<AnswerHit>> {
        let Some(address) = self.searcher.find(id)? else { return Ok(None) };
        let encoded = self.encode(&[&query.text])?.pop().unwrap_or_default();
        let address = self.best_passage(&encoded.vector, id, address)?;
        let score = encoded.vector.dot(&self.searcher.vector(address)?);
        let found = vec![Found { hit: Hit { id: id.to_owned(), score }, address }];
        let answer = Answer { encoded, found, lists: None, search_time: Duration::ZERO };
        Ok(self.hits(query, answer)?.pop())
    }

    /// Snippets of a document's text.
    fn snippets(&self, query: &str, text: &str, explanation: Option<&Explanation>) -> Result<Vec<Snippet>> {
        let SearchSettings { snippets: count, snippet_length, .. } = self.settings;
        let Some(explanation) = explanation.filter(|_| count > 0) else { return Ok(Vec::new()) };
        let met = WordFinder::new(&self.searcher, self.vocabulary(), query, explanation)?.find(text)?;
        Ok(snippets(text, &met, snippet_length, count))
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.side.as_ref()?.vocabulary.as_ref()
    }

    /// Address of the best passage of a document; `head` where documents are not split, and where no passage has a score.
    fn best_passage(&self, vector: &SparseVector, id: &str, head: Address) -> Result<Address> {
        if self.searcher.passage(head)?.is_none() {
            return Ok(head);
        }
        let options = SearchOptions { filter: Some(Filter::Ids(vec![id.to_owned()])), ..SearchOptions::default() };
        let best = self.searcher.search(vector, 1, &options)?.pop();
        Ok(best.map_or(head, |found| found.address))
    }

    fn passage(&self, found: &Found, document: &StoredDocument) -> Result<Option<AnswerPassage>> {
        if matches!(self.settings.mode, Mode::Bm25 | Mode::Dense) {
            return Ok(None);
        }
        let passage = self.searcher.passage(found.address)?;
        Ok(passage.map(|passage| AnswerPassage::of(document, &passage)))
    }

    fn search(&self, query: &Query, encoded: &Encoded) -> Result<Vec<Found>> {
        let (text, vector, dense) = (query.text.as_str(), &encoded.vector, encoded.dense.as_ref());
        let SearchSettings { mode, k, fusion, options, .. } = &self.settings;
        Ok(match mode {
            Mode::Sparse => self.searcher.search(vector, *k, options)?,
            Mode::Bm25 => self.searcher.search_bm25_with(text, *k, options)?,
            Mode::Dense => match self.dense_part(query, dense) {
                Some(part) => self.searcher.search_dense_part(part, *k, options)?,
                None => Vec::new(),
            },
            Mode::Hybrid => {
                let query = HybridQuery { vector, text, dense: self.dense_part(query, dense) };
                self.searcher.search_hybrid(query, *k, self.list_depth(), fusion, options)?
            }
        })
    }

    /// Source of the dense ranking of a query with this vector.
    fn dense_part<'a>(&'a self, query: &Query, vector: Option<&'a DenseVector>) -> Option<DensePart<'a>> {
        self.dense.as_ref()?.part(&query.id, vector)
    }

    /// Hits of each ranking that is fused.
    fn list_depth(&self) -> usize {
        self.settings.depth.max(self.settings.k)
    }
}
