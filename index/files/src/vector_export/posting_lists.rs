//! [`PostingLists`]: vectors turned into posting lists, by sorted runs in temporary files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::spill::Spill;
use crate::Result;

/// Number of postings that are sorted in memory: 192 MB.
const RUN: usize = 16_000_000;
/// Bytes of a posting in a run.
const WIDTH: usize = 12;

/// Posting: document and value, which is a weight by its bits or an impact.
pub(super) type Posting = (u32, u32);

/// Collector of postings in the order of documents, which come out in the order of terms.
pub(super) struct PostingLists {
    folder: PathBuf,
    /// most postings in memory
    run_len: usize,
    /// term, document and value
    run: Vec<(u32, u32, u32)>,
    runs: Vec<Spill>,
}

impl PostingLists {
    /// Keeps runs in `folder`.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self::with_runs_of(folder, RUN)
    }

    /// Keeps at most `run_len` postings in memory.
    pub(super) fn with_runs_of(folder: &Path, run_len: usize) -> Self {
        Self { folder: folder.to_owned(), run_len, run: Vec::new(), runs: Vec::new() }
    }

    /// Adds the entries of a document, whose number is above that of the document before.
    pub(super) fn add(&mut self, doc: u32, entries: impl Iterator<Item = (u32, u32)>) -> Result<()> {
        self.run.extend(entries.map(|(term, value)| (term, doc, value)));
        if self.run.len() >= self.run_len { self.end_run() } else { Ok(()) }
    }

    fn end_run(&mut self) -> Result<()> {
        self.run.sort_unstable();
        let mut spill = Spill::in_folder(&self.folder)?;
        for (term, doc, value) in self.run.drain(..) {
            let mut bytes = [0; WIDTH];
            bytes[..4].copy_from_slice(&term.to_le_bytes());
            bytes[4..8].copy_from_slice(&doc.to_le_bytes());
            bytes[8..].copy_from_slice(&value.to_le_bytes());
            spill.write(&bytes)?;
        }
        self.runs.push(spill);
        Ok(())
    }

    /// The lists by ascending term.
    pub(super) fn finish(mut self) -> Result<Merged> {
        if !self.run.is_empty() {
            self.end_run()?;
        }
        self.run = Vec::new();
        let runs = self.runs.into_iter().map(|spill| Ok(Run { reader: spill.into_reader()?, next: None }));
        let mut merged = Merged { runs: runs.collect::<Result<_>>()? };
        merged.runs.iter_mut().try_for_each(Run::advance).map_err(crate::Error::io(&self.folder))?;
        Ok(merged)
    }
}

/// Posting lists in order, read from the runs.
pub(super) struct Merged {
    runs: Vec<Run>,
}

struct Run {
    reader: BufReader<File>,
    /// next posting: term, document and value
    next: Option<(u32, u32, u32)>,
}

impl Run {
    fn advance(&mut self) -> io::Result<()> {
        let mut bytes = [0; WIDTH];
        self.next = match self.reader.read_exact(&mut bytes) {
            Ok(()) => {
                let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                Some((number(0), number(4), number(8)))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }
}

impl Merged {
    /// Puts the postings of the next term into `list`, by ascending document; no term after the last. Memory grows with the
    /// longest list.
    pub(super) fn next_list(&mut self, list: &mut Vec<Posting>) -> io::Result<Option<u32>> {
        list.clear();
        let Some(term) = self.runs.iter().filter_map(|run| Some(run.next?.0)).min() else { return Ok(None) };
        // the documents of a run are above those of the run before
        for run in &mut self.runs {
            while let Some((_, doc, value)) = run.next.filter(|next| next.0 == term) {
                list.push((doc, value));
                run.advance()?;
            }
        }
        Ok(Some(term))
    }
}
