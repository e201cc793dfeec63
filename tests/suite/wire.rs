//! Compares our requests field by field with eland's recorded requests (`tests/fixtures/wire`, written by `wire.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use standin::{Options, StandIn};

use crate::bundle_fixtures::bundle;
use crate::program::{message, program};

/// A field of a request that may differ from eland's, and the reason. `*` means every request.
const EXPECTED: &[(&str, &str, &str)] = &[
    (
        "*",
        "header accept",
        "every version accepts plain JSON; clusters of another major version reject the versioned type (contract 1)",
    ),
    ("*", "header content-type", "same as for accept; a request without body has no content type"),
    ("*", "header accept-encoding", "equivalent to identity"),
    ("*", "header connection", "HTTP/1.1 keeps connections alive by default"),
    ("*", "header user-agent", "name of the program"),
    ("*", "header x-elastic-client-meta", "Elastic's statistics about its own clients"),
    (
        "GET /",
        "number of requests",
        "one request is sufficient; eland's client sends another to check the product",
    ),
    ("GET /_license", "number of requests", "checks the licence before a long upload"),
    (
        "POST /_security/user/_has_privileges",
        "number of requests",
        "checks the privileges before a long upload",
    ),
    (
        "GET /_ml/memory/_stats",
        "number of requests",
        "checks the memory of the nodes before the upload",
    ),
    (
        "PUT m",
        "body /metadata/definition_sha256",
        "identifies the definition, for --on-conflict skip and other tools",
    ),
    (
        "PUT m",
        "body /metadata/bundle_sha256",
        "identifies definition, vocabulary and configuration, for --on-conflict update and apply",
    ),
    (
        "PUT m",
        "body /metadata/import_id",
        "identifies the incomplete model of an interrupted import, which resumes only its own model",
    ),
    ("PUT m/vocabulary", "header content-encoding", "compresses megabytes of text"),
    (
        "*",
        "order",
        "the vocabulary is uploaded beside the parts of the definition and before its last part, which completes the model (contract 13.2)",
    ),
    (
        "GET m",
        "number of requests",
        "checks the id before and after the conversion, and the completeness of the definition after the upload",
    ),
    (
        "PUT m",
        "body /description",
        "the model's id is more useful on the cluster than the path of a folder",
    ),
    (
        "PUT m",
        "body /inference_config/text_embedding/tokenization/bert/max_sequence_length",
        "sentence_bert_config.json states 256, which the model card's results use; eland only reads the tokenizer",
    ),
    (
        "PUT m",
        "body /metadata/per_deployment_memory_bytes",
        "eland includes the buffers of positions and token types, which our graph does not have",
    ),
    (
        "PUT m",
        "body /metadata/per_allocation_memory_bytes",
        "ours is the peak of one pass; eland adds up the profiler's counts of all operations",
    ),
    ("PUT m/definition", "body /definition/length", "the graph is different"),
    ("PUT m/definition", "body /definition/sha256", "the graph is different"),
    ("PUT m/definition", "body /total_definition_length", "the graph is different"),
    (
        "GET m/_stats",
        "number of requests",
        "checks after a start whether the deployment has the requested allocations",
    ),
];

/// Kind of a request; all parts of a definition have the same kind.
fn kind(request: &Value) -> String {
    let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
    let path = path.strip_prefix("/_ml/trained_models/").unwrap_or(path);
    match path.split_once("/definition/") {
        Some((model, _)) => format!("{method} {model}/definition"),
        None => format!("{method} {path}"),
    }
}

/// Replaces long lists by the summary that `wire.py` writes.
fn described(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, inner)| (name.clone(), described(inner))).collect()
        }
        Value::Array(list) if list.len() > 50 => {
            let bytes = Sha256::digest(serde_json::to_vec(value).unwrap());
            let sha256: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"length": list.len(), "sha256": sha256})
        }
        other => other.clone(),
    }
}

/// Fields of a request by name.
fn fields(request: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::from([("status".to_owned(), request["status"].clone())]);
    for pair in request["query"].as_str().unwrap().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        fields.insert(format!("query {name}"), value.into());
    }
    for (name, value) in request["headers"].as_object().unwrap() {
        if name != "content-length" {
            fields.insert(format!("header {name}"), value.clone());
        }
    }
    leaves("body ", &described(&request["body"]), &mut fields);
    fields
}

/// Every value except objects, by path.
fn leaves(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                leaves(&format!("{path}/{name}"), inner, into);
            }
        }
        Value::Null => {}
        other => {
            into.insert(path.to_owned(), other.clone());
        }
    }
}

/// Kinds in the order of their first request.
fn order<'a>(requests: &'a [Value], among: &BTreeSet<String>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for kind in requests.iter().map(|request: &'a Value| kind(request)) {
        if among.contains(&kind) && !order.contains(&kind) {
            order.push(kind);
        }
    }
    order
}

/// Differences: kind of request, field, both values.
fn differences(theirs: &[Value], ours: &[Value]) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    let count = |requests: &[Value]| {
        let mut counts = BTreeMap::<String, usize>::new();
        requests.iter().for_each(|request| *counts.entry(kind(request)).or_default() += 1);
        counts
    };
    let (their_counts, our_counts) = (count(theirs), count(ours));
    let kinds: BTreeSet<String> = their_counts.keys().chain(our_counts.keys()).cloned().collect();
    for kind in &kinds {
        let (a, b) = (their_counts.get(kind), our_counts.get(kind));
        if a != b {
            let text = format!("{} and {}", a.unwrap_or(&0), b.unwrap_or(&0));
            found.insert((kind.clone(), "number of requests".to_owned()), text);
        }
    }
    let both = kinds
        .into_iter()
        .filter(|kind| their_counts.contains_key(kind) && our_counts.contains_key(kind))
        .collect();
    let (their_order, our_order) = (order(theirs, &both), order(ours, &both));
    if their_order != our_order {
        let text = format!("{their_order:?} and {our_order:?}");
        found.insert(("*".to_owned(), "order".to_owned()), text);
    }
    for their in theirs {
        let same = |our: &&Value| our["method"] == their["method"] && our["path"] == their["path"];
        let alike = |our: &&Value| same(our) && our["query"] == their["query"];
        let Some(our) = ours.iter().find(alike).or_else(|| ours.iter().find(same)) else {
            continue;
        };
        let (a, b) = (fields(their), fields(our));
        for name in a.keys().chain(b.keys()) {
            let (a, b) = (a.get(name), b.get(name));
            if a != b {
                let show = |value: Option<&Value>| value.map_or("-".into(), Value::to_string);
                let text = format!("{} and {}", show(a), show(b));
                found.insert((kind(their), name.clone()), text);
            }
        }
    }
    found
}

/// Imports a model's folder or a bundle with the options of `wire.py`, and adds the differences.
fn compare(name: &str, model: &Path, found: &mut BTreeMap<(String, String), String>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/wire/{name}.json"));
    let recording: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let options = recording["options"].as_array().unwrap().iter().map(|o| o.as_str().unwrap());
    let mut options: Vec<_> = options.collect();
    let kind = if model.is_dir() { "--hub-model-id" } else { "--bundle" };
    if kind == "--bundle" {
        // The bundle was exported with these options.
        for option in ["--task-type", "--max-model-input-length"] {
            if let Some(at) = options.iter().position(|it| *it == option) {
                options.drain(at..at + 2);
            }
        }
    }
    let version = "9.2.0".parse().unwrap();
    let standin = StandIn::start(Options { version, ..Options::default() });
    let output = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", kind])
        .arg(model)
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let ours: Vec<Value> =
        standin.requests().iter().map(|request| serde_json::to_value(request).unwrap()).collect();
    for (key, text) in differences(recording["requests"].as_array().unwrap(), &ours) {
        found.entry(key).or_insert(format!("{name}: {text}"));
    }
}

/// Whether an entry of [`EXPECTED`] is about a difference.
fn covers(expected: &(&str, &str, &str), (kind, field): &(String, String)) -> bool {
    (expected.0 == "*" || expected.0 == kind) && expected.1 == field
}

/// Panics if a difference is not in [`EXPECTED`].
#[track_caller]
fn are_expected(found: &BTreeMap<(String, String), String>) {
    let unlisted: Vec<String> = found
        .iter()
        .filter(|(key, _)| !EXPECTED.iter().any(|expected| covers(expected, key)))
        .map(|((kind, field), text)| format!("{kind}: {field}: {text}"))
        .collect();
    assert!(unlisted.is_empty(), "eland's requests and ours differ:\n{}", unlisted.join("\n"));
}

#[test]
fn requests_for_bundles_differ_from_eland_only_for_stated_reasons() {
    let mut found = BTreeMap::new();
    compare("bert-text-classification", &bundle("text_classification"), &mut found);
    compare("roberta-zero-shot", &bundle("zero_shot_classification"), &mut found);
    are_expected(&found);
}

#[cfg(feature = "torch")]
#[test]
fn requests_differ_from_eland_only_for_stated_reasons() {
    use crate::fixtures::Fixture;
    use crate::real_model;

    let mut found = BTreeMap::new();
    let fixture = |name: &str| Fixture::named(name).model();
    compare("bert-text-classification", &fixture("bert/text-classification"), &mut found);
    compare("roberta-zero-shot", &fixture("roberta/zero-shot"), &mut found);
    compare("all-minilm-l6-v2", &real_model::folder(), &mut found);
    are_expected(&found);
    let stale: Vec<_> =
        EXPECTED.iter().filter(|expected| !found.keys().any(|key| covers(expected, key))).collect();
    assert!(stale.is_empty(), "these no longer differ: {stale:#?}");
    assert!(EXPECTED.iter().all(|(_, _, reason)| reason.len() > 10));

    // Check the values that the reasons mention.
    let values = |field: &str| {
        let text = &found[&("PUT m".to_owned(), field.to_owned())];
        let (theirs, ours) = text.split_once(": ").unwrap().1.split_once(" and ").unwrap();
        (theirs.parse::<f64>().unwrap(), ours.parse::<f64>().unwrap())
    };
    let length = "body /inference_config/text_embedding/tokenization/bert/max_sequence_length";
    assert_eq!(values(length), (512., 256.));
    let (theirs, ours) = values("body /metadata/per_deployment_memory_bytes");
    assert!(ours < theirs && ours > 0.98 * theirs, "{ours} for {theirs}");
}

#[test]
fn differences_are_found_at_every_level() {
    let request = |body: Value, query: &str| {
        let headers = Map::from_iter([("accept".to_owned(), json!("a"))]);
        json!({"method": "PUT", "path": "/_ml/trained_models/m", "query": query, "status": 200,
            "headers": headers, "body": body})
    };
    let one = [request(json!({"a": {"b": 1}, "c": [1]}), "x=1")];
    assert!(differences(&one, &one).is_empty());
    let two = [request(json!({"a": {"b": 2}, "d": [1]}), "x=1&y")];
    let fields: Vec<_> = differences(&one, &two).into_keys().map(|(_, field)| field).collect();
    assert_eq!(fields, ["body /a/b", "body /c", "body /d", "query y"]);
    let fields: Vec<_> = differences(&one, &[]).into_keys().map(|(_, field)| field).collect();
    assert_eq!(fields, ["number of requests"]);
}
