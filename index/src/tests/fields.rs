//! Typed fields: filters in the query language, and searches with filters against brute force.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use splade_core::Fusion;

const DECLARED: &str = "lang:keyword,year:int,price:float,date:date,tags:keyword,ok:bool,meta.n:int";

/// An index with every field of `DECLARED`, and the fields of a few documents that one can read.
fn small(dir: &Path) -> ImpactIndex {
    let settings = IndexSettings { fields: FieldSpec::parse_list(DECLARED).unwrap(), ..settings(4) };
    let index = ImpactIndex::create(dir, &settings).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    let documents = [
        (
            "a",
            json!({"lang": "nb", "year": 2019, "price": 1.5, "date": "2020-01-01", "tags": ["x", "draft"], "ok": true}),
        ),
        ("b", json!({"lang": "nn", "year": 2020, "price": -2, "date": "2020-12-31T23:59:59.5Z", "tags": "y"})),
        ("c", json!({"lang": "nb NO", "year": "2021", "date": "2021", "ok": false, "meta": {"n": 3}})),
        ("d", json!({"lang": "a:\"b\\", "year": i64::MAX, "tags": [], "meta.n": 4})),
        ("e", json!({"lang": null})),
    ];
    for (at, (id, other)) in documents.into_iter().enumerate() {
        let text = format!("en torsk ved kaia nummer {id}");
        let other = other.as_object().unwrap().clone();
        let document = StoredDocument { id: id.into(), text, other, ..Default::default() };
        writer.add(&document, &vector(&[(0, 1.0), (1, at as f32 + 1.0)])).unwrap();
        if at == 1 {
            writer.commit().unwrap();
        }
    }
    writer.finish().unwrap();
    index
}

/// Ids of the documents that pass, in order.
fn passing(searcher: &Searcher, filter: &str) -> Result<String> {
    let options = SearchOptions { filter: Some(filter.parse()?), ..Default::default() };
    let mut ids: Vec<String> =
        searcher.search(&vector(&[(0, 1.0)]), 10, &options)?.into_iter().map(|found| found.hit.id).collect();
    ids.sort();
    Ok(ids.concat())
}

#[test]
fn every_form_of_a_filter_finds_its_documents() {
    let dir = folder();
    let searcher = small(dir.path()).searcher().unwrap();
    for (filter, expected) in [
        ("lang:nb", "a"),
        ("lang:\"nb NO\"", "c"),
        (r"lang:nb\ NO", "c"),
        ("lang:'nb NO'", "c"),
        (r#"lang:"a:\"b\\""#, "d"),
        ("lang: IN [nb nn]", "ab"),
        ("lang:[nb TO nn]", "abc"),
        ("lang:{nb TO nn}", "c"),
        ("lang:*", "abcd"),
        ("NOT lang:*", "e"),
        ("-lang:nb", "bcde"),
        ("year:2020", "b"),
        ("year:[2020 TO *]", "bcd"),
        ("year:{2019 TO 2021}", "b"),
        ("year:>=2021", "cd"),
        ("year:>9223372036854775807", ""),
        ("year:<2020", "a"),
        ("year:[* TO *]", "abcd"),
        ("year: IN [2019 2021]", "ac"),
        ("year:-1", ""),
        ("price:[-2 TO 1.5]", "ab"),
        ("price:>0", "a"),
        ("price:-2", "b"),
        ("date:2020", "ab"),
        ("date:2020-12", "b"),
        ("date:2020-01-01", "a"),
        ("date:[2020-01-01 TO 2021-01-01}", "ab"),
        ("date:[2020-01-01 TO 2021-01-01]", "abc"),
        ("date:{2020-01-01 TO *]", "bc"),
        ("date:\"2020-12-31T23:59:59Z\"", "b"),
        ("date:[2020-12-31T23:59:59.6Z TO *]", "c"),
        ("date:[0001 TO 9999]", "abc"),
        ("tags:x AND tags:draft", "a"),
        ("tags:x OR tags:y", "ab"),
        ("NOT tags:draft", "bcde"),
        ("tags:x -tags:draft", ""),
        ("ok:true", "a"),
        ("ok:false", "c"),
        ("ok:*", "ac"),
        ("ok:[false TO true]", "ac"),
        ("ok:{false TO *]", "a"),
        ("ok: IN [true false]", "ac"),
        ("meta.n:3", "c"),
        ("meta.n:*", "cd"),
        ("id:b", "b"),
        ("_id: IN [a e z]", "ae"),
        ("text:TORSK", "abcde"),
        ("text:\"torsk ved kaia\"", "abcde"),
        ("text:\"kaia torsk\"", ""),
        ("text:\"torsk kaia\"~1", "abcde"),
        ("*", "abcde"),
        ("lang:nb OR (year:[2020 TO 2021] AND NOT tags:*)", "ac"),
        ("lang:(nb OR nn) year:2020", "b"),
        // clauses, over all fields
        ("lang=nb", "a"),
        ("year=2021", "c"),
        ("lang!=nb,year=2020", "b"),
    ] {
        assert_eq!(
            passing(&searcher, filter).unwrap_or_else(|error| panic!("{filter}: {error}")),
            expected,
            "{filter}"
        );
    }
}

#[test]
fn a_filter_that_cannot_be_used_is_one_clear_line() {
    let dir = folder();
    let searcher = small(dir.path()).searcher().unwrap();
    for (filter, message, hint) in [
        ("lang:nb AND (month:2020)", "at character 14: unknown field \"month\"", "id, text, lang:keyword, year:int"),
        ("title:torsk", "title is no field of its own", "text:"),
        ("year:soon", "at character 6: \"soon\" is no value of the field \"year\" of type int", "correct"),
        ("year:[2020 TO late]", "\"late\" is no value", "correct"),
        ("date:2020-13", "\"2020-13\" is no value of the field \"date\" of type date", "2020-02-29"),
        ("ok: IN [true maybe]", "\"maybe\" is no value", "correct"),
        ("lang:nb AND torsk", "\"torsk\" has no field", "lang:keyword"),
        ("lang:nb*", "prefixes are not for filters", "double quotes"),
        ("lang:/n./", "regular expressions are not for filters", "double quotes"),
        ("lang:nb^2", "a boost has no effect", "leave ^ out"),
        ("lang:\"nb nn\"~2", "is for text only", "leave ~ out"),
        ("id:[a TO b]", "ranges are for declared fields", "no ranges"),
        ("lang:", "cannot be read at character", "for instance"),
        ("lang:nb AND (year:2020", "cannot be read at character", "for instance"),
        ("year:[2020 TO", "cannot be read at character", "for instance"),
        ("lang:\"nb", "cannot be read at character", "for instance"),
        ("torsk", "neither of the form field=value nor of the form field:value", "year:[2020 TO *]"),
        ("", "neither of the form field=value", "lang=nb"),
        ("lang:nb year:soon", "at character 14", "correct"),
    ] {
        let error = passing(&searcher, filter).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(message) && !shown.contains('\n'), "{filter}: {shown}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{filter}: {:?}", error.hint());
    }
    let deep = format!("{}lang:nb{}", "(".repeat(5000), ")".repeat(5000));
    assert!(passing(&searcher, &deep).unwrap_err().to_string().contains("nested parentheses"));
    assert!(passing(&searcher, &"lang:nb ".repeat(20_000)).unwrap_err().to_string().contains("bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any text is a filter or an error of one line with a hint.
    #[test]
    fn no_text_makes_a_filter_panic(
        parts in proptest::collection::vec(prop_oneof![
            Just("lang:".to_owned()), Just("year:".to_owned()), Just("date:".to_owned()), Just("text:".to_owned()),
            Just(" AND ".to_owned()), Just(" OR ".to_owned()), Just("NOT ".to_owned()), Just("[2020 TO ".to_owned()),
            Just("IN [".to_owned()), Just("=".to_owned()), "[\\[\\](){}\"'*^~+:<>=/\\\\ -]{1,3}", "[a-zæøå0-9]{1,4}", "\\PC{0,3}",
        ], 0..12),
    ) {
        thread_local! {
            static INDEX: (tempfile::TempDir, Searcher) = {
                let dir = folder();
                let searcher = small(dir.path()).searcher().unwrap();
                (dir, searcher)
            };
        }
        INDEX.with(|(_, searcher)| {
            if let Err(error) = passing(searcher, &parts.concat()) {
                assert!(!error.to_string().contains('\n') && error.hint().is_some(), "{error}");
            }
        });
    }
}

#[test]
fn a_value_of_another_type_is_refused_where_declared_and_counted_where_inferred() {
    for inferred in [false, true] {
        let dir = folder();
        let fields = vec![FieldSpec { inferred, ..FieldSpec::new("year", FieldKind::Int).unwrap() }];
        let index = ImpactIndex::create(dir.path(), &IndexSettings { fields, ..settings(4) }).unwrap();
        let mut writer = index.writer(UNMERGED).unwrap();
        let add = |writer: &mut ImpactWriter, id: &str, year: Json| {
            let other = Map::from_iter([("year".to_owned(), year)]);
            writer.add(&StoredDocument { id: id.into(), other, ..Default::default() }, &vector(&[(0, 1.0)]))
        };
        add(&mut writer, "good", json!(2020)).unwrap();
        let bad = add(&mut writer, "bad", json!(["2020", "long ago"]));
        if inferred {
            bad.unwrap();
        } else {
            let error = bad.unwrap_err();
            assert_eq!(error.to_string(), "document bad: the field \"year\" is \"long ago\", not of type int");
            assert!(error.hint().is_some());
        }
        assert_eq!(writer.finish().unwrap().unindexed_values, u64::from(inferred));
        let searcher = index.searcher().unwrap();
        assert_eq!(passing(&searcher, "year:2020").unwrap(), "good");
        // clauses find every field, of any type
        assert_eq!(passing(&searcher, "year=long ago").unwrap(), if inferred { "bad" } else { "" });
    }
}

#[test]
fn fields_are_kept_by_the_index_and_by_merges() {
    let dir = folder();
    small(dir.path()).writer(UNMERGED).unwrap().finish_merged().unwrap();
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert_eq!(index.settings().fields, FieldSpec::parse_list(DECLARED).unwrap());
    let searcher = index.searcher().unwrap();
    assert_eq!(index.stats().unwrap().segments, 1);
    assert_eq!(passing(&searcher, "date:2020 AND price:<1").unwrap(), "b");
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
}

/// Value and number of documents, in order, and the number of documents without a value.
fn counted(counts: FieldCounts) -> (String, u64) {
    let values = counts.values.iter().map(|value| format!("{}:{}", value.value, value.count));
    (values.collect::<Vec<_>>().join(" "), counts.missing)
}

#[test]
fn values_are_counted_over_all_documents_over_a_filter_and_over_hits() {
    let dir = folder();
    let index = small(dir.path());
    let mut writer = index.writer(UNMERGED).unwrap();
    let more =
        json!({"lang": ["nb", "nb", "sv"], "year": [2019, 2020, 2019], "ok": true, "price": 1.5, "date": "2021"});
    let other = more.as_object().unwrap().clone();
    writer.add(&StoredDocument { id: "f".into(), other, ..Default::default() }, &vector(&[(3, 1.0)])).unwrap();
    writer.delete("c");
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    for (field, expected, missing) in [
        ("lang", r#""nb":2 "a:\"b\\":1 "nn":1 "sv":1"#, 1),
        ("year", "2019:2 2020:2 9223372036854775807:1", 1),
        ("price", "1.5:2 -2.0:1", 2),
        ("ok", "true:2", 3),
        ("date", "\"2020-01-01T00:00:00Z\":1 \"2020-12-31T23:59:59.5Z\":1 \"2021-01-01T00:00:00Z\":1", 2),
        ("tags", "\"draft\":1 \"x\":1 \"y\":1", 3),
    ] {
        assert_eq!(counted(searcher.count_all(field, None).unwrap()), (expected.to_owned(), missing), "{field}");
    }
    let filter = "year:[2020 TO *]".parse().unwrap();
    let expected = (r#""a:\"b\\":1 "nb":1 "nn":1 "sv":1"#.to_owned(), 0);
    assert_eq!(counted(searcher.count_all("lang", Some(&filter)).unwrap()), expected);
    let found = searcher.search(&vector(&[(3, 1.0)]), 10, &SearchOptions::default()).unwrap();
    let addresses: Vec<Address> = found.iter().map(|found| found.address).collect();
    assert_eq!(counted(searcher.count_of("lang", &addresses).unwrap()), ("\"nb\":1 \"sv\":1".to_owned(), 0));
    let error = searcher.count_all("language", None).unwrap_err();
    assert_eq!(error.to_string(), "unknown field \"language\"");
    assert!(error.hint().unwrap().contains("lang:keyword"));
}

/// Documents of random vectors with a number each, in three segments, with deletes.
struct Numbered {
    documents: Vec<(String, SparseVector, i64)>,
    searcher: Searcher,
}

fn numbered(dir: &Path, n: usize) -> Numbered {
    let settings = IndexSettings { fields: FieldSpec::parse_list("n:int").unwrap(), ..settings(300) };
    let index = ImpactIndex::create(dir, &settings).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    let mut documents = Vec::new();
    for (at, (id, vector)) in zipf_collection(31, n, 300, 20).0.into_iter().enumerate() {
        let number = (at as i64 * 7919) % 1000;
        let text = vector.dims().iter().map(|dim| format!("w{}", dim % 50)).collect::<Vec<_>>().join(" ");
        let other = Map::from_iter([("n".to_owned(), json!(number))]);
        writer.add(&StoredDocument { id: id.clone(), text, other, ..Default::default() }, &vector).unwrap();
        documents.push((id, vector, number));
        if at == n / 3 || at == n / 2 {
            writer.commit().unwrap();
        }
    }
    for (id, ..) in documents.iter().step_by(5) {
        writer.delete(id);
    }
    writer.finish().unwrap();
    let documents = documents.into_iter().enumerate().filter(|(at, _)| at % 5 != 0).map(|(_, document)| document);
    Numbered { documents: documents.collect(), searcher: index.searcher().unwrap() }
}

/// Filters of every selectivity, with and without their plain twin's condition on the number.
type Condition = fn(i64) -> bool;
const CONDITIONS: [(&str, Condition); 6] = [
    ("n:<500", |n| n < 500),
    ("n:[0 TO 9]", |n| n < 10),
    ("n:7", |n| n == 7),
    ("NOT n:[0 TO 9]", |n| n >= 10),
    ("n:>=0", |_| true),
    ("n:1000", |_| false),
];

#[test]
fn the_top_k_under_a_filter_is_that_of_brute_force() {
    let dir = folder();
    let Numbered { documents, searcher } = numbered(dir.path(), 12_000);
    let mut rng = ChaCha8Rng::seed_from_u64(32);
    for (text, passes) in CONDITIONS {
        let plain: Vec<_> =
            documents.iter().filter(|(.., n)| passes(*n)).map(|(id, v, _)| (id.clone(), v.clone())).collect();
        let plain = Plain(plain);
        for round in 0..6 {
            let mut query = zipf_vector(&mut rng, 300, 8);
            if round % 3 == 2 {
                let signed = query.iter().map(|(dim, weight)| (dim, if dim % 3 == 0 { -weight } else { weight }));
                query = SparseVector::from_pairs(signed).unwrap();
            }
            for k in [1, 10, 100, 20_000] {
                let expected = plain.search(&query, k);
                let filter: Filter = text.parse().unwrap();
                assert_eq!(hits(searcher.search_exact(&query, k, Some(&filter)).unwrap()), expected, "{text} {k}");
                for threads in [1, 3] {
                    let options = SearchOptions { threads, filter: Some(filter.clone()), ..Default::default() };
                    assert_eq!(hits(searcher.search(&query, k, &options).unwrap()), expected, "{text} {k} {threads}");
                }
            }
        }
    }
}

#[test]
fn bm25_and_hybrid_rank_the_documents_that_pass() {
    let dir = folder();
    let Numbered { documents, searcher } = numbered(dir.path(), 3000);
    let number = |id: &str| documents.iter().find(|(known, ..)| known == id).unwrap().2;
    let query = zipf_vector(&mut ChaCha8Rng::seed_from_u64(33), 300, 8);
    const TEXT: &str = "w3 w17 w48";
    let all = searcher.search_bm25(TEXT, usize::MAX, None).unwrap();
    assert!(all.len() > 100);
    for (text, passes) in CONDITIONS {
        let filter: Filter = text.parse().unwrap();
        let filtered = hits(searcher.search_bm25(TEXT, usize::MAX, Some(&filter)).unwrap());
        let expected: std::collections::HashMap<&str, f32> = all
            .iter()
            .map(|found| (found.hit.id.as_str(), found.hit.score))
            .filter(|(id, _)| passes(number(id)))
            .collect();
        assert_eq!(filtered.len(), expected.len(), "{text}");
        for hit in &filtered {
            // tantivy adds the parts of a score in another order when it searches without a filter
            assert!((hit.score - expected[hit.id.as_str()]).abs() <= 1e-5 * hit.score, "{text}: {hit:?}");
        }
        assert!(filtered.is_sorted_by(|a, b| a.rank_order(b).is_lt()), "{text}");
        for k in [1, 10] {
            let found = hits(searcher.search_bm25(TEXT, k, Some(&filter)).unwrap());
            assert_eq!(found, filtered[..k.min(filtered.len())], "{text} {k}");
        }
        let options = SearchOptions { filter: Some(filter), ..Default::default() };
        let fusion = Fusion::named("rrf", &splade_core::FusionParameters::default()).unwrap();
        let found = searcher.search_hybrid((&query, TEXT), 10, 5000, &fusion, &options).unwrap();
        let sparse = searcher.search(&query, 5000, &options).unwrap();
        let bm25 = searcher.search_bm25(TEXT, 5000, options.filter.as_ref()).unwrap();
        let mut expected = fusion.fuse(&[to_ranking(&sparse), to_ranking(&bm25)]);
        expected.truncate(10);
        assert_eq!(hits(found), expected.hits(), "{text}");
    }
}
