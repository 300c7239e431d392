//! The commands, one file each.

pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod encode;
pub(crate) mod eval_mteb;
pub(crate) mod eval_run;
#[cfg(feature = "train")]
pub(crate) mod export_onnx;
pub(crate) mod export_vectors;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod interrupt;
pub(crate) mod man;
pub(crate) mod merge;
#[cfg(feature = "train")]
pub(crate) mod mine;
pub(crate) mod push;
pub(crate) mod push_index;
pub(crate) mod search;
#[cfg(feature = "serve")]
pub(crate) mod serve;
#[cfg(feature = "train")]
pub(crate) mod train;
pub(crate) mod tune;
#[cfg(feature = "train")]
pub(crate) mod verify;
