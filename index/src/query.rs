//! The static query encoder: a query is tokenized and looked up in a table, with no network.

use std::cell::RefCell;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::json::{read_json, write_json};
use crate::{AtomicFile, Encoder, Error, Result, SparseVector, Vocabulary};

/// One learned weight per vocabulary term; negative ones are allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryWeights {
    weights: Vec<f32>,
}

impl QueryWeights {
    /// From one weight per term.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub fn new(weights: Vec<f32>) -> Result<Self> {
        match weights.iter().position(|weight| !weight.is_finite()) {
            Some(dim) => Err(Error::invalid(
                format!("the query weight of term {dim} is {}", weights[dim]),
                "train the table again",
            )),
            None => Ok(Self { weights }),
        }
    }

    /// Reads the tensor `weight` `[V]` of a safetensors file, in F32, F16 or BF16.
    ///
    /// # Errors
    /// A file that is missing, broken, or has no such tensor.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let broken = |message: String| Error::file(path, message);
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| broken(format!("not a whole safetensors file: {error}")))?;
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
        Self::new(weights).map_err(|error| broken(error.to_string()))
    }

    /// Reads `idf.json`, `{"token": weight}`, or `token<TAB>weight` lines: terms that are not listed weigh 0.
    ///
    /// # Errors
    /// A file that is missing or broken, a token the vocabulary lacks.
    pub fn read_idf(path: &Path, vocabulary: &Vocabulary) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let listed: Vec<(String, f32)> = if path.extension().is_some_and(|extension| extension == "json") {
            let table: std::collections::BTreeMap<String, f32> = serde_json::from_str(&text)
                .map_err(|error| Error::file(path, format!("not a table of weights: {error}")))?;
            table.into_iter().collect()
        } else {
            text.lines().enumerate().map(|(at, line)| tsv_weight(path, at + 1, line)).collect::<Result<_>>()?
        };
        let mut weights = vec![0.0; vocabulary.size()];
        for (token, weight) in listed {
            let dim = vocabulary.dim(&token).map(|dim| dim as usize).filter(|dim| *dim < weights.len());
            let dim = dim.ok_or_else(|| Error::file(path, format!("token {token:?} is not in the vocabulary")))?;
            weights[dim] = weight;
        }
        Self::new(weights).map_err(|error| Error::file(path, error.to_string()))
    }

    /// The bytes of the safetensors file the reference writes: one tensor `weight`.
    #[must_use]
    pub fn to_safetensors(&self) -> Vec<u8> {
        let data: Vec<u8> = self.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![self.weights.len()], &data)
            .expect("four bytes per weight");
        safetensors::serialize([("weight", view)], None).expect("one tensor of known size")
    }

    /// One weight per term.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.weights
    }

    /// The vector of a query whose tokens are `ids`: the weight of every *distinct* id, once.
    ///
    /// Presence, not counts; ids beyond the table and weights of exactly 0 give no entry.
    ///
    /// ```
    /// use splade_index::QueryWeights;
    ///
    /// let table = QueryWeights::new(vec![0.0, 1.5, -0.5, 2.0])?;
    /// let vector = table.encode(vec![3, 1, 3, 0, 2]);
    /// assert_eq!(vector.dims(), [1, 2, 3]);
    /// assert_eq!(vector.weights(), [1.5, -0.5, 2.0]);
    /// # Ok::<(), splade_index::Error>(())
    /// ```
    #[must_use]
    pub fn encode(&self, mut ids: Vec<u32>) -> SparseVector {
        self.look_up(&mut ids, None)
    }

    /// The same in place, so that the vector is all that is allocated; at most `max_active_dims` entries, chosen as
    /// [`SparseVector::top_k`] does.
    fn look_up(&self, ids: &mut Vec<u32>, max_active_dims: Option<usize>) -> SparseVector {
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.weights.get(*id as usize).is_some_and(|weight| *weight != 0.0));
        let weight = |id: &u32| self.weights[*id as usize];
        if let Some(k) = max_active_dims.filter(|k| *k < ids.len()) {
            ids.sort_unstable_by(|a, b| weight(b).abs().total_cmp(&weight(a).abs()).then(a.cmp(b)));
            ids.truncate(k);
            ids.sort_unstable();
        }
        let weights = ids.iter().map(weight).collect();
        SparseVector::new(ids.as_slice().to_vec(), weights)
            .expect("ids are sorted and distinct, weights of the table finite")
    }
}

fn tsv_weight(path: &Path, at: usize, line: &str) -> Result<(String, f32)> {
    let (token, weight) =
        line.rsplit_once('\t').ok_or_else(|| Error::line(path, at, "not a token, a tab and a weight"))?;
    let weight = weight.trim().parse().map_err(|_| Error::line(path, at, format!("{weight:?} is not a number")))?;
    Ok((token.to_owned(), weight))
}

/// Query weights with the tokenizer they belong to: everything a query needs.
///
/// ```
/// use splade_index::{Encoder, QueryEncoder, QueryWeights, Vocabulary};
///
/// let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
///     "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "hvor": 1, "fjord": 2}}}"###;
/// let vocabulary = Vocabulary::parse(json.into(), 512)?;
/// let table = QueryWeights::new(vec![0.0, 0.25, 2.0])?;
/// let encoder = QueryEncoder::new(vocabulary, table, "")?;
///
/// let query = encoder.encode_query("hvor hvor fjord")?;
/// assert_eq!(query.iter().collect::<Vec<_>>(), [(1, 0.25), (2, 2.0)]);
/// assert_eq!(encoder.encode(&["fjord", "ukjent"])?[1].active_dims(), 0);
/// # Ok::<(), splade_index::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct QueryEncoder {
    vocabulary: Vocabulary,
    weights: QueryWeights,
    prompt: String,
    max_active_dims: Option<usize>,
}

impl QueryEncoder {
    /// Joins a vocabulary and its table; `prompt` is put before every text, without a separator.
    ///
    /// # Errors
    /// A table that is shorter than the vocabulary: it belongs to another tokenizer. (A longer one is a padded matrix.)
    pub fn new(vocabulary: Vocabulary, weights: QueryWeights, prompt: impl Into<String>) -> Result<Self> {
        let (table, size) = (weights.weights.len(), vocabulary.size());
        if table < size {
            return Err(Error::invalid(
                format!("the query table has {table} weights, but the tokenizer has {size} tokens"),
                "take the tokenizer.json that the model was trained with",
            ));
        }
        Ok(Self { vocabulary, weights, prompt: prompt.into(), max_active_dims: None })
    }

    /// Keeps only the entries of largest absolute weight (`max_active_dims` of the model folder).
    #[must_use]
    pub fn with_max_active_dims(mut self, max_active_dims: Option<usize>) -> Self {
        self.max_active_dims = max_active_dims;
        self
    }

    /// Leaves these terms out of every vector.
    #[must_use]
    pub fn without_terms(mut self, dropped: &[u32]) -> Self {
        for term in dropped {
            if let Some(weight) = self.weights.weights.get_mut(*term as usize) {
                *weight = 0.0;
            }
        }
        self
    }

    /// The vector of one query.
    ///
    /// # Errors
    /// A text the tokenizer refuses.
    pub fn encode_query(&self, text: &str) -> Result<SparseVector> {
        SCRATCH.with_borrow_mut(|scratch| {
            let text = if self.prompt.is_empty() {
                text
            } else {
                scratch.text.clear();
                scratch.text.push_str(&self.prompt);
                scratch.text.push_str(text);
                &scratch.text
            };
            self.vocabulary.tokenize_into(text, &mut scratch.ids)?;
            let vector = self.weights.look_up(&mut scratch.ids, self.max_active_dims);
            scratch.text.shrink_to(SCRATCH_KEPT);
            scratch.ids.shrink_to(SCRATCH_KEPT);
            Ok(vector)
        })
    }

    /// Writes everything a query needs into `folder`: tokenizer, table, prompt, lengths.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let settings = Settings {
            version: VERSION,
            prompt: self.prompt.clone(),
            max_length: self.vocabulary.max_length(),
            max_active_dims: self.max_active_dims,
        };
        AtomicFile::write_whole(&folder.join(TOKENIZER_FILE), self.vocabulary.json())?;
        AtomicFile::write_whole(&folder.join(WEIGHTS_FILE), &self.weights.to_safetensors())?;
        write_json(&folder.join(SETTINGS_FILE), &settings)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Files that are missing or broken, a version from the future.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(SETTINGS_FILE);
        let settings: Settings = read_json(&path)?;
        if settings.version != VERSION {
            let message = format!("version {} of the query side, this program reads {VERSION}", settings.version);
            return Err(Error::file(path, message));
        }
        let vocabulary = Vocabulary::read(&folder.join(TOKENIZER_FILE), settings.max_length)?;
        let weights = QueryWeights::read(&folder.join(WEIGHTS_FILE))?;
        Ok(Self::new(vocabulary, weights, settings.prompt)?.with_max_active_dims(settings.max_active_dims))
    }

    /// The tokenizer.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The table.
    #[must_use]
    pub fn weights(&self) -> &QueryWeights {
        &self.weights
    }
}

/// What a query is put together in, one of it per thread.
#[derive(Default)]
struct Scratch {
    text: String,
    ids: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One long text does not hold its memory for ever.
const SCRATCH_KEPT: usize = 1 << 16;

const VERSION: u32 = 1;
const SETTINGS_FILE: &str = "query.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const WEIGHTS_FILE: &str = "query_weights.safetensors";

/// `query.json` of a saved query side.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    version: u32,
    prompt: String,
    max_length: usize,
    max_active_dims: Option<usize>,
}

impl Encoder for QueryEncoder {
    fn dimensions(&self) -> usize {
        self.weights.weights.len()
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>> {
        texts.iter().map(|text| self.encode_query(text)).collect()
    }
}
