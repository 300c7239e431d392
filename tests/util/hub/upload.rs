//! The part of the Hub that takes uploads: its calls, and the store of large files at the CDN.

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::{Answer, Files, Hub, Model, Request, State, hash, is_large, plain, refusal};

/// Branch that a new repository has.
const MAIN: &str = "main";

impl Hub {
    /// Adds a user with a token of this role: `write` or `read`.
    pub(crate) fn add_user(&self, name: &str, token: &str, role: &str) {
        let user = (name.to_owned(), role.to_owned());
        self.state.lock().unwrap().users.insert(token.to_owned(), user);
    }

    /// Makes the store ask for large files in parts of this size.
    pub(crate) fn set_part_size(&self, bytes: usize) {
        self.state.lock().unwrap().part_size = Some(bytes);
    }

    /// Files of the latest commit of a branch.
    pub(crate) fn files(&self, name: &str, branch: &str) -> Files {
        let state = self.state.lock().unwrap();
        let model = &state.models[name];
        model.commits[&model.refs[branch]].clone()
    }

    /// Messages of the commits of a model, in order.
    pub(crate) fn messages(&self, name: &str) -> Vec<String> {
        self.state.lock().unwrap().models[name].messages.clone()
    }

    /// True if a model is private.
    pub(crate) fn is_private(&self, name: &str) -> bool {
        self.state.lock().unwrap().models[name].private
    }

    /// JSON bodies of the requests whose line contains `request`, in order.
    pub(crate) fn bodies(&self, request: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let found = state.bodies.iter().filter(|(line, _)| line.contains(request));
        found.map(|(_, body)| serde_json::from_slice(body).unwrap_or_default()).collect()
    }

    /// Text of the bodies of the requests whose line contains `request`.
    pub(crate) fn text(&self, request: &str) -> String {
        let state = self.state.lock().unwrap();
        let found = state.bodies.iter().filter(|(line, _)| line.contains(request));
        found.map(|(_, body)| String::from_utf8_lossy(body)).collect()
    }

    /// Sizes of the bodies that the store received, in order.
    pub(crate) fn stored_sizes(&self) -> Vec<usize> {
        let state = self.state.lock().unwrap();
        state.bodies.iter().filter(|(line, _)| line.starts_with("CDN PUT")).map(|(_, body)| body.len()).collect()
    }
}

/// Git's hash of a file.
fn git_hash(bytes: &[u8]) -> String {
    let digest = Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    /// Answers a call of an upload; none for any other request.
    pub(super) fn upload(&mut self, request: &Request, cdn: &str) -> Option<Answer> {
        let path = request.path.replace("%2F", "/");
        let token = request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let user = token.and_then(|token| self.users.get(token)).map(|(name, role)| (name.clone(), role.clone()));
        if path == "/api/whoami-v2" {
            let Some((name, role)) = user else { return Some(plain(401, "{\"error\": \"Invalid credentials\"}")) };
            let info = json!({"name": name, "orgs": [], "auth": {"accessToken": {"role": role}}});
            return Some(plain(200, &info.to_string()));
        }
        if request.method != "POST" {
            return None;
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        // a signed address, to which huggingface_hub sends no token
        if let Some(oid) = path.strip_prefix("/api/complete/") {
            assert_eq!(token, None);
            return Some(self.complete(oid, &body));
        }
        let Some((user, _)) = user else { return Some(plain(401, "{}")) };
        if path == "/api/repos/create" {
            return Some(self.create(&user, token.unwrap(), &body));
        }
        if let Some(oid) = path.strip_prefix("/api/verify/") {
            assert_eq!((&body["oid"], &body["size"]), (&json!(oid), &json!(self.blobs[oid].len())));
            return Some(plain(200, "{}"));
        }
        if let Some(name) = path.strip_suffix(".git/info/lfs/objects/batch") {
            assert!(self.models.contains_key(&name[1..]), "{name}");
            assert_eq!(request.headers["content-type"], "application/vnd.git-lfs+json");
            let hub = format!("http://{}", request.headers["host"]);
            return Some(self.batch(&body, cdn, &hub));
        }
        let mut parts = path.trim_start_matches("/api/models/").splitn(4, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (name, call, revision) = (format!("{}/{}", part(), part()), part(), part());
        let Some(model) = self.models.get_mut(&name) else { return Some(refusal(404, "RepoNotFound")) };
        Some(match call.as_str() {
            "branch" if model.refs.contains_key(&revision) => plain(409, "{}"),
            "branch" => {
                let head = model.refs[MAIN].clone();
                model.refs.insert(revision, head);
                plain(200, "{}")
            }
            "preupload" => self.preupload(&name, &revision, &body),
            "commit" => self.new_commit(&name, &revision, request),
            other => panic!("{other} of {}", request.path),
        })
    }

    fn create(&mut self, user: &str, token: &str, body: &Value) -> Answer {
        let owner = body["organization"].as_str().unwrap_or(user);
        let name = format!("{owner}/{}", body["name"].as_str().unwrap());
        assert!([json!("model"), Value::Null].contains(&body["type"]), "{body}");
        if self.models.contains_key(&name) {
            return plain(409, "{\"error\": \"You already created this model repo\"}");
        }
        // newer versions of huggingface_hub send the second key alone
        let private = body["private"] == json!(true) || body["visibility"] == "private";
        let first = hash(name.as_bytes())[..40].to_owned();
        let files = Files::from([(".gitattributes".to_owned(), b"*.safetensors filter=lfs\n".to_vec())]);
        let model = Model {
            commits: [(first.clone(), files)].into(),
            refs: [(MAIN.to_owned(), first)].into(),
            token: private.then(|| (token.to_owned(), false)),
            private,
            ..Model::default()
        };
        self.models.insert(name.clone(), model);
        plain(200, &json!({"url": format!("https://huggingface.co/{name}"), "id": name}).to_string())
    }

    fn preupload(&self, name: &str, revision: &str, body: &Value) -> Answer {
        let model = &self.models[name];
        let Some(commit) = model.refs.get(revision) else { return refusal(404, "RevisionNotFound") };
        let files = &model.commits[commit];
        let decided: Vec<Value> = body["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| {
                let path = file["path"].as_str().unwrap();
                assert!(file["size"].is_u64() && file["sample"].is_string(), "{file}");
                let oid = |bytes: &Vec<u8>| if is_large(path) { hash(bytes) } else { git_hash(bytes) };
                let mode = if is_large(path) { "lfs" } else { "regular" };
                let is_ignored = path.ends_with(".ignored");
                json!({"path": path, "uploadMode": mode, "shouldIgnore": is_ignored, "oid": files.get(path).map(oid)})
            })
            .collect();
        plain(200, &json!({"files": decided}).to_string())
    }

    fn batch(&self, body: &Value, cdn: &str, hub: &str) -> Answer {
        assert_eq!((&body["operation"], &body["hash_algo"]), (&json!("upload"), &json!("sha256")));
        let object = |object: &Value| {
            let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap() as usize);
            if self.blobs.contains_key(oid) {
                return json!({"oid": oid, "size": size});
            }
            let (mut href, mut header) = (format!("{cdn}/store/{oid}?signature=x"), json!({}));
            if let Some(part_size) = self.part_size.filter(|part_size| *part_size < size) {
                header["chunk_size"] = json!(part_size.to_string());
                for number in 1..=size.div_ceil(part_size) {
                    header[format!("{number:05}")] = json!(format!("{cdn}/store/{oid}/{number}?signature=x"));
                }
                // the real store gives a name of its own
                href = format!("{hub}/api/complete/{oid}");
            }
            let verify = json!({"href": format!("{hub}/api/verify/{oid}")});
            json!({"oid": oid, "size": size, "actions": {"upload": {"href": href, "header": header}, "verify": verify}})
        };
        let objects: Vec<Value> = body["objects"].as_array().unwrap().iter().map(object).collect();
        plain(200, &json!({"transfer": "basic", "objects": objects}).to_string())
    }

    /// Takes an object or a part of one.
    pub(super) fn store(&mut self, request: &Request) -> Answer {
        assert!(request.path.ends_with("?signature=x") && request.headers.contains_key("content-length"));
        let path = request.path.trim_start_matches("/store/").trim_end_matches("?signature=x");
        let etag = format!("\"{}\"", &hash(&request.body)[..32]);
        if path.contains('/') {
            self.parts.insert(path.to_owned(), request.body.clone());
        } else if hash(&request.body) == path {
            self.blobs.insert(path.to_owned(), request.body.clone());
        } else {
            return plain(400, "BadDigest");
        }
        Answer { status: 200, headers: vec![("ETag", etag)], body: Vec::new() }
    }

    fn complete(&mut self, oid: &str, body: &Value) -> Answer {
        assert_eq!(body["oid"], oid);
        let mut whole = Vec::new();
        for (number, part) in (1..).zip(body["parts"].as_array().unwrap()) {
            let bytes = &self.parts[&format!("{oid}/{number}")];
            assert_eq!(part["partNumber"], json!(number));
            assert_eq!(part["etag"], json!(format!("\"{}\"", &hash(bytes)[..32])));
            whole.extend(bytes);
        }
        assert_eq!(hash(&whole), oid);
        self.blobs.insert(oid.to_owned(), whole);
        plain(200, "{}")
    }

    fn new_commit(&mut self, name: &str, revision: &str, request: &Request) -> Answer {
        assert_eq!(request.headers["content-type"], "application/x-ndjson");
        let text = String::from_utf8(request.body.clone()).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let header = lines.next().unwrap();
        assert_eq!(header["key"], "header");
        let parent = self.models[name].refs[revision].clone();
        if header["value"]["parentCommit"].as_str().is_some_and(|stated| stated != parent) {
            return plain(412, "{\"error\": \"A commit has happened since. Please refresh and try again.\"}");
        }
        let mut files = self.models[name].commits[&parent].clone();
        for line in lines {
            let value = &line["value"];
            let text = |key: &str| value[key].as_str().unwrap();
            let bytes = match line["key"].as_str().unwrap() {
                "file" => {
                    assert_eq!(value["encoding"], "base64");
                    use base64::Engine;
                    base64::engine::general_purpose::STANDARD.decode(text("content")).unwrap()
                }
                "lfsFile" => match self.blobs.get(text("oid")) {
                    Some(bytes) => bytes.clone(),
                    None => return plain(400, "{\"error\": \"LFS pointer pointed to a file that does not exist\"}"),
                },
                other => panic!("{other}"),
            };
            files.insert(text("path").to_owned(), bytes);
        }
        let commit = hash(format!("{parent}{text}").as_bytes())[..40].to_owned();
        let model = self.models.get_mut(name).unwrap();
        model.refs.insert(revision.to_owned(), commit.clone());
        model.commits.insert(commit.clone(), files);
        model.messages.push(header["value"]["summary"].as_str().unwrap().to_owned());
        let url = format!("https://huggingface.co/{name}/commit/{commit}");
        plain(200, &json!({"success": true, "commitOid": commit, "commitUrl": url}).to_string())
    }

    /// Adds a commit of another user to `main` of the model that a request is about.
    pub(super) fn race(&mut self, request: &Request) {
        let mut parts = request.path.trim_start_matches("/api/models/").split('/');
        let name = format!("{}/{}", parts.next().unwrap(), parts.next().unwrap());
        let model = self.models.get_mut(&name).unwrap();
        let mut files = model.commits[&model.refs[MAIN]].clone();
        files.insert(format!("other-{}.txt", model.commits.len()), b"by another".to_vec());
        let commit = hash(format!("{}", model.commits.len()).as_bytes())[..40].to_owned();
        model.refs.insert(MAIN.to_owned(), commit.clone());
        model.commits.insert(commit, files);
    }
}
