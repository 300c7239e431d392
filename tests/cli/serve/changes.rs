//! Changes of an index that is served: by requests, by other processes, by a replaced folder.

use super::*;

fn writable(place: &Place) -> Server {
    Server::start(place, &with(&INDEXES, &["--model", "model", "--writable"]))
}

#[test]
fn documents_are_added_replaced_and_deleted() {
    let place = place_with_index();
    let server = writable(&place);
    let query = json!({"query": "et nytt dokument om hvalen i fjorden", "mode": "bm25", "k": 1});
    let hval = json!({"_id": "hval", "title": "Hvalen", "text": "Hvalen svømmer i fjorden.", "theme": "dyr", "year": 2025, "vekt": 3.5});
    let change = server.post("/v1/documents", &json!({"documents": [hval], "delete": ["oslo", "unknown"]})).ok();
    assert_eq!(change, json!({"added": 1, "deleted": 2, "documents": 12}));
    assert_eq!(ids(&server, &query), ["hval"]);
    let filtered = json!({"query": "hvalen", "mode": "bm25", "filter": "theme:dyr AND year:2025", "k": 1});
    let found = server.post("/v1/search", &filtered).ok();
    assert_eq!(found["results"][0]["hits"][0]["vekt"], 3.5);
    // the same vector as by `splade index`
    place.write("hval.jsonl", format!("{hval}\n"));
    place.ok(&["index", "model", "--input", "hval.jsonl", "--index", "hval.index"]);
    let alone = Server::start(&place, &["--index", "hval.index"]);
    let text = "hva er hovedstaden i Norge, hvor gyter torsken, nordlyset om vinteren, hvalen svømmer i fjorden";
    let explain = |server: &Server| server.post("/v1/explain", &json!({"query": text, "ids": ["hval"]})).ok();
    let (served, expected) = (explain(&server), explain(&alone));
    assert_eq!(served["documents"][0]["terms"], expected["documents"][0]["terms"]);
    assert!(!served["documents"][0]["terms"].as_array().unwrap().is_empty());
    let again = json!({"documents": [{"id": "hval", "text": "Spekkhoggeren er borte."}]});
    assert_eq!(server.post("/v1/documents", &again).ok()["documents"], 12);
    assert_eq!(ids(&server, &json!({"query": "spekkhoggeren", "mode": "bm25"})), ["hval"]);
    assert!(ids(&server, &json!({"query": "svømmer", "mode": "bm25"})).is_empty());
    for (body, pointer, detail) in [
        (json!({}), "", "0 documents and ids"),
        (json!({"documents": [{"text": "a"}]}), "/documents/0", "missing field `_id`"),
        (json!({"documents": [{"_id": "", "text": "a"}]}), "/documents/0/_id", "an id is needed"),
        (json!({"documents": [{"_id": "a"}, {"_id": "a"}]}), "/documents/1/_id", "occurs twice"),
        (json!({"documents": [{"_id": "a"}], "delete": ["a"]}), "/documents/0/_id", "occurs twice"),
        (json!({"documents": [{"_id": "a", "text": 3}]}), "/documents/0/text", "invalid type"),
        (
            json!({"documents": [{"_id": "a", "vector": {"indices": [1], "values": [1, 2]}}]}),
            "/documents/0/vector/values",
            "1 indices and 2",
        ),
    ] {
        server.post("/v1/documents", &body).fails(422, pointer, detail);
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    place.ok(&["index", "--check", "toy.index"]);
    assert_eq!(place.json(&["index", "--optimize", "toy.index", "--json"])["documents"], 12);
}

#[test]
fn vectors_of_documents_need_no_network() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--writable"]));
    server.post("/v1/documents", &json!({"documents": [{"_id": "a", "text": "a"}]})).fails(
        422,
        "/documents",
        "or give vectors",
    );
    let document = json!({"_id": "a", "text": "a", "vector": {"indices": [7, 3], "values": [2.5, 1.0]}});
    server.post("/v1/documents", &json!({"documents": [document]})).ok();
    let found = server.post("/v1/search", &json!({"vector": {"indices": [7], "values": [2]}, "filter": "text:a"}));
    assert_eq!(found.ok()["results"][0]["hits"][0]["score"], 5.0);
}

#[test]
fn an_index_with_several_vectors_a_document_is_not_writable() {
    let place = place();
    place.ok(&with(&INDEX, &["--passages", "16"]));
    let serve = with(&["serve", "--port", "0", "--writable"], &INDEXES);
    place.run(&serve).fails(2, "split into passages", "splade index --append");
}

#[test]
fn commits_of_another_process_are_served() {
    let place = place_with_index();
    let server = served(&place);
    place.write("more.jsonl", "{\"_id\": \"ny\", \"text\": \"Spekkhoggeren jakter.\"}\n");
    place.ok(&["index", "model", "--index", "toy.index", "--append", "--input", "more.jsonl"]);
    let query = json!({"query": "spekkhoggeren", "mode": "bm25"});
    wait_until("the new commit", || ids(&server, &query) == ["ny"]);
    // the writer of the server leaves the index to others
    let server = writable(&place);
    server.post("/v1/documents", &json!({"delete": ["ny"]})).ok();
    place.write("gone.txt", "oslo\n");
    wait_until("the writer is closed", || {
        place.run(&["index", "model", "--index", "toy.index", "--append", "--delete", "gone.txt"]).code == Some(0)
    });
    wait_until("the delete", || server.get("/v1/indexes").ok()["indexes"][0]["documents"] == 11);
}

#[test]
fn a_replaced_folder_is_opened_at_sighup() {
    let place = place_with_index();
    let server = Server::start(&place, &["--index", "toy.index"]);
    place.write("other.jsonl", "{\"_id\": \"ny\", \"text\": \"Spekkhoggeren jakter.\"}\n");
    place.ok(&[
        "index",
        "model",
        "--input",
        "other.jsonl",
        "--index",
        "toy.index",
        "--overwrite",
        "--language",
        "english",
    ]);
    let query = json!({"query": "hvor gyter torsken", "mode": "bm25"});
    assert_eq!(ids(&server, &query).first().map(String::as_str), Some("torsk"), "{}", server.log());
    wait_until("the warning", || server.log().contains("SIGHUP opens the folder anew"));
    server.signal("HUP");
    wait_until("the new index", || ids(&server, &json!({"query": "spekkhoggeren", "mode": "bm25"})) == ["ny"]);
    // a folder that is no index is not served
    std::fs::remove_dir_all(place.path("toy.index")).unwrap();
    server.signal("HUP");
    wait_until("the error", || server.log().contains("served as before"));
    assert_eq!(ids(&server, &json!({"query": "spekkhoggeren", "mode": "bm25"})), ["ny"]);
}
