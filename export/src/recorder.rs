//! [`Recorder`]: an algebra that records an ONNX node for each operation that Candle would compute.
//!
//! Batch and sequence axes are free everywhere. The nodes are those that ONNX Runtime's optimizer recognizes and
//! candle-onnx evaluates: layer norm, GELU and scaled products are written in small operators, and a session fuses them to
//! `SkipLayerNormalization`, `BiasGelu` and `FusedMatMul`. (ONNX Runtime 1.32 does not fuse whole attention layers above
//! opset 12. Measured on a graph in opset 12, that fusion gains nothing.)

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use splade_encode::tensor_names;
use splade_trainer::model::{
    Activation, Algebra, AttentionInputs, AttentionSettings, Init, Positions, RelativeOffsets, Weights,
};

use crate::graph::{Graph, Value};
use crate::proto::{self, Axis, TOKENS};
use crate::{Error, Result};

/// Number added to the score of a masked key. Its exponential relative to an unmasked score is 0 in f32 (−104 is
/// enough), f16 holds it exactly, and a row with only masked keys stays finite.
const LOW: f32 = -10_000.0;

/// Terms of the SPLADE head that are multiplied at a time.
///
/// A part of the logits, tokens × this number, stays in the second-level cache from the product to the maximum. A row has 33
/// cache lines of 16 floats: the maximum over tokens reads a column, and an odd number of lines spreads its elements over
/// the sets of the first-level cache, where a power of two uses only a few sets. Measured on 30 522 terms, speed relative to
/// one part: f32 1.2 at 528 and 1.05 at 512, int8 1.75 and 1.3.
pub(crate) const HEAD_COLUMNS: usize = 528;

/// Records a forward pass over the weights of a checkpoint.
pub(crate) struct Recorder<'w> {
    weights: &'w Weights,
    graph: RefCell<Graph>,
    parameters: RefCell<BTreeMap<String, Use>>,
    /// first input, with tokens as its second axis
    ids: RefCell<Option<Value>>,
    /// dense layers by the name of their output
    layers: RefCell<BTreeMap<String, Layer>>,
    /// names of the features, the matrix and the bias of the SPLADE head
    output_layer: RefCell<Option<[String; 3]>>,
}

/// A recorded dense layer.
#[derive(Clone)]
struct Layer {
    x: Value,
    scope: String,
    factor: Value,
    bias: Option<Value>,
}

/// Use of a parameter, which decides its storage.
struct Use {
    tensor: Tensor,
    /// with the axes of the checkpoint
    plain: Cell<bool>,
    /// transposed, as the right factor of a product
    transposed: Cell<bool>,
}

impl<'w> Recorder<'w> {
    pub(crate) fn new(weights: &'w Weights, opset: i64) -> Self {
        Self {
            weights,
            graph: RefCell::new(Graph::new(opset)),
            parameters: RefCell::default(),
            ids: RefCell::default(),
            layers: RefCell::default(),
            output_layer: RefCell::default(),
        }
    }

    /// Names of the features, the matrix and the bias of the recorded SPLADE head.
    pub(crate) fn output_layer(&self) -> Option<[String; 3]> {
        self.output_layer.borrow().clone()
    }

    /// Input of the graph with this name, `[B, T]`.
    pub(crate) fn input(&self, name: &str) -> Value {
        let input = self.graph.borrow().named(name, None);
        self.ids.borrow_mut().get_or_insert_with(|| input.clone());
        input
    }

    /// T, as a vector of one integer.
    fn token_count(&self) -> Result<Value> {
        let ids = self.ids.borrow().clone().ok_or_else(|| Error::invalid("the graph has no input", ""))?;
        Ok(self.slice(&self.node("Shape", &[&ids]), 0, 1, 2))
    }

    /// T, as one integer.
    fn tokens(&self) -> Result<Value> {
        Ok(self.node("Squeeze", &[&self.token_count()?, &self.integers(&[0])]))
    }

    /// `start, start + 1, … end − 1` as floats.
    fn range(&self, start: &Value, end: &Value) -> Value {
        let one = self.integer(1);
        self.cast(&self.node("Range", &[start, end, &one]), DataType::Float)
    }

    /// Part `start … end` of an axis; negative numbers count from its end.
    fn slice(&self, x: &Value, axis: i64, start: i64, end: i64) -> Value {
        self.node("Slice", &[x, &self.integers(&[start]), &self.integers(&[end]), &self.integers(&[axis])])
    }

    /// Columns `start … end` of the right factor of a product. A session slices them once, when it folds constants.
    fn columns(&self, factor: &Value, start: usize, end: usize) -> Value {
        self.slice(factor, 1, start as i64, end as i64).with_width(Some(end - start))
    }

    pub(crate) fn concat(&self, values: &[&Value], axis: i64) -> Value {
        self.attributed("", "Concat", values, vec![proto::int("axis", axis)])
    }

    /// B, as a vector of one integer.
    pub(crate) fn row_count(&self) -> Result<Value> {
        let ids = self.ids.borrow().clone().ok_or_else(|| Error::invalid("the graph has no input", ""))?;
        Ok(self.slice(&self.node("Shape", &[&ids]), 0, 0, 1))
    }

    /// Row of the table of relative positions for every query and key, `[T, T]`.
    fn relative_rows(&self, offsets: &RelativeOffsets) -> Result<Value> {
        let positions = self.range(&self.integer(0), &self.tokens()?);
        let offset = self.node("Sub", &[&self.unsqueeze(&positions, 1), &self.unsqueeze(&positions, 0)]);
        let last = offsets.last() as f64;
        let clipped = self.node("Clip", &[&offset, &self.number(-last), &self.number(last)]);
        let place = self.cast(&self.node("Add", &[&clipped, &self.number(last)]), DataType::Int64);
        let rows: Vec<i64> = offsets.rows().iter().map(|row| i64::from(*row)).collect();
        Ok(self.attributed("", "Gather", &[&self.integers(&rows), &place], vec![proto::int("axis", 0)]))
    }

    /// Returns the recorded graph with `value` as its output.
    pub(crate) fn finish(
        self,
        value: &Value,
        inputs: Vec<ValueInfoProto>,
        output: ValueInfoProto,
    ) -> Result<GraphProto> {
        let (mut first, mut tensors) = (Vec::new(), Vec::new());
        self.used(value);
        for (name, used) in self.parameters.borrow().iter() {
            let tensor = &used.tensor;
            match (used.plain.get(), used.transposed.get()) {
                (true, false) => tensors.push(stored(name, tensor)?),
                (false, true) => tensors.push(stored(&tensor_names::transposed(name), &transposed(tensor)?)?),
                // a tied matrix is stored once and transposed when the session folds constants
                (true, true) => {
                    tensors.push(stored(name, tensor)?);
                    first.push(transpose(name));
                }
                (false, false) => {}
            }
        }
        let mut graph = self.graph.into_inner();
        graph.output(&output.name, value);
        Ok(graph.finish("splade", inputs, vec![output], first, tensors))
    }

    pub(crate) fn node(&self, operator: &str, inputs: &[&Value]) -> Value {
        self.attributed("", operator, inputs, Vec::new())
    }

    fn scoped(&self, scope: &str, operator: &str, inputs: &[&Value]) -> Value {
        self.attributed(scope, operator, inputs, Vec::new())
    }

    pub(crate) fn attributed(
        &self,
        scope: &str,
        operator: &str,
        inputs: &[&Value],
        attributes: Vec<candle_onnx::onnx::AttributeProto>,
    ) -> Value {
        for input in inputs {
            self.used(input);
        }
        self.graph.borrow_mut().node(scope, operator, inputs, attributes)
    }

    pub(crate) fn reduce(&self, scope: &str, operator: &str, x: &Value, axis: i64, keep: bool) -> Value {
        self.used(x);
        self.graph.borrow_mut().reduce(scope, operator, x, axis, keep)
    }

    pub(crate) fn number(&self, value: f64) -> Value {
        self.graph.borrow_mut().number(value as f32)
    }

    fn integer(&self, value: i64) -> Value {
        self.graph.borrow_mut().integer(value)
    }

    pub(crate) fn integers(&self, values: &[i64]) -> Value {
        self.graph.borrow_mut().integers(values)
    }

    pub(crate) fn cast(&self, x: &Value, to: DataType) -> Value {
        self.attributed("", "Cast", &[x], vec![proto::int("to", i32::from(to).into())])
    }

    pub(crate) fn transpose(&self, x: &Value, order: &[i64]) -> Value {
        self.attributed("", "Transpose", &[x], vec![proto::ints("perm", order)])
    }

    fn unsqueeze(&self, x: &Value, axis: i64) -> Value {
        self.node("Unsqueeze", &[x, &self.integers(&[axis])])
    }

    pub(crate) fn reshape(&self, x: &Value, shape: &[i64]) -> Value {
        self.node("Reshape", &[x, &self.integers(shape)])
    }

    /// A parameter or constant with one axis.
    fn known_vector(&self, value: &Value) -> Option<Vec<f32>> {
        match self.parameters.borrow().get(value.name()) {
            Some(used) => used.tensor.to_vec1().ok(),
            None => self.graph.borrow().stored_vector(value),
        }
    }

    /// Records that a parameter is used with the axes of the checkpoint.
    fn used(&self, value: &Value) {
        if let Some(used) = self.parameters.borrow().get(value.name()) {
            used.plain.set(true);
        }
    }

    /// `matrix` `[out, in]` as the right factor `[in, out]` of a product, and the length of `out` if it is known.
    fn factor(&self, matrix: &Value) -> (Value, Option<usize>) {
        let parameters = self.parameters.borrow();
        let Some(used) = parameters.get(matrix.name()) else {
            return (self.transpose(matrix, &[1, 0]), None);
        };
        used.transposed.set(true);
        let out = used.tensor.dims().first().copied();
        (self.graph.borrow().named(&tensor_names::transposed(matrix.name()), out), out)
    }

    /// `[B, T]` of 0 and 1 as a condition `[B, T, 1]`.
    fn is_token(&self, mask: &Value) -> Value {
        self.cast(&self.unsqueeze(mask, 2), DataType::Bool)
    }
}

impl Recorder<'_> {
    fn merge_heads(&self, x: &Value, width: usize) -> Result<Value> {
        Ok(self.reshape(&self.transpose(x, &SPLIT), &[0, 0, width as i64]).with_width(Some(width)))
    }

    fn scores(&self, a: &Value, b: &Value, scale: f64) -> Result<Value> {
        // ONNX Runtime fuses the transpose and the scale into the product
        let product = self.node("MatMul", &[a, &self.transpose(b, &[0, 1, 3, 2])]);
        Ok(self.node("Mul", &[&product, &self.number(scale)]))
    }

    /// Multiplies each token with every row of the table once, `[B, H, T, N]`, and looks up the product for each pair
    /// of tokens. (Measured: with products of rows by offset, shifted into place, this takes up to twice the time of
    /// the whole attention.)
    fn relative_scores(
        &self,
        query: &Value,
        key: &Value,
        positions: &Value,
        offsets: &RelativeOffsets,
        scale: f64,
    ) -> Result<Value> {
        let (size, width) = query.width().zip(positions.width()).ok_or_else(|| Error::invalid("unknown width", ""))?;
        let heads = (width / (2 * size)) as i64;
        let by_head = self.transpose(&self.reshape(positions, &[0, heads, 2 * size as i64]), &[1, 0, 2]);
        let half = |start: usize| self.slice(&by_head, 2, start as i64, (start + size) as i64);
        let (position_query, position_key) = (self.affine(&half(0), scale, 0.0)?, half(size));
        let query = self.affine(query, scale, 0.0)?;

        // int32 halves the bytes that are read for every score
        let rows = self.cast(&self.relative_rows(offsets)?, DataType::Int32);
        let shape = self.concat(&[&self.row_count()?, &self.integers(&[heads]), &self.node("Shape", &[&rows])], 0);
        let rows = self.node("Expand", &[&rows, &shape]);
        let look_up = |products: &Value, axis| {
            self.attributed("", "GatherElements", &[products, &rows], vec![proto::int("axis", axis)])
        };
        let transposed_key = self.transpose(key, &[0, 1, 3, 2]);
        let content = self.node("MatMul", &[&query, &transposed_key]);
        let of_queries = look_up(&self.node("MatMul", &[&query, &self.transpose(&position_key, &[0, 2, 1])]), 3);
        // [B, H, N, T], so that the column of a key has its products
        let of_keys = look_up(&self.node("MatMul", &[&position_query, &transposed_key]), 2);
        let positional = self.node("Add", &[&of_queries, &of_keys]);
        Ok(self.node("Add", &[&content, &positional]))
    }

    /// A row without tokens gets a uniform distribution instead of zeros; its vector is 0 in either case.
    fn masked_softmax(&self, scores: &Value, allowed: &Value) -> Result<Value> {
        let masked = self.node("Add", &[scores, allowed]);
        Ok(self.attributed("", "Softmax", &[&masked], vec![proto::int("axis", -1)]))
    }

    fn matmul(&self, a: &Value, b: &Value) -> Result<Value> {
        Ok(self.node("MatMul", &[a, b]).with_width(b.width()))
    }
}

impl Algebra for Recorder<'_> {
    type Tensor = Value;
    type Error = Error;

    fn parameter(&self, name: &str, shape: &[usize], _: Init) -> Result<Value> {
        let tensor = self
            .weights
            .tensors()
            .get(name)
            .ok_or_else(|| Error::invalid(format!("parameter {name} is missing"), ""))?;
        if tensor.dims() != shape {
            let message = format!("parameter {name} has shape {:?}, not {shape:?}", tensor.dims());
            return Err(Error::invalid(message, ""));
        }
        let unused = || Use { tensor: tensor.clone(), plain: Cell::new(false), transposed: Cell::new(false) };
        self.parameters.borrow_mut().entry(name.to_owned()).or_insert_with(unused);
        Ok(self.graph.borrow().named(name, shape.last().copied()))
    }

    fn has(&self, name: &str) -> bool {
        self.weights.tensors().contains_key(name)
    }

    fn embed(&self, table: &Value, ids: &Value) -> Result<Value> {
        let rows = self.attributed(scope(table), "Gather", &[table, ids], vec![proto::int("axis", 0)]);
        Ok(rows.with_width(table.width()))
    }

    fn positions(&self, ids: &Value, positions: Positions) -> Result<Value> {
        match positions {
            Positions::FromZero => {
                let one = self.integer(1);
                let shape = self.node("Shape", &[ids]);
                let tokens = self.attributed("", "Gather", &[&shape, &one], vec![proto::int("axis", 0)]);
                let zero = self.integer(0);
                let positions = self.unsqueeze(&self.node("Range", &[&zero, &tokens, &one]), 0);
                // a range has no name for its length, and without a name the skip connections after it are not fused
                self.graph.borrow_mut().state(&positions, DataType::Int64, &[Axis::Fixed(1), TOKENS]);
                Ok(positions)
            }
            Positions::AfterPadding { pad } => {
                let (pad, axis) = (self.integer(pad.into()), self.integer(1));
                // counted in floats, which every runtime can sum and which are exact up to 2^24
                let counted = self.cast(&self.node("Not", &[&self.node("Equal", &[ids, &pad])]), DataType::Float);
                let count = self.node("Mul", &[&self.node("CumSum", &[&counted, &axis]), &counted]);
                let count = self.cast(&count, DataType::Int64);
                Ok(self.node("Add", &[&count, &pad]))
            }
        }
    }

    fn first_row(&self, table: &Value) -> Result<Value> {
        let first = self.integers(&[0]);
        Ok(self.attributed("", "Gather", &[table, &first], vec![proto::int("axis", 0)]).with_width(table.width()))
    }

    fn constant(&self, values: Vec<f32>, shape: &[usize]) -> Result<Value> {
        Ok(self.graph.borrow_mut().tensor(&values, shape).with_width(shape.last().copied()))
    }

    fn element(&self, vector: &Value, index: usize) -> Result<Value> {
        Ok(self.slice(vector, 0, index as i64, index as i64 + 1).with_width(Some(1)))
    }

    fn add(&self, a: &Value, b: &Value) -> Result<Value> {
        // the sum of two constant vectors is computed here
        if let (Some(a), Some(b)) = (self.known_vector(a), self.known_vector(b))
            && a.len() == b.len()
        {
            let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            return self.constant(sums, &[a.len()]);
        }
        let width = a.width().zip(b.width()).map(|(a, b)| a.max(b));
        Ok(self.node("Add", &[a, b]).with_width(width))
    }

    fn mul(&self, a: &Value, b: &Value) -> Result<Value> {
        let width = a.width().zip(b.width()).map(|(a, b)| a.max(b));
        Ok(self.node("Mul", &[a, b]).with_width(width))
    }

    fn affine(&self, x: &Value, scale: f64, shift: f64) -> Result<Value> {
        let scaled = if scale == 1.0 { x.clone() } else { self.node("Mul", &[x, &self.number(scale)]) };
        let shifted = if shift == 0.0 { scaled } else { self.node("Add", &[&scaled, &self.number(shift)]) };
        Ok(shifted.with_width(x.width()))
    }

    /// Each part of a dense layer's output becomes a separate layer: the matrix is sliced once, at load.
    fn split(&self, x: &Value, parts: usize) -> Result<Vec<Value>> {
        let width = x.width().ok_or_else(|| Error::invalid("a value of unknown width cannot be split", ""))?;
        let size = width / parts;
        let layer = self.layers.borrow().get(x.name()).cloned();
        let part = |start: usize| match &layer {
            None => self.slice(x, -1, start as i64, (start + size) as i64).with_width(Some(size)),
            Some(Layer { x, scope, factor, bias }) => {
                let product = self.scoped(scope, "MatMul", &[x, &self.columns(factor, start, start + size)]);
                let bias = bias.as_ref().map(|bias| self.slice(bias, 0, start as i64, (start + size) as i64));
                let sum = bias.map_or_else(|| product.clone(), |bias| self.scoped(scope, "Add", &[&product, &bias]));
                sum.with_width(Some(size))
            }
        };
        Ok((0..parts).map(|at| part(at * size)).collect())
    }

    fn per_head(&self, x: &Value) -> Result<Value> {
        Ok(self.unsqueeze(x, 1).with_width(x.width()))
    }

    fn linear(&self, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
        let (factor, out) = self.factor(weight);
        let product = self.scoped(scope(weight), "MatMul", &[x, &factor]);
        let sum = match bias {
            None => product,
            Some(bias) => self.scoped(scope(weight), "Add", &[&product, bias]),
        };
        if out.is_some() {
            let layer = Layer { x: x.clone(), scope: scope(weight).to_owned(), factor, bias: bias.cloned() };
            self.layers.borrow_mut().insert(sum.name().to_owned(), layer);
        }
        Ok(sum.with_width(out))
    }

    fn layer_norm(&self, x: &Value, weight: Option<&Value>, bias: Option<&Value>, eps: f64) -> Result<Value> {
        let at = weight.map_or("", scope);
        let mean = self.reduce(at, "ReduceMean", x, -1, true);
        let centered = self.scoped(at, "Sub", &[x, &mean]);
        let squared = self.scoped(at, "Pow", &[&centered, &self.number(2.0)]);
        let variance = self.reduce(at, "ReduceMean", &squared, -1, true);
        let deviation = self.scoped(at, "Sqrt", &[&self.scoped(at, "Add", &[&variance, &self.number(eps)])]);
        let normed = self.scoped(at, "Div", &[&centered, &deviation]);
        // the fused operator needs a weight and a bias: the defaults are ones and zeros
        let filled = |value: f32| x.width().map(|width| self.graph.borrow_mut().filled(value, width));
        let normed = match weight.cloned().or_else(|| filled(1.0)) {
            None => normed,
            Some(weight) => self.scoped(at, "Mul", &[&normed, &weight]),
        };
        let normed = match bias.cloned().or_else(|| filled(0.0)) {
            None => normed,
            Some(bias) => self.scoped(at, "Add", &[&normed, &bias]),
        };
        Ok(normed.with_width(x.width()))
    }

    fn activate(&self, x: &Value, activation: Activation) -> Result<Value> {
        let activated = match activation {
            Activation::Gelu => self.gelu(x),
            Activation::GeluTanh => self.gelu_tanh(x),
            Activation::Relu => self.node("Relu", &[x]),
            Activation::Tanh => self.node("Tanh", &[x]),
            Activation::Sigmoid => self.node("Sigmoid", &[x]),
            // the argument is always a parameter, so that exp cannot overflow
            Activation::Softplus => {
                self.node("Log", &[&self.node("Add", &[&self.node("Exp", &[x]), &self.number(1.0)])])
            }
        };
        Ok(activated.with_width(x.width()))
    }

    fn dropout(&self, x: &Value, _: f64) -> Result<Value> {
        Ok(x.clone())
    }

    fn split_heads(&self, x: &Value, heads: usize, size: usize) -> Result<Value> {
        let split = self.reshape(x, &[0, 0, heads as i64, size as i64]);
        Ok(self.transpose(&split, &SPLIT).with_width(Some(size)))
    }

    fn rope(&self, x: &Value, theta: f64) -> Result<Value> {
        let size = x.width().ok_or_else(|| Error::invalid("a value of unknown width cannot be rotated", ""))?;
        let half = size / 2;
        let frequency = |at: usize| theta.powf(-2.0 * (at % half.max(1)) as f64 / size as f64) as f32;
        let frequencies = self.constant((0..size).map(frequency).collect(), &[1, size])?;
        let zero = self.integer(0);
        let positions = self.unsqueeze(&self.range(&zero, &self.tokens()?), 1);
        let angles = self.node("Mul", &[&positions, &frequencies]);
        let halves = self.split(x, 2)?;
        let rotated = self.concat(&[&self.node("Neg", &[&halves[1]]), &halves[0]], -1);
        let along = self.node("Mul", &[x, &self.node("Cos", &[&angles])]);
        let across = self.node("Mul", &[&rotated, &self.node("Sin", &[&angles])]);
        Ok(self.node("Add", &[&along, &across]).with_width(x.width()))
    }

    /// Mask to add to the scores, `[B, 1, 1, T]`, with a window `[B, 1, T, T]`: 0 for allowed keys, [`LOW`] or less for
    /// others.
    fn allowed_keys(&self, mask: &Value, window: Option<usize>) -> Result<Value> {
        let mask = self.cast(&self.unsqueeze(&self.unsqueeze(mask, 1), 2), DataType::Float);
        let low = |allowed: &Value| {
            self.node("Mul", &[&self.node("Sub", &[&self.number(1.0), allowed]), &self.number(LOW.into())])
        };
        let Some(window) = window else { return Ok(low(&mask)) };
        let zero = self.integer(0);
        let positions = self.range(&zero, &self.tokens()?);
        let apart = self.node("Sub", &[&self.unsqueeze(&positions, 1), &self.unsqueeze(&positions, 0)]);
        let distance = self.node("Abs", &[&apart]);
        let near = self.node("LessOrEqual", &[&distance, &self.number(window as f64)]);
        let near = self.cast(&near, DataType::Float);
        Ok(self.node("Add", &[&low(&mask), &low(&near)]))
    }

    fn attention(&self, inputs: AttentionInputs<'_, Value>, settings: &AttentionSettings<'_>) -> Result<Value> {
        let AttentionInputs { query, key, value, positions, allowed } = inputs;
        let scores = match (positions, settings.offsets) {
            (Some(positions), Some(offsets)) => self.relative_scores(query, key, positions, offsets, settings.scale)?,
            _ => self.scores(query, key, settings.scale)?,
        };
        let probabilities = self.masked_softmax(&scores, allowed)?;
        self.merge_heads(&self.matmul(&probabilities, value)?, settings.width)
    }

    /// Excludes padding without a pass over the logits: a padding position gets the features of the row's first token, which
    /// is in the maximum already.
    fn max_logits(&self, features: &Value, weight: &Value, bias: &Value, mask: &Value) -> Result<Value> {
        *self.output_layer.borrow_mut() = Some([features, weight, bias].map(|value| value.name().to_owned()));
        let first = self.attributed("", "Gather", &[features, &self.integers(&[0])], vec![proto::int("axis", 1)]);
        let features = self.node("Where", &[&self.is_token(mask), features, &first]);
        let largest = self.plain_logits(&features, weight, bias);
        let has_token = self.cast(&self.reduce("", "ReduceMax", mask, 1, true), DataType::Bool);
        Ok(self.node("Where", &[&has_token, &largest, &self.number(0.0)]).with_width(largest.width()))
    }

    fn followed(&self, mask: &Value) -> Result<Value> {
        let zero = self.integer(0);
        let end = self.node("Mul", &[&self.slice(mask, 1, 0, 1), &zero]);
        Ok(self.slice(&self.concat(&[mask, &end], 1), 1, 1, i64::MAX))
    }

    fn has_token(&self, mask: &Value) -> Result<Value> {
        Ok(self.cast(&self.reduce("", "ReduceMax", mask, 1, true), DataType::Float))
    }

    fn shift_right(&self, x: &Value, first: &Value) -> Result<Value> {
        let row = self.unsqueeze(&self.unsqueeze(first, 0), 0);
        let rows = self.slice(&self.node("Shape", &[x]), 0, 0, 1);
        let rows = self.node("Expand", &[&row, &self.concat(&[&rows, &self.integers(&[1, 1])], 0)]);
        Ok(self.slice(&self.concat(&[&rows, x], 1), 1, 0, -1).with_width(x.width()))
    }

    fn log1p_relu(&self, x: &Value) -> Result<Value> {
        let positive = self.node("Relu", &[x]);
        Ok(self.node("Log", &[&self.node("Add", &[&positive, &self.number(1.0)])]).with_width(x.width()))
    }

    /// Sum as a product with the mask as a row vector: one pass over `[B, T, V]`.
    fn masked_sum(&self, x: &Value, mask: &Value) -> Result<Value> {
        let row = self.cast(&self.unsqueeze(mask, 1), DataType::Float);
        let sum = self.node("MatMul", &[&row, x]);
        Ok(self.node("Squeeze", &[&sum, &self.integers(&[1])]).with_width(x.width()))
    }
}

impl Recorder<'_> {
    /// Largest logits `[B, V]`. The bias is added after the maximum, which saves a pass over `[B, T, V]`.
    ///
    /// Parts of [`HEAD_COLUMNS`] terms are reduced while they are in the cache, so that `[B, T, V]` is never in memory.
    fn plain_logits(&self, features: &Value, weight: &Value, bias: &Value) -> Value {
        let (factor, out) = self.factor(weight);
        let largest_of = |factor: &Value| {
            let logits = self.scoped(scope(weight), "MatMul", &[features, factor]);
            self.reduce("", "ReduceMax", &logits, 1, false)
        };
        let largest = match out {
            Some(terms) if terms > HEAD_COLUMNS => {
                let starts = (0..terms).step_by(HEAD_COLUMNS);
                let parts: Vec<Value> = starts
                    .map(|start| largest_of(&self.columns(&factor, start, (start + HEAD_COLUMNS).min(terms))))
                    .collect();
                self.concat(&parts.iter().collect::<Vec<_>>(), 1)
            }
            _ => largest_of(&factor),
        };
        self.node("Add", &[&largest, bias]).with_width(out)
    }
}

/// `[B, T, H, d]` to `[B, H, T, d]` and back.
const SPLIT: [i64; 4] = [0, 2, 1, 3];

impl Recorder<'_> {
    /// `x/2 · (1 + erf(x/√2))`
    fn gelu(&self, x: &Value) -> Value {
        let erf = self.node("Erf", &[&self.node("Div", &[x, &self.number(std::f64::consts::SQRT_2)])]);
        let twice = self.node("Mul", &[x, &self.node("Add", &[&erf, &self.number(1.0)])]);
        self.node("Mul", &[&twice, &self.number(0.5)])
    }

    /// `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`
    fn gelu_tanh(&self, x: &Value) -> Value {
        let half = self.node("Mul", &[x, &self.number(0.5)]);
        let cube = self.node("Mul", &[&self.node("Pow", &[x, &self.number(3.0)]), &self.number(0.044715)]);
        let inner = self.node("Add", &[x, &cube]);
        let inner = self.node("Mul", &[&inner, &self.number((2.0 / std::f64::consts::PI).sqrt())]);
        let tanh = self.node("Add", &[&self.node("Tanh", &[&inner]), &self.number(1.0)]);
        self.node("Mul", &[&half, &tanh])
    }
}

/// Scope of a parameter in the model: its name without the last part.
fn scope(parameter: &Value) -> &str {
    parameter.name().rsplit_once('.').map_or("", |(scope, _)| scope)
}

fn transposed(tensor: &Tensor) -> Result<Tensor> {
    tensor.t().and_then(|tensor| tensor.contiguous()).map_err(failed)
}

/// Node that transposes a stored parameter.
fn transpose(name: &str) -> NodeProto {
    NodeProto {
        name: format!("{name}/Transpose"),
        op_type: "Transpose".to_owned(),
        input: vec![name.to_owned()],
        output: vec![tensor_names::transposed(name)],
        attribute: vec![proto::ints("perm", &[1, 0])],
        ..Default::default()
    }
}

fn stored(name: &str, tensor: &Tensor) -> Result<TensorProto> {
    let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>()).map_err(failed)?;
    Ok(proto::f32_tensor(name, tensor.dims(), &values))
}

pub(crate) fn failed(error: candle_core::Error) -> Error {
    splade_trainer::Error::from(error).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{DType, Device};
    use splade_trainer::model::Candle;

    use super::*;
    use crate::proto::ROWS;

    /// The operations no family with a golden uses yet, one after the other.
    fn odd_ones<A: Algebra>(a: &A, ids: &A::Tensor, mask: &A::Tensor) -> std::result::Result<A::Tensor, A::Error> {
        let init = Init::Zeros;
        let table = a.parameter("table.weight", &[6, 4], init)?;
        let square = a.parameter("square.weight", &[4, 4], init)?;
        let x = a.add(&a.embed(&table, ids)?, &a.first_row(&table)?)?;
        let x = a.layer_norm(&x, None, None, 1e-5)?;
        let x = a.activate(&a.linear(&x, &square, None)?, Activation::GeluTanh)?;
        // a weight that is itself computed
        let computed = a.activate(&square, Activation::Relu)?;
        let x = a.add(&x, &a.linear(&x, &computed, None)?)?;
        let heads = a.activate(&a.split_heads(&x, 2, 2)?, Activation::Gelu)?;
        let allowed = a.allowed_keys(mask, Some(1))?;
        let x = a.attention(
            AttentionInputs { query: &heads, key: &heads, value: &heads, positions: None, allowed: &allowed },
            &AttentionSettings { scale: 0.7, dropout: 0.0, width: 4, offsets: None },
        )?;
        a.masked_sum(&a.log1p_relu(&x)?, mask)
    }

    #[test]
    fn operations_without_a_family_agree_with_candle() {
        let number = |seed: usize| move |at: usize| (((at * 7 + seed) % 11) as f32 - 5.0) / 4.0;
        let tensor = |rows: usize, seed| {
            Tensor::from_vec((0..rows * 4).map(number(seed)).collect::<Vec<f32>>(), (rows, 4), &Device::Cpu).unwrap()
        };
        let parameters =
            BTreeMap::from([("table.weight".to_owned(), tensor(6, 1)), ("square.weight".to_owned(), tensor(4, 3))]);
        let weights = Weights::from_tensors(parameters);
        let ids = Tensor::from_vec(vec![1_u32, 2, 3, 5, 4, 0], (2, 3), &Device::Cpu).unwrap();
        let mask = Tensor::from_vec(vec![1_u8, 1, 1, 1, 1, 0], (2, 3), &Device::Cpu).unwrap();
        let a = Candle::new(weights.tensors(), &Device::Cpu);
        let expected = odd_ones(&a, &ids, &mask).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let recorder = Recorder::new(&weights, 17);
        let value = odd_ones(&recorder, &recorder.input("ids"), &recorder.input("mask")).unwrap();
        let inputs = ["ids", "mask"].map(|name| proto::value_info(name, DataType::Int64, &[ROWS, TOKENS]));
        let output = proto::value_info("sums", DataType::Float, &[ROWS, Axis::Fixed(4)]);
        let graph = recorder.finish(&value, inputs.to_vec(), output).unwrap();
        let model = proto::model(graph, &crate::Options::default());
        let inputs = [("ids", ids), ("mask", mask)]
            .map(|(name, tensor)| (name.to_owned(), tensor.to_dtype(DType::I64).unwrap()));
        let found = candle_onnx::simple_eval(&model, HashMap::from(inputs)).unwrap();
        let found = found["sums"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found.len(), 8);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_matrix_used_both_ways_is_stored_once() {
        let matrix = Tensor::zeros((6, 4), DType::F32, &Device::Cpu).unwrap();
        let weights = Weights::from_tensors(BTreeMap::from([("table.weight".to_owned(), matrix)]));
        let recorder = Recorder::new(&weights, 17);
        let table = recorder.parameter("table.weight", &[6, 4], Init::Zeros).unwrap();
        let x = recorder.embed(&table, &recorder.input("ids")).unwrap();
        let value = recorder.linear(&x, &table, None).unwrap();
        let output = proto::value_info("out", DataType::Float, &[ROWS, TOKENS, Axis::Fixed(6)]);
        let graph = recorder.finish(&value, vec![], output).unwrap();
        assert_eq!(graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["table.weight"]);
        let operators: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(operators, ["Transpose", "Gather", "MatMul", "Identity"]);
    }

    #[test]
    fn a_parameter_of_another_shape_is_named() {
        let matrix = Tensor::zeros((6, 4), DType::F32, &Device::Cpu).unwrap();
        let weights = Weights::from_tensors(BTreeMap::from([("table.weight".to_owned(), matrix)]));
        let recorder = Recorder::new(&weights, 17);
        let error = recorder.parameter("table.weight", &[6, 5], Init::Zeros).unwrap_err();
        assert_eq!(error.to_string(), "parameter table.weight has shape [6, 4], not [6, 5]");
        assert!(recorder.parameter("other", &[1], Init::Zeros).is_err());
    }
}
