//! [`Hub`]: a Hugging Face Hub and its CDN, as two servers on this machine.

mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::loopback::{Request, read_head};

/// Commit of the models that are added.
pub(crate) const COMMIT: &str = "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3";

/// Files of a commit, by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Fault in the answer of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// the connection ends after this number of bytes
    Cut(usize),
    /// the connection stays open, but sends nothing after this number of bytes
    Stall(usize),
    /// other bytes of the same length
    Garble,
    /// the whole file for a request of a range
    Whole,
    /// this status and body
    Answer(u16, &'static str),
    /// 404 for a file of the list
    Gone,
    /// this ETag
    Etag(&'static str),
    /// the connection ends after this number of bytes of the request's body
    CutBody(usize),
    /// another user commits just before
    Race,
}

#[derive(Default)]
struct Model {
    commits: BTreeMap<String, Files>,
    refs: BTreeMap<String, String>,
    /// token that is required; true if the model is visible without it
    token: Option<(String, bool)>,
    renamed: Option<String>,
    private: bool,
    /// messages of the commits that were uploaded
    messages: Vec<String>,
}

#[derive(Default)]
struct State {
    models: BTreeMap<String, Model>,
    blobs: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    authorizations: [BTreeSet<Option<String>>; 2],
    faults: Vec<(String, Fault)>,
    /// name and role by token
    users: BTreeMap<String, (String, String)>,
    /// lines and bodies of the requests that have one
    bodies: Vec<(String, Vec<u8>)>,
    part_size: Option<usize>,
    /// parts of objects, by `hash/number`
    parts: BTreeMap<String, Vec<u8>>,
}

/// The two servers. They end with the test.
pub(crate) struct Hub {
    address: String,
    state: Arc<Mutex<State>>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// SHA-256 in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files of a folder and the folders below, by path.
pub(crate) fn files_of(folder: &Path) -> Files {
    let mut files = Files::new();
    for name in super::names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            files.extend(files_of(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            files.insert(name, std::fs::read(path).unwrap());
        }
    }
    files
}

impl Hub {
    /// Starts a Hub without models.
    pub(crate) fn start() -> Self {
        let (hub, cdn) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = format!("http://{}", hub.local_addr().unwrap());
        let elsewhere = format!("http://{}", cdn.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        listen(hub, state.clone(), false, move |state, request| state.hub(request, &elsewhere));
        listen(cdn, state.clone(), true, |state, request| state.cdn(request));
        Self { address, state }
    }

    /// Directs a command to this Hub, with the cache in `home`, and without a token or settings of the machine.
    pub(crate) fn direct(&self, command: &mut Command, home: &Path) {
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "http_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.env("HF_ENDPOINT", self.address()).env("HF_HOME", home);
    }

    /// Value of `HF_ENDPOINT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Adds a public model with one commit, for `main` and `v1`.
    pub(crate) fn add(&self, name: &str, files: Files) {
        self.state.lock().unwrap().models.remove(name);
        self.commit(name, COMMIT, files, &["main", "v1"]);
    }

    /// Adds a commit for these branches and tags.
    pub(crate) fn commit(&self, name: &str, commit: &str, files: Files, refs: &[&str]) {
        let mut state = self.state.lock().unwrap();
        let blobs = files.values().map(|bytes| (hash(bytes), bytes.clone()));
        state.blobs.extend(blobs);
        let model = state.models.entry(name.to_owned()).or_default();
        model.refs.extend(refs.iter().map(|name| ((*name).to_owned(), commit.to_owned())));
        model.commits.insert(commit.to_owned(), files);
    }

    /// Makes a model require this token: private, or gated and visible.
    pub(crate) fn require_token(&self, name: &str, token: &str, gated: bool) {
        let mut state = self.state.lock().unwrap();
        state.models.get_mut(name).unwrap().token = Some((token.to_owned(), gated));
    }

    /// Redirects a name to another.
    pub(crate) fn rename(&self, old: &str, new: &str) {
        let model = Model { renamed: Some(new.to_owned()), ..Model::default() };
        self.state.lock().unwrap().models.insert(old.to_owned(), model);
    }

    /// Adds a fault for the next request whose line contains `request`. Each fault is used once, in order.
    pub(crate) fn fault(&self, request: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push((request.to_owned(), fault));
    }

    /// Returns the requests since the last call, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Values of the header `authorization` that the Hub and the CDN received.
    pub(crate) fn authorizations(&self) -> (BTreeSet<Option<String>>, BTreeSet<Option<String>>) {
        let [hub, cdn] = self.state.lock().unwrap().authorizations.clone();
        (hub, cdn)
    }

    /// ETag of a file: its SHA-256 for large files.
    pub(crate) fn etag(name: &str, bytes: &[u8]) -> String {
        if is_large(name) { hash(bytes) } else { hash(bytes)[..40].to_owned() }
    }
}

/// True for files that the Hub stores on the CDN, by their name.
fn is_large(name: &str) -> bool {
    [".parquet", ".safetensors", ".bin", ".onnx", ".onnx_data", ".h5"].iter().any(|end| name.ends_with(end))
}

fn listen(
    listener: TcpListener,
    state: Arc<Mutex<State>>,
    at_cdn: bool,
    answer: impl Fn(&mut State, &Request) -> (Answer, Option<Fault>) + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (state, answer) = (state.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                let Some(mut request) = read_head(&mut reader) else { return };
                let cut = state.lock().unwrap().cut(at_cdn, &request);
                if read_body(&mut reader, &mut request, cut).is_err() || cut.is_some() {
                    return;
                }
                let (answer, fault) = answer(&mut state.lock().unwrap(), &request);
                // the client may close the connection early
                let _ = send(&stream, &request, &answer, fault);
            });
        }
    });
}

/// Reads the body of a request, or the first bytes of it.
fn read_body(reader: &mut BufReader<&TcpStream>, request: &mut Request, cut: Option<usize>) -> std::io::Result<()> {
    let length = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; cut.unwrap_or(length)];
    reader.read_exact(&mut request.body)
}

fn send(mut stream: &TcpStream, request: &Request, answer: &Answer, fault: Option<Fault>) -> std::io::Result<()> {
    let Answer { status, headers, body } = answer;
    write!(stream, "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
    headers.iter().try_for_each(|(name, value)| write!(stream, "{name}: {value}\r\n"))?;
    stream.write_all(b"\r\n")?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::Cut(length)) => stream.write_all(&body[..length]),
        Some(Fault::Stall(length)) => {
            stream.write_all(&body[..length])?;
            // until the client closes the connection
            stream.read(&mut [0]).map(drop)
        }
        Some(Fault::Garble) => stream.write_all(&body.iter().map(|byte| !byte).collect::<Vec<u8>>()),
        _ => stream.write_all(body),
    }
}

/// First line of a request, for tests.
fn line(at_cdn: bool, request: &Request) -> String {
    format!("{}{} {}", if at_cdn { "CDN " } else { "" }, request.method, request.path)
}

impl State {
    /// Number of bytes of a request's body after which the connection ends, if a fault says so.
    fn cut(&mut self, at_cdn: bool, request: &Request) -> Option<usize> {
        let line = line(at_cdn, request);
        let matches = |(part, fault): &(String, Fault)| matches!(fault, Fault::CutBody(_)) && line.contains(part);
        let at = self.faults.iter().position(matches)?;
        self.requests.push(format!("{line} cut"));
        let Fault::CutBody(length) = self.faults.remove(at).1 else { return None };
        Some(length)
    }

    fn note(&mut self, at_cdn: bool, request: &Request) -> Option<Fault> {
        let range = request.headers.get("range").map_or(String::new(), |range| format!(" range {range}"));
        let line = line(at_cdn, request);
        if !request.body.is_empty() {
            self.bodies.push((line.clone(), request.body.clone()));
        }
        self.authorizations[usize::from(at_cdn)].insert(request.headers.get("authorization").cloned());
        let fault = self.faults.iter().position(|(part, _)| line.contains(part.as_str()));
        self.requests.push(if at_cdn { line + &range } else { line });
        fault.map(|at| self.faults.remove(at).1)
    }

    fn hub(&mut self, request: &Request, cdn: &str) -> (Answer, Option<Fault>) {
        let fault = self.note(false, request);
        let answer = match fault {
            Some(Fault::Answer(status, body)) => plain(status, body),
            Some(Fault::Gone) => refusal(404, "EntryNotFound"),
            _ => {
                if matches!(fault, Some(Fault::Race)) {
                    self.race(request);
                }
                let uploaded = self.upload(request, cdn);
                uploaded.unwrap_or_else(|| self.look_up(request, cdn).unwrap_or_else(|answer| answer))
            }
        };
        let mut answer = answer;
        if let Some(Fault::Etag(etag)) = fault {
            answer.headers.retain(|(name, _)| !name.contains("ETag"));
            answer.headers.push(("ETag", format!("\"{etag}\"")));
        }
        (answer, fault)
    }

    fn look_up(&self, request: &Request, cdn: &str) -> Result<Answer, Answer> {
        let path = request.path.replace("%2F", "/");
        let is_api = path.starts_with("/api/");
        let path = path.trim_start_matches("/api/models").trim_start_matches("/api").trim_start_matches('/');
        // data sets are kept under their address, `datasets/owner/name`
        let (folder, path) = match path.strip_prefix("datasets/") {
            Some(path) => ("datasets/", path),
            None => ("", path),
        };
        let mut parts = path.splitn(4, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (name, verb, rest) = (format!("{folder}{}/{}", part(), part()), part(), part());
        let token = request.headers.get("authorization");
        // without a token, the public Hub gives one answer for missing and private models
        let unknown = || refusal(if token.is_some() { 404 } else { 401 }, "RepoNotFound");
        let model = self.models.get(&name).ok_or_else(unknown)?;
        if let Some(new) = &model.renamed {
            let location = request.path.replacen(&name, new, 1);
            return Ok(Answer { status: 307, headers: vec![("Location", location)], body: Vec::new() });
        }
        if let Some((right, gated)) = &model.token {
            let is_right = token.is_some_and(|token| *token == format!("Bearer {right}"));
            match (is_right, gated) {
                (true, _) => {}
                (false, true) if is_api => {}
                (false, true) => return Err(refusal(if token.is_some() { 403 } else { 401 }, "GatedRepo")),
                (false, false) if token.is_some() => return Err(plain(401, "{}")),
                (false, false) => return Err(unknown()),
            }
        }
        assert_eq!(verb, if is_api { "revision" } else { "resolve" }, "{}", request.path);
        assert!(rest.split('/').count() > usize::from(!is_api), "{}", request.path);
        let (revision, file) = if is_api { (rest.as_str(), "") } else { rest.split_once('/').unwrap() };
        let commit = model.refs.get(revision).map_or(revision, String::as_str);
        let files = model.commits.get(commit).ok_or_else(|| refusal(404, "RevisionNotFound"))?;
        if is_api {
            let siblings: Vec<_> = files.keys().map(|file| json!({"rfilename": file})).collect();
            let info = json!({"id": name, "sha": commit, "siblings": siblings, "private": model.private});
            return Ok(plain(200, &info.to_string()));
        }
        let bytes = files.get(file).ok_or_else(|| refusal(404, "EntryNotFound"))?;
        let etag = format!("\"{}\"", Hub::etag(file, bytes));
        let mut headers = vec![("X-Repo-Commit", commit.to_owned())];
        if is_large(file) {
            headers.push(("X-Linked-Etag", etag));
            headers.push(("X-Linked-Size", bytes.len().to_string()));
            headers.push(("Location", format!("{cdn}/blobs/{}?signature=x", hash(bytes))));
            return Ok(Answer { status: 302, headers, body: b"Found".to_vec() });
        }
        headers.push(("ETag", format!("W/{etag}")));
        Ok(Answer { status: 200, headers, body: bytes.clone() })
    }

    fn cdn(&mut self, request: &Request) -> (Answer, Option<Fault>) {
        let fault = self.note(true, request);
        if let Some(Fault::Answer(status, body)) = fault {
            return (plain(status, body), fault);
        }
        if request.method == "PUT" {
            return (self.store(request), fault);
        }
        let hash = request.path.trim_start_matches("/blobs/").split('?').next().unwrap();
        let bytes = &self.blobs[hash];
        let range = request.headers.get("range").filter(|_| !matches!(fault, Some(Fault::Whole)));
        let start =
            range.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
        let answer = match start {
            None => Answer { status: 200, headers: Vec::new(), body: bytes.clone() },
            Some(start) if start >= bytes.len() => plain(416, ""),
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer { status: 206, headers: vec![("Content-Range", range)], body: bytes[start..].to_vec() }
            }
        };
        (answer, fault)
    }
}

fn plain(status: u16, body: &str) -> Answer {
    Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
}

fn refusal(status: u16, code: &str) -> Answer {
    Answer { status, headers: vec![("X-Error-Code", code.to_owned())], body: Vec::new() }
}
