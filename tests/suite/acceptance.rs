//! `scripts/acceptance.py`, which users run against their own clusters, passes with the stand-in and removes what it created.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use standin::{Credential, Options, StandIn};

use crate::processes::signal;
use crate::program::clean;
use crate::real_model;

fn acceptance(standin: &StandIn, report: &Path) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = clean(Command::new("python3"));
    command
        .arg(root.join("scripts/acceptance.py"))
        .args(["--program", env!("CARGO_BIN_EXE_rust-eland")]);
    command.arg("--report").arg(report).arg("--model").arg(real_model::folder());
    command.env("ES_URL", standin.url()).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs every check. `skipped` is the number of checks that the version does not support.
fn passes(options: Options, variables: &[(&str, &str)], skipped: usize) {
    let version = options.version.to_string();
    let standin = StandIn::start(options);
    let before = standin.model_ids();
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = acceptance(&standin, &report).envs(variables.iter().copied()).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    assert!(table.contains(&format!("Elasticsearch {version}, licence platinum: ")), "{table}");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report["version"], version);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["skipped"], skipped, "{table}");
    assert!(report["passed"].as_u64().unwrap() > 15, "{table}");
    assert_eq!(standin.model_ids(), before);
    for (_, secret) in variables {
        assert!(!report.to_string().contains(secret) && !table.contains(secret), "{table}");
    }
}

fn version(number: &str) -> Options {
    Options { version: number.parse().unwrap(), ..Options::default() }
}

#[test]
fn acceptance_passes_on_elasticsearch_8_7() {
    passes(version("8.7.0"), &[], 2);
}

#[test]
fn acceptance_passes_on_elasticsearch_8_19_with_security() {
    let credentials = vec![Credential::api_key("aWQ6c2VjcmV0LWtleQ==")];
    let options = Options { credentials, ..version("8.19.20") };
    passes(options, &[("ES_API_KEY", "aWQ6c2VjcmV0LWtleQ==")], 0);
}

#[test]
fn acceptance_passes_on_elasticsearch_9_5() {
    passes(version("9.5.0"), &[], 0);
}

#[test]
fn acceptance_deletes_its_models_after_a_failure_and_an_interruption() {
    let node_failures = vec![(0, "the native process ended".to_owned())];
    let standin = StandIn::start(Options { node_failures, ..Options::default() });
    let before = standin.model_ids();
    let folder = tempfile::tempdir().unwrap();
    let mut child = acceptance(&standin, &folder.path().join("report.json")).spawn().unwrap();
    let mut table = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("failed ") {
        assert!(table.read_line(&mut text).unwrap() > 0, "nothing failed: {text}");
    }
    assert!(standin.model_ids().len() > before.len(), "{text}");
    signal(&child, "-INT");
    table.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(standin.model_ids(), before, "{text}");
    let report: Value =
        serde_json::from_slice(&fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_ne!(report["failed"], 0);
}
