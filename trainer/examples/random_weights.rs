//! Random weights for a transformer: reads `config.json` of a folder and writes `model.safetensors` beside it.
//!
//! `cargo run --release -p splade-trainer --example random_weights -- FOLDER [SEED]`. Benches take it for models of published
//! sizes, which train as fast with random weights.

use std::path::Path;

use splade_trainer::model::{TransformerConfig, Weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    let path = Path::new(&folder).join("config.json");
    let config = TransformerConfig::parse(&std::fs::read_to_string(&path)?, &path)?;
    let weights = Weights::new(&config, seed)?.to_safetensors()?;
    std::fs::write(path.with_file_name("model.safetensors"), weights)?;
    Ok(())
}
