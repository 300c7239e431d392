//! [`EngineClient`]: searches of a collection with queries of its model.

use std::collections::HashSet;
use std::sync::Mutex;

use anyhow::Result;
use splade_core::SparseVector;
use splade_index::Filter;

use super::limits::{Fit, FittedQuery};
use super::retry::Retries;
use super::{CollectionManifest, Engine, EngineHit, EngineHybrid, EngineQuery, Tolerance};
use crate::failure::bad_input;

/// A collection that can be searched.
pub(crate) struct EngineClient {
    engine: Box<dyn Engine>,
    manifest: CollectionManifest,
    fit: Fit,
    retries: Retries,
    /// remarks on queries that were logged
    remarks: Mutex<HashSet<String>>,
}

/// A query as the user asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// vector of the query by the model
    pub(crate) vector: &'a SparseVector,
    /// the ranking by words and its fusion; none for a search by vectors alone
    pub(crate) hybrid: Option<EngineHybrid<'a>>,
    /// number of hits
    pub(crate) k: usize,
    /// condition on the documents
    pub(crate) filter: Option<&'a Filter>,
    /// true if titles, texts and fields are needed
    pub(crate) with_documents: bool,
}

impl EngineClient {
    /// Opens a collection, which must exist.
    ///
    /// # Errors
    /// No such collection, one that this program did not make, no answer.
    pub(crate) fn open(engine: Box<dyn Engine>) -> Result<Self> {
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
        Ok(Self { engine, manifest, fit, retries, remarks: Mutex::default() })
    }

    /// Fit of vectors to the collection.
    pub(super) fn fit(&self) -> &Fit {
        &self.fit
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

    /// Best documents, score descending, then id ascending. Only scores above 0 are returned, as in an index, where the ranking
    /// is by vectors alone.
    ///
    /// # Errors
    /// A part of the query that the engine cannot express, no answer.
    pub(crate) fn search(&self, wanted: &Wanted<'_>) -> Result<Vec<EngineHit>> {
        let fitted = self.fit.query(wanted.vector);
        self.remark(&fitted);
        if wanted.k == 0 || fitted.vector.is_empty() && wanted.hybrid.is_none() {
            return Ok(Vec::new());
        }
        let found = self.with_query(wanted, &fitted, |query| self.retries.run(|| self.engine.search(query)))?;
        let is_fused = wanted.hybrid.is_some();
        let mut hits: Vec<EngineHit> = found
            .into_iter()
            .map(|hit| EngineHit { score: if is_fused { hit.score } else { hit.score * fitted.score_factor }, ..hit })
            .filter(|hit| is_fused || hit.score > 0.0)
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
        let Wanted { hybrid, k, with_documents, .. } = *wanted;
        run(&EngineQuery { vector: &fitted.vector, hybrid, k, filter: filter.as_ref(), with_documents })
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
