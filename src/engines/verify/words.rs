//! [`verify_words`]: rankings by vectors of words against BM25 of the index that was pushed.

use std::collections::HashMap;

use anyhow::Result;
use splade_core::SparseVector;
use splade_files::Query;
use splade_index::{SearchOptions, Searcher, to_ranking};

use super::{Comparison, K, QUERIES, Verified, answers};
use crate::engines::client::{EngineClient, WantedRanking};
use crate::engines::{EngineHit, Source, Tolerance};

/// Words of a query that is made of a document.
const WORDS: usize = 4;
/// Difference of scores that is explained by the idf of an engine: in a shard of a small collection, or with many documents that
/// were deleted, a rare word may be twice as rare.
const IDF: Tolerance = Tolerance::Idf { share: 0.5 };

/// Queries of a sample of documents: some words across the text of each. None for a source without texts.
///
/// # Errors
/// Documents that cannot be read.
pub(crate) fn sample_texts(source: &Source) -> Result<Vec<Query>> {
    let Source::Index(searcher) = source else { return Ok(Vec::new()) };
    let mut queries = Vec::new();
    for (id, _) in source.sample(QUERIES)? {
        let Some(address) = searcher.find(&id)? else { continue };
        let document = searcher.document(address)?;
        let text = document.full_text();
        let words: Vec<&str> = text.split_whitespace().collect();
        let step = (words.len() / WORDS).max(1);
        let text = words.into_iter().step_by(step).take(WORDS).collect::<Vec<_>>().join(" ");
        queries.push(Query { id: format!("words of document {id}"), text });
    }
    Ok(queries)
}

/// Compares the best hits of each query by BM25 in the collection with those of the index. None if the collection has no vectors
/// of words, or the source no texts.
///
/// # Errors
/// A difference that the idf of an engine does not explain, with its query and document; an engine without an answer.
pub(crate) fn verify_words(client: &EngineClient, source: &Source, queries: &[Query]) -> Result<Option<Verified>> {
    let (Some(settings), Source::Index(searcher)) = (&client.manifest().words, source) else { return Ok(None) };
    let options = SearchOptions { bm25: settings.options()?, ..SearchOptions::default() };
    let no_vector = SparseVector::default();
    let wanted = queries.iter().map(|query| (query, &no_vector, WantedRanking::Words(&query.text)));
    let mut comparison = Comparison::new(client, IDF);
    for (query, found) in queries.iter().zip(answers(client, wanted)?) {
        let exact = to_ranking(&searcher.search_bm25_with(&query.text, K, &options)?);
        let scores = scores(searcher, query, &found, &options)?;
        let score = |id: &str| scores.get(id).copied();
        let mut hits = Vec::with_capacity(found.len());
        for hit in found {
            // a document that has another word of the same dimension is no error
            if score(&hit.document.id) != Some(0.0) || !shares_a_dimension(client, searcher, query, &hit)? {
                hits.push(hit);
            }
        }
        comparison.add(query, &exact, &hits, &score)?;
    }
    comparison.finish().map(Some)
}

/// Scores of hits by BM25 of the index, by id. A document that the index does not have is left out.
fn scores(
    searcher: &Searcher,
    query: &Query,
    hits: &[EngineHit],
    options: &SearchOptions,
) -> Result<HashMap<String, f32>> {
    let mut found = Vec::new();
    for hit in hits {
        let id = &hit.document.id;
        found.extend(searcher.find(id)?.map(|address| (id.clone(), address)));
    }
    let addresses: Vec<_> = found.iter().map(|(_, address)| *address).collect();
    let scores = searcher.bm25_scores(&query.text, &addresses, options.bm25)?;
    Ok(found.into_iter().map(|(id, _)| id).zip(scores).collect())
}

/// True if the vectors of words of a query and of a document have a dimension in common.
fn shares_a_dimension(client: &EngineClient, searcher: &Searcher, query: &Query, hit: &EngineHit) -> Result<bool> {
    let (Some(words), Some(address)) = (client.words(), searcher.find(&hit.document.id)?) else { return Ok(false) };
    let document = searcher.document(address)?;
    Ok(words.query(&query.text).dot(&words.document(document.title.as_deref(), &document.text)) > 0.0)
}
