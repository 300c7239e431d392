//! Whole model folders, in every layout, against the vectors of sentence-transformers (docs/formats.md sections 1, 2, 6).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use splade_core::{Encoder, Pooling, PoolingActivation, SparseVector, SpladePooling};
use splade_files::{Architecture, ModelDir, NewModel};
use splade_trainer::model::{CandleNetwork, candle_encoder};

/// formats.md section 6: weights are O(1).
const TOLERANCE: f32 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sparse-encoder")
}

/// Every folder, and the expected vectors it must give.
const LAYOUTS: [(&str, &str); 5] = [
    ("inference-free/model", "inference-free"),
    ("splade/model", "splade"),
    ("layouts/v5.1/inference-free/model", "inference-free"),
    ("layouts/v5.1/splade/model", "splade"),
    ("layouts/transformer-at-root/inference-free/model", "inference-free"),
];

fn texts(kind: &str, side: &str) -> Vec<String> {
    let json = std::fs::read_to_string(fixtures().join(kind).join("texts.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json[side].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn expected(kind: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join(kind).join("expected_embeddings.safetensors"), &Device::Cpu).unwrap()
}

/// Compares row by row; entries that may be left out of the comparison are named by `skip`.
fn assert_close(what: &str, found: &[SparseVector], expected: &Tensor, skip: Option<u32>) {
    let expected = expected.to_vec2::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found.dims().last().is_none_or(|dim| (*dim as usize) < expected.len()), "{what} row {row}");
        for (dim, expected) in (0..).zip(expected) {
            let found = found.weight(dim);
            if skip != Some(dim) {
                assert!((found - expected).abs() <= TOLERANCE, "{what} row {row} dim {dim}: {found} {expected}");
            }
        }
    }
}

fn encode(encoder: &dyn Encoder, texts: &[String]) -> Vec<SparseVector> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = encoder.encode(&texts).unwrap();
    for (text, together) in texts.iter().zip(&together) {
        let alone = &encoder.encode(&[text]).unwrap()[0];
        let dims = alone.dims().iter().chain(together.dims());
        for &dim in dims {
            assert!((alone.weight(dim) - together.weight(dim)).abs() <= 1e-5, "the batch matters for {text:?}");
        }
    }
    together
}

#[test]
fn documents_agree_in_every_layout() {
    for (folder, kind) in LAYOUTS {
        let model = ModelDir::open(&fixtures().join(folder)).unwrap();
        assert_eq!(model.max_length(), 48, "{folder}");
        let encoder = candle_encoder(&model, None, &Device::Cpu).unwrap();
        let expected = expected(kind);
        let documents = encode(&encoder, &texts(kind, "documents"));
        assert_close(&format!("{folder} document"), &documents, &expected["document"], None);
        assert_close(&format!("{folder} document_batched"), &documents, &expected["document_batched"], None);
        let eight: Vec<SparseVector> = documents.iter().map(|vector| vector.top_k(8)).collect();
        assert_close(&format!("{folder} document_max_active_8"), &eight, &expected["document_max_active_8"], None);
    }
}

#[test]
fn queries_agree_in_every_layout() {
    for (folder, kind) in LAYOUTS {
        let model = ModelDir::open(&fixtures().join(folder)).unwrap();
        let encoder: Box<dyn Encoder> = match model.architecture() {
            Architecture::InferenceFree => Box::new(model.query_encoder().unwrap()),
            Architecture::Splade => Box::new(candle_encoder(&model, None, &Device::Cpu).unwrap()),
        };
        assert_eq!(model.query_side().is_some(), kind == "inference-free", "{folder}");
        let expected = expected(kind);
        let queries = encode(encoder.as_ref(), &texts(kind, "queries"));
        assert_close(&format!("{folder} query"), &queries, &expected["query"], None);
        let three: Vec<SparseVector> = queries.iter().map(|vector| vector.top_k(3)).collect();
        assert_close(&format!("{folder} query_max_active_3"), &three, &expected["query_max_active_3"], None);
        // The reference's padding erases a literal [PAD] of the text in a batch (formats.md 2.1 point 5); ours must not.
        let pad = model.vocabulary(None).unwrap().dim("[PAD]");
        assert_close(&format!("{folder} query_batched"), &queries, &expected["query_batched"], pad);
    }
}

#[test]
fn every_pooling_agrees() {
    let model = ModelDir::open(&fixtures().join("inference-free/model")).unwrap();
    let read = CandleNetwork::read(&model, &Device::Cpu).unwrap();
    let (expected, texts) = (expected("inference-free"), texts("inference-free", "documents"));
    for (name, strategy, activation) in [
        ("document_sum_relu", Pooling::Sum, PoolingActivation::Relu),
        ("document_max_log1p_relu", Pooling::Max, PoolingActivation::Log1pRelu),
        ("document_sum_log1p_relu", Pooling::Sum, PoolingActivation::Log1pRelu),
    ] {
        let pooling = SpladePooling { strategy, activation };
        let network = CandleNetwork::new(read.config().clone(), read.weights().clone(), pooling, Device::Cpu);
        let vocabulary = model.vocabulary(None).unwrap();
        let settings = model.document_settings(&vocabulary).unwrap();
        let encoder = splade_core::DocumentEncoder::new(vocabulary, Box::new(network), settings).unwrap();
        // sums over tokens are larger than maxima, and so is their rounding
        assert_close(name, &encode(&encoder, &texts), &expected[name], None);
    }
}

#[test]
fn a_written_folder_reads_back_as_it_was() {
    for (folder, _) in LAYOUTS {
        let model = ModelDir::open(&fixtures().join(folder)).unwrap();
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let query =
            model.query_side().map(|side| (splade_files::read_query_weights(&side.weights).unwrap(), side.frozen));
        let new = NewModel {
            architecture: model.architecture(),
            config_json: read(model.config_path()),
            weights: read(model.checkpoint().unwrap().path().to_owned()),
            tokenizer_json: read(model.transformer_dir().join("tokenizer.json")),
            tokenizer_files: [(
                "tokenizer_config.json".to_owned(),
                read(model.transformer_dir().join("tokenizer_config.json")),
            )]
            .into(),
            code_files: [("modeling_x.py".to_owned(), b"raise SystemExit".to_vec())].into(),
            query,
            pooling: model.pooling(),
            head_mode: None,
            dimensions: 420,
            prompts: (model.query_prompt().to_owned(), model.document_prompt().to_owned()),
            max_active_dims: model.max_active_dims(),
            max_length: model.max_length(),
            readme: String::new(),
        };
        let root = tempfile::tempdir().unwrap();
        new.write(root.path()).unwrap();
        let copy = ModelDir::open(root.path()).unwrap();
        for place in [root.path(), copy.transformer_dir()] {
            assert_eq!(read(place.join("modeling_x.py")), b"raise SystemExit");
        }
        assert_eq!(copy.fingerprint().unwrap(), model.fingerprint().unwrap(), "{folder}");
        assert_eq!(copy.architecture(), model.architecture());
        if let (Some(ours), Some(theirs)) = (copy.query_side(), model.query_side()) {
            assert_eq!((ours.max_length, ours.frozen), (theirs.max_length, theirs.frozen));
            assert_eq!(copy.query_encoder().unwrap().weights(), model.query_encoder().unwrap().weights());
        }
    }
}

#[test]
fn a_bare_checkpoint_and_an_idf_table_are_models_too() {
    let source = fixtures().join("layouts/transformer-at-root/inference-free/model");
    let root = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(source.join(name), root.path().join(name)).unwrap();
    }
    let bare = ModelDir::open(root.path()).unwrap();
    assert_eq!(bare.architecture(), Architecture::Splade);
    let encoder = candle_encoder(&bare, None, &Device::Cpu).unwrap();
    let documents = encode(&encoder, &texts("inference-free", "documents"));
    assert_close("bare", &documents, &expected("inference-free")["document"], None);

    let full = ModelDir::open(&source).unwrap().query_encoder().unwrap();
    let table: serde_json::Map<String, serde_json::Value> = (0..)
        .zip(full.weights().as_slice())
        .map(|(dim, weight)| (full.vocabulary().token(dim).unwrap(), serde_json::json!(weight)))
        .collect();
    std::fs::write(root.path().join("idf.json"), serde_json::to_vec(&table).unwrap()).unwrap();
    let with_idf = ModelDir::open(root.path()).unwrap();
    assert_eq!(with_idf.architecture(), Architecture::InferenceFree);
    assert_eq!(with_idf.query_encoder().unwrap().weights(), full.weights());
}

#[test]
#[ignore = "needs ../shared; run with `cargo test --workspace --test golden_sparse_encoder -- --ignored`"]
fn the_real_model_agrees() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("SPLADE_SHARED").map_or_else(beside, PathBuf::from);
    let model = ModelDir::open(&shared.join("models/splade-tiny")).unwrap();
    let encoder = candle_encoder(&model, Some(256), &Device::Cpu).unwrap();
    let top: serde_json::Value =
        serde_json::from_slice(&std::fs::read(shared.join("fixtures/splade-tiny/top_terms.json")).unwrap()).unwrap();
    let texts: Vec<String> =
        top["sentences"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap().to_owned()).collect();
    let expected =
        candle_core::safetensors::load(shared.join("fixtures/splade-tiny/expected.safetensors"), &Device::Cpu).unwrap();
    assert_close("splade-tiny", &encode(&encoder, &texts), &expected["splade"], None);
}
