//! Tasks of an evaluation: those in data folders, and known tasks by name, which are downloaded from the Hub.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use splade_eval::{
    DEFAULT_SUBSET, KnownTask, NANO_BEIR, RawTask, TASK_GROUPS, Task, TaskData, TaskFiles, TaskIdentity,
    is_nano_beir_set, known_task, known_tasks, task_group,
};

use crate::failure::bad_input;
use crate::hub::data_set::DataSet;

/// Group of the thirteen sets of NanoBEIR, in sentence-transformers' form.
pub(crate) const NANO_BEIR_GROUP: &str = "NanoBEIR";

/// Data set of that group unless another is named.
pub(crate) const NANO_BEIR_ID: &str = "sentence-transformers/NanoBEIR-en";

/// Tasks that a command line names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// names of tasks, groups and data folders; none: every task of the folders
    pub(crate) names: &'a [String],
    pub(crate) folders: &'a [PathBuf],
    pub(crate) split: Option<&'a str>,
    /// data set of the group `NanoBEIR`: an id of the Hub, or a folder
    pub(crate) nano_beir: &'a str,
}

/// Finds the wanted tasks, and logs remarks about their data. A task of a folder takes precedence over the known task of its
/// name. Subsets of a task are beside each other.
///
/// # Errors
/// An unknown name, a folder that cannot be read, a task in two folders, a download that fails.
pub(crate) fn find(wanted: &Wanted<'_>) -> Result<Vec<Task>> {
    let local = data_of_folders(wanted.folders, wanted.split)?;
    let mut found: Vec<TaskData> = Vec::new();
    if wanted.names.is_empty() {
        found.clone_from(&local);
    }
    for name in wanted.names {
        for data in by_name(name, &local, wanted)? {
            let is_new = !found.iter().any(|known| key(known) == key(&data));
            found.extend(is_new.then_some(data));
        }
    }
    let order: Vec<String> = found.iter().map(|data| data.identity.name.clone()).collect();
    found.sort_by_key(|data| order.iter().position(|name| *name == data.identity.name));
    read(found)
}

/// Opens the tasks of data folders, and logs remarks about their data.
///
/// # Errors
/// As [`find`].
#[cfg(feature = "train")]
pub(crate) fn open_folders(folders: &[PathBuf], split: Option<&str>) -> Result<Vec<Task>> {
    read(data_of_folders(folders, split)?)
}

/// Name of a task, with its subset if it has several.
pub(crate) fn label(task: &Task) -> String {
    if task.data.identity.subset == DEFAULT_SUBSET {
        task.data.identity.name.clone()
    } else {
        format!("{} {}", task.data.identity.name, task.data.identity.subset)
    }
}

/// Reads judgements and queries.
fn read(found: Vec<TaskData>) -> Result<Vec<Task>> {
    let tasks = found.into_iter().map(|data| Ok(Task { judged: data.judged_queries()?, data }));
    let tasks = tasks.collect::<Result<Vec<Task>>>()?;
    tasks.iter().flat_map(|task| &task.judged.remarks).for_each(|remark| tracing::warn!("{remark}"));
    Ok(tasks)
}

fn key(data: &TaskData) -> (&str, &str, &str) {
    (&data.identity.name, &data.identity.subset, &data.identity.split)
}

fn data_of_folders(folders: &[PathBuf], split: Option<&str>) -> Result<Vec<TaskData>> {
    let mut found = Vec::new();
    for folder in folders {
        found.extend(data_of_folder(folder, split)?);
    }
    let mut seen = HashSet::new();
    if let Some(duplicate) = found.iter().find(|data| !seen.insert(key(data))) {
        return Err(bad_input(
            format!("two data folders hold the task {}", duplicate.identity.name),
            "name each folder once",
        ));
    }
    Ok(found)
}

/// Tasks of a data folder, or of a data set in the cache of the Hub.
fn data_of_folder(folder: &Path, split: Option<&str>) -> Result<Vec<TaskData>> {
    let Some(data_set) = DataSet::of_cache(folder)? else {
        let found = TaskData::open(folder, split)?;
        for data in &found {
            if known_task(&data.identity.name).is_some_and(|task| task.name == data.identity.name) {
                tracing::warn!(
                    "{}: a folder of this name need not hold the data of mteb's task, so its results have no data set \
                     revision; --tasks {} downloads the data",
                    data.identity.name,
                    data.identity.name,
                );
            }
        }
        return Ok(found);
    };
    let known: Vec<&KnownTask> = known_tasks().iter().filter(|task| task.dataset == data_set.id()).collect();
    let mut found = Vec::new();
    for task in &known {
        found.extend(data_of_known(task, &data_set, split)?);
    }
    if known.is_empty() {
        let name = data_set.id().rsplit('/').next().unwrap_or_default().to_owned();
        found = TaskData::open(data_set.folder.as_deref().unwrap_or(folder), split)?;
        for data in &mut found {
            // the folder is called by a commit, a set of NanoBEIR by itself
            if !is_nano_beir_set(&data.identity.name) {
                data.identity.name.clone_from(&name);
            }
            data.identity.dataset = Some(data_set.id().to_owned());
            data.identity.dataset_revision.clone_from(&data_set.commit);
        }
    }
    Ok(found)
}

/// Tasks of a name: a group, a task of the folders, a set of NanoBEIR, or a known task.
fn by_name(name: &str, local: &[TaskData], wanted: &Wanted<'_>) -> Result<Vec<TaskData>> {
    if name.eq_ignore_ascii_case(NANO_BEIR_GROUP) {
        return nano_beir(&NANO_BEIR.map(|(_, set)| set), wanted.nano_beir);
    }
    if let Some(group) = task_group(name) {
        let mut found = Vec::new();
        for task in group {
            found.extend(by_name(&task.name, local, wanted)?);
        }
        return Ok(found);
    }
    let of_folders: Vec<TaskData> =
        local.iter().filter(|data| data.identity.name.eq_ignore_ascii_case(name)).cloned().collect();
    if !of_folders.is_empty() {
        return Ok(of_folders);
    }
    if let Some((_, set)) = NANO_BEIR.iter().find(|(_, set)| set.eq_ignore_ascii_case(name)) {
        return nano_beir(&[set], wanted.nano_beir);
    }
    let Some(task) = known_task(name) else { return Err(unknown(name, local)) };
    let data_set =
        DataSet::of_hub(&format!("{}@{}", task.dataset, task.revision)).with_context(|| task.name.clone())?;
    data_of_known(task, &data_set, wanted.split).with_context(|| task.name.clone())
}

fn unknown(name: &str, local: &[TaskData]) -> anyhow::Error {
    let names: Vec<&str> = local.iter().map(|data| data.identity.name.as_str()).collect();
    let there = if names.is_empty() { String::new() } else { format!("found: {}; ", names.join(", ")) };
    let groups = [&[NANO_BEIR_GROUP], &TASK_GROUPS[..]].concat().join(", ");
    bad_input(
        format!("no data folder holds the task {name}, and it is no known task or group"),
        format!("{there}`splade eval-mteb --list` shows the known tasks; groups: {groups}"),
    )
}

/// Tasks of a known task's data set: one for each subset and split.
fn data_of_known(task: &KnownTask, data_set: &DataSet, split: Option<&str>) -> Result<Vec<TaskData>> {
    let splits = split.map_or_else(|| task.splits.clone(), |split| vec![split.to_owned()]);
    let mut found = Vec::new();
    for (subset, languages) in &task.languages {
        for split in &splits {
            let identity = TaskIdentity {
                dataset: Some(data_set.id().to_owned()),
                dataset_revision: data_set.commit.clone(),
                languages: languages.clone(),
                ..TaskIdentity::new(&task.name, subset, split)
            };
            found.push(match RawTask::of(&task.name) {
                Some(raw) => TaskData::of_columns(identity, raw.build(&all_splits(data_set)?, split)?),
                None => TaskData::of_files(identity, files(data_set, subset, split)?),
            });
        }
    }
    Ok(found)
}

/// All splits of a data set without parts, in its order: mteb reads the earlier ones too.
fn all_splits(data_set: &DataSet) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let config = data_set.default_config()?;
    let names = data_set.split_names(&[config])?;
    names.into_iter().map(|name| Ok((name.to_owned(), data_set.files(&[config], name)?))).collect()
}

/// Files of a subset and split, in the configurations that mteb reads.
fn files(data_set: &DataSet, subset: &str, split: &str) -> Result<TaskFiles> {
    let part = |name: &str| format!("{subset}-{name}");
    if subset == DEFAULT_SUBSET {
        return Ok(TaskFiles {
            corpus: data_set.files(&["corpus"], split)?,
            queries: data_set.files(&["query", "queries"], split)?,
            qrels: data_set.files(&["default", "qrels"], split)?,
        });
    }
    Ok(TaskFiles {
        corpus: data_set.files(&[&part("corpus")], split)?,
        queries: data_set.files(&[&part("queries")], split)?,
        qrels: data_set.files(&[&part("qrels"), subset], split)?,
    })
}

/// Sets of NanoBEIR, as sentence-transformers reads them: each is a split, and empty texts are left out.
fn nano_beir(sets: &[&str], place: &str) -> Result<Vec<TaskData>> {
    let data_set = match DataSet::of_cache(Path::new(place)) {
        Ok(Some(data_set)) => data_set,
        _ if Path::new(place).is_dir() => return nano_beir_of_folder(sets, Path::new(place)),
        _ => DataSet::of_hub(place).context(NANO_BEIR_GROUP)?,
    };
    let task = |set: &&str| {
        let identity = TaskIdentity {
            dataset: Some(data_set.id().to_owned()),
            dataset_revision: data_set.commit.clone(),
            languages: if data_set.id() == NANO_BEIR_ID { vec!["eng-Latn".to_owned()] } else { Vec::new() },
            ..TaskIdentity::new(*set, DEFAULT_SUBSET, set)
        };
        let files = TaskFiles {
            corpus: data_set.files(&["corpus"], set)?,
            queries: data_set.files(&["queries"], set)?,
            qrels: data_set.files(&["qrels"], set)?,
        };
        let mut data = TaskData::of_files(identity, files);
        data.leave_out_empty = true;
        Ok(data)
    };
    sets.iter().map(task).collect()
}

fn nano_beir_of_folder(sets: &[&str], folder: &Path) -> Result<Vec<TaskData>> {
    let mut found = Vec::new();
    for set in sets {
        for mut data in TaskData::open(folder, Some(set))? {
            data.leave_out_empty = true;
            found.push(data);
        }
    }
    Ok(found)
}
