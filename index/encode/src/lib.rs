//! Runs ONNX files in ONNX Runtime: sessions, execution providers, the fused output layer.
//!
//! [`OnnxNetwork`] is a [`Network`](splade_core::Network) over an ONNX file of a model folder. The library of ONNX Runtime
//! is loaded at run time ([`load_onnx_runtime`]).
//!
//! On x86-64 a pooled file is split at its features: ONNX Runtime runs the graph before them, and the output layer (the
//! product with the vocabulary matrix and the maximum over tokens) runs here. For f32 files the vectors are the file's own
//! up to rounding; int8 products are rounded per token.
//!
//! # Features
//!
//! * `cuda`, `coreml`: the providers of these names ([`OnnxDevice`]), in a library that has them. They need nothing to
//!   build; one that does not load leaves the network on the CPU, and [`Placement`] says why.

// not forbidden: output_layer/simd.rs calls functions for instructions it has detected, and says so
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod error;
mod onnx;
mod onnx_cut;
mod onnx_info;
mod onnx_operators;
mod onnx_providers;
mod output_layer;

pub use error::{Error, Result};
pub use onnx::{HEAD_KEY, HEAD_MODE_KEY, LIBRARY, OnnxModel, OnnxNetwork, OnnxOptions, POOLING_KEY, load_onnx_runtime};
pub use onnx_cut::OUTPUT_LAYER_KEY;
pub use onnx_info::{OnnxRuntimeInfo, onnx_runtime_info};
pub use onnx_providers::{OnnxDevice, Placement};
