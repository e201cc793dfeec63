//! The longest input of models that read more than 512 tokens: their memory by length, and the default.

use std::fs;
use std::path::Path;

use rust_eland::conversion::{Conversion, Options};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::version::Target;
use serde_json::{Value, json};
use standin::StandIn;
use tch::{Kind, Tensor};

use crate::fixtures::{Fixture, copy};
use crate::program::{ask, message, program, says};

const POSITIONS: i64 = 8192;

/// A BERT with 16 attention heads and 8,192 positions.
fn long_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-mean").model(), folder.path());
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let hidden = config["hidden_size"].as_i64().unwrap();
    config["max_position_embeddings"] = json!(POSITIONS);
    config["num_attention_heads"] = json!(hidden / 2);
    fs::write(&path, config.to_string()).unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    for (name, tensor) in &mut tensors {
        if name.ends_with("position_embeddings.weight") {
            *tensor = Tensor::zeros([POSITIONS, hidden], (Kind::Float, tch::Device::Cpu));
        }
    }
    Tensor::write_safetensors(&tensors, path).unwrap();
    for name in ["tokenizer_config.json", "sentence_bert_config.json"] {
        let path = folder.path().join(name);
        let text = fs::read(&path).map_or(json!({}), |text| serde_json::from_slice(&text).unwrap());
        let Value::Object(mut settings) = text else { panic!("{name}: {text}") };
        settings.remove("model_max_length");
        settings.remove("max_seq_length");
        fs::write(path, Value::from(settings).to_string()).unwrap();
    }
    folder
}

fn convert(folder: &Path, target: Target, max_length: Option<u32>) -> Conversion {
    let mut options = Options::default();
    (options.target, options.max_length) = (target, max_length);
    let files = ModelFiles::open(folder).unwrap();
    Conversion::read(&files, options, &Progress::quiet()).unwrap()
}

#[test]
fn default_is_512_tokens_if_the_longest_input_needs_more_than_a_gibibyte() {
    let folder = long_model();
    // Attention in plain operations stores the scores of all heads.
    let conversion = convert(folder.path(), Target::Any, None);
    assert_eq!(conversion.max_sequence_length(), 512);
    let notes = conversion.notes().join("\n");
    says(
        &notes,
        &["truncated to 512 tokens", "GiB for the 8192 tokens", "--max-model-input-length"],
    );
    // Fused attention does not store them.
    let fused = convert(folder.path(), Target::Serverless, None);
    assert_eq!(fused.max_sequence_length(), 8192);
    assert!(!fused.notes().join("\n").contains("GiB"));
    let asked = convert(folder.path(), Target::Any, Some(8192));
    assert_eq!(asked.max_sequence_length(), 8192);
    assert!(!asked.notes().join("\n").contains("GiB"));
    // The bytes of one pass over 512 tokens do not decide.
    let short = convert(&Fixture::named("bert/st-mean").model(), Target::Any, None);
    assert!(short.max_sequence_length() < 512);
}

#[test]
fn windows_in_blocks_need_less_memory_than_a_mask() {
    for name in ["windows/modernbert", "windows/gemma3"] {
        let folder = Fixture::named(name).model();
        let bytes = |tokens| {
            let mut options = Options::of_task(Task::PassThrough);
            (options.target, options.max_length) = (Target::Serverless, Some(tokens));
            let files = ModelFiles::open(&folder).unwrap();
            let conversion = Conversion::read(&files, options, &Progress::quiet()).unwrap();
            let traced = conversion.trace().unwrap();
            conversion.peak_memory().unwrap().measure(&traced.module).unwrap()
        };
        // Graphs for fewer than 2,048 tokens have masks.
        let (masked, blocks) = (bytes(2047), bytes(2048));
        assert!(2 * blocks < masked, "{name}: {blocks} {masked}");
    }
}

#[test]
fn inspect_shows_memory_by_length() {
    let folder = long_model();
    let output = program().args(["inspect", "--hub-model-id"]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    says(&page, &["maximum input   512 tokens (memory)", "at 512 tokens", "at 2,048 tokens"]);
    says(&page, &["at 8,192 tokens", "--max-model-input-length raises the limit"]);
    let more = ["--max-model-input-length", "1000", "--output", "json"];
    let output =
        program().args(["inspect", "--hub-model-id"]).arg(folder.path()).args(more).output();
    let plan: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let lengths = plan["memory_by_length"].as_array().unwrap();
    let lengths: Vec<_> = lengths.iter().map(|it| it["tokens"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [512, 1000]);
    assert_eq!(plan["max_length"], 1000);
    let memory = &plan["memory"]["per_allocation_bytes"];
    assert_eq!(&plan["memory_by_length"][1]["bytes"], memory);
}

#[test]
fn import_logs_the_default_and_stores_it() {
    let folder = long_model();
    // The libtorch of 8.15 stores the scores of fused attention with a mask, that of 8.16 does not.
    for (version, tokens) in [("8.12.2", 512), ("8.15.0", 512), ("8.16.0", 8192)] {
        let version = version.parse().unwrap();
        let standin = StandIn::start(standin::Options { version, ..Default::default() });
        let output = program()
            .args(["import", "--es-model-id", "m", "--url", &standin.url(), "--hub-model-id"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let log = message(&output);
        let (_, answer) = ask(&standin, "GET", "/_ml/trained_models/m", None);
        let config = &answer["trained_model_configs"][0]["inference_config"]["text_embedding"];
        let stored = &config["tokenization"]["bert"]["max_sequence_length"];
        assert_eq!(*stored, tokens, "{log}");
        assert_eq!(log.contains("truncated to 512 tokens"), tokens == 512, "{log}");
    }
}
