//! Runs the fuzz targets on earlier findings, and on a fixed number of mutations of their seeds, which are equal in every
//! run.
#![cfg(feature = "train")]

#[path = "../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, dead_code)] // the same file is a crate in fuzz/
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::seq::IndexedRandom;
use targets::{Target, generator, mutate, target};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn check(target: &Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let kept = std::env::temp_dir().join(format!("splade-fuzz-{}", target.name));
        std::fs::write(&kept, bytes).unwrap();
        panic!("target {}, {what}: see {}", target.name, kept.display());
    }
}

/// Seeds and earlier findings, by name.
fn known(target: &Target) -> Vec<(String, Vec<u8>)> {
    let seeds = (target.seeds)(root()).into_iter().enumerate();
    let mut known: Vec<_> = seeds.map(|(n, seed)| (format!("seed-{n}"), seed)).collect();
    assert!(known.len() > 2, "{} has {} seeds", target.name, known.len());
    for found in std::fs::read_dir(root().join("fuzz/regressions").join(target.name)).into_iter().flatten() {
        let path = found.unwrap().path();
        known.push((path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()));
    }
    known
}

fn smoke(name: &str, mutations: usize) {
    let target = &target(name);
    let known = known(target);
    // writes the corpus with which `cargo fuzz` starts
    if let Some(corpus) = std::env::var_os("FUZZ_CORPUS") {
        let folder = root().join(corpus).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        known.iter().for_each(|(file, bytes)| std::fs::write(folder.join(file), bytes).unwrap());
    }
    known.iter().for_each(|(file, bytes)| check(target, bytes, file));
    let seeds: Vec<Vec<u8>> = known.into_iter().map(|(_, bytes)| bytes).collect();
    // FUZZ_ROUNDS=1000 runs 1000 times as many mutations, from another random seed
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let mut rng = generator(rounds);
    for n in 0..mutations * rounds as usize {
        let mut bytes = seeds.choose(&mut rng).expect("seeds").clone();
        mutate(&mut bytes, &seeds, &mut rng);
        check(target, &bytes, &format!("mutation {n}"));
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

#[test]
fn segment_files() {
    smoke("segment", 1000);
}

#[test]
fn manifests() {
    smoke("manifest", 1000);
}

#[test]
fn filters() {
    smoke("filter", 3000);
}
