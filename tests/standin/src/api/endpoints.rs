//! Inference endpoints for imported models (contract, 9).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::deployments::check_and_deploy;
use super::{Answer, Call};
use crate::cluster::Cluster;
use crate::configuration::identifier;
use crate::deployment::State as DeploymentState;
use crate::deployment::parameters::Parameters;
use crate::errors::ApiError;
use crate::json::Object;
use crate::options::Privilege;
use crate::version::since;

/// Endpoints by id, as returned by `GET`.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(Mutex<BTreeMap<String, Value>>);

impl Endpoints {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Task of the endpoint and the corresponding task of the model.
const TASKS: [(&str, &str); 3] = [
    ("text_embedding", "text_embedding"),
    ("sparse_embedding", "text_expansion"),
    ("rerank", "text_similarity"),
];

/// `PUT /_inference/{task}/{id}`
pub(super) async fn put(
    State(cluster): State<Arc<Cluster>>,
    mut call: Call,
) -> Result<Json<Value>, ApiError> {
    const ACTION: &str = "cluster:admin/xpack/inference/put";
    call.principal.authorize(ACTION, Privilege::Manage)?;
    known_since(&cluster)?;
    let (id, task) = (call.path("id").to_owned(), call.path("task").to_owned());
    call.query.time("timeout")?;
    let body = call.required_json()?;
    call.query.finish()?;
    cluster.check_license()?;
    if !identifier::is_valid(&id) {
        return Err(ApiError::bad_request(format!(
            "Invalid inference_id; '{id}' can contain lowercase alphanumeric (a-z and 0-9), hyphens or underscores; must start and end with alphanumeric"
        )));
    }
    let wanted = Wanted::parse(&cluster, &task, body)?;
    if cluster.endpoints.all().contains_key(&id) {
        return Err(ApiError::already_exists(format!("Inference endpoint [{id}] already exists")));
    }
    let dimensions = wanted.check_model(&cluster, &id, &task)?;
    let mut settings = wanted.echo;
    if let Some(dimensions) = dimensions {
        settings.insert("dimensions".into(), dimensions);
        settings.entry("similarity").or_insert_with(|| "cosine".into());
    }
    match &wanted.deployment_id {
        Some(deployment_id) => {
            let deployment = cluster.deployments.get(deployment_id).ok_or_else(|| {
                ApiError::not_found(format!("Cannot find deployment [{deployment_id}]"))
            })?;
            if deployment.parameters.model_id != wanted.model_id {
                return Err(ApiError::bad_request(format!(
                    "Deployment [{deployment_id}] uses model [{}] which does not match the model [{}] in the request.",
                    deployment.parameters.model_id, wanted.model_id
                )));
            }
        }
        None => {
            let parameters = Parameters {
                model_id: wanted.model_id,
                deployment_id: id.clone(),
                number_of_allocations: wanted.allocations,
                threads_per_allocation: wanted.threads,
                queue_capacity: 1024,
                cache_size: None,
                priority: None,
                adaptive_allocations: wanted.adaptive,
            };
            let checking = Arc::clone(&cluster);
            let deployed =
                tokio::task::spawn_blocking(move || check_and_deploy(&checking, parameters));
            let deployment =
                deployed.await.map_err(|_| ApiError::server("the stand-in panicked"))??;
            if !matches!(deployment.settled().await, DeploymentState::Started(..)) {
                cluster.undeploy(&id);
                return Err(ApiError::internal("Could not start trained model deployment"));
            }
        }
    }
    let endpoint = json!({
        "inference_id": id,
        "task_type": task,
        "service": "elasticsearch",
        "service_settings": settings,
    });
    cluster.endpoints.all().insert(id, endpoint.clone());
    Ok(Json(endpoint))
}

/// `GET /_inference/{id}`
pub(super) fn get(cluster: &Arc<Cluster>, call: Call) -> Answer {
    known_since(cluster)?;
    let id = call.path("id").to_owned();
    call.query.finish()?;
    let found = cluster.endpoints.all().get(&id).cloned();
    let found = found.ok_or_else(|| not_found(&id))?;
    let list =
        if cluster.options.version >= since::RERANK_ENDPOINT { "endpoints" } else { "models" };
    Ok(json!({ list: [found] }))
}

/// `DELETE /_inference/{id}`, which also stops the deployment started for the endpoint.
pub(super) fn delete(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    known_since(cluster)?;
    let id = call.path("id").to_owned();
    call.query.boolean("force")?;
    call.query.boolean("dry_run")?;
    call.query.finish()?;
    cluster.endpoints.all().remove(&id).ok_or_else(|| not_found(&id))?;
    cluster.undeploy(&id);
    Ok(json!({"acknowledged": true}))
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("Inference endpoint not found [{id}]"))
}

fn known_since(cluster: &Cluster) -> Result<(), ApiError> {
    if cluster.options.version >= since::ENDPOINT {
        return Ok(());
    }
    let sentence = "no handler found for uri [/_inference] and method";
    Err(ApiError::sentence(axum::http::StatusCode::BAD_REQUEST, sentence.to_owned()))
}

/// A request to create an endpoint.
struct Wanted {
    model_id: String,
    deployment_id: Option<String>,
    threads: u32,
    allocations: u32,
    adaptive: Option<Value>,
    /// Settings as returned by `GET`.
    echo: Map<String, Value>,
}

impl Wanted {
    fn parse(cluster: &Cluster, task: &str, body: Value) -> Result<Self, ApiError> {
        let mut body = Object::new("inference", body)?;
        let service = body.string("service")?.unwrap_or_default();
        if service != "elasticsearch" {
            return Err(ApiError::bad_request(format!("Unknown service [{service}]")));
        }
        let settings = body.take("service_settings").unwrap_or_else(|| json!({}));
        let mut task_settings =
            Object::new("task_settings", body.take("task_settings").unwrap_or_else(|| json!({})))?;
        if task == "rerank" {
            task_settings.boolean("return_documents")?;
        } else if let Some(chunking) = body.take("chunking_settings") {
            Object::new("chunking_settings", chunking)?;
        }
        unknown(task_settings)?;
        unknown(body)?;
        let known_task = TASKS.iter().any(|(name, _)| *name == task)
            && (task != "rerank" || cluster.options.version >= since::RERANK_ENDPOINT);
        if !known_task {
            return Err(ApiError::bad_request(format!(
                "The [elasticsearch] service does not support task type [{task}]"
            )));
        }
        let echo = settings.as_object().cloned().unwrap_or_default();
        let mut settings = Object::new("service_settings", settings)?;
        let model_id = settings.string("model_id")?.ok_or_else(|| {
            ApiError::bad_request("Error parsing service settings, model_id must be provided")
        })?;
        let mut complaints = Vec::new();
        let mut positive = |settings: &mut Object, name: &str| -> Result<Option<u32>, ApiError> {
            Ok(match settings.int(name)? {
                Some(n) if n < 1 => {
                    complaints.push(format!(
                        "[service_settings] Invalid value [{n}]. [{name}] must be a positive integer"
                    ));
                    None
                }
                n => n.and_then(|n| u32::try_from(n).ok()),
            })
        };
        let threads = positive(&mut settings, "num_threads")?;
        let allocations = positive(&mut settings, "num_allocations")?;
        let adaptive = settings.take("adaptive_allocations");
        if threads.is_none() {
            complaints.push(
                "[service_settings] does not contain the required setting [num_threads]".into(),
            );
        }
        if allocations.is_none() && adaptive.is_none() {
            complaints.push(
                "[service_settings] does not contain one of the required settings [num_allocations, adaptive_allocations]".into(),
            );
        }
        let mut one_of = |settings: &mut Object, name: &str, values: &[&str]| match settings
            .string(name)?
        {
            Some(value) if !values.contains(&value.as_str()) => {
                complaints.push(format!(
                        "[service_settings] Invalid value [{value}] received. [{name}] must be one of [{}]",
                        values.join(", ")
                    ));
                Ok(())
            }
            _ => Ok::<_, ApiError>(()),
        };
        if task == "text_embedding" {
            one_of(&mut settings, "similarity", &["cosine", "dot_product", "l2_norm"])?;
            one_of(&mut settings, "element_type", &["float", "byte"])?;
        }
        let deployment_id = if cluster.options.version >= since::ENDPOINT_OF_DEPLOYMENT {
            settings.string("deployment_id")?
        } else {
            None
        };
        if !complaints.is_empty() {
            return Err(ApiError::validation(&complaints));
        }
        unknown(settings)?;
        Ok(Self {
            model_id,
            deployment_id,
            threads: threads.unwrap_or(1),
            allocations: allocations.unwrap_or(1),
            adaptive,
            echo,
        })
    }

    /// Checks that the model has the task of the endpoint, and returns the dimensions of its embedding.
    fn check_model(
        &self,
        cluster: &Cluster,
        id: &str,
        task: &str,
    ) -> Result<Option<Value>, ApiError> {
        let model_id = &self.model_id;
        let model = cluster.store.configuration(model_id).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Error parsing request config, model id does not match any models available on this platform. Was [{model_id}]. You may need to load it into the cluster using eland."
            ))
        })?;
        if cluster.store.configuration(id).is_some() {
            return Err(ApiError::bad_request(format!(
                "Inference endpoint id [{id}] is the same as the id of a model; model ids and inference ids must be unique"
            )));
        }
        let inference = model.document.get("inference_config").and_then(Value::as_object);
        let (name, config) = inference.and_then(|all| all.iter().next()).unzip();
        let name = name.map_or("", String::as_str);
        if !TASKS.contains(&(task, name)) {
            return Err(ApiError::bad_request(format!(
                "The task type [{task}] is not supported by the model [{model_id}], whose task is [{name}]"
            )));
        }
        let size = config.map(|config| config["embedding_size"].clone());
        Ok(size.filter(|_| task == "text_embedding"))
    }
}

/// Rejects the remaining fields.
fn unknown(object: Object) -> Result<(), ApiError> {
    object.finish().map_err(|error| {
        ApiError::bad_request(format!(
            "Configuration contains settings unknown to the [elasticsearch] service: {}",
            error.reason()
        ))
    })
}
