//! `export-onnx --precision`, and its files in other commands and in Python.
#![cfg(feature = "train")]

mod util;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use util::{Place, finish, fixture, ours, setup};

const ALL: &str = "fp32,fp16,int8";

/// A model, and documents to encode.
fn place(model: &str) -> Place {
    let place = setup();
    place.copy(&fixture(model), "model");
    place.copy(&ours("data/toy"), "toy");
    place
}

fn encode(more: &[&'static str]) -> Vec<&'static str> {
    [&["encode", "model", "--input", "toy/corpus.jsonl", "--role", "document"], more].concat()
}

#[test]
fn every_precision_has_a_file_that_commands_select() {
    let place = place("splade/model");
    let missing = place.run(&encode(&["--precision", "int8"]));
    missing.fails(2, "model: no ONNX file in int8", "run `splade export-onnx model --precision int8`");
    let candle = place.run(&encode(&["--precision", "fp16", "--backend", "candle"]));
    candle.fails(2, "--precision fp16 is for ONNX files, not for Candle", "use --backend onnx");

    let exported = place.json(&["export-onnx", "model", "--precision", ALL, "--precision", "int8", "--json"]);
    let files = exported["files"].as_array().unwrap();
    let text = |file: &Value, key: &str| file[key].as_str().unwrap().to_owned();
    let names: Vec<String> = files.iter().map(|file| text(file, "file").replace("model/onnx/", "")).collect();
    let expected = ["model.onnx", "model_fp16.onnx", "model_int8.onnx"].into_iter().chain([
        "model_splade.onnx",
        "model_splade_fp16.onnx",
        "model_splade_int8.onnx",
    ]);
    assert_eq!(names, expected.collect::<Vec<_>>());
    for file in files {
        let size = std::fs::metadata(place.path(&text(file, "file"))).unwrap().len();
        assert_eq!(file["bytes"].as_u64(), Some(size));
        let runtimes: Vec<String> =
            file["runtimes"].as_array().unwrap().iter().map(|runtime| text(runtime, "runtime")).collect();
        match text(file, "precision").as_str() {
            "int8" => assert_eq!(runtimes, ["onnx runtime"]),
            _ => assert_eq!(runtimes, ["onnx runtime", "candle-onnx"]),
        }
    }
    let mut different = Vec::new();
    for (precision, name) in
        [("fp32", "model_splade.onnx"), ("fp16", "model_splade_fp16.onnx"), ("int8", "model_splade_int8.onnx")]
    {
        let ran = place.run(&encode(match precision {
            "fp32" => &[],
            "fp16" => &["--precision", "fp16"],
            _ => &["--precision", "int8"],
        }));
        assert!(ran.stderr.contains(&format!("/{name}")), "{}", ran.stderr);
        different.push(ran.done());
    }
    assert!(different[0] != different[1] && different[1] != different[2]);
    place.run(&["export-onnx", "model", "--precision", "int8"]).fails(
        2,
        "model_int8.onnx: exists already",
        "--overwrite",
    );
}

#[test]
fn an_int8_file_is_not_written_without_a_comparison() {
    let place = place("splade/model");
    let run = |args: &[&str]| {
        finish(place.command(args).env("ORT_DYLIB_PATH", place.path("none/libonnxruntime.so")).spawn().unwrap())
    };
    let ran = run(&["export-onnx", "model", "--precision", "int8"]);
    ran.fails(2, "model_int8.onnx: it can be compared in ONNX Runtime only: ONNX Runtime was not found", "--no-verify");
    assert!(!place.path("model/onnx/model_int8.onnx").exists());
    let table = run(&["export-onnx", "model", "--precision", "int8", "--no-verify"]).done();
    assert_eq!(table.matches("not compared").count(), 2, "{table}");
    run(&["export-onnx", "model", "--eval", "toy", "--overwrite"]).fails(2, "ONNX Runtime was not found", "make setup");
}

#[test]
fn an_evaluation_compares_every_precision_with_fp32() {
    for model in ["splade/model", "inference-free/model"] {
        let place = place(model);
        let args = ["export-onnx", "model", "--precision", "int8,fp16", "--head", "splade", "--eval", "toy", "--json"];
        let json = place.json(&args);
        let rows = json["evaluation"].as_array().unwrap();
        let precisions: Vec<&str> = rows.iter().map(|row| row["precision"].as_str().unwrap()).collect();
        assert_eq!(precisions, ["fp32", "fp16", "int8"]);
        // equal to the scores of `eval-mteb`
        place.ok(&["export-onnx", "model", "--head", "splade"]);
        for row in rows {
            let precision = row["precision"].as_str().unwrap();
            let output = format!("results-{precision}");
            let args =
                ["eval-mteb", "model", "--data", "toy", "--json", "--precision", precision, "--output-dir", &output];
            let scores = &place.json(&args)["tasks"][0]["scores"]["sparse"];
            assert_eq!(scores["ndcg_at_10"], row["ndcg_at_10"], "{model} {precision}");
            let difference = row["ndcg_at_10"].as_f64().unwrap() - rows[0]["ndcg_at_10"].as_f64().unwrap();
            assert_eq!(row["difference"].as_f64(), Some(difference));
        }
        place.run(&["export-onnx", "model", "--eval", "nowhere", "--overwrite"]).fails(2, "nowhere", "");
    }
}

#[test]
fn an_index_holds_documents_of_one_precision() {
    let place = place("inference-free/model");
    place.ok(&["export-onnx", "model", "--precision", ALL]);
    let index = |more: &[&'static str]| {
        let args: &[&str] = &["index", "model", "--input", "toy/corpus.jsonl", "--index", "idx"];
        [args, more].concat()
    };
    place.ok(&index(&["--precision", "int8"]));
    assert_eq!(place.json(&["inspect", "idx", "--json"])["settings"]["encoder_precision"], "int8");
    let mixed = place.run(&index(&["--append"]));
    mixed.fails(2, "idx: its documents were encoded in int8, not in fp32", "use --precision int8");
    place.ok(&index(&["--append", "--precision", "int8"]));
    // a deletion encodes nothing
    place.write("ids.txt", "nobody\n");
    place.ok(&["index", "model", "--index", "idx", "--append", "--delete", "ids.txt"]);
    // ready vectors do not say how they were made: neither a new index nor an append of them is compared
    let vectors = place.ok(&encode(&[]));
    place.write("vectors.jsonl", vectors);
    place.ok(&index(&["--append", "--vectors", "vectors.jsonl"]));
    place.ok(&index(&["--overwrite", "--vectors", "vectors.jsonl"]));
    assert_eq!(place.json(&["inspect", "idx", "--json"])["settings"]["encoder_precision"], Value::Null);
    place.ok(&index(&["--append", "--precision", "fp16"]));
}

#[test]
#[ignore = "needs Python with numpy, onnx, onnxruntime and tokenizers; run with \
            `PYTHON=python3 cargo test --workspace --test precision -- --ignored onnxruntime`"]
fn onnxruntime_in_python_reads_the_files() {
    compare_in_python("onnxruntime", &["model", "model_splade"]);
}

#[test]
#[ignore = "needs Python with sentence-transformers and optimum-onnx; run with \
            `PYTHON=python3 cargo test --workspace --test precision -- --ignored sentence_transformers`"]
fn sentence_transformers_in_python_reads_the_files() {
    compare_in_python("sentence-transformers", &["model"]);
}

/// Runs `onnx_files.py` with a package, which must print a line for each file. `PYTHON` names the interpreter.
fn compare_in_python(package: &str, stems: &[&str]) {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for (model, kind) in
        [("layouts/v5.1/splade/model", "splade"), ("layouts/v5.1/inference-free/model", "inference-free")]
    {
        let place = place(model);
        place.ok(&["export-onnx", "model", "--precision", ALL]);
        let texts: Value = serde_json::from_slice(&std::fs::read(fixture(kind).join("texts.json")).unwrap()).unwrap();
        // an empty text has no cosine
        let texts: Vec<&str> = texts["documents"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .filter(|text| !text.is_empty())
            .collect();
        assert!(texts.len() > 2, "{texts:?}");
        place.write(
            "texts.jsonl",
            texts.iter().map(|text| format!("{}\n", json!({"text": text, "_id": "t"}))).collect::<String>(),
        );
        let mut vectors = serde_json::Map::new();
        for precision in ["fp32", "fp16", "int8"] {
            let args = ["encode", "model", "--input", "texts.jsonl", "--role", "document", "--precision", precision];
            // one text per batch
            let lines = place.json_lines(&[&args[..], &["--batch-tokens", "1"]].concat());
            vectors.insert(precision.to_owned(), lines.iter().map(|line| dense(line, 420)).collect());
        }
        place.write("expected.json", json!({"texts": texts, "vectors": vectors}).to_string());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_files.py");
        let output = Command::new(&python)
            .arg(script)
            .arg(package)
            .args([place.path("model"), place.path("expected.json")])
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        for file in stems.iter().flat_map(|stem| ["", "_fp16", "_int8"].map(|suffix| format!("{stem}{suffix}.onnx"))) {
            assert!(stdout.contains(&format!("{package} {file}: ")), "{file}: {stdout}");
        }
    }
}

/// A line with `indices` and `values` as a row.
fn dense(line: &Value, dimensions: usize) -> Value {
    let mut row = vec![json!(0.0); dimensions];
    let (indices, values) = (line["indices"].as_array().unwrap(), line["values"].as_array().unwrap());
    for (dim, value) in indices.iter().zip(values) {
        row[dim.as_u64().unwrap() as usize] = value.clone();
    }
    row.into()
}
