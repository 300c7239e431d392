//! [`ImpactIndex::check`]: reads every byte of an index folder.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use splade_files::{SHARD_FILE, is_temporary};
use tantivy::TantivyDocument;
use tantivy::directory::INDEX_WRITER_LOCK;

use crate::dense_plugin;
use crate::directory::{CheckedDirectory, MANAGED_FILE, META_FILE, is_known};
use crate::impact_index::{ImpactIndex, QUERY_DIR, TANTIVY_DIR, folder_bytes};
use crate::plugin::named;
use crate::settings::{FileRecord, MANIFEST_FILE, Manifest};
use crate::{Error, Result};

/// Result of a check of an index folder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckReport {
    /// version of the index format
    pub version: u32,
    /// files read
    pub files: usize,
    /// bytes of the whole folder
    pub bytes: u64,
    /// faults found, by path; none in a sound index
    pub findings: Vec<Finding>,
}

/// A fault of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// the file
    pub path: PathBuf,
    /// kind of fault
    pub kind: FindingKind,
    /// the fault, in one clause
    pub message: String,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A file is damaged or missing: results can be wrong or missing.
    Damaged,
    /// An interrupted writer left a file: without effect on results, and removed by the next writer.
    Leftover,
    /// No version of this program writes a file of this name: without effect on results.
    Unknown,
}

impl ImpactIndex {
    /// Checks the index folder `dir` whole: the checksums of all files, the structure of every section, the numbers of
    /// documents, and that there is no file that does not belong. Takes as long as reading the folder and the texts in it.
    ///
    /// Files without checksums, of an index of version 1, are checked against tantivy's checksums, and `manifest.json`,
    /// `meta.json` and the query folder by their structure alone.
    ///
    /// # Errors
    /// No index there, or a folder that cannot be read. Faults are no errors but findings.
    pub fn check(dir: &Path) -> Result<CheckReport> {
        if !Self::is_at(dir) {
            // the error of a folder that is no index
            Manifest::read(dir)?;
        }
        let meta = dir.join(TANTIVY_DIR).join(META_FILE);
        for _ in 1..ATTEMPTS {
            let before = std::fs::read(&meta).ok();
            let report = Check::new(dir).run()?;
            // a commit meanwhile removes files: what was found may be of the old state
            if report.findings.is_empty() || std::fs::read(&meta).ok() == before {
                return Ok(report);
            }
        }
        Check::new(dir).run()
    }

    /// As [`check`](Self::check), with the first finding as an error.
    ///
    /// # Errors
    /// As [`check`](Self::check), and a fault.
    pub fn verify(&self) -> Result<()> {
        match Self::check(self.dir())?.findings.into_iter().next() {
            None => Ok(()),
            Some(Finding { path, message, .. }) => Err(Error::damaged(path, message)),
        }
    }
}

/// Attempts to check an index while writers commit.
const ATTEMPTS: usize = 3;

struct Check<'a> {
    dir: &'a Path,
    files: usize,
    findings: BTreeSet<Finding>,
}

impl<'a> Check<'a> {
    fn new(dir: &'a Path) -> Self {
        Self { dir, files: 0, findings: BTreeSet::new() }
    }

    fn run(mut self) -> Result<CheckReport> {
        let mut version = 2;
        self.files += 1;
        match Manifest::read(self.dir) {
            Err(error) => self.found(&self.dir.join(MANIFEST_FILE), error),
            Ok(manifest) => {
                version = if manifest.query.is_some() { 2 } else { 1 };
                self.check_query(manifest.query.as_ref())?;
                self.check_tantivy(version)?;
            }
        }
        self.check_names()?;
        let bytes = folder_bytes(self.dir)?;
        Ok(CheckReport { version, files: self.files, bytes, findings: self.findings.into_iter().collect() })
    }

    fn add(&mut self, kind: FindingKind, path: PathBuf, message: impl Into<String>) {
        self.findings.insert(Finding { path, kind, message: message.into() });
    }

    /// Records an error as the finding of the file it names, or of `path` if it names none.
    fn found(&mut self, path: &Path, error: Error) {
        match error {
            Error::Damaged { path, message } | Error::Files(splade_files::Error::File { path, message }) => {
                self.add(FindingKind::Damaged, path, message);
            }
            Error::Files(splade_files::Error::Io { path, source }) => {
                self.add(FindingKind::Damaged, path, source.to_string())
            }
            error => self.add(FindingKind::Damaged, path.to_owned(), error.to_string()),
        }
    }

    fn check_query(&mut self, recorded: Option<&BTreeMap<String, FileRecord>>) -> Result<()> {
        self.files += crate::impact_index::query_records(self.dir)?.len();
        for (path, message) in crate::impact_index::check_query_dir(self.dir, recorded)? {
            self.add(FindingKind::Damaged, path, message);
        }
        Ok(())
    }

    /// Every file of tantivy's folder by its checksums, then what they hold.
    fn check_tantivy(&mut self, version: u32) -> Result<()> {
        let path = self.dir.join(TANTIVY_DIR);
        let directory = match CheckedDirectory::open(&path) {
            Ok(directory) => directory,
            Err(error) => {
                self.found(&path, error);
                return Ok(());
            }
        };
        self.files += 1;
        // of the last commit alone: other files are leftovers, or not complete yet
        let live =
            match directory.run(|| Ok(tantivy::Index::open(directory.clone())?.load_metas()?.list_segment_files())) {
                Ok(live) => live,
                Err(error) => {
                    self.found(&path.join(META_FILE), error);
                    return Ok(());
                }
            };
        let mut names = directory.file_names()?;
        names.retain(|name| live.contains(Path::new(name)));
        for name in &names {
            self.files += 1;
            if let Err(error) = directory.check_file(Path::new(name)) {
                self.found(&path.join(name), error);
            }
        }
        self.check_files_without_checksums(&directory, &names);
        let checked = ImpactIndex::open(self.dir).and_then(|index| directory.run(|| Self::check_segments(&index)));
        if let Err(error) = checked {
            self.found(&path, error);
        }
        self.check_leftovers(&directory, &live, version)
    }

    /// Files that lost their checksums to a truncation: those of a segment whose other files have checksums.
    ///
    /// All files of a segment are of one version, but deletes of a later one.
    fn check_files_without_checksums(&mut self, directory: &CheckedDirectory, names: &[String]) {
        for files in names.chunk_by(|a, b| a.get(..32) == b.get(..32)) {
            // files that cannot be opened have a finding already
            let files = files.iter().filter_map(|name| {
                let bytes = directory.bytes(Path::new(name)).ok()?;
                Some((name, bytes.has_checksums()))
            });
            let files: Vec<(&String, bool)> = files.collect();
            if files.iter().any(|(name, has_checksums)| *has_checksums && !name.ends_with(".del")) {
                for (name, _) in files.iter().filter(|(_, has_checksums)| !has_checksums) {
                    self.add(FindingKind::Damaged, directory.path().join(name), "damaged: it has no checksums");
                }
            }
        }
    }

    /// Structure of every section, and that all parts of a segment have the same documents.
    fn check_segments(index: &ImpactIndex) -> Result<()> {
        let searcher = index.searcher()?;
        let metas = index.tantivy().searchable_segment_metas()?;
        for (reader, file) in searcher.tantivy().segment_readers().iter().zip(searcher.files()) {
            file.check().map_err(|defect| index.damaged(reader, defect))?;
            if let Some(file) = index.snapshots().dense_file(reader)? {
                let name = named(reader, dense_plugin::EXTENSION);
                file.check().map_err(|defect| Error::damaged(index.directory().path().join(name), defect))?;
            }
            let damaged = |extension: &str, message: String| {
                let name = format!("{}.{extension}", reader.segment_id().uuid_string());
                Error::damaged(index.directory().path().join(name), message)
            };
            let store = reader.get_store_reader(0).map_err(tantivy::TantivyError::from)?;
            let mut documents = 0;
            for document in store.iter::<TantivyDocument>(None) {
                let read = index.fields().read_stored(String::new(), &document?);
                read.map_err(|defect| damaged("store", format!("document {documents}: {defect}")))?;
                documents += 1;
            }
            if documents != reader.max_doc() {
                let message = format!("holds {documents} documents of {}", reader.max_doc());
                return Err(damaged("store", message));
            }
            let meta = metas.iter().find(|meta| meta.id() == reader.segment_id());
            if let Some(meta) = meta.filter(|meta| meta.num_deleted_docs() != reader.num_deleted_docs()) {
                let (deleted, expected) = (reader.num_deleted_docs(), meta.num_deleted_docs());
                let extension = format!("{}.del", meta.delete_opstamp().unwrap_or_default());
                return Err(damaged(&extension, format!("marks {deleted} documents as deleted, not {expected}")));
            }
        }
        Ok(())
    }

    /// Files that belong to no segment, unless a writer is at work: it has files that are not committed.
    fn check_leftovers(&mut self, directory: &CheckedDirectory, live: &HashSet<PathBuf>, version: u32) -> Result<()> {
        if is_written(directory.path()) {
            return Ok(());
        }
        for path in directory.leftovers(live)? {
            if version == 1 && path.ends_with(MANAGED_FILE) {
                continue;
            }
            self.add(FindingKind::Leftover, path, LEFT);
        }
        Ok(())
    }

    /// Names that no version of the program gives, and temporary files, which only a writer at work has.
    fn check_names(&mut self) -> Result<()> {
        let tantivy = self.dir.join(TANTIVY_DIR);
        let is_written = is_written(&tantivy);
        let in_index = |name: &str| [MANIFEST_FILE, TANTIVY_DIR, QUERY_DIR, SHARD_FILE].contains(&name);
        self.check_names_in(self.dir, is_written, in_index)?;
        if tantivy.is_dir() {
            self.check_names_in(&tantivy, is_written, is_known)?;
        }
        Ok(())
    }

    fn check_names_in(&mut self, folder: &Path, is_written: bool, known: impl Fn(&str) -> bool) -> Result<()> {
        for path in entries(folder)? {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            match is_temporary(name) {
                true if !is_written => self.add(FindingKind::Leftover, path, LEFT),
                false if !known(name) => self.add(FindingKind::Unknown, path, NOT_OURS),
                _ => {}
            }
        }
        Ok(())
    }
}

/// True if a writer of this or another process holds the lock of tantivy's folder.
fn is_written(tantivy: &Path) -> bool {
    let lock = File::open(tantivy.join(&INDEX_WRITER_LOCK.filepath));
    lock.is_ok_and(|lock| lock.try_lock_shared().is_err())
}

const LEFT: &str = "belongs to no segment: a writer was interrupted; the next writer removes it";
const NOT_OURS: &str = "not a file of the index";

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path())).collect()
}
