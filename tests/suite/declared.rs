//! Models whose files declare something unusual: the stand-in, which tokenizes as Elasticsearch does, returns what Transformers or
//! sentence-transformers compute (see tests/fixtures/declared.py).

use std::path::{Path, PathBuf};
use std::process::Output;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use standin::{Options, StandIn};

use crate::program::{ask, message, program};

#[derive(Deserialize)]
struct Expected {
    task: String,
    numbers: Option<Vec<f64>>,
    warnings: Vec<String>,
    text: String,
    pair: [String; 2],
    /// Answer to the question.
    answer: Option<String>,
    /// Probability of each label, with and without independent labels.
    zero_shot: Option<Map<String, Value>>,
    /// Words of entities.
    tagged: Option<Vec<Tagged>>,
}

#[derive(Deserialize)]
struct Tagged {
    word: String,
    /// Position in the text.
    start: u64,
    class: String,
    probability: f64,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/declared").join(name)
}

/// The first result of the model `m`.
fn infer(standin: &StandIn, task: &str, text: &str, options: &Value) -> Value {
    let body = json!({"docs": [{"text_field": text}], "inference_config": {task: options}});
    let (status, answer) = ask(standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
    assert_eq!(status, 200, "{answer}");
    answer["inference_results"][0].clone()
}

#[track_caller]
fn close(found: &Value, expected: f64, name: &str) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{name}: {found}"));
    assert!(
        (found - expected).abs() <= 1e-4 * expected.abs().max(1.),
        "{name}: {found}, not {expected}"
    );
}

/// Imports a fixture for the task that the program selects, and compares the result.
fn check(standin: &StandIn, name: &str) {
    let expected = std::fs::read(folder(name).join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&expected).unwrap();
    let Expected { task, text, pair, .. } = &expected;
    let mut command = program();
    command.args(["import", "--start", "--clear-previous", "--es-model-id", "m", "--url"]);
    command.arg(standin.url()).arg("--hub-model-id").arg(folder(name).join("model"));
    let output = command.output().unwrap();
    let log = message(&output);
    assert!(output.status.success(), "{name}: {log}");
    for warning in &expected.warnings {
        assert!(log.contains(warning), "{name} {warning}: {log}");
    }
    let (_, models) = ask(standin, "GET", "/_ml/trained_models/m", None);
    let config = &models["trained_model_configs"][0]["inference_config"][task];
    assert!(config.is_object(), "{name}: {models}");
    let numbers = expected.numbers.as_deref().unwrap_or_default();
    match task.as_str() {
        "text_similarity" => {
            let found = infer(standin, task, &pair[1], &json!({ "text": pair[0] }));
            close(&found["predicted_value"], numbers[0], name);
        }
        "question_answering" => {
            let found = infer(standin, task, &pair[1], &json!({ "question": pair[0] }));
            assert_eq!(found["predicted_value"], json!(expected.answer), "{name}");
            close(&found["prediction_probability"], numbers[0], name);
        }
        "text_classification" => {
            let found = infer(standin, task, text, &json!({"num_top_classes": -1}));
            let labels = config["classification_labels"].as_array().unwrap();
            assert_eq!(labels.len(), numbers.len(), "{name}");
            for class in found["top_classes"].as_array().unwrap() {
                let place = labels.iter().position(|label| *label == class["class_name"]).unwrap();
                close(&class["class_probability"], numbers[place], name);
            }
        }
        "text_embedding" => {
            let found = infer(standin, task, text, &json!({}));
            assert_eq!(config["embedding_size"], json!(numbers.len()), "{name}");
            for (found, expected) in
                found["predicted_value"].as_array().unwrap().iter().zip(numbers)
            {
                close(found, *expected, name);
            }
        }
        "text_expansion" => {
            let tokens = std::fs::read_to_string(folder(name).join("model/vocab.txt")).unwrap();
            let found = infer(standin, task, text, &json!({}));
            for (token, expected) in tokens.lines().zip(numbers) {
                let token = token.replace('.', "__");
                let weight = found["predicted_value"].get(&token).cloned().unwrap_or(json!(0.));
                close(&weight, *expected, &format!("{name} {token}"));
            }
        }
        "zero_shot_classification" => {
            for (multi, scores) in expected.zero_shot.iter().flatten() {
                let scores = scores.as_object().unwrap();
                let labels: Vec<_> = scores.keys().collect();
                let options = json!({"labels": labels, "multi_label": multi == "multi"});
                let found = infer(standin, task, text, &options);
                for class in found["top_classes"].as_array().unwrap() {
                    let score = &scores[class["class_name"].as_str().unwrap()];
                    close(&class["class_probability"], score.as_f64().unwrap(), name);
                }
            }
        }
        "ner" => {
            let found = infer(standin, task, text, &json!({}));
            let entities = found["entities"].as_array().unwrap();
            let tagged = expected.tagged.unwrap_or_default();
            assert!(!tagged.is_empty(), "{name}");
            for Tagged { word, start, class, probability } in &tagged {
                let has_word = |entity: &&Value| {
                    let [from, to] =
                        ["start_pos", "end_pos"].map(|name| entity[name].as_u64().unwrap());
                    (from..to).contains(start)
                };
                let Some(found) = entities.iter().find(has_word) else {
                    panic!("{name} {word} {class}: {entities:?}");
                };
                assert_eq!(found["class_name"], json!(class), "{name} {word}");
                // An entity of several words has the mean of their probabilities.
                if found["entity"] == json!(word) {
                    close(&found["class_probability"], *probability, &format!("{name} {word}"));
                }
            }
        }
        other => panic!("{other}"),
    }
}

/// Checks several fixtures with one stand-in.
fn check_all(names: &[&str]) {
    let standin = StandIn::start(Options::default());
    for name in names {
        check(&standin, name);
    }
}

#[test]
fn token_types_follow_the_tokenizer() {
    check_all(&[
        "no-token-types-by-names",
        "no-token-types-by-class",
        "no-token-types-by-template",
    ]);
}

#[test]
fn pair_layout_follows_the_tokenizer() {
    check_all(&["one-separator", "one-separator-question-answering"]);
    check_all(&["two-separators", "two-separators-question-answering", "second-text-first"]);
}

#[test]
fn single_text_layout_follows_the_tokenizer() {
    check_all(&["single-text-of-type-1", "entities-without-special-tokens"]);
}

#[test]
fn renamed_vocabulary_returns_exact_results() {
    check_all(&["renamed-special-tokens", "cased-vocabulary-lower-cased"]);
}

#[test]
fn tokenization_that_differs_is_reported() {
    check_all(&["added-tokens", "truncation-side-left", "lower-case-with-accents"]);
}

#[test]
fn sentence_transformers_settings_are_applied() {
    check_all(&["truncate-dim", "splade-max", "splade-sum-log1p", "cross-encoder", "dense-layers"]);
}

#[test]
fn unusual_json_is_read_as_in_python() {
    check_all(&["nulls-and-python-numbers", "values-of-other-types", "no-model-type"]);
    check_all(&["contradicting-num-labels"]);
}

#[test]
fn labels_are_converted_to_the_form_of_elasticsearch() {
    check_all(&["two-inference-labels", "entities-plain", "entities-bioes", "multi-label"]);
    check_all(&["entities-without-outside"]);
}

#[test]
fn weights_of_unusual_shape_and_type_are_built() {
    check_all(&["pruned-heads", "bitsandbytes-8-bit"]);
}

/// A copy of a fixture with `config.json` changed.
fn refused(name: &str, change: impl FnOnce(&mut Value), file: &str) -> String {
    let copy = tempfile::tempdir().unwrap();
    crate::fixtures::copy(&folder(name).join("model"), copy.path());
    let path = copy.path().join(file);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
    let output = export(copy.path());
    assert!(!output.status.success());
    message(&output)
}

/// Exports the model of a folder to its subfolder `out`.
fn export(folder: &Path) -> Output {
    program()
        .args(["export", "--es-model-id", "m", "--output"])
        .arg(folder.join("out"))
        .arg("--hub-model-id")
        .arg(folder)
        .output()
        .unwrap()
}

#[test]
fn quantized_checkpoint_is_rejected_with_its_scheme() {
    for (scheme, name) in [
        (json!({"quant_method": "gptq", "bits": 4}), "gptq, 4 bits"),
        (json!({"quant_method": "mxfp4"}), "mxfp4"),
        (json!({"load_in_4bit": true}), "bitsandbytes, 4 bits"),
        (
            json!({"compression_config": {"quant_method": "compressed-tensors"}}),
            "compressed-tensors",
        ),
    ] {
        let change = |config: &mut Value| config["quantization_config"] = scheme;
        let message = refused("no-token-types-by-names", change, "config.json");
        assert!(message.contains(&format!("quantized ({name})")), "{message}");
    }
}

#[test]
fn steps_that_the_server_does_not_have_are_named() {
    let copy = tempfile::tempdir().unwrap();
    crate::fixtures::copy(&folder("no-token-types-by-template").join("model"), copy.path());
    let path = copy.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b"});
    json["normalizer"] =
        json!({"type": "Sequence", "normalizers": [replace, json["normalizer"].take()]});
    json["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    std::fs::write(&path, json.to_string()).unwrap();
    let output = program().args(["inspect", "--hub-model-id"]).arg(copy.path()).output().unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    crate::program::says(&plan, &["Replace, WhitespaceSplit"]);
}

#[test]
fn integers_without_scales_are_rejected_as_weights() {
    let name = "bitsandbytes-8-bit";
    let copy = tempfile::tempdir().unwrap();
    crate::fixtures::copy(&folder(name).join("model"), copy.path());
    let weights = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    // The scales get another name of the same length.
    let text: Vec<u8> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == b".SCB")
        .map(|(place, _)| place)
        .fold(bytes.clone(), |mut bytes, place| {
            bytes[place + 1..place + 4].copy_from_slice(b"XYZ");
            bytes
        });
    std::fs::write(&weights, text).unwrap();
    let message = message(&export(copy.path()));
    assert!(message.contains("has the type int8"), "{message}");
}

#[test]
fn class_outside_the_library_is_rejected_by_name() {
    let change = |modules: &mut Value| modules[1]["type"] = json!("custom_st.Pooling");
    let message = refused("added-tokens", change, "modules.json");
    assert!(message.contains("custom_st.Pooling"), "{message}");
    assert!(!message.contains("etch it again"), "{message}");
}

#[test]
fn labels_with_a_gap_are_rejected_for_classifiers() {
    let gap = json!({"1": "a", "2": "b"});
    let change = |config: &mut Value| config["id2label"] = gap;
    let message = refused("contradicting-num-labels", change, "config.json");
    assert!(message.contains("none of them has id 0"), "{message}");
    assert!(!message.contains("etch it again"), "{message}");
}
