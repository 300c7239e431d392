//! Metrics of random runs and paired tests against pytrec_eval, mteb, ranx, scipy and statsmodels.
//!
//! The files of `tests/fixtures/metrics/` hold runs with many ties, graded, negative and missing judgements, and the
//! values of the packages; `references.py` beside them makes them. The module `trec` lists the intended
//! differences; ranx gets ranks in the order of trec_eval. In the t test equal systems have p = 1, where scipy gives NaN.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use splade_core::{Hit, Ranking};
use splade_eval::{JudgedRun, Metric, Qrels, Resampling, Run, holm, mteb_scores, paired_test};

fn folder() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/metrics")).to_owned()
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Case {
    scores: String,
    run: Map<String, Value>,
    qrels: BTreeMap<String, BTreeMap<String, i32>>,
    mteb: BTreeMap<String, Option<f64>>,
    pytrec_eval: BTreeMap<String, BTreeMap<String, f64>>,
    ranx: BTreeMap<String, f64>,
}

impl Case {
    fn run(&self) -> Run {
        let hit = |(id, score): (&String, &Value)| Hit { id: id.clone(), score: score.as_f64().unwrap() as f32 };
        let ranking = |hits: &Value| Ranking::from_hits(hits.as_object().unwrap().iter().map(hit).collect());
        self.run.iter().map(|(query, hits)| (query.clone(), ranking(hits))).collect()
    }

    fn qrels(&self) -> Qrels {
        let judged = self.qrels.iter();
        judged.flat_map(|(query, judged)| judged.iter().map(move |(id, grade)| (query, id, *grade))).collect()
    }
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = read("cases.json");
    assert!(cases.len() >= 20 && cases.iter().any(|case| case.scores == "equal"));
    cases
}

#[test]
fn scores_equal_mteb() {
    for (at, case) in cases().iter().enumerate() {
        let scores = mteb_scores(&case.qrels(), &case.run()).unwrap();
        assert_eq!(scores.len(), case.mteb.len());
        for (metric, expected) in &case.mteb {
            let ours = scores.get(metric).unwrap();
            match expected {
                None => assert!(ours.is_nan(), "case {at} {metric}: {ours}, mteb has NaN"),
                Some(expected) => {
                    // a quotient of small differences
                    let tolerance = if metric.starts_with("nauc") { 1e-7 } else { 1e-12 };
                    assert!((ours - expected).abs() <= tolerance, "case {at} {metric}: {ours}, mteb has {expected}");
                }
            }
        }
    }
}

#[test]
fn values_of_queries_equal_pytrec_eval() {
    let mut compared = 0;
    for case in cases() {
        let (qrels, run) = (case.qrels(), case.run());
        let judged = JudgedRun::new(&qrels, &run).unwrap();
        assert_eq!(judged.len(), case.pytrec_eval.len());
        for name in case.pytrec_eval.values().flat_map(BTreeMap::keys) {
            for (query, ours) in judged.values(name.parse::<Metric>().unwrap()) {
                let expected = case.pytrec_eval[query][name];
                assert!((ours - expected).abs() < 1e-12, "{query} {name}: {ours}, pytrec_eval has {expected}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1000);
}

#[test]
fn means_equal_ranx() {
    for (at, case) in cases().iter().enumerate() {
        let (qrels, run) = (case.qrels(), case.run());
        let judged = JudgedRun::new(&qrels, &run).unwrap();
        for (name, expected) in &case.ranx {
            let values: Vec<f64> = judged.values(name.parse().unwrap()).map(|(_, value)| value).collect();
            let ours = values.iter().sum::<f64>() / values.len() as f64;
            assert!((ours - expected).abs() < 1e-12, "case {at} {name}: {ours}, ranx has {expected}");
        }
    }
}

#[derive(Deserialize)]
struct Significance {
    pairs: Vec<Pair>,
    holm: Vec<Corrected>,
}

#[derive(Deserialize)]
struct Pair {
    ours: Vec<f64>,
    baseline: Vec<f64>,
    t_test: f64,
    randomisation: f64,
    is_exact: bool,
    interval: [f64; 2],
}

#[derive(Deserialize)]
struct Corrected {
    values: Vec<f64>,
    corrected: Vec<f64>,
}

#[test]
fn tests_and_intervals_equal_scipy() {
    let significance: Significance = read("significance.json");
    assert!(significance.pairs.iter().any(|pair| pair.is_exact));
    for pair in &significance.pairs {
        let resampling = Resampling { resamples: 100_000, seed: 7 };
        let test = paired_test(&pair.ours, &pair.baseline, &resampling).unwrap();
        assert!((test.p_t_test - pair.t_test).abs() < 1e-9, "{} {}", test.p_t_test, pair.t_test);
        // 0.005: more than three standard errors of both random p values together
        let tolerance = if pair.is_exact { 1e-12 } else { 0.005 };
        let p = test.p_randomisation;
        assert!((p - pair.randomisation).abs() < tolerance, "{p} {}", pair.randomisation);
        let width = pair.interval[1] - pair.interval[0];
        for (ours, expected) in test.interval.iter().zip(pair.interval) {
            assert!((ours - expected).abs() <= 0.02 * width, "{ours} {expected} of {width}");
        }
    }
}

#[test]
fn holms_correction_equals_statsmodels() {
    let significance: Significance = read("significance.json");
    assert!(!significance.holm.is_empty());
    for case in significance.holm {
        for (ours, expected) in holm(&case.values).iter().zip(&case.corrected) {
            assert!((ours - expected).abs() < 1e-12, "{ours} {expected}");
        }
    }
}

/// Runs the packages themselves: the committed files hold what the installed versions give.
#[test]
#[ignore = "needs the Python packages that tests/fixtures/metrics/references.py names: \
            SPLADE_PYTHON=venv/bin/python cargo test -p splade-eval --test golden_references -- --ignored"]
fn the_files_agree_with_the_installed_packages() {
    let python = std::env::var_os("SPLADE_PYTHON").unwrap_or_else(|| "python3".into());
    let script = folder().join("references.py");
    let output = std::process::Command::new(python).arg(script).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
