//! [`OnnxNetwork`]: a network that gives sparse vectors by an ONNX file.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::path::Path;

use ndarray::{ArrayView1, ArrayView2, ArrayViewD, Axis, Ix2, Ix3};
use splade_core::{Network, Pooling, SparseVector, SpladePooling, TokenBatch, activate, pool};
use splade_files::{ModelDir, Precision};

use crate::output_layer::OutputLayer;
use crate::provenance::{Provenance, provenance};
use crate::providers::OnnxDevice;
use crate::split_graph::{Cap, SplitGraph};
use crate::{Error, OnnxModel, OnnxOptions, OnnxSummary, Result, metadata};

/// A [`Network`] that runs an ONNX file: a pooled file whole, a pooled file split before its output layer, which this crate
/// computes, or a file of logits, which this crate pools.
pub struct OnnxNetwork {
    model: OnnxModel,
    dimensions: usize,
    pooling: SpladePooling,
    /// the output layer, or the reason why the whole file is run
    output: std::result::Result<(OutputLayer, Cap), NotSplit>,
}

/// Reason why ONNX Runtime runs the whole file with its output layer.
///
/// A graph split at the features is several times as fast and gives the same vectors up to rounding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotSplit {
    /// the caller requested it ([`OnnxOptions::whole`])
    Requested,
    /// sum pooling, which does not take the largest logit
    SumPooling,
    /// this processor lacks the instructions of the output layer
    Processor,
    /// the session does not run on the CPU
    Device(OnnxDevice),
    /// the file does not name its output layer
    NotStated,
    /// the file differs from the statements of its metadata
    Broken(String),
    /// ONNX Runtime refused the split graph and accepted the file
    Refused(String),
}

impl fmt::Display for NotSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("it was requested"),
            Self::SumPooling => f.write_str("the model pools by the sum, the fused output layer takes the maximum"),
            Self::Processor => f.write_str("this processor has neither AVX2 nor AVX-512 VNNI"),
            Self::Device(device) => write!(f, "the session runs on {}", device.name()),
            Self::NotStated => f.write_str("the file does not state where its output layer begins"),
            Self::Broken(reason) => write!(f, "the file is not as it states: {reason}"),
            Self::Refused(reason) => write!(f, "ONNX Runtime refused the split graph: {reason}"),
        }
    }
}

impl OnnxNetwork {
    /// Opens a file of a model folder. It must be exported from the folder's checkpoint, with the folder's use of the
    /// logits.
    ///
    /// On a CPU with the needed instructions, ONNX Runtime runs a file of max pooling up to its features, and this crate
    /// computes the output layer, which is several times as fast. [`OnnxOptions::whole`] switches this off.
    ///
    /// # Errors
    /// As [`OnnxModel::open`] and [`new`](Self::new); a file of another checkpoint than the folder's, or with other logits.
    pub fn open(path: &Path, options: &OnnxOptions, model: &ModelDir) -> Result<Self> {
        if let Provenance::Other(reason) = provenance(path, model)? {
            return Err(Error::Stale { file: path.to_owned(), reason });
        }
        let network = Self::open_with(path, options, model.dimensions()?, model.pooling())?;
        if let Some(choice) = model.head_choice() {
            // other tools export the logits of the published code
            let published = splade_core::HeadMode::Published.name();
            let found = network.model.metadata(metadata::HEAD_MODE).unwrap_or(published);
            if found != choice.mode.name() {
                return Err(Error::HeadMode { file: path.to_owned(), found: found.to_owned(), expected: choice.mode });
            }
        }
        Ok(network)
    }

    /// Opens a file of a model with V terms and this pooling.
    ///
    /// # Errors
    /// As [`OnnxModel::open`] and [`new`](Self::new).
    pub fn open_with(path: &Path, options: &OnnxOptions, dimensions: usize, pooling: SpladePooling) -> Result<Self> {
        let split: OnceCell<std::result::Result<SplitGraph, NotSplit>> = OnceCell::new();
        let part = |device| {
            let is_cpu = device == OnnxDevice::Cpu;
            let split = is_cpu.then(|| split.get_or_init(|| split_of(path, options, dimensions, pooling)))?;
            split.as_ref().ok().map(|split| split.model.as_slice())
        };
        let opened = OnnxModel::open_part(path, options, part);
        let split = split.into_inner();
        let model = match opened {
            Ok(model) => model,
            Err(error) if matches!(split, Some(Ok(_))) => {
                // an error of the whole file is the one to report
                let network = Self::new(OnnxModel::open(path, options)?, dimensions, pooling)?;
                return Ok(Self { output: Err(NotSplit::Refused(error.to_string())), ..network });
            }
            Err(error) => return Err(error),
        };
        match (model.placement().device, split) {
            (OnnxDevice::Cpu, Some(Ok(SplitGraph { layer, cap, .. }))) => {
                check_pooling(&model, pooling)?;
                Ok(Self { model, dimensions, pooling, output: Ok((layer, cap)) })
            }
            (OnnxDevice::Cpu, Some(Err(reason))) => {
                Ok(Self { output: Err(reason), ..Self::new(model, dimensions, pooling)? })
            }
            (device, _) => Ok(Self { output: Err(NotSplit::Device(device)), ..Self::new(model, dimensions, pooling)? }),
        }
    }

    /// Wraps an opened file, which is run whole. `dimensions` is V, `pooling` that of the model folder.
    ///
    /// A file of another tool runs two small batches first. If padding changes the vector of a text in them, the file runs
    /// texts of one length at a time ([`OnnxModel::can_pad`]).
    ///
    /// # Errors
    /// A file pooled in another way than the folder states, outputs that do not have V columns.
    pub fn new(model: OnnxModel, dimensions: usize, pooling: SpladePooling) -> Result<Self> {
        check_pooling(&model, pooling)?;
        let network = Self { model: model.reading(dimensions)?, dimensions, pooling, output: Err(NotSplit::Requested) };
        if network.mixes_in_padding() {
            return Ok(Self { model: network.model.without_padding(), ..network });
        }
        Ok(network)
    }

    /// True if this processor has the instructions of the fused output layer.
    #[must_use]
    pub fn can_split() -> bool {
        OutputLayer::is_supported()
    }

    /// Reason why the whole file is run; none if it is split.
    #[must_use]
    pub fn not_split(&self) -> Option<&NotSplit> {
        self.output.as_ref().err()
    }

    /// Reason why a file would be run whole on the CPU; none if it would be split. Does not need ONNX Runtime.
    #[must_use]
    pub fn why_not_split(path: &Path, dimensions: usize, pooling: SpladePooling) -> Option<NotSplit> {
        split_of(path, &OnnxOptions::default(), dimensions, pooling).err()
    }

    /// The file.
    #[must_use]
    pub fn model(&self) -> &OnnxModel {
        &self.model
    }
}

/// Splits a file at its features, or returns the reason against it.
fn split_of(
    path: &Path,
    options: &OnnxOptions,
    dimensions: usize,
    pooling: SpladePooling,
) -> std::result::Result<SplitGraph, NotSplit> {
    if options.whole {
        return Err(NotSplit::Requested);
    }
    if pooling.strategy != Pooling::Max {
        return Err(NotSplit::SumPooling);
    }
    let split = SplitGraph::read(path)?;
    match split.layer.terms() {
        terms if terms == dimensions => Ok(split),
        terms => Err(NotSplit::Broken(format!("its output layer has {terms} terms, the model has {dimensions}"))),
    }
}

/// Refuses a file with other pooling than that of the model folder. A file of logits passes: this crate pools them.
fn check_pooling(model: &OnnxModel, pooling: SpladePooling) -> Result<()> {
    let expected = metadata::pooling(pooling);
    let found = model.metadata(metadata::POOLING).filter(|_| model.metadata(metadata::HEAD) != Some("logits"));
    match found {
        Some(found) if found != expected => {
            Err(Error::Pooling { file: model.path().to_owned(), found: found.to_owned(), expected })
        }
        _ => Ok(()),
    }
}

impl Network for OnnxNetwork {
    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn concurrency(&self) -> usize {
        self.model.sessions()
    }

    fn max_length(&self) -> Option<usize> {
        self.model.max_length()
    }

    fn forward(&self, batch: &TokenBatch) -> splade_core::Result<Vec<SparseVector>> {
        Ok(self.model.run(batch, |batch, output| match &self.output {
            Ok((layer, cap)) => self.of_features(batch, output, layer, *cap),
            Err(_) => self.of_output(batch, output),
        })?)
    }
}

/// Numbers of tokens of the tested text, which is run alone and padded, and of the longer text beside it.
const PROBE_LENGTHS: [u32; 2] = [4, 16];

impl OnnxNetwork {
    /// True if padding changes the vector of a text, in a file of another tool.
    ///
    /// A mask that adds −1e4 or less to attention scores is sound: the exponentials are 0 in f32. A graph with a
    /// constant near 0, or one that does not use its mask, mixes padding into the attention.
    ///
    /// An int8 file is not tested: the texts of a batch may share one scale, which changes vectors too. An error is ignored
    /// here, since the first batch reports it again.
    fn mixes_in_padding(&self) -> bool {
        let is_foreign = self.model.metadata(metadata::VERSION).is_none();
        if !is_foreign || !self.model.can_pad() || self.model.max_length().is_some() {
            return false;
        }
        // above the rounding of vectors in f32 and in fp16
        let tolerance = match OnnxSummary::read(self.model.path()).map(|file| file.precision()) {
            Ok(Precision::Fp32) => 1e-4,
            Ok(Precision::Fp16) => 5e-3,
            Ok(Precision::Int8) | Err(_) => return false,
        };
        let [short, long] = PROBE_LENGTHS.map(|length| self.spread_ids(length));
        let alone = self.forward(&TokenBatch::new(&[&short], 0));
        let padded = self.forward(&TokenBatch::new(&[&short, &long], 0));
        let (Ok(alone), Ok(padded)) = (alone, padded) else { return false };
        let (alone, padded) = (&alone[0], &padded[0]);
        let dims = alone.dims().iter().chain(padded.dims());
        dims.into_iter().any(|&dim| (alone.weight(dim) - padded.weight(dim)).abs() > tolerance)
    }

    /// Ids of `length` tokens at equal distances in the vocabulary.
    fn spread_ids(&self, length: u32) -> Vec<u32> {
        (1..=length).map(|at| (self.dimensions as u64 * u64::from(at) / u64::from(length + 1)) as u32).collect()
    }

    /// Vectors of the output of a whole file: pooled weights, or logits, which are pooled here.
    fn of_output(&self, batch: &TokenBatch, output: ArrayViewD<'_, f32>) -> Result<Vec<SparseVector>> {
        let (rows, width, terms) = (batch.rows(), batch.width(), self.dimensions);
        match *output.shape() {
            [found, columns] if (found, columns) == (rows, terms) => {
                two_axes(output).outer_iter().map(|weights| self.pooled(weights)).collect()
            }
            [found, tokens, columns] if (found, tokens, columns) == (rows, width, terms) => {
                let texts = three_axes(output);
                let texts = texts.outer_iter().zip(batch.mask.outer_iter());
                texts.map(|(logits, mask)| sparse(&pool(logits, mask, self.pooling))).collect()
            }
            _ => Err(Error::Signature {
                file: self.model.path().to_owned(),
                message: format!("its output has shape {:?}, not {rows} rows of {terms} terms", output.shape()),
            }),
        }
    }

    /// Vector of a row of a pooled output. Pooled weights are never negative, so a negative number is an error.
    fn pooled(&self, weights: ArrayView1<'_, f32>) -> Result<SparseVector> {
        if let Some(weight) = weights.iter().find(|weight| **weight < 0.0) {
            let file = self.model.path().to_owned();
            let message =
                format!("its output has the weight {weight}: one row per text is read as pooled weights, from 0 up");
            return Err(Error::Signature { file, message });
        }
        match weights.as_slice() {
            Some(weights) => sparse(weights),
            None => sparse(&weights.to_vec()),
        }
    }

    /// Vectors of features without padding, by the output layer.
    ///
    /// This runs under the lock of the session. With several threads the layer runs on rayon's threads, so that a call from
    /// one of these threads could deadlock.
    fn of_features(
        &self,
        batch: &TokenBatch,
        features: ArrayViewD<'_, f32>,
        layer: &OutputLayer,
        cap: Cap,
    ) -> Result<Vec<SparseVector>> {
        if features.shape() != [batch.rows(), batch.width(), layer.size()] {
            let message = format!("its features have shape {:?}, not {} texts", features.shape(), batch.rows());
            return Err(Error::Signature { file: self.model.path().to_owned(), message });
        }
        let features = three_axes(features);
        let texts = features.outer_iter().zip(batch.mask.outer_iter());
        let texts: Vec<Cow<'_, [f32]>> = texts.map(|(features, mask)| of_tokens(features, mask)).collect();
        let texts: Vec<&[f32]> = texts.iter().map(AsRef::as_ref).collect();
        let logits = layer
            .positive_logits(&texts, self.model.threads())
            .ok_or_else(|| Error::file(self.model.path(), "the network gives a number that is not finite"))?;
        let weights = |text: Vec<(u32, f32)>| {
            text.into_iter().map(|(term, logit)| (term, activate(cap.of(logit), self.pooling.activation)))
        };
        logits.into_iter().map(|text| SparseVector::from_pairs(weights(text)).map_err(refused)).collect()
    }
}

/// View of an output whose shape was matched before.
fn two_axes(output: ArrayViewD<'_, f32>) -> ndarray::ArrayView2<'_, f32> {
    output.into_dimensionality::<Ix2>().expect("its shape has two axes")
}

/// View of an output whose shape was matched before.
fn three_axes(output: ArrayViewD<'_, f32>) -> ndarray::ArrayView3<'_, f32> {
    output.into_dimensionality::<Ix3>().expect("its shape has three axes")
}

/// Features of the tokens of a row, without those of its padding.
fn of_tokens<'r>(features: ArrayView2<'r, f32>, mask: ArrayView1<'_, i64>) -> Cow<'r, [f32]> {
    let count = mask.iter().filter(|mask| **mask != 0).count();
    if mask.iter().take(count).all(|mask| *mask != 0)
        && let Some(tokens) = features.split_at(Axis(0), count).0.to_slice()
    {
        return Cow::Borrowed(tokens);
    }
    let tokens = features.axis_iter(Axis(0)).zip(mask).filter(|(_, mask)| **mask != 0);
    Cow::Owned(tokens.flat_map(|(token, _)| token.to_vec()).collect())
}

fn sparse(weights: &[f32]) -> Result<SparseVector> {
    SparseVector::from_dense(weights).map_err(refused)
}

fn refused(source: splade_core::VectorError) -> Error {
    splade_core::Error::Vector { of: "the network's output".into(), source }.into()
}
