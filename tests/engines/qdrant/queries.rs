//! Many queries: several at a time, in their order, and from files of vectors.

use std::time::{Duration, Instant};

use super::{Case, assert_close};
use crate::util::loopback::Fault;

/// Path of a search.
const SEARCH: &str = "points/query";

fn queries(n: usize) -> String {
    let texts = ["oslo", "vinteren", "snø og regn", "skogen om vinteren"];
    (0..n).map(|id| format!("{{\"_id\": \"q{id}\", \"text\": \"{}\"}}\n", texts[id % texts.len()])).collect()
}

#[test]
fn several_searches_are_under_way_and_answers_are_in_order() {
    let case = Case::new();
    case.push(&[]).done();
    case.place.write("q.jsonl", queries(24));
    let all = ["--queries", "q.jsonl", "-k", "100", "--format", "trec"];
    let one_by_one = case.search(&[&all[..], &["--concurrency", "1"]].concat()).done();
    assert_close(&one_by_one, &case.local(&all));
    for n in 0..24 {
        // later answers are there before earlier ones
        case.qdrant.http.fault(SEARCH, Fault::Slow(Duration::from_millis(if n % 3 == 0 { 300 } else { 100 })));
    }
    let start = Instant::now();
    assert_eq!(case.search(&[&all[..], &["--concurrency", "8"]].concat()).done(), one_by_one);
    // one by one, the pauses alone take 4 seconds
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn an_error_names_its_query_and_answers_before_it_are_written() {
    let case = Case::new();
    case.push(&[]).done();
    case.place.write("q.jsonl", queries(3) + "{\"_id\": \"q3\"}\n" + &queries(1));
    let ran = case.search(&["--queries", "q.jsonl", "--format", "trec"]);
    assert!(ran.code == Some(2) && ran.stdout.contains("q2 Q0"), "{ran:?}");
    case.place.write("q.jsonl", queries(9));
    for _ in 0..9 {
        // a pause that no search waits for
        case.qdrant.http.fault(SEARCH, Fault::Status(503, Some(3600)));
    }
    let ran = case.search(&["--queries", "q.jsonl", "--concurrency", "2"]);
    let first = ran.stderr.lines().find(|line| line.starts_with("error: query q")).unwrap_or_else(|| panic!("{ran:?}"));
    assert!(first.contains("status 503") && ran.code == Some(1), "{ran:?}");
    // no further query is sent after a failure
    assert!(case.qdrant.http.faults_left() >= 5, "{}", case.qdrant.http.faults_left());
    case.place.write("q.jsonl", "");
    case.search(&["--queries", "q.jsonl"]).fails(2, "q.jsonl: there are no queries in it", "one JSON object a line");
}

#[test]
fn queries_may_be_vectors() {
    let case = Case::new();
    case.push(&[]).done();
    let encode = ["encode", "model", "--input", "queries.jsonl", "--role", "query"];
    case.place.write("v.jsonl", case.place.ok(&encode));
    let by_text = ["--queries", "queries.jsonl", "-k", "100", "--format", "trec"];
    let by_vector = ["--query-vectors", "v.jsonl", "-k", "100", "--format", "trec"];
    let expected = case.search(&by_text).done();
    assert_eq!(case.search(&by_vector).done(), expected);
    assert_eq!(case.search(&[&by_vector[..], &["--queries", "queries.jsonl"]].concat()).done(), expected);
    let hybrid = ["--mode", "hybrid"];
    let both = [&by_vector[..], &["--queries", "queries.jsonl"], &hybrid].concat();
    assert_eq!(case.search(&both).done(), case.search(&[&by_text[..], &hybrid].concat()).done());
    case.search(&[&by_vector[..], &hybrid].concat()).fails(2, "vectors alone have no text", "--queries");
    case.place.write("v.jsonl", "{\"_id\": \"q1\", \"indices\": [4000000], \"values\": [1.0]}\n");
    case.search(&by_vector).fails(2, "query q1: its vector has the dimension 4000000", "vectors of the model");
    // vectors say nothing about their model, so the index or the model is needed
    let at = ["search", "--engine", "qdrant", "--url", case.qdrant.address(), "--collection", "docs"];
    case.run(&[&at[..], &by_vector].concat()).fails(2, "no model is given", "--index");
}
