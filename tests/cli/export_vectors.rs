//! Exported vectors, read back: by this program, by the row reader of the parquet crate, and by a parser of CIFF.

use std::collections::BTreeMap;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use super::*;

/// A place with an index of the toy corpus, its vectors and those of its queries.
fn place_with_index() -> Place {
    let place = place();
    place.ok(&INDEX);
    place.ok(&with(&ENCODE, &["--output", "v.jsonl"]));
    place.ok(&["encode", "model", "--input", "queries.jsonl", "--role", "query", "--output", "q.jsonl"]);
    place
}

fn export(place: &Place, format: &str, output: &str, more: &[&str]) {
    let args = ["export-vectors", "toy.index", "--format", format, "--output", output];
    assert_eq!(place.ok(&with(&args, more)), "", "the file is the result");
}

fn hits(place: &Place, index: &str) -> String {
    place.ok(&["search", "--index", index, "--queries", "queries.jsonl", "-k", "50", "--format", "trec"])
}

type Vector = BTreeMap<u32, f32>;

/// Vectors of a file of `encode`, by id.
fn vectors(place: &Place, name: &str) -> BTreeMap<String, Vector> {
    let line = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let dims = row["indices"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as u32);
        let weights = row["values"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap() as f32);
        (row["_id"].as_str().unwrap().to_owned(), dims.zip(weights).collect())
    };
    place.read(name).lines().map(line).collect()
}

fn rounded(vectors: &BTreeMap<String, Vector>, scale: f32) -> BTreeMap<String, BTreeMap<u32, u64>> {
    let vector = |vector: &Vector| {
        let impacts = vector.iter().map(|(dim, weight)| (*dim, (weight * scale).round() as u64));
        impacts.filter(|(_, impact)| *impact > 0).collect()
    };
    vectors.iter().map(|(id, weights)| (id.clone(), vector(weights))).collect()
}

#[test]
fn lines_and_matrices_make_the_same_index() {
    let place = place_with_index();
    export(&place, "jsonl", "ids.jsonl", &[]);
    export(&place, "jsonl", "tokens.jsonl", &["--keys", "tokens"]);
    export(&place, "csr", "m.csr", &[]);
    let expected = hits(&place, "toy.index");
    assert!(expected.lines().count() > 10);
    let forms: [&[&str]; 3] = [
        &["--vectors", "ids.jsonl"],
        &["--vectors", "tokens.jsonl"],
        &["--vectors", "m.csr", "--vector-ids", "m.csr.ids.txt"],
    ];
    for form in forms {
        place.ok(&with(&["index", "model", "--index", "other.index", "--overwrite"], form));
        assert_eq!(hits(&place, "other.index"), expected, "{form:?}");
    }
    let lines: Vec<Value> = place.read("ids.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let oslo = lines.iter().find(|line| line["id"] == "oslo").unwrap();
    assert_eq!(oslo["content"], "Oslo Oslo er hovedstaden i Norge og har rundt 700 000 innbyggere.");
    let first = place.read("tokens.jsonl");
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert!(first["vector"].as_object().unwrap().keys().any(|key| key.parse::<u32>().is_err()), "{first}");
    let args = ["export-vectors", "toy.index", "--format", "jsonl", "--output", "-"];
    assert_eq!(place.ok(&args), place.read("ids.jsonl"), "the same on stdout");
}

#[test]
fn impacts_are_rounded_weights_and_what_becomes_zero_is_counted() {
    let place = place_with_index();
    let args = ["export-vectors", "toy.index", "--format", "jsonl", "--output", "i.jsonl", "--impacts", "2"];
    let ran = place.run(&args);
    let expected = rounded(&vectors(&place, "v.jsonl"), 2.0);
    let all: usize = vectors(&place, "v.jsonl").values().map(BTreeMap::len).sum();
    let kept: usize = expected.values().map(BTreeMap::len).sum();
    assert!(kept < all);
    assert!(ran.stderr.contains(&format!("warning: {} of {all} entries become 0", all - kept)), "{}", ran.stderr);
    ran.done();
    let mut read = BTreeMap::new();
    for line in place.read("i.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let entries = line["vector"].as_object().unwrap().iter();
        let vector = entries.map(|(dim, impact)| (dim.parse().unwrap(), impact.as_u64().unwrap())).collect();
        read.insert(line["id"].as_str().unwrap().to_owned(), vector);
    }
    assert_eq!(read, expected);
}

/// Fields of a protobuf message: number, and value of a varint or bytes.
fn message(bytes: &mut &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let length = varint(bytes) as usize;
    let (mut content, rest) = bytes.split_at(length);
    *bytes = rest;
    let mut fields = Vec::new();
    while !content.is_empty() {
        let key = varint(&mut content);
        let (value, length) = match key & 7 {
            0 => (varint(&mut content), 0),
            1 => (0, 8),
            2 => (0, varint(&mut content) as usize),
            other => panic!("wire type {other}"),
        };
        let (part, rest) = content.split_at(length);
        content = rest;
        fields.push((key >> 3, value, part.to_vec()));
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if *first < 0x80 {
            break;
        }
    }
    value
}

#[test]
fn ciff_has_the_rounded_weights_of_every_document() {
    let place = place_with_index();
    export(&place, "ciff", "v.ciff", &[]);
    let file = std::fs::read(place.path("v.ciff")).unwrap();
    let mut bytes = &file[..];
    let header = message(&mut bytes);
    let number = |tag: u64| header.iter().find(|(found, ..)| *found == tag).map_or(0, |(_, value, _)| *value);
    let description: Value = serde_json::from_slice(&header.iter().find(|field| field.0 == 8).unwrap().2).unwrap();
    assert_eq!((description["scale"].as_f64(), description["terms"].as_str()), (Some(100.0), Some("dimensions")));
    let mut by_document: BTreeMap<u64, BTreeMap<u32, u64>> = BTreeMap::new();
    let mut terms = Vec::new();
    for _ in 0..number(2) {
        let list = message(&mut bytes);
        let term = String::from_utf8(list[0].2.clone()).unwrap();
        let mut document = 0;
        for (tag, _, posting) in &list[3..] {
            assert_eq!(*tag, 4);
            let mut framed = vec![posting.len() as u8];
            framed.extend(posting);
            let posting: BTreeMap<u64, u64> =
                message(&mut &framed[..]).into_iter().map(|(tag, value, _)| (tag, value)).collect();
            document += posting.get(&1).copied().unwrap_or_default();
            by_document.entry(document).or_default().insert(term.parse().unwrap(), posting[&2]);
        }
        terms.push(term);
    }
    assert!(terms.is_sorted() && terms.len() > 10, "{terms:?}");
    let mut read = BTreeMap::new();
    for at in 0..number(3) {
        let record = message(&mut bytes);
        let id = record.iter().find(|(tag, ..)| *tag == 2).unwrap();
        read.insert(String::from_utf8(id.2.clone()).unwrap(), by_document.remove(&at).unwrap_or_default());
    }
    assert!(bytes.is_empty());
    assert_eq!(read, rounded(&vectors(&place, "v.jsonl"), 100.0));
    export(&place, "ciff", "tokens.ciff", &["--keys", "tokens", "--impacts", "10"]);
    assert_ne!(std::fs::read(place.path("tokens.ciff")).unwrap(), file);
}

#[test]
fn a_dot_product_over_the_tables_is_the_score_of_a_search() {
    let place = place_with_index();
    export(&place, "parquet-postings", "tables", &[]);
    let open = |name: &str| {
        let file = std::fs::File::open(place.path("tables").join(name)).unwrap();
        SerializedFileReader::new(file).unwrap()
    };
    let documents = open("documents.parquet");
    let rows: Vec<_> = documents.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
    let ids: Vec<&String> = rows.iter().map(|row| row.get_string(1).unwrap()).collect();
    let oslo = &rows[ids.iter().position(|id| *id == "oslo").unwrap()];
    assert_eq!(oslo.get_string(2).unwrap(), "Oslo");
    assert_eq!(oslo.get_string(4).unwrap(), r#"{"theme":"by","year":2024}"#);
    let postings: Vec<(u32, String, usize, f32)> = open("postings.parquet")
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            let (term, document) = (row.get_int(0).unwrap() as u32, row.get_int(2).unwrap() as usize);
            (term, row.get_string(1).unwrap().clone(), document, row.get_float(3).unwrap())
        })
        .collect();
    assert!(postings.is_sorted_by_key(|(term, _, document, _)| (*term, *document)));
    let queries = vectors(&place, "q.jsonl");
    let found = hits(&place, "toy.index");
    for hit in found.lines() {
        let fields: Vec<&str> = hit.split(' ').collect();
        let query = &queries[fields[0]];
        let mut score = 0.0;
        for (term, _, document, weight) in &postings {
            if ids[*document] == fields[2] {
                score += query.get(term).copied().unwrap_or_default() * weight;
            }
        }
        assert_eq!(score, fields[4].parse::<f32>().unwrap(), "{hit}");
    }
    assert!(postings.iter().any(|(_, token, ..)| token.chars().all(char::is_alphabetic)), "tokens have names");
}

#[test]
fn passages_are_rows_of_their_own() {
    let place = place();
    place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "toy.index", "--passages", "12/2"]);
    export(&place, "jsonl", "p.jsonl", &[]);
    let stats = place.json(&["inspect", "toy.index", "--json"]);
    let lines: Vec<Value> = place.read("p.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Some(lines.len() as u64), stats["stats"]["passages"].as_u64());
    let of_oslo: Vec<&Value> = lines.iter().filter(|line| line["id"].as_str().unwrap().starts_with("oslo#")).collect();
    assert!(of_oslo.len() > 1);
    assert!(of_oslo[0]["id"] == "oslo#0" && of_oslo[0]["content"].as_str().unwrap().starts_with("Oslo"));
}

#[test]
fn what_cannot_be_exported_is_named_and_leaves_nothing() {
    let place = place_with_index();
    let lines = [
        r#"{"_id": "d1", "indices": [3], "values": [0.5]}"#,
        r#"{"_id": "d\n2", "indices": [3, 70000], "values": [-0.5, 1.0]}"#,
    ];
    place.write("odd.jsonl", lines.join("\n"));
    let before = place.names();
    let run = |source: &str, format: &str, more: &[&str]| {
        place.run(&with(&["export-vectors", source, "--format", format, "--output", "new/out"], more))
    };
    run("odd.jsonl", "csr", &[]).fails(2, "the id \"d\\n2\" has a line break", "another format");
    run("odd.jsonl", "jsonl", &["--impacts", "100"]).fails(
        2,
        "the weight of dimension 3 is -0.5",
        "format with weights",
    );
    run("odd.jsonl", "ciff", &[]).fails(2, "the number of dimensions is not known", "--model");
    run("odd.jsonl", "parquet-postings", &["--model", "model"]).fails(2, "has dimension 70000", "--model");
    run("odd.jsonl", "jsonl", &["--keys", "tokens"]).fails(2, "the tokens are not known", "--model");
    run("toy.index", "csr", &["--keys", "ids"]).fails(2, "--keys: only for the formats", "leave --keys out");
    run("toy.index", "parquet-postings", &["--impacts", "9"]).fails(2, "--impacts: only for", "leave --impacts out");
    run("toy.index", "jsonl", &["--impacts", "0"]).fails(2, "expected a number above 0", "--help");
    run("toy.index", "jsonl", &["--vector-ids", "x"]).fails(2, "have ids of their own", "leave --vector-ids out");
    run("none.jsonl", "jsonl", &[]).fails(2, "none.jsonl: no such file or folder", "");
    let stdout = ["export-vectors", "toy.index", "--format", "ciff", "--output", "-"];
    place.run(&stdout).fails(2, "only lines of jsonl are written to stdout", "--output FILE");
    assert_eq!(place.names(), before);
    let onto = ["export-vectors", "toy.index", "--format", "parquet-postings", "--overwrite", "--output", "model"];
    place.run(&onto).fails(2, "is there and has no postings.parquet", "another --output");
    for (format, output) in [("jsonl", "a.jsonl"), ("csr", "a.csr"), ("ciff", "a.ciff"), ("parquet-postings", "a")] {
        export(&place, format, output, &[]);
        let again = ["export-vectors", "toy.index", "--format", format, "--output", output];
        place.run(&again).fails(2, "exists already", "--overwrite");
        export(&place, format, output, &["--overwrite"]);
    }
    // a file of vectors holds them without a model where no name and no count is needed
    let args = ["export-vectors", "odd.jsonl", "--format", "jsonl", "--output", "-"];
    let expected = "{\"id\":\"d1\",\"content\":\"\",\"vector\":{\"3\":0.5}}\n\
                    {\"id\":\"d\\n2\",\"content\":\"\",\"vector\":{\"3\":-0.5,\"70000\":1.0}}\n";
    assert_eq!(place.ok(&args), expected);
}
