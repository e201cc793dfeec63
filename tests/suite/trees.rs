//! Tree models: the libraries' own predictions (tests/fixtures/trees, made by trees.py), with the library's arithmetic and with that
//! of Elasticsearch.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use rust_eland::trees::{
    self, DefinitionOptions, Ensemble, FeatureKind, Predicted, ReadOptions, Served, Target,
    TreeError, check,
};
use serde::Deserialize;
use serde_json::{Map, Value};

const FOLDER: &str = "tests/fixtures/trees";

/// Relative to the larger of both numbers.
const TOLERANCE: f64 = 1e-6;

/// What a library predicted.
#[derive(Deserialize)]
struct Expected {
    rows: Vec<Vec<Value>>,
    columns: Option<Vec<String>>,
    values: Option<Vec<f64>>,
    labels: Option<Vec<Value>>,
    probabilities: Option<Vec<Vec<f64>>>,
    all_values: Option<Vec<f64>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER)
}

fn model(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn expected(name: &str) -> Expected {
    let bytes = fs::read(folder().join(format!("{name}.expected.gz"))).unwrap();
    let mut text = String::new();
    GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Names of the models that have expected predictions and that start with `prefix`.
fn models(prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".expected.gz").map(str::to_owned))
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(names.len() > 3, "{prefix} has no models");
    names
}

fn read(name: &str) -> Result<Ensemble, TreeError> {
    trees::read(&model(name), &ReadOptions::default())
}

fn near(a: f64, b: f64) -> bool {
    close(a, b, 0.0)
}

/// `scale` is the size of the numbers that were added up: XGBoost adds them as float32, so that a sum near zero has few exact digits.
fn close(a: f64, b: f64, scale: f64) -> bool {
    a == b || (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(1e-7 * scale)
}

fn label_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap().to_string(),
        other => other.to_string(),
    }
}

/// Compares all rows; returns how many.
fn compare(name: &str, ensemble: &Ensemble, options: &DefinitionOptions) -> usize {
    let expected = expected(name);
    let definition = ensemble.define(options).unwrap_or_else(|error| panic!("{name}: {error}"));
    check::check(ensemble, &definition, options).unwrap_or_else(|error| panic!("{name}: {error}"));
    let served = Served::read(GzDecoder::new(definition.compressed.as_slice())).unwrap();
    let exact = !definition.notes.iter().any(|note| note.contains("ignore prediction_probability"));
    // XGBoost 1.3 does not write the names.
    if let Some(columns) = &expected.columns
        && !name.starts_with("xgboost-1.3")
    {
        let names: Vec<_> = ensemble.features.iter().map(|feature| feature.name.clone()).collect();
        assert_eq!(&names, columns, "{name}");
    }
    let sizes = expected.values.iter().flatten().map(|value| value.abs());
    let scale = if name.starts_with("xgboost-") { sizes.fold(0.0, f64::max) } else { 0.0 };
    for (index, row) in expected.rows.iter().enumerate() {
        let mut document = Map::new();
        let mut values = Vec::new();
        for (feature, value) in ensemble.features.iter().zip(row) {
            document.insert(feature.name.clone(), value.clone());
            values.push(feature.value(Some(value), false));
        }
        let answer = served.infer(&document).unwrap();
        let own = ensemble.predict(&values);
        // A fraction is no category. XGBoost and LightGBM cut fractions off, each in its own way.
        let categories_are_whole = ensemble.features.iter().zip(&values).all(|(feature, value)| {
            !matches!(feature.kind, FeatureKind::Category(_)) || !(value.fract().abs() > 0.0)
        });
        if !categories_are_whole {
            continue;
        }
        let at = || format!("{name} row {index}: {}", Value::from(document.clone()));
        if let Some(expected) = &expected.values {
            let Predicted::Value(own) = own else { panic!("{}: no value", at()) };
            let served = if definition.target == Target::Regression {
                answer.value
            } else {
                answer.probabilities[1]
            };
            assert!(close(own, expected[index], scale), "{}: own {own} {}", at(), expected[index]);
            assert!(
                close(served, expected[index], scale),
                "{}: served {served} {}",
                at(),
                expected[index]
            );
        } else {
            let Predicted::Class { index: class, probabilities } = own else {
                panic!("{}: no class", at())
            };
            let label = label_text(&expected.labels.as_ref().unwrap()[index]);
            assert_eq!(definition.labels[class], label, "{}: own {probabilities:?}", at());
            assert_eq!(answer.label.as_ref(), Some(&label), "{}: served {answer:?}", at());
            if let Some(expected) = &expected.probabilities {
                for (class, &expected) in expected[index].iter().enumerate() {
                    // One-versus-rest probabilities of LightGBM are not normalised; others are.
                    assert!(
                        near(probabilities[class], expected),
                        "{}: own {probabilities:?} {expected}",
                        at()
                    );
                    let served = answer.probabilities[class];
                    assert!(
                        !exact || near(served, expected),
                        "{}: served {served} {expected}",
                        at()
                    );
                }
            }
        }
    }
    expected.rows.len()
}

fn compare_all(prefix: &str, refused: &[&str]) {
    let mut rows = 0;
    let mut models_compared = 0;
    for name in models(prefix).into_iter().filter(|name| !name.ends_with(".pkl")) {
        if refused.iter().any(|part| name.contains(part)) {
            let error = read(&name).unwrap_err();
            assert!(matches!(error, TreeError::Unsupported { .. }), "{name}: {error}");
            continue;
        }
        let ensemble = read(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        rows += compare(&name, &ensemble, &DefinitionOptions::default());
        models_compared += 1;
    }
    println!("{prefix}: {rows} rows of {models_compared} models");
}

#[test]
fn xgboost_files_predict_as_the_library_on_every_row() {
    compare_all("xgboost-", &[]);
}

#[test]
fn lightgbm_files_predict_as_the_library_on_every_row() {
    compare_all("lightgbm-", &["-sqrt.", "-linear."]);
}

#[test]
fn early_stopped_models_use_all_rounds_when_asked() {
    let names = models("xgboost-");
    let early = names.iter().filter(|name| name.contains("-early.") && !name.ends_with(".pkl"));
    for name in early {
        let options = ReadOptions { all_rounds: true, ..ReadOptions::default() };
        let all = trees::read(&model(name), &options).unwrap();
        assert!(all.trees.len() > read(name).unwrap().trees.len(), "{name}");
        let expected = expected(name);
        let values = expected.all_values.unwrap();
        let scale = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        for (row, value) in expected.rows.iter().zip(values) {
            let row: Vec<_> = all
                .features
                .iter()
                .zip(row)
                .map(|(feature, value)| feature.value(Some(value), false))
                .collect();
            let Predicted::Value(own) = all.predict(&row) else { panic!("{name}: no value") };
            assert!(close(own, value, scale), "{name}: {own} {value}");
        }
    }
}
