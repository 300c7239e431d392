//! SPLADE pooling: logits over tokens become one weight per vocabulary term.
//!
//! `w_v = max_t log(1 + max(0, logit[t, v]))` over the tokens with mask 1 (Formal et al., SPLADE v2, 2021, eq. 3–4).
//! The logarithm is monotone, so the maximum is taken of the raw logits and the logarithm once per term: the same
//! result, several times cheaper, and `[B, T, V]` never exists.

use splade_core::{Pooling, PoolingActivation, SpladePooling};

use super::algebra::Algebra;
use super::mlm_head::MlmHead;

/// The SPLADE weights `[B, V]` of a batch whose `mask` is `[B, T]`.
///
/// # Errors
/// Those of the algebra.
pub fn splade<A: Algebra>(
    a: &A,
    head: &MlmHead<A::Tensor>,
    mask: &A::Tensor,
    pooling: SpladePooling,
) -> Result<A::Tensor, A::Error> {
    match pooling.strategy {
        Pooling::Max => {
            let logits = head.max_logits(a, mask)?;
            activate(a, &logits, pooling.activation)
        }
        // The 2021 original: a sum needs every token's own activation.
        Pooling::Sum => {
            let weights = activate(a, &head.logits(a)?, pooling.activation)?;
            a.masked_sum(&weights, mask)
        }
    }
}

fn activate<A: Algebra>(a: &A, x: &A::Tensor, activation: PoolingActivation) -> Result<A::Tensor, A::Error> {
    let once = a.log1p_relu(x)?;
    match activation {
        PoolingActivation::Relu => Ok(once),
        PoolingActivation::Log1pRelu => a.log1p_relu(&once),
    }
}
