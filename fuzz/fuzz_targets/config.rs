//! libFuzzer's way into the target `config`.
#![no_main]

splade_fuzz::target!("config");
