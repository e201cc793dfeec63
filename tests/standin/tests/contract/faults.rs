//! Injected faults (contract, 12 and 13.1), and the calls for privileges and memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use standin::{Credential, Faults, Options, Privilege, StandIn};

use crate::support::{get, put, send};

const MODEL: &str = "/_ml/trained_models/m";

fn standin(rules: &[&str]) -> StandIn {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let faults = Faults { rules, ..Faults::default() };
    StandIn::start(Options { faults, ..Options::default() })
}

fn configuration() -> Value {
    json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}})
}

/// Sends a request and returns the bytes received before the connection is closed.
fn raw(url: &str, method: &str, path: &str, body: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    // The read ends with a reset if the server did not read the whole request.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn faulty_request_is_executed_only_with_store_prefix() {
    for (fault, status, stored) in [
        ("500", 500, false),
        ("store-500", 500, true),
        ("503", 503, false),
        ("store-503", 503, true),
        ("502", 502, false),
        ("store-504", 504, true),
        ("breaker", 429, false),
        ("store-rejected", 429, true),
        ("slow-5ms", 200, true),
    ] {
        let standin = standin(&[&format!("create@1={fault}")]);
        assert_eq!(put(&standin.url(), MODEL, &configuration()).status, status, "{fault}");
        assert_eq!(!standin.model_ids().is_empty(), stored, "{fault}");
        let again = put(&standin.url(), MODEL, &configuration()).status;
        assert_eq!(again, if stored { 400 } else { 200 }, "{fault}");
    }
}

#[test]
fn cut_faults_close_the_connection_at_their_position() {
    let body = configuration().to_string();
    for (fault, stored) in
        [("cut", false), ("store-cut", true), ("cut-body", false), ("cut-answer", true)]
    {
        let standin = standin(&[&format!("create@1={fault}")]);
        let answer = raw(&standin.url(), "PUT", MODEL, &body);
        assert!(!answer.ends_with('}'), "{fault}: {answer}");
        assert_eq!(!standin.model_ids().is_empty(), stored, "{fault}");
        get(&standin.url(), "/").ok();
    }
}

#[test]
fn restart_keeps_address_and_stored_models() {
    let standin = standin(&["create@1=store-restart-1ms"]);
    let url = standin.url();
    let uuid = get(&url, "/").ok()["cluster_uuid"].clone();
    assert_eq!(raw(&url, "PUT", MODEL, &configuration().to_string()), "");
    let address = url.strip_prefix("http://").unwrap();
    while TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    get(&url, MODEL).ok();
    assert_eq!(get(&url, "/").ok()["cluster_uuid"], uuid);
    assert!(standin.requests().iter().any(|request| request.method == "PUT"));
    assert_ne!(get(&StandIn::start(Options::default()).url(), "/").ok()["cluster_uuid"], uuid);
}

#[test]
fn body_above_proxy_limit_returns_a_page() {
    let faults = Faults { body_limit: Some(50), retry_after: Some(7), ..Faults::default() };
    let standin = StandIn::start(Options { faults, ..Options::default() });
    let refused = put(&standin.url(), MODEL, &configuration());
    assert_eq!((refused.status, refused.header("content-type")), (413, Some("text/html")));
    let rules = vec!["any=503".parse().unwrap()];
    standin.set_faults(Faults { rules, retry_after: Some(7), ..Faults::default() });
    let unable = get(&standin.url(), "/");
    assert_eq!(unable.header("retry-after"), Some("7"));
    unable.refused(503, "master_not_discovered_exception", "null");
}

#[test]
fn privileges_and_memory_are_reported() {
    let path = "/_security/user/_has_privileges";
    let body = json!({"cluster": ["manage_ml", "monitor_ml", "manage_pipeline"]}).to_string();
    let reader = Credential::user("reader", "secret").allowed(Privilege::Monitor);
    let standin = StandIn::start(Options { credentials: vec![reader], ..Options::default() });
    let headers =
        [("authorization", "Basic cmVhZGVyOnNlY3JldA=="), ("content-type", "application/json")];
    let answer = send(&standin.url(), "POST", path, &headers, body.as_bytes()).ok();
    assert_eq!(answer["username"], "reader");
    assert_eq!(answer["has_all_requested"], false);
    let expected = json!({"manage_ml": false, "monitor_ml": true, "manage_pipeline": false});
    assert_eq!(answer["cluster"], expected);
    let other = json!({"cluster": ["other"]}).to_string();
    let refused = send(&standin.url(), "POST", path, &headers, other.as_bytes());
    refused.refused(400, "illegal_argument_exception", "unknown cluster privilege [other]");
    let open = StandIn::start(Options { ml_memory: 5 << 20, ..Options::default() });
    assert_eq!(send(&open.url(), "POST", path, &headers[1..], body.as_bytes()).status, 500);
    let memory = get(&open.url(), "/_ml/memory/_stats").ok();
    let nodes = memory["nodes"].as_object().unwrap();
    assert!(nodes.values().all(|node| node["mem"]["ml"]["max_in_bytes"] == 5 << 20));
    assert_eq!(get(&open.url(), "/_ml/info").ok()["limits"]["total_ml_memory"], "5mb");
}
