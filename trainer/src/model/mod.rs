//! Transformers with a masked-LM head, written once against a small [algebra](Algebra), and SPLADE on top of them.

mod algebra;
mod attach;
mod candle;
mod config;
mod declaration;
mod families;
mod layers;
mod masked_lm;
mod max_logits;
mod mlm_head;
mod network;
mod ops;
mod pickle;
mod problem;
mod product;
mod recompute;
mod splade;
mod tape;
mod text_by_text;
mod weights;

pub use algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs, Positions, RelativeOffsets};
pub use candle::Candle;
pub use declaration::{Declaration, Declared};
pub use families::{
    BertConfig, DistilBertConfig, LayerType, ModernBertConfig, Norbert3Config, Norbert4Config, RobertaConfig, Rope,
    RopeParameters, TransformerConfig,
};
pub use masked_lm::Activations;
pub use mlm_head::{Cap, Encoded, MlmHead};
pub use network::{CandleNetwork, candle_encoder};
pub(crate) use ops::Linear;
pub use ops::cross_entropy;
pub use pickle::read_torch_tensor_list;
pub use problem::{CheckpointProblem, ConfigProblem};
pub use splade::splade;
pub use tape::{Floats, Pool, Tape, Value};
pub use weights::Weights;
