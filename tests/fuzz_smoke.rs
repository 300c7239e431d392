//! The fuzz targets on what fuzzing found before, and on a fixed number of mutations of their seeds, the same every time.
#![cfg(feature = "train")]

#[path = "../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, dead_code)] // a crate of its own there
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::seq::IndexedRandom;
use targets::{Target, generator, mutate, target};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn survives(target: &Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let kept = std::env::temp_dir().join(format!("splade-fuzz-{}", target.name));
        std::fs::write(&kept, bytes).unwrap();
        panic!("target {}, {what}: see {}", target.name, kept.display());
    }
}

fn smoke(name: &str, mutations: usize) {
    let target = &target(name);
    let seeds = (target.seeds)(root());
    assert!(seeds.len() > 2, "{name} has {} seeds", seeds.len());
    seeds.iter().enumerate().for_each(|(n, seed)| survives(target, seed, &format!("seed {n}")));
    for found in std::fs::read_dir(root().join("fuzz/regressions").join(name)).into_iter().flatten() {
        let path = found.unwrap().path();
        survives(target, &std::fs::read(&path).unwrap(), &path.display().to_string());
    }
    let mut rng = generator(1);
    for n in 0..mutations {
        let mut bytes = seeds.choose(&mut rng).expect("seeds").clone();
        mutate(&mut bytes, &seeds, &mut rng);
        survives(target, &bytes, &format!("mutation {n}"));
    }
}

#[test]
fn configs() {
    smoke("config", 10_000);
}

#[test]
fn safetensors_files() {
    smoke("safetensors", 4000);
}

#[test]
fn torch_files() {
    smoke("pickle", 6000);
}

#[test]
fn tokenizers() {
    smoke("tokenizer", 1000);
}

#[test]
fn model_folders() {
    smoke("model_folder", 1500);
}
