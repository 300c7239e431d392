//! [`InputDigest`]: the digest of an input, document by document.

use serde_json::json;
use sha2::{Digest, Sha256};
use splade_core::{SparseVector, hex};
use splade_files::Document;

/// Digest of the documents of an input, and of their vectors where the input has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputDigest {
    hash: Sha256,
    /// bytes of one document: hashing them together takes less time
    bytes: Vec<u8>,
}

impl InputDigest {
    /// Takes the next document.
    pub(crate) fn add(&mut self, document: &Document, vector: Option<&SparseVector>) {
        let fields = if document.fields.is_empty() { String::new() } else { json!(document.fields).to_string() };
        self.put(&[&document.id, &document.title, &document.text, &fields]);
        for (dim, weight) in vector.into_iter().flat_map(SparseVector::iter) {
            self.bytes.extend_from_slice(&dim.to_le_bytes());
            self.bytes.extend_from_slice(&weight.to_le_bytes());
        }
        self.hash.update(&self.bytes);
        self.bytes.clear();
    }

    /// Takes the next text, of which only the id and the text count.
    pub(crate) fn add_text(&mut self, id: &str, text: &str) {
        self.put(&[id, text]);
        self.hash.update(&self.bytes);
        self.bytes.clear();
    }

    fn put(&mut self, texts: &[&str]) {
        for text in texts {
            // with the length: `ab`, `c` is not `a`, `bc`
            self.bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }

    /// The digest so far, in hexadecimal.
    pub(crate) fn text(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, text: &str) -> Document {
        Document { id: id.into(), text: text.into(), ..Document::default() }
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
