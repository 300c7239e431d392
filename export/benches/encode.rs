//! Measures documents a second of one network run in four ways, and of its int8 file in two: the pooled file split, with the
//! fused output layer, as it is run by default; the pooled file whole; the file of logits, pooled here; and the checkpoint in
//! Candle. The tokenizer and the batching are part of it, the same for all.
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
use splade_core::{DocumentEncoder, Encoder};
use splade_encode::{LIBRARY, OnnxNetwork, OnnxOptions, load_onnx_runtime};
use splade_export::{Head, LOGITS_FILE, Options, Precision, SPLADE_FILE, convert, export, write};
use splade_files::{ModelDir, read_documents};
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
    let weights = Weights::from_files(&model.checkpoint()?, &config)?;
    let files = tempfile::tempdir()?;
    for head in [Head::Logits, Head::Splade(model.pooling())] {
        let recorded = export(&config, &weights, head, &Options::default())?;
        for precision in [Precision::Fp32, Precision::Int8] {
            let path = files.path().join(precision.file_name(head.file_name()));
            write(convert(recorded.clone(), precision)?, &path)?;
        }
    }
    let documents = read_documents(corpus)?.take(DOCUMENTS);
    let texts = documents.map(|document| Ok(document?.full_text().into_owned())).collect::<Result<_>>()?;
    Ok(Data { model, texts, files })
}

fn onnx_encoder(file: &str, precision: Precision, whole: bool) -> Result<DocumentEncoder> {
    let Data { model, files, .. } = data();
    let options = OnnxOptions { whole, ..OnnxOptions::default() };
    let network = OnnxNetwork::open(&files.path().join(precision.file_name(file)), &options, model)?;
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
fn split_fp32(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(SPLADE_FILE, Precision::Fp32, false));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn split_int8(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(SPLADE_FILE, Precision::Int8, false));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn whole_fp32(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(SPLADE_FILE, Precision::Fp32, true));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn whole_int8(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(SPLADE_FILE, Precision::Int8, true));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn logits_fp32(bencher: Bencher<'_, '_>) {
    documents(bencher, onnx_encoder(LOGITS_FILE, Precision::Fp32, true));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn candle(bencher: Bencher<'_, '_>) {
    documents(bencher, candle_encoder(&data().model, None, &best_device()).map_err(Into::into));
}
