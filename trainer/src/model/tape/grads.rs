//! [`Grads`]: gradients of a backward pass, added up where values have several readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::buffer::{Buffer, PIECE, Pool};
use super::value::{Place, Source, Target};
use crate::model::product::{Mat, Threads, Write, product, small_product};

/// Gradients by source. Two sources may share a buffer until one of them changes.
pub(super) struct Grads {
    slots: Vec<Option<Arc<Buffer>>>,
    parameters: BTreeMap<Arc<str>, Arc<Buffer>>,
    pub(super) pool: Arc<Pool>,
}

impl Grads {
    /// No gradients yet, for `n_slots` intermediate results.
    pub(super) fn new(n_slots: usize, pool: Arc<Pool>) -> Self {
        Self { slots: vec![None; n_slots], parameters: BTreeMap::new(), pool }
    }

    /// Those of a part of the pass that is recorded apart: the same parameters, slots of its own.
    pub(super) fn nested<R>(&mut self, n_slots: usize, run: impl FnOnce(&mut Self) -> R) -> R {
        let slots = std::mem::replace(&mut self.slots, vec![None; n_slots]);
        let result = run(self);
        self.slots = slots;
        result
    }

    /// Removes the gradient of an intermediate result; none if nothing depends on it.
    pub(super) fn take(&mut self, slot: usize) -> Option<Arc<Buffer>> {
        self.slots.get_mut(slot)?.take()
    }

    /// The gradients of the parameters by name.
    pub(super) fn into_parameters(self) -> BTreeMap<Arc<str>, Arc<Buffer>> {
        self.parameters
    }

    /// Adds `gradient`, the numbers of the target's rows one after the other.
    pub(super) fn give(&mut self, target: &Target, gradient: impl Into<Arc<Buffer>>) {
        let gradient = gradient.into();
        let place = target.place;
        if target.source == Source::None {
            return;
        }
        let present = self.remove(&target.source);
        let sum = match present {
            None if place.is_whole() => gradient,
            present => {
                let mut sum = self.own(present, place.length);
                add_rows(&mut sum, place, &gradient);
                Arc::new(sum)
            }
        };
        self.put(&target.source, sum);
    }

    /// Adds to all numbers of the target's source.
    pub(super) fn give_all(&mut self, target: &Target, gradient: Arc<Buffer>) {
        let place = Place::whole(1, target.place.length);
        self.give(&Target { place, ..target.clone() }, gradient);
    }

    /// Adds `scale·a·b`, a product of the target's shape.
    pub(super) fn give_product(&mut self, target: &Target, a: Mat<'_>, b: Mat<'_>, scale: f32) {
        let place = target.place;
        if target.source == Source::None {
            return;
        }
        let present = self.remove(&target.source);
        let (mut sum, write) = match present {
            None if place.is_whole() => (self.pool.take(place.length), Write::Over),
            present => (self.own(present, place.length), Write::Add),
        };
        let (rows, inner) = a.shape();
        if inner > 2 * rows {
            small_product(&mut sum[place.start..], place.stride, a, b, scale, write);
        } else {
            product(&mut sum[place.start..], place.stride, a, b, scale, write, Threads::All);
        }
        self.put(&target.source, Arc::new(sum));
    }

    /// Changes the numbers of the target's source, which are zeros if there is no gradient yet.
    pub(super) fn edit(&mut self, target: &Target, edit: impl FnOnce(&mut [f32])) {
        if target.source == Source::None {
            return;
        }
        let present = self.remove(&target.source);
        let mut sum = self.own(present, target.place.length);
        edit(&mut sum);
        self.put(&target.source, Arc::new(sum));
    }

    /// A buffer that no other source has, with the numbers of `present`, or zeros.
    fn own(&self, present: Option<Arc<Buffer>>, length: usize) -> Buffer {
        present.map_or_else(|| self.pool.zeros(length), Buffer::own)
    }

    fn remove(&mut self, source: &Source) -> Option<Arc<Buffer>> {
        match source {
            Source::None => None,
            Source::Slot(slot) => self.slots[*slot].take(),
            Source::Parameter(name) => self.parameters.remove(name),
        }
    }

    fn put(&mut self, source: &Source, gradient: Arc<Buffer>) {
        match source {
            Source::None => {}
            Source::Slot(slot) => self.slots[*slot] = Some(gradient),
            Source::Parameter(name) => {
                self.parameters.insert(name.clone(), gradient);
            }
        }
    }
}

/// Adds contiguous rows to those at a place.
fn add_rows(sum: &mut [f32], place: Place, gradient: &[f32]) {
    let add = |(sum, gradient): (&mut [f32], &[f32])| {
        for (sum, gradient) in sum.iter_mut().zip(gradient) {
            *sum += gradient;
        }
    };
    if place.is_contiguous() {
        let sum = &mut sum[place.start..place.start + place.count()];
        sum.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE)).for_each(add);
        return;
    }
    // rows of the source, of which the target's columns change; its first row may start inside one
    let column = place.start % place.stride;
    let rows = sum.par_chunks_mut(place.stride).skip(place.start / place.stride);
    let rows = rows.zip(gradient.par_chunks(place.width.max(1)));
    rows.for_each(|(row, gradient)| add((&mut row[column..column + place.width], gradient)));
}
