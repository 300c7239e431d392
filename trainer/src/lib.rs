//! From examples to a checkpoint.

mod error;
pub mod mlm;
pub mod model;
pub mod wordpiece;

pub use error::{Error, Result};
