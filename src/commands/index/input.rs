//! The input of a bulk run: documents, vectors, or both row by row.

use anyhow::Result;
use splade_core::SparseVector;
use splade_files::{Document, ModelDir, read_documents, read_vector_rows};

use super::ahead::Ahead;
use crate::cli::IndexArgs;
use crate::share::Share;
use crate::vectors::paired;

/// A document, with its vector if the input has one.
pub(super) struct Item {
    pub(super) document: Document,
    pub(super) vector: Option<SparseVector>,
}

impl Item {
    /// About the bytes in memory, without those of other fields.
    fn bytes(&self) -> usize {
        let vector =
            self.vector.as_ref().map_or(0, |vector| vector.active_dims() * (size_of::<u32>() + size_of::<f32>()));
        size_of::<Self>() + self.document.text.len() + vector
    }
}

/// Items in their order.
type Items = Box<dyn Iterator<Item = Result<Item>> + Send>;

/// Reads the input, of a shard its documents alone: a corpus, a corpus with a file of vectors in the same order, or vectors alone.
///
/// Vectors are read ahead, since reading them takes about as long as adding them. Texts are not: encoding them takes far longer.
pub(super) fn read_items(args: &IndexArgs, model: &ModelDir, share: Option<Share>) -> Result<Items> {
    let items = items(args, model)?;
    let items = match share {
        Some(share) => of_shard(items, share),
        None => items,
    };
    if args.vectors.is_none() {
        return Ok(items);
    }
    Ok(Box::new(Ahead::of(items, |item| item.as_ref().map_or(0, Item::bytes))?))
}

/// The items of a shard. All items are counted.
fn of_shard(items: Items, share: Share) -> Items {
    let is_ours =
        move |item: &Item| share.take(&item.document.id, |digest| digest.add(&item.document, item.vector.as_ref()));
    Box::new(items.filter(move |item| item.as_ref().map_or(true, &is_ours)))
}

fn items(args: &IndexArgs, model: &ModelDir) -> Result<Items> {
    let documents = args.input.as_deref().map(read_documents).transpose()?;
    let Some(path) = &args.vectors else {
        let alone = documents.into_iter().flatten();
        return Ok(Box::new(alone.map(|document| Ok(Item { document: document?, vector: None }))));
    };
    let vocabulary = model.vocabulary(None)?;
    let vectors = read_vector_rows(path, args.vector_ids.as_deref(), move |token| vocabulary.dim(token))?;
    match documents {
        Some(documents) => Ok(Box::new(paired(path, documents, vectors).map(|pair| {
            let (document, vector) = pair?;
            Ok(Item { document, vector: Some(vector) })
        }))),
        None => Ok(Box::new(vectors.enumerate().map(|(row, vector)| {
            let (id, vector) = vector?;
            let id = id.unwrap_or_else(|| row.to_string());
            Ok(Item { document: Document { id, ..Document::default() }, vector: Some(vector) })
        }))),
    }
}
