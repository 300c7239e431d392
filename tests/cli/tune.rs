//! `splade tune --hybrid`, and the settings that it keeps in an index.

use serde_json::{Value, json};

use super::*;

fn place_with_index() -> Place {
    let place = place();
    place.copy(&ours("data/toy"), "toy");
    place.ok(&with(&INDEX, &["--language", "norwegian"]));
    place
}

const TUNE: [&str; 10] = [
    "tune",
    "--hybrid",
    "--index",
    "toy.index",
    "--queries",
    "queries.jsonl",
    "--qrels",
    "toy/qrels/test.tsv",
    "--folds",
    "2",
];
const SEARCH: [&str; 8] =
    ["search", "--index", "toy.index", "--queries", "queries.jsonl", "--mode", "hybrid", "--json"];

#[test]
fn tuned_settings_are_the_default_of_hybrid_searches_and_flags_come_before_them() {
    let place = place_with_index();
    let before = place.json_lines(&SEARCH);
    let found = place.json(&with(&TUNE, &["--json"]));
    assert_eq!((&found["queries"], &found["folds"], &found["written"]), (&4.into(), &2.into(), &true.into()));
    let chosen = &found["chosen"];
    let weights = chosen["weights"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    let bm25 = &chosen["bm25"];
    let compounds = if bm25["compounds"] == true { "on" } else { "off" };
    let (depth, k1, b) = (chosen["depth"].to_string(), bm25["k1"].to_string(), bm25["b"].to_string());
    let fusion = chosen["fusion"].as_str().unwrap();
    let mut flags =
        vec!["--fusion", fusion, "--weights", &weights, "--depth", &depth, "--bm25-k1", &k1, "--bm25-b", &b];
    flags.extend(["--bm25-compounds", compounds]);
    let rrf_k = chosen["rrf_k"].to_string();
    flags.extend(if fusion == "rrf" {
        ["--rrf-k", &rrf_k]
    } else {
        ["--scaling", chosen["scaling"].as_str().unwrap()]
    });
    let after = place.json_lines(&SEARCH);
    place.ok(&with(&INDEX, &["--language", "norwegian", "--overwrite"]));
    assert_eq!(after, place.json_lines(&with(&SEARCH, &flags)), "{found:#}");
    assert_ne!(after, before);

    place.ok(&TUNE);
    let untuned = [
        "--fusion",
        "weighted",
        "--weights",
        "0.5,0.5",
        "--scaling",
        "z-score",
        "--depth",
        "1000",
        "--bm25-k1",
        "1.2",
        "--bm25-b",
        "0.75",
        "--bm25-compounds",
        "on",
    ];
    assert_eq!(place.json_lines(&with(&SEARCH, &untuned)), before);
}

#[test]
fn the_report_names_the_choice_and_a_dry_run_writes_nothing() {
    let place = place_with_index();
    let manifest = place.read("toy.index/manifest.json");
    let report = place.ok(&with(&TUNE, &["--dry-run", "--depths", "5,10"]));
    for part in [
        "toy.index: nDCG@10 of 4 queries, held out by 2-fold cross-validation",
        "hybrid, tuned",
        "0.50,0.50",
        "chosen: --fusion ",
        "because of --dry-run",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert_eq!(place.read("toy.index/manifest.json"), manifest);
    let json = place.json(&with(&TUNE, &["--dry-run", "--json", "--depths", "5"]));
    assert_eq!((&json["chosen"]["depth"], &json["written"]), (&5.into(), &false.into()));
    let best = json["curve"].as_array().unwrap().iter().map(|row| row["score"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(json["scores"]["hybrid_fitted"].as_f64().unwrap(), best);
    assert_eq!(json["curve"].as_array().unwrap().len(), 21 * 5);
    assert_eq!(place.read("toy.index/manifest.json"), manifest);
}

const EVALUATE: [&str; 6] = ["eval-mteb", "model", "--data", "toy", "--modes", "hybrid"];
const EXPERIMENTS: &str = "results/results/local__model/no_revision_available/experiments";

#[test]
fn results_of_different_fusions_never_look_alike() {
    let place = place_with_index();
    let max = ["--fusion", "weighted", "--scaling", "max"];
    let runs = [
        ("hybrid", vec![]),
        ("hybrid_depth_50", vec!["--depth", "50"]),
        ("hybrid_fusion_rrf_rrf_k_10_weights_1,1", vec!["--rrf-k", "10"]),
        ("hybrid_scaling_max_weights_0.3,0.7", [&max[..], &["--weights", "0.3,0.7"]].concat()),
        ("hybrid_scaling_max_weights_0.7,0.3", [&max[..], &["--weights", "0.7,0.3"]].concat()),
        ("hybrid_bm25_b_0.3_bm25_k1_0.9", vec!["--bm25-k1", "0.9", "--bm25-b", "0.3"]),
        ("hybrid_bm25_compounds_true", vec!["--bm25-compounds", "on"]),
        ("hybrid_norwegian", vec!["--language", "nb"]),
        ("hybrid_norwegian_bm25_drop_stop_words_true", vec!["--language", "nb", "--bm25-drop-stop-words", "on"]),
    ];
    for (_, flags) in &runs {
        place.ok(&with(&EVALUATE, flags));
    }
    let mut expected: Vec<&str> = runs.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names(&place.path(EXPERIMENTS)), expected);
    let summary: Value = serde_json::from_str(&place.read("results/summary.json")).unwrap();
    assert_eq!(summary["results"].as_array().unwrap().len(), runs.len());
    let read = |file: &str| -> Value { serde_json::from_str(&place.read(&format!("{EXPERIMENTS}/{file}"))).unwrap() };
    let weighted = "hybrid_scaling_max_weights_0.3,0.7";
    assert_eq!(
        read(&format!("{weighted}/model_meta.json"))["experiment_kwargs"],
        json!({"mode": "hybrid", "stemmer": "none", "scaling": "max", "weights": "0.3,0.7"})
    );
    let plain = &read("hybrid/toy.json")["splade"]["ranking"];
    assert_eq!(
        (&plain["fusion"], &plain["scaling"], &plain["depth"]),
        (&json!("weighted"), &json!("z-score"), &json!(1000))
    );
    let table = place.ok(&with(&EVALUATE, &["--depth", "50", "--overwrite"]));
    assert!(
        table.contains(
            "\nhybrid: sum of scores scaled by z-score, weights 0.5 and 0.5, depth 50; BM25: k1 1.2, b 0.75\n"
        ),
        "{table}"
    );
}

#[test]
fn an_evaluation_takes_the_tuned_settings_for_the_stemmer_of_the_index() {
    let place = place_with_index();
    place.run(&with(&EVALUATE, &["--tuned", "toy.index"])).fails(
        2,
        "toy.index: the index has no settings of hybrid search",
        "splade tune --hybrid",
    );
    let chosen = place.json(&with(&TUNE, &["--json"]))["chosen"].clone();
    let found = place.json(&with(&EVALUATE, &["--tuned", "toy.index", "--json"]));
    let used = &found["rankings"]["hybrid"];
    for key in ["fusion", "depth"] {
        assert_eq!(used[key], chosen[key], "{key}: {used} {chosen}");
    }
    assert_eq!((&used["bm25_k1"], &used["bm25_b"]), (&chosen["bm25"]["k1"], &chosen["bm25"]["b"]));
    assert!(names(&place.path(EXPERIMENTS))[0].starts_with("hybrid_norwegian_"));
    // other stemmers have their defaults
    let both = ["--tuned", "toy.index", "--language", "none,norwegian", "--json", "--output-dir", "both"];
    let both = place.json(&with(&EVALUATE, &both));
    assert_eq!(&both["rankings"]["hybrid norwegian"], used);
    assert_eq!(both["rankings"]["hybrid none"]["scaling"], "z-score");
    let scores = |found: &Value, name: &str| found["tasks"][0]["scores"][name].clone();
    assert_eq!(scores(&both, "hybrid norwegian"), scores(&found, "hybrid"));
    let sparse = ["eval-mteb", "model", "--data", "toy", "--tuned", "toy.index", "--output-dir", "no"];
    let refused =
        "--tuned has no effect: no bm25 or hybrid ranking of this run has the stemmer of the index, norwegian";
    place.run(&sparse).fails(2, refused, "add hybrid to --modes");
    place.run(&with(&EVALUATE, &["--tuned", "toy.index", "--language", "none"])).fails(2, refused, "--language");
}

/// With a dense ranking, three weights are chosen. Searches of two rankings do not use them.
#[test]
fn three_rankings_are_tuned_and_used_by_searches_of_three() {
    let place = place();
    place.copy(&ours("data/toy"), "toy");
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    let dense = ["--dense", "dense-model"];
    let index = [&["--language", "norwegian"], &dense[..]].concat();
    place.ok(&with(&INDEX, &index));
    let before = place.json_lines(&with(&SEARCH, &dense));
    let found = place.json(&with(&TUNE, &[&["--json"], &dense[..]].concat()));
    let chosen = &found["chosen"];
    let weights: Vec<f64> =
        chosen["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
    assert!(weights.len() == 3 && (weights.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{chosen}");
    assert_eq!(found["curve"].as_array().unwrap().len(), 66 * 5);
    assert!(found["scores"]["dense"].as_f64().unwrap() > 0.0, "{found:#}");
    let weights = weights.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let text = |key: &str| chosen[key].as_str().unwrap();
    let bm25 = &chosen["bm25"];
    let (depth, k1, b) = (chosen["depth"].to_string(), bm25["k1"].to_string(), bm25["b"].to_string());
    let (rrf_k, compounds) = (chosen["rrf_k"].to_string(), if bm25["compounds"] == true { "on" } else { "off" });
    let mut flags = vec!["--fusion", text("fusion"), "--weights", &weights, "--depth", &depth, "--bm25-k1", &k1];
    flags.extend(["--bm25-b", &b, "--bm25-compounds", compounds]);
    flags.extend(if text("fusion") == "rrf" { ["--rrf-k", &rrf_k] } else { ["--scaling", text("scaling")] });
    let tuned = place.run(&with(&SEARCH, &dense));
    assert!(!tuned.stderr.contains("the tuned fusion"), "{}", tuned.stderr);
    let after = place.json_lines(&with(&SEARCH, &dense));
    assert_ne!(after, before);
    let two = place.run(&SEARCH);
    assert!(two.stderr.contains("the tuned fusion is of 3 rankings, and 2 are fused"), "{}", two.stderr);
    place.ok(&with(&INDEX, &[&["--overwrite"], &index[..]].concat()));
    assert_eq!(after, place.json_lines(&with(&SEARCH, &[&dense[..], &flags].concat())), "{found:#}");

    // a run in the place of the model
    place.ok(&with(&INDEX, &["--overwrite", "--language", "norwegian"]));
    let run = "q1 Q0 oslo 1 2 dense\nq2 Q0 fjord 1 3 dense\n";
    place.write("dense.trec", run);
    let report = place.ok(&with(&TUNE, &["--dense-run", "dense.trec", "--dry-run"]));
    assert!(report.contains("\ndense ") && report.contains("0.20,0.40,0.40"), "{report}");
    place.run(&with(&TUNE, &dense)).fails(2, "toy.index: the index has no dense vectors", "--dense MODEL");
    let both = ["--dense", "dense-model", "--dense-run", "dense.trec"];
    place.run(&with(&TUNE, &both)).fails(2, "cannot be used with", "--help");
}

#[test]
fn an_evaluation_on_the_queries_of_the_tuning_says_so() {
    let place = place_with_index();
    place.ok(&TUNE);
    let warns = |place: &Place| {
        let tuned = ["--tuned", "toy.index", "--overwrite"];
        place.run(&with(&EVALUATE, &tuned)).stderr.contains("toy: the settings of --tuned were chosen on these queries")
    };
    assert!(warns(&place));
    // the order of the queries says nothing
    let lines = place.read("toy/queries.jsonl");
    let reversed: String = lines.lines().rev().map(|line| format!("{line}\n")).collect();
    place.write("toy/queries.jsonl", &reversed);
    assert!(warns(&place));
    place.write("toy/queries.jsonl", reversed.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
    assert!(!warns(&place));
}

/// A side is named if the fusion is not above the other one.
#[test]
fn a_side_that_does_not_help_is_named() {
    let place = place_with_index();
    // no ranking finds these documents
    place.write("none.tsv", "query-id\tcorpus-id\tscore\nq1\tmissing\t1\nq2\tmissing\t1\n");
    let tune = ["tune", "--hybrid", "--index", "toy.index", "--queries", "queries.jsonl", "--qrels", "none.tsv"];
    let report = place.json(&with(&tune, &["--folds", "2", "--json", "--dry-run"]));
    assert_eq!((&report["leave_out"], &report["above_best_side"]["mean"]), (&"bm25".into(), &0.0.into()), "{report:#}");
    let text = place.ok(&with(&tune, &["--folds", "2", "--dry-run"]));
    assert!(text.contains("leave bm25 out, use --mode sparse"), "{text}");
}

#[test]
fn invalid_input_is_explained() {
    let place = place_with_index();
    let folds = with(&TUNE[..8], &[]);
    place.run(&folds).fails(
        2,
        "queries.jsonl: 4 queries have a relevant document in toy/qrels/test.tsv",
        "fewer --folds",
    );
    place.run(&with(&folds, &["--folds", "1"])).fails(2, "1 is not in 2..=100", "--help");
    place.run(&with(&TUNE, &["--depths", "0"])).fails(2, "expected at least 1", "--help");
    place.write("no.tsv", "");
    let tune = ["tune", "--hybrid", "--index", "toy.index", "--queries", "queries.jsonl", "--qrels", "no.tsv"];
    place.run(&tune).fails(2, "no.tsv", "");
    place.run(&["tune", "--hybrid", "--index", "no", "--queries", "queries.jsonl", "--qrels", "no.tsv"]).fails(
        2,
        "no: no index there",
        "",
    );
    // without --hybrid, its flags have no effect
    place.run(&with(&TUNE[..1], &TUNE[2..])).fails(2, "--hybrid", "--help");
    place.run(&with(&TUNE, &["--svg", "chart.svg"])).fails(2, "cannot be used with", "--help");
    place.run(&TUNE[..6]).fails(2, "--qrels", "--help");
}

#[test]
fn flags_without_effect_are_refused() {
    let place = place_with_index();
    let search = |args: &[&str]| place.run(&with(&["search", "--index", "toy.index", "i Norge"], args));
    search(&["--fusion", "rrf"]).fails(2, "--fusion has no effect without the hybrid mode", "add the mode hybrid");
    search(&["--mode", "bm25", "--weights", "1,1"]).fails(2, "--weights has no effect", "add the mode hybrid");
    search(&["--bm25-k1", "1"]).fails(
        2,
        "--bm25-k1 has no effect without the modes bm25 and hybrid",
        "add one of these modes",
    );
    search(&["--mode", "hybrid", "--fusion", "rrf", "--scaling", "max"]).fails(
        2,
        "--scaling is for --fusion weighted, not rrf",
        "add --fusion weighted",
    );
    search(&["--mode", "hybrid", "--fusion", "weighted", "--rrf-k", "5"]).fails(
        2,
        "--rrf-k is for --fusion rrf",
        "add --fusion rrf",
    );
    search(&["--mode", "hybrid", "--depth", "0"]).fails(2, "expected at least 1", "--help");
    place.run(&with(&EVALUATE, &["--bm25-drop-stop-words", "on"])).fails(
        2,
        "--bm25-drop-stop-words has no effect without a language",
        "--language",
    );
    place.ok(&with(&INDEX, &["--overwrite"]));
    search(&["--mode", "bm25", "--bm25-drop-stop-words", "on"]).fails(
        2,
        "--bm25-drop-stop-words has no effect without a language",
        "--language",
    );
    search(&["--mode", "bm25", "--bm25-k1", "-1"]).fails(2, "BM25's k1 is -1, not a number from 0 to 1000", "");
    search(&["--mode", "bm25", "--bm25-b", "2"]).fails(2, "BM25's b is 2, not a number from 0 to 1", "");
    for scaling in ["max", "min-max", "z-score", "distribution"] {
        search(&["--mode", "hybrid", "--fusion", "weighted", "--scaling", scaling]).done();
    }
}

#[test]
fn bm25_has_options() {
    let place = place_with_index();
    place.write("more.jsonl", "{\"_id\": \"a\", \"text\": \"passordbeskyttelse av filer\"}\n{\"_id\": \"b\", \"text\": \"et passord\"}\n{\"_id\": \"c\", \"text\": \"god beskyttelse\"}\n{\"_id\": \"d\", \"text\": \"passord og beskyttelse\"}\n");
    place.ok(&["index", "model", "--input", "more.jsonl", "--index", "more.index", "--language", "nb"]);
    let ids = |args: &[&str]| {
        let found = place.json(&with(&["search", "--index", "more.index", "--mode", "bm25", "--json"], args));
        let mut ids: Vec<String> =
            found["hits"].as_array().unwrap().iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids.join(" ")
    };
    assert_eq!(ids(&["passord"]), "a b d");
    assert_eq!(ids(&["passord", "--bm25-compounds", "off"]), "b d");
    assert_eq!(ids(&["passordbeskyttelse"]), "a b c d");
    assert_eq!(ids(&["et filer"]), "a b");
    assert_eq!(ids(&["et filer", "--bm25-drop-stop-words", "on"]), "a");
    let score = |args: &[&str]| {
        let search = ["search", "--index", "more.index", "--mode", "bm25", "--json", "passord"];
        place.json(&with(&search, args))["hits"][0]["score"].as_f64().unwrap()
    };
    assert!(score(&["--bm25-k1", "2", "--bm25-b", "0"]) > 0.0);
    assert_ne!(score(&["--bm25-b", "0"]), score(&["--bm25-b", "1"]));
}

#[test]
fn the_language_is_detected_on_demand() {
    let place = place();
    let index = |more: &[&str]| place.run(&with(&INDEX, more));
    let ran = index(&["--language", "auto"]);
    assert!(ran.stderr.contains("language of the first 12 documents: norwegian"), "{}", ran.stderr);
    ran.done();
    assert!(place.read("toy.index/manifest.json").contains("\"language\": \"norwegian\""));
    place.write("numbers.jsonl", "{\"_id\": \"a\", \"text\": \"4711\"}\n");
    let ran = place.run(&["index", "model", "--input", "numbers.jsonl", "--index", "n.index", "--language", "auto"]);
    assert!(ran.stderr.contains("none of those with a stemmer"), "{}", ran.stderr);
    ran.done();
    let stdin = ["index", "model", "--input", "-", "--index", "s.index", "--language", "auto"];
    place.feed(&stdin, "{\"_id\": \"a\", \"text\": \"x\"}\n").fails(
        2,
        "--language auto needs a new index",
        "name the language",
    );
    index(&["--append", "--language", "auto"]).fails(2, "--language auto needs a new index", "name the language");
}
