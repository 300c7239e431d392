//! Search engines: `push-index`, `search --engine` and `eval-mteb --engine`, against stubs on this machine, and against the
//! engines themselves where a test is ignored by default: `make test-engines` starts them.
#![cfg(feature = "train")]

#[path = "engines/files.rs"]
mod files;
#[path = "engines/live.rs"]
mod live;
#[path = "engines/milvus.rs"]
mod milvus;
#[path = "engines/opensearch.rs"]
mod opensearch;
#[path = "engines/postgres.rs"]
mod postgres;
#[path = "engines/qdrant.rs"]
mod qdrant;
mod util;
