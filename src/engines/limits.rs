//! [`Limits`] of an engine, and [`Fit`]: vectors dropped, scaled, truncated and renumbered to them, with counts.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::AddAssign;

use anyhow::Result;
use splade_core::{Pruning, SparseVector};

use super::CollectionManifest;
use crate::failure::bad_input;

/// Vectors that an engine can hold and search for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    /// true if weights below 0 can be held and searched for
    pub(crate) negative_weights: bool,
    /// smallest magnitude of a document's weight
    pub(crate) document_weight_min: f32,
    /// largest magnitude of a document's weight
    pub(crate) document_weight_max: f32,
    /// largest magnitude of a query's weight
    pub(crate) query_weight_max: f32,
    /// most entries of a document
    pub(crate) document_terms_max: usize,
    /// most entries of a query
    pub(crate) query_terms_max: usize,
    /// largest dimension
    pub(crate) dim_max: u32,
    /// true if a document without a vector can be held
    pub(crate) empty_vectors: bool,
    /// true if the largest weight of all documents is needed to create the collection
    pub(crate) needs_ceiling: bool,
}

impl Limits {
    /// Limits of an engine that holds any vector.
    pub(crate) const NONE: Self = Self {
        negative_weights: true,
        document_weight_min: 0.0,
        document_weight_max: f32::INFINITY,
        query_weight_max: f32::INFINITY,
        document_terms_max: usize::MAX,
        query_terms_max: usize::MAX,
        dim_max: u32::MAX,
        empty_vectors: true,
        needs_ceiling: false,
    };

    /// True if all vectors must be read before the first one can be sent.
    pub(crate) fn needs_survey(&self, vocabulary_size: u32) -> bool {
        self.needs_ceiling || self.document_weight_max.is_finite() || self.needs_renumbering(vocabulary_size)
    }

    fn needs_renumbering(&self, vocabulary_size: u32) -> bool {
        vocabulary_size > 0 && vocabulary_size - 1 > self.dim_max
    }
}

/// Facts about all vectors of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Survey {
    dims: BTreeSet<u32>,
    weight_max: f32,
}

impl Survey {
    /// Adds a vector.
    pub(crate) fn add(&mut self, vector: &SparseVector) {
        self.dims.extend(vector.dims());
        self.weight_max = vector.weights().iter().fold(self.weight_max, |max, weight| max.max(weight.abs()));
    }

    /// Writes renumbering, scale and ceiling into a manifest. Numbers that it has already stay.
    ///
    /// # Errors
    /// More dimensions in use than the engine has.
    pub(crate) fn complete(&self, manifest: &mut CollectionManifest, limits: &Limits, is_new: bool) -> Result<()> {
        if limits.needs_renumbering(manifest.vocabulary_size) {
            let numbers = manifest.renumbering.get_or_insert_default();
            let known: BTreeSet<u32> = numbers.iter().copied().collect();
            numbers.extend(self.dims.difference(&known));
            if numbers.len() as u64 > u64::from(limits.dim_max) + 1 {
                return Err(bad_input(
                    format!(
                        "{} dimensions are in use, and the engine has {}",
                        numbers.len(),
                        u64::from(limits.dim_max) + 1
                    ),
                    "choose a field type without this limit",
                ));
            }
        }
        if is_new {
            if self.weight_max > limits.document_weight_max {
                manifest.document_scale = limits.document_weight_max / self.weight_max;
            }
            manifest.document_ceiling = limits.needs_ceiling.then_some(self.weight_max * manifest.document_scale);
        }
        Ok(())
    }
}

/// Numbers of what was changed so that an engine can hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// weights below 0 that were dropped
    pub(crate) negative_weights: u64,
    /// weights too small to be held that were dropped
    pub(crate) small_weights: u64,
    /// weights that were lowered to the largest one
    pub(crate) large_weights: u64,
    /// vectors with too many entries, of which the heaviest were kept
    pub(crate) long_vectors: u64,
    /// vectors without an entry
    pub(crate) empty_vectors: u64,
    /// values of typed fields that were left out because they are of another type
    pub(crate) field_values: u64,
}

impl AddAssign for Changes {
    fn add_assign(&mut self, other: Self) {
        self.negative_weights += other.negative_weights;
        self.small_weights += other.small_weights;
        self.large_weights += other.large_weights;
        self.long_vectors += other.long_vectors;
        self.empty_vectors += other.empty_vectors;
        self.field_values += other.field_values;
    }
}

impl Changes {
    /// The counts above 0, as texts.
    pub(crate) fn lines(&self, limits: &Limits) -> Vec<String> {
        let empty = if limits.empty_vectors {
            "documents without a vector, which no search by vector finds"
        } else {
            "documents without a vector, which were left out"
        };
        let all = [
            (self.negative_weights, "weights below 0 dropped".to_owned()),
            (self.small_weights, format!("weights below {:e} dropped", limits.document_weight_min)),
            (self.large_weights, format!("weights lowered to {}", limits.document_weight_max)),
            (self.long_vectors, format!("vectors truncated to their {} heaviest entries", limits.document_terms_max)),
            (self.empty_vectors, empty.to_owned()),
            (self.field_values, "values of typed fields left out, which are of another type".to_owned()),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// A query that an engine can search for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FittedQuery {
    /// the vector to send
    pub(crate) vector: SparseVector,
    /// factor from the engine's scores to those of the query as it was
    pub(crate) score_factor: f32,
    /// entries below 0 that were dropped
    pub(crate) negative_weights: usize,
    /// lightest entries that were dropped because there are too many
    pub(crate) dropped_terms: usize,
}

/// Fits vectors to the limits of an engine and the numbers of a collection.
#[derive(Debug, Clone)]
pub(crate) struct Fit {
    limits: Limits,
    document_scale: f32,
    /// number in the collection by dimension; none if both are the same
    numbers: Option<HashMap<u32, u32>>,
}

impl Fit {
    /// The fit of a collection.
    pub(crate) fn new(limits: Limits, manifest: &CollectionManifest) -> Self {
        let numbers = manifest.renumbering.as_ref();
        let numbers = numbers.map(|dims| dims.iter().copied().zip(0..).collect());
        Self { limits, document_scale: manifest.document_scale, numbers }
    }

    /// Fits a document's vector, and counts what was changed.
    pub(crate) fn document(&self, vector: &SparseVector, changes: &mut Changes) -> SparseVector {
        let limits = &self.limits;
        let mut kept = Vec::with_capacity(vector.active_dims());
        for (dim, weight) in vector.iter() {
            let weight = weight * self.document_scale;
            if weight < 0.0 && !limits.negative_weights {
                changes.negative_weights += 1;
            } else if weight.abs() < limits.document_weight_min {
                changes.small_weights += 1;
            } else if weight.abs() > limits.document_weight_max {
                changes.large_weights += 1;
                kept.push((dim, limits.document_weight_max.copysign(weight)));
            } else {
                kept.push((dim, weight));
            }
        }
        let mut fitted = from_sorted(kept);
        if fitted.active_dims() > limits.document_terms_max {
            changes.long_vectors += 1;
            fitted = heaviest(fitted, limits.document_terms_max);
        }
        changes.empty_vectors += u64::from(fitted.is_empty());
        self.renumbered(fitted)
    }

    /// Fits a query's vector. Weights above the largest are scaled, all by one factor, which keeps the ranking.
    pub(crate) fn query(&self, vector: &SparseVector) -> FittedQuery {
        let limits = &self.limits;
        let kept: Vec<(u32, f32)> =
            vector.iter().filter(|(_, weight)| *weight > 0.0 || limits.negative_weights).collect();
        let negative_weights = vector.active_dims() - kept.len();
        let mut fitted = from_sorted(kept);
        let dropped_terms = fitted.active_dims().saturating_sub(limits.query_terms_max);
        if dropped_terms > 0 {
            fitted = heaviest(fitted, limits.query_terms_max);
        }
        let largest = fitted.weights().iter().fold(0.0_f32, |max, weight| max.max(weight.abs()));
        let scale = if largest > limits.query_weight_max { limits.query_weight_max / largest } else { 1.0 };
        if scale != 1.0 {
            // rounding must not lift the largest weight above the limit
            let most = limits.query_weight_max;
            fitted =
                from_sorted(fitted.iter().map(|(dim, weight)| (dim, (weight * scale).clamp(-most, most))).collect());
        }
        let score_factor = 1.0 / (scale * self.document_scale);
        FittedQuery { vector: self.renumbered(fitted), score_factor, negative_weights, dropped_terms }
    }

    /// The vector in the numbers of the collection. Dimensions without a number, which no document has, are left out.
    fn renumbered(&self, vector: SparseVector) -> SparseVector {
        let Some(numbers) = &self.numbers else { return vector };
        let mut pairs: Vec<(u32, f32)> =
            vector.iter().filter_map(|(dim, weight)| Some((*numbers.get(&dim)?, weight))).collect();
        pairs.sort_unstable_by_key(|(dim, _)| *dim);
        from_sorted(pairs)
    }
}

/// A vector of pairs with ascending dimensions; a weight that a scale made 0 is left out.
fn from_sorted(pairs: Vec<(u32, f32)>) -> SparseVector {
    SparseVector::from_pairs(pairs)
        .expect("dimensions are unique and weights finite, as in the vector they are made of")
}

/// The `most` entries of largest magnitude.
fn heaviest(vector: SparseVector, most: usize) -> SparseVector {
    Pruning::default().with_max_active_dims(most).apply(vector)
}

impl fmt::Display for FittedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.negative_weights, "entries below 0 dropped"),
            (self.dropped_terms, "lightest entries dropped, because the engine takes no more"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}
