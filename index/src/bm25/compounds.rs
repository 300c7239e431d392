//! [`Compounds`]: the words of an index that are made of two others.
//!
//! Norwegian, Danish and Swedish write compounds as one word: `passordbeskyttelse`. A query for `passord` then misses the
//! document, and one for the compound misses documents about `beskyttelse av passord`. The rule is that of Koehn and Knight
//! (EACL 2003): a word is split where the geometric mean of its parts' document frequencies is largest, if that is larger than
//! its own. The first part may end in the joint `s` (`arbeids|miljø`) and is compared in its stemmed form, since the index has
//! stemmed words. Words are split when queries are answered, so the words of the last commit count, and every index will do.

use std::collections::HashMap;

use rayon::prelude::*;
use tantivy::schema::Field;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{TantivyError, Term};

use super::scorer::Group;
use crate::Result;

/// Least number of characters of a part.
const SHORTEST_PART: usize = 3;
/// Letter between two parts.
const JOINT: char = 's';
/// Largest number of compounds that count for one word: the most frequent ones. More would make a query slow.
const MOST_COMPOUNDS: usize = 1000;

/// Words of a snapshot, and the compounds that they are a part of.
pub(crate) struct Compounds {
    words: Words,
    /// compounds of each part, the most frequent first
    compounds_of: HashMap<String, Vec<String>>,
}

/// Words of a snapshot with their document frequencies.
struct Words {
    documents: HashMap<String, u64>,
    stemmer: TextAnalyzer,
}

impl Compounds {
    /// Splits all words of the field. `analyzer` is the field's own.
    pub(crate) fn of(searcher: &tantivy::Searcher, field: Field, analyzer: &TextAnalyzer) -> Result<Self> {
        let mut documents: HashMap<String, u64> = HashMap::new();
        for reader in searcher.segment_readers() {
            let inverted = reader.inverted_index(field)?;
            let mut stream = inverted.terms().stream().map_err(TantivyError::from)?;
            while stream.advance() {
                if let Some(word) = std::str::from_utf8(stream.key()).ok().filter(|word| is_word(word)) {
                    *documents.entry(word.to_owned()).or_default() += u64::from(stream.value().doc_freq);
                }
            }
        }
        Ok(Self::among(Words { documents, stemmer: analyzer.clone() }))
    }

    fn among(words: Words) -> Self {
        let all: Vec<(&String, u64)> = words.documents.iter().map(|(word, df)| (word, *df)).collect();
        let split = |(word, df): (&String, u64)| Some((word.clone(), df, words.split(word)?));
        let mut found: Vec<(String, u64, [String; 2])> = all.into_par_iter().filter_map(split).collect();
        // the order of a hash map is random
        found.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut compounds_of: HashMap<String, Vec<String>> = HashMap::new();
        for (compound, _, [first, second]) in found {
            if first != second {
                push_bounded(compounds_of.entry(second).or_default(), &compound);
            }
            push_bounded(compounds_of.entry(first).or_default(), &compound);
        }
        Self { words, compounds_of }
    }

    /// Groups of a query's words: each with its compounds, then the parts of the words that are compounds.
    pub(super) fn groups(&self, words: &[Term], field: Field, part_weight: f32) -> Vec<Group> {
        let texts: Vec<String> = words.iter().filter_map(|word| word.value().as_str().map(String::from)).collect();
        let mut weighted: Vec<(String, f32)> = texts.iter().map(|word| (word.clone(), 1.0)).collect();
        for word in texts.iter().filter(|word| is_word(word)) {
            for part in self.words.split(word).into_iter().flatten() {
                if !weighted.iter().any(|(word, _)| *word == part) {
                    weighted.push((part, part_weight));
                }
            }
        }
        let term = |word: &String| Term::from_field_text(field, word);
        let group = |(word, weight): (String, f32)| {
            let compounds = self.compounds_of.get(&word).map_or(&[][..], Vec::as_slice);
            Group { weight, words: std::iter::once(&word).chain(compounds).map(term).collect() }
        };
        weighted.into_iter().map(group).collect()
    }
}

fn push_bounded(compounds: &mut Vec<String>, compound: &str) {
    if compounds.len() < MOST_COMPOUNDS {
        compounds.push(compound.to_owned());
    }
}

/// True for a text of letters alone.
fn is_word(text: &str) -> bool {
    text.chars().all(char::is_alphabetic)
}

impl Words {
    fn df(&self, word: &str) -> u64 {
        self.documents.get(word).copied().unwrap_or_default()
    }

    /// The two parts of a word, as words of the index; none if it is no compound.
    fn split(&self, word: &str) -> Option<[String; 2]> {
        let starts: Vec<usize> = word.char_indices().map(|(at, _)| at).collect();
        let mut best = (self.df(word) as f64, None);
        for &at in starts.get(SHORTEST_PART..starts.len().saturating_sub(SHORTEST_PART) + 1).unwrap_or_default() {
            let (head, tail) = word.split_at(at);
            let tail_df = self.df(tail);
            if tail_df == 0 {
                continue;
            }
            let Some((first, first_df)) = self.first_part(head) else { continue };
            let mean = (first_df as f64 * tail_df as f64).sqrt();
            if mean > best.0 {
                best = (mean, Some([first, tail.to_owned()]));
            }
        }
        best.1
    }

    /// The word of the index that `head`, the start of a compound, stands for: the most frequent of `head` and its stem, with
    /// and without a final joint.
    fn first_part(&self, head: &str) -> Option<(String, u64)> {
        let bare = head.strip_suffix(JOINT).filter(|bare| bare.chars().count() >= SHORTEST_PART);
        let forms = std::iter::once(head).chain(bare);
        let words = forms.flat_map(|form| [form.to_owned(), self.stem(form)]);
        let known = words.filter(|word| word.chars().count() >= SHORTEST_PART).map(|word| (self.df(&word), word));
        known.filter(|(df, _)| *df > 0).max().map(|(df, word)| (word, df))
    }

    fn stem(&self, word: &str) -> String {
        let mut stemmer = self.stemmer.clone();
        let mut stream = stemmer.token_stream(word);
        stream.next().map_or_else(String::new, |token| token.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyzer::analyzer;
    use crate::{AnalyzerVersion, Language};

    fn compounds(words: &[(&str, u64)]) -> Compounds {
        let documents = words.iter().map(|&(word, df)| (word.to_owned(), df)).collect();
        Compounds::among(Words { documents, stemmer: analyzer(Language::Norwegian, AnalyzerVersion::NEWEST) })
    }

    #[test]
    fn words_are_split_where_their_parts_are_most_frequent() {
        let compounds = compounds(&[
            ("passord", 40),
            ("beskyttels", 30),
            ("passordbeskyttels", 2),
            ("arbeid", 50),
            ("miljø", 20),
            ("arbeidsmiljø", 9),
            ("kvinn", 8),
            ("beveg", 9),
            ("kvinnebeveg", 1),
            ("fisk", 5),
            ("fiskesuppe", 9),
            ("suppe", 2),
            ("av", 900),
            ("avtal", 10),
            ("tal", 40),
        ]);
        let split = |word: &str| compounds.words.split(word).map(|[first, second]| format!("{first}|{second}"));
        for (word, expected) in [
            ("passordbeskyttels", Some("passord|beskyttels")),
            ("arbeidsmiljø", Some("arbeid|miljø")),
            ("kvinnebeveg", Some("kvinn|beveg")),
            ("passordmiljø", Some("passord|miljø")),
            ("fiskesuppe", None),
            ("avtal", None),
            ("passord", None),
            ("så", None),
            ("", None),
        ] {
            assert_eq!(split(word).as_deref(), expected, "{word}");
        }
        assert_eq!(compounds.compounds_of["passord"], ["passordbeskyttels"]);
        assert_eq!(compounds.compounds_of["miljø"], ["arbeidsmiljø"]);
    }

    #[test]
    fn the_most_frequent_compounds_come_first_and_their_number_is_bounded() {
        let letters = |n: u64| ["a", "b", "d"].map(String::from)[n as usize % 3].clone();
        let name = |n: u64| (0..12).map(|place| letters(n / 3_u64.pow(place))).collect::<String>();
        let mut words: Vec<(String, u64)> = vec![("fjord".into(), 1_000_000)];
        for n in 0..1200 {
            words.push((name(n), 100));
            words.push((format!("fjord{}", name(n)), n % 50));
        }
        let words: Vec<(&str, u64)> = words.iter().map(|(word, df)| (word.as_str(), *df)).collect();
        let compounds = compounds(&words);
        let of_fjord = &compounds.compounds_of["fjord"];
        assert_eq!(of_fjord.len(), MOST_COMPOUNDS);
        assert!(of_fjord.iter().map(|word| compounds.words.df(word)).is_sorted_by(|a, b| a >= b));
    }
}
