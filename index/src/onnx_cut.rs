//! An ONNX file without its output layer: the graph up to the features, and the matrix behind them.
//!
//! A pooled file of ours is complete: ONNX Runtime gives vectors. But no operator multiplies and takes the maximum at once,
//! as [`OutputLayer`] does, and that is most of the work. So the file says ([`OUTPUT_LAYER_KEY`]) where its features are,
//! and what they are multiplied by; the graph is read, cut there, and the session is made of what is left.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use half::f16;
use prost::Message;
use prost::bytes::Bytes;
use serde::Deserialize;

use crate::onnx_operators::{DOMAIN, LAYER_NORM, RELATIVE_SCORES};
use crate::output_layer::OutputLayer;

/// The metadata key under which a pooled file says what its last product is made of, as JSON: the names of `features`
/// `[B, T, D]`, of the matrix `weight` `[V, D]` (or, transposed, `{weight}.transposed`), of `bias` `[V]`, and the `cap` of
/// logits, `none` or `soft`. Absent where a weight is not the activation of the largest logit.
pub const OUTPUT_LAYER_KEY: &str = "splade.output_layer";

/// The parts of a file.
pub(crate) struct Cut {
    /// a model that gives the features
    pub(crate) model: Vec<u8>,
    pub(crate) layer: OutputLayer,
    pub(crate) cap: Cap,
}

/// What is done to every logit, `splade_trainer::model::Cap` but for the one that is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cap {
    None,
    Soft,
}

impl Cap {
    pub(crate) fn of(self, logit: f32) -> f32 {
        match self {
            Self::None => logit,
            Self::Soft => 15.0 * (logit / 15.0).tanh(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    features: String,
    weight: String,
    bias: String,
    cap: Cap,
}

/// Cuts a file. `None` where it does not say how, is not as it says, or this machine has no instructions for the layer:
/// then it is run as it is, and whatever is wrong with it is ONNX Runtime's to say.
pub(crate) fn cut(path: &Path) -> Option<Cut> {
    if !OutputLayer::is_supported() {
        return None;
    }
    let model = Model::decode(Bytes::from(std::fs::read(path).ok()?)).ok()?;
    let entry = |entry: &Bytes| Entry::decode(entry.clone()).ok().filter(|entry| entry.key == OUTPUT_LAYER_KEY);
    let names: Names = serde_json::from_str(&model.metadata.iter().find_map(entry)?.value).ok()?;
    let graph = Graph::decode(model.graph.clone()?).ok()?;
    let layer = {
        let tensors = Tensors::of(&graph)?;
        let bias = tensors.floats(&names.bias, &[None])?;
        let terms = bias.len();
        match tensors.floats(&names.weight, &[Some(terms), None]) {
            Some(rows) => OutputLayer::exact(rows, bias)?,
            None => match tensors.turned(&names.weight, terms) {
                Some(rows) => OutputLayer::exact(rows, bias)?,
                None => {
                    let (codes, scales) = tensors.codes(&names.weight, terms)?;
                    OutputLayer::rounded(&codes, scales, bias)?
                }
            },
        }
    };
    let graph = graph.with_own_operators()?.up_to(&names.features)?;
    let mut model = Model { graph: Some(graph.encode_to_vec().into()), ..model };
    model.operators.push(OperatorSet { domain: DOMAIN.to_owned(), version: 1 }.encode_to_vec().into());
    Some(Cut { model: model.encode_to_vec(), layer, cap: names.cap })
}

/// A model; what lies deeper stays as it is encoded. The fields are those our exporter writes.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(bytes = "bytes", tag = "2")]
    producer: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    producer_version: Bytes,
    #[prost(bytes = "bytes", optional, tag = "7")]
    graph: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    operators: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "14")]
    metadata: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    nodes: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "2")]
    name: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    initializers: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    inputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "12")]
    outputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "13")]
    values: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    domain: String,
}

/// An attribute, as far as it is a whole number.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    integer: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", tag = "9")]
    raw: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    of: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
}

/// Element types of ONNX.
const FLOAT: i32 = 1;
const INT8: i32 = 3;
const FLOAT16: i32 = 10;

impl Graph {
    fn decoded(&self) -> Option<Vec<Node>> {
        self.nodes.iter().map(|node| Node::decode(node.clone()).ok()).collect()
    }

    /// The graph with one node of ours in the place of the last node of every chain that is one of our operators.
    fn with_own_operators(mut self) -> Option<Self> {
        let nodes = self.decoded()?;
        let chains = Chains(nodes.iter().filter_map(|node| Some((node.outputs.first()?.as_str(), node))).collect());
        for (node, bytes) in nodes.iter().zip(&mut self.nodes).filter(|(node, _)| node.operator == "Add") {
            let layer_norm = || Some((LAYER_NORM, chains.layer_norm(node)?));
            let Some((operator, inputs)) = layer_norm().or_else(|| Some((RELATIVE_SCORES, chains.scores(node)?)))
            else {
                continue;
            };
            *bytes = Node {
                inputs: inputs.into_iter().map(str::to_owned).collect(),
                outputs: node.outputs.clone(),
                name: format!("{}/{operator}", node.name),
                operator: operator.to_owned(),
                attributes: Vec::new(),
                domain: DOMAIN.to_owned(),
            }
            .encode_to_vec()
            .into();
        }
        Some(self)
    }

    /// What is needed for a value, which becomes the only output.
    fn up_to(self, value: &str) -> Option<Self> {
        let nodes = self.decoded()?;
        let (mut needed, mut kept) = (HashSet::from([value]), Vec::new());
        for (node, bytes) in nodes.iter().zip(&self.nodes).rev() {
            if node.outputs.iter().any(|output| needed.contains(output.as_str())) {
                needed.extend(node.inputs.iter().map(String::as_str));
                kept.push(bytes.clone());
            }
        }
        kept.reverse();
        let is_needed = |bytes: &Bytes, name: fn(Bytes) -> Option<String>| {
            name(bytes.clone()).is_some_and(|name| needed.contains(name.as_str()))
        };
        let of_tensor = |bytes| Tensor::decode(bytes).ok().map(|tensor| tensor.name);
        let of_value = |bytes| Named::decode(bytes).ok().map(|value| value.name);
        let initializers: Vec<Bytes> =
            self.initializers.iter().filter(|bytes| is_needed(bytes, of_tensor)).cloned().collect();
        let values = self.values.iter().filter(|bytes| is_needed(bytes, of_value)).cloned().collect();
        let of = Some(Type { tensor: Some(TensorType { element: FLOAT }) });
        let output = Named { name: value.to_owned(), of }.encode_to_vec().into();
        (!kept.is_empty()).then_some(Self { nodes: kept, initializers, values, outputs: vec![output], ..self })
    }
}

/// Nodes by what they give.
struct Chains<'g>(HashMap<&'g str, &'g Node>);

impl<'g> Chains<'g> {
    /// The two inputs of the node that gives a value, if it is of this operator.
    fn made_by(&self, value: &str, operator: &str) -> Option<[&'g str; 2]> {
        let node = self.0.get(value).filter(|node| node.operator == operator)?;
        Some([node.inputs.first()?, node.inputs.get(1).map_or("", String::as_str)])
    }

    /// Inputs of a layer norm whose last node this is: `(x − mean)/√(mean((x − mean)²) + eps)·weight + bias`.
    fn layer_norm(&self, last: &'g Node) -> Option<Vec<&'g str>> {
        let [scaled, bias] = [last.inputs.first()?.as_str(), last.inputs.get(1)?];
        let [normed, weight] = self.made_by(scaled, "Mul")?;
        let [centered, deviation] = self.made_by(normed, "Div")?;
        let [x, mean] = self.made_by(centered, "Sub")?;
        let [variance, eps] = self.made_by(self.made_by(deviation, "Sqrt")?[0], "Add")?;
        let [squared, _] = self.made_by(variance, "ReduceMean")?;
        let is_one = self.made_by(squared, "Pow")?[0] == centered && self.made_by(mean, "ReduceMean")?[0] == x;
        is_one.then(|| vec![x, weight, bias, eps])
    }

    /// Inputs of attention scores with relative positions whose last node this is:
    /// `(content + (of_queries[rows] + of_keys[rows])) + allowed`.
    fn scores(&self, last: &'g Node) -> Option<Vec<&'g str>> {
        let [scores, allowed] = [last.inputs.first()?.as_str(), last.inputs.get(1)?];
        let [content, positional] = self.made_by(scores, "Add")?;
        let [of_queries, of_keys] = self.made_by(positional, "Add")?;
        let looked_up = |value: &str, axis: i64| {
            let along = |attribute: &Attribute| attribute.name == "axis" && attribute.integer == axis;
            self.0.get(value).filter(|node| node.attributes.iter().any(along))?;
            self.made_by(value, "GatherElements")
        };
        let ([of_queries, rows], [of_keys, same]) = (looked_up(of_queries, 3)?, looked_up(of_keys, 2)?);
        let [rows, _] = self.made_by(rows, "Expand").filter(|_| rows == same)?;
        Some(vec![content, of_queries, of_keys, rows, allowed])
    }
}

/// The stored tensors of a graph by name.
struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    fn of(graph: &Graph) -> Option<Self> {
        let tensors = graph.initializers.iter().map(|bytes| Tensor::decode(bytes.clone()).ok());
        tensors.map(|tensor| tensor.map(|tensor| (tensor.name.clone(), tensor))).collect::<Option<_>>().map(Self)
    }

    /// A tensor whose axes have these lengths, where one is given, and as many bytes as they say.
    fn shaped(&self, name: &str, shape: &[Option<usize>]) -> Option<&Tensor> {
        let tensor = self.0.get(name)?;
        let lengths: Vec<usize> =
            tensor.dims.iter().map(|length| usize::try_from(*length).ok()).collect::<Option<_>>()?;
        let fits = lengths.len() == shape.len()
            && lengths.iter().zip(shape).all(|(length, wanted)| wanted.is_none_or(|wanted| wanted == *length));
        let count = lengths.iter().try_fold(1_usize, |count, length| count.checked_mul(*length))?;
        let bytes = count.checked_mul(match tensor.data_type {
            FLOAT => 4,
            FLOAT16 => 2,
            INT8 => 1,
            _ => return None,
        })?;
        (fits && tensor.raw.len() == bytes).then_some(tensor)
    }

    fn floats(&self, name: &str, shape: &[Option<usize>]) -> Option<Vec<f32>> {
        let tensor = self.shaped(name, shape)?;
        match tensor.data_type {
            FLOAT => Some(tensor.raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            FLOAT16 => {
                Some(tensor.raw.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect())
            }
            _ => None,
        }
    }

    /// Rows of a matrix that is stored with its axes swapped.
    fn turned(&self, name: &str, terms: usize) -> Option<Vec<f32>> {
        self.floats(&format!("{name}.transposed"), &[None, Some(terms)]).map(|columns| turn(&columns, terms))
    }

    /// The codes of a matrix and their scales, row by row.
    fn codes(&self, name: &str, terms: usize) -> Option<(Vec<i8>, Vec<f32>)> {
        let codes = |name: &str, shape: [Option<usize>; 2]| {
            let tensor = self.shaped(name, &shape).filter(|tensor| tensor.data_type == INT8)?;
            Some(tensor.raw.iter().map(|byte| byte.cast_signed()).collect::<Vec<i8>>())
        };
        let scales = |name: &str| self.floats(name, &[Some(terms)]);
        if let Some(codes) = codes(&format!("{name}.int8.rows"), [Some(terms), None]) {
            return Some((codes, scales(&format!("{name}.scales.rows"))?));
        }
        let columns = codes(&format!("{name}.transposed.int8.columns"), [None, Some(terms)])?;
        Some((turn(&columns, terms), scales(&format!("{name}.transposed.scales.columns"))?))
    }
}

/// Columns to rows.
fn turn<T: Copy>(columns: &[T], width: usize) -> Vec<T> {
    (0..width).flat_map(|column| columns.iter().skip(column).step_by(width).copied()).collect()
}
