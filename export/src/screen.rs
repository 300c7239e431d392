//! The screened SPLADE head: whole numbers find the terms that can have a weight, floats compute those alone.
//!
//! Of 30 000 terms a few hundred end up with a weight in a text, and the product that finds them is most of a small
//! model's work. The product of rounded factors, in 8 bits, costs a quarter, and how far it can be from the true one is
//! known. With `f̂` and `ŵ` for the rounded features and row of the matrix (Cauchy–Schwarz, twice):
//!
//! `|f·w − f̂·ŵ| ≤ ‖f − f̂‖·‖w‖ + ‖f̂‖·‖w − ŵ‖`
//!
//! Terms whose largest rounded logit is below zero by more than that have the weight 0 in every text of the batch, exactly.
//! The others are multiplied as in the plain head. So vectors are those of the plain head: the bound is sound, and
//! sums of f32 are allowed for. The fewer terms a model gives to a batch the more is saved; where it gives most of them
//! weights, the screen costs more than it saves.

use candle_core::Tensor;
use candle_onnx::onnx::tensor_proto::DataType;
use splade_trainer::model::Algebra as _;

use crate::graph::Value;
use crate::recorder::{HEAD_COLUMNS, Recorder, failed};
use crate::{Result, proto};

/// Weights are rounded to −63 … 63: products of two bytes are then added in pairs without overflow on every processor,
/// those too that have no instruction for whole dot products.
const LARGEST: f32 = 63.0;

/// The matrix rounded row by row, and what the bound needs of it.
struct Rounded {
    /// `[V, D]`
    values: Vec<i8>,
    /// one per row: `w ≈ scale·ŵ`
    scales: Vec<f32>,
    /// `‖w‖` per row
    norms: Vec<f32>,
    /// `‖w − ŵ‖` per row, and what sums of D floats may be off
    errors: Vec<f32>,
}

impl Rounded {
    fn new(matrix: &Tensor) -> Result<Self> {
        let size = matrix.dims().last().copied().unwrap_or(1).max(1);
        let matrix = matrix.flatten_all().and_then(|matrix| matrix.to_vec1::<f32>()).map_err(failed)?;
        let mut rounded =
            Self { values: Vec::with_capacity(matrix.len()), scales: vec![], norms: vec![], errors: vec![] };
        let slack = 1.001;
        for row in matrix.chunks_exact(size) {
            let largest = row.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
            let scale = if largest > 0.0 { largest / LARGEST } else { 1.0 };
            let values = row.iter().map(|w| (w / scale).round().clamp(-LARGEST, LARGEST) as i8);
            let start = rounded.values.len();
            rounded.values.extend(values);
            let apart =
                row.iter().zip(&rounded.values[start..]).map(|(w, v)| f64::from(*w) - f64::from(scale) * f64::from(*v));
            let (norm, error) = (norm(row.iter().map(|w| f64::from(*w))), norm(apart));
            rounded.scales.push(scale);
            rounded.norms.push((norm * slack) as f32);
            rounded.errors.push((error * slack + norm * size as f64 * f64::from(f32::EPSILON)) as f32);
        }
        Ok(rounded)
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

impl Recorder<'_> {
    /// The largest logits `[B, V]` where they may be above 0, and 0 elsewhere; `features` `[B, T, D]` hold nothing at
    /// padding that is not in the row anyway.
    pub(crate) fn screened_logits(&self, features: &Value, weight: &Value, bias: &Value) -> Result<Value> {
        let matrix = self.stored(weight)?;
        let (terms, size) = matrix.dims2().map_err(failed)?;
        let rounded = Rounded::new(&matrix)?;
        let candidates = self.candidates(features, bias, &rounded, (terms, size))?;

        let chosen = self.attributed("", "Gather", &[weight, &candidates], vec![proto::int("axis", 0)]);
        let logits = self.node("MatMul", &[features, &self.transpose(&chosen, &[1, 0])]);
        let largest = self.reduce("", "ReduceMax", &logits, 1, false);
        let bias = self.attributed("", "Gather", &[bias, &candidates], vec![proto::int("axis", 0)]);
        let largest = self.node("Add", &[&largest, &bias]);
        let shape = self.concat(&[&self.row_count()?, &self.integers(&[terms as i64])], 0);
        let nothing = self.node("Expand", &[&self.number(0.0), &shape]);
        let places = self.node("Expand", &[&candidates, &self.node("Shape", &[&largest])]);
        let scattered =
            self.attributed("", "ScatterElements", &[&nothing, &places, &largest], vec![proto::int("axis", 1)]);
        Ok(scattered.with_width(Some(terms)))
    }

    /// The terms that may have a weight in some text of the batch, ascending.
    fn candidates(
        &self,
        features: &Value,
        bias: &Value,
        rounded: &Rounded,
        (terms, size): (usize, usize),
    ) -> Result<Value> {
        let [values, scale, zero] = self.several("DynamicQuantizeLinear", &[features]);
        let largest = (0..terms).step_by(HEAD_COLUMNS).map(|start| {
            let end = (start + HEAD_COLUMNS).min(terms);
            // cut from a matrix of its own, since only whole constants are packed ahead of time
            let part: Vec<i8> = (0..size)
                .flat_map(|d| (start..end).map(move |v| (v, d)))
                .map(|(v, d)| rounded.values[v * size + d])
                .collect();
            let part = self.bytes(&part, &[size, end - start]);
            let products = self.node("MatMulInteger", &[&values, &part, &zero]);
            self.reduce_over("ReduceMax", &products, &[0, 1])
        });
        let largest: Vec<Value> = largest.collect();
        let largest = self.cast(&self.concat(&largest.iter().collect::<Vec<_>>(), 0), DataType::Float);
        let vector = |values: &[f32]| self.constant(values.to_vec(), &[terms]);
        let logits = self.node("Mul", &[&largest, &self.node("Mul", &[&vector(&rounded.scales)?, &scale])]);

        let restored = self.node("DequantizeLinear", &[&values, &scale, &zero]);
        let longest = |x: &Value| {
            let per_token = self.reduce("", "ReduceL2", x, 2, false);
            self.reduce_over("ReduceMax", &per_token, &[0, 1])
        };
        let of_features =
            self.node("Mul", &[&vector(&rounded.norms)?, &longest(&self.node("Sub", &[features, &restored]))]);
        let of_weights = self.node("Mul", &[&vector(&rounded.errors)?, &longest(&restored)]);
        let bound = self.node("Add", &[&of_features, &of_weights]);
        let highest = self.node("Add", &[&self.node("Add", &[&logits, &bound]), bias]);
        let may_be = self.node("Greater", &[&highest, &self.number(-1e-5)]);
        Ok(self.node("Squeeze", &[&self.node("NonZero", &[&may_be]), &self.integers(&[0])]))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rounding_keeps_to_its_bound() {
        let values: Vec<f32> = (0..60).map(|at| ((at * 37 % 23) as f32 - 11.0) / 7.0).chain([0.0; 12]).collect();
        let matrix = Tensor::from_vec(values.clone(), (6, 12), &Device::Cpu).unwrap();
        let rounded = Rounded::new(&matrix).unwrap();
        for (row, values) in values.chunks(12).enumerate() {
            let restored = rounded.values[row * 12..][..12].iter().map(|v| f32::from(*v) * rounded.scales[row]);
            let apart = norm(values.iter().zip(restored).map(|(w, v)| f64::from(w - v)));
            assert!(apart <= f64::from(rounded.errors[row]), "{row}: {apart}");
            assert!(rounded.values[row * 12..][..12].iter().all(|v| v.abs() <= 63));
        }
        assert_eq!(rounded.norms[5], 0.0, "a row of nothing has no length");
    }
}
