//! Runs every example of `--help` and every `splade` command of the README.
//!
//! The working folder has the files that they name: a tiny model as `demo/model/final`, a toy corpus, and so on. Only
//! `shortened` changes an example.
#![cfg(all(feature = "train", unix))]

mod util;

use std::io::Write;
use std::process::Command;

use util::lucene::Lucene;
use util::qdrant::Qdrant;
use util::{COMMANDS, Place, fixture, onnx_runtime, ours, setup};

// one of each for every test, which runs on a thread of its own: all use the same collections
thread_local! {
    /// Engine that examples find at `http://localhost:6333`, with the collection `nb`.
    static QDRANT: Qdrant = Qdrant::start();
    /// Engine that examples find at `http://localhost:9200`.
    static OPENSEARCH: Lucene = Lucene::start("3.6.0");
}

/// A folder with every file that an example names.
fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "demo/model/final");
    place.copy(&ours("data/toy"), "tests/data/lohelp-nb");
    place.copy(&ours("data/toy/corpus.jsonl"), "corpus.jsonl");
    place.copy(&ours("data/toy/qrels/test.tsv"), "qrels.tsv");
    place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
    place.copy(&ours("data/toy/qrels"), "qrels");
    place.copy(&ours("../configs"), "configs");
    place.copy(&ours("data/lohelp-nb/train"), "tests/data/lohelp-nb/train");
    place.copy(&ours("fixtures/models/bert-tiny"), "demo/pretrained/final");
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    place.write("keys.txt", "0123456789abcdef0123456789abcdef\n");
    place.write("more.jsonl", "{\"_id\": \"new\", \"text\": \"Et nytt dokument om fjorden.\"}\n");
    place.write("gone.txt", "d1\n");
    place.write(
        "pairs.jsonl",
        "{\"query\": \"hva er hovedstaden i Norge\", \"positive\": \"Oslo er hovedstaden i Norge og har rundt 700 000 innbyggere.\"}\n",
    );
    place.write("texts.jsonl", "{\"_id\": \"1\", \"text\": \"Blåbær i skogen.\"}\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(place.read("corpus.jsonl").as_bytes()).unwrap();
    place.write("corpus.jsonl.gz", packed.finish().unwrap());
    place.ok(&["export-onnx", "demo/model/final", "--no-verify"]);
    place.ok(&["index", "demo/model/final", "--input", "corpus.jsonl", "--index", "demo/help.index"]);
    run(
        &place,
        "splade push-index demo/help.index --to qdrant --url http://localhost:6333 --collection nb --overwrite",
    );
    place.ok(&["index", "demo/model/final", "--input", "corpus.jsonl", "--index", "news.index"]);
    let search = ["search", "--index", "demo/help.index", "--queries", "queries.jsonl", "--format", "trec"];
    for (at, shard) in ["0/2", "1/2"].iter().enumerate() {
        let input = ["--input", "corpus.jsonl", "--shard", shard];
        place.ok(&[&["index", "demo/model/final", "--index", &format!("shards/{at}.index")][..], &input].concat());
        let vectors = format!("shards/{at}.jsonl");
        place.ok(&[&["encode", "demo/model/final", "--role", "document", "--output", &vectors][..], &input].concat());
    }
    place.write("run.trec", place.ok(&search));
    place.write("bm25.trec", place.ok(&[&search[..], &["--mode", "bm25"]].concat()));
    let reference = ["encode", "demo/model/final", "--input", "texts.jsonl", "--role", "document"];
    place.write("python.jsonl", place.ok(&reference));
    place
}

/// Arguments after that of `--port`.
fn after_port(example: &str) -> String {
    let rest = example.split_once(" --port ").map_or("", |(_, rest)| rest);
    rest.split_once(' ').map_or_else(String::new, |(_, rest)| format!(" {rest}"))
}

/// Adds `--dry-run` to trainings and uploads, and `--overwrite` where an earlier example wrote the same files.
fn shortened(example: &str) -> String {
    let writes = [
        "splade export-onnx ",
        "splade index ",
        "splade export-vectors ",
        "splade eval-mteb ",
        "splade encode ",
        "splade mine ",
        "splade eval-run ",
        "splade tune ",
        "splade merge ",
        "splade man --output ",
    ];
    let no_file = ["--append", "--hybrid"].iter().any(|flag| example.contains(flag));
    let writes = writes.iter().any(|command| example.contains(command)) && !no_file;
    let is_dry = ["splade train ", "splade push "].iter().any(|command| example.contains(command));
    if is_dry && !example.contains("--dry-run") {
        format!("{example} --dry-run")
    } else if example.starts_with("splade serve ") {
        // a server ends at a signal, and then in order; port 0 is free whatever else runs
        let example = example.split(" --port ").next().unwrap_or_default().to_owned() + &after_port(example);
        format!("timeout --preserve-status --signal TERM 4 {example} --port 0")
    } else if example.starts_with("splade verify ") {
        // random weights lose more in 8 bits than `verify` allows for a trained model
        format!("rm -f demo/model/final/*/onnx/*int8*; {example}")
    } else if writes && !["--check", "--optimize"].iter().any(|flag| example.contains(flag)) {
        format!("{example} --overwrite")
    } else {
        example.to_owned()
    }
}

/// Runs a line in a shell whose `splade` is the program under test.
fn run(place: &Place, line: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_splade"), folder.path().join("splade")).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let addressed = QDRANT.with(|engine| line.replace("http://localhost:6333", engine.address()));
    let addressed = OPENSEARCH.with(|engine| addressed.replace("http://localhost:9200", engine.address()));
    let output = Command::new("bash")
        .args(["-c", &format!("set -eo pipefail; {addressed}")])
        .current_dir(place.path(""))
        .env("PATH", path)
        .env("ORT_DYLIB_PATH", onnx_runtime())
        .env("HF_HUB_OFFLINE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .env("HF_HOME", place.path("huggingface"))
        .env("XDG_CACHE_HOME", place.path("cache"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}` failed: {stderr}");
}

/// Lines below `Example:` or `Examples:` that start with `splade` or pipe into it.
fn examples(help: &str) -> Vec<String> {
    let after = help.lines().skip_while(|line| !line.starts_with("Example"));
    let commands = after.skip(1).map(str::trim).filter(|line| line.contains("splade "));
    commands.take_while(|line| line.starts_with("splade ") || line.contains("| splade ")).map(str::to_owned).collect()
}

#[test]
fn every_example_of_the_help_runs() {
    let place = place();
    let mut ran = 0;
    for command in COMMANDS {
        let found = examples(&place.ok(&[command, "--help"]));
        assert!(!found.is_empty(), "{command} has no example");
        for example in found {
            run(&place, &shortened(&example));
            ran += 1;
        }
    }
    assert!(ran >= 14, "{ran} examples");
}

/// Lines of the `sh` blocks that start with `splade`.
fn readme_commands() -> Vec<String> {
    let text = std::fs::read_to_string(ours("../README.md")).unwrap();
    let mut commands = Vec::new();
    let mut language = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), language) {
            (Some(name), None) => language = Some(name),
            (Some(_), Some(_)) => language = None,
            (None, Some("sh")) if line.starts_with("splade ") => {
                commands.push(line.split(" # ").next().unwrap_or_default().trim().to_owned());
            }
            (None, _) => {}
        }
    }
    commands
}

#[test]
fn every_command_of_the_readme_runs() {
    let place = place();
    let commands = readme_commands();
    assert!(commands.len() >= 8, "{commands:#?}");
    for command in commands {
        run(&place, &shortened(&command));
    }
}
