//! Files: corpora, vector files, model folders, query tables, atomic writes.
//!
//! The only crate that knows layouts on disk, except those of an index.
//!
//! * [`read_documents`], [`read_queries`], [`read_texts`] and [`read_vectors`] stream files of any length, with the line in
//!   every error; [`read_rows`] is under them.
//! * [`CsrWriter`], [`CiffWriter`], [`PostingTables`] and [`write_weights_by_key`] write vectors for other programs.
//! * [`ModelDir`] finds everything in a model folder, whichever tool wrote it; [`NewModel`] writes one.
//! * [`DenseModelDir`] is the folder of a dense encoder of sentence-transformers.
//! * [`Family`] is the transformer that a `config.json` describes; [`CheckpointFiles`] finds its shards.
//! * [`Shard`] selects the documents of one of many machines; [`ShardManifest`] and [`merge_vectors`] join the shards.
//! * [`AtomicFile`] and [`AtomicFolder`] make outputs atomic; [`ResumableFolder`] makes one that an interrupted process leaves
//!   for the next.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod atomic;
mod checkpoint_files;
mod corpus;
mod dense_model;
mod encoded;
mod error;
mod family;
mod fingerprint;
mod json;
mod layout;
mod matrix;
mod model_dir;
mod new_model;
mod precision;
mod query_table;
mod read;
mod resumable;
mod shard;
mod tensors;
mod vector_export;
mod vector_file;

// Corpora and vectors
pub use corpus::{
    Document, InputRow, InputRows, InputText, Query, RowPosition, read_documents, read_ids, read_queries, read_rows,
    read_texts,
};
pub use encoded::{EncodedTexts, EncodedVector, EncodedWriter};
pub use vector_export::{
    CiffStats, CiffWriter, CsrStats, CsrWriter, DocumentRow, Impacts, MAX_CIFF_DOCUMENTS, NegativeWeight,
    PostingTables, PostingTablesStats, TableNotes, write_impacts_by_key, write_weights_by_key,
};
pub use vector_file::{VectorRows, read_vector_rows, read_vectors, read_vectors_named, write_tokens, write_vector};
// Shards of a job on many machines
pub use shard::{
    DistinctIds, Double, IdsDigest, Partition, SHARD_FILE, Shard, ShardFile, ShardInput, ShardKind, ShardManifest,
    add_row, complete_set, merge_vectors,
};
// Model folders
pub use checkpoint_files::{CHECKPOINT_NAMES, CheckpointFiles, CheckpointFormat, is_index, shard_names};
pub use dense_model::{DENSE_ONNX_FILES, DenseModelDir, DensePooling};
pub use family::{FAMILIES, Family, LengthRule, Lengths, UnknownFamily, stated_class};
pub use layout::{ModelLayout, ONNX_FILES, TableLayout, files_beside_tokenizer, join};
pub use model_dir::{Architecture, HeadChoice, HeadSource, ModelDir, QuerySide};
pub use new_model::NewModel;
pub use precision::Precision;
pub use query_table::{
    read_idf, read_query_encoder, read_query_weights, read_token_weights, read_vocabulary, to_idf, to_safetensors,
    write_query_encoder,
};
pub use tensors::{TensorInfo, read_small_tensors, read_tensor_list};
// Reading
pub use json::read_json;
pub use read::{open_file, read_file, read_text};
// Writing
pub use atomic::{AtomicFile, AtomicFolder, is_temporary, remove_leftovers};
pub use json::write_json;
pub use resumable::ResumableFolder;
// Errors
pub use error::{Error, Result};
