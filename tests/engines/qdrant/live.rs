//! Qdrant's engine in the wheel `qdrant-edge-py`, behind `bridge.py`, which checks requests by the models of `qdrant-client`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};

use super::{FIELDS, assert_close, assert_fused, corpus};
use crate::util::{Place, Ran, finish, fixture, ours, setup, wait_until};

/// Documents of the collection.
const N: usize = 2000;

/// The bridge, an index and its collection.
struct Live {
    place: Place,
    bridge: Child,
    address: String,
}

impl Live {
    fn new() -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
        place.write("corpus.jsonl", corpus(0..N));
        place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", FIELDS]);
        let (bridge, address) = start(&place);
        Self { place, bridge, address }
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let name = if command == "search" { "--engine" } else { "--to" };
        let at = [name, "qdrant", "--url", &self.address, "--collection", "docs"];
        let index: &[&str] = if command == "search" { &["--index", "docs.index"] } else { &["docs.index"] };
        let args = [&[command], index, &at, more].concat();
        finish(self.place.command(&args).env("NO_PROXY", "127.0.0.1").spawn().unwrap())
    }

    fn push(&self, more: &[&str]) -> Json {
        serde_json::from_str(&self.run("push-index", &[&["--json"], more].concat()).done()).unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // the bridge ends with its stdin
        drop(self.bridge.stdin.take());
        let _ = self.bridge.wait();
    }
}

/// Starts the bridge with the collections of the folder `qdrant`.
fn start(place: &Place) -> (Child, String) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".engines/qdrant/venv/bin/python");
    let mut bridge = Command::new(folder)
        .args([ours("engines/qdrant/bridge.py"), place.path("qdrant")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run `make test-engines`, which sets the engine up");
    let mut address = String::new();
    BufReader::new(bridge.stdout.take().unwrap()).read_line(&mut address).unwrap();
    (bridge, address.trim().to_owned())
}

#[test]
#[ignore = "needs the engine: run it by `make test-engines`"]
fn scores_and_rankings_are_those_of_the_index() {
    let live = Live::new();
    let shown = live.push(&[]);
    println!("qdrant: {shown:#}");
    assert_eq!(shown["push"]["documents"], N);
    assert!(shown["verification"]["largest_relative_difference"].as_f64().unwrap() < 1e-5, "{shown}");
    assert_eq!(shown["verification"]["queries_in_another_order"], 0, "{shown}");
    let filters = [
        "*",
        "lang:nb AND year:[2020 TO 2400}",
        "NOT lang:nb AND new:true",
        "price:[10 TO 20.5]",
        "price:2.5",
        "on:[2005 TO 2010-02}",
        "id: IN [d1 d2 d3]",
        "NOT lang:*",
        "meta.pages:[3 TO 300]",
        "lang!=nn",
        "year=2001",
        "tags=7",
    ];
    for filter in filters {
        let args = ["--queries", "queries.jsonl", "-k", "2000", "--format", "trec", "--filter", filter];
        let local = live.place.ok(&[&["search", "--index", "docs.index"], &args[..]].concat());
        assert_close(&live.run("search", &args).done(), &local);
    }
}

#[test]
#[ignore = "needs the engine: run it by `make test-engines`"]
fn rankings_by_words_are_those_of_the_index() {
    let live = Live::new();
    live.place.write("corpus.jsonl", texts(N));
    let index = ["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--overwrite"];
    live.place.ok(&[&index[..], &["--language", "norwegian", "--fields", "lang:keyword"]].concat());
    let shown = live.push(&[]);
    println!("qdrant: {shown:#}");
    let bm25 = &shown["verification"]["bm25"];
    assert!(bm25["hits"].as_u64().unwrap() > 400, "{shown}");
    assert!(bm25["largest_relative_difference"].as_f64().unwrap() < 1e-5, "{shown}");
    assert_eq!(bm25["queries_in_another_order"], 0, "{shown}");
    live.place.write(
        "q.jsonl",
        "{\"_id\": \"a\", \"text\": \"oslo om vinteren\"}\n{\"_id\": \"b\", \"text\": \"o7 o70 o700\"}\n",
    );
    for filter in ["*", "lang:nb"] {
        let alike = ["--queries", "q.jsonl", "-k", "2000", "--filter", filter, "--format", "trec"];
        let by_words = [&alike[..], &["--mode", "bm25"]].concat();
        let words = live.run("search", &by_words).done();
        let local = [&["search", "--index", "docs.index"], &by_words[..], &["--bm25-compounds", "off"]].concat();
        assert_close(&words, &live.place.ok(&local));
        let hybrid = ["--queries", "q.jsonl", "-k", "100", "--filter", filter, "--format", "trec", "--mode", "hybrid"];
        assert_fused(&live.run("search", &hybrid).done(), [&live.run("search", &alike).done(), &words], 100);
    }
    // the idf is that of the documents of today
    live.place.write("corpus.jsonl", texts(N).lines().skip(300).map(|line| format!("{line}\n")).collect::<String>());
    live.place.ok(&[&index[..], &["--language", "norwegian", "--fields", "lang:keyword"]].concat());
    let shown = live.push(&["--sync"]);
    let difference = shown["verification"]["bm25"]["largest_relative_difference"].as_f64().unwrap();
    println!("qdrant: after 300 of {N} documents are deleted, scores of BM25 differ by up to {difference:.3}");
    assert!(difference < 0.2, "{shown}");
}

/// Documents of different lengths and many words, so that few scores are equal.
fn texts(n: usize) -> String {
    let lines = (0..n).map(|id| {
        let words = (0..5 + id * 13 % 97).map(|at| format!("o{}", (id * 31 + at * at * 7) % (10 + id % 900)));
        let text = words.collect::<Vec<_>>().join(" ");
        let (rest, lang) = (["Oslo", "vinteren", "fjorden", "Oslo om vinteren"][id % 4], ["nb", "nn"][id % 2]);
        format!("{}\n", json!({"_id": format!("d{id}"), "text": format!("{rest} {text}"), "lang": lang}))
    });
    lines.collect()
}

#[test]
#[ignore = "needs the engine: run it by `make test-engines`"]
fn a_push_is_completed_after_both_sides_were_killed() {
    let mut live = Live::new();
    let small = ["--batch-bytes", "20kB", "--concurrency", "2"];
    let at = ["push-index", "docs.index", "--to", "qdrant", "--url", &live.address, "--collection", "docs"];
    let mut push = live.place.command(&[&at[..], &small].concat()).env("NO_PROXY", "127.0.0.1").spawn().unwrap();
    let started = std::time::Instant::now();
    wait_until("a part has arrived", || started.elapsed().as_millis() > 400);
    push.kill().unwrap();
    push.wait().unwrap();
    live.bridge.kill().unwrap();
    live.bridge.wait().unwrap();
    (live.bridge, live.address) = start(&live.place);
    let shown = live.push(&small);
    let count = |name: &str| shown["push"][name].as_u64().unwrap();
    assert_eq!((count("documents"), count("sent") + count("unchanged")), (N as u64, N as u64));
    // some documents go, others change
    live.place.write("corpus.jsonl", corpus(500..N + 500).replace("nordlyset", "hovedstaden"));
    let index =
        ["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", FIELDS, "--overwrite"];
    live.place.ok(&index);
    let shown = live.push(&["--sync"]);
    assert_eq!((&shown["push"]["documents"], &shown["push"]["deleted"]), (&json!(N), &json!(500)), "{shown}");
    assert_eq!(shown["verification"]["queries_in_another_order"], 0, "{shown}");
}
