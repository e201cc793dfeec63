//! `rust-eland infer`: results of a deployed model.

use std::process::Output;

use rust_eland::tasks::Task;
use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{ask, message, program, says};

fn import(standin: &StandIn, fixture: &str, task: Task, more: &[&str]) {
    let output = program()
        .args(["import", "--url", &standin.url(), "--task-type", task.name(), "--es-model-id", "m"])
        .args(more)
        .arg("--hub-model-id")
        .arg(Fixture::named(fixture).model())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
}

fn infer(standin: &StandIn, more: &[&str]) -> Output {
    program()
        .args(["infer", "--url", &standin.url(), "--es-model-id", "m"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn results_are_those_of_the_server() {
    let standin = StandIn::start(Options::default());
    import(&standin, "bert/zero-shot", Task::ZeroShotClassification, &["--start"]);
    let arguments = ["--output", "json", "--labels", "a,b", "--batch-size", "1", "hello", "world"];
    let output = infer(&standin, &arguments);
    assert!(output.status.success(), "{}", message(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let body = json!({"docs": [{"text_field": "hello"}, {"text_field": "world"}],
        "inference_config": {"zero_shot_classification": {"labels": ["a", "b"]}}});
    let (_, answer) = ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
    assert_eq!(json!(found), answer["inference_results"]);
    let table = infer(&standin, &["--labels", "a,b", "hello"]);
    says(&String::from_utf8(table.stdout).unwrap(), &["\"hello\"\n  "]);
}

#[test]
fn stopped_model_is_an_error_that_names_the_start_command() {
    let standin = StandIn::start(Options::default());
    import(&standin, "bert/ner", Task::Ner, &[]);
    let output = infer(&standin, &["hello"]);
    assert!(!output.status.success());
    says(&message(&output), &["m is not deployed", "rust-eland start"]);
}
