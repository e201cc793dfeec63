//! Commands on tree models, against the stand-in.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Map, Value, json};
use standin::{License, Options, StandIn};

use crate::program::{ask, message, program, says};
use crate::trees::{close, expected, label_text};

fn file(name: &str) -> PathBuf {
    Path::new("tests/fixtures/trees").join(name)
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn import(standin: &StandIn, name: &str, more: &[&str]) -> Output {
    let path = file(name);
    let arguments = [
        "import",
        "--tree-model",
        path.to_str().unwrap(),
        "--url",
        &standin.url(),
        "--es-model-id",
        "m",
    ];
    run(&[&arguments[..], more].concat())
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", message(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn failed(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", message(output));
    says(&message(output), parts);
}

/// The rows of a model as documents, one a line.
fn documents(name: &str, names: &[String]) -> Vec<Value> {
    let rows = expected(name).rows;
    let document = |row: Vec<Value>| -> Value {
        Value::Object(names.iter().cloned().zip(row).collect::<Map<_, _>>())
    };
    rows.into_iter().map(document).collect()
}

fn names(standin: &StandIn) -> Vec<String> {
    // Trees that test no feature leave it out of the fields; the fixtures have five features at most.
    let (_, answer) = ask(standin, "GET", "/_ml/trained_models/m", None);
    let fields = &answer["trained_model_configs"][0]["input"]["field_names"];
    fields.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn written(folder: &Path, documents: &[Value]) -> PathBuf {
    let path = folder.join("rows.jsonl");
    let mut file = fs::File::create(&path).unwrap();
    for document in documents {
        writeln!(file, "{document}").unwrap();
    }
    path
}

fn answers(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn imported_tree_models_predict_as_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    for name in [
        "xgboost-3.2.0-regression.json",
        "xgboost-3.2.0-binary.ubj",
        "xgboost-3.2.0-named-categories.ubj",
        "xgboost-1.7.6-estimator-three.pkl",
        "lightgbm-4.7.0-pandas.txt",
        "lightgbm-4.7.0-zero.json",
        "lightgbm-4.7.0-poisson.txt",
        "sklearn-1.9.1-histogram-named.pkl",
        "sklearn-1.2.2-forest-labels.pkl",
        "sklearn-1.5.2-tree-labels.joblib",
        "skops-1.9.1-boosting.skops",
    ] {
        let text = succeeded(&import(&standin, name, &["--clear-previous"]));
        assert!(text.starts_with("m stored\n") && text.contains("pipeline"), "{text}");
        let (_, configuration) = ask(&standin, "GET", "/_ml/trained_models/m", None);
        assert_eq!(configuration["trained_model_configs"][0]["model_type"], "tree_ensemble");
        let expected = expected(name);
        let all = match &expected.columns {
            Some(columns) => columns.clone(),
            None => (0..expected.rows[0].len()).map(|index| format!("f{index}")).collect(),
        };
        let all = if name.starts_with("lightgbm") && expected.columns.is_none() {
            (0..all.len()).map(|index| format!("Column_{index}")).collect()
        } else {
            all
        };
        for used in names(&standin) {
            assert!(all.contains(&used), "{name}: {used}");
        }
        let data = written(folder.path(), &documents(name, &all));
        let data = data.to_str().unwrap();
        let remote = succeeded(&run(&[
            "infer",
            "--es-model-id",
            "m",
            "--url",
            &standin.url(),
            "--data",
            data,
        ]));
        let local = succeeded(&run(&[
            "infer",
            "--tree-model",
            file(name).to_str().unwrap(),
            "--data",
            data,
        ]));
        for text in [remote, local] {
            let answers = answers(&text);
            assert_eq!(answers.len(), expected.rows.len(), "{name}");
            for (index, answer) in answers.iter().enumerate() {
                // All fields are missing: Elasticsearch does not predict.
                if answer.get("warning").is_some() {
                    continue;
                }
                let predicted = &answer["predicted_value"];
                match (&expected.values, &expected.labels) {
                    (Some(values), _) => {
                        let predicted = predicted.as_f64().unwrap();
                        assert!(
                            close(predicted, values[index], 10.0),
                            "{name} {index}: {predicted}"
                        );
                    }
                    (_, Some(labels)) => {
                        assert_eq!(
                            label_text(predicted),
                            label_text(&labels[index]),
                            "{name} {index}"
                        );
                    }
                    _ => panic!("{name} has no predictions"),
                }
            }
        }
    }
}

#[test]
fn verify_compares_the_cluster_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    succeeded(&import(&standin, "xgboost-3.2.0-regression.json", &[]));
    let data = folder.path().join("rows.csv");
    fs::write(&data, "price,count,delta,change,flag\n19.99,3,0.001,0,1\n7,,-0.002,0.5,0\n,2,,,1\n")
        .unwrap();
    let verify = |name: &str| {
        let path = file(name);
        run(&[
            "verify",
            "--tree-model",
            path.to_str().unwrap(),
            "--url",
            &standin.url(),
            "--es-model-id",
            "m",
            "--data",
            data.to_str().unwrap(),
        ])
    };
    let text = succeeded(&verify("xgboost-3.2.0-regression.json"));
    assert!(text.contains("3 of 3 predictions equal those of the file"), "{text}");
    failed(&verify("xgboost-2.1.4-quantile.ubj"), 9, &["predictions differ"]);
}

#[test]
fn conflicting_model_is_kept_replaced_or_left_unchanged() {
    let standin = StandIn::start(Options { in_pipelines: vec!["m".into()], ..Options::default() });
    let (first, second) = ("xgboost-3.2.0-regression.json", "lightgbm-4.7.0-regression.txt");
    succeeded(&import(&standin, first, &[]));
    failed(&import(&standin, first, &[]), 7, &["m"]);
    let text = succeeded(&import(&standin, first, &["--on-conflict", "update"]));
    assert!(text.starts_with("m unchanged\n"), "{text}");
    let text = succeeded(&import(&standin, first, &["--on-conflict", "skip"]));
    assert!(text.starts_with("m unchanged\n"), "{text}");
    failed(&import(&standin, second, &["--on-conflict", "skip"]), 7, &["m"]);
    // A pipeline uses the model.
    failed(&import(&standin, second, &["--clear-previous"]), 6, &["ingest processors"]);
    let description = || {
        let (_, answer) = ask(&standin, "GET", "/_ml/trained_models/m", None);
        answer["trained_model_configs"][0]["description"].as_str().unwrap().to_owned()
    };
    assert!(description().contains("XGBoost"));
    let text = succeeded(&import(&standin, second, &["--on-conflict", "update", "--force"]));
    assert!(text.starts_with("m stored\n"), "{text}");
    assert!(description().contains("LightGBM"));
    succeeded(&run(&["delete", "m", "--force", "--url", &standin.url()]));
}

#[test]
fn previous_model_is_restored_if_the_new_one_is_refused() {
    let standin = StandIn::start(Options { max_content_length: 3_000, ..Options::default() });
    succeeded(&import(&standin, "sklearn-1.9.1-passthrough.pkl", &[]));
    let output = import(&standin, "sklearn-1.9.1-boosting-three.joblib", &["--clear-previous"]);
    failed(&output, 6, &["the previous model m was restored"]);
    let (status, answer) = ask(&standin, "GET", "/_ml/trained_models/m", None);
    assert_eq!(status, 200);
    let description = &answer["trained_model_configs"][0]["description"];
    assert!(description.as_str().unwrap().contains("scikit-learn"), "{description}");
}

#[test]
fn definition_above_a_tenth_of_the_heap_is_refused_before_it_is_sent() {
    let standin = StandIn::start(Options { heap: 20_000, ..Options::default() });
    let output = import(&standin, "xgboost-3.2.0-regression.json", &[]);
    failed(&output, 6, &["a tenth of its heap"]);
    assert!(!standin.requests().iter().any(|request| request.method == "PUT"));
}

#[test]
fn learning_to_rank_needs_extractors_and_an_enterprise_licence() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("ltr.json");
    let extractor = |name: String| json!({"query_extractor": {"feature_name": name, "query": {"match": {"title": "{{query}}"}}}});
    let extractors: Vec<_> = (0..5).map(|index| extractor(format!("score_{index}"))).collect();
    fs::write(&config, json!({"feature_extractors": extractors}).to_string()).unwrap();
    let name = "xgboost-3.2.0-ranking.ubj";
    let more = ["--ltr-config", config.to_str().unwrap()];
    let standin = StandIn::start(Options::default());
    failed(&import(&standin, name, &more), 6, &["enterprise"]);
    let standin = StandIn::start(Options { license: License::Enterprise, ..Options::default() });
    succeeded(&import(&standin, name, &more));
    let (_, answer) = ask(&standin, "GET", "/_ml/trained_models/m", None);
    let ranking = &answer["trained_model_configs"][0]["inference_config"]["learning_to_rank"];
    assert_eq!(ranking["feature_extractors"][0]["query_extractor"]["feature_name"], "score_0");
    let data = written(folder.path(), &[json!({"score_0": 1})]);
    let output = run(&[
        "infer",
        "--es-model-id",
        "m",
        "--url",
        &standin.url(),
        "--data",
        data.to_str().unwrap(),
    ]);
    failed(&output, 2, &["search"]);
    fs::write(&config, r#"{"feature_extractors": [{"query_extractor": {"feature_name": "a", "query": {"match": {"t": "{{q"}}}}]}"#)
        .unwrap();
    failed(&import(&standin, name, &more), 2, &["}}"]);
}

#[test]
fn exported_file_is_the_body_of_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = file("lightgbm-4.7.0-binary.txt");
    let (path, output) = (path.to_str().unwrap(), folder.path().to_str().unwrap());
    succeeded(&run(&[
        "export",
        "--tree-model",
        path,
        "--output",
        output,
        "--es-model-id",
        "m",
        "--classification-labels",
        "no,yes",
        "--num-top-classes",
        "2",
    ]));
    let body = fs::read(folder.path().join("m.tree_model.json")).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let standin = StandIn::start(Options::default());
    let (status, answer) = ask(&standin, "PUT", "/_ml/trained_models/m", Some(&body));
    assert_eq!(status, 200, "{answer}");
    let document = json!({"docs": [{"Column_0": 20.5}]});
    let (_, answer) = ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&document));
    assert_eq!(answer["inference_results"][0]["top_classes"].as_array().unwrap().len(), 2);
}

#[test]
fn inspect_shows_the_model_without_a_cluster() {
    let path = file("sklearn-1.9.1-forest-labels.pkl");
    let text = succeeded(&run(&["inspect", "--tree-model", path.to_str().unwrap()]));
    says(
        &text,
        &["RandomForestClassifier", "labels       0, 10, 20", "5 trees", "note", "f0: number"],
    );
    let path = file("sklearn-refused-linear.pkl");
    failed(&run(&["inspect", "--tree-model", path.to_str().unwrap()]), 3, &["LinearRegression"]);
    let path = file("xgboost-old-binary.model");
    failed(&run(&["inspect", "--tree-model", path.to_str().unwrap()]), 3, &["save_model"]);
}
