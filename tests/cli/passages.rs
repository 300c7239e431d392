//! `splade index --passages`: nothing of a long text is lost.

use serde_json::Value;

use super::*;

/// Sentences of a long text. Only the last one has the word of the test's query.
fn long_text() -> String {
    let sentence = "Blåbær vokser i skogen, og torsken svømmer i fjorden. ";
    format!("{}Nordlyset lyser over Tromsø.", sentence.repeat(40))
}

fn place_with_long_texts() -> Place {
    let place = place();
    let line = |id: &str, text: &str| format!("{}\n", serde_json::json!({"_id": id, "title": "Langt", "text": text}));
    let short = line("short", "Blåbær vokser i skogen.");
    place.write("corpus.jsonl", line("long", &long_text()) + &short + &line("other", &"torsk og sei. ".repeat(60)));
    place
}

const SHORT: [&str; 2] = ["--max-length", "32"];

fn summary(place: &Place, more: &[&str]) -> Value {
    place.json(&with(&with(&INDEX, &["--json", "--overwrite"]), &with(&SHORT, more)))
}

fn found(place: &Place, query: &str, mode: &str) -> Vec<Value> {
    let answer = place.json(&["search", "--index", "toy.index", query, "--mode", mode, "--json"]);
    answer["hits"].as_array().unwrap().clone()
}

#[test]
fn truncated_texts_are_counted_and_passages_truncate_none() {
    let place = place_with_long_texts();
    assert_eq!(summary(&place, &[])["truncated"], 2);
    assert!(place.ok(&with(&with(&INDEX, &["--overwrite"]), &SHORT)).contains("; 2 texts truncated"));
    let split = summary(&place, &["--passages", "32/8"]);
    assert_eq!((&split["truncated"], &split["documents"]), (&Value::from(0), &Value::from(3)));
    assert!(split["passages"].as_u64().unwrap() > 20, "{split}");
}

#[test]
fn a_hit_is_a_document_with_its_best_passage() {
    let place = place_with_long_texts();
    summary(&place, &["--passages", "32/8"]);
    for mode in ["sparse", "hybrid"] {
        let hits = found(&place, "blåbær torsk nordlyset", mode);
        let mut ids: Vec<&str> = hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), hits.len(), "{mode}: documents are distinct");
        let long = hits.iter().find(|hit| hit["_id"] == "long").unwrap();
        let whole: Vec<char> = format!("Langt {}", long_text()).chars().collect();
        let passage = &long["passage"];
        let at = |key: &str| passage[key].as_u64().unwrap() as usize;
        assert_eq!(passage["text"], whole[at("start")..at("end")].iter().collect::<String>());
        assert!(at("number") >= 1 && at("number") <= at("count") && at("count") > 10);
        assert_eq!(long["text"], long_text());
    }
    assert!(found(&place, "nordlyset", "bm25").iter().all(|hit| hit.get("passage").is_none()));
    assert_eq!(found(&place, "nordlyset", "bm25")[0]["_id"], "long");
}

#[test]
fn passages_are_deleted_and_replaced_with_their_document_and_kept_by_append() {
    let place = place_with_long_texts();
    let before = summary(&place, &["--passages", "32"]);
    place.write("more.jsonl", "{\"_id\": \"long\", \"text\": \"Nå er den kort.\"}\n");
    place.write("gone.txt", "other\n");
    let append =
        ["index", "model", "--index", "toy.index", "--append", "--input", "more.jsonl", "--delete", "gone.txt"];
    let after = place.json(&with(&with(&append, &["--json"]), &SHORT));
    assert_eq!((&after["documents"], &after["passages"]), (&Value::from(2), &Value::from(2)), "{before}");
    assert!(place.ok(&["index", "--check", "toy.index"]).contains("sound"));
    let append = &append[..7];
    place.run(&with(append, &["--passages", "16"])).fails(
        2,
        "made with the passages 32, not 16",
        "leave --passages out",
    );
    place.ok(&with(&with(append, &["--passages", "32"]), &SHORT));
    place.run(&with(&INDEX, &["--overwrite", "--passages", "9999"])).fails(2, "longer than the", "use at most");
    place.run(&with(&INDEX, &["--overwrite", "--passages", "8/8"])).fails(
        2,
        "with an overlap below it, like 256/32",
        "--help",
    );
    let vectors = ["--overwrite", "--passages", "32", "--vectors", "v.jsonl"];
    place.run(&with(&INDEX, &vectors)).fails(2, "cannot be used with", "--help");
}

#[test]
fn every_passage_is_analysed_and_pruned() {
    let place = place_with_long_texts();
    summary(&place, &["--passages", "32/8"]);
    let inspected = place.json(&["inspect", "toy.index", "--analyze-sparsity", "--json"]);
    let passages = &inspected["stats"]["passages"];
    assert!(passages.as_u64().unwrap() > 20, "{inspected}");
    assert_eq!(inspected["sparsity"]["count"], *passages);
    assert!(place.ok(&["inspect", "toy.index"]).contains("of at most 32 tokens, of which 8 overlap"));
    place.write("q.jsonl", "{\"_id\": \"q\", \"text\": \"blåbær torsk nordlyset\"}\n");
    let tuned = place.json(&["tune", "--index", "toy.index", "--queries", "q.jsonl", "--json"]);
    let unpruned = &tuned["settings"][0];
    assert_eq!(unpruned["active_dims_mean"], inspected["stats"]["active_dims_mean"]);
    assert_eq!(unpruned["recall_at_10_vs_unpruned"], 1.0);
}
