//! Files of an index folder, and their permissions.

use super::*;

fn two_documents() -> Plain {
    Plain(vec![("a".into(), vector(&[(1, 1.0)])), ("b".into(), vector(&[(2, 1.0)]))])
}

#[test]
fn the_next_writer_removes_files_that_a_killed_writer_left() {
    let dir = folder();
    drop(build(dir.path(), 50, &two_documents(), &[1]));
    let tantivy = dir.path().join("tantivy");
    let left = ["0123456789abcdef0123456789abcdef.spl", ".splade-killed.tmp"].map(|name| tantivy.join(name));
    for path in &left {
        std::fs::write(path, "half").unwrap();
    }
    let index = ImpactIndex::open(dir.path()).unwrap();
    assert!(left.iter().all(|path| path.exists()));
    index.writer(UNMERGED).unwrap().finish().unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    let index = ImpactIndex::open(dir.path()).unwrap();
    index.verify().unwrap();
    assert_eq!(index.searcher().unwrap().search(&vector(&[(2, 1.0)]), 2, &SearchOptions::default()).unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn files_of_an_index_have_the_permissions_that_the_umask_grants() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    drop(build(dir.path(), 50, &two_documents(), &[1]));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let other = dir.path().join("other");
    std::fs::write(&other, "").unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.path().join("tantivy")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), mode(&other), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 2);
}

/// A disk that is full at any point of a commit leaves the last commit and nothing else, and the error states the cause.
#[test]
fn a_full_disk_leaves_the_last_commit_and_nothing_else() {
    let dir = folder();
    let documents = zipf_collection(71, 40, 30, 5);
    drop(build(dir.path(), 30, &documents, &[]));
    let before = contents(dir.path());
    for free_bytes in [0, 100, 1_000, 10_000, 16_000] {
        let index = ImpactIndex::open(dir.path()).unwrap();
        index.directory().faults().free_bytes.store(free_bytes, std::sync::atomic::Ordering::SeqCst);
        let mut writer = index.writer(UNMERGED).unwrap();
        let more = zipf_collection(72, 500, 30, 5).0;
        let added = more.iter().try_for_each(|(id, vector)| writer.update(&document(id, "more text"), vector));
        let error = added.and_then(|()| writer.finish().map(|_| ())).unwrap_err();
        assert_eq!(error.kind(), splade_core::ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("no storage space"), "{error}");
        assert_eq!(contents(dir.path()), before, "with {free_bytes} free bytes");
        assert_equal(&index.searcher().unwrap(), &documents, &vector(&[(0, 1.0), (2, 1.0)]), 50);
    }
    // the next writer finds free space
    let index = ImpactIndex::open(dir.path()).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("new", "ny"), &vector(&[(3, 1.0)])).unwrap();
    writer.finish().unwrap();
    assert_eq!(index.searcher().unwrap().len(), 41);
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
}

/// A killed delete leaves a bit set of deletes that no commit names; the next one may take its name.
#[test]
fn a_killed_delete_does_not_stop_the_next_writer() {
    let dir = folder();
    let index = build(dir.path(), 50, &two_documents(), &[]);
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.delete("a");
    writer.finish().unwrap();
    drop(index);
    // the state before the commit of the delete, with its files
    let tantivy = dir.path().join("tantivy");
    let deletes = || names(&tantivy).into_iter().filter(|name| name.ends_with(".del")).collect::<Vec<_>>();
    let name = deletes().pop().unwrap();
    let left = std::fs::read(tantivy.join(&name)).unwrap();
    let dir = folder();
    drop(build(dir.path(), 50, &two_documents(), &[]));
    let tantivy = dir.path().join("tantivy");
    let segment = names(&tantivy).into_iter().find_map(|name| Some(name.strip_suffix(".spl")?.to_owned())).unwrap();
    let opstamp = name.split('.').nth(1).unwrap();
    for opstamp in [opstamp, "0", "1", "2", "3", "4", "5"] {
        std::fs::write(tantivy.join(format!("{segment}.{opstamp}.del")), &left[..left.len() / 2]).unwrap();
    }
    let index = delete_after_reopening(dir.path(), "a");
    assert_eq!(index.searcher().unwrap().len(), 1);
}

/// Searching, reading documents and checking write nothing, so that a folder without write access is enough.
#[test]
fn readers_write_nothing() {
    let dir = folder();
    drop(build(dir.path(), 50, &two_documents(), &[1]));
    let before = contents(dir.path());
    let index = ImpactIndex::open(dir.path()).unwrap();
    let searcher = index.searcher().unwrap();
    let found = searcher.search(&vector(&[(2, 1.0)]), 2, &SearchOptions::default()).unwrap();
    assert_eq!(searcher.document(found[0].address).unwrap().id, "b");
    searcher.search_bm25("a", 3, None).unwrap();
    index.stats().unwrap();
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
    assert_eq!(contents(dir.path()), before);
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
