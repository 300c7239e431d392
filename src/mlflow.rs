//! [`Mlflow`]: the numbers of a training for MLflow, on its server over HTTP or in a folder, as MLflow's clients write it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use splade_files::{AtomicFile, Error};

use crate::environment;
use crate::failure::bad_input;
use crate::http::{HttpClient, Method, escaped, is_web_address};

/// The folder of MLflow's clients where none is named.
const FOLDER: &str = "mlruns";
/// The experiment of MLflow where none is named.
const EXPERIMENT: &str = "Default";
/// Time without an answer after which a request fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Parameters and metrics of one request, at most: the server's limits are 100 and 1000.
const BATCH: usize = 100;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// End of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Finished,
    Failed,
    Killed,
}

impl Status {
    /// The name on a server, and the number in a folder.
    fn names(self) -> (&'static str, u8) {
        match self {
            Self::Finished => ("FINISHED", 3),
            Self::Failed => ("FAILED", 4),
            Self::Killed => ("KILLED", 5),
        }
    }
}

/// An experiment, and the run of it once it has begun.
#[derive(Debug)]
pub(crate) struct Mlflow {
    place: Destination,
    experiment: String,
    run: Option<RunInfo>,
}

#[derive(Debug)]
struct RunInfo {
    id: String,
    name: String,
    start: u64,
}

#[derive(Debug)]
enum Destination {
    Server { http: HttpClient, address: String, authorization: Option<String> },
    Folder(PathBuf),
}

impl Mlflow {
    /// Finds the experiment, or makes it. Without an address it is `MLFLOW_TRACKING_URI`, else the folder `mlruns`.
    ///
    /// # Errors
    /// An address that is neither a server nor a folder, a server that does not answer, a folder that cannot be written.
    pub(crate) fn open(uri: Option<&str>, experiment: Option<&str>) -> Result<Self> {
        let uri = uri.map(str::to_owned).or_else(|| environment::text("MLFLOW_TRACKING_URI"));
        let uri = uri.unwrap_or_else(|| FOLDER.to_owned());
        let name = experiment.unwrap_or(EXPERIMENT);
        let place = Destination::of(&uri).context("mlflow.tracking_uri")?;
        let experiment = match &place {
            Destination::Server { .. } => server_experiment(&place, name),
            Destination::Folder(folder) => folder_experiment(folder, name),
        };
        Ok(Self { experiment: experiment.context("mlflow.tracking_uri")?, place, run: None })
    }

    /// Begins a run with these tags and parameters.
    ///
    /// # Errors
    /// A server that does not answer, a folder that cannot be written.
    pub(crate) fn begin(
        &mut self,
        name: &str,
        tags: &[(String, String)],
        parameters: &[(String, String)],
    ) -> Result<()> {
        let start = milliseconds();
        let id = match &self.place {
            Destination::Server { .. } => {
                let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
                let body = json!({
                    "experiment_id": self.experiment, "run_name": name, "start_time": start, "tags": tags,
                });
                let answer = self.place.post("runs/create", &body)?;
                text_at(&answer, "/run/info/run_id")?
            }
            Destination::Folder(folder) => {
                let id = new_id(start);
                let run = folder.join(&self.experiment).join(&id);
                for part in ["metrics", "params", "tags", "artifacts"] {
                    make_folder(&run.join(part))?;
                }
                for (key, value) in tags.iter().chain([&("mlflow.runName".to_owned(), name.to_owned())]) {
                    AtomicFile::write_whole(&run.join("tags").join(file_key(key)), value.as_bytes())?;
                }
                id
            }
        };
        self.run = Some(RunInfo { id, name: name.to_owned(), start });
        if let Destination::Folder(_) = &self.place {
            self.write_meta(None)?;
        }
        self.log_parameters(parameters)
    }

    fn log_parameters(&self, parameters: &[(String, String)]) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        match &self.place {
            Destination::Server { .. } => {
                for batch in parameters.chunks(BATCH) {
                    let values: Vec<Value> = batch
                        .iter()
                        .map(|(key, value)| {
                            // servers before version 2.8 accept 500 characters
                            let value: String = value.chars().take(500).collect();
                            json!({"key": metric_key(key), "value": value})
                        })
                        .collect();
                    self.place.post("runs/log-batch", &json!({"run_id": run.id, "params": values}))?;
                }
                Ok(())
            }
            Destination::Folder(folder) => {
                let parts = folder.join(&self.experiment).join(&run.id).join("params");
                parameters.iter().try_for_each(|(key, value)| {
                    Ok(AtomicFile::write_whole(&parts.join(file_key(key)), value.as_bytes())?)
                })
            }
        }
    }

    /// Logs numbers at a step.
    ///
    /// # Errors
    /// A server that does not answer, a folder that cannot be written.
    pub(crate) fn log(&self, step: usize, metrics: &[(String, f64)]) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let now = milliseconds();
        // MLflow has no name for NaN over HTTP
        let finite = metrics.iter().filter(|(_, value)| value.is_finite());
        match &self.place {
            Destination::Server { .. } => {
                let values: Vec<Value> = finite
                    .map(|(key, value)| json!({"key": metric_key(key), "value": value, "timestamp": now, "step": step}))
                    .collect();
                for batch in values.chunks(BATCH) {
                    self.place.post("runs/log-batch", &json!({"run_id": run.id, "metrics": batch}))?;
                }
                Ok(())
            }
            Destination::Folder(folder) => {
                let parts = folder.join(&self.experiment).join(&run.id).join("metrics");
                finite.into_iter().try_for_each(|(key, value)| {
                    append(&parts.join(file_key(&metric_key(key))), &format!("{now} {value} {step}\n"))
                })
            }
        }
    }

    /// Ends the run.
    ///
    /// # Errors
    /// A server that does not answer, a folder that cannot be written.
    pub(crate) fn end(&self, status: Status) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        match &self.place {
            Destination::Server { .. } => {
                let (name, _) = status.names();
                let body = json!({"run_id": run.id, "status": name, "end_time": milliseconds()});
                self.place.post("runs/update", &body).map(drop)
            }
            Destination::Folder(_) => self.write_meta(Some(status)),
        }
    }

    /// Writes `meta.yaml` of the run in a folder.
    fn write_meta(&self, status: Option<Status>) -> Result<()> {
        let (Destination::Folder(folder), Some(run)) = (&self.place, &self.run) else { return Ok(()) };
        let path = folder.join(&self.experiment).join(&run.id);
        let running = 1;
        let meta = json!({
            "artifact_uri": file_uri(&path.join("artifacts")),
            "end_time": status.map(|_| milliseconds()),
            "entry_point_name": "",
            "experiment_id": self.experiment,
            "lifecycle_stage": "active",
            "run_id": run.id,
            "run_name": run.name,
            "run_uuid": run.id,
            "source_name": "splade",
            "source_type": 4,
            "source_version": "",
            "start_time": run.start,
            "status": status.map_or(running, |status| status.names().1),
            "tags": [],
            "user_id": "",
        });
        Ok(AtomicFile::write_whole(&path.join("meta.yaml"), serde_yaml::to_string(&meta)?.as_bytes())?)
    }
}

impl Destination {
    fn of(uri: &str) -> Result<Self> {
        if is_web_address(uri) {
            let authorization =
                environment::text("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {}", token.trim()));
            let address = uri.trim_end_matches('/').to_owned();
            return Ok(Self::Server { http: HttpClient::new(PATIENCE)?, address, authorization });
        }
        let path = uri.strip_prefix("file://").or_else(|| uri.strip_prefix("file:")).unwrap_or(uri);
        if path.contains("://") {
            return Err(bad_input(
                format!("{uri} is neither a server nor a folder"),
                "give http://… or the path of a folder",
            ));
        }
        Ok(Self::Folder(path.into()))
    }

    fn headers(authorization: &Option<String>) -> Vec<(&str, &str)> {
        authorization.iter().map(|value| ("authorization", value.as_str())).collect()
    }

    /// Sends a request to a server and returns its answer.
    fn post(&self, call: &str, body: &Value) -> Result<Value> {
        let Self::Server { http, address, authorization } = self else { return Ok(Value::Null) };
        let url = format!("{address}/api/2.0/mlflow/{call}");
        let response = http.post(&url, &Self::headers(authorization), body);
        read_answer(address, call, response).map(|(_, answer)| answer)
    }
}

/// Status and body of an answer; an error for a status that is no success, except 404.
fn read_answer(
    address: &str,
    call: &str,
    response: Result<ureq::http::Response<ureq::Body>, crate::http::NetworkError>,
) -> Result<(u16, Value)> {
    let hint = "is it the address of an MLflow server?";
    let response = response.map_err(|why| {
        bad_input(format!("{address}: MLflow cannot be reached: {why}"), "start the server, or name a folder")
    })?;
    let status = response.status().as_u16();
    let body = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec().unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if (200..300).contains(&status) && answer.is_object() || status == 404 && call == "experiments/get-by-name" {
        return Ok((status, answer));
    }
    let why = answer.get("message").and_then(Value::as_str).map_or_else(String::new, |why| format!(": {why}"));
    Err(bad_input(format!("{address}: MLflow answers {status} to {call}{why}"), hint))
}

fn server_experiment(place: &Destination, name: &str) -> Result<String> {
    let Destination::Server { http, address, authorization } = place else { return Ok(String::new()) };
    let call = "experiments/get-by-name";
    let url = format!("{address}/api/2.0/mlflow/{call}?experiment_name={}", escaped(name, false));
    let (status, found) =
        read_answer(address, call, http.send(Method::Get, &url, &Destination::headers(authorization)))?;
    if status == 404 {
        return text_at(&place.post("experiments/create", &json!({"name": name}))?, "/experiment_id");
    }
    text_at(&found, "/experiment/experiment_id")
}

fn text_at(answer: &Value, pointer: &str) -> Result<String> {
    let text = answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| {
        bad_input(format!("the answer of MLflow has no {pointer}"), "is it the address of an MLflow server?")
    })
}

/// The id of an experiment in a folder: of the `meta.yaml` with its name, or of a new one.
fn folder_experiment(folder: &Path, name: &str) -> Result<String> {
    make_folder(folder)?;
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let Ok(text) = std::fs::read_to_string(path.join("meta.yaml")) else { continue };
        let meta: Value = serde_yaml::from_str(&text).unwrap_or_default();
        let is_active = meta.get("lifecycle_stage").and_then(Value::as_str) != Some("deleted");
        if is_active && meta.get("name").and_then(Value::as_str) == Some(name) {
            return Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
        }
    }
    let now = milliseconds();
    // MLflow's own ids are numbers of 18 digits, and 0 for its default
    let id = if name == EXPERIMENT {
        "0".to_owned()
    } else {
        format!("{:018}", now * 100_000 + u64::from(std::process::id()) % 100_000)
    };
    let path = folder.join(&id);
    make_folder(&path)?;
    let meta = json!({
        "artifact_location": file_uri(&path),
        "creation_time": now,
        "experiment_id": id,
        "last_update_time": now,
        "lifecycle_stage": "active",
        "name": name,
    });
    AtomicFile::write_whole(&path.join("meta.yaml"), serde_yaml::to_string(&meta)?.as_bytes())?;
    Ok(id)
}

fn make_folder(path: &Path) -> Result<()> {
    Ok(std::fs::create_dir_all(path).map_err(Error::io(path))?)
}

fn append(path: &Path, line: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    Ok(file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(Error::io(path))?)
}

fn file_uri(path: &Path) -> String {
    format!("file://{}", std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display())
}

/// A name with the characters that MLflow accepts, as transformers replaces the others: `ndcg_10`.
fn metric_key(key: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-. :/".contains(c);
    key.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect()
}

/// A name as a file below its folder.
fn file_key(key: &str) -> String {
    key.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..").collect::<Vec<_>>().join("/")
}

fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// An id that no other run has: 32 hexadecimal digits.
fn new_id(now: u64) -> String {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let digest = Sha256::digest(format!("{now} {nanoseconds} {}", std::process::id()));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_mlflow_accepts() {
        assert_eq!(metric_key("eval_NanoBEIR_mean_dot_ndcg@10"), "eval_NanoBEIR_mean_dot_ndcg_10");
        for (key, file) in [("a/b", "a/b"), ("../../etc", "etc"), ("/a", "a"), ("a/./b", "a/b")] {
            assert_eq!(file_key(key), file);
        }
    }

    #[test]
    fn an_address_is_a_server_or_a_folder() {
        assert!(
            matches!(Destination::of("http://localhost:5000/").unwrap(), Destination::Server { address, .. } if address == "http://localhost:5000")
        );
        for uri in ["mlruns", "file:///data/x", "file:x"] {
            assert!(matches!(Destination::of(uri).unwrap(), Destination::Folder(_)), "{uri}");
        }
        let error = Destination::of("sqlite:///mlflow.db").unwrap_err();
        assert_eq!(error.to_string(), "sqlite:///mlflow.db is neither a server nor a folder");
    }
}
