//! Fuzz target `safetensors`.
#![no_main]

splade_fuzz::target!("safetensors");
