//! `rust-eland tokenize`: tokens of the server beside the model's own.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixtures::Fixture;
use crate::program::{message, output_with_input, program, says};

/// Runs the program on the lines of standard input and returns the JSON documents of its output.
fn tokenize(arguments: &[&str], input: &str) -> Vec<Value> {
    let mut command = program();
    command.args(["tokenize", "--output", "json"]).args(arguments);
    let output = output_with_input(&mut command, input.as_bytes());
    assert!(output.status.success(), "{}", message(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A bundle with the vocabulary and settings of a folder of `tests/fixtures/server-tokens`, without its definition.
fn bundle_of(name: &str) -> (TempDir, PathBuf) {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/server-tokens").join(name);
    let folder = tempfile::tempdir().unwrap();
    let mut vocabulary = Vec::new();
    let file = fs::File::open(source.join("vocabulary.json.gz")).unwrap();
    GzDecoder::new(file).read_to_end(&mut vocabulary).unwrap();
    fs::write(folder.path().join("m.vocab.json"), vocabulary).unwrap();
    let tokenization: Value =
        serde_json::from_slice(&fs::read(source.join("tokenization.json")).unwrap()).unwrap();
    let metadata = json!({
        "packaged_model_id": "m", "minimum_version": "8.16.0", "size": 7, "sha256": "0",
        "vocabulary_file": "m.vocab.json", "model_type": "pytorch",
        "inference_config": {"text_embedding": {"tokenization": tokenization}},
    });
    let path = folder.path().join("m.metadata.json");
    fs::write(&path, metadata.to_string()).unwrap();
    (folder, path)
}

#[test]
fn bundle_gives_the_ids_of_the_server() {
    for name in ["bert-uncased", "roberta", "deberta_v2"] {
        let (_folder, metadata) = bundle_of(name);
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/server-tokens");
        let cases = fs::read_to_string(cases.join(name).join("cases.jsonl")).unwrap();
        // A line cannot hold texts with line breaks, or single texts with tabs.
        let fits = |text: &Value| match text {
            Value::String(text) => !text.contains(['\n', '\r', '\t']),
            pair => pair
                .as_array()
                .unwrap()
                .iter()
                .all(|it| !it.as_str().unwrap().contains(['\n', '\r', '\t'])),
        };
        let cases: Vec<Value> =
            cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let cases: Vec<Value> = cases.into_iter().filter(|case| fits(&case["text"])).collect();
        let line = |text: &Value| match text {
            Value::String(text) => text.clone(),
            pair => format!("{}\t{}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let input: String = cases.iter().map(|case| line(&case["text"]) + "\n").collect();
        let found = tokenize(&["--bundle", metadata.to_str().unwrap()], &input);
        assert!(cases.len() > 200 && found.len() == cases.len());
        for (case, found) in cases.iter().zip(&found) {
            assert_eq!(found["text"], case["text"]);
            assert_eq!(found["server"], case["server"], "{name}: {}", case["text"]);
            assert_eq!(found.get("error").is_some(), case["server"].is_null(), "{found}");
            assert_eq!(found.get("model"), None);
        }
    }
}

#[test]
fn model_gives_both_ids_and_marks_differences() {
    let model = Fixture::named("bert/st-mean").model();
    let model = model.to_str().unwrap();
    let found = tokenize(&["--hub-model-id", model], "hello\nhello😀\n\tsecond\n");
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["server"], found[0]["model"]);
    assert_ne!(found[1]["server"], found[1]["model"]);
    assert_eq!(found[2]["text"], json!(["", "second"]));
    assert_eq!(found[2]["server"], Value::Null);
    assert!(found[2]["error"].is_string() && found[2]["model"].is_array());

    let output =
        program().args(["tokenize", "--hub-model-id", model, "hello", "hello😀"]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    says(&table, &["\"hello\"\n  server  [CLS] ", "\"hello😀\"", "»", "«"]);
    assert_eq!(table.matches('»').count(), table.matches('«').count());
}

#[test]
fn graph_line_shows_what_the_model_reads() {
    let model = Fixture::named("deberta-v2/st-mean").model();
    let model = model.to_str().unwrap();
    let found = tokenize(&["--hub-model-id", model], "London😀😀\nLondon\n");
    assert_eq!(found[0]["graph"], found[0]["model"]);
    assert!(
        found[0]["server"].as_array().unwrap().len() > found[0]["model"].as_array().unwrap().len()
    );
    assert_eq!((found[1].get("graph"), &found[1]["server"]), (None, &found[1]["model"]));
    let output =
        program().args(["tokenize", "--hub-model-id", model, "London😀"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    says(&table, &["<0xF0> <0x9F> <0x98> <0x80>", "\n  graph  ", "[UNK]"]);
    assert!(!table.contains('»'), "{table}");
}

#[test]
fn unusual_texts_are_shown_safely() {
    let model = Fixture::named("bert/st-mean").model();
    let model = model.to_str().unwrap();
    let long = "the river ".repeat(400);
    let input = format!("\u{1b}[31mred\u{7}\n\n{long}\r\n");
    let found = tokenize(&["--hub-model-id", model], &input);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["text"], "\u{1b}[31mred\u{7}");
    assert_eq!((&found[1]["text"], found[1]["server"].as_array().unwrap().len()), (&json!(""), 2));
    assert_eq!((&found[2]["truncated"], &found[2]["text"]), (&json!(true), &json!(long)));
    let arguments = ["tokenize", "--hub-model-id", model, "\u{1b}[31mred\u{7}", "", &long];
    let output = program().args(arguments).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(!table.contains(['\u{1b}', '\u{7}']), "{table}");
    says(&table, &["\n\"\"\n  server  [CLS] [SEP]", "(too long for one row)"]);
}

#[test]
fn inspect_warns_with_an_example_of_each_difference() {
    let inspect = |fixture: &str, more: &[&str]| {
        let model = Fixture::named(fixture).model();
        let output = program()
            .args(["inspect", "--output", "json", "--hub-model-id"])
            .arg(model)
            .args(more)
            .output()
            .unwrap();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["warnings"].to_string()
    };
    let bert = inspect("bert/st-mean", &[]);
    says(&bert, &["beyond U+FFFF", "😀", "no-break spaces", "instead of"]);
    assert!(!bert.contains("pairs"), "{bert}");
    says(&inspect("bert/zero-shot", &[]), &["rejects pairs whose first text is empty"]);
    says(&inspect("deberta-v2/zero-shot", &[]), &["rejects pairs with an empty text"]);
    assert!(!inspect("deberta-v2/st-mean", &[]).contains("bytes"));
    says(&inspect("roberta/ner", &[]), &["splits special tokens", "</s>"]);
}

#[test]
fn inspect_texts_names_the_causes() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "hello\nbonjour\u{A0}!\nhello😀\n").unwrap();
    let model = Fixture::named("bert/st-mean").model();
    let inspect = |more: &[&str]| {
        let mut program = program();
        program.args(["inspect", "--hub-model-id"]).arg(&model).arg("--texts").arg(&texts);
        String::from_utf8(program.args(more).output().unwrap().stdout).unwrap()
    };
    let plan: Value = serde_json::from_str(&inspect(&["--output", "json"])).unwrap();
    let summary = &plan["texts"];
    assert_eq!((&summary["total"], &summary["equal"]), (&json!(3), &json!(1)), "{summary}");
    assert_eq!(summary["different"][0]["line"], 2);
    says(&summary["different"][0]["causes"].to_string(), &["no-break spaces (U+00A0)"]);
    says(&summary["different"][1]["causes"].to_string(), &["beyond U+FFFF (😀)"]);
    assert_eq!(summary["answers"]["texts"], 2);
    let cosine = summary["answers"]["cosine_min"].as_f64().unwrap();
    assert!(cosine < 0.9999 && cosine > -1., "{cosine}");
    says(&inspect(&[]), &["1 of 3 texts", "line 2: no-break spaces (U+00A0)", "answers", "cosine"]);
}

#[test]
fn answers_of_every_task_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "[MASK] London\u{A0}river 😀\tLondon 😀 river\n").unwrap();
    let single = folder.path().join("single.txt");
    fs::write(&single, "[MASK] London\u{A0}river 😀\n").unwrap();
    for (fixture, texts) in [
        ("bert/masked-lm", &single),
        ("bert/ner", &single),
        ("bert/text-classification", &single),
        ("bert/zero-shot", &texts),
        ("bert/cross-encoder", &texts),
        ("bert/question-answering", &texts),
    ] {
        let output = program()
            .args(["inspect", "--output", "json", "--hub-model-id"])
            .arg(Fixture::named(fixture).model())
            .arg("--texts")
            .arg(texts)
            .output()
            .unwrap();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let answers = &plan["texts"]["answers"];
        assert_eq!(answers["texts"], 1, "{fixture}: {}", message(&output));
        let has_choice = fixture != "bert/cross-encoder";
        assert_eq!(answers["same_answer"].is_u64(), has_choice, "{fixture}: {answers}");
        assert!(answers["largest_difference"].as_f64().unwrap() >= 0., "{fixture}");
    }
}

#[test]
fn inspect_reads_texts_as_infer_does() {
    let folder = tempfile::tempdir().unwrap();
    let inspect = |fixture: &str, name: &str, texts: &[u8]| {
        let file = folder.path().join(name);
        fs::write(&file, texts).unwrap();
        program()
            .args(["inspect", "--output", "json", "--hub-model-id"])
            .arg(Fixture::named(fixture).model())
            .arg("--texts")
            .arg(file)
            .output()
            .unwrap()
    };
    let csv = "id,text\n1,\"one\nline\"\n2,bonjour\u{A0}!\n";
    let output = inspect("bert/st-mean", "a.csv", csv.as_bytes());
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["texts"]["total"], 2, "{plan}");
    assert_eq!(plan["texts"]["different"][0]["line"], 4);
    for (fixture, texts, part) in [
        ("bert/st-mean", &b""[..], "a.txt has no texts"),
        ("bert/st-mean", b"one\nd\xe9j\xe0\n", "a.txt, line 2: the text is not UTF-8"),
        ("bert/cross-encoder", b"single\n", "text 1 is not a pair"),
    ] {
        let output = inspect(fixture, "a.txt", texts);
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), &[part]);
    }
}

#[test]
fn inspect_names_the_no_break_spaces_of_french_text() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("french.txt");
    let french = "Quel est le r\u{E9}pertoire\u{A0}?\nIl dit\u{202F}: \u{AB}\u{A0}bonjour\u{A0}\u{BB}.\nSans espace.\n";
    fs::write(&texts, french).unwrap();
    let output = program()
        .args(["inspect", "--hub-model-id"])
        .arg(Fixture::named("bert/st-mean").model())
        .arg("--texts")
        .arg(&texts)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let plan = String::from_utf8(output.stdout).unwrap();
    says(&plan, &["line 1: no-break spaces (U+00A0)", "line 2: no-break spaces (U+202F)"]);
    assert!(!plan.contains("line 3"), "{plan}");
}
