//! From examples to a checkpoint.

mod config;
mod data;
mod error;
mod loss;
mod optimizer;
mod schedule;

pub use config::*;
pub use data::*;
pub use error::{Error, Result};
pub use loss::*;
pub use optimizer::*;
pub use schedule::*;
