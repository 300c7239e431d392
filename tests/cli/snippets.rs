//! `splade search`: snippets in tables, JSON and pages.

use serde_json::{Value, json};

use super::*;

const SEARCH: [&str; 3] = ["search", "--index", "toy.index"];

/// A folder with an index of the toy corpus and of documents with markup, control characters and other scripts.
fn place_with_index() -> Place {
    let place = place();
    let more = [
        json!({"_id": "<i>", "title": "<script>alert(1)</script>", "text": "Oslo \u{1b}[31m & <b>Oslo</b> \u{202e}\u{0} \"x\""}),
        json!({"_id": "rtl", "title": "שלום", "text": "שלום עולם Oslo e\u{301} 👨‍👩‍👧‍👦 עוד טקסט"}),
        json!({"_id": "long", "text": format!("{} Ferja til Oslo går kl. 9. {}", "Fyll. ".repeat(90), "Mer fyll. ".repeat(90))}),
        json!({"_id": "empty", "text": ""}),
    ];
    let corpus = more.iter().map(|line| format!("{line}\n")).collect::<String>();
    place.write("all.jsonl", place.read("corpus.jsonl") + &corpus);
    place.ok(&["index", "model", "--input", "all.jsonl", "--index", "toy.index", "--language", "norwegian"]);
    place
}

/// Characters of a text from one position to another.
fn slice(text: &str, range: &Value) -> String {
    let at = |name: &str| range[name].as_u64().unwrap() as usize;
    text.chars().skip(at("start")).take(at("end") - at("start")).collect()
}

#[test]
fn positions_in_json_are_characters_of_the_text() {
    let place = place_with_index();
    let (mut marks_seen, mut ids) = (0, Vec::new());
    for mode in ["sparse", "bm25", "hybrid"] {
        let args =
            with(&SEARCH, &["Oslo", "--mode", mode, "--json", "--snippets", "2", "--snippet-length", "30", "-k", "20"]);
        for hit in place.json(&args)["hits"].as_array().unwrap() {
            ids.push(hit["_id"].as_str().unwrap().to_owned());
            let text = hit["text"].as_str().unwrap();
            assert!(hit.get("terms").is_none());
            for snippet in hit["snippets"].as_array().unwrap() {
                assert_eq!(slice(text, snippet), snippet["text"].as_str().unwrap());
                for mark in snippet["matches"].as_array().unwrap() {
                    assert_eq!(slice(text, mark), mark["text"].as_str().unwrap());
                    assert_eq!((mark["text"].as_str(), &mark["expansion"]), (Some("Oslo"), &json!(false)), "{hit:#}");
                    marks_seen += 1;
                }
            }
            if mode == "bm25" && hit["_id"] == "long" {
                assert_eq!(hit["snippets"][0]["text"], "Ferja til Oslo går kl. 9. Mer");
            }
        }
    }
    assert!(marks_seen >= 5, "{marks_seen} {ids:?}");
    for id in ["<i>", "rtl", "long", "oslo"] {
        assert!(ids.iter().any(|other| other == id), "{id}: {ids:?}");
    }
}

#[test]
fn inflected_words_are_marked_as_bm25_finds_them() {
    let place = place_with_index();
    let args = with(&SEARCH, &["hovedstad", "--mode", "bm25", "--json", "--snippets", "1"]);
    let found = place.json(&args);
    let mark = &found["hits"][0]["snippets"][0]["matches"][0];
    assert_eq!(mark["text"], "hovedstaden", "{found:#}");
}

/// Query and document share terms of which some are not in the text: these are named, and no word is marked for them.
#[test]
fn terms_outside_the_text_are_listed_as_expansions() {
    let place = place_with_index();
    let question = "nordlyset om vinteren";
    let table = place.ok(&with(&SEARCH, &[question, "-k", "1", "--color", "always"]));
    assert!(table.contains("expansions: vinteren"), "{table}");
    let found = place.json(&with(&SEARCH, &[question, "-k", "1", "--json", "--snippets", "1", "--explain"]));
    let hit = &found["hits"][0];
    assert!(hit["terms"].as_array().unwrap().iter().all(|term| term["expansion"] == true), "{hit:#}");
    assert_eq!(hit["snippets"][0]["matches"], json!([]));
}

#[test]
fn a_table_has_colours_on_request_and_nothing_that_changes_the_terminal() {
    let place = place_with_index();
    let search = with(&SEARCH, &["Oslo", "--mode", "bm25", "-k", "20"]);
    let plain = place.ok(&search);
    let control =
        |text: &str| text.chars().any(|c| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c));
    assert!(!control(&plain) && plain.contains("…Ferja til Oslo går kl. 9."), "{plain}");
    let coloured = place.ok(&with(&search, &["--color", "always"]));
    assert!(coloured.contains("\u{1b}[1m\u{1b}[32mOslo\u{1b}[0m"), "{coloured:?}");
    assert!(!coloured.contains("\u{1b}[31m"), "{coloured:?}");
    assert_eq!(place.ok(&with(&search, &["--color", "never"])), plain);
    let bare = place.ok(&with(&search, &["--snippets", "0"]));
    assert!(bare.len() < plain.len() && !bare.contains("Ferja"), "{bare}");
}

#[test]
fn a_page_is_complete_and_loads_nothing() {
    let place = place_with_index();
    place.write(
        "q.jsonl",
        "{\"_id\": \"<q>\", \"text\": \"Oslo <img src=x>\"}\n{\"_id\": \"q2\", \"text\": \"xyzxyz\"}\n",
    );
    for (mode, format) in [("sparse", "table"), ("bm25", "trec"), ("hybrid", "json")] {
        let name = format!("{mode}.html");
        let args = with(&SEARCH, &["--queries", "q.jsonl", "--mode", mode, "-k", "20"]);
        let plain = place.ok(&with(&args, &["--format", format]));
        let ran = place.run(&with(&args, &["--format", format, "--html", &name]));
        assert_eq!(ran.done(), plain);
        let page = place.read(&name);
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for (open, close) in
            [("<section>", "</section>"), ("<li ", "</li>"), ("<table>", "</table>"), ("<mark", "</mark>")]
        {
            assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
        }
        assert_eq!(page.matches("<section>").count(), 2);
        for bad in ["<script", "<img", "<b>", "http:", "https:", "url(", "@import", "\u{1b}", "\u{0}"] {
            assert!(!page.contains(bad), "{bad}");
        }
        for part in ["Oslo &lt;img src=x&gt;", "class=\"bar\"", "default-src 'none'"] {
            assert!(page.contains(part), "{mode}: {part}");
        }
        // the vectors of the model are random, the words of BM25 are not
        for part in ["&lt;script&gt;alert(1)&lt;/script&gt;", "<mark>Oslo</mark>"] {
            assert!(mode == "sparse" || page.contains(part), "{mode}: {part}");
        }
        place.run(&with(&args, &["--html", &name])).fails(2, &format!("{name}: exists already"), "--overwrite");
    }
}

#[test]
fn flags_without_effect_are_refused() {
    let place = place_with_index();
    for flag in ["--explain", "--snippets=2", "--snippet-length=50"] {
        let name = flag.split('=').next().unwrap();
        place.run(&with(&SEARCH, &["Oslo", "--format", "trec", flag])).fails(
            2,
            &format!("{name}: a TREC run has no room for it"),
            "--html FILE",
        );
    }
    place.run(&with(&SEARCH, &["Oslo", "--json", "--snippet-length", "50"])).fails(
        2,
        "JSON has no snippets",
        "--snippets N",
    );
    place.ok(&with(&SEARCH, &["Oslo", "--json", "--snippet-length", "50", "--snippets", "1"]));
}
