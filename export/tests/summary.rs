//! `OnnxSummary` of complete and of broken files: facts or an error, never a panic.

use std::path::Path;

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_proto::{DataLocation, DataType};
use candle_onnx::onnx::tensor_shape_proto::{Dimension, dimension};
use candle_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message as _;
use splade_encode::{External, OnnxSummary, OnnxWeights, Result};
use splade_files::Precision;

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: key.into(), value: value.into() }
}

fn tensor(name: &str, dims: &[i64], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: data_type.into(), raw_data, ..Default::default() }
}

fn value_info(name: &str, data_type: DataType, axes: Vec<dimension::Value>) -> ValueInfoProto {
    let dim = axes.into_iter().map(|axis| Dimension { value: Some(axis), ..Default::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: data_type.into(), shape: Some(TensorShapeProto { dim }) };
    let of = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(of), ..Default::default() }
}

/// Three nodes, one with a graph inside; 5000 floats, as bytes and as numbers.
fn model() -> ModelProto {
    use dimension::Value::{DimParam, DimValue};
    let node = |op: &str, domain: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: op.to_owned(),
        domain: domain.to_owned(),
        attribute,
        ..Default::default()
    };
    let inner = GraphProto { node: vec![node("Add", "", vec![])], ..Default::default() };
    let branch = AttributeProto { r#type: AttributeType::Graph.into(), g: Some(inner), ..Default::default() };
    let numbers = TensorProto { float_data: vec![2.5; 7], ..tensor("b", &[7], DataType::Float, vec![]) };
    let graph = GraphProto {
        node: vec![node("Add", "", vec![]), node("If", "", vec![branch]), node("Gelu", "com.microsoft", vec![])],
        initializer: vec![
            tensor("a", &[50, 100], DataType::Float, [0; 20_000].to_vec()),
            tensor("axes", &[2], DataType::Int64, [0; 16].to_vec()),
            numbers,
        ],
        input: vec![
            value_info("input_ids", DataType::Int64, vec![DimParam("batch_size".into()), DimValue(7)]),
            value_info("a", DataType::Float, vec![DimValue(50), DimValue(100)]),
        ],
        output: vec![value_info("logits", DataType::Float, vec![DimParam("batch_size".into())])],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        producer_name: "someone".into(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 18 }],
        graph: Some(graph),
        metadata_props: vec![entry("splade.version", "1")],
        ..Default::default()
    }
}

fn read(bytes: &[u8]) -> Result<OnnxSummary> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    OnnxSummary::read(&path)
}

#[test]
fn a_file_is_summed_up() {
    let bytes = model().encode_to_vec();
    let found = read(&bytes).unwrap();
    let operators: Vec<(&str, u64)> = found.operators.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(operators, [("Add", 2), ("If", 1), ("com.microsoft.Gelu", 1)]);
    assert_eq!(found.weights["float"], OnnxWeights { tensors: 2, values: 5007, bytes: 20_028 });
    assert_eq!(found.weights["int64"], OnnxWeights { tensors: 1, values: 2, bytes: 16 });
    let [input] = found.inputs.as_slice() else { panic!("initializers are no inputs: {:?}", found.inputs) };
    assert_eq!((input.name.as_str(), input.data_type.as_str()), ("input_ids", "int64"));
    assert_eq!(input.axes, ["batch_size", "7"]);
    assert_eq!((found.outputs[0].name.as_str(), found.opsets.as_slice()), ("logits", &[(String::new(), 18)][..]));
    assert_eq!((found.ir_version, found.producer.as_str(), found.bytes), (8, "someone", bytes.len() as u64));
    assert_eq!((found.metadata["splade.version"].as_str(), found.external.len()), ("1", 0));
    assert_eq!((found.precision(), found.parameters()), (Precision::Fp32, 5007));
}

#[test]
fn a_broken_file_is_named_and_never_a_panic() {
    let whole = model().encode_to_vec();
    for length in (0..whole.len()).step_by(97).chain([0, 1, 2]) {
        if let Err(error) = read(&whole[..length]) {
            assert!(error.to_string().contains("model.onnx: not an onnx file"), "{length}: {error}");
        }
    }
    let graph_only = whole.len() - 40;
    assert!(read(&whole[..100]).is_err() && read(&whole[..graph_only]).is_err() && read(&[]).is_err());
    for at in (0..whole.len()).filter(|at| *at < 120 || at + 200 > whole.len()) {
        for byte in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
    assert!(read(b"PK not a model at all, but some bytes").is_err());
    let error = OnnxSummary::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err().to_string();
    assert!(error.to_lowercase().contains("directory"), "{error}");
}

#[test]
fn weights_in_a_second_file_are_missed_when_it_is_gone() {
    let mut model = model();
    let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
    tensor.raw_data.clear();
    tensor.data_location = DataLocation::External.into();
    tensor.external_data = vec![entry("location", "model.onnx_data"), entry("offset", "4096")];
    let found = read(&model.encode_to_vec()).unwrap();
    let wanted = External { location: "model.onnx_data".to_owned(), needed: 24_096, found: None };
    assert_eq!(found.external, std::slice::from_ref(&wanted));
    assert_eq!(found.missing_data().collect::<Vec<_>>(), [&wanted]);
}
