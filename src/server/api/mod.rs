//! The requests and answers of the interface, one file each, and its description in OpenAPI.

pub(crate) mod documents;
pub(crate) mod encode;
pub(crate) mod explain;
pub(crate) mod openapi;
pub(crate) mod search;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod tei;
pub(crate) mod vector;
