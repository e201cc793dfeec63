//! Ingest pipelines: `pipeline create`, and `import --create-pipeline`.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use standin::{Faults, Options, StandIn};

use crate::bundle_fixtures::bundle;
use crate::program::{ask, message, program, says};

const TREES: &str = "tests/fixtures/trees/lightgbm-3.3.5-binary.txt";

fn run(standin: &StandIn, arguments: &[&str], more: &[&str]) -> Output {
    program().args(arguments).args(["--url", &standin.url()]).args(more).output().unwrap()
}

fn import(standin: &StandIn, task: &str, id: &str, more: &[&str]) -> Output {
    let bundle = bundle(task).display().to_string();
    let arguments = ["import", "--bundle", &bundle, "--es-model-id", id];
    run(standin, &arguments, more)
}

fn create(standin: &StandIn, pipeline: &str, model: &str, more: &[&str]) -> Output {
    run(standin, &["pipeline", "create", pipeline, "--es-model-id", model], more)
}

fn printed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", message(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The stored pipeline, if there is one.
fn stored(standin: &StandIn, id: &str) -> Option<Value> {
    let (status, mut answer) = ask(standin, "GET", &format!("/_ingest/pipeline/{id}"), None);
    (status == 200).then(|| answer[id].take())
}

/// What a stored pipeline makes of a document.
fn processed(standin: &StandIn, id: &str, document: &Value) -> Value {
    let body = json!({"docs": [{"_source": document}]});
    let path = format!("/_ingest/pipeline/{id}/_simulate");
    let (status, mut answer) = ask(standin, "POST", &path, Some(&body));
    assert_eq!(status, 200, "{answer}");
    answer["docs"][0]["doc"]["_source"].take()
}

#[test]
fn import_creates_a_pipeline_that_adds_results_to_documents() {
    for version in ["9.5.0", "8.11.0", "8.10.0"] {
        let version = version.parse().unwrap();
        let standin = StandIn::start(Options { version, ..Options::default() });
        let more = ["--start", "--create-pipeline", "embed", "--output", "json"];
        let output = import(&standin, "text_embedding", "my.model", &more);
        let report = printed(&output);
        let pipeline = &report["pipeline"];
        assert_eq!(pipeline["pipeline_id"], "embed");
        assert_eq!(pipeline["state"], "created");
        assert_eq!(pipeline["input_field"], "body");
        assert_eq!(pipeline["result_field"], "ml.my_model.predicted_value");
        let body = &pipeline["usage"]["create_index"]["body"];
        let field = &body["mappings"]["properties"]["ml"]["properties"]["my_model"]["properties"];
        assert_eq!(field["predicted_value"]["type"], "dense_vector", "{body}");
        says(
            &message(&output),
            &[
                "pipeline    embed created",
                "PUT my-index/_settings",
                r#"{"index.default_pipeline":"embed"}"#,
                "POST _reindex?wait_for_completion=false",
                "ml.my_model_error",
            ],
        );
        let uses_input_output = stored(&standin, "embed").unwrap()["processors"][1]["inference"]
            .get("input_output")
            .is_some();
        assert_eq!(uses_input_output, version != "8.10.0".parse().unwrap());
        let document = processed(&standin, "embed", &json!({"body": "a text", "other": 1}));
        let width = pipeline["tried"].as_array().unwrap().len();
        assert_eq!(document["ml"]["my_model"]["predicted_value"].as_array().unwrap().len(), width);
        assert_eq!(document["other"], 1);
        // A document that was processed before gets the new result instead of two.
        let again = processed(&standin, "embed", &document);
        assert_eq!(again, document);
        // A document whose inference fails keeps its fields and gets the reason.
        let failed = processed(&standin, "embed", &json!({"other": 2}));
        assert_eq!(failed["other"], 2);
        assert!(
            failed["ml"]["my_model_error"].as_str().is_some_and(|it| !it.is_empty()),
            "{failed}"
        );
    }
}

#[test]
fn pipeline_create_uses_an_existing_model_and_its_fields() {
    let standin = StandIn::start(Options::default());
    assert!(import(&standin, "ner", "m", &["--start"]).status.success());
    let fields = ["--input-field", "page.text", "--output-field", "people"];
    let output = create(&standin, "names", "m", &[&fields[..], &["--output", "json"]].concat());
    let report = printed(&output);
    assert_eq!(report["result_field"], "people.predicted_value");
    assert_eq!(report["usage"].get("create_index"), None);
    let document = processed(&standin, "names", &json!({"page": {"text": "in London"}}));
    assert!(document["people"]["entities"].is_array(), "{document}");
    let output = create(&standin, "names", "m", &fields);
    says(
        &String::from_utf8_lossy(&output.stdout),
        &["names already exists: stores the result of page.text by m in people.predicted_value"],
    );
    let puts = standin
        .requests()
        .iter()
        .filter(|it| it.method == "PUT" && it.path.contains("names"))
        .count();
    assert_eq!(puts, 1);
    // A deployment can be named, too.
    let output = run(&standin, &["start", "m"], &["--deployment-id", "second"]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(
        printed(&create(&standin, "p2", "second", &["--output", "json"]))["model_id"],
        "second"
    );
}

#[test]
fn zero_shot_pipeline_needs_labels() {
    let standin = StandIn::start(Options::default());
    assert!(import(&standin, "zero_shot_classification", "z", &["--start"]).status.success());
    let output = create(&standin, "p", "z", &[]);
    assert_eq!(output.status.code(), Some(8), "{}", message(&output));
    says(&message(&output), &["needs labels to choose from", "--labels"]);
    let report = printed(&create(&standin, "p", "z", &["--labels", "a,b", "--output", "json"]));
    assert!(["a", "b"].contains(&report["tried"].as_str().unwrap()), "{report}");
    // The import refuses such a task before it stores anything.
    for task in ["zero_shot_classification", "text_similarity"] {
        let standin = StandIn::start(Options::default());
        let output = import(&standin, task, "z", &["--start", "--create-pipeline", "p"]);
        assert_eq!(output.status.code(), Some(8), "{}", message(&output));
        says(&message(&output), &[task, "needs"]);
        assert!(standin.model_ids().is_empty());
    }
}

#[test]
fn pipeline_that_would_remove_its_own_input_is_refused() {
    let fields = ["--input-field", "ml.text", "--output-field", "ml"];
    let standin = StandIn::start(Options::default());
    let output = import(
        &standin,
        "ner",
        "m",
        &[&["--start", "--create-pipeline", "p"], &fields[..]].concat(),
    );
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    says(&message(&output), &["in the field ml", "replace the field ml.text", "--output-field"]);
    assert!(standin.model_ids().is_empty());
    assert!(import(&standin, "ner", "m", &["--start"]).status.success());
    for fields in [&fields[..], &["--output-field", "body"], &["--output-field", "body.x"]] {
        let output = create(&standin, "p", "m", fields);
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), &["cannot store its result", "--output-field"]);
    }
    assert!(standin.requests().iter().all(|it| !it.path.contains("pipeline")));
    // A tree model reads its features, not the default field of texts.
    let tree = ["import", "--tree-model", TREES, "--es-model-id", "t", "--create-pipeline", "t"];
    let output = run(&standin, &tree, &["--output-field", "body"]);
    assert!(output.status.success(), "{}", message(&output));
}

#[test]
fn other_pipeline_with_the_id_is_kept_without_force() {
    let standin = StandIn::start(Options::default());
    let other = json!({"processors": [{"set": {"field": "a", "value": "b"}}]});
    assert_eq!(ask(&standin, "PUT", "/_ingest/pipeline/taken", Some(&other)).0, 200);
    let create_pipeline = ["--start", "--create-pipeline", "taken"];
    let output = import(&standin, "ner", "m", &create_pipeline);
    assert_eq!(output.status.code(), Some(7), "{}", message(&output));
    says(&message(&output), &["ingest pipeline taken", "was kept", "--force"]);
    // The check precedes the upload.
    assert!(standin.model_ids().is_empty());
    assert!(import(&standin, "ner", "m", &["--start"]).status.success());
    let output = create(&standin, "taken", "m", &[]);
    assert_eq!(output.status.code(), Some(7), "{}", message(&output));
    assert_eq!(stored(&standin, "taken").unwrap(), other);
    let report = printed(&create(&standin, "taken", "m", &["--force", "--output", "json"]));
    assert_eq!(report["state"], "replaced");
    assert!(stored(&standin, "taken").unwrap()["processors"][1]["inference"].is_object());
    let forced = [&create_pipeline[..], &["--force", "--clear-previous"]].concat();
    let output = import(&standin, "ner", "n", &forced);
    assert!(output.status.success(), "{}", message(&output));
}

#[test]
fn pipeline_that_does_not_work_is_not_created() {
    let standin = StandIn::start(Options::default());
    let output = import(&standin, "ner", "m", &["--create-pipeline", "p"]);
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    says(&message(&output), &["--start"]);
    assert!(import(&standin, "ner", "m", &[]).status.success());
    let output = create(&standin, "p", "m", &[]);
    assert_eq!(output.status.code(), Some(8), "{}", message(&output));
    says(&message(&output), &["the model is not started", "rust-eland start m"]);
    let output = create(&standin, "p", "nothing", &[]);
    assert_eq!(output.status.code(), Some(6), "{}", message(&output));
    assert_eq!(stored(&standin, "p"), None);
    for wrong in [["--input-field", "a..b"], ["--output-field", "_id"]] {
        assert_eq!(create(&standin, "p", "m", &wrong).status.code(), Some(2));
    }
    // A cluster that fails for the document that is tried.
    let faults = Faults { rules: vec!["simulate=500".parse().unwrap()], ..Faults::default() };
    let standin = StandIn::start(Options { faults, ..Options::default() });
    assert!(import(&standin, "ner", "m", &["--start"]).status.success());
    let output = create(&standin, "p", "m", &[]);
    assert_eq!(output.status.code(), Some(8), "{}", message(&output));
    assert_eq!(stored(&standin, "p"), None);
}

#[test]
fn tree_model_gets_a_pipeline_without_a_start() {
    let standin = StandIn::start(Options::default());
    let tree = ["import", "--tree-model", TREES, "--es-model-id", "t"];
    let output = run(&standin, &tree, &["--create-pipeline", "score", "--output", "json"]);
    let report = printed(&output);
    assert_eq!(report["created_pipeline"]["result_field"], "ml.t.predicted_value");
    assert_eq!(report["created_pipeline"]["input_field"], Value::Null);
    let (_, model) = ask(&standin, "GET", "/_ml/trained_models/t", None);
    let names = model["trained_model_configs"][0]["input"]["field_names"].clone();
    let document: serde_json::Map<String, Value> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|name| (name.as_str().unwrap().to_owned(), 1.into()))
        .collect();
    let document = processed(&standin, "score", &document.into());
    assert!(!document["ml"]["t"]["predicted_value"].is_null(), "{document}");
    let text = String::from_utf8(create(&standin, "score", "t", &[]).stdout).unwrap();
    says(&text, &["score already exists: stores the result of the features by t"]);
    let output = create(&standin, "score2", "t", &["--input-field", "x"]);
    assert_eq!(output.status.code(), Some(8), "{}", message(&output));
    says(&message(&output), &["reads the fields of its features", "--input-field"]);
    let output = run(&standin, &tree, &["--create-pipeline", "p", "--input-field", "x"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn apply_creates_pipelines_and_keeps_identical_ones() {
    let standin = StandIn::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yaml");
    let text = format!(
        "defaults:\n  force: true\nmodels:\n  - bundle: {}\n    es-model-id: a\n    start: true\n    create-pipeline: names\n    \
         input-field: text\n  - tree-model: {}\n    es-model-id: t\n    create-pipeline: score\n",
        bundle("ner").display(),
        std::env::current_dir().unwrap().join(TREES).display()
    );
    fs::write(&file, text).unwrap();
    for result in ["stored", "unchanged"] {
        let output = run(&standin, &["apply", file.to_str().unwrap()], &[]);
        assert!(output.status.success(), "{}", message(&output));
        says(&String::from_utf8_lossy(&output.stdout), &[result]);
        assert!(stored(&standin, "names").is_some() && stored(&standin, "score").is_some());
    }
    let puts = standin
        .requests()
        .iter()
        .filter(|it| it.method == "PUT" && it.path.contains("pipeline"))
        .count();
    assert_eq!(puts, 2);
}
