//! [`CiffWriter`]: the Common Index File Format, which PISA, Anserini, PyTerrier and BMP read.

use std::io::{self, Write};
use std::path::Path;

use prost::Message;

use super::posting_lists::PostingLists;
use super::spill::Spill;
use crate::{Error, Result};

/// Version of the format.
const VERSION: i32 = 1;
/// Most documents that the format can number.
pub const MAX_CIFF_DOCUMENTS: u32 = i32::MAX as u32;

/// Writer of a CIFF file: a header, a posting list a term, and a record a document, each a protobuf message after its length.
///
/// The format is `CommonIndexFileFormat.proto` of <https://github.com/osirrc/ciff>. It has term frequencies, whose place impacts
/// take. Lists are in the byte order of their terms, in which programs that merge files expect them. Documents are numbered in
/// the order in which they are added.
///
/// Postings are sorted in temporary files: memory is some 200 MB, and the longest list.
pub struct CiffWriter {
    /// terms by dimension
    terms: Vec<String>,
    /// dimensions in the order of their terms
    dims: Vec<u32>,
    /// place of each dimension in `dims`
    places: Vec<u32>,
    /// true for the dimensions in use, by place
    in_use: Vec<bool>,
    lists: PostingLists,
    documents: Spill,
    stats: CiffStats,
}

/// Numbers of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CiffStats {
    /// documents, those without postings included
    pub documents: u32,
    /// posting lists
    pub lists: u32,
    /// postings
    pub postings: u64,
    /// sum of all impacts
    pub impacts: u64,
}

impl CiffWriter {
    /// Makes temporary files in `folder`. `terms` are the names of all dimensions, which differ.
    ///
    /// # Errors
    /// A folder that cannot be written; more dimensions than the format has.
    pub fn new(folder: &Path, terms: Vec<String>) -> Result<Self> {
        let n_dims = i32::try_from(terms.len()).map_err(|_| Error::invalid("too many dimensions for CIFF", ""))?;
        let mut dims: Vec<u32> = (0..n_dims.cast_unsigned()).collect();
        dims.sort_unstable_by_key(|dim| &terms[*dim as usize]);
        let mut places = vec![0; dims.len()];
        (0..).zip(&dims).for_each(|(place, dim)| places[*dim as usize] = place);
        Ok(Self {
            in_use: vec![false; dims.len()],
            terms,
            dims,
            places,
            lists: PostingLists::in_folder(folder),
            documents: Spill::in_folder(folder)?,
            stats: CiffStats::default(),
        })
    }

    /// Adds a document with its impacts, as [`Impacts::of`](crate::Impacts::of) returns them.
    ///
    /// # Errors
    /// A dimension without a term; more than [`MAX_CIFF_DOCUMENTS`] documents; a disk that is full.
    pub fn add(&mut self, id: &str, impacts: &[(u32, u32)]) -> Result<()> {
        let doc = self.stats.documents;
        if doc >= MAX_CIFF_DOCUMENTS {
            return Err(Error::invalid(format!("CIFF has at most {MAX_CIFF_DOCUMENTS} documents"), ""));
        }
        let mut entries = Vec::with_capacity(impacts.len());
        for (dim, impact) in impacts {
            let Some(place) = self.places.get(*dim as usize) else {
                let message = format!("document {id} has dimension {dim}, and there are {}", self.places.len());
                return Err(Error::invalid(message, ""));
            };
            self.in_use[*place as usize] = true;
            entries.push((*place, *impact));
        }
        self.lists.add(doc, entries.into_iter())?;
        let length: u64 = impacts.iter().map(|(_, impact)| u64::from(*impact)).sum();
        let record = DocRecord {
            docid: doc.cast_signed(),
            collection_docid: id.to_owned(),
            doclength: i32::try_from(length).unwrap_or(i32::MAX),
        };
        self.documents.write(&record.encode_length_delimited_to_vec())?;
        self.stats.documents += 1;
        self.stats.postings += impacts.len() as u64;
        self.stats.impacts += length;
        Ok(())
    }

    /// Writes the file to `out`. `description` is a text for people, in the header.
    ///
    /// # Errors
    /// Errors of `out` and of the temporary files; a list whose message is beyond the limit of protobuf.
    pub fn finish(mut self, description: &str, out: &mut impl Write) -> io::Result<CiffStats> {
        self.stats.lists = self.in_use.iter().filter(|in_use| **in_use).count() as u32;
        out.write_all(&self.header(description).encode_length_delimited_to_vec())?;
        let mut lists = self.lists.finish().map_err(io::Error::other)?;
        let mut list = Vec::new();
        while let Some(place) = lists.next_list(&mut list)? {
            let term = &self.terms[self.dims[place as usize] as usize];
            let message = postings_list(term, &list);
            if message.encoded_len() > i32::MAX as usize {
                return Err(io::Error::other(format!(
                    "the postings of {term:?} are beyond the limit of protobuf, 2 GB"
                )));
            }
            out.write_all(&message.encode_length_delimited_to_vec())?;
        }
        self.documents.copy_to(out)?;
        Ok(self.stats)
    }

    fn header(&self, description: &str) -> Header {
        let CiffStats { documents, lists, impacts, .. } = self.stats;
        Header {
            version: VERSION,
            num_postings_lists: lists.cast_signed(),
            num_docs: documents.cast_signed(),
            total_postings_lists: lists.cast_signed(),
            total_docs: documents.cast_signed(),
            total_terms_in_collection: impacts.cast_signed(),
            average_doclength: if documents == 0 { 0.0 } else { impacts as f64 / f64::from(documents) },
            description: description.to_owned(),
        }
    }
}

/// The message of a list. Documents are written as the difference from the one before.
fn postings_list(term: &str, list: &[(u32, u32)]) -> PostingsList {
    let mut before = 0;
    let postings = list.iter().map(|&(doc, impact)| {
        let gap = doc - before;
        before = doc;
        Posting { docid: gap.cast_signed(), tf: impact.cast_signed() }
    });
    PostingsList {
        term: term.to_owned(),
        postings: postings.collect(),
        df: list.len() as i64,
        cf: list.iter().map(|(_, impact)| i64::from(*impact)).sum(),
    }
}

/// First message of a file.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int32, tag = "1")]
    version: i32,
    /// lists and documents in this file; `total_` are those of the collection
    #[prost(int32, tag = "2")]
    num_postings_lists: i32,
    #[prost(int32, tag = "3")]
    num_docs: i32,
    #[prost(int32, tag = "4")]
    total_postings_lists: i32,
    #[prost(int32, tag = "5")]
    total_docs: i32,
    #[prost(int64, tag = "6")]
    total_terms_in_collection: i64,
    #[prost(double, tag = "7")]
    average_doclength: f64,
    #[prost(string, tag = "8")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct PostingsList {
    #[prost(string, tag = "1")]
    term: String,
    #[prost(int64, tag = "2")]
    df: i64,
    #[prost(int64, tag = "3")]
    cf: i64,
    #[prost(message, repeated, tag = "4")]
    postings: Vec<Posting>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Posting {
    #[prost(int32, tag = "1")]
    docid: i32,
    #[prost(int32, tag = "2")]
    tf: i32,
}

#[derive(Clone, PartialEq, Message)]
struct DocRecord {
    #[prost(int32, tag = "1")]
    docid: i32,
    #[prost(string, tag = "2")]
    collection_docid: String,
    #[prost(int32, tag = "3")]
    doclength: i32,
}
