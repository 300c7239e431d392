//! NorBERT3 (`NorbertForMaskedLM`): the LTG-BERT family, with relative positions in log buckets and gated feed-forward layers.
//!
//! Samuel et al., NorBench, 2023, and Trained on 100 million words and still in shape, 2023; tensor names and arithmetic
//! are those of the code published beside the models.

use serde::{Deserialize, Serialize};

use crate::model::algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs, RelativeOffsets};
use crate::model::layers::{dense, norm};
use crate::model::masked_lm::{
    Activations, MaskedLm, check_heads, check_layers, check_numbers, check_probabilities, check_sizes,
};
use crate::model::mlm_head::{Encoded, MlmHead, output_matrix};
use crate::model::problem::ConfigProblem;

/// The keys of a NorBERT3 `config.json` that matter; absent ones have the values of the base model, as in its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Norbert3Config {
    /// V, entries of the embedding table
    pub vocab_size: usize,
    /// D
    pub hidden_size: usize,
    /// number of blocks
    pub num_hidden_layers: usize,
    /// H; divides D
    pub num_attention_heads: usize,
    /// I, width of the feed-forward layer's halves
    pub intermediate_size: usize,
    /// M: offsets beyond it are taken for it; texts may be longer
    pub max_position_embeddings: usize,
    /// b: half of it are exact offsets, the rest log buckets
    pub position_bucket_size: usize,
    /// ε of every norm
    pub layer_norm_eps: f64,
    /// dropout on the embedding, after each feed-forward layer and in the head
    pub hidden_dropout_prob: f64,
    /// dropout on the positions, on attention probabilities and after attention
    pub attention_probs_dropout_prob: f64,
}

impl Default for Norbert3Config {
    fn default() -> Self {
        Self {
            vocab_size: 50000,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 2048,
            max_position_embeddings: 512,
            position_bucket_size: 32,
            layer_norm_eps: 1e-7,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
        }
    }
}

/// Ids of special tokens, `0 … 106`: the published head gives them the logit −∞.
const SPECIAL_TOKENS: usize = 107;

impl Norbert3Config {
    /// The row of the relative embedding for an offset, query position minus key position: exact up to `b/2`, then
    /// logarithmic buckets up to `M − 1`.
    #[must_use]
    pub fn relative_row(&self, offset: i64) -> u32 {
        let (buckets, middle) = (self.position_bucket_size as i64, self.position_bucket_size as i64 / 2);
        let last = self.max_position_embeddings as i64 - 1;
        let row = if offset.abs() <= middle {
            offset
        } else {
            let (distance, middle_) = (offset.abs().min(last) as f64, middle as f64);
            let share = (distance / middle_).ln() / (last as f64 / middle_).ln();
            offset.signum() * ((share * (middle_ - 1.0)).ceil() as i64 + middle)
        };
        (buckets - 1 + row) as u32
    }

    fn init(&self) -> Init {
        Init::Normal((2.0 / (5.0 * self.hidden_size as f64)).sqrt())
    }

    fn block<A: Algebra>(
        &self,
        a: &A,
        name: &str,
        x: &A::Tensor,
        relative: (&A::Tensor, &RelativeOffsets),
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let (d, inner, init) = (self.hidden_size, self.intermediate_size, self.init());
        let attended = self.attention(a, &format!("{name}.attention"), x, relative, allowed)?;
        let x = a.add(x, &attended)?;
        let h = dense(a, &format!("{name}.mlp.mlp.1"), &self.plain_norm(a, &x)?, (d, 2 * inner), false, init)?;
        let halves = a.split(&h, 2)?;
        let h = a.mul(&halves[0], &a.activate(&halves[1], Activation::GeluTanh)?)?;
        let h = dense(a, &format!("{name}.mlp.mlp.4"), &self.plain_norm(a, &h)?, (inner, d), false, init)?;
        a.add(&x, &a.dropout(&h, self.hidden_dropout_prob)?)
    }

    fn attention<A: Algebra>(
        &self,
        a: &A,
        name: &str,
        x: &A::Tensor,
        (relative, offsets): (&A::Tensor, &RelativeOffsets),
        allowed: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let (d, heads, init) = (self.hidden_size, self.num_attention_heads, self.init());
        let (size, dropout) = (d / heads, self.attention_probs_dropout_prob);
        let h = self.plain_norm(a, x)?;
        let query_key = |x: &A::Tensor| dense(a, &format!("{name}.in_proj_qk"), x, (d, 2 * d), true, init);
        let halves = a.split(&query_key(&h)?, 2)?;
        let query = a.split_heads(&halves[0], heads, size)?;
        let key = a.split_heads(&halves[1], heads, size)?;
        let value = dense(a, &format!("{name}.in_proj_v"), &h, (d, d), true, init)?;
        let value = a.split_heads(&value, heads, size)?;
        // the same product as the content's, but its result is laid out by head first, then query and key
        let positions = query_key(&a.dropout(relative, dropout)?)?;
        let scale = 1.0 / (3.0 * size as f64).sqrt();
        let attended = a.attention(
            AttentionInputs { query: &query, key: &key, value: &value, positions: Some(&positions), allowed },
            &AttentionSettings { scale, dropout, width: d, offsets: Some(offsets) },
        )?;
        let attended = dense(a, &format!("{name}.out_proj"), &attended, (d, d), true, init)?;
        let attended = norm(a, &format!("{name}.post_layer_norm"), &attended, d, true, self.layer_norm_eps)?;
        a.dropout(&attended, dropout)
    }

    fn plain_norm<A: Algebra>(&self, a: &A, x: &A::Tensor) -> Result<A::Tensor, A::Error> {
        a.layer_norm(x, None, None, self.layer_norm_eps)
    }
}

/// The name of the output matrix.
const OUTPUT: &str = "classifier.nonlinearity.5.weight";
/// The name of the word embedding, which the output matrix may be tied to.
const WORDS: &str = "embedding.word_embedding.weight";

impl MaskedLm for Norbert3Config {
    fn harmless_keys(&self) -> &'static [&'static str] {
        &["hidden_act", "output_all_encoded_layers", "type_vocab_size"]
    }

    fn tied(&self) -> (&'static str, &'static str) {
        (OUTPUT, WORDS)
    }

    fn encoder_prefixes(&self) -> &'static [&'static str] {
        &["embedding.", "transformer."]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &["classifier."]
    }

    fn check(&self) -> Result<(), ConfigProblem> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
        ])?;
        check_layers("num_hidden_layers", self.num_hidden_layers)?;
        check_heads("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)?;
        // fewer have no logarithmic bucket, and no more than a text has tokens are needed
        if !(4..=1 << 16).contains(&self.position_bucket_size) {
            return Err(ConfigProblem::value("position_bucket_size", "must be from 4 to 65536"));
        }
        if !(self.position_bucket_size..=1 << 20).contains(&self.max_position_embeddings) {
            let message = format!("must be from position_bucket_size {} to 1048576", self.position_bucket_size);
            return Err(ConfigProblem::value("max_position_embeddings", message));
        }
        check_numbers(&[("layer_norm_eps", self.layer_norm_eps)])?;
        check_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ])
    }

    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let (v, d, init) = (self.vocab_size, self.hidden_size, self.init());
        let words = a.parameter(WORDS, &[v, d], init)?;
        let x = self.plain_norm(a, &a.embed(&words, &inputs.ids)?)?;
        let mut x = a.dropout(&x, self.hidden_dropout_prob)?;
        let table = a.parameter("embedding.relative_embedding", &[2 * self.position_bucket_size - 1, d], init)?;
        let relative = norm(a, "embedding.relative_layer_norm", &table, d, true, self.layer_norm_eps)?;
        let offsets = RelativeOffsets::new(self.max_position_embeddings as i64 - 1, |offset| self.relative_row(offset));
        let allowed = a.allowed_keys(&inputs.mask, None)?;
        for layer in 0..self.num_hidden_layers {
            let (config, name, offsets) = (self.clone(), format!("transformer.layers.{layer}"), offsets.clone());
            x = a.recomputed(&[&x, &relative, &allowed], move |a, inputs| {
                config.block(a, &name, &inputs[0], (&inputs[1], &offsets), &inputs[2])
            })?;
        }
        let h = dense(a, "classifier.nonlinearity.1", &self.plain_norm(a, &x)?, (d, d), true, init)?;
        let h = self.plain_norm(a, &a.activate(&h, Activation::Gelu)?)?;
        let features = a.dropout(&h, self.hidden_dropout_prob)?;
        let weight = output_matrix(a, OUTPUT, &words, [v, d], init)?;
        let bias = a.parameter("classifier.nonlinearity.5.bias", &[v], Init::Zeros)?;
        // −∞ in the bias is −∞ in the logit, and 0 in the SPLADE weight
        let blocked = (0..v).map(|term| if term < SPECIAL_TOKENS { f32::NEG_INFINITY } else { 0.0 }).collect();
        let bias = a.add(&bias, &a.constant(blocked, &[v])?)?;
        Ok(Encoded { last_hidden_state: x, head: MlmHead::new(features, weight, bias, v) })
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The published code ties the two, but loading it in Python leaves two equal matrices, which training moves apart.
    fn ties_output(&self) -> bool {
        false
    }

    fn activations(&self) -> Activations {
        Activations {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            per_token: 7 * self.hidden_size + 2 * self.intermediate_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_published_code() {
        #[derive(Deserialize)]
        struct Table {
            position_bucket_size: usize,
            max_position_embeddings: usize,
            first_delta: i64,
            index: Vec<u32>,
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models/norbert3-relative-buckets.json");
        let tables: Vec<Table> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(tables.len(), 4);
        for table in tables {
            let config = Norbert3Config {
                position_bucket_size: table.position_bucket_size,
                max_position_embeddings: table.max_position_embeddings,
                ..Norbert3Config::default()
            };
            let offsets =
                RelativeOffsets::new(table.max_position_embeddings as i64 - 1, |offset| config.relative_row(offset));
            for (offset, expected) in (table.first_delta..).zip(table.index) {
                assert_eq!(config.relative_row(offset), expected, "{config:?} {offset}");
                assert_eq!(offsets.index(offset), expected, "{config:?} {offset}");
            }
        }
    }
}
