//! How logits become a SPLADE vector: the settings of `1_SpladePooling/config.json`.

use serde::{Deserialize, Serialize};

/// Over the tokens of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// the largest (SPLADE v2 and later)
    #[default]
    Max,
    /// the sum (the 2021 original)
    Sum,
}

/// Of each logit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolingActivation {
    /// `log(1 + max(0, x))`
    #[default]
    Relu,
    /// the same with `log(1 + ·)` applied twice (OpenSearch v3 models)
    Log1pRelu,
}

/// SPLADE pooling as a model folder states it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpladePooling {
    /// `pooling_strategy`
    pub strategy: Pooling,
    /// `activation_function`
    pub activation: PoolingActivation,
}
