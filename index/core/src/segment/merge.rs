//! [`merge_segments`]: builds a segment file from others, at a merge.

use std::io::{self, Write};

use super::format::{Defect, SegmentFile};
use super::header::Identity;
use super::term::TermList;
use super::writer::SegmentWriter;

/// A segment file to merge.
pub struct Source<'a> {
    file: &'a SegmentFile,
    /// document in the new file by document in the old one; [`GONE`] for a deleted document
    new_docs: Vec<u32>,
    /// exact weights of a file of version 1, term by term
    weights: Option<Weights>,
}

/// New number of a deleted document.
const GONE: u32 = u32::MAX;

/// Exact weights of a file of version 1 in the order of its lists.
struct Weights {
    /// first weight of each term of the table, and the end
    starts: Vec<usize>,
    weights: Vec<f32>,
}

impl<'a> Source<'a> {
    /// The documents of `file` for which `is_live` is true, to be numbered from `first` on.
    ///
    /// # Errors
    /// A defect of the file: all its values are checked, so that no damage gets valid checksums.
    pub fn new(file: &'a SegmentFile, first: u32, is_live: impl Fn(u32) -> bool) -> Result<Self, Defect> {
        file.check()?;
        let mut next = first;
        let new_docs = (0..file.n_docs()).map(|doc| {
            let new_doc = if is_live(doc) { next } else { GONE };
            next += u32::from(new_doc != GONE);
            new_doc
        });
        let weights = if file.has_rows() { Some(Weights::collect(file)?) } else { None };
        Ok(Self { file, new_docs: new_docs.collect(), weights })
    }

    /// Number of documents that are not deleted.
    pub fn n_live(&self) -> u32 {
        self.new_docs.iter().filter(|doc| **doc != GONE).count() as u32
    }

    /// External ids of the documents that are not deleted.
    fn ids(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let live = (0..).zip(&self.new_docs).filter(|(_, new_doc)| **new_doc != GONE);
        // `check` has read all ids
        live.map(|(doc, _)| self.file.id(doc).unwrap_or_default())
    }

    /// Appends the postings at a position of the table, without those of deleted documents.
    fn append(&self, position: usize, docs: &mut Vec<u32>, weights: &mut Vec<f32>) -> Result<(), Defect> {
        let list: TermList<'_> = self.file.list(position)?;
        let rows = self.weights.as_ref().map_or(&[][..], |all| &all.weights[all.starts[position]..]);
        list.for_each(|doc, posting| {
            let new_doc = self.new_docs.get(doc as usize).copied().unwrap_or(GONE);
            if new_doc != GONE {
                docs.push(new_doc);
                weights.push(match &list.remainders {
                    Some(remainders) => remainders.weight(posting.at, posting.impact),
                    None => rows.get(posting.at).copied().unwrap_or_default(),
                });
            }
        });
        Ok(())
    }
}

impl Weights {
    fn collect(file: &SegmentFile) -> Result<Self, Defect> {
        let mut starts = vec![0];
        let mut places = vec![usize::MAX; file.header.vocabulary_size as usize];
        for (position, term) in file.term_ids().enumerate() {
            places[term as usize] = starts[position];
            starts.push(starts[position] + file.list(position)?.entry.df as usize);
        }
        let mut weights = vec![0.0; file.n_postings() as usize];
        for doc in 0..file.n_docs() {
            for (term, weight) in file.row(doc)?.iter() {
                let place = weights.get_mut(places[term as usize]);
                *place.ok_or_else(|| format!("document {doc} has term {term}, whose postings do not have it"))? =
                    weight;
                places[term as usize] += 1;
            }
        }
        Ok(Self { starts, weights })
    }
}

/// Writes a segment file of the living documents of `sources`, in their order. Impacts are made anew from the exact weights. It
/// holds one list at a time in memory, and of files of version 1 all weights.
///
/// # Errors
/// Those of `out`, and a damaged source as [`io::ErrorKind::InvalidData`].
pub fn merge_segments(out: &mut impl Write, identity: &Identity, sources: &[Source<'_>]) -> io::Result<()> {
    let n_docs = sources.iter().map(Source::n_live).sum();
    let mut writer = SegmentWriter::new(out, identity, n_docs)?;
    let mut positions = vec![0; sources.len()];
    let (mut docs, mut weights) = (Vec::new(), Vec::new());
    let mut tables: Vec<_> = sources.iter().map(|source| source.file.term_ids().peekable()).collect();
    while let Some(term) = tables.iter_mut().filter_map(|table| table.peek().copied()).min() {
        docs.clear();
        weights.clear();
        for ((source, table), position) in sources.iter().zip(&mut tables).zip(&mut positions) {
            if table.next_if_eq(&term).is_some() {
                let damaged = |defect: Defect| io::Error::new(io::ErrorKind::InvalidData, defect);
                source.append(*position, &mut docs, &mut weights).map_err(damaged)?;
                *position += 1;
            }
        }
        writer.term(term, &docs, &weights)?;
    }
    writer.finish(sources.iter().flat_map(Source::ids))
}
