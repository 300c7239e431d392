//! Commands that are killed at many moments (`kill -9`), and searches while another process writes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::resume::{assert_sound, hits, line, vector_line};
use super::*;

/// Documents of each of the two corpora.
const N: usize = 2000;
/// Kills of each command.
const TRIALS: u32 = 5;
/// Arguments that add the second corpus.
const APPEND: [&str; 13] = [
    "index",
    "model",
    "--index",
    "large.index",
    "--append",
    "--input",
    "second.jsonl",
    "--vectors",
    "second.vectors.jsonl",
    "--delete",
    "gone.txt",
    "--checkpoint-every",
    "150",
];

/// A command with the index that it starts from.
struct Case {
    name: &'static str,
    /// none if there is no index before
    start: Option<&'static str>,
    args: Vec<&'static str>,
    changes_answers: bool,
    /// segments after it, if it merges them
    segments: Option<u64>,
}

fn cases() -> [Case; 5] {
    let fresh = with(&["index", "model", "--index", "large.index", "--overwrite", "--checkpoint-every", "150"], &FIRST);
    let delete = vec!["index", "model", "--index", "large.index", "--append", "--delete", "gone.txt"];
    let optimize = vec!["index", "--optimize", "large.index"];
    let case = |name, start, args, changes_answers, segments| Case { name, start, args, changes_answers, segments };
    [
        case("fresh", None, fresh, true, Some(1)),
        case("append", Some("one.index"), APPEND.to_vec(), true, None),
        case("delete", Some("one.index"), delete, true, None),
        // the eighth segment of this size sets off a merge in the background
        case("merge", Some("seven.index"), APPEND.to_vec(), true, Some(1)),
        case("optimize", Some("seven.index"), optimize, false, Some(1)),
    ]
}

/// Input of the first corpus.
const FIRST: [&str; 4] = ["--input", "first.jsonl", "--vectors", "first.vectors.jsonl"];

/// A folder with two corpora, an index of the first in one segment and one in seven.
fn place_with_indexes() -> Place {
    let place = place();
    for (corpus, salt) in [("first", 0), ("second", 1)] {
        let numbers = || (0..N).map(|at| (format!("{corpus}{}", at * 7919 % N), at + salt));
        place.write(&format!("{corpus}.jsonl"), numbers().map(|(id, at)| line(&id, at)).collect::<String>());
        let vectors = numbers().map(|(id, at)| vector_line(&id, at)).collect::<String>();
        place.write(&format!("{corpus}.vectors.jsonl"), vectors);
    }
    place.write("gone.txt", (0..N / 3).map(|at| format!("first{at}\n")).collect::<String>());
    place.ok(&with(&["index", "model", "--index", "one.index"], &FIRST));
    place.copy(&place.path("one.index"), "seven.index");
    for at in 0..6 {
        place.write("small.jsonl", line(&format!("small{at}"), at));
        place.write("small.vectors.jsonl", vector_line(&format!("small{at}"), at));
        let small = ["--append", "--input", "small.jsonl", "--vectors", "small.vectors.jsonl"];
        place.ok(&with(&["index", "model", "--index", "seven.index"], &small));
    }
    assert_eq!(segments(&place, "seven.index"), 7);
    place
}

fn segments(place: &Place, index: &str) -> u64 {
    place.json(&["inspect", index, "--json"])["stats"]["segments"].as_u64().unwrap()
}

fn answers(place: &Place) -> String {
    hits(place, "large.index", &["sparse"])
}

/// Puts the index of the start of a case in its place.
fn restore(place: &Place, case: &Case) {
    for left in ["large.index", "large.index.unfinished"] {
        if place.path(left).exists() {
            std::fs::remove_dir_all(place.path(left)).unwrap();
        }
    }
    if let Some(start) = case.start {
        place.copy(&place.path(start), "large.index");
    }
}

/// Runs a command and kills it after `pause`. True if it had not ended before.
fn killed(place: &Place, args: &[&str], pause: Duration) -> bool {
    let mut child = place.command(args).spawn().unwrap();
    std::thread::sleep(pause);
    let was_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    was_running
}

/// The files of a killed command are sound, beside files that the next command removes.
fn assert_undamaged(place: &Place, name: &str) {
    let ran = place.run(&["index", "--check", "large.index", "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["kind"] == "leftover"), "{name}: {report}");
}

/// After each kill the index opens, its files are sound, and it answers as before the command or as after it. The same command
/// ends as if it had not been killed.
#[test]
fn a_command_killed_at_any_moment_leaves_old_or_new_answers_and_can_be_run_again() {
    let place = place_with_indexes();
    for case in cases() {
        let name = case.name;
        restore(&place, &case);
        let before = case.start.map(|_| answers(&place));
        let started = Instant::now();
        place.ok(&case.args);
        let duration = started.elapsed();
        let after = answers(&place);
        assert_eq!(before.as_ref() != Some(&after), case.changes_answers, "{name}");
        let mut kills = 0;
        for trial in 0..TRIALS {
            restore(&place, &case);
            kills += u32::from(killed(&place, &case.args, duration * (2 * trial + 1) / (2 * TRIALS)));
            if place.path("large.index").exists() {
                assert_undamaged(&place, name);
                let found = answers(&place);
                assert!(Some(&found) == before.as_ref() || found == after, "{name}, trial {trial}");
            } else {
                assert_eq!(before, None, "{name}, trial {trial}");
            }
            place.ok(&case.args);
            assert_eq!(answers(&place), after, "{name}, trial {trial}");
            assert_sound(&place, "large.index");
            if let Some(expected) = case.segments {
                assert_eq!(segments(&place, "large.index"), expected, "{name}, trial {trial}");
            }
        }
        assert!(kills > 0, "{name}: no trial killed it");
    }
}

/// Each answer during an append and a merge is the old one or the new one, and no search fails.
#[test]
fn searches_while_another_process_writes_see_all_of_it_or_nothing() {
    let place = place_with_indexes();
    for case in cases().iter().filter(|case| case.start.is_some()) {
        restore(&place, case);
        let before = answers(&place);
        let mut seen = BTreeSet::from([before.clone()]);
        let mut writing = place.command(&case.args).spawn().unwrap();
        while writing.try_wait().unwrap().is_none() {
            seen.insert(answers(&place));
        }
        finish(writing).done();
        let after = answers(&place);
        seen.insert(after.clone());
        assert_eq!(seen, BTreeSet::from([before, after]), "{}", case.name);
    }
}
