//! Snapshots of help, tables and results, on a small fixed model and twelve documents.
#![cfg(feature = "train")]

mod util;

use serde_json::Value;
use util::{COMMANDS, Place, fixture, ours, rounded, setup};

/// Compares a text with its snapshot in `tests/snapshots/`.
fn check(name: &str, text: &str) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, text);
    });
}

fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    place.ok(&["index", "model", "--input", "toy/corpus.jsonl", "--index", "toy.index", "--language", "norwegian"]);
    place
}

#[test]
fn help() {
    let place = setup();
    check("help", &place.ok(&["--help"]));
    for command in COMMANDS {
        check(&format!("help-{command}"), &place.ok(&[command, "--help"]));
    }
}

#[test]
fn search() {
    let place = place();
    let search = |args: &[&str]| place.ok(&[&["search", "--index", "toy.index"], args].concat());
    let question = "nordlyset om vinteren";
    check("search-explain", &search(&[question, "-k", "2", "--explain"]));
    check("search-bm25", &search(&["--queries", "toy/queries.jsonl", "-k", "2", "--mode", "bm25"]));
    let json: Value = serde_json::from_str(&search(&[question, "-k", "1", "--json", "--explain"])).unwrap();
    check("search-json", &format!("{:#}", rounded(&json)));
    let trec = search(&["--queries", "toy/queries.jsonl", "-k", "2", "--mode", "hybrid", "--format", "trec"]);
    check("search-trec", &trec);
}

#[test]
fn evaluation() {
    let place = place();
    let evaluate = ["eval-mteb", "model", "--data", "toy", "--modes", "sparse,bm25,hybrid", "--analyze-sparsity"];
    check("eval-table", &place.ok(&evaluate));
    let again =
        [&evaluate[..], &["--output-dir", "again", "--baseline", "results", "--language", "norwegian"]].concat();
    check("eval-baseline", &place.ok(&again));
    let json = place.json(&["eval-mteb", "model", "--data", "toy", "--json", "--output-dir", "third"]);
    let task = &json["tasks"][0];
    assert_eq!((task["task"].as_str(), task["split"].as_str()), (Some("toy"), Some("test")));
    let ndcg = task["scores"]["sparse"]["ndcg_at_10"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&ndcg), "{json:#}");
}

#[test]
fn run_files() {
    let place = place();
    let search = ["search", "--index", "toy.index", "--queries", "toy/queries.jsonl", "--format", "trec", "--mode"];
    place.write("run.trec", place.ok(&[&search[..], &["sparse"]].concat()));
    place.write("bm25.trec", place.ok(&[&search[..], &["bm25"]].concat()));
    let eval = ["eval-run", "run.trec", "toy/qrels/test.tsv", "--baseline", "bm25.trec", "--top", "1"];
    let explain = ["--queries", "toy/queries.jsonl", "--index", "toy.index", "--per-query"];
    check("eval-run-table", &place.ok(&[&eval[..], &explain].concat()));
    check(
        "eval-run-markdown",
        &place.ok(&[&eval[..], &["--format", "md", "--metrics", "ndcg_at_10,accuracy"]].concat()),
    );
}

#[test]
fn export() {
    let table = place().ok(&["export-onnx", "model"]);
    // differences depend on the processor, all other columns do not
    let columns = |line: &str| -> Vec<String> {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        [0, 1, 2, 3, 5, 7].iter().map(|&at| cells[at].to_owned()).collect()
    };
    let lines: Vec<String> = table.lines().map(|line| columns(line).join(" | ")).collect();
    check("export-table", &lines.join("\n"));
}

#[test]
fn verify() {
    let place = place();
    place.ok(&["export-onnx", "model", "--no-verify"]);
    let table = place.ok(&["verify", "model"]);
    // differences, their places and the fused head depend on the processor, all other columns do not
    let columns = |line: &str| -> Vec<String> {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        [0, 1, 2, 3, 5].iter().filter_map(|&at| cells.get(at)).map(|cell| (*cell).to_owned()).collect()
    };
    let lines = table.lines().filter(|line| !line.contains("fused head"));
    let lines: Vec<String> = lines.map(|line| columns(line).join(" | ")).collect();
    check("verify-table", &lines.join("\n"));
}

#[test]
fn inspect() {
    let place = place();
    place.ok(&["encode", "model", "--input", "toy/corpus.jsonl", "--role", "document", "--output", "vectors.jsonl"]);
    let table = "model/query_0_SparseStaticEmbedding/model.safetensors";
    let checkpoint = "model/document_0_Transformer/model.safetensors";
    let things = [("model", "model"), ("table", table), ("checkpoint", checkpoint)];
    for (name, path) in things.into_iter().chain([("vectors", "vectors.jsonl")]) {
        check(&format!("inspect-{name}"), &place.ok(&["inspect", path, "--top", "5"]));
    }
    // sizes of segments depend on tantivy
    let index = place.ok(&["inspect", "toy.index"]);
    let lines: Vec<&str> = index.lines().filter(|line| !line.starts_with("size")).collect();
    check("inspect-index", &lines.join("\n"));
}

#[test]
fn push() {
    let place = place();
    check("push-dry-run", &place.ok(&["push", "model", "owner/name", "--dry-run"]));
}
