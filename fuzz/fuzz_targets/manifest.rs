//! Fuzz target `manifest`.
#![no_main]

splade_fuzz::target!("manifest");
