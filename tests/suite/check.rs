//! `rust-eland check`: what a cluster and the credentials can do, line by line.

use std::process::Output;

use serde_json::{Value, json};
use standin::{Credential, Faults, License, Options, Privilege, StandIn};

use crate::certificates::Authority;
use crate::fronts::{Canned, Front, http};
use crate::program::{message, program, says};

fn check(url: &str, more: &[&str]) -> Output {
    program().args(["check", "--url", url]).args(more).output().unwrap()
}

/// The exit code and the lines of the JSON report, by the names of the checks.
fn report(url: &str, more: &[&str]) -> (i32, Value) {
    let output = check(url, &[more, &["--output", "json"]].concat());
    let printed: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", message(&output)));
    let mut lines = json!({});
    for line in printed["checks"].as_array().unwrap() {
        lines[line["check"].as_str().unwrap()] = line.clone();
    }
    (output.status.code().unwrap(), lines)
}

fn state<'a>(lines: &'a Value, name: &str) -> &'a str {
    lines[name]["state"].as_str().unwrap_or_else(|| panic!("no line {name}: {lines:#}"))
}

#[test]
fn usable_cluster_has_no_failure() {
    let credentials = vec![Credential::user("me", "right")];
    let license = License::Trial { days_left: 20 };
    let standin = StandIn::start(Options { credentials, license, ..Options::default() });
    let stored = program()
        .args(["import", "--url", &standin.url(), "-u", "me", "-p", "right", "--start"])
        .args(["--bundle", "tests/fixtures/bundles/ner.metadata.json", "--es-model-id", "m"])
        .output()
        .unwrap();
    assert!(stored.status.success(), "{}", message(&stored));
    let output = check(&standin.url(), &["-u", "me", "-p", "right"]);
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    says(
        &text,
        &[
            "ok       connection",
            "Elasticsearch 9.5.0 with libtorch 2.7.1",
            "trial (active), 20 days left",
            "privilege manage_ml",
            "granted: import, start, stop and delete models",
            "privilege manage_pipeline",
            "16 processors",
            "m (started, 1 of 1 allocations)",
            "largest new model",
            "byte_level_bpe",
            "zero_shot_classification",
            "adaptive allocations",
            "0 failures",
        ],
    );
    let (code, lines) = report(&standin.url(), &["-u", "me", "-p", "right"]);
    assert_eq!(code, 0);
    let node = &lines["node standin"]["details"];
    assert!(node["free_bytes"].as_u64() < node["max_bytes"].as_u64(), "{node}");
    assert_eq!(node["processors"], 16.);
    assert_eq!(lines["licence"]["details"]["days_left"], 20);
    assert_eq!(lines["version"]["details"]["libtorch"], "2.7.1");
    assert_eq!(lines["deployments"]["details"][0]["deployment_id"], "m");
    // The check changes nothing.
    let writes = |method: &str| standin.requests().iter().any(|it| it.method == method);
    assert!(!writes("DELETE") && standin.model_ids() == ["m"]);
}

#[test]
fn old_version_lists_what_later_versions_have() {
    let version = "8.11.0".parse().unwrap();
    let standin = StandIn::start(Options { version, ..Options::default() });
    let (code, lines) = report(&standin.url(), &[]);
    assert_eq!(code, 0);
    let text = |name: &str| lines[name]["summary"].as_str().unwrap();
    says(text("version"), &["8.11.0", "libtorch 1.13.1"]);
    says(text("tokenizers"), &["xlm_roberta;", "deberta_v2 (8.16.0)", "byte_level_bpe (9.5.0)"]);
    says(text("tasks"), &["text_expansion with the tokenizer bert only"]);
    says(text("features"), &["measured memory;", "inference endpoints (8.13.0)"]);
    let kinds = &lines["tokenizers"]["details"]["supported"];
    assert!(kinds.as_array().unwrap().contains(&json!("bert")), "{kinds}");
}

#[test]
fn missing_privilege_and_licence_are_failures_with_their_exit_code() {
    let reader = Credential::user("me", "right").allowed(Privilege::Monitor);
    let standin = StandIn::start(Options { credentials: vec![reader], ..Options::default() });
    let right = ["-u", "me", "-p", "right"];
    let (code, lines) = report(&standin.url(), &right);
    assert_eq!(code, 5);
    assert_eq!(state(&lines, "privilege monitor_ml"), "ok");
    assert_eq!(state(&lines, "privilege manage_ml"), "failure");
    assert_eq!(state(&lines, "privilege manage_inference"), "warning");
    says(lines["privilege manage_ml"]["hint"].as_str().unwrap(), &["machine_learning_admin"]);
    let output = check(&standin.url(), &right);
    says(&message(&output), &["the check of the cluster has 1 failure"]);

    let (code, lines) = report(&standin.url(), &["-u", "me", "-p", "wrong"]);
    assert_eq!(code, 5);
    assert_eq!((state(&lines, "connection"), state(&lines, "credentials")), ("ok", "failure"));

    let standin = StandIn::start(Options { license: License::Basic, ..Options::default() });
    let (code, lines) = report(&standin.url(), &[]);
    assert_eq!((code, state(&lines, "licence")), (6, "failure"));
    says(lines["licence"]["hint"].as_str().unwrap(), &["start_trial"]);
    let ending = License::Trial { days_left: 3 };
    let standin = StandIn::start(Options { license: ending, ..Options::default() });
    let (code, lines) = report(&standin.url(), &[]);
    assert_eq!((code, state(&lines, "licence")), (0, "warning"));

    let server = Canned::by_head(|head| {
        let body = match head.starts_with("GET /_license") {
            true => {
                r#"{"license": {"type": "trial", "status": "expired", "expiry_date_in_millis": 86400000}}"#
            }
            false => r#"{"version": {"number": "9.0.0"}, "tagline": "You Know, for Search"}"#,
        };
        http("200 OK", "x-elastic-product: Elasticsearch\r\n", body)
    });
    let (code, lines) = report(&server.url(), &[]);
    assert_eq!((code, state(&lines, "licence")), (6, "failure"));
    let summary = lines["licence"]["summary"].as_str().unwrap();
    says(summary, &["trial (expired), ended ", " days ago"]);
    assert!(!summary.contains('-'), "{summary}");
}

#[test]
fn failing_elasticsearch_and_failing_proxy_are_named() {
    let header = "x-elastic-product: Elasticsearch\r\n";
    let server = Canned::by_head(move |_| http("500 Internal Server Error", header, ""));
    let (code, lines) = report(&server.url(), &[]);
    assert_eq!((code, state(&lines, "connection")), (5, "failure"));
    let summary = lines["connection"]["summary"].as_str().unwrap();
    says(summary, &["Elasticsearch refused to say what it is (500)"]);
    for url in ["http://es.example:9200", "https://es.example:9200"] {
        let output = program()
            .args(["check", "--url", url])
            .envs([("HTTP_PROXY", "http://127.0.0.1:1"), ("HTTPS_PROXY", "http://127.0.0.1:1")])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", message(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        says(&text, &["through the proxy http://127.0.0.1:1/", "HTTPS_PROXY", "NO_PROXY"]);
    }
}

#[test]
fn cluster_without_machine_learning_nodes_cannot_start_models() {
    let standin = StandIn::start(Options { ml_memory: 0, ..Options::default() });
    let (code, lines) = report(&standin.url(), &[]);
    assert_eq!((code, state(&lines, "nodes")), (8, "failure"));
    let standin = StandIn::start(Options { ml_memory: 100 << 20, ..Options::default() });
    let (code, lines) = report(&standin.url(), &[]);
    assert_eq!((code, state(&lines, "largest new model")), (0, "warning"));
}

#[test]
fn line_that_cannot_be_checked_is_a_warning_and_ends_nothing() {
    let rules = ["privileges=500", "license=503", "memory=cut", "stats=500"];
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let options = Options { faults: Faults { rules, ..Faults::default() }, ..Options::default() };
    let standin =
        StandIn::start(Options { credentials: vec![Credential::user("me", "right")], ..options });
    let (code, lines) = report(&standin.url(), &["-u", "me", "-p", "right"]);
    assert_eq!(code, 0, "{lines:#}");
    for name in ["licence", "privilege manage_ml", "nodes", "deployments"] {
        assert_eq!(state(&lines, name), "warning");
        says(lines[name]["summary"].as_str().unwrap(), &["not checked: "]);
    }
    assert_eq!(state(&lines, "tasks"), "ok");
}

#[test]
fn certificate_is_shown_with_issuer_and_days_left() {
    let credentials = vec![Credential::user("me", "right")];
    let standin = StandIn::start(Options { credentials, ..Options::default() });
    let authority = Authority::new("Cluster CA");
    let days = |days: i64| {
        authority.sign(&["127.0.0.1"], |params| {
            let now = std::time::SystemTime::now();
            params.not_after =
                (now + std::time::Duration::from_secs(days as u64 * 86_400 + 60)).into();
        })
    };
    let front = Front::tls(&standin, days(100).config());
    let url = format!("https://127.0.0.1:{}", front.port());
    let trusting = ["--ca-certs", &authority.file, "-u", "me", "-p"];
    let (code, lines) = report(&url, &[&trusting[..], &["right"]].concat());
    assert_eq!((code, state(&lines, "certificate")), (0, "ok"));
    says(lines["certificate"]["summary"].as_str().unwrap(), &["CN=Cluster CA", "100 days left"]);
    assert_eq!(lines["certificate"]["details"]["days_left"], 100);
    // The certificate is also shown if the server rejects the credentials.
    let (code, lines) = report(&url, &[&trusting[..], &["wrong"]].concat());
    assert_eq!((code, state(&lines, "certificate")), (5, "ok"));
    assert_eq!(state(&lines, "credentials"), "failure");
    let (code, lines) = report(&url, &["--insecure", "-u", "me", "-p", "right"]);
    assert_eq!((code, state(&lines, "certificate")), (0, "warning"));
    let (code, lines) = report(&url, &["--ca-certs", &Authority::new("Other").file]);
    assert_eq!((code, state(&lines, "connection")), (5, "failure"));
    says(lines["connection"]["hint"].as_str().unwrap(), &["--ca-certs"]);

    let soon = Front::tls(&standin, days(10).config());
    let url = format!("https://127.0.0.1:{}", soon.port());
    let (code, lines) = report(&url, &[&trusting[..], &["right"]].concat());
    assert_eq!((code, state(&lines, "certificate")), (0, "warning"));
    says(lines["certificate"]["summary"].as_str().unwrap(), &["10 days left"]);
    let (_, lines) = report(&url, &["--insecure", "-u", "me", "-p", "right"]);
    says(lines["certificate"]["summary"].as_str().unwrap(), &["10 days left", "not verified"]);
    says(lines["certificate"]["hint"].as_str().unwrap(), &["Renew", "--ca-certs"]);
}

#[test]
fn server_text_is_escaped_and_unreachable_cluster_is_a_line() {
    let (code, lines) = report("http://127.0.0.1:1", &[]);
    assert_eq!((code, state(&lines, "connection")), (5, "failure"));
    let old = StandIn::start(Options { version: "8.6.2".parse().unwrap(), ..Options::default() });
    let (code, lines) = report(&old.url(), &[]);
    assert_eq!((code, state(&lines, "version")), (5, "failure"));

    let hostile = r#"{"error": {"type": "security_exception", "reason": "\u001b[2J hidden"}}"#;
    let server = Canned::by_head(move |head| match head.starts_with("GET / ") {
        true => http(
            "200 OK",
            "x-elastic-product: Elasticsearch\r\n",
            r#"{"version": {"number": "9.0.0"}, "tagline": "You Know, for Search"}"#,
        ),
        false => http("403 Forbidden", "", hostile),
    });
    let output = check(&server.url(), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    says(&text, &["not checked", r"\u{1b}[2J hidden", "Grant the cluster privilege monitor to"]);
    assert!(!text.contains('\u{1b}'));
}
