//! Dense vectors beside the sparse ones: `index --dense`, `search --mode dense`, a third ranking in hybrid mode, `--dense-run`.

use serde_json::Value;

use super::*;

const DENSE_INDEX: [&str; 8] =
    ["index", "model", "--input", "corpus.jsonl", "--index", "dense.index", "--dense", "dense-model"];

/// A place with the dense model of `tests/data/dense-tiny`, and an index with its vectors.
fn place_with_dense() -> Place {
    let place = place();
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    place.ok(&DENSE_INDEX);
    place
}

/// Arguments of a dense search of all queries.
const SEARCH: [&str; 8] =
    ["search", "--index", "dense.index", "--queries", "queries.jsonl", "--dense", "dense-model", "-k"];

/// Arguments of a dense search of one query.
const ONE: [&str; 8] = ["search", "--index", "dense.index", "torsk", "--mode", "dense", "--dense", "dense-model"];

fn trec(place: &Place, args: &[&str]) -> String {
    place.ok(&with(args, &["--format", "trec"]))
}

/// Query, document and rank of every line of a run.
fn ranks(run: &str) -> Vec<[String; 3]> {
    let columns = run.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    columns.map(|line| [line[0].clone(), line[2].clone(), line[3].clone()]).collect()
}

#[test]
fn every_document_is_ranked_by_the_cosine() {
    let place = place_with_dense();
    let hits = place.json_lines(&with(&SEARCH, &["20", "--mode", "dense", "--json", "--explain"]));
    assert_eq!(hits.len(), 4);
    for query in &hits {
        let hits = query["hits"].as_array().unwrap();
        assert_eq!(hits.len(), 12);
        let scores: Vec<f64> = hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| score.abs() <= 1.0), "{scores:?}");
        for (rank, hit) in (1..).zip(hits) {
            let list = &hit["lists"][0];
            assert_eq!((&list["list"], &list["rank"]), (&Value::from("dense"), &Value::from(rank)), "{hit}");
            assert_eq!(list["score"], hit["score"]);
            assert_eq!((hit["lists"].as_array().unwrap().len(), hit["terms"].as_array().unwrap().len()), (1, 0));
        }
    }
    // the filter of the other modes
    let filtered = with(&SEARCH, &["20", "--mode", "dense", "--filter", "theme:by", "--json"]);
    let filtered = place.json_lines(&filtered);
    assert_eq!(filtered[0]["hits"].as_array().unwrap().len(), 3);
    let table = place.ok(&with(&ONE, &["--explain"]));
    assert!(table.contains("dense   rank 1, score"), "{table}");
}

#[test]
fn a_text_finds_itself_first() {
    let place = place_with_dense();
    place.ok(&with(&DENSE_INDEX, &["--overwrite", "--dense-query-prompt", "", "--dense-document-prompt", ""]));
    let text = "Fjord Sognefjorden";
    place.write("one.jsonl", format!("{{\"_id\": \"one\", \"text\": \"{text}\"}}\n"));
    let dense = ["--dense", "dense-model", "--dense-query-prompt", "", "--dense-document-prompt", ""];
    place.ok(&with(&["index", "model", "--index", "dense.index", "--append", "--input", "one.jsonl"], &dense));
    let search =
        ["search", "--index", "dense.index", text, "--mode", "dense", "--dense", "dense-model", "-k", "1", "--json"];
    let hit = &place.json(&search)["hits"][0];
    assert_eq!(hit["_id"], "one");
    assert!((hit["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{hit}");
}

#[test]
fn a_run_in_the_place_of_the_model_gives_the_same_ranking() {
    let place = place_with_dense();
    place.ok(&INDEX);
    let run = trec(&place, &with(&SEARCH, &["12", "--mode", "dense"]));
    place.write("dense.trec", &run);
    // the index without dense vectors
    let imported =
        ["search", "--index", "toy.index", "--queries", "queries.jsonl", "--dense-run", "dense.trec", "-k", "12"];
    assert_eq!(trec(&place, &with(&imported, &["--mode", "dense"])), run);
    let hybrid = trec(&place, &with(&imported, &["--mode", "hybrid"]));
    assert_eq!(trec(&place, &with(&SEARCH, &["12", "--mode", "hybrid"])), hybrid);
    let two = ["search", "--index", "toy.index", "--queries", "queries.jsonl", "-k", "12", "--mode", "hybrid"];
    assert_ne!(trec(&place, &two), hybrid, "the third ranking counts");
    // a weight of 0 leaves the ranking out, apart from the documents that it alone has
    let weighted = with(&SEARCH, &["12", "--mode", "hybrid", "--fusion", "weighted", "--weights", "0,0,1"]);
    assert_eq!(ranks(&trec(&place, &weighted)), ranks(&run));
    let filtered = with(&imported, &["--mode", "dense", "--filter", "theme:by"]);
    assert_eq!(trec(&place, &filtered).lines().count(), 3 * 4);
}

#[test]
fn an_explanation_has_the_place_in_each_of_three_rankings() {
    let place = place_with_dense();
    let hits = place.json_lines(&with(&SEARCH, &["12", "--mode", "hybrid", "--depth", "3", "--json", "--explain"]));
    let all = place.json_lines(&with(&SEARCH, &["12", "--mode", "dense", "--json"]));
    for (query, dense) in hits.iter().zip(&all) {
        for hit in query["hits"].as_array().unwrap() {
            let lists = hit["lists"].as_array().unwrap();
            let names: Vec<&str> = lists.iter().map(|list| list["list"].as_str().unwrap()).collect();
            assert_eq!(names, ["sparse", "bm25", "dense"]);
            // the exact score, below the depth too
            let same = dense["hits"].as_array().unwrap().iter().find(|other| other["_id"] == hit["_id"]).unwrap();
            assert_eq!(lists[2]["score"], same["score"]);
        }
    }
    let counts = place.json(&with(&ONE, &["--count-by", "theme", "--json"]));
    let themes = counts["counts"]["theme"]["values"].as_array().unwrap();
    assert_eq!(themes.iter().map(|value| value["count"].as_u64().unwrap()).sum::<u64>(), 12);
}

#[test]
fn appended_and_deleted_documents_keep_to_the_dense_vectors() {
    let place = place_with_dense();
    let corpus = place.read("corpus.jsonl");
    let (first, rest) = corpus.split_at(corpus.match_indices('\n').nth(4).unwrap().0 + 1);
    place.write("first.jsonl", first);
    place.write("rest.jsonl", rest);
    let expected = trec(&place, &with(&SEARCH, &["20", "--mode", "dense"]));
    let dense = ["--dense", "dense-model"];
    place.ok(&with(&["index", "model", "--index", "dense.index", "--overwrite", "--input", "first.jsonl"], &dense));
    let append = ["index", "model", "--index", "dense.index", "--append", "--input"];
    // documents with ids that are taken are replaced
    place.ok(&with(&append, &["corpus.jsonl", "--dense", "dense-model"]));
    assert_eq!(trec(&place, &with(&SEARCH, &["20", "--mode", "dense"])), expected);
    place.ok(&["index", "--optimize", "dense.index"]);
    assert_eq!(trec(&place, &with(&SEARCH, &["20", "--mode", "dense"])), expected);
    place.write("gone.txt", "oslo\nfjord\n");
    place.ok(&["index", "model", "--index", "dense.index", "--append", "--delete", "gone.txt"]);
    let left: Vec<&str> =
        expected.lines().filter(|line| !line.contains(" oslo ") && !line.contains(" fjord ")).collect();
    let found = trec(&place, &with(&SEARCH, &["20", "--mode", "dense"]));
    let documents =
        |lines: &[&str]| lines.iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(documents(&found.lines().collect::<Vec<_>>()), documents(&left));
    assert!(place.ok(&["index", "--check", "dense.index"]).contains("sound"));
    let inspected = place.ok(&["inspect", "dense.index"]);
    assert!(inspected.contains("dense vectors") && inspected.contains("32 dimensions"), "{inspected}");

    place.run(&with(&append, &["rest.jsonl"])).fails(2, "its documents have dense vectors", "--dense MODEL");
    place.copy(&ours("data/dense-tiny/model"), "other-model");
    place.write("other-model/1_Pooling/config.json", "{\"pooling_mode\": \"cls\"}");
    place.run(&with(&append, &["rest.jsonl", "--dense", "other-model"])).fails(
        2,
        "built with another dense model",
        "make the index anew",
    );
    place.run(&with(&append, &["rest.jsonl", "--dense", "dense-model", "--dense-query-prompt", "x"])).fails(
        2,
        "built with another prompt of dense queries",
        "make the index anew",
    );
    let other = ["search", "--index", "dense.index", "torsk", "--mode", "dense", "--dense", "other-model"];
    place.run(&other).fails(2, "built with another dense model", "make the index anew");
    place.ok(&INDEX);
    let plain =
        ["index", "model", "--index", "toy.index", "--append", "--input", "rest.jsonl", "--dense", "dense-model"];
    place.run(&plain).fails(2, "its documents have no dense vectors", "leave --dense out");
}

#[test]
fn ready_sparse_vectors_get_dense_ones_from_the_texts() {
    let place = place_with_dense();
    let expected = trec(&place, &with(&SEARCH, &["20", "--mode", "hybrid"]));
    place.ok(&with(&ENCODE, &["--output", "v.jsonl"]));
    place.ok(&with(&DENSE_INDEX, &["--overwrite", "--vectors", "v.jsonl"]));
    assert_eq!(trec(&place, &with(&SEARCH, &["20", "--mode", "hybrid"])), expected);
    let alone = ["index", "model", "--index", "x.index", "--vectors", "v.jsonl", "--dense", "dense-model"];
    place.run(&alone).fails(2, "--vectors alone has no texts", "--input");
}

#[test]
fn flags_that_no_ranking_reads_are_refused() {
    let place = place_with_dense();
    place.ok(&INDEX);
    let search = ["search", "--index", "dense.index", "torsk"];
    place.run(&with(&search, &["--mode", "dense"])).fails(2, "--mode dense: no dense ranking", "--dense-run");
    place.run(&with(&search, &["--dense", "dense-model"])).fails(
        2,
        "--dense has no effect in the mode sparse",
        "--mode hybrid",
    );
    place.run(&with(&search, &["--dense-run", "x"])).fails(2, "a run is found by the ids of queries", "--queries");
    place.run(&with(&search, &["--mode", "dense", "--dense", "dense-model", "--min-weight", "1"])).fails(
        2,
        "the mode dense has no sparse ones",
        "another --mode",
    );
    let without = ["search", "--index", "toy.index", "torsk", "--mode", "dense", "--dense", "dense-model"];
    place.run(&without).fails(2, "toy.index: the index has no dense vectors", "index --dense MODEL");
    let weights = ["--mode", "hybrid", "--dense", "dense-model", "--fusion", "weighted", "--weights", "1,2"];
    place.run(&with(&search, &weights)).fails(2, "--weights has 2 numbers, and 3 rankings are fused", "third number");
    let none = ["--mode", "hybrid", "--fusion", "weighted", "--weights", "0,0"];
    place.run(&with(&search, &none)).fails(2, "expected a weight that is not 0", "--help");
    let names = place.names();
    let passages = ["index", "model", "--input", "corpus.jsonl", "--index", "both.index", "--dense", "dense-model"];
    place.run(&with(&passages, &["--passages", "16"])).fails(2, "cannot be used with", "--help");
    assert_eq!(place.names(), names);
    place.write("dense-model/modules.json", "[{\"idx\": 0, \"path\": \"\", \"type\": \"s.Transformer\"}, {\"idx\": 1, \"path\": \"d\", \"type\": \"s.Dense\"}]");
    place.run(&with(&DENSE_INDEX, &["--overwrite"])).fails(2, "modules Transformer + Dense are not supported", "");
}
