//! All commands on small data: train → export → encode → index → search → evaluate.
#![cfg(feature = "train")]

mod util;

use std::collections::BTreeMap;

use serde_json::Value;
use util::{Place, fixture, names, ours, setup};

/// Pretraining, then the same network as an inference-free model.
const CONFIGS: [(&str, &str); 2] = [
    (
        "mlm.yaml",
        "
model:
  init: {hidden_size: 32, layers: 2, heads: 2, intermediate_size: 64, vocab_size: 400}
training: {objective: mlm, output_dir: mlm, max_steps: 8, per_device_train_batch_size: 4, max_seq_length: 32,
  learning_rate: 1.0e-3, eval_strategy: no, logging_steps: 4}
datasets:
  text: {files: [toy/corpus.jsonl]}
",
    ),
    (
        "train.yaml",
        "
model: {base_model: mlm/final, query_init: idf}
training: {output_dir: run, max_steps: 12, per_device_train_batch_size: 8, max_seq_length: 32, learning_rate: 1.0e-3,
  query_learning_rate: 1.0e-2, eval_steps: 6, save_steps: 6, logging_steps: 4}
loss: {document_regularizer_weight: 1.0e-3}
datasets:
  a: {files: [a.jsonl]}
  b: {files: [b.jsonl]}
evaluation: {evaluator: sparse_ir, data: [toy]}
",
    ),
];

/// Ids and vectors (index → value) of lines that `encode` writes.
fn vectors(lines: &str) -> Vec<(String, BTreeMap<u64, f64>)> {
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let indices: Vec<u64> = line["indices"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap()).collect();
        assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "indices ascend: {line}");
        let values = line["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        (line["_id"].as_str().unwrap().to_owned(), indices.into_iter().zip(values).collect())
    };
    lines.lines().map(read).collect()
}

fn assert_close(a: &str, b: &str) {
    let (a, b) = (vectors(a), vectors(b));
    assert!(!a.is_empty() && a.len() == b.len());
    for ((id, a), (other, b)) in a.iter().zip(&b) {
        assert_eq!(id, other);
        for dim in a.keys().chain(b.keys()) {
            let (a, b) = (a.get(dim).unwrap_or(&0.0), b.get(dim).unwrap_or(&0.0));
            assert!((a - b).abs() <= 1e-4, "{id} dim {dim}: {a} {b}");
        }
    }
}

#[test]
fn from_a_config_to_an_evaluation() {
    let place = setup();
    place.copy(&ours("data/toy"), "toy");
    for name in ["a", "b"] {
        place.copy(&fixture(&format!("training-data/dataset_{name}.jsonl")), &format!("{name}.jsonl"));
    }
    for (name, yaml) in CONFIGS {
        place.write(name, yaml);
    }
    train(&place);
    let parity = place.json(&["export-onnx", "run/final", "--json"]);
    let files = parity["files"].as_array().unwrap();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(file["runtimes"].as_array().unwrap().len(), 2, "{file:#}");
    }
    encode(&place);
    index(&place);
    search(&place);
    evaluate(&place);
}

fn train(place: &Place) {
    assert_eq!(place.ok(&["train", "mlm.yaml"]), "mlm/final\n");
    let ran = place.run(&["train", "train.yaml"]);
    assert!(ran.stderr.contains("best eval_mean_dot_ndcg@10: "), "{}", ran.stderr);
    assert_eq!(ran.done(), "run/final\n");
    for name in ["model.safetensors", "README.md", "modules.json", "router_config.json", "training_config.json"] {
        let found = place.path("run/final").join(name).is_file()
            || place.path("run/final/document_0_MLMTransformer").join(name).is_file();
        assert!(found, "{name} in {:?}", names(&place.path("run/final")));
    }
    let log = place.read("run/log.jsonl");
    assert!(log.lines().count() > 2, "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

fn encode(place: &Place) {
    let encode = |role: &str, backend: &str, more: &[&str]| {
        let input = if role == "query" { "toy/queries.jsonl" } else { "toy/corpus.jsonl" };
        place.ok(&[&["encode", "run/final", "--input", input, "--role", role, "--backend", backend], more].concat())
    };
    for role in ["query", "document"] {
        let onnx = encode(role, "onnx", &[]);
        assert_close(&onnx, &encode(role, "candle", &[]));
        // the same vectors with tokens for indices, by descending weight
        let tokens = encode(role, "onnx", &["--format", "tokens", "--top-k", "3"]);
        assert_eq!(tokens.lines().count(), onnx.lines().count());
        for (line, (id, vector)) in tokens.lines().zip(vectors(&onnx)) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["_id"], id.as_str());
            let weights: Vec<f64> = line["tokens"].as_object().unwrap().values().map(|w| w.as_f64().unwrap()).collect();
            assert!(weights.windows(2).all(|pair| pair[0] >= pair[1]), "{line}");
            let mut largest: Vec<f64> = vector.values().copied().collect();
            largest.sort_by(|a, b| b.total_cmp(a));
            largest.truncate(3);
            assert_eq!(weights, largest, "{line}");
        }
    }
    place.ok(&["encode", "run/final", "--input", "toy/corpus.jsonl", "--role", "document", "--output", "v.jsonl"]);
    assert_eq!(place.read("v.jsonl"), encode("document", "onnx", &[]));
}

fn index(place: &Place) {
    let index = ["index", "run/final", "--input", "toy/corpus.jsonl", "--language", "norwegian", "--index"];
    let stats = place.json(&[&index[..], &["toy.index", "--json"]].concat());
    assert_eq!(stats["documents"], 12);
    // vectors of `encode` give the same index
    place.ok(&[&index[..], &["again.index", "--vectors", "v.jsonl"]].concat());
    let hits = |index| place.ok(&["search", "--index", index, "--queries", "toy/queries.jsonl", "--json"]);
    assert_eq!(hits("toy.index"), hits("again.index"));
}

/// Searches a copy of the index while no model exists.
fn search(place: &Place) {
    let away = setup();
    away.copy(&place.path("toy.index"), "moved.index");
    away.copy(&place.path("toy/queries.jsonl"), "queries.jsonl");
    std::fs::rename(place.path("run"), place.path("hidden")).unwrap();
    for mode in ["sparse", "bm25", "hybrid"] {
        let base = ["search", "--index", "moved.index", "--queries", "queries.jsonl", "--mode", mode, "-k", "5"];
        let lines = away.json_lines(&[&base[..], &["--json", "--explain"]].concat());
        assert_eq!(lines.len(), 4);
        let mut trec = String::new();
        for line in &lines {
            let hits = line["hits"].as_array().unwrap();
            let score = |hit: &Value| hit["score"].as_f64().unwrap() as f32;
            for (rank, pair) in hits.windows(2).enumerate() {
                assert_eq!(pair[0]["rank"], rank + 1);
                let (a, b) = (score(&pair[0]), score(&pair[1]));
                let in_order = a > b || (a == b && pair[0]["_id"].as_str() < pair[1]["_id"].as_str());
                assert!(in_order, "{mode}: {pair:?}");
            }
            for hit in hits {
                assert!(hit["text"].is_string() && hit["theme"].is_string(), "other fields come back: {hit}");
                let terms = hit["terms"].as_array().unwrap();
                let sum: f64 = terms.iter().map(|term| term["score"].as_f64().unwrap()).sum();
                if mode == "sparse" {
                    assert!((sum - f64::from(score(hit))).abs() <= 1e-4 * sum.abs(), "terms add up: {hit:#}");
                }
                for term in terms {
                    let product = term["query_weight"].as_f64().unwrap() * term["document_weight"].as_f64().unwrap();
                    assert!((product - term["score"].as_f64().unwrap()).abs() <= 1e-5, "{term}");
                    assert!(term["token"].is_string() && term["expansion"].is_boolean(), "{term}");
                }
                let (query, id) = (line["query_id"].as_str().unwrap(), hit["_id"].as_str().unwrap());
                trec.push_str(&format!("{query} Q0 {id} {} {} splade\n", hit["rank"], score(hit)));
            }
        }
        assert!(lines.iter().any(|line| !line["hits"].as_array().unwrap().is_empty()), "{mode} finds something");
        assert_eq!(away.ok(&[&base[..], &["--format", "trec"]].concat()), trec, "{mode}");
    }
    let filtered = away.json_lines(&[
        "search",
        "--index",
        "moved.index",
        "Norge",
        "--mode",
        "bm25",
        "--json",
        "--filter",
        "theme=fisk",
    ]);
    let hits = filtered[0]["hits"].as_array().unwrap();
    assert!(!hits.is_empty() && hits.iter().all(|hit| hit["theme"] == "fisk"), "{hits:?}");
    std::fs::rename(place.path("hidden"), place.path("run")).unwrap();
}

fn evaluate(place: &Place) {
    let evaluate =
        ["eval-mteb", "run/final", "--data", "toy", "--modes", "sparse,bm25,hybrid", "--language", "norwegian"];
    let json = place.json(&[&evaluate[..], &["--json", "--save-runs", "--analyze-sparsity"]].concat());
    let task = &json["tasks"][0];
    for mode in ["sparse", "bm25", "hybrid"] {
        for metric in ["ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10"] {
            let value = task["scores"][mode][metric].as_f64().expect(metric);
            assert!((0.0..=1.0).contains(&value), "{mode} {metric} {value}");
        }
    }
    assert!(task["scores"]["bm25"]["ndcg_at_10"].as_f64().unwrap() > 0.8, "{task:#}");
    assert_eq!(task["sparsity"]["documents"]["count"], 12);
    // the run starts with the ranking of `search`, followed by the documents of score 0, as in mteb
    let model = place.path("results/results/local__run-final");
    let revision = model.join(&names(&model)[0]);
    let run = std::fs::read_to_string(revision.join("toy.run.trec")).unwrap();
    let searched =
        place.ok(&["search", "--index", "toy.index", "--queries", "toy/queries.jsonl", "--format", "trec", "-k", "12"]);
    let pairs = |text: &str| -> Vec<(String, String)> {
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(fields).map(|fields| (fields[0].clone(), fields[2].clone())).collect()
    };
    let matches: Vec<&str> = run.lines().filter(|line| !line.ends_with(" 0 splade-sparse")).collect();
    assert_eq!(pairs(&matches.join("\n")), pairs(&searched));
    let bm25 = std::fs::read_to_string(revision.join("experiments/bm25_norwegian/toy.run.trec")).unwrap();
    assert_eq!((run.lines().count(), bm25.lines().count()), (4 * 12, 4 * 12));
    assert!(bm25.lines().any(|line| line.ends_with(" 0 splade-bm25")), "{bm25}");
    let result: Value = serde_json::from_slice(&std::fs::read(revision.join("toy.json")).unwrap()).unwrap();
    assert_eq!(result["task_name"], "toy");
    assert_eq!(result["scores"]["test"][0]["ndcg_at_10"], task["scores"]["sparse"]["ndcg_at_10"]);
    for mode in ["bm25", "hybrid"] {
        assert!(revision.join(format!("experiments/{mode}_norwegian/toy.json")).is_file(), "{mode}");
    }
}

/// A tokenizer of each kind is trained, in two processes the same; the folder of the model opens and encodes.
#[test]
fn a_new_model_with_a_tokenizer_of_each_kind() {
    let place = setup();
    place.copy(&ours("data/toy"), "toy");
    for (kind, masking) in [("wordpiece", "token"), ("bpe", "whole_word"), ("unigram", "span")] {
        let [first, second] = ["first", "second"].map(|run| pretrained(&place, kind, masking, run));
        for file in ["tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
            let [first, second] = [&first, &second].map(|model| std::fs::read(place.path(model).join(file)).unwrap());
            assert!(first == second, "{kind}: {file}");
        }
        assert_is_fixture(kind, &place.read(&format!("{first}/tokenizer.json")));
        let found = place.json(&["inspect", &first, "--json"]);
        let model = found["tokenizer"]["model"].as_str().unwrap();
        assert_eq!(model.to_lowercase(), kind);
        assert_eq!(found["tokenizer"]["adds_special"], serde_json::json!([2, 3]));
        assert_eq!(found["tokenizer"]["overrides"].as_array().map(Vec::len), Some(0), "{found:#}");
        let encode = ["encode", &*first, "--input", "toy/corpus.jsonl", "--role", "document", "--backend", "candle"];
        let vectors = vectors(&place.ok(&encode));
        assert!(vectors.len() == 12 && vectors.iter().all(|(_, vector)| !vector.is_empty()), "{kind}");
    }
}

/// The tokenizer of the fixture, whose ids transformers gave; logarithms may differ in a last bit on another system.
fn assert_is_fixture(kind: &str, found: &str) {
    let path = ours(&format!("fixtures/tokenizers/trained/{kind}.json"));
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let (mut found, mut expected) = (read(found), read(&std::fs::read_to_string(path).unwrap()));
    if kind == "unigram" {
        let [found, expected] = [&mut found, &mut expected].map(|json| json["model"]["vocab"].take());
        let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
        assert!(found.len() == expected.len() && found.len() > 100);
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found[0], expected[0]);
            assert!((found[1].as_f64().unwrap() - expected[1].as_f64().unwrap()).abs() < 1e-9, "{found} {expected}");
        }
    }
    assert!(found == expected, "{kind}");
}

/// The folder of a new model that is trained on masked words for a few steps.
fn pretrained(place: &Place, kind: &str, masking: &str, run: &str) -> String {
    let mut config = CONFIGS[0].1.replace("output_dir: mlm", &format!("output_dir: {kind}-{run}"));
    config = config.replace("vocab_size: 400", &format!("vocab_size: 400, tokenizer: {{type: {kind}}}"));
    config = config.replace("model:\n", "model:\n  architecture: splade\n");
    config.push_str(&format!("mlm: {{masking: {masking}}}\n"));
    place.write("new.yaml", &config);
    let ran = place.run(&["train", "new.yaml"]);
    assert!(!ran.stderr.contains("warning:"), "{kind}: {}", ran.stderr);
    let model = format!("{kind}-{run}/final");
    assert_eq!(ran.done(), format!("{model}\n"));
    model
}
