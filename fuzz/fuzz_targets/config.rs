//! Fuzz target `config`.
#![no_main]

splade_fuzz::target!("config");
