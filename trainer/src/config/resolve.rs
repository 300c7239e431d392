//! From the file of a user to the config that a training runs.

use std::path::{Component, Path};

use serde_json::Value;
use splade_files::Architecture;

use super::hub::parts_of;
use super::section::{Notes, Section, as_number, as_text, as_texts, did_you_mean};
use super::{
    BuiltIn, Columns, DataSetConfig, DataSetsConfig, EvaluationConfig, Evaluator, HardwareConfig, HeadMode, LossConfig,
    MaskingUnit, MlflowConfig, MlmConfig, ModelCardConfig, ModelConfig, ModelInit, Note, Objective, QueryInit,
    Reporter, Route, RouterConfig, SPAN_MAX_LENGTH, ScandiQaConfig, Strategy, TokenizerInit, TrainConfig,
    TrainingConfig, UploadConfig,
};
use crate::{Error, Result};

/// The reason why keys of the query table have no effect with architecture `splade`.
const NO_TABLE: &str = "is not used: architecture `splade` has no query table";
/// The reason why keys of the loss have no effect with objective `mlm`.
const NO_RANKING: &str = "is not used: objective `mlm` has a loss of its own";

impl TrainConfig {
    /// Resolves a config: defaults filled in, every value checked, keys without effect noted.
    ///
    /// # Errors
    /// An unknown key (with the nearest known one), a missing one, a value that cannot be, or two values that
    /// contradict each other; the message names the key.
    pub fn from_value(value: &Value) -> Result<(Self, Vec<Note>)> {
        let notes = Notes::default();
        let config = resolve(value, &notes)?;
        Ok((config, notes.into_inner()))
    }
}

fn resolve(value: &Value, notes: &Notes) -> Result<TrainConfig> {
    let mut root = Section::root(value, notes)?;
    let mut section = |name| root.section(name);
    let (model_keys, evaluation_keys, training_keys) =
        (section("model")?, section("evaluation")?, section("training")?);
    let (loss_keys, mlm_keys) = (section("loss")?, section("mlm")?);
    let (set_keys, router_keys) = (section("datasets")?, section("router")?);
    let (card_keys, mlflow_keys, hardware_keys) = (section("model_card")?, section("mlflow")?, section("hardware")?);
    // before the sections are read, so that a misspelt one is not reported as missing
    root.finish()?;
    let model = model(model_keys)?;
    let evaluation = evaluation(evaluation_keys)?;
    let training = training(training_keys, &evaluation, model.use_router)?;
    let loss = loss(loss_keys, &model, training.objective)?;
    let mlm = mlm(mlm_keys, training.objective)?;
    let datasets = datasets(set_keys, training.objective)?;
    let router = router(router_keys, model.use_router)?;
    let model_card = model_card(card_keys)?;
    let mlflow = mlflow(mlflow_keys, training.report_to.contains(&Reporter::Mlflow))?;
    let hardware = hardware(hardware_keys)?;
    Ok(TrainConfig { model, training, loss, mlm, datasets, evaluation, router, model_card, mlflow, hardware })
}

fn model(mut keys: Section<'_>) -> Result<ModelConfig> {
    // Before anything else, so that a CSR file gets this sentence and not a complaint about one of its keys.
    if keys.value("architecture").and_then(Value::as_str) == Some("csr") {
        return Err(keys.error(
            "architecture",
            "`csr` is an autoencoder over a dense model, which this toolkit does not train",
            "use `inference-free-splade` or `splade` with a masked-language model as base_model",
        ));
    }
    let wanted = keys.optional("use_router", Section::flag)?;
    let architecture = match (keys.value("architecture"), wanted) {
        // the Python project's files say it by the router alone
        (None, Some(false)) => Architecture::Splade,
        _ => keys.choice("architecture")?,
    };
    let use_router = architecture == Architecture::InferenceFree;
    if wanted.is_some_and(|wanted| wanted != use_router) {
        let name = if use_router { "inference-free-splade" } else { "splade" };
        let message = format!("contradicts architecture `{name}`");
        return Err(keys.error("use_router", message, "leave use_router out: it follows from the architecture"));
    }
    let base_model = keys.optional("base_model", Section::text)?;
    let init = keys.optional("init", |keys, key| model_init(keys.section(key)?))?;
    match (&base_model, &init) {
        (None, None) => {
            return Err(keys.missing(&["base_model", "init"], "give a model folder, or model.init for a new model"));
        }
        (Some(_), Some(_)) => {
            return Err(keys.error("init", "contradicts base_model: a model is either new or not", "keep one of them"));
        }
        _ => {}
    }
    let model = ModelConfig {
        base_model,
        base_folder: None,
        architecture,
        pooling_strategy: keys.choice("pooling_strategy")?,
        activation_function: keys.choice("activation_function")?,
        use_router,
        freeze_static_embedding: keys.flag("freeze_static_embedding")?,
        query_init: match keys.text("query_init")?.as_str() {
            "ones" => QueryInit::Ones,
            "idf" => QueryInit::Idf,
            path => QueryInit::File(path.into()),
        },
        mlm_head: mlm_head(&mut keys)?,
        patch_sigmoid_for_sparsity: keys.flag("patch_sigmoid_for_sparsity")?,
        ignored_config_keys: keys.texts("ignored_config_keys")?,
        load_pretrained_sparse_encoder: keys.flag("load_pretrained_sparse_encoder")?,
        init,
    };
    if !use_router {
        keys.note_if_changed("freeze_static_embedding", NO_TABLE);
        keys.note_if_changed("query_init", NO_TABLE);
    }
    keys.finish()?;
    Ok(model)
}

fn mlm_head(keys: &mut Section<'_>) -> Result<Option<HeadMode>> {
    let mode: Option<HeadMode> = keys.optional("mlm_head", Section::choice)?;
    let patched = keys.flag("patch_sigmoid_for_sparsity")?;
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
    let hidden_size = keys.count("hidden_size", 1)?;
    let init = ModelInit {
        architecture: keys.text("architecture")?,
        hidden_size,
        layers: keys.count("layers", 1)?,
        heads: keys.count("heads", 1)?,
        intermediate_size: keys
            .optional("intermediate_size", |keys, key| keys.count(key, 1))?
            .unwrap_or(4 * hidden_size),
        // Fewer could not hold the special tokens and an alphabet.
        vocab_size: keys.count("vocab_size", 100)?,
        tokenizer: match keys.value("tokenizer") {
            Some(Value::String(path)) => TokenizerInit::Path(path.into()),
            _ => {
                let mut tokenizer = keys.section("tokenizer")?;
                let (kind, files) = (tokenizer.choice("type")?, tokenizer.texts("train_on")?);
                tokenizer.finish()?;
                TokenizerInit::TrainOn { kind, files }
            }
        },
    };
    if !init.hidden_size.is_multiple_of(init.heads) {
        let message = format!("{} attention heads do not divide a width of {}", init.heads, init.hidden_size);
        return Err(keys.error("heads", message, ""));
    }
    keys.finish()?;
    Ok(init)
}

fn training(mut keys: Section<'_>, evaluation: &EvaluationConfig, has_table: bool) -> Result<TrainingConfig> {
    const POSITIVE: f64 = f64::MIN_POSITIVE;
    let best = best_model(&mut keys, evaluation)?;
    // Python's `save_total_limit: null` keeps all
    let all = keys.has("save_total_limit") && keys.value("save_total_limit").is_none();
    let save_total_limit = if all { None } else { keys.limit("save_total_limit")? };
    let training = TrainingConfig {
        objective: keys.choice("objective")?,
        output_dir: match keys.optional("output_dir", Section::text)? {
            Some(path) => path.into(),
            None => return Err(keys.missing(&["output_dir"], "give the folder for checkpoints")),
        },
        num_train_epochs: keys.number("num_train_epochs", POSITIVE..=f64::MAX)?,
        max_steps: keys.limit("max_steps")?,
        per_device_train_batch_size: keys.count("per_device_train_batch_size", 1)?,
        per_device_eval_batch_size: keys.count("per_device_eval_batch_size", 1)?,
        gradient_accumulation_steps: keys.count("gradient_accumulation_steps", 1)?,
        learning_rate: keys.number("learning_rate", 0.0..=f64::MAX)?,
        query_learning_rate: keys.number("query_learning_rate", 0.0..=f64::MAX)?,
        warmup_ratio: keys.number("warmup_ratio", 0.0..=1.0)?,
        weight_decay: keys.number("weight_decay", 0.0..=f64::MAX)?,
        max_grad_norm: keys.number("max_grad_norm", 0.0..=f64::MAX)?,
        bf16: keys.flag("bf16")?,
        max_seq_length: keys.count("max_seq_length", 3)?,
        batch_sampler: keys.choice("batch_sampler")?,
        shuffle: keys.flag("shuffle")?,
        seed: keys.count("seed", 0)? as u64,
        eval_strategy: best.eval_strategy,
        eval_steps: best.eval_steps,
        logging_steps: keys.count("logging_steps", 1)?,
        save_strategy: best.save_strategy,
        save_steps: best.save_steps,
        save_total_limit,
        load_best_model_at_end: best.load,
        metric_for_best_model: best.metric,
        greater_is_better: best.greater,
        early_stopping_patience: keys.limit("early_stopping_patience")?,
        early_stopping_threshold: keys.number("early_stopping_threshold", 0.0..=f64::MAX)?,
        logging_dir: keys.text("logging_dir")?.into(),
        run_name: run_name(&mut keys)?,
        dataloader_num_workers: keys.count("dataloader_num_workers", 0)?,
        dataloader_prefetch_factor: keys.count("dataloader_prefetch_factor", 1)?,
        report_to: report_to(&mut keys)?,
        hub: upload(&mut keys)?,
    };
    if training.dataloader_num_workers == 0 {
        keys.note_if_changed("dataloader_prefetch_factor", "is not used: dataloader_num_workers is 0");
    } else if training.objective == Objective::Mlm {
        let reason = "is not used: objective `mlm` tokenizes all texts before the first step";
        note_all(&mut keys, &["dataloader_num_workers", "dataloader_prefetch_factor"], reason);
    }
    if !has_table {
        keys.note_if_changed("query_learning_rate", NO_TABLE);
    }
    if training.eval_strategy != Strategy::Steps {
        keys.note_if_changed("eval_steps", "is not used: eval_strategy is not `steps`");
    }
    if training.save_strategy != Strategy::Steps {
        keys.note_if_changed("save_steps", "is not used: save_strategy is not `steps`");
    }
    if keys.has("hub_token") {
        return Err(keys.error("hub_token", "a token does not belong in a config", "set HF_TOKEN instead"));
    }
    if training.early_stopping_patience.is_some() && training.eval_strategy == Strategy::No {
        return Err(keys.error("early_stopping_patience", "contradicts eval_strategy `no`: nothing is measured", ""));
    }
    keys.finish()?;
    Ok(training)
}

/// The keys about uploads to the Hub.
fn upload(keys: &mut Section<'_>) -> Result<Option<UploadConfig>> {
    let upload = UploadConfig {
        model_id: keys.optional("hub_model_id", Section::text)?,
        strategy: keys.choice("hub_strategy")?,
        private: keys.flag("hub_private_repo")?,
    };
    if keys.flag("push_to_hub")? {
        return Ok(Some(upload));
    }
    for key in ["hub_model_id", "hub_strategy", "hub_private_repo"] {
        keys.note_if_changed(key, "is not used: push_to_hub is false");
    }
    Ok(None)
}

/// The name of a run, which is a folder below `logging_dir`.
fn run_name(keys: &mut Section<'_>) -> Result<Option<String>> {
    let name = keys.optional("run_name", Section::text)?;
    let is_below = |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match name {
        Some(name) if !is_below(&name) => {
            let message = format!("`{name}` is not the name of a folder below logging_dir");
            Err(keys.error("run_name", message, "leave out `..` and a leading `/`"))
        }
        name => Ok(name),
    }
}

/// The keys about evaluations, checkpoints and the best of them.
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
    let eval_strategy: Strategy = keys.choice("eval_strategy")?;
    let save_strategy: Strategy = keys.choice("save_strategy")?;
    let possible = eval_strategy != Strategy::No && save_strategy != Strategy::No;
    let mut metric = match keys.optional("metric_for_best_model", Section::text)? {
        Some(metric) if metric.starts_with("eval_") => metric,
        Some(metric) => format!("eval_{metric}"),
        None => default_metric(evaluation.evaluator).to_owned(),
    };
    // left in a file of the Python project whose evaluator was switched off
    let is_left_over = evaluation.evaluator.is_none() && metric.starts_with("eval_NanoBEIR_");
    if is_left_over {
        let reason = "is not measured without an evaluator: the sum of the losses on the development sets decides";
        keys.note("metric_for_best_model", reason);
        default_metric(None).clone_into(&mut metric);
    }
    let is_loss = metric == "eval_loss" || metric.ends_with("_loss");
    let greater = keys.optional("greater_is_better", Section::flag)?.filter(|_| !is_left_over);
    let best = BestModel {
        eval_strategy,
        eval_steps: keys.count("eval_steps", 1)?,
        save_strategy,
        save_steps: keys.count("save_steps", 1)?,
        load: keys.optional("load_best_model_at_end", Section::flag)?.unwrap_or(possible),
        greater: greater.unwrap_or(!is_loss),
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
    // checkpoint too, and files of the Python project have it.
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

fn report_to(keys: &mut Section<'_>) -> Result<Vec<Reporter>> {
    let known = ["tensorboard", "mlflow", "wandb"];
    let mut reporters = Vec::new();
    for name in keys.texts("report_to")? {
        match name.as_str() {
            "tensorboard" => reporters.push(Reporter::Tensorboard),
            "all" => {
                reporters.push(Reporter::Tensorboard);
                keys.note("report_to", "`all` is TensorBoard here; name `mlflow` to report there too");
            }
            "none" => {}
            "mlflow" => reporters.push(Reporter::Mlflow),
            "wandb" => keys.note("report_to", "wandb is a service that this toolkit does not report to"),
            other => {
                let message = format!("`{other}` is none of {}", known.join(", "));
                return Err(keys.error("report_to", message, did_you_mean(other, &known)));
            }
        }
    }
    Ok(reporters)
}

/// The keys of `loss` that have an effect on the ranking loss and its regularizers.
const LOSS_KEYS: [&str; 9] = [
    "inner_loss",
    "query_regularizer_weight",
    "document_regularizer_weight",
    "use_document_regularizer_only",
    "regularizer_schedule",
    "regularizer_warmup_ratio",
    "document_regularizer_threshold",
    "scale",
    "mini_batch_size",
];

fn loss(mut keys: Section<'_>, model: &ModelConfig, objective: Objective) -> Result<LossConfig> {
    let without_query_term = keys.has("query_regularizer_weight") && keys.value("query_regularizer_weight").is_none();
    let query_regularizer_weight = keys.number("query_regularizer_weight", 0.0..=f64::MAX)?;
    let loss = LossConfig {
        loss_type: keys.choice("type")?,
        inner_loss: keys.choice("inner_loss")?,
        query_regularizer_weight: (!without_query_term).then_some(query_regularizer_weight),
        document_regularizer_weight: keys.number("document_regularizer_weight", 0.0..=f64::MAX)?,
        use_document_regularizer_only: keys.flag("use_document_regularizer_only")?,
        regularizer_schedule: keys.choice("regularizer_schedule")?,
        regularizer_warmup_ratio: keys.number("regularizer_warmup_ratio", 0.0..=1.0)?,
        document_regularizer_threshold: keys.limit("document_regularizer_threshold")?,
        scale: keys.number("scale", f64::MIN_POSITIVE..=f64::MAX)?,
        mini_batch_size: keys.limit("mini_batch_size")?,
    };
    let queries_stay_dense = model.architecture == Architecture::Splade
        && objective == Objective::Retrieval
        && loss.query_regularizer_weight.is_none_or(|weight| weight == 0.0)
        && !loss.use_document_regularizer_only;
    if queries_stay_dense {
        let reason = "is 0 with architecture `splade`: queries will not become sparse (5.0e-5 to 5.0e-4 is usual)";
        keys.note("query_regularizer_weight", reason);
    }
    if objective == Objective::Mlm {
        for key in LOSS_KEYS {
            keys.note_if_changed(key, NO_RANKING);
        }
    }
    keys.finish()?;
    Ok(loss)
}

fn mlm(mut keys: Section<'_>, objective: Objective) -> Result<MlmConfig> {
    const ABOVE_0: f64 = f64::MIN_POSITIVE;
    let mut mlm = MlmConfig {
        masking: keys.choice("masking")?,
        probability: keys.number("probability", ABOVE_0..=1.0)?,
        span_p: keys.number("span_p", ABOVE_0..=1.0)?,
        span_max_length: keys.count("span_max_length", 1)?,
    };
    keys.within("span_max_length", mlm.span_max_length as f64, 1.0..=SPAN_MAX_LENGTH as f64)?;
    if objective != Objective::Mlm {
        for key in ["masking", "probability", "span_p", "span_max_length"] {
            keys.note_if_changed(key, "is not used: training.objective is not `mlm`");
        }
        mlm = MlmConfig::default();
    } else if mlm.masking != MaskingUnit::Span {
        for key in ["span_p", "span_max_length"] {
            keys.note_if_changed(key, "is not used: mlm.masking is not `span`");
        }
        let MlmConfig { span_p, span_max_length, .. } = MlmConfig::default();
        mlm = MlmConfig { span_p, span_max_length, ..mlm };
    }
    keys.finish()?;
    Ok(mlm)
}

fn datasets(mut keys: Section<'_>, objective: Objective) -> Result<DataSetsConfig> {
    let sampling_strategy = keys.choice("sampling_strategy")?;
    let sets: Vec<DataSetConfig> = keys
        .named_entries()
        .map(|(name, value)| match value {
            Value::Object(_) | Value::Null => data_set(name, keys.named_section(name, value)?, objective),
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

fn data_set(name: &str, mut keys: Section<'_>, objective: Objective) -> Result<DataSetConfig> {
    let built_in = BuiltIn::named(name);
    let mut set = DataSetConfig {
        name: name.to_owned(),
        built_in,
        enabled: keys.flag("enabled")?,
        files: keys.texts("files")?,
        dev_files: keys.texts("dev_files")?,
        source: keys.optional("source", Section::text)?,
        columns: columns(keys.section("columns")?)?,
        filter: filter(&mut keys)?,
        max_samples: keys.limit("max_samples")?,
        split_ratio: split_ratio(&mut keys)?,
        config: keys.optional("config", Section::text)?,
        split: keys.optional("split", Section::text)?,
        languages: None,
        tasks: None,
        scandi_qa: None,
        parts: Vec::new(),
    };
    match built_in {
        Some(BuiltIn::Nli) => {
            set.languages = keys.optional("languages", Section::texts)?;
            if set.languages.as_ref().is_some_and(|languages| languages != &["norwegian"]) {
                keys.note("languages", "the set has one language, which is taken as it is");
            }
        }
        Some(BuiltIn::Ddsc) => {
            set.languages = keys.optional("languages", Section::texts)?;
            set.tasks = keys.optional("tasks", Section::texts)?;
        }
        Some(BuiltIn::ScandiQa) => set.scandi_qa = Some(scandi_qa(&mut keys)?),
        Some(BuiltIn::Eti) | None => {}
    }
    check_data_set(&set, &mut keys)?;
    if !set.files.is_empty() {
        (set.source, set.config, set.split, set.scandi_qa) = (None, None, None, None);
    } else if set.scandi_qa.is_some() {
        (set.source, set.config, set.split) = (None, None, None);
    }
    set.parts = parts_of(&set);
    if set.enabled && set.files.is_empty() && set.parts.is_empty() {
        return Err(keys.error("use_norquad", "is false, and so is every other source", "switch one on"));
    }
    if objective == Objective::Mlm {
        for key in ["dev_files", "split_ratio"] {
            keys.note_if_changed(key, "is not used: objective `mlm` trains on all rows of files");
        }
    }
    keys.finish()?;
    Ok(set)
}

/// The keys of a data set that say where on the Hub it is.
const HUB_KEYS: [&str; 3] = ["source", "config", "split"];
/// The keys of `scandi_qa` that choose its sources on the Hub.
const SCANDI_QA_KEYS: [&str; 7] = [
    "use_norquad",
    "use_openbookqa",
    "use_scandiqa",
    "use_supervised_da",
    "use_paws",
    "scandiqa_languages",
    "paws_data_dir",
];

fn check_data_set(set: &DataSetConfig, keys: &mut Section<'_>) -> Result<()> {
    let from_hub = set.built_in.is_some() || set.source.is_some();
    if set.enabled && set.files.is_empty() && !from_hub {
        return Err(keys.error("files", "is missing, and there is no source either", "give paths or globs"));
    }
    if !set.files.is_empty() && set.built_in.is_none() && set.source.is_some() {
        return Err(keys.error("source", "contradicts files: the rows come from one of them", "keep one of them"));
    }
    if !set.files.is_empty() {
        note_all(keys, &HUB_KEYS, "is not used: files are given, and all their rows are taken");
        if set.scandi_qa.is_some() {
            note_all(keys, &SCANDI_QA_KEYS, "is not used: files are given, and all their rows are taken");
        }
    } else if set.scandi_qa.is_some() {
        note_all(keys, &HUB_KEYS, "is not used: `scandi_qa` has sources of its own, which the keys use_… choose");
    }
    if !set.dev_files.is_empty() && set.split_ratio.is_some() {
        keys.note("split_ratio", "is not used: dev_files are given, so all rows of files are trained on");
    }
    Ok(())
}

/// Notes those of the keys that are written.
fn note_all(keys: &mut Section<'_>, names: &[&'static str], reason: &str) {
    for name in names {
        if keys.value(name).is_some() {
            keys.note(name, reason);
        }
    }
}

fn scandi_qa(keys: &mut Section<'_>) -> Result<ScandiQaConfig> {
    let mut languages = keys.texts("scandiqa_languages")?;
    for language in &mut languages {
        *language = match language.as_str() {
            "no" | "nb" | "norwegian" => "no",
            "da" | "danish" => "da",
            "sv" | "swedish" => "sv",
            other => {
                let message = format!("`{other}` is none of no, da, sv");
                return Err(keys.error("scandiqa_languages", message, ""));
            }
        }
        .to_owned();
    }
    Ok(ScandiQaConfig {
        use_norquad: keys.flag("use_norquad")?,
        use_openbookqa: keys.flag("use_openbookqa")?,
        use_scandiqa: keys.flag("use_scandiqa")? && !languages.is_empty(),
        use_supervised_da: keys.flag("use_supervised_da")?,
        use_paws: keys.flag("use_paws")?,
        scandiqa_languages: languages,
        paws_data_dir: keys.optional("paws_data_dir", Section::text)?.map(Into::into),
    })
}

fn columns(mut keys: Section<'_>) -> Result<Columns> {
    let columns = Columns {
        anchor: keys.optional("anchor", Section::text)?,
        positive: keys.optional("positive", Section::text)?,
        negative: keys.optional("negative", Section::texts)?.unwrap_or_default(),
        label: keys.optional("label", Section::text)?,
        text: keys.optional("text", Section::text)?,
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

fn evaluation(mut keys: Section<'_>) -> Result<EvaluationConfig> {
    let mut evaluation = EvaluationConfig {
        evaluator: keys.optional("evaluator", Section::choice)?,
        nanobeir_datasets: keys.texts("nanobeir_datasets")?,
        track_sparsity: keys.flag("track_sparsity")?,
        log_decoded_samples: keys.count("log_decoded_samples", 0)?,
        data: keys.texts("data")?.into_iter().map(Into::into).collect(),
        nanobeir_folder: None,
    };
    if evaluation.nanobeir_datasets.is_empty() {
        return Err(keys.error("nanobeir_datasets", "is empty", "name at least one set"));
    }
    if let Some(name) = evaluation.nanobeir_datasets.iter().find(|name| splade_eval::nano_beir_set(name).is_err()) {
        return Err(keys.error(
            "nanobeir_datasets",
            format!("there is no set `{name}`"),
            did_you_mean(name, &splade_eval::NANO_BEIR.map(|(name, _)| name)),
        ));
    }
    if evaluation.evaluator != Some(Evaluator::SparseNanobeir) {
        if keys.value("nanobeir_datasets").is_some() {
            keys.note("nanobeir_datasets", "is not used: evaluator is not `sparse_nanobeir`");
        }
        evaluation.nanobeir_datasets.clear();
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

fn router(mut keys: Section<'_>, use_router: bool) -> Result<RouterConfig> {
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
        keys.note("learning_rate_patterns", "is not used: architecture `splade` has no router");
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
        if !defaults.iter().any(|(name, _)| name == column) {
            keys.note(column, "is not used: a data set has the columns anchor, positive and negative");
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
        language: keys.texts("language")?,
        license: keys.optional("license", Section::text)?,
        library_name: keys.text("library_name")?,
        tags: keys.texts("tags")?,
        model_name: keys.optional("model_name", Section::text)?,
        datasets_used: keys.texts("datasets_used")?,
    };
    keys.finish()?;
    Ok(card)
}

fn mlflow(mut keys: Section<'_>, is_used: bool) -> Result<MlflowConfig> {
    if !is_used {
        note_all(
            &mut keys,
            &["tracking_uri", "experiment_name", "tags"],
            "is not used: report_to does not name `mlflow`",
        );
    }
    let tags = keys.section("tags")?;
    let tag = |(name, value): (&String, &Value)| match as_text(value) {
        Some(text) => Ok((name.clone(), text)),
        None => Err(tags.error(name, "expected a text", "")),
    };
    let mlflow = MlflowConfig {
        tracking_uri: keys.optional("tracking_uri", Section::text)?,
        experiment_name: keys.optional("experiment_name", Section::text)?,
        tags: tags.named_entries().map(tag).collect::<Result<_>>()?,
    };
    keys.finish()?;
    Ok(if is_used { mlflow } else { MlflowConfig::default() })
}

fn hardware(mut keys: Section<'_>) -> Result<HardwareConfig> {
    let hardware = HardwareConfig {
        device: keys.choice("device")?,
        gradient_checkpointing: keys.flag("gradient_checkpointing")?,
        distributed: keys.flag("distributed")?,
        world_size: keys.count("world_size", 1)?,
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
