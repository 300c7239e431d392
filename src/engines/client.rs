//! [`EngineClient`]: searches of a collection with queries of its model, several at a time.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use splade_core::{Fusion, SparseVector};
use splade_index::Filter;

use super::limits::{Fit, FittedQuery};
use super::retry::Retries;
use super::words::WordVectors;
use super::{CollectionManifest, Engine, EngineHit, EngineHybrid, EngineQuery, EngineRanking, EngineWords, Tolerance};
use crate::commands::interrupt;
use crate::failure::bad_input;

/// A collection that can be searched.
pub(crate) struct EngineClient {
    engine: Box<dyn Engine>,
    manifest: CollectionManifest,
    fit: Fit,
    /// none for collections without vectors of words
    words: Option<WordVectors>,
    retries: Retries,
    /// threads that wait for the engine
    threads: ThreadPool,
    /// remarks on queries that were logged
    remarks: Mutex<HashSet<String>>,
}

/// A query as the user asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// vector of the query by the model; it is not read for a ranking by words
    pub(crate) vector: &'a SparseVector,
    /// ranking that is returned
    pub(crate) ranking: WantedRanking<'a>,
    /// number of hits
    pub(crate) k: usize,
    /// condition on the documents
    pub(crate) filter: Option<&'a Filter>,
    /// true if titles, texts and fields are needed
    pub(crate) with_documents: bool,
}

/// Ranking as the user asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WantedRanking<'a> {
    /// by the vector
    Vectors,
    /// by BM25 over the words of this text
    Words(&'a str),
    /// both, each `depth` hits deep, fused
    Hybrid { text: &'a str, depth: usize, fusion: &'a Fusion },
}

/// Answers to the first of several searches, and the first failure.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// hits by search, in the order of the searches
    pub(crate) hits: Vec<Vec<EngineHit>>,
    /// number of the search that failed, and why
    pub(crate) failure: Option<(usize, anyhow::Error)>,
}

impl EngineClient {
    /// Opens a collection, which must exist, for searches of which up to `concurrency` are under way at a time.
    ///
    /// # Errors
    /// No such collection, one that this program did not make, no answer.
    pub(crate) fn open(engine: Box<dyn Engine>, concurrency: usize) -> Result<Self> {
        let retries = Retries::default();
        let place = engine.place();
        let hint = "`splade push-index` makes a collection";
        let Some(collection) = Retries::FIRST_CONTACT.run(|| engine.state())? else {
            return Err(bad_input(format!("{place}: there is no such collection"), hint));
        };
        let Some(manifest) = collection.manifest else {
            return Err(bad_input(format!("{place}: this program did not make the collection"), hint));
        };
        let fit = Fit::new(engine.limits(), &manifest);
        let words = WordVectors::of(&manifest)?;
        let threads = ThreadPoolBuilder::new().num_threads(concurrency.max(1)).build()?;
        Ok(Self { engine, manifest, fit, words, retries, threads, remarks: Mutex::default() })
    }

    /// Fit of vectors to the collection.
    pub(super) fn fit(&self) -> &Fit {
        &self.fit
    }

    /// Vectors of words of the collection, if its documents have them.
    pub(super) fn words(&self) -> Option<&WordVectors> {
        self.words.as_ref()
    }

    /// Largest difference of scores that the engine states.
    pub(super) fn tolerance(&self) -> Tolerance {
        self.engine.tolerance()
    }

    /// The collection's manifest.
    pub(crate) fn manifest(&self) -> &CollectionManifest {
        &self.manifest
    }

    /// Engine and collection, for messages.
    pub(crate) fn place(&self) -> String {
        self.engine.place()
    }

    /// The request of a search, for people to copy.
    ///
    /// # Errors
    /// A part of the query that the engine cannot express.
    pub(crate) fn request(&self, wanted: &Wanted<'_>) -> Result<String> {
        let fitted = self.fit.query(wanted.vector);
        self.with_query(wanted, &fitted, |query| Ok(self.engine.request(query)?))
    }

    /// Answers to several searches, in their order. After a failure no further search is sent, and the answers end before the
    /// first that is missing.
    pub(crate) fn search_all(&self, wanted: &[Wanted<'_>]) -> Answers {
        let has_failed = AtomicBool::new(false);
        let search = |wanted| {
            if has_failed.load(Ordering::Relaxed) {
                return None;
            }
            let found = interrupt::check().and_then(|()| self.search(wanted));
            has_failed.fetch_or(found.is_err(), Ordering::Relaxed);
            Some(found)
        };
        // a search takes the time of the engine, so no thread takes several beforehand
        let found: Vec<Option<Result<Vec<EngineHit>>>> =
            self.on_threads(|| wanted.par_iter().with_max_len(1).map(search).collect());
        let mut answers = Answers::default();
        for (at, found) in found.into_iter().enumerate() {
            match found {
                Some(Ok(hits)) if answers.hits.len() == at => answers.hits.push(hits),
                Some(Err(error)) if answers.failure.is_none() => answers.failure = Some((at, error)),
                _ => {}
            }
        }
        answers
    }

    /// Calls `work` on the threads of this client, where parallel iterators call [`search`](Self::search) as often at a time as
    /// the client allows.
    pub(crate) fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// Best documents, score descending, then id ascending. Only scores above 0 are returned, as in an index, where the ranking
    /// is by vectors alone.
    ///
    /// # Errors
    /// A part of the query that the engine cannot express, no answer.
    pub(crate) fn search(&self, wanted: &Wanted<'_>) -> Result<Vec<EngineHit>> {
        let fitted = self.fit.query(wanted.vector);
        self.remark(&fitted);
        let is_by_vectors = matches!(wanted.ranking, WantedRanking::Vectors);
        if wanted.k == 0 || is_by_vectors && fitted.vector.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.with_query(wanted, &fitted, |query| self.retries.run(|| self.engine.search(query)))?;
        let factor = if is_by_vectors { fitted.score_factor } else { 1.0 };
        let mut hits: Vec<EngineHit> = found
            .into_iter()
            .map(|hit| EngineHit { score: hit.score * factor, ..hit })
            .filter(|hit| !is_by_vectors || hit.score > 0.0)
            .collect();
        hits.sort_by(|a, b| splade_core::score_order(a.score, b.score).then_with(|| a.document.id.cmp(&b.document.id)));
        Ok(hits)
    }

    fn with_query<T>(
        &self,
        wanted: &Wanted<'_>,
        fitted: &FittedQuery,
        run: impl FnOnce(&EngineQuery<'_>) -> Result<T>,
    ) -> Result<T> {
        let fields = &self.manifest.fields;
        let filter = wanted.filter.map(|filter| filter.tree(fields)).transpose()?;
        let filter = filter.map(|tree| tree.over_typed_values(fields));
        let text = match wanted.ranking {
            WantedRanking::Vectors => None,
            WantedRanking::Words(text) | WantedRanking::Hybrid { text, .. } => Some(text),
        };
        let vector = text.and_then(|text| Some(self.words.as_ref()?.query(text)));
        let words = EngineWords { text: text.unwrap_or_default(), vector: vector.as_ref() };
        let ranking = match wanted.ranking {
            WantedRanking::Vectors => EngineRanking::Vectors,
            WantedRanking::Words(_) => EngineRanking::Words(words),
            WantedRanking::Hybrid { depth, fusion, .. } => EngineRanking::Hybrid(EngineHybrid { words, depth, fusion }),
        };
        let Wanted { k, with_documents, .. } = *wanted;
        run(&EngineQuery { vector: &fitted.vector, ranking, k, filter: filter.as_ref(), with_documents })
    }

    /// Logs what a query lost, each remark once.
    fn remark(&self, fitted: &FittedQuery) {
        let remark = fitted.to_string();
        let is_new = |remark: &String| {
            self.remarks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(remark.clone())
        };
        if !remark.is_empty() && is_new(&remark) {
            tracing::warn!("{}: query: {remark}", self.place());
        }
    }
}
