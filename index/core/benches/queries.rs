//! Measures the static query encoder on one thread, one query of eight words after the other: how long each of 100 000
//! distinct queries takes, then the whole of it and its parts, with what they allocate.
//!
//! Words are those of the queries in `tests/data/lohelp-nb`, drawn as often as they occur there, so that queries are
//! distinct and words repeat as in a log; every 50th query has a word that occurs in no other query. Tokenizers are one of
//! WordPiece with 30 000 pieces made here, and those of the models in `tests/fixtures`, whose vocabularies are tiny and
//! words therefore many pieces. *Cold* is a new encoder, whose first queries meet every word for the first time; *warm* is
//! the same encoder after it, on other queries. `documents_by_words` tokenizes those of the same data set for a network,
//! with the cache of words and without. It leaves out the reading of the tokenizer and writing results. The allocator
//! counts, which costs a little. Compare the lines of one run.
//!
//! `cargo bench -p splade-index --bench queries`. Numbers are per 1000 queries; the throughput line is queries a second.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use splade_core::{QueryEncoder, QueryWeights, Vocabulary};
use splade_files::{read_documents, read_queries};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const VOCABULARY: usize = 30_000;
const WORDS: usize = 8;
const QUERIES: usize = 1000;
const DISTINCT: usize = 100_000;
const NEW_WORD_EVERY: usize = 50;

struct Data {
    encoders: Vec<(String, QueryEncoder)>,
    queries: Vec<String>,
    tokens: Vec<Vec<u32>>,
}

fn main() {
    latencies(data());
    divan::main();
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every word of the queries, as often as it occurs.
fn words() -> Vec<String> {
    let queries = read_queries(&root().join("tests/data/lohelp-nb/queries.jsonl")).expect("queries of the repository");
    let texts: Vec<String> = queries.map(|query| query.expect("a sound line").text).collect();
    texts.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect()
}

fn query(words: &[String], number: usize, rng: &mut ChaCha8Rng) -> String {
    let mut drawn: Vec<String> = (0..WORDS).map(|_| words.choose(rng).expect("words").clone()).collect();
    if number.is_multiple_of(NEW_WORD_EVERY) {
        drawn[number % WORDS] = format!("{}{}", words.choose(rng).expect("words"), rng.random_range(1000..1_000_000));
    }
    drawn.join(" ")
}

/// A WordPiece vocabulary as a training would give: whole words, then their beginnings and endings.
fn wordpiece(words: &[String]) -> Vec<u8> {
    let mut vocabulary = Map::new();
    let mut add = |piece: String| {
        let id = vocabulary.len();
        if id < VOCABULARY {
            vocabulary.entry(piece).or_insert(Value::from(id));
        }
    };
    add("[UNK]".to_owned());
    let letters = || ('!'..='~').chain("æøåéäöü".chars());
    letters().for_each(|letter| add(letter.to_string()));
    letters().for_each(|letter| add(format!("##{letter}")));
    let lower: Vec<Vec<char>> = words.iter().map(|word| word.to_lowercase().chars().collect()).collect();
    // every fifth word is one that a vocabulary has in pieces only
    lower.iter().enumerate().filter(|(n, _)| n % 5 != 0).for_each(|(_, word)| add(word.iter().collect()));
    for length in 2..8 {
        for word in lower.iter().filter(|word| word.len() > length) {
            add(word[..length].iter().collect());
            add(format!("##{}", word[word.len() - length..].iter().collect::<String>()));
        }
    }
    let tokenizer = json!({
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": false,
                       "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    tokenizer.to_string().into_bytes()
}

fn encoder(tokenizer: Vec<u8>) -> QueryEncoder {
    let vocabulary = Vocabulary::parse(tokenizer, 512).expect("a sound tokenizer");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let weights = (0..vocabulary.size()).map(|_| rng.random_range(0.1..3.0)).collect();
    let weights = QueryWeights::new(weights).expect("finite weights");
    QueryEncoder::new(vocabulary, weights, "").expect("a table of this tokenizer")
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| {
        let (words, mut rng) = (words(), ChaCha8Rng::seed_from_u64(2));
        let mut encoders = vec![("wordpiece 30k".to_owned(), encoder(wordpiece(&words)))];
        let models = root().join("tests/fixtures/models");
        for model in ["bert-tiny", "norbert3-tiny", "norbert4-tiny", "roberta-tiny", "xlmr-tiny"] {
            if let Ok(tokenizer) = std::fs::read(models.join(model).join("tokenizer.json")) {
                encoders.push((model.to_owned(), encoder(tokenizer)));
            }
        }
        let queries: Vec<String> = (1..=DISTINCT).map(|number| query(&words, number, &mut rng)).collect();
        let tokenize = |query: &String| encoders[0].1.vocabulary().tokenize(query).expect("a sound text");
        let tokens = queries.iter().take(QUERIES).map(tokenize).collect();
        Data { encoders, queries, tokens }
    })
}

/// Every query alone, by the clock, in the order of a log: the first 10 000 with a new encoder, then the others.
fn latencies(data: &Data) {
    println!("{DISTINCT} distinct queries of {WORDS} words like {:?}", data.queries[0]);
    println!("{:<16}{:>7}{:>12}{:>11}{:>11}{:>11}{:>11}", "", "tokens", "queries/s", "p50", "p99", "p99.9", "most");
    let (cold, warm) = data.queries.split_at(DISTINCT / 10);
    for (name, encoder) in &data.encoders {
        let tokens = |query: &String| encoder.vocabulary().tokenize_plain(query, false).expect("a sound text").len();
        let mean = data.queries.iter().take(QUERIES).map(tokens).sum::<usize>() as f64 / QUERIES as f64;
        for (state, queries) in [("cold", cold), ("warm", warm)] {
            let mut times: Vec<Duration> = queries.iter().map(|query| time(encoder, query)).collect();
            let all: Duration = times.iter().sum();
            times.sort_unstable();
            let at =
                |share: f64| format!("{:.2} µs", times[(times.len() as f64 * share) as usize].as_nanos() as f64 / 1e3);
            let most = format!("{:.0} µs", times[times.len() - 1].as_nanos() as f64 / 1e3);
            let per_second = times.len() as f64 / all.as_secs_f64();
            println!(
                "{name:<16}{mean:>7.1}{per_second:>12.0}{:>11}{:>11}{:>11}{most:>11}  {state}",
                at(0.5),
                at(0.99),
                at(0.999)
            );
        }
    }
}

fn time(encoder: &QueryEncoder, query: &str) -> Duration {
    let start = Instant::now();
    let vector = black_box(encoder.encode_query(black_box(query)));
    let time = start.elapsed();
    assert!(vector.is_ok());
    time
}

/// The tokenizers by name, for the benches below.
const NAMES: [&str; 6] = ["wordpiece 30k", "bert-tiny", "norbert3-tiny", "norbert4-tiny", "roberta-tiny", "xlmr-tiny"];

fn named(name: &str) -> Option<&'static QueryEncoder> {
    data().encoders.iter().find(|(found, _)| found == name).map(|(_, encoder)| encoder)
}

#[divan::bench(args = NAMES)]
fn encode(bencher: Bencher<'_, '_>, name: &str) {
    let (Some(encoder), queries) = (named(name), &data().queries[..QUERIES]) else { return };
    let encode = |query: &String| black_box(encoder.encode_query(query)).is_ok();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| queries.iter().map(encode).filter(|ok| *ok).count());
}

#[divan::bench(args = NAMES)]
fn tokenize(bencher: Bencher<'_, '_>, name: &str) {
    let (Some(encoder), queries) = (named(name), &data().queries[..QUERIES]) else { return };
    let (vocabulary, mut ids) = (encoder.vocabulary(), Vec::new());
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        queries
            .iter()
            .map(|query| black_box(vocabulary.tokenize_into(query, &mut ids)).is_ok())
            .filter(|ok| *ok)
            .count()
    });
}

/// Tokenization without the cache of words.
#[divan::bench(args = NAMES)]
fn tokenize_plain(bencher: Bencher<'_, '_>, name: &str) {
    let (Some(encoder), queries) = (named(name), &data().queries[..QUERIES]) else { return };
    let tokenize = |query: &String| black_box(encoder.vocabulary().tokenize_plain(query, false)).is_ok();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| queries.iter().map(tokenize).filter(|ok| *ok).count());
}

/// The table alone, with a copy of the ids.
#[divan::bench]
fn look_up(bencher: Bencher<'_, '_>) {
    let data = data();
    let weights = data.encoders[0].1.weights();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        data.tokens.iter().map(|ids| black_box(weights.encode(ids.clone())).active_dims()).sum::<usize>()
    });
}

fn documents() -> &'static [String] {
    static DOCUMENTS: OnceLock<Vec<String>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let corpus =
            read_documents(&root().join("tests/data/lohelp-nb/corpus.jsonl")).expect("a corpus of the repository");
        corpus.map(|document| document.expect("a sound line").text).collect()
    })
}

#[divan::bench(args = [true, false])]
fn documents_by_words(bencher: Bencher<'_, '_>, by_words: bool) {
    let (vocabulary, documents) = (data().encoders[0].1.vocabulary(), documents());
    let tokenize = |text: &String| {
        let ids = if by_words { vocabulary.tokenize_for_network(text) } else { vocabulary.tokenize_plain(text, true) };
        ids.expect("a sound text").len()
    };
    let bytes = documents.iter().map(String::len).sum::<usize>();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| documents.iter().map(tokenize).sum::<usize>());
}
