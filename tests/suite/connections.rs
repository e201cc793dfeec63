//! Connections to a cluster: addresses, credentials, and messages for failures. No output contains a secret.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rust_eland::elasticsearch::{Client, ClientError, Connection, Credentials};
use rust_eland::error::Error;
use rust_eland::secrets::Secret;
use serde_json::{Value, json};
use standin::{Credential, Options, Privilege, StandIn};

use crate::fixtures::Fixture;
use crate::fronts::{Canned, Front, http};
use crate::program::{VARIABLES, message, program, says};

/// Imports a small model under the id `m`.
fn import(options: &[&str]) -> Command {
    let mut command = program();
    command.args(["import", "--task-type", "ner", "--es-model-id", "m", "--hub-model-id"]);
    command.arg(Fixture::named("bert/ner").model()).args(options).stdin(Stdio::null());
    command
}

fn code_and_message(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), message(output))
}

/// Options and environment variables of a run.
type Settings<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// Exit code and message of an import with options and variables.
fn run(options: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    code_and_message(&import(options).envs(variables.iter().copied()).output().unwrap())
}

/// Asserts that the import reaches the cluster, which already has the model.
#[track_caller]
fn reaches(options: &[&str], variables: &[(&str, &str)]) {
    let (code, message) = run(options, variables);
    assert_eq!(code, 7, "{message}");
}

#[track_caller]
fn refused(options: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) -> String {
    let (found, message) = run(options, variables);
    assert_eq!(found, code, "{message}");
    says(&message, parts);
    message
}

/// Connects with the library. Returns the exit code and the message of the error, or 0 and an empty message for a usable cluster.
fn connect(url: &str) -> (u8, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connected = runtime.block_on(async {
        let client = Client::connect(connection(url)).await?;
        client.check_licence().await
    });
    match connected.map_err(Error::from) {
        Ok(()) => (0, String::new()),
        Err(error) => {
            let hint = error.hint().map(|hint| format!("\n{hint}")).unwrap_or_default();
            (rust_eland::cli::exit_code(&error), format!("{error}{hint}"))
        }
    }
}

fn connection(url: &str) -> Connection {
    let mut connection = Connection::to_url(url).unwrap();
    connection.proxies = false;
    connection
}

/// A cluster that already has the model to import.
fn cluster(credentials: Vec<Credential>) -> StandIn {
    let existing_models = vec!["m".into()];
    StandIn::start(Options { credentials, existing_models, ..Options::default() })
}

/// `id:key` in Base64.
const KEY: &str = "aWQ6a2V5LXRoYXQtb3BlbnM=";
const PASSWORD: &str = "p@ss:wörd/1";

fn secured() -> StandIn {
    cluster(vec![
        Credential::user("me", PASSWORD),
        Credential::api_key(KEY),
        Credential::token("AAEAAWVsYXN0aWMtdG9rZW4"),
    ])
}

#[test]
fn credentials_of_every_kind_are_accepted() {
    let standin = secured();
    let url = standin.url();
    let with_user = url.replace("//", "//me:p%40ss%3Aw%C3%B6rd%2F1@");
    let user_alone = url.replace("//", "//me@");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.to_str().unwrap();
    let token = "AAEAAWVsYXN0aWMtdG9rZW4";
    let here = ["--url", &url];
    let with = |more: &[&'static str]| [&here[..], more].concat();

    reaches(&["--url", &with_user], &[]);
    reaches(&[], &[("ES_URL", &with_user)]);
    reaches(&with(&["-u", "me", "-p", PASSWORD]), &[]);
    reaches(&here, &[("ES_USERNAME", "me"), ("ES_PASSWORD", PASSWORD)]);
    reaches(&["--url", &user_alone], &[("ES_PASSWORD", PASSWORD)]);
    reaches(&["--url", &url, "-u", "me", "--es-password-file", file], &[]);
    reaches(&["--url", &user_alone, "--es-password-file", file], &[]);
    reaches(&with(&["--es-api-key", KEY]), &[]);
    reaches(&with(&["--es-api-key", "id:key-that-opens"]), &[]);
    reaches(&here, &[("ES_API_KEY", KEY)]);
    reaches(&["--url", &url, "--es-token", token], &[]);
    reaches(&here, &[("ES_TOKEN", token)]);
    let header = format!("Authorization: ApiKey {KEY}");
    reaches(&["--url", &url, "--header", &header], &[]);

    let mut command = import(&with(&["-u", "me", "--es-password-file", "-"]));
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    let (code, message) = code_and_message(&child.wait_with_output().unwrap());
    assert_eq!(code, 7, "{message}");
}

#[test]
fn credentials_follow_their_precedence() {
    let standin = secured();
    let url = standin.url();
    let (right, wrong) = (("ES_PASSWORD", PASSWORD), ("ES_PASSWORD", "not-the-password"));
    let here = ["--url", &url];
    let me = ("ES_USERNAME", "me");
    let (key, token) = (("ES_API_KEY", KEY), ("ES_TOKEN", "AAEAAWVsYXN0aWMtdG9rZW4"));
    let (bad_key, bad_token) = (("ES_API_KEY", "bm90OnRoZS1rZXk="), ("ES_TOKEN", "not-the-token"));
    reaches(&here, &[key, bad_token, me, wrong]);
    refused(&here, &[bad_key, token, me, right], 5, &["credentials"]);
    reaches(&here, &[token, me, wrong]);
    refused(&here, &[bad_token, me, right], 5, &["credentials"]);
    // Empty values count as unset.
    reaches(&here, &[("ES_API_KEY", ""), ("ES_TOKEN", ""), me, right]);
    // User and password of the options override those of the address, and a file overrides a variable.
    let with_user = url.replace("//", "//you:not-the-password@");
    reaches(&["--url", &with_user, "-u", "me"], &[right]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    reaches(&["--url", &url, "--es-password-file", file.to_str().unwrap()], &[me, wrong]);
    // An option overrides its variable.
    reaches(&["--url", &url, "--es-api-key", KEY], &[bad_key]);
}

#[test]
fn contradictory_credentials_are_rejected() {
    let standin = secured();
    let url = standin.url();
    let missing =
        &["the password of user me is not set", "no terminal", "--es-password-file", "ES_PASSWORD"];
    refused(&["--url", &url, "-u", "me"], &[], 2, missing);
    refused(&["--url", &url.replace("//", "//me@")], &[], 2, missing);
    refused(
        &["--url", &url],
        &[("ES_PASSWORD", "secret-one")],
        2,
        &["without a user name", "--es-username"],
    );
    let absent = ["--url", &url, "-u", "me", "--es-password-file", "/no/such/file"];
    refused(&absent, &[], 2, &["the password file /no/such/file", "No such file"]);
    refused(&["--url", &url, "--es-api-key", "a\nb"], &[], 2, &["line break"]);
    for header in ["very-secret", "X: very\nsecret", "a b: very-secret", "accept: very-secret"] {
        let message = refused(&["--url", &url, "--header", header], &[], 2, &["--header"]);
        assert!(!message.contains("very"), "{message}");
    }
    let twice = ["--url", &url, "--es-token", "one-token", "--header", "Authorization: Bearer two"];
    refused(&twice, &[], 2, &["Authorization", "set one of them"]);
    refused(&[], &[], 2, &["--url", "--cloud-id"]);
    refused(&["--cloud-id", "nonsense"], &[], 2, &["NAME:BASE64"]);
    assert!(standin.requests().is_empty());
}

#[test]
fn password_is_requested_on_a_terminal_without_echo() {
    let standin = secured();
    let (mut terminal, other_end) = pty_process::blocking::open().unwrap();
    let mut command = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_rust-eland"));
    for name in VARIABLES {
        command = command.env_remove(name);
    }
    let state = tempfile::tempdir().unwrap();
    let command = command.env("RUST_ELAND_STATE_DIR", state.path());
    let model = Fixture::named("bert/ner").model();
    let command = command.args(["import", "--url", &standin.url(), "--task-type", "ner"]);
    let command = command.args(["--es-model-id", "m", "-u", "me", "--hub-model-id"]).arg(model);
    let mut child = command.spawn(other_end).unwrap();
    let shown = |terminal: &pty_process::blocking::Pty| {
        let modes = rustix::termios::tcgetattr(terminal).unwrap().local_modes;
        modes.contains(rustix::termios::LocalModes::ECHO)
    };
    while shown(&terminal) {
        assert!(child.try_wait().unwrap().is_none(), "it did not ask");
        thread::sleep(Duration::from_millis(5));
    }
    terminal.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    let mut output = Vec::new();
    // The read ends with an error when the other end is closed.
    let _ = terminal.read_to_end(&mut output);
    let output = String::from_utf8_lossy(&output);
    assert_eq!(child.wait().unwrap().code(), Some(7), "{output}");
    says(&output, &["Password of me: ", "connected to Elasticsearch"]);
    assert!(!output.contains("p@ss") && !output.contains("wörd"), "{output}");
}

#[test]
fn addresses_are_tried_in_order() {
    let standin = cluster(vec![Credential::user("me", "right-one")]);
    let html = Canned::with("200 OK", "", "<html>hello</html>");
    let nobody = "http://127.0.0.1:1";
    let with_user = standin.url().replace("//", "//me:right-one@");
    let addresses = format!("{nobody},{},{with_user}", html.url());
    let (code, message) = run(&["--url", &addresses], &[]);
    assert_eq!(code, 7, "{message}");
    says(
        &message,
        &["cannot reach http://127.0.0.1:1/", "is not Elasticsearch", "trying the next"],
    );
    let addresses = format!("{nobody}, {}", html.url());
    let all =
        &["none of the 2 addresses", "1. cannot reach http://127.0.0.1:1/", "2. http", "not JSON"];
    refused(&["--url", &addresses], &[], 5, all);
    // Rejected credentials are not sent to the next address.
    let addresses = format!("{},{nobody}", standin.url());
    let message = refused(&["--url", &addresses], &[], 5, &["credentials"]);
    assert!(!message.contains(nobody), "{message}");
    refused(&["--url", "http://a:9200,b:9200"], &[], 2, &["address", "invalid port"]);
}

#[test]
fn unreachable_node_is_replaced_by_the_next() {
    let standin = StandIn::start(Options::default());
    let front = Front::plain("127.0.0.1:0", &standin).unwrap();
    let addresses = format!("http://{},{}", front.address(), standin.url());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(connection(&addresses)).await.unwrap();
        client.check_licence().await.unwrap();
        drop(front);
        assert!(client.check_licence().await.unwrap_err().is_transient());
        client.check_licence().await.unwrap();
    });
}

/// Response of a server to `GET /`, with its product header.
fn info_answer(version: &str, uuid: &str) -> Vec<u8> {
    let mut body: Value = serde_json::from_str(&info(version)).unwrap();
    body["cluster_uuid"] = uuid.into();
    http("200 OK", "x-elastic-product: Elasticsearch\r\n", &body.to_string())
}

/// Connects to a cluster with a password, stops that address, and sends two more requests, which fail over to `other`.
fn fail_over(other: &str) -> ClientError {
    let standin = secured();
    let front = Front::plain("127.0.0.1:0", &standin).unwrap();
    let own = format!("http://{}", front.address());
    let mut connection = connection(&format!("{own},{other}"));
    let (user, password) = ("me".to_owned(), Secret::new(PASSWORD));
    connection.credentials = Some(Credentials::Basic { user, password });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(connection).await.unwrap();
        drop(front);
        let lost = client.check_licence().await.unwrap_err();
        assert!(lost.is_transient() && lost.to_string().contains(&own), "{lost}");
        client.check_licence().await.unwrap_err()
    })
}

#[test]
fn failover_to_another_cluster_is_refused_without_credentials() {
    let stranger = Canned::answering(info_answer("9.5.0", "another-cluster"));
    let error = fail_over(&stranger.url());
    // The other address is excluded, so the error is about the first one.
    assert!(error.is_transient() && !error.to_string().contains(&stranger.url()), "{error}");
    let heads = stranger.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].starts_with("GET / ") && !heads[0].contains("authorization"), "{heads:?}");
}

#[test]
fn failover_to_another_product_is_refused_without_credentials() {
    let stranger = Canned::with("200 OK", "", "{}");
    let error = fail_over(&stranger.url());
    assert!(error.is_transient() && !error.to_string().contains(&stranger.url()), "{error}");
    assert!(stranger.heads().iter().all(|head| !head.contains("authorization")));
}

#[test]
fn failover_to_another_secured_cluster_sends_only_an_info_request() {
    let stranger = Canned::by_head(|head| {
        if head.contains("authorization") {
            info_answer("9.5.0", "another-cluster")
        } else {
            let body = error("security_exception", "missing authentication credentials", 401);
            http("401 Unauthorized", "", &body)
        }
    });
    let error = fail_over(&stranger.url());
    assert!(error.is_transient() && !error.to_string().contains(&stranger.url()), "{error}");
    let heads = stranger.heads();
    assert!(heads.iter().all(|head| head.starts_with("GET / ")), "{heads:?}");
    let authorized: Vec<_> = heads.iter().map(|head| head.contains("authorization")).collect();
    assert_eq!(authorized, [false, true]);
}

#[test]
fn failover_to_a_node_of_another_version_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let start = |version: &str| {
        let (version, data) = (version.parse().unwrap(), Some(data.path().to_owned()));
        StandIn::start(Options { version, data, ..Options::default() })
    };
    // Both nodes have the uuid of one cluster, which is stored with the data.
    let (newer, older) = (start("9.5.0"), start("9.2.0"));
    let front = Front::plain("127.0.0.1:0", &newer).unwrap();
    let addresses = format!("http://{},{}", front.address(), older.url());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(connection(&addresses)).await.unwrap();
        drop(front);
        for _ in 0..3 {
            assert!(client.check_licence().await.unwrap_err().is_transient());
        }
    });
    let paths: Vec<_> = older.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/"]);
}

#[test]
fn ipv6_address_is_reached() {
    let standin = cluster(Vec::new());
    let front = match Front::plain("[::1]:0", &standin) {
        Ok(front) => front,
        Err(error) => {
            // Written to standard error directly, because the test harness hides the output of passing tests.
            let code_and_message =
                format!("NOT TESTED: addresses of IPv6; this machine has no [::1] ({error})\n");
            std::io::stderr().write_all(code_and_message.as_bytes()).unwrap();
            return;
        }
    };
    reaches(&["--url", &format!("http://[::1]:{}", front.port())], &[]);
    reaches(&["--url", &format!("http://me:x@[::1]:{}/", front.port())], &[]);
    let port = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("http://[::1]:{port}");
    refused(&["--url", &nobody], &[], 5, &["cannot reach http://[::1]:", "refused"]);
}

#[test]
fn path_prefix_of_the_address_is_kept() {
    let canned = Canned::with("200 OK", "", "{}");
    let url = canned.url();
    for (address, path) in [("/", "/"), ("/es", "/es/"), ("/a/b/?x=1#y", "/a/b/")] {
        run(&["--url", &format!("{url}{address}")], &[]);
        let head = canned.heads().pop().unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
    }
}

#[test]
fn additional_headers_are_sent_with_every_request() {
    let canned = Canned::with("200 OK", "x-elastic-product: Elasticsearch\r\n", &info("9.2.0"));
    run(&["--url", &canned.url(), "--header", "X-Tenant: blue", "--header", "x-b:c"], &[]);
    let heads = canned.heads();
    assert!(heads.len() > 1, "{heads:?}");
    assert!(
        heads.iter().all(|head| head.contains("x-tenant: blue\r\n") && head.contains("x-b: c\r\n"))
    );
}

fn info(version: &str) -> String {
    json!({"version": {"number": version, "build_flavor": "default"}, "tagline": "You Know, for Search"})
        .to_string()
}

fn error(kind: &str, reason: &str, status: u16) -> String {
    json!({"error": {"root_cause": [], "type": kind, "reason": reason}, "status": status})
        .to_string()
}

#[test]
fn servers_that_cannot_be_used_have_distinct_messages() {
    let elastic = "x-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\n";
    let page = "content-type: text/html\r\n";
    let html = "<html><body>Oops</body></html>";
    let opensearch = json!({"version": {"distribution": "opensearch", "number": "2.11.0"},
        "tagline": "The OpenSearch Project: https://opensearch.org/"})
    .to_string();
    let denied = error(
        "security_exception",
        "action [cluster:monitor/main] is unauthorized for user [me] with effective roles [r], this action is granted by the cluster privileges [monitor,manage,all]",
        403,
    );
    let index = error(
        "security_exception",
        "action [indices:x] is unauthorized for user [me] with effective roles [r] on indices [i], this action is granted by the index privileges [view_index_metadata,all]",
        403,
    );
    let missing = error("index_not_found_exception", "no such index [es]", 404);
    let busy = error("circuit_breaking_exception", "[parent] Data too large", 429);
    let blocked = error(
        "cluster_block_exception",
        "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered]",
        503,
    );
    let cases: [(&str, &str, &str, u8, &[&str]); 22] = [
        ("200 OK", page, html, 5, &["is not Elasticsearch", "not JSON"]),
        ("200 OK", "", &opensearch, 5, &["is not Elasticsearch", "OpenSearch 2.11.0"]),
        ("200 OK", "", "{\"version\": \"1\"}", 5, &["is not Elasticsearch", "X-Elastic-Product"]),
        ("200 OK", elastic, "{}", 5, &["is not Elasticsearch", "not a version"]),
        (
            "200 OK",
            "",
            &info("7.10.2"),
            5,
            &["Elasticsearch 7.10.2", "Upgrade the cluster to 8.7.0"],
        ),
        (
            "200 OK",
            elastic,
            &info("8.6.2"),
            5,
            &["Elasticsearch 8.6.2", "Upgrade the cluster to 8.7.0"],
        ),
        (
            "301 Moved Permanently",
            "location: https://es.example/\r\n",
            html,
            5,
            &["redirects to https://es.example/"],
        ),
        (
            "401 Unauthorized",
            page,
            html,
            5,
            &["credentials", "not an answer of Elasticsearch", "`api_key`"],
        ),
        ("403 Forbidden", elastic, &denied, 5, &["cluster privilege monitor", "user [me]"]),
        ("403 Forbidden", elastic, &index, 5, &["index privilege view_index_metadata"]),
        ("403 Forbidden", page, html, 5, &["is not Elasticsearch", "403"]),
        ("404 Not Found", page, html, 5, &["does not exist on the server", "path of the address"]),
        ("404 Not Found", elastic, &missing, 5, &["no such index [es]", "path of the address"]),
        ("407 Proxy Authentication Required", page, html, 5, &["407", "HTTPS_PROXY or HTTP_PROXY"]),
        ("413 Payload Too Large", page, html, 6, &["413", "`part_size`"]),
        ("429 Too Many Requests", elastic, &busy, 6, &["Data too large", "too busy"]),
        ("429 Too Many Requests", page, html, 6, &["429", "too busy"]),
        ("500 Internal Server Error", page, html, 5, &["is not Elasticsearch", "500"]),
        ("502 Bad Gateway", page, html, 6, &["502", "does not reach the cluster"]),
        ("503 Service Unavailable", elastic, &blocked, 6, &["not recovered", "Check its health"]),
        ("503 Service Unavailable", page, html, 6, &["503", "Check its health"]),
        ("504 Gateway Timeout", page, html, 6, &["504", "does not reach the cluster"]),
    ];
    for (status, headers, body, code, parts) in cases {
        let canned = Canned::with(status, headers, body);
        let (found, message) = connect(&canned.url());
        assert_eq!(found, code, "{status} {body}: {message}");
        says(&message, parts);
        assert!(message.trim_end().lines().count() <= 2, "{message}");
    }
}

#[test]
fn servers_that_do_not_respond_have_distinct_messages() {
    refused(
        &["--url", "http://127.0.0.1:1"],
        &[],
        5,
        &["refused", "Check the address and the port"],
    );
    let unknown = ["--url", "http://no-such-host.invalid:9200"];
    refused(&unknown, &[], 5, &["no-such-host.invalid", "Check the host name"]);
    let cut = Canned::answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"version\"");
    refused(&["--url", &cut.url()], &[], 5, &["cannot reach http"]);
    let noise = Canned::answering("SSH-2.0-OpenSSH_9.2\r\n");
    refused(&["--url", &noise.url()], &[], 5, &["cannot reach http"]);
}

#[test]
fn licence_without_machine_learning_is_rejected() {
    let licence = |status: &'static str, body: String| {
        Canned::by_head(move |head| match head.split(' ').nth(1) {
            Some("/") => http("200 OK", "x-elastic-product: Elasticsearch\r\n", &info("9.2.0")),
            Some("/_license") => http(status, "", &body),
            _ => http("200 OK", "", "{}"),
        })
    };
    let of =
        |kind: &str, status: &str| json!({"license": {"type": kind, "status": status}}).to_string();
    for kind in ["platinum", "enterprise", "trial"] {
        assert_eq!(connect(&licence("200 OK", of(kind, "active")).url()), (0, String::new()));
    }
    for kind in ["basic", "standard", "gold"] {
        let canned = licence("200 OK", of(kind, "active"));
        let (code, message) = connect(&canned.url());
        assert_eq!(code, 6, "{message}");
        says(&message, &[kind, "platinum", "trial"]);
    }
    let expired = licence("200 OK", of("trial", "expired"));
    let (code, message) = connect(&expired.url());
    assert_eq!(code, 6, "{message}");
    says(&message, &["the trial licence is expired"]);
    // If the licence cannot be read, later requests report a missing one.
    let denied = error(
        "security_exception",
        "action [cluster:monitor/xpack/license/get] is unauthorized",
        403,
    );
    assert_eq!(connect(&licence("403 Forbidden", denied).url()), (0, String::new()));
    assert_eq!(connect(&licence("404 Not Found", String::new()).url()), (0, String::new()));
    assert_eq!(connect(&licence("200 OK", "{}".to_owned()).url()), (0, String::new()));
}

#[test]
fn missing_privilege_is_named() {
    let weak = cluster(vec![Credential::user("me", "right-one").allowed(Privilege::None)]);
    let me = [("ES_USERNAME", "me"), ("ES_PASSWORD", "right-one")];
    // The user may read at most. The error names the privilege that an import needs.
    refused(&["--url", &weak.url()], &me, 5, &["cluster privilege manage_ml"]);
    let output = program().args(["list", "--url", &weak.url()]).envs(me).output().unwrap();
    let (code, message) = code_and_message(&output);
    assert_eq!(code, 5, "{message}");
    says(&message, &["cluster privilege monitor_ml"]);
    let credentials = vec![Credential::user("me", "right-one").allowed(Privilege::Monitor)];
    let reader = StandIn::start(Options { credentials, ..Options::default() });
    let parts = &["cluster privilege manage_ml", "role machine_learning_admin"];
    refused(&["--url", &reader.url()], &me, 5, parts);
}

#[test]
fn debug_logs_every_request() {
    let standin = secured();
    let variables = [("ES_API_KEY", KEY)];
    let (_, message) = run(&["--url", &standin.url(), "--debug"], &variables);
    for request in standin.requests() {
        says(&message, &[&format!("> {} {}{}", request.method, standin.url(), request.path)]);
    }
    let parts =
        ["(0 bytes)", "< 200 OK (", " ms)", "authorization: ApiKey …", "accept: application/json"];
    says(&message, &parts);
    says(&message, &["x-elastic-product: Elasticsearch", "< 200 OK"]);
    let (_, message) = run(&["--url", &standin.url()], &variables);
    assert!(!message.contains("authorization"), "{message}");
    // The option also works under eland's name.
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("eland_import_hub_model");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rust-eland"), &link).unwrap();
    let mut command = crate::program::clean(Command::new(link));
    command.args(["--debug", "--url", &standin.url(), "--task-type", "ner", "--es-model-id", "m"]);
    // A secret is removed from this command line, too.
    command.args(["--es-api-key", KEY, "--hub-model-id"]).arg(Fixture::named("bert/ner").model());
    let (code, message) = code_and_message(&command.output().unwrap());
    assert_eq!(code, 7, "{message}");
    says(&message, &["authorization: ApiKey …"]);
}

/// Response of a server that repeats the secrets of the request.
fn echo(head: &str) -> Vec<u8> {
    let authorization =
        head.lines().find(|line| line.starts_with("authorization: ")).unwrap_or_default();
    let reason = format!(
        "no {authorization} {PASSWORD} p%40ss%3Aw%C3%B6rd%2F1 key-that-opens proxy-secret-1 {head}"
    );
    let headers = format!("set-cookie: session=abc\r\nx-echo: {authorization}\r\n");
    http("401 Unauthorized", &headers, &error("security_exception", &reason, 401))
}

#[test]
fn output_contains_no_secret() {
    let server = Canned::by_head(echo);
    let url = server.url();
    let proxy = "proxy-user:proxy-secret-1";
    let proxied = url.replace("//", &format!("//{proxy}@"));
    let with_user = url.replace("//", "//me:p%40ss%3Aw%C3%B6rd%2F1@");
    let basic = base64(&format!("me:{PASSWORD}"));
    let of_password = [PASSWORD, "p%40ss", "wörd", &basic];
    let of_key = [KEY, "key-that-opens"];
    let of_proxy = ["key-that-opens", "proxy-secret-1", &base64(proxy)];
    let token = "AAEAAWVsYXN0aWMtdG9rZW4";
    let runs: [(Settings, &[&str]); 6] = [
        ((&["--url", &with_user], &[]), &of_password),
        ((&["--url", &url, "-u", "me", "-p", PASSWORD], &[]), &of_password),
        ((&["--url", &url], &[("ES_API_KEY", KEY)]), &of_key),
        ((&["--url", &url, "--es-api-key", "id:key-that-opens"], &[]), &of_key),
        ((&["--url", &url, "--es-token", token], &[]), &[token]),
        (
            (
                &["--url", "http://es.invalid"],
                &[("HTTP_PROXY", &proxied), ("ES_TOKEN", "key-that-opens")],
            ),
            &of_proxy,
        ),
    ];
    for ((options, variables), secrets) in runs {
        let header = ["--header", "X-Secret: header-secret-1", "--debug"];
        for level in [None, Some("trace")] {
            let mut command = import(&[options, &header].concat());
            command.envs(variables.iter().copied()).envs(level.map(|level| ("RUST_LOG", level)));
            let (code, message) = code_and_message(&command.output().unwrap());
            assert_eq!(code, 5, "{message}");
            says(&message, &["does not accept the credentials", "…"]);
            for secret in secrets.iter().chain(&["header-secret-1", "session=abc"]) {
                assert!(!message.contains(secret), "{secret} is in: {message}");
            }
        }
    }
    assert!(server.heads().iter().any(|head| head.contains(&base64(proxy))));
    // Failures whose message contains an address.
    let nobody = ["--url", "http://me:p%40ss%3Aw%C3%B6rd%2F1@127.0.0.1:1", "--debug"];
    let message = refused(&nobody, &[("RUST_LOG", "trace")], 5, &["refused"]);
    assert!(!message.contains("p%40ss") && !message.contains("me:"), "{message}");
    let address = format!("http://{proxy}@127.0.0.1:1");
    let variables = [("ALL_PROXY", address.as_str()), ("RUST_LOG", "trace")];
    let parts = &["through the proxy http://127.0.0.1:1/", "refused"];
    let message = refused(&["--url", "https://es.invalid:9200"], &variables, 5, parts);
    assert!(!message.contains("proxy-secret-1") && !message.contains(&base64(proxy)), "{message}");
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Only Linux shows the command lines of other processes in /proc.
#[cfg(target_os = "linux")]
#[test]
fn command_line_contains_no_secret() {
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    slow.set_nonblocking(true).unwrap();
    let address = slow.local_addr().unwrap();
    let url = format!("http://{address}");
    let with_user = format!("http://me:correct-horse@{address}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "correct-horse").unwrap();
    let ways: [Settings; 8] = [
        (&["--url", &url, "-u", "me", "--es-password-file", file.to_str().unwrap()], &[]),
        (&["--url", &url, "-u", "me"], &[("ES_PASSWORD", "correct-horse")]),
        (&["--url", &url], &[("ES_API_KEY", "correct-horse")]),
        (&["--url", &url], &[("ES_TOKEN", "correct-horse")]),
        // Secrets in options are removed from the command line.
        (&["--url", &url, "-u", "me", "-p", "correct-horse"], &[]),
        (&["--url", &with_user], &[]),
        (&["--url", &url, "--es-api-key=correct-horse"], &[]),
        (&["--url", &url, "--es-token", "correct-horse"], &[]),
    ];
    for (options, variables) in ways {
        let mut command = import(options);
        command.envs(variables.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program waits for the response to its first request.
        let connection = loop {
            match slow.accept() {
                Ok((connection, _)) => break connection,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
            if child.try_wait().unwrap().is_some() {
                panic!("{}", message(&child.wait_with_output().unwrap()));
            }
        };
        let process = format!("/proc/{}", child.id());
        let line = fs::read_to_string(format!("{process}/cmdline")).unwrap();
        let children = fs::read_to_string(format!("{process}/task/{}/children", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(connection);
        assert!(line.contains("import") && !line.contains("correct-horse"), "{line}");
        assert_eq!(children.unwrap_or_default(), "", "it starts no other process");
    }
}
