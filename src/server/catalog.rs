//! [`Catalog`]: the indexes that are served, by name, each with its newest snapshot.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Result;
use axum::http::StatusCode;
use splade_index::{FieldSpec, HybridSettings, ImpactIndex, Language, Searcher};

use super::models::Models;
use super::pace::Pace;
use super::problem::{Answered, Problem};
use crate::answer::{Answerer, QuerySide, SearchSettings};
use crate::cli::{Mode, NamedIndex};
use crate::dense::{DenseModel, DenseSide};

/// An index that is served.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) index: ImpactIndex,
    pub(crate) side: Arc<QuerySide>,
    /// none without a dense model
    pub(crate) dense: Option<Arc<DenseSide>>,
    /// encoder of the dense vectors of documents; none without a dense model, and where requests add none
    pub(crate) dense_documents: Option<Arc<DenseModel>>,
    /// settings that `tune` wrote
    pub(crate) tuned: Option<HybridSettings>,
    searcher: RwLock<Searcher>,
    /// of plain searches, by mode
    paces: [Pace; 4],
    /// held while a snapshot is opened, so that none replaces a newer one
    refreshing: Mutex<()>,
}

impl Served {
    fn open(named: &NamedIndex, models: &Models) -> Result<Self> {
        let index = ImpactIndex::open(&named.dir)?;
        Ok(Self {
            name: named.name.clone(),
            side: models.query_side(&index)?,
            dense: models.dense_side(&index)?,
            dense_documents: models.dense_documents(&index)?,
            tuned: index.read_hybrid_settings()?,
            searcher: RwLock::new(index.searcher()?),
            paces: Default::default(),
            refreshing: Mutex::default(),
            index,
        })
    }

    /// The newest snapshot.
    pub(crate) fn searcher(&self) -> Searcher {
        self.searcher.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Times of plain searches in a mode.
    pub(crate) fn pace(&self, mode: Mode) -> &Pace {
        &self.paces[mode as usize]
    }

    /// Answerer of searches in the newest snapshot with these settings.
    pub(crate) fn answerer(&self, settings: SearchSettings) -> Answerer {
        let has_terms = matches!(settings.mode, Mode::Sparse | Mode::Hybrid);
        let is_dense = matches!(settings.mode, Mode::Dense | Mode::Hybrid);
        Answerer {
            side: has_terms.then(|| Arc::clone(&self.side)),
            dense: self.dense.clone().filter(|_| is_dense),
            searcher: self.searcher(),
            settings,
        }
    }

    /// Refuses a text of more than `most` tokens, for a thread that may take its time. `pointer` is its place in the body.
    pub(crate) fn expect_short(&self, text: &str, most: usize, pointer: &str) -> Answered<()> {
        // a token has a byte or more, so that most texts need not be split
        let tokens = if text.len() <= most { 0 } else { self.side.count_tokens(text, most)? };
        if tokens <= most {
            return Ok(());
        }
        Err(Problem::invalid(pointer, format!("the text has more than {most} tokens")))
    }

    /// Opens a snapshot of the last commit. Returns its number of documents if there was a new commit.
    ///
    /// # Errors
    /// A segment that is damaged, another index in the folder; the old snapshot stays.
    pub(crate) fn refresh(&self) -> Result<Option<usize>> {
        let _alone = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest = self.searcher();
        if !self.index.refresh(&mut newest)? {
            return Ok(None);
        }
        let documents = newest.len();
        let mut searcher = self.searcher.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *searcher, newest);
        // the files of a snapshot may take long to close: no request waits for them
        drop(searcher);
        drop(old);
        Ok(Some(documents))
    }

    /// Language of the BM25 stemmer.
    pub(crate) fn language(&self) -> Language {
        self.index.settings().language
    }

    /// Typed fields.
    pub(crate) fn fields(&self) -> &[FieldSpec] {
        &self.index.settings().fields
    }

    /// Modes that can be searched in.
    pub(crate) fn modes(&self) -> Vec<Mode> {
        let dense = self.dense.as_ref().map(|_| Mode::Dense);
        [Mode::Sparse, Mode::Bm25, Mode::Hybrid].into_iter().chain(dense).collect()
    }
}

/// All indexes that are served.
pub(crate) struct Catalog {
    given: Vec<NamedIndex>,
    models: Models,
    /// in the order in which they were given
    served: RwLock<Vec<Arc<Served>>>,
}

impl Catalog {
    /// Opens all indexes.
    ///
    /// # Errors
    /// An index that cannot be opened, or is of another model; a name that is given twice.
    pub(crate) fn open(given: &[NamedIndex], models: Models) -> Result<Self> {
        for (at, named) in given.iter().enumerate() {
            if given[..at].iter().any(|other| other.name == named.name) {
                let message = format!("--index: two indexes have the name {:?}", named.name);
                return Err(crate::failure::bad_input(message, "give names with --index NAME=DIR"));
            }
        }
        let served = given.iter().map(|named| Ok(Arc::new(Served::open(named, &models)?))).collect::<Result<_>>()?;
        Ok(Self { given: given.to_vec(), models, served: RwLock::new(served) })
    }

    /// All indexes.
    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The index of this name; without a name the only one.
    ///
    /// # Errors
    /// 404 for an unknown name, 422 for no name where there are several indexes.
    pub(crate) fn get(&self, name: Option<&str>) -> Answered<Arc<Served>> {
        let all = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let names = || self.given.iter().map(|named| named.name.as_str()).collect::<Vec<_>>().join(", ");
        match (name, &all[..]) {
            (Some(name), all) => all.iter().find(|served| served.name == name).cloned().ok_or_else(|| {
                let detail = format!("there is no index {name:?}; there are: {}", names());
                Problem::new(StatusCode::NOT_FOUND, detail).at("/index")
            }),
            (None, [only]) => Ok(Arc::clone(only)),
            (None, _) => Err(Problem::invalid("/index", format!("name one of the indexes: {}", names()))),
        }
    }

    /// Opens every index anew, as after a replacement of its folder. An index that cannot be opened is served as before.
    pub(crate) fn reopen(&self) -> Vec<Arc<Served>> {
        let mut opened = Vec::new();
        for (at, named) in self.given.iter().enumerate() {
            match Served::open(named, &self.models) {
                Ok(served) => {
                    let served = Arc::new(served);
                    let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
                    let old = std::mem::replace(&mut all[at], Arc::clone(&served));
                    drop(all);
                    // no request waits for files that are closed
                    drop(old);
                    opened.push(served);
                }
                Err(error) => tracing::error!("{}: served as before: {error:#}", named.name),
            }
        }
        opened
    }
}
