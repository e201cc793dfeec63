//! Repositories and folders that are refused before any large file is downloaded.

use std::fs;
use std::os::unix::fs::symlink;

use ::hub::Repository;
use serde_json::json;
use standin::StandIn;

use super::{Cache, ID, asked, noise, repository, serving};
use crate::fixtures::Fixture;
use crate::program::{message, program, says};

/// Fails unless the program refuses the repository with exit code 3, before it requests a large file.
#[track_caller]
fn refused(repository: Repository, parts: &[&str]) {
    let hub = serving([repository]);
    let cache = Cache::new();
    let output = cache.download(&hub, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), parts);
    assert!(asked(&hub, "safetensors").is_empty() && asked(&hub, ".bin").is_empty());
    assert!(output.stdout.is_empty());
}

#[test]
fn repository_without_supported_weights_is_refused_with_its_files() {
    let bare = Repository::new(ID).file("config.json", r#"{"model_type": "bert"}"#);
    refused(
        bare.clone().large("model.Q4_K_M.gguf", "x").large("onnx/model.onnx", "x"),
        &[
            "no weights in a supported format",
            "model.safetensors",
            "model.Q4_K_M.gguf, onnx/model.onnx",
        ],
    );
    refused(bare.large("tf_model.h5", "x").large("flax_model.msgpack", "x"), &["tf_model.h5"]);
    refused(
        Repository::new(ID).file("README.md", "x").large("model.safetensors", "x"),
        &["no config.json", "README.md, model.safetensors"],
    );
}

#[test]
fn adapter_error_names_the_base_model() {
    let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "org/base"}).to_string();
    refused(
        Repository::new(ID)
            .file("adapter_config.json", adapter.clone())
            .large("adapter_model.safetensors", "x"),
        &["adapter", "org/base", "merge_and_unload"],
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter_config.json"), adapter).unwrap();
    fs::write(folder.path().join("adapter_model.safetensors"), "x").unwrap();
    let output = program()
        .args(["export", "--output", "/nonexistent", "--es-model-id", "m", "--hub-model-id"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    says(&message(&output), &["adapter", "org/base"]);
}

#[test]
fn code_of_the_repository_is_never_run() {
    let own = json!({"model_type": "own_bert", "auto_map": {
        "AutoConfig": "configuration.C", "AutoModel": "org/code--modeling.OwnBertModel"}});
    let with = |config: serde_json::Value| {
        Repository::new(ID)
            .file("config.json", config.to_string())
            .file("modeling.py", "raise SystemExit")
            .file("vocab.txt", "x")
            .large("model.safetensors", "x")
    };
    refused(with(own), &["own_bert", "OwnBertModel", "never run", "bert, "]);
    refused(with(json!({"model_type": "llama"})), &["llama"]);

    // A model with a supported architecture is imported with a warning.
    let fixture = Fixture::named("bert/st-mean").model();
    let config = fs::read(fixture.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["auto_map"] = json!({"AutoModel": "modeling.OwnBert"});
    let repository = Repository::of_folder(ID, &fixture)
        .unwrap()
        .file("config.json", config.to_string())
        .file("modeling.py", "raise SystemExit");
    let hub = serving([repository]);
    let standin = StandIn::start(standin::Options::default());
    let output = Cache::new()
        .program(&hub.url())
        .args(["import", "--url", &standin.url(), "--hub-model-id", ID])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["modeling.OwnBert", "never run", "built as bert"]);
    assert!(asked(&hub, "modeling.py").is_empty());
}

#[test]
fn invalid_id_is_refused_before_any_request() {
    let hub = serving([repository()]);
    let standin = StandIn::start(standin::Options::default());
    let refused = |arguments: &[&str], code: i32, parts: &[&str]| {
        let output = Cache::new()
            .program(&hub.url())
            .args(["import", "--url", &standin.url()])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", message(&output));
        says(&message(&output), parts);
        assert!(standin.requests().is_empty() && hub.requests().is_empty());
    };
    for name in ["./missing", "/no/such/folder", "a/b/c", "https://hub/a/b", "a b", "../x"] {
        refused(&["--hub-model-id", name], 4, &[name, "neither an existing folder nor a hub id"]);
    }
    refused(&["--hub-model-id", "org/model@a..b"], 2, &["a..b", "revision"]);
    refused(&["--hub-model-id", ID, "--revision", "../x"], 2, &["revision"]);
    let both = ["--hub-model-id", "org/model@v1", "--revision", "v2"];
    refused(&both, 2, &["v1", "v2", "remove one of them"]);
    let folder = Fixture::named("bert/base").model();
    let folder = folder.to_str().unwrap();
    refused(
        &["--hub-model-id", folder, "--revision", "v2"],
        2,
        &["is a folder", "remove --revision"],
    );
    let certificates = ["--hub-model-id", ID, "--hub-ca-certs", "/no/such/file"];
    refused(&certificates, 2, &["/no/such/file", "--hub-ca-certs"]);
    let output = Cache::new()
        .program("hub.example")
        .args(["import", "--url", &standin.url(), "--hub-model-id", ID])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["HF_ENDPOINT"]);
}

#[test]
fn existing_folder_takes_precedence_over_a_hub_id() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("org")).unwrap();
    symlink(Fixture::named("bert/st-mean").model(), root.path().join(ID)).unwrap();
    let hub = serving([repository().large("model.safetensors", noise(50, 10))]);
    let standin = StandIn::start(standin::Options::default());
    let output = Cache::new()
        .program(&hub.url())
        .args(["import", "--url", &standin.url(), "--hub-model-id", ID])
        .current_dir(root.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert!(hub.requests().is_empty());
    let metadata = &standin.configuration("org__model").unwrap()["metadata"];
    assert!(metadata.get("hub_model_id").is_none() && metadata.get("hub_commit").is_none());
}
