//! An ONNX file without its output layer: the graph up to the features, and the matrix behind them.
//!
//! A pooled file of ours is complete: ONNX Runtime gives vectors. But no operator multiplies and takes the maximum at once,
//! as [`OutputLayer`] does, and that is most of the work. So the file says ([`OUTPUT_LAYER_KEY`]) where its features are,
//! and what they are multiplied by; the graph is read, cut there, and the session is made of what is left.

mod chains;
mod encoded;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use half::f16;
use prost::Message;
use serde::Deserialize;

use chains::{Node, up_to, with_own_operators};
use encoded::{Encoded, Field, Part, head};

use crate::onnx_operators::DOMAIN;
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
///
/// Weights are read one by one, and those that stay go straight to where they stay.
pub(crate) fn cut(path: &Path) -> Option<Cut> {
    if !OutputLayer::is_supported() {
        return None;
    }
    let mut file = Encoded::open(path).ok()?;
    let model = file.fields(0..file.length).ok()?;
    let entries = file.all::<Entry>(&model, METADATA).ok()?;
    let names: Names = serde_json::from_str(&entries.iter().find(|entry| entry.key == OUTPUT_LAYER_KEY)?.value).ok()?;
    let graph = model.iter().find(|field| field.tag == GRAPH)?;
    let fields = file.fields(graph.payload.clone()).ok()?;
    let mut tensors = Tensors::of(&mut file, &fields)?;
    let layer = {
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
    let known = tensors.names();
    let nodes = with_own_operators(file.all::<Node>(&fields, NODES).ok()?, known.values());
    let nodes = up_to(nodes, &names.features)?;
    let needed: HashSet<&str> = nodes.iter().flat_map(|node| node.inputs.iter().map(String::as_str)).collect();

    let mut parts: Vec<Part> = nodes.iter().map(|node| Part::message(NODES, node)).collect();
    let of = Some(Type { tensor: Some(TensorType { element: FLOAT }) });
    parts.push(Part::message(OUTPUTS, &Named { name: names.features.clone(), of }));
    for field in &fields {
        let is_kept = match field.tag {
            NODES | OUTPUTS => false,
            TENSORS => known.get(&field.payload.start).is_some_and(|name| needed.contains(name.as_str())),
            VALUES => needed.contains(file.message::<Named>(field).ok()?.name.as_str()),
            _ => true,
        };
        if is_kept {
            parts.push(Part::Kept(field.whole.clone()));
        }
    }
    let own = OperatorSet { domain: DOMAIN.to_owned(), version: 1 };
    let mut all = vec![Part::message(OPERATORS, &own)];
    all.extend(model.iter().filter(|field| field.tag != GRAPH).map(|field| Part::Kept(field.whole.clone())));
    all.push(Part::Written(head(GRAPH, parts.iter().map(Part::length).sum())));
    all.extend(parts);
    Some(Cut { model: file.joined(&all).ok()?, layer, cap: names.cap })
}

/// Numbers of the fields of a model …
const GRAPH: u32 = 7;
const OPERATORS: u32 = 8;
const METADATA: u32 = 14;
/// … of a graph …
const NODES: u32 = 1;
const TENSORS: u32 = 5;
const OUTPUTS: u32 = 12;
const VALUES: u32 = 13;
/// … and of a tensor.
const RAW: u32 = 9;

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
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

/// The stored tensors of a graph.
struct Tensors<'f> {
    file: &'f mut Encoded,
    /// by name: what a tensor is, where its values lie, where it lies itself
    known: HashMap<String, (Tensor, Range<u64>, u64)>,
}

impl<'f> Tensors<'f> {
    fn of(file: &'f mut Encoded, fields: &[Field]) -> Option<Self> {
        let mut known = HashMap::new();
        for field in fields.iter().filter(|field| field.tag == TENSORS) {
            let inside = file.fields(field.payload.clone()).ok()?;
            let (raw, others): (Vec<&Field>, Vec<&Field>) = inside.iter().partition(|field| field.tag == RAW);
            let others: Vec<Part> = others.into_iter().map(|field| Part::Kept(field.whole.clone())).collect();
            let tensor = Tensor::decode(file.joined(&others).ok()?.as_slice()).ok()?;
            let values = raw.first().map_or(0..0, |raw| raw.payload.clone());
            known.insert(tensor.name.clone(), (tensor, values, field.payload.start));
        }
        Some(Self { file, known })
    }

    /// Names by where a tensor lies.
    fn names(&self) -> HashMap<u64, String> {
        self.known.iter().map(|(name, (_, _, at))| (*at, name.clone())).collect()
    }

    /// The type and bytes of a tensor whose axes have these lengths, where one is given, and as many bytes as they say.
    fn shaped(&mut self, name: &str, shape: &[Option<usize>]) -> Option<(i32, Vec<u8>)> {
        let (tensor, values, _) = self.known.get(name)?;
        let lengths: Vec<u64> = tensor.dims.iter().map(|length| u64::try_from(*length).ok()).collect::<Option<_>>()?;
        let fits = lengths.len() == shape.len()
            && lengths.iter().zip(shape).all(|(length, wanted)| wanted.is_none_or(|wanted| wanted as u64 == *length));
        let count = lengths.iter().try_fold(1_u64, |count, length| count.checked_mul(*length))?;
        let bytes = count.checked_mul(match tensor.data_type {
            FLOAT => 4,
            FLOAT16 => 2,
            INT8 => 1,
            _ => return None,
        })?;
        let (data_type, values) = (tensor.data_type, values.clone());
        (fits && values.end - values.start == bytes).then(|| Some((data_type, self.file.bytes(values).ok()?)))?
    }

    fn floats(&mut self, name: &str, shape: &[Option<usize>]) -> Option<Vec<f32>> {
        let (data_type, raw) = self.shaped(name, shape)?;
        match data_type {
            FLOAT => Some(raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            FLOAT16 => Some(raw.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()),
            _ => None,
        }
    }

    /// Rows of a matrix that is stored with its axes swapped.
    fn turned(&mut self, name: &str, terms: usize) -> Option<Vec<f32>> {
        self.floats(&format!("{name}.transposed"), &[None, Some(terms)]).map(|columns| turn(&columns, terms))
    }

    /// The codes of a matrix and their scales, row by row.
    fn codes(&mut self, name: &str, terms: usize) -> Option<(Vec<i8>, Vec<f32>)> {
        let rows = format!("{name}.int8.rows");
        if self.known.contains_key(&rows) {
            let codes = self.bytes(&rows, [Some(terms), None])?;
            return Some((codes, self.floats(&format!("{name}.scales.rows"), &[Some(terms)])?));
        }
        let columns = self.bytes(&format!("{name}.transposed.int8.columns"), [None, Some(terms)])?;
        Some((turn(&columns, terms), self.floats(&format!("{name}.transposed.scales.columns"), &[Some(terms)])?))
    }

    fn bytes(&mut self, name: &str, shape: [Option<usize>; 2]) -> Option<Vec<i8>> {
        let (data_type, raw) = self.shaped(name, &shape)?;
        (data_type == INT8).then(|| raw.into_iter().map(u8::cast_signed).collect())
    }
}

/// Columns to rows.
fn turn<T: Copy>(columns: &[T], width: usize) -> Vec<T> {
    (0..width).flat_map(|column| columns.iter().skip(column).step_by(width).copied()).collect()
}
