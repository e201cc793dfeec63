//! `rust-eland verify` and `import --verify-served`: the cluster's answers are compared with those of the model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use hub::Repository;
use rust_eland::tasks::Task;
use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::fixtures::{Fixture, copy};
use crate::from_hub::serving;
use crate::program::{message, program, says};

/// Imports and starts the model `m`.
fn import(standin: &StandIn, model: &Path, task: Task, more: &[&str]) -> Output {
    let output = program()
        .args(["import", "--url", &standin.url(), "--task-type", task.name(), "--es-model-id", "m"])
        .args(["--start"])
        .args(more)
        .arg("--hub-model-id")
        .arg(model)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    output
}

/// The report of `verify` on the model `m`, and the exit code.
fn verify(standin: &StandIn, model: &Path, more: &[&str]) -> (Value, i32) {
    let output = program()
        .args(["verify", "--url", &standin.url(), "--es-model-id", "m", "--output", "json"])
        .args(more)
        .arg("--hub-model-id")
        .arg(model)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|_| panic!("{}", message(&output))), output.status.code().unwrap())
}

/// A copy of a fixture's model, in which a JSON file is changed.
fn changed(fixture: &str, file: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named(fixture).model(), folder.path());
    let path = folder.path().join(file);
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
    folder
}

/// The causes of all different answers.
fn causes(report: &Value) -> Vec<&str> {
    let mut causes: Vec<&str> = report["different"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["cause"].as_str().unwrap())
        .collect();
    causes.sort_unstable();
    causes.dedup();
    causes
}

#[test]
fn own_models_of_all_tasks_are_verified() {
    for (fixture, task) in [
        ("bert/masked-lm", Task::FillMask),
        ("bert/ner", Task::Ner),
        ("bert/base", Task::PassThrough),
        ("roberta/question-answering", Task::QuestionAnswering),
        ("bert/text-classification", Task::TextClassification),
        ("xlm-roberta/st-cls", Task::TextEmbedding),
        ("bert/masked-lm", Task::TextExpansion),
        ("bert/cross-encoder", Task::TextSimilarity),
        ("roberta/zero-shot", Task::ZeroShotClassification),
    ] {
        let standin = StandIn::start(Options::default());
        let model = Fixture::named(fixture).model();
        import(&standin, &model, task, &[]);
        let (report, code) = verify(&standin, &model, &[]);
        // Differences of the tokenizers are possible; the graph and its settings must be equal.
        let causes = causes(&report);
        assert!(causes.iter().all(|cause| *cause == "tokens"), "{fixture} {task}: {report}");
        assert_eq!(code, if causes.is_empty() { 0 } else { 9 }, "{fixture} {task}");
        assert_eq!(
            (&report["texts"], &report["settings"]),
            (&json!(64), &json!([])),
            "{fixture} {task}"
        );
        assert!(report["equal"].as_u64().unwrap() >= 60, "{fixture} {task}: {report}");
    }
}

#[test]
fn wrong_pooling_is_found() {
    let standin = StandIn::start(Options::default());
    let wrong = changed("bert/st-mean", "1_Pooling/config.json", |config| {
        config["pooling_mode_mean_tokens"] = false.into();
        config["pooling_mode_cls_token"] = true.into();
    });
    import(&standin, wrong.path(), Task::TextEmbedding, &[]);
    let (report, code) = verify(&standin, &Fixture::named("bert/st-mean").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["graph"]));
    says(&report["findings"].to_string(), &["pooling", "first token"]);
}

#[test]
fn quantization_is_found_and_measured() {
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/st-mean").model();
    let output = import(&standin, &model, Task::TextEmbedding, &["--quantize", "--verify-served"]);
    says(&message(&output), &["verified: ", "cosine_mean"]);
    let (report, code) = verify(&standin, &model, &[]);
    assert_eq!((code, causes(&report)), (9, vec!["quantization"]));
    assert_eq!(report["is_quantized"], true);
    assert!(report["agreement"]["cosine_mean"].as_f64().unwrap() > 0.99, "{report}");
    let (_, code) = verify(&standin, &model, &["--tolerance", "0.5"]);
    assert_eq!(code, 0);
}

#[test]
fn swapped_labels_are_found() {
    let standin = StandIn::start(Options::default());
    let swapped = changed("bert/text-classification", "config.json", |config| {
        config["id2label"]["0"] = "negative".into();
        config["id2label"]["1"] = "positive".into();
    });
    import(&standin, swapped.path(), Task::TextClassification, &[]);
    let (report, code) = verify(&standin, &Fixture::named("bert/text-classification").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["settings"]));
    assert_eq!(report["settings"][0]["name"], "text_classification.classification_labels");
}

#[test]
fn other_vocabulary_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let model = Fixture::named("bert/st-mean").model();
    let run = |arguments: &[&str]| {
        let output = program().current_dir(folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
    };
    let path = model.to_str().unwrap();
    run(&[
        "export",
        "--task-type",
        "text_embedding",
        "--es-model-id",
        "m",
        "--output",
        ".",
        "--hub-model-id",
        path,
    ]);
    let file = folder.path().join("m.vocab.json");
    let mut vocabulary: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // The special tokens keep their places.
    vocabulary["vocabulary"].as_array_mut().unwrap()[10..].reverse();
    fs::write(&file, vocabulary.to_string()).unwrap();
    let standin = StandIn::start(Options::default());
    run(&["import", "--url", &standin.url(), "--bundle", "m.metadata.json", "--start"]);
    let (report, code) = verify(&standin, &model, &[]);
    assert_eq!((code, causes(&report)), (9, vec!["numbers"]));
    says(
        &report["findings"].to_string(),
        &["vocabulary: the definition in the cluster is that of the model"],
    );
}

#[test]
fn cross_encoder_of_eland_lacks_token_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eland/cross-encoder");
    let standin = StandIn::start(Options::default());
    let output = program()
        .current_dir(&folder)
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--start"])
        .args([
            "--definition",
            "model.pt",
            "--vocabulary",
            "vocabulary.json",
            "--config",
            "config.json",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let (report, code) = verify(&standin, &Fixture::named("bert/cross-encoder").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["graph"]));
    says(&report["findings"].to_string(), &["token types"]);
    // eland does not store the source.
    let output =
        program().args(["verify", "--url", &standin.url(), "--es-model-id", "m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["set --hub-model-id"]);
}

#[test]
fn tokens_and_truncation_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let texts: PathBuf = folder.path().join("texts.txt");
    fs::write(
        &texts,
        "hello\nbonjour\u{A0}!\nThe train from London runs by the old river in the morning.\n",
    )
    .unwrap();
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/st-mean").model();
    import(&standin, &model, Task::TextEmbedding, &["--max-model-input-length", "10"]);
    let (report, code) = verify(&standin, &model, &["--texts", texts.to_str().unwrap()]);
    assert_eq!((code, causes(&report)), (9, vec!["tokens", "truncation"]), "{report}");
    let different = report["different"].as_array().unwrap();
    let tokens = different.iter().find(|it| it["cause"] == "tokens").unwrap();
    assert_eq!(tokens["text"], "bonjour\u{A0}!");
    assert_ne!(tokens["server_tokens"], tokens["model_tokens"]);
    says(&report["settings"].to_string(), &["max_sequence_length"]);
}

#[test]
fn source_comes_from_the_metadata() {
    let model = Fixture::named("bert/st-mean").model();
    let hub = serving([Repository::of_folder("org/name", &model).unwrap()]);
    let cache = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    let run = |arguments: &[&str]| {
        let output = program()
            .env("HF_ENDPOINT", hub.url())
            .env("HF_HOME", cache.path())
            .args(arguments)
            .args(["--url", &standin.url(), "--es-model-id", "m"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        output
    };
    let import =
        ["import", "--hub-model-id", "org/name", "--task-type", "text_embedding", "--start"];
    let output = run(&[&import[..], &["--verify-served", "--output", "json"]].concat());
    says(&message(&output), &["verified: 64 of 64 texts within 1e-5"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["verification"]["equal"], 64);
    let output = run(&["verify", "--offline"]);
    let table = String::from_utf8(output.stdout).unwrap();
    says(&table, &["compared with org/name@", "verified: 64 of 64 texts within 1e-5"]);
}
