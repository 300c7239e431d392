//! Answers of the server: those of the other commands, bit for bit, and problems with their places.

use super::*;

/// Result of a search as the text that the server sent.
fn results(server: &Server, body: &Value) -> String {
    let reply = server.post("/v1/search", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body.strip_prefix("{\"results\":[").unwrap().strip_suffix("]}").unwrap().to_owned()
}

#[test]
fn answers_are_those_of_search_bit_for_bit() {
    let place = place_with_index();
    let server = served(&place);
    let text = "hva er hovedstaden i Norge";
    let cases: [(&[&str], Value); 9] = [
        (&[], json!({})),
        (&["-k", "3", "--explain"], json!({"k": 3, "explain": true})),
        (&["--mode", "bm25", "--explain"], json!({"mode": "bm25", "explain": true})),
        (
            &["--mode", "hybrid", "--explain", "--snippets", "2"],
            json!({"mode": "hybrid", "explain": true, "snippets": 2}),
        ),
        (
            &["--mode", "hybrid", "--fusion", "weighted", "--weights", "0.7,0.3", "--scaling", "max", "--depth", "5"],
            json!({"mode": "hybrid", "fusion": {"rule": "weighted", "weights": [0.7, 0.3], "scaling": "max", "depth": 5}}),
        ),
        (&["--mode", "hybrid", "--rrf-k", "5"], json!({"mode": "hybrid", "fusion": {"rrf_k": 5}})),
        (
            &["--mode", "bm25", "--bm25-k1", "0.9", "--bm25-b", "0.3", "--bm25-compounds", "off"],
            json!({"mode": "bm25", "bm25": {"k1": 0.9, "b": 0.3, "compounds": false}}),
        ),
        (
            &["--filter", "theme:by AND year:[2024 TO *]", "--count-by", "theme", "--count-by", "year"],
            json!({"filter": "theme:by AND year:[2024 TO *]", "count_by": ["theme", "year"]}),
        ),
        (
            &["--max-active-dims", "2", "--min-weight", "0.01", "--snippets", "1", "--snippet-length", "40"],
            json!({"pruning": {"max_active_dims": 2, "min_weight": 0.01}, "snippets": 1, "snippet_length": 40}),
        ),
    ];
    for (flags, settings) in cases {
        let line = place.ok(&with(&with(&["search", "--index", "toy.index", "--json", text], &[]), flags));
        let mut body = settings.clone();
        body["query"] = text.into();
        assert_eq!(results(&server, &body), line.trim_end(), "{flags:?}");
        // several queries at once
        let flags = with(&["search", "--index", "toy.index", "--json", "--queries", "queries.jsonl"], flags);
        let lines: Vec<String> = place.ok(&flags).lines().map(str::to_owned).collect();
        let queries =
            place.read("queries.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        let mut body = settings;
        body["queries"] = queries.into();
        assert_eq!(results(&server, &body), lines.join(","), "{flags:?}");
    }
}

#[test]
fn searches_are_the_same_on_all_threads() {
    // the first searches of a server run on threads of the pool, later ones of a small index on those that read requests
    let place = place_with_index();
    let server = served(&place);
    let queries = ["hva er hovedstaden i Norge", "hvor gyter torsken", "nordlyset om vinteren", ""];
    for mode in ["sparse", "bm25", "hybrid"] {
        let body = |query: &str| json!({"query": query, "mode": mode, "k": 5});
        let first = queries.map(|query| results(&server, &body(query)));
        for _ in 0..50 {
            assert_eq!(queries.map(|query| results(&server, &body(query))), first);
        }
    }
    let count = "splade_search_seconds_count{index=\"toy\",mode=\"hybrid\"} 204";
    assert!(server.get("/metrics").body.contains(count));
}

#[test]
fn dense_rankings_are_those_of_search() {
    let place = place();
    place.copy(&ours("data/dense-tiny/model"), "dense-model");
    place.ok(&with(&INDEX, &["--dense", "dense-model"]));
    let server = Server::start(&place, &with(&INDEXES, &["--dense", "dense-model"]));
    for mode in ["dense", "hybrid", "sparse"] {
        let flags: &[&str] = if mode == "sparse" { &[] } else { &["--dense", "dense-model"] };
        let search = ["search", "--index", "toy.index", "--json", "hvor gyter torsken", "--mode", mode, "--explain"];
        let line = place.ok(&with(&search, flags));
        let body = json!({"query": "hvor gyter torsken", "mode": mode, "explain": true});
        assert_eq!(results(&server, &body), line.trim_end(), "{mode}");
    }
}

#[test]
fn vectors_and_chosen_fields_are_searched_and_shown() {
    let place = place_with_index();
    let server = served(&place);
    let encoded = server.post("/v1/encode", &json!({"texts": ["torsken gyter"]})).ok();
    let vector = &encoded["vectors"][0];
    let by_text = server.post("/v1/search", &json!({"query": "torsken gyter"})).ok();
    let by_vector = server.post("/v1/search", &json!({"vector": vector})).ok();
    assert_eq!(by_text["results"][0]["hits"], by_vector["results"][0]["hits"]);
    let both = json!({"queries": [{"_id": "a", "text": "torsken gyter", "vector": vector}, {"text": "torsken gyter"}], "mode": "hybrid"});
    let both = server.post("/v1/search", &both).ok();
    assert_eq!(both["results"][0]["hits"], both["results"][1]["hits"]);
    assert_eq!((&both["results"][0]["query_id"], &both["results"][1]["query_id"]), (&json!("a"), &json!("2")));
    let few = server.post("/v1/search", &json!({"query": "torsken gyter", "k": 1, "fields": ["title", "year"]})).ok();
    let names: Vec<&String> = few["results"][0]["hits"][0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["rank", "_id", "score", "title", "year"]);
}

#[test]
fn vectors_are_those_of_encode() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--model", "model"]));
    let texts = ["torsken gyter i Lofoten", "", "Oslo er hovedstaden i Norge"];
    let lines: String = texts.iter().map(|text| format!("{}\n", json!({"_id": "x", "text": text}))).collect();
    place.write("texts.jsonl", lines);
    for role in ["query", "document"] {
        let lines = place.json_lines(&["encode", "model", "--input", "texts.jsonl", "--role", role]);
        let found = server.post("/v1/encode", &json!({"texts": texts, "role": role})).ok();
        let tei = server.post("/embed_sparse", &json!({"inputs": texts, "role": role})).ok();
        assert_eq!(lines.len(), 3);
        for (at, line) in lines.iter().enumerate() {
            let vector = &found["vectors"][at];
            assert_eq!((&vector["indices"], &vector["values"]), (&line["indices"], &line["values"]), "{role} {at}");
            let pairs = line["indices"].as_array().unwrap().iter().zip(line["values"].as_array().unwrap());
            let pairs: Vec<Value> = pairs.map(|(index, value)| json!({"index": index, "value": value})).collect();
            assert_eq!(tei[at], json!(pairs), "{role} {at}");
        }
    }
    let one = server.post("/embed_sparse", &json!({"inputs": texts[0], "truncate": true})).ok();
    assert_eq!(one[0], server.post("/embed_sparse", &json!({"inputs": texts})).ok()[0]);
    let tokens = server.post("/v1/encode", &json!({"texts": [texts[0]], "format": "tokens"})).ok();
    let expected = place.feed(
        &["encode", "model", "--input", "-", "--role", "query", "--format", "tokens"],
        &format!("{}\n", json!({"_id": "x", "text": texts[0]})),
    );
    let expected: Value = serde_json::from_str(&expected.done()).unwrap();
    let found = tokens["vectors"][0]["tokens"].to_string();
    assert_eq!(found, expected["tokens"].to_string(), "the largest weight first");
    assert!(found.len() > 10, "{found}");
}

#[test]
fn long_texts_are_refused_as_text_embeddings_inference_does() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--model", "model", "--max-batch", "4"]));
    let long = "torsk ".repeat(2000);
    let reply = server.post("/embed_sparse", &json!({"inputs": ["kort", long]}));
    reply.fails(413, "/inputs/1", "set truncate to true");
    assert_eq!(reply.json()["error_type"], "Validation");
    server.post("/embed_sparse", &json!({"inputs": [long], "truncate": true})).ok();
    let reply = server.post("/embed_sparse", &json!({"inputs": vec!["x"; 5]}));
    reply.fails(413, "/inputs", "5 texts, expected 1 to 4");
    server.post("/embed_sparse", &json!({"inputs": "x", "truncation_direction": "Left"})).fails(
        422,
        "/truncation_direction",
        "Right",
    );
    let reply = server.post("/embed_sparse", &json!({"inputs": 3}));
    reply.fails(422, "/inputs", "expected a text or a list of texts");
    assert_eq!(reply.json()["error_type"], "Tokenizer");
}

#[test]
fn explanations_add_up() {
    let place = place_with_index();
    let server = served(&place);
    let text = "hva er hovedstaden i Norge";
    let found = server.post("/v1/search", &json!({"query": text, "explain": true})).ok();
    let hits = found["results"][0]["hits"].as_array().unwrap().clone();
    assert!(hits.len() > 1);
    let ids: Vec<&Value> = hits.iter().map(|hit| &hit["_id"]).collect();
    let explained = server.post("/v1/explain", &json!({"query": text, "ids": ids})).ok();
    for (hit, explained) in hits.iter().zip(explained["documents"].as_array().unwrap()) {
        assert_eq!(
            (&hit["_id"], &hit["score"], &hit["terms"]),
            (&explained["_id"], &explained["sparse_score"], &explained["terms"])
        );
    }
    let bm25 = server.post("/v1/search", &json!({"query": text, "mode": "bm25", "k": 1})).ok();
    let hit = &bm25["results"][0]["hits"][0];
    let explained = server.post("/v1/explain", &json!({"query": text, "ids": [hit["_id"]]})).ok();
    let (score, parts) = (hit["score"].as_f64().unwrap(), explained["documents"][0]["bm25_score"].as_f64().unwrap());
    assert!((score - parts).abs() < 1e-4 * score, "{score} {parts}");
    server.post("/v1/explain", &json!({"query": text, "ids": ["oslo", "none"]})).fails(
        404,
        "/ids/1",
        "no document of this id",
    );
    server.post("/v1/explain", &json!({"query": text, "ids": []})).fails(422, "/ids", "0 ids, expected 1 to");
}

#[test]
fn a_problem_has_the_place_of_the_member() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--max-k", "50", "--max-batch", "3", "--max-tokens", "30"]));
    let long = "torsk ".repeat(31);
    for (body, pointer, detail) in [
        (json!({}), "", "there is no query"),
        (json!({"query": "a", "queries": []}), "/queries", "not both"),
        (json!({"queries": []}), "/queries", "0 queries, expected 1 to 3"),
        (json!({"queries": [{"text": "a"}, {"text": "a"}, {"text": "a"}, {"text": "a"}]}), "/queries", "4 queries"),
        (json!({"queries": [{"text": "a"}, {"text": 3}]}), "/queries/1/text", "invalid type: integer"),
        (json!({"queries": [{"text": "a"}, {}]}), "/queries/1/text", "needs the text"),
        (json!({"queries": [{"text": "a"}, {"txt": "a"}]}), "/queries/1/txt", "unknown field `txt`"),
        (json!({"queries": [{"text": long}]}), "/queries/0/text", "more than 30 tokens"),
        (json!({"query": "x".repeat(100_000)}), "/query", "more than 30 tokens"),
        (json!({"query": "a", "k": 0}), "/k", "at least 1"),
        (json!({"query": "a", "k": 51}), "/k", "at most 50"),
        (json!({"query": "a", "k": u64::MAX}), "/k", "at most 50"),
        (json!({"query": "a", "k": -1}), "/k", "invalid value"),
        (json!({"query": "a", "k": 1.5}), "/k", "invalid type"),
        (json!({"query": "a", "mode": "fast"}), "/mode", "unknown variant `fast`"),
        (json!({"query": "a", "mode": "dense"}), "/mode", "no dense vectors"),
        (json!({"query": "a", "filter": "year:["}), "/filter", ""),
        (json!({"query": "a", "filter": "colour:[1 TO 2]"}), "/filter", "colour"),
        (json!({"query": "a", "count_by": ["year", "colour"]}), "/count_by/1", "which are: theme, year"),
        (json!({"query": "a", "fusion": {}}), "/fusion", "only the mode hybrid"),
        (json!({"query": "a", "bm25": {}}), "/bm25", "only the modes bm25 and hybrid"),
        (
            json!({"query": "a", "mode": "hybrid", "fusion": {"rule": "rrf", "scaling": "max"}}),
            "/fusion/scaling",
            "only the rule weighted",
        ),
        (
            json!({"query": "a", "mode": "hybrid", "fusion": {"rule": "weighted", "rrf_k": 1}}),
            "/fusion/rrf_k",
            "only the rule rrf",
        ),
        (
            json!({"query": "a", "mode": "hybrid", "fusion": {"rrf_k": -1}}),
            "/fusion/rrf_k",
            "not a number of at least 0",
        ),
        (
            json!({"query": "a", "mode": "hybrid", "fusion": {"rule": "weighted", "scaling": "x"}}),
            "/fusion/scaling",
            "",
        ),
        (
            json!({"query": "a", "mode": "hybrid", "fusion": {"weights": [1, 2, 3]}}),
            "/fusion/weights",
            "3 weights for 2",
        ),
        (
            json!({"query": "a", "mode": "hybrid", "fusion": {"weights": [0, 0]}}),
            "/fusion/weights",
            "one of them not 0",
        ),
        (json!({"query": "a", "mode": "hybrid", "fusion": {"depth": 51}}), "/fusion/depth", "at most 50"),
        (json!({"query": "a", "mode": "bm25", "bm25": {"b": 2}}), "/bm25/b", ""),
        (json!({"query": "a", "mode": "bm25", "bm25": {"k1": -2}}), "/bm25/k1", ""),
        (json!({"query": "a", "mode": "bm25", "pruning": {}}), "/pruning", "no sparse vectors"),
        (json!({"query": "a", "pruning": {"mass": 2}}), "/pruning/mass", ""),
        (json!({"query": "a", "pruning": {"max_active_dims": 0}}), "/pruning/max_active_dims", "at least 1"),
        (json!({"query": "a", "snippets": 21}), "/snippets", "at most 20"),
        (json!({"query": "a", "snippet_length": 21}), "/snippet_length", "no snippets"),
        (
            json!({"query": "a", "mode": "bm25", "vector": {"indices": [], "values": []}}),
            "/vector",
            "no sparse vectors",
        ),
        (json!({"vector": {"indices": [1], "values": []}}), "/vector/values", "1 indices and 0 values"),
        (json!({"vector": {"indices": [1, 1], "values": [1, 1]}}), "/vector", ""),
        (
            json!({"vector": {"indices": [99_999_999], "values": [1]}}),
            "/vector/indices/0",
            "the vocabulary of the index has",
        ),
        (
            json!({"vector": {"indices": (0..31).collect::<Vec<_>>(), "values": vec![1; 31]}}),
            "/vector/indices",
            "31 terms, more than 30",
        ),
        (json!([]), "", "expected an object"),
    ] {
        server.post("/v1/search", &body).fails(422, pointer, detail);
    }
    let many = Server::start(&place, &with(&INDEXES, &["--max-k", "50"]));
    let queries = vec![json!({"text": "a"}); 11];
    many.post("/v1/search", &json!({"queries": queries, "k": 50})).fails(422, "/k", "at most 500 hits");
    server.post("/v1/encode", &json!({"texts": ["a"], "role": "document"})).fails(422, "/role", "--model");
    server.post("/v1/encode", &json!({"texts": ["a", long]})).fails(422, "/texts/1", "more than 30 tokens");
    server.post("/v1/documents", &json!({"delete": ["oslo"]})).fails(403, "", "--writable");
}
