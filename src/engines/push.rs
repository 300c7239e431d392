//! [`push`]: the documents of a source into a collection.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use splade_core::SparseVector;
use splade_index::{FieldSpec, StoredDocument};

use super::batches::Batches;
use super::limits::{Changes, Fit};
use super::manifest::hex;
use super::prepare::prepare;
use super::retry::Retries;
use super::words::WordVectors;
use super::{CollectionManifest, Engine, ItemFailure, Record, Source};
use crate::commands::interrupt;
use crate::console;
use crate::failure::{Failure, bad_input};

/// Bytes of a request, about, unless a flag says otherwise: as engines recommend for bulk requests.
pub(crate) const DEFAULT_BATCH_BYTES: usize = 8_000_000;
/// Requests at the same time, unless a flag says otherwise.
pub(crate) const DEFAULT_CONCURRENCY: usize = 4;
/// Most documents of a batch, whatever their size.
const BATCH_DOCUMENTS: usize = 1000;
/// Ids that are deleted in one request.
const DELETED_AT_ONCE: usize = 1000;
/// Bytes of a digest that are kept.
const DIGEST_BYTES: usize = 16;

/// Settings of a push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushOptions {
    /// update documents that differ, and delete those that the source does not have
    pub(crate) sync: bool,
    /// remove an existing collection first
    pub(crate) overwrite: bool,
    /// bytes of a request, about
    pub(crate) batch_bytes: usize,
    /// requests at the same time
    pub(crate) concurrency: usize,
    /// attempts of each request
    pub(crate) retries: Retries,
}

impl Default for PushOptions {
    fn default() -> Self {
        let (batch_bytes, concurrency) = (DEFAULT_BATCH_BYTES, DEFAULT_CONCURRENCY);
        Self { sync: false, overwrite: false, batch_bytes, concurrency, retries: Retries::default() }
    }
}

/// Numbers of a push.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    /// manifest of the collection
    pub(crate) manifest: CollectionManifest,
    /// documents that were sent and taken
    pub(crate) sent: u64,
    /// documents that the collection had already, unchanged
    pub(crate) unchanged: u64,
    /// documents that were deleted
    pub(crate) deleted: u64,
    /// documents of the collection at the end
    pub(crate) documents: u64,
    /// changes of the documents of the source, sent or not
    pub(crate) changes: Changes,
    /// seconds of sending
    pub(crate) seconds: f64,
}

/// Sends the documents of `source` into the collection of `engine`, which is created if it is not there. In an existing
/// collection of the same model, documents that are there already and have not changed are not sent again.
///
/// # Errors
/// A collection that is not of this program or of another model, changed documents without `sync`, documents that the engine
/// refuses, an engine that stays unreachable, a signal.
pub(crate) fn push(
    engine: &dyn Engine,
    source: &Source,
    manifest: CollectionManifest,
    options: &PushOptions,
) -> Result<Pushed> {
    let (manifest, is_new) = prepare(engine, source, manifest, options)?;
    let start = Instant::now();
    let run = Run::new(engine, options, &manifest, is_new, source)?;
    let (seen, changes) = run.send_all(source)?;
    let deleted = if options.sync && !is_new { run.delete_others(&seen)? } else { 0 };
    options.retries.run(|| engine.settle())?;
    run.bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let documents = options.retries.run(|| engine.state())?.map_or(0, |collection| collection.n_docs);
    run.expect_none_refused()?;
    let expected = seen.len() as u64 - if run.keeps_empty { 0 } else { changes.empty_vectors };
    expect_count(engine, options, documents, expected)?;
    let (sent, unchanged) = (run.sent.into_inner(), run.unchanged.into_inner());
    Ok(Pushed { manifest, sent, unchanged, deleted, documents, changes, seconds })
}

/// Warns of documents of others, and refuses fewer documents than were sent.
fn expect_count(engine: &dyn Engine, options: &PushOptions, documents: u64, expected: u64) -> Result<()> {
    let place = engine.place();
    if documents > expected && !options.sync {
        let others = documents - expected;
        tracing::warn!("{place}: {others} of its documents are not in the source; --sync deletes them");
    } else if documents < expected {
        let message = format!("{place}: it has {documents} documents after {expected} were sent");
        return Err(Failure::run(message, "run the same command again: it sends those that are missing").into());
    }
    Ok(())
}

/// Ids of documents, by their hash.
type Seen = HashSet<[u8; 16]>;

/// State of a push that its threads share.
struct Run<'a> {
    engine: &'a dyn Engine,
    options: &'a PushOptions,
    /// true if this push made the collection
    is_new: bool,
    fields: &'a [FieldSpec],
    fit: Fit,
    /// none for collections without vectors of words
    words: Option<WordVectors>,
    keeps_empty: bool,
    bar: ProgressBar,
    sent: AtomicU64,
    unchanged: AtomicU64,
    /// true after an error: the other threads end too
    stopped: AtomicBool,
    refused: Mutex<Vec<ItemFailure>>,
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a dyn Engine,
        options: &'a PushOptions,
        manifest: &'a CollectionManifest,
        is_new: bool,
        source: &Source,
    ) -> Result<Self> {
        Ok(Self {
            engine,
            options,
            is_new,
            fields: &manifest.fields,
            fit: Fit::new(engine.limits(), manifest),
            words: WordVectors::of(manifest)?,
            keeps_empty: engine.limits().empty_vectors,
            bar: console::progress("pushing", source.count()),
            sent: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            refused: Mutex::default(),
        })
    }
}

impl Run<'_> {
    /// Sends what is missing on several threads. Reading is done by one thread at a time, while the others wait for the engine.
    fn send_all(&self, source: &Source) -> Result<(Seen, Changes)> {
        let (mut seen, mut changes) = (Seen::new(), Changes::default());
        let mut first_error = None;
        {
            let records = source.documents()?.filter_map(|found| {
                let record = found.and_then(|(document, vector)| {
                    if !seen.insert(hash(&document.id)) {
                        return Err(bad_input(format!("the id {:?} occurs twice", document.id), ""));
                    }
                    self.record(document, &vector, &mut changes)
                });
                record.map(|record| record.filter(|record| self.keeps_empty || !record.vector.is_empty())).transpose()
            });
            let batches = Mutex::new(Batches::new(records, BATCH_DOCUMENTS, self.options.batch_bytes));
            let errors = Mutex::new(&mut first_error);
            std::thread::scope(|scope| {
                for _ in 0..self.options.concurrency.max(1) {
                    scope.spawn(|| {
                        if let Err(error) = self.send_batches(&batches) {
                            self.stopped.store(true, Ordering::Relaxed);
                            unpoisoned(&errors).get_or_insert(error);
                        }
                    });
                }
            });
        }
        match first_error {
            Some(error) => Err(error),
            None => Ok((seen, changes)),
        }
    }

    fn send_batches(&self, batches: &Mutex<impl Iterator<Item = Result<Vec<Record>>>>) -> Result<()> {
        loop {
            interrupt::check()?;
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            let batch = unpoisoned(batches).next();
            match batch.transpose()? {
                Some(batch) => self.send(batch)?,
                None => return Ok(()),
            }
        }
    }

    /// Sends those of a batch that the collection does not have.
    fn send(&self, batch: Vec<Record>) -> Result<()> {
        let n_records = batch.len() as u64;
        let missing = if self.is_new { batch } else { self.missing(batch)? };
        self.unchanged.fetch_add(n_records - missing.len() as u64, Ordering::Relaxed);
        let n_missing = missing.len() as u64;
        let refused = self.options.retries.upsert(self.engine, missing)?;
        self.sent.fetch_add(n_missing - refused.len() as u64, Ordering::Relaxed);
        unpoisoned(&self.refused).extend(refused);
        self.bar.inc(n_records);
        Ok(())
    }

    /// The records that the collection does not have as they are.
    fn missing(&self, mut batch: Vec<Record>) -> Result<Vec<Record>> {
        let ids: Vec<String> = batch.iter().map(|record| record.id.clone()).collect();
        let digests: HashMap<String, String> = self.options.retries.run(|| self.engine.digests(&ids))?;
        let is_equal = |record: &Record| digests.get(&record.id) == Some(&record.digest);
        batch.retain(|record| !is_equal(record));
        match batch.iter().find(|record| digests.contains_key(&record.id)) {
            Some(changed) if !self.options.sync => Err(bad_input(
                format!("{}: document {:?} differs from that of the source", self.engine.place(), changed.id),
                "update it and all others that differ with --sync",
            )),
            _ => Ok(batch),
        }
    }

    /// A document as it is sent. Counts what was changed.
    fn record(&self, document: StoredDocument, vector: &SparseVector, changes: &mut Changes) -> Result<Option<Record>> {
        let digest = digest(&document, vector);
        let StoredDocument { id, title, text, other: mut fields } = document;
        for field in self.fields {
            changes.field_values += u64::from(!field.convert(&id, &mut fields)?);
        }
        let vector = self.fit.document(vector, changes);
        let words = self.words.as_ref().map(|words| words.document(title.as_deref(), &text));
        Ok(Some(Record { id, title, text, fields, vector, words, digest }))
    }

    /// Deletes the documents of the collection that are not in the source. Returns their number.
    fn delete_others(&self, seen: &Seen) -> Result<u64> {
        let mut others = Vec::new();
        let mut after = None;
        loop {
            interrupt::check()?;
            let page = self.options.retries.run(|| self.engine.ids(after.as_ref()))?;
            others.extend(page.ids.into_iter().filter(|id| !seen.contains(&hash(id))));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for ids in others.chunks(DELETED_AT_ONCE) {
            self.options.retries.run(|| self.engine.delete(ids))?;
        }
        Ok(others.len() as u64)
    }

    fn expect_none_refused(&self) -> Result<()> {
        let refused = unpoisoned(&self.refused);
        let Some(first) = refused.first() else { return Ok(()) };
        let others = match refused.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} more"),
        };
        let message = format!("{}: document {} was refused{others}: {}", self.engine.place(), first.id, first.message);
        Err(Failure::run(message, "all other documents are in the collection").into())
    }
}

/// The content of a lock, which a thread that panicked may have held.
fn unpoisoned<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hash of an id. Two ids have the same one by chance in 2^64 pairs.
fn hash(id: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(id)[..16]);
    hash
}

/// Digest of everything that is sent of a document, before it is fitted to an engine.
fn digest(document: &StoredDocument, vector: &SparseVector) -> String {
    let mut hasher = Sha256::new();
    let fields = serde_json::to_string(&document.other).unwrap_or_default();
    for text in [document.title.as_deref().unwrap_or_default(), &document.text, &fields] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hasher.update([u8::from(document.title.is_some())]);
    for (dim, weight) in vector.iter() {
        hasher.update(dim.to_le_bytes());
        hasher.update(weight.to_le_bytes());
    }
    hex(&hasher.finalize()[..DIGEST_BYTES])
}

impl Record {
    /// Bytes that the record takes in a request, about.
    pub(super) fn size(&self) -> usize {
        /// of a dimension and its weight as JSON
        const ENTRY: usize = 20;
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + size_of_json(value)).sum();
        let title = self.title.as_ref().map_or(0, String::len);
        let entries = self.vector.active_dims() + self.words.as_ref().map_or(0, SparseVector::active_dims);
        self.id.len() + title + self.text.len() + fields + entries * ENTRY + 200
    }
}

/// Bytes of a value as JSON, about.
fn size_of_json(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len() + 8,
        serde_json::Value::Array(values) => values.iter().map(size_of_json).sum::<usize>() + 8,
        serde_json::Value::Object(map) => {
            map.iter().map(|(name, value)| name.len() + size_of_json(value) + 8).sum::<usize>()
        }
        _ => 24,
    }
}
