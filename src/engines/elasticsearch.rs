//! Elasticsearch: version 8.15 or later, by its field type `sparse_vector`.
//!
//! Weights keep 9 significant bits, and every document with a term of the query is scored. Newer versions leave light terms of
//! a query out by default; that is switched off in each query, and in the mapping where it has such a setting.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde_json::{Map, Value as Json, json};
use splade_core::{Scaling, SparseVector};
use splade_index::FieldSpec;

use super::limits::Limits;
use super::lucene::{self, CLAUSES_MAX, LuceneIndex, SHARE_BELOW, VECTOR};
use super::{
    Collection, CollectionManifest, Engine, EngineError, EngineHit, EngineHybrid, EngineQuery, EngineResult, IdPage,
    ItemFailure, Record, Tolerance,
};
use crate::cli::{CollectionArgs, EngineArgs};

/// First version with the query.
const SINCE: (u32, u32) = (8, 15);

/// An index of Elasticsearch.
pub(super) struct Elasticsearch {
    index: LuceneIndex,
    /// settings of a new index
    args: CollectionArgs,
    /// typed fields of the index, once its manifest is read or written
    fields: Mutex<Vec<FieldSpec>>,
}

impl Elasticsearch {
    /// Connects to `--url`.
    ///
    /// # Errors
    /// An address that cannot be used, a variable that is not set.
    pub(super) fn new(args: &EngineArgs, collection: &CollectionArgs) -> Result<Self> {
        let index = LuceneIndex::new("elasticsearch", args)?;
        Ok(Self { index, args: collection.clone(), fields: Mutex::default() })
    }

    fn keep_fields(&self, manifest: Option<&CollectionManifest>) {
        let fields = manifest.map(|manifest| manifest.fields.clone()).unwrap_or_default();
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = fields;
    }

    fn body(&self, query: &EngineQuery<'_>) -> EngineResult<Json> {
        let mut body = self.index.frame(query)?;
        let place = self.place();
        let fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let condition = query.filter.map(|tree| lucene::filter::query(tree, &fields, &place)).transpose()?;
        let vectors = lucene::filtered(sparse_vector(query.vector), condition.as_ref());
        match query.hybrid {
            None => {
                body["query"] = vectors;
                body["sort"] = lucene::order();
            }
            Some(hybrid) => {
                let words = lucene::filtered(lucene::words_query(hybrid.text), condition.as_ref());
                body["retriever"] = retriever(&place, &hybrid, query.k, vectors, words)?;
            }
        }
        Ok(body)
    }
}

impl Engine for Elasticsearch {
    fn name(&self) -> &'static str {
        "elasticsearch"
    }

    fn place(&self) -> String {
        self.index.place()
    }

    fn limits(&self) -> Limits {
        Limits {
            negative_weights: false,
            document_weight_min: f32::MIN_POSITIVE,
            query_terms_max: CLAUSES_MAX,
            ..Limits::NONE
        }
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::Below { share: SHARE_BELOW }
    }

    fn settings(&self) -> Json {
        self.args.to_json()
    }

    fn state(&self) -> EngineResult<Option<Collection>> {
        let collection = self.index.state()?;
        self.keep_fields(collection.as_ref().and_then(|collection| collection.manifest.as_ref()));
        Ok(collection)
    }

    fn create(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        let version = self.index.version()?;
        if version < SINCE {
            let message = format!("{}: version {}.{} has no query for our vectors", self.place(), version.0, version.1);
            return Err(EngineError::input(message, format!("version {}.{} is the first that has", SINCE.0, SINCE.1)));
        }
        let mut vector = json!({"type": "sparse_vector"});
        if version >= (9, 1) || version.0 == 8 && version.1 >= 19 {
            vector["index_options"] = json!({"prune": false});
        }
        self.index.create(manifest, &self.args, Map::new(), &vector)?;
        self.keep_fields(Some(manifest));
        Ok(())
    }

    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()> {
        self.index.write_manifest(manifest)?;
        self.keep_fields(Some(manifest));
        Ok(())
    }

    fn remove(&self) -> EngineResult<()> {
        self.index.remove()
    }

    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>> {
        self.index.upsert(records)
    }

    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>> {
        self.index.digests(ids)
    }

    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage> {
        self.index.ids(after)
    }

    fn delete(&self, ids: &[String]) -> EngineResult<()> {
        self.index.delete(ids)
    }

    fn settle(&self) -> EngineResult<()> {
        self.index.refresh()
    }

    fn request(&self, query: &EngineQuery<'_>) -> EngineResult<String> {
        Ok(format!("{}\n{:#}", self.index.search_line(), self.body(query)?))
    }

    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        self.index.search(&self.body(query)?)
    }
}

fn sparse_vector(vector: &SparseVector) -> Json {
    json!({"sparse_vector": {"field": VECTOR, "query_vector": lucene::weights(vector), "prune": false}})
}

/// The retriever that fuses the two rankings.
///
/// # Errors
/// A fusion or a scaling that the engine does not have.
fn retriever(place: &str, hybrid: &EngineHybrid<'_>, k: usize, vectors: Json, words: Json) -> EngineResult<Json> {
    let [vectors, words] = [vectors, words].map(|query| json!({"standard": {"query": query}}));
    let depth = hybrid.depth.max(k);
    if hybrid.fusion.name() == "rrf" {
        let constant = lucene::rank_constant(place, hybrid)?;
        return Ok(json!({"rrf": {
            "retrievers": [vectors, words], "rank_constant": constant, "rank_window_size": depth,
        }}));
    }
    let scaling = hybrid.fusion.parameters().scaling;
    if scaling != Scaling::MinMax {
        let message = format!("{place}: scores are not scaled by {} there", scaling.name());
        return Err(EngineError::input(message, "choose --scaling min-max, or --fusion rrf"));
    }
    let parts = [vectors, words].into_iter().zip(lucene::shares(hybrid));
    let parts = parts.map(|(part, weight)| json!({"retriever": part, "weight": weight, "normalizer": "minmax"}));
    Ok(json!({"linear": {"retrievers": parts.collect::<Vec<_>>(), "rank_window_size": depth}}))
}
