//! From what the user wrote to what a training runs.

use serde_json::Value;
use splade_files::Architecture;

use super::section::{Section, as_number, as_text, as_texts, did_you_mean};
use super::{
    BatchSampler, BuiltIn, Columns, DataSetConfig, DataSetsConfig, DeviceChoice, EvaluationConfig, Evaluator,
    HardwareConfig, HeadMode, HubStrategy, InnerLossType, LossConfig, LossType, MlflowConfig, ModelCardConfig,
    ModelConfig, ModelInit, Note, Objective, QueryInit, RegularizerRamp, Reporter, Route, RouterConfig,
    SamplingStrategy, ScandiQaSources, Strategy, TokenizerInit, TrainConfig, TrainingConfig,
};
use crate::{Error, Result};

/// The thirteen sets of NanoBEIR, as `nanobeir_datasets` names them.
const NANOBEIR: [&str; 13] = [
    "climatefever",
    "dbpedia",
    "fever",
    "fiqa2018",
    "hotpotqa",
    "msmarco",
    "nfcorpus",
    "nq",
    "quoraretrieval",
    "scidocs",
    "arguana",
    "scifact",
    "touche2020",
];

/// What is remembered while a config is resolved.
struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Note { key: key.into(), reason: reason.into() });
    }

    /// Notes `key` of `section` if it is written.
    fn unused(&mut self, section: &mut Section<'_>, key: &'static str, reason: &str) {
        if section.value(key).is_some() {
            self.add(section.path_of(key), reason);
        }
    }
}

impl TrainConfig {
    /// Resolves a config: defaults filled in, every value checked, what has no effect noted.
    ///
    /// # Errors
    /// An unknown key (with the nearest known one), a missing one, a value that cannot be, or two values that
    /// contradict each other; the message names the key.
    pub fn from_value(value: &Value) -> Result<(Self, Vec<Note>)> {
        let mut notes = Notes(Vec::new());
        let mut root = Section::root(value)?;
        let mut section = |name| root.section(name);
        let (model_keys, evaluation_keys, training_keys) =
            (section("model")?, section("evaluation")?, section("training")?);
        let (loss_keys, set_keys, router_keys) = (section("loss")?, section("datasets")?, section("router")?);
        let (card_keys, hardware_keys) = (section("model_card")?, section("hardware")?);
        let mlflow = mlflow(&mut root)?;
        // before the sections are read, so that a misspelt one is not reported as missing
        root.finish()?;
        let model = model(model_keys, &mut notes)?;
        let evaluation = evaluation(evaluation_keys, &mut notes)?;
        let training = training(training_keys, &evaluation, &mut notes)?;
        let loss = loss(loss_keys, &mut notes)?;
        let datasets = datasets(set_keys, &mut notes)?;
        let router = router(router_keys, model.use_router, &mut notes)?;
        let model_card = model_card(card_keys)?;
        let hardware = hardware(hardware_keys, &mut notes)?;
        let config = Self { model, training, loss, datasets, evaluation, router, model_card, mlflow, hardware };
        config.note_traps(&mut notes);
        Ok((config, notes.0))
    }

    /// Combinations that work and rarely do what their author wants.
    fn note_traps(&self, notes: &mut Notes) {
        let queries_stay_dense = self.model.architecture == Architecture::Splade
            && self.training.objective == Objective::Retrieval
            && self.loss.query_regularizer_weight.is_none_or(|weight| weight == 0.0)
            && !self.loss.use_document_regularizer_only;
        if queries_stay_dense {
            notes.add(
                "loss.query_regularizer_weight",
                "is 0 with architecture `splade`: queries will not become sparse (5.0e-5 to 5.0e-4 is usual)",
            );
        }
    }
}

fn model(mut keys: Section<'_>, notes: &mut Notes) -> Result<ModelConfig> {
    // Before anything else, so that a CSR file gets this sentence and not a complaint about one of its keys.
    if keys.value("architecture").and_then(Value::as_str) == Some("csr") {
        return Err(keys.error(
            "architecture",
            "`csr` is an autoencoder over a dense model, which this toolkit does not train",
            "use `inference-free-splade` or `splade` with a masked-language model as base_model",
        ));
    }
    let architecture = keys.choice("architecture")?.unwrap_or(Architecture::InferenceFree);
    let use_router = architecture == Architecture::InferenceFree;
    if keys.flag("use_router")?.is_some_and(|wanted| wanted != use_router) {
        let name = if use_router { "inference-free-splade" } else { "splade" };
        let message = format!("contradicts architecture `{name}`");
        return Err(keys.error("use_router", message, "leave use_router out: it follows from the architecture"));
    }
    let base_model = keys.text("base_model")?;
    let init = if keys.value("init").is_some() { Some(model_init(keys.section("init")?)?) } else { None };
    match (&base_model, &init) {
        (None, None) => {
            return Err(keys.missing(&["base_model", "init"], "give a model folder, or model.init for a new model"));
        }
        (Some(_), Some(_)) => {
            return Err(keys.error("init", "contradicts base_model: a model is either new or not", "keep one of them"));
        }
        _ => {}
    }
    for key in ["csr_k", "csr_k_aux", "csr_hidden_dim"] {
        notes.unused(&mut keys, key, "only architecture `csr` has it");
    }
    let model = ModelConfig {
        base_model,
        base_folder: None,
        architecture,
        pooling_strategy: keys.choice("pooling_strategy")?.unwrap_or_default(),
        activation_function: keys.choice("activation_function")?.unwrap_or_default(),
        use_router,
        freeze_static_embedding: keys.flag("freeze_static_embedding")?.unwrap_or(false),
        query_init: match keys.text("query_init")? {
            None => QueryInit::Ones,
            Some(name) if name == "ones" => QueryInit::Ones,
            Some(name) if name == "idf" => QueryInit::Idf,
            Some(path) => QueryInit::File(path.into()),
        },
        mlm_head: mlm_head(&mut keys)?,
        ignored_config_keys: keys.texts("ignored_config_keys")?.unwrap_or_default(),
        load_pretrained_sparse_encoder: keys.flag("load_pretrained_sparse_encoder")?.unwrap_or(false),
        init,
    };
    keys.finish()?;
    Ok(model)
}

fn mlm_head(keys: &mut Section<'_>) -> Result<Option<HeadMode>> {
    let mode: Option<HeadMode> = keys.choice("mlm_head")?;
    let patched = keys.flag("patch_sigmoid_for_sparsity")? == Some(true);
    match (mode, patched) {
        (Some(mode), true) if mode != HeadMode::RawShifted => {
            let message = format!("means `raw-shifted` and contradicts mlm_head `{}`", mode.name());
            Err(keys.error("patch_sigmoid_for_sparsity", message, "keep mlm_head"))
        }
        (None, true) => Ok(Some(HeadMode::RawShifted)),
        (mode, _) => Ok(mode),
    }
}

fn model_init(mut keys: Section<'_>) -> Result<ModelInit> {
    let hidden_size = keys.count("hidden_size", 1)?.unwrap_or(256);
    let init = ModelInit {
        architecture: keys.text("architecture")?.unwrap_or_else(|| "bert".to_owned()),
        hidden_size,
        layers: keys.count("layers", 1)?.unwrap_or(4),
        heads: keys.count("heads", 1)?.unwrap_or(4),
        intermediate_size: keys.count("intermediate_size", 1)?.unwrap_or(4 * hidden_size),
        // Fewer could not hold the special tokens and an alphabet.
        vocab_size: keys.count("vocab_size", 100)?.unwrap_or(12_000),
        tokenizer: match keys.value("tokenizer") {
            Some(Value::String(path)) => TokenizerInit::Path(path.into()),
            Some(_) => {
                let mut tokenizer = keys.section("tokenizer")?;
                let files = tokenizer.texts("train_on")?.unwrap_or_default();
                tokenizer.finish()?;
                TokenizerInit::TrainOn(files)
            }
            None => TokenizerInit::TrainOn(Vec::new()),
        },
    };
    if !init.hidden_size.is_multiple_of(init.heads) {
        let message = format!("{} attention heads do not divide a width of {}", init.heads, init.hidden_size);
        return Err(keys.error("heads", message, ""));
    }
    keys.finish()?;
    Ok(init)
}

fn training(mut keys: Section<'_>, evaluation: &EvaluationConfig, notes: &mut Notes) -> Result<TrainingConfig> {
    const POSITIVE: f64 = f64::MIN_POSITIVE;
    let best = best_model(&mut keys, evaluation)?;
    let save_total_limit = if keys.has("save_total_limit") { keys.limit("save_total_limit")? } else { Some(1) };
    keys.value("save_total_limit");
    let training = TrainingConfig {
        objective: keys.choice("objective")?.unwrap_or(Objective::Retrieval),
        output_dir: match keys.text("output_dir")? {
            Some(path) => path.into(),
            None => return Err(keys.missing(&["output_dir"], "give the folder for checkpoints")),
        },
        num_train_epochs: keys.number("num_train_epochs", POSITIVE..=f64::MAX)?.unwrap_or(1.0),
        max_steps: keys.limit("max_steps")?,
        per_device_train_batch_size: keys.count("per_device_train_batch_size", 1)?.unwrap_or(16),
        per_device_eval_batch_size: keys.count("per_device_eval_batch_size", 1)?.unwrap_or(16),
        gradient_accumulation_steps: keys.count("gradient_accumulation_steps", 1)?.unwrap_or(1),
        learning_rate: keys.number("learning_rate", 0.0..=f64::MAX)?.unwrap_or(2e-5),
        query_learning_rate: keys.number("query_learning_rate", 0.0..=f64::MAX)?.unwrap_or(1e-3),
        warmup_ratio: keys.number("warmup_ratio", 0.0..=1.0)?.unwrap_or(0.1),
        weight_decay: keys.number("weight_decay", 0.0..=f64::MAX)?.unwrap_or(0.01),
        max_grad_norm: keys.number("max_grad_norm", 0.0..=f64::MAX)?.unwrap_or(1.0),
        bf16: keys.flag("bf16")?.unwrap_or(false),
        fp16: keys.flag("fp16")?.unwrap_or(false),
        max_seq_length: keys.count("max_seq_length", 3)?.unwrap_or(256),
        batch_sampler: keys.choice("batch_sampler")?.unwrap_or(BatchSampler::NoDuplicates),
        shuffle: keys.flag("shuffle")?.unwrap_or(true),
        seed: keys.count("seed", 0)?.unwrap_or(42) as u64,
        eval_strategy: best.eval_strategy,
        eval_steps: best.eval_steps,
        logging_steps: keys.count("logging_steps", 1)?.unwrap_or(100),
        save_strategy: best.save_strategy,
        save_steps: best.save_steps,
        save_total_limit,
        load_best_model_at_end: best.load,
        metric_for_best_model: best.metric,
        greater_is_better: best.greater,
        early_stopping_patience: keys.limit("early_stopping_patience")?,
        early_stopping_threshold: keys.number("early_stopping_threshold", 0.0..=f64::MAX)?.unwrap_or(0.0),
        push_to_hub: keys.flag("push_to_hub")?.unwrap_or(false),
        hub_model_id: keys.text("hub_model_id")?,
        hub_strategy: keys.choice("hub_strategy")?.unwrap_or(HubStrategy::Checkpoint),
        hub_private_repo: keys.flag("hub_private_repo")?.unwrap_or(false),
        logging_dir: keys.text("logging_dir")?.unwrap_or_else(|| "runs".to_owned()).into(),
        run_name: keys.text("run_name")?,
        report_to: report_to(&mut keys, notes)?,
        dataloader_num_workers: keys.count("dataloader_num_workers", 0)?.unwrap_or(0),
        dataloader_prefetch_factor: keys.count("dataloader_prefetch_factor", 1)?,
    };
    notes.unused(&mut keys, "dataloader_pin_memory", "memory is never pinned");
    notes.unused(&mut keys, "torch_compile", "there is nothing to compile");
    if keys.has("hub_token") {
        return Err(keys.error("hub_token", "a token does not belong in a config", "set HF_TOKEN instead"));
    }
    check_training(&training, &keys, notes)?;
    keys.finish()?;
    Ok(training)
}

fn check_training(training: &TrainingConfig, keys: &Section<'_>, notes: &mut Notes) -> Result<()> {
    match (training.bf16, training.fp16) {
        (true, true) => return Err(keys.error("fp16", "contradicts bf16: both are true", "keep one of them")),
        (true, false) => notes.add("training.bf16", "trains in f32 where the device has no bfloat16"),
        (false, true) => notes.add("training.fp16", "trains in f32 where the device has no float16"),
        (false, false) => {}
    }
    if training.early_stopping_patience.is_some() && training.eval_strategy == Strategy::No {
        return Err(keys.error("early_stopping_patience", "contradicts eval_strategy `no`: nothing is measured", ""));
    }
    if training.push_to_hub && training.hub_model_id.is_none() {
        return Err(keys.error("hub_model_id", "is missing, and push_to_hub is true", "name the repository"));
    }
    Ok(())
}

/// When a run evaluates and saves, and how its best model is found.
struct BestModel {
    eval_strategy: Strategy,
    eval_steps: usize,
    save_strategy: Strategy,
    save_steps: usize,
    load: bool,
    metric: String,
    greater: bool,
}

fn best_model(keys: &mut Section<'_>, evaluation: &EvaluationConfig) -> Result<BestModel> {
    let eval_strategy = keys.choice("eval_strategy")?.unwrap_or(Strategy::Steps);
    let save_strategy = keys.choice("save_strategy")?.unwrap_or(Strategy::Steps);
    let possible = eval_strategy != Strategy::No && save_strategy != Strategy::No;
    let metric = match keys.text("metric_for_best_model")? {
        Some(metric) if metric.starts_with("eval_") => metric,
        Some(metric) => format!("eval_{metric}"),
        None => default_metric(evaluation.evaluator).to_owned(),
    };
    let is_loss = metric == "eval_loss" || metric.ends_with("_loss");
    let best = BestModel {
        eval_strategy,
        eval_steps: keys.count("eval_steps", 1)?.unwrap_or(1000),
        save_strategy,
        save_steps: keys.count("save_steps", 1)?.unwrap_or(1000),
        load: keys.flag("load_best_model_at_end")?.unwrap_or(possible),
        greater: keys.flag("greater_is_better")?.unwrap_or(!is_loss),
        metric,
    };
    if best.load {
        check_best_model(&best, keys, is_loss, evaluation.evaluator)?;
    }
    Ok(best)
}

fn default_metric(evaluator: Option<Evaluator>) -> &'static str {
    match evaluator {
        Some(Evaluator::SparseNanobeir) => "eval_NanoBEIR_mean_dot_ndcg@10",
        Some(Evaluator::SparseIr) => "eval_mean_dot_ndcg@10",
        None => "eval_loss",
    }
}

fn check_best_model(best: &BestModel, keys: &Section<'_>, is_loss: bool, evaluator: Option<Evaluator>) -> Result<()> {
    let key = "load_best_model_at_end";
    if best.eval_strategy != best.save_strategy {
        let message = format!(
            "needs evaluation and saving at the same times: eval_strategy is `{}`, save_strategy `{}`",
            best.eval_strategy.name(),
            best.save_strategy.name()
        );
        return Err(keys.error(key, message, "make the two strategies equal"));
    }
    if best.eval_strategy == Strategy::No {
        return Err(keys.error(key, "contradicts eval_strategy `no`: nothing is measured", ""));
    }
    // The reference asks for save_steps to be a multiple of eval_steps; the other way round each evaluation has its
    // checkpoint just as well, and files of the Python project have it.
    let (eval, save) = (best.eval_steps, best.save_steps);
    if best.eval_strategy == Strategy::Steps && eval % save != 0 && save % eval != 0 {
        let message =
            format!("needs checkpoints of what was evaluated, but eval_steps {eval} and save_steps {save} do not meet");
        return Err(keys.error(key, message, "make one a multiple of the other"));
    }
    if !is_loss && evaluator.is_none() {
        let message = format!("`{}` is not measured: evaluation.evaluator is not set", best.metric);
        let hint = "set an evaluator, or leave the key out: then the sum of the losses on the development sets decides";
        return Err(keys.error("metric_for_best_model", message, hint));
    }
    if is_loss && best.greater {
        return Err(keys.error("greater_is_better", format!("is true, but `{}` is a loss", best.metric), ""));
    }
    Ok(())
}

fn report_to(keys: &mut Section<'_>, notes: &mut Notes) -> Result<Vec<Reporter>> {
    let known = ["tensorboard", "mlflow", "wandb"];
    let Some(names) = keys.texts("report_to")? else { return Ok(vec![Reporter::Tensorboard]) };
    let mut reporters = Vec::new();
    for name in names {
        match name.as_str() {
            "tensorboard" => reporters.push(Reporter::Tensorboard),
            "mlflow" => reporters.push(Reporter::Mlflow),
            "all" => reporters.extend([Reporter::Tensorboard, Reporter::Mlflow]),
            "none" => {}
            "wandb" => notes.add(keys.path_of("report_to"), "wandb is a service this toolkit does not report to"),
            other => {
                let message = format!("`{other}` is none of {}", known.join(", "));
                return Err(keys.error("report_to", message, did_you_mean(other, &known)));
            }
        }
    }
    Ok(reporters)
}

fn loss(mut keys: Section<'_>, notes: &mut Notes) -> Result<LossConfig> {
    notes.unused(&mut keys, "aux_loss_weight", "only architecture `csr` has it");
    let without_query_term = keys.has("query_regularizer_weight") && keys.value("query_regularizer_weight").is_none();
    let query_regularizer_weight = keys.number("query_regularizer_weight", 0.0..=f64::MAX)?;
    let loss = LossConfig {
        loss_type: keys.choice("type")?.unwrap_or(LossType::SpladeLoss),
        inner_loss: keys.choice("inner_loss")?.unwrap_or(InnerLossType::MultipleNegativesRanking),
        query_regularizer_weight: if without_query_term { None } else { query_regularizer_weight.or(Some(0.0)) },
        document_regularizer_weight: keys.number("document_regularizer_weight", 0.0..=f64::MAX)?.unwrap_or(3e-3),
        use_document_regularizer_only: keys.flag("use_document_regularizer_only")?.unwrap_or(false),
        regularizer_schedule: keys.choice("regularizer_schedule")?.unwrap_or(RegularizerRamp::Quadratic),
        regularizer_warmup_ratio: keys.number("regularizer_warmup_ratio", 0.0..=1.0)?.unwrap_or(1.0 / 3.0),
        document_regularizer_threshold: keys.limit("document_regularizer_threshold")?,
        scale: keys.number("scale", f64::MIN_POSITIVE..=f64::MAX)?.unwrap_or(1.0),
    };
    keys.finish()?;
    Ok(loss)
}

fn datasets(mut keys: Section<'_>, notes: &mut Notes) -> Result<DataSetsConfig> {
    let sampling_strategy = keys.choice("sampling_strategy")?.unwrap_or(SamplingStrategy::RoundRobin);
    let sets: Vec<DataSetConfig> = keys
        .named_entries()
        .map(|(name, value)| match value {
            Value::Object(_) | Value::Null => data_set(name, keys.named_section(name, value)?, notes),
            _ => Err(keys.error(
                name,
                "is not a data set: expected keys and values",
                did_you_mean(name, &["sampling_strategy"]),
            )),
        })
        .collect::<Result<_>>()?;
    if !sets.iter().any(|set| set.enabled) {
        let message = if sets.is_empty() { "no data set is given" } else { "no data set is enabled" };
        return Err(Error::config("datasets", message, "give one: `datasets: {mine: {files: [train.jsonl]}}`"));
    }
    Ok(DataSetsConfig { sampling_strategy, sets })
}

fn data_set(name: &str, mut keys: Section<'_>, notes: &mut Notes) -> Result<DataSetConfig> {
    let built_in = BuiltIn::named(name);
    let mut set = DataSetConfig {
        name: name.to_owned(),
        built_in,
        enabled: keys.flag("enabled")?.unwrap_or(true),
        files: keys.texts("files")?.unwrap_or_default(),
        dev_files: keys.texts("dev_files")?.unwrap_or_default(),
        source: keys.text("source")?,
        config: keys.text("config")?,
        split: keys.text("split")?,
        columns: columns(keys.section("columns")?)?,
        filter: filter(&mut keys)?,
        max_samples: keys.limit("max_samples")?,
        split_ratio: split_ratio(&mut keys)?,
        languages: None,
        tasks: None,
        scandi_qa: None,
    };
    match built_in {
        Some(BuiltIn::Nli) => {
            set.languages = keys.texts("languages")?;
            if set.languages.as_ref().is_some_and(|languages| languages != &["norwegian"]) {
                notes.add(keys.path_of("languages"), "the set has one language, which is taken as it is");
            }
        }
        Some(BuiltIn::Ddsc) => {
            set.languages = keys.texts("languages")?;
            set.tasks = keys.texts("tasks")?;
        }
        Some(BuiltIn::ScandiQa) => set.scandi_qa = scandi_qa(&mut keys, !set.files.is_empty(), notes)?,
        Some(BuiltIn::Eti) | None => {}
    }
    check_data_set(&set, &keys, notes)?;
    keys.finish()?;
    Ok(set)
}

fn check_data_set(set: &DataSetConfig, keys: &Section<'_>, notes: &mut Notes) -> Result<()> {
    let from_hub = set.built_in.is_some() || set.source.is_some();
    if set.enabled && set.files.is_empty() && !from_hub {
        return Err(keys.error("files", "is missing, and there is no source either", "give paths or globs"));
    }
    if !set.files.is_empty() && set.built_in.is_none() && set.source.is_some() {
        return Err(keys.error("source", "contradicts files: the rows come from one of them", "keep one of them"));
    }
    if !set.dev_files.is_empty() && set.split_ratio.is_some() {
        notes.add(keys.path_of("split_ratio"), "is not used: dev_files are given, so all rows of files are trained on");
    }
    Ok(())
}

fn columns(mut keys: Section<'_>) -> Result<Columns> {
    let columns = Columns {
        anchor: keys.text("anchor")?,
        positive: keys.text("positive")?,
        negative: keys.texts("negative")?.unwrap_or_default(),
        label: keys.text("label")?,
        text: keys.text("text")?,
    };
    keys.finish()?;
    Ok(columns)
}

fn filter(keys: &mut Section<'_>) -> Result<Vec<(String, Vec<String>)>> {
    let filter = keys.section("filter")?;
    filter
        .named_entries()
        .map(|(column, values)| match as_texts(values) {
            Some(values) => Ok((column.clone(), values)),
            None => Err(filter.error(column, "expected a list of values", "")),
        })
        .collect()
}

fn split_ratio(keys: &mut Section<'_>) -> Result<Option<[f64; 3]>> {
    let Some(value) = keys.value("split_ratio") else { return Ok(None) };
    let shares: Option<Vec<f64>> =
        value.as_array().and_then(|values| values.iter().map(as_number).collect::<Option<_>>());
    let ratio: Option<[f64; 3]> = shares.and_then(|shares| shares.try_into().ok());
    let ratio = ratio.filter(|shares| shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares[0] > 0.0);
    // Decimal shares such as 0.98, 0.01, 0.01 do not add up to exactly 1 in binary.
    match ratio.filter(|shares| (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6) {
        Some(ratio) => Ok(Some(ratio)),
        None => {
            let hint = "for instance [0.98, 0.01, 0.01]: training, development, test";
            Err(keys.error("split_ratio", "expected three shares that add up to 1, the first above 0", hint))
        }
    }
}

fn scandi_qa(keys: &mut Section<'_>, from_files: bool, notes: &mut Notes) -> Result<Option<ScandiQaSources>> {
    let names =
        ["use_norquad", "use_openbookqa", "use_scandiqa", "use_supervised_da", "use_paws", "scandiqa_languages"];
    if from_files {
        for key in names {
            notes.unused(keys, key, "is not used: files are given, and all their rows are taken");
        }
        keys.value("paws_data_dir");
        return Ok(None);
    }
    let sources = ScandiQaSources {
        use_norquad: keys.flag("use_norquad")?.unwrap_or(true),
        use_openbookqa: keys.flag("use_openbookqa")?.unwrap_or(true),
        use_scandiqa: keys.flag("use_scandiqa")?.unwrap_or(true),
        use_supervised_da: keys.flag("use_supervised_da")?.unwrap_or(true),
        use_paws: keys.flag("use_paws")?.unwrap_or(true),
        scandiqa_languages: keys
            .texts("scandiqa_languages")?
            .unwrap_or_else(|| ["no", "da", "sv"].map(str::to_owned).to_vec()),
        paws_data_dir: keys.text("paws_data_dir")?.unwrap_or_else(|| "data/paws-x/x-final".to_owned()).into(),
    };
    Ok(Some(sources))
}

fn evaluation(mut keys: Section<'_>, notes: &mut Notes) -> Result<EvaluationConfig> {
    notes.unused(&mut keys, "mteb_tasks", "is read by `splade eval-mteb`, not while training");
    let evaluation = EvaluationConfig {
        evaluator: keys.choice("evaluator")?,
        nanobeir_datasets: keys
            .texts("nanobeir_datasets")?
            .unwrap_or_else(|| vec!["msmarco".to_owned(), "nfcorpus".to_owned()]),
        mteb_tasks: keys.texts("mteb_tasks")?.unwrap_or_default(),
        track_sparsity: keys.flag("track_sparsity")?.unwrap_or(true),
        log_decoded_samples: keys.count("log_decoded_samples", 0)?.unwrap_or(10),
        data: keys.texts("data")?.unwrap_or_default().into_iter().map(Into::into).collect(),
    };
    if evaluation.nanobeir_datasets.is_empty() {
        return Err(keys.error("nanobeir_datasets", "is empty", "name at least one set"));
    }
    if let Some(name) =
        evaluation.nanobeir_datasets.iter().find(|name| !NANOBEIR.contains(&name.to_lowercase().as_str()))
    {
        return Err(keys.error(
            "nanobeir_datasets",
            format!("there is no set `{name}`"),
            did_you_mean(name, &NANOBEIR),
        ));
    }
    match (evaluation.evaluator, evaluation.data.is_empty()) {
        (Some(Evaluator::SparseIr), true) => {
            return Err(keys.error("data", "is missing, and evaluator is `sparse_ir`", "give folders in BEIR layout"));
        }
        (None, false) => {
            return Err(keys.error("data", "is given, but there is no evaluator", "set `evaluator: sparse_ir`"));
        }
        _ => {}
    }
    keys.finish()?;
    Ok(evaluation)
}

fn router(mut keys: Section<'_>, use_router: bool, notes: &mut Notes) -> Result<RouterConfig> {
    let mapping = router_mapping(keys.section("mapping")?)?;
    let patterns = keys.section("learning_rate_patterns")?;
    let learning_rate_patterns: Vec<(String, f64)> = patterns
        .named_entries()
        .map(|(pattern, rate)| {
            if let Err(error) = regex::Regex::new(pattern) {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                return Err(patterns.error(pattern, format!("not a regular expression: {reason}"), ""));
            }
            let rate = as_number(rate).ok_or_else(|| patterns.error(pattern, "expected a learning rate", ""))?;
            Ok((pattern.clone(), patterns.within(pattern, rate, 0.0..=f64::MAX)?))
        })
        .collect::<Result<_>>()?;
    let unused = !use_router && !learning_rate_patterns.is_empty();
    if unused {
        notes.add(keys.path_of("learning_rate_patterns"), "is not used: architecture `splade` has no router");
    }
    keys.finish()?;
    Ok(RouterConfig { mapping, learning_rate_patterns: if unused { Vec::new() } else { learning_rate_patterns } })
}

fn router_mapping(keys: Section<'_>) -> Result<Vec<(String, Route)>> {
    let defaults = [("anchor", Route::Query), ("positive", Route::Document), ("negative", Route::Document)];
    let mut mapping: Vec<(String, Route)> = Vec::new();
    for (column, value) in keys.named_entries() {
        let route = match value.as_str() {
            Some("query") => Route::Query,
            Some("document") => Route::Document,
            _ => return Err(keys.error(column, "is neither query nor document", "")),
        };
        if defaults.iter().any(|(name, side)| name == column && *side != route) {
            let message = format!("cannot be routed to `{}`: anchors are queries, the others documents", route.name());
            return Err(keys.error(column, message, "swap the columns of the data set instead, under `columns`"));
        }
        mapping.push((column.clone(), route));
    }
    if mapping.is_empty() {
        mapping = defaults.map(|(column, route)| (column.to_owned(), route)).to_vec();
    }
    Ok(mapping)
}

fn model_card(mut keys: Section<'_>) -> Result<ModelCardConfig> {
    let card = ModelCardConfig {
        language: keys.texts("language")?.unwrap_or_default(),
        license: keys.text("license")?,
        library_name: keys.text("library_name")?.unwrap_or_else(|| "sentence-transformers".to_owned()),
        tags: keys.texts("tags")?.unwrap_or_default(),
        model_name: keys.text("model_name")?,
        datasets_used: keys.texts("datasets_used")?.unwrap_or_default(),
    };
    keys.finish()?;
    Ok(card)
}

fn mlflow(root: &mut Section<'_>) -> Result<Option<MlflowConfig>> {
    if root.value("mlflow").is_none() {
        return Ok(None);
    }
    let mut keys = root.section("mlflow")?;
    let tags = keys.section("tags")?;
    let tags = tags
        .named_entries()
        .map(|(name, value)| match as_text(value) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(tags.error(name, "expected a text", "")),
        })
        .collect::<Result<_>>()?;
    let mlflow = MlflowConfig {
        tracking_uri: keys.text("tracking_uri")?.unwrap_or_else(|| "mlruns".to_owned()),
        experiment_name: keys.text("experiment_name")?.unwrap_or_else(|| "sparse-encoder-training".to_owned()),
        tags,
    };
    keys.finish()?;
    Ok(Some(mlflow))
}

fn hardware(mut keys: Section<'_>, notes: &mut Notes) -> Result<HardwareConfig> {
    notes.unused(&mut keys, "tf32", "products of f32 matrices are computed as the device does by itself");
    let hardware = HardwareConfig {
        device: keys.choice("device")?.unwrap_or(DeviceChoice::Auto),
        gradient_checkpointing: keys.flag("gradient_checkpointing")?.unwrap_or(false),
        distributed: keys.flag("distributed")?.unwrap_or(false),
        world_size: keys.count("world_size", 1)?.unwrap_or(1),
    };
    if hardware.distributed && hardware.world_size > 1 {
        let message = format!("training on {} devices is not in this toolkit", hardware.world_size);
        let hint = format!(
            "set `distributed: false` and multiply training.gradient_accumulation_steps by {} for as many examples a step",
            hardware.world_size
        );
        return Err(keys.error("distributed", message, hint));
    }
    keys.finish()?;
    Ok(hardware)
}
