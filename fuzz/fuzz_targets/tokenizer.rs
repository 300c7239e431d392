//! Fuzz target `tokenizer`.
#![no_main]

splade_fuzz::target!("tokenizer");
