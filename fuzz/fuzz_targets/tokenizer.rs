//! libFuzzer's way into the target `tokenizer`.
#![no_main]

splade_fuzz::target!("tokenizer");
