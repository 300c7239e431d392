//! Transformers with a masked-LM head, written once against a small [algebra](Algebra), and SPLADE on top of them.

mod algebra;
mod bert;
mod candle;
mod config;
mod declaration;
mod mlm_head;
mod network;
mod ops;
mod splade;
mod torch_file;
mod weights;

pub use algebra::{Activation, Algebra, Init, Inputs, Positions};
pub use bert::BertConfig;
pub use candle::Candle;
pub use config::{ARCHITECTURES, TransformerConfig};
pub use declaration::{Declaration, Declared};
pub use mlm_head::{Encoded, MlmHead};
pub use network::{CandleNetwork, candle_encoder};
pub(crate) use ops::Linear;
pub use ops::cross_entropy;
pub use splade::splade;
pub use torch_file::read_torch_tensor_list;
pub use weights::Weights;
