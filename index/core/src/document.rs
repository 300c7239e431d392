//! [`DocumentEncoder`]: texts through a tokenizer and a network, in batches limited by tokens; [`encode_stream`] over a corpus
//! of any length.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, Slice};

use crate::passages::{PassageLength, PassageSplitter, count_tokens};
use crate::{Encoder, Error, Result, SparseVector, Vocabulary};

/// Token ids of a few texts, padded on the right to the longest.
///
/// ```
/// use splade_core::TokenBatch;
///
/// let batch = TokenBatch::new(&[vec![2, 17, 5, 3], vec![2, 3]], 0);
/// assert_eq!((batch.rows(), batch.width()), (2, 4));
/// assert_eq!(batch.ids.row(1).to_vec(), [2, 3, 0, 0]);
/// assert_eq!(batch.mask.row(1).to_vec(), [1, 1, 0, 0]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// token ids `[texts, tokens]`, in the type that ONNX graphs take
    pub ids: Array2<i64>,
    /// 1 for a token, 0 for padding
    pub mask: Array2<i64>,
    /// the id that padding has
    pub pad: u32,
}

impl TokenBatch {
    /// Pads `texts` with `pad`.
    #[must_use]
    pub fn new<T: AsRef<[u32]>>(texts: &[T], pad: u32) -> Self {
        let width = texts.iter().map(|ids| ids.as_ref().len().max(1)).max().unwrap_or(0);
        let mut batch = Self::padding(texts.len(), width, pad);
        for (row, text) in texts.iter().enumerate() {
            for (at, id) in text.as_ref().iter().enumerate() {
                batch.ids[[row, at]] = i64::from(*id);
                batch.mask[[row, at]] = 1;
            }
        }
        batch
    }

    fn padding(rows: usize, width: usize, pad: u32) -> Self {
        let ids = Array2::from_elem((rows, width), i64::from(pad));
        Self { ids, mask: Array2::zeros((rows, width)), pad }
    }

    /// Number of texts.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ids.nrows()
    }

    /// Tokens of the longest text, at least 1 where there is a text.
    #[must_use]
    pub fn width(&self) -> usize {
        self.ids.ncols()
    }

    /// Some of the texts, padded to the longest of them.
    ///
    /// # Panics
    /// A range beyond the texts.
    #[must_use]
    pub fn part(&self, texts: Range<usize>) -> Self {
        let texts = Slice::from(texts);
        let (ids, mask) = (self.ids.slice_axis(Axis(0), texts), self.mask.slice_axis(Axis(0), texts));
        let last = |mask: ArrayView1<'_, i64>| mask.iter().rposition(|mask| *mask != 0).map_or(1, |last| last + 1);
        let width = mask.outer_iter().map(last).max().unwrap_or(0).min(self.width());
        let narrow = |array: ArrayView2<'_, i64>| array.slice_axis(Axis(1), Slice::from(..width)).to_owned();
        Self { ids: narrow(ids), mask: narrow(mask), pad: self.pad }
    }

    /// The batch with so many rows and columns, for a network that takes no others: wider by padding, longer by copies of the
    /// last text.
    ///
    /// # Panics
    /// Fewer rows or columns than there are.
    #[must_use]
    pub fn fitted(&self, rows: usize, width: usize) -> Self {
        let mut fitted = Self::padding(rows, width, self.pad);
        let columns = Slice::from(..self.width());
        for row in 0..rows {
            let from = row.min(self.rows().saturating_sub(1));
            fitted.ids.row_mut(row).slice_axis_mut(Axis(0), columns).assign(&self.ids.row(from));
            fitted.mask.row_mut(row).slice_axis_mut(Axis(0), columns).assign(&self.mask.row(from));
        }
        fitted
    }
}

/// A network that gives the vectors of a batch: in ONNX Runtime or in Candle.
pub trait Network: Send + Sync {
    /// Number of terms, V: the length of its output rows.
    fn dimensions(&self) -> usize;

    /// Number of batches it runs at the same time; more than that wait for one another.
    fn concurrency(&self) -> usize {
        1
    }

    /// Most tokens of a text, where the network has a limit of its own: longer texts are truncated to it.
    fn max_length(&self) -> Option<usize> {
        None
    }

    /// The SPLADE vector of every row of a batch.
    ///
    /// # Errors
    /// A network that fails.
    fn forward(&self, batch: &TokenBatch) -> Result<Vec<SparseVector>>;
}

/// Preparation of texts for the network, and of vectors after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentSettings {
    /// put before every text, without a separator
    pub prompt: String,
    /// lower the text before tokenizing (`do_lower_case`; most tokenizers do it themselves)
    pub lower_case: bool,
    /// leave these terms out of every vector; ascending
    pub dropped: Vec<u32>,
    /// keep only so many entries of largest weight
    pub max_active_dims: Option<usize>,
    /// the id that padding has
    pub pad: u32,
    /// the most tokens in a batch, padding included; 0 means [`BATCH_TOKENS`]
    pub batch_tokens: usize,
}

/// Tokens per batch by default: enough to fill the matrix products, few enough for the caches.
pub const BATCH_TOKENS: usize = 1024;

/// A tokenizer and a network.
///
/// ```
/// use splade_core::{DocumentEncoder, DocumentSettings, Encoder, Network, Result, SparseVector, TokenBatch, Vocabulary};
///
/// /// Counts tokens, where a real network would weigh terms.
/// struct Counts;
///
/// impl Network for Counts {
///     fn dimensions(&self) -> usize {
///         3
///     }
///
///     fn forward(&self, batch: &TokenBatch) -> Result<Vec<SparseVector>> {
///         let count = |text: usize| {
///             let mut counts = [0.0; 3];
///             let tokens = batch.ids.row(text).into_iter().zip(batch.mask.row(text));
///             tokens.for_each(|(id, mask)| counts[*id as usize] += *mask as f32);
///             SparseVector::from_dense(&counts).expect("counts are finite")
///         };
///         Ok((0..batch.rows()).map(count).collect())
///     }
/// }
///
/// let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
///     "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "fjord": 1, "fisk": 2}}}"###;
/// let vocabulary = Vocabulary::parse(json.into(), 512)?;
/// let encoder = DocumentEncoder::new(vocabulary, Box::new(Counts), DocumentSettings::default())?;
/// let vectors = encoder.encode(&["fisk fjord fisk", "", "fjord"])?;
/// assert_eq!(vectors[0].iter().collect::<Vec<_>>(), [(1, 1.0), (2, 2.0)]);
/// assert!(vectors[1].is_empty());
/// # Ok::<(), splade_core::Error>(())
/// ```
pub struct DocumentEncoder {
    vocabulary: Vocabulary,
    network: Box<dyn Network>,
    settings: DocumentSettings,
    /// the vocabulary without a maximum length, from the first text that may be truncated on
    whole: OnceLock<Vocabulary>,
    truncated: AtomicU64,
}

impl DocumentEncoder {
    /// An encoder of a tokenizer and a network. Texts are truncated to the shorter limit of the two.
    ///
    /// # Errors
    /// A tokenizer with more tokens than the network has terms: it belongs to another model.
    pub fn new(vocabulary: Vocabulary, network: Box<dyn Network>, settings: DocumentSettings) -> Result<Self> {
        let terms = network.dimensions();
        if let Some(excess) = vocabulary.excess_over(terms) {
            return Err(Error::invalid(
                format!("the model has {terms} terms, but the tokenizer has {excess}"),
                "take the tokenizer.json that the model was trained with",
            ));
        }
        let vocabulary = match network.max_length() {
            Some(most) if most < vocabulary.max_length() => vocabulary.with_max_length(most)?,
            _ => vocabulary,
        };
        Ok(Self { vocabulary, network, settings, whole: OnceLock::new(), truncated: AtomicU64::new(0) })
    }

    /// A splitter of texts into passages that this encoder reads without truncation.
    ///
    /// # Errors
    /// Passages that are longer than the encoder reads, or too short for special tokens, prompt and overlap.
    pub fn passage_splitter(&self, length: PassageLength) -> Result<PassageSplitter> {
        PassageSplitter::new(&self.vocabulary, &self.settings.prompt, self.settings.lower_case, length)
    }

    /// Number of texts that were truncated so far.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Counts the texts of which tokens were left out.
    fn count_truncated(&self, texts: &[&str], tokens: &[Vec<u32>]) -> Result<()> {
        for (text, tokens) in texts.iter().zip(tokens) {
            if tokens.len() < self.vocabulary.max_length() {
                continue;
            }
            let whole = match self.whole.get() {
                Some(whole) => whole,
                None => {
                    let whole = self.vocabulary.with_max_length(usize::MAX)?;
                    self.whole.get_or_init(|| whole)
                }
            };
            let count = count_tokens(whole, &self.settings.prompt, self.settings.lower_case, text)?;
            self.truncated.fetch_add(u64::from(count > tokens.len()), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The tokenizer.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        if self.settings.prompt.is_empty() && !self.settings.lower_case {
            return self.vocabulary.tokenize_all(texts);
        }
        let prepared = texts.iter().map(|text| {
            let text = format!("{}{text}", self.settings.prompt);
            if self.settings.lower_case { text.to_lowercase() } else { text }
        });
        self.vocabulary.tokenize_all(&prepared.collect::<Vec<_>>())
    }
}

impl Encoder for DocumentEncoder {
    fn dimensions(&self) -> usize {
        self.network.dimensions()
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>> {
        let tokens = self.tokenize(texts)?;
        self.count_truncated(texts, &tokens)?;
        let DocumentSettings { pad, batch_tokens, .. } = self.settings;
        let vectors = run_in_batches(&tokens, pad, batch_tokens, self.network.concurrency(), |batch| self.run(batch))?;
        Ok(vectors.into_iter().map(Option::unwrap_or_default).collect())
    }
}

impl DocumentEncoder {
    /// The vectors of the texts of a batch.
    fn run(&self, batch: &TokenBatch) -> Result<Vec<SparseVector>> {
        let finished = |vector: SparseVector| {
            let vector = vector.without(&self.settings.dropped);
            match self.settings.max_active_dims {
                Some(k) => vector.top_k(k),
                None => vector,
            }
        };
        Ok(self.network.forward(batch)?.into_iter().map(finished).collect())
    }
}

/// Results of `run` for texts given as token ids, in their order; none for a text without a token. `run` gets texts of similar
/// length in batches of at most `batch_tokens` tokens (0 means [`BATCH_TOKENS`]), padded with `pad`, and returns a result for
/// each row. `concurrency` batches run at the same time.
///
/// # Errors
/// The first error of `run`; another number of results than texts.
pub fn run_in_batches<R: Send>(
    tokens: &[Vec<u32>],
    pad: u32,
    batch_tokens: usize,
    concurrency: usize,
    run: impl Fn(&TokenBatch) -> Result<Vec<R>> + Sync,
) -> Result<Vec<Option<R>>> {
    let budget = if batch_tokens == 0 { BATCH_TOKENS } else { batch_tokens };
    let batches = batches(tokens, budget);
    let found = in_parallel(concurrency, &batches, |batch| {
        let rows: Vec<&[u32]> = batch.iter().map(|&text| tokens[text].as_slice()).collect();
        let found = run(&TokenBatch::new(&rows, pad))?;
        if found.len() != batch.len() {
            let message = format!("the network gave {} vectors for {} texts", found.len(), batch.len());
            return Err(Error::Encoder(message.into()));
        }
        Ok(found)
    })?;
    let mut results: Vec<Option<R>> = tokens.iter().map(|_| None).collect();
    for (text, result) in batches.iter().flatten().zip(found.into_iter().flatten()) {
        results[*text] = Some(result);
    }
    Ok(results)
}

/// Results of `run` for every item, in order, on `threads` new threads. Each thread takes the next item when it is ready.
///
/// Rayon's pool is not used, since its threads would only wait for the threads of the network.
fn in_parallel<T: Sync, R: Send>(threads: usize, items: &[T], run: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(run).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            let result = run(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            done.push((at, result));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(items.len())).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Indices of texts, batch by batch: longest first, so that memory peaks at the start and padding is least.
///
/// Texts without a token are left out: their vector is zero, whatever the network.
fn batches(tokens: &[Vec<u32>], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tokens.len()).filter(|text| !tokens[*text].is_empty()).collect();
    order.sort_by_key(|&text| (std::cmp::Reverse(tokens[text].len()), text));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for text in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * tokens[batch[0]].len() <= budget => batch.push(text),
            _ => batches.push(vec![text]),
        }
    }
    batches
}

/// Most texts, and about the most bytes, that [`encode_stream`] takes from its stream at a time: enough to sort by length, few
/// enough to hold, and to report progress.
const WINDOW: usize = 1024;
const WINDOW_BYTES: usize = 1 << 18;

/// Encodes a stream of texts in input order, holding only a window of them, so that memory does not grow with the corpus.
///
/// Every item carries whatever belongs to its text; `text` reads the text from it and `sink` gets the item back with its vector.
///
/// # Errors
/// The first error of the stream, the encoder or the sink.
pub fn encode_stream<T, E: From<Error>>(
    encoder: &dyn Encoder,
    items: impl IntoIterator<Item = std::result::Result<T, E>>,
    text: impl Fn(&T) -> String,
    sink: impl FnMut(T, SparseVector) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    encode_stream_by(|texts| Ok(encoder.encode(texts)?), items, text, sink)
}

/// As [`encode_stream`], with a function that returns a result for each text of a window.
///
/// # Errors
/// The first error of the stream, of `encode` or of the sink.
pub fn encode_stream_by<T, V, E: From<Error>>(
    mut encode: impl FnMut(&[&str]) -> std::result::Result<Vec<V>, E>,
    items: impl IntoIterator<Item = std::result::Result<T, E>>,
    text: impl Fn(&T) -> String,
    mut sink: impl FnMut(T, V) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut items = items.into_iter().fuse();
    loop {
        let (mut window, mut texts, mut bytes) = (Vec::new(), Vec::new(), 0);
        while window.len() < WINDOW && bytes < WINDOW_BYTES {
            let Some(item) = items.next().transpose()? else { break };
            let text = text(&item);
            bytes += text.len();
            texts.push(text);
            window.push(item);
        }
        if window.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for (item, vector) in window.into_iter().zip(encode(&texts)?) {
            sink(item, vector)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn batches_keep_to_the_budget_and_lose_nothing() {
        let tokens: Vec<Vec<u32>> = [5, 1, 9, 3, 3, 100, 2].iter().map(|n| vec![7; *n]).collect();
        let batches = batches(&tokens, 20);
        assert_eq!(batches[0], [5], "a text longer than the budget goes alone");
        for batch in &batches[1..] {
            assert!(batch.len() * tokens[batch[0]].len() <= 20);
        }
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn texts_without_a_token_are_in_no_batch() {
        let tokens = [vec![], vec![7; 3], vec![]];
        assert_eq!(batches(&tokens, 20), [[1]]);
        assert!(batches(&[vec![]], 20).is_empty());
    }

    #[test]
    fn parallel_results_keep_their_order_and_stop_at_an_error() {
        let items: Vec<usize> = (0..200).collect();
        for threads in [0, 1, 2, 7, 500] {
            let doubled = in_parallel(threads, &items, |item| {
                if item % 50 == 0 {
                    std::thread::yield_now();
                }
                Ok(item * 2)
            });
            assert_eq!(doubled.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
            let refused = |item: &usize| {
                if *item == 30 { Err(Error::invalid("the thirtieth", "")) } else { Ok(()) }
            };
            assert_eq!(in_parallel(threads, &items, refused).unwrap_err().to_string(), "the thirtieth");
            assert!(in_parallel(threads, &[], refused).unwrap().is_empty());
        }
    }

    /// The length of a text in bytes, at dimension 0.
    struct Lengths;

    impl Encoder for Lengths {
        fn dimensions(&self) -> usize {
            1
        }

        fn encode(&self, texts: &[&str]) -> Result<Vec<SparseVector>> {
            assert!(texts.len() <= WINDOW);
            assert!(texts.iter().rev().skip(1).map(|text| text.len()).sum::<usize>() < WINDOW_BYTES);
            let vector = |text: &&str| SparseVector::from_pairs([(0, text.len() as f32)]).unwrap();
            Ok(texts.iter().map(vector).collect())
        }
    }

    #[test]
    fn a_stream_of_any_lengths_comes_out_in_its_order() {
        let length = |n: usize| if n % 700 == 3 { 2 * WINDOW_BYTES } else { n % 50 };
        let items = (0..3000).map(Ok::<usize, Error>);
        let mut next = 0;
        let sink = |n: usize, vector: SparseVector| {
            assert_eq!((n, vector.weight(0)), (next, length(n) as f32));
            next += 1;
            Ok(())
        };
        encode_stream(&Lengths, items, |n| "x".repeat(length(*n)), sink).unwrap();
        assert_eq!(next, 3000);
    }

    #[test]
    fn padding_is_on_the_right() {
        let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4]], 9);
        assert_eq!(batch.ids, array![[1, 2, 3], [4, 9, 9]]);
        assert_eq!(batch.mask, array![[1, 1, 1], [1, 0, 0]]);
        let empty = TokenBatch::new(&[[0_u32; 0]], 9);
        assert_eq!((empty.width(), empty.ids, empty.mask), (1, array![[9]], array![[0]]));
        assert_eq!(TokenBatch::new(&[[0_u32; 0]; 0], 9).rows(), 0);
    }

    #[test]
    fn a_part_is_as_wide_as_its_longest_text_and_is_fitted_by_padding_and_copies() {
        let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4], vec![5, 6], vec![]], 9);
        let part = batch.part(1..3);
        assert_eq!(part, TokenBatch::new(&[vec![4], vec![5, 6]], 9));
        assert_eq!(batch.part(3..4), TokenBatch::new(&[vec![]], 9));
        let fitted = part.fitted(3, 4);
        assert_eq!(fitted.ids, array![[4, 9, 9, 9], [5, 6, 9, 9], [5, 6, 9, 9]]);
        assert_eq!(fitted.mask, array![[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]);
    }

    /// A network that gives the number of tokens of a text, of which it takes at most 3.
    struct AtMostThree;

    impl Network for AtMostThree {
        fn dimensions(&self) -> usize {
            8
        }

        fn max_length(&self) -> Option<usize> {
            Some(3)
        }

        fn forward(&self, batch: &TokenBatch) -> Result<Vec<SparseVector>> {
            let count = |mask: ArrayView1<'_, i64>| SparseVector::from_pairs([(0, mask.sum() as f32)]).unwrap();
            Ok(batch.mask.outer_iter().map(count).collect())
        }
    }

    #[test]
    fn texts_are_truncated_to_what_the_network_takes() {
        let json = r###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1}}}"###;
        for (length, expected) in [(512, 3.0), (2, 2.0)] {
            let vocabulary = Vocabulary::parse(json.into(), length).unwrap();
            let encoder = DocumentEncoder::new(vocabulary, Box::new(AtMostThree), DocumentSettings::default()).unwrap();
            assert_eq!(encoder.encode(&["a a a a a"]).unwrap()[0].weight(0), expected);
            assert_eq!(encoder.truncated(), 1);
            // exactly as long as the limit
            encoder.encode(&["a", &"a ".repeat(length.min(3))]).unwrap();
            assert_eq!(encoder.truncated(), 1);
        }
    }
}
