//! [`Words`]: a cache of the token ids of words, which tokenizes texts.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use tokenizers::Tokenizer;

use crate::guard::guarded;

/// True for characters beside which a text may be split at a space: printable ASCII, and letters of scripts that write
/// words apart.
///
/// None of them is a mark or a space, or becomes one by a Unicode normalization form.
pub(crate) fn solid(c: char) -> bool {
    c.is_ascii_graphic()
        || matches!(c, 'À'..='ɏ' | '\u{386}'..='\u{481}' | '\u{48A}'..='\u{52F}' | 'Ḁ'..='ỿ') && c.is_alphabetic()
}

/// Splits a text before every space between two [`solid`] characters. A piece is a word with its punctuation; every piece
/// but the first begins with a space.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(next_split(rest));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// End of the first piece.
fn next_split(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_split = |&at: &usize| bytes[at] == b' ' && solid_before(text, at) && solid_after(text, at + 1);
    (1..bytes.len()).find(is_split).unwrap_or(bytes.len())
}

fn solid_before(text: &str, at: usize) -> bool {
    let last = text.as_bytes()[at - 1];
    if last.is_ascii() { last.is_ascii_graphic() } else { text[..at].chars().next_back().is_some_and(solid) }
}

fn solid_after(text: &str, at: usize) -> bool {
    match text.as_bytes().get(at) {
        Some(first) if first.is_ascii() => first.is_ascii_graphic(),
        Some(_) => text[at..].chars().next().is_some_and(solid),
        None => false,
    }
}

/// Number of words in the cache, and largest number of bytes and of ids of a word. The table takes 2.5 MiB; the full cache
/// takes about 10 MiB with usual words and at most 30 MiB.
const SLOTS: usize = 1 << 16;
const LONGEST: usize = 64;
/// Slots that are searched for a word: the cost of a word that a full table lacks.
const REACH: usize = 8;

/// Bytes from which a piece is tokenized by its prefix, and bytes of the longest prefix tried.
const LONG_PIECE: usize = 256 << 10;
/// Bytes that the tokenizer reads at once. It takes about 170 bytes of memory for each.
pub(crate) const LONGEST_AT_ONCE: usize = 4 << 20;

/// Cache of token ids by word.
///
/// Each slot is written once, so that reads take no lock. The cache keeps the first words: by Zipf's law, most of them are
/// frequent words.
pub(crate) struct Words {
    slots: OnceLock<Box<[OnceLock<Word>]>>,
    hasher: RandomState,
    /// letters of a word beyond which the model gives its unknown token; none without such a limit
    longest_word: Option<usize>,
    /// bytes of the longest added token
    longest_added: usize,
    /// the tokenizer without truncation, made at the first long piece
    untruncated: OnceLock<Box<Tokenizer>>,
}

struct Word {
    text: Box<str>,
    ids: Box<[u32]>,
}

impl Words {
    /// An empty cache; `longest_word` is that of [`longest_word`](crate::compositional::longest_word).
    pub(crate) fn new(tokenizer: &Tokenizer, longest_word: Option<usize>) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        Self {
            slots: OnceLock::new(),
            hasher: RandomState::new(),
            longest_word,
            longest_added: added.values().map(|token| token.content.len()).max().unwrap_or(0),
            untruncated: OnceLock::new(),
        }
    }

    /// Appends the ids of `text`, `limit` or more of them if there are so many.
    ///
    /// # Errors
    /// A piece that the tokenizer refuses. It may still accept the whole text if it truncates it before that piece.
    pub(crate) fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        limit: usize,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| OnceLock::new()).collect());
        for piece in pieces(text) {
            if ids.len() >= limit {
                break;
            }
            if piece.len() > LONG_PIECE {
                ids.extend(self.long_piece(tokenizer, piece, limit - ids.len())?);
                continue;
            }
            match self.look_up(slots, piece) {
                Ok(known) => ids.extend_from_slice(known),
                Err(free) => {
                    let encoding = guarded(|| tokenizer.encode_fast(piece, false))??;
                    let found = encoding.get_ids();
                    ids.extend_from_slice(found);
                    // ids up to the tokenizer's limit may be truncated ids
                    if let Some(free) = free.filter(|_| found.len() < limit.min(LONGEST)) {
                        // another thread may have filled the slot
                        let _ = free.set(Word { text: piece.into(), ids: found.into() });
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the ids of a piece, or the slot it may have.
    fn look_up<'a>(&self, slots: &'a [OnceLock<Word>], piece: &str) -> Result<&'a [u32], Option<&'a OnceLock<Word>>> {
        if piece.len() > LONGEST {
            return Err(None);
        }
        let first = self.hasher.hash_one(piece) as usize;
        for step in 0..REACH {
            let slot = &slots[first.wrapping_add(step) % SLOTS];
            match slot.get() {
                Some(word) if *word.text == *piece => return Ok(&word.ids),
                Some(_) => {}
                None => return Err(Some(slot)),
            }
        }
        Err(None)
    }

    /// The ids of a piece of any length, `needed` or more of them if there are so many, in bounded memory.
    fn long_piece(&self, tokenizer: &Tokenizer, piece: &str, needed: usize) -> tokenizers::Result<Vec<u32>> {
        let piece = match self.longest_word {
            Some(longest) => shorten_words(piece, longest.max(self.longest_added)),
            None => Cow::Borrowed(piece),
        };
        let untruncated = self.untruncated.get_or_init(|| {
            let mut tokenizer = tokenizer.clone();
            // switching truncation off cannot fail
            let _ = tokenizer.with_truncation(None);
            Box::new(tokenizer)
        });
        prefix_ids(untruncated, &piece, needed, self.longest_added, LONG_PIECE..=LONGEST_AT_ONCE)
    }
}

/// Removes the middle of words of more than twice `longest` letters, and keeps `longest` letters at each end.
///
/// The model gives one unknown token for the whole word and for the shortened word. Every added token has a character that
/// is not a letter here, so that none lies in the removed middle, and those at the ends are still found.
fn shorten_words(text: &str, longest: usize) -> Cow<'_, str> {
    let letter = |c: char| solid(c) && c.is_alphabetic();
    let mut short = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(start) = text[at..].find(letter) {
        let start = at + start;
        let end = text[start..].find(|c| !letter(c)).map_or(text.len(), |length| start + length);
        let word = &text[start..end];
        let head = word.char_indices().nth(longest).map(|(byte, _)| byte);
        let tail = word.char_indices().rev().nth(longest.saturating_sub(1)).map(|(byte, _)| byte);
        if let (Some(head), Some(tail)) = (head, tail)
            && head < tail
        {
            short.push_str(&text[copied..start + head]);
            copied = start + tail;
        }
        at = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    short.push_str(&text[copied..]);
    Cow::Owned(short)
}

/// The first `needed` ids of `text` by the shortest of a few prefixes that decides them, or all ids if the text is
/// short enough to be read whole.
///
/// A prefix decides the tokens of its words except the last two and those that an added token across its end may cover.
/// The normalizers and pre-tokenizers accepted here depend on the current run of characters and one character after it, and
/// models process one word at a time.
fn prefix_ids(
    untruncated: &Tokenizer,
    text: &str,
    needed: usize,
    longest_added: usize,
    bytes: std::ops::RangeInclusive<usize>,
) -> tokenizers::Result<Vec<u32>> {
    let mut length = *bytes.start();
    while length < text.len() {
        if length > *bytes.end() {
            return Err(format!("{} bytes without a place to split them", text.len()).into());
        }
        let end = (0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let encoding = guarded(|| untruncated.encode(&text[..end], false))??;
        let words = encoding.get_word_ids();
        let last = words.iter().rev().find_map(|word| *word).unwrap_or(0);
        let margin = end.saturating_sub(longest_added + MARGIN);
        let decided = words
            .iter()
            .zip(encoding.get_offsets())
            .take_while(|(word, (_, token_end))| word.is_some_and(|word| word + 1 < last) && *token_end <= margin);
        if decided.count() >= needed {
            return Ok(encoding.get_ids()[..needed].to_vec());
        }
        length *= 4;
    }
    if text.len() > *bytes.end() {
        return Err(format!("{} bytes without a place to split them", text.len()).into());
    }
    Ok(guarded(|| untruncated.encode_fast(text, false))??.get_ids().to_vec())
}

/// Bytes before the end of a prefix whose tokens are discarded, beside those of an added token: a grapheme with its marks.
const MARGIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_split_where_it_is_safe_and_lose_nothing() {
        for (text, expected) in [
            ("", &[][..]),
            ("hei", &["hei"]),
            ("hva er, (det) å", &["hva", " er,", " (det)", " å"]),
            (" a b ", &[" a", " b "]),
            ("a  b c", &["a  b", " c"]),
            ("a\u{a0} b \u{301}c d", &["a\u{a0} b \u{301}c", " d"]),
            ("東 京 x", &["東 京 x"]),
            ("a\tb\n c d", &["a\tb\n c", " d"]),
            (" ", &[" "]),
        ] {
            let found: Vec<&str> = pieces(text).collect();
            assert_eq!(found, expected, "{text:?}");
            assert_eq!(found.concat(), text);
        }
    }

    /// Prefixes of a few dozen bytes, so that every kind of boundary is met.
    #[test]
    fn a_prefix_decides_the_ids_that_the_whole_text_gives() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
        let parts = [
            "fjord",
            "å\u{30a}",
            ",",
            " ",
            "\n",
            "\t",
            "東",
            "(",
            "42",
            "E\u{301}",
            "[MASK]",
            "<mask>",
            "xyzxyz",
            "ﬁ",
            "\u{ad}",
        ];
        let mut state = 7_u64;
        let mut next = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (mut compared, mut refused) = (0, 0);
        for model in ["bert-tiny", "roberta-tiny", "xlmr-tiny", "norbert3-tiny", "norbert4-tiny", "modernbert-tiny"] {
            let json = std::fs::read(format!("{models}/{model}/tokenizer.json")).unwrap();
            let tokenizer = Tokenizer::from_bytes(json).unwrap();
            let words = Words::new(&tokenizer, None);
            for _ in 0..300 {
                let text: String = (0..20 + next(200)).map(|_| parts[next(parts.len())]).collect();
                let whole = tokenizer.encode_fast(text.as_str(), false).unwrap();
                let needed = 1 + next(40);
                match prefix_ids(&tokenizer, &text, needed, words.longest_added, 96..=1000) {
                    Ok(ids) => {
                        let (ids, whole) = (ids.iter().take(needed), whole.get_ids().iter().take(needed));
                        assert!(ids.eq(whole), "{model}: {text:?}");
                        compared += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(compared > 1000 && refused < 600, "{compared} compared, {refused} refused");
    }

    #[test]
    fn shortened_words_give_the_same_ids() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
        for model in ["bert-tiny", "norbert3-tiny"] {
            let json = std::fs::read(format!("{models}/{model}/tokenizer.json")).unwrap();
            let tokenizer = Tokenizer::from_bytes(json).unwrap();
            let longest = crate::compositional::longest_word(&tokenizer).unwrap();
            let long = "åx".repeat(400);
            let text = format!("{long}[MASK]{long}, {long}9{long} fjord {long}<ent> {long}");
            let short = shorten_words(&text, longest);
            assert!(short.len() < text.len() / 2);
            let ids = |text: &str| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
            assert_eq!(ids(&text), ids(&short), "{model}");
        }
    }

    #[test]
    fn words_are_shortened_in_their_middle_only() {
        for (text, expected) in [
            ("abcdef", "abcdef"),
            ("abcdefg", "abcefg"),
            ("abcdefgh", "abcfgh"),
            ("x abcdefghij, 1234567890 æøåæøåæøå-klmnopqrst", "x abchij, 1234567890 æøåæøå-klmrst"),
            ("abcdef ghijklmn", "abcdef ghilmn"),
            ("", ""),
        ] {
            assert_eq!(shorten_words(text, 3), expected, "{text:?}");
        }
    }

    #[test]
    fn solid_characters_are_letters_or_print() {
        let all: Vec<char> = (char::MIN..=char::MAX).filter(|c| solid(*c)).collect();
        assert!(all.len() > 1000 && all.iter().all(|c| !c.is_whitespace() && !c.is_control()));
        for c in ['x', '7', '(', 'å', 'Ø', 'ß', 'ǅ', 'Я', 'ω', 'ế'] {
            assert!(solid(c), "{c}");
        }
        for c in [' ', '\u{a0}', '\u{301}', '\u{37a}', '東', '×', '▁', '\u{200b}', '\0', '\u{483}'] {
            assert!(!solid(c), "{c:?}");
        }
    }
}
