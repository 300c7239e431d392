//! Fuzz target `model_folder`.
#![no_main]

splade_fuzz::target!("model_folder");
