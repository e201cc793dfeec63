//! Imports into unsuitable clusters: one clear message, the right exit code, and no remaining model.

use standin::{BuildFlavor, Credential, Faults, License, Options, Privilege, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, program, says};

/// Imports a small model and returns exit code and message.
fn import(url: &str, more: &[&str]) -> (i32, String) {
    let output = program()
        .args(["import", "--url", url, "--task-type", "ner", "--es-model-id", "m", "--start"])
        .args(more)
        .arg("--hub-model-id")
        .arg(Fixture::named("bert/ner").model())
        .output()
        .unwrap();
    (output.status.code().unwrap(), message(&output))
}

#[track_caller]
fn refused(options: Options, more: &[&str], code: i32, parts: &[&str]) -> StandIn {
    let standin = StandIn::start(options);
    let (found, message) = import(&standin.url(), more);
    assert_eq!(found, code, "{message}");
    says(&message, parts);
    standin
}

/// Whether all requests so far only read information.
fn is_untouched(standin: &StandIn) -> bool {
    let question = |path: &str| path == "/_security/user/_has_privileges";
    standin.requests().iter().all(|request| request.method == "GET" || question(&request.path))
}

#[test]
fn unreachable_cluster_is_reported() {
    let (code, message) = import("http://127.0.0.1:1", &[]);
    assert_eq!(code, 5);
    says(&message, &["cannot reach http://127.0.0.1:1", "refused"]);
    let (code, message) = import("http://no-such-host.invalid:9200", &[]);
    assert_eq!(code, 5);
    says(&message, &["cannot reach", "no-such-host.invalid"]);
}

#[test]
fn invalid_address_is_rejected() {
    let (code, message) = import("me:secret@host:9200", &[]);
    assert_eq!(code, 2, "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn server_that_is_not_elasticsearch_is_rejected() {
    let options = Options { product_header: false, ..Options::default() };
    refused(options, &[], 5, &["not Elasticsearch", "X-Elastic-Product"]);
}

#[test]
fn cluster_below_8_7_is_rejected() {
    for version in ["8.6.2", "8.0.0"] {
        let version = version.parse().unwrap();
        let options = Options { version, ..Options::default() };
        let standin =
            refused(options, &[], 5, &["Elasticsearch 8.", "Upgrade the cluster to 8.7.0"]);
        assert!(standin.model_ids().is_empty());
    }
}

#[test]
fn cluster_without_the_tokenizer_is_rejected() {
    let options =
        |version: &str| Options { version: version.parse().unwrap(), ..Options::default() };
    let prefixed = ["--ingest-prefix", "passage: "];
    let standin = refused(options("8.11.4"), &prefixed, 6, &["8.11.4", "needs 8.12.0 or later"]);
    assert!(is_untouched(&standin));
}

#[test]
fn serverless_cluster_is_accepted() {
    let options = Options { build_flavor: BuildFlavor::Serverless, ..Options::default() };
    let standin = StandIn::start(options);
    let (code, message) = import(&standin.url(), &["--ingest-prefix", "x"]);
    assert_eq!(code, 0, "{message}");
}

#[test]
fn missing_wrong_or_insufficient_credentials_are_rejected() {
    let secured = |privilege: Privilege| Options {
        credentials: vec![Credential::user("me", "right").allowed(privilege)],
        ..Options::default()
    };
    refused(secured(Privilege::Manage), &[], 5, &["credentials", "--es-api-key"]);
    let wrong = ["-u", "me", "-p", "wr0ng"];
    let standin =
        refused(secured(Privilege::Manage), &wrong, 5, &["unable to authenticate user [me]"]);
    let (_, message) = import(&standin.url(), &wrong);
    assert!(!message.contains("wr0ng"), "{message}");
    let right = ["-u", "me", "-p", "right"];
    for privilege in [Privilege::None, Privilege::Monitor] {
        let standin = refused(secured(privilege), &right, 5, &["manage_ml"]);
        assert!(standin.model_ids().is_empty());
    }
}

#[test]
fn licence_without_machine_learning_is_rejected() {
    let options = Options { license: License::Basic, ..Options::default() };
    let standin = refused(options, &[], 6, &["it is a basic licence", "platinum"]);
    assert!(standin.model_ids().is_empty());
}

#[test]
fn existing_model_id_is_rejected() {
    let options = Options { existing_models: vec!["m".into()], ..Options::default() };
    let standin = refused(options, &[], 7, &["incomplete model m", "--clear-previous"]);
    assert_eq!(standin.model_ids(), ["m"]);
    assert!(is_untouched(&standin));
    let (code, message) = import(&standin.url(), &["--clear-previous"]);
    assert_eq!(code, 0, "{message}");
    let (code, message) = import(&standin.url(), &["--clear-previous"]);
    assert_eq!(code, 0, "a deployed model is replaced too: {message}");
    let (code, message) = import(&standin.url(), &[]);
    assert_eq!(code, 7);
    says(&message, &["already has a model m", "--clear-previous"]);
}

#[test]
fn free_model_id_is_accepted_by_the_oldest_cluster() {
    // 8.7 does not support definition_status, which reports whether a definition is complete.
    let version = "8.7.0".parse().unwrap();
    let standin = StandIn::start(Options { version, ..Options::default() });
    let (code, message) = import(&standin.url(), &[]);
    assert_eq!(code, 0, "{message}");
    let (code, message) = import(&standin.url(), &[]);
    assert_eq!(code, 7, "{message}");
}

#[test]
fn unreadable_model_keeps_the_existing_one() {
    let standin =
        StandIn::start(Options { existing_models: vec!["m".into()], ..Options::default() });
    let (code, _) = import(&standin.url(), &["--clear-previous", "--max-model-input-length", "99"]);
    assert_eq!(code, 3);
    assert_eq!(standin.model_ids(), ["m"]);
    assert!(is_untouched(&standin));
}

#[test]
fn rejected_part_deletes_the_model() {
    let faults = Faults { rules: vec!["part=413".parse().unwrap()], ..Faults::default() };
    let options = Options { faults, ..Options::default() };
    let parts = ["store a part of the definition (413)", "The incomplete model m was removed"];
    let standin = refused(options, &["--part-size", "2KiB"], 6, &parts);
    assert!(standin.model_ids().is_empty());
}

#[test]
fn failed_start_keeps_the_model() {
    let options = Options { allocated_processors: 0, ..Options::default() };
    let standin = refused(options, &[], 8, &["m is stored, but could not be started"]);
    assert_eq!(standin.model_ids(), ["m"]);
}
