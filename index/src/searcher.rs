//! [`Searcher`]: search in one snapshot of the index.

mod documents;
mod live;

use std::sync::{Arc, OnceLock};

use crate::DenseSettings;
use crate::analyzer::{AnalyzerVersion, Language};
use crate::bm25::Compounds;
use crate::directory::CheckedDirectory;
use crate::filter::{Filter, FilterCache, Passing};
use crate::hits::{Address, Found, Scoring, SearchOptions};
use crate::passages::Heads;
use crate::plugin::file_name;
use crate::schema::Fields;
use crate::snapshots::Snapshots;
use crate::{Error, Result};
use splade_core::dense::DenseFile;
use splade_core::segment::{Candidate, Demand, Live, QueryPlan};
use splade_core::segment::{Defect, SegmentFile};
use splade_core::{Hit, SparseVector, score_order};

use self::live::LiveDocuments;

/// A snapshot of the index at one commit. Later writes do not change its results.
#[derive(Clone)]
pub struct Searcher {
    searcher: tantivy::Searcher,
    directory: CheckedDirectory,
    files: Vec<Arc<SegmentFile>>,
    /// of every segment; empty without dense vectors
    dense_files: Vec<Arc<DenseFile>>,
    dense: Option<DenseSettings>,
    fields: Fields,
    vocabulary_size: u32,
    filters: Arc<FilterCache>,
    language: Language,
    analyzer: AnalyzerVersion,
    /// found at the first search that splits compounds
    compounds: Arc<OnceLock<Compounds>>,
    /// in an index with passages
    heads: Option<Arc<Heads>>,
}

impl Searcher {
    pub(crate) fn open(index: &Snapshots, searcher: tantivy::Searcher) -> Result<Self> {
        let files = searcher.segment_readers().iter().map(|reader| index.segment_file(reader));
        let files = files.collect::<Result<Vec<_>>>()?;
        let dense_files = searcher.segment_readers().iter().filter_map(|reader| index.dense_file(reader).transpose());
        let dense_files = dense_files.collect::<Result<Vec<_>>>()?;
        let settings = index.settings();
        Ok(Self {
            files,
            dense_files,
            dense: settings.dense.clone(),
            fields: index.fields().clone(),
            vocabulary_size: settings.vocabulary_size,
            language: settings.language,
            analyzer: settings.analyzer,
            heads: index.fields().passages.map(|_| Arc::default()),
            filters: Arc::default(),
            compounds: Arc::default(),
            searcher,
            directory: index.directory().clone(),
        })
    }

    /// True if both are snapshots of one commit, opened together.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.searcher.segment_readers(), other.searcher.segment_readers())
    }

    /// The error of a segment file with a defect.
    fn damaged(&self, segment: usize, defect: Defect) -> Error {
        let name = file_name(self.searcher.segment_reader(segment as u32));
        Error::damaged(self.directory.path().join(name), defect)
    }

    /// Runs `work`, which calls tantivy, by [`CheckedDirectory::run`].
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.directory.run(work)
    }

    pub(crate) fn tantivy(&self) -> &tantivy::Searcher {
        &self.searcher
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(crate) fn files(&self) -> &[Arc<SegmentFile>] {
        &self.files
    }

    /// Language of the BM25 stemmer.
    #[must_use]
    pub fn language(&self) -> Language {
        self.language
    }

    pub(crate) fn analyzer_version(&self) -> AnalyzerVersion {
        self.analyzer
    }

    pub(crate) fn compounds_cell(&self) -> &OnceLock<Compounds> {
        &self.compounds
    }

    pub(crate) fn dense_files(&self) -> &[Arc<DenseFile>] {
        &self.dense_files
    }

    /// Dense vectors of the index, if it has them.
    #[must_use]
    pub fn dense_settings(&self) -> Option<&DenseSettings> {
        self.dense.as_ref()
    }

    pub(crate) fn directory(&self) -> &CheckedDirectory {
        &self.directory
    }

    /// Number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.passage_heads() {
            None => self.n_rows(),
            Some(heads) => heads.n_documents(|| self.addresses().count()),
        }
    }

    /// Number of rows: of documents, or of passages where documents have them.
    pub(crate) fn n_rows(&self) -> usize {
        self.searcher.num_docs() as usize
    }

    pub(crate) fn passage_heads(&self) -> Option<&Heads> {
        self.heads.as_deref()
    }

    /// True if there are no documents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_rows() == 0
    }

    /// The `k` documents with the highest scores, score descending, then id ascending.
    ///
    /// Only documents with a score above zero are found. Query weights may be negative. Dimensions without postings or beyond
    /// the vocabulary add nothing. A document with passages has the score of its best one, and the address is that passage's.
    ///
    /// # Errors
    /// A damaged index, an invalid filter.
    pub fn search(&self, query: &SparseVector, k: usize, options: &SearchOptions) -> Result<Vec<Found>> {
        match self.heads {
            None => self.search_rows(query, k, options),
            Some(_) => self.best_documents(k, |depth| self.search_rows(query, depth, options)),
        }
    }

    fn search_rows(&self, query: &SparseVector, k: usize, options: &SearchOptions) -> Result<Vec<Found>> {
        if k == 0 || self.is_empty() {
            return Ok(Vec::new());
        }
        // k may be far larger than the number of rows
        let k = k.min(self.n_rows());
        let query: Vec<(u32, f32)> = query.iter().collect();
        let live = self.live_documents(options.filter.as_ref())?;
        if let Some(passing) = live.passing.as_deref().filter(|passing| self.are_few(passing, &query)) {
            return self.truncate(self.score_passing(&query, passing)?, k);
        }
        let hidden = live.hidden();
        let files = self.files.iter().map(Arc::as_ref);
        let plan = QueryPlan::new(files, &Demand { query: &query, k, hidden: Some(&hidden) });
        let Some(plan) = plan.map_err(|damage| self.damaged(damage.segment, damage.defect))? else {
            return self.truncate(self.score_all(&query, &live)?, k);
        };
        let scored = match options.scoring {
            Scoring::Quantized => {
                let candidates = plan.quantized_candidates(k, &live, options.threads);
                candidates.into_iter().map(|candidate| (plan.score(candidate.sum), address_of(&candidate))).collect()
            }
            Scoring::Exact => {
                let mut candidates = plan.exact_candidates(k, &live, options.threads);
                let scores = plan.exact_scores(&mut candidates);
                let scores = scores.map_err(|damage| self.damaged(damage.segment, damage.defect))?;
                scores.into_iter().zip(candidates.iter().map(address_of)).collect()
            }
        };
        self.truncate(scored, k)
    }

    /// Scores every document by its exact weights: the plain twin of [`search`](Self::search).
    ///
    /// # Errors
    /// Those of [`search`](Self::search).
    pub fn search_exact(&self, query: &SparseVector, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let query: Vec<(u32, f32)> = query.iter().collect();
        self.truncate(self.best_rows(self.score_all(&query, &self.live_documents(filter)?)?)?, k)
    }

    /// Exact scores of documents, in their order: 0 for a document without a term of the query. It takes the time of some
    /// look-ups per document, and not that of a search.
    ///
    /// # Errors
    /// An address of another snapshot, a damaged index.
    pub fn scores(&self, query: &SparseVector, addresses: &[Address]) -> Result<Vec<f32>> {
        self.scores_of(&query.iter().collect::<Vec<_>>(), addresses)
    }

    fn scores_of(&self, query: &[(u32, f32)], addresses: &[Address]) -> Result<Vec<f32>> {
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        order.sort_unstable_by_key(|at| addresses[*at]);
        let mut scores = vec![0.0; addresses.len()];
        for places in order.chunk_by(|a, b| addresses[*a].segment == addresses[*b].segment) {
            let docs = places.iter().map(|at| self.file_of(addresses[*at]).map(|_| addresses[*at].doc));
            let docs = docs.collect::<Result<Vec<u32>>>()?;
            let first = addresses[places[0]];
            let found = self.file_of(first)?.scores(query, &docs);
            let found = found.map_err(|defect| self.damaged(first.segment as usize, defect))?;
            places.iter().zip(found).for_each(|(at, score)| scores[*at] = score);
        }
        Ok(scores)
    }

    /// Reads the vectors of all segments into memory and checks them, so that the first search is as fast as later ones.
    ///
    /// # Errors
    /// A damaged index.
    pub fn warm(&self) -> Result<()> {
        let files = self.files.iter().enumerate();
        files
            .into_iter()
            .try_for_each(|(segment, file)| file.warm().map_err(|defect| self.damaged(segment, defect)))?;
        self.warm_dense()
    }

    /// Number of terms of the vocabulary.
    #[must_use]
    pub fn vocabulary_size(&self) -> u32 {
        self.vocabulary_size
    }

    /// Scores every document and returns the best `k` whose score is not 0; a score may be negative.
    pub(crate) fn search_nonzero(&self, query: &SparseVector, k: usize, filter: Option<&Filter>) -> Result<Vec<Found>> {
        let query: Vec<(u32, f32)> = query.iter().collect();
        let mut scored = self.score_all(&query, &self.live_documents(filter)?)?;
        scored.retain(|(score, _)| *score != 0.0);
        self.best(self.best_rows(scored)?, k)
    }

    /// The best `k` of `scored` with scores above zero, in order.
    pub(crate) fn truncate(&self, mut scored: Vec<(f32, Address)>, k: usize) -> Result<Vec<Found>> {
        scored.retain(|(score, _)| *score > 0.0);
        self.best(scored, k)
    }

    /// The best `k` of `scored`, in order.
    pub(crate) fn best(&self, mut scored: Vec<(f32, Address)>, k: usize) -> Result<Vec<Found>> {
        // the order of `Hit::rank_order`; hits are made only of the best, and once they are in order
        let mut failed = None;
        let mut id = |address| {
            self.id_bytes(address).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                &[]
            })
        };
        // of equal passages of a document the first
        let mut order = |a: &(f32, Address), b: &(f32, Address)| {
            score_order(a.0, b.0).then_with(|| id(a.1).cmp(id(b.1))).then(a.1.cmp(&b.1))
        };
        if k > 0 && scored.len() > k {
            scored.select_nth_unstable_by(k - 1, &mut order);
        }
        scored.truncate(k);
        scored.sort_unstable_by(&mut order);
        if let Some(error) = failed {
            return Err(error);
        }
        let found =
            scored.into_iter().map(|(score, address)| Ok(Found { hit: Hit { id: self.id(address)?, score }, address }));
        found.collect()
    }

    /// Refuses an address of another snapshot, as far as one can tell.
    pub(crate) fn expect_address(&self, address: Address) -> Result<()> {
        self.file_of(address).map(drop)
    }

    fn file_of(&self, address: Address) -> Result<&SegmentFile> {
        let file = self.files.get(address.segment as usize).filter(|file| address.doc < file.n_docs());
        file.map(Arc::as_ref)
            .ok_or_else(|| Error::invalid("the address of a document is of another snapshot", "search again"))
    }

    pub(crate) fn live_documents(&self, filter: Option<&Filter>) -> Result<LiveDocuments<'_>> {
        let passing = filter.map(|filter| self.passing(filter)).transpose()?;
        Ok(LiveDocuments { searcher: &self.searcher, passing })
    }

    /// The documents that pass a filter. Each filter is evaluated once, as long as the snapshot keeps it.
    pub(crate) fn passing(&self, filter: &Filter) -> Result<Arc<Passing>> {
        self.run(|| self.filters.passing(filter, self))
    }

    #[cfg(test)]
    pub(crate) fn filters(&self) -> &FilterCache {
        &self.filters
    }

    /// True if scoring exactly the documents that pass takes less time than adding up the postings of the query.
    fn are_few(&self, passing: &Passing, query: &[(u32, f32)]) -> bool {
        let n_docs: usize = passing.n_docs().iter().sum();
        let dfs = self.files.iter().flat_map(|file| query.iter().map(|(dim, _)| u64::from(file.df(*dim))));
        let postings: u64 = dfs.sum();
        (n_docs as u64).saturating_mul(POSTINGS_PER_DOCUMENT) <= postings
    }

    fn score_passing(&self, query: &[(u32, f32)], passing: &Passing) -> Result<Vec<(f32, Address)>> {
        let addresses: Vec<Address> = passing.addresses().map(|(segment, doc)| Address { segment, doc }).collect();
        Ok(self.scores_of(query, &addresses)?.into_iter().zip(addresses).collect())
    }

    fn score_all(&self, query: &[(u32, f32)], live: &LiveDocuments<'_>) -> Result<Vec<(f32, Address)>> {
        let mut scored = Vec::new();
        for (segment, file) in self.files.iter().enumerate() {
            let scores = file.all_scores(query).map_err(|defect| self.damaged(segment, defect))?;
            let scores = (0..).zip(scores).filter(|(doc, _)| live.is_live(segment, *doc));
            scored.extend(scores.map(|(doc, score)| (score, Address { segment: segment as u32, doc })));
        }
        Ok(scored)
    }
}

fn address_of(candidate: &Candidate) -> Address {
    Address { segment: candidate.segment, doc: candidate.doc }
}

/// Postings that are added up in about the time that it takes to score one document exactly.
const POSTINGS_PER_DOCUMENT: u64 = 200;
