//! Training of SPLADE models, from examples to a checkpoint.
//!
//! A SPLADE model is a masked-language model that is trained to rank: a query scores its own passage above the others of
//! the batch, with few terms. This crate trains from a base model or from random weights, on the CPU or a GPU. Its steps
//! agree with those of the Python library sentence-transformers within tolerances that the tests state, so that recipes for
//! that library can be used.
//!
//! ```
//! use splade_core::Encoder;
//! use splade_files::ModelDir;
//! use splade_trainer::{Event, Observer, Start, TrainConfig, fit};
//!
//! struct Quiet;
//!
//! impl Observer for Quiet {
//!     fn event(&mut self, _: Event<'_>) {}
//! }
//!
//! // thirty pairs of question and passage
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("pairs.jsonl");
//! let line = |n: usize, word| format!("{{\"query\": \"hva er {word}\", \"positive\": \"{word} nummer {n}\"}}\n");
//! let lines: String = (0..30).map(|n| line(n, ["fisk", "fjord", "fjell"][n % 3])).collect();
//! std::fs::write(&file, lines)?;
//!
//! // two steps of a tiny new model with a new tokenizer
//! let (config, _) = TrainConfig::from_value(&serde_json::json!({
//!     "model": {
//!         "architecture": "inference-free-splade",
//!         "init": {"architecture": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32,
//!                  "vocab_size": 100, "tokenizer": {"train_on": []}},
//!     },
//!     "training": {"output_dir": folder.path().join("run"), "max_steps": 2, "per_device_train_batch_size": 4,
//!                  "max_seq_length": 16, "eval_strategy": "no", "save_strategy": "no"},
//!     "datasets": {"pairs": {"files": [file]}},
//! }))?;
//! let report = fit(&config, &Start::New, &mut Quiet)?;
//!
//! // the result is a model folder
//! let model = ModelDir::open(&report.model.expect("the run was not stopped"))?;
//! assert!(model.query_encoder()?.encode_query("fisk")?.active_dims() > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! * [`TrainConfig`] is a resolved config; [`TrainConfig::from_value`] makes it from a user's file, and [`config::KEYS`]
//!   lists every key.
//! * [`fit`] trains, [`plan`] describes a run without training, and an [`Observer`] gets the events of a run.
//! * [`Session`] makes one step in a loop of the caller: a [`Trainee`] (the model in training), [`data`], a [`loss`] and an
//!   [`optimizer`].
//! * [`model`] has the transformers, each written once over an [`Algebra`](model::Algebra);
//!   [`CandleNetwork`](model::CandleNetwork) runs one as a [`Network`](splade_core::Network).
//!
//! # Design
//!
//! Invariants of the crate:
//!
//! * A forward pass is written once. [`Candle`](model::Candle) computes it on any device, a [`Tape`](model::Tape) computes and
//!   records a training pass on the CPU, a [`Declaration`](model::Declaration) lists the parameters it reads, and
//!   `splade-export` records it.
//! * The same seed, config and data give the same checkpoint, on the CPU bit for bit, whatever the number of threads; a
//!   resumed run ends with the same weights as an uninterrupted one.
//! * Tests compare every custom operation with Candle's operations, and the gradients of both with those of the reference.
//! * A loss or gradient that is not finite stops the run before it changes a weight.
//! * The crate does not print and does not read the environment. It writes checkpoints atomically.
//!
//! # Features
//!
//! * `cuda`, `metal`: Candle on such a device.

// `model/product.rs` calls gemm, which takes pointers; nothing else is unsafe
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod card;
mod checkpoint;
pub mod config;
pub mod data;
mod device;
mod doctor;
mod error;
mod evaluation;
mod events;
mod fit;
mod log;
pub mod loss;
mod mlm;
pub mod model;
pub mod optimizer;
mod prepare;
mod schedule;
mod session;
mod tokenizer;
mod trainee;

pub use checkpoint::{checkpoints, latest_checkpoint};
pub use config::{TrainConfig, apply_override};
pub use device::{best_device, device};
pub use doctor::Sparsity;
pub use error::{Error, Result};
pub use fit::{Event, FitReport, Observer, Start, fit, plan};
pub use log::Scalar;
pub use prepare::{GroupPlan, Plan};
pub use session::{Session, StepReport};
pub use trainee::Trainee;
