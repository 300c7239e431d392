//! A bulk run: the documents of an input into an unfinished index beside the destination.
//!
//! The unfinished index is committed now and then with a [`Journal`] of how far the input was read. A command that ends before
//! the last document leaves it, and the next command with the same arguments continues there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use splade_core::segment::ForwardPrecision;
use splade_core::{DocumentEncoder, PassageLength, Pruning};
use splade_files::{AtomicFolder, ModelDir, ResumableFolder};
use splade_index::{Error, ImpactIndex, ImpactWriter, IndexSettings, WriteCounts, WriterOptions};

use super::input::{Item, read_items};
use super::journal::{Journal, expect_same, left_by_interrupted, options};
use crate::cli::IndexArgs;
use crate::commands::interrupt;
use crate::console;
use crate::dense::DenseModel;
use crate::digest::InputDigest;
use crate::documents::{Encoded, Encoders, Row};
use crate::failure::bad_input;
use crate::share::Share;

/// Longest time between two commits.
const TIME_PER_COMMIT: Duration = Duration::from_secs(60);
/// Advice where an unfinished run cannot be continued.
pub(super) const RESTART: &str = "give the arguments and the input of that run, or --restart to discard it";

/// Model, encoders and share of the documents of a bulk run.
pub(super) struct Sources<'a> {
    pub(super) model: &'a ModelDir,
    /// encoder of sparse vectors, and the name of its backend; none if the input has them
    pub(super) encoder: Option<(DocumentEncoder, &'static str)>,
    pub(super) dense: Option<&'a DenseModel>,
    /// none if all documents of the input are indexed
    pub(super) share: Option<Share>,
}

/// An index that is filled beside its destination.
pub(super) struct Unfinished {
    pub(super) index: ImpactIndex,
    pub(super) place: Place,
    journal: Journal,
    /// texts that this command truncated; none if it encoded no text
    pub(super) truncated: Option<u64>,
}

/// Folder of an unfinished index.
pub(super) enum Place {
    /// stays for the next command
    Resumable(ResumableFolder),
    /// removed when the command ends: an input from stdin cannot be read again
    Once(AtomicFolder),
}

impl Place {
    /// Puts the index in the place of its destination.
    pub(super) fn commit(self) -> Result<()> {
        match self {
            Self::Resumable(folder) => folder.commit()?,
            Self::Once(folder) => folder.commit()?,
        }
        Ok(())
    }

    pub(super) fn remove(self) -> Result<()> {
        match self {
            Self::Resumable(folder) => folder.remove()?,
            Self::Once(folder) => drop(folder),
        }
        Ok(())
    }

    /// Name of the run; none if it cannot be resumed.
    pub(super) fn run(&self) -> Option<&str> {
        match self {
            Self::Resumable(folder) => Some(folder.run()),
            Self::Once(_) => None,
        }
    }
}

/// Opens the place of an unfinished index.
pub(super) fn open_place(args: &IndexArgs) -> Result<Place> {
    let is_stdin = |path: &Option<_>| path.as_deref() == Some(Path::new("-"));
    if is_stdin(&args.input) || is_stdin(&args.vectors) {
        return Ok(Place::Once(AtomicFolder::create(args.index())?));
    }
    let mut folder = ResumableFolder::open(args.index())?;
    if args.restart {
        folder.restart()?;
    }
    Ok(Place::Resumable(folder))
}

impl Unfinished {
    /// Opens the index that an interrupted command with the same arguments left, else creates one.
    pub(super) fn open(
        mut place: Place,
        settings: &IndexSettings,
        args: &IndexArgs,
        sources: &Sources<'_>,
    ) -> Result<Self> {
        let options = options(args, sources);
        if let Place::Resumable(folder) = &mut place {
            if let Some((index, journal)) = left_by_interrupted(folder)? {
                expect_same(folder, &index, &journal, settings, &options)?;
                return Ok(Self { index, place, journal, truncated: None });
            }
            folder.restart()?;
        }
        let (path, run) = match &place {
            Place::Resumable(folder) => (folder.path(), folder.run()),
            Place::Once(folder) => (folder.path().to_owned(), ""),
        };
        let journal = Journal::new(run, options);
        match ImpactIndex::create(&path, settings) {
            Ok(index) => Ok(Self { index, place, journal, truncated: None }),
            Err(error) => {
                place.remove()?;
                Err(error.into())
            }
        }
    }

    /// True if no document is in it yet.
    pub(super) fn is_new(&self) -> bool {
        self.journal.documents == 0
    }

    /// Reads the input to its end. Returns the index with all documents committed and its segments merged.
    pub(super) fn fill(mut self, sources: &Sources<'_>, args: &IndexArgs) -> Result<Self> {
        if self.journal.is_complete {
            tracing::info!("all {} documents are indexed already", self.journal.documents);
        }
        let mut sink = Sink::new(&self, args)?;
        if let Err(error) = sink.read_all(sources) {
            return Err(self.give_up(sink, args, error));
        }
        sink.bar.finish_and_clear();
        let journal = Journal { is_complete: true, ..sink.journal_now() };
        let truncated = sink.truncated;
        match sink.writer.finish_bulk(Some(&journal.to_text())) {
            Ok(counts) => warn_of(&counts),
            Err(error) if sink.journal.documents > 0 => return Err(error.into()),
            // as before the first checkpoint
            Err(error) => {
                drop(self.index);
                self.place.remove()?;
                return Err(error.into());
            }
        }
        (self.journal, self.truncated) = (journal, truncated);
        Ok(self)
    }

    /// Keeps what was indexed up to the last commit, if anything was, and returns the error to report.
    fn give_up(self, mut sink: Sink<'_>, args: &IndexArgs, error: anyhow::Error) -> anyhow::Error {
        let is_kept = matches!(self.place, Place::Resumable(_)) && sink.journal.documents > 0;
        let result = match interrupt::received() {
            true if is_kept => sink.commit_new().map(|()| {
                let message = format!("interrupted after {} documents", sink.journal.documents);
                interrupt::error(message, "the same command continues there, and with --restart begins anew")
            }),
            true if matches!(self.place, Place::Once(_)) => {
                Ok(interrupt::error("interrupted; input from stdin cannot be read again, so nothing is kept", ""))
            }
            _ => Ok(error),
        };
        sink.bar.finish_and_clear();
        let n_documents = sink.journal.documents;
        drop(sink);
        let error = result.unwrap_or_else(|error| error);
        if !is_kept {
            drop(self.index);
            return self.place.remove().err().unwrap_or(error);
        }
        if !interrupt::received() {
            tracing::warn!(
                "{n_documents} documents are kept in {}: the same command continues after them, and with --restart \
                 begins anew",
                ResumableFolder::aside_of(args.index()).display()
            );
        }
        error
    }
}

fn warn_of(counts: &WriteCounts) {
    if counts.dropped_weights > 0 {
        tracing::warn!(
            "{} weights were zero or negative, or rounded to zero, and were left out",
            counts.dropped_weights
        );
    }
    if counts.clipped_weights > 0 {
        tracing::warn!(
            "{} weights are above {}, the largest one of --weight-format u8, which takes their place; f16 and f32 hold them",
            counts.clipped_weights,
            ForwardPrecision::U8.round(f32::MAX)
        );
    }
    if counts.unindexed_values > 0 {
        tracing::warn!(
            "{} values are not of the type that their fields have in the first documents: filters such as field:value do not \
             find them; declare the types with --fields",
            counts.unindexed_values
        );
    }
}

/// Destination of documents and their vectors.
struct Sink<'a> {
    args: &'a IndexArgs,
    writer: ImpactWriter,
    /// as of the last commit
    journal: Journal,
    /// of all documents read
    digest: InputDigest,
    n_read: u64,
    last_commit: Instant,
    bar: ProgressBar,
    pruning: Pruning,
    /// length of passages; none if documents are not split
    passages: Option<PassageLength>,
    /// texts that were truncated; none if no text was encoded
    truncated: Option<u64>,
}

impl<'a> Sink<'a> {
    fn new(unfinished: &Unfinished, args: &'a IndexArgs) -> Result<Self> {
        // merging takes the other half
        let options = WriterOptions { memory_bytes: args.memory / 2, ..WriterOptions::default() };
        Ok(Self {
            args,
            writer: unfinished.index.writer(options)?,
            journal: unfinished.journal.clone(),
            digest: InputDigest::default(),
            n_read: 0,
            last_commit: Instant::now(),
            bar: console::progress("indexing", None),
            pruning: super::pruning(unfinished.index.settings().pruning, args)?,
            passages: unfinished.index.settings().passages,
            truncated: None,
        })
    }

    /// Name of the input in messages.
    fn input(&self) -> &'a Path {
        self.args.input.as_deref().or(self.args.vectors.as_deref()).unwrap_or(Path::new("-"))
    }

    fn read_all(&mut self, sources: &Sources<'_>) -> Result<()> {
        let Sources { share, dense, .. } = sources;
        if self.journal.is_complete && share.is_none() {
            return Ok(());
        }
        let mut items = read_items(self.args, sources.model, share.clone())?;
        self.skip_committed(&mut items)?;
        if self.journal.is_complete {
            // the manifest of a shard counts the whole input
            return items.try_for_each(|item| item.map(drop));
        }
        let n_before = self.n_read;
        let text = |item: &Item| item.document.full_text().into_owned();
        let encoder = sources.encoder.as_ref().map(|(encoder, _)| encoder);
        let encoders = Encoders { sparse: encoder, dense: *dense, passages: self.passages };
        encoders.encode(items, text, |item, encoded| self.add(item, encoded))?;
        self.truncated = encoder.map(|encoder| encoder.truncated());
        if share.as_ref().map_or(self.n_read, Share::documents) == 0 {
            return Err(bad_input(
                format!("{}: there are no documents in it", self.input().display()),
                "one JSON object a line is needed: {\"_id\": \"d1\", \"text\": \"…\"}",
            ));
        }
        let (n_added, seconds) = (self.n_read - n_before, self.bar.elapsed().as_secs_f64());
        tracing::info!("{n_added} documents in {seconds:.1} s ({:.0} per second)", n_added as f64 / seconds.max(1e-9));
        Ok(())
    }

    /// Reads the documents that are committed, which must be those of the interrupted run.
    fn skip_committed(&mut self, items: &mut impl Iterator<Item = Result<Item>>) -> Result<()> {
        let n_committed = self.journal.documents;
        if n_committed == 0 {
            return Ok(());
        }
        let input = self.input().display();
        let other = |why: String| bad_input(format!("{input}: not the input of the interrupted run: {why}"), RESTART);
        for item in items.take(n_committed as usize) {
            let item = item?;
            if self.n_read == 0 && item.document.id != self.journal.first_id {
                return Err(other(format!(
                    "its first document is {:?}, not {:?}",
                    item.document.id, self.journal.first_id
                )));
            }
            self.digest.add(&item.document, item.vector.as_ref());
            self.n_read += 1;
            interrupt::check()?;
        }
        if self.n_read < n_committed {
            return Err(other(format!("it has {} documents, and {n_committed} were read", self.n_read)));
        }
        if self.digest.text() != self.journal.digest {
            return Err(other(format!("its first {n_committed} documents have changed")));
        }
        self.bar.set_position(n_committed);
        self.bar.reset_eta();
        tracing::info!("resuming after {n_committed} documents");
        Ok(())
    }

    /// Adds a document with its vectors: the `encoded` ones, else the one of the input.
    fn add(&mut self, item: Item, encoded: Encoded) -> Result<()> {
        interrupt::check()?;
        let Item { document, vector: given } = item;
        self.digest.add(&document, given.as_ref());
        if self.n_read == 0 {
            self.journal.first_id.clone_from(&document.id);
        }
        match Row::new(document, encoded, given, &self.pruning).add(&mut self.writer) {
            Err(Error::TakenId { id }) => {
                let message = format!("{}: the id {id:?} occurs twice", self.input().display());
                return Err(bad_input(message, "every document needs an id of its own"));
            }
            result => result?,
        }
        self.n_read += 1;
        self.bar.inc(1);
        let is_due = self.n_read - self.journal.documents >= self.args.checkpoint_every;
        if is_due || self.last_commit.elapsed() >= TIME_PER_COMMIT { self.commit() } else { Ok(()) }
    }

    /// The journal of all documents read.
    fn journal_now(&self) -> Journal {
        let mut journal = self.journal.clone();
        if !journal.is_complete {
            (journal.documents, journal.digest) = (self.n_read, self.digest.text());
        }
        journal
    }

    /// Commits the documents that were added since the last commit.
    fn commit_new(&mut self) -> Result<()> {
        if self.n_read > self.journal.documents { self.commit() } else { Ok(()) }
    }

    /// Commits all documents read.
    fn commit(&mut self) -> Result<()> {
        let journal = self.journal_now();
        self.writer.commit_with_note(&journal.to_text())?;
        (self.journal, self.last_commit) = (journal, Instant::now());
        Ok(())
    }
}
