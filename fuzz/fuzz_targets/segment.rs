//! Fuzz target `segment`.
#![no_main]

splade_fuzz::target!("segment");
