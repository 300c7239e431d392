//! [`Cluster`]: three OpenSearch nodes on this machine, one that coordinates and two with data, from the jars of
//! `make test-engines`.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use ureq::Agent;

/// Longest start of a node.
const START: Duration = Duration::from_secs(120);

/// Nodes, of which the first has no data. They stop with the test.
pub(crate) struct Cluster {
    jars: PathBuf,
    folder: TempDir,
    /// port of HTTP and port of the transport of each node
    ports: [(u16, u16); 3],
    nodes: [Option<Child>; 3],
    agent: Agent,
}

impl Cluster {
    /// Starts all nodes of the version whose jars are in this folder of `.engines/opensearch/`.
    pub(crate) fn start(version: &str) -> Self {
        let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join(".engines/opensearch").join(version);
        assert!(jars.join("stamp").exists(), "run `make test-engines`, which fetches OpenSearch");
        let free = [(); 6].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [a, b, c, d, e, f] = free.map(|listener| listener.local_addr().unwrap().port());
        let config = Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent = config.timeout_global(Some(Duration::from_secs(60))).build().into();
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { jars, folder, ports: [(a, b), (c, d), (e, f)], nodes: [None, None, None], agent };
        for node in 0..3 {
            cluster.start_node(node);
        }
        cluster.wait_for("/_cluster/health", |health| health["number_of_nodes"] == 3);
        cluster
    }

    /// Address of the node without data.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0].0)
    }

    /// Starts a node, with the data that it had.
    pub(crate) fn start_node(&mut self, node: usize) {
        let (http, transport) = self.ports[node];
        let seeds: Vec<String> = self.ports.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        let settings = [
            ("path.home", self.folder.path().join(node.to_string()).display().to_string()),
            ("node.name", node.to_string()),
            ("node.roles", if node == 0 { "cluster_manager" } else { "cluster_manager,data" }.to_owned()),
            ("transport.type", "netty4".to_owned()),
            ("transport.port", transport.to_string()),
            ("http.type", "netty4".to_owned()),
            ("http.port", http.to_string()),
            ("discovery.seed_hosts", seeds.join(",")),
            ("cluster.initial_cluster_manager_nodes", "0,1,2".to_owned()),
            // a disk of this machine that is nearly full is no matter
            ("cluster.routing.allocation.disk.threshold_enabled", "false".to_owned()),
        ];
        let log = File::create(self.folder.path().join(format!("{node}.log"))).unwrap();
        let mut java = Command::new(self.jars.join("java"));
        java.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-cp"]).arg(self.jars.join("*"));
        java.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/opensearch/OneNode.java"));
        java.args(settings.map(|(name, value)| format!("{name}={value}")));
        java.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes[node] = Some(java.spawn().unwrap());
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a request and returns the status and the answer.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Json>) -> (u16, Json) {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.address()));
        let request = request.header("content-type", "application/json");
        let body = body.map_or(String::new(), Json::to_string);
        let mut answer = match self.agent.run(request.body(body).unwrap()) {
            Ok(answer) => answer,
            Err(error) => return (0, json!(error.to_string())),
        };
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default())
    }

    /// Waits until the answer of a path meets a condition.
    pub(crate) fn wait_for(&self, path: &str, is_met: impl Fn(&Json) -> bool) {
        let start = Instant::now();
        loop {
            let (_, answer) = self.request("GET", path, None);
            if is_met(&answer) {
                return;
            }
            let logs = || (0..3).map(|node| std::fs::read_to_string(self.folder.path().join(format!("{node}.log"))));
            assert!(start.elapsed() < START, "{path}: {answer}\n{:?}", logs().collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
