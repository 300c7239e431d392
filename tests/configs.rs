//! Configs of the repository: each resolves without a warning, and every path of a config in texts exists.
#![cfg(feature = "train")]

mod util;

use std::path::Path;
use std::process::{Command, Stdio};

use util::hub::Hub;
use util::{Ran, data_sets, finish, names};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program in the repository, where the paths of the configs lead.
fn run(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splade"));
    command.args(args).current_dir(repository()).env("HF_HUB_OFFLINE", "1");
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Runs the program in the repository against a Hub that has every data set and base model that a config names.
fn run_with(hub: &Hub, home: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splade"));
    command.args(args).current_dir(repository());
    hub.direct(&mut command, home);
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The resolved config, which `--dry-run` prints before the plan.
fn resolved(ran: Ran) -> serde_json::Value {
    let stdout = ran.done();
    let plan = stdout.lines().position(|line| !line.starts_with([' ', '-']) && !line.ends_with(':')).unwrap();
    let yaml: Vec<&str> = stdout.lines().take(plan).collect();
    serde_yaml::from_str(&yaml.join("\n")).unwrap()
}

#[test]
fn every_config_resolves_without_a_warning() {
    let (hub, home) = (Hub::start(), tempfile::tempdir().unwrap());
    data_sets::add_all(&hub);
    let configs: Vec<String> =
        names(&repository().join("configs")).into_iter().filter(|name| name.ends_with(".yaml")).collect();
    assert_eq!(
        configs,
        [
            "demo-pretrain.yaml",
            "demo.yaml",
            "training_config_mlm.yaml",
            "training_config_splade.yaml",
            "training_config_splade_large.yaml",
            "training_config_splade_regular.yaml",
        ]
    );
    for name in configs {
        let path = format!("configs/{name}");
        // the models of this Hub are tiny, with 64 positions
        let mut args = vec!["train", &path, "--dry-run", "--set", "training.max_seq_length=64"];
        // the base model of the second half of the demo is the result of the first
        if name == "demo.yaml" {
            args.extend(["--set", "model.base_model=tests/fixtures/models/bert-tiny"]);
        }
        let ran = run_with(&hub, home.path(), &args);
        assert!(!ran.stderr.contains("warning:"), "{name}: {}", ran.stderr);
        let stdout = ran.done();
        assert!(stdout.contains("steps; about"), "{name}");
        if name.starts_with("training_config_splade") {
            for line in [
                "nli: 60 examples, 8 to evaluate on\n",
                // 10 + 10 + 3 * 9 + 8 + 5, and 2 + 2 + 3 * 1 + 1 + 2
                "scandi_qa: 60 examples, 10 to evaluate on (left out of 80 rows: 7 filtered out)\n",
                "ddsc: 78 examples\n",
                "ddsc: rows without a negative became the part ddsc_pairs",
            ] {
                assert!(stdout.contains(line), "{name}: {line}: {stdout}");
            }
        }
    }
}

/// Configs in the spelling of the Python project's files: numbers that its YAML reads as text, its keys for the router,
/// switches and names in capitals.
#[test]
fn each_config_equals_that_in_the_python_project_s_spelling() {
    let (hub, home) = (Hub::start(), tempfile::tempdir().unwrap());
    data_sets::add_all(&hub);
    let place = tempfile::tempdir().unwrap();
    for name in ["splade", "splade_large", "splade_regular"] {
        let ours = format!("configs/training_config_{name}.yaml");
        let theirs = place.path().join("theirs.yaml");
        std::fs::write(&theirs, python_spelling(name)).unwrap();
        let [ours, theirs] = [&*ours, theirs.to_str().unwrap()].map(|path| {
            let length = "training.max_seq_length=64";
            resolved(run_with(&hub, home.path(), &["train", path, "--dry-run", "--set", length]))
        });
        for section in ["model", "training", "loss", "datasets", "evaluation"] {
            let without_spelling = |value: &serde_json::Value| {
                let mut section = value[section].clone();
                if let Some(keys) = section.as_object_mut() {
                    keys.remove("patch_sigmoid_for_sparsity");
                    // theirs is written for a GPU, ours for any machine
                    keys.remove("bf16");
                }
                section
            };
            assert_eq!(without_spelling(&ours), without_spelling(&theirs), "{name} {section}");
        }
    }
}

/// A file of the Python project for one of our configs.
fn python_spelling(name: &str) -> String {
    let is_large = name == "splade_large";
    let (base, batch, accumulation) = if is_large { ("ltg/norbert4-base", 8, 2) } else { ("ltg/norbert3-xs", 16, 1) };
    let (architecture, router, query_weight) = match name {
        "splade_regular" => ("splade", "false", "4e-4"),
        _ => ("inference-free-splade", "true", "0"),
    };
    let output = match name {
        "splade" => "norbert3-xs-splade",
        "splade_large" => "norbert4-base-splade",
        _ => "norbert3-xs-splade-regular",
    };
    format!(
        "
model: {{base_model: {base}, architecture: {architecture}, pooling_strategy: max, use_router: {router},
  freeze_static_embedding: no, patch_sigmoid_for_sparsity: {is_large}}}
training:
  output_dir: models/{output}
  num_train_epochs: 1
  max_steps: -1
  per_device_train_batch_size: {batch}
  per_device_eval_batch_size: 16
  gradient_accumulation_steps: {accumulation}
  learning_rate: \"2e-5\"
  query_learning_rate: 1e-3
  warmup_ratio: 0.1
  weight_decay: 0.01
  fp16: false
  bf16: true
  max_seq_length: 256
  batch_sampler: NO_DUPLICATES
  eval_strategy: steps
  eval_steps: 1000
  logging_steps: 100
  save_strategy: steps
  save_steps: 1000
  save_total_limit: 1
  load_best_model_at_end: true
  metric_for_best_model: NanoBEIR_mean_dot_ndcg@10
  greater_is_better: true
  dataloader_pin_memory: true
  report_to: tensorboard
loss: {{type: splade_loss, inner_loss: sparse_multiple_negatives_ranking_loss, query_regularizer_weight: {query_weight},
  document_regularizer_weight: 3e-3}}
datasets:
  sampling_strategy: ROUND_ROBIN
  nli: {{enabled: true, source: Fremtind/all-nli-norwegian}}
  scandi_qa: {{enabled: true, use_norquad: true, use_openbookqa: true, use_scandiqa: true, use_supervised_da: true,
    use_paws: true, scandiqa_languages: [norwegian, danish, swedish]}}
  ddsc: {{enabled: true, languages: [norwegian, danish, swedish], split_ratio: [0.98, 0.01, 0.01]}}
evaluation: {{evaluator: sparse_nanobeir, nanobeir_datasets: [msmarco, nfcorpus], mteb_tasks: [NorQuadRetrieval]}}
router:
  mapping: {{anchor: query, positive: document, negative: document}}
hardware: {{device: mps, tf32: true}}
"
    )
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
