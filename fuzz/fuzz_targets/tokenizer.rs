#![no_main]

splade_fuzz::target!("tokenizer");
