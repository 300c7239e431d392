//! DistilBERT (`DistilBertForMaskedLM`): BERT's blocks without token types, under other names.
//!
//! Sanh et al., 2019; tensor names and arithmetic are those of the transformers library.

use serde::{Deserialize, Serialize};

use crate::model::algebra::{Activation, Algebra, Init, Inputs, Positions};
use crate::model::layers::{PostNormBlock, PostNormNames, dense, norm};
use crate::model::masked_lm::{
    Activations, MaskedLm, activation, check_heads, check_layers, check_numbers, check_probabilities, check_sizes,
};
use crate::model::mlm_head::{Encoded, MlmHead, output_matrix};
use crate::model::problem::ConfigProblem;

/// The keys of a DistilBERT `config.json` that matter; absent ones have the library's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DistilBertConfig {
    /// V, entries of the embedding table
    pub vocab_size: usize,
    /// D
    pub dim: usize,
    /// number of blocks
    pub n_layers: usize,
    /// H; divides D
    pub n_heads: usize,
    /// width of the feed-forward layer
    pub hidden_dim: usize,
    /// activation of the feed-forward layer and of the head
    #[serde(with = "activation")]
    pub activation: Activation,
    /// rows of the position table: the longest text in tokens
    pub max_position_embeddings: usize,
    /// dropout after the embeddings and after the feed-forward layer
    pub dropout: f64,
    /// dropout on attention probabilities
    pub attention_dropout: f64,
    /// standard deviation of new weights
    pub initializer_range: f64,
    /// true if the output matrix is the word embedding
    pub tie_word_embeddings: bool,
}

impl Default for DistilBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: Activation::Gelu,
            max_position_embeddings: 512,
            dropout: 0.1,
            attention_dropout: 0.1,
            initializer_range: 0.02,
            tie_word_embeddings: true,
        }
    }
}

/// ε of every norm: a constant of the code, not of the config.
const EPS: f64 = 1e-12;
/// The name of the output bias.
const BIAS: &str = "vocab_projector.bias";

const NAMES: PostNormNames = PostNormNames {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    outer_norm: "output_layer_norm",
};

impl DistilBertConfig {
    fn embed<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<(A::Tensor, A::Tensor), A::Error> {
        let table = |name: &str, rows: usize| {
            let name = format!("distilbert.embeddings.{name}.weight");
            a.parameter(&name, &[rows, self.dim], Init::Normal(self.initializer_range))
        };
        let words = table("word_embeddings", self.vocab_size)?;
        let places = table("position_embeddings", self.max_position_embeddings)?;
        let positions = a.positions(&inputs.ids, Positions::FromZero)?;
        let x = a.add(&a.embed(&words, &inputs.ids)?, &a.embed(&places, &positions)?)?;
        let x = norm(a, "distilbert.embeddings.LayerNorm", &x, self.dim, true, EPS)?;
        Ok((words, a.dropout(&x, self.dropout)?))
    }

    fn block(&self) -> PostNormBlock {
        PostNormBlock {
            names: &NAMES,
            hidden: self.dim,
            inner: self.hidden_dim,
            heads: self.n_heads,
            activation: self.activation,
            eps: EPS,
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            init: Init::Normal(self.initializer_range),
        }
    }
}

/// The name of the output matrix.
const OUTPUT: &str = "vocab_projector.weight";
/// The name of the word embedding, which the output matrix may be tied to.
const WORDS: &str = "distilbert.embeddings.word_embeddings.weight";

impl MaskedLm for DistilBertConfig {
    fn harmless_keys(&self) -> &'static [&'static str] {
        // the position table is in the checkpoint, sinusoidal or not
        &["sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout", "tie_weights_"]
    }

    fn tied(&self) -> (&'static str, &'static str) {
        (OUTPUT, WORDS)
    }

    fn encoder_prefixes(&self) -> &'static [&'static str] {
        &["distilbert."]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &["vocab_transform.", "vocab_layer_norm.", "vocab_projector."]
    }

    fn check(&self) -> Result<(), ConfigProblem> {
        check_layers("n_layers", self.n_layers)?;
        check_heads("n_heads", self.n_heads, "dim", self.dim)?;
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("dim", self.dim),
            ("hidden_dim", self.hidden_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        check_numbers(&[("initializer_range", self.initializer_range)])?;
        check_probabilities(&[("dropout", self.dropout), ("attention_dropout", self.attention_dropout)])
    }

    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let (v, d, init) = (self.vocab_size, self.dim, Init::Normal(self.initializer_range));
        let (words, x) = self.embed(a, inputs)?;
        let allowed = a.allowed_keys(&inputs.mask, None)?;
        let x = self.block().stack(a, "distilbert.transformer.layer", self.n_layers, x, &allowed)?;
        let h = a.activate(&dense(a, "vocab_transform", &x, (d, d), true, init)?, self.activation)?;
        let features = norm(a, "vocab_layer_norm", &h, d, true, EPS)?;
        let weight = output_matrix(a, OUTPUT, &words, [v, d], init)?;
        let bias = a.parameter(BIAS, &[v], Init::Zeros)?;
        Ok(Encoded { last_hidden_state: x, head: MlmHead::new(features, weight, bias, v) })
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn ties_output(&self) -> bool {
        self.tie_word_embeddings
    }

    fn activations(&self) -> Activations {
        Activations { layers: self.n_layers, hidden: self.dim, per_token: 6 * self.dim + self.hidden_dim }
    }
}
