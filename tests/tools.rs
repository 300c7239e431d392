//! `splade verify`, `splade inspect` and `splade doctor`, on sound and on changed models.
#![cfg(feature = "train")]

#[path = "fixtures/families.rs"]
mod fixtures;
mod util;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use util::{Place, Ran, finish, fixture, ours, setup};

/// Every layout of a model folder, and true for inference-free models.
const LAYOUTS: [(&str, bool); 5] = [
    ("inference-free/model", true),
    ("splade/model", false),
    ("layouts/v5.1/inference-free/model", true),
    ("layouts/v5.1/splade/model", false),
    ("layouts/transformer-at-root/inference-free/model", true),
];

/// Names of the golden models.
fn families() -> Vec<String> {
    fixtures::families(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// A model with its ONNX files.
fn exported(model: &str) -> Place {
    let place = setup();
    place.copy(&fixture(model), "model");
    place.ok(&["export-onnx", "model", "--no-verify"]);
    place
}

/// Folder of the transformer of the inference-free fixture.
const DOCUMENT: &str = "model/document_0_Transformer";

/// A run that found a disagreement: the findings on stdout, one line about the first on stderr.
#[track_caller]
fn disagrees(ran: &Ran, words: &[&str]) -> Value {
    assert_eq!(ran.code, Some(1), "{}\n{}", ran.stdout, ran.stderr);
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: model: ") && last.len() < 300, "{}", ran.stderr);
    for word in words {
        assert!(last.contains(word), "{word}: {last}");
    }
    let json: Value = serde_json::from_str(&ran.stdout).expect("--json prints JSON only");
    assert_eq!(json["agrees"], false);
    json
}

/// Backend of a pooled file whose output layer this program computes.
const FUSED_HEAD: &str = "onnx, fused head";

/// Stage, backend and file of the rows with a status. Without the rows of [`FUSED_HEAD`], which only some processors have.
fn rows(report: &Value, status: &str) -> BTreeSet<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = report["stages"].as_array().unwrap().iter();
    let rows = rows.filter(|row| row["status"] == status && row["backend"] != FUSED_HEAD);
    rows.map(|row| (text(&row["stage"]), text(&row["backend"]), text(&row["file"]))).collect()
}

/// Bytes and shape of a tensor of a safetensors file.
fn tensor(bytes: &[u8], name: &str) -> (Vec<u8>, Vec<usize>) {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    (tensor.data().to_vec(), tensor.shape().to_vec())
}

mod verify {
    use super::*;

    #[test]
    fn every_layout_agrees_in_every_backend() {
        for (model, inference_free) in LAYOUTS {
            let report = exported(model).json(&["verify", "model", "--json"]);
            assert_eq!(report["agrees"], true, "{model}: {report:#}");
            let ok = rows(&report, "ok");
            let mut stages = report["stages"].as_array().unwrap().iter();
            assert!(stages.all(|row| row["status"] == "ok"), "nothing is skipped: {report:#}");
            for backend in ["onnx runtime", "candle-onnx"] {
                for file in ["model.onnx", "model_splade.onnx"] {
                    for stage in ["document vectors", "padded batch", "scores", "ranking"] {
                        let has =
                            |(a, b, c): &(String, String, String)| a == stage && b == backend && c.ends_with(file);
                        assert!(ok.iter().any(has), "{model}: {stage} {backend} {file}: {report:#}");
                    }
                }
            }
            let backends = |stage: &str| -> BTreeSet<&str> {
                ok.iter().filter(|row| row.0 == stage).map(|row| row.1.as_str()).collect()
            };
            assert!(backends("scores").contains("index") && backends("padded batch").contains("candle"), "{report:#}");
            let ours = report["stages"].as_array().unwrap().iter().filter(|row| row["backend"] == FUSED_HEAD);
            assert_eq!(ours.count() > 0, splade_encode::OnnxNetwork::can_split(), "{report:#}");
            let queries = backends("query vectors");
            if inference_free {
                assert_eq!(queries, BTreeSet::from(["index copy", "table"]), "{model}");
                assert!(backends("tokenization").contains("both sides"));
            } else {
                assert_eq!(queries, BTreeSet::from(["candle-onnx", "onnx runtime"]), "{model}");
            }
        }
    }

    /// Every family as a bare checkpoint, whose queries use the network.
    #[test]
    fn every_family_agrees_in_every_backend_that_has_its_operators() {
        for family in families() {
            let place = setup();
            place.copy(&ours("fixtures/models").join(&family), "model");
            place.ok(&["export-onnx", "model", "--no-verify"]);
            let ran = place.run(&["verify", "model", "--json"]);
            assert_eq!(ran.code, Some(0), "{family}: {}", ran.stderr);
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            let ok = rows(&report, "ok");
            for stage in ["query vectors", "document vectors", "padded batch", "scores", "ranking"] {
                let of_runtime = |row: &&(String, String, String)| row.0 == stage && row.1 == "onnx runtime";
                assert_eq!(ok.iter().filter(of_runtime).count(), 2, "{family}: {report:#}");
            }
            for row in report["stages"].as_array().unwrap().iter().filter(|row| row["status"] == "skipped") {
                let reason = row["reason"].as_str().unwrap();
                assert!(row["backend"] == "candle-onnx" && reason.contains("has no operator "), "{row:#}");
            }
        }
    }

    /// fp16 and int8 files have limits of their own. Files of other tools are compared too.
    #[test]
    fn files_of_every_precision_and_name_are_compared() {
        for model in ["bert-tiny", "norbert3-tiny", "norbert4-tiny", "modernbert-tiny"] {
            let place = setup();
            place.copy(&ours("fixtures/models").join(model), "model");
            place.ok(&["export-onnx", "model", "--no-verify", "--precision", "fp32,fp16,int8"]);
            place.copy(&place.path("model/onnx/model.onnx"), "model/onnx/of_another_tool.onnx");
            let ran = place.run(&["verify", "model", "--json"]);
            assert_eq!(ran.code, Some(0), "{model}: {}", ran.stderr);
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            let ok = rows(&report, "ok");
            let names = ["model", "model_splade", "model_fp16", "model_splade_fp16", "model_int8", "model_splade_int8"];
            for name in names.into_iter().chain(["of_another_tool"]) {
                let row = |backend: &str| {
                    ok.contains(&("document vectors".to_owned(), backend.to_owned(), format!("onnx/{name}.onnx")))
                };
                assert!(row("onnx runtime"), "{model} {name}: {report:#}");
                assert_eq!(row("candle-onnx"), !name.ends_with("int8"), "{model} {name}: {report:#}");
            }
            let skipped = rows(&report, "skipped");
            let reasons = report["stages"].as_array().unwrap().iter().filter_map(|row| row["reason"].as_str());
            assert!(reasons.clone().all(|reason| reason.contains("has no operator")), "{report:#}");
            assert!(skipped.iter().all(|row| row.1 == "candle-onnx" && row.2.ends_with("int8.onnx")), "{skipped:?}");
            let precision =
                |file: &str| place.json(&["inspect", &format!("model/onnx/{file}"), "--json"])["precision"].clone();
            let found = ["model.onnx", "model_fp16.onnx", "model_splade_int8.onnx"].map(precision);
            assert_eq!(found, ["fp32", "fp16", "int8"]);
        }
    }

    /// A file with another head mode than the model is a disagreement.
    #[test]
    fn files_must_have_the_head_mode_of_the_model() {
        let place = setup();
        place.copy(&ours("fixtures/models/norbert4-tiny"), "model");
        place.ok(&["export-onnx", "model", "--no-verify", "--mlm-head", "soft-cap"]);
        let verify = |mode: &str| place.run(&["verify", "model", "--json", "--mlm-head", mode]);
        let report: Value = serde_json::from_str(&verify("soft-cap").done()).unwrap();
        assert_eq!(report["agrees"], true);
        let report = disagrees(&verify("published"), &["onnx/model"]);
        let wrong = |status| rows(&report, status).into_iter().filter(|row| row.1 == "onnx runtime").count();
        assert!(wrong("differs") + wrong("failed") >= 2, "{report:#}");
    }

    #[test]
    fn a_folder_without_onnx_files_is_compared_with_itself() {
        let place = setup();
        place.copy(&ours("fixtures/models/bert-tiny"), "model");
        let ran = place.run(&["verify", "model", "--json"]);
        assert!(ran.stderr.contains("no ONNX file"), "{}", ran.stderr);
        let report: Value = serde_json::from_str(&ran.done()).unwrap();
        let backends: BTreeSet<String> = rows(&report, "ok").into_iter().map(|row| row.1).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        assert_eq!(backends, ["candle", "documents", "index"]);
    }

    /// One bias of the output layer is changed in one of the files.
    #[test]
    fn a_changed_onnx_file_is_named_with_backend_term_and_difference() {
        let place = exported("inference-free/model");
        let checkpoint = std::fs::read(place.path(&format!("{DOCUMENT}/model.safetensors"))).unwrap();
        let (bias, _) = tensor(&checkpoint, "cls.predictions.bias");
        let path = place.path(&format!("{DOCUMENT}/onnx/model_splade.onnx"));
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(bias.len()).position(|window| window == bias).expect("the bias is in the file");
        bytes[at + 4 * 77..at + 4 * 78].copy_from_slice(&9.0_f32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let ran = place.run(&["verify", "model", "--json"]);
        let report =
            disagrees(&ran, &["document vectors: ", "model_splade.onnx differs by", "more than 1.0e-4 allows"]);
        let wrong = rows(&report, "differs");
        assert!(wrong.iter().all(|row| row.2.ends_with("model_splade.onnx")), "{wrong:?}");
        let stages: BTreeSet<&str> = wrong.iter().map(|row| row.0.as_str()).collect();
        assert!(stages.contains("document vectors") && !stages.contains("padded batch"), "{wrong:?}");
        let is_it = |row: &&Value| row["status"] == "differs" && row["stage"] == "document vectors";
        let row = report["stages"].as_array().unwrap().iter().find(is_it).unwrap();
        assert_eq!(row["largest_at"]["dim"], 77);
        assert!(row["difference"].as_f64().unwrap() > 0.5, "{row:#}");
        // the table has the same findings
        let table = place.run(&["verify", "model"]);
        assert!(table.stdout.contains("differs") && table.code == Some(1), "{}", table.stdout);
    }

    #[test]
    fn a_truncated_onnx_file_fails_and_the_others_are_compared() {
        let place = exported("splade/model");
        let path = place.path("model/onnx/model.onnx");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let report = disagrees(&place.run(&["verify", "model", "--json"]), &["onnx/model.onnx", "not an onnx file"]);
        let failed = rows(&report, "failed");
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(rows(&report, "ok").iter().any(|row| row.1 == "onnx runtime" && row.2 == "onnx/model_splade.onnx"));
    }

    #[test]
    fn a_query_side_with_another_tokenizer_is_detected() {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        let name = "model/query_0_SparseStaticEmbedding/tokenizer.json";
        let mut tokenizer: Value = serde_json::from_str(&place.read(name)).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        // two words are exchanged: the folder is refused
        let words: Vec<String> =
            vocabulary.keys().filter(|word| ["i", "og"].contains(&word.as_str())).cloned().collect();
        let [a, b] = words.as_slice() else { panic!("the words are in the vocabulary: {words:?}") };
        let (first, second) = (vocabulary[a].clone(), vocabulary[b].clone());
        vocabulary.insert(a.clone(), second.clone());
        vocabulary.insert(b.clone(), first.clone());
        place.write(name, tokenizer.to_string());
        place.run(&["verify", "model"]).fails(2, "queries and documents need the same tokens", "");
        // the same tokens without lower-casing: a row of the report differs
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.insert(a.clone(), first);
        vocabulary.insert(b.clone(), second);
        tokenizer["normalizer"] = Value::Null;
        place.write(name, tokenizer.to_string());
        let report = disagrees(&place.run(&["verify", "model", "--json"]), &["tokenization: both sides on ", "token "]);
        assert_eq!(rows(&report, "differs").len(), 1);
    }

    #[test]
    fn without_onnx_runtime_other_backends_are_compared() {
        let place = exported("splade/model");
        let child = place.command(&["verify", "model", "--json"]).env("ORT_DYLIB_PATH", "/nowhere.so").spawn().unwrap();
        let report: Value = serde_json::from_str(&finish(child).done()).unwrap();
        let skipped: Vec<String> = rows(&report, "skipped").into_iter().map(|row| row.1).collect();
        assert_eq!(skipped, ["onnx runtime", "onnx runtime"]);
        assert!(rows(&report, "ok").iter().any(|row| row.1 == "candle-onnx"));
    }

    /// A folder with the texts and vectors of sentence-transformers.
    fn golden(kind: &str) -> Place {
        let place = exported(&format!("{kind}/model"));
        let texts: Value = serde_json::from_slice(&std::fs::read(fixture(kind).join("texts.json")).unwrap()).unwrap();
        let embeddings = std::fs::read(fixture(kind).join("expected_embeddings.safetensors")).unwrap();
        for (role, key) in [("query", "queries"), ("document", "documents")] {
            let texts = texts[key].as_array().unwrap();
            let lines = texts.iter().enumerate().map(|(at, text)| json!({"_id": format!("t{at}"), "text": text}));
            place.write(&format!("{role}.jsonl"), lines.map(|line| line.to_string()).collect::<Vec<_>>().join("\n"));
            let (bytes, shape) = tensor(&embeddings, role);
            let floats: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let line = |(at, row): (usize, &[f32])| {
                let entries = row.iter().enumerate().filter(|(_, weight)| **weight != 0.0);
                let (indices, values): (Vec<usize>, Vec<f32>) = entries.map(|(dim, weight)| (dim, *weight)).unzip();
                json!({"_id": format!("t{at}"), "indices": indices, "values": values}).to_string()
            };
            // in reverse order: vectors are found by id
            let lines: Vec<String> = floats.chunks(shape[1]).enumerate().map(line).rev().collect();
            place.write(&format!("{role}-vectors.jsonl"), lines.join("\n"));
        }
        place
    }

    #[test]
    fn the_vectors_of_sentence_transformers_agree_with_every_backend() {
        for (kind, query_backends) in [("inference-free", 1), ("splade", 5)] {
            let place = golden(kind);
            for (role, backends) in [("query", query_backends), ("document", 5)] {
                let (input, reference) = (format!("{role}.jsonl"), format!("{role}-vectors.jsonl"));
                let args = ["verify", "model", "--input", &input, "--reference", &reference, "--role", role, "--json"];
                let report = place.json(&args);
                assert_eq!(report["agrees"], true, "{kind} {role}: {report:#}");
                let compared = rows(&report, "ok").into_iter().filter(|row| row.0 == "reference").count();
                assert_eq!(compared, backends, "{kind} {role}: {report:#}");
            }
        }
    }

    #[test]
    fn a_reference_may_have_tokens_and_is_named_if_it_differs() {
        let place = golden("splade");
        let encoded = ["encode", "model", "--input", "document.jsonl", "--role", "document", "--format", "tokens"];
        let vectors = place.ok(&encoded);
        place.write("ours.jsonl", &vectors);
        let verify = ["verify", "model", "--input", "document.jsonl", "--reference", "ours.jsonl", "--json"];
        assert_eq!(place.json(&verify)["agrees"], true);
        let mut lines: Vec<Value> = vectors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (token, weight) = lines[2]["tokens"].as_object().unwrap().iter().next().unwrap();
        let (token, weight) = (token.clone(), weight.as_f64().unwrap());
        lines[2]["tokens"][&token] = (weight + 0.5).into();
        place.write("ours.jsonl", lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
        let report = disagrees(&place.run(&verify), &["reference: candle on ", &format!("at t2, {token} (and ")]);
        assert_eq!(rows(&report, "differs").len(), 5);
        let tolerant = [&verify[..], &["--tolerance", "1"]].concat();
        assert_eq!(place.json(&tolerant)["agrees"], true);
    }

    #[test]
    fn invalid_input_is_named() {
        let place = setup();
        place.copy(&fixture("splade/model"), "model");
        place.write("texts.jsonl", "{\"_id\": \"a\", \"text\": \"fjord\"}\n{\"_id\": \"b\", \"text\": \"fjell\"}\n");
        place.write("none.jsonl", "");
        let line = |id: &str, rest: &str| format!("{{\"_id\": \"{id}\", {rest}}}\n");
        let vector = "\"indices\": [1], \"values\": [1]";
        let both = line("a", vector) + &line("b", vector);
        let cases = [
            (line("a", vector), "no vector for the text \"b\"", "--input"),
            (both.clone() + &line("c", vector), "\"c\" is not a text of --input", "--input"),
            (both.clone() + &line("a", vector), "duplicate id \"a\"", "unique"),
            (
                line("a", "\"indices\": [420], \"values\": [1]"),
                "the dimension 420, but the model has 420",
                "vectors of this model",
            ),
            (line("a", "\"tokens\": {\"no such token\": 1}"), "vectors.jsonl:1: token \"no such token\"", ""),
            (line("a", "\"indices\": [1]"), "vectors.jsonl:1: neither indices and values nor tokens", ""),
        ];
        let verify = ["verify", "model", "--input", "texts.jsonl", "--reference", "vectors.jsonl"];
        for (text, error, hint) in cases {
            place.write("vectors.jsonl", text);
            place.run(&verify).fails(2, error, hint);
        }
        place.run(&["verify", "no"]).fails(2, "no: no such folder", "Hub id");
        place.run(&["verify", "model", "--input", "none.jsonl"]).fails(2, "none.jsonl: there are no texts", "");
        place.run(&["verify", "model", "--input", "no.jsonl"]).fails(2, "no.jsonl: no such file", "");
        place.run(&["verify", "model", "--reference", "vectors.jsonl"]).fails(2, "--input <FILE>", "--help");
        place.run(&["verify", "model", "--tolerance", "-1"]).fails(2, "a number above 0", "--help");
        place.run(&["verify", "model", "--max-length", "2"]).fails(2, "cannot contain a word", "allow at least 3");
        place.write("model/model.safetensors", "torn");
        place.run(&["verify", "model"]).fails(2, "model.safetensors: not a whole safetensors file", "");
    }
}

mod inspect {
    use super::*;

    /// One of each kind.
    fn examples() -> Place {
        let place = exported("inference-free/model");
        place.copy(&ours("fixtures/models/bert-tiny"), "bare");
        place.copy(&ours("data/toy/corpus.jsonl"), "corpus.jsonl");
        place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "toy.index"]);
        let encode = ["encode", "model", "--input", "corpus.jsonl", "--role", "document", "--output"];
        place.ok(&[&encode[..], &["vectors.jsonl"]].concat());
        place.ok(&[&encode[..], &["named.jsonl", "--format", "tokens"]].concat());
        place.write("table/idf.json", r#"{"fjord": 2.5, "og": 0.25, "i": 0, "fisk": -1}"#);
        place.write("table/weights.txt", "Forsk\t2.5\nog\t0.25\n");
        place
    }

    const TABLE: &str = "model/query_0_SparseStaticEmbedding/model.safetensors";

    #[test]
    fn every_kind_is_recognized() {
        let place = examples();
        let onnx = format!("{DOCUMENT}/onnx/model.onnx");
        let checkpoint = format!("{DOCUMENT}/model.safetensors");
        let cases = [
            ("model", "model"),
            ("bare", "model"),
            (&onnx, "onnx"),
            (TABLE, "query table"),
            ("model/query_0_SparseStaticEmbedding", "query table"),
            ("toy.index/query", "query table"),
            ("table/idf.json", "query table"),
            ("table/weights.txt", "query table"),
            (&checkpoint, "checkpoint"),
            ("toy.index", "index"),
            ("vectors.jsonl", "vectors"),
            ("named.jsonl", "vectors"),
        ];
        for (path, kind) in cases {
            let found = place.json(&["inspect", path, "--json"]);
            assert_eq!(found["kind"], kind, "{path}: {found:#}");
            let text = place.ok(&["inspect", path]);
            assert!(text.lines().count() > 4, "{path}: {text}");
        }
    }

    #[test]
    fn a_model_is_described() {
        let place = examples();
        let found = place.json(&["inspect", "model", "--json"]);
        assert_eq!(found["family"], "BertForMaskedLM");
        assert_eq!(found["supported"], true);
        assert_eq!(found["architecture"], "inference-free-splade");
        assert_eq!(found["sizes"]["terms"], 420);
        assert_eq!(found["tokenizer"]["size"], 420);
        assert_eq!(found["query_table"]["terms"], 420);
        assert_eq!(found["onnx"].as_array().unwrap().len(), 2);
        let written = |place: &Place| place.json(&["inspect", "model", "--json"])["fingerprint"].clone();
        assert_eq!(found["fingerprint"], written(&place));
        // every float of the checkpoint is counted
        let bytes = std::fs::read(place.path(&format!("{DOCUMENT}/model.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let floats: usize = file.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
        assert_eq!(found["parameters"], floats);
        let files = found["files"].as_array().unwrap();
        assert!(files.iter().any(|file| file["path"] == "modules.json"), "{found:#}");
    }

    #[test]
    fn overrides_of_the_tokenizer_are_listed() {
        let place = examples();
        let network = format!("{DOCUMENT}/tokenizer_config.json");
        let config: Value = serde_json::from_str(&place.read(&network)).unwrap();
        assert_eq!(place.json(&["inspect", "model", "--json"])["tokenizer"]["overrides"], json!([]));
        for (key, value) in [("do_lower_case", json!(false)), ("strip_accents", json!(true))] {
            let mut changed = config.clone();
            changed["tokenizer_class"] = json!("BertTokenizer");
            changed[key] = value;
            for folder in [DOCUMENT, "model/query_0_SparseStaticEmbedding"] {
                place.write(&format!("{folder}/tokenizer_config.json"), changed.to_string());
            }
            let found = place.json(&["inspect", "model", "--json"]);
            let lines = found["tokenizer"]["overrides"].as_array().unwrap();
            assert!(lines.iter().any(|line| line.as_str().unwrap().contains("normalizer")), "{key}: {lines:?}");
            assert_eq!(found["query_tokenizer"]["overrides"], found["tokenizer"]["overrides"]);
            let text = place.ok(&["inspect", "model"]);
            for label in ["overrides ", "query overrides "] {
                assert!(text.lines().any(|line| line.starts_with(label)), "{label}: {text}");
            }
        }
    }

    #[test]
    fn flags_for_reading_a_model_are_shown() {
        let place = examples();
        let config = place.read("bare/config.json").replacen('{', "{\"twist\": 1, ", 1);
        place.write("bare/config.json", config);
        assert_eq!(place.json(&["inspect", "bare", "--json"])["supported"], false);
        let found = place.json(&["inspect", "bare", "--json", "--ignore-config-key", "twist"]);
        assert_eq!((&found["supported"], &found["ignored_config_keys"]), (&json!(true), &json!(["twist"])));
        assert!(place.ok(&["inspect", "bare", "--ignore-config-key", "twist"]).contains("twist (--ignore-config-key)"));
        place.copy(&ours("fixtures/models/norbert4-tiny"), "norbert4");
        let found = place.json(&["inspect", "norbert4", "--json", "--mlm-head", "raw"]);
        assert_eq!(found["mlm_head"], json!({"mode": "raw", "source": "given by --mlm-head"}));
        let ran = place.run(&["inspect", "vectors.jsonl", "--ignore-config-key", "twist"]);
        ran.fails(2, "vectors.jsonl: not a model folder", "leave out --mlm-head and --ignore-config-key");
    }

    #[test]
    fn an_unsupported_family_is_described_with_the_reason() {
        let place = examples();
        let config = place.read("bare/config.json").replace("BertForMaskedLM", "GptForMaskedLM");
        place.write("bare/config.json", config);
        let found = place.json(&["inspect", "bare", "--json"]);
        assert_eq!((found["family"].as_str(), found["supported"].as_bool()), (Some("GptForMaskedLM"), Some(false)));
        assert!(place.ok(&["inspect", "bare"]).contains("unsupported architecture GptForMaskedLM"));
    }

    #[test]
    fn an_onnx_file_is_described() {
        let place = examples();
        let found = place.json(&["inspect", &format!("{DOCUMENT}/onnx/model.onnx"), "--json"]);
        assert_eq!(found["opsets"][""], 17);
        assert_eq!(found["precision"], "fp32");
        let inputs: Vec<&str> =
            found["inputs"].as_array().unwrap().iter().map(|input| input["name"].as_str().unwrap()).collect();
        assert_eq!(inputs, ["input_ids", "attention_mask", "token_type_ids"]);
        assert_eq!(found["outputs"][0]["axes"], json!(["batch_size", "sequence_length", "420"]));
        assert!(found["operators"]["MatMul"].as_u64().unwrap() > 5, "{found:#}");
        // about as many floats as in the checkpoint; the file has further constants
        let parameters = place.json(&["inspect", "model", "--json"])["parameters"].as_u64().unwrap();
        let stored = found["parameters"].as_u64().unwrap();
        assert!(stored.abs_diff(parameters) < parameters / 4, "{stored} {parameters}");
    }

    #[test]
    fn a_table_shows_top_bottom_and_dead_terms() {
        let place = examples();
        let bytes = std::fs::read(place.path(TABLE)).unwrap();
        let (data, _) = tensor(&bytes, "weight");
        let mut weights: Vec<f32> = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (weights[7], weights[8], weights[9]) = (0.0, 99.0, -99.0);
        let changed: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![weights.len()], &changed).unwrap();
        place.write(TABLE, safetensors::serialize([("weight", view)], None).unwrap());
        let found = place.json(&["inspect", TABLE, "--json", "--top", "3"]);
        assert_eq!((found["terms"].as_u64(), found["top"].as_array().unwrap().len()), (Some(420), 3));
        assert_eq!((found["top"][0]["dim"].as_u64(), found["top"][0]["weight"].as_f64()), (Some(8), Some(99.0)));
        assert_eq!(found["bottom"][0]["dim"], 9);
        let dead = weights.iter().filter(|weight| **weight == 0.0).count();
        assert_eq!(found["dead"], dead);
        let counts = found["histogram"].as_array().unwrap().iter().map(|bucket| bucket["count"].as_u64().unwrap());
        assert_eq!(counts.sum::<u64>() as usize, 420 - dead);
        // the tokenizer in the same folder names the terms
        let vocabulary: Value =
            serde_json::from_str(&place.read("model/query_0_SparseStaticEmbedding/tokenizer.json")).unwrap();
        let token = found["top"][0]["token"].as_str().unwrap();
        assert_eq!(vocabulary["model"]["vocab"][token], 8);
        let listed = place.json(&["inspect", "table/idf.json", "--json"]);
        assert_eq!((listed["terms"].as_u64(), listed["dead_terms"][0].as_str()), (Some(4), Some("i")));
        // with a model, every term of its tokenizer is counted
        let named = place.json(&["inspect", "table/weights.txt", "--json", "--model", "model"]);
        assert_eq!((named["terms"].as_u64(), named["dead"].as_u64()), (Some(420), Some(418)));
    }

    #[test]
    fn a_vector_file_is_counted_in_both_forms() {
        let place = examples();
        let plain = place.json(&["inspect", "vectors.jsonl", "--json", "--model", "model"]);
        assert_eq!(
            (plain["sparsity"]["count"].as_u64(), plain["sparsity"]["dimensions"].as_u64()),
            (Some(12), Some(420))
        );
        for args in [&["named.jsonl", "--model", "model"][..], &["named.jsonl"]] {
            let named = place.json(&[&["inspect", "--json"], args].concat());
            for key in ["count", "active_dims_mean", "active_dims_max", "used_dims"] {
                assert_eq!(named["sparsity"][key], plain["sparsity"][key], "{key}");
            }
            assert_eq!(named["weights"], plain["weights"]);
            assert_eq!(named["top_terms"][0]["vectors"], plain["top_terms"][0]["vectors"]);
        }
        let by_number = place.json(&["inspect", "vectors.jsonl", "--json"]);
        assert_eq!(by_number["sparsity"]["sparsity_ratio"], Value::Null);
    }

    #[test]
    fn an_index_is_described() {
        let place = examples();
        let found = place.json(&["inspect", "toy.index", "--json"]);
        assert_eq!(found["stats"]["documents"], 12);
        assert_eq!(found["settings"]["vocabulary_size"], 420);
        assert_eq!(found["query"]["table"]["terms"], 420);
        assert_eq!(found["settings"]["model_fingerprint"], place.json(&["inspect", "model", "--json"])["fingerprint"]);
    }

    #[test]
    fn an_unknown_file_is_refused() {
        let place = examples();
        place.write("empty/x.txt", "a text\n");
        place.write("a.md", "# no");
        place.write("list.json", "[1, 2]");
        place.write("torn.bin", "PK");
        place.write("torn.safetensors", "no");
        place.write("torn.onnx", "no");
        place.write("nan.json", r#"{"a": "b"}"#);
        let cases = [
            ("nothing", "nothing: no such folder", "Hub id"),
            ("nothing.onnx", "nothing.onnx: no such file or folder", ""),
            ("empty", "empty: unknown kind of file or folder", "model folders"),
            ("a.md", "a.md: unknown kind of file or folder", "model folders"),
            ("empty/x.txt", "x.txt:1: not a token, a tab and a weight", ""),
            ("list.json", "list.json: not a table of weights", ""),
            ("nan.json", "nan.json: not a table of weights", ""),
            ("torn.bin", "torn.bin: not a whole torch file", ""),
            ("torn.safetensors", "torn.safetensors: not a whole safetensors file", ""),
            ("torn.onnx", "torn.onnx: not an onnx file", ""),
            ("corpus.jsonl", "corpus.jsonl:1: neither indices and values nor tokens", ""),
        ];
        for (path, error, hint) in cases {
            place.run(&["inspect", path]).fails(2, error, hint);
            place.run(&["inspect", path, "--json"]).fails(2, error, hint);
        }
        place.run(&["inspect", "vectors.jsonl", "--model", "no"]).fails(2, "no: no such folder", "Hub id");
    }

    /// Safetensors, torch files, and models with head modes.
    #[test]
    fn every_family_is_described() {
        for family in families() {
            let path = ours("fixtures/models").join(family);
            let path = path.to_str().unwrap();
            let found = setup().json(&["inspect", path, "--json"]);
            assert_eq!(found["supported"], true, "{path}: {found:#}");
            assert!(found["parameters"].as_u64().unwrap() > 10_000, "{path}: {found:#}");
            assert_eq!(found["mlm_head"].is_null(), found["family"] != "GptBertForMaskedLM", "{path}: {found:#}");
            assert!(found["sizes"]["layers"].as_u64().is_some() && found["sizes"]["wide"].as_u64().is_some());
        }
        let torch = ours("fixtures/models/norbert3-tiny/pytorch_model.bin");
        let found = setup().json(&["inspect", torch.to_str().unwrap(), "--json"]);
        let safetensors = ours("fixtures/models/norbert3-tiny/model.safetensors");
        let same = setup().json(&["inspect", safetensors.to_str().unwrap(), "--json"]);
        let names = |found: &Value| -> BTreeSet<String> {
            let float = |tensor: &&Value| tensor["dtype"] == "F32";
            let tensors = found["tensors"].as_array().unwrap().iter().filter(float);
            tensors.map(|tensor| format!("{} {}", tensor["name"].as_str().unwrap(), tensor["shape"])).collect()
        };
        assert!(names(&found).is_superset(&names(&same)), "{found:#}\n{same:#}");
    }

    /// Every file of a model, truncated and replaced in turn: an error or a description, never a panic.
    #[test]
    fn a_damaged_model_is_never_a_panic() {
        let whole = examples();
        let found = whole.json(&["inspect", "model", "--json"]);
        let files = found["files"].as_array().unwrap();
        assert!(files.len() > 8, "{files:?}");
        for file in files {
            let name = format!("model/{}", file["path"].as_str().unwrap());
            let bytes = std::fs::read(whole.path(&name)).unwrap();
            for content in [&bytes[..bytes.len() / 2], b"", b"{}", b"[]"] {
                whole.write(&name, content);
                for path in ["model", name.as_str()] {
                    let ran = whole.run(&["inspect", path]);
                    assert!(
                        !ran.stderr.contains("panicked") && ran.code.is_some_and(|code| code != 1),
                        "{name}: {ran:?}"
                    );
                }
            }
            whole.write(&name, bytes);
        }
    }
}

mod doctor {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let found = setup().json(&["doctor", "--json"]);
        assert!(found["onnx_runtime"].as_str().is_some_and(|path| path.contains("onnxruntime")), "{found:#}");
        assert!(found["onnx_runtime_version"].as_str().is_some_and(|version| version.starts_with("1.")), "{found:#}");
        assert!(found["providers"].as_array().unwrap().contains(&json!("CPU")), "{found:#}");
        assert_eq!(found["self_test"]["ok"], true, "{found:#}");
        assert!(found["devices"].as_array().unwrap().contains(&json!("cpu")));
        assert!(found["backends"].as_array().unwrap().contains(&json!("candle")));
        assert_eq!((&found["hub"]["offline"], &found["hub"]["cached_models"]), (&json!(true), &json!(0)));
        let text = setup().ok(&["doctor"]);
        for line in
            ["splade ", "ONNX Runtime ", "providers ", "threads ", "devices ", "processor ", "Hub ", "self-test "]
        {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
        }
    }

    #[test]
    fn a_missing_library_is_reported_with_a_hint() {
        let place = setup();
        let doctor = |args: &[&str]| {
            let child = place.command(args).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so").spawn().unwrap();
            finish(child).done()
        };
        let text = doctor(&["doctor"]);
        assert!(text.contains("was not found: there is no /nowhere/libonnxruntime.so"), "{text}");
        assert!(text.contains("hint: run `make setup`"), "{text}");
        let json: Value = serde_json::from_str(&doctor(&["doctor", "--json"])).unwrap();
        assert_eq!((&json["onnx_runtime"], &json["self_test"]), (&Value::Null, &Value::Null));
        assert!(json["hints"][0].as_str().unwrap().contains("make setup"));
    }
}
