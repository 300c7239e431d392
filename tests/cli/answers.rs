//! `splade search`: queries of a file, statistics, explanations.

use serde_json::Value;

use super::*;

/// A folder with an index of the toy corpus.
fn place_with_index() -> Place {
    let place = place();
    place.ok(&with(&INDEX, &["--language", "norwegian"]));
    place
}

const SEARCH: [&str; 3] = ["search", "--index", "toy.index"];
const ALL: [&str; 2] = ["--queries", "queries.jsonl"];

fn f32_of(value: &Value) -> f32 {
    value.to_string().parse().unwrap()
}

/// Hits of a line of `--json`.
fn hits(answer: &Value) -> &[Value] {
    answer["hits"].as_array().unwrap()
}

#[test]
fn the_queries_of_a_file_are_answered_in_order_whatever_the_threads() {
    let place = place_with_index();
    let texts: Vec<Value> =
        place.read("queries.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let many: Vec<Value> = (0..1100)
        .map(|at| serde_json::json!({"_id": format!("q{at}"), "text": texts[at % texts.len()]["text"]}))
        .collect();
    place.write("many.jsonl", many.iter().map(|line| format!("{line}\n")).collect::<String>());
    for mode in ["sparse", "bm25", "hybrid"] {
        let search = |threads| {
            place.json_lines(&with(
                &SEARCH,
                &["--queries", "many.jsonl", "--mode", mode, "--json", "--threads", threads],
            ))
        };
        let found = search("1");
        assert_eq!(found, search("3"), "{mode}");
        assert_eq!(found.len(), many.len());
        for (at, (answer, query)) in found.iter().zip(&many).enumerate() {
            assert_eq!((&answer["query_id"], &answer["query"]), (&query["_id"], &query["text"]));
            assert_eq!(answer["hits"], found[at % texts.len()]["hits"], "{mode} {at}");
        }
        for (query, answer) in texts.iter().zip(&found) {
            let one = place.json(&with(&SEARCH, &[query["text"].as_str().unwrap(), "--mode", mode, "--json"]));
            assert_eq!(one["hits"], answer["hits"], "{mode}");
            assert!(!hits(answer).is_empty());
        }
    }
}

#[test]
fn a_broken_query_is_named_after_the_answers_before_it() {
    let place = place_with_index();
    let good = place.read("queries.jsonl");
    place.write("bad.jsonl", format!("{good}{{\"_id\": 1\n{good}"));
    let ran = place.run(&with(&SEARCH, &["--queries", "bad.jsonl", "--format", "trec"]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("error: bad.jsonl:5: "), "{}", ran.stderr);
    assert_eq!(ran.stdout, place.ok(&with(&SEARCH, &["--queries", "queries.jsonl", "--format", "trec"])));
}

#[test]
fn statistics_are_logged_or_written_as_json() {
    let place = place_with_index();
    let args = [&SEARCH[..], &ALL, &["--json", "--warm", "--threads", "2"]].concat();
    let plain = place.ok(&args);
    let ran = place.run(&with(&args, &["--stats"]));
    for word in
        ["4 queries in ", " on 2 threads: ", " per second", "search:        mean ", "with encoding: mean ", "p99 "]
    {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    assert_eq!(ran.done(), plain);
    assert_eq!(place.ok(&with(&args, &["--stats=stats.json"])), plain);
    let stats: Value = serde_json::from_str(&place.read("stats.json")).unwrap();
    assert_eq!((&stats["queries"], &stats["threads"]), (&4.into(), &2.into()));
    let time = |side: &str, name: &str| stats[side][name].as_f64().unwrap();
    for side in ["search_us", "with_encoding_us"] {
        assert!(time(side, "mean") > 0.0);
        assert!(["p50", "p90", "p99", "max"].is_sorted_by(|a, b| time(side, a) <= time(side, b)), "{stats:#}");
    }
    assert!(time("search_us", "mean") <= time("with_encoding_us", "mean"));
    let rate = stats["queries_per_second"].as_f64().unwrap() * stats["seconds"].as_f64().unwrap();
    assert!((rate - 4.0).abs() < 1e-6);
    place.run(&with(&args, &["--stats=stats.json"])).fails(2, "stats.json: exists already", "--overwrite");
    place.ok(&with(&args, &["--stats=stats.json", "--overwrite"]));
}

#[test]
fn the_parts_of_a_score_add_up_to_it() {
    let place = place_with_index();
    let search = |mode: &str| {
        place.json_lines(&[&SEARCH[..], &ALL, &["--json", "--explain", "--mode", mode, "-k", "12"]].concat())
    };
    let (sparse, bm25, hybrid) = (search("sparse"), search("bm25"), search("hybrid"));
    let mut terms_seen = 0;
    for hit in sparse.iter().flat_map(hits) {
        let terms = hit["terms"].as_array().unwrap();
        let mut parts: Vec<(u64, f32)> =
            terms.iter().map(|term| (term["dim"].as_u64().unwrap(), f32_of(&term["score"]))).collect();
        parts.sort_unstable_by_key(|(dim, _)| *dim);
        let sum = parts.iter().fold(0.0_f32, |sum, (_, score)| sum + score);
        assert_eq!(sum.to_bits(), f32_of(&hit["score"]).to_bits(), "{hit:#}");
        let shares: f32 = terms.iter().map(|term| f32_of(&term["share"])).sum();
        assert!((shares - 1.0).abs() < 1e-5, "{hit:#}");
        for term in terms {
            let product = f32_of(&term["query_weight"]) * f32_of(&term["document_weight"]);
            assert_eq!(product.to_bits(), f32_of(&term["score"]).to_bits());
        }
        assert!(hit.get("bm25_terms").is_none() && hit.get("lists").is_none());
        terms_seen += terms.len();
    }
    assert!(terms_seen > 0);
    let mut words_seen = 0;
    for hit in bm25.iter().flat_map(hits) {
        let words = hit["bm25_terms"].as_array().unwrap();
        let sum: f32 = words.iter().map(|word| f32_of(&word["score"])).sum();
        assert!((sum - f32_of(&hit["score"])).abs() < 1e-5 * sum, "{hit:#}");
        words_seen += words.len();
    }
    assert!(words_seen > 0);
    // every place of a fused hit is that of the separate ranking
    let mut places_seen = 0;
    for (at, answer) in hybrid.iter().enumerate() {
        for hit in hits(answer) {
            for (list, other) in [("sparse", &sparse[at]), ("bm25", &bm25[at])] {
                let place = hit["lists"].as_array().unwrap().iter().find(|place| place["list"] == list).unwrap();
                let there = hits(other).iter().find(|there| there["_id"] == hit["_id"]);
                assert_eq!(place["rank"], there.map_or(Value::Null, |there| there["rank"].clone()), "{hit:#}");
                assert_eq!(f32_of(&place["score"]), there.map_or(0.0, |there| f32_of(&there["score"])), "{hit:#}");
                places_seen += 1;
            }
        }
    }
    assert!(places_seen > 0);
}
