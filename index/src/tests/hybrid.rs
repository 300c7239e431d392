//! Hybrid search against the fusion of complete rankings.

use splade_core::{Fusion, RRF_K, Scaling};

use super::*;

const WORDS: [&str; 8] = ["fisk", "hav", "fjord", "fjell", "skog", "elv", "bre", "vind"];

/// Documents with vectors and words that have little to do with each other.
fn index(dir: &Path) -> ImpactIndex {
    let index = ImpactIndex::create(dir, &settings(30)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut writer = index.writer(UNMERGED).unwrap();
    for n in 0..300 {
        let text: String = (0..6).map(|_| format!("{} ", WORDS[rng.random_range(0..8)])).collect();
        writer.add(&document(&format!("{:03}", n * 77 % 300), &text), &zipf_vector(&mut rng, 30, 6)).unwrap();
        if n == 120 {
            writer.commit().unwrap();
        }
    }
    writer.finish().unwrap();
    index
}

fn fusions() -> Vec<Fusion> {
    let weighted = Scaling::ALL.map(|scaling| Fusion::weighted(scaling, vec![0.4, 0.6]).unwrap());
    weighted.into_iter().chain([Fusion::default(), Fusion::rrf(RRF_K, vec![0.9, 0.2]).unwrap()]).collect()
}

#[test]
fn hybrid_is_the_fusion_of_both_rankings() {
    let dir = folder();
    let searcher = index(dir.path()).searcher().unwrap();
    let (query, text) = (vector(&[(1, 1.0), (3, 3.0), (9, 0.5)]), "havet fjord vind");
    for bm25 in [Bm25Options::default(), Bm25Options::new(0.9, 0.3).unwrap()] {
        let options = SearchOptions { bm25, ..SearchOptions::default() };
        let sparse = searcher.search(&query, 1000, &options).unwrap();
        let lexical = searcher.search_bm25_with(text, 1000, &options).unwrap();
        for fusion in fusions() {
            // at full depth a score that is not listed is 0
            let mut all = splade_core::Candidates::of(&[to_ranking(&sparse), to_ranking(&lexical)]);
            for list in [0, 1] {
                for at in all.missing(list).collect::<Vec<_>>() {
                    all.complete(list, at, 0.0);
                }
            }
            let expected = fusion.fuse_candidates(&all);
            let found = searcher.search_hybrid((&query, text), 20, 1000, &fusion, &options).unwrap();
            assert_eq!(hits(found.clone()), expected.hits()[..20], "{fusion:?}");
            for found in found {
                assert_eq!(searcher.document(found.address).unwrap().id, found.hit.id);
            }
        }
    }
}

/// Both scores of every candidate are those of the complete rankings, however short the fused ones are.
#[test]
fn scores_below_the_depth_are_completed() {
    let dir = folder();
    let searcher = index(dir.path()).searcher().unwrap();
    let (query, text) = (vector(&[(0, 1.0), (2, -1.0), (3, 3.0)]), "hav vind bre");
    let options = SearchOptions { bm25: Bm25Options::new(0.9, 0.3).unwrap(), ..SearchOptions::default() };
    let lexical = hits(searcher.search_bm25_with(text, 1000, &options).unwrap());
    for depth in [1, 5, 50] {
        let found = searcher.hybrid_candidates((&query, text), depth, true, &options).unwrap().candidates;
        assert!(found.len() > depth && (0..2).all(|list| found.missing(list).next().is_none()));
        for fusion_weights in [vec![1.0, 0.0], vec![0.0, 1.0]] {
            let only_sparse = fusion_weights[0] > 0.0;
            let largest =
                if only_sparse { searcher.search(&query, 1, &options).unwrap()[0].hit.score } else { lexical[0].score };
            let fused = Fusion::weighted(Scaling::Max, fusion_weights).unwrap().fuse_candidates(&found);
            for hit in fused.hits() {
                let address = searcher.find(&hit.id).unwrap().unwrap();
                let score = if only_sparse {
                    query.dot(&searcher.vector(address).unwrap())
                } else {
                    lexical.iter().find(|other| other.id == hit.id).map_or(0.0, |hit| hit.score)
                };
                assert!((hit.score - score / largest).abs() < 1e-6, "{hit:?} {score} {largest}");
            }
        }
    }
}

#[test]
fn a_hybrid_retriever_lists_scores_above_zero() {
    use splade_core::{EncodedQuery, Retriever};
    let dir = folder();
    let searcher = index(dir.path()).searcher().unwrap();
    let (query, text) = (vector(&[(1, 1.0), (3, 3.0)]), "hav elv");
    for fusion in fusions() {
        let plain = searcher.search_hybrid((&query, text), 50, 50, &fusion, &SearchOptions::default()).unwrap();
        let retriever = HybridRetriever::new(&searcher, fusion, 50, SearchOptions::default());
        let ranking = retriever.retrieve(EncodedQuery { text, vector: &query, dense: None }, 50).unwrap();
        assert!(ranking.hits().iter().all(|hit| hit.score > 0.0));
        let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(ranking.hits()), ids(&hits(plain)));
        let short = retriever.retrieve(EncodedQuery { text, vector: &query, dense: None }, 5).unwrap();
        assert_eq!(ids(short.hits()), ids(&ranking.hits()[..5]));
    }
    assert!(
        HybridRetriever::new(&searcher, Fusion::default(), 9, SearchOptions::default())
            .retrieve(EncodedQuery { text: "", vector: &SparseVector::default(), dense: None }, 5)
            .unwrap()
            .is_empty()
    );
}

fn tuned() -> HybridSettings {
    HybridSettings {
        fusion: "weighted".into(),
        rrf_k: RRF_K,
        scaling: "z-score".into(),
        weights: vec![0.3, 0.7],
        depth: 50,
        bm25: Bm25Options::new(0.9, 0.3).unwrap().with_compounds(true),
        tuned_on: TunedOn { queries: 12, fingerprint: Some("f".into()), metric: "ndcg_at_10".into(), held_out: 0.5 },
    }
}

/// Settings stay through appends, deletes and a new query encoder.
#[test]
fn an_index_keeps_its_settings() {
    let dir = folder();
    let index = index(dir.path());
    assert_eq!(index.read_hybrid_settings().unwrap(), None);
    index.write_hybrid_settings(&tuned()).unwrap();
    assert_eq!(index.read_hybrid_settings().unwrap(), Some(tuned()));
    delete_after_reopening(dir.path(), "007");
    assert_eq!(ImpactIndex::open(dir.path()).unwrap().read_hybrid_settings().unwrap(), Some(tuned()));
    let other = HybridSettings { depth: 10, weights: vec![0.2, 0.3, 0.5], ..tuned() };
    index.write_hybrid_settings(&other).unwrap();
    assert_eq!(index.read_hybrid_settings().unwrap(), Some(other));
    // an earlier version did not know the queries
    edit_manifest(dir.path(), |text| text.replace("\"fingerprint\": \"f\",", ""));
    assert_eq!(index.read_hybrid_settings().unwrap().unwrap().tuned_on.fingerprint, None);
    assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, []);
    let _writer = index.writer(UNMERGED).unwrap();
    assert!(index.write_hybrid_settings(&tuned()).unwrap_err().to_string().contains("another writer"));
}

#[test]
fn settings_out_of_range_are_refused() {
    for (key, wrong, message) in [
        ("\"weighted\"", "\"sum\"", "unknown fusion 'sum'"),
        ("\"z-score\"", "\"rank\"", "unknown scaling 'rank'"),
        ("\"depth\": 50", "\"depth\": 0", "the depth of hybrid search is 0"),
        ("\"weights\": [", "\"weights\": [0.1, 0.1,", "has 4 weights, not two or three"),
        ("\"b\": 0.3", "\"b\": 3.0", "BM25's b is 3"),
    ] {
        let dir = folder();
        let index = index(dir.path());
        index.write_hybrid_settings(&tuned()).unwrap();
        edit_manifest(dir.path(), |text| {
            assert!(text.contains(key), "{key}: {text}");
            text.replace(key, wrong)
        });
        let error = index.read_hybrid_settings().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
