//! `rust-eland verify` and `import --verify-served`: the cluster's answers are compared with those of the model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use hub::Repository;
use rust_eland::tasks::Task;
use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::fixtures::{Fixture, copy};
use crate::from_hub::serving;
use crate::program::{message, program, says};

/// Imports and starts the model `m`.
fn import(standin: &StandIn, model: &Path, task: Task, more: &[&str]) -> Output {
    let output = program()
        .args(["import", "--url", &standin.url(), "--task-type", task.name(), "--es-model-id", "m"])
        .args(["--start"])
        .args(more)
        .arg("--hub-model-id")
        .arg(model)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    output
}

/// The report of `verify` on the model `m`, and the exit code.
fn verify(standin: &StandIn, model: &Path, more: &[&str]) -> (Value, i32) {
    let output = program()
        .args(["verify", "--url", &standin.url(), "--es-model-id", "m", "--output", "json"])
        .args(more)
        .arg("--hub-model-id")
        .arg(model)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|_| panic!("{}", message(&output))), output.status.code().unwrap())
}

/// A copy of a fixture's model, in which a JSON file is changed.
fn changed(fixture: &str, file: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named(fixture).model(), folder.path());
    let path = folder.path().join(file);
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
    folder
}

/// The causes of all different answers.
fn causes(report: &Value) -> Vec<&str> {
    let mut causes: Vec<&str> = report["different"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["cause"].as_str().unwrap())
        .collect();
    causes.sort_unstable();
    causes.dedup();
    causes
}

#[test]
fn own_models_of_all_tasks_are_verified() {
    for (fixture, task) in [
        ("bert/masked-lm", Task::FillMask),
        ("bert/ner", Task::Ner),
        ("bert/base", Task::PassThrough),
        ("roberta/question-answering", Task::QuestionAnswering),
        ("bert/text-classification", Task::TextClassification),
        ("xlm-roberta/st-cls", Task::TextEmbedding),
        ("bert/masked-lm", Task::TextExpansion),
        ("bert/cross-encoder", Task::TextSimilarity),
        ("roberta/zero-shot", Task::ZeroShotClassification),
        // Each token of a Unigram tokenizer is a word; unknown characters have a token for each byte.
        ("deberta-v2/ner", Task::Ner),
        ("deberta-v2/st-mean", Task::TextEmbedding),
        ("xlm-roberta/question-answering", Task::QuestionAnswering),
        ("camembert/ner", Task::Ner),
    ] {
        let standin = StandIn::start(Options::default());
        let model = Fixture::named(fixture).model();
        import(&standin, &model, task, &[]);
        let (report, code) = verify(&standin, &model, &[]);
        // Differences of the tokenizers are possible; the graph and its settings must be equal.
        let causes = causes(&report);
        let is_of_tokens = |cause: &&str| ["tokens", "truncation"].contains(cause);
        assert!(causes.iter().all(is_of_tokens), "{fixture} {task}: {report}");
        assert_eq!(code, if causes.is_empty() { 0 } else { 9 }, "{fixture} {task}");
        assert_eq!(
            (&report["texts"], &report["settings"]),
            (&json!(64), &json!([])),
            "{fixture} {task}"
        );
        // Tokens for bytes leave less room for the text in the 64 tokens of the fixture.
        let least = if fixture.starts_with("deberta") { 50 } else { 60 };
        assert!(report["equal"].as_u64().unwrap() >= least, "{fixture} {task}: {report}");
        for different in report["different"].as_array().unwrap() {
            assert_ne!(different["server_tokens"], different["model_tokens"], "{fixture} {task}");
            assert!(different["model_tokens"].is_array(), "{fixture} {task}: {different}");
        }
    }
}

#[test]
fn answers_of_unigram_models_are_equal_beside_unknown_characters() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts.txt");
    // The built-in texts have more tokens for bytes than the fixture's maximum of 64 tokens.
    let pairs = "who won\tLondon 東京 won\n東京 who\tthe river 😀 by London\nwhere is Ada\tAda lives in 東 York\n";
    fs::write(&texts, pairs).unwrap();
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("deberta-v2/question-answering").model();
    import(&standin, &model, Task::QuestionAnswering, &[]);
    let (report, code) = verify(&standin, &model, &["--texts", texts.to_str().unwrap()]);
    assert_eq!((code, &report["equal"]), (0, &json!(3)), "{report}");
}

#[test]
fn wrong_pooling_is_found() {
    let standin = StandIn::start(Options::default());
    let wrong = changed("bert/st-mean", "1_Pooling/config.json", |config| {
        config["pooling_mode_mean_tokens"] = false.into();
        config["pooling_mode_cls_token"] = true.into();
    });
    import(&standin, wrong.path(), Task::TextEmbedding, &[]);
    let (report, code) = verify(&standin, &Fixture::named("bert/st-mean").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["graph"]));
    says(&report["findings"].to_string(), &["pooling", "first token"]);
}

#[test]
fn quantization_is_found_and_measured() {
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/st-mean").model();
    let output = import(&standin, &model, Task::TextEmbedding, &["--quantize", "--verify-served"]);
    says(&message(&output), &["verified: ", "rank_correlation", "top_10_overlap", "cosine_mean"]);
    let (report, code) = verify(&standin, &model, &[]);
    assert_eq!((code, causes(&report)), (9, vec!["quantization"]));
    assert_eq!(report["is_quantized"], true);
    assert!(report["agreement"]["cosine_mean"].as_f64().unwrap() > 0.99, "{report}");
    assert!(report["agreement"]["rank_correlation"].as_f64().unwrap() > 0.9, "{report}");
    let (_, code) = verify(&standin, &model, &["--tolerance", "0.5"]);
    assert_eq!(code, 0);
}

/// Multiplies the numbers of one tensor in a checkpoint.
fn scale(checkpoint: &Path, tensor: &str, factor: f32) {
    let mut bytes = fs::read(checkpoint).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    assert_eq!(tensors[tensor]["dtype"], "F32");
    let end = |at: usize| {
        header + usize::try_from(tensors[tensor]["data_offsets"][at].as_u64().unwrap()).unwrap()
    };
    for number in bytes[end(0)..end(1)].chunks_exact_mut(4) {
        let scaled = f32::from_le_bytes((&*number).try_into().unwrap()) * factor;
        number.copy_from_slice(&scaled.to_le_bytes());
    }
    fs::write(checkpoint, bytes).unwrap();
}

#[test]
fn slightly_different_weights_are_not_called_quantized() {
    let standin = StandIn::start(Options::default());
    let other = changed("bert/st-mean", "config.json", |_| ());
    let tensor = "encoder.layer.0.output.dense.weight";
    scale(&other.path().join("model.safetensors"), tensor, 1.002);
    import(&standin, other.path(), Task::TextEmbedding, &[]);
    let (report, code) = verify(&standin, &Fixture::named("bert/st-mean").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["numbers"]), "{report}");
    // So small a difference could be one of 8-bit weights.
    assert!(report["largest_difference"].as_f64().unwrap() < 5e-3, "{report}");
    assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report}");
    says(&report["findings"].to_string(), &["numbers: the weights"]);
}

#[test]
fn models_and_texts_that_cannot_be_verified_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    let fails = |id: &str, model: &Path, texts: Option<&str>, code: i32, parts: &[&str]| {
        let mut command = program();
        command.args(["verify", "--url", &standin.url(), "--es-model-id", id, "--hub-model-id"]);
        command.arg(model);
        if let Some(texts) = texts {
            let file = folder.path().join("texts.txt");
            fs::write(&file, texts).unwrap();
            command.arg("--texts").arg(file);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", message(&output));
        says(&message(&output), parts);
        message(&output)
    };
    let model = Fixture::named("bert/japanese").model();
    import(&standin, &model, Task::FillMask, &[]);
    let analyser = ["bert_ja", "Japanese analyser (kuromoji)", "does not contain"];
    fails("m", &model, None, 3, &analyser);
    fails("lang_ident_model_1", &model, None, 2, &["part of Elasticsearch", "no source"]);
    let output =
        program().args(["infer", "--hub-model-id"]).arg(&model).arg("[MASK]").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    says(&message(&output), &analyser);
    // The import is complete, and the summary is printed before the error.
    let output = program()
        .args(["import", "--start", "--verify-served", "--output", "json", "--url", &standin.url()])
        .args(["--task-type", "fill_mask", "--es-model-id", "ja", "--hub-model-id"])
        .arg(&model)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &analyser);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["model_id"], "ja", "{summary}");

    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/cross-encoder").model();
    import(&standin, &model, Task::TextSimilarity, &["--create-endpoint", "e"]);
    let fails = |texts: &str, parts: &[&str]| {
        let file = folder.path().join("texts.txt");
        fs::write(&file, texts).unwrap();
        let output = program()
            .args(["verify", "--url", &standin.url(), "--es-model-id", "m", "--hub-model-id"])
            .arg(&model)
            .arg("--texts")
            .arg(file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), parts);
        message(&output)
    };
    fails("", &["texts.txt has no texts"]);
    let said = fails("a single text\n", &["text 1 is not a pair", "by a tab"]);
    assert!(!said.contains("--query"), "{said}");
    // The id of an inference endpoint stands for its model.
    let output = program()
        .args(["verify", "--url", &standin.url(), "--es-model-id", "e", "--hub-model-id"])
        .arg(&model)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
}

#[test]
fn swapped_labels_are_found() {
    let standin = StandIn::start(Options::default());
    let swapped = changed("bert/text-classification", "config.json", |config| {
        config["id2label"]["0"] = "negative".into();
        config["id2label"]["1"] = "positive".into();
    });
    import(&standin, swapped.path(), Task::TextClassification, &[]);
    let (report, code) = verify(&standin, &Fixture::named("bert/text-classification").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["settings"]));
    assert_eq!(report["settings"][0]["name"], "text_classification.classification_labels");
}

#[test]
fn other_vocabulary_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let model = Fixture::named("bert/st-mean").model();
    let run = |arguments: &[&str]| {
        let output = program().current_dir(folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
    };
    let path = model.to_str().unwrap();
    run(&[
        "export",
        "--task-type",
        "text_embedding",
        "--es-model-id",
        "m",
        "--output",
        ".",
        "--hub-model-id",
        path,
    ]);
    let file = folder.path().join("m.vocab.json");
    let mut vocabulary: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // The special tokens keep their places.
    vocabulary["vocabulary"].as_array_mut().unwrap()[10..].reverse();
    fs::write(&file, vocabulary.to_string()).unwrap();
    let standin = StandIn::start(Options::default());
    run(&["import", "--url", &standin.url(), "--bundle", "m.metadata.json", "--start"]);
    let (report, code) = verify(&standin, &model, &[]);
    assert_eq!((code, causes(&report)), (9, vec!["numbers"]));
    says(
        &report["findings"].to_string(),
        &["vocabulary: the definition in the cluster is that of the model"],
    );
}

#[test]
fn cross_encoder_of_eland_lacks_token_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eland/cross-encoder");
    let standin = StandIn::start(Options::default());
    let output = program()
        .current_dir(&folder)
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--start"])
        .args([
            "--definition",
            "model.pt",
            "--vocabulary",
            "vocabulary.json",
            "--config",
            "config.json",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let (report, code) = verify(&standin, &Fixture::named("bert/cross-encoder").model(), &[]);
    assert_eq!((code, causes(&report)), (9, vec!["graph"]));
    says(&report["findings"].to_string(), &["token types"]);
    // eland does not store the source.
    let output =
        program().args(["verify", "--url", &standin.url(), "--es-model-id", "m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&message(&output), &["set --hub-model-id"]);
}

#[test]
fn tokens_and_truncation_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let texts: PathBuf = folder.path().join("texts.txt");
    fs::write(
        &texts,
        "hello\nbonjour\u{A0}!\nThe train from London runs by the old river in the morning.\n",
    )
    .unwrap();
    let standin = StandIn::start(Options::default());
    let model = Fixture::named("bert/st-mean").model();
    import(&standin, &model, Task::TextEmbedding, &["--max-model-input-length", "10"]);
    let (report, code) = verify(&standin, &model, &["--texts", texts.to_str().unwrap()]);
    assert_eq!((code, causes(&report)), (9, vec!["tokens", "truncation"]), "{report}");
    let different = report["different"].as_array().unwrap();
    let tokens = different.iter().find(|it| it["cause"] == "tokens").unwrap();
    assert_eq!(tokens["text"], "bonjour\u{A0}!");
    assert_ne!(tokens["server_tokens"], tokens["model_tokens"]);
    says(&report["settings"].to_string(), &["max_sequence_length"]);
}

#[test]
fn source_comes_from_the_metadata() {
    let model = Fixture::named("bert/st-mean").model();
    let hub = serving([Repository::of_folder("org/name", &model).unwrap()]);
    let cache = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    let run = |arguments: &[&str]| {
        let output = program()
            .env("HF_ENDPOINT", hub.url())
            .env("HF_HOME", cache.path())
            .args(arguments)
            .args(["--url", &standin.url(), "--es-model-id", "m"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        output
    };
    let import =
        ["import", "--hub-model-id", "org/name", "--task-type", "text_embedding", "--start"];
    let output = run(&[&import[..], &["--verify-served", "--output", "json"]].concat());
    says(&message(&output), &["verified: 64 of 64 texts within 1e-5"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["verification"]["equal"], 64);
    let output = run(&["verify", "--offline"]);
    let table = String::from_utf8(output.stdout).unwrap();
    says(&table, &["compared with org/name@", "verified: 64 of 64 texts within 1e-5"]);
}
