//! One file per command: each reads left to right, from folders and files to folders and files.

pub(crate) mod doctor;
pub(crate) mod encode;
pub(crate) mod eval_mteb;
pub(crate) mod index;
pub(crate) mod interrupt;
pub(crate) mod search;
