//! The algebra's reader that trains on the CPU: it computes, records what the backward pass needs, and runs that pass.
//!
//! Candle's graph holds every intermediate tensor until the whole backward pass is over, makes a tensor of zeros for each
//! gradient before it adds the first part, and takes fresh memory for each result. A [`Tape`] keeps less and writes less:
//!
//! * rows of padding do not exist: a batch is the tokens of its texts, one after the other;
//! * norms, activations, products element by element, dropout and rotations are computed again where the backward pass reads
//!   them, and so are the scores of [attention];
//! * what a step keeps is dropped as soon as the backward pass has gone past it, and its memory is used again;
//! * gradients are added in place, those of linear layers by the matrix product itself.
//!
//! Its twin is [`Candle`](super::Candle), which other devices run: the tests compare values and gradients.

mod attention;
mod buffer;
mod elementwise;
mod grads;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splade_core::TokenBatch;

use super::algebra::{Activation, Algebra, AttentionInputs, AttentionSettings, Init, Inputs, Positions};
use super::attach::attach;
use super::candle::count_after_padding;
use super::max_logits::{Active, largest_logits};
use super::ops::{self, LayerNorm, column_sums};
use super::product::{Mat, Threads, Write, product};
use crate::{Error, Result};
use attention::{Attention, Dropout, Relative, Rows};
use buffer::Buffer;
pub use buffer::Pool;
use grads::Grads;
pub use value::{Floats, Value};
use value::{Place, Saved, Source, mat};

/// A part of a forward pass, as a function of its inputs.
type Function = Box<dyn Fn(&Tape, &[Value]) -> Result<Value> + Send + Sync>;

/// A step of the backward pass: from the gradient of a result to those of what it was made of.
type Backward = Box<dyn FnOnce(Arc<Buffer>, &mut Grads) -> Result<()> + Send>;

/// Runs and records a forward pass over one batch.
pub struct Tape {
    context: Context,
    rng: RefCell<ChaCha8Rng>,
    /// results and how their gradients go on, in the order they were made
    steps: RefCell<Vec<(usize, Backward)>>,
    n_slots: Cell<usize>,
    /// false in a part that is computed again later
    records: bool,
    /// layers are computed again in the backward pass
    recomputes_layers: bool,
}

/// State shared by all passes over a batch.
#[derive(Clone)]
struct Context {
    parameters: Arc<BTreeMap<String, Tensor>>,
    pool: Arc<Pool>,
    batch: Arc<Packed>,
}

/// The tokens of a batch, without padding.
#[derive(Debug)]
struct Packed {
    /// where texts begin, and the number of tokens
    starts: Vec<usize>,
    /// by token, its place in its row
    columns: Vec<u32>,
    /// by token, its flat index in the padded batch
    flat: Vec<u32>,
    /// the padded batch, which positions are counted in
    ids: Vec<u32>,
    width: usize,
}

impl Packed {
    fn new(batch: &TokenBatch) -> Self {
        let width = batch.width();
        let mut packed = Self {
            starts: vec![0],
            columns: Vec::new(),
            flat: Vec::new(),
            // ids of tokenizers are u32
            ids: batch.ids.iter().map(|id| *id as u32).collect(),
            width,
        };
        for (row, mask) in batch.mask.outer_iter().enumerate() {
            for column in (0..width).filter(|column| mask[*column] != 0) {
                packed.columns.push(column as u32);
                packed.flat.push((row * width + column) as u32);
            }
            packed.starts.push(packed.flat.len());
        }
        packed
    }

    fn tokens(&self) -> usize {
        self.flat.len()
    }

    fn texts(&self) -> usize {
        self.starts.len() - 1
    }

    /// Longest text.
    fn longest(&self) -> usize {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }
}

impl Tape {
    /// A training pass over `batch`, with dropout drawn from `seed`. The parameters, by checkpoint name, are contiguous, of f32
    /// and on the CPU.
    #[must_use]
    pub fn new(parameters: &Arc<BTreeMap<String, Tensor>>, pool: &Arc<Pool>, batch: &TokenBatch, seed: u64) -> Self {
        let batch = Arc::new(Packed::new(batch));
        Self {
            context: Context { parameters: parameters.clone(), pool: pool.clone(), batch },
            rng: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            steps: RefCell::default(),
            n_slots: Cell::new(0),
            records: true,
            recomputes_layers: false,
        }
    }

    /// With `yes`, layers keep their inputs only, and are computed again in the backward pass.
    #[must_use]
    pub fn recomputing_layers(self, yes: bool) -> Self {
        Self { recomputes_layers: yes, ..self }
    }

    /// The batch as inputs of a forward pass.
    #[must_use]
    pub fn inputs(&self) -> Inputs<Value> {
        let batch = &self.context.batch;
        Inputs {
            ids: Value::Ids(batch.flat.iter().map(|flat| batch.ids[*flat as usize]).collect()),
            mask: Value::Mask(vec![true; batch.tokens()].into()),
            token_types: None,
        }
    }

    /// Rows of `x`, which has a row per token, by flat index `row·T + t` into the padded batch.
    ///
    /// # Errors
    /// An index of padding.
    pub fn rows_of(&self, x: &Value, flat: &[u32]) -> Result<Value> {
        let packed = |flat: &u32| {
            let found = self.context.batch.flat.binary_search(flat);
            found.map(|at| at as u32).map_err(|_| Error::invalid(format!("there is no token at {flat}"), ""))
        };
        let rows = flat.iter().map(packed).collect::<Result<Vec<u32>>>()?;
        self.embed(x, &Value::Ids(rows.into()))
    }

    /// Makes `output` a tensor whose backward pass is that of the tape.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn attach(self, output: &Value) -> Result<Tensor> {
        let output = output.floats()?;
        let (rows, width) = (output.place.rows, output.place.width);
        let tensor = {
            let numbers = output.lock()?;
            let values: Vec<f32> = (0..rows).flat_map(|row| &numbers[output.place.row(row)]).copied().collect();
            Tensor::from_vec(values, (rows, width), &Device::Cpu)?
        };
        let parameters: Vec<Tensor> = self.context.parameters.values().cloned().collect();
        let (context, target) = (self.context, output.target());
        let (steps, n_slots) = (self.steps.into_inner(), self.n_slots.get());
        let backward = move |gradient: &Tensor| {
            let mut first = context.pool.take(rows * width);
            first.copy_from_slice(&gradient.contiguous()?.flatten_all()?.to_vec1::<f32>()?);
            let mut grads = Grads::new(n_slots, context.pool.clone());
            grads.give(&target, first);
            run_back(steps, &mut grads)?;
            let mut found = grads.into_parameters();
            let gradient = |(name, tensor): (&String, &Tensor)| {
                let gradient = found.remove(name.as_str())?;
                // two parameters may share a gradient
                let numbers = Arc::try_unwrap(gradient).map_or_else(|shared| shared.to_vec(), Buffer::into_vec);
                Some(Tensor::from_vec(numbers, tensor.shape(), tensor.device()).map(|g| (tensor.id(), g)))
            };
            Ok(context.parameters.iter().filter_map(gradient).collect::<candle_core::Result<_>>()?)
        };
        attach(&tensor, &parameters, Box::new(backward))
    }

    fn take(&self, n: usize) -> Buffer {
        self.context.pool.take(n)
    }

    /// A result, recorded if it depends on something with a gradient. `backward` makes the step of the backward pass, and is
    /// only then called.
    fn record(
        &self,
        data: Buffer,
        rows: usize,
        width: usize,
        from: &[&Floats],
        backward: impl FnOnce() -> Backward,
    ) -> Floats {
        if !from.iter().any(|value| value.has_gradient()) {
            return Floats::new(Source::None, data, rows, width);
        }
        self.record_always(data, rows, width, backward)
    }

    /// A result that is recorded.
    fn record_always(&self, data: Buffer, rows: usize, width: usize, backward: impl FnOnce() -> Backward) -> Floats {
        let slot = self.n_slots.get();
        self.n_slots.set(slot + 1);
        if self.records {
            self.steps.borrow_mut().push((slot, backward()));
        }
        Floats::new(Source::Slot(slot), data, rows, width)
    }

    /// A constant.
    fn without_gradient(&self, values: &[f32], rows: usize, width: usize) -> Floats {
        let mut data = self.take(values.len());
        data.copy_from_slice(values);
        Floats::new(Source::None, data, rows, width)
    }

    /// The value with its rows one after the other.
    fn contiguous(&self, x: &Floats) -> Result<Floats> {
        if x.place.is_contiguous() {
            return Ok(x.clone());
        }
        let (rows, width, place) = (x.place.rows, x.place.width, x.place);
        let make = move |pool: &Arc<Pool>, x: &[f32]| {
            let mut data = pool.take(rows * width);
            for (row, out) in data.chunks_exact_mut(width.max(1)).enumerate() {
                out.copy_from_slice(&x[place.row(row)]);
            }
            data
        };
        let data = make(&self.context.pool, &x.lock()?);
        let target = x.target();
        let result = self.record(data, rows, width, &[x], || {
            Box::new(move |gradient, grads| {
                grads.give(&target, gradient);
                Ok(())
            })
        });
        let (saved, pool) = (x.save(), self.context.pool.clone());
        Ok(result.with_heads(x.heads).again(move || Ok(make(&pool, &saved.lock()?))))
    }

    /// A pass with records of its own over the same batch.
    fn nested(context: Context, rng: ChaCha8Rng, records: bool) -> Self {
        Self {
            context,
            rng: RefCell::new(rng),
            steps: RefCell::default(),
            n_slots: Cell::new(0),
            records,
            recomputes_layers: false,
        }
    }

    fn draw_dropout(&self, probability: f64) -> Option<Dropout> {
        (probability > 0.0).then(|| Dropout { seed: self.rng.borrow_mut().next_u64(), probability })
    }

    /// Gradients of linear layers: see [`Algebra::linear`].
    fn linear_backward(x: Saved, weight: Saved, targets: [Option<value::Target>; 3], [n, out]: [usize; 2]) -> Backward {
        Box::new(move |gradient, grads| {
            let rows = Mat::new(&gradient, n, out, out);
            let [x_target, weight_target, bias_target] = targets;
            if let Some(target) = bias_target {
                let sums = column_sums(
                    n,
                    out,
                    #[inline(always)]
                    |row, sums| {
                        for (sum, gradient) in sums.iter_mut().zip(&gradient[row * out..][..out]) {
                            *sum += gradient;
                        }
                    },
                );
                grads.edit(&target, |all| {
                    let place = target.place;
                    for (all, sum) in all[place.start..].iter_mut().zip(&sums) {
                        *all += sum;
                    }
                });
            }
            if let Some(target) = weight_target {
                grads.give_product(&target, rows.t(), mat(&x.lock()?, x.place), 1.0);
            }
            drop(x);
            if let Some(target) = x_target {
                grads.give_product(&target, rows, mat(&weight.lock()?, weight.place), 1.0);
            }
            Ok(())
        })
    }
}

/// Runs the steps of a backward pass, the last first, and drops each with what it kept.
fn run_back(steps: Vec<(usize, Backward)>, grads: &mut Grads) -> Result<()> {
    for (slot, backward) in steps.into_iter().rev() {
        if let Some(gradient) = grads.take(slot) {
            backward(gradient, grads)?;
        }
    }
    Ok(())
}

/// Replaces the gradient of a value by that of a nested pass, in which the value is a leaf.
fn leaf(value: &Value, slot: usize) -> Value {
    match value {
        Value::Floats(floats) if floats.has_gradient() => {
            Value::Floats(floats.with_source(Source::Slot(slot), floats.place))
        }
        other => other.clone(),
    }
}

impl Algebra for Tape {
    type Tensor = Value;
    type Error = Error;

    fn parameter(&self, name: &str, shape: &[usize], _: Init) -> Result<Value> {
        let tensor = self.context.parameters.get(name);
        let tensor = tensor.ok_or_else(|| Error::invalid(format!("parameter {name} is missing"), ""))?;
        if tensor.dims() != shape {
            let message = format!("parameter {name} has shape {:?}, not {shape:?}", tensor.dims());
            return Err(Error::invalid(message, ""));
        }
        Ok(Value::Floats(Floats::parameter(name, tensor)?))
    }

    fn recomputed<F>(&self, inputs: &[&Value], part: F) -> Result<Value>
    where
        F: Fn(&Self, &[Value]) -> Result<Value> + Send + Sync + 'static,
    {
        let inputs: Vec<Value> = inputs.iter().copied().cloned().collect();
        if !(self.recomputes_layers && self.records) {
            return part(self, &inputs);
        }
        self.recompute(inputs, Box::new(part))
    }

    fn has(&self, name: &str) -> bool {
        self.context.parameters.contains_key(name)
    }

    fn embed(&self, table: &Value, ids: &Value) -> Result<Value> {
        let (table, ids) = (table.floats()?, ids.ids()?.clone());
        let (place, width) = (table.place, table.place.width);
        if let Some(id) = ids.iter().find(|id| **id as usize >= place.rows) {
            return Err(Error::invalid(format!("id {id} is not in a table of {} rows", place.rows), ""));
        }
        let mut data = self.take(ids.len() * width);
        let numbers = table.lock()?;
        for (id, out) in ids.iter().zip(data.chunks_exact_mut(width.max(1))) {
            out.copy_from_slice(&numbers[place.row(*id as usize)]);
        }
        let (target, n) = (table.target(), ids.len());
        let result = self.record(data, n, width, &[table], || {
            Box::new(move |gradient, grads| {
                grads.edit(&target, |all| {
                    for (id, gradient) in ids.iter().zip(gradient.chunks_exact(width.max(1))) {
                        for (sum, gradient) in all[place.row(*id as usize)].iter_mut().zip(gradient) {
                            *sum += gradient;
                        }
                    }
                });
                Ok(())
            })
        });
        Ok(Value::Floats(result))
    }

    fn positions(&self, _: &Value, positions: Positions) -> Result<Value> {
        let batch = &self.context.batch;
        Ok(Value::Ids(match positions {
            Positions::FromZero => batch.columns.clone().into(),
            Positions::AfterPadding { pad } => {
                let mut all = batch.ids.clone();
                all.chunks_mut(batch.width.max(1)).for_each(|row| count_after_padding(row, pad));
                batch.flat.iter().map(|flat| all[*flat as usize]).collect()
            }
        }))
    }

    fn first_row(&self, table: &Value) -> Result<Value> {
        let table = table.floats()?;
        Ok(Value::Floats(table.part(Place { rows: 1.min(table.place.rows), ..table.place })))
    }

    fn constant(&self, values: Vec<f32>, shape: &[usize]) -> Result<Value> {
        let width = shape.last().copied().unwrap_or(1);
        Ok(Value::Floats(self.without_gradient(&values, values.len() / width.max(1), width)))
    }

    fn element(&self, vector: &Value, index: usize) -> Result<Value> {
        let vector = vector.floats()?;
        let place = vector.place;
        if index >= place.count() || !place.is_contiguous() {
            return Err(Error::invalid(format!("there is no element {index}"), ""));
        }
        Ok(Value::Floats(vector.part(Place { start: place.start + index, rows: 1, width: 1, stride: 1, ..place })))
    }

    fn add(&self, a: &Value, b: &Value) -> Result<Value> {
        Ok(Value::Floats(self.add_floats(a.floats()?, b.floats()?)?))
    }

    fn mul(&self, a: &Value, b: &Value) -> Result<Value> {
        Ok(Value::Floats(self.mul_floats(a.floats()?, b.floats()?)?))
    }

    fn affine(&self, x: &Value, scale: f64, shift: f64) -> Result<Value> {
        Ok(Value::Floats(self.affine_floats(x.floats()?, scale as f32, shift as f32)?))
    }

    fn split(&self, x: &Value, parts: usize) -> Result<Vec<Value>> {
        let x = x.floats()?;
        let width = x.place.width / parts.max(1);
        let part = |part: usize| x.part(Place { start: x.place.start + part * width, width, ..x.place });
        Ok((0..parts).map(|at| Value::Floats(part(at))).collect())
    }

    fn linear(&self, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
        let (x, weight, bias) = (x.floats()?, weight.floats()?, bias.map(Value::floats).transpose()?);
        let (n, out) = (x.place.rows, weight.place.rows);
        let mut data = self.take(n * out);
        {
            let (x_numbers, weights) = (x.lock()?, weight.lock()?);
            let (a, b) = (mat(&x_numbers, x.place), mat(&weights, weight.place).t());
            let write = match bias {
                None => Write::Over,
                Some(bias) => {
                    let numbers = bias.lock()?;
                    let bias = &numbers[bias.place.row(0)];
                    ops::fill(&mut data, ops::CHUNK * out.max(1), |_, rows| {
                        rows.chunks_exact_mut(out).for_each(|row| row.copy_from_slice(bias));
                    });
                    Write::Add
                }
            };
            product(&mut data, out, a, b, 1.0, write, Threads::All);
        }
        let from: Vec<&Floats> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        let result = self.record(data, n, out, &from, || {
            let target = |value: &Floats| value.has_gradient().then(|| value.target());
            let targets = [target(x), target(weight), bias.and_then(target)];
            Self::linear_backward(x.save(), weight.save(), targets, [n, out])
        });
        Ok(Value::Floats(result))
    }

    fn layer_norm(&self, x: &Value, weight: Option<&Value>, bias: Option<&Value>, eps: f64) -> Result<Value> {
        let affine = [weight, bias].map(|value| value.map(Value::floats).transpose());
        let [weight, bias] = affine;
        Ok(Value::Floats(self.norm(x.floats()?, weight?, bias?, LayerNorm { eps: eps as f32 })?))
    }

    fn activate(&self, x: &Value, activation: Activation) -> Result<Value> {
        Ok(Value::Floats(self.activate_floats(x.floats()?, activation)?))
    }

    fn dropout(&self, x: &Value, probability: f64) -> Result<Value> {
        let Some(dropout) = self.draw_dropout(probability) else { return Ok(x.clone()) };
        Ok(Value::Floats(self.drop_out(x.floats()?, dropout)?))
    }

    fn per_head(&self, x: &Value) -> Result<Value> {
        Ok(x.clone())
    }

    fn split_heads(&self, x: &Value, heads: usize, _: usize) -> Result<Value> {
        Ok(Value::Floats(x.floats()?.clone().with_heads(heads)))
    }

    fn rope(&self, x: &Value, theta: f64) -> Result<Value> {
        Ok(Value::Floats(self.rotate(x.floats()?, theta)?))
    }

    fn allowed_keys(&self, _: &Value, window: Option<usize>) -> Result<Value> {
        Ok(Value::Allowed { window })
    }

    fn attention(&self, inputs: AttentionInputs<'_, Value>, settings: &AttentionSettings<'_>) -> Result<Value> {
        let AttentionInputs { query, key, value, positions, allowed } = inputs;
        let Value::Allowed { window } = allowed else { return Err(Error::invalid("attention without a mask", "")) };
        let (query, key, value) = (query.floats()?, key.floats()?, value.floats()?);
        let batch = self.context.batch.clone();
        let relative = match (positions, settings.offsets) {
            (Some(_), Some(offsets)) => Some(Relative::new(batch.longest(), |offset| offsets.index(offset))),
            _ => None,
        };
        let positions = positions.map(Value::floats).transpose()?;
        let attention = Attention {
            heads: query.heads,
            scale: settings.scale as f32,
            window: *window,
            dropout: self.draw_dropout(settings.dropout),
            relative,
        };
        let data = {
            let numbers = [query.lock()?, key.lock()?, value.lock()?];
            let position_numbers = positions.map(Floats::lock).transpose()?;
            let rows = |at: usize, place| Rows { numbers: &numbers[at], place };
            let inputs = attention::Inputs {
                query: rows(0, query.place),
                key: rows(1, key.place),
                value: rows(2, value.place),
                positions: positions
                    .zip(position_numbers.as_deref())
                    .map(|(p, numbers)| Rows { numbers, place: p.place }),
            };
            attention.forward(inputs, &batch.starts, &self.context.pool)
        };
        let from: Vec<&Floats> = [Some(query), Some(key), Some(value), positions].into_iter().flatten().collect();
        let result = self.record(data, value.place.rows, value.place.width, &from, || {
            let saved = [query.save(), key.save(), value.save()];
            let targets = [query.target(), key.target(), value.target()];
            let positions = positions.map(|positions| (positions.save(), positions.target()));
            let pool = self.context.pool.clone();
            Box::new(move |gradient, grads| {
                let gradients = {
                    let numbers = [saved[0].lock()?, saved[1].lock()?, saved[2].lock()?];
                    let rows = |at: usize| Rows { numbers: &numbers[at], place: saved[at].place };
                    let position_numbers = positions.as_ref().map(|(saved, _)| saved.lock()).transpose()?;
                    let place = positions.as_ref().map(|(saved, _)| saved.place);
                    let inputs = attention::Inputs {
                        query: rows(0),
                        key: rows(1),
                        value: rows(2),
                        positions: place
                            .zip(position_numbers.as_deref())
                            .map(|(place, numbers)| Rows { numbers, place }),
                    };
                    attention.backward(inputs, &gradient, &batch.starts, &pool)
                };
                drop(saved);
                let [query, key, value] = targets;
                grads.give(&query, gradients.query);
                grads.give(&key, gradients.key);
                grads.give(&value, gradients.value);
                if let Some(((_, target), gradient)) = positions.zip(gradients.positions) {
                    grads.give(&target, gradient);
                }
                Ok(())
            })
        });
        Ok(Value::Floats(result))
    }

    fn max_logits(&self, features: &Value, weight: &Value, bias: &Value, mask: &Value) -> Result<Value> {
        let (features, mask) = (self.contiguous(features.floats()?)?, mask.mask()?);
        let (weight, bias) = (weight.floats()?, bias.floats()?);
        let (terms, size) = (weight.place.rows, weight.place.width);
        let batch = &self.context.batch;
        let (largest, at) = {
            let (features_numbers, weights, biases) = (features.lock()?, weight.lock()?, bias.lock()?);
            let features_numbers = &features_numbers[features.place.start..][..features.place.count()];
            let weights = [&weights[weight.place.start..][..terms * size], &biases[bias.place.row(0)]];
            largest_logits(features_numbers, weights, size, &batch.starts, mask)
        };
        let n = batch.texts();
        let mut data = self.take(n * terms);
        data.copy_from_slice(&largest);
        let result = self.record(data, n, terms, &[&features, weight, bias], || {
            let (features_saved, weight_saved) = (features.save(), weight.save());
            let targets = [features.target(), weight.target(), bias.target()];
            let batch = batch.clone();
            Box::new(move |gradient, grads| {
                let active = Active::new(&gradient, &at, terms);
                let [features, weight, bias] = targets;
                {
                    let weights = weight_saved.lock()?;
                    let weights = &weights[weight_saved.place.start..];
                    grads.edit(&features, |all| {
                        active.add_features(weights, size, &batch.starts, &mut all[features.place.start..]);
                    });
                }
                let numbers = features_saved.lock()?;
                let numbers = &numbers[features_saved.place.start..];
                let active = active.by_term();
                grads.edit(&weight, |all| active.add_weights(numbers, size, &mut all[weight.place.start..]));
                grads.edit(&bias, |all| active.add_biases(&mut all[bias.place.start..]));
                Ok(())
            })
        });
        Ok(Value::Floats(result))
    }

    fn followed(&self, mask: &Value) -> Result<Value> {
        let mask = mask.mask()?;
        let starts = &self.context.batch.starts;
        let mut followed = vec![false; mask.len()];
        for text in starts.windows(2) {
            for token in text[0]..text[1].saturating_sub(1) {
                followed[token] = mask[token + 1];
            }
        }
        Ok(Value::Mask(followed.into()))
    }

    fn has_token(&self, mask: &Value) -> Result<Value> {
        let mask = mask.mask()?;
        let any = |text: &[usize]| f32::from(u8::from(mask[text[0]..text[1]].contains(&true)));
        let values: Vec<f32> = self.context.batch.starts.windows(2).map(any).collect();
        Ok(Value::Floats(self.without_gradient(&values, values.len(), 1)))
    }

    fn shift_right(&self, x: &Value, first: &Value) -> Result<Value> {
        Ok(Value::Floats(self.shift(x.floats()?, first.floats()?)?))
    }

    fn log1p_relu(&self, x: &Value) -> Result<Value> {
        Ok(Value::Floats(self.map::<ops::Log1pRelu>(x.floats()?)?))
    }

    fn masked_sum(&self, x: &Value, mask: &Value) -> Result<Value> {
        Ok(Value::Floats(self.sum_tokens(x.floats()?, mask.mask()?)?))
    }
}

impl Tape {
    /// Runs a part without a record, and again, with one, in the backward pass.
    fn recompute(&self, inputs: Vec<Value>, part: Function) -> Result<Value> {
        let rng = self.rng.borrow().clone();
        let first = Self::nested(self.context.clone(), rng.clone(), false);
        let output = part(&first, &inputs)?;
        self.rng.replace(first.rng.into_inner());
        let output = self.contiguous(&output.floats()?.clone())?;
        let (rows, width) = (output.place.rows, output.place.width);
        let mut data = self.take(rows * width);
        data.copy_from_slice(&output.lock()?[output.place.start..][..rows * width]);
        let context = self.context.clone();
        // a part reads parameters too: it has a gradient even if none of its inputs has one
        let result = self.record_always(data, rows, width, || {
            let targets: Vec<_> = inputs.iter().map(|input| input.floats().ok().map(Floats::target)).collect();
            Box::new(move |gradient, grads| {
                let tape = Self::nested(context, rng, true);
                tape.n_slots.set(inputs.len());
                let leaves: Vec<Value> = inputs.iter().enumerate().map(|(at, input)| leaf(input, at)).collect();
                drop(inputs);
                let output = part(&tape, &leaves)?;
                let output = output.floats()?.target();
                drop(leaves);
                let (steps, n_slots) = (tape.steps.into_inner(), tape.n_slots.get());
                let found = grads.nested(n_slots, |grads| {
                    grads.give(&output, gradient);
                    run_back(steps, grads)?;
                    Ok::<_, Error>((0..targets.len()).map(|at| grads.take(at)).collect::<Vec<_>>())
                })?;
                for (target, gradient) in targets.iter().zip(found) {
                    if let (Some(target), Some(gradient)) = (target, gradient) {
                        grads.give_all(target, gradient);
                    }
                }
                Ok(())
            })
        });
        Ok(Value::Floats(result.with_heads(output.heads)))
    }
}
