//! Allocations on several nodes, and models in use that cannot be stopped or deleted (contract, 6.2, 6.3 and 7).

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::support::{Reply, archive, call, get, post, start, sums, upload};

const MODELS: &str = "/_ml/trained_models";

fn with(options: Options) -> StandIn {
    let standin = StandIn::start(options);
    let task = json!({"pass_through": {"tokenization": {"bert": {"with_special_tokens": false}}}});
    upload(&standin.url(), "m", &task, &archive(4, sums));
    standin
}

fn start_with(standin: &StandIn, query: &str) -> Reply {
    post(&standin.url(), &format!("{MODELS}/m/deployment/_start?{query}"), &Value::Null)
}

fn stats(standin: &StandIn) -> Value {
    let stats = get(&standin.url(), &format!("{MODELS}/m/_stats")).ok();
    stats["trained_model_stats"][0].clone()
}

#[test]
fn allocations_start_one_after_another() {
    let standin = with(Options {
        nodes: 2,
        allocation_delay: Duration::from_millis(300),
        ..Options::default()
    });
    start_with(&standin, "number_of_allocations=4&wait_for=started").ok();
    let first = stats(&standin)["deployment_stats"].clone();
    assert_eq!(first["state"], "started");
    assert_eq!(first["allocation_status"]["state"], "started");
    assert_eq!(first["allocation_status"]["target_allocation_count"], 4);
    assert_eq!(first["nodes"].as_array().unwrap().len(), 2);
    post(&standin.url(), &format!("{MODELS}/m/deployment/_stop"), &Value::Null).ok();

    let answer = start_with(&standin, "number_of_allocations=4&wait_for=fully_allocated").ok();
    let routes = answer["assignment"]["routing_table"].as_object().unwrap().clone();
    assert!(routes.values().all(|route| route["current_allocations"] == 2), "{routes:?}");
    let all = stats(&standin)["deployment_stats"].clone();
    assert_eq!(all["allocation_status"]["state"], "fully_allocated");
    assert_eq!(all["nodes"][1]["number_of_allocations"], 2);
}

#[test]
fn start_fails_with_the_reason_of_a_failed_node() {
    let failing = |node_failures: Vec<(u32, String)>| {
        with(Options { nodes: 2, node_failures, ..Options::default() })
    };
    let standin = failing(vec![(1, "out of memory".into())]);
    start_with(&standin, "number_of_allocations=2").refused(
        500,
        "status_exception",
        "the following nodes failed with errors [{standin-node-1=out of memory}]",
    );
    assert!(stats(&standin).get("deployment_stats").is_none());
    // The second node gets one allocation.
    start(&standin.url(), "m");
    post(&standin.url(), &format!("{MODELS}/m/deployment/_stop"), &Value::Null).ok();

    // Without waiting, the deployment stays and runs on the other node.
    start_with(&standin, "number_of_allocations=2&wait_for=starting").ok();
    let partial = loop {
        let stats = stats(&standin)["deployment_stats"].clone();
        if stats["state"] != "starting" {
            break stats;
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(partial["state"], "started");
    assert_eq!(partial["allocation_status"]["allocation_count"], 1);
    assert_eq!(
        partial["nodes"][1]["routing_state"],
        json!({"routing_state": "failed", "reason": "out of memory"})
    );

    let standin = failing(vec![(0, "a".into()), (1, "b".into())]);
    start_with(&standin, "number_of_allocations=2").refused(
        500,
        "status_exception",
        "[{standin-node-0=a}, {standin-node-1=b}]",
    );
}

#[test]
fn start_without_capacity_is_accepted_by_a_scalable_cluster() {
    let standin =
        with(Options { allocated_processors: 0, autoscaling: true, ..Options::default() });
    let answer = start_with(&standin, "wait_for=started").ok();
    assert_eq!(answer["assignment"]["assignment_state"], "starting");
    let waiting = stats(&standin)["deployment_stats"].clone();
    assert_eq!(waiting["state"], "starting");
    assert_eq!(waiting["nodes"], json!([]));
    assert!(waiting["reason"].as_str().unwrap().contains("insufficient allocated processors"));
}

#[test]
fn model_in_use_is_stopped_and_deleted_with_force_only() {
    for (options, text) in [
        (
            Options { in_pipelines: vec!["m".into()], ..Options::default() },
            "referenced by ingest processors; use force",
        ),
        (
            Options { in_inference_endpoints: vec!["m".into()], ..Options::default() },
            "used by an inference endpoint; use force",
        ),
    ] {
        let pipelines = options.in_pipelines.len();
        let standin = with(options);
        let url = standin.url();
        start(&url, "m");
        assert_eq!(stats(&standin)["pipeline_count"], pipelines);
        let stop =
            |query: &str| post(&url, &format!("{MODELS}/m/deployment/_stop{query}"), &Value::Null);
        let delete =
            |query: &str| call(&url, "DELETE", &format!("{MODELS}/m{query}"), &Value::Null);
        stop("").refused(409, "status_exception", text);
        stop("?force=true").ok();
        delete("").refused(409, "status_exception", text);
        delete("?force=true").ok();
    }
}

#[test]
fn paging_counts_models_not_deployments() {
    let standin = with(Options { existing_models: vec!["a".into()], ..Options::default() });
    start_with(&standin, "deployment_id=one").ok();
    start_with(&standin, "deployment_id=two").ok();
    // a, lang_ident_model_1, m
    let page = |from: usize| {
        let path = format!("{MODELS}/_stats?from={from}&size=1");
        let stats = get(&standin.url(), &path).ok();
        assert_eq!(stats["count"], 3);
        stats["trained_model_stats"].as_array().unwrap().len()
    };
    assert_eq!([page(0), page(1), page(2), page(3)], [1, 1, 2, 0]);
}
