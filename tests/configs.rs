//! Configs of the repository: each resolves without a warning, and every path of a config in texts exists.
#![cfg(feature = "train")]

mod util;

use std::path::Path;
use std::process::{Command, Stdio};

use util::{Ran, finish, names};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program in the repository, where the paths of the configs lead.
fn run(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splade"));
    command.args(args).current_dir(repository()).env("HF_HUB_OFFLINE", "1");
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn every_config_resolves_without_a_warning() {
    let configs: Vec<String> =
        names(&repository().join("configs")).into_iter().filter(|name| name.ends_with(".yaml")).collect();
    assert_eq!(configs, ["demo-pretrain.yaml", "demo.yaml"]);
    for name in configs {
        let path = format!("configs/{name}");
        let mut args = vec!["train", &path, "--dry-run"];
        // the base model of the second config is the result of the first
        if name == "demo.yaml" {
            args.extend(["--set", "model.base_model=tests/fixtures/models/bert-tiny"]);
        }
        let ran = run(&args);
        assert!(!ran.stderr.contains("warning:"), "{name}: {}", ran.stderr);
        assert!(ran.done().contains("steps; about"), "{name}");
    }
}

#[test]
fn paths_of_configs_in_texts_exist() {
    let help = run(&["train", "--help"]).done();
    let file = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    let texts = [help, file("README.md"), file("scripts/demo.sh"), file("Makefile")];
    let mut n_named = 0;
    for text in texts {
        let words = text.split(|c: char| c.is_whitespace() || "`\"'()[],;:".contains(c));
        for path in words.filter(|word| word.starts_with("configs/") && *word != "configs/") {
            assert!(repository().join(path).is_file(), "{path} does not exist");
            n_named += 1;
        }
    }
    assert!(n_named > 3, "{n_named}");
}

/// The example of `splade train --help`.
#[test]
fn the_example_of_the_help_runs() {
    let help = run(&["train", "--help"]).done();
    let (_, examples) = help.split_once("Example:\n").unwrap();
    let example = examples.lines().next().unwrap();
    let args: Vec<&str> = example.split_whitespace().collect();
    assert_eq!(args[..2], ["splade", "train"]);
    assert!(args.contains(&"--dry-run"), "{example}");
    run(&args[1..]).done();
}
