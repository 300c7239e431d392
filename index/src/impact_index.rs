//! The impact index: documents with their sparse vectors, on disk, searched by exact dot product.
//!
//! tantivy keeps the documents, ids, BM25 postings, segments, commits, deletes and merges; our file beside every
//! segment keeps the vectors: [`splade_core::segment`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::Index;
use tantivy::tokenizer::TokenizerManager;

use splade_core::QueryEncoder;
use splade_core::dense::MAX_DIMENSIONS;

use crate::analyzer::{analyzer, analyzer_name};
use crate::dense_plugin::DensePlugin;
use crate::directory::CheckedDirectory;
use crate::plugin::ImpactPlugin;
use crate::schema::Fields;
use crate::settings::{self, FileRecord, Manifest};
use crate::snapshots::Snapshots;
use crate::{Error, ImpactWriter, IndexSettings, Result, Searcher, WriterOptions};

/// Folder of tantivy's files in an index folder.
pub(crate) const TANTIVY_DIR: &str = "tantivy";
/// Folder of the query encoder in an index folder.
pub(crate) const QUERY_DIR: &str = "query";

/// An index folder: `manifest.json`, `tantivy/`, and, for inference-free models, `query/` with the query encoder.
///
/// Every file carries checksums. Small files are checked when they are opened, large ones where they are read, so a
/// damaged index gives an error that names the file and no wrong result. An index of version 1, which has no checksums, is
/// read too; its first writer makes it version 2. [`check`](Self::check) reads every byte.
///
/// Reading and searching write nothing. A process killed while writing leaves the last commit, and files that the next
/// writer removes.
///
/// ```
/// use splade_index::{ImpactIndex, IndexSettings, SearchOptions, StoredDocument, WriterOptions};
/// use splade_core::SparseVector;
///
/// let folder = tempfile::tempdir()?;
/// let index = ImpactIndex::create(folder.path(), &IndexSettings::new(30_000, "model", "tokenizer"))?;
/// let mut writer = index.writer(WriterOptions::default())?;
/// let document = StoredDocument { id: "d1".into(), text: "Oslo er hovedstaden".into(), ..Default::default() };
/// writer.add(&document, &SparseVector::from_pairs([(12, 0.5), (845, 2.0)])?)?;
/// writer.finish()?;
///
/// let searcher = ImpactIndex::open(folder.path())?.searcher()?;
/// let query = SparseVector::from_pairs([(845, 1.5)])?;
/// let found = searcher.search(&query, 10, &SearchOptions::default())?;
/// assert_eq!((found[0].hit.id.as_str(), found[0].hit.score), ("d1", 3.0));
/// assert_eq!(searcher.document(found[0].address)?, document);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ImpactIndex {
    dir: PathBuf,
    index: Index,
    snapshots: Arc<Snapshots>,
}

/// Numbers about an index.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IndexStats {
    /// documents that are not deleted
    pub documents: u64,
    /// passages that are not deleted; `None` if documents are not split
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passages: Option<u64>,
    /// deleted documents, or passages, that still take space
    pub deleted_documents: u64,
    /// weights of documents that are not deleted
    pub postings: u64,
    /// mean number of weights of a document, or of a passage; 0 without documents
    pub active_dims_mean: f64,
    /// terms that occur, in deleted documents too
    pub active_terms: u64,
    /// segments
    pub segments: usize,
    /// bytes of the vectors: all `.spl` files
    pub vector_bytes: u64,
    /// bytes of the dense vectors: all `.dns` files; none in an index without them
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_bytes: Option<u64>,
    /// bytes of the whole folder
    pub total_bytes: u64,
}

impl ImpactIndex {
    /// Creates an index in `dir`, which is made if need be and must not hold an index yet.
    ///
    /// # Errors
    /// A folder that holds an index or cannot be written; a vocabulary of no terms; passages and dense vectors together.
    pub fn create(dir: &Path, settings: &IndexSettings) -> Result<Self> {
        if settings.vocabulary_size == 0 {
            return Err(Error::invalid("an index needs a vocabulary of at least one term", ""));
        }
        if let Some(dense) = &settings.dense {
            let dimensions = dense.dimensions;
            if dimensions == 0 || dimensions as usize > MAX_DIMENSIONS {
                let message = format!("dense vectors of {dimensions} dimensions");
                return Err(Error::invalid(message, format!("1 to {MAX_DIMENSIONS} dimensions can be searched")));
            }
        }
        if settings.passages.is_some() && settings.dense.is_some() {
            return Err(Error::invalid("an index with passages holds no dense vectors", "make two indexes"));
        }
        if dir.join(settings::MANIFEST_FILE).exists() || dir.join(TANTIVY_DIR).exists() {
            return Err(Error::file(dir, "there is an index already"));
        }
        let tantivy_dir = dir.join(TANTIVY_DIR);
        std::fs::create_dir_all(&tantivy_dir).map_err(Error::io(&tantivy_dir))?;
        let directory = CheckedDirectory::open(&tantivy_dir)?;
        let (fields, schema) = Fields::build(settings);
        let index = directory.run(|| {
            let builder = Index::builder()
                .schema(schema)
                .tokenizers(tokenizers(settings))
                .register_plugin(Arc::new(ImpactPlugin::new(settings, &fields, &directory)));
            let builder = match DensePlugin::of(settings, &fields, &directory) {
                Some(plugin) => builder.register_plugin(Arc::new(plugin)),
                None => builder,
            };
            Ok(builder.open_or_create(directory.clone())?)
        })?;
        // last, so that a folder with a manifest is complete
        Manifest { settings: settings.clone(), query: Some(BTreeMap::new()), hybrid: None }.write(dir)?;
        Self::from_parts(dir, settings.clone(), fields, directory, index)
    }

    /// True if `dir` holds an index, of any version.
    #[must_use]
    pub fn is_at(dir: &Path) -> bool {
        dir.join(settings::MANIFEST_FILE).is_file()
    }

    /// Opens the index in `dir`.
    ///
    /// # Errors
    /// No index there; one of another version; one that is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let Manifest { settings, query, .. } = Manifest::read(dir)?;
        let tantivy_dir = dir.join(TANTIVY_DIR);
        let directory = CheckedDirectory::open(&tantivy_dir)?;
        if query.is_some() {
            directory.expect_checksum_of_meta()?;
        }
        let (fields, schema) = Fields::build(&settings);
        let mut index = directory.run(|| Ok(Index::open(directory.clone())?))?;
        if index.schema() != schema || index.settings().sort_by_field.is_some() {
            return Err(Error::file(&tantivy_dir, "its fields are not those of a splade index"));
        }
        index.set_tokenizers(tokenizers(&settings));
        index.register_plugin(Arc::new(ImpactPlugin::new(&settings, &fields, &directory)));
        if let Some(plugin) = DensePlugin::of(&settings, &fields, &directory) {
            index.register_plugin(Arc::new(plugin));
        }
        Self::from_parts(dir, settings, fields, directory, index)
    }

    fn from_parts(
        dir: &Path,
        settings: IndexSettings,
        fields: Fields,
        directory: CheckedDirectory,
        index: Index,
    ) -> Result<Self> {
        let snapshots = Arc::new(Snapshots::new(dir, settings, fields, directory, &index)?);
        Ok(Self { dir: dir.to_owned(), index, snapshots })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Folder of the query encoder. It need not exist.
    pub(crate) fn query_dir(&self) -> PathBuf {
        self.dir.join(QUERY_DIR)
    }

    /// Keeps the query encoder of an inference-free model in the index, so that the folder alone is enough to search.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write_query_encoder(&self, encoder: &QueryEncoder) -> Result<()> {
        splade_files::write_query_encoder(encoder, &self.query_dir())?;
        let query = Some(query_records(&self.dir)?);
        Manifest { query, ..Manifest::read(&self.dir)? }.write(&self.dir)
    }

    /// Reads the query encoder kept in the index; `None` if there is none.
    ///
    /// # Errors
    /// A file that is damaged, missing or too many.
    pub fn read_query_encoder(&self) -> Result<Option<QueryEncoder>> {
        let recorded = Manifest::read(&self.dir)?.query;
        if let Some((path, defect)) = check_query_dir(&self.dir, recorded.as_ref())?.into_iter().next() {
            return Err(Error::damaged(path, defect));
        }
        if !self.query_dir().is_dir() {
            return Ok(None);
        }
        Ok(Some(splade_files::read_query_encoder(&self.query_dir())?))
    }

    /// Settings the index was created with.
    #[must_use]
    pub fn settings(&self) -> &IndexSettings {
        self.snapshots.settings()
    }

    /// Checks that the index was created for this model.
    ///
    /// # Errors
    /// Another vocabulary size, model or tokenizer. The message names the difference.
    pub fn expect_model(&self, vocabulary_size: u32, model: &str, tokenizer: &str) -> Result<()> {
        let ours = self.settings();
        let differences = [
            ("vocabulary size", ours.vocabulary_size.to_string(), vocabulary_size.to_string()),
            ("tokenizer", ours.tokenizer_fingerprint.clone(), tokenizer.to_owned()),
            ("model", ours.model_fingerprint.clone(), model.to_owned()),
        ];
        match differences.into_iter().find(|(_, index, model)| index != model) {
            None => Ok(()),
            Some((what, index, model)) => {
                // the start of a fingerprint is enough to distinguish two models
                let (index, model): (String, String) =
                    (index.chars().take(12).collect(), model.chars().take(12).collect());
                let dir = self.dir.display();
                Err(Error::invalid(
                    format!("{dir}: built with another model: its {what} is {index}, the model's is {model}"),
                    "give the model that the index was built with, or make the index anew",
                ))
            }
        }
    }

    /// Opens the writer, of which there is one at a time, in all processes.
    ///
    /// # Errors
    /// Another writer at work; a folder that cannot be written.
    pub fn writer(&self, options: WriterOptions) -> Result<ImpactWriter> {
        ImpactWriter::open(self, options)
    }

    /// A snapshot of the last commit.
    ///
    /// A handle follows the commits of every writer, in this process and in others: each call returns the newest snapshot.
    /// Without a new commit a call costs the reading of one small file, and returns the snapshot of the call before.
    ///
    /// # Errors
    /// A segment that is damaged; another index that has replaced the folder.
    pub fn searcher(&self) -> Result<Searcher> {
        self.snapshots.searcher()
    }

    /// Replaces `searcher` by a snapshot of the last commit. Returns true if there was a new commit.
    ///
    /// ```
    /// # use splade_index::{ImpactIndex, IndexSettings, StoredDocument, WriterOptions};
    /// # use splade_core::SparseVector;
    /// # let folder = tempfile::tempdir()?;
    /// let index = ImpactIndex::create(folder.path(), &IndexSettings::new(30_000, "model", "tokenizer"))?;
    /// let mut searcher = index.searcher()?;
    /// let mut writer = index.writer(WriterOptions::default())?;
    /// let document = StoredDocument { id: "d1".into(), ..Default::default() };
    /// writer.add(&document, &SparseVector::from_pairs([(12, 0.5)])?)?;
    /// assert!(!index.refresh(&mut searcher)?);
    /// writer.commit()?;
    /// assert!(index.refresh(&mut searcher)?);
    /// assert_eq!(searcher.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`searcher`](Self::searcher); `searcher` stays as it was.
    pub fn refresh(&self, searcher: &mut Searcher) -> Result<bool> {
        let newest = self.searcher()?;
        let is_new = !searcher.is_same(&newest);
        if is_new {
            *searcher = newest;
        }
        Ok(is_new)
    }

    /// The note of the last commit: [`ImpactWriter::commit_with_note`].
    ///
    /// # Errors
    /// A `meta.json` that is damaged.
    pub fn note(&self) -> Result<Option<String>> {
        self.directory().run(|| Ok(self.index.load_metas()?.payload))
    }

    /// Merges all segments into one, the fastest to search, and removes deleted documents and files of no segment.
    ///
    /// Searchers go on with the old files. If the process is killed or the disk is full, the index stays as it was.
    ///
    /// # Errors
    /// Another writer at work; a disk that is full or fails; a segment that is damaged.
    pub fn optimize(&self) -> Result<()> {
        self.writer(WriterOptions { merge: false, threads: 1, memory_bytes: 0 })?.finish_merged().map(|_| ())
    }

    /// Numbers about the last commit.
    ///
    /// # Errors
    /// A segment that is damaged, a folder that cannot be read.
    pub fn stats(&self) -> Result<IndexStats> {
        let searcher = self.searcher()?;
        self.directory().run(|| self.stats_of(&searcher))
    }

    fn stats_of(&self, searcher: &Searcher) -> Result<IndexStats> {
        let mut postings = 0;
        let mut terms: Vec<u32> = searcher.files().iter().flat_map(|file| file.term_ids()).collect();
        terms.sort_unstable();
        terms.dedup();
        let mut vector_bytes = 0;
        let mut deleted_documents = 0;
        for (reader, file) in searcher.tantivy().segment_readers().iter().zip(searcher.files()) {
            postings += if reader.has_deletes() {
                let count = file.count_postings(|doc| !reader.is_deleted(doc));
                count.map_err(|defect| self.damaged(reader, defect))?
            } else {
                file.n_postings()
            };
            deleted_documents += u64::from(reader.num_deleted_docs());
            vector_bytes += file.len_bytes();
        }
        let vectors = searcher.n_rows() as u64;
        Ok(IndexStats {
            documents: searcher.len() as u64,
            passages: self.settings().passages.map(|_| vectors),
            deleted_documents,
            postings,
            active_dims_mean: if vectors == 0 { 0.0 } else { postings as f64 / vectors as f64 },
            active_terms: terms.len() as u64,
            segments: searcher.files().len(),
            vector_bytes,
            dense_bytes: searcher
                .dense_settings()
                .map(|_| searcher.dense_files().iter().map(|file| file.len_bytes()).sum()),
            total_bytes: folder_bytes(&self.dir)?,
        })
    }

    pub(crate) fn tantivy(&self) -> &Index {
        &self.index
    }

    pub(crate) fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    pub(crate) fn fields(&self) -> &Fields {
        self.snapshots.fields()
    }

    pub(crate) fn directory(&self) -> &CheckedDirectory {
        self.snapshots.directory()
    }

    pub(crate) fn damaged(&self, reader: &tantivy::SegmentReader, defect: String) -> Error {
        self.snapshots.damaged(reader, defect)
    }

    /// Upgrades an index of version 1 to version 2: its manifest and `meta.json` get checksums. The caller must hold the
    /// writer lock.
    pub(crate) fn upgrade(&self) -> Result<()> {
        let manifest = Manifest::read(&self.dir)?;
        if manifest.query.is_some() {
            return Ok(());
        }
        // the manifest last: version 2 requires the checksum of `meta.json`
        self.directory().upgrade_meta()?;
        Manifest { query: Some(query_records(&self.dir)?), ..manifest }.write(&self.dir)
    }
}

/// The files of the query folder of the index folder `dir` as the manifest records them; none if there is no folder.
pub(crate) fn query_records(dir: &Path) -> Result<BTreeMap<String, FileRecord>> {
    let folder = dir.join(QUERY_DIR);
    let mut records = BTreeMap::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                records.insert(name.to_string_lossy().into_owned(), FileRecord::of(&path)?);
            }
        }
    }
    Ok(records)
}

/// The files of the query folder that are not as `recorded`, with their faults.
pub(crate) fn check_query_dir(
    dir: &Path,
    recorded: Option<&BTreeMap<String, FileRecord>>,
) -> Result<Vec<(PathBuf, &'static str)>> {
    let Some(recorded) = recorded else { return Ok(Vec::new()) };
    let found = query_records(dir)?;
    let names: BTreeSet<&String> = recorded.keys().chain(found.keys()).collect();
    let fault = |name: &String| match (recorded.get(name), found.get(name)) {
        (Some(recorded), Some(found)) if recorded != found => Some("damaged: its checksum is wrong"),
        (Some(_), None) => Some("missing"),
        (None, Some(_)) => Some("not a file of the index"),
        _ => None,
    };
    Ok(names.into_iter().filter_map(|name| Some((dir.join(QUERY_DIR).join(name), fault(name)?))).collect())
}

fn tokenizers(settings: &IndexSettings) -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    let (language, version) = (settings.language, settings.analyzer);
    tokenizers.register(&analyzer_name(language, version), analyzer(language, version));
    tokenizers
}

pub(crate) fn folder_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let metadata = entry.metadata().map_err(Error::io(entry.path()))?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
