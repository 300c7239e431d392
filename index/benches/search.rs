//! Measures one thread answering 200 queries, one after the other, from a warm index: ours (exact and quantized, k = 10
//! and 100), our plain twin that scores every document, and tantivy's BM25 on texts of the same words.
//!
//! Data is made in the process: term frequencies follow Zipf's law, ~130 weights a document, 8 terms a query whose
//! lists hold ~5 % of the documents each, as was measured on trained models. It leaves out what real collections have
//! beyond that: topics (terms that occur together), long documents, a cold disk. Compare the lines of one run with each
//! other; engines run after one another, since alternating them lets the second profit from the first one's caches.
//!
//! `SPLADE_BENCH_DOCUMENTS=500000 cargo bench -p splade-index --bench search` (default 50 000). Numbers are per 200
//! queries; the throughput line is queries a second.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splade_core::SparseVector;
use splade_index::{ImpactIndex, IndexSettings, Scoring, SearchOptions, Searcher, StoredDocument, WriterOptions};

const VOCABULARY: u32 = 30_000;
const ACTIVE_DIMS: usize = 130;
const QUERIES: usize = 200;
const QUERY_TERMS: usize = 8;
/// Query terms are no rarer and no more frequent than those of questions.
const FIRST_QUERY_TERM: f64 = 40.0;

struct Data {
    searcher: Searcher,
    queries: Vec<(SparseVector, String)>,
    _folder: tempfile::TempDir,
}

fn main() {
    data();
    divan::main();
}

/// A dimension between `first` and the end of the vocabulary, its frequency in inverse proportion to its rank.
fn zipf(rng: &mut ChaCha8Rng, first: f64) -> u32 {
    (first * (f64::from(VOCABULARY) / first).powf(rng.random::<f64>())) as u32 - 1
}

fn vector(rng: &mut ChaCha8Rng, first: f64, active_dims: usize) -> SparseVector {
    let mut weights = BTreeMap::new();
    while weights.len() < active_dims {
        // as trained models do: most weights are small, few are above 2
        let weight = (-rng.random::<f32>().max(1e-6).ln() * 0.6).clamp(0.01, 3.5);
        weights.insert(zipf(rng, first), weight);
    }
    SparseVector::from_pairs(weights).expect("a map has no repeated keys, the weights are finite")
}

fn words(dims: &[u32]) -> String {
    dims.iter().map(|dim| format!("w{dim} ")).collect()
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| {
        let n: usize = std::env::var("SPLADE_BENCH_DOCUMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = IndexSettings::new(VOCABULARY, "bench", "bench");
        let index = ImpactIndex::create(folder.path(), &settings).expect("a new index");
        let start = std::time::Instant::now();
        let mut writer = index.writer(WriterOptions::default()).expect("the only writer");
        for id in 0..n {
            let vector = vector(&mut rng, 1.0, ACTIVE_DIMS);
            let text: Vec<u32> = (0..ACTIVE_DIMS).map(|_| zipf(&mut rng, 1.0)).collect();
            let document = StoredDocument { id: format!("d{id}"), text: words(&text), ..Default::default() };
            writer.add(&document, &vector).expect("a sound document");
        }
        writer.finish_merged().expect("a disk with room");
        let seconds = start.elapsed().as_secs_f64();
        let stats = index.stats().expect("a sound index");
        let bytes = stats.vector_bytes as f64 / stats.postings as f64;
        println!(
            "{n} documents, {} postings, {bytes:.2} bytes each with forward weights, built in {seconds:.1} s",
            stats.postings
        );
        let queries = (0..QUERIES).map(|_| {
            let query = vector(&mut rng, FIRST_QUERY_TERM, QUERY_TERMS);
            let text = words(query.dims());
            (query, text)
        });
        let queries = queries.collect();
        Data { searcher: index.searcher().expect("a sound index"), queries, _folder: folder }
    })
}

/// Runs `search` for every query.
fn all_queries(bencher: Bencher<'_, '_>, search: impl Fn(&Searcher, &SparseVector, &str) -> usize + Sync) {
    let data = data();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        data.queries.iter().map(|(query, text)| black_box(search(&data.searcher, query, text))).sum::<usize>()
    });
}

fn sparse(bencher: Bencher<'_, '_>, scoring: Scoring, k: usize) {
    let options = SearchOptions { scoring, ..Default::default() };
    all_queries(bencher, |searcher, query, _| searcher.search(query, k, &options).expect("a sound index").len());
}

#[divan::bench(args = [10, 100])]
fn exact(bencher: Bencher<'_, '_>, k: usize) {
    sparse(bencher, Scoring::Exact, k);
}

#[divan::bench(args = [10, 100])]
fn quantized(bencher: Bencher<'_, '_>, k: usize) {
    sparse(bencher, Scoring::Quantized, k);
}

#[divan::bench(args = [10, 100])]
fn bm25(bencher: Bencher<'_, '_>, k: usize) {
    all_queries(bencher, |searcher, _, text| searcher.search_bm25(text, k, None).expect("a sound index").len());
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn brute_force(bencher: Bencher<'_, '_>) {
    all_queries(bencher, |searcher, query, _| searcher.search_exact(query, 10, None).expect("a sound index").len());
}
