//! Commits with notes, documents of another index, merges, and searchers that follow the commits of other writers.

use std::process::{Command, Stdio};

use super::*;

fn segment_ids(dir: &Path) -> std::collections::BTreeSet<String> {
    let files = contents(&dir.join("tantivy"));
    let names = files.keys().filter_map(|path| path.file_name().unwrap().to_str());
    names
        .filter_map(|name| name.split_once('.'))
        .filter(|(id, _)| id.len() == 32)
        .map(|(id, _)| id.to_owned())
        .collect()
}

#[test]
fn a_note_is_kept_with_its_commit() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(10)).unwrap();
    assert_eq!(index.note().unwrap(), None);
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("a", ""), &vector(&[(1, 1.0)])).unwrap();
    writer.commit_with_note("read: 1").unwrap();
    assert_eq!(ImpactIndex::open(dir.path()).unwrap().note().unwrap().unwrap(), "read: 1");
    // not committed: the note stays with the documents that it describes
    writer.add(&document("b", ""), &vector(&[(1, 1.0)])).unwrap();
    drop(writer);
    assert_eq!((index.note().unwrap().unwrap(), index.searcher().unwrap().len()), ("read: 1".into(), 1));
    index.writer(UNMERGED).unwrap().finish().unwrap();
    assert_eq!(index.note().unwrap(), None);
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
}

#[test]
fn an_id_is_taken_across_commits_until_it_is_deleted() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(10)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    let add = |writer: &mut ImpactWriter, id: &str| writer.add(&document(id, ""), &vector(&[(1, 1.0)]));
    add(&mut writer, "a").unwrap();
    assert!(matches!(add(&mut writer, "a"), Err(Error::TakenId { id }) if id == "a"));
    writer.commit().unwrap();
    assert!(matches!(add(&mut writer, "a"), Err(Error::TakenId { .. })));
    writer.delete("a");
    add(&mut writer, "a").unwrap();
    writer.commit().unwrap();
    assert!(matches!(add(&mut writer, "a"), Err(Error::TakenId { .. })));
    writer.delete("a");
    writer.commit().unwrap();
    add(&mut writer, "a").unwrap();
    writer.finish().unwrap();
    assert_eq!(index.searcher().unwrap().len(), 1);
}

/// Documents of one index, of which some have ids of the other; all show in one commit, and nothing is copied.
#[test]
fn documents_of_another_index_are_adopted_and_replace_those_of_their_ids() {
    let (dir, other) = (folder(), folder());
    let mut documents = zipf_collection(81, 300, 40, 6);
    let index = build(dir.path(), 40, &documents, &[100, 100]);
    let newer = Plain((200..500).map(|at| (format!("d{at}"), vector(&[(at % 40, 1.0 + at as f32)]))).collect());
    let adopted = build(other.path(), 40, &newer, &[150]);
    let query = vector(&[(0, 1.0), (2, 0.5), (39, 2.0)]);
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.delete("d1");
    writer.adopt(&adopted).unwrap();
    assert_equal(&index.searcher().unwrap(), &documents, &query, 50);
    writer.finish().unwrap();
    documents.0.retain(|(id, _)| id != "d1" && newer.0.iter().all(|(other, _)| other != id));
    documents.0.extend(newer.0.clone());
    for k in [1, 10, 600] {
        assert_equal(&index.searcher().unwrap(), &documents, &query, k);
    }
    // again, as after a kill between the commit and what follows
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.adopt(&adopted).unwrap();
    writer.finish().unwrap();
    assert_equal(&index.searcher().unwrap(), &documents, &query, 600);
    drop((adopted, other));
    index.optimize().unwrap();
    assert_equal(&index.searcher().unwrap(), &documents, &query, 600);
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
}

#[test]
fn an_index_that_cannot_be_adopted_is_refused_and_leaves_nothing() {
    let (dir, other, third) = (folder(), folder(), folder());
    let documents = zipf_collection(82, 30, 40, 6);
    let index = build(dir.path(), 40, &documents, &[]);
    let before = contents(dir.path());
    let refuse = |other: &ImpactIndex, why: &str| {
        let mut writer = index.writer(UNMERGED).unwrap();
        let error = writer.adopt(other).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        drop(writer);
        assert_eq!(contents(dir.path()), before);
    };
    refuse(&build(other.path(), 41, &documents, &[]), "its settings are not those of the index");
    let with_deletes = build(third.path(), 40, &documents, &[]);
    let mut writer = with_deletes.writer(UNMERGED).unwrap();
    writer.delete("d1");
    writer.finish().unwrap();
    refuse(&with_deletes, "it has deleted documents: merge it first");
    // adopted, but not committed
    index.writer(UNMERGED).unwrap().finish().unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    with_deletes.optimize().unwrap();
    writer.adopt(&with_deletes).unwrap();
    drop(writer);
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
    assert_eq!(index.searcher().unwrap().len(), 30);
}

#[test]
fn a_bulk_run_ends_with_one_segment_below_a_million_documents() {
    let dir = folder();
    let documents = zipf_collection(83, 400, 40, 6);
    let index = ImpactIndex::create(dir.path(), &settings(40)).unwrap();
    let mut writer = index.writer(WriterOptions { merge: true, ..UNMERGED }).unwrap();
    for (at, (id, vector)) in documents.0.iter().enumerate() {
        writer.add(&document(id, ""), vector).unwrap();
        if at % 20 == 0 {
            writer.commit().unwrap();
        }
    }
    writer.finish_bulk(Some("done")).unwrap();
    assert_eq!((index.stats().unwrap().segments, index.note().unwrap().unwrap()), (1, "done".into()));
    assert_eq!(segment_ids(dir.path()).len(), 1);
    assert_equal(&index.searcher().unwrap(), &documents, &vector(&[(0, 1.0), (3, 1.0)]), 50);
}

/// Merging leaves the files of one segment, and searchers of before go on.
#[test]
fn merging_leaves_no_old_files() {
    let dir = folder();
    let documents = zipf_collection(84, 300, 40, 6);
    let index = build(dir.path(), 40, &documents, &[100, 100]);
    let before = index.searcher().unwrap();
    assert_eq!(segment_ids(dir.path()).len(), 3);
    index.optimize().unwrap();
    assert_eq!(segment_ids(dir.path()).len(), 1);
    let query = vector(&[(0, 1.0), (3, 1.0)]);
    assert_equal(&before, &documents, &query, 50);
    assert_equal(&index.searcher().unwrap(), &documents, &query, 50);
    // nothing to do
    let files = contents(dir.path());
    index.optimize().unwrap();
    assert_eq!(
        segment_ids(dir.path()),
        files
            .keys()
            .filter_map(|path| Some(path.file_name()?.to_str()?.split_once('.')?.0.to_owned()))
            .filter(|id| id.len() == 32)
            .collect()
    );
}

#[test]
fn a_disk_that_is_full_during_a_merge_leaves_the_index_as_it_was() {
    let dir = folder();
    let documents = zipf_collection(85, 300, 40, 6);
    drop(build(dir.path(), 40, &documents, &[100, 100]));
    let segments = segment_ids(dir.path());
    for free_bytes in [1_000, 10_000] {
        let index = ImpactIndex::open(dir.path()).unwrap();
        index.directory().faults().free_bytes.store(free_bytes, std::sync::atomic::Ordering::SeqCst);
        let error = index.optimize().unwrap_err();
        assert_eq!(error.kind(), splade_core::ErrorKind::Io, "{error}");
        assert_eq!(segment_ids(dir.path()), segments);
        assert_equal(&index.searcher().unwrap(), &documents, &vector(&[(0, 1.0)]), 50);
        assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
    }
    ImpactIndex::open(dir.path()).unwrap().optimize().unwrap();
    assert_eq!(segment_ids(dir.path()).len(), 1);
}

#[test]
fn a_searcher_follows_the_commits_of_other_handles() {
    let dir = folder();
    let documents = zipf_collection(86, 60, 40, 6);
    let index = build(dir.path(), 40, &documents, &[]);
    let mut searcher = index.searcher().unwrap();
    assert!(!index.refresh(&mut searcher).unwrap());
    let other = ImpactIndex::open(dir.path()).unwrap();
    let mut writer = other.writer(UNMERGED).unwrap();
    for at in 1..=5 {
        writer.add(&document(&format!("new{at}"), ""), &vector(&[(0, 90.0)])).unwrap();
        assert!(!index.refresh(&mut searcher).unwrap());
        writer.commit().unwrap();
        let old = searcher.clone();
        assert!(index.refresh(&mut searcher).unwrap());
        assert_eq!((old.len(), searcher.len()), (59 + at, 60 + at));
    }
    writer.finish_merged().unwrap();
    assert!(index.refresh(&mut searcher).unwrap());
    assert_eq!(searcher.files().len(), 1);
}

#[test]
fn a_searcher_does_not_follow_to_another_index() {
    let (dir, other) = (folder(), folder());
    let documents = zipf_collection(87, 20, 40, 6);
    let index = build(dir.path(), 40, &documents, &[]);
    let mut searcher = index.searcher().unwrap();
    drop(build(other.path(), 50, &documents, &[]));
    for name in ["manifest.json", "tantivy"] {
        std::fs::rename(dir.path().join(name), dir.path().join(format!("old-{name}"))).unwrap();
        std::fs::rename(other.path().join(name), dir.path().join(name)).unwrap();
    }
    let error = index.refresh(&mut searcher).unwrap_err().to_string();
    assert!(error.contains("another index has replaced this one: open it again"), "{error}");
    assert_equal(&searcher, &documents, &vector(&[(0, 1.0)]), 20);
}

/// Commits of the process that `two_processes_write_and_search_one_index` starts.
const COMMITS: usize = 30;

#[test]
#[ignore = "the process that writes in two_processes_write_and_search_one_index; it runs this test"]
fn writing_process() {
    let dir = std::env::var_os("SPLADE_TEST_WRITTEN_INDEX").expect("the folder of the index");
    let index = ImpactIndex::open(Path::new(&dir)).unwrap();
    let mut writer = index.writer(WriterOptions { merge: true, ..UNMERGED }).unwrap();
    for commit in 0..COMMITS {
        for at in 0..10 {
            let row = document(&format!("{commit}-{at}"), "");
            writer.add(&row, &vector(&[(0, 1.0), (commit as u32 + 1, 2.0)])).unwrap();
        }
        if commit > 0 {
            writer.delete(&format!("{}-0", commit - 1));
        }
        writer.commit().unwrap();
    }
    writer.finish_merged().unwrap();
}

/// Each snapshot is a commit as a whole, also while another process writes, merges and removes files.
#[test]
fn two_processes_write_and_search_one_index() {
    let dir = folder();
    drop(ImpactIndex::create(dir.path(), &settings(COMMITS as u32 + 1)).unwrap());
    let mut writing = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::writing::writing_process", "--ignored"])
        .env("SPLADE_TEST_WRITTEN_INDEX", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let index = ImpactIndex::open(dir.path()).unwrap();
    let mut searcher = index.searcher().unwrap();
    let (mut n_before, mut n_snapshots) = (0, 0);
    loop {
        let is_over = writing.try_wait().unwrap();
        n_snapshots += usize::from(index.refresh(&mut searcher).unwrap());
        let found = searcher.search(&vector(&[(0, 1.0)]), 1000, &SearchOptions::default()).unwrap();
        // ten a commit, less one deleted in each but the first
        assert!(found.len() == searcher.len() && (found.is_empty() || found.len() % 9 == 1), "{}", found.len());
        assert!(found.len() >= n_before);
        n_before = found.len();
        if let Some(status) = is_over {
            assert!(status.success());
            break;
        }
    }
    assert_eq!(n_before, COMMITS * 9 + 1);
    assert!(n_snapshots > 1, "{n_snapshots} snapshots");
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
}
