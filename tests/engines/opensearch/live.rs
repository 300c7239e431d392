//! A real cluster: three shards, each on two nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value as Json, json};

use super::cluster::Cluster;
use crate::util::{Place, Ran, finish, fixture, ours, setup};

/// Number of terms of the model's vocabulary that vectors use.
const TERMS: u32 = 300;
/// Number of terms of the larger vocabulary.
const VOCABULARY: u32 = 40_000;
/// Text of a query with several terms.
const QUERY: &str = "oslo om vinteren er snø og regn i skogen";

/// A folder with a model and files of vectors, and a cluster.
struct Live {
    place: Place,
    cluster: Cluster,
}

/// Weights of a document, by dimension.
type Weights = BTreeMap<u32, f32>;

impl Live {
    fn start(version: &str) -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
        Self { place, cluster: Cluster::start(version) }
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.place.command(args);
        for name in ["http_proxy", "all_proxy", "https_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.spawn().unwrap()
    }

    fn start_push(&self, source: &str, collection: &str, more: &[&str]) -> Child {
        let address = self.cluster.address();
        let at = ["push-index", source, "--model", "model", "--to", "opensearch", "--url", &address];
        self.spawn(&[&at[..], &["--collection", collection, "--json"], more].concat())
    }

    /// Pushes and prints what the program found in the verification. Returns the numbers of the push.
    fn push(&self, source: &str, collection: &str, more: &[&str]) -> Json {
        pushed(self.start_push(source, collection, more))
    }

    fn search(&self, collection: &str, more: &[&str]) -> Ran {
        let address = self.cluster.address();
        let at = ["search", "--model", "model", "--engine", "opensearch", "--url", &address];
        finish(self.spawn(&[&at[..], &["--collection", collection, "--engine-timeout", "20"], more].concat()))
    }

    /// Ids and scores of a search for [`QUERY`].
    fn hits(&self, collection: &str, more: &[&str]) -> Vec<(String, f32)> {
        hits(&self.search(collection, &[&[QUERY, "--format", "trec"], more].concat()).done())
    }

    /// Weights of the terms of [`QUERY`], from the request that is sent.
    fn query(&self, collection: &str) -> Weights {
        self.weights(collection, QUERY)
    }

    /// Weights of the terms of a text, from the request that is sent.
    fn weights(&self, collection: &str, text: &str) -> Weights {
        let shown = self.search(collection, &[text, "--show-query"]).done();
        let body: Json = serde_json::from_str(shown.split_once('\n').unwrap().1).unwrap();
        let clauses = body["query"]["bool"]["should"].as_array().unwrap().iter().map(|clause| &clause["rank_feature"]);
        clauses
            .map(|clause| {
                let field = clause["field"].as_str().unwrap();
                (field.rsplit_once('.').unwrap().1.parse().unwrap(), clause["boost"].as_f64().unwrap() as f32)
            })
            .collect()
    }

    /// Waits until an index has more than this number of documents.
    fn wait_for_documents(&self, collection: &str, count: u64) {
        self.cluster.wait_for(&format!("/{collection}/_stats/indexing"), |stats| {
            stats["_all"]["primaries"]["indexing"]["index_total"].as_u64().is_some_and(|total| total > count)
        });
    }

    /// Number of documents that a search can find.
    fn count(&self, collection: &str) -> u64 {
        self.cluster.request("POST", &format!("/{collection}/_refresh"), None);
        self.cluster.request("GET", &format!("/{collection}/_count"), None).1["count"].as_u64().unwrap_or_default()
    }
}

/// Numbers of a push that succeeded.
fn pushed(push: Child) -> Json {
    let mut shown: Json = serde_json::from_str(&finish(push).done()).unwrap();
    println!("opensearch: {}", shown["verification"]);
    shown["push"].take()
}

fn hits(run: &str) -> Vec<(String, f32)> {
    let lines = run.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.map(|part| (part[2].to_owned(), part[4].parse().unwrap())).collect()
}

/// Vectors of documents `d0`, `d1`, … with dimensions from `first` on, and their lines for a file.
fn vectors(count: usize, seed: u64, first: u32) -> (Vec<Weights>, String) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let vectors: Vec<Weights> = (0..count)
        .map(|_| {
            (0..rng.random_range(5..60))
                .map(|_| (rng.random_range(first..first + TERMS), rng.random_range(0.01..3.0)))
                .collect()
        })
        .collect();
    let lines = vectors.iter().enumerate().map(|(at, weights)| {
        let (dims, weights): (Vec<u32>, Vec<f32>) = weights.iter().unzip();
        format!("{{\"_id\":\"d{at}\",\"indices\":{dims:?},\"values\":{weights:?}}}\n")
    });
    let lines = lines.collect();
    (vectors, lines)
}

/// Weight as Lucene keeps it: 9 significant bits, cut.
fn cut(weight: f32) -> f32 {
    f32::from_bits(weight.to_bits() >> 15 << 15)
}

fn dot(query: &Weights, document: &Weights, keep: impl Fn(f32) -> f32) -> f64 {
    let products =
        query.iter().filter_map(|(dim, weight)| Some(f64::from(*weight) * f64::from(keep(*document.get(dim)?))));
    products.sum()
}

/// Checks hits against dot products with the cut weights of all documents, ranks included, and against exact dot products.
/// Returns the largest share that a score is below the exact one.
fn assert_right(query: &Weights, documents: &[Weights], hits: &[(String, f32)], k: usize) -> f64 {
    let mut expected: Vec<(String, f64, f64)> = documents
        .iter()
        .enumerate()
        .map(|(at, document)| (format!("d{at}"), dot(query, document, cut), dot(query, document, |weight| weight)))
        .filter(|(_, score, _)| *score > 0.0)
        .collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    assert_eq!(hits.len(), k.min(expected.len()));
    let mut largest = 0.0_f64;
    for (hit, wanted) in hits.iter().zip(&expected) {
        assert!((f64::from(hit.1) - wanted.1).abs() <= 2e-6 * wanted.1, "{hit:?} {wanted:?}");
        let exact = &expected.iter().find(|other| other.0 == hit.0).unwrap().2;
        assert!(f64::from(hit.1) <= exact * (1.0 + 1e-6), "{hit:?} {exact}");
        largest = largest.max((exact - f64::from(hit.1)) / exact);
    }
    // ranks may differ only where sums differ by rounding
    let worst = hits.iter().zip(&expected).filter(|(hit, wanted)| hit.0 != wanted.0);
    for (hit, wanted) in worst {
        let other = expected.iter().find(|other| other.0 == hit.0).unwrap();
        assert!((other.1 - wanted.1).abs() <= 2e-6 * wanted.1, "{hit:?} {wanted:?}");
    }
    assert!(largest < 1.0 / 256.0, "{largest}");
    largest
}

const SHARDS: [&str; 4] = ["--shards", "3", "--replicas", "1"];

/// Searches over three shards have the scores and ranks that 9 bits of each weight give.
pub(super) fn scores_are_dot_products_of_cut_weights(version: &str) {
    let live = Live::start(version);
    let (documents, lines) = vectors(3000, 1, 5);
    live.place.write("v.jsonl", lines);
    let pushed = live.push("v.jsonl", "docs", &SHARDS);
    assert_eq!((&pushed["sent"], &pushed["documents"]), (&json!(3000), &json!(3000)));
    let query = live.query("docs");
    assert!(query.len() > 3, "{query:?}");
    for k in [10, 100, 5000] {
        let largest = assert_right(&query, &documents, &live.hits("docs", &["-k", &k.to_string()]), k);
        println!("opensearch {version}: k {k}: largest share below the exact score {largest:.5}");
    }
    let shards = live.cluster.request("GET", "/_cat/shards/docs?format=json", None).1;
    let nodes: BTreeSet<&str> = shards.as_array().unwrap().iter().filter_map(|shard| shard["node"].as_str()).collect();
    assert_eq!((shards.as_array().unwrap().len(), nodes.len()), (6, 2), "{shards}");
    live.search("docs", &[QUERY, "-k", "10001"]).fails(2, "a search returns 10000", "give -k 10000 at most");
    // without the vectors in the stored documents, the answers are equal
    live.push("v.jsonl", "small", &["--exclude-vectors"]);
    assert_eq!(live.hits("small", &["-k", "100"]), live.hits("docs", &["-k", "100"]));
    let stored = live.cluster.request("GET", "/small/_doc/d0", None).1;
    assert!(stored["_source"].get("_splade_vector").is_none() && stored["_source"]["_splade_id"] == "d0", "{stored}");
}

/// A node that stops in the middle of a push loses and doubles nothing, and answers stay right or are refused.
pub(super) fn a_node_stops_during_a_push(version: &str) {
    let mut live = Live::start(version);
    let (documents, lines) = vectors(20_000, 2, 5);
    live.place.write("v.jsonl", lines);
    let mut push = live.start_push("v.jsonl", "docs", &[&SHARDS[..], &["--batch-bytes", "100KB"]].concat());
    // a shard has a second copy from then on
    live.cluster.wait_for("/_cluster/health/docs", |health| health["status"] == "green");
    live.wait_for_documents("docs", 2000);
    live.cluster.kill(1);
    assert!(push.try_wait().unwrap().is_none(), "the push ended before the node did");
    let pushed = pushed(push);
    assert_eq!((&pushed["sent"], &pushed["documents"]), (&json!(20_000), &json!(20_000)));
    assert_eq!(live.count("docs"), 20_000);
    let query = live.query("docs");
    assert_right(&query, &documents, &live.hits("docs", &["-k", "1000"]), 1000);
    live.cluster.start_node(1);
    live.cluster.wait_for("/_cluster/health/docs", |health| health["status"] == "green");
    assert_eq!(live.count("docs"), 20_000);
    assert_right(&query, &documents, &live.hits("docs", &["-k", "1000"]), 1000);
}

/// A search over shards without copies, one of which is gone, is refused, and a search over copies is right.
pub(super) fn a_node_stops_between_searches(version: &str) {
    let mut live = Live::start(version);
    let (documents, lines) = vectors(2000, 3, 5);
    live.place.write("v.jsonl", lines);
    live.push("v.jsonl", "copies", &SHARDS);
    live.push("v.jsonl", "single", &["--shards", "3", "--replicas", "0"]);
    let query = live.query("single");
    live.cluster.wait_for("/_cluster/health", |health| health["status"] == "green");
    live.cluster.kill(2);
    for _ in 0..5 {
        assert_right(&query, &documents, &live.hits("copies", &["-k", "100"]), 100);
    }
    let refused = live.search("single", &[QUERY]);
    assert!(refused.code == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    live.cluster.start_node(2);
    live.cluster.wait_for("/_cluster/health", |health| health["status"] == "green");
    assert_right(&query, &documents, &live.hits("single", &["-k", "100"]), 100);
}

/// A push that was killed is continued, and `--sync` makes a collection equal to a source that changed.
pub(super) fn a_push_is_resumed_and_synchronized(version: &str) {
    let live = Live::start(version);
    let (mut documents, lines) = vectors(10_000, 4, 5);
    live.place.write("v.jsonl", &lines);
    let more = [&SHARDS[..], &["--batch-bytes", "50KB"]].concat();
    let mut push = live.start_push("v.jsonl", "docs", &more);
    live.wait_for_documents("docs", 1500);
    push.kill().unwrap();
    push.wait().unwrap();
    let before = live.count("docs");
    assert!((1000..10_000).contains(&before), "{before}");
    let pushed = live.push("v.jsonl", "docs", &more);
    assert_eq!(pushed["documents"], 10_000);
    assert!(pushed["unchanged"].as_u64().unwrap() >= before, "{pushed}");
    let query = live.query("docs");
    assert_right(&query, &documents, &live.hits("docs", &["-k", "100"]), 100);
    // the last thousand documents are gone, and the first hundred are those of another seed
    let (other, changed) = vectors(100, 5, 5);
    let kept: Vec<&str> = lines.lines().skip(100).take(8900).collect();
    live.place.write("v.jsonl", changed + &kept.join("\n"));
    documents.truncate(9000);
    documents.splice(..100, other);
    let refused = finish(live.start_push("v.jsonl", "docs", &[]));
    refused.fails(2, "differs from that of the source", "update it and all others that differ with --sync");
    let pushed = live.push("v.jsonl", "docs", &["--sync"]);
    let counts = ["sent", "unchanged", "deleted", "documents"].map(|name| pushed[name].as_u64().unwrap());
    assert_eq!(counts, [100, 8900, 1000, 9000]);
    assert_right(&query, &documents, &live.hits("docs", &["-k", "1000"]), 1000);
    live.search("gone", &[QUERY]).fails(2, "there is no such collection", "push-index");
}

/// Filters choose the documents that they choose in the index, and hybrid rankings are fused in the engine.
pub(super) fn filters_and_hybrid_rankings(version: &str) {
    let live = Live::start(version);
    live.place.write("corpus.jsonl", super::corpus(0..200));
    live.place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "docs.index", "--fields", super::FIELDS]);
    live.push("docs.index", "docs", &SHARDS);
    for filter in super::FILTERS {
        let local = ["search", "--index", "docs.index", "-k", "500", "--format", "trec", "--filter", filter, QUERY];
        let local: BTreeSet<String> = hits(&live.place.ok(&local)).into_iter().map(|(id, _)| id).collect();
        let found = live.hits("docs", &["-k", "500", "--filter", filter]);
        assert_eq!(found.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), local, "{filter}");
    }
    let all: Json = serde_json::from_str(&live.search("docs", &[QUERY, "-k", "3", "--json"]).done()).unwrap();
    let first = &all["hits"][0];
    assert!(first["title"].is_string() && first.get("_splade_digest").is_none(), "{first}");
    let vectors_alone = live.hits("docs", &["-k", "200"]);
    for fusion in [&["--fusion", "rrf"][..], &["--fusion", "weighted", "--scaling", "min-max"]] {
        let fused = live.hits("docs", &[&["-k", "20", "--mode", "hybrid"], fusion].concat());
        assert_eq!(fused.len(), 20);
        assert!(fused.windows(2).all(|pair| pair[0].1 >= pair[1].1) && fused[0].1 <= 1.0, "{fused:?}");
        assert!(vectors_alone.iter().any(|(id, _)| *id == fused[0].0));
    }
    let by_words = ["-k", "500", "--mode", "bm25", "--filter", "lang:nb"];
    let local = ["search", "--index", "docs.index", "--format", "trec", QUERY];
    let local: BTreeSet<String> =
        hits(&live.place.ok(&[&local[..], &by_words].concat())).into_iter().map(|(id, _)| id).collect();
    assert_eq!(live.hits("docs", &by_words).into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), local);
    let narrow = live.hits("docs", &["-k", "500", "--mode", "hybrid", "--filter", "lang:nb"]);
    let ids: Vec<usize> = narrow.iter().map(|(id, _)| id[1..].parse().unwrap()).collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| id % 3 == 0), "{ids:?}");
}

/// `sparse_vector` finds nearly all exact best documents by its approximate search, whatever the dimensions are.
pub(super) fn approximate_searches(version: &str) {
    let live = Live::start(version);
    enlarge_vocabulary(&live.place);
    let (documents, lines) = vectors(5000, 6, VOCABULARY - TERMS);
    live.place.write("v.jsonl", lines);
    let text: String = (0..8).map(|at| format!("zz{} ", VOCABULARY - 5 - at * 31)).collect();
    live.push("v.jsonl", "exact", &[]);
    let query = live.weights("exact", &text);
    assert_eq!(query.len(), 8);
    let field = ["--field-type", "sparse_vector", "--approximate-threshold", "100"];
    let pushed = live.push("v.jsonl", "docs", &field);
    assert_eq!(pushed["changes"]["renumbered_dimensions"], TERMS);
    let (status, merged) = live.cluster.request("POST", "/docs/_forcemerge?max_num_segments=1", None);
    assert!(status == 200 && merged["_shards"]["failed"] == 0, "{merged}");
    let scores = documents.iter().map(|document| dot(&query, document, |weight| weight));
    let mut best: Vec<(f64, String)> = scores.zip(0..).map(|(score, at)| (score, format!("d{at}"))).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let found = hits(&live.search("docs", &[&text, "-k", "20", "--format", "trec"]).done());
    let right = best[..20].iter().filter(|(_, id)| found.iter().any(|hit| hit.0 == *id)).count();
    println!("opensearch {version}: sparse_vector: {right} of the exact best 20");
    assert!(right >= 18, "{found:?}\n{:?}", &best[..20]);
    for (id, score) in &found {
        let exact = dot(&query, &documents[id[1..].parse::<usize>().unwrap()], |weight| weight);
        assert!((f64::from(*score) - exact).abs() <= 0.02 * exact, "{id}: {score} {exact}");
    }
    let refused = finish(live.start_push("v.jsonl", "docs", &["--field-type", "rank_features"]));
    refused.fails(2, "its field type is \"sparse_vector\", not \"rank_features\"", "--overwrite");
    // each dimension once: too many for the field type
    let all = (0..VOCABULARY).step_by(1000).map(|first| {
        let dims: Vec<u32> = (first..first + 1000).collect();
        format!("{{\"_id\":\"d{first}\",\"indices\":{dims:?},\"values\":{:?}}}\n", vec![1.5; 1000])
    });
    live.place.write("all.jsonl", all.collect::<String>());
    let refused = finish(live.start_push("all.jsonl", "all", &["--field-type", "sparse_vector"]));
    refused.fails(2, "40000 dimensions are in use, and the engine has 32768", "choose a field type without this limit");
}

/// Adds the tokens `zz420`, `zz421`, … to the vocabulary of the model, with one weight of queries.
fn enlarge_vocabulary(place: &Place) {
    for folder in ["query_0_SparseStaticEmbedding", "document_0_Transformer"] {
        let name = format!("model/{folder}/tokenizer.json");
        let mut tokenizer: Json = serde_json::from_str(&place.read(&name)).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let count = vocabulary.len() as u32;
        vocabulary.extend((count..VOCABULARY).map(|dim| (format!("zz{dim}"), json!(dim))));
        place.write(&name, tokenizer.to_string());
    }
    let config = "model/document_0_Transformer/config.json";
    let mut changed: Json = serde_json::from_str(&place.read(config)).unwrap();
    changed["vocab_size"] = json!(VOCABULARY);
    place.write(config, changed.to_string());
    let table = vec![0.75_f32; VOCABULARY as usize];
    let bytes: Vec<u8> = table.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![table.len()], &bytes).unwrap();
    let file = safetensors::serialize([("weight", view)], None).unwrap();
    place.write("model/query_0_SparseStaticEmbedding/model.safetensors", file);
}
