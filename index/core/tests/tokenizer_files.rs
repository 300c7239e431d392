//! Tokenizer folders whose files contradict each other or are missing: the ids are those of transformers.
//!
//! `tests/fixtures/tokenizers/make.py` made the folders and the ids, and states the versions.

use serde_json::Value;
use splade_core::{TokenizerFiles, Vocabulary};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tokenizers/cases.json");

fn fixtures() -> Value {
    serde_json::from_slice(&std::fs::read(FIXTURES).unwrap()).unwrap()
}

/// Files of a case: a base `tokenizer.json` with some values set, and the others as they are.
fn files(case: &Value, bases: &Value) -> TokenizerFiles {
    let mut files = TokenizerFiles::new();
    if let Some(base) = case["base"].as_str() {
        let mut json = bases[base].clone();
        for (pointer, value) in case["set"].as_object().unwrap() {
            *json.pointer_mut(pointer).unwrap() = value.clone();
        }
        files.insert("tokenizer.json".into(), json.to_string().into_bytes());
    }
    for (name, content) in case["files"].as_object().unwrap() {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        files.insert(name.clone(), text.into_bytes());
    }
    files
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Tokenizers that a training of a new model makes; `tests/fixtures/tokenizers/trained/make.py` made the ids.
#[test]
fn ids_of_trained_tokenizers_are_those_of_transformers() {
    let folder = std::path::Path::new(FIXTURES).with_file_name("trained");
    let expected: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for name in ["wordpiece", "bpe", "unigram"] {
        let mut files = TokenizerFiles::new();
        files.insert("tokenizer.json".into(), std::fs::read(folder.join(format!("{name}.json"))).unwrap());
        files.insert("tokenizer_config.json".into(), expected["config"].to_string().into_bytes());
        files.insert("config.json".into(), br#"{"model_type": "bert"}"#.to_vec());
        let vocabulary = Vocabulary::from_files(&files, 32).unwrap();
        assert_eq!(vocabulary.overrides(), [""; 0], "{name}");
        assert!(vocabulary.reads_word_by_word(), "{name}");
        let texts = expected["texts"].as_array().unwrap();
        assert!(texts.len() > 10);
        for (text, expected) in texts.iter().zip(expected["ids"][name].as_array().unwrap()) {
            let text = text.as_str().unwrap();
            assert_eq!(vocabulary.tokenize_for_network(text).unwrap(), ids(expected), "{name}: {text:?}");
            assert_eq!(vocabulary.tokenize_plain(text, true).unwrap(), ids(expected), "{name}: {text:?}");
            assert_eq!(vocabulary.tokenize_words(text).unwrap().0, vocabulary.tokenize(text).unwrap());
            let (ids, ranges): (Vec<u32>, Vec<_>) = vocabulary.tokenize_ranges(text).unwrap().into_iter().unzip();
            assert_eq!(ids, vocabulary.tokenize(text).unwrap());
            assert!(ranges.iter().all(|range| range.start <= range.end && range.end <= text.len()), "{ranges:?}");
        }
    }
}

#[test]
fn ids_are_those_of_transformers() {
    let fixtures = fixtures();
    let texts: Vec<&str> = fixtures["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let cases = fixtures["cases"].as_array().unwrap();
    assert!(cases.len() > 100 && texts.len() > 10);
    let mut failed = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let files = files(case, &fixtures["bases"]);
        let length = case["max_length"].as_u64().unwrap() as usize;
        let vocabulary = Vocabulary::from_files(&files, length).unwrap_or_else(|error| panic!("{name}: {error}"));
        // an index folder and a new model hold the tokenizer that results: without the other files, and beside them
        let alone = Vocabulary::parse(vocabulary.json().to_vec(), length).unwrap();
        let mut beside = files.clone();
        beside.insert("tokenizer.json".into(), vocabulary.json().to_vec());
        let beside = Vocabulary::from_files(&beside, length).unwrap();
        assert_eq!(beside.overrides(), [""; 0], "{name}");
        assert_eq!(beside.fingerprint(), vocabulary.fingerprint(), "{name}");
        for (at, text) in texts.iter().enumerate() {
            let (special, plain) = (ids(&case["expected"]["special"][at]), ids(&case["expected"]["plain"][at]));
            for (what, vocabulary) in [("folder", &vocabulary), ("alone", &alone), ("beside", &beside)] {
                let found = [
                    (&special, vocabulary.tokenize_plain(text, true).unwrap()),
                    (&special, vocabulary.tokenize_for_network(text).unwrap()),
                    (&plain, vocabulary.tokenize_plain(text, false).unwrap()),
                    (&plain, vocabulary.tokenize(text).unwrap()),
                ];
                for (expected, found) in found {
                    assert!(found.iter().all(|id| (*id as usize) < vocabulary.min_dimensions()), "{name}");
                    if *expected != found {
                        failed.push(format!("{name}, {what}, {text:?}: {found:?}, transformers {expected:?}"));
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} differences:\n{}", failed.len(), failed.join("\n"));
}

fn case(name: &str) -> TokenizerFiles {
    let fixtures = fixtures();
    let case = fixtures["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    files(case, &fixtures["bases"])
}

#[test]
fn overrides_name_the_part_and_both_values() {
    let files = case("strip_accents false where tokenizer.json leaves it to lowercase");
    let vocabulary = Vocabulary::from_files(&files, 64).unwrap();
    let [line] = vocabulary.overrides() else { panic!("{:?}", vocabulary.overrides()) };
    assert!(line.starts_with("normalizer: ") && line.contains(r#""strip_accents":null"#), "{line}");
    assert!(line.contains(r#""strip_accents":false"#), "{line}");
    let file = files["tokenizer.json"].clone();
    assert_ne!(Vocabulary::parse(file, 64).unwrap().fingerprint(), vocabulary.fingerprint());
}

#[test]
fn a_file_that_nothing_overrides_keeps_its_bytes() {
    for name in ["plain class, model_type bert", "roberta: add_prefix_space False, file False"] {
        let files = case(name);
        let vocabulary = Vocabulary::from_files(&files, 64).unwrap();
        assert_eq!(vocabulary.overrides(), [""; 0], "{name}");
        assert_eq!(vocabulary.json(), files["tokenizer.json"], "{name}");
    }
}

#[test]
fn folders_that_cannot_be_loaded_say_why() {
    let fixtures = fixtures();
    let config = |json: &str| ("tokenizer_config.json", json.as_bytes().to_vec());
    let bert = ("tokenizer.json", fixtures["bases"]["bert"].to_string().into_bytes());
    let vocab = ("vocab.txt", b"[UNK]\n".to_vec());
    let model = ("sentencepiece.bpe.model", Vec::new());
    for (files, message, hint) in [
        (vec![], "no tokenizer.json", "take the tokenizer.json"),
        (vec![vocab.clone()], "no tokenizer_class that reads vocab.txt", "BertTokenizer"),
        (
            vec![config(r#"{"tokenizer_class": "BertTokenizer"}"#)],
            "neither tokenizer.json nor vocab.txt",
            "save_pretrained",
        ),
        (
            vec![config(r#"{"tokenizer_class": "RobertaTokenizer"}"#), vocab],
            "neither tokenizer.json nor merges.txt",
            "save_pretrained",
        ),
        (
            vec![config(r#"{"tokenizer_class": "XLMRobertaTokenizer"}"#), model],
            "sentencepiece.bpe.model",
            "save_pretrained",
        ),
        (
            vec![config(r#"{"tokenizer_class": "RobertaTokenizer"}"#), bert.clone()],
            "reads BPE, but tokenizer.json holds WordPiece",
            "PreTrainedTokenizerFast",
        ),
        (
            vec![config(r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": "no"}"#), bert.clone()],
            "do_lower_case is \"no\"",
            "true or false",
        ),
        (vec![config(r#"{"split_special_tokens": true}"#), bert.clone()], "split_special_tokens", "false"),
        (vec![config(r#"{"truncation_side": "middle"}"#), bert.clone()], "truncation_side", "left or right"),
        (vec![config("[1]"), bert.clone()], "tokenizer_config.json: not a JSON object", "restore"),
        (
            vec![config(r#"{"tokenizer_class": "BertTokenizer", "cls_token": null}"#), bert],
            "cls_token is null",
            "[CLS]",
        ),
    ] {
        let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let error = Vocabulary::from_files(&files, 64).unwrap_err();
        assert!(error.to_string().contains(message), "{message}: {error}");
        assert!(error.hint().is_some_and(|text| text.contains(hint)), "{message}: {:?}", error.hint());
    }
}

/// `size` counts entries; ids may have gaps.
#[test]
fn the_largest_id_decides_how_many_dimensions_are_needed() {
    let tokenizer = |vocab: &str, added: &str, sep: u32| {
        let json = format!(
            r#"{{"added_tokens": [{added}], "pre_tokenizer": {{"type": "Whitespace"}},
                "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", {sep}], "cls": ["[UNK]", 0]}},
                "model": {{"type": "WordLevel", "unk_token": "[UNK]", "vocab": {{{vocab}}}}}}}"#
        );
        Vocabulary::parse(json.into(), 16).unwrap()
    };
    let added = r#"{"id": 7, "content": "<a>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}"#;
    for (vocab, added, sep, size, dimensions) in [
        (r#""[UNK]": 0, "en": 1"#, "", 1, 2, 2),
        (r#""[UNK]": 0, "en": 41"#, "", 0, 2, 42),
        (r#""[UNK]": 0, "en": 1"#, "", 9, 2, 10),
        (r#""[UNK]": 0, "en": 1"#, added, 0, 3, 3),
        (r#""[UNK]": 0, "en": 1, "to": 1"#, "", 0, 3, 2),
    ] {
        let vocabulary = tokenizer(vocab, added, sep);
        assert_eq!((vocabulary.size(), vocabulary.min_dimensions()), (size, dimensions), "{vocab} {added} {sep}");
    }
}
