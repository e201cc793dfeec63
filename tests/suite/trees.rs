//! Tree models: the libraries' own predictions (tests/fixtures/trees, made by trees.py), with the library's arithmetic and with that
//! of Elasticsearch.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use rust_eland::trees::{
    self, DefinitionOptions, Ensemble, FeatureKind, LabelType, Predicted, Prediction, ReadOptions,
    Served, Target, TreeError, check,
};
use serde::Deserialize;
use serde_json::{Map, Value};

const FOLDER: &str = "tests/fixtures/trees";

/// Relative to the larger of both numbers.
const TOLERANCE: f64 = 1e-6;

/// What a library predicted.
#[derive(Deserialize)]
pub struct Expected {
    pub rows: Vec<Vec<Value>>,
    pub columns: Option<Vec<String>>,
    pub values: Option<Vec<f64>>,
    pub labels: Option<Vec<Value>>,
    probabilities: Option<Vec<Vec<f64>>>,
    all_values: Option<Vec<f64>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER)
}

fn model(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

pub fn expected(name: &str) -> Expected {
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
pub fn close(a: f64, b: f64, scale: f64) -> bool {
    a == b || (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(1e-7 * scale)
}

pub fn label_text(value: &Value) -> String {
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
    // XGBoost 1.3 writes the names into pickles only.
    if let Some(columns) = &expected.columns
        && !(name.starts_with("xgboost-1.3") && name.ends_with(".json"))
    {
        let names: Vec<_> = ensemble.features.iter().map(|feature| feature.name.clone()).collect();
        assert_eq!(&names, columns, "{name}");
    }
    let sizes = expected.values.iter().flatten().map(|value| value.abs());
    let scale = if name.starts_with("xgboost-") || name.starts_with("onnx-") {
        sizes.fold(0.0, f64::max)
    } else {
        0.0
    };
    for (index, row) in expected.rows.iter().enumerate() {
        let mut document = Map::new();
        let mut values = Vec::new();
        for (feature, value) in ensemble.features.iter().zip(row) {
            document.insert(feature.name.clone(), value.clone());
            values.push(feature.value(Some(value), false));
        }
        let answer = served.infer(&document).unwrap();
        let own = ensemble.predict(&values);
        // A fraction is no category. XGBoost and LightGBM cut fractions off, each in its own way; Elasticsearch does not.
        let categories_are_whole = ensemble.features.iter().zip(row).all(|(feature, value)| {
            let is_fraction = value.as_f64().is_some_and(|value| value.fract() != 0.0);
            !matches!(feature.kind, FeatureKind::Category(_)) || !is_fraction
        });
        if !categories_are_whole {
            match own {
                Predicted::Value(own) => assert!(near(own, answer.value), "{name} row {index}"),
                Predicted::Class { index, .. } => {
                    assert_eq!(definition.labels.get(index), answer.label.as_ref(), "{name}");
                }
            }
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
    for name in models(prefix) {
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
fn scikit_learn_files_predict_as_the_library_on_every_row() {
    compare_all("sklearn-", &[]);
    compare_all("skops-", &[]);
}

#[test]
fn onnx_files_predict_as_onnxruntime_on_every_row() {
    compare_all("onnx-", &[]);
}

/// The bound of docs/trees.md: XGBoost's float32 sum against the exact sum, in units of the absolute values that are added up.
const FLOAT32_BOUND: f64 = 3e-7;

#[test]
fn xgboost_sums_differ_by_rounding_of_the_summands_only() {
    let (mut largest, mut relative) = (0.0_f64, 0.0_f64);
    let mut equal = (0, 0);
    for name in models("xgboost-") {
        let ensemble = read(&name).unwrap();
        let expected = expected(&name);
        let Some(values) = expected
            .values
            .filter(|_| matches!(ensemble.prediction, Prediction::Value | Prediction::Ranking))
        else {
            continue;
        };
        for (row, value) in expected.rows.iter().zip(values) {
            let row: Vec<f64> = ensemble
                .features
                .iter()
                .zip(row)
                .map(|(feature, value)| feature.value(Some(value), false))
                .collect();
            let leaf = |tree: &trees::ensemble::Tree| match tree.leaf(&row, &ensemble) {
                Some(trees::ensemble::Node::Leaf { value, .. }) => value.abs(),
                _ => 0.0,
            };
            let summands = ensemble.base[0].abs() + ensemble.trees.iter().map(leaf).sum::<f64>();
            let (Predicted::Value(own), Predicted::Value(rounded)) =
                (ensemble.predict(&row), ensemble.predict_in_float32(&row))
            else {
                panic!("{name}: no value")
            };
            let fractions = ensemble.features.iter().zip(&row).any(|(feature, value)| {
                matches!(feature.kind, FeatureKind::Category(_)) && *value < 0.0
            });
            if fractions {
                continue;
            }
            largest = largest.max((own - value).abs() / summands);
            relative = relative.max((own - value).abs() / value.abs().max(1e-30));
            equal.0 += usize::from(rounded == value);
            equal.1 += 1;
            assert!((own - value).abs() <= FLOAT32_BOUND * summands, "{name}: {own} {value}");
        }
    }
    println!("{largest:e} of the summands, {relative:e} relative, {equal:?} equal in float32");
    assert!(equal.0 * 10 >= equal.1 * 9, "{equal:?}");
}

/// An XGBoost model of one tree that tests `f0` only, of two features.
fn half_used() -> Ensemble {
    let tree = serde_json::json!({
        "tree_param": {"num_nodes": "3"}, "left_children": [1, -1, -1], "right_children": [2, -1, -1], "split_indices": [0, 0, 0],
        "split_conditions": [0.5, 1.0, 2.0], "default_left": [1, 0, 0],
    });
    let model = serde_json::json!({"learner": {
        "learner_model_param": {"base_score": "0.5", "num_class": "0", "num_feature": "2"},
        "objective": {"name": "reg:squarederror"},
        "gradient_booster": {"name": "gbtree", "model": {"gbtree_model_param": {"num_trees": "1"}, "tree_info": [0], "trees": [tree]}},
    }});
    trees::read(model.to_string().as_bytes(), &ReadOptions::default()).unwrap()
}

#[test]
fn features_that_no_tree_tests_are_fields_too() {
    let ensemble = half_used();
    let definition = ensemble.define(&DefinitionOptions::default()).unwrap();
    assert_eq!(definition.fields, ["f0", "f1"]);
    // In learning to rank, every field needs an extractor.
    let ranking = DefinitionOptions { target: Some(Target::Ranking), ..Default::default() };
    assert_eq!(ensemble.define(&ranking).unwrap().fields, ["f0"]);
}

#[test]
fn values_that_are_no_category_codes_are_in_no_set() {
    let name = "xgboost-1.7.6-categorical.json";
    let ensemble = read(name).unwrap();
    let definition = ensemble.define(&DefinitionOptions::default()).unwrap();
    let served = Served::read(GzDecoder::new(definition.compressed.as_slice())).unwrap();
    let mut unknown = Vec::new();
    for value in ["abc", "", "3", "3.0", "03", "+3", " 3", "3d", "3e0", "true", "[3]"]
        .map(Value::from)
        .into_iter()
        .chain(
            serde_json::json!([
                1.5,
                3,
                3.0,
                1e300,
                -1,
                -0.0,
                true,
                false,
                [3],
                [3, 4],
                {"a": 3},
                12345678.0,
                null
            ])
            .as_array()
            .unwrap()
            .clone(),
        )
    {
        let mut document = Map::new();
        for feature in &ensemble.features {
            let value = if feature.name == "f1" { value.clone() } else { 1.into() };
            document.insert(feature.name.clone(), value);
        }
        let row: Vec<f64> = ensemble
            .features
            .iter()
            .map(|feature| feature.value(document.get(&feature.name), false))
            .collect();
        let Predicted::Value(own) = ensemble.predict(&row) else { panic!("{value}: no value") };
        let answer = served.infer(&document).unwrap();
        assert!(near(own, answer.value), "{value}: own {own}, served {}", answer.value);
        if row[1] < 0.0 {
            unknown.push(value.to_string());
        }
    }
    let known = ["\"3\"", "\"3.0\"", "3", "3.0", "-0.0", "null", "12345678.0"];
    assert_eq!(unknown.len(), 24 - known.len(), "{unknown:?}");
    assert!(!known.iter().any(|known| unknown.contains(&(*known).to_owned())), "{unknown:?}");
}

#[test]
fn options_without_an_effect_are_refused() {
    let regression = read("xgboost-3.2.0-regression.json").unwrap();
    let classifier = read("xgboost-3.2.0-binary.ubj").unwrap();
    let forest = read("sklearn-1.9.1-forest-labels.pkl").unwrap();
    let options = DefinitionOptions::default;
    let labels = |labels: &[&str]| Some(labels.iter().map(ToString::to_string).collect());
    for (ensemble, options, part) in [
        (
            &regression,
            DefinitionOptions { labels: labels(&["a", "b"]), ..options() },
            "not a classification",
        ),
        (
            &regression,
            DefinitionOptions { weights: Some(vec![1.0]), ..options() },
            "not a classification",
        ),
        (
            &regression,
            DefinitionOptions { output_class: Some("a".into()), ..options() },
            "not a classification",
        ),
        (
            &regression,
            DefinitionOptions { label_type: Some(LabelType::Text), ..options() },
            "not a classification",
        ),
        (
            &classifier,
            DefinitionOptions { weights: Some(vec![1.0, -1.0]), ..options() },
            "2 numbers of at least 0",
        ),
        (
            &classifier,
            DefinitionOptions { weights: Some(vec![1.0]), ..options() },
            "2 numbers of at least 0",
        ),
        (
            &classifier,
            DefinitionOptions { weights: Some(vec![0.0, 0.0]), ..options() },
            "more than 0",
        ),
        (
            &classifier,
            DefinitionOptions {
                labels: labels(&["stays", "1"]),
                label_type: Some(LabelType::Number),
                ..options()
            },
            "\"stays\" is not a whole number",
        ),
        (
            &classifier,
            DefinitionOptions { label_type: Some(LabelType::Boolean), ..options() },
            "\"0\" is not true or false",
        ),
        (
            &forest,
            DefinitionOptions {
                output_class: Some("10".into()),
                weights: Some(vec![1.0; 3]),
                ..options()
            },
            "the probability of one class is a number",
        ),
        (
            &forest,
            DefinitionOptions { output_class: Some("11".into()), ..options() },
            "its classes are 0, 10, 20",
        ),
    ] {
        let error = ensemble.define(&options).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in: {error}");
        assert_eq!(ensemble.check_options(&options).unwrap_err().to_string(), error);
    }
    let booleans = DefinitionOptions {
        labels: labels(&["false", "true"]),
        label_type: Some(LabelType::Boolean),
        ..options()
    };
    classifier.define(&booleans).unwrap();
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
        assert!(!all.notes.iter().any(|note| note.contains("no effect")), "{:?}", all.notes);
    }
    for name in [
        "xgboost-3.2.0-regression.json",
        "lightgbm-4.7.0-regression.txt",
        "sklearn-1.9.1-forest-labels.pkl",
    ] {
        let options = ReadOptions { all_rounds: true, ..ReadOptions::default() };
        let all = trees::read(&model(name), &options).unwrap();
        let told = all.notes.iter().filter(|note| note.contains("no effect")).count();
        assert_eq!(told, 1, "{name}: {:?}", all.notes);
        assert!(!read(name).unwrap().notes.iter().any(|note| note.contains("no effect")));
    }
}

#[test]
fn unsupported_models_are_refused_with_the_reason() {
    for (name, part) in [
        ("xgboost-old-binary.model", "save_model(\"model.json\")"),
        ("xgboost-dump.json", "save_model"),
        ("xgboost-dump.txt", "save_model"),
        ("xgboost-linear.json", "gblinear"),
        ("xgboost-two-targets.json", "several outputs"),
        ("xgboost-vector-leaves.json", "several outputs"),
        ("sklearn-refused-linear.pkl", "LinearRegression"),
        ("sklearn-refused-adaboost.pkl", "AdaBoostRegressor"),
        ("sklearn-refused-isolation.pkl", "IsolationForest"),
        ("sklearn-refused-bagging.pkl", "BaggingRegressor"),
        ("sklearn-refused-pipeline.pkl", "StandardScaler"),
        ("sklearn-refused-two-outputs.pkl", "several outputs"),
    ] {
        let message = read(name).unwrap_err().to_string();
        assert!(message.contains(part), "{name}: {message}");
    }
}

#[test]
fn output_class_of_a_forest_is_its_exact_probability() {
    let mut models_compared = 0;
    for name in models("sklearn-") {
        let ensemble = read(&name).unwrap();
        if ensemble.prediction != trees::Prediction::Mean {
            continue;
        }
        let expected = expected(&name);
        let probabilities = expected.probabilities.unwrap();
        for (class, label) in ensemble.labels.clone().unwrap().iter().enumerate() {
            let options = DefinitionOptions {
                output_class: Some(label.to_string()),
                ..DefinitionOptions::default()
            };
            let definition = ensemble.define(&options).unwrap();
            check::check(&ensemble, &definition, &options).unwrap();
            assert_eq!(definition.target, Target::Regression);
            let served = Served::read(GzDecoder::new(definition.compressed.as_slice())).unwrap();
            for (row, probabilities) in expected.rows.iter().zip(&probabilities) {
                let document = ensemble
                    .features
                    .iter()
                    .zip(row)
                    .map(|(feature, value)| (feature.name.clone(), value.clone()))
                    .collect();
                let answer = served.infer(&document).unwrap();
                assert!(near(answer.value, probabilities[class]), "{name}: {answer:?}");
            }
        }
        models_compared += 1;
    }
    assert!(models_compared > 10);
}

/// A model file with a few bytes changed, cut or repeated, again and again.
#[test]
fn damaged_files_never_panic() {
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let options = ReadOptions { max_inflated: 1 << 24, ..ReadOptions::default() };
    for name in [
        "xgboost-3.2.0-regression.json",
        "xgboost-3.2.0-named-categories.ubj",
        "xgboost-3.2.0-estimator.pkl",
        "lightgbm-4.7.0-categorical.txt",
        "lightgbm-4.7.0-binary.json",
        "sklearn-1.9.1-tree-labels.joblib",
        "sklearn-1.9.1-boosting-binary.pkl",
        "sklearn-1.9.1-histogram-named.pkl",
        "sklearn-1.9.1-compressed.lz4",
        "sklearn-1.9.1-compressed.xz",
        "skops-1.9.1-tree.skops",
    ] {
        let whole = model(name);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            match random() % 3 {
                0 => bytes.truncate(random() % bytes.len()),
                1 => {
                    for _ in 0..=random() % 4 {
                        let at = random() % bytes.len();
                        bytes[at] = u8::try_from(random() % 256).unwrap();
                    }
                }
                _ => {
                    let (from, to) = (random() % bytes.len(), random() % bytes.len());
                    let length = (random() % 64).min(bytes.len() - from.max(to));
                    bytes.copy_within(from..from + length, to);
                }
            }
            if let Ok(ensemble) = trees::read(&bytes, &options)
                && let Ok(definition) = ensemble.define(&DefinitionOptions::default())
            {
                let _ = check::check(&ensemble, &definition, &DefinitionOptions::default());
            }
        }
    }
}
