//! A Router whose routes are dense models, from a folder and from the hub: one model that embeds documents and one that embeds queries.

use std::fs;
use std::process::{Command, Output};

use ::hub::Repository;
use rust_eland::conversion::{Conversion, Options};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::version::Target;
use serde_json::{Value, json};
use standin::StandIn;

use crate::fixtures::{Case, Fixture};
use crate::from_hub::{Cache, serving};
use crate::import::{compare, infer};
use crate::numbers::as_the_server_sends;
use crate::program::{message, program, says};

const ID: &str = "org/two-encoders";

fn fixture() -> Fixture {
    Fixture::named("bert/router")
}

/// The references of both models, by the name of the part.
fn references() -> [(&'static str, Vec<Case>); 2] {
    let fixture = fixture();
    [
        ("document", fixture.cases(Task::TextEmbedding)),
        ("query", fixture.part_cases("query", Task::TextEmbedding)),
    ]
}

fn repository() -> Repository {
    Repository::of_folder(ID, &fixture().model()).unwrap().revision("v1")
}

/// Runs the program, which must succeed.
fn run(program: &mut Command) -> Output {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    output
}

/// The metadata of a model in the stand-in.
fn metadata(standin: &StandIn, id: &str) -> Value {
    standin.configuration(id).unwrap()["metadata"].clone()
}

#[test]
fn graph_of_each_dense_route_matches_sentence_transformers() {
    let files = ModelFiles::open(&fixture().model()).unwrap();
    for (part, cases) in references() {
        for target in [Target::Any, Target::Serverless] {
            let mut options = Options::default();
            options.part = Some(part.to_owned());
            options.target = target;
            let conversion = Conversion::read(&files, options, &Progress::quiet()).unwrap();
            assert_eq!((conversion.part(), conversion.task()), (Some(part), Task::TextEmbedding));
            let traced = conversion.trace().unwrap();
            let tokenizer = conversion.tokenizer();
            assert!(cases.len() > 4);
            for case in &cases {
                let inputs = as_the_server_sends(case, tokenizer.kind, tokenizer.special.padding);
                let found = traced.module.forward(&inputs).unwrap();
                let difference = (&found - &case.output).abs().max().double_value(&[]);
                assert!(difference < 1e-4, "{part} {}: {difference}", case.name);
            }
        }
    }
}

#[test]
fn parts_from_a_commit_of_the_hub_are_imported_and_verified() {
    let repository = repository();
    let (commit, hub, cache) = (repository.commit(), serving([repository]), Cache::new());
    let standin = StandIn::start(standin::Options::default());
    let import = |arguments: &[&str]| {
        let mut program = cache.program(&hub.url());
        program.args(["import", "--start", "--hub-model-id", ID, "--url", &standin.url()]);
        run(program.args(arguments))
    };
    let log = message(&import(&["--revision", &commit]));
    says(&log, &["the model document of the repository, which also provides query"]);
    import(&["--revision", &commit, "--part", "query", "--offline"]);
    for (part, id) in [("document", "org__two-encoders"), ("query", "org__two-encoders__query")] {
        let metadata = metadata(&standin, id);
        assert_eq!(metadata["part"], part, "{metadata}");
        assert_eq!(metadata["hub_model_id"], ID);
        assert_eq!(metadata["hub_commit"], commit);
        let mut verify = cache.program(&hub.url());
        verify.args(["verify", "--es-model-id", id, "--offline", "--url", &standin.url()]);
        let page = String::from_utf8(run(&mut verify).stdout).unwrap();
        says(&page, &["verified: 64 of 64 texts within 1e-5", &format!("{ID}@{commit}")]);
    }
}

#[test]
fn served_dense_routes_match_sentence_transformers() {
    let standin = StandIn::start(standin::Options::default());
    for (part, cases) in references() {
        let mut import = program();
        import.args(["import", "--start", "--clear-previous", "--es-model-id", "m"]);
        import.args(["--part", part]);
        run(import.args(["--url", &standin.url(), "--hub-model-id"]).arg(fixture().model()));
        let stored = standin.configuration("m").unwrap();
        let config = &stored["inference_config"]["text_embedding"];
        let vocabulary = standin.vocabulary("m").unwrap().vocabulary;
        for case in cases {
            for (row, texts) in case.texts.iter().flatten().enumerate() {
                let answer = infer(&standin, Task::TextEmbedding, texts);
                compare(&answer, Task::TextEmbedding, &case, row as i64, config, &vocabulary);
            }
        }
    }
}

#[test]
fn inspect_lists_the_dense_routes_of_a_hub_repository() {
    let (hub, cache) = (serving([repository()]), Cache::new());
    let mut inspect = cache.program(&hub.url());
    inspect.args(["inspect", "--output", "json", "--part", "query"]);
    let output = run(inspect.args(["--hub-model-id", &format!("{ID}@v1")]));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let parts = json!([
        {"part": "document", "task": "text_embedding", "is_chosen": false},
        {"part": "query", "task": "text_embedding", "is_chosen": true},
    ]);
    assert_eq!(plan["parts"], parts);
}

#[test]
fn apply_imports_parts_of_a_commit_and_then_skips_them() {
    let repository = repository();
    let (commit, hub, cache) = (repository.commit(), serving([repository]), Cache::new());
    let standin = StandIn::start(standin::Options::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yaml");
    let models = format!(
        "models:\n  - hub-model-id: {ID}\n    revision: {commit}\n  - hub-model-id: {ID}\n    revision: {commit}\n    part: query\n"
    );
    fs::write(&file, models).unwrap();
    for result in ["stored", "unchanged"] {
        let mut apply = cache.program(&hub.url());
        apply.args(["apply", "--output", "json", "--url", &standin.url()]).arg(&file);
        let answer: Value = serde_json::from_slice(&run(&mut apply).stdout).unwrap();
        let applied = answer["models"].as_array().unwrap();
        let ids = ["org__two-encoders", "org__two-encoders__query"];
        assert_eq!(applied.len(), ids.len());
        for (id, applied) in ids.iter().zip(applied) {
            assert_eq!((&applied["model_id"], &applied["result"]), (&json!(id), &json!(result)));
            assert_eq!(metadata(&standin, id)["hub_commit"], commit);
        }
    }
}

#[test]
fn bundle_of_a_part_from_the_hub_restores_commit_and_part() {
    let repository = repository();
    let (commit, hub, cache) = (repository.commit(), serving([repository]), Cache::new());
    let standin = StandIn::start(standin::Options::default());
    let folder = tempfile::tempdir().unwrap();
    let mut export = cache.program(&hub.url());
    export.args(["export", "--hub-model-id", ID, "--revision", &commit, "--part", "query"]);
    run(export.args(["--es-model-id", "q", "--output"]).arg(folder.path()));
    let mut import = program();
    import.args(["import", "--url", &standin.url(), "--bundle"]);
    run(import.arg(folder.path().join("q.metadata.json")));
    let metadata = metadata(&standin, "q");
    assert_eq!((&metadata["part"], &metadata["hub_commit"]), (&json!("query"), &json!(commit)));
}
