//! Search engines: `push-index`, `search --engine` and `eval-mteb --engine`, against stubs on this machine, and against the
//! engines themselves where a test is ignored by default: `make test-engines` starts them. Beside them stand other tests that need
//! programs of others: clusters of Spark and Ray, and schemathesis.
#![cfg(feature = "train")]

#[cfg(target_os = "linux")]
#[path = "engines/clusters.rs"]
mod clusters;
#[path = "engines/files.rs"]
mod files;
#[path = "engines/live.rs"]
mod live;
#[path = "engines/milvus.rs"]
mod milvus;
#[cfg(feature = "serve")]
#[path = "engines/openapi.rs"]
mod openapi;
#[path = "engines/opensearch.rs"]
mod opensearch;
#[path = "engines/postgres.rs"]
mod postgres;
#[path = "engines/qdrant.rs"]
mod qdrant;
mod util;
