//! Deletes, updates, crashes, snapshots; BM25, filters and hybrid search over the same documents.

use serde_json::json;

use super::*;

#[test]
fn deleted_documents_never_show_and_k_hits_come_back() {
    let mut documents = zipf_collection(31, 500, 60, 10);
    let dir = folder();
    let index = build(dir.path(), 60, &documents, &[200, 200]);
    let query = vector(&[(0, 1.0), (1, 0.5), (5, 1.5)]);
    for _ in 0..6 {
        let best: Vec<String> = documents.search(&query, 12).into_iter().map(|hit| hit.id).collect();
        let mut writer = index.writer(UNMERGED).unwrap();
        best.iter().for_each(|id| writer.delete(id));
        // nothing shows before the commit
        assert_equal(&index.searcher().unwrap(), &documents, &query, 10);
        writer.finish().unwrap();
        documents.0.retain(|(id, _)| !best.contains(id));
        for k in [1, 10, 100] {
            assert_equal(&index.searcher().unwrap(), &documents, &query, k);
        }
        assert_eq!(index.searcher().unwrap().find(&best[0]).unwrap(), None);
    }
    assert_eq!(index.stats().unwrap().deleted_documents, 72);
    index.writer(UNMERGED).unwrap().finish_merged().unwrap();
    let stats = index.stats().unwrap();
    let postings: usize = documents.0.iter().map(|(_, vector)| vector.active_dims()).sum();
    assert_eq!((stats.documents, stats.deleted_documents, stats.segments), (428, 0, 1));
    assert_eq!((stats.postings, stats.active_dims_mean), (postings as u64, postings as f64 / 428.0));
    assert!(stats.vector_bytes > 0 && stats.total_bytes > stats.vector_bytes && stats.active_terms <= 60);
    assert_equal(&index.searcher().unwrap(), &documents, &query, 100);
    index.verify().unwrap();
}

#[test]
fn all_vectors_in_sequence_are_those_of_the_documents() {
    let documents = zipf_collection(32, 300, 60, 10);
    let dir = folder();
    let index = build(dir.path(), 60, &documents, &[100, 150]);
    let mut writer = index.writer(UNMERGED).unwrap();
    ["d7", "d150", "d299"].iter().for_each(|id| writer.delete(id));
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let read: Vec<_> = searcher.vectors().map(|read| read.unwrap()).collect();
    let one_by_one = searcher.addresses().map(|address| (address, searcher.vector(address).unwrap()));
    assert_eq!(read, one_by_one.collect::<Vec<_>>());
    let expected: BTreeMap<_, _> = documents.0.into_iter().collect();
    assert_eq!(read.len(), 297);
    assert!(read.iter().all(|(address, vector)| expected[&searcher.id(*address).unwrap()] == *vector));
}

/// The k-th largest impact of a term is a lower bound only while its documents can be found.
#[test]
fn the_best_of_a_term_deleted_or_filtered_out() {
    let weight = |at: u32| if at < 10 { 50.0 + at as f32 } else { 1.0 + at as f32 / 100.0 };
    let mut documents = Plain((0..40).map(|at| (format!("d{at}"), vector(&[(0, weight(at))]))).collect());
    let dir = folder();
    let index = build(dir.path(), 1, &documents, &[]);
    let query = vector(&[(0, 1.0)]);
    assert_equal(&index.searcher().unwrap(), &documents, &query, 10);
    let best: Vec<String> = documents.0.drain(..10).map(|(id, _)| id).collect();
    let filter = Some(Filter::Not(Box::new(Filter::Ids(best.clone()))));
    let options = SearchOptions { filter, ..Default::default() };
    for k in [1, 10, 30] {
        assert_eq!(hits(index.searcher().unwrap().search(&query, k, &options).unwrap()), documents.search(&query, k));
    }
    let mut writer = index.writer(UNMERGED).unwrap();
    best.iter().for_each(|id| writer.delete(id));
    writer.finish().unwrap();
    for k in [1, 10, 30] {
        assert_equal(&index.searcher().unwrap(), &documents, &query, k);
    }
}

#[test]
fn an_update_replaces_and_the_last_one_wins() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(4)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("a", "old"), &vector(&[(0, 1.0)])).unwrap();
    writer.update(&document("a", "newer"), &vector(&[(1, 1.0)])).unwrap();
    writer.commit().unwrap();
    let before = index.searcher().unwrap();
    writer.update(&document("a", "newest"), &vector(&[(2, 1.0)])).unwrap();
    writer.update(&document("b", "fresh"), &vector(&[(2, 2.0)])).unwrap();
    writer.finish().unwrap();
    let after = index.searcher().unwrap();
    let ids = |searcher: &Searcher, dim| {
        let found = searcher.search(&vector(&[(dim, 1.0)]), 10, &SearchOptions::default()).unwrap();
        found.iter().map(|found| searcher.document(found.address).unwrap().text).collect::<Vec<_>>()
    };
    assert_eq!([ids(&before, 0), ids(&before, 1), ids(&before, 2)], [vec![], vec!["newer".to_owned()], vec![]]);
    assert_eq!([ids(&after, 0), ids(&after, 1)], [Vec::<String>::new(), vec![]]);
    assert_eq!(ids(&after, 2), ["fresh", "newest"]);
}

/// Searches of a snapshot give the same while documents come, go and are merged away under it.
#[test]
fn searching_goes_on_while_documents_are_written() {
    let documents = zipf_collection(35, 300, 40, 6);
    let dir = folder();
    let index = build(dir.path(), 40, &documents, &[100, 100]);
    let searcher = index.searcher().unwrap();
    let query = vector(&[(0, 1.0), (2, 0.5)]);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut writer = index.writer(UNMERGED).unwrap();
            for (at, (id, _)) in documents.0.iter().take(200).enumerate() {
                writer.delete(id);
                writer.add(&document(&format!("new{at}"), ""), &vector(&[(0, 50.0)])).unwrap();
                if at % 50 == 0 {
                    writer.commit().unwrap();
                    index.searcher().unwrap();
                }
            }
            writer.finish_merged().unwrap();
        });
        while !writing.is_finished() {
            assert_equal(&searcher, &documents, &query, 20);
        }
    });
    assert_equal(&searcher, &documents, &query, 20);
    assert_eq!(index.searcher().unwrap().search(&query, 500, &SearchOptions::default()).unwrap()[0].hit.score, 50.0);
}

#[test]
fn an_index_is_reopened_and_appended_to() {
    let dir = folder();
    let mut documents = zipf_collection(41, 50, 30, 5);
    let later = Plain(documents.0.split_off(20));
    drop(build(dir.path(), 30, &documents, &[]));
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert_eq!(index.settings(), &settings(30));
    assert_eq!(index.query_dir(), dir.path().join("query"));
    fill(&index, &later, &[]);
    documents.0.extend(later.0);
    assert_equal(&index.searcher().unwrap(), &documents, &vector(&[(0, 1.0), (3, 2.0)]), 20);
}

#[test]
fn what_was_not_committed_is_gone_with_its_writer() {
    let dir = folder();
    let documents = zipf_collection(51, 40, 30, 5);
    let index = build(dir.path(), 30, &documents, &[]);
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("lost", ""), &vector(&[(0, 99.0)])).unwrap();
    writer.delete("d1");
    drop(writer);
    drop(index);
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert_equal(&index.searcher().unwrap(), &documents, &vector(&[(0, 1.0)]), 50);
    index.verify().unwrap();
    // and the lock went with it
    index.writer(UNMERGED).unwrap().finish().unwrap();
}

#[test]
#[ignore = "the process that dies in a_killed_process_leaves_the_last_commit; it runs this test"]
fn killed_process() {
    let dir = std::env::var_os("SPLADE_TEST_KILLED_INDEX").expect("the folder of the index");
    let index = ImpactIndex::open(Path::new(&dir)).unwrap();
    index.directory().faults().die_at_commit.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut writer = index.writer(UNMERGED).unwrap();
    for (id, vector) in zipf_collection(62, 3000, 30, 5).0 {
        writer.update(&document(&format!("late-{id}"), "some text"), &vector).unwrap();
    }
    writer.delete("d1");
    writer.commit().unwrap();
}

/// A process that dies before `meta.json` is replaced leaves the last commit and files that the next writer removes.
#[test]
fn a_killed_process_leaves_the_last_commit() {
    let dir = folder();
    let documents = zipf_collection(61, 40, 30, 5);
    drop(build(dir.path(), 30, &documents, &[]));
    for _ in 0..3 {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::lifecycle::killed_process", "--ignored"])
            .env("SPLADE_TEST_KILLED_INDEX", dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), None, "the child should have died by a signal");
        let searcher = ImpactIndex::open(dir.path()).unwrap().searcher().unwrap();
        assert_eq!(searcher.len(), 40);
        assert_equal(&searcher, &documents, &vector(&[(0, 1.0), (2, 1.0)]), 50);
        let findings = ImpactIndex::check(dir.path()).unwrap().findings;
        assert!(!findings.is_empty(), "nothing was written before the process died");
        for finding in findings {
            assert_eq!(finding.kind, crate::FindingKind::Leftover, "{finding:?}");
        }
    }
    let index = delete_after_reopening(dir.path(), "d1");
    assert_eq!(index.searcher().unwrap().len(), 39);
}

/// Four short texts with metadata.
fn library(dir: &Path, language: Language) -> ImpactIndex {
    let index = ImpactIndex::create(dir, &IndexSettings { language, ..settings(10) }).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    let rows = [
        (
            "b",
            Some("Båter"),
            "Blåbærsyltetøy og båtene ved ÆRFUGLEN",
            json!({"lang": "nb", "year": 2020, "on": "2020-01-01T00:00:00+01:00"}),
        ),
        (
            "a",
            Some("Båter"),
            "Blåbærsyltetøy og båtene ved ærfuglen",
            json!({"lang": "nn", "year": 2021.5, "tags": ["x", "y"]}),
        ),
        (
            "c",
            None,
            "Baten er ikke norsk, og ord kan kreve: \"AND\" (OR",
            json!({"lang": "nb", "nested": {"deep": true}}),
        ),
        ("d", None, "", json!({"zip": "0150", "nothing": null, "big": 18446744073709551615_u64})),
    ];
    for (at, (id, title, text, other)) in (1_u32..).zip(rows) {
        let document = StoredDocument {
            id: id.into(),
            title: title.map(String::from),
            text: text.into(),
            other: other.as_object().unwrap().clone(),
        };
        writer.add(&document, &vector(&[(0, 1.0), (at, 2.0)])).unwrap();
        if at == 2 {
            writer.commit().unwrap();
        }
        // what goes in comes back
        writer.commit().unwrap();
        let searcher = index.searcher().unwrap();
        let address = searcher.find(id).unwrap().unwrap();
        assert_eq!(searcher.document(address).unwrap(), document);
        assert_eq!(searcher.id(address).unwrap(), id);
    }
    writer.finish().unwrap();
    index
}

/// `å` as one code point and as two, on either side; an index of the first analyzer is searched by its own rules.
#[test]
fn bm25_finds_composed_and_decomposed_letters_alike() {
    let (nfc, nfd) = ("blåbær", "bla\u{30a}bær");
    for (analyzer, finds) in [(crate::AnalyzerVersion::NEWEST, true), (crate::AnalyzerVersion::V1, false)] {
        for (text, other) in [(nfc, nfd), (nfd, nfc)] {
            let dir = folder();
            let index = ImpactIndex::create(dir.path(), &IndexSettings { analyzer, ..settings(10) }).unwrap();
            let mut writer = index.writer(UNMERGED).unwrap();
            let document = StoredDocument { id: "d".into(), text: text.into(), ..Default::default() };
            writer.add(&document, &vector(&[(0, 1.0)])).unwrap();
            writer.finish().unwrap();
            drop(index);
            if analyzer == crate::AnalyzerVersion::V1 {
                // as a program without analyzer versions wrote it
                edit_manifest(dir.path(), |text| {
                    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert!(manifest["settings"].as_object_mut().unwrap().remove("analyzer").is_some());
                    manifest.to_string()
                });
            }
            let searcher = ImpactIndex::open(dir.path()).unwrap().searcher().unwrap();
            assert_eq!(searcher.search_bm25(text, 1, None).unwrap().len(), 1);
            assert_eq!(searcher.search_bm25(other, 1, None).unwrap().len(), usize::from(finds));
        }
    }
}

#[test]
fn bm25_keeps_norwegian_letters_and_parses_anything() {
    let dir = folder();
    let searcher = library(dir.path(), Language::None).searcher().unwrap();
    let ids = |text: &str, k| {
        hits(searcher.search_bm25(text, k, None).unwrap()).into_iter().map(|hit| hit.id).collect::<Vec<_>>()
    };
    assert_eq!(ids("ærfuglen", 10), ["a", "b"]);
    assert_eq!(ids("ÆRFUGLEN", 1), ["a"]);
    assert_eq!(ids("baten", 10), ["c"]);
    assert_eq!(ids("båten", 10), Vec::<String>::new());
    assert_eq!(ids("båter", 10), ["a", "b"], "titles are searched");
    for odd in
        ["", "   ", "\"", "title:(", "AND OR NOT", "+-!(){}[]^~*?:\\/", "kreve\" AND (", "\u{0}\u{fffd}🙂", "a:b:c"]
    {
        searcher.search_bm25(odd, 10, None).unwrap();
    }
    assert_eq!(ids("kreve: \"(", 10), ["c"]);
    assert_eq!(ids("ærfuglen", 0), Vec::<String>::new());
    assert_eq!(ids("og", usize::MAX).len(), 3);
}

#[test]
fn bm25_scores_are_those_of_the_formula() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(1)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    for (id, text) in [("a", "x x y"), ("b", "y z"), ("c", "z")] {
        writer.add(&document(id, text), &SparseVector::default()).unwrap();
    }
    writer.finish().unwrap();
    let found = index.searcher().unwrap().search_bm25("x", 5, None).unwrap();
    let idf = (1.0 + (3.0 - 1.0 + 0.5) / (1.0 + 0.5_f64)).ln();
    let expected = idf * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 3.0 / 2.0));
    assert!((f64::from(found[0].hit.score) - expected).abs() < 1e-5, "{} {expected}", found[0].hit.score);
}

#[test]
fn stemming_finds_inflected_forms() {
    let dir = folder();
    let searcher = library(dir.path(), Language::Norwegian).searcher().unwrap();
    let ids = hits(searcher.search_bm25("båt", 10, None).unwrap()).into_iter().map(|hit| hit.id).collect::<Vec<_>>();
    assert_eq!(ids, ["a", "b"]);
    assert!("klingon".parse::<Language>().unwrap_err().hint().unwrap().contains("norwegian"));
    for language in Language::ALL {
        assert_eq!(language.name().parse::<Language>().unwrap(), language);
    }
}

#[test]
fn filters_hold_for_every_kind_of_search() {
    let dir = folder();
    let searcher = library(dir.path(), Language::None).searcher().unwrap();
    let everything = vector(&[(0, 1.0)]);
    let not = |filter| Filter::Not(Box::new(filter));
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter::equals("lang", "nb"), &["b", "c"]),
        (Filter::equals("lang", "se"), &[]),
        (Filter::equals("year", 2020), &["b"]),
        (Filter::equals("year", 2021.5), &["a"]),
        (Filter::equals("tags", "y"), &["a"]),
        (Filter::equals("nested.deep", true), &["c"]),
        (Filter::equals("on", "2020-01-01T00:00:00+01:00"), &["b"]),
        (Filter::equals("big", u64::MAX), &["d"]),
        (Filter::Phrase("og båtene".into()), &["a", "b"]),
        (Filter::Phrase("båtene og".into()), &[]),
        (Filter::Phrase("norsk".into()), &["c"]),
        (Filter::Phrase("..".into()), &[]),
        (Filter::Ids(vec!["d".into(), "a".into(), "?".into()]), &["a", "d"]),
        (not(Filter::equals("lang", "nb")), &["a", "d"]),
        (Filter::All(vec![]), &["a", "b", "c", "d"]),
        (Filter::Any(vec![]), &[]),
        (Filter::Any(vec![Filter::equals("year", 2020), Filter::Ids(vec!["c".into()])]), &["b", "c"]),
        ("lang=nb, year=2020".parse().unwrap(), &["b"]),
        ("lang!=nb".parse().unwrap(), &["a", "d"]),
    ];
    for (filter, expected) in cases {
        let options = SearchOptions { filter: Some(filter.clone()), ..Default::default() };
        let ids = |found: Vec<Found>| hits(found).into_iter().map(|hit| hit.id).collect::<Vec<_>>();
        assert_eq!(ids(searcher.search(&everything, 10, &options).unwrap()), expected, "{filter:?}");
        assert_eq!(ids(searcher.search_exact(&everything, 10, Some(&filter)).unwrap()), expected, "{filter:?}");
        let first = ids(searcher.search(&everything, 1, &options).unwrap());
        assert_eq!(first, expected[..expected.len().min(1)], "{filter:?}");
        for found in searcher.search_bm25("blåbærsyltetøy norsk", 10, Some(&filter)).unwrap() {
            assert!(expected.contains(&found.hit.id.as_str()), "{filter:?}");
        }
    }
    assert!("lang".parse::<Filter>().unwrap_err().kind().is_bad_input());
    assert!("=nb".parse::<Filter>().is_err());
    let list = Filter::equals("lang", json!(["nb"]));
    assert!(searcher.search_bm25("norsk", 1, Some(&list)).unwrap_err().kind().is_bad_input());
    // a filter must not change scores
    let free = searcher.search_bm25("norsk", 1, None).unwrap();
    assert_eq!(searcher.search_bm25("norsk", 1, Some(&Filter::equals("lang", "nb"))).unwrap(), free);
}

#[test]
fn a_filter_among_many_documents() {
    let documents = zipf_collection(71, 3000, 60, 10);
    let dir = folder();
    let searcher = build(dir.path(), 60, &documents, &[1000]).searcher().unwrap();
    let query = vector(&[(0, 1.0), (4, 2.0)]);
    let best: Vec<String> = documents.search(&query, 40).into_iter().map(|hit| hit.id).collect();
    let filter = Some(Filter::Not(Box::new(Filter::Ids(best.clone()))));
    let mut rest = documents;
    rest.0.retain(|(id, _)| !best.contains(id));
    let options = SearchOptions { filter, threads: 2, ..Default::default() };
    assert_eq!(hits(searcher.search(&query, 10, &options).unwrap()), rest.search(&query, 10));
}

#[test]
fn explanations_add_up() {
    let dir = folder();
    let documents = Plain(vec![("a".into(), vector(&[(1, 0.5), (2, 2.0), (7, 4.0)]))]);
    let searcher = build(dir.path(), 10, &documents, &[]).searcher().unwrap();
    let query = vector(&[(1, 3.0), (2, 2.0), (5, 1.0), (7, -0.25)]);
    let found = &searcher.search(&query, 1, &SearchOptions::default()).unwrap()[0];
    let terms = searcher.explain(&query, found.address).unwrap();
    let term = |dim, query_weight: f32, document_weight: f32| TermScore {
        dim,
        query_weight,
        document_weight,
        score: query_weight * document_weight,
    };
    assert_eq!(terms, [term(2, 2.0, 2.0), term(1, 3.0, 0.5), term(7, -0.25, 4.0)]);
    assert_eq!(terms.iter().map(|term| term.score).sum::<f32>(), found.hit.score);
    assert_eq!(searcher.vector(found.address).unwrap(), documents.0[0].1);
}

#[test]
fn ties_at_the_cut_of_bm25_go_by_id() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(1)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    for at in 0..200 {
        // 37 is prime to 200: every number once
        writer.add(&document(&format!("{:03}", at * 37 % 200), "samme ord"), &SparseVector::default()).unwrap();
        if at % 70 == 0 {
            writer.commit().unwrap();
        }
    }
    writer.finish().unwrap();
    let found = hits(index.searcher().unwrap().search_bm25("ord", 7, None).unwrap());
    assert_eq!(
        found.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(),
        ["000", "001", "002", "003", "004", "005", "006"]
    );
}
