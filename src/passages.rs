//! Documents that are split into passages, each encoded on its own, for `index`, `serve` and `eval-mteb`.

use std::ops::Range;

use anyhow::Result;
use splade_core::{PassageSplitter, SparseVector};

/// Vectors of a document: one of the whole text, or one of each passage.
pub(crate) enum Vectors {
    Whole(SparseVector),
    Passages(Vec<(Range<usize>, SparseVector)>),
}

impl Vectors {
    /// Changes each vector.
    pub(crate) fn map(self, change: impl Fn(SparseVector) -> SparseVector) -> Self {
        match self {
            Self::Whole(vector) => Self::Whole(change(vector)),
            Self::Passages(passages) => {
                Self::Passages(passages.into_iter().map(|(range, vector)| (range, change(vector))).collect())
            }
        }
    }
}

/// A part of a document that is encoded on its own. The last one of a document carries the document.
pub(crate) struct Piece<T> {
    /// text of the passage
    pub(crate) text: String,
    range: Range<usize>,
    whole: Option<T>,
}

/// The passages of the documents of a stream, in their order.
pub(crate) fn pieces<'a, T: 'a>(
    splitter: &'a PassageSplitter,
    items: impl Iterator<Item = Result<T>> + 'a,
    text: impl Fn(&T) -> String + 'a,
) -> impl Iterator<Item = Result<Piece<T>>> + 'a {
    items.flat_map(move |item| match item.and_then(|item| split(splitter, item, &text)) {
        Ok(pieces) => pieces.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    })
}

fn split<T>(splitter: &PassageSplitter, item: T, text: impl Fn(&T) -> String) -> Result<Vec<Piece<T>>> {
    let text = text(&item);
    let ranges = splitter.split(&text)?;
    let mut pieces: Vec<Piece<T>> =
        ranges.into_iter().map(|range| Piece { text: text[range.clone()].to_owned(), range, whole: None }).collect();
    if let Some(last) = pieces.last_mut() {
        last.whole = Some(item);
    }
    Ok(pieces)
}

/// Consumer of the vectors of [`pieces`], which calls `sink` with each document and all its vectors.
pub(crate) fn gathered<T>(
    mut sink: impl FnMut(T, Vectors) -> Result<()>,
) -> impl FnMut(Piece<T>, SparseVector) -> Result<()> {
    let mut passages = Vec::new();
    move |piece, vector| {
        passages.push((piece.range, vector));
        match piece.whole {
            Some(item) => sink(item, Vectors::Passages(std::mem::take(&mut passages))),
            None => Ok(()),
        }
    }
}
