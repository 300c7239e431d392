//! From examples to a checkpoint.

mod config;
mod data;
mod device;
mod error;
pub mod mlm;
pub mod model;
pub mod wordpiece;

pub use config::*;
pub use data::*;
pub use device::{best_device, device};
pub use error::{Error, Result};
