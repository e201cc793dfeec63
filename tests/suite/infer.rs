//! `rust-eland infer`: results of a deployed model, and of a model that runs locally.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rust_eland::tasks::Task;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{ask, message, output_with_input, program, says};
use crate::real_model;

/// Largest difference of two numbers that count as equal, relative to the larger number or to 1.
const TOLERANCE: f64 = 1e-5;

fn import(standin: &StandIn, model: &Path, task: Task, more: &[&str]) {
    let output = program()
        .args(["import", "--url", &standin.url(), "--task-type", task.name(), "--es-model-id", "m"])
        .args(["--on-conflict", "replace"])
        .args(more)
        .arg("--hub-model-id")
        .arg(model)
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

fn infer_locally(model: &Path, task: Task, more: &[&str]) -> Output {
    program()
        .args(["infer", "--task-type", task.name(), "--hub-model-id"])
        .arg(model)
        .args(more)
        .output()
        .unwrap()
}

/// The JSON lines of an output.
fn results(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", message(output));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Panics unless two results are equal up to rounding.
#[track_caller]
fn assert_close(found: &Value, expected: &Value, tolerance: f64, place: &str) {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let scale = expected.abs().max(1.);
            assert!(
                (found - expected).abs() <= tolerance * scale,
                "{place}: {found} for {expected}"
            );
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{place}");
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_close(found, expected, tolerance, &format!("{place}[{at}]"));
            }
        }
        (Value::Object(found), Value::Object(expected)) => {
            let names = |it: &Map<String, Value>| {
                let mut names: Vec<String> = it.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(found), names(expected), "{place}");
            for (name, expected) in expected {
                assert_close(&found[name], expected, tolerance, &format!("{place}.{name}"));
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

/// A fixture for each task and each layout of inputs.
const CASES: [(&str, Task, &[&str]); 17] = [
    ("bert/masked-lm", Task::FillMask, &["--top-classes", "3"]),
    ("roberta/masked-lm", Task::FillMask, &[]),
    ("bert/ner", Task::Ner, &[]),
    ("roberta/ner", Task::Ner, &[]),
    ("deberta-v2/ner", Task::Ner, &[]),
    ("bert/base", Task::PassThrough, &[]),
    ("bert/question-answering", Task::QuestionAnswering, &["--top-classes", "2"]),
    ("roberta/question-answering", Task::QuestionAnswering, &[]),
    ("bert/text-classification", Task::TextClassification, &["--top-classes", "2"]),
    ("bert/st-mean", Task::TextEmbedding, &[]),
    ("xlm-roberta/st-cls", Task::TextEmbedding, &[]),
    ("bert/masked-lm", Task::TextExpansion, &[]),
    ("bert/cross-encoder", Task::TextSimilarity, &[]),
    ("roberta/cross-encoder", Task::TextSimilarity, &[]),
    ("bert/zero-shot", Task::ZeroShotClassification, &["--labels", "good,sad city,food"]),
    ("bert/zero-shot", Task::ZeroShotClassification, &["--labels", "good,sad", "--multi-label"]),
    ("roberta/zero-shot", Task::ZeroShotClassification, &["--labels", "good,sad city,food"]),
];

/// The texts of a fixture, with the option for the first text of pairs. The longest one has more tokens than the model accepts.
fn texts(fixture: &Fixture, task: Task) -> (Vec<String>, Vec<String>) {
    let cases: Vec<_> = fixture.cases(task).into_iter().filter_map(|case| case.texts).collect();
    let first = cases[0][0][0].clone();
    let option = match task {
        Task::QuestionAnswering => vec!["--question".to_owned(), first],
        Task::TextSimilarity => vec!["--query".to_owned(), first],
        _ => Vec::new(),
    };
    let which = usize::from(!option.is_empty());
    let mut texts: Vec<String> = cases.iter().flatten().map(|texts| texts[which].clone()).collect();
    let long = format!("{0} {0} {0}", texts.last().unwrap());
    // The server refuses a second mask.
    if task != Task::FillMask {
        texts.push(long);
    }
    (texts, option)
}

#[test]
fn local_results_of_all_tasks_equal_those_of_the_server() {
    let mut tasks = Vec::new();
    for (name, task, options) in CASES {
        let standin = StandIn::start(Options::default());
        let fixture = Fixture::named(name);
        import(&standin, &fixture.model(), task, &["--start"]);
        let (texts, first) = texts(&fixture, task);
        let mut arguments = options.to_vec();
        arguments.extend(first.iter().map(String::as_str));
        arguments.push("--");
        arguments.extend(texts.iter().map(String::as_str));
        let remote = results(&infer(&standin, &arguments));
        let local = results(&infer_locally(&fixture.model(), task, &arguments));
        assert_eq!((local.len(), remote.len()), (texts.len(), texts.len()), "{name} {task}");
        for (at, (local, remote)) in local.iter().zip(&remote).enumerate() {
            assert_close(local, remote, TOLERANCE, &format!("{name} {task} {at}"));
            if task == Task::TextExpansion {
                let tokens = |it: &Value| -> Vec<String> {
                    it["predicted_value"].as_object().unwrap().keys().cloned().collect()
                };
                assert_eq!(tokens(local), tokens(remote), "{name} {task} {at}");
            }
        }
        let truncated = local.iter().any(|result| result["is_truncated"] == true);
        assert_eq!(
            truncated,
            !matches!(task, Task::FillMask | Task::QuestionAnswering),
            "{name} {task}"
        );
        tasks.push(task);
    }
    tasks.sort();
    tasks.dedup();
    assert_eq!(tasks, Task::ALL);
}

/// Results of the libraries, see tests/fixtures/inference.py.
#[derive(Deserialize)]
struct Reference {
    model: String,
    task: String,
    options: Map<String, Value>,
    texts: Vec<String>,
    results: Vec<Value>,
}

#[test]
fn local_results_equal_those_of_the_libraries() {
    let references: Vec<Reference> =
        serde_json::from_str(include_str!("../fixtures/inference.json")).unwrap();
    let mut tasks = Vec::new();
    for Reference { model, task, options, texts, results: expected } in references {
        let task: Task = task.parse().unwrap();
        let folder = match model.as_str() {
            "minilm" => real_model::folder(),
            name => Fixture::named(name).model(),
        };
        let mut arguments: Vec<String> = Vec::new();
        for (name, value) in options {
            let list = |value: &Value| value.as_str().unwrap().to_owned();
            match value {
                Value::Bool(_) => arguments.push("--multi-label".into()),
                Value::Array(labels) => arguments.extend([
                    format!("--{name}"),
                    labels.iter().map(list).collect::<Vec<_>>().join(","),
                ]),
                value => arguments.extend([format!("--{name}"), list(&value)]),
            }
        }
        if task == Task::TextClassification {
            arguments.extend(["--top-classes".into(), "100".into()]);
        }
        let arguments: Vec<&str> = arguments.iter().chain(&texts).map(String::as_str).collect();
        let found = results(&infer_locally(&folder, task, &arguments));
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let place = format!("{model} {task} {at}");
            let mut found = found.clone();
            // Members that the libraries do not compute, or compute in another way.
            let extra = ["predicted_sequence", "predicted_value", "prediction_probability"];
            for name in extra.iter().filter(|name| expected.get(**name).is_none()) {
                found.as_object_mut().unwrap().remove(*name);
            }
            assert_close(&found, expected, 1e-4, &place);
        }
        tasks.push(task);
    }
    tasks.sort();
    tasks.dedup();
    assert_eq!(tasks, Task::ALL);
}

#[test]
fn bundle_and_batches_have_the_results_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = Fixture::named("bert/st-mean").model();
    let output = program()
        .args(["export", "--task-type", "text_embedding", "--es-model-id", "m", "--output"])
        .arg(folder.path())
        .arg("--hub-model-id")
        .arg(&model)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let metadata = folder.path().join("m.metadata.json");
    // More texts than one batch, of different lengths.
    let texts: Vec<String> =
        (0..300).map(|n| ["the river", "who won the game", "a"][n % 3].repeat(n % 4 + 1)).collect();
    let file = folder.path().join("texts.txt");
    fs::write(&file, texts.join("\n")).unwrap();
    let output = program()
        .args(["infer", "--input", file.to_str().unwrap(), "--bundle"])
        .arg(&metadata)
        .output()
        .unwrap();
    let of_bundle = results(&output);
    assert_eq!(of_bundle.len(), texts.len());
    says(&message(&output), &["inferring: 300 texts in"]);
    for at in [0, 1, 2, 299] {
        let alone = results(&infer_locally(&model, Task::TextEmbedding, &[&texts[at]]));
        assert_close(&of_bundle[at], &alone[0], TOLERANCE, &texts[at]);
    }
}

#[test]
fn remote_results_are_those_of_the_server() {
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/zero-shot").model();
    import(&standin, &model, Task::ZeroShotClassification, &["--start"]);
    let arguments = ["--output", "json", "--labels", "a,b", "--batch-size", "1", "hello", "world"];
    let found = results(&infer(&standin, &arguments));
    let body = json!({"docs": [{"text_field": "hello"}, {"text_field": "world"}],
        "inference_config": {"zero_shot_classification": {"labels": ["a", "b"]}}});
    let (_, answer) = ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
    assert_eq!(json!(found), answer["inference_results"]);
    let table = infer(&standin, &["--output", "table", "--labels", "a,b", "hello"]);
    says(&String::from_utf8(table.stdout).unwrap(), &["\"hello\"\n  0."]);
}

#[test]
fn rejected_text_of_a_batch_has_an_error_and_its_line_is_named() {
    let standin = StandIn::start(Options::default());
    import(&standin, &Fixture::named("bert/masked-lm").model(), Task::FillMask, &["--start"]);
    let url = standin.url();
    let arguments = ["infer", "--url", &url, "--es-model-id", "m", "--output", "json"];
    let output = output_with_input(
        program().args(arguments),
        b"The [MASK] was by London.\nno mask\nThe [MASK].\n",
    );
    assert_eq!(output.status.code(), Some(6), "{}", message(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0]["predicted_value"].is_string() && lines[2]["predicted_value"].is_string());
    says(lines[1]["error"].as_str().unwrap(), &["no [MASK] token could be found"]);
    says(&message(&output), &["line 2 is rejected: no [MASK]", "1 of 3 texts have no result"]);

    // The context of a question is empty.
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/question-answering").model();
    import(&standin, &model, Task::QuestionAnswering, &["--start"]);
    let arguments = ["--output", "json", "--question", "who won", ""];
    let remote = infer(&standin, &arguments);
    let local = infer_locally(&model, Task::QuestionAnswering, &arguments);
    says(&message(&local), &["text 1 is rejected"]);
    assert_eq!((local.status.code(), remote.status.code()), (Some(6), Some(6)));
    assert_eq!(String::from_utf8(local.stdout), String::from_utf8(remote.stdout));
}

#[test]
fn input_that_is_not_utf8_names_its_line() {
    let model = Fixture::named("bert/st-mean").model();
    let model = model.to_str().unwrap();
    for command in ["infer", "tokenize"] {
        let output = output_with_input(
            program().args([command, "--hub-model-id", model]),
            b"one\ncaf\xe9\n",
        );
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), &["standard input, line 2", "not UTF-8", "iconv"]);
    }
    // The model is not looked for.
    let output = program()
        .args(["infer", "--hub-model-id", "no/model", "--input", "no-such-file.txt"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["cannot read no-such-file.txt"]);
}

#[test]
fn options_without_effect_are_rejected() {
    let fails = |fixture: &str, task, arguments: &[&str], parts: &[&str]| {
        let arguments = [arguments, &["--", "hello"]].concat();
        let output = infer_locally(&Fixture::named(fixture).model(), task, &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", message(&output));
        says(&message(&output), parts);
        message(&output)
    };
    let embedding = ("bert/st-mean", Task::TextEmbedding);
    for (option, value) in [
        ("--labels", "a,b"),
        ("--hypothesis-template", "{}"),
        ("--question", "a"),
        ("--query", "a"),
        ("--top-classes", "2"),
    ] {
        let parts = [option, "no effect", "text_embedding"];
        fails(embedding.0, embedding.1, &[option, value], &parts);
    }
    fails(embedding.0, embedding.1, &["--timeout", "3"], &["--es-model-id"]);
    fails(embedding.0, embedding.1, &["--url", "http://127.0.0.1:9"], &["need --es-model-id"]);
    let zero_shot = ("bert/zero-shot", Task::ZeroShotClassification);
    for (options, part) in [
        (&["--labels", "a,,b"][..], "empty"),
        (&["--labels", "a, a"], "twice"),
        (&["--labels", "a,b", "--hypothesis-template", "about"], "has no {}"),
        (&["--labels", "a,b", "--top-classes", "1"], "no effect"),
    ] {
        fails(zero_shot.0, zero_shot.1, options, &[part]);
    }
    let classification = ("bert/text-classification", Task::TextClassification);
    fails(classification.0, classification.1, &["--top-classes", "-2"], &["-2"]);
    let model = Fixture::named(classification.0).model();
    let all = results(&infer_locally(&model, classification.1, &["--top-classes", "-1", "hello"]));
    assert!(all[0]["top_classes"].as_array().unwrap().len() > 1);
    let model = Fixture::named(zero_shot.0).model();
    let found = results(&infer_locally(&model, zero_shot.1, &["--labels", "sad city , a", "b"]));
    let labels = found[0]["top_classes"].as_array().unwrap().iter().map(|it| &it["class_name"]);
    let mut labels: Vec<&str> = labels.map(|it| it.as_str().unwrap()).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["a", "sad city"]);

    let output =
        program().args(["infer", "--url", "http://127.0.0.1:9", "hello"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!message(&output).contains("--data"), "{}", message(&output));
}

#[test]
fn texts_have_numbers_and_quiet_runs_have_no_notes() {
    let model = Fixture::named("xlm-roberta/st-cls").model();
    let texts = ["--output", "table", "the river", "", "the river"];
    let output = infer_locally(&model, Task::TextEmbedding, &texts);
    assert_eq!(output.status.code(), Some(6));
    let table = String::from_utf8(output.stdout).unwrap();
    says(&table, &["1. \"the river\"", "2. \"\"\n  error: ", "3. \"the river\""]);
    says(&table, &["          1      3\n   1  1.000  1.000\n   3  1.000  1.000"]);
    let model = Fixture::named("bert/st-mean").model();
    let output = infer_locally(&model, Task::TextEmbedding, &["--quiet", "hello"]);
    assert_eq!(message(&output), "");
}

#[test]
fn deployment_and_endpoint_ids_find_the_model() {
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/st-mean").model();
    import(
        &standin,
        &model,
        Task::TextEmbedding,
        &["--start", "--deployment-id", "d", "--create-endpoint", "e"],
    );
    for id in ["m", "d", "e"] {
        let output = program()
            .args(["infer", "--url", &standin.url(), "--es-model-id", id, "hello"])
            .output()
            .unwrap();
        assert_eq!(results(&output).len(), 1, "{id}");
    }
    let output = program()
        .args(["infer", "--url", &standin.url(), "--es-model-id", "x", "hello"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn stopped_model_is_an_error_that_names_the_start_command() {
    let standin = StandIn::start(Options::default());
    import(&standin, &Fixture::named("bert/ner").model(), Task::Ner, &[]);
    let output = infer(&standin, &["hello"]);
    assert!(!output.status.success());
    says(&message(&output), &["m is not deployed", "rust-eland start"]);
}

#[test]
fn documents_are_ranked_and_embeddings_compared() {
    let model = Fixture::named("bert/cross-encoder").model();
    let arguments =
        ["--output", "table", "--query", "good food", "The food was bad.", "Jazz music, all night"];
    let output = infer_locally(&model, Task::TextSimilarity, &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    says(&text, &["\"good food\"\nRANK  SCORE", "\n1 ", "\n2 ", "The food was bad."]);
    // Without --query, a tab separates the texts of a pair.
    let pairs =
        results(&infer_locally(&model, Task::TextSimilarity, &["good food\tThe food was bad."]));
    assert_eq!(pairs.len(), 1);
    let output = infer_locally(&model, Task::TextSimilarity, &["The food was bad."]);
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["--query"]);

    let model = Fixture::named("bert/st-mean").model();
    let output = infer_locally(
        &model,
        Task::TextEmbedding,
        &["--output", "table", "the river", "the river"],
    );
    says(&String::from_utf8(output.stdout).unwrap(), &["cosine similarity", "   1  1.000  1.000"]);
}

#[test]
fn rejected_text_has_an_error_and_the_others_have_results() {
    let model = Fixture::named("bert/masked-lm").model();
    let output = infer_locally(&model, Task::FillMask, &["The [MASK] was by London.", "no mask"]);
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["predicted_value"].is_string());
    says(lines[1]["error"].as_str().unwrap(), &["no [MASK] token could be found"]);
    says(&message(&output), &["1 of 2 texts have no result"]);
    let output = infer_locally(
        &Fixture::named("bert/zero-shot").model(),
        Task::ZeroShotClassification,
        &["hello"],
    );
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["needs labels"]);
}

#[test]
fn interruption_keeps_the_results_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("texts.txt");
    let line = "London is the capital of England. In the morning the train from London runs by the river. ";
    fs::write(&file, (line.repeat(3) + "\n").repeat(20_000)).unwrap();
    let results = folder.path().join("results.jsonl");
    let mut child = program()
        .args(["infer", "--task-type", "text_embedding", "--hub-model-id"])
        .arg(real_model::folder())
        .arg("--input")
        .arg(&file)
        .stdout(fs::File::create(&results).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while fs::metadata(&results).unwrap().len() == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before the first result");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", message(&output));
    says(&message(&output), &["of 20000 texts"]);
    let text = fs::read_to_string(&results).unwrap();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        let result: Value = serde_json::from_str(line).unwrap();
        assert!(result["predicted_value"].is_array());
    }
}
