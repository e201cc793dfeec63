//! Exported bundles are complete, reproducible, and imported unchanged.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, program, says};

fn export(fixture: &str, folder: &Path) {
    let output = program()
        .args(["export", "--task-type", "text_embedding", "--es-model-id", "m", "--hub-model-id"])
        .arg(Fixture::named(fixture).model())
        .arg("--output")
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let metadata = folder.join("m.metadata.json");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), metadata.to_str().unwrap());
}

fn import(standin: &StandIn, metadata: &Path) -> std::process::Output {
    program()
        .args(["import", "--url", &standin.url(), "--start", "--bundle"])
        .arg(metadata)
        .output()
        .unwrap()
}

#[test]
fn bundle_contains_the_uploaded_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a"), folder.path().join("deeper/b"));
    export("bert/st-normalize", &first);
    export("bert/st-normalize", &second);
    let read = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    for name in ["m.pt", "m.vocab.json", "m.metadata.json"] {
        assert!(read(&first, name) == read(&second, name), "{name} differs");
    }
    assert_eq!(fs::read_dir(&first).unwrap().count(), 3);

    let definition = read(&first, "m.pt");
    let metadata: Value = serde_json::from_slice(&read(&first, "m.metadata.json")).unwrap();
    assert_eq!(metadata["packaged_model_id"], "m");
    assert_eq!(metadata["minimum_version"], "8.7.0");
    assert_eq!(metadata["size"], definition.len());
    let sha256 =
        Sha256::digest(&definition).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(metadata["sha256"], sha256);
    assert_eq!(metadata["vocabulary_file"], "m.vocab.json");
    let tokenization = &metadata["inference_config"]["text_embedding"]["tokenization"]["bert"];
    assert!(tokenization["max_sequence_length"].as_u64().unwrap() < 64, "{tokenization}");

    // An 8.7 cluster gets the same graph as an export without target, so an import of the folder gives the same bytes.
    let version = "8.12.0".parse().unwrap();
    let standin = StandIn::start(Options { version, ..Options::default() });
    let output = import(&standin, &first.join("m.metadata.json"));
    assert!(output.status.success(), "{}", message(&output));
    assert!(fs::read(standin.definition("m").unwrap()).unwrap() == definition);
    let direct = program()
        .args(["import", "--url", &standin.url(), "--task-type", "text_embedding", "--es-model-id"])
        .args(["direct", "--hub-model-id"])
        .arg(Fixture::named("bert/st-normalize").model())
        .output()
        .unwrap();
    assert!(direct.status.success(), "{}", message(&direct));
    assert!(fs::read(standin.definition("direct").unwrap()).unwrap() == definition);
    let (bundled, direct) = (standin.configuration("m"), standin.configuration("direct"));
    for part in ["inference_config", "metadata", "input"] {
        let without_vocabulary = |config: &Option<Value>| {
            let mut part = config.as_ref().unwrap()[part].clone();
            if let Some(task) = part.get_mut("text_embedding") {
                task["vocabulary"] = json!(null);
            }
            // Each import has a different value.
            part.as_object_mut().unwrap().remove("import_id");
            part.as_object_mut().unwrap().remove("bundle_sha256");
            part
        };
        assert_eq!(without_vocabulary(&bundled), without_vocabulary(&direct));
    }
}

#[test]
fn altered_bundle_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    export("bert/st-mean", folder.path());
    let standin = StandIn::start(Options::default());
    let metadata = folder.path().join("m.metadata.json");
    let refused = |parts: &[&str]| {
        let output = import(&standin, &metadata);
        assert_eq!(output.status.code(), Some(3), "{}", message(&output));
        says(&message(&output), parts);
        assert!(standin.model_ids().is_empty());
    };
    let definition = folder.path().join("m.pt");
    let whole = fs::read(&definition).unwrap();
    fs::write(&definition, &whole[1..]).unwrap();
    refused(&["m.pt", "bytes"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&definition, &flipped).unwrap();
    refused(&["m.pt", "SHA-256"]);
    fs::remove_file(&definition).unwrap();
    refused(&["cannot read", "m.pt"]);
    fs::write(&definition, &whole).unwrap();
    let described = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, described.replace("m.vocab.json", "../m.vocab.json")).unwrap();
    refused(&["m.metadata.json", "not the name of a file beside it"]);
    fs::write(&metadata, "{}").unwrap();
    refused(&["m.metadata.json is not valid"]);
}
