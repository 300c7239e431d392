//! Flags of search engines, and of `push-index`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::NetworkArgs;
use super::values::{at_least_one, size_of};
use crate::engines::{DEFAULT_BATCH_BYTES, DEFAULT_CONCURRENCY};
use crate::failure::bad_input;

/// Search engines that take our vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineKind {
    Qdrant,
    Milvus,
    Postgres,
    Opensearch,
    Elasticsearch,
}

impl EngineKind {
    /// Name of the engine, as in the flags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qdrant => "qdrant",
            Self::Milvus => "milvus",
            Self::Postgres => "postgres",
            Self::Opensearch => "opensearch",
            Self::Elasticsearch => "elasticsearch",
        }
    }
}

/// Address, collection and credentials of an engine.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// Address of the engine: http://localhost:6333, postgresql://localhost/db
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Collection of the engine
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Name of the environment variable with the API key of the engine
    #[arg(long, value_name = "VARIABLE", conflicts_with = "user")]
    pub(crate) api_key_env: Option<String>,
    /// User of the engine
    #[arg(long, value_name = "NAME", requires = "password_env")]
    pub(crate) user: Option<String>,
    /// Name of the environment variable with the password of --user
    #[arg(long, value_name = "VARIABLE", requires = "user")]
    pub(crate) password_env: Option<String>,
    /// Seconds without an answer of the engine after which a request is sent again
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) engine_timeout: u64,
    /// Number of requests to the engine at the same time; default: 4
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    concurrency: Option<usize>,
}

impl EngineArgs {
    /// The address.
    ///
    /// # Errors
    /// No address.
    pub(crate) fn url(&self) -> Result<&str> {
        self.url.as_deref().ok_or_else(|| bad_input("--url is missing", "give the address of the engine"))
    }

    /// The collection.
    ///
    /// # Errors
    /// No name, an empty one.
    pub(crate) fn collection(&self) -> Result<&str> {
        let name = self.collection.as_deref().filter(|name| !name.is_empty());
        name.ok_or_else(|| bad_input("--collection is missing", "give the name of the collection"))
    }

    /// Number of requests at the same time.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(DEFAULT_CONCURRENCY)
    }

    /// True if a flag of an engine is given.
    pub(crate) fn are_given(&self) -> bool {
        let texts = [&self.url, &self.collection, &self.api_key_env, &self.user];
        texts.iter().any(|text| text.is_some()) || self.concurrency.is_some()
    }
}

/// Type of the field that an OpenSearch index keeps vectors in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum FieldType {
    // every document with a term of the query is scored
    #[default]
    RankFeatures,
    // approximate in large segments
    SparseVector,
}

/// Settings of a new collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CollectionArgs {
    /// Make an HNSW index after the push: searches are approximate, and vectors keep their 1000 heaviest entries. For
    /// postgres
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hnsw: bool,
    /// Number of shards of a new collection. For opensearch and elasticsearch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shards: Option<u32>,
    /// Number of further copies of each shard of a new collection. For opensearch and elasticsearch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<u32>,
    /// Leave vectors out of the stored documents, which takes less disk; `_update` and `_reindex` lose them. For opensearch and
    /// elasticsearch
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) exclude_vectors: bool,
    /// Type of the field of vectors; sparse_vector: approximate search, version 3.3 or later; default: rank_features. For
    /// opensearch
    #[arg(long, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field_type: Option<FieldType>,
    /// Number of documents of a segment from which on a sparse_vector is searched approximately. For opensearch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approximate_threshold: Option<u32>,
    /// Leave out the vectors of words, which `search --mode bm25` and `--mode hybrid` need. For qdrant
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_bm25: bool,
}

impl CollectionArgs {
    /// The settings that are given, as JSON; null for none.
    pub(crate) fn to_json(&self) -> Json {
        match serde_json::to_value(self) {
            Ok(Json::Object(settings)) if !settings.is_empty() => Json::Object(settings),
            _ => Json::Null,
        }
    }

    /// Checks that no setting is given but those of `known`.
    ///
    /// # Errors
    /// A setting that the engine does not have.
    pub(crate) fn expect_only(&self, engine: EngineKind, known: &[&str]) -> Result<()> {
        let given = self.to_json();
        let mut names = given.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let Some(unknown) = names.find(|name| !known.contains(name)) else { return Ok(()) };
        let (flag, engine) = (unknown.replace('_', "-"), engine.name());
        Err(bad_input(format!("--{flag}: {engine} has no such setting"), "leave it out"))
    }
}

/// Copy an index or a file of vectors into a search engine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade push-index wiki.index --to qdrant --url http://localhost:6333 --collection wiki
  splade push-index wiki.index --to qdrant --url http://localhost:6333 --collection wiki --sync
  splade push-index wiki.index --to opensearch --url http://localhost:9200 --collection wiki

The collection is created if it is not there. A push that was interrupted or killed is continued by the same
command, which sends only what is missing. After the push, scores of the collection are compared with exact
ones; the exit code is 1 if they differ by more than the engine states.")]
pub(crate) struct PushIndexArgs {
    /// Index folder, or file of vectors in any form of `index --vectors`
    #[arg(value_name = "INDEX|VECTORS")]
    pub(crate) source: PathBuf,
    /// Search engine
    #[arg(long, value_name = "ENGINE")]
    pub(crate) to: EngineKind,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) new_collection: CollectionArgs,
    /// Model folder or Hub id that made the vectors; required for a file of vectors
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Read the ids of a file of vectors from this file, one per line. Only for .npz, .safetensors and .csr
    #[arg(long, value_name = "IDS.txt")]
    pub(crate) vector_ids: Option<PathBuf>,
    /// Update documents that have changed, and delete those that are no longer in the source
    #[arg(long)]
    pub(crate) sync: bool,
    /// Replace an existing collection that this program made
    #[arg(long, conflicts_with = "sync")]
    pub(crate) overwrite: bool,
    /// Size of a request, about; default: 8MB
    #[arg(long, value_name = "SIZE", default_value_t = DEFAULT_BATCH_BYTES, hide_default_value = true, value_parser = size_of)]
    pub(crate) batch_bytes: usize,
    /// Queries to verify the collection with after the push, encoded by the model; default: terms of a sample of documents
    #[arg(long, value_name = "FILE", conflicts_with = "no_verify")]
    pub(crate) queries: Option<PathBuf>,
    /// Do not compare scores of the collection with exact ones after the push
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Compare scores of an existing collection with exact ones, and push nothing
    #[arg(long, conflicts_with_all = ["no_verify", "sync", "overwrite"])]
    pub(crate) verify_only: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}
