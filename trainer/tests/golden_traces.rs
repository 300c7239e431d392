//! Whole trainings against sentence-transformers, step by step (docs/training.md section 7, with its tolerances).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use splade_trainer::data::{Batch, DataSet, LabelUse, Material, load_data_set};
use splade_trainer::loss::RegularizerWeights;
use splade_trainer::optimizer::Parameter;
use splade_trainer::{Session, TrainConfig, Trainee};

const TRACES: [(&str, &str); 5] = [
    ("inference-free", "trace_config"),
    ("inference-free", "trace_hot"),
    ("inference-free", "trace_accum"),
    ("splade", "trace_config"),
    ("splade", "trace_hot"),
];

/// Keys that choose a way of computing and not a result: none, layers computed again, batches encoded in pieces.
const WAYS: [(&str, &str); 3] = [("", ""), ("hardware.gradient_checkpointing", "true"), ("loss.mini_batch_size", "3")];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sparse-encoder")
}

/// The trace's config in our words.
fn config(architecture: &str, trace: &Value, (key, setting): (&str, &str)) -> TrainConfig {
    let theirs = &trace["config"];
    let data: serde_json::Map<String, Value> = theirs["datasets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| {
            let name = name.as_str().unwrap();
            (name.to_owned(), json!({"files": [fixtures().join("training-data").join(format!("{name}.jsonl"))]}))
        })
        .collect();
    let mut router = json!({});
    if architecture == "inference-free" {
        router = json!({"learning_rate_patterns": theirs["learning_rate_mapping"]});
    }
    let mut value = json!({
        "model": {
            "base_model": fixtures().join(architecture).join("model"),
            "architecture": if architecture == "splade" { "splade" } else { "inference-free-splade" },
            "load_pretrained_sparse_encoder": true,
        },
        "training": {
            "output_dir": "unused",
            "learning_rate": theirs["learning_rate"],
            "warmup_ratio": theirs["warmup"],
            "weight_decay": theirs["weight_decay"],
            "max_grad_norm": theirs["max_grad_norm"],
            "gradient_accumulation_steps": theirs["gradient_accumulation_steps"],
            "per_device_train_batch_size": theirs["per_device_train_batch_size"],
            "max_seq_length": theirs["max_seq_length"],
            "eval_strategy": "no",
        },
        "loss": {
            "query_regularizer_weight": theirs["query_regularizer_weight"],
            "document_regularizer_weight": theirs["document_regularizer_weight"],
            "regularizer_schedule": theirs["regularizer_scheduler"],
            "regularizer_warmup_ratio": theirs["regularizer_warmup_ratio"],
            "scale": theirs["mnrl_scale"],
        },
        "datasets": data,
        "router": router,
    });
    if let Some((section, key)) = key.split_once('.') {
        value[section][key] = serde_json::from_str(setting).unwrap();
    }
    TrainConfig::from_value(&value).unwrap().0
}

struct Replay {
    session: Session,
    names: Vec<String>,
    trace: Value,
    folder: PathBuf,
    name: String,
}

fn replay(architecture: &str, name: &str) -> Replay {
    replay_in(architecture, name, WAYS[0])
}

fn replay_in(architecture: &str, name: &str, way: (&str, &str)) -> Replay {
    let folder = fixtures().join(architecture).join(name);
    let trace: Value = serde_json::from_slice(&std::fs::read(folder.join("expected_trace.json")).unwrap()).unwrap();
    let config = config(architecture, &trace, way);
    let trainee = Trainee::new(&config, || Ok(Vec::new()), &Device::Cpu).unwrap();
    let sets: Vec<DataSet> =
        config.datasets.enabled().flat_map(|set| load_data_set(set, 0, LabelUse::Ignored).unwrap().train).collect();
    let names = sets.iter().map(|set| set.name.clone()).collect();
    let total = trace["total_steps"].as_u64().unwrap() as usize;
    let session = Session::new(&config, trainee, Material::Examples(sets), total).unwrap();
    Replay { session, names, trace, folder, name: format!("{architecture}/{name} {}", way.0) }
}

impl Replay {
    /// The reference's micro-batches, step by step.
    fn steps(&self) -> Vec<Vec<Batch>> {
        let batch = |value: &Value| Batch {
            data_set: self.names.iter().position(|name| value["dataset"] == name.as_str()).unwrap(),
            rows: value["rows"].as_array().unwrap().iter().map(|row| row.as_u64().unwrap() as usize).collect(),
        };
        let all: Vec<Batch> = self.trace["micro_batches"].as_array().unwrap().iter().map(batch).collect();
        let per_step = self.trace["config"]["gradient_accumulation_steps"].as_u64().unwrap() as usize;
        all.chunks(per_step).map(<[Batch]>::to_vec).collect()
    }

    /// The reference's name of a parameter in its files.
    fn key(&self, parameter: &Parameter) -> String {
        parameter.key().replacen("model/", "document/", 1)
    }
}

/// The gradient of a key's bias is exactly 0; Adam turns its rounding noise into steps of full size.
fn is_noise(key: &str) -> bool {
    key.ends_with("attention.self.key.bias")
}

fn close(found: f64, expected: &Value, relative: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    let allowed = relative * expected.abs() + 1e-7;
    assert!((found - expected).abs() <= allowed, "{what}: {found} is not {expected}");
}

#[test]
fn every_step_agrees() {
    for (way, (architecture, name)) in WAYS.iter().flat_map(|way| TRACES.map(|trace| (*way, trace))) {
        let mut replay = replay_in(architecture, name, way);
        let steps = replay.steps();
        assert_eq!(steps.len(), replay.trace["steps"].as_array().unwrap().len());
        let mut micro = 0;
        for (step, batches) in steps.iter().enumerate() {
            let what = |part: &str| format!("{} step {step} {part}", replay.name);
            let report = replay.session.step(step, batches).unwrap();
            for values in &report.losses {
                let expected = &replay.trace["micro_batches"][micro];
                close(values.base, &expected["base_loss"], 1e-4, &what("base_loss"));
                let regularizer = &expected["document_regularizer_loss"];
                close(values.document_regularizer, regularizer, 1e-4, &what("document_regularizer_loss"));
                let weights = report.regularizer_weights;
                close(weights.document, &expected["document_regularizer_weight"], 1e-9, &what("document weight"));
                for (found, key) in
                    [(values.query_regularizer, "query_regularizer_loss"), (weights.query, "query_regularizer_weight")]
                {
                    // a weight of null leaves the term out altogether
                    match found {
                        Some(found) => close(found, &expected[key], 1e-4, &what(key)),
                        None => assert!(expected[key].is_null(), "{}", what(key)),
                    }
                }
                micro += 1;
            }
            let expected = &replay.trace["steps"][step];
            close(report.grad_norm, &expected["logged"]["grad_norm"], 1e-3, &what("grad_norm"));
            close(report.learning_rate, &expected["lr"][0], 1e-9, &what("learning rate"));
        }
        assert_eq!(micro, replay.trace["micro_batches"].as_array().unwrap().len());
    }
}

#[test]
fn final_weights_agree() {
    for (architecture, name) in TRACES {
        let mut replay = replay(architecture, name);
        let values = |replay: &Replay| -> Vec<Vec<f32>> {
            let parameters = replay.session.optimizer().parameters();
            parameters.iter().map(|p| p.var().flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        let start = values(&replay);
        for (step, batches) in replay.steps().iter().enumerate() {
            replay.session.step(step, batches).unwrap();
        }
        let end = values(&replay);
        let expected: HashMap<String, Tensor> =
            candle_core::safetensors::load(replay.folder.join("final.safetensors"), &Device::Cpu).unwrap();
        let (mut dot, mut ours_sq, mut theirs_sq, mut compared) = (0.0, 0.0, 0.0, 0);
        for (at, parameter) in replay.session.optimizer().parameters().iter().enumerate() {
            let key = replay.key(parameter);
            let theirs = expected[&key].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(theirs.len(), end[at].len(), "{key}");
            if is_noise(&key) {
                continue;
            }
            let (mut difference, mut change) = (0.0_f64, 0.0_f64);
            for ((ours, theirs), start) in end[at].iter().zip(&theirs).zip(&start[at]) {
                let (ours, theirs) = (f64::from(ours - start), f64::from(theirs - start));
                difference += (ours - theirs).powi(2);
                change += theirs.powi(2);
                dot += ours * theirs;
                ours_sq += ours * ours;
                theirs_sq += theirs * theirs;
            }
            assert!(
                difference.sqrt() <= 1e-2 * change.sqrt() + 1e-9,
                "{} {key}: {} of {}",
                replay.name,
                difference.sqrt(),
                change.sqrt()
            );
            compared += 1;
        }
        assert_eq!(compared + expected.keys().filter(|key| is_noise(key)).count(), expected.len());
        let cosine = dot / (ours_sq.sqrt() * theirs_sq.sqrt());
        assert!(cosine > 0.9999, "{}: {cosine}", replay.name);
    }
}

#[test]
fn first_gradients_agree() {
    let traces = TRACES.iter().filter(|(_, name)| *name == "trace_config");
    for (way, (architecture, name)) in traces.flat_map(|trace| WAYS.map(|way| (way, trace))) {
        let replay = replay_in(architecture, name, way);
        let first = &replay.trace["micro_batches"][0];
        let weights = RegularizerWeights {
            document: first["document_regularizer_weight"].as_f64().unwrap(),
            query: first["query_regularizer_weight"].as_f64(),
        };
        let (gradients, ..) = replay.session.gradients(0, &replay.steps()[0], weights).unwrap();
        let file = replay.folder.join("grads_step0_unclipped.safetensors");
        let expected = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        for (at, parameter) in replay.session.optimizer().parameters().iter().enumerate() {
            let key = replay.key(parameter);
            if is_noise(&key) {
                continue;
            }
            let theirs = &expected[&key];
            let ours = gradients.get(at).unwrap();
            assert!(!ours.track_op(), "{} {key}: a gradient holds the graph it was made from", replay.name);
            let ours = ours.reshape(theirs.shape()).unwrap();
            let most = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let (difference, largest) = (most((ours - theirs).unwrap()), most(theirs.clone()));
            assert!(difference <= 1e-4 * largest, "{} {key}: {difference} of {largest}", replay.name);
        }
    }
}

#[test]
fn the_parameter_groups_are_the_reference_s() {
    for (architecture, name) in TRACES {
        let replay = replay(architecture, name);
        let parameters = replay.session.optimizer().parameters();
        let groups = replay.session.optimizer().groups();
        let theirs = replay.trace["optimizer_groups"].as_array().unwrap();
        assert_eq!(groups.len(), theirs.len(), "{}", replay.name);
        for (group, theirs) in groups.iter().zip(theirs) {
            close(group.learning_rate, &theirs["initial_lr"], 1e-9, "initial_lr");
            close(group.weight_decay, &theirs["weight_decay"], 1e-9, "weight_decay");
            let mut ours: Vec<String> = group.parameters.iter().map(|at| replay.key(&parameters[*at])).collect();
            let mut theirs: Vec<String> =
                theirs["params"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs, "{}", replay.name);
        }
    }
}
