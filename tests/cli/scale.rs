//! The recipes of docs/scale: each shard encoded by the script of a scheduler, with the variables that it sets.
#![cfg(unix)]

use super::*;

/// A folder with a tiny model, a corpus, the vectors of one run, and a folder in `PATH` with the program under test.
struct Recipes {
    place: Place,
    one: String,
    path: String,
}

fn recipes() -> Recipes {
    let place = place();
    std::fs::create_dir(place.path("data")).unwrap();
    place.copy(&ours("data/toy/corpus.jsonl"), "data/corpus.jsonl");
    place.copy(&place.path("model"), "data/model");
    let one = place.ok(&ENCODE);
    std::fs::create_dir(place.path("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_splade"), place.path("bin/splade")).unwrap();
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    Recipes { place, one, path }
}

impl Recipes {
    /// Runs a command in the folder. It must succeed.
    #[track_caller]
    fn run(&self, program: &str, args: &[&str], environment: &[(&str, String)]) {
        // the variables of the program under test
        let program_of_tests = self.place.command(&[]);
        let mut command = Command::new(program);
        command.args(args).current_dir(self.place.path("")).env("PATH", &self.path);
        for (name, value) in program_of_tests.get_envs() {
            value.map(|value| command.env(name, value));
        }
        let output = command.envs(environment.iter().map(|(name, value)| (name, value))).output().expect(program);
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Checks that the shards are those of one run.
    fn check(&self, folder: &str, count: usize) {
        let shards: Vec<String> = (0..count).map(|at| format!("{folder}/{at}.jsonl")).collect();
        let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
        assert_eq!(self.place.ok(&with(&with(&["merge"], &shards), &["--output", "-"])), self.one);
    }
}

fn recipe(name: &str) -> String {
    ours("../docs/scale").join(name).display().to_string()
}

#[test]
fn a_slurm_array() {
    let recipes = recipes();
    let script = recipe("slurm.sh");
    // task 1 is requeued
    for task in ["0", "1", "2", "1"] {
        let slurm = [("SLURM_ARRAY_TASK_ID", task.to_owned()), ("SLURM_ARRAY_TASK_COUNT", "3".to_owned())];
        recipes.run("bash", &[&script, "model", "corpus.jsonl", "shards"], &slurm);
    }
    recipes.check("shards", 3);
}

#[test]
fn an_indexed_job_of_kubernetes() {
    let recipes = recipes();
    let job: serde_json::Value =
        serde_yaml::from_str(&std::fs::read_to_string(recipe("kubernetes.yaml")).unwrap()).unwrap();
    assert_eq!(job["spec"]["completionMode"], "Indexed");
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"], serde_json::json!(["/bin/sh", "-c"]));
    let line = container["args"][0].as_str().unwrap().replace("/data/", "data/");
    let count = job["spec"]["completions"].as_u64().unwrap() as usize;
    assert_eq!(container["env"][0], serde_json::json!({"name": "COMPLETIONS", "value": count.to_string()}));
    for index in 0..count {
        let variables = [("JOB_COMPLETION_INDEX", index.to_string()), ("COMPLETIONS", count.to_string())];
        recipes.run("/bin/sh", &["-c", &line], &variables);
    }
    recipes.check("data/shards", count);
}

#[test]
#[ignore = "needs GNU parallel (Debian: parallel)"]
fn gnu_parallel() {
    let recipes = recipes();
    recipes.place.ok(&INDEX);
    let search = |index: &str| {
        recipes.place.ok(&["search", "--index", index, "--queries", "queries.jsonl", "--mode", "hybrid", "--json"])
    };
    let script = recipe("parallel.sh");
    recipes.run("bash", &[&script, "model", "corpus.jsonl", "shards", "merged.index", "3", "--jobs", "2"], &[]);
    assert_eq!(search("merged.index"), search("toy.index"));
}
