//! `report_to: mlflow`: a folder as MLflow's clients write it, and a server on this machine.
#![cfg(feature = "train")]

mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use util::{Place, fixture, names, setup};

fn place(tracking_uri: &str) -> Place {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&fixture("training-data/dataset_a.jsonl"), "train.jsonl");
    place.write(
        "train.yaml",
        format!(
            "
model: {{base_model: model, load_pretrained_sparse_encoder: true}}
training: {{output_dir: out, max_steps: 3, logging_steps: 1, per_device_train_batch_size: 4, max_seq_length: 32,
  eval_strategy: \"no\", save_strategy: \"no\", report_to: [mlflow], run_name: first}}
datasets: {{a: {{files: [train.jsonl]}}}}
mlflow: {{tracking_uri: \"{tracking_uri}\", experiment_name: sparse, tags: {{size: small, gpus: 0}}}}
"
        ),
    );
    place
}

/// Runs are in the layout of MLflow's file store: an experiment, runs below it, a line per number.
#[test]
fn a_folder_is_written_as_mlflow_writes_it() {
    let place = place("mlruns");
    place.ok(&["train", "train.yaml"]);
    place.ok(&["train", "train.yaml", "--overwrite"]);
    let yaml = |path: &str| -> Value { serde_yaml::from_str(&place.read(path)).unwrap() };
    let [experiment] = &names(&place.path("mlruns"))[..] else { panic!("one experiment for both runs") };
    assert!(experiment.len() == 18 && experiment.bytes().all(|byte| byte.is_ascii_digit()), "{experiment}");
    let meta = yaml(&format!("mlruns/{experiment}/meta.yaml"));
    assert_eq!((&meta["name"], &meta["lifecycle_stage"]), (&json!("sparse"), &json!("active")));
    assert_eq!(meta["experiment_id"], json!(experiment), "a text, not a number");
    let runs: Vec<String> =
        names(&place.path(&format!("mlruns/{experiment}"))).into_iter().filter(|name| name != "meta.yaml").collect();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let run = format!("mlruns/{experiment}/{run}");
        let meta = yaml(&format!("{run}/meta.yaml"));
        assert_eq!((&meta["status"], &meta["run_name"]), (&json!(3), &json!("first")));
        assert!(meta["end_time"].as_u64() >= meta["start_time"].as_u64());
        assert_eq!(place.read(&format!("{run}/tags/size")), "small");
        assert_eq!(place.read(&format!("{run}/params/training.max_steps")), "3");
        let losses = place.read(&format!("{run}/metrics/loss"));
        let logged = place.read("out/log.jsonl");
        let last: Value = serde_json::from_str(logged.lines().nth(2).unwrap()).unwrap();
        let columns: Vec<Vec<&str>> = losses.lines().map(|line| line.split(' ').collect()).collect();
        assert_eq!(columns.iter().map(|line| line[2]).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(columns[2][1].parse::<f64>().unwrap(), last["loss"].as_f64().unwrap());
        assert!(place.path(&format!("{run}/metrics/train_runtime")).is_file());
    }
}

/// A request as `METHOD path` and its body.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// A server without experiments that answers `fails` with 500.
fn serve(fails: &'static str) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = requests.clone();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, fails, &seen)));
    (address, requests)
}

fn answer(mut stream: TcpStream, fails: &str, requests: &Requests) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let mut length = 0;
    reader.read_line(&mut line).unwrap();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request: Vec<&str> = line.split(' ').collect();
    let call = request[1].trim_start_matches("/api/2.0/mlflow/").to_owned();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    requests.lock().unwrap().push((format!("{} {call}", request[0]), body));
    let (status, answer) = match call.as_str() {
        call if !fails.is_empty() && call.starts_with(fails) => (500, json!({"message": "full"})),
        call if call.starts_with("experiments/get-by-name") => (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST"})),
        "experiments/create" => (200, json!({"experiment_id": "7"})),
        "runs/create" => (200, json!({"run": {"info": {"run_id": "r1"}}})),
        _ => (200, json!({})),
    };
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len());
    let _ = stream.write_all(format!("{head}{answer}").as_bytes());
}

#[test]
fn a_server_gets_parameters_numbers_and_the_end() {
    let (address, requests) = serve("");
    place(&address).ok(&["train", "train.yaml"]);
    let requests = requests.lock().unwrap();
    let calls: Vec<&str> = requests.iter().map(|(call, _)| call.as_str()).collect();
    assert_eq!(
        calls[..4],
        [
            "GET experiments/get-by-name?experiment_name=sparse",
            "POST experiments/create",
            "POST runs/create",
            "POST runs/log-batch"
        ]
    );
    assert_eq!(requests[2].1["experiment_id"], "7");
    assert!(requests[2].1["tags"].as_array().unwrap().contains(&json!({"key": "gpus", "value": "0"})));
    let of_kind =
        |kind: &str| requests.iter().filter_map(|(_, body)| body[kind].as_array()).flatten().collect::<Vec<_>>();
    assert!(of_kind("params").iter().any(|entry| entry["key"] == "training.max_steps" && entry["value"] == "3"));
    let metrics = of_kind("metrics");
    let losses: Vec<u64> =
        metrics.iter().filter(|entry| entry["key"] == "loss").map(|entry| entry["step"].as_u64().unwrap()).collect();
    assert_eq!(losses, [1, 2, 3]);
    let (call, body) = requests.last().unwrap();
    assert_eq!(
        (call.as_str(), &body["status"], &body["run_id"]),
        ("POST runs/update", &json!("FINISHED"), &json!("r1"))
    );
}

/// A training of hours does not end because a server of curves does.
#[test]
fn a_server_that_fails_later_is_told_once() {
    let (address, requests) = serve("runs/log-batch");
    let ran = place(&address).run(&["train", "train.yaml"]);
    assert_eq!(ran.stderr.matches("warning: no more is reported to MLflow").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("MLflow answers 500 to runs/log-batch: full"), "{}", ran.stderr);
    ran.done();
    assert_eq!(requests.lock().unwrap().iter().filter(|(call, _)| call == "POST runs/log-batch").count(), 1);
}

#[test]
fn a_server_that_is_not_there_is_found_before_the_training() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let place = place(&address);
    place.run(&["train", "train.yaml"]).fails(2, "mlflow.tracking_uri: ", "start the server, or name a folder");
    assert!(!place.path("out").exists());
    place.run(&["train", "train.yaml", "--set", "mlflow.tracking_uri=sqlite:///x.db"]).fails(
        2,
        "mlflow.tracking_uri: sqlite:///x.db is neither a server nor a folder",
        "http://",
    );
}
