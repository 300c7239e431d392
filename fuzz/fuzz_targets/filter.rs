//! Fuzz target `filter`.
#![no_main]

splade_fuzz::target!("filter");
