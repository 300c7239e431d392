//! [`Documents`]: the network of documents on a thread of its own, which encodes the texts of several requests together.

use std::sync::Arc;

use anyhow::Result;
use splade_core::{DocumentEncoder, PassageLength, SparseVector, Vocabulary};
use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::problem::{Answered, Problem};
use crate::dense::DenseModel;
use crate::documents::{Encoded, Encoders};

/// Requests that wait for the network.
const WAITING: usize = 64;
/// Bytes of texts that are encoded together, about: some batches of the network, so that a request waits for few others.
const BYTES_AT_ONCE: usize = 16 << 10;

/// Vectors that the documents of an index need.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// false if the documents have sparse vectors already
    pub(crate) sparse: bool,
    /// length of passages; none if documents are not split
    pub(crate) passages: Option<PassageLength>,
    /// none without dense vectors
    pub(crate) dense: Option<Arc<DenseModel>>,
}

impl Wanted {
    /// Sparse vectors of whole texts.
    const WHOLE: Self = Self { sparse: true, passages: None, dense: None };

    /// True if texts of both can be encoded together.
    fn is_same(&self, other: &Self) -> bool {
        let dense = |wanted: &Self| wanted.dense.as_ref().map(Arc::as_ptr);
        (self.sparse, self.passages, dense(self)) == (other.sparse, other.passages, dense(other))
    }
}

/// Texts of a request and the place of their vectors.
struct Job {
    texts: Vec<String>,
    wanted: Wanted,
    reply: oneshot::Sender<Result<Vec<Encoded>>>,
}

/// Sender of texts to the thread that encodes documents.
pub(crate) struct Documents {
    jobs: mpsc::Sender<Job>,
    encoder: Arc<DocumentEncoder>,
    /// without a maximum length
    vocabulary: Vocabulary,
}

impl Documents {
    /// Starts the thread.
    ///
    /// # Errors
    /// A thread that cannot be started, a tokenizer that cannot be built without truncation.
    pub(crate) fn start(encoder: DocumentEncoder, metrics: Arc<Metrics>) -> Result<Self> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let vocabulary = encoder.vocabulary().with_max_length(usize::MAX)?;
        let encoder = Arc::new(encoder);
        let shared = Arc::clone(&encoder);
        std::thread::Builder::new().name("documents".into()).spawn(move || encode_all(&shared, waiting, &metrics))?;
        Ok(Self { jobs, encoder, vocabulary })
    }

    /// Refuses passages that the network would truncate.
    ///
    /// # Errors
    /// Passages of too many tokens, or too few.
    pub(crate) fn expect_passages(&self, length: PassageLength) -> Result<()> {
        self.encoder.passage_splitter(length)?;
        Ok(())
    }

    /// Most tokens of a text that the network reads; longer ones are truncated.
    pub(crate) fn max_length(&self) -> usize {
        self.encoder.vocabulary().max_length()
    }

    /// Number of tokens of a text.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(self.vocabulary.tokenize_for_network(text)?.len())
    }

    /// Encodes whole texts, in their order.
    ///
    /// # Errors
    /// Those of [`encode_as`](Self::encode_as).
    pub(crate) async fn encode(&self, texts: Vec<String>) -> Answered<Vec<SparseVector>> {
        let encoded = self.encode_as(Wanted::WHOLE, texts).await?;
        Ok(encoded.into_iter().map(|encoded| encoded.into_whole().unwrap_or_default()).collect())
    }

    /// Encodes texts to the vectors that are wanted, in their order.
    ///
    /// # Errors
    /// 429 where too many requests wait; a network that fails.
    pub(crate) async fn encode_as(&self, wanted: Wanted, texts: Vec<String>) -> Answered<Vec<Encoded>> {
        let (reply, vectors) = oneshot::channel();
        let sent = self.jobs.try_send(Job { texts, wanted, reply });
        sent.map_err(|_| Problem::too_many("many documents wait for the network: try again later"))?;
        match vectors.await {
            Ok(vectors) => Ok(vectors?),
            Err(_) => Err(Problem::unavailable("the server stops")),
        }
    }
}

/// Encodes the texts of all jobs, until there is no sender any more.
fn encode_all(encoder: &DocumentEncoder, mut waiting: mpsc::Receiver<Job>, metrics: &Metrics) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| waiting.blocking_recv()) {
        let mut jobs = vec![first];
        let bytes = |jobs: &[Job]| jobs.iter().flat_map(|job| &job.texts).map(String::len).sum::<usize>();
        while bytes(&jobs) < BYTES_AT_ONCE {
            match waiting.try_recv() {
                Ok(job) if job.wanted.is_same(&jobs[0].wanted) => jobs.push(job),
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        // a request that has ended needs no vectors
        jobs.retain(|job| !job.reply.is_closed());
        encode_together(encoder, jobs, metrics);
    }
}

fn encode_together(encoder: &DocumentEncoder, mut jobs: Vec<Job>, metrics: &Metrics) {
    // the thread outlives a library that panics
    let encoded = splade_core::guarded(|| encode_jobs(encoder, &jobs));
    match encoded.unwrap_or_else(|panic| Err(splade_core::Error::Encoder(panic.into()).into())) {
        Ok(vectors) => {
            metrics.encoded(vectors.len());
            let mut vectors = vectors.into_iter();
            for Job { texts, reply, .. } in jobs {
                // fails if the request has ended
                let _ = reply.send(Ok(vectors.by_ref().take(texts.len()).collect()));
            }
        }
        // one text may be at fault: the others are encoded without it
        Err(_) if jobs.len() > 1 => jobs.into_iter().for_each(|job| encode_together(encoder, vec![job], metrics)),
        Err(error) => {
            if let Some(Job { reply, .. }) = jobs.pop() {
                let _ = reply.send(Err(error));
            }
        }
    }
}

/// Vectors of the texts of jobs that want the same.
fn encode_jobs(encoder: &DocumentEncoder, jobs: &[Job]) -> Result<Vec<Encoded>> {
    let Some(Job { wanted, .. }) = jobs.first() else { return Ok(Vec::new()) };
    let encoders = Encoders {
        sparse: wanted.sparse.then_some(encoder),
        dense: wanted.dense.as_deref(),
        passages: wanted.passages,
    };
    let mut vectors = Vec::new();
    let texts = jobs.iter().flat_map(|job| &job.texts).map(Ok);
    encoders.encode(
        texts,
        |text| String::clone(text),
        |_, encoded| {
            vectors.push(encoded);
            Ok(())
        },
    )?;
    Ok(vectors)
}
