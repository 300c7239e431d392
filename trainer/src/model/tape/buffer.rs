//! [`Buffer`]: numbers whose memory is used again, and the [`Pool`] it goes back to.
//!
//! A training step makes and drops the same large buffers each time. Given back to the system, each of them costs page faults
//! and cleared pages again, which took a quarter of a step. The pool holds no more than a step once needed: free and used
//! buffers together stay below the largest sum of used ones.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

/// Numbers copied or added by one thread at a time.
pub(super) const PIECE: usize = 1 << 15;
/// Buffers shorter than this are not kept.
const SMALL: usize = 1 << 10;

/// Free buffers.
#[derive(Debug, Default)]
pub struct Pool(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// by length
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    n_free: usize,
    n_used: usize,
    /// the largest `n_used` so far
    most_used: usize,
}

impl Pool {
    /// A buffer of `n` numbers with any content.
    pub(super) fn take(self: &Arc<Self>, n: usize) -> Buffer {
        let data = if n < SMALL {
            vec![0.0; n]
        } else {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(rounded(n));
            kept.unwrap_or_else(|| vec![0.0; rounded(n)])
        };
        Buffer { data, n, pool: self.clone() }
    }

    /// A buffer of `n` zeros.
    pub(super) fn zeros(self: &Arc<Self>, n: usize) -> Buffer {
        let mut buffer = self.take(n);
        buffer.fill(0.0);
        buffer
    }
}

/// Length of the memory of a buffer of `n` numbers: with few different lengths, more buffers fit again. At most an eighth
/// more than `n`.
fn rounded(n: usize) -> usize {
    let unit = 1 << n.ilog2().saturating_sub(3);
    n.next_multiple_of(unit)
}

impl State {
    /// A free buffer of this length, if there is one; else makes room for a new one.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        self.n_used += length;
        self.most_used = self.most_used.max(self.n_used);
        if let Some(data) = self.free.get_mut(&length).and_then(Vec::pop) {
            self.n_free -= length;
            return Some(data);
        }
        while self.n_used + self.n_free > self.most_used {
            let (length, mut kept) = self.free.pop_last()?;
            if kept.pop().is_some() {
                self.n_free -= length;
            }
            if !kept.is_empty() {
                self.free.insert(length, kept);
            }
        }
        None
    }

    fn give(&mut self, data: Vec<f32>) {
        let length = data.len();
        self.n_used -= length;
        self.n_free += length;
        self.free.entry(length).or_default().push(data);
    }
}

/// Numbers whose memory goes back to a pool.
#[derive(Debug)]
pub(super) struct Buffer {
    /// may be longer than the buffer
    data: Vec<f32>,
    n: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// A buffer that nothing else reads, with the numbers of `shared`: itself if nothing else reads it, or a copy.
    pub(super) fn own(shared: Arc<Self>) -> Self {
        Arc::try_unwrap(shared).unwrap_or_else(|shared| {
            let mut copy = shared.pool.take(shared.n);
            copy.par_chunks_mut(PIECE).zip(shared.par_chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
            copy
        })
    }

    /// The numbers as a vector, whose memory leaves the pool.
    pub(super) fn into_vec(mut self) -> Vec<f32> {
        let mut data = std::mem::take(&mut self.data);
        if self.n >= SMALL {
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).n_used -= data.len();
        }
        data.truncate(self.n);
        self.n = 0;
        data
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.n]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.n]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.n >= SMALL {
            let data = std::mem::take(&mut self.data);
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).give(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded_by_what_was_needed_at_once() {
        let pool = Arc::new(Pool::default());
        let place = |buffer: &Buffer| buffer.as_ptr();
        let (first, second) = (pool.take(5000), pool.take(5001));
        let places = [place(&first), place(&second)];
        drop((first, second));
        let again = pool.zeros(4990);
        assert_eq!(pool.take(5000).into_vec().len(), 5000);
        assert!(places.contains(&place(&again)) && again.len() == 4990 && again.iter().all(|x| *x == 0.0));
        drop(again);
        // other lengths take the place of the free ones: never more than 2 x 5120 numbers
        for n in [6000, 7000, 8000, 9000, 10_000, 3000, 3000, 2500] {
            let buffer = pool.take(n);
            assert_eq!(buffer.len(), n);
            let state = pool.0.lock().unwrap();
            assert!(state.n_used + state.n_free <= 2 * 5120, "{n}: {state:?}");
        }
        assert_eq!(pool.0.lock().unwrap().n_used, 0);
    }
}
