//! The ONNX protobuf: attributes, tensors, symbolic axes, the model around a graph, and the file.

use std::io::Write as _;
use std::path::Path;

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::tensor_shape_proto::{Dimension, dimension};
use candle_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use prost::Message as _;

use crate::{Error, Options, Result};

/// IR version 8 came with opset 15 and is the one the format's table names for opsets 17 and 18.
const IR_VERSION: i64 = 8;
/// The format's own limit: protobuf messages end at 2 GiB.
const MAX_BYTES: usize = i32::MAX as usize;

/// An axis of an input or output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Axis {
    /// free, under this name
    Free(&'static str),
    /// always this long
    Fixed(usize),
}

/// The axis of texts.
pub(crate) const ROWS: Axis = Axis::Free("batch_size");
/// The axis of a text's tokens.
pub(crate) const TOKENS: Axis = Axis::Free("sequence_length");

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Int.into(), i: value, ..Default::default() }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints.into(),
        ints: values.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn f32_tensor(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, shape, DataType::Float, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(crate) fn i64_tensor(name: &str, shape: &[usize], values: &[i64]) -> TensorProto {
    tensor(name, shape, DataType::Int64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn tensor(name: &str, shape: &[usize], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: shape.iter().map(|&length| length as i64).collect(),
        data_type: data_type.into(),
        raw_data,
        ..Default::default()
    }
}

/// What an input or output is called and looks like.
pub(crate) fn value_info(name: &str, data_type: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dimension = |axis: &Axis| Dimension {
        value: Some(match axis {
            Axis::Free(name) => dimension::Value::DimParam((*name).to_owned()),
            Axis::Fixed(length) => dimension::Value::DimValue(*length as i64),
        }),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: axes.iter().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: data_type.into(), shape: Some(shape) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

/// The model around a graph.
pub(crate) fn model(graph: GraphProto, options: &Options) -> ModelProto {
    let entry = |(key, value): (&String, &String)| StringStringEntryProto { key: key.clone(), value: value.clone() };
    ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: options.opset }],
        producer_name: "splade".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        metadata_props: options.metadata.iter().map(entry).collect(),
        ..Default::default()
    }
}

/// Writes a model as one file: to a temporary sibling, then renamed.
///
/// # Errors
/// A folder that cannot be written; a model above the 2 GiB a protobuf file may have.
pub fn write(model: &ModelProto, path: &Path) -> Result<()> {
    let size = model.encoded_len();
    if size > MAX_BYTES {
        let message = format!("{}: {size} bytes are more than the 2 GiB one onnx file may have", path.display());
        return Err(Error::invalid(message, "export a smaller model or a quantized form of this one"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |error| Error::from(splade_index::Error::io(path)(error));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(&model.encode_to_vec()).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}
