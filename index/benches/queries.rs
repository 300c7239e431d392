//! Measures the static query encoder on one thread, 1000 queries of eight words one after the other: the whole of it, and
//! its two halves, the tokenizer and the table.
//!
//! Data is made in the process: a WordPiece vocabulary of 30 000 pieces whose words follow Zipf's law; every eighth word
//! of a query is a compound that the vocabulary has only in pieces. It leaves out what other tokenizers cost (byte-level
//! BPE and Unigram are slower), the cold start (reading the tokenizer), and writing results. Compare the lines of one run.
//!
//! `cargo bench -p splade-index --bench queries`. Numbers are per 1000 queries; the throughput line is queries a second.

use std::sync::OnceLock;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use splade_index::{QueryEncoder, QueryWeights, Vocabulary};

const VOCABULARY: usize = 30_000;
const QUERIES: usize = 1000;
const WORDS: usize = 8;

struct Data {
    encoder: QueryEncoder,
    queries: Vec<String>,
    tokens: Vec<Vec<u32>>,
}

fn main() {
    data();
    divan::main();
}

/// A word made of syllables; no two numbers give the same one.
fn word(number: usize) -> String {
    const ONSETS: [&str; 12] = ["b", "d", "f", "fj", "g", "k", "l", "m", "n", "s", "sk", "v"];
    const RHYMES: [&str; 8] = ["a", "e", "i", "o", "ø", "å", "er", "en"];
    let (syllables, mut rest) = (ONSETS.len() * RHYMES.len(), number);
    let mut word = String::new();
    loop {
        let syllable = rest % syllables;
        word.push_str(ONSETS[syllable / RHYMES.len()]);
        word.push_str(RHYMES[syllable % RHYMES.len()]);
        rest /= syllables;
        if rest == 0 {
            return word;
        }
    }
}

/// Half of the pieces start words, half go on with them.
fn tokenizer() -> Vec<u8> {
    let mut vocabulary = Map::new();
    let pieces = (0..).flat_map(|n| [word(n), format!("##{}", word(n))]);
    for piece in ["[UNK]".to_owned()].into_iter().chain(pieces) {
        let id = vocabulary.len();
        vocabulary.entry(piece).or_insert(Value::from(id));
        if vocabulary.len() == VOCABULARY {
            break;
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

fn query(rng: &mut ChaCha8Rng) -> String {
    let mut zipf = || word((VOCABULARY as f64 / 2.0).powf(rng.random::<f64>()) as usize - 1);
    let words: Vec<String> =
        (0..WORDS).map(|n| if n == 0 { format!("{}{}", zipf(), zipf()) } else { zipf() }).collect();
    words.join(" ")
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let vocabulary = Vocabulary::parse(tokenizer(), 512).expect("a sound tokenizer");
        let weights = (0..VOCABULARY).map(|_| rng.random_range(0.1..3.0)).collect();
        let weights = QueryWeights::new(weights).expect("finite weights");
        let encoder = QueryEncoder::new(vocabulary, weights, "").expect("a table of this tokenizer");
        let queries: Vec<String> = (0..QUERIES).map(|_| query(&mut rng)).collect();
        let tokenize = |query: &String| encoder.vocabulary().tokenize(query).expect("a sound text");
        let tokens: Vec<Vec<u32>> = queries.iter().map(tokenize).collect();
        let mean = tokens.iter().map(Vec::len).sum::<usize>() as f64 / QUERIES as f64;
        println!("{QUERIES} queries of {WORDS} words, {mean:.1} tokens each, like {:?}", queries[0]);
        Data { encoder, queries, tokens }
    })
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let data = data();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        data.queries.iter().map(|query| black_box(data.encoder.encode_query(query)).is_ok()).filter(|ok| *ok).count()
    });
}

#[divan::bench]
fn tokenize(bencher: Bencher<'_, '_>) {
    let data = data();
    let vocabulary = data.encoder.vocabulary();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        data.queries.iter().map(|query| black_box(vocabulary.tokenize(query)).is_ok()).filter(|ok| *ok).count()
    });
}

#[divan::bench]
fn look_up(bencher: Bencher<'_, '_>) {
    let data = data();
    let weights = data.encoder.weights();
    bencher.counter(ItemsCount::new(QUERIES)).bench_local(|| {
        data.tokens.iter().map(|ids| black_box(weights.encode(ids.clone())).active_dims()).sum::<usize>()
    });
}
