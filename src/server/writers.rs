//! [`Writers`]: one thread for each index that writes the changes of several requests in one commit.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result};
use splade_index::{ImpactWriter, WriterOptions};
use tokio::sync::oneshot;

use super::catalog::{Catalog, Served};
use super::documents::Documents;
use super::metrics::Metrics;
use super::problem::{Answered, Problem};
use crate::cli::NetworkArgs;
use crate::documents::Row;
use crate::failure::bad_input;

/// Requests that wait for a commit.
const WAITING: usize = 256;
/// Documents of a commit, about.
const DOCUMENTS_AT_ONCE: usize = 4096;
/// Time without changes after which the writer is closed, so that other processes may write.
const IDLE: Duration = Duration::from_secs(1);

/// Documents to add and ids to delete.
pub(crate) struct Change {
    pub(crate) documents: Vec<Row>,
    pub(crate) delete: Vec<String>,
}

/// A change and the place of its answer: the number of documents after it.
struct Job {
    change: Change,
    reply: oneshot::Sender<Answered<usize>>,
}

/// Senders of changes to the threads that write.
pub(crate) struct Writers {
    jobs: HashMap<String, SyncSender<Job>>,
}

impl Writers {
    /// Starts the threads.
    ///
    /// # Errors
    /// An index whose documents the server cannot encode: with dense vectors but without the models, with passages that the
    /// network would truncate, with vectors of another precision.
    pub(crate) fn start(
        catalog: &Arc<Catalog>,
        documents: Option<&Documents>,
        metrics: &Arc<Metrics>,
        network: &NetworkArgs,
    ) -> Result<Self> {
        let mut jobs = HashMap::new();
        for served in catalog.all() {
            expect_writable(&served, documents, network)?;
            let (sender, receiver) = sync_channel(WAITING);
            let thread =
                Thread { name: served.name.clone(), catalog: Arc::clone(catalog), metrics: Arc::clone(metrics) };
            std::thread::Builder::new().name("writer".into()).spawn(move || thread.write_all(&receiver))?;
            jobs.insert(served.name.clone(), sender);
        }
        Ok(Self { jobs })
    }

    /// Makes a change durable and visible. Returns the number of documents after it.
    ///
    /// # Errors
    /// 429 where too many changes wait, 503 where another process writes, a document that the index refuses.
    pub(crate) async fn write(&self, index: &str, change: Change) -> Answered<usize> {
        let (reply, answer) = oneshot::channel();
        let full = || Problem::too_many("many changes wait for the index: try again later");
        let jobs = self.jobs.get(index).ok_or_else(full)?;
        jobs.try_send(Job { change, reply }).map_err(|_| full())?;
        answer.await.unwrap_or_else(|_| Err(Problem::unavailable("the server stops")))
    }
}

/// Refuses an index whose documents the server cannot encode.
fn expect_writable(served: &Served, documents: Option<&Documents>, network: &NetworkArgs) -> Result<()> {
    let settings = served.index.settings();
    let dir = served.index.dir().display();
    if settings.dense.is_some() && (served.dense_documents.is_none() || documents.is_none()) {
        return Err(bad_input(
            format!("--writable: {dir}: its documents have dense vectors"),
            "give the models that it was made with: --model MODEL --dense MODEL",
        ));
    }
    if let (Some(length), Some(documents)) = (settings.passages, documents) {
        documents.expect_passages(length).with_context(|| format!("--writable: {dir}"))?;
    }
    let precision = splade_files::Precision::from(network.precision).to_string();
    match &settings.encoder_precision {
        Some(old) if *old != precision => Err(bad_input(
            format!("--writable: {dir}: its documents were encoded in {old}, not in {precision}"),
            format!("use --precision {old}"),
        )),
        _ => Ok(()),
    }
}

/// Thread that writes to an index.
struct Thread {
    name: String,
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
}

impl Thread {
    /// Writes all changes, until there is no sender any more.
    fn write_all(&self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            match self.catalog.get(Some(&self.name)) {
                // the thread outlives a library that panics; the changes that it had are not answered with success
                Ok(served) => {
                    if let Err(panic) = splade_core::guarded(|| self.write_some(&served, first, jobs)) {
                        tracing::error!("{}: writing failed: {panic}", self.name);
                    }
                }
                Err(problem) => answer(first, Err(problem)),
            }
        }
    }

    /// Writes changes as long as one follows the other, with one writer.
    fn write_some(&self, served: &Served, first: Job, jobs: &Receiver<Job>) {
        let folder = identity(served.index.dir());
        let mut writer = None;
        let mut next = Some(first);
        while let Some(first) = next.take() {
            let batch = batch(first, jobs);
            if identity(served.index.dir()) != folder {
                // the folder was replaced: its files are not those of this writer
                let replaced = || Err(Problem::unavailable("the index is being replaced: try again later"));
                batch.into_iter().for_each(|job| answer(job, replaced()));
                break;
            }
            writer = self.write_batch(served, writer, batch);
            next = jobs.recv_timeout(IDLE).ok();
        }
        if let Some(Err(error)) = writer.map(ImpactWriter::finish) {
            tracing::error!("{}: merging failed: {error}", self.name);
        }
    }

    /// Writes changes in one commit and answers them. Returns the writer if it can be used further.
    fn write_batch(&self, served: &Served, writer: Option<ImpactWriter>, mut batch: Vec<Job>) -> Option<ImpactWriter> {
        let mut open = writer;
        while !batch.is_empty() {
            let mut writer = match open.take().map_or_else(|| served.index.writer(WriterOptions::default()), Ok) {
                Ok(writer) => writer,
                Err(error) => {
                    let problem = Problem::of(&error.into());
                    batch.into_iter().for_each(|job| answer(job, Err(problem.clone())));
                    return None;
                }
            };
            match apply(&mut writer, &batch) {
                Ok(()) => return self.commit(served, writer, batch),
                // dropping the writer removes what it added: the others are added again
                Err((at, error)) => answer(batch.remove(at), Err(Problem::of(&error.into()))),
            }
        }
        open
    }

    fn commit(&self, served: &Served, mut writer: ImpactWriter, batch: Vec<Job>) -> Option<ImpactWriter> {
        match writer.commit().map_err(anyhow::Error::from).and_then(|()| self.refresh(served)) {
            Ok(documents) => {
                self.metrics.opened(&self.name, documents);
                for job in batch {
                    let Change { documents: added, delete } = &job.change;
                    self.metrics.written(&self.name, added.len() as u64, delete.len() as u64);
                    answer(job, Ok(documents));
                }
                Some(writer)
            }
            Err(error) => {
                let problem = Problem::of(&error);
                batch.into_iter().for_each(|job| answer(job, Err(problem.clone())));
                None
            }
        }
    }
}

impl Thread {
    /// Opens a snapshot of the commit, in an index that was opened anew meanwhile too. Returns its number of documents.
    fn refresh(&self, served: &Served) -> Result<usize> {
        served.refresh()?;
        if let Ok(current) = self.catalog.get(Some(&self.name)) {
            current.refresh()?;
        }
        Ok(served.searcher().len())
    }
}

/// The first job and those that wait, up to a number of documents.
fn batch(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut n_documents = first.change.documents.len();
    let mut batch = vec![first];
    while n_documents < DOCUMENTS_AT_ONCE {
        match jobs.try_recv() {
            Ok(job) => {
                n_documents += job.change.documents.len();
                batch.push(job);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    batch
}

/// Adds and deletes the documents of all jobs, in their order. An error has the position of its job.
fn apply(writer: &mut ImpactWriter, batch: &[Job]) -> Result<(), (usize, splade_index::Error)> {
    for (at, job) in batch.iter().enumerate() {
        job.change.delete.iter().for_each(|id| writer.delete(id));
        job.change.documents.iter().try_for_each(|row| row.update(writer)).map_err(|error| (at, error))?;
    }
    Ok(())
}

fn answer(job: Job, result: Answered<usize>) {
    // fails if the request has ended
    let _ = job.reply.send(result);
}

/// Number that tells a folder from one that took its place; none where the system has no such number.
#[cfg(unix)]
fn identity(folder: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::metadata(folder).ok()?.ino())
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<u64> {
    None
}
