//! [`Loopback`]: an HTTP server on this machine that a test answers for, with faults on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;

/// Fault in the answer of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// this status instead of an answer, and the seconds of `Retry-After`
    Status(u16, Option<u32>),
    /// the connection ends before the request is handled
    CutBefore,
    /// the request is handled, and the connection ends without an answer
    CutAfter,
    /// the answer comes after this time
    Slow(Duration),
}

/// A request.
pub(crate) struct Request {
    pub(crate) method: String,
    /// path and query
    pub(crate) path: String,
    /// values by name in lower case
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} {}: {error}: {}", self.method, self.path, String::from_utf8_lossy(&self.body))
        })
    }
}

/// Status and body of an answer.
pub(crate) type Answer = (u16, Json);

#[derive(Default)]
struct Shared {
    requests: Vec<String>,
    faults: Vec<(String, Fault)>,
    keys: Vec<Option<String>>,
    /// answers until the server falls silent; none if it does not
    until_silence: Option<usize>,
    is_silent: bool,
}

/// The server. It ends with the test.
pub(crate) struct Loopback {
    address: String,
    shared: Arc<Mutex<Shared>>,
}

impl Loopback {
    /// Starts a server that answers with `handle`.
    pub(crate) fn start(handle: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (handle, of_server) = (Arc::new(handle), shared.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handle, shared) = (handle.clone(), of_server.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    // the client may close the connection early
                    let _ = answer(&stream, &request, &shared, handle.as_ref());
                });
            }
        });
        Self { address, shared }
    }

    /// Address of the server.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Adds a fault for the next request whose line contains `request`. Each fault is used once, in order.
    pub(crate) fn fault(&self, request: &str, fault: Fault) {
        self.shared.lock().unwrap().faults.push((request.to_owned(), fault));
    }

    /// Number of faults that no request has met.
    pub(crate) fn faults_left(&self) -> usize {
        self.shared.lock().unwrap().faults.len()
    }

    /// Lets the server handle this number of requests, and answer all but the last. Later ones are neither handled nor answered.
    pub(crate) fn fall_silent_after(&self, handled: usize) {
        self.shared.lock().unwrap().until_silence = Some(handled);
    }

    /// Kills the client once the server has fallen silent, and lets the server answer again. False if the client ended before.
    pub(crate) fn kill_when_silent(&self, mut client: Child) -> bool {
        loop {
            if self.shared.lock().unwrap().is_silent {
                client.kill().unwrap();
                client.wait().unwrap();
                let mut shared = self.shared.lock().unwrap();
                (shared.until_silence, shared.is_silent) = (None, false);
                return true;
            }
            if client.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the requests since the last call, as `METHOD path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }

    /// Values of the headers `api-key` or `authorization` of all requests.
    pub(crate) fn keys(&self) -> Vec<Option<String>> {
        self.shared.lock().unwrap().keys.clone()
    }
}

/// Reads the line and the headers of a request; none if the connection ends before, or is of another protocol.
pub(super) fn read_head(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut lines = reader.lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, path, headers, body: Vec::new() })
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut request = read_head(&mut reader)?;
    let length = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn answer(
    stream: &TcpStream,
    request: &Request,
    shared: &Mutex<Shared>,
    handle: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let line = format!("{} {}", request.method, request.path);
    if gets_no_answer(request, shared, handle) {
        // the client waits for an answer until the test ends it
        let _ = (&mut &*stream).read(&mut [0]);
        return Ok(());
    }
    let fault = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(line.clone());
        let key = request.headers.get("api-key").or(request.headers.get("authorization"));
        shared.keys.push(key.cloned());
        let at = shared.faults.iter().position(|(part, _)| line.contains(part.as_str()));
        at.map(|at| shared.faults.remove(at).1)
    };
    match fault {
        Some(Fault::CutBefore) => Ok(()),
        Some(Fault::CutAfter) => {
            handle(request);
            Ok(())
        }
        Some(Fault::Status(status, retry_after)) => {
            let retry_after = retry_after.map_or(String::new(), |seconds| format!("Retry-After: {seconds}\r\n"));
            send(stream, status, &retry_after, &serde_json::json!({"status": {"error": "not now"}}))
        }
        Some(Fault::Slow(time)) => {
            std::thread::sleep(time);
            let (status, body) = handle(request);
            send(stream, status, "", &body)
        }
        None => {
            let (status, body) = handle(request);
            send(stream, status, "", &body)
        }
    }
}

/// Counts a request towards the silence of the server. True if it gets no answer; the first such request is handled.
fn gets_no_answer(
    request: &Request,
    shared: &Mutex<Shared>,
    handle: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> bool {
    let mut shared = shared.lock().unwrap();
    let Some(left) = &mut shared.until_silence else { return false };
    match *left {
        0 => {}
        1 => {
            *left = 0;
            handle(request);
            shared.is_silent = true;
        }
        _ => {
            *left -= 1;
            return false;
        }
    }
    true
}

fn send(mut stream: &TcpStream, status: u16, headers: &str, body: &Json) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}
