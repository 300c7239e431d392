//! Pruning of vectors in `index`, `encode` and `search`, and `splade tune`.

use serde_json::Value;

use super::*;

const SEARCH: [&str; 4] = ["search", "--index", "toy.index", "--json"];

/// True if a weight is kept, by its rank from 0, itself, and the share of the weights before it.
type Keeps<'a> = &'a dyn Fn(usize, f64, f64) -> bool;

/// Weights of each line of a vector file.
fn weights(lines: &[Value]) -> Vec<Vec<f64>> {
    let weights =
        |line: &Value| line["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    lines.iter().map(weights).collect()
}

#[test]
fn rules_keep_the_largest_weights() {
    let place = place();
    let encode = |more: &[&str]| weights(&place.json_lines(&with(&ENCODE, more)));
    let all = encode(&[]);
    let by_count: Keeps = &|rank, _, _| rank < 7;
    let by_weight: Keeps = &|_, weight, _| weight >= 0.5;
    let by_mass: Keeps = &|_, _, before| before < 0.6;
    let by_both: Keeps = &|_, weight, before| before < 0.6 && weight >= 0.5;
    for (more, keeps) in [
        (&["--max-active-dims", "7"][..], by_count),
        (&["--top-k", "7"], by_count),
        (&["--min-weight", "0.5"], by_weight),
        (&["--mass", "0.6"], by_mass),
        (&["--mass", "0.6", "--min-weight", "0.5"], by_both),
    ] {
        let pruned = encode(more);
        assert_eq!(pruned.len(), all.len());
        for (mut pruned, mut all) in pruned.into_iter().zip(all.clone()) {
            pruned.sort_by(|a, b| b.total_cmp(a));
            all.sort_by(|a, b| b.total_cmp(a));
            let sum: f64 = all.iter().sum();
            let mut before = 0.0;
            let mut kept = all.clone();
            let mut rank = 0;
            kept.retain(|weight| {
                let keep = keeps(rank, *weight, before / sum);
                (rank, before) = (rank + 1, before + weight);
                keep
            });
            assert_eq!(pruned, kept, "{more:?}");
        }
    }
    for (more, error) in [
        (["--mass", "0"], "the share of the mass is 0"),
        (["--mass", "1.5"], "the share of the mass is 1.5"),
        (["--min-weight", "-1"], "the smallest weight is -1"),
    ] {
        place.run(&with(&ENCODE, &more)).fails(2, error, "");
        place.run(&with(&INDEX, &more)).fails(2, error, "");
    }
    place.run(&with(&ENCODE, &["--top-k", "3", "--max-active-dims", "3"])).fails(
        2,
        "cannot be used with",
        "see --help",
    );
}

#[test]
fn an_index_keeps_to_its_pruning() {
    let place = place();
    place.ok(&with(&INDEX, &["--mass", "0.5"]));
    let stats = |args: &[&str]| place.json(&with(args, &["--json"]))["active_dims_mean"].as_f64().unwrap();
    let append = ["index", "model", "--input", "corpus.jsonl", "--index", "toy.index", "--append"];
    let pruned = stats(&append);
    assert_eq!(stats(&with(&append, &["--mass", "0.5"])), pruned);
    let shown = place.ok(&["inspect", "toy.index"]);
    assert!(shown.contains("50 % of the mass"), "{shown}");
    let refused = place.run(&with(&append, &["--mass", "0.9"]));
    refused.fails(
        2,
        "the pruning of its documents is: 50 % of the mass; requested: 90 % of the mass",
        "leave the flags",
    );
    assert!(stats(&["index", "model", "--input", "corpus.jsonl", "--index", "whole.index"]) > pruned);
    place
        .run(&[
            "index",
            "model",
            "--input",
            "corpus.jsonl",
            "--index",
            "whole.index",
            "--append",
            "--min-weight",
            "0.1",
        ])
        .fails(2, "the pruning of its documents is: none", "leave the flags");
}

#[test]
fn queries_are_pruned_too() {
    let place = place();
    place.ok(&INDEX);
    let terms = |more: &[&str]| -> usize {
        let found = place.json(&[&SEARCH[..], &["hva er hovedstaden i Norge", "--explain"], more].concat());
        let terms = found["hits"].as_array().unwrap().iter().map(|hit| hit["terms"].as_array().unwrap().len());
        terms.max().unwrap_or(0)
    };
    assert!(terms(&[]) > 1);
    assert_eq!(terms(&["--max-active-dims", "1"]), 1);
    place.run(&with(&SEARCH, &["Oslo", "--mode", "bm25", "--mass", "0.5"])).fails(
        2,
        "the mode bm25 has no sparse ones",
        "another --mode",
    );
}

#[test]
fn tune_measures_every_setting_and_names_the_knee() {
    let place = place();
    place.ok(&INDEX);
    place.copy(&ours("data/toy/qrels/test.tsv"), "qrels.tsv");
    let tune = ["tune", "--index", "toy.index", "--queries", "queries.jsonl"];
    let names = place.names();
    let by_qrels = place.json(&with(&tune, &["--qrels", "qrels.tsv", "--json"]));
    let by_recall = place.json(&with(&tune, &["--json"]));
    assert_eq!(place.names(), names);
    for (found, metric) in [(&by_qrels, "ndcg_at_10"), (&by_recall, "recall_at_10_vs_unpruned")] {
        assert_eq!(found["metric"], metric);
        let settings = found["settings"].as_array().unwrap();
        assert!(settings.len() > 5, "{found:#}");
        let number = |at: &Value, name: &str| at[name].as_f64().unwrap();
        assert_eq!(settings[0]["pruning"], serde_json::json!({}));
        for at in settings {
            assert!((0.0..=1.0).contains(&number(at, metric)) && number(at, "latency_us_mean") > 0.0, "{at:#}");
            assert!(number(at, "active_dims_mean") <= number(&settings[0], "active_dims_mean"));
        }
        assert!(found["knee"].is_null() || settings.contains(&found["knee"]));
    }
    assert_eq!(by_recall["settings"][0]["recall_at_10_vs_unpruned"], 1.0);
    // the measured quality is that of an index which is made with the setting
    let setting =
        by_qrels["settings"].as_array().unwrap().iter().find(|at| at["pruning"]["max_active_dims"] == 64).unwrap();
    place.copy(&ours("data/toy"), "toy");
    place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "pruned.index", "--max-active-dims", "64"]);
    let pruned = ["tune", "--index", "pruned.index", "--queries", "queries.jsonl", "--qrels", "qrels.tsv", "--json"];
    assert_eq!(place.json(&pruned)["settings"][0]["ndcg_at_10"], setting["ndcg_at_10"]);
    let table = place.ok(&with(&tune, &["--qrels", "qrels.tsv", "--svg", "pruning.svg"]));
    assert!(table.contains("--max-active-dims 64") && table.lines().last().unwrap().starts_with("knee: "), "{table}");
    let svg = place.read("pruning.svg");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.matches("<polyline").count() == 6, "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    place.run(&with(&tune, &["--svg", "pruning.svg"])).fails(2, "pruning.svg: exists already", "--overwrite");
    place.write("none.jsonl", "{\"_id\": \"q\", \"text\": \"\"}\n");
    place.run(&["tune", "--index", "toy.index", "--queries", "none.jsonl"]).fails(
        2,
        "no query has a document to find",
        "--qrels",
    );
}

#[test]
fn weights_of_an_index_take_the_format_that_is_asked_for() {
    let place = place();
    let build = |format: &str| {
        let dir = format!("{format}.index");
        let build = ["index", "model", "--input", "corpus.jsonl", "--index", &dir, "--weight-format", format, "--json"];
        let stats: Value = serde_json::from_str(&place.ok(&build)).unwrap();
        let inspected: Vec<_> = place.ok(&["inspect", &dir]).split_whitespace().map(str::to_owned).collect();
        assert!(inspected.join(" ").contains(&format!("weights kept in {format} ")), "{inspected:?}");
        stats["vector_bytes"].as_u64().unwrap()
    };
    let sizes = ["f32", "f16", "u8"].map(build);
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    // a score is that of the weights rounded to 1/64
    let search = ["search", "--index", "u8.index", "--queries", "queries.jsonl", "--explain", "--json"];
    let answers = place.json_lines(&search);
    let hits = answers.iter().flat_map(|answer| answer["hits"].as_array().unwrap());
    let terms: Vec<&Value> = hits.flat_map(|hit| hit["terms"].as_array().unwrap()).collect();
    assert!(!terms.is_empty());
    for term in terms {
        let steps = term["document_weight"].as_f64().unwrap() * 64.0;
        assert!(steps.fract() == 0.0 && (1.0..=255.0).contains(&steps), "{term}");
    }
    let append = ["index", "model", "--input", "corpus.jsonl", "--index", "u8.index", "--append"];
    place.ok(&append);
    place.run(&with(&append, &["--weight-format", "f32"])).fails(
        2,
        "u8.index: its weights are u8, not f32",
        "--weight-format",
    );
}
