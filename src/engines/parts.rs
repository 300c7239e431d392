//! Parts of requests that several engines have in common.

use serde_json::Value as Json;
use splade_core::SparseVector;

use super::{EngineError, EngineHybrid, EngineResult};
use crate::ranking::decimal;

/// Weights of a vector by dimension: `{"17": 0.8}`.
pub(super) fn weights(vector: &SparseVector) -> Json {
    Json::Object(vector.iter().map(|(dim, weight)| (dim.to_string(), decimal(weight))).collect())
}

/// Constant of reciprocal rank fusion for engines that take it as an integer, and no weights.
///
/// # Errors
/// Another constant, weights that differ.
pub(super) fn rank_constant(place: &str, hybrid: &EngineHybrid<'_>) -> EngineResult<u32> {
    let parameters = hybrid.fusion.parameters();
    if parameters.weights.windows(2).any(|pair| pair[0] != pair[1]) {
        let message = format!("{place}: its reciprocal rank fusion takes no weights");
        return Err(EngineError::input(
            message,
            "leave --weights out, or choose --fusion weighted if the engine has it",
        ));
    }
    let constant = parameters.rrf_k;
    if constant.fract() == 0.0 && (1.0..=10_000.0).contains(&constant) {
        return Ok(constant as u32);
    }
    let message =
        format!("{place}: the constant of reciprocal rank fusion is {constant}, not an integer of 1 to 10000");
    Err(EngineError::input(message, "give another --rrf-k"))
}

/// Weights of a weighted sum, the vectors first, for engines that take them with the sum 1.
pub(super) fn shares(hybrid: &EngineHybrid<'_>) -> [f64; 2] {
    let weights = hybrid.fusion.parameters().weights;
    let [vectors, words] = [0, 1].map(|at| f64::from(weights.get(at).copied().unwrap_or(1.0)));
    [vectors / (vectors + words), words / (vectors + words)]
}
