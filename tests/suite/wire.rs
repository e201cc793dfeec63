//! What goes over the wire, field by field against eland's recorded requests (`tests/fixtures/wire`, made by `wire.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use standin::{Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, program};
use crate::real_model;

/// A request and a field in which ours may differ from eland's, and why. `*` stands for every request.
const EXPECTED: &[(&str, &str, &str)] = &[
    (
        "*",
        "header accept",
        "plain JSON is taken by every release; the type with a version is refused by clusters of other majors (contract 1)",
    ),
    ("*", "header content-type", "as for accept; and none without a body"),
    ("*", "header accept-encoding", "none is as good as identity"),
    ("*", "header connection", "connections of HTTP/1.1 are kept without being asked to be"),
    ("*", "header user-agent", "it is the program's name"),
    ("*", "header x-elastic-client-meta", "statistics of Elastic about its own clients"),
    (
        "GET /",
        "number of requests",
        "the first answer says all; eland's client asks once more to see the product",
    ),
    (
        "GET /_license",
        "number of requests",
        "nobody waits for a long upload to learn that the licence lacks machine learning",
    ),
    (
        "POST /_security/user/_has_privileges",
        "number of requests",
        "nobody waits for a long upload to learn that the credentials do not suffice",
    ),
    (
        "GET /_ml/memory/_stats",
        "number of requests",
        "whether the nodes have room for the model is looked at before the upload",
    ),
    (
        "PUT m",
        "body /metadata/definition_sha256",
        "--on-conflict skip and whoever keeps models can tell by it which definition is there",
    ),
    (
        "PUT m",
        "body /metadata/bundle_sha256",
        "--on-conflict update and apply know by it whether definition, vocabulary and configuration are the same",
    ),
    (
        "PUT m",
        "body /metadata/import_id",
        "an interrupted import knows its own half-made model by it, and goes on with that only",
    ),
    (
        "PUT m/vocabulary",
        "header content-encoding",
        "a vocabulary is megabytes of text, which gzip makes small",
    ),
    (
        "*",
        "order",
        "the vocabulary goes up before the definition, so that its last part is what makes the model whole (contract 13.2)",
    ),
    (
        "GET m",
        "number of requests",
        "the id is looked up before the long work and again after it, and after the upload the server must say that the definition \
         is whole",
    ),
    (
        "PUT m",
        "body /description",
        "a folder's path says nothing to those who read it on the cluster: ours is the model's id",
    ),
    (
        "PUT m",
        "body /inference_config/text_embedding/tokenization/bert/max_sequence_length",
        "sentence_bert_config.json says 256, with which the card's numbers are made; eland goes by the tokenizer alone",
    ),
    (
        "PUT m",
        "body /metadata/per_deployment_memory_bytes",
        "eland counts the buffers of positions and token types too, which our graph does not have",
    ),
    (
        "PUT m",
        "body /metadata/per_allocation_memory_bytes",
        "ours is the peak of one pass; eland adds up what the profiler counts for every operation",
    ),
    ("PUT m/definition", "body /definition/length", "the graph is written differently"),
    ("PUT m/definition", "body /definition/sha256", "the graph is written differently"),
    ("PUT m/definition", "body /total_definition_length", "the graph is written differently"),
    (
        "GET m/_stats",
        "number of requests",
        "after a start the deployment is looked at: it may run with fewer allocations than asked for",
    ),
];

/// One kind of request: all parts of a definition are one.
fn kind(request: &Value) -> String {
    let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
    let path = path.strip_prefix("/_ml/trained_models/").unwrap_or(path);
    match path.split_once("/definition/") {
        Some((model, _)) => format!("{method} {model}/definition"),
        None => format!("{method} {path}"),
    }
}

/// Long lists as `wire.py` describes them.
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

/// The fields of a request by their names.
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

/// Every value that is no object, by its path.
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

/// The kinds in the order in which they first come.
fn order<'a>(requests: &'a [Value], among: &BTreeSet<String>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for kind in requests.iter().map(|request: &'a Value| kind(request)) {
        if among.contains(&kind) && !order.contains(&kind) {
            order.push(kind);
        }
    }
    order
}

/// What differs: kind of request, field, both values.
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

/// Imports a model as `wire.py` did, and adds what differs.
fn compare(name: &str, folder: &Path, found: &mut BTreeMap<(String, String), String>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/wire/{name}.json"));
    let recording: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let options = recording["options"].as_array().unwrap().iter().map(|o| o.as_str().unwrap());
    let version = "9.2.0".parse().unwrap();
    let standin = StandIn::start(Options { version, ..Options::default() });
    let output = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--hub-model-id"])
        .arg(folder)
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

#[test]
fn every_difference_from_eland_s_requests_has_a_reason() {
    let mut found = BTreeMap::new();
    let fixture = |name: &str| -> PathBuf { Fixture::named(name).model() };
    compare("bert-text-classification", &fixture("bert/text-classification"), &mut found);
    compare("roberta-zero-shot", &fixture("roberta/zero-shot"), &mut found);
    compare("all-minilm-l6-v2", &real_model::folder(), &mut found);

    let covers = |expected: &(&str, &str, &str), (kind, field): &(String, String)| {
        (expected.0 == "*" || expected.0 == kind) && expected.1 == field
    };
    let unlisted: Vec<String> = found
        .iter()
        .filter(|(key, _)| !EXPECTED.iter().any(|expected| covers(expected, key)))
        .map(|((kind, field), text)| format!("{kind}: {field}: {text}"))
        .collect();
    assert!(unlisted.is_empty(), "eland's and ours differ:\n{}", unlisted.join("\n"));
    let stale: Vec<_> =
        EXPECTED.iter().filter(|expected| !found.keys().any(|key| covers(expected, key))).collect();
    assert!(stale.is_empty(), "these no longer differ: {stale:#?}");
    assert!(EXPECTED.iter().all(|(_, _, reason)| reason.len() > 10));

    // Where the values matter, they are what the reason says.
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
fn a_difference_is_found_wherever_it_is() {
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
