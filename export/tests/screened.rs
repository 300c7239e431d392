//! The screened head against the plain one and against Candle: the same vectors, whatever a model gives weights to.

mod common;

use std::collections::BTreeMap;

use candle_core::Tensor;
use common::{Golden, OnnxRuntime};
use splade_export::parity::{Backend, Reference};
use splade_export::{Head, OPSETS, Options, SCREENED_FILE, can_be_screened, export, write};
use splade_index::{HeadMode, Pooling, PoolingActivation, SpladePooling, TokenBatch};
use splade_trainer::model::Weights;

const FAMILIES: [&str; 7] =
    ["norbert3-tiny", "norbert4-tiny", "bert-tiny", "distilbert-tiny", "roberta-tiny", "xlmr-tiny", "modernbert-tiny"];
const SPLADE: Head = Head::Splade(SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu });

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

#[test]
fn the_screened_head_gives_the_vectors_of_the_plain_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut least = f64::INFINITY;
    for family in FAMILIES {
        let mut golden = Golden::family(family);
        if family == "norbert4-tiny" {
            golden.config.set_head_mode(HeadMode::SoftCap).unwrap();
        }
        for (opset, shift) in
            OPSETS.into_iter().flat_map(|opset| [0.0, -1.0, -3.0, -6.0, -1000.0].map(|shift| (opset, shift)))
        {
            let weights = shifted(&golden, shift);
            let options = Options { opset, screened: true, ..Options::default() };
            let path = folder.path().join(SCREENED_FILE);
            write(export(&golden.config, &weights, SPLADE, &options).unwrap(), &path).unwrap();
            let (screened, reference) = (OnnxRuntime::load(&path), Reference::new(&golden.config, &weights, SPLADE));
            let one = TokenBatch::new(&[golden.texts()[0].clone()], golden.pad);
            let gap = TokenBatch::new(&[golden.texts()[1].clone(), vec![]], golden.pad);
            for batch in [golden.batch(), one, gap] {
                let (found, expected) = (screened.run(&batch).unwrap(), reference.run(&batch).unwrap());
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() <= 1e-4, "{family} {shift}: {found} {expected}");
                }
                let active = expected.iter().filter(|weight| **weight > 0.0).count();
                least = least.min(active as f64 / expected.len() as f64);
            }
        }
    }
    assert_eq!(least, 0.0, "a batch without any term was among them");
}

#[test]
fn every_head_mode_with_zeros_is_screened_and_the_one_without_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut golden = Golden::family("norbert4-tiny");
    for (mode, name) in HeadMode::ALL {
        golden.config.set_head_mode(mode).unwrap();
        assert_eq!(can_be_screened(&golden.config, SPLADE), mode != HeadMode::Published);
        let weights = shifted(&golden, -2.0);
        let options = Options { screened: true, ..Options::default() };
        let model = export(&golden.config, &weights, SPLADE, &options).unwrap();
        let nodes = &model.graph.as_ref().unwrap().node;
        assert_eq!(nodes.iter().any(|node| node.op_type == "MatMulInteger"), mode != HeadMode::Published, "{name}");
        let path = folder.path().join(SCREENED_FILE);
        write(model, &path).unwrap();
        let batch = TokenBatch::new(&[vec![1], vec![1, 60, 61], vec![], vec![1, 90, 200, 300]], 3);
        let found = OnnxRuntime::load(&path).run(&batch).unwrap();
        let expected = Reference::new(&golden.config, &weights, SPLADE).run(&batch).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-4), "{name}");
    }
}

#[test]
fn sums_and_logits_are_not_screened() {
    let golden = Golden::family("bert-tiny");
    let sum = Head::Splade(SpladePooling { strategy: Pooling::Sum, ..Default::default() });
    for head in [sum, Head::Logits, Head::HiddenStates] {
        let options = Options { screened: true, ..Options::default() };
        let screened = export(&golden.config, &golden.weights, head, &options).unwrap();
        assert_eq!(screened, export(&golden.config, &golden.weights, head, &Options::default()).unwrap());
    }
}
