#![no_main]

splade_fuzz::target!("model_folder");
