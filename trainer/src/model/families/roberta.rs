//! RoBERTa and XLM-RoBERTa (`RobertaForMaskedLM`, `XLMRobertaForMaskedLM`): BERT with other positions and another head.
//!
//! Liu et al., 2019; Conneau et al., 2020. Positions count the ids that are not padding, from `pad_token_id + 1`.

use serde::{Deserialize, Serialize};

use super::bert::BertConfig;
use crate::model::algebra::{Activation, Algebra, Init, Inputs, Positions};
use crate::model::layers::{dense, norm};
use crate::model::masked_lm::{Activations, MaskedLm};
use crate::model::mlm_head::{Encoded, MlmHead, output_matrix};
use crate::model::problem::ConfigProblem;

/// The keys of a RoBERTa `config.json` that matter: BERT's, and the padding id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RobertaConfig {
    /// sizes, activation, dropouts; absent keys have BERT's defaults
    #[serde(flatten)]
    pub bert: BertConfig,
    /// the id of padding, which also shifts the positions
    #[serde(default = "pad_token_id")]
    pub pad_token_id: u32,
}

fn pad_token_id() -> u32 {
    1
}

/// The name of the output bias.
const BIAS: &str = "lm_head.bias";

/// The name of the output matrix.
const OUTPUT: &str = "lm_head.decoder.weight";
/// The name of the word embedding, which the output matrix may be tied to.
const WORDS: &str = "roberta.embeddings.word_embeddings.weight";

impl MaskedLm for RobertaConfig {
    fn harmless_keys(&self) -> &'static [&'static str] {
        self.bert.harmless_keys()
    }

    fn tied(&self) -> (&'static str, &'static str) {
        (OUTPUT, WORDS)
    }

    fn aliases(&self) -> &'static [(&'static str, &'static str)] {
        &[("lm_head.decoder.bias", BIAS)]
    }

    fn encoder_prefixes(&self) -> &'static [&'static str] {
        &["roberta."]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        &["lm_head."]
    }

    fn check(&self) -> Result<(), ConfigProblem> {
        self.bert.check()?;
        let (rows, pad) = (self.bert.max_position_embeddings, self.pad_token_id);
        if rows < pad as usize + 2 {
            let message = format!("{rows} leaves no position for a token after pad_token_id {pad}");
            return Err(ConfigProblem::value("max_position_embeddings", message));
        }
        Ok(())
    }

    fn forward<A: Algebra>(&self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<Encoded<A::Tensor>, A::Error> {
        let bert = &self.bert;
        let (v, d, init) = (bert.vocab_size, bert.hidden_size, Init::Normal(bert.initializer_range));
        let positions = Positions::AfterPadding { pad: self.pad_token_id };
        let (words, x) = bert.embed(a, "roberta", inputs, positions)?;
        let allowed = a.allowed_keys(&inputs.mask, None)?;
        let x = bert.block().stack(a, "roberta.encoder.layer", bert.num_hidden_layers, x, &allowed)?;
        // the head's activation is not the blocks' but always this one
        let h = a.activate(&dense(a, "lm_head.dense", &x, (d, d), true, init)?, Activation::Gelu)?;
        let features = norm(a, "lm_head.layer_norm", &h, d, true, bert.layer_norm_eps)?;
        let weight = output_matrix(a, OUTPUT, &words, [v, d], init)?;
        let bias = a.parameter(BIAS, &[v], Init::Zeros)?;
        Ok(Encoded { last_hidden_state: x, head: MlmHead::new(features, weight, bias, v) })
    }

    fn vocab_size(&self) -> usize {
        self.bert.vocab_size
    }

    fn ties_output(&self) -> bool {
        self.bert.tie_word_embeddings
    }

    fn activations(&self) -> Activations {
        self.bert.activations()
    }
}
