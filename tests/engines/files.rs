//! Files of `export-vectors`, searched by other programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::util::{Place, fixture, ours, setup};

fn python() -> PathBuf {
    ours("../.engines/files/venv/bin/python")
}

/// A folder with an index and the vectors of its queries.
fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
    let corpus = ours("data/lohelp-nb/corpus.jsonl");
    place.ok(&["index", "model", "--input", corpus.to_str().unwrap(), "--index", "docs.index"]);
    place.ok(&["encode", "model", "--input", "queries.jsonl", "--role", "query", "--output", "q.jsonl"]);
    place
}

type Run = BTreeMap<String, Vec<(String, f64)>>;

fn run_of(text: &str) -> Run {
    let mut run = Run::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        run.entry(parts[0].to_owned()).or_default().push((parts[2].to_owned(), parts[4].parse().unwrap()));
    }
    run
}

/// Exports, lets another program search, and compares scores with those of the index. Returns the largest difference for a unit
/// of score.
fn difference(reader: &str, format: &str, output: &str) -> f64 {
    let place = place();
    place.ok(&["export-vectors", "docs.index", "--format", format, "--output", output]);
    let script = ours("engines/files/read.py");
    let found = Command::new(python())
        .arg(script)
        .args([reader, output, "q.jsonl", "20"])
        .current_dir(place.path(""))
        .output()
        .expect("`make test-engines` makes .engines/files/venv");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let found = run_of(&String::from_utf8(found.stdout).unwrap());
    let all = ["search", "--index", "docs.index", "--query-vectors", "q.jsonl", "-k", "100000", "--format", "trec"];
    let all = run_of(&place.ok(&all));
    assert!(found.len() >= 4 && found.keys().eq(all.keys()), "{:?}", found.keys());
    let mut largest = 0.0_f64;
    for (query, hits) in &found {
        assert_eq!(hits.len(), all[query].len().min(20), "{query}");
        let exact: BTreeMap<&str, f64> = all[query].iter().map(|(id, score)| (id.as_str(), *score)).collect();
        for ((id, score), (_, best)) in hits.iter().zip(&all[query]) {
            let unit = best.max(1.0);
            largest = largest.max((score - exact[id.as_str()]).abs() / unit).max((score - best).abs() / unit);
        }
    }
    println!("{reader}: largest difference {largest:e} for a unit of score");
    largest
}

#[test]
#[ignore = "needs DuckDB: make test-engines"]
fn duckdb_computes_our_scores() {
    assert!(difference("duckdb", "parquet-postings", "tables") < 1e-6);
}

#[test]
#[ignore = "needs NumPy: make test-engines"]
fn numpy_computes_our_scores() {
    assert!(difference("numpy", "csr", "v.csr") < 1e-6);
}

#[test]
#[ignore = "needs ciff-toolkit: make test-engines"]
fn ciff_has_our_weights_to_two_decimals() {
    // each weight is off by up to 0.005
    assert!(difference("ciff", "ciff", "v.ciff") < 0.05);
}

#[test]
#[ignore = "needs pyseismic-lsr: make test-engines"]
fn seismic_computes_our_scores_in_half_precision() {
    assert!(difference("seismic", "jsonl", "v.jsonl") < 2e-3);
}
