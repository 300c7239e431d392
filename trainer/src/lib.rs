//! From examples to a checkpoint.
//!
//! SPLADE models are masked-language models taught to rank: a query should score its own passage above the others of the
//! batch, with as few terms as possible. This crate teaches them, from a base model or from nothing, on the CPU or a GPU,
//! and step for step as the Python library sentence-transformers does, so that its recipes hold here.
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
//! // Thirty pairs of question and passage.
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("pairs.jsonl");
//! let line = |n: usize, word| format!("{{\"query\": \"hva er {word}\", \"positive\": \"{word} nummer {n}\"}}\n");
//! let lines: String = (0..30).map(|n| line(n, ["fisk", "fjord", "fjell"][n % 3])).collect();
//! std::fs::write(&file, lines)?;
//!
//! // A new model, tiny, with a tokenizer of its own: two steps.
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
//! let outcome = fit(&config, &Start::New, &mut Quiet)?;
//!
//! // The result is a model folder, ready to search with.
//! let model = ModelDir::open(&outcome.model.expect("the run was not stopped"))?;
//! assert!(model.query_encoder()?.encode_query("fisk")?.active_dims() > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! * [`TrainConfig`] is every key of a training, documented; [`TrainConfig::from_value`] resolves what a user wrote.
//! * [`fit`] is the loop, [`plan`] what it would do; an [`Observer`] watches.
//! * [`Session`] is one step of it: a [`Trainee`] (the model that is learning), its data, [`SpladeLoss`] and [`AdamW`].
//! * [`load_data_set`] reads examples, [`Sampler`] cuts them into batches.
//! * [`model`] has the transformers, each written once against an [`Algebra`](model::Algebra);
//!   [`CandleNetwork`](model::CandleNetwork) runs one behind the contract of `splade-index`.
//! * [`mlm`] pretrains, and [`wordpiece`] trains tokenizers, where no base model is to be had.
//!
//! # Design
//!
//! What holds, everywhere in the crate:
//!
//! * A forward pass is written once. Candle computes it, a [`Declaration`](model::Declaration) asks it which parameters it
//!   reads, and `splade-export` records it.
//! * The same seed, config and data give the same checkpoint, on the CPU bit for bit, whatever the number of threads; a
//!   resumed run ends where an uninterrupted one does.
//! * Every operation of our own has a plain twin out of Candle's, and gradients are compared with the reference's.
//! * A loss or gradient that is not finite stops the run before a weight has moved.
//! * Nothing is printed and no environment is read; checkpoints appear whole or not at all.
//!
//! # Features
//!
//! * `cuda`, `metal`: Candle on such a device.

#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod card;
mod checkpoint;
mod config;
mod data;
mod device;
mod error;
mod evaluation;
mod fit;
mod log;
mod loss;
pub mod mlm;
pub mod model;
mod optimizer;
mod schedule;
mod session;
mod trainee;
pub mod wordpiece;

pub use checkpoint::*;
pub use config::*;
pub use data::*;
pub use device::{best_device, device};
pub use error::{Error, Result};
pub use fit::{Event, Observer, Outcome, Plan, Start, fit, plan};
pub use log::*;
pub use loss::*;
pub use optimizer::*;
pub use schedule::*;
pub use session::{Material, MicroBatch, Session, StepReport};
pub use trainee::Trainee;
