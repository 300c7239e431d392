//! An ONNX file: operator sets, inputs and outputs, operators, weights by type, metadata; in a model folder also its
//! relation to the checkpoint and its output layer.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use splade_encode::{External, OnnxNetwork, OnnxSummary, OnnxValue as Port, Provenance};
use splade_files::ModelDir;

use super::{Findings, pairs};
use crate::console::{count, size};
use crate::encoders::provenance;

pub(super) fn inspect(path: &Path, top: usize) -> Result<Findings> {
    let summary = OnnxSummary::read(path)?;
    let mut found = Findings::new(json(path, &summary));
    let facts = &mut found.facts;
    facts.add("ONNX file", path.display());
    facts.add("size", size(summary.bytes));
    facts.add("opset", opsets(&summary));
    facts.add(
        "written by",
        format_args!("{}, format version {}", or(&summary.producer, "not stated"), summary.ir_version),
    );
    let lines = |ports: &[Port]| ports.iter().map(port).collect::<Vec<_>>().join("\n");
    facts.add("inputs", lines(&summary.inputs));
    facts.add("outputs", lines(&summary.outputs));
    facts.add("parameters", format_args!("{} in {}", count(summary.parameters()), summary.precision().name()));
    let stored = summary.weights.iter().map(|(name, stored)| {
        format!("{} {name}, {} values, {}", stored.tensors, count(stored.values), size(stored.bytes))
    });
    facts.add("weights", stored.collect::<Vec<_>>().join("\n"));
    for file in &summary.external {
        facts.add("external data", external(file));
    }
    let metadata = summary.metadata.iter().map(|(key, value)| format!("{key} = {value}"));
    facts.add("metadata", or(&metadata.collect::<Vec<_>>().join("\n"), "none"));
    let mut operators: Vec<(&String, &u64)> = summary.operators.iter().collect();
    operators.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let (nodes, kinds) = (operators.iter().map(|(_, count)| **count).sum::<u64>(), operators.len());
    let more = if kinds > top { ", the most frequent" } else { "" };
    let table = pairs(["operator", "count"], operators.into_iter().take(top));
    found.section(format!("{nodes} nodes, {kinds} operators{more}"), &table);
    Ok(found)
}

/// Describes a file of a model folder in one line, with its relation to the checkpoint and its output layer.
pub(super) fn line(path: &Path, model: &ModelDir) -> (String, Value) {
    match OnnxSummary::read(path) {
        Ok(summary) => {
            let outputs: Vec<String> = summary.outputs.iter().map(port).collect();
            let missing: Vec<String> = summary.missing_data().map(|file| format!("; {}", external(file))).collect();
            let (origin, origin_json) = origin(path, model);
            let (layer, layer_json) = output_layer(path, model);
            let line = format!(
                "{}, {}, opset {}, gives {}{}; {origin}; {layer}",
                summary.precision().name(),
                size(summary.bytes + summary.external.iter().filter_map(|file| file.found).sum::<u64>()),
                opsets(&summary),
                outputs.join(" and "),
                missing.concat()
            );
            let mut json = json(path, &summary);
            json["checkpoint"] = origin_json;
            json["output_layer"] = layer_json;
            (line, json)
        }
        Err(error) => (error.to_string(), json!({"path": path, "error": error.to_string()})),
    }
}

/// Relation of a file to the checkpoint of its folder.
fn origin(path: &Path, model: &ModelDir) -> (String, Value) {
    let (text, name, reason) = match provenance(path, model) {
        Ok(Provenance::NoCheckpoint) => ("no checkpoint to compare with".to_owned(), "none", None),
        Ok(Provenance::Same) => ("exported from this checkpoint".to_owned(), "same", None),
        Ok(Provenance::Alike(count)) => {
            (format!("exported from this checkpoint, by {count} equal tensors"), "alike", None)
        }
        Ok(Provenance::Other(reason)) => {
            (format!("NOT exported from this checkpoint: {reason}"), "other", Some(reason))
        }
        Ok(_) => ("exported from an unknown checkpoint".to_owned(), "unknown", None),
        Err(error) => (format!("not compared with the checkpoint: {error}"), "unknown", Some(error.to_string())),
    };
    (text, json!({"relation": name, "reason": reason}))
}

/// Output layer of a file on the CPU: fused, or in the file with the reason.
fn output_layer(path: &Path, model: &ModelDir) -> (String, Value) {
    let reason = match model.dimensions() {
        Ok(terms) => OnnxNetwork::why_not_split(path, terms, model.pooling()).map(|reason| reason.to_string()),
        Err(error) => Some(error.to_string()),
    };
    let fused = json!({"fused": reason.is_none(), "reason": reason});
    (
        reason.map_or_else(|| "output layer fused".to_owned(), |reason| format!("output layer in the file: {reason}")),
        fused,
    )
}

fn json(path: &Path, summary: &OnnxSummary) -> Value {
    let ports = |ports: &[Port]| -> Value {
        ports.iter().map(|port| json!({"name": port.name, "type": port.data_type, "axes": port.axes})).collect()
    };
    let weights: serde_json::Map<String, Value> = summary
        .weights
        .iter()
        .map(|(name, stored)| {
            (name.clone(), json!({"tensors": stored.tensors, "values": stored.values, "bytes": stored.bytes}))
        })
        .collect();
    let external = summary.external.iter();
    let external: Value = external
        .map(|file| json!({"location": file.location, "needed_bytes": file.needed, "bytes": file.found}))
        .collect();
    let opsets: serde_json::Map<String, Value> =
        summary.opsets.iter().map(|(domain, version)| (domain.clone(), (*version).into())).collect();
    json!({
        "kind": "onnx", "path": path, "bytes": summary.bytes, "ir_version": summary.ir_version,
        "producer": summary.producer, "opsets": opsets, "precision": summary.precision().name(),
        "parameters": summary.parameters(), "inputs": ports(&summary.inputs), "outputs": ports(&summary.outputs),
        "operators": summary.operators, "weights": weights, "metadata": summary.metadata, "external": external,
    })
}

/// Formats an input or output: `logits float [batch_size, sequence_length, 420]`.
fn port(port: &Port) -> String {
    format!("{} {} [{}]", port.name, port.data_type, port.axes.join(", "))
}

/// Formats operator sets: `17`, other domains with their names.
fn opsets(summary: &OnnxSummary) -> String {
    let name = |(domain, version): &(String, i64)| {
        if domain.is_empty() { version.to_string() } else { format!("{domain} {version}") }
    };
    summary.opsets.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn external(file: &External) -> String {
    match file.found {
        None => format!("{} is missing", file.location),
        Some(found) if found < file.needed => {
            format!("{} has {found} bytes, {} are needed", file.location, file.needed)
        }
        Some(found) => format!("{}, {}", file.location, size(found)),
    }
}

fn or<'t>(text: &'t str, otherwise: &'t str) -> &'t str {
    if text.is_empty() { otherwise } else { text }
}
