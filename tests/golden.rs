//! Output of the program, compared with that of sentence-transformers and mteb.
#![cfg(feature = "train")]

mod util;

use serde_json::Value;
use util::{Place, fixture, setup, shared};

/// Largest difference of a weight: weights are of the order of 1.
const TOLERANCE: f32 = 1e-4;

/// Every layout, with the folder of its expected vectors.
const LAYOUTS: [(&str, &str); 5] = [
    ("inference-free/model", "inference-free"),
    ("splade/model", "splade"),
    ("layouts/v5.1/inference-free/model", "inference-free"),
    ("layouts/v5.1/splade/model", "splade"),
    ("layouts/transformer-at-root/inference-free/model", "inference-free"),
];

/// A model with its ONNX files, and its texts as `query.jsonl` and `document.jsonl`.
fn place(model: &str, kind: &str) -> Place {
    let place = setup();
    place.copy(&fixture(model), "model");
    place.ok(&["export-onnx", "model"]);
    let texts: Value = serde_json::from_slice(&std::fs::read(fixture(kind).join("texts.json")).unwrap()).unwrap();
    for (role, key) in [("query", "queries"), ("document", "documents")] {
        let line = |(id, text): (usize, &Value)| serde_json::json!({"_id": id.to_string(), "text": text}).to_string();
        let lines: Vec<String> = texts[key].as_array().unwrap().iter().enumerate().map(line).collect();
        place.write(&format!("{role}.jsonl"), lines.join("\n"));
    }
    place
}

fn encode(place: &Place, role: &str, more: &[&str]) -> Vec<Value> {
    let input = format!("{role}.jsonl");
    place.json_lines(&[&["encode", "model", "--input", &input, "--role", role], more].concat())
}

/// Rows of a tensor in a safetensors file.
fn rows(kind: &str, name: &str) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(fixture(kind).join("expected_embeddings.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let (floats, _) = tensor.data().as_chunks::<4>();
    let floats: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    floats.chunks(tensor.shape()[1]).map(<[f32]>::to_vec).collect()
}

/// Lines with `indices` and `values` as dense rows.
fn dense(lines: &[Value], dimensions: usize) -> Vec<Vec<f32>> {
    let row = |line: &Value| {
        let mut row = vec![0.0; dimensions];
        let (indices, values) = (line["indices"].as_array().unwrap(), line["values"].as_array().unwrap());
        for (dim, value) in indices.iter().zip(values) {
            row[dim.as_u64().unwrap() as usize] = value.as_f64().unwrap() as f32;
        }
        row
    };
    lines.iter().map(row).collect()
}

fn assert_close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) {
    assert!(!expected.is_empty(), "{what}");
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (dim, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= tolerance, "{what} row {row} dim {dim}: {found} {expected}");
        }
    }
}

#[test]
fn every_layout_gives_the_vectors_of_the_reference_in_both_backends() {
    for (model, kind) in LAYOUTS {
        let place = place(model, kind);
        for backend in ["onnx", "candle"] {
            for role in ["query", "document"] {
                let expected = rows(kind, role);
                let what = format!("{model} {role} {backend}");
                let lines = encode(&place, role, &["--backend", backend]);
                assert_close(&what, &dense(&lines, 420), &expected, TOLERANCE);
            }
            let eight = encode(&place, "document", &["--backend", backend, "--top-k", "8"]);
            assert_close(model, &dense(&eight, 420), &rows(kind, "document_max_active_8"), TOLERANCE);
        }
    }
}

#[test]
fn vectors_do_not_depend_on_the_batch() {
    for (model, kind) in &LAYOUTS[..2] {
        let place = place(model, kind);
        for backend in ["onnx", "candle"] {
            let run = |tokens: &str| encode(&place, "document", &["--backend", backend, "--batch-tokens", tokens]);
            let (alone, together) = (run("1"), run("4096"));
            let ids = |lines: &[Value]| lines.iter().map(|line| line["_id"].clone()).collect::<Vec<_>>();
            assert_eq!(ids(&alone), ids(&together));
            assert_close(&format!("{model} {backend}"), &dense(&alone, 420), &dense(&together, 420), 1e-5);
        }
    }
}

#[test]
fn tokens_are_those_of_the_reference() {
    for (model, kind) in LAYOUTS {
        let place = place(model, kind);
        let expected: Value =
            serde_json::from_slice(&std::fs::read(fixture(kind).join("expected.json")).unwrap()).unwrap();
        for role in ["query", "document"] {
            let lines = encode(&place, role, &["--format", "tokens", "--top-k", "10"]);
            let expected = expected[format!("decode_top10_{role}")].as_array().unwrap();
            assert!(!lines.is_empty() && lines.len() == expected.len());
            for (line, expected) in lines.iter().zip(expected) {
                let expected = expected.as_array().unwrap();
                let found = line["tokens"].as_object().unwrap();
                // two words of nearly equal weight may be in another order
                for (pair, (token, weight)) in expected.iter().zip(found) {
                    let (their_token, their_weight) = (pair[0].as_str().unwrap(), pair[1].as_f64().unwrap());
                    let weight = weight.as_f64().unwrap();
                    assert!((weight - their_weight).abs() <= 1e-4, "{model} {role}: {line} {expected:?}");
                    if token != their_token {
                        let tie = found.get(their_token).map_or(their_weight, |weight| weight.as_f64().unwrap());
                        assert!((tie - weight).abs() <= 2e-4, "{model} {role}: {line} {expected:?}");
                    }
                }
                let positive = expected.iter().filter(|pair| pair[1].as_f64().unwrap() != 0.0).count();
                assert_eq!(found.len(), positive, "{model} {role}: {line} {expected:?}");
            }
        }
    }
}

/// nDCG@10 of a trained model on two data sets, 0.6425 and 0.3760, in both backends.
#[test]
#[ignore = "needs ../shared and minutes; run with `cargo test --release --workspace --test golden -- --ignored`"]
fn a_real_model_scores_as_the_reference() {
    let model = shared("models/splade-tiny");
    let (scifact, cranfield) = (shared("data/scifact-sub"), shared("data/cranfield"));
    let place = setup();
    place.copy(&model, "splade-tiny");
    place.ok(&["export-onnx", "splade-tiny"]);
    for backend in ["onnx", "candle"] {
        for (name, data, expected) in [("scifact-sub", &scifact, 0.6425), ("cranfield", &cranfield, 0.3760)] {
            let args = ["eval-mteb", "splade-tiny", "--data", data.to_str().unwrap(), "--max-length", "256", "--json"];
            let json = place.json(&[&args[..], &["--backend", backend, "--output-dir", backend]].concat());
            let found = json["tasks"][0]["scores"]["sparse"]["ndcg_at_10"].as_f64().unwrap();
            assert!((found - expected).abs() <= 2e-4, "{name} in {backend}: {found}, not {expected}");
        }
    }
}
