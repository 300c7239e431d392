//! Changes of an index that is served: by requests, by other processes, by a replaced folder.

use super::*;

fn writable(place: &Place) -> Server {
    Server::start(place, &with(&INDEXES, &["--model", "model", "--writable"]))
}

/// Waits until the server has closed its writer, which leaves files of its own in the folder before.
fn wait_for_writer(place: &Place) {
    place.write("none.txt", "nobody\n");
    let delete = ["index", "model", "--index", "toy.index", "--append", "--delete", "none.txt"];
    wait_until("the writer is closed", || place.run(&delete).code == Some(0));
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
    wait_for_writer(&place);
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

/// Documents to add: one of several passages, one that replaces another, a short one and one without a text.
fn more_documents() -> Vec<Value> {
    let long = "Torsken gyter i Lofoten om vinteren. Nordlyset ses over fjorden. I Bergen regner det ofte. ".repeat(6);
    vec![
        json!({"_id": "lang", "title": "En lang side", "text": long, "theme": "natur", "year": 2025}),
        json!({"_id": "oslo", "title": "Oslo", "text": "Oslo er hovedstaden, og trikken går til Bislett.", "theme": "by"}),
        json!({"_id": "hval", "text": "Hvalen svømmer i fjorden."}),
        json!({"_id": "tom", "text": ""}),
    ]
}

/// Sends a change to the index `toy`, and compares its answers with those of `appended`, to which a command added the same.
fn expect_as_appended(server: &Server, change: &Value, modes: &[&str]) {
    let changed = server.post("/v1/documents", change).ok();
    let indexes = server.get("/v1/indexes").ok();
    assert_eq!(changed["documents"], indexes["indexes"][1]["documents"], "{indexes}");
    let queries = ["torsken gyter i Lofoten", "hovedstaden i Norge", "hvalen svømmer", "nordlyset om vinteren"];
    for mode in modes {
        let mut found = 0;
        for query in queries {
            let answer = |index: &str| {
                let body = json!({"query": query, "mode": mode, "explain": true, "index": index, "k": 20});
                server.post("/v1/search", &body).ok()
            };
            let (served, appended) = (answer("toy"), answer("appended"));
            assert_eq!(served, appended, "{mode}: {query}");
            found += served.to_string().matches("\"lang\"").count();
        }
        assert!(found > 0, "{mode}: no added document was found");
    }
}

#[test]
fn documents_are_split_into_passages_as_by_append() {
    let place = place();
    place.ok(&with(&INDEX, &["--passages", "16/4", "--language", "norwegian", "--max-active-dims", "40"]));
    place.copy(&place.path("toy.index"), "appended.index");
    let documents = more_documents();
    place.write("more.jsonl", documents.iter().map(|document| format!("{document}\n")).collect::<String>());
    place.write("gone.txt", "bergen\n");
    let append = ["index", "model", "--index", "appended.index", "--append", "--input", "more.jsonl"];
    place.ok(&with(&append, &["--delete", "gone.txt"]));
    let both = with(&INDEXES, &["--index", "appended.index"]);
    let server = Server::start(&place, &with(&both, &["--model", "model", "--writable"]));
    let change = json!({"index": "toy", "documents": documents, "delete": ["bergen"]});
    expect_as_appended(&server, &change, &["sparse", "bm25", "hybrid"]);
    let passage = json!({"query": "torsken gyter i Lofoten", "index": "toy", "filter": "year:2025"});
    let passage = server.post("/v1/search", &passage).ok()["results"][0]["hits"][0]["passage"].clone();
    assert!(passage["count"].as_u64().unwrap() > 3, "{passage}");
    let vector = json!({"_id": "a", "text": "a", "vector": {"indices": [7], "values": [1]}});
    server.post("/v1/documents", &json!({"index": "toy", "documents": [{"_id": "b"}, vector]})).fails(
        422,
        "/documents/1/vector",
        "split into passages: leave the vector out",
    );
    wait_for_writer(&place);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    place.ok(&["index", "--check", "toy.index"]);
    // without a network documents can be deleted, and not added
    let server = Server::start(&place, &with(&INDEXES, &["--writable"]));
    server.post("/v1/documents", &json!({"documents": [{"_id": "a", "text": "a"}]})).fails(
        422,
        "/documents",
        "--model",
    );
    assert_eq!(server.post("/v1/documents", &json!({"delete": ["lang"]})).ok()["deleted"], 1);
    drop(server);
    let serve = with(&["serve", "--port", "0", "--writable", "--model", "model", "--max-length", "12"], &INDEXES);
    place.run(&serve).fails(2, "toy.index: passages of 16 tokens are longer than the 12", "use at most 12");
}

#[test]
fn documents_get_dense_vectors_as_by_append() {
    let place = place();
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    place.ok(&with(&INDEX, &["--dense", "dense-model", "--language", "norwegian"]));
    place.copy(&place.path("toy.index"), "appended.index");
    let mut documents = more_documents();
    place.write("more.jsonl", documents.iter().map(|document| format!("{document}\n")).collect::<String>());
    let append = ["index", "model", "--index", "appended.index", "--append", "--dense", "dense-model"];
    place.ok(&with(&append, &["--input", "more.jsonl"]));
    // documents with sparse vectors of their own
    let (given, vectors) =
        (json!({"_id": "lang2", "text": "Torsken er en fisk."}), json!({"indices": [5, 9], "values": [1, 2]}));
    place.write("given.jsonl", format!("{given}\n"));
    place.write("vectors.jsonl", "{\"_id\": \"lang2\", \"indices\": [5, 9], \"values\": [1, 2]}\n");
    place.ok(&with(&append, &["--input", "given.jsonl", "--vectors", "vectors.jsonl"]));
    let mut given = given;
    given["vector"] = vectors;
    documents.insert(1, given);
    let both = with(&INDEXES, &["--index", "appended.index"]);
    let models = ["--writable", "--model", "model", "--dense", "dense-model"];
    let server = Server::start(&place, &with(&both, &models));
    let change = json!({"index": "toy", "documents": documents});
    expect_as_appended(&server, &change, &["dense", "sparse"]);
    wait_for_writer(&place);
    drop(server);
    place.ok(&["index", "--check", "toy.index"]);
    for models in [&["--model", "model"][..], &["--dense", "dense-model"]] {
        let serve = with(&with(&["serve", "--port", "0", "--writable"], &INDEXES), models);
        place.run(&serve).fails(2, "its documents have dense vectors", "--model MODEL --dense MODEL");
    }
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
