//! Operations of a [`Tape`] that read each number once: sums, products, norms, activations, dropout, rotations.
//!
//! All but sums are computed again where a backward pass reads their result.

use std::sync::Arc;

use super::attention::Dropout;
use super::buffer::{Buffer, Pool};
use super::value::{Floats, Place, Saved, Target};
use super::{Backward, Tape};
use crate::model::algebra::Activation;
use crate::model::ops::{self, CHUNK, LayerNorm, Pointwise, column_sums, fill, sum};
use crate::{Error, Result};

/// Numbers of a chunk that is dropped out by one thread.
const DROPOUT_CHUNK: usize = 1 << 14;

/// Spread of the second operand over the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// as large
    Same,
    /// one row for all
    Row,
    /// one number for all
    Scalar,
    /// one number for each row
    Column,
}

/// A matrix inside some numbers.
#[derive(Clone, Copy)]
struct View<'a> {
    numbers: &'a [f32],
    place: Place,
}

impl<'a> View<'a> {
    fn new(numbers: &'a [f32], place: Place) -> Self {
        Self { numbers, place }
    }

    #[inline(always)]
    fn row(self, i: usize) -> &'a [f32] {
        &self.numbers[self.place.row(i)]
    }

    /// All numbers of a contiguous matrix.
    fn all(self) -> &'a [f32] {
        &self.numbers[self.place.start..][..self.place.count()]
    }
}

/// `out = f(a, b)`, element by element; `out` is contiguous.
fn combine(out: &mut [f32], a: View<'_>, b: View<'_>, spread: Spread, f: impl Fn(f32, f32) -> f32 + Sync) {
    let width = a.place.width.max(1);
    fill(
        out,
        CHUNK * width,
        #[inline(always)]
        |start, out| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let row = start / width + row;
                let a = a.row(row);
                let other = match spread {
                    Spread::Same => b.row(row),
                    Spread::Row => &b.all()[..width],
                    Spread::Scalar | Spread::Column => {
                        let b = if spread == Spread::Scalar { b.row(0)[0] } else { b.row(row)[0] };
                        for (out, a) in out.iter_mut().zip(a) {
                            *out = f(*a, b);
                        }
                        continue;
                    }
                };
                // a `for_each` would not be compiled for the machine's vectors
                for ((out, a), b) in out.iter_mut().zip(a).zip(other) {
                    *out = f(*a, *b);
                }
            }
        },
    );
}

/// Sums `gradient·factor` (or `gradient` alone) to the shape of an operand that was spread, and gives them to it.
fn reduce(grads: &mut super::Grads, target: &Target, gradient: View<'_>, factor: Option<View<'_>>, spread: Spread) {
    let (rows, width) = (gradient.place.rows, gradient.place.width);
    #[inline(always)]
    fn row_sum(gradient: &[f32], factor: Option<&[f32]>) -> f32 {
        match factor {
            None => sum(gradient.iter().copied()),
            Some(factor) => sum(gradient.iter().zip(factor).map(|(g, f)| g * f)),
        }
    }
    let sums = match spread {
        Spread::Same => return,
        Spread::Scalar => column_sums(
            rows,
            1,
            #[inline(always)]
            |row, sums| sums[0] += row_sum(gradient.row(row), factor.map(|factor| factor.row(row))),
        ),
        Spread::Column => {
            let mut sums = vec![0.0; rows];
            fill(
                &mut sums,
                CHUNK,
                #[inline(always)]
                |start, out| {
                    for (row, out) in out.iter_mut().enumerate() {
                        let row = start + row;
                        *out = row_sum(gradient.row(row), factor.map(|factor| factor.row(row)));
                    }
                },
            );
            sums
        }
        Spread::Row => column_sums(
            rows,
            width,
            #[inline(always)]
            |row, sums| match factor {
                None => {
                    for (sum, g) in sums.iter_mut().zip(gradient.row(row)) {
                        *sum += g;
                    }
                }
                Some(factor) => {
                    for ((sum, g), f) in sums.iter_mut().zip(gradient.row(row)).zip(factor.row(row)) {
                        *sum += g * f;
                    }
                }
            },
        ),
    };
    let place = target.place;
    grads.edit(target, |all| {
        // a row may be stored as one per head, a column is contiguous
        all[place.start..][..sums.len()].iter_mut().zip(&sums).for_each(|(all, sum)| *all += sum);
    });
}

/// The numbers of a value that may be absent.
fn lock_option(saved: &Option<Saved>) -> Result<Option<super::value::Numbers<'_>>> {
    saved.as_ref().map(Saved::lock).transpose()
}

/// The operands, the larger one first, and how the other is spread.
fn operands<'a>(a: &'a Floats, b: &'a Floats) -> Result<(&'a Floats, &'a Floats, Spread)> {
    let (a, b) = if a.place.count() < b.place.count() { (b, a) } else { (a, b) };
    let (large, small) = (a.place, b.place);
    let spread = if (large.rows, large.width) == (small.rows, small.width) {
        Spread::Same
    } else if small.count() == 1 {
        Spread::Scalar
    } else if small.count() == large.width && small.is_contiguous() {
        Spread::Row
    } else if small.width == 1 && small.rows == large.rows && small.is_contiguous() {
        Spread::Column
    } else {
        let message = format!("{} x {} does not fit {} x {}", small.rows, small.width, large.rows, large.width);
        return Err(Error::invalid(message, ""));
    };
    Ok((a, b, spread))
}

impl Tape {
    /// `a + b`.
    pub(super) fn add_floats(&self, a: &Floats, b: &Floats) -> Result<Floats> {
        let (a, b, spread) = operands(a, b)?;
        let (rows, width) = (a.place.rows, a.place.width);
        let mut data = self.take(rows * width);
        combine(
            &mut data,
            View::new(&a.lock()?, a.place),
            View::new(&b.lock()?, b.place),
            spread,
            #[inline(always)]
            |a, b| a + b,
        );
        let result = self.record(data, rows, width, &[a, b], || {
            let (a, b) = (a.target(), b.target());
            Box::new(move |gradient: Arc<Buffer>, grads| {
                match spread {
                    Spread::Same => grads.give(&b, gradient.clone()),
                    _ => reduce(grads, &b, View::new(&gradient, Place::whole(rows, width)), None, spread),
                }
                grads.give(&a, gradient);
                Ok(())
            })
        });
        Ok(result.with_heads(a.heads))
    }

    /// `a·b`, element by element.
    pub(super) fn mul_floats(&self, a: &Floats, b: &Floats) -> Result<Floats> {
        let (a, b, spread) = operands(a, b)?;
        let (rows, width) = (a.place.rows, a.place.width);
        let make = move |pool: &Arc<Pool>, a: View<'_>, b: View<'_>| {
            let mut data = pool.take(rows * width);
            combine(
                &mut data,
                a,
                b,
                spread,
                #[inline(always)]
                |a, b| a * b,
            );
            data
        };
        let data = make(&self.context.pool, View::new(&a.lock()?, a.place), View::new(&b.lock()?, b.place));
        let saved = [a.save(), b.save()];
        let result = self.record(data, rows, width, &[a, b], || {
            let (targets, saved) = ([a.target(), b.target()], saved.clone());
            let has_gradient = [a.has_gradient(), b.has_gradient()];
            let pool = self.context.pool.clone();
            Box::new(move |gradient, grads| {
                let whole = Place::whole(rows, width);
                if has_gradient[1] {
                    let a = saved[0].lock()?;
                    let a = View::new(&a, saved[0].place);
                    match spread {
                        Spread::Same => {
                            let mut out = pool.take(rows * width);
                            combine(
                                &mut out,
                                View::new(&gradient, whole),
                                a,
                                Spread::Same,
                                #[inline(always)]
                                |g, a| g * a,
                            );
                            grads.give(&targets[1], out);
                        }
                        _ => reduce(grads, &targets[1], View::new(&gradient, whole), Some(a), spread),
                    }
                }
                if has_gradient[0] {
                    let b = saved[1].lock()?;
                    let mut out = pool.take(rows * width);
                    let b = View::new(&b, saved[1].place);
                    combine(
                        &mut out,
                        View::new(&gradient, whole),
                        b,
                        spread,
                        #[inline(always)]
                        |g, b| g * b,
                    );
                    grads.give(&targets[0], out);
                }
                Ok(())
            })
        });
        let pool = self.context.pool.clone();
        let again = move || {
            let (a, b) = (saved[0].lock()?, saved[1].lock()?);
            Ok(make(&pool, View::new(&a, saved[0].place), View::new(&b, saved[1].place)))
        };
        Ok(result.with_heads(a.heads).again(again))
    }

    /// A function of each number, which is computed again, and its gradient from the saved argument.
    fn pointwise(
        &self,
        x: &Floats,
        value: impl Fn(&mut [f32], View<'_>) + Send + Sync + Copy + 'static,
        gradient: impl Fn(&mut [f32], View<'_>) + Send + Sync + Copy + 'static,
    ) -> Result<Floats> {
        let (rows, width) = (x.place.rows, x.place.width);
        let mut data = self.take(rows * width);
        value(&mut data, View::new(&x.lock()?, x.place));
        let saved = x.save();
        let result = self.record(data, rows, width, &[x], || {
            let (target, saved) = (x.target(), saved.clone());
            Box::new(move |output: Arc<Buffer>, grads| {
                let mut out = Buffer::own(output);
                gradient(&mut out, View::new(&saved.lock()?, saved.place));
                grads.give(&target, out);
                Ok(())
            })
        });
        let pool = self.context.pool.clone();
        let again = move || {
            let mut data = pool.take(rows * width);
            value(&mut data, View::new(&saved.lock()?, saved.place));
            Ok(data)
        };
        Ok(result.with_heads(x.heads).again(again))
    }

    /// A function of each number, and the product of a gradient with its derivative.
    fn each(
        &self,
        x: &Floats,
        value: impl Fn(f32) -> f32 + Send + Sync + Copy + 'static,
        gradient: impl Fn(f32, f32) -> f32 + Send + Sync + Copy + 'static,
    ) -> Result<Floats> {
        self.pointwise(
            x,
            move |out, x| {
                update(
                    out,
                    x,
                    #[inline(always)]
                    |_, x| value(x),
                )
            },
            move |out, x| update(out, x, gradient),
        )
    }

    /// A function with a derivative.
    pub(super) fn map<P: Pointwise>(&self, x: &Floats) -> Result<Floats> {
        self.each(
            x,
            #[inline(always)]
            |x| P::value(x),
            #[inline(always)]
            |gradient, x| gradient * P::derivative(x),
        )
    }

    /// `x·scale + shift`.
    pub(super) fn affine_floats(&self, x: &Floats, scale: f32, shift: f32) -> Result<Floats> {
        self.each(
            x,
            #[inline(always)]
            move |x| x * scale + shift,
            #[inline(always)]
            move |gradient, _| gradient * scale,
        )
    }

    /// An activation.
    pub(super) fn activate_floats(&self, x: &Floats, activation: Activation) -> Result<Floats> {
        match activation {
            Activation::Gelu => self.map::<ops::Gelu>(x),
            Activation::GeluTanh => self.map::<ops::GeluTanh>(x),
            Activation::Relu => self.map::<ops::Relu>(x),
            Activation::Tanh => self.map::<ops::Tanh>(x),
            Activation::Sigmoid => self.map::<ops::Sigmoid>(x),
            Activation::Softplus => self.map::<ops::Softplus>(x),
        }
    }

    /// Zeroes numbers at random.
    pub(super) fn drop_out(&self, x: &Floats, dropout: Dropout) -> Result<Floats> {
        let apply = move |out: &mut [f32]| {
            use rayon::prelude::*;
            let chunks = out.par_chunks_mut(DROPOUT_CHUNK).enumerate();
            chunks.for_each(|(chunk, numbers)| dropout.apply(chunk as u64, numbers));
        };
        self.pointwise(
            x,
            move |out, x| {
                update(
                    out,
                    x,
                    #[inline(always)]
                    |_, x| x,
                );
                apply(out);
            },
            move |out, _| apply(out),
        )
    }

    /// Layer norm, of each head where there are several.
    pub(super) fn norm(
        &self,
        x: &Floats,
        weight: Option<&Floats>,
        bias: Option<&Floats>,
        norm: LayerNorm,
    ) -> Result<Floats> {
        let x = self.contiguous(x)?;
        let (rows, width, heads) = (x.place.rows, x.place.width, x.heads.max(1));
        let size = (width / heads).max(1);
        let pool = self.context.pool.clone();
        let make = {
            let pool = pool.clone();
            move |x: View<'_>, weight: Option<View<'_>>, bias: Option<View<'_>>| {
                let mut data = pool.take(rows * width);
                norm.forward(x.all(), size, weight.map(View::all), bias.map(View::all), &mut data);
                data
            }
        };
        let data = {
            let (weights, biases) = (weight.map(Floats::lock).transpose()?, bias.map(Floats::lock).transpose()?);
            let view = |value: Option<&Floats>, numbers| value.zip(numbers).map(|(value, n)| View::new(n, value.place));
            make(View::new(&x.lock()?, x.place), view(weight, weights.as_deref()), view(bias, biases.as_deref()))
        };
        let saved = (x.save(), weight.map(Floats::save), bias.map(Floats::save));
        let again = {
            let (x, weight, bias) = saved.clone();
            move || -> Result<Buffer> {
                let (weights, biases) = (lock_option(&weight)?, lock_option(&bias)?);
                let view = |value: &Option<Saved>, numbers| -> Option<View<'_>> {
                    value.as_ref().zip(numbers).map(|(value, n)| View::new(n, value.place))
                };
                let (weight, bias) = (view(&weight, weights.as_deref()), view(&bias, biases.as_deref()));
                Ok(make(View::new(&x.lock()?, x.place), weight, bias))
            }
        };
        let from: Vec<&Floats> = [Some(&x), weight, bias].into_iter().flatten().collect();
        let result = self.record(data, rows, width, &from, || {
            let targets = (x.target(), weight.map(Floats::target), bias.map(Floats::target));
            Self::norm_backward(norm, (saved.0, saved.1), targets, size, pool)
        });
        Ok(result.with_heads(x.heads).again(again))
    }

    fn norm_backward(
        norm: LayerNorm,
        (x, weight): (Saved, Option<Saved>),
        (x_target, weight_target, bias_target): (Target, Option<Target>, Option<Target>),
        size: usize,
        pool: Arc<Pool>,
    ) -> Backward {
        Box::new(move |gradient, grads| {
            let numbers = x.lock()?;
            let numbers = View::new(&numbers, x.place).all();
            let weights = lock_option(&weight)?;
            let weights = weight.as_ref().zip(weights.as_deref()).map(|(weight, n)| View::new(n, weight.place).all());
            let mut out = pool.take(numbers.len());
            norm.input_gradient(numbers, weights.unwrap_or_default(), &gradient, size, &mut out);
            grads.give(&x_target, out);
            if weight_target.is_some() || bias_target.is_some() {
                let sums = norm.affine_gradient(numbers, &gradient, size);
                let (weight_sums, bias_sums) = sums.split_at(size);
                for (target, sums) in [(weight_target, weight_sums), (bias_target, bias_sums)] {
                    let Some(target) = target else { continue };
                    grads.edit(&target, |all| {
                        let all = all[target.place.start..].iter_mut();
                        all.zip(sums).for_each(|(all, sum)| *all += sum);
                    });
                }
            }
            Ok(())
        })
    }

    /// Rotary positions, by each token's place in its row.
    pub(super) fn rotate(&self, x: &Floats, theta: f64) -> Result<Floats> {
        let batch = self.context.batch.clone();
        let size = x.place.width / x.heads.max(1);
        let half = size / 2;
        let longest = batch.columns.iter().max().map_or(0, |column| *column as usize + 1);
        let angle = |at: usize| {
            let (token, component) = (at / half.max(1), at % half.max(1));
            (token as f64 * theta.powf(-2.0 * component as f64 / size as f64)) as f32
        };
        let angles: Vec<f32> = (0..longest * half).map(angle).collect();
        let cos: Arc<[f32]> = angles.iter().map(|angle| angle.cos()).collect();
        let sin: Arc<[f32]> = angles.iter().map(|angle| angle.sin()).collect();
        let rotation = Arc::new(Rotation { batch, cos, sin, half });
        let (rows, width) = (x.place.rows, x.place.width);
        let (saved, pool) = (x.save(), self.context.pool.clone());
        let make = {
            let (rotation, pool) = (rotation.clone(), pool.clone());
            move |x: View<'_>| {
                let mut out = pool.take(rows * width);
                rotation.apply(&mut out, x, 1.0);
                out
            }
        };
        let data = make(View::new(&x.lock()?, x.place));
        let again = move || Ok(make(View::new(&saved.lock()?, saved.place)));
        let result = self.record(data, rows, width, &[x], || {
            let target = x.target();
            Box::new(move |gradient: Arc<Buffer>, grads| {
                // the transposed rotation is that by the opposite angle
                let mut out = pool.take(rows * width);
                rotation.apply(&mut out, View::new(&gradient, Place::whole(rows, width)), -1.0);
                grads.give(&target, out);
                Ok(())
            })
        });
        Ok(result.with_heads(x.heads).again(again))
    }

    /// Rows moved one token on inside each text; the first token gets `first`.
    pub(super) fn shift(&self, x: &Floats, first: &Floats) -> Result<Floats> {
        let batch = self.context.batch.clone();
        let (rows, width) = (x.place.rows, x.place.width);
        let mut data = self.take(rows * width);
        {
            let (numbers, first_numbers) = (x.lock()?, first.lock()?);
            let (x, first) = (View::new(&numbers, x.place), View::new(&first_numbers, first.place));
            for text in batch.starts.windows(2) {
                for token in text[0]..text[1] {
                    let from = if token == text[0] { first.row(0) } else { x.row(token - 1) };
                    data[token * width..][..width].copy_from_slice(from);
                }
            }
        }
        let pool = self.context.pool.clone();
        Ok(self.record(data, rows, width, &[x], || {
            let target = x.target();
            Box::new(move |gradient: Arc<Buffer>, grads| {
                let mut out = pool.zeros(rows * width);
                for text in batch.starts.windows(2) {
                    let (start, end) = (text[0] * width, text[1] * width);
                    if start + width < end {
                        out[start..end - width].copy_from_slice(&gradient[start + width..end]);
                    }
                }
                grads.give(&target, out);
                Ok(())
            })
        }))
    }

    /// Sums of the rows of each text whose tokens count.
    pub(super) fn sum_tokens(&self, x: &Floats, mask: &Arc<[bool]>) -> Result<Floats> {
        let (batch, mask) = (self.context.batch.clone(), mask.clone());
        let (texts, width, rows) = (batch.texts(), x.place.width, x.place.rows);
        let mut data = self.context.pool.zeros(texts * width);
        {
            let numbers = x.lock()?;
            let x = View::new(&numbers, x.place);
            fill(
                &mut data,
                width,
                #[inline(always)]
                |start, out| {
                    let text = start / width.max(1);
                    for token in (batch.starts[text]..batch.starts[text + 1]).filter(|token| mask[*token]) {
                        for (out, x) in out.iter_mut().zip(x.row(token)) {
                            *out += x;
                        }
                    }
                },
            );
        }
        let pool = self.context.pool.clone();
        Ok(self.record(data, texts, width, &[x], || {
            let target = x.target();
            Box::new(move |gradient: Arc<Buffer>, grads| {
                let mut out = pool.zeros(rows * width);
                for (text, gradient) in batch.starts.windows(2).zip(gradient.chunks_exact(width.max(1))) {
                    for token in (text[0]..text[1]).filter(|token| mask[*token]) {
                        out[token * width..][..width].copy_from_slice(gradient);
                    }
                }
                grads.give(&target, out);
                Ok(())
            })
        }))
    }
}

/// `out = f(out, x)`, element by element; `out` is contiguous.
fn update(out: &mut [f32], x: View<'_>, f: impl Fn(f32, f32) -> f32 + Sync) {
    let width = x.place.width.max(1);
    fill(
        out,
        CHUNK * width,
        #[inline(always)]
        |start, out| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let x = x.row(start / width + row);
                for (out, x) in out.iter_mut().zip(x) {
                    *out = f(*out, *x);
                }
            }
        },
    );
}

/// Angles of rotary positions.
struct Rotation {
    batch: Arc<super::Packed>,
    /// by place in a row and component
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    /// components that are rotated with those this far away
    half: usize,
}

impl Rotation {
    /// Rotates every head of `x` by the angles times `sign`.
    fn apply(&self, out: &mut [f32], x: View<'_>, sign: f32) {
        let (width, half) = (x.place.width.max(1), self.half.max(1));
        fill(
            out,
            CHUNK * width,
            #[inline(always)]
            |start, out| {
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    let token = start / width + row;
                    let angles = self.batch.columns[token] as usize * half;
                    let (cos, sin) = (&self.cos[angles..][..half], &self.sin[angles..][..half]);
                    for (out, x) in out.chunks_exact_mut(2 * half).zip(x.row(token).chunks_exact(2 * half)) {
                        let (first, second) = x.split_at(half);
                        let (first_out, second_out) = out.split_at_mut(half);
                        for at in 0..half {
                            first_out[at] = first[at] * cos[at] - sign * second[at] * sin[at];
                            second_out[at] = second[at] * cos[at] + sign * first[at] * sin[at];
                        }
                    }
                }
            },
        );
    }
}
