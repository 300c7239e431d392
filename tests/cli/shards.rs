//! `--shard` and `merge`: shards equal one run, incomplete and mixed sets are refused by name, a command can be run again.

use serde_json::Value;

use super::*;

/// A folder with a tiny model and a Norwegian corpus of 150 pages with fields.
fn place_with_pages() -> Place {
    let place = place();
    let pages = std::fs::read_to_string(ours("data/lohelp-nb/corpus.jsonl")).unwrap();
    let mut corpus = String::new();
    for (at, line) in pages.lines().take(150).enumerate() {
        let mut page: Value = serde_json::from_str(line).unwrap();
        page["theme"] = ["calc", "writer", "impress"][at % 3].into();
        page["number"] = at.into();
        corpus += &format!("{page}\n");
    }
    place.write("pages.jsonl", corpus);
    place.ok(&["export-onnx", "model", "--precision", "fp32,fp16,int8", "--no-verify"]);
    place
}

const PAGES: [&str; 6] = ["encode", "model", "--input", "pages.jsonl", "--role", "document"];

/// Encodes every shard into `NAME.I.jsonl`. Returns the names.
fn encode_shards(place: &Place, name: &str, count: usize, more: &[&str]) -> Vec<String> {
    let shards = (0..count).map(|at| {
        let output = format!("{name}.{at}.jsonl");
        place.ok(&with(&PAGES, &with(&["--output", &output, "--shard", &format!("{at}/{count}")], more)));
        output
    });
    shards.collect()
}

fn merge(place: &Place, shards: &[String], more: &[&str]) -> util::Ran {
    let mut shards: Vec<&str> = shards.iter().map(String::as_str).collect();
    // the order of the arguments is of no effect
    shards.reverse();
    place.run(&with(&["merge"], &with(&shards, more)))
}

/// Splits the corpus into `PART.I.jsonl`, parts of different sizes.
fn split(place: &Place, count: usize) {
    let corpus = place.read("pages.jsonl");
    let lines: Vec<&str> = corpus.lines().collect();
    let mut rest = &lines[..];
    for at in 0..count {
        let size = if at + 1 == count { rest.len() } else { 20 + 7 * at };
        let (part, later) = rest.split_at(size);
        place.write(&format!("part.{at}.jsonl"), part.join("\n") + "\n");
        rest = later;
    }
}

#[test]
fn vectors_of_shards_merge_to_the_file_of_one_run() {
    let place = place_with_pages();
    for (name, flags) in [
        ("onnx", &["--backend", "onnx"][..]),
        ("fp16", &["--precision", "fp16", "--threads", "1", "--format", "tokens", "--mass", "0.9"]),
        // the vectors of these depend on the batch
        ("candle", &["--backend", "candle", "--batch-tokens", "1"]),
        ("int8", &["--precision", "int8", "--batch-tokens", "1"]),
    ] {
        let one = place.ok(&with(&PAGES, flags));
        assert_eq!(one.lines().count(), 150);
        for count in [1, 2, 7] {
            let shards = encode_shards(&place, &format!("{name}.{count}"), count, flags);
            assert_eq!(merge(&place, &shards, &["--output", "-"]).done(), one, "{name}, {count} shards");
        }
    }
}

#[test]
fn parts_of_an_input_merge_in_their_order() {
    let place = place_with_pages();
    split(&place, 4);
    let one = place.ok(&PAGES);
    let shards: Vec<String> = (0..4).map(|at| format!("v.{at}.jsonl")).collect();
    for (at, output) in shards.iter().enumerate() {
        let (input, shard) = (format!("part.{at}.jsonl"), format!("{at}/4"));
        place.ok(&[
            "encode",
            "model",
            "--input",
            &input,
            "--role",
            "document",
            "--output",
            output,
            "--shard",
            &shard,
            "--presplit",
        ]);
    }
    merge(&place, &shards, &["--output", "merged.jsonl"]).done();
    assert_eq!(place.read("merged.jsonl"), one);
    merge(&place, &shards, &["--output", "merged.jsonl"]).fails(2, "exists already", "--overwrite");
    // a part that begins with the last document of the one before
    let first = place.read("part.0.jsonl");
    let last = first.lines().last().unwrap();
    place.write("part.1.jsonl", format!("{last}\n{}", place.read("part.1.jsonl")));
    let again = [
        "encode",
        "model",
        "--input",
        "part.1.jsonl",
        "--role",
        "document",
        "--output",
        "v.1.jsonl",
        "--shard",
        "1/4",
        "--presplit",
        "--overwrite",
    ];
    place.ok(&again);
    let ran = merge(&place, &shards, &["--output", "merged.jsonl", "--overwrite"]);
    ran.fails(2, "v.1.jsonl:1: the id \"nb-", "");
    assert_eq!(place.read("merged.jsonl"), one, "a failed merge leaves the old file");
}

#[test]
fn the_file_of_a_shard_is_a_vector_file() {
    let place = place_with_pages();
    let shards = encode_shards(&place, "v", 2, &[]);
    let inspected = place.json(&["inspect", &shards[1], "--json"]);
    let manifest: Value = serde_json::from_str(&place.read("v.1.jsonl.shard.json")).unwrap();
    assert_eq!(inspected["sparsity"]["count"], manifest["documents"], "{inspected:#}");
    place.ok(&["index", "model", "--vectors", &shards[1], "--index", "bare.index"]);
}

#[test]
fn sets_that_are_not_one_job_are_refused_by_name() {
    let place = place_with_pages();
    let shards = encode_shards(&place, "v", 3, &[]);
    let merge_of = |shards: &[&str]| place.run(&with(&with(&["merge"], shards), &["--output", "merged.jsonl"]));
    let names: Vec<&str> = shards.iter().map(String::as_str).collect();
    let [a, b, c] = names[..] else { panic!() };
    merge_of(&[a, c]).fails(2, "missing shards: 1/3", "--shard");
    merge_of(&[a, b, b, c]).fails(2, "v.1.jsonl: shard 1/3, as is v.1.jsonl", "");
    merge_of(&[a, b, "none.jsonl"]).fails(2, "none.jsonl: no shard", "");
    merge_of(&[a, b, "model"]).fails(2, "model: no shard", "");
    place.ok(&with(&PAGES, &["--output", "short.jsonl", "--shard", "1/3", "--max-length", "20"]));
    merge_of(&[a, "short.jsonl", c]).fails(2, "short.jsonl: max_length is", "");
    place.ok(&with(&PAGES, &["--output", "four.jsonl", "--shard", "1/4"]));
    merge_of(&[a, "four.jsonl", c]).fails(2, "shard 0/3 and shard 1/4", "");
    place.run(&["merge", a, b, c, "--index", "merged.index"]).fails(2, "the shards are vector files", "--output FILE");
    // another model
    place.copy(&fixture("splade/model"), "other");
    place.ok(&[
        "encode",
        "other",
        "--input",
        "pages.jsonl",
        "--role",
        "document",
        "--output",
        "o.jsonl",
        "--shard",
        "1/3",
    ]);
    merge_of(&[a, "o.jsonl", c]).fails(2, "o.jsonl: model is", "");
    // another input
    let corpus = place.read("pages.jsonl");
    place.write("pages.jsonl", corpus.replacen("theme", "topic", 1).replacen("text\":\"", "text\":\"Ny ", 1));
    place.ok(&with(&PAGES, &["--output", "new.jsonl", "--shard", "1/3"]));
    merge_of(&[a, "new.jsonl", c]).fails(2, "their inputs have other documents", "");
    assert!(!place.path("merged.jsonl").exists());
}

#[test]
fn damaged_shards_are_refused_by_name() {
    let place = place_with_pages();
    let shards = encode_shards(&place, "v", 2, &[]);
    let (good, manifest) = (place.read("v.1.jsonl"), place.read("v.1.jsonl.shard.json"));
    let lines: Vec<&str> = good.lines().collect();
    let without =
        |at: usize| lines.iter().enumerate().filter(move |(row, _)| *row != at).map(|(_, line)| format!("{line}\n"));
    let other_id = good.replacen("nb-", "nc-", 1);
    for (content, expected) in [
        (good.replacen("0.", "1.", 1), "its checksum is wrong"),
        (good[..good.len() - 40].to_owned(), "damaged"),
        (format!("{good}{{}}\n"), "damaged"),
        (without(3).collect(), "v.1.jsonl: damaged"),
        (without(lines.len() - 1).collect(), "v.1.jsonl"),
        ("x".repeat(good.len()), "v.1.jsonl:1: damaged"),
        (String::new(), "v.1.jsonl"),
        (other_id, "v.1.jsonl"),
    ] {
        assert_ne!(content, good);
        place.write("v.1.jsonl", content);
        let ran = merge(&place, &shards, &["--output", "merged.jsonl"]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    place.write("v.1.jsonl", &good);
    for (from, to, expected) in [
        ("\"version\": 1", "\"version\": 9", "v.1.jsonl.shard.json: version 9"),
        ("{", "", "v.1.jsonl.shard.json: not a manifest"),
        ("\"bytes\": ", "\"bytes\": 1", "v.1.jsonl: damaged"),
        ("\"ids_digest\": \"", "\"ids_digest\": \"0", "v.1.jsonl: its documents are not those"),
    ] {
        place.write("v.1.jsonl.shard.json", manifest.replacen(from, to, 1));
        merge(&place, &shards, &["--output", "merged.jsonl"]).fails(2, expected, "");
    }
    place.write("v.1.jsonl.shard.json", &manifest);
    std::fs::remove_file(place.path("v.1.jsonl")).unwrap();
    merge(&place, &shards, &["--output", "merged.jsonl"]).fails(2, "v.1.jsonl: missing", "");
    assert!(!place.names().iter().any(|name| name.starts_with("merged") || name.starts_with(".splade")));
}

#[test]
fn the_command_of_a_shard_can_be_run_again() {
    let place = place_with_pages();
    let command = with(&PAGES, &["--output", "v.jsonl", "--shard", "0/2"]);
    place.ok(&command);
    let written = |name: &str| std::fs::metadata(place.path(name)).unwrap().modified().unwrap();
    let (first, time) = (place.read("v.jsonl"), written("v.jsonl"));
    let ran = place.run(&command);
    assert!(ran.stderr.contains("v.jsonl: shard 0/2 is complete already"), "{}", ran.stderr);
    assert_eq!((ran.code, written("v.jsonl")), (Some(0), time));
    place.run(&with(&PAGES, &["--output", "v.jsonl", "--shard", "1/2"])).fails(2, "it is shard 0/2", "--overwrite");
    place.run(&with(&command, &["--max-length", "20"])).fails(2, "max_length is", "--overwrite");
    // killed between the manifest and the file
    std::fs::remove_file(place.path("v.jsonl")).unwrap();
    place.ok(&command);
    assert_eq!(place.read("v.jsonl"), first);
    edit(&place, "v.jsonl", "0.", "1.");
    place.run(&command).fails(2, "damaged", "--overwrite");
    place.ok(&with(&command, &["--overwrite"]));
    assert_eq!(place.read("v.jsonl"), first);
    edit(&place, "pages.jsonl", "\"text\":\"", "\"text\":\"Ny ");
    place.run(&command).fails(2, "it was made from another input", "--overwrite");
    std::fs::remove_file(place.path("v.jsonl.shard.json")).unwrap();
    place.run(&command).fails(2, "v.jsonl: exists already", "--overwrite");
    place.run(&with(&PAGES, &["--shard", "0/2"])).fails(2, "it needs a file", "--output FILE");
    place.run(&with(&PAGES, &["--output", "w", "--shard", "2/2"])).fails(2, "from 0 to 1", "--help");
    place.run(&with(&PAGES, &["--output", "w", "--presplit"])).fails(2, "--shard", "--help");
}

/// Arguments of an index of the pages.
const INDEX_PAGES: [&str; 6] = ["index", "model", "--input", "pages.jsonl", "--language", "norwegian"];

/// Indexes every shard into `NAME.I.index`, and merges them into `NAME.merged`.
fn merged_index(place: &Place, name: &str, count: usize, more: &[&str]) -> String {
    let shards: Vec<String> = (0..count).map(|at| format!("{name}.{at}.index")).collect();
    for (at, dir) in shards.iter().enumerate() {
        place.ok(&with(&INDEX_PAGES, &with(&["--index", dir, "--shard", &format!("{at}/{count}")], more)));
    }
    let merged = format!("{name}.merged");
    merge(place, &shards, &["--index", &merged]).done();
    place.ok(&["index", "--check", &merged]);
    for dir in &shards {
        place.ok(&["index", "--check", dir]);
    }
    merged
}

/// Hits of all queries in several modes, as text.
fn answers(place: &Place, index: &str) -> String {
    let search = |flags: &[&str]| {
        let all = ["search", "--index", index, "--queries", "questions.jsonl", "-k", "20", "--json", "--explain"];
        place.ok(&with(&all, flags))
    };
    [
        &["--mode", "sparse"][..],
        &["--mode", "bm25"],
        &["--mode", "hybrid"],
        &["--mode", "hybrid", "--fusion", "weighted", "--scaling", "distribution"],
        &["--mode", "bm25", "--bm25-k1", "0.9", "--bm25-b", "0.4"],
        &["--filter", "theme:calc AND number:[10 TO 90]"],
    ]
    .map(search)
    .concat()
}

fn write_questions(place: &Place) {
    let questions = std::fs::read_to_string(ours("data/lohelp-nb/queries.jsonl")).unwrap();
    place.write("questions.jsonl", questions.lines().take(25).map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn a_merged_index_answers_as_the_index_of_one_run() {
    let place = place_with_pages();
    write_questions(&place);
    place.ok(&with(&INDEX_PAGES, &["--index", "one.index"]));
    let expected = answers(&place, "one.index");
    let counts = |index: &str| {
        place.ok(&[
            "search",
            "--index",
            index,
            "celler i tabell",
            "--count-by",
            "theme",
            "--count-by",
            "number",
            "--json",
        ])
    };
    let stats = |index: &str| {
        let stats = place.json(&["inspect", index, "--json"]);
        ["documents", "postings", "active_terms", "segments"].map(|key| stats[key].clone())
    };
    for count in [1, 3, 200] {
        let merged = merged_index(&place, &format!("m{count}"), count, &[]);
        assert_eq!(answers(&place, &merged), expected, "{count} shards");
        assert_eq!(counts(&merged), counts("one.index"));
        assert_eq!(stats(&merged), stats("one.index"), "{count} shards");
    }
    // later changes
    place.write(
        "more.jsonl",
        "{\"_id\": \"new\", \"text\": \"Celler i tabeller\", \"theme\": \"calc\", \"number\": 20}\n",
    );
    let ids: Vec<String> = place.read("pages.jsonl").lines().step_by(4).map(id_of).collect();
    place.write("gone.txt", ids.join("\n"));
    for index in ["one.index", "m3.merged"] {
        place.ok(&["index", "model", "--index", index, "--append", "--input", "more.jsonl", "--delete", "gone.txt"]);
    }
    let expected = answers(&place, "one.index");
    assert_eq!(answers(&place, "m3.merged"), expected);
    for index in ["one.index", "m3.merged"] {
        place.ok(&["index", "--optimize", index]);
    }
    assert_eq!(answers(&place, "m3.merged"), answers(&place, "one.index"));
}

fn id_of(line: &str) -> String {
    let page: Value = serde_json::from_str(line).unwrap();
    page["_id"].as_str().unwrap().to_owned()
}

#[test]
fn merged_passages_and_small_weights_answer_as_those_of_one_run() {
    let place = place_with_pages();
    write_questions(&place);
    for (name, flags) in
        [("passages", ["--passages", "24/6"]), ("f16", ["--weight-format", "f16"]), ("u8", ["--weight-format", "u8"])]
    {
        let one = format!("{name}.one");
        place.ok(&with(&INDEX_PAGES, &with(&["--index", &one], &flags)));
        let merged = merged_index(&place, name, 3, &flags);
        assert_eq!(answers(&place, &merged), answers(&place, &one), "{name}");
    }
}

#[test]
fn merged_dense_vectors_answer_as_those_of_one_run() {
    let place = place_with_pages();
    write_questions(&place);
    place.copy(&ours("data/dense-tiny/model"), "dense");
    let dense = ["--dense", "dense"];
    place.ok(&with(&INDEX_PAGES, &with(&["--index", "one.index"], &dense)));
    let merged = merged_index(&place, "m", 3, &dense);
    assert_eq!(answers(&place, &merged), answers(&place, "one.index"));
    for mode in ["dense", "hybrid"] {
        let search = |index| {
            let all = ["search", "--index", index, "--queries", "questions.jsonl", "--mode", mode, "--json"];
            place.ok(&with(&all, &dense))
        };
        assert_eq!(search(merged.as_str()), search("one.index"), "{mode}");
    }
}

#[test]
fn parts_of_an_input_make_one_index() {
    let place = place_with_pages();
    write_questions(&place);
    split(&place, 3);
    let fields = ["--fields", "theme:keyword,number:int"];
    place.ok(&with(&INDEX_PAGES, &with(&["--index", "one.index"], &fields)));
    let shards: Vec<String> = (0..3).map(|at| format!("{at}.index")).collect();
    let index = |at: usize, more: &[&str]| {
        let (input, shard) = (format!("part.{at}.jsonl"), format!("{at}/3"));
        let part = ["index", "model", "--input", &input, "--index", &shards[at], "--shard", &shard, "--presplit"];
        place.run(&with(&with(&part, &fields), more))
    };
    (0..3).for_each(|at| drop(index(at, &["--language", "norwegian"]).done()));
    merge(&place, &shards, &["--index", "merged"]).done();
    assert_eq!(answers(&place, "merged"), answers(&place, "one.index"));
    // other settings, a double id, a change
    index(1, &["--language", "danish", "--overwrite"]).done();
    merge(&place, &shards, &["--index", "x"]).fails(2, "1.index: language is", "");
    let first = place.read("part.0.jsonl");
    place.write("part.1.jsonl", format!("{}{}\n", place.read("part.1.jsonl"), first.lines().next().unwrap()));
    index(1, &["--language", "norwegian", "--overwrite"]).done();
    merge(&place, &shards, &["--index", "x"]).fails(2, "1.index: the id \"nb-", "an id of its own");
    place.write("gone.txt", id_of(first.lines().next().unwrap()));
    place.ok(&["index", "model", "--index", "1.index", "--append", "--delete", "gone.txt"]);
    merge(&place, &shards, &["--index", "x"]).fails(2, "1.index: ", "changed after it was made");
    let file = names(&place.path("2.index/tantivy")).into_iter().find(|name| name.ends_with(".spl")).unwrap();
    let path = place.path("2.index/tantivy").join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let ran = merge(&place, &[shards[0].clone(), shards[2].clone()], &["--index", "x"]);
    ran.fails(2, "missing shards: 1/3", "--shard");
    index(1, &["--language", "norwegian", "--overwrite"]).done();
    merge(&place, &shards, &["--index", "x"]).fails(2, "2.index/tantivy/", "make the shard anew");
    assert!(!place.names().iter().any(|name| name == "x" || name.starts_with(".splade")));
}

#[test]
fn the_index_of_a_shard_is_resumed_and_stays_when_it_is_complete() {
    let place = place_with_pages();
    let vectors = place.ok(&PAGES);
    place.write("vectors.jsonl", vectors);
    let shard = ["--vectors", "vectors.jsonl", "--shard", "1/2", "--checkpoint-every", "10", "--index"];
    place.ok(&with(&INDEX_PAGES, &with(&shard, &["whole.index"])));
    let command = with(&INDEX_PAGES, &with(&shard, &["s.index"]));
    for _ in 0..4 {
        let mut child = place.command(&command).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.ok(&command);
    assert_eq!(place.read("s.index/shard.json"), place.read("whole.index/shard.json"));
    let ran = place.run(&command);
    assert!(ran.code == Some(0) && ran.stderr.contains("s.index: shard 1/2 is complete already"), "{}", ran.stderr);
    place.run(&with(&command, &["--fields", "none"])).fails(2, "fields is", "--overwrite");
    place.run(&with(&command, &["--append"])).fails(2, "cannot be used with", "--help");
    place.run(&with(&INDEX_PAGES, &["--shard", "0/2", "--index", "t.index", "--delete", "x"])).fails(
        2,
        "cannot be used with",
        "--help",
    );
}

#[test]
fn a_killed_merge_leaves_nothing_or_the_index() {
    let place = place_with_pages();
    write_questions(&place);
    place.ok(&with(&INDEX_PAGES, &["--index", "one.index"]));
    let expected = answers(&place, "one.index");
    merged_index(&place, "m", 3, &[]);
    let command = ["merge", "m.0.index", "m.1.index", "m.2.index", "--index", "again"];
    let mut n_complete = 0;
    for wait in 0..12 {
        let mut child = place.command(&command).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5 * wait));
        child.kill().unwrap();
        child.wait().unwrap();
        if place.path("again").exists() {
            assert_eq!(answers(&place, "again"), expected);
            std::fs::remove_dir_all(place.path("again")).unwrap();
            n_complete += 1;
        }
    }
    place.ok(&command);
    assert_eq!(answers(&place, "again"), expected, "{n_complete} of 12 were complete");
    assert!(!place.names().iter().any(|name| name.starts_with(".splade")), "{:?}", place.names());
    // the shards are as they were
    merge(&place, &["m.0.index".into(), "m.1.index".into(), "m.2.index".into()], &["--index", "third"]).done();
}
