//! Measures one thread answering 200 queries, k = 10, under filters that half, 1 %, 0.01 % and 99 % of the documents pass, and
//! without one: `search` with the filter evaluated before, `evaluation` of the filter and one query on a new snapshot.
//!
//! Data is made in the process, as in `search.rs`, with a random number of 0 to 9999 in each document. It leaves out filters
//! that go together with the ranking, texts, and deletes. Compare the lines of one run with each other.
//!
//! `SPLADE_BENCH_DOCUMENTS=500000 cargo bench --workspace --bench filters` (default 50 000).

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, json};
use splade_core::SparseVector;
use splade_index::{FieldSpec, ImpactIndex, IndexSettings, SearchOptions, Searcher, StoredDocument, WriterOptions};

const VOCABULARY: u32 = 30_000;
const ACTIVE_DIMS: usize = 130;
const QUERIES: usize = 200;
const QUERY_TERMS: usize = 8;
/// Query terms are no rarer and no more frequent than those of questions.
const FIRST_QUERY_TERM: f64 = 40.0;
/// Filters by their share of the documents.
const FILTERS: [(&str, Option<&str>); 5] = [
    ("none", None),
    ("50 %", Some("n:<5000")),
    ("1 %", Some("n:<100")),
    ("0.01 %", Some("n:0")),
    ("99 %", Some("n:>=100")),
];

struct Data {
    index: ImpactIndex,
    searcher: Searcher,
    queries: Vec<SparseVector>,
    /// removed at the end: a static is never dropped
    folder: Mutex<Option<tempfile::TempDir>>,
}

fn main() {
    data();
    divan::main();
    drop(data().folder.lock().expect("nobody panics with it").take());
}

fn vector(rng: &mut ChaCha8Rng, first: f64, active_dims: usize) -> SparseVector {
    let mut weights = BTreeMap::new();
    while weights.len() < active_dims {
        let dim = (first * (f64::from(VOCABULARY) / first).powf(rng.random::<f64>())) as u32 - 1;
        weights.insert(dim, (-rng.random::<f32>().max(1e-6).ln() * 0.6).clamp(0.01, 3.5));
    }
    SparseVector::from_pairs(weights).expect("a map has no repeated keys, the weights are finite")
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| {
        let n: usize = std::env::var("SPLADE_BENCH_DOCUMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = IndexSettings::new(VOCABULARY, "bench", "bench");
        settings.fields = FieldSpec::parse_list("n:int").expect("a sound declaration");
        let index = ImpactIndex::create(folder.path(), &settings).expect("a new index");
        let mut writer = index.writer(WriterOptions::default()).expect("the only writer");
        for id in 0..n {
            let other = Map::from_iter([("n".to_owned(), json!(rng.random_range(0..10_000)))]);
            let document = StoredDocument { id: format!("d{id}"), other, ..Default::default() };
            writer.add(&document, &vector(&mut rng, 1.0, ACTIVE_DIMS)).expect("a sound document");
        }
        writer.finish_merged().expect("a disk with room");
        let queries = (0..QUERIES).map(|_| vector(&mut rng, FIRST_QUERY_TERM, QUERY_TERMS)).collect();
        println!("{n} documents");
        Data { searcher: index.searcher().expect("a sound index"), queries, index, folder: Mutex::new(Some(folder)) }
    })
}

fn options(name: &str) -> SearchOptions {
    let known = FILTERS.iter().find(|(known, _)| *known == name).expect("a filter of the list");
    let filter = known.1.map(|text| text.parse().expect("a sound filter"));
    SearchOptions { filter, ..Default::default() }
}

#[divan::bench(args = FILTERS.map(|(name, _)| name))]
fn search(bencher: Bencher<'_, '_>, name: &str) {
    let data = data();
    let options = options(name);
    let search = |query| data.searcher.search(query, 10, &options).expect("a sound index").len();
    bencher
        .counter(ItemsCount::new(QUERIES))
        .bench_local(|| data.queries.iter().map(|q| black_box(search(q))).sum::<usize>());
}

#[divan::bench(args = FILTERS.map(|(name, _)| name))]
fn evaluation(bencher: Bencher<'_, '_>, name: &str) {
    let data = data();
    let options = options(name);
    bencher
        .with_inputs(|| data.index.searcher().expect("a sound index"))
        .bench_local_values(|searcher| searcher.search(&data.queries[0], 10, &options).expect("a sound index").len());
}
