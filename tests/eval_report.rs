//! `eval-mteb`: baselines of every kind, the analysis of sparsity, the report; `inspect --analyze-sparsity`.
#![cfg(feature = "train")]

mod util;

use serde_json::Value;
use util::{Place, fixture, ours, setup};

fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    place
}

const EVAL: [&str; 5] = ["eval-mteb", "model", "--data", "toy", "--overwrite"];

fn json(place: &Place, more: &[&str]) -> Value {
    place.json(&[&EVAL[..], &["--json"], more].concat())
}

#[test]
fn runs_of_a_results_folder_are_tested_query_by_query() {
    let place = place();
    place.ok(&[&EVAL[..], &["--modes", "bm25", "--save-runs", "--output-dir", "old"]].concat());
    let folder = "old/results/local__model/no_revision_available/experiments/bm25";
    let more = ["--modes", "sparse,bm25", "--baseline", folder];
    let found = json(&place, &more);
    let rows = found["baselines"][0]["comparisons"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{found:#}");
    assert!(rows[0]["p_randomisation"].is_number() && rows[0]["difference"].as_f64().unwrap() < 0.0);
    assert_eq!((&rows[1]["ties"], &rows[1]["p_randomisation"]), (&4.into(), &1.0.into()));
    let lost = &found["baselines"][0]["queries"][0]["lost"][0];
    assert!(lost["query"].is_string() && lost["documents"][0]["terms"].is_array(), "{lost:#}");
    let text = place.ok(&[&EVAL[..], &more].concat());
    assert!(text.contains("corrected by Holm's method") && text.contains("queries that lost most against"), "{text}");
    // the run alone, and results without a run
    let run = format!("{folder}/toy.run.trec");
    let found = json(&place, &["--baseline", &run]);
    assert!(found["baselines"][0]["comparisons"][0]["p_t_test"].is_number(), "{found:#}");
    place.write("dense.json", r#"{"toy": {"ndcg_at_10": 0.25}, "other": 0.5}"#);
    let found = json(&place, &["--baseline", "dense.json"]);
    let row = &found["baselines"][0]["comparisons"][0];
    assert_eq!((&row["baseline"], &row["p_t_test"]), (&0.25.into(), &Value::Null));
}

#[test]
fn several_models_are_compared_and_what_is_not_comparable_is_named() {
    let place = place();
    let result = |revision: &str, value: f64| {
        format!(
            r#"{{"task_name": "toy", "dataset_revision": "{revision}", "mteb_version": "1.12.0", "evaluation_time": 1,
               "scores": {{"test": [{{"hf_subset": "default", "languages": [], "main_score": {value}, "nauc": NaN}}]}}}}"#
        )
    };
    place.write("cache/a/r/toy.json", result("another", 0.25));
    place.write("cache/b/r/toy.json", r#"{"mteb_dataset_name": "toy", "test": {"ndcg_at_10": 0.125}}"#);
    place.write("cache/b/r/broken.json", "{");
    let ran = place.run(&[&EVAL[..], &["--baseline", "cache", "--json"]].concat());
    assert!(ran.stderr.contains("a/r was evaluated on revision another of the data"), "{}", ran.stderr);
    assert!(ran.stderr.contains("broken.json"), "{}", ran.stderr);
    let found: Value = serde_json::from_str(&ran.done()).unwrap();
    let names: Vec<&str> =
        found["baselines"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a/r", "b/r"]);
    place.write("other.json", r#"{"elsewhere": 0.5}"#);
    let ran = place.run(&[&EVAL[..], &["--baseline", "other.json"]].concat());
    assert!(ran.stderr.contains("other.json: no result of toy"), "{}", ran.stderr);
    place.run(&[&EVAL[..], &["--baseline", "none.json"]].concat()).fails(2, "none.json: no such file or folder", "");
}

#[test]
fn sparsity_is_analysed() {
    let place = place();
    let found = json(&place, &["--analyze-sparsity"]);
    let sparsity = &found["tasks"][0]["sparsity"];
    for side in ["queries", "documents"] {
        let of = &sparsity[side];
        assert!(of["active_dims_mean"].as_f64().unwrap() > 0.0 && of["weights"]["p90"].is_number(), "{of:#}");
        assert!(of["posting_lists"]["max"].is_number() && of["expansion"]["expansion_ratio"].is_number(), "{of:#}");
        assert!(of["top_terms"][0]["token"].is_string() && of["samples"][0]["terms"][0]["token"].is_string());
    }
    // the static query table gives no weight to a word that is not there
    assert_eq!(sparsity["queries"]["expansion"]["expansion_ratio"], 0.0);
    assert!(sparsity["targets"]["document_sparsity"]["met"].is_boolean());
    assert!(sparsity["million_documents"]["index_bytes"].as_u64().unwrap() > 1_000_000);
    let text = place.ok(&[&EVAL[..], &["--analyze-sparsity"]].concat());
    for part in ["target of queries", "posting lists by length", "frequent term", "+ marks expansions", "█"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_vectors_of_an_index_are_analysed() {
    let place = place();
    place.copy(&ours("fixtures/models/roberta-tiny"), "roberta");
    place.ok(&["index", "roberta", "--input", "toy/corpus.jsonl", "--index", "r.index"]);
    let inspect = ["inspect", "r.index", "--analyze-sparsity", "--model", "roberta"];
    let text = place.ok(&inspect);
    assert!(text.contains("vocabulary") && text.contains("of which 0 are empty"), "{text}");
    // byte-level tokens are text
    assert!(!text.contains('Ġ'), "{text}");
    let found = place.json(&[&inspect[..], &["--json"]].concat());
    assert_eq!(found["sparsity"]["count"], 12);
    place.run(&["inspect", "model", "--analyze-sparsity"]).fails(2, "model: not an index folder", "--analyze-sparsity");
}

#[test]
fn the_report_has_every_part() {
    let place = place();
    place.ok(&[&EVAL[..], &["--modes", "bm25", "--save-runs", "--output-dir", "old"]].concat());
    let folder = "old/results/local__model/no_revision_available/experiments/bm25";
    let more = ["--modes", "sparse,bm25,hybrid", "--baseline", folder, "--report", "out/report.html"];
    place.ok(&[&EVAL[..], &more].concat());
    let page = place.read("out/report.html");
    let parts = [
        "Evaluation of local/model",
        "nDCG@10 against latency",
        "nDCG@10 against index size",
        "<circle",
        "<rect",
        "best queries",
        "worst queries",
        "expansion",
        "Quality and cost",
        "toy: sparsity",
        "95 % interval",
    ];
    for part in parts {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    let again = ["eval-mteb", "model", "--data", "toy", "--output-dir", "new", "--report", "out/report.html"];
    place.run(&again).fails(2, "out/report.html: exists already", "--overwrite");
    assert!(!place.path("new").exists(), "nothing is evaluated before the refusal");
    let markdown = place.ok(&[&EVAL[..], &["--format", "md"]].concat());
    assert!(
        markdown.starts_with("# Evaluation of local/model\n") && markdown.contains("| task | mode |"),
        "{markdown}"
    );
}

#[test]
fn finished_tasks_are_evaluated_again_from_the_cache_for_what_their_files_lack() {
    let place = place();
    let eval = ["eval-mteb", "model", "--data", "toy", "--modes", "sparse,bm25"];
    place.ok(&[&eval[..], &["--save-runs"]].concat());
    let taken = place.run(&eval);
    assert!(taken.stderr.contains("evaluated already under equal conditions"), "{}", taken.stderr);
    taken.done();
    place.ok(&["eval-mteb", "model", "--data", "toy", "--modes", "bm25", "--save-runs", "--output-dir", "old"]);
    let run = "old/results/local__model/no_revision_available/experiments/bm25/toy.run.trec";
    for more in [&["--baseline", run][..], &["--format", "md"], &["--analyze-sparsity"], &["--report", "report.html"]] {
        let ran = place.run(&[&eval[..], more].concat());
        assert!(!ran.stderr.contains("evaluated already"), "{more:?}: {}", ran.stderr);
        ran.done();
    }
    let found = place.json(&[&eval[..], &["--baseline", run, "--json"]].concat());
    assert_eq!(found["baselines"][0]["comparisons"].as_array().unwrap().len(), 2, "{found:#}");
    // an imported run stands in the report too, and has no cost
    let page = place.ok(&[&eval[..], &["--run", &format!("dense={run}"), "--format", "md"]].concat());
    assert!(page.contains("| toy | dense | ") && page.contains("precision fp32"), "{page}");
}
