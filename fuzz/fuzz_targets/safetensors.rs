//! libFuzzer's way into the target `safetensors`.
#![no_main]

splade_fuzz::target!("safetensors");
