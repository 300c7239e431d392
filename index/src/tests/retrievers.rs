//! The retrievers of an index against scoring every document.

use splade_core::{EncodedQuery, Hit, Ranking, Retriever};

use super::*;

/// Best `depth` documents whose score is not 0.
fn expected(documents: &Plain, query: &SparseVector, depth: usize) -> Ranking {
    let score = |(id, vector): &(String, SparseVector)| Hit { id: id.clone(), score: query.dot(vector) };
    let mut ranking = Ranking::from_hits(documents.0.iter().map(score).filter(|hit| hit.score != 0.0).collect());
    ranking.truncate(depth);
    ranking
}

#[test]
fn documents_of_negative_score_follow_where_matches_are_few() {
    let documents = zipf_collection(7, 300, 40, 5);
    let dir = folder();
    let searcher = build(dir.path(), 40, &documents, &[100, 50]).searcher().unwrap();
    let retriever = ImpactRetriever::new(&searcher, SearchOptions::default());
    let queries =
        [vector(&[(0, 1.0), (3, 2.0)]), vector(&[(0, 1.0), (3, -2.0), (9, -0.5)]), vector(&[(2, -1.0)]), vector(&[])];
    let mut negative = 0;
    for query in &queries {
        for depth in [1, 10, 100, 1000] {
            let ranking = retriever.retrieve(EncodedQuery { text: "", vector: query, dense: None }, depth).unwrap();
            assert_eq!(ranking, expected(&documents, query, depth), "{query:?} {depth}");
            negative += ranking.hits().iter().filter(|hit| hit.score < 0.0).count();
        }
    }
    assert!(negative > 100, "{negative}");
}

#[test]
fn bm25_ranks_by_the_text_alone() {
    let dir = folder();
    let index = ImpactIndex::create(dir.path(), &settings(4)).unwrap();
    let mut writer = index.writer(UNMERGED).unwrap();
    writer.add(&document("a", "fisk i havet"), &vector(&[(1, 1.0)])).unwrap();
    writer.add(&document("b", "fugl"), &vector(&[(1, 9.0)])).unwrap();
    writer.finish().unwrap();
    let searcher = index.searcher().unwrap();
    let retriever = Bm25Retriever::new(&searcher, SearchOptions::default());
    let query = vector(&[(1, 1.0)]);
    let ranking = retriever.retrieve(EncodedQuery { text: "fisk", vector: &query, dense: None }, 10).unwrap();
    assert_eq!(ranking.hits().iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["a"]);
}
