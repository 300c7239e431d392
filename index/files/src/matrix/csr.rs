//! Binary CSR matrices of the Big ANN Benchmarks, as [`CsrWriter`](crate::CsrWriter) writes them.

use std::io::Read;
use std::path::Path;

use super::Arrays;
use super::column::{Column, DATA, NumberType, open_part};
use crate::read::open_file;
use crate::{Error, Result};

/// Bytes of the numbers of rows, columns and entries.
const HEADER: u64 = 24;

/// Opens the arrays.
pub(super) fn open(path: &Path) -> Result<Arrays> {
    let mut file = open_file(path)?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut header = [0; HEADER as usize];
    file.read_exact(&mut header).map_err(|_| Error::file(path, "no CSR matrix: it has no header of 24 bytes"))?;
    let numbers: Vec<i64> = header.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let (rows, entries) = (numbers[0], numbers[2]);
    let shape = || -> Option<(u64, u64, u64)> {
        let (rows, entries) = (u64::try_from(rows).ok()?, u64::try_from(entries).ok()?);
        let indices = rows.checked_add(1)?.checked_mul(8)?.checked_add(HEADER)?;
        let data = entries.checked_mul(4)?.checked_add(indices)?;
        (entries.checked_mul(4)?.checked_add(data)? == length).then_some((rows + 1, indices, data))
    };
    let Some((n_starts, indices, data)) = shape() else {
        let message = format!("{rows} rows and {entries} entries do not make a CSR matrix of {length} bytes");
        return Err(Error::file(path, message));
    };
    let entries = entries.cast_unsigned();
    let column = |name, start, numbers, width, count| {
        Column::new(path, name, open_part(path, start, count * width)?, numbers, count)
    };
    Ok(Arrays {
        indptr: column("indptr", HEADER, NumberType::I64, 8, n_starts)?,
        indices: column("indices", indices, NumberType::I32, 4, entries)?,
        data: column(DATA, data, NumberType::F32, 4, entries)?,
    })
}
