//! [`HybridSettings`]: settings of hybrid search, which an index keeps in its manifest.

use serde::{Deserialize, Serialize};

use crate::settings::Manifest;
use crate::{Bm25Options, Error, ImpactIndex, Result, WriterOptions};
use splade_core::{Fusion, FusionParameters};

/// Settings of hybrid search that were chosen for an index on development queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridSettings {
    /// name of the fusion, one of [`Fusion::NAMES`]
    pub fusion: String,
    /// constant of reciprocal rank fusion
    pub rrf_k: f32,
    /// name of the scaling of a weighted sum, one of [`splade_core::Scaling::NAMES`]
    pub scaling: String,
    /// weights of the sparse and the BM25 ranking, and of the dense one if three are fused
    pub weights: Vec<f32>,
    /// hits taken from each ranking, at least 1
    pub depth: usize,
    /// options of BM25
    pub bm25: Bm25Options,
    /// the queries that they were chosen on
    pub tuned_on: TunedOn,
}

/// Development queries and the score on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedOn {
    /// number of queries with a relevant document
    pub queries: usize,
    /// fingerprint of the ids and texts of these queries; none in settings of an earlier version
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// name of the score
    pub metric: String,
    /// mean score of queries that the choice had not seen, by cross-validation
    pub held_out: f64,
}

impl HybridSettings {
    /// The fusion.
    ///
    /// # Errors
    /// An unknown name, parameters out of range.
    pub fn fusion(&self) -> Result<Fusion> {
        Ok(Fusion::named(&self.fusion, &self.parameters()?)?)
    }

    /// The parameters of the fusion.
    ///
    /// # Errors
    /// An unknown name of a scaling.
    pub fn parameters(&self) -> Result<FusionParameters> {
        Ok(FusionParameters { rrf_k: self.rrf_k, scaling: self.scaling.parse()?, weights: self.weights.clone() })
    }

    /// Checks the settings, which come from a file.
    pub(crate) fn check(&self) -> Result<()> {
        self.fusion()?;
        if !(2..=3).contains(&self.weights.len()) {
            let count = self.weights.len();
            let message = format!("the fusion of hybrid search has {count} weights, not two or three");
            return Err(Error::invalid(message, "tune the index anew"));
        }
        if self.depth == 0 {
            return Err(Error::invalid(
                "the depth of hybrid search is 0, not a number of at least 1",
                "tune the index anew",
            ));
        }
        Ok(())
    }
}

impl ImpactIndex {
    /// Keeps settings of hybrid search in the index, in place of earlier ones.
    ///
    /// # Errors
    /// Another writer at work; a folder that cannot be written.
    pub fn write_hybrid_settings(&self, hybrid: &HybridSettings) -> Result<()> {
        // holds the lock of writers, who write the manifest too, and upgrades an index of version 1
        let _writer = self.writer(WriterOptions::default())?;
        Manifest { hybrid: Some(hybrid.clone()), ..Manifest::read(self.dir())? }.write(self.dir())
    }

    /// Reads the settings of hybrid search kept in the index; `None` if there are none.
    ///
    /// # Errors
    /// A damaged manifest, settings out of range.
    pub fn read_hybrid_settings(&self) -> Result<Option<HybridSettings>> {
        let hybrid = Manifest::read(self.dir())?.hybrid;
        hybrid.iter().try_for_each(HybridSettings::check)?;
        Ok(hybrid)
    }
}
