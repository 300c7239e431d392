//! Fuzz target `pickle`.
#![no_main]

splade_fuzz::target!("pickle");
