//! Token ids from the cache of words, compared with those of the tokenizer: for every tokenizer of the fixtures and variants of
//! them, on texts that are likely to show a difference.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use splade_core::{Encoder, QueryEncoder, QueryWeights, SparseVector, Vocabulary};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Name and `tokenizer.json` of every model in `folder`.
fn tokenizers(folder: &Path) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
    let found = entries.filter(|entry| entry.path().join("tokenizer.json").is_file());
    found.map(|e| (e.file_name().into_string().unwrap(), read(&e.path().join("tokenizer.json")))).collect()
}

fn added(content: &str, changes: &[&str]) -> Value {
    let mut token = json!({"id": 0, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false});
    changes.iter().for_each(|key| token[key] = true.into());
    token
}

/// Tokenizers of the fixtures, changed as in files of other models of their families.
fn variants(fixtures: &[(String, Value)]) -> Vec<(String, Value)> {
    let changed = |name: &str, what: &str, change: &dyn Fn(&mut Value)| {
        let mut json = fixtures.iter().find(|(found, _)| found == name).unwrap().1.clone();
        change(&mut json);
        (format!("{name}, {what}"), json)
    };
    let add = |json: &mut Value, tokens: Vec<Value>| {
        let ids = json["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap());
        let vocabulary = &json["model"]["vocab"];
        let size = vocabulary.as_object().map_or_else(|| vocabulary.as_array().unwrap().len(), |v| v.len()) as u64;
        let first = ids.max().unwrap().max(size - 1) + 1;
        for (id, mut token) in (first..).zip(tokens) {
            token["id"] = id.into();
            json["added_tokens"].as_array_mut().unwrap().push(token);
        }
    };
    let metaspace =
        |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    vec![
        changed("modernbert-tiny", "runs of spaces as tokens", &|json| {
            let mut tokens: Vec<Value> = (2..6).map(|n| added(&" ".repeat(n), &["normalized"])).collect();
            tokens.push(added("|||IP|||", &["normalized"]));
            add(json, tokens);
        }),
        changed("bert-tiny", "words as tokens", &|json| {
            add(json, vec![added("fjord", &["single_word", "normalized"]), added("ÆR", &["normalized", "lstrip"])]);
        }),
        changed("bert-tiny", "cased", &|json| {
            json["normalizer"]["lowercase"] = false.into();
            json["normalizer"]["strip_accents"] = false.into();
        }),
        changed("roberta-tiny", "a space before", &|json| json["pre_tokenizer"]["add_prefix_space"] = true.into()),
        changed("roberta-tiny", "digits first", &|json| {
            let bytes = json["pre_tokenizer"].clone();
            let stages = [json!({"type": "Digits", "individual_digits": true}), bytes];
            json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": stages});
        }),
        changed("xlmr-tiny", "metaspace alone", &|json| json["pre_tokenizer"] = metaspace("always")),
        changed("xlmr-tiny", "metaspace at the start", &|json| json["pre_tokenizer"] = metaspace("first")),
        changed("xlmr-tiny", "stripped on the right", &|json| {
            let strip = json!({"type": "Strip", "strip_left": false, "strip_right": true});
            json["normalizer"]["normalizers"].as_array_mut().unwrap().insert(1, strip);
            json["pre_tokenizer"] = metaspace("always");
        }),
    ]
}

/// Vocabularies with their names.
type Vocabularies = [(String, Vocabulary)];

/// The tokenizers of the fixtures and their variants.
fn vocabularies() -> &'static Vocabularies {
    static ALL: OnceLock<Vec<(String, Vocabulary)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = tokenizers(&root().join("tests/fixtures/models"));
        assert!(all.len() >= 7, "only {} fixtures", all.len());
        all.extend(variants(&all));
        parse(all)
    })
}

/// Every tokenizer with a usual maximum length, followed by the same one with a length that truncates. All of them are read word
/// by word.
fn parse(tokenizers: Vec<(String, Value)>) -> Vec<(String, Vocabulary)> {
    let parsed = tokenizers.into_iter().flat_map(|(name, json)| {
        let whole = Vocabulary::parse(json.to_string().into_bytes(), 512).unwrap();
        assert!(whole.reads_word_by_word(), "{name}");
        let truncating = whole.with_max_length(5).unwrap();
        [(name.clone(), whole), (format!("{name}, truncating"), truncating)]
    });
    parsed.collect()
}

const FRAGMENTS: &[&str] = &[
    " ",
    " ",
    " ",
    " ",
    " ",
    "  ",
    "     ",
    "\t",
    "\n",
    "\r\n",
    " \n",
    "\n\n  ",
    "\u{a0}",
    "\u{2003}",
    "\u{3000}",
    "\u{85}",
    "\u{2028}",
    "\u{200b}",
    "\u{200d}",
    "\u{feff}",
    "\0",
    "\u{7f}",
    "\u{fffd}",
    "\u{301}",
    "\u{308}",
    "\u{483}",
    "\u{5b0}",
    "hvor",
    "fjord",
    "FJORD",
    "Oslo",
    "er",
    "det",
    "snø",
    "Ærfugl",
    "blåbærsyltetøy",
    "æ",
    "ÆR",
    "é",
    "e\u{301}",
    "İ",
    "ß",
    "ſ",
    "ŉ",
    "ǆ",
    "Σ",
    "ς",
    "ѝ",
    "ế",
    "ﬁ",
    "½",
    "Ⅷ",
    "٣",
    "²",
    "ͺ",
    "東京",
    "𠀀",
    "한국",
    "שלום",
    "سلام",
    "हिन्दी",
    "ไทย",
    "👩‍👩‍👧",
    "🇳🇴",
    "▁",
    "Ġ",
    "Ċ",
    "##",
    "'s",
    "don't",
    "I'LL",
    "we've",
    ".",
    ",",
    "(",
    ")",
    "?!",
    "...",
    "-",
    "_",
    "``",
    "\"",
    "/",
    "<",
    "1",
    "42",
    "2024",
    "x1",
    "[MASK]",
    "[CLS]",
    "[UNK]",
    "[MASK_1]",
    "<mask>",
    "<s>",
    "</s>",
    "<special_0>",
    "|||IP|||",
    "[unused0]",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "åååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååååå",
];

fn text() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        8 => select(FRAGMENTS).prop_map(str::to_owned),
        2 => "[a-zæøåA-ZÆØÅ]{1,12}",
        1 => any::<char>().prop_map(String::from),
        1 => "\\PC{0,4}",
    ];
    vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

/// Step over the vocabularies for all of them.
const ALL: usize = 1;
/// Step over the vocabularies that leaves out the truncating ones.
const WHOLE: usize = 2;

fn check(vocabularies: &Vocabularies, text: &str, step: usize) -> Result<(), TestCaseError> {
    for (name, vocabulary) in vocabularies.iter().step_by(step) {
        let plain = vocabulary.tokenize_plain(text, false).ok();
        let framed = vocabulary.tokenize_plain(text, true).ok();
        // the second time, all words are in the cache
        for time in ["new", "cached"] {
            prop_assert_eq!(vocabulary.tokenize(text).ok(), plain.clone(), "{}, {}: {:?}", name, time, text);
            let network = vocabulary.tokenize_for_network(text).ok();
            prop_assert_eq!(network, framed.clone(), "{}, {}, for a network: {:?}", name, time, text);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_text_is_its_words(text in text()) {
        check(vocabularies(), &text, ALL)?;
    }
}

#[test]
fn every_two_fragments_around_a_space_are_their_words() {
    check_fragments(vocabularies());
}

fn check_fragments(vocabularies: &Vocabularies) {
    for left in FRAGMENTS {
        for right in FRAGMENTS {
            check(vocabularies, &format!("{left} {right}"), WHOLE).unwrap();
        }
    }
}

#[test]
fn queries_of_a_data_set_are_their_words() {
    check_data_set(vocabularies());
}

fn check_data_set(vocabularies: &Vocabularies) {
    for file in ["queries.jsonl", "corpus.jsonl"] {
        let lines = std::fs::read_to_string(root().join("tests/data/lohelp-nb").join(file)).unwrap();
        for line in lines.lines().take(300) {
            let row: Value = serde_json::from_str(line).unwrap();
            check(vocabularies, row["text"].as_str().unwrap(), ALL).unwrap();
        }
    }
}

fn encoder(vocabulary: &Vocabulary, prompt: &str) -> QueryEncoder {
    let weights = (0..vocabulary.size()).map(|dim| (dim % 7) as f32 - 2.0).collect();
    QueryEncoder::new(vocabulary.clone(), QueryWeights::new(weights).unwrap(), prompt).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_query_is_the_table_at_its_tokens(text in text(), prompt in prompt()) {
        check_query(vocabularies(), &text, prompt)?;
    }
}

fn prompt() -> impl Strategy<Value = &'static str> {
    select(vec!["", "query: ", "spørsmål", " \n"])
}

fn check_query(vocabularies: &Vocabularies, text: &str, prompt: &str) -> Result<(), TestCaseError> {
    for (name, vocabulary) in vocabularies.iter().step_by(WHOLE) {
        let encoder = encoder(vocabulary, prompt);
        let plain = vocabulary.tokenize_plain(&format!("{prompt}{text}"), false).unwrap();
        let mut pairs: Vec<(u32, f32)> =
            plain.iter().map(|id| (*id, encoder.weights().as_slice()[*id as usize])).collect();
        pairs.sort_by_key(|pair| pair.0);
        pairs.dedup();
        let expected = SparseVector::from_pairs(pairs).unwrap();
        prop_assert_eq!(&encoder.encode_query(text).unwrap(), &expected, "{}: {:?}", name, text);
        let few = encoder.with_max_active_dims(Some(3)).encode_query(text).unwrap();
        prop_assert_eq!(few, expected.top_k(3), "{}: {:?}", name, text);
    }
    Ok(())
}

#[test]
#[ignore = "needs ../shared; run with `cargo test --workspace --test word_by_word -- --ignored`"]
fn texts_are_their_words_for_the_tokenizers_of_larger_models() {
    let vocabularies = parse(tokenizers(&root().join("../shared/models")));
    assert!(!vocabularies.is_empty(), "no tokenizer.json in a folder of ../shared/models");
    check_allocations(&vocabularies);
    check_fragments(&vocabularies);
    check_data_set(&vocabularies);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) });
    runner.run(&text(), |text| check(&vocabularies, &text, ALL)).unwrap();
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) });
    runner.run(&(text(), prompt()), |(text, prompt)| check_query(&vocabularies, &text, prompt)).unwrap();
}

#[test]
fn threads_share_the_cache_of_words() {
    let (_, vocabulary) = &vocabularies()[0];
    let texts: Vec<String> = (0..5000).map(|n| format!("ord{} og ord{} i fjord{}", n % 300, n % 77, n)).collect();
    let plain: Vec<Vec<u32>> = texts.iter().map(|text| vocabulary.tokenize_plain(text, true).unwrap()).collect();
    let fresh = vocabulary.with_max_length(vocabulary.max_length()).unwrap();
    assert_eq!(fresh.tokenize_all(&texts).unwrap(), plain);
}

/// With more words than slots, words without a slot are tokenized by the tokenizer.
#[test]
fn a_full_cache_gives_the_same_tokens() {
    let (_, vocabulary) = &vocabularies()[0];
    let fresh = vocabulary.with_max_length(vocabulary.max_length()).unwrap();
    let word = |n: usize| format!("x w{n}");
    for n in 0..100_000 {
        fresh.tokenize(&word(n)).unwrap();
    }
    for n in (0..110_000).step_by(97) {
        assert_eq!(fresh.tokenize(&word(n)).unwrap(), vocabulary.tokenize_plain(&word(n), false).unwrap());
    }
}

#[test]
fn a_query_of_cached_words_allocates_only_its_vector() {
    check_allocations(vocabularies());
}

fn check_allocations(vocabularies: &Vocabularies) {
    for (name, vocabulary) in vocabularies.iter().step_by(WHOLE) {
        let encoder = encoder(vocabulary, "").with_max_active_dims(Some(8));
        let prompted = self::encoder(vocabulary, "query: ");
        let texts = ["hvor ble det av de små fjordene", "fjordene av det hvor de ble små", "Oslo (42) [MASK] é"];
        for encoder in [&encoder, &prompted] {
            encoder.encode(&texts).unwrap();
            for text in texts {
                let counted = allocation_counter::measure(|| {
                    let vector = encoder.encode_query(text).unwrap();
                    assert!(!vector.is_empty(), "{name}: {text}");
                });
                assert_eq!(counted.count_total, 2, "{name}: {text}");
            }
        }
    }
}
