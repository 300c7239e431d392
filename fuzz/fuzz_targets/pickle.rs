//! libFuzzer's way into the target `pickle`.
#![no_main]

splade_fuzz::target!("pickle");
