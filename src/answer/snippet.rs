//! [`Snippet`]: the part of a text that shows best why it was found.

use std::ops::Range;

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

use super::matches::{Key, MetWord};

/// Weight of a repeated word, compared with its first occurrence in a snippet.
const REPEATED: f32 = 0.05;

/// Part of a text with the words that were met. Every end is a grapheme boundary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snippet {
    /// bytes of the text
    pub(crate) range: Range<usize>,
    /// marked words in their order, apart from each other
    pub(crate) marks: Vec<Mark>,
}

/// Marked word.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    /// bytes of the text
    pub(crate) range: Range<usize>,
    /// true if the query's vector has the term, but not the query's text
    pub(crate) expansion: bool,
}

/// The best `count` parts of a text, of at most `length` characters each, in the order of the text.
///
/// A part is good if it has many different words with large shares of the score. It begins at a sentence if one is near, and
/// it is the beginning of the text if no word was met. Parts that touch are joined.
pub(crate) fn snippets(text: &str, met: &[MetWord], length: usize, count: usize) -> Vec<Snippet> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut left: Vec<&MetWord> = met.iter().collect();
    while ranges.len() < count {
        let Some(core) = best_window(text, &left, length) else { break };
        let range = with_context(text, core, length);
        left.retain(|word| word.range.end <= range.start || word.range.start >= range.end);
        ranges.push(range);
    }
    if ranges.is_empty() && count > 0 {
        ranges.push(with_context(text, 0..0, length));
    }
    ranges.sort_by_key(|range| range.start);
    joined(ranges).into_iter().map(|range| Snippet { marks: marks(text, met, &range), range }).collect()
}

/// The marks of a text in a range of it.
pub(crate) fn marks(text: &str, met: &[MetWord], range: &Range<usize>) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for word in met {
        let start = floor(text, word.range.start).max(range.start);
        let end = ceil(text, word.range.end).min(range.end);
        let start = marks.last().map_or(start, |last| start.max(last.range.end));
        if start < end {
            marks.push(Mark { range: start..end, expansion: word.expansion });
        }
    }
    marks
}

/// Joins ranges that overlap or touch.
fn joined(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

/// From the first to the last word of the best window; of equal windows the first.
fn best_window(text: &str, words: &[&MetWord], length: usize) -> Option<Range<usize>> {
    let mut best: Option<(f32, Range<usize>)> = None;
    for (first, word) in words.iter().enumerate() {
        let mut keys: Vec<&Key> = Vec::new();
        let (mut value, mut end, mut characters) = (0.0, word.range.start, 0);
        for next in &words[first..] {
            characters += text[end..next.range.end.max(end)].chars().count();
            if characters > length && end > word.range.start {
                break;
            }
            let is_new = !keys.contains(&&next.key);
            value += next.share * if is_new { 1.0 } else { REPEATED };
            if is_new {
                keys.push(&next.key);
            }
            end = next.range.end.max(end);
        }
        if best.as_ref().is_none_or(|(other, _)| value > *other) {
            best = Some((value, word.range.start..end));
        }
    }
    best.map(|(_, range)| range)
}

/// Enlarges a range of words to `length` characters of whole words, from the start of a sentence if one is near.
fn with_context(text: &str, core: Range<usize>, length: usize) -> Range<usize> {
    let characters = text[core.clone()].chars().count();
    if characters >= length {
        // a word longer than the snippet
        let start = floor(text, core.start);
        return start..floor(text, forward(text, start, length)).max(start);
    }
    let start = start_before(text, core.start, length - characters);
    let limit = forward(text, start, length);
    let end = end_after(text, core.end, limit);
    let trimmed = text[start..end].trim_start();
    let start = end - trimmed.len();
    floor(text, start)..ceil(text, start + trimmed.trim_end().len()).max(floor(text, start))
}

/// Start of a snippet at most `room` characters before `at`: the text's, else that of the nearest sentence, else that of a word in
/// the middle of the room.
fn start_before(text: &str, at: usize, room: usize) -> usize {
    let lowest = backward(text, at, room);
    if lowest == 0 {
        return 0;
    }
    let lowest = ceil(text, lowest).min(at);
    // one character more shows whether a sentence begins at `at` itself
    let after = forward(text, at, 1);
    let sentences = text[lowest..after].split_sentence_bound_indices().skip(1).map(|(start, _)| lowest + start);
    if let Some(sentence) = sentences.take_while(|start| *start <= at).last() {
        return sentence;
    }
    let middle = ceil(text, backward(text, at, room / 2)).min(at);
    let words = text[middle..at].split_word_bound_indices().filter(|(_, word)| !word.trim().is_empty());
    // the first one may be the rest of a word
    let is_start = text[..middle].ends_with(char::is_whitespace);
    words.map(|(start, _)| middle + start).nth(usize::from(!is_start)).unwrap_or(at)
}

/// End of a snippet between `at` and `limit`, at the end of a word if there is one.
fn end_after(text: &str, at: usize, limit: usize) -> usize {
    let limit = floor(text, limit).max(at);
    if limit == text.len() || text[limit..].starts_with(char::is_whitespace) {
        return limit;
    }
    let last = text[at..limit].split_word_bound_indices().next_back().map_or(at, |(start, _)| at + start);
    if last > at { last } else { limit }
}

/// Position `count` characters after `at`, or the end.
fn forward(text: &str, at: usize, count: usize) -> usize {
    text[at..].char_indices().nth(count).map_or(text.len(), |(offset, _)| at + offset)
}

/// Position `count` characters before `at`, or the start.
fn backward(text: &str, at: usize, count: usize) -> usize {
    match count {
        0 => at,
        _ => text[..at].char_indices().nth_back(count - 1).map_or(0, |(offset, _)| offset),
    }
}

/// The last grapheme boundary up to `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let mut cursor = GraphemeCursor::new(at, text.len(), true);
    // with the whole text as one chunk, a cursor needs no other
    match cursor.is_boundary(text, 0) {
        Ok(true) => at,
        _ => cursor.prev_boundary(text, 0).ok().flatten().unwrap_or(0),
    }
}

/// The first grapheme boundary from `at` on.
fn ceil(text: &str, at: usize) -> usize {
    let at = (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let mut cursor = GraphemeCursor::new(at, text.len(), true);
    match cursor.is_boundary(text, 0) {
        Ok(true) => at,
        _ => cursor.next_boundary(text, 0).ok().flatten().unwrap_or(text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every occurrence of the words in `text`, the first word with the largest share.
    fn met(text: &str, words: &[&str]) -> Vec<MetWord> {
        let share = |at: usize| 1.0 / (at as f32 + 1.0);
        let find = |(at, word): (usize, &&str)| -> Vec<MetWord> {
            let found = text.match_indices(*word);
            let key = Key::Term(at as u32);
            found
                .map(|(start, _)| MetWord {
                    range: start..start + word.len(),
                    key: key.clone(),
                    share: share(at),
                    expansion: at % 2 == 1,
                })
                .collect()
        };
        let mut all: Vec<MetWord> = words.iter().enumerate().flat_map(find).collect();
        all.sort_by_key(|word| word.range.start);
        all
    }

    fn shown(text: &str, words: &[&str], length: usize, count: usize) -> Vec<String> {
        snippets(text, &met(text, words), length, count)
            .iter()
            .map(|snippet| text[snippet.range.clone()].to_owned())
            .collect()
    }

    #[test]
    fn a_snippet_has_the_words_with_the_largest_shares() {
        let text = "Ingenting her. Bare fyll og mer fyll til setningen er lang nok. Fisken svømmer i fjorden. Så mer fyll, \
                    og enda mer fyll. Fisken sover.";
        assert_eq!(shown(text, &["Fisken", "fjorden"], 30, 1), ["Fisken svømmer i fjorden. Så"]);
        assert_eq!(shown(text, &["Fisken", "fjorden"], 30, 2), ["Fisken svømmer i fjorden. Så", "Fisken sover."]);
        assert_eq!(shown(text, &["sover"], 30, 1), ["Fisken sover."]);
        assert_eq!(shown(text, &["ukjent"], 14, 1), ["Ingenting her."]);
        assert_eq!(shown(text, &["Fisken"], 30, 0), Vec::<String>::new());
        assert_eq!(shown("kort", &["kort"], 30, 3), ["kort"]);
        assert_eq!(shown("", &[], 30, 1), [""]);
        let marks = &snippets(text, &met(text, &["Fisken", "fjorden"]), 30, 1)[0].marks;
        let marked: Vec<(&str, bool)> = marks.iter().map(|mark| (&text[mark.range.clone()], mark.expansion)).collect();
        assert_eq!(marked, [("Fisken", false), ("fjorden", true)]);
    }

    #[test]
    fn a_word_longer_than_the_snippet_is_cut() {
        let long = "å".repeat(50);
        let text = format!("før {long} etter");
        assert_eq!(shown(&text, &[&long], 10, 1), ["å".repeat(10)]);
    }

    #[test]
    fn scripts_without_spaces_and_from_right_to_left_are_cut_at_graphemes() {
        for text in [
            "日本語の文章はとても長いので途中で切れます。魚が泳ぐ。".repeat(5),
            "שלום עולם זה משפט ארוך מאוד עם דג אחד בתוך הטקסט ".repeat(5),
            "e\u{301}e\u{301}e\u{301} 👨‍👩‍👧‍👦👨‍👩‍👧‍👦 नमस्ते दुनिया ग्रन्थ किताब ".repeat(9),
            "🇳🇴🇸🇪🇩🇰".repeat(40),
        ] {
            let word: String = text.chars().skip(60).take(3).collect();
            for length in 1..40 {
                check(&text, &met(&text, &[&word]), length, 2);
            }
        }
    }

    #[track_caller]
    fn check(text: &str, met: &[MetWord], length: usize, count: usize) {
        let boundaries: std::collections::HashSet<usize> =
            text.grapheme_indices(true).map(|(at, _)| at).chain([text.len()]).collect();
        let found = snippets(text, met, length, count);
        assert!(found.len() == 1 || found.len() <= count);
        assert!(found.is_sorted_by(|a, b| a.range.end < b.range.start));
        for snippet in &found {
            let ends = |range: &Range<usize>| boundaries.contains(&range.start) && boundaries.contains(&range.end);
            assert!(ends(&snippet.range), "{snippet:?}");
            assert!(snippet.marks.iter().all(|mark| ends(&mark.range)), "{snippet:?}");
            let inside = |mark: &Mark| mark.range.start >= snippet.range.start && mark.range.end <= snippet.range.end;
            assert!(snippet.marks.iter().all(inside), "{snippet:?}");
            assert!(snippet.marks.is_sorted_by(|a, b| a.range.end <= b.range.start), "{snippet:?}");
            if found.len() == 1 && count == 1 {
                // a grapheme that begins inside may be longer than the room
                assert!(text[snippet.range.clone()].chars().count() <= length + 8, "{snippet:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_at_graphemes(
            text in "[a-zåøæ .!?\n\u{301}\u{200d}\u{600}👨👩🇳🇴한글ᄀ가각नमस्ते日本שלום]{0,80}",
            from in 0_usize..80, size in 1_usize..6, length in 1_usize..60, count in 0_usize..4,
        ) {
            let word: String = text.chars().skip(from).take(size).collect();
            let met = if word.is_empty() { Vec::new() } else { met(&text, &[&word]) };
            check(&text, &met, length, count);
        }
    }
}
