//! BERT (`BertForMaskedLM`): post-norm blocks over learned absolute positions.
//!
//! Devlin et al., 2018; tensor names and arithmetic are those of the transformers library.

use serde::{Deserialize, Serialize};

use crate::model::algebra::{Activation, Algebra, Init, Inputs, Positions};
use crate::model::layers::{PostNormBlock, PostNormNames, dense, norm};
use crate::model::masked_lm::{
    Activations, MaskedLm, activation, check_heads, check_layers, check_numbers, check_probabilities, check_sizes,
};
use crate::model::mlm_head::{Encoded, MlmHead, output_matrix};
use crate::model::problem::ConfigProblem;

/// The keys of a BERT `config.json` that matter; absent ones have the library's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
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
    /// activation of the feed-forward layer and of the head
    #[serde(with = "activation")]
    pub hidden_act: Activation,
    /// rows of the position table: the longest text in tokens
    pub max_position_embeddings: usize,
    /// rows of the token type table
    pub type_vocab_size: usize,
    /// ε of every norm
    pub layer_norm_eps: f64,
    /// dropout after the embeddings and after each block's two halves
    pub hidden_dropout_prob: f64,
    /// dropout on attention probabilities
    pub attention_probs_dropout_prob: f64,
    /// standard deviation of new weights
    pub initializer_range: f64,
    /// true if the output matrix is the word embedding
    pub tie_word_embeddings: bool,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            tie_word_embeddings: true,
        }
    }
}

/// The name of the output bias.
const BIAS: &str = "cls.predictions.bias";

const NAMES: PostNormNames = PostNormNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    outer_norm: "output.LayerNorm",
};

impl BertConfig {
    /// The `config.json` of this model, as the transformers library writes it.
    #[must_use]
    pub fn to_json(&self, pad: u32) -> String {
        let config = serde_json::json!({
            "architectures": ["BertForMaskedLM"],
            "model_type": "bert",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": activation::name(self.hidden_act),
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.layer_norm_eps,
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": self.tie_word_embeddings,
            "pad_token_id": pad,
            "torch_dtype": "float32",
        });
        format!("{config:#}\n")
    }

    /// The block, whose parts RoBERTa calls the same.
    pub(super) fn block(&self) -> PostNormBlock {
        PostNormBlock {
            names: &NAMES,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
            init: Init::Normal(self.initializer_range),
        }
    }

    /// The sum of word, position and token type, normed; `prefix` is the family's.
    pub(super) fn embed<A: Algebra>(
        &self,
        a: &A,
        prefix: &str,
        inputs: &Inputs<A::Tensor>,
        positions: Positions,
    ) -> Result<(A::Tensor, A::Tensor), A::Error> {
        let d = self.hidden_size;
        let table = |name: &str, rows: usize| {
            let name = format!("{prefix}.embeddings.{name}.weight");
            a.parameter(&name, &[rows, d], Init::Normal(self.initializer_range))
        };
        let words = table("word_embeddings", self.vocab_size)?;
        let places = table("position_embeddings", self.max_position_embeddings)?;
        let types = table("token_type_embeddings", self.type_vocab_size)?;
        let word = a.embed(&words, &inputs.ids)?;
        let token_type = match &inputs.token_types {
            Some(token_types) => a.embed(&types, token_types)?,
            None => a.first_row(&types)?,
        };
        let positions = a.positions(&inputs.ids, positions)?;
        let x = a.add(&a.add(&word, &token_type)?, &a.embed(&places, &positions)?)?;
        let x = norm(a, &format!("{prefix}.embeddings.LayerNorm"), &x, d, true, self.layer_norm_eps)?;
        Ok((words, a.dropout(&x, self.hidden_dropout_prob)?))
    }
}

/// The name of the output matrix.
const OUTPUT: &str = "cls.predictions.decoder.weight";
/// The name of the word embedding, which the output matrix may be tied to.
const WORDS: &str = "bert.embeddings.word_embeddings.weight";

impl MaskedLm for BertConfig {
    fn harmless_keys(&self) -> &'static [&'static str] {
        &[
            "position_embedding_type",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
            "directionality",
        ]
    }

    fn tied(&self) -> (&'static str, &'static str) {
        (OUTPUT, WORDS)
    }

    fn aliases(&self) -> &'static [(&'static str, &'static str)] {
        &[("cls.predictions.decoder.bias", BIAS)]
    }

    fn encoder_prefixes(&self) -> &'static [&'static str] {
        &["bert."]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &["cls."]
    }

    fn has_token_types(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), ConfigProblem> {
        check_layers("num_hidden_layers", self.num_hidden_layers)?;
        check_heads("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)?;
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        check_numbers(&[("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)])?;
        check_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ])
    }

    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let (v, d, init) = (self.vocab_size, self.hidden_size, Init::Normal(self.initializer_range));
        let (words, x) = self.embed(a, "bert", inputs, Positions::FromZero)?;
        let allowed = a.allowed_keys(&inputs.mask, None)?;
        let x = self.block().stack(a, "bert.encoder.layer", self.num_hidden_layers, x, &allowed)?;
        let h = dense(a, "cls.predictions.transform.dense", &x, (d, d), true, init)?;
        let h = a.activate(&h, self.hidden_act)?;
        let features = norm(a, "cls.predictions.transform.LayerNorm", &h, d, true, self.layer_norm_eps)?;
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
        Activations {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            per_token: 6 * self.hidden_size + self.intermediate_size,
        }
    }
}
