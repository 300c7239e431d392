//! [`OnnxFile`]: the parts of an ONNX file that this crate reads, without the values of its weights.
//!
//! Messages are declared here with the fields that are read, with the numbers of the format. prost skips all other fields.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use half::f16;
use prost::Message;

use crate::protobuf::{Field, Part, ProtobufFile};
use crate::{Error, Result};

/// Numbers of the fields of a model …
pub(crate) mod model {
    pub(crate) const GRAPH: u32 = 7;
    pub(crate) const OPERATOR_SETS: u32 = 8;
    pub(crate) const METADATA: u32 = 14;
}

/// … of a graph …
pub(crate) mod graph {
    pub(crate) const NODES: u32 = 1;
    pub(crate) const TENSORS: u32 = 5;
    pub(crate) const INPUTS: u32 = 11;
    pub(crate) const OUTPUTS: u32 = 12;
    pub(crate) const VALUES: u32 = 13;
    pub(crate) const SPARSE_TENSORS: u32 = 15;
}

/// … and those of a tensor that hold its values, as bytes (`RAW`) or as numbers.
mod tensor {
    pub(super) const RAW: u32 = 9;
    pub(super) const VALUES: [u32; 7] = [4, 5, 6, 7, RAW, 10, 11];
}

/// Element types of ONNX that this crate distinguishes.
pub(crate) mod element {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const FLOAT16: i32 = 10;
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

/// `ModelProto` without its graph.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<Entry>,
}

/// `TensorProto` without its values.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorHeader {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<Entry>,
    /// 1 if the values are in another file
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) of: Option<Type>,
}

/// `TypeProto`, of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) element: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) axes: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(oneof = "Axis", tags = "1, 2")]
    pub(crate) axis: Option<Axis>,
}

/// Length of an axis, or the name of a free one.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Axis {
    #[prost(int64, tag = "1")]
    Length(i64),
    #[prost(string, tag = "2")]
    Name(String),
}

/// A tensor of a graph: its header, and the positions of its values and of itself.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) header: TensorHeader,
    /// position of the values as bytes; empty if they are numbers or in another file
    raw: Range<u64>,
    /// position of the start of the message
    pub(crate) at: u64,
}

/// An open ONNX file.
pub(crate) struct OnnxFile {
    pub(crate) encoded: ProtobufFile,
    /// fields of the model
    pub(crate) model: Vec<Field>,
    /// fields of its graph
    pub(crate) graph: Vec<Field>,
}

impl OnnxFile {
    /// Opens a file and finds the fields of its model and graph.
    ///
    /// # Errors
    /// A file that cannot be read or is not ONNX.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Err(Error::io(path)(io::ErrorKind::IsADirectory.into()));
        }
        let mut encoded = ProtobufFile::new(splade_files::open_file(path)?).map_err(Error::io(path))?;
        let fields = || -> io::Result<Option<(Vec<Field>, Vec<Field>)>> {
            let model = encoded.fields(0..encoded.length)?;
            let Some(graph) = model.iter().find(|field| field.tag == model::GRAPH) else { return Ok(None) };
            let graph = encoded.fields(graph.payload.clone())?;
            Ok(Some((model, graph)))
        };
        match { fields }() {
            Ok(Some((model, graph))) => Ok(Self { encoded, model, graph }),
            Ok(None) => Err(Error::file(path, "not an onnx file: it has no graph")),
            Err(error) => Err(not_onnx(path, error)),
        }
    }

    /// Reads the model without its graph.
    pub(crate) fn header(&mut self) -> io::Result<Header> {
        let parts = self.model.iter().filter(|field| field.tag != model::GRAPH);
        let parts: Vec<Part> = parts.map(|field| Part::Kept(field.whole.clone())).collect();
        Ok(Header::decode(self.encoded.joined(&parts)?.as_slice())?)
    }

    /// Reads `metadata_props`.
    pub(crate) fn metadata(&mut self) -> io::Result<BTreeMap<String, String>> {
        let entries = self.encoded.all::<Entry>(&self.model, model::METADATA)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    /// Reads the headers of the tensors of the graph, in their order.
    pub(crate) fn tensors(&mut self) -> io::Result<Vec<Stored>> {
        let fields: Vec<Range<u64>> =
            self.graph.iter().filter(|field| field.tag == graph::TENSORS).map(|field| field.payload.clone()).collect();
        fields.into_iter().map(|range| self.tensor(range)).collect()
    }

    fn tensor(&mut self, range: Range<u64>) -> io::Result<Stored> {
        let at = range.start;
        let fields = self.encoded.fields(range)?;
        let (values, others): (Vec<&Field>, Vec<&Field>) =
            fields.iter().partition(|field| tensor::VALUES.contains(&field.tag));
        let others: Vec<Part> = others.into_iter().map(|field| Part::Kept(field.whole.clone())).collect();
        let header = TensorHeader::decode(self.encoded.joined(&others)?.as_slice())?;
        let raw = values.iter().find(|field| field.tag == tensor::RAW).map_or(0..0, |raw| raw.payload.clone());
        Ok(Stored { header, raw, at })
    }

    /// Reads element type and bytes of a tensor; none if the bytes are elsewhere or do not fit the shape.
    pub(crate) fn bytes(&mut self, stored: &Stored) -> io::Result<Option<(i32, Vec<u8>)>> {
        let mut lengths = stored.header.dims.iter().map(|length| u64::try_from(*length).ok());
        let count = lengths.try_fold(1_u64, |count, length| count.checked_mul(length?));
        let size = match stored.header.data_type {
            element::FLOAT => 4,
            element::FLOAT16 => 2,
            element::INT8 => 1,
            _ => return Ok(None),
        };
        if count.and_then(|count| count.checked_mul(size)) != Some(stored.raw.end - stored.raw.start) {
            return Ok(None);
        }
        Ok(Some((stored.header.data_type, self.encoded.bytes(stored.raw.clone())?)))
    }

    /// Reads the values of a tensor of floats; none for other types, and as for [`bytes`](Self::bytes).
    pub(crate) fn floats(&mut self, stored: &Stored) -> io::Result<Option<Vec<f32>>> {
        Ok(self.bytes(stored)?.and_then(|(element, bytes)| match element {
            element::FLOAT => Some(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            element::FLOAT16 => {
                Some(bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect())
            }
            _ => None,
        }))
    }
}

/// Error for a file that is not ONNX or cannot be read.
pub(crate) fn not_onnx(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::file(path, format!("not an onnx file: {error}"))
        }
        _ => Error::io(path)(error),
    }
}
