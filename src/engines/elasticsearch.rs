//! Elasticsearch: version 8.15 or later, by its field type `sparse_vector`.
//!
//! Weights keep 9 significant bits, and every document with a term of the query is scored. Newer versions leave light terms of
//! a query out by default; that is switched off in each query, and in the mapping where it has such a setting.

use anyhow::Result;
use serde_json::{Map, Value as Json, json};
use splade_core::{Scaling, SparseVector};

use super::limits::Limits;
use super::lucene::{self, CLAUSES_MAX, Dialect, LuceneIndex, SHARE_BELOW, VECTOR};
use super::{
    CollectionManifest, EngineError, EngineHybrid, EngineQuery, EngineRanking, EngineResult, Tolerance, parts,
};
use crate::cli::{CollectionArgs, EngineArgs};

/// First version with the query.
const SINCE: (u32, u32) = (8, 15);

/// An index of Elasticsearch.
pub(super) struct Elasticsearch {
    index: LuceneIndex,
}

impl Elasticsearch {
    /// Connects to `--url`.
    ///
    /// # Errors
    /// An address that cannot be used, a variable that is not set.
    pub(super) fn new(args: &EngineArgs, new_index: &CollectionArgs) -> Result<Self> {
        Ok(Self { index: LuceneIndex::new("elasticsearch", args, new_index)? })
    }
}

impl Dialect for Elasticsearch {
    fn index(&self) -> &LuceneIndex {
        &self.index
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

    fn vectors(&self, _: &CollectionManifest) -> EngineResult<(Json, Map<String, Json>)> {
        let version = self.index.version()?;
        if version < SINCE {
            let place = self.index.place();
            let message = format!("{place}: version {}.{} has no query for our vectors", version.0, version.1);
            return Err(EngineError::input(message, format!("version {}.{} is the first that has", SINCE.0, SINCE.1)));
        }
        let mut vector = json!({"type": "sparse_vector"});
        if version >= (9, 1) || version.0 == 8 && version.1 >= 19 {
            vector["index_options"] = json!({"prune": false});
        }
        Ok((vector, Map::new()))
    }

    fn body(&self, query: &EngineQuery<'_>) -> EngineResult<Json> {
        let mut body = self.index.frame(query)?;
        let condition = self.index.condition(query)?;
        let vectors = || lucene::filtered(sparse_vector(query.vector), condition.as_ref());
        let words = |text: &str| lucene::filtered(lucene::words_query(text), condition.as_ref());
        let ranked = match query.ranking {
            EngineRanking::Hybrid(hybrid) => {
                let (place, words) = (self.index.place(), words(hybrid.words.text));
                body["retriever"] = retriever(&place, &hybrid, query.depth(), vectors(), words)?;
                return Ok(body);
            }
            EngineRanking::Vectors => vectors(),
            EngineRanking::Words(of_query) => words(of_query.text),
        };
        body["query"] = ranked;
        body["sort"] = lucene::order();
        Ok(body)
    }
}

fn sparse_vector(vector: &SparseVector) -> Json {
    json!({"sparse_vector": {"field": VECTOR, "query_vector": parts::weights(vector), "prune": false}})
}

/// The retriever that fuses the two rankings, of `depth` hits each.
///
/// # Errors
/// A fusion or a scaling that the engine does not have.
fn retriever(place: &str, hybrid: &EngineHybrid<'_>, depth: usize, vectors: Json, words: Json) -> EngineResult<Json> {
    let [vectors, words] = [vectors, words].map(|query| json!({"standard": {"query": query}}));
    if hybrid.fusion.name() == "rrf" {
        let constant = parts::rank_constant(place, hybrid)?;
        return Ok(json!({"rrf": {
            "retrievers": [vectors, words], "rank_constant": constant, "rank_window_size": depth,
        }}));
    }
    let scaling = hybrid.fusion.parameters().scaling;
    if scaling != Scaling::MinMax {
        let message = format!("{place}: scores are not scaled by {} there", scaling.name());
        return Err(EngineError::input(message, "choose --scaling min-max, or --fusion rrf"));
    }
    let parts = [vectors, words].into_iter().zip(parts::shares(hybrid));
    let parts = parts.map(|(part, weight)| json!({"retriever": part, "weight": weight, "normalizer": "minmax"}));
    Ok(json!({"linear": {"retrievers": parts.collect::<Vec<_>>(), "rank_window_size": depth}}))
}
