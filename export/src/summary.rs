//! What an ONNX file holds: sets of operators, inputs and outputs, nodes, weights by type, metadata.
//!
//! Values of weights are passed over, in the file itself, so a file of any size is summed up at once. For that the
//! messages are declared here with the fields that are wanted; prost passes over all others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use candle_onnx::onnx::tensor_proto::{DataLocation, DataType};
use candle_onnx::onnx::tensor_shape_proto::dimension;
use candle_onnx::onnx::{OperatorSetIdProto, StringStringEntryProto, ValueInfoProto, type_proto};
use prost::Message;
use prost::bytes::Buf;
use splade_files::{Error as FilesError, Precision};

use crate::Result;

/// An ONNX file, without the values of its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// version of the format
    pub ir_version: i64,
    /// the tool that wrote the file, with its version
    pub producer: String,
    /// operator sets: domain (empty is ONNX's own) and version
    pub opsets: Vec<(String, i64)>,
    /// what it takes
    pub inputs: Vec<Value>,
    /// what it gives
    pub outputs: Vec<Value>,
    /// number of nodes by operator, in graphs inside graphs too; foreign domains in front, as in `com.microsoft.Gelu`
    pub operators: BTreeMap<String, u64>,
    /// weights and constants by data type
    pub weights: BTreeMap<String, Stored>,
    /// `metadata_props`
    pub metadata: BTreeMap<String, String>,
    /// files beside it that hold weights
    pub external: Vec<External>,
    /// bytes of the file itself
    pub bytes: u64,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// its name
    pub name: String,
    /// the type of its numbers
    pub data_type: String,
    /// its axes: a number, or the name of a free one
    pub axes: Vec<String>,
}

/// Tensors of one data type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// how many
    pub tensors: u64,
    /// numbers in all of them
    pub values: u64,
    /// their bytes, by shape and type
    pub bytes: u64,
}

/// A file beside an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// its name, relative to the ONNX file's folder
    pub location: String,
    /// bytes it must have at least
    pub needed: u64,
    /// bytes it has; none if it is not there
    pub found: Option<u64>,
}

impl Summary {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or is no ONNX.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |error| FilesError::io(path)(error);
        let file = splade_files::open_file(path)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(io::ErrorKind::IsADirectory.into()).into());
        }
        let mut pieces = Pieces::new(file, metadata.len());
        let decoded = ModelFields::decode(&mut pieces);
        if let Some(error) = pieces.error {
            return Err(io(error).into());
        }
        let broken = |message: String| FilesError::file(path, format!("not an onnx file: {message}"));
        let model = decoded.map_err(|error| broken(error.to_string()))?;
        let graph = model.graph.as_ref().ok_or_else(|| broken("it has no graph".to_owned()))?;
        if graph.node.is_empty() && graph.output.is_empty() {
            return Err(broken("its graph is empty".to_owned()).into());
        }
        let mut tally = Tally::default();
        tally.graph(graph);
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self {
            ir_version: model.ir_version,
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            opsets: model.opset_import.into_iter().map(|set| (set.domain, set.version)).collect(),
            inputs: graph.input.iter().filter(|input| !tally.names.contains(&input.name)).map(value).collect(),
            outputs: graph.output.iter().map(value).collect(),
            operators: tally.operators,
            weights: tally.weights,
            metadata: model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect(),
            external: tally.external.into_iter().map(|(location, needed)| external(folder, location, needed)).collect(),
            bytes: metadata.len(),
        })
    }

    /// What the file states, else in what it stores its matrices: the narrowest type that holds more than a handful of
    /// numbers.
    ///
    /// An int8 file keeps scales, norms and perhaps embeddings in floats; an f32 file keeps a few integers.
    #[must_use]
    pub fn precision(&self) -> Precision {
        let stated = self.metadata.get(crate::PRECISION_KEY);
        if let Some(precision) = stated.and_then(|name| Precision::ALL.into_iter().find(|known| known.name() == name)) {
            return precision;
        }
        let many = |names: &[&str]| {
            let values = names.iter().filter_map(|name| self.weights.get(*name)).map(|stored| stored.values);
            values.sum::<u64>() > HANDFUL
        };
        if many(&["int8", "uint8", "int4", "uint4"]) {
            Precision::Int8
        } else if many(&["float16", "bfloat16"]) {
            Precision::Fp16
        } else {
            Precision::Fp32
        }
    }

    /// Numbers in all weights and constants that are not indices.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let indices = ["int32", "int64", "bool", "string"];
        self.weights.iter().filter(|(name, _)| !indices.contains(&name.as_str())).map(|(_, stored)| stored.values).sum()
    }
}

/// Fewer numbers of a type say nothing about a file.
const HANDFUL: u64 = 256;

/// What is counted on the way through the graphs.
#[derive(Default)]
struct Tally {
    operators: BTreeMap<String, u64>,
    weights: BTreeMap<String, Stored>,
    external: BTreeMap<String, u64>,
    /// names of initializers: older files list them among the inputs too
    names: BTreeSet<String>,
}

impl Tally {
    fn graph(&mut self, graph: &GraphFields) {
        for node in &graph.node {
            let domain = if node.domain.is_empty() || node.domain == "ai.onnx" { "" } else { &node.domain };
            let dot = if domain.is_empty() { "" } else { "." };
            *self.operators.entry(format!("{domain}{dot}{}", node.op_type)).or_default() += 1;
            for attribute in &node.attribute {
                attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
                attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
            }
        }
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph
            .sparse_initializer
            .iter()
            .filter_map(|sparse| sparse.values.as_ref())
            .for_each(|tensor| self.tensor(tensor));
        self.names.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    }

    fn tensor(&mut self, tensor: &TensorFields) {
        let lengths = tensor.dims.iter().map(|&length| u64::try_from(length).unwrap_or(0));
        // a broken file may state any shape
        let values = lengths.fold(1_u64, u64::saturating_mul);
        let bytes = values.saturating_mul(bits(tensor.data_type)).div_ceil(8);
        let stored = self.weights.entry(type_name(tensor.data_type)).or_default();
        stored.tensors += 1;
        stored.values = stored.values.saturating_add(values);
        stored.bytes = stored.bytes.saturating_add(bytes);
        if tensor.data_location == i32::from(DataLocation::External) {
            let entry =
                |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
            let number = |key: &str| entry(key).and_then(|value| value.parse::<u64>().ok());
            let end = number("offset").unwrap_or(0).saturating_add(number("length").unwrap_or(bytes));
            let needed = self.external.entry(entry("location").cloned().unwrap_or_default()).or_default();
            *needed = end.max(*needed);
        }
    }
}

fn external(folder: &Path, location: String, needed: u64) -> External {
    let found = std::fs::metadata(folder.join(&location)).ok().filter(std::fs::Metadata::is_file);
    External { found: found.map(|file| file.len()), location, needed }
}

fn value(info: &ValueInfoProto) -> Value {
    let tensor = match info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => Some(tensor),
        _ => None,
    };
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let axis = |axis: &candle_onnx::onnx::tensor_shape_proto::Dimension| match &axis.value {
        Some(dimension::Value::DimValue(length)) => length.to_string(),
        Some(dimension::Value::DimParam(name)) => name.clone(),
        None => "?".to_owned(),
    };
    Value {
        name: info.name.clone(),
        data_type: tensor.map_or_else(|| "not a tensor".to_owned(), |tensor| type_name(tensor.elem_type)),
        axes: shape.map(|shape| shape.dim.iter().map(axis).collect()).unwrap_or_default(),
    }
}

/// `float`, `int8` and so on; types newer than the ones known here by their number.
fn type_name(code: i32) -> String {
    match (DataType::try_from(code), code) {
        (Ok(known), _) => known.as_str_name().to_lowercase(),
        (_, 21) => "uint4".to_owned(),
        (_, 22) => "int4".to_owned(),
        _ => format!("type {code}"),
    }
}

/// Bits of a number of a type, 0 where there is no telling.
fn bits(code: i32) -> u64 {
    match DataType::try_from(code) {
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64) => 64,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 32,
        Ok(DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16) => 16,
        Ok(DataType::Complex128) => 128,
        Ok(DataType::String | DataType::Undefined) => 0,
        Ok(_) => 8,
        Err(_) if code == 21 || code == 22 => 4,
        Err(_) => 0,
    }
}

/// The wanted fields of `ModelProto`; numbers as in the format's own description, here and below.
#[derive(Clone, PartialEq, Message)]
struct ModelFields {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphFields>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

/// Of `GraphProto`.
#[derive(Clone, PartialEq, Message)]
struct GraphFields {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeFields>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorFields>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorFields>,
}

/// Of `NodeProto`.
#[derive(Clone, PartialEq, Message)]
struct NodeFields {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeFields>,
    #[prost(string, tag = "7")]
    domain: String,
}

/// Of `AttributeProto`: tensors and graphs inside a node.
#[derive(Clone, PartialEq, Message)]
struct AttributeFields {
    #[prost(message, optional, tag = "5")]
    t: Option<TensorFields>,
    #[prost(message, optional, tag = "6")]
    g: Option<GraphFields>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorFields>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphFields>,
}

/// Of `TensorProto`: everything but the values.
#[derive(Clone, PartialEq, Message)]
struct TensorFields {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// Of `SparseTensorProto`.
#[derive(Clone, PartialEq, Message)]
struct SparseTensorFields {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorFields>,
}

/// A file read forward in pieces, for a decoder; what is passed over is never read.
struct Pieces<F> {
    file: F,
    piece: Vec<u8>,
    /// how much of the piece is consumed
    at: usize,
    /// bytes behind the piece
    rest: u64,
    /// the decoder's interface knows no failure: after one the file has ended, and this says why
    error: Option<io::Error>,
}

/// Names and shapes lie between the values of two tensors: little is read in vain.
const PIECE: u64 = 4096;

impl<F: Read + Seek> Pieces<F> {
    fn new(file: F, length: u64) -> Self {
        let mut pieces = Self { file, piece: Vec::new(), at: 0, rest: length, error: None };
        pieces.pass(0);
        pieces
    }

    /// Passes over `skipped` bytes behind the piece, then reads the next one.
    fn pass(&mut self, skipped: u64) {
        let mut read = || -> io::Result<()> {
            let skipped = skipped.min(self.rest);
            self.file.seek(SeekFrom::Current(i64::try_from(skipped).map_err(io::Error::other)?))?;
            self.rest -= skipped;
            self.piece.resize(usize::try_from(self.rest.min(PIECE)).map_err(io::Error::other)?, 0);
            self.file.read_exact(&mut self.piece)?;
            self.rest -= self.piece.len() as u64;
            Ok(())
        };
        if let Err(error) = read() {
            (self.rest, self.error) = (0, Some(error));
            self.piece.clear();
        }
        self.at = 0;
    }
}

impl<F: Read + Seek> Buf for Pieces<F> {
    fn remaining(&self) -> usize {
        usize::try_from(self.rest).unwrap_or(usize::MAX).saturating_add(self.piece.len() - self.at)
    }

    fn chunk(&self) -> &[u8] {
        &self.piece[self.at..]
    }

    fn advance(&mut self, count: usize) {
        let here = self.piece.len() - self.at;
        if count < here {
            self.at += count;
        } else {
            self.pass((count - here) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use candle_onnx::onnx::attribute_proto::AttributeType;
    use candle_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};

    use super::*;
    use crate::proto::{Axis, f32_tensor, i64_tensor, value_info};

    /// Two nodes, one with a graph inside; 5000 floats, so that the file has many pieces.
    fn model() -> ModelProto {
        let node = |op: &str, domain: &str, attribute: Vec<AttributeProto>| NodeProto {
            op_type: op.to_owned(),
            domain: domain.to_owned(),
            attribute,
            ..Default::default()
        };
        let inner = GraphProto { node: vec![node("Add", "", vec![])], ..Default::default() };
        let branch = AttributeProto { r#type: AttributeType::Graph.into(), g: Some(inner), ..Default::default() };
        let graph = GraphProto {
            node: vec![node("Add", "", vec![]), node("If", "", vec![branch]), node("Gelu", "com.microsoft", vec![])],
            initializer: vec![f32_tensor("a", &[50, 100], &[1.5; 5000]), i64_tensor("axes", &[2], &[0, 1])],
            input: vec![
                value_info("input_ids", DataType::Int64, &[Axis::Free("batch_size"), Axis::Fixed(7)]),
                value_info("a", DataType::Float, &[Axis::Fixed(50), Axis::Fixed(100)]),
            ],
            output: vec![value_info("logits", DataType::Float, &[Axis::Free("batch_size")])],
            ..Default::default()
        };
        let metadata = BTreeMap::from([("splade.version".to_owned(), "1".to_owned())]);
        crate::proto::model(graph, &crate::Options { opset: 18, metadata })
    }

    fn read(bytes: &[u8]) -> Result<Summary> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, bytes).unwrap();
        Summary::read(&path)
    }

    #[test]
    fn a_file_is_summed_up() {
        let found = read(&model().encode_to_vec()).unwrap();
        let operators: Vec<(&str, u64)> = found.operators.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(operators, [("Add", 2), ("If", 1), ("com.microsoft.Gelu", 1)]);
        assert_eq!(found.weights["float"], Stored { tensors: 1, values: 5000, bytes: 20_000 });
        assert_eq!(found.weights["int64"], Stored { tensors: 1, values: 2, bytes: 16 });
        let [input] = found.inputs.as_slice() else { panic!("initializers are no inputs: {:?}", found.inputs) };
        assert_eq!((input.name.as_str(), input.data_type.as_str()), ("input_ids", "int64"));
        assert_eq!(input.axes, ["batch_size", "7"]);
        assert_eq!((found.outputs[0].name.as_str(), found.opsets.as_slice()), ("logits", &[(String::new(), 18)][..]));
        assert_eq!((found.metadata["splade.version"].as_str(), found.external.len()), ("1", 0));
        assert_eq!((found.precision(), found.parameters()), (Precision::Fp32, 5000));
    }

    #[test]
    fn passing_over_values_gives_what_reading_them_gives() {
        let bytes = model().encode_to_vec();
        let plain = ModelFields::decode(bytes.as_slice()).unwrap();
        let mut pieces = Pieces::new(Cursor::new(&bytes), bytes.len() as u64);
        assert_eq!(ModelFields::decode(&mut pieces).unwrap(), plain);
        // a piece before the float values, one behind them, one at the end
        assert!(pieces.error.is_none() && pieces.remaining() == 0);
    }

    #[test]
    fn a_broken_file_is_named_and_never_a_panic() {
        let whole = model().encode_to_vec();
        for cut in (0..whole.len()).step_by(97).chain([0, 1, 2, whole.len() - 1]) {
            let error = read(&whole[..cut]).unwrap_err().to_string();
            assert!(error.contains("model.onnx: not an onnx file"), "{cut}: {error}");
        }
        for at in (0..whole.len()).filter(|at| *at < 120 || at + 120 > whole.len()) {
            for byte in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let _ = read(&bytes);
            }
        }
        assert!(read(b"PK not a model at all, but some bytes").is_err());
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_is_an_error_of_the_system() {
        let bytes = model().encode_to_vec();
        let mut pieces = Pieces::new(Cursor::new(&bytes[..100]), bytes.len() as u64);
        let _ = ModelFields::decode(&mut pieces);
        assert!(pieces.error.is_some());
    }

    #[test]
    fn weights_in_a_second_file_are_missed_when_it_is_gone() {
        let mut model = model();
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
        tensor.raw_data.clear();
        tensor.data_location = DataLocation::External.into();
        tensor.external_data = vec![entry("location", "model.onnx_data"), entry("offset", "4096")];
        let found = read(&model.encode_to_vec()).unwrap();
        let wanted = External { location: "model.onnx_data".to_owned(), needed: 24_096, found: None };
        assert_eq!(found.external, [wanted]);
    }
}
