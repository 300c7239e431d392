//! `splade eval-run`: forms of runs and judgements, chosen metrics, baselines, explanations and the report.
#![cfg(feature = "train")]

mod util;

use serde_json::Value;
use util::{Place, fixture, ours, setup};

/// A folder with two runs of three queries and their judgements.
fn place() -> Place {
    let place = setup();
    place.write("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\nq2\td3\t1\nq3\td4\t1\n");
    place.write(
        "run.trec",
        "q1 Q0 d1 1 3 a\nq1 Q0 d9 2 2 a\nq2 Q0 d3 1 5 a\nq2 Q0 d2 2 4 a\nq3 Q0 d9 1 1 a\nq3 Q0 d4 2 0.5 a\n",
    );
    place.write("other.trec", "q1 Q0 d9 1 3 b\nq1 Q0 d1 2 2 b\nq2 Q0 d3 1 5 b\nq2 Q0 d2 2 4 b\nq3 Q0 d4 1 1 b\n");
    place
}

const RUN: [&str; 3] = ["eval-run", "run.trec", "qrels.tsv"];

fn json(place: &Place, more: &[&str]) -> Value {
    place.json(&[&RUN[..], &["--json"], more].concat())
}

#[test]
fn the_scores_of_a_run_are_mtebs() {
    let place = place();
    place.copy(&fixture("mteb/predictions/splade/LocalNorwegianRetrieval_predictions.json"), "predictions.json");
    let data: Value = serde_json::from_str(&std::fs::read_to_string(fixture("mteb/data.json")).unwrap()).unwrap();
    let mut lines = String::new();
    for (query, judged) in data["qrels"].as_object().unwrap() {
        for (document, grade) in judged.as_object().unwrap() {
            lines.push_str(&format!("{query} 0 {document} {grade}\n"));
        }
    }
    place.write("qrels.trec", lines);
    let found = place.json(&["eval-run", "predictions.json", "qrels.trec", "--json"]);
    let golden = fixture("mteb/cache/results/local__tiny-splade/no_revision_available/LocalNorwegianRetrieval.json");
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(&golden).unwrap().replace("NaN", "null")).unwrap();
    let entry = golden["scores"]["test"][0].as_object().unwrap();
    let mut compared = 0;
    for (metric, expected) in entry.iter().filter(|(metric, _)| metric.contains("_at_")) {
        match expected.as_f64() {
            Some(expected) => {
                let ours = found["scores"][metric].as_f64().unwrap();
                assert!((ours - expected).abs() < 1e-6, "{metric}: {ours}, mteb has {expected}");
            }
            None => assert!(found["scores"][metric].is_null(), "{metric}"),
        }
        compared += 1;
    }
    assert_eq!(compared, 147);
    // the result file itself as a baseline: no difference
    let path = fixture("mteb/cache/results/local__tiny-splade/no_revision_available/LocalNorwegianRetrieval.json");
    let table = place.ok(&["eval-run", "predictions.json", "qrels.trec", "--baseline", path.to_str().unwrap()]);
    assert_eq!(table.matches("+0.0000").count(), 5, "{table}");
}

#[test]
fn chosen_metrics_and_single_queries() {
    let place = place();
    let found = json(&place, &["--metrics", "mrr@10,ndcg_at_2,accuracy", "--per-query"]);
    assert_eq!(found["scores"]["ndcg_at_10"].as_f64(), found["scores"]["ndcg_at_2"].as_f64());
    assert_eq!(found["per_query"][2]["scores"]["mrr_at_10"], 0.5);
    assert_eq!((&found["queries"], &found["judged_queries"]), (&3.into(), &3.into()));
    let table = place.ok(&[&RUN[..], &["--metrics", "mrr@10,nauc_mrr_at_10_max"]].concat());
    assert_eq!(table.lines().next().unwrap().split_whitespace().last(), Some("nauc_mrr_at_10_max"));
    assert!(table.lines().nth(1).unwrap().contains("0.8333"), "{table}");
    let wrong = place.run(&[&RUN[..], &["--metrics", "ndcg"]].concat());
    wrong.fails(2, "unknown metric 'ndcg'", "ndcg, map, recall, precision, mrr, hit_rate, each with a cut-off");
}

#[test]
fn missing_and_unjudged_queries_are_named() {
    let place = place();
    place.write("part.trec", "q1 Q0 d1 1 3 a\nq8 Q0 d1 1 3 a\n");
    let part = ["eval-run", "part.trec", "qrels.tsv", "--metrics", "recall_at_10", "--json"];
    let ran = place.run(&part);
    assert!(
        ran.stderr.contains("1 of 2 queries have no judgement")
            && ran.stderr.contains("2 of 3 judged queries are missing"),
        "{}",
        ran.stderr
    );
    assert_eq!(place.json(&part)["scores"]["recall_at_10"], 1.0);
    let all = place.json(&[&part[..], &["--all-judged"]].concat());
    assert_eq!((&all["scores"]["recall_at_10"], &all["queries"]), (&0.33333.into(), &3.into()));
    place.write("own.trec", "d1 Q0 d1 1 3 a\nd1 Q0 d2 2 2 a\n");
    place.write("own.tsv", "d1\td2\t1\n");
    let own = ["eval-run", "own.trec", "own.tsv", "--metrics", "mrr_at_1", "--json"];
    assert_eq!(place.json(&own)["scores"]["mrr_at_1"], 0.0);
    assert_eq!(place.json(&[&own[..], &["--ignore-identical-ids"]].concat())["scores"]["mrr_at_1"], 1.0);
    place.run(&["eval-run", "own.trec", "qrels.tsv"]).fails(
        2,
        "no query of the run has a judgement",
        "compare the query ids",
    );
}

#[test]
fn two_runs_are_tested_query_by_query() {
    let place = place();
    let more = ["--metrics", "mrr_at_10,recall_at_10", "--baseline", "other.trec", "--seed", "3"];
    let found = json(&place, &more);
    let rows = found["baseline"]["comparisons"].as_array().unwrap();
    assert_eq!((&rows[0]["wins"], &rows[0]["ties"], &rows[0]["losses"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!((&rows[0]["p_randomisation"], &rows[0]["p_t_test"]), (&1.0.into(), &1.0.into()));
    assert_eq!(rows[1]["difference"], 0.0);
    assert_eq!(found["baseline"]["gained"][0]["query_id"], "q1");
    assert_eq!(found["baseline"]["lost"][0]["query_id"], "q3");
    assert_eq!(found["baseline"]["lost"][0]["documents"][0]["rank"], 2);
    assert_eq!(json(&place, &more), found, "deterministic");
    place.write("empty.trec", "q7 Q0 d1 1 3 a\n");
    place.run(&[&RUN[..], &["--baseline", "empty.trec"]].concat()).fails(
        2,
        "no query of the run has a judgement",
        "compare the query ids",
    );
    place.run(&[&RUN[..], &["--baseline", "none.trec"]].concat()).fails(2, "none.trec: no such file or folder", "");
    let nauc = [&RUN[..], &["--baseline", "other.trec", "--metrics", "nauc_mrr_at_10_max"]].concat();
    place.run(&nauc).fails(2, "no value per query to compare", "--metrics");
}

#[test]
fn an_older_result_file_is_a_baseline_and_two_results_are_refused() {
    let place = place();
    place.write("old.json", r#"{"mteb_dataset_name": "T", "test": {"ndcg_at_10": 0.5, "evaluation_time": 1}}"#);
    let table = place.ok(&[&RUN[..], &["--baseline", "old.json"]].concat());
    assert!(table.contains("against old") && table.contains("0.5000") && !table.contains("p t test"), "{table}");
    place.write("two.json", r#"{"A": 0.5, "B": 0.25}"#);
    place.run(&[&RUN[..], &["--baseline", "two.json"]].concat()).fails(
        2,
        "two.json: 2 results",
        "name the result file of one task",
    );
}

#[test]
fn the_report_is_one_escaped_page_and_is_not_overwritten() {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    place.ok(&["index", "model", "--input", "toy/corpus.jsonl", "--index", "toy.index"]);
    let queries = place.read("toy/queries.jsonl").replacen("\"text\": \"", "\"text\": \"<script>x</script> & ", 1);
    place.write("queries.jsonl", queries);
    let search = ["search", "--index", "toy.index", "--queries", "queries.jsonl", "--format", "trec", "--mode"];
    place.write("run.trec", place.ok(&[&search[..], &["sparse"]].concat()));
    place.write("bm25.trec", place.ok(&[&search[..], &["bm25"]].concat()));
    let eval = [
        "eval-run",
        "run.trec",
        "toy/qrels/test.tsv",
        "--baseline",
        "bm25.trec",
        "--queries",
        "queries.jsonl",
        "--index",
        "toy.index",
        "--report",
        "report.html",
    ];
    place.ok(&eval);
    let page = place.read("report.html");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;x&lt;/script&gt; &amp;"), "{page}");
    for part in ["<svg", "expansion", "worst queries", "Content-Security-Policy", "@media print"] {
        assert!(page.contains(part), "{part}");
    }
    place.run(&eval).fails(2, "report.html: exists already", "--overwrite");
    place.ok(&[&eval[..], &["--overwrite"]].concat());
    let explained =
        place.json(&[&eval[..3], &["--queries", "queries.jsonl", "--index", "toy.index", "--json"]].concat());
    assert!(explained["worst"][0]["documents"][0]["terms"].is_array(), "{explained:#}");
    place.run(&[&RUN[..], &["--seed", "1"]].concat()).fails(2, "--baseline", "--help");
    place.run(&[&eval[..3], &["--subset", "nb"]].concat()).fails(2, "only prediction files of mteb", "");
    place.run(&[&RUN[..], &["--index", "toy.index"]].concat()).fails(2, "--queries", "--help");
}
