//! The ONNX protobuf: attributes, tensors, symbolic axes, the model around a graph, and the file.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_proto::{DataLocation, DataType};
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

pub(crate) fn i8_tensor(name: &str, shape: &[usize], values: &[i8]) -> TensorProto {
    tensor(name, shape, DataType::Int8, values.iter().map(|value| value.cast_unsigned()).collect())
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

/// Writes a model: to a temporary sibling, then renamed.
///
/// A model above the 2 GiB a protobuf file may have gets its large tensors in a second file beside it, named like the
/// first with `_data` behind (`model.onnx_data`), which readers find by themselves.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(model: ModelProto, path: &Path) -> Result<()> {
    write_within(model, path, MAX_BYTES)
}

fn write_within(mut model: ModelProto, path: &Path, limit: usize) -> Result<()> {
    if model.encoded_len() > limit {
        let location = format!("{}_data", path.file_name().unwrap_or_default().to_string_lossy());
        let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
        replace(&path.with_file_name(&location), |file| move_out(tensors, &location, file))?;
    }
    replace(path, |file| file.write_all(&model.encode_to_vec()))
}

/// Writes a file aside, then renames it.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |error| Error::from(splade_index::Error::io(path)(error));
    let mut file = aside(folder).map_err(io)?;
    write(file.as_file_mut()).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// A temporary file that others may read once it is renamed: by default only its owner may.
fn aside(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // less what the user's umask takes away
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Tensors below this many bytes stay in the model, where shape inference can read them.
const SMALL: usize = 1024;
/// Tensors begin at a page, so that readers can map the file into memory.
const PAGE: usize = 4096;

/// Moves the values of the large tensors to `file`, which the model will know as `location`.
fn move_out<'t>(tensors: impl Iterator<Item = &'t mut TensorProto>, location: &str, file: &mut File) -> io::Result<()> {
    let mut end = 0_usize;
    for tensor in tensors.filter(|tensor| tensor.raw_data.len() >= SMALL) {
        let data = std::mem::take(&mut tensor.raw_data);
        let offset = end.next_multiple_of(PAGE);
        file.write_all(&vec![0; offset - end])?;
        file.write_all(&data)?;
        end = offset + data.len();
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        tensor.data_location = DataLocation::External.into();
        tensor.external_data = vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", data.len().to_string()),
        ];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_above_the_limit_is_written_as_two_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        let large = vec![1.5; 2000];
        let graph = GraphProto {
            initializer: vec![
                f32_tensor("a", &[1], &[2.0]),
                f32_tensor("b", &[2000], &large),
                f32_tensor("c", &[2000], &large),
            ],
            ..Default::default()
        };
        write_within(model(graph, &Options::default()), &path, 4000).expect("written");
        let tensors = candle_onnx::read_file(&path).expect("read").graph.expect("a graph").initializer;
        assert_eq!(tensors[0].raw_data.len(), 4);
        assert!(tensors[1].raw_data.is_empty() && tensors[2].raw_data.is_empty());
        let entries: Vec<&str> = tensors[2].external_data.iter().map(|entry| entry.value.as_str()).collect();
        assert_eq!(entries, ["model.onnx_data", "8192", "8000"]);
        let data = std::fs::read(folder.path().join("model.onnx_data")).expect("read");
        assert_eq!((data.len(), &data[8192..8196]), (16192, 1.5_f32.to_le_bytes().as_slice()));
    }
}
