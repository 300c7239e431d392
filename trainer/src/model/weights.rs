//! [`Weights`]: the parameters of a transformer, read from a checkpoint or drawn anew.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::algebra::Init;
use super::config::TransformerConfig;
use super::declaration::Declared;
use super::pickle;
use crate::Error;

/// Parameters by checkpoint name, in f32 on the CPU: exactly those the forward pass reads.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Reads `model.safetensors` or `pytorch_model.bin` (as data: nothing in a pickle is executed).
    ///
    /// Old names (`gamma`, `beta`) and prefixes of other tools are understood; buffers and poolers are left out; F16 and
    /// BF16 become f32; an output matrix equal to the embedding it is tied to is dropped, so that training keeps them one.
    ///
    /// # Errors
    /// A file that is broken; a tensor that is missing, unknown, or of another shape, by name.
    pub fn read(path: &Path, config: &TransformerConfig) -> Result<Self, Error> {
        let raw = if path.extension().is_some_and(|extension| extension == "bin") {
            pickle::read(path)?
        } else {
            read_safetensors(path)?
        };
        let mut found = BTreeMap::new();
        for (name, tensor) in raw {
            let name = canonical(&name, config);
            if !is_ignored(&name) {
                found.insert(name, tensor.to_dtype(DType::F32)?.contiguous()?);
            }
        }
        for (alias, name) in config.aliases() {
            if let Some(tensor) = found.remove(*alias) {
                found.insert((*name).to_owned(), tensor);
            }
        }
        drop_tied_copy(&mut found, config)?;
        let wanted = config.parameters(found.keys().cloned())?;
        let mut tensors = BTreeMap::new();
        for Declared { name, shape, .. } in wanted {
            let tensor = found
                .remove(&name)
                .ok_or_else(|| Error::file(path, format!("tensor {name} of shape {shape:?} is missing")))?;
            if tensor.dims() != shape {
                let message = format!("tensor {name} has shape {:?}, config.json makes it {shape:?}", tensor.dims());
                return Err(Error::file(path, message));
            }
            tensors.insert(name, tensor);
        }
        match found.keys().next() {
            Some(name) => Err(Error::file(path, format!("tensor {name} is unknown to this architecture"))),
            None => Ok(Self { tensors }),
        }
    }

    /// Draws a new model from `seed`.
    ///
    /// # Errors
    /// Those of the family.
    pub fn new(config: &TransformerConfig, seed: u64) -> Result<Self, Error> {
        use rand_distr::Distribution;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tensors = BTreeMap::new();
        for Declared { name, shape, init } in config.parameters([])? {
            let count = shape.iter().product();
            let values = match init {
                Init::Zeros => vec![0.0; count],
                Init::Ones => vec![1.0; count],
                Init::Normal(deviation) => {
                    let normal = rand_distr::Normal::new(0.0, deviation as f32)
                        .map_err(|error| Error::config("initializer_range", error.to_string(), ""))?;
                    (0..count).map(|_| normal.sample(&mut rng)).collect()
                }
            };
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        Ok(Self { tensors })
    }

    /// From tensors that are already exactly those the forward pass reads (a training's variables, say).
    #[must_use]
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// The same without an output matrix that equals the embedding: what is not trained needs it only once.
    ///
    /// # Errors
    /// A device that fails.
    pub fn without_copy(mut self, config: &TransformerConfig) -> Result<Self, Error> {
        let (output, embedding) = config.tied();
        if are_equal(&self.tensors, output, embedding)? {
            self.tensors.remove(output);
        }
        Ok(self)
    }

    /// The same on another device.
    ///
    /// # Errors
    /// A device that fails.
    pub fn to_device(&self, device: &Device) -> Result<Self, Error> {
        let moved = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        Ok(Self { tensors: self.tensors.iter().map(moved).collect::<Result<_, Error>>()? })
    }

    /// The parameters by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The number of floats.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }

    /// The bytes of a `model.safetensors` as the transformers library writes it.
    ///
    /// # Errors
    /// A device that fails.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Error> {
        let cpu = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(&Device::Cpu)?));
        let tensors = self.tensors.iter().map(cpu).collect::<Result<BTreeMap<_, _>, Error>>()?;
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(tensors, Some(metadata))
            .map_err(|error| Error::invalid(format!("the weights cannot be written: {error}"), ""))
    }
}

fn read_safetensors(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let broken = |error: String| Error::file(path, format!("not a whole safetensors file: {error}"));
    let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        use safetensors::Dtype::{BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        match view.dtype() {
            F32 | F16 | BF16 | F64 => {
                tensors.push((name.to_owned(), view.load(&Device::Cpu).map_err(|error| broken(error.to_string()))?));
            }
            // buffers such as position_ids are never parameters
            BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => {}
            other => {
                let message = format!("tensor {name} is of type {other:?}, not F32, F16, BF16 or F64");
                return Err(Error::file(path, message));
            }
        }
    }
    Ok(tensors)
}

/// The name a family asks for: without the prefix of other tools, with the norm's new names.
fn canonical(name: &str, config: &TransformerConfig) -> String {
    let name = ["auto_model.", "model."].iter().fold(name, |name, prefix| match name.strip_prefix(prefix) {
        // a family may have such a prefix of its own
        Some(rest) if config.owns(rest) && !config.owns(name) => rest,
        _ => name,
    });
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}

/// Buffers, and parts of other heads.
fn is_ignored(name: &str) -> bool {
    [".position_ids", ".token_type_ids", ".position_indices"].iter().any(|suffix| name.ends_with(suffix))
        || name.contains(".pooler.")
        || name.starts_with("cls.seq_relationship.")
}

fn drop_tied_copy(found: &mut BTreeMap<String, Tensor>, config: &TransformerConfig) -> Result<(), Error> {
    let (output, embedding) = config.tied();
    if !found.contains_key(embedding) {
        // some tools keep the shared matrix only under the output's name
        if let Some(shared) = found.remove(output) {
            found.insert(embedding.to_owned(), shared);
        }
    } else if config.ties_output() && are_equal(found, output, embedding)? {
        found.remove(output);
    }
    Ok(())
}

/// Whether two tensors are both there and hold the same numbers.
fn are_equal(tensors: &BTreeMap<String, Tensor>, one: &str, other: &str) -> Result<bool, Error> {
    match (tensors.get(one), tensors.get(other)) {
        (Some(a), Some(b)) if a.dims() == b.dims() => {
            Ok(a.flatten_all()?.to_vec1::<f32>()? == b.flatten_all()?.to_vec1::<f32>()?)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BertConfig;

    fn config() -> TransformerConfig {
        TransformerConfig::Bert(BertConfig {
            vocab_size: 6,
            hidden_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 8,
            max_position_embeddings: 8,
            ..BertConfig::default()
        })
    }

    /// A new model with `change` made to its tensors, written and read again.
    fn reread(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Result<Weights, Error> {
        let mut weights = Weights::new(&config(), 1).unwrap();
        change(&mut weights.tensors);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, weights.to_safetensors().unwrap()).unwrap();
        Weights::read(&path, &config())
    }

    #[test]
    fn the_bias_of_the_decoder_counts_under_either_name() {
        let bias = |value: f32| Tensor::full(value, 6, &Device::Cpu).unwrap();
        let alias = "cls.predictions.decoder.bias".to_owned();
        let name = "cls.predictions.bias";
        let read = |weights: Weights| weights.tensors[name].to_vec1::<f32>().unwrap();
        let both = reread(|tensors| drop(tensors.insert(alias.clone(), bias(2.0)))).unwrap();
        assert_eq!(read(both), [2.0; 6]);
        let one = reread(|tensors| {
            tensors.remove(name);
            tensors.insert(alias.clone(), bias(3.0));
        });
        assert_eq!(read(one.unwrap()), [3.0; 6]);
    }

    #[test]
    fn a_tied_matrix_stays_one_and_half_precision_is_widened() {
        let (decoder, words) = config().tied();
        let tied = reread(|tensors| drop(tensors.insert(decoder.to_owned(), tensors[words].clone()))).unwrap();
        assert!(!tied.tensors.contains_key(decoder));
        let under_the_other_name = reread(|tensors| {
            let shared = tensors.remove(words).unwrap();
            tensors.insert(decoder.to_owned(), shared.to_dtype(DType::BF16).unwrap());
        });
        assert_eq!(under_the_other_name.unwrap().tensors[words].dtype(), DType::F32);
    }

    #[test]
    fn tensors_that_cannot_be_are_named() {
        let change = |dtype| {
            move |tensors: &mut BTreeMap<String, Tensor>| {
                let name = "cls.predictions.bias";
                let tensor = tensors[name].to_dtype(dtype).unwrap();
                tensors.insert(name.to_owned(), tensor);
            }
        };
        let cases = [
            (reread(change(DType::F8E4M3)), "is of type F8_E4M3, not"),
            (reread(change(DType::I64)), "of shape [6] is missing"),
            (
                reread(|tensors| drop(tensors.insert("x".into(), tensors["cls.predictions.bias"].clone()))),
                "x is unknown",
            ),
        ];
        for (result, wanted) in cases {
            let error = result.unwrap_err();
            assert!(error.to_string().contains(wanted) && error.kind().is_bad_input(), "{error}");
        }
    }
}
