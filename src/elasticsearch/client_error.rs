//! [`ClientError`]: what can fail between this machine and a stored model.

use std::path::PathBuf;
use std::time::Duration;

use super::{ConnectionFailure, RemoteState};
use crate::error_chain::ErrorChain;
use crate::hint::{Command, Hint, Setting, hint};
use crate::model_id::ModelId;
use crate::version::Version;

/// What can fail between this machine and a stored model. No message contains a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An address of the cluster is not valid.
    #[error("the address of the cluster is not valid: {0}")]
    Address(String),
    /// The cloud id is not valid.
    #[error("the cloud id is not valid")]
    CloudId,
    /// The definition of a tree model inflates to more than a node accepts.
    #[error(
        "the definition has {bytes} bytes of JSON, but the smallest node accepts {limit} (a tenth of its heap)"
    )]
    DefinitionTooLarge {
        /// Bytes of the definition's JSON.
        bytes: u64,
        /// The most that a node accepts.
        limit: u64,
    },
    /// Another setting of the connection is not valid.
    #[error("the {setting} is not valid: {reason}")]
    Setting {
        /// The setting.
        setting: Setting,
        /// What is wrong.
        reason: String,
    },
    /// A file of certificates or keys cannot be used.
    #[error("cannot use {path} as {setting}: {reason}", path = path.display())]
    Certificates {
        /// The setting that names the file.
        setting: Setting,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// There was no answer, or only a part of it.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// The kind of failure.
        failure: ConnectionFailure,
        /// What failed, down to the innermost cause.
        reason: String,
        /// Whether the request may have reached the server, so that it may have been carried out.
        sent: bool,
        /// What failed, cause by cause; none if there was an answer.
        #[source]
        cause: Option<ErrorChain>,
    },
    /// None of several addresses is a usable cluster.
    #[error("none of the {} addresses can be used:\n{}", .0.len(), numbered(.0))]
    NoneUsable(Vec<ClientError>),
    /// The server that answers is not Elasticsearch.
    #[error("{url} is not Elasticsearch: {reason}")]
    NotElasticsearch {
        /// The address.
        url: String,
        /// What shows it.
        reason: String,
    },
    /// The very first request got 404.
    #[error("{url} does not exist on the server: {reason}")]
    WrongPath {
        /// The address.
        url: String,
        /// The server's reason.
        reason: String,
    },
    /// The cluster's libtorch cannot load the archives.
    #[error("the cluster runs Elasticsearch {0}, whose libtorch cannot load these models")]
    TooOld(Version),
    /// The cluster lacks a feature that the model needs.
    #[error("the cluster runs Elasticsearch {found}, and this model needs {needed} or later")]
    Unsupported {
        /// The version of the cluster.
        found: Version,
        /// The version that the model needs.
        needed: Version,
    },
    /// The cluster answered 401.
    #[error("the cluster does not accept the credentials: {0}")]
    Credentials(String),
    /// The cluster answered 403.
    #[error("the credentials do not allow this: {reason}")]
    Privilege {
        /// The server's reason.
        reason: String,
        /// `cluster` or `index`.
        kind: &'static str,
        /// The least privilege that the server's reason names.
        privilege: String,
    },
    /// The licence of the cluster does not include machine learning.
    #[error("the licence of the cluster does not allow machine learning: {0}")]
    Licence(String),
    /// The licence of the cluster does not include learning to rank.
    #[error("learning to rank needs an enterprise licence, and the cluster has a {0} licence")]
    RankingLicence(String),
    /// The cluster has a model with this id.
    #[error("the cluster already has a model {0}")]
    Exists(ModelId),
    /// The server, or a proxy in front of it, refused a request.
    #[error("{who} refused to {action} ({status}): {reason}",
        who = if kind.is_some() { "Elasticsearch" } else { "the cluster, or a proxy in front of it," })]
    Refused {
        /// What the request was to do.
        action: String,
        /// HTTP status.
        status: u16,
        /// The `type` of Elasticsearch's error object (contract 0.1), or `unknown` if Elasticsearch answers without one; none for answers
        /// of proxies.
        kind: Option<String>,
        /// The server's reason.
        reason: String,
        /// How long the answer asks to wait (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The id is an alias of another model.
    #[error("{alias} is an alias of the model {model_id}")]
    Alias {
        /// The id.
        alias: ModelId,
        /// The model.
        model_id: String,
    },
    /// The cluster has an incomplete model with this id, and this machine has no journal of its upload.
    #[error(
        "the cluster has an incomplete model {0}, whose upload was not started on this machine. The model was kept"
    )]
    ExistsIncomplete(ModelId),
    /// The existing model is to be kept, but its definition differs.
    #[error("the cluster has a model {0} with another definition. The model was kept")]
    Different(ModelId),
    /// Another process on this machine is importing a model with this id.
    #[error("another process on this machine is importing {0} into this cluster")]
    Underway(ModelId),
    /// Another import created the model first.
    #[error("another import created the model {0} in the meantime. That model was kept")]
    Overtaken(ModelId),
    /// Somebody deleted or replaced the model during the upload.
    #[error("the model {0} was deleted or replaced during the upload. What exists now was kept")]
    Lost(ModelId),
    /// Parts of an earlier model with this id do not go away.
    #[error("parts of an earlier model {0} are still stored, although that model was deleted")]
    Leftover(ModelId),
    /// The definition is larger than the server accepts.
    #[error(
        "the definition has {length} bytes, and Elasticsearch accepts at most 10,000 parts of 35 MiB"
    )]
    TooManyParts {
        /// Bytes of the definition.
        length: usize,
    },
    /// A file of the model changed after it was read.
    #[error("{path} changed during the import", path = path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// The model to be replaced is in use.
    #[error("the old model {model_id} cannot be deleted: {reason}\n{state}",
        state = if *stopped { "The model was stopped, and still exists." } else { "Nothing was changed." })]
    InUse {
        /// The model.
        model_id: ModelId,
        /// The server's reason.
        reason: String,
        /// Whether the model was stopped before.
        stopped: bool,
    },
    /// The tree model to be replaced is in use.
    #[error("the old model {model_id} cannot be deleted: {reason}\nNothing was changed.")]
    TreeModelInUse {
        /// The model.
        model_id: ModelId,
        /// The server's reason.
        reason: String,
    },
    /// A tree model cannot replace a model of another type.
    #[error(
        "the cluster has a model {model_id} of type {kind}, which a tree model does not replace. The model was kept"
    )]
    NotATreeModel {
        /// The model.
        model_id: ModelId,
        /// Its type.
        kind: String,
    },
    /// The cluster does not return the definition of the tree model to be replaced.
    #[error(
        "the cluster does not return the definition of the model {0}, so that it could not be restored after a failure. The model was kept"
    )]
    NoDefinition(ModelId),
    /// The server acknowledged every part, and still reports an incomplete definition.
    #[error(
        "Elasticsearch reports an incomplete definition of {0}, although it acknowledged every part"
    )]
    Incomplete(ModelId),
    /// An import ended early.
    #[error("{cause}{old}{remote_state}",
        old = if *replaced { format!("\nThe old model {model_id} was deleted before that.") } else { String::new() },
        remote_state = remote_state.sentence(model_id))]
    Unfinished {
        /// The reason.
        #[source]
        cause: Box<ClientError>,
        /// The model.
        model_id: ModelId,
        /// What is on the cluster now.
        remote_state: RemoteState,
        /// Whether an old model was deleted before.
        replaced: bool,
    },
    /// The operating system does not allow to listen for Ctrl-C, without which no upload starts.
    #[error("cannot listen for Ctrl-C: {0}")]
    Signals(String),
    /// The user stopped the work.
    #[error("interrupted")]
    Interrupted,
}

impl ClientError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        let another_id = || hint!("Choose another id with ", Setting::ModelId, ".");
        Some(match self {
            Self::Address(_) => {
                hint!("Write an address as http://HOST:9200 or https://HOST:9200.")
            }
            Self::CloudId => hint!(
                "Copy the cloud id from the page of the deployment. It has the form NAME:BASE64."
            ),
            Self::Setting { setting: Setting::CaFingerprint, .. } => hint!(
                "Copy the fingerprint that Elasticsearch printed at its first start, or run `openssl x509 -fingerprint -sha256 \
                 -noout -in http_ca.crt`."
            ),
            Self::Setting { setting, .. } => hint!("Check the value of ", *setting, "."),
            Self::Certificates { setting: Setting::ClientKey, .. } => hint!(
                "Set ",
                Setting::ClientKey,
                " to a file with an unencrypted private key in PEM form. `openssl pkey -in KEY -out FILE` decrypts a key."
            ),
            Self::Certificates { setting, .. } => hint!(
                "Set ",
                *setting,
                " to a file of certificates in PEM form (-----BEGIN CERTIFICATE-----)."
            ),
            Self::Tls(_) => hint!(
                "Install certificate authorities (Debian package ca-certificates), or set ",
                Setting::CaCertificates,
                " or ",
                Setting::CaFingerprint,
                "."
            ),
            Self::Unreachable { failure, .. } => failure.hint(),
            Self::NoneUsable(errors) => {
                let mut hints: Vec<Hint> = Vec::new();
                for hint in errors.iter().filter_map(Self::hint) {
                    if !hints.contains(&hint) {
                        hints.push(hint);
                    }
                }
                hints.into_iter().reduce(Hint::and)?
            }
            Self::NotElasticsearch { .. } => {
                hint!("Check the address. A proxy or another service may have answered.")
            }
            Self::WrongPath { .. } => hint!(
                "Check the path of the address. An address behind a proxy may need a prefix; one without a proxy has no path."
            ),
            Self::TooOld(_) => {
                hint!(format!("Upgrade the cluster to {} or later.", Version::OLDEST))
            }
            Self::Unsupported { .. } => hint!("Upgrade the cluster."),
            Self::Credentials(_) => hint!(
                "Set ",
                Setting::ApiKey,
                ", ",
                Setting::Token,
                ", or ",
                Setting::Username,
                " with ",
                Setting::Password,
                " or ",
                Setting::PasswordFile,
                "."
            ),
            Self::Privilege { kind, privilege, .. } => hint!(format!(
                "Grant the {kind} privilege {privilege} to the user or API key{}.",
                if privilege == "manage_ml" { " (role machine_learning_admin)" } else { "" }
            )),
            Self::Licence(_) => hint!("Use a platinum, enterprise or trial licence."),
            Self::RankingLicence(_) => hint!("Use an enterprise or trial licence."),
            Self::Exists(_) => hint!(
                "Choose another id with ",
                Setting::ModelId,
                ", or replace the model with ",
                Setting::ClearPrevious,
                "."
            ),
            Self::Refused { status, kind, .. } => refusal_hint(*status, kind.as_deref())?,
            Self::Alias { .. } => another_id(),
            Self::ExistsIncomplete(id) => hint!(
                "If nobody is importing the model now, replace it with ",
                Setting::ClearPrevious,
                ", or delete it with ",
                Command::Delete(Some(id.to_string())),
                "."
            ),
            Self::Different(_) => hint!(
                "Choose another id with ",
                Setting::ModelId,
                ", or replace the model with ",
                Setting::ClearPrevious,
                "."
            ),
            Self::Underway(_) | Self::Overtaken(_) => {
                hint!("Wait for that import, or choose another id with ", Setting::ModelId, ".")
            }
            Self::Lost(_) => hint!("Import the model again if you still need it."),
            Self::Leftover(_) => {
                hint!(
                    "Try again in a few minutes, or choose another id with ",
                    Setting::ModelId,
                    "."
                )
            }
            Self::FileChanged { .. } => {
                hint!("Import the model again when nothing writes to the file.")
            }
            Self::InUse { reason, .. } => {
                hint!(release_hint(reason), " Or choose another id with ", Setting::ModelId, ".")
            }
            Self::TreeModelInUse { .. } => hint!(
                "Replace the model nevertheless with ",
                Setting::Force,
                ": its pipelines then use the new model. Or choose another id with ",
                Setting::ModelId,
                "."
            ),
            Self::NotATreeModel { model_id, .. } | Self::NoDefinition(model_id) => hint!(
                "Choose another id with ",
                Setting::ModelId,
                ", or delete the model first with ",
                Command::Delete(Some(model_id.to_string())),
                "."
            ),
            Self::Incomplete(_) => hint!("Import the model again."),
            Self::Unfinished { cause, model_id, remote_state, .. } => {
                let state = remote_state.hint(model_id);
                return cause.hint().into_iter().chain(state).reduce(Hint::and);
            }
            Self::DefinitionTooLarge { .. } => {
                hint!("Train fewer or shallower trees, or give the nodes a larger heap.")
            }
            Self::TooManyParts { .. } | Self::Signals(_) | Self::Interrupted => return None,
        })
    }

    /// Whether the same request may succeed a little later (contract 12): the connection failed, the cluster is too busy or not ready,
    /// or a gateway does not reach the cluster. A 429 that reports a lack of room for the model is not transient.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { failure, .. } => failure.is_transient(),
            Self::Refused { status: 429, kind, .. } => matches!(
                kind.as_deref(),
                None | Some("circuit_breaking_exception" | "es_rejected_execution_exception")
            ),
            Self::Refused { status: 502..=504, .. } => true,
            _ => false,
        }
    }

    /// Whether the request may have been carried out although it failed, so that "already exists" after another attempt means success.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => *sent,
            _ => self.is_transient(),
        }
    }

    /// How long the answer asks to wait before the next attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn numbered(errors: &[ClientError]) -> String {
    let lines = errors.iter().zip(1..).map(|(error, number)| format!("{number}. {error}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The hint for a refusal whose reason does not explain enough.
fn refusal_hint(status: u16, kind: Option<&str>) -> Option<Hint> {
    Some(match (status, kind) {
        (413, _) => hint!(
            "Set a smaller ",
            Setting::PartSize,
            ", or raise the limit of the proxy or of the cluster (http.max_content_length)."
        ),
        (429, Some("circuit_breaking_exception" | "es_rejected_execution_exception") | None) => {
            hint!(
                "The cluster is too busy. Try again later, or set a lower ",
                Setting::Concurrency,
                "."
            )
        }
        (502 | 504, _) => hint!(
            "A proxy or load balancer does not reach the cluster. Check whether Elasticsearch is running."
        ),
        (503, _) => {
            hint!(
                "The cluster, or a proxy in front of it, is not ready. Check its health, and try again."
            )
        }
        _ => return None,
    })
}

/// What releases a model that cannot be deleted, by the server's reason.
fn release_hint(reason: &str) -> &'static str {
    if reason.contains("ingest processors") {
        "Remove the model or its alias from the ingest pipelines that name it."
    } else if reason.contains("deployed") {
        "Stop the deployments of the model (POST _ml/trained_models/DEPLOYMENT/deployment/_stop)."
    } else if reason.contains("inference endpoint") || reason.contains("inference service") {
        "Delete the inference endpoint that uses the model (DELETE _inference/ID)."
    } else {
        "Release the model."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_in_use_names_reason_state_and_way_out() {
        for (reason, stopped, parts) in [
            (
                "Cannot delete model [m] as it is still referenced by ingest processors; use force to delete the model",
                false,
                ["Nothing was changed", "ingest pipelines"],
            ),
            (
                "Cannot delete model [m] as it is currently deployed; use force to delete the model",
                true,
                ["still exists", "Stop the deployments"],
            ),
            (
                "Model [m] is used by an inference endpoint",
                false,
                ["Nothing was changed", "DELETE _inference/ID"],
            ),
        ] {
            let model_id = "m".parse().unwrap();
            let error = ClientError::InUse { model_id, reason: reason.into(), stopped };
            let text = format!("{error}\n{}", error.hint().unwrap());
            assert!(
                text.contains(reason) && parts.iter().all(|part| text.contains(part)),
                "{text}"
            );
        }
    }

    #[test]
    fn hint_of_unfinished_import_joins_cause_and_state() {
        let error = ClientError::Unfinished {
            cause: Box::new(ClientError::Credentials("no".into())),
            model_id: "m".parse().unwrap(),
            remote_state: RemoteState::Resumable { stored: 3, parts: 7 },
            replaced: true,
        };
        let text = error.to_string();
        assert!(
            text.contains("3 of 7 parts") && text.contains("old model m was deleted"),
            "{text}"
        );
        let hint = error.hint().unwrap().to_string();
        assert!(
            hint.contains("`api_key`") && hint.contains("Run the same command again"),
            "{hint}"
        );
    }

    fn refused(status: u16, kind: Option<&str>) -> ClientError {
        let (kind, action, reason) = (kind.map(str::to_owned), "act".into(), "no".into());
        ClientError::Refused { action, status, kind, reason, retry_after: None }
    }

    #[test]
    fn transient_errors_are_connections_and_busy_clusters() {
        for (status, kind, transient) in [
            (429, Some("circuit_breaking_exception"), true),
            (429, Some("es_rejected_execution_exception"), true),
            (429, Some("status_exception"), false),
            (429, None, true),
            (400, Some("status_exception"), false),
            (413, None, false),
            (500, Some("exception"), false),
            (503, Some("cluster_block_exception"), true),
            (504, None, true),
        ] {
            assert_eq!(refused(status, kind).is_transient(), transient, "{status} {kind:?}");
        }
        let unreachable = |failure, sent| ClientError::Unreachable {
            url: "http://x/".into(),
            failure,
            reason: String::new(),
            sent,
            cause: None,
        };
        assert!(unreachable(ConnectionFailure::Broken, true).is_ambiguous());
        assert!(!unreachable(ConnectionFailure::Refused, false).is_ambiguous());
        assert!(!unreachable(ConnectionFailure::UnknownIssuer, false).is_transient());
    }
}
