//! Bad documents, bad folders, other models: one clear line each.

use splade_core::segment::ForwardPrecision;

use super::*;

fn message<T>(result: crate::Result<T>) -> String {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(error) => {
            assert!(error.kind().is_bad_input(), "{error}");
            error.to_string()
        }
    }
}

#[test]
fn bad_documents_are_refused_by_id_and_the_writer_goes_on() {
    let dir = folder();
    let index = build(dir.path(), 10, &Plain(vec![("old".into(), vector(&[(1, 1.0)]))]), &[]);
    let mut writer = index.writer(UNMERGED).unwrap();
    let beyond = writer.add(&document("a", ""), &vector(&[(3, 1.0), (10, 1.0)]));
    assert_eq!(message(beyond), "document a: index 10 is beyond the vocabulary of 10");
    assert_eq!(message(writer.add(&document("old", ""), &vector(&[]))), "document old: its id is in the index already");
    writer.add(&document("new", ""), &vector(&[(1, 2.0)])).unwrap();
    assert!(message(writer.add(&document("new", ""), &vector(&[]))).starts_with("document new:"));
    assert!(message(writer.add(&document("", ""), &vector(&[]))).contains("id of 0 bytes"));
    assert!(message(writer.update(&document(&"x".repeat(5000), ""), &vector(&[]))).contains("5000"));
    // an id that was deleted is free again
    writer.delete("old");
    writer.add(&document("old", ""), &vector(&[(1, 3.0)])).unwrap();
    assert_eq!(writer.finish().unwrap(), WriteCounts { documents: 2, deletes: 1, ..WriteCounts::default() });
    let expected = Plain(vec![("old".into(), vector(&[(1, 3.0)])), ("new".into(), vector(&[(1, 2.0)]))]);
    assert_equal(&index.searcher().unwrap(), &expected, &vector(&[(1, 1.0)]), 10);
}

#[test]
fn weights_that_are_not_positive_are_dropped_and_counted() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(10)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("a", ""), &vector(&[(1, -1.0), (2, 0.5), (3, -0.1)])).unwrap();
    assert_eq!(writer.finish().unwrap().dropped_weights, 2);
    let searcher = index.searcher().unwrap();
    let address = searcher.find("a").unwrap().unwrap();
    assert_eq!(searcher.vector(address).unwrap(), vector(&[(2, 0.5)]));
}

#[test]
fn a_weight_beyond_half_precision_is_refused_and_one_below_dropped() {
    let dir = folder();
    let settings = IndexSettings { forward: ForwardPrecision::F16, ..settings(10) };
    let index = ImpactIndex::create(dir.path(), &settings).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    assert!(
        message(writer.add(&document("a", ""), &vector(&[(1, 1e6)]))).starts_with("document a: index 1 has the value")
    );
    writer.add(&document("a", ""), &vector(&[(1, 1e-12), (2, 1.0)])).unwrap();
    assert_eq!(writer.finish().unwrap().dropped_weights, 1);
}

#[test]
fn weights_beyond_eight_bits_are_clipped_or_dropped_and_counted() {
    let dir = folder();
    let settings = IndexSettings { forward: ForwardPrecision::U8, ..settings(10) };
    let index = ImpactIndex::create(dir.path(), &settings).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("a", ""), &vector(&[(1, 0.007), (2, 0.008), (3, 1.0), (4, 3.99), (5, 4.0)])).unwrap();
    let counts = writer.finish().unwrap();
    assert_eq!((counts.dropped_weights, counts.clipped_weights), (1, 1));
    let searcher = index.searcher().unwrap();
    let address = searcher.find("a").unwrap().unwrap();
    let largest = 255.0 / 64.0;
    assert_eq!(searcher.vector(address).unwrap(), vector(&[(2, 1.0 / 64.0), (3, 1.0), (4, largest), (5, largest)]));
}

#[test]
fn empty_indexes_empty_documents_and_unknown_terms_find_nothing() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(10)).unwrap();
    let options = SearchOptions::default();
    let query = vector(&[(1, 1.0), (99, 1.0)]);
    let empty = index.searcher().unwrap();
    assert!(empty.is_empty() && empty.search(&query, 10, &options).unwrap().is_empty());
    assert!(empty.search_bm25("ord", 10, None).unwrap().is_empty());
    assert_eq!(index.stats().unwrap().active_dims_mean, 0.0);
    let documents =
        Plain(vec![("a".into(), vector(&[])), ("b".into(), vector(&[(1, 1.0)])), ("c".into(), vector(&[]))]);
    fill(&index, &documents, &[1]);
    let searcher = index.searcher().unwrap();
    for query in [query, vector(&[]), vector(&[(7, 1.0)]), vector(&[(1, -1.0)]), vector(&[(u32::MAX, 1.0)])] {
        for k in [0, 1, 10] {
            assert_equal(&searcher, &documents, &query, k);
        }
    }
    assert_eq!(searcher.addresses().count(), 3);
    index.verify().unwrap();
}

#[test]
fn folders_that_are_no_index_of_ours() {
    let dir = folder();
    let missing = ImpactIndex::open(&dir.path().join("nowhere"));
    assert!(message(missing).contains("manifest.json"));
    let index = ImpactIndex::create(dir.path(), &settings(10)).unwrap();
    assert!(message(ImpactIndex::create(dir.path(), &settings(10))).ends_with("there is an index already"));
    let manifest = dir.path().join("manifest.json");
    let sealed = std::fs::read(&manifest).unwrap();
    for (from, to, expected) in [
        (
            "\"version\": 2",
            "\"version\": 3",
            "version 3 of the index format, this program reads versions 1 to 2: the index was written by a newer program",
        ),
        ("\"version\": 2", "\"version\": 0", "version 0 of the index format"),
        ("splade-index", "other", "format \"other\""),
        ("vocabulary_size", "vocabulary", "unknown field"),
        ("\"none\"", "\"english\"", "fields"),
    ] {
        edit_manifest(dir.path(), |text| text.replacen(from, to, 1));
        let got = message(ImpactIndex::open(dir.path()));
        assert!(got.contains(expected), "{got}");
        std::fs::write(&manifest, &sealed).unwrap();
    }
    for (edited, expected) in [(&b"["[..], "line 1"), (b"{}", "missing field"), (&sealed[..40], "damaged")] {
        std::fs::write(&manifest, edited).unwrap();
        let got = ImpactIndex::open(dir.path()).err().unwrap().to_string();
        assert!(got.contains(expected) && got.contains("manifest.json"), "{got}");
    }
    std::fs::write(&manifest, &sealed).unwrap();
    assert!(message(ImpactIndex::create(&dir.path().join("zero"), &settings(0))).contains("vocabulary"));
    drop(index);
}

#[test]
fn another_model_is_named() {
    let dir = folder();
    let index = build(dir.path(), 10, &Plain(vec![("a".into(), vector(&[(1, 1.0)]))]), &[]);
    index.expect_model(10, "model", "tokenizer").unwrap();
    assert!(
        message(index.expect_model(11, "model", "tokenizer")).contains("its vocabulary size is 10, the model's is 11")
    );
    assert!(
        message(index.expect_model(10, "model2", "tokenizer")).contains("its model is model, the model's is model2")
    );
    assert!(message(index.expect_model(10, "model", "t")).contains("its tokenizer is tokenizer, the model's is t"));
    // a manifest of another model does not open the segments either
    for (from, to, expected) in [
        ("\"model\"", "\"other\"", "another model or tokenizer"),
        ("\"vocabulary_size\": 10", "\"vocabulary_size\": 12", "vocabulary size 10, expected 12"),
        ("\"f32\"", "\"f16\"", "flags 0, expected 2"),
    ] {
        edit_manifest(dir.path(), |text| text.replacen(from, to, 1));
        let got = ImpactIndex::open(dir.path()).unwrap().searcher().err().unwrap().to_string();
        assert!(got.contains(expected), "{got}");
        edit_manifest(dir.path(), |text| text.replacen(to, from, 1));
    }
}

#[test]
fn a_second_writer_and_an_old_address_are_refused() {
    let dir = folder();
    let index = build(dir.path(), 10, &Plain(vec![("a".into(), vector(&[(1, 1.0)]))]), &[]);
    let writer = index.writer(UNMERGED).unwrap();
    let busy = index.writer(UNMERGED).err().unwrap();
    assert_eq!(busy.kind(), splade_core::ErrorKind::Busy);
    assert!(busy.to_string().ends_with("another writer is at work"), "{busy}");
    drop(writer);
    let other_dir = folder();
    let other = ImpactIndex::create(other_dir.path(), &settings(10)).unwrap().searcher().unwrap();
    let address = index.searcher().unwrap().find("a").unwrap().unwrap();
    assert!(message(other.document(address)).contains("another snapshot"));
    assert!(other.explain(&vector(&[(1, 1.0)]), address).is_err());
    assert!(other.vector(address).is_err() && other.id(address).is_err());
}
