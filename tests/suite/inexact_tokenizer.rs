//! Models whose tokenizer Elasticsearch cannot follow exactly.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::from_hub::files_below;
use crate::program::{ask, message, program, says};
use crate::terminal::Terminal;

/// The expression of Qwen 2, which keeps a punctuation mark and the letters after it together.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Merges of a hyphen and a letter, as in `second-hand`.
const HYPHENS: [&str; 6] = ["- h", "- k", "- t", "- p", "- b", "- d"];

/// A RoBERTa embedding model that splits words as Qwen 2 does. `languages` are those of its model card.
fn qwen2_words(languages: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = Fixture::named("roberta/st-mean").model();
    for file in files_below(&model) {
        let name = file.strip_prefix(&model).unwrap();
        if ["vocab.json", "merges.txt"].contains(&name.to_str().unwrap()) {
            continue;
        }
        let to = folder.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    change(&folder.path().join("tokenizer_config.json"), |config| {
        config["tokenizer_class"] = "PreTrainedTokenizerFast".into();
    });
    change(&folder.path().join("tokenizer.json"), |tokenizer| {
        tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]});
        replace_merges(&mut tokenizer["model"]);
    });
    if let Some(languages) = languages {
        let card = format!("---\nlanguage: {languages}\n---\n# A model\n");
        fs::write(folder.path().join("README.md"), card).unwrap();
    }
    folder
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Replaces merges whose results no other merge uses by those of [`HYPHENS`]. The ids of the results stay.
fn replace_merges(model: &mut Value) {
    let parts = |merge: &Value| -> (String, String) {
        match merge {
            Value::String(line) => {
                line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()
            }
            pair => (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned()),
        }
    };
    let merges: Vec<_> = model["merges"].as_array().unwrap().iter().map(parts).collect();
    let is_used = |token: &str| merges.iter().any(|(a, b)| a == token || b == token);
    let unused = (0..merges.len()).rev().filter(|at| {
        let (a, b) = &merges[*at];
        !is_used(&format!("{a}{b}"))
    });
    let mut replaced = 0;
    for (at, new) in unused.zip(HYPHENS) {
        let (a, b) = &merges[at];
        let vocabulary = model["vocab"].as_object_mut().unwrap();
        let id = vocabulary.shift_remove(&format!("{a}{b}")).unwrap();
        vocabulary.insert(new.replace(' ', ""), id);
        let (a, b) = new.split_once(' ').unwrap();
        model["merges"][at] = match &model["merges"][at] {
            Value::String(_) => new.into(),
            _ => json!([a, b]),
        };
        replaced += 1;
    }
    assert_eq!(replaced, HYPHENS.len());
}

fn run(command: &str, model: &Path, more: &[&str]) -> std::process::Output {
    program().args([command, "--hub-model-id"]).arg(model).args(more).output().unwrap()
}

#[test]
fn inexact_tokenizer_is_refused_unless_it_is_allowed() {
    let model = qwen2_words(None);
    let out = tempfile::tempdir().unwrap();
    let to = out.path().to_str().unwrap();
    let export = ["--es-model-id", "m", "--output", to];
    let refused = run("export", model.path(), &export);
    assert_eq!(refused.status.code(), Some(3), "{}", message(&refused));
    says(
        &message(&refused),
        &[
            "the expression of Qwen 2",
            "cannot follow this model's tokenizer exactly",
            "of the tokens and",
            "tokens by script: Latin ",
            "rust-eland tokenize",
            "--allow-inexact-tokenizer",
        ],
    );
    assert_eq!(message(&refused).matches("of the tokens and").count(), 1);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);

    let allowed =
        run("export", model.path(), &[&export[..], &["--allow-inexact-tokenizer"]].concat());
    assert!(allowed.status.success(), "{}", message(&allowed));
    let metadata: Value =
        serde_json::from_slice(&fs::read(out.path().join("m.metadata.json")).unwrap()).unwrap();
    let recorded = &metadata["metadata"]["tokenizer_difference"];
    let share = recorded["different_tokens"].as_f64().unwrap();
    assert!(share > 0.001 && share < 0.05, "{recorded}");
    assert_eq!(recorded["languages"], json!(["all"]));
    assert!(recorded["scripts"]["Latin"]["different_tokens"].as_f64().unwrap() > 0., "{recorded}");
}

#[test]
fn model_card_decides_which_languages_count() {
    // Only the Latin texts have hyphens inside of words.
    let model = qwen2_words(Some("[ru, ja]"));
    let inspected = run("inspect", model.path(), &["--output", "json"]);
    assert!(inspected.status.success(), "{}", message(&inspected));
    let plan: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let difference = &plan["tokenizer_difference"];
    assert_eq!(difference["languages"], json!(["ru", "ja"]));
    assert_eq!(difference["measured"]["different_tokens"], 0);
    assert!(difference["scripts"]["Latin"]["different_tokens"].as_u64().unwrap() > 5);
    says(&plan["warnings"].to_string(), &["some of the built-in texts", "0.0 % of the tokens"]);

    let english = qwen2_words(Some("en"));
    let inspected = run("inspect", english.path(), &[]);
    assert_eq!(inspected.status.code(), Some(3), "{}", message(&inspected));
    let shown = String::from_utf8_lossy(&inspected.stdout).into_owned();
    says(&shown, &["built-in texts", "of the texts differ in en"]);
    says(&message(&inspected), &["--allow-inexact-tokenizer"]);
    let inspected = run("inspect", english.path(), &["--allow-inexact-tokenizer"]);
    assert!(inspected.status.success(), "{}", message(&inspected));
}

#[test]
fn exact_tokenizer_has_no_difference() {
    for name in ["roberta/st-mean", "bert/st-mean", "mpnet/st-mean"] {
        let inspected = run("inspect", &Fixture::named(name).model(), &["--output", "json"]);
        let plan: Value = serde_json::from_slice(&inspected.stdout).unwrap();
        let difference = &plan["tokenizer_difference"]["measured"];
        assert_eq!(difference["different_tokens"], 0, "{name}: {plan}");
        assert!(difference["texts"].as_u64().unwrap() > 90);
        assert!(!plan["warnings"].to_string().contains("built-in"), "{name}");
        assert!(plan["configuration"]["metadata"].get("tokenizer_difference").is_none());
    }
}

#[test]
fn tokenizer_that_is_uploaded_as_it_is_only_has_a_warning() {
    // The character map of this model leaves full-width commas, which that of Elasticsearch replaces.
    let model = Fixture::named("xlm-roberta/st-cls").model();
    let inspected = run("inspect", &model, &["--output", "json"]);
    assert!(inspected.status.success(), "{}", message(&inspected));
    let plan: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert!(plan["tokenizer_difference"]["measured"]["different_tokens"].as_u64().unwrap() > 10);
    says(&plan["warnings"].to_string(), &["tokens by script: Han "]);
    assert!(plan["configuration"]["metadata"].get("tokenizer_difference").is_none());
}

#[test]
fn guided_import_asks_before_it_uses_an_inexact_tokenizer() {
    let standin = StandIn::start(Options::default());
    let model = qwen2_words(Some("en"));
    let mut terminal = Terminal::start(&["import"], &[]);
    terminal.connect(&standin.url());
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line(model.path().to_str().unwrap());
    terminal.wait_for("text_embedding (modules.json");
    terminal.type_text("\r");
    terminal.answer_last_questions("mine", "n");
    let shown = terminal.wait_for("Import the model with this tokenizer?");
    says(&shown, &["cannot follow this model's tokenizer exactly"]);
    terminal.type_text("y");
    let shown = terminal.wait_for("Import the model?");
    says(&shown, &["--allow-inexact-tokenizer"]);
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    let stored = ask(&standin, "GET", "/_ml/trained_models/mine", None).1;
    let metadata = &stored["trained_model_configs"][0]["metadata"];
    assert_eq!(metadata["tokenizer_difference"]["languages"], json!(["en"]), "{stored}");
}
