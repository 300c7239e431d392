//! [`Journal`]: how far the input of a bulk run was read, kept with every commit of the unfinished index.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use splade_core::SparseVector;
use splade_files::Document;

/// Position in the input, and what a later run must have in common with this one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Journal {
    /// name of the run: content of another name is a leftover
    pub(super) run: String,
    /// options that change the result
    pub(super) options: Map<String, Value>,
    /// documents read and committed
    pub(super) documents: u64,
    /// id of the first document; empty before it
    pub(super) first_id: String,
    /// digest of the documents read
    pub(super) digest: String,
    /// true if the input was read to its end
    pub(super) is_complete: bool,
}

impl Journal {
    /// The journal before the first document.
    pub(super) fn new(run: &str, options: Map<String, Value>) -> Self {
        let (first_id, digest) = (String::new(), InputDigest::default().text());
        Self { run: run.to_owned(), options, documents: 0, first_id, digest, is_complete: false }
    }

    /// The journal as a line of JSON.
    pub(super) fn to_text(&self) -> String {
        json!({
            "run": self.run,
            "options": self.options,
            "documents": self.documents,
            "first_id": self.first_id,
            "digest": self.digest,
            "is_complete": self.is_complete,
        })
        .to_string()
    }

    /// Reads a journal; none if the text is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let string = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            run: string("run")?,
            options: value["options"].as_object()?.clone(),
            documents: value["documents"].as_u64()?,
            first_id: string("first_id")?,
            digest: string("digest")?,
            is_complete: value["is_complete"].as_bool()?,
        })
    }

    /// The first option that differs from `options`, with its value in this journal.
    pub(super) fn other_option(&self, options: &Map<String, Value>) -> Option<(String, Value)> {
        let keys = self.options.keys().chain(options.keys());
        let other = keys.into_iter().find(|key| self.options.get(*key) != options.get(*key))?;
        Some((other.clone(), self.options.get(other).cloned().unwrap_or_default()))
    }
}

/// Digest of the documents of an input, and of their vectors where the input has them.
#[derive(Debug, Clone, Default)]
pub(super) struct InputDigest {
    hash: Sha256,
    /// bytes of one document: hashing them together takes less time
    bytes: Vec<u8>,
}

impl InputDigest {
    /// Takes the next document.
    pub(super) fn add(&mut self, document: &Document, vector: Option<&SparseVector>) {
        let fields = if document.fields.is_empty() { String::new() } else { json!(document.fields).to_string() };
        for text in [&document.id, &document.title, &document.text, &fields] {
            // with the length: `ab`, `c` is not `a`, `bc`
            self.bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            self.bytes.extend_from_slice(text.as_bytes());
        }
        for (dim, weight) in vector.into_iter().flat_map(SparseVector::iter) {
            self.bytes.extend_from_slice(&dim.to_le_bytes());
            self.bytes.extend_from_slice(&weight.to_le_bytes());
        }
        self.hash.update(&self.bytes);
        self.bytes.clear();
    }

    /// The digest so far, in hexadecimal.
    pub(super) fn text(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, text: &str) -> Document {
        Document { id: id.into(), text: text.into(), ..Document::default() }
    }

    #[test]
    fn a_journal_is_read_back() {
        let options = json!({"append": false, "max_length": null}).as_object().unwrap().clone();
        let journal = Journal { documents: 7, first_id: "d\"1".into(), ..Journal::new("a1", options.clone()) };
        assert_eq!(Journal::parse(&journal.to_text()).unwrap(), journal);
        assert_eq!(journal.other_option(&options), None);
        let other = json!({"append": false, "max_length": 8}).as_object().unwrap().clone();
        assert_eq!(journal.other_option(&other), Some(("max_length".into(), Value::Null)));
        for text in ["", "{}", "[1]", "added by run a1", r#"{"run": 1}"#] {
            assert_eq!(Journal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_digest_depends_on_every_part_of_a_document() {
        let digest = |document: &Document, vector: Option<&SparseVector>| {
            let mut digest = InputDigest::default();
            digest.add(document, vector);
            digest.text()
        };
        let vector = SparseVector::from_pairs([(1, 0.5)]).unwrap();
        let with_field = Document { fields: json!({"a": 1}).as_object().unwrap().clone(), ..document("a", "bc") };
        let titled = Document { title: "bc".into(), ..document("a", "") };
        let mut digests = vec![
            digest(&document("a", "bc"), None),
            digest(&document("ab", "c"), None),
            digest(&document("a", "bc"), Some(&vector)),
            digest(&with_field, None),
            digest(&titled, None),
            InputDigest::default().text(),
        ];
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 6);
    }
}
