//! An ONNX file without its output layer: the graph up to the features, and the matrix behind them.
//!
//! A pooled file of ours is complete: ONNX Runtime gives vectors. But no operator multiplies and takes the maximum at once,
//! as [`OutputLayer`] does, and that is most of the work. So the file says ([`OUTPUT_LAYER_KEY`]) where its features are,
//! and what they are multiplied by; the graph is read, cut there, and the session is made of what is left.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use half::f16;
use prost::Message;
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

/// No message of a model has more fields: a graph of a million nodes is none.
const MOST_FIELDS: usize = 1 << 20;

/// A field of an encoded message: its number, and where it and its value lie.
struct Field {
    tag: u32,
    whole: Range<u64>,
    payload: Range<u64>,
}

/// Something of a new message: a field of the old one, or bytes.
enum Part {
    Kept(Range<u64>),
    Written(Vec<u8>),
}

impl Part {
    fn message(tag: u32, message: &impl Message) -> Self {
        let mut bytes = head(tag, message.encoded_len() as u64);
        bytes.extend(message.encode_to_vec());
        Self::Written(bytes)
    }

    fn length(&self) -> u64 {
        match self {
            Self::Kept(range) => range.end - range.start,
            Self::Written(bytes) => bytes.len() as u64,
        }
    }
}

/// What stands before a message of this length.
fn head(tag: u32, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(length, &mut bytes);
    bytes
}

/// An encoded file, read where it is wanted.
struct Encoded {
    file: BufReader<File>,
    length: u64,
    at: u64,
}

impl Encoded {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), length, at: 0 })
    }

    fn go(&mut self, to: u64) -> io::Result<()> {
        match i64::try_from(to).and_then(|to| i64::try_from(self.at).map(|at| to - at)) {
            Ok(by) => self.file.seek_relative(by)?,
            Err(_) => drop(self.file.seek(SeekFrom::Start(to))?),
        }
        self.at = to;
        Ok(())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for place in 0..10 {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << (7 * place).min(63);
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// The fields of a message.
    fn fields(&mut self, range: Range<u64>) -> io::Result<Vec<Field>> {
        let mut fields = Vec::new();
        let mut start = range.start;
        while start < range.end {
            if fields.len() == MOST_FIELDS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.go(start)?;
            let key = self.varint()?;
            let payload = match key & 7 {
                0 => {
                    let from = self.at;
                    self.varint()?;
                    from..self.at
                }
                1 => self.at..self.at + 8,
                2 => {
                    let length = self.varint()?;
                    self.at..self.at.checked_add(length).ok_or(io::ErrorKind::InvalidData)?
                }
                5 => self.at..self.at + 4,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            if payload.end > range.end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let tag = u32::try_from(key >> 3).map_err(|_| io::ErrorKind::InvalidData)?;
            start = payload.end;
            fields.push(Field { tag, whole: start_of(&fields, range.start)..start, payload });
        }
        Ok(fields)
    }

    fn bytes(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.go(range.start)?;
        let read = self.file.read_exact(&mut bytes);
        self.at = self.file.stream_position()?;
        read?;
        Ok(bytes)
    }

    fn message<M: Message + Default>(&mut self, field: &Field) -> io::Result<M> {
        Ok(M::decode(self.bytes(field.payload.clone())?.as_slice())?)
    }

    /// All messages in the fields of a number.
    fn all<M: Message + Default>(&mut self, fields: &[Field], tag: u32) -> io::Result<Vec<M>> {
        fields.iter().filter(|field| field.tag == tag).map(|field| self.message(field)).collect()
    }

    /// A message of these parts.
    fn joined(&mut self, parts: &[Part]) -> io::Result<Vec<u8>> {
        let length = parts.iter().map(Part::length).sum::<u64>();
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?);
        for part in parts {
            match part {
                Part::Written(written) => bytes.extend(written),
                Part::Kept(range) => {
                    self.go(range.start)?;
                    let read = self.file.by_ref().take(range.end - range.start).read_to_end(&mut bytes)?;
                    self.at += read as u64;
                    if read as u64 != range.end - range.start {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// Where the next field begins.
fn start_of(fields: &[Field], first: u64) -> u64 {
    fields.last().map_or(first, |last| last.whole.end)
}

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
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    operator: String,
    /// as they are encoded
    #[prost(bytes = "vec", repeated, tag = "5")]
    attributes: Vec<Vec<u8>>,
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

/// Nodes with one of ours in the place of the last node of every chain that is one of our operators; `stored` are the names
/// of the graph's tensors.
///
/// What is constant stays as it is: ONNX Runtime computes it once, but not through an operator it does not know.
fn with_own_operators<'s>(mut nodes: Vec<Node>, stored: impl Iterator<Item = &'s String>) -> Vec<Node> {
    let found: Vec<(usize, &str, Vec<String>)> = {
        let mut constant: HashSet<&str> = stored.map(String::as_str).collect();
        for node in &nodes {
            if !node.inputs.is_empty() && node.inputs.iter().all(|input| constant.contains(input.as_str())) {
                constant.extend(node.outputs.iter().map(String::as_str));
            }
        }
        let makers = nodes.iter().filter_map(|node| Some((node.outputs.first()?.as_str(), node))).collect();
        let chains = Chains { makers, constant };
        let last = |(at, node)| {
            let layer_norm = || Some((LAYER_NORM, chains.layer_norm(node)?));
            let (operator, inputs) = layer_norm().or_else(|| Some((RELATIVE_SCORES, chains.scores(node)?)))?;
            Some((at, operator, inputs.into_iter().map(str::to_owned).collect()))
        };
        nodes.iter().enumerate().filter(|(_, node)| node.operator == "Add").filter_map(last).collect()
    };
    for (at, operator, inputs) in found {
        let Node { outputs, name, .. } = std::mem::take(&mut nodes[at]);
        let (name, operator) = (format!("{name}/{operator}"), operator.to_owned());
        nodes[at] = Node { inputs, outputs, name, operator, domain: DOMAIN.to_owned(), attributes: Vec::new() };
    }
    nodes
}

/// What is needed for a value.
fn up_to(nodes: Vec<Node>, value: &str) -> Option<Vec<Node>> {
    let (mut needed, mut kept) = (HashSet::from([value.to_owned()]), Vec::new());
    for node in nodes.into_iter().rev() {
        if node.outputs.iter().any(|output| needed.contains(output)) {
            // an input that is left out has no name
            needed.extend(node.inputs.iter().filter(|input| !input.is_empty()).cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    (!kept.is_empty()).then_some(kept)
}

/// Nodes by what they give.
struct Chains<'g> {
    makers: HashMap<&'g str, &'g Node>,
    /// values that are the same in every run
    constant: HashSet<&'g str>,
}

impl<'g> Chains<'g> {
    /// The two inputs of the node that gives a value, if it is of this operator.
    fn made_by(&self, value: &str, operator: &str) -> Option<[&'g str; 2]> {
        let node = self.makers.get(value).filter(|node| node.operator == operator && node.domain.is_empty())?;
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
        let is_constant = |value: &str| self.constant.contains(value);
        let fits = is_constant(weight) && is_constant(bias) && !is_constant(x);
        let is_one = fits && self.made_by(squared, "Pow")?[0] == centered && self.made_by(mean, "ReduceMean")?[0] == x;
        is_one.then(|| vec![x, weight, bias, eps])
    }

    /// Inputs of attention scores with relative positions whose last node this is:
    /// `(content + (of_queries[rows] + of_keys[rows])) + allowed`.
    fn scores(&self, last: &'g Node) -> Option<Vec<&'g str>> {
        let [scores, allowed] = [last.inputs.first()?.as_str(), last.inputs.get(1)?];
        let [content, positional] = self.made_by(scores, "Add")?;
        let [of_queries, of_keys] = self.made_by(positional, "Add")?;
        let looked_up = |value: &str, axis: i64| {
            let along = |attribute: &Vec<u8>| {
                // a whole number is short
                let attribute = Attribute::decode(attribute.get(..attribute.len().min(64)).unwrap_or_default());
                attribute.is_ok_and(|attribute| attribute.name == "axis" && attribute.integer == axis)
            };
            self.makers.get(value).filter(|node| node.attributes.iter().any(along))?;
            self.made_by(value, "GatherElements")
        };
        let ([of_queries, rows], [of_keys, same]) = (looked_up(of_queries, 3)?, looked_up(of_keys, 2)?);
        let [rows, _] = self.made_by(rows, "Expand").filter(|_| rows == same)?;
        Some(vec![content, of_queries, of_keys, rows, allowed])
    }
}

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
