//! Indexes of earlier versions stay readable and writable.

use super::*;

/// Dimensions of the fixture.
const VOCABULARY: u32 = 40;

/// The vector of a document of `tests/data/index-v1`.
fn fixture_vector(doc: u32) -> SparseVector {
    let dims = (0..VOCABULARY).filter(|dim| (doc * (dim + 3) + dim).is_multiple_of(dim / 2 + 2));
    SparseVector::from_pairs(dims.map(|dim| (dim, ((doc * 7 + dim * 13) % 12 + 1) as f32 * 0.25))).unwrap()
}

/// A document of `tests/data/index-v1`.
fn fixture_document(doc: u32) -> StoredDocument {
    let words: Vec<String> = fixture_vector(doc).iter().map(|(dim, _)| format!("ord{dim}")).collect();
    let other = serde_json::json!({"lang": if doc.is_multiple_of(3) { "nn" } else { "nb" }, "year": 2000 + doc % 20});
    StoredDocument {
        id: format!("d{doc:03}"),
        title: (doc.is_multiple_of(2)).then(|| format!("Tittel {doc}")),
        text: format!("blåbær {}", words.join(" ")),
        other: other.as_object().unwrap().clone(),
    }
}

/// The documents of a fixture that are not deleted.
fn fixture_docs() -> Vec<u32> {
    (0..120).filter(|doc| doc % 9 != 0 || *doc > 72).collect()
}

fn fixture_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A copy of the fixture of version 1: documents 0 to 79 in one commit, then 80 to 119, and 0, 9, … 72 deleted.
pub(super) fn fixture(dir: &Path) -> Vec<u32> {
    copy(&fixture_dir("index-v1"), dir);
    fixture_docs()
}

/// Writes `tests/data/index-v2`: the documents of version 1, in the same commits, in segment files of version 2.
#[test]
#[ignore = "writes a fixture that must not change: run it in a checkout of the commit that index/tests/data/NOTE.md names"]
fn write_the_fixture_of_version_2() {
    let first = folder();
    fixture(first.path());
    let first = ImpactIndex::open(first.path()).unwrap();
    let dir = fixture_dir("index-v2");
    let index = ImpactIndex::create(&dir, first.settings()).unwrap();
    index.write_query_encoder(&first.read_query_encoder().unwrap().unwrap()).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    for doc in 0..120 {
        writer.add(&fixture_document(doc), &fixture_vector(doc)).unwrap();
        if doc == 79 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    (0..=72).step_by(9).for_each(|doc| writer.delete(&format!("d{doc:03}")));
    writer.finish().unwrap();
    assert_fixture(&index, &fixture_docs());
}

#[test]
fn segments_of_version_2_are_read_without_a_write_and_merged() {
    let dir = folder();
    copy(&fixture_dir("index-v2"), dir.path());
    let before = contents(dir.path());
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert_fixture(&index, &fixture_docs());
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
    assert_eq!(contents(dir.path()), before);
    let segments = before.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "spl"));
    assert!(segments.clone().count() == 2 && segments.into_iter().all(|(_, content)| content[8..12] == [2, 0, 0, 0]));
    index.writer(UNMERGED).unwrap().finish_merged().unwrap();
    assert_fixture(&index, &fixture_docs());
    assert_eq!(index.stats().unwrap().segments, 1);
}

fn assert_fixture(index: &ImpactIndex, docs: &[u32]) {
    let searcher = index.searcher().unwrap();
    assert_eq!(searcher.len(), docs.len());
    let plain = Plain(docs.iter().map(|doc| (format!("d{doc:03}"), fixture_vector(*doc))).collect());
    for query in [vector(&[(0, 1.0), (7, 2.0)]), vector(&[(3, 1.0), (11, 0.5), (39, 3.0), (1, -0.5)])] {
        for k in [1, 10, 200] {
            assert_equal(&searcher, &plain, &query, k);
        }
    }
    for doc in 0..120 {
        let document = fixture_document(doc);
        let address = searcher.find(&document.id).unwrap();
        assert_eq!(address.is_some(), docs.contains(&doc));
        if let Some(address) = address {
            assert_eq!(searcher.document(address).unwrap(), document);
            assert_eq!(searcher.vector(address).unwrap(), fixture_vector(doc));
        }
    }
    let filter = Filter::All(vec![Filter::equals("lang", "nn"), Filter::Phrase("blåbær".into())]);
    let found = searcher.search_bm25("Tittelen", 200, Some(&filter)).unwrap();
    assert_eq!(found.len(), docs.iter().filter(|doc| doc.is_multiple_of(6)).count(), "stemming, titles and a filter");
    let encoder = index.read_query_encoder().unwrap().unwrap();
    assert_eq!(encoder.encode_query("ord7 ord39 ord7").unwrap(), vector(&[(7, 0.875), (39, 4.875)]));
}

#[test]
fn version_1_is_read_without_a_write_and_written_as_version_2() {
    let dir = folder();
    let mut docs = fixture(dir.path());
    let before = contents(dir.path());
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert_fixture(&index, &docs);
    let report = ImpactIndex::check(dir.path()).unwrap();
    assert_eq!((report.version, report.findings), (1, vec![]));
    assert!(report.files > 15 && report.bytes > 10_000);
    assert_eq!(contents(dir.path()), before);

    // new segments beside the old ones
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.update(&fixture_document(9), &fixture_vector(9)).unwrap();
    writer.finish().unwrap();
    docs.push(9);
    docs.sort_unstable();
    for index in [&index, &ImpactIndex::open(dir.path()).unwrap()] {
        assert_fixture(index, &docs);
    }
    let report = ImpactIndex::check(dir.path()).unwrap();
    assert_eq!((report.version, report.findings), (2, vec![]));

    // and merged with them
    index.writer(UNMERGED).unwrap().finish_merged().unwrap();
    assert_fixture(&index, &docs);
    assert_eq!(index.stats().unwrap().segments, 1);
    for (path, content) in contents(&dir.path().join("tantivy")) {
        let is_segment = path.extension().is_some_and(|extension| extension != "json" && extension != "lock");
        assert!(!is_segment || content.ends_with(b"SPLADEck"), "{path:?}");
    }
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
}

/// A damaged file of version 1 must not get valid checksums.
#[test]
fn a_merge_refuses_a_damaged_segment_of_version_1() {
    for extension in ["store", "spl", "fieldnorm", "idx", "term"] {
        let dir = folder();
        fixture(dir.path());
        let mut files = contents(&dir.path().join("tantivy"));
        files.retain(|path, _| path.extension().is_some_and(|found| found == extension));
        let (path, mut content) = files.pop_first().unwrap();
        let at = content.len() / 3;
        content[at] ^= 0x10;
        std::fs::write(&path, content).unwrap();
        let findings = ImpactIndex::check(dir.path()).unwrap().findings;
        assert!(findings.iter().any(|finding| finding.path == path), "{findings:?}");
        let failed =
            ImpactIndex::open(dir.path()).and_then(|index| index.writer(UNMERGED)?.finish_merged()).unwrap_err();
        assert!(failed.to_string().contains(path.to_str().unwrap()), "{extension}: {failed}");
    }
}
