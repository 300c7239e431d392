//! Parts of queries that OpenSearch and Elasticsearch share.

use serde_json::{Value as Json, json};
use splade_core::SparseVector;

use super::{ID, TEXT, TITLE};
use crate::engines::{EngineError, EngineHybrid, EngineResult};

/// Ranking by words: BM25 over title and text as if they were one field.
pub(in crate::engines) fn words_query(text: &str) -> Json {
    json!({"multi_match": {"query": text, "fields": [TITLE, TEXT], "type": "cross_fields"}})
}

/// A query whose documents also meet the condition of the search.
pub(in crate::engines) fn filtered(mut query: Json, condition: Option<&Json>) -> Json {
    let Some(condition) = condition else { return query };
    // a `bool` with a filter would also return documents that match no clause
    if let Some(Json::Object(bool)) = query.get_mut("bool") {
        bool.insert("minimum_should_match".to_owned(), json!(1));
        bool.insert("filter".to_owned(), json!([condition]));
        return query;
    }
    json!({"bool": {"must": [query], "filter": [condition]}})
}

/// Scores descending, then ids ascending, so that equal scores are in one order whichever shard answers.
pub(in crate::engines) fn order() -> Json {
    json!([{"_score": "desc"}, {ID: "asc"}])
}

/// The shortest decimal number that reads back as the same f32.
pub(in crate::engines) fn number(weight: f32) -> f64 {
    weight.to_string().parse().unwrap_or(weight.into())
}

/// Weights by dimension.
pub(in crate::engines) fn weights(vector: &SparseVector) -> Json {
    Json::Object(vector.iter().map(|(dim, weight)| (dim.to_string(), json!(number(weight)))).collect())
}

/// Constant of reciprocal rank fusion, which these engines take as an integer without weights.
///
/// # Errors
/// Another constant, weights.
pub(in crate::engines) fn rank_constant(place: &str, hybrid: &EngineHybrid<'_>) -> EngineResult<u32> {
    let parameters = hybrid.fusion.parameters();
    let [first, rest @ ..] = &parameters.weights[..] else { return integer(place, parameters.rrf_k) };
    if rest.iter().any(|weight| weight != first) {
        let message = format!("{place}: reciprocal rank fusion has no weights there");
        return Err(EngineError::input(message, "leave --weights out, or choose --fusion weighted"));
    }
    integer(place, parameters.rrf_k)
}

fn integer(place: &str, constant: f32) -> EngineResult<u32> {
    if constant.fract() == 0.0 && (1.0..=10_000.0).contains(&constant) {
        return Ok(constant as u32);
    }
    let message =
        format!("{place}: the constant of reciprocal rank fusion is {constant}, not an integer of 1 to 10000");
    Err(EngineError::input(message, "give another --rrf-k"))
}

/// Weights of a weighted sum, the vectors first; the engines take them with the sum 1.
pub(in crate::engines) fn shares(hybrid: &EngineHybrid<'_>) -> [f64; 2] {
    let weights = hybrid.fusion.parameters().weights;
    let [vectors, words] = [0, 1].map(|at| f64::from(weights.get(at).copied().unwrap_or(1.0)));
    [vectors / (vectors + words), words / (vectors + words)]
}
