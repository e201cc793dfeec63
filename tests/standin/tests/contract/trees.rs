//! Tree models: creation, validation, inference.

use serde_json::{Value, json};
use standin::{License, Options, StandIn};

use super::support::{call, get, send};

const MODEL: &str = "/_ml/trained_models/trees";

fn start(options: Options) -> StandIn {
    StandIn::start(options)
}

fn request(standin: &StandIn, method: &str, path: &str, body: &Value) -> super::support::Reply {
    let headers = [("content-type", "application/json")];
    send(&standin.url(), method, path, &headers, body.to_string().as_bytes())
}

fn leaf(value: impl Into<Value>) -> Value {
    json!({"leaf_value": value.into()})
}

/// `x < -0.0` or, if x is missing, left.
fn split(low: Value, high: Value) -> Value {
    let root = json!({
        "decision_type": "lt", "threshold": -0.0, "split_feature": 0, "left_child": 1, "right_child": 2, "default_left": true
    });
    let target = if low["leaf_value"].is_array() { "classification" } else { "regression" };
    json!({"tree": {"feature_names": ["x"], "target_type": target, "tree_structure": [root, low, high]}})
}

fn regression(models: Value, aggregate: &Value) -> Value {
    json!({
        "inference_config": {"regression": {}},
        "input": {"field_names": ["x"]},
        "definition": {"trained_model": {"ensemble": {
            "trained_models": models, "aggregate_output": aggregate, "target_type": "regression"
        }}}
    })
}

fn answers(standin: &StandIn, documents: Value) -> Value {
    request(standin, "POST", &format!("{MODEL}/_infer"), &json!({"docs": documents})).ok()["inference_results"]
        .clone()
}

#[test]
fn regression_sums_the_leaves_and_orders_zeros_as_java_does() {
    let standin = start(Options::default());
    let models = json!([split(leaf(1.5), leaf(2)), split(leaf(0.25), leaf(-1))]);
    request(
        &standin,
        "PUT",
        MODEL,
        &regression(models, &json!({"weighted_sum": {"weights": [1, 2]}})),
    )
    .ok();
    let documents = json!([{"x": -1}, {"x": 0.0}, {"x": -0.0}, {"x": "3.5"}, {"x": true}, {"x": [1], "y": 2}, {"y": 1}]);
    let values: Vec<_> = answers(&standin, documents)
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["predicted_value"].clone())
        .collect();
    assert_eq!(
        values,
        [json!(2.0), json!(0.0), json!(0.0), json!(0.0), json!(2.0), json!(2.0), Value::Null]
    );
}

#[test]
fn classification_returns_labels_and_top_classes() {
    let standin = start(Options::default());
    let body = json!({
        "inference_config": {"classification": {"num_top_classes": 2, "prediction_field_type": "number"}},
        "input": {"field_names": ["x"]},
        "definition": {"trained_model": {"ensemble": {
            "trained_models": [split(leaf(json!([0, 1, 0])), leaf(json!([0, 0, 2])))],
            "aggregate_output": {"logistic_regression": {}},
            "target_type": "classification",
            "classification_labels": ["10", "20", "30"]
        }}}
    });
    request(&standin, "PUT", MODEL, &body).ok();
    let answers = answers(&standin, json!([{"x": 1}, {"x": null}]));
    assert_eq!(answers[0]["predicted_value"], 30);
    assert_eq!(answers[0]["top_classes"][0]["class_name"], 30);
    assert_eq!(answers[0]["top_classes"].as_array().unwrap().len(), 2);
    assert!(answers[1]["warning"].as_str().unwrap().contains("all fields were missing"));
    let simulated = json!({
        "pipeline": {"processors": [{"inference": {"model_id": "trees", "target_field": "ml.trees"}}]},
        "docs": [{"_source": {"x": -5}}]
    });
    let simulated = request(&standin, "POST", "/_ingest/pipeline/_simulate", &simulated).ok();
    assert_eq!(simulated["docs"][0]["doc"]["_source"]["ml"]["trees"]["predicted_value"], 20);
}

#[test]
fn preprocessor_looks_up_the_java_string_of_a_value() {
    let standin = start(Options::default());
    let mut body = regression(json!([split(leaf(1), leaf(2))]), &json!({"weighted_sum": {}}));
    body["input"]["field_names"] = json!(["colour"]);
    body["definition"]["preprocessors"] = json!([{"target_mean_encoding": {
        "field": "colour", "feature_name": "x", "target_map": {"red": 1.0, "3": 1.0, "3.0": 1.0}, "default_value": -1.0
    }}]);
    request(&standin, "PUT", MODEL, &body).ok();
    let documents = json!([{"colour": "red"}, {"colour": 3}, {"colour": 3.0}, {"colour": "blue"}]);
    let answers = answers(&standin, documents);
    let values: Vec<_> =
        (0..4).map(|index| answers[index]["predicted_value"].as_f64().unwrap()).collect();
    assert_eq!(values, [2.0, 2.0, 2.0, 1.0]);
}

#[test]
fn invalid_definitions_are_refused() {
    let standin = start(Options::default());
    let sum = json!({"weighted_sum": {}});
    let cycle = json!({"tree": {"feature_names": ["x"], "tree_structure": [
        {"threshold": 1, "split_feature": 0, "left_child": 1, "right_child": 1}, {"leaf_value": 1}
    ]}});
    let unknown = json!({"tree": {"feature_names": ["x"], "tree_structure": [{"leaf_value": 1, "colour": 1}]}});
    let outside = json!({"tree": {"feature_names": ["x"], "tree_structure": [
        {"threshold": 1, "split_feature": 1, "left_child": 1, "right_child": 2}, {"leaf_value": 1}, {"leaf_value": 1}
    ]}});
    for (models, aggregate, text) in [
        (json!([cycle]), &sum, "cycle"),
        (json!([unknown]), &sum, "unknown field [colour]"),
        (json!([outside]), &sum, "feature index [1]"),
        (json!([]), &sum, "must not be empty"),
        (json!([split(leaf(1), leaf(2))]), &json!({"weighted_mode": {}}), "not compatible"),
        (
            json!([split(leaf(1), leaf(2))]),
            &json!({"weighted_sum": {"weights": [1, 2]}}),
            "weights",
        ),
    ] {
        let reply = request(&standin, "PUT", MODEL, &regression(models, aggregate));
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains(text), "{}", reply.text());
    }
}

#[test]
fn learning_to_rank_needs_an_enterprise_licence() {
    let mut body = regression(json!([split(leaf(1), leaf(2))]), &json!({"weighted_sum": {}}));
    body.as_object_mut().unwrap().remove("input");
    body["inference_config"] = json!({"learning_to_rank": {"feature_extractors": [
        {"query_extractor": {"feature_name": "x", "query": {"match": {"title": "{{query}}"}}}}
    ]}});
    let standin = start(Options::default());
    assert_eq!(request(&standin, "PUT", MODEL, &body).status, 403);
    let standin = start(Options { license: License::Enterprise, ..Options::default() });
    request(&standin, "PUT", MODEL, &body).ok();
    let reply = request(&standin, "POST", &format!("{MODEL}/_infer"), &json!({"docs": [{"x": 1}]}));
    assert_eq!(reply.status, 400);
}

#[test]
fn pipelines_are_validated_stored_and_deleted() {
    let standin = start(Options::default());
    let body = regression(json!([split(leaf(1), leaf(2))]), &json!({"weighted_sum": {}}));
    request(&standin, "PUT", MODEL, &body).ok();
    let path = "/_ingest/pipeline/p";
    let put = |body: Value| request(&standin, "PUT", path, &body);
    let inference = json!({"inference": {"model_id": "trees", "target_field": "ml.trees"}});
    for (body, reason) in [
        (json!({}), "[processors] required property is missing"),
        (json!({"processors": {}}), "isn't a list"),
        (json!({"processors": [{"inference": {}}]}), "[model_id] required property is missing"),
        (json!({"processors": [{"infer": {}}]}), "No processor type exists with name [infer]"),
        (json!({"processors": [], "other": 1}), "other"),
    ] {
        let reply = put(body);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains(reason), "{}", reply.text());
    }
    put(json!({"description": "d", "processors": [{"set": {"field": "a", "value": 1}}]})).ok();
    let documents = json!({"docs": [{"_source": {"x": 1}}]});
    // Another processor uses the model.
    put(json!({"processors": [{"foreach": {"field": "f", "processor": inference}}]})).ok();
    let delete = |path: &str| call(&standin.url(), "DELETE", path, &Value::Null);
    delete(MODEL).refused(409, "status_exception", "ingest processors");
    let stats = get(&standin.url(), "/_ml/trained_models/trees/_stats").ok();
    assert_eq!(stats["trained_model_stats"][0]["pipeline_count"], 1);
    put(json!({"processors": [inference]})).ok();
    let answer = request(&standin, "POST", &format!("{path}/_simulate"), &documents).ok();
    assert_eq!(answer["docs"][0]["doc"]["_source"]["ml"]["trees"]["predicted_value"], 2.0);
    delete(path).ok();
    delete(path).refused(404, "resource_not_found_exception", "pipeline [p] is missing");
    assert_eq!(get(&standin.url(), path).status, 404);
    delete(MODEL).ok();
}
