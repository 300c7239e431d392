//! NorBERT4 (`GptBertForMaskedLM`): the GPT-BERT family, with rotary positions, local attention and mixed residuals.
//!
//! Charpentier and Samuel, GPT or BERT: why not both?, 2024; tensor names and arithmetic are those of the code published
//! beside the models. Its logits have no zeros: a [`HeadMode`] says what is used instead.

use serde::{Deserialize, Serialize};
use splade_core::HeadMode;

use crate::model::algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs};
use crate::model::masked_lm::{
    Activations, MaskedLm, check_layers, check_numbers, check_probabilities, check_size, check_sizes,
};
use crate::model::mlm_head::{Cap, Encoded, MlmHead, output_matrix};
use crate::model::problem::ConfigProblem;

/// The keys of a NorBERT4 `config.json` that matter; none may be absent, for its code has no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Norbert4Config {
    /// V, entries of the embedding table
    pub vocab_size: usize,
    /// D
    pub hidden_size: usize,
    /// number of blocks
    pub num_layers: usize,
    /// H
    pub num_attention_heads: usize,
    /// width of a head's queries and keys
    pub query_key_head_size: usize,
    /// width of a head's values
    pub value_head_size: usize,
    /// I, width of the feed-forward layer's halves
    pub intermediate_size: usize,
    /// ε of every norm
    pub layer_norm_eps: f64,
    /// layer N, from 1, is global if this divides N
    pub local_global_ratio: usize,
    /// width of the window of local layers, to each side
    pub local_window_length: usize,
    /// width of the window of global layers, to each side
    pub global_window_length: usize,
    /// the longest text the model was trained for
    pub max_sequence_length: usize,
    /// the id of `<s>`, which begins every text
    pub bos_token_id: u32,
    /// dropout on attention probabilities
    pub attention_dropout: f64,
    /// dropout after each half of a block
    pub hidden_dropout: f64,
    /// dropout after the embeddings
    pub embedding_dropout: f64,
    /// dropout before the head's last product
    pub classifier_dropout: f64,
    /// use of the logits; not in the file
    #[serde(skip, default = "published")]
    pub mlm_head: HeadMode,
}

fn published() -> HeadMode {
    HeadMode::Published
}

/// θ of global and local layers: constants of the published code, which does not read `rope_theta`.
const GLOBAL_THETA: f64 = 160_000.0;
const LOCAL_THETA: f64 = 10_000.0;

/// A block's input, the embeddings it mixes in, and the first layer's values.
struct Residual<T> {
    x: T,
    embedded: T,
    first_value: Option<T>,
}

impl Norbert4Config {
    fn init(&self) -> Init {
        Init::Normal((2.0 / (5.0 * self.hidden_size as f64)).sqrt())
    }

    fn plain_norm<A: Algebra>(&self, a: &A, x: &A::Tensor) -> Result<A::Tensor, A::Error> {
        a.layer_norm(x, None, None, self.layer_norm_eps)
    }

    /// A norm whose weight is a stored offset from 1. Every product of the family has such a scale on its input, and
    /// every input comes from a plain norm: the two are one operation.
    fn scaled_norm<A: Algebra>(&self, a: &A, scale: &str, x: &A::Tensor, size: usize) -> Result<A::Tensor, A::Error> {
        let scale = a.affine(&a.parameter(scale, &[size], Init::Zeros)?, 1.0, 1.0)?;
        a.layer_norm(x, Some(&scale), None, self.layer_norm_eps)
    }

    fn product<A: Algebra>(
        &self,
        a: &A,
        weight: &str,
        x: &A::Tensor,
        from: usize,
        to: usize,
    ) -> Result<A::Tensor, A::Error> {
        a.linear(x, &a.parameter(weight, &[to, from], self.init())?, None)
    }

    fn is_global(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.local_global_ratio)
    }

    /// A block. The first one has two results, its output and its values, so only the others can be recomputed.
    fn layer<A: Algebra>(
        &self,
        a: &A,
        layer: usize,
        residual: &mut Residual<A::Tensor>,
        mask: &A::Tensor,
    ) -> Result<(), A::Error> {
        let Some(first) = &residual.first_value else { return self.block(a, layer, residual, mask) };
        let config = self.clone();
        residual.x = a.recomputed(&[&residual.x, &residual.embedded, first, mask], move |a, inputs| {
            let [x, embedded, first, mask] = [0, 1, 2, 3].map(|at| inputs[at].clone());
            let mut residual = Residual { x, embedded, first_value: Some(first) };
            config.block(a, layer, &mut residual, &mask)?;
            Ok(residual.x)
        })?;
        Ok(())
    }

    fn block<A: Algebra>(
        &self,
        a: &A,
        layer: usize,
        residual: &mut Residual<A::Tensor>,
        mask: &A::Tensor,
    ) -> Result<(), A::Error> {
        let name = format!("encoder.layers.{layer}");
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let lambdas = a.parameter(&format!("{name}.lambdas"), &[6], Init::Ones)?;
        let lambda = |at: usize| a.element(&lambdas, at);
        let factor = |at: usize| a.activate(&lambda(at)?, Activation::Softplus);
        // (1 − λ)·x + λ·e
        let mix = |at: usize| {
            let lambda = lambda(at)?;
            let kept = a.mul(&residual.x, &a.affine(&lambda, -1.0, 1.0)?)?;
            a.add(&kept, &a.mul(&residual.embedded, &lambda)?)
        };
        let (value_input, query_key_input) = (mix(0)?, mix(1)?);
        let attended = self.attention(a, layer, &value_input, &query_key_input, &mut residual.first_value, mask)?;
        let h = a.add(&a.mul(&mix(3)?, &factor(2)?)?, &attended)?;
        let h = self.scaled_norm(a, &format!("{name}.mlp.up_proj.scale"), &h, d)?;
        let up = self.product(a, &format!("{name}.mlp.up_proj.weights.0"), &h, d, inner)?;
        let gate = self.product(a, &format!("{name}.mlp.up_proj.weights.1"), &h, d, inner)?;
        let h = a.mul(&up, &a.activate(&gate, Activation::GeluTanh)?)?;
        let h = self.scaled_norm(a, &format!("{name}.mlp.down_proj.scale"), &h, inner)?;
        let h = self.product(a, &format!("{name}.mlp.down_proj.weight"), &h, inner, d)?;
        let h = a.dropout(&h, self.hidden_dropout)?;
        let kept = a.mul(&mix(5)?, &factor(4)?)?;
        residual.x = a.add(&a.add(&kept, &attended)?, &h)?;
        Ok(())
    }

    fn attention<A: Algebra>(
        &self,
        a: &A,
        layer: usize,
        value_input: &A::Tensor,
        query_key_input: &A::Tensor,
        first_value: &mut Option<A::Tensor>,
        mask: &A::Tensor,
    ) -> Result<A::Tensor, A::Error> {
        let name = format!("encoder.layers.{layer}.attention");
        let (d, heads) = (self.hidden_size, self.num_attention_heads);
        let (size, value_size) = (self.query_key_head_size, self.value_head_size);
        let (theta, window) = if self.is_global(layer) {
            (GLOBAL_THETA, self.global_window_length)
        } else {
            (LOCAL_THETA, self.local_window_length)
        };
        let h = self.scaled_norm(a, &format!("{name}.qk_proj.scale"), query_key_input, d)?;
        let part = |weight: &str, scale: &str| {
            let x = self.product(a, &format!("{name}.qk_proj.{weight}"), &h, d, heads * size)?;
            let x = self.plain_norm(a, &a.split_heads(&x, heads, size)?)?;
            let scale = a.parameter(&format!("{name}.{scale}"), &[heads, size], Init::Zeros)?;
            let scale = a.per_head(&a.affine(&scale, 1.0, 1.0)?)?;
            a.rope(&a.mul(&x, &scale)?, theta)
        };
        let (query, key) = (part("weights.0", "q_scale")?, part("weights.1", "k_scale")?);
        let h = self.scaled_norm(a, &format!("{name}.v_proj.scale"), value_input, d)?;
        let value = self.product(a, &format!("{name}.v_proj.weight"), &h, d, heads * value_size)?;
        let value = a.split_heads(&value, heads, value_size)?;
        // read in every layer, for it is in every checkpoint; the first layer's has no effect
        let mu = a.element(&a.parameter(&format!("{name}.lambdas"), &[1], Init::Zeros)?, 0)?;
        let value = match first_value {
            None => first_value.insert(value).clone(),
            Some(first) => a.add(&a.mul(&value, &a.affine(&mu, -1.0, 1.0)?)?, &a.mul(first, &mu)?)?,
        };
        let allowed = a.allowed_keys(mask, Some(window))?;
        let attended = a.attention(
            AttentionInputs { query: &query, key: &key, value: &value, positions: None, allowed: &allowed },
            &AttentionSettings {
                scale: 1.0 / (size as f64).sqrt(),
                dropout: self.attention_dropout,
                width: heads * value_size,
                offsets: None,
            },
        )?;
        let h = self.scaled_norm(a, &format!("{name}.out_proj.scale"), &attended, heads * value_size)?;
        let h = self.product(a, &format!("{name}.out_proj.weight"), &h, heads * value_size, d)?;
        a.dropout(&h, self.hidden_dropout)
    }
}

/// The name of the output matrix.
const OUTPUT: &str = "classifier.emb2vocab.weight";
/// The name of the word embedding, which the output matrix may be tied to.
const WORDS: &str = "embedding.word_embedding.weight";

impl MaskedLm for Norbert4Config {
    fn harmless_keys(&self) -> &'static [&'static str] {
        &[
            "deterministic_flash_attn",
            "model",
            // not read by the published code, where θ is a constant
            "rope_theta",
        ]
    }

    fn tied(&self) -> (&'static str, &'static str) {
        (OUTPUT, WORDS)
    }

    fn encoder_prefixes(&self) -> &'static [&'static str] {
        &["embedding.", "encoder."]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &["classifier."]
    }

    fn check(&self) -> Result<(), ConfigProblem> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_sequence_length", self.max_sequence_length),
            ("local_global_ratio", self.local_global_ratio),
        ])?;
        check_layers("num_layers", self.num_layers)?;
        check_size("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        check_size("query_key_head_size", self.query_key_head_size, 1 << 16)?;
        check_size("value_head_size", self.value_head_size, 1 << 16)?;
        if !self.query_key_head_size.is_multiple_of(2) {
            return Err(ConfigProblem::value("query_key_head_size", "rotary positions need an even size"));
        }
        if self.bos_token_id as usize >= self.vocab_size {
            return Err(ConfigProblem::value(
                "bos_token_id",
                format!("{} is not in the vocabulary", self.bos_token_id),
            ));
        }
        check_numbers(&[("layer_norm_eps", self.layer_norm_eps)])?;
        check_probabilities(&[
            ("attention_dropout", self.attention_dropout),
            ("hidden_dropout", self.hidden_dropout),
            ("embedding_dropout", self.embedding_dropout),
            ("classifier_dropout", self.classifier_dropout),
        ])
    }

    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let (v, d, init) = (self.vocab_size, self.hidden_size, self.init());
        let words = a.parameter(WORDS, &[v, d], init)?;
        let x = self.scaled_norm(a, "embedding.word_scale", &a.embed(&words, &inputs.ids)?, d)?;
        let x = a.dropout(&x, self.embedding_dropout)?;
        let mut residual = Residual { embedded: x.clone(), x, first_value: None };
        for layer in 0..self.num_layers {
            self.layer(a, layer, &mut residual, &inputs.mask)?;
        }
        let x = residual.x;
        let h = self.scaled_norm(a, "classifier.projection.scale", &x, d)?;
        let h = a.activate(&self.product(a, "classifier.projection.weight", &h, d, d)?, Activation::GeluTanh)?;
        let features = self.scaled_norm(a, "classifier.emb2vocab.scale", &h, d)?;
        let features = a.dropout(&features, self.classifier_dropout)?;
        let weight = output_matrix(a, OUTPUT, &words, [v, d], init)?;
        let bias = a.parameter("classifier.emb2vocab.bias", &[v], Init::Zeros)?;
        let mut head = MlmHead::new(features, weight, bias, v);
        head.predicts_next = true;
        head.cap = match self.mlm_head {
            HeadMode::Published => Cap::Positive,
            HeadMode::SoftCap => Cap::Soft,
            HeadMode::RawShifted | HeadMode::Raw => Cap::None,
        };
        head.first = self.mlm_head.is_shifted().then_some(self.bos_token_id);
        Ok(Encoded { last_hidden_state: x, head })
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The released checkpoint stores both matrices, and loading it in Python leaves two, which training moves apart.
    fn ties_output(&self) -> bool {
        false
    }

    fn activations(&self) -> Activations {
        Activations {
            layers: self.num_layers,
            hidden: self.hidden_size,
            per_token: 13 * self.hidden_size + 2 * self.intermediate_size,
        }
    }

    fn head_mode(&self) -> Option<HeadMode> {
        Some(self.mlm_head)
    }

    fn set_head_mode(&mut self, mode: HeadMode) -> bool {
        self.mlm_head = mode;
        true
    }
}
