//! Whole trainings: the same seed gives the same bits, also when a run is stopped and goes on; what is kept and when a
//! run ends.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use splade_trainer::config::Evaluator;
use splade_trainer::{Event, FitReport, Observer, Start, TrainConfig, checkpoints, fit, plan};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sparse-encoder")
}

/// Notes what happens; stops after so many steps.
#[derive(Default)]
struct Watch {
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
            Event::Evaluated(_) => self.evaluations += 1,
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

    // dropout, data order and the optimizer's moments all go on where they were; 5 is in the middle of an epoch
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
