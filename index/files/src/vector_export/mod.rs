//! Vectors as files that other programs read: lines of JSON, CSR, CIFF, and tables of postings.
//!
//! Each writer takes documents in order, one at a time. Files that begin with counts, or that are ordered by term, are put
//! together at the end from temporary files, so that memory does not grow with the number of documents.

mod ciff;
mod csr;
mod impacts;
mod jsonl;
mod posting_lists;
mod posting_tables;
mod spill;
#[cfg(test)]
mod tests;

pub use ciff::{CiffStats, CiffWriter, MAX_CIFF_DOCUMENTS};
pub use csr::{CsrStats, CsrWriter};
pub use impacts::{Impacts, NegativeWeight};
pub use jsonl::{write_impacts_by_key, write_weights_by_key};
pub use posting_tables::{DocumentRow, PostingTables, PostingTablesStats, TableNotes};
