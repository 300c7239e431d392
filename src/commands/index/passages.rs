//! `--passages`: documents split into passages, each encoded on its own.

use std::ops::Range;

use anyhow::Result;
use splade_core::{DocumentEncoder, PassageLength, PassageSplitter, SparseVector, encode_stream};
use splade_index::ImpactIndex;

use crate::cli::IndexArgs;
use crate::failure::bad_input;

/// Vectors of a document: one of the whole text, or one of each passage.
pub(super) enum Vectors {
    Whole(SparseVector),
    Passages(Vec<(Range<usize>, SparseVector)>),
}

impl Vectors {
    /// Changes each vector.
    pub(super) fn map(self, change: impl Fn(SparseVector) -> SparseVector) -> Self {
        match self {
            Self::Whole(vector) => Self::Whole(change(vector)),
            Self::Passages(passages) => {
                Self::Passages(passages.into_iter().map(|(range, vector)| (range, change(vector))).collect())
            }
        }
    }
}

/// Refuses `--passages` if documents of the index have others, and ready vectors if they have any.
pub(super) fn expect_same(index: &ImpactIndex, args: &IndexArgs) -> Result<()> {
    let show = |length: Option<PassageLength>| length.map_or("none".to_owned(), |length| length.to_string());
    let dir = args.index().display();
    match (index.settings().passages, args.passages) {
        (old, new @ Some(_)) if old != new => Err(bad_input(
            format!("{dir}: made with the passages {}, not {}", show(old), show(new)),
            "leave --passages out, or make the index anew",
        )),
        (Some(_), _) if args.vectors.is_some() => Err(bad_input(
            format!("{dir}: made with passages, and --vectors has vectors of whole documents"),
            "give the documents alone; they are encoded",
        )),
        _ => Ok(()),
    }
}

/// A part of a document that is encoded on its own. The last one of a document carries the document.
struct Piece<T> {
    text: String,
    range: Range<usize>,
    whole: Option<T>,
}

/// Encodes the documents of a stream and calls `sink` with each and its vectors, in their order.
///
/// # Errors
/// The first error of the stream, the encoder or `sink`.
pub(super) fn encode_documents<T>(
    encoder: &DocumentEncoder,
    length: Option<PassageLength>,
    items: impl Iterator<Item = Result<T>>,
    text: impl Fn(&T) -> String,
    mut sink: impl FnMut(T, Vectors) -> Result<()>,
) -> Result<()> {
    let Some(length) = length else {
        return encode_stream(encoder, items, text, |item, vector| sink(item, Vectors::Whole(vector)));
    };
    let splitter = encoder.passage_splitter(length)?;
    let pieces = items.flat_map(|item| match item.and_then(|item| split(&splitter, item, &text)) {
        Ok(pieces) => pieces.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    let mut passages = Vec::new();
    encode_stream(
        encoder,
        pieces,
        |piece| piece.text.clone(),
        |piece, vector| {
            passages.push((piece.range, vector));
            match piece.whole {
                Some(item) => sink(item, Vectors::Passages(std::mem::take(&mut passages))),
                None => Ok(()),
            }
        },
    )
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
