//! Every family in the program: token ids, vectors in both backends, head modes, torch files, training.
//!
//! Expected values come from the original code of each family.
#![cfg(feature = "train")]

#[path = "fixtures/families.rs"]
mod fixtures;
mod util;

use std::path::Path;

use serde_json::{Value, json};
use splade_core::HeadMode;
use splade_files::{HeadSource, ModelDir};
use util::{Place, ours, setup};

/// Names of the golden models.
fn families() -> Vec<String> {
    fixtures::families(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// Largest difference of a weight: weights are of the order of 1, and both sides compute in f32.
const TOLERANCE: f32 = 1e-4;

fn texts(family: &str) -> Value {
    let path = ours("fixtures/models").join(family).join("texts.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A folder with a golden model as `model`, without its expected values, and its texts as `texts.txt`.
fn place(family: &str) -> Place {
    let place = setup();
    place.copy(&ours("fixtures/models").join(family), "model");
    for name in ["expected.safetensors", "grads.safetensors", "texts.json", "meta.json"] {
        std::fs::remove_file(place.path("model").join(name)).unwrap();
    }
    let texts = texts(family);
    let lines: Vec<&str> = texts["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    place.write("texts.txt", lines.join("\n"));
    place
}

/// Rows of a golden tensor.
fn expected(family: &str, name: &str) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(ours("fixtures/models").join(family).join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let (floats, _) = tensor.data().as_chunks::<4>();
    let floats: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    floats.chunks(tensor.shape()[1]).map(<[f32]>::to_vec).collect()
}

/// Vectors of the texts by `splade encode`, as dense rows.
fn encoded(place: &Place, dimensions: usize, more: &[&str]) -> Vec<Vec<f32>> {
    let args = ["encode", "model", "--input", "texts.txt", "--role", "document"];
    let row = |line: &Value| {
        let mut row = vec![0.0; dimensions];
        for (dim, value) in line["indices"].as_array().unwrap().iter().zip(line["values"].as_array().unwrap()) {
            row[dim.as_u64().unwrap() as usize] = value.as_f64().unwrap() as f32;
        }
        row
    };
    place.json_lines(&[&args, more].concat()).iter().map(row).collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert!(!expected.is_empty(), "{what}");
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (dim, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= TOLERANCE, "{what} row {row} dim {dim}: {found} {expected}");
        }
    }
}

#[test]
fn token_ids_are_those_of_the_reference() {
    for family in &families() {
        let model = ModelDir::open(&ours("fixtures/models").join(family)).unwrap();
        let vocabulary = model.vocabulary(None).unwrap();
        let golden = texts(family);
        let (texts, ids) = (golden["texts"].as_array().unwrap(), golden["ids"].as_array().unwrap());
        assert!(texts.len() >= 6 && texts.len() == ids.len());
        for (text, ids) in texts.iter().zip(ids) {
            let text = text.as_str().unwrap();
            let expected: Vec<u32> = ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(vocabulary.tokenize_for_network(text).unwrap(), expected, "{family}: {text}");
        }
    }
}

#[test]
fn every_family_gives_the_vectors_of_the_reference_in_both_backends() {
    for family in &families() {
        let place = place(family);
        place.ok(&["export-onnx", "model"]);
        let expected = expected(family, "splade");
        for backend in ["candle", "onnx"] {
            for batch in ["2048", "1"] {
                let more = ["--backend", backend, "--batch-tokens", batch];
                let found = encoded(&place, expected[0].len(), &more);
                assert_close(&format!("{family} {backend} {batch}"), &found, &expected);
            }
        }
        // one text at a time and an empty one
        place.write("texts.txt", "\n");
        assert_eq!(encoded(&place, expected[0].len(), &["--backend", "onnx"]).len(), 1, "{family}");
    }
}

#[test]
fn every_head_mode_is_selected_by_a_flag() {
    let cases = [
        ("published", "splade"),
        ("raw-shifted", "splade_raw_shifted"),
        ("raw", "splade_raw"),
        ("soft-cap", "splade_softcap"),
    ];
    let place = place("norbert4-tiny");
    for (mode, name) in cases {
        let expected = expected("norbert4-tiny", name);
        place.ok(&["export-onnx", "model", "--mlm-head", mode, "--overwrite"]);
        for backend in ["candle", "onnx"] {
            let found = encoded(&place, expected[0].len(), &["--backend", backend, "--mlm-head", mode]);
            assert_close(&format!("{mode} {backend}"), &found, &expected);
        }
    }
    // the file has the last mode and is not used in another
    let args = ["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "onnx"];
    let wrong = place.run(&[&args[..], &["--mlm-head", "raw"]].concat());
    wrong.fails(2, "its logits are soft-cap, but the model is used as raw", "--mlm-head soft-cap");
    place.run(&[&args[..], &["--mlm-head", "sigmoid"]].concat()).fails(2, "invalid value 'sigmoid'", "--help");
    let bert = self::place("bert-tiny");
    bert.run(&[&args[..], &["--mlm-head", "raw"]].concat()).fails(
        2,
        "BertForMaskedLM has no head modes",
        "leave it out",
    );
}

#[test]
fn a_checkpoint_without_a_head_mode_gets_a_warning() {
    let place = place("norbert4-tiny");
    let args = ["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "candle"];
    let warned = |more: &[&str]| {
        let ran = place.run(&[&args[..], more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stderr.lines().find(|line| line.contains("--mlm-head selects another")).map(str::to_owned)
    };
    let line = warned(&[]).expect("a warning");
    assert!(line.contains("mode published (a guess: the folder does not state"), "{line}");
    assert_eq!(warned(&["--mlm-head", "raw"]), None);

    place.write("model/modeling_gptbert.py", "logits = 30 * torch.sigmoid(logits / 7.5)\n");
    assert!(warned(&[]).unwrap().contains("mode published (according to the code"));
    place.write("model/modeling_gptbert.py", "logits = self.classifier(hidden)\n");
    assert!(warned(&[]).unwrap().contains("mode raw-shifted (according to the code"));
    place.write("model/splade.json", r#"{"format_version": 1, "mlm_head": "soft-cap"}"#);
    assert_eq!(warned(&[]), None);
    let expected = expected("norbert4-tiny", "splade_softcap");
    assert_close("stated", &encoded(&place, expected[0].len(), &["--backend", "candle"]), &expected);

    place.write("model/splade.json", r#"{"format_version": 2}"#);
    place.run(&args).fails(2, "splade.json: format version 2 is not known here", "");
}

#[test]
fn a_model_published_as_a_torch_file_alone_is_read() {
    let place = place("norbert3-tiny");
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let expected = expected("norbert3-tiny", "splade");
    assert_close("torch", &encoded(&place, expected[0].len(), &["--backend", "candle"]), &expected);
    place.ok(&["export-onnx", "model"]);
    assert_close("torch", &encoded(&place, expected[0].len(), &["--backend", "onnx"]), &expected);
}

#[test]
fn special_terms_are_kept_without_drop_special_terms() {
    let place = place("bert-tiny");
    let expected = expected("bert-tiny", "splade");
    let special = ModelDir::open(&place.path("model")).unwrap().vocabulary(None).unwrap().special_dims();
    assert!(
        expected.iter().any(|row| special.iter().any(|term| row[*term as usize] > 0.0)),
        "a special term has a weight"
    );
    let found = encoded(&place, expected[0].len(), &["--drop-special-terms"]);
    let dropped: Vec<Vec<f32>> = expected
        .into_iter()
        .map(|mut row| {
            special.iter().for_each(|term| row[*term as usize] = 0.0);
            row
        })
        .collect();
    assert_close("dropped", &found, &dropped);
}

#[test]
fn texts_are_truncated_to_the_position_table_but_not_to_a_window() {
    for (family, longest) in
        [("roberta-tiny", Some(128)), ("bert-tiny", Some(96)), ("modernbert-tiny", None), ("norbert3-tiny", None)]
    {
        let place = place(family);
        let model = ModelDir::open(&place.path("model")).unwrap();
        let vocabulary = model.vocabulary(Some(1000)).unwrap();
        assert_eq!(vocabulary.max_length(), longest.unwrap_or(1000), "{family}");
        place.write("texts.txt", "fisk og fjord ".repeat(400));
        place.ok(&["export-onnx", "model"]);
        let terms = model.dimensions().unwrap();
        let [candle, onnx] = ["candle", "onnx"].map(|backend| {
            encoded(&place, terms, &["--backend", backend, "--max-length", "1000", "--batch-tokens", "1"])
        });
        assert_close(family, &candle, &onnx);
    }
}

/// A training of two steps from a base model.
fn train(family: &str, architecture: &str) -> Place {
    let place = place(family);
    let pair = |n: usize| {
        json!({"query": format!("hva er fisk {n}"), "positive": format!("fisk nummer {n} i fjord")}).to_string()
    };
    place.write("pairs.jsonl", (0..12).map(pair).collect::<Vec<_>>().join("\n"));
    let config = json!({
        "model": {"base_model": "model", "architecture": architecture},
        "training": {"output_dir": "run", "max_steps": 2, "per_device_train_batch_size": 4, "max_seq_length": 24,
                     "eval_strategy": "no", "save_strategy": "no"},
        "datasets": {"pairs": {"files": ["pairs.jsonl"]}},
    });
    place.write("config.yaml", config.to_string());
    place.ok(&["train", "config.yaml"]);
    place
}

#[test]
fn every_family_is_trained_exported_and_searched_the_same_way() {
    for family in &families() {
        for architecture in ["inference-free-splade", "splade"] {
            let place = train(family, architecture);
            place.ok(&["export-onnx", "run/final"]);
            place.write(
                "corpus.jsonl",
                "{\"_id\": \"a\", \"text\": \"fisk i fjord\"}\n{\"_id\": \"b\", \"text\": \"snø og regn\"}\n",
            );
            place.ok(&["index", "run/final", "--input", "corpus.jsonl", "--index", "my.index", "--backend", "onnx"]);
            let mut search = vec!["search", "--index", "my.index", "fisk", "--json"];
            if architecture == "splade" {
                search.extend(["--model", "run/final"]);
            }
            assert!(place.json(&search)["hits"].is_array(), "{family} {architecture}");
        }
    }
}

#[test]
fn a_norbert4_model_trained_here_states_its_head_mode() {
    let place = train("norbert4-tiny", "inference-free-splade");
    let head =
        |model: &str| ModelDir::open(&place.path(model)).unwrap().head_choice().map(|head| (head.mode, head.source));
    assert_eq!(head("model"), Some((HeadMode::Published, HeadSource::Guessed)));
    assert_eq!(head("run/final"), Some((HeadMode::SoftCap, HeadSource::Stated)));
    let args =
        ["train", "config.yaml", "--set", "training.output_dir=raw", "--set", "model.patch_sigmoid_for_sparsity=true"];
    place.ok(&args);
    assert_eq!(head("raw/final"), Some((HeadMode::RawShifted, HeadSource::Stated)));
}

/// transformers reads `config.json` in the folder of the network, and looks for its code at the root of the model.
#[test]
fn code_of_the_base_model_is_where_transformers_looks_for_it() {
    let place = train("norbert3-tiny", "inference-free-splade");
    assert!(place.read("run/final/README.md").contains("SparseEncoder(\"MODEL\")\n"));
    let code = ["configuration_norbert.py", "modeling_norbert.py"];
    code.iter().for_each(|name| place.write(&format!("model/{name}"), format!("raise SystemExit  # {name}")));
    let trained = |output: &str, set: &str| {
        place.ok(&["train", "config.yaml", "--set", &format!("training.output_dir={output}"), "--set", set]);
        for folder in ["", "document_0_MLMTransformer/"] {
            for name in code {
                let copy = place.read(&format!("{output}/final/{folder}{name}"));
                assert_eq!(copy, format!("raise SystemExit  # {name}"), "{folder}");
            }
        }
        let readme = place.read(&format!("{output}/final/README.md"));
        assert!(readme.contains("SparseEncoder(\"MODEL\", trust_remote_code=True)\n"), "{readme}");
        assert!(!place.path(&format!("{output}/final/query_0_SparseStaticEmbedding/{}", code[0])).exists());
    };
    trained("again", "training.seed=1");
    // a model with its code at the root alone, as sentence-transformers may save it
    code.iter().for_each(|name| {
        std::fs::remove_file(place.path(&format!("again/final/document_0_MLMTransformer/{name}"))).unwrap();
    });
    trained("third", "model.base_model=again/final");
}

#[test]
fn unknown_parts_of_a_config_or_checkpoint_are_named() {
    let place = place("modernbert-tiny");
    let args = ["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "candle"];
    let original: Value = serde_json::from_str(&place.read("model/config.json")).unwrap();
    let with = |key: &str, value: Value| {
        let mut config = original.clone();
        config[key] = value;
        place.write("model/config.json", config.to_string());
        place.run(&args)
    };
    with("sliding_dilation", json!(2)).fails(
        2,
        "the key sliding_dilation is not known to this architecture",
        "--ignore-config-key",
    );
    with("hidden_activation", json!("mish")).fails(2, "activation \"mish\" is not known", "");
    with("num_attention_heads", json!(5)).fails(2, "5 does not divide hidden_size 48", "");
    with("vocab_size", json!(0)).fails(2, "420 tokens, but the network has 0 terms", "tokenizer.json");
    with("intermediate_size", json!(0)).fails(2, "intermediate_size: must be at least 1", "");
    with("architectures", json!(["NewForMaskedLM"])).fails(
        2,
        "unsupported architecture NewForMaskedLM",
        "NorbertForMaskedLM",
    );
    with("num_hidden_layers", json!(3)).fails(2, "tensor model.layers.3.", "");
    with("num_hidden_layers", json!(5)).fails(2, "model.layers.4.", "");
}

#[test]
fn both_spellings_of_a_modernbert_config_are_the_same_model() {
    let place = place("modernbert-tiny");
    let expected = expected("modernbert-tiny", "splade");
    let mut config: Value = serde_json::from_str(&place.read("model/config.json")).unwrap();
    let keys = config.as_object_mut().unwrap();
    for key in ["global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"] {
        assert!(keys.remove(key).is_some());
    }
    let rope = |theta: f64| json!({"rope_theta": theta, "rope_type": "default"});
    keys.insert(
        "rope_parameters".into(),
        json!({"full_attention": rope(160_000.0), "sliding_attention": rope(10_000.0)}),
    );
    let (full, sliding) = ("full_attention", "sliding_attention");
    keys.insert("layer_types".into(), json!([full, sliding, sliding, full]));
    place.write("model/config.json", config.to_string());
    assert_close("new", &encoded(&place, expected[0].len(), &["--backend", "candle"]), &expected);
    // if a file has both spellings, the new one counts
    config["global_attn_every_n_layers"] = json!(2);
    config["local_rope_theta"] = json!(7.0);
    place.write("model/config.json", config.to_string());
    assert_close("both", &encoded(&place, expected[0].len(), &["--backend", "candle"]), &expected);
    config["layer_types"] = json!([full, full, full, full]);
    place.write("model/config.json", config.to_string());
    let other = encoded(&place, expected[0].len(), &["--backend", "candle"]);
    assert!(other != expected, "the layer types are read");
}

/// Output of `splade encode` in Candle.
fn exactly(place: &Place, more: &[&str]) -> String {
    let args = ["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "candle"];
    place.ok(&[&args, more].concat())
}

/// Changes the `config.json` of `model`.
fn with_config(place: &Place, original: &Value, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut config = original.clone();
    change(config.as_object_mut().unwrap());
    place.write("model/config.json", config.to_string());
}

#[test]
fn every_spelling_of_a_family_gives_the_same_vectors() {
    for family in &families() {
        let place = place(family);
        let config: Value = serde_json::from_str(&place.read("model/config.json")).unwrap();
        let head: &[&str] = if family == "norbert4-tiny" { &["--mlm-head", "raw"] } else { &[] };
        let expected = exactly(&place, head);
        let class = config["architectures"][0].as_str().unwrap().strip_suffix("ForMaskedLM").unwrap().to_owned();
        let row = splade_files::Family::of(&config).unwrap();
        let model_type = config["model_type"].as_str().unwrap_or(row.model_types[0]).to_owned();
        let classes =
            ["ForPreTraining", "Model", "ForSequenceClassification"].map(|head| json!([format!("{class}{head}")]));
        for architectures in classes.into_iter().chain([Value::Null, json!([]), json!(format!("{class}ForMaskedLM"))]) {
            with_config(&place, &config, |keys| {
                keys.insert("model_type".into(), json!(model_type));
                keys.insert("architectures".into(), architectures.clone());
            });
            assert_eq!(exactly(&place, head), expected, "{family}: {architectures}");
        }
        for with_map in [true, false] {
            with_config(&place, &config, |keys| {
                keys.insert("model_type".into(), json!(model_type));
                keys.remove("architectures");
                let map = json!({"AutoModelForMaskedLM": format!("acme/code--modeling_x.{class}ForMaskedLM")});
                if with_map {
                    keys.insert("auto_map".into(), map)
                } else {
                    keys.remove("auto_map")
                };
            });
            assert_eq!(exactly(&place, head), expected, "{family}: auto_map {with_map}");
        }
        with_config(&place, &config, |keys| {
            keys.retain(|key, _| !["architectures", "auto_map", "model_type", "model"].contains(&key.as_str()))
        });
        place.run(&["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "candle"]).fails(
            2,
            "the architecture is not stated",
            "add the model_type",
        );
    }
}

#[test]
fn a_checkpoint_in_shards_gives_the_same_vectors() {
    for family in &families() {
        let place = place(family);
        let expected = exactly(&place, &[]);
        let fingerprint = |place: &Place| ModelDir::open(&place.path("model")).unwrap().fingerprint().unwrap();
        let weights = std::fs::read(place.path("model/model.safetensors")).unwrap();
        std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
        for (name, bytes) in util::shards_of(&weights) {
            place.write(&format!("model/{name}"), bytes);
        }
        assert_eq!(exactly(&place, &[]), expected, "{family}");
        let found = place.json(&["inspect", "model", "--json"]);
        let file = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let floats = file.iter().filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32);
        let floats: usize = floats.map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
        assert_eq!(found["parameters"], floats, "{family}");
        assert!(place.ok(&["inspect", "model"]).contains("model.safetensors.index.json in 2 shards"), "{family}");
        let whole = place.json(&["inspect", "model/model.safetensors.index.json", "--json"]);
        assert_eq!(whole["parameters"], floats, "{family}");
        // every shard is part of the fingerprint
        let shard = "model/model-00002-of-00002.safetensors";
        let (before, bytes) = (fingerprint(&place), std::fs::read(place.path(shard)).unwrap());
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        place.write(shard, &changed);
        assert_ne!(fingerprint(&place), before, "{family}");
        place.write(shard, &bytes);
        assert_eq!(fingerprint(&place), before, "{family}");
        std::fs::remove_file(place.path(shard)).unwrap();
        place.run(&["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "candle"]).fails(
            2,
            "model.safetensors.index.json: the shard model-00002-of-00002.safetensors is missing",
            "",
        );
    }
}

#[test]
fn a_checkpoint_in_shards_is_exported_verified_and_trained_from() {
    let place = place("bert-tiny");
    let weights = std::fs::read(place.path("model/model.safetensors")).unwrap();
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    for (name, bytes) in util::shards_of(&weights) {
        place.write(&format!("model/{name}"), bytes);
    }
    place.ok(&["export-onnx", "model"]);
    let expected = expected("bert-tiny", "splade");
    assert_close("shards", &encoded(&place, expected[0].len(), &["--backend", "onnx"]), &expected);
    assert!(place.ok(&["verify", "model"]).contains("model.safetensors.index.json"));
    place.write("pairs.jsonl", "{\"query\": \"fisk\", \"positive\": \"fisk i fjord\"}\n".repeat(8));
    let config = json!({
        "model": {"base_model": "model"},
        "training": {"output_dir": "run", "max_steps": 1, "per_device_train_batch_size": 4, "max_seq_length": 24,
                     "eval_strategy": "no", "save_strategy": "no"},
        "datasets": {"pairs": {"files": ["pairs.jsonl"]}},
    });
    place.write("config.yaml", config.to_string());
    place.ok(&["train", "config.yaml"]);
    assert!(place.path("run/final/document_0_MLMTransformer/model.safetensors").is_file());
}

#[test]
fn a_torch_checkpoint_in_shards_is_read() {
    let place = place("norbert3-tiny");
    let expected = exactly(&place, &[]);
    let weights = std::fs::read(place.path("model/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let shard = "pytorch_model-00001-of-00001.bin";
    let map: serde_json::Map<String, Value> =
        file.names().into_iter().map(|name| (name.to_owned(), shard.into())).collect();
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    std::fs::rename(place.path("model/pytorch_model.bin"), place.path(&format!("model/{shard}"))).unwrap();
    place.write("model/pytorch_model.bin.index.json", json!({"weight_map": map}).to_string());
    assert_eq!(exactly(&place, &[]), expected);
    assert!(place.ok(&["inspect", "model"]).contains("pytorch_model.bin.index.json"));
}

#[test]
fn prefixes_of_other_tools_give_the_same_vectors() {
    for family in &families() {
        let place = place(family);
        let expected = exactly(&place, &[]);
        let weights = std::fs::read(place.path("model/model.safetensors")).unwrap();
        for prefix in ["_orig_mod.", "module.", "module._orig_mod.", "auto_model."] {
            let renamed = util::renamed_tensors(&weights, |name| Some(format!("{prefix}{name}")));
            place.write("model/model.safetensors", renamed);
            assert_eq!(exactly(&place, &[]), expected, "{family}: {prefix}");
        }
    }
}

#[test]
fn unknown_config_keys_are_ignored_by_name_only() {
    let place = place("bert-tiny");
    let expected = exactly(&place, &[]);
    let config: Value = serde_json::from_str(&place.read("model/config.json")).unwrap();
    with_config(&place, &config, |keys| {
        keys.insert("xla_device".into(), json!(true));
        keys.insert("neuron".into(), json!({"compiler_version": "2.1"}));
    });
    assert_eq!(exactly(&place, &[]), expected, "harmless keys");
    with_config(&place, &config, |keys| {
        keys.insert("twist".into(), json!(1));
        keys.insert("twirl".into(), json!(1));
    });
    let args = ["encode", "model", "--input", "texts.txt", "--role", "document", "--backend", "candle"];
    place.run(&args).fails(2, "the keys twirl, twist are not known", "--ignore-config-key KEY");
    let one = [&args[..], &["--ignore-config-key", "twist"]].concat();
    place.run(&one).fails(2, "the key twirl is not known", "--ignore-config-key KEY");
    let ignored = ["--ignore-config-key", "twist", "--ignore-config-key", "twirl"];
    assert_eq!(exactly(&place, &ignored), expected);
    place.ok(&[&["export-onnx", "model"], &ignored[..]].concat());
    place.ok(&[&["verify", "model"], &ignored[..]].concat());

    // a model trained from it is read without the flag
    place.write("pairs.jsonl", "{\"query\": \"fisk\", \"positive\": \"fisk i fjord\"}\n".repeat(8));
    let training = json!({
        "model": {"base_model": "model", "architecture": "splade"},
        "training": {"output_dir": "run", "max_steps": 1, "per_device_train_batch_size": 4, "max_seq_length": 24,
                     "eval_strategy": "no", "save_strategy": "no"},
        "datasets": {"pairs": {"files": ["pairs.jsonl"]}},
    });
    place.write("config.yaml", training.to_string());
    place.run(&["train", "config.yaml"]).fails(2, "the keys twirl, twist are not known", "model.ignored_config_keys");
    place.ok(&["train", "config.yaml", "--set", "model.ignored_config_keys=[twist, twirl]"]);
    place.ok(&["encode", "run/final", "--input", "texts.txt", "--role", "document", "--backend", "candle"]);
    let written: Value = serde_json::from_str(&place.read("run/final/config.json")).unwrap();
    assert_eq!(written, config);
}
