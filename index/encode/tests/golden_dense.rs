//! Dense vectors of `tests/data/dense-tiny` against those of sentence-transformers, which `make.py` beside them computed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use splade_core::dense::DenseVector;
use splade_encode::{DenseEncoder, OnnxOptions, load_onnx_runtime};
use splade_files::{DenseModelDir, DensePooling};

/// Largest difference of a value: sums in f32 are in another order.
const TOLERANCE: f32 = 1e-4;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/dense-tiny")
}

fn load_library() {
    let place = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.onnxruntime");
    let is_library =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let candidates: Vec<PathBuf> = place.into_iter().chain(entries.filter(is_library)).collect();
    load_onnx_runtime(&candidates).expect("`make setup` puts ONNX Runtime into .onnxruntime");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

/// The model of the fixture with other JSON files.
fn model(files: &[(&str, Value)]) -> (tempfile::TempDir, DenseModelDir) {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture().join("model"), folder.path());
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    let model = DenseModelDir::open(folder.path()).unwrap();
    (folder, model)
}

fn encoder(model: &DenseModelDir, batch_tokens: usize) -> DenseEncoder {
    DenseEncoder::open(model, &OnnxOptions { threads: 1, ..OnnxOptions::default() }, batch_tokens).unwrap()
}

fn rows(golden: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(golden.clone()).unwrap()
}

fn assert_close(found: &[DenseVector], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (text, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.dimensions(), expected.len());
        for (found, expected) in found.values().iter().zip(expected) {
            assert!((found - expected).abs() <= TOLERANCE, "{what}, text {text}: {found} {expected}");
        }
    }
}

#[test]
fn vectors_equal_those_of_sentence_transformers_for_every_pooling() {
    load_library();
    let golden: Value = serde_json::from_slice(&std::fs::read(fixture().join("golden.json")).unwrap()).unwrap();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let modules = json!([
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]);
    let prompts = json!({"query": "hva er ", "document": "tekst: "});
    let settings = json!({"prompts": prompts, "similarity_fn_name": "dot"});
    for (pooling, name) in DensePooling::ALL {
        let files = [
            ("1_Pooling/config.json", json!({"pooling_mode": name})),
            ("modules.json", modules.clone()),
            ("config_sentence_transformers.json", settings.clone()),
        ];
        let (_folder, folder) = model(&files);
        assert_eq!((folder.pooling(), folder.normalizes(), folder.max_length()), (pooling, false, 24));
        // one text at a time, and all in one batch with padding
        for batch_tokens in [1, 4096] {
            let encoder = encoder(&folder, batch_tokens);
            assert_eq!(Some(encoder.dimensions()), folder.hidden_size());
            for (prompt, side) in [(folder.query_prompt(), "queries"), (folder.document_prompt(), "documents")] {
                let found = encoder.encode(&texts, prompt).unwrap();
                assert_close(&found, &rows(&golden["poolings"][name][side]), &format!("{name}, {side}"));
            }
        }
    }
}

#[test]
fn vectors_of_a_model_with_a_normalization_have_length_1() {
    load_library();
    let golden: Value = serde_json::from_slice(&std::fs::read(fixture().join("golden.json")).unwrap()).unwrap();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let (_folder, folder) = model(&[]);
    assert!(folder.normalizes());
    let found = encoder(&folder, 0).encode(&texts, folder.document_prompt()).unwrap();
    let expected = rows(&golden["poolings"]["mean"]["documents"]);
    let normalized = |values: Vec<f32>| DenseVector::new(values).unwrap().normalized().values().to_vec();
    assert_close(&found, &expected.into_iter().map(normalized).collect::<Vec<_>>(), "mean, normalized");
    assert!(found.iter().all(|vector| (vector.dot(vector) - 1.0).abs() < 1e-5));
    assert!(encoder(&folder, 0).encode(&[], "").unwrap().is_empty());
}

#[test]
fn a_fingerprint_depends_on_all_that_decides_a_vector() {
    let of = |files: &[(&str, Value)]| model(files).1.fingerprint().unwrap();
    let own = of(&[]);
    assert_eq!(of(&[]), own);
    assert_ne!(of(&[("1_Pooling/config.json", json!({"pooling_mode": "cls"}))]), own);
    assert_ne!(of(&[("sentence_bert_config.json", json!({"max_seq_length": 12}))]), own);
    assert_ne!(of(&[("sentence_bert_config.json", json!({"do_lower_case": true}))]), own);
    // prompts are settings of an index
    assert_eq!(of(&[("config_sentence_transformers.json", json!({"prompts": {"query": "q"}}))]), own);
    let (folder, _) = model(&[]);
    std::fs::write(folder.path().join("onnx/model.onnx"), "other").unwrap();
    assert_ne!(DenseModelDir::open(folder.path()).unwrap().fingerprint().unwrap(), own);
}
