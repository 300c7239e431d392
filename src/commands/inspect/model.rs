//! A model folder: layout, network, queries, documents, tokenizer, files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use splade_core::Vocabulary;
use splade_files::{Architecture, HeadSource, ModelDir, stated_class};

use super::table::Weights;
use super::{Findings, checkpoint, pairs};
use crate::cli::InspectArgs;
use crate::console::{count, size};
use crate::encoders::{onnx_files, read_with_flags};

/// Kind of a model folder in JSON.
pub(super) const KIND: &str = "model";

pub(super) fn inspect(path: &Path, args: &InspectArgs) -> Result<Findings> {
    let model = read_with_flags(ModelDir::open(path)?, &args.reading)?;
    let mut found = Findings::new(json!({"kind": KIND, "path": path}));
    found.facts.add("model", path.display());
    layout(&model, &mut found);
    network(&model, &mut found)?;
    sides(&model, &mut found)?;
    tokenizer(&model, args.top, &mut found)?;
    onnx(&model, &mut found);
    match model.fingerprint() {
        Ok(fingerprint) => {
            found.json["fingerprint"] = fingerprint.as_str().into();
            found.facts.add("fingerprint", fingerprint);
        }
        Err(error) => found.facts.add("fingerprint", error),
    }
    let files = files(path)?;
    let listed = files.iter().map(|(name, bytes)| json!({"path": name, "bytes": bytes}));
    found.json["files"] = listed.collect();
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    found.section(
        format!("{} files, {}", files.len(), size(total)),
        &pairs(["file", "size"], files.iter().map(|(name, bytes)| (name.display(), size(*bytes)))),
    );
    Ok(found)
}

fn layout(model: &ModelDir, found: &mut Findings) {
    let layout = match (model.root().join("modules.json").is_file(), model.query_side()) {
        (true, None) => "sentence-transformers: transformer + pooling",
        (true, Some(_)) => "sentence-transformers: router",
        (false, None) => "a bare checkpoint",
        (false, Some(_)) => "a checkpoint with query weights beside it",
    };
    let kind = match model.architecture() {
        Architecture::Splade => "splade: one network for queries and documents",
        Architecture::InferenceFree => "inference-free-splade: queries by a table, documents by a network",
    };
    found.json["layout"] = layout.into();
    found.json["architecture"] = json!(model.architecture());
    found.facts.add("layout", layout);
    found.facts.add("kind", kind);
}

/// Sizes, with the keys that families have for them in `config.json`.
const SIZES: [(&str, &[&str]); 6] = [
    ("terms", &["vocab_size"]),
    ("wide", &["hidden_size", "dim", "d_model"]),
    ("layers", &["num_hidden_layers", "num_layers", "n_layers"]),
    ("heads", &["num_attention_heads", "n_heads"]),
    ("feed-forward", &["intermediate_size", "hidden_dim"]),
    ("positions", &["max_position_embeddings", "max_sequence_length"]),
];

fn network(model: &ModelDir, found: &mut Findings) -> Result<()> {
    let path = model.config_path();
    let config: Value = splade_files::read_json(&path)?;
    let family = stated_class(&config).or_else(|| config["model_type"].as_str()).unwrap_or("not stated");
    found.json["family"] = family.into();
    let unsupported = unsupported(model);
    found.json["supported"] = unsupported.is_none().into();
    found.facts.add("network", unsupported.map_or_else(|| family.to_owned(), |why| format!("{family}: {why}")));
    found.json["ignored_config_keys"] = json!(model.ignored_config_keys());
    if !model.ignored_config_keys().is_empty() {
        found
            .facts
            .add("ignored keys", format_args!("{} (--ignore-config-key)", model.ignored_config_keys().join(", ")));
    }
    let mut sizes = Vec::new();
    for (label, keys) in SIZES {
        if let Some(number) = keys.iter().find_map(|key| config[key].as_u64()) {
            found.json["sizes"][label] = number.into();
            sizes.push(format!("{number} {label}"));
        }
    }
    found.facts.add("sizes", sizes.join(", "));
    if let Some(choice) = model.head_choice() {
        let source = match choice.source {
            HeadSource::Stated => "stated in the folder",
            HeadSource::Code => "according to the code in the folder",
            HeadSource::Guessed => "a guess: the folder does not state it; --mlm-head selects one",
            HeadSource::Requested => "given by --mlm-head",
        };
        found.json["mlm_head"] = json!({"mode": choice.mode, "source": source});
        found.facts.add("head mode", format_args!("{}, {source}", choice.mode));
    }
    match model.checkpoint() {
        Ok(files) => {
            let tensors = checkpoint::tensors(&files)?;
            let parameters = checkpoint::parameters(&tensors);
            found.json["parameters"] = parameters.into();
            let name = files.path().file_name().unwrap_or_default().to_string_lossy();
            let shards = match files.shards().len() {
                1 => String::new(),
                shards => format!(" in {shards} shards"),
            };
            let tensors = format!("{name}{shards} in {} tensors: {}", tensors.len(), checkpoint::types(&tensors));
            found.facts.add("parameters", format_args!("{}; {tensors}", count(parameters)));
        }
        Err(error) => found.facts.add("parameters", error),
    }
    Ok(())
}

/// Reason why the network cannot be loaded; none if it can, or if this program was built without Candle.
#[cfg(feature = "train")]
fn unsupported(model: &ModelDir) -> Option<String> {
    splade_trainer::model::TransformerConfig::of(model).err().map(|error| error.to_string())
}

#[cfg(not(feature = "train"))]
fn unsupported(_: &ModelDir) -> Option<String> {
    None
}

fn sides(model: &ModelDir, found: &mut Findings) -> Result<()> {
    let pooling = model.pooling();
    found.json["pooling"] = json!(pooling.strategy);
    found.json["activation"] = json!(pooling.activation);
    let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pooling = format!("{}, activation {}", name(&found.json["pooling"]), name(&found.json["activation"]));
    found.facts.add("pooling", pooling);
    let length = limit(model.max_length());
    found.json["max_length"] = json!(length);
    found.json["max_active_dims"] = json!(model.max_active_dims());
    found.json["lower_case"] = model.lower_case().into();
    found.json["prompts"] = json!({"query": model.query_prompt(), "document": model.document_prompt()});
    let length = length.map_or_else(|| "any length".to_owned(), |length| format!("{length} tokens at most"));
    let cut = model.max_active_dims().map(|k| format!(", {k} terms at most")).unwrap_or_default();
    let lower = if model.lower_case() { ", lower-cased" } else { "" };
    found.facts.add("documents", format_args!("{length}{cut}{lower}{}", prompt(model.document_prompt())));
    let Some(side) = model.query_side() else {
        found.facts.add("queries", format_args!("by the same network{}", prompt(model.query_prompt())));
        return Ok(());
    };
    let table = Weights::of_table(model.query_encoder()?.weights());
    let file = side.weights.strip_prefix(model.root()).unwrap_or(&side.weights);
    found.json["query_table"] = table.json();
    found.json["query_table"]["path"] = json!(file);
    found.json["query_table"]["frozen"] = side.frozen.into();
    found.json["query_table"]["max_length"] = json!(limit(side.max_length));
    let length =
        limit(side.max_length).map_or_else(|| "any length".to_owned(), |length| format!("{length} tokens at most"));
    let frozen = if side.frozen { ", frozen in training" } else { "" };
    found.facts.add("queries", format_args!("{length}{frozen}{}; {}", prompt(model.query_prompt()), file.display()));
    found.facts.add("query table", table.short());
    Ok(())
}

/// Maximum length; none if there is no limit.
fn limit(length: usize) -> Option<usize> {
    (length < usize::MAX).then_some(length)
}

fn prompt(prompt: &str) -> String {
    if prompt.is_empty() { String::new() } else { format!(", prompt {prompt:?}") }
}

fn tokenizer(model: &ModelDir, top: usize, found: &mut Findings) -> Result<()> {
    let vocabulary = model.vocabulary(None)?;
    let json: Value = serde_json::from_slice(vocabulary.json()).unwrap_or_default();
    let kind = |part: &str| json[part]["type"].as_str().unwrap_or("none").to_owned();
    let (algorithm, normalizer, splitter) = (kind("model"), kind("normalizer"), kind("pre_tokenizer"));
    let special = vocabulary.special_dims();
    let pad = model.pad_id(&vocabulary)?;
    let token = |dim: u32| super::term(Some(&vocabulary), dim);
    let names: Vec<String> = special.iter().take(top).map(|&dim| token(dim)).collect();
    let more = if special.len() > names.len() { " …" } else { "" };
    found.json["tokenizer"] = json!({
        "size": vocabulary.size(), "model": algorithm, "normalizer": normalizer, "pre_tokenizer": splitter,
        "special": special, "pad": {"id": pad, "token": token(pad)}, "fingerprint": vocabulary.fingerprint(),
        "adds_special": adds_special(&vocabulary)?, "overrides": vocabulary.overrides(),
    });
    found.facts.add(
        "tokenizer",
        format_args!("{algorithm} of {} tokens; normalizer {normalizer}, split by {splitter}", vocabulary.size()),
    );
    found.facts.add("special tokens", format_args!("{}: {}{more}", special.len(), names.join(" ")));
    let added: Vec<String> = adds_special(&vocabulary)?.into_iter().map(token).collect();
    found.facts.add("added to texts", if added.is_empty() { "none".to_owned() } else { added.join(" … ") });
    found.facts.add("padding", format_args!("{} ({pad})", token(pad)));
    overrides("overrides", &vocabulary, found);
    if let Some(side) = model.query_side() {
        let queries = splade_files::read_vocabulary(&side.tokenizer, usize::MAX)?;
        found.json["query_tokenizer"] = json!({"overrides": queries.overrides()});
        overrides("query overrides", &queries, found);
    }
    Ok(())
}

/// Adds the differences between `tokenizer.json` and the tokenizer that other files of its folder make of it.
fn overrides(label: &str, vocabulary: &Vocabulary, found: &mut Findings) {
    if !vocabulary.overrides().is_empty() {
        found.facts.add(label, vocabulary.overrides().join("\n"));
    }
}

/// Special tokens around a text: the tokens of an empty one.
fn adds_special(vocabulary: &Vocabulary) -> Result<Vec<u32>> {
    Ok(vocabulary.tokenize_for_network("")?)
}

fn onnx(model: &ModelDir, found: &mut Findings) {
    let files = onnx_files(model);
    let lines: Vec<(String, Value)> = files.iter().map(|file| super::onnx::line(file, model)).collect();
    for (file, (line, _)) in files.iter().zip(&lines) {
        found.facts.add("ONNX", format_args!("{}: {line}", file.strip_prefix(model.root()).unwrap_or(file).display()));
    }
    if files.is_empty() {
        found.facts.add("ONNX", "no file; `splade export-onnx` writes them");
    }
    found.json["onnx"] = lines.into_iter().map(|(_, json)| json).collect();
}

/// Files of a folder and the folders below, with their sizes, by name.
fn files(root: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(splade_files::Error::io(&folder))? {
            let entry = entry.map_err(splade_files::Error::io(&folder))?;
            let path = entry.path();
            // links to files are followed (Python's cache has them), links to folders are not: they may form a cycle
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(metadata) = std::fs::metadata(&path)
                && metadata.is_file()
            {
                files.push((path.strip_prefix(root).unwrap_or(&path).to_owned(), metadata.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}
