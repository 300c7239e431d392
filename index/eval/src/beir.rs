//! [`TaskData::open`]: corpus, queries and judgements in a data folder, in the layout of BEIR or of the Hub.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::identical_ids::ignores_identical_ids;
use crate::task_data::{DEFAULT_SUBSET, TaskData, TaskFiles, TaskIdentity};
use crate::tasks::{KnownTask, is_nano_beir_set, known_task};

impl TaskData {
    /// Finds the subsets of `folder`, by name. The default of `split` is that of the known task of the folder's name, else
    /// `test`, else the only split. A folder whose splits are sets of NanoBEIR has a task for each set.
    ///
    /// There are two layouts. BEIR has `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv`. The mteb sets of the Hub
    /// have `corpus/*.parquet`, `queries/*.parquet` and `qrels/<split>*.parquet`, where the last folder may also be named
    /// `default` or `data`, and subsets in `<subset>-corpus/…`. Each part may be a file or a folder of files, in any form
    /// of [`read_rows`](splade_files::read_rows), whole or in shards (`test-00000-of-00002.parquet`).
    ///
    /// A task has the name of its folder and no revision: the name of a folder is no proof that it holds the data of
    /// mteb's task.
    ///
    /// # Errors
    /// A folder that cannot be listed or lacks a part (the message names the files that would do), a split that does not
    /// exist or is ambiguous.
    pub fn open(folder: &Path, split: Option<&str>) -> Result<Vec<Self>> {
        let entries = list(folder)?;
        let data = folder.join("data");
        let nested = if data.is_dir() { list(&data)? } else { Vec::new() };
        let all: Vec<PathBuf> = entries.into_iter().chain(nested).collect();
        let subsets = subsets(&all);
        if subsets.is_empty() {
            return Err(missing(folder, "corpus"));
        }
        let name = folder_name(folder);
        let known = known_task(&name);
        let mut tasks = Vec::new();
        for subset in subsets {
            let parts = Parts::find(folder, &all, &subset)?;
            let sets = parts.nano_beir_sets();
            if split.is_none() && !sets.is_empty() {
                tasks.extend(sets.into_iter().map(|set| parts.task(set.to_owned(), known_task(set), &subset, set)));
                continue;
            }
            let usual: Vec<&str> = known.iter().flat_map(|task| &task.splits).map(String::as_str).collect();
            let split = choose_split(folder, &parts.qrels, split, &usual)?;
            tasks.push(if is_nano_beir_set(&split) {
                parts.task(split.clone(), known_task(&split), &subset, &split)
            } else {
                parts.task(name.clone(), known, &subset, &split)
            });
        }
        Ok(tasks)
    }
}

/// Files of a subset, of all splits.
struct Parts {
    corpus: Vec<Part>,
    queries: Vec<Part>,
    qrels: Vec<Part>,
}

impl Parts {
    fn find(folder: &Path, entries: &[PathBuf], subset: &str) -> Result<Self> {
        let prefix = if subset == DEFAULT_SUBSET { String::new() } else { format!("{subset}-") };
        let part = |name: &str| {
            let parts = find_part(entries, &format!("{prefix}{name}"))?;
            if parts.is_empty() { Err(missing(folder, &format!("{prefix}{name}"))) } else { Ok(parts) }
        };
        let (corpus, queries) = (part("corpus")?, part("queries")?);
        let qrels = find_qrels(entries, &prefix, subset)?;
        if qrels.is_empty() {
            return Err(missing(folder, &format!("{prefix}qrels")));
        }
        Ok(Self { corpus, queries, qrels })
    }

    /// The splits, if all of them are sets of NanoBEIR.
    fn nano_beir_sets(&self) -> Vec<&str> {
        let sets: BTreeSet<&str> = self.qrels.iter().map(|(_, split)| split.as_deref().unwrap_or_default()).collect();
        if sets.iter().all(|set| is_nano_beir_set(set)) { sets.into_iter().collect() } else { Vec::new() }
    }

    /// Task of a split. `known` is mteb's task of the same name, which has the same languages.
    fn task(&self, name: String, known: Option<&KnownTask>, subset: &str, split: &str) -> TaskData {
        let languages = known.and_then(|task| task.languages.get(subset)).cloned().unwrap_or_default();
        let ignores = known.is_some_and(|task| ignores_identical_ids(&task.name)) || ignores_identical_ids(&name);
        let identity = TaskIdentity { languages, ..TaskIdentity::new(name, subset, split) };
        let files = TaskFiles {
            corpus: of_split(&self.corpus, split),
            queries: of_split(&self.queries, split),
            qrels: of_split(&self.qrels, split),
        };
        let mut task = TaskData::of_files(identity, files);
        task.ignore_identical_ids = ignores;
        task
    }
}

/// Visible entries of a folder, by name.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder))?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Last part of the path, also of `.` or `data/..`.
fn folder_name(folder: &Path) -> String {
    let name = file_name(folder);
    if !name.is_empty() {
        return name;
    }
    folder.canonicalize().map(|folder| file_name(&folder)).unwrap_or_default()
}

/// Name of a data file without its ending and shard: `test` of `test-00000-of-00002.parquet`. None for other endings.
fn label(path: &Path) -> Option<String> {
    const FORMS: [&str; 9] =
        [".jsonl", ".jsonl.gz", ".jsonl.zst", ".tsv", ".tsv.gz", ".tsv.zst", ".parquet", ".ndjson", ".trec"];
    let name = file_name(path);
    let stem = FORMS.iter().find_map(|form| name.strip_suffix(form)).filter(|_| !path.is_dir())?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let sharded = stem.rsplit_once("-of-").and_then(|(front, count)| {
        let (label, shard) = front.rsplit_once('-')?;
        // `datasets` 2.x wrote a hash after the count: test-00000-of-00001-0123456789abcdef
        let count = count.split('-').next().unwrap_or_default();
        (digits(shard) && digits(count)).then(|| label.to_owned())
    });
    Some(sharded.unwrap_or_else(|| stem.to_owned()))
}

/// A file of a part, and the split that its name states.
type Part = (PathBuf, Option<String>);

/// Files of `name`: those in the folder with that name, or all in a folder of that name.
fn find_part(entries: &[PathBuf], name: &str) -> Result<Vec<Part>> {
    let whole: Vec<Part> = entries
        .iter()
        .filter(|path| label(path).is_some_and(|label| label == name))
        .map(|path| (path.clone(), None))
        .collect();
    if !whole.is_empty() {
        return Ok(whole);
    }
    let Some(folder) = entries.iter().find(|path| file_name(path) == name && path.is_dir()) else {
        return Ok(Vec::new());
    };
    let split = |path: PathBuf| label(&path).map(|label| (path, Some(label).filter(|label| label != name)));
    Ok(list(folder)?.into_iter().filter_map(split).collect())
}

/// Files of `qrels`, or of the folders that the Hub makes for a config without a name, which may have other parts too.
fn find_qrels(entries: &[PathBuf], prefix: &str, subset: &str) -> Result<Vec<Part>> {
    for name in [&format!("{prefix}qrels"), subset, "data"] {
        let mut parts = find_part(entries, name)?;
        parts.retain(|(path, _)| {
            label(path).is_some_and(|label| !label.ends_with("corpus") && !label.ends_with("queries"))
        });
        if !parts.is_empty() {
            return Ok(parts);
        }
    }
    Ok(Vec::new())
}

/// `corpus` is the default subset, `no-corpus` the subset `no`.
fn subsets(entries: &[PathBuf]) -> BTreeSet<String> {
    let name = |path: &PathBuf| if path.is_dir() { Some(file_name(path)) } else { label(path) };
    let subset = |name: String| match name.strip_suffix("corpus")? {
        "" => Some(DEFAULT_SUBSET.to_owned()),
        prefix => prefix.strip_suffix('-').map(str::to_owned),
    };
    entries.iter().filter_map(name).filter_map(subset).collect()
}

fn choose_split(folder: &Path, qrels: &[Part], wanted: Option<&str>, usual: &[&str]) -> Result<String> {
    let there: BTreeSet<&str> = qrels.iter().filter_map(|(_, split)| split.as_deref()).collect();
    let unnamed = qrels.iter().any(|(_, split)| split.is_none());
    if let Some(wanted) = wanted {
        if there.contains(wanted) || unnamed {
            return Ok(wanted.to_owned());
        }
    } else if let Some(split) = usual.iter().chain(&["test"]).find(|split| there.contains(**split) || unnamed) {
        return Ok((*split).to_owned());
    } else if let [only] = Vec::from_iter(&there)[..] {
        return Ok((*only).to_owned());
    }
    let there = Vec::from_iter(there).join(", ");
    let message = match wanted {
        Some(wanted) => format!("no qrels for split '{wanted}', only for {there}"),
        None => format!("qrels for several splits and none is 'test', name one of {there}"),
    };
    Err(Error::file(folder, message))
}

/// Files whose names state `split`, or all files if none does.
fn of_split(parts: &[Part], split: &str) -> Vec<PathBuf> {
    let told_apart = parts.iter().any(|(_, label)| label.as_deref() == Some(split));
    let of_split = parts.iter().filter(|(_, label)| !told_apart || label.as_deref() == Some(split));
    of_split.map(|(path, _)| path.clone()).collect()
}

fn missing(folder: &Path, part: &str) -> Error {
    let looked_for = match part.strip_suffix("qrels") {
        Some(prefix) => format!("{part}/<split>.tsv, {part}/<split>*.parquet, {part}.tsv, {prefix}default/*.parquet"),
        None => format!("{part}.jsonl (also .gz, .zst), {part}.tsv, {part}.parquet, {part}/*.parquet"),
    };
    Error::file(folder, format!("no {part} found, looked for {looked_for}"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::mteb::NO_REVISION;
    use crate::task_data::JudgedQueries;

    const CORPUS: &str = "{\"_id\": \"d1\", \"text\": \"a\"}\n";
    const QUERIES: &str = "{\"_id\": \"q1\", \"text\": \"a\"}\n{\"_id\": \"q2\", \"text\": \"b\"}\n";
    const QRELS: &str = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td1\t0\n";
    const QRELS_JSON: &str = "{\"query-id\": \"q1\", \"corpus-id\": \"d1\", \"score\": 1}\n";

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn check(task: &TaskData, documents: usize) {
        let JudgedQueries { qrels, queries, .. } = task.judged_queries().unwrap();
        // mteb keeps a query whose judgements are all 0, and leaves out one without judgements
        let ids: Vec<&str> = queries.iter().map(|query| query.id.as_str()).collect();
        assert_eq!(ids, ["q1", "q2"][..qrels.len()]);
        assert_eq!(task.documents().collect::<Result<Vec<_>>>().unwrap().len(), documents);
    }

    #[test]
    fn beir_layout() {
        let folder = folder(&[
            ("scifact/corpus.jsonl", CORPUS),
            ("scifact/queries.jsonl", QUERIES),
            ("scifact/qrels/test.tsv", QRELS),
            ("scifact/qrels/train.tsv", QRELS),
            ("scifact/LICENSE-NOTE.md", ""),
            ("scifact/.cache/x", ""),
        ]);
        let tasks = TaskData::open(&folder.path().join("scifact"), None).unwrap();
        let [task] = &tasks[..] else { panic!("{tasks:?}") };
        assert_eq!(
            (task.identity.name.as_str(), task.identity.split.as_str(), task.identity.subset.as_str()),
            ("scifact", "test", "default")
        );
        assert_eq!(task.identity.dataset_revision, "no_revision_available");
        check(task, 1);
        let task = &TaskData::open(&folder.path().join("scifact"), Some("train")).unwrap()[0];
        assert_eq!(task.identity.split, "train");
        let error = TaskData::open(&folder.path().join("scifact"), Some("dev")).unwrap_err().to_string();
        assert!(error.ends_with("scifact: no qrels for split 'dev', only for test, train"), "{error}");
    }

    /// The layouts are those of the Hub; the form of a file is its ending's business, so JSON lines stand in.
    #[test]
    fn hub_layouts() {
        let norquad = folder(&[
            ("norquad_retrieval/corpus/test-00000-of-00002.jsonl", CORPUS),
            ("norquad_retrieval/corpus/test-00001-of-00002.jsonl", CORPUS),
            ("norquad_retrieval/queries/test-00000-of-00001-0123456789abcdef.jsonl", QUERIES),
            ("norquad_retrieval/data/test-00000-of-00001.jsonl", QRELS_JSON),
            ("norquad_retrieval/data/train-00000-of-00001.jsonl", QRELS_JSON),
            ("norquad_retrieval/README.md", ""),
        ]);
        let task = &TaskData::open(&norquad.path().join("norquad_retrieval"), None).unwrap()[0];
        // a folder of that name need not hold mteb's data
        assert_eq!(
            (task.identity.name.as_str(), task.identity.dataset_revision.as_str()),
            ("norquad_retrieval", NO_REVISION)
        );
        assert_eq!(task.identity.languages, ["nob-Latn"]);
        check(task, 2);

        let flat = folder(&[
            ("data/corpus-00000-of-00001.jsonl", CORPUS),
            ("data/queries-00000-of-00001.jsonl", QUERIES),
            ("data/dev-00000-of-00001.jsonl", QRELS_JSON),
        ]);
        let task = &TaskData::open(flat.path(), None).unwrap()[0];
        assert_eq!(task.identity.split, "dev");
        check(task, 1);

        let nano = folder(&[
            ("corpus/NanoNQ-00000-of-00001.jsonl", CORPUS),
            ("corpus/NanoFEVER-00000-of-00001.jsonl", &CORPUS.repeat(3)),
            ("queries/NanoNQ-00000-of-00001.jsonl", QUERIES),
            ("queries/NanoFEVER-00000-of-00001.jsonl", QUERIES),
            ("qrels/NanoFEVER-00000-of-00001.jsonl", QRELS_JSON),
            ("qrels/NanoNQ-00000-of-00001.jsonl", QRELS_JSON),
        ]);
        let task = &TaskData::open(nano.path(), Some("NanoNQ")).unwrap()[0];
        assert_eq!((task.identity.name.as_str(), task.identity.split.as_str()), ("NanoNQ", "NanoNQ"));
        check(task, 1);
        let sets = TaskData::open(nano.path(), None).unwrap();
        assert_eq!(sets.iter().map(|task| task.identity.name.as_str()).collect::<Vec<_>>(), ["NanoFEVER", "NanoNQ"]);
        assert_eq!(sets[1], *task);
        let splits = folder(&[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels/dev.tsv", QRELS),
            ("qrels/train.tsv", QRELS),
        ]);
        let error = TaskData::open(splits.path(), None).unwrap_err().to_string();
        assert!(error.contains("several splits and none is 'test', name one of dev, train"), "{error}");
    }

    #[test]
    fn subsets_are_tasks_of_their_own() {
        let folder = folder(&[
            ("WebFAQRetrieval/nor-corpus/test-00000-of-00001.jsonl", CORPUS),
            ("WebFAQRetrieval/nor-queries/test-00000-of-00001.jsonl", QUERIES),
            ("WebFAQRetrieval/nor-qrels/test-00000-of-00001.jsonl", QRELS_JSON),
            ("WebFAQRetrieval/dan-corpus.jsonl", CORPUS),
            ("WebFAQRetrieval/dan-queries.jsonl", QUERIES),
            ("WebFAQRetrieval/dan-qrels/test.tsv", QRELS),
        ]);
        let tasks = TaskData::open(&folder.path().join("WebFAQRetrieval"), None).unwrap();
        let subsets: Vec<&str> = tasks.iter().map(|task| task.identity.subset.as_str()).collect();
        assert_eq!(subsets, ["dan", "nor"]);
        assert_eq!(tasks[1].identity.languages, ["nor-Latn", "nob-Latn", "nno-Latn"]);
        tasks.iter().for_each(|task| check(task, 1));
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("x.txt", "")], "no corpus found, looked for corpus.jsonl (also .gz, .zst), corpus.tsv"),
            (&[("corpus.jsonl", CORPUS)], "no queries found, looked for queries.jsonl"),
            (&[("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES)], "no qrels found, looked for qrels/<split>.tsv"),
            (
                &[("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES), ("qrels/readme.md", "")],
                "no qrels found, looked for qrels/<split>.tsv",
            ),
        ];
        for (files, wanted) in cases {
            let error = TaskData::open(folder(files).path(), None).unwrap_err();
            assert!(error.kind().is_bad_input() && error.to_string().contains(wanted), "{error}");
        }
        assert!(TaskData::open(Path::new("/nowhere"), None).unwrap_err().kind().is_bad_input());
        let unjudged = folder(&[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq9\td1\t1\n"),
        ]);
        let task = &TaskData::open(unjudged.path(), None).unwrap()[0];
        let error = task.judged_queries().unwrap_err().to_string();
        assert!(error.contains("queries.jsonl: no query has a relevant document"), "{error}");
    }

    #[test]
    fn duplicate_ids_are_errors_with_their_place() {
        let twice = folder(&[
            ("corpus/test-00000-of-00002.jsonl", CORPUS),
            (
                "corpus/test-00001-of-00002.jsonl",
                "{\"id\": \"d2\", \"text\": \"\"}\n{\"id\": \"d1\", \"text\": \"\"}\n",
            ),
            ("queries.jsonl", &format!("{QUERIES}{{\"_id\": \"q1\", \"text\": \"other\"}}\n")),
            ("qrels.tsv", QRELS),
        ]);
        let task = &TaskData::open(twice.path(), Some("test")).unwrap()[0];
        let error = task.judged_queries().unwrap_err().to_string();
        assert!(error.ends_with("queries.jsonl:3: duplicate query id q1"), "{error}");
        let error = task.duplicate_document("d1").to_string();
        assert!(error.ends_with("test-00001-of-00002.jsonl:2: duplicate document id d1"), "{error}");
    }

    #[test]
    fn what_is_no_error_is_remarked() {
        let folder = folder(&[
            ("toy/corpus.jsonl", CORPUS),
            ("toy/queries.jsonl", "{\"_id\": \"q1\", \"text\": \" \"}\n{\"_id\": \"q2\", \"text\": \"b\"}\n"),
            ("toy/qrels.tsv", "q1\td1\t0\nq1\td1\t1\nq1\td1\t1\nq2\td1\t0\nq8\td1\t1\nq9\td1\t1\n"),
        ]);
        let task = &TaskData::open(&folder.path().join("toy"), None).unwrap()[0];
        let JudgedQueries { qrels, queries, remarks } = task.judged_queries().unwrap();
        assert_eq!((qrels.judgements("q1").unwrap()["d1"], queries.len()), (1, 2));
        assert_eq!(
            remarks,
            [
                "toy: pairs judged twice with different grades, of which the later counts: 1",
                "toy: judged queries that are not in the queries file and are left out: 2",
                "toy: queries without text: 1",
                "toy: queries without a relevant document, which score 0 as in mteb: 1",
            ]
        );
    }

    #[test]
    fn sets_whose_queries_are_documents_are_known() {
        let files = |name: &'static str| {
            folder(&[
                (&*format!("{name}/corpus.jsonl"), CORPUS),
                (&*format!("{name}/queries.jsonl"), QUERIES),
                (&*format!("{name}/qrels/test.tsv"), QRELS),
            ])
        };
        for (name, expected) in [("arguana", true), ("Quora", true), ("scifact", false), ("NanoArguAna", false)] {
            let folder = files(name);
            let task = &TaskData::open(&folder.path().join(name), None).unwrap()[0];
            assert_eq!(task.ignore_identical_ids, expected, "{name}");
        }
    }

    #[test]
    fn a_broken_shard_ends_the_documents() {
        let folder = folder(&[
            ("corpus/test-00000-of-00002.jsonl", "{\"_id\": \"d1\"}\n"),
            ("queries.jsonl", QUERIES),
            ("qrels.tsv", QRELS),
        ]);
        let task = &TaskData::open(folder.path(), None).unwrap()[0];
        assert!(task.documents().collect::<Result<Vec<_>>>().is_err());
    }
}
