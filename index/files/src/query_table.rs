//! Tokenizers and query tables in files: `tokenizer.json`, a safetensors table, `idf.json`, and the query folder of an
//! index.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use splade_core::{QueryEncoder, QueryWeights, TOKENIZER_SOURCES, TOKENIZER_VOCABULARIES, TokenizerFiles, Vocabulary};

use crate::json::{read_json, write_json};
use crate::read::{read_file, read_text};
use crate::vector_file::Tokens;
use crate::{AtomicFile, Error, Result};

/// Reads the tokenizer of a folder, by the path of its `tokenizer.json`; texts are truncated to `max_length` tokens,
/// special tokens counted where they are added.
///
/// The other files of the folder override it or replace a missing one, as in transformers ([`Vocabulary::from_files`]). A
/// tokenizer file of another name is read alone.
///
/// # Errors
/// Files that are missing or broken.
pub fn read_vocabulary(path: &Path, max_length: usize) -> Result<Vocabulary> {
    let vocabulary = match path.file_name() {
        Some(name) if name == TOKENIZER_FILE => {
            let folder = path.parent().unwrap_or(Path::new("."));
            Vocabulary::from_files(&tokenizer_files(folder)?, max_length)
        }
        _ => Vocabulary::parse(read_file(path)?, max_length),
    };
    vocabulary.map_err(|error| match error {
        splade_core::Error::Tokenizer(message) => Error::file(path, format!("not a tokenizer: {message}")),
        other => other.at(path.parent().unwrap_or(path).display()).into(),
    })
}

/// Reads the files of `folder` that decide its tokenizer. Replacements of `tokenizer.json` are read only if it is missing.
fn tokenizer_files(folder: &Path) -> Result<TokenizerFiles> {
    let mut files = TokenizerFiles::new();
    for name in TOKENIZER_SOURCES {
        let stands_in = !name.ends_with(".json") || name == "vocab.json";
        if stands_in && files.contains_key(TOKENIZER_FILE) {
            continue;
        }
        let path = folder.join(name);
        if path.is_file() {
            files.insert(name.to_owned(), read_file(&path)?);
        }
    }
    Ok(files)
}

/// True if `folder` has one of the [`TOKENIZER_VOCABULARIES`].
pub(crate) fn has_tokenizer(folder: &Path) -> bool {
    TOKENIZER_VOCABULARIES.iter().any(|name| folder.join(name).is_file())
}

/// Reads the tensor `weight` `[V]` of a safetensors file, in F32, F16 or BF16.
///
/// # Errors
/// A file that is missing, broken, or has no such tensor.
pub fn read_query_weights(path: &Path) -> Result<QueryWeights> {
    let bytes = read_file(path)?;
    let broken = |message: String| Error::file(path, message);
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| broken(format!("not a whole safetensors file: {error}")))?;
    let view = file.tensor("weight").map_err(|_| broken("no tensor named weight".into()))?;
    if view.shape().len() != 1 {
        return Err(broken(format!("tensor weight has shape {:?}, not one axis", view.shape())));
    }
    let data = view.data();
    let weights = match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => return Err(broken(format!("tensor weight is of type {other:?}, not F32, F16 or BF16"))),
    };
    QueryWeights::new(weights).map_err(|error| broken(error.to_string()))
}

/// Reads `idf.json`, `{"token": weight}`, or lines `token<TAB>weight`. Terms that are not listed have weight 0.
///
/// # Errors
/// A file that is missing or broken, a token that the vocabulary lacks.
pub fn read_idf(path: &Path, vocabulary: &Vocabulary) -> Result<QueryWeights> {
    let mut weights = vec![0.0; vocabulary.min_dimensions()];
    for (token, weight) in read_token_weights(path)? {
        let dim = vocabulary.dim(&token).map(|dim| dim as usize).filter(|dim| *dim < weights.len());
        let dim = dim.ok_or_else(|| Error::file(path, format!("token {token:?} is not in the vocabulary")))?;
        weights[dim] = weight;
    }
    QueryWeights::new(weights).map_err(|error| Error::file(path, error.to_string()))
}

/// Text of an `idf.json` with the weights of a query encoder that are not 0, by token. [`read_idf`] reads it.
///
/// # Errors
/// Weights that JSON cannot express.
pub fn to_idf(encoder: &QueryEncoder) -> Result<String> {
    let weights = (0..).zip(encoder.weights().as_slice()).filter(|(_, weight)| **weight != 0.0);
    let listed: BTreeMap<String, f32> =
        weights.filter_map(|(dim, weight)| Some((encoder.vocabulary().token(dim)?, *weight))).collect();
    serde_json::to_string(&listed).map_err(|error| Error::invalid(format!("idf.json: {error}"), ""))
}

/// Reads the tokens and weights of `idf.json` or of `token<TAB>weight` lines, in the order of the file.
///
/// # Errors
/// A file that is missing or broken, a duplicate token.
pub fn read_token_weights(path: &Path) -> Result<Vec<(String, f32)>> {
    let text = read_text(path)?;
    let listed: Vec<(String, f32)> = if path.extension().is_some_and(|extension| extension == "json") {
        let Tokens(table) = serde_json::from_str(&text)
            .map_err(|error| Error::file(path, format!("not a table of weights: {error}")))?;
        table
    } else {
        text.lines().enumerate().map(|(at, line)| tsv_weight(path, at + 1, line)).collect::<Result<_>>()?
    };
    let mut seen = HashSet::new();
    match listed.iter().find(|(token, _)| !seen.insert(token.as_str())) {
        Some((token, _)) => Err(Error::file(path, format!("duplicate token {token:?}"))),
        None => Ok(listed),
    }
}

fn tsv_weight(path: &Path, at: usize, line: &str) -> Result<(String, f32)> {
    let (token, weight) =
        line.rsplit_once('\t').ok_or_else(|| Error::line(path, at, "not a token, a tab and a weight"))?;
    let weight = weight.trim().parse().map_err(|_| Error::line(path, at, format!("{weight:?} is not a number")))?;
    Ok((token.to_owned(), weight))
}

/// Bytes of a safetensors file with a query table as sentence-transformers writes it: one tensor `weight` `[V]` in F32.
#[must_use]
pub fn to_safetensors(table: &QueryWeights) -> Vec<u8> {
    let data: Vec<u8> = table.as_slice().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![table.as_slice().len()], &data)
        .expect("four bytes per weight");
    safetensors::serialize([("weight", view)], None).expect("one tensor of known size")
}

/// Writes tokenizer, table, prompt and lengths of a query encoder into `folder`.
///
/// # Errors
/// A file that cannot be written.
pub fn write_query_encoder(encoder: &QueryEncoder, folder: &Path) -> Result<()> {
    let settings = Settings {
        version: VERSION,
        prompt: encoder.prompt().to_owned(),
        max_length: encoder.vocabulary().max_length(),
        max_active_dims: encoder.max_active_dims(),
    };
    AtomicFile::write_whole(&folder.join(TOKENIZER_FILE), encoder.vocabulary().json())?;
    AtomicFile::write_whole(&folder.join(WEIGHTS_FILE), &to_safetensors(encoder.weights()))?;
    write_json(&folder.join(SETTINGS_FILE), &settings)
}

/// Reads the files of [`write_query_encoder`].
///
/// # Errors
/// Files that are missing or broken, an unknown format version.
pub fn read_query_encoder(folder: &Path) -> Result<QueryEncoder> {
    let path = folder.join(SETTINGS_FILE);
    let settings: Settings = read_json(&path)?;
    if settings.version != VERSION {
        let message = format!("version {} of the query side, this program reads {VERSION}", settings.version);
        return Err(Error::file(path, message));
    }
    let vocabulary = read_vocabulary(&folder.join(TOKENIZER_FILE), settings.max_length)?;
    let weights = read_query_weights(&folder.join(WEIGHTS_FILE))?;
    Ok(QueryEncoder::new(vocabulary, weights, settings.prompt)?.with_max_active_dims(settings.max_active_dims))
}

const VERSION: u32 = 1;
const SETTINGS_FILE: &str = "query.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const WEIGHTS_FILE: &str = "query_weights.safetensors";

/// `query.json` of a query folder.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    version: u32,
    prompt: String,
    max_length: usize,
    max_active_dims: Option<usize>,
}
