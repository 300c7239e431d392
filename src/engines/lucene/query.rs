//! Parts of queries that OpenSearch and Elasticsearch share.

use serde_json::{Value as Json, json};

use super::{ID, TEXT, TITLE};

/// Ranking by words: BM25 over title and text as if they were one field.
pub(in crate::engines) fn words_query(text: &str) -> Json {
    json!({"multi_match": {"query": text, "fields": [TITLE, TEXT], "type": "cross_fields"}})
}

/// A query whose documents also meet the condition of the search.
pub(in crate::engines) fn filtered(mut query: Json, condition: Option<&Json>) -> Json {
    let Some(condition) = condition else { return query };
    // a `bool` with a filter would also return documents that match no clause
    if let Some(Json::Object(bool)) = query.get_mut("bool") {
        bool.insert("minimum_should_match".to_owned(), json!(1));
        bool.insert("filter".to_owned(), json!([condition]));
        return query;
    }
    json!({"bool": {"must": [query], "filter": [condition]}})
}

/// Scores descending, then ids ascending, so that equal scores are in one order whichever shard answers.
pub(in crate::engines) fn order() -> Json {
    json!([{"_score": "desc"}, {ID: "asc"}])
}
