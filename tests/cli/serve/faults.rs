//! Clients that are slow, broken or many, and a server that is stopped, killed or changed while they search.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::util::server::read_reply;

/// Searches on several threads until `work` ends. Returns the number of answers; each is checked by `check`.
fn under_load(server: &Server, body: &Value, check: impl Fn(u16, &Value) + Sync, work: impl FnOnce()) -> usize {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let reply = server.post("/v1/search", body);
                    check(reply.status, &reply.json());
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        work();
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::SeqCst);
    });
    count.into_inner()
}

#[test]
fn broken_requests_get_problems() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--max-body", "10KB"]));
    for (body, status, detail) in [
        (&b"{\"query\": \"a\""[..], 400, "EOF"),
        (b"", 400, "EOF"),
        (b"{\"query\": \"\xff\xfe\"}", 400, "unicode"),
        (b"{\"query\": \"\\ud800\"}", 400, "hex escape"),
        (b"{\"query\": \"a\", \"k\": NaN}", 400, "expected"),
        (b"{\"query\": \"a\"} {}", 400, "trailing"),
        (b"\x00", 400, "expected value"),
        (b"{\"query\": \"a\", \"query\": \"b\"}", 422, "duplicate field"),
        (b"{\"vector\": {\"indices\": [1], \"values\": [1e999]}}", 400, "out of range"),
        (b"{\"vector\": {\"indices\": [1], \"values\": [1e39]}}", 400, "out of range"),
    ] {
        let reply = server.post_text("/v1/search", body);
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.json()["detail"].as_str().unwrap().to_lowercase().contains(&detail.to_lowercase()), "{reply:?}");
    }
    let deep = format!("{{\"queries\": {}", "[".repeat(5000));
    assert!([400, 422].contains(&server.post_text("/v1/search", deep).status));
    server.post_text("/v1/search", vec![b' '; 20_000]).fails(413, "", "larger than 10000 bytes");
    // a body without a length
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..8 {
        let _ = stream.write_all(chunk.as_bytes());
    }
    assert_eq!(read_reply(&mut stream).map(|reply| reply.status).unwrap_or(413), 413);
    for head in ["GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n", "GET\r\n\r\n"] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
            "{head:?}: {answer}"
        );
    }
    // a head that is too large
    let long = format!("x-long: {}", "a".repeat(100_000));
    let reply = server.send("GET", "/version", &[&long], b"");
    assert!(reply.is_err() || reply.as_ref().is_ok_and(|reply| reply.status == 431), "{reply:?}");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_limit_of_requests_is_told_with_the_time_to_wait() {
    let place = place_with_index();
    let server =
        Server::start(&place, &with(&INDEXES, &["--max-concurrent", "1", "--model", "model", "--threads", "1"]));
    let texts = vec!["torsken gyter i Lofoten om vinteren ".repeat(60); 100];
    let body = json!({"texts": texts, "role": "document"});
    let refused = std::thread::scope(|scope| {
        let encode = || loop {
            // the only place may be taken by a search
            let reply = server.post("/v1/encode", &body);
            if reply.status != 429 {
                return reply;
            }
        };
        let busy = scope.spawn(encode);
        let mut refused = None;
        while !busy.is_finished() && refused.is_none() {
            let reply = server.post("/v1/search", &json!({"query": "torsk"}));
            refused = (reply.status != 200).then_some(reply);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(busy.join().unwrap().status, 200);
        refused
    });
    let refused = refused.expect("a search was refused");
    refused.fails(429, "", "try again later");
    assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    // health and metrics are not refused, and the place is free again
    server.post("/v1/search", &json!({"query": "torsk"})).ok();
}

#[test]
fn queries_do_not_wait_for_documents() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--model", "model"]));
    let texts = vec!["torsken gyter i Lofoten om vinteren ".repeat(60); 128];
    let body = json!({"texts": texts, "role": "document"});
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..4).map(|_| scope.spawn(|| server.post("/v1/encode", &body))).collect();
        std::thread::sleep(Duration::from_millis(20));
        let mut answered = 0;
        while !jobs.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            server.post("/v1/search", &json!({"query": "torsk"})).ok();
            answered += 1;
        }
        assert!(answered > 4, "{answered} searches while four requests were encoded");
        jobs.into_iter().for_each(|job| assert_eq!(job.join().unwrap().status, 200));
    });
}

#[test]
fn a_request_out_of_time_gets_503() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--timeout", "1", "--model", "model", "--threads", "1"]));
    let texts = vec!["torsken gyter i Lofoten om vinteren ".repeat(100); 128];
    let body = json!({"texts": texts, "role": "document"});
    let replies: Vec<_> = std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..48).map(|_| scope.spawn(|| server.post("/v1/encode", &body))).collect();
        jobs.into_iter().map(|job| job.join().unwrap()).collect()
    });
    let late = replies.iter().find(|reply| reply.status != 200).expect("a request out of time");
    late.fails(503, "", "took too long");
    assert!(late.head.contains("retry-after: 1"));
    assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status)));
}

#[test]
fn a_stop_lets_requests_end() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--model", "model"]));
    let texts = vec!["torsken gyter i Lofoten om vinteren ".repeat(60); 128];
    let body = json!({"texts": texts, "role": "document"});
    let (mut idle, mut half) = (server.connect(), server.connect());
    idle.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", server.address).as_bytes()).unwrap();
    half.write_all(b"GET /healthz HT").unwrap();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| server.post("/v1/encode", &body));
        std::thread::sleep(Duration::from_millis(100));
        server.signal("TERM");
        assert_eq!(job.join().unwrap().ok()["vectors"].as_array().unwrap().len(), 128);
    });
    assert_eq!(server.wait(), Some(0));
    let server = served(&place);
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn half_open_connections_do_not_stop_others() {
    let place = place_with_index();
    let server = served(&place);
    let start = Instant::now();
    let open: Vec<_> = (0..200)
        .map(|at| {
            let mut stream = server.connect();
            let sent: &[u8] = match at % 4 {
                0 => b"",
                1 => b"POST /v1/search HTTP/1.1\r\nhost: 127",
                2 => b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{",
                // an answer that nobody reads
                _ => b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n",
            };
            stream.write_all(sent).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        server.post("/v1/search", &json!({"query": "torsk"})).ok();
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(open);
}

#[test]
#[ignore = "waits for limits of 20 seconds; run with `cargo test --workspace --test cli half_open -- --ignored`"]
fn half_open_connections_are_closed() {
    let place = place_with_index();
    let server = served(&place);
    let mut silent = server.connect();
    let mut head = server.connect();
    head.write_all(b"POST /v1/search HTTP/1.1\r\nhost: 127").unwrap();
    let mut body = server.connect();
    body.write_all(
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{",
    )
    .unwrap();
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let start = Instant::now();
    for (stream, expected) in
        [(&mut silent, ""), (&mut head, ""), (&mut body, "HTTP/1.1 408"), (&mut idle, "HTTP/1.1 200")]
    {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with(expected), "{answer}");
    }
    assert!((15..45).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[test]
fn searches_are_right_while_the_folder_is_replaced() {
    let place = place_with_index();
    let server = served(&place);
    let query = json!({"query": "hvor gyter torsken", "k": 3});
    let before = server.post("/v1/search", &query).ok();
    place
        .ok(&with(&["index", "model", "--input", "corpus.jsonl"], &["--index", "next.index", "--language", "english"]));
    let check = |status: u16, body: &Value| assert!(status == 200 && *body == before, "{status} {body}");
    let count = under_load(&server, &query, check, || {
        for _ in 0..5 {
            std::fs::rename(place.path("toy.index"), place.path("old.index")).unwrap();
            std::fs::rename(place.path("next.index"), place.path("toy.index")).unwrap();
            std::fs::rename(place.path("old.index"), place.path("next.index")).unwrap();
            server.signal("HUP");
            std::thread::sleep(Duration::from_millis(150));
        }
    });
    assert!(count >= 5, "{count}");
    assert!(server.log().contains("opened anew"), "{}", server.log());
}

#[test]
fn written_documents_survive_a_kill_under_load() {
    let place = place_with_index();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..4 {
        let server = Server::start(&place, &with(&INDEXES, &["--writable"]));
        let count = AtomicUsize::new(0);
        let found: Vec<Vec<String>> = std::thread::scope(|scope| {
            let write = |thread: usize| {
                let (server, count) = (&server, &count);
                move || {
                    let mut done = Vec::new();
                    for number in 0.. {
                        let id = format!("r{round}-t{thread}-{number}");
                        let document = json!({"_id": id, "text": id, "vector": {"indices": [5], "values": [1]}});
                        let body = json!({"documents": [document]}).to_string();
                        let head = ["content-type: application/json"];
                        match server.send("POST", "/v1/documents", &head, body.as_bytes()) {
                            Ok(reply) if reply.status == 200 => {
                                done.push(id);
                                count.fetch_add(1, Ordering::SeqCst);
                            }
                            Ok(reply) => assert_eq!(reply.status, 503, "{reply:?}"),
                            Err(_) => break,
                        }
                    }
                    done
                }
            };
            let threads: Vec<_> = (0..3).map(|thread| scope.spawn(write(thread))).collect();
            wait_until("some documents are written", || count.load(Ordering::SeqCst) >= 5);
            // at another moment of a commit in each round
            std::thread::sleep(Duration::from_millis(17 * round));
            server.signal("KILL");
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        acknowledged.extend(found.into_iter().flatten());
    }
    assert!(acknowledged.len() >= 20, "{}", acknowledged.len());
    place.ok(&["index", "model", "--index", "toy.index", "--append", "--delete", {
        place.write("none.txt", "nobody\n");
        "none.txt"
    }]);
    place.ok(&["index", "--check", "toy.index"]);
    let server = Server::start(&place, &with(&INDEXES, &["--max-k", "100000"]));
    let all = ids(&server, &json!({"vector": {"indices": [5], "values": [1]}, "k": 100_000}));
    let all: std::collections::HashSet<&String> = all.iter().collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|id| !all.contains(id)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn searches_are_right_while_documents_are_written() {
    let place = place_with_index();
    let server = Server::start(&place, &with(&INDEXES, &["--writable"]));
    // documents that the query does not find
    let query = json!({"query": "hvor gyter torsken", "k": 3, "filter": "theme:fisk OR theme:by OR theme:natur"});
    let before = server.post("/v1/search", &query).ok();
    let check = |status: u16, body: &Value| assert!(status == 200 && *body == before, "{status} {body}");
    let count = under_load(&server, &query, check, || {
        for number in 0..20 {
            let document = json!({"_id": format!("n{number}"), "text": "x", "theme": "annet", "vector": {"indices": [5], "values": [1]}});
            let delete = if number > 3 { vec![format!("n{}", number - 3)] } else { Vec::new() };
            server.post("/v1/documents", &json!({"documents": [document], "delete": delete})).ok();
        }
    });
    assert!(count >= 5, "{count}");
}
