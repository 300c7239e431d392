//! From examples to a checkpoint.

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
