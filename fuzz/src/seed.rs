//! Writes the seeds and the regressions of every target into `corpus/`, where `cargo fuzz` begins.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in splade_fuzz::targets::TARGETS {
        let folder = fuzz.join("corpus").join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (n, seed) in (target.seeds)(&fuzz.join("..")).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), seed)?;
        }
        for found in std::fs::read_dir(fuzz.join("regressions").join(target.name)).into_iter().flatten() {
            let found = found?;
            std::fs::copy(found.path(), folder.join(found.file_name()))?;
        }
    }
    Ok(())
}
