//! Unsuitable model folders: one clear message, exit code 3, and no output.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fixtures::{Fixture, copy};
use crate::program::{program, says};

/// A copy of a fixture's model that a test can damage.
struct Model {
    root: tempfile::TempDir,
}

impl Model {
    fn copy_of(fixture: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy(&Fixture::named(fixture).model(), &root.path().join("model"));
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("model").join(name)
    }

    fn remove(&self, name: &str) -> &Self {
        fs::remove_file(self.path(name)).unwrap();
        self
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    fn config(&self, key: &str, value: Value) -> &Self {
        self.json("config.json", key, value)
    }

    fn json(&self, name: &str, key: &str, value: Value) -> &Self {
        let mut json: Value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        json[key] = value;
        self.write(name, json.to_string())
    }

    /// Exports the model and returns the error message.
    fn refused(&self, task: &str) -> String {
        let output = self.root.path().join("out");
        let run = program()
            .args(["export", "--task-type", task, "--es-model-id", "m"])
            .arg("--hub-model-id")
            .arg(self.path(""))
            .arg("--output")
            .arg(&output)
            .env("RUST_LOG", "off")
            .output()
            .unwrap();
        let message = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(3), "{message}");
        assert!(run.stdout.is_empty());
        let left = fs::read_dir(&output).map_or(0, Iterator::count);
        assert_eq!(left, 0, "files are left in {output:?}");
        assert!(message.starts_with("error: "), "{message}");
        message
    }
}

#[test]
fn folder_without_config_is_rejected() {
    let model = Model::copy_of("bert/ner");
    says(
        &model.remove("config.json").refused("ner"),
        &["config.json", "check that this is the folder"],
    );
    says(&model.write("config.json", "{").refused("ner"), &["config.json is not valid"]);
    // The weights show the architecture, and nothing names the labels.
    says(
        &model.write("config.json", "{}").refused("ner"),
        &["cannot serve ner", "does not contain the weights"],
    );
}

#[test]
fn unknown_architecture_is_rejected() {
    let model = Model::copy_of("bert/ner");
    says(
        &model.config("model_type", json!("mamba")).refused("ner"),
        &["model_type mamba", "supported: albert, bart, bert"],
    );
    // XLNet is a known architecture that Elasticsearch has no tokenizer for.
    let message = model.config("model_type", json!("xlnet")).refused("ner");
    says(&message, &["xlnet", "Elasticsearch has no tokenizer"]);
}

#[test]
fn config_without_a_valid_model_is_rejected() {
    let refused =
        |key: &str, value: Value| Model::copy_of("bert/ner").config(key, value).refused("ner");
    says(&refused("hidden_act", json!("xielu")), &["xielu", "gelu"]);
    says(&refused("num_attention_heads", json!(5)), &["not a multiple of num_attention_heads 5"]);
    says(&refused("num_hidden_layers", json!(1_000_000_000)), &["num_hidden_layers is 1000000000"]);
    says(&refused("hidden_size", json!(-1)), &["hidden_size is -1"]);
    says(&refused("is_decoder", json!(true)), &["decoder"]);
    says(&refused("hidden_size", json!("wide")), &["config.json"]);
}

#[test]
fn missing_head_is_rejected() {
    // Transformers would fill the head with random numbers.
    let message = Model::copy_of("bert/base").refused("ner");
    says(&message, &["cannot serve ner", "does not contain the weights"]);
    let message = Model::copy_of("bert/masked-lm").refused("question_answering");
    says(
        &message,
        &[
            "qa_outputs.weight [2, 32] is missing",
            "qa_outputs.bias",
            "It can serve fill_mask, pass_through, text_embedding, text_expansion",
        ],
    );
}

#[test]
fn labels_unsuitable_for_the_task_are_rejected() {
    let message = Model::copy_of("bert/text-classification").refused("text_similarity");
    says(&message, &["one score", "3 labels", "It can serve", "text_classification"]);
    let message = Model::copy_of("bert/text-classification").refused("zero_shot_classification");
    says(&message, &["contradiction, entailment and neutral"]);
    let message = Model::copy_of("bert/cross-encoder").refused("text_classification");
    says(&message, &["at least two labels", "text_similarity"]);
}

#[test]
fn shapes_different_from_config_are_rejected() {
    let message = Model::copy_of("bert/ner").config("intermediate_size", json!(7)).refused("ner");
    says(
        &message,
        &["intermediate.dense.weight has the shape", "but config.json requires [7, 32]"],
    );
}

#[test]
fn damaged_weights_are_rejected() {
    let model = Model::copy_of("bert/ner");
    let whole = fs::read(model.path("model.safetensors")).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        let message = model.write("model.safetensors", &whole[..length]).refused("ner");
        says(&message, &["model.safetensors", "download it again"]);
    }
    let mut garbled = whole.clone();
    garbled[8] = b'x';
    says(&model.write("model.safetensors", &garbled).refused("ner"), &["header is not valid"]);
    garbled[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    says(&model.write("model.safetensors", &garbled).refused("ner"), &["1152921504606846976"]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    says(&model.write("model.safetensors", pointer).refused("ner"), &["git lfs pull"]);
    says(&model.remove("model.safetensors").refused("ner"), &["no weights (model.safetensors"]);
}

#[test]
fn missing_empty_or_foreign_vocabulary_is_rejected() {
    let model = Model::copy_of("bert/gamma-beta");
    let whole = fs::read_to_string(model.path("vocab.txt")).unwrap();
    says(&model.write("vocab.txt", "").refused("fill_mask"), &["vocab.txt", "no tokens"]);
    let cut = whole.replace("[SEP]\n", "x\n");
    says(&model.write("vocab.txt", cut).refused("fill_mask"), &["lack [SEP]"]);
    let longer = format!("{whole}one\ntoo\nmany\n");
    says(&model.write("vocab.txt", longer).refused("fill_mask"), &["do not belong together"]);
    says(&model.remove("vocab.txt").refused("fill_mask"), &["vocab.txt", "tokenizer.json"]);
    let model = Model::copy_of("bert/tokenizer-json-only");
    says(&model.write("tokenizer.json", "{}").refused("pass_through"), &["tokenizer.json"]);
}

#[test]
fn length_above_the_position_table_is_rejected() {
    let model = Model::copy_of("bert/base");
    let run = program()
        .args(["export", "--task-type", "pass_through", "--max-model-input-length", "65"])
        .arg("--hub-model-id")
        .arg(model.path(""))
        .arg("--output")
        .arg(model.root.path())
        .output()
        .unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3));
    says(&message, &["input length 65", "64 positions", "--max-model-input-length"]);
}

#[test]
fn unsupported_or_outside_modules_are_rejected() {
    let module =
        |class: &str, path: &str| json!({"idx": 1, "name": "1", "path": path, "type": class});
    let transformer = module("sentence_transformers.models.Transformer", "");
    let with = |second: Value| {
        let model = Model::copy_of("bert/st-mean");
        let modules = json!([transformer, second]).to_string();
        model.write("modules.json", modules).refused("text_embedding")
    };
    says(&with(module("sentence_transformers.models.CNN", "1_CNN")), &["CNN", "not supported"]);
    says(
        &with(module("sentence_transformers.models.Pooling", "../../etc")),
        &["out of the model's folder"],
    );
    says(
        &with(module("sentence_transformers.models.Pooling", "9_Pooling")),
        &["9_Pooling", "config.json"],
    );
}

#[test]
fn unused_tensors_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let exported = |fixture: &str, task: &str| {
        let run = program()
            .args(["export", "--task-type", task, "--es-model-id", "m", "--hub-model-id"])
            .arg(Fixture::named(fixture).model())
            .arg("--output")
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(run.status.success());
        String::from_utf8(run.stderr).unwrap()
    };
    let left = "unused tensors in model.safetensors: classifier.bias, classifier.weight";
    says(&exported("bert/ner", "pass_through"), &[left]);
    // Poolers, positions and pre-training heads of old files are not reported.
    let message = exported("bert/gamma-beta", "pass_through");
    assert!(!message.contains("unused tensors"), "{message}");
}
