//! The recorded training pass of the CPU against its twin in Candle, on shapes that the golden models do not have: long texts
//! and short ones side by side, windows, relative positions with far offsets, dropout.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splade_core::TokenBatch;
use splade_trainer::model::{
    Algebra, AttentionInputs, AttentionSettings, Candle, Init, Inputs, Pool, RelativeOffsets, Tape,
};

const VOCABULARY: usize = 50;
const HIDDEN: usize = 12;
const HEADS: usize = 3;
const SIZE: usize = HIDDEN / HEADS;
const TABLE: usize = 9;

/// One layer of attention with all the operations that a tape computes in its own way.
#[derive(Clone, Copy)]
struct Layer {
    window: Option<usize>,
    relative: bool,
    dropout: f64,
}

impl Layer {
    fn forward<A: Algebra>(self, a: &A, inputs: &Inputs<A::Tensor>) -> Result<A::Tensor, A::Error> {
        let parameter = |name: &str, shape: &[usize]| a.parameter(name, shape, Init::Zeros);
        let words = parameter("words", &[VOCABULARY, HIDDEN])?;
        let embedded = a.embed(&words, &inputs.ids)?;
        let (weight, bias) = (parameter("norm", &[HIDDEN])?, parameter("norm_bias", &[HIDDEN])?);
        let x = a.layer_norm(&embedded, Some(&weight), Some(&bias), 1e-5)?;
        let joined = a.linear(&x, &parameter("query_key", &[2 * HIDDEN, HIDDEN])?, None)?;
        let halves = a.split(&joined, 2)?;
        let query = a.rope(&a.split_heads(&halves[0], HEADS, SIZE)?, 100.0)?;
        let key = a.split_heads(&halves[1], HEADS, SIZE)?;
        let value = a.linear(&x, &parameter("value", &[HIDDEN, HIDDEN])?, None)?;
        let value = a.dropout(&value, self.dropout)?;
        let value = a.split_heads(&value, HEADS, SIZE)?;
        let positions = parameter("positions", &[TABLE, 2 * HIDDEN])?;
        // near offsets have rows of their own, far ones share theirs
        let offsets = RelativeOffsets::new(400, |offset| {
            let far = offset.signum() * (3 + i64::from(offset.abs() > 40));
            (if offset.abs() < 3 { offset } else { far } + TABLE as i64 / 2) as u32
        });
        let allowed = a.allowed_keys(&inputs.mask, self.window)?;
        let attended = a.attention(
            AttentionInputs {
                query: &query,
                key: &key,
                value: &value,
                positions: self.relative.then_some(&positions),
                allowed: &allowed,
            },
            &AttentionSettings {
                scale: 0.7,
                dropout: self.dropout,
                width: HIDDEN,
                offsets: self.relative.then_some(&offsets),
            },
        )?;
        let x = a.add(&x, &a.mul(&attended, &a.element(&bias, 1)?)?)?;
        a.max_logits(&x, &words, &parameter("bias", &[VOCABULARY])?, &inputs.mask)
    }
}

fn parameters(seed: u64) -> BTreeMap<String, Var> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shapes: [(&str, &[usize]); 7] = [
        ("words", &[VOCABULARY, HIDDEN]),
        ("norm", &[HIDDEN]),
        ("norm_bias", &[HIDDEN]),
        ("query_key", &[2 * HIDDEN, HIDDEN]),
        ("value", &[HIDDEN, HIDDEN]),
        ("positions", &[TABLE, 2 * HIDDEN]),
        ("bias", &[VOCABULARY]),
    ];
    let mut random = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-0.8..0.8)).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    shapes.into_iter().map(|(name, shape)| (name.to_owned(), random(shape))).collect()
}

fn tensors(parameters: &BTreeMap<String, Var>) -> Arc<BTreeMap<String, Tensor>> {
    Arc::new(parameters.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
}

/// Texts of these lengths, padded.
fn batch(lengths: &[usize]) -> TokenBatch {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let texts: Vec<Vec<u32>> =
        lengths.iter().map(|n| (0..*n).map(|_| rng.random_range(1..VOCABULARY as u32)).collect()).collect();
    TokenBatch::new(&texts, 0)
}

fn by_tape(
    layer: Layer,
    tensors: &Arc<BTreeMap<String, Tensor>>,
    pool: &Arc<Pool>,
    batch: &TokenBatch,
    seed: u64,
) -> Tensor {
    let a = Tape::new(tensors, pool, batch, seed);
    let vectors = layer.forward(&a, &a.inputs()).unwrap();
    a.attach(&vectors).unwrap()
}

/// A loss that depends on every number of the vectors.
fn loss(vectors: &Tensor) -> Tensor {
    let n = vectors.elem_count();
    let factors: Vec<f32> = (0..n).map(|at| ((at * 7 % 11) as f32 - 5.0) / 3.0).collect();
    let factors = Tensor::from_vec(factors, vectors.shape(), &Device::Cpu).unwrap();
    (vectors * factors).unwrap().sum_all().unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn values_and_gradients_are_those_of_candle() {
    let pool = Arc::<Pool>::default();
    for (window, relative) in [(None, false), (Some(5), false), (None, true), (Some(150), true)] {
        let layer = Layer { window, relative, dropout: 0.0 };
        // more queries than a block, an empty text, one token
        for lengths in [&[300, 7, 1, 0, 129][..], &[128], &[3, 256]] {
            let batch = batch(lengths);
            let parameters = parameters(1);
            let tensors = tensors(&parameters);
            let tape = by_tape(layer, &tensors, &pool, &batch, 1);
            let a = Candle::training(&tensors, &Device::Cpu, 1).plain();
            let candle = layer.forward(&a, &a.batch(&batch).unwrap()).unwrap();
            assert_eq!(tape.dims(), candle.dims());
            for (ours, plain) in numbers(&tape).into_iter().zip(numbers(&candle)) {
                assert!((ours - plain).abs() <= 2e-5 * plain.abs().max(1.0), "{window:?} {relative}: {ours} {plain}");
            }
            let (tape, candle) = (loss(&tape).backward().unwrap(), loss(&candle).backward().unwrap());
            for (name, parameter) in &parameters {
                if !relative && name == "positions" {
                    assert!(tape.get(parameter).is_none());
                    continue;
                }
                let (ours, plain) = (numbers(tape.get(parameter).unwrap()), numbers(candle.get(parameter).unwrap()));
                let largest = plain.iter().fold(0_f32, |largest, x| largest.max(x.abs()));
                assert!(largest > 0.0, "{name}");
                for (ours, plain) in ours.iter().zip(&plain) {
                    assert!((ours - plain).abs() <= 1e-4 * largest, "{window:?} {relative} {name}: {ours} {plain}");
                }
            }
        }
    }
}

#[test]
fn gradients_with_dropout_are_those_of_finite_differences() {
    let pool = Arc::<Pool>::default();
    let layer = Layer { window: Some(20), relative: true, dropout: 0.3 };
    let batch = batch(&[150, 4]);
    let parameters = parameters(2);
    let base = tensors(&parameters);
    let vectors = by_tape(layer, &base, &pool, &batch, 9);
    assert_eq!(numbers(&vectors), numbers(&by_tape(layer, &base, &pool, &batch, 9)));
    assert_ne!(numbers(&vectors), numbers(&by_tape(layer, &base, &pool, &batch, 10)));
    // squares, so that the token of a maximum matters less: a difference may not change which one it is
    let total = |vectors: &Tensor| numbers(&loss(vectors))[0];
    let grads = loss(&vectors).backward().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (name, parameter) in &parameters {
        let gradient = numbers(grads.get(parameter).unwrap());
        let direction: Vec<f32> = gradient.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
        let moved = |step: f32| {
            let values = numbers(parameter).iter().zip(&direction).map(|(x, d)| x + step * d).collect::<Vec<_>>();
            let mut all = (*base).clone();
            all.insert(name.clone(), Tensor::from_vec(values, parameter.shape(), &Device::Cpu).unwrap());
            total(&by_tape(layer, &Arc::new(all), &pool, &batch, 9))
        };
        let found: f32 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let step = 2e-4;
        let expected = (moved(step) - moved(-step)) / (2.0 * step);
        let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        assert!(
            (found - expected).abs() <= 0.03 * norm.max(0.1),
            "{name}: {found}, by differences {expected} of {norm}"
        );
    }
}

#[test]
fn rows_are_those_of_the_padded_batch() {
    let parameters = parameters(4);
    let batch = TokenBatch {
        ids: Array2::from_shape_vec((2, 3), vec![5, 6, 0, 7, 8, 9]).unwrap(),
        mask: Array2::from_shape_vec((2, 3), vec![1, 1, 0, 1, 1, 1]).unwrap(),
        pad: 0,
    };
    let a = Tape::new(&tensors(&parameters), &Arc::default(), &batch, 0);
    let words = a.parameter("words", &[VOCABULARY, HIDDEN], Init::Zeros).unwrap();
    let x = a.embed(&words, &a.inputs().ids).unwrap();
    let error = a.rows_of(&x, &[2]).unwrap_err();
    assert!(error.to_string().contains("no token at 2"), "{error}");
    let rows = a.rows_of(&x, &[3, 0, 3]).unwrap();
    let rows = a.attach(&rows).unwrap();
    let table = parameters["words"].to_vec2::<f32>().unwrap();
    assert_eq!(rows.to_vec2::<f32>().unwrap(), [7, 5, 7].map(|id| table[id].clone()));
    let grads = rows.sum_all().unwrap().backward().unwrap();
    let gradient = grads.get(&parameters["words"]).unwrap().to_vec2::<f32>().unwrap();
    for (id, row) in gradient.iter().enumerate() {
        let expected = match id {
            7 => 2.0,
            5 => 1.0,
            _ => 0.0,
        };
        assert!(row.iter().all(|x| *x == expected), "{id}");
    }
}
