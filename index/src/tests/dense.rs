//! Dense vectors: searches equal brute force through commits, deletes, updates, merges and adopted indexes; what does not fit is
//! refused.

use std::collections::BTreeMap;

use splade_core::dense::DenseVector;

use super::*;

const DIMENSIONS: usize = 24;

pub(super) fn with_dense(settings: IndexSettings) -> IndexSettings {
    let dense = DenseSettings {
        dimensions: DIMENSIONS as u32,
        model_fingerprint: "dense model".into(),
        query_prompt: "q: ".into(),
        document_prompt: String::new(),
    };
    IndexSettings { dense: Some(dense), ..settings }
}

/// Values from few numbers, so that scores tie.
pub(super) fn dense_vector(rng: &mut ChaCha8Rng) -> DenseVector {
    DenseVector::new((0..DIMENSIONS).map(|_| rng.random_range(-3..=3) as f32 * 0.25).collect()).unwrap()
}

/// The vectors of the documents, by id.
type Expected = BTreeMap<String, DenseVector>;

fn brute_force(documents: &Expected, query: &DenseVector, k: usize) -> Vec<Hit> {
    let score = |(id, vector): (&String, &DenseVector)| Hit { id: id.clone(), score: query.dot(vector) };
    let mut hits: Vec<Hit> = documents.iter().map(score).collect();
    hits.sort_by(Hit::rank_order);
    hits.truncate(k);
    hits
}

fn assert_searches(index: &ImpactIndex, documents: &Expected, rng: &mut ChaCha8Rng) {
    let searcher = index.searcher().unwrap();
    assert_eq!(searcher.len(), documents.len());
    for k in [0, 1, 7, 1000] {
        let query = dense_vector(rng);
        let expected = brute_force(documents, &query, k);
        assert_eq!(hits(searcher.search_dense_exact(&query, k, None).unwrap()), expected);
        for threads in [1, 3] {
            let options = SearchOptions { threads, ..SearchOptions::default() };
            let found = searcher.search_dense(&query, k, &options).unwrap();
            let addresses: Vec<Address> = found.iter().map(|found| found.address).collect();
            let scores = searcher.dense_scores(&query, &addresses).unwrap();
            assert!(found.iter().zip(scores).all(|(found, score)| found.hit.score == score));
            assert_eq!(hits(found), expected);
        }
    }
}

fn add(writer: &mut ImpactWriter, documents: &mut Expected, id: &str, rng: &mut ChaCha8Rng) {
    let (sparse, dense) = (zipf_vector(rng, 50, 6), dense_vector(rng));
    let vectors = Vectors { sparse: &sparse, dense: Some(&dense) };
    match documents.insert(id.to_owned(), dense.clone()) {
        None => writer.add(&document(id, ""), vectors).unwrap(),
        Some(_) => writer.update(&document(id, ""), vectors).unwrap(),
    }
}

#[test]
fn searches_equal_brute_force_through_the_life_of_an_index() {
    for seed in 0..4 {
        let mut rng = ChaCha8Rng::seed_from_u64(400 + seed);
        let dir = folder();
        let index = ImpactIndex::create(dir.path(), &with_dense(settings(50))).unwrap();
        let mut documents = Expected::new();
        assert_searches(&index, &documents, &mut rng);
        for round in 0..6 {
            let options = WriterOptions { merge: seed % 2 == 0, ..UNMERGED };
            let mut writer = index.writer(options).unwrap();
            for _ in 0..rng.random_range(1..80) {
                let id = format!("d{}", rng.random_range(0..150));
                if rng.random_range(0..4) == 0 {
                    writer.delete(&id);
                    documents.remove(&id);
                } else {
                    add(&mut writer, &mut documents, &id, &mut rng);
                }
            }
            if round % 3 == 2 {
                writer.finish_merged().unwrap()
            } else {
                writer.finish().unwrap()
            };
            assert_searches(&index, &documents, &mut rng);
        }
        assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
        let stats = ImpactIndex::open(dir.path()).unwrap().stats().unwrap();
        assert!(stats.dense_bytes.unwrap() >= (documents.len() * DIMENSIONS * 5) as u64);
        assert_searches(&ImpactIndex::open(dir.path()).unwrap(), &documents, &mut rng);
    }
}

#[test]
fn adopted_documents_keep_their_dense_vectors() {
    let mut rng = ChaCha8Rng::seed_from_u64(410);
    let (dir, other_dir) = (folder(), folder());
    let mut documents = Expected::new();
    let fill = |dir: &Path, ids: std::ops::Range<u32>, documents: &mut Expected, rng: &mut ChaCha8Rng| {
        let index = ImpactIndex::create(dir, &with_dense(settings(50))).unwrap();
        let mut writer = index.writer(UNMERGED).unwrap();
        ids.for_each(|id| {
            documents.remove(&format!("d{id}"));
            add(&mut writer, documents, &format!("d{id}"), rng);
        });
        writer.finish().unwrap();
        index
    };
    let index = fill(dir.path(), 0..40, &mut documents, &mut rng);
    let other = fill(other_dir.path(), 30..70, &mut documents, &mut rng);
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.adopt(&other).unwrap();
    writer.finish().unwrap();
    assert_searches(&index, &documents, &mut rng);
    index.optimize().unwrap();
    assert_searches(&index, &documents, &mut rng);
}

#[test]
fn a_filter_and_deleted_documents_are_left_out() {
    let mut rng = ChaCha8Rng::seed_from_u64(420);
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &with_dense(settings(50))).unwrap();
    let mut documents = Expected::new();
    let mut writer = index.writer(UNMERGED).unwrap();
    (0..60).for_each(|id| add(&mut writer, &mut documents, &format!("d{id}"), &mut rng));
    writer.finish().unwrap();
    let ids: Vec<String> = (0..60).step_by(7).map(|id| format!("d{id}")).collect();
    documents.retain(|id, _| ids.contains(id));
    let filter = Some(Filter::Ids(ids));
    let query = dense_vector(&mut rng);
    let searcher = index.searcher().unwrap();
    let expected = brute_force(&documents, &query, 5);
    assert_eq!(hits(searcher.search_dense_exact(&query, 5, filter.as_ref()).unwrap()), expected);
    let options = SearchOptions { filter, ..SearchOptions::default() };
    assert_eq!(hits(searcher.search_dense(&query, 5, &options).unwrap()), expected);
}

#[test]
fn vectors_that_do_not_fit_the_index_are_refused() {
    let (with, without) = (folder(), folder());
    let index = ImpactIndex::create(with.path(), &with_dense(settings(50))).unwrap();
    let sparse = vector(&[(1, 1.0)]);
    let dense = |n: usize| DenseVector::new(vec![0.5; n]).unwrap();
    let (fits, short) = (dense(DIMENSIONS), dense(3));
    let mut writer = index.writer(UNMERGED).unwrap();
    let error = writer.add(&document("a", ""), &sparse).unwrap_err().to_string();
    assert_eq!(error, "document a has no dense vector");
    let error = writer.add(&document("a", ""), Vectors { sparse: &sparse, dense: Some(&short) }).unwrap_err();
    assert_eq!(error.to_string(), "document a: a dense vector of 3 dimensions, the index has 24");
    writer.add(&document("a", ""), Vectors { sparse: &sparse, dense: Some(&fits) }).unwrap();
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let error = searcher.search_dense(&short, 3, &SearchOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "a query of 3 dimensions, the index has 24");

    let plain = ImpactIndex::create(without.path(), &settings(50)).unwrap();
    let mut writer = plain.writer(UNMERGED).unwrap();
    let error = writer.add(&document("a", ""), Vectors { sparse: &sparse, dense: Some(&fits) }).unwrap_err();
    assert_eq!(error.to_string(), "document a has a dense vector");
    writer.add(&document("a", ""), &sparse).unwrap();
    assert!(writer.adopt(&index).is_err());
    writer.finish().unwrap();
    let searcher = plain.searcher().unwrap();
    let error = searcher.search_dense(&fits, 3, &SearchOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "the index has no dense vectors");
    assert_eq!(plain.stats().unwrap().dense_bytes, None);

    let mut wide = with_dense(settings(50));
    wide.dense.as_mut().unwrap().dimensions = 0;
    let error = ImpactIndex::create(folder().path(), &wide).err().unwrap().to_string();
    assert_eq!(error, "dense vectors of 0 dimensions");
}

#[test]
fn a_removed_or_foreign_file_of_dense_vectors_is_named() {
    let mut rng = ChaCha8Rng::seed_from_u64(430);
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &with_dense(settings(50))).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    (0..3).for_each(|id| add(&mut writer, &mut Expected::new(), &format!("d{id}"), &mut rng));
    writer.finish().unwrap();
    drop(index);
    edit_manifest(dir.path(), |text| text.replace("dense model", "another model"));
    let error = ImpactIndex::open(dir.path()).unwrap().searcher().err().unwrap().to_string();
    assert!(error.ends_with(".dns: vectors of another model than the index"), "{error}");
    let file = contents(dir.path()).into_keys().find(|path| path.extension().is_some_and(|found| found == "dns"));
    std::fs::remove_file(file.unwrap()).unwrap();
    let error = ImpactIndex::open(dir.path()).unwrap().searcher().err().unwrap().to_string();
    assert!(error.ends_with(".dns: missing"), "{error}");
    assert!(!ImpactIndex::check(dir.path()).unwrap().findings.is_empty());
}
