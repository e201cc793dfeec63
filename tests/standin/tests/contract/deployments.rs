//! Start and stop calls, and failures of a start (contract, 7, 11 and 13).

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{archive, call, get, infer, part, post, put, start, sums, upload};
use rust_eland::torchscript::tch::{Kind, Tensor};
use serde_json::{Value, json};
use standin::{Options, StandIn, Version};

const MODELS: &str = "/_ml/trained_models";

fn pass_through() -> Value {
    json!({"pass_through": {"tokenization": {"bert": {"with_special_tokens": false}}}})
}

fn start_with(url: &str, id: &str, query: &str, body: &Value) -> crate::support::Reply {
    post(url, &format!("{MODELS}/{id}/deployment/_start{query}"), body)
}

fn stop(url: &str, id: &str, query: &str) -> crate::support::Reply {
    post(url, &format!("{MODELS}/{id}/deployment/_stop{query}"), &Value::Null)
}

fn stats(url: &str, id: &str) -> Value {
    get(url, &format!("{MODELS}/{id}/_stats")).ok()["trained_model_stats"].clone()
}

/// Waits until a deployment is no longer `starting`, and returns its statistics.
fn settled(url: &str, id: &str) -> Value {
    let began = Instant::now();
    loop {
        let stats = stats(url, id)[0]["deployment_stats"].clone();
        if stats["state"] != "starting" {
            return stats;
        }
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn model_starts_reports_stats_and_stops() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    upload(&url, "m", &pass_through(), &archive(4, sums));
    let assignment = start_with(
        &url,
        "m",
        "?number_of_allocations=2",
        &json!({"cache_size": "10kb", "priority": "normal"}),
    )
    .ok()["assignment"]
        .clone();
    assert_eq!(assignment["assignment_state"], "started");
    let task = &assignment["task_parameters"];
    assert_eq!((&task["deployment_id"], &task["cache_size"]), (&json!("m"), &json!("10kb")));
    assert_eq!(task["number_of_allocations"], 2);
    let entry = &stats(&url, "m")[0];
    let deployment = &entry["deployment_stats"];
    assert_eq!(deployment["state"], "started");
    assert_eq!(
        deployment["allocation_status"],
        json!({"allocation_count": 2, "target_allocation_count": 2, "state": "fully_allocated"})
    );
    assert_eq!(deployment["nodes"][0]["routing_state"]["routing_state"], "started");
    assert!(deployment.get("inference_count").is_none());
    infer(&url, "m", "my words", &Value::Null).ok();
    assert_eq!(stats(&url, "m")[0]["deployment_stats"]["inference_count"], 1);

    assert_eq!(stop(&url, "m", "").ok(), json!({"stopped": true}));
    assert!(stats(&url, "m")[0].get("deployment_stats").is_none());
    infer(&url, "m", "my words", &Value::Null).refused(
        409,
        "status_exception",
        "Model [m] must be deployed to use. Please deploy with the start trained model deployment API.",
    );
    stop(&url, "m", "").ok();
    stop(&url, "m", "?allow_no_match=false").refused(
        404,
        "resource_not_found_exception",
        "No known model deployment with id [m]",
    );
    let zero = start_with(&url, "m", "?cache_size=0b", &Value::Null).ok();
    assert_eq!(zero["assignment"]["task_parameters"]["cache_size"], "0");
}

#[test]
fn incomplete_model_is_not_started() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    start_with(&url, "m", "", &Value::Null).refused(
        404,
        "resource_not_found_exception",
        "No known trained model with model_id [m]",
    );
    let configuration = json!({"model_type": "pytorch", "inference_config": pass_through()});
    put(&url, &format!("{MODELS}/m"), &configuration).ok();
    start_with(&url, "m", "", &Value::Null).refused(
        404,
        "resource_not_found_exception",
        "Could not find trained model definition [m]",
    );
    put(&url, &format!("{MODELS}/m/definition/0"), &part(&[0; 1630], 16300, 1)).ok();
    start_with(&url, "m", "", &Value::Null).refused(
        400,
        "status_exception",
        "Model definition truncated. Unable to deserialize trained model definition [m]",
    );
    put(&url, &format!("{MODELS}/m/definition/5"), &part(&[0; 10], 1640, 6)).ok();
    start_with(&url, "m", "", &Value::Null).refused(
        400,
        "status_exception",
        "[m] [total_definition_length] must be the same in all model definition parts. The value [16300] in model definition part [0] does not match the value [1640] in part [5].",
    );
    start_with(&url, "lang_ident_model_1", "", &Value::Null).refused(
        400,
        "status_exception",
        "model [lang_ident_model_1] of type [lang_ident] cannot be deployed. Only PyTorch models can be deployed",
    );
}

/// Starts a model that cannot be loaded, with and without waiting, and returns the reason.
fn reason_of_failure(url: &str, id: &str) -> String {
    let refused = start_with(url, id, "", &Value::Null);
    refused.refused(
        500,
        "status_exception",
        "Could not start trained model deployment, the following nodes failed with errors [{",
    );
    // A failed start removes the assignment.
    assert!(stats(url, id)[0].get("deployment_stats").is_none());
    start_with(url, id, "?wait_for=starting", &Value::Null).ok();
    let failed = settled(url, id);
    assert_eq!(failed["state"], "failed");
    let reason = failed["nodes"][0]["routing_state"]["reason"].as_str().unwrap().to_owned();
    assert!(refused.json()["error"]["reason"].as_str().unwrap().contains(&reason));
    // A failed deployment must be stopped before a new start.
    start_with(url, id, "", &Value::Null).refused(
        400,
        "status_exception",
        "an existing deployment with the same id",
    );
    stop(url, id, "").ok();
    reason
}

#[test]
fn load_failure_returns_the_reason_of_the_node() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let good = archive(4, sums);

    upload(&url, "bad-bytes", &pass_through(), b"this is not an archive");
    assert!(reason_of_failure(&url, "bad-bytes").contains("Cannot read the model archive"));

    let erf = archive(4, |inputs| Ok(sums(inputs)?.f_erf()?));
    upload(&url, "unknown-operation", &pass_through(), &erf);
    assert!(reason_of_failure(&url, "unknown-operation").contains(
        "Model graph does not match any supported architecture. Unrecognised operations: aten::erf"
    ));

    let strided = archive(4, |inputs| Ok(sums(inputs)?.f_as_strided([1, 1], [1, 1], 0)?));
    upload(&url, "forbidden-operation", &pass_through(), &strided);
    assert!(
        reason_of_failure(&url, "forbidden-operation")
            .contains("Model contains forbidden operations: aten::as_strided")
    );

    let configuration = json!({"model_type": "pytorch", "inference_config": pass_through()});
    put(&url, &format!("{MODELS}/no-vocabulary"), &configuration).ok();
    let body = part(&good, good.len(), 1);
    put(&url, &format!("{MODELS}/no-vocabulary/definition/0"), &body).ok();
    assert!(
        reason_of_failure(&url, "no-vocabulary")
            .contains("[no-vocabulary] Could not find vocabulary document")
    );

    put(&url, &format!("{MODELS}/no-pad"), &configuration).ok();
    put(&url, &format!("{MODELS}/no-pad/definition/0"), &body).ok();
    put(&url, &format!("{MODELS}/no-pad/vocabulary"), &json!({"vocabulary": ["[UNK]"]})).ok();
    assert_eq!(
        reason_of_failure(&url, "no-pad"),
        "stored vocabulary is missing required [[PAD]] token"
    );

    let twice = json!({"ner": {"classification_labels": ["O", "I_PER", "I_PER"]}});
    upload(&url, "labels-twice", &twice, &good);
    assert!(reason_of_failure(&url, "labels-twice").contains("label [I_PER] is duplicated"));
}

#[test]
fn older_versions_check_fewer_operations_and_read_fewer_archives() {
    let fused = |inputs: &[Tensor]| {
        let q = inputs[0].f_to_kind(Kind::Float)?.f_unsqueeze(0)?;
        let attended = Tensor::f_scaled_dot_product_attention(
            &q,
            &q,
            &q,
            None::<Tensor>,
            0.0,
            false,
            None,
            false,
        )?;
        // The operation gelu needs archive version 10.
        Ok(attended.f_erf()?.f_gelu("none")?)
    };
    let definition = archive(4, fused);
    for (version, text) in [
        (Version::new(8, 6, 2), Some("Attempted to read a PyTorch file with version 10")),
        (Version::new(8, 12, 0), Some("Unknown builtin op: aten::scaled_dot_product_attention")),
        (Version::new(8, 13, 0), None),
        (Version::new(8, 19, 20), Some("Unrecognised operations: aten::erf")),
        (Version::new(9, 3, 8), None),
        (Version::new(9, 4, 0), Some("Unrecognised operations: aten::erf")),
    ] {
        let standin = StandIn::start(Options { version, ..Options::default() });
        let url = standin.url();
        upload(&url, "m", &pass_through(), &definition);
        let reply = start_with(&url, "m", "", &Value::Null);
        match text {
            Some(text) => reply.refused(500, "status_exception", text),
            None => drop(reply.ok()),
        }
    }
}

#[test]
fn deployment_id_differs_from_model_id() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let definition = archive(4, sums);
    upload(&url, "m", &pass_through(), &definition);
    upload(&url, "other", &pass_through(), &definition);
    start_with(&url, "m", "?deployment_id=for-search", &Value::Null).ok();
    start_with(&url, "m", "?deployment_id=for-ingest", &Value::Null).ok();
    let listed = get(&url, &format!("{MODELS}/m/_stats")).ok();
    assert_eq!(listed["count"], 1);
    let ids: Vec<_> = listed["trained_model_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["deployment_stats"]["deployment_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["for-ingest", "for-search"]);
    assert_eq!(stats(&url, "for-search")[0]["deployment_stats"]["deployment_id"], "for-search");
    infer(&url, "for-search", "words", &Value::Null).ok();
    infer(&url, "m", "words", &Value::Null).ok();
    start_with(&url, "m", "?deployment_id=for-search", &Value::Null).refused(
        400,
        "status_exception",
        "Could not start model deployment because an existing deployment with the same id [for-search] exist",
    );
    start_with(&url, "m", "?deployment_id=other", &Value::Null).refused(
        400,
        "status_exception",
        "Deployment id [other] is the same as an another model which is not the model being deployed.",
    );
    let configuration = json!({"model_type": "pytorch", "inference_config": pass_through()});
    put(&url, &format!("{MODELS}/for-search"), &configuration).refused(
        400,
        "status_exception",
        "Cannot create model [for-search] the id is the same as an current model deployment",
    );
    stop(&url, "for-search", "").ok();
    assert_eq!(stats(&url, "m").as_array().unwrap().len(), 1);
}

#[test]
fn deployed_model_is_deleted_with_force_only() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    upload(&url, "m", &pass_through(), &archive(4, sums));
    start(&url, "m");
    call(&url, "DELETE", &format!("{MODELS}/m"), &Value::Null).refused(
        409,
        "status_exception",
        "Cannot delete model [m] as it is currently deployed; use force to delete the model",
    );
    call(&url, "DELETE", &format!("{MODELS}/m?force=true"), &Value::Null).ok();
    assert_eq!(get(&url, &format!("{MODELS}/m")).status, 404);
    infer(&url, "m", "words", &Value::Null).refused(
        404,
        "resource_not_found_exception",
        "Could not find trained model [m]",
    );
    upload(&url, "m", &pass_through(), &archive(4, sums));
    start(&url, "m");
}

#[test]
fn start_without_enough_processors_is_rejected() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    upload(&url, "m", &pass_through(), &archive(4, sums));
    start_with(&url, "m", "?number_of_allocations=100", &Value::Null).refused(
        429,
        "status_exception",
        "Could not start deployment because there are not enough resources to provide all requested allocations",
    );
    start_with(&url, "m", "?threads_per_allocation=32", &Value::Null).refused(
        429,
        "status_exception",
        "Could not start deployment because no ML nodes with sufficient capacity were found",
    );
    assert!(stats(&url, "m")[0].get("deployment_stats").is_none());
}

#[test]
fn start_waits_for_the_requested_state() {
    let standin =
        StandIn::start(Options { loading_delay: Duration::from_millis(500), ..Options::default() });
    let url = standin.url();
    upload(&url, "m", &pass_through(), &archive(4, sums));
    let reply = start_with(&url, "m", "?timeout=50ms", &Value::Null);
    reply.refused(
        408,
        "model_deployment_timeout_exception",
        "Timed out after [50ms] waiting for trained model deployment [m] to start.",
    );
    let starting = &stats(&url, "m")[0]["deployment_stats"];
    assert_eq!(starting["state"], "starting");
    assert_eq!(starting["allocation_status"]["state"], "starting");
    infer(&url, "m", "words", &Value::Null).refused(
        409,
        "status_exception",
        "not allocated to any nodes",
    );
    // The deployment continues to start.
    assert_eq!(settled(&url, "m")["state"], "started");
    stop(&url, "m", "").ok();

    let waiting = {
        let url = url.clone();
        thread::spawn(move || start_with(&url, "m", "", &Value::Null))
    };
    thread::sleep(Duration::from_millis(150));
    stop(&url, "m", "").ok();
    waiting.join().unwrap().refused(
        400,
        "status_exception",
        "The trained model assignment was removed while waiting",
    );
}

#[test]
fn models_and_deployments_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { data: Some(folder.path().to_owned()), ..Options::default() };
    let first = StandIn::start(options());
    upload(&first.url(), "m", &pass_through(), &archive(4, sums));
    start(&first.url(), "m");
    put(
        &first.url(),
        &format!("{MODELS}/half"),
        &json!({"model_type": "pytorch", "inference_config": pass_through()}),
    )
    .ok();
    put(&first.url(), &format!("{MODELS}/half/definition/0"), &part(b"abc", 6, 2)).ok();
    drop(first);

    let second = StandIn::start(options());
    let url = second.url();
    assert_eq!(second.model_ids(), ["half", "m"]);
    assert_eq!(settled(&url, "m")["state"], "started");
    infer(&url, "m", "words", &Value::Null).ok();
    put(&url, &format!("{MODELS}/half/definition/0"), &part(b"abc", 6, 2)).refused(
        400,
        "resource_already_exists_exception",
        "chunked doc [half][0] already exists",
    );
    put(&url, &format!("{MODELS}/half/definition/1"), &part(b"def", 6, 2)).ok();
    let half = get(&url, &format!("{MODELS}/half?include=definition_status")).ok();
    assert_eq!(half["trained_model_configs"][0]["fully_defined"], true);
}
