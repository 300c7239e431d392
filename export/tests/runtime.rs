//! Networks as they are run: a head in parts against the whole one, several sessions and any batches against one text at a
//! time, devices that are not there.

use std::path::{Path, PathBuf};

use splade_core::{
    DocumentEncoder, DocumentSettings, Encoder, Network, Pooling, PoolingActivation, SparseVector, SpladePooling,
    TokenBatch,
};
use splade_encode::{LIBRARY, OnnxDevice, OnnxModel, OnnxNetwork, OnnxOptions, load_onnx_runtime};
use splade_export::{Head, Options, export, write};
use splade_files::ModelDir;
use splade_trainer::model::{BertConfig, TransformerConfig, Weights};

const POOLING: SpladePooling = SpladePooling { strategy: Pooling::Max, activation: PoolingActivation::Relu };

/// ONNX Runtime as `make setup` leaves it.
fn load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.onnxruntime");
    let files = std::fs::read_dir(&folder).expect("run `make setup` first").map(|file| file.unwrap().path());
    let is_library = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LIBRARY));
    load_onnx_runtime(&files.filter(is_library).collect::<Vec<_>>()).unwrap();
}

fn family(name: &str) -> ModelDir {
    ModelDir::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name)).unwrap()
}

/// The file of a head, exported.
fn file(folder: &Path, config: &TransformerConfig, weights: &Weights, head: Head) -> PathBuf {
    let path = folder.join(head.file_name());
    write(export(config, weights, head, &Options::default()).unwrap(), &path).unwrap();
    path
}

fn family_file(folder: &Path, model: &ModelDir) -> PathBuf {
    let config = TransformerConfig::read(&model.config_path()).unwrap();
    let weights = Weights::from_files(&model.checkpoint().unwrap(), &config).unwrap();
    file(folder, &config, &weights, Head::Splade(POOLING))
}

fn assert_near(found: &[SparseVector], expected: &[SparseVector], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        for (dim, weight) in found.iter().chain(expected.iter()) {
            let difference = (found.weight(dim) - expected.weight(dim)).abs();
            assert!(difference <= 1e-5, "{what}: dim {dim}, weight {weight}, {difference}");
        }
    }
}

#[test]
fn a_head_in_parts_gives_what_the_whole_one_gives() {
    load();
    let folder = tempfile::tempdir().unwrap();
    // the parts have 528 terms
    for vocab_size in [60, 527, 528, 529, 1056, 1700] {
        let sizes = BertConfig {
            vocab_size,
            hidden_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 32,
            ..BertConfig::default()
        };
        let config = TransformerConfig::Bert(sizes);
        let weights = Weights::new(&config, 3).unwrap();
        let texts: Vec<Vec<u32>> = [9, 1, 5].iter().map(|length| (1..=*length).map(|id| id * 6).collect()).collect();
        let batch = TokenBatch::new(&texts, 0);
        let [parts, whole] = [Head::Splade(POOLING), Head::Logits].map(|head| {
            let file = file(folder.path(), &config, &weights, head);
            let model = OnnxModel::open(&file, &OnnxOptions::default()).unwrap();
            OnnxNetwork::new(model, vocab_size, POOLING).unwrap().forward(&batch).unwrap()
        });
        assert!(whole.iter().all(|vector| vector.active_dims() > vocab_size / 8));
        assert_near(&parts, &whole, &format!("{vocab_size} terms"));
    }
}

#[test]
fn sessions_and_batches_change_no_vector() {
    load();
    let folder = tempfile::tempdir().unwrap();
    let words = ["fjord", "og", "isbre", "kjøpte", "en bok om fisk i havet", "17. mai", "", "ÆØÅ"];
    let texts: Vec<String> = (0..90)
        .map(|n| (0..n % 13).map(|at| words[(n + at * at) % words.len()]).collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for name in ["norbert3-tiny", "norbert4-tiny", "bert-tiny"] {
        let model = family(name);
        let path = family_file(folder.path(), &model);
        let encoder = |threads, sessions, batch_tokens| {
            let file = OnnxModel::open(&path, &OnnxOptions { threads, sessions, ..OnnxOptions::default() }).unwrap();
            assert_eq!(file.sessions(), if sessions == 0 { threads.clamp(1, 2) } else { sessions });
            let network = OnnxNetwork::new(file, model.dimensions().unwrap(), POOLING).unwrap();
            let vocabulary = model.vocabulary(None).unwrap();
            let settings = DocumentSettings { batch_tokens, ..model.document_settings(&vocabulary).unwrap() };
            DocumentEncoder::new(vocabulary, Box::new(network), settings).unwrap()
        };
        let alone = encoder(1, 1, 1).encode(&texts).unwrap();
        assert!(alone.iter().filter(|vector| vector.active_dims() > 0).count() > 80);
        for (threads, sessions, batch_tokens) in [(1, 1, 0), (2, 1, 300), (2, 0, 64), (3, 2, 0), (1, 3, 100)] {
            let found = encoder(threads, sessions, batch_tokens).encode(&texts).unwrap();
            assert_near(
                &found,
                &alone,
                &format!("{name}, {threads} threads, {sessions} sessions, {batch_tokens} tokens"),
            );
        }
    }
}

#[test]
fn a_device_that_cannot_be_used_leaves_the_network_on_the_cpu() {
    load();
    let folder = tempfile::tempdir().unwrap();
    let model = family("bert-tiny");
    let path = family_file(folder.path(), &model);
    let open = |options: OnnxOptions| OnnxModel::open(&path, &options).unwrap();
    let batch = TokenBatch::new(&[vec![2, 17, 3]], 0);
    let run = |file: OnnxModel| {
        OnnxNetwork::new(file, model.dimensions().unwrap(), POOLING).unwrap().forward(&batch).unwrap()
    };
    let cpu = open(OnnxOptions { device: OnnxDevice::Cpu, ..OnnxOptions::default() });
    assert!(cpu.placement().refused.is_empty());
    let expected = run(cpu);
    // the library that `make setup` fetches has neither
    for device in [OnnxDevice::Cuda, OnnxDevice::CoreMl] {
        let provider_options = vec![("device_id".to_owned(), "0".to_owned())];
        let file = open(OnnxOptions { device, provider_options, ..OnnxOptions::default() });
        let placement = file.placement();
        if placement.device == OnnxDevice::Cpu {
            let [(refused, reason)] = placement.refused.as_slice() else { panic!("{placement:?}") };
            println!("{}: {reason}", refused.name());
            assert_eq!(*refused, device);
            let built_in = OnnxDevice::built_in().contains(&device);
            assert_eq!(reason.contains("built without the feature"), !built_in, "{reason}");
            assert!(!reason.is_empty());
        }
        assert_near(&run(file), &expected, device.name());
    }
}

#[test]
fn options_reach_the_session() {
    load();
    let folder = tempfile::tempdir().unwrap();
    let path = family_file(folder.path(), &family("bert-tiny"));
    let open = |key: &str, value: &str| {
        let provider_options = vec![(key.to_owned(), value.to_owned())];
        OnnxModel::open(&path, &OnnxOptions { device: OnnxDevice::Cpu, provider_options, ..OnnxOptions::default() })
    };
    assert!(open("session.intra_op.allow_spinning", "0").is_ok());
    let error = open(&"k".repeat(3000), "0").err().unwrap().to_string();
    assert!(error.contains("model_splade.onnx") && error.to_lowercase().contains("key"), "{error}");
    let error = open("session.intra_op\0", "0").err().unwrap().to_string();
    assert!(error.contains("NUL"), "{error}");
}
