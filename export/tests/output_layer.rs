//! The output layer computed here against the file as it is and against Candle: the same vectors, in every precision, whatever a
//! model gives weights to.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use common::{Golden, families};
use ndarray::Array2;
use splade_core::{HeadMode, Network, Pooling, PoolingActivation, SpladePooling, TokenBatch};
use splade_encode::{LIBRARY, NotSplit, OnnxNetwork, OnnxOptions, load_onnx_runtime, metadata};
use splade_export::parity::{Backend, Reference};
use splade_export::{Head, OPSETS, Options, convert, export, write};
use splade_files::Precision;
use splade_trainer::model::Weights;

const POOLING: SpladePooling = SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu };
const SPLADE: Head = Head::Splade(POOLING);

/// The golden model with `shift` added to every output bias: the lower, the fewer terms have a weight.
fn shifted(golden: &Golden, shift: f64) -> Weights {
    let is_output = |name: &str| {
        [
            "predictions.bias",
            "lm_head.bias",
            "vocab_projector.bias",
            "decoder.bias",
            "nonlinearity.5.bias",
            "emb2vocab.bias",
        ]
        .iter()
        .any(|suffix| name.ends_with(suffix))
    };
    let move_bias = |(name, tensor): (&String, &Tensor)| {
        let tensor = if is_output(name) { tensor.affine(1.0, shift).unwrap() } else { tensor.clone() };
        (name.clone(), tensor)
    };
    let tensors: BTreeMap<String, Tensor> = golden.weights.tensors().iter().map(move_bias).collect();
    Weights::from_tensors(tensors)
}

fn open(path: &Path, golden: &Golden, whole: bool) -> OnnxNetwork {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.onnxruntime");
    let files = std::fs::read_dir(&folder).expect("run `make setup` first").map(|file| file.unwrap().path());
    let is_library = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LIBRARY));
    load_onnx_runtime(&files.filter(is_library).collect::<Vec<_>>()).unwrap();
    let options = OnnxOptions { whole, ..OnnxOptions::default() };
    OnnxNetwork::open_with(path, &options, golden.config.vocab_size(), POOLING).unwrap()
}

fn dense(network: &OnnxNetwork, batch: &TokenBatch) -> Array2<f32> {
    let mut rows = Array2::zeros((batch.rows(), network.dimensions()));
    for (mut row, vector) in rows.outer_iter_mut().zip(network.forward(batch).unwrap()) {
        vector.iter().for_each(|(dim, weight)| row[dim as usize] = weight);
    }
    rows
}

#[test]
fn the_output_layer_computed_here_gives_the_vectors_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut least = f64::INFINITY;
    for family in &families() {
        let mut golden = Golden::family(family);
        if family == "norbert4-tiny" {
            golden.config.set_head_mode(HeadMode::SoftCap).unwrap();
        }
        for (opset, shift) in
            OPSETS.into_iter().flat_map(|opset| [0.0, -1.0, -3.0, -1000.0].map(|shift| (opset, shift)))
        {
            let weights = shifted(&golden, shift);
            let reference = Reference::new(&golden.config, &weights, SPLADE);
            let model = export(&golden.config, &weights, SPLADE, &Options { opset, ..Options::default() }).unwrap();
            for precision in Precision::ALL {
                let path = folder.path().join(precision.file_name("model_splade.onnx"));
                write(convert(model.clone(), precision).unwrap(), &path).unwrap();
                let (split, whole) = (open(&path, &golden, false), open(&path, &golden, true));
                assert_eq!(split.not_split().is_none(), OnnxNetwork::can_split(), "{family} {precision}");
                assert!(whole.not_split() == Some(&NotSplit::Requested));
                let one = TokenBatch::new(&[golden.texts()[0].clone()], golden.pad);
                let gap = TokenBatch::new(&[golden.texts()[1].clone(), vec![]], golden.pad);
                // far beyond the offsets that have separate rows
                let text = golden.texts()[0].clone();
                let long = text.iter().cycle().take(if family.starts_with("norbert3") { 150 } else { 20 });
                let long = TokenBatch::new(&[long.copied().collect(), golden.texts()[1].clone()], golden.pad);
                for batch in [golden.batch(), one, gap, long] {
                    let (found, of_file) = (dense(&split, &batch), dense(&whole, &batch));
                    let expected = reference.run(&batch).unwrap();
                    let apart = |one: &Array2<f32>, other: &Array2<f32>| (one - other).abs();
                    if precision == Precision::Int8 {
                        // rounded in another way, a scale per token here and one per text there, but no worse
                        let mean = |of: &Array2<f32>| apart(of, &expected).mean().unwrap();
                        let (here, there) = (mean(&found), mean(&of_file));
                        assert!(here <= 1.1 * there + 1e-3, "{family} {shift}: {here} {there}");
                        continue;
                    }
                    assert!(apart(&found, &of_file).iter().all(|x| *x <= 1e-4), "{family} {shift} {precision}");
                    if precision == Precision::Fp32 {
                        assert!(apart(&found, &expected).iter().all(|x| *x <= 1e-4), "{family} {shift}");
                    }
                    let active = expected.iter().filter(|weight| **weight > 0.0).count();
                    least = least.min(active as f64 / expected.len() as f64);
                }
            }
        }
    }
    assert_eq!(least, 0.0, "a batch without any term was among them");
}

#[test]
fn only_a_graph_that_ends_in_the_largest_logits_is_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model_splade.onnx");
    let mut golden = Golden::family("norbert4-tiny");
    for (mode, name) in HeadMode::ALL {
        golden.config.set_head_mode(mode).unwrap();
        let weights = shifted(&golden, -2.0);
        write(export(&golden.config, &weights, SPLADE, &Options::default()).unwrap(), &path).unwrap();
        let network = open(&path, &golden, false);
        let can_be = matches!(mode, HeadMode::Raw | HeadMode::SoftCap) && OnnxNetwork::can_split();
        assert_eq!(network.not_split().is_none(), can_be, "{name}");
        let batch = TokenBatch::new(&[vec![1], vec![1, 60, 61], vec![], vec![1, 90, 200, 300]], 3);
        let found = dense(&network, &batch);
        let expected = Reference::new(&golden.config, &weights, SPLADE).run(&batch).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-4), "{name}");
    }
    let golden = Golden::family("bert-tiny");
    let sum = SpladePooling { strategy: Pooling::Sum, ..POOLING };
    for head in [Head::Splade(sum), Head::Logits] {
        write(export(&golden.config, &golden.weights, head, &Options::default()).unwrap(), &path).unwrap();
        let network = OnnxNetwork::open_with(&path, &OnnxOptions::default(), golden.config.vocab_size(), sum).unwrap();
        assert_eq!(network.not_split(), Some(&NotSplit::SumPooling));
    }
    let max = OnnxNetwork::open_with(&path, &OnnxOptions::default(), golden.config.vocab_size(), POOLING).unwrap();
    let expected = if OnnxNetwork::can_split() { NotSplit::NotStated } else { NotSplit::Processor };
    assert_eq!(max.not_split(), Some(&expected), "a file of logits");
}

#[test]
fn a_file_with_wrong_metadata_runs_whole_and_the_reason_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model_splade.onnx");
    let golden = Golden::family("bert-tiny");
    let model = export(&golden.config, &golden.weights, SPLADE, &Options::default()).unwrap();
    let at = model.metadata_props.iter().position(|entry| entry.key == metadata::OUTPUT_LAYER).unwrap();
    let stated = model.metadata_props[at].value.clone();
    for (name, other) in
        [("features", "bias"), ("weight", "features"), ("bias", "weight"), ("none", "hard"), ("cap", "cup")]
    {
        let mut model = model.clone();
        model.metadata_props[at].value = stated.replace(name, other);
        assert_ne!(model.metadata_props[at].value, stated);
        write(model, &path).unwrap();
        let network = open(&path, &golden, false);
        let reason = network.not_split().unwrap();
        let expected = |reason: &NotSplit| matches!(reason, NotSplit::Broken(_));
        assert!(expected(reason) || !OnnxNetwork::can_split(), "{name}: {reason}");
        assert_eq!(reason, &OnnxNetwork::why_not_split(&path, golden.config.vocab_size(), POOLING).unwrap());
        assert!(!network.forward(&golden.batch()).unwrap()[0].is_empty());
    }
}
