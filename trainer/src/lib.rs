//! From examples to a checkpoint.

mod config;
mod data;
mod error;
pub mod mlm;
pub mod model;
pub mod wordpiece;

pub use config::*;
pub use data::*;
pub use error::{Error, Result};
