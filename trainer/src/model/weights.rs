//! [`Weights`]: the parameters of a transformer, read from a checkpoint or drawn anew.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use splade_files::{CheckpointFiles, CheckpointFormat};

use super::algebra::Init;
use super::declaration::Declared;
use super::families::TransformerConfig;
use super::masked_lm::MaskedLm;
use super::pickle;
use super::problem::CheckpointProblem;
use crate::{Error, Result};

/// Parameters by checkpoint name, in f32 on the CPU: exactly those the forward pass reads.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Reads the checkpoint at `path`: `model.safetensors` or `pytorch_model.bin`, or the index of its shards.
    ///
    /// # Errors
    /// Those of [`CheckpointFiles::open`] and [`from_files`](Self::from_files).
    pub fn read(path: &Path, config: &TransformerConfig) -> Result<Self> {
        Self::from_files(&CheckpointFiles::open(path)?, config)
    }

    /// Reads a checkpoint in one file or in shards. Torch files are read as data: nothing in a pickle is executed.
    ///
    /// Old names (`gamma`, `beta`) and the prefixes of other tools are understood; buffers and poolers are left out; F16
    /// and BF16 become f32; an output matrix equal to the embedding it is tied to is dropped, so that training keeps
    /// them one.
    ///
    /// # Errors
    /// A file that is broken; a tensor that is missing, unknown, ambiguous, or of another shape, by name.
    pub fn from_files(files: &CheckpointFiles, config: &TransformerConfig) -> Result<Self> {
        let wrong = |problem| Error::Checkpoint { path: files.path().to_owned(), problem };
        let family = config.as_masked_lm();
        let mut found = by_canonical_name(files.join(read_tensors)?, family)?.map_err(wrong)?;
        for (alias, name) in family.aliases() {
            if let Some(tensor) = found.remove(*alias) {
                found.insert((*name).to_owned(), tensor);
            }
        }
        drop_tied_copy(&mut found, family)?;
        let wanted = config.parameters(found.keys().cloned())?;
        Ok(Self { tensors: exactly(wanted, found, family).map_err(wrong)? })
    }

    /// Draws a new model from `seed`.
    ///
    /// # Errors
    /// Those of the family.
    pub fn new(config: &TransformerConfig, seed: u64) -> Result<Self> {
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
                        .map_err(|error| Error::invalid(format!("initializer_range: {error}"), ""))?;
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

    /// Drops an output matrix that equals the embedding: what is not trained needs it only once.
    ///
    /// # Errors
    /// A device that fails.
    pub fn without_copy(mut self, config: &TransformerConfig) -> Result<Self> {
        let (output, embedding) = config.tied();
        if are_equal(&self.tensors, output, embedding)? {
            self.tensors.remove(output);
        }
        Ok(self)
    }

    /// Moves the parameters to another device.
    ///
    /// # Errors
    /// A device that fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let moved = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        Ok(Self { tensors: self.tensors.iter().map(moved).collect::<Result<_>>()? })
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
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let cpu = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(&Device::Cpu)?));
        let tensors = self.tensors.iter().map(cpu).collect::<Result<BTreeMap<_, _>>>()?;
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(tensors, Some(metadata))
            .map_err(|error| Error::invalid(format!("the weights cannot be written: {error}"), ""))
    }
}

/// The tensors of one file; none for buffers, which hold whole numbers or booleans.
fn read_tensors(path: &Path) -> Result<Vec<(String, Option<Tensor>)>> {
    match CheckpointFormat::of(path) {
        CheckpointFormat::Safetensors => read_safetensors(path),
        CheckpointFormat::Torch => pickle::read(path),
    }
}

fn read_safetensors(path: &Path) -> Result<Vec<(String, Option<Tensor>)>> {
    let bytes = splade_files::read_file(path)?;
    let wrong = |problem| Error::Checkpoint { path: path.to_owned(), problem };
    let broken = |message: String| wrong(CheckpointProblem::Format { format: "safetensors", message });
    let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        use safetensors::Dtype::{BF16, BOOL, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        let tensor = match view.dtype() {
            F32 | F16 | BF16 | F64 => Some(view.load(&Device::Cpu).map_err(|error| broken(error.to_string()))?),
            BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => None,
            other => {
                return Err(wrong(CheckpointProblem::Type { name: name.to_owned(), dtype: format!("{other:?}") }));
            }
        };
        tensors.push((name.to_owned(), tensor));
    }
    Ok(tensors)
}

/// Parameters in f32 by their names in the family; buffers and parts of other heads are left out.
///
/// The outer error is one of a device, the inner one of the checkpoint.
fn by_canonical_name(
    tensors: Vec<(String, Option<Tensor>)>,
    family: &dyn MaskedLm,
) -> Result<Result<BTreeMap<String, Tensor>, CheckpointProblem>> {
    let mut found: BTreeMap<String, (String, Tensor)> = BTreeMap::new();
    for (stored, tensor) in tensors {
        let name = canonical(&stored, family);
        let Some(tensor) = tensor.filter(|_| !is_ignored(&name)) else { continue };
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        if let Some((first, other)) = found.get(&name)
            && !have_equal_values(other, &tensor)?
        {
            return Ok(Err(CheckpointProblem::Conflict { name, first: first.clone(), second: stored }));
        }
        found.insert(name, (stored, tensor));
    }
    Ok(Ok(found.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect()))
}

/// The tensors that are `wanted`, of their shapes, and no others.
fn exactly(
    wanted: Vec<Declared>,
    mut found: BTreeMap<String, Tensor>,
    family: &dyn MaskedLm,
) -> Result<BTreeMap<String, Tensor>, CheckpointProblem> {
    let is_head = |name: &str| family.head_prefixes().iter().any(|prefix| name.starts_with(prefix));
    let has_head = found.keys().any(|name| is_head(name));
    let mut tensors = BTreeMap::new();
    for Declared { name, shape, .. } in wanted {
        let Some(tensor) = found.remove(&name) else {
            return Err(if !has_head && is_head(&name) {
                CheckpointProblem::NoHead { name }
            } else {
                CheckpointProblem::Missing { name, shape }
            });
        };
        if tensor.dims() != shape {
            return Err(CheckpointProblem::Shape { name, found: tensor.dims().to_vec(), expected: shape });
        }
        tensors.insert(name, tensor);
    }
    match found.into_keys().next() {
        Some(name) => Err(CheckpointProblem::Unknown { name }),
        None => Ok(tensors),
    }
}

/// Modules that tools put around a part of a model, anywhere in a name: torch.compile, FSDP, activation checkpointing.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Modules that tools put around a whole model: data parallelism, sentence-transformers, Lightning and others.
const PREFIXES: [&str; 3] = ["module.", "auto_model.", "model."];

/// The name of a tensor in its family: without the wrappers and prefixes of other tools, with the norm's new names.
fn canonical(name: &str, family: &dyn MaskedLm) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let joined = parts.join(".");
    let mut name = joined.as_str();
    // a family may have such a prefix of its own
    let prefixes = [family.encoder_prefixes(), family.head_prefixes()].concat();
    let is_own = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    while !is_own(name)
        && let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))
    {
        name = rest;
    }
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}

/// True for buffers and for parts of other heads.
fn is_ignored(name: &str) -> bool {
    [".position_ids", ".token_type_ids", ".position_indices"].iter().any(|suffix| name.ends_with(suffix))
        || name.contains(".pooler.")
        || name.starts_with("cls.seq_relationship.")
}

fn drop_tied_copy(found: &mut BTreeMap<String, Tensor>, family: &dyn MaskedLm) -> Result<()> {
    let (output, embedding) = family.tied();
    if !found.contains_key(embedding) {
        // some tools keep the shared matrix only under the output's name
        if let Some(shared) = found.remove(output) {
            found.insert(embedding.to_owned(), shared);
        }
    } else if family.ties_output() && are_equal(found, output, embedding)? {
        found.remove(output);
    }
    Ok(())
}

/// True if two tensors are both there and hold the same numbers.
fn are_equal(tensors: &BTreeMap<String, Tensor>, one: &str, other: &str) -> Result<bool> {
    match (tensors.get(one), tensors.get(other)) {
        (Some(a), Some(b)) => have_equal_values(a, b),
        _ => Ok(false),
    }
}

fn have_equal_values(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.dims() == b.dims() && a.flatten_all()?.to_vec1::<f32>()? == b.flatten_all()?.to_vec1::<f32>()?)
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
    fn reread(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Result<Weights> {
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

    /// Every name of a new model changed by `rename`, written and read again.
    fn renamed(rename: impl Fn(&str) -> String) -> Result<Weights> {
        reread(|tensors| *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (rename(&name), t)).collect())
    }

    fn values(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
        weights.tensors.iter().map(|(name, tensor)| (name.clone(), values(tensor))).collect()
    }

    #[test]
    fn prefixes_and_wrappers_of_other_tools_are_known() {
        let expected = values(&Weights::new(&config(), 1).unwrap());
        let prefixes = [
            "_orig_mod.",
            "module.",
            "model.",
            "auto_model.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model.module.",
            "auto_model._orig_mod.",
            "_fsdp_wrapped_module.",
            "module.model.auto_model.",
        ];
        for prefix in prefixes {
            let weights = renamed(|name| format!("{prefix}{name}")).unwrap();
            assert_eq!(values(&weights), expected, "{prefix}");
        }
        let inside = renamed(|name| name.replace("bert.encoder.", "bert.encoder._orig_mod.")).unwrap();
        assert_eq!(values(&inside), expected);
        let checkpointed = renamed(|name| name.replace("layer.0.", "layer.0._checkpoint_wrapped_module.")).unwrap();
        assert_eq!(values(&checkpointed), expected);
        // no prefix is guessed
        assert!(renamed(|name| format!("network.{name}")).is_err());
    }

    #[test]
    fn two_values_of_one_parameter_are_refused() {
        let with_second = |scale: f64| {
            reread(|tensors| {
                let bias = tensors["cls.predictions.bias"].affine(1.0, scale).unwrap();
                tensors.insert("module.cls.predictions.bias".to_owned(), bias);
            })
        };
        with_second(0.0).unwrap();
        let error = with_second(1.0).unwrap_err();
        let Error::Checkpoint { problem: CheckpointProblem::Conflict { name, .. }, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(name, "cls.predictions.bias");
    }

    #[test]
    fn a_checkpoint_without_a_head_is_told_from_one_that_lacks_a_tensor() {
        let without = |prefix: &'static str| reread(move |tensors| tensors.retain(|name, _| !name.starts_with(prefix)));
        let error = without("cls.").unwrap_err();
        assert!(matches!(&error, Error::Checkpoint { problem: CheckpointProblem::NoHead { .. }, .. }), "{error}");
        let error = without("cls.predictions.transform.dense.bias").unwrap_err();
        assert!(matches!(&error, Error::Checkpoint { problem: CheckpointProblem::Missing { .. }, .. }), "{error}");
    }

    /// A new model in shards of safetensors, and its values.
    fn shards(folder: &Path) -> (std::path::PathBuf, BTreeMap<String, Vec<f32>>, serde_json::Value) {
        let weights = Weights::new(&config(), 1).unwrap();
        let mut map = serde_json::Map::new();
        let mut halves = [BTreeMap::new(), BTreeMap::new()];
        for (at, (name, tensor)) in weights.tensors.iter().enumerate() {
            map.insert(name.clone(), format!("model-{}.safetensors", at % 2).into());
            halves[at % 2].insert(name.clone(), tensor.clone());
        }
        for (at, half) in halves.into_iter().enumerate() {
            let bytes = Weights::from_tensors(half).to_safetensors().unwrap();
            std::fs::write(folder.join(format!("model-{at}.safetensors")), bytes).unwrap();
        }
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(&path, index.to_string()).unwrap();
        (path, values(&weights), index)
    }

    #[test]
    fn shards_are_joined_and_what_is_wrong_with_them_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (path, expected, index) = shards(folder.path());
        assert_eq!(values(&Weights::read(&path, &config()).unwrap()), expected);
        assert_eq!(CheckpointFiles::find(folder.path()).unwrap().shards().len(), 2);

        let with = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut index = index.clone();
            change(&mut index);
            std::fs::write(&path, index.to_string()).unwrap();
            Weights::read(&path, &config())
        };
        let shard = |name: &'static str| {
            move |index: &mut serde_json::Value| index["weight_map"]["cls.predictions.bias"] = name.into()
        };
        type Damage<'a> = &'a dyn Fn(&mut serde_json::Value);
        let cases: [(Damage<'_>, &str); 8] = [
            (
                &|index| index["weight_map"]["x"] = "model-0.safetensors".into(),
                "tensor x is not in model-0.safetensors",
            ),
            (&shard("model-2.safetensors"), "the shard model-2.safetensors is missing"),
            (&shard("../model-0.safetensors"), "\"../model-0.safetensors\" of tensor cls.predictions.bias is no file"),
            (&shard("/etc/hostname"), "\"/etc/hostname\" of tensor cls.predictions.bias is no file"),
            (&shard("..\\model-0.safetensors"), "is no file of this folder"),
            (&shard("model.safetensors.index.json"), "is no file of this folder"),
            (&|index| index["weight_map"] = serde_json::json!({}), "weight_map lists no tensor"),
            (&|index| *index = serde_json::json!({"a": 1}), "missing field `weight_map`"),
        ];
        for (change, wanted) in cases {
            let error = with(change).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(wanted) && text.contains("index.json") && error.kind().is_bad_input(), "{text}");
        }
        // a tensor in both shards is the one of the shard it is listed in
        let other =
            BTreeMap::from([("cls.predictions.bias".to_owned(), Tensor::zeros(6, DType::F32, &Device::Cpu).unwrap())]);
        std::fs::write(
            folder.path().join("model-2.safetensors"),
            Weights::from_tensors(other).to_safetensors().unwrap(),
        )
        .unwrap();
        let bias = |weights: Weights| weights.tensors["cls.predictions.bias"].to_vec1::<f32>().unwrap();
        assert_eq!(bias(with(&shard("model-2.safetensors")).unwrap()), [0.0; 6]);
        // one file is preferred to shards, as the transformers library does
        let plain = Weights::new(&config(), 2).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), plain.to_safetensors().unwrap()).unwrap();
        assert_eq!(CheckpointFiles::find(folder.path()).unwrap().path(), folder.path().join("model.safetensors"));
    }
}
