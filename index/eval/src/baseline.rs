//! [`Baseline`]: what results are compared with, read from the files of any generation of mteb or from a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use splade_files::read_text;

use crate::error::{Error, Result};
use crate::mteb::{EXPERIMENTS, nan_as_null};
use crate::predictions::RunPart;
use crate::run::Run;
use crate::scores::Scores;

/// Results of other models, or a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Baseline {
    /// scores of one model or several
    Models(Vec<BaselineModel>),
    /// rankings of one task
    Run(Run),
}

/// Scores of one model, and the run files beside them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BaselineModel {
    /// name in `model_meta.json` or in the file, else the name of the file or folder
    pub name: String,
    /// one entry per task, split and subset
    pub scores: Vec<BaselineScores>,
    /// files that could not be read, and why
    pub remarks: Vec<String>,
    /// files in the model's folder that may hold a run
    runs: Vec<PathBuf>,
}

/// Scores of a model on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineScores {
    /// mteb's name of the task
    pub task: String,
    /// split; none if the file does not say
    pub split: Option<String>,
    /// subset; none if the file does not say
    pub subset: Option<String>,
    /// commit of the data set; none if the file does not say
    pub dataset_revision: Option<String>,
    /// values by metric
    pub scores: Scores,
}

impl Baseline {
    /// Reads a file or a folder.
    ///
    /// * A folder has result files of mteb at any depth, each model in a folder of its own. The `experiments` of a model
    ///   are skipped, unless `path` lies in one. A file that is no result is a remark and not an error.
    /// * A `.json` file is a result of mteb (of version 1.11 and later, or earlier, with `mteb_dataset_name`), a list of
    ///   results, a `ModelResult` or `BenchmarkResults` of mteb, an object of tasks with a score or scores each, or a
    ///   prediction file. Python's `NaN` is read.
    /// * Any other file is a run, as [`Run::read`] reads it.
    ///
    /// `part` selects a run of a prediction file that has several.
    ///
    /// # Errors
    /// A path that cannot be read, a file in none of these forms, a folder without results.
    pub fn read(path: &Path, part: RunPart) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Models(read_folder(path)?));
        }
        if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
            return Run::read(path, RunPart::default()).map(Self::Run);
        }
        match models_of_file(path)? {
            Some(models) => Ok(Self::Models(models)),
            None => Run::read(path, part).map(Self::Run),
        }
    }
}

impl BaselineModel {
    /// Scores on a task; an entry without split or subset matches any.
    #[must_use]
    pub fn find(&self, task: &str, split: &str, subset: &str) -> Option<&BaselineScores> {
        let matches = |stated: &Option<String>, wanted: &str| stated.as_deref().is_none_or(|stated| stated == wanted);
        self.scores
            .iter()
            .find(|entry| entry.task == task && matches(&entry.split, split) && matches(&entry.subset, subset))
    }

    /// Run of a task beside the results: `<Task>.run.trec`, `<Task>.<subset>.run.trec` or mteb's
    /// `<Task>_predictions.json`; none if there is no such file.
    ///
    /// # Errors
    /// As [`Run::read`].
    pub fn run(&self, task: &str, split: &str, subset: &str) -> Result<Option<Run>> {
        let file = |name: String| self.runs.iter().find(|path| path.file_name().is_some_and(|file| *file == *name));
        let trec = file(format!("{task}.{subset}.run.trec")).or_else(|| file(format!("{task}.run.trec")));
        if let Some(path) = trec {
            return Run::read_trec(path).map(Some);
        }
        let part = RunPart { subset: Some(subset), split: Some(split) };
        file(format!("{task}_predictions.json")).map(|path| Run::read(path, part)).transpose()
    }
}

fn read_folder(path: &Path) -> Result<Vec<BaselineModel>> {
    let mut folders: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut experiments = Vec::new();
    collect(path, &mut folders, &mut experiments)?;
    let mut models = Vec::new();
    let mut reasons = Vec::new();
    for (folder, files) in folders {
        let mut model = BaselineModel { name: model_name(path, &folder), ..BaselineModel::default() };
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".run.trec") || name.ends_with("_predictions.json") {
                model.runs.push(file);
            } else if name.ends_with(".json") && name != META {
                match models_of_file(&file) {
                    Ok(Some(found)) => model.scores.extend(found.into_iter().flat_map(|model| model.scores)),
                    Ok(None) => model.remarks.push(format!("{}: no result of mteb", file.display())),
                    Err(error) => model.remarks.push(error.to_string()),
                }
            }
        }
        reasons.append(&mut model.remarks.clone());
        if !model.scores.is_empty() {
            models.push(model);
        }
    }
    if models.is_empty() {
        let reason = match (reasons.first(), experiments.iter().min()) {
            (Some(reason), _) => reason.clone(),
            (None, Some(folder)) => format!("name one of the experiments in {}", folder.display()),
            (None, None) => "looked for <TaskName>.json".to_owned(),
        };
        return Err(Error::file(path, format!("no results of mteb: {reason}")));
    }
    Ok(models)
}

const META: &str = "model_meta.json";

/// Name in the folder's `model_meta.json`, else the folder's path below `root`, else its name. An experiment has its own name
/// after that of the model.
fn model_name(root: &Path, folder: &Path) -> String {
    let meta = read_text(&folder.join(META)).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let stated = meta.as_ref().and_then(|meta| meta.get("name")?.as_str().map(str::to_owned));
    let below = folder.strip_prefix(root).unwrap_or(folder).display().to_string();
    let last = || folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into());
    let is_experiment = folder.parent().and_then(Path::file_name).is_some_and(|above| above == EXPERIMENTS);
    match stated {
        Some(model) if is_experiment => format!("{model} {}", last()),
        Some(model) => model,
        None if below.is_empty() => last(),
        None => below,
    }
}

/// Files of every folder below `folder`, sorted, and the folders of experiments, which are left out.
fn collect(folder: &Path, folders: &mut BTreeMap<PathBuf, Vec<PathBuf>>, experiments: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        // type of the entry, not of a link's target: a link to a parent folder would recurse without end
        if entry.file_type().map_err(Error::io(entry.path()))?.is_dir() {
            if entry.file_name() == EXPERIMENTS {
                experiments.push(entry.path());
            } else {
                collect(&entry.path(), folders, experiments)?;
            }
        } else {
            folders.entry(folder.to_owned()).or_default().push(entry.path());
        }
    }
    if let Some(files) = folders.get_mut(folder) {
        files.sort();
    }
    Ok(())
}

/// Models of a JSON file; none if it holds no results, as a prediction file does.
fn models_of_file(path: &Path) -> Result<Option<Vec<BaselineModel>>> {
    let text = read_text(path)?;
    let value: Value =
        serde_json::from_str(&nan_as_null(&text)).map_err(|error| Error::file(path, error.to_string()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let wrong = |message: String| Error::file(path, message);
    if let Some(models) = value.get("model_results").and_then(Value::as_array) {
        let models = models.iter().map(|model| model_result(model, &name)).collect::<Result<Vec<_>, _>>();
        return models.map(Some).map_err(wrong);
    }
    if value.get("task_results").is_some() {
        return model_result(&value, &name).map(|model| Some(vec![model])).map_err(wrong);
    }
    let scores = match &value {
        Value::Array(results) => {
            let results = results.iter().map(task_result).collect::<Result<Vec<_>, _>>();
            Some(results.map_err(wrong)?.concat())
        }
        Value::Object(fields) if ["task_name", "mteb_dataset_name"].iter().any(|key| fields.contains_key(*key)) => {
            Some(task_result(&value).map_err(wrong)?)
        }
        Value::Object(fields) => plain(fields).map_err(wrong)?,
        _ => None,
    };
    Ok(scores.map(|scores| vec![BaselineModel { name: name.into_owned(), scores, ..BaselineModel::default() }]))
}

/// `ModelResult` of mteb.
fn model_result(value: &Value, file: &str) -> Result<BaselineModel, String> {
    let results = value.get("task_results").and_then(Value::as_array).ok_or("a model without task_results")?;
    let scores = results.iter().map(task_result).collect::<Result<Vec<_>, _>>()?.concat();
    let name = value.get("model_name").and_then(Value::as_str).unwrap_or(file).to_owned();
    Ok(BaselineModel { name, scores, ..BaselineModel::default() })
}

/// `TaskResult` of mteb, of either generation.
fn task_result(value: &Value) -> Result<Vec<BaselineScores>, String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let revision = text("dataset_revision");
    if let Some(task) = text("task_name") {
        let splits = value.get("scores").and_then(Value::as_object).ok_or("missing field `scores`")?;
        let mut entries = Vec::new();
        for (split, subsets) in splits {
            for subset in subsets.as_array().ok_or("field `scores` is no list of subsets")? {
                let name = subset.get("hf_subset").and_then(Value::as_str).map(str::to_owned);
                entries.push(entry(&task, Some(split), name, &revision, numbers(subset)));
            }
        }
        return non_empty(entries);
    }
    // before version 1.11 of mteb: {"mteb_dataset_name": …, "test": {metric: number}}, subsets in between
    let task = text("mteb_dataset_name").ok_or("missing field `task_name`")?;
    let mut entries = Vec::new();
    for (split, scores) in value.as_object().into_iter().flatten() {
        let Some(scores) = scores.as_object() else { continue };
        let subsets: Vec<_> = scores.iter().filter(|(_, inner)| inner.is_object()).collect();
        for (subset, inner) in &subsets {
            entries.push(entry(&task, Some(split), Some((*subset).clone()), &revision, numbers(inner)));
        }
        if subsets.is_empty() {
            entries.push(entry(&task, Some(split), None, &revision, numbers(&Value::Object(scores.clone()))));
        }
    }
    non_empty(entries)
}

fn non_empty(entries: Vec<BaselineScores>) -> Result<Vec<BaselineScores>, String> {
    if entries.iter().all(|entry| entry.scores.is_empty()) {
        Err("a result without scores".to_owned())
    } else {
        Ok(entries)
    }
}

/// Object of tasks with one score (the main score) or an object of scores each; none if it has another form.
fn plain(fields: &Map<String, Value>) -> Result<Option<Vec<BaselineScores>>, String> {
    let mut entries = Vec::new();
    for (task, value) in fields {
        let scores: Scores = match value {
            Value::Number(number) => [(MAIN.to_owned(), number.as_f64().unwrap_or(f64::NAN))].into_iter().collect(),
            Value::Object(inner) if inner.values().all(Value::is_number) && !inner.is_empty() => numbers(value),
            _ => return Ok(None),
        };
        if let Some((metric, value)) = scores.iter().find(|(_, value)| *value > 1.0) {
            return Err(format!("{task}: {metric} is {value}, expected a share between 0 and 1"));
        }
        entries.push(entry(task, None, None, &None, scores));
    }
    Ok((!entries.is_empty()).then_some(entries))
}

const MAIN: &str = "main_score";

fn entry(
    task: &str,
    split: Option<&String>,
    subset: Option<String>,
    dataset_revision: &Option<String>,
    scores: Scores,
) -> BaselineScores {
    let dataset_revision = dataset_revision.clone();
    BaselineScores { task: task.to_owned(), split: split.cloned(), subset, dataset_revision, scores }
}

/// Fields that are numbers, and null as NaN.
fn numbers(value: &Value) -> Scores {
    let fields = value.as_object().into_iter().flatten();
    let number = |(name, value): (&String, &Value)| match value {
        Value::Null => Some((name.clone(), f64::NAN)),
        value => Some((name.clone(), value.as_f64()?)),
    };
    fields.filter_map(number).collect()
}

impl BaselineScores {
    /// Value of a metric; nDCG@10 falls back to `main_score`.
    #[must_use]
    pub fn get(&self, metric: &str) -> Option<f64> {
        let main = || (metric == crate::mteb::MAIN_SCORE).then(|| self.scores.get(MAIN)).flatten();
        self.scores.get(metric).or_else(main).filter(|value| !value.is_nan())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(text: &str) -> Result<Vec<BaselineModel>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dense.json");
        std::fs::write(&path, text).unwrap();
        match Baseline::read(&path, RunPart::default())? {
            Baseline::Models(models) => Ok(models),
            Baseline::Run(_) => panic!("a run"),
        }
    }

    #[test]
    fn every_generation_of_results_is_read() {
        let new = r#"{"task_name": "T", "dataset_revision": "r", "scores": {"test": [{"hf_subset": "default",
            "languages": [], "main_score": 0.25, "ndcg_at_10": 0.25, "nauc_ndcg_at_10_max": NaN}]}}"#;
        let list = format!("[{new}]");
        let model = format!(r#"{{"model_name": "m", "model_revision": null, "task_results": [{new}]}}"#);
        let all = format!(r#"{{"model_results": [{model}]}}"#);
        let texts = [
            new,
            &list,
            &model,
            &all,
            r#"{"mteb_dataset_name": "T", "mteb_version": "1.1.1", "test": {"ndcg_at_10": 0.25, "evaluation_time": 3}}"#,
            r#"{"mteb_dataset_name": "T", "test": {"default": {"ndcg_at_10": 0.25}, "evaluation_time": 3}}"#,
            r#"{"T": 0.25}"#,
            r#"{"T": {"main_score": 0.25}, "U": {"ndcg_at_10": 1}}"#,
        ];
        for text in texts {
            let models = models(text).unwrap();
            let found = models[0].find("T", "test", "default").unwrap_or_else(|| panic!("{text}"));
            assert_eq!(found.get("ndcg_at_10"), Some(0.25), "{text}");
            assert!(models[0].find("other", "test", "default").is_none() && found.get("mrr_at_10").is_none());
            assert!(["m", "dense"].contains(&models[0].name.as_str()));
        }
        let models = models(new).unwrap();
        assert!(models[0].find("T", "dev", "default").is_none() && models[0].find("T", "test", "nb").is_none());
        assert_eq!(models[0].scores[0].get("nauc_ndcg_at_10_max"), None);
        assert_eq!(models[0].scores[0].dataset_revision.as_deref(), Some("r"));
    }

    #[test]
    fn defects_are_named() {
        let cases = [
            ("{", "dense.json: EOF"),
            (r#"{"task_name": "T"}"#, "missing field `scores`"),
            (r#"{"task_name": "T", "scores": {}}"#, "a result without scores"),
            (r#"{"T": 31.2}"#, "T: main_score is 31.2, expected a share between 0 and 1"),
            ("[1]", "missing field `task_name`"),
            ("{}", "no predictions of mteb"),
        ];
        for (text, wanted) in cases {
            let message = models(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn a_folder_has_models_runs_and_remarks() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let result = r#"{"task_name": "T", "scores": {"test": [{"hf_subset": "default", "main_score": 0.5}]}}"#;
        write("a/r/T.json", result);
        write("a/r/broken.json", "{");
        write("a/r/model_meta.json", r#"{"name": "owner/a"}"#);
        write("a/r/T.run.trec", "q Q0 d 1 2 x\n");
        write("a/r/experiments/bm25/T.json", result);
        write("b/r/T.json", result);
        let Baseline::Models(models) = Baseline::read(root.path(), RunPart::default()).unwrap() else { panic!() };
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["owner/a", "b/r"]);
        assert_eq!((models[0].scores.len(), models[0].remarks.len(), models[1].remarks.len()), (1, 1, 0));
        assert!(models[0].run("T", "test", "default").unwrap().is_some());
        assert!(models[1].run("T", "test", "default").unwrap().is_none());
        let only = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(only.path().join("a/r/experiments/bm25")).unwrap();
        std::fs::write(only.path().join("a/r/experiments/bm25/T.json"), result).unwrap();
        let error = Baseline::read(only.path(), RunPart::default()).unwrap_err().to_string();
        assert!(error.contains("no results of mteb: name one of the experiments in"), "{error}");
        let experiment = root.path().join("a/r/experiments/bm25");
        write("a/r/experiments/bm25/model_meta.json", r#"{"name": "owner/a"}"#);
        let Baseline::Models(models) = Baseline::read(&experiment, RunPart::default()).unwrap() else { panic!() };
        assert_eq!(models[0].name, "owner/a bm25", "the model itself has other results");
        std::fs::create_dir(root.path().join("empty")).unwrap();
        let error = Baseline::read(&root.path().join("empty"), RunPart::default()).unwrap_err().to_string();
        assert!(error.contains("no results of mteb: looked for"), "{error}");
    }
}
