//! ONNX protobuf: attributes, tensors, symbolic axes, models and files.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Component, Path};

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_proto::{DataLocation, DataType};
use candle_onnx::onnx::tensor_shape_proto::{Dimension, dimension};
use candle_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use prost::Message as _;

use crate::{Error, Options, Result};

/// IR version of the files: the format's table names 8 for opsets 15 to 18.
const IR_VERSION: i64 = 8;
/// Limit of the format: a protobuf message has at most 2 GiB.
const MAX_BYTES: usize = i32::MAX as usize;

/// An axis of an input or output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Axis {
    /// free axis with this name
    Free(&'static str),
    /// axis of this length
    Fixed(usize),
}

/// Axis of the texts.
pub(crate) const ROWS: Axis = Axis::Free("batch_size");
/// Axis of the tokens of a text.
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

pub(crate) fn u8_tensor(name: &str, shape: &[usize], values: &[u8]) -> TensorProto {
    tensor(name, shape, DataType::Uint8, values.to_vec())
}

/// Values of an f32 tensor of this module, which stores them as bytes.
pub(crate) fn f32_values(tensor: &TensorProto) -> Vec<f32> {
    tensor.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

pub(crate) fn tensor(name: &str, shape: &[usize], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: shape.iter().map(|&length| length as i64).collect(),
        data_type: data_type.into(),
        raw_data,
        ..Default::default()
    }
}

/// Declaration of an input or output.
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

/// Model with a graph.
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

/// Sets an entry of a model's metadata.
pub(crate) fn state(model: &mut ModelProto, key: &str, value: &str) {
    model.metadata_props.retain(|entry| entry.key != key);
    model.metadata_props.push(StringStringEntryProto { key: key.to_owned(), value: value.to_owned() });
}

/// Writes a model atomically.
///
/// A protobuf file has at most 2 GiB. A larger model gets a second file for its large tensors, with `_data` appended to the
/// name (`model.onnx_data`), which readers of the first file find.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(model: ModelProto, path: &Path) -> Result<()> {
    write_within(model, path, MAX_BYTES)
}

pub(crate) fn write_within(mut model: ModelProto, path: &Path, limit: usize) -> Result<()> {
    if model.encoded_len() > limit {
        let location = format!("{}_data", path.file_name().unwrap_or_default().to_string_lossy());
        let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
        replace(&path.with_file_name(&location), |file| move_out(tensors, &location, file))?;
    }
    replace(path, |file| file.write_all(&model.encode_to_vec()))
}

/// Reads a model and its tensors in a second file.
///
/// # Errors
/// A file that is missing or is not ONNX, a second file that is missing or too short.
pub fn read(path: &Path) -> Result<ModelProto> {
    let bytes = splade_files::read_file(path)?;
    let mut model = ModelProto::decode(bytes.as_slice())
        .map_err(|error| splade_files::Error::file(path, format!("not an onnx file: {error}")))?;
    for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if tensor.data_location == i32::from(DataLocation::External) {
            move_in(tensor, path)?;
        }
    }
    Ok(model)
}

/// Reads values of a tensor from another file in the folder of `path`.
fn move_in(tensor: &mut TensorProto, path: &Path) -> Result<()> {
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let wrong = |message: &str| splade_files::Error::file(path, format!("tensor {}: {message}", tensor.name));
    let location = entry("location").ok_or_else(|| wrong("its values lie in a file without a name"))?;
    if Path::new(location).components().ne([Component::Normal(location.as_ref())]) {
        return Err(wrong(&format!("{location} is not a file beside it")).into());
    }
    let number = |key: &str| {
        entry(key).map(|value| value.parse::<u64>().map_err(|_| wrong(&format!("broken {key}")))).transpose()
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let data = path.with_file_name(location);
    let io = |error| splade_files::Error::io(&data)(error);
    let mut file = splade_files::open_file(&data)?;
    let rest = file.metadata().map_err(io)?.len().checked_sub(offset);
    let length = length.or(rest).filter(|length| rest.is_some_and(|rest| *length <= rest));
    let Some(length) = length else {
        return Err(splade_files::Error::file(&data, format!("too short for the tensor {}", tensor.name)).into());
    };
    file.seek(io::SeekFrom::Start(offset)).map_err(io)?;
    tensor.raw_data = Vec::new();
    file.take(length).read_to_end(&mut tensor.raw_data).map_err(io)?;
    tensor.data_location = DataLocation::Default.into();
    tensor.external_data.clear();
    Ok(())
}

/// Writes a temporary file, then renames it.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |error| Error::from(splade_files::Error::io(path)(error));
    let mut file = aside(folder).map_err(io)?;
    write(file.as_file_mut()).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// Makes a temporary file that others may read after the rename; by default only its owner may.
fn aside(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // the umask of the user applies
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Size in bytes below which tensors stay in the model, where shape inference reads them.
const SMALL: usize = 1024;
/// Alignment of tensors in bytes: a page, so that readers can map the file into memory.
const PAGE: usize = 4096;

/// Moves the values of the large tensors to `file`, and names it `location` in the model.
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

    /// The precisions of a model with its weights in a second file, which the limit forces.
    fn large_files(folder: &Path) -> Vec<std::path::PathBuf> {
        let config = splade_trainer::model::TransformerConfig::Bert(splade_trainer::model::BertConfig {
            vocab_size: 64,
            hidden_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 64,
            ..Default::default()
        });
        let weights = splade_trainer::model::Weights::new(&config, 3).expect("weights");
        let head = crate::Head::Splade(splade_core::SpladePooling::default());
        splade_files::Precision::ALL
            .map(|precision| {
                let model = crate::export(&config, &weights, head, &Options::default()).expect("a model");
                let model = crate::convert(model, precision).expect("a model");
                let place = |name: &str| folder.join(precision.file_name(name));
                let (small, large) = (place(crate::SPLADE_FILE), place("large.onnx"));
                write(model.clone(), &small).expect("written");
                write_within(model.clone(), &large, 4000).expect("written");
                assert!(folder.join(precision.file_name("large.onnx") + "_data").is_file());
                assert_eq!(read(&large).expect("read"), model, "what was moved out comes back");
                large
            })
            .into()
    }

    #[test]
    fn onnx_runtime_reads_the_second_file_of_every_precision_and_names_it_when_it_is_gone() {
        use crate::parity::{Backend as _, OnnxRuntime};
        use splade_core::TokenBatch;
        use splade_encode::{OnnxModel, OnnxOptions};

        let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.onnxruntime");
        let files =
            std::fs::read_dir(runtime).expect("run `make setup` first").map(|file| file.expect("a file").path());
        let is_library = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime."))
        };
        splade_encode::load_onnx_runtime(&files.filter(is_library).collect::<Vec<_>>())
            .expect("run `make setup` first");
        let folder = tempfile::tempdir().expect("a folder");
        let batch = TokenBatch::new(&[vec![2, 5, 7, 3], vec![2, 3]], 0);
        let vectors = |path: &Path| {
            let model = OnnxModel::open(path, &OnnxOptions::default())?;
            Ok::<_, Error>(OnnxRuntime::new(model).run(&batch).expect("vectors"))
        };
        for large in large_files(folder.path()) {
            let name = large.file_name().expect("a name").to_string_lossy().into_owned();
            let small = large.with_file_name(name.replace("large", "model_splade"));
            assert_eq!(vectors(&large).expect("loaded"), vectors(&small).expect("loaded"), "{name}");
            let data = folder.path().join(format!("{name}_data"));
            std::fs::remove_file(&data).expect("removed");
            let error = vectors(&large).expect_err("its weights are missing");
            let expected = format!("{}: no such file: it holds the weights of the model beside it", data.display());
            assert_eq!(error.to_string(), expected);
            assert!(error.kind().is_bad_input());
            std::fs::write(&data, [0; 100]).expect("written");
            assert!(read(&large).expect_err("too short").to_string().contains("too short for the tensor"));
        }
    }

    #[test]
    fn a_second_file_outside_the_folder_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        for location in ["../weights", "/etc/passwd", "", "a/b"] {
            let entry = StringStringEntryProto { key: "location".to_owned(), value: location.to_owned() };
            let mut tensor = f32_tensor("a", &[1], &[2.0]);
            tensor.data_location = DataLocation::External.into();
            tensor.external_data = vec![entry];
            let graph = GraphProto { initializer: vec![tensor], ..Default::default() };
            write(model(graph, &Options::default()), &path).expect("written");
            let error = read(&path).expect_err("a file outside the folder").to_string();
            assert!(error.ends_with(&format!("tensor a: {location} is not a file beside it")), "{error}");
        }
    }
}
