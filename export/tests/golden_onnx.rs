//! Exported files against the reference implementations, in ONNX Runtime and candle-onnx.
//!
//! Goldens and tolerances are those of docs/architectures.md section 10.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_onnx::onnx::tensor_shape_proto::dimension::Value as Dimension;
use candle_onnx::onnx::{ValueInfoProto, type_proto};
use common::{Golden, Known, OnnxRuntime, families};
use ndarray::Axis;
use splade_core::{HeadMode, TokenBatch};
use splade_core::{Pooling, PoolingActivation, SpladePooling};
use splade_export::parity::{Backend, CandleOnnx, Reference, Report, compare};
use splade_export::{Head, OPSETS, Options, export, write};

const SPLADE: Head = Head::Splade(SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu });
const HEADS: [Head; 2] = [Head::Logits, SPLADE];

fn file(folder: &Path, golden: &Golden, head: Head, opset: i64) -> PathBuf {
    let path = folder.join(format!("{opset}_{}", head.file_name()));
    write(golden.export(head, opset), &path).unwrap();
    path
}

/// Both runtimes against `reference`; fails where either differs or ranks terms otherwise.
fn assert_agreement(file: &Path, head: Head, reference: &dyn Backend, batches: &[TokenBatch]) -> Report {
    let (onnx_runtime, candle_onnx) = (OnnxRuntime::load(file), CandleOnnx::read(file).unwrap());
    let report = compare(file, head, reference, &[&onnx_runtime, &candle_onnx], batches).unwrap();
    report.check().unwrap_or_else(|error| panic!("{error}: {report:?}"));
    for agreement in &report.agreements {
        assert!(agreement.cosine > 0.999_999, "{agreement:?}");
        assert_eq!(agreement.same_top, agreement.vectors, "{agreement:?}");
    }
    report
}

#[test]
fn files_agree_with_the_reference_implementation() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        for opset in OPSETS {
            let heads = [(Head::HiddenStates, "last_hidden_state"), (Head::Logits, "logits"), (SPLADE, "splade")];
            for (head, expected) in heads {
                let file = file(folder.path(), &golden, head, opset);
                let expected = Known(golden.values(expected));
                let report = assert_agreement(&file, head, &expected, &[golden.batch()]);
                for found in &report.agreements {
                    println!(
                        "{family:16} opset {opset} {:18} {:12} {:.1e}",
                        head.output(),
                        found.backend,
                        found.difference
                    );
                }
                let vectors = if head.is_per_token() { golden.texts().concat().len() } else { golden.texts().len() };
                assert!(report.agreements.iter().all(|agreement| agreement.vectors == vectors));
            }
        }
    }
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_padded_batch() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        let file = file(folder.path(), &golden, SPLADE, 17);
        let expected = golden.values("splade");
        for (text, expected) in golden.texts().into_iter().zip(expected.axis_chunks_iter(Axis(0), 1)) {
            assert_agreement(&file, SPLADE, &Known(expected.to_owned()), &[TokenBatch::new(&[text], golden.pad)]);
        }
    }
}

#[test]
fn files_agree_with_candle_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        let longest = golden.texts().into_iter().max_by_key(Vec::len).unwrap();
        // beyond the tables, buckets and windows of the families that have no greatest length
        let most = golden.config.max_positions().unwrap_or(150);
        let text: Vec<u32> = longest.iter().copied().cycle().take(most).collect();
        let lengths = (1..24).chain((24..most).step_by(13)).chain([most]);
        let mut batches: Vec<TokenBatch> =
            lengths.map(|length| TokenBatch::new(&[text[..length].to_vec()], golden.pad)).collect();
        batches.push(TokenBatch::new(&[text[..1].to_vec(), text.clone(), text[..7].to_vec()], golden.pad));
        for head in HEADS {
            for opset in OPSETS {
                let file = file(folder.path(), &golden, head, opset);
                assert_agreement(&file, head, &Reference::new(&golden.config, &golden.weights, head), &batches);
            }
        }
    }
}

#[test]
fn every_pooling_agrees_with_candle() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        for strategy in [Pooling::Max, Pooling::Sum] {
            for activation in [PoolingActivation::Relu, PoolingActivation::Log1pRelu] {
                let head = Head::Splade(SpladePooling { strategy, activation });
                let file = file(folder.path(), &golden, head, 17);
                let reference = Reference::new(&golden.config, &golden.weights, head);
                assert_agreement(&file, head, &reference, &[golden.batch()]);
            }
        }
    }
}

#[test]
fn every_head_mode_agrees_with_the_reference_implementation() {
    let folder = tempfile::tempdir().unwrap();
    let mut golden = Golden::family("norbert4-tiny");
    let expected = ["splade", "splade_raw_shifted", "splade_raw", "splade_softcap"];
    for ((mode, name), expected) in HeadMode::ALL.into_iter().zip(expected) {
        golden.config.set_head_mode(mode).unwrap();
        for opset in OPSETS {
            let splade = file(folder.path(), &golden, SPLADE, opset);
            assert_agreement(&splade, SPLADE, &Known(golden.values(expected)), &[golden.batch()]);
            // an empty text is one token, and has no other token to be moved from
            let empty = [TokenBatch::new(&[vec![1]], 3), TokenBatch::new(&[vec![1], vec![1, 60, 61], vec![]], 3)];
            for head in [SPLADE, Head::Logits] {
                let file = file(folder.path(), &golden, head, opset);
                assert_agreement(&file, head, &Reference::new(&golden.config, &golden.weights, head), &empty);
            }
            println!("{name} agrees");
        }
    }
}

#[test]
fn a_row_without_tokens_gives_zeros_and_disturbs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        for opset in OPSETS {
            let file = file(folder.path(), &golden, SPLADE, opset);
            let batch = TokenBatch::new(&[vec![2, 150, 3], vec![], vec![2, 170, 180, 3]], golden.pad);
            let alone = [vec![2, 150, 3], vec![2, 170, 180, 3]].map(|text| TokenBatch::new(&[text], golden.pad));
            let reference = Reference::new(&golden.config, &golden.weights, SPLADE);
            assert_agreement(&file, SPLADE, &reference, std::slice::from_ref(&batch));
            let runtimes: [&dyn Backend; 2] = [&OnnxRuntime::load(&file), &CandleOnnx::read(&file).unwrap()];
            for runtime in runtimes {
                let rows = runtime.run(&batch).unwrap();
                assert!(rows.row(1).iter().all(|weight| *weight == 0.0), "{} {family}", runtime.name());
                for (row, alone) in [rows.row(0), rows.row(2)].iter().zip(&alone) {
                    let alone = runtime.run(alone).unwrap();
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5;
                    assert!(row.iter().zip(&alone).all(near), "{} {family}", runtime.name());
                }
            }
        }
    }
}

#[test]
fn a_file_says_what_it_takes_and_gives() {
    let golden = Golden::family("bert-tiny");
    for opset in OPSETS {
        for head in HEADS {
            let metadata = BTreeMap::from([("pooling".to_owned(), "max".to_owned())]);
            let model = export(&golden.config, &golden.weights, head, &Options { opset, metadata }).unwrap();
            assert_eq!(
                model.opset_import.iter().map(|set| (&*set.domain, set.version)).collect::<Vec<_>>(),
                [("", opset)]
            );
            assert_eq!((model.producer_name.as_str(), model.ir_version), ("splade", 8));
            assert_eq!(model.metadata_props[0].key, "pooling");
            let graph = model.graph.unwrap();
            let inputs: Vec<String> = graph.input.iter().map(described).collect();
            assert_eq!(
                inputs,
                ["input_ids", "attention_mask", "token_type_ids"]
                    .map(|name| format!("{name} 7 [batch_size, sequence_length]"))
            );
            let output = match head {
                Head::Logits => "logits 1 [batch_size, sequence_length, 400]",
                Head::Splade(_) => "sentence_embedding 1 [batch_size, 400]",
                Head::HiddenStates => unreachable!("it is not among HEADS"),
            };
            assert_eq!(graph.output.iter().map(described).collect::<Vec<_>>(), [output]);
        }
    }
}

/// Name, element type and axes of an input or output.
fn described(value: &ValueInfoProto) -> String {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        panic!("{} is no tensor", value.name);
    };
    let axis = |value: &Option<Dimension>| match value {
        Some(Dimension::DimParam(name)) => name.clone(),
        Some(Dimension::DimValue(length)) => length.to_string(),
        None => "?".to_owned(),
    };
    let axes: Vec<String> = tensor.shape.as_ref().unwrap().dim.iter().map(|dim| axis(&dim.value)).collect();
    format!("{} {} [{}]", value.name, tensor.elem_type, axes.join(", "))
}

#[test]
fn every_weight_is_stored_once_and_every_name_is_its_own() {
    let golden = Golden::family("bert-tiny");
    for head in HEADS {
        let graph = golden.export(head, 17).graph.unwrap();
        let floats: usize = graph.initializer.iter().filter(|t| t.data_type == 1).map(|t| t.raw_data.len() / 4).sum();
        // constants of the operators come on top
        assert!((0..64).contains(&(floats - golden.weights.parameter_count())), "{floats}");
        let names: BTreeSet<&String> = graph.node.iter().map(|node| &node.name).collect();
        assert_eq!(names.len(), graph.node.len());
        let softmax = graph.node.iter().filter(|node| node.op_type == "Softmax").count();
        let masks = graph.node.iter().filter(|node| node.op_type == "Cast" && node.attribute[0].i == 1).count();
        assert_eq!((softmax, masks), (3, 1), "one mask for all layers");
    }
}

#[test]
fn onnx_runtime_fuses_what_is_written_out() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::family("bert-tiny");
    for opset in OPSETS {
        let file = file(folder.path(), &golden, SPLADE, opset);
        let optimized = folder.path().join("optimized.onnx");
        OnnxRuntime::load_and_save(&file, Some(&optimized));
        let graph = candle_onnx::read_file(&optimized).unwrap().graph.unwrap();
        let count = |operator: &str| graph.node.iter().filter(|node| node.op_type == operator).count();
        // three layers with two skip connections each, the norms of the embeddings and of the head
        assert_eq!(count("SkipLayerNormalization"), 6);
        assert_eq!(count("LayerNormalization"), 2);
        assert_eq!(count("BiasGelu"), 4);
        assert_eq!(count("FusedMatMul"), 3, "the scale of the scores is part of their product");
        assert_eq!(["ReduceMean", "Erf", "Pow", "Sqrt", "Identity"].map(count), [0; 5]);
    }
}

/// `PYTHON` names the interpreter, `python3` by default.
#[test]
#[ignore = "needs Python with onnx; run with `cargo test --workspace --test golden_onnx -- --ignored python`"]
fn the_python_checker_accepts_the_files() {
    let python = |code: &str, arguments: &[&Path]| {
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
        Command::new(python).arg("-c").arg(code).args(arguments).output()
    };
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::family("bert-tiny");
    for opset in OPSETS {
        for head in HEADS {
            let file = file(folder.path(), &golden, head, opset);
            let code = "import onnx, sys; onnx.checker.check_model(sys.argv[1], full_check=True)";
            let output = python(code, &[&file]).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// The folder `shared` beside the repository, or the folder that `SPLADE_SHARED` names.
fn shared() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    std::env::var_os("SPLADE_SHARED").map_or_else(beside, PathBuf::from)
}

#[test]
#[ignore = "needs ../shared; run with `cargo test --workspace --test golden_onnx -- --ignored real_model`"]
fn a_real_model_agrees_with_the_reference_implementation() {
    let shared = shared();
    let golden =
        Golden::load(&shared.join("models/splade-tiny"), &shared.join("fixtures/splade-tiny/expected.safetensors"));
    let folder = tempfile::tempdir().unwrap();
    let splade = file(folder.path(), &golden, SPLADE, 17);
    assert_agreement(&splade, SPLADE, &Known(golden.values("splade")), &[golden.batch()]);
    let logits = file(folder.path(), &golden, Head::Logits, 17);
    let reference = Reference::new(&golden.config, &golden.weights, Head::Logits);
    assert_agreement(&logits, Head::Logits, &reference, &[golden.batch()]);
}

#[test]
fn an_unknown_opset_is_refused() {
    let golden = Golden::family("bert-tiny");
    let options = Options { opset: 12, ..Options::default() };
    let error = export(&golden.config, &golden.weights, SPLADE, &options).unwrap_err();
    assert_eq!(error.to_string(), "opset 12 cannot be written");
    assert!(error.kind().is_bad_input() && error.hint().is_some());
}
