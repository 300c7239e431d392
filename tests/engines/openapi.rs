//! Requests to `splade serve` that schemathesis generates from the server's own description: valid ones, broken ones, and values at
//! the limits.

use std::process::Command;

use crate::util::server::Server;
use crate::util::{fixture, ours, setup};

/// Number of generated requests to each operation.
const EXAMPLES: &str = "100";
/// Checks of each answer. A schema says less than the server checks, such as the language of filters: valid requests may get 422.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

#[test]
#[ignore = "needs schemathesis: make test-engines"]
fn every_answer_is_one_that_the_description_allows() {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy/corpus.jsonl"), "corpus.jsonl");
    place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "toy.index", "--language", "norwegian"]);
    let args = ["--index", "toy.index", "--model", "model", "--writable", "--max-batch", "8"];
    let server = Server::start(&place, &args);
    let tested = Command::new(ours("../.engines/openapi/venv/bin/schemathesis"))
        .args(["run", &format!("http://{}/openapi.json", server.address), "--max-examples", EXAMPLES])
        .args(["--generation-deterministic", "--checks", CHECKS])
        .current_dir(place.path(""))
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("`make test-engines` makes .engines/openapi/venv");
    let report = String::from_utf8_lossy(&tested.stdout);
    println!("{report}");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    assert!(!report.contains(" 0 generated"), "nothing was tested");
    let log = server.log().to_lowercase();
    assert!(!log.contains("panic") && !log.contains("error"), "{log}");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    place.ok(&["index", "--check", "toy.index"]);
}
