//! [`DenseEncoder`]: dense vectors by an ONNX file of a folder of sentence-transformers.

mod pooling;

use std::path::Path;

use ndarray::{ArrayViewD, Ix2, Ix3};
use splade_core::dense::DenseVector;
use splade_core::{TokenBatch, Vocabulary, run_in_batches};
use splade_files::{DenseModelDir, DensePooling};

use crate::signature::POOLED;
use crate::{Error, OnnxModel, OnnxOptions, Placement, Result};

/// Difference of a vector that padding makes and that rounding does not.
const PADDING_TOLERANCE: f32 = 1e-3;
/// Numbers of tokens of the tested text, which is run alone and padded, and of the longer text beside it.
const PROBE_LENGTHS: [u32; 2] = [4, 16];

/// A tokenizer, a network in ONNX Runtime, and a pooling.
///
/// A file that gives hidden states is pooled here as the folder states. A file whose only output is `sentence_embedding` has
/// its own pooling. The vectors equal those of sentence-transformers up to the rounding of f32 (within 1e-4, tested).
pub struct DenseEncoder {
    model: OnnxModel,
    vocabulary: Vocabulary,
    pooling: DensePooling,
    normalizes: bool,
    lower_case: bool,
    dimensions: usize,
    pad: u32,
    batch_tokens: usize,
}

impl DenseEncoder {
    /// Opens the ONNX file of a folder. [`load_onnx_runtime`](crate::load_onnx_runtime) must have succeeded. `batch_tokens` is
    /// the most tokens in a batch, padding included; 0 means [`BATCH_TOKENS`](splade_core::BATCH_TOKENS).
    ///
    /// A file whose vectors change with padding runs texts of one length at a time.
    ///
    /// # Errors
    /// As [`OnnxModel::open`]; a file without hidden states or pooled vectors; a tokenizer that is missing or broken.
    pub fn open(folder: &DenseModelDir, options: &OnnxOptions, batch_tokens: usize) -> Result<Self> {
        let model = OnnxModel::open(&folder.onnx_path()?, options)?.reading_dense()?;
        let mut vocabulary = folder.vocabulary()?;
        if let Some(most) = model.max_length().filter(|most| *most < vocabulary.max_length()) {
            vocabulary = vocabulary.with_max_length(most)?;
        }
        let mut encoder = Self {
            model,
            pad: folder.pad_id(&vocabulary)?,
            vocabulary,
            pooling: folder.pooling(),
            normalizes: folder.normalizes(),
            lower_case: folder.lower_case(),
            dimensions: 0,
            batch_tokens,
        };
        let probe = encoder.forward(&TokenBatch::new(&[encoder.spread_ids(PROBE_LENGTHS[0])], encoder.pad))?;
        encoder.dimensions = probe.first().map_or(0, DenseVector::dimensions);
        if encoder.mixes_in_padding(&probe)? {
            encoder.model = encoder.model.without_padding();
        }
        Ok(encoder)
    }

    /// Number of dimensions of the vectors.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The tokenizer.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The ONNX file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.model.path()
    }

    /// Device of the sessions, and the reasons against others.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        self.model.placement()
    }

    /// Vectors of texts, in their order. `prompt` is put before each of them, without a separator.
    ///
    /// A text without a token has a vector of zeros.
    ///
    /// # Errors
    /// A tokenizer or network that fails; a vector that is not finite.
    pub fn encode(&self, texts: &[&str], prompt: &str) -> Result<Vec<DenseVector>> {
        let prepared = texts.iter().map(|text| {
            let text = format!("{prompt}{text}");
            let text = text.trim();
            if self.lower_case { text.to_lowercase() } else { text.to_owned() }
        });
        let tokens = self.vocabulary.tokenize_all(&prepared.collect::<Vec<_>>())?;
        let run = |batch: &TokenBatch| Ok(self.forward(batch)?);
        let vectors = run_in_batches(&tokens, self.pad, self.batch_tokens, self.model.sessions(), run)?;
        let zeros = || Ok(DenseVector::new(vec![0.0; self.dimensions])?);
        vectors.into_iter().map(|vector| vector.map_or_else(zeros, Ok)).collect()
    }

    /// Vectors of the rows of a batch.
    fn forward(&self, batch: &TokenBatch) -> Result<Vec<DenseVector>> {
        self.model.run(batch, |batch, output| {
            let vectors = self.pooled(batch, output)?;
            vectors.into_iter().map(|values| self.finished(values)).collect()
        })
    }

    fn finished(&self, values: Vec<f32>) -> Result<DenseVector> {
        let vector = DenseVector::new(values).map_err(|error| error.at(self.model.path().display()))?;
        Ok(if self.normalizes { vector.normalized() } else { vector })
    }

    /// One row of values for each text.
    fn pooled(&self, batch: &TokenBatch, output: ArrayViewD<'_, f32>) -> Result<Vec<Vec<f32>>> {
        let (rows, width, shape) = (batch.rows(), batch.width(), output.shape().to_vec());
        let is_pooled = self.model.output_name() == POOLED;
        match *shape {
            [found, tokens, _] if (found, tokens) == (rows, width) => {
                let hidden = output.into_dimensionality::<Ix3>().map_err(|error| self.broken(error.to_string()))?;
                let texts = hidden.outer_iter().zip(batch.mask.outer_iter());
                Ok(texts.map(|(hidden, mask)| pooling::pool(hidden, mask, self.pooling)).collect())
            }
            [found, _] if found == rows && is_pooled => {
                let vectors = output.into_dimensionality::<Ix2>().map_err(|error| self.broken(error.to_string()))?;
                Ok(vectors.outer_iter().map(|vector| vector.to_vec()).collect())
            }
            _ => Err(self.broken(format!(
                "output {} has shape {shape:?}, not a hidden state for each of {width} tokens of {rows} texts",
                self.model.output_name()
            ))),
        }
    }

    fn broken(&self, message: String) -> Error {
        Error::Signature { file: self.model.path().to_owned(), message }
    }

    /// True if padding changes the vector of a text: a graph that does not use its mask. `alone` is the vector without padding.
    fn mixes_in_padding(&self, alone: &[DenseVector]) -> Result<bool> {
        if !self.model.can_pad() || self.model.max_length().is_some() {
            return Ok(false);
        }
        let padded = self.forward(&TokenBatch::new(&PROBE_LENGTHS.map(|length| self.spread_ids(length)), self.pad))?;
        let differs = |(a, b): (&DenseVector, &DenseVector)| {
            let largest = a.values().iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
            a.values().iter().zip(b.values()).any(|(a, b)| (a - b).abs() > PADDING_TOLERANCE * largest)
        };
        Ok(alone.iter().zip(&padded).any(differs))
    }

    /// Ids of `length` tokens at equal distances in the vocabulary.
    fn spread_ids(&self, length: u32) -> Vec<u32> {
        let terms = self.vocabulary.size() as u64;
        (1..=length).map(|at| (terms * u64::from(at) / u64::from(length + 1)) as u32).collect()
    }
}
