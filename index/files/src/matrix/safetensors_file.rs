//! CSR matrices in safetensors files: tensors `indptr`, `indices` and `data`.

use std::path::Path;

use super::Arrays;
use super::column::{Column, NumberType, open_part};
use crate::tensors::TensorPart;
use crate::{Error, Result, TensorInfo};

/// Opens the arrays.
pub(super) fn open(path: &Path) -> Result<Arrays> {
    let parts = crate::tensors::read_tensor_parts(path)?;
    let column = |name| column(path, name, &parts);
    Ok(Arrays { indptr: column("indptr")?, indices: column("indices")?, data: column(super::column::DATA)? })
}

fn column(path: &Path, name: &'static str, parts: &[TensorPart]) -> Result<Column> {
    let wrong = |message: String| Error::file(path, message);
    let Some(TensorPart { info, start }) = parts.iter().find(|part| part.info.name == name) else {
        return Err(wrong(format!("no tensor {name:?}: indptr, indices and data are needed")));
    };
    let TensorInfo { shape, dtype, bytes, .. } = info;
    if shape.len() != 1 {
        return Err(wrong(format!("{name} has the shape {shape:?}, not one dimension")));
    }
    let numbers = match &dtype[..] {
        "I32" => NumberType::I32,
        "I64" => NumberType::I64,
        "U32" => NumberType::U32,
        "U64" => NumberType::U64,
        "F16" => NumberType::F16,
        "F32" => NumberType::F32,
        "F64" => NumberType::F64,
        other => return Err(wrong(format!("{name} has the data type {other}, not I32, I64, F16, F32 or F64"))),
    };
    Column::new(path, name, open_part(path, *start, *bytes)?, numbers, info.count())
}
