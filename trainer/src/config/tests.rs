//! Tests of the config as a whole.

use proptest::prelude::{Just, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use serde_json::{Value, json};

use super::*;

/// The smallest config there is, with changes of the form `key.path=value`.
fn with(changes: &[&str]) -> Value {
    let mut config = json!({
        "model": {"base_model": "ltg/norbert3-xs"},
        "training": {"output_dir": "out"},
        "datasets": {"wiki": {"files": ["train.jsonl"]}},
    });
    for change in changes {
        apply_override(&mut config, change).unwrap();
    }
    config
}

fn resolve(changes: &[&str]) -> TrainConfig {
    TrainConfig::from_value(&with(changes)).unwrap().0
}

fn notes(changes: &[&str]) -> Vec<String> {
    TrainConfig::from_value(&with(changes)).unwrap().1.iter().map(Note::to_string).collect()
}

/// Message and hint of a config that is refused.
fn refusal(changes: &[&str]) -> (String, String) {
    let error = TrainConfig::from_value(&with(changes)).unwrap_err();
    assert!(error.kind().is_bad_input());
    (error.to_string(), error.hint().unwrap_or_default().to_owned())
}

#[test]
fn defaults_are_those_documented() {
    let config = resolve(&[]);
    let training = json!({
        "objective": "retrieval", "output_dir": "out", "num_train_epochs": 1.0, "max_steps": -1,
        "per_device_train_batch_size": 16, "per_device_eval_batch_size": 16, "gradient_accumulation_steps": 1,
        "learning_rate": 2e-5, "query_learning_rate": 1e-3, "warmup_ratio": 0.1, "weight_decay": 0.01,
        "max_grad_norm": 1.0, "bf16": false, "max_seq_length": 256, "batch_sampler": "no_duplicates",
        "shuffle": true, "seed": 42, "eval_strategy": "steps", "eval_steps": 1000, "logging_steps": 100,
        "save_strategy": "steps", "save_steps": 1000, "save_total_limit": 1, "load_best_model_at_end": true,
        "metric_for_best_model": "eval_loss", "greater_is_better": false, "early_stopping_threshold": 0.0,
        "logging_dir": "runs", "dataloader_num_workers": 0, "dataloader_prefetch_factor": 2, "report_to": ["tensorboard"],
    });
    assert_eq!(serde_json::to_value(&config.training).unwrap(), training);
    let loss = json!({
        "type": "splade_loss", "inner_loss": "sparse_multiple_negatives_ranking_loss",
        "query_regularizer_weight": 0.0, "document_regularizer_weight": 3e-3, "use_document_regularizer_only": false,
        "regularizer_schedule": "quadratic", "regularizer_warmup_ratio": 1.0 / 3.0, "scale": 1.0,
    });
    assert_eq!(serde_json::to_value(&config.loss).unwrap(), loss);
    assert!(config.model.use_router);
    assert_eq!(config.training.event_dir(), PathBuf::from("out/runs"));
}

/// Every key that the Python project's files hold, with the values they usually have.
fn python_project() -> Value {
    json!({
        "model": {
            "base_model": "ltg/norbert4-base", "architecture": "inference-free-splade", "pooling_strategy": "max",
            "use_router": true, "freeze_static_embedding": false, "load_pretrained_sparse_encoder": false,
            "patch_sigmoid_for_sparsity": true,
        },
        "training": {
            "output_dir": "models/splade", "num_train_epochs": 1, "max_steps": -1, "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 32, "gradient_accumulation_steps": 1, "learning_rate": 0.00002,
            "query_learning_rate": 0.001, "warmup_ratio": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0,
            "fp16": false, "bf16": true, "torch_compile": false, "max_seq_length": 512,
            "batch_sampler": "no_duplicates", "eval_strategy": "steps", "eval_steps": 2000, "logging_steps": 200,
            "early_stopping_patience": 3, "early_stopping_threshold": 0.001, "save_strategy": "steps",
            "save_steps": 1000, "save_total_limit": 1, "load_best_model_at_end": true,
            "metric_for_best_model": "NanoBEIR_mean_dot_ndcg@10", "greater_is_better": true, "logging_dir": "runs",
            "push_to_hub": true, "hub_model_id": "someone/splade", "hub_strategy": "checkpoint",
            "hub_private_repo": false, "run_name": "splade", "report_to": ["tensorboard", "mlflow"],
            "dataloader_num_workers": 8, "dataloader_pin_memory": true, "dataloader_prefetch_factor": 4,
        },
        "mlflow": {"tracking_uri": "mlruns", "experiment_name": "sparse", "tags": {"size": "large", "gpus": 1}},
        "loss": {
            "type": "splade_loss", "inner_loss": "sparse_multiple_negatives_ranking_loss",
            "query_regularizer_weight": 0, "document_regularizer_weight": 0.003,
        },
        "datasets": {
            "sampling_strategy": "round_robin",
            "nli": {
                "enabled": true, "source": "Fremtind/all-nli-norwegian", "languages": ["norwegian"],
                "split_ratio": [0.98, 0.01, 0.01],
            },
            "scandi_qa": {
                "enabled": true, "use_norquad": true, "use_openbookqa": true, "use_scandiqa": true,
                "use_supervised_da": true, "use_paws": true, "scandiqa_languages": ["no", "da", "sv"],
                "paws_data_dir": "data/paws-x/x-final",
            },
            "ddsc": {
                "enabled": false, "languages": ["norwegian", "danish", "swedish"], "tasks": null,
                "split_ratio": [0.98, 0.01, 0.01],
            },
            "eti": {"enabled": true, "source": "thivy/eti-embedding-training-data", "split_ratio": [0.98, 0.01, 0.01]},
        },
        "evaluation": {
            "evaluator": "sparse_nanobeir", "nanobeir_datasets": ["msmarco", "nfcorpus", "nq"],
            "mteb_tasks": ["NorQuAD", "SNL"], "track_sparsity": true, "log_decoded_samples": 10,
        },
        "router": {
            "mapping": {"anchor": "query", "positive": "document", "negative": "document"},
            "learning_rate_patterns": {".*\\.query\\..*": 0.001},
        },
        "model_card": {
            "language": ["no", "da", "sv"], "license": "mit", "library_name": "sentence-transformers",
            "tags": ["splade"], "model_name": "SPLADE", "datasets_used": ["NorQuAD"],
        },
        "hardware": {
            "device": "mps", "gradient_checkpointing": false, "tf32": true, "distributed": false, "world_size": 1,
        },
    })
}

#[test]
fn files_of_the_python_project_load_unchanged() {
    let (config, notes) = TrainConfig::from_value(&python_project()).unwrap();
    assert_eq!(config.training.metric_for_best_model, "eval_NanoBEIR_mean_dot_ndcg@10");
    assert_eq!(config.model.mlm_head, Some(HeadMode::RawShifted));
    assert_eq!(config.hardware.device, DeviceChoice::Mps);
    let hub = config.training.hub.unwrap();
    assert_eq!((hub.model_id.as_deref(), hub.strategy), (Some("someone/splade"), HubStrategy::Checkpoint));
    assert_eq!(config.router.learning_rate_patterns, [(r".*\.query\..*".to_owned(), 1e-3)]);
    let names: Vec<&str> = config.datasets.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["nli", "scandi_qa", "ddsc", "eti"], "the order of the file is the order of the round");
    assert_eq!(config.datasets.enabled().count(), 3);
    let notes: Vec<String> = notes.iter().map(Note::to_string).collect();
    let expected = [
        "evaluation.mteb_tasks: tasks are named to the command eval-mteb, not evaluated while training",
        "training.dataloader_pin_memory: batches are never copied through pinned memory",
        "training.torch_compile: there is no Python graph to compile: the network is native code",
        "hardware.tf32: products in f32 stay f32 on every device: use `bf16` for faster ones",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn a_resolved_config_reads_back_as_itself() {
    let values = [
        python_project(),
        with(&[]),
        with(&[
            "training.max_steps=7",
            "training.save_total_limit=0",
            "loss.query_regularizer_weight=null",
            "model.query_init=idf.json",
            "datasets.wiki.columns={\"anchor\": \"q\", \"negative\": [\"a\", \"b\"]}",
            "datasets.wiki.filter={\"task\": [\"retrieval\"], \"language\": \"nb\"}",
            "evaluation={\"evaluator\": \"sparse_ir\", \"data\": [\"dev\"]}",
            "hardware.device=cuda",
        ]),
        with(&["training.objective=mlm", "mlm.masking=span", "mlm.span_max_length=4"]),
        with(&["training.objective=mlm", "mlm.masking=whole_word", "mlm.probability=0.4"]),
        with(&["model={\"init\": {\"hidden_size\": 64, \"tokenizer\": {\"train_on\": [\"a.txt\"]}}}"]),
        with(&["model={\"init\": {\"tokenizer\": {\"type\": \"BPE\"}}}"]),
    ];
    for value in values {
        let (config, _) = TrainConfig::from_value(&value).unwrap();
        let written = serde_json::to_value(&config).unwrap();
        let (again, notes) = TrainConfig::from_value(&written).unwrap();
        assert_eq!(again, config);
        let of_values = |note: &Note| note.reason.contains("queries will not become sparse");
        assert!(notes.iter().all(of_values), "a resolved config holds what is used: {notes:?}");
    }
}

#[test]
fn numbers_may_be_written_as_text() {
    for text in ["2e-5", "\"2e-5\"", "2.0e-5", "\"2.0e-5\"", "0.00002", "\" 0.00002 \""] {
        assert_eq!(resolve(&[&format!("training.learning_rate={text}")]).training.learning_rate, 2e-5);
    }
    assert_eq!(resolve(&["training.eval_steps=\"500\"", "training.save_steps=5e2"]).training.save_steps, 500);
    for text in ["nan", "inf", "fast", "[1]", "true"] {
        let (message, _) = refusal(&[&format!("training.learning_rate={text}")]);
        assert!(message.starts_with("training.learning_rate: expected a number, got "), "{message}");
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    let cases = [
        ("training.save_step=5", "training.save_step: unknown key", "did you mean `save_steps`?"),
        ("trainng.seed=5", "trainng: unknown key", "did you mean `training`?"),
        ("datasets.wiki.file=5", "datasets.wiki.file: unknown key", "did you mean `files`?"),
        ("datasets.wiki.columns.query=a", "datasets.wiki.columns.query: unknown key", ""),
        ("datasets.wiki.use_norquad=true", "datasets.wiki.use_norquad: unknown key", ""),
        (
            "datasets.sampling_strateg=round_robin",
            "datasets.sampling_strateg: is not a data set: expected keys and values",
            "did you mean `sampling_strategy`?",
        ),
        ("loss.lambda=1", "loss.lambda: unknown key", ""),
        ("training.hub_token=x", "training.hub_token: a token does not belong in a config", "set HF_TOKEN instead"),
    ];
    for (change, message, hint) in cases {
        assert_eq!(refusal(&[change]), (message.to_owned(), hint.to_owned()));
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_key() {
    let cases: [(&[&str], &str); 28] = [
        (&["mlm.masking=words"], "mlm.masking: `words` is none of token, whole_word, whole-word, span"),
        (&["mlm.probability=0"], "mlm.probability: 0 is not above 0 and at most 1"),
        (&["mlm.span_max_length=1e9"], "mlm.span_max_length: 1000000000 is not between 1 and 1000"),
        (&["model.base_model=null"], "model.base_model: is missing"),
        (&["training.output_dir=null"], "training.output_dir: is missing"),
        (
            &["model.architecture=csr", "model.csr_x=1"],
            "model.architecture: `csr` is an autoencoder over a dense model, which this toolkit does not train",
        ),
        (&["model.architecture=spalde"], "model.architecture: `spalde` is none of inference-free-splade, splade"),
        (
            &["model.architecture=inference-free-splade", "model.use_router=false"],
            "model.use_router: contradicts architecture `inference-free-splade`",
        ),
        (&["model.architecture=splade", "model.use_router=yes"], "model.use_router: contradicts architecture `splade`"),
        (&["model.init={}"], "model.init: contradicts base_model: a model is either new or not"),
        (&["model={\"init\": {\"heads\": 7}}"], "model.init.heads: 7 attention heads do not divide a width of 256"),
        (
            &["model.patch_sigmoid_for_sparsity=true", "model.mlm_head=raw"],
            "model.patch_sigmoid_for_sparsity: means `raw-shifted` and contradicts mlm_head `raw`",
        ),
        (
            &["training.run_name=../elsewhere"],
            "training.run_name: `../elsewhere` is not the name of a folder below logging_dir",
        ),
        (
            &["training.dataloader_num_workers=some"],
            "training.dataloader_num_workers: expected a whole number, got `some`",
        ),
        (&["training.warmup_ratio=1.5"], "training.warmup_ratio: 1.5 is not between 0 and 1"),
        (&["training.per_device_train_batch_size=0"], "training.per_device_train_batch_size: 0 is not at least 1"),
        (&["training.eval_steps=1.5"], "training.eval_steps: expected a whole number, got `1.5`"),
        (&["training.seed=maybe"], "training.seed: expected a whole number, got `maybe`"),
        (&["training.bf16=maybe"], "training.bf16: expected true or false, got `maybe`"),
        (&["training=7"], "training: expected keys and values, got `7`"),
        (
            &["training.eval_strategy=no", "training.load_best_model_at_end=true"],
            "training.load_best_model_at_end: needs evaluation and saving at the same times: eval_strategy is `no`, save_strategy `steps`",
        ),
        (
            &["training.save_steps=300", "training.eval_steps=200"],
            "training.load_best_model_at_end: needs checkpoints of what was evaluated, but eval_steps 200 and save_steps 300 do not meet",
        ),
        (
            &["training.metric_for_best_model=mean_dot_ndcg@10"],
            "training.metric_for_best_model: `eval_mean_dot_ndcg@10` is not measured: evaluation.evaluator is not set",
        ),
        (&["training.greater_is_better=true"], "training.greater_is_better: is true, but `eval_loss` is a loss"),
        (&["datasets={}"], "datasets: no data set is given"),
        (&["datasets.wiki.enabled=false"], "datasets: no data set is enabled"),
        (
            &["datasets.wiki.split_ratio=[0.9, 0.2, 0.1]"],
            "datasets.wiki.split_ratio: expected three shares that add up to 1, the first above 0",
        ),
        (&["evaluation.evaluator=sparse_ir"], "evaluation.data: is missing, and evaluator is `sparse_ir`"),
    ];
    for (changes, message) in cases {
        assert_eq!(refusal(changes).0, message);
    }
    let (message, hint) = refusal(&["hardware={\"distributed\": true, \"world_size\": 4}"]);
    assert_eq!(message, "hardware.distributed: training on 4 devices is not in this toolkit");
    assert!(hint.contains("gradient_accumulation_steps by 4"));
    let (message, hint) = refusal(&["evaluation.nanobeir_datasets=[\"msmacro\"]"]);
    assert_eq!(
        (message.as_str(), hint.as_str()),
        ("evaluation.nanobeir_datasets: there is no set `msmacro`", "did you mean `msmarco`?")
    );
    let (message, _) = refusal(&["router={\"learning_rate_patterns\": {\"(\": 1}}"]);
    assert_eq!(message, "router.learning_rate_patterns.(: not a regular expression: unclosed group");
    let (message, _) = refusal(&["router={\"mapping\": {\"anchor\": \"document\"}}"]);
    assert!(message.starts_with("router.mapping.anchor: cannot be routed to `document`"));
}

#[test]
fn the_best_model_is_judged_by_what_is_measured() {
    let nano = resolve(&["evaluation.evaluator=sparse_nanobeir"]).training;
    assert_eq!((nano.metric_for_best_model.as_str(), nano.greater_is_better), ("eval_NanoBEIR_mean_dot_ndcg@10", true));
    assert!(resolve(&[]).training.best_by_loss_sum());
    let never = resolve(&["training.eval_strategy=no"]).training;
    assert_eq!((never.eval_strategy, never.load_best_model_at_end), (Strategy::No, false));
    // Python's YAML reads a bare `no` as false.
    assert_eq!(resolve(&["training.eval_strategy=false"]).training.eval_strategy, Strategy::No);
}

#[test]
fn what_has_no_effect_is_noted_once() {
    assert_eq!(notes(&[]), Vec::<String>::new());
    assert_eq!(
        notes(&["training.report_to=[\"tensorboard\", \"wandb\"]"]),
        ["training.report_to: wandb is a service that this toolkit does not report to"]
    );
    let dense_queries = notes(&["model.architecture=splade"]);
    assert!(dense_queries[0].starts_with("loss.query_regularizer_weight: is 0 with architecture `splade`"));
    let changes = [
        "model.architecture=splade",
        "loss.query_regularizer_weight=5e-4",
        "router={\"learning_rate_patterns\": {\"a\": 1}}",
    ];
    assert_eq!(notes(&changes), ["router.learning_rate_patterns: is not used: architecture `splade` has no router"]);
    assert_eq!(notes(&["datasets.wiki.dev_files=[\"dev.jsonl\"]", "datasets.wiki.split_ratio=[0.9, 0.1, 0]"]).len(), 1);
}

#[rustfmt::skip] // lists of names
/// The keys of the specification of the config, which files of the Python project and ours may hold.
const SPECIFIED: &[(&str, &[&str])] = &[
    (
        "model",
        &[
            "base_model", "architecture", "pooling_strategy", "activation_function", "use_router",
            "freeze_static_embedding", "query_init", "mlm_head", "patch_sigmoid_for_sparsity",
            "load_pretrained_sparse_encoder", "init", "csr_k", "csr_k_aux", "csr_hidden_dim",
        ],
    ),
    (
        "model.init",
        &["architecture", "hidden_size", "layers", "heads", "intermediate_size", "vocab_size", "tokenizer"],
    ),
    (
        "training",
        &[
            "objective", "output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size",
            "per_device_eval_batch_size", "gradient_accumulation_steps", "learning_rate", "query_learning_rate",
            "warmup_ratio", "weight_decay", "max_grad_norm", "bf16", "fp16", "max_seq_length", "batch_sampler", "shuffle",
            "seed", "eval_strategy", "eval_steps", "logging_steps", "save_strategy", "save_steps", "save_total_limit",
            "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_patience",
            "early_stopping_threshold", "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "logging_dir",
            "run_name", "report_to", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
            "torch_compile",
        ],
    ),
    (
        "loss",
        &[
            "type", "inner_loss", "query_regularizer_weight", "document_regularizer_weight", "regularizer_schedule",
            "regularizer_warmup_ratio", "document_regularizer_threshold", "scale", "use_document_regularizer_only",
            "aux_loss_weight",
        ],
    ),
    ("datasets", &["sampling_strategy"]),
    (
        "datasets.*",
        &[
            "enabled", "files", "source", "config", "split", "columns", "filter", "max_samples", "split_ratio", "dev_files",
        ],
    ),
    ("datasets.*.columns", &["anchor", "positive", "negative", "label"]),
    ("datasets.nli", &["languages"]),
    ("datasets.ddsc", &["languages", "tasks"]),
    (
        "datasets.scandi_qa",
        &[
            "use_norquad", "use_openbookqa", "use_scandiqa", "use_supervised_da", "use_paws", "scandiqa_languages",
            "paws_data_dir",
        ],
    ),
    (
        "evaluation",
        &["evaluator", "nanobeir_datasets", "mteb_tasks", "track_sparsity", "log_decoded_samples", "data"],
    ),
    ("router", &["mapping", "learning_rate_patterns"]),
    ("model_card", &["language", "license", "library_name", "tags", "model_name", "datasets_used"]),
    ("mlflow", &["tracking_uri", "experiment_name", "tags"]),
    ("hardware", &["device", "gradient_checkpointing", "distributed", "world_size", "tf32"]),
];

#[test]
fn the_table_holds_every_key_of_the_specification() {
    let specified: Vec<String> =
        SPECIFIED.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}"))).collect();
    let missing: Vec<&String> = specified.iter().filter(|path| !KEYS.iter().any(|key| key.path == **path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // and these of our own
    let ours: Vec<&str> =
        KEYS.iter().map(|key| key.path).filter(|path| !specified.iter().any(|known| known == path)).collect();
    assert_eq!(
        ours,
        [
            "model.ignored_config_keys",
            "model.init.tokenizer.train_on",
            "model.init.tokenizer.type",
            "loss.mini_batch_size",
            "mlm.masking",
            "mlm.probability",
            "mlm.span_p",
            "mlm.span_max_length",
            "datasets.*.columns.text"
        ]
    );
}

#[test]
fn the_table_is_well_formed() {
    let mut paths: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    let n_keys = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), n_keys, "each key has one line");
    for key in KEYS {
        assert!(!key.meaning.is_empty(), "{}", key.path);
        assert!(key.default.is_empty() || serde_json::from_str::<Value>(key.default).is_ok(), "{}", key.path);
        match key.effect {
            Effect::Works => {}
            Effect::None(reason) => assert!(key.default.is_empty() && !reason.is_empty(), "{}", key.path),
            Effect::OnlyOff(reason) => {
                assert!(["false", "0", "[]"].contains(&key.default) && !reason.is_empty(), "{}", key.path);
            }
        }
    }
}

/// A value for each key that works, other than its default, and what else has to be set for it to be allowed.
fn sample(path: &str) -> (Value, &'static [&'static str]) {
    const EVALUATED: &[&str] = &["evaluation.evaluator=sparse_nanobeir"];
    const MLM: &[&str] = &["training.objective=mlm"];
    const SPANS: &[&str] = &["training.objective=mlm", "mlm.masking=span"];
    let value = match path {
        "model.base_model" => json!("other"),
        "model.architecture" => json!("splade"),
        "model.pooling_strategy" => json!("sum"),
        "model.activation_function" => json!("log1p_relu"),
        "model.use_router" => return (json!(false), &["model.architecture=splade"]),
        "model.query_init" => json!("idf"),
        "model.mlm_head" => json!("raw"),
        "model.init" => return (json!({}), &["model.base_model=null"]),
        "model.init.architecture" => return (json!("other"), &["model.base_model=null"]),
        "model.init.tokenizer" => return (json!("tokenizer.json"), &["model.base_model=null"]),
        "model.init.tokenizer.train_on" => return (json!(["a.txt"]), &["model.base_model=null"]),
        "model.init.tokenizer.type" => return (json!("unigram"), &["model.base_model=null"]),
        "model.init.heads" => return (json!(2), &["model.base_model=null"]),
        path if path.starts_with("model.init.") => return (json!(512), &["model.base_model=null"]),
        "training.objective" => json!("mlm"),
        "training.batch_sampler" => json!("batch_sampler"),
        "training.eval_strategy" | "training.save_strategy" => {
            return (json!("epoch"), &["training.load_best_model_at_end=false"]);
        }
        "training.load_best_model_at_end" => json!(false),
        "training.metric_for_best_model" => return (json!("mean"), EVALUATED),
        "training.greater_is_better" => return (json!(false), EVALUATED),
        "training.report_to" => json!("none"),
        "training.hub_model_id" | "training.hub_strategy" | "training.hub_private_repo" => {
            let value = if path.ends_with("strategy") {
                json!("end")
            } else if path.ends_with("repo") {
                json!(true)
            } else {
                json!("owner/name")
            };
            return (value, &["training.push_to_hub=true"]);
        }
        "training.dataloader_prefetch_factor" => return (json!(7), &["training.dataloader_num_workers=1"]),
        "training.output_dir" | "training.logging_dir" | "training.run_name" => json!("elsewhere"),
        "training.eval_steps" => json!(500),
        "training.save_steps" => json!(500),
        "mlm.masking" => return (json!("whole_word"), MLM),
        "mlm.probability" => return (json!(0.4), MLM),
        "mlm.span_p" => return (json!(0.4), SPANS),
        "mlm.span_max_length" => return (json!(4), SPANS),
        "loss.type" => json!("splade_loss"),
        "loss.inner_loss" => json!("sparse_margin_mse"),
        "loss.regularizer_schedule" => json!("linear"),
        "datasets.sampling_strategy" => json!("proportional"),
        "datasets.*.enabled" => return (json!(false), &["datasets.other.files=[\"a\"]"]),
        "datasets.*.source" => return (json!("owner/set"), &["datasets.wiki.files=[]"]),
        "datasets.*.config" | "datasets.*.split" => {
            return (json!("other"), &["datasets.wiki={\"source\": \"owner/set\"}"]);
        }
        "datasets.scandi_qa.scandiqa_languages" => json!(["da"]),
        "datasets.*.columns" => json!({"anchor": "q"}),
        "datasets.*.filter" => json!({"language": ["nb"]}),
        "datasets.*.split_ratio" => json!([0.8, 0.1, 0.1]),
        "evaluation.evaluator" => json!("sparse_nanobeir"),
        "evaluation.nanobeir_datasets" => return (json!(["nq"]), EVALUATED),
        "evaluation.data" => return (json!(["dev"]), &["evaluation.evaluator=sparse_ir"]),
        "router.mapping" => json!({"anchor": "query", "other": "document"}),
        "router.learning_rate_patterns" => json!({"a": 0.1}),
        path if path.starts_with("mlflow.") => {
            let value = if path.ends_with("tags") { json!({"size": 7}) } else { json!("text") };
            return (value, &["training.report_to=mlflow"]);
        }
        "hardware.device" => json!("cpu"),
        "hardware.distributed" => json!(true),
        "hardware.world_size" => json!(2),
        path => match KEYS.iter().find(|key| key.path == path).unwrap().default {
            "false" => json!(true),
            "true" => json!(false),
            "" if path.contains("early_stopping") || path.contains("threshold") || path.contains("max_samples") => {
                json!(3)
            }
            "" if path == "loss.mini_batch_size" => json!(3),
            "" => json!("text"),
            default if default.starts_with('[') => json!(["text"]),
            default if default.starts_with('"') => json!("text"),
            // a number, below 1 and above 0 where it is a share
            _ if path.ends_with("ratio") => json!(0.5),
            _ => json!(7),
        },
    };
    (value, &[])
}

/// The value of one key set in the smallest config that allows it.
fn config_with(key: &Key) -> Value {
    let (value, further) = sample(key.path);
    let path = key.path.replace("datasets.*", "datasets.wiki");
    let mut config = with(further);
    for built_in in ["nli", "ddsc"] {
        if path.starts_with(&format!("datasets.{built_in}.")) {
            apply_override(&mut config, &format!("datasets.{built_in}.files=[\"a\"]")).unwrap();
        }
    }
    apply_override(&mut config, &format!("{path}={value}")).unwrap();
    config
}

/// A key that works changes what a training runs (the resolved config); one that does not is named with its reason.
#[test]
fn no_key_is_accepted_in_silence() {
    // checked for a contradiction with another key, and nothing else
    let checked = ["model.use_router", "hardware.distributed", "hardware.world_size", "loss.type"];
    let (mut n_working, mut n_named) = (0, 0);
    for key in KEYS {
        let (config, notes) =
            TrainConfig::from_value(&config_with(key)).unwrap_or_else(|error| panic!("{}: {error}", key.path));
        let path = key.path.replace("datasets.*", "datasets.wiki");
        let named = notes.iter().find(|note| note.keys.contains(&path));
        match key.effect {
            Effect::Works => {
                assert!(named.is_none_or(|note| !note.reason.contains("this version")), "{path}: {named:?}");
                let mut without = config_with(key);
                let (section, last) = path.rsplit_once('.').unwrap();
                without
                    .pointer_mut(&format!("/{}", section.replace('.', "/")))
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .remove(last);
                let without = TrainConfig::from_value(&without).map(|(config, _)| config);
                let changes = without.map_or(true, |without| without != config);
                assert!(changes || checked.contains(&key.path) || named.is_some(), "{path} changes nothing");
                n_working += 1;
            }
            Effect::None(reason) | Effect::OnlyOff(reason) => {
                assert_eq!(named.map(|note| note.reason.as_str()), Some(reason), "{path}");
                n_named += 1;
            }
        }
    }
    assert!(n_working > 100 && n_named >= 9, "{n_working} {n_named}");
    // off is what happens anyway
    let off = ["training.fp16=false", "evaluation.mteb_tasks=[]"];
    assert_eq!(notes(&off), Vec::<String>::new());
}

/// `configs/KEYS.md` is the table as a page.
#[test]
fn the_page_of_keys_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/KEYS.md");
    let page = keys::page();
    if std::env::var_os("UPDATE_KEYS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == page,
        "configs/KEYS.md is not up to date: UPDATE_KEYS=1 cargo test -p splade-trainer --lib keys"
    );
}

#[test]
fn a_run_s_name_is_its_folder_in_tensorboard() {
    assert_eq!(resolve(&["training.run_name=nb/first"]).training.event_dir(), PathBuf::from("out/runs/nb/first"));
}

#[test]
fn a_key_without_effect_beside_others_is_noted_unless_it_is_the_default() {
    let cases: [(&[&str], &str); 8] = [
        (
            &["mlm.masking=span", "mlm.probability=0.4"],
            "mlm.masking, mlm.probability: is not used: training.objective is not `mlm`",
        ),
        (
            &["training.objective=mlm", "mlm.masking=whole_word", "mlm.span_p=0.4"],
            "mlm.span_p: is not used: mlm.masking is not `span`",
        ),
        (
            &["model.architecture=splade", "model.query_init=idf", "training.query_learning_rate=0.1"],
            "model.query_init, training.query_learning_rate: is not used: architecture `splade` has no query table",
        ),
        (
            &["training.eval_strategy=epoch", "training.save_strategy=epoch", "training.eval_steps=5"],
            "training.eval_steps: is not used: eval_strategy is not `steps`",
        ),
        (&["training.objective=mlm", "loss.scale=2"], "loss.scale: is not used: objective `mlm` has a loss of its own"),
        (
            &["training.objective=mlm", "datasets.wiki.dev_files=[\"a\"]"],
            "datasets.wiki.dev_files: is not used: objective `mlm` trains on all rows of files",
        ),
        (
            &["router={\"mapping\": {\"title\": \"document\"}}"],
            "router.mapping.title: is not used: a data set has the columns anchor, positive and negative",
        ),
        (
            &["evaluation.nanobeir_datasets=[\"nq\"]"],
            "evaluation.nanobeir_datasets: is not used: evaluator is not `sparse_nanobeir`",
        ),
    ];
    for (changes, note) in cases {
        let notes = notes(changes);
        assert!(notes.iter().any(|found| found == note), "{note}: {notes:?}");
    }
    let defaults =
        ["training.objective=mlm", "loss.scale=1", "training.eval_strategy=no", "training.eval_steps=1000.0"];
    assert_eq!(notes(&defaults), Vec::<String>::new());
}

/// The Hub data sets of the set of this name: repository, configuration, splits, shares.
fn parts(changes: &[&str]) -> Vec<String> {
    let config = resolve(changes);
    let part = |part: &HubPart| {
        let config = part.config.as_deref().unwrap_or("-");
        let need = if part.is_required { "" } else { " if there is one" };
        format!("{} {config} {} {:?}{need}", part.repository, part.splits.join("|"), part.shares)
    };
    config.datasets.sets.iter().flat_map(|set| set.parts.iter().map(part)).collect()
}

#[test]
fn sets_without_files_are_made_of_splits_on_the_hub() {
    let dev = "dev|validation|valid|val [0.0, 1.0, 0.0] if there is one";
    let only = |set: &str| format!("datasets={{{set}}}");
    assert_eq!(
        parts(&[&only("\"nli\": {}")]),
        [
            "Fremtind/all-nli-norwegian - train [1.0, 0.0, 0.0]".to_owned(),
            format!("Fremtind/all-nli-norwegian - {dev}")
        ]
    );
    assert_eq!(
        parts(&[&only("\"scandi_qa\": {\"scandiqa_languages\": [\"norwegian\", \"da\"]}")]),
        [
            "ltg/norquad - train [1.0, 0.0, 0.0]".to_owned(),
            format!("ltg/norquad - {dev}"),
            "ltg/noropenbookqa nb train [1.0, 0.0, 0.0]".to_owned(),
            "ltg/noropenbookqa nb test [0.0, 0.5, 0.5] if there is one".to_owned(),
            "alexandrainst/scandi-qa@refs/convert/parquet no train [0.9, 0.1, 0.0]".to_owned(),
            "alexandrainst/scandi-qa@refs/convert/parquet da train [0.9, 0.1, 0.0]".to_owned(),
            "jealk/supervised-da - train [0.8, 0.1, 0.1]".to_owned(),
            "NbAiLab/norwegian-paws-x nb train [1.0, 0.0, 0.0]".to_owned(),
            format!("NbAiLab/norwegian-paws-x nb {dev}"),
        ]
    );
    assert_eq!(parts(&[&only("\"eti\": {}")]), ["thivy/eti-embedding-training-data - train [1.0, 0.0, 0.0]"]);
    assert_eq!(parts(&[&only("\"ddsc\": {}")]), ["DDSC/nordic-embedding-training-data - train [1.0, 0.0, 0.0]"]);
    assert_eq!(
        parts(&[&only("\"mine\": {\"source\": \"a/b@v1\", \"config\": \"nb\", \"split\": \"all\"}")]),
        ["a/b@v1 nb all [1.0, 0.0, 0.0]"]
    );
    let nothing = "\"scandi_qa\": {\"use_norquad\": false, \"use_openbookqa\": false, \"use_scandiqa\": false, \
                   \"use_supervised_da\": false, \"use_paws\": false}";
    assert_eq!(refusal(&[&only(nothing)]).0, "datasets.scandi_qa.use_norquad: is false, and so is every other source");
    assert_eq!(
        notes(&["datasets.wiki.config=nb", "datasets.wiki.split=test"]),
        ["datasets.wiki.config, datasets.wiki.split: is not used: files are given, and all their rows are taken"]
    );
}

/// Spellings of the Python project's files that are not ours.
#[test]
fn spellings_of_the_python_project_are_understood() {
    let config = resolve(&["datasets.sampling_strategy=ROUND_ROBIN", "training.batch_sampler=NO_DUPLICATES"]);
    assert_eq!(config.datasets.sampling_strategy, SamplingStrategy::RoundRobin);
    // a router says which architecture is meant
    assert_eq!(resolve(&["model.use_router=false"]).model.architecture, Architecture::Splade);
    assert_eq!(resolve(&["model.use_router=true"]).model.architecture, Architecture::InferenceFree);
    // the evaluator is off, and its metric was left in the file
    let changes = [
        "evaluation.evaluator=null",
        "training.metric_for_best_model=NanoBEIR_mean_dot_ndcg@10",
        "training.greater_is_better=true",
    ];
    let training = resolve(&changes).training;
    assert_eq!((training.metric_for_best_model.as_str(), training.greater_is_better), ("eval_loss", false));
    assert!(notes(&changes)[0].starts_with("training.metric_for_best_model: is not measured without an evaluator"));
}

fn any_value() -> impl proptest::strategy::Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_0-9.-]{0,8}".prop_map(Value::String),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec(("[a-z_]{1,6}", inner), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_of_any_key_can_crash_a_config(at in 0usize..200, value in any_value()) {
        let mut config = python_project();
        let sections: Vec<(String, Vec<String>)> = config.as_object().unwrap().iter()
            .map(|(section, keys)| (section.clone(), keys.as_object().unwrap().keys().cloned().collect()))
            .collect();
        let paths: Vec<(&str, &str)> = sections.iter()
            .flat_map(|(section, keys)| keys.iter().map(move |key| (section.as_str(), key.as_str())))
            .collect();
        let (section, key) = paths[at % paths.len()];
        config[section][key] = value;
        if let Ok((config, _)) = TrainConfig::from_value(&config) {
            let written = serde_json::to_value(&config).unwrap();
            prop_assert_eq!(TrainConfig::from_value(&written).unwrap().0, config);
        }
    }
}

#[test]
fn keys_of_an_upload_that_is_off_are_noted() {
    assert_eq!(resolve(&["training.push_to_hub=no"]).training.hub, None);
    assert_eq!(
        notes(&["training.hub_model_id=a/b", "training.hub_strategy=end", "training.hub_private_repo=true"]),
        ["training.hub_model_id, training.hub_strategy, training.hub_private_repo: is not used: push_to_hub is false"]
    );
    assert_eq!(notes(&["training.hub_private_repo=false", "training.hub_strategy=every_save"]), [] as [String; 0]);
    let hub = resolve(&["training.push_to_hub=true"]).training.hub.unwrap();
    assert_eq!(hub, UploadConfig { model_id: None, strategy: HubStrategy::EverySave, private: false });
    let (message, hint) = refusal(&["training.hub_strategy=every_saves"]);
    assert!(
        message.starts_with("training.hub_strategy: `every_saves` is none of end, every_save, checkpoint"),
        "{message}"
    );
    assert_eq!(hint, "did you mean `every_save`?");
}
