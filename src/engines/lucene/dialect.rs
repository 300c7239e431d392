//! [`Dialect`]: mappings and queries of one of the engines over Lucene. The rest of a driver is equal in both.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::LuceneIndex;
use crate::engines::limits::Limits;
use crate::engines::{
    Collection, CollectionManifest, Engine, EngineHit, EngineQuery, EngineResult, IdPage, ItemFailure, Record,
    Tolerance,
};

/// An engine over Lucene by that in which it differs from the other.
pub(in crate::engines) trait Dialect: Send + Sync {
    /// The index.
    fn index(&self) -> &LuceneIndex;

    /// Vectors that the index can hold and search for.
    fn limits(&self) -> Limits;

    /// Largest difference between scores and exact ones.
    fn tolerance(&self) -> Tolerance;

    /// Mapping of the vectors of a new index, and the settings that it needs beside those of the flags.
    ///
    /// # Errors
    /// A version of the engine that does not have them.
    fn vectors(&self, manifest: &CollectionManifest) -> EngineResult<(Json, Map<String, Json>)>;

    /// Body of a search.
    ///
    /// # Errors
    /// A part of the query that the engine does not have.
    fn body(&self, query: &EngineQuery<'_>) -> EngineResult<Json>;

    /// Best documents, score descending.
    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        self.index().search(&self.body(query)?)
    }
}

impl<D: Dialect> Engine for D {
    fn name(&self) -> &'static str {
        self.index().engine
    }

    fn place(&self) -> String {
        self.index().place()
    }

    fn limits(&self) -> Limits {
        Dialect::limits(self)
    }

    fn tolerance(&self) -> Tolerance {
        Dialect::tolerance(self)
    }

    fn settings(&self) -> Json {
        self.index().args.to_json()
    }

    fn state(&self) -> EngineResult<Option<Collection>> {
        self.index().state()
    }

    fn create(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let (vector, settings) = self.vectors(manifest)?;
        self.index().create(manifest, &vector, settings)
    }

    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        self.index().write_manifest(manifest)
    }

    fn remove(&self) -> EngineResult<()> {
        self.index().remove()
    }

    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>> {
        self.index().upsert(records)
    }

    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>> {
        self.index().digests(ids)
    }

    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage> {
        self.index().ids(after)
    }

    fn delete(&self, ids: &[String]) -> EngineResult<()> {
        self.index().delete(ids)
    }

    fn settle(&self) -> EngineResult<()> {
        self.index().refresh()
    }

    fn request(&self, query: &EngineQuery<'_>) -> EngineResult<String> {
        Ok(format!("{}\n{:#}", self.index().search_line(), self.body(query)?))
    }

    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        Dialect::search(self, query)
    }
}
