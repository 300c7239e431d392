//! The queries of a search: a text, a file of texts, a file of vectors, or both files row by row.

use std::path::Path;

use anyhow::Result;
use splade_core::{SparseVector, Vocabulary};
use splade_files::{Query, read_queries, read_vector_rows};
use splade_index::ImpactIndex;

use crate::cli::{Mode, SearchArgs};
use crate::failure::bad_input;
use crate::hub::{self, Wants};
use crate::vectors::paired;

/// A query, with its vector if the input has one.
pub(super) struct Asked {
    pub(super) query: Query,
    pub(super) vector: Option<SparseVector>,
}

impl From<Query> for Asked {
    fn from(query: Query) -> Self {
        Self { query, vector: None }
    }
}

/// Function from a token to its dimension.
pub(super) type TokenDims = Box<dyn FnMut(&str) -> Option<u32> + Send>;
type AskedIter = Box<dyn Iterator<Item = Result<Asked>> + Send>;

/// Reads the queries. `token_dims` is called for a file of vectors, whose entries may be named by tokens.
pub(super) fn read(args: &SearchArgs, token_dims: impl FnOnce() -> Result<TokenDims>) -> Result<AskedIter> {
    if let Some(text) = &args.query {
        let query = Query { id: "1".into(), text: text.clone() };
        return Ok(Box::new(std::iter::once(Ok(query.into()))));
    }
    let queries = args.queries.as_deref().map(read_queries).transpose()?;
    let Some(path) = &args.query_vectors else {
        return Ok(Box::new(queries.into_iter().flatten().map(|query| Ok(query?.into()))));
    };
    let vectors = read_vector_rows(path, None, token_dims()?)?;
    match queries {
        Some(queries) => Ok(Box::new(paired(path, queries, vectors).map(|pair| {
            let (query, vector) = pair?;
            Ok(Asked { query, vector: Some(vector) })
        }))),
        None if args.mode != Mode::Sparse => Err(bad_input(
            format!("{}: vectors alone have no text to search by BM25", path.display()),
            "give the texts with --queries too, or use --mode sparse",
        )),
        None => Ok(Box::new(vectors.enumerate().map(|(row, vector)| {
            let (id, vector) = vector?;
            let query = Query { id: id.unwrap_or_else(|| row.to_string()), text: String::new() };
            Ok(Asked { query, vector: Some(vector) })
        }))),
    }
}

/// Function from a token to its dimension, by the vocabulary of the index or of --model; no token has one without either.
pub(super) fn token_dims(index: &ImpactIndex, args: &SearchArgs) -> Result<TokenDims> {
    let vocabulary = match (&args.model, index.read_query_encoder()?) {
        (_, Some(encoder)) => encoder.vocabulary().clone(),
        (Some(model), None) => hub::open(model, Wants::encoder(&args.network).and_weights())?.vocabulary(None)?,
        (None, None) => return Ok(dims_of(None)),
    };
    Ok(dims_of(Some(vocabulary)))
}

/// Function from a token to its dimension in a vocabulary; no token has one without.
pub(super) fn dims_of(vocabulary: Option<Vocabulary>) -> TokenDims {
    Box::new(move |token| vocabulary.as_ref()?.dim(token))
}

/// The error of a file without a query.
pub(super) fn no_queries(args: &SearchArgs) -> anyhow::Error {
    let path = args.queries.as_deref().or(args.query_vectors.as_deref()).unwrap_or(Path::new("-"));
    bad_input(
        format!("{}: there are no queries in it", path.display()),
        "one JSON object a line is needed: {\"_id\": \"q1\", \"text\": \"…\"}",
    )
}
