//! What is asked of the cluster before anything is made on it. A question that it does not answer is no reason not to go on: the
//! request that needs the answer will say what is wrong.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::payload::Payload;
use super::{Client, ClientError};
use crate::bundle::Bundle;
use crate::version::Version;

/// What a process that serves a model takes beside the model (contract 7.5).
const NATIVE_PROCESS: u64 = 240 << 20;

impl Client {
    /// Refuses when the credentials do not allow to manage models.
    pub(super) async fn check_privilege(&self) -> Result<(), ClientError> {
        const PATH: &str = "_security/user/_has_privileges";
        let body = json!({"cluster": ["manage_ml"]}).to_string().into_bytes();
        let body = Some(Payload::json(body));
        match self.call(Method::POST, PATH, body, "tell what the credentials allow").await {
            Ok(answer) if answer["cluster"]["manage_ml"] == false => Err(ClientError::Privilege {
                reason: match answer["username"].as_str() {
                    Some(user) => format!("the user {user} may not manage machine learning"),
                    None => "they may not manage machine learning".into(),
                },
                kind: "cluster",
                privilege: "manage_ml".into(),
            }),
            Err(error @ ClientError::Credentials(_)) => Err(error),
            Ok(_) => Ok(()),
            // Without security there is nobody to ask.
            Err(error) => {
                tracing::debug!("the privileges are not known: {error}");
                Ok(())
            }
        }
    }

    /// Warns when no machine-learning node could ever hold the model.
    pub(super) async fn warn_of_memory(&self, bundle: &Bundle) {
        if self.is_serverless() {
            return;
        }
        const PATH: &str = "_ml/memory/_stats";
        let answer = match self.call(Method::GET, PATH, None, "tell its nodes' memory").await {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!("the nodes' memory is not known: {error}"),
        };
        let length = (*bundle.definition.bytes).as_ref().len() as u64;
        let metadata = bundle.configuration.get("metadata").and_then(Value::as_object);
        let metadata = metadata.filter(|_| self.supports(Version::MEMORY_METADATA));
        match memory_warning(&answer, required_memory(length, metadata)) {
            Some(warning) => tracing::warn!("{warning}"),
            None => tracing::debug!("a node has enough memory"),
        }
    }
}

/// Bytes that a node needs for one allocation of a model (contract 7.5).
fn required_memory(length: u64, metadata: Option<&Map<String, Value>>) -> u64 {
    let figure = |name: &str| metadata.and_then(|metadata| metadata.get(name)?.as_f64());
    let base = NATIVE_PROCESS.saturating_add(length.saturating_mul(2));
    match (figure("per_deployment_memory_bytes"), figure("per_allocation_memory_bytes")) {
        (None, None) => base,
        (deployment, allocation) => {
            let measured = deployment.unwrap_or_default() + allocation.unwrap_or_default();
            base.max(length.saturating_add(measured.max(0.) as u64))
        }
    }
}

/// What to say when no node has room, going by what each may use for machine learning at all.
fn memory_warning(answer: &Value, needed: u64) -> Option<String> {
    let nodes = answer["nodes"].as_object()?;
    let room = nodes.values().filter_map(|node| node["mem"]["ml"]["max_in_bytes"].as_u64());
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    match room.max().unwrap_or(0) {
        0 => Some(
            "the cluster has no machine-learning node (role ml): the model can be stored, but not started"
                .into(),
        ),
        room if room < needed => Some(format!(
            "one allocation of the model needs {} MiB, and the largest machine-learning node has {} MiB for it: the model can be stored, but will not start there",
            mib(needed),
            mib(room)
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_contract_s_estimate() {
        let mib = 1 << 20;
        assert_eq!(required_memory(mib, None), 242 * mib);
        let metadata = json!({"per_deployment_memory_bytes": 400 * mib, "per_allocation_memory_bytes": 1.5 * mib as f64});
        let needed = required_memory(100 * mib, metadata.as_object());
        assert_eq!(needed, 501 * mib + mib / 2);
        let nodes = |room: &[u64]| {
            let nodes: Map<String, Value> = room
                .iter()
                .enumerate()
                .map(|(i, room)| (i.to_string(), json!({"mem": {"ml": {"max_in_bytes": room}}})))
                .collect();
            json!({ "nodes": nodes })
        };
        assert!(memory_warning(&nodes(&[0, needed]), needed).is_none());
        let warning = memory_warning(&nodes(&[0, 400 * mib]), needed).unwrap();
        assert!(warning.contains("502 MiB") && warning.contains("400 MiB"), "{warning}");
        assert!(memory_warning(&nodes(&[0]), needed).unwrap().contains("no machine-learning node"));
        assert!(memory_warning(&json!({}), needed).is_none());
    }
}
