//! Create, upload, read and delete calls of models (contract, 2, 4, 5, 6 and 13).

use std::time::Duration;

use crate::support::{call, get, part, put};
use serde_json::{Value, json};
use standin::{Options, StandIn};

const MODELS: &str = "/_ml/trained_models";

fn minimal(task: &str) -> Value {
    json!({"model_type": "pytorch", "inference_config": {task: {}}})
}

fn path(rest: &str) -> String {
    format!("{MODELS}/{rest}")
}

#[test]
fn setup_of_the_yaml_tests_is_accepted() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let configuration = json!({"model_type": "pytorch", "description": "test",
        "inference_config": {"pass_through": {"tokenization": {"bert": {"with_special_tokens": false}}}}});
    let stored = put(&url, &path("m"), &configuration).ok();
    assert_eq!(stored["model_id"], "m");
    assert_eq!(stored["created_by"], "api_user");
    assert_eq!(stored["input"]["field_names"], json!(["input"]));
    assert_eq!(stored["location"]["index"]["name"], ".ml-inference-native-000002");
    let tokenization = &stored["inference_config"]["pass_through"]["tokenization"]["bert"];
    assert_eq!(
        tokenization,
        &json!({"do_lower_case": false, "with_special_tokens": false, "max_sequence_length": 512,
            "truncate": "first", "span": -1})
    );
    let vocabulary = json!({"vocabulary": ["[PAD]", "[UNK]", "these", "are", "my", "words"]});
    assert_eq!(put(&url, &path("m/vocabulary"), &vocabulary).ok(), json!({"acknowledged": true}));
    let body = part(&[7; 1630], 1630, 1);
    assert_eq!(put(&url, &path("m/definition/0"), &body).ok(), json!({"acknowledged": true}));
    assert_eq!(standin.vocabulary("m").unwrap().vocabulary.len(), 6);
    assert_eq!(std::fs::read(standin.definition("m").unwrap()).unwrap(), [7; 1630]);
    assert_eq!(standin.configuration("m").unwrap(), stored);
    put(&url, &path("n"), &minimal("ner")).ok();
}

#[test]
fn second_upload_of_a_document_is_rejected() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let exists = "resource_already_exists_exception";
    put(&url, &path("m"), &minimal("ner")).ok();
    put(&url, &path("m"), &minimal("ner")).refused(
        400,
        exists,
        "Trained machine learning model [m] already exists",
    );
    let vocabulary = json!({"vocabulary": ["[UNK]"]});
    put(&url, &path("m/vocabulary"), &vocabulary).ok();
    put(&url, &path("m/vocabulary"), &vocabulary).refused(400, exists, "already exists");
    put(&url, &path("m/definition/3"), &part(b"abc", 9, 4)).ok();
    put(&url, &path("m/definition/3"), &part(b"xyz", 9, 4)).refused(
        400,
        exists,
        "Trained machine learning model chunked doc [m][3] already exists",
    );
}

#[test]
fn upload_without_a_model_is_rejected() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let missing = "Could not find trained model [m]";
    let kind = "resource_not_found_exception";
    put(&url, &path("m/definition/0"), &part(b"abc", 3, 1)).refused(404, kind, missing);
    put(&url, &path("m/vocabulary"), &json!({"vocabulary": ["a"]})).refused(404, kind, missing);
    call(&url, "DELETE", &path("m"), &Value::Null).refused(404, kind, missing);
}

#[test]
fn vocabulary_without_fields_of_the_tokenizer_is_rejected() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    for (tokenizer, needed) in
        [("roberta", "merges"), ("byte_level_bpe", "merges"), ("xlm_roberta", "scores")]
    {
        let id = tokenizer.replace('_', "-");
        let configuration = json!({"model_type": "pytorch",
            "inference_config": {"pass_through": {"tokenization": {tokenizer: {}}}}});
        put(&url, &path(&id), &configuration).ok();
        put(&url, &path(&format!("{id}/vocabulary")), &json!({"vocabulary": ["a"]})).refused(
            400,
            "status_exception",
            &format!("cannot put vocabulary for model [{id}] as tokenizer type [{tokenizer}] requires [{needed}] to be provided and non-empty"),
        );
    }
}

#[test]
fn definition_is_complete_when_its_lengths_add_up() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    put(&url, &path("m"), &minimal("ner")).ok();
    let complete = || {
        let list = get(&url, &path("m?include=definition_status")).ok();
        assert_eq!(list["count"], 1);
        list["trained_model_configs"][0]["fully_defined"].clone()
    };
    assert_eq!(complete(), false);
    // The last part comes first, so the others become visible only after the refresh interval.
    put(&url, &path("m/definition/1"), &part(b"def", 6, 2)).ok();
    assert_eq!(complete(), false);
    put(&url, &path("m/definition/0"), &part(b"abc", 6, 2)).ok();
    assert_eq!(complete(), false);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(complete(), true);
    assert_eq!(std::fs::read(standin.definition("m").unwrap()).unwrap(), b"abcdef");
}

#[test]
fn models_are_listed_by_name_tag_and_page() {
    let standin = StandIn::start(Options {
        existing_models: vec!["a-one".to_owned(), "a-two".to_owned()],
        ..Options::default()
    });
    let url = standin.url();
    let mut tagged = minimal("ner");
    tagged["tags"] = json!(["red"]);
    put(&url, &path("b"), &tagged).ok();
    let ids = |query: &str| -> Vec<String> {
        let list = get(&url, &format!("{MODELS}{query}")).ok();
        let configurations = list["trained_model_configs"].as_array().unwrap().clone();
        configurations.iter().map(|c| c["model_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(""), ["a-one", "a-two", "b", "lang_ident_model_1"]);
    assert_eq!(ids("/a-*"), ["a-one", "a-two"]);
    assert_eq!(ids("/a-two,b"), ["a-two", "b"]);
    assert_eq!(ids("?tags=red"), ["b"]);
    assert_eq!(ids("?from=1&size=1"), ["a-two"]);
    assert_eq!(ids("/none*"), Vec::<String>::new());
    get(&url, &path("a-one,absent")).refused(
        404,
        "resource_not_found_exception",
        "No known trained model with model_id [absent]",
    );
    let generated = get(&url, &path("b?exclude_generated=true")).ok();
    let configuration = generated["trained_model_configs"][0].as_object().unwrap();
    assert!(
        !configuration.contains_key("created_by") && !configuration.contains_key("create_time")
    );
    for (query, text) in [
        (
            "/b?include=definition",
            "[b] is type [pytorch] and does not support retrieving the definition",
        ),
        (
            "/a-*?include=definition_status",
            "Getting the model download status is not supported when getting more than one model",
        ),
        (
            "/lang_ident_model_1?include=definition_status",
            "Definition status is only relevant to PyTorch model types",
        ),
    ] {
        get(&url, &format!("{MODELS}{query}")).refused(400, "status_exception", text);
    }
    put(&url, &path("red"), &minimal("ner")).refused(
        400,
        "status_exception",
        "The provided model_id red must not match existing tags.",
    );
    tagged["tags"] = json!(["a-one"]);
    put(&url, &path("c"), &tagged).refused(
        400,
        "status_exception",
        "The provided tags [a-one] must not match existing model_ids.",
    );
    put(&url, &path("lang_ident_model_1"), &minimal("ner")).refused(
        400,
        "resource_already_exists_exception",
        "already exists",
    );
}

#[test]
fn stats_report_size_and_memory() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    put(&url, &path("m"), &minimal("ner")).ok();
    put(&url, &path("m/definition/0"), &part(&[0; 1630], 1630, 1)).ok();
    let stats = get(&url, &path("m/_stats")).ok();
    assert_eq!(stats["count"], 1);
    let stats = &stats["trained_model_stats"][0];
    assert_eq!(stats["model_size_stats"]["model_size_bytes"], 1630);
    assert_eq!(stats["model_size_stats"]["required_native_memory_bytes"], 251_661_500);
    assert!(stats.get("deployment_stats").is_none());
    get(&url, &path("n/_stats")).refused(
        404,
        "resource_not_found_exception",
        "No known trained model with model_id [n]",
    );
}

#[test]
fn deletion_keeps_parts_that_are_not_visible() {
    let standin = StandIn::start(Options {
        refresh_interval: Duration::from_secs(3600),
        ..Options::default()
    });
    let url = standin.url();
    let delete = || call(&url, "DELETE", &path("m"), &Value::Null).ok();
    put(&url, &path("m"), &minimal("ner")).ok();
    put(&url, &path("m/definition/1"), &part(b"def", 6, 2)).ok();
    delete();
    assert_eq!(get(&url, &path("m")).status, 404);
    put(&url, &path("m"), &minimal("ner")).ok();
    put(&url, &path("m/definition/1"), &part(b"def", 6, 2)).ok();
    put(&url, &path("m/definition/0"), &part(b"abc", 6, 2)).ok();
    delete();
    put(&url, &path("m"), &minimal("ner")).ok();
    put(&url, &path("m/definition/0"), &part(b"abc", 6, 2)).refused(
        400,
        "resource_already_exists_exception",
        "chunked doc [m][0] already exists",
    );
    put(&url, &path("m/definition/1"), &part(b"def", 6, 2)).ok();
    delete();
    put(&url, &path("m"), &minimal("ner")).ok();
    put(&url, &path("m/definition/0"), &part(b"abc", 6, 2)).ok();
}

#[test]
fn invalid_id_accesses_no_file() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    for id in ["..%2F..%2Fetc", "%2e%2e", "A", "a%00b"] {
        assert_eq!(get(&url, &path(id)).status, 404, "{id}");
        assert_eq!(call(&url, "DELETE", &path(id), &Value::Null).status, 404, "{id}");
        let refused = put(&url, &path(id), &minimal("ner"));
        refused.refused(400, "action_request_validation_exception", "Invalid model_id;");
    }
    assert_eq!(put(&url, &path(".elser_model_2"), &json!({"input": {}})).status, 501);
}
