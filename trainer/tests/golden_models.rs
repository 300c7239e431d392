//! The transformer families against the reference implementations: hidden states, logits, SPLADE vectors, gradients.
//!
//! Goldens are those of docs/architectures.md section 10, with its tolerances; both the fast operations and their plain
//! twins must reach them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use splade_trainer::model::{Candle, Inputs, TransformerConfig, Weights, splade};

const FAMILIES: [&str; 1] = ["bert-tiny"];

struct Golden {
    config: TransformerConfig,
    weights: Weights,
    expected: HashMap<String, Tensor>,
    grads: HashMap<String, Tensor>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name)
}

fn golden(name: &str) -> Golden {
    let folder = folder(name);
    let load = |file: &str| candle_core::safetensors::load(folder.join(file), &Device::Cpu).unwrap();
    let path = folder.join("config.json");
    let config = TransformerConfig::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
    let weights = Weights::read(&folder.join("model.safetensors"), &config).unwrap();
    Golden { config, weights, expected: load("expected.safetensors"), grads: load("grads.safetensors") }
}

fn inputs(golden: &Golden) -> Inputs<Tensor> {
    Inputs {
        ids: golden.expected["input_ids"].to_dtype(DType::U32).unwrap(),
        mask: golden.expected["attention_mask"].to_dtype(DType::U8).unwrap(),
        token_types: None,
    }
}

/// Largest absolute difference, over the tokens with mask 1 where the tensors have them.
fn distance(ours: &Tensor, theirs: &Tensor, mask: Option<&Tensor>) -> f32 {
    let difference = (ours - theirs).unwrap().abs().unwrap();
    let difference = match mask {
        Some(mask) => difference.broadcast_mul(&mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap()).unwrap(),
        None => difference,
    };
    difference.max_all().unwrap().to_scalar::<f32>().unwrap()
}

#[test]
fn forward_pass_agrees_with_the_reference() {
    for family in FAMILIES {
        let golden = golden(family);
        let inputs = inputs(&golden);
        for plain in [false, true] {
            let a = Candle::new(golden.weights.tensors(), &Device::Cpu);
            let a = if plain { a.plain() } else { a };
            let encoded = golden.config.forward(&a, &inputs).unwrap();
            let logits = encoded.head.logits(&a).unwrap();
            let weights = splade(&a, &encoded.head, &inputs.mask, Default::default()).unwrap();
            let cases = [
                ("last_hidden_state", &encoded.last_hidden_state, Some(&inputs.mask), 3e-4),
                ("logits", &logits, Some(&inputs.mask), 5e-4),
                ("splade", &weights, None, 1e-4),
            ];
            for (what, ours, mask, tolerance) in cases {
                let distance = distance(ours, &golden.expected[what], mask);
                assert!(distance <= tolerance, "{family} {what} plain={plain}: {distance} > {tolerance}");
            }
        }
    }
}

#[test]
fn every_gradient_agrees_with_the_reference() {
    for family in FAMILIES {
        let golden = golden(family);
        let inputs = inputs(&golden);
        for plain in [false, true] {
            let variables: BTreeMap<String, Var> = golden
                .weights
                .tensors()
                .iter()
                .map(|(name, tensor)| (name.clone(), Var::from_tensor(tensor).unwrap()))
                .collect();
            let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
            let a = Candle::new(&tensors, &Device::Cpu);
            let a = if plain { a.plain() } else { a };
            let encoded = golden.config.forward(&a, &inputs).unwrap();
            let weights = splade(&a, &encoded.head, &inputs.mask, Default::default()).unwrap();
            let loss = (weights * &golden.grads["loss_weights"]).unwrap().sum_all().unwrap();
            let expected_loss = golden.grads["loss"].to_vec1::<f32>().unwrap()[0];
            let found_loss = loss.to_scalar::<f32>().unwrap();
            assert!(
                (found_loss - expected_loss).abs() <= 1e-4 * expected_loss.abs().max(1.0),
                "{family}: loss {found_loss} {expected_loss}"
            );
            let grads = loss.backward().unwrap();
            let mut compared = 0;
            for (name, expected) in &golden.grads {
                if name == "loss" || name == "loss_weights" {
                    continue;
                }
                let found = grads.get(variables[name].as_tensor()).unwrap_or_else(|| panic!("{name} has no gradient"));
                let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let distance = distance(found, expected, None);
                // exactly 0 in exact arithmetic: the soft-max does not see a constant added to all keys
                let tolerance = if name.ends_with("self.key.bias") { 1e-4 } else { 1e-3 * largest };
                assert!(distance <= tolerance, "{family} {name} plain={plain}: {distance} > {tolerance}");
                compared += 1;
            }
            assert_eq!(compared, variables.len(), "{family}: a parameter has no golden gradient");
        }
    }
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_padded_batch() {
    for family in FAMILIES {
        let golden = golden(family);
        let inputs = inputs(&golden);
        let ids = inputs.ids.to_vec2::<u32>().unwrap();
        let mask = inputs.mask.to_vec2::<u8>().unwrap();
        for (row, (ids, mask)) in ids.iter().zip(&mask).enumerate() {
            let length = mask.iter().filter(|mask| **mask == 1).count();
            let a = Candle::new(golden.weights.tensors(), &Device::Cpu);
            let alone = a.inputs(ids[..length].to_vec(), mask[..length].to_vec(), 1).unwrap();
            let encoded = golden.config.forward(&a, &alone).unwrap();
            let vector = splade(&a, &encoded.head, &alone.mask, Default::default()).unwrap();
            let expected = golden.expected["splade"].narrow(0, row, 1).unwrap();
            assert!(distance(&vector, &expected, None) <= 1e-4, "{family} row {row}");
        }
    }
}

#[test]
fn a_row_without_tokens_gives_zeros() {
    for family in FAMILIES {
        let golden = golden(family);
        for plain in [false, true] {
            let a = Candle::new(golden.weights.tensors(), &Device::Cpu);
            let a = if plain { a.plain() } else { a };
            let inputs = a.inputs(vec![2, 5, 3, 0, 0, 0], vec![1, 1, 1, 0, 0, 0], 2).unwrap();
            let encoded = golden.config.forward(&a, &inputs).unwrap();
            let rows = splade(&a, &encoded.head, &inputs.mask, Default::default()).unwrap().to_vec2::<f32>().unwrap();
            assert!(rows[0].iter().any(|weight| *weight > 0.0), "{family}");
            assert!(rows[1].iter().all(|weight| *weight == 0.0), "{family}");
        }
    }
}
