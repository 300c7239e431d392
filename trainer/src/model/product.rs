//! Matrix products into memory that exists: the crate gemm behind a safe interface.
//!
//! Candle's own product allocates its result. A backward pass mostly *adds* a product to a gradient that is there already,
//! and attention multiplies blocks that lie inside larger matrices. gemm does both, but takes pointers: this file is the one
//! place of the crate with `unsafe`, and checks every bound before it.

use rayon::prelude::*;

/// A matrix inside a slice: element `(i, j)` is at `i·row + j·column`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a> Mat<'a> {
    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The matrix of `rows` rows of `columns` elements, `stride` elements apart.
    ///
    /// # Panics
    /// Fewer elements than that.
    #[inline]
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, stride, 1), "a matrix is longer than its slice");
        Self { data, rows, columns, row: stride, column: 1 }
    }

    /// At most `n` rows from the one at `start` on.
    fn rows_from(self, start: usize, n: usize) -> Self {
        Self { data: &self.data[(start * self.row).min(self.data.len())..], rows: n.min(self.rows - start), ..self }
    }

    /// The transposed matrix.
    #[inline]
    pub(super) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }
}

/// True if the last element of a matrix lies inside a slice of `length` elements.
fn fits(length: usize, rows: usize, columns: usize, row: usize, column: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row + (columns - 1) * column < length
}

/// Treatment of the elements that a product finds in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// replaces them
    Over,
    /// adds to them
    Add,
}

/// Threads of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// the calling one
    One,
    /// all of the pool
    All,
}

/// `out = scale·a·b`, or `out += scale·a·b`; rows of `out` are `stride` elements apart.
///
/// # Panics
/// Shapes that do not fit each other, a slice that is too short, rows that overlap.
#[inline]
pub(super) fn product(
    out: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
    write: Write,
    threads: Threads,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "the factors of a product do not fit");
    assert!(stride >= n && fits(out.len(), m, n, stride, 1), "a product does not fit into its place");
    if m == 0 || n == 0 {
        return;
    }
    let threads = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: the three matrices lie inside their slices (checked here and in `Mat::new`; a transposed matrix has the same
    // elements). `out` is borrowed exclusively and its rows do not overlap. Strides are far below isize::MAX, as they are
    // shorter than a slice or the matrix has one row.
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            threads,
        );
    }
}

/// [`product`] on all threads for a result much smaller than its factors, as the gradients of weights are: gemm itself divides
/// such a product badly. Each thread takes whole rows; the sizes do not depend on the number of threads, so neither do sums.
///
/// # Panics
/// As [`product`].
pub(super) fn small_product(out: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>, scale: f32, write: Write) {
    let rows = if a.rows >= 768 { 256 } else { 96 };
    let end = a.rows.saturating_sub(1) * stride + b.columns;
    out[..if a.rows == 0 { 0 } else { end }].par_chunks_mut((rows * stride).max(1)).enumerate().for_each(
        |(at, out)| {
            let a = a.rows_from(at * rows, rows);
            product(out, stride, a, b, scale, write, Threads::One);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_three_loops() {
        let values = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|at| ((at * 37 + seed * 11) % 23) as f32 - 11.0).collect()
        };
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (17, 4, 9), (40, 33, 65), (5, 0, 3)] {
            let (a, b) = (values(m * (k + 2), 1), values(n * (k + 1), 2));
            for (write, threads) in [(Write::Over, Threads::All), (Write::Add, Threads::One)] {
                // rows of the result are three elements longer than the product
                let mut out = values(m * (n + 3), 3);
                let mut expected = out.clone();
                for i in 0..m {
                    for j in 0..n {
                        let sum: f32 = (0..k).map(|l| a[i * (k + 2) + l] * b[j * (k + 1) + l]).sum();
                        let place = &mut expected[i * (n + 3) + j];
                        *place = 0.5 * sum + if write == Write::Add { *place } else { 0.0 };
                    }
                }
                let (a, b) = (Mat::new(&a, m, k, k + 2), Mat::new(&b, n, k, k + 1).t());
                product(&mut out, n + 3, a, b, 0.5, write, threads);
                assert_eq!(out, expected, "{m} {k} {n}");
            }
        }
    }

    #[test]
    fn a_small_product_is_the_same_one() {
        // more rows than a block, the last one shorter, and a result whose last row ends with its slice
        for (m, k, n) in [(200, 7, 5), (800, 3, 4), (1, 2, 3), (0, 2, 3)] {
            let values = |n: usize| -> Vec<f32> { (0..n).map(|at| (at * 37 % 23) as f32 - 11.0).collect() };
            let (a, b) = (values(m * k), values(k * n));
            let (a, b) = (Mat::new(&a, k, m, m).t(), Mat::new(&b, k, n, n));
            for write in [Write::Over, Write::Add] {
                let mut out = vec![1.0; (m * 6_usize).saturating_sub(6 - n)];
                let mut expected = out.clone();
                product(&mut expected, 6, a, b, 1.0, write, Threads::One);
                small_product(&mut out, 6, a, b, 1.0, write);
                assert_eq!(out, expected, "{m} {k} {n}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_product_outside_its_place_is_refused() {
        let values = [1.0; 6];
        product(
            &mut [0.0; 8],
            3,
            Mat::new(&values, 3, 2, 2),
            Mat::new(&values, 2, 3, 3),
            1.0,
            Write::Over,
            Threads::One,
        );
    }
}
