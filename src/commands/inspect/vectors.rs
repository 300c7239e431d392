//! A vector file: number of vectors, sparsity, most frequent terms.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use splade_core::SparsityStats;
use splade_files::read_vectors_named;

use super::{Findings, term, vocabulary};
use crate::cli::InspectArgs;
use crate::commands::interrupt;
use crate::console::Table;
use crate::hub;
use crate::report::{Histogram, Scale};

pub(super) fn inspect(path: &Path, args: &InspectArgs) -> Result<Findings> {
    // without a model, tokens are numbered in order of appearance
    let vocabulary = if args.model.is_some() { vocabulary(path, args)? } else { None };
    let names = RefCell::new((HashMap::<String, u32>::new(), Vec::<String>::new()));
    let dim = |token: &str| match &vocabulary {
        Some(vocabulary) => vocabulary.dim(token).or_else(|| token.strip_prefix('[')?.strip_suffix(']')?.parse().ok()),
        None => {
            let (dims, tokens) = &mut *names.borrow_mut();
            let next = u32::try_from(tokens.len()).ok()?;
            Some(*dims.entry(token.to_owned()).or_insert_with(|| {
                tokens.push(token.to_owned());
                next
            }))
        }
    };
    let dimensions = match &args.model {
        Some(model) => Some(hub::open(model, super::NAMES)?.dimensions()?),
        None => None,
    };
    let mut stats = SparsityStats::new(dimensions.unwrap_or(0));
    let mut lengths: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut low, mut high, mut negative) = (f32::INFINITY, f32::NEG_INFINITY, 0_u64);
    for vector in read_vectors_named(path, dim)? {
        interrupt::check()?;
        let (_, vector) = vector?;
        stats.add(&vector);
        *lengths.entry(vector.active_dims()).or_default() += 1;
        for &weight in vector.weights() {
            (low, high) = (low.min(weight), high.max(weight));
            negative += u64::from(weight < 0.0);
        }
    }
    let report = stats.report();
    let (_, tokens) = names.into_inner();
    let name = |dim: u32| tokens.get(dim as usize).cloned().unwrap_or_else(|| term(vocabulary.as_ref(), dim));
    let top = stats.most_frequent(args.top);
    let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
    let histogram = Histogram::of(lengths.iter().map(|(length, count)| (*length as f64, *count)), Scale::Whole);

    let terms: Vec<_> =
        top.iter().map(|(dim, count)| json!({"dim": dim, "token": name(*dim), "vectors": count})).collect();
    let mut json = json!({"kind": "vectors", "path": path, "sparsity": report});
    if dimensions.is_none() {
        // unknown without a model
        json["sparsity"]["dimensions"] = serde_json::Value::Null;
        json["sparsity"]["sparsity_ratio"] = serde_json::Value::Null;
    }
    json["weights"] = json!({"min": low, "max": high, "negative": negative});
    json["top_terms"] = terms.into();
    json["histogram"] = histogram.json();
    let mut found = Findings::new(json);
    found.facts.add("vectors", format_args!("{} in {}", report.count, path.display()));
    found.facts.add("empty", report.empty_count);
    found.facts.add(
        "active dims",
        format_args!(
            "{:.1} on average; {} to {}, p50 {}, p95 {}",
            report.active_dims_mean,
            report.active_dims_min,
            report.active_dims_max,
            report.active_dims_p50,
            report.active_dims_p95
        ),
    );
    if let Some(dimensions) = dimensions {
        found.facts.add("sparsity", format_args!("{:.4} of {dimensions} terms", report.sparsity_ratio));
    }
    found.facts.add("terms in use", report.used_dims);
    found.facts.add("weights", format_args!("{low:.4} to {high:.4}, {negative} negative"));
    let mut table = Table::new(["term", "vectors", "share"]);
    for (dim, count) in &top {
        let share = *count as f64 / report.count.max(1) as f64;
        table.row([name(*dim), count.to_string(), format!("{share:.3}")]);
    }
    found.section("most frequent terms", &table);
    found.section("active dims", &histogram);
    Ok(found)
}
