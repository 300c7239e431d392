//! From examples to a checkpoint.

mod error;

pub use error::{Error, Result};
