//! CSR matrices in `.npz` files, as `scipy.sparse.save_npz` writes them, compressed or not.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::Arrays;
use super::column::{Column, DATA, NumberType, open_part};
use crate::read::open_file;
use crate::{Error, Result};

/// Longest header of an array, far above that of one dimension.
const LONGEST_HEADER: usize = 4096;

/// Opens the arrays.
pub(super) fn open(path: &Path) -> Result<Arrays> {
    let file = BufReader::new(open_file(path)?);
    let mut archive = ZipArchive::new(file).map_err(|error| Error::file(path, format!("no .npz file: {error}")))?;
    let mut format = Vec::new();
    let mut reader = member(path, &mut archive, "format")?;
    reader.by_ref().take(LONGEST_HEADER as u64).read_to_end(&mut format).map_err(|_| damaged(path, "format"))?;
    // a text of three letters behind the header, in one or in four bytes each
    let letters: Vec<u8> = format.into_iter().filter(|byte| *byte != 0).collect();
    if !letters.ends_with(b"csr") {
        return Err(Error::file(path, "not a matrix in the format csr: save m.tocsr()"));
    }
    let mut column = |name| column(path, &mut archive, name);
    Ok(Arrays { indptr: column("indptr")?, indices: column("indices")?, data: column(DATA)? })
}

fn damaged(path: &Path, name: &str) -> Error {
    Error::file(path, format!("{name} is damaged or truncated"))
}

/// Opens a member of the archive.
fn member(
    path: &Path,
    archive: &mut ZipArchive<impl Read + std::io::Seek>,
    name: &str,
) -> Result<Box<dyn BufRead + Send>> {
    let file_name = format!("{name}.npy");
    let index = archive.index_for_name(&file_name);
    let index = index.ok_or_else(|| Error::file(path, format!("no {file_name} in it: it is not made by save_npz")))?;
    let found = archive.by_index_raw(index).map_err(|error| Error::file(path, format!("{file_name}: {error}")))?;
    let start = found.data_start().ok_or_else(|| damaged(path, name))?;
    let bytes = open_part(path, start, found.compressed_size())?;
    match found.compression() {
        CompressionMethod::Stored => Ok(bytes),
        CompressionMethod::DEFLATE => Ok(Box::new(BufReader::new(DeflateDecoder::new(bytes)))),
        other => Err(Error::file(path, format!("{file_name}: compressed by {other}, which is not read"))),
    }
}

fn column(path: &Path, archive: &mut ZipArchive<impl Read + std::io::Seek>, name: &'static str) -> Result<Column> {
    let mut reader = member(path, archive, name)?;
    let header = read_header(&mut *reader).ok_or_else(|| damaged(path, name))?;
    let (numbers, count) = parse_header(&header).ok_or_else(|| {
        Error::file(path, format!("{name} has the header {:?}, which is not read", header.trim_end()))
    })?;
    Column::new(path, name, reader, numbers, count)
}

/// Reads the header of an array: a Python dict as text.
fn read_header(reader: &mut dyn BufRead) -> Option<String> {
    let mut start = [0; 10];
    reader.read_exact(&mut start).ok()?;
    let len = match (&start[..6], start[6]) {
        (b"\x93NUMPY", 1) => usize::from(u16::from_le_bytes([start[8], start[9]])),
        (b"\x93NUMPY", 2 | 3) => {
            let mut high = [0; 2];
            reader.read_exact(&mut high).ok()?;
            u32::from_le_bytes([start[8], start[9], high[0], high[1]]) as usize
        }
        _ => return None,
    };
    let mut header = vec![0; Some(len).filter(|len| *len <= LONGEST_HEADER)?];
    reader.read_exact(&mut header).ok()?;
    String::from_utf8(header).ok()
}

/// Type and number of the numbers by a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }`.
fn parse_header(header: &str) -> Option<(NumberType, u64)> {
    let value = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
    let numbers = match value("descr")?.strip_prefix('\'')?.split('\'').next()? {
        "<i4" => NumberType::I32,
        "<i8" => NumberType::I64,
        "<u4" => NumberType::U32,
        "<u8" => NumberType::U64,
        "<f2" => NumberType::F16,
        "<f4" => NumberType::F32,
        "<f8" => NumberType::F64,
        _ => return None,
    };
    let shape = value("shape")?.strip_prefix('(')?.split(')').next()?;
    let mut lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
    let count = lengths.next()?.parse().ok()?;
    lengths.next().is_none().then_some((numbers, count))
}
