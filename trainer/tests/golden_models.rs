//! The transformer families against the reference implementations: hidden states, logits, SPLADE vectors, gradients.
//!
//! Goldens are those of docs/architectures.md section 10, with its tolerances; both the fast operations and their plain
//! twins must reach them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use ndarray::{Array1, Array2};
use splade_core::{HeadMode, Pooling, PoolingActivation, SpladePooling, TokenBatch};
use splade_trainer::model::{Candle, Inputs, Tape, TransformerConfig, Weights, splade};

#[path = "../../tests/fixtures/families.rs"]
mod fixtures;

/// Every golden model.
fn families() -> Vec<String> {
    fixtures::families(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

struct Golden {
    config: TransformerConfig,
    weights: Weights,
    expected: HashMap<String, Tensor>,
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
    Golden { config, weights, expected: load("expected.safetensors") }
}

fn inputs(golden: &Golden) -> Inputs<Tensor> {
    Inputs {
        ids: golden.expected["input_ids"].to_dtype(DType::U32).unwrap(),
        mask: golden.expected["attention_mask"].to_dtype(DType::U8).unwrap(),
        token_types: None,
    }
}

/// Largest absolute difference, over the tokens with mask 1 where the tensors have them; −∞ equals itself and nothing else.
fn distance(ours: &Tensor, theirs: &Tensor, mask: Option<&Tensor>) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let width = ours.elem_count() / mask.map_or(1, Tensor::elem_count).max(1);
    let mask = mask.map(|mask| mask.flatten_all().unwrap().to_vec1::<u8>().unwrap());
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let pairs = values(ours).into_iter().zip(values(theirs)).enumerate();
    let counts = |at: usize| mask.as_ref().is_none_or(|mask| mask[at / width] == 1);
    let apart = |(_, (a, b)): (usize, (f32, f32))| if a == b { 0.0 } else { (a - b).abs() };
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    pairs.filter(|(at, _)| counts(*at)).map(apart).fold(0.0, larger)
}

#[test]
fn forward_pass_agrees_with_the_reference() {
    for family in &families() {
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
                println!("{family:16} {what:18} plain={plain:5} {distance:.1e}");
                assert!(distance <= tolerance, "{family} {what} plain={plain}: {distance} > {tolerance}");
            }
        }
    }
}

#[test]
fn every_head_mode_agrees_with_the_reference() {
    let mut golden = golden("norbert4-tiny");
    let inputs = inputs(&golden);
    let cases = [
        (HeadMode::Published, "splade"),
        (HeadMode::RawShifted, "splade_raw_shifted"),
        (HeadMode::Raw, "splade_raw"),
        (HeadMode::SoftCap, "splade_softcap"),
    ];
    for (mode, expected) in cases {
        golden.config.set_head_mode(mode).unwrap();
        for plain in [false, true] {
            let a = Candle::new(golden.weights.tensors(), &Device::Cpu);
            let a = if plain { a.plain() } else { a };
            let head = golden.config.forward(&a, &inputs).unwrap().head;
            let weights = splade(&a, &head, &inputs.mask, Default::default()).unwrap();
            let distance = distance(&weights, &golden.expected[expected], None);
            assert!(distance <= 1e-4, "{mode} plain={plain}: {distance}");
            if mode == HeadMode::Raw {
                let logits = head.logits(&a).unwrap();
                assert!(self::distance(&logits, &golden.expected["logits_raw"], Some(&inputs.mask)) <= 5e-4);
            }
            // pooled the long way, from the logits of every token
            let pooling = splade_core::SpladePooling { strategy: splade_core::Pooling::Max, ..Default::default() };
            let logits = head.logits(&a).unwrap().to_vec3::<f32>().unwrap();
            let mask = inputs.mask.to_vec2::<u8>().unwrap();
            for ((logits, mask), weights) in logits.iter().zip(&mask).zip(weights.to_vec2::<f32>().unwrap()) {
                let logits = Array2::from_shape_vec((logits.len(), weights.len()), logits.concat()).unwrap();
                let mask: Array1<i64> = mask.iter().map(|mask| i64::from(*mask)).collect();
                let pooled = splade_core::pool(logits.view(), mask.view(), pooling);
                assert!(pooled.iter().zip(&weights).all(|(a, b)| (a - b).abs() <= 1e-5), "{mode} plain={plain}");
            }
        }
    }
}

#[test]
fn an_empty_text_has_a_vector_in_every_head_mode() {
    // it is `<s>` alone, whose features count only where logits are not moved on
    let mut golden = golden("norbert4-tiny");
    for (mode, _) in HeadMode::ALL {
        golden.config.set_head_mode(mode).unwrap();
        let a = Candle::new(golden.weights.tensors(), &Device::Cpu);
        let inputs = a.inputs(vec![1, 3, 3, 1, 60, 61], vec![1, 0, 0, 1, 1, 1], 2).unwrap();
        let head = golden.config.forward(&a, &inputs).unwrap().head;
        let rows = splade(&a, &head, &inputs.mask, Default::default()).unwrap().to_vec2::<f32>().unwrap();
        let active: Vec<usize> = (0..rows[0].len()).filter(|term| rows[0][*term] > 0.0).collect();
        if mode.is_shifted() {
            assert_eq!(active, [1], "{mode}");
            assert!((rows[0][1] - 2_f32.ln()).abs() < 1e-6, "{mode}");
        } else {
            assert!(!active.is_empty(), "{mode}");
        }
    }
}

#[test]
fn a_torch_file_is_read_as_the_safetensors_file_is() {
    let golden = golden("norbert3-tiny");
    let torch = Weights::read(&folder("norbert3-tiny").join("pytorch_model.bin"), &golden.config).unwrap();
    let names: Vec<&String> = torch.tensors().keys().collect();
    assert_eq!(names, golden.weights.tensors().keys().collect::<Vec<_>>());
    for (name, tensor) in torch.tensors() {
        assert_eq!(distance(tensor, &golden.weights.tensors()[name], None), 0.0, "{name}");
    }
}

/// The gradient of a parameter; what has no effect has none.
fn gradient(grads: &candle_core::backprop::GradStore, variable: &Var, name: &str) -> Tensor {
    match grads.get(variable.as_tensor()) {
        Some(gradient) => gradient.clone(),
        None if name == "encoder.layers.0.attention.lambdas" => variable.zeros_like().unwrap(),
        None => panic!("{name} has no gradient"),
    }
}

#[test]
fn every_gradient_agrees_with_the_reference() {
    for family in &families() {
        let mut golden = golden(family);
        if *family == "norbert4-tiny" {
            every_gradient(family, &golden, "grads_original_head.safetensors");
            golden.config.set_head_mode(HeadMode::Raw).unwrap();
        }
        every_gradient(family, &golden, "grads.safetensors");
    }
}

/// The parameters as variables, and as the tensors of those.
fn variables(golden: &Golden) -> (BTreeMap<String, Var>, BTreeMap<String, Tensor>) {
    let variable = |(name, tensor): (&String, &Tensor)| (name.clone(), Var::from_tensor(tensor).unwrap());
    let variables: BTreeMap<String, Var> = golden.weights.tensors().iter().map(variable).collect();
    let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    (variables, tensors)
}

/// The config of a fixture, with every probability of dropout at 0.1.
fn with_dropout(family: &str) -> TransformerConfig {
    let path = folder(family).join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let keys = config.as_object_mut().unwrap();
    if family == "modernbert-tiny" {
        // its file leaves them at their defaults
        keys.extend(["attention_dropout", "mlp_dropout"].map(|key| (key.to_owned(), 0.into())));
    }
    let dropouts = keys.iter_mut().filter(|(key, _)| key.contains("dropout"));
    assert!(dropouts.map(|(_, value)| *value = 0.1.into()).count() > 0, "{family}");
    TransformerConfig::parse(&config.to_string(), &path).unwrap()
}

/// Ways to run a training pass.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Candle { plain: bool, recomputing: bool },
    Tape { recomputing: bool },
}

impl Reader {
    const ALL: [Self; 6] = [
        Self::Candle { plain: false, recomputing: false },
        Self::Candle { plain: true, recomputing: false },
        Self::Candle { plain: false, recomputing: true },
        Self::Candle { plain: true, recomputing: true },
        Self::Tape { recomputing: false },
        Self::Tape { recomputing: true },
    ];

    /// SPLADE vectors of a batch, with gradients, and with dropout drawn from a seed.
    fn vectors(
        self,
        config: &TransformerConfig,
        tensors: &BTreeMap<String, Tensor>,
        inputs: &Inputs<Tensor>,
        seed: u64,
    ) -> Tensor {
        self.pooled(config, tensors, inputs, seed, SpladePooling::default())
    }

    /// As [`vectors`](Self::vectors), with this pooling.
    fn pooled(
        self,
        config: &TransformerConfig,
        tensors: &BTreeMap<String, Tensor>,
        inputs: &Inputs<Tensor>,
        seed: u64,
        pooling: SpladePooling,
    ) -> Tensor {
        match self {
            Self::Candle { plain, recomputing } => {
                let a = Candle::training(tensors, &Device::Cpu, seed);
                let a = if plain { a.plain() } else { a };
                let a = if recomputing { a.recomputing() } else { a };
                let encoded = config.forward(&a, inputs).unwrap();
                splade(&a, &encoded.head, &inputs.mask, pooling).unwrap()
            }
            Self::Tape { recomputing } => {
                let matrix = |tensor: &Tensor| {
                    let rows = tensor.to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
                    Array2::from_shape_vec(tensor.dims2().unwrap(), rows.concat()).unwrap()
                };
                let batch = TokenBatch { ids: matrix(&inputs.ids), mask: matrix(&inputs.mask), pad: 0 };
                let a = Tape::new(&Arc::new(tensors.clone()), &Arc::default(), &batch, seed);
                let a = a.recomputing_layers(recomputing);
                let inputs = a.inputs();
                let encoded = config.forward(&a, &inputs).unwrap();
                let vectors = splade(&a, &encoded.head, &inputs.mask, pooling).unwrap();
                a.attach(&vectors).unwrap()
            }
        }
    }
}

#[test]
fn every_pooling_and_head_has_on_a_tape_the_values_and_gradients_of_candle() {
    let (tape, candle) = (Reader::Tape { recomputing: false }, Reader::Candle { plain: true, recomputing: false });
    let mut n_compared = 0;
    for family in &families() {
        let mut golden = golden(family);
        let modes = match family.as_str() {
            "norbert4-tiny" => HeadMode::ALL.iter().map(|(mode, _)| Some(*mode)).collect(),
            _ => vec![None],
        };
        for mode in modes {
            mode.into_iter().for_each(|mode| golden.config.set_head_mode(mode).unwrap());
            for strategy in [Pooling::Max, Pooling::Sum] {
                for activation in [PoolingActivation::Relu, PoolingActivation::Log1pRelu] {
                    let pooling = SpladePooling { strategy, activation };
                    compare(&golden, [tape, candle], pooling, &format!("{family} {mode:?} {pooling:?}"));
                    n_compared += 1;
                }
            }
        }
    }
    assert!(n_compared >= 40, "{n_compared}");
}

/// Compares vectors of two readers and their gradients.
fn compare(golden: &Golden, readers: [Reader; 2], pooling: SpladePooling, name: &str) {
    let inputs = inputs(golden);
    let (variables, tensors) = variables(golden);
    let [ours, plain] = readers.map(|reader| {
        let vectors = reader.pooled(&golden.config, &tensors, &inputs, 0, pooling);
        let grads = vectors.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        (vectors, grads)
    });
    let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(distance(&ours.0, &plain.0, None) <= 1e-4 * largest(&plain.0).max(1.0), "{name}");
    for (parameter, variable) in &variables {
        let [ours, plain] = [&ours.1, &plain.1].map(|grads| grads.get(variable));
        // what has no effect has no gradient, or one of zeros
        let Some((ours, plain)) = ours.zip(plain) else {
            assert!(ours.or(plain).is_none_or(|gradient| largest(gradient) == 0.0), "{name} {parameter}");
            continue;
        };
        let (distance, scale) = (distance(ours, plain, None), largest(plain));
        let no_effect = ["self.key.bias", "k_lin.bias"].iter().any(|suffix| parameter.ends_with(suffix));
        let tolerance = if no_effect { 1e-2 } else { 1e-3 * scale + 1e-5 };
        assert!(distance <= tolerance, "{name} {parameter}: {distance} of {scale}");
    }
}

/// SPLADE vectors of a golden batch on `device`, and the gradients of its golden loss, all on the CPU.
fn on_device(
    golden: &Golden,
    file: &str,
    device: &Device,
    strategy: Pooling,
    bf16: bool,
) -> (Tensor, BTreeMap<String, Tensor>) {
    let golden_grads = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let moved = |tensor: &Tensor| tensor.to_device(device).unwrap();
    let variable = |(name, tensor): (&String, &Tensor)| (name.clone(), Var::from_tensor(&moved(tensor)).unwrap());
    let variables: BTreeMap<String, Var> = golden.weights.tensors().iter().map(variable).collect();
    let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let a = Candle::training(&tensors, device, 0).plain();
    let a = if bf16 { a.mixed_precision() } else { a };
    let Inputs { ids, mask, .. } = inputs(golden);
    let inputs = Inputs { ids: moved(&ids), mask: moved(&mask), token_types: None };
    let encoded = golden.config.forward(&a, &inputs).unwrap();
    let vectors = {
        let pooling = SpladePooling { strategy, ..SpladePooling::default() };
        splade(&a, &encoded.head, &inputs.mask, pooling).unwrap()
    };
    let loss = (&vectors * moved(&golden_grads["loss_weights"])).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let on_cpu = |tensor: &Tensor| tensor.to_device(&Device::Cpu).unwrap();
    let grads = variables.iter().map(|(name, var)| (name.clone(), on_cpu(&gradient(&grads, var, name)))).collect();
    (on_cpu(&vectors), grads)
}

/// A device computes what the CPU computes, in f32 up to rounding, and in mixed precision with the factors of products rounded
/// to the 8 significant bits of bfloat16.
fn compare_device(device: &Device) {
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for family in &families() {
        let golden = golden(family);
        let original = folder(family).join("grads_original_head.safetensors");
        let file = if original.is_file() { original } else { folder(family).join("grads.safetensors") };
        let file = file.to_str().unwrap();
        // the largest of several almost equal logits may be another one after rounding, so mixed precision is compared by sums
        for (strategy, bf16, tolerance, cosine) in [
            (Pooling::Max, false, 1e-4, 0.99999),
            (Pooling::Sum, false, 1e-4, 0.99999),
            (Pooling::Sum, true, 0.05, 0.9),
        ] {
            let (plain, plain_grads) = on_device(&golden, file, &Device::Cpu, strategy, false);
            let (vectors, grads) = on_device(&golden, file, device, strategy, bf16);
            let largest = plain.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let distance = distance(&vectors, &plain, None) / largest;
            assert!(distance <= tolerance, "{family} {strategy:?} {bf16}: {distance}");
            assert_eq!(distance > 1e-5, bf16, "{family} {strategy:?}: {distance}");
            // all gradients as one vector: those of single biases may be 0 but for rounding
            let all = |grads: &BTreeMap<String, Tensor>| grads.values().flat_map(numbers).collect::<Vec<f32>>();
            let (a, b) = (all(&plain_grads), all(&grads));
            let found = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!(found >= cosine, "{family} {strategy:?} {bf16}: cosine {found}");
        }
    }
}

#[test]
fn mixed_precision_rounds_the_factors_of_products() {
    compare_device(&Device::Cpu);
}

#[test]
#[ignore = "needs an NVIDIA device: cargo test --features cuda -p splade-trainer --test golden_models -- --ignored"]
fn a_cuda_device_has_the_vectors_and_gradients_of_the_cpu() {
    compare_device(&Device::new_cuda(0).unwrap());
}

#[test]
fn layers_computed_again_have_the_values_and_gradients_of_layers_that_are_kept() {
    let candle = [false, true].map(|recomputing| Reader::Candle { plain: false, recomputing });
    let tape = [false, true].map(|recomputing| Reader::Tape { recomputing });
    for family in &families() {
        let (golden, config) = (golden(family), with_dropout(family));
        let inputs = inputs(&golden);
        let (variables, tensors) = variables(&golden);
        let run = |reader: Reader, seed| {
            let weights = reader.vectors(&config, &tensors, &inputs, seed);
            let grads = weights.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            (weights, grads)
        };
        for [keeps, recomputes] in [candle, tape] {
            let (kept, again) = (run(keeps, 7), run(recomputes, 7));
            // dropout has an effect, and what is computed again draws the same numbers
            assert!(distance(&kept.0, &run(keeps, 8).0, None) > 0.0, "{family}");
            assert_eq!(distance(&kept.0, &again.0, None), 0.0, "{family} {recomputes:?}");
            for (name, variable) in &variables {
                let (kept, again) = (gradient(&kept.1, variable, name), gradient(&again.1, variable, name));
                let largest = kept.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let distance = distance(&kept, &again, None);
                assert!(distance <= 1e-5 * largest, "{family} {recomputes:?} {name}: {distance} of {largest}");
            }
        }
    }
}

fn every_gradient(family: &str, golden: &Golden, file: &str) {
    let golden_grads = candle_core::safetensors::load(folder(family).join(file), &Device::Cpu).unwrap();
    let inputs = inputs(golden);
    let (output, embedding) = golden.config.tied();
    for reader in Reader::ALL {
        let (variables, tensors) = variables(golden);
        let weights = reader.vectors(&golden.config, &tensors, &inputs, 0);
        let loss = (weights * &golden_grads["loss_weights"]).unwrap().sum_all().unwrap();
        let expected_loss = golden_grads["loss"].to_vec1::<f32>().unwrap()[0];
        let found_loss = loss.to_scalar::<f32>().unwrap();
        assert!(
            (found_loss - expected_loss).abs() <= 1e-4 * expected_loss.abs().max(1.0),
            "{family} {reader:?}: loss {found_loss} {expected_loss}"
        );
        let grads = loss.backward().unwrap();
        let mut compared = 0;
        for (name, expected) in &golden_grads {
            if name == "loss" || name == "loss_weights" {
                continue;
            }
            let mut found = gradient(&grads, &variables[name], name);
            // the reference ties the two: its gradient is the sum of both uses
            if name == embedding && variables.contains_key(output) {
                found = (found + gradient(&grads, &variables[output], output)).unwrap();
                compared += 1;
            }
            let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let distance = distance(&found, expected, None);
            // 0 in exact arithmetic: a constant added to all keys does not change the soft-max
            let no_effect = ["self.key.bias", "k_lin.bias"].iter().any(|suffix| name.ends_with(suffix));
            let tolerance = if no_effect { 1e-4 } else { 1e-3 * largest };
            assert!(distance <= tolerance, "{family} {name} {reader:?}: {distance} > {tolerance}");
            compared += 1;
        }
        assert_eq!(compared, variables.len(), "{family}: a parameter has no golden gradient");
    }
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_padded_batch() {
    for family in &families() {
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
    for family in &families() {
        let golden = golden(family);
        for plain in [false, true] {
            let a = Candle::new(golden.weights.tensors(), &Device::Cpu);
            let a = if plain { a.plain() } else { a };
            let inputs = a.inputs(vec![2, 50, 3, 0, 0, 0], vec![1, 1, 1, 0, 0, 0], 2).unwrap();
            let encoded = golden.config.forward(&a, &inputs).unwrap();
            let rows = splade(&a, &encoded.head, &inputs.mask, Default::default()).unwrap().to_vec2::<f32>().unwrap();
            assert!(rows[0].iter().any(|weight| *weight > 0.0), "{family}");
            assert!(rows[1].iter().all(|weight| *weight == 0.0), "{family}");
        }
    }
}
