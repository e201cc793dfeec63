//! `--dimensions`: embeddings that are cut to their leading components (Matryoshka).

use std::fs;
use std::path::Path;

use rust_eland::conversion::{Conversion, ConversionError, Options};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use serde_json::{Value, json};
use standin::{Options as StandInOptions, StandIn};
use tch::{Kind, Tensor};

use crate::fixtures::{Fixture, copy};
use crate::numbers::as_the_server_sends;
use crate::program::{ask, message, program, says};

/// Width of the embeddings of the BERT fixtures.
const FULL: i64 = 32;

fn read(model: &Path, task: Task, dimensions: u32) -> Result<Conversion, ConversionError> {
    let mut options = Options::of_task(task);
    options.dimensions = Some(dimensions);
    Conversion::read(&ModelFiles::open(model).unwrap(), options, &Progress::quiet())
}

fn normalized(vectors: &Tensor) -> Tensor {
    vectors / vectors.norm_scalaropt_dim(2, [-1i64], true).clamp_min(1e-12)
}

/// Compares the cut embeddings of a model with `expected`, computed from the embeddings of the reference.
fn compare(fixture: &str, model: &Path, dimensions: u32, expected: impl Fn(&Tensor) -> Tensor) {
    let conversion = read(model, Task::TextEmbedding, dimensions).unwrap();
    let module = conversion.trace().unwrap().module;
    let tokenizer = conversion.tokenizer();
    for case in Fixture::named(fixture).cases(Task::TextEmbedding) {
        let inputs = as_the_server_sends(&case, tokenizer.kind, tokenizer.special.padding);
        let (found, expected) = (module.forward(&inputs).unwrap(), expected(&case.output));
        assert_eq!(found.size(), expected.size(), "{fixture} {}", case.name);
        let difference = (found - &expected).abs().max().double_value(&[]);
        let allowed = 1e-4 * expected.abs().max().double_value(&[]).max(1.);
        assert!(difference <= allowed, "{fixture} {}: {difference}", case.name);
    }
}

/// A copy of a fixture's model in a folder with this name.
fn copy_as(fixture: &str, name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join(name);
    copy(&Fixture::named(fixture).model(), &model);
    (folder, model)
}

fn change(model: &Path, file: &str, key: &str, value: Value) {
    let path = model.join(file);
    let mut all: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    all[key] = value;
    fs::write(&path, all.to_string()).unwrap();
}

/// The notes of a conversion that mention dimensions.
fn notes(model: &Path, dimensions: u32) -> Vec<String> {
    let conversion = read(model, Task::TextEmbedding, dimensions).unwrap();
    let notes = conversion.notes().iter();
    notes.filter(|note| note.contains("dimensions")).cloned().collect()
}

#[test]
fn embeddings_are_cut_before_the_last_normalization() {
    let cut = |output: &Tensor| output.narrow(1, 0, 12);
    let model = |fixture: &str| Fixture::named(fixture).model();
    compare("bert/st-mean", &model("bert/st-mean"), 12, cut);
    compare("bert/st-normalize", &model("bert/st-normalize"), 12, |all| normalized(&cut(all)));
    compare("bert/st-normalize", &model("bert/st-normalize"), 32, Tensor::shallow_clone);
    compare("bert/base", &model("bert/base"), 1, |all| all.narrow(1, 0, 1));
}

/// model2vec cuts embeddings before it normalizes them. sentence-transformers cuts them after its modules, and does not normalize again.
#[test]
fn static_embeddings_are_cut_as_by_their_libraries() {
    let mut compared = 0;
    for fixture in Fixture::all().iter().filter(|fixture| fixture.name.starts_with("static/")) {
        let conversion = read(&fixture.model(), Task::TextEmbedding, 16).unwrap();
        let module = conversion.trace().unwrap().module;
        let tokenizer = conversion.tokenizer();
        for case in fixture.cases(Task::TextEmbedding) {
            let inputs = as_the_server_sends(&case, tokenizer.kind, tokenizer.special.padding);
            let found = module.forward(&inputs).unwrap();
            let mut expected = case.output_16.unwrap();
            if fixture.name.ends_with("normalize") {
                expected = normalized(&expected);
            }
            let difference = (found - &expected).abs().max().double_value(&[]);
            let allowed = 1e-4 * expected.abs().max().double_value(&[]).max(1.);
            assert!(difference <= allowed, "{} {}: {difference}", fixture.name, case.name);
            compared += 1;
        }
    }
    assert!(compared > 50, "only {compared} comparisons");
}

#[test]
fn dimensions_replace_truncate_dim() {
    let (_folder, model) = copy_as("bert/st-normalize", "m");
    change(&model, "config_sentence_transformers.json", "truncate_dim", json!(8));
    compare("bert/st-normalize", &model, 20, |all| normalized(&all.narrow(1, 0, 20)));
    assert!(notes(&model, 8).is_empty());
    assert!(notes(&model, 20)[0].contains("8 (truncate_dim in config_sentence_transformers.json)"));
}

/// The card of nomic-embed-text-v1.5 applies a LayerNorm without weights, cuts, and scales to length 1.
#[test]
fn nomic_v1_5_is_standardized_before_the_cut() {
    const NAME: &str = "nomic-embed-text-v1.5";
    let fixture = format!("nomic/{NAME}");
    let (_folder, model) = copy_as(&fixture, NAME);
    for dimensions in [10u32, 16] {
        compare(&fixture, &model, dimensions, |all| {
            let width = all.size()[1];
            let none = None::<Tensor>;
            let all = all.layer_norm([width], none.as_ref(), none.as_ref(), 1e-5, false);
            normalized(&all.narrow(1, 0, dimensions.into()))
        });
    }
    assert!(notes(&model, 10)[0].contains("check that it lists 10 dimensions"));
    // Without the option, the embeddings are those of the library.
    let conversion = Conversion::read(
        &ModelFiles::open(&model).unwrap(),
        Options::of_task(Task::TextEmbedding),
        &Progress::quiet(),
    );
    let saved =
        rust_eland::conversion::Saved { per_deployment_memory_bytes: 0, quantization: None };
    let configuration = Value::Object(conversion.unwrap().configuration("m", &saved, 0));
    assert!(configuration["metadata"]["dimensions"].is_null());
}

#[test]
fn undeclared_number_of_dimensions_is_noted() {
    let (_folder, model) = copy_as("bert/st-normalize", "m");
    says(&notes(&model, 8)[0], &["no file of the model declares", "8 of 32 dimensions"]);
    assert!(notes(&model, 32).is_empty());
    fs::write(model.join("README.md"), "# A model with Matryoshka dimensions").unwrap();
    says(&notes(&model, 8)[0], &["model card", "8 dimensions"]);
    change(&model, "config.json", "matryoshka_dimensions", json!([16, 8, 32]));
    assert!(notes(&model, 8).is_empty());
    let expected =
        ["does not declare 10 dimensions", "8, 16, 32 (matryoshka_dimensions in config.json)"];
    says(&notes(&model, 10)[0], &expected);
    let output = program()
        .args(["inspect", "--output", "json", "--dimensions", "16", "--hub-model-id"])
        .arg(&model)
        .output()
        .unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["embedding"]["matryoshka_dimensions"], json!([8, 16, 32]));
    assert_eq!(plan["embedding"]["size"], 16);
    assert_eq!(plan["embedding"]["pooling"][2], "length 1");
}

#[test]
fn invalid_dimensions_are_rejected() {
    let model = Fixture::named("bert/st-mean").model();
    for asked in [0, 33] {
        let error = read(&model, Task::TextEmbedding, asked).err().unwrap();
        let is_expected = matches!(error, ConversionError::Dimensions { size: FULL, .. });
        assert!(is_expected, "{error}");
        says(&error.hint().unwrap().to_string(), &["`dimensions`", "from 1 to 32"]);
    }
    let classifier = Fixture::named("bert/text-classification").model();
    for (model, task) in [(&classifier, Task::TextClassification), (&model, Task::PassThrough)] {
        let error = read(model, task, 8).err().unwrap();
        assert!(matches!(error, ConversionError::NoEmbeddings { .. }), "{error}");
    }
    let output = program()
        .args(["inspect", "--dimensions", "99", "--hub-model-id"])
        .arg(&model)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["have 32 dimensions and cannot be cut to 99", "Set --dimensions"]);
}

fn run(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn cut_model_is_exported_imported_and_verified() {
    let standin = StandIn::start(StandInOptions::default());
    let fixture = Fixture::named("bert/st-normalize");
    let model = fixture.model().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let bundles = folder.path().display().to_string();
    run(&[
        "export",
        "--hub-model-id",
        &model,
        "--dimensions",
        "8",
        "--es-model-id",
        "m",
        "--output",
        &bundles,
    ]);
    let bundle = format!("{bundles}/m.metadata.json");
    run(&["import", "--url", &standin.url(), "--bundle", &bundle, "--start"]);
    let stored = standin.configuration("m").unwrap();
    assert_eq!(stored["inference_config"]["text_embedding"]["embedding_size"], 8);
    assert_eq!(stored["metadata"]["dimensions"], 8);

    let case = fixture.cases(Task::TextEmbedding).remove(0);
    let text = &case.texts.as_ref().unwrap()[0][0];
    let body = json!({"docs": [{"text_field": text}]});
    let (status, answer) = ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
    assert_eq!(status, 200, "{answer}");
    let served = answer["inference_results"][0]["predicted_value"].clone();
    let expected = normalized(&case.output.narrow(1, 0, 8)).to_kind(Kind::Double);
    let expected = Vec::<f64>::try_from(expected.get(0)).unwrap();
    let local = run(&["infer", "--hub-model-id", &model, "--dimensions", "8", "--", text]);
    let local: Value = serde_json::from_str(&local).unwrap();
    for vector in [served, local["predicted_value"].clone()] {
        let vector: Vec<f64> = serde_json::from_value(vector).unwrap();
        assert_eq!(vector.len(), 8);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
        assert!(vector.iter().zip(&expected).all(close), "{vector:?} {expected:?}");
    }
    let verify =
        ["verify", "--url", &standin.url(), "--es-model-id", "m", "--hub-model-id", &model];
    says(&run(&verify), &["64 of 64 texts within"]);
}

#[test]
fn models_file_sets_dimensions() {
    let standin = StandIn::start(StandInOptions::default());
    let model = Fixture::named("bert/st-normalize").model().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yml");
    let text = format!(
        "models:\n  - hub-model-id: {model}\n    es-model-id: full\n  - hub-model-id: {model}\n    es-model-id: small\n    dimensions: 8\n"
    );
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    run(&["apply", &file, "--url", &standin.url()]);
    let size = |id: &str| {
        let stored = standin.configuration(id).unwrap();
        stored["inference_config"]["text_embedding"]["embedding_size"].clone()
    };
    assert_eq!((size("full"), size("small")), (json!(32), json!(8)));
}
