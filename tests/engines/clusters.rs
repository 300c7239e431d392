//! The recipes of docs/scale for Apache Spark and Ray, on clusters of processes on this machine. A part of the cluster is killed in
//! mid-job, and the result is compared with one run.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::util::{Place, fixture, onnx_runtime, ours, setup};

/// Number of tasks of a job.
const TASKS: usize = 12;
/// Number of tasks that have started when a process is killed.
const BEFORE_KILL: usize = 4;
/// Longest time before they have started.
const START_MAX: Duration = Duration::from_secs(120);

/// A folder with a model, a corpus and a program.
struct Job {
    place: Place,
    /// vectors of one run
    one: String,
}

impl Job {
    fn new() -> Self {
        let place = setup();
        place.copy(&fixture("inference-free/model"), "model");
        place.ok(&["export-onnx", "model", "--no-verify"]);
        place.copy(&ours("data/lohelp-nb/corpus.jsonl"), "corpus.jsonl");
        let one = place.ok(&["encode", "model", "--input", "corpus.jsonl", "--role", "document"]);
        // a task notes its process and waits, so that the killed process has tasks
        let tasks = place.path("tasks").display().to_string();
        let runtime = onnx_runtime().display().to_string();
        let program = env!("CARGO_BIN_EXE_splade");
        let script =
            format!("#!/bin/sh\necho $$ >> '{tasks}'\nsleep 1\nORT_DYLIB_PATH='{runtime}' exec '{program}' \"$@\"\n");
        place.write("splade", script);
        std::fs::set_permissions(place.path("splade"), Permissions::from_mode(0o755)).unwrap();
        Self { place, one }
    }

    fn path(&self, name: &str) -> String {
        self.place.path(name).display().to_string()
    }

    /// Command that runs a recipe in the Python environment of a suite.
    fn recipe(&self, suite: &str, name: &str) -> Command {
        let mut command = Command::new(python(suite));
        command.arg(ours("../docs/scale").join(name)).current_dir(self.place.path(""));
        command.args(["--model", &self.path("model"), "--splade", &self.path("splade")]);
        let log = File::create(self.place.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Processes of the tasks that have started, in the order of their starts.
    fn tasks(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.place.path("tasks")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Runs a recipe to its end. In mid-job kills the process called `part` above the newest task, and all between them, as the loss
    /// of a machine does.
    fn run(&self, mut recipe: Command, part: &str) {
        let mut recipe = recipe.spawn().unwrap();
        let start = Instant::now();
        while self.tasks().len() < BEFORE_KILL {
            let is_early = recipe.try_wait().unwrap().is_none() && start.elapsed() < START_MAX;
            assert!(is_early, "{BEFORE_KILL} tasks have not started: {}", self.place.read("log"));
            std::thread::sleep(Duration::from_millis(20));
        }
        let task = *self.tasks().last().unwrap();
        let victims: Vec<String> = up_to(task, part).iter().rev().map(u32::to_string).collect();
        assert!(!victims.is_empty(), "process {task} has no {part} above it");
        assert!(Command::new("kill").arg("-KILL").args(&victims).status().unwrap().success());
        assert!(recipe.wait().unwrap().success(), "{}", self.place.read("log"));
        let runs = self.tasks().len();
        assert!(runs > TASKS, "{runs} runs of {TASKS} tasks: nothing was run again");
        println!("{TASKS} tasks took {runs} runs after a {part} was killed");
    }
}

fn python(suite: &str) -> PathBuf {
    ours("../.engines").join(suite).join("venv/bin/python")
}

/// Process `process` and those above it, up to the first whose command line has `name` in it; empty if there is none.
fn up_to(process: u32, name: &str) -> Vec<u32> {
    let parent = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let is_named = |process: &u32| {
        let command = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(name)
    };
    let mut above: Vec<u32> = std::iter::successors(Some(process), parent).collect();
    above.truncate(above.iter().position(is_named).map_or(0, |last| last + 1));
    above
}

mod spark {
    use super::*;
    use crate::util::data_sets::{Column, parquet};
    use crate::util::names;

    /// Two files, whose rows in the order of their names are the corpus.
    fn write_parquet(job: &Job) {
        let corpus = job.place.read("corpus.jsonl");
        let documents: Vec<serde_json::Value> =
            corpus.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (name, part) in [("a", &documents[..500]), ("b", &documents[500..])] {
            let column = |key| {
                let cells = part.iter().map(|document| document[key].as_str().map(str::to_owned));
                Column::Text(key, cells.collect())
            };
            job.place.write(&format!("corpus/{name}.parquet"), parquet(&["_id", "title", "text"].map(column)));
        }
    }

    #[test]
    #[ignore = "needs PySpark and Java: make test-engines"]
    fn the_recipe_equals_one_run_after_an_executor_is_killed() {
        let job = Job::new();
        write_parquet(&job);
        let mut recipe = job.recipe("clusters/spark", "spark_encode.py");
        recipe.args(["--input", &job.path("corpus"), "--output", &job.path("vectors"), "--partitions"]);
        recipe.arg(TASKS.to_string());
        // two workers with one core each
        let submit = "--master local-cluster[2,1,1024] --conf spark.executor.memory=512m --conf spark.ui.enabled=false \
                      --conf spark.driver.bindAddress=127.0.0.1 --conf spark.driver.host=127.0.0.1 pyspark-shell";
        recipe.env("PYSPARK_SUBMIT_ARGS", submit).env("PYSPARK_PYTHON", python("clusters/spark"));
        recipe.env("SPARK_LOCAL_IP", "127.0.0.1").env("JAVA_HOME", ours("../.engines/clusters/spark/jvm"));
        job.run(recipe, "CoarseGrainedExecutorBackend");
        let mut parts = names(&job.place.path("vectors"));
        parts.retain(|name| name.starts_with("part-"));
        let found: String = parts.iter().map(|name| job.place.read(&format!("vectors/{name}"))).collect();
        assert!(
            parts.len() > 1 && found == job.one,
            "the vectors in {} files differ from those of one run",
            parts.len()
        );
    }
}

mod ray {
    use std::io::{BufRead as _, BufReader};
    use std::process::Child;

    use super::*;

    /// A cluster of a head and two nodes with one core each.
    struct Cluster {
        process: Child,
        address: String,
    }

    /// Settings of all processes: addresses of this machine stay loopback addresses, on any system, and nothing is reported.
    const SETTINGS: [(&str, &str); 2] = [("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"), ("RAY_USAGE_STATS_ENABLED", "0")];

    impl Cluster {
        fn start(job: &Job) -> Self {
            std::fs::create_dir(job.place.path("ray")).unwrap();
            let mut process = Command::new(python("clusters/ray"))
                .arg(ours("engines/clusters/ray/cluster.py"))
                .envs(SETTINGS)
                .env("RAY_TMPDIR", job.place.path("ray"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("`make test-engines` makes .engines/clusters/ray/venv");
            let mut address = String::new();
            BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
            assert!(address.starts_with("127.0.0.1:"), "the cluster does not start: {address:?}");
            Self { process, address: address.trim().to_owned() }
        }
    }

    impl Drop for Cluster {
        fn drop(&mut self) {
            // the end of its input stops the cluster
            drop(self.process.stdin.take());
            let _ = self.process.wait();
        }
    }

    #[test]
    #[ignore = "needs Ray: make test-engines"]
    fn the_recipe_equals_one_run_after_a_node_is_killed() {
        let job = Job::new();
        let cluster = Cluster::start(&job);
        let mut recipe = job.recipe("clusters/ray", "ray_encode.py");
        recipe.args(["--input", &job.path("corpus.jsonl"), "--shards", &job.path("shards"), "--count"]);
        recipe.arg(TASKS.to_string()).env("RAY_ADDRESS", &cluster.address).envs(SETTINGS);
        job.run(recipe, "raylet/raylet");
        let shards: Vec<String> = (0..TASKS).map(|at| format!("shards/{at}.jsonl")).collect();
        let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
        let merged = job.place.ok(&[&["merge"], &shards[..], &["--output", "-"]].concat());
        assert!(merged == job.one, "the merged vectors differ from those of one run");
    }
}
