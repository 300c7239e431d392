//! What an index folder holds, and who may read it.

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
