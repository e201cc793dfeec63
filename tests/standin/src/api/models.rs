//! Create, read and delete calls of configurations (contract, 2 and 6).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::cluster::{Cluster, LANGUAGE_IDENTIFICATION, is_matched, is_packaged};
use crate::configuration::{Configuration, GENERATED};
use crate::definition::check_complete;
use crate::deployment::stats::required_memory;
use crate::errors::ApiError;
use crate::options::License;
use crate::query::Query;
use crate::store::StoreError;
use crate::trees::{TreeModel, is_tree_model};
use crate::version::since;

/// `PUT /_ml/trained_models/{id}`
pub(super) fn put(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let version = cluster.options.version;
    let id = call.path("id").to_owned();
    let defer = call.query.boolean("defer_definition_decompression")?.unwrap_or(false);
    call.query.time("timeout")?;
    if version >= since::WAIT_FOR_COMPLETION {
        call.query.boolean("wait_for_completion")?;
    }
    let body = call.required_json()?;
    call.query.finish()?;
    cluster.check_license()?;
    if is_packaged(&id) {
        return Err(ApiError::not_implemented(format!(
            "the stand-in has no model repository to take [{id}] from"
        )));
    }
    let exists = || {
        ApiError::already_exists(format!("Trained machine learning model [{id}] already exists"))
    };
    if is_tree_model(&body) {
        let ranks = body["inference_config"].get("learning_to_rank").is_some();
        let licence = cluster.options.license;
        if ranks && matches!(licence, License::Platinum | License::Basic) {
            return Err(ApiError::forbidden(
                "current license is non-compliant for [learning-to-rank]",
            ));
        }
        let model = TreeModel::create(&id, body.clone(), version, defer, cluster.options.heap)?;
        if cluster.store.configuration(&id).is_some() || id == LANGUAGE_IDENTIFICATION {
            return Err(exists());
        }
        let document = model.document.clone();
        let is_added = cluster.trees.add(&id, model, &body).map_err(unreadable)?;
        return if is_added { Ok(document.into()) } else { Err(exists()) };
    }
    if cluster.trees.get(&id).is_some() {
        return Err(exists());
    }
    let configuration = Configuration::create(&id, body, version)?;

    if cluster.deployments.get(&id).is_some() {
        return Err(ApiError::bad_request(format!(
            "Cannot create model [{id}] the id is the same as an current model deployment"
        )));
    }
    let others = cluster.store.configurations();
    if others.iter().any(|other| other.model_id != id && other.tags.contains(&id)) {
        return Err(ApiError::bad_request(format!(
            "The provided model_id {id} must not match existing tags."
        )));
    }
    let taken: Vec<_> = configuration
        .tags
        .iter()
        .filter(|tag| others.iter().any(|other| other.model_id == **tag))
        .map(String::as_str)
        .collect();
    if !taken.is_empty() {
        return Err(ApiError::bad_request(format!(
            "The provided tags [{}] must not match existing model_ids.",
            taken.join(", ")
        )));
    }
    if id == LANGUAGE_IDENTIFICATION {
        return Err(exists());
    }
    cluster.store.put_configuration(&configuration).map_err(|error| match error {
        StoreError::Exists => exists(),
        StoreError::Io(error) => {
            tracing::error!("{error}");
            ApiError::server(format!("Failed to store trained machine learning model [{id}]"))
        }
    })?;
    Ok(configuration.document.into())
}

/// `GET /_ml/trained_models[/{id}]`
pub(super) fn get(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let version = cluster.options.version;
    let id = Some(call.path("id").to_owned()).filter(|id| !id.is_empty());
    let query = &mut call.query;
    query.boolean("allow_no_match")?;
    query.boolean("decompress_definition")?;
    let exclude_generated = query.boolean("exclude_generated")?.unwrap_or(false);
    let page = Page::take(query)?;
    let tags = query.take("tags").unwrap_or_default();
    let include = query.take("include").unwrap_or_default();
    call.query.finish()?;
    let mut with_status = false;
    let mut with_definition = false;
    for name in include.split(',').filter(|name| !name.is_empty()) {
        match name {
            "definition" => with_definition = true,
            "definition_status" if version >= since::DEFINITION_STATUS => with_status = true,
            "total_feature_importance" | "feature_importance_baseline" | "hyperparameters" => {}
            other => {
                return Err(ApiError::illegal_argument(format!(
                    "unknown [include] parameter [{other}]. Valid options are [definition, definition_status, total_feature_importance, feature_importance_baseline, hyperparameters]"
                )));
            }
        }
    }

    let mut documents: Vec<Map<String, Value>> = matching(cluster, id.as_deref())?
        .into_iter()
        .filter(|document| {
            let has = |tag: &str| {
                document["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == tag))
            };
            tags.split(',').filter(|tag| !tag.is_empty()).all(has)
        })
        .collect();
    let name = |document: &Map<String, Value>| {
        document["model_id"].as_str().unwrap_or_default().to_owned()
    };
    if with_definition && documents.len() > 1 {
        return Err(ApiError::bad_request(
            "Getting model definition is not supported when getting more than one model",
        ));
    }
    if with_status && documents.len() > 1 {
        return Err(ApiError::bad_request(
            "Getting the model download status is not supported when getting more than one model",
        ));
    }
    if let Some(document) = documents.first_mut() {
        let id = name(document);
        let is_pytorch = document["model_type"] == "pytorch";
        if with_definition && let Some(tree) = cluster.trees.get(&id) {
            document.insert("compressed_definition".into(), tree.compressed.clone().into());
        } else if with_definition {
            return Err(ApiError::bad_request(format!(
                "[{id}] is type [pytorch] and does not support retrieving the definition"
            )));
        }
        if with_status && !is_pytorch {
            return Err(ApiError::bad_request(
                "Definition status is only relevant to PyTorch model types",
            ));
        }
        if with_status {
            let parts = cluster.store.parts(&id).map_err(unreadable)?;
            let is_whole = cluster.options.discard_parts || check_complete(&id, &parts).is_ok();
            document.insert("fully_defined".into(), is_whole.into());
        }
    }
    if exclude_generated {
        for document in &mut documents {
            document.retain(|name, _| !GENERATED.contains(&name.as_str()));
        }
    }
    let count = documents.len();
    Ok(json!({"count": count, "trained_model_configs": page.of(documents)}))
}

/// `GET /_ml/trained_models[/{id}]/_stats`
pub(super) fn stats(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = Some(call.path("id").to_owned()).filter(|id| !id.is_empty());
    call.query.boolean("allow_no_match")?;
    let page = Page::take(&mut call.query)?;
    call.query.finish()?;
    // The id may also be the id of a deployment.
    let deployment = id.as_deref().and_then(|id| cluster.deployments.get(id));
    let documents = match &deployment {
        Some(deployment) => matching(cluster, Some(&deployment.parameters.model_id))?,
        None => matching(cluster, id.as_deref())?,
    };
    let count = documents.len();
    let mut entries = Vec::new();
    // Paging counts models; each model has one entry per deployment.
    for document in page.of(documents) {
        let model_id = document["model_id"].as_str().unwrap_or_default().to_owned();
        let mut deployments = cluster.deployments.of_model(&model_id);
        if let Some(only) = deployment.as_ref().filter(|d| d.parameters.deployment_id != model_id) {
            deployments = vec![Arc::clone(only)];
        }
        let length = match cluster.trees.get(&model_id) {
            Some(tree) => tree.document["model_size_bytes"].as_u64().unwrap_or_default(),
            None => cluster.definition_length(&model_id),
        };
        let memory = cluster
            .store
            .configuration(&model_id)
            .map_or((0, 0), |configuration| Cluster::memory(&configuration));
        let entry = json!({
            "model_id": model_id,
            "model_size_stats": {
                "model_size_bytes": length,
                "required_native_memory_bytes": required_memory(length, memory.0, memory.1, 1),
            },
            "pipeline_count": cluster.pipelines_with(&model_id),
        });
        if deployments.is_empty() {
            entries.push(entry);
            continue;
        }
        for deployment in deployments {
            let mut entry = entry.clone();
            entry["deployment_stats"] = deployment.stats(cluster.options.version);
            entries.push(entry);
        }
    }
    Ok(json!({"count": count, "trained_model_stats": entries}))
}

/// `DELETE /_ml/trained_models/{id}`
pub(super) fn delete(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = call.path("id").to_owned();
    let force = call.query.boolean("force")?.unwrap_or(false);
    call.query.time("timeout")?;
    call.query.finish()?;
    if id == LANGUAGE_IDENTIFICATION {
        return Err(ApiError::bad_request(format!(
            "Unable to delete model [{id}] as it is required by machine learning"
        )));
    }
    if cluster.trees.get(&id).is_some() {
        if cluster.pipelines_with(&id) > 0 && !force {
            return Err(ApiError::conflict(format!(
                "Cannot delete model [{id}] as it is still referenced by ingest processors; use force to delete the model"
            )));
        }
        cluster.trees.remove(&id).map_err(unreadable)?;
        return Ok(json!({"acknowledged": true}));
    }
    let deployments = cluster.deployments.of_model(&id);
    if !deployments.is_empty() && !force {
        return Err(ApiError::conflict(format!(
            "Cannot delete model [{id}] as it is currently deployed; use force to delete the model"
        )));
    }
    cluster.model(&id)?;
    if cluster.pipelines_with(&id) > 0 && !force {
        return Err(ApiError::conflict(format!(
            "Cannot delete model [{id}] as it is still referenced by ingest processors; use force to delete the model"
        )));
    }
    if cluster.options.in_inference_endpoints.contains(&id) && !force {
        return Err(ApiError::conflict(format!(
            "Cannot delete model [{id}] as it is used by an inference endpoint; use force to delete the model"
        )));
    }
    for deployment in deployments {
        cluster.undeploy(&deployment.parameters.deployment_id);
    }
    cluster.store.delete(&id).map_err(unreadable)?;
    Ok(json!({"acknowledged": true}))
}

/// Configurations that match `expression`, ordered by id.
fn matching(
    cluster: &Cluster,
    expression: Option<&str>,
) -> Result<Vec<Map<String, Value>>, ApiError> {
    if expression == Some(LANGUAGE_IDENTIFICATION) {
        return Ok(vec![language_identification()]);
    }
    let expression = expression.unwrap_or("_all");
    let mut documents: Vec<_> = cluster
        .matching(expression)?
        .into_iter()
        .map(|configuration| configuration.document)
        .collect();
    let trees = cluster.trees.all();
    let has_id = |id: &str| is_matched(expression, id);
    let trees = trees.iter().map(|tree| &tree.document);
    documents.extend(trees.filter(|it| it["model_id"].as_str().is_some_and(has_id)).cloned());
    if matches!(expression, "_all" | "*") {
        documents.push(language_identification());
    }
    documents.sort_by(|a, b| a["model_id"].as_str().cmp(&b["model_id"].as_str()));
    Ok(documents)
}

/// Configuration of the model that exists in every cluster.
fn language_identification() -> Map<String, Value> {
    let document = json!({
        "model_id": LANGUAGE_IDENTIFICATION,
        "model_type": "lang_ident",
        "created_by": "_xpack",
        "version": "7.6.0",
        "create_time": 1_575_548_914_594_u64,
        "model_size_bytes": 1_053_992,
        "estimated_operations": 39629,
        "license_level": "basic",
        "description": "Model used for identifying language from arbitrary input text.",
        "tags": ["lang_ident", "prepackaged"],
        "input": {"field_names": ["text"]},
        "inference_config": {"classification": {"num_top_classes": 5}},
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

/// One page of a list.
struct Page {
    from: usize,
    size: usize,
}

impl Page {
    fn take(query: &mut Query) -> Result<Self, ApiError> {
        let mut number = |name: &str, default: usize| -> Result<usize, ApiError> {
            let Some(number) = query.int(name)? else { return Ok(default) };
            usize::try_from(number).map_err(|_| {
                ApiError::illegal_argument(format!("Parameter [{name}] cannot be < 0"))
            })
        };
        Ok(Self { from: number("from", 0)?, size: number("size", 100)? })
    }

    fn of<T>(&self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.from).take(self.size).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "passed to map_err")]
pub(super) fn unreadable(error: std::io::Error) -> ApiError {
    ApiError::server(format!("the stand-in's directory: {error}"))
}
