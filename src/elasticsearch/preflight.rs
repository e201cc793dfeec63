//! Checks before anything is stored on the cluster: license, privilege and memory. A check passes if the cluster does not respond
//! to it, because a later request fails with the reason.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Client, ClientError};
use crate::bundle::{Bundle, required_memory};
use crate::version::Version;

impl Client {
    /// Checks that the licence of the cluster allows machine learning. The check passes if the licence cannot be read, because a
    /// later request fails if it is insufficient.
    ///
    /// # Errors
    /// [`ClientError::Licence`], or another [`ClientError`] if the cluster does not respond.
    pub async fn check_licence(&self) -> Result<(), ClientError> {
        if self.is_serverless() {
            return Ok(());
        }
        match self.licence().await {
            Ok(licence) => licence.problem().map_or(Ok(()), |it| Err(ClientError::Licence(it))),
            Err(ClientError::Privilege { .. } | ClientError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks that the credentials allow the management of models.
    pub(super) async fn check_privilege(&self) -> Result<(), ClientError> {
        match self.privilege("manage_ml").await {
            Ok((false, user)) => Err(ClientError::Privilege {
                reason: match user {
                    Some(user) => {
                        format!("the user {user} is not allowed to manage machine learning")
                    }
                    None => "they do not include machine learning".into(),
                },
                kind: "cluster",
                privilege: "manage_ml".into(),
            }),
            Err(error @ ClientError::Credentials(_)) => Err(error),
            Ok(_) => Ok(()),
            // A cluster without security does not support this request.
            Err(error) => {
                tracing::debug!("the privileges are not available: {error}");
                Ok(())
            }
        }
    }

    /// Warns if no machine learning node has enough memory for the model.
    pub(super) async fn warn_of_memory(&self, bundle: &Bundle) {
        let length = bundle.artifact.bytes.len() as u64;
        let metadata = bundle.configuration.get("metadata").and_then(Value::as_object);
        match self.room(length, metadata).await {
            Some(room) if !room.has_room => tracing::warn!(
                "{room}. The model can be stored, but {}",
                if room.largest_node_bytes == 0 { "not started" } else { "will not start there" }
            ),
            _ => tracing::debug!("a node has enough memory, or its memory is not available"),
        }
    }

    /// Whether a machine learning node has enough memory for a model with a definition of `length` bytes and this metadata. `None`
    /// if the cluster does not report the memory, as serverless, which has no nodes.
    pub async fn room(&self, length: u64, metadata: Option<&Map<String, Value>>) -> Option<Room> {
        if self.is_serverless() {
            return None;
        }
        let answer = match self.memory_of_nodes().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!("the memory of the nodes is not available: {error}");
                return None;
            }
        };
        let metadata = metadata.filter(|_| self.supports(Version::MEMORY_METADATA));
        Room::read(&answer, required_memory(length, metadata))
    }
}

/// Memory of a cluster's nodes, compared with the memory for one allocation of a model. Memory in use counts as free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Bytes for one allocation.
    pub required_bytes: u64,
    /// Bytes of the largest machine learning node; 0 without such a node.
    pub largest_node_bytes: u64,
    /// Whether the largest node has enough memory.
    pub has_room: bool,
}

impl Room {
    fn read(answer: &Value, required_bytes: u64) -> Option<Self> {
        let nodes = answer["nodes"].as_object()?;
        let room = nodes.values().filter_map(|node| node["mem"]["ml"]["max_in_bytes"].as_u64());
        let largest_node_bytes = room.max().unwrap_or(0);
        let has_room = largest_node_bytes >= required_bytes;
        Some(Self { required_bytes, largest_node_bytes, has_room })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        if self.largest_node_bytes == 0 {
            return f.write_str("the cluster has no machine learning node (role ml)");
        }
        write!(
            f,
            "one allocation of the model needs {} MiB, and the largest machine learning node has {} MiB",
            mib(self.required_bytes),
            mib(self.largest_node_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn room_is_that_of_the_largest_node() {
        let mib = 1 << 20;
        let needed = 501 * mib + mib / 2;
        let nodes = |room: &[u64]| {
            let nodes: Map<String, Value> = room
                .iter()
                .enumerate()
                .map(|(i, room)| (i.to_string(), json!({"mem": {"ml": {"max_in_bytes": room}}})))
                .collect();
            json!({ "nodes": nodes })
        };
        let room = |answer: &Value| Room::read(answer, needed);
        assert!(room(&nodes(&[0, needed])).unwrap().has_room);
        let small = room(&nodes(&[0, 400 * mib])).unwrap();
        let text = small.to_string();
        assert!(!small.has_room && text.contains("502 MiB") && text.contains("400 MiB"), "{text}");
        let none = room(&nodes(&[0])).unwrap();
        assert!(!none.has_room && none.to_string().contains("no machine learning node"));
        assert!(room(&json!({})).is_none());
    }
}
