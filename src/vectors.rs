//! Vectors of a file beside the documents or queries that they belong to.

use std::path::Path;

use anyhow::Result;
use splade_core::SparseVector;
use splade_files::{Document, Query, VectorRows};

use crate::failure::bad_input;

/// A document or query that a vector belongs to.
pub(crate) trait Identified {
    /// Name of all items in messages.
    const ALL: &'static str;
    /// Advice if the vectors are not theirs.
    const HINT: &'static str;

    fn id(&self) -> &str;
}

impl Identified for Document {
    const ALL: &'static str = "corpus";
    const HINT: &'static str = "the vectors of `encode --role document` over the same corpus are needed";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Identified for Query {
    const ALL: &'static str = "file of queries";
    const HINT: &'static str = "the vectors of `encode --role query` over the same queries are needed";

    fn id(&self) -> &str {
        &self.id
    }
}

/// Pairs items with the vectors of the file `path`, whose ids must be equal row by row where the vectors have ids.
pub(crate) fn paired<T: Identified, I: Iterator<Item = splade_files::Result<T>>>(
    path: &Path,
    mut items: I,
    mut vectors: VectorRows,
) -> impl Iterator<Item = Result<(T, SparseVector)>> + use<T, I> {
    let path = path.to_owned();
    std::iter::from_fn(move || match (items.next().transpose(), vectors.next().transpose()) {
        (Ok(None), Ok(None)) => None,
        (Err(error), _) | (_, Err(error)) => Some(Err(error.into())),
        (Ok(item), Ok(vector)) => Some(pair(&path, item, vector)),
    })
}

fn pair<T: Identified>(
    path: &Path,
    item: Option<T>,
    vector: Option<(Option<String>, SparseVector)>,
) -> Result<(T, SparseVector)> {
    let path = path.display();
    let message = match (item, vector) {
        (Some(item), Some((id, vector))) if id.as_ref().is_none_or(|id| id == item.id()) => return Ok((item, vector)),
        (Some(item), Some((id, _))) => {
            format!("{path}: the id {:?} where the {} has {:?}", id.unwrap_or_default(), T::ALL, item.id())
        }
        (Some(item), None) => format!("{path}: it ends where the {} has {:?}", T::ALL, item.id()),
        (None, Some((Some(id), _))) => format!("{path}: the id {id:?} is not in the {}", T::ALL),
        (None, _) => format!("{path}: more vectors than the {} has rows", T::ALL),
    };
    Err(bad_input(message, T::HINT))
}
