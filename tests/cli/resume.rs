//! Bulk runs of `splade index` that are killed or interrupted, and the commands after them.

use std::fmt::Write as _;
use std::process::Child;

use super::*;

/// Documents of the large corpus.
const N: usize = 6000;
/// Arguments with which the large corpus is indexed, with a checkpoint every 500 documents.
const BULK: [&str; 10] = [
    "index",
    "model",
    "--input",
    "large.jsonl",
    "--vectors",
    "large.vectors.jsonl",
    "--index",
    "large.index",
    "--checkpoint-every",
    "500",
];

pub(super) fn line(id: &str, at: usize) -> String {
    format!("{{\"_id\": \"{id}\", \"text\": \"fisk nummer {at} i fjord {}\", \"n\": {at}}}\n", at % 97)
}

pub(super) fn vector_line(id: &str, at: usize) -> String {
    let dims: Vec<usize> = vec![10 + at % 7, 30 + at % 101, 200 + at % 199];
    let weight = |salt: usize| 0.25 + ((at * 31 + salt * 17) % 64) as f64 / 16.0;
    format!("{{\"_id\": \"{id}\", \"indices\": {dims:?}, \"values\": [{}, {}, {}]}}\n", weight(1), weight(2), weight(3))
}

/// A folder with a tiny model, a small index, and a large corpus with its vectors.
fn place_with_bulk() -> Place {
    let place = place();
    let (mut corpus, mut vectors) = (String::new(), String::new());
    for at in 0..N {
        let id = format!("d{}", at * 7919 % N);
        corpus += &line(&id, at);
        vectors += &vector_line(&id, at);
    }
    place.write("large.jsonl", corpus);
    place.write("large.vectors.jsonl", vectors);
    place
}

/// Number of documents that the unfinished run has committed; none before its first checkpoint.
fn committed(place: &Place) -> usize {
    let meta = std::fs::read_to_string(place.path("large.index.unfinished/new/tantivy/meta.json")).unwrap_or_default();
    let number = meta.split("\\\"documents\\\":").nth(1).unwrap_or_default();
    number.split(',').next().unwrap_or_default().parse().unwrap_or_default()
}

/// Starts a command and waits until it has committed more than `documents`. False if it ended before.
fn start_until(place: &Place, args: &[&str], documents: usize) -> (Child, bool) {
    let mut child = place.command(args).spawn().unwrap();
    loop {
        let is_over = child.try_wait().unwrap().is_some();
        if committed(place) > documents || is_over {
            return (child, !is_over);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Kills a command each time it has committed some more, up to `most` times. Returns the number of kills.
fn kill_often(place: &Place, args: &[&str], most: usize) -> usize {
    let mut kills = 0;
    while kills < most {
        let (mut child, is_running) = start_until(place, args, committed(place));
        if !is_running {
            assert!(finish(child).code == Some(0));
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    kills
}

/// Hits of the index, sparse and BM25.
pub(super) fn hits(place: &Place, index: &str, modes: &[&str]) -> String {
    let mut all = String::new();
    place.write("q.jsonl", (0..5).map(|at| line(&format!("q{at}"), at * 13)).collect::<String>());
    for mode in modes {
        let args = ["search", "--index", index, "--queries", "q.jsonl", "--mode", mode, "-k", "40", "--format", "trec"];
        write!(all, "{mode}\n{}", place.ok(&args)).unwrap();
    }
    assert!(all.lines().count() > 40, "{all}");
    all
}

pub(super) fn assert_sound(place: &Place, index: &str) {
    assert!(place.ok(&["index", "--check", index]).contains("sound"));
    let left: Vec<String> = place.names();
    assert!(!left.iter().any(|name| name.contains("unfinished") || name.contains(".tmp")), "{left:?}");
}

#[test]
fn a_killed_run_is_resumed_and_its_hits_are_those_of_an_uninterrupted_one() {
    let place = place_with_bulk();
    let mut plain = BULK;
    plain[7] = "plain.index";
    place.ok(&plain);
    let kills = kill_often(&place, &BULK, 6);
    assert!(kills >= 2, "{kills} kills");
    assert!(!place.path("large.index").exists() && committed(&place) > 0);
    let ran = place.run(&BULK);
    assert!(ran.stderr.contains("resuming after "), "{}", ran.stderr);
    assert!(ran.done().contains("6000 documents"));
    assert_sound(&place, "large.index");
    let modes = ["sparse", "bm25"];
    assert_eq!(hits(&place, "large.index", &modes), hits(&place, "plain.index", &modes));
    // at most two segments a million documents
    assert_eq!(place.json(&["inspect", "large.index", "--json"])["stats"]["segments"], 1);
}

#[test]
fn a_killed_append_is_resumed_and_readers_see_all_or_nothing() {
    let place = place_with_bulk();
    for index in ["large.index", "plain.index"] {
        place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", index]);
        place.write("first.jsonl", line("d1", 5) + &line("d2", 6));
        place.ok(&["index", "model", "--append", "--input", "first.jsonl", "--index", index]);
    }
    place.write("gone.txt", "oslo\nd3\n");
    let append = with(&BULK, &["--append", "--delete", "gone.txt"]);
    let mut plain = append.clone();
    plain[7] = "plain.index";
    place.ok(&plain);
    let before = hits(&place, "large.index", &["sparse"]);
    let kills = kill_often(&place, &append, 4);
    assert!(kills >= 2, "{kills} kills");
    assert_eq!(hits(&place, "large.index", &["sparse"]), before);
    assert!(place.run(&append).done().contains("6011 documents"));
    assert_sound(&place, "large.index");
    assert_eq!(hits(&place, "large.index", &["sparse"]), hits(&place, "plain.index", &["sparse"]));
    assert_eq!(place.ok(&["search", "--index", "large.index", "hovedstaden", "--mode", "bm25"]), "nothing found\n");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_tells_how_to_resume() {
    let place = place_with_bulk();
    let (child, is_running) = start_until(&place, &BULK, 0);
    assert!(is_running);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    finish(child).fails(130, "interrupted after ", "the same command continues there, and with --restart begins anew");
    // another input, other options, another model
    let corpus = place.read("large.jsonl");
    let other = "not the input of the interrupted run: ";
    let vectors = place.read("large.vectors.jsonl");
    place.write("large.jsonl", corpus.replacen("d0", "other", 1));
    place.write("large.vectors.jsonl", vectors.replacen("d0", "other", 1));
    place.run(&BULK).fails(2, &format!("large.jsonl: {other}its first document is \"other\", not \"d0\""), "--restart");
    place.write("large.vectors.jsonl", vectors);
    place.write("large.jsonl", corpus.replacen("nummer 3 ", "nummer x ", 1));
    place.run(&BULK).fails(2, "documents have changed", "--restart");
    place.write("large.jsonl", corpus.lines().take(1).map(|line| format!("{line}\n")).collect::<String>());
    place.write("one.jsonl", vector_line("d0", 0));
    let mut short = BULK;
    short[5] = "one.jsonl";
    place.run(&short).fails(2, "it has 1 documents, and ", "--restart");
    place.write("large.jsonl", &corpus);
    let error = "large.index.unfinished: an interrupted run with another pruning, which was \"none\"";
    place.run(&with(&BULK, &["--max-active-dims", "2"])).fails(2, error, "--restart");
    // the end may change: a broken line there can be mended
    place.write("large.jsonl", corpus.clone() + "broken\n");
    let ran = place.run(&BULK);
    ran.fails(2, "large.jsonl:6001", "");
    assert!(ran.stderr.contains("documents are kept in large.index.unfinished"), "{}", ran.stderr);
    place.write("large.jsonl", &corpus);
    assert!(place.run(&with(&BULK, &["--restart"])).done().contains("6000 documents"));
    assert_sound(&place, "large.index");
}

/// A run whose index was complete when it was killed reads the input no further and is not begun anew.
#[test]
fn a_run_killed_before_its_index_is_in_place_is_complete() {
    let place = place_with_bulk();
    let (mut child, is_running) = start_until(&place, &BULK, 0);
    assert!(is_running);
    wait_until("the run is complete", || {
        std::fs::read_to_string(place.path("large.index.unfinished/new/tantivy/meta.json"))
            .is_ok_and(|meta| meta.contains("\\\"is_complete\\\":true"))
            || place.path("large.index").exists()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    if place.path("large.index").exists() {
        // killed after it was in place: the next command removes what is left
        place.ok(&with(&BULK, &["--overwrite"]));
    } else {
        let ran = place.run(&BULK);
        assert!(ran.stderr.contains("all 6000 documents are indexed already"), "{}", ran.stderr);
    }
    assert_sound(&place, "large.index");
}

#[test]
fn an_id_occurs_once_across_checkpoints() {
    let place = place_with_bulk();
    place.write("large.jsonl", place.read("large.jsonl") + &line("d0", 1));
    place.write("large.vectors.jsonl", place.read("large.vectors.jsonl") + &vector_line("d0", 1));
    place.run(&BULK).fails(2, "large.jsonl: the id \"d0\" occurs twice", "an id of its own");
}

#[test]
fn vectors_alone_make_documents_without_text() {
    let place = place_with_bulk();
    let args = ["index", "model", "--vectors", "large.vectors.jsonl", "--index", "bare.index"];
    assert!(place.ok(&args).contains("6000 documents"));
    place.ok(&BULK);
    assert_eq!(hits(&place, "bare.index", &["sparse"]), hits(&place, "large.index", &["sparse"]));
}

/// Merging leaves the files of one segment, also after a disk that was full.
#[cfg(unix)]
#[test]
fn an_index_is_merged_into_one_segment() {
    let place = place_with_bulk();
    place.ok(&BULK);
    for at in 0..3 {
        place.write("more.jsonl", line(&format!("new{at}"), at) + &line("d5", at));
        place.ok(&["index", "model", "--append", "--input", "more.jsonl", "--index", "large.index"]);
    }
    let before = hits(&place, "large.index", &["sparse"]);
    assert!(place.json(&["inspect", "large.index", "--json"])["stats"]["segments"].as_u64() > Some(1));
    let optimize = ["index", "--optimize", "large.index"];
    let mut limited = util::with_file_limit(&place.command(&optimize), 40);
    finish(limited.spawn().unwrap()).fails(1, "large.index/tantivy/", "");
    assert_eq!(hits(&place, "large.index", &["sparse"]), before);
    assert!(place.ok(&optimize).contains("1 segment,"));
    assert_eq!(hits(&place, "large.index", &["sparse"]), before);
    assert_sound(&place, "large.index");
    let names = names(&place.path("large.index/tantivy"));
    let segments: std::collections::BTreeSet<&str> =
        names.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
    assert_eq!(segments.iter().filter(|id| id.len() == 32).count(), 1, "{names:?}");
}

/// Folders of killed commands, and files that no commit names, are removed by the next writer.
#[test]
fn leftovers_of_killed_writers_are_removed_by_the_next() {
    let place = place();
    place.ok(&INDEX);
    place.write(".splade-killed.tmp/new/tantivy/half", "");
    place.write(".splade-killed.tmp/lock", "");
    place.write("toy.index/tantivy/0123456789abcdef0123456789abcdef.7.del", "half");
    place.write("toy.index.unfinished/lock", "0123456789abcdef");
    place.write("toy.index.unfinished/new/tantivy/half", "");
    place.write("new.jsonl", line("new", 1));
    let append = ["index", "model", "--append", "--input", "new.jsonl", "--index", "toy.index"];
    assert!(place.ok(&append).contains("13 documents"));
    assert_sound(&place, "toy.index");
}
