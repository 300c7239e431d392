//! ModernBERT (`ModernBertForMaskedLM`): pre-norm blocks, gated feed-forward layers, rotary positions, local attention.
//!
//! Warner et al., 2024; tensor names and arithmetic are those of the transformers library. Ettin and mmBERT are the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs};
use crate::model::layers::{dense, norm};
use crate::model::masked_lm::{
    Activations, MaskedLm, activation, check_heads, check_layers, check_numbers, check_probabilities, check_sizes,
};
use crate::model::mlm_head::{Encoded, MlmHead, output_matrix};
use crate::model::problem::ConfigProblem;

/// The keys of a ModernBERT `config.json` that matter; absent ones have the library's defaults.
///
/// The type of a layer and its θ are written in two ways, by transformers 4 and by 5; where a file has both, the new one
/// counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModernBertConfig {
    /// V, entries of the embedding table
    pub vocab_size: usize,
    /// D
    pub hidden_size: usize,
    /// number of blocks
    pub num_hidden_layers: usize,
    /// H; divides D
    pub num_attention_heads: usize,
    /// width of the feed-forward layer
    pub intermediate_size: usize,
    /// activation of the feed-forward layer's first half
    #[serde(with = "activation")]
    pub hidden_activation: Activation,
    /// activation of the head
    #[serde(with = "activation")]
    pub classifier_activation: Activation,
    /// the longest text the model was trained for
    pub max_position_embeddings: usize,
    /// ε of every norm
    pub norm_eps: f64,
    /// true if norms have a bias
    pub norm_bias: bool,
    /// true if the products of attention have a bias
    pub attention_bias: bool,
    /// true if those of the feed-forward layer have a bias
    pub mlp_bias: bool,
    /// true if the first product of the head has a bias
    pub classifier_bias: bool,
    /// true if the last product of the head has a bias
    pub decoder_bias: bool,
    /// width of the window of local layers: half of it to each side
    pub local_attention: usize,
    /// the old form: layer `N` is global if this divides `N`
    pub global_attn_every_n_layers: usize,
    /// the old form: θ of global layers
    pub global_rope_theta: f64,
    /// the old form: θ of local layers; absent it is the one of global layers
    pub local_rope_theta: Option<f64>,
    /// the new form: `full_attention` or `sliding_attention` for every layer
    pub layer_types: Option<Vec<LayerType>>,
    /// the new form: θ by layer type
    pub rope_parameters: Option<RopeParameters>,
    /// dropout after the embeddings
    pub embedding_dropout: f64,
    /// dropout on attention probabilities
    pub attention_dropout: f64,
    /// dropout inside the feed-forward layer
    pub mlp_dropout: f64,
    /// standard deviation of new weights
    pub initializer_range: f64,
    /// true if the output matrix is the word embedding
    pub tie_word_embeddings: bool,
}

/// Range of attention of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerType {
    /// the whole text
    #[serde(rename = "full_attention")]
    Full,
    /// a window around each token
    #[serde(rename = "sliding_attention")]
    Sliding,
}

/// Rotary positions by layer type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeParameters {
    /// of global layers
    pub full_attention: Rope,
    /// of local layers
    pub sliding_attention: Rope,
}

/// Rotary positions of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// the base of the angles
    pub rope_theta: f64,
    /// only `default` is known
    #[serde(default)]
    pub rope_type: Option<Value>,
}

impl Default for ModernBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50368,
            hidden_size: 768,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            intermediate_size: 1152,
            hidden_activation: Activation::Gelu,
            classifier_activation: Activation::Gelu,
            max_position_embeddings: 8192,
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            mlp_bias: false,
            classifier_bias: false,
            decoder_bias: true,
            local_attention: 128,
            global_attn_every_n_layers: 3,
            global_rope_theta: 160_000.0,
            local_rope_theta: Some(10_000.0),
            layer_types: None,
            rope_parameters: None,
            embedding_dropout: 0.0,
            attention_dropout: 0.0,
            mlp_dropout: 0.0,
            initializer_range: 0.02,
            tie_word_embeddings: true,
        }
    }
}

impl ModernBertConfig {
    fn layer_type(&self, layer: usize) -> LayerType {
        match &self.layer_types {
            Some(types) => types[layer],
            None if layer.is_multiple_of(self.global_attn_every_n_layers) => LayerType::Full,
            None => LayerType::Sliding,
        }
    }

    fn theta(&self, layer_type: LayerType) -> f64 {
        match (&self.rope_parameters, layer_type) {
            (Some(rope), LayerType::Full) => rope.full_attention.rope_theta,
            (Some(rope), LayerType::Sliding) => rope.sliding_attention.rope_theta,
            (None, LayerType::Full) => self.global_rope_theta,
            (None, LayerType::Sliding) => self.local_rope_theta.unwrap_or(self.global_rope_theta),
        }
    }

    fn norm<A: Algebra>(&self, a: &A, name: &str, x: &A::Tensor) -> Result<A::Tensor, A::Error> {
        norm(a, name, x, self.hidden_size, self.norm_bias, self.norm_eps)
    }

    fn block<A: Algebra>(&self, a: &A, layer: usize, x: &A::Tensor, mask: &A::Tensor) -> Result<A::Tensor, A::Error> {
        let name = format!("model.layers.{layer}");
        let (d, inner, init) = (self.hidden_size, self.intermediate_size, Init::Normal(self.initializer_range));
        // the embeddings are normed already
        let h = if layer == 0 { x.clone() } else { self.norm(a, &format!("{name}.attn_norm"), x)? };
        let attended = self.attention(a, &format!("{name}.attn"), &h, self.layer_type(layer), mask)?;
        let attended = dense(a, &format!("{name}.attn.Wo"), &attended, (d, d), self.attention_bias, init)?;
        let x = a.add(x, &attended)?;
        let h = self.norm(a, &format!("{name}.mlp_norm"), &x)?;
        let h = dense(a, &format!("{name}.mlp.Wi"), &h, (d, 2 * inner), self.mlp_bias, init)?;
        let halves = a.split(&h, 2)?;
        let h = a.mul(&a.activate(&halves[0], self.hidden_activation)?, &halves[1])?;
        let h =
            dense(a, &format!("{name}.mlp.Wo"), &a.dropout(&h, self.mlp_dropout)?, (inner, d), self.mlp_bias, init)?;
        a.add(&x, &h)
    }

    fn attention<A: Algebra>(
        &self,
        a: &A,
        name: &str,
        x: &A::Tensor,
        layer_type: LayerType,
        mask: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let (d, heads, init) = (self.hidden_size, self.num_attention_heads, Init::Normal(self.initializer_range));
        let size = d / heads;
        let joined = dense(a, &format!("{name}.Wqkv"), x, (d, 3 * d), self.attention_bias, init)?;
        let parts = a.split(&joined, 3)?;
        let theta = self.theta(layer_type);
        let query = a.rope(&a.split_heads(&parts[0], heads, size)?, theta)?;
        let key = a.rope(&a.split_heads(&parts[1], heads, size)?, theta)?;
        let value = a.split_heads(&parts[2], heads, size)?;
        let window = (layer_type == LayerType::Sliding).then_some(self.local_attention / 2);
        let allowed = a.allowed_keys(mask, window)?;
        a.attention(
            AttentionInputs { query: &query, key: &key, value: &value, positions: None, allowed: &allowed },
            &AttentionSettings {
                scale: 1.0 / (size as f64).sqrt(),
                dropout: self.attention_dropout,
                width: d,
                offsets: None,
            },
        )
    }
}

/// The name of the output matrix.
const OUTPUT: &str = "decoder.weight";
/// The name of the word embedding, which the output matrix may be tied to.
const WORDS: &str = "model.embeddings.tok_embeddings.weight";

impl MaskedLm for ModernBertConfig {
    fn harmless_keys(&self) -> &'static [&'static str] {
        &[
            "attention_probs_dropout_prob",
            "classifier_pooling",
            "deterministic_flash_attn",
            "initializer_cutoff_factor",
            "layer_norm_eps",
            "position_embedding_type",
            "reference_compile",
            "repad_logits_with_grad",
            "sparse_pred_ignore_index",
            "sparse_prediction",
            "hidden_act",
            "rope_theta",
            "sliding_window",
        ]
    }

    fn tied(&self) -> (&'static str, &'static str) {
        (OUTPUT, WORDS)
    }

    fn encoder_prefixes(&self) -> &'static [&'static str] {
        &["model.embeddings.", "model.layers.", "model.final_norm."]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &["head.", "decoder."]
    }

    fn check(&self) -> Result<(), ConfigProblem> {
        check_layers("num_hidden_layers", self.num_hidden_layers)?;
        check_heads("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)?;
        if !(self.hidden_size / self.num_attention_heads).is_multiple_of(2) {
            return Err(ConfigProblem::value("num_attention_heads", "rotary positions need heads of an even size"));
        }
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("global_attn_every_n_layers", self.global_attn_every_n_layers),
        ])?;
        if let Some(types) = self.layer_types.as_ref().filter(|types| types.len() != self.num_hidden_layers) {
            let message = format!("{} types for {} layers", types.len(), self.num_hidden_layers);
            return Err(ConfigProblem::value("layer_types", message));
        }
        let is_default = |rope: &Rope| rope.rope_type.as_ref().is_none_or(|kind| kind == "default");
        if self
            .rope_parameters
            .as_ref()
            .is_some_and(|r| !is_default(&r.full_attention) || !is_default(&r.sliding_attention))
        {
            return Err(ConfigProblem::value("rope_parameters", "only rope_type \"default\" is known"));
        }
        check_numbers(&[
            ("norm_eps", self.norm_eps),
            ("initializer_range", self.initializer_range),
            ("rope_theta of full_attention", self.theta(LayerType::Full)),
            ("rope_theta of sliding_attention", self.theta(LayerType::Sliding)),
        ])?;
        check_probabilities(&[
            ("embedding_dropout", self.embedding_dropout),
            ("attention_dropout", self.attention_dropout),
            ("mlp_dropout", self.mlp_dropout),
        ])
    }

    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let (v, d, init) = (self.vocab_size, self.hidden_size, Init::Normal(self.initializer_range));
        let words = a.parameter(WORDS, &[v, d], init)?;
        let x = self.norm(a, "model.embeddings.norm", &a.embed(&words, &inputs.ids)?)?;
        let mut x = a.dropout(&x, self.embedding_dropout)?;
        for layer in 0..self.num_hidden_layers {
            let config = self.clone();
            x = a.recomputed(&[&x, &inputs.mask], move |a, inputs| config.block(a, layer, &inputs[0], &inputs[1]))?;
        }
        let x = self.norm(a, "model.final_norm", &x)?;
        let h = dense(a, "head.dense", &x, (d, d), self.classifier_bias, init)?;
        let features = self.norm(a, "head.norm", &a.activate(&h, self.classifier_activation)?)?;
        let weight = output_matrix(a, OUTPUT, &words, [v, d], init)?;
        let bias = if self.decoder_bias {
            a.parameter("decoder.bias", &[v], Init::Zeros)?
        } else {
            a.constant(vec![0.0; v], &[v])?
        };
        Ok(Encoded { last_hidden_state: x, head: MlmHead::new(features, weight, bias, v) })
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn ties_output(&self) -> bool {
        self.tie_word_embeddings
    }

    fn activations(&self) -> Activations {
        Activations {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            per_token: 6 * self.hidden_size + 2 * self.intermediate_size,
        }
    }
}
