//! Values of a [`Tape`](super::Tape): matrices of numbers, token ids, masks.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, Storage, Tensor};

use super::buffer::Buffer;
use crate::model::product::Mat;
use crate::{Error, Result};

/// A value of the algebra.
#[derive(Debug, Clone)]
pub enum Value {
    /// numbers, with a gradient or without
    Floats(Floats),
    /// an id per token
    Ids(Arc<[u32]>),
    /// per token, whether it counts
    Mask(Arc<[bool]>),
    /// the keys that a query may attend to: tokens of its own text at most so many positions away
    Allowed {
        /// none: all tokens of the text
        window: Option<usize>,
    },
}

impl Value {
    pub(super) fn floats(&self) -> Result<&Floats> {
        match self {
            Self::Floats(floats) => Ok(floats),
            _ => Err(Error::invalid("an operation was given ids or a mask in place of numbers", "")),
        }
    }

    pub(super) fn ids(&self) -> Result<&Arc<[u32]>> {
        match self {
            Self::Ids(ids) => Ok(ids),
            _ => Err(Error::invalid("an operation was given no ids", "")),
        }
    }

    pub(super) fn mask(&self) -> Result<&Arc<[bool]>> {
        match self {
            Self::Mask(mask) => Ok(mask),
            _ => Err(Error::invalid("an operation was given no mask", "")),
        }
    }
}

/// Owner of a value's gradient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// nowhere: a constant
    None,
    /// with that of an intermediate result
    Slot(usize),
    /// with that of a parameter
    Parameter(Arc<str>),
}

/// Place of a matrix inside the numbers of its source: element `(i, j)` is at `start + i·stride + j`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// numbers of the source
    pub(super) length: usize,
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl Place {
    /// All numbers of a source.
    pub(super) fn whole(rows: usize, width: usize) -> Self {
        Self { length: rows * width, start: 0, rows, width, stride: width }
    }

    /// True if the numbers follow one another.
    pub(super) fn is_contiguous(&self) -> bool {
        self.stride == self.width || self.rows == 1
    }

    /// True if the source has no other numbers.
    pub(super) fn is_whole(&self) -> bool {
        self.is_contiguous() && self.count() == self.length
    }

    pub(super) fn count(&self) -> usize {
        self.rows * self.width
    }

    /// Range of row `i` in the numbers of the source.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> std::ops::Range<usize> {
        let start = self.start + i * self.stride;
        start..start + self.width
    }
}

/// A matrix of numbers: a row per token, per text, or of a parameter.
#[derive(Debug, Clone)]
pub struct Floats {
    pub(super) source: Source,
    data: Data,
    /// how to compute it again, which costs little, instead of keeping it
    again: Option<Arc<Again>>,
    pub(super) place: Place,
    /// heads side by side in a row
    pub(super) heads: usize,
}

#[derive(Debug, Clone)]
enum Data {
    Buffer(Arc<Buffer>),
    /// contiguous, f32, on the CPU
    Tensor(Tensor),
}

impl Floats {
    /// The whole of a buffer.
    pub(super) fn new(source: Source, data: Buffer, rows: usize, width: usize) -> Self {
        Self { source, data: Data::Buffer(Arc::new(data)), again: None, place: Place::whole(rows, width), heads: 1 }
    }

    /// A parameter.
    ///
    /// # Errors
    /// A tensor that is not contiguous, of f32, on the CPU.
    pub(super) fn parameter(name: &str, tensor: &Tensor) -> Result<Self> {
        let (rows, width) = match tensor.dims() {
            [] => (1, 1),
            [width] => (1, *width),
            [rows, width] => (*rows, *width),
            dims => return Err(Error::invalid(format!("parameter {name} has {} axes", dims.len()), "")),
        };
        let data = Data::Tensor(tensor.detach());
        data.lock()?;
        let source = Source::Parameter(name.into());
        Ok(Self { source, data, again: None, place: Place::whole(rows, width), heads: 1 })
    }

    /// Returns these numbers with another source.
    pub(super) fn with_source(&self, source: Source, place: Place) -> Self {
        Self { source, place, ..self.clone() }
    }

    /// Returns these numbers as so many heads side by side in each row.
    pub(super) fn with_heads(self, heads: usize) -> Self {
        Self { heads, ..self }
    }

    /// Part of the numbers, with the same source.
    pub(super) fn part(&self, place: Place) -> Self {
        Self { place, ..self.clone() }
    }

    /// Returns this value, to be computed again where it is saved.
    pub(super) fn again(self, make: impl Fn() -> Result<Buffer> + Send + Sync + 'static) -> Self {
        Self { again: Some(Arc::new(Again { make: Box::new(make), made: Mutex::default() })), ..self }
    }

    pub(super) fn has_gradient(&self) -> bool {
        self.source != Source::None
    }

    /// Target of the value's gradient.
    pub(super) fn target(&self) -> Target {
        Target { source: self.source.clone(), place: self.place }
    }

    /// The part of the value that a backward pass needs.
    pub(super) fn save(&self) -> Saved {
        let data = match &self.again {
            Some(again) => Kept::Again(again.clone()),
            None => Kept::Data(self.data.clone()),
        };
        Saved { data, place: self.place }
    }

    /// The numbers of the source, of which [`place`](Self::place) tells those of this value.
    pub(super) fn lock(&self) -> Result<Numbers<'_>> {
        self.data.lock()
    }
}

impl Data {
    fn lock(&self) -> Result<Numbers<'_>> {
        match self {
            Self::Buffer(buffer) => Ok(Numbers::Buffer(buffer)),
            Self::Tensor(tensor) => {
                let (storage, layout) = tensor.storage_and_layout();
                match (&*storage, layout.contiguous_offsets()) {
                    (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) => {
                        Ok(Numbers::Tensor(Box::new(storage), start, end))
                    }
                    _ => Err(Error::invalid("a parameter is not contiguous, of f32 and on the CPU", "")),
                }
            }
        }
    }
}

/// Numbers of a source, readable.
pub(super) enum Numbers<'a> {
    Buffer(&'a Buffer),
    Tensor(Box<dyn Deref<Target = Storage> + 'a>, usize, usize),
    Made(Arc<Buffer>),
}

impl Deref for Numbers<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Buffer(buffer) => buffer,
            Self::Made(buffer) => buffer,
            Self::Tensor(storage, start, end) => match &***storage {
                Storage::Cpu(CpuStorage::F32(data)) => &data[*start..*end],
                // `Data::lock` makes no other
                _ => &[],
            },
        }
    }
}

/// A value that is computed again when a backward pass reads it.
struct Again {
    make: Box<dyn Fn() -> Result<Buffer> + Send + Sync>,
    made: Mutex<Option<Arc<Buffer>>>,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Again")
    }
}

/// A value kept for a backward pass, or the way to make it again.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    data: Kept,
    pub(super) place: Place,
}

#[derive(Debug, Clone)]
enum Kept {
    Data(Data),
    Again(Arc<Again>),
}

impl Saved {
    /// The numbers of the source. What is made again stays until its last reader is gone.
    pub(super) fn lock(&self) -> Result<Numbers<'_>> {
        match &self.data {
            Kept::Data(data) => data.lock(),
            Kept::Again(again) => {
                let mut made = again.made.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(buffer) = &*made {
                    return Ok(Numbers::Made(buffer.clone()));
                }
                let buffer = Arc::new((again.make)()?);
                *made = Some(buffer.clone());
                Ok(Numbers::Made(buffer))
            }
        }
    }
}

/// Destination of a gradient.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) source: Source,
    pub(super) place: Place,
}

/// The matrix at a place of some numbers.
pub(super) fn mat(numbers: &[f32], place: Place) -> Mat<'_> {
    Mat::new(&numbers[place.start.min(numbers.len())..], place.rows, place.width, place.stride)
}
