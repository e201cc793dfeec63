//! [`Deployment`]: the state of a deployment, as reported by the server (contract 6.2).

use serde::Serialize;
use serde_json::Value;

use super::reasons;
use crate::hint::Hint;

/// The state of a deployment, or of its part on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The model is being loaded.
    Starting,
    /// The deployment responds.
    Started,
    /// The deployment is being stopped.
    Stopping,
    /// The deployment has stopped.
    Stopped,
    /// The model could not be loaded.
    Failed,
    /// A state of a newer version of the server.
    Unknown,
}

impl State {
    fn read(value: &Value) -> Self {
        match value.as_str() {
            Some("starting") => Self::Starting,
            Some("started") => Self::Started,
            Some("stopping") => Self::Stopping,
            Some("stopped") => Self::Stopped,
            Some("failed") => Self::Failed,
            _ => Self::Unknown,
        }
    }

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// A deployment of a model. Fields that the version of the cluster does not report are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deployment {
    /// The id of the deployment. Old versions use the id of the model.
    pub deployment_id: String,
    /// The id of the model.
    pub model_id: String,
    /// The state of the deployment.
    pub state: State,
    /// The server's reason for the state.
    pub reason: Option<String>,
    /// Number of allocations that respond.
    pub allocations: u64,
    /// Number of allocations that the deployment should have.
    pub target_allocations: u64,
    /// Number of threads of each allocation.
    pub threads_per_allocation: Option<u64>,
    /// The limits between which the cluster chooses the number of allocations.
    pub adaptive_allocations: Option<Value>,
    /// `normal` or `low`.
    pub priority: Option<String>,
    /// Number of requests that can wait.
    pub queue_capacity: Option<u64>,
    /// Size of the cache on each node.
    pub cache_size: Option<String>,
    /// Number of processed texts.
    pub inference_count: u64,
    /// Number of failed requests.
    pub error_count: u64,
    /// The nodes that run the deployment.
    pub nodes: Vec<Node>,
}

/// The part of a deployment on one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// The id of the node.
    pub id: String,
    /// The name of the node.
    pub name: Option<String>,
    /// The state of the deployment on this node.
    pub state: State,
    /// The server's reason for the state.
    pub reason: Option<String>,
    /// Number of allocations on this node.
    pub allocations: Option<u64>,
    /// Number of processed texts.
    pub inference_count: u64,
    /// Milliseconds per text.
    pub average_inference_time_ms: Option<f64>,
}

/// One entry of `trained_model_stats`: a model, with one of its deployments if it has any.
#[derive(Debug, Clone)]
pub(super) struct StatsEntry {
    pub(super) model_id: String,
    pub(super) size_bytes: Option<u64>,
    pub(super) pipelines: Option<u64>,
    pub(super) deployment: Option<Deployment>,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

impl StatsEntry {
    /// Reads an entry. Versions of the server differ in their fields.
    pub(super) fn read(entry: &Value) -> Self {
        let model_id = text(&entry["model_id"]).unwrap_or_default();
        let stats = entry.get("deployment_stats").filter(|stats| stats.is_object());
        Self {
            size_bytes: entry["model_size_stats"]["model_size_bytes"].as_u64(),
            pipelines: entry["pipeline_count"].as_u64(),
            deployment: stats.map(|stats| Deployment::read(&model_id, stats)),
            model_id,
        }
    }
}

impl Deployment {
    fn read(model_id: &str, stats: &Value) -> Self {
        let nodes: Vec<Node> =
            stats["nodes"].as_array().into_iter().flatten().map(Node::read).collect();
        let status = &stats["allocation_status"];
        let started = || nodes.iter().filter(|node| node.state == State::Started);
        let allocations = status["allocation_count"]
            .as_u64()
            .unwrap_or_else(|| started().map(|node| node.allocations.unwrap_or(1)).sum());
        let target = status["target_allocation_count"].as_u64();
        let target = target.or_else(|| stats["number_of_allocations"].as_u64());
        Self {
            deployment_id: text(&stats["deployment_id"]).unwrap_or_else(|| model_id.to_owned()),
            model_id: model_id.to_owned(),
            state: State::read(&stats["state"]),
            reason: text(&stats["reason"]),
            allocations,
            target_allocations: target.unwrap_or(allocations),
            threads_per_allocation: stats["threads_per_allocation"].as_u64(),
            adaptive_allocations: stats.get("adaptive_allocations").cloned(),
            priority: text(&stats["priority"]),
            queue_capacity: stats["queue_capacity"].as_u64(),
            cache_size: text(&stats["cache_size"]),
            inference_count: stats["inference_count"].as_u64().unwrap_or(0),
            error_count: stats["error_count"].as_u64().unwrap_or(0),
            nodes,
        }
    }

    /// Whether the deployment responds: it has an allocation, or the cluster scaled it down to none because there are no requests.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.state == State::Started && (self.allocations > 0 || self.target_allocations == 0)
    }

    /// What the user can do about the server's reasons.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        self.reasons().iter().find_map(|reason| reasons::hint(reason))
    }

    /// The server's reasons: the one of the deployment, then those of the nodes, without repetition.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.reason.iter().cloned().collect();
        for node in &self.nodes {
            if let Some(reason) = &node.reason
                && !reasons.iter().any(|known| known.contains(reason.as_str()))
            {
                reasons.push(format!("node {}: {reason}", node.name.as_ref().unwrap_or(&node.id)));
            }
        }
        reasons
    }
}

impl Node {
    fn read(node: &Value) -> Self {
        let (id, info) = node["node"]
            .as_object()
            .and_then(|nodes| nodes.iter().next())
            .map_or((String::new(), &Value::Null), |(id, info)| (id.clone(), info));
        Self {
            id,
            name: text(&info["name"]),
            state: State::read(&node["routing_state"]["routing_state"]),
            reason: text(&node["routing_state"]["reason"]),
            allocations: node["number_of_allocations"].as_u64(),
            inference_count: node["inference_count"].as_u64().unwrap_or(0),
            average_inference_time_ms: node["average_inference_time_ms"].as_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deployment_of_every_version_is_read() {
        let newest = json!({"model_id": "m", "model_size_stats": {"model_size_bytes": 7},
            "pipeline_count": 1, "deployment_stats": {"deployment_id": "d", "state": "started",
            "reason": "", "allocation_status": {"allocation_count": 1, "target_allocation_count": 3},
            "nodes": [{"node": {"n1": {"name": "one"}}, "routing_state": {"routing_state": "started"}},
                {"node": {"n2": {}}, "routing_state": {"routing_state": "failed", "reason": "no"}}]}});
        let entry = StatsEntry::read(&newest);
        assert_eq!((entry.size_bytes, entry.pipelines), (Some(7), Some(1)));
        let deployment = entry.deployment.unwrap();
        assert_eq!(deployment.deployment_id, "d");
        assert_eq!((deployment.allocations, deployment.target_allocations), (1, 3));
        assert!(deployment.answers() && deployment.reason.is_none());
        assert_eq!(deployment.reasons(), ["node n2: no"]);

        let oldest = json!({"model_id": "m", "deployment_stats": {"state": "started",
            "number_of_allocations": 2, "nodes": [{"routing_state": {"routing_state": "started"}}]}});
        let deployment = StatsEntry::read(&oldest).deployment.unwrap();
        assert_eq!(deployment.deployment_id, "m");
        assert_eq!((deployment.allocations, deployment.target_allocations), (1, 2));

        let odd = json!({"model_id": 3, "deployment_stats": {"state": 1, "nodes": {"a": 2}}});
        assert_eq!(StatsEntry::read(&odd).deployment.unwrap().state, State::Unknown);
        assert!(StatsEntry::read(&json!("none")).deployment.is_none());
    }
}
