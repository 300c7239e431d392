//! Conversion to int8: products with weights of a recorded graph become integer products.
//!
//! The conversion needs no data. A weight matrix has one scale per output channel; activations get a scale while the model
//! runs. The graph has standard operators in the form that ONNX Runtime's optimizer fuses to one kernel per linear layer
//! (`DynamicQuantizeMatMul`, `MatMulIntegerToFloat`).
//!
//! * **Codes that fit everywhere.** Processors without VNNI add the products of two adjacent weights in 16 bits, where
//!   255·127 + 255·127 overflows. The usual remedy is seven bits for every weight. Here two adjacent weights of one sign add
//!   up to at most 128, which costs a fraction of a bit, and every processor computes the same integers.
//! * **The SPLADE head** takes its maximum over the integers. The activations of a text share one positive scale, so
//!   that the largest product is the largest logit, and only `[B, V]` is converted to floats. The scale is that of the
//!   text, not of the batch.
//! * **The embedding table** is stored as codes if the head is quantized from it or if it is large. Rows are converted to
//!   floats when they are looked up.
//! * **The layer before the output matrix** stays f32: measured on `splade-tiny`, it has 0.4 % of the work and caused
//!   half of the error.
//!
//! A linear layer has one scale for its whole input, so that the vector of a text depends a little on the other texts of its
//! batch. A scale per token would cost three passes over every output.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};

use splade_encode::tensor_names;

use crate::proto;
use crate::{Error, Result};

/// Largest code of a weight.
const MOST: u8 = 127;
/// Largest sum of the codes of two adjacent weights of one sign: 255·128 fits 16 bits.
const PAIR: f32 = 128.0;
/// Step by which the largest code of a channel is reduced until no pair is too large; at 64 no pair can be.
const STEP: usize = 3;
/// Number of rows from which a table is stored as codes without a product that uses it: vocabularies, not positions.
const LARGE_TABLE: i64 = 4096;
/// Code of 0 in activations of the head, which are u8.
const MIDDLE: u8 = 128;
/// Largest distance of a code from [`MIDDLE`].
const REACH: f32 = 127.0;
/// Lower bound of a text's largest feature, so that the scale of a text of zeros is not 0.
const LEAST: f32 = 1e-30;

/// Converts every product with a constant matrix to an integer product; all other nodes stay f32.
///
/// # Errors
/// A weight that is not finite, by name.
pub(crate) fn quantize(mut model: ModelProto) -> Result<ModelProto> {
    let opset = model.opset_import.iter().map(|set| set.version).max().unwrap_or_default();
    if let Some(graph) = model.graph.take() {
        let mut quantizer = Quantizer::new(&graph, opset);
        quantizer.rewrite()?;
        let (nodes, tensors) = (quantizer.nodes, quantizer.tensors);
        model.graph = Some(without_unused(graph, nodes, tensors));
    }
    Ok(model)
}

/// A constant matrix stored as codes: the tensor, and the axis of its channels (0: rows, 1: columns).
type Codes = (String, usize);

/// Path of a constant matrix to a product.
#[derive(Clone)]
struct Factor {
    codes: Codes,
    /// the nodes between, from the tensor to the product: `Transpose`, and `Slice` along the channels
    path: Vec<usize>,
}

/// Replacement of a node.
enum Form {
    /// a product with a constant matrix
    Linear(Factor),
    /// product of which only the maximum over tokens is used; the index of the maximum's node, and true if the maximum stays
    /// an integer
    Head(Factor, usize, bool),
    /// concatenation of such maxima, by their products
    Joined(Vec<usize>),
    /// rows of a table that is stored as codes
    Rows(Codes),
}

/// Reads one graph and writes the other.
struct Quantizer<'g> {
    graph: &'g GraphProto,
    opset: i64,
    stored: HashMap<&'g str, &'g TensorProto>,
    /// the node that makes a value
    maker: HashMap<&'g str, usize>,
    /// the nodes that read a value, and one more for an output of the graph
    readers: HashMap<&'g str, Vec<usize>>,
    nodes: Vec<NodeProto>,
    /// new initializers by name
    tensors: BTreeMap<String, TensorProto>,
    /// values made by nodes written once for several readers
    made: HashSet<String>,
}

impl<'g> Quantizer<'g> {
    fn new(graph: &'g GraphProto, opset: i64) -> Self {
        let mut maker = HashMap::new();
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, node) in graph.node.iter().enumerate() {
            maker.extend(node.output.iter().map(|output| (output.as_str(), at)));
            for input in &node.input {
                readers.entry(input).or_default().push(at);
            }
        }
        for output in &graph.output {
            readers.entry(&output.name).or_default().push(usize::MAX);
        }
        Self {
            graph,
            opset,
            stored: graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            maker,
            readers,
            nodes: Vec::with_capacity(graph.node.len()),
            tensors: BTreeMap::new(),
            made: HashSet::new(),
        }
    }

    fn rewrite(&mut self) -> Result<()> {
        let forms = self.forms();
        let heads: HashSet<usize> = forms
            .values()
            .filter_map(|form| if let Form::Head(_, maximum, _) = form { Some(*maximum) } else { None })
            .collect();
        let graph = self.graph;
        for (at, node) in graph.node.iter().enumerate() {
            match forms.get(&at) {
                Some(Form::Linear(factor)) => self.linear(node, factor)?,
                Some(Form::Head(factor, maximum, whole)) => self.head(node, &graph.node[*maximum], factor, *whole)?,
                Some(Form::Joined(products)) => {
                    let factors = products.iter().filter_map(|at| match &forms[at] {
                        Form::Head(factor, ..) => Some(factor),
                        _ => None,
                    });
                    self.joined(node, &graph.node[products[0]].input[0], &factors.collect::<Vec<_>>())?;
                }
                Some(Form::Rows(codes)) => self.rows(node, codes)?,
                // what stood here is written with its product
                None if heads.contains(&at) => {}
                None => self.nodes.push(node.clone()),
            }
        }
        Ok(())
    }

    /// Replacements of nodes by index.
    fn forms(&self) -> HashMap<usize, Form> {
        let (constants, before_last) = (self.constants(), self.before_last());
        let mut forms = HashMap::new();
        for (at, node) in self.graph.node.iter().enumerate().filter(|(_, node)| node.op_type == "MatMul") {
            // values that do not depend on the texts are computed once, at load
            if constants.contains(node.input[0].as_str()) || before_last.contains(&at) {
                continue;
            }
            let Some(factor) = self.factor(&node.input[1]) else { continue };
            let form = match self.maximum(node) {
                Some(maximum) => Form::Head(factor, maximum, false),
                None => Form::Linear(factor),
            };
            forms.insert(at, form);
        }
        self.join_parts(&mut forms);
        let quantized: HashSet<String> = forms
            .values()
            .filter_map(|form| match form {
                Form::Linear(Factor { codes: (tensor, 0), .. }) | Form::Head(Factor { codes: (tensor, 0), .. }, ..) => {
                    Some(tensor.clone())
                }
                _ => None,
            })
            .collect();
        for (at, node) in self.graph.node.iter().enumerate().filter(|(_, node)| node.op_type == "Gather") {
            let Some(table) = self.matrix(&node.input[0]).filter(|_| number(node, "axis") == Some(0)) else { continue };
            let worth_it = quantized.contains(&table.name) || table.dims[0] >= LARGE_TABLE;
            if worth_it && !constants.contains(node.input[1].as_str()) {
                forms.insert(at, Form::Rows((table.name.clone(), 0)));
            }
        }
        forms
    }

    /// Finds a head in parts: maxima that are only concatenated are converted to floats together.
    fn join_parts(&self, forms: &mut HashMap<usize, Form>) {
        let products: HashMap<usize, usize> = (forms.iter())
            .filter_map(|(at, form)| if let Form::Head(_, maximum, _) = form { Some((*maximum, *at)) } else { None })
            .collect();
        for (at, node) in self.graph.node.iter().enumerate() {
            if node.op_type != "Concat" || number(node, "axis") != Some(1) {
                continue;
            }
            let product = |input: &String| {
                let maximum = self.maker.get(input.as_str())?;
                let only = self.readers.get(input.as_str())?.as_slice() == [at];
                products.get(maximum).filter(|_| only).copied()
            };
            let Some(parts) = node.input.iter().map(product).collect::<Option<Vec<usize>>>() else { continue };
            let features = |part: &usize| &self.graph.node[*part].input[0];
            if parts.iter().any(|part| features(part) != features(&parts[0])) {
                continue;
            }
            for part in &parts {
                if let Some(Form::Head(_, _, whole)) = forms.get_mut(part) {
                    *whole = true;
                }
            }
            forms.insert(at, Form::Joined(parts));
        }
    }

    /// Values that do not depend on the texts.
    fn constants(&self) -> HashSet<&'g str> {
        let mut constants: HashSet<&str> = self.stored.keys().copied().collect();
        for node in &self.graph.node {
            if node.input.iter().all(|input| constants.contains(input.as_str())) {
                constants.extend(node.output.iter().map(String::as_str));
            }
        }
        constants
    }

    /// Products with constant matrices that are followed only by the last products.
    fn before_last(&self) -> HashSet<usize> {
        // the next products after a value, and the next products after a product
        let mut reached: HashMap<&str, BTreeSet<usize>> = HashMap::new();
        let mut after: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (at, node) in self.graph.node.iter().enumerate().rev() {
            let mut first: BTreeSet<usize> =
                node.output.iter().filter_map(|output| reached.get(output.as_str())).flatten().copied().collect();
            if node.op_type == "MatMul" && self.factor(&node.input[1]).is_some() {
                after.insert(at, std::mem::replace(&mut first, BTreeSet::from([at])));
            }
            for input in &node.input {
                reached.entry(input).or_default().extend(&first);
            }
        }
        let is_last = |at: &usize| after[at].is_empty();
        after.iter().filter(|(_, next)| !next.is_empty() && next.iter().all(is_last)).map(|(at, _)| *at).collect()
    }

    /// A stored f32 matrix.
    fn matrix(&self, name: &str) -> Option<&'g TensorProto> {
        let tensor = self.stored.get(name)?;
        (tensor.data_type == i32::from(DataType::Float) && tensor.dims.len() == 2).then_some(*tensor)
    }

    /// Stored matrix behind the right factor of a product, with only `Transpose` and `Slice` between.
    fn factor(&self, name: &str) -> Option<Factor> {
        // the channels are the columns of the right factor
        let (mut name, mut axis, mut path) = (name, 1, Vec::new());
        while !self.stored.contains_key(name) {
            let at = *self.maker.get(name)?;
            let node = &self.graph.node[at];
            match node.op_type.as_str() {
                "Transpose" if numbers(node, "perm") == [1, 0] => axis = 1 - axis,
                "Slice" if self.slices(node, axis) => {}
                _ => return None,
            }
            path.push(at);
            name = &node.input[0];
        }
        path.reverse();
        Some(Factor { codes: (self.matrix(name)?.name.clone(), axis), path })
    }

    /// True if a `Slice` with constant bounds takes whole channels of a matrix.
    fn slices(&self, node: &NodeProto, channels: usize) -> bool {
        let bounds: Option<Vec<Vec<i64>>> = node.input[1..].iter().map(|name| self.integers(name)).collect();
        match bounds.as_deref() {
            Some([_, _, axes]) => *axes == [channels as i64],
            Some([_, _, axes, steps]) => *axes == [channels as i64] && *steps == [1],
            _ => false,
        }
    }

    /// A stored vector of integers.
    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.stored.get(name).filter(|tensor| tensor.data_type == i32::from(DataType::Int64))?;
        Some(tensor.raw_data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// Index of the `ReduceMax` over tokens, `[B, T, V]` to `[B, V]`, if it is the only reader of a product.
    fn maximum(&self, product: &NodeProto) -> Option<usize> {
        let &[at] = self.readers.get(product.output[0].as_str())?.as_slice() else { return None };
        let node = self.graph.node.get(at).filter(|node| node.op_type == "ReduceMax")?;
        let axes = node.input.get(1).map_or_else(|| Some(numbers(node, "axes")), |axes| self.integers(axes))?;
        (axes == [1] && number(node, "keepdims") == Some(0)).then_some(at)
    }

    /// `x·W` as `(x′·W′)·(scale of x · scales of W)`.
    fn linear(&mut self, node: &NodeProto, factor: &Factor) -> Result<()> {
        let (codes, scales) = self.weights(factor)?;
        let [x, scale, zero] = self.activations(&node.input[0]);
        let product = self.node(node, "MatMulInteger", &[&x, &codes, &zero]);
        self.scaled(node, &product, &scale, &scales);
        Ok(())
    }

    /// Writes a product with the maximum between the product and the scales, which a later node may apply.
    fn head(&mut self, node: &NodeProto, maximum: &NodeProto, factor: &Factor, whole: bool) -> Result<()> {
        let (codes, scales) = self.weights(factor)?;
        let [x, scale, zero] = self.text_activations(&node.input[0]);
        let product = self.node(node, "MatMulInteger", &[&x, &codes, &zero]);
        let largest = self.reduced(maximum, &product, &[1]);
        if whole {
            self.nodes.last_mut().into_iter().for_each(|node| node.output = vec![maximum.output[0].clone()]);
        } else {
            self.scaled(maximum, &largest, &scale, &scales);
        }
        Ok(())
    }

    /// Writes the concatenation of maxima, then their scales.
    fn joined(&mut self, node: &NodeProto, features: &str, factors: &[&Factor]) -> Result<()> {
        let mut scales = Vec::with_capacity(factors.len());
        for factor in factors {
            scales.push(self.weights(factor)?.1);
        }
        let [_, scale, _] = self.text_activations(features);
        let largest = self.add(NodeProto { name: format!("{}/codes", node.name), ..node.clone() });
        let scales = self.add(NodeProto {
            name: format!("{}/scales", node.name),
            input: scales,
            attribute: vec![proto::int("axis", 0)],
            ..node.clone()
        });
        self.scaled(node, &largest, &scale, &scales);
        Ok(())
    }

    /// Writes integers times both scales, under the output name of `site`.
    fn scaled(&mut self, site: &NodeProto, x: &str, scale: &str, scales: &str) {
        let x = self.float(site, x);
        let scales = self.node(site, "Mul", &[scale, scales]);
        self.named(site, "Mul", &[&x, &scales], &site.output[0]);
    }

    /// Writes a lookup in a table of codes, times the scales of the rows.
    fn rows(&mut self, node: &NodeProto, table: &Codes) -> Result<()> {
        let (codes, scales) = self.store(table)?;
        let row = |codes: &str| NodeProto { input: vec![codes.to_owned(), node.input[1].clone()], ..node.clone() };
        let rows = self.add(NodeProto { name: format!("{}/codes", node.name), ..row(&codes) });
        let rows = self.float(node, &rows);
        let scales = self.add(NodeProto { name: format!("{}/scales", node.name), ..row(&scales) });
        let last = self.integer_vector(&[-1]);
        let scales = self.node(node, "Unsqueeze", &[&scales, &last]);
        self.named(node, "Mul", &[&rows, &scales], &node.output[0]);
        Ok(())
    }

    /// Codes and scales of a right factor, after the nodes between the stored matrix and the product.
    fn weights(&mut self, factor: &Factor) -> Result<(String, String)> {
        let (mut codes, mut scales) = self.store(&factor.codes)?;
        let graph = self.graph;
        for &at in &factor.path {
            let node = &graph.node[at];
            codes = self.again(node, "int8", &codes, node.input[1..].to_vec());
            if node.op_type == "Slice" {
                let mut bounds = node.input[1..].to_vec();
                bounds[2] = self.integer_vector(&[0]);
                scales = self.again(node, "scales", &scales, bounds);
            }
        }
        Ok((codes, scales))
    }

    /// Writes a copy of a node with another input, once for all its readers.
    fn again(&mut self, node: &NodeProto, what: &str, input: &str, others: Vec<String>) -> String {
        let output = format!("{}.{what}", node.output[0]);
        if self.made.insert(output.clone()) {
            self.nodes.push(NodeProto {
                name: format!("{}/{what}", node.name),
                input: std::iter::once(input.to_owned()).chain(others).collect(),
                output: vec![output.clone()],
                ..node.clone()
            });
        }
        output
    }

    /// Names of the stored codes and scales of a matrix.
    fn store(&mut self, (name, axis): &Codes) -> Result<(String, String)> {
        // a matrix whose rows and columns are both used as channels is stored twice
        let channels = if *axis == 0 { tensor_names::Channels::Rows } else { tensor_names::Channels::Columns };
        let (codes, scales) = (tensor_names::codes(name, channels), tensor_names::scales(name, channels));
        if !self.tensors.contains_key(&codes) {
            let tensor = self.stored[name.as_str()];
            let shape: Vec<usize> = tensor.dims.iter().map(|&length| length as usize).collect();
            let values = proto::f32_values(tensor);
            let channels = Channels::of(&values, shape[1], *axis)
                .ok_or_else(|| Error::invalid(format!("parameter {name} is not finite"), "it cannot be quantized"))?;
            self.tensors.insert(codes.clone(), proto::i8_tensor(&codes, &shape, &channels.codes));
            self.tensors.insert(scales.clone(), proto::f32_tensor(&scales, &[channels.scales.len()], &channels.scales));
        }
        Ok((codes, scales))
    }

    /// Writes codes, scale and zero of a value, with one scale for all of it.
    fn activations(&mut self, name: &str) -> [String; 3] {
        let outputs = ["codes", "scale", "zero"].map(|what| format!("{name}.{what}"));
        if self.made.insert(outputs[0].clone()) {
            self.nodes.push(NodeProto {
                name: format!("{name}/DynamicQuantizeLinear"),
                op_type: "DynamicQuantizeLinear".to_owned(),
                input: vec![name.to_owned()],
                output: outputs.to_vec(),
                ..Default::default()
            });
        }
        outputs
    }

    /// Writes codes of a value `[B, T, D]`, scales `[B, 1]`, one per text, and the zero of all codes.
    fn text_activations(&mut self, name: &str) -> [String; 3] {
        let outputs = ["text_codes", "text_scale"].map(|what| format!("{name}.{what}"));
        let middle = "u8[128]".to_owned();
        if self.made.insert(outputs[0].clone()) {
            self.tensors.entry(middle.clone()).or_insert_with(|| proto::u8_tensor(&middle, &[], &[MIDDLE]));
            let site = NodeProto { name: name.to_owned(), ..Default::default() };
            let size = self.node(&site, "Abs", &[name]);
            let (least, step) = (self.number(LEAST), self.number(1.0 / REACH));
            let largest = self.reduced(&site, &size, &[1, 2]);
            let largest = self.node(&site, "Max", &[&largest, &least]);
            let scale = self.node(&site, "Mul", &[&largest, &step]);
            let rows = self.node(&site, "Shape", &[&scale]);
            let zeros = self.node(&site, "Expand", &[&middle, &rows]);
            self.named(&site, "QuantizeLinear", &[name, &scale, &zeros], &outputs[0]);
            self.nodes.last_mut().into_iter().for_each(|node| node.attribute = vec![proto::int("axis", 0)]);
            let last = self.integer_vector(&[1]);
            self.named(&site, "Unsqueeze", &[&scale, &last], &outputs[1]);
        }
        let [codes, scale] = outputs;
        [codes, scale, middle]
    }

    fn float(&mut self, site: &NodeProto, x: &str) -> String {
        let float = proto::int("to", i32::from(DataType::Float).into());
        let output = self.node(site, "Cast", &[x]);
        self.nodes.last_mut().into_iter().for_each(|node| node.attribute = vec![float.clone()]);
        output
    }

    /// Writes `ReduceMax`; its axes are an attribute before opset 18 and an input from then on.
    fn reduced(&mut self, site: &NodeProto, x: &str, axes: &[i64]) -> String {
        let keep = proto::int("keepdims", 0);
        let (output, attributes) = if self.opset < 18 {
            (self.node(site, "ReduceMax", &[x]), vec![proto::ints("axes", axes), keep])
        } else {
            let axes = self.integer_vector(axes);
            (self.node(site, "ReduceMax", &[x, &axes]), vec![keep])
        };
        self.nodes.last_mut().into_iter().for_each(|node| node.attribute = attributes.clone());
        output
    }

    /// Writes a new node in place of an old one, named after it.
    fn node(&mut self, site: &NodeProto, operator: &str, inputs: &[&str]) -> String {
        let name = format!("{}/{operator}", site.name);
        self.add(NodeProto {
            op_type: operator.to_owned(),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            name,
            ..Default::default()
        })
    }

    /// Writes a new node in place of an old one, with a given output name.
    fn named(&mut self, site: &NodeProto, operator: &str, inputs: &[&str], output: &str) {
        self.nodes.push(NodeProto {
            op_type: operator.to_owned(),
            name: format!("{}/{operator}.last", site.name),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..Default::default()
        });
    }

    fn add(&mut self, mut node: NodeProto) -> String {
        let output = format!("{}.out", node.name);
        node.output = vec![output.clone()];
        self.nodes.push(node);
        output
    }

    fn number(&mut self, value: f32) -> String {
        let name = format!("f32[{value:e}]");
        self.tensors.entry(name.clone()).or_insert_with(|| proto::f32_tensor(&name, &[], &[value]));
        name
    }

    fn integer_vector(&mut self, values: &[i64]) -> String {
        let name = format!("i64{values:?}[]");
        self.tensors.entry(name.clone()).or_insert_with(|| proto::i64_tensor(&name, &[values.len()], values));
        name
    }
}

/// Codes of a matrix, and a scale per channel.
struct Channels {
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Channels {
    /// Channels are the rows (axis 0) or the columns of a matrix of `width` columns. `None` if a value is not finite.
    fn of(values: &[f32], width: usize, axis: usize) -> Option<Self> {
        if !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let width = width.max(1);
        let height = values.len() / width;
        let (count, length) = if axis == 0 { (height, width) } else { (width, height) };
        let place = |channel: usize, at: usize| if axis == 0 { channel * width + at } else { at * width + channel };
        let mut found = Self { codes: vec![0; values.len()], scales: Vec::with_capacity(count) };
        let mut weights = vec![0.0; length];
        for channel in 0..count {
            weights.iter_mut().enumerate().for_each(|(at, weight)| *weight = values[place(channel, at)]);
            let (codes, scale) = channel_codes(&weights);
            codes.iter().enumerate().for_each(|(at, code)| found.codes[place(channel, at)] = *code as i8);
            found.scales.push(scale);
        }
        Some(found)
    }
}

/// Codes and scale of the weights of one channel, with the least squared error of all tried scales.
///
/// A channel of zeros has the scale 1, to avoid a division by 0.
fn channel_codes(weights: &[f32]) -> (Vec<f32>, f32) {
    let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    // weights with a subnormal scale count as 0, since a division by it may overflow
    if largest < f32::MIN_POSITIVE * f32::from(MOST) {
        return (vec![0.0; weights.len()], 1.0);
    }
    let mut best = (Vec::new(), 1.0, f64::INFINITY);
    for most in (PAIR as u8 / 2..=MOST).rev().step_by(STEP) {
        let scale = largest / f32::from(most);
        let (codes, fits) = codes_at(weights, scale);
        let error = |(weight, code): (&f32, &f32)| f64::from(weight - code * scale).powi(2);
        let error = weights.iter().zip(&codes).map(error).sum();
        if error < best.2 {
            best = (codes, scale, error);
        }
        if fits {
            break;
        }
    }
    (best.0, best.1)
}

/// Codes under one scale, and true if no pair had to be reduced.
fn codes_at(weights: &[f32], scale: f32) -> (Vec<f32>, bool) {
    let most = f32::from(MOST);
    let mut codes: Vec<f32> =
        weights.iter().map(|weight| (weight / scale).round_ties_even().clamp(-most, most)).collect();
    let mut fits = true;
    for pair in codes.chunks_exact_mut(2) {
        let excess = pair[0].abs() + pair[1].abs() - PAIR;
        if pair[0] * pair[1] > 0.0 && excess > 0.0 {
            fits = false;
            let half = (excess / 2.0).floor();
            pair[0] -= half.copysign(pair[0]);
            pair[1] -= (excess - half).copysign(pair[1]);
        }
    }
    (codes, fits)
}

/// Graph with the new nodes and tensors, without those that its outputs do not need.
fn without_unused(mut graph: GraphProto, nodes: Vec<NodeProto>, tensors: BTreeMap<String, TensorProto>) -> GraphProto {
    let mut needed: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes.into_iter().rev() {
        if node.output.iter().any(|output| needed.contains(output)) {
            needed.extend(node.input.iter().cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    let old: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
    graph.initializer.extend(tensors.into_values().filter(|tensor| !old.contains(&tensor.name)));
    graph.initializer.retain(|tensor| needed.contains(&tensor.name));
    graph
}

/// Value of an attribute that is a number.
fn number(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

/// Values of an attribute that is a list of numbers; empty without the attribute.
fn numbers(node: &NodeProto, name: &str) -> Vec<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|a| a.ints.clone()).unwrap_or_default()
}
