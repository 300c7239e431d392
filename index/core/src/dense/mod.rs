//! Dense vectors, the file of a segment that holds them, and the exact search over such files.
//!
//! `format` describes the file. [`write_dense`] writes one, [`DenseFile`] reads one, [`DenseQuery`] searches several.
//!
//! The score of a document is the dot product of its vector and the query's ([`DenseVector::dot`]). A search reads codes of 8
//! bits first: their products with the query differ from the scores by at most a bound that each document has. The documents
//! whose bound reaches the k-th best are then scored from their exact values, so that the result is that of
//! [`DenseQuery::score_all`], which scores every document.
//!
//! ```
//! use ownedbytes::OwnedBytes;
//! use splade_core::segment::{CheckedBytes, Live};
//! use splade_core::dense::{DenseFile, DenseIdentity, DenseQuery, DenseVector, write_dense};
//!
//! struct All;
//!
//! impl Live for All {
//!     fn is_live(&self, _segment: usize, _doc: u32) -> bool {
//!         true
//!     }
//! }
//!
//! let vectors = [vec![0.5, 0.75], vec![1.0, 0.0], vec![-1.0, 0.0]];
//! let vectors = vectors.into_iter().map(DenseVector::new).collect::<Result<Vec<_>, _>>()?;
//! let rows: Vec<Vec<u8>> = vectors.iter().map(DenseVector::to_bytes).collect();
//! let identity = DenseIdentity { dimensions: 2, fingerprint: [7; 32] };
//! let mut bytes = Vec::new();
//! write_dense(&mut bytes, &identity, rows.len() as u32, rows.iter().map(Vec::as_slice))?;
//!
//! let file = DenseFile::open(CheckedBytes::unchecked(OwnedBytes::new(bytes)), &identity, 3)?;
//! let query = DenseQuery::new(DenseVector::new(vec![0.5, 0.75])?);
//! let hits = query.search(&[&file], 1, &All, 1).unwrap();
//! assert_eq!((hits[0].doc, hits[0].score), (0, 0.8125));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codes;
mod format;
mod search;
mod vector;
mod writer;

pub use format::{DenseFile, DenseIdentity};
pub use search::{DenseHit, DenseQuery};
pub use vector::{DenseVector, MAX_DIMENSIONS};
pub use writer::write_dense;

#[cfg(test)]
mod tests;
