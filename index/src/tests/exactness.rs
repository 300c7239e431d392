//! Every path gives the top k of brute force, bit for bit, ties included.

use proptest::prelude::*;

use super::*;
use splade_core::segment::{ForwardPrecision, WINDOW};

/// A vector with weights from a few values, so that ties are common, or from anywhere.
fn any_vector(vocabulary_size: u32, signed: bool) -> impl Strategy<Value = SparseVector> {
    let weight = prop_oneof![
        4 => (1..8_i32).prop_map(|weight| weight as f32 * 0.5),
        2 => 1e-3_f32..4.0,
        1 => prop_oneof![Just(1e-30_f32), Just(3e-6_f32), Just(1e4_f32)],
    ];
    let entry = (0..vocabulary_size, weight, any::<bool>());
    proptest::collection::btree_map(0..vocabulary_size, entry, 0..12).prop_map(move |entries| {
        let sign = |negative: bool| if signed && negative { -1.0 } else { 1.0 };
        let pairs = entries.into_iter().map(|(dim, (_, weight, negative))| (dim, weight * sign(negative)));
        SparseVector::from_pairs(pairs).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn search_equals_brute_force(
        vectors in proptest::collection::vec(any_vector(30, false), 0..60),
        queries in proptest::collection::vec((any_vector(34, true), 0..70_usize), 1..8),
        commits in proptest::collection::vec(0..30_usize, 0..3),
    ) {
        let named = |(at, vector)| (format!("d{}", (at * 37) % 61), vector);
        let documents = Plain(vectors.into_iter().enumerate().map(named).collect());
        let dir = folder();
        let searcher = build(dir.path(), 30, &documents, &commits).searcher().unwrap();
        for (query, k) in queries {
            assert_equal(&searcher, &documents, &query, k);
        }
    }
}

/// More than two windows, a last one that is not full; dense, windowed and short terms; many ties.
#[test]
fn windows_and_all_kinds_of_lists() {
    let n = 2 * WINDOW + 77;
    let documents = zipf_collection(1, n, 3000, 12);
    let dir = folder();
    let searcher = build(dir.path(), 3000, &documents, &[]).searcher().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for round in 0..40 {
        let mut query = zipf_vector(&mut rng, 3000, 8);
        if round % 4 == 3 {
            let signed = query.iter().map(|(dim, weight)| (dim, if dim % 3 == 0 { -weight } else { weight }));
            query = SparseVector::from_pairs(signed).unwrap();
        }
        for k in [1, 10, 100] {
            assert_equal(&searcher, &documents, &query, k);
        }
    }
    assert_equal(&searcher, &documents, &vector(&[(0, 1.0)]), usize::MAX);
    assert_equal(&searcher, &documents, &vector(&[(0, 1.0), (2999, -1.0)]), n);
}

/// The documents at both sides of every window boundary are found by a term of their own.
#[test]
fn window_boundaries() {
    let n = 2 * WINDOW + 1;
    let edges = [0, WINDOW - 1, WINDOW, 2 * WINDOW - 1, 2 * WINDOW];
    let pairs = |doc: usize| match edges.iter().position(|edge| *edge == doc) {
        Some(_) => vector(&[(0, 1.0), (1, 1.0 + doc as f32 / n as f32)]),
        None => vector(&[(0, 1.0)]),
    };
    let documents = Plain((0..n).map(|doc| (format!("d{doc}"), pairs(doc))).collect());
    let dir = folder();
    let searcher = build(dir.path(), 2, &documents, &[]).searcher().unwrap();
    for k in [3, 5, 10] {
        assert_equal(&searcher, &documents, &vector(&[(1, 0.7)]), k);
        assert_equal(&searcher, &documents, &vector(&[(0, 0.1), (1, 0.7)]), k);
    }
    let everywhere = vector(&[(0, 2.0)]);
    assert_equal(&searcher, &documents, &everywhere, 10);
    assert_eq!(searcher.search(&everywhere, n + 5, &SearchOptions::default()).unwrap().len(), n);
}

#[test]
fn any_split_into_segments_any_order_any_merge_any_number_of_threads() {
    let documents = zipf_collection(5, 900, 200, 20);
    let mut backwards = documents.clone();
    backwards.0.reverse();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let queries: Vec<SparseVector> = (0..10).map(|_| zipf_vector(&mut rng, 200, 8)).collect();
    for (documents, commits) in
        [(&documents, &[][..]), (&documents, &[1, 300, 299]), (&backwards, &[450]), (&backwards, &[899])]
    {
        let dir = folder();
        let index = build(dir.path(), 200, documents, commits);
        let searcher = index.searcher().unwrap();
        for query in &queries {
            assert_equal(&searcher, documents, query, 10);
        }
        index.writer(UNMERGED).unwrap().finish_merged().unwrap();
        let searcher = index.searcher().unwrap();
        assert_eq!(index.stats().unwrap().segments, 1);
        index.verify().unwrap();
        for query in &queries {
            assert_equal(&searcher, documents, query, 10);
        }
    }
}

/// Addresses in any order, with repetitions, and of documents that are deleted.
#[test]
fn scores_of_given_documents_are_those_of_dot() {
    let documents = zipf_collection(15, 700, 100, 12);
    let dir = folder();
    let index = build(dir.path(), 100, &documents, &[250]);
    let searcher = index.searcher().unwrap();
    searcher.warm().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(16);
    let mut addresses: Vec<Address> = searcher.addresses().step_by(3).collect();
    addresses.extend(addresses.clone().into_iter().rev().step_by(2));
    rand::seq::SliceRandom::shuffle(&mut addresses[..], &mut rng);
    for _ in 0..10 {
        let query = zipf_vector(&mut rng, 100, 8);
        let expected = addresses.iter().map(|address| query.dot(&searcher.vector(*address).unwrap()));
        assert_eq!(searcher.scores(&query, &addresses).unwrap(), expected.collect::<Vec<f32>>());
    }
    assert!(searcher.scores(&vector(&[(0, 1.0)]), &[]).unwrap().is_empty());
}

#[test]
fn several_writer_threads_and_background_merges() {
    let documents = zipf_collection(8, 600, 100, 10);
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(100)).unwrap();
    let mut writer = index.writer(WriterOptions { threads: 3, memory_bytes: 0, merge: true }).unwrap();
    for (at, (id, vector)) in documents.0.iter().enumerate() {
        writer.add(&document(id, ""), vector).unwrap();
        if at % 60 == 59 {
            writer.commit().unwrap();
        }
    }
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for _ in 0..10 {
        assert_equal(&searcher, &documents, &zipf_vector(&mut rng, 100, 6), 10);
    }
    index.verify().unwrap();
}

#[test]
fn quantized_scores_are_near_and_find_the_same() {
    let documents = zipf_collection(11, 2000, 500, 30);
    let dir = folder();
    let searcher = build(dir.path(), 500, &documents, &[700]).searcher().unwrap();
    let quantized = SearchOptions { scoring: Scoring::Quantized, ..Default::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for _ in 0..20 {
        let query = zipf_vector(&mut rng, 500, 8);
        // weights are at most 3, so half a step is at most 3 / 510
        let eps: f32 = query.weights().iter().map(|weight| weight * 3.0 / 510.0).sum::<f32>() * 1.001;
        let exact = documents.search(&query, 10);
        let found = searcher.search(&query, 10, &quantized).unwrap();
        assert_eq!(found.len(), exact.len());
        for (found, exact) in found.iter().zip(&exact) {
            let true_score = query.dot(&searcher.vector(found.address).unwrap());
            assert!((found.hit.score - true_score).abs() <= eps, "{} and {true_score}", found.hit.score);
            assert!((found.hit.score - exact.score).abs() <= eps);
        }
    }
}

/// Scores beyond f32 leave the fast path; they must not leave the right order.
#[test]
fn huge_weights() {
    let documents = Plain(vec![
        ("a".into(), vector(&[(0, 3e38)])),
        ("b".into(), vector(&[(0, 2e38), (1, 1.0)])),
        ("c".into(), vector(&[(1, 1e-38)])),
    ]);
    let dir = folder();
    let searcher = build(dir.path(), 2, &documents, &[1]).searcher().unwrap();
    for query in [vector(&[(0, 3e38)]), vector(&[(0, 1.0), (1, 1e30)]), vector(&[(0, -3e38), (1, 3e38)])] {
        for k in 1..4 {
            assert_equal(&searcher, &documents, &query, k);
        }
    }
}

#[test]
fn half_precision_searches_the_rounded_weights() {
    searches_the_rounded_weights(ForwardPrecision::F16, |weight| half::f16::from_f32(weight).to_f32());
}

#[test]
fn eight_bits_search_the_rounded_weights() {
    searches_the_rounded_weights(ForwardPrecision::U8, |weight| (weight * 64.0).round().min(255.0) / 64.0);
}

/// Compares an index of this precision with brute force over the weights that `rounded` gives, before and after a merge.
fn searches_the_rounded_weights(precision: ForwardPrecision, rounded: impl Fn(f32) -> f32) {
    let documents = zipf_collection(21, 300, 70_000, 20);
    let thirds = |vector: &SparseVector| vector.iter().map(|(dim, weight)| (dim, weight / 3.0)).collect::<Vec<_>>();
    let given = Plain(documents.0.iter().map(|(id, v)| (id.clone(), vector(&thirds(v)))).collect());
    let kept = given.0.iter().map(|(id, v)| {
        let kept = v.iter().map(|(dim, weight)| (dim, rounded(weight))).filter(|(_, weight)| *weight > 0.0);
        (id.clone(), SparseVector::from_pairs(kept).unwrap())
    });
    let kept = Plain(kept.collect());
    let dir = folder();
    let settings = IndexSettings { forward: precision, ..settings(70_000) };
    let index = ImpactIndex::create(dir.path(), &settings).unwrap();
    fill(&index, &given, &[100]);
    let mut rng = ChaCha8Rng::seed_from_u64(22);
    for _ in 0..10 {
        assert_equal(&index.searcher().unwrap(), &kept, &zipf_vector(&mut rng, 70_000, 8), 10);
    }
    index.writer(UNMERGED).unwrap().finish_merged().unwrap();
    assert_equal(&index.searcher().unwrap(), &kept, &vector(&[(0, 1.0), (1, 0.3)]), 10);
    index.verify().unwrap();
}
