//! `splade serve`: answers, problems, keys, signals, changes.

#[path = "serve/answers.rs"]
mod answers;
#[path = "serve/changes.rs"]
mod changes;
#[path = "serve/faults.rs"]
mod faults;

use serde_json::{Value, json};

use super::*;
use crate::util::server::Server;

/// A folder with an index of the toy corpus, with fields, in Norwegian.
fn place_with_index() -> Place {
    let place = place();
    place.ok(&with(&INDEX, &["--language", "norwegian"]));
    place
}

const INDEXES: [&str; 2] = ["--index", "toy.index"];

fn served(place: &Place) -> Server {
    Server::start(place, &INDEXES)
}

/// Ids of the hits of a search.
fn ids(server: &Server, body: &Value) -> Vec<String> {
    let found = server.post("/v1/search", body).ok();
    let hits = found["results"][0]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_server_without_a_key_stays_on_this_machine() {
    let place = place_with_index();
    let serve = with(&["serve", "--port", "0"], &INDEXES);
    place.run(&with(&serve, &["--host", "0.0.0.0"])).fails(
        2,
        "--host 0.0.0.0: other machines reach it",
        "--api-key-file",
    );
    place.write("keys.txt", "short\n");
    let keys = ["--api-key-file", "keys.txt"];
    place.run(&with(&serve, &keys)).fails(2, "keys.txt:1: a key of fewer than 16 characters", "openssl rand");
    place.write("keys.txt", "\n\n");
    place.run(&with(&serve, &keys)).fails(2, "keys.txt: there are no keys in it", "one key a line");
    place.run(&["serve", "--index", "none.index"]).fails(2, "none.index: no index there", "");
    place.run(&["serve", "--index", "toy.index", "toy.index"]).fails(
        2,
        "two indexes have the name \"toy\"",
        "NAME=DIR",
    );
    place.run(&["serve", "--index", "a/b=toy.index"]).fails(2, "expected DIR or NAME=DIR", "--help");
    place.run(&with(&serve, &["--max-body", "0"])).fails(2, "expected a size", "--help");
    place.run(&with(&serve, &["--max-k", "0"])).fails(2, "expected at least 1", "--help");
    place.run(&with(&serve, &["--timeout", "0"])).fails(2, "0 is not in 1..", "--help");
    place.run(&with(&serve, &["--model", "none"])).fails(2, "none: no such folder", "give the folder of a model");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    place.run(&["serve", "--index", "toy.index", "--port", &port]).fails(1, "address already in use", "");
    let server = Server::start(&place, &with(&INDEXES, &["--host", "0.0.0.0", "--allow-unauthenticated"]));
    assert_eq!(server.get("/version").ok()["name"], "splade");
}

#[test]
fn keys_are_needed_but_for_health() {
    let place = place_with_index();
    place.write("keys.txt", "a-key-of-one-user\na-key-of-another\n");
    let server = Server::start(&place, &with(&INDEXES, &["--api-key-file", "keys.txt"]));
    let get = |path: &str, head: &[&str]| server.send("GET", path, head, b"").unwrap();
    for path in ["/version", "/metrics", "/openapi.json", "/v1/indexes"] {
        let reply = get(path, &[]);
        reply.fails(401, "", "a key is needed");
        assert!(reply.head.contains("www-authenticate: bearer"), "{reply:?}");
        get(path, &["authorization: Bearer a-key-of-one-use"]).fails(401, "", "a key is needed");
        assert_eq!(get(path, &["authorization: Bearer a-key-of-another"]).status, 200, "{path}");
    }
    server.send("POST", "/v1/search", &["content-type: application/json"], b"{}").unwrap().fails(401, "", "key");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(path, &[]).ok()["status"], "ok");
    }
    // keys change without a restart
    place.write("keys.txt", "a-key-of-somebody-else\n");
    server.signal("HUP");
    wait_until("the new keys", || get("/version", &["authorization: Bearer a-key-of-somebody-else"]).status == 200);
    get("/version", &["authorization: Bearer a-key-of-another"]).fails(401, "", "key");
}

#[test]
fn pages_of_other_sites_reach_nothing() {
    let place = place_with_index();
    let server = served(&place);
    let rebound = server.send("GET", "/version", &["host: example.org"], b"").unwrap();
    rebound.fails(403, "", "the header host must be");
    assert_eq!(server.send("GET", "/version", &["host: localhost:1"], b"").unwrap().status, 200);
    let form = ["content-type: text/plain"];
    server.send("POST", "/v1/search", &form, b"{\"query\": \"fisk\"}").unwrap().fails(415, "", "send JSON");
    server.send("POST", "/v1/search", &[], b"{\"query\": \"fisk\"}").unwrap().fails(415, "", "send JSON");
    server.get("/nothing").fails(404, "", "/openapi.json");
    server.get("/v1/search").fails(405, "", "another method");
    for path in ["/version", "/nothing"] {
        assert!(server.get(path).head.contains("x-content-type-options: nosniff"));
    }
}

#[test]
fn the_state_of_the_server_is_shown() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--index", "second=toy.index"]));
    let found = server.get("/v1/indexes").ok();
    assert_eq!(found["indexes"][0]["name"], "toy");
    assert_eq!(found["indexes"][1]["name"], "second");
    assert_eq!(found["indexes"][0]["documents"], 12);
    assert_eq!(found["indexes"][0]["modes"], json!(["sparse", "bm25", "hybrid"]));
    assert_eq!(
        found["indexes"][0]["fields"],
        json!([{"name": "theme", "kind": "keyword"}, {"name": "year", "kind": "int"}])
    );
    assert_eq!((&found["writable"], &found["encodes_documents"]), (&json!(false), &json!(false)));
    server.post("/v1/search", &json!({"query": "fisk"})).fails(422, "/index", "name one of the indexes: toy, second");
    server.post("/v1/search", &json!({"query": "fisk", "index": "x"})).fails(404, "/index", "there is no index \"x\"");
    server.post("/v1/search", &json!({"query": "fisk", "index": "second"})).ok();
    let metrics = server.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{metrics:?}");
    for line in [
        "splade_requests_total{method=\"POST\",route=\"/v1/search\",status=\"422\"} 1",
        "splade_documents{index=\"toy\"} 12",
        "splade_search_seconds_count{index=\"second\",mode=\"sparse\"} 1",
    ] {
        assert!(metrics.body.contains(line), "{line}: {}", metrics.body);
    }
    let described = server.get("/openapi.json").ok();
    let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
    assert!(paths.len() >= 10, "{paths:?}");
    for path in paths {
        let reply = server.get(path);
        assert!([200, 405].contains(&reply.status), "{path}: {reply:?}");
    }
}
