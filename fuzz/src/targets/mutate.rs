//! [`mutate`]: changes of a file that often keep it parsable.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Byte strings that occur in the files, and invalid ones.
const WORDS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"1",
    b"65535",
    b"4294967295",
    b"18446744073709551615",
    b"99999999999999999999",
    b"1e308",
    b"1e999",
    b"0.5",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"[0]",
    b"{\"a\":",
    b"[[[[[[[[",
    b",",
    b"\\u0000",
    b" ",
    b"\0",
    b"..",
    b"/",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x00\x00\x00\x80",
    b"\x80\x02",
    b"(",
    b"t",
    b"R",
    b"Q",
    b"u",
    b".",
    b"\x86",
    b"cos\nsystem\n",
    b"h\x01",
    b"q\x01",
    b"F16",
    b"BOOL",
    b"data_offsets",
    b"DoubleStorage",
    b"ByteStorage",
];

/// Values and names that readers distinguish.
const NAMES: &[&str] = &[
    "",
    "x",
    "A",
    "B",
    "[UNK]",
    "[CLS]",
    " ",
    "  ",
    "▁",
    "Ġ",
    ".",
    "(a*)*b",
    "\\s+",
    ".{1,2}",
    "\u{0}",
    "..",
    "/",
    "gelu",
    "relu",
    "published",
    "first",
    "always",
    "never",
    "Isolated",
    "Removed",
    "MergedWithNext",
    "Contiguous",
    "LongestFirst",
    "Sequence",
    "BertNormalizer",
    "NFC",
    "NFKC",
    "Strip",
    "StripAccents",
    "Lowercase",
    "Nmt",
    "Precompiled",
    "Replace",
    "Prepend",
    "ByteLevel",
    "BertPreTokenizer",
    "Metaspace",
    "Whitespace",
    "WhitespaceSplit",
    "Split",
    "Punctuation",
    "Digits",
    "UnicodeScripts",
    "CharDelimiterSplit",
    "FixedLength",
    "BPE",
    "WordPiece",
    "WordLevel",
    "Unigram",
    "TemplateProcessing",
    "BertProcessing",
    "RobertaProcessing",
    "Router",
    "Asym",
    "Transformer",
    "MLMTransformer",
    "SpladePooling",
    "SparseStaticEmbedding",
    "IDF",
    "NorbertForMaskedLM",
    "GptBertForMaskedLM",
    "BertForMaskedLM",
    "DistilBertForMaskedLM",
    "RobertaForMaskedLM",
    "XLMRobertaForMaskedLM",
    "ModernBertForMaskedLM",
    "BertModel",
    "modules.json",
    "config.json",
    "model.safetensors",
];

/// Makes one to four changes to `bytes`, some of them with parts of `donors`.
pub fn mutate(bytes: &mut Vec<u8>, donors: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..=4) {
        if rng.random_bool(0.6) && json(bytes, donors, rng).is_some() {
            continue;
        }
        raw(bytes, donors, rng);
    }
}

fn raw(bytes: &mut Vec<u8>, donors: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=bytes.len());
    let end = (at + rng.random_range(0..32)).min(bytes.len());
    match rng.random_range(0..8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = rng.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let repeated = bytes[at..end].to_vec();
            bytes.splice(at..at, repeated);
        }
        5 => {
            let Some(donor) = donors.choose(rng) else { return };
            let from = rng.random_range(0..=donor.len());
            let to = (from + rng.random_range(0..256)).min(donor.len());
            bytes.splice(at..end, donor[from..to].iter().copied());
        }
        6 => drop(number(bytes, at, rng)),
        _ => {
            drop(bytes.splice(at..end.min(at + 4), WORDS.choose(rng).into_iter().flat_map(|word| word.iter().copied())))
        }
    }
}

/// Replaces the first number from `at` on.
fn number(bytes: &mut Vec<u8>, at: usize, rng: &mut ChaCha8Rng) -> Option<()> {
    let start = at + bytes[at..].iter().position(u8::is_ascii_digit)?;
    let length = bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len() - start);
    let new = [0, 1, 2, 7, 255, 1 << 20, 1 << 31, 1 << 40, u64::MAX].choose(rng)?.to_string();
    bytes.splice(start..start + length, new.into_bytes());
    Some(())
}

/// Changes one of the JSON documents that zero bytes separate.
fn json(bytes: &mut Vec<u8>, donors: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Option<()> {
    let documents = |bytes: &[u8]| -> Vec<(usize, Value)> {
        let parts = bytes.split(|byte| *byte == 0).enumerate();
        parts.filter_map(|(at, part)| Some((at, serde_json::from_slice(part).ok()?))).collect()
    };
    let mut found = documents(bytes);
    let index = rng.random_range(0..found.len().max(1));
    let (at, document) = found.get_mut(index)?;
    let donor = donors.choose(rng).map(|donor| documents(donor)).and_then(|mut all| all.pop()).map(|(_, value)| value);
    change(document, donor.as_ref(), rng);
    let new = serde_json::to_vec(document).ok()?;
    let mut parts: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    parts[*at] = new;
    *bytes = parts.join(&0);
    Some(())
}

/// Changes a random part of a value. Each level is entered with equal probability, so that a long vocabulary does not
/// take most of the changes.
fn change(value: &mut Value, donor: Option<&Value>, rng: &mut ChaCha8Rng) {
    let stop = rng.random_bool(0.2);
    match value {
        Value::Object(entries) if !entries.is_empty() && !stop => {
            let keys: Vec<String> = entries.keys().cloned().collect();
            let key = &keys[rng.random_range(0..keys.len())];
            match rng.random_range(0..12) {
                0 => drop(entries.shift_remove(key)),
                1 => {
                    let copied = entries[key].clone();
                    entries.insert((*NAMES.choose(rng).unwrap_or(&"x")).to_owned(), copied);
                }
                _ => change(&mut entries[key], donor.and_then(|donor| donor.get(key)), rng),
            }
        }
        Value::Array(items) if !items.is_empty() && !stop => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..8) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                _ => change(&mut items[at], donor.and_then(|donor| donor.get(at)), rng),
            }
        }
        value => *value = another(donor, rng),
    }
}

fn another(donor: Option<&Value>, rng: &mut ChaCha8Rng) -> Value {
    match rng.random_range(0..10) {
        0..3 => donor.cloned().unwrap_or(Value::Null),
        3..6 => Value::from(*NAMES.choose(rng).unwrap_or(&"x")),
        6..8 => [0_u64, 1, 2, 3, 7, 16, 255, 1 << 20, 1 << 31, 1 << 40, u64::MAX].choose(rng).copied().into(),
        8 => [json!(-1), json!(0.5), json!(1e300), json!(true), json!([]), json!({}), json!([[1]])]
            .choose(rng)
            .cloned()
            .into(),
        _ => (0..100).fold(Value::Null, |inner, _| json!([inner])),
    }
}
