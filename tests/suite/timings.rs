//! `--timings`: tests check which stages are listed, not how long they take.

use serde_json::Value;
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, message_without_tokenizer_warnings, program, says};

#[test]
fn timings_json_lists_the_stages() {
    let standin = StandIn::start(Options::default());
    let output = program()
        .args(["--quiet", "--timings=json", "import", "--es-model-id", "m", "--start"])
        .args(["--url", &standin.url(), "--hub-model-id"])
        .arg(Fixture::named("bert/st-normalize").model())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    // With --quiet, standard error contains nothing else but warnings, so that programs can parse it.
    let report: Value = serde_json::from_str(&message_without_tokenizer_warnings(&output)).unwrap();
    let stages = report["stages"].as_array().unwrap();
    let mut names = Vec::new();
    for stage in stages {
        assert!(stage["took"].as_f64().unwrap() >= 0.);
        assert!(stage["begun"].as_f64().unwrap() <= report["total"].as_f64().unwrap());
        names.push(stage["name"].as_str().unwrap());
    }
    // Some stages overlap.
    names.sort_unstable();
    let mut expected = [
        "checking the cluster",
        "connecting",
        "comparing the tokenizers",
        "reading the tokenizer",
        "reading the weights",
        "tracing",
        "building the archive",
        "hashing",
        "verifying",
        "measuring memory",
        "creating the model",
        "uploading",
        "confirming the upload",
        "starting",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn timings_table_is_printed_after_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let export = |model: &str| {
        program()
            .args(["export", "--timings", "--hub-model-id"])
            .arg(Fixture::named("bert/base").model())
            .args(["--task-type", model, "--output"])
            .arg(folder.path())
            .output()
            .unwrap()
    };
    let done = export("pass_through");
    says(
        &message(&done),
        &["STAGE", "reading the weights", "tracing", "writing the bundle", "total"],
    );
    assert!(String::from_utf8_lossy(&done.stdout).trim().ends_with(".metadata.json"));
    let failed = export("ner");
    assert!(!failed.status.success());
    says(&message(&failed), &["error: ", "STAGE", "reading the tokenizer", "total"]);
    assert!(!message(&failed).contains("tracing"));
}
