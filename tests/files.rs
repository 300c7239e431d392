//! Unusual input files: parquet columns without annotations, ids with white space, git-lfs pointers, empty files.
#![cfg(feature = "train")]

mod util;

use util::{Place, fixture, ours, setup};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 438007253\n";

/// A folder with a tiny inference-free model.
fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place
}

/// A folder with an index of `corpus`.
fn place_with_index(corpus: &str) -> Place {
    let place = place();
    place.write("corpus.jsonl", corpus);
    place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "i", "--backend", "candle"]);
    place
}

#[test]
fn parquet_bytes_are_text_in_every_command() {
    let place = place();
    place.copy(&ours("fixtures/parquet"), "p");
    let encode = |file: &str| place.run(&["encode", "model", "--input", file, "--role", "query"]);
    let expected = encode("p/string.parquet").done();
    assert!(expected.starts_with("{\"_id\":\"d1\",\"indices\":[") && expected.lines().count() == 2, "{expected}");
    for file in ["p/binary-text.parquet", "p/binary-id.parquet"] {
        assert_eq!(encode(file).done(), expected, "{file}");
        place.ok(&["index", "model", "--input", file, "--index", "i", "--overwrite", "--backend", "candle"]);
        let found = place.ok(&["search", "--index", "i", "blåbær", "--mode", "bm25", "--format", "trec"]);
        assert!(found.starts_with("1 Q0 d2 1 "), "{file}: {found}");
    }
    let wanted = "p/not-utf8.parquet:1: column text holds bytes that are not UTF-8 text, from byte 1 of the value";
    encode("p/not-utf8.parquet").fails(2, wanted, "");
    place
        .run(&["index", "model", "--input", "p/not-utf8.parquet", "--index", "j", "--backend", "candle"])
        .fails(2, wanted, "");
    place.write(
        "train.yaml",
        "model: {architecture: splade, init: {hidden_size: 16, layers: 1, heads: 2, intermediate_size: 32, vocab_size: 300}}
training: {output_dir: out, max_steps: 1, eval_strategy: no}
datasets: {a: {files: [p/not-utf8.parquet], columns: {anchor: _id, positive: text}}}
",
    );
    place.run(&["train", "train.yaml"]).fails(2, wanted, "");
}

#[test]
fn panics_of_the_parquet_reader_are_errors_and_nothing_of_them_is_printed() {
    let place = place();
    let sound = std::fs::read(ours("fixtures/parquet/string.parquet")).unwrap();
    // the parquet crate panics where a column begins below 0, and where a dictionary is missing
    for (at, change) in [(310, 0x01), (314, 0xff)] {
        let mut damaged = sound.clone();
        damaged[at] ^= change;
        place.write("d.parquet", damaged);
        let error = "d.parquet:1: column _id holds text that is not UTF-8, or damaged data";
        place.run(&["encode", "model", "--input", "d.parquet", "--role", "query"]).fails(2, error, "");
        let index = ["index", "model", "--input", "d.parquet", "--index", "i", "--backend", "candle"];
        place.run(&index).fails(2, error, "");
    }
}

#[test]
fn ids_that_a_trec_run_cannot_hold_are_refused() {
    let mut n_refused = 0;
    for id in ["doc 1", "doc\t1", "doc\n1", "\u{a0}", "a\u{2028}b", "a\u{b}b", "a\u{c}b", "a\u{85}b", "a\u{3000}b"] {
        let place = place_with_index(&serde_json::json!({"_id": id, "text": "en ny båt"}).to_string());
        let search = ["search", "--index", "i", "båt", "--mode", "bm25", "--format"];
        let ran = place.run(&[&search[..], &["trec"]].concat());
        assert_eq!(ran.stdout, "", "{id:?}");
        ran.fails(2, "white space, which a TREC run cannot express", "--format json");
        assert_eq!(place.json(&[&search[..], &["json"]].concat())["hits"][0]["_id"], id);
        place.write("q.jsonl", serde_json::json!({"_id": id, "text": "ukjent"}).to_string());
        let ran = place.run(&["search", "--index", "i", "--queries", "q.jsonl", "--mode", "bm25", "--format", "trec"]);
        ran.fails(2, "white space, which a TREC run cannot express", "--format json");
        n_refused += 1;
    }
    assert_eq!(n_refused, 9);
}

#[test]
fn git_lfs_pointers_are_named_for_every_file_of_a_model() {
    let network = "document_0_Transformer";
    let table = "query_0_SparseStaticEmbedding";
    let files = [
        ("document", format!("{network}/model.safetensors")),
        ("document", format!("{network}/tokenizer.json")),
        ("document", format!("{network}/config.json")),
        ("document", format!("{network}/sentence_bert_config.json")),
        ("query", format!("{table}/model.safetensors")),
        ("query", format!("{table}/tokenizer.json")),
        ("query", format!("{table}/config.json")),
        ("query", "modules.json".to_owned()),
        ("query", "router_config.json".to_owned()),
        ("query", "config_sentence_transformers.json".to_owned()),
    ];
    for (role, file) in files {
        let place = place();
        place.write("t.jsonl", "{\"_id\": \"1\", \"text\": \"båt\"}\n");
        place.write(&format!("model/{file}"), POINTER);
        let ran = place.run(&["encode", "model", "--input", "t.jsonl", "--role", role, "--backend", "candle"]);
        ran.fails(2, &format!("model/{file}: it is a git-lfs pointer; fetch the file itself"), "");
    }
}

#[test]
fn git_lfs_pointers_are_named_for_every_file_that_training_copies() {
    for file in ["vocab.txt", "merges.txt", "added_tokens.json", "config.json"] {
        let place = setup();
        place.copy(&ours("fixtures/models/bert-tiny"), "model");
        place.write(&format!("model/{file}"), POINTER);
        place.write("pairs.jsonl", "{\"query\": \"båt\", \"positive\": \"en ny båt\"}\n");
        place.write(
            "train.yaml",
            "model: {architecture: splade, base_model: model}
training: {output_dir: out, max_steps: 1, eval_strategy: no}
datasets: {a: {files: [pairs.jsonl]}}
",
        );
        place.run(&["train", "train.yaml"]).fails(2, &format!("{file}: it is a git-lfs pointer"), "");
    }
}

#[test]
fn git_lfs_pointers_are_named_for_every_input() {
    let place = place();
    for name in ["x.parquet", "x.jsonl", "x.jsonl.gz", "x.tsv", "x.txt"] {
        place.write(name, POINTER);
        let ran = place.run(&["encode", "model", "--input", name, "--role", "query"]);
        ran.fails(2, &format!("{name}: it is a git-lfs pointer; fetch the file itself"), "");
    }
    place.write("corpus.jsonl", "{\"_id\": \"1\", \"text\": \"båt\"}\n");
    let index = ["index", "model", "--input", "corpus.jsonl", "--index", "i", "--vectors", "x.jsonl"];
    place.run(&index).fails(2, "x.jsonl: it is a git-lfs pointer", "");
}

#[test]
fn a_file_without_queries_is_an_error() {
    let place = place_with_index("{\"_id\": \"d1\", \"text\": \"en ny båt\"}\n");
    let hint = "one JSON object a line is needed";
    for (name, content, error, hint) in [
        (
            "q.tsv",
            "hva er oslo\n",
            "q.tsv:1: missing _id, found only hva er oslo; the first line of a .tsv file names",
            "",
        ),
        ("q.tsv", "_id\ttext\n", "q.tsv: there are no queries in it", hint),
        ("q.tsv", "", "q.tsv: empty: expected a header line", ""),
        ("q.jsonl", "\n \n", "q.jsonl: there are no queries in it", hint),
        ("q.txt", "", "q.txt: there are no queries in it", hint),
    ] {
        place.write(name, content);
        place.run(&["search", "--index", "i", "--queries", name, "--mode", "bm25"]).fails(2, error, hint);
    }
    place.write("ids.txt", "\n\r\n");
    let append = ["index", "model", "--index", "i", "--append", "--delete", "ids.txt"];
    place.run(&append).fails(2, "ids.txt: there are no ids in it", "one id a line");
}

#[test]
fn ids_to_delete_are_taken_exactly() {
    let corpus = [" d1", "d1", "d2 ", "d3"].map(|id| serde_json::json!({"_id": id, "text": "båt"}).to_string());
    let place = place_with_index(&corpus.join("\n"));
    place.write("ids.txt", " d1\r\nd2\r\nd3");
    let append = ["index", "model", "--index", "i", "--append", "--delete", "ids.txt", "--json"];
    assert_eq!(place.json(&append)["documents"], 2);
    let found = place.json(&["search", "--index", "i", "båt", "--mode", "bm25", "--json"]);
    let ids: Vec<&str> = found["hits"].as_array().unwrap().iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["d1", "d2 "]);
}

#[test]
fn filters_take_quoted_commas_and_compare_numbers() {
    let corpus = [
        r#"{"_id": "a", "text": "båt", "place": "Oslo, Norge", "n": 5, "dc.lang": "nb"}"#,
        r#"{"_id": "b", "text": "båt", "place": "Oslo", "n": 5.0, "dc": {"lang": "nb"}}"#,
        r#"{"_id": "c", "text": "båt", "place": "Bergen", "n": "5.0", "id64": 18446744073709551615}"#,
        r#"{"_id": "d", "text": "båt", "place": "Bergen", "n": 4.5, "id64": "123456789012345678901234567890"}"#,
    ];
    let place = place_with_index(&corpus.join("\n"));
    let cases: [(&str, &[&str]); 10] = [
        (r#"place="Oslo, Norge""#, &["a"]),
        (r#"place="Oslo, Norge",n=5"#, &["a"]),
        (r#"place!="Oslo, Norge",n=5.0"#, &["b", "c"]),
        ("n=5", &["a", "b"]),
        ("n=5.0", &["a", "b", "c"]),
        (r#"n="5.0""#, &["c"]),
        ("n=4.5", &["d"]),
        ("id64=18446744073709551615", &["c"]),
        ("id64=123456789012345678901234567890", &["d"]),
        ("dc.lang=nb", &["a", "b"]),
    ];
    for (filter, expected) in cases {
        let args = ["search", "--index", "i", "båt", "--mode", "bm25", "--json", "--filter", filter];
        let found = place.json(&args);
        let ids: Vec<&str> = found["hits"].as_array().unwrap().iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{filter}");
    }
    place.write("big.jsonl", r#"{"_id": "e", "text": "x", "n": 123456789012345678901}"#);
    place.run(&["index", "model", "--input", "big.jsonl", "--index", "j", "--backend", "candle"]).fails(
        2,
        "big.jsonl:1: the integer 123456789012345678901 has more than 64 bits: write it as a string",
        "",
    );
}
