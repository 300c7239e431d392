//! Tasks of `eval-mteb` by name: small data sets with the schemas of the real ones, on a Hub on this machine.
#![cfg(feature = "train")]

mod util;

use std::process::Command;

use serde_json::Value;
use util::data_sets::{Column, parquet};
use util::hub::{COMMIT, Files, Hub};
use util::{Place, Ran, finish, fixture, ours, setup};

/// A folder with a model, and a Hub.
struct Test {
    place: Place,
    hub: Hub,
}

impl Test {
    fn new() -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&ours("data/toy"), "toy");
        Self { place, hub: Hub::start() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&[&["eval-mteb", "model", "--modes", "bm25"], args].concat());
        self.hub.direct(&mut command, &self.place.path("home"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    /// Adds a data set at the commit that mteb uses for this task.
    fn add(&self, dataset: &str, commit: &str, files: Files) {
        self.hub.commit(&format!("datasets/{dataset}"), commit, files, &["main"]);
    }

    /// Evaluates with BM25 and returns the result file of a task.
    fn result(&self, output: &str, args: &[&str], task: &str) -> Value {
        self.run(&[args, &["--output-dir", output]].concat()).done();
        let folder = format!("{output}/results/local__model/no_revision_available/experiments");
        let experiment = &util::names(&self.place.path(&folder))[0];
        serde_json::from_str(&self.place.read(&format!("{folder}/{experiment}/{task}.json"))).unwrap()
    }
}

fn texts(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

const ANIMALS: [&str; 4] = ["torsk", "laks", "elg", "rev"];

/// Documents `d0` … `d3`, each about one animal.
fn corpus(id: &'static str) -> Vec<u8> {
    parquet(&[
        Column::Text(id, texts(&["d0", "d1", "d2", "d3"])),
        Column::Text("title", texts(&["", "", "", ""])),
        Column::Text("text", texts(&ANIMALS)),
    ])
}

/// Queries `q0` and `q1`, the animals of `d0` and `d1`.
fn queries(id: &'static str) -> Vec<u8> {
    parquet(&[Column::Text(id, texts(&["q0", "q1"])), Column::Text("text", texts(&ANIMALS[..2]))])
}

/// `q0` → `d0`, which is found, and `q1` → `other`.
fn qrels(score: &'static str, other: &str) -> Vec<u8> {
    parquet(&[
        Column::Text("query-id", texts(&["q0", "q1"])),
        Column::Text("corpus-id", texts(&["d0", other])),
        Column::Number(score, vec![1, 1]),
    ])
}

fn scores<'a>(result: &'a Value, split: &str) -> Vec<(&'a str, f64)> {
    let entries = result["scores"][split].as_array().unwrap();
    entries.iter().map(|entry| (entry["hf_subset"].as_str().unwrap(), entry["recall_at_1"].as_f64().unwrap())).collect()
}

#[test]
fn a_task_is_downloaded_at_its_commit() {
    let test = Test::new();
    let commit = "208cb812631068a4bd8b93c8b9291370b47f282c";
    let front = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test-*\n\
                 - config_name: corpus\n  data_files:\n  - split: corpus\n    path: corpus/c-*\n\
                 - config_name: queries\n  data_files:\n  - split: test\n    path: queries/test-*\n---\n";
    let second = parquet(&[
        Column::Text("_id", texts(&["d4"])),
        Column::Text("title", texts(&["Fjell"])),
        Column::Text("text", texts(&["torsk"])),
    ]);
    test.add(
        "mteb/SweFaqRetrieval",
        commit,
        files([
            ("README.md", front.as_bytes().to_vec()),
            ("corpus/c-00000-of-00002.parquet", corpus("_id")),
            ("corpus/c-00001-of-00002.parquet", second),
            ("queries/test-00000-of-00001.parquet", queries("_id")),
            ("data/test-00000-of-00001.parquet", qrels("score", "d4")),
        ]),
    );
    let result = test.result("out", &["--tasks", "swefaqretrieval"], "SweFaqRetrieval");
    // both shards are read: q1 → d4 is in the second, and not found at rank 1
    assert_eq!(scores(&result, "test"), [("default", 0.5)]);
    assert_eq!(result["dataset_revision"], commit);
    assert_eq!(result["scores"]["test"][0]["languages"][0], "swe-Latn");
    assert!(test.hub.requests().iter().any(|request| request.contains(&format!("/resolve/{commit}/corpus/"))));

    // the commit is in the cache, and needs no request
    let again = test.result("again", &["--tasks", "SweFaqRetrieval"], "SweFaqRetrieval");
    assert_eq!(again["scores"], result["scores"]);
    assert_eq!(test.hub.requests(), [] as [String; 0]);

    // the folder of the cache, named
    let cached = test.place.path("home/hub/datasets--mteb--SweFaqRetrieval");
    for folder in [cached.clone(), cached.join("snapshots").join(commit)] {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let result = test.result(name, &["--data", folder.to_str().unwrap()], "SweFaqRetrieval");
        assert_eq!((&result["scores"], &result["dataset_revision"]), (&again["scores"], &again["dataset_revision"]));
    }
    // a snapshot by Python has no list of its files
    std::fs::remove_dir_all(cached.join(".splade-files")).unwrap();
    let mut offline = test.command(&["--tasks", "SweFaqRetrieval", "--output-dir", "offline", "--offline"]);
    finish(offline.spawn().unwrap()).done();
}

#[test]
fn subsets_have_configurations_of_their_own() {
    let test = Test::new();
    let commit = "f64f483ad0f31d2e78209d524c14a4a867965959";
    let mut all = Files::new();
    for (subset, other) in [("nor", "d1"), ("dan", "d2"), ("swe", "d3"), ("deu", "d1")] {
        all.insert(format!("{subset}-corpus/test-00000-of-00001.parquet"), corpus("id"));
        all.insert(format!("{subset}-queries/test-00000-of-00001.parquet"), queries("id"));
        all.insert(format!("{subset}-qrels/test-00000-of-00001.parquet"), qrels("score", other));
    }
    test.add("mteb/WebFAQRetrieval", commit, all);
    let result = test.result("out", &["--tasks", "WebFAQRetrieval"], "WebFAQRetrieval");
    assert_eq!(scores(&result, "test"), [("dan", 0.5), ("nor", 1.0), ("swe", 0.5)]);
    assert!(
        !test.hub.requests().iter().any(|request| request.contains("deu-corpus")),
        "a subset of no Nordic language"
    );

    test.add(
        "mteb/MKQARetrieval",
        "3e069e7a30079d214a859741f5a0de75cf878867",
        files([("da-corpus/train.jsonl", b"{}".to_vec())]),
    );
    test.run(&["--tasks", "MKQARetrieval"]).fails(
        2,
        "MKQARetrieval: mteb/MKQARetrieval: no configuration da-queries",
        "it has da-corpus",
    );
}

#[test]
fn identical_ids_are_left_out_where_mteb_does() {
    let test = Test::new();
    let folder = |name: &str| {
        for (part, bytes) in [
            ("corpus", corpus("_id")),
            ("queries", parquet(&[Column::Text("_id", texts(&["d0"])), Column::Text("text", texts(&["torsk"]))])),
        ] {
            test.place.write(&format!("{name}/{part}/test.parquet"), bytes);
        }
        let judged = [
            Column::Text("query-id", texts(&["d0"])),
            Column::List("corpus-id", vec![vec!["d0".into(), "d1".into()]]),
            Column::Number("relevance", vec![1]),
        ];
        test.place.write(&format!("{name}/qrels/test.parquet"), parquet(&judged));
    };
    folder("arguana");
    folder("other");
    let recall = |output: &str, args: &[&str], task: &str| scores(&test.result(output, args, task), "test")[0].1;
    assert_eq!(recall("a", &["--data", "arguana"], "arguana"), 0.0);
    assert_eq!(recall("b", &["--data", "other"], "other"), 0.5);
    assert_eq!(recall("c", &["--data", "other", "--ignore-identical-ids"], "other"), 0.0);
    assert_eq!(recall("d", &["--data", "arguana", "--ignore-identical-ids=false"], "arguana"), 0.5);
}

/// The schemas of the data sets that mteb does not read as a corpus and queries.
#[test]
fn tasks_are_built_from_columns() {
    let test = Test::new();
    let many = |prefix: &str, n: usize| (0..n).map(|row| Some(format!("{prefix} {row}"))).collect::<Vec<_>>();
    let articles = parquet(&[Column::Text("headline", many("ord", 5)), Column::Text("article", many("ord", 5))]);
    test.add(
        "adrlau/navjordj-SNL_summarization_copy",
        "22c474c88fb4678052f9099bb917ad8f9e155f9f",
        files([("data/test-00000-of-00001.parquet", articles)]),
    );
    let news = parquet(&[Column::Text("summary", many("nyt", 5)), Column::Text("text", many("nyt", 5))]);
    test.add(
        "alexandrainst/nordjylland-news-summarization",
        "80cdb115ec2ef46d4e926b252f2b59af62d6c070",
        files([("data/test-00000-of-00001.parquet", news)]),
    );
    let questions = parquet(&[
        Column::Text("question", texts(&["torsk", "laks"])),
        Column::Text("context", texts(&["torsk i havet", "laks i elva"])),
        Column::Record("answers", "text", vec![vec!["torsk".into()], vec!["elva".into(), "laks".into()]]),
    ]);
    test.add(
        "mteb/norquad_retrieval",
        "9dcfcdb2aa578dd178330d49bf564248935f7fbe",
        files([("data/test-00000-of-00001.parquet", questions)]),
    );
    let claims = parquet(&[
        Column::Text("claim", texts(&["torsk lever", "laks lever", "elg lever"])),
        Column::Text("evidence_extract", texts(&["torsk lever i havet", "laks lever ikke", "elg lever i skogen"])),
        Column::Number("label", vec![1, 0, 1]),
    ]);
    test.add(
        "strombergnlp/danfever",
        "3b17b754ed5bf356582b93ec11d1c72469f7bb9c",
        files([("data/train-00000-of-00001.parquet", claims)]),
    );
    let result = |task: &str| test.result(task, &["--tasks", task], task);
    assert_eq!(scores(&result("SNLRetrieval"), "test"), [("default", 1.0)]);
    assert_eq!(scores(&result("TV2Nordretrieval"), "test"), [("default", 1.0)]);
    // one of two relevant documents is at rank 1 for both questions
    assert_eq!(scores(&result("NorQuadRetrieval"), "test"), [("default", 0.5)]);
    // the refuted claim counts as 0
    assert_eq!(scores(&result("DanFeverRetrieval"), "train"), [("default", 0.66667)]);

    // the group has these four; the first task that is missing on this Hub is named
    let group = test.run(&["--tasks", "MTEB(Scandinavian)", "--output-dir", "group"]);
    group.fails(2, "SwednRetrieval: mteb/SwednRetrieval: no such data set on the Hub", "spelling");
}

#[test]
fn nanobeir_is_thirteen_splits_of_one_data_set() {
    let test = Test::new();
    let mut all = Files::new();
    for (_, set) in splade_eval::NANO_BEIR {
        let path = |part: &str| format!("{part}/{set}-00000-of-00001.parquet");
        let with_empty = parquet(&[
            Column::Text("_id", texts(&["d0", "d1", "d9"])),
            Column::Text("text", texts(&["torsk", "laks", ""])),
        ]);
        all.insert(path("corpus"), with_empty);
        all.insert(path("queries"), queries("_id"));
        let judged = [Column::Text("query-id", texts(&["q0", "q1"])), Column::Text("corpus-id", texts(&["d0", "d1"]))];
        all.insert(path("qrels"), parquet(&judged));
    }
    for name in ["sentence-transformers/NanoBEIR-en", "acme/NanoBEIR-no"] {
        test.hub.add(&format!("datasets/{name}"), all.clone());
    }
    let args = ["--tasks", "NanoBEIR", "NanoMSMARCO"];
    let result = test.result("out", &args, "NanoTouche2020");
    assert_eq!(
        (scores(&result, "NanoTouche2020"), &result["dataset_revision"]),
        (vec![("default", 1.0)], &COMMIT.into())
    );
    let other = test.result("no", &["--tasks", "NanoNQ", "--nanobeir-dataset", "acme/NanoBEIR-no"], "NanoNQ");
    assert_eq!(scores(&other, "NanoNQ"), [("default", 1.0)]);
    // as a folder: every split is a set
    for (name, bytes) in all {
        test.place.write(&format!("nano/{name}"), bytes);
    }
    let ran = test.run(&["--data", "nano", "--output-dir", "folder"]).done();
    assert_eq!(ran.lines().filter(|line| line.starts_with("Nano")).count(), 13, "{ran}");
    let one = test.result("one", &["--tasks", "NanoSciFact", "--nanobeir-dataset", "nano"], "NanoSciFact");
    assert_eq!(scores(&one, "NanoSciFact"), [("default", 1.0)]);
}

#[test]
fn known_tasks_are_listed() {
    let place = setup();
    let all = place.ok(&["eval-mteb", "--list"]);
    assert_eq!(all.lines().count(), 39, "{all}");
    let norwegian = place.json(&["eval-mteb", "--list", "--language", "nb", "--json"]);
    let names: Vec<&str> =
        norwegian["tasks"].as_array().unwrap().iter().map(|task| task["task"].as_str().unwrap()).collect();
    assert!(names.contains(&"NorQuadRetrieval") && names.contains(&"MultilingualNanoNQRetrieval"), "{names:?}");
    assert!(!names.contains(&"SweFaqRetrieval") && !names.contains(&"NanoNQRetrieval"), "{names:?}");
    assert_eq!(norwegian["tasks"][0]["groups"], serde_json::json!(["Nordic"]));
    place.run(&["eval-mteb", "--list", "--language", "tlh"]).fails(2, "no known task is in the language tlh", "da, sv");
    place.run(&["eval-mteb", "--data", "toy"]).fails(2, "MODEL", "--help");
}

#[test]
fn what_is_no_task_is_refused() {
    let test = Test::new();
    test.run(&[]).fails(2, "no task to evaluate on", "--data");
    test.run(&["--tasks", "frob", "--data", "toy"]).fails(2, "no data folder holds the task frob", "found: toy; ");
    test.run(&["--tasks", "frob"]).fails(2, "it is no known task or group", "groups: NanoBEIR, MTEB(Scandinavian)");
    test.run(&["--tasks", "NorQuadRetrieval", "--offline"]).fails(2, "NorQuadRetrieval: ", "without --offline");
    // a folder that is merely named like a task
    test.place.copy(&ours("data/toy"), "NorQuadRetrieval");
    let ran = test.run(&["--data", "NorQuadRetrieval"]);
    assert!(ran.stderr.contains("need not hold the data of mteb's task"), "{}", ran.stderr);
    ran.done();
    assert!(!test.place.path("home").exists(), "nothing is downloaded");
}
