//! Transformers with a masked-LM head, written once against a small [algebra](Algebra), and SPLADE on top of them.

mod algebra;
mod bert;
mod candle;
mod config;
mod declaration;
mod distilbert;
mod layers;
mod mlm_head;
mod modernbert;
mod network;
mod norbert3;
mod norbert4;
mod ops;
mod pickle;
mod roberta;
mod splade;
mod weights;

pub use algebra::{Activation, Algebra, Init, Inputs, Positions, RelativeOffsets};
pub use bert::BertConfig;
pub use candle::Candle;
pub use config::{ARCHITECTURES, TransformerConfig};
pub use declaration::{Declaration, Declared};
pub use distilbert::DistilBertConfig;
pub use mlm_head::{Cap, Encoded, MlmHead};
pub use modernbert::{LayerType, ModernBertConfig, Rope, RopeParameters};
pub use network::{CandleNetwork, candle_encoder};
pub use norbert3::Norbert3Config;
pub use norbert4::Norbert4Config;
pub(crate) use ops::Linear;
pub use ops::cross_entropy;
pub use pickle::read_torch_tensor_list;
pub use roberta::RobertaConfig;
pub use splade::splade;
pub use weights::Weights;
