//! Error messages, exit codes, and the outputs that a failed command leaves.
#![cfg(feature = "train")]

#[path = "cli/answers.rs"]
mod answers;
#[path = "cli/dense.rs"]
mod dense;
#[path = "cli/export_vectors.rs"]
mod export_vectors;
#[path = "cli/fields.rs"]
mod fields;
#[path = "cli/killed.rs"]
mod killed;
#[path = "cli/pages.rs"]
mod pages;
#[path = "cli/passages.rs"]
mod passages;
#[path = "cli/pruning.rs"]
mod pruning;
#[path = "cli/resume.rs"]
mod resume;
#[path = "cli/scale.rs"]
mod scale;
#[cfg(all(feature = "serve", unix))]
#[path = "cli/serve.rs"]
mod serve;
#[path = "cli/shards.rs"]
mod shards;
#[path = "cli/snippets.rs"]
mod snippets;
#[path = "cli/tune.rs"]
mod tune;
mod util;
#[path = "cli/vectors.rs"]
mod vectors;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use util::{Place, finish, fixture, names, ours, setup, wait_until};

/// Config of a very small training.
const TINY: &str = "
model:
  architecture: splade
  init: {hidden_size: 16, layers: 1, heads: 2, intermediate_size: 32, vocab_size: 300}
training:
  output_dir: out
  max_steps: 4
  per_device_train_batch_size: 4
  max_seq_length: 32
  eval_strategy: no
  save_steps: 2
loss: {query_regularizer_weight: 1.0e-4}
datasets:
  a: {files: [train.jsonl]}
";

/// A folder with a tiny model, a corpus and queries.
fn place() -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy/corpus.jsonl"), "corpus.jsonl");
    place.copy(&ours("data/toy/queries.jsonl"), "queries.jsonl");
    place
}

fn place_to_train() -> Place {
    let place = setup();
    place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
    place.write("train.yaml", TINY);
    place
}

/// Replaces a part of a file.
fn edit(place: &Place, name: &str, from: &str, to: &str) {
    let text = place.read(name);
    assert!(text.contains(from), "{text}");
    place.write(name, text.replace(from, to));
}

const ENCODE: [&str; 6] = ["encode", "model", "--input", "corpus.jsonl", "--role", "document"];
const INDEX: [&str; 6] = ["index", "model", "--input", "corpus.jsonl", "--index", "toy.index"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

mod flags {
    use super::*;

    #[test]
    fn wrong_flags_are_named_with_the_right_ones() {
        let place = setup();
        let run = |args: &[&str]| place.run(args);
        run(&["encode", "m", "--input", "x", "--role", "query", "--formt", "tokens"]).fails(
            2,
            "'--formt'",
            "'--format'",
        );
        run(&["encode", "m", "--input", "x", "--role", "reader"]).fails(2, "'reader'", "--help");
        run(&["encode", "m", "--role", "query"]).fails(2, "--input <FILE>", "--help");
        run(&["serch"]).fails(2, "'serch'", "'search'");
        run(&["search", "--index", "i"]).fails(2, "<QUERY>", "--help");
        run(&["search", "--index", "i", "q", "-k", "0"]).fails(2, "at least 1", "--help");
        run(&["search", "--index", "i", "q", "-k", "many"]).fails(2, "expected a whole number", "--help");
        run(&["search", "--index", "i", "q", "--queries", "f"]).fails(2, "cannot be used with", "--help");
        run(&["index", "m", "--index", "i", "--input", "f", "--append", "--overwrite"]).fails(
            2,
            "cannot be used with",
            "--help",
        );
    }

    #[test]
    fn no_command_shows_them_all() {
        let ran = setup().run(&[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
        assert!(ran.stderr.contains("eval-mteb"), "{}", ran.stderr);
        assert!(setup().ok(&["--version"]).starts_with("splade 0."));
    }
}

mod input {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let place = place();
        let encode = |file| place.run(&["encode", "model", "--input", file, "--role", "query"]);
        encode("no.jsonl").fails(2, "no.jsonl: no such file or folder", "");
        encode("model").fails(2, "model: unknown kind of file", "");
        place.run(&["index", "model", "--input", "no.jsonl", "--index", "i"]).fails(2, "no.jsonl: no such file", "");
        assert!(!place.path("i").exists());
        place.run(&["train", "no.yaml"]).fails(2, "no.yaml: no such file", "");
        place.run(&["search", "--index", "no", "q"]).fails(2, "no: no index there", "");
        place.run(&["eval-mteb", "model", "--data", "no"]).fails(2, "no", "");
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        let place = place();
        let good = "{\"_id\": \"a\", \"text\": \"En torsk.\"}\n";
        for (line, why) in [
            ("{\"_id\": \"b\", \"text\": ", "broken JSON"),
            ("[1]", "found an array"),
            ("{\"_id\": \"b\"}", "missing text"),
            ("{\"text\": \"b\"}", "missing _id"),
            ("{\"_id\": \"b\", \"text\": 3}", "text is a number"),
        ] {
            place.write("bad.jsonl", format!("{}{line}\n{good}", good.repeat(16)));
            for role in ["query", "document"] {
                let ran =
                    place.run(&["encode", "model", "--input", "bad.jsonl", "--role", role, "--output", "v.jsonl"]);
                ran.fails(2, "bad.jsonl:17: ", "");
                assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
            }
        }
        assert_eq!(place.names(), ["bad.jsonl", "corpus.jsonl", "model", "queries.jsonl"]);
    }

    #[test]
    fn a_truncated_archive_is_named() {
        let place = place();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(place.read("corpus.jsonl").as_bytes()).unwrap();
        let whole = packed.finish().unwrap();
        place.write("corpus.jsonl.gz", &whole);
        place.write("torn.jsonl.gz", &whole[..whole.len() / 2]);
        let encode = |file| place.run(&["encode", "model", "--input", file, "--role", "query"]);
        assert_eq!(encode("corpus.jsonl.gz").done().lines().count(), 12);
        let ran = place.run(&["index", "model", "--input", "torn.jsonl.gz", "--index", "i"]);
        ran.fails(2, "the gzip data is damaged or truncated", "");
        place.write("no.jsonl.gz", "plain text");
        encode("no.jsonl.gz").fails(2, "no.jsonl.gz:1: the gzip data is damaged", "");
    }

    #[test]
    fn an_empty_corpus_makes_no_index() {
        let place = place();
        place.write("empty.jsonl", "");
        place.run(&["index", "model", "--input", "empty.jsonl", "--index", "i"]).fails(2, "no documents in it", "_id");
        let ran = place.run(&["encode", "model", "--input", "empty.jsonl", "--role", "query"]);
        assert!(ran.stderr.contains("warning: empty.jsonl: there are no texts in it"), "{}", ran.stderr);
        assert_eq!(ran.done(), "");
        assert_eq!(place.names(), ["corpus.jsonl", "empty.jsonl", "model", "queries.jsonl"]);
    }

    #[test]
    fn an_id_may_occur_once() {
        let place = place();
        let corpus = place.read("corpus.jsonl");
        let first = &corpus[..=corpus.find('\n').unwrap()];
        place.write("twice.jsonl", first.repeat(2));
        let ran = place.run(&["index", "model", "--input", "twice.jsonl", "--index", "i"]);
        ran.fails(2, "twice.jsonl: the id \"oslo\" occurs twice", "an id of its own");
        assert!(!place.path("i").exists());
    }

    #[test]
    fn stdin_is_a_dash() {
        let place = place();
        let from_file = place.ok(&["encode", "model", "--input", "corpus.jsonl", "--role", "query"]);
        let dash = ["encode", "model", "--input", "-", "--role", "query"];
        assert_eq!(place.feed(&dash, &place.read("corpus.jsonl")).done(), from_file);
        let plain = place.feed(&dash, "Oslo\nBergen\n").done();
        assert!(plain.starts_with("{\"_id\":\"0\",") && plain.contains("{\"_id\":\"1\","), "{plain}");
        place.feed(&dash, "{\"_id\": \"a\"}\n").fails(2, "<stdin>:1: missing text", "");
        let index = ["index", "model", "--input", "-", "--index", "i"];
        place.feed(&index, &place.read("corpus.jsonl")).done();
        let search = ["search", "--index", "i", "--queries", "-", "--format", "trec", "--mode", "bm25"];
        assert!(place.feed(&search, &place.read("queries.jsonl")).done().starts_with("q1 Q0 oslo 1 "));
    }
}

mod model {
    use super::*;

    const NETWORK: &str = "model/document_0_Transformer";

    fn file(name: &str) -> String {
        format!("{NETWORK}/{name}")
    }

    /// Checks that every command that reads the network fails with the same message.
    #[track_caller]
    fn all_fail(place: &Place, error: &str, hint: &str) {
        place.run(&ENCODE).fails(2, error, hint);
        place.run(&INDEX).fails(2, error, hint);
        place.run(&["export-onnx", "model"]).fails(2, error, hint);
        place.write(
            "base.yaml",
            TINY.replace(
                "init: {hidden_size: 16, layers: 1, heads: 2, intermediate_size: 32, vocab_size: 300}",
                "base_model: model",
            ),
        );
        place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
        place.run(&["train", "base.yaml"]).fails(2, error, hint);
        assert!(!place.path("toy.index").exists() && !place.path(&file("onnx/model.onnx")).exists());
    }

    #[test]
    fn a_folder_that_is_no_model_is_refused() {
        let place = place();
        let encode = |model| place.run(&["encode", model, "--input", "corpus.jsonl", "--role", "document"]);
        encode("no").fails(2, "no: no such folder", "give the folder of a model");
        encode("corpus.jsonl").fails(2, "corpus.jsonl: not a folder", "give the folder of a model");
        std::fs::create_dir(place.path("empty")).unwrap();
        encode("empty").fails(2, "empty: not a model folder: it has neither modules.json nor config.json", "");
        place.write("model/modules.json", "[{");
        encode("model").fails(2, "model/modules.json: ", "");
    }

    #[test]
    fn a_truncated_checkpoint_is_named() {
        let place = place();
        let whole = std::fs::read(place.path(&file("model.safetensors"))).unwrap();
        for length in [0, 5, 3000, whole.len() - 1] {
            place.write(&file("model.safetensors"), &whole[..length]);
            all_fail(&place, "document_0_Transformer/model.safetensors: not a whole safetensors file", "");
        }
        std::fs::remove_file(place.path(&file("model.safetensors"))).unwrap();
        all_fail(&place, "document_0_Transformer: no model.safetensors", "");
    }

    #[test]
    fn a_length_without_room_for_words_is_refused() {
        let place = place();
        let ran = place.run(&with(&ENCODE, &["--max-length", "1"]));
        ran.fails(2, "texts of 1 tokens cannot contain a word beside 2 special tokens", "allow at least 3");
        assert_eq!(place.ok(&with(&ENCODE, &["--max-length", "3"])).lines().count(), 12);
        // longer texts are truncated to the positions of the network
        assert_eq!(
            place.ok(&with(&ENCODE, &["--max-length", "100000"])),
            place.ok(&with(&ENCODE, &["--max-length", "64"]))
        );
    }

    #[test]
    fn a_truncated_query_table_is_named() {
        let place = place();
        let table = "model/query_0_SparseStaticEmbedding/model.safetensors";
        place.write(table, &std::fs::read(place.path(table)).unwrap()[..800]);
        place.run(&["encode", "model", "--input", "corpus.jsonl", "--role", "query"]).fails(
            2,
            &format!("{table}: not a whole safetensors file"),
            "",
        );
    }

    #[test]
    fn the_tokenizer_of_another_model_is_refused() {
        let place = place();
        let mut tokenizer: serde_json::Value = serde_json::from_str(&place.read(&file("tokenizer.json"))).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        for id in vocabulary.len()..vocabulary.len() + 80 {
            vocabulary.insert(format!("ord{id}"), id.into());
        }
        place.write(&file("tokenizer.json"), tokenizer.to_string());
        let why = "document_0_Transformer/tokenizer.json: 500 tokens, but the network has 420 terms";
        all_fail(&place, why, "take the tokenizer.json that the model was trained with");
        let query = "model/query_0_SparseStaticEmbedding/tokenizer.json";
        place.copy(&fixture("inference-free/model/document_0_Transformer/tokenizer.json"), &file("tokenizer.json"));
        place.write(query, tokenizer.to_string());
        let ran = place.run(&["encode", "model", "--input", "corpus.jsonl", "--role", "query"]);
        ran.fails(2, "dimension 420 is \"ord420\" here, but nothing in model/document_0_Transformer", "");
    }

    #[test]
    fn an_unsupported_architecture_is_named() {
        let place = place();
        edit(&place, &file("config.json"), "BertForMaskedLM", "ReformerForMaskedLM");
        edit(&place, &file("config.json"), "\"model_type\": \"bert\"", "\"model_type\": \"reformer\"");
        all_fail(
            &place,
            "config.json: unsupported architecture ReformerForMaskedLM",
            "can be loaded: NorbertForMaskedLM, GptBertForMaskedLM, BertForMaskedLM",
        );
    }

    #[test]
    fn a_checkpoint_without_a_head_is_refused() {
        let place = place();
        // the name of the class is not enough: its checkpoint may have the head
        edit(&place, &file("config.json"), "BertForMaskedLM", "BertModel");
        place.ok(&ENCODE);
        let weights = std::fs::read(place.path(&file("model.safetensors"))).unwrap();
        let without = |name: &str| (!name.starts_with("cls.")).then(|| name.to_owned());
        place.write(&file("model.safetensors"), util::renamed_tensors(&weights, without));
        let why = "the checkpoint has no masked-LM head (cls.predictions.transform.dense.weight is missing)";
        all_fail(&place, why, "give the masked-LM checkpoint of this model");
    }
}

mod backend {
    use super::*;

    #[test]
    fn without_onnx_runtime_candle_runs_and_the_reason_is_logged() {
        let place = place();
        let run = |args: &[&str]| {
            finish(place.command(args).env("ORT_DYLIB_PATH", place.path("lib/libonnxruntime.so")).spawn().unwrap())
        };
        let ran = run(&["export-onnx", "model"]);
        assert!(ran.stderr.contains("warning: model.onnx: not compared in ONNX Runtime: "), "{}", ran.stderr);
        let table = ran.done();
        assert!(table.contains("candle-onnx") && !table.contains("onnx runtime"), "{table}");

        let ran = run(&ENCODE);
        let why = "the network runs in Candle: ONNX Runtime was not found: there is no ";
        assert!(ran.stderr.contains(why) && ran.stderr.contains("lib/libonnxruntime.so"), "{}", ran.stderr);
        assert_eq!(ran.done().lines().count(), 12);

        let ran = run(&with(&ENCODE, &["--backend", "onnx"]));
        ran.fails(2, "lib/libonnxruntime.so", "run `make setup`, or set ORT_DYLIB_PATH to the library");

        let doctor = run(&["doctor"]).done();
        assert!(doctor.contains("was not found") && doctor.contains("make setup"), "{doctor}");
    }

    #[test]
    fn a_broken_library_is_named() {
        let place = place();
        place.write("libonnxruntime.so", "not a library");
        place.ok(&["export-onnx", "model"]);
        let library = place.path("libonnxruntime.so");
        let args = with(&ENCODE, &["--backend", "onnx"]);
        let ran = finish(place.command(&args).env("ORT_DYLIB_PATH", &library).spawn().unwrap());
        ran.fails(2, "ONNX Runtime cannot be loaded: ", "make setup");
    }

    #[test]
    fn the_backend_that_runs_is_named() {
        let place = place();
        let ran = place.run(&ENCODE);
        assert!(ran.stderr.contains("runs in Candle: the model folder has no ONNX file"), "{}", ran.stderr);
        let ran = place.run(&with(&ENCODE, &["--backend", "onnx"]));
        ran.fails(2, "model: no ONNX file", "run `splade export-onnx model`, or use --backend candle");
        place.ok(&["export-onnx", "model"]);
        let ran = place.run(&ENCODE);
        assert!(ran.stderr.contains("runs in ONNX Runtime (") && ran.stderr.contains("model_splade.onnx"));
        let ran = place.run(&with(&ENCODE, &["--backend", "candle"]));
        assert!(!ran.stderr.contains("ONNX"), "{}", ran.stderr);
        place.write("model/document_0_Transformer/onnx/model_splade.onnx", "not a model");
        place.run(&ENCODE).fails(2, "model_splade.onnx: not an onnx file", "");
    }

    #[test]
    fn a_device_that_an_onnx_file_cannot_use_is_named_with_the_reason() {
        let place = place();
        place.ok(&["export-onnx", "model"]);
        let onnx = with(&ENCODE, &["--backend", "onnx"]);
        #[cfg(not(feature = "onnx-cuda"))]
        {
            let ran = place.run(&with(&onnx, &["--device", "cuda", "--ep-option", "device_id=0"]));
            let why =
                "--device cuda cannot be used, cpu is used instead: this program was built without the feature cuda";
            assert!(ran.stderr.contains(why) && !ran.stdout.is_empty(), "{}", ran.stderr);
        }
        place.run(&with(&onnx, &["--device", "metal"])).fails(2, "metal is a device of Candle", "--backend candle");
        place.run(&with(&onnx, &["--ep-option", "device_id"])).fails(2, "expected KEY=VALUE", "see --help");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_there_is_refused() {
        let ran = place().run(&with(&ENCODE, &["--device", "cuda", "--backend", "candle"]));
        ran.fails(2, "device cuda cannot be used", "take cpu");
    }
}

mod index {
    use super::*;

    /// Adds an index, and another tiny model with another tokenizer.
    fn place_with_index() -> Place {
        let place = place();
        place.ok(&INDEX);
        place.copy(&fixture("splade/model"), "other");
        place
    }

    #[test]
    fn an_index_of_another_model_is_refused() {
        let place = place_with_index();
        let why = "toy.index: built with another model: its tokenizer is ";
        let hint = "give the model that the index was built with";
        place
            .run(&["index", "other", "--input", "corpus.jsonl", "--index", "toy.index", "--append"])
            .fails(2, why, hint);
        place.run(&["search", "--index", "toy.index", "Oslo", "--model", "other"]).fails(2, why, hint);
        place.copy(&fixture("layouts/v5.1/inference-free/model"), "same-words");
        edit(&place, "same-words/config_sentence_transformers.json", "\"prompts\"", "\"were_prompts\"");
        place.write("same-words/document_1_SpladePooling/config.json", r#"{"pooling_strategy": "sum"}"#);
        place.run(&["search", "--index", "toy.index", "Oslo", "--model", "same-words"]).fails(2, "its model is ", hint);
        place.ok(&["search", "--index", "toy.index", "Oslo", "--model", "model"]);
        assert_eq!(
            place.json(&["index", "model", "--index", "toy.index", "--append", "--input", "corpus.jsonl", "--json"])["documents"],
            12
        );
    }

    #[test]
    fn queries_through_the_network_need_the_model() {
        let place = place_with_index();
        place.ok(&["index", "other", "--input", "corpus.jsonl", "--index", "other.index"]);
        place.run(&["search", "--index", "other.index", "Oslo"]).fails(
            2,
            "other.index: queries of this index go through the model's network",
            "give the model folder with --model",
        );
        assert!(place.ok(&["search", "--index", "other.index", "Oslo", "--mode", "bm25"]).contains("oslo"));
        assert!(place.ok(&["search", "--index", "other.index", "Oslo", "--model", "other"]).contains(" 1. "));
    }

    /// Documents are tokenized whole to find expansion terms, whatever the maximum length of queries is.
    #[test]
    fn a_word_beyond_the_length_of_a_query_is_no_expansion() {
        let place = place();
        let settings = "model/query_0_SparseStaticEmbedding/tokenizer_config.json";
        let mut config: serde_json::Value = serde_json::from_str(&place.read(settings)).unwrap();
        config["model_max_length"] = 4.into();
        place.write(settings, config.to_string());
        let text = format!("{} fisk", "og ".repeat(300));
        place.write("long.jsonl", serde_json::json!({"_id": "long", "text": text}).to_string());
        let query = ["encode", "model", "--role", "query", "--input", "-"];
        place.write("v.jsonl", place.feed(&query, "{\"_id\": \"long\", \"text\": \"fisk\"}\n").done());
        place.ok(&["index", "model", "--input", "long.jsonl", "--vectors", "v.jsonl", "--index", "long.index"]);
        for more in [&[][..], &["--model", "model"]] {
            let search = ["search", "--index", "long.index", "fisk", "--explain", "--json"];
            let found = place.json(&with(&search, more));
            let terms = found["hits"][0]["terms"].as_array().unwrap();
            assert!(!terms.is_empty() && terms.iter().all(|term| term["expansion"] == false), "{found:#}");
        }
    }

    #[test]
    fn invalid_arguments_are_refused() {
        let place = place_with_index();
        let search = |args: &[&str]| place.run(&with(&["search", "--index", "toy.index", "i Norge"], args));
        search(&["--filter", "theme"]).fails(
            2,
            "the filter \"theme\" is neither of the form field=value nor of the form field:value",
            "for instance",
        );
        search(&["--mode", "hybrid", "--rrf-k", "-1"]).fails(
            2,
            "the constant of reciprocal rank fusion is -1, not a number of at least 0",
            "",
        );
        search(&["--mode", "hybrid", "--fusion", "weighted", "--weights", "1"]).fails(2, "two numbers", "--help");
        search(&["--mode", "hybrid", "--fusion", "weighted", "--weights", "0.7,0.3"]).done();
        assert!(search(&["--filter", "theme=by"]).done().contains(" 1. "));
        assert_eq!(search(&["--filter", "theme=gibberish"]).done(), "nothing found\n");
        let ran = place.run(&["index", "model", "--input", "corpus.jsonl", "--index", "i", "--language", "finnish"]);
        ran.fails(2, "no stemmer for the language \"finnish\"", "one of none, norwegian");
        let append = ["index", "model", "--input", "corpus.jsonl", "--index", "toy.index", "--append"];
        place.run(&with(&append, &["--language", "norwegian"])).fails(
            2,
            "made for the language none",
            "leave --language",
        );
        place.run(&["index", "model", "--input", "corpus.jsonl", "--index", "no.index", "--append"]).fails(
            2,
            "no.index: no index there",
            "",
        );
    }

    #[test]
    fn a_damaged_index_is_refused() {
        let place = place_with_index();
        let manifest = place.read("toy.index/manifest.json");
        place.write("toy.index/manifest.json", &manifest[..manifest.len() / 2]);
        place.run(&["search", "--index", "toy.index", "Oslo"]).fails(2, "manifest.json", "");
        place.write("toy.index/manifest.json", &manifest);
        place.ok(&["search", "--index", "toy.index", "Oslo"]);
        std::fs::remove_file(place.path("toy.index/query/query_weights.safetensors")).unwrap();
        place.run(&["search", "--index", "toy.index", "Oslo"]).fails(2, "toy.index/query", "");
    }

    #[test]
    fn a_check_names_what_is_wrong() {
        let place = place_with_index();
        let check = ["index", "--check", "toy.index"];
        assert!(place.ok(&check).starts_with("toy.index: sound, "));
        let report = place.json(&with(&check, &["--json"]));
        assert_eq!((&report["version"], &report["findings"]), (&2.into(), &serde_json::json!([])));

        let tantivy = place.path("toy.index/tantivy");
        let files = names(&tantivy);
        let store = files.iter().find(|name| name.ends_with(".store")).unwrap();
        let intact = std::fs::read(tantivy.join(store)).unwrap();
        let mut damaged = intact.clone();
        damaged[7] ^= 1;
        std::fs::write(tantivy.join(store), damaged).unwrap();
        let ran = place.run(&check);
        assert!(ran.stdout.contains(&format!("toy.index/tantivy/{store}: damaged: ")), "{ran:?}");
        let without_findings = |ran: util::Ran| util::Ran { stdout: String::new(), ..ran };
        without_findings(ran).fails(1, store, "restore the file from a copy");
        let report: serde_json::Value = serde_json::from_str(&place.run(&with(&check, &["--json"])).stdout).unwrap();
        assert_eq!(report["findings"][0]["kind"], "damaged");
        place.run(&["search", "--index", "toy.index", "Oslo"]).fails(2, store, "");
        std::fs::write(tantivy.join(store), intact).unwrap();

        place.write("toy.index/tantivy/0123456789abcdef0123456789abcdef.spl", "half");
        without_findings(place.run(&check)).fails(
            1,
            "belongs to no segment",
            "the next `splade index --append` removes it",
        );
        place.write("gone.txt", "oslo\n");
        place.ok(&["index", "model", "--index", "toy.index", "--append", "--delete", "gone.txt"]);
        place.write("toy.index/notes.txt", "mine");
        without_findings(place.run(&check)).fails(
            1,
            "toy.index/notes.txt: not a file of the index",
            "results are not affected",
        );
        std::fs::remove_file(place.path("toy.index/notes.txt")).unwrap();
        place.ok(&check);

        place.run(&["index", "--check", "model"]).fails(2, "no index there", "");
        place.run(&["index", "--check", "toy.index", "--append"]).fails(2, "cannot be used with", "--help");
        place.run(&["index", "model"]).fails(2, "required", "--help");
    }

    #[test]
    fn documents_are_deleted_and_replaced() {
        let place = place_with_index();
        place.write("gone.txt", "oslo\nbergen\n");
        place.write("new.jsonl", "{\"_id\": \"laks\", \"text\": \"Laksen er rosa.\"}\n");
        let args =
            ["index", "model", "--index", "toy.index", "--append", "--delete", "gone.txt", "--input", "new.jsonl"];
        assert_eq!(place.json(&with(&args, &["--json"]))["documents"], 10);
        assert_eq!(place.ok(&["search", "--index", "toy.index", "hovedstaden", "--mode", "bm25"]), "nothing found\n");
        assert!(place.ok(&["search", "--index", "toy.index", "rosa", "--mode", "bm25"]).contains("Laksen er rosa."));
    }

    #[test]
    fn vectors_of_another_corpus_are_refused() {
        let place = place();
        place.ok(&with(&ENCODE, &["--output", "v.jsonl"]));
        let lines = place.read("v.jsonl");
        place.write("short.jsonl", lines.lines().take(11).map(|line| format!("{line}\n")).collect::<String>());
        let index = |vectors| place.run(&with(&INDEX, &["--vectors", vectors]));
        index("short.jsonl").fails(2, "short.jsonl: it ends where the corpus has \"fjord\"", "encode --role document");
        place.write("swapped.jsonl", lines.lines().rev().map(|line| format!("{line}\n")).collect::<String>());
        index("swapped.jsonl").fails(2, "the id \"fjord\" where the corpus has \"oslo\"", "over the same corpus");
        place.write("more.jsonl", lines.clone() + "{\"_id\": \"x\", \"indices\": [], \"values\": []}\n");
        index("more.jsonl").fails(2, "the id \"x\" is not in the corpus", "over the same corpus");
        place.write("bad.jsonl", "{\"_id\": \"oslo\", \"indices\": [5, 5], \"values\": [1, 1]}\n");
        index("bad.jsonl").fails(2, "bad.jsonl:1", "");
        place.write("wide.jsonl", "{\"_id\": \"oslo\", \"indices\": [420], \"values\": [1]}\n");
        index("wide.jsonl").fails(
            2,
            "document oslo: index 420 is beyond the vocabulary of 420",
            "the model of the index",
        );
        assert!(!place.path("toy.index").exists());
        let fresh = place.ok(&INDEX);
        place.ok(&with(&INDEX, &["--vectors", "v.jsonl", "--overwrite"]));
        assert!(fresh.contains("12 documents"), "{fresh}");
    }
}

mod evaluation {
    use super::*;

    fn place_with_data() -> Place {
        let place = place();
        place.copy(&ours("data/toy"), "toy");
        place
    }

    const EVALUATE: [&str; 4] = ["eval-mteb", "model", "--data", "toy"];

    #[test]
    fn invalid_data_is_explained() {
        for (file, text, error, hint) in [
            ("corpus.jsonl", "", "toy: its corpus has no documents", ""),
            ("corpus.jsonl", "{", "corpus.jsonl:1: broken JSON", ""),
            ("queries.jsonl", "", "toy/queries.jsonl: no query has a relevant document", ""),
            ("queries.jsonl", "[]", "queries.jsonl:1: expected a JSON object", ""),
            ("qrels/test.tsv", "", "toy/qrels/test.tsv", ""),
            ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\toslo\tx\n", "test.tsv:2: the grade 'x'", ""),
        ] {
            let place = place_with_data();
            place.write(&format!("toy/{file}"), text);
            place.run(&EVALUATE).fails(2, error, hint);
            std::fs::remove_file(place.path(&format!("toy/{file}"))).unwrap();
            place.run(&EVALUATE).fails(2, "found, looked for", "");
            assert!(!place.path("results").exists());
        }
        let place = place_with_data();
        let twice = place.read("toy/corpus.jsonl").repeat(2);
        place.write("toy/corpus.jsonl", twice);
        place.run(&EVALUATE).fails(2, "toy/corpus.jsonl:13: duplicate document id oslo", "");
    }

    #[test]
    fn invalid_arguments_are_refused() {
        let place = place_with_data();
        place.run(&with(&EVALUATE, &["--tasks", "frob"])).fails(2, "no data folder holds the task frob", "found: toy");
        place.run(&with(&EVALUATE, &["toy"])).fails(2, "two data folders hold the task toy", "each folder once");
        place.run(&with(&EVALUATE, &["--split", "dev"])).fails(2, "toy: no qrels for split 'dev', only for test", "");
        place.run(&with(&EVALUATE, &["--language", "klingon"])).fails(2, "no stemmer for the language", "one of none");
        place.run(&with(&EVALUATE, &["--baseline", "no"])).fails(2, "no: no such file or folder", "");
        place.run(&with(&EVALUATE, &["--modes", "dense"])).fails(2, "--modes dense: no dense model", "--dense");
        assert!(!place.path("results").exists());
    }
}

mod outputs {
    use super::*;

    #[test]
    fn nothing_is_replaced_without_overwrite() {
        let place = place();
        place.copy(&ours("data/toy"), "toy");
        let evaluate = ["eval-mteb", "model", "--data", "toy", "--modes", "sparse,bm25"];
        for args in [with(&ENCODE, &["--output", "v.jsonl"]), INDEX.to_vec(), vec!["export-onnx", "model"]] {
            place.ok(&args);
            place.run(&args).fails(2, "exists already", "give --overwrite to replace it");
            place.ok(&with(&args, &["--overwrite"]));
        }
        // equal conditions: the results stay; other data: they are not replaced
        let table = place.ok(&evaluate);
        assert_eq!(place.ok(&evaluate), table);
        place.write("toy/queries.jsonl", place.read("toy/queries.jsonl").replace(' ', "  "));
        place.run(&evaluate).fails(2, "exists already", "give --overwrite to replace it");
        place.ok(&with(&evaluate, &["--overwrite"]));
        assert_eq!(place.names(), ["corpus.jsonl", "model", "queries.jsonl", "results", "toy", "toy.index", "v.jsonl"]);
        assert_eq!(names(&place.path("model/document_0_Transformer/onnx")), ["model.onnx", "model_splade.onnx"]);
    }

    #[test]
    fn only_an_index_is_replaced_by_an_index() {
        let place = place();
        std::fs::create_dir(place.path("empty")).unwrap();
        for other in ["model", "corpus.jsonl", "."] {
            let index = ["index", "model", "--input", "corpus.jsonl", "--overwrite", "--index", other];
            place.run(&index).fails(2, "is there and is no index", "choose another --index");
        }
        place.ok(&["index", "model", "--input", "corpus.jsonl", "--overwrite", "--index", "empty"]);
        assert_eq!(place.names(), ["corpus.jsonl", "empty", "model", "queries.jsonl"]);
    }

    #[test]
    fn a_failed_run_leaves_the_old_output() {
        let place = place();
        place.ok(&INDEX);
        place.ok(&with(&ENCODE, &["--output", "v.jsonl"]));
        let before = place.read("v.jsonl");
        place.write("bad.jsonl", place.read("corpus.jsonl") + "{");
        let args = ["index", "model", "--input", "bad.jsonl", "--index", "toy.index", "--overwrite"];
        place.run(&args).fails(2, "bad.jsonl:13: ", "");
        let args =
            ["encode", "model", "--input", "bad.jsonl", "--role", "document", "--output", "v.jsonl", "--overwrite"];
        place.run(&args).fails(2, "bad.jsonl:13: ", "");
        let append = ["index", "model", "--input", "bad.jsonl", "--index", "toy.index", "--append"];
        place.run(&append).fails(2, "bad.jsonl:13: ", "");
        assert_eq!(place.read("v.jsonl"), before);
        assert!(place.ok(&["search", "--index", "toy.index", "hovedstaden", "--mode", "bm25"]).contains("oslo"));
        assert_eq!(place.names(), ["bad.jsonl", "corpus.jsonl", "model", "queries.jsonl", "toy.index", "v.jsonl"]);
    }

    #[test]
    fn only_results_are_on_stdout() {
        let place = place();
        let ran = place.run(&with(&ENCODE, &["-q"]));
        assert_eq!(ran.stderr, "");
        assert!(ran.done().lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        let ran = place.run(&with(&INDEX, &["--log-format", "json", "--json"]));
        let lines: Vec<serde_json::Value> =
            ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["message"].as_str().unwrap().contains("12 documents")), "{lines:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.done()).unwrap()["documents"], 12);
        let ran = place.run(&with(&INDEX, &["--log-format", "json"]));
        assert_eq!(ran.code, Some(2));
        let error: serde_json::Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(error["level"], "ERROR");
        assert_eq!(error["message"], "toy.index: exists already");
        assert_eq!(error["hint"], "give --overwrite to replace it");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let place = place();
        let many: String = (0..20_000).map(|id| format!("{{\"_id\": \"{id}\", \"text\": \"Oslo {id}\"}}\n")).collect();
        place.write("many.jsonl", many);
        let mut child =
            place.command(&["encode", "model", "--input", "many.jsonl", "--role", "query"]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"_id\":\"0\""), "{line}");
        let ran = finish(child);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        for args in [vec!["doctor"], vec!["doctor", "--json"], INDEX.to_vec(), vec!["export-onnx", "model"]] {
            let mut child = place.command(&args).spawn().unwrap();
            drop(child.stdout.take());
            let ran = finish(child);
            assert!(ran.code == Some(0) && !ran.stderr.contains("panicked"), "{args:?}: {}", ran.stderr);
        }
        let mut child = place.command(&["encode", "no", "--input", "no", "--role", "query"]).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(2));
    }
}

#[cfg(unix)]
mod interrupts {
    use super::*;

    /// Signals that end a command in order, with their exit codes.
    const SIGNALS: [(&str, i32); 2] = [("-INT", 130), ("-TERM", 143)];

    fn signal(name: &str, child: &std::process::Child) {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    }

    /// Starts a command that reads stdin, interrupts it in the middle, and feeds it the rest.
    #[track_caller]
    fn interrupt(place: &Place, args: &[&str], aside: &str) {
        for (name, code) in SIGNALS {
            let before = place.names();
            let mut child = place.command(args).stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let corpus = place.read("corpus.jsonl");
            let (first, rest) = corpus.split_at(corpus.find('\n').unwrap() + 1);
            stdin.write_all(first.as_bytes()).unwrap();
            wait_until("the command has made its temporary file", || {
                place.names().iter().any(|name| name.ends_with(aside))
            });
            signal(name, &child);
            // the process may have ended already
            let _ = stdin.write_all(rest.as_bytes());
            drop(stdin);
            finish(child).fails(code, "interrupted", "");
            assert_eq!(place.names(), before);
        }
    }

    #[test]
    fn an_interrupted_command_leaves_no_files() {
        let place = place();
        interrupt(&place, &["encode", "model", "--input", "-", "--role", "document", "--output", "v.jsonl"], ".tmp");
        interrupt(&place, &["index", "model", "--input", "-", "--index", "toy.index"], ".tmp");
        place.ok(&INDEX);
        interrupt(&place, &["index", "model", "--input", "-", "--index", "toy.index", "--overwrite"], ".tmp");
        interrupt(&place, &["search", "--index", "toy.index", "--queries", "-", "--stats=stats.json"], ".tmp");
        assert!(place.ok(&["search", "--index", "toy.index", "hovedstaden", "--mode", "bm25"]).contains("oslo"));
    }

    /// Starts a command, signals it once `begun` is true, and checks that it ends in order.
    #[track_caller]
    fn interrupt_when(place: &Place, args: &[&str], begun: impl Fn() -> bool) {
        for (name, code) in SIGNALS {
            std::fs::create_dir(place.path("tmp")).unwrap();
            let child = place.command(args).env("TMPDIR", place.path("tmp")).spawn().unwrap();
            wait_until("the command has begun to write", &begun);
            signal(name, &child);
            finish(child).fails(code, "interrupted", "");
            // ONNX Runtime keeps a file of its own there
            let left = names(&place.path("tmp"));
            assert!(!left.iter().any(|name| name.contains("splade")), "{left:?}");
            std::fs::remove_dir_all(place.path("tmp")).unwrap();
        }
    }

    #[test]
    fn an_interrupted_export_leaves_no_files() {
        let place = place();
        let network = place.path("model/document_0_Transformer");
        let before = names(&network);
        let args = ["export-onnx", "model", "--precision", "fp32,fp16,int8"];
        interrupt_when(&place, &args, || network.join("onnx").exists());
        assert_eq!(names(&network), before);
        place.ok(&["export-onnx", "model", "--head", "splade"]);
        let file = network.join("onnx/model_splade.onnx");
        let exported = std::fs::read(&file).unwrap();
        let is_writing = || names(&network.join("onnx")).iter().any(|name| name.ends_with(".tmp"));
        interrupt_when(&place, &with(&args, &["--overwrite"]), is_writing);
        assert_eq!(names(&network.join("onnx")), ["model_splade.onnx"]);
        assert_eq!(std::fs::read(&file).unwrap(), exported);
    }

    #[test]
    fn leftovers_of_a_killed_export_are_removed_by_the_next() {
        let place = place();
        let onnx = place.path("model/document_0_Transformer/onnx");
        let mut child = place.command(&["export-onnx", "model", "--precision", "fp32,fp16,int8"]).spawn().unwrap();
        wait_until("the export has begun to write", || onnx.exists() && !names(&onnx).is_empty());
        signal("-KILL", &child);
        child.wait().unwrap();
        let left = names(&onnx);
        assert!(left.len() == 1 && left[0].ends_with(".tmp"), "{left:?}");
        place.ok(&["export-onnx", "model", "--head", "splade"]);
        assert_eq!(names(&onnx), ["model_splade.onnx"]);
    }

    #[test]
    fn an_interrupted_evaluation_leaves_no_files() {
        let place = place();
        place.copy(&ours("data/toy"), "toy");
        let corpus = place.read("toy/corpus.jsonl");
        let more = |id: usize| format!("{{\"_id\": \"{id}\", \"text\": \"en fisk i fjorden og {id} båter\"}}\n");
        place.write("toy/corpus.jsonl", corpus + &(0..20_000).map(more).collect::<String>());
        let args = ["eval-mteb", "model", "--data", "toy", "--save-runs"];
        interrupt_when(&place, &args, || names(&place.path("tmp")).iter().any(|name| name.starts_with("splade-")));
        assert_eq!(place.names(), ["corpus.jsonl", "model", "queries.jsonl", "toy"]);
    }

    /// B11: an interrupted training is saved, and its exit code shows that it is not complete.
    #[test]
    fn an_interrupted_training_is_saved_and_exits_with_the_code_of_the_signal() {
        for (name, code) in SIGNALS {
            let place = place_to_train();
            let long = ["training.max_steps=100000", "training.save_steps=100000", "training.logging_steps=1"];
            let long = long.map(|set| ["--set", set]).concat();
            let child = place.command(&[&["train", "train.yaml"], &long[..]].concat()).spawn().unwrap();
            wait_until("the training has logged a step", || {
                std::fs::read(place.path("out/log.jsonl")).is_ok_and(|log| !log.is_empty())
            });
            signal(name, &child);
            let ran = finish(child);
            ran.fails(code, "saved in out/checkpoint-", "--resume continues the training");
            assert!(!place.path("out/final").exists());
            let out = names(&place.path("out"));
            let checkpoint = out.iter().find(|name| name.starts_with("checkpoint-")).unwrap();
            let step: usize = checkpoint.trim_start_matches("checkpoint-").parse().unwrap();
            let limit = format!("training.max_steps={}", step + 2);
            let resumed = place.run(&["train", "train.yaml", "--resume", "--set", &limit]);
            let says = format!("resumes out/{checkpoint} after {step} steps");
            assert!(resumed.stderr.contains(&says), "{}", resumed.stderr);
            assert_eq!(resumed.done(), "out/final\n");
        }
    }

    /// B12: the log has each step once after a kill between two checkpoints and a resume.
    #[test]
    fn a_killed_training_that_is_resumed_logs_each_step_once() {
        let place = place_to_train();
        let log = |place: &Place| -> Vec<u64> {
            let lines = place.read("out/log.jsonl");
            // the last line of a killed process may be incomplete
            let lines = lines.lines().map_while(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.map(|line| line["step"].as_u64().unwrap()).collect()
        };
        let every = ["--set", "training.logging_steps=1", "--set", "training.save_steps=3"];
        let args = [&["train", "train.yaml", "--set", "training.max_steps=100000"], &every[..]].concat();
        let mut child = place.command(&args).spawn().unwrap();
        // step 5 is after the first checkpoint, which a later one may have replaced
        wait_until("the training has passed a checkpoint", || {
            place.path("out/log.jsonl").exists() && log(&place).len() > 4
        });
        signal("-KILL", &child);
        child.wait().unwrap();
        let last = format!("training.max_steps={}", log(&place).last().unwrap() + 5);
        place.ok(&[&["train", "train.yaml", "--resume", "--set", &last], &every[..]].concat());
        let steps = log(&place);
        let total = *steps.last().unwrap();
        // the summary of the training repeats the last step
        assert_eq!(steps, (1..=total).chain([total]).collect::<Vec<_>>());
    }

    #[test]
    fn a_killed_training_leaves_complete_checkpoints() {
        let place = place_to_train();
        let long = ["--set", "training.max_steps=100000", "--set", "training.save_steps=1"];
        let all = ["--set", "training.save_total_limit=0"];
        let mut child = place.command(&[&["train", "train.yaml"], &long[..], &all].concat()).spawn().unwrap();
        wait_until("the training has saved checkpoint 5", || place.path("out/checkpoint-5").exists());
        signal("-KILL", &child);
        child.wait().unwrap();
        let checkpoints = |out: &Path| -> Vec<String> {
            names(out).into_iter().filter(|name| name.starts_with("checkpoint-")).collect()
        };
        let whole = names(&place.path("out/checkpoint-1"));
        for name in ["model.safetensors", "optimizer.safetensors", "progress.json", "trainer_state.json"] {
            assert!(whole.iter().any(|found| found == name), "{name} in {whole:?}");
        }
        for name in checkpoints(&place.path("out")) {
            assert_eq!(names(&place.path("out").join(&name)), whole, "{name}");
        }
        let steps =
            checkpoints(&place.path("out")).iter().map(|name| name[11..].parse::<usize>().unwrap()).max().unwrap();
        let limit = format!("training.max_steps={}", steps + 2);
        let ran = place.run(&["train", "train.yaml", "--resume", "--set", &limit, "--set", "training.logging_steps=1"]);
        assert!(ran.stderr.contains(&format!("step {:>5}/{}", steps + 1, steps + 2)), "{}", ran.stderr);
        assert_eq!(ran.done(), "out/final\n");
    }
}

mod training {
    use super::*;

    #[test]
    fn an_invalid_config_is_explained() {
        let place = place_to_train();
        let train = |yaml: &str| {
            place.write("bad.yaml", yaml);
            place.run(&["train", "bad.yaml"])
        };
        train(&TINY.replace("max_steps", "max_stepz")).fails(
            2,
            "training.max_stepz: unknown key",
            "did you mean `max_steps`?",
        );
        train(&TINY.replace("init:", "innit:")).fails(2, "model.innit: unknown key", "did you mean `init`?");
        train(&TINY.replace("output_dir", "outputdir")).fails(2, "training.outputdir: unknown key", "`output_dir`");
        train(&TINY.replace("training:", "trainning:")).fails(2, "trainning: unknown key", "did you mean `training`?");
        train("model: {base_modle: x}").fails(2, "model.base_modle: unknown key", "did you mean `base_model`?");
        train(&TINY.replace("max_steps: 4", "max_steps: four")).fails(
            2,
            "training.max_steps: expected a whole number",
            "",
        );
        train(&TINY.replace("splade\n", "spalde\n")).fails(2, "model.architecture: `spalde` is none of", "`splade`");
        train(&TINY.replace("train.jsonl", "no.jsonl")).fails(2, "no.jsonl: no such file", "");
        train("").fails(2, "model.base_model: is missing", "give a model folder");
        train("- a\n").fails(2, "config: expected keys and values, got a list", "");
        train("model: {base_model: no-such-model}\ntraining: {output_dir: out, eval_strategy: no}\ndatasets: {a: {files: [train.jsonl]}}")
            .fails(2, "model.base_model: no-such-model: no such folder", "give the folder of a model, or a Hub id");
        assert!(!place.path("out").exists());
    }

    /// `splade train … 2>&1 | head -1` once ended the training with a panic.
    #[test]
    fn a_reader_of_stderr_that_goes_away_does_not_end_a_training() {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
        place.write(
            "train.yaml",
            "
model: {base_model: model, load_pretrained_sparse_encoder: true}
training: {output_dir: out, max_steps: 20, logging_steps: 1, per_device_train_batch_size: 4, eval_strategy: \"no\"}
datasets: {a: {files: [train.jsonl]}}
",
        );
        for format in ["text", "json"] {
            let mut child =
                place.command(&["train", "train.yaml", "--overwrite", "--log-format", format]).spawn().unwrap();
            let mut first = [0; 1];
            std::io::Read::read_exact(&mut child.stderr.take().unwrap(), &mut first).unwrap();
            let ran = finish(child);
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "out/final\n"), "{format}");
        }
    }

    #[test]
    fn invalid_numbers_are_explained() {
        let place = place_to_train();
        let train = |set: &str| place.run(&["train", "train.yaml", "--set", set]);
        train("training.num_train_epochs=0").fails(2, "training.num_train_epochs: 0 is not above 0", "");
        train("training.warmup_ratio=2").fails(2, "training.warmup_ratio: 2 is not between 0 and 1", "");
        train("model.init.heads=3").fails(2, "3 attention heads do not divide a width of 16", "");
        train("training.learning_rate=1e30").fails(1, "is NaN", "lower training.learning_rate");
    }

    #[test]
    fn broken_yaml_is_named_by_its_line() {
        let place = place_to_train();
        place.write("bad.yaml", "model:\n  architecture: splade\n  init: {layers: 1\ntraining:\n  output_dir: out\n");
        place.run(&["train", "bad.yaml"]).fails(2, "bad.yaml:4: ", "");
        place.write("bad.yaml", "model:\n\tinit: 1\n");
        place.run(&["train", "bad.yaml"]).fails(2, "bad.yaml:2: ", "");
        let list = ["train", "train.yaml", "--dry-run", "--set", "datasets.a.files=[train.jsonl]"];
        assert!(place.ok(&list).contains("a: 48 examples"));
        place.run(&["train", "train.yaml", "--set", "max_steps"]).fails(2, "`max_steps` is not of the form", "");
        place.run(&["train", "train.yaml", "--set", "training.max_stepz=1"]).fails(2, "unknown key", "`max_steps`");
    }

    #[test]
    fn a_training_is_not_overwritten() {
        let place = place_to_train();
        assert_eq!(place.ok(&["train", "train.yaml"]), "out/final\n");
        place.run(&["train", "train.yaml"]).fails(2, "out: already holds a training", "resume it");
        place.ok(&["train", "train.yaml", "--overwrite"]);
        place.run(&["train", "train.yaml", "--resume-from", "out/no"]).fails(
            2,
            "out/no: no such folder",
            "give the folder of a model",
        );
    }

    #[test]
    fn a_dry_run_prints_the_plan_and_writes_nothing() {
        let place = place_to_train();
        let text = place.ok(&["train", "train.yaml", "--dry-run"]);
        for part in ["max_steps: 4", "learning_rate: 0.00002", "a: 48 examples", "12 batches an epoch, 4 steps"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(place.names(), ["train.jsonl", "train.yaml"]);
        // the output up to the blank line is a config
        let (resolved, _) = text.split_once("\n\n").unwrap();
        place.write("resolved.yaml", resolved);
        assert_eq!(place.ok(&["train", "resolved.yaml", "--dry-run"]), text);
    }

    #[test]
    fn a_pattern_without_the_expected_effect_gets_a_warning() {
        let place = place_to_train();
        let yaml = TINY.replace("architecture: splade", "architecture: inference-free-splade");
        let yaml = yaml.replace("loss:", "router: {learning_rate_patterns: {'.*query.*': 1.0e-3}}\nunused:");
        let yaml = yaml.replace("unused: {query_regularizer_weight: 1.0e-4}\n", "");
        place.write("trap.yaml", yaml);
        let ran = place.run(&["train", "trap.yaml", "--dry-run"]);
        let trap = "warning: router.learning_rate_patterns: `.*query.*`";
        assert!(ran.stderr.contains(trap) && ran.stderr.contains("also matches"), "{}", ran.stderr);
        ran.done();
    }
}

/// Full disks, simulated by a limit on the size of files.
#[cfg(unix)]
mod full_disks {
    use super::*;

    fn run_with_limit(place: &Place, blocks: usize, args: &[&str]) -> util::Ran {
        finish(util::with_file_limit(&place.command(args), blocks).spawn().unwrap())
    }

    /// Paths of all files below a folder, sorted.
    fn files(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for name in names(folder) {
            let path = folder.join(&name);
            match path.is_dir() {
                true => found.extend(files(&path).into_iter().map(|below| format!("{name}/{below}"))),
                false => found.push(name),
            }
        }
        found
    }

    const TRAIN: [&str; 2] = ["train", "train.yaml"];

    #[test]
    fn an_event_file_that_cannot_be_written_is_not_left_behind() {
        let place = place_to_train();
        run_with_limit(&place, 0, &TRAIN).fails(1, "out/runs/events.out.tfevents.", "");
        assert_eq!(files(&place.path("out")), Vec::<String>::new());
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_leaves_the_one_before() {
        let place = place_to_train();
        // too small for the weights, large enough for the logs
        run_with_limit(&place, 8, &TRAIN).fails(1, "out/checkpoint-2/", "");
        let left = files(&place.path("out"));
        assert!(left.iter().all(|name| name == "log.jsonl" || name.starts_with("runs/")), "{left:?}");

        place.ok(&TRAIN.iter().chain(&["--overwrite"]).copied().collect::<Vec<_>>());
        let before: Vec<String> =
            files(&place.path("out")).into_iter().filter(|name| !name.starts_with("runs/")).collect();
        let more = [&TRAIN[..], &["--resume", "--set", "training.max_steps=6"]].concat();
        run_with_limit(&place, 8, &more).fails(1, "out/checkpoint-6/", "");
        let after: Vec<String> =
            files(&place.path("out")).into_iter().filter(|name| !name.starts_with("runs/")).collect();
        assert_eq!(after, before);
        place.ok(&more);
    }

    #[test]
    fn a_result_that_does_not_fit_is_not_written() {
        let place = place_to_train();
        let unsaved =
            [&TRAIN[..], &["--set", "training.save_strategy=no", "--set", "training.load_best_model_at_end=false"]]
                .concat();
        run_with_limit(&place, 8, &unsaved).fails(1, "out/final/", "");
        let left = files(&place.path("out"));
        assert!(left.iter().all(|name| name == "log.jsonl" || name.starts_with("runs/")), "{left:?}");
    }

    #[test]
    fn an_append_that_does_not_fit_leaves_the_index_as_it_was() {
        let place = place();
        place.ok(&INDEX);
        let before = files(&place.path("toy.index"));
        let line = |id: usize| format!("{{\"_id\": \"{id}\", \"text\": \"fin dag i Oslo nummer {id}\"}}\n");
        place.write("many.jsonl", (0..2000).map(line).collect::<String>());
        let append = ["index", "model", "--index", "toy.index", "--append", "--input"];
        run_with_limit(&place, 40, &with(&append, &["many.jsonl"])).fails(1, "toy.index.unfinished/new/tantivy/", "");
        assert!(!place.path("toy.index.unfinished").exists());
        assert_eq!(files(&place.path("toy.index")), before);
        place.ok(&["index", "--check", "toy.index"]);
        run_with_limit(&place, 40, &with(&["index", "model", "--index", "new.index", "--input"], &["many.jsonl"]))
            .fails(1, "file too large", "");
        assert!(names(&place.path("")).iter().all(|name| !name.contains("splade") && name != "new.index"));
        place.write("one.jsonl", line(1));
        place.ok(&with(&append, &["one.jsonl"]));
    }

    #[test]
    fn vectors_that_do_not_fit_leave_the_old_ones() {
        let place = place();
        let encode = with(&ENCODE, &["--backend", "candle", "--output"]);
        let new = with(&encode, &["new/folder/v.jsonl"]);
        run_with_limit(&place, 8, &new).fails(1, "error: new/folder/v.jsonl: file too large", "");
        assert_eq!(place.names(), ["corpus.jsonl", "model", "queries.jsonl"]);
        place.write("v.jsonl", "old\n");
        let old = with(&encode, &["v.jsonl", "--overwrite"]);
        run_with_limit(&place, 8, &old).fails(1, "error: v.jsonl: file too large", "");
        assert_eq!(place.read("v.jsonl"), "old\n");
        assert_eq!(place.names(), ["corpus.jsonl", "model", "queries.jsonl", "v.jsonl"]);
    }

    #[test]
    fn an_export_that_does_not_fit_leaves_the_old_files() {
        let place = place();
        let onnx = "model/document_0_Transformer/onnx";
        let export = ["export-onnx", "model", "--head", "splade"];
        let says = format!("error: {onnx}/model_splade.onnx: file too large");
        run_with_limit(&place, 8, &export).fails(1, &says, "");
        assert!(!place.path(onnx).exists());
        run_with_limit(&place, 8, &with(&export, &["--output", "new/folder"])).fails(
            1,
            "error: new/folder/model_splade.onnx: file too large",
            "",
        );
        assert!(!place.path("new").exists());
        place.ok(&export);
        let before = std::fs::read(place.path(onnx).join("model_splade.onnx")).unwrap();
        run_with_limit(&place, 8, &with(&export, &["--overwrite"])).fails(1, &says, "");
        assert_eq!(files(&place.path(onnx)), ["model_splade.onnx"]);
        assert_eq!(std::fs::read(place.path(onnx).join("model_splade.onnx")).unwrap(), before);
    }

    #[test]
    fn runs_that_do_not_fit_leave_the_old_results() {
        let place = place();
        place.copy(&ours("data/toy"), "toy");
        // many queries: the run is much larger than every file of the temporary index
        let query = |id: usize| format!("{{\"_id\": \"q{id}\", \"text\": \"fisk i fjorden\"}}\n");
        let judged = |id: usize| format!("q{id}\toslo\t1\n");
        place.write("toy/queries.jsonl", (0..2000).map(query).collect::<String>());
        place.write(
            "toy/qrels/test.tsv",
            format!("query-id\tcorpus-id\tscore\n{}", (0..2000).map(judged).collect::<String>()),
        );
        let evaluate = ["eval-mteb", "model", "--data", "toy", "--save-runs", "--backend", "candle"];
        run_with_limit(&place, 400, &evaluate).fails(1, "toy.run.trec: file too large", "");
        assert_eq!(place.names(), ["corpus.jsonl", "model", "queries.jsonl", "toy"]);
        place.ok(&evaluate);
        let before = files(&place.path("results"));
        assert!(before.iter().any(|name| name.ends_with("toy.run.trec")), "{before:?}");
        run_with_limit(&place, 400, &with(&evaluate, &["--overwrite"])).fails(1, "toy.run.trec: file too large", "");
        assert_eq!(files(&place.path("results")), before);
        // a temporary index that does not fit
        run_with_limit(&place, 0, &with(&evaluate, &["--overwrite"])).fails(1, "file too large", "");
        assert_eq!(files(&place.path("results")), before);
    }

    /// `/dev/full` is a device on which every write fails as on a full disk.
    #[cfg(target_os = "linux")]
    #[test]
    fn results_on_a_full_stdout_are_an_error() {
        let place = place();
        place.ok(&INDEX);
        let search = ["search", "--index", "toy.index", "Oslo"];
        for args in [with(&ENCODE, &["-q"]), search.to_vec(), with(&search, &["--json"]), vec!["doctor"]] {
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let ran = finish(place.command(&args).stdout(full).spawn().unwrap());
            ran.fails(1, "error: <stdout>: no space left on device", "");
        }
    }

    #[test]
    fn a_log_that_does_not_fit_ends_with_a_complete_line() {
        let place = place_to_train();
        let sets = [
            "training.report_to=none",
            "training.logging_steps=1",
            "training.max_steps=100",
            "training.save_strategy=no",
        ];
        let sets = sets.map(|set| ["--set", set]).concat();
        run_with_limit(&place, 4, &[&TRAIN[..], &sets].concat()).fails(1, "out/log.jsonl: ", "");
        let log = place.read("out/log.jsonl");
        assert!(log.ends_with("}\n") && log.lines().count() > 2, "{log}");
        assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    }
}

#[test]
fn a_closed_stdin_is_an_empty_input() {
    let place = place();
    let mut child = place.command(&["encode", "model", "--input", "-", "--role", "query"]).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), child.wait().unwrap().code()), ("", Some(0)));
}
