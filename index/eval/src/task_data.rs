//! [`TaskData`]: one subset and split of an evaluation data set, and its readers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use splade_files::{Document, InputRow, Query, read_documents, read_queries, read_rows};

use crate::error::{Error, Result};
use crate::identical_ids::ignores_identical_ids;
use crate::mteb::NO_REVISION;
use crate::qrels::Qrels;
use crate::raw::BuiltSplit;

/// mteb's name of the only subset of a data set without subsets.
pub const DEFAULT_SUBSET: &str = "default";

/// One subset and split of an evaluation data set.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskData {
    /// names, by which results are found
    pub identity: TaskIdentity,
    /// true if mteb removes the document with the query's id from a ranking
    pub ignore_identical_ids: bool,
    /// true if queries and documents without text are left out, as sentence-transformers does on NanoBEIR
    pub leave_out_empty: bool,
    source: Source,
}

/// Names of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskIdentity {
    /// mteb's name of a known task, otherwise the folder's name
    pub name: String,
    /// the Hub's data set id; none for a folder
    pub dataset: Option<String>,
    /// commit of the data set, [`NO_REVISION`] for a folder
    pub dataset_revision: String,
    /// [`DEFAULT_SUBSET`] if the data set has one subset
    pub subset: String,
    /// split of the judgements
    pub split: String,
    /// languages of the subset, as in `nob-Latn`, where they are known
    pub languages: Vec<String>,
}

impl TaskIdentity {
    /// Names of a task in a folder, without data set, revision and languages.
    #[must_use]
    pub fn new(name: impl Into<String>, subset: &str, split: &str) -> Self {
        Self {
            name: name.into(),
            dataset: None,
            dataset_revision: NO_REVISION.into(),
            subset: subset.into(),
            split: split.into(),
            languages: Vec::new(),
        }
    }
}

/// Files of a task, each list in reading order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFiles {
    /// files of documents
    pub corpus: Vec<PathBuf>,
    /// files of queries
    pub queries: Vec<PathBuf>,
    /// files of judgements
    pub qrels: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Files(TaskFiles),
    Built(Arc<BuiltSplit>),
}

impl TaskData {
    /// A task of these files.
    #[must_use]
    pub fn of_files(identity: TaskIdentity, files: TaskFiles) -> Self {
        Self::new(identity, Source::Files(files))
    }

    /// A task that was built from columns, in memory.
    #[must_use]
    pub fn of_columns(identity: TaskIdentity, split: BuiltSplit) -> Self {
        Self::new(identity, Source::Built(Arc::new(split)))
    }

    fn new(identity: TaskIdentity, source: Source) -> Self {
        Self { ignore_identical_ids: ignores_identical_ids(&identity.name), leave_out_empty: false, identity, source }
    }

    /// Documents, one at a time. The caller checks for duplicate ids and reports them with
    /// [`duplicate_document`](Self::duplicate_document).
    pub fn documents(&self) -> impl Iterator<Item = Result<Document>> + Send + use<> {
        let (files, built) = match &self.source {
            Source::Files(files) => (files.corpus.clone(), None),
            Source::Built(built) => (Vec::new(), Some(built.clone())),
        };
        let of_memory = built.into_iter().flat_map(|built| {
            let count = built.documents.len();
            (0..count).map(move |at| Ok(built.documents[at].clone()))
        });
        let leaves_out = self.leave_out_empty;
        let is_kept = move |document: &Result<Document>| {
            !leaves_out || document.as_ref().map_or(true, |document| !document.text.is_empty())
        };
        chained(files, read_documents).chain(of_memory).filter(is_kept)
    }

    /// Error for a duplicate document id; it names the line of the second document.
    #[must_use]
    pub fn duplicate_document(&self, id: &str) -> Error {
        match &self.source {
            Source::Files(files) => duplicate(&files.corpus, "document", id),
            Source::Built(_) => Error::invalid(format!("{}: duplicate document id {id}", self.identity.name), ""),
        }
    }

    /// Judgements of the split and the queries they judge.
    ///
    /// A query without judgements is left out, as in mteb. A query whose judgements are all 0 is kept and scores 0, as in
    /// mteb too. Remarks count defects that are not errors: pairs that are judged twice with different grades, of which the
    /// later grade counts; judged queries that the queries file lacks, which are left out; empty queries, which are kept;
    /// queries without a relevant document.
    ///
    /// # Errors
    /// A file that cannot be opened, a broken line, a duplicate query id, no query with a relevant document.
    pub fn judged_queries(&self) -> Result<JudgedQueries> {
        let (qrels, all, regraded) = match &self.source {
            Source::Files(files) => self.read(files)?,
            Source::Built(built) => (built.qrels.clone(), built.queries.clone(), 0),
        };
        let ids: HashSet<&str> = all.iter().map(|query| query.id.as_str()).collect();
        let absent = qrels.iter().filter(|(id, _)| !ids.contains(*id)).count();
        let mut queries = all;
        queries
            .retain(|query| qrels.judgements(&query.id).is_some() && !(self.leave_out_empty && query.text.is_empty()));
        let relevant = queries.iter().filter(|query| qrels.relevant_count(&query.id) > 0).count();
        if relevant == 0 {
            let message = "no query has a relevant document in the qrels";
            return Err(match &self.source {
                Source::Files(files) => Error::file(first(&files.queries), message),
                Source::Built(_) => Error::invalid(format!("{}: {message}", self.identity.name), ""),
            });
        }
        let empty = queries.iter().filter(|query| query.text.trim().is_empty()).count();
        let counted = [
            (regraded, "pairs judged twice with different grades, of which the later counts"),
            (absent, "judged queries that are not in the queries file and are left out"),
            (empty, "queries without text"),
            (queries.len() - relevant, "queries without a relevant document, which score 0 as in mteb"),
        ];
        let remarks = counted.iter().filter(|(count, _)| *count > 0);
        let remarks = remarks.map(|(count, what)| format!("{}: {what}: {count}", self.identity.name)).collect();
        Ok(JudgedQueries { qrels, queries, remarks })
    }

    /// Judgements, judged queries, and the number of pairs that were judged twice with different grades.
    fn read(&self, files: &TaskFiles) -> Result<(Qrels, Vec<Query>, usize)> {
        let mut qrels = Qrels::default();
        let mut regraded = 0;
        for path in &files.qrels {
            regraded += qrels.extend_from(path)?;
        }
        if qrels.is_empty() {
            return Err(Error::file(first(&files.qrels), "no judgements"));
        }
        let mut ids = HashSet::new();
        let mut queries = Vec::new();
        for query in chained(files.queries.clone(), read_queries) {
            let query = query?;
            if !ids.insert(query.id.clone()) {
                return Err(duplicate(&files.queries, "query", &query.id));
            }
            if qrels.judgements(&query.id).is_some() {
                queries.push(query);
            }
        }
        Ok((qrels, queries, regraded))
    }
}

/// Judgements of a task and the queries they judge, as [`TaskData::judged_queries`] reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedQueries {
    /// judgements of the split
    pub qrels: Qrels,
    /// queries with at least one judgement, relevant or not
    pub queries: Vec<Query>,
    /// remarks about the data, one sentence each
    pub remarks: Vec<String>,
}

/// The first of the files of a part, for messages.
fn first(paths: &[PathBuf]) -> &Path {
    paths.first().map_or(Path::new(""), PathBuf::as_path)
}

/// Error for a duplicate id in `paths`, at its second line.
fn duplicate(paths: &[PathBuf], what: &str, id: &str) -> Error {
    let has_id = |row: &InputRow| {
        let value = row.value().get("_id").or_else(|| row.value().get("id"));
        // a number counts as the text of its digits
        match value {
            Some(serde_json::Value::String(text)) => text == id,
            Some(value) => format!("{value}") == id,
            None => false,
        }
    };
    let message = format!("duplicate {what} id {id}");
    // only the error path reads the files again
    match chained(paths.to_vec(), read_rows).filter_map(Result::ok).filter(has_id).nth(1) {
        Some(row) => row.position().error(message).into(),
        None => Error::file(first(paths), message),
    }
}

/// Items of several files; each file is opened after the one before it ends.
fn chained<T, I>(
    paths: Vec<PathBuf>,
    read: impl Fn(&Path) -> splade_files::Result<I> + Send,
) -> impl Iterator<Item = Result<T>> + Send
where
    T: Send,
    I: Iterator<Item = splade_files::Result<T>> + Send,
{
    paths.into_iter().flat_map(move |path| {
        let (items, error) = match read(&path) {
            Ok(items) => (Some(items), None),
            Err(error) => (None, Some(Err(error))),
        };
        items.into_iter().flatten().chain(error).map(|item| item.map_err(Error::from))
    })
}
