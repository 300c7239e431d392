//! [`QueryEncoder`]: query vectors from a tokenizer and a table of weights, without a network.

use crate::{Encoder, Error, Result, SparseVector, Vocabulary};
use std::cell::RefCell;

/// One learned weight per vocabulary term; negative ones are allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryWeights {
    weights: Vec<f32>,
}

impl QueryWeights {
    /// Checks and wraps one weight per term.
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

    /// Weights by term.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.weights
    }

    /// The vector of a query whose tokens are `ids`: the weight of every *distinct* id, once.
    ///
    /// A repeated id counts once. Ids beyond the table and weights of exactly 0 give no entry.
    ///
    /// ```
    /// use splade_core::QueryWeights;
    ///
    /// let table = QueryWeights::new(vec![0.0, 1.5, -0.5, 2.0])?;
    /// let vector = table.encode(vec![3, 1, 3, 0, 2]);
    /// assert_eq!(vector.dims(), [1, 2, 3]);
    /// assert_eq!(vector.weights(), [1.5, -0.5, 2.0]);
    /// # Ok::<(), splade_core::Error>(())
    /// ```
    #[must_use]
    pub fn encode(&self, mut ids: Vec<u32>) -> SparseVector {
        self.look_up(&mut ids, None)
    }

    /// [`encode`](Self::encode) in place: it allocates only the vector. Keeps at most `max_active_dims` entries, chosen
    /// as in [`SparseVector::top_k`].
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

/// Query weights with their tokenizer: all that encodes a query.
///
/// ```
/// use splade_core::{Encoder, QueryEncoder, QueryWeights, Vocabulary};
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
/// # Ok::<(), splade_core::Error>(())
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
    /// A table shorter than the vocabulary, which belongs to another tokenizer. A longer table is accepted: its matrix is padded.
    pub fn new(vocabulary: Vocabulary, weights: QueryWeights, prompt: impl Into<String>) -> Result<Self> {
        let table = weights.weights.len();
        if let Some(excess) = vocabulary.excess_over(table) {
            return Err(Error::invalid(
                format!("the query table has {table} weights, but the tokenizer has {excess}"),
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

    /// Encodes one query.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
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

    /// The tokenizer.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The prompt put before every text, often empty.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Largest number of entries of a vector; none without a limit.
    #[must_use]
    pub fn max_active_dims(&self) -> Option<usize> {
        self.max_active_dims
    }

    /// The table.
    #[must_use]
    pub fn weights(&self) -> &QueryWeights {
        &self.weights
    }
}

/// Buffers for encoding one query, reused by each thread.
#[derive(Default)]
struct Scratch {
    text: String,
    ids: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Largest capacity that a buffer keeps after a query, so that one long text does not hold memory.
const SCRATCH_KEPT: usize = 1 << 16;

impl Encoder for QueryEncoder {
    fn dimensions(&self) -> usize {
        self.weights.weights.len()
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>> {
        texts.iter().map(|text| self.encode_query(text)).collect()
    }
}
