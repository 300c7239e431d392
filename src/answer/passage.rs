//! [`AnswerPassage`]: the part of a document's text that a hit is about.

use serde::Serialize;
use splade_index::{Passage, StoredDocument};

/// Passage of a hit, in an index whose documents are split. Positions are in characters (code points).
#[derive(Serialize)]
#[cfg_attr(feature = "serve", derive(utoipa::ToSchema), schema(as = Passage))]
pub(crate) struct AnswerPassage {
    /// number of the passage in its document, from 1
    number: usize,
    /// number of passages of the document
    count: usize,
    /// first character in the text that was encoded: title, a space and text
    start: usize,
    /// character after the last
    end: usize,
    text: String,
}

impl AnswerPassage {
    /// Reads the text of a passage from its document.
    pub(super) fn of(document: &StoredDocument, passage: &Passage) -> Self {
        let whole = document.full_text();
        let before = whole.get(..passage.range.start).unwrap_or_default().chars().count();
        let text = whole.get(passage.range.clone()).unwrap_or_default();
        Self {
            number: passage.number + 1,
            count: passage.count,
            start: before,
            end: before + text.chars().count(),
            text: text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_characters() {
        let document =
            StoredDocument { title: Some("Ærø".into()), text: "En øy. Den er grønn.".into(), ..Default::default() };
        let whole = "Ærø En øy. Den er grønn.";
        let passage = Passage { number: 1, count: 2, range: whole.find("Den").unwrap()..whole.len() };
        let passage = AnswerPassage::of(&document, &passage);
        assert_eq!((passage.start, passage.end, passage.text.as_str()), (11, 24, "Den er grønn."));
        assert_eq!(serde_json::json!(passage)["number"], 2);
    }
}
