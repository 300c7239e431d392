//! [`reads_word_by_word`]: tokenizers for which the ids of a text are those of its words, one after the other.
//!
//! The claim holds for every split of a text before a space (U+0020) between two [`solid`] characters: the ids of the text
//! are the ids of the left part followed by the ids of the right part, which has the space. Each stage of the parsed
//! `tokenizer.json` is checked, and only stages with a proof pass:
//!
//! * *Added tokens* are matched in the text first. None may extend over such a split or strip white space to its right.
//!   Stripping to the left stops at the solid character.
//! * *Normalizers* must work character by character, or within runs that cannot hold a solid character followed by a
//!   space. The Unicode forms qualify: a space begins a new normalization segment and composes with nothing.
//! * The first *pre-tokenizer* that splits at spaces must do so in every context, and without looking back.
//!   Later stages process one part at a time.
//! * *Models* process one part at a time; only models with dropout, which are random, fail.
//!
//! A tokenizer that does not pass runs without the cache of words. Two checks confirm the proof: every solid character is
//! normalized, and a few texts are tokenized whole and in parts.

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{NormalizerWrapper, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{NormalizedString, Normalizer, Tokenizer};

use crate::words::{pieces, solid};

/// True if the claim at the top of this file holds for `tokenizer`.
pub(crate) fn reads_word_by_word(tokenizer: &Tokenizer) -> bool {
    added_tokens(tokenizer)
        && tokenizer.get_normalizer().is_none_or(normalizer)
        && tokenizer.get_pre_tokenizer().is_some_and(pre_tokenizer)
        && model(tokenizer.get_model())
        && keeps_solid(tokenizer)
        && PROBES.iter().all(|text| is_sum_of_pieces(tokenizer, text))
}

/// Letters of a word beyond which the model gives its unknown token without reading the rest.
///
/// `None` unless the model is WordPiece, no stage splits a run of letters, and no added token is made of letters alone.
pub(crate) fn longest_word(tokenizer: &Tokenizer) -> Option<usize> {
    use PreTokenizerWrapper as P;
    let ModelWrapper::WordPiece(model) = tokenizer.get_model() else { return None };
    let mut stages = Vec::new();
    flatten(tokenizer.get_pre_tokenizer()?, &mut stages);
    let keeps_letters = |stage: &&PreTokenizerWrapper| {
        matches!(
            stage,
            P::BertPreTokenizer(_)
                | P::Whitespace(_)
                | P::WhitespaceSplit(_)
                | P::ByteLevel(_)
                | P::Digits(_)
                | P::Punctuation(_)
        )
    };
    // lower case and decomposition may give marks, and GPT-2's expression splits at marks
    let bytes = stages.iter().any(|stage| matches!(stage, P::ByteLevel(_)));
    let normalizer = match tokenizer.get_normalizer() {
        None | Some(NormalizerWrapper::NFC(_)) => true,
        Some(NormalizerWrapper::BertNormalizer(_) | NormalizerWrapper::Lowercase(_)) => !bytes,
        Some(_) => false,
    };
    let letters = |text: &str| text.chars().all(|c| solid(c) && c.is_alphabetic());
    let added = tokenizer.get_added_tokens_decoder();
    let of_letters = added.values().any(|token| {
        letters(&token.content) || normalized(tokenizer, &token.content).is_none_or(|content| letters(&content))
    });
    let all = stages.iter().all(keeps_letters) && normalizer && !of_letters;
    all.then_some(model.max_input_chars_per_word)
}

fn added_tokens(tokenizer: &Tokenizer) -> bool {
    tokenizer.get_added_tokens_decoder().values().all(|token| {
        let found_as =
            if token.normalized { normalized(tokenizer, &token.content) } else { Some(token.content.clone()) };
        !token.rstrip && found_as.is_some_and(|content| stays_on_one_side(&content, token.single_word))
    })
}

/// True if no space follows another character, and, in a token that matches single words only, no space is at the start.
fn stays_on_one_side(content: &str, single_word: bool) -> bool {
    let crosses = content.chars().zip(content.chars().skip(1)).any(|(a, b)| !a.is_whitespace() && b == ' ');
    let checks_before = single_word && content.starts_with(' ');
    !(crosses || checks_before)
}

fn normalizer(stage: &NormalizerWrapper) -> bool {
    use NormalizerWrapper as N;
    match stage {
        N::BertNormalizer(_) | N::Lowercase(_) | N::StripAccents(_) => true,
        N::NFC(_) | N::NFD(_) | N::NFKC(_) | N::NFKD(_) => true,
        // maps graphemes and characters; a space is always a separate grapheme
        N::Precompiled(_) => true,
        N::StripNormalizer(strip) => !strip.strip_left,
        N::Replace(replace) => replaces_within(replace),
        N::Sequence(stages) => stages.as_ref().iter().all(normalizer),
        N::Nmt(_) | N::Prepend(_) | N::ByteLevel(_) => false,
    }
}

/// Expressions whose matches hold no solid character and never the single space between two of them, without
/// look-around: XLM-RoBERTa's runs of spaces, NorBERT4's line ends with the spaces before.
const WITHIN_SPACES: [&str; 4] = [" {2,}", "\n", "\\n", " *\n"];

fn replaces_within(replace: &Replace) -> bool {
    let Ok(json) = serde_json::to_value(replace) else { return false };
    let pattern = &json["pattern"];
    if let Some(expression) = pattern["Regex"].as_str() {
        return WITHIN_SPACES.contains(&expression);
    }
    // a string without a space is matched on one side; its replacement must not change the split
    pattern["String"].as_str().is_some_and(|text| !text.is_empty() && !text.contains(' '))
        && !replace.content.is_empty()
        && replace.content.chars().all(solid)
}

/// NorBERT4's expression. No alternative has a character other than white space before a space, so that a match ends at
/// every split. The alternatives cover every character, so that a match begins there. Only runs of white space look ahead,
/// and not over a split.
const NORBERT4: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn pre_tokenizer(whole: &PreTokenizerWrapper) -> bool {
    use PreTokenizerWrapper as P;
    let mut stages = Vec::new();
    flatten(whole, &mut stages);
    // these split around characters other than spaces; a later stage splits at spaces
    let before = stages.iter().take_while(|stage| matches!(stage, P::Digits(_) | P::Punctuation(_))).count();
    let Some((first, rest)) = stages[before..].split_first() else { return false };
    let splits_at_spaces = match first {
        P::BertPreTokenizer(_) | P::Whitespace(_) | P::WhitespaceSplit(_) => true,
        // GPT-2's expression: the proof is that of NorBERT4's
        P::ByteLevel(bytes) => bytes.use_regex,
        P::Metaspace(metaspace) => metaspace.get_split(),
        P::Split(split) => {
            split.behavior == SplitDelimiterBehavior::Isolated
                && !split.invert
                && split.pattern == SplitPattern::Regex(NORBERT4.to_owned())
        }
        _ => false,
    };
    // only this stage depends on the position of its part in the text
    let depends_on_place = |stage: &&PreTokenizerWrapper| match stage {
        P::Metaspace(metaspace) => metaspace.get_prepend_scheme() == PrependScheme::First,
        _ => false,
    };
    splits_at_spaces && !rest.iter().any(depends_on_place)
}

pub(crate) fn flatten<'a>(stage: &'a PreTokenizerWrapper, into: &mut Vec<&'a PreTokenizerWrapper>) {
    match stage {
        PreTokenizerWrapper::Sequence(stages) => stages.as_ref().iter().for_each(|stage| flatten(stage, into)),
        stage => into.push(stage),
    }
}

fn model(model: &ModelWrapper) -> bool {
    match model {
        ModelWrapper::BPE(bpe) => bpe.dropout.is_none_or(|dropout| dropout == 0.0),
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => true,
    }
}

fn normalized(tokenizer: &Tokenizer, text: &str) -> Option<String> {
    let mut text = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut text).ok()?;
    }
    Some(text.get().to_owned())
}

/// True if every solid character is normalized to text without a space at either end, on both sides of a split.
fn keeps_solid(tokenizer: &Tokenizer) -> bool {
    let Some(a) = normalized(tokenizer, "a") else { return false };
    ('!'..='ỿ').filter(|c| solid(*c)).all(|c| {
        let around = normalized(tokenizer, &format!("a {c} a"));
        let ends = |c: String| !c.is_empty() && c.trim() == c && around == Some(format!("{a} {c} {a}"));
        normalized(tokenizer, c.encode_utf8(&mut [0; 4])).is_some_and(ends)
    })
}

/// Test texts: stages that must not pass give other ids for the parts than for the whole.
const PROBES: [&str; 8] = [
    "hvor ble det av fjorden?",
    "Ærlig  talt ,  it's a don't-know\ttest 42 x2 2x",
    " foran og bak ",
    "é E\u{301} ½ ﬁ \u{301}a \u{a0}b c\u{a0} d \u{200b}e",
    "[MASK] a [MASK]b c[MASK] d <mask> e<mask> </s> f",
    "linje en \n linje to\n\nlinje tre\r\n fire",
    "東京 タワー x 東 y \u{0} z \u{fffd} æ",
    "▁a b▁ ▁ c Ġd Ġ e ##f ## g",
];

fn is_sum_of_pieces(tokenizer: &Tokenizer, text: &str) -> bool {
    let ids = |text: &str| tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec());
    let whole = ids(text);
    let parts: tokenizers::Result<Vec<Vec<u32>>> = pieces(text).map(ids).collect();
    // a refused text is refused whole too, and the plain path reports the reason
    match (whole, parts, tokenizer.get_truncation()) {
        (Ok(whole), Ok(parts), Some(truncation)) => {
            whole == parts.concat().into_iter().take(truncation.max_length).collect::<Vec<_>>()
        }
        (Ok(whole), Ok(parts), None) => whole == parts.concat(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tokenizer(changes: &[(&str, Value)]) -> Tokenizer {
        let mut json = json!({
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "hvor": 1}},
        });
        for (key, value) in changes {
            json[key] = value.clone();
        }
        Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    fn added(content: &str, changes: &[&str]) -> Value {
        let mut token = json!({"id": 2, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false});
        changes.iter().for_each(|key| token[key] = true.into());
        json!([token])
    }

    #[test]
    fn a_stage_that_may_differ_between_a_whole_and_its_parts_is_refused() {
        let replace = |key: &str, pattern: &str, content: &str| json!({"type": "Replace", "pattern": {key: pattern}, "content": content});
        let split = |pattern: &str, behavior: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false});
        let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": regex});
        let sequence = |stages: &[&Value]| json!({"type": "Sequence", "pretokenizers": stages});
        let bpe = |dropout: Value| json!({"type": "BPE", "dropout": dropout, "vocab": {"a": 0}, "merges": []});
        let whitespace = json!({"type": "WhitespaceSplit"});
        for (passes, key, value) in [
            (true, "normalizer", Value::Null),
            (true, "normalizer", json!({"type": "NFKC"})),
            (true, "normalizer", json!({"type": "Strip", "strip_left": false, "strip_right": true})),
            (false, "normalizer", json!({"type": "Strip", "strip_left": true, "strip_right": true})),
            (false, "normalizer", json!({"type": "Prepend", "prepend": "▁"})),
            (true, "normalizer", replace("Regex", " {2,}", "▁")),
            (true, "normalizer", replace("String", "``", "\"")),
            (false, "normalizer", replace("String", "``", "")),
            (false, "normalizer", replace("String", " ", "▁")),
            (false, "normalizer", replace("Regex", "\\s+", " ")),
            (true, "pre_tokenizer", json!({"type": "BertPreTokenizer"})),
            (false, "pre_tokenizer", Value::Null),
            (false, "pre_tokenizer", json!({"type": "Punctuation", "behavior": "Isolated"})),
            (true, "pre_tokenizer", bytes(true)),
            (false, "pre_tokenizer", bytes(false)),
            (true, "pre_tokenizer", metaspace("first", true)),
            (false, "pre_tokenizer", metaspace("always", false)),
            (true, "pre_tokenizer", sequence(&[&whitespace, &metaspace("always", false)])),
            (false, "pre_tokenizer", sequence(&[&whitespace, &metaspace("first", true)])),
            (true, "pre_tokenizer", sequence(&[&split(NORBERT4, "Isolated"), &bytes(false)])),
            (false, "pre_tokenizer", split(NORBERT4, "MergedWithNext")),
            (false, "pre_tokenizer", split("\\w+ \\w+", "Isolated")),
            (true, "model", bpe(Value::Null)),
            (false, "model", bpe(0.5.into())),
            (true, "added_tokens", added("<mask>", &["lstrip", "special"])),
            (false, "added_tokens", added("<mask>", &["rstrip", "special"])),
            (true, "added_tokens", added("   ", &["normalized"])),
            (false, "added_tokens", added("New York", &[])),
            (true, "added_tokens", added("York", &["single_word"])),
            (false, "added_tokens", added(" York", &["single_word"])),
        ] {
            let found = reads_word_by_word(&tokenizer(&[(key, value.clone())]));
            assert_eq!(found, passes, "{key}: {value}");
        }
    }
}
