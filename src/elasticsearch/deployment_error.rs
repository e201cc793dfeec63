//! [`DeploymentError`]: what can fail with models that are stored in the cluster, and the ids by which they are served.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::reasons;
use super::{ClientError, PipelineId};
use crate::hint::{Command, Hint, Setting, hint};
use crate::model_id::ModelId;
use crate::version::Version;

/// What can fail with models that are stored in the cluster: starting, stopping, testing, listing and deleting them, and creating
/// inference endpoints.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentError {
    /// The cluster does not answer, or refuses the connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Settings that the server would refuse.
    #[error("{reason}")]
    Settings {
        /// What is wrong.
        reason: String,
        /// What to change.
        hint: Hint,
    },
    /// A setting that the version of the cluster does not support.
    #[error("the {setting} needs Elasticsearch {needed} or later, and the cluster runs {found}")]
    Unsupported {
        /// The setting.
        setting: Setting,
        /// The version of the cluster.
        found: Version,
        /// The first version that supports the setting.
        needed: Version,
    },
    /// The cluster has no model or deployment with this id.
    #[error("the cluster has no {what} {id}")]
    NotFound {
        /// "model", "deployment", or both.
        what: &'static str,
        /// The id.
        id: ServedId,
    },
    /// The server refused a request.
    #[error("Elasticsearch refused to {action}: {reason}")]
    Refused {
        /// What the request was to do.
        action: String,
        /// The server's reason.
        reason: String,
    },
    /// The model is stored but does not run.
    #[error("the model {model_id} is stored, but could not be started: {reason}")]
    NotStarted {
        /// The model.
        model_id: ServedId,
        /// The server's reason.
        reason: String,
        /// What to do, beside what the reason suggests.
        hint: Option<Hint>,
    },
    /// The model runs but does not answer.
    #[error("{deployment_id} is started, but does not answer the smoke test: {reason}")]
    SmokeTest {
        /// The deployment.
        deployment_id: ServedId,
        /// The server's reason.
        reason: String,
    },
    /// An inference endpoint with this id exists and does something else.
    #[error("the cluster already has an inference endpoint {id}, which does {task}")]
    EndpointTaken {
        /// The endpoint.
        id: EndpointId,
        /// What the existing endpoint does.
        task: String,
    },
    /// The model is stored but its inference endpoint is not.
    #[error(
        "the model {model_id} is stored, but the inference endpoint {id} could not be created: {reason}"
    )]
    NoEndpoint {
        /// The endpoint.
        id: EndpointId,
        /// The model.
        model_id: ModelId,
        /// The server's reason.
        reason: String,
    },
    /// An ingest pipeline with this id exists and does something else.
    #[error(
        "the cluster already has an ingest pipeline {id}, which does something else. The pipeline was kept"
    )]
    PipelineTaken {
        /// The pipeline.
        id: PipelineId,
    },
    /// The model is stored, but its ingest pipeline is not.
    #[error("the ingest pipeline {id} for the model {model_id} was not created: {reason}")]
    NoPipeline {
        /// The pipeline.
        id: PipelineId,
        /// The model.
        model_id: ServedId,
        /// The reason.
        reason: String,
        /// What to do, beside what the reason suggests.
        hint: Option<Hint>,
    },
    /// A model does not answer.
    #[error("{reason}")]
    NotServed {
        /// Why the model does not answer.
        reason: String,
        /// What to do.
        hint: Option<Hint>,
    },
    /// The user stopped the wait for a deployment.
    #[error(
        "interrupted. The model {model_id} is stored, and Elasticsearch continues to start the deployment {deployment_id}"
    )]
    Interrupted {
        /// The model.
        model_id: ServedId,
        /// The deployment.
        deployment_id: ServedId,
    },
}

impl DeploymentError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Settings { hint, .. } => Some(hint.clone()),
            Self::Unsupported { setting, .. } => {
                Some(hint!("Leave out ", *setting, ", or upgrade the cluster."))
            }
            Self::NotFound { .. } => {
                Some(hint!("Run ", Command::List, " to see what the cluster has."))
            }
            Self::PipelineTaken { .. } => {
                Some(hint!("Choose another id, or replace the pipeline with ", Setting::Force, "."))
            }
            Self::NotStarted { reason, hint, .. } | Self::NoPipeline { reason, hint, .. } => {
                reasons::hint(reason).into_iter().chain(hint.clone()).reduce(Hint::and)
            }
            Self::Refused { reason, .. }
            | Self::SmokeTest { reason, .. }
            | Self::NoEndpoint { reason, .. } => reasons::hint(reason),
            Self::EndpointTaken { .. } => Some(hint!(
                "Choose another id with ",
                Setting::CreateEndpoint,
                ", or delete that endpoint."
            )),
            Self::NotServed { hint, .. } => hint.clone(),
            Self::Interrupted { deployment_id, .. } => {
                let id = || Some(deployment_id.to_string());
                Some(hint!(
                    "Show the deployment with ",
                    Command::Status(id()),
                    ", or end it with ",
                    Command::Stop(id()),
                    "."
                ))
            }
        }
    }

    /// An error for settings that the server would refuse.
    pub(super) fn settings(reason: impl Into<String>, hint: Hint) -> Self {
        Self::Settings { reason: reason.into(), hint }
    }

    /// A refusal by Elasticsearch itself. Other errors, such as those of a proxy or a busy cluster, keep their type.
    pub(super) fn refused(error: ClientError, action: impl FnOnce() -> String) -> Self {
        match error {
            ClientError::Refused { kind: Some(_), ref reason, .. } if !error.is_transient() => {
                Self::Refused { action: action(), reason: reason.clone() }
            }
            other => other.into(),
        }
    }
}

/// Whether the reason of a 404 is about the model, and not about its definition (contract 7.2).
pub(super) fn is_unknown_model(reason: &str) -> bool {
    reason.contains("No known trained model") || reason.contains("Could not find trained model [")
}

/// The id of one model or deployment in a cluster. Built-in models and deployments have ids that no imported model can have
/// (`.elser_model_2`), so this type accepts more than [`ModelId`]. Patterns and lists are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedId(String);

impl ServedId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a segment of a path.
    pub(super) fn segment(&self) -> String {
        const ESCAPED: AsciiSet =
            NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        utf8_percent_encode(&self.0, &ESCAPED).to_string()
    }
}

impl From<&ModelId> for ServedId {
    fn from(id: &ModelId) -> Self {
        Self(id.to_string())
    }
}

impl FromStr for ServedId {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        let refused = |c: char| "/\\,*?".contains(c) || c.is_control() || c.is_whitespace();
        if id.is_empty() || id == "." || id == ".." || id == "_all" || id.contains(refused) {
            return Err("it is not the id of one model or deployment".into());
        }
        Ok(Self(id.to_owned()))
    }
}

impl fmt::Display for ServedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an inference endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EndpointId(String);

impl EndpointId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointId {
    type Err = String;

    /// Reads an id by the rule for model ids, without a limit for the length.
    fn from_str(id: &str) -> Result<Self, String> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let outer =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let (first, last) = (id.chars().next(), id.chars().next_back());
        if id == "_all" || !id.chars().all(inner) || !outer(first) || !outer(last) {
            return Err(
                "use lower-case letters, digits, hyphens, underscores and dots, with a letter or digit first and last"
                    .into(),
            );
        }
        Ok(Self(id.to_owned()))
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_id_names_one_thing() {
        for id in ["m", ".elser_model_2_linux-x86_64", "My-deployment", "ü"] {
            assert_eq!(id.parse::<ServedId>().unwrap().as_str(), id);
        }
        for id in ["", ".", "..", "a/b", "a\\b", "a,b", "a*", "_all", "a b", "a?b", "a\n"] {
            assert!(id.parse::<ServedId>().is_err(), "{id}");
        }
    }

    #[test]
    fn endpoint_id_follows_the_server_rule() {
        for id in ["my-endpoint", "e5.small_2", "a"] {
            assert!(id.parse::<EndpointId>().is_ok(), "{id}");
        }
        for id in ["", "Mine", "-a", "a-", "_all", "a/b", "ü"] {
            assert!(id.parse::<EndpointId>().is_err(), "{id}");
        }
    }
}
