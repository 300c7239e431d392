//! [`Server`]: a running `splade serve`, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::Place;

/// Server that is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// Answer to a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// lines of the head after the first, in lower case
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// Body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Body as JSON of an answer with the status 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Checks a problem: status, pointer and a part of the detail.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, pointer: &str, detail: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["pointer"].as_str().unwrap_or_default(), pointer, "{self:?}");
        assert_eq!(body["status"], status, "{self:?}");
        assert!(body["detail"].as_str().unwrap().contains(detail), "{self:?}");
    }
}

impl Server {
    /// Starts `splade serve` with these arguments on a free port and waits until it listens.
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        let mut child = place.command(&[&["serve", "--port", "0"], args].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            log.lock().unwrap().push_str(&format!("{line}\n"));
            if let Some((_, found)) = line.split_once(" on http://") {
                address = found.split_whitespace().next().map(|address| address.parse().unwrap());
                break;
            }
        }
        let rest = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let shown = log.lock().unwrap().clone();
        Self { child, address: address.unwrap_or_else(|| panic!("no address: {shown}")), log }
    }

    /// Log lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: TERM, HUP, KILL.
    pub(crate) fn signal(&self, name: &str) {
        let kill = std::process::Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for the end and returns the exit code; none after a signal.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a GET.
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"").unwrap()
    }

    /// Sends JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_text(path, body.to_string())
    }

    /// Sends a text as JSON.
    pub(crate) fn post_text(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send("POST", path, &["content-type: application/json"], body.as_ref()).unwrap()
    }

    /// Sends a request on a connection of its own.
    pub(crate) fn send(&self, method: &str, path: &str, head: &[&str], body: &[u8]) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let lines: String = head.iter().map(|line| format!("{line}\r\n")).collect();
        let host = if lines.contains("host:") { String::new() } else { format!("host: {}\r\n", self.address) };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\n{host}{lines}connection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        // a server that refuses a large body may answer before it was read
        let _ = stream.write_all(body);
        read_reply(&mut stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer up to the end of the connection.
pub(crate) fn read_reply(stream: &mut TcpStream) -> std::io::Result<Reply> {
    let mut bytes = Vec::new();
    // a connection may be reset after the answer
    let end = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        end?;
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("no answer: {text:?}")));
    };
    let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {first:?}")))?;
    Ok(Reply { status, head: rest.to_lowercase(), body: body.to_owned() })
}
