//! Runs ONNX files in ONNX Runtime: sessions, execution providers, the fused output layer.
//!
//! ONNX Runtime is the fastest way to run a SPLADE network on a CPU, and the way to run files of other tools. Its library is
//! loaded at run time ([`load_onnx_runtime`]), so nothing of it is needed to build.
//!
//! # Types
//!
//! * [`OnnxNetwork`] is a [`Network`](splade_core::Network) over an ONNX file of a model folder; [`OnnxModel`] is the file in
//!   its sessions, whatever its output means. [`OnnxOptions`] are the settings of a run.
//! * [`DenseEncoder`] gives dense vectors by an ONNX file of a folder of sentence-transformers.
//! * [`OnnxDevice`] and [`Placement`]: the device it runs on, and why not another.
//! * [`NotSplit`]: why a file is run whole, where the fast way cannot be taken.
//! * [`provenance()`]: whether a file was exported from the checkpoint beside it.
//! * [`OnnxSummary`]: what an ONNX file holds, whoever wrote it. [`metadata`] and [`tensor_names`]: what files of this
//!   program call things.
//!
//! # Design
//!
//! * On x86-64 a pooled file is split at its features: ONNX Runtime runs the graph before them, and the output layer (the
//!   product with the vocabulary matrix and the maximum over tokens) runs here. For fp32 and fp16 files the vectors are the
//!   file's own up to the rounding of f32 sums (within 1e-4, tested); int8 products are rounded per token here and per text
//!   there, so int8 vectors differ within what int8 loses anyway.
//! * Inputs are given as the file declares them: fixed numbers of texts or tokens, 32-bit ids, no attention mask. What
//!   cannot be run is refused when the file is opened.
//! * A file that was exported from other weights than those beside it is refused.
//!
//! # Features
//!
//! * `cuda`, `coreml`: the providers of these names ([`OnnxDevice`]), in a library that has them. They need nothing to
//!   build; one that does not load leaves the network on the CPU, and [`Placement`] has the reason.

// not forbidden: output_layer/simd.rs calls functions for instructions that it has detected, with a comment at each call
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod dense;
mod error;
mod info;
mod library;
pub mod metadata;
mod network;
mod onnx_file;
mod operators;
mod output_layer;
mod protobuf;
mod provenance;
mod providers;
mod session;
mod signature;
mod split_graph;
mod summary;
pub mod tensor_names;

pub use dense::DenseEncoder;
pub use error::{Error, Result};
pub use info::{OnnxRuntimeInfo, onnx_runtime_info};
pub use library::{LIBRARY, load_onnx_runtime};
pub use network::{NotSplit, OnnxNetwork};
pub use provenance::{Provenance, provenance};
pub use providers::{OnnxDevice, Placement};
pub use session::{OnnxModel, OnnxOptions};
pub use summary::{External, OnnxSummary, OnnxValue, OnnxWeights};
