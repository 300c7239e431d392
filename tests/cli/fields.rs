//! Typed fields: `splade index --fields`, `splade search --filter`.

use serde_json::Value;

use super::*;

const CORPUS: &str = r#"{"_id": "a", "text": "torsk og sei", "lang": "nb", "year": 2019, "tags": ["draft", "sjø"]}
{"_id": "b", "text": "torsk og hyse", "lang": "nn", "year": 2020, "tags": "sjø"}
{"_id": "c", "text": "torsk og makrell", "lang": "nb", "year": 2021, "day": "2021-06-30"}
"#;

/// A folder with a model and a corpus with fields.
fn place_with_fields() -> Place {
    let place = place();
    place.write("corpus.jsonl", CORPUS);
    place
}

/// Ids of the hits for a filter, in order of their ids.
fn found(place: &Place, filter: &str) -> String {
    let search = ["search", "--index", "toy.index", "torsk", "--mode", "bm25", "--json", "--filter", filter];
    let answer = place.json(&search);
    let mut ids: Vec<&str> =
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.concat()
}

#[test]
fn declared_fields_are_filtered_by_and_kept_by_append() {
    let place = place_with_fields();
    let fields = ["--fields", "lang:keyword,year:int,tags:keyword,day:date"];
    place.ok(&with(&INDEX, &fields));
    for (filter, expected) in [
        ("lang:nb AND year:[2020 TO *]", "c"),
        ("NOT tags:draft", "bc"),
        ("tags:*", "ab"),
        ("day:[2021-01-01 TO 2022-01-01}", "c"),
        ("lang: IN [nb nn] AND NOT text:\"og makrell\"", "ab"),
        ("lang=nb,year=2019", "a"),
    ] {
        assert_eq!(found(&place, filter), expected, "{filter}");
    }
    place.write("more.jsonl", "{\"_id\": \"d\", \"text\": \"torsk\", \"lang\": \"nb\", \"year\": \"2022\"}\n");
    let append = ["index", "model", "--index", "toy.index", "--append", "--input", "more.jsonl"];
    place.ok(&append);
    place.ok(&with(&append, &fields));
    assert_eq!(found(&place, "lang:nb AND year:[2020 TO *]"), "cd");
    place.run(&with(&append, &["--fields", "lang:keyword"])).fails(
        2,
        "toy.index: made with the fields lang:keyword,year:int,tags:keyword,day:date, not lang:keyword",
        "leave --fields out",
    );
    place.write("more.jsonl", "{\"_id\": \"e\", \"text\": \"torsk\", \"year\": \"i fjor\"}\n");
    place.run(&append).fails(2, "document e: the field \"year\" is \"i fjor\", not of type int", "correct the value");
    assert_eq!(found(&place, "*"), "abcd");
}

#[test]
fn fields_are_read_from_the_first_documents_and_named() {
    let place = place_with_fields();
    let ran = place.run(&INDEX);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("from the first 3 documents: day:date,lang:keyword,tags:keyword,year:int"),
        "{}",
        ran.stderr
    );
    assert_eq!(found(&place, "year:>2019 AND lang:nb"), "c");
    let settings: Value = place.json(&["inspect", "toy.index", "--json"]);
    assert_eq!(settings["settings"]["fields"][3]["kind"], "int");
    assert!(place.ok(&["inspect", "toy.index"]).contains("day:date, lang:keyword"));

    place.write("more.jsonl", "{\"_id\": \"d\", \"text\": \"torsk\", \"year\": \"i fjor\"}\n");
    let ran = place.run(&["index", "model", "--index", "toy.index", "--append", "--input", "more.jsonl"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("1 values are not of the type"), "{}", ran.stderr);
    assert_eq!(found(&place, "NOT year:*"), "d");

    place.ok(&with(&INDEX, &["--overwrite", "--fields", "none"]));
    assert_eq!(found(&place, "lang=nb"), "ac");
    let search = ["search", "--index", "toy.index", "torsk", "--filter", "lang:nb"];
    place.run(&search).fails(2, "unknown field \"lang\"", "clauses such as lang=nb work for all fields");
}

#[test]
fn declarations_and_filters_that_are_wrong_are_named() {
    let place = place_with_fields();
    for (fields, message, hint) in [
        ("lang", "the field \"lang\" has no type", "lang:keyword,year:int"),
        ("lang:string", "unknown type \"string\"", "keyword, int, float, date, bool"),
        ("text:keyword", "\"text\" is reserved", "rename"),
    ] {
        place.run(&with(&INDEX, &["--fields", fields])).fails(2, message, hint);
        assert!(!place.path("toy.index").exists());
    }
    place.ok(&INDEX);
    for (filter, message, hint) in [
        ("lang:nb AND month:2020", "at character 13: unknown field \"month\"", "lang:keyword"),
        ("year:(2020", "cannot be read at character", "for instance"),
        ("year:soon", "\"soon\" is no value of the field \"year\" of type int", "correct"),
    ] {
        let search = ["search", "--index", "toy.index", "torsk", "--filter", filter];
        place.run(&search).fails(2, message, hint);
    }
}

#[test]
fn values_are_counted_over_the_index_a_filter_and_a_query() {
    let place = place_with_fields();
    place.ok(&INDEX);
    let search = ["search", "--index", "toy.index"];
    let counts = |more: &[&str]| place.json(&with(&with(&search, &["--json"]), more))["counts"].clone();
    let lang = counts(&["--count-by", "lang", "--count-by", "tags"]);
    assert_eq!(
        lang,
        serde_json::json!({
            "lang": {"values": [{"value": "nb", "count": 2}, {"value": "nn", "count": 1}], "distinct": 2, "missing": 0},
            "tags": {"values": [{"value": "sjø", "count": 2}, {"value": "draft", "count": 1}], "distinct": 2, "missing": 1},
        })
    );
    let one = |value: &str| serde_json::json!([{"value": value, "count": 1}]);
    assert_eq!(counts(&["--count-by", "lang", "--filter", "year:2020"])["lang"]["values"], one("nn"));
    let bm25 = |mode| counts(&["hyse", "-k", "1", "--mode", mode, "--count-by", "lang"])["lang"]["values"].clone();
    assert_eq!(bm25("bm25"), one("nn"));
    // all documents that match, not the one hit
    let all = counts(&["torsk", "-k", "1", "--mode", "bm25", "--count-by", "lang"]);
    assert_eq!(all["lang"], lang["lang"]);
    for mode in ["sparse", "hybrid"] {
        let found = place.json(&with(&search, &["torsk", "--mode", mode, "--json", "-k", "10"]));
        let n_found = found["hits"].as_array().unwrap().len();
        let counted = counts(&["torsk", "-k", "1", "--mode", mode, "--count-by", "lang"]);
        let values = counted["lang"]["values"].as_array().unwrap();
        let total: u64 = values.iter().map(|value| value["count"].as_u64().unwrap()).sum();
        assert_eq!(total, n_found as u64, "{mode}");
    }
    let table = place.ok(&with(&search, &["--count-by", "tags"]));
    assert!(table.contains("sjø") && table.contains("1 without tags"), "{table}");
    place.run(&with(&search, &["--count-by", "language"])).fails(2, "unknown field \"language\"", "lang:keyword");
    place.run(&with(&search, &["--count-by", "lang", "--explain"])).fails(2, "are about queries", "give a query");
    place.run(&with(&search, &["torsk", "--count-by", "lang", "--format", "trec"])).fails(
        2,
        "TREC run",
        "--format json",
    );
}
