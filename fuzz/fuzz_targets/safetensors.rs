#![no_main]

splade_fuzz::target!("safetensors");
