//! Data and checks that the tests of real engines share.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};

use crate::util::Place;

/// Number of terms of the model's vocabulary that vectors use.
const TERMS: u32 = 300;
/// Text of a query with several terms.
pub(crate) const QUERY: &str = "oslo om vinteren er snø og regn i skogen";

/// Weights by dimension.
pub(crate) type Weights = BTreeMap<u32, f32>;

/// Ids and scores of an answer in JSON.
pub(crate) fn scored(answer: &Json) -> Vec<(String, f32)> {
    let hits = answer["hits"].as_array().unwrap().iter();
    hits.map(|hit| (hit["_id"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap() as f32)).collect()
}

/// Vectors with weights from `least` on, some of them empty, under ids that need quotation marks in many languages.
pub(crate) fn vectors(count: usize, seed: u64, least: f32) -> BTreeMap<String, Weights> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let odd =
        ["it's", "say \"d\"", "tab\there", "line\nbreak", "back\\slash", "\u{1f600} æøå", "$1", "'; DROP TABLE x; --"];
    let mut vectors = BTreeMap::new();
    for at in 0..count {
        let weights = if at % 50 == 7 { 0 } else { rng.random_range(5..60) };
        let weights = (0..weights).map(|_| (rng.random_range(5..TERMS), rng.random_range(least..3.0))).collect();
        vectors.insert(odd.get(at).map_or_else(|| format!("d{at}"), |id| (*id).to_owned()), weights);
    }
    vectors
}

/// Lines of a file of vectors.
pub(crate) fn lines_of(vectors: &BTreeMap<String, Weights>) -> String {
    let line = |(id, weights): (&String, &Weights)| {
        let (dims, weights): (Vec<u32>, Vec<f32>) = weights.iter().unzip();
        format!("{{\"_id\":{},\"indices\":{dims:?},\"values\":{weights:?}}}\n", json!(id))
    };
    vectors.iter().map(line).collect()
}

/// Exact scores above 0, best first.
pub(crate) fn exact(query: &Weights, vectors: &BTreeMap<String, Weights>) -> Vec<(String, f32)> {
    let dot = |weights: &Weights| {
        let products =
            query.iter().filter_map(|(dim, weight)| Some(f64::from(*weight) * f64::from(*weights.get(dim)?)));
        products.sum::<f64>() as f32
    };
    let mut scores: Vec<(String, f32)> = vectors.iter().map(|(id, weights)| (id.clone(), dot(weights))).collect();
    scores.retain(|(_, score)| *score > 0.0);
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    scores
}

/// Checks hits against exact scores; returns the largest difference for a unit of score.
pub(crate) fn assert_exact(hits: &[(String, f32)], expected: &[(String, f32)]) -> f32 {
    assert_eq!(hits.len(), expected.len());
    let mut largest = 0.0_f32;
    for ((id, score), (expected_id, expected)) in hits.iter().zip(expected) {
        assert_eq!(id, expected_id);
        largest = largest.max((score - expected).abs() / expected.max(1.0));
    }
    assert!(largest < 1e-5, "{largest}");
    largest
}

/// Typed fields of [`corpus`].
pub(crate) const FIELDS: &str = "lang:keyword,year:int,price:float,on:date,new:bool,meta.pages:int";

/// Documents with fields of every type, some without.
pub(crate) fn corpus() -> String {
    let words = ["nordlyset", "vinteren", "oslo", "fjorden", "hovedstaden", "norge", "snø", "regn", "blåbær", "skogen"];
    let lines = (0..60).map(|id: usize| {
        let text: Vec<&str> = (0..4 + id % 5).map(|at| words[(id * 7 + at * 3) % words.len()]).collect();
        let lang = ["nb", "nn", "se"][id % 3];
        let year = if id.is_multiple_of(2) { json!(2000 + id) } else { json!([2000 + id, 1990]) };
        let mut document = json!({
            "_id": format!("d{id}"), "title": format!("Tittel {id} “é\"'\u{1f600}"), "text": text.join(" "),
            "lang": lang, "year": year,
            "price": id as f64 / 4.0, "on": format!("20{:02}-02-03T04:05:06.{}Z", id % 30, id % 7), "new": id.is_multiple_of(4),
            "meta": {"pages": id}, "tags": ["a", id.to_string()], "a.b": {"c": id % 5},
        });
        if id % 9 == 8 {
            document.as_object_mut().unwrap().retain(|key, _| ["_id", "title", "text"].contains(&&**key));
        }
        format!("{document}\n")
    });
    lines.collect()
}

/// Ids of hits, in their order.
pub(crate) fn ids(hits: &[(String, f32)]) -> Vec<&str> {
    hits.iter().map(|(id, _)| id.as_str()).collect()
}

/// Compares the hits under filters with those of `docs.index`, in their order; `hits` searches the engine. Returns their number.
pub(crate) fn assert_filters(place: &Place, filters: &[&str], hits: impl Fn(&[&str]) -> Vec<(String, f32)>) -> usize {
    assert!(!filters.is_empty());
    let compare = |filter: &&str| {
        let more = [QUERY, "-k", "60", "--filter", filter];
        let local = place.json(&[&["search", "--index", "docs.index", "--json"], &more[..]].concat());
        let (here, there) = (scored(&local), hits(&more));
        assert_eq!(ids(&here), ids(&there), "{filter}");
        here.len()
    };
    filters.iter().map(compare).sum()
}
