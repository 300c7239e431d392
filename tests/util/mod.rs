//! [`Place`]: a temporary folder in which tests run the program.
#![allow(dead_code)] // each test file uses a part of this module

pub(crate) mod data_sets;
pub(crate) mod hub;
pub(crate) mod loopback;
pub(crate) mod lucene;
pub(crate) mod qdrant;
#[cfg(feature = "serve")]
pub(crate) mod server;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// All commands.
pub(crate) const COMMANDS: [&str; 19] = [
    "train",
    "export-onnx",
    "encode",
    "index",
    "export-vectors",
    "merge",
    "search",
    "serve",
    "mine",
    "eval-mteb",
    "eval-run",
    "tune",
    "verify",
    "inspect",
    "push",
    "push-index",
    "doctor",
    "completions",
    "man",
];

/// Temporary folder in which the program runs, with the cache of the program beside it.
pub(crate) struct Place {
    work: TempDir,
    cache: TempDir,
}

/// Result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Text on stdout: results.
    pub(crate) stdout: String,
    /// Text on stderr: everything else.
    pub(crate) stderr: String,
}

/// Makes an empty folder.
pub(crate) fn setup() -> Place {
    Place { work: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() }
}

/// Path of a file or folder in `tests/`.
pub(crate) fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// Path of a file or folder in `tests/fixtures/sparse-encoder/`.
pub(crate) fn fixture(path: &str) -> PathBuf {
    ours("fixtures/sparse-encoder").join(path)
}

/// Path in the folder `shared` beside the repository, or in the folder that `SPLADE_SHARED` names. Tests that need it are
/// ignored by default.
pub(crate) fn shared(path: &str) -> PathBuf {
    let root = std::env::var_os("SPLADE_SHARED").map(PathBuf::from);
    root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared")).join(path)
}

/// Library of ONNX Runtime: `ORT_DYLIB_PATH`, else the one of `make setup` in `.onnxruntime/`.
pub(crate) fn onnx_runtime() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".onnxruntime");
    let files = std::fs::read_dir(&folder).expect("run `make setup` first: there is no .onnxruntime/");
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        ["libonnxruntime.", "onnxruntime.dll"].iter().any(|start| name.starts_with(start))
    });
    files.pop().expect("run `make setup` first: .onnxruntime/ is empty")
}

/// Renames the tensors of a safetensors file; a tensor without a new name is removed.
pub(crate) fn renamed_tensors(bytes: &[u8], rename: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    safetensors::serialize(file.iter().filter_map(|(name, view)| Some((rename(name)?, view))), None).unwrap()
}

/// Splits a safetensors file into two shards and their index; returns names and bytes.
pub(crate) fn shards_of(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let shard = |at: usize| format!("model-0000{}-of-00002.safetensors", at % 2 + 1);
    let home = |name: &str| shard(names.iter().position(|other| *other == name).unwrap());
    let map: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), home(name).into())).collect();
    let index = serde_json::json!({"metadata": {"total_size": bytes.len()}, "weight_map": map});
    let mut files = vec![("model.safetensors.index.json".to_owned(), index.to_string().into_bytes())];
    for at in 0..2 {
        let part = |name: &str| (home(name) == shard(at)).then(|| name.to_owned());
        files.push((shard(at), renamed_tensors(bytes, part)));
    }
    files
}

impl Place {
    /// Path of a name in this folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Folder of the program's cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.cache.path().join("splade/vectors")
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Reads a text file.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Copies a folder or file to `name` in this one.
    pub(crate) fn copy(&self, from: &Path, name: &str) {
        copy(from, &self.path(name));
    }

    /// Names in this folder, with hidden ones, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.work.path())
    }

    /// Command that runs the program in this folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_splade"));
        command.args(args).current_dir(self.work.path()).env("ORT_DYLIB_PATH", onnx_runtime());
        // help has a fixed width, and messages have no backtrace even if it is switched on
        command.env_remove("COLUMNS").env("RUST_BACKTRACE", "1");
        // no request to the Hub, and an empty cache
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.work.path().join("huggingface"));
        command.env("XDG_CACHE_HOME", self.cache.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs the program with `input` on stdin.
    pub(crate) fn feed(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        finish(child)
    }

    /// Runs the program, which must succeed, and returns stdout.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).done()
    }

    /// Runs the program and reads each line of stdout as JSON.
    pub(crate) fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        self.ok(args).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Runs the program and reads stdout as one JSON document.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

impl Ran {
    /// Returns stdout. The run must have succeeded.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Checks a failure: exit code, nothing on stdout, no panic, and as the last lines of stderr an `error:` line with
    /// `error` in it and a `hint:` line with `hint` in it. There is no `hint:` line if `hint` is empty.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, error: &str, hint: &str) {
        let shown = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{shown}");
        assert_eq!(self.stdout, "", "{shown}");
        for word in ["panicked", "backtrace", "RUST_BACKTRACE", "   0: ", "os error"] {
            assert!(!self.stderr.contains(word), "{shown}");
        }
        let lines: Vec<&str> = self.stderr.lines().collect();
        let start = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
        assert_eq!(start("error: "), 1, "one error line: {shown}");
        assert_eq!(start("hint: "), usize::from(!hint.is_empty()), "hint: {shown}");
        let last = lines.len() - usize::from(!hint.is_empty());
        assert!(lines[last - 1].starts_with("error: ") && lines[last - 1].contains(error), "{error}: {shown}");
        assert!(lines[last - 1].len() < 300, "a long line: {shown}");
        assert!(hint.is_empty() || lines[last].contains(hint), "{hint}: {shown}");
    }
}

/// Returns a command of a [`Place`] as one that cannot make a file larger than `blocks` of 512 bytes.
pub(crate) fn with_file_limit(program: &Command, blocks: usize) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    command.arg(program.get_program()).args(program.get_args()).current_dir(program.get_current_dir().unwrap());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the end of a run.
pub(crate) fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits until a condition holds; fails after half a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("half a minute passed before {what}");
}

/// Names in a folder, with hidden ones, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Copies a file, or a folder with its contents. The copy can be written even if the original cannot.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for name in names(from) {
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
    }
}

/// Rounds numbers to three decimals, so that a snapshot is equal on every processor, and removes speeds.
pub(crate) fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            serde_json::json!((number.as_f64().unwrap() * 1000.0).round() / 1000.0)
        }
        Value::Array(values) => values.iter().map(rounded).collect(),
        Value::Object(entries) => {
            let kept = entries.iter().filter(|(key, _)| !key.contains("per_second"));
            Value::Object(kept.map(|(key, value)| (key.clone(), rounded(value))).collect())
        }
        other => other.clone(),
    }
}
