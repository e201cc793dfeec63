//! Byte-level BPE models whose special tokens have other names than RoBERTa's, exported and served.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{ask, message, program, says};

/// A RoBERTa model for masked words with the special tokens of BERT, in `tokenizer.json` alone.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::named("roberta/masked-lm").model();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
    }
    let names = [
        ("<s>", "[CLS]"),
        ("</s>", "[SEP]"),
        ("<pad>", "[PAD]"),
        ("<unk>", "[UNK]"),
        ("<mask>", "[MASK]"),
    ];
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let mut text = fs::read_to_string(fixture.join(name)).unwrap();
        for (old, new) in names {
            text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
        let text = text.replace("RobertaTokenizer", "PreTrainedTokenizerFast");
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn run(command: &str, model: &Path, more: &[&str]) -> Output {
    let arguments = [command, "--es-model-id", "m", "--hub-model-id"];
    let output = program().args(arguments).arg(model).args(more).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    output
}

#[test]
fn names_are_kept_where_they_matter_and_the_target_supports_it() {
    let model = model();
    for (task, target, kept) in [
        ("fill_mask", None, false),
        ("fill_mask", Some("9.4.0"), false),
        ("fill_mask", Some("9.5.0"), true),
        ("text_expansion", Some("serverless"), true),
        ("text_embedding", Some("9.5.0"), false),
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut more = vec!["--task-type", task, "--output", out.path().to_str().unwrap()];
        more.extend(target.iter().flat_map(|target| ["--target-version", target]));
        let said = message(&run("export", model.path(), &more));
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(out.path().join(name)).unwrap()).unwrap()
        };
        let metadata = read("m.metadata.json");
        let tokenization = &metadata["inference_config"][task]["tokenization"];
        let tokens = read("m.vocab.json")["vocabulary"].clone();
        let names = [0, 1, 2, 3, 340].map(|id: usize| tokens[id].as_str().unwrap().to_owned());
        if kept {
            let settings = &tokenization["byte_level_bpe"];
            for (setting, name) in [
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("unk_token", "[UNK]"),
                ("mask_token", "[MASK]"),
            ] {
                assert_eq!(settings[setting], name, "{task}: {metadata}");
            }
            assert_eq!(names, ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]);
            assert_eq!(metadata["minimum_version"], "9.5.0");
            assert!(!said.contains("renamed"), "{said}");
        } else {
            assert!(tokenization["roberta"].is_object(), "{task} {target:?}: {metadata}");
            assert_eq!(names, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]);
            says(&said, &["special tokens are renamed", "[MASK] → <mask>"]);
        }
    }
}

#[test]
fn masked_word_is_predicted_with_the_mask_of_the_cluster() {
    let model = model();
    let mut words = Vec::new();
    for (version, mask, other) in [("9.5.0", "[MASK]", "<mask>"), ("9.4.0", "<mask>", "[MASK]")] {
        let options = Options { version: version.parse().unwrap(), ..Options::default() };
        let standin = StandIn::start(options);
        let url = standin.url();
        let more = ["--task-type", "fill_mask", "--url", &url, "--start", "--smoke-test"];
        let imported = run("import", model.path(), &more);
        says(&String::from_utf8_lossy(&imported.stdout), &["smoke test (fill_mask): "]);
        let infer = |mask: &str| {
            let body = json!({"docs": [{"text_field": format!("the {mask} of the example")}]});
            ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&body))
        };
        let (status, answer) = infer(mask);
        assert_eq!(status, 200, "{answer}");
        words.push(answer["inference_results"][0]["predicted_value"].clone());
        // The other name is not the mask.
        assert_eq!(infer(other).0, 400);
    }
    assert!(words[0].is_string() && words[0] == words[1], "{words:?}");
}
