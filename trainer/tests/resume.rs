//! Whole trainings: equal seeds give equal bits, also if a run is stopped and resumed; which files are kept, and when a run
//! ends.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use splade_trainer::config::Evaluator;
use splade_trainer::{Event, FitReport, Observer, Start, TrainConfig, checkpoints, fit, plan};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sparse-encoder")
}

/// Records the events, and stops after `stop_after` steps.
#[derive(Default)]
struct Watch {
    evaluated: Vec<(usize, Vec<String>)>,
    stop_after: usize,
    steps: usize,
    losses: Vec<f64>,
    evaluations: usize,
    warnings: Vec<String>,
}

impl Observer for Watch {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step { loss, .. } => {
                self.steps += 1;
                self.losses.push(loss);
            }
            Event::Evaluated { step, scalars, .. } => {
                self.evaluations += 1;
                self.evaluated.push((step, scalars.iter().map(|(key, _)| key.clone()).collect()));
            }
            Event::Warning(text) => self.warnings.push(text.to_owned()),
            _ => {}
        }
    }

    fn should_stop(&mut self) -> bool {
        self.stop_after > 0 && self.steps == self.stop_after
    }
}

/// The inference-free fixture with dropout on, two data sets, accumulation; `changes` are keys of `training`.
fn config(folder: &Path, output: &str, changes: Value) -> TrainConfig {
    let base = folder.join("base");
    if !base.exists() {
        copy(&fixtures().join("inference-free/model"), &base);
        let path = base.join("document_0_Transformer/config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let dropped = text.replace("dropout_prob\": 0.0", "dropout_prob\": 0.1");
        assert_ne!(dropped, text);
        std::fs::write(&path, dropped).unwrap();
    }
    let files = |name: &str| json!({"files": [fixtures().join("training-data").join(format!("{name}.jsonl"))]});
    let mut value = json!({
        "model": {"base_model": base, "load_pretrained_sparse_encoder": true},
        "training": {
            "output_dir": folder.join(output),
            "max_steps": 9,
            "per_device_train_batch_size": 6,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "max_seq_length": 32,
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_steps": 2,
        },
        "datasets": {"a": files("dataset_a"), "b": files("dataset_b")},
    });
    for (key, setting) in changes.as_object().unwrap() {
        value["training"][key] = setting.clone();
    }
    if value["training"]["eval_strategy"] != "no" {
        value["datasets"]["a"]["dev_files"] = json!([fixtures().join("training-data/eval.jsonl")]);
    }
    TrainConfig::from_value(&value).unwrap().0
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
    }
}

fn run(config: &TrainConfig, start: &Start) -> (FitReport, Watch) {
    let mut watch = Watch::default();
    let outcome = fit(config, start, &mut watch).unwrap();
    (outcome, watch)
}

/// The weights of both sides, byte for byte.
fn weights(folder: &Path) -> [Vec<u8>; 2] {
    ["document_0_MLMTransformer", "query_0_SparseStaticEmbedding"]
        .map(|part| std::fs::read(folder.join(part).join("model.safetensors")).unwrap())
}

fn steps(output: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().trim_start_matches("checkpoint-").to_owned();
    checkpoints(output).unwrap().into_iter().map(name).collect()
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let whole = config(folder.path(), "whole", json!({}));
    let (outcome, watch) = run(&whole, &Start::New);
    let expected = weights(outcome.model.as_deref().unwrap());
    assert!(watch.losses.iter().all(|loss| loss.is_finite()));

    // dropout, data order and the optimizer's moments continue; step 5 is in the middle of an epoch
    for stop_after in [1, 5, 8] {
        let config = config(folder.path(), &format!("stopped-{stop_after}"), json!({}));
        let mut watch = Watch { stop_after, ..Watch::default() };
        let outcome = fit(&config, &Start::New, &mut watch).unwrap();
        assert_eq!((outcome.model, outcome.steps), (None, stop_after));
        let (outcome, watch) = run(&config, &Start::Resume);
        assert_eq!((outcome.steps, watch.steps), (9, 9 - stop_after));
        assert!(weights(outcome.model.as_deref().unwrap()) == expected, "stopped after {stop_after}");
    }

    // layers that are computed again draw the numbers of their first pass, in a resumed run too
    let mut again = config(folder.path(), "again", json!({}));
    again.hardware.gradient_checkpointing = true;
    let (outcome, _) = run(&again, &Start::New);
    let first = weights(outcome.model.as_deref().unwrap());
    again.training.output_dir = folder.path().join("again-stopped");
    fit(&again, &Start::New, &mut Watch { stop_after: 5, ..Watch::default() }).unwrap();
    let (outcome, _) = run(&again, &Start::Resume);
    assert!(weights(outcome.model.as_deref().unwrap()) == first);

    // by the name of a checkpoint too
    let config = config(folder.path(), "stopped-5", json!({}));
    let (outcome, _) = run(&config, &Start::ResumeFrom(folder.path().join("stopped-5/checkpoint-5")));
    assert!(weights(outcome.model.as_deref().unwrap()) == expected);
}

/// B12: a process that was killed after its last checkpoint has logged steps that the resumed run takes again.
#[test]
fn after_a_kill_and_a_resume_each_step_is_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "killed", json!({"logging_steps": 1}));
    let mut watch = Watch { stop_after: 4, ..Watch::default() };
    fit(&config, &Start::New, &mut watch).unwrap();
    let output = &config.training.output_dir;
    let log = output.join("log.jsonl");
    let at_checkpoint = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{at_checkpoint}{{\"loss\": 1.0, \"epoch\": 0.1, \"step\": 5}}\n{{\"lo")).unwrap();
    let csv = output.join("eval/Information-Retrieval_evaluation_dev_results.csv");
    std::fs::create_dir_all(csv.parent().unwrap()).unwrap();
    std::fs::write(&csv, "epoch,steps,dot-MRR@10\n0.1,4,0.5\n0.2,5,0.6\n").unwrap();

    run(&config, &Start::Resume);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with(&at_checkpoint));
    let step = |line: &str| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
    // the summary of the run is of the last step too
    assert_eq!(text.lines().map(step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), "epoch,steps,dot-MRR@10\n0.1,4,0.5\n");
    // resumed when it is done, it has nothing to add
    std::fs::rename(output.join("final"), folder.path().join("moved")).unwrap();
    let (report, _) = run(&config, &Start::ResumeFrom(output.join("checkpoint-4")));
    assert_eq!(report.steps, 9);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 10);
}

#[test]
fn a_training_that_is_stopped_before_its_first_step_writes_nothing() {
    struct StopAtOnce;
    impl Observer for StopAtOnce {
        fn event(&mut self, event: Event<'_>) {
            assert!(!matches!(event, Event::Step { .. }));
        }
        fn should_stop(&mut self) -> bool {
            true
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "stopped", json!({}));
    let report = fit(&config, &Start::New, &mut StopAtOnce).unwrap();
    assert_eq!((report.model, report.checkpoint, report.steps), (None, None, 0));
    assert!(!config.training.output_dir.exists());
}

/// Later checkpoints of another branch would be taken for the latest ones of this run.
#[test]
fn a_checkpoint_with_later_ones_beside_it_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let changes = json!({"save_strategy": "steps", "save_steps": 2, "save_total_limit": 0, "max_steps": 4});
    let config = config(folder.path(), "branches", changes);
    run(&config, &Start::New);
    let output = &config.training.output_dir;
    let start = Start::ResumeFrom(output.join("checkpoint-2"));
    let error = fit(&config, &start, &mut Watch::default()).unwrap_err();
    assert!(error.to_string().contains("checkpoint-4: is later than the checkpoint to resume from"), "{error}");
    assert!(error.kind().is_bad_input() && steps(output) == ["2", "4"]);
    std::fs::remove_dir_all(output.join("checkpoint-4")).unwrap();
    run(&config, &start);
    assert_eq!(steps(output), ["2", "4"]);
}

#[test]
fn the_seed_decides_everything() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, changes: Value| {
        let (outcome, _) = run(&config(folder.path(), name, changes), &Start::New);
        weights(outcome.model.as_deref().unwrap())
    };
    let first = run("first", json!({}));
    assert!(run("second", json!({})) == first);
    assert!(run("other-seed", json!({"seed": 7})) != first);
    assert!(run("no-accumulation", json!({"gradient_accumulation_steps": 1})) != first);
}

#[test]
fn threads_that_tokenize_ahead_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for mini_batch_size in [None, Some(4)] {
        let trained = |workers: usize, stop_after: usize| {
            let name = format!("{workers}-{stop_after}-{mini_batch_size:?}");
            let changes = json!({"dataloader_num_workers": workers, "dataloader_prefetch_factor": 3});
            let mut config = config(folder.path(), &name, changes);
            config.loss.mini_batch_size = mini_batch_size;
            if stop_after > 0 {
                fit(&config, &Start::New, &mut Watch { stop_after, ..Watch::default() }).unwrap();
            }
            weights(run(&config, &Start::Resume).0.model.as_deref().unwrap())
        };
        let plain = trained(0, 0);
        for (workers, stop_after) in [(1, 0), (2, 0), (7, 0), (2, 5)] {
            assert!(trained(workers, stop_after) == plain, "{workers} threads, stopped after {stop_after}");
        }
    }
}

/// A masked-language-model training of a new model on a few texts.
fn mlm_config(folder: &Path, output: &str, mlm: Value) -> TrainConfig {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/toy/corpus.jsonl");
    let value = json!({
        "model": {
            "init": {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32, "vocab_size": 300},
            "architecture": "splade",
        },
        "training": {
            "objective": "mlm", "output_dir": folder.join(output), "max_steps": 6, "per_device_train_batch_size": 4,
            "max_seq_length": 24, "learning_rate": 1e-3, "eval_strategy": "no", "save_strategy": "no", "logging_steps": 2,
        },
        "mlm": mlm,
        "datasets": {"texts": {"files": [texts]}},
    });
    let (config, notes) = TrainConfig::from_value(&value).unwrap();
    assert_eq!(notes, []);
    config
}

#[test]
fn a_resumed_masked_run_is_the_uninterrupted_one_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let trained = |name: &str, mlm: Value, stop_after: usize| {
        let config = mlm_config(folder.path(), &format!("{name}-{stop_after}"), mlm);
        if stop_after > 0 {
            fit(&config, &Start::New, &mut Watch { stop_after, ..Watch::default() }).unwrap();
        }
        let model = run(&config, &Start::Resume).0.model.unwrap();
        std::fs::read(model.join("model.safetensors")).unwrap()
    };
    let maskings = [
        ("default", json!({})),
        ("words", json!({"masking": "whole_word"})),
        ("spans", json!({"masking": "span"})),
        ("short-spans", json!({"masking": "span", "span_p": 0.9, "span_max_length": 2})),
        ("more", json!({"probability": 0.4})),
    ];
    let mut results = Vec::new();
    for (name, mlm) in maskings {
        let whole = trained(name, mlm.clone(), 0);
        for stop_after in [1, 4] {
            assert!(trained(name, mlm.clone(), stop_after) == whole, "{name}, stopped after {stop_after}");
        }
        assert!(!results.contains(&whole), "{name} has an effect");
        results.push(whole);
    }
    assert!(trained("tokens", json!({"masking": "token"}), 0) == results[0]);
    // a run that is resumed with another masking says so
    let path = |name: &str| folder.path().join(name);
    let other = mlm_config(&path("."), "words-1", json!({"masking": "span"}));
    let warnings = plan(&other, &Start::ResumeFrom(path("words-1/checkpoint-1"))).unwrap().warnings.join("\n");
    assert!(warnings.contains("was saved with other values of mlm: the resumed run will differ"), "{warnings}");
}

#[test]
fn a_run_that_does_not_get_better_ends_early() {
    let folder = tempfile::tempdir().unwrap();
    let changes = json!({
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 9,
        // nothing moves, so nothing improves
        "learning_rate": 0.0, "query_learning_rate": 0.0, "early_stopping_patience": 3,
    });
    // the regularizers' ramp changes the loss too
    let mut config = config(folder.path(), "early", changes);
    config.loss.document_regularizer_weight = 0.0;
    let (outcome, watch) = run(&config, &Start::New);
    // the first evaluation is the best, then three are not
    assert_eq!(outcome.steps, 4);
    assert!(watch.evaluations >= 4);
    assert!(outcome.model.is_some() && outcome.best_metric.is_some());
}

#[test]
fn the_best_model_is_the_result() {
    let folder = tempfile::tempdir().unwrap();
    // far too fast after the first step: later models are worse
    let changes = json!({
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 5,
        "learning_rate": 0.2, "query_learning_rate": 2.0, "warmup_ratio": 0.0, "max_grad_norm": 0.0,
        "save_total_limit": 0, "gradient_accumulation_steps": 1,
    });
    let config = config(folder.path(), "best", changes);
    let (outcome, _) = run(&config, &Start::New);
    let output = &config.training.output_dir;
    assert_eq!(steps(output), ["1", "2", "3", "4", "5"]);
    let text = std::fs::read_to_string(output.join("checkpoint-5/trainer_state.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    let best = state["best_global_step"].as_u64().unwrap();
    let best = weights(&output.join(format!("checkpoint-{best}")));
    assert!(weights(outcome.model.as_deref().unwrap()) == best);
    assert_eq!(state["best_metric"].as_f64(), outcome.best_metric);
}

#[test]
fn old_checkpoints_go() {
    let folder = tempfile::tempdir().unwrap();
    let saving = |name: &str, limit: usize| {
        let changes = json!({"save_strategy": "steps", "save_steps": 2, "save_total_limit": limit, "max_steps": 8});
        let config = config(folder.path(), name, changes);
        run(&config, &Start::New);
        steps(&config.training.output_dir)
    };
    assert_eq!(saving("all", 0), ["2", "4", "6", "8"]);
    assert_eq!(saving("two", 2), ["6", "8"]);
    assert_eq!(saving("one", 1), ["8"]);
}

#[test]
fn a_plan_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "planned", json!({}));
    let plan = plan(&config, &Start::New).unwrap();
    assert_eq!((plan.total_steps, plan.first_step, plan.dimensions), (9, 0, 420));
    assert_eq!(plan.sets.iter().map(|set| set.train).collect::<Vec<_>>(), [48, 60]);
    assert!(!config.training.output_dir.exists());
}

#[test]
fn a_training_that_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "there", json!({"max_steps": 1}));
    run(&config, &Start::New);
    let error = fit(&config, &Start::New, &mut Watch::default()).unwrap_err();
    assert!(error.to_string().contains("already holds a training") && error.kind().is_bad_input(), "{error}");
    run(&config, &Start::Overwrite);

    // later steps of the old run do not pass for the newest ones of the new run
    let changes = |steps: usize| json!({"save_strategy": "steps", "save_steps": 1, "max_steps": steps});
    let long = self::config(folder.path(), "again", changes(5));
    run(&long, &Start::New);
    let short = self::config(folder.path(), "again", changes(2));
    run(&short, &Start::Overwrite);
    assert_eq!(steps(&short.training.output_dir), ["2"]);
    let log = std::fs::read_to_string(short.training.output_dir.join("log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2, "a step and the end: {log}");
}

#[test]
fn sparsity_is_logged_with_an_evaluation_unless_it_is_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let evaluated = |name: &str, track_sparsity: bool| -> String {
        let changes =
            json!({"eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "load_best_model_at_end": false});
        let mut config = config(folder.path(), name, changes);
        config.training.metric_for_best_model = "eval_mean_dot_ndcg@10".to_owned();
        config.evaluation.evaluator = Some(Evaluator::SparseIr);
        config.evaluation.data = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/toy")];
        config.evaluation.track_sparsity = track_sparsity;
        run(&config, &Start::New);
        std::fs::read_to_string(config.training.output_dir.join("log.jsonl")).unwrap()
    };
    let (with, without) = (evaluated("with", true), evaluated("without", false));
    assert!(with.contains("dot_ndcg@10") && without.contains("dot_ndcg@10"), "{without}");
    for key in ["query_active_dims", "corpus_sparsity_ratio", "avg_flops"] {
        assert!(with.contains(key) && !without.contains(key), "{key}: {with} {without}");
    }
}

/// The warnings of a training of 8 steps from the untrained fixture, each logged, with these changes.
fn warnings(name: &str, changes: Value, loss: Value) -> (Vec<String>, splade_trainer::Result<FitReport>) {
    let folder = tempfile::tempdir().unwrap();
    let mut training = json!({"max_steps": 8, "logging_steps": 1, "learning_rate": 2e-5, "query_learning_rate": 1e-3});
    training.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let mut config = config(folder.path(), name, training);
    if let Some(weight) = loss["document"].as_f64() {
        config.loss.document_regularizer_weight = weight;
    }
    let mut watch = Watch::default();
    let report = fit(&config, &Start::New, &mut watch);
    (watch.warnings, report)
}

#[test]
fn a_collapse_is_reported_with_its_cause() {
    // the network is destroyed by its first steps
    let (found, report) = warnings("fast", json!({"learning_rate": 10.0, "warmup_ratio": 0.0}), json!({}));
    let found = found.join("\n");
    assert!(found.contains("training.learning_rate (now 1e1)"), "{found}");
    let signs = ["gets the same score", "use the same", "no active dim", "no logit is below 0"];
    assert!(signs.iter().any(|sign| found.contains(sign)), "{found}");
    assert!(report.is_ok());

    // the table's weights become large and negative, or nothing
    let (found, _) = warnings("table", json!({"query_learning_rate": 10.0, "warmup_ratio": 0.0}), json!({}));
    let found = found.join("\n");
    assert!(
        found.contains("the query table drifts") && found.contains("training.query_learning_rate (now 1e1)"),
        "{found}"
    );

    let (found, _) = warnings("heavy", json!({}), json!({"document": 1e3}));
    let found = found.join("\n");
    assert!(found.contains("% of the loss") && found.contains("loss.document_regularizer_weight (now 1e3)"), "{found}");

    // random weights make about half of all logits positive
    let (found, report) = warnings("dense", json!({}), json!({"document": 0.0}));
    let found = found.join("\n");
    assert!(
        found.contains("where 90 to 95 % is the target; raise loss.document_regularizer_weight (now 0e0)"),
        "{found}"
    );
    assert_eq!(found.matches("is the target").count(), 1, "once, not at every step: {found}");
    let sparsity = report.unwrap().sparsity.unwrap();
    assert!(sparsity.document_sparsity() < 0.9 && sparsity.dimensions == 420, "{sparsity:?}");
    assert!(sparsity.query_active_dims > 1.0 && sparsity.flops > 0.0, "{sparsity:?}");
}

/// A teacher's score that no model can have: its square is no f32.
#[test]
fn a_loss_that_is_not_finite_names_the_rows_and_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("teacher.jsonl");
    let row = |n: usize| {
        let label = if n == 17 { 1e30 } else { 0.5 };
        format!(
            "{}\n",
            json!({"anchor": format!("a{n}"), "positive": format!("p{n}"), "negative": format!("n{n}"), "label": label})
        )
    };
    std::fs::write(&rows, (1..=24).map(row).collect::<String>()).unwrap();
    let changes = json!({
        "save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 1, "shuffle": false, "save_total_limit": 0,
    });
    let mut config = config(folder.path(), "teacher", changes);
    config.loss.inner_loss = splade_trainer::config::InnerLossType::MarginMse;
    config.datasets.sets.truncate(1);
    config.datasets.sets[0].files = vec![rows.display().to_string()];
    let error = fit(&config, &Start::New, &mut Watch::default()).unwrap_err();
    let message = error.to_string();
    // rows 13 to 18 are the third batch
    assert!(
        message.starts_with("step 2: the loss is inf, in a step over the rows ")
            && message.contains("teacher.jsonl:17"),
        "{message}"
    );
    assert!(!message.contains("teacher.jsonl:12") && !message.contains("teacher.jsonl:19,"), "{message}");
    assert!(error.hint().unwrap().contains("resume from the last checkpoint"), "{error:?}");
    let splade_trainer::Error::NotFinite { checkpoint, .. } = error else { panic!("{message}") };
    assert_eq!(checkpoint, Some(config.training.output_dir.join("checkpoint-2")));
    // its weights are finite
    let [document, query] = weights(&checkpoint.unwrap());
    assert!(!document.is_empty() && !query.is_empty());
}

#[test]
fn the_last_step_is_evaluated_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let changes = json!({
        "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4, "max_steps": 6,
        "save_total_limit": 0,
    });
    let config = config(folder.path(), "last", changes);
    let (report, watch) = run(&config, &Start::New);
    let evaluated: Vec<usize> = watch.evaluated.iter().map(|(step, _)| *step).collect();
    assert_eq!(evaluated, [4, 6]);
    assert_eq!(steps(&config.training.output_dir), ["4", "6"]);
    let step = report.best_step.unwrap();
    assert_eq!(report.loaded, Some(config.training.output_dir.join(format!("checkpoint-{step}"))));
}

/// It was found at the first evaluation, hours later.
#[test]
fn a_metric_that_no_evaluation_has_is_an_error_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let changes = json!({"eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "load_best_model_at_end": false});
    let mut config = config(folder.path(), "metric", changes);
    config.training.metric_for_best_model = "eval_toy_dot_ndcg@1".to_owned();
    config.evaluation.evaluator = Some(Evaluator::SparseIr);
    config.evaluation.data = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/toy")];
    let error = plan(&config, &Start::New).unwrap_err();
    assert_eq!(
        error.to_string(),
        "training.metric_for_best_model: eval_toy_dot_ndcg@1 is not among the metrics of the evaluation"
    );
    assert_eq!(error.hint(), Some("did you mean eval_toy_dot_ndcg@10?"));
    // every metric of an evaluation may decide
    config.training.metric_for_best_model = "eval_toy_dot_ndcg@10".to_owned();
    let (_, watch) = run(&config, &Start::New);
    let measured: Vec<&String> = watch.evaluated.iter().flat_map(|(_, keys)| keys).collect();
    let is_speed = |key: &str| ["_runtime", "_per_second"].iter().any(|end| key.ends_with(end));
    let mut n_measured = 0;
    for key in measured.into_iter().filter(|key| !is_speed(key)) {
        config.training.metric_for_best_model.clone_from(key);
        plan(&config, &Start::Overwrite).unwrap_or_else(|error| panic!("{key}: {error}"));
        n_measured += 1;
    }
    assert!(n_measured >= 43, "{n_measured}: twenty of the set, twenty of the mean, and losses");
}

#[test]
fn a_run_that_resumes_with_other_values_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(folder.path(), "changed", json!({}));
    fit(&first, &Start::New, &mut Watch { stop_after: 2, ..Watch::default() }).unwrap();
    let changed = config(folder.path(), "changed", json!({"seed": 7, "per_device_train_batch_size": 5}));
    let warnings = plan(&changed, &Start::Resume).unwrap().warnings.join("\n");
    assert!(
        warnings.contains("training.seed (was 42, is 7), training.per_device_train_batch_size (was 6, is 5)"),
        "{warnings}"
    );
    let mut other = changed.clone();
    other.training.objective = splade_trainer::config::Objective::Mlm;
    let error = plan(&other, &Start::Resume).unwrap_err().to_string();
    assert!(error.starts_with("training.objective: is not that of "), "{error}");
    let warnings = plan(&first, &Start::Resume).unwrap().warnings;
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn what_a_plan_finds_odd_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    // nothing to evaluate on
    let mut config = config(folder.path(), "odd", json!({"eval_strategy": "steps"}));
    config.datasets.sets.iter_mut().for_each(|set| set.dev_files.clear());
    config.training.early_stopping_patience = Some(3);
    // a network without head modes, a finished model taken for a base, an Apple device, a short position table
    config.model.mlm_head = Some(splade_core::HeadMode::RawShifted);
    config.model.patch_sigmoid_for_sparsity = true;
    config.model.load_pretrained_sparse_encoder = false;
    config.hardware.device = splade_trainer::config::DeviceChoice::Mps;
    config.training.max_seq_length = 4096;
    // each query has two answers, each of which is a hard negative of it in another row; most rows have no positive
    let answers = |n: usize| {
        let answered =
            json!({"anchor": format!("q{}", n / 2), "positive": format!("p{n}"), "negative": format!("p{}", n ^ 1)});
        format!("{answered}\n{}", "{\"anchor\": \"a\", \"positive\": null}\n".repeat(2))
    };
    let rows = folder.path().join("answers.jsonl");
    std::fs::write(&rows, (0..48).map(answers).collect::<String>()).unwrap();
    config.datasets.sets[0].files = vec![rows.display().to_string()];
    let warnings = plan(&config, &Start::New).unwrap().warnings.join("\n");
    for words in [
        "there is no evaluator and no development set: nothing is evaluated",
        "and early stopping never stops it",
        "model.patch_sigmoid_for_sparsity: is not used: this network has no head modes",
        "is a finished sparse encoder, and its query table is replaced",
        "hardware.device: this machine or this build has no Apple device: trains on the CPU",
        "training.max_seq_length is 4096, but the network has",
        "data set a: most of its 144 rows are left out: 96 without a positive; are its columns the right ones?",
        "documents that count as negatives of a query though another row has them as its positive",
    ] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
    // a model folder without a query table, as a masked-LM training writes it, loses none
    let regular = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sparse-encoder/splade/model");
    config.model.base_model = Some(regular.display().to_string());
    let warnings = plan(&config, &Start::New).unwrap().warnings.join("\n");
    assert!(!warnings.contains("query table"), "{warnings}");
    assert!(warnings.contains("nothing is evaluated"), "{warnings}");
}
