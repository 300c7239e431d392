//! SPLADE pooling of logits, with the settings of `1_SpladePooling/config.json`.

use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

/// Pooling over the tokens of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// the maximum (SPLADE v2 and later)
    #[default]
    Max,
    /// the sum (the 2021 original)
    Sum,
}

/// Activation of each logit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolingActivation {
    /// `log(1 + max(0, x))`
    #[default]
    Relu,
    /// `log(1 + log(1 + max(0, x)))` (OpenSearch v3 models)
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

/// Logits of a NorBERT4 model that SPLADE weights are computed from.
///
/// The published logits are `30·sigmoid(x/7.5)`, so they are never 0. They are moved to the next token: the first token has 1
/// for `<s>`, and the logits of the last token are lost. A model must run in the mode it was trained in, which a checkpoint does
/// not state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadMode {
    /// the published logits: every term has a weight, and a threshold is needed
    Published,
    /// `x`, moved to the next token
    RawShifted,
    /// `x`, not moved
    Raw,
    /// `15·tanh(x/15)`, not moved: the cap that the model was trained with, with the zeros of `x`
    SoftCap,
}

impl HeadMode {
    /// All modes, with their names.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Published, "published"),
        (Self::RawShifted, "raw-shifted"),
        (Self::Raw, "raw"),
        (Self::SoftCap, "soft-cap"),
    ];

    /// True if logits are moved to the next token.
    #[must_use]
    pub fn is_shifted(self) -> bool {
        matches!(self, Self::Published | Self::RawShifted)
    }

    /// Name in flags and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mode, _)| *mode == self).map_or("", |(_, name)| name)
    }
}

impl std::fmt::Display for HeadMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for HeadMode {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(mode, _)| *mode).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            crate::Error::invalid(format!("{text:?} is no head mode"), format!("there are {names}"))
        })
    }
}

/// Weight of a logit. NaN stays NaN, which no vector takes.
#[must_use]
pub fn activate(x: f32, activation: PoolingActivation) -> f32 {
    // not `max`, which takes 0 for NaN
    let once = if x <= 0.0 { 0.0 } else { x.ln_1p() };
    match activation {
        PoolingActivation::Relu => once,
        PoolingActivation::Log1pRelu => once.ln_1p(),
    }
}

/// Pools one text's logits `[T, V]` over the tokens with mask 1, to one weight per term.
///
/// `max`: the maximum of the raw logits first, then the activation once per term. NaN stays NaN, which no vector takes.
#[must_use]
pub fn pool(logits: ArrayView2<'_, f32>, mask: ArrayView1<'_, i64>, pooling: SpladePooling) -> Vec<f32> {
    let mut weights = vec![0.0_f32; logits.ncols()];
    let tokens = logits.outer_iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(logits, _)| logits);
    let activate = |x| activate(x, pooling.activation);
    match pooling.strategy {
        Pooling::Max => {
            for logits in tokens {
                for (largest, logit) in weights.iter_mut().zip(logits) {
                    *largest = if *logit > *largest || logit.is_nan() { *logit } else { *largest };
                }
            }
            weights.iter_mut().for_each(|value| *value = activate(*value));
        }
        Pooling::Sum => {
            for logits in tokens {
                for (sum, logit) in weights.iter_mut().zip(logits) {
                    *sum += activate(*logit);
                }
            }
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SparseVector;
    use ndarray::array;

    #[test]
    fn a_model_that_gives_nan_is_refused() {
        for strategy in [Pooling::Max, Pooling::Sum] {
            let pooling = SpladePooling { strategy, activation: PoolingActivation::Relu };
            let mask = array![1, 1];
            for logits in [array![[1.0, f32::NAN], [2.0, 3.0]], array![[1.0, 3.0], [2.0, f32::NAN]]] {
                let error = SparseVector::from_dense(&pool(logits.view(), mask.view(), pooling)).unwrap_err();
                assert!(error.to_string().contains("index 1"), "{error}");
            }
            let logits = array![[1.0, 2.0], [f32::NAN, f32::NAN]];
            assert_eq!(pool(logits.view(), array![1, 0].view(), pooling), [2_f32.ln(), 3_f32.ln()]);
        }
    }
}
