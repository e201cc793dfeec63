//! Families of models that Elasticsearch cannot serve are refused by name, before their weights are downloaded.

use std::fs;
use std::path::{Path, PathBuf};

use ::hub::Repository;
use serde_json::json;

use crate::fixtures::{Fixture, copy};
use crate::from_hub::{Cache, ID, asked, serving};
use crate::program::{message, program, says};

/// Folders of tests/fixtures/refused, with words of the error.
const REFUSED: [(&str, [&str; 2]); 15] = [
    ("GTE-ModernColBERT-v1", ["ColBERT", "one vector for each token"]),
    ("Qwen3-Embedding-0.6B", ["Qwen", "expression of GPT-2"]),
    ("Qwen3-Reranker-0.6B", ["Qwen", "expression of GPT-2"]),
    ("answerai-colbert-small-v1", ["ColBERT", "one vector for each token"]),
    ("bert-base-japanese-jumanpp", ["Juman++", "Kuromoji"]),
    ("bert-base-japanese-sudachi", ["Sudachi", "Kuromoji"]),
    ("bertweet-base", ["BERTweet", "fastBPE"]),
    ("e5-mistral-7b-instruct", ["e5-mistral", "28 GB"]),
    ("gliner_medium-v2.1", ["GLiNER", "spans"]),
    ("jina-colbert-v2", ["ColBERT", "one vector for each token"]),
    ("layoutlm-base-uncased", ["layout models", "position of each word"]),
    ("layoutlmv3-base", ["layout models", "position of each word"]),
    ("mxbai-rerank-base-v2", ["Qwen", "expression of GPT-2"]),
    ("phobert-base", ["PhoBERT", "fastBPE"]),
    ("roformer_chinese_base", ["jieba", "Chinese"]),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/refused").join(name)
}

#[test]
fn family_is_refused_before_the_download_of_weights() {
    for (name, parts) in REFUSED {
        let repository = Repository::of_folder(ID, &folder(name)).unwrap();
        let hub = serving([repository.large("model.safetensors", "x")]);
        let output = Cache::new().download(&hub, &[]);
        assert_eq!(output.status.code(), Some(3), "{name}: {}", message(&output));
        says(&message(&output), &["Elasticsearch cannot serve"]);
        says(&message(&output), &parts);
        assert!(asked(&hub, "safetensors").is_empty(), "{name}");
    }
}

#[test]
fn inspect_names_the_family_and_the_reason() {
    for (name, parts) in REFUSED {
        let copied = tempfile::tempdir().unwrap();
        copy(&folder(name), copied.path());
        // A checkpoint without tensors.
        fs::write(copied.path().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
        let output =
            program().args(["inspect", "--hub-model-id"]).arg(copied.path()).output().unwrap();
        let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), message(&output));
        says(&shown, &parts);
    }
}

#[test]
fn projection_of_each_token_shows_a_colbert_model() {
    let tensors = [("embeddings.word_embeddings.weight", [9, 8]), ("linear.weight", [4, 8])];
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, [rows, columns]) in tensors {
        let start = end;
        end += 4 * rows * columns;
        let offsets = [start, end];
        let entry = json!({"dtype": "F32", "shape": [rows, columns], "data_offsets": offsets});
        header.insert(name.to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + end, 0);
    let copied = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-mean").model(), copied.path());
    fs::write(copied.path().join("model.safetensors"), bytes).unwrap();
    let output = program()
        .args(["export", "--output", "/nonexistent/x", "--hub-model-id"])
        .arg(copied.path())
        .output()
        .unwrap();
    says(&message(&output), &["ColBERT models", "one vector for each token"]);
}
