//! Sparse matrices in CSR form, one row a vector: `.npz` of `scipy.sparse.save_npz`, `.safetensors`, and `.csr`.

mod column;
mod csr;
mod npz;
mod safetensors_file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use splade_core::SparseVector;

use self::column::Column;
use crate::{Error, Result};

/// The three arrays of a CSR matrix, as open files.
struct Arrays {
    /// start of each row in the others, and their length at the end
    indptr: Column,
    indices: Column,
    data: Column,
}

/// True if the name of a file is that of a matrix.
pub(crate) fn is_matrix(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ["npz", "safetensors", "csr"].contains(&&extension[..])
}

/// Rows of the matrix in `path`, in its order. Memory does not grow with the matrix.
///
/// The arrays are `indptr`, `indices` and `data`, as SciPy names them, of whole numbers and of floats. A safetensors file has
/// tensors of these names. Explicit zeros are left out, and floats of 64 bits are rounded to 32.
///
/// # Errors
/// A file of another form; from the iterator, a row that is not a [`SparseVector`]. The first error ends it.
pub(crate) fn read_matrix(path: &Path) -> Result<impl Iterator<Item = Result<SparseVector>> + Send + use<>> {
    let has_extension = |wanted: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
    let arrays = if has_extension("npz") {
        npz::open(path)?
    } else if has_extension("csr") {
        csr::open(path)?
    } else {
        safetensors_file::open(path)?
    };
    Rows::new(path, arrays)
}

/// Iterator over the rows.
struct Rows {
    path: PathBuf,
    arrays: Arrays,
    /// number of the next row
    row: u64,
    n_rows: u64,
    /// start of the next row
    start: u64,
}

impl Rows {
    fn new(path: &Path, mut arrays: Arrays) -> Result<Self> {
        let wrong = |message: String| Error::file(path, message);
        let n_rows = arrays.indptr.left().checked_sub(1).ok_or_else(|| wrong("indptr is empty".into()))?;
        let (n_indices, n_values) = (arrays.indices.left(), arrays.data.left());
        if n_indices != n_values {
            return Err(wrong(format!("{n_indices} indices but {n_values} values")));
        }
        let start = arrays.indptr.next_whole()?;
        if start != 0 {
            return Err(wrong(format!("indptr begins with {start}, not 0")));
        }
        Ok(Self { path: path.to_owned(), arrays, row: 0, n_rows, start })
    }

    fn read(&mut self) -> Result<SparseVector> {
        let wrong = |message: String| Error::file(&self.path, format!("row {}: {message}", self.row));
        let end = self.arrays.indptr.next_whole()?;
        let len = end.checked_sub(self.start).filter(|len| *len <= self.arrays.indices.left());
        let Some(len) = len else {
            return Err(wrong(format!("indptr goes from {} to {end}", self.start)));
        };
        let (mut dims, mut weights, mut left) = (Vec::new(), Vec::new(), len);
        while left > 0 {
            let part = self.arrays.indices.next_wholes(left)?;
            for &dim in part {
                dims.push(u32::try_from(dim).map_err(|_| wrong(format!("index {dim} is too large")))?);
            }
            left -= part.len() as u64;
            weights.extend_from_slice(self.arrays.data.next_floats(part.len() as u64)?);
        }
        let vector = SparseVector::new(dims, weights).map_err(|error| wrong(error.to_string()))?;
        (self.row, self.start) = (self.row + 1, end);
        if self.row == self.n_rows && self.arrays.indices.left() > 0 {
            return Err(Error::file(&self.path, format!("{} entries belong to no row", self.arrays.indices.left())));
        }
        Ok(vector)
    }
}

impl Iterator for Rows {
    type Item = Result<SparseVector>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.row >= self.n_rows {
            return None;
        }
        let row = self.read();
        if row.is_err() {
            self.n_rows = self.row;
        }
        Some(row)
    }
}
