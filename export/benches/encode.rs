//! Measures documents a second of one network in three hands: ONNX Runtime on the pooled file, ONNX Runtime on the file of
//! logits (pooled by us), and Candle on the checkpoint; the tokenizer and the batching are part of it, the same for all.
//!
//! The model is `../shared/models/splade-tiny` (two layers of width 128, 30 522 terms), or the folder that
//! `SPLADE_BENCH_MODEL` names; without one the bench says so and measures nothing. The texts are the first 256 of
//! `tests/data/lohelp-nb`, of whatever length they are. It leaves out loading, reading and writing. All threads work;
//! compare the lines of one run.
//!
//! `cargo bench -p splade-export --bench encode`, after `make setup`. The throughput line is documents a second.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use splade_export::{Head, Options, export, write};
use splade_index::{
    DocumentEncoder, Encoder, LIBRARY, ModelDir, OnnxModel, OnnxNetwork, OnnxOptions, load_onnx_runtime, read_documents,
};
use splade_trainer::best_device;
use splade_trainer::model::{TransformerConfig, Weights, candle_encoder};

const DOCUMENTS: usize = 256;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Data {
    model: ModelDir,
    texts: Vec<String>,
    files: tempfile::TempDir,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shared = || root.join("../shared/models/splade-tiny");
    let folder = std::env::var_os("SPLADE_BENCH_MODEL").map_or_else(shared, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: there is no {}; let SPLADE_BENCH_MODEL name a model folder", folder.display());
        return Ok(());
    }
    load_onnx_runtime(&libraries(&root.join(".onnxruntime")))?;
    let data = prepare(ModelDir::open(&folder)?, &root.join("tests/data/lohelp-nb/corpus.jsonl"))?;
    let characters: usize = data.texts.iter().map(|text| text.chars().count()).sum();
    println!("{DOCUMENTS} texts of {} characters on average, through {}", characters / DOCUMENTS, folder.display());
    DATA.get_or_init(|| data);
    divan::main();
    Ok(())
}

static DATA: OnceLock<Data> = OnceLock::new();

fn data() -> &'static Data {
    DATA.get().expect("main has prepared it")
}

/// `ORT_DYLIB_PATH`, else what `make setup` fetched.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return vec![path.into()];
    }
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LIBRARY))).collect()
}

/// Both files of the model, exported anew, and the texts.
fn prepare(model: ModelDir, corpus: &Path) -> Result<Data> {
    let config = TransformerConfig::read(&model.config_path())?;
    let weights = Weights::read(&model.weights_path()?, &config)?;
    let files = tempfile::tempdir()?;
    for head in [Head::Logits, Head::Splade(model.pooling())] {
        write(export(&config, &weights, head, &Options::default())?, &files.path().join(head.file_name()))?;
    }
    let documents = read_documents(corpus)?.take(DOCUMENTS);
    let texts = documents.map(|document| Ok(document?.full_text().into_owned())).collect::<Result<_>>()?;
    Ok(Data { model, texts, files })
}

fn onnx_encoder(file: &str) -> Result<DocumentEncoder> {
    let Data { model, files, .. } = data();
    let onnx = OnnxModel::open(&files.path().join(file), &OnnxOptions::default())?;
    let network = OnnxNetwork::new(onnx, model.dimensions()?, model.pooling())?;
    let vocabulary = model.vocabulary(None)?;
    let settings = model.document_settings(&vocabulary)?;
    Ok(DocumentEncoder::new(vocabulary, Box::new(network), settings)?)
}

fn documents(bencher: Bencher<'_, '_>, encoder: Result<DocumentEncoder>) {
    let encoder = encoder.expect("a sound model");
    let texts: Vec<&str> = data().texts.iter().map(String::as_str).collect();
    bencher.counter(ItemsCount::new(DOCUMENTS)).bench_local(|| encoder.encode(&texts).expect("a sound model"));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn onnx_runtime_pooled(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(splade_export::SPLADE_FILE));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn onnx_runtime_logits(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(splade_export::LOGITS_FILE));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn candle(bencher: Bencher<'_, '_>) {
    documents(bencher, candle_encoder(&data().model, None, &best_device()).map_err(Into::into));
}
