//! Qdrant, by a stub that checks every request.

use serde_json::{Value as Json, json};

use crate::util::qdrant::{Qdrant, REFUSED_TEXT};
use crate::util::{Place, Ran, finish, fixture, ours, setup};

/// A folder with a tiny model, its index over a corpus with fields, queries, and a Qdrant.
struct Case {
    place: Place,
    qdrant: Qdrant,
}

impl Case {
    fn new() -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
        place.write("corpus.jsonl", corpus(0..60));
        place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", FIELDS]);
        Self { place, qdrant: Qdrant::start() }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.place.command(args);
        for name in ["http_proxy", "all_proxy", "https_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        finish(command.spawn().unwrap())
    }

    fn push(&self, more: &[&str]) -> Ran {
        let at = ["--to", "qdrant", "--url", self.qdrant.address(), "--collection", "docs"];
        self.run(&[&["push-index", "docs.index"], &at[..], more].concat())
    }

    fn search(&self, more: &[&str]) -> Ran {
        let at = ["--engine", "qdrant", "--url", self.qdrant.address(), "--collection", "docs"];
        self.run(&[&["search", "--index", "docs.index"], &at[..], more].concat())
    }

    fn local(&self, more: &[&str]) -> String {
        self.place.ok(&[&["search", "--index", "docs.index"], more].concat())
    }
}

const FIELDS: &str = "lang:keyword,year:int,price:float,on:date,new:bool,meta.pages:int";

/// Documents with fields of every type, some without, one without a word of the vocabulary.
fn corpus(ids: std::ops::Range<usize>) -> String {
    let words = ["nordlyset", "vinteren", "oslo", "fjorden", "hovedstaden", "norge", "snø", "regn", "blåbær", "skogen"];
    let lines = ids.map(|id| {
        let text: Vec<&str> = (0..4 + id % 5).map(|at| words[(id * 7 + at * 3) % words.len()]).collect();
        let lang = ["nb", "nn", "se"][id % 3];
        let year = if id % 2 == 0 { json!(2000 + id) } else { json!((2000 + id).to_string()) };
        let mut document = json!({
            "_id": format!("d{id}"), "title": format!("Tittel {id} “é\"\u{1f600}"), "text": text.join(" "),
            "lang": lang, "year": year,
            "price": id as f64 / 4.0, "on": format!("20{:02}-02", id % 30), "new": id % 4 == 0,
            "meta": {"pages": id}, "tags": ["a", id.to_string()],
        });
        if id % 10 == 9 {
            document.as_object_mut().unwrap().retain(|name, _| name == "_id" || name == "text");
        }
        format!("{document}\n")
    });
    lines.collect()
}

/// Hits of a TREC run: query, id and score.
fn hits(run: &str) -> Vec<(String, String, f32)> {
    let lines = run.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.map(|part| (part[0].to_owned(), part[2].to_owned(), part[4].parse().unwrap())).collect()
}

/// Checks that two runs have the same documents and scores; ranks of equal scores may differ.
fn assert_close(engine: &str, local: &str) {
    let (engine, local) = (hits(engine), hits(local));
    assert!(!local.is_empty() && engine.len() == local.len(), "{engine:?}\n{local:?}");
    for (one, other) in engine.iter().zip(&local) {
        assert!(one.0 == other.0 && (one.2 - other.2).abs() <= 1e-5 * other.2.max(1.0), "{one:?} {other:?}");
    }
    let ids = |hits: &[(String, String, f32)]| {
        hits.iter().map(|hit| (hit.0.clone(), hit.1.clone())).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&engine), ids(&local));
}

#[test]
fn a_collection_answers_as_its_index() {
    let case = Case::new();
    let shown = case.push(&[]).done();
    assert!(shown.contains("60 documents; 60 sent"), "{shown}");
    let all = ["--queries", "queries.jsonl", "-k", "100", "--format", "trec"];
    assert_close(&case.search(&all).done(), &case.local(&all));
    let one = ["oslo om vinteren", "-k", "3", "--json"];
    let [engine, local]: [Json; 2] =
        [case.search(&one).done(), case.local(&one)].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!(engine["hits"][0]["title"], local["hits"][0]["title"]);
    assert_eq!(engine["hits"][0]["tags"], local["hits"][0]["tags"]);
    assert!(engine["hits"][0].get("_splade_digest").is_none());
    let table = case.search(&["oslo om vinteren", "-k", "3"]).done();
    assert_eq!(table.lines().count(), 3, "{table}");
    let fields = case.qdrant.fields("docs");
    assert_eq!((fields["year"].as_str(), fields["on"].as_str(), fields.len()), ("integer", "datetime", 6));
    let payload = &case.qdrant.payloads("docs")["d1"];
    assert_eq!((&payload["year"], &payload["on"]), (&json!(2001), &json!("2001-02-01T00:00:00Z")));
}

#[test]
fn a_document_that_is_refused_is_named_and_all_others_arrive() {
    let case = Case::new();
    let bad = json!({"_id": "bad", "text": REFUSED_TEXT}).to_string();
    case.place.write("corpus.jsonl", corpus(0..30) + &bad + "\n" + &corpus(30..60));
    case.place.ok(&[
        "index",
        "model",
        "--input",
        "corpus.jsonl",
        "--index",
        "docs.index",
        "--fields",
        FIELDS,
        "--overwrite",
    ]);
    case.push(&[]).fails(1, "document bad was refused: ", "all other documents are in the collection");
    let payloads = case.qdrant.payloads("docs");
    assert!(payloads.len() == 60 && !payloads.contains_key("bad"));
}
