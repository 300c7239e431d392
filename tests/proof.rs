//! The shipped training config from end to end, at the size of NorBERT3-xs: trained, killed, resumed, evaluated, uploaded,
//! and loaded by sentence-transformers. What cannot be as shipped without a network is overridden in [`overrides`].
#![cfg(feature = "train")]

mod util;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use util::hub::{Files, Hub, files_of};
use util::{Place, finish, ours, setup, shared};

const TOKEN: &str = "hf_secret";
const REPO: &str = "acme/norbert3-xs-splade";
/// `training.output_dir` of the shipped config.
const OUTPUT: &str = "models/norbert3-xs-splade";
const STEPS: usize = 200;
/// Steps between checkpoints, and between evaluations.
const SAVE_STEPS: usize = 25;
/// Optimizer steps of a log line.
const LOG_STEPS: usize = 5;

/// One training, maybe in several processes, in a folder and with a Hub of its own.
struct Training {
    folder: PathBuf,
    hub: Hub,
    config: Vec<String>,
}

/// Moment at which a process is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// when the log line of this step is printed
    AtStep(usize),
    /// when the evaluation of this step is printed: its checkpoint is about to be written
    BeforeCheckpoint(usize),
}

impl Kill {
    /// True at the line of stderr after which the process is killed; `step` is that of the last log line.
    fn is_at(self, step: usize, line: &str) -> bool {
        match self {
            Self::AtStep(at) => step == at,
            Self::BeforeCheckpoint(at) => step == at && line.starts_with("evaluated: task_dot_ndcg@10"),
        }
    }

    /// True if the checkpoint of this step can be the last one afterwards.
    fn may_leave(self, step: usize) -> bool {
        let (Self::AtStep(at) | Self::BeforeCheckpoint(at)) = self;
        // a signal takes a moment, in which a checkpoint may be written to its end
        let in_time = matches!(self, Self::BeforeCheckpoint(_)) && step == at;
        step == (at - 1) / SAVE_STEPS * SAVE_STEPS || in_time
    }
}

/// Differences from the shipped config: the base model and the data are local, runs are shorter, batches and texts smaller,
/// and the model is uploaded.
fn overrides() -> Vec<String> {
    let data = shared("data").canonicalize().expect("needs the folder shared/data");
    let files = |names: &[&str]| -> Vec<String> {
        let path = |name: &&str| data.join(name).to_str().expect("a path in UTF-8").to_owned();
        names.iter().map(path).collect()
    };
    let (da, sv) = ("lohelp-da/train/retrieval.jsonl.gz", "lohelp-sv/train/retrieval.jsonl.gz");
    let sets = [
        ("nli", json!({"files": files(&["nb-nn/train/nli.jsonl.gz", "sts-sv/train/nli.jsonl"])})),
        ("scandi_qa", json!({"files": files(&["norquad-wiki/train/qa.jsonl"])})),
        ("ddsc", json!({"files": files(&[da, sv]), "split_ratio": [0.98, 0.01, 0.01]})),
    ];
    let mut keys: Vec<(String, Value)> =
        sets.into_iter().map(|(name, set)| (format!("datasets.{name}"), set)).collect();
    let training = json!({
        "max_steps": STEPS, "save_steps": SAVE_STEPS, "eval_steps": SAVE_STEPS, "logging_steps": LOG_STEPS,
        "max_seq_length": 48, "per_device_train_batch_size": 8,
        // the last checkpoint is kept beside the best one
        "save_total_limit": 2,
        // that of the evaluator, which is not NanoBEIR
        "metric_for_best_model": null,
        "push_to_hub": true, "hub_model_id": REPO,
    });
    let training = training.as_object().unwrap().clone().into_iter();
    keys.extend(training.map(|(key, value)| (format!("training.{key}"), value)));
    keys.extend([
        ("model.base_model".to_owned(), json!("../base")),
        ("evaluation.evaluator".to_owned(), json!("sparse_ir")),
        ("evaluation.data".to_owned(), json!(["../task"])),
    ]);
    keys.into_iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]).collect()
}

impl Training {
    fn new(place: &Place, name: &str) -> Self {
        let (folder, hub) = (place.path(name), Hub::start());
        std::fs::create_dir(&folder).unwrap();
        hub.add_user("alice", TOKEN, "write");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/training_config_splade.yaml");
        let config = std::iter::once(config.to_str().unwrap().to_owned()).chain(overrides()).collect();
        Self { folder, hub, config }
    }

    fn command(&self, place: &Place, args: &[&str]) -> Command {
        let mut command = place.command(args);
        self.hub.direct(&mut command, &self.folder.join("home"));
        command.env("HF_TOKEN", TOKEN).current_dir(&self.folder);
        command
    }

    /// Trains in one process, to the end or until it is killed. Prints time and memory. Returns stderr.
    fn run(&self, place: &Place, resumes: bool, kill: Option<Kill>) -> String {
        let args: Vec<&str> = ["train"].into_iter().chain(self.config.iter().map(String::as_str)).collect();
        let resume = if resumes { &["--resume"][..] } else { &[] };
        let begun = Instant::now();
        let mut child = self.command(place, &[&args[..], resume].concat()).spawn().unwrap();
        let (stderr, memory, killed) = watch(&mut child, kill);
        let ran = finish(child);
        assert_eq!(killed, kill.is_some(), "{stderr}");
        // a signal is no exit code
        assert_eq!((ran.code, kill.is_some()), (kill.is_none().then_some(0), killed), "{stderr}");
        let name = self.folder.file_name().unwrap().to_string_lossy();
        let seconds = begun.elapsed().as_secs_f64();
        println!("\n== {name}, resumes: {resumes}, {kill:?}: {seconds:.0} s, {memory} MB at most\n{stderr}");
        stderr
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.join(OUTPUT).join(name)
    }

    fn json_lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.output(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn trainer_state(&self, checkpoint: &str) -> Value {
        let text = std::fs::read(self.output(checkpoint).join("trainer_state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Step of the last checkpoint.
    fn last_checkpoint(&self) -> usize {
        let names = util::names(&self.output(""));
        let steps = names.iter().filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok());
        steps.max().expect("a checkpoint")
    }

    /// Files of the branch, without those that the Hub has made.
    fn uploaded(&self) -> Files {
        let mut files = self.hub.files(REPO, "main");
        files.remove(".gitattributes");
        files
    }
}

/// Reads stderr to its end, and kills the process at the given line. Returns stderr, the largest memory in MB (0 where the
/// system does not say it), and true if it was killed.
fn watch(child: &mut Child, kill: Option<Kill>) -> (String, usize, bool) {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut text, mut memory, mut killed, mut step) = (String::new(), 0, false, 0);
    for line in lines.map(Result::unwrap) {
        step = step_of(&line).unwrap_or(step);
        if !killed && kill.is_some_and(|kill| kill.is_at(step, &line)) {
            // SIGKILL
            child.kill().unwrap();
            killed = true;
        }
        memory = memory.max(memory_of(child.id()));
        text = text + &line + "\n";
    }
    (text, memory, killed)
}

/// Step of a log line, `step    60/200  …`.
fn step_of(line: &str) -> Option<usize> {
    line.strip_prefix("step ")?.trim_start().split_once('/')?.0.parse().ok()
}

/// Largest memory of a process until now, in MB.
fn memory_of(id: u32) -> usize {
    let mut text = String::new();
    let file = std::fs::File::open(format!("/proc/{id}/status"));
    let read = file.and_then(|mut file| file.read_to_string(&mut text));
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    read.ok().and(kilobytes).map_or(0, |kilobytes| kilobytes / 1000)
}

/// Removes the entries that are times.
fn without_times(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(without_times).collect(),
        Value::Object(entries) => {
            let is_time = |key: &str| key.ends_with("_runtime") || key.ends_with("_per_second");
            let kept = entries.iter().filter(|(key, _)| !is_time(key));
            Value::Object(kept.map(|(key, value)| (key.clone(), without_times(value))).collect())
        }
        other => other.clone(),
    }
}

/// Log lines without times. The loss of the last line is a mean over the steps of its process, and is removed too.
fn log_of(training: &Training) -> Vec<Value> {
    let mut lines: Vec<Value> = training.json_lines("log.jsonl").iter().map(without_times).collect();
    let last = lines.last_mut().unwrap().as_object_mut().unwrap();
    assert!(last.remove("train_loss").is_some_and(|loss| loss.is_number()));
    lines
}

/// Files of an output folder that must be equal in both trainings: all but the log, the curves and the trainer states, which
/// contain times.
fn equal_files(training: &Training) -> Files {
    let mut files = files_of(&training.folder.join(OUTPUT));
    files.retain(|name, _| !name.starts_with("runs/") && name != "log.jsonl" && !name.ends_with("/trainer_state.json"));
    files
}

/// Compares everything that two trainings have left, byte for byte where there are no times.
fn check_equal(whole: &Training, killed: &Training) {
    let (expected, found) = (equal_files(whole), equal_files(killed));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
    let checkpoints = checkpoints(&expected);
    assert!(expected.contains_key(&format!("checkpoint-{STEPS}/optimizer.safetensors")), "{checkpoints:?}");
    for checkpoint in checkpoints.keys() {
        let states = [whole, killed].map(|training| without_times(&training.trainer_state(checkpoint)));
        assert_eq!(states[0], states[1], "{checkpoint}");
    }
    let logs = [whole, killed].map(log_of);
    assert_eq!(logs[0], logs[1]);
    let steps = logs[0].iter().filter(|line| line.get("loss").is_some()).count();
    assert_eq!(steps, STEPS / LOG_STEPS);
    let bytes: usize = expected.values().map(Vec::len).sum();
    println!("equal: {} files, {bytes} bytes, {} log lines, {checkpoints:?}", expected.len(), logs[0].len());
}

/// Number of files of each checkpoint.
fn checkpoints(files: &Files) -> BTreeMap<&str, usize> {
    let mut found = BTreeMap::new();
    for (folder, _) in files.keys().filter_map(|name| name.split_once('/')) {
        if folder.starts_with("checkpoint-") {
            *found.entry(folder).or_insert(0) += 1;
        }
    }
    found
}

/// Checks that each evaluation is in the log, and that the result is the checkpoint of the best one.
fn check_best(training: &Training) {
    let key = "eval_mean_dot_ndcg@10";
    let lines = training.json_lines("log.jsonl");
    let score = |line: &Value| Some((line.get(key)?.as_f64()?, line["step"].as_u64()?));
    let scores: Vec<(f64, u64)> = lines.iter().filter_map(score).collect();
    assert_eq!(scores.len(), STEPS / SAVE_STEPS, "{scores:?}");
    let first_best = |best: (f64, u64), score: &(f64, u64)| if score.0 > best.0 { *score } else { best };
    let (metric, step) = scores.iter().fold(scores[0], first_best);
    let checkpoint = format!("checkpoint-{step}");
    let state = training.trainer_state(&checkpoint);
    assert_eq!((state["best_global_step"].as_u64(), state["best_metric"].as_f64()), (Some(step), Some(metric)));
    assert_eq!(state["best_model_checkpoint"], format!("{OUTPUT}/{checkpoint}"));
    let files = files_of(&training.folder.join(OUTPUT));
    let weights: Vec<&String> = files.keys().filter(|name| name.starts_with("final/") && is_weights(name)).collect();
    assert_eq!(weights.len(), 2, "{weights:?}");
    for name in weights {
        assert!(files[name] == files[&name.replacen("final", &checkpoint, 1)], "{name}");
    }
    let curves = files.keys().filter(|name| name.starts_with("runs/events.out.tfevents.")).count();
    println!("best: {metric:.4} at step {step} of {scores:?}; {curves} event files");
    assert!(curves > 0);
}

fn is_weights(name: &str) -> bool {
    name.ends_with("/model.safetensors")
}

/// Runs tests/proof.py with `PYTHON`, which must succeed, and prints its output.
fn python(args: [&Path; 3]) {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(ours("proof.py")).args(args).env("HF_HUB_OFFLINE", "1").env("TRANSFORMERS_OFFLINE", "1");
    // transformers copies the code of a model to HF_HOME before it runs it
    command.env("HF_HOME", args[2].join("python-home")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    println!("{}", text(&output.stdout));
}

/// Encodes texts by the model on the Hub and compares the vectors with those of sentence-transformers, which loads the files
/// that were uploaded.
fn check_python(place: &Place, training: &Training) {
    for (name, bytes) in training.uploaded() {
        place.write(&format!("pulled/{name}"), bytes);
    }
    for (role, texts) in [("document", "documents"), ("query", "queries")] {
        let (input, output) = (format!("../{texts}.jsonl"), format!("../{role}-vectors.jsonl"));
        let args = ["encode", REPO, "--input", &input, "--role", role, "--output", &output, "--backend", "candle"];
        finish(training.command(place, &args).spawn().unwrap()).done();
    }
    python([Path::new("compare"), &place.path("pulled"), &place.path("")]);
}

/// The Python package cannot load NorBERT3 without code in the model folder: see proof.py for the code that is there.
#[test]
#[ignore = "needs ../shared, some 15 minutes on two cores, and Python with sentence-transformers; run with \
            `PYTHON=python3 cargo test --workspace --test proof -- --ignored --nocapture`"]
fn the_shipped_config_trains_resumes_evaluates_uploads_and_loads_in_python() {
    let place = setup();
    python([Path::new("make"), &shared(""), &place.path("")]);

    let whole = Training::new(&place, "whole");
    whole.run(&place, false, None);

    let killed = Training::new(&place, "killed");
    let kills = [Kill::AtStep(65), Kill::BeforeCheckpoint(150)];
    killed.run(&place, false, Some(kills[0]));
    for (kill, next) in kills.into_iter().zip([Some(kills[1]), None]) {
        let step = killed.last_checkpoint();
        assert!(kill.may_leave(step), "{kill:?} leaves checkpoint-{step}");
        let stderr = killed.run(&place, true, next);
        assert!(stderr.contains(&format!("resumes {OUTPUT}/checkpoint-{step} after {step} steps")), "{stderr}");
    }

    check_equal(&whole, &killed);
    check_best(&killed);
    for training in [&whole, &killed] {
        assert_eq!(training.uploaded(), files_of(&training.output("final")));
        println!("uploads: {:?}", training.hub.messages(REPO));
    }
    check_python(&place, &killed);
}
