//! Models by their Hub id: the program against the server of `util::hub` on this machine.
#![cfg(feature = "train")]

mod util;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use util::hub::{COMMIT, Fault, Files, Hub, files_of, hash};
use util::{Place, Ran, finish, fixture, ours, setup, wait_until};

const TOKEN: &str = "hf_secret";

/// A folder with the toy data, and a Hub.
struct Test {
    place: Place,
    hub: Hub,
}

impl Test {
    /// A Hub with the bare checkpoint `ltg/bert-tiny` and the sparse encoder `acme/splade`.
    fn new() -> Self {
        let place = setup();
        place.copy(&ours("data/toy"), "toy");
        let hub = Hub::start();
        hub.add("ltg/bert-tiny", files_of(&ours("fixtures/models/bert-tiny")));
        hub.add("acme/splade", files_of(&fixture("inference-free/model")));
        Self { place, hub }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        self.hub.direct(&mut command, &self.place.path("home"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        finish(self.command(args).envs(variables.iter().copied()).spawn().unwrap())
    }

    fn ok(&self, args: &[&str]) -> String {
        self.run(args).done()
    }

    /// Encodes the toy corpus with a model by its id or folder.
    fn encode(&self, model: &str) -> Ran {
        self.run(&encode(model))
    }

    /// The part of the cache that belongs to a model.
    fn cached(&self, model: &str) -> PathBuf {
        self.place.path("home/hub").join(format!("models--{}", model.replace('/', "--")))
    }

    fn snapshot(&self, model: &str) -> PathBuf {
        self.cached(model).join("snapshots").join(COMMIT)
    }
}

fn encode(model: &str) -> [&str; 8] {
    ["encode", model, "--input", "toy/corpus.jsonl", "--role", "document", "--backend", "candle"]
}

/// Files below a folder with the hash of their contents; links as ` -> target`.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for name in util::names(folder) {
            let path = folder.join(name);
            let shown = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if let Ok(target) = std::fs::read_link(&path) {
                found.insert(shown, format!(" -> {}", target.display()));
            } else if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.insert(shown, hash(&std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

mod commands {
    use super::*;

    #[test]
    fn an_id_gives_the_results_of_the_folder() {
        let test = Test::new();
        test.place.copy(&ours("fixtures/models/bert-tiny"), "bert");
        test.place.copy(&fixture("inference-free/model"), "splade");
        for (id, folder) in [("ltg/bert-tiny", "bert"), ("acme/splade", "splade")] {
            for role in ["query", "document"] {
                let encode = |model| test.ok(&["encode", model, "--input", "toy/corpus.jsonl", "--role", role]);
                assert_eq!(encode(id), encode(folder), "{id} {role}");
            }
            let index = format!("{folder}.index");
            test.ok(&["index", id, "--input", "toy/corpus.jsonl", "--index", &index]);
            let search = |model| test.ok(&["search", "--index", &index, "nordlys", "--model", model, "--json"]);
            assert_eq!(search(id), search(folder), "{id}");
            test.ok(&["eval-mteb", id, "--data", "toy"]);
            let meta = format!("results/results/{}/{COMMIT}/model_meta.json", id.replace('/', "__"));
            let meta: Value = serde_json::from_str(&test.place.read(&meta)).unwrap();
            assert_eq!((&meta["name"], &meta["revision"]), (&json!(id), &json!(COMMIT)));
        }
    }

    #[test]
    fn all_shards_of_a_checkpoint_are_downloaded() {
        let test = Test::new();
        let mut files = files_of(&ours("fixtures/models/bert-tiny"));
        let weights = files.remove("model.safetensors").unwrap();
        files.extend(util::shards_of(&weights));
        test.hub.add("acme/shards", files);
        test.place.copy(&ours("fixtures/models/bert-tiny"), "bert");
        assert_eq!(test.encode("acme/shards").done(), test.encode("bert").done());
    }

    /// NorBERT3 is published as a torch file only, NorBERT4 with code that decides its head mode.
    #[test]
    fn torch_files_and_model_code_are_downloaded() {
        let test = Test::new();
        let mut norbert3 = files_of(&ours("fixtures/models/norbert3-tiny"));
        norbert3.remove("model.safetensors");
        test.hub.add("ltg/norbert3-xs", norbert3);
        let mut norbert4 = files_of(&ours("fixtures/models/norbert4-tiny"));
        norbert4.insert("modeling_gptbert.py".to_owned(), b"# nothing is capped here".to_vec());
        test.hub.add("ltg/norbert4-xs", norbert4);
        test.place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
        for folder in ["norbert3-tiny", "norbert4-tiny"] {
            test.place.copy(&ours("fixtures/models").join(folder), folder);
        }
        test.place.write("norbert4-tiny/modeling_gptbert.py", "# nor here");
        for (id, folder) in [("ltg/norbert3-xs", "norbert3-tiny"), ("ltg/norbert4-xs", "norbert4-tiny")] {
            assert_eq!(test.encode(id).done(), test.encode(folder).done(), "{id}");
            test.ok(&["index", id, "--input", "toy/corpus.jsonl", "--index", &format!("{folder}.index")]);
            test.ok(&["eval-mteb", id, "--data", "toy"]);
            let training = format!(
                "{{model: {{base_model: {id}}}, datasets: {{a: {{files: [train.jsonl]}}}}, training: {{output_dir: {folder}-out, \
                 max_steps: 1, per_device_train_batch_size: 4, max_seq_length: 32, eval_strategy: no}}}}"
            );
            test.place.write("train.yaml", training);
            test.ok(&["train", "train.yaml"]);
            test.encode(&format!("{folder}-out/final")).done();
        }
        assert!(test.snapshot("ltg/norbert3-xs").join("pytorch_model.bin").is_file());
    }

    #[test]
    fn a_training_starts_from_an_id_and_records_it() {
        let test = Test::new();
        test.place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
        test.place.write(
            "train.yaml",
            "
model: {base_model: ltg/bert-tiny@main}
training: {output_dir: out, max_steps: 2, save_steps: 1, per_device_train_batch_size: 4, max_seq_length: 32, eval_strategy: no}
datasets: {a: {files: [train.jsonl]}}
",
        );
        assert!(test.ok(&["train", "train.yaml", "--dry-run"]).contains("base_model: ltg/bert-tiny@main"));
        test.ok(&["train", "train.yaml", "--set", "training.max_steps=1"]);
        let config: Value = serde_json::from_str(&test.place.read("out/final/training_config.json")).unwrap();
        assert_eq!(config["model"]["base_model"], "ltg/bert-tiny@main");
        assert_eq!(config["model"].get("base_folder"), None);
        let card = test.place.read("out/final/README.md");
        assert!(card.contains("\nbase_model: \"ltg/bert-tiny\"\n"), "{card}");
        // to resume, no base model is needed
        std::fs::remove_dir_all(test.place.path("home")).unwrap();
        test.hub.requests();
        test.ok(&["train", "train.yaml", "--resume"]);
        assert_eq!(test.hub.requests(), [] as [String; 0]);

        let missing = test.run(&["train", "train.yaml", "--overwrite", "--set", "model.base_model=ltg/nothing"]);
        missing.fails(
            2,
            "model.base_model: ltg/nothing: no such folder here, and no such model on the Hub",
            "spelling",
        );
    }

    #[test]
    fn an_export_writes_into_a_copy_and_not_into_the_cache() {
        let test = Test::new();
        test.encode("acme/splade").done();
        let before = tree(&test.place.path("home"));
        test.ok(&["export-onnx", "acme/splade", "--head", "splade"]);
        assert_eq!(tree(&test.place.path("home")), before);
        assert!(test.place.path("splade/document_0_Transformer/onnx/model_splade.onnx").is_file());
        let candle = test.encode("acme/splade").done();
        let onnx = ["encode", "splade", "--input", "toy/corpus.jsonl", "--role", "document", "--backend", "onnx"];
        assert_eq!(test.ok(&onnx).lines().count(), candle.lines().count());
        // the copy has files and no links
        assert!(tree(&test.place.path("splade")).values().all(|file| !file.contains("->")));

        let again = test.run(&["export-onnx", "acme/splade"]);
        again.fails(2, "splade: exists already, and a copy of acme/splade would go there", "--output");
        test.ok(&["export-onnx", "acme/splade", "--output", "elsewhere", "--head", "logits"]);
        assert_eq!(util::names(&test.place.path("elsewhere")), ["model.onnx"]);
        assert_eq!(tree(&test.place.path("home")), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_that_does_not_fit_is_not_left_behind() {
        let test = Test::new();
        test.encode("acme/splade").done();
        let before = test.place.names();
        let export = test.command(&["export-onnx", "acme/splade"]);
        let ran = finish(util::with_file_limit(&export, 8).spawn().unwrap());
        ran.fails(1, "error: splade/query_0_SparseStaticEmbedding/tokenizer.json: file too large", "");
        assert_eq!(test.place.names(), before);
    }

    #[test]
    fn an_existing_path_takes_precedence() {
        let test = Test::new();
        test.place.copy(&ours("fixtures/models/bert-tiny"), "acme/splade");
        test.encode("acme/splade").done();
        assert_eq!(test.hub.requests(), [] as [String; 0]);
        test.encode("ltg/norbert").fails(
            2,
            "ltg/norbert: no such folder here, and no such model on the Hub",
            "HF_TOKEN",
        );
        test.hub.requests();
        for path in ["norbert", "./ltg/norbert", "a/b/c", "ltg/"] {
            test.encode(path).fails(2, &format!("{path}: no such folder"), "or a Hub id such as ltg/norbert3-xs");
        }
        assert_eq!(test.hub.requests(), [] as [String; 0]);
    }
}

mod cache {
    use super::*;

    #[test]
    fn the_layout_is_that_of_python() {
        let test = Test::new();
        test.encode("ltg/bert-tiny").done();
        let files = files_of(&ours("fixtures/models/bert-tiny"));
        let needed =
            ["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"];
        let mut expected = BTreeMap::from([("refs/main".to_owned(), hash(COMMIT.as_bytes()))]);
        for name in needed {
            let etag = Hub::etag(name, &files[name]);
            expected.insert(format!("blobs/{etag}"), hash(&files[name]));
            expected.insert(format!("snapshots/{COMMIT}/{name}"), format!(" -> ../../blobs/{etag}"));
        }
        let mut found = tree(&test.cached("ltg/bert-tiny"));
        // files that the commit lacks: empty, as Python records them
        let absent: Vec<String> = found.keys().filter(|name| name.starts_with(".no_exist/")).cloned().collect();
        assert!(absent.contains(&format!(".no_exist/{COMMIT}/modules.json")), "{absent:?}");
        for name in &absent {
            assert_eq!(found.remove(name), Some(hash(b"")), "{name}");
        }
        assert_eq!(found, expected);
        let hub = test.place.path("home/hub");
        assert_eq!(util::names(&hub), [".locks", "CACHEDIR.TAG", "models--ltg--bert-tiny"]);
        assert!(test.place.read("home/hub/CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"));
        let locks: BTreeSet<String> = util::names(&hub.join(".locks/models--ltg--bert-tiny")).into_iter().collect();
        let etags = needed.map(|name| format!("{}.lock", Hub::etag(name, &files[name])));
        assert_eq!(locks, etags.into());
    }

    #[test]
    fn links_in_folders_of_modules_lead_to_blobs() {
        let test = Test::new();
        test.encode("acme/splade").done();
        let files = files_of(&fixture("inference-free/model"));
        let name = "document_0_Transformer/model.safetensors";
        let link = tree(&test.snapshot("acme/splade"))[name].clone();
        assert_eq!(link, format!(" -> ../../../blobs/{}", Hub::etag(name, &files[name])));
        let cached: BTreeSet<String> = tree(&test.snapshot("acme/splade")).into_keys().collect();
        assert_eq!(cached, files.into_keys().collect());
    }

    #[test]
    fn cached_files_are_not_requested_again() {
        let test = Test::new();
        test.encode("ltg/bert-tiny").done();
        assert!(test.hub.requests().len() > 5);
        let first = test.encode("ltg/bert-tiny").done();
        assert_eq!(test.hub.requests(), ["GET /api/models/ltg/bert-tiny/revision/main"]);
        // a commit never changes
        let pinned = test.encode(&format!("ltg/bert-tiny@{COMMIT}")).done();
        assert_eq!(test.hub.requests(), [] as [String; 0]);
        assert_eq!(pinned, first);
    }

    /// Some versions of Python write a list of a commit's files and do not record absent files.
    #[test]
    fn lists_of_files_by_python_are_read() {
        let test = Test::new();
        let whole = test.encode("ltg/bert-tiny").done();
        std::fs::remove_dir_all(test.cached("ltg/bert-tiny").join(".no_exist")).unwrap();
        let pinned = format!("ltg/bert-tiny@{COMMIT}");
        test.hub.requests();
        assert_eq!(test.encode(&pinned).done(), whole);
        assert_eq!(test.hub.requests().len(), 1, "the list of files is requested");
        std::fs::remove_dir_all(test.cached("ltg/bert-tiny").join(".no_exist")).unwrap();
        let files: BTreeMap<String, Value> = files_of(&ours("fixtures/models/bert-tiny"))
            .into_keys()
            .map(|name| (name, json!({"size": 1, "blob_id": "x"})))
            .collect();
        let tree = json!({"format_version": 1, "files": files}).to_string();
        test.place.write(&format!("home/hub/models--ltg--bert-tiny/trees/{COMMIT}.json"), tree);
        assert_eq!(test.encode(&pinned).done(), whole);
        assert_eq!(test.hub.requests(), [] as [String; 0]);
        std::fs::remove_file(test.snapshot("ltg/bert-tiny").join("tokenizer_config.json")).unwrap();
        let offline = test.run_with(&[("HF_HUB_OFFLINE", "1")], &encode("ltg/bert-tiny"));
        offline.fails(2, "without tokenizer_config.json (offline)", "run once without --offline");
    }

    #[test]
    fn each_revision_has_its_own_files() {
        let test = Test::new();
        let mut files = files_of(&ours("fixtures/models/bert-tiny"));
        let old = test.encode("ltg/bert-tiny").done();
        let config = String::from_utf8(files["config.json"].clone()).unwrap().replace("1e-12", "1e-1");
        files.insert("config.json".to_owned(), config.into_bytes());
        let next = "b".repeat(40);
        test.hub.commit("ltg/bert-tiny", &next, files, &["main", "refs/pr/1"]);
        test.hub.requests();
        let new = test.encode("ltg/bert-tiny").done();
        assert_ne!(new, old);
        let fetched: Vec<String> =
            test.hub.requests().into_iter().filter(|line| line.starts_with("GET /ltg")).collect();
        assert_eq!(fetched, [format!("GET /ltg/bert-tiny/resolve/{next}/config.json")], "all other blobs are cached");
        assert_eq!(test.encode("ltg/bert-tiny@refs/pr/1").done(), new);
        assert_eq!(std::fs::read_to_string(test.cached("ltg/bert-tiny").join("refs/refs/pr/1")).unwrap(), next);
        assert_eq!(test.encode(&format!("ltg/bert-tiny@{COMMIT}")).done(), old);
        assert_eq!(test.encode("ltg/bert-tiny@v1").done(), old, "a tag of the first commit");
    }

    #[test]
    fn several_processes_share_one_download() {
        let test = Test::new();
        let running: Vec<_> = (0..4).map(|_| test.command(&encode("ltg/bert-tiny")).spawn().unwrap()).collect();
        let printed: BTreeSet<String> = running.into_iter().map(|child| finish(child).done()).collect();
        assert_eq!(printed.len(), 1);
        let requests = test.hub.requests();
        let blobs: Vec<&String> = requests.iter().filter(|line| line.starts_with("CDN GET")).collect();
        assert_eq!(blobs.len(), 1, "{requests:?}");
    }

    #[test]
    fn the_environment_selects_the_folder() {
        let test = Test::new();
        let elsewhere = test.place.path("elsewhere");
        let variables = [("HF_HUB_CACHE", elsewhere.to_str().unwrap())];
        test.run_with(&variables, &encode("ltg/bert-tiny")).done();
        assert!(elsewhere.join("models--ltg--bert-tiny/refs/main").is_file());
        assert!(!test.place.path("home").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let test = Test::new();
        test.place.write("home/hub", "a file where a folder should be");
        let ran = test.encode("ltg/bert-tiny");
        assert!(ran.code == Some(1) || ran.code == Some(2), "{ran:?}");
        assert!(ran.stderr.contains("error: ") && ran.stderr.contains("home/hub"), "{}", ran.stderr);
    }
}

mod choice {
    use super::*;

    /// Files of a model that `encode` downloads with these flags.
    fn fetched(test: &Test, args: &[&str]) -> BTreeSet<String> {
        let _ = std::fs::remove_dir_all(test.place.path("home"));
        test.hub.requests();
        test.run(&[&["encode", "acme/all", "--input", "toy/corpus.jsonl"], args].concat());
        let requests = test.hub.requests();
        let file = |line: &String| Some(line.strip_prefix("GET /acme/all/resolve/")?.split_once('/')?.1.to_owned());
        requests.iter().filter_map(file).collect()
    }

    fn large(files: &BTreeSet<String>) -> Vec<&str> {
        let is_large = |file: &&str| !file.ends_with(".json");
        files.iter().map(String::as_str).filter(is_large).collect()
    }

    #[test]
    fn only_needed_files_are_downloaded() {
        let test = Test::new();
        let mut files = files_of(&ours("fixtures/models/bert-tiny"));
        let others = [
            "README.md",
            "pytorch_model.bin",
            "tf_model.h5",
            "flax_model.msgpack",
            "openvino/openvino_model.bin",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model_O3.onnx",
            "onnx/model_splade.onnx",
            "checkpoint-1/model.safetensors",
            "train.py",
        ];
        files.extend(others.map(|name| (name.to_owned(), name.as_bytes().to_vec())));
        test.hub.add("acme/all", files.clone());
        let small = ["config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"];
        let candle = fetched(&test, &["--role", "document", "--backend", "candle"]);
        assert_eq!(large(&candle), ["model.safetensors"]);
        assert_eq!(candle.len(), 1 + small.len(), "{candle:?}");
        let onnx = fetched(&test, &["--role", "document", "--backend", "onnx"]);
        assert_eq!(large(&onnx), ["onnx/model_splade.onnx"]);
        let auto = fetched(&test, &["--role", "document"]);
        assert_eq!(large(&auto), ["model.safetensors", "onnx/model_splade.onnx"]);
        // without the preferred files, others are downloaded
        files.remove("model.safetensors");
        files.remove("onnx/model_splade.onnx");
        test.hub.add("acme/all", files);
        let auto = fetched(&test, &["--role", "document"]);
        assert_eq!(large(&auto), ["onnx/model.onnx", "onnx/model.onnx_data", "pytorch_model.bin"]);
    }

    #[test]
    fn static_queries_download_no_network() {
        let test = Test::new();
        test.hub.add("acme/all", files_of(&fixture("inference-free/model")));
        let query = fetched(&test, &["--role", "query"]);
        assert_eq!(large(&query), ["query_0_SparseStaticEmbedding/model.safetensors"]);
        let both = ["document_0_Transformer/model.safetensors", "query_0_SparseStaticEmbedding/model.safetensors"];
        assert_eq!(large(&fetched(&test, &["--role", "document"])), both);
        // a bare checkpoint may have a query table too
        let mut files = files_of(&ours("fixtures/models/bert-tiny"));
        files.insert("idf.json".to_owned(), b"{\"og\": 1.5}".to_vec());
        test.hub.add("acme/all", files);
        let query = fetched(&test, &["--role", "query"]);
        assert!(query.contains("idf.json") && !query.contains("model.safetensors"), "{query:?}");
    }

    /// The tokenizer of a query table may lie at the root: then all its files are those of the root.
    #[test]
    fn the_tokenizer_of_a_table_falls_back_to_the_root_with_all_its_files() {
        let test = Test::new();
        let table = "query_0_SparseStaticEmbedding";
        let whole = files_of(&fixture("inference-free/model"));
        let tokenizer: Value = serde_json::from_slice(&whole[&format!("{table}/tokenizer.json")]).unwrap();
        let words = tokenizer["model"]["vocab"].as_object().unwrap();
        let mut by_id: Vec<(&String, u64)> = words.iter().map(|(word, id)| (word, id.as_u64().unwrap())).collect();
        by_id.sort_by_key(|(_, id)| *id);
        let vocab: String = by_id.iter().map(|(word, _)| format!("{word}\n")).collect();
        let config = json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false, "strip_accents": false});
        let sources = [
            vec![("tokenizer.json", tokenizer.to_string())],
            vec![("vocab.txt", vocab.clone())],
            vec![("tokenizer.json", tokenizer.to_string()), ("vocab.txt", vocab)],
        ];
        for source in sources {
            let mut files = whole.clone();
            files.retain(|name, _| !name.starts_with(table) || name.ends_with("model.safetensors"));
            let neighbors = [
                ("tokenizer_config.json", config.to_string()),
                ("special_tokens_map.json", json!({"unk_token": "[UNK]"}).to_string()),
                ("added_tokens.json", json!({}).to_string()),
            ];
            let at_root: Vec<_> = source.iter().cloned().chain(neighbors).collect();
            files.extend(at_root.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
            let _ = std::fs::remove_dir_all(test.place.path("folder"));
            for (name, bytes) in &files {
                test.place.write(&format!("folder/{name}"), bytes);
            }
            test.hub.add("acme/all", files);
            let fetched = fetched(&test, &["--role", "query"]);
            for (name, _) in &at_root {
                assert!(fetched.contains(*name), "{name}: {fetched:?}");
            }
            let encode = |model| test.ok(&["encode", model, "--input", "toy/corpus.jsonl", "--role", "query"]);
            assert_eq!(encode("acme/all"), encode("folder"));
        }
    }

    #[test]
    fn code_that_the_config_names_is_downloaded() {
        let test = Test::new();
        let mut files = files_of(&ours("fixtures/models/bert-tiny"));
        let mut config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
        config["auto_map"] = json!({"AutoModelForMaskedLM": "modeling_gptbert.GptBertForMaskedLM"});
        files.insert("config.json".to_owned(), config.to_string().into_bytes());
        files.insert("modeling_gptbert.py".to_owned(), b"raise SystemExit".to_vec());
        files.insert("setup.py".to_owned(), b"raise SystemExit".to_vec());
        test.hub.add("acme/all", files);
        let fetched = fetched(&test, &["--role", "document"]);
        assert!(fetched.contains("modeling_gptbert.py") && !fetched.contains("setup.py"), "{fetched:?}");
    }

    #[test]
    fn an_unsupported_model_is_refused_before_a_large_download() {
        let test = Test::new();
        let bert = files_of(&ours("fixtures/models/bert-tiny"));
        let with = |change: &dyn Fn(&mut Files)| {
            let mut files = bert.clone();
            change(&mut files);
            let _ = std::fs::remove_dir_all(test.place.path("home"));
            test.hub.add("acme/all", files);
            test.hub.requests();
            let ran = test.encode("acme/all");
            let requests = test.hub.requests();
            assert!(!requests.iter().any(|line| line.contains("CDN")), "{requests:?}");
            ran
        };
        with(&|files| _ = files.remove("config.json")).fails(
            2,
            "acme/all: not a model that can be read",
            "ltg/norbert3-xs",
        );
        with(&|files| _ = files.remove("model.safetensors")).fails(2, "acme/all: no weights", "--backend onnx");
        let index = |index: &str| {
            let index = index.as_bytes().to_vec();
            with(&|files| {
                files.remove("model.safetensors");
                files.insert("model.safetensors.index.json".to_owned(), index.clone());
            })
        };
        index("{}").fails(2, "model.safetensors.index.json: missing field `weight_map`", "");
        index(r#"{"weight_map": {"a": "x.safetensors"}}"#).fails(2, "the shard x.safetensors that", "another revision");
        index(r#"{"weight_map": {"a": "../x.safetensors"}}"#).fails(2, "is no file of this folder", "");
        let gpt = json!({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 420}).to_string();
        with(&|files| _ = files.insert("config.json".to_owned(), gpt.clone().into_bytes())).fails(
            2,
            "unsupported architecture GPT2LMHeadModel",
            "architectures that can be loaded",
        );
        let dense = json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                           {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]);
        with(&|files| _ = files.insert("modules.json".to_owned(), dense.to_string().into_bytes())).fails(
            2,
            "Transformer + Pooling are not a SPLADE model",
            "",
        );
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        let test = Test::new();
        for path in ["../../../../secret", "/etc", "a/../../b"] {
            let module =
                |idx: usize, path: &str, class: &str| json!({"idx": idx, "name": "x", "path": path, "type": class});
            let modules = json!([module(0, path, "x.Transformer"), module(1, "p", "x.SpladePooling")]);
            test.hub.add("acme/evil", [("modules.json".to_owned(), modules.to_string().into_bytes())].into());
            test.encode("acme/evil").fails(2, "which is not in its folder", "");
            let _ = std::fs::remove_dir_all(test.place.path("home"));
        }
        test.hub.fault("/revision/", Fault::Answer(200, "{\"sha\": \"../../x\", \"siblings\": []}"));
        test.encode("ltg/bert-tiny").fails(1, "sends no list of files", "HF_ENDPOINT");
        test.hub.fault("HEAD ", Fault::Etag("../../../evil"));
        test.encode("ltg/bert-tiny").fails(1, "without an ETag", "HF_ENDPOINT");
        assert!(!test.place.path("home/hub/evil").exists() && !test.place.path("evil").exists());
    }
}

mod access {
    use super::*;

    #[test]
    fn only_the_hub_receives_the_token() {
        let test = Test::new();
        test.hub.require_token("ltg/bert-tiny", TOKEN, false);
        test.run_with(&[("HF_TOKEN", TOKEN)], &encode("ltg/bert-tiny")).done();
        let (to_hub, to_cdn) = test.hub.authorizations();
        assert_eq!(to_hub, BTreeSet::from([Some(format!("Bearer {TOKEN}"))]));
        assert_eq!(to_cdn, BTreeSet::from([None]));
    }

    #[test]
    fn a_stored_token_is_used() {
        let test = Test::new();
        test.hub.require_token("ltg/bert-tiny", TOKEN, false);
        test.place.write("home/token", format!("{TOKEN}\n"));
        test.encode("ltg/bert-tiny").done();
        test.place.write("home/token", "hf_old");
        test.run_with(&[("HF_TOKEN", TOKEN)], &encode("ltg/bert-tiny")).done();
    }

    #[test]
    fn refused_access_is_explained() {
        let test = Test::new();
        test.hub.require_token("acme/splade", TOKEN, false);
        let ask = |token: &str| test.run_with(&[("HF_TOKEN", token)], &encode("acme/splade"));
        ask("").fails(2, "acme/splade: no such folder here, and no such model on the Hub", "set HF_TOKEN");
        ask("hf_wrong").fails(2, "acme/splade: the Hub at http://127.0.0.1", "set HF_TOKEN to a valid token");
        ask("two words").fails(2, "HF_TOKEN: not a token", "one word");
        test.hub.require_token("acme/splade", TOKEN, true);
        ask("").fails(2, "acme/splade: gated", "then set HF_TOKEN");
        ask("hf_other").fails(2, "acme/splade: gated", "this token has no access");
        let all = ["", "hf_wrong", "hf_other"].map(|token| ask(token).stderr).concat();
        assert!(!all.contains("hf_"), "messages have no token: {all}");
        ask(TOKEN).done();
    }

    #[test]
    fn missing_models_and_revisions_are_named() {
        let test = Test::new();
        test.encode("ltg/berd-tiny").fails(
            2,
            "ltg/berd-tiny: no such folder here, and no such model",
            "check the spelling",
        );
        test.encode("ltg/bert-tiny@v9").fails(2, "ltg/bert-tiny: no revision \"v9\"", "a branch, a tag or a commit");
        let unknown = "c".repeat(40);
        test.encode(&format!("ltg/bert-tiny@{unknown}")).fails(2, "no revision \"cccc", "a branch, a tag or a commit");
        test.encode("ltg/bert-tiny@../x").fails(2, "\"../x\" is not a revision", "ltg/bert-tiny@main");
        test.hub.fault("/tokenizer.json", Fault::Gone);
        test.encode("ltg/bert-tiny").fails(1, "names a file that does not exist", "run again");
        test.encode("ltg/bert-tiny").done();
    }

    #[test]
    fn a_renamed_model_is_found() {
        let test = Test::new();
        test.hub.rename("old/name", "ltg/bert-tiny");
        assert_eq!(test.encode("old/name").done(), test.encode("ltg/bert-tiny").done());
        assert!(test.cached("old/name").join("refs/main").is_file());
    }

    #[test]
    fn endless_redirects_are_an_error() {
        let test = Test::new();
        test.hub.rename("old/name", "old/name");
        test.encode("old/name").fails(1, "redirects without end", "network");
    }

    #[test]
    fn an_invalid_endpoint_is_named() {
        let test = Test::new();
        for endpoint in ["localhost:80", "ftp://hub", "http://", "https:// x"] {
            let ran = test.run_with(&[("HF_ENDPOINT", endpoint)], &encode("ltg/bert-tiny"));
            ran.fails(2, "HF_ENDPOINT: ", "unset it");
        }
    }
}

mod outage {
    use super::*;

    /// Bytes of the weights of bert-tiny.
    fn weights() -> Vec<u8> {
        std::fs::read(ours("fixtures/models/bert-tiny/model.safetensors")).unwrap()
    }

    fn ranges(requests: &[String]) -> Vec<&str> {
        let cdn = requests.iter().filter(|line| line.starts_with("CDN"));
        cdn.map(|line| line.split_once(" range ").map_or("", |(_, range)| range)).collect()
    }

    #[test]
    fn a_broken_download_resumes() {
        let test = Test::new();
        let whole = test.encode("ltg/bert-tiny").done();
        std::fs::remove_dir_all(test.place.path("home")).unwrap();
        test.hub.fault("CDN", Fault::Cut(100_000));
        test.hub.fault("CDN", Fault::Cut(50_000));
        test.hub.requests();
        assert_eq!(test.encode("ltg/bert-tiny").done(), whole);
        assert_eq!(ranges(&test.hub.requests()), ["", "bytes=100000-", "bytes=150000-"]);
        assert!(!tree(&test.cached("ltg/bert-tiny")).keys().any(|name| name.contains("incomplete")));
    }

    #[test]
    fn the_downloaded_part_is_kept_after_the_last_attempt() {
        let test = Test::new();
        test.hub.fault("CDN", Fault::Cut(100_000));
        (0..5).for_each(|_| test.hub.fault("CDN", Fault::Cut(0)));
        let ran = test.encode("ltg/bert-tiny");
        ran.fails(
            1,
            "ltg/bert-tiny: model.safetensors: the connection broke after 100.0 kB of 341.2 kB",
            "resumes where it stopped",
        );
        let etag = Hub::etag("model.safetensors", &weights());
        let blobs = test.cached("ltg/bert-tiny").join("blobs");
        assert!(!blobs.join(&etag).exists(), "the blob is not complete");
        assert_eq!(std::fs::read(blobs.join(format!("{etag}.incomplete"))).unwrap(), &weights()[..100_000]);
        assert!(!test.cached("ltg/bert-tiny").join("refs/main").exists(), "a ref stands for a complete snapshot");
        test.hub.requests();
        test.encode("ltg/bert-tiny").done();
        assert_eq!(ranges(&test.hub.requests()), ["bytes=100000-"]);
    }

    #[test]
    fn a_stalled_download_resumes_on_a_new_connection() {
        let test = Test::new();
        test.hub.fault("CDN", Fault::Stall(70_000));
        let ran = test.run_with(&[("HF_HUB_DOWNLOAD_TIMEOUT", "1")], &encode("ltg/bert-tiny"));
        ran.done();
        assert_eq!(ranges(&test.hub.requests()), ["", "bytes=70000-"]);
    }

    #[test]
    fn an_incomplete_cache_is_completed() {
        let test = Test::new();
        let whole = test.encode("ltg/bert-tiny").done();
        let etag = Hub::etag("model.safetensors", &weights());
        let (blob, snapshot) = (test.cached("ltg/bert-tiny").join("blobs").join(&etag), test.snapshot("ltg/bert-tiny"));
        let incomplete = PathBuf::from(format!("{}.incomplete", blob.display()));
        let length = weights().len();
        let wrong = vec![7; 1000];
        for (half, expected) in [
            (Some(&weights()[..300_000]), vec!["bytes=300000-".to_owned()]),
            (Some(&weights()[..]), vec![]),
            (Some(&wrong[..]), vec!["bytes=1000-".to_owned(), String::new()]),
            (Some(&[&weights()[..], &wrong[..]].concat()[..]), vec![String::new()]),
            (None, vec![String::new()]),
        ] {
            std::fs::remove_file(&blob).unwrap();
            if let Some(half) = half {
                std::fs::write(&incomplete, half).unwrap();
            }
            test.hub.requests();
            assert_eq!(test.encode("ltg/bert-tiny").done(), whole);
            assert_eq!(ranges(&test.hub.requests()), expected, "{:?} of {length}", half.map(<[u8]>::len));
            assert!(!incomplete.exists());
        }
        // a missing link to a cached blob
        for name in ["model.safetensors", "tokenizer_config.json"] {
            std::fs::remove_file(snapshot.join(name)).unwrap();
            test.hub.requests();
            assert_eq!(test.encode("ltg/bert-tiny").done(), whole);
            let requests = test.hub.requests();
            assert!(snapshot.join(name).is_file());
            assert_eq!(requests.len(), 2, "the revision and the file's headers: {requests:?}");
        }
        // a missing link of a pinned commit, for which no other request is sent
        std::fs::remove_file(snapshot.join("tokenizer_config.json")).unwrap();
        assert_eq!(test.encode(&format!("ltg/bert-tiny@{COMMIT}")).done(), whole);
        assert!(snapshot.join("tokenizer_config.json").is_file());
    }

    #[test]
    fn wrong_bytes_are_removed() {
        let test = Test::new();
        (0..2).for_each(|_| test.hub.fault("CDN", Fault::Garble));
        let ran = test.encode("ltg/bert-tiny");
        ran.fails(1, "model.safetensors: the bytes are not those that the Hub announced", "starts anew");
        let blobs = util::names(&test.cached("ltg/bert-tiny").join("blobs"));
        assert!(!blobs.iter().any(|name| name.starts_with(&Hub::etag("model.safetensors", &weights()))), "{blobs:?}");
        // the first mismatch is repeated
        test.hub.fault("CDN", Fault::Garble);
        test.encode("ltg/bert-tiny").done();
    }

    #[test]
    fn a_server_without_ranges_sends_the_whole_file() {
        let test = Test::new();
        test.hub.fault("CDN", Fault::Cut(100_000));
        test.hub.fault("CDN", Fault::Whole);
        test.encode("ltg/bert-tiny").done();
    }

    #[test]
    fn a_request_to_a_busy_hub_is_repeated() {
        let test = Test::new();
        test.hub.fault("/api/", Fault::Answer(503, ""));
        test.hub.fault("HEAD ", Fault::Answer(429, ""));
        test.hub.fault("CDN", Fault::Answer(500, ""));
        test.encode("ltg/bert-tiny").done();
        // with a cached commit, the request is not repeated
        test.hub.fault("/api/", Fault::Answer(503, ""));
        let ran = test.encode("ltg/bert-tiny");
        assert!(
            ran.stderr.contains("warning: the Hub at") && ran.stderr.contains("answers 503; using the cached files"),
            "{}",
            ran.stderr
        );
        ran.done();
    }

    #[test]
    fn without_a_connection_the_cache_is_used() {
        let test = Test::new();
        let whole = test.encode("ltg/bert-tiny").done();
        let nobody = [("HF_ENDPOINT", "http://127.0.0.1:9")];
        let ran = test.run_with(&nobody, &encode("ltg/bert-tiny"));
        let warning = "warning: the Hub at http://127.0.0.1:9 cannot be reached: connection refused; using the cached files of ltg";
        assert!(ran.stderr.contains(warning), "{}", ran.stderr);
        assert_eq!(ran.done(), whole);
        let ran = test.run_with(&nobody, &encode("acme/splade"));
        ran.fails(
            1,
            "acme/splade: no such folder here, and the Hub at http://127.0.0.1:9 cannot be reached",
            "network",
        );
        let ran = test.run_with(&nobody, &encode("ltg/bert-tiny@v1"));
        ran.fails(1, "ltg/bert-tiny@v1: no such folder here, and the Hub", "network");
        // a part that is missing in the cache is named
        std::fs::remove_file(test.snapshot("ltg/bert-tiny").join("model.safetensors")).unwrap();
        let ran = test.run_with(&nobody, &encode("ltg/bert-tiny"));
        ran.fails(1, "ltg/bert-tiny: cached without its weights, and the Hub at", "run again later");
    }

    #[test]
    fn offline_no_request_is_sent() {
        let test = Test::new();
        let offline = |model: &'static str| [&["--offline"], &encode(model)[..]].concat();
        let cache = "no such folder here, and not cached in";
        test.run(&offline("ltg/bert-tiny")).fails(2, cache, "once without --offline");
        let whole = test.encode("ltg/bert-tiny").done();
        test.hub.requests();
        assert_eq!(test.ok(&offline("ltg/bert-tiny")), whole);
        for (variable, value) in [("HF_HUB_OFFLINE", "1"), ("HF_HUB_OFFLINE", "true"), ("TRANSFORMERS_OFFLINE", "yes")]
        {
            let ran = test.run_with(&[(variable, value)], &encode("ltg/bert-tiny"));
            assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
            assert_eq!(ran.done(), whole);
            test.run_with(&[(variable, value)], &encode("acme/splade")).fails(2, cache, "without --offline");
        }
        assert_eq!(
            test.run_with(&[("HF_HUB_OFFLINE", "1")], &encode(&format!("ltg/bert-tiny@{COMMIT}"))).done(),
            whole
        );
        test.run(&offline("ltg/bert-tiny@v1")).fails(2, cache, "without --offline");
        std::fs::remove_file(test.snapshot("ltg/bert-tiny").join("model.safetensors")).unwrap();
        test.run(&offline("ltg/bert-tiny")).fails(2, "without its weights (offline)", "without --offline");
        assert_eq!(test.hub.requests(), [] as [String; 0]);
    }

    #[test]
    fn an_interrupt_keeps_the_downloaded_part() {
        let test = Test::new();
        test.hub.fault("CDN", Fault::Stall(200_000));
        let child = test.command(&encode("ltg/bert-tiny")).env("HF_HUB_DOWNLOAD_TIMEOUT", "2").spawn().unwrap();
        let etag = Hub::etag("model.safetensors", &weights());
        let incomplete = test.cached("ltg/bert-tiny").join(format!("blobs/{etag}.incomplete"));
        wait_until("a part is downloaded", || std::fs::metadata(&incomplete).is_ok_and(|file| file.len() == 200_000));
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let ran = finish(child);
        ran.fails(130, "interrupted: the downloaded part is kept for the next run", "");
        assert_eq!(std::fs::metadata(&incomplete).unwrap().len(), 200_000);
        test.encode("ltg/bert-tiny").done();
    }
}

mod data_sets {
    use super::util::data_sets::{Column, add_all, parquet};
    use super::*;

    /// A test whose Hub has every data set and base model of the shipped configs.
    fn test() -> Test {
        let test = Test::new();
        add_all(&test.hub);
        test.place.copy(&ours("../configs"), "configs");
        test
    }

    const SHORT: [&str; 10] = [
        "--set",
        "training.max_steps=2",
        "--set",
        "training.max_seq_length=32",
        "--set",
        "training.per_device_train_batch_size=4",
        "--set",
        "training.logging_steps=1",
        "--set",
        "training.output_dir=out",
    ];

    #[test]
    fn a_shipped_config_trains_and_evaluates_on_what_it_downloads() {
        let test = test();
        let mut args = vec!["train", "configs/training_config_splade.yaml"];
        args.extend(SHORT);
        let ran = test.run(&args);
        let stderr = ran.stderr.clone();
        assert_eq!(ran.done(), "out/final\n");
        for words in [
            "evaluated: ",
            "NanoBEIR_mean_dot_ndcg@10",
            "next: splade export-onnx out/final",
            "estimate for a million documents",
            "; the result is the best checkpoint, out/checkpoint-2",
            "queries 1",
            "first step: loss",
            "grad norm",
        ] {
            assert!(stderr.contains(words), "{words}: {stderr}");
        }
        let log = test.place.read("out/log.jsonl");
        for key in [
            "eval_NanoMSMARCO_dot_ndcg@10",
            "eval_NanoNFCorpus_dot_map@100",
            "eval_NanoBEIR_mean_avg_flops",
            "document_active_dims",
        ] {
            assert!(log.contains(key), "{key}: {log}");
        }
        assert!(test.place.read("out/eval/NanoBEIR_evaluation_mean_results.csv").lines().count() == 2);
        assert!(test.place.path("out/eval/Information-Retrieval_evaluation_NanoMSMARCO_results.csv").is_file());
        // files that are not needed are not downloaded
        let cached = test.place.path("home/hub/datasets--sentence-transformers--NanoBEIR-en/snapshots").join(COMMIT);
        assert_eq!(util::names(&cached.join("corpus")).len(), 2);
        let nli = test.place.path("home/hub/datasets--Fremtind--all-nli-norwegian/snapshots").join(COMMIT);
        assert_eq!(util::names(&nli.join("data")).len(), 3, "not the test split");

        // all of it is cached: no network is needed
        test.hub.requests();
        args.extend(["--overwrite", "--offline", "-q"]);
        let again = test.run(&args);
        assert_eq!(again.done(), "out/final\n");
        assert_eq!(test.hub.requests(), [] as [String; 0]);
    }

    /// Numbers for machines: each line of the log with its fields.
    #[test]
    fn json_lines_have_the_numbers_as_fields() {
        let test = test();
        let mut args = vec!["train", "configs/training_config_splade.yaml", "--log-format", "json"];
        args.extend(SHORT);
        let ran = test.run(&args);
        let lines: Vec<Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
        let logged = of("log");
        assert_eq!(logged.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 2]);
        for key in ["loss", "grad_norm", "learning_rate", "epoch", "query_active_dims", "document_active_dims"] {
            assert!(logged[0][key].is_number(), "{key}: {}", logged[0]);
        }
        assert!(logged[2]["train_samples_per_second"].is_number());
        assert!(of("evaluation").iter().any(|line| line["eval_NanoBEIR_mean_dot_ndcg@10"].is_number()));
        ran.done();
    }

    #[test]
    fn any_data_set_can_be_a_source() {
        let test = test();
        let rows = |from: usize, language: &str| {
            let texts = |name: &'static str| {
                Column::Text(name, (from..from + 20).map(|row| Some(format!("{name} {row}"))).collect())
            };
            let language = vec![Some(language.to_owned()); 20];
            parquet(&[texts("heading"), texts("body"), Column::Text("language", language)])
        };
        let files = Files::from([
            ("nb/all-00000-of-00002.parquet".to_owned(), rows(0, "bokmål")),
            ("nb/all-00001-of-00002.parquet".to_owned(), rows(20, "nynorsk")),
            ("en/all-00000-of-00001.parquet".to_owned(), rows(40, "english")),
        ]);
        test.hub.add("datasets/acme/pairs", files);
        let config = |keys: &str| {
            test.place.write(
                "train.yaml",
                format!(
                    "{{model: {{base_model: ltg/bert-tiny}}, training: {{output_dir: out, max_steps: 1, eval_strategy: \"no\", \
                     max_seq_length: 32}}, datasets: {{mine: {{source: acme/pairs, {keys}}}}}}}"
                ),
            );
            test.run(&["train", "train.yaml", "--dry-run"])
        };
        let columns = "columns: {anchor: heading, positive: body}";
        let whole = config(&format!("config: nb, split: all, {columns}")).done();
        assert!(whole.contains("mine: 40 examples\n"), "{whole}");
        let part = config(&format!(
            "config: nb, split: all, {columns}, filter: {{language: [nynorsk]}}, max_samples: 7, split_ratio: [0.5, 0.5, 0]"
        ));
        let part = part.done();
        // rows are read until there are seven
        assert!(part.contains("mine: 3 examples, 4 to evaluate on (left out of 27 rows: 20 filtered out)\n"), "{part}");

        for (keys, error, hint) in [
            ("split: all", "datasets.mine: acme/pairs: has several configurations", "give one of en, nb as `config`"),
            ("config: nb", "datasets.mine: acme/pairs has no split train", "name one of its splits"),
            ("config: sv", "datasets.mine: acme/pairs: no configuration sv", "it has en, nb"),
        ] {
            config(&format!("{keys}, {columns}")).fails(2, error, hint);
        }
        config(&format!("config: nb, split: all, {columns}")).done();
        let place = |source: &str| {
            let set = format!("datasets.mine.source={source}");
            test.run(&["train", "train.yaml", "--dry-run", "--set", &set])
        };
        place("acme/nothing").fails(2, "datasets.mine: acme/nothing: no such data set on the Hub", "spelling");
        place("nothing").fails(2, "\"nothing\" is no data set of the Hub", "owner/name");
        test.hub.add("datasets/acme/notes", Files::from([("notes.txt".to_owned(), b"x".to_vec())]));
        place("acme/notes").fails(2, "acme/notes: none of its files is parquet, .jsonl or .tsv", "under `files`");
        test.hub.require_token("datasets/acme/pairs", TOKEN, true);
        std::fs::remove_dir_all(test.place.path("home")).unwrap();
        place("acme/pairs").fails(2, "datasets.mine: acme/pairs: gated", "request access");
    }

    #[test]
    fn a_folder_of_paws_is_taken_instead_of_the_hub() {
        let test = test();
        let header = "id\tsentence1\tsentence2\tlabel\n";
        test.place.write("paws/nb/translated_train.tsv", format!("{header}1\ten setning\tden samme\t1\n2\ta\tb\t0\n"));
        test.place.write("paws/nb/dev_2k.tsv", format!("{header}3\tto\ttre\t1\n"));
        test.place.write(
            "train.yaml",
            "
model: {base_model: ltg/bert-tiny}
training: {output_dir: out, max_steps: 1, eval_strategy: \"no\", max_seq_length: 32}
datasets: {scandi_qa: {use_norquad: no, use_openbookqa: no, use_scandiqa: no, use_supervised_da: no, paws_data_dir: paws}}
",
        );
        let stdout = test.ok(&["train", "train.yaml", "--dry-run"]);
        assert!(
            stdout.contains("scandi_qa: 1 examples, 1 to evaluate on (left out of 3 rows: 1 filtered out)"),
            "{stdout}"
        );
        assert!(!test.hub.requests().iter().any(|request| request.contains("paws")));
    }
}
