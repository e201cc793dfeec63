//! State shared by all calls.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use serde_json::json;

use crate::api::endpoints::Endpoints;
use crate::api::pipelines::Pipelines;
use crate::configuration::Configuration;
use crate::configuration::identifier;
use crate::deployment::allocation::{Layout, node_id};
use crate::deployment::parameters::Parameters;
use crate::deployment::stats::required_memory;
use crate::deployment::{Deployment, Deployments, load};
use crate::errors::ApiError;
use crate::log::RequestLog;
use crate::options::{License, Options};
use crate::store::{Store, StoreError};
use crate::trees::TreeModels;

/// A cluster of one node.
pub(crate) struct Cluster {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) deployments: Deployments,
    pub(crate) endpoints: Endpoints,
    pub(crate) trees: TreeModels,
    pub(crate) pipelines: Pipelines,
    pub(crate) log: Arc<RequestLog>,
    /// UUID of the cluster, unchanged by a restart.
    pub(crate) uuid: String,
}

/// Model that exists in every cluster.
pub(crate) const LANGUAGE_IDENTIFICATION: &str = "lang_ident_model_1";

impl Cluster {
    /// Opens the directory and starts its deployments again.
    pub(crate) fn open(
        options: Options,
        data: &Path,
        log: Arc<RequestLog>,
    ) -> io::Result<Arc<Self>> {
        let store = Store::open(data, options.refresh_interval)?;
        let uuid = store.cluster_uuid()?;
        for id in &options.existing_models {
            let body = json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}});
            let invalid = |error: ApiError| io::Error::other(error.reason().to_owned());
            let configuration =
                Configuration::create(id, body, options.version).map_err(invalid)?;
            match store.put_configuration(&configuration) {
                Ok(()) | Err(StoreError::Exists) => {}
                Err(StoreError::Io(error)) => return Err(error),
            }
        }
        let trees = TreeModels::open(data.join("trees"), options.version, options.heap)?;
        let pipelines = Pipelines::open(data.join("pipelines"))?;
        let deployments = Deployments::default();
        let cluster = Arc::new(Self {
            options,
            store,
            deployments,
            endpoints: Endpoints::default(),
            trees,
            pipelines,
            log,
            uuid,
        });
        for stored in cluster.store.deployments() {
            let Ok(parameters) = serde_json::from_value::<Parameters>(stored) else { continue };
            let Some(configuration) = cluster.store.configuration(&parameters.model_id) else {
                continue;
            };
            cluster.deploy(parameters, configuration);
        }
        Ok(cluster)
    }

    /// Configuration of a model, or the 404 error that most calls return.
    pub(crate) fn model(&self, id: &str) -> Result<Configuration, ApiError> {
        self.store
            .configuration(id)
            .ok_or_else(|| ApiError::not_found(format!("Could not find trained model [{id}]")))
    }

    /// The input field of a model or of the model of a deployment.
    pub(crate) fn input_field(&self, id: &str) -> Result<String, ApiError> {
        let model_id = self.deployments.get(id).map(|it| it.parameters.model_id.clone());
        let model = self.model(model_id.as_deref().unwrap_or(id))?;
        Ok(model.inputs.first().cloned().unwrap_or_default())
    }

    /// Total length of a model's definition if the definition is complete.
    pub(crate) fn definition_length(&self, id: &str) -> u64 {
        self.store.parts(id).map_or(0, |parts| parts.iter().map(|part| part.length).sum())
    }

    /// Rejects calls that the licence does not include.
    pub(crate) fn check_license(&self) -> Result<(), ApiError> {
        match self.options.license {
            License::Platinum | License::Enterprise | License::Trial { .. } => Ok(()),
            License::Basic => Err(ApiError::forbidden("current license is non-compliant for [ml]")),
        }
    }

    /// Number of ingest pipelines that use a model or a deployment.
    pub(crate) fn pipelines_with(&self, id: &str) -> usize {
        let named = self.options.in_pipelines.iter().filter(|named| *named == id).count();
        named + self.pipelines.with_model(id)
    }

    /// Memory stated in a model's metadata: per deployment and per allocation.
    pub(crate) fn memory(configuration: &Configuration) -> (u64, u64) {
        // Floating-point numbers are accepted; negative values count as 0.
        let number = |key: &str| {
            configuration.metadata_number(key).map_or(0, |number| number.max(0.0) as u64)
        };
        (number("per_deployment_memory_bytes"), number("per_allocation_memory_bytes"))
    }

    /// Adds a deployment and loads its model in a thread. Returns `None` if the deployment id exists.
    pub(crate) fn deploy(
        self: &Arc<Self>,
        parameters: Parameters,
        configuration: Configuration,
    ) -> Option<Arc<Deployment>> {
        let length = self.definition_length(&configuration.model_id);
        let stored = json!(parameters);
        let unassigned = self.shortage(&parameters).filter(|_| self.options.autoscaling);
        let is_assigned = unassigned.is_none();
        let deployment = Arc::new(Deployment::new(
            parameters,
            length,
            Self::memory(&configuration),
            Layout::new(&self.options),
            unassigned,
        ));
        if !self.deployments.add(&deployment) {
            return None;
        }
        let id = &deployment.parameters.deployment_id;
        if let Err(error) = self.store.put_deployment(id, &stored) {
            tracing::warn!("deployment {id} will not survive a restart: {error}");
        }
        if !is_assigned {
            return Some(deployment);
        }
        let (cluster, loaded) = (Arc::clone(self), Arc::clone(&deployment));
        thread::spawn(move || {
            thread::sleep(cluster.options.loading_delay);
            let options = &cluster.options;
            let result = load(&cluster.store, &configuration, options.version, options.batched);
            if let Err(reason) = &result {
                tracing::info!("model {} failed to load: {reason}", configuration.model_id);
            }
            loaded.finish(result);
        });
        Some(deployment)
    }

    /// Reason why the processors of the nodes are insufficient for a deployment.
    pub(crate) fn shortage(&self, parameters: &Parameters) -> Option<String> {
        let (has, nodes) = (self.options.allocated_processors, self.options.nodes.max(1));
        let threads = parameters.threads_per_allocation;
        let capacity = (has / threads.max(1)).saturating_mul(nodes);
        (parameters.number_of_allocations > capacity || threads > has).then(|| {
            format!(
                "Could not assign (more) allocations on node [{}]. Reason: This node has insufficient allocated processors. Available processors [{has}], free processors [{has}], processors required for each allocation of this model [{threads}]",
                node_id(0)
            )
        })
    }

    /// Memory that the deployments use on a node.
    pub(crate) fn native_inference_bytes(&self, node: &str) -> u64 {
        let of_deployment = |deployment: Arc<Deployment>| {
            let share = deployment.shares().into_iter().find(|share| share.node == node)?;
            let per_deployment = deployment.per_deployment_memory;
            let per_allocation = deployment.per_allocation_memory;
            let target = u64::from(share.target);
            Some(required_memory(deployment.model_bytes, per_deployment, per_allocation, target))
        };
        self.deployments.list().into_iter().filter_map(of_deployment).sum()
    }

    /// Removes a deployment. Returns false if the id does not exist.
    pub(crate) fn undeploy(&self, id: &str) -> bool {
        let removed = self.deployments.remove(id);
        self.store.delete_deployment(id);
        removed
    }

    /// Ids that match an expression of comma-separated ids and wildcards. A missing id is an error.
    pub(crate) fn matching(&self, expression: &str) -> Result<Vec<Configuration>, ApiError> {
        let all = self.store.configurations();
        let mut wanted = Vec::new();
        for part in expression.split(',').map(str::trim) {
            let is_wildcard = part == "_all" || part.contains('*');
            let pattern = if part == "_all" { "*" } else { part };
            let before = wanted.len();
            wanted.extend(
                all.iter()
                    .filter(|model| matches(pattern, &model.model_id))
                    .map(|m| m.model_id.clone()),
            );
            if wanted.len() == before && !is_wildcard && self.trees.get(part).is_none() {
                return Err(ApiError::not_found(format!(
                    "No known trained model with model_id [{part}]"
                )));
            }
        }
        Ok(all.into_iter().filter(|model| wanted.contains(&model.model_id)).collect())
    }
}

/// Whether an expression of comma-separated ids and wildcards matches an id.
pub(crate) fn is_matched(expression: &str, id: &str) -> bool {
    expression.split(',').any(|part| part.trim() == "_all" || matches(part.trim(), id))
}

/// Whether a name matches a pattern in which `*` matches any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((prefix, rest)) => name.strip_prefix(prefix).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

/// Whether an id names a package of the model repository, which has its own creation process (contract, 10).
pub(crate) fn is_packaged(id: &str) -> bool {
    id.strip_prefix('.').is_some_and(identifier::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_text() {
        for (pattern, name, expected) in [
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*", "abcd", true),
            ("*", "", true),
            ("a*d", "abc", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
