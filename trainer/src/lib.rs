//! From examples to a checkpoint.

mod error;
pub mod model;

pub use error::{Error, Result};
