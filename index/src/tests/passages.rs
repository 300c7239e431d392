//! Documents with passages: ranked by the best, deleted and updated as one.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use splade_core::{Fusion, PassageLength, Scaling};

/// A document as its passages.
type Passages = Vec<SparseVector>;

fn index_with_passages(dir: &Path, vocabulary_size: u32) -> ImpactIndex {
    let passages = Some(PassageLength { tokens: 8, overlap: 0 });
    let fields = FieldSpec::parse_list("n:int").unwrap();
    ImpactIndex::create(dir, &IndexSettings { passages, fields, ..settings(vocabulary_size) }).unwrap()
}

fn add(writer: &mut ImpactWriter, id: &str, number: usize, passages: &Passages) {
    let other = json!({"n": number}).as_object().unwrap().clone();
    let text = passages.iter().flat_map(|passage| passage.dims()).map(|dim| format!("w{dim} ")).collect();
    let stored = StoredDocument { id: id.into(), text, other, ..Default::default() };
    let ranges = (0..).map(|at| 10 * at..10 * at + 10).zip(passages.iter().cloned());
    writer.update_passages(&stored, &ranges.collect::<Vec<_>>()).unwrap();
}

/// Score of the best passage of every document, in order.
fn plain(documents: &[(String, usize, Passages)], query: &SparseVector, k: usize) -> Vec<Hit> {
    let best = |passages: &Passages| passages.iter().map(|passage| query.dot(passage)).fold(f32::MIN, f32::max);
    let hits = documents.iter().map(|(id, _, passages)| Hit { id: id.clone(), score: best(passages) });
    let mut hits: Vec<Hit> = hits.filter(|hit| hit.score > 0.0).collect();
    hits.sort_by(Hit::rank_order);
    hits.truncate(k);
    hits
}

fn assert_ranked(searcher: &Searcher, documents: &[(String, usize, Passages)], query: &SparseVector, k: usize) {
    let expected = plain(documents, query, k);
    let exact = searcher.search_exact(query, k, None).unwrap();
    let found = searcher.search(query, k, &SearchOptions::default()).unwrap();
    assert_eq!(found, exact, "the same passages, k {k}");
    assert_eq!(hits(found.clone()), expected, "k {k}");
    for found in found {
        let passages = &documents.iter().find(|(id, ..)| *id == found.hit.id).unwrap().2;
        let passage = searcher.passage(found.address).unwrap().unwrap();
        assert_eq!((passage.count, passage.range.start), (passages.len(), 10 * passage.number));
        assert_eq!(query.dot(&passages[passage.number]), found.hit.score);
        assert_eq!(searcher.vector(found.address).unwrap(), passages[passage.number]);
        assert_eq!(searcher.document(found.address).unwrap().id, found.hit.id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn documents_are_ranked_by_their_best_passage(
        sizes in proptest::collection::vec((1..6_usize, any::<bool>(), any::<bool>()), 1..40),
        seed in any::<u64>(),
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dir = folder();
        let index = index_with_passages(dir.path(), 30);
        let mut writer = index.writer(UNMERGED).unwrap();
        let mut documents: Vec<(String, usize, Passages)> = Vec::new();
        for (at, (size, commits, updates)) in sizes.into_iter().enumerate() {
            let passages: Passages = (0..size).map(|_| zipf_vector(&mut rng, 30, 4)).collect();
            // an update replaces all passages of an earlier document
            let id = if updates { format!("d{}", at / 2) } else { format!("d{at}") };
            add(&mut writer, &id, at, &passages);
            documents.retain(|(known, ..)| *known != id);
            documents.push((id, at, passages));
            if commits {
                writer.commit().unwrap();
            }
        }
        if documents.len() > 3 {
            writer.delete(&documents.swap_remove(2).0);
        }
        writer.finish().unwrap();
        for merged in [false, true] {
            if merged {
                index.writer(UNMERGED).unwrap().finish_merged().unwrap();
            }
            let searcher = index.searcher().unwrap();
            prop_assert_eq!(searcher.len(), documents.len());
            prop_assert_eq!(searcher.addresses().count(), documents.len());
            for round in 0..4 {
                let mut query = zipf_vector(&mut rng, 30, 4);
                if round == 3 {
                    query = SparseVector::from_pairs(query.iter().map(|(dim, w)| (dim, if dim % 3 == 0 { -w } else { w }))).unwrap();
                }
                for k in [1, 3, 100] {
                    assert_ranked(&searcher, &documents, &query, k);
                }
                let filter: Filter = "n:[0 TO 12] AND NOT n:3".parse().unwrap();
                let passes = |n: usize| n <= 12 && n != 3;
                let passing: Vec<_> = documents.iter().filter(|(_, n, _)| passes(*n)).cloned().collect();
                let options = SearchOptions { filter: Some(filter.clone()), ..Default::default() };
                let expected = plain(&passing, &query, 5);
                prop_assert_eq!(hits(searcher.search(&query, 5, &options).unwrap()), expected.clone());
                prop_assert_eq!(hits(searcher.search_exact(&query, 5, Some(&filter)).unwrap()), expected);
                let counted = searcher.count_all("n", Some(&filter)).unwrap();
                prop_assert_eq!((counted.values.iter().map(|value| value.count).sum::<u64>(), counted.missing), (passing.len() as u64, 0));
            }
        }
        prop_assert_eq!(ImpactIndex::check(dir.path()).unwrap().findings, vec![]);
    }
}

#[test]
fn bm25_ranks_whole_documents_as_without_passages() {
    let mut rng = ChaCha8Rng::seed_from_u64(41);
    let documents: Vec<(String, Passages)> =
        (0..60).map(|at| (format!("d{at}"), (0..at % 5 + 1).map(|_| zipf_vector(&mut rng, 30, 6)).collect())).collect();
    let (with, without) = (folder(), folder());
    let fields = FieldSpec::parse_list("n:int").unwrap();
    let whole = ImpactIndex::create(without.path(), &IndexSettings { fields, ..settings(30) }).unwrap();
    let split = index_with_passages(with.path(), 30);
    let (mut split_writer, mut whole_writer) = (split.writer(UNMERGED).unwrap(), whole.writer(UNMERGED).unwrap());
    for (at, (id, passages)) in documents.iter().enumerate() {
        add(&mut split_writer, id, at, passages);
        let other = json!({"n": at}).as_object().unwrap().clone();
        let text = passages.iter().flat_map(|passage| passage.dims()).map(|dim| format!("w{dim} ")).collect();
        whole_writer.add(&StoredDocument { id: id.clone(), text, other, ..Default::default() }, &passages[0]).unwrap();
    }
    split_writer.finish().unwrap();
    whole_writer.finish().unwrap();
    let (split, whole) = (split.searcher().unwrap(), whole.searcher().unwrap());
    for text in ["w1 w7 w20", "w2", "w0 w29 w13 w4"] {
        for k in [1, 10, 100] {
            assert_eq!(
                hits(split.search_bm25(text, k, None).unwrap()),
                hits(whole.search_bm25(text, k, None).unwrap()),
                "{text}"
            );
            // by the scorer of our own too
            let options = SearchOptions { bm25: Bm25Options::new(0.9, 0.3).unwrap(), ..Default::default() };
            let found = split.search_bm25_with(text, k, &options).unwrap();
            assert_eq!(hits(found.clone()), hits(whole.search_bm25_with(text, k, &options).unwrap()), "{text}");
            for found in found {
                let passages: Vec<Address> = split.passage_addresses(found.address).unwrap().collect();
                for score in split.bm25_scores(text, &passages, options.bm25).unwrap() {
                    assert!((score - found.hit.score).abs() < 1e-5, "{text}: every passage has its document's score");
                }
                let parts = split.explain_bm25(text, *passages.last().unwrap(), options.bm25).unwrap();
                assert!((parts.iter().map(|part| part.score).sum::<f32>() - found.hit.score).abs() < 1e-5);
            }
        }
    }
}

/// A document that only BM25 found has the score of its best passage too, and is shown with it.
#[test]
fn hybrid_search_completes_scores_by_the_best_passage() {
    let mut rng = ChaCha8Rng::seed_from_u64(43);
    let dir = folder();
    let index = index_with_passages(dir.path(), 30);
    let mut writer = index.writer(UNMERGED).unwrap();
    let documents: Vec<(String, usize, Passages)> = (0..80)
        .map(|at| (format!("d{at}"), at, (0..at % 6 + 1).map(|_| zipf_vector(&mut rng, 30, 4)).collect()))
        .collect();
    for (id, at, passages) in &documents {
        add(&mut writer, id, *at, passages);
    }
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let query = vector(&[(0, 1.0), (2, 0.5), (9, 2.0)]);
    let all = plain(&documents, &query, 100);
    let fusion = Fusion::weighted(Scaling::Max, vec![1.0, 0.0]).unwrap();
    let options = SearchOptions::default();
    // the best document by impact is in the sparse ranking, so that the scale is that of the complete one
    let found = searcher.search_hybrid((&query, "w1 w20 w27"), 100, 3, &fusion, &options).unwrap();
    assert!(found.len() > 3);
    for found in found {
        let expected = all.iter().find(|hit| hit.id == found.hit.id).map_or(0.0, |hit| hit.score);
        assert!((found.hit.score - expected / all[0].score).abs() < 1e-6, "{}", found.hit.id);
        assert_eq!(query.dot(&searcher.vector(found.address).unwrap()), expected);
    }
}

#[test]
fn passages_and_dense_vectors_are_refused_together() {
    let dir = folder();
    let settings = IndexSettings { passages: Some(PassageLength { tokens: 8, overlap: 0 }), ..settings(4) };
    let error = ImpactIndex::create(dir.path(), &super::dense::with_dense(settings)).err().unwrap();
    assert!(error.to_string().contains("holds no dense vectors"), "{error}");
}

#[test]
fn passages_need_an_index_that_was_made_for_them() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(4)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    let passages = [(0..3, vector(&[(0, 1.0)]))];
    let error = writer.update_passages(&document("a", "abc"), &passages).unwrap_err();
    assert!(error.to_string().contains("made without passages"), "{error}");
    drop(writer);
    let dir = folder();
    let index = index_with_passages(dir.path(), 4);
    let mut writer = index.writer(UNMERGED).unwrap();
    assert!(writer.add_passages(&document("a", "abc"), &[]).unwrap_err().to_string().contains("no passage"));
    writer.add_passages(&document("a", "abc"), &passages).unwrap();
    assert!(writer.add_passages(&document("a", "abc"), &passages).unwrap_err().to_string().contains("already"));
    // one vector is one passage
    writer.add(&document("b", "abcd"), &vector(&[(1, 1.0)])).unwrap();
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let found = searcher.search(&vector(&[(1, 1.0)]), 5, &SearchOptions::default()).unwrap();
    assert_eq!(searcher.passage(found[0].address).unwrap(), Some(Passage { number: 0, count: 1, range: 0..4 }));
}
