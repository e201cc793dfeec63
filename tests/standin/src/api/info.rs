//! `GET /` and `GET /_license` (contract, 1).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Call;
use crate::cluster::Cluster;
use crate::errors::ApiError;
use crate::options::{BuildFlavor, License};

/// The number that every serverless cluster reports.
const SERVERLESS_VERSION: &str = "8.11.0";

/// Who answers.
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
        "cluster_uuid": "c3RhbmRpbi1jbHVzdGVyLQ",
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

/// What the licence covers.
pub(super) async fn license(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    call.query.finish()?;
    let kind = match cluster.options.license {
        License::Platinum => "platinum",
        License::Basic => "basic",
    };
    Ok(Json(json!({"license": {
        "status": "active",
        "uid": "00000000-0000-0000-0000-000000000000",
        "type": kind,
        "issue_date": "2026-01-01T00:00:00.000Z",
        "issue_date_in_millis": 1_767_225_600_000_u64,
        "max_nodes": 1000,
        "issued_to": "standin",
        "issuer": "standin",
        "start_date_in_millis": -1,
    }})))
}
