//! From examples to a checkpoint.

mod config;
mod data;
mod error;

pub use config::*;
pub use data::*;
pub use error::{Error, Result};
