//! Milvus Lite, behind a bridge that serves Milvus's REST interface.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};

use crate::live::{FIELDS, QUERY, Weights, assert_exact, assert_filters, corpus, exact, lines_of, scored, vectors};
use crate::util::{Place, Ran, finish, fixture, ours, setup};

/// A folder with a model, and a bridge that is stopped at the end.
struct Live {
    place: Place,
    bridge: Child,
    address: String,
}

impl Drop for Live {
    fn drop(&mut self) {
        // the end of its input stops the bridge
        drop(self.bridge.stdin.take());
        let _ = self.bridge.wait();
    }
}

fn python() -> PathBuf {
    ours("../.engines/milvus/venv/bin/python")
}

impl Live {
    fn start() -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.write("milvus/empty", "");
        let mut bridge = Command::new(python())
            .arg(ours("engines/milvus/bridge.py"))
            .arg(place.path("milvus"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test-engines` makes .engines/milvus/venv");
        let mut port = String::new();
        BufReader::new(bridge.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("the bridge prints its port");
        Self { place, bridge, address: format!("http://127.0.0.1:{port}") }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.place.command(args);
        for name in ["http_proxy", "all_proxy", "https_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        finish(command.spawn().unwrap())
    }

    /// Sends a request to the bridge, which must succeed.
    fn post(&self, path: &str, body: &Json) {
        let (address, body) = (self.address.strip_prefix("http://").unwrap(), body.to_string());
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("POST /v2/vectordb/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"code\": 0"), "{answer}");
    }

    fn push(&self, source: &str, more: &[&str]) -> (Json, String) {
        let at = ["push-index", source, "--model", "model", "--to", "milvus", "--url", &self.address];
        let ran = self.run(&[&at[..], &["--collection", "docs", "--json"], more].concat());
        let stderr = ran.stderr.clone();
        let mut summary: Json = serde_json::from_str(&ran.done()).unwrap();
        (summary["push"].take(), stderr)
    }

    fn search(&self, more: &[&str]) -> Ran {
        let at = ["search", "--model", "model", "--engine", "milvus", "--url", &self.address, "--collection", "docs"];
        self.run(&[&at[..], more].concat())
    }

    fn hits(&self, more: &[&str]) -> Vec<(String, f32)> {
        let answer: Json = serde_json::from_str(&self.search(&[more, &["--json"]].concat()).done()).unwrap();
        scored(&answer)
    }

    /// Weights of [`QUERY`], which the request of a search has.
    fn query(&self) -> Weights {
        let shown = self.search(&[QUERY, "--show-query"]).done();
        let body: Json = serde_json::from_str(shown.split_once('\n').unwrap().1).unwrap();
        let weights = body["data"][0].as_object().unwrap().iter();
        weights.map(|(dim, weight)| (dim.parse().unwrap(), weight.as_f64().unwrap() as f32)).collect()
    }
}

#[test]
#[ignore = "needs Milvus Lite: make test-engines"]
fn scores_are_exact_and_what_milvus_refuses_is_counted() {
    let live = Live::start();
    let mut documents = vectors(300, 4, -0.05);
    live.place.write("v.jsonl", lines_of(&documents));
    let (summary, stderr) = live.push("v.jsonl", &["--batch-bytes", "20KB"]);
    let negative: usize = documents.values().flatten().filter(|(_, weight)| **weight < 0.0).count();
    let empty = documents.values().filter(|weights| weights.values().all(|weight| *weight < 0.0)).count();
    assert!(negative > 10 && empty >= 5, "{negative} {empty}");
    let changes = &summary["changes"];
    assert_eq!(changes["negative_weights_dropped"].as_u64(), Some(negative as u64), "{summary}");
    assert_eq!(changes["empty_vectors"].as_u64(), Some(empty as u64), "{summary}");
    assert_eq!(summary["documents"].as_u64(), Some((300 - empty) as u64), "{summary}");
    assert!(stderr.contains(&negative.to_string()), "{stderr}");
    documents.values_mut().for_each(|weights| weights.retain(|_, weight| *weight >= 0.0));
    documents.retain(|_, weights| !weights.is_empty());
    let query = live.query();
    let hits = live.hits(&[QUERY, "-k", "300"]);
    let largest = assert_exact(&hits, &exact(&query, &documents));
    println!("milvus: largest difference {largest:e} for a unit of score, {} hits", hits.len());
    println!("milvus: {} documents a second", summary["documents_per_second"]);
    let (summary, _) = live.push("v.jsonl", &[]);
    assert_eq!(summary["sent"].as_u64(), Some(0), "{summary}");
    documents.remove("it's");
    documents.get_mut("line\nbreak").unwrap().insert(*query.keys().next().unwrap(), 9.0);
    live.place.write("v.jsonl", lines_of(&documents));
    let (summary, _) = live.push("v.jsonl", &["--sync"]);
    let counts = ["sent", "deleted", "documents"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts[1..], [1, documents.len() as u64], "{summary}");
    assert_exact(&live.hits(&[QUERY, "-k", "300"]), &exact(&query, &documents));
}

/// Milvus keeps the manifest by a second request, which a push may not live to send.
#[test]
#[ignore = "needs Milvus Lite: make test-engines"]
fn a_collection_without_its_manifest_is_made_again_if_it_is_empty() {
    let live = Live::start();
    let documents = vectors(20, 4, 0.05);
    live.place.write("v.jsonl", lines_of(&documents));
    let field = |name: &str, kind: &str, more: Json| json!({"fieldName": name, "dataType": kind, "isPrimary": name == "id", "elementTypeParams": more});
    let text = json!({"max_length": 64});
    let create = |name: &str, last: &str| {
        let fields = [
            field("id", "VarChar", text.clone()),
            field("splade", "SparseFloatVector", json!({})),
            field("digest", "VarChar", text.clone()),
            field(last, "JSON", json!({})),
        ];
        let index = json!({
            "fieldName": "splade", "indexName": "splade", "metricType": "IP", "params": {"index_type": "SPARSE_INVERTED_INDEX"},
        });
        let schema = json!({"autoID": false, "enableDynamicField": false, "fields": fields});
        live.post("collections/create", &json!({"collectionName": name, "schema": schema, "indexParams": [index]}));
    };
    create("docs", "document");
    let (summary, _) = live.push("v.jsonl", &[]);
    assert!(summary["documents"] == summary["sent"] && summary["sent"].as_u64().unwrap() > 10, "{summary}");
    // one of other fields is not ours
    create("other", "payload");
    let at = ["push-index", "v.jsonl", "--model", "model", "--to", "milvus", "--url", &live.address];
    live.run(&[&at[..], &["--collection", "other"]].concat()).fails(2, "this program did not make it", "remove it");
}

#[test]
#[ignore = "needs Milvus Lite: make test-engines"]
fn filters_and_fields_are_those_of_the_index() {
    let live = Live::start();
    live.place.write("corpus.jsonl", corpus());
    live.place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", FIELDS]);
    live.push("docs.index", &[]);
    let filters = [
        "lang:nb",
        "NOT lang:nb",
        "lang: IN [nb nn] AND meta.pages:[10 TO 30}",
        "year:1990",
        "price:<1.5 OR meta.pages:>=50",
        "on:[2005 TO 2010]",
        "on:2005-02",
        "new:true",
        "NOT new:true",
        "price:*",
        "NOT price:*",
        "lang=nb",
        "lang!=nb",
        "tags=7",
        "a.b.c=3",
        "year=2004",
        "new=true",
        "lang:>nb",
    ];
    let found = assert_filters(&live.place, &filters, |more| live.hits(more));
    assert!(found > 150, "{found}");
    let first = |answer: &str| serde_json::from_str::<Json>(answer).unwrap()["hits"][0].clone();
    let here = first(&live.place.ok(&["search", "--index", "docs.index", "--json", QUERY]));
    let there = first(&live.search(&[QUERY, "--json"]).done());
    assert_eq!(["_id", "title", "text"].map(|key| &here[key]), ["_id", "title", "text"].map(|key| &there[key]));
    live.search(&[QUERY, "--filter", "text:\"oslo fjorden\""]).fails(
        2,
        "words and phrases cannot be filtered",
        "leave that part",
    );
    live.search(&[QUERY, "--filter", "year:[2010 TO 2030]"]).fails(
        2,
        "documents have lists in \"year\"",
        "single values",
    );
    live.search(&[QUERY, "--mode", "hybrid"]).fails(2, "has no ranking by words", "choose --mode sparse");
    live.search(&[QUERY, "-k", "20000"]).fails(2, "at most 16384 hits", "-k 16384");
}
