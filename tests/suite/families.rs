//! Families of models that Elasticsearch cannot serve are refused by name, before their weights are downloaded.

use std::fs;

use ::hub::Repository;
use serde_json::{Value, json};

use crate::fixtures::{Fixture, copy};
use crate::from_hub::{Cache, ID, asked, serving};
use crate::program::{message, program, says};

/// A repository with `config.json`, other small files, and weights.
fn repository(config: Option<Value>, files: &[(&str, Value)]) -> Repository {
    let mut repository = Repository::new(ID).large("model.safetensors", "x");
    if let Some(config) = config {
        repository = repository.file("config.json", config.to_string());
    }
    files
        .iter()
        .fold(repository, |repository, (name, content)| repository.file(name, content.to_string()))
}

#[test]
fn family_is_refused_before_the_download_of_weights() {
    let bert = || Some(json!({"model_type": "bert", "architectures": ["BertModel"]}));
    let pylate = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]);
    let sudachi =
        json!({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "sudachi"});
    let cases = [
        (repository(Some(json!({"model_type": "qwen3"})), &[]), ["Qwen", "expression of GPT-2"]),
        (repository(Some(json!({"model_type": "mistral"})), &[]), ["e5-mistral", "28 GB"]),
        (
            repository(Some(json!({"model_type": "bert", "architectures": ["HF_ColBERT"]})), &[]),
            ["ColBERT", "one vector for each token"],
        ),
        (repository(bert(), &[("modules.json", pylate)]), ["ColBERT", "one vector for each token"]),
        (repository(None, &[("gliner_config.json", json!({}))]), ["GLiNER", "spans"]),
        (repository(bert(), &[("tokenizer_config.json", sudachi)]), ["Sudachi", "Kuromoji"]),
        (
            repository(
                Some(json!({"model_type": "roberta", "tokenizer_class": "PhobertTokenizer"})),
                &[],
            ),
            ["PhoBERT", "fastBPE"],
        ),
    ];
    for (repository, parts) in cases {
        let hub = serving([repository]);
        let cache = Cache::new();
        let output = cache.download(&hub, &[]);
        assert_eq!(output.status.code(), Some(3), "{parts:?}");
        says(&message(&output), &["Elasticsearch cannot serve"]);
        says(&message(&output), &parts);
        assert!(asked(&hub, "safetensors").is_empty(), "{parts:?}");
    }
}

#[test]
fn inspect_shows_why_a_family_is_refused() {
    let copied = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-mean").model(), copied.path());
    fs::write(copied.path().join("artifact.metadata"), "{}").unwrap();
    let output = program().args(["inspect", "--hub-model-id"]).arg(copied.path()).output().unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), message(&output));
    says(&shown, &["ColBERT models", "one vector for each token"]);

    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("gliner_config.json"), "{}").unwrap();
    let output = program().args(["inspect", "--hub-model-id"]).arg(empty.path()).output().unwrap();
    says(&message(&output), &["GLiNER models"]);
}
