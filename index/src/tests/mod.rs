//! Tests of the index as a whole, and helpers that they share.

mod bm25;
mod compatibility;
mod corruption;
mod damage;
mod dense;
mod exactness;
mod fields;
mod folder;
mod hybrid;
mod input;
mod join;
mod lifecycle;
mod passages;
mod retrievers;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::*;
use splade_core::{Hit, SparseVector};

/// A collection in memory: the plainest index there can be.
#[derive(Debug, Clone, Default)]
pub(super) struct Plain(pub(super) Vec<(String, SparseVector)>);

impl Plain {
    /// Every score, sorted, cut.
    pub(super) fn search(&self, query: &SparseVector, k: usize) -> Vec<Hit> {
        let score = |(id, vector): &(String, SparseVector)| Hit { id: id.clone(), score: query.dot(vector) };
        let mut hits: Vec<Hit> = self.0.iter().map(score).filter(|hit| hit.score > 0.0).collect();
        hits.sort_by(Hit::rank_order);
        hits.truncate(k);
        hits
    }
}

pub(super) fn settings(vocabulary_size: u32) -> IndexSettings {
    IndexSettings::new(vocabulary_size, "model", "tokenizer")
}

pub(super) fn vector(pairs: &[(u32, f32)]) -> SparseVector {
    SparseVector::from_pairs(pairs.iter().copied()).unwrap()
}

pub(super) fn document(id: &str, text: &str) -> StoredDocument {
    StoredDocument { id: id.into(), text: text.into(), ..Default::default() }
}

/// Segments stay as they are committed.
pub(super) const UNMERGED: WriterOptions = WriterOptions { threads: 1, memory_bytes: 0, merge: false };

/// Adds `documents` in commits of the sizes given; the rest in a last one.
pub(super) fn fill(index: &ImpactIndex, documents: &Plain, commits: &[usize]) {
    let mut writer = index.writer(UNMERGED).unwrap();
    let mut rest = &documents.0[..];
    for &size in commits.iter().chain([&usize::MAX]) {
        let (now, later) = rest.split_at(size.min(rest.len()));
        for (id, vector) in now {
            writer.add(&document(id, ""), vector).unwrap();
        }
        writer.commit().unwrap();
        rest = later;
    }
    writer.finish().unwrap();
}

pub(super) fn build(dir: &Path, vocabulary_size: u32, documents: &Plain, commits: &[usize]) -> ImpactIndex {
    let index = ImpactIndex::create(dir, &settings(vocabulary_size)).unwrap();
    fill(&index, documents, commits);
    index
}

pub(super) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(super) fn hits(found: Vec<Found>) -> Vec<Hit> {
    found.into_iter().map(|found| found.hit).collect()
}

/// Fast, plain and brute force agree, on one thread and on several.
pub(super) fn assert_equal(searcher: &Searcher, documents: &Plain, query: &SparseVector, k: usize) {
    let expected = documents.search(query, k);
    assert_eq!(hits(searcher.search_exact(query, k, None).unwrap()), expected, "search_exact, k {k}");
    for threads in [1, 3] {
        let options = SearchOptions { threads, ..Default::default() };
        let got = hits(searcher.search(query, k, &options).unwrap());
        assert_eq!(got, expected, "search, k {k}, {threads} threads, query {query:?}");
    }
}

/// Vectors like a trained model's: term frequencies by Zipf, so that some terms are dense and most are rare; weights
/// from a few values, so that there are ties.
pub(super) fn zipf_vector(rng: &mut ChaCha8Rng, vocabulary_size: u32, active_dims: usize) -> SparseVector {
    let mut weights = std::collections::BTreeMap::new();
    for _ in 0..active_dims {
        let dim = f64::from(vocabulary_size).powf(rng.random::<f64>()) as u32 - 1;
        weights.insert(dim, rng.random_range(1..=12) as f32 * 0.25);
    }
    SparseVector::from_pairs(weights).unwrap()
}

pub(super) fn zipf_collection(seed: u64, n: usize, vocabulary_size: u32, active_dims: usize) -> Plain {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..n).collect();
    rand::seq::SliceRandom::shuffle(&mut order[..], &mut rng);
    // ids in another order than documents, or ties would come out right by chance
    Plain(order.into_iter().map(|id| (format!("d{id}"), zipf_vector(&mut rng, vocabulary_size, active_dims))).collect())
}

/// Replaces the text of the manifest, which gets the checksum of the new text.
pub(super) fn edit_manifest(dir: &Path, edit: impl FnOnce(String) -> String) {
    let path = dir.join("manifest.json");
    let text = crate::checked_json::unseal(&std::fs::read(&path).unwrap()).unwrap().unwrap();
    let edited = edit(String::from_utf8(text).unwrap());
    std::fs::write(path, crate::checked_json::seal(&edited)).unwrap();
}

/// Copies a folder with all in it.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() { copy(&path, &to) } else { assert!(std::fs::copy(&path, &to).is_ok()) }
    }
}

/// Every file of a folder with its content.
pub(super) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

/// Opens the index, which must hold the document, and deletes it. Afterwards nothing is wrong with the folder.
pub(super) fn delete_after_reopening(dir: &Path, id: &str) -> ImpactIndex {
    let index = ImpactIndex::open(dir).unwrap();
    let before = index.searcher().unwrap().len();
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.delete(id);
    writer.finish().unwrap();
    assert_eq!(index.searcher().unwrap().len(), before - 1);
    assert_eq!(ImpactIndex::check(dir).unwrap().findings, []);
    index
}
