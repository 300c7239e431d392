//! What a torch file holds, without its values.

use std::path::Path;

use splade_index::TensorInfo;

use crate::{Error, Result};

/// The tensors of a `pytorch_model.bin`, by name; nothing in it is executed, and no value is read.
///
/// # Errors
/// A file that is missing or no torch file.
pub fn read_torch_tensor_list(path: &Path) -> Result<Vec<TensorInfo>> {
    if !path.is_file() {
        return Err(Error::io(path)(std::io::ErrorKind::NotFound.into()));
    }
    let tensors = candle_core::pickle::read_pth_tensor_info(path, false, None)
        .map_err(|error| Error::file(path, format!("not a readable torch file: {error}")))?;
    let mut list: Vec<TensorInfo> = tensors
        .into_iter()
        .map(|tensor| {
            let shape = tensor.layout.dims().to_vec();
            let count: usize = shape.iter().product();
            TensorInfo {
                name: tensor.name,
                dtype: tensor.dtype.as_str().to_uppercase(),
                bytes: (count * tensor.dtype.size_in_bytes()) as u64,
                shape,
            }
        })
        .collect();
    if list.is_empty() {
        return Err(Error::file(path, "not a readable torch file: no tensor in it"));
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}
