//! The calls, one file per group, and their routes.

mod deployments;
pub(crate) mod endpoints;
mod info;
mod models;
pub(crate) mod pipelines;
mod uploads;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, RawPathParams, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::{Json, Router, middleware};
use serde_json::Value;

use crate::authentication::Principal;
use crate::cluster::Cluster;
use crate::errors::ApiError;
use crate::exchange::exchange;
use crate::json;
use crate::options::Privilege;
use crate::query::Query;

type Answer = Result<Value, ApiError>;

/// A call as passed to its handler.
pub(crate) struct Call {
    parameters: HashMap<String, String>,
    pub(crate) query: Query,
    body: Bytes,
    principal: Principal,
}

impl Call {
    /// Returns a parameter of the path.
    fn path(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Returns the body if the request has one.
    fn json(&self) -> Result<Option<Value>, ApiError> {
        if self.body.is_empty() { Ok(None) } else { json::parse(&self.body).map(Some) }
    }

    /// Returns the body of a call that requires one.
    fn required_json(&self) -> Result<Value, ApiError> {
        self.json()?
            .ok_or_else(|| ApiError::parse("request requires body: request body is required"))
    }
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let unreadable =
            |error: &dyn std::error::Error| ApiError::illegal_argument(error.to_string());
        let path = RawPathParams::from_request_parts(&mut parts, state)
            .await
            .map_err(|error| unreadable(&error))?;
        let parameters =
            path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = Query::parse(parts.uri.path(), parts.uri.query())?;
        // The REST layer has already read the body and enforced the limit.
        let body = to_bytes(body, usize::MAX).await.map_err(|error| unreadable(&error))?;
        let principal = parts
            .extensions
            .remove::<Principal>()
            .ok_or_else(|| ApiError::server("the request was not authenticated"))?;
        Ok(Self { parameters, query, body, principal })
    }
}

/// A call that only accesses files and does not wait.
fn on_disk(
    method: MethodFilter,
    action: &'static str,
    needed: Privilege,
    handler: fn(&Arc<Cluster>, Call) -> Answer,
) -> MethodRouter<Arc<Cluster>> {
    on(method, move |State(cluster): State<Arc<Cluster>>, call: Call| async move {
        call.principal.authorize(action, needed)?;
        let answered = tokio::task::spawn_blocking(move || handler(&cluster, call)).await;
        answered.map_err(|_| ApiError::server("the stand-in panicked"))?.map(Json)
    })
}

/// Routes of all calls.
pub(crate) fn router(cluster: Arc<Cluster>) -> Router {
    use Privilege::{Manage, Monitor};
    let (get_, put, post, delete) =
        (MethodFilter::GET, MethodFilter::PUT, MethodFilter::POST, MethodFilter::DELETE);
    const GET: &str = "cluster:monitor/xpack/ml/inference/get";
    const SIMULATE: &str = "cluster:admin/ingest/pipeline/simulate";
    const GET_PIPELINE: &str = "cluster:admin/ingest/pipeline/get";
    const PUT_PIPELINE: &str = "cluster:admin/ingest/pipeline/put";
    const DELETE_PIPELINE: &str = "cluster:admin/ingest/pipeline/delete";
    const STATS: &str = "cluster:monitor/xpack/ml/inference/stats/get";
    const PUT: &str = "cluster:admin/xpack/ml/inference/put";
    const DELETE: &str = "cluster:admin/xpack/ml/inference/delete";
    const PUT_PART: &str = "cluster:admin/xpack/ml/trained_models/part/put";
    const PUT_VOCABULARY: &str = "cluster:admin/xpack/ml/trained_models/vocabulary/put";
    const STOP: &str = "cluster:admin/xpack/ml/trained_models/deployment/stop";
    const GET_ENDPOINT: &str = "cluster:monitor/xpack/inference/get";
    const DELETE_ENDPOINT: &str = "cluster:admin/xpack/inference/delete";
    let models = "/_ml/trained_models";
    let model = |rest: &str| format!("{models}/{{id}}{rest}");
    Router::new()
        .route("/", get(info::cluster))
        .route("/_license", get(info::license))
        .route("/_security/user/_has_privileges", get(info::privileges).post(info::privileges))
        .route("/_ml/memory/_stats", get(info::memory))
        .route("/_ml/info", get(info::ml))
        .route(models, on_disk(get_, GET, Monitor, models::get))
        .route(
            &model(""),
            on_disk(get_, GET, Monitor, models::get)
                .merge(on_disk(put, PUT, Manage, models::put))
                .merge(on_disk(delete, DELETE, Manage, models::delete)),
        )
        .route(&format!("{models}/_stats"), on_disk(get_, STATS, Monitor, models::stats))
        .route(&model("/_stats"), on_disk(get_, STATS, Monitor, models::stats))
        .route(&model("/definition/{part}"), on_disk(put, PUT_PART, Manage, uploads::part))
        .route(&model("/vocabulary"), on_disk(put, PUT_VOCABULARY, Manage, uploads::vocabulary))
        .route(&model("/deployment/_start"), on(post, deployments::start))
        .route(&model("/deployment/_stop"), on_disk(post, STOP, Manage, deployments::stop))
        .route(&model("/_infer"), on(post, deployments::infer))
        .route("/_ingest/pipeline/_simulate", on_disk(post, SIMULATE, Monitor, pipelines::simulate))
        .route("/_ingest/pipeline", on_disk(get_, GET_PIPELINE, Monitor, pipelines::get))
        .route(
            "/_ingest/pipeline/{id}",
            on_disk(get_, GET_PIPELINE, Monitor, pipelines::get)
                .merge(on_disk(put, PUT_PIPELINE, Manage, pipelines::put))
                .merge(on_disk(delete, DELETE_PIPELINE, Manage, pipelines::delete)),
        )
        .route(
            "/_ingest/pipeline/{id}/_simulate",
            on_disk(post, SIMULATE, Monitor, pipelines::simulate),
        )
        .route(
            "/_inference/{task}/{id}",
            on(put, endpoints::put).merge(on_disk(get_, GET_ENDPOINT, Monitor, endpoints::get)),
        )
        .route(
            "/_inference/{id}",
            on_disk(get_, GET_ENDPOINT, Monitor, endpoints::get).merge(on_disk(
                delete,
                DELETE_ENDPOINT,
                Manage,
                endpoints::delete,
            )),
        )
        .fallback(no_handler)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&cluster), exchange))
        .with_state(cluster)
}

async fn no_handler(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    let sentence = format!("no handler found for uri [{uri}] and method [{method}]");
    ApiError::sentence(StatusCode::BAD_REQUEST, sentence)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let sentence = format!("Incorrect HTTP method for uri [{uri}] and method [{method}]");
    ApiError::sentence(StatusCode::METHOD_NOT_ALLOWED, sentence)
}
