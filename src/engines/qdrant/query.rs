//! Bodies of searches: one ranking, or two that Qdrant fuses.

use serde_json::{Value as Json, json};
use splade_core::SparseVector;

use super::{ID, VECTOR, WORDS, filter};
use crate::engines::parts::rank_constant;
use crate::engines::{EngineError, EngineHybrid, EngineQuery, EngineRanking, EngineResult, EngineWords};
use crate::ranking::decimal;

/// Body of a search. `place` is the collection, for messages.
///
/// # Errors
/// A collection without vectors of words, a fusion or a filter that Qdrant does not have.
pub(super) fn body(query: &EngineQuery<'_>, place: &str) -> EngineResult<Json> {
    let filter = query.filter.map(filter::filter).transpose()?;
    let mut body = match &query.ranking {
        EngineRanking::Vectors => ranking(query.vector, VECTOR, query.k, filter),
        EngineRanking::Words(words) => ranking(vector_of(words, place)?, WORDS, query.k, filter),
        EngineRanking::Hybrid(hybrid) => fused(query, hybrid, filter, place)?,
    };
    body["with_payload"] = if query.with_documents { json!(true) } else { json!([ID]) };
    Ok(body)
}

/// True for a search that has no hit and that Qdrant need not be asked for.
pub(super) fn is_empty(query: &EngineQuery<'_>) -> bool {
    let has_no_words = |words: &EngineWords<'_>| words.vector.is_some_and(SparseVector::is_empty);
    match &query.ranking {
        EngineRanking::Vectors => query.vector.is_empty(),
        EngineRanking::Words(words) => has_no_words(words),
        EngineRanking::Hybrid(hybrid) => query.vector.is_empty() && has_no_words(&hybrid.words),
    }
}

/// Best `limit` documents by one kind of vector.
fn ranking(vector: &SparseVector, name: &str, limit: usize, filter: Option<Json>) -> Json {
    let values: Vec<Json> = vector.weights().iter().map(|weight| decimal(*weight)).collect();
    let mut body = json!({"query": {"indices": vector.dims(), "values": values}, "using": name, "limit": limit});
    if let Some(filter) = filter {
        body["filter"] = filter;
    }
    body
}

/// Two rankings and their fusion by reciprocal ranks.
fn fused(query: &EngineQuery<'_>, hybrid: &EngineHybrid<'_>, filter: Option<Json>, place: &str) -> EngineResult<Json> {
    if hybrid.fusion.name() != "rrf" {
        let message = format!("{place}: it has no fusion by {}", hybrid.fusion.name());
        return Err(EngineError::input(message, "choose --fusion rrf"));
    }
    let constant = rank_constant(place, hybrid)?;
    let both = [(query.vector, VECTOR), (vector_of(&hybrid.words, place)?, WORDS)];
    // a query without a known token or without a word has one ranking
    let both = both.into_iter().filter(|(vector, _)| !vector.is_empty());
    let rankings: Vec<Json> = both.map(|(vector, name)| ranking(vector, name, query.depth(), filter.clone())).collect();
    // the rank of the first document is 0 in Qdrant, and 1 here
    Ok(json!({"prefetch": rankings, "query": {"rrf": {"k": constant + 1}}, "limit": query.k}))
}

/// Vector of the words of a query.
///
/// # Errors
/// A collection whose documents have no such vectors.
fn vector_of<'a>(words: &EngineWords<'a>, place: &str) -> EngineResult<&'a SparseVector> {
    words.vector.ok_or_else(|| {
        EngineError::input(
            format!("{place}: its documents have no vectors of words"),
            "push the index anew with --overwrite and without --no-bm25, or choose --mode sparse",
        )
    })
}
