//! [`Documents`]: the network of documents on a thread of its own, which encodes the texts of several requests together.

use std::sync::Arc;

use anyhow::Result;
use splade_core::{DocumentEncoder, Encoder, SparseVector, Vocabulary};
use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::problem::{Answered, Problem};

/// Requests that wait for the network.
const WAITING: usize = 64;
/// Bytes of texts that are encoded together, about: some batches of the network, so that a request waits for few others.
const BYTES_AT_ONCE: usize = 16 << 10;

/// Texts of a request and the place of their vectors.
struct Job {
    texts: Vec<String>,
    reply: oneshot::Sender<Result<Vec<SparseVector>>>,
}

/// Sender of texts to the thread that encodes documents.
pub(crate) struct Documents {
    jobs: mpsc::Sender<Job>,
    /// without a maximum length
    vocabulary: Vocabulary,
    max_length: usize,
}

impl Documents {
    /// Starts the thread.
    ///
    /// # Errors
    /// A thread that cannot be started, a tokenizer that cannot be built without truncation.
    pub(crate) fn start(encoder: DocumentEncoder, metrics: Arc<Metrics>) -> Result<Self> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let max_length = encoder.vocabulary().max_length();
        let vocabulary = encoder.vocabulary().with_max_length(usize::MAX)?;
        std::thread::Builder::new().name("documents".into()).spawn(move || encode_all(&encoder, waiting, &metrics))?;
        Ok(Self { jobs, vocabulary, max_length })
    }

    /// Most tokens of a text that the network reads; longer ones are truncated.
    pub(crate) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Number of tokens of a text.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(self.vocabulary.tokenize_for_network(text)?.len())
    }

    /// Encodes texts, in their order.
    ///
    /// # Errors
    /// 429 where too many requests wait; a network that fails.
    pub(crate) async fn encode(&self, texts: Vec<String>) -> Answered<Vec<SparseVector>> {
        let (reply, vectors) = oneshot::channel();
        let sent = self.jobs.try_send(Job { texts, reply });
        sent.map_err(|_| Problem::too_many("many documents wait for the network: try again later"))?;
        match vectors.await {
            Ok(vectors) => Ok(vectors?),
            Err(_) => Err(Problem::unavailable("the server stops")),
        }
    }
}

/// Encodes the texts of all jobs, until there is no sender any more.
fn encode_all(encoder: &DocumentEncoder, mut waiting: mpsc::Receiver<Job>, metrics: &Metrics) {
    while let Some(first) = waiting.blocking_recv() {
        let mut jobs = vec![first];
        let bytes = |jobs: &[Job]| jobs.iter().flat_map(|job| &job.texts).map(String::len).sum::<usize>();
        while bytes(&jobs) < BYTES_AT_ONCE {
            match waiting.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        // a request that has ended needs no vectors
        jobs.retain(|job| !job.reply.is_closed());
        encode_together(encoder, jobs, metrics);
    }
}

fn encode_together(encoder: &DocumentEncoder, mut jobs: Vec<Job>, metrics: &Metrics) {
    let texts: Vec<&str> = jobs.iter().flat_map(|job| &job.texts).map(String::as_str).collect();
    // the thread outlives a library that panics
    let encoded = splade_core::guarded(|| encoder.encode(&texts));
    match encoded.unwrap_or_else(|panic| Err(splade_core::Error::Encoder(panic.into()))) {
        Ok(vectors) => {
            metrics.encoded(texts.len());
            let mut vectors = vectors.into_iter();
            for Job { texts, reply } in jobs {
                // fails if the request has ended
                let _ = reply.send(Ok(vectors.by_ref().take(texts.len()).collect()));
            }
        }
        // one text may be at fault: the others are encoded without it
        Err(_) if jobs.len() > 1 => jobs.into_iter().for_each(|job| encode_together(encoder, vec![job], metrics)),
        Err(error) => {
            if let Some(Job { reply, .. }) = jobs.pop() {
                let _ = reply.send(Err(error.into()));
            }
        }
    }
}
