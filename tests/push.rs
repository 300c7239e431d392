//! `splade push` and `training.push_to_hub`: uploads to the server of `util::hub` on this machine.
#![cfg(feature = "train")]

mod util;

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use util::hub::{Fault, Files, Hub, files_of, hash};
use util::{Place, Ran, finish, fixture, ours, setup, wait_until};

const TOKEN: &str = "hf_secret";
/// The large files of the model.
const WEIGHTS: [&str; 2] =
    ["document_0_Transformer/model.safetensors", "query_0_SparseStaticEmbedding/model.safetensors"];

/// A folder with a model, and a Hub with the user alice.
struct Test {
    place: Place,
    hub: Hub,
}

impl Test {
    fn new() -> Self {
        let (place, hub) = (setup(), Hub::start());
        place.copy(&fixture("inference-free/model"), "model");
        hub.add_user("alice", TOKEN, "write");
        Self { place, hub }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        self.hub.direct(&mut command, &self.place.path("home"));
        command.env("HF_TOKEN", TOKEN);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        finish(self.command(args).envs(variables.iter().copied()).spawn().unwrap())
    }

    /// Pushes the model to `acme/splade`.
    fn push(&self, args: &[&str]) -> Ran {
        self.run(&[&["push", "model", "acme/splade"], args].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.push(&[args, &["--json"]].concat()).done()).unwrap()
    }

    /// Files of the model's folder.
    fn files(&self) -> Files {
        files_of(&self.place.path("model"))
    }

    /// Files of a branch, without those that the Hub has made.
    fn uploaded(&self, name: &str, branch: &str) -> Files {
        let mut files = self.hub.files(name, branch);
        files.retain(|name, _| name != ".gitattributes" && !name.starts_with("other-"));
        files
    }
}

/// Requests to the store, without the addresses.
fn puts(requests: &[String]) -> usize {
    requests.iter().filter(|line| line.starts_with("CDN PUT")).count()
}

mod command {
    use super::*;

    #[test]
    fn a_model_is_uploaded_byte_for_byte_and_downloads_as_it_was() {
        let test = Test::new();
        let stdout = test.push(&[]).done();
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
        assert_eq!(test.hub.messages("acme/splade"), ["Upload model with splade 0.1.0"]);
        for name in test.files().keys() {
            assert!(stdout.contains(&format!("{name} ")), "{name}: {stdout}");
        }
        let address = test.hub.address();
        assert!(stdout.lines().last().unwrap().starts_with(&format!("committed: {address}/acme/splade/commit/")));
        // large files go to the store, the others into the commit
        assert_eq!(puts(&test.hub.requests()), WEIGHTS.len());

        let inspect = |model: &str| {
            let mut found: Value = serde_json::from_str(&test.run(&["inspect", model, "--json"]).done()).unwrap();
            found.as_object_mut().unwrap().retain(|key, _| key != "path" && key != "folder");
            found
        };
        assert_eq!(inspect("acme/splade"), inspect("model"));
        let snapshots = test.place.path("home/hub/models--acme--splade/snapshots");
        let commit = util::names(&snapshots).remove(0);
        for name in WEIGHTS {
            let copy = std::fs::read(snapshots.join(&commit).join(name)).unwrap();
            assert_eq!(hash(&copy), hash(&test.files()[name]), "{name}");
        }
    }

    #[test]
    fn a_second_push_sends_nothing() {
        let test = Test::new();
        let first = test.json(&[]);
        test.hub.requests();
        let again = test.json(&["--message", "again"]);
        assert_eq!((&again["up_to_date"], &again["commit"]), (&json!(true), &first["commit"]));
        let statuses: BTreeSet<&str> =
            again["files"].as_array().unwrap().iter().map(|file| file["status"].as_str().unwrap()).collect();
        assert_eq!(statuses, ["unchanged"].into());
        let requests = test.hub.requests();
        assert!(!requests.iter().any(|line| line.contains("PUT") || line.contains("/commit/")), "{requests:?}");
        let stdout = test.push(&[]).done();
        assert!(stdout.lines().last().unwrap().starts_with("up to date: "), "{stdout}");
        assert_eq!(test.hub.messages("acme/splade").len(), 1);
    }

    #[test]
    fn only_changed_files_are_sent() {
        let test = Test::new();
        test.push(&[]).done();
        test.place.write("model/README.md", "# Changed");
        test.place.copy(&test.place.path("model").join(WEIGHTS[1]), "model/copy.safetensors");
        test.hub.requests();
        let report = test.json(&["--message", "A new card"]);
        let changed: Vec<(&str, &str)> = report["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| (file["path"].as_str().unwrap(), file["status"].as_str().unwrap()))
            .filter(|(_, status)| *status != "unchanged")
            .collect();
        assert_eq!(changed, [("README.md", "uploaded"), ("copy.safetensors", "already_stored")]);
        assert_eq!(puts(&test.hub.requests()), 0, "the store has the bytes of the copy");
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
        assert_eq!(test.hub.messages("acme/splade")[1], "A new card");
    }

    #[test]
    fn what_does_not_belong_to_a_model_is_left_out() {
        let test = Test::new();
        for name in [
            ".env",
            ".cache/huggingface/x.lock",
            "optimizer.safetensors",
            "progress.json",
            "trainer_state.json",
            "checkpoint-7/model.safetensors",
            "document_0_Transformer/.splade-x.tmp",
            "half.tmp",
        ] {
            test.place.write(&format!("model/{name}"), "{}");
        }
        test.place.write("model/empty.txt", "");
        test.place.write("model/note.ignored", "by the .gitignore of the repository");
        let plan = test.push(&["--dry-run"]);
        assert!(plan.stderr.contains("optimizer.safetensors: left out: the state of a training"), "{}", plan.stderr);
        assert!(plan.stderr.contains("checkpoint-7: left out: a checkpoint"), "{}", plan.stderr);
        let plan = plan.done();
        assert!(plan.lines().last().unwrap().ends_with(", to acme/splade"), "{plan}");
        let json = test.json(&["--dry-run"]);
        assert_eq!((&json["dry_run"], json["left_out"].as_array().unwrap().len()), (&json!(true), 8));
        assert_eq!(test.hub.requests(), [] as [String; 0], "without the network");

        let ran = test.push(&[]);
        assert!(ran.stderr.contains("note.ignored: left out: the repository's .gitignore"), "{}", ran.stderr);
        ran.done();
        let mut expected = files_of(&fixture("inference-free/model"));
        expected.insert("empty.txt".to_owned(), Vec::new());
        assert_eq!(test.uploaded("acme/splade", "main"), expected);
    }

    #[test]
    fn a_branch_is_made_and_gets_the_commit() {
        let test = Test::new();
        let report = test.json(&["--revision", "candidate/1"]);
        assert_eq!(report["revision"], "candidate/1");
        assert_eq!(test.uploaded("acme/splade", "candidate/1"), test.files());
        assert_eq!(test.uploaded("acme/splade", "main"), Files::new());
        test.push(&["--revision", "candidate/1"]).done();
        let commit = "0a".repeat(20);
        test.push(&["--revision", &commit]).fails(2, "is a commit", "give a branch");
        test.push(&["--revision", "../x"]).fails(2, "\"../x\" is not a revision", "a branch");
    }

    #[test]
    fn a_repository_belongs_to_the_user_or_to_an_organization() {
        let test = Test::new();
        let own = |repo: &str| test.run(&["push", "model", repo]).done();
        own("mine");
        own("alice/other");
        own("acme/third");
        let bodies = test.hub.bodies("/api/repos/create");
        assert_eq!(bodies[0], json!({"type": "model", "name": "mine"}));
        assert_eq!(bodies[1], json!({"type": "model", "name": "other"}));
        assert_eq!(bodies[2], json!({"type": "model", "name": "third", "organization": "acme"}));
        assert_eq!(test.uploaded("alice/mine", "main"), test.files());
    }

    #[test]
    fn a_private_repository_is_made_private_and_a_public_one_is_refused() {
        let test = Test::new();
        test.push(&["--private"]).done();
        assert!(test.hub.is_private("acme/splade"));
        // again, now that it is private
        test.push(&["--private"]).done();
        test.run(&["push", "model", "acme/public"]).done();
        assert!(!test.hub.is_private("acme/public"));
        test.place.write("model/README.md", "# secret");
        test.run(&["push", "model", "acme/public", "--private"]).fails(
            2,
            "acme/public: the repository exists and is public",
            "/acme/public/settings",
        );
        assert_eq!(test.uploaded("acme/public", "main").get("README.md"), None);
    }

    #[test]
    fn a_folder_that_is_no_model_is_refused() {
        let test = Test::new();
        let push = |model: &str, repo: &str| test.run(&["push", model, repo]);
        push("nowhere", "acme/splade").fails(2, "nowhere: no such folder", "the folder of a model");
        test.place.write("notes/a.txt", "x");
        push("notes", "acme/splade").fails(2, "notes: not a model folder", "");
        test.place.copy(&test.place.path("model"), "out/final");
        push("out", "acme/splade").fails(2, "out: an output folder of a training", "its model is out/final");
        for repo in ["a/b/c", "acme/", "acme/sp lade", "./model"] {
            push("model", repo).fails(2, "is not the name of a repository", "owner/name");
        }
        push("model", "acme/splade@v1").fails(2, "has no @", "--revision");
        test.place.write("model/x.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n");
        assert_eq!(test.hub.requests(), [] as [String; 0]);
        push("model", "acme/splade").fails(2, "model/x.safetensors: it is a git-lfs pointer", "");
    }
}

mod store {
    use super::*;

    #[test]
    fn large_files_go_in_parts_where_the_store_asks_for_them() {
        let test = Test::new();
        test.hub.set_part_size(50_000);
        test.push(&[]).done();
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
        let sizes: Vec<usize> = WEIGHTS.map(|name| test.files()[name].len()).to_vec();
        let expected: usize = sizes.iter().map(|size| size.div_ceil(50_000)).sum();
        assert!(expected > 3, "{sizes:?}");
        assert_eq!(test.hub.stored_sizes().len(), expected);
        assert_eq!(test.hub.stored_sizes().iter().sum::<usize>(), sizes.iter().sum::<usize>());
    }

    #[test]
    fn a_broken_connection_repeats_the_file_or_the_part_alone() {
        let test = Test::new();
        test.hub.fault("CDN PUT", Fault::CutBody(1000));
        test.hub.fault("CDN PUT", Fault::Answer(503, ""));
        test.push(&[]).done();
        assert_eq!(puts(&test.hub.requests()), WEIGHTS.len() + 2);
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());

        let test = Test::new();
        test.hub.set_part_size(50_000);
        test.hub.fault("/2?signature", Fault::CutBody(1000));
        test.push(&[]).done();
        let requests = test.hub.requests();
        let of_part = |number: usize| {
            let end = format!("/{number}?signature=x");
            let oid = hash(&test.files()[WEIGHTS[0]]);
            requests.iter().filter(|line| line.contains(&oid) && line.contains(&end)).count()
        };
        assert_eq!((of_part(1), of_part(2), of_part(3)), (1, 2, 1), "{requests:?}");
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
    }

    #[test]
    fn an_upload_that_failed_resumes_without_the_files_that_are_complete() {
        let test = Test::new();
        let last = hash(&test.files()[WEIGHTS[1]]);
        (0..5).for_each(|_| test.hub.fault(&format!("CDN PUT /store/{last}"), Fault::CutBody(1000)));
        let ran = test.push(&[]);
        ran.fails(1, &format!("acme/splade: {}: the Hub at", WEIGHTS[1]), "run again: what is uploaded is not sent");
        assert_eq!(test.uploaded("acme/splade", "main"), Files::new(), "no commit of a part");
        test.hub.requests();
        let report = test.json(&[]);
        let requests = test.hub.requests();
        assert_eq!(puts(&requests), 1, "{requests:?}");
        let status = |name: &str| {
            let files = report["files"].as_array().unwrap();
            files.iter().find(|file| file["path"] == name).unwrap()["status"].clone()
        };
        assert_eq!([status(WEIGHTS[0]), status(WEIGHTS[1])], ["already_stored", "uploaded"]);
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
    }

    #[test]
    fn a_refusal_of_the_store_is_named() {
        let test = Test::new();
        test.hub.fault("CDN PUT", Fault::Answer(403, "<Error>expired</Error>"));
        test.push(&[]).fails(1, "model.safetensors: the Hub's store answers 403", "run again");
        let answer = r#"{"objects": [{"oid": "x", "size": 1}]}"#;
        test.hub.fault("objects/batch", Fault::Answer(200, answer));
        test.push(&[]).fails(1, "to lfs batch has another form than expected", "HF_ENDPOINT");
        test.push(&[]).done();
    }

    #[test]
    fn an_interrupt_ends_an_upload() {
        let test = Test::new();
        test.hub.fault("verify", Fault::Stall(0));
        let mut command = test.command(&["push", "model", "acme/splade"]);
        let child = command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1").spawn().unwrap();
        wait_until("a large file is stored", || !test.hub.bodies("verify").is_empty());
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        finish(child).fails(130, "interrupted", "what is uploaded is not sent again");
        assert_eq!(test.uploaded("acme/splade", "main"), Files::new());
        test.push(&[]).done();
    }
}

mod access {
    use super::*;

    #[test]
    fn only_the_hub_receives_the_token() {
        let test = Test::new();
        test.hub.set_part_size(50_000);
        test.push(&["--private"]).done();
        let (to_hub, to_cdn) = test.hub.authorizations();
        // the address that joins parts is signed
        assert_eq!(to_hub, BTreeSet::from([None, Some(format!("Bearer {TOKEN}"))]));
        assert_eq!(to_cdn, BTreeSet::from([None]));
    }

    #[test]
    fn a_missing_token_is_named_with_the_places_that_were_looked_at() {
        let test = Test::new();
        let push = ["push", "model", "acme/splade"];
        let none = test.run_with(&[("HF_TOKEN", "")], &push);
        none.fails(2, "HF_TOKEN is not set, and there is no ", "/settings/tokens");
        let off = test.run_with(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], &push);
        off.fails(2, "HF_HUB_DISABLE_IMPLICIT_TOKEN is set", "/settings/tokens");
        assert_eq!(test.hub.requests(), [] as [String; 0]);
        // a stored one
        test.place.write("home/token", format!("{TOKEN}\n"));
        test.run_with(&[("HF_TOKEN", "")], &push).done();
    }

    #[test]
    fn a_token_that_is_refused_is_named_by_its_source() {
        let test = Test::new();
        let push = ["push", "model", "acme/splade"];
        test.run_with(&[("HF_TOKEN", "hf_wrong")], &push).fails(
            2,
            "does not accept the token of HF_TOKEN",
            "/settings/tokens",
        );
        test.place.write("home/token", "hf_old");
        test.run_with(&[("HF_TOKEN", "")], &push).fails(2, "does not accept the token of /", "set HF_TOKEN");
        test.hub.add_user("bob", "hf_reader", "read");
        test.run_with(&[("HF_TOKEN", "hf_reader")], &push).fails(
            2,
            "acme/splade: the token of HF_TOKEN may only read",
            "one that may write",
        );
        test.hub.fault("/api/repos/create", Fault::Answer(403, r#"{"error": "You don't have the rights"}"#));
        test.push(&[]).fails(
            2,
            "acme/splade: the token of HF_TOKEN may not write there: You don't have the rights",
            "a repository of your own",
        );
        test.hub.fault("/commit/", Fault::Answer(403, "{}"));
        test.push(&[]).fails(2, "acme/splade: the token of HF_TOKEN may not write there", "write access at");
        // a token that may write to a repository and not make one
        test.hub.fault("/api/repos/create", Fault::Answer(403, "{}"));
        test.push(&[]).done();
        test.hub.fault("/api/repos/create", Fault::Answer(404, "{}"));
        test.push(&[]).fails(2, "no such repository on the Hub at", "spelling");
        test.hub.fault("/api/repos/create", Fault::Answer(400, r#"{"error": "too long"}"#));
        test.push(&[]).fails(1, "answers 400 to create: too long", "");
    }

    #[test]
    fn offline_no_request_is_sent() {
        let test = Test::new();
        test.push(&["--offline"]).fails(2, "acme/splade: an upload needs the network", "without --offline");
        test.run_with(&[("HF_HUB_OFFLINE", "1")], &["push", "model", "acme/splade"]).fails(
            2,
            "needs the network",
            "HF_HUB_OFFLINE",
        );
        test.push(&["--offline", "--dry-run"]).done();
        assert_eq!(test.hub.requests(), [] as [String; 0]);
    }
}

mod conflicts {
    use super::*;

    #[test]
    fn a_commit_of_another_is_kept() {
        let test = Test::new();
        test.push(&[]).done();
        test.place.write("model/README.md", "# New");
        test.hub.fault("/commit/", Fault::Race);
        test.push(&[]).done();
        let files = test.hub.files("acme/splade", "main");
        assert!(files.keys().any(|name| name.starts_with("other-")), "the commit of another is below ours");
        assert_eq!(files["README.md"], b"# New");
    }

    #[test]
    fn a_branch_that_never_rests_is_an_error() {
        let test = Test::new();
        (0..5).for_each(|_| test.hub.fault("/commit/", Fault::Race));
        test.push(&[]).fails(1, "acme/splade: others commit to main at the same time", "run again");
        (0..5).for_each(|_| test.hub.fault("/commit/", Fault::Answer(409, "{}")));
        test.push(&[]).fails(1, "acme/splade: others commit to main at the same time", "run again");
    }

    #[test]
    fn a_commit_whose_answer_is_lost_is_not_made_twice() {
        let test = Test::new();
        test.hub.fault("/commit/", Fault::Cut(0));
        let report = test.json(&[]);
        assert_eq!(test.hub.messages("acme/splade").len(), 1);
        assert_eq!(report["up_to_date"], false);
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
    }

    #[test]
    fn a_busy_hub_is_asked_again() {
        let test = Test::new();
        for call in ["whoami", "create", "/revision/", "preupload", "objects/batch", "verify", "/commit/"] {
            test.hub.fault(call, Fault::Answer(503, ""));
        }
        test.push(&[]).done();
        assert_eq!(test.uploaded("acme/splade", "main"), test.files());
    }

    #[test]
    fn a_hub_that_is_not_there_is_named() {
        let test = Test::new();
        let nobody = test.run_with(&[("HF_ENDPOINT", "http://127.0.0.1:9")], &["push", "model", "acme/splade"]);
        nobody.fails(1, "the Hub at http://127.0.0.1:9 cannot be reached: connection refused", "run again");
    }
}

mod training {
    use super::*;

    /// A test with a training of three steps and a checkpoint after each.
    fn test(keys: &str) -> Test {
        let test = Test::new();
        test.place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
        test.place.write(
            "train.yaml",
            format!(
                "
model: {{base_model: model, load_pretrained_sparse_encoder: true}}
training: {{output_dir: out, max_steps: 3, save_steps: 1, save_total_limit: 1, logging_steps: 1, max_seq_length: 32,
  per_device_train_batch_size: 4, eval_strategy: \"no\", push_to_hub: true, {keys}}}
datasets: {{a: {{files: [train.jsonl]}}}}
"
            ),
        );
        test
    }

    fn result(test: &Test) -> Files {
        files_of(&test.place.path("out/final"))
    }

    /// Names of a repository's folders.
    fn folders(files: &Files) -> BTreeSet<&str> {
        files.keys().filter_map(|name| name.split_once('/')).map(|(folder, _)| folder).collect()
    }

    const MODEL: [&str; 3] = ["document_0_MLMTransformer", "document_1_SpladePooling", "query_0_SparseStaticEmbedding"];

    #[test]
    fn the_end_uploads_the_result_alone() {
        let test = test("hub_model_id: acme/splade, hub_strategy: end");
        let ran = test.run(&["train", "train.yaml"]);
        let address = format!("{}/acme/splade", test.hub.address());
        for line in [format!("uploads go to {address}\n"), format!("uploaded to {address}\n")] {
            assert!(ran.stderr.contains(&line), "{line}: {}", ran.stderr);
        }
        assert_eq!(ran.done(), "out/final\n");
        assert_eq!(test.hub.messages("acme/splade"), ["End of training"]);
        assert_eq!(test.uploaded("acme/splade", "main"), result(&test));
        assert!(test.place.read("out/final/README.md").contains("SparseEncoder(\"acme/splade\")"));
    }

    #[test]
    fn every_save_uploads_the_model_of_a_checkpoint_first() {
        let test = test("hub_model_id: acme/splade");
        test.run(&["train", "train.yaml"]).done();
        let messages = test.hub.messages("acme/splade");
        assert_eq!(messages.first().unwrap(), "Training in progress, step 1");
        // the upload of the last step may be the one that the result equals
        assert!(["End of training", "Training in progress, step 3"].contains(&messages.last().unwrap().as_str()));
        let uploaded = test.uploaded("acme/splade", "main");
        assert_eq!(uploaded, result(&test), "no optimizer state, no checkpoint");
        assert_eq!(util::names(&test.place.path("out")), ["checkpoint-3", "final", "log.jsonl", "runs"]);
    }

    #[test]
    fn a_training_resumes_from_the_checkpoint_on_the_hub() {
        let test = test("hub_model_id: acme/splade, hub_strategy: checkpoint");
        test.run(&["train", "train.yaml"]).done();
        let mut uploaded = test.uploaded("acme/splade", "main");
        let all: BTreeSet<&str> = MODEL.into_iter().chain(["last-checkpoint"]).collect();
        assert_eq!(folders(&uploaded), all);
        let checkpoint = files_of(&test.place.path("out/checkpoint-3"));
        for (name, bytes) in &checkpoint {
            let uploaded = uploaded.remove(&format!("last-checkpoint/{name}"));
            assert_eq!(uploaded.as_ref(), Some(bytes), "{name}");
            test.place.write(&format!("downloaded/{name}"), bytes);
        }
        assert!(checkpoint.contains_key("optimizer.safetensors"));
        assert_eq!(uploaded, result(&test));
        let args =
            ["--set", "training.max_steps=4", "--set", "training.output_dir=again", "--set", "training.hub_model_id=b"];
        let ran = test.run(&[&["train", "train.yaml", "--resume-from", "downloaded"], &args[..]].concat());
        assert!(ran.stderr.contains("resumes downloaded after 3 steps"), "{}", ran.stderr);
        ran.done();
        assert!(test.uploaded("alice/b", "main").contains_key("last-checkpoint/optimizer.safetensors"));
    }

    #[test]
    fn all_checkpoints_keep_their_folders() {
        let test = test("hub_model_id: acme/splade, hub_strategy: all_checkpoints, hub_private_repo: true");
        test.run(&["train", "train.yaml", "--set", "training.save_total_limit=0"]).done();
        assert!(test.hub.is_private("acme/splade"));
        let all: BTreeSet<&str> = MODEL.into_iter().chain(["checkpoint-1", "checkpoint-2", "checkpoint-3"]).collect();
        let uploaded = test.uploaded("acme/splade", "main");
        assert_eq!(folders(&uploaded), all);
        for step in 1..=3 {
            for (name, bytes) in files_of(&test.place.path(&format!("out/checkpoint-{step}"))) {
                assert_eq!(uploaded[&format!("checkpoint-{step}/{name}")], bytes, "{step} {name}");
            }
        }
    }

    #[test]
    fn without_a_name_the_repository_is_that_of_the_output_folder() {
        let test = test("hub_strategy: end");
        test.run(&["train", "train.yaml"]).done();
        assert_eq!(test.uploaded("alice/out", "main"), result(&test));
    }

    /// Nobody trains for hours to learn that the token is wrong.
    #[test]
    fn a_token_is_checked_before_the_training() {
        let test = test("hub_model_id: acme/splade");
        let train = ["train", "train.yaml"];
        let error = "training.push_to_hub: acme/splade: the Hub at";
        test.run_with(&[("HF_TOKEN", "hf_wrong")], &train).fails(2, error, "/settings/tokens");
        test.run_with(&[("HF_TOKEN", "")], &train).fails(
            2,
            "training.push_to_hub: acme/splade: an upload to",
            "/settings/tokens",
        );
        test.run(&["train", "train.yaml", "--offline"]).fails(
            2,
            "training.push_to_hub: acme/splade: an upload needs",
            "without --offline",
        );
        let id = "training.hub_model_id=a/b/c";
        test.run(&["train", "train.yaml", "--set", id]).fails(
            2,
            "\"a/b/c\" is not the name of a repository",
            "owner/name",
        );
        assert!(!test.place.path("out").exists());
        // a dry run does not upload
        test.run(&["train", "train.yaml", "--dry-run", "--offline"]).done();
    }

    #[test]
    fn a_pretrained_base_is_uploaded_too() {
        let test = test("hub_model_id: acme/base, hub_strategy: end, objective: mlm");
        let texts: String = (0..40).map(|n| format!("{{\"text\": \"setning nummer {n} om fjorden\"}}\n")).collect();
        test.place.write("train.jsonl", texts);
        let set = ["--set", "model.load_pretrained_sparse_encoder=false", "--set", "model.base_model=base"];
        test.place.copy(&ours("fixtures/models/bert-tiny"), "base");
        test.run(&[&["train", "train.yaml"], &set[..]].concat()).done();
        assert_eq!(test.uploaded("acme/base", "main"), result(&test));
    }

    #[test]
    fn a_slow_upload_does_not_hold_the_training_up() {
        let test = test("hub_model_id: acme/splade");
        test.hub.fault("/preupload/", Fault::Stall(0));
        let mut command = test.command(&["train", "train.yaml"]);
        let child = command.env("HF_HUB_DOWNLOAD_TIMEOUT", "10").spawn().unwrap();
        wait_until("the last checkpoint is saved", || test.place.path("out/checkpoint-3").is_dir());
        assert_eq!(test.hub.messages("acme/splade"), [] as [String; 0]);
        // the checkpoint that is being uploaded is deleted meanwhile
        assert!(!test.place.path("out/checkpoint-1").exists());
        assert_eq!(finish(child).done(), "out/final\n");
        assert_eq!(test.hub.messages("acme/splade"), ["Training in progress, step 1", "End of training"]);
        assert_eq!(test.uploaded("acme/splade", "main"), result(&test));
    }

    #[test]
    fn an_interrupted_training_does_not_wait_for_its_upload() {
        let test = test("hub_model_id: acme/splade");
        test.hub.fault("/preupload/", Fault::Stall(0));
        let set = ["--set", "training.max_steps=100000", "--set", "training.save_steps=10"];
        let child = test.command(&[&["train", "train.yaml"], &set[..]].concat()).spawn().unwrap();
        wait_until("the upload has begun", || !test.hub.bodies("/preupload/").is_empty());
        let begun = std::time::Instant::now();
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let ran = finish(child);
        ran.fails(130, "interrupted after ", "--resume continues the training");
        assert!(begun.elapsed().as_secs() < 30);
        assert_eq!(test.uploaded("acme/splade", "main"), Files::new());
    }

    #[test]
    fn a_failed_upload_during_the_training_is_a_warning() {
        let test = test("hub_model_id: acme/splade");
        test.hub.fault("/commit/", Fault::Answer(403, r#"{"error": "quota"}"#));
        let ran = test.run(&["train", "train.yaml"]);
        let warning = "warning: out/checkpoint-1: not uploaded: acme/splade: the token of HF_TOKEN may not write there: \
                       quota\n";
        assert!(ran.stderr.contains(warning), "{}", ran.stderr);
        assert_eq!(ran.done(), "out/final\n");
        assert_eq!(test.uploaded("acme/splade", "main"), result(&test));
    }

    #[test]
    fn a_failed_upload_at_the_end_says_how_to_retry() {
        let test = test("hub_model_id: acme/splade, hub_strategy: end, hub_private_repo: true");
        (0..5).for_each(|_| test.hub.fault("/commit/", Fault::Answer(500, "")));
        let ran = test.run(&["train", "train.yaml"]);
        let retry = "splade push out/final acme/splade --private";
        ran.fails(1, "out/final is saved, but not on the Hub: acme/splade: the Hub at", retry);
        let files = result(&test);
        assert_eq!(test.uploaded("acme/splade", "main"), Files::new());
        test.run(&retry.split(' ').skip(1).collect::<Vec<_>>()).done();
        assert_eq!(test.uploaded("acme/splade", "main"), files);
    }
}

/// Bodies of the requests that say what is uploaded.
fn stated(test: &Test) -> [Vec<Value>; 2] {
    let sorted = |mut values: Vec<Value>| {
        values.sort_by_key(Value::to_string);
        values
    };
    let files = test.hub.bodies("/preupload/").into_iter().flat_map(|mut body| match body["files"].take() {
        Value::Array(files) => files,
        other => panic!("{other}"),
    });
    let [batch] = &mut test.hub.bodies("objects/batch")[..] else { panic!("one question to the store") };
    let objects = sorted(batch["objects"].as_array().unwrap().clone());
    batch["objects"] = objects.into();
    [sorted(files.collect()), vec![batch.take()]]
}

#[test]
#[ignore = "needs Python with huggingface_hub; run with \
            `PYTHON=python3 cargo test --workspace --test push -- --ignored huggingface_hub`"]
fn huggingface_hub_makes_the_same_requests() {
    const UPLOAD: &str = "
import sys
from huggingface_hub import HfApi
api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])
api.create_repo('acme/splade', private=True, exist_ok=True)
api.upload_folder(repo_id='acme/splade', folder_path='model', commit_message='Upload model with splade 0.1.0')
";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for part_size in [None, Some(50_000)] {
        let (ours, theirs) = (Test::new(), Test::new());
        let _ = [&ours, &theirs].map(|test| part_size.iter().for_each(|size| test.hub.set_part_size(*size)));
        ours.push(&["--private"]).done();
        let mut command = Command::new(&python);
        command.args(["-c", UPLOAD, theirs.hub.address(), TOKEN]).current_dir(theirs.place.path(""));
        command.env("HF_HUB_DISABLE_XET", "1").env("HF_HOME", theirs.place.path("home")).env_remove("HF_HUB_OFFLINE");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(theirs.uploaded("acme/splade", "main"), theirs.files());
        assert!(theirs.hub.is_private("acme/splade"));
        assert_eq!(stated(&ours), stated(&theirs));
        let commit = |test: &Test| -> BTreeSet<String> {
            let lines = test.hub.text("/commit/");
            // ours states the commit that it follows
            let lines = lines.lines().filter(|line| !line.contains("\"header\""));
            lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].to_string()).collect()
        };
        let sorted = |lines: BTreeSet<String>| -> BTreeSet<String> {
            // the order of keys is free
            let keys = |line: &String| {
                let value: std::collections::BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
                serde_json::to_string(&value).unwrap()
            };
            lines.iter().map(keys).collect()
        };
        assert_eq!(sorted(commit(&ours)), sorted(commit(&theirs)));
        assert_eq!(theirs.json(&[])["up_to_date"], true, "the hashes are those that Python has uploaded");
        assert_eq!(ours.hub.files("acme/splade", "main"), theirs.hub.files("acme/splade", "main"));
    }
}
