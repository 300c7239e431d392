//! The analyzer of BM25 splits documents, queries and phrases into words.
//!
//! Texts are normalized first ([`normalize`]). Words are runs of letters, digits and marks. The [`Language`] of the index selects
//! the stemmer.

use std::borrow::Cow;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};
use serde::{Deserialize, Serialize};
use tantivy::schema::Field;
use tantivy::tokenizer::{
    Language as Snowball, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer, Token,
    TokenStream, Tokenizer,
};
use tantivy::{Index, Term};

use crate::{Error, Result};

/// Language of the Snowball stemmer of BM25, for documents and queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Language {
    /// no stemming
    #[default]
    None,
    /// Norwegian (Snowball's stemmer is for Bokmål; it removes most Nynorsk endings too)
    Norwegian,
    /// Danish
    Danish,
    /// Swedish
    Swedish,
    /// English
    English,
}

impl Language {
    /// All languages.
    pub const ALL: [Self; 5] = [Self::None, Self::Norwegian, Self::Danish, Self::Swedish, Self::English];

    /// Name in lower case, as [`Display`](std::fmt::Display) and [`FromStr`](std::str::FromStr) use it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Norwegian => "norwegian",
            Self::Danish => "danish",
            Self::Swedish => "swedish",
            Self::English => "english",
        }
    }

    /// True if compounds are written as one word, so that BM25 gains from their parts.
    #[must_use]
    pub fn joins_compounds(self) -> bool {
        matches!(self, Self::Norwegian | Self::Danish | Self::Swedish)
    }

    /// Codes of ISO 639 that [`FromStr`](std::str::FromStr) takes for the name.
    fn codes(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Norwegian => &["nb", "nn", "no"],
            Self::Danish => &["da"],
            Self::Swedish => &["sv"],
            Self::English => &["en"],
        }
    }

    /// Stop words: Snowball's lists for Norwegian (both written forms), Danish and Swedish, Lucene's for English.
    pub(crate) fn stop_words(self) -> Option<StopWordFilter> {
        self.snowball().and_then(StopWordFilter::new)
    }

    fn snowball(self) -> Option<Snowball> {
        match self {
            Self::None => None,
            Self::Norwegian => Some(Snowball::Norwegian),
            Self::Danish => Some(Snowball::Danish),
            Self::Swedish => Some(Snowball::Swedish),
            Self::English => Some(Snowball::English),
        }
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Language {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let is_named = |language: &Self| language.name() == name || language.codes().contains(&name);
        Self::ALL.into_iter().find(is_named).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("no stemmer for the language {name:?}"), format!("one of {names}"))
        })
    }
}

/// Version of the rules that split texts into words. An index keeps the version that it was created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[non_exhaustive]
pub enum AnalyzerVersion {
    /// runs of letters and digits, each code point in lower case; for indexes that state no version
    V1,
    /// runs of letters, digits and marks in normalized texts
    V2,
}

impl AnalyzerVersion {
    /// Version of new indexes.
    pub const NEWEST: Self = Self::V2;

    /// Version of an index whose manifest states none.
    pub(crate) fn of_old_indexes() -> Self {
        Self::V1
    }
}

impl From<AnalyzerVersion> for u32 {
    fn from(version: AnalyzerVersion) -> Self {
        match version {
            AnalyzerVersion::V1 => 1,
            AnalyzerVersion::V2 => 2,
        }
    }
}

impl TryFrom<u32> for AnalyzerVersion {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(format!("version {number} of the BM25 analyzer is not known: the index is of a newer program")),
        }
    }
}

/// Largest length of a word in bytes. Longer words are ignored.
const LONGEST_WORD: usize = 255;

/// Name of the analyzer in the schema.
pub(crate) fn analyzer_name(language: Language, version: AnalyzerVersion) -> String {
    match version {
        AnalyzerVersion::V1 => format!("splade_{language}"),
        AnalyzerVersion::V2 => format!("splade2_{language}"),
    }
}

/// The analyzer of an index.
pub(crate) fn analyzer(language: Language, version: AnalyzerVersion) -> TextAnalyzer {
    let long = RemoveLongFilter::limit(LONGEST_WORD);
    let words = match version {
        AnalyzerVersion::V1 => {
            TextAnalyzer::builder(SimpleTokenizer::default()).filter(long).filter(LowerCaser).dynamic()
        }
        AnalyzerVersion::V2 => TextAnalyzer::builder(NormalizedWords::default()).filter(long).dynamic(),
    };
    match language.snowball() {
        Some(snowball) => words.filter_dynamic(Stemmer::new(snowball)).build(),
        None => words.build(),
    }
}

/// Analyzer of normalized words that are not stemmed, without those of a list.
pub(crate) fn word_analyzer(stop_words: Option<StopWordFilter>) -> TextAnalyzer {
    match stop_words {
        Some(filter) => TextAnalyzer::builder(NormalizedWords::default()).filter(filter).build(),
        None => TextAnalyzer::builder(NormalizedWords::default()).build(),
    }
}

/// The words of `text` that are not stop words of the language, joined by spaces; `text` itself if there are no others.
pub(crate) fn without_stop_words(text: &str, language: Language) -> Cow<'_, str> {
    let Some(filter) = language.stop_words() else { return text.into() };
    let mut words: Vec<String> = Vec::new();
    word_analyzer(Some(filter)).token_stream(text).process(&mut |token| words.push(token.text.clone()));
    if words.is_empty() { text.into() } else { words.join(" ").into() }
}

/// Words of `text` as terms of `field`, with their positions.
pub(crate) fn terms(index: &Index, field: Field, text: &str) -> Result<Vec<(usize, Term)>> {
    let mut analyzer = index.tokenizer_for_field(field).map_err(Error::from)?;
    let mut stream = analyzer.token_stream(text);
    let mut terms = Vec::new();
    stream.process(&mut |token| terms.push((token.position, Term::from_field_text(field, &token.text))));
    Ok(terms)
}

/// Normalizes a text. Composed and decomposed letters, compatibility forms (ligatures, full width, superscripts), and upper and
/// lower case become equal. Invisible characters are removed.
///
/// This is Unicode's `NFKC_Casefold`, except that a symbol of letters or digits (`™`, `½`, `㎏`) becomes a separate word:
/// `Foo™` has the words `foo` and `tm`.
pub(crate) fn normalize(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        let has_upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
        return if has_upper { text.to_ascii_lowercase().into() } else { text.into() };
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let mut visible = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !ignorable.contains(*c)) {
        if is_symbol_of_words(c, &nfkc) {
            visible.extend([' ', c, ' ']);
        } else {
            visible.push(c);
        }
    }
    let folded = CaseMapper::new().fold_string(&nfkc.normalize(&visible)).into_owned();
    // folding may decompose characters
    let folded = nfkc.normalize(&folded).into_owned();
    folded.into()
}

/// True for a symbol that stands for one or several words, possibly with other characters: `™`, `½`, `℃`.
fn is_symbol_of_words(c: char, nfkc: &ComposingNormalizerBorrowed<'_>) -> bool {
    if c.is_ascii() {
        return false;
    }
    let mut bytes = [0; 4];
    let alone: &str = c.encode_utf8(&mut bytes);
    let form = nfkc.normalize(alone);
    form != alone && form.chars().any(char::is_alphanumeric) && !(is_in_word(c) && form.chars().all(is_in_word))
}

/// True for the characters of words: letters, digits and marks. The first character of a word is a letter or digit.
fn is_in_word(c: char) -> bool {
    c.is_alphanumeric()
        || !c.is_ascii() && {
            let category = CodePointMapData::<GeneralCategory>::new().get(c);
            GeneralCategoryGroup::Mark.contains(category)
        }
}

/// Tokenizer of normalized texts. Offsets are those in the normalized text; an index does not store them.
#[derive(Clone, Default)]
struct NormalizedWords {
    token: Token,
}

/// Words of one text.
struct WordStream<'a> {
    text: Cow<'a, str>,
    at: usize,
    token: &'a mut Token,
}

impl Tokenizer for NormalizedWords {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text: normalize(text), at: 0, token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.token.text.clear();
        self.token.position = self.token.position.wrapping_add(1);
        let rest = &self.text[self.at..];
        let Some(start) = rest.find(char::is_alphanumeric) else {
            self.at = self.text.len();
            return false;
        };
        let length = rest[start..].find(|c| !is_in_word(c)).unwrap_or(rest.len() - start);
        let from = self.at + start;
        self.at = from + length;
        self.token.offset_from = from;
        self.token.offset_to = self.at;
        self.token.text.push_str(&self.text[from..self.at]);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut analyzer = analyzer(Language::None, AnalyzerVersion::NEWEST);
        let mut stream = analyzer.token_stream(text);
        let mut words = Vec::new();
        stream.process(&mut |token| {
            assert_eq!(token.position, words.len());
            words.push(token.text.clone());
        });
        words
    }

    #[test]
    fn equivalent_spellings_have_equal_words() {
        for (one, other) in [
            ("blåbær på Ås", "bla\u{30a}bær pa\u{30a} A\u{30a}s"),
            ("Höga kusten", "HO\u{308}GA KUSTEN"),
            ("\u{212b}se", "åse"),
            ("ﬁsk ﬂyt", "fisk flyt"),
            ("ＯＳＬＯ　２０２４", "oslo 2024"),
            ("m² H₂O", "m2 h2o"),
            ("sam\u{ad}funns\u{ad}fag", "samfunnsfag"),
            ("fis\u{200b}ke\u{200d}bå\u{200c}t", "fiskebåt"),
            ("\u{feff}hav\u{2060}\u{200e}\u{202a}et\u{202c}\u{2066}\u{2069}\u{fe0f}", "havet"),
            ("\u{34f}\u{61c}sk\u{34f}og", "skog"),
            ("Straße STRASSE", "strasse strasse"),
            ("ΣΟΦΟΣ σοφός", "σοφος σοφός"),
            ("Ǆ ǆ", "dž dž"),
            ("fjord\u{a0}fjell\u{202f}5", "fjord fjell 5"),
            ("x\u{302}y", "X\u{302}Y"),
        ] {
            assert_eq!(words(one), words(other), "{one:?} and {other:?}");
            assert!(!words(one).is_empty());
        }
    }

    #[test]
    fn words_are_runs_of_letters_digits_and_marks() {
        for (text, expected) in [
            ("Hva er Ås-regelen, 1½ km?", &["hva", "er", "ås", "regelen", "1", "1", "2", "km"][..]),
            ("Foo™ 5㎏ №7 20℃", &["foo", "tm", "5", "kg", "no", "7", "20", "c"]),
            ("don't e-post", &["don", "t", "e", "post"]),
            ("\u{301} ≠ a\u{338}", &["a\u{338}"]),
            ("नमस्ते दुनिया", &["नमस्ते", "दुनिया"]),
            ("", &[]),
            ("\u{200b}", &[]),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn normalizing_twice_changes_no_character() {
        let mut checked = 0;
        for c in char::MIN..=char::MAX {
            let once = normalize(&format!("a{c}b é")).into_owned();
            assert_eq!(normalize(&once), once, "{c:?}");
            checked += 1;
        }
        assert!(checked > 1_000_000);
    }

    proptest! {
        #[test]
        fn composed_and_decomposed_texts_have_the_same_words(text in "[a-zæøåÅÖé ½ﬁ™\u{300}-\u{30f}\u{ad}\u{200b}ǅΣ㎏가각]{0,24}") {
            let nfc = icu_normalizer::ComposingNormalizer::new_nfc();
            let nfd = icu_normalizer::DecomposingNormalizer::new_nfd();
            prop_assert_eq!(words(&nfc.normalize(&text)), words(&nfd.normalize(&text)));
            prop_assert_eq!(words(&nfc.normalize(&text)), words(&text));
        }
    }

    #[test]
    fn stop_words_are_left_out_unless_there_are_no_others() {
        for (language, text, expected) in [
            (Language::Norwegian, "Hva er hovedstaden i Norge?", "hovedstaden norge"),
            (Language::Norwegian, "Kva er det?", "Kva er det?"),
            (Language::Danish, "hvad er Danmarks hovedstad", "danmarks hovedstad"),
            (Language::English, "the capital of Norway", "capital norway"),
            (Language::None, "the capital", "the capital"),
        ] {
            assert_eq!(without_stop_words(text, language), expected);
        }
    }

    #[test]
    fn languages_have_names_and_codes() {
        for language in Language::ALL {
            assert_eq!(language.name().parse::<Language>().unwrap(), language);
            for code in language.codes() {
                assert_eq!(code.parse::<Language>().unwrap(), language, "{code}");
            }
        }
        assert_eq!("nn".parse::<Language>().unwrap(), Language::Norwegian);
        assert!("xx".parse::<Language>().is_err());
    }

    #[test]
    fn unknown_versions_are_refused() {
        for version in [AnalyzerVersion::V1, AnalyzerVersion::V2] {
            assert_eq!(AnalyzerVersion::try_from(u32::from(version)), Ok(version));
        }
        assert!(AnalyzerVersion::try_from(3).unwrap_err().contains("newer program"));
    }
}
