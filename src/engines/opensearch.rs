//! OpenSearch: version 2.11 or later, 3.3 or later with the plugin neural-search for `sparse_vector`.
//!
//! The field type `rank_features` keeps 9 significant bits of a weight, and every document with a term of the query is scored.
//! A query is a `bool` of `rank_feature` clauses, which every distribution has: `neural_sparse` of the plugin neural-search scores
//! alike and refuses weights above 64. The field type `sparse_vector` is approximate in large segments: its weights have 8 bits
//! below a ceiling, and its dimensions end at 32 767.

use anyhow::Result;
use serde_json::{Map, Value as Json, json};
use splade_core::{Scaling, SparseVector};

use super::limits::Limits;
use super::lucene::{self, CLAUSES_MAX, Dialect, LuceneIndex, SHARE_BELOW, VECTOR};
use super::{
    CollectionManifest, EngineError, EngineHit, EngineHybrid, EngineQuery, EngineRanking, EngineResult, Tolerance,
    parts,
};
use crate::cli::{CollectionArgs, EngineArgs, FieldType};
use crate::ranking::decimal;

/// Largest dimension of a `sparse_vector`. Larger ones wrap, or make the merge of segments fail.
const SPARSE_VECTOR_DIM_MAX: u32 = 32_767;
/// Ceiling of the weights of queries for a `sparse_vector`; each query is scaled to it, so that all bits are used.
const QUERY_CEILING: f32 = 16.0;
/// Ceiling of a collection without weights.
const CEILING_MIN: f32 = 1e-3;
/// Factor of the engine's bound below which it leaves blocks of documents out. Its default of 1 finds fewer of the best.
const HEAP_FACTOR: f32 = 2.0;
/// Candidates of a filtered approximate search, per hit. The engine applies the filter to the candidates alone.
const CANDIDATES_PER_HIT: usize = 10;
/// Most candidates of an approximate search.
const CANDIDATES_MAX: usize = 10_000;
/// First version with the field type `sparse_vector`.
const SPARSE_VECTOR_SINCE: (u32, u32) = (3, 3);
/// Share of the exact best documents that an approximate search finds.
const RECALL_MIN: f32 = 0.9;

/// An index of OpenSearch.
pub(super) struct OpenSearch {
    index: LuceneIndex,
}

impl OpenSearch {
    /// Connects to `--url`.
    ///
    /// # Errors
    /// An address that cannot be used, a variable that is not set, flags that exclude one another.
    pub(super) fn new(args: &EngineArgs, new_index: &CollectionArgs) -> Result<Self> {
        if new_index.approximate_threshold.is_some() && new_index.field_type != Some(FieldType::SparseVector) {
            return Err(crate::failure::bad_input(
                "--approximate-threshold: only the field type sparse_vector has approximate searches",
                "add --field-type sparse_vector, or leave it out",
            ));
        }
        Ok(Self { index: LuceneIndex::new("opensearch", args, new_index)? })
    }

    fn field_type(&self) -> FieldType {
        self.index.settings().field_type.unwrap_or_default()
    }

    /// True if a search may find fewer documents than there are.
    fn is_approximate(&self, query: &EngineQuery<'_>) -> bool {
        self.field_type() == FieldType::SparseVector && !matches!(query.ranking, EngineRanking::Words(_))
    }

    /// Body of a search with this number of candidates, and the factor from its scores to those of the query.
    fn body_with(&self, query: &EngineQuery<'_>, candidates: usize) -> EngineResult<(Json, f32)> {
        let mut body = self.index.frame(query)?;
        let condition = self.index.condition(query)?;
        let (vectors, factor) = match self.field_type() {
            FieldType::RankFeatures => (lucene::filtered(rank_features(query.vector), condition.as_ref()), 1.0),
            FieldType::SparseVector => sparse_vector(query.vector, candidates, condition.as_ref()),
        };
        let words = |text: &str| lucene::filtered(lucene::words_query(text), condition.as_ref());
        if let EngineRanking::Hybrid(hybrid) = query.ranking {
            let queries = [vectors, words(hybrid.words.text)];
            body["query"] = json!({"hybrid": {"queries": queries, "pagination_depth": query.depth()}});
            let processor = processor(&self.index.place(), &hybrid)?;
            body["search_pipeline"] = json!({"phase_results_processors": [processor]});
            return Ok((body, 1.0));
        }
        let (ranked, factor) = match query.ranking {
            EngineRanking::Words(of_query) => (words(of_query.text), 1.0),
            _ => (vectors, factor),
        };
        body["query"] = ranked;
        // other orders than by score are for exact searches alone
        if !self.is_approximate(query) {
            body["sort"] = lucene::order();
        }
        Ok((body, factor))
    }

    /// Mapping of an approximate field, with ceilings from the data.
    fn seismic(&self, manifest: &CollectionManifest) -> EngineResult<Json> {
        if self.index.version()? < SPARSE_VECTOR_SINCE {
            let (major, minor) = SPARSE_VECTOR_SINCE;
            let message = format!("{}: no field type sparse_vector before version {major}.{minor}", self.index.place());
            return Err(EngineError::input(message, "choose --field-type rank_features"));
        }
        let ceiling = manifest.document_ceiling.unwrap_or_default().max(CEILING_MIN);
        let mut parameters = json!({
            "quantization_ceiling_ingest": decimal(ceiling), "quantization_ceiling_search": QUERY_CEILING,
        });
        if let Some(threshold) = self.index.settings().approximate_threshold {
            parameters["approximate_threshold"] = json!(threshold);
        }
        Ok(json!({"type": "sparse_vector", "method": {"name": "seismic", "parameters": parameters}}))
    }
}

impl Dialect for OpenSearch {
    fn index(&self) -> &LuceneIndex {
        &self.index
    }

    fn limits(&self) -> Limits {
        let exact = Limits {
            negative_weights: false,
            document_weight_min: f32::MIN_POSITIVE,
            query_terms_max: CLAUSES_MAX,
            ..Limits::NONE
        };
        match self.field_type() {
            FieldType::RankFeatures => exact,
            FieldType::SparseVector => Limits {
                document_weight_max: self.index.ceiling().unwrap_or(f32::INFINITY),
                dim_max: SPARSE_VECTOR_DIM_MAX,
                needs_ceiling: true,
                ..exact
            },
        }
    }

    fn tolerance(&self) -> Tolerance {
        match self.field_type() {
            FieldType::RankFeatures => Tolerance::Below { share: SHARE_BELOW },
            FieldType::SparseVector => Tolerance::Recall { share: RECALL_MIN },
        }
    }

    fn vectors(&self, manifest: &CollectionManifest) -> EngineResult<(Json, Map<String, Json>)> {
        let mut settings = Map::new();
        let vector = match self.field_type() {
            FieldType::RankFeatures => json!({"type": "rank_features"}),
            FieldType::SparseVector => {
                settings.insert("sparse".to_owned(), json!(true));
                self.seismic(manifest)?
            }
        };
        Ok((vector, settings))
    }

    fn body(&self, query: &EngineQuery<'_>) -> EngineResult<Json> {
        Ok(self.body_with(query, candidates(query))?.0)
    }

    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>> {
        let mut candidates = candidates(query);
        loop {
            let (body, factor) = self.body_with(query, candidates)?;
            let hits = self.index.search(&body)?;
            let has_too_few = self.is_approximate(query) && query.filter.is_some() && hits.len() < query.k;
            // the filter left too few of the candidates: more candidates leave more of them
            if has_too_few && candidates < CANDIDATES_MAX {
                candidates = (candidates * CANDIDATES_PER_HIT).min(CANDIDATES_MAX);
                continue;
            }
            return Ok(hits.into_iter().map(|hit| EngineHit { score: hit.score * factor, ..hit }).collect());
        }
    }
}

/// Candidates of the first approximate search.
fn candidates(query: &EngineQuery<'_>) -> usize {
    let per_hit = if query.filter.is_some() { CANDIDATES_PER_HIT } else { 1 };
    (query.depth() * per_hit).min(CANDIDATES_MAX)
}

/// Dot product with the cut weights of each document.
fn rank_features(vector: &SparseVector) -> Json {
    let clauses = vector.iter().map(|(dim, weight)| {
        // without a function, `saturation` would be taken, which is no dot product
        json!({"rank_feature": {"field": format!("{VECTOR}.{dim}"), "linear": {}, "boost": decimal(weight)}})
    });
    json!({"bool": {"should": clauses.collect::<Vec<_>>()}})
}

/// Approximate search for `k` candidates, and the factor of its scores.
fn sparse_vector(vector: &SparseVector, k: usize, condition: Option<&Json>) -> (Json, f32) {
    let largest = vector.weights().iter().copied().fold(0.0, f32::max);
    let factor = if largest > 0.0 { largest / QUERY_CEILING } else { 1.0 };
    let tokens = vector.iter().map(|(dim, weight)| {
        let scaled = (weight / factor).clamp(f32::MIN_POSITIVE, QUERY_CEILING);
        (dim.to_string(), decimal(scaled))
    });
    // every token of the query is used, and not only the heaviest
    let mut parameters = json!({"k": k, "top_n": vector.active_dims(), "heap_factor": HEAP_FACTOR});
    if let Some(condition) = condition {
        parameters["filter"] = condition.clone();
    }
    let tokens = tokens.collect::<Map<_, _>>();
    (json!({"neural_sparse": {VECTOR: {"query_tokens": tokens, "method_parameters": parameters}}}), factor)
}

/// The processor that fuses the two rankings.
///
/// # Errors
/// A fusion or a scaling that the plugin does not have.
fn processor(place: &str, hybrid: &EngineHybrid<'_>) -> EngineResult<Json> {
    if hybrid.fusion.name() == "rrf" {
        let constant = parts::rank_constant(place, hybrid)?;
        return Ok(json!({"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": constant}}}));
    }
    let technique = match hybrid.fusion.parameters().scaling {
        Scaling::MinMax => "min_max",
        Scaling::ZScore => "z_score",
        other => {
            let message = format!("{place}: scores are not scaled by {} there", other.name());
            return Err(EngineError::input(message, "choose --scaling min-max or z-score, or --fusion rrf"));
        }
    };
    Ok(json!({"normalization-processor": {
        "normalization": {"technique": technique},
        "combination": {"technique": "arithmetic_mean", "parameters": {"weights": parts::shares(hybrid)}},
    }}))
}
