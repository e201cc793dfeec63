//! Files and models that version 0.1.0 wrote. tests/fixtures/0.1.0 contains them.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::from_hub::{Cache, serving};
use crate::program::{ask, message, program, says};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/0.1.0")).join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

fn run(standin: &StandIn, arguments: &[&str]) -> Output {
    program().args(arguments).args(["--url", &standin.url()]).output().unwrap()
}

/// The standard output of a command that succeeds.
fn printed(standin: &StandIn, arguments: &[&str]) -> String {
    let output = run(standin, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", message(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A cluster with the model `m`, as version 0.1.0 stored it from its own bundle.
fn with_model() -> StandIn {
    let standin = StandIn::start(Options::default());
    let put = |path: &str, body: &Value| {
        let path = format!("/_ml/trained_models/m{path}");
        let (status, answer) = ask(&standin, "PUT", &path, Some(body));
        assert_eq!(status, 200, "{answer}");
    };
    let json = |name: &str| serde_json::from_slice(&bytes(name)).unwrap();
    put("", &json("stored.json"));
    put("/vocabulary", &json("m.vocab.json"));
    let definition = bytes("m.pt");
    let part = json!({
        "definition": STANDARD.encode(&definition),
        "total_definition_length": definition.len(),
        "total_parts": 1,
    });
    put("/definition/0", &part);
    standin
}

/// Number of requests that stored something.
fn changes(standin: &StandIn) -> usize {
    standin.requests().iter().filter(|request| request.method == "PUT").count()
}

#[test]
fn bundle_of_0_1_0_is_imported_with_its_bytes() {
    let standin = StandIn::start(Options::default());
    let bundle = fixture("m.metadata.json").display().to_string();
    assert_eq!(printed(&standin, &["import", "--bundle", &bundle, "--start"]), "m started\n");
    let stored = standin.configuration("m").unwrap();
    let before: Value = serde_json::from_slice(&bytes("stored.json")).unwrap();
    for name in ["definition_sha256", "bundle_sha256"] {
        assert_eq!(stored["metadata"][name], before["metadata"][name], "{name}");
    }
}

#[test]
fn model_of_0_1_0_is_up_to_date() {
    let standin = with_model();
    let before = changes(&standin);
    let bundle = fixture("m.metadata.json").display().to_string();
    for on_conflict in ["skip", "update"] {
        let import = ["import", "--bundle", &bundle, "--on-conflict", on_conflict];
        assert_eq!(printed(&standin, &import), "m unchanged\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yaml").display().to_string();
    fs::write(
        &file,
        format!("defaults: {{on-conflict: update}}\nmodels: [{{bundle: {bundle}}}]\n"),
    )
    .unwrap();
    says(&printed(&standin, &["apply", &file]), &["m      unchanged"]);
    assert_eq!(changes(&standin), before);
    says(&printed(&standin, &["list"]), &["m"]);
    says(&printed(&standin, &["start", "m"]), &["started"]);
    says(&printed(&standin, &["status", "m"]), &["started"]);
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn model_of_0_1_0_is_verified_against_its_source() {
    let standin = with_model();
    printed(&standin, &["start", "m"]);
    let model = Fixture::named("bert/st-mean").model().display().to_string();
    let verify = ["verify", "--es-model-id", "m", "--hub-model-id", &model];
    says(&printed(&standin, &verify), &["64 of 64 texts within 1e-5"]);
}

/// The file is the example of the documentation of version 0.1.0.
#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn file_of_0_1_0_is_applied() {
    let repository = |id: &str, fixture: &str| {
        hub::Repository::of_folder(id, &Fixture::named(fixture).model()).unwrap()
    };
    let hub = serving([
        repository("sentence-transformers/all-MiniLM-L6-v2", "bert/st-mean"),
        repository("dslim/bert-base-NER", "bert/ner"),
    ]);
    let standin = StandIn::start(Options::default());
    let cache = Cache::new();
    let mut apply = cache.program(&hub.url());
    let apply = apply.arg("apply").arg(fixture("models.yaml")).args(["--url", &standin.url()]);
    let output = apply.args(["--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let states: Vec<_> = [0, 1].iter().map(|at| &document["models"][*at]["state"]).collect();
    assert_eq!(states, [&json!("started"), &Value::Null]);
    assert_eq!(document["models"][1]["model_id"], "entities");
}
