//! [`CsrWriter`]: the binary CSR matrix of the sparse track of the Big ANN Benchmarks.

use std::io::{self, Write};
use std::path::Path;

use splade_core::SparseVector;

use super::spill::Spill;
use crate::{Error, Result};

/// Writer of a CSR matrix, one row a vector.
///
/// ```text
/// i64   rows, columns, entries
/// i64   start of each row among the entries, and their number: rows + 1 numbers
/// i32   columns of the entries, ascending in each row
/// f32   values of the entries
/// ```
///
/// All numbers are little-endian. The format is `read_sparse_matrix` of <https://github.com/harsha-simhadri/big-ann-benchmarks>.
/// The counts stand first, so rows are kept in temporary files up to the end. Memory does not grow with the matrix.
pub struct CsrWriter {
    /// end of each row
    ends: Spill,
    columns: Spill,
    values: Spill,
    stats: CsrStats,
}

/// Shape of a matrix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CsrStats {
    /// number of rows
    pub rows: u64,
    /// one more than the largest column in use, or the number that was given if that is larger
    pub columns: u64,
    /// number of entries
    pub entries: u64,
}

impl CsrWriter {
    /// Makes temporary files in `folder`. The matrix gets at least `columns` columns.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn new(folder: &Path, columns: u64) -> Result<Self> {
        let mut ends = Spill::in_folder(folder)?;
        ends.write(&0_i64.to_le_bytes())?;
        let (columns_spill, values) = (Spill::in_folder(folder)?, Spill::in_folder(folder)?);
        Ok(Self { ends, columns: columns_spill, values, stats: CsrStats { columns, ..CsrStats::default() } })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// A disk that is full; a dimension beyond those of a signed number of 32 bits.
    pub fn add(&mut self, vector: &SparseVector) -> Result<()> {
        for (dim, weight) in vector.iter() {
            let column = i32::try_from(dim)
                .map_err(|_| Error::invalid(format!("dimension {dim} does not fit in 32 signed bits"), ""))?;
            self.columns.write(&column.to_le_bytes())?;
            self.values.write(&weight.to_le_bytes())?;
        }
        self.stats.rows += 1;
        self.stats.entries += vector.active_dims() as u64;
        let columns = vector.dims().last().map_or(0, |dim| u64::from(*dim) + 1);
        self.stats.columns = self.stats.columns.max(columns);
        self.ends.write(&self.stats.entries.to_le_bytes())
    }

    /// Writes the matrix to `out`.
    ///
    /// # Errors
    /// Errors of `out` and of the temporary files.
    pub fn finish(self, out: &mut impl Write) -> io::Result<CsrStats> {
        let CsrStats { rows, columns, entries } = self.stats;
        for number in [rows, columns, entries] {
            out.write_all(&number.to_le_bytes())?;
        }
        self.ends.copy_to(out)?;
        self.columns.copy_to(out)?;
        self.values.copy_to(out)?;
        Ok(self.stats)
    }
}
