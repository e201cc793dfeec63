//! Information about the cluster: `GET /`, `GET /_license` (contract, 1), and the documented calls for privileges and memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::Call;
use crate::cluster::Cluster;
use crate::deployment::allocation::{node_id, node_name};
use crate::errors::ApiError;
use crate::json::Object;
use crate::options::{BuildFlavor, License, Privilege};
use crate::version::Version;

/// Version reported by every serverless cluster.
const SERVERLESS_VERSION: &str = "8.11.0";

/// `GET /`
pub(super) async fn cluster(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    call.query.finish()?;
    let version = cluster.options.version;
    let (number, flavor) = match cluster.options.build_flavor {
        BuildFlavor::Default => (version.to_string(), "default"),
        BuildFlavor::Serverless => (SERVERLESS_VERSION.to_owned(), "serverless"),
    };
    let (wire, index) = match version.major {
        8 => ("7.17.0", "7.0.0"),
        _ => ("8.19.0", "8.0.0"),
    };
    Ok(Json(json!({
        "name": "standin",
        "cluster_name": "standin",
        "cluster_uuid": cluster.uuid,
        "version": {
            "number": number,
            "build_flavor": flavor,
            "build_type": "docker",
            "build_hash": "0000000000000000000000000000000000000000",
            "build_date": "2026-01-01T00:00:00.000000000Z",
            "build_snapshot": false,
            "lucene_version": "10.3.0",
            "minimum_wire_compatibility_version": wire,
            "minimum_index_compatibility_version": index,
        },
        "tagline": "You Know, for Search",
    })))
}

/// `GET /_license`
pub(super) async fn license(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    call.query.finish()?;
    let kind = match cluster.options.license {
        License::Platinum => "platinum",
        License::Enterprise => "enterprise",
        License::Basic => "basic",
        License::Trial { .. } => "trial",
    };
    let mut licence = json!({"license": {
        "status": "active",
        "uid": "00000000-0000-0000-0000-000000000000",
        "type": kind,
        "issue_date": "2026-01-01T00:00:00.000Z",
        "issue_date_in_millis": 1_767_225_600_000_u64,
        "max_nodes": 1000,
        "issued_to": "standin",
        "issuer": "standin",
        "start_date_in_millis": -1,
    }});
    if let License::Trial { days_left } = cluster.options.license {
        // A minute more, so that clients count whole days.
        let left = Duration::from_secs(u64::from(days_left) * 24 * 60 * 60 + 60);
        let expiry = SystemTime::now() + left;
        let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        licence["license"]["expiry_date_in_millis"] = (expiry.as_millis() as u64).into();
    }
    Ok(Json(licence))
}

/// `POST /_security/user/_has_privileges`, as described in the API reference: which of the requested cluster privileges
/// the caller has.
pub(super) async fn privileges(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    if cluster.options.credentials.is_empty() {
        return Err(ApiError::status(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Security must be explicitly enabled when using a [basic] license. Enable security by setting [xpack.security.enabled] to [true] in the elasticsearch.yml file and restart the node.",
        ));
    }
    let mut body = Object::new("has_privileges", call.required_json()?)?;
    let requested = body.strings("cluster")?.unwrap_or_default();
    body.finish()?;
    call.query.finish()?;
    let has = |name: &str| match name {
        "monitor" | "monitor_ml" => call.principal.holds(Privilege::Monitor),
        _ => call.principal.holds(Privilege::Manage),
    };
    if let Some(unknown) = requested.iter().find(|name| !is_known(&cluster, name)) {
        return Err(ApiError::illegal_argument(format!(
            "unknown cluster privilege [{unknown}]. a privilege must be either one of the predefined cluster privilege names [{}] or a pattern over one of the available cluster actions",
            PRIVILEGES.join(",")
        )));
    }
    let answers: Map<String, Value> =
        requested.iter().map(|name| (name.clone(), has(name).into())).collect();
    Ok(Json(json!({
        "username": call.principal.user(),
        "has_all_requested": requested.iter().all(|name| has(name)),
        "cluster": answers,
        "index": {},
        "application": {},
    })))
}

/// Cluster privileges of every version, of those that clients of the stand-in need.
const PRIVILEGES: [&str; 4] = ["manage_ml", "manage_pipeline", "monitor", "monitor_ml"];

/// Whether a name is a cluster privilege of the version, or the pattern of an action.
fn is_known(cluster: &Cluster, name: &str) -> bool {
    PRIVILEGES.contains(&name)
        || name.starts_with("cluster:")
        // The first version with this privilege was not compared with a real server.
        || name == "manage_inference" && cluster.options.version >= Version::new(8, 16, 0)
}

/// `GET /_ml/memory/_stats`, as described in the API reference: the memory of each node for machine learning.
pub(super) async fn memory(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    call.principal.authorize("cluster:monitor/xpack/ml/memory/stats/get", Privilege::Monitor)?;
    call.query.finish()?;
    let room = cluster.options.ml_memory;
    let roles = if room > 0 { json!(["data", "ingest", "master", "ml"]) } else { json!(["data"]) };
    let count = cluster.options.nodes.max(1);
    let mut nodes = json!({});
    let processors = cluster.options.allocated_processors;
    for node in 0..count {
        nodes[node_id(node)] = json!({
            "name": node_name(node, count),
            "ephemeral_id": node_id(node),
            "transport_address": "127.0.0.1:9300",
            "attributes": {
                "ml.allocated_processors": processors.to_string(),
                "ml.allocated_processors_double": format!("{processors}.0"),
            },
            "roles": roles,
            "mem": {
                "total_in_bytes": 64_u64 << 30,
                "adjusted_total_in_bytes": 64_u64 << 30,
                "ml": {
                    "max_in_bytes": room,
                    "native_code_overhead_in_bytes": 0,
                    "anomaly_detectors_in_bytes": 0,
                    "data_frame_analytics_in_bytes": 0,
                    "native_inference_in_bytes": cluster.native_inference_bytes(&node_id(node)),
                },
            },
            "jvm": {
                "heap_max_in_bytes": cluster.options.heap,
                "java_inference_max_in_bytes": 0,
                "java_inference_in_bytes": 0,
            },
        });
    }
    Ok(Json(json!({
        "_nodes": {"total": count, "successful": count, "failed": 0},
        "cluster_name": "standin",
        "nodes": nodes,
    })))
}

/// `GET /_ml/info`, as described in the API reference.
pub(super) async fn ml(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    call.principal.authorize("cluster:monitor/xpack/ml/info/get", Privilege::Monitor)?;
    call.query.finish()?;
    let room = format!("{}mb", cluster.options.ml_memory >> 20);
    Ok(Json(json!({
        "defaults": {},
        "upgrade_mode": false,
        "native_code": {"version": cluster.options.version.to_string(), "build_hash": "0000000"},
        "limits": {"total_ml_memory": room, "effective_max_model_memory_limit": room},
    })))
}
