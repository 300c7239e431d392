//! [`Words`]: the token ids of words seen before, so that most texts need no tokenizer.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use tokenizers::Tokenizer;

use crate::compositional::solid;
use crate::guard::guarded;

/// A text in pieces, cut before every space between two [`solid`] characters: words with what sticks to them, each but
/// the first with the space before it.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(next_cut(rest));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The end of the first piece.
fn next_cut(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_cut = |&at: &usize| bytes[at] == b' ' && solid_before(text, at) && solid_after(text, at + 1);
    (1..bytes.len()).find(is_cut).unwrap_or(bytes.len())
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

/// Words remembered, and how long one may be, in bytes and in ids: 2.5 MiB of table, some 10 MiB when it is full of
/// usual words, 30 MiB at the very most.
const SLOTS: usize = 1 << 16;
const LONGEST: usize = 64;
/// How many slots a word may look at. With a full table, that is what a word costs that has no place.
const REACH: usize = 8;

/// Token ids by word, filled by the tokenizer itself.
///
/// A slot is written once and never again: reading takes no lock and threads never wait for each other. Words are kept
/// first come, first kept; word frequencies follow Zipf's law, so the first are the frequent ones.
#[derive(Default)]
pub(crate) struct Words {
    slots: OnceLock<Box<[OnceLock<Word>]>>,
    hasher: RandomState,
}

struct Word {
    text: Box<str>,
    ids: Box<[u32]>,
}

impl Words {
    /// Appends the ids of `text`, `limit` or more of them if there are so many.
    ///
    /// # Errors
    /// A piece that the tokenizer refuses; the text as a whole may still be one it takes, where it is cut before.
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
            match self.look_up(slots, piece) {
                Ok(known) => ids.extend_from_slice(known),
                Err(free) => {
                    let encoding = guarded(|| tokenizer.encode_fast(piece, false))??;
                    let found = encoding.get_ids();
                    ids.extend_from_slice(found);
                    // what reaches the tokenizer's own limit may be cut
                    if let Some(free) = free.filter(|_| found.len() < limit.min(LONGEST)) {
                        // another thread may have been first
                        let _ = free.set(Word { text: piece.into(), ids: found.into() });
                    }
                }
            }
        }
        Ok(())
    }

    /// The ids of a piece, or the slot it may have.
    fn look_up<'a>(&self, slots: &'a [OnceLock<Word>], piece: &str) -> Result<&'a [u32], Option<&'a OnceLock<Word>>> {
        if piece.len() > LONGEST {
            return Err(None);
        }
        let home = self.hasher.hash_one(piece) as usize;
        for step in 0..REACH {
            let slot = &slots[home.wrapping_add(step) % SLOTS];
            match slot.get() {
                Some(word) if *word.text == *piece => return Ok(&word.ids),
                Some(_) => {}
                None => return Err(Some(slot)),
            }
        }
        Err(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_where_it_is_safe_and_lose_nothing() {
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
}
