//! Comparison of an exported file with its checkpoint, in every available runtime.
//!
//! The reference is the checkpoint in Candle. Golden tests of `splade-trainer` compare Candle with the Python libraries.

mod vectors;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_onnx::onnx::GraphProto;
use ndarray::Array2;
use splade_core::TokenBatch;
use splade_encode::OnnxModel;
use splade_files::Precision;
use splade_trainer::model::{Candle, TransformerConfig, Weights, splade};

pub use vectors::{
    BackendNetwork, Finding, Place, Sides, compare_rankings, compare_scores, compare_tokens, compare_vectors,
};

use crate::{Error, Head, ModelProto, Result, proto};

/// Runtime that computes the output of an exported file.
pub trait Backend {
    /// Name in messages and reports.
    fn name(&self) -> &str;

    /// The output for a batch, `[vectors, V]`: one vector per text or, if [`Head::is_per_token`], per token, padding included.
    ///
    /// # Errors
    /// Those of the runtime.
    fn run(&self, batch: &TokenBatch) -> Result<Array2<f32>>;
}

/// The checkpoint in Candle.
#[derive(Debug)]
pub struct Reference<'m> {
    config: &'m TransformerConfig,
    weights: &'m Weights,
    head: Head,
}

impl<'m> Reference<'m> {
    /// The reference for the output `head` of a checkpoint.
    #[must_use]
    pub fn new(config: &'m TransformerConfig, weights: &'m Weights, head: Head) -> Self {
        Self { config, weights, head }
    }

    fn output(&self, batch: &TokenBatch) -> splade_trainer::Result<Array2<f32>> {
        let a = Candle::new(self.weights.tensors(), &Device::Cpu);
        let inputs = a.batch(batch)?;
        let encoded = self.config.forward(&a, &inputs)?;
        let output = match self.head {
            Head::HiddenStates => encoded.last_hidden_state,
            Head::Logits => encoded.head.logits(&a)?,
            Head::Splade(pooling) => splade(&a, &encoded.head, &inputs.mask, pooling)?,
        };
        Ok(vectors(&output)?)
    }
}

impl Backend for Reference<'_> {
    fn name(&self) -> &str {
        "candle"
    }

    fn run(&self, batch: &TokenBatch) -> Result<Array2<f32>> {
        Ok(self.output(batch)?)
    }
}

/// An exported file in ONNX Runtime.
pub struct OnnxRuntime(OnnxModel);

impl OnnxRuntime {
    /// Wraps an opened file.
    #[must_use]
    pub fn new(model: OnnxModel) -> Self {
        Self(model)
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &str {
        "onnx runtime"
    }

    fn run(&self, batch: &TokenBatch) -> Result<Array2<f32>> {
        let mut terms = 1;
        let numbers = self.0.run(batch, |_, output| {
            terms = output.shape().last().copied().unwrap_or(1);
            Ok(output.iter().copied().collect())
        })?;
        let message = |error: ndarray::ShapeError| Error::backend(self.0.path(), self.name(), error);
        Array2::from_shape_vec((numbers.len() / terms.max(1), terms), numbers).map_err(message)
    }
}

/// An exported file in candle-onnx, the runtime without a shared library.
#[derive(Debug)]
pub struct CandleOnnx {
    model: ModelProto,
    file: PathBuf,
}

impl CandleOnnx {
    /// Reads an exported file.
    ///
    /// # Errors
    /// A file that cannot be read or is no ONNX.
    pub fn read(file: &Path) -> Result<Self> {
        Ok(Self::new(proto::read(file)?, file))
    }

    /// Wraps a model in memory; messages name `file`.
    #[must_use]
    pub fn new(mut model: ModelProto, file: &Path) -> Self {
        if let Some(graph) = &mut model.graph {
            axes_to_attributes(graph);
        }
        Self { model, file: file.to_owned() }
    }

    /// First operator of the graph that candle-onnx lacks.
    fn missing_operator(&self) -> Option<&str> {
        let nodes = self.model.graph.iter().flat_map(|graph| &graph.node);
        let mut operators = nodes.map(|node| node.op_type.as_str());
        operators.find(|operator| CANDLE_ONNX_OPERATORS.binary_search(operator).is_err())
    }

    fn output(&self, batch: &TokenBatch) -> candle_core::Result<Array2<f32>> {
        let graph = self.model.graph.iter().next().ok_or_else(|| candle_core::Error::msg("no graph"))?;
        let mut inputs = HashMap::new();
        for input in &graph.input {
            let values: Vec<i64> = match input.name.as_str() {
                "input_ids" => batch.ids.iter().copied().collect(),
                "attention_mask" => batch.mask.iter().copied().collect(),
                "token_type_ids" => vec![0; batch.ids.len()],
                other => candle_core::bail!("unknown input {other}"),
            };
            let values = Tensor::from_vec(values, (batch.rows(), batch.width()), &Device::Cpu)?;
            inputs.insert(input.name.clone(), values);
        }
        let outputs = candle_onnx::simple_eval(&self.model, inputs)?;
        let output = outputs.into_values().next().ok_or_else(|| candle_core::Error::msg("no output"))?;
        vectors(&output)
    }
}

impl Backend for CandleOnnx {
    fn name(&self) -> &str {
        "candle-onnx"
    }

    fn run(&self, batch: &TokenBatch) -> Result<Array2<f32>> {
        if let Some(operator) = self.missing_operator() {
            let (file, backend) = (self.file.clone(), self.name().to_owned());
            return Err(Error::MissingOperator { file, backend, operator: operator.to_owned() });
        }
        self.output(batch).map_err(|error| Error::backend(&self.file, self.name(), splade_trainer::Error::from(error)))
    }
}

/// Operators of candle-onnx 0.11, sorted.
const CANDLE_ONNX_OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Cos",
    "CumSum",
    "Div",
    "Dropout",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "Gelu",
    "Gemm",
    "Greater",
    "GreaterOrEqual",
    "HardSwish",
    "Identity",
    "If",
    "LSTM",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "OneHot",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "RNN",
    "Range",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "ScatterND",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Vectors of a Candle tensor along its last axis.
fn vectors(output: &Tensor) -> candle_core::Result<Array2<f32>> {
    let terms = output.dims().last().copied().unwrap_or(1);
    let numbers: Vec<f32> = output.flatten_all()?.to_vec1()?;
    let shape = (numbers.len() / terms.max(1), terms);
    Array2::from_shape_vec(shape, numbers).map_err(candle_core::Error::wrap)
}

/// Moves the axes of every ReduceMean from an input to an attribute, as in opset 17: candle-onnx ignores the input and would
/// reduce over all axes.
fn axes_to_attributes(graph: &mut GraphProto) {
    for node in graph.node.iter_mut().filter(|node| node.op_type == "ReduceMean" && node.input.len() == 2) {
        let Some(axes) = graph.initializer.iter().find(|tensor| tensor.name == node.input[1]) else { continue };
        let (axes, _) = axes.raw_data.as_chunks::<8>();
        let axes: Vec<i64> = axes.iter().map(|axis| i64::from_le_bytes(*axis)).collect();
        node.input.truncate(1);
        node.attribute.push(proto::ints("axes", &axes));
    }
}

/// Differences of a runtime from the reference, over all compared vectors: one per text, or one per token for logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// the runtime
    pub backend: String,
    /// number of compared vectors
    pub vectors: usize,
    /// largest `|found − reference|`, divided by `|reference|` if that is above 1
    pub difference: f32,
    /// smallest cosine of two vectors
    pub cosine: f64,
    /// number of vectors with the ten largest entries of the reference, up to ties within the tolerance
    pub same_top: usize,
}

/// Agreement of every runtime with the reference, on one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// the exported file
    pub file: PathBuf,
    /// largest difference allowed
    pub tolerance: f32,
    /// smallest cosine allowed
    pub least_cosine: f64,
    /// one agreement per runtime, in their order
    pub agreements: Vec<Agreement>,
}

impl Report {
    /// Checks every agreement.
    ///
    /// # Errors
    /// The first runtime whose difference is above the tolerance, or whose cosine is below the limit.
    pub fn check(&self) -> Result<()> {
        for agreement in &self.agreements {
            let (file, backend) = (self.file.clone(), agreement.backend.clone());
            if !agreement.within(self.tolerance) {
                let (difference, tolerance) = (agreement.difference, self.tolerance);
                return Err(Error::Disagreement { file, backend, difference, tolerance });
            }
            if agreement.cosine < self.least_cosine {
                return Err(Error::Unlike { file, backend, cosine: agreement.cosine, least: self.least_cosine });
            }
        }
        Ok(())
    }
}

impl Agreement {
    fn within(&self, tolerance: f32) -> bool {
        // written so that NaN is outside
        self.difference <= tolerance
    }
}

/// Largest difference allowed in f32: 1e-4 in SPLADE weights, 5e-4 in logits, 3e-4 in hidden states.
#[must_use]
pub fn tolerance(head: Head) -> f32 {
    match head {
        Head::HiddenStates => 3e-4,
        Head::Logits => 5e-4,
        Head::Splade(_) => 1e-4,
    }
}

/// Limits of the differences between a file and its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// largest difference allowed, as [`Agreement::difference`]
    pub difference: f32,
    /// smallest cosine of two vectors allowed
    pub cosine: f64,
}

/// Limits of a file of this precision against the checkpoint in f32.
///
/// * fp32: [`tolerance`]. A file with larger differences is wrong.
/// * fp16: 0.1 in SPLADE weights, 0.25 in logits and hidden states, cosine 0.999. Rounding the weights to 11 bits causes about a
///   tenth of these differences.
/// * int8: 2 in SPLADE weights, 10 in logits and hidden states, cosine 0.9. These limits find broken files. They do not measure
///   quality, as an evaluation does.
#[must_use]
pub fn limits(head: Head, precision: Precision) -> Limits {
    let (splade, logits, cosine) = match precision {
        Precision::Fp32 => return Limits { difference: tolerance(head), cosine: 0.0 },
        Precision::Fp16 => (0.1, 0.25, 0.999),
        Precision::Int8 => (2.0, 10.0, 0.9),
    };
    Limits { difference: if matches!(head, Head::Splade(_)) { splade } else { logits }, cosine }
}

/// Number of largest entries that are compared as a set.
const TOP: usize = 10;

/// Runs the batches through the reference and every runtime, and compares the outputs.
///
/// Logits at padding are not compared, since they are not used.
///
/// # Errors
/// A runtime that fails, or whose output has another size. Differences are not errors here, see [`Report::check`].
pub fn compare(
    file: &Path,
    head: Head,
    reference: &dyn Backend,
    runtimes: &[&dyn Backend],
    batches: &[TokenBatch],
) -> Result<Report> {
    compare_within(limits(head, Precision::Fp32), file, head, reference, runtimes, batches)
}

/// [`compare`] with other limits than those of fp32.
///
/// [`Agreement::same_top`] uses the [`tolerance`] of fp32 for ties, whatever the limits.
///
/// # Errors
/// Those of [`compare`].
pub fn compare_within(
    limits: Limits,
    file: &Path,
    head: Head,
    reference: &dyn Backend,
    runtimes: &[&dyn Backend],
    batches: &[TokenBatch],
) -> Result<Report> {
    let tolerance = tolerance(head);
    let expected = batches.iter().map(|batch| reference.run(batch)).collect::<Result<Vec<_>>>()?;
    let agree = |runtime: &&dyn Backend| {
        let mut agreement =
            Agreement { backend: runtime.name().to_owned(), vectors: 0, difference: 0.0, cosine: 1.0, same_top: 0 };
        for (batch, expected) in batches.iter().zip(&expected) {
            let found = runtime.run(batch)?;
            if found.dim() != expected.dim() {
                let message = format!("gives an output {:?} instead of {:?}", found.dim(), expected.dim());
                return Err(Error::backend(file, runtime.name(), message));
            }
            agreement.add(head, batch, expected, &found, tolerance);
        }
        Ok(agreement)
    };
    let agreements = runtimes.iter().map(agree).collect::<Result<_>>()?;
    Ok(Report { file: file.to_owned(), tolerance: limits.difference, least_cosine: limits.cosine, agreements })
}

impl Agreement {
    fn add(&mut self, head: Head, batch: &TokenBatch, expected: &Array2<f32>, found: &Array2<f32>, tolerance: f32) {
        // logits at padding are not used
        let is_compared: Vec<bool> = if head.is_per_token() {
            batch.mask.iter().map(|mask| *mask != 0).collect()
        } else {
            vec![true; batch.rows()]
        };
        let pairs = expected.outer_iter().zip(found.outer_iter()).zip(is_compared);
        for ((expected, found), _) in pairs.filter(|(_, is_compared)| *is_compared) {
            let (expected, found) = (&expected.to_vec(), &found.to_vec());
            self.vectors += 1;
            self.difference = larger(self.difference, difference(expected, found));
            self.cosine = self.cosine.min(cosine(expected, found));
            self.same_top += usize::from(same_top(expected, found, tolerance));
        }
    }
}

/// The larger of two numbers. NaN counts as the largest.
fn larger(a: f32, b: f32) -> f32 {
    if a >= b || a.is_nan() { a } else { b }
}

fn difference(expected: &[f32], found: &[f32]) -> f32 {
    let of = |(expected, found): (&f32, &f32)| {
        // equal infinities: a disabled term has −∞
        if expected == found { 0.0 } else { (expected - found).abs() / expected.abs().max(1.0) }
    };
    expected.iter().zip(found).map(of).fold(0.0, larger)
}

/// Cosine of two vectors over their finite entries; 1 for two zero vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b).filter(|(a, b)| a.is_finite() && b.is_finite()) {
        let (a, b) = (f64::from(a), f64::from(b));
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    if aa == 0.0 && bb == 0.0 {
        1.0
    } else if aa == 0.0 || bb == 0.0 {
        0.0
    } else {
        dot / (aa.sqrt() * bb.sqrt())
    }
}

/// True if the largest entries of each vector are, within the tolerance, among the largest of the other.
fn same_top(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    let covers = |a: &[f32], b: &[f32]| {
        let (top, floor) = (top(a), top(b).last().map_or(f32::NEG_INFINITY, |&last| b[last]));
        top.into_iter().all(|term| b[term] >= floor - tolerance * floor.abs().max(1.0))
    };
    covers(a, b) && covers(b, a)
}

/// Positions of the largest entries, largest entry first, ties by position.
fn top(vector: &[f32]) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..vector.len()).collect();
    let order = |a: &usize, b: &usize| vector[*b].total_cmp(&vector[*a]).then(a.cmp(b));
    if positions.len() > TOP {
        positions.select_nth_unstable_by(TOP - 1, order);
        positions.truncate(TOP);
    }
    positions.sort_unstable_by(order);
    positions
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// Backend with a fixed output.
    struct Fixed(&'static str, Array2<f32>);

    impl Backend for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        fn run(&self, _: &TokenBatch) -> Result<Array2<f32>> {
            Ok(self.1.clone())
        }
    }

    fn report(head: Head, expected: &[f32], found: &[f32], batch: &TokenBatch) -> Result<Report> {
        let rows = if head.is_per_token() { batch.mask.len() } else { batch.rows() };
        let output = |numbers: &[f32]| Array2::from_shape_vec((rows, numbers.len() / rows), numbers.to_vec()).unwrap();
        let (reference, runtime) = (Fixed("candle", output(expected)), Fixed("other", output(found)));
        compare(Path::new("a/model.onnx"), head, &reference, &[&runtime], std::slice::from_ref(batch))
    }

    fn two_rows() -> TokenBatch {
        TokenBatch::new(&[vec![1, 2], vec![3]], 9)
    }

    const SPLADE: Head = Head::Splade(splade_core::SpladePooling {
        strategy: splade_core::Pooling::Max,
        activation: splade_core::PoolingActivation::Relu,
    });

    #[test]
    fn texts_are_padded_on_the_right() {
        let batch = two_rows();
        assert_eq!((batch.ids, batch.mask), (array![[1, 2], [3, 9]], array![[1, 1], [1, 0]]));
    }

    #[test]
    fn a_disagreement_names_file_backend_and_difference() {
        let found = report(SPLADE, &[0.0, 1.0, 2.0, 0.0], &[0.0, 1.0, 2.5, 0.0], &two_rows()).unwrap();
        assert_eq!((found.agreements[0].vectors, found.agreements[0].same_top), (2, 2));
        let error = found.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "a/model.onnx: other differs from the reference by 2.5e-1, more than 1e-4 allows"
        );
    }

    #[test]
    fn a_vector_of_another_direction_is_refused_at_any_tolerance() {
        let (reference, runtime) =
            (Fixed("candle", array![[1.0, 0.0], [1.0, 1.0]]), Fixed("other", array![[0.4, 0.6], [1.0, 1.0]]));
        let limits = limits(SPLADE, Precision::Int8);
        let found =
            compare_within(limits, Path::new("a.onnx"), SPLADE, &reference, &[&runtime], &[two_rows()]).unwrap();
        let error = found.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.onnx: other gives vectors with a cosine of 0.5547 to the reference's, less than 0.9"
        );
    }

    #[test]
    fn large_values_are_compared_relatively_and_equal_infinities_agree() {
        let low = f32::NEG_INFINITY;
        let found = report(SPLADE, &[low, 1000.0, 1.0, 1.0], &[low, 1000.05, 1.0, 1.0], &two_rows()).unwrap();
        assert!(found.check().is_ok(), "{found:?}");
    }

    #[test]
    fn nan_is_a_disagreement() {
        for at in 0..4 {
            let mut values = [1.0; 4];
            values[at] = f32::NAN;
            assert!(report(SPLADE, &[1.0; 4], &values, &two_rows()).unwrap().check().is_err());
        }
    }

    #[test]
    fn logits_at_padding_are_not_compared() {
        let found = report(Head::Logits, &[1.0; 4], &[1.0, 1.0, 1.0, f32::NAN], &two_rows()).unwrap();
        assert!(found.check().is_ok());
        assert_eq!(found.agreements[0].vectors, 3);
    }

    #[test]
    fn another_size_is_an_error() {
        let error = report(SPLADE, &[1.0; 4], &[1.0; 2], &two_rows()).unwrap_err();
        assert_eq!(error.to_string(), "a/model.onnx: other: gives an output (2, 1) instead of (2, 2)");
    }

    #[test]
    fn top_entries_may_change_order_within_the_tolerance() {
        let mut a: Vec<f32> = (0..12).map(|term| term as f32).collect();
        let mut b = a.clone();
        a[1] = 2.0;
        b[1] = 2.0001;
        assert!(same_top(&a, &b, 1e-4));
        b[0] = 50.0;
        assert!(!same_top(&a, &b, 1e-4));
    }
}
