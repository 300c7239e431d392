//! `splade inspect`: kind and contents of a folder or file.

mod checkpoint;
mod index;
mod model;
mod onnx;
mod table;
mod vectors;

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use splade_core::Vocabulary;
use splade_files::{TensorInfo, is_index, read_tensor_list};
use splade_index::ImpactIndex;

use crate::cli::InspectArgs;
use crate::console::{Facts, Table};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::outputs::say;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let found = inspect(args)?;
    let has_reading_flags = args.reading.mlm_head.is_some() || !args.reading.ignore_config_key.is_empty();
    if has_reading_flags && found.json["kind"] != model::KIND {
        return Err(bad_input(
            format!("{}: not a model folder", args.path.display()),
            "leave out --mlm-head and --ignore-config-key",
        ));
    }
    if args.analyze_sparsity && found.json["kind"] != index::KIND {
        return Err(bad_input(
            format!("{}: not an index folder", args.path.display()),
            "leave out --analyze-sparsity; eval-mteb analyses the vectors of a model",
        ));
    }
    if args.json {
        return say(format_args!("{:#}", found.json));
    }
    say(found.facts.to_string().trim_end())?;
    for (title, body) in &found.sections {
        say(format_args!("\n{title}\n{}", body.trim_end()))?;
    }
    Ok(())
}

/// Findings as text and as JSON.
struct Findings {
    facts: Facts,
    /// title and lines
    sections: Vec<(String, String)>,
    json: Value,
}

impl Findings {
    fn new(json: Value) -> Self {
        Self { facts: Facts::default(), sections: Vec::new(), json }
    }

    fn section(&mut self, title: impl Into<String>, body: &impl ToString) {
        self.sections.push((title.into(), body.to_string()));
    }
}

/// Extensions of the files that `inspect` reads.
const EXTENSIONS: [&str; 11] = ["onnx", "safetensors", "bin", "pt", "pth", "json", "txt", "tsv", "jsonl", "gz", "zst"];

/// Inspects a folder by the files in it, and a file by its name.
fn inspect(args: &InspectArgs) -> Result<Findings> {
    let path = args.path.as_path();
    if path.is_dir() {
        return folder(path, args);
    }
    if !path.exists() {
        // a missing file is not taken for a Hub id
        if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
            return Err(splade_files::Error::io(path)(std::io::ErrorKind::NotFound.into()).into());
        }
        return model::inspect(&hub::locate(path, Wants::CHECKPOINT)?.folder, args);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("onnx") => onnx::inspect(path, args.top),
        Some("safetensors") => {
            let tensors = read_tensor_list(path)?;
            if is_table(&tensors) { table::inspect(path, args) } else { checkpoint::inspect(path, args.top) }
        }
        Some("bin" | "pt" | "pth") => checkpoint::inspect(path, args.top),
        Some("json") if is_index(path) => checkpoint::inspect(path, args.top),
        Some("json" | "txt" | "tsv") => table::inspect(path, args),
        Some("jsonl") => vectors::inspect(path, args),
        _ => Err(unknown(path)),
    }
}

fn folder(path: &Path, args: &InspectArgs) -> Result<Findings> {
    if ImpactIndex::is_at(path) {
        return index::inspect(path, args);
    }
    if !path.join("modules.json").is_file() {
        // the query side of a model or of an index: a table without a network
        for name in ["query_weights.safetensors", "model.safetensors"] {
            let file = path.join(name);
            if file.is_file() && read_tensor_list(&file).is_ok_and(|tensors| is_table(&tensors)) {
                return table::inspect(&file, args);
            }
        }
        if !path.join("config.json").is_file() {
            return Err(unknown(path));
        }
    }
    model::inspect(path, args)
}

/// True for the tensors of a query table: a single vector `weight`.
fn is_table(tensors: &[TensorInfo]) -> bool {
    matches!(tensors, [tensor] if tensor.name == "weight" && tensor.shape.len() == 1)
}

fn unknown(path: &Path) -> anyhow::Error {
    bad_input(
        format!("{}: unknown kind of file or folder", path.display()),
        "inspect reads model folders, index folders, .onnx, .safetensors and .bin files, query tables (.safetensors, .json, \
         .txt) and vector files (.jsonl)",
    )
}

/// Tokenizer that names terms: of `--model`, else beside `path`.
fn vocabulary(path: &Path, args: &InspectArgs) -> Result<Option<Vocabulary>> {
    let tokenizer = match &args.model {
        Some(folder) => {
            let model = hub::open(folder, NAMES)?;
            let query = model.query_side().map(|side| side.tokenizer.clone());
            query.unwrap_or_else(|| model.transformer_dir().join("tokenizer.json"))
        }
        None => path.with_file_name("tokenizer.json"),
    };
    if args.model.is_none() && !tokenizer.is_file() {
        return Ok(None);
    }
    Ok(Some(splade_files::read_vocabulary(&tokenizer, usize::MAX)?))
}

/// Files of a model of which only the tokenizer is read.
const NAMES: Wants = Wants { weights: false, onnx: None, only_queries: true };

/// Token of a dimension, or its number in brackets if it has none.
fn term(vocabulary: Option<&Vocabulary>, dim: u32) -> String {
    vocabulary.map_or_else(|| format!("[{dim}]"), |vocabulary| vocabulary.readable_token(dim))
}

/// Table of two columns.
fn pairs<A: ToString, B: ToString>(heading: [&str; 2], rows: impl IntoIterator<Item = (A, B)>) -> Table {
    let mut table = Table::new(heading);
    for (a, b) in rows {
        table.row([a.to_string(), b.to_string()]);
    }
    table
}
