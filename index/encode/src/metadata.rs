//! Keys under which exported ONNX files state what they are (`metadata_props`).
//!
//! Every key stands here once: the exporter writes them, sessions and `inspect` read them. A file of another tool has none
//! of them.

/// Version of the program that exported the file.
pub const VERSION: &str = "splade.version";
/// Id of the model in the Hub, or the name of its folder.
pub const MODEL: &str = "splade.model";
/// `_name_or_path` of the checkpoint's `config.json`.
pub const BASE_MODEL: &str = "splade.base_model";
/// Most tokens of a text.
pub const MAX_LENGTH: &str = "splade.max_length";
/// [`ModelDir::network_fingerprint`](splade_files::ModelDir::network_fingerprint) of the checkpoint. Files of the first
/// versions state none.
pub const NETWORK: &str = "splade.network";
/// Output of the file: `logits` or `splade`. Files of the first version state none.
pub const HEAD: &str = "splade.head";
/// [`HeadMode`](splade_core::HeadMode) of a NorBERT4 model.
pub const HEAD_MODE: &str = "splade.mlm_head";
/// Pooling of the model, as JSON: strategy and activation.
pub const POOLING: &str = "splade.pooling";
/// [`Precision`](splade_files::Precision) of the file.
pub const PRECISION: &str = "splade.precision";
/// Operands of the output layer of a pooled file, as JSON: the names of `features` `[B, T, D]`, of the matrix `weight`
/// `[V, D]` (or of its forms in [`tensor_names`](crate::tensor_names)), of `bias` `[V]`, and the `cap` of logits, `none` or
/// `soft`. Absent where a weight is not the activation of the largest logit.
pub const OUTPUT_LAYER: &str = "splade.output_layer";

/// Value of [`POOLING`].
#[must_use]
pub fn pooling(pooling: splade_core::SpladePooling) -> String {
    serde_json::json!([pooling.strategy, pooling.activation]).to_string()
}
