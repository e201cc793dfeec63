//! Models converted for a target version.

use std::path::Path;
use std::process::Output;

use rust_eland::prebuilt::Inspected;
use serde_json::Value;
use standin::{BuildFlavor, Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, program, says};

/// Exports a fixture as the model `m`.
fn export(fixture: &str, task: &str, folder: &Path, more: &[&str]) -> Output {
    program()
        .args(["export", "--task-type", task, "--es-model-id", "m", "--hub-model-id"])
        .arg(Fixture::named(fixture).model())
        .arg("--output")
        .arg(folder)
        .args(more)
        .output()
        .unwrap()
}

/// Exports a fixture and returns the metadata, whether attention is fused, and the messages.
fn exported(fixture: &str, task: &str, more: &[&str]) -> (Value, bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = export(fixture, task, folder.path(), more);
    assert!(output.status.success(), "{}", message(&output));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let operations = Inspected::load(&read("m.pt")).unwrap().operations;
    (
        serde_json::from_slice(&read("m.metadata.json")).unwrap(),
        operations.contains_key("aten::scaled_dot_product_attention"),
        message(&output),
    )
}

#[test]
fn attention_form_depends_on_the_target_version() {
    for (target, is_fused, minimum) in [
        ("8.7.0", false, "8.7.0"),
        ("8.12.2", false, "8.7.0"),
        ("8.13.0", true, "8.13.0"),
        ("8.17", true, "8.13.0"),
        ("9.4.0-SNAPSHOT", true, "8.13.0"),
        ("serverless", true, "8.13.0"),
    ] {
        let (metadata, fused, said) =
            exported("bert/st-mean", "text_embedding", &["--target-version", target]);
        assert_eq!(fused, is_fused, "{target}");
        assert_eq!(metadata["minimum_version"], minimum, "{target}");
        let made_for = metadata["target_version"].as_str().unwrap();
        assert!(target.starts_with(made_for.trim_end_matches(".0")), "{target} {made_for}");
        says(
            &said,
            &[
                &format!("converted for Elasticsearch {made_for}"),
                &format!("runs on {minimum} and later"),
            ],
        );
    }
}

#[test]
fn export_without_target_runs_on_every_version() {
    let (metadata, fused, said) = exported("bert/st-mean", "text_embedding", &[]);
    assert!(!fused && metadata.get("target_version").is_none());
    assert_eq!(metadata["minimum_version"], "8.7.0");
    says(&said, &["Elasticsearch 8.7.0 and later", "--target-version"]);
    // The hash of the definition is in the output, in the metadata file and in the uploaded metadata.
    let sha256 = metadata["sha256"].as_str().unwrap();
    says(&said, &[&format!("SHA-256 of the definition: {sha256}")]);
    assert_eq!(metadata["metadata"]["definition_sha256"], sha256);
    let (metadata, ..) = exported("roberta/masked-lm", "text_expansion", &[]);
    assert_eq!(metadata["minimum_version"], "8.17.0");
    let (metadata, ..) = exported("bert/masked-lm", "text_expansion", &[]);
    assert_eq!(metadata["minimum_version"], "8.7.0");
    // The requirements of the tokenizer and the prefixes still apply.
    let (metadata, ..) = exported("xlm-roberta/masked-lm", "fill_mask", &[]);
    assert_eq!(metadata["minimum_version"], "8.9.0");
    let (metadata, ..) = exported("bert/st-mean", "text_embedding", &["--search-prefix", "q: "]);
    assert_eq!(metadata["minimum_version"], "8.12.0");
}

#[test]
fn export_for_old_version_omits_newer_fields() {
    let size = |target: &str| {
        let (metadata, ..) =
            exported("bert/st-mean", "text_embedding", &["--target-version", target]);
        metadata["inference_config"]["text_embedding"].get("embedding_size").cloned()
    };
    assert_eq!(size("8.7.1"), None);
    assert!(size("8.8.0").is_some_and(|size| size.is_number()));
    let (metadata, ..) = exported(
        "bert/st-mean",
        "text_embedding",
        &["--target-version", "8.12.0", "--ingest-prefix", "p: "],
    );
    assert_eq!(metadata["prefix_strings"]["ingest"], "p: ");
}

#[test]
fn unsupported_target_is_rejected_with_the_required_version() {
    let folder = tempfile::tempdir().unwrap();
    for (fixture, task, more, code, parts) in [
        (
            "bert/st-mean",
            "text_embedding",
            vec!["--target-version", "8.6.2"],
            2,
            vec!["8.6.2", "8.7.0"],
        ),
        (
            "bert/st-mean",
            "text_embedding",
            vec!["--target-version", "newest"],
            2,
            vec!["newest", "serverless"],
        ),
        (
            "bert/st-mean",
            "text_embedding",
            vec!["--target-version", "8.11.4", "--ingest-prefix", "p: "],
            3,
            vec!["8.11.4", "8.12.0", "prefixes"],
        ),
        (
            "xlm-roberta/masked-lm",
            "fill_mask",
            vec!["--target-version", "8.8.2"],
            3,
            vec!["8.8.2", "8.9.0", "xlm_roberta"],
        ),
        (
            "deberta-v2/masked-lm",
            "fill_mask",
            vec!["--target-version", "8.15.3"],
            3,
            vec!["8.15.3", "8.16.0", "deberta_v2"],
        ),
        (
            "roberta/masked-lm",
            "text_expansion",
            vec!["--target-version", "8.16.6"],
            3,
            vec!["8.16.6", "8.17.0", "text_expansion with its tokenizer (roberta)"],
        ),
    ] {
        let output = export(fixture, task, folder.path(), &more);
        assert_eq!(output.status.code(), Some(code), "{}", message(&output));
        says(&message(&output), &parts);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn import_uses_the_version_of_the_cluster() {
    let imported = |options: Options| {
        let standin = StandIn::start(options);
        let output = program()
            .args(["import", "--url", &standin.url(), "--task-type", "text_embedding", "--start"])
            .args(["--es-model-id", "m", "--hub-model-id"])
            .arg(Fixture::named("bert/st-mean").model())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let bytes = std::fs::read(standin.definition("m").unwrap()).unwrap();
        let operations = Inspected::load(&bytes).unwrap().operations;
        operations.contains_key("aten::scaled_dot_product_attention")
    };
    let of = |version: &str| Options { version: version.parse().unwrap(), ..Options::default() };
    assert!(!imported(of("8.7.0")) && !imported(of("8.12.2")));
    assert!(imported(of("8.13.0")) && imported(of("9.4.0")));
    // Serverless always reports version 8.11.0.
    let build_flavor = BuildFlavor::Serverless;
    assert!(imported(Options { build_flavor, ..Options::default() }));
}

#[test]
fn bundle_for_newer_version_is_rejected_by_old_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let standin =
        StandIn::start(Options { version: "8.12.2".parse().unwrap(), ..Options::default() });
    let import = |arguments: &[&str]| {
        let output =
            program().args(["import", "--url", &standin.url()]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{}", message(&output));
        assert!(standin.model_ids().is_empty());
        message(&output)
    };
    let output =
        export("bert/st-mean", "text_embedding", folder.path(), &["--target-version", "8.17.0"]);
    assert!(output.status.success(), "{}", message(&output));
    let bundle = folder.path().join("m.metadata.json");
    says(&import(&["--bundle", bundle.to_str().unwrap()]), &["8.12.2", "8.13.0"]);
    // A direct import is rejected too, before the conversion.
    let model = Fixture::named("deberta-v2/masked-lm").model();
    let said = import(&["--hub-model-id", model.to_str().unwrap(), "--task-type", "fill_mask"]);
    says(&said, &["8.12.2", "8.16.0"]);
    assert!(!said.contains("tracing"), "{said}");
}
