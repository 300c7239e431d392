//! [`write_dense`]: writes `<segment>.dns`.

use std::io::{self, Write};

use super::codes;
use super::format::{DenseIdentity, HEADER_LEN, Sections};

/// Writes a file of `n_docs` documents. `rows` are their values in f32, little endian. They are read twice, so that of the codes
/// only the scales are held in memory.
///
/// # Errors
/// A row or a number of rows of another length; errors of `out`.
pub fn write_dense<'r>(
    out: &mut impl Write,
    identity: &DenseIdentity,
    n_docs: u32,
    rows: impl Iterator<Item = &'r [u8]> + Clone,
) -> io::Result<()> {
    let row_len = identity.dimensions as usize * 4;
    let refused = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    let sections = Sections::new(n_docs, identity.dimensions).ok_or_else(|| refused("too many vectors".into()))?;
    out.write_all(&identity.header(n_docs))?;
    let mut n_rows = 0;
    for row in rows.clone() {
        if row.len() != row_len {
            return Err(refused(format!("a dense vector of {} bytes, not {row_len}", row.len())));
        }
        out.write_all(row)?;
        n_rows += 1;
    }
    if n_rows != n_docs {
        return Err(refused(format!("{n_rows} dense vectors for {n_docs} documents")));
    }
    pad(out, sections.rows.end..sections.codes.start)?;
    let (mut scales, mut coded, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        values.clear();
        values.extend(row.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)));
        scales.push(codes::encode(&values, &mut coded));
        out.write_all(&coded.iter().map(|code| *code as u8).collect::<Vec<u8>>())?;
    }
    pad(out, sections.codes.end..sections.scales.start)?;
    scales.iter().try_for_each(|scale| out.write_all(&scale.to_bytes()))
}

/// Zeros up to the next section.
fn pad(out: &mut impl Write, place: std::ops::Range<usize>) -> io::Result<()> {
    out.write_all(&[0; HEADER_LEN][..place.len()])
}
