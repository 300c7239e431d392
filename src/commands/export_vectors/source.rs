//! [`Source`]: documents with their vectors, of an index folder or of a file of vectors.

use std::path::{Path, PathBuf};

use anyhow::Result;
use splade_core::{SparseVector, Vocabulary};
use splade_files::{ModelDir, read_vector_rows};
use splade_index::{ImpactIndex, Searcher, StoredDocument};

use crate::cli::ExportVectorsArgs;
use crate::failure::bad_input;
use crate::hub::{self, Wants};

/// Documents in their order, each with its vector.
type Rows<'a> = Box<dyn Iterator<Item = Result<(StoredDocument, SparseVector)>> + 'a>;

/// Documents to export.
pub(super) struct Source {
    content: Content,
    /// none if neither the source nor `--model` has one
    vocabulary: Option<Vocabulary>,
    /// number of dimensions, if it is known
    dimensions: Option<u32>,
    /// of model and tokenizer, if they are known
    fingerprints: Option<(String, String)>,
}

enum Content {
    Index(Box<Searcher>),
    Vectors { path: PathBuf, ids: Option<PathBuf> },
}

impl Source {
    /// Opens the source that the command line names.
    ///
    /// # Errors
    /// A file or index that cannot be read; a model that is not that of the index.
    pub(super) fn open(args: &ExportVectorsArgs) -> Result<Self> {
        let model = args.model.as_deref().map(open_model).transpose()?;
        if args.source.is_dir() {
            return Self::of_index(&ImpactIndex::open(&args.source)?, model.as_ref(), args);
        }
        let content = Content::Vectors { path: args.source.clone(), ids: args.vector_ids.clone() };
        let Some(model) = model else {
            return Ok(Self { content, vocabulary: None, dimensions: None, fingerprints: None });
        };
        let vocabulary = model.vocabulary(None)?;
        let fingerprints = Some((model.fingerprint()?, vocabulary.fingerprint().to_owned()));
        let dimensions = Some(u32::try_from(model.dimensions()?)?);
        Ok(Self { content, vocabulary: Some(vocabulary), dimensions, fingerprints })
    }

    fn of_index(index: &ImpactIndex, model: Option<&ModelDir>, args: &ExportVectorsArgs) -> Result<Self> {
        if args.vector_ids.is_some() {
            let message = format!("--vector-ids: the documents of {} have ids of their own", args.source.display());
            return Err(bad_input(message, "leave --vector-ids out"));
        }
        let settings = index.settings();
        let vocabulary = match model {
            Some(model) => {
                let vocabulary = model.vocabulary(None)?;
                let terms = u32::try_from(model.dimensions()?)?;
                // the weights are those of the index, whichever checkpoint of the model is given
                index.expect_model(terms, &settings.model_fingerprint, vocabulary.fingerprint())?;
                Some(vocabulary)
            }
            None => index.read_query_encoder()?.map(|encoder| encoder.vocabulary().clone()),
        };
        Ok(Self {
            content: Content::Index(Box::new(index.searcher()?)),
            vocabulary,
            dimensions: Some(settings.vocabulary_size),
            fingerprints: Some((settings.model_fingerprint.clone(), settings.tokenizer_fingerprint.clone())),
        })
    }

    pub(super) fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    pub(super) fn dimensions(&self) -> Option<u32> {
        self.dimensions
    }

    /// Fingerprints of model and tokenizer.
    pub(super) fn fingerprints(&self) -> Option<(&str, &str)> {
        self.fingerprints.as_ref().map(|(model, tokenizer)| (&**model, &**tokenizer))
    }

    /// Number of rows, or of documents where documents are split into passages; none if it is not known.
    pub(super) fn count(&self) -> Option<u64> {
        match &self.content {
            Content::Index(searcher) => Some(searcher.len() as u64),
            Content::Vectors { .. } => None,
        }
    }

    /// Reads all rows. A passage is a row with the id `DOCUMENT#NUMBER` and the text of the passage.
    ///
    /// # Errors
    /// A file that cannot be read; from the iterator, a damaged index or a broken line.
    pub(super) fn rows(&self) -> Result<Rows<'_>> {
        match &self.content {
            Content::Index(searcher) => Ok(Box::new(searcher.vectors().map(|found| {
                let (address, vector) = found?;
                let document = searcher.document(address)?;
                let Some(passage) = searcher.passage(address)? else { return Ok((document, vector)) };
                let text = document.full_text().get(passage.range).unwrap_or_default().trim().to_owned();
                let id = format!("{}#{}", document.id, passage.number);
                Ok((StoredDocument { id, title: None, text, other: document.other }, vector))
            }))),
            Content::Vectors { path, ids } => self.rows_of_file(path, ids.as_deref()),
        }
    }

    fn rows_of_file(&self, path: &Path, ids: Option<&Path>) -> Result<Rows<'_>> {
        let vocabulary = self.vocabulary.clone();
        let rows = read_vector_rows(path, ids, move |token| vocabulary.as_ref()?.dim(token))?;
        let path = path.to_owned();
        Ok(Box::new(rows.enumerate().map(move |(row, found)| {
            let (id, vector) = found?;
            let id = id.unwrap_or_else(|| row.to_string());
            let beyond = vector.dims().last().filter(|dim| self.dimensions.is_some_and(|count| **dim >= count));
            match (beyond, self.dimensions) {
                (Some(dim), Some(count)) => Err(bad_input(
                    format!("{}: document {id} has dimension {dim}, and the model has {count}", path.display()),
                    "give the model that made the vectors with --model",
                )),
                _ => Ok((StoredDocument { id, ..StoredDocument::default() }, vector)),
            }
        })))
    }
}

fn open_model(folder: &Path) -> Result<ModelDir> {
    hub::open(folder, Wants::CHECKPOINT)
}
