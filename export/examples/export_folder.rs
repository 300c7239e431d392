//! Exports a model folder: `cargo run --example export_folder -- <model folder> <output folder> [opset]`.

use std::path::Path;

use splade_export::{Head, Options, export, write};
use splade_trainer::model::{TransformerConfig, Weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, output, opset @ ..] = arguments.as_slice() else {
        return Err("usage: export_folder <model folder> <output folder> [opset]".into());
    };
    let (folder, output) = (Path::new(folder), Path::new(output));
    let path = folder.join("config.json");
    let config = TransformerConfig::parse(&std::fs::read_to_string(&path)?, &path)?;
    let weights = Weights::read(&folder.join("model.safetensors"), &config)?;
    let opset = opset.first().map_or(Ok(17), |opset| opset.parse())?;
    let options = Options { opset, ..Options::default() };
    for head in [Head::Logits, Head::Splade(Default::default())] {
        let model = export(&config, &weights, head, &options)?;
        write(model, &output.join(head.file_name()))?;
        println!("{}", output.join(head.file_name()).display());
    }
    Ok(())
}
