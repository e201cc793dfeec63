//! Behaviour shared by all calls: product header, types, credentials, limits, errors of the REST layer (contract, 0.1, 1 and 12).

use std::io::Write;

use crate::support::{call, get, put, send};
use serde_json::{Value, json};
use standin::{BuildFlavor, Credential, License, Options, Privilege, StandIn, Version};

#[test]
fn info_returns_name_version_and_flavour() {
    let standin = StandIn::start(Options::default());
    let reply = get(&standin.url(), "/");
    assert_eq!(reply.header("x-elastic-product"), Some("Elasticsearch"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let info = reply.ok();
    assert_eq!(info["version"]["number"], "9.5.0");
    assert_eq!(info["version"]["build_flavor"], "default");
    assert_eq!(info["tagline"], "You Know, for Search");
    let license = get(&standin.url(), "/_license").ok();
    assert_eq!(
        (&license["license"]["type"], &license["license"]["status"]),
        (&json!("platinum"), &json!("active"))
    );

    let serverless = StandIn::start(Options {
        build_flavor: BuildFlavor::Serverless,
        product_header: false,
        ..Options::default()
    });
    let reply = get(&serverless.url(), "/");
    assert_eq!(reply.header("x-elastic-product"), None);
    let info = reply.ok();
    assert_eq!(info["version"]["number"], "8.11.0");
    assert_eq!(info["version"]["build_flavor"], "serverless");
}

#[test]
fn standin_starts_and_stops_inside_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let standin = StandIn::start(Options::default());
        let url = standin.url();
        tokio::task::spawn_blocking(move || get(&url, "/").ok()).await.unwrap();
    });
}

#[test]
fn errors_have_the_format_and_header_of_the_server() {
    let standin = StandIn::start(Options::default());
    let reply = get(&standin.url(), "/_ml/trained_models/absent");
    assert_eq!(reply.header("x-elastic-product"), Some("Elasticsearch"));
    reply.refused(
        404,
        "resource_not_found_exception",
        "No known trained model with model_id [absent]",
    );
    get(&standin.url(), "/_ml/trained_models/x?wait=1").refused(
        400,
        "illegal_argument_exception",
        "request [/_ml/trained_models/x] contains unrecognized parameter: [wait]",
    );
    let unknown = get(&standin.url(), "/_ml/nothing");
    assert_eq!(unknown.status, 400);
    assert!(unknown.text().contains("no handler found for uri [/_ml/nothing] and method [GET]"));
    let wrong = call(&standin.url(), "POST", "/_ml/trained_models/x", &Value::Null);
    assert_eq!(wrong.status, 405);
    assert!(wrong.text().contains("Incorrect HTTP method for uri"), "{}", wrong.text());
}

#[test]
fn body_without_a_supported_type_is_rejected() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let body = br#"{"model_type":"pytorch","inference_config":{"ner":{}}}"#;
    let put = |headers: &[(&str, &str)]| send(&url, "PUT", "/_ml/trained_models/m", headers, body);
    let untyped = put(&[]);
    assert_eq!(untyped.status, 406);
    assert_eq!(untyped.json()["error"], "Content-Type header is missing");
    let form = put(&[("content-type", "application/x-www-form-urlencoded")]);
    assert_eq!(form.status, 406);
    put(&[
        ("content-type", "application/vnd.elasticsearch+json; compatible-with=7"),
        ("accept", "*/*"),
    ])
    .refused(400, "media_type_header_exception", "Invalid media-type value on headers");
    let versioned = "application/vnd.elasticsearch+json; compatible-with=9";
    let reply = put(&[("content-type", versioned), ("accept", versioned)]);
    assert_eq!(
        reply.header("content-type"),
        Some("application/vnd.elasticsearch+json;compatible-with=9")
    );
    reply.ok();
}

#[test]
fn malformed_json_is_rejected() {
    let standin = StandIn::start(Options::default());
    for body in ["{", "{}{}", r#"{"model_type":"pytorch","model_type":"pytorch"}"#] {
        send(
            &standin.url(),
            "PUT",
            "/_ml/trained_models/m",
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
        .refused(400, "x_content_parse_exception", "");
    }
    assert!(standin.model_ids().is_empty());
}

#[test]
fn body_above_the_limit_is_rejected_with_an_empty_response() {
    let standin = StandIn::start(Options { max_content_length: 1000, ..Options::default() });
    let url = standin.url();
    let json = ("content-type", "application/json");
    let path = "/_ml/trained_models/m/definition/0";
    let large = vec![b' '; 1001];
    let reply = send(&url, "PUT", path, &[json], &large);
    assert_eq!((reply.status, reply.body.len()), (413, 0));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.header("content-length"), Some("0"));
    let reply = send(&url, "PUT", path, &[json, ("expect", "100-continue")], &large);
    assert_eq!((reply.status, reply.body.len()), (417, 0));
    // A body of unknown length is measured while it is received.
    let chunked = [b"3e9\r\n", &large[..], b"\r\n0\r\n\r\n"].concat();
    let headers = [json, ("transfer-encoding", "chunked"), ("content-length", "")];
    let reply = send(&url, "PUT", path, &headers, &chunked);
    assert_eq!((reply.status, reply.body.len()), (413, 0));
    // The limit applies to the decompressed body.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&large).unwrap();
    let small = encoder.finish().unwrap();
    assert!(small.len() < 100);
    let reply = send(&url, "PUT", path, &[json, ("content-encoding", "gzip")], &small);
    assert_eq!(reply.status, 413);
}

#[test]
fn compressed_body_is_accepted() {
    let standin = StandIn::start(Options::default());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(br#"{"model_type":"pytorch","inference_config":{"ner":{}}}"#).unwrap();
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let body = encoder.finish().unwrap();
    send(&standin.url(), "PUT", "/_ml/trained_models/m", &headers, &body).ok();
    let requests = standin.requests();
    assert_eq!(requests[0].body_length, body.len());
    assert_eq!(requests[0].body.as_ref().unwrap()["model_type"], "pytorch");
}

#[test]
fn secured_cluster_requires_credentials() {
    let standin = StandIn::start(Options {
        credentials: vec![
            Credential::user("elastic", "secret"),
            Credential::user("reader", "secret").allowed(Privilege::Monitor),
            Credential::api_key("aWQ6a2V5"),
        ],
        ..Options::default()
    });
    let url = standin.url();
    let reply = get(&url, "/");
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Basic realm=\"security\", charset=\"UTF-8\"")
    );
    reply.refused(
        401,
        "security_exception",
        "missing authentication credentials for REST request [/]",
    );
    let header = &reply.json()["error"]["header"]["WWW-Authenticate"];
    assert_eq!(header.as_array().unwrap().len(), 3);
    // elastic:wrong
    let wrong = send(&url, "GET", "/", &[("authorization", "Basic ZWxhc3RpYzp3cm9uZw==")], b"");
    wrong.refused(
        401,
        "security_exception",
        "unable to authenticate user [elastic] for REST request [/]",
    );
    send(&url, "GET", "/", &[("authorization", "ApiKey aWQ6a2V5")], b"").ok();
    // reader:secret
    let reader = ("authorization", "Basic cmVhZGVyOnNlY3JldA==");
    send(&url, "GET", "/_ml/trained_models", &[reader], b"").ok();
    let json = ("content-type", "application/json");
    send(&url, "PUT", "/_ml/trained_models/m/definition/0", &[reader, json], b"{}").refused(
        403,
        "security_exception",
        "action [cluster:admin/xpack/ml/trained_models/part/put] is unauthorized for user [reader]",
    );
}

#[test]
fn licence_without_machine_learning_is_rejected() {
    let standin = StandIn::start(Options { license: License::Basic, ..Options::default() });
    let url = standin.url();
    assert_eq!(get(&url, "/_license").ok()["license"]["type"], "basic");
    let configuration = json!({"model_type": "pytorch", "inference_config": {"ner": {}}});
    put(&url, "/_ml/trained_models/m", &configuration).refused(
        403,
        "security_exception",
        "current license is non-compliant for [ml]",
    );
}

#[test]
fn older_cluster_rejects_newer_features() {
    let standin = StandIn::start(Options { version: Version::new(8, 7, 1), ..Options::default() });
    let url = standin.url();
    assert_eq!(get(&url, "/").ok()["version"]["number"], "8.7.1");
    let embedding = json!({"model_type": "pytorch",
        "inference_config": {"text_embedding": {"embedding_size": 3}}});
    put(&url, "/_ml/trained_models/m", &embedding).refused(
        400,
        "x_content_parse_exception",
        "[text_embedding] unknown field [embedding_size]",
    );
    let tokenizer = json!({"model_type": "pytorch",
        "inference_config": {"ner": {"tokenization": {"xlm_roberta": {}}}}});
    put(&url, "/_ml/trained_models/m", &tokenizer).refused(
        400,
        "x_content_parse_exception",
        "with name [xlm_roberta]: parser not found",
    );
    let plain = json!({"model_type": "pytorch", "inference_config": {"ner": {}}});
    assert_eq!(put(&url, "/_ml/trained_models/m", &plain).ok()["version"], "8.7.1");
    assert_eq!(get(&url, "/_ml/trained_models/m?include=definition_status").status, 400);
}

#[test]
fn requests_are_logged() {
    let standin =
        StandIn::start(Options { existing_models: vec!["m".to_owned()], ..Options::default() });
    let url = standin.url();
    put(&url, "/_ml/trained_models/m/vocabulary", &json!({"vocabulary": ["a"]})).ok();
    put(&url, "/_ml/trained_models/m/definition/0", &crate::support::part(b"abc", 3, 1)).ok();
    get(&url, "/_ml/trained_models/n?include=definition_status");
    let requests = standin.requests();
    let seen: Vec<_> = requests
        .iter()
        .map(|exchange| (exchange.method.as_str(), exchange.path.as_str(), exchange.status))
        .collect();
    assert_eq!(
        seen,
        [
            ("PUT", "/_ml/trained_models/m/vocabulary", 200),
            ("PUT", "/_ml/trained_models/m/definition/0", 200),
            ("GET", "/_ml/trained_models/n", 404),
        ]
    );
    assert_eq!(requests[0].body, Some(json!({"vocabulary": ["a"]})));
    assert_eq!(requests[0].content_type.as_deref(), Some("application/json"));
    // The bytes of a part are replaced by their length and SHA-256.
    let part = requests[1].body.as_ref().unwrap();
    assert_eq!((&part["definition"]["length"], &part["total_parts"]), (&json!(3), &json!(1)));
    assert!(requests[1].body_length > 50);
    assert_eq!(requests[2].query, "include=definition_status");
}
