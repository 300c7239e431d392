//! [`Side`]: the encoder of queries or documents, with its cache and the notes about what it encoded.

use std::cell::OnceCell;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use splade_core::{Encoder, PassageLength, PassageSplitter, SparseVector, Vocabulary, encode_stream, hex};
use splade_eval::Task;
use splade_files::{Document, EncodedTexts, EncodedWriter, Query};

use super::cache::{VectorCache, append, fingerprint, finish};
use super::watch::Watch;
use crate::commands::interrupt;
use crate::failure::bad_input;
use crate::passages::{Vectors, gathered, pieces};

/// Opens an encoder; returns the name of its backend too.
type Open<'a> = Box<dyn Fn() -> Result<(Box<dyn Encoder>, String)> + 'a>;

/// Error of vectors in the cache that are more or fewer than the texts.
pub(super) const CHANGED: &str = "the corpus changed while it was read";

/// Encoder of queries or documents.
pub(crate) struct Side<'a> {
    /// `query` or `document`, for messages
    role: &'static str,
    encoder: OnceCell<(Box<dyn Encoder>, String)>,
    open: Option<Open<'a>>,
    cache: VectorCache,
    /// fingerprint of all that decides a vector but the text
    fingerprint: String,
    lengths: Option<Lengths>,
    /// none if documents are not split
    passages: Option<(PassageLength, PassageSplitter)>,
    /// false for an encoder whose vectors mean nothing
    watched: bool,
}

/// Notes about encoded texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// number of terms
    pub(crate) dimensions: usize,
    /// runtime of the network, or `query table`
    pub(crate) backend: String,
    /// texts longer than the encoder reads
    pub(crate) truncated: u64,
    /// texts without text
    pub(crate) empty: u64,
}

/// Limit of the texts of a side, by its tokenizer.
pub(crate) struct Lengths {
    /// tokenizer that keeps one token more than the limit
    longer: Vocabulary,
    limit: usize,
    /// true where special tokens count
    framed: bool,
    prompt: String,
}

impl Lengths {
    /// Limit of `vocabulary`; none for one without a limit.
    pub(crate) fn of(vocabulary: &Vocabulary, framed: bool, prompt: &str) -> Result<Option<Self>> {
        let limit = vocabulary.max_length();
        if limit == usize::MAX {
            return Ok(None);
        }
        let longer = vocabulary.with_max_length(limit + 1)?;
        Ok(Some(Self { longer, limit, framed, prompt: prompt.to_owned() }))
    }

    pub(super) fn truncates(&self, text: &str) -> Result<bool> {
        // a token has at least one byte, and few texts are long
        if text.len() + self.prompt.len() + 8 <= self.limit {
            return Ok(false);
        }
        let text = format!("{}{text}", self.prompt);
        let tokens = if self.framed { self.longer.tokenize_for_network(&text) } else { self.longer.tokenize(&text) };
        Ok(tokens?.len() > self.limit)
    }
}

impl<'a> Side<'a> {
    /// A side of an open encoder, without a cache.
    pub(crate) fn ready(role: &'static str, encoder: Box<dyn Encoder>) -> Self {
        let side = Self::new(role, VectorCache::NONE, String::new(), None, None);
        // the cell of a new side is empty
        let _ = side.encoder.set((encoder, String::new()));
        side
    }

    /// A side for BM25 alone: every vector is empty, and no network runs.
    pub(crate) fn none(role: &'static str, dimensions: usize) -> Self {
        Self { watched: false, ..Self::ready(role, Box::new(NoVectors(dimensions))) }
    }

    /// A side whose encoder is opened when a text is encoded that the cache lacks.
    pub(crate) fn cached(
        role: &'static str,
        cache: VectorCache,
        fingerprint: String,
        lengths: Option<Lengths>,
        open: Open<'a>,
    ) -> Self {
        Self::new(role, cache, fingerprint, lengths, Some(open))
    }

    fn new(
        role: &'static str,
        cache: VectorCache,
        fingerprint: String,
        lengths: Option<Lengths>,
        open: Option<Open<'a>>,
    ) -> Self {
        Self { role, encoder: OnceCell::new(), open, cache, fingerprint, lengths, passages: None, watched: true }
    }

    /// The side with documents split into passages.
    pub(crate) fn splitting(self, passages: Option<(PassageLength, PassageSplitter)>) -> Self {
        Self { passages, ..self }
    }

    /// Length of the passages of documents; none if documents are not split.
    pub(super) fn passages(&self) -> Option<PassageLength> {
        self.passages.as_ref().map(|(length, _)| *length)
    }

    fn encoder(&self) -> Result<&(Box<dyn Encoder>, String)> {
        if let Some(encoder) = self.encoder.get() {
            return Ok(encoder);
        }
        let open = self.open.as_ref().context("a side without an encoder")?;
        let opened = open()?;
        Ok(self.encoder.get_or_init(|| opened))
    }

    /// Encodes the queries of a task.
    pub(super) fn queries(&self, task: &Task) -> Result<(Vec<SparseVector>, Notes)> {
        let texts = task.judged.queries.iter().map(|query| Ok(query.text.clone()));
        let mut vectors = Vec::new();
        let survey = Survey::of_queries(task);
        let notes = self.encode(task, &survey, texts, String::clone, |_, vector| {
            vectors.push(vector);
            Ok(())
        })?;
        Ok((vectors, notes))
    }

    /// Encodes the corpus of a task as a stream. Calls `keep` with each document and its vectors. The texts of the notes are
    /// passages where documents are split.
    pub(super) fn documents(
        &self,
        task: &Task,
        survey: &Survey,
        mut keep: impl FnMut(Document, Vectors) -> Result<()>,
    ) -> Result<Notes> {
        let documents = task.data.documents().map(|document| Ok(document?));
        match &self.passages {
            None => {
                self.encode(task, survey, documents, text_of, |document, vector| keep(document, Vectors::Whole(vector)))
            }
            Some((_, splitter)) => {
                let pieces = pieces(splitter, documents, text_of);
                self.encode(task, survey, pieces, |piece| piece.text.clone(), gathered(keep))
            }
        }
    }

    /// Encodes texts, or takes their vectors from the cache.
    fn encode<T>(
        &self,
        task: &Task,
        survey: &Survey,
        items: impl Iterator<Item = Result<T>>,
        text: impl Fn(&T) -> String,
        mut keep: impl FnMut(T, SparseVector) -> Result<()>,
    ) -> Result<Notes> {
        let name = &task.data.identity.name;
        let key =
            fingerprint("splade encoded texts 1", &[("encoder", &self.fingerprint), ("texts", &survey.fingerprint)]);
        if let Some((texts, notes)) = self.open_cached(&key, survey) {
            tracing::info!("{name}: {} {} vectors are from the cache", texts.len(), self.role);
            let mut vectors = texts.vectors()?;
            for item in items {
                interrupt::check()?;
                let vector = vectors.next().context(CHANGED)??;
                keep(item?, vector)?;
            }
            anyhow::ensure!(vectors.next().is_none(), CHANGED);
            return Ok(notes);
        }
        let (encoder, backend) = self.encoder()?;
        let mut notes = Notes { dimensions: encoder.dimensions(), backend: backend.clone(), ..Notes::default() };
        let (mut writer, mut watch) = (self.create_cached(&key), Watch::<SparseVector>::default());
        encode_stream(encoder.as_ref(), items, &text, |item, vector| {
            interrupt::check()?;
            let text = text(&item);
            notes.empty += u64::from(text.trim().is_empty());
            notes.truncated += u64::from(self.truncates(&text)?);
            watch.add_sparse(&text, &vector, notes.dimensions);
            writer = append(writer.take(), &vector);
            keep(item, vector)
        })?;
        if let Some(sign) = watch.sign().filter(|_| self.watched) {
            let hint = "is it a trained sparse encoder, and is --mlm-head right? `splade encode` and `splade inspect` show its \
                        vectors";
            return Err(broken(name, self.role, sign, hint));
        }
        finish(writer, &notes);
        Ok(notes)
    }

    fn truncates(&self, text: &str) -> Result<bool> {
        self.lengths.as_ref().map_or(Ok(false), |lengths| lengths.truncates(text))
    }

    fn open_cached(&self, key: &str, survey: &Survey) -> Option<(EncodedTexts<SparseVector>, Notes)> {
        let found = if self.fingerprint.is_empty() { None } else { self.cache.open(key) };
        // documents that are split have a vector for each passage
        let is_split = self.passages.is_some();
        found.filter(|(texts, _)| texts.len() == survey.count || is_split && texts.len() > survey.count)
    }

    fn create_cached(&self, key: &str) -> Option<EncodedWriter<SparseVector>> {
        if self.fingerprint.is_empty() { None } else { self.cache.create(key) }
    }
}

/// Error of vectors that mean nothing. `what` names them, `sign` is that of [`Watch::sign`].
pub(super) fn broken(task: &str, what: &str, sign: &str, hint: &str) -> anyhow::Error {
    bad_input(format!("{task}: the {what} vectors {sign}, so a score would mean nothing"), hint)
}

/// Text of a document as it is encoded.
fn text_of(document: &Document) -> String {
    document.full_text().trim().to_owned()
}

/// Number and fingerprint of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) count: u64,
    pub(crate) fingerprint: String,
}

impl Survey {
    /// Reads the corpus of a task once. `check_id` may refuse the id of a document.
    pub(crate) fn of_corpus(task: &Task, check_id: impl Fn(&str) -> Result<()>) -> Result<Self> {
        let mut digest = TextDigest::default();
        for document in task.data.documents() {
            interrupt::check()?;
            let document = document?;
            check_id(&document.id)?;
            digest.add(&document.id, &text_of(&document));
        }
        Ok(digest.finish())
    }

    /// Number and fingerprint of the judged queries of a task.
    pub(super) fn of_queries(task: &Task) -> Self {
        let mut digest = TextDigest::default();
        task.judged.queries.iter().for_each(|query| digest.add(&query.id, &query.text));
        digest.finish()
    }
}

/// Fingerprint of the ids and texts of queries, whatever their order.
pub(crate) fn fingerprint_of_queries<'q>(queries: impl IntoIterator<Item = &'q Query>) -> String {
    let mut texts: Vec<(&str, &str)> = queries.into_iter().map(|query| (&*query.id, &*query.text)).collect();
    texts.sort_unstable();
    let mut digest = TextDigest::default();
    texts.into_iter().for_each(|(id, text)| digest.add(id, text));
    digest.finish().fingerprint
}

#[derive(Default)]
struct TextDigest {
    count: u64,
    digest: Sha256,
}

impl TextDigest {
    fn add(&mut self, id: &str, text: &str) {
        self.count += 1;
        for part in [id, text] {
            self.digest.update((part.len() as u64).to_le_bytes());
            self.digest.update(part);
        }
    }

    fn finish(self) -> Survey {
        Survey { count: self.count, fingerprint: hex(&self.digest.finalize()) }
    }
}

/// Encoder for BM25 alone, which needs no vectors: every vector is empty.
struct NoVectors(usize);

impl Encoder for NoVectors {
    fn dimensions(&self) -> usize {
        self.0
    }

    fn encode(&self, texts: &[&str]) -> splade_core::Result<Vec<SparseVector>> {
        Ok(vec![SparseVector::default(); texts.len()])
    }
}
