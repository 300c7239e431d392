//! The scores here against those of sentence-transformers 6.2.0, mteb 2.26.24 and pytrec_eval, on files they made.
//!
//! Tolerance 1e-9 for ranking metrics, which are sums of few doubles; 1e-6 for sparsity, which the reference computes
//! in f32; 1e-7 for nAUC, a quotient of small differences.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use splade_core::{Hit, Ranking, SparseVector};
use splade_eval::{
    EncodedTask, Evaluation, ExactSearcher, FusionSample, Qrels, RETRIEVAL_DEPTH, Run, TaskResult, evaluate,
    fusion_scores, mteb_scores, retrieval_csv_name,
};
use splade_files::read_rows;

fn fixture(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/sparse-encoder")).join(path)
}

fn json<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(fixture(path)).unwrap()).unwrap()
}

fn assert_close(name: &str, ours: f64, expected: f64, tolerance: f64) {
    assert!((ours - expected).abs() <= tolerance, "{name}: {ours}, the reference has {expected}");
}

const SETS: [&str; 3] = ["small", "medium", "one_chunk_vs_many"];

#[derive(Deserialize)]
struct Data {
    query_ids: Vec<String>,
    corpus_ids: Vec<String>,
    qrels: BTreeMap<String, BTreeMap<String, i32>>,
}

struct Set {
    qrels: Qrels,
    queries: Vec<(String, SparseVector)>,
    documents: Vec<(String, SparseVector)>,
    dimensions: usize,
    scores: Vec<Vec<f32>>,
}

fn load(name: &str) -> Set {
    let data: Data = json(&format!("evaluators/{name}/data.json"));
    let bytes = std::fs::read(fixture(&format!("evaluators/{name}/embeddings.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let rows = |name: &str| -> Vec<Vec<f32>> {
        let tensor = tensors.tensor(name).unwrap();
        let values: Vec<f32> =
            tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        values.chunks_exact(tensor.shape()[1]).map(<[f32]>::to_vec).collect()
    };
    let named = |ids: &[String], rows: &[Vec<f32>]| {
        ids.iter().cloned().zip(rows.iter().map(|row| SparseVector::from_dense(row).unwrap())).collect()
    };
    let queries = rows("queries");
    Set {
        qrels: judged(&data.qrels),
        dimensions: queries[0].len(),
        queries: named(&data.query_ids, &queries),
        documents: named(&data.corpus_ids, &rows("corpus")),
        scores: rows("scores"),
    }
}

impl Set {
    /// The set as a task, and its documents to search.
    fn task(&self) -> EncodedTask {
        let mut task = EncodedTask::new("set", self.qrels.clone(), self.dimensions);
        self.queries.iter().for_each(|(id, vector)| task.add_query(id, "", vector.clone()));
        self.documents.iter().for_each(|(id, vector)| assert!(task.add_document(id, vector)));
        task
    }

    fn evaluate(self) -> Evaluation {
        let task = self.task();
        evaluate(&ExactSearcher::new(self.documents).unwrap(), &task).unwrap()
    }
}

fn judged(qrels: &BTreeMap<String, BTreeMap<String, i32>>) -> Qrels {
    let judged = qrels.iter().flat_map(|(query, judged)| judged.iter().map(move |(id, grade)| (query, id, *grade)));
    judged.collect()
}

#[test]
fn exact_search_gives_the_references_dot_products() {
    for name in SETS {
        let set = load(name);
        let searcher = ExactSearcher::new(set.documents.clone()).unwrap();
        for ((_, query), expected) in set.queries.iter().zip(&set.scores) {
            let ranking = searcher.search(query, searcher.len());
            let places: BTreeMap<&str, usize> =
                set.documents.iter().enumerate().map(|(place, (id, _))| (id.as_str(), place)).collect();
            assert_eq!(ranking.len(), expected.len());
            for hit in ranking.hits() {
                let expected = expected[places[hit.id.as_str()]];
                assert!((hit.score - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{name} {}", hit.id);
            }
        }
    }
}

#[test]
fn information_retrieval_scores_equal_sentence_transformers() {
    for name in SETS {
        let set = load(name);
        let expected: Value = json(&format!("evaluators/{name}/expected_st.json"));
        let evaluation = set.evaluate();
        let scores = evaluation.retrieval.scores(&format!("Toy{name}"));
        let metrics = expected["metrics"].as_object().unwrap();
        assert_eq!(scores.len(), metrics.len());
        for (metric, expected) in metrics {
            let tolerance = if metric.contains("_dot_") { 1e-9 } else { 1e-6 };
            let ours = scores.get(metric).unwrap_or_else(|| panic!("{metric} is missing"));
            assert_close(&format!("{name} {metric}"), ours, expected.as_f64().unwrap(), tolerance);
        }
        assert_eq!(expected["primary_metric"], format!("Toy{name}_dot_ndcg@10"));
    }
}

/// Order included: the sets are full of ties, at the cut-off too.
#[test]
fn the_best_100_equal_sentence_transformers_predictions() {
    for name in SETS {
        let set = load(name);
        let searcher = ExactSearcher::new(set.documents).unwrap();
        let search = |(id, query): &(String, SparseVector)| (id.clone(), searcher.search(query, RETRIEVAL_DEPTH));
        let run: Run = set.queries.iter().map(search).collect();
        let file = format!("Information-Retrieval_evaluation_Toy{name}_predictions_dot.jsonl");
        let mut rows = 0;
        for row in read_rows(&fixture(&format!("evaluators/{name}/st_output/{file}"))).unwrap() {
            let row = row.unwrap();
            let results = row.value()["results"].as_array().unwrap();
            let expected: Vec<&str> = results.iter().map(|hit| hit["corpus_id"].as_str().unwrap()).collect();
            let query = row.string("query_id").unwrap().unwrap();
            let ranking = run.ranking(query).unwrap();
            let ours: Vec<&str> = ranking.hits().iter().map(|hit| hit.id.as_str()).collect();
            assert_eq!(ours, expected, "{name} {query}");
            rows += 1;
        }
        assert!(rows > 10);
    }
}

#[test]
fn the_csv_file_has_the_references_form_and_values() {
    for name in SETS {
        let set = load(name);
        let evaluation = set.evaluate();
        let folder = tempfile::tempdir().unwrap();
        let file = retrieval_csv_name(&format!("Toy{name}"));
        let path = folder.path().join(&file);
        evaluation.retrieval.append_csv(&path, 1.5, 30).unwrap();
        evaluation.retrieval.append_csv(&path, 2.0, 40).unwrap();
        let ours = std::fs::read_to_string(path).unwrap();
        let expected = std::fs::read_to_string(fixture(&format!("evaluators/{name}/st_output/{file}"))).unwrap();
        assert_eq!(ours.matches("\r\n").count(), expected.matches("\r\n").count());
        for (ours, expected) in ours.lines().zip(expected.lines()) {
            let (ours, expected): (Vec<&str>, Vec<&str>) = (ours.split(',').collect(), expected.split(',').collect());
            assert_eq!((ours.len(), &ours[..2]), (expected.len(), &expected[..2]));
            for (ours, expected) in ours.iter().zip(&expected) {
                match (ours.parse(), expected.parse()) {
                    (Ok(ours), Ok(expected)) => assert_close(name, ours, expected, 1e-6),
                    _ => assert_eq!(ours, expected),
                }
            }
        }
    }
}

#[test]
fn trec_scores_equal_mteb_and_pytrec_eval() {
    for name in SETS {
        let set = load(name);
        let scores = set.evaluate().mteb;
        let text = std::fs::read_to_string(fixture(&format!("evaluators/{name}/expected_mteb.json"))).unwrap();
        let expected: Value = serde_json::from_str(&text.replace("NaN", "null")).unwrap();
        let expected = expected["scores"].as_object().unwrap();
        assert_eq!(scores.len(), expected.len(), "{name}");
        for (metric, expected) in expected {
            assert_metric(&format!("{name} {metric}"), scores.get(metric), expected.as_f64(), 1e-7);
        }
    }
}

fn assert_metric(name: &str, ours: Option<f64>, expected: Option<f64>, tolerance: f64) {
    let ours = ours.unwrap_or_else(|| panic!("{name} is missing"));
    match expected {
        Some(expected) => assert_close(name, ours, expected, tolerance),
        None => assert!(ours.is_nan(), "{name}: {ours}, the reference has NaN"),
    }
}

const MODELS: [&str; 2] = ["inference-free", "splade"];

/// From mteb's own run file to its result file: names, order, roundings, form.
#[test]
fn a_result_file_equals_the_one_mteb_wrote() {
    let data: Value = json("mteb/data.json");
    let qrels = judged(&serde_json::from_value(data["qrels"].clone()).unwrap());
    for model in MODELS {
        let run = mteb_run(&format!("mteb/predictions/{model}/LocalNorwegianRetrieval_predictions.json"));
        let scores = mteb_scores(&qrels, &run).unwrap();
        let folder = format!("mteb/cache/results/local__tiny-{model}/no_revision_available");
        let golden = fixture(&format!("{folder}/LocalNorwegianRetrieval.json"));
        let expected = TaskResult::read(&golden).unwrap();

        let mut ours = TaskResult::new("LocalNorwegianRetrieval", "0123456789abcdef0123456789abcdef01234567");
        ours.add("test", "default", vec!["nob-Latn".into()], scores);
        ours.evaluation_time = expected.evaluation_time;
        ours.date = expected.date;
        ours.evaluation_phases = expected.evaluation_phases;
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("ours.json");
        ours.write(&path).unwrap();
        let ours = std::fs::read_to_string(path).unwrap();
        let expected = std::fs::read_to_string(golden).unwrap().replace("NaN", "null");
        let as_value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(as_value(&ours), as_value(&expected));
        // Line by line too, down to the phases, whose keys have no order here.
        let lines = expected.lines().take_while(|line| !line.contains("evaluation_phases"));
        assert!(ours.lines().zip(lines).all(|(ours, expected)| ours == expected), "{ours}");
    }
}

fn mteb_run(path: &str) -> Run {
    let predictions: Value = json(path);
    let queries = predictions["default"]["test"].as_object().unwrap();
    let ranking = |hits: &Value| {
        let hits = hits.as_object().unwrap().iter();
        let hit = |(id, score): (&String, &Value)| Hit { id: id.clone(), score: score.as_f64().unwrap() as f32 };
        Ranking::from_hits(hits.map(hit).collect())
    };
    queries.iter().map(|(query, hits)| (query.clone(), ranking(hits))).collect()
}

#[test]
fn mtebs_own_cache_is_read() {
    for model in MODELS {
        let result = TaskResult::read(&fixture(&format!(
            "mteb/cache/results/local__tiny-{model}/no_revision_available/LocalNorwegianRetrieval.json"
        )))
        .unwrap();
        let entry = &result.scores["test"][0];
        assert_eq!((entry.scores.len(), entry.subset.as_str()), (148, "default"));
        assert_eq!(entry.main_score, entry.scores.get("ndcg_at_10").unwrap());
    }
}

#[derive(Deserialize)]
struct FusionData {
    dense: Vec<FusionList>,
    sparse: Vec<FusionList>,
}

#[derive(Deserialize)]
struct FusionList {
    positive: Vec<String>,
    documents: Vec<String>,
}

#[test]
fn fusion_scores_equal_sentence_transformers() {
    let data: FusionData = json("evaluators/rrf/data.json");
    let samples: Vec<FusionSample> = data
        .dense
        .into_iter()
        .zip(data.sparse)
        .map(|(dense, sparse)| FusionSample {
            positive: dense.positive,
            dense: dense.documents,
            sparse: sparse.documents,
        })
        .collect();
    let scores = fusion_scores(&samples).prefixed("toy");
    let expected: BTreeMap<String, f64> = json("evaluators/rrf/expected.json");
    assert_eq!(scores.len(), expected.len());
    for (metric, expected) in expected {
        assert_metric(&metric, scores.get(&metric), Some(expected), 1e-12);
    }
    let predictions = fixture("evaluators/rrf/st_output/ReciprocalRankFusion_evaluation_toy_predictions.jsonl");
    let rows: Vec<_> = read_rows(&predictions).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), samples.len());
    for (sample, row) in samples.iter().zip(rows) {
        let expected: Vec<String> = serde_json::from_value(row.value()["documents"].clone()).unwrap();
        assert_eq!(sample.fused(), expected, "{}", row.position());
    }
}
