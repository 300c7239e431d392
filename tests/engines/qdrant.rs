//! Qdrant, by a stub that checks every request.

#[path = "qdrant/interrupted.rs"]
mod interrupted;
#[path = "qdrant/live.rs"]
mod live;
#[path = "qdrant/queries.rs"]
mod queries;
#[path = "qdrant/words.rs"]
mod words;

use serde_json::{Value as Json, json};

use crate::util::loopback::Fault;
use crate::util::qdrant::{Qdrant, REFUSED_TEXT};
use crate::util::{Place, Ran, finish, fixture, ours, setup, wait_until};

/// A folder with a tiny model, its index over a corpus with fields, queries, and a Qdrant.
struct Case {
    place: Place,
    qdrant: Qdrant,
}

impl Case {
    fn new() -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
        place.write("corpus.jsonl", corpus(0..60));
        place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", FIELDS]);
        Self { place, qdrant: Qdrant::start() }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.place.command(args);
        for name in ["http_proxy", "all_proxy", "https_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        finish(command.spawn().unwrap())
    }

    fn push(&self, more: &[&str]) -> Ran {
        let at = ["--to", "qdrant", "--url", self.qdrant.address(), "--collection", "docs"];
        self.run(&[&["push-index", "docs.index"], &at[..], more].concat())
    }

    fn search(&self, more: &[&str]) -> Ran {
        let at = ["--engine", "qdrant", "--url", self.qdrant.address(), "--collection", "docs"];
        self.run(&[&["search", "--index", "docs.index"], &at[..], more].concat())
    }

    fn local(&self, more: &[&str]) -> String {
        self.place.ok(&[&["search", "--index", "docs.index"], more].concat())
    }
}

const FIELDS: &str = "lang:keyword,year:int,price:float,on:date,new:bool,meta.pages:int";

/// Documents with fields of every type, some without, one without a word of the vocabulary.
fn corpus(ids: std::ops::Range<usize>) -> String {
    let words = ["nordlyset", "vinteren", "oslo", "fjorden", "hovedstaden", "norge", "snø", "regn", "blåbær", "skogen"];
    let lines = ids.map(|id| {
        let text: Vec<&str> = (0..4 + id % 5).map(|at| words[(id * 7 + at * 3) % words.len()]).collect();
        let lang = ["nb", "nn", "se"][id % 3];
        let year = if id % 2 == 0 { json!(2000 + id) } else { json!((2000 + id).to_string()) };
        let mut document = json!({
            "_id": format!("d{id}"), "title": format!("Tittel {id} “é\"\u{1f600}"), "text": text.join(" "),
            "lang": lang, "year": year,
            "price": id as f64 / 4.0, "on": format!("20{:02}-02", id % 30), "new": id % 4 == 0,
            "meta": {"pages": id}, "tags": ["a", id.to_string()],
        });
        if id % 10 == 9 {
            document.as_object_mut().unwrap().retain(|name, _| name == "_id" || name == "text");
        }
        format!("{document}\n")
    });
    lines.collect()
}

/// Hits of a TREC run: query, id and score.
fn hits(run: &str) -> Vec<(String, String, f32)> {
    let lines = run.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.map(|part| (part[0].to_owned(), part[2].to_owned(), part[4].parse().unwrap())).collect()
}

/// Checks that two runs have the same documents and scores; ranks of equal scores may differ.
fn assert_close(engine: &str, local: &str) {
    let (engine, local) = (hits(engine), hits(local));
    assert!(!local.is_empty() && engine.len() == local.len(), "{engine:?}\n{local:?}");
    for (one, other) in engine.iter().zip(&local) {
        assert!(one.0 == other.0 && (one.2 - other.2).abs() <= 1e-5 * other.2.max(1.0), "{one:?} {other:?}");
    }
    let ids = |hits: &[(String, String, f32)]| {
        hits.iter().map(|hit| (hit.0.clone(), hit.1.clone())).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&engine), ids(&local));
}

/// Checks that the hits of a hybrid search have the sums of their reciprocal ranks in two rankings, whose documents of equal score
/// may be in any order.
fn assert_fused(hybrid: &str, rankings: [&str; 2], depth: usize) {
    let rankings = rankings.map(hits);
    let mut compared = 0;
    for (query, id, score) in hits(hybrid) {
        let (mut least, mut most) = (0.0, 0.0);
        for ranking in &rankings {
            let of_query: Vec<_> = ranking.iter().filter(|hit| hit.0 == query).collect();
            let Some(found) = of_query.iter().find(|hit| hit.1 == id).map(|hit| hit.2) else { continue };
            let is_equal = |other: f32| (other - found).abs() <= 1e-5 * found.max(1.0);
            let above = of_query.iter().filter(|hit| hit.2 > found && !is_equal(hit.2)).count();
            let equal = of_query.iter().filter(|hit| is_equal(hit.2)).count();
            let share = |rank: usize| if rank > depth { 0.0 } else { 1.0 / (60 + rank) as f32 };
            least += share(above + equal);
            most += share(above + 1);
        }
        assert!((least - 1e-6..=most + 1e-6).contains(&score), "{query} {id}: {score}, not {least} to {most}");
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

#[test]
fn a_collection_answers_as_its_index() {
    let case = Case::new();
    let shown = case.push(&[]).done();
    assert!(shown.contains("60 documents; 60 sent"), "{shown}");
    let all = ["--queries", "queries.jsonl", "-k", "100", "--format", "trec"];
    assert_close(&case.search(&all).done(), &case.local(&all));
    let one = ["oslo om vinteren", "-k", "3", "--json"];
    let [engine, local]: [Json; 2] =
        [case.search(&one).done(), case.local(&one)].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!(engine["hits"][0]["title"], local["hits"][0]["title"]);
    assert_eq!(engine["hits"][0]["tags"], local["hits"][0]["tags"]);
    assert!(engine["hits"][0].get("_splade_digest").is_none());
    let table = case.search(&["oslo om vinteren", "-k", "3"]).done();
    assert_eq!(table.lines().count(), 3, "{table}");
    let fields = case.qdrant.fields("docs");
    assert_eq!((fields["year"].as_str(), fields["on"].as_str(), fields.len()), ("integer", "datetime", 6));
    let payload = &case.qdrant.payloads("docs")["d1"];
    assert_eq!((&payload["year"], &payload["on"]), (&json!(2001), &json!("2001-02-01T00:00:00Z")));
}

#[test]
fn a_document_that_is_refused_is_named_and_all_others_arrive() {
    let case = Case::new();
    let bad = json!({"_id": "bad", "text": REFUSED_TEXT}).to_string();
    case.place.write("corpus.jsonl", corpus(0..30) + &bad + "\n" + &corpus(30..60));
    case.place.ok(&[
        "index",
        "model",
        "--input",
        "corpus.jsonl",
        "--index",
        "docs.index",
        "--fields",
        FIELDS,
        "--overwrite",
    ]);
    case.push(&[]).fails(1, "document bad was refused: ", "all other documents are in the collection");
    let payloads = case.qdrant.payloads("docs");
    assert!(payloads.len() == 60 && !payloads.contains_key("bad"));
}

/// Arguments of many small requests.
const SMALL: [&str; 4] = ["--batch-bytes", "3kB", "--concurrency", "3"];
const UPSERT: &str = "PUT /collections/docs/points";

/// Number after `name` in the summary of a push.
fn counted(shown: &Json, name: &str) -> u64 {
    shown["push"][name].as_u64().unwrap_or_else(|| panic!("{name}: {shown}"))
}

impl Case {
    fn push_json(&self, more: &[&str]) -> Json {
        serde_json::from_str(&self.push(&[&["--json"], more].concat()).done()).unwrap()
    }

    /// Index of documents made again.
    fn index(&self, corpus: &str) {
        self.place.write("corpus.jsonl", corpus);
        let args = ["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", FIELDS];
        self.place.ok(&[&args[..], &["--overwrite"]].concat());
    }

    /// Checks that the collection has each document of the index once, as a push without faults leaves it.
    fn assert_complete(&self) {
        let other = Qdrant::start();
        let at = ["--to", "qdrant", "--url", other.address(), "--collection", "docs", "--no-verify"];
        self.run(&[&["push-index", "docs.index"], &at[..]].concat()).done();
        assert_eq!(self.qdrant.payloads("docs"), other.payloads("docs"));
    }
}

#[test]
fn nothing_is_lost_or_doubled_by_faults() {
    use std::time::Duration;
    let faults = [
        Fault::Status(429, Some(1)),
        Fault::Status(429, None),
        Fault::Status(503, None),
        Fault::Status(502, None),
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Slow(Duration::from_millis(500)),
    ];
    let case = Case::new();
    // the collection is made, and the answer is lost
    case.qdrant.http.fault("PUT /collections/docs", Fault::CutAfter);
    for fault in faults {
        for request in [UPSERT, UPSERT, "POST /collections/docs/points/query"] {
            case.qdrant.http.fault(request, fault);
        }
    }
    // the first request of all is repeated less often
    for fault in [Fault::Status(503, None), Fault::CutBefore] {
        case.qdrant.http.fault("GET /collections/docs", fault);
    }
    let shown = case.push_json(&SMALL);
    assert_eq!((counted(&shown, "sent"), counted(&shown, "documents")), (60, 60));
    assert_eq!(case.qdrant.http.faults_left(), 0);
    case.assert_complete();
}

#[test]
fn an_engine_that_stays_busy_ends_the_push_and_the_same_command_completes_it() {
    let case = Case::new();
    // a pause that is longer than a push waits
    case.qdrant.http.fault(UPSERT, Fault::Slow(std::time::Duration::ZERO));
    case.qdrant.http.fault(UPSERT, Fault::Status(503, Some(3600)));
    case.push(&["--batch-bytes", "3kB", "--concurrency", "1"]).fails(1, "status 503, not now", "try again later");
    let before = case.qdrant.payloads("docs").len() as u64;
    assert_eq!(counted(&case.push_json(&SMALL), "sent"), 60 - before);
    case.assert_complete();
}

#[test]
fn a_push_that_is_killed_is_completed_by_the_same_command() {
    let case = Case::new();
    for _ in 0..100 {
        case.qdrant.http.fault(UPSERT, Fault::Slow(std::time::Duration::from_millis(150)));
    }
    let address = case.qdrant.address().to_owned();
    let at = ["push-index", "docs.index", "--to", "qdrant", "--url", &address, "--collection", "docs"];
    let mut child = case.place.command(&[&at[..], &SMALL].concat()).spawn().unwrap();
    wait_until("some documents have arrived", || case.qdrant.payloads("docs").len() >= 8);
    child.kill().unwrap();
    child.wait().unwrap();
    // a request that is under way may still arrive
    std::thread::sleep(std::time::Duration::from_millis(400));
    let before = case.qdrant.payloads("docs").len() as u64;
    assert!((8..60).contains(&before), "{before}");
    let shown = case.push_json(&SMALL);
    assert_eq!((counted(&shown, "sent"), counted(&shown, "unchanged")), (60 - before, before));
    case.assert_complete();
    // a complete collection gets nothing
    case.qdrant.http.requests();
    assert_eq!(counted(&case.push_json(&[]), "unchanged"), 60);
    assert!(case.qdrant.http.requests().iter().all(|request| !request.starts_with("PUT")));
}

#[test]
fn sync_updates_changed_documents_and_deletes_those_that_are_gone() {
    let case = Case::new();
    case.push(&[]).done();
    let changed =
        corpus(10..70).replace("\"_id\":\"d20\",\"title\":\"Tittel 20", "\"_id\":\"d20\",\"title\":\"Ny tittel");
    case.index(&changed);
    case.push(&[]).fails(2, "document \"d20\" differs from that of the source", "--sync");
    let shown = case.push_json(&["--sync"]);
    let numbers = ["documents", "deleted", "unchanged"].map(|name| counted(&shown, name));
    assert_eq!(numbers, [60, 10, 49]);
    // a push that failed may have sent some of the new documents
    assert!((1..=11).contains(&counted(&shown, "sent")), "{shown}");
    assert_eq!(case.qdrant.payloads("docs")["d20"]["title"].as_str().unwrap().split(' ').next(), Some("Ny"));
    case.assert_complete();
}

#[test]
fn collections_of_others_are_refused() {
    let case = Case::new();
    case.push(&[]).done();
    // another model: its tokenizer strips accents
    case.place.copy(&fixture("inference-free/model"), "other");
    for part in ["document_0_Transformer", "query_0_SparseStaticEmbedding"] {
        let name = format!("other/{part}/tokenizer.json");
        let tokenizer = case.place.read(&name);
        let stripping = tokenizer.replace("\"strip_accents\": false", "\"strip_accents\": true");
        assert_ne!(tokenizer, stripping);
        case.place.write(&name, stripping);
    }
    case.place.ok(&["index", "other", "--input", "corpus.jsonl", "--index", "other.index", "--fields", FIELDS]);
    let at = ["--url", case.qdrant.address(), "--collection", "docs"];
    let push = [&["push-index", "other.index", "--to", "qdrant"], &at[..]].concat();
    case.run(&push).fails(2, "qdrant collection docs: it exists and its tokenizer is", "--overwrite");
    let search = [&["search", "oslo", "--engine", "qdrant", "--index", "other.index"], &at[..]].concat();
    case.run(&search).fails(
        2,
        "made with another model than other.index: its tokenizer is",
        "the collection was made with",
    );
    let by_model = [&["search", "oslo", "--engine", "qdrant", "--model", "other"], &at[..]].concat();
    case.run(&by_model).fails(2, "made with another model than other: its tokenizer is", "give the index");
    case.run(&[&push[..], &["--overwrite"]].concat()).done();
    case.run(&by_model).done();
    case.search(&["oslo"]).fails(2, "its tokenizer is", "give the index");
    let missing = ["search", "oslo", "--engine", "qdrant", "--index", "other.index", "--url", case.qdrant.address()];
    case.run(&[&missing[..], &["--collection", "none"]].concat()).fails(2, "there is no such collection", "push-index");
}

#[test]
fn a_collection_of_another_program_is_neither_filled_nor_replaced() {
    let case = Case::new();
    case.qdrant.create_foreign("docs");
    for more in [&[][..], &["--overwrite"], &["--sync"]] {
        case.push(more).fails(2, "it exists, and this program did not make it", "remove it yourself");
    }
    case.search(&["oslo"]).fails(2, "this program did not make the collection", "push-index");
}

#[test]
fn wrong_scores_end_with_exit_code_1() {
    let case = Case::new();
    let shown: Json = serde_json::from_str(&case.push(&["--json", "--queries", "queries.jsonl"]).done()).unwrap();
    let verification = &shown["verification"];
    assert!(verification["hits"].as_u64().unwrap() > 0, "{shown}");
    assert!(verification["largest_difference"].as_f64().unwrap() < 1e-5, "{shown}");
    assert_eq!(verification["queries_in_another_order"], 0, "{shown}");
    case.push(&["--verify-only"]).done();
    case.qdrant.damage("docs", "d11", "splade", 1.5);
    let ran = case.push(&["--verify-only"]);
    ran.fails(1, "document d11: its score is", "its tolerance is 1e-5 for each unit of score");
    case.push(&["--no-verify"]).done();
    let ran = case.push(&[]);
    assert!(ran.code == Some(1) && ran.stdout.contains("60 unchanged") && ran.stderr.contains("d11"), "{ran:?}");
}

#[test]
fn filters_select_as_in_the_index() {
    let case = Case::new();
    case.push(&[]).done();
    let filters = [
        "lang:nb",
        "lang:nb AND year:[2020 TO 2040}",
        "NOT lang:nb AND new:true",
        "price:>=10",
        "price:2.5",
        "on:[2005 TO 2010-02}",
        "on:2011-02",
        "lang: IN [nn se] OR id:d3",
        "id: IN [d1 d2 d3]",
        "lang:*",
        "meta.pages:[3 TO 30]",
        "lang=nn",
        "lang!=nn",
        "year=2001",
        "tags=7",
        "meta.pages=8",
        "price=2.5",
        "new=true",
        "*",
    ];
    for filter in filters {
        let args = ["--queries", "queries.jsonl", "-k", "100", "--format", "trec", "--filter", filter];
        let (engine, local) = (case.search(&args).done(), case.local(&args));
        assert!(!local.is_empty(), "{filter} selects nothing");
        assert_close(&engine, &local);
    }
    let search = |filter: &str| case.search(&["oslo", "--filter", filter]);
    search("text:oslo").fails(2, "words of text: qdrant cannot express it", "search the index itself");
    search("lang:[a TO b]").fails(2, "the field lang: qdrant cannot express it", "leave it out");
    search("color:red").fails(2, "unknown field \"color\"", "lang:keyword");
}

#[test]
fn fields_of_any_name_are_indexed() {
    let case = Case::new();
    let document = |id: usize| json!({"_id": format!("d{id}"), "text": "oslo om vinteren", "antall sider": id, "a\"b": id, "år": id});
    case.place.write("corpus.jsonl", (0..5).map(|id| format!("{}\n", document(id))).collect::<String>());
    let fields = ["--fields", "antall sider:int,a\"b:int,år:int", "--overwrite"];
    case.place.ok(&[&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index"], &fields[..]].concat());
    case.push(&[]).done();
    assert!(case.qdrant.fields("docs").keys().eq(["\"antall sider\"", "\"år\""]));
    for filter in ["\"antall sider\"=3", "år:[3 TO 4]"] {
        let args = ["oslo om vinteren", "--format", "trec", "--filter", filter];
        assert_close(&case.search(&args).done(), &case.local(&args));
    }
    // a complete collection gets no further index
    case.qdrant.http.requests();
    case.push(&[]).done();
    assert!(case.qdrant.http.requests().iter().all(|request| !request.contains("/index")));
}

#[test]
fn the_request_is_shown_as_it_is_sent() {
    let case = Case::new();
    case.push(&[]).done();
    let shown = case.search(&["oslo", "-k", "2", "--filter", "lang:nb", "--show-query"]).done();
    let (line, body) = shown.split_once('\n').unwrap();
    assert_eq!(line, "POST /collections/docs/points/query");
    let body: Json = serde_json::from_str(body).unwrap();
    assert_eq!((&body["using"], &body["limit"], &body["with_payload"]), (&json!("splade"), &json!(2), &json!(true)));
    assert_eq!(body["filter"]["must"][0], json!({"key": "lang", "match": {"value": "nb"}}));
}

#[test]
fn vectors_without_documents_and_documents_without_vectors_are_pushed() {
    let case = Case::new();
    let mut vectors = case.place.ok(&["encode", "model", "--input", "corpus.jsonl", "--role", "document"]);
    vectors += "{\"_id\": \"empty\", \"indices\": [], \"values\": []}\n";
    vectors += "{\"_id\": \"below\", \"indices\": [3, 5], \"values\": [-1.5, 0.25]}\n";
    case.place.write("v.jsonl", &vectors);
    let at = ["--to", "qdrant", "--url", case.qdrant.address(), "--collection", "vectors"];
    case.run(&[&["push-index", "v.jsonl"], &at[..]].concat()).fails(2, "does not say which model made them", "--model");
    let ran = case.run(&[&["push-index", "v.jsonl", "--model", "model"], &at[..]].concat());
    assert!(ran.stderr.contains("1 documents without a vector, which no search by vector finds"), "{}", ran.stderr);
    assert!(ran.done().contains("62 documents; 62 sent"));
    let all = ["--queries", "queries.jsonl", "-k", "62", "--format", "trec"];
    let at =
        ["search", "--engine", "qdrant", "--url", case.qdrant.address(), "--collection", "vectors", "--model", "model"];
    let local = case.local(&all);
    let engine = case.run(&[&at[..], &all].concat()).done();
    let engine: String =
        engine.lines().filter(|line| !line.contains(" below ")).map(|line| format!("{line}\n")).collect();
    assert_eq!(hits(&engine).len(), hits(&local).len());
    case.place.write("v.jsonl", vectors.clone() + vectors.lines().next().unwrap());
    let at = ["push-index", "v.jsonl", "--model", "model", "--to", "qdrant", "--url", case.qdrant.address()];
    case.run(&[&at[..], &["--collection", "twice"]].concat()).fails(2, "the id \"d0\" occurs twice", "");
}

#[test]
fn credentials_come_from_variables_and_addresses_are_checked() {
    let case = Case::new();
    let at = ["push-index", "docs.index", "--to", "qdrant", "--url", case.qdrant.address(), "--collection", "docs"];
    let args = [&at[..], &["--api-key-env", "TEST_KEY"]].concat();
    case.place.run(&args).fails(2, "--api-key-env TEST_KEY: the environment has no such variable", "the secret itself");
    let ran = finish(case.place.command(&args).env("TEST_KEY", "secret-7").spawn().unwrap());
    assert!(!format!("{ran:?}").contains("secret-7"));
    ran.done();
    assert!(case.qdrant.http.keys().iter().all(|key| key.as_deref() == Some("secret-7")));
    let at = ["push-index", "docs.index", "--to", "qdrant", "--collection", "docs"];
    case.run(&at).fails(2, "--url is missing", "address of the engine");
    for url in ["localhost", "http://u:p@localhost", "ftp://localhost"] {
        case.run(&[&at[..], &["--url", url]].concat()).fails(
            2,
            "not an address of the form http://host:port",
            "--api-key-env",
        );
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    case.search(&["oslo", "--explain"]).fails(2, "--explain: it needs an index of this program", "leave it out");
    let search = ["search", "oslo", "--url", "http://localhost:6333"];
    case.run(&[&search[..], &["--index", "docs.index"]].concat()).fails(2, "need --engine", "name the engine");
    // nobody listens, and the attempts end
    let url = format!("http://{nobody}");
    case.run(&[&at[..], &["--url", &url]].concat()).fails(1, "connection refused", "check that the engine runs there");
}

#[test]
fn an_evaluation_by_an_engine_has_the_scores_of_the_index() {
    let case = Case::new();
    case.place.copy(&ours("data/toy"), "toy");
    let evaluate = ["eval-mteb", "model", "--data", "toy", "--json", "--no-cache"];
    let index: Json = serde_json::from_str(&case.run(&evaluate).done()).unwrap();
    let at = ["--engine", "qdrant", "--url", case.qdrant.address(), "--collection", "evaluation", "--concurrency", "2"];
    // a pause that no search waits for
    case.qdrant.http.fault("points/query", Fault::Status(503, Some(3600)));
    let failed = case.run(&[&evaluate[..], &at].concat());
    assert!(failed.code == Some(1) && failed.stderr.contains("error: query \""), "{failed:?}");
    assert!(case.qdrant.payloads("evaluation").is_empty());
    let ran = case.run(&[&evaluate[..], &at].concat());
    assert!(ran.stderr.contains("sparse rankings are those of qdrant collection evaluation"), "{}", ran.stderr);
    let engine: Json = serde_json::from_str(&ran.done()).unwrap();
    assert_eq!(engine["tasks"][0]["scores"], index["tasks"][0]["scores"]);
    assert!(index["tasks"][0]["scores"]["sparse"]["ndcg_at_10"].as_f64().unwrap() > 0.0, "{index}");
    // the results name the engine, and stand beside those of the index
    let grep = ["-rl", "\"engine\": *\"qdrant\"", "results"];
    let files = std::process::Command::new("grep").args(grep).current_dir(case.place.path("")).output().unwrap();
    let files = String::from_utf8_lossy(&files.stdout).into_owned();
    assert!(files.contains("engine_qdrant"), "{files}");
    let requests = case.qdrant.http.requests();
    assert!(requests.iter().any(|request| request.contains("/points/query")), "{requests:?}");
    // the collection is removed, and one that exists is not touched
    assert!(case.qdrant.payloads("evaluation").is_empty());
    case.push(&[]).done();
    let at = ["--engine", "qdrant", "--url", case.qdrant.address(), "--collection", "docs", "--overwrite"];
    case.run(&[&evaluate[..], &at].concat()).fails(2, "docs: it exists", "choose another --collection");
    let no_mode = ["--engine", "qdrant", "--url", case.qdrant.address(), "--collection", "e", "--modes", "bm25"];
    case.run(&[&evaluate[..], &no_mode].concat()).fails(2, "no effect without the mode sparse", "--modes");
    assert_eq!(case.qdrant.payloads("docs").len(), 60);
}
