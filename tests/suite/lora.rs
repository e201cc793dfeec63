//! Models with LoRA adapters: one repository provides a model for each task.

use std::fs;
use std::path::{Path, PathBuf};

use ::hub::Repository;
use rust_eland::checkpoint::safetensors;
use rust_eland::conversion::{Conversion, Options};
use rust_eland::mapped_file::MappedFile;
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use serde_json::{Value, json};
use standin::StandIn;
use tch::Tensor;

use crate::fixtures::{Case, copy};
use crate::from_hub::{Cache, ID, files_below, serving};
use crate::numbers::as_the_server_sends;
use crate::program::{ask, message, program, says};

/// A repository with adapters in the checkpoint.
const V3: &str = "jina3/jina-embeddings-v3";

/// A repository with a folder for each adapter, and a tokenizer that Elasticsearch cannot follow exactly.
const V5: &str = "eurobert/jina-embeddings-v5-text-nano";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn model(name: &str) -> String {
    folder(name).join("model").display().to_string()
}

/// The tasks of the adapters of a fixture, each with its references.
fn references(name: &str) -> Vec<(String, Vec<Case>)> {
    let json: Value =
        serde_json::from_slice(&fs::read(folder(name).join("reference.json")).unwrap()).unwrap();
    let map = MappedFile::open(&folder(name).join("reference.safetensors")).unwrap();
    let slices = safetensors::read(map.bytes()).unwrap();
    let models = json["models"].as_object().unwrap();
    let of_task = |(task, tasks): (&String, &Value)| {
        let cases = tasks["text_embedding"]["cases"].as_array().unwrap();
        let case = |case: &Value| {
            let name = case["name"].as_str().unwrap();
            let tensor = |part: &str| {
                let slice = &slices[&format!("{task}/text_embedding/{name}/{part}")];
                let bytes = &map.bytes()[slice.offset..slice.offset + slice.length];
                Tensor::from_data_size(bytes, &slice.shape, slice.dtype.into())
            };
            Case {
                name: name.to_owned(),
                texts: serde_json::from_value(case["texts"].clone()).unwrap(),
                input_ids: tensor("input_ids"),
                attention_mask: tensor("attention_mask"),
                output: tensor("output"),
                output_16: None,
            }
        };
        (task.clone(), cases.iter().map(case).collect())
    };
    models.iter().map(of_task).collect()
}

fn convert(name: &str, task: Option<&str>) -> Conversion {
    let mut options = Options::default();
    options.lora_task = task.map(str::to_owned);
    let files = ModelFiles::open(&folder(name).join("model")).unwrap();
    Conversion::read(&files, options, &Progress::quiet()).unwrap()
}

/// Runs the program, which must succeed. Returns its output and its log.
fn run(arguments: &[&str]) -> (String, String) {
    let output = program().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    (String::from_utf8_lossy(&output.stdout).into_owned(), message(&output))
}

/// Runs the program, which must fail. Returns its message.
fn refused(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    message(&output)
}

/// The metadata of a model in the stand-in.
fn metadata(standin: &StandIn, id: &str) -> Value {
    let (status, answer) = ask(standin, "GET", &format!("/_ml/trained_models/{id}"), None);
    assert_eq!(status, 200, "{answer}");
    answer["trained_model_configs"][0]["metadata"].clone()
}

#[test]
fn merged_adapter_matches_the_reference_of_each_task() {
    let mut compared = 0;
    for name in [V3, "jina3/scaled", V5] {
        for (task, cases) in references(name) {
            let conversion = convert(name, Some(&task));
            let tokenizer = conversion.tokenizer();
            for case in cases {
                let padding = tokenizer.special.padding;
                let inputs = as_the_server_sends(&case, tokenizer.kind, padding);
                let found = conversion.forward(&inputs).unwrap();
                let difference = (&found - &case.output).abs().max().double_value(&[]);
                assert!(difference < 1e-4, "{name} {task} {}: {difference}", case.name);
                compared += 1;
            }
        }
    }
    assert!(compared >= 20, "{compared}");
}

#[test]
fn two_tasks_of_a_repository_are_applied_and_verified() {
    let standin = StandIn::start(standin::Options::default());
    let root = tempfile::tempdir().unwrap();
    copy(&folder(V3).join("model"), &root.path().join("jina"));
    fs::write(
        root.path().join("models.yaml"),
        "defaults:\n  start: true\nmodels:\n  - {hub-model-id: jina, lora-task: retrieval.query, prompts: true}\n  - {hub-model-id: jina, lora-task: retrieval.passage}\n",
    )
    .unwrap();
    let url = standin.url();
    let apply = || {
        let output = program()
            .args(["apply", "models.yaml", "--output", "json", "--url", &url])
            .current_dir(root.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), message(&output))
    };
    let (first, log) = apply();
    let ids = ["jina__retrieval.query", "jina__retrieval.passage"];
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(first["models"][at]["model_id"], *id, "{first}");
        assert_eq!(metadata(&standin, id)["lora_task"], id[6..], "{id}");
    }
    // The prompt of the task belongs before every text.
    let prefixes = &standin.configuration(ids[0]).unwrap()["prefix_strings"];
    let prompt = "Represent the query for retrieving evidence documents: ";
    assert_eq!(*prefixes, json!({"ingest": prompt, "search": prompt}));
    assert!(log.contains("expects \"Represent the document for retrieval: \" before every text"));
    let (second, _) = apply();
    assert_eq!(second["models"][1]["result"], "unchanged", "{second}");
    let (source, texts) = (model(V3), root.path().join("texts.txt"));
    fs::write(&texts, "The river was by London.\nIn Paris the summer was warm.\n").unwrap();
    let verify = ["verify", "--url", &url, "--es-model-id", ids[1], "--hub-model-id", &source];
    run(&[&verify[..], &["--texts", &texts.display().to_string()]].concat());
}

#[test]
fn exported_bundle_records_the_task() {
    let output = tempfile::tempdir().unwrap();
    let path = output.path().display().to_string();
    let options = ["--hub-model-id", &model(V3), "--lora-task", "separation", "--output", &path];
    run(&[&["export"][..], &options].concat());
    let bundle = fs::read_dir(output.path()).unwrap().map(|entry| entry.unwrap().path());
    let bundle = bundle.into_iter().find(|path| path.to_string_lossy().ends_with("metadata.json"));
    let configuration: Value = serde_json::from_slice(&fs::read(bundle.unwrap()).unwrap()).unwrap();
    assert!(configuration.to_string().contains("\"lora_task\":\"separation\""), "{configuration}");
    // The model in this process and the reference of the task agree.
    let (task, cases) = references(V3).into_iter().find(|(task, _)| task == "separation").unwrap();
    let case = cases.iter().find(|case| case.texts.is_some()).unwrap();
    let text = &case.texts.as_ref().unwrap()[0][0];
    let arguments =
        ["infer", "--hub-model-id", &model(V3), "--lora-task", &task, "--output", "json"];
    let (answer, _) = run(&[&arguments[..], &[text]].concat());
    let answer: Value = serde_json::from_str(answer.lines().next().unwrap()).unwrap();
    let found: Vec<f64> = serde_json::from_value(answer["predicted_value"].clone()).unwrap();
    for (found, at) in found.iter().zip(0..) {
        let expected = case.output.double_value(&[0, at]);
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn tasks_are_listed_and_unknown_ones_are_refused() {
    let conversion = convert(V3, None);
    let listed = "retrieval.query, retrieval.passage, separation, classification, text-matching";
    let notes = conversion.notes().join("\n");
    says(&notes, &["LoRA adapters for the tasks", listed, "--lora-task"]);
    assert!(convert(V3, Some("separation")).notes().iter().all(|note| !note.contains("adapters")));

    let (sheet, _) = run(&["inspect", "--hub-model-id", &model(V3)]);
    says(&sheet, &["LoRA adapters", "--lora-task retrieval.query", "--lora-task text-matching"]);
    let (document, _) = run(&[
        "inspect",
        "--hub-model-id",
        &model(V5),
        "--lora-task",
        "clustering",
        "--allow-inexact-tokenizer",
        "--output",
        "json",
    ]);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["lora_task"], "clustering", "{document}");
    assert_eq!(document["lora_tasks"].as_array().unwrap().len(), 4);
    assert_eq!(document["problem"], Value::Null);

    let export = |name: &str, task: &str| {
        refused(&[
            "export",
            "--hub-model-id",
            &model(name),
            "--output",
            "/nonexistent",
            "--lora-task",
            task,
        ])
    };
    says(&export(V3, "retrieval"), &[listed, "none for \"retrieval\"", "--lora-task"]);
    says(&export("bert/st-mean", "retrieval"), &["no LoRA adapters", "Remove --lora-task"]);
}

#[test]
fn adapters_in_folders_are_downloaded_with_the_model() {
    let hub = serving([Repository::of_folder(ID, &folder(V5).join("model")).unwrap()]);
    let cache = Cache::new();
    let output = cache.download(&hub, &[]);
    assert!(output.status.success(), "{}", message(&output));
    let files = files_below(&cache.hub());
    for file in ["clustering/adapter_config.json", "retrieval/adapter_model.safetensors"] {
        assert!(files.iter().any(|path| path.ends_with(format!("adapters/{file}"))), "{file}");
    }
}

#[test]
fn unsupported_adapter_is_refused() {
    let copied = tempfile::tempdir().unwrap();
    copy(&folder(V5).join("model"), copied.path());
    let path = copied.path().join("adapters/retrieval/adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["use_dora"] = true.into();
    fs::write(&path, config.to_string()).unwrap();
    let source = copied.path().display().to_string();
    let export = |task: &str| {
        refused(&[
            "export",
            "--hub-model-id",
            &source,
            "--output",
            "/nonexistent/x",
            "--lora-task",
            task,
        ])
    };
    says(&export("retrieval"), &["adapter for the task retrieval", "use_dora"]);
    fs::write(copied.path().join("adapters/clustering/adapter_model.safetensors"), "x").unwrap();
    says(&export("clustering"), &["adapter_model.safetensors"]);
}
