//! Tensors of a safetensors file, read from its header.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::Metadata;

use crate::read::open_file;
use crate::{Error, Result};

/// A tensor of a checkpoint, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// name of the tensor
    pub name: String,
    /// data type in the spelling of the file: `F32`, `BF16`, `I64`
    pub dtype: String,
    /// shape
    pub shape: Vec<usize>,
    /// size of the values in bytes
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shape.iter().map(|&length| length as u64).product()
    }

    /// True if the values are floats. Parameters are floats; buffers such as `position_ids` are not.
    #[must_use]
    pub fn is_float(&self) -> bool {
        self.dtype.starts_with('F') || self.dtype.starts_with("BF")
    }
}

/// Largest size of a header in bytes: the limit of the format.
const MAX_HEADER: u64 = 100_000_000;

/// Lists the tensors of a safetensors file in its order. Reads only the header.
///
/// ```
/// use splade_core::QueryWeights;
/// use splade_files::{read_tensor_list, to_safetensors};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// std::fs::write(&path, to_safetensors(&QueryWeights::new(vec![1.0; 40])?)).unwrap();
/// let tensors = read_tensor_list(&path)?;
/// assert_eq!((tensors[0].name.as_str(), tensors[0].dtype.as_str(), tensors[0].bytes), ("weight", "F32", 160));
/// # Ok::<(), splade_files::Error>(())
/// ```
///
/// # Errors
/// A file that is missing, broken or truncated.
pub fn read_tensor_list(path: &Path) -> Result<Vec<TensorInfo>> {
    Ok(read_tensor_parts(path)?.into_iter().map(|part| part.info).collect())
}

/// A tensor with its place in the file.
pub(crate) struct TensorPart {
    pub(crate) info: TensorInfo,
    /// first byte of its values
    pub(crate) start: u64,
}

/// Lists the tensors of a safetensors file with their places, as [`read_tensor_list`] does.
pub(crate) fn read_tensor_parts(path: &Path) -> Result<Vec<TensorPart>> {
    let broken = |message: String| Error::file(path, format!("not a whole safetensors file: {message}"));
    let mut file = open_file(path)?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut start = [0; 8];
    if length < 8 {
        return Err(broken(format!("{length} bytes")));
    }
    file.read_exact(&mut start).map_err(Error::io(path))?;
    let header = u64::from_le_bytes(start);
    if header > MAX_HEADER.min(length - 8) {
        return Err(broken(format!("its header would have {header} bytes")));
    }
    let mut text = vec![0; usize::try_from(header).map_err(|_| broken("too large for this machine".into()))?];
    file.read_exact(&mut text).map_err(Error::io(path))?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    let mut tensors: Vec<(usize, TensorInfo)> = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (from, to) = info.data_offsets;
            let bytes = to.saturating_sub(from) as u64;
            (from, TensorInfo { name, dtype: info.dtype.to_string(), shape: info.shape.clone(), bytes })
        })
        .collect();
    // empty tensors may have the offset of the next tensor
    tensors.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.name.cmp(&other.name)));
    let needed = 8 + header + tensors.iter().map(|(_, tensor)| tensor.bytes).sum::<u64>();
    if needed != length {
        return Err(broken(format!("{length} bytes, its header makes it {needed}")));
    }
    let place = |(from, info)| TensorPart { info, start: 8 + header + from as u64 };
    Ok(tensors.into_iter().map(place).collect())
}

/// Reads the float vectors of a safetensors file that have at most `most` values, as f32: biases and norms, not matrices.
///
/// Reads only the header and these values.
///
/// # Errors
/// Errors of [`read_tensor_list`].
pub fn read_small_tensors(path: &Path, most: u64) -> Result<Vec<(String, Vec<f32>)>> {
    let tensors = read_tensor_list(path)?;
    let mut file = open_file(path)?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    // values follow one another up to the end of the file
    let mut start = length.saturating_sub(tensors.iter().map(|tensor| tensor.bytes).sum());
    let mut found = Vec::new();
    for tensor in tensors {
        let from = start;
        start += tensor.bytes;
        let size = match tensor.dtype.as_str() {
            "F32" => 4,
            "F16" | "BF16" => 2,
            _ => continue,
        };
        if tensor.shape.len() != 1 || tensor.count() > most || tensor.bytes != size * tensor.count() {
            continue;
        }
        let mut bytes = vec![0; (size * tensor.count()) as usize];
        file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut bytes)).map_err(Error::io(path))?;
        let halves = || bytes.as_chunks::<2>().0.iter();
        let values = match tensor.dtype.as_str() {
            "F32" => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            "F16" => halves().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
            _ => halves().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
        };
        found.push((tensor.name, values));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bytes: &[u8]) -> Result<Vec<TensorInfo>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        read_tensor_list(&path)
    }

    fn two_tensors() -> Vec<u8> {
        let view = |dtype, shape: &[usize], data| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), data);
        let a = view(safetensors::Dtype::F32, &[2, 3], &[0; 24]).unwrap();
        let b = view(safetensors::Dtype::I64, &[1], &[0; 8]).unwrap();
        safetensors::serialize([("a", a), ("b", b)], None).unwrap()
    }

    #[test]
    fn the_list_is_what_the_whole_file_says() {
        let bytes = two_tensors();
        let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let found = list(&bytes).unwrap();
        assert_eq!(found.len(), whole.len());
        for tensor in &found {
            let view = whole.tensor(&tensor.name).unwrap();
            assert_eq!((tensor.shape.as_slice(), tensor.bytes), (view.shape(), view.data().len() as u64));
            assert_eq!(tensor.count(), view.shape().iter().product::<usize>() as u64);
            assert_eq!(tensor.is_float(), view.dtype() == safetensors::Dtype::F32);
        }
    }

    #[test]
    fn small_vectors_are_read_and_matrices_are_passed_over() {
        let floats: Vec<u8> = [1.5_f32, -2.0, 0.25].iter().flat_map(|value| value.to_le_bytes()).collect();
        let halves: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let view = |dtype, shape: &[usize], data| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), data);
        let tensors = [
            ("matrix", view(safetensors::Dtype::F32, &[1, 3], &floats).unwrap()),
            ("vector", view(safetensors::Dtype::F32, &[3], &floats).unwrap()),
            ("halves", view(safetensors::Dtype::F16, &[2], &halves).unwrap()),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let mut found = read_small_tensors(&path, 3).unwrap();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(found, [("halves".to_owned(), vec![1.5, -2.0]), ("vector".to_owned(), vec![1.5, -2.0, 0.25])]);
        assert_eq!(read_small_tensors(&path, 2).unwrap().len(), 1);
    }

    #[test]
    fn a_broken_file_is_named_and_never_a_panic() {
        let whole = two_tensors();
        for cut in 0..whole.len() {
            let error = list(&whole[..cut]).unwrap_err();
            assert!(error.to_string().contains("model.safetensors: not a whole safetensors file"), "{cut}: {error}");
            assert!(error.kind().is_bad_input());
        }
        for at in 0..whole.len() {
            for byte in [0, b'9', 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                // whatever it says, it says it in order
                let _ = list(&bytes);
            }
        }
    }
}
