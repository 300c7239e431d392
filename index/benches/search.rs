//! Measures one thread answering queries, one after the other, from a warm index: ours (exact and quantized, k = 10, 100 and
//! 1000), our plain twin that scores every document, tantivy's BM25 on texts of the same words, our BM25 with other
//! parameters, and both rankings fused. Before, it prints how fast ready vectors are added, how long opening takes, the first query, and the 99th percentile of single queries.
//!
//! Data is made in the process: term frequencies follow Zipf's law, ~130 weights a document, 8 terms a query whose
//! lists hold ~5 % of the documents each, as was measured on trained models. It leaves out what real collections have
//! beyond that: topics (terms that occur together), long documents, a cold disk. `SPLADE_BENCH_VECTORS=DIR` takes vectors and
//! texts from a folder instead: `docs.bin` and `queries.bin` (magic `SPV1`; documents, vocabulary and 0 as u32; documents + 1
//! offsets as u64; terms as u16; weights as f32), and `docs.txt` and `queries.txt`, one text a line.
//!
//! Compare the lines of one run with each other; engines run after one another, since alternating them lets the second profit
//! from the first one's caches.
//!
//! `SPLADE_BENCH_DOCUMENTS=500000 cargo bench -p splade-index --bench search` (default 50 000);
//! `SPLADE_BENCH_WEIGHTS=u8` or `f16` takes another number format. Numbers are per pass over all
//! queries (200, or those of the folder); the throughput line is queries a second.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use splade_core::segment::ForwardPrecision;
use splade_core::{Fusion, Scaling, SparseVector};
use splade_index::{
    Bm25Options, ImpactIndex, IndexSettings, Scoring, SearchOptions, Searcher, StoredDocument, WriterOptions,
};

const VOCABULARY: u32 = 30_000;
const ACTIVE_DIMS: usize = 130;
const QUERIES: usize = 200;
const QUERY_TERMS: usize = 8;
/// Query terms are no rarer and no more frequent than those of questions.
const FIRST_QUERY_TERM: f64 = 40.0;

struct Data {
    searcher: Searcher,
    queries: Vec<(SparseVector, String)>,
    /// removed at the end: a static is never dropped
    folder: Mutex<Option<tempfile::TempDir>>,
}

fn main() {
    data();
    divan::main();
    drop(data().folder.lock().expect("nobody panics with it").take());
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

/// A document or a query.
type Item = (SparseVector, String);

/// Documents and queries of the folder `dir`.
fn read(dir: &Path) -> (u32, impl Iterator<Item = Item>, Vec<Item>) {
    let (vocabulary_size, documents) = read_items(dir, "docs");
    (vocabulary_size, documents, read_items(dir, "queries").1.collect())
}

/// The vectors of `name`.bin with the texts of `name`.txt.
fn read_items(dir: &Path, name: &str) -> (u32, impl Iterator<Item = Item> + use<>) {
    let bytes = std::fs::read(dir.join(format!("{name}.bin"))).expect("a file of vectors");
    let texts = std::fs::File::open(dir.join(format!("{name}.txt"))).expect("a file of texts");
    assert_eq!(bytes[..4], *b"SPV1");
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let (n, vocabulary_size) = (u32_at(4) as usize, u32_at(8));
    let offsets: Vec<usize> =
        bytes[16..].as_chunks().0[..=n].iter().map(|offset| u64::from_le_bytes(*offset) as usize).collect();
    let dims_start = 16 + (n + 1) * 8;
    let weights_start = dims_start + offsets[n] * 2;
    let vector = move |at: usize| {
        let (from, to) = (offsets[at], offsets[at + 1]);
        let dims = bytes[dims_start + from * 2..dims_start + to * 2].as_chunks().0.iter();
        let weights = bytes[weights_start + from * 4..weights_start + to * 4].as_chunks().0.iter();
        let pairs =
            dims.zip(weights).map(|(dim, weight)| (u16::from_le_bytes(*dim).into(), f32::from_le_bytes(*weight)));
        SparseVector::from_pairs(pairs).expect("ascending dimensions and finite weights")
    };
    let texts = std::io::BufReader::new(texts).lines().map(|line| line.expect("UTF-8"));
    (vocabulary_size, texts.enumerate().map(move |(at, text)| (vector(at), text)))
}

/// Documents and queries by Zipf's law.
fn make(n: usize) -> (u32, impl Iterator<Item = Item>, Vec<Item>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let queries = (0..QUERIES).map(|_| {
        let query = vector(&mut rng, FIRST_QUERY_TERM, QUERY_TERMS);
        let text = words(query.dims());
        (query, text)
    });
    let queries = queries.collect();
    let documents = (0..n).map(move |_| {
        let vector = vector(&mut rng, 1.0, ACTIVE_DIMS);
        let text: Vec<u32> = (0..ACTIVE_DIMS).map(|_| zipf(&mut rng, 1.0)).collect();
        (vector, words(&text))
    });
    (VOCABULARY, documents, queries)
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| match std::env::var_os("SPLADE_BENCH_VECTORS") {
        Some(dir) => {
            let (vocabulary_size, documents, queries) = read(Path::new(&dir));
            build(vocabulary_size, documents, queries)
        }
        None => {
            let n = std::env::var("SPLADE_BENCH_DOCUMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
            let (vocabulary_size, documents, queries) = make(n);
            build(vocabulary_size, documents, queries)
        }
    })
}

/// Indexes the documents in one segment. The time of making or reading them is not counted.
fn build(vocabulary_size: u32, documents: impl Iterator<Item = Item>, queries: Vec<Item>) -> Data {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut settings = IndexSettings::new(vocabulary_size, "bench", "bench");
    settings.forward = match std::env::var("SPLADE_BENCH_WEIGHTS").as_deref() {
        Ok("u8") => ForwardPrecision::U8,
        Ok("f16") => ForwardPrecision::F16,
        _ => ForwardPrecision::F32,
    };
    let index = ImpactIndex::create(folder.path(), &settings).expect("a new index");
    let mut writer = index.writer(WriterOptions::default()).expect("the only writer");
    let mut adding = Duration::ZERO;
    for (id, (vector, text)) in documents.enumerate() {
        let document = StoredDocument { id: format!("d{id}"), text, ..Default::default() };
        let start = Instant::now();
        writer.add(&document, &vector).expect("a sound document");
        adding += start.elapsed();
    }
    let start = Instant::now();
    writer.finish_merged().expect("a disk with room");
    let merging = start.elapsed();
    let stats = index.stats().expect("a sound index");
    println!(
        "{} documents, {} postings, {:.2} bytes each; added in {:.1} s, {:.0} documents a second; committed and merged in {:.1} s",
        stats.documents,
        stats.postings,
        stats.vector_bytes as f64 / stats.postings as f64,
        adding.as_secs_f64(),
        stats.documents as f64 / adding.as_secs_f64(),
        merging.as_secs_f64(),
    );
    drop(index);
    let start = Instant::now();
    let index = ImpactIndex::open(folder.path()).expect("the index");
    let searcher = index.searcher().expect("a sound index");
    let opening = start.elapsed();
    let search = |query: &SparseVector| {
        let start = Instant::now();
        black_box(searcher.search(query, 10, &SearchOptions::default()).expect("a sound index"));
        start.elapsed()
    };
    let first = search(&queries[0].0);
    let start = Instant::now();
    searcher.warm().expect("a sound index");
    let warming = start.elapsed();
    println!("opened in {opening:.2?}, first query in {first:.2?}, all blocks read and checked in {warming:.2?}");
    for _ in 0..2 {
        let mut times: Vec<Duration> = queries.iter().map(|(query, _)| search(query)).collect();
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        println!("exact, k = 10: mean {mean:.1?}, p99 {:.1?}", times[times.len() * 99 / 100]);
    }
    Data { searcher, queries, folder: Mutex::new(Some(folder)) }
}

/// Runs `search` for every query.
fn all_queries(bencher: Bencher<'_, '_>, search: impl Fn(&Searcher, &SparseVector, &str) -> usize + Sync) {
    let data = data();
    bencher.counter(ItemsCount::new(data.queries.len())).bench_local(|| {
        data.queries.iter().map(|(query, text)| black_box(search(&data.searcher, query, text))).sum::<usize>()
    });
}

fn sparse(bencher: Bencher<'_, '_>, scoring: Scoring, k: usize) {
    let options = SearchOptions { scoring, ..Default::default() };
    all_queries(bencher, |searcher, query, _| searcher.search(query, k, &options).expect("a sound index").len());
}

#[divan::bench(args = [10, 100, 1000])]
fn exact(bencher: Bencher<'_, '_>, k: usize) {
    sparse(bencher, Scoring::Exact, k);
}

#[divan::bench(args = [10, 100, 1000])]
fn quantized(bencher: Bencher<'_, '_>, k: usize) {
    sparse(bencher, Scoring::Quantized, k);
}

#[divan::bench(args = [10, 100, 1000])]
fn bm25(bencher: Bencher<'_, '_>, k: usize) {
    all_queries(bencher, |searcher, _, text| searcher.search_bm25(text, k, None).expect("a sound index").len());
}

/// BM25 by the scorer of our own, which takes any k1 and b.
#[divan::bench(args = [10, 100])]
fn bm25_with_other_parameters(bencher: Bencher<'_, '_>, k: usize) {
    let bm25 = Bm25Options::new(0.9, 0.4).expect("parameters in range");
    let options = SearchOptions { bm25, ..Default::default() };
    all_queries(bencher, |searcher, _, text| {
        searcher.search_bm25_with(text, k, &options).expect("a sound index").len()
    });
}

/// Both rankings to a depth of 100, with all scores, fused by a weighted sum.
#[divan::bench(args = [10])]
fn hybrid(bencher: Bencher<'_, '_>, k: usize) {
    let fusion = Fusion::weighted(Scaling::Max, vec![0.5, 0.5]).expect("finite weights");
    let options = SearchOptions::default();
    all_queries(bencher, |searcher, query, text| {
        searcher.search_hybrid((query, text), k, 100, &fusion, &options).expect("a sound index").len()
    });
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn brute_force(bencher: Bencher<'_, '_>) {
    all_queries(bencher, |searcher, query, _| searcher.search_exact(query, 10, None).expect("a sound index").len());
}
