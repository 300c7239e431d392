//! Search engines that hold a copy of an index: one file an engine, behind the trait [`Engine`].
//!
//! `prepare` makes a collection, `push` sends documents and their vectors, `limits` fits vectors to what an engine can hold,
//! `manifest` describes a collection, `words` makes vectors of words for engines without BM25, `verify` compares an engine's
//! scores with local ones, and `client` searches. `http`, `retry`, `batches`, `parts` and `typed` serve the drivers and `push`.

mod batches;
mod client;
mod elasticsearch;
mod error;
mod http;
mod limits;
mod lucene;
mod manifest;
mod milvus;
mod opensearch;
mod parts;
mod postgres;
mod prepare;
mod push;
mod qdrant;
mod query_model;
mod retry;
mod source;
mod typed;
mod verify;
mod words;

use std::collections::HashMap;
use std::fmt;

use anyhow::Result;
use serde_json::{Map, Value as Json};
use splade_core::{Fusion, SparseVector};
use splade_index::{FilterTree, StoredDocument};

pub(crate) use client::{EngineClient, Wanted, WantedRanking};
pub(crate) use error::EngineError;
pub(crate) use manifest::CollectionManifest;
pub(crate) use push::{DEFAULT_BATCH_BYTES, DEFAULT_CONCURRENCY, PushOptions, Pushed, push};
pub(crate) use query_model::QueryModel;
pub(crate) use source::Source;
pub(crate) use verify::{Verified, sample_queries, sample_texts, verify, verify_words};
pub(crate) use words::WordSettings;

use crate::cli::{CollectionArgs, EngineArgs, EngineKind};
use limits::Limits;

/// Result of a call to an engine.
pub(crate) type EngineResult<T> = std::result::Result<T, EngineError>;

/// A collection of an engine: the place for one index. It need not exist yet.
///
/// Calls may come from several threads at once. A driver sends each request once; `retry` repeats what failed for a while.
pub(crate) trait Engine: Send + Sync {
    /// Name of the engine: `qdrant`.
    fn name(&self) -> &'static str;

    /// Engine and collection, for messages: `qdrant collection docs`.
    fn place(&self) -> String;

    /// Vectors that the engine can hold and search for.
    fn limits(&self) -> Limits;

    /// Largest difference between the engine's scores and exact ones, by design.
    fn tolerance(&self) -> Tolerance;

    /// Settings of a new collection that were asked for, for its manifest; null for none.
    fn settings(&self) -> Json {
        Json::Null
    }

    /// True if a new collection gets vectors of words from this program, because the engine has no BM25 over its texts.
    fn takes_word_vectors(&self) -> bool {
        false
    }

    /// Reads the manifest and the number of documents of the collection; none if there is no such collection.
    fn state(&self) -> EngineResult<Option<Collection>>;

    /// Creates the collection with the mapping that the manifest asks for, and keeps the manifest in it.
    fn create(&self, manifest: &CollectionManifest) -> EngineResult<()>;

    /// Makes the parts of a collection that [`create`](Self::create) had not yet made when it was interrupted.
    fn complete(&self, _manifest: &CollectionManifest) -> EngineResult<()> {
        Ok(())
    }

    /// Replaces the manifest of the collection. Its fields are those of before.
    fn write_manifest(&self, manifest: &CollectionManifest) -> EngineResult<()>;

    /// Removes the collection with all documents.
    fn remove(&self) -> EngineResult<()>;

    /// Adds or replaces documents in one request, and returns those that the engine did not take.
    ///
    /// An error stands for all of them: none, some or all may have arrived.
    fn upsert(&self, records: &[Record]) -> EngineResult<Vec<ItemFailure>>;

    /// Digests of the documents with these ids that the collection has, by id.
    fn digests(&self, ids: &[String]) -> EngineResult<HashMap<String, String>>;

    /// A page of the ids of all documents. `after` is the [`IdPage::next`] of the page before.
    fn ids(&self, after: Option<&Json>) -> EngineResult<IdPage>;

    /// Deletes the documents with these ids. Ids that the collection does not have are no error.
    fn delete(&self, ids: &[String]) -> EngineResult<()>;

    /// Waits until searches find every document that was sent.
    fn settle(&self) -> EngineResult<()>;

    /// Body of the request that [`search`](Self::search) sends, with its method and path in the first line, for people to copy.
    ///
    /// # Errors
    /// A part of the query that the engine cannot express, by name.
    fn request(&self, query: &EngineQuery<'_>) -> EngineResult<String>;

    /// Best `k` documents, score descending.
    fn search(&self, query: &EngineQuery<'_>) -> EngineResult<Vec<EngineHit>>;
}

/// A document as an engine gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// id of the document
    pub(crate) id: String,
    /// title, if there is one
    pub(crate) title: Option<String>,
    /// text
    pub(crate) text: String,
    /// all other fields; the values of typed fields have their type
    pub(crate) fields: Map<String, Json>,
    /// vector, fitted to the limits of the engine and in the numbers of the collection; it may be empty
    pub(crate) vector: SparseVector,
    /// vector of the words of title and text, in collections that have such vectors; it may be empty
    pub(crate) words: Option<SparseVector>,
    /// digest of document and vector before they were fitted
    pub(crate) digest: String,
}

/// A document that an engine did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemFailure {
    /// id of the document
    pub(crate) id: String,
    /// reason, as the engine states it
    pub(crate) message: String,
    /// true if the document may be taken later, as after a full queue
    pub(crate) retryable: bool,
}

/// A collection that exists.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Collection {
    /// none if the collection was not made by this program
    pub(crate) manifest: Option<CollectionManifest>,
    /// documents
    pub(crate) n_docs: u64,
}

/// Ids of documents of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct IdPage {
    pub(crate) ids: Vec<String>,
    /// position of the next page, in the engine's own form; none after the last
    pub(crate) next: Option<Json>,
}

/// Search of a collection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineQuery<'a> {
    /// vector, fitted to the limits of the engine and in the numbers of the collection
    pub(crate) vector: &'a SparseVector,
    /// ranking that is returned
    pub(crate) ranking: EngineRanking<'a>,
    /// number of hits
    pub(crate) k: usize,
    /// condition on the documents
    pub(crate) filter: Option<&'a FilterTree>,
    /// true if titles, texts and fields of the hits are needed, and not only their ids
    pub(crate) with_documents: bool,
}

impl EngineQuery<'_> {
    /// Hits of each ranking that the search needs.
    pub(crate) fn depth(&self) -> usize {
        match self.ranking {
            EngineRanking::Hybrid(hybrid) => hybrid.depth.max(self.k),
            EngineRanking::Vectors | EngineRanking::Words(_) => self.k,
        }
    }
}

/// Rankings of an engine. A driver refuses those that its engine does not have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EngineRanking<'a> {
    /// by the dot product with the vector of the query
    Vectors,
    /// by BM25
    Words(EngineWords<'a>),
    /// both, fused
    Hybrid(EngineHybrid<'a>),
}

/// Words of a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineWords<'a> {
    /// text of the query
    pub(crate) text: &'a str,
    /// vector of its words, in collections whose documents have vectors of words
    pub(crate) vector: Option<&'a SparseVector>,
}

/// A ranking by words and its fusion with that by vectors, the vectors first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineHybrid<'a> {
    /// words of the query
    pub(crate) words: EngineWords<'a>,
    /// number of hits taken from each ranking
    pub(crate) depth: usize,
    /// fusion of the two rankings; a driver refuses what its engine does not have
    pub(crate) fusion: &'a Fusion,
}

/// Document that an engine found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EngineHit {
    /// score of the engine
    pub(crate) score: f32,
    /// the document; nothing but its id unless the query asks for more
    pub(crate) document: StoredDocument,
}

/// Largest difference between an engine's scores and exact ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tolerance {
    /// Scores differ by at most this number times the larger of 1 and the exact score, in either direction.
    Exact { per_unit_of_score: f32 },
    /// Scores are at most this share below the exact one, and above it by no more than the rounding of sums.
    Below { share: f32 },
    /// Scores of BM25 differ by at most this share of the exact score, in either direction, and ranks with them: the engine
    /// computes idf over each of its shards, and counts deleted documents for a while.
    Idf { share: f32 },
    /// The ranking is approximate: at least this share of the exact best documents is found. Scores are not compared.
    Recall { share: f32 },
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact { per_unit_of_score } => write!(f, "{per_unit_of_score:e} for each unit of score"),
            Self::Below { share } => write!(f, "up to {:.2} % below the exact score", share * 100.0),
            Self::Idf { share } => write!(f, "{:.0} % of the BM25 score, whose idf is the engine's", share * 100.0),
            Self::Recall { share } => write!(f, "at least {:.0} % of the exact best documents", share * 100.0),
        }
    }
}

/// Connects to an engine. `collection` has the settings of a new collection. No request is sent yet.
///
/// # Errors
/// Flags that are missing or contradict one another, settings that the engine does not have, an address that cannot be used.
pub(crate) fn open(kind: EngineKind, args: &EngineArgs, collection: &CollectionArgs) -> Result<Box<dyn Engine>> {
    let of_lucene = ["shards", "replicas", "exclude_vectors", "field_type", "approximate_threshold"];
    Ok(match kind {
        EngineKind::Qdrant => {
            collection.expect_only(kind, &["no_bm25"])?;
            Box::new(qdrant::Qdrant::new(args, collection)?)
        }
        EngineKind::Milvus => {
            collection.expect_only(kind, &[])?;
            Box::new(milvus::Milvus::new(args)?)
        }
        EngineKind::Postgres => {
            collection.expect_only(kind, &["hnsw"])?;
            Box::new(postgres::Postgres::new(args, collection)?)
        }
        EngineKind::Opensearch => {
            collection.expect_only(kind, &of_lucene)?;
            Box::new(opensearch::OpenSearch::new(args, collection)?)
        }
        EngineKind::Elasticsearch => {
            collection.expect_only(kind, &of_lucene[..3])?;
            Box::new(elasticsearch::Elasticsearch::new(args, collection)?)
        }
    })
}
