//! From examples to a checkpoint.

mod checkpoint;
mod config;
mod data;
mod error;
mod log;
mod loss;
pub mod mlm;
pub mod model;
mod optimizer;
mod schedule;
pub mod wordpiece;

pub use checkpoint::*;
pub use config::*;
pub use data::*;
pub use error::{Error, Result};
pub use log::*;
pub use loss::*;
pub use optimizer::*;
pub use schedule::*;
