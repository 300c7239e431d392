//! [`TokensAhead`]: threads that tokenize the texts of the next batches while a step runs.
//!
//! A text is tokenized in one way only, so a run has the same numbers with and without these threads. A text that is not
//! ready when its step begins is tokenized there. Tokens are kept until the step after: a batch that is encoded in pieces
//! reads each text twice.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, available_parallelism};

use splade_core::Vocabulary;

/// Token ids that are ready, by their text.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadyTokens(Arc<Mutex<HashMap<String, Prepared>>>);

/// A text that a batch needs.
#[derive(Debug)]
struct Prepared {
    /// number of the last batch that needs it
    batch: usize,
    /// none before a thread has read it
    tokens: Option<Vec<u32>>,
}

impl ReadyTokens {
    /// The tokens of a text if they are ready.
    pub(crate) fn get(&self, text: &str) -> Option<Vec<u32>> {
        self.lock().get(text)?.tokens.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Prepared>> {
        // a map of whole entries is never left half-written
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a batch needs a text; returns false if it is known already.
    fn expect(&self, text: &str, batch: usize) -> bool {
        let mut prepared = self.lock();
        if let Some(known) = prepared.get_mut(text) {
            known.batch = batch;
            return false;
        }
        prepared.insert(text.to_owned(), Prepared { batch, tokens: None });
        true
    }

    /// True if a batch still needs this text and nobody has read it.
    fn is_expected(&self, text: &str) -> bool {
        self.lock().get(text).is_some_and(|known| known.tokens.is_none())
    }

    fn fill(&self, text: &str, tokens: Vec<u32>) {
        // a text whose batch is over is not kept
        if let Some(known) = self.lock().get_mut(text) {
            known.tokens = Some(tokens);
        }
    }

    /// Forgets the texts of the batches before this one.
    fn forget_before(&self, batch: usize) {
        self.lock().retain(|_, known| known.batch >= batch);
    }
}

/// The threads, which end when this is dropped.
#[derive(Debug)]
pub(crate) struct TokensAhead {
    ready: ReadyTokens,
    texts: Option<Sender<String>>,
    threads: Vec<JoinHandle<()>>,
    /// batches that are prepared ahead, at most
    n_batches: usize,
    /// number of the first batch of the queue, counted from the start of this process
    front: usize,
    /// number of the first batch that is not prepared
    next: usize,
}

impl TokensAhead {
    /// Starts `n_threads` threads, at most one a processor, that tokenize `n_batches` ahead as `vocabulary` does.
    pub(crate) fn start(vocabulary: &Vocabulary, n_threads: usize, n_batches: usize) -> Self {
        let (texts, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let ready = ReadyTokens::default();
        let vocabulary = Arc::new(vocabulary.clone());
        let thread = |_| {
            let (vocabulary, receiver, ready) = (vocabulary.clone(), receiver.clone(), ready.clone());
            std::thread::Builder::new().spawn(move || work(&vocabulary, &receiver, &ready)).ok()
        };
        let n_threads = n_threads.min(available_parallelism().map_or(1, NonZero::get));
        Self {
            threads: (0..n_threads).filter_map(thread).collect(),
            ready,
            texts: Some(texts),
            n_batches,
            front: 0,
            next: 0,
        }
    }

    /// The tokens that are ready, for whoever needs them.
    pub(crate) fn ready(&self) -> ReadyTokens {
        self.ready.clone()
    }

    /// Begins a step over `n_taken` batches, which were the first of the queue, and prepares those that are left of it;
    /// the batches of the step before are forgotten.
    pub(crate) fn begin_step<T: IntoIterator<Item = String>>(
        &mut self,
        n_taken: usize,
        queue: impl IntoIterator<Item = T>,
    ) {
        self.ready.forget_before(self.front);
        self.front += n_taken;
        let n_known = self.next.saturating_sub(self.front);
        for (number, texts) in (self.front..).zip(queue).take(self.n_batches).skip(n_known) {
            texts.into_iter().for_each(|text| self.prepare(text, number));
            self.next = number + 1;
        }
    }

    fn prepare(&self, text: String, batch: usize) {
        if let Some(texts) = self.texts.as_ref().filter(|_| self.ready.expect(&text, batch)) {
            // without a thread that listens, the step tokenizes
            let _ = texts.send(text);
        }
    }
}

impl Drop for TokensAhead {
    fn drop(&mut self) {
        self.texts = None;
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn work(vocabulary: &Vocabulary, texts: &Mutex<Receiver<String>>, ready: &ReadyTokens) {
    loop {
        let text = texts.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(text) = text else { return };
        if !ready.is_expected(&text) {
            continue;
        }
        // an error is that of the step, which meets it too
        if let Ok(tokens) = vocabulary.tokenize_for_network(&text) {
            ready.fill(&text, tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models/bert-tiny/tokenizer.json");
        splade_files::read_vocabulary(std::path::Path::new(path), 16).unwrap()
    }

    /// The texts of batches `from..to`, of which each shares one with the batch before.
    fn batches(from: usize, to: usize) -> Vec<Vec<String>> {
        (from..to).map(|n| vec![format!("nummer {n} om en fjord"), format!("nummer {}", n / 2)]).collect()
    }

    #[test]
    fn tokens_of_the_next_batches_are_those_of_the_vocabulary() {
        let vocabulary = vocabulary();
        let mut ahead = TokensAhead::start(&vocabulary, 2, 10);
        let ready = ahead.ready();
        ahead.begin_step(1, batches(1, 40));
        // ends the threads, after all texts
        drop(ahead);
        for text in batches(1, 11).concat() {
            assert_eq!(ready.get(&text), Some(vocabulary.tokenize_for_network(&text).unwrap()));
        }
        assert_eq!(ready.get("nummer 11 om en fjord"), None, "not among the ten");
    }

    #[test]
    fn texts_are_kept_during_their_step_and_forgotten_after_it() {
        let vocabulary = vocabulary();
        let mut ahead = TokensAhead::start(&vocabulary, 1, 4);
        let ready = ahead.ready();
        for step in 0..50 {
            ahead.begin_step(2, batches(2 * step + 2, 102));
            let kept = ready.lock();
            // two batches of the step and four after it, also where no thread has been fast enough
            let expected = 2 * step..2 * step + 6;
            assert!(kept.values().all(|known| expected.contains(&known.batch)), "step {step}: {kept:?}");
            assert!(kept.contains_key(&format!("nummer {} om en fjord", (2 * step + 5).min(101))));
        }
        ahead.begin_step(2, batches(0, 0));
        ahead.begin_step(0, batches(0, 0));
        assert!(ready.lock().is_empty());
    }

    #[test]
    fn no_thread_is_no_error() {
        let mut ahead = TokensAhead::start(&vocabulary(), 0, usize::MAX);
        ahead.begin_step(1, batches(1, 3));
        assert_eq!(ahead.ready().get("nummer 1"), None);
    }
}
