//! The list of families. A new one is a file here, a line in this list, and its row in `FAMILIES` of `splade-files`.

mod bert;
mod distilbert;
mod modernbert;
mod norbert3;
mod norbert4;
mod roberta;

use serde_json::Value;

pub use self::bert::BertConfig;
pub use self::distilbert::DistilBertConfig;
pub use self::modernbert::{LayerType, ModernBertConfig, Rope, RopeParameters};
pub use self::norbert3::Norbert3Config;
pub use self::norbert4::Norbert4Config;
pub use self::roberta::RobertaConfig;
use super::algebra::{Algebra, Inputs};
use super::masked_lm::MaskedLm;
use super::mlm_head::Encoded;

/// The config of every family as one type, by the name of its row in `FAMILIES`.
macro_rules! families {
    ($($(#[$doc:meta])* $name:literal => $family:ident($config:ty),)+) => {
        /// A masked-language model of a family that can be loaded: the sizes in its `config.json`.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum TransformerConfig {
            $($(#[$doc])* $family($config),)+
        }

        impl TransformerConfig {
            /// The config of the family called `name`; none if the list has no such family.
            pub(super) fn deserialize(name: &str, value: &Value) -> Option<serde_json::Result<Self>> {
                match name {
                    $($name => Some(serde_json::from_value(value.clone()).map(Self::$family)),)+
                    _ => None,
                }
            }

            /// The config as a `config.json` has it.
            pub(super) fn to_value(&self) -> serde_json::Result<Value> {
                match self {
                    $(Self::$family(config) => serde_json::to_value(config),)+
                }
            }

            /// The name of the family.
            #[must_use]
            pub fn family_name(&self) -> &'static str {
                match self {
                    $(Self::$family(_) => $name,)+
                }
            }

            /// Converts texts to hidden states and the head's features, in any algebra.
            ///
            /// # Errors
            /// Those of the algebra.
            pub fn forward<A: Algebra>(
                &self,
                a: &A,
                inputs: &Inputs<A::Tensor>,
            ) -> Result<Encoded<A::Tensor>, A::Error> {
                match self {
                    $(Self::$family(config) => config.forward(a, inputs),)+
                }
            }

            pub(super) fn as_masked_lm(&self) -> &dyn MaskedLm {
                match self {
                    $(Self::$family(config) => config,)+
                }
            }

            pub(super) fn as_masked_lm_mut(&mut self) -> &mut dyn MaskedLm {
                match self {
                    $(Self::$family(config) => config,)+
                }
            }
        }
    };
}

families! {
    /// `NorbertForMaskedLM`
    "norbert3" => Norbert3(Norbert3Config),
    /// `GptBertForMaskedLM`
    "norbert4" => Norbert4(Norbert4Config),
    /// `BertForMaskedLM`
    "bert" => Bert(BertConfig),
    /// `DistilBertForMaskedLM`
    "distilbert" => DistilBert(DistilBertConfig),
    /// `RobertaForMaskedLM`, `XLMRobertaForMaskedLM`
    "roberta" => Roberta(RobertaConfig),
    /// `ModernBertForMaskedLM`
    "modernbert" => ModernBert(ModernBertConfig),
}
