//! OpenSearch and Elasticsearch: by a stub that keeps every request, and OpenSearch itself where a test is ignored by default.

#[path = "opensearch/cluster.rs"]
mod cluster;
#[path = "opensearch/live.rs"]
mod live;

use serde_json::{Value as Json, json};

use crate::util::loopback::Fault;
use crate::util::lucene::{Lucene, REFUSED_TEXT};
use crate::util::{Place, Ran, finish, fixture, setup};

const FIELDS: &str = "lang:keyword,year:int,price:float,on:date,new:bool,meta.pages:int";
/// Filters of every kind over the documents of [`corpus`].
const FILTERS: [&str; 12] = [
    "lang:nb",
    "NOT lang:nb",
    "lang: IN [nn se]",
    "year:[2010 TO 2020}",
    "price:>12.5",
    "on:[2005-01-01 TO 2010-06-01]",
    "new:true AND lang:se",
    "meta.pages:<50 OR year:*",
    "lang:*",
    "lang=nb",
    "year=2010,new=false",
    "lang!=nn",
];

/// Documents with fields of every type, some without.
fn corpus(ids: std::ops::Range<usize>) -> String {
    let words = ["nordlyset", "vinteren", "oslo", "fjorden", "hovedstaden", "norge", "snø", "regn", "blåbær", "skogen"];
    let languages = ["nb", "nn", "se"];
    let lines = ids.map(|id| {
        let text: Vec<&str> = (0..4 + id % 5).map(|at| words[(id * 7 + at * 3) % words.len()]).collect();
        let mut document = json!({
            "_id": format!("d{id}"), "title": format!("Tittel {id} “é\""), "text": text.join(" "),
            "lang": languages[id % 3], "year": 2000 + id % 30, "price": id as f64 / 4.0,
            "on": format!("20{:02}-02", id % 30), "new": id % 4 == 0, "meta": {"pages": id}, "tags": ["a", "b"],
        });
        if id % 10 == 9 {
            document.as_object_mut().unwrap().retain(|name, _| name == "_id" || name == "text");
        }
        format!("{document}\n")
    });
    lines.collect()
}

/// A folder with an index of 40 documents, and a server.
struct Case {
    place: Place,
    engine: &'static str,
    server: Lucene,
}

impl Case {
    fn new(engine: &'static str, version: &str) -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        let case = Self { place, engine, server: Lucene::start(version) };
        case.index(&corpus(0..40));
        case
    }

    fn index(&self, corpus: &str) {
        self.place.write("corpus.jsonl", corpus);
        let input = ["--input", "corpus.jsonl", "--language", "norwegian", "--fields", FIELDS, "--overwrite"];
        self.place.ok(&[&["index", "model", "--index", "docs.index"], &input[..]].concat());
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.place.command(args);
        for name in ["http_proxy", "all_proxy", "https_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        finish(command.spawn().unwrap())
    }

    fn push(&self, more: &[&str]) -> Ran {
        let at = ["--to", self.engine, "--url", self.server.address(), "--collection", "docs"];
        self.run(&[&["push-index", "docs.index"], &at[..], more].concat())
    }

    fn search(&self, more: &[&str]) -> Ran {
        let at = ["--engine", self.engine, "--url", self.server.address(), "--collection", "docs"];
        self.run(&[&["search", "--index", "docs.index", "oslo om vinteren"], &at[..], more].concat())
    }

    /// Requests of one search of each kind.
    fn requests(&self, hybrid: &[&str]) -> String {
        let kinds: [&[&str]; 3] = [&["-k", "3"], &["--filter", "lang:nb AND year:[2000 TO 2020}"], hybrid];
        kinds.map(|kind| self.search(&[kind, &["--show-query"]].concat()).done()).concat()
    }

    /// Body of the request that made the index, without the fingerprints of the model.
    fn created(&self) -> String {
        let mut index = self.server.content().index.clone();
        let manifest = &mut index["mappings"]["_meta"]["splade"];
        for name in ["model", "tokenizer", "query_table"] {
            assert!(manifest[name].as_str().unwrap().len() > 10);
            manifest[name] = json!("…");
        }
        format!("{index:#}")
    }
}

#[test]
fn requests_to_opensearch() {
    let case = Case::new("opensearch", "2.19.6");
    case.push(&["--shards", "3", "--replicas", "1", "--exclude-vectors"]).done();
    insta::assert_snapshot!("opensearch_index", case.created());
    insta::assert_snapshot!(
        "opensearch_bulk",
        case.server.content().bulks[0].lines().take(2).collect::<Vec<_>>().join("\n")
    );
    insta::assert_snapshot!("opensearch_search", case.requests(&["--mode", "hybrid", "--filter", "lang:nb"]));
    let weighted =
        ["--mode", "hybrid", "--fusion", "weighted", "--scaling", "min-max", "--weights", "3,1", "--show-query"];
    let weighted = case.search(&weighted).done();
    assert!(weighted.contains("\"min_max\"") && weighted.contains("0.75"), "{weighted}");
}

#[test]
fn requests_of_approximate_searches() {
    let case = Case::new("opensearch", "3.6.0");
    // the server does not score by this query
    case.push(&["--field-type", "sparse_vector", "--approximate-threshold", "500", "--no-verify"]).done();
    insta::assert_snapshot!("sparse_vector_index", case.created());
    insta::assert_snapshot!("sparse_vector_search", case.search(&["--filter", "lang:nb", "--show-query"]).done());
    let old = Case::new("opensearch", "3.2.9");
    let refused = old.push(&["--field-type", "sparse_vector"]);
    refused.fails(2, "no field type sparse_vector before version 3.3", "--field-type rank_features");
}

#[test]
fn requests_to_elasticsearch() {
    let case = Case::new("elasticsearch", "9.2.1");
    case.push(&["--shards", "2"]).done();
    insta::assert_snapshot!("elasticsearch_index", case.created());
    insta::assert_snapshot!("elasticsearch_search", case.requests(&["--mode", "hybrid", "--filter", "lang:nb"]));
    let weighted = ["--mode", "hybrid", "--fusion", "weighted", "--scaling", "min-max", "--show-query"];
    assert!(case.search(&weighted).done().contains("\"linear\""));
    // before 9.1, and 8.19, the mapping has no such option
    let old = Case::new("elasticsearch", "8.18.0");
    old.push(&[]).done();
    assert_eq!(
        old.server.content().index["mappings"]["properties"]["_splade_vector"],
        json!({"type": "sparse_vector"})
    );
    let older = Case::new("elasticsearch", "8.14.3");
    older.push(&[]).fails(2, "version 8.14 has no query for our vectors", "version 8.15 is the first that has");
}

#[test]
fn a_collection_answers_as_its_index() {
    for (engine, version) in [("opensearch", "2.19.6"), ("elasticsearch", "8.19.0")] {
        let case = Case::new(engine, version);
        case.push(&[]).done();
        let local = case.place.ok(&["search", "--index", "docs.index", "oslo om vinteren", "-k", "5", "--json"]);
        let [engine, local]: [Json; 2] =
            [case.search(&["-k", "5", "--json"]).done(), local].map(|text| serde_json::from_str(&text).unwrap());
        for at in 0..5 {
            let (hit, wanted) = (&engine["hits"][at], &local["hits"][at]);
            let same = ["_id", "title", "text", "lang", "tags", "meta"];
            assert!(same.iter().all(|name| hit.get(name) == wanted.get(name)), "{hit}\n{wanted}");
            let [score, exact] = [hit, wanted].map(|hit| hit["score"].as_f64().unwrap());
            assert!((score - exact).abs() < 1e-4, "{score} {exact}");
        }
    }
}

#[test]
fn documents_that_fail_for_a_while_are_sent_again_alone() {
    let case = Case::new("opensearch", "2.19.6");
    case.server.content().failures = vec![("d3".into(), 429), ("d7".into(), 503), ("d7".into(), 429)];
    case.push(&["--concurrency", "1"]).done();
    let content = case.server.content();
    let ids = |text: &str| -> Vec<String> {
        let lines = text.lines().step_by(2).map(|line| serde_json::from_str::<Json>(line).unwrap());
        lines.map(|line| line["index"]["_id"].as_str().unwrap().to_owned()).collect()
    };
    let sent: Vec<Vec<String>> = content.bulks.iter().map(|text| ids(text)).collect();
    assert_eq!((sent.len(), sent[0].len(), content.documents.len()), (3, 40, 40));
    assert_eq!((&sent[1][..], &sent[2][..]), (&["d3".to_owned(), "d7".to_owned()][..], &["d7".to_owned()][..]));
}

#[test]
fn a_document_that_is_refused_is_named_and_all_others_arrive() {
    let case = Case::new("elasticsearch", "9.1.0");
    let bad = json!({"_id": "bad", "text": REFUSED_TEXT}).to_string();
    case.index(&(corpus(0..10) + &bad + "\n" + &corpus(10..40)));
    let refused = case.push(&[]);
    let message = "document bad was refused: failed to parse: a value of another type";
    refused.fails(1, message, "all other documents are in the collection");
    assert_eq!(case.server.content().documents.len(), 40);
}

#[test]
fn requests_without_an_answer_are_repeated() {
    let case = Case::new("opensearch", "2.19.6");
    let faults = [
        ("PUT /docs", Fault::CutAfter),
        ("_bulk", Fault::Status(429, Some(1))),
        ("_bulk", Fault::CutAfter),
        ("_bulk", Fault::Status(503, None)),
        ("_bulk", Fault::CutBefore),
        ("_refresh", Fault::Status(503, None)),
        ("_count", Fault::CutBefore),
    ];
    for (request, fault) in faults {
        case.server.http.fault(request, fault);
    }
    case.push(&["--batch-bytes", "10KB"]).done();
    assert_eq!((case.server.http.faults_left(), case.server.content().documents.len()), (0, 40));
    case.server.http.fault("_search", Fault::Status(429, None));
    assert_eq!(case.search(&["-k", "5", "--format", "trec"]).done().lines().count(), 5);
}

#[test]
fn a_push_is_completed_after_any_request() {
    let cases = [
        ("opensearch", "2.19.6", &[][..]),
        ("opensearch", "3.6.0", &["--field-type", "sparse_vector"]),
        ("elasticsearch", "9.2.1", &["--overwrite"]),
    ];
    for (engine, version, more) in cases {
        let small = ["--batch-bytes", "10kB", "--concurrency", "1", "--no-verify"];
        let args = [&small[..], more].concat();
        let mut case = Case::new(engine, version);
        let content = |case: &Case| {
            let content = case.server.content();
            (content.index.clone(), content.documents.clone())
        };
        case.push(&args).done();
        let undisturbed = content(&case);
        let mut killed = 0;
        for handled in 1.. {
            case.server = Lucene::start(version);
            if args.contains(&"--overwrite") {
                case.push(&[]).done();
            }
            case.server.http.fall_silent_after(handled);
            let at = ["--to", case.engine, "--url", case.server.address(), "--collection", "docs"];
            let push = [&["push-index", "docs.index"], &at[..], &args].concat();
            if !case.server.http.kill_when_silent(case.place.command(&push).spawn().unwrap()) {
                break;
            }
            case.push(&args).done();
            assert!(content(&case) == undisturbed, "{engine} {version}: killed after request {handled}");
            killed += 1;
        }
        assert!(killed > 5, "{engine} {version}: {killed} requests");
    }
}

#[test]
fn rankings_by_words_alone_are_requests_of_the_engine() {
    for (engine, version) in [("opensearch", "2.19.6"), ("elasticsearch", "9.2.1")] {
        let case = Case::new(engine, version);
        case.push(&[]).done();
        let shown = case.search(&["--mode", "bm25", "--filter", "lang:nb", "--show-query"]).done();
        let body: Json = serde_json::from_str(shown.split_once('\n').unwrap().1).unwrap();
        let words = &body["query"]["bool"]["must"][0]["multi_match"];
        assert_eq!(words["query"], "oslo om vinteren", "{body}");
        assert!(body["query"]["bool"]["filter"][0].is_object() && body["sort"][0]["_score"] == "desc", "{body}");
    }
}

#[test]
fn answers_that_would_be_wrong_are_refused() {
    let case = Case::new("opensearch", "2.19.6");
    case.push(&[]).done();
    case.server.content().unknown_query = Some("hybrid".into());
    case.search(&["--mode", "hybrid"]).fails(2, "it does not know the query hybrid", "install the plugin");
    case.search(&["--filter", "tags=a"]).fails(2, "the field \"tags\" has no type", "--fields");
    case.search(&["--mode", "hybrid", "--fusion", "weighted", "--scaling", "max"]).fails(
        2,
        "scores are not scaled by max there",
        "min-max",
    );
    case.search(&["--mode", "hybrid", "--weights", "2,1"]).fails(
        2,
        "its reciprocal rank fusion takes no weights",
        "weighted",
    );
}

#[test]
fn settings_that_an_engine_or_a_collection_does_not_have_are_refused() {
    let case = Case::new("elasticsearch", "9.1.0");
    case.push(&["--field-type", "rank_features"]).fails(
        2,
        "--field-type: elasticsearch has no such setting",
        "leave it out",
    );
    let case = Case::new("opensearch", "2.19.6");
    let alone = case.push(&["--approximate-threshold", "5"]);
    alone.fails(2, "--approximate-threshold: only the field type sparse_vector", "--field-type sparse_vector");
    case.push(&["--shards", "3"]).done();
    case.push(&["--shards", "3"]).done();
    case.push(&[]).done();
    case.push(&["--shards", "5"]).fails(2, "its shards is 3, not 5", "--overwrite");
    case.push(&["--shards", "5", "--overwrite"]).done();
    assert_eq!(case.server.content().index["settings"]["index"]["number_of_shards"], 5);
}

/// Tests of a real cluster of version 2.19.
mod v2 {
    use super::live;

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn scores_are_dot_products_of_cut_weights() {
        live::scores_are_dot_products_of_cut_weights("v2");
    }

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn a_node_stops_during_a_push() {
        live::a_node_stops_during_a_push("v2");
    }

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn a_node_stops_between_searches() {
        live::a_node_stops_between_searches("v2");
    }

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn a_push_is_resumed_and_synchronized() {
        live::a_push_is_resumed_and_synchronized("v2");
    }

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn filters_and_hybrid_rankings() {
        live::filters_and_hybrid_rankings("v2");
    }
}

/// Tests of a real cluster of version 3.
mod v3 {
    use super::live;

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn scores_are_dot_products_of_cut_weights() {
        live::scores_are_dot_products_of_cut_weights("v3");
    }

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn filters_and_hybrid_rankings() {
        live::filters_and_hybrid_rankings("v3");
    }

    #[test]
    #[ignore = "starts OpenSearch, run `make test-engines`"]
    fn approximate_searches() {
        live::approximate_searches("v3");
    }
}
