//! Commands on tree models, against the stand-in.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ::hub::Repository;
use serde_json::{Map, Value, json};
use standin::{Faults, License, Options, StandIn};

use crate::from_hub::{Cache, serving};
use crate::processes::{end, held, signal, spawn, wait_for};
use crate::program::{ask, message, program, says};
use crate::trees::{close, expected, label_text};
use crate::uploads::rules;

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
    let verify_with = |name: &str, more: &[&str]| {
        let (path, url) = (file(name), standin.url());
        let arguments = [
            "verify",
            "--tree-model",
            path.to_str().unwrap(),
            "--url",
            &url,
            "--es-model-id",
            "m",
            "--data",
            data.to_str().unwrap(),
        ];
        run(&[&arguments[..], more].concat())
    };
    let verify = |name: &str| verify_with(name, &[]);
    let text = succeeded(&verify("xgboost-3.2.0-regression.json"));
    assert!(text.contains("3 of 3 predictions equal those of the file"), "{text}");
    assert!(text.contains("XGBoost adds its leaves as float32 numbers"), "{text}");
    let names = ["--feature-names", "price,count,delta,change,flag"];
    failed(&verify_with("xgboost-2.1.4-quantile.ubj", &names), 9, &["predictions differ"]);
    // The same rows under other names, or with semicolons.
    fs::write(&data, "cost,number\n19.99,3\n7,\n").unwrap();
    let requests = standin.requests().len();
    let output = verify("xgboost-3.2.0-regression.json");
    failed(&output, 2, &["nothing can be compared", "\"price\"", "\"cost\"", "--feature-names"]);
    assert_eq!(standin.requests().len(), requests);
    for separator in [";", "\t"] {
        let rows = "price,count,delta,change,flag\n19.99,3,0.001,0,1\n".replace(',', separator);
        fs::write(&data, rows).unwrap();
        failed(&verify("xgboost-3.2.0-regression.json"), 2, &["single column", "commas"]);
    }
    // Some rows can be compared.
    fs::write(&data, "price,other\n19.99,1\n,2\n").unwrap();
    let text = succeeded(&verify("xgboost-3.2.0-regression.json"));
    says(&text, &["1 of 1 predictions equal", "1 documents have none of the model's fields"]);
}

#[test]
fn verify_counts_other_labels_and_shows_no_difference_of_numbers_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    let name = "sklearn-1.9.1-forest-labels.pkl";
    succeeded(&import(&standin, name, &["--classification-labels", "a,b,c"]));
    let data = written(folder.path(), &[json!({"f0": 1}), json!({"f0": 30})]);
    let path = file(name);
    let output = run(&[
        "verify",
        "--tree-model",
        path.to_str().unwrap(),
        "--es-model-id",
        "m",
        "--url",
        &standin.url(),
        "--data",
        data.to_str().unwrap(),
    ]);
    failed(&output, 9, &["2 of 2 predictions differ"]);
    let text = String::from_utf8(output.stdout).unwrap();
    says(&text, &["0 of 2 predictions equal", "2 predictions have another label"]);
    assert!(!text.contains("largest") && !text.contains("0e0"), "{text}");
}

#[test]
fn documents_are_answered_alike_by_the_file_and_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    let answers_of = |name: &str, more: &[&str], documents: &[Value]| {
        succeeded(&import(&standin, name, &[more, &["--clear-previous"]].concat()));
        let data = written(folder.path(), documents);
        let data = data.to_str().unwrap();
        let url = standin.url();
        let remote = ["infer", "--es-model-id", "m", "--url", &url, "--data", data];
        let path = file(name);
        let path = path.to_str().unwrap();
        let local = [&["infer", "--tree-model", path, "--data", data][..], more].concat();
        let [local, remote] = [local, remote.to_vec()].map(|it| answers(&succeeded(&run(&it))));
        for ((local, remote), document) in local.iter().zip(&remote).zip(documents) {
            let (own, theirs) = (&local["predicted_value"], &remote["predicted_value"]);
            let equal = match (own.as_f64(), theirs.as_f64()) {
                (Some(own), Some(theirs)) => close(own, theirs, 0.0),
                _ => own == theirs,
            };
            assert!(equal, "{name} {document}: {local} {remote}");
            assert_eq!(
                local.get("warning").is_some(),
                remote.get("warning").is_some(),
                "{document}"
            );
        }
        remote
    };
    // Values of a categorical field that are no codes.
    let values = json!([
        "abc", "", "3", "3.0", " 3", "3d", 1.5, 3, 3.0, -1, true, [1], {"a": 7}, {}, null
    ]);
    let documents: Vec<_> = values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| json!({"f0": 20, "f1": value, "f4": 1}))
        .collect();
    answers_of("xgboost-1.7.6-categorical.json", &[], &documents);
    // An object is a value: an unknown category, and a field that is not absent. In a number's field it is missing.
    let category = |value: Value| json!({"f1": value});
    let odd = [category(json!({"a": 3})), category(json!("abc")), json!({"f0": {"a": 1}})];
    let all = answers_of("xgboost-1.7.6-categorical.json", &[], &odd);
    assert!(all.iter().all(|answer| answer["predicted_value"].is_number()), "{all:?}");
    assert_eq!(all[0], all[1]);
    // A feature that no tree tests.
    let path = file("xgboost-3.2.0-regression.json");
    let report =
        succeeded(&run(&["inspect", "--output", "json", "--tree-model", path.to_str().unwrap()]));
    let report: Value = serde_json::from_str(&report).unwrap();
    let features = report["features"].as_array().unwrap();
    let documents: Vec<_> =
        features.iter().map(|feature| json!({feature["name"].as_str().unwrap(): 1})).collect();
    let all = answers_of("xgboost-3.2.0-regression.json", &[], &documents);
    assert!(all.iter().all(|answer| answer["predicted_value"].is_number()), "{all:?}");
    // None of the fields, and a field under another name. A field that is null counts as absent.
    let documents = [
        json!({}),
        json!({"price": null}),
        json!({"other": 1}),
        json!({"cost": 19.99}),
        json!({"cost": 19.99, "price": null}),
        json!({"cost": 1, "price": 30}),
        json!({"cost": {"a": 1}}),
    ];
    let map = ["--default-field-map", "cost=price"];
    let all = answers_of("xgboost-3.2.0-regression.json", &map, &documents);
    let warned: Vec<_> = all.iter().map(|answer| answer.get("warning").is_some()).collect();
    assert_eq!(warned, [true, true, true, false, false, false, false]);
    // Nested objects and names with dots.
    let nested = [
        json!({"a": {"b": {"c": 1}}, "a.b": {"c": 30}}),
        json!({"a.b.c": null, "a": {"b.c": 30}}),
        json!({"a": {"b": {"c": {"d": 30}}}}),
        json!({"a": {"b": {"d": 30}}}),
    ];
    let map = ["--default-field-map", "a.b.c=price"];
    let all = answers_of("xgboost-3.2.0-regression.json", &map, &nested);
    assert_eq!(all[0], all[1]);
    let warned: Vec<_> = all.iter().map(|answer| answer.get("warning").is_some()).collect();
    assert_eq!(warned, [false, false, false, true]);
    // Labels of every type.
    let labels = ["--classification-labels", "false,true", "--prediction-field-type", "boolean"];
    answers_of("xgboost-3.2.0-binary.ubj", &labels, &[json!({"price": 1}), json!({"price": 40})]);
    let numbers = ["--classification-labels", "7,-8", "--prediction-field-type", "number"];
    answers_of("xgboost-3.2.0-binary.ubj", &numbers, &[json!({"price": 1}), json!({"price": 40})]);
    let texts = ["--prediction-field-type", "string"];
    answers_of("xgboost-3.2.0-binary.ubj", &texts, &[json!({"price": 1}), json!({"price": 40})]);
}

#[test]
fn settings_without_an_effect_are_refused() {
    let standin = StandIn::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let data = written(folder.path(), &[json!({"price": 1})]);
    for (name, more, part) in [
        ("xgboost-3.2.0-binary.ubj", &["--num-top-classes", "-2"][..], "-2"),
        ("xgboost-3.2.0-regression.json", &["--num-top-classes", "2"], "only a classification"),
        (
            "xgboost-3.2.0-regression.json",
            &["--default-field-map", "cost=prise"],
            "the model has no feature of that name",
        ),
        (
            "xgboost-3.2.0-regression.json",
            &["--default-field-map", "a=price", "--default-field-map", "b=price"],
            "both mapped to \"price\"",
        ),
        (
            "xgboost-3.2.0-regression.json",
            &["--default-field-map", "a=price", "--default-field-map", "a=count"],
            "maps the field \"a\" twice",
        ),
        ("xgboost-3.2.0-regression.json", &["--default-field-map", "=price"], "has no name"),
        ("xgboost-3.2.0-regression.json", &["--results-field", ""], "cannot hold the prediction"),
        (
            "xgboost-3.2.0-regression.json",
            &["--results-field", "a..b"],
            "a part of the name is empty",
        ),
        (
            "xgboost-3.2.0-regression.json",
            &["--results-field", " a"],
            "starts or ends with a space",
        ),
        ("xgboost-3.2.0-binary.ubj", &["--results-field", "top_classes"], "another result"),
        ("xgboost-3.2.0-regression.json", &["--output-class", "a"], "is not a classification"),
        (
            "xgboost-3.2.0-binary.ubj",
            &["--classification-weights", "1,-1"],
            "numbers of at least 0",
        ),
        (
            "xgboost-3.2.0-binary.ubj",
            &["--classification-labels", "a,b", "--prediction-field-type", "number"],
            "\"a\" is not a whole number",
        ),
        (
            "sklearn-1.9.1-forest-labels.pkl",
            &["--classification-weights", "1,2,3"],
            "weights cannot be set",
        ),
        ("xgboost-3.2.0-binary.ubj", &["--tag", "BAD!"], "\"BAD!\" cannot be a tag"),
        ("xgboost-3.2.0-binary.ubj", &["--tag", "a_"], "start and end with a letter"),
    ] {
        failed(&import(&standin, name, more), 2, &[part]);
        let path = file(name);
        let local =
            ["infer", "--tree-model", path.to_str().unwrap(), "--data", data.to_str().unwrap()];
        failed(&run(&[&local[..], more].concat()), 2, &[part]);
    }
    assert!(!standin.requests().iter().any(|request| request.method == "PUT"));
    let output = import(&standin, "xgboost-3.2.0-binary.ubj", &["--tag", "m"]);
    failed(&output, 2, &["\"m\" is the model's id, so it cannot be a tag"]);
    let output = import(&standin, "xgboost-3.2.0-regression.json", &["--all-rounds"]);
    succeeded(&output);
    says(&message(&output), &["the option to use all rounds has no effect"]);
    let output = import(&standin, "xgboost-3.2.0-regression.json", &["--target", "ranking"]);
    failed(&output, 2, &["the target is ranking", "--ltr-config", "reg:squarederror"]);
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
    failed(&output, 6, &["The old model m was restored."]);
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
    failed(&import(&standin, name, &more), 6, &["enterprise licence", "platinum"]);
    assert!(!standin.requests().iter().any(|request| request.method == "PUT"));
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
    assert_eq!(answer["trained_model_configs"][0]["input"]["field_names"], json!([]));
    // The file can predict for the features themselves.
    let path = file(name);
    let local = ["infer", "--tree-model", path.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let local = answers(&succeeded(&run(&[&local[..], &more].concat())));
    assert!(local[0]["predicted_value"].is_number());
    // The old model has no fields either, and can be stored again.
    standin.set_faults(rules(&["create@1=500"]));
    let output =
        import(&standin, name, &[&more[..], &["--clear-previous", "--retries", "0"]].concat());
    failed(&output, 6, &["The old model m was restored."]);
    standin.set_faults(Faults::default());

    let release = |version: &str| {
        let version = version.parse().unwrap();
        StandIn::start(Options { version, license: License::Enterprise, ..Options::default() })
    };
    failed(&import(&release("8.11.0"), name, &more), 6, &["8.12"]);
    let preview = release("8.13.0");
    let output = import(&preview, name, &more);
    succeeded(&output);
    says(&message(&output), &["preview before Elasticsearch 8.15"]);
    let (_, answer) = ask(&preview, "GET", "/_ml/trained_models/m", None);
    assert_eq!(answer["trained_model_configs"][0]["input"]["field_names"][0], "score_0");

    let extractor = |query: Value| json!({"feature_extractors": [{"query_extractor": {"feature_name": "a", "query": query}}]});
    for (wrong, part) in [
        (extractor(json!({"match": {"t": "{{q"}})), "}}"),
        (extractor(json!({"match": {"t": "{{ }}"}})), "without a name"),
        (extractor(json!("match")), "no query"),
        (extractor(json!({"match_all": {}})), "no extractor computes the feature"),
        (json!({"feature_extractors": []}), "no extractor computes the feature"),
        (json!({"feature_extractor": []}), "unknown key"),
        (json!([]), "JSON object"),
    ] {
        fs::write(&config, wrong.to_string()).unwrap();
        failed(&import(&standin, name, &[&more[..], &["--clear-previous"]].concat()), 2, &[part]);
    }
    failed(&import(&standin, name, &["--target", "ranking"]), 2, &["--ltr-config"]);
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
    failed(
        &run(&["inspect", "--tree-model", path.to_str().unwrap()]),
        3,
        &["save_model(\"model.json\")"],
    );
}

/// The id, type, description and predictions of the model `m`, as far as a test needs them to recognise it.
fn description(standin: &StandIn) -> Option<String> {
    let (status, answer) = ask(standin, "GET", "/_ml/trained_models/m", None);
    let text = &answer["trained_model_configs"][0]["description"];
    (status == 200).then(|| text.as_str().unwrap_or_default().to_owned())
}

const OLD: &str = "sklearn-1.9.1-passthrough.pkl";
const NEW: &str = "lightgbm-4.7.0-regression.txt";

/// A cluster with a model `m`, and a folder for the state of imports.
fn with_old_model() -> (StandIn, tempfile::TempDir) {
    let standin = StandIn::start(Options::default());
    succeeded(&import(&standin, OLD, &[]));
    assert!(description(&standin).unwrap().contains("scikit-learn"));
    (standin, tempfile::tempdir().unwrap())
}

/// The import that replaces the model `m`.
fn replacement(standin: &StandIn, state: &Path) -> Command {
    let mut command = program();
    command
        .args(["import", "--es-model-id", "m", "--on-conflict", "update", "--tree-model"])
        .arg(file(NEW))
        .args(["--url", &standin.url(), "--state-dir"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Kills the replacement of the model `m` while the stand-in holds the request that `rule` names.
fn kill_replacement(standin: &StandIn, state: &Path, rule: &str) {
    standin.set_faults(rules(&[rule]));
    let mut child = replacement(standin, state).spawn().unwrap();
    assert!(held(standin, 1, &mut child));
    child.kill().unwrap();
    child.wait().unwrap();
    standin.set_faults(Faults::default());
}

/// The files of old models.
fn saved(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(state.join("imports")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().ends_with(".previous.json")).collect()
}

#[test]
fn model_deleted_by_a_killed_import_is_restored_by_the_next_one() {
    let (standin, state) = with_old_model();
    kill_replacement(&standin, state.path(), "create=hold");
    assert_eq!(description(&standin), None, "the old model is deleted");
    assert_eq!(saved(state.path()).len(), 1);
    // The new import is one that fails.
    let in_state = ["--state-dir", state.path().to_str().unwrap()];
    let output = import(&standin, "xgboost-3.2.0-regression.json", &in_state);
    failed(&output, 7, &["the model m was restored", "already has a model m"]);
    assert!(description(&standin).unwrap().contains("scikit-learn"));
    assert!(saved(state.path()).is_empty());
    let output = replacement(&standin, state.path()).output().unwrap();
    assert!(succeeded(&output).starts_with("m stored\n"));
    assert!(description(&standin).unwrap().contains("LightGBM"));
    assert!(saved(state.path()).is_empty());
}

#[test]
fn model_stored_just_before_a_kill_is_kept_by_the_next_import() {
    let (standin, state) = with_old_model();
    kill_replacement(&standin, state.path(), "create=store-hold");
    assert!(description(&standin).unwrap().contains("LightGBM"));
    let output = replacement(&standin, state.path()).output().unwrap();
    assert!(succeeded(&output).starts_with("m unchanged\n"));
    assert!(description(&standin).unwrap().contains("LightGBM"));
    assert!(saved(state.path()).is_empty());
}

/// The files of old models that were kept.
fn kept(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join("imports")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().contains(".kept")).collect()
}

/// Creates another model `m`.
fn create_another(standin: &StandIn) {
    let folder = tempfile::tempdir().unwrap();
    let path = file("xgboost-3.2.0-regression.json");
    let (path, output) = (path.to_str().unwrap(), folder.path().to_str().unwrap());
    succeeded(&run(&["export", "--tree-model", path, "--output", output, "--es-model-id", "m"]));
    let body = fs::read(folder.path().join("m.tree_model.json")).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(ask(standin, "PUT", "/_ml/trained_models/m", Some(&body)).0, 200);
}

/// Asserts that a file is the body of a request that creates the old model.
fn is_old_model(file: &Path) {
    let body: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert!(body["description"].as_str().unwrap().contains("scikit-learn"), "{body}");
    let standin = StandIn::start(Options::default());
    assert_eq!(ask(&standin, "PUT", "/_ml/trained_models/m", Some(&body)).0, 200);
}

#[test]
fn old_model_of_a_killed_import_is_kept_if_its_id_is_taken() {
    let (standin, state) = with_old_model();
    for number in 1..=2 {
        kill_replacement(&standin, state.path(), "create=hold");
        create_another(&standin);
        let output = replacement(&standin, state.path()).output().unwrap();
        assert!(succeeded(&output).starts_with("m stored\n"));
        let files = kept(state.path());
        assert_eq!(files.len(), number);
        says(&message(&output), &["another model has this id now", "The old model is kept in"]);
        assert!(files.iter().any(|file| message(&output).contains(file.to_str().unwrap())));
        files.iter().for_each(|file| is_old_model(file));
        assert!(saved(state.path()).is_empty());
        succeeded(&import(&standin, OLD, &["--clear-previous"]));
    }
}

#[test]
fn old_model_is_kept_if_another_import_creates_the_new_one() {
    let (standin, state) = with_old_model();
    standin.set_faults(rules(&["delete=store-hold"]));
    let (mut child, stderr) = spawn(replacement(&standin, state.path()));
    assert!(held(&standin, 1, &mut child));
    create_another(&standin);
    standin.release();
    let (code, said) = end(child, stderr);
    assert_eq!(code, Some(7), "{said}");
    let files = kept(state.path());
    assert_eq!(files.len(), 1);
    says(&said, &["another import created the model m", files[0].to_str().unwrap()]);
    is_old_model(&files[0]);
    assert!(description(&standin).unwrap().contains("reg:squarederror"));
}

#[test]
fn model_that_a_stored_pipeline_uses_needs_force() {
    let (standin, state) = with_old_model();
    let pipeline = json!({"processors": [{"inference": {"model_id": "m"}}]});
    assert_eq!(ask(&standin, "PUT", "/_ingest/pipeline/p", Some(&pipeline)).0, 200);
    let output = replacement(&standin, state.path()).output().unwrap();
    failed(&output, 6, &["ingest processors"]);
    assert!(description(&standin).unwrap().contains("scikit-learn"));
    assert_eq!(ask(&standin, "DELETE", "/_ingest/pipeline/p", None).0, 200);
    succeeded(&replacement(&standin, state.path()).output().unwrap());
}

#[test]
fn interrupted_replacement_restores_the_old_model() {
    for name in ["-INT", "-TERM"] {
        let (standin, state) = with_old_model();
        standin.set_faults(rules(&["delete=store-hold"]));
        let (mut child, mut stderr) = spawn(replacement(&standin, state.path()));
        assert!(held(&standin, 1, &mut child));
        signal(&child, name);
        wait_for(&mut stderr, "stopping");
        standin.release();
        let (code, said) = end(child, stderr);
        assert_eq!(code, Some(130), "{said}");
        says(&said, &["interrupted", "The old model m was restored."]);
        assert!(description(&standin).unwrap().contains("scikit-learn"));
        assert!(saved(state.path()).is_empty());
    }
}

#[test]
fn replacement_waiting_for_a_retry_restores_the_old_model_when_interrupted() {
    let (standin, state) = with_old_model();
    let faults = Faults { retry_after: Some(30), ..rules(&["create@1=503"]) };
    standin.set_faults(faults);
    let (mut child, mut stderr) = spawn({
        let mut command = replacement(&standin, state.path());
        command.args(["-vv"]);
        command
    });
    wait_for(&mut stderr, "next attempt in");
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, "-INT");
    let (code, said) = end(child, stderr);
    assert_eq!(code, Some(130), "{said}");
    says(&said, &["The old model m was restored."]);
    assert!(description(&standin).unwrap().contains("scikit-learn"));
}

#[test]
fn replacement_stopped_at_once_names_the_file_of_the_old_model() {
    let (standin, state) = with_old_model();
    standin.set_faults(rules(&["create=hold"]));
    let (mut child, mut stderr) = spawn(replacement(&standin, state.path()));
    assert!(held(&standin, 1, &mut child));
    signal(&child, "-INT");
    wait_for(&mut stderr, "stopping");
    signal(&child, "-INT");
    let (code, said) = end(child, stderr);
    assert_eq!(code, Some(130), "{said}");
    let files = saved(state.path());
    assert_eq!(files.len(), 1);
    says(&said, &["may be missing", files[0].to_str().unwrap(), "Run the same command again"]);
    standin.set_faults(Faults::default());
    // The file is the body of the request that creates the old model.
    let body: Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
    let (status, answer) = ask(&standin, "PUT", "/_ml/trained_models/m", Some(&body));
    assert_eq!(status, 200, "{answer}");
    assert!(description(&standin).unwrap().contains("scikit-learn"));
}

#[test]
fn request_that_fails_for_a_passing_reason_is_sent_again() {
    for faults in [
        &["create@1-2=503"][..],
        &["create@1=breaker"],
        &["create@1=rejected"],
        &["create@1=cut"],
        &["create@1=store-cut"],
        &["create@1=store-503"],
        &["create@1=cut-answer"],
        &["delete@1=cut", "create@1=502"],
        &["delete@1=store-cut"],
        &["get@1=503", "get@2=cut"],
    ] {
        let (standin, state) = with_old_model();
        standin.set_faults(rules(faults));
        let output = replacement(&standin, state.path()).output().unwrap();
        assert!(succeeded(&output).starts_with("m stored\n"), "{faults:?}");
        standin.set_faults(Faults::default());
        assert!(description(&standin).unwrap().contains("LightGBM"), "{faults:?}");
        assert!(saved(state.path()).is_empty(), "{faults:?}");
    }
}

#[test]
fn cluster_that_stays_busy_gets_the_old_model_back() {
    let (standin, state) = with_old_model();
    standin.set_faults(rules(&["create@1-2=503"]));
    let output = replacement(&standin, state.path()).args(["--retries", "1"]).output().unwrap();
    failed(&output, 6, &["503", "The old model m was restored."]);
    assert!(description(&standin).unwrap().contains("scikit-learn"));
    assert!(saved(state.path()).is_empty());
}

#[test]
fn old_model_that_cannot_be_restored_is_kept_in_a_file() {
    let (standin, state) = with_old_model();
    standin.set_faults(rules(&["create=503"]));
    let output = replacement(&standin, state.path()).args(["--retries", "1"]).output().unwrap();
    let files = saved(state.path());
    assert_eq!(files.len(), 1);
    failed(&output, 6, &["may be missing", files[0].to_str().unwrap()]);
    standin.set_faults(Faults::default());
    let output = replacement(&standin, state.path()).output().unwrap();
    says(&message(&output), &["the model m was restored"]);
    assert!(succeeded(&output).starts_with("m stored\n"));
    assert!(description(&standin).unwrap().contains("LightGBM"));
    assert!(saved(state.path()).is_empty());
}

#[test]
fn two_imports_of_one_id_do_not_run_at_once() {
    let (standin, state) = with_old_model();
    standin.set_faults(rules(&["create=hold"]));
    let (mut child, stderr) = spawn(replacement(&standin, state.path()));
    assert!(held(&standin, 1, &mut child));
    let output = replacement(&standin, state.path()).output().unwrap();
    failed(&output, 7, &["another process on this machine is importing m"]);
    standin.release();
    let (code, said) = end(child, stderr);
    assert_eq!(code, Some(0), "{said}");
    assert!(description(&standin).unwrap().contains("LightGBM"));
}

#[test]
fn tree_model_does_not_replace_a_model_of_another_type() {
    let standin =
        StandIn::start(Options { existing_models: vec!["m".into()], ..Options::default() });
    failed(&import(&standin, NEW, &["--clear-previous"]), 7, &["of type pytorch", "delete"]);
    assert!(!standin.requests().iter().any(|request| request.method == "DELETE"));
}

#[test]
fn apply_imports_tree_models_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    fs::copy(file("xgboost-3.2.0-binary.ubj"), folder.path().join("churn.ubj")).unwrap();
    fs::copy(file(NEW), folder.path().join("price.txt")).unwrap();
    fs::write(folder.path().join("names.txt"), "a\nb\nc\nd\ne\n").unwrap();
    fs::write(
        folder.path().join("models.yaml"),
        "defaults:\n  start: true\n  quantize: true\n  task-type: text_embedding\n  number-of-allocations: 2\n  on-conflict: update\n\
         models:\n\
         \x20 - tree-model: churn.ubj\n    classification-labels: [stays, leaves]\n    classification-weights: [1, 2]\n    num-top-classes: 2\n\
         \x20   prediction-field-type: string\n    results-field: churn\n    default-field-map: [customer.price=price, n=count]\n\
         \x20   description: Who leaves\n    tag: [sales, test]\n    boolean-fields: [flag]\n\
         \x20 - tree-model: price.txt\n    es-model-id: price\n    feature-names-file: names.txt\n    force: true\n",
    )
    .unwrap();
    let apply = |more: &[&str]| {
        program()
            .args(["apply", "models.yaml", "--url", &standin.url(), "--output", "json"])
            .args(more)
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let output = apply(&[]);
    let report: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!(report["models"][0]["model_id"], "churn");
    assert_eq!(report["models"][0]["result"], "stored");
    assert_eq!(report["models"][1]["result"], "stored");
    let (_, answer) = ask(&standin, "GET", "/_ml/trained_models/churn", None);
    let churn = &answer["trained_model_configs"][0];
    assert_eq!(churn["description"], "Who leaves");
    assert_eq!(churn["tags"], json!(["sales", "test"]));
    assert_eq!(churn["default_field_map"], json!({"customer.price": "price", "n": "count"}));
    let settings = &churn["inference_config"]["classification"];
    assert_eq!(settings["results_field"], "churn");
    assert_eq!(settings["num_top_classes"], 2);
    assert_eq!(settings["prediction_field_type"], "string");
    assert_eq!(churn["metadata"]["trees"], 6);
    let report: Value = serde_json::from_str(&succeeded(&apply(&[]))).unwrap();
    assert!(report["models"].as_array().unwrap().iter().all(|it| it["result"] == "unchanged"));

    // A file that is wrong fails alone.
    fs::write(folder.path().join("price.txt"), "tree\nversion=v4\n").unwrap();
    let output = apply(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["models"][0]["result"], "unchanged");
    assert_eq!(report["models"][1]["result"], "failed");

    fs::write(
        folder.path().join("models.yaml"),
        "models:\n  - tree-model: churn.ubj\n    start: true\n",
    )
    .unwrap();
    failed(&apply(&[]), 2, &["line 2", "a tree model needs no deployment"]);
    fs::write(
        folder.path().join("models.yaml"),
        "models:\n  - tree-model: churn.ubj\n  - tree-model: other/churn.ubj\n",
    )
    .unwrap();
    failed(&apply(&[]), 2, &["the model id churn is already used"]);
    fs::write(
        folder.path().join("models.yaml"),
        "models:\n  - tree-model: churn.ubj\n    tag: [sales, BAD!]\n",
    )
    .unwrap();
    failed(&apply(&[]), 2, &["\"BAD!\" cannot be a tag"]);
}

#[test]
fn list_status_and_delete_show_tree_models() {
    let standin = StandIn::start(Options { in_pipelines: vec!["m".into()], ..Options::default() });
    succeeded(&import(&standin, NEW, &[]));
    let url = standin.url();
    let text = succeeded(&run(&["list", "--url", &url, "m*"]));
    says(&text, &["tree_ensemble", "regression"]);
    assert!(!text.contains("not deployed"), "{text}");
    let text = succeeded(&run(&["status", "m", "--url", &url]));
    says(
        &text,
        &["tree_ensemble", "regression", "objective", "trees       6, with ", "pipelines   1"],
    );
    let report = succeeded(&run(&["status", "m", "--url", &url, "--output", "json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["trees"], &report["served"]), (&json!(6), &json!(true)));
    failed(&run(&["delete", "m", "--url", &url]), 6, &["ingest processors"]);
    succeeded(&run(&["delete", "m", "--force", "--url", &url]));
    assert_eq!(description(&standin), None);
    // Commands of deployments explain themselves.
    succeeded(&import(&standin, NEW, &[]));
    let output = run(&["infer", "--es-model-id", "m", "--url", &url, "a text"]);
    assert!(!output.status.success());
    says(&message(&output), &["--data"]);
}

#[test]
fn pipeline_of_the_summary_adds_predictions_to_documents() {
    let standin = StandIn::start(Options::default());
    let more =
        ["--output", "json", "--classification-labels", "stays,leaves", "--num-top-classes", "2"];
    let report = succeeded(&import(&standin, "xgboost-3.2.0-binary.ubj", &more));
    let report: Value = serde_json::from_str(&report).unwrap();
    let document =
        json!({"_source": {"price": 19.99, "count": 3, "delta": 0.001, "change": 0, "flag": 1}});
    let body = json!({"pipeline": report["pipeline"], "docs": [document]});
    let (status, answer) = ask(&standin, "POST", "/_ingest/pipeline/_simulate", Some(&body));
    assert_eq!(status, 200, "{answer}");
    let ml = &answer["docs"][0]["doc"]["_source"]["ml"]["m"];
    assert!(["stays", "leaves"].contains(&ml["predicted_value"].as_str().unwrap()), "{answer}");
    assert_eq!(ml["top_classes"].as_array().unwrap().len(), 2);
}

#[test]
fn tree_model_on_the_hub_works_as_a_local_file() {
    let bytes = fs::read(file("xgboost-3.2.0-binary.ubj")).unwrap();
    let repository = Repository::new("org/model").file("models/churn.ubj", bytes);
    let commit = repository.commit();
    let hub = serving([repository]);
    let cache = Cache::new();
    let standin = StandIn::start(Options::default());
    let run = |arguments: &[&str]| cache.program(&hub.url()).args(arguments).output().unwrap();
    let name = "org/model/models/churn.ubj";
    let text = succeeded(&run(&["inspect", "--tree-model", name]));
    says(&text, &["binary:logistic", "6 trees"]);
    succeeded(&run(&["import", "--tree-model", name, "--url", &standin.url()]));
    let (status, answer) = ask(&standin, "GET", "/_ml/trained_models/org__model__churn", None);
    assert_eq!(status, 200, "{answer}");
    let metadata = &answer["trained_model_configs"][0]["metadata"];
    assert_eq!(metadata["hub_model_id"], "org/model");
    assert_eq!(metadata["hub_commit"], commit.as_str());
    let text = succeeded(&run(&["status", "org__model__churn", "--url", &standin.url()]));
    says(&text, &["org/model at"]);
    let data = cache.home().join("rows.csv");
    fs::write(&data, "price,count\n3,4\n5,6\n").unwrap();
    let data = data.to_str().unwrap();
    succeeded(&run(&["verify", "--tree-model", name, "--url", &standin.url(), "--data", data]));
    // The file is cached now.
    let folder = cache.home().join("out");
    succeeded(&run(&[
        "export",
        "--tree-model",
        name,
        "--offline",
        "--output",
        folder.to_str().unwrap(),
        "--revision",
        commit.as_str(),
    ]));
    assert!(folder.join("org__model__churn.tree_model.json").exists());
    let output = run(&["inspect", "--tree-model", "org/model/models/none.ubj"]);
    failed(&output, 4, &["none.ubj"]);
    let output = run(&["inspect", "--tree-model", "org/model"]);
    failed(&output, 4, &["org/model"]);
}

#[test]
fn rows_are_read_from_files_as_spreadsheets_and_pandas_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let infer = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        run(&[
            "infer",
            "--tree-model",
            file("xgboost-3.2.0-regression.json").to_str().unwrap(),
            "--data",
            path.to_str().unwrap(),
        ])
    };
    let plain = "price,count,delta,change,flag\n19.99,3,0.001,0,1\n7,,-0.002,0.5,0\n";
    let expected = succeeded(&infer("rows.csv", plain));
    for (what, text) in [
        ("byte order mark", format!("\u{feff}{plain}")),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("no newline at the end", plain.trim_end().to_owned()),
        ("quotes", "\"price\",\"count\",delta,change,flag\n\"19.99\",3,\"0.001\",0,1\n7,\"\",-0.002,0.5,0\n".to_owned()),
        ("NaN", "price,count,delta,change,flag\n19.99,3,0.001,0,1\n7,NaN,-0.002,0.5,0\n".to_owned()),
        ("other columns", "id,price,count,delta,change,flag,\"a, note\"\nx,19.99,3,0.001,0,1,\"one\ntwo\"\ny,7,,-0.002,0.5,0,\n".to_owned()),
        ("text numbers", "price,count,delta,change,flag\n19.990,+3,1e-3,0,01\n7,,-2e-3,.5,0\n".to_owned()),
    ] {
        assert_eq!(succeeded(&infer("rows.csv", &text)), expected, "{what}");
    }
    for (what, text) in [
        (
            "plain",
            "{\"price\": 19.99, \"count\": 3, \"delta\": 0.001, \"change\": 0, \"flag\": 1}\n{\"price\": 7, \"count\": null, \"delta\": -0.002, \"change\": 0.5, \"flag\": 0}\n",
        ),
        (
            "odd",
            "\u{feff}{\"price\": \"19.99\", \"count\": 3, \"delta\": 0.001, \"change\": 0, \"flag\": 1}\r\n\r\n{\"price\": 7, \"delta\": -0.002, \"change\": 0.5, \"flag\": 0, \"x\": [1]}",
        ),
    ] {
        assert_eq!(succeeded(&infer("rows.jsonl", text)), expected, "{what}");
    }
    failed(&infer("rows.csv", "price,count\n1,2,3\n"), 2, &["line 2", "3 cells", "2"]);
    failed(&infer("rows.csv", "price,price\n1,2\n"), 2, &["two columns", "price"]);
    let open = "price,count\n1,2\n3,\"4\n5,6\n";
    failed(&infer("rows.csv", open), 2, &["line 3", "quotation mark is not closed"]);
    failed(&infer("rows.csv", ""), 2, &["no documents"]);
    failed(&infer("rows.csv", "price,count\n"), 2, &["no documents"]);
    failed(&infer("rows.jsonl", "\n\n{\"price\": }\n"), 2, &["line 3", "column"]);
    failed(&infer("rows.jsonl", "[1, 2]\n"), 2, &["line 1", "JSON object"]);
    let output = infer("rows.csv", "Price,count,delta,change\n1,2,3,4\n");
    succeeded(&output);
    says(&message(&output), &["no document has \"price\"", "\"Price\""]);
}

#[test]
fn boolean_fields_are_numbers_for_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    let name = "xgboost-3.2.0-binary.ubj";
    succeeded(&import(&standin, name, &["--boolean-fields", "flag"]));
    let data = written(
        folder.path(),
        &[
            json!({"price": 19.99, "count": 3, "change": 0.5, "flag": true}),
            json!({"price": 19.99, "count": 3, "change": 0.5, "flag": 1}),
            json!({"price": 19.99, "count": 3, "change": 0.5, "flag": "true"}),
            json!({"price": 30.1, "count": 8, "change": -0.5, "flag": false}),
            json!({"price": 30.1, "count": 8, "change": -0.5, "flag": 0.0}),
            json!({"price": 30.1, "count": 8, "change": -0.5}),
        ],
    );
    let path = file(name);
    let text = succeeded(&run(&[
        "verify",
        "--tree-model",
        path.to_str().unwrap(),
        "--boolean-fields",
        "flag",
        "--es-model-id",
        "m",
        "--url",
        &standin.url(),
        "--data",
        data.to_str().unwrap(),
    ]));
    assert!(text.contains("6 of 6 predictions equal"), "{text}");
}

#[test]
fn names_from_files_cannot_disturb_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("names.txt");
    fs::write(&names, "\u{feff}a\u{1b}[31m\r\nb\nc\nd\ne\n").unwrap();
    let path = file("xgboost-3.2.0-softprob.ubj");
    let text = succeeded(&run(&[
        "inspect",
        "--tree-model",
        path.to_str().unwrap(),
        "--feature-names-file",
        names.to_str().unwrap(),
        "--classification-labels",
        "x\ny,z,\u{1b}c",
    ]));
    says(&text, &["  a\\u{1b}[31m: number", "labels       x\\ny, z, \\u{1b}c", "  b: number"]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{feff}'));
}

#[test]
fn verify_compares_probabilities_and_follows_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("rows.csv");
    // The columns of the models with names, and of the others.
    fs::write(
        &data,
        "price,count,delta,change,flag,f0,f1,f2,f3,f4\n\
         19.99,3,0.001,0,1,19.99,3,0.001,0,1\n7,,-0.002,0.5,0,7,,-0.002,0.5,0\n,2,,,1,,2,,,1\n",
    )
    .unwrap();
    for (name, more) in [
        (
            "xgboost-3.2.0-binary.ubj",
            &["--results-field", "churn", "--classification-labels", "no,yes"][..],
        ),
        (
            "xgboost-3.2.0-softprob.ubj",
            &["--prediction-field-type", "string", "--classification-weights", "1,2,3"],
        ),
        ("xgboost-3.2.0-reg-logistic.ubj", &[]),
        ("sklearn-1.9.1-tree-labels.joblib", &[]),
        ("sklearn-1.9.1-forest-labels.pkl", &["--output-class", "10"]),
        (
            "sklearn-1.9.1-forest-labels.pkl",
            &["--default-field-map", "x=f0", "--num-top-classes", "-1"],
        ),
    ] {
        let standin = StandIn::start(Options::default());
        let path = file(name);
        if !path.exists() {
            panic!("{name} does not exist");
        }
        succeeded(&import(&standin, name, more));
        let mut arguments =
            vec!["verify", "--tree-model", path.to_str().unwrap(), "--es-model-id", "m"];
        let url = standin.url();
        arguments.extend(["--url", &url, "--data", data.to_str().unwrap()]);
        arguments.extend(more);
        let text = succeeded(&run(&arguments));
        assert!(text.contains("3 of 3 predictions equal"), "{name}: {text}");
        let only_labels = name.contains("forest") && !more.contains(&"--output-class");
        assert_eq!(text.contains("only the labels were compared"), only_labels, "{text}");
        assert_eq!(text.contains("largest relative difference"), !only_labels, "{text}");
        // The file's own answers have the form of the cluster's.
        let local = [
            &["infer", "--tree-model", path.to_str().unwrap(), "--data", data.to_str().unwrap()],
            more,
        ]
        .concat();
        let local = answers(&succeeded(&run(&local)));
        let remote =
            ["infer", "--es-model-id", "m", "--url", &url, "--data", data.to_str().unwrap()];
        let remote = answers(&succeeded(&run(&remote)));
        if name.contains("logistic") {
            continue;
        }
        let field = if more.contains(&"--results-field") { "churn" } else { "predicted_value" };
        let classifies = remote[0].get("prediction_probability").is_some();
        for (local, remote) in local.iter().zip(&remote) {
            // The file gives no number where the cluster's has no meaning.
            let has_number = local.get("prediction_probability").is_some();
            assert_eq!(has_number, classifies && !only_labels, "{name}: {local}");
            if has_number {
                let [own, theirs] = [local, remote].map(|it| it["prediction_probability"].as_f64());
                assert!(close(own.unwrap(), theirs.unwrap(), 0.0), "{name}: {local} {remote}");
            }
            let equal = local[field] == remote[field]
                || label_text(&local[field]) == label_text(&remote[field])
                || close(local[field].as_f64().unwrap(), remote[field].as_f64().unwrap(), 0.0);
            assert!(equal, "{name}: {local} {remote}");
        }
    }
}
