//! The document encoder: texts through a network, in batches limited by tokens, streamed.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Encoder, Error, Result, SparseVector, Vocabulary};

/// Token ids of a few texts, padded on the right to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// `[rows, width]`, padded with the padding id
    pub ids: Vec<u32>,
    /// 1 for a token, 0 for padding, `[rows, width]`
    pub mask: Vec<u8>,
    /// number of texts
    pub rows: usize,
    /// tokens of the longest text, at least 1 where there is a text
    pub width: usize,
}

impl TokenBatch {
    /// Pads `texts` with `pad`.
    #[must_use]
    pub fn new<T: AsRef<[u32]>>(texts: &[T], pad: u32) -> Self {
        let width = texts.iter().map(|ids| ids.as_ref().len().max(1)).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(texts.len() * width);
        let mut mask = Vec::with_capacity(texts.len() * width);
        for text in texts.iter().map(AsRef::as_ref) {
            ids.extend_from_slice(text);
            ids.extend(std::iter::repeat_n(pad, width - text.len()));
            mask.extend(std::iter::repeat_n(1, text.len()));
            mask.extend(std::iter::repeat_n(0, width - text.len()));
        }
        Self { ids, mask, rows: texts.len(), width }
    }
}

/// What runs a batch: ONNX Runtime here, Candle in the trainer.
pub trait Network: Send + Sync {
    /// V, the length of its output rows.
    fn dimensions(&self) -> usize;

    /// How many batches it can run at the same time; more than that wait for one another.
    fn at_once(&self) -> usize {
        1
    }

    /// The SPLADE vector of every row of a batch.
    ///
    /// # Errors
    /// A network that fails.
    fn forward(&self, batch: &TokenBatch) -> Result<Vec<SparseVector>>;
}

/// How a text reaches the network and what becomes of its vector.
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

/// Tokens per batch if nothing else is asked for: enough to fill the matrix products, little enough for the caches.
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
///         let tokens = batch.ids.chunks(batch.width).zip(batch.mask.chunks(batch.width));
///         let count = |(ids, mask): (&[u32], &[u8])| {
///             let mut row = [0.0; 3];
///             ids.iter().zip(mask).for_each(|(id, mask)| row[*id as usize] += f32::from(*mask));
///             SparseVector::from_dense(&row).expect("counts are finite")
///         };
///         Ok(tokens.map(count).collect())
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
}

impl DocumentEncoder {
    /// Joins the two.
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
        Ok(Self { vocabulary, network, settings })
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
        let budget = if self.settings.batch_tokens == 0 { BATCH_TOKENS } else { self.settings.batch_tokens };
        let batches = batches(&tokens, budget);
        let found = at_once(self.network.at_once(), &batches, |batch| self.encode_batch(batch, &tokens))?;
        let mut vectors = vec![SparseVector::default(); texts.len()];
        for (text, vector) in batches.iter().flatten().zip(found.into_iter().flatten()) {
            vectors[*text] = vector;
        }
        Ok(vectors)
    }
}

impl DocumentEncoder {
    /// The vectors of the texts of a batch.
    fn encode_batch(&self, batch: &[usize], tokens: &[Vec<u32>]) -> Result<Vec<SparseVector>> {
        let rows: Vec<&[u32]> = batch.iter().map(|&text| tokens[text].as_slice()).collect();
        let found = self.network.forward(&TokenBatch::new(&rows, self.settings.pad))?;
        if found.len() != batch.len() {
            let message = format!("the network gave {} vectors for {} texts", found.len(), batch.len());
            return Err(Error::Encoder(message.into()));
        }
        let finished = |vector: SparseVector| {
            let vector = vector.without(&self.settings.dropped);
            match self.settings.max_active_dims {
                Some(k) => vector.top_k(k),
                None => vector,
            }
        };
        Ok(found.into_iter().map(finished).collect())
    }
}

/// `run` of every item, in their order, on so many threads of its own: each takes the next item when it is done with one.
///
/// They are no threads of rayon's pool, which would be blocked by waiting for a network that has threads of its own.
fn at_once<T: Sync, R: Send>(threads: usize, items: &[T], run: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
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

/// What [`encode_stream`] takes from its stream at a time, at most so many texts and about so many bytes: enough to sort
/// by length, few enough to hold, and to show that something moves.
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
    mut sink: impl FnMut(T, SparseVector) -> std::result::Result<(), E>,
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
        for (item, vector) in window.into_iter().zip(encoder.encode(&texts)?) {
            sink(item, vector)?;
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn several_at_once_keep_their_order_and_stop_at_an_error() {
        let items: Vec<usize> = (0..200).collect();
        for threads in [0, 1, 2, 7, 500] {
            let doubled = at_once(threads, &items, |item| {
                if item % 50 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                Ok(item * 2)
            });
            assert_eq!(doubled.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
            let refused = |item: &usize| {
                if *item == 30 { Err(Error::invalid("the thirtieth", "")) } else { Ok(()) }
            };
            assert_eq!(at_once(threads, &items, refused).unwrap_err().to_string(), "the thirtieth");
            assert!(at_once(threads, &[], refused).unwrap().is_empty());
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
        assert_eq!((batch.rows, batch.width), (2, 3));
        assert_eq!(batch.ids, [1, 2, 3, 4, 9, 9]);
        assert_eq!(batch.mask, [1, 1, 1, 1, 0, 0]);
        let empty = TokenBatch::new(&[[0_u32; 0]], 9);
        assert_eq!((empty.width, empty.ids, empty.mask), (1, vec![9], vec![0]));
    }
}
