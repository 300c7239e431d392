//! [`ResultFolder`]: the result files of a model, in the layout of mteb, with a summary of all of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use splade_eval::{
    DEFAULT_SUBSET, ModelMeta, RetrievalScores, Run, Task, TaskResult, is_nano_beir_set, is_trec_word,
    mean_retrieval_scores, retrieval_csv_name, stage_mteb_results,
};
use splade_files::{AtomicFile, read_json, write_json};

use super::FinishedTask;
use super::conditions::Conditions;
use super::examined::is_full;
use crate::cli::{EvalMtebArgs, Mode};
use crate::evaluation::{Facts, System};
use crate::failure::bad_input;
use crate::outputs::NewFolders;
use crate::report::SHOWN;
use crate::tasks::label;

/// Folder of a model's results, with a folder below it for each further mode and for other settings.
pub(super) struct ResultFolder<'a> {
    results: PathBuf,
    summary: PathBuf,
    meta: ModelMeta,
    conditions: Conditions,
    systems: &'a [System],
    args: &'a EvalMtebArgs,
}

impl<'a> ResultFolder<'a> {
    pub(super) fn new(meta: ModelMeta, conditions: Conditions, systems: &'a [System], args: &'a EvalMtebArgs) -> Self {
        let (results, summary) = (args.output_dir.join("results"), args.output_dir.join("summary.json"));
        Self { results, summary, meta, conditions, systems, args }
    }

    pub(super) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    pub(super) fn systems(&self) -> &'a [System] {
        self.systems
    }

    /// Name of the model in the results.
    pub(super) fn model_name(&self) -> &str {
        &self.meta.name
    }

    fn of(&self, system: System) -> Result<PathBuf> {
        let experiment = self.conditions.experiment_name(system);
        Ok(self.meta.results_folder(&self.results, experiment.as_deref())?)
    }

    /// Results of a task by an earlier run under equal conditions, one for each system; none if one is missing.
    ///
    /// # Errors
    /// Results under other conditions, without `--overwrite`.
    pub(super) fn finished(&self, subsets: &[Task], fingerprints: &[String]) -> Result<Option<Vec<TaskResult>>> {
        let name = &subsets[0].data.identity.name;
        let mut found = Vec::new();
        for (system, fingerprint) in self.systems.iter().zip(fingerprints) {
            let folder = self.of(*system)?;
            let path = folder.join(format!("{name}.json"));
            if !path.exists() {
                continue;
            }
            let result = TaskResult::read(&path).ok();
            match result.filter(|result| result.splade["fingerprint"] == fingerprint.as_str()) {
                Some(result) if subsets.iter().all(|task| self.has_run(&folder, task)) => found.push(result),
                Some(_) => {}
                None if self.args.overwrite => {}
                None => {
                    return Err(bad_input(
                        format!("{}: exists already", path.display()),
                        "give --overwrite to replace it: it is of another model, other settings or other data",
                    ));
                }
            }
        }
        let is_taken = found.len() == fingerprints.len()
            && !self.args.overwrite
            && !self.args.analyze_sparsity
            && !is_full(self.args)
            && self.args.baseline.is_none()
            && !is_nano_beir_set(name);
        Ok(is_taken.then_some(found))
    }

    fn has_run(&self, folder: &Path, task: &Task) -> bool {
        !self.args.save_runs || folder.join(run_name(task)).is_file()
    }

    /// Adds to the results what mteb has no field for.
    pub(super) fn annotate(&self, results: &mut [TaskResult], fingerprints: &[String], facts: &[(&Task, Facts)]) {
        let subsets: Vec<Value> = facts
            .iter()
            .map(|(task, facts)| json!({"split": task.data.identity.split, "subset": task.data.identity.subset, "facts": facts}))
            .collect();
        for ((result, system), fingerprint) in results.iter_mut().zip(self.systems).zip(fingerprints) {
            result.splade = json!({
                "fingerprint": fingerprint,
                "model_fingerprint": self.conditions.model,
                "precision": self.conditions.precision.to_string(),
                "max_length": self.conditions.max_length,
                "arguments": self.conditions.experiment(*system),
                "ranking": self.conditions.ranking(*system),
                "subsets": subsets,
            });
        }
    }

    /// Writes all files of a task to disk before the first of them appears under its name.
    pub(super) fn write(&self, task: &FinishedTask) -> Result<()> {
        let folders: Vec<_> = self.systems.iter().map(|system| self.of(*system)).collect::<Result<_>>()?;
        // dropped after the staged files, whose folders are then empty
        let folders: Vec<_> = folders.iter().map(|folder| NewFolders::above(&folder.join("run.trec"))).collect();
        let mut staged = Vec::new();
        for (position, system) in self.systems.iter().enumerate() {
            if self.args.save_runs {
                let folder = self.of(*system)?;
                for (data, evaluation) in task.evaluated() {
                    staged.push(stage_run(&folder, data, system.mode, &evaluation.modes[position].run)?);
                }
            }
            let result = &task.results[position..=position];
            let meta = ModelMeta { experiment_kwargs: self.conditions.experiment(*system), ..self.meta.clone() };
            let experiment = self.conditions.experiment_name(*system);
            staged.extend(stage_mteb_results(&self.results, &meta, experiment.as_deref(), result)?);
        }
        staged.into_iter().try_for_each(|file| file.commit())?;
        folders.into_iter().for_each(NewFolders::keep);
        self.append_csv(task)
    }

    /// Appends to the CSV files that sentence-transformers writes for the sets of NanoBEIR.
    fn append_csv(&self, task: &FinishedTask) -> Result<()> {
        let is_sparse = |system: &System| system.mode == Mode::Sparse;
        let Some(position) = self.systems.iter().position(is_sparse) else { return Ok(()) };
        for (data, evaluation) in task.evaluated().filter(|(data, _)| is_nano_beir_set(&data.data.identity.name)) {
            let path = self.of(self.systems[position])?.join(retrieval_csv_name(&data.data.identity.name));
            evaluation.modes[position].retrieval.append_csv(&path, -1.0, -1)?;
        }
        Ok(())
    }

    /// Appends the mean over the sets of NanoBEIR to its CSV file, if all of them were evaluated.
    pub(super) fn append_mean(&self, sets: &[RetrievalScores]) -> Result<()> {
        let sparse = self.systems.iter().find(|system| system.mode == Mode::Sparse);
        if let Some(sparse) = sparse.filter(|_| sets.len() == splade_eval::NANO_BEIR.len()) {
            let path = self.of(*sparse)?.join("NanoBEIR_evaluation_mean_results.csv");
            mean_retrieval_scores(sets)?.append_csv(&path, -1.0, -1)?;
        }
        Ok(())
    }

    /// Writes a task's scores and facts into `summary.json`. Entries of other tasks and models stay.
    pub(super) fn summarize(&self, task: &FinishedTask) -> Result<()> {
        let mut entries: Vec<Value> = match self.summary.is_file() {
            true => read_json::<Value>(&self.summary)?["results"].as_array().cloned().unwrap_or_default(),
            false => Vec::new(),
        };
        let key = |entry: &Value| {
            ["model", "revision", "task", "split", "subset", "experiment"].map(|name| entry[name].clone())
        };
        for (data, system, scores, facts) in task.rows(self.systems) {
            let experiment = self.conditions.experiment_name(system).unwrap_or_default();
            let shown: serde_json::Map<String, Value> =
                SHOWN.iter().map(|name| ((*name).to_owned(), json!(scores.get(name)))).collect();
            let entry = json!({
                "model": self.meta.name,
                "revision": self.meta.revision,
                "task": data.data.identity.name,
                "split": data.data.identity.split,
                "subset": data.data.identity.subset,
                "experiment": experiment,
                "mode": system.mode.name(),
                "stemmer": system.language.name(),
                "ranking": self.conditions.ranking(system),
                "dataset_revision": data.data.identity.dataset_revision,
                "scores": shown,
                "conditions": self.conditions_of(facts),
            });
            entries.retain(|known| key(known) != key(&entry));
            entries.push(entry);
        }
        Ok(write_json(&self.summary, &json!({"format_version": 1, "results": entries}))?)
    }

    /// Conditions and facts of a score, for JSON.
    pub(super) fn conditions_of(&self, facts: &Facts) -> Value {
        json!({
            "model_fingerprint": self.conditions.model,
            "precision": self.conditions.precision.to_string(),
            "max_length": self.conditions.max_length,
            "facts": facts,
        })
    }
}

/// Refuses an id that a TREC run cannot express.
pub(super) fn trec_id(task: &Task, what: &str, id: &str) -> Result<()> {
    if is_trec_word(id) {
        return Ok(());
    }
    let message =
        format!("{}: {what} id '{id}' is empty or has white space, which a TREC run cannot express", label(task));
    Err(bad_input(message, "leave out --save-runs"))
}

fn run_name(task: &Task) -> String {
    let subset = if task.data.identity.subset == DEFAULT_SUBSET {
        String::new()
    } else {
        format!(".{}", task.data.identity.subset)
    };
    format!("{}{subset}.run.trec", task.data.identity.name)
}

fn stage_run(folder: &Path, task: &Task, mode: Mode, run: &Run) -> Result<AtomicFile> {
    let path = folder.join(run_name(task));
    let mut file = AtomicFile::create(&path)?;
    run.write_trec(&mut file, &format!("splade-{}", mode.name())).with_context(|| path.display().to_string())?;
    file.sync()?;
    Ok(file)
}
