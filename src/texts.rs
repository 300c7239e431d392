//! Built-in texts for comparisons of models.

/// Texts by id, of different lengths, languages and scripts: none, white space, a word, sentences, symbols.
pub(crate) const TEXTS: [(&str, &str); 12] = [
    ("empty", ""),
    ("blank", " \t\n "),
    ("word", "fjord"),
    ("question", "Hva er hovedstaden i Norge?"),
    ("nb", "Snø og regn på Vestlandet, blåbærsyltetøy på Østlandet."),
    ("nn", "Korleis var vêret på Ørsta i fjor haust, og kven såg elgen?"),
    ("da", "Smørrebrød med rødspætte og æg spises ofte i København."),
    ("sv", "Älgen åt äpplen på ön medan barnen läste läxor i Göteborg."),
    ("en", "Learned sparse retrieval expands documents with related words, e.g. rain."),
    (
        "sentences",
        "Kommunen ansatte 3 nye lærere i 2024, og Ærfugløya fikk en båt; strømprisene steg, og barna leste bøker om fisk.",
    ),
    ("repeats", "fisk Fisk FISK fisk-fisk fisk, fisk; «fisk» fisk/fisk 1 11 111 fisk"),
    (
        "signs",
        "https://example.org/a?b=c&d=%C3%A5 – 5 °C, 10 €, 日本語, Ελληνικά, \u{1f41f}\u{200d}\u{1f525} e\u{301} [SEP]",
    ),
];

/// Returns [`TEXTS`] and a text of more than `tokens` tokens: every word has at least one token.
pub(crate) fn built_in(tokens: usize) -> Vec<(String, String)> {
    let all = TEXTS.map(|(_, text)| text).join(" ");
    let times = tokens / all.split_whitespace().count() + 1;
    let long = vec![all; times].join(" ");
    let named = TEXTS.map(|(id, text)| (id.to_owned(), text.to_owned()));
    named.into_iter().chain([("long".to_owned(), long)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_text_has_more_tokens_than_requested() {
        for tokens in [0, 1, 100, 512] {
            let texts = built_in(tokens);
            let (id, long) = texts.last().unwrap();
            assert!(id == "long" && long.split_whitespace().count() > tokens, "{tokens}");
            assert!(texts.iter().any(|(_, text)| text.is_empty()));
        }
    }
}
