//! The bundles in tests/fixtures/bundles, for tests that import a model without a conversion. They exist in builds without libtorch too.

use std::path::PathBuf;

/// Bundles by name, which is a task: the fixture that was exported, and more options of the export.
#[cfg(feature = "torch")]
const BUNDLES: [(&str, &str, &[&str]); 6] = [
    ("ner", "bert/ner", &[]),
    ("text_classification", "bert/text-classification", &[]),
    ("text_embedding", "bert/st-mean", &[]),
    ("text_expansion", "bert/masked-lm", &[]),
    ("text_similarity", "bert/cross-encoder", &[]),
    ("zero_shot_classification", "roberta/zero-shot", &["--max-model-input-length", "60"]),
];

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bundles"))
}

/// Path of the `ID.metadata.json` of a bundle.
pub fn bundle(task: &str) -> PathBuf {
    let path = folder().join(format!("{task}.metadata.json"));
    assert!(path.is_file(), "{} does not exist", path.display());
    path
}

/// Path of the TorchScript archive of a bundle.
pub fn definition(task: &str) -> PathBuf {
    folder().join(format!("{task}.pt"))
}

/// Exports every fixture again and compares the files. If `UPDATE_SNAPSHOTS` is set, the files are written instead.
#[cfg(feature = "torch")]
#[test]
fn export_of_the_fixtures_equals_the_committed_bundles() {
    use serde_json::Value;

    use crate::fixtures::Fixture;
    use crate::program::{message, program};

    let is_update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let exported = tempfile::tempdir().unwrap();
    let output = if is_update { folder() } else { exported.path().to_owned() };
    for (task, fixture, options) in BUNDLES {
        let run = program()
            .args(["export", "--task-type", task, "--es-model-id", task, "--hub-model-id"])
            .arg(Fixture::named(fixture).model())
            .arg("--output")
            .arg(&output)
            .args(options)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", message(&run));
        for file in ["pt", "vocab.json", "metadata.json"].map(|kind| format!("{task}.{kind}")) {
            let read = |folder: &std::path::Path| std::fs::read(folder.join(&file)).unwrap();
            let (committed, new) = (read(&folder()), read(&output));
            let is_same = if file.ends_with(".metadata.json") {
                // Kernels differ between kinds of processors, and so does the memory that they need for one pass.
                let described = |bytes: &[u8]| {
                    let mut metadata: Value = serde_json::from_slice(bytes).unwrap();
                    metadata["metadata"]["per_allocation_memory_bytes"].take();
                    metadata
                };
                described(&committed) == described(&new)
            } else {
                committed == new
            };
            assert!(
                is_same,
                "{file} has changed. If that is intended, write the bundles again with\n  \
                 UPDATE_SNAPSHOTS=1 cargo test --test suite bundle_fixtures"
            );
        }
    }
}
