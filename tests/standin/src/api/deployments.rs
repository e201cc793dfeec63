//! Start, stop and inference calls of deployments (contract, 7 and 8).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Answer, Call};
use crate::cluster::{Cluster, LANGUAGE_IDENTIFICATION};
use crate::configuration::milliseconds_now;
use crate::definition::check_complete;
use crate::deployment::parameters::{Parameters, WaitFor};
use crate::deployment::{Deployment, ServedModel, State as DeploymentState};
use crate::errors::ApiError;
use crate::inference::{InferRequest, infer as infer_text};
use crate::json::Object;
use crate::options::Privilege;
use crate::query::render_time;
use crate::version::since;

/// Highest number of deployments in a cluster.
const MOST_DEPLOYMENTS: usize = 100;

/// `POST /_ml/trained_models/{id}/deployment/_start`
pub(super) async fn start(
    State(cluster): State<Arc<Cluster>>,
    call: Call,
) -> Result<Json<Value>, ApiError> {
    const ACTION: &str = "cluster:admin/xpack/ml/trained_models/deployment/start";
    call.principal.authorize(ACTION, Privilege::Manage)?;
    let began = Instant::now();
    let body = call.json()?;
    let id = call.path("id").to_owned();
    let (parameters, wait) = Parameters::parse(&id, call.query, body, cluster.options.version)?;
    let checking = Arc::clone(&cluster);
    let deployment = tokio::task::spawn_blocking(move || check_and_deploy(&checking, parameters))
        .await
        .map_err(|_| ApiError::server("the stand-in panicked"))??;
    // Adding nodes may take longer than any timeout.
    if wait.until == WaitFor::Starting || deployment.unassigned.is_some() {
        return Ok(Json(deployment.assignment()));
    }
    let deployment_id = &deployment.parameters.deployment_id;
    let reached = async {
        match wait.until {
            WaitFor::FullyAllocated => deployment.fully_allocated().await,
            _ => deployment.settled().await,
        }
    };
    let longest = wait.timeout.min(cluster.options.longest_start_wait);
    let Ok(state) = timeout(longest.saturating_sub(began.elapsed()), reached).await else {
        return Err(ApiError::deployment_timeout(format!(
            "Timed out after [{}] waiting for trained model deployment [{deployment_id}] to start. Use the trained model stats API to track the state of the deployment and try again once it has started.",
            render_time(wait.timeout)
        )));
    };
    if matches!(state, DeploymentState::Removed) {
        return Err(ApiError::bad_request(
            "Error waiting for the model deployment to start. The trained model assignment was removed while waiting",
        ));
    }
    let failures: Vec<_> = deployment
        .failures()
        .into_iter()
        .map(|(node, reason)| format!("{{{node}={reason}}}"))
        .collect();
    if !failures.is_empty() {
        cluster.undeploy(deployment_id);
        return Err(ApiError::internal(format!(
            "Could not start trained model deployment, the following nodes failed with errors [{}]",
            failures.join(", ")
        )));
    }
    Ok(Json(deployment.assignment()))
}

/// Runs the checks of a start in the server's order, then creates the deployment.
pub(super) fn check_and_deploy(
    cluster: &Arc<Cluster>,
    parameters: Parameters,
) -> Result<Arc<Deployment>, ApiError> {
    let (id, deployment_id) = (&parameters.model_id, parameters.deployment_id.clone());
    cluster.check_license()?;
    if cluster.deployments.len() >= MOST_DEPLOYMENTS {
        return Err(ApiError::too_many_requests(format!(
            "Could not start model deployment because existing deployments reached the limit of [{MOST_DEPLOYMENTS}]"
        )));
    }
    let has_ids = cluster.options.version >= since::DEPLOYMENT_ID;
    let exists = || {
        if has_ids {
            ApiError::bad_request(format!(
                "Could not start model deployment because an existing deployment with the same id [{deployment_id}] exist"
            ))
        } else {
            ApiError::conflict(format!(
                "Cannot start deployment [{deployment_id}] because it has already been started"
            ))
        }
    };
    if cluster.deployments.get(&deployment_id).is_some() {
        return Err(exists());
    }
    if id == LANGUAGE_IDENTIFICATION {
        return Err(ApiError::bad_request(format!(
            "model [{id}] of type [lang_ident] cannot be deployed. Only PyTorch models can be deployed"
        )));
    }
    let configuration = cluster.store.configuration(id).ok_or_else(|| {
        ApiError::not_found(format!("No known trained model with model_id [{id}]"))
    })?;
    if deployment_id != *id && cluster.store.configuration(&deployment_id).is_some() {
        return Err(ApiError::bad_request(format!(
            "Deployment id [{deployment_id}] is the same as an another model which is not the model being deployed. Deployment id can be the same as the model being deployed but cannot match a different model"
        )));
    }
    let parts = cluster
        .store
        .parts(id)
        .map_err(|error| ApiError::server(format!("the stand-in's directory: {error}")))?;
    check_complete(id, &parts)?;
    if let Some(shortage) = cluster.shortage(&parameters).filter(|_| !cluster.options.autoscaling) {
        if parameters.threads_per_allocation <= cluster.options.allocated_processors {
            return Err(ApiError::too_many_requests(
                "Could not start deployment because there are not enough resources to provide all requested allocations",
            ));
        }
        return Err(ApiError::too_many_requests(format!(
            "Could not start deployment because no suitable nodes were found, allocation explanation [{shortage}]"
        ))
        .caused(ApiError::too_many_requests(
            "Could not start deployment because no ML nodes with sufficient capacity were found",
        )));
    }
    cluster.deploy(parameters, configuration).ok_or_else(exists)
}

/// `POST /_ml/trained_models/{id}/deployment/_stop`
pub(super) fn stop(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = call.path("id").to_owned();
    let mut body =
        Object::new("stop_deployment_request", call.json()?.unwrap_or_else(|| json!({})))?;
    if let Some(supplied) = body.string("id")?.filter(|supplied| *supplied != id) {
        return Err(ApiError::illegal_argument(format!(
            "Inconsistent id; '{supplied}' specified in the body differs from '{id}' specified as a URL argument"
        )));
    }
    let allow_no_match = body.boolean("allow_no_match")?;
    let force = body.boolean("force")?;
    body.finish()?;
    let allow_no_match = call.query.boolean("allow_no_match")?.or(allow_no_match).unwrap_or(true);
    let force = call.query.boolean("force")?.or(force).unwrap_or(false);
    call.query.time("timeout")?;
    call.query.finish()?;
    if cluster.deployments.get(&id).is_some() && !force {
        if cluster.pipelines_with(&id) > 0 {
            return Err(ApiError::conflict(format!(
                "Cannot stop deployment [{id}] as it is referenced by ingest processors; use force to stop the deployment"
            )));
        }
        if cluster.options.in_inference_endpoints.contains(&id) {
            return Err(ApiError::conflict(format!(
                "Cannot stop deployment [{id}] as it is used by an inference endpoint; use force to stop the deployment"
            )));
        }
    }
    if !cluster.undeploy(&id) && !allow_no_match {
        return Err(ApiError::not_found(format!("No known model deployment with id [{id}]")));
    }
    Ok(json!({"stopped": true}))
}

/// `POST /_ml/trained_models/{id}/_infer`
pub(super) async fn infer(
    State(cluster): State<Arc<Cluster>>,
    mut call: Call,
) -> Result<Json<Value>, ApiError> {
    const ACTION: &str = "cluster:monitor/xpack/ml/inference/infer";
    call.principal.authorize(ACTION, Privilege::Monitor)?;
    let id = call.path("id").to_owned();
    let limit = call.query.time("timeout")?.unwrap_or(Duration::from_secs(10));
    let body = call.required_json()?;
    call.query.finish()?;
    cluster.check_license()?;
    if let Some(tree) = cluster.trees.get(&id) {
        return tree.infer(body).map(Json);
    }
    let deployment = deployment_for(&cluster, &id)?;
    let served = match deployment.state() {
        DeploymentState::Started(served, _) => served,
        _ => {
            return Err(ApiError::conflict(format!(
                "Trained model deployment [{id}] is not allocated to any nodes"
            )));
        }
    };
    let model = cluster.model(&deployment.parameters.model_id)?;
    let request = InferRequest::parse(&model, body, cluster.options.version)?;
    let began = Instant::now();
    let answering = tokio::task::spawn_blocking(move || answers(&served, &request));
    let answered = timeout(limit, answering).await;
    let mut counters = deployment.counters();
    counters.last_access = Some(milliseconds_now());
    counters.spent += began.elapsed();
    match answered {
        Err(_) => {
            counters.timeouts += 1;
            Err(ApiError::status(
                StatusCode::REQUEST_TIMEOUT,
                format!("timeout [{}] waiting for inference result", render_time(limit)),
            ))
        }
        Ok(Err(_)) => {
            counters.errors += 1;
            Err(ApiError::server("the stand-in panicked"))
        }
        Ok(Ok(Err(error))) => {
            counters.errors += 1;
            Err(error)
        }
        Ok(Ok(Ok(results))) => {
            counters.inferences += results.len() as u64;
            Ok(Json(json!({"inference_results": results})))
        }
    }
}

/// The result of a started model for a document of an ingest pipeline, which contains the model's input field.
pub(super) fn infer_text_field(
    cluster: &Cluster,
    id: &str,
    document: Value,
    update: Option<Value>,
) -> Result<Value, ApiError> {
    cluster.check_license()?;
    let deployment = deployment_for(cluster, id)?;
    let DeploymentState::Started(served, _) = deployment.state() else {
        return Err(ApiError::conflict(format!(
            "Trained model deployment [{id}] is not allocated to any nodes"
        )));
    };
    let model = cluster.model(&deployment.parameters.model_id)?;
    let mut body = json!({ "docs": [document] });
    if let Some(update) = update {
        body["inference_config"] = update;
    }
    let request = InferRequest::parse(&model, body, cluster.options.version)?;
    let mut results = answers(&served, &request)?;
    deployment.counters().inferences += results.len() as u64;
    Ok(results.swap_remove(0))
}

fn answers(served: &ServedModel, request: &InferRequest) -> Result<Vec<Value>, ApiError> {
    request.texts.iter().map(|text| infer_text(served, request, text)).collect()
}

/// The deployment with this id, or a started deployment of the model with this id.
fn deployment_for(cluster: &Cluster, id: &str) -> Result<Arc<Deployment>, ApiError> {
    if let Some(deployment) = cluster.deployments.get(id) {
        return Ok(deployment);
    }
    if let Some(deployment) = cluster.deployments.of_model(id).into_iter().next() {
        return Ok(deployment);
    }
    cluster.model(id)?;
    Err(ApiError::conflict(format!(
        "Model [{id}] must be deployed to use. Please deploy with the start trained model deployment API."
    )))
}
