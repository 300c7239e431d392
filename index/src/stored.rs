//! [`StoredDocument`]: the texts and fields of a document.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

/// A document as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredDocument {
    /// external id, not empty
    pub id: String,
    /// title, if there is one
    pub title: Option<String>,
    /// text
    pub text: String,
    /// all other fields
    pub other: Map<String, Json>,
}

impl StoredDocument {
    /// The text that is encoded: title, a space and text, or the text alone if there is no title.
    ///
    /// ```
    /// use splade_index::StoredDocument;
    ///
    /// let document = StoredDocument { title: Some("Oslo".into()), text: "En by.".into(), ..Default::default() };
    /// assert_eq!(document.full_text(), "Oslo En by.");
    /// ```
    #[must_use]
    pub fn full_text(&self) -> Cow<'_, str> {
        match &self.title {
            None => Cow::Borrowed(&self.text),
            Some(title) => Cow::Owned(format!("{title} {}", self.text)),
        }
    }
}
