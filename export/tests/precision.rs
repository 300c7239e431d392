//! fp16 and int8 files in ONNX Runtime, compared with Candle and with a plain twin of their arithmetic.

mod common;

use std::path::{Path, PathBuf};

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{
    AttributeProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto, type_proto,
};
use common::{Golden, OnnxRuntime, environment, families};
use ort::session::Session;
use ort::value::Tensor as OrtTensor;
use splade_core::{Pooling, PoolingActivation, SpladePooling, TokenBatch};
use splade_encode::metadata;
use splade_export::parity::{Backend, CandleOnnx, Reference, Report, compare_within, limits};
use splade_export::{Head, ModelProto, OPSETS, convert, write};
use splade_files::Precision;

const LOWER: [Precision; 2] = [Precision::Fp16, Precision::Int8];
const SPLADE: Head = Head::Splade(SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu });

fn heads() -> Vec<Head> {
    let mut heads = vec![Head::Logits];
    for strategy in [Pooling::Max, Pooling::Sum] {
        for activation in [PoolingActivation::Relu, PoolingActivation::Log1pRelu] {
            heads.push(Head::Splade(SpladePooling { strategy, activation }));
        }
    }
    heads
}

fn file(folder: &Path, golden: &Golden, head: Head, opset: i64, precision: Precision) -> PathBuf {
    let path = folder.join(format!("{opset}_{}", precision.file_name(head.file_name())));
    write(convert(golden.export(head, opset), precision).unwrap(), &path).unwrap();
    path
}

/// fp16 in both runtimes, int8 in ONNX Runtime: candle-onnx has no `DynamicQuantizeLinear` and no `MatMulInteger`.
fn against_candle(file: &Path, golden: &Golden, head: Head, precision: Precision, batches: &[TokenBatch]) -> Report {
    let onnx_runtime = OnnxRuntime::load(file);
    let candle_onnx = (precision != Precision::Int8).then(|| CandleOnnx::read(file).unwrap());
    let mut runtimes: Vec<&dyn Backend> = vec![&onnx_runtime];
    runtimes.extend(candle_onnx.iter().map(|runtime| runtime as &dyn Backend));
    let reference = Reference::new(&golden.config, &golden.weights, head);
    compare_within(limits(head, precision), file, head, &reference, &runtimes, batches).unwrap()
}

/// The batch, and every text of it alone.
fn batches(golden: &Golden) -> Vec<TokenBatch> {
    let mut batches: Vec<TokenBatch> =
        golden.texts().into_iter().map(|text| TokenBatch::new(&[text], golden.pad)).collect();
    batches.push(golden.batch());
    batches
}

#[test]
fn lower_precisions_are_near_the_checkpoint_in_every_head() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        for precision in LOWER {
            for opset in OPSETS {
                for head in heads() {
                    let file = file(folder.path(), &golden, head, opset, precision);
                    let report = against_candle(&file, &golden, head, precision, &batches(&golden));
                    report.check().unwrap_or_else(|error| panic!("{family}: {error}"));
                    let cosine = if precision == Precision::Int8 { 0.95 } else { 0.9999 };
                    for agreement in &report.agreements {
                        println!("{family:16} {precision} opset {opset} {head:?} {agreement:?}");
                        assert!(agreement.cosine > cosine, "{family} {precision} {head:?} {agreement:?}");
                        // and not by being fp32 under another name
                        assert!(agreement.difference > 1e-6, "{family} {precision} {head:?} {agreement:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_without_tokens_gives_zeros_and_the_others_what_they_give_alone() {
    let folder = tempfile::tempdir().unwrap();
    for family in &families() {
        let golden = Golden::family(family);
        let rows = [vec![2, 5, 3], vec![], vec![2, 7, 8, 3]];
        for precision in LOWER {
            for head in heads().into_iter().filter(|head| *head != Head::Logits) {
                let runtime = OnnxRuntime::load(&file(folder.path(), &golden, head, 17, precision));
                let found = runtime.run(&TokenBatch::new(&rows, golden.pad)).unwrap();
                assert!(found.row(1).iter().all(|weight| *weight == 0.0), "{family} {precision} {head:?}");
                for row in [0, 2] {
                    let alone = runtime.run(&TokenBatch::new(&rows[row..=row], golden.pad)).unwrap();
                    let pairs = || found.row(row).into_iter().zip(&alone);
                    if precision == Precision::Int8 {
                        // a batch shares the scales of its linear layers
                        let dot = |f: fn((&f32, &f32)) -> f32| pairs().map(f).sum::<f32>();
                        let cosine = dot(|(a, b)| a * b) / (dot(|(a, _)| a * a) * dot(|(_, b)| b * b)).sqrt();
                        assert!(cosine > 0.98, "{family} {head:?} {cosine}");
                    } else {
                        let most = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        assert!(most <= 1e-5, "{family} {precision} {head:?} {most}");
                    }
                }
            }
        }
    }
}

#[test]
fn int8_keeps_few_floats_and_each_weight_once() {
    for family in &families() {
        let golden = Golden::family(family);
        let bytes = |model: &ModelProto| -> usize {
            model.graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| tensor.raw_data.len()).sum()
        };
        let fp32 = bytes(&golden.export(SPLADE, 17));
        let fp16 = bytes(&convert(golden.export(SPLADE, 17), Precision::Fp16).unwrap());
        let int8 = convert(golden.export(SPLADE, 17), Precision::Int8).unwrap();
        assert!((0.5..0.56).contains(&(fp16 as f64 / fp32 as f64)), "{family} {fp16} {fp32}");
        // tiny models are mostly biases and positions: a real one has 0.27
        assert!((0.25..0.5).contains(&(bytes(&int8) as f64 / fp32 as f64)), "{family} {} {fp32}", bytes(&int8));
        let graph = int8.graph.unwrap();
        let codes: Vec<&TensorProto> =
            graph.initializer.iter().filter(|tensor| tensor.data_type == i32::from(DataType::Int8)).collect();
        assert!(codes.iter().all(|tensor| tensor.dims.len() == 2));
        let count = |operator: &str| graph.node.iter().filter(|node| node.op_type == operator).count();
        let distinct: std::collections::BTreeSet<&[u8]> =
            codes.iter().map(|tensor| tensor.raw_data.as_slice()).collect();
        assert_eq!(distinct.len(), codes.len(), "{family}: a matrix is stored twice");
        assert!(count("MatMulInteger") >= codes.len());
        assert_eq!(int8.metadata_props.iter().find(|entry| entry.key == metadata::PRECISION).unwrap().value, "int8");
    }
}

#[test]
fn onnx_runtime_makes_one_kernel_of_each_linear_layer() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::family("bert-tiny");
    for opset in OPSETS {
        let file = file(folder.path(), &golden, SPLADE, opset, Precision::Int8);
        let optimized = folder.path().join("optimized.onnx");
        OnnxRuntime::load_and_save(&file, Some(&optimized));
        let graph = splade_export::read(&optimized).unwrap().graph.unwrap();
        let count = |operator: &str| graph.node.iter().filter(|node| node.op_type == operator).count();
        // three layers: query, key and value share the codes of their input; the other three have their own
        assert_eq!(count("DynamicQuantizeMatMul") + count("MatMulIntegerToFloat"), 18);
        assert_eq!(count("MatMulIntegerToFloat"), 9);
        assert_eq!(count("MatMulInteger"), 1, "the head's, whose maximum is taken of whole numbers");
        assert_eq!(count("SkipLayerNormalization"), 6);
        assert_eq!(["Pow", "Erf"].map(count), [0; 2]);
        // attention, and the layer before the output matrix
        assert_eq!((count("FusedMatMul"), count("MatMul")), (3, 4));
    }
}

#[test]
fn a_session_folds_the_casts_of_fp16() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::family("bert-tiny");
    let file = file(folder.path(), &golden, SPLADE, 17, Precision::Fp16);
    let optimized = folder.path().join("optimized.onnx");
    OnnxRuntime::load_and_save(&file, Some(&optimized));
    let graph = splade_export::read(&optimized).unwrap().graph.unwrap();
    assert!(graph.initializer.iter().all(|tensor| tensor.data_type != i32::from(DataType::Float16)));
    let fp32 = folder.path().join("fp32.onnx");
    OnnxRuntime::load_and_save(&self::file(folder.path(), &golden, SPLADE, 17, Precision::Fp32), Some(&fp32));
    let operators = |graph: &GraphProto| graph.node.iter().map(|node| node.op_type.clone()).collect::<Vec<_>>();
    assert_eq!(operators(&graph), operators(&splade_export::read(&fp32).unwrap().graph.unwrap()), "as fast as fp32");
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let mut model = product(&[1.0, 2.0, 3.0, 4.0], 2, false);
    let weight = &mut model.graph.as_mut().unwrap().initializer[0];
    weight.raw_data[..4].copy_from_slice(&1e6_f32.to_le_bytes());
    let error = convert(model.clone(), Precision::Fp16).unwrap_err();
    assert_eq!(error.to_string(), "parameter w has the value 1e6, which is beyond the range of fp16");
    assert!(error.kind().is_bad_input() && error.hint().is_some());
    model.graph.as_mut().unwrap().initializer[0].raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = convert(model, Precision::Int8).unwrap_err();
    assert_eq!(error.to_string(), "parameter w is not finite");
}

/// The plain twin: the operators of the ONNX standard, as loops.
mod twin {
    /// Codes, scale and zero of `DynamicQuantizeLinear`.
    pub(crate) fn dynamic(x: &[f32]) -> (Vec<i32>, f32, i32) {
        let (low, high) = x.iter().fold((0.0_f32, 0.0_f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = (high - low) / 255.0;
        let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0) as i32;
        (x.iter().map(|x| ((x / scale).round_ties_even() as i32 + zero).clamp(0, 255)).collect(), scale, zero)
    }

    /// Codes around 128 and the scale of one text.
    pub(crate) fn symmetric(x: &[f32]) -> (Vec<i32>, f32) {
        let scale = x.iter().fold(0.0_f32, |most, x| most.max(x.abs())).max(1e-30) * (1.0 / 127.0);
        (x.iter().map(|x| ((x / scale).round_ties_even() as i32 + 128).clamp(0, 255)).collect(), scale)
    }

    /// `(codes − zero) · weights` with rows of `weights` as inputs.
    pub(crate) fn product(codes: &[i32], zero: i32, weights: &[i8], inputs: usize) -> Vec<i32> {
        let outputs = weights.len() / inputs;
        let mut sums = vec![0; codes.len() / inputs * outputs];
        for (row, codes) in codes.chunks(inputs).enumerate() {
            for (input, code) in codes.iter().enumerate() {
                for output in 0..outputs {
                    sums[row * outputs + output] += (code - zero) * i32::from(weights[input * outputs + output]);
                }
            }
        }
        sums
    }
}

/// `x·w`, or its maximum over tokens; `w` is `[inputs, outputs]`, `x` `[texts, tokens, inputs]`.
fn product(weights: &[f32], inputs: usize, maximum: bool) -> ModelProto {
    let outputs = weights.len() / inputs;
    let tensor = |name: &str, dims: &[usize], data_type: DataType, raw_data: Vec<u8>| TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&length| length as i64).collect(),
        data_type: data_type.into(),
        raw_data,
        ..Default::default()
    };
    let node = |operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
        name: operator.to_owned(),
        op_type: operator.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    };
    let float = |name: &str| ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float.into(),
                shape: None,
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let attribute = |name: &str, r#type: AttributeType, i: i64, ints: &[i64]| AttributeProto {
        name: name.to_owned(),
        r#type: r#type.into(),
        i,
        ints: ints.to_vec(),
        ..Default::default()
    };
    let mut nodes = vec![node("MatMul", &["x", "w"], if maximum { "product" } else { "y" }, vec![])];
    if maximum {
        let attributes =
            vec![attribute("axes", AttributeType::Ints, 0, &[1]), attribute("keepdims", AttributeType::Int, 0, &[])];
        nodes.push(node("ReduceMax", &["product"], "y", attributes));
    }
    let bytes = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(GraphProto {
            name: "product".to_owned(),
            node: nodes,
            initializer: vec![tensor("w", &[inputs, outputs], DataType::Float, bytes)],
            input: vec![float("x")],
            output: vec![float("y")],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Numbers between −1 and 1 that follow no order, some of them larger.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|at| if at % 41 == 7 { 5.0 * next() } else { next() }).collect()
}

fn stored<'m>(model: &'m ModelProto, name: &str) -> &'m TensorProto {
    model.graph.as_ref().unwrap().initializer.iter().find(|tensor| tensor.name == name).unwrap()
}

/// Output of a graph for `x` in ONNX Runtime.
fn run(model: ModelProto, shape: [usize; 3], x: &[f32]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("product.onnx");
    write(model, &path).unwrap();
    let mut session = Session::builder(environment()).unwrap().commit_from_file(&path).unwrap();
    let input = OrtTensor::from_array((shape, x.to_vec())).unwrap();
    let found = session.run(ort::inputs!["x" => input]).unwrap();
    found[0].try_extract_tensor::<f32>().unwrap().1.to_vec()
}

/// The maximum of `x·w` with the columns of `w` in parts between `bounds`, each with its own maximum, as large heads are recorded.
fn in_parts(weights: &[f32], inputs: usize, bounds: &[usize]) -> ModelProto {
    let mut model = product(weights, inputs, true);
    let graph = model.graph.as_mut().unwrap();
    let [multiply, maximum] = [graph.node[0].clone(), graph.node[1].clone()];
    graph.node.clear();
    let mut integer = |value: usize| {
        let name = format!("i{value}");
        let raw_data = (value as i64).to_le_bytes().to_vec();
        let data_type = DataType::Int64.into();
        graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: vec![1],
            data_type,
            raw_data,
            ..Default::default()
        });
        name
    };
    let axis = integer(1);
    let mut parts = Vec::new();
    for (at, bounds) in bounds.windows(2).enumerate() {
        let named = |name: &str, node: &NodeProto, inputs: Vec<String>| NodeProto {
            name: format!("{name}{at}"),
            input: inputs,
            output: vec![format!("{name}{at}.out")],
            ..node.clone()
        };
        let slice = NodeProto { op_type: "Slice".to_owned(), ..Default::default() };
        let (start, end) = (integer(bounds[0]), integer(bounds[1]));
        graph.node.push(named("slice", &slice, vec!["w".to_owned(), start, end, axis.clone()]));
        graph.node.push(named("product", &multiply, vec!["x".to_owned(), format!("slice{at}.out")]));
        graph.node.push(named("most", &maximum, vec![format!("product{at}.out")]));
        parts.push(format!("most{at}.out"));
    }
    let axis =
        AttributeProto { name: "axis".to_owned(), r#type: AttributeType::Int.into(), i: 1, ..Default::default() };
    graph.node.push(NodeProto {
        name: "join".to_owned(),
        op_type: "Concat".to_owned(),
        input: parts,
        output: vec!["y".to_owned()],
        attribute: vec![axis],
        ..Default::default()
    });
    model
}

#[test]
fn a_head_in_parts_gives_equal_outputs() {
    let (shape, outputs) = ([3, 5, 12], 30);
    let (weights, x) = (numbers(shape[2] * outputs, 7), numbers(shape.iter().product(), 8));
    let whole = run(convert(product(&weights, shape[2], true), Precision::Int8).unwrap(), shape, &x);
    let parts = convert(in_parts(&weights, shape[2], &[0, 11, 22, outputs]), Precision::Int8).unwrap();
    let graph = parts.graph.as_ref().unwrap();
    let count = |operator: &str| graph.node.iter().filter(|node| node.op_type == operator).count();
    // one scale a text and one pass of floats for all parts
    assert_eq!(["MatMulInteger", "QuantizeLinear", "Cast", "MatMul"].map(count), [3, 1, 1, 0]);
    assert_eq!(graph.initializer.iter().filter(|tensor| tensor.data_type == i32::from(DataType::Int8)).count(), 1);
    let fp32 = run(in_parts(&weights, shape[2], &[0, 11, 22, outputs]), shape, &x);
    let parts = run(parts, shape, &x);
    assert_eq!(parts, whole);
    let most = fp32.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most > 0.0 && most < 0.05 * fp32.iter().fold(0.0, |most: f32, x| most.max(x.abs())), "{most}");
}

#[test]
fn the_arithmetic_is_that_of_a_plain_twin() {
    for (case, (texts, tokens, inputs, outputs)) in
        [(1, 1, 4, 3), (2, 5, 6, 9), (3, 7, 33, 20), (4, 16, 128, 64), (1, 3, 5, 1)].into_iter().enumerate()
    {
        let seed = case as u64 + 1;
        let (weights, x) = (numbers(inputs * outputs, seed), numbers(texts * tokens * inputs, seed + 100));
        for maximum in [false, true] {
            let model = convert(product(&weights, inputs, maximum), Precision::Int8).unwrap();
            let codes: Vec<i8> =
                stored(&model, "w.int8.columns").raw_data.iter().map(|byte| byte.cast_signed()).collect();
            let scales: Vec<f32> = (stored(&model, "w.scales.columns").raw_data.as_chunks::<4>().0.iter())
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();

            // weights come back within half a step, or the step by which a pair was made smaller
            for (at, (weight, code)) in weights.iter().zip(&codes).enumerate() {
                let step = scales[at % outputs];
                assert!((weight - f32::from(*code) * step).abs() <= 32.5 * step, "{weight} {code} {step}");
            }
            for output in 0..outputs {
                let column: Vec<i32> =
                    codes.iter().skip(output).step_by(outputs).map(|code| i32::from(*code)).collect();
                let fits = |pair: &[i32]| {
                    [pair[0] * 255, pair[1] * 255, (pair[0] + pair[1]) * 255]
                        .iter()
                        .all(|sum| i16::try_from(*sum).is_ok())
                };
                assert!(column.chunks_exact(2).all(fits), "a pair does not fit 16 bits");
            }

            let expected: Vec<f32> = if maximum {
                let text = |x: &[f32]| -> Vec<f32> {
                    let (x, scale) = twin::symmetric(x);
                    let sums = twin::product(&x, 128, &codes, inputs);
                    let most = |output: usize| sums.iter().skip(output).step_by(outputs).max().copied().unwrap();
                    (0..outputs).map(|output| most(output) as f32 * (scale * scales[output])).collect()
                };
                x.chunks(tokens * inputs).flat_map(text).collect()
            } else {
                let (x, scale, zero) = twin::dynamic(&x);
                let sums = twin::product(&x, zero, &codes, inputs);
                sums.iter().enumerate().map(|(at, sum)| *sum as f32 * (scale * scales[at % outputs])).collect()
            };

            let found = run(model, [texts, tokens, inputs], &x);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                    "{case} {maximum} {found} {expected}"
                );
            }
        }
    }
}
