//! Upload calls for definition parts and vocabularies (contract, 4 and 5).

use std::sync::Arc;

use serde_json::json;

use super::{Answer, Call};
use crate::cluster::Cluster;
use crate::definition::NewPart;
use crate::errors::ApiError;
use crate::store::StoreError;
use crate::vocabulary::Vocabulary;

/// `PUT /_ml/trained_models/{id}/definition/{part}`
pub(super) fn part(cluster: &Arc<Cluster>, call: Call) -> Answer {
    let id = call.path("id").to_owned();
    if call.body.is_empty() {
        return Err(ApiError::parse("request requires body: request body is required"));
    }
    let part = NewPart::parse(call.path("part"), &call.body)?;
    call.query.finish()?;
    cluster.check_license()?;
    cluster.model(&id)?;
    let number = part.number;
    cluster.store.put_part(&id, &part).map_err(|error| match error {
        StoreError::Exists => ApiError::already_exists(format!(
            "Trained machine learning model chunked doc [{id}][{number}] already exists"
        )),
        StoreError::Io(error) => {
            tracing::error!("{error}");
            ApiError::server(format!(
                "Failed to store trained machine learning model definition [{id}][{number}]"
            ))
        }
    })?;
    Ok(json!({"acknowledged": true}))
}

/// `PUT /_ml/trained_models/{id}/vocabulary`
pub(super) fn vocabulary(cluster: &Arc<Cluster>, call: Call) -> Answer {
    let id = call.path("id").to_owned();
    let vocabulary = Vocabulary::parse(call.required_json()?, cluster.options.version)?;
    call.query.finish()?;
    cluster.check_license()?;
    let configuration = cluster.model(&id)?;
    configuration.inference.tokenization.check_vocabulary(
        &id,
        &vocabulary.merges,
        &vocabulary.scores,
    )?;
    cluster.store.put_vocabulary(&id, &vocabulary).map_err(|error| match error {
        StoreError::Exists => ApiError::already_exists(format!(
            "Trained machine learning model vocabulary [{id}] already exists"
        )),
        StoreError::Io(error) => {
            tracing::error!("{error}");
            ApiError::server(format!(
                "Failed to store trained machine learning model vocabulary [{id}]"
            ))
        }
    })?;
    Ok(json!({"acknowledged": true}))
}
