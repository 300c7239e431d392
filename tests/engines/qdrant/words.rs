//! Rankings by words: BM25 by vectors of words, and both rankings fused by Qdrant.

use serde_json::{Value as Json, json};

use super::{Case, assert_close, assert_fused};

/// Documents of different lengths, so that no two scores are equal.
fn texts() -> String {
    let words = ["nordlyset", "vinteren", "fjorden", "hovedstaden", "norge", "snø", "regn", "blåbær", "skogen"];
    let lines = (0..30).map(|id| {
        let text: Vec<&str> = (0..4 + id).map(|at| words[(id * 7 + at * 3) % words.len()]).collect();
        let lang = ["nb", "nn"][id % 2];
        format!("{}\n", json!({"_id": format!("d{id}"), "text": format!("Oslo {}", text.join(" ")), "lang": lang}))
    });
    lines.collect()
}

fn case() -> Case {
    let case = Case::new();
    case.place.write("texts.jsonl", texts());
    let index = ["index", "model", "--input", "texts.jsonl", "--index", "docs.index", "--overwrite"];
    case.place.ok(&[&index[..], &["--language", "norwegian", "--fields", "lang:keyword"]].concat());
    case
}

fn verification(shown: &str) -> Json {
    serde_json::from_str::<Json>(shown).unwrap()["verification"]["bm25"].clone()
}

#[test]
fn rankings_by_words_are_those_of_the_index() {
    let case = case();
    let bm25 = verification(&case.push(&["--json", "--queries", "queries.jsonl"]).done());
    assert!(bm25["hits"].as_u64().unwrap() > 10, "{bm25}");
    assert!(bm25["largest_relative_difference"].as_f64().unwrap() < 1e-5, "{bm25}");
    assert_eq!((&bm25["queries_in_another_order"], &bm25["recall"]), (&json!(0), &json!(1.0)));
    case.place
        .write("q.jsonl", "{\"_id\": \"a\", \"text\": \"oslo\"}\n{\"_id\": \"b\", \"text\": \"Fjordene og snø\"}\n");
    // the compounds of the index are not those of the engine
    let alike = ["--queries", "q.jsonl", "-k", "100", "--format", "trec"];
    let by_words = [&alike[..], &["--mode", "bm25"]].concat();
    let words = case.search(&by_words).done();
    assert_close(&words, &case.local(&[&by_words[..], &["--bm25-compounds", "off"]].concat()));
    let hybrid = case.search(&[&alike[..], &["--mode", "hybrid"]].concat()).done();
    assert_fused(&hybrid, [&case.search(&alike).done(), &words], 100);
    // words need no model
    let at = ["--engine", "qdrant", "--url", case.qdrant.address(), "--collection", "docs", "--mode", "bm25"];
    assert_eq!(case.run(&[&["search"], &at[..], &alike].concat()).done(), words);
    for nothing in ["", "– …", "ukjent"] {
        assert_eq!(case.search(&[nothing, "--mode", "bm25", "--format", "trec"]).done(), "");
    }
    assert_eq!(case.search(&["", "--mode", "hybrid", "--format", "trec"]).done(), "");
}

#[test]
fn scores_stay_right_while_documents_come_and_go() {
    let case = case();
    case.push(&[]).done();
    let kept: String = texts().lines().filter(|line| !line.contains("d1")).map(|line| format!("{line}\n")).collect();
    case.place.write("texts.jsonl", kept + "{\"_id\": \"ny\", \"text\": \"nordlyset over Oslo\"}\n");
    let index = ["index", "model", "--input", "texts.jsonl", "--index", "docs.index", "--overwrite"];
    case.place.ok(&[&index[..], &["--language", "norwegian", "--fields", "lang:keyword"]].concat());
    let bm25 = verification(&case.push(&["--json", "--sync"]).done());
    // the idf is that of the documents of today, and the mean length that of the first push
    let difference = bm25["largest_relative_difference"].as_f64().unwrap();
    assert!((1e-4..0.1).contains(&difference), "{bm25}");
    assert!(bm25["recall"].as_f64().unwrap() > 0.9, "{bm25}");
}

#[test]
fn the_request_of_a_hybrid_search_is_shown() {
    let case = case();
    case.push(&[]).done();
    let hybrid = ["oslo og snø", "-k", "2", "--mode", "hybrid", "--filter", "lang:nb", "--depth", "20"];
    let shown = case.search(&[&hybrid[..], &["--show-query"]].concat()).done();
    let (line, body) = shown.split_once('\n').unwrap();
    assert_eq!(line, "POST /collections/docs/points/query");
    let body: Json = serde_json::from_str(body).unwrap();
    let [vectors, words] = &body["prefetch"].as_array().unwrap()[..] else { panic!("{body}") };
    let filter = json!({"must": [{"key": "lang", "match": {"value": "nb"}}]});
    for (ranking, name) in [(vectors, "splade"), (words, "words")] {
        assert_eq!((&ranking["using"], &ranking["limit"], &ranking["filter"]), (&json!(name), &json!(20), &filter));
    }
    // python3 -c 'import hashlib; print(int.from_bytes(hashlib.sha256("oslo".encode()).digest()[:4], "big"))'
    assert!(words["query"]["indices"].as_array().unwrap().contains(&json!(2382455697_u32)), "{words}");
    assert_eq!(words["query"]["values"], json!([1.0, 1.0, 1.0]));
    assert_eq!((&body["query"], &body["limit"]), (&json!({"rrf": {"k": 61}}), &json!(2)));
    assert_eq!(case.search(&hybrid).done().lines().count(), 2);
    let refused = |more: &[&str], message: &str, hint: &str| {
        case.search(&[&hybrid[..], more].concat()).fails(2, message, hint);
    };
    refused(&["--fusion", "weighted"], "it has no fusion by weighted", "--fusion rrf");
    refused(&["--weights", "2,1"], "its reciprocal rank fusion takes no weights", "leave --weights out");
    refused(&["--rrf-k", "0.5"], "is 0.5, not an integer of 1 to 10000", "another --rrf-k");
    refused(&["--bm25-b", "0.5"], "--bm25-b: it needs an index of this program", "leave it out");
}

#[test]
fn a_collection_without_words_says_so() {
    let case = case();
    case.push(&["--no-bm25"]).done();
    for mode in ["bm25", "hybrid"] {
        case.search(&["oslo", "--mode", mode]).fails(2, "its documents have no vectors of words", "without --no-bm25");
    }
    // further pushes keep to it
    assert!(verification(&case.push(&["--json"]).done()).is_null());
    case.push(&["--overwrite"]).done();
    case.search(&["oslo", "--mode", "bm25"]).done();
    case.push(&["--no-bm25"]).fails(2, "its no bm25 is the default, not true", "--overwrite");
    let at = ["push-index", "docs.index", "--to", "milvus", "--url", case.qdrant.address(), "--collection", "docs"];
    case.run(&[&at[..], &["--no-bm25"]].concat()).fails(2, "--no-bm25: milvus has no such setting", "leave it out");
}

#[test]
fn a_wrong_ranking_by_words_ends_with_exit_code_1() {
    let case = case();
    case.push(&[]).done();
    case.qdrant.damage("docs", "d11", "words", 3.0);
    case.place.write("q.jsonl", "{\"_id\": \"a\", \"text\": \"oslo\"}\n");
    let ran = case.push(&["--verify-only", "--queries", "q.jsonl"]);
    ran.fails(1, "query a, document d11: its score is", "50 % of the BM25 score");
}

/// Two words of one dimension are one word for the engine, and no error.
#[test]
fn words_of_one_dimension_are_no_error() {
    let case = Case::new();
    let text = |id: &str, text: &str| format!("{}\n", json!({"_id": id, "text": text}));
    let others: String = (0..40).map(|id| text(&format!("d{id}"), "regn")).collect();
    case.place.write("texts.jsonl", text("a", "ord49870 oslo") + &text("b", "ord80232 snø") + &others);
    case.place.ok(&["index", "model", "--input", "texts.jsonl", "--index", "docs.index", "--overwrite"]);
    case.push(&[]).done();
    let found = case.search(&["ord49870", "--mode", "bm25", "--format", "trec"]).done();
    assert_eq!(found.lines().count(), 2, "{found}");
    case.place.write("q.jsonl", "{\"_id\": \"a\", \"text\": \"ord49870\"}\n");
    let bm25 = verification(&case.push(&["--verify-only", "--json", "--queries", "q.jsonl"]).done());
    assert_eq!(bm25["hits"], 1, "{bm25}");
}
