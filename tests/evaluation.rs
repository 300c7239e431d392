//! `eval-mteb`: what stands beside a score, and what stops a run whose scores would mean nothing.
#![cfg(feature = "train")]

mod util;

use std::process::Command;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use util::{Place, fixture, names, ours, setup};

fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    place
}

/// The model has no ONNX file, so Candle runs, with a line on stderr.
const EVALUATE: [&str; 4] = ["eval-mteb", "model", "--data", "toy"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

/// Replaces the values of a tensor.
fn fill(place: &Place, file: &str, tensor: &str, value: impl Fn(usize) -> f32) {
    let bytes = std::fs::read(place.path(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = tensors.tensor(tensor).unwrap().shape().to_vec();
    let values: Vec<u8> = (0..shape.iter().product()).flat_map(|at| value(at).to_le_bytes()).collect();
    let view = |name: String, old| match name == tensor {
        true => (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), &values).unwrap()),
        false => (name, old),
    };
    let all = tensors.iter().map(|(name, old)| view(name.to_owned(), old));
    place.write(file, safetensors::serialize(all, None).unwrap());
}

const NETWORK: &str = "model/document_0_Transformer/model.safetensors";
const BIAS: &str = "cls.predictions.bias";

#[test]
fn vectors_that_mean_nothing_stop_the_run() {
    type Bias = fn(usize) -> f32;
    let hint = "trained sparse encoder";
    let cases: [(&str, Bias, &str); 3] = [
        ("zero", |_| -1e9, "toy: the document vectors are all zero, so a score would mean nothing"),
        ("full", |_| 1e4, "toy: the document vectors are all full: no weight is zero"),
        (
            "equal",
            |dim| if dim == 7 { 1e9 } else { -1e9 },
            "toy: the document vectors are all equal, whatever the text",
        ),
    ];
    for (name, bias, message) in cases {
        let place = place();
        fill(&place, NETWORK, BIAS, bias);
        place.run(&EVALUATE).fails(2, message, hint);
        assert_eq!(place.names(), ["model", "toy"], "{name}");
        assert!(!place.cache().exists() || names(&place.cache()).len() < 2, "{name}: broken vectors are not kept");
    }
    let broken = place();
    fill(&broken, NETWORK, BIAS, |_| f32::NAN);
    let ran = broken.run(&EVALUATE);
    assert!(ran.code != Some(0) && ran.stderr.contains("not finite"), "{}", ran.stderr);
    let no_table = place();
    fill(&no_table, "model/query_0_SparseStaticEmbedding/model.safetensors", "weight", |_| 0.0);
    no_table.run(&EVALUATE).fails(2, "toy: the query vectors are all zero", hint);
}

#[test]
fn queries_of_the_wrong_side_are_refused() {
    let place = place();
    let part = "model/document_0_Transformer";
    place.run(&["eval-mteb", part, "--data", "toy"]).fails(
        2,
        "queries would be encoded by the network",
        "router_config.json",
    );
    place.copy(&place.path(part), "moved");
    place.ok(&["eval-mteb", "moved", "--data", "toy"]);
    place.write("moved/README.md", "---\ntags:\n- sparse-encoder\n- inference-free\n---\n");
    let card = place.run(&["eval-mteb", "moved", "--data", "toy", "--overwrite"]);
    card.fails(2, "its model card says that queries have a static table", "router_config.json");
    std::fs::remove_dir_all(place.path("model/query_0_SparseStaticEmbedding")).unwrap();
    place.run(&EVALUATE).fails(2, "no model.safetensors with the query weights", "");
}

#[test]
fn facts_stand_beside_every_score() {
    let place = place();
    place.write("toy/corpus.jsonl", place.read("toy/corpus.jsonl") + "{\"_id\": \"none\", \"text\": \" \"}\n");
    let json = place.json(&with(&EVALUATE, &["--json", "--max-length", "16"]));
    let conditions = &json["tasks"][0]["conditions"];
    let facts = &conditions["facts"];
    assert_eq!((&conditions["precision"], &conditions["max_length"]), (&json!("fp32"), &json!(16)));
    assert_eq!(conditions["model_fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!((&facts["documents"]["empty"], &facts["queries"]["empty"]), (&json!(1), &json!(0)));
    assert_eq!(
        (&facts["documents"]["backend"], &facts["queries"]["backend"]),
        (&json!("candle"), &json!("query table"))
    );
    // the twelve texts are longer than 16 tokens, the queries are not truncated by --max-length
    assert_eq!((&facts["documents"]["truncated"], &facts["queries"]["truncated"]), (&json!(12), &json!(0)));
    assert!(facts["flops"].as_f64().unwrap() > 0.0 && facts["documents"]["active_dims"].as_f64().unwrap() > 1.0);
    let table = place.ok(&with(&EVALUATE, &["--max-length", "16"]));
    let document = table.lines().find(|line| line.starts_with("toy") && line.contains("document")).unwrap();
    assert!(document.contains("candle") && table.contains(", precision fp32, max length 16\n"), "{table}");
    let summary: Value = serde_json::from_str(&place.read("results/summary.json")).unwrap();
    let entry = &summary["results"][0];
    assert_eq!((&entry["conditions"], &entry["task"]), (conditions, &json!("toy")));
    assert_eq!(entry["experiment"], "sparse_max_length_16");
    // the model's own results are beside it, and the summary has both
    place.ok(&EVALUATE);
    let folder = "results/results/local__model/no_revision_available";
    assert_eq!(names(&place.path(folder)), ["experiments", "model_meta.json", "toy.json"]);
    let meta: Value =
        serde_json::from_str(&place.read(&format!("{folder}/experiments/sparse_max_length_16/model_meta.json")))
            .unwrap();
    assert_eq!(meta["experiment_kwargs"], json!({"max_length": 16}));
    let summary: Value = serde_json::from_str(&place.read("results/summary.json")).unwrap();
    assert_eq!(summary["results"].as_array().unwrap().len(), 2);
}

#[test]
fn a_second_evaluation_encodes_nothing() {
    let place = place();
    let run = |output: &str, more: &[&str]| place.run(&with(&EVALUATE, &[&["--output-dir", output], more].concat()));
    let first = run("first", &[]);
    assert!(
        first.stderr.contains("runs in Candle") && first.stderr.contains("encoded texts are cached in"),
        "{}",
        first.stderr
    );
    let files = names(&place.cache());
    assert_eq!(files.len(), 2, "queries and documents: {files:?}");
    let second = run("second", &[]);
    assert!(!second.stderr.contains("runs in Candle"), "{}", second.stderr);
    assert!(second.stderr.contains("12 document vectors are from the cache"), "{}", second.stderr);
    let table = first.done();
    assert_eq!(second.done(), table);
    assert_eq!(run("plain", &["--no-cache"]).done(), table, "the plain twin of the cache");
    // a damaged file is made again
    damage_cache(&place, &files);
    let third = run("third", &[]);
    assert!(third.stderr.contains("or damaged: the texts are encoded again"), "{}", third.stderr);
    assert_eq!(third.done(), table);
    assert!(run("fourth", &[]).stderr.contains("from the cache"));
    // other settings, other files
    run("shorter", &["--max-length", "16"]).done();
    assert_eq!(names(&place.cache()).len(), 4);
    let uncached = setup();
    uncached.copy(&place.path("model"), "model");
    uncached.copy(&place.path("toy"), "toy");
    uncached.ok(&with(&EVALUATE, &["--no-cache"]));
    assert!(!uncached.cache().exists());
}

/// Changes a bit of files of the cache.
fn damage_cache(place: &Place, files: &[String]) {
    for file in files {
        let path = place.cache().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn dense_vectors_are_cached_like_sparse_ones() {
    let place = place();
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    let dense = ["--modes", "dense", "--dense", "dense-model", "--output-dir"];
    let run = |output: &str, more: &[&str]| place.run(&with(&EVALUATE, &[&dense[..], &[output], more].concat()));
    let first = run("first", &[]);
    assert!(first.stderr.contains("the dense model runs in ONNX Runtime"), "{}", first.stderr);
    let files = names(&place.cache());
    assert_eq!(files.len(), 2, "queries and documents: {files:?}");
    let second = run("second", &[]);
    assert!(!second.stderr.contains("the dense model runs"), "the network is not loaded: {}", second.stderr);
    assert!(second.stderr.contains("4 dense query vectors are from the cache"), "{}", second.stderr);
    assert!(second.stderr.contains("12 dense document vectors are from the cache"), "{}", second.stderr);
    let table = first.done();
    assert_eq!(second.done(), table);
    assert_eq!(run("plain", &["--no-cache"]).done(), table, "the plain twin of the cache");
    // other vectors have other files
    let prompted = run("prompted", &["--dense-document-prompt", "x: "]);
    assert!(prompted.stderr.contains("the dense model runs in ONNX Runtime"), "{}", prompted.stderr);
    assert_eq!(names(&place.cache()).len(), 4);
    // a damaged file is made again
    damage_cache(&place, &files);
    let third = run("third", &[]);
    assert!(third.stderr.contains("or damaged: the texts are encoded again"), "{}", third.stderr);
    assert_eq!(third.done(), table);
}

/// Passages of an evaluation are those of an index: the scores equal those of a search as a run.
#[test]
fn documents_may_be_split_into_passages() {
    let place = place();
    place.write("toy/corpus.jsonl", place.read("toy/corpus.jsonl") + "{\"_id\": \"none\", \"text\": \" \"}\n");
    let split = ["--max-length", "32", "--passages", "16/4"];
    let run = |output: &str, more: &[&str]| {
        let modes = ["--modes", "sparse,hybrid", "--json", "--output-dir", output];
        place.run(&with(&EVALUATE, &[&modes[..], &split, more].concat()))
    };
    let first = run("first", &["--save-runs"]);
    let second = run("second", &[]);
    assert!(second.stderr.contains(" document vectors are from the cache"), "{}", second.stderr);
    let json = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    let (found, cached, plain) = (json(first.done()), json(second.done()), json(run("plain", &["--no-cache"]).done()));
    let scores = |found: &Value, mode: &str| found["tasks"][0]["scores"][mode].clone();
    for mode in ["sparse", "hybrid"] {
        assert_eq!(scores(&found, mode), scores(&cached, mode), "{mode}");
        assert_eq!(scores(&found, mode), scores(&plain, mode), "{mode}");
    }
    let facts = &found["tasks"][0]["conditions"]["facts"]["documents"];
    assert_eq!((&facts["texts"], &facts["truncated"]), (&json!(13), &json!(0)), "{facts}");
    assert!(facts["passages"].as_u64().unwrap() > 20, "{facts}");
    let experiments = "first/results/local__model/no_revision_available/experiments";
    assert_eq!(
        names(&place.path(experiments)),
        ["hybrid_max_length_32_passages_16_4", "sparse_max_length_32_passages_16_4"]
    );

    let index = ["index", "model", "--input", "toy/corpus.jsonl", "--index", "toy.index"];
    place.ok(&with(&index, &split));
    let search = ["search", "--index", "toy.index", "--queries", "toy/queries.jsonl", "-k", "13", "--format", "trec"];
    let searched = place.ok(&search);
    let run = place.read(&format!("{experiments}/sparse_max_length_32_passages_16_4/toy.run.trec"));
    let hits = |run: &str| -> Vec<[String; 3]> {
        let hit = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            [words[0], words[2], words[4]].map(str::to_owned)
        };
        let mut hits: Vec<_> = run.lines().map(hit).filter(|hit| hit[2] != "0").collect();
        hits.sort();
        hits
    };
    assert!(!hits(&searched).is_empty());
    assert_eq!(hits(&run), hits(&searched));

    let none = ["--modes", "bm25", "--passages", "16"];
    place.run(&with(&EVALUATE, &none)).fails(2, "--passages has no effect", "add one of these modes");
    place.run(&with(&EVALUATE, &["--passages", "400"])).fails(
        2,
        "passages of 400 tokens are longer than",
        "use at most",
    );
}

#[test]
fn finished_tasks_are_taken_and_the_others_are_evaluated() {
    let place = place();
    place.copy(&ours("data/toy"), "second");
    let both = with(&["eval-mteb", "model", "--data", "toy", "second"], &["--modes", "sparse,bm25", "--save-runs"]);
    let corpus = place.read("second/corpus.jsonl");
    place.write("second/corpus.jsonl", corpus.repeat(2));
    let broken = place.run(&both);
    broken.fails(2, "results of toy are complete in results", "");
    let folder = "results/results/local__model/no_revision_available";
    let before = place.read(&format!("{folder}/toy.json"));
    place.write("second/corpus.jsonl", corpus);
    let resumed = place.run(&both);
    assert!(resumed.stderr.contains("toy: evaluated already under equal conditions"), "{}", resumed.stderr);
    assert!(!resumed.stderr.contains("second: evaluated already"), "{}", resumed.stderr);
    assert_eq!(place.read(&format!("{folder}/toy.json")), before);
    let table = resumed.done();
    assert_eq!(place.ok(&both), table, "all taken");
    assert_eq!(place.ok(&with(&both, &["--overwrite"])), table, "all evaluated");
    // a run that is asked for and missing
    std::fs::remove_file(place.path(&format!("{folder}/toy.run.trec"))).unwrap();
    place.ok(&both);
    assert!(place.path(&format!("{folder}/toy.run.trec")).is_file());
}

/// Run with: SPLADE_PYTHON=python3 cargo test --workspace --test evaluation -- --ignored mteb
#[test]
#[ignore = "needs a Python with mteb 2.26.24, named by SPLADE_PYTHON"]
fn mteb_loads_the_results() {
    let place = place();
    place.ok(&with(&EVALUATE, &["--modes", "sparse,bm25,hybrid"]));
    place.ok(&with(&EVALUATE, &["--modes", "bm25,hybrid", "--language", "norwegian"]));
    let script = "
import sys, json
from mteb.cache import ResultCache
found = ResultCache(cache_path=sys.argv[1]).load_results(load_experiments='match_name')
print(json.dumps({str(m.experiment_name): m.task_results[0].get_score() for m in found.model_results}))
";
    let python = std::env::var("SPLADE_PYTHON").expect("SPLADE_PYTHON names a Python with mteb");
    let output = Command::new(python)
        .args(["-W", "error::UserWarning", "-c", script])
        .arg(place.path("results"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.to_lowercase().contains("warn"), "{stderr}");
    let scores: Value = serde_json::from_slice(&output.stdout).unwrap();
    let summary: Value = serde_json::from_str(&place.read("results/summary.json")).unwrap();
    let entries = summary["results"].as_array().unwrap();
    assert_eq!((entries.len(), scores.as_object().unwrap().len()), (5, 5), "{scores:#}");
    for entry in entries {
        let name = match (entry["mode"].as_str().unwrap(), entry["experiment"].as_str().unwrap()) {
            ("sparse", _) => "None".to_owned(),
            (mode, experiment) if experiment == mode => format!("mode_{mode}__stemmer_none"),
            (mode, _) => format!("mode_{mode}__stemmer_norwegian"),
        };
        let difference = scores[&name].as_f64().unwrap() - entry["scores"]["ndcg_at_10"].as_f64().unwrap();
        assert!(difference.abs() < 1e-5, "{name}: {scores:#}");
    }
}

#[test]
fn modes_stemmers_and_imported_runs_stand_side_by_side() {
    let place = place();
    let modes = ["--modes", "sparse,bm25,hybrid,bm25", "--language", "none,norwegian"];
    place.ok(&with(&EVALUATE, &[&modes[..], &["--save-runs"]].concat()));
    let folder = "results/results/local__model/no_revision_available";
    let experiments = names(&place.path(&format!("{folder}/experiments")));
    assert_eq!(experiments, ["bm25", "bm25_norwegian", "hybrid", "hybrid_norwegian"]);
    let run = format!("{folder}/experiments/bm25_norwegian/toy.run.trec");
    let part = place
        .read(&run)
        .lines()
        .filter(|line| !line.starts_with("q1 "))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    place.write("part.trec", part);
    let (other, half) = (format!("other={run}"), "half=part.trec");
    let args = with(&EVALUATE, &[&modes[..], &["--run", &other, "--run", half]].concat());
    let ran = place.run(&args);
    assert!(ran.stderr.contains("part.trec lacks 1 of 4 queries"), "{}", ran.stderr);
    let table = ran.done();
    let column = |at: usize| {
        table
            .lines()
            .take(8)
            .map(move |line| line.split("  ").filter(|cell| !cell.is_empty()).nth(at).unwrap().trim().to_owned())
    };
    assert_eq!(
        column(1).collect::<Vec<_>>(),
        ["mode", "sparse", "bm25 none", "bm25 norwegian", "hybrid none", "hybrid norwegian", "other", "half"],
        "{table}"
    );
    let ndcg: Vec<String> = column(2).collect();
    assert_eq!(ndcg[3], ndcg[6], "the run of that mode");
    assert_ne!(ndcg[2], ndcg[3]);
    place.run(&with(&EVALUATE, &["--run", "bm25=part.trec"])).fails(2, "the name bm25 is taken", "another name");
    place.run(&with(&EVALUATE, &["--run", "part.trec"])).fails(2, "no name and file", "NAME=FILE");
    place.run(&with(&EVALUATE, &["--run", "a=none.trec"])).fails(2, "none.trec: no such file or folder", "");
}

#[test]
fn scores_are_published_in_the_model_card() {
    let place = place();
    place.write("model/README.md", "---\nlicense: mit\n---\n# Tiny\n");
    place.ok(&with(&EVALUATE, &["--publish"]));
    let card = place.read("model/README.md");
    assert!(
        card.starts_with("---\nlicense: mit\nmodel-index:\n- name: local/model\n") && card.ends_with("\n---\n# Tiny\n"),
        "{card}"
    );
    assert!(card.contains("type: ndcg_at_10") && card.contains("type: corpus_active_dims"), "{card}");
    // results that are taken from an earlier run are published too, and change nothing
    place.ok(&with(&EVALUATE, &["--publish"]));
    assert_eq!(place.read("model/README.md"), card);
}

#[test]
fn dense_and_hybrid_rankings_stand_beside_the_sparse_one() {
    let place = place();
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    let modes = ["--modes", "sparse,bm25,dense,hybrid", "--dense", "dense-model", "--output-dir", "out"];
    let table = place.ok(&with(&EVALUATE, &modes));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let modes_of_rows: Vec<&str> = rows.iter().skip(1).take(4).map(|row| row[1]).collect();
    assert_eq!(modes_of_rows, ["sparse", "bm25", "dense", "hybrid"], "{table}");
    // dimensions in the place of a sparsity; most documents have more than the 24 tokens of the tiny model
    let facts = rows.iter().find(|row| row.len() > 6 && row[1] == "32").unwrap_or_else(|| panic!("{table}"));
    assert_eq!(facts[..7], ["toy", "32", "4", "12", "11", "0", "onnx"], "{table}");

    // the scores are those of the same ranking as a run
    place.ok(&["index", "model", "--input", "toy/corpus.jsonl", "--index", "dense.index", "--dense", "dense-model"]);
    let search = ["search", "--index", "dense.index", "--queries", "toy/queries.jsonl", "--format", "trec", "-k", "12"];
    let run = place.ok(&with(&search, &["--mode", "dense", "--dense", "dense-model"]));
    place.write("dense.trec", run);
    let imported = place.json(&with(&EVALUATE, &["--run", "dense=dense.trec", "--json", "--output-dir", "imported"]));
    let own =
        place.json(&with(&EVALUATE, &["--modes", "dense", "--dense", "dense-model", "--json", "--output-dir", "own"]));
    let score = |found: &Value| found["tasks"][0]["scores"]["dense"]["ndcg_at_10"].as_f64().unwrap();
    assert!((score(&imported) - score(&own)).abs() < 1e-9, "{imported} {own}");
    assert_eq!(own["tasks"][0]["conditions"]["facts"]["dense"]["dimensions"], 32, "{own}");

    place.run(&with(&EVALUATE, &["--modes", "dense"])).fails(2, "--modes dense: no dense model", "--run dense=FILE");
    place.run(&with(&EVALUATE, &["--dense", "dense-model"])).fails(
        2,
        "--dense has no effect",
        "add one of these modes",
    );
    let both = ["--modes", "dense", "--dense", "dense-model", "--run", "dense=dense.trec"];
    place.run(&with(&EVALUATE, &both)).fails(2, "the name dense is taken", "another name");
}
