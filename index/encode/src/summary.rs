//! [`OnnxSummary`]: operator sets, inputs and outputs, nodes, weights by type and metadata of an ONNX file.
//!
//! Values of weights are skipped, so that large files are read fast.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use splade_files::Precision;

use crate::onnx_file::{self, Axis, OnnxFile, TensorHeader, ValueInfo};
use crate::{Error, Result, metadata};

/// Summary of an ONNX file, without the values of its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxSummary {
    /// version of the format
    pub ir_version: i64,
    /// name and version of the tool that wrote the file
    pub producer: String,
    /// operator sets: domain (empty is ONNX's own) and version
    pub opsets: Vec<(String, i64)>,
    /// inputs of the graph
    pub inputs: Vec<OnnxValue>,
    /// outputs of the graph
    pub outputs: Vec<OnnxValue>,
    /// number of nodes by operator, with those of nested graphs; names have the domain in front, unless it is ONNX's own, as
    /// in `com.microsoft.Gelu`
    pub operators: BTreeMap<String, u64>,
    /// weights and constants by data type
    pub weights: BTreeMap<String, OnnxWeights>,
    /// `metadata_props`, the entries of this program among them ([`metadata`])
    pub metadata: BTreeMap<String, String>,
    /// files of weights beside the file
    pub external: Vec<External>,
    /// size of the file in bytes
    pub bytes: u64,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxValue {
    /// name
    pub name: String,
    /// data type
    pub data_type: String,
    /// axes: a number, or the name of a free axis
    pub axes: Vec<String>,
}

/// Counts of the tensors of one data type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxWeights {
    /// number of tensors
    pub tensors: u64,
    /// number of values
    pub values: u64,
    /// size in bytes, by shapes and type
    pub bytes: u64,
}

/// File of weights beside an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// path relative to the ONNX file's folder
    pub location: String,
    /// smallest size in bytes
    pub needed: u64,
    /// actual size in bytes; none if the file is missing
    pub found: Option<u64>,
}

impl OnnxSummary {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or is not ONNX.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = OnnxFile::open(path)?;
        let broken = |error| onnx_file::not_onnx(path, error);
        let header = file.header().map_err(broken)?;
        let mut tally = Tally::default();
        for tensor in file.tensors().map_err(broken)? {
            tally.names.insert(tensor.header.name.clone());
            tally.tensor(&tensor.header);
        }
        let (fields, encoded) = (&file.graph, &mut file.encoded);
        let nodes = encoded.all::<Node>(fields, onnx_file::graph::NODES).map_err(broken)?;
        let sparse = encoded.all::<SparseTensor>(fields, onnx_file::graph::SPARSE_TENSORS).map_err(broken)?;
        let inputs = encoded.all::<ValueInfo>(fields, onnx_file::graph::INPUTS).map_err(broken)?;
        let outputs = encoded.all::<ValueInfo>(fields, onnx_file::graph::OUTPUTS).map_err(broken)?;
        if nodes.is_empty() && outputs.is_empty() {
            return Err(Error::file(path, "not an onnx file: its graph is empty"));
        }
        nodes.iter().for_each(|node| tally.node(node));
        sparse.iter().filter_map(|sparse| sparse.values.as_ref()).for_each(|tensor| tally.tensor(tensor));
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self {
            ir_version: header.ir_version,
            producer: format!("{} {}", header.producer_name, header.producer_version).trim().to_owned(),
            opsets: header.opset_import.into_iter().map(|set| (set.domain, set.version)).collect(),
            inputs: inputs.iter().filter(|input| !tally.names.contains(&input.name)).map(value).collect(),
            outputs: outputs.iter().map(value).collect(),
            operators: tally.operators,
            weights: tally.weights,
            metadata: header.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect(),
            external: tally.external.into_iter().map(|(location, needed)| external(folder, location, needed)).collect(),
            bytes: file.encoded.length,
        })
    }

    /// Precision stated by the file, else the narrowest type with more than 256 values.
    ///
    /// An int8 file may have scales, norms and embeddings in floats, and an f32 file has a few integers.
    #[must_use]
    pub fn precision(&self) -> Precision {
        let stated = self.metadata.get(metadata::PRECISION);
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

    /// Number of values in all weights and constants, without indices.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let indices = ["int32", "int64", "bool", "string"];
        self.weights.iter().filter(|(name, _)| !indices.contains(&name.as_str())).map(|(_, stored)| stored.values).sum()
    }

    /// Files of weights that are missing or too short.
    pub fn missing_data(&self) -> impl Iterator<Item = &External> {
        self.external.iter().filter(|file| file.found.is_none_or(|found| found < file.needed))
    }
}

/// Number of values of a type up to which it does not decide the precision of a file.
const HANDFUL: u64 = 256;

/// Counts over the graphs of a file.
#[derive(Default)]
struct Tally {
    operators: BTreeMap<String, u64>,
    weights: BTreeMap<String, OnnxWeights>,
    external: BTreeMap<String, u64>,
    /// names of initializers: older files list them among the inputs too
    names: BTreeSet<String>,
}

impl Tally {
    fn graph(&mut self, graph: &Graph) {
        graph.node.iter().for_each(|node| self.node(node));
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph
            .sparse_initializer
            .iter()
            .filter_map(|sparse| sparse.values.as_ref())
            .for_each(|tensor| self.tensor(tensor));
        self.names.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    }

    fn node(&mut self, node: &Node) {
        let domain = if node.domain.is_empty() || node.domain == "ai.onnx" { "" } else { &node.domain };
        let dot = if domain.is_empty() { "" } else { "." };
        *self.operators.entry(format!("{domain}{dot}{}", node.op_type)).or_default() += 1;
        for attribute in &node.attribute {
            attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
        }
    }

    fn tensor(&mut self, tensor: &TensorHeader) {
        let lengths = tensor.dims.iter().map(|&length| u64::try_from(length).unwrap_or(0));
        // a broken file may have any shape, so sizes saturate
        let values = lengths.fold(1_u64, u64::saturating_mul);
        let bytes = values.saturating_mul(bits(tensor.data_type)).div_ceil(8);
        let stored = self.weights.entry(type_name(tensor.data_type)).or_default();
        stored.tensors += 1;
        stored.values = stored.values.saturating_add(values);
        stored.bytes = stored.bytes.saturating_add(bytes);
        if tensor.data_location == EXTERNAL {
            let entry =
                |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
            let number = |key: &str| entry(key).and_then(|value| value.parse::<u64>().ok());
            let end = number("offset").unwrap_or(0).saturating_add(number("length").unwrap_or(bytes));
            let needed = self.external.entry(entry("location").cloned().unwrap_or_default()).or_default();
            *needed = end.max(*needed);
        }
    }
}

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

fn external(folder: &Path, location: String, needed: u64) -> External {
    let found = std::fs::metadata(folder.join(&location)).ok().filter(std::fs::Metadata::is_file);
    External { found: found.map(|file| file.len()), location, needed }
}

fn value(info: &ValueInfo) -> OnnxValue {
    let tensor = info.of.as_ref().and_then(|of| of.tensor.as_ref());
    let axes = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| shape.axes.as_slice()).unwrap_or_default();
    let axes = axes.iter().map(|axis| match &axis.axis {
        Some(Axis::Length(length)) => length.to_string(),
        Some(Axis::Name(name)) => name.clone(),
        None => "?".to_owned(),
    });
    OnnxValue {
        name: info.name.clone(),
        data_type: tensor.map_or_else(|| "not a tensor".to_owned(), |tensor| type_name(tensor.element)),
        axes: axes.collect(),
    }
}

/// Names of ONNX's element types and their sizes in bits, by number; 0 bits for types without a fixed size.
const TYPES: [(&str, u64); 24] = [
    ("undefined", 0),
    ("float", 32),
    ("uint8", 8),
    ("int8", 8),
    ("uint16", 16),
    ("int16", 16),
    ("int32", 32),
    ("int64", 64),
    ("string", 0),
    ("bool", 8),
    ("float16", 16),
    ("double", 64),
    ("uint32", 32),
    ("uint64", 64),
    ("complex64", 64),
    ("complex128", 128),
    ("bfloat16", 16),
    ("float8e4m3fn", 8),
    ("float8e4m3fnuz", 8),
    ("float8e5m2", 8),
    ("float8e5m2fnuz", 8),
    ("uint4", 4),
    ("int4", 4),
    ("float4e2m1", 4),
];

/// Name of a type, such as `float` or `int8`; the number of an unknown type.
fn type_name(code: i32) -> String {
    let known = usize::try_from(code).ok().and_then(|code| TYPES.get(code));
    known.map_or_else(|| format!("type {code}"), |(name, _)| (*name).to_owned())
}

/// Size of a value of a type in bits.
fn bits(code: i32) -> u64 {
    usize::try_from(code).ok().and_then(|code| TYPES.get(code)).map_or(0, |(_, bits)| *bits)
}

/// `GraphProto` inside a node.
#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorHeader>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensor>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    domain: String,
}

/// `AttributeProto`: tensors and graphs inside a node.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    t: Option<TensorHeader>,
    #[prost(message, optional, tag = "6")]
    g: Option<Graph>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorHeader>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
}

/// `SparseTensorProto`.
#[derive(Clone, PartialEq, Message)]
struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorHeader>,
}
