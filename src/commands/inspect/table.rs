//! A query table: terms by weight, dead terms (of weight 0), histogram of the weights.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use splade_core::{QueryWeights, Vocabulary};
use splade_files::read_token_weights;

use super::{Findings, pairs, term, vocabulary};
use crate::cli::InspectArgs;
use crate::report::{Histogram, Scale};

pub(super) fn inspect(path: &Path, args: &InspectArgs) -> Result<Findings> {
    let vocabulary = vocabulary(path, args)?;
    let terms = read(path, vocabulary.as_ref())?;
    let summary = Weights::of(&terms);
    let by_weight = sorted(&terms);
    let top: Vec<&Term> = by_weight.iter().copied().take(args.top).collect();
    let bottom: Vec<&Term> = by_weight.iter().copied().rev().filter(|term| term.weight != 0.0).take(args.top).collect();
    let dead: Vec<&Term> = terms.iter().filter(|term| term.weight == 0.0).take(args.top).collect();
    let nonzero = terms.iter().filter(|term| term.weight != 0.0).map(|term| (f64::from(term.weight), 1));
    let histogram = Histogram::of(nonzero, Scale::Real);

    let mut json = json!({"kind": "query table", "path": path});
    merge(&mut json, &summary.json());
    json["top"] = top.iter().map(|term| term.json()).collect();
    json["bottom"] = bottom.iter().map(|term| term.json()).collect();
    json["dead_terms"] = dead.iter().map(|term| term.name.as_str()).collect();
    json["histogram"] = histogram.json();
    let mut found = Findings::new(json);
    found.facts.add("query table", path.display());
    found.facts.add("terms", summary.terms);
    match &vocabulary {
        Some(vocabulary) => found.facts.add("tokenizer", format_args!("{} tokens", vocabulary.size())),
        None if terms.iter().all(|term| term.name.starts_with('[')) => {
            found.facts.add("tokenizer", "none in the folder: terms are numbers; --model names them");
        }
        None => {}
    }
    found.facts.add("weights", summary.line());
    found.facts.add("dead terms", format_args!("{} (weight exactly 0)", summary.dead));
    found.facts.add("negative", summary.negative);
    found.facts.add("untrained", format_args!("{} (weight exactly 1, where training starts)", summary.ones));
    let list = |terms: &[&Term]| {
        pairs(["term", "weight"], terms.iter().map(|term| (&term.name, format!("{:.4}", term.weight))))
    };
    found.section("top terms", &list(&top));
    found.section("bottom terms", &list(&bottom));
    if !dead.is_empty() {
        let names: Vec<&str> = dead.iter().map(|term| term.name.as_str()).collect();
        let more = if summary.dead > names.len() { " …" } else { "" };
        found.section("dead terms", &format!("{}{more}", names.join(" ")));
    }
    found.section("weights", &histogram);
    Ok(found)
}

/// Row of the table.
pub(super) struct Term {
    name: String,
    dim: Option<u32>,
    weight: f32,
}

impl Term {
    fn json(&self) -> Value {
        json!({"token": self.name, "dim": self.dim, "weight": self.weight})
    }
}

/// Sorts terms by descending weight.
fn sorted(terms: &[Term]) -> Vec<&Term> {
    let mut sorted: Vec<&Term> = terms.iter().collect();
    sorted.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.dim.cmp(&b.dim)));
    sorted
}

/// Reads a table of weights by dimension, or of weights by token, which needs no tokenizer.
fn read(path: &Path, vocabulary: Option<&Vocabulary>) -> Result<Vec<Term>> {
    let weights = match (path.extension().is_some_and(|extension| extension == "safetensors"), vocabulary) {
        (true, _) => splade_files::read_query_weights(path)?,
        (false, Some(vocabulary)) => splade_files::read_idf(path, vocabulary)?,
        (false, None) => return by_token(path),
    };
    Ok(of_weights(&weights, vocabulary))
}

fn of_weights(weights: &QueryWeights, vocabulary: Option<&Vocabulary>) -> Vec<Term> {
    let rows = (0..).zip(weights.as_slice());
    rows.map(|(dim, &weight)| Term { name: term(vocabulary, dim), dim: Some(dim), weight }).collect()
}

fn by_token(path: &Path) -> Result<Vec<Term>> {
    let listed = read_token_weights(path)?;
    Ok(listed.into_iter().map(|(name, weight)| Term { name, dim: None, weight }).collect())
}

/// Summary of a table.
pub(super) struct Weights {
    terms: usize,
    dead: usize,
    negative: usize,
    ones: usize,
    min: f32,
    max: f32,
    mean: f64,
}

impl Weights {
    /// Summarizes a table.
    pub(super) fn of_table(weights: &QueryWeights) -> Self {
        Self::of(&of_weights(weights, None))
    }

    fn of(terms: &[Term]) -> Self {
        let weights = || terms.iter().map(|term| term.weight);
        let count = |is: fn(f32) -> bool| weights().filter(|weight| is(*weight)).count();
        let sum: f64 = weights().map(f64::from).sum();
        Self {
            terms: terms.len(),
            dead: count(|weight| weight == 0.0),
            negative: count(|weight| weight < 0.0),
            ones: count(|weight| weight == 1.0),
            min: weights().reduce(f32::min).unwrap_or(0.0),
            max: weights().reduce(f32::max).unwrap_or(0.0),
            mean: if terms.is_empty() { 0.0 } else { sum / terms.len() as f64 },
        }
    }

    /// Formats range and mean of the weights.
    pub(super) fn line(&self) -> String {
        format!("{:.4} to {:.4}, mean {:.4}", self.min, self.max, self.mean)
    }

    /// Formats the summary in one line.
    pub(super) fn short(&self) -> String {
        format!("{} terms, {} dead, {} negative; weights {}", self.terms, self.dead, self.negative, self.line())
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "terms": self.terms, "dead": self.dead, "negative": self.negative, "ones": self.ones,
            "min": self.min, "max": self.max, "mean": self.mean,
        })
    }
}

/// Adds the entries of one object to another.
fn merge(to: &mut Value, from: &Value) {
    if let (Some(to), Some(from)) = (to.as_object_mut(), from.as_object()) {
        to.extend(from.clone());
    }
}
