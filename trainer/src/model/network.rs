//! [`CandleNetwork`]: a checkpoint run by Candle as a [`Network`] of document encoders.

use candle_core::Device;
use splade_core::{DocumentEncoder, Network, SparseVector, SpladePooling, TokenBatch};
use splade_files::ModelDir;

use super::{Candle, TransformerConfig, Weights, splade};
use crate::{Error, Result};

/// A transformer and its SPLADE pooling, for inference.
#[derive(Debug, Clone)]
pub struct CandleNetwork {
    config: TransformerConfig,
    weights: Weights,
    pooling: SpladePooling,
    device: Device,
    /// the longest text in tokens
    max_positions: Option<usize>,
}

impl CandleNetwork {
    /// Joins config, parameters (on `device`) and pooling.
    #[must_use]
    pub fn new(config: TransformerConfig, weights: Weights, pooling: SpladePooling, device: Device) -> Self {
        let max_positions = config.max_positions();
        Self { config, weights, pooling, device, max_positions }
    }

    /// Reads the transformer of a model folder.
    ///
    /// # Errors
    /// Those of [`TransformerConfig::of`] and [`Weights::from_files`].
    pub fn read(model: &ModelDir, device: &Device) -> Result<Self> {
        let config = TransformerConfig::of(model)?;
        let weights = Weights::from_files(&model.checkpoint()?, &config)?.without_copy(&config)?.to_device(device)?;
        Ok(Self::new(config, weights, model.pooling(), device.clone()))
    }

    /// The transformer's config.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The transformer's parameters.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    fn rows(&self, batch: &TokenBatch) -> Result<Vec<Vec<f32>>> {
        let a = Candle::new(self.weights.tensors(), &self.device);
        let inputs = a.batch(batch)?;
        let encoded = self.config.forward(&a, &inputs)?;
        Ok(splade(&a, &encoded.head, &inputs.mask, self.pooling)?.to_vec2()?)
    }
}

impl Network for CandleNetwork {
    fn dimensions(&self) -> usize {
        self.config.vocab_size()
    }

    fn forward(&self, batch: &TokenBatch) -> splade_core::Result<Vec<SparseVector>> {
        let failed = |error: Error| splade_core::Error::Encoder(error.into());
        if let Some(most) = self.max_positions.filter(|most| batch.width() > *most) {
            return Err(splade_core::Error::invalid(
                format!("a text has {} tokens, the model takes {most}", batch.width()),
                format!("truncate texts to {most} tokens"),
            ));
        }
        let sparse = |row: Vec<f32>| {
            SparseVector::from_dense(&row)
                .map_err(|source| splade_core::Error::Vector { of: "the network's output".into(), source })
        };
        self.rows(batch).map_err(failed)?.into_iter().map(sparse).collect()
    }
}

/// The document encoder of a model folder, run by Candle.
///
/// # Errors
/// Files that are missing or broken, a tokenizer of another model.
pub fn candle_encoder(model: &ModelDir, max_length: Option<usize>, device: &Device) -> Result<DocumentEncoder> {
    let vocabulary = model.vocabulary(max_length)?;
    let settings = model.document_settings(&vocabulary)?;
    let network = CandleNetwork::read(model, device)?;
    Ok(DocumentEncoder::new(vocabulary, Box::new(network), settings)?)
}
