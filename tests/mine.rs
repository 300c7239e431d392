//! `splade mine`: pairs and a ranking → rows with hard negatives.
#![cfg(feature = "train")]

mod util;

use serde_json::{Value, json};
use util::{Place, Ran, fixture, ours, setup};

/// Two questions, the first with two answers; the toy corpus, indexed.
fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    place.write(
        "pairs.jsonl",
        "{\"query_id\": \"q1\", \"query\": \"hva er hovedstaden i Norge\", \"positive\": \"Oslo er hovedstaden i Norge og har rundt \
         700 000 innbyggere.\"}\n\
         {\"query_id\": \"q1\", \"query\": \"hva er hovedstaden i Norge\", \"positive\": \"nothing of the corpus\", \"positive_id\": \
         \"laks\"}\n\
         {\"query_id\": \"q2\", \"query\": \"hvor gyter torsken\", \"positive\": \"Torsk Skreien er torsk som vandrer fra Barentshavet \
         til Lofoten for å gyte.\"}\n",
    );
    place.ok(&["index", "model", "--input", "toy/corpus.jsonl", "--index", "toy.index"]);
    place
}

fn mine(place: &Place, args: &[&str]) -> Ran {
    place.run(&[&["mine", "pairs.jsonl"], args].concat())
}

fn rows(ran: Ran) -> Vec<Value> {
    ran.done().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The texts of the documents that a search finds, titles before them.
fn found(place: &Place, query: &str, mode: &str) -> Vec<(String, String)> {
    let answer = place.json(&["search", "--index", "toy.index", query, "-k", "12", "--json", "--mode", mode]);
    let hits = answer["hits"].as_array().unwrap();
    let text = |hit: &Value| {
        let [id, title, text] = ["_id", "title", "text"].map(|key| hit[key].as_str().unwrap_or_default().to_owned());
        (id, format!("{title} {text}").trim().to_owned())
    };
    hits.iter().map(text).collect()
}

#[test]
fn negatives_are_the_first_hits_that_are_no_known_positive() {
    let place = place();
    for mode in ["sparse", "bm25", "hybrid"] {
        let hits = found(&place, "hva er hovedstaden i Norge", mode);
        // both answers of the question are left out of the negatives of either
        let others: Vec<&String> =
            hits.iter().filter(|(id, _)| id != "oslo" && id != "laks").map(|(_, text)| text).collect();
        let mined = rows(mine(&place, &["--index", "toy.index", "--mode", mode]));
        let of_first = mined.iter().filter(|row| row["anchor"] == "hva er hovedstaden i Norge").collect::<Vec<_>>();
        assert_eq!(of_first.len(), 2 * usize::from(!others.is_empty()), "{mode}");
        for row in of_first {
            assert_eq!(row["negative_1"], json!(others[0]), "{mode}");
            assert_eq!(row.get("label"), None);
        }
    }
}

#[test]
fn a_window_of_ranks_and_a_margin_choose() {
    let place = place();
    let hits = found(&place, "hvor gyter torsken", "sparse");
    assert!(hits.len() > 5, "{hits:?}");
    let torsk = hits.iter().position(|(id, _)| id == "torsk").unwrap();
    let window = mine(&place, &["--index", "toy.index", "--ranks", "3-5", "--negatives", "2"]);
    let stderr = window.stderr.clone();
    let row = rows(window).into_iter().find(|row| row["anchor"] == "hvor gyter torsken").unwrap();
    let expected: Vec<&String> = (2..5).filter(|at| *at != torsk).map(|at| &hits[at].1).take(2).collect();
    assert_eq!([&row["negative_1"], &row["negative_2"]], [&json!(expected[0]), &json!(expected[1])]);
    assert!(stderr.contains(" of 3 rows written, "), "{stderr}");

    // below the positive's score, or below half of it
    let answer = place.json(&["search", "--index", "toy.index", "hvor gyter torsken", "-k", "12", "--json"]);
    let score = |id: &str| {
        let hits = answer["hits"].as_array().unwrap();
        hits.iter().find(|hit| hit["_id"] == id).unwrap()["score"].as_f64().unwrap()
    };
    for (flag, value, limit) in
        [("--margin", "0.01", score("torsk") - 0.01), ("--relative-margin", "0.3", 0.7 * score("torsk"))]
    {
        let expected = hits.iter().find(|(id, _)| score(id) <= limit);
        let ran =
            mine(&place, &["--index", "toy.index", flag, value, "--output", "out.jsonl", "--overwrite", "--json"]);
        let report: Value = serde_json::from_str(&ran.done()).unwrap();
        let written = place.read("out.jsonl");
        let row = written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let row = row.into_iter().find(|row| row["anchor"] == "hvor gyter torsken");
        assert_eq!(row.map(|row| row["negative_1"].clone()), expected.map(|(_, text)| json!(text)), "{flag}");
        // the text of the second positive is nowhere, but its id is
        assert_eq!(report["rows"], 3);
    }
}

#[test]
fn a_run_file_is_a_ranking_too() {
    let place = place();
    place.write(
        "run.trec",
        "q1 Q0 oslo 1 3.0 x\nq1 Q0 bergen 2 2.5 x\nq1 Q0 laks 3 2.0 x\nq2 Q0 torsk 1 9 x\nq2 Q0 tromso 2 8 x\n",
    );
    let run = ["--run", "run.trec", "--corpus", "toy/corpus.jsonl"];
    let mined = rows(mine(&place, &run));
    let negatives: Vec<&str> = mined.iter().map(|row| row["negative_1"].as_str().unwrap()).collect();
    assert!(
        negatives[0].starts_with("Bergen I Bergen")
            && negatives[1] == negatives[0]
            && negatives[2].starts_with("Tromsø")
    );
    assert_eq!(negatives.len(), 3);

    place.write("run.trec", "q1 Q0 gone 1 3.0 x\n");
    mine(&place, &run).fails(2, "toy/corpus.jsonl: no document gone, which the run names", "corpus");
    place.write("pairs.jsonl", "{\"query\": \"a\", \"positive\": \"b\"}\n");
    mine(&place, &run).fails(2, "pairs.jsonl:1: no query id, which --run needs", "");
}

#[test]
fn a_teacher_s_scores_train_with_margin_mse() {
    let place = place();
    let mined =
        mine(&place, &["--index", "toy.index", "--teacher", "model", "--negatives", "2", "--output", "mined.jsonl"]);
    mined.done();
    let rows: Vec<Value> = place.read("mined.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!rows.is_empty());
    for row in &rows {
        let label: Vec<f64> = row["label"].as_array().unwrap().iter().map(|label| label.as_f64().unwrap()).collect();
        assert_eq!(label.len(), 3);
        // the index holds the same vectors: its score of a negative is the teacher's
        let query = row["anchor"].as_str().unwrap();
        let answer = place.json(&["search", "--index", "toy.index", query, "-k", "12", "--json"]);
        let hits = answer["hits"].as_array().unwrap();
        let text =
            |hit: &Value| format!("{} {}", hit["title"].as_str().unwrap_or_default(), hit["text"].as_str().unwrap());
        let hit = hits.iter().find(|hit| text(hit).trim() == row["negative_1"].as_str().unwrap()).unwrap();
        assert!((hit["score"].as_f64().unwrap() - label[1]).abs() < 1e-4, "{hit} {label:?}");
    }
    place.write(
        "train.yaml",
        "
model: {base_model: model, load_pretrained_sparse_encoder: true}
training: {output_dir: out, max_steps: 2, per_device_train_batch_size: 2, max_seq_length: 32, eval_strategy: \"no\"}
loss: {inner_loss: sparse_margin_mse}
datasets: {mined: {files: [mined.jsonl]}}
",
    );
    assert_eq!(place.ok(&["train", "train.yaml"]), "out/final\n");
}

#[test]
fn what_cannot_be_mined_is_said() {
    let place = place();
    mine(&place, &["--index", "toy.index", "--ranks", "9-3"]).fails(2, "--ranks", "--help");
    mine(&place, &[]).fails(2, "--index", "--help");
    mine(&place, &["--index", "toy.index", "--json"]).fails(
        2,
        "--json and the rows both go to stdout",
        "--output FILE",
    );
    mine(&place, &["--index", "toy.index", "--negatives", "50"]).fails(2, "no row has 50 negatives left", "--ranks");
    mine(&place, &["--index", "nowhere"]).fails(2, "nowhere", "");
    place.write("pairs.jsonl", "{\"query\": \"a\", \"text\": \"b\"}\n");
    mine(&place, &["--index", "toy.index"]).fails(2, "pairs.jsonl:1: no positive text: looked for positive, pos", "");
    place.write("pairs.jsonl", "");
    mine(&place, &["--index", "toy.index"]).fails(2, "pairs.jsonl: there are no rows in it", "");
}
