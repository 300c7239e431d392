//! ONNX files as other tools write them: fixed numbers of texts and tokens, 32-bit ids, no attention mask, 16-bit outputs.
//! Each is run as it declares its inputs and gives the vectors of the plain file.

mod common;

use std::path::{Path, PathBuf};

use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::tensor_shape_proto::dimension::Value::DimValue;
use candle_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use common::Golden;
use splade_core::{Network, SparseVector, SpladePooling, TokenBatch};
use splade_encode::{Error, LIBRARY, OnnxModel, OnnxNetwork, OnnxOptions, Result, load_onnx_runtime};
use splade_export::{Head, write};

/// Texts of several lengths, one of them as long as a fixed length of 16.
const LENGTHS: [u32; 5] = [7, 2, 16, 1, 5];

struct Foreign {
    golden: Golden,
    folder: tempfile::TempDir,
}

impl Foreign {
    fn new() -> Self {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.onnxruntime");
        let files = std::fs::read_dir(library).expect("run `make setup` first").map(|file| file.unwrap().path());
        let is_library =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LIBRARY));
        load_onnx_runtime(&files.filter(is_library).collect::<Vec<_>>()).unwrap();
        Self { golden: Golden::family("bert-tiny"), folder: tempfile::tempdir().unwrap() }
    }

    fn batch(&self) -> TokenBatch {
        let texts: Vec<Vec<u32>> = LENGTHS.iter().map(|length| (0..*length).map(|at| 2 + 7 * at).collect()).collect();
        TokenBatch::new(&texts, self.golden.pad)
    }

    fn open(&self, head: Head, change: impl FnOnce(&mut GraphProto)) -> Result<OnnxNetwork> {
        let mut model: ModelProto = self.golden.export(head, 17);
        model.metadata_props.clear();
        change(model.graph.as_mut().unwrap());
        let path = self.folder.path().join(head.file_name());
        write(model, &path).unwrap();
        let options = OnnxOptions { threads: 2, ..OnnxOptions::default() };
        OnnxNetwork::new(OnnxModel::open(&path, &options)?, self.golden.config.vocab_size(), SpladePooling::default())
    }

    fn vectors(&self, head: Head, change: impl FnOnce(&mut GraphProto)) -> Vec<SparseVector> {
        self.open(head, change).unwrap().forward(&self.batch()).unwrap()
    }
}

const HEADS: [Head; 2] = [
    Head::Logits,
    Head::Splade(SpladePooling {
        strategy: splade_core::Pooling::Max,
        activation: splade_core::PoolingActivation::Relu,
    }),
];

/// Axes of an input or output.
fn shape(info: &mut ValueInfoProto) -> &mut type_proto::Tensor {
    match info.r#type.as_mut().unwrap().value.as_mut().unwrap() {
        type_proto::Value::TensorType(tensor) => tensor,
        other => panic!("{other:?}"),
    }
}

/// Fixes the first axes of all inputs, and the first axis of the outputs.
fn fix(graph: &mut GraphProto, lengths: &[i64]) {
    for input in &mut graph.input {
        let axes = &mut shape(input).shape.as_mut().unwrap().dim;
        axes.iter_mut().zip(lengths).for_each(|(axis, length)| axis.value = Some(DimValue(*length)));
    }
    for output in &mut graph.output {
        shape(output).shape.as_mut().unwrap().dim[0].value = Some(DimValue(lengths[0]));
    }
}

fn cast(from: &str, to: &str, data_type: DataType) -> NodeProto {
    let attribute = AttributeProto {
        name: "to".into(),
        r#type: candle_onnx::onnx::attribute_proto::AttributeType::Int.into(),
        i: i32::from(data_type).into(),
        ..Default::default()
    };
    NodeProto {
        name: format!("{to}/Cast"),
        op_type: "Cast".into(),
        input: vec![from.into()],
        output: vec![to.into()],
        attribute: vec![attribute],
        ..Default::default()
    }
}

/// Declares all inputs as int32.
fn narrow(graph: &mut GraphProto) {
    let names: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    graph.input.iter_mut().for_each(|input| shape(input).elem_type = DataType::Int32.into());
    for node in &mut graph.node {
        node.input.iter_mut().filter(|input| names.contains(input)).for_each(|input| input.push_str(".i64"));
    }
    for name in names {
        graph.node.insert(0, cast(&name, &format!("{name}.i64"), DataType::Int64));
    }
}

/// Declares the output as float16.
fn halve(graph: &mut GraphProto) {
    let name = graph.output[0].name.clone();
    for node in &mut graph.node {
        node.output.iter_mut().filter(|output| **output == name).for_each(|output| output.push_str(".f32"));
    }
    graph.node.push(cast(&format!("{name}.f32"), &name, DataType::Float16));
    shape(&mut graph.output[0]).elem_type = DataType::Float16.into();
}

fn assert_near(found: &[SparseVector], expected: &[SparseVector], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(expected.iter().all(|vector| !vector.is_empty()));
    for (found, expected) in found.iter().zip(expected) {
        for (dim, weight) in found.iter().chain(expected.iter()) {
            let difference = (found.weight(dim) - expected.weight(dim)).abs();
            assert!(difference <= tolerance, "{what}: dim {dim}, weight {weight}, {difference}");
        }
    }
}

type Change = fn(&mut GraphProto);

#[test]
fn files_are_run_as_they_declare_their_inputs() {
    let foreign = Foreign::new();
    let changes: [(&str, Change, f32); 7] = [
        ("one text", |graph| fix(graph, &[1]), 1e-5),
        ("three texts", |graph| fix(graph, &[3]), 1e-5),
        ("eight texts", |graph| fix(graph, &[8]), 1e-5),
        ("one text of 16 tokens", |graph| fix(graph, &[1, 16]), 1e-5),
        ("two texts of 40 tokens", |graph| fix(graph, &[2, 40]), 1e-5),
        ("int32", narrow, 0.0),
        ("float16", halve, 2e-3),
    ];
    for head in HEADS {
        let expected = foreign.vectors(head, |_| ());
        for (name, change, tolerance) in changes {
            assert_near(&foreign.vectors(head, change), &expected, tolerance, &format!("{head:?}, {name}"));
        }
    }
}

#[test]
fn texts_of_different_lengths_run_apart_where_there_is_no_mask() {
    let foreign = Foreign::new();
    // the mask of a text alone: ones, as many as there are ids
    let without_mask = |graph: &mut GraphProto| {
        let mask = graph.input.iter().position(|input| input.name == "attention_mask").unwrap();
        graph.input.remove(mask);
        let node = |op: &str, input: &[&str], output: &str| NodeProto {
            name: output.into(),
            op_type: op.into(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.into()],
            ..Default::default()
        };
        graph.node.insert(0, node("Equal", &["input_ids", "input_ids"], "same"));
        graph.node.insert(1, cast("same", "attention_mask", DataType::Int64));
    };
    for head in HEADS {
        let expected = foreign.vectors(head, |_| ());
        assert_near(&foreign.vectors(head, without_mask), &expected, 1e-5, "no mask");
        let error = foreign.open(head, |graph| {
            without_mask(graph);
            fix(graph, &[1, 16]);
        });
        let error = error.err().expect("padding would be text").to_string();
        assert!(error.contains("no attention_mask"), "{error}");
    }
}

/// Replaces the number that is added to the attention scores of padding.
fn set_mask(graph: &mut GraphProto, value: f32) {
    let is_low = |tensor: &&mut TensorProto| {
        tensor.data_type == i32::from(DataType::Float) && tensor.raw_data == (-10_000.0_f32).to_le_bytes()
    };
    let low: Vec<&mut TensorProto> = graph.initializer.iter_mut().filter(is_low).collect();
    assert!(!low.is_empty());
    low.into_iter().for_each(|tensor| tensor.raw_data = value.to_le_bytes().to_vec());
}

#[test]
fn a_mask_that_lets_padding_through_runs_texts_of_one_length_at_a_time() {
    let foreign = Foreign::new();
    for head in HEADS {
        for (value, can_pad) in [(f32::MIN, true), (-1e4, true), (-1.0, false)] {
            let network = foreign.open(head, |graph| set_mask(graph, value)).unwrap();
            assert_eq!(network.model().can_pad(), can_pad, "{head:?}, {value}");
            let batch = foreign.batch();
            let together = network.forward(&batch).unwrap();
            let alone = (0..batch.rows()).map(|text| network.forward(&batch.part(text..text + 1)).unwrap().remove(0));
            assert_near(&together, &alone.collect::<Vec<_>>(), 1e-5, &format!("{head:?}, {value}"));
        }
    }
}

#[test]
fn texts_longer_than_a_fixed_length_are_refused_by_the_network_and_truncated_by_its_limit() {
    let foreign = Foreign::new();
    let network = foreign.open(HEADS[0], |graph| fix(graph, &[1, 8])).unwrap();
    assert_eq!(network.max_length(), Some(8));
    let error = network.forward(&foreign.batch()).unwrap_err().to_string();
    assert!(error.contains("a text has 16 tokens, the file takes 8"), "{error}");
}

#[test]
fn outputs_that_are_no_logits_of_the_model_are_refused_at_load() {
    let foreign = Foreign::new();
    let error = foreign.open(Head::HiddenStates, |_| ()).err().expect("hidden states");
    assert!(matches!(error, Error::Signature { .. }), "{error:?}");
    assert!(error.to_string().contains("columns, but the model has 400 terms"), "{error}");
    // pooled weights are never negative: one row per text of raw logits is no vector
    let network = foreign.open(HEADS[1], |graph| {
        let name = graph.output[0].name.clone();
        for node in &mut graph.node {
            node.output.iter_mut().filter(|output| **output == name).for_each(|output| output.push_str(".positive"));
        }
        graph.node.push(NodeProto {
            op_type: "Neg".into(),
            input: vec![format!("{name}.positive")],
            output: vec![name],
            ..Default::default()
        });
    });
    let error = network.unwrap().forward(&foreign.batch()).unwrap_err().to_string();
    assert!(error.contains("read as pooled weights"), "{error}");
}
