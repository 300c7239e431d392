//! Fuzz targets: all functions that read the files of a downloaded model or index, and filters. `cargo fuzz` runs them without end,
//! `tests/fuzz_smoke.rs` a bounded number of times in every `make test`.
//!
//! A target takes any bytes and must return a model or an error. It must not panic, hang, or use much more memory than the
//! input has. Mutations start from `seeds`, which are taken from the fixtures.

mod index;
mod mutate;

use std::cell::RefCell;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use splade_core::Vocabulary;
use splade_files::ModelDir;
use splade_trainer::model::{TransformerConfig, Weights};
use tempfile::TempDir;

pub use mutate::mutate;

/// Fuzz target: a kind of file.
pub struct Target {
    /// name of the target and of its folder in `corpus/` and `regressions/`
    pub name: &'static str,
    /// reads the bytes as such a file
    pub run: fn(&[u8]),
    /// valid files; the argument is the folder of the repository
    pub seeds: fn(&Path) -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target { name: "config", run: config, seeds: config_seeds },
    Target { name: "safetensors", run: safetensors, seeds: safetensors_seeds },
    Target { name: "pickle", run: pickle, seeds: pickle_seeds },
    Target { name: "tokenizer", run: tokenizer, seeds: tokenizer_seeds },
    Target { name: "model_folder", run: model_folder, seeds: model_folder_seeds },
    Target { name: "segment", run: index::segment, seeds: index::segment_seeds },
    Target { name: "manifest", run: index::manifest, seeds: index::manifest_seeds },
    Target { name: "filter", run: index::filter, seeds: index::filter_seeds },
];

/// Target with a name.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}

/// Generator of random numbers, which are equal on every machine for the same seed.
pub fn generator(seed: u32) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.into())
}

/// Value of a result. Formats an error, since that must not panic either.
fn judge<T>(result: Result<T, impl std::fmt::Display>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let _message: String = error.to_string();
            None
        }
    }
}

/// Reads `config.json`.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(config) = judge(TransformerConfig::parse(text, Path::new("config.json"))) else { return };
    let _ = (config.vocab_size(), config.max_positions(), config.activations(), config.ties_output());
    if let Some(parameters) = judge(config.parameters([])) {
        let shapes = parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>());
        assert!(shapes.sum::<usize>() > 0);
    }
}

fn config_seeds(root: &Path) -> Vec<Vec<u8>> {
    models(root).iter().filter_map(|model| std::fs::read(model.join("config.json")).ok()).collect()
}

/// Config of a small model, for files of weights.
fn tiny() -> TransformerConfig {
    let json = r#"{"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 6, "hidden_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 8,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0}"#;
    TransformerConfig::parse(json, Path::new("config.json")).expect("a sound config")
}

/// Writes bytes to a file and reads it. Each thread has one folder, since making a folder takes longer than most readers.
fn in_a_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a temporary folder"));
    }
    let path = FOLDER.with_borrow(|folder| folder.path().join(name));
    std::fs::write(&path, bytes).expect("a temporary file");
    read(&path);
}

/// Reads `model.safetensors`, of a network and of a query table.
pub fn safetensors(bytes: &[u8]) {
    in_a_file("model.safetensors", bytes, |path| {
        judge(Weights::read(path, &tiny()));
        judge(splade_files::read_query_weights(path));
    });
}

fn safetensors_seeds(_: &Path) -> Vec<Vec<u8>> {
    let file = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0x3f; data]].concat()
    };
    let weights = Weights::new(&tiny(), 1).and_then(|weights| weights.to_safetensors()).expect("a small model");
    let table = |dtype: &str, data: usize| {
        file(&format!(r#"{{"weight":{{"dtype":"{dtype}","shape":[4],"data_offsets":[0,{data}]}}}}"#), data)
    };
    let two = r#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"I64","shape":[1],"data_offsets":[24,32]}}"#;
    vec![weights, table("F32", 16), table("F16", 8), table("BF16", 8), table("F8_E4M3", 4), file(two, 32)]
}

/// Reads `pytorch_model.bin`: after a zero byte the whole file, after another byte its `data.pkl`, which is put into a file
/// with two storages.
///
/// Mutations of a zip file break its checksums, so most code is reached only by mutations of the pickle.
pub fn pickle(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let whole = if *kind == 0 { bytes.to_vec() } else { torch_file(bytes) };
    in_a_file("pytorch_model.bin", &whole, |path| drop(judge(Weights::read(path, &tiny()))));
}

fn torch_file(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("m/data.pkl", pickle), ("m/data/0", &[0x3f; 96]), ("m/data/1", &[0x3f; 8])] {
        zip.start_file(name, stored).and_then(|()| Ok(zip.write_all(bytes)?)).expect("memory takes everything");
    }
    zip.finish().expect("memory takes everything").into_inner()
}

fn pickle_seeds(root: &Path) -> Vec<Vec<u8>> {
    let published = root.join("tests/fixtures/models/norbert3-tiny/pytorch_model.bin");
    let mut zip = zip::ZipArchive::new(std::fs::File::open(published).expect("a fixture")).expect("a zip file");
    let mut pickle = Vec::new();
    let mut entry = zip.by_name("pytorch_model/data.pkl").expect("its pickle");
    std::io::Read::read_to_end(&mut entry, &mut pickle).expect("its pickle");
    let parameter = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00wctorch._utils\n_rebuild_parameter\n\
        (ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x001X\x03\x00\x00\x00cpu\
        K\x04tQK\x00K\x02K\x02\x86K\x01K\x02\x86\x89Nt R\x88NtRu}b.";
    let parameter: Vec<u8> = parameter.iter().copied().filter(|byte| *byte != b' ').collect();
    let system = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    let inside = |pickle: &[u8]| [&[1], pickle].concat();
    let outside = |pickle: &[u8]| [&[0], &torch_file(pickle)[..]].concat();
    vec![inside(&pickle), inside(&parameter), inside(system), outside(&parameter), outside(system)]
}

/// Texts that reach most of the code of tokenizers.
const TEXTS: [&str; 6] = [
    "hvor ble det av fjorden i Norge?",
    "",
    "  Ærlig\ttalt,\n it's [MASK] a<mask>b </s>  2024 x2",
    "é E\u{301} ½ ﬁ \u{301}a \u{a0}b \u{200b} 東京 x \0 \u{fffd}",
    "hvor",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx y",
];

/// Reads `tokenizer.json` and tokenizes texts, word by word and plainly, which must agree.
pub fn tokenizer(bytes: &[u8]) {
    let Some(vocabulary) = judge(Vocabulary::parse(bytes.to_vec(), 16)) else { return };
    let _ = (vocabulary.size(), vocabulary.special_dims(), vocabulary.token(0), vocabulary.dim("[PAD]"));
    for text in TEXTS {
        let plain = judge(vocabulary.tokenize_plain(text, false));
        if vocabulary.reads_word_by_word() {
            assert_eq!(judge(vocabulary.tokenize(text)), plain, "{text:?}");
            let framed = judge(vocabulary.tokenize_plain(text, true));
            assert_eq!(judge(vocabulary.tokenize_for_network(text)), framed, "{text:?} for a network");
        } else {
            judge(vocabulary.tokenize_for_network(text));
        }
    }
}

fn tokenizer_seeds(root: &Path) -> Vec<Vec<u8>> {
    models(root).iter().filter_map(|model| std::fs::read(model.join("tokenizer.json")).ok()).collect()
}

/// Reads a model folder: paths and contents in turn, each followed by a zero byte.
pub fn model_folder(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut parts = bytes.split(|byte| *byte == 0);
    while let (Some(path), Some(contents)) = (parts.next(), parts.next()) {
        let Some(path) = std::str::from_utf8(path).ok().and_then(|path| inside(folder.path(), path)) else { continue };
        // names that the system refuses are left out
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(path, contents);
    }
    let Some(model) = judge(ModelDir::open(folder.path())) else { return };
    let _ = (model.max_length(), model.pooling(), model.onnx_paths(), model.architecture(), model.max_active_dims());
    judge(model.dimensions());
    judge(model.checkpoint());
    judge(model.fingerprint());
    judge(model.query_encoder());
    judge(TransformerConfig::of(&model));
    if let Some(vocabulary) = judge(model.vocabulary(None)) {
        judge(model.document_settings(&vocabulary));
    }
}

fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let plain = path.len() < 200 && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.is_empty()).then(|| folder.join(path))
}

fn model_folder_seeds(root: &Path) -> Vec<Vec<u8>> {
    let fixtures = root.join("tests/fixtures");
    let mut folders = vec![fixtures.join("sparse-encoder/inference-free/model")];
    for version in children(&fixtures.join("sparse-encoder/layouts")) {
        folders.extend(children(&version).iter().map(|kind| kind.join("model")));
    }
    folders.extend(models(root));
    let tokenizer = br###"{"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "fjord": 1}}}"###;
    let seed = |folder: &PathBuf| {
        let mut bytes = Vec::new();
        for path in files(folder) {
            let name =
                path.strip_prefix(folder).expect("a file in it").to_str().expect("a plain name").replace('\\', "/");
            let contents = match path.file_name().and_then(|name| name.to_str()) {
                Some("tokenizer.json") => tokenizer.to_vec(),
                Some(name) if name.ends_with(".json") && !name.contains("texts") && !name.contains("meta") => {
                    std::fs::read(&path).expect("a fixture")
                }
                Some(name) if name.ends_with("model.safetensors") => b"?".to_vec(),
                _ => continue,
            };
            bytes.extend([name.as_bytes(), &[0], &contents, &[0]].concat());
        }
        bytes
    };
    folders.iter().map(seed).filter(|bytes| !bytes.is_empty()).collect()
}

fn models(root: &Path) -> Vec<PathBuf> {
    children(&root.join("tests/fixtures/models")).into_iter().filter(|path| path.is_dir()).collect()
}

/// Entries of a folder, sorted: the system lists them in any order.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = entries.collect();
    paths.sort();
    paths
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = children(folder).into_iter();
    all.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
