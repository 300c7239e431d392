//! Result folders of mteb: writes files that Python's mteb loads, and reads them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use splade_files::{AtomicFile, read_text, write_json};

use crate::error::{Error, Result};
use crate::scores::{Scores, round_to};

/// Version of mteb whose metrics and files are reproduced.
pub const MTEB_VERSION: &str = "2.26.24";

/// The main score of every retrieval task.
pub const MAIN_SCORE: &str = "ndcg_at_10";

/// Language of a data set whose language is not known, in the form of mteb: with no language at all, mteb's means over the
/// languages are NaN.
pub const UNKNOWN_LANGUAGE: &str = "und-Zyyy";

/// Folder below a model's results for results with other than the model's own arguments.
pub(crate) const EXPERIMENTS: &str = "experiments";

/// Revision that mteb writes for a model or data set without one.
pub const NO_REVISION: &str = "no_revision_available";

/// `<TaskName>.json`: scores of one model on one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// commit of the data set
    pub dataset_revision: String,
    /// mteb's name of the task
    pub task_name: String,
    /// the version that made the file
    pub mteb_version: String,
    /// split → one entry per subset
    pub scores: BTreeMap<String, Vec<SubsetResult>>,
    /// duration of the evaluation in seconds
    pub evaluation_time: Option<f64>,
    /// never measured here
    #[serde(default)]
    pub kg_co2_emissions: Option<f64>,
    /// seconds since 1970, or the text of a date
    #[serde(default)]
    pub date: Value,
    /// phases of the evaluation in mteb; null here
    #[serde(default)]
    pub evaluation_phases: Value,
    /// conditions and fingerprints of this program, which mteb does not read; null in files of mteb
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub splade: Value,
}

impl TaskResult {
    /// A result without scores yet.
    #[must_use]
    pub fn new(task_name: impl Into<String>, dataset_revision: impl Into<String>) -> Self {
        Self {
            dataset_revision: dataset_revision.into(),
            task_name: task_name.into(),
            mteb_version: MTEB_VERSION.into(),
            scores: BTreeMap::new(),
            evaluation_time: None,
            kg_co2_emissions: None,
            date: Value::Null,
            evaluation_phases: Value::Null,
            splade: Value::Null,
        }
    }

    /// Adds the [`mteb_scores`](super::mteb_scores) of a split and subset. Without languages it is filed under
    /// [`UNKNOWN_LANGUAGE`].
    pub fn add(&mut self, split: &str, subset: &str, mut languages: Vec<String>, scores: Scores) {
        if languages.is_empty() {
            languages.push(UNKNOWN_LANGUAGE.to_owned());
        }
        let main_score = scores.get(MAIN_SCORE).unwrap_or(f64::NAN);
        let entry = SubsetResult {
            scores,
            main_score,
            subset: subset.to_owned(),
            languages,
            mteb_version: Some(MTEB_VERSION.to_owned()),
        };
        self.scores.entry(split.to_owned()).or_default().push(entry);
    }

    /// Writes the file; numbers have 6 decimals and NaN becomes null.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_json(path, self)?)
    }

    /// Reads a result file, also one of Python's mteb, which writes a bare `NaN`.
    ///
    /// # Errors
    /// A file that cannot be opened, is not JSON or lacks a field that mteb requires.
    pub fn read(path: &Path) -> Result<Self> {
        read_result(path)
    }
}

/// Scores on one subset of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetResult {
    /// all metrics
    pub scores: Scores,
    /// value of the main metric
    pub main_score: f64,
    /// `default` where there is one
    pub subset: String,
    /// as in `nob-Latn`
    pub languages: Vec<String>,
    /// the version that made the entry
    pub mteb_version: Option<String>,
}

impl Serialize for SubsetResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (metric, value) in self.scores.iter() {
            map.serialize_entry(metric, &round_to(value, 6))?;
        }
        map.serialize_entry("main_score", &round_to(self.main_score, 6))?;
        map.serialize_entry("hf_subset", &self.subset)?;
        map.serialize_entry("languages", &self.languages)?;
        if let Some(version) = &self.mteb_version {
            map.serialize_entry("mteb_version", version)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for SubsetResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = SubsetResult;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with main_score, hf_subset and languages")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SubsetResult, A::Error> {
                let missing = <A::Error as serde::de::Error>::missing_field;
                let (mut main_score, mut subset, mut languages, mut mteb_version) = (None, None, None, None);
                let mut scores = Scores::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "main_score" => main_score = Some(map.next_value::<Option<f64>>()?.unwrap_or(f64::NAN)),
                        "hf_subset" => subset = Some(map.next_value()?),
                        "languages" => languages = Some(map.next_value()?),
                        "mteb_version" => mteb_version = map.next_value()?,
                        // fields of other versions that are not numbers are skipped
                        _ => match map.next_value::<Value>()? {
                            Value::Null => scores.push(key, f64::NAN),
                            value => value.as_f64().into_iter().for_each(|value| scores.push(key.clone(), value)),
                        },
                    }
                }
                Ok(SubsetResult {
                    scores,
                    main_score: main_score.ok_or_else(|| missing("main_score"))?,
                    subset: subset.ok_or_else(|| missing("hf_subset"))?,
                    languages: languages.ok_or_else(|| missing("languages"))?,
                    mteb_version,
                })
            }
        }
        deserializer.deserialize_map(EntryVisitor)
    }
}

/// `model_meta.json`: mteb's description of a model. All fields but the name and the revision may be unknown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModelMeta {
    /// `owner/name`
    pub name: String,
    /// commit, [`NO_REVISION`] for a local model
    pub revision: String,
    /// number of weights
    #[serde(default)]
    pub n_parameters: Option<u64>,
    /// longest document in tokens
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// the vocabulary size
    #[serde(default)]
    pub embed_dim: Option<usize>,
    /// as in `nob-Latn`
    #[serde(default)]
    pub languages: Option<Vec<String>>,
    /// as in `apache-2.0`
    #[serde(default)]
    pub license: Option<String>,
    /// arguments that differ from the model's own, by which mteb tells experiments apart; empty for the model's own results
    #[serde(default, deserialize_with = "or_empty")]
    pub experiment_kwargs: BTreeMap<String, Value>,
}

/// A map that may be null.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ModelMeta {
    /// Description of a local model with a name and nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            revision: NO_REVISION.into(),
            n_parameters: None,
            max_tokens: None,
            embed_dim: None,
            languages: None,
            license: None,
            experiment_kwargs: BTreeMap::new(),
        }
    }

    /// Folder of this model's results below mteb's `results` folder.
    ///
    /// ```
    /// use splade_eval::ModelMeta;
    ///
    /// let folder = ModelMeta::new("local/tiny splade").folder()?;
    /// assert_eq!(folder.to_str(), Some("local__tiny_splade/no_revision_available"));
    /// # Ok::<(), splade_eval::Error>(())
    /// ```
    ///
    /// # Errors
    /// A name or revision that cannot name a folder.
    pub fn folder(&self) -> Result<PathBuf> {
        let name = self.name.replace('/', "__").replace(' ', "_");
        for part in [&name, &self.revision] {
            if part.is_empty() || part.contains(['/', '\\']) || [".", ".."].contains(&part.as_str()) {
                return Err(Error::invalid(format!("'{part}' cannot name a folder of results"), ""));
            }
        }
        Ok(Path::new(&name).join(&self.revision))
    }

    /// Folder of this model's results: [`folder`](Self::folder) below `results`, and `experiments/<experiment>` in it for
    /// results with other than the model's own arguments.
    ///
    /// # Errors
    /// As [`folder`](Self::folder).
    pub fn results_folder(&self, results: &Path, experiment: Option<&str>) -> Result<PathBuf> {
        let folder = results.join(self.folder()?);
        Ok(match experiment {
            None => folder,
            Some(experiment) => folder.join(EXPERIMENTS).join(experiment),
        })
    }
}

impl Serialize for ModelMeta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const UNKNOWN: [&str; 16] = [
            "release_date",
            "n_active_parameters_override",
            "n_embedding_parameters",
            "memory_usage_mb",
            "open_weights",
            "public_training_code",
            "public_training_data",
            "reference",
            "use_instructions",
            "training_datasets",
            "adapted_from",
            "superseded_by",
            "citation",
            "contacts",
            "output_dtypes",
            "extra_requirements_groups",
        ];
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("loader_kwargs", &BTreeMap::<String, ()>::new())?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("revision", &self.revision)?;
        map.serialize_entry("languages", &self.languages)?;
        map.serialize_entry("n_parameters", &self.n_parameters)?;
        map.serialize_entry("max_tokens", &self.max_tokens)?;
        map.serialize_entry("embed_dim", &self.embed_dim)?;
        map.serialize_entry("license", &self.license)?;
        map.serialize_entry("framework", &["Sentence Transformers"])?;
        map.serialize_entry("similarity_fn_name", "dot")?;
        map.serialize_entry("modalities", &["text"])?;
        map.serialize_entry("model_type", &["sparse"])?;
        map.serialize_entry("loader", "SparseEncoderWrapper")?;
        map.serialize_entry("is_cross_encoder", &false)?;
        map.serialize_entry("experiment_kwargs", &Some(&self.experiment_kwargs).filter(|kwargs| !kwargs.is_empty()))?;
        for key in UNKNOWN {
            map.serialize_entry(key, &())?;
        }
        map.end()
    }
}

/// Writes `model_meta.json` and the `<TaskName>.json` of every task under temporary names in the model's
/// [`results_folder`](ModelMeta::results_folder). `results` is the folder of that name in mteb's cache.
///
/// A file becomes visible with its [`commit`](AtomicFile::commit); files that are dropped instead are removed.
///
/// # Errors
/// Names that cannot name a folder; files that cannot be written.
pub fn stage_mteb_results(
    results: &Path,
    model: &ModelMeta,
    experiment: Option<&str>,
    tasks: &[TaskResult],
) -> Result<Vec<AtomicFile>> {
    let folder = model.results_folder(results, experiment)?;
    let mut staged = vec![stage(&folder.join("model_meta.json"), model)?];
    for task in tasks {
        staged.push(stage(&folder.join(format!("{}.json", task.task_name)), task)?);
    }
    Ok(staged)
}

fn stage<T: Serialize>(path: &Path, value: &T) -> Result<AtomicFile> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::file(path, error.to_string()))?;
    text.push('\n');
    let mut file = AtomicFile::create(path)?;
    file.write_all(text.as_bytes()).map_err(Error::io(path))?;
    file.sync()?;
    Ok(file)
}

fn read_result<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    serde_json::from_str(&nan_as_null(&text)).map_err(|error| Error::file(path, format!("no mteb result: {error}")))
}

/// Replaces Python's `NaN`, `Infinity` and `-Infinity`, which are not JSON, by null outside strings.
pub(crate) fn nan_as_null(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let outside = |text: &str| text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        let end = start + string_length(&rest[start..]);
        clean.push_str(&outside(&rest[..start]));
        clean.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    clean.push_str(&outside(rest));
    Cow::Owned(clean)
}

/// Length in bytes of the JSON string at the start of `text`, with its quotes; all of `text` without a closing quote.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(task: &str, ndcg: f64) -> TaskResult {
        let mut result = TaskResult::new(task, "0123");
        let scores = [("ndcg_at_10".to_owned(), ndcg), ("nauc_ndcg_at_10_max".to_owned(), f64::NAN)];
        result.add("test", "default", vec!["nob-Latn".into()], scores.into_iter().collect());
        result
    }

    /// Writes and commits the files; returns their folder.
    fn write(results: &Path, model: &ModelMeta, experiment: Option<&str>, tasks: &[TaskResult]) -> PathBuf {
        let staged = stage_mteb_results(results, model, experiment, tasks).unwrap();
        staged.into_iter().for_each(|file| file.commit().unwrap());
        model.results_folder(results, experiment).unwrap()
    }

    #[test]
    fn nan_is_null_only_outside_strings() {
        let text = r#"{"NaN \" NaN": NaN, "b": [-Infinity, Infinity, "\\", NaN]}"#;
        assert_eq!(nan_as_null(text), r#"{"NaN \" NaN": null, "b": [null, null, "\\", null]}"#);
        assert_eq!(nan_as_null("\"NaN"), "\"NaN");
        assert_eq!(nan_as_null("{}"), "{}");
    }

    #[test]
    fn folders_are_mtebs_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let model = ModelMeta { embed_dim: Some(420), ..ModelMeta::new("local/tiny") };
        let written = [result("A", 1.0 / 3.0), result("B", 0.5)];
        let path = write(folder.path(), &model, None, &written);
        assert!(path.ends_with("local__tiny/no_revision_available"));
        let text = std::fs::read_to_string(path.join("A.json")).unwrap();
        assert!(text.contains("\"ndcg_at_10\": 0.333333,") && text.contains("\"nauc_ndcg_at_10_max\": null"));
        let read = |path: PathBuf| TaskResult::read(&path).unwrap().scores["test"][0].main_score;
        assert_eq!(read(path.join("B.json")), 0.5);
        let meta: ModelMeta = read_result(&path.join("model_meta.json")).unwrap();
        assert_eq!(meta, model);

        let hybrid = write(folder.path(), &model, Some("hybrid"), &[result("B", 0.75)]);
        assert_eq!(read(hybrid.join("B.json")), 0.75);
        assert_eq!(read(path.join("B.json")), 0.5, "not the experiment's");
    }

    #[test]
    fn defects_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("A.json");
        let cases = [
            ("{", "no mteb result: EOF"),
            ("{\"dataset_revision\": \"x\"}", "no mteb result: missing field `task_name`"),
            (
                "{\"dataset_revision\": \"\", \"task_name\": \"\", \"mteb_version\": \"\", \"evaluation_time\": null, \
                 \"scores\": {\"test\": [{\"hf_subset\": \"\", \"languages\": []}]}}",
                "no mteb result: missing field `main_score`",
            ),
        ];
        for (text, wanted) in cases {
            std::fs::write(&path, text).unwrap();
            let error = TaskResult::read(&path).unwrap_err().to_string();
            assert!(error.contains("A.json: ") && error.contains(wanted), "{error}");
        }
        for bad in ["", "..", "a\\b"] {
            assert!(ModelMeta::new(bad).folder().is_err());
        }
    }
}
