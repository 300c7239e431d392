//! BERT (`BertForMaskedLM`): post-norm blocks over learned absolute positions.
//!
//! Devlin et al., 2018; tensor names and arithmetic are those of the transformers library.

use serde::Deserialize;

use super::algebra::{Activation, Algebra, Init, Inputs, Positions};
use super::config::activation;
use super::mlm_head::{Encoded, MlmHead};
use crate::Error;

/// The keys of a BERT `config.json` that matter; absent ones have the library's defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
    #[serde(deserialize_with = "activation")]
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
    /// whether the output matrix is the word embedding
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

/// The name of the word embedding, which is also the output matrix where none is stored.
pub(crate) const WORD_EMBEDDINGS: &str = "bert.embeddings.word_embeddings.weight";
/// The name of the output matrix where one is stored.
pub(crate) const DECODER: &str = "cls.predictions.decoder.weight";

/// The name of the output bias.
const BIAS: &str = "cls.predictions.bias";
/// Second names of parameters, and the first: the transformers library stores the bias under one or both.
pub(crate) const ALIASES: [(&str, &str); 1] = [("cls.predictions.decoder.bias", BIAS)];

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
            "hidden_act": match self.hidden_act {
                Activation::Gelu => "gelu",
                Activation::GeluTanh => "gelu_new",
                Activation::Relu => "relu",
            },
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

    /// Checks what the forward pass takes for granted.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(Error::config(
                "num_attention_heads",
                format!("{} does not divide hidden_size {}", self.num_attention_heads, self.hidden_size),
                "",
            ));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::config(*key, "must be at least 1", ""));
        }
        let dropouts = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        match dropouts.iter().find(|(_, probability)| !(0.0..1.0).contains(probability)) {
            Some((key, probability)) => Err(Error::config(*key, format!("{probability} is not from 0 to below 1"), "")),
            None => Ok(()),
        }
    }

    /// Texts to hidden states and the head's features.
    ///
    /// # Errors
    /// Those of the algebra: a missing parameter, a shape that does not fit, a text longer than the position table.
    pub fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let words = self.weight(a, WORD_EMBEDDINGS, &[self.vocab_size, self.hidden_size])?;
        let mut x = self.embed(a, &words, inputs)?;
        let allowed = a.allowed_keys(&inputs.mask)?;
        for layer in 0..self.num_hidden_layers {
            x = self.block(a, &format!("bert.encoder.layer.{layer}"), &x, &allowed)?;
        }
        let head = self.head(a, &words, &x)?;
        Ok(Encoded { last_hidden_state: x, head })
    }

    fn embed<A: Algebra>(&self, a: &A, words: &A::Tensor, inputs: &Inputs<A::Tensor>) -> Result<A::Tensor, A::Error> {
        let d = self.hidden_size;
        let places =
            self.weight(a, "bert.embeddings.position_embeddings.weight", &[self.max_position_embeddings, d])?;
        let types = self.weight(a, "bert.embeddings.token_type_embeddings.weight", &[self.type_vocab_size, d])?;
        let positions = a.positions(&inputs.ids, Positions::FromZero)?;
        let word = a.embed(words, &inputs.ids)?;
        let token_type = match &inputs.token_types {
            Some(token_types) => a.embed(&types, token_types)?,
            None => a.first_row(&types)?,
        };
        let x = a.add(&a.add(&word, &token_type)?, &a.embed(&places, &positions)?)?;
        let x = self.norm(a, "bert.embeddings.LayerNorm", &x)?;
        a.dropout(&x, self.hidden_dropout_prob)
    }

    fn block<A: Algebra>(&self, a: &A, name: &str, x: &A::Tensor, allowed: &A::Tensor) -> Result<A::Tensor, A::Error> {
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let attended = self.attention(a, &format!("{name}.attention"), x, allowed)?;
        let attended = self.dense(a, &format!("{name}.attention.output.dense"), &attended, d, d)?;
        let attended = a.dropout(&attended, self.hidden_dropout_prob)?;
        let x = self.norm(a, &format!("{name}.attention.output.LayerNorm"), &a.add(x, &attended)?)?;

        let h = self.dense(a, &format!("{name}.intermediate.dense"), &x, d, inner)?;
        let h = a.activate(&h, self.hidden_act)?;
        let h = self.dense(a, &format!("{name}.output.dense"), &h, inner, d)?;
        let h = a.dropout(&h, self.hidden_dropout_prob)?;
        self.norm(a, &format!("{name}.output.LayerNorm"), &a.add(&x, &h)?)
    }

    fn attention<A: Algebra>(
        &self,
        a: &A,
        name: &str,
        x: &A::Tensor,
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let (d, heads) = (self.hidden_size, self.num_attention_heads);
        let size = d / heads;
        let part = |part: &str| {
            let projected = self.dense(a, &format!("{name}.self.{part}"), x, d, d)?;
            a.split_heads(&projected, heads, size)
        };
        let (query, key, value) = (part("query")?, part("key")?, part("value")?);
        let scores = a.scores(&query, &key, 1.0 / (size as f64).sqrt())?;
        let probabilities = a.masked_softmax(&scores, allowed)?;
        let probabilities = a.dropout(&probabilities, self.attention_probs_dropout_prob)?;
        a.merge_heads(&a.matmul(&probabilities, &value)?, d)
    }

    fn head<A: Algebra>(&self, a: &A, words: &A::Tensor, x: &A::Tensor) -> Result<MlmHead<A::Tensor>, A::Error> {
        let (v, d) = (self.vocab_size, self.hidden_size);
        let h = self.dense(a, "cls.predictions.transform.dense", x, d, d)?;
        let h = a.activate(&h, self.hidden_act)?;
        let features = self.norm(a, "cls.predictions.transform.LayerNorm", &h)?;
        let weight = if a.has(DECODER) { self.weight(a, DECODER, &[v, d])? } else { words.clone() };
        let bias = a.parameter(BIAS, &[v], Init::Zeros)?;
        Ok(MlmHead { features, weight, bias })
    }

    fn dense<A: Algebra>(
        &self,
        a: &A,
        name: &str,
        x: &A::Tensor,
        from: usize,
        to: usize,
    ) -> Result<A::Tensor, A::Error> {
        let weight = self.weight(a, &format!("{name}.weight"), &[to, from])?;
        let bias = a.parameter(&format!("{name}.bias"), &[to], Init::Zeros)?;
        a.linear(x, &weight, Some(&bias))
    }

    fn norm<A: Algebra>(&self, a: &A, name: &str, x: &A::Tensor) -> Result<A::Tensor, A::Error> {
        let weight = a.parameter(&format!("{name}.weight"), &[self.hidden_size], Init::Ones)?;
        let bias = a.parameter(&format!("{name}.bias"), &[self.hidden_size], Init::Zeros)?;
        a.layer_norm(x, Some((&weight, &bias)), self.layer_norm_eps)
    }

    fn weight<A: Algebra>(&self, a: &A, name: &str, shape: &[usize]) -> Result<A::Tensor, A::Error> {
        a.parameter(name, shape, Init::Normal(self.initializer_range))
    }
}
