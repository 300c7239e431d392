//! [`Conditions`]: all that decides the scores of a run but the data, with fingerprints.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use splade_core::hex;
use splade_eval::{MTEB_DEPTH, Task};
use splade_files::{ModelDir, Precision, read_file};
use splade_index::Language;

use crate::cli::{EngineKind, EvalMtebArgs, Mode};
use crate::dense::DenseModel;
use crate::evaluation::{CachedDense, Survey, System, VectorCache, fingerprint};
use crate::ranking::RankingSettings;

/// Model and settings of a run.
pub(super) struct Conditions {
    /// fingerprint of the model folder
    pub(super) model: String,
    pub(super) precision: Precision,
    /// most tokens of a text; none without a limit
    pub(super) max_length: Option<u64>,
    /// settings that differ from the defaults and change vectors
    settings: BTreeMap<String, Value>,
    /// fingerprint of model, backend and settings: equal ones give equal vectors
    encoder: String,
    /// fingerprint of the dense model and its prompts; none without one
    dense: Option<String>,
    /// device of the networks
    device: String,
    systems: Vec<System>,
    /// settings of each system
    rankings: Vec<RankingSettings>,
    /// name of the engine of the sparse rankings; none for the index
    engine: Option<&'static str>,
}

impl Conditions {
    pub(super) fn of(
        model: &ModelDir,
        dense: Option<&DenseModel>,
        systems: &[System],
        rankings: Vec<RankingSettings>,
        args: &EvalMtebArgs,
    ) -> Result<Self> {
        let network = &args.network;
        let precision = Precision::from(network.precision);
        let limit = network.max_length.map_or(model.max_length() as u64, u64::from);
        let mut settings = BTreeMap::new();
        if let Some(length) = network.max_length.filter(|length| u64::from(*length) != model.max_length() as u64) {
            settings.insert("max_length".to_owned(), json!(length));
        }
        if precision != Precision::Fp32 {
            settings.insert("precision".to_owned(), json!(precision.to_string()));
        }
        if network.drop_special_terms {
            settings.insert("drop_special_terms".to_owned(), json!(true));
        }
        if let Some(passages) = args.passages {
            settings.insert("passages".to_owned(), json!(passages.to_string()));
        }
        if let Some(mode) = network.reading.mlm_head {
            settings.insert("mlm_head".to_owned(), json!(mode.name()));
        }
        let (fingerprint_of_model, file) = (model_fingerprint(model)?, onnx_digest(model, precision)?);
        let device = format!("{:?}", network.device);
        let encoder = fingerprint(
            "splade encoder 1",
            &[
                ("model", &fingerprint_of_model),
                ("onnx", &file),
                ("backend", &format!("{:?}", network.backend)),
                ("device", &device),
                ("settings", &json!(settings).to_string()),
            ],
        );
        let max_length = (limit < usize::MAX as u64).then_some(limit);
        let systems = systems.to_vec();
        let dense = dense.map(|dense| fingerprint("splade dense encoder 1", &dense.identity()));
        Ok(Self {
            model: fingerprint_of_model,
            precision,
            max_length,
            settings,
            encoder,
            dense,
            device,
            systems,
            rankings,
            engine: args.engine.map(EngineKind::name),
        })
    }

    /// Settings of BM25 and hybrid rankings of each system, in their order.
    pub(super) fn rankings(&self) -> &[RankingSettings] {
        &self.rankings
    }

    /// Settings of BM25 and of the fusion that decide the scores of a system; none for the sparse ranking.
    pub(super) fn ranking(&self, system: System) -> BTreeMap<String, Value> {
        let found = self.systems.iter().zip(&self.rankings).find(|(other, _)| **other == system);
        found.map(|(_, ranking)| ranking.record(system.mode)).unwrap_or_default()
    }

    /// Name of the engine that gives the rankings of a system; none for the index.
    pub(super) fn engine(&self, system: System) -> Option<&'static str> {
        self.engine.filter(|_| system.mode == Mode::Sparse)
    }

    /// Fingerprint of the encoder of a role.
    pub(super) fn encoder(&self, role: &str) -> String {
        fingerprint("splade side 1", &[("encoder", &self.encoder), ("role", role)])
    }

    /// The dense model with the cache of its vectors; none without one.
    pub(super) fn cached_dense<'a>(
        &self,
        model: Option<&'a DenseModel>,
        cache: &VectorCache,
    ) -> Option<CachedDense<'a>> {
        let (model, identity) = model.zip(self.dense.as_ref())?;
        let fingerprint = fingerprint("splade dense side 1", &[("encoder", identity), ("device", &self.device)]);
        Some(CachedDense::new(model, cache.clone(), fingerprint))
    }

    /// Arguments of a system that differ from those of the model's own results; none for these.
    pub(super) fn experiment(&self, system: System) -> BTreeMap<String, Value> {
        let has_sparse = matches!(system.mode, Mode::Sparse | Mode::Hybrid);
        let mut kwargs = if has_sparse { self.settings.clone() } else { BTreeMap::new() };
        if system.mode != Mode::Sparse {
            kwargs.insert("mode".to_owned(), json!(system.mode.name()));
        }
        if let Some(engine) = self.engine(system) {
            kwargs.insert("engine".to_owned(), json!(engine));
        }
        if let Some(dense) = self.dense.as_deref().filter(|_| matches!(system.mode, Mode::Dense | Mode::Hybrid)) {
            kwargs.insert("dense".to_owned(), json!(dense.chars().take(8).collect::<String>()));
        }
        if matches!(system.mode, Mode::Bm25 | Mode::Hybrid) {
            kwargs.insert("stemmer".to_owned(), json!(system.language.name()));
            let rankings = 2 + usize::from(self.dense.is_some());
            let untuned = RankingSettings::untuned(system.language, MTEB_DEPTH, rankings).record(system.mode);
            kwargs.extend(self.ranking(system).into_iter().filter(|(name, value)| untuned.get(name) != Some(value)));
        }
        kwargs
    }

    /// Name of the folder of an experiment: the mode, the stemmer, then what else differs from the defaults.
    pub(super) fn experiment_name(&self, system: System) -> Option<String> {
        let mut kwargs = self.experiment(system);
        if kwargs.is_empty() {
            return None;
        }
        let mut parts = vec![system.mode.name().to_owned()];
        parts.extend((system.language != Language::None).then(|| system.language.name().to_owned()));
        kwargs.retain(|name, _| !["mode", "stemmer"].contains(&name.as_str()));
        parts.extend(kwargs.iter().map(|(name, value)| match (value.as_str(), value.as_f64()) {
            (Some(text), _) => format!("{name}_{text}"),
            (_, Some(number)) => format!("{name}_{number}"),
            _ => format!("{name}_{value}"),
        }));
        // as mteb names experiments: no character of a path
        Some(parts.join("_").replace('/', "_"))
    }

    /// Fingerprint of the scores of a system on the subsets of a task: equal ones need no evaluation.
    pub(super) fn of_task(&self, system: System, subsets: &[(&Task, Survey)]) -> String {
        let mut data = Sha256::new();
        for (task, survey) in subsets {
            let (queries, qrels) = (&task.judged.queries, &task.judged.qrels);
            let queries: Vec<_> = queries.iter().map(|query| (&query.id, &query.text)).collect();
            let qrels: Vec<_> = qrels.iter().collect();
            let data_set = &task.data;
            let names = (
                &data_set.identity.subset,
                &data_set.identity.split,
                &data_set.identity.dataset_revision,
                data_set.ignore_identical_ids,
            );
            data.update(json!([names, queries, qrels, survey.fingerprint]).to_string());
        }
        let encoder = if matches!(system.mode, Mode::Sparse | Mode::Hybrid) { self.encoder.as_str() } else { "" };
        let dense = self.dense.as_deref().filter(|_| matches!(system.mode, Mode::Dense | Mode::Hybrid)).unwrap_or("");
        let (ranking, data) = (json!(self.ranking(system)).to_string(), hex(&data.finalize()));
        let mut parts = vec![
            ("mode", system.mode.name()),
            ("encoder", encoder),
            ("dense", dense),
            ("stemmer", system.language.name()),
            ("ranking", &ranking),
            ("mteb", splade_eval::MTEB_VERSION),
            ("data", &data),
        ];
        // results of the index keep the fingerprints of versions without engines
        parts.extend(self.engine(system).map(|engine| ("engine", engine)));
        fingerprint("splade scores 1", &parts)
    }
}

/// Fingerprint of a model folder, also of one without a checkpoint, whose ONNX files decide its vectors.
fn model_fingerprint(model: &ModelDir) -> Result<String> {
    if model.checkpoint().is_ok() {
        return Ok(model.fingerprint()?);
    }
    let vocabulary = model.vocabulary(None)?;
    let table = model.query_side().map(|side| digest(&side.weights)).transpose()?.unwrap_or_default();
    let texts = format!("{:?} {:?} {:?}", model.query_prompt(), model.document_prompt(), model.pooling());
    let values = [("tokenizer", vocabulary.fingerprint()), ("table", &table), ("texts", &texts)];
    Ok(fingerprint("splade model without checkpoint 1", &values))
}

/// Digest of the ONNX file that may run; empty if there is none.
fn onnx_digest(model: &ModelDir, precision: Precision) -> Result<String> {
    model.onnx_paths_in(precision).first().map_or(Ok(String::new()), |path| digest(path))
}

fn digest(path: &std::path::Path) -> Result<String> {
    Ok(hex(&Sha256::digest(read_file(path)?)))
}
