//! What a cluster and the credentials can do: licence, privileges, and machine learning nodes. `rust-eland check` reports them.

use std::time::SystemTime;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::certificate::days_until;
use super::payload::Payload;
use super::{Client, ClientError};

/// The licences that allow machine learning.
const LICENCES: [&str; 3] = ["platinum", "enterprise", "trial"];

/// The licence of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Licence {
    /// `basic`, `trial`, `platinum` or `enterprise`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `active`, `expired` or `invalid`.
    pub status: String,
    /// Whole days until the licence expires. `None` if it does not expire.
    pub days_left: Option<i64>,
}

impl Licence {
    fn read(answer: &Value, now: SystemTime) -> Self {
        let licence = &answer["license"];
        let text = |name: &str| licence[name].as_str().unwrap_or("unknown").to_owned();
        let expiry = licence["expiry_date_in_millis"].as_i64();
        Self {
            kind: text("type"),
            status: text("status"),
            days_left: expiry.map(|millis| days_until(millis / 1000, now)),
        }
    }

    /// Why the licence does not allow machine learning, if it does not. A kind or a status that the cluster does not name is accepted.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { kind, status, .. } = self;
        if kind == "unknown" {
            None
        } else if !["active", "unknown"].contains(&status.as_str()) {
            Some(format!("the {kind} licence is {status}"))
        } else if !LICENCES.contains(&kind.as_str()) {
            Some(format!("it is a {kind} licence"))
        } else {
            None
        }
    }

    /// Whether the licence allows machine learning.
    #[must_use]
    pub fn allows_machine_learning(&self) -> bool {
        self.problem().is_none()
    }
}

/// A node that can run models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachineLearningNode {
    /// The name of the node.
    pub name: String,
    /// Bytes that machine learning may use.
    pub max_bytes: u64,
    /// Bytes that are not in use.
    pub free_bytes: u64,
    /// Processors that models may use, if the node reports them.
    pub processors: Option<f64>,
}

impl MachineLearningNode {
    /// Reads the nodes with the role `ml` from `_ml/memory/_stats`, in the order of their names.
    fn read_all(answer: &Value) -> Vec<Self> {
        let nodes = answer["nodes"].as_object().into_iter().flatten();
        let mut nodes: Vec<_> = nodes.filter_map(|(id, node)| Self::read(id, node)).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        nodes
    }

    fn read(id: &str, node: &Value) -> Option<Self> {
        const USES: [&str; 4] = [
            "native_code_overhead_in_bytes",
            "anomaly_detectors_in_bytes",
            "data_frame_analytics_in_bytes",
            "native_inference_in_bytes",
        ];
        let memory = &node["mem"]["ml"];
        let max_bytes = memory["max_in_bytes"].as_u64().filter(|bytes| *bytes > 0)?;
        let used = USES.iter().filter_map(|name| memory[*name].as_u64());
        let used = used.fold(0, u64::saturating_add);
        // Version 8.5 replaced the whole number by one with a fraction.
        let attributes = &node["attributes"];
        let processors = ["ml.allocated_processors_double", "ml.allocated_processors"];
        let mut processors = processors.iter().filter_map(|name| attributes[*name].as_str());
        Some(Self {
            name: node["name"].as_str().unwrap_or(id).to_owned(),
            max_bytes,
            free_bytes: max_bytes.saturating_sub(used),
            processors: processors.find_map(|text| text.parse().ok()),
        })
    }
}

impl Client {
    /// The licence of the cluster. Serverless has none.
    ///
    /// # Errors
    /// [`ClientError`] if the cluster does not show its licence.
    pub async fn licence(&self) -> Result<Licence, ClientError> {
        let answer = self.call(Method::GET, "_license", None, "show its licence").await?;
        Ok(Licence::read(&answer, SystemTime::now()))
    }

    /// Whether the credentials have a cluster privilege, such as `manage_ml`.
    ///
    /// # Errors
    /// [`ClientError`] if the cluster does not show the privileges, as one without security, or does not know the privilege.
    pub async fn has_privilege(&self, name: &str) -> Result<bool, ClientError> {
        self.privilege(name).await.map(|(has, _)| has)
    }

    /// Whether the credentials have a cluster privilege, and the name of the user.
    pub(super) async fn privilege(
        &self,
        name: &str,
    ) -> Result<(bool, Option<String>), ClientError> {
        const PATH: &str = "_security/user/_has_privileges";
        let body = Some(Payload::json(&json!({ "cluster": [name] })));
        let answer = self.call(Method::POST, PATH, body, "show what the credentials allow").await?;
        // A server that does not answer the question does not deny the privilege.
        let has = answer["cluster"][name] != false;
        Ok((has, answer["username"].as_str().map(str::to_owned)))
    }

    /// The nodes that can run models.
    ///
    /// # Errors
    /// [`ClientError`] if the cluster does not show its nodes.
    pub async fn machine_learning_nodes(&self) -> Result<Vec<MachineLearningNode>, ClientError> {
        let answer = self.memory_of_nodes().await?;
        Ok(MachineLearningNode::read_all(&answer))
    }

    /// The memory of the nodes for machine learning, as the API reports it.
    pub(super) async fn memory_of_nodes(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "_ml/memory/_stats", None, "show the memory of its nodes").await
    }

    /// Bytes of memory that machine learning can use in the cluster, as text, including nodes that the cluster can add. `None` if the
    /// cluster does not say.
    ///
    /// # Errors
    /// [`ClientError`] if the cluster does not show the limits.
    pub async fn machine_learning_limit(&self) -> Result<Option<String>, ClientError> {
        let answer = self.call(Method::GET, "_ml/info", None, "show its limits").await?;
        Ok(answer["limits"]["total_ml_memory"].as_str().map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn licence_without_machine_learning_has_a_problem() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let read = |kind: &str, status: &str| {
            Licence::read(&json!({"license": {"type": kind, "status": status}}), now)
        };
        assert!(read("trial", "active").allows_machine_learning());
        assert!(read("enterprise", "active").allows_machine_learning());
        assert_eq!(read("basic", "active").problem().unwrap(), "it is a basic licence");
        let expired = read("trial", "expired").problem();
        assert_eq!(expired.unwrap(), "the trial licence is expired");
        assert!(Licence::read(&json!({}), now).allows_machine_learning());
        let trial = json!({"license": {"type": "trial", "status": "active",
            "expiry_date_in_millis": 3 * 86_400_000_u64 + 5}});
        assert_eq!(Licence::read(&trial, now).days_left, Some(2));
    }

    #[test]
    fn memory_and_processors_of_nodes_are_read() {
        let node = |name: &str, max: u64, attributes: Value| {
            json!({"name": name, "attributes": attributes, "mem": {"ml": {"max_in_bytes": max,
                "native_code_overhead_in_bytes": 10, "native_inference_in_bytes": 30}}})
        };
        let nodes = MachineLearningNode::read_all(&json!({"nodes": {
            "a": node("two", 100, json!({"ml.allocated_processors": "8"})),
            "b": node("one", 20, json!({"ml.allocated_processors_double": "1.5", "ml.allocated_processors": "2"})),
            "c": node("data", 0, json!({})),
            "d": 3,
        }}));
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!((nodes[0].free_bytes, nodes[0].processors), (0, Some(1.5)));
        assert_eq!((nodes[1].free_bytes, nodes[1].processors), (60, Some(8.)));
    }
}
