//! Joined indexes: searches equal brute force over all documents, and parts that do not fit are refused.

use super::*;

/// Indexes of the documents in turn, some in several segments, one empty.
fn parts(root: &Path, documents: &Plain, count: usize) -> Vec<ImpactIndex> {
    let part = |number: usize| {
        let own = documents.0.iter().skip(number).step_by(count).cloned().collect();
        build(&root.join(format!("part{number}")), 60, &Plain(own), if number == 1 { &[5, 9] } else { &[] })
    };
    let mut parts: Vec<_> = (0..count).map(part).collect();
    parts.push(build(&root.join("empty"), 60, &Plain::default(), &[]));
    parts
}

#[test]
fn joined_indexes_answer_as_one() {
    let documents = zipf_collection(71, 300, 60, 10);
    let dir = folder();
    for count in [1, 3] {
        let root = dir.path().join(count.to_string());
        let parts = parts(&root, &documents, count);
        ImpactIndex::join(&root.join("joined"), &parts).unwrap();
        // the parts are not needed, nor changed
        parts.iter().for_each(|part| part.verify().unwrap());
        drop(parts);
        std::fs::remove_dir_all(root.join("part0")).unwrap();
        let joined = ImpactIndex::open(&root.join("joined")).unwrap();
        joined.verify().unwrap();
        assert_eq!((joined.stats().unwrap().documents, joined.stats().unwrap().segments), (300, 1));
        for k in [1, 10, 100] {
            let query = vector(&[(0, 1.0), (1, 0.5), (5, 1.5)]);
            assert_equal(&joined.searcher().unwrap(), &documents, &query, k);
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let documents = zipf_collection(72, 30, 60, 10);
    let dir = folder();
    let parts = parts(dir.path(), &documents, 2);
    let refused = |name: &str, parts: &[ImpactIndex]| {
        let error = ImpactIndex::join(&dir.path().join(name), parts).unwrap_err();
        assert!(error.kind().is_bad_input(), "{error}");
        error.to_string()
    };
    assert!(refused("none", &[]).contains("no index"));
    let other = ImpactIndex::create(&dir.path().join("other"), &settings(61)).unwrap();
    let [first, second, _empty] = <[_; 3]>::try_from(parts).ok().unwrap();
    let error = refused("mixed", &[first, other]);
    assert!(error.contains("other: cannot be joined with") && error.contains("its settings"), "{error}");
    let mut writer = second.writer(UNMERGED).unwrap();
    writer.delete(&documents.0[1].0);
    writer.finish().unwrap();
    let error = refused("deleted", &[second]);
    assert!(error.contains("part1: it has deleted documents"), "{error}");
}
