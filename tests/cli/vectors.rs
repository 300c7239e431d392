//! Vectors made elsewhere, of documents and of queries.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use super::*;

/// A place with the vectors of the toy corpus and of its queries.
fn place_with_vectors() -> Place {
    let place = place();
    place.ok(&with(&ENCODE, &["--output", "v.jsonl"]));
    place.ok(&["encode", "model", "--input", "queries.jsonl", "--role", "query", "--output", "q.jsonl"]);
    place.ok(&INDEX);
    place
}

fn hits(place: &Place, index: &str, more: &[&str]) -> String {
    place.ok(&with(&["search", "--index", index, "-k", "5", "--format", "trec"], more))
}

/// The vectors of `v.jsonl` as a matrix in a safetensors file, and their ids.
fn to_matrix(place: &Place) {
    let rows: Vec<Value> = place.read("v.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut ends, mut dims, mut weights, mut ids) = (vec![0_i64], Vec::new(), Vec::new(), String::new());
    for row in &rows {
        dims.extend(row["indices"].as_array().unwrap().iter().map(|dim| dim.as_i64().unwrap() as i32));
        weights.extend(row["values"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap() as f32));
        ends.push(dims.len() as i64);
        ids += &format!("{}\n", row["_id"].as_str().unwrap());
    }
    let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let weights: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let views =
        [("indptr", Dtype::I64, &ends, 8), ("indices", Dtype::I32, &dims, 4), ("data", Dtype::F32, &weights, 4)];
    let views = views
        .map(|(name, dtype, bytes, width)| (name, TensorView::new(dtype, vec![bytes.len() / width], bytes).unwrap()));
    place.write("v.safetensors", safetensors::serialize(views, None).unwrap());
    place.write("ids.txt", ids);
}

#[test]
fn documents_by_vectors_of_every_form_are_found_alike() {
    let place = place_with_vectors();
    to_matrix(&place);
    let named = place.ok(&with(&ENCODE, &["--format", "tokens"]));
    place.write("named.jsonl", named.replace("\"_id\"", "\"id\"").replace("\"tokens\"", "\"vector\""));
    let expected = hits(&place, "toy.index", &["--queries", "queries.jsonl"]);
    let forms: [&[&str]; 5] = [
        &["--vectors", "v.jsonl"],
        &["--vectors", "named.jsonl"],
        &["--vectors", "v.safetensors", "--vector-ids", "ids.txt"],
        &["--vectors", "v.safetensors", "--input", "corpus.jsonl"],
        &["--vectors", "named.jsonl", "--input", "corpus.jsonl"],
    ];
    for form in forms {
        place.ok(&with(&["index", "model", "--index", "other.index", "--overwrite"], form));
        assert_eq!(hits(&place, "other.index", &["--queries", "queries.jsonl"]), expected, "{form:?}");
    }
    place.ok(&["index", "model", "--index", "numbered.index", "--vectors", "v.safetensors"]);
    assert!(hits(&place, "numbered.index", &["--queries", "queries.jsonl"]).contains(" Q0 0 "));
    place.write("ids.txt", "one\n");
    let wrong = ["index", "model", "--index", "wrong.index", "--vectors", "v.safetensors", "--vector-ids", "ids.txt"];
    place.run(&wrong).fails(2, "ids.txt: 1 ids, and v.safetensors has more rows", "");
    let wrong = ["index", "model", "--index", "wrong.index", "--vectors", "v.jsonl", "--vector-ids", "ids.txt"];
    place.run(&wrong).fails(2, "whose lines have ids of their own", "");
    assert!(!place.names().iter().any(|name| name.starts_with("wrong")), "{:?}", place.names());
}

#[test]
fn queries_by_their_vectors_find_what_their_texts_find() {
    let place = place_with_vectors();
    let texts = hits(&place, "toy.index", &["--queries", "queries.jsonl"]);
    assert_eq!(hits(&place, "toy.index", &["--query-vectors", "q.jsonl"]), texts);
    for mode in ["sparse", "hybrid", "bm25"] {
        let with_texts = hits(&place, "toy.index", &["--queries", "queries.jsonl", "--mode", mode]);
        let args = ["--queries", "queries.jsonl", "--query-vectors", "q.jsonl", "--mode", mode];
        assert_eq!(hits(&place, "toy.index", &args), with_texts, "{mode}");
    }
    let alone = ["search", "--index", "toy.index", "--query-vectors", "q.jsonl", "--mode", "hybrid"];
    place.run(&alone).fails(2, "q.jsonl: vectors alone have no text to search by BM25", "--queries too");
    place.write("q.jsonl", place.read("q.jsonl").lines().rev().map(|line| format!("{line}\n")).collect::<String>());
    let swapped = ["search", "--index", "toy.index", "--queries", "queries.jsonl", "--query-vectors", "q.jsonl"];
    place.run(&swapped).fails(2, "where the file of queries has", "encode --role query");
}
