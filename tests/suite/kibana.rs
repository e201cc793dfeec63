//! `--kibana-url`: Kibana lists a model at once after an import or a delete. A failure of Kibana is a warning.

use std::fs;
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use standin::{Credential, Options, StandIn};

use crate::bundle_fixtures::bundle;
use crate::certificates::Authority;
use crate::fronts::{Canned, Front, http};
use crate::program::{message, program, says};

const SYNC: &str = "/api/ml/saved_objects/sync";

/// A stand-in for Kibana, as strict as the server: it answers the synchronization in a space, with the header kbn-xsrf and the credentials
/// of a user, and refuses every other request with Kibana's errors.
fn kibana(space: &'static str, user: &'static str) -> Canned {
    let authorization = format!("authorization: basic {}", STANDARD.encode(user)).to_lowercase();
    Canned::by_head(move |head| {
        let line = format!("GET {space}{SYNC} HTTP/1.1");
        let refuse = |status: &str, error: &str, message: &str| {
            let code: u16 = status[..3].parse().unwrap();
            let body = json!({"statusCode": code, "error": error, "message": message});
            http(status, "kbn-name: kibana\r\n", &body.to_string())
        };
        if !head.to_lowercase().contains(&authorization) {
            return refuse("401 Unauthorized", "Unauthorized", "unable to authenticate");
        }
        if !head.starts_with(&line) {
            return refuse("404 Not Found", "Not Found", "Not Found");
        }
        if !head.to_lowercase().contains("\r\nkbn-xsrf: ") {
            let message = "Request must contain a kbn-xsrf header.";
            return refuse("400 Bad Request", "Bad Request", message);
        }
        let body = json!({"savedObjectsCreated": {"trained-model": {"m": {"success": true}}},
            "savedObjectsDeleted": {}, "datafeedsAdded": {}, "datafeedsRemoved": {}});
        http("200 OK", "kbn-name: kibana\r\n", &body.to_string())
    })
}

fn cluster() -> StandIn {
    let credentials = vec![Credential::user("me", "right")];
    StandIn::start(Options { credentials, ..Options::default() })
}

fn run(standin: &StandIn, command: &str, more: &[&str]) -> Output {
    let mut program = program();
    program.args([command, "--url", &standin.url(), "-u", "me", "-p", "right"]).args(more);
    program.output().unwrap()
}

fn import(standin: &StandIn, more: &[&str]) -> Output {
    let bundle = bundle("ner").display().to_string();
    let arguments = ["--bundle", &bundle, "--es-model-id", "m"];
    run(standin, "import", &[&arguments[..], more].concat())
}

#[test]
fn kibana_synchronizes_after_an_import_and_a_delete() {
    let (standin, kibana) = (cluster(), kibana("/s/team", "me:right"));
    // The address of a page of Kibana, as copied from a browser.
    let url = format!("{}/s/team/app/ml/trained_models", kibana.url());
    let output = import(&standin, &["--kibana-url", &url, "--output", "json"]);
    assert!(output.status.success(), "{}", message(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["kibana"], json!({"synchronized": true, "problem": null}));
    says(&message(&output), &["Kibana lists the model (Machine Learning, Trained Models)"]);
    assert!(!message(&output).contains("after you synchronize"), "{}", message(&output));
    assert_eq!(kibana.heads().len(), 1);
    let output = run(&standin, "delete", &["m", "--kibana-url", &url]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(kibana.heads().len(), 2);
    // Without the option, the summary says what remains to be done.
    let output = import(&standin, &[]);
    says(&message(&output), &["after you synchronize saved objects"]);
    assert_eq!(kibana.heads().len(), 2);
    // A tree model, and the environment variable.
    let output = program()
        .args(["import", "--url", &standin.url(), "-u", "me", "-p", "right"])
        .args(["--tree-model", "tests/fixtures/trees/lightgbm-3.3.5-binary.txt"])
        .args(["--es-model-id", "t"])
        .env("KIBANA_URL", &url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(kibana.heads().len(), 3);
    // A dry run changes nothing, and a refused import neither.
    import(&standin, &["--kibana-url", &url, "--dry-run"]);
    assert_eq!(import(&standin, &["--kibana-url", &url]).status.code(), Some(7));
    assert_eq!(kibana.heads().len(), 3);
}

#[test]
fn failure_of_kibana_is_a_warning() {
    let refusing = kibana("/s/other", "me:right");
    let html = Canned::with("200 OK", "content-type: text/html\r\n", "<html>log in</html>");
    let elsewhere = Canned::with("302 Found", "location: /login?next=%2F\r\n", "");
    let other = Canned::with("200 OK", "", r#"{"tagline": "You Know, for Search"}"#);
    let failed = r#"{"savedObjectsCreated": {"trained-model": {"m": {"success": false,
        "error": {"message": "\u001b[2J"}}}}, "savedObjectsDeleted": {}}"#;
    let failed = Canned::with("200 OK", "", failed);
    let forbidden = r#"{"statusCode": 403, "error": "Forbidden", "message": "needs ml"}"#;
    let forbidden = Canned::with("403 Forbidden", "", forbidden);
    for (url, reason) in [
        ("http://127.0.0.1:1".to_owned(), "onnection refused"),
        (refusing.url(), "404 Not Found: Not Found"),
        (html.url(), "not JSON: check the address of Kibana"),
        (elsewhere.url(), "redirects to /login"),
        (other.url(), "not that of Kibana"),
        (failed.url(), r"could not change the model m: \x1b[2J"),
        (forbidden.url(), "403 Forbidden: needs ml"),
    ] {
        let standin = cluster();
        let output = import(&standin, &["--kibana-url", &url, "--output", "json"]);
        let text = message(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        says(&text, &["WARNING", "Kibana does not list the change yet", reason]);
        assert!(!text.contains('\u{1b}') && !text.contains("right"), "{text}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["kibana"]["synchronized"], false);
        assert_eq!(standin.model_ids(), ["m"]);
    }
    let standin = cluster();
    let output = import(&standin, &["--kibana-url", "http://you:hidden-word@127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    says(&message(&output), &["Kibana URL", "--kibana-url"]);
    assert!(!message(&output).contains("hidden-word") && standin.requests().is_empty());
}

#[test]
fn kibana_with_tls_is_verified_with_the_authority_of_the_cluster() {
    let (standin, kibana) = (cluster(), kibana("", "me:right"));
    let authority = Authority::new("Cluster CA");
    let address = kibana.url().replace("http://", "");
    let front = Front::tls_to(address, authority.server().config());
    let url = format!("https://127.0.0.1:{}", front.port());
    let output = import(&standin, &["--kibana-url", &url, "--ca-certs", &authority.file]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(kibana.heads().len(), 1);
    let other = Authority::new("Other");
    let trusting = ["m", "--kibana-url", &url, "--ca-certs", &other.file];
    let output = run(&standin, "delete", &trusting);
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["UnknownIssuer"]);
    // The front connects before the handshake, which fails.
    assert_eq!(kibana.heads().iter().filter(|head| !head.is_empty()).count(), 1);
}

#[test]
fn apply_synchronizes_once_and_only_after_a_change() {
    let (standin, kibana) = (cluster(), kibana("", "me:right"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yaml");
    let path = |name: &str| bundle(name).display().to_string();
    let text = format!(
        "defaults:\n  kibana-url: {}\nmodels:\n  - bundle: {}\n    es-model-id: a\n  - bundle: {}\n    es-model-id: b\n",
        kibana.url(),
        path("ner"),
        path("text_embedding")
    );
    fs::write(&file, text).unwrap();
    let apply =
        |more: &[&str]| run(&standin, "apply", &[&[file.to_str().unwrap()][..], more].concat());
    let output = apply(&[]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(kibana.heads().len(), 1);
    let output = apply(&[]);
    says(&String::from_utf8_lossy(&output.stdout), &["unchanged"]);
    assert_eq!(kibana.heads().len(), 1);
    // The command line overrides the file.
    assert!(run(&standin, "delete", &["a"]).status.success());
    let output = apply(&["--kibana-url", "http://127.0.0.1:1"]);
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["Kibana does not list the change yet"]);
}
